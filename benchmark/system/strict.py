"""Strict JSON: read and written whole, checked against a typed record."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from avbench.system.atomic import atomic_write_bytes
from avbench.types import AvbenchError, UsageError

SCHEMA_VERSION = 1
R = TypeVar("R", bound=BaseModel)


def _undefined_is_null(value: Any) -> Any:
    """In Python an undefined score is nan (``metrics.score``), in a result it is None; infinity stays an error."""
    return None if isinstance(value, float) and math.isnan(value) else value


Number = Annotated[float | None, BeforeValidator(_undefined_is_null)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class StrictPart(BaseModel):
    """Unknown fields are refused, numbers are finite, nothing is converted from text."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)


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
        raise UsageError(f"{path}: field {where}: {first['msg']} ({error.error_count()} problem(s) in all)") from None


def parse_json(data: bytes, path: Path | str) -> Any:
    """Strict JSON in UTF-8: no NaN, no infinity, no key twice, no half surrogate pair; else ``UsageError``."""

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

    try:
        document = json.loads(data.decode("utf-8"), parse_constant=refuse, parse_float=finite, object_pairs_hook=once)
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
