"""Strict JSON: read and written whole, checked against a typed record.

A file may come from anybody, so what it costs to read is bounded by its length (at most 30 times that in memory):
text that makes far more objects than it is long is refused before it is parsed, and of a list, a map or an unknown
object only the first problem is looked for. (A list of millions of wrong values would else make as many problems, each
a thousand times as large as the value.)
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    FailFast,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)

from avbench.system.atomic import atomic_write_bytes
from avbench.types import AvbenchError, UsageError

SCHEMA_VERSION = 1
R = TypeVar("R", bound=BaseModel)
K = TypeVar("K")
V = TypeVar("V")
# Every object or list of a document takes up to 230 bytes of memory. Ours have 40 bytes of text each and more.
TEXT_PER_PART = 16
PARTS_ANYHOW = 10_000


def _undefined_is_null(value: Any) -> Any:
    """In Python an undefined score is nan (``metrics.score``), in a result it is None; infinity stays an error."""
    return None if isinstance(value, float) and math.isnan(value) else value


Number = Annotated[float | None, BeforeValidator(_undefined_is_null)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


def _one_by_one(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
    """Validate the entries of a map one after another, up to the first wrong one, and then the whole."""
    if isinstance(value, dict):
        for entry in value.items():
            handler(dict([entry]))
    return handler(value)


ONE_BY_ONE = WrapValidator(_one_by_one)
Many = Annotated[list[V], FailFast()]  # a list in a record
Named = Annotated[dict[K, V], ONE_BY_ONE]  # a map in a record


class StrictPart(BaseModel):
    """Unknown fields are refused, numbers are finite, nothing is converted from text.

    Lists in it are ``Many[...]``, maps ``Named[..., ...]``: of these the first problem is found, not all.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)

    @model_validator(mode="before")
    @classmethod
    def _few_fields(cls, value: Any) -> Any:
        """Each unknown field is a problem of its own: refuse so many at once."""
        if isinstance(value, dict) and len(value) > len(cls.model_fields) + 100:
            raise ValueError(f"has {len(value)} fields, {len(cls.model_fields)} are known")
        return value


def strict_json(record: BaseModel) -> str:
    """Keys sorted, two spaces, UTF-8, a newline at the end; ``AvbenchError`` for what strict JSON cannot express."""
    try:
        text = json.dumps(record.model_dump(), sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        text.encode("utf-8")
    except ValueError as error:  # NaN inside the free-form protocol or environment, half a surrogate pair
        raise AvbenchError(f"the result cannot be written as JSON: {one_line(error)}") from error
    return text


def parse_record(data: bytes, path: Path | str, kind: type[R], what: str, advice: str) -> R:
    """One record of ``kind`` from strict JSON; ``path`` names it in errors. ``UsageError`` as in ``read_run``."""
    document = parse_json(data, path)
    if not isinstance(document, dict):
        raise UsageError(f"{path} does not contain {what} (a JSON object)")
    version = document.get("schema_version")
    if type(version) is not int or version != SCHEMA_VERSION:
        raise UsageError(
            f"{path} has schema_version {json.dumps(version)[:40]}; this avbench reads {SCHEMA_VERSION}: "
            f"{advice}, or use the avbench version that wrote it"
        )
    try:
        return kind.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part)[:60] for part in first["loc"])
        said = f"field {where}: {first['msg']}" if where else first["msg"].removeprefix("Value error, ")
        raise UsageError(f"{path}: {said} ({error.error_count()} problem(s) in all)") from None


def parse_json(data: bytes, path: Path | str) -> Any:
    """Strict JSON in UTF-8: no NaN, no infinity, no key twice, no half surrogate pair; else ``UsageError``.

    The same for text that is almost nothing but the brackets of objects and lists.
    """

    def refuse(token: str) -> Any:
        raise ValueError(f"{token[:40]} is not a finite number")

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError("a key appears twice in one object")
        return found

    def finite(token: str) -> float:
        number = float(token)
        return number if math.isfinite(number) else refuse(token)

    parts = data.count(b"{") + data.count(b"[")
    try:
        if parts > PARTS_ANYHOW + len(data) // TEXT_PER_PART:
            raise ValueError(f"it has up to {parts} objects and lists in {len(data)} bytes")
        document = json.loads(data.decode("utf-8"), parse_constant=refuse, parse_float=finite, object_pairs_hook=once)
        if b"\\u" in data:
            json.dumps(document, ensure_ascii=False).encode("utf-8")  # an escaped half of a surrogate pair is no text
        return document
    except (ValueError, RecursionError) as error:  # bad UTF-8 and bad JSON are both ValueErrors
        raise UsageError(f"{path} is not strict JSON: {one_line(error)}") from None


def read_bytes(path: Path, limit_bytes: int) -> bytes:
    """A file's bytes; ``UsageError`` if it has more than ``limit_bytes`` or cannot be read."""
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > limit_bytes:
                raise UsageError(f"{path} has {size} bytes; more than {limit_bytes} are not read")
            return file.read(limit_bytes + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise UsageError(f"cannot read {path}: {one_line(error)}") from None


def write_whole(path: Path, data: bytes) -> None:
    """Writes ``data`` atomically, making the folder if needed; ``AvbenchError`` on failure."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write_bytes(path, data)
    except OSError as error:
        raise AvbenchError(f"cannot write {path}: {error.strerror or error}; nothing was left half-written") from error


def one_line(error: Exception) -> str:
    """The error's message in one line of at most 200 characters."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split())[:200] or type(error).__name__
