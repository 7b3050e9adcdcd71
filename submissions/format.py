"""Format v1 of a submission: a folder ``<org>__<model>/<revision>/<track>/`` of plain files.

``submission.json`` (a ``Submission``: the model's card, the run it comes from, what is claimed, the files' hashes),
``predictions.parquet`` (as a run writes it: segment_id, iteration, 21 logits) and, optionally, ``latency.json``. No
other file is allowed, and nothing in the folder is ever run. All text that a person typed is checked here, when it is
read: known fields only, plain text of bounded length, http(s) addresses, names that are safe as folders on any system.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeVar
from urllib.parse import urlsplit

import pydantic
from pydantic import AfterValidator, Field, StringConstraints, model_validator

from avbench.results.run import RUN_FILE
from avbench.system import paths
from avbench.system.atomic import atomic_write_bytes
from avbench.system.strict import ONE_BY_ONE, Many, Number, Sha256, StrictPart, parse_json
from avbench.types import AvbenchError, UsageError

Model = TypeVar("Model", bound=pydantic.BaseModel)

SCHEMA_VERSION = 1
SUBMISSION_FILE = "submission.json"
PREDICTIONS_FILE = "predictions.parquet"
LATENCY_FILE = "latency.json"
SCHEMA_PATH = Path(__file__).parent / "schemas" / "submission.v1.json"
# size limits, checked before parsing; a track of 32,000 segments x 18 iterations has 45 MB of predictions
MAX_BYTES = {SUBMISSION_FILE: 256 * 2**10, PREDICTIONS_FILE: 256 * 2**20, LATENCY_FILE: 8 * 2**20}

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
TRACK_PATTERN = r"^[a-z0-9][a-z0-9.-]{0,63}$"
# reserved names on Windows, with or without an extension: such a folder could not be checked out there
_DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(10))}
_SCHEME = re.compile(r"(?:java|vb|live)script\s*:|data\s*:\s*[a-z]+/", re.IGNORECASE)
_ENTITY = re.compile(r"&(?:#|[A-Za-z][A-Za-z0-9]*;)")


class Problem(NamedTuple):
    """What is wrong with one field of a submission."""

    field: str
    message: str


class ValidationError(UsageError):
    """A submission is refused. ``problems``: all problems found at this stage; ``lines``: each in words; the message
    gives the first one."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(Problem(_shown_field(p.field), shown(p.message, 400)) for p in problems)
        more = len(self.problems) - 1
        rest = f" (and {more} more problem{'s' * (more > 1)})" if more else ""
        super().__init__(f"{self.lines[0]}{rest}")

    @property
    def lines(self) -> list[str]:
        """One line for each problem: the field, and what is wrong with it."""
        return [f"{problem.field}: {problem.message}" for problem in self.problems]


def refuse(field: str, message: str) -> ValidationError:
    """A ``ValidationError`` with one problem, to be raised."""
    return ValidationError([Problem(field, message)])


def shown(text: str, limit: int = 100) -> str:
    """``text`` made safe for one line of output: printable, no line breaks, at most ``limit`` characters."""
    plain = "".join(c if c.isprintable() else " " for c in text)
    plain = " ".join(plain.split())
    return plain if len(plain) <= limit else plain[: limit - 3] + "..."


def _shown_field(field: str) -> str:
    """A field's name as ASCII, never empty: it may be a key from an untrusted file."""
    return shown(field.encode("ascii", "replace").decode()) or "(a key without a printable name)"


# -- text from a person -----------------------------------------------------------------------------------------------


def _plain(text: str) -> str:
    """Accepts plain text only: printable, no markup, no script address. The site escapes it as well."""
    if not text.isprintable():  # control characters, line breaks, bidirectional overrides, lone surrogates
        raise ValueError("has a control, direction or line break character; it must be plain text on one line")
    if text != text.strip():
        raise ValueError("begins or ends with a space")
    if "<" in text or ">" in text or _ENTITY.search(text):
        raise ValueError("has markup (<, > or an & entity); it must be plain text")
    if _SCHEME.search(text):
        raise ValueError("has a script or data address; it must be plain text")
    return text


def plain_texts(value: Any, field: str, depth: int = 0) -> None:
    """``ValidationError`` unless every text in a free-form JSON value is plain and at most 400 characters long, and the
    value is nested at most 8 levels deep."""
    if depth > 8:
        raise refuse(field, "is nested too deeply")
    if isinstance(value, str) and value:
        try:
            _plain(value)
        except ValueError as error:
            raise refuse(field, str(error)) from None
        if len(value) > 400:
            raise refuse(field, "has more than 400 characters")
    elif isinstance(value, dict):
        for key, inner in value.items():
            plain_texts(key, f"{field}.{key}", depth)
            plain_texts(inner, f"{field}.{key}", depth + 1)
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            plain_texts(inner, f"{field}.{i}", depth + 1)


def _web_address(text: str) -> str:
    if not text.isascii() or any(c.isspace() or c in "<>\"'`\\{}|^" or not c.isprintable() for c in text):
        raise ValueError("is not a plain web address (ASCII, without spaces or quotes)")
    try:
        parts = urlsplit(text)
        host = parts.hostname
        _ = parts.port  # raises if the port is not a number
    except ValueError:
        raise ValueError("is not a web address") from None
    if parts.scheme not in ("http", "https") or not re.match("https?://", text):
        raise ValueError("must begin with https:// or http://")
    if not host or "@" in parts.netloc:
        raise ValueError("must have a host and no user name or password")
    return text


def _folder_name(name: str) -> str:
    if name.endswith(".") or ".." in name or "__" in name:
        raise ValueError("must not contain .. or __, or end with a dot")
    if name.partition(".")[0].lower() in _DEVICES:
        raise ValueError("is a reserved device name on Windows")
    return name


Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN), AfterValidator(_folder_name)]
TrackName = Annotated[str, StringConstraints(pattern=TRACK_PATTERN), AfterValidator(_folder_name)]
Url = Annotated[str, StringConstraints(max_length=300, pattern="^https?://"), AfterValidator(_web_address)]
Word = Annotated[str, StringConstraints(min_length=1, max_length=64), AfterValidator(_plain)]
Line = Annotated[str, StringConstraints(min_length=1, max_length=200), AfterValidator(_plain)]
Paragraph = Annotated[str, StringConstraints(min_length=1, max_length=1000), AfterValidator(_plain)]
Version = Annotated[str, StringConstraints(pattern=r"^[0-9]+\.[0-9]+\.[0-9]+[A-Za-z0-9.+-]{0,24}$")]
Fingerprint = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{12,64}$")]
MetricName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
Key = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
Count = Annotated[int, Field(ge=0, le=10**9)]
Created = Annotated[str, StringConstraints(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|\+00:00)$")]


class TrainingData(StrictPart):
    """What the model was trained on: "none" (not trained), "declared" (``datasets`` lists all) or "undeclared"."""

    status: Literal["none", "declared", "undeclared"]
    datasets: Annotated[Many[Line], Field(max_length=50, default_factory=list)]

    @model_validator(mode="after")
    def _list_fits(self) -> TrainingData:
        if self.status == "declared" and not self.datasets:
            raise ValueError("is declared, so datasets must name at least one")
        if self.status != "declared" and self.datasets:
            raise ValueError(f"is {self.status}, so datasets must be empty")
        return self


class Card(StrictPart):
    """The model and its makers. ``org`` and ``name`` are folder names and are shown on the leaderboard."""

    org: Name
    name: Name
    revision: Name
    description: Paragraph | None = None
    paper_url: Url | None = None
    code_url: Url | None = None
    parameters: Annotated[int, Field(ge=0, le=10**14)] | None = None
    backbone: Line
    head: Word
    training_data: TrainingData
    contact: Line | None = None
    licence: Word | None = None


class Provenance(StrictPart):
    """The run that made the predictions, from its run.json. ``environment`` is reported by the makers, not checked."""

    model: Line
    signature: Annotated[str, StringConstraints(max_length=400), AfterValidator(_plain)]
    model_fingerprint: Fingerprint
    manifest_sha256: Sha256
    avbench_version: Version
    created: Created
    n_segments: Annotated[int, Field(ge=1, le=10**6)]
    iterations: Annotated[int, Field(ge=1, le=1000)]
    weights_note: Paragraph | None = None
    environment: Annotated[dict[Key, Count | Line], Field(max_length=40, default_factory=dict), ONE_BY_ONE]


class FileInfo(StrictPart):
    """Hash and size of one file."""

    sha256: Sha256
    bytes: Annotated[int, Field(ge=1, le=2**31)]


class Files(StrictPart):
    """The folder's other files. Their names are fixed, so no path can be given here."""

    predictions: FileInfo
    latency: FileInfo | None = None

    def by_name(self) -> dict[str, FileInfo]:
        """File name -> hash and size, of the files present."""
        named = {PREDICTIONS_FILE: self.predictions, LATENCY_FILE: self.latency}
        return {name: info for name, info in named.items() if info is not None}


class Submission(StrictPart):
    """``submission.json``. ``claimed``: metric -> value (null where undefined), empty where the labels are hidden."""

    schema_version: Literal[1] = 1
    track: TrackName
    card: Card
    run: Provenance
    claimed: Annotated[dict[MetricName, Number], Field(max_length=32), ONE_BY_ONE]
    files: Files

    @property
    def entry(self) -> str:
        """``<org>__<model>/<revision>/<track>``: the folder below the entries' root, and the entry's name."""
        return f"{self.card.org}__{self.card.name}/{self.card.revision}/{self.track}"

    def to_json(self) -> str:
        """The text of ``submission.json``: sorted keys, indent 2, final newline; equal submissions give equal text."""
        return json.dumps(self.model_dump(), sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def json_schema() -> dict[str, Any]:
    """JSON Schema of ``submission.json`` (draft 2020-12), published as ``schemas/submission.v1.json``."""
    schema = Submission.model_json_schema(mode="serialization")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": "avbench/submission.v1.json", **schema}


def json_schema_text() -> str:
    """The text of the published schema file; ``python -m avbench.submissions.format`` prints it."""
    return json.dumps(json_schema(), sort_keys=True, indent=2) + "\n"


def find_submission(folder: Path) -> Path:
    """The folder of the submission that is meant: ``folder``, or the one below it that ``pack`` made there.
    ``UsageError`` if there are several, or for a run; ``folder`` itself if there is none: what is wrong with it is said
    later."""
    if (folder / SUBMISSION_FILE).exists() or not folder.is_dir():
        return folder
    if (folder / RUN_FILE).is_file():
        raise UsageError(f"{folder} is a run, not a submission; `avbench submit pack {folder} --out DIR` makes one")
    found = sorted(path.parent for path in folder.glob(f"*__*/*/*/{SUBMISSION_FILE}"))
    if len(found) > 1:
        raise UsageError(f"{folder} holds {len(found)} submissions; name one: {', '.join(map(str, found[:5]))}")
    return found[0] if found else folder


# -- reading -----------------------------------------------------------------------------------------------------------


class Folder(NamedTuple):
    """A submission's folder with its files read once, so that the bytes hashed are the bytes parsed."""

    path: Path
    submission: Submission
    content: dict[str, bytes]  # file name -> bytes, without submission.json


def read_folder(folder: Path | str) -> Folder:
    """Reads a submission's folder and checks names, sizes, schema and hashes, but not the predictions' content.

    ``ValidationError`` with the name of the first wrong field.
    """
    path = Path(os.path.abspath(folder))  # not resolved: a link must stay visible
    _refuse_links(path)
    present = _listing(path)
    submission = _read_submission(present.get(SUBMISSION_FILE))
    where = "/".join(path.parts[-3:])
    if where != submission.entry:
        raise refuse("folder", f"is {where}, but its submission.json says {submission.entry}")
    declared = submission.files.by_name()
    content = {}
    for name in (PREDICTIONS_FILE, LATENCY_FILE):
        if name in present and name not in declared:
            raise refuse(f"files.{Path(name).stem}", f"{name} is in the folder, but submission.json has no hash for it")
    for name, info in declared.items():
        field = f"files.{Path(name).stem}"
        if name not in present:
            raise refuse(field, f"{name} is not in the folder")
        data = _read_file(present[name], field)
        if len(data) != info.bytes:
            raise refuse(f"{field}.bytes", f"{name} has {len(data)} bytes, submission.json says {info.bytes}")
        if hashlib.sha256(data).hexdigest() != info.sha256:
            raise refuse(f"{field}.sha256", f"{name} is not the file that was packed (its sha256 differs)")
        content[name] = data
    return Folder(path, submission, content)


def find_entries(root: Path | str) -> list[Path]:
    """The submission folders three levels below ``root``, sorted by name; their contents are not read.

    ``UsageError`` if ``root`` is not a folder. Hidden folders and all files are ignored.
    """
    root = Path(root)
    if not root.is_dir():
        raise UsageError(f"{root} is not a folder of entries")
    folders = [root]
    for _ in range(3):
        inside = [child for folder in folders for child in folder.iterdir() if not child.name.startswith(".")]
        folders = [child for child in inside if child.is_dir() or child.is_symlink()]
    return sorted(folders, key=lambda folder: folder.parts)


def _refuse_links(path: Path) -> None:
    """Neither the folder nor the two above it, which belong to the submission, may be a link."""
    for folder in (path, path.parent, path.parent.parent):
        if folder.is_symlink():
            raise refuse("folder", f"{folder.name} is a link; a submission must consist of real folders and files")
    if not path.is_dir():
        raise refuse("folder", f"{paths.shown(path)} is not a folder")


def _listing(path: Path) -> dict[str, Path]:
    """The folder's files by name; refuses any file outside the format and anything but regular files."""
    found = {}
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.name not in MAX_BYTES:
                raise refuse(
                    "folder", f"contains {entry.name!r}; a submission has {', '.join(MAX_BYTES)} and nothing else"
                )
            if entry.is_symlink() or not entry.is_file(follow_symlinks=False):
                raise refuse("folder", f"{entry.name} is a link or not a regular file")
            found[entry.name] = Path(entry.path)
    return found


def _read_file(path: Path, field: str) -> bytes:
    """The file's bytes, up to its size limit; never through a link, never from a pipe or device."""
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
        with os.fdopen(handle, "rb") as file:
            facts, cap = os.fstat(file.fileno()), MAX_BYTES[path.name]
            if not stat.S_ISREG(facts.st_mode):
                raise refuse(field, f"{path.name} is not a regular file")
            if facts.st_size > cap:
                raise refuse(field, f"{path.name} has {facts.st_size} bytes; the limit is {cap}")
            return file.read(cap + 1)
    except OSError as error:
        raise refuse(field, f"{path.name} cannot be read: {error.strerror}") from None


def _read_submission(path: Path | None) -> Submission:
    if path is None:
        raise refuse("folder", f"has no {SUBMISSION_FILE}; make one with `avbench submit pack`")
    data = _read_file(path, SUBMISSION_FILE)
    try:
        document = parse_json(data, SUBMISSION_FILE)
    except UsageError as error:
        raise refuse(SUBMISSION_FILE, str(error)) from None
    if not isinstance(document, dict):
        raise refuse(SUBMISSION_FILE, "is not a JSON object")
    version = document.get("schema_version")
    if type(version) is not int or version != SCHEMA_VERSION:
        raise refuse("schema_version", f"is {json.dumps(version)[:40]}; this avbench reads {SCHEMA_VERSION}")
    return validated(Submission, document)


def validated(model: type[Model], document: Any, prefix: str = "") -> Model:
    """``document`` as a ``model``; ``ValidationError`` with the problems (at most 20), each with its field's name."""
    try:
        return model.model_validate(document)
    except pydantic.ValidationError as error:
        found = error.errors(include_url=False, include_input=False)[:20]
    raise ValidationError(
        Problem(
            prefix + (".".join(str(part) for part in problem["loc"] if part != "[key]") or model.__name__.lower()),
            _reason(problem),
        )
        for problem in found
    ) from None


def _reason(problem: Any) -> str:
    """What is wrong in words; a pattern is no words."""
    if problem.get("ctx", {}).get("pattern") == NAME_PATTERN:
        return "may have letters A-Z and a-z, digits, and . _ - after the first (64 at most); no spaces or other signs"
    return str(problem["msg"]).removeprefix("Value error, ")


# -- writing -----------------------------------------------------------------------------------------------------------


def write_folder(root: Path, submission: Submission, content: dict[str, bytes]) -> Path:
    """Writes ``root/<org>__<model>/<revision>/<track>/``, ``submission.json`` last, and returns it.

    ``UsageError`` if that submission already exists; ``AvbenchError`` if it cannot be written.
    """
    folder = Path(root) / submission.entry
    if (folder / SUBMISSION_FILE).exists():
        raise UsageError(f"{folder} already exists; choose another --revision, or delete it")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in [*content.items(), (SUBMISSION_FILE, submission.to_json().encode())]:
            atomic_write_bytes(folder / name, data)
    except OSError as error:
        raise AvbenchError(f"cannot write {folder}: {error.strerror or error}") from error
    return folder


if __name__ == "__main__":
    print(json_schema_text(), end="")
