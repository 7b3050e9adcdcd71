"""The static site of a board: one page for the board, one page per entry, and the same data as JSON and CSV. No page
makes a network request; equal boards give equal bytes."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from markupsafe import Markup

from avbench import __version__
from avbench.latency.record import LEADERBOARD_SAMPLES
from avbench.leaderboard.board import DECISIONS, Board, Row, TrackBoard
from avbench.leaderboard.entries import BOOTSTRAP, recovery_chart, recovery_line
from avbench.pages import charts, number, render, safe_url, script_text
from avbench.pages.charts import Line, Point
from avbench.pages.drawing import COLOURS, drawing, png
from avbench.paper.reported import of_table
from avbench.protocol.tracks import Track
from avbench.results.run import Score, Scores
from avbench.scoring.dynamic import HEADLINE
from avbench.scoring.metrics import METRICS, Column
from avbench.submissions.tracks import measures, ranked_by
from avbench.system.atomic import atomic_write_bytes
from avbench.types import AvbenchError, UsageError

INDEX, DATA, TABLE, SHARE = "index.html", "data.json", "data.csv", "share.png"
ENTRIES = "entries"
N_LINES = 7  # entries drawn in a chart of curves
BY_CATEGORY = ("map", "acc")
BY_CATEGORY_CHANGING = ("recovery_s", "tracked_acc_tol1")
CHANGING = (  # columns where offsets change
    HEADLINE,
    "recovery_s",
    "false_changes_per_h",
    "tracked_acc_tol1",
    "tracked_acc",
    "tracking_error_s",
    "recovered_within_10_s",
    "recovered_within_20_s",
    "recovered_within_40_s",
)
REPORTED_COLUMNS = {"acc": "Acc", "acc_tol1": "Acc±1", "map": "mAP", "roc_auc": "ROC-AUC", "latency_ms": "ms"}


class About(NamedTuple):
    """What a board says of itself. ``url``: where it will stand, for pictures in links to it; with it, ``share.png`` is
    drawn. ``repo_url``: where entries are sent. All may be empty but the title."""

    title: str = "Audio-visual synchronisation in streaming video"
    url: str = ""
    repo_url: str = ""
    contact: str = ""

    def checked(self) -> About:
        """The same; ``UsageError`` if an address is none, or a text is empty or too long."""
        for option, address in (("--site-url", self.url), ("--repo-url", self.repo_url)):
            if address and not safe_url(address):
                raise UsageError(f"{option} {address!r} is no address; it begins with https:// and has no spaces")
        if not 0 < len(self.title.strip()) <= 120 or len(self.contact) > 200:
            raise UsageError("--title has 1 to 120 letters, --contact at most 200")
        return self._replace(url=self.url.rstrip("/"))


def write_site(board: Board, site: Path, about: About | None = None) -> list[Path]:
    """Writes the site and returns its files. Pages of entries that are gone since an earlier build are deleted.

    ``UsageError`` if the folder ``site`` contains anything but a site, or for an ``about`` that cannot be;
    ``AvbenchError`` if it cannot be written.
    """
    site, about = Path(site), (about or About()).checked()
    records = {page_of(row): _line(entry_record(row)) for row in board.rows}
    files: dict[str, str | bytes] = {INDEX: _index(board, about), DATA: _list(records.values())}
    files |= {TABLE: data_csv(board), DECISIONS: _decisions(board)}
    if about.url:
        files[SHARE] = share_picture(board, about.title)
    for table in board.tracks:
        for row in table.rows:
            base = page_of(row).removesuffix(".html")
            files[page_of(row)] = _entry_page(row, table, about)
            files[f"{base}.json"] = records[page_of(row)] + "\n"
            files[f"{base}.svg"] = str(badge(row)) + "\n"
    old = _old_pages(site)
    try:
        site.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            path, data = site / name, content.encode("utf-8") if isinstance(content, str) else content
            if not (path.is_file() and path.read_bytes() == data):
                path.parent.mkdir(parents=True, exist_ok=True)
                atomic_write_bytes(path, data)
        for name in sorted(old - set(files)):
            (site / name).unlink(missing_ok=True)
    except OSError as error:
        raise AvbenchError(f"cannot write the site {site}: {error.strerror or error}") from error
    return [site / name for name in files]


def check_out(site: Path) -> None:
    """``UsageError`` if the folder ``site`` contains anything but a site, so that none may be written there."""
    _old_pages(Path(site))


def _old_pages(site: Path) -> set[str]:
    """The entry files of an earlier build in this folder. ``UsageError`` if the folder contains anything but a site."""
    if not site.exists():
        return set()
    if not site.is_dir() or (any(site.iterdir()) and not (site / DATA).is_file()):
        raise UsageError(f"{site} is not empty and not a site made by this program; choose another --out")
    found = {path.relative_to(site).as_posix() for path in (site / ENTRIES).glob("*/*/*") if not path.is_symlink()}
    return {name for name in found if name.endswith((".html", ".json", ".svg"))}


def page_of(row: Row) -> str:
    """``entries/<org>__<model>/<revision>/<track>.html``; these names were checked when the entry was read."""
    return f"{ENTRIES}/{row.entry.name}.html"


# -- data --------------------------------------------------------------------------------------------------------------


def entry_record(row: Row) -> dict[str, Any]:
    """One element of ``data.json``: ranks, scores with intervals, latency, card and run of an entry."""
    submission, ranked, scored = row.entry.submission, row.ranked, row.entry.scored
    record: dict[str, Any] = {
        "entry": row.entry.name,
        "track": row.entry.track.name,
        "org": submission.card.org,
        "name": submission.card.name,
        "revision": submission.card.revision,
        "rank": ranked.rank,
        "tied": row.tied,
        "best_rank": ranked.best_rank,
        "worst_rank": ranked.worst_rank,
        "ranked_by": ranked_by(row.entry.track),
        "group_leader": ranked.leader,
        "minus_group_leader": _finite(ranked.to_leader),
        "minus_entry_above": _finite(ranked.to_previous) if ranked.to_previous else None,
        "scores": _scores(scored.scores),
        "by_category": {
            name: {"n": part.n, "scores": _scores(part.scores)} for name, part in scored.by_category.items()
        },
        "by_window": {str(window): _scores(scores) for window, scores in scored.curve.items()},
        "by_hop_s": {f"{hop_s:g}": _scores(scores) for hop_s, scores in row.hops.items()},
        "latency": _latency_record(row),
        "card": submission.card.model_dump(),
        "run": submission.run.model_dump(),
        "predictions_sha256": submission.files.predictions.sha256,
        "page": page_of(row),
    }
    if row.entry.track.changing:
        record |= {"held": scored.held, "raised": scored.raised}
        record["not_recovered_after_s"] = {str(s): share.model_dump() for s, share in scored.recovery.items()}
    return record


def data_csv(board: Board) -> str:
    """The text of ``data.csv``, one line per entry: ranks, scores with intervals, card."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    metrics = [*METRICS, *(CHANGING if any(row.entry.track.changing for row in board.rows) else ())]
    names = [f"{name}{part}" for name in metrics for part in ("", "_ci_low", "_ci_high")]
    card = ("org", "name", "revision", "backbone", "head", "parameters", "licence")
    head = ["track", "rank", "tied", "best_rank", "worst_rank", *card, "training_data", "trained_on"]
    writer.writerow([*head, *names, "signature", "model_fingerprint", "predictions_sha256"])
    for row in board.rows:
        submission, ranked, scores = row.entry.submission, row.ranked, row.entry.scored.scores
        training = submission.card.training_data
        line: list[Any] = [row.entry.track.name, ranked.rank, row.tied, ranked.best_rank, ranked.worst_rank]
        line += [getattr(submission.card, name) for name in card]
        line += [training.status, "; ".join(training.datasets)]
        told = [scores.get(name, Score(value=None)) for name in metrics]
        line += [v for score in told for v in (score.value, score.ci_low, score.ci_high)]
        line += [submission.run.signature, submission.run.model_fingerprint, submission.files.predictions.sha256]
        writer.writerow([_cell(value) for value in line])
    return out.getvalue()


def _cell(value: Any) -> Any:
    """Marks as text what a spreadsheet would run as a formula."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@")) else value


def _decisions(board: Board) -> str:
    return "".join(json.dumps(d.model_dump(), ensure_ascii=False, sort_keys=True) + "\n" for d in board.decisions)


def _line(record: Mapping[str, Any]) -> str:
    return json.dumps(record, sort_keys=True, ensure_ascii=False, allow_nan=False)


def _list(lines: Iterable[str]) -> str:
    """A JSON list with one element per line."""
    return "[\n" + ",\n".join(lines) + "\n]\n"


def _scores(scores: Scores) -> dict[str, Any]:
    return {name: score.model_dump() for name, score in scores.items()}


def _finite(difference: Mapping[str, Any]) -> dict[str, Any]:
    """Strict JSON has no NaN: a missing interval becomes null."""
    return {name: None if value != value else value for name, value in difference.items()}


# -- pages -------------------------------------------------------------------------------------------------------------


def _index(board: Board, about: About) -> str:
    return render(
        "board.html",
        script_text("board.js", __package__, sorting=True),
        __package__,
        about=about,
        described=_described(board),
        boards=[_table(table) for table in board.tracks],
        backbones=sorted({row.entry.submission.card.backbone for row in board.rows}),
        stand_in=any("stand-in" in table.track.title for table in board.tracks),
        reported=reported_rows(),
        reported_columns=list(REPORTED_COLUMNS.items()),
        decisions=board.decisions,
        level=BOOTSTRAP.level,
        n_resamples=BOOTSTRAP.n_resamples,
        seed=BOOTSTRAP.seed,
        version=__version__,
    )


def _described(board: Board) -> str:
    """One sentence for search machines and links."""
    n, tracks = len(board.rows), sum(bool(table.rows) for table in board.tracks)
    of = f"{n} {'entry' if n == 1 else 'entries'} on {tracks} {'track' if tracks == 1 else 'tracks'}"
    return f"How well models find the offset between sound and picture in streams: {of}, every score recomputed."


def columns(track: Track) -> list[tuple[str, Column]]:
    """The measures that the tables of a track show, the one that ranks first."""
    first, known = ranked_by(track), measures(track)
    rest = CHANGING if track.changing else METRICS
    return [(first, known[first]), *((name, known[name]) for name in rest if name != first)]


def _table(table: TrackBoard) -> dict[str, Any]:
    """One track in the form that the template needs."""
    any_scored = table.trivial[0][2]
    models = [row.entry.model[:2] for row in table.rows]
    rows = [
        _row(row, previous) | {"several_revisions": models.count(row.entry.model[:2]) > 1}
        for previous, row in zip([None, *table.rows], table.rows, strict=False)
    ]
    by_category = BY_CATEGORY_CHANGING if table.track.changing else BY_CATEGORY
    first = table.rows[:N_LINES]
    return {
        "name": table.track.name,
        "title": table.track.title,
        "n": len(table.truth.segment_ids),
        "hop_s": table.hop_s,
        "signature": table.track.signature,
        "changing": table.track.changing,
        "columns": columns(table.track),
        "ranked_by": measures(table.track)[ranked_by(table.track)],
        "by_category": [(m, measures(table.track)[m]) for m in by_category],
        "by_window": METRICS["acc" if table.track.changing else "map"],
        "raised": any(row.entry.scored.raised for row in table.rows),
        "categories": list(any_scored.by_category),
        "windows": list(any_scored.curve),
        "timed": any(row["ratio"] is not None for row in rows),
        "rows": rows,
        "trivial": [(label, scored) for _, label, scored in table.trivial],
        "charts": _curves(table, table.rows),
        "standing": _standing(table),
        "stand_in": "stand-in" in table.track.title,
        "legend": [(label, colour) for colour, label in enumerate(_labels(first))],
        "unnamed": len(table.rows) - len(first),
        "pareto": _pareto(table.rows),
    }


def _row(row: Row, previous: Row | None) -> dict[str, Any]:
    return {
        "card": row.entry.submission.card,
        "rank": row.ranked.rank,
        "tied": row.tied,
        "best_rank": row.ranked.best_rank,
        "worst_rank": row.ranked.worst_rank,
        "first_of_group": previous is not None and previous.ranked.rank != row.ranked.rank,
        "page": page_of(row),
        "scored": row.entry.scored,
        "ratio": ratio_to_snapshot(row),
        "parameters": row.entry.submission.card.parameters,
        "parameters_told": counted(row.entry.submission.card.parameters),
        "date": row.entry.submission.run.created[:10],
    }


def counted(parameters: int | None) -> str:
    """A number of parameters in three digits: ``1.24 M``; empty if it is not told."""
    if parameters is None:
        return ""
    size, unit = next(
        ((size, unit) for size, unit in ((10**9, "G"), (10**6, "M"), (10**3, "k")) if parameters >= size), (1, "")
    )
    return f"{parameters / size:.3g} {unit}".strip()


def _standing(table: TrackBoard) -> Markup | None:
    """Every entry with its interval, by the measure that ranks."""
    name = ranked_by(table.track)
    shown = measures(table.track)[name]
    found = [
        (label, row, row.entry.scored.scores[name]) for label, row in zip(_labels(table.rows), table.rows, strict=True)
    ]
    rows = [charts.Interval(label, s.value, s.ci_low, s.ci_high, page_of(row)) for label, row, s in found]
    return charts.forest(rows, f"every entry by {shown.title}", shown.title) if rows else None


def badge(row: Row) -> Markup:
    """A small picture of an entry's rank, to stand in a README."""
    track, name = row.entry.track, ranked_by(row.entry.track)
    value = row.entry.scored.scores[name].value
    left = f"avbench {track.name}"
    right = f"rank {row.ranked.rank}{' (shared)' if row.tied else ''} · {measures(track)[name].title} {number(value)}"
    a, b = (12 + round(6.6 * len(text)) for text in (left, right))
    shape = (
        '<svg xmlns="http://www.w3.org/2000/svg" width="{w}" height="20" role="img" aria-label="{left}: {right}">'
        '<rect width="{w}" height="20" rx="4" fill="#0b5cad"/><rect width="{a}" height="20" rx="4" fill="#3b434c"/>'
        '<g fill="#fff" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11" text-anchor="middle">'
        '<text x="{am}" y="14">{left}</text><text x="{bm}" y="14">{right}</text></g></svg>'
    )
    return Markup(shape).format(w=a + b, a=a, am=a / 2, bm=a + b / 2, left=left, right=right)  # noqa: S704  (escapes what it fills in)


def share_picture(board: Board, title: str) -> bytes:
    """PNG of 1200 x 630: the first entries of the first track that has any, for links to the board."""
    table = next((table for table in board.tracks if table.rows), None)
    with drawing(8.0, 4.2) as figure:
        figure.set_layout_engine("none")
        figure.text(0.05, 0.88, title, fontsize=17, fontweight="bold", parse_math=False)
        if table is not None:
            name = ranked_by(table.track)
            shown, rows = measures(table.track)[name], table.rows[:6]
            scores = [row.entry.scored.scores[name] for row in rows]
            axes = figure.add_axes((0.34, 0.2, 0.6, 0.52))
            known = [(y, s.value, s) for y, s in enumerate(scores) if s.value is not None]
            for y, _, s in known:
                if s.ci_low is not None and s.ci_high is not None:
                    axes.plot([s.ci_low, s.ci_high], [y, y], color=COLOURS[2], lw=4, alpha=0.35)
            axes.plot([value for _, value, _ in known], [y for y, _, _ in known], "o", color=COLOURS[2])
            axes.set_yticks(range(len(rows)), _labels(rows), fontsize=11, parse_math=False)
            axes.set(ylim=(len(rows) - 0.5, -0.5), xlabel=shown.title)
            axes.spines[["top", "right", "left"]].set_visible(False)
            axes.tick_params(axis="y", length=0)
            figure.text(0.05, 0.79, table.track.title, fontsize=10, color="0.35", parse_math=False)
        figure.text(
            0.05, 0.04, "avbench · every score recomputed from the submitted predictions", fontsize=9, color="0.35"
        )
        return png(figure)


def _colours(n: int) -> list[int]:
    """Colours of n lines: the first have one each, the others are grey."""
    return [min(place, N_LINES) for place in range(n)]


def _labels(rows: Sequence[Row]) -> list[str]:
    """Model names for charts, with organisation and revision where the name alone is not unique."""
    cards = [row.entry.submission.card for row in rows]
    names = [card.name for card in cards]
    with_org = [f"{card.org}/{card.name}" for card in cards]
    full = [f"{card.org}/{card.name} {card.revision}" for card in cards]
    return [
        name if names.count(name) == 1 else longer if with_org.count(longer) == 1 else longest
        for name, longer, longest in zip(names, with_org, full, strict=True)
    ]


def _curves(table: TrackBoard, rows: Sequence[Row]) -> list[tuple[str, Markup]]:
    """Charts of these entries over windows, and over hops where an entry has several: (title, SVG)."""
    if not rows:
        return []
    labels, colours, found = _labels(rows), _colours(len(rows)), []
    constant = next(scored for name, _, scored in table.trivial if name == "constant")
    windows = list(constant.curve)
    if table.track.changing:
        shares = [
            recovery_line(label, row.entry.scored.recovery, colour, band=False)
            for colour, label, row in zip(colours, labels, rows, strict=True)
        ]
        found.append(("Share of changes not yet recovered from", recovery_chart(shares)))
    for name in ("acc", "mae_s") if table.track.changing else ("map", "acc"):
        lines = [
            Line(label, windows, [scores[name].value for scores in row.entry.scored.curve.values()], colour=colour)
            for colour, label, row in zip(colours, labels, rows, strict=True)
        ]
        title = f"{METRICS[name].title} over the windows seen"
        beside = constant.scores[name].value
        references = [charts.Reference("always in sync", beside)] if beside is not None else []
        if len(windows) > 1:
            y_range = None if METRICS[name].unit else (0.0, 1.0)
            found.append((title, charts.curve(lines, title, "windows seen", y_range, references, windows)))
    hops = [
        _hop_line(label, row.hops, colour) for colour, label, row in zip(colours, labels, rows, strict=True) if row.hops
    ]
    if hops:
        title = f"{METRICS['map'].title} over hops, on common segments"
        found.append((title, charts.curve(hops, title, "hop (s)")))
    return found


def _hop_line(label: str, hops: Mapping[float, Scores], colour: int) -> Line:
    points = [scores["map"] for scores in hops.values()]
    values = [p.value for p in points]
    return Line(label, list(hops), values, [p.ci_low for p in points], [p.ci_high for p in points], colour)


def _pareto(rows: Sequence[Row]) -> dict[str, Markup] | None:
    """The plot in two widths, so that its text stays readable on a narrow screen."""
    timed = [(row, ratio) for row in rows if (ratio := ratio_to_snapshot(row)) is not None]
    first = ranked_by(rows[0].entry.track) if rows else "map"
    values = [(row.entry.scored.scores[first].value, ratio) for row, ratio in timed]
    points = [
        Point(label, ratio, value, href=page_of(row))
        for label, (row, ratio), (value, _) in zip(_labels([r for r, _ in timed]), timed, values, strict=True)
        if value is not None
    ]
    if not points:
        return None
    shown = measures(rows[0].entry.track)[first]
    title, y_label = f"{shown.title} against the time of a step", shown.title
    best = front(points, shown.higher_is_better)
    return {
        name: charts.scatter(points, best, title, "time of a step, × snapshot", y_label, size=size)
        for name, size in (("wide", (1040.0, 340.0)), ("narrow", (340.0, 260.0)))
    }


def front(points: Sequence[Point], higher_is_better: bool = True) -> list[int]:
    """Indices of the Pareto front, by time: the points that no other beats in both time (x) and score (y)."""
    sign = 1 if higher_is_better else -1
    best, found = float("-inf"), []
    for i in sorted(range(len(points)), key=lambda i: (points[i].x, -sign * points[i].y, points[i].label)):
        if sign * points[i].y > best:
            best = sign * points[i].y
            found.append(i)
    return found


def ratio_to_snapshot(row: Row) -> float | None:
    """Median time of one step as a multiple of the snapshot timed in the same process. None unless the entry's record
    is fit for the leaderboard: mode "step", enough samples, steady, all audits passed."""
    record = row.entry.latency
    if record is None or record.mode != "step" or record.n < LEADERBOARD_SAMPLES:
        return None
    steady = not record.unstable and record.audits_passed and record.snapshot.p50_ms > 0
    return record.p50_ms / record.snapshot.p50_ms if steady else None


def _latency_record(row: Row) -> dict[str, Any] | None:
    record = row.entry.latency
    if record is None:
        return None
    names = ("mode", "n", "p50_ms", "p90_ms", "p99_ms", "unstable", "device", "threads", "reference", "created")
    told = {name: getattr(record, name) for name in names}
    return told | {"ratio_to_snapshot": ratio_to_snapshot(row), "audits_passed": record.audits_passed}


def _entry_page(row: Row, table: TrackBoard, about: About) -> str:
    submission, ranked, track = row.entry.submission, row.ranked, row.entry.track
    card, run = submission.card, submission.run
    differences = []
    if ranked.leader != row.entry.name:
        differences.append(("the best of its group", ranked.leader, ranked.to_leader))
    above = _above(row, table)
    if ranked.to_previous is not None and above is not None and above != ranked.leader:
        differences.append(("the entry above", above, ranked.to_previous))
    hops = charts.curve([_hop_line(card.name, row.hops, 0)], "over hops", "hop (s)") if row.hops else None
    return render(
        "entry.html",
        package=__package__,
        card=card,
        track=track,
        about=about,
        badge=badge(row),
        badge_code=_badge_code(row, about),
        row=_row(row, None),
        n_entries=len(table.rows),
        report=row.entry.scored.report,
        scores=row.entry.scored.scores,
        trivial_rows=[(label, scored.scores) for _, label, scored in table.trivial],
        columns=columns(track),
        differences=differences,
        hop_chart=hops,
        links=[(name, url) for name, url in (("paper", card.paper_url), ("code", card.code_url)) if url],
        provenance=[
            ("entry", row.entry.name, True),
            ("model as it was run", run.model, False),
            ("signature", run.signature, True),
            ("model fingerprint", run.model_fingerprint, True),
            ("manifest sha256", run.manifest_sha256, True),
            ("predictions sha256", submission.files.predictions.sha256, True),
            *_latency_facts(row),
            ("run with avbench", run.avbench_version, False),
            ("run started", run.created, False),
            *([("note on the weights", run.weights_note, False)] if run.weights_note else []),
            ("to check it", f"avbench submit check submissions/entries/{row.entry.name}", True),
        ],
        environment=sorted(run.environment.items()),
        ranked_by=measures(track)[ranked_by(track)],
        level=BOOTSTRAP.level,
        version=__version__,
    )


def _badge_code(row: Row, about: About) -> str:
    """What puts the badge into a README."""
    base = f"{about.url or 'ADDRESS-OF-THIS-SITE'}/{page_of(row).removesuffix('.html')}"
    return f"[![avbench {row.entry.track.name}]({base}.svg)]({base}.html)"


def _latency_facts(row: Row) -> list[tuple[str, str, bool]]:
    record, ratio = row.entry.latency, ratio_to_snapshot(row)
    if record is None:
        return []
    times = f"{record.mode}: p50 {record.p50_ms:.3g} ms, p90 {record.p90_ms:.3g} ms ({record.n} times, {record.device})"
    fit = f"{ratio:.2f} × snapshot" if ratio is not None else "not fit for the board (kind, number or steadiness)"
    return [("time, as measured by its makers", f"{times}; {fit}", False)]


def _above(row: Row, table: TrackBoard) -> str | None:
    place = table.rows.index(row)
    return table.rows[place - 1].entry.name if place else None


def reported_rows() -> list[dict[str, Any]]:
    """Table 3 as printed in the paper: name, selection and values of each row."""
    rows: dict[str, dict[str, Any]] = {}
    for cell in of_table("table3"):
        row = rows.setdefault(cell.row, {"name": cell.row, "selection": cell.selection, "values": {}})
        row["values"][cell.metric] = cell.value
    return list(rows.values())
