"""``avbench paper``: the requested tables and figures for one split, all from one store."""

from __future__ import annotations

import contextlib
import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from avbench.data import synthsync
from avbench.data.inspect import info
from avbench.data.opening import read_unmade
from avbench.engine.runner import Compute
from avbench.engine.session import Session
from avbench.paper import records
from avbench.paper.changing import Followed, changing, follow, nothing
from avbench.paper.exhibits import (
    CHANGING,
    NAMES,
    NEEDS,
    REPLAYED,
    STATISTICS,
    TABLE3_ROWS,
    Cell,
    Exhibit,
    Latencies,
    with_latencies,
)
from avbench.paper.figures import PAINTERS, SUFFIXES
from avbench.paper.page import page
from avbench.paper.replays import Need, Own, Replays, summary, with_weights
from avbench.paper.reported import of_table
from avbench.paper.write import markdown, orderings, write, write_text
from avbench.protocol.manifest import Manifest
from avbench.protocol.signature import DIGITS
from avbench.registry.arguments import shown
from avbench.registry.names import without_folders
from avbench.registry.options import ModelOptions
from avbench.scoring.stats import DEFAULT, FEW_CLUSTERS, FEWEST_CLUSTERS, Bootstrap, too_few
from avbench.system.cache import writable
from avbench.system.devices import check_device
from avbench.system.outputs import check_folder
from avbench.system.progress import Progress
from avbench.system.spelling import nearest
from avbench.system.strict import parse_json, read_bytes
from avbench.types import AvbenchError, SegmentRecord, UsageError

ALL = "all"
STAGE = "written"
OVERALL, PAGE = ("paper.md", "paper.json"), "index.html"
MAX_BYTES = 100_000_000  # of a paper.json that is read
DATA = "synthsync-hard"  # the stand-in whose difficulty was calibrated to the paper's


@dataclass
class Outcome:
    """What :func:`regenerate` made. ``failures``: segments that could not be scored; ``facts``: paper.json."""

    exhibits: list[Exhibit]
    files: list[Path]
    counters: dict[str, int]
    failures: list[Any]
    warnings: list[str]
    wall_s: float = 0.0
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def incomplete(self) -> bool:
        """Whether segments failed."""
        return bool(self.failures)


def regenerate(  # noqa: PLR0913  (the options of `avbench paper`; what belongs together is bundled)
    names: Sequence[str] = (ALL,),
    out: Path = Path("paper"),
    data: str = DATA,
    split: str = "test",
    limit: int | None = None,
    compute: Compute | None = None,
    bootstrap: Bootstrap = DEFAULT,
    own: Sequence[str] = (),
    options: ModelOptions | None = None,
    latency_samples: int = 0,
    progress: Progress | None = None,
    force: bool = False,
) -> Outcome:
    """Write the tables and figures ``names`` into ``out`` (each NAME.md, .tex, .csv, .json; figures also .svg, .png and
    .pdf), and paper.md, paper.json and the page index.html over all of them. ``changing``: on ``data`` whose offsets
    change; else laws are imposed on their clips. The other tables take offsets for fixed, so on data whose offsets
    change their cells stay empty.

    ``data``, ``split``, ``limit``, ``compute``, ``bootstrap``: as in ``evaluate``. On the harder SynthSync, a model has
    the weights that were trained for it, where the package has such. ``own``: models that get marked rows of their own
    in Tables 3, 4 and 6, Figures 2 and 4 and ``changing``; ``options``: precision and compiling of the learned models,
    and the arguments of those that are of a class from outside. ``latency_samples``: steps timed per model for
    Table 3's ms, 0 for none, on the device of ``compute``; all is written before the first, and the table again after
    the last. ``force``: write into a folder that holds other files. A table that needs more windows
    than any segment holds is written with empty cells and a note. ``UsageError`` for an unknown name, or if no
    asked-for table can be filled; ``AvbenchError`` if ``out`` or the store cannot be used.
    """
    began = time.monotonic()
    wanted = _wanted(names)
    check_device((compute or Compute()).device)
    _check_counts(limit=limit, latency_samples=latency_samples)
    _check_own(wanted, own, options)
    check_folder(out, force, ours=_is_ours)
    session = Session.open(data, split, limit, compute, bootstrap.seed, progress)
    manifest = session.manifest
    asked = _asked(manifest, split, bootstrap, wanted, latency_samples) | _asked_of_models(own, options)
    if not force:
        _refuse_another(out, asked)
    folder = writable(out, "--out")
    tag = synthsync.difficulty_of(manifest.name).name if manifest.name in synthsync.HARD_NAMES else ""
    mine = Own.of(own, options or ModelOptions(), tag, session.how.device)
    needs = {name: need.and_of(mine.rows.values()) for name, need in _possible(session, wanted).items()}
    replays = Replays(session, list(needs.values()), tag, mine) if needs else None
    followed, sessions = _followed(session, wanted, mine)
    source = _Source(
        manifest=manifest,
        needs=needs,
        replays=replays,
        followed=followed,
        facts=info(manifest) if any(name in STATISTICS for name in wanted) else {},
        boot=bootstrap,
        few=_few(manifest, data, split, limit),
        asked=asked,
    )
    exhibits, files = [], []
    for done, name in enumerate(wanted):
        if progress:
            progress(STAGE, done, len(wanted), name)
        exhibits.append(_signed(_exhibit(name, source), source, split))
        files += write(exhibits[-1], folder)
    if progress:
        progress(STAGE, len(wanted), len(wanted), "")
    outcome = Outcome(
        exhibits=exhibits,
        files=files,
        counters=dict(sorted(sum((one.counters for one in sessions), Counter()).items())),
        failures=list(dict.fromkeys(failure for one in sessions for failure in one.failures)),
        warnings=list(dict.fromkeys(warning for one in sessions for warning in one.warnings)),
        wall_s=round(time.monotonic() - began, 1),
    )
    outcome.files += [folder / name for name in (*OVERALL, PAGE)]
    _write_overall(outcome, folder, source)
    if latency_samples and replays and "table3" in needs:
        place = wanted.index("table3")
        exhibits[place] = with_latencies(exhibits[place], _latencies(latency_samples, replays, mine, progress))
        write(exhibits[place], folder)
        outcome.wall_s = round(time.monotonic() - began, 1)
        _write_overall(outcome, folder, source)
    return outcome


def _write_overall(outcome: Outcome, folder: Path, source: _Source) -> None:
    """The files over all tables and figures."""
    outcome.facts = _facts(outcome, source)
    text = json.dumps(outcome.facts, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    for name, content in zip(
        (*OVERALL, PAGE), (overview(outcome), text, page(outcome.exhibits, outcome.facts, folder)), strict=True
    ):
        write_text(folder / name, content)


def _asked_of_models(own: Sequence[str], options: ModelOptions | None) -> dict[str, Any]:
    """What decides the models, as it stands in paper.json; files without their folders, which are nobody's business."""
    options = options or ModelOptions()
    return {
        "models": list(map(without_folders, own)),
        "model_args": shown(options.model_args),
        "dtype": options.autocast,
        "compiled": options.compiled,
    }


def _asked(
    manifest: Manifest, split: str, boot: Bootstrap, wanted: Sequence[str], latency_samples: int
) -> dict[str, Any]:
    """What else decides the content of a reproduction."""
    return {
        "data": {"name": manifest.name, "split": split, "note": manifest.note, "sha256": manifest.sha256},
        "n_resamples": boot.n_resamples,
        "seed": boot.seed,
        "exhibits": list(wanted),
        "latency_samples": latency_samples,
    }


def _refuse_another(out: Path, asked: Mapping[str, Any]) -> None:
    """``UsageError`` if ``out`` holds a reproduction of which something would be lost: made from other data or
    resamples, or with tables, figures, rows or times that are not asked for now."""
    path = out / OVERALL[1]
    if not path.exists():
        return
    lost = "one that cannot be read"
    with contextlib.suppress(AvbenchError, KeyError, TypeError):
        lost = _lost(parse_json(read_bytes(path, MAX_BYTES), path), asked)
    if lost:
        raise UsageError(
            f"{out} already holds a reproduction ({lost}); give --force to replace it, or choose another --out"
        )


def _lost(held: Mapping[str, Any], asked: Mapping[str, Any]) -> str:
    """What is in one reproduction and not asked for in another; "" if nothing is."""
    if held["data"]["sha256"] != asked["data"]["sha256"]:
        return f"of other data: {held['data']['name']} {held['data']['split']}, {held['n_segments']} segments"
    for name in ("exhibits", "models"):
        more = [one for one in held[name] if one not in asked[name]]
        if more:
            return f"with {', '.join(more)}"
    of_models = ("model_args",) if held["models"] else ()
    for name in ("n_resamples", "seed", "dtype", "compiled", *of_models):
        if held[name] != asked[name]:
            return f"with {name} {held[name]}"
    return "with times" if held["latency_samples"] and not asked["latency_samples"] else ""


def _is_ours(name: str) -> bool:
    """Whether a file of this name is one of an earlier reproduction."""
    suffixes = (".md", ".tex", ".csv", ".json", *SUFFIXES)
    return name == PAGE or (Path(name).stem in (*NAMES, "paper") and Path(name).suffix in suffixes)


def overview(outcome: Outcome) -> str:
    """All tables and figures on one page (Markdown)."""
    parts = ["# The paper's tables and figures, measured again\n"]
    if outcome.counters:
        parts.append(f"Replayed from one store: {summary(outcome.counters)}.\n")
    if any(exhibit.judged for exhibit in outcome.exhibits):
        parts.append(f"## Which of the paper's orderings hold here\n\n{orderings(outcome.exhibits)}")
    for exhibit in outcome.exhibits:
        parts.append(markdown(exhibit, level=2))
        if exhibit.name in PAINTERS:
            parts.append(f"![{exhibit.title}]({exhibit.name}.svg)\n")
    return "\n".join(parts)


def _wanted(names: Sequence[str]) -> list[str]:
    for name in names:
        if name not in (*NAMES, ALL):
            raise UsageError(f"there is no {name!r} in the paper; {nearest(name, (*NAMES, ALL))}")
    return [name for name in NAMES if name in names or ALL in names or not names]


def _check_counts(**values: int | None) -> None:
    for name, value in values.items():
        least = 1 if name == "limit" else 0
        if value is not None and value < least:
            raise UsageError(f"{name} is {value}; it must be at least {least}")


def _check_own(wanted: Sequence[str], own: Sequence[str], options: ModelOptions | None) -> None:
    """``UsageError``, before the data are opened, for unknown models, or where no table has a row for them."""
    Own.of(own, options or ModelOptions())
    with_rows = (*NEEDS, CHANGING)
    if own and not any(name in with_rows for name in wanted):
        raise UsageError(f"--model adds no row to {', '.join(wanted)}; it does to {', '.join(with_rows)}")


def _possible(session: Session, wanted: Sequence[str]) -> dict[str, Need]:
    """The replayed ones among the ``wanted`` that some segment is long enough for.

    ``UsageError`` if nothing else is wanted and there are none.
    """
    replayed = [name for name in wanted if name in NEEDS]
    if session.manifest.changing:
        if replayed and len(replayed) == len(wanted):
            raise UsageError(
                f"the offsets of {session.manifest.name} change while the streams run, and {', '.join(replayed)} take "
                f"them for fixed: name {CHANGING}, or other data"
            )
        return {}
    possible = {name: NEEDS[name] for name in replayed if any(map(session.supported, NEEDS[name].protocols))}
    if replayed and not possible and len(replayed) == len(wanted):
        most = max(windows for name in replayed for _, windows in NEEDS[name].settings)
        raise UsageError(
            f"no segment of {session.manifest.name} is long enough for {', '.join(replayed)} (up to {most} windows); "
            "`avbench data info` shows how many windows the segments hold"
        )
    return possible


def _followed(session: Session, wanted: Sequence[str], own: Own) -> tuple[Followed | str, list[Session]]:
    """The streams whose offsets change, or why there are none; and all sessions that computed. ``UsageError`` if
    nothing else is wanted and there are none."""
    if CHANGING not in wanted:
        return "not asked for", [session]
    try:
        followed, more = follow(session, own)
    except UsageError as error:
        if len(wanted) == 1:
            raise
        return str(error), [session]
    return followed, [session, *more]


@dataclass(frozen=True)
class _Source:
    """What the tables and figures are made from. ``needs``: of those that can be replayed; ``followed``: the streams
    whose offsets change, or why there are none."""

    manifest: Manifest
    needs: dict[str, Need]
    replays: Replays | None
    followed: Followed | str
    facts: dict[str, Any]  # of `avbench data info`
    boot: Bootstrap
    few: str  # why there are no intervals; "" if there may be
    asked: dict[str, Any]


def _exhibit(name: str, source: _Source) -> Exhibit:
    if name in STATISTICS:
        return STATISTICS[name](source.manifest, source.facts)
    if name == "table5":
        return records.table5(source.boot, records.read())
    if name == CHANGING:
        if isinstance(source.followed, str):
            return nothing(source.manifest, source.followed)
        return changing(source.followed, source.boot)
    need, replays = source.needs.get(name), source.replays
    if need is None or replays is None or not len(replays.part(need)):
        return _empty(name, source.manifest)
    return REPLAYED[name](replays, need, source.boot)


def _signed(exhibit: Exhibit, source: _Source, split: str) -> Exhibit:
    """The exhibit with the words for its data, and a signature: of the data alone where no model is in it."""
    followed = source.followed
    on = followed.manifest if exhibit.name == CHANGING and isinstance(followed, Followed) else source.manifest
    exhibit.measured_on = exhibit.measured_on or _in_words(on, split)
    exhibit.few = source.few if exhibit.name in (*REPLAYED, CHANGING) else ""
    exhibit.signatures = exhibit.signatures or [("", f"avb|d:{on.sha256[:DIGITS]}|v{exhibit.version}")]
    return exhibit


def _few(manifest: Manifest, data: str, split: str, limit: int | None) -> str:
    """Why nothing of these data has an interval, and what to do; "" if they have videos enough."""
    n = _n_videos(manifest.segments)
    if not too_few(n):
        return ""
    remedy = f"an interval needs {FEWEST_CLUSTERS} videos, a verdict {FEW_CLUSTERS}"
    if limit is not None and data.startswith("hub:"):  # how many it takes is not worth fetching the rest
        remedy = f"raise --limit: {remedy}"
    elif limit is not None:
        whole = read_unmade(data, split)
        enough = next(
            (i for i in range(limit, len(whole.segments) + 1) if _n_videos(whole.segments[:i]) >= FEW_CLUSTERS), 0
        )
        remedy = f"use --limit {enough} or more ({FEW_CLUSTERS} videos)" if enough else f"leave out --limit: {remedy}"
    return f"{'one video' if n == 1 else f'{n} videos'}: no intervals, nothing can be separated; {remedy}"


def _n_videos(segments: Sequence[SegmentRecord]) -> int:
    return len({segment.video_id for segment in segments})


def _in_words(manifest: Manifest, split: str) -> str:
    note = f"{manifest.note}, " if manifest.note else ""
    clips = f"{len(manifest.clips)} clip{'s' * (len(manifest.clips) != 1)}"
    return f"{manifest.name} {split} ({note}{clips})"


def _facts(outcome: Outcome, source: _Source) -> dict[str, Any]:
    """The content of paper.json."""
    return {
        "schema_version": 1,
        **source.asked,
        "n_segments": len(source.manifest.segments),
        "counters": outcome.counters,
        "incomplete": outcome.incomplete,
        "failures": [f.model_dump() for f in outcome.failures],
        "wall_s": outcome.wall_s,
        "files": [path.name for path in outcome.files],
        "claims": {e.name: [c._asdict() for c in e.claims] for e in outcome.exhibits if e.claims},
    }


def _empty(name: str, manifest: Manifest) -> Exhibit:
    """The table with empty cells: no segment is long enough for its windows, or their offsets change."""
    most = max(windows for _, windows in NEEDS[name].settings)
    hops = ", ".join(f"{hop:g}" for hop in dict.fromkeys(hop for hop, _ in NEEDS[name].settings))
    exhibit = Exhibit(name, f"{name.replace('table', 'Table ').replace('fig', 'Figure ')}: nothing could be scored")
    n = len(manifest.segments)
    exhibit.cells = [Cell(c.row, c.column, None, None, None, 0, n, c.value) for c in of_table(name)]
    exhibit.notes = [
        "The offsets of these data change while the streams run, and this table takes them for fixed."
        if manifest.changing
        else f"No segment of this split holds {most} windows at hop {hops} s: `avbench data info` shows how many fit."
    ]
    return exhibit


def _latencies(samples: int, replays: Replays, own: Own, progress: Progress | None) -> Latencies:
    """One step of each of Table 3's models that have a backbone, timed in this process without the store."""
    from avbench.latency.measure import measure
    from avbench.latency.modes import Request

    named = dict.fromkeys([*(model for model, _ in TABLE3_ROWS.values()), *own.rows.values()])
    models = [model for model in named if replays.models[model].load_backbone is not None]
    found = {}
    for done, model in enumerate(models):
        if progress:
            progress("timing models", done, len(models), model)
        name = with_weights(model, replays.tag)
        record = measure(name, Request(samples=samples, device=own.device), own.options_of(model))
        found[name] = {
            key: getattr(record, key)
            for key in ("mode", "p50_ms", "p90_ms", "n", "ratio_to_snapshot", "unstable", "device", "threads")
        }
    if progress:
        progress("timing models", len(models), len(models), "")
    return found
