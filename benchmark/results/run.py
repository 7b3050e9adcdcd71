"""The files of a run: ``run.json`` (a ``RunResult``), ``predictions.parquet`` (every iteration's logits) and
``segments.parquet`` (labels and videos of the scored segments, so that two runs can be compared without their media).

Each is written completely or not at all, and equal content gives equal bytes. JSON is strict: an undefined number is
null, never NaN; a result with an infinite number cannot be made.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field, JsonValue, model_validator

from avbench.protocol.rules import Protocol
from avbench.results.dynamic_truth import TRUTH_FILE
from avbench.results.excerpts import FOLDER as CLIPS_FOLDER
from avbench.results.predictions import MAX_PREDICTIONS_BYTES
from avbench.results.truth import is_segments
from avbench.system.in_python import in_python
from avbench.system.outputs import check_folder
from avbench.system.spelling import nearest
from avbench.system.strict import (
    Many,
    Named,
    Number,
    Sha256,
    StrictPart,
    parse_record,
    read_bytes,
    strict_json,
    write_whole,
)
from avbench.types import AvbenchError, UsageError, printable

if TYPE_CHECKING:
    import pandas as pd

RUN_FILE = "run.json"
PREDICTIONS_FILE = "predictions.parquet"
REPORT_FILE = "run.html"
SEGMENTS_FILE = "segments.parquet"
FILES = (RUN_FILE, PREDICTIONS_FILE, REPORT_FILE, SEGMENTS_FILE, TRUTH_FILE, CLIPS_FOLDER, "latency.json")  # its folder
SCHEMA_FILE = Path(__file__).parent / "schemas" / "run_result.v1.json"
MAIN = ("acc", "map", "mae_s")  # of the scores, what is said of a result in short
MAIN_CHANGING = ("recovery_s", "false_changes_per_h", "tracked_acc_tol1")  # where offsets change
MAX_RUN_BYTES = 64 * 2**20


class Score(StrictPart):
    """A metric's value with its interval; null where undefined."""

    value: Number
    ci_low: Number = None
    ci_high: Number = None

    def in_short(self) -> str:
        """``0.84 ±0.08``, with half the width of the interval where there is one; a dash where undefined."""
        if self.value is None:
            return "–"
        known = self.ci_low is not None and self.ci_high is not None
        return f"{self.value:.2f}" + (f" ±{(self.ci_high - self.ci_low) / 2:.2f}" if known else "")  # type: ignore[operator]


Scores = Named[str, Score]


class ModelInfo(StrictPart):
    """The evaluated model: its parts, its weights, and how it was computed."""

    name: str
    backbone: str
    head: str
    fingerprint: str
    description: str = ""
    trained_on: str = "undeclared"
    weights_note: str = ""
    full_size: bool = False
    random_weights: Annotated[int, Field(ge=0)] | None = None  # the seed; such scores mean nothing
    audio_lead_trim_samples: Annotated[int, Field(ge=0)] = 0  # how much earlier than true the model hears the sound
    token: str = ""  # where the head's streaming token comes from; "" if it needs none
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"  # other than float32: autocast
    compiled: bool = False
    arguments: Named[str, str] = {}  # of the constructor of a user's class, in words; files without their folders


class DataInfo(StrictPart):
    """The evaluated split."""

    name: str
    split: str
    manifest_sha256: Sha256
    n_clips: Annotated[int, Field(ge=0)]
    note: str = ""  # for example "procedural stand-in"
    labels: Literal["public", "hidden"] = "public"  # hidden: no score can be computed, all are null
    names: Named[str, str] = {}  # clip id -> the name of its file, where the id says less


class Slice(StrictPart):
    """Scores on the ``n`` segments of one category or channel."""

    n: Annotated[int, Field(ge=0)]
    scores: Scores


class RecoveryStep(StrictPart):
    """A row of the Kaplan-Meier table: at ``time_s`` after a change, how many were still not recovered from and
    watched, how many were recovered from then, how many could no longer be watched, and the share not recovered."""

    time_s: Annotated[float, Field(ge=0)]
    at_risk: Annotated[int, Field(ge=0)]
    events: Annotated[int, Field(ge=0)]
    censored: Annotated[int, Field(ge=0)]
    survival: Annotated[float, Field(ge=0, le=1)]


class Mute(StrictPart):
    """A stretch of muted sound, in seconds from the stream's beginning."""

    start_s: Annotated[float, Field(ge=0)]
    end_s: Annotated[float, Field(ge=0)]


class StreamLaw(StrictPart):
    """How the offset of one stream runs: the name of its law, and its mutes."""

    name: str
    mutes: Many[Mute] = []


class ReferenceRow(StrictPart):
    """A row shown beside the result: a trivial baseline, or the same backbone with another head or window count.
    ``recovery``: its Kaplan-Meier table, where offsets change; ``curve``: of some rows, a few metrics at each
    iteration, without intervals."""

    name: str
    label: str
    selection: str
    n: Annotated[int, Field(ge=0)]
    scores: Scores
    note: str = ""
    recovery: Many[RecoveryStep] = []
    curve: Many[Scores] = []


class Failure(StrictPart):
    """A segment that could not be scored, and why. Nothing replaces it."""

    segment_id: str
    clip_id: str
    reason: str


class Latency(StrictPart):
    """A by-product of the run, not a measurement to quote: see ``avbench latency``."""

    ms_per_step: Annotated[float, Field(ge=0)]
    note: Literal["indicative"] = "indicative"


class Spent(StrictPart):
    """Where a run's time went, in seconds. ``decode_s``: reading clips, converting and cutting their pictures, and
    ``compute_s``: the models' calls, each summed over all processes, so that they may exceed the time that passed.
    ``transfer_s``: bringing windows to the device. ``wait_s``: how long the process that computes had nothing to
    compute because others were still decoding (0 where each process decodes for itself, in turn)."""

    decode_s: Annotated[float, Field(ge=0)] = 0.0
    wait_s: Annotated[float, Field(ge=0)] = 0.0
    transfer_s: Annotated[float, Field(ge=0)] = 0.0
    compute_s: Annotated[float, Field(ge=0)] = 0.0

    def __add__(self, other: Spent) -> Spent:
        return Spent(**{name: getattr(self, name) + getattr(other, name) for name in Spent.model_fields})


class PairScore(StrictPart):
    """The share of ``n`` pairs of a stream and the same stream with its sound shifted in which the first has the higher
    mean probability of being in sync; a tie is wrong. ``shift_s`` null: all shifts."""

    shift_s: Annotated[float, Field(gt=0)] | None
    direction: Literal["both", "early", "late"]
    n: Annotated[int, Field(ge=0)]
    value: Number
    ci_low: Number = None
    ci_high: Number = None


class FileRef(StrictPart):
    """A file beside run.json and its sha256."""

    path: str  # relative to run.json
    sha256: Sha256


def _protocol(value: Any) -> Any:
    """A protocol as stored in run.json."""
    if not isinstance(value, Mapping):
        return value
    try:
        return Protocol.from_json(value)
    except (UsageError, TypeError, KeyError, ValueError) as error:
        raise ValueError(f"this avbench does not know this protocol ({error})") from error


class RunResult(StrictPart):
    """One evaluation: model, data, scores and everything needed to judge or repeat it.

    ``signature`` is protocol|model|data|version. ``scores`` maps a metric's name to its value and interval; ``slices``
    contains "category" and "channel"; ``curve`` has one score map per iteration, ``curve[0]`` being iteration 1;
    ``unsupported`` names the segments too short for the protocol; ``incomplete`` is True if a supported segment is
    missing from the scores. ``scores`` are the names of ``avbench.scoring.metrics.METRICS`` and, at the last window of
    data whose offsets are known in seconds, of ``avbench.scoring.below_grid.BELOW_GRID``; ``pairs``: of data made by
    ``avbench data pairs``, over all shifts first. Where offsets change, ``scores`` has those of
    ``avbench.scoring.dynamic.SHOWN`` too, ``recovery`` is the Kaplan-Meier table of the changes that rank, and
    ``dynamic`` what ``avbench.scoring.dynamic.score`` says besides (headline, alarms, drift, by size and by law) and
    the ``price``; ``laws`` says how the offset of each scored segment runs.
    """

    schema_version: Literal[1] = 1
    avbench_version: str
    signature: str
    protocol: Annotated[Protocol, BeforeValidator(_protocol)]
    model: ModelInfo
    data: DataInfo
    n_scored: Annotated[int, Field(ge=0)]
    n_total: Annotated[int, Field(ge=0)]
    scores: Scores
    slices: Named[str, Named[str, Slice]] = {}
    curve: Many[Scores] = []
    recovery: Many[RecoveryStep] = []
    dynamic: Named[str, JsonValue] = {}
    pairs: Many[PairScore] = []
    laws: Named[str, StreamLaw] = {}
    rows: Many[ReferenceRow] = []
    failures: Many[Failure] = []
    unsupported: Many[str] = []
    warnings: Many[str] = []
    absent_classes: Many[int] = []
    incomplete: bool = False
    latency: Latency | None = None
    counters: Named[str, int] = {}
    spent: Spent | None = None  # null: nothing was computed, or an avbench that did not measure it
    environment: Named[str, JsonValue] = {}
    seed: int
    n_resamples: Annotated[int, Field(ge=0)]
    level: Annotated[float, Field(gt=0, lt=1)] = 0.95
    files: Named[str, FileRef] = {}
    created: Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)$")]  # UTC

    @model_validator(mode="after")
    def _counts_agree(self) -> RunResult:
        if self.n_scored > self.n_total:
            raise ValueError(f"n_scored is {self.n_scored}, more than n_total, {self.n_total}")
        return self

    def to_json(self) -> str:
        """Strict JSON: keys sorted, two spaces, UTF-8, a newline at the end; equal results give equal text."""
        return strict_json(self)

    def __repr__(self) -> str:
        """A few lines: model, data, how many segments, the main scores and the signature."""
        return f"{type(self).__name__}({self._in_short()})"

    __str__ = __repr__

    def _in_short(self) -> str:
        main = MAIN_CHANGING if self.dynamic else MAIN
        scores = ", ".join(f"{name} {self.scores[name].in_short()}" for name in main if name in self.scores)
        n = f"{self.n_scored} of {self.n_total} segments scored{', INCOMPLETE' * self.incomplete}"
        what = f"{self.model.name} on {self.data.name} {self.data.split}"
        return printable(f"{what}, {n}: {scores}") + f"\n  signature {printable(self.signature)}"

    def table(self, metrics: Sequence[str] = ()) -> pd.DataFrame:
        """The score table as it is printed: one row for the model and one for each reference row, by label.

        Columns: n (segments), selection, and for each metric three, NaN where undefined: its value under its own name,
        and the bounds of its interval as ``NAME_low`` and ``NAME_high``. ``metrics``: these, in this order (all, by
        name, if none). ``UsageError`` for a metric that the result does not have.
        """
        import pandas as pd

        known = sorted(self.scores)
        for name in metrics:
            if name not in known:
                raise UsageError(f"this result has no metric {name!r}: {nearest(name, known)}")
        undefined, found = Score(value=None), []
        for line in self._lines():
            cells: dict[str, Any] = {"row": line.label, "n": line.n, "selection": line.selection}
            for name in metrics or known:
                numbers = _numbers(line.scores.get(name, undefined))
                cells |= dict(zip((name, f"{name}_low", f"{name}_high"), numbers, strict=True))
            found.append(cells)
        return pd.DataFrame(found).set_index("row")

    def _lines(self) -> list[ReferenceRow]:
        """The result's own row, then those beside it."""
        own = ReferenceRow(
            name=self.model.name,
            label=self.model.name,
            selection=self.protocol.selection,
            n=self.n_scored,
            scores=self.scores,
        )
        return [own, *self.rows]

    def frame(self) -> pd.DataFrame:
        """All scores in long form, one row a line and metric (by name): row (the model's name, or a reference row's
        label), kind ("model" or "reference"), selection, n (segments), metric, value, ci_low, ci_high (NaN where
        undefined). In wide form: :meth:`table`."""
        import pandas as pd

        found = [
            (line.label, "reference" if i else "model", line.selection, line.n, metric, *_numbers(score))
            for i, line in enumerate(self._lines())
            for metric, score in sorted(line.scores.items())
        ]
        columns = ["row", "kind", "selection", "n", "metric", "value", "ci_low", "ci_high"]
        return pd.DataFrame(found, columns=columns)

    def curve_frame(self) -> pd.DataFrame:
        """The curve, one row an iteration and metric (by name): iteration (from 1), metric, value, ci_low, ci_high (NaN
        where undefined)."""
        import pandas as pd

        found = [
            (iteration, metric, *_numbers(score))
            for iteration, scores in enumerate(self.curve, 1)
            for metric, score in sorted(scores.items())
        ]
        return pd.DataFrame(found, columns=["iteration", "metric", "value", "ci_low", "ci_high"])


def _numbers(score: Score) -> tuple[float, ...]:
    """Value and interval; NaN where undefined."""
    return tuple(math.nan if x is None else x for x in (score.value, score.ci_low, score.ci_high))


def json_schema() -> dict[str, Any]:
    """JSON Schema of ``run.json`` (draft 2020-12), published as ``schemas/run_result.v1.json``."""
    schema = RunResult.model_json_schema(mode="serialization")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": "avbench/run_result.v1.json", **schema}


def json_schema_text() -> str:
    """The text of the published schema file; ``python -m avbench.results`` prints it."""
    return json.dumps(json_schema(), sort_keys=True, indent=2) + "\n"


def write_run(result: RunResult, directory: Path) -> Path:
    """Writes ``directory/run.json`` atomically, making the directory if needed; ``AvbenchError`` on failure."""
    path = Path(directory) / RUN_FILE
    write_whole(path, result.to_json().encode("utf-8"))
    return path


def check_run_folder(folder: Path, force: bool = False) -> None:
    """``UsageError`` if a run in this folder would lie among files that no run writes, unless ``force``. Never replaced
    is a table of segments that no run has written: a data set's has the same name."""
    path = Path(folder) / SEGMENTS_FILE
    if path.exists() and not is_segments(path):
        raise UsageError(
            f"{path} is not from a run and would be replaced; move it away, or choose another --out{in_python('--out')}"
        )
    check_folder(Path(folder), force, ours=FILES.__contains__, python=in_python("--force", "--out"))


def check_earlier_run(folder: Path, signature: str, n_resamples: int, seed: int, rows: bool) -> None:
    """``UsageError`` if the folder holds a run with another signature than this, with more resamples or another seed,
    or with reference rows where there will be none (``rows``). Any other may be replaced, and one that is incomplete:
    its data were perhaps mended since."""
    if not (Path(folder) / RUN_FILE).exists():
        return
    try:
        run = read_run(Path(folder))
    except AvbenchError:
        held = "an unreadable one"
    else:
        if run.incomplete:
            return
        held = run.signature if run.signature != signature else _would_be_lost(run, n_resamples, seed, rows)
    if held:
        raise UsageError(
            f"{folder} already holds another run ({held[:200]}); give --force to replace it, or choose another --out"
            f"{in_python('--force', '--out')}"
        )


def _would_be_lost(run: RunResult, n_resamples: int, seed: int, rows: bool) -> str:
    """What the run has that another with the same signature would not have; "" if it is nothing."""
    if run.rows and not rows:
        return "with reference rows"
    if run.n_resamples > n_resamples:
        return f"{run.n_resamples} resamples"
    return f"seed {run.seed}" if run.seed != seed else ""


def read_run(path: Path) -> RunResult:
    """Reads ``run.json``, given as the file or its directory. ``UsageError`` if it is missing, is not strict
    JSON, or has another schema version or unknown, missing or wrong fields (naming the first)."""
    path = Path(path)
    path = path / RUN_FILE if path.is_dir() else path
    return parse_record(read_bytes(path, MAX_RUN_BYTES), path, RunResult, "a run result", "run the evaluation again")


def run_file(folder: Path, result: RunResult, name: str) -> Path:
    """The path of a file that run.json names. ``UsageError`` if run.json names none, or if the file is not beside
    run.json or has changed since."""
    reference = result.files.get(name)
    if reference is None:
        raise UsageError(f"{folder}: run.json names no {name} file; run the evaluation again")
    path = folder / reference.path
    if Path(reference.path).name != reference.path or not path.is_file() or path.is_symlink():
        raise UsageError(f"{folder}: {name} file {reference.path[:80]!r} is missing: it must be beside run.json")
    if hashlib.sha256(read_bytes(path, MAX_PREDICTIONS_BYTES)).hexdigest() != reference.sha256:
        raise UsageError(f"{path} is not the file that the run wrote (its sha256 differs)")
    return path
