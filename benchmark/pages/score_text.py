"""Text for the terminal: label-free figures of files, the worst first, and their summary."""

from __future__ import annotations

from avbench.pages import number
from avbench.pages.tables import numbers, table
from avbench.scoring.figures import FileFigures, LabelFree, Mean, Summary
from avbench.scoring.stats import interval_in_words
from avbench.types import offset_in_words, printable

MOST_FILES = 20  # in the terminal; the CSV file, the page and --json have all
NONE = "-"


def render_scores(found: FileFigures) -> str:
    """Files, summary, and what decides the figures."""
    lines = [_files(found), "", _summary(found), ""]
    for metric in found.metrics:
        lines.append(f"{metric.name}: {metric.definition}")
    lines += [f"{need}: {model_line(facts)}" for need, facts in found.models.items()]
    lines += list(found.how)
    lines.append(
        f"intervals: {100 * found.bootstrap.level:g} %, bootstrapped over files "
        f"({found.bootstrap.n_resamples} resamples, seed {found.bootstrap.seed}); none with fewer than 2 files"
    )
    lines.append(interval_in_words(found.bootstrap.level, "files"))
    return "\n".join(lines)


def render_metrics(metrics: list[LabelFree]) -> str:
    """Every metric with its figures and by whose definition it is."""
    lines = []
    for metric in metrics:
        lines.append(f"{metric.name} (needs {metric.needs}): {metric.definition}")
        for figure in metric.figures:
            better = {True: "lower is better", False: "higher is better", None: "signed"}[figure.lower_is_better]
            unit = f" ({figure.unit})" if figure.unit else ""
            lines.append(f"    {figure.name}{unit}: {figure.description}; {better}")
    return "\n".join(lines)


def model_line(facts: object) -> str:
    """A network's name, fingerprint and training data in one line, with a warning if its weights are random."""
    known = dict(facts) if isinstance(facts, dict) else {}
    parts = [str(known.get("name", ""))]
    if known.get("fingerprint"):
        parts.append(f"fingerprint {known['fingerprint'][:12]}")
    parts.append(f"trained on {known.get('trained_on') or 'undeclared'}")
    if known.get("random_weights") is not None:
        parts.append(f"RANDOM WEIGHTS (seed {known['random_weights']}): these figures mean nothing")
    return printable(" · ".join(parts))


def spoken(mean: Mean | None, digits: int = 3) -> str:
    """``0.412 [0.350, 0.480]``; the interval is "-" where there is none."""
    if mean is None or mean.value != mean.value:
        return NONE
    bounds = [number(bound, digits) for bound in (mean.ci_low, mean.ci_high) if bound == bound]
    return f"{number(mean.value, digits)} [{', '.join(bounds) or NONE}]"


def in_words(one: Summary) -> str:
    """The mean of a signed offset in words; "" for other figures."""
    return offset_in_words(round(one.mean.value, 2)) if one.figure.is_offset and one.mean.n else ""


def _files(found: FileFigures) -> str:
    rows = []
    for row in found.worst_first()[:MOST_FILES]:
        cells = [NONE if (value := row.values.get(f.name)) is None else number(value, 3) for f in found.figures]
        length = NONE if row.duration_s is None else f"{row.duration_s:.1f}"
        rows.append([row.path, length, *cells, "; ".join(filter(None, (row.error, row.unpaired, *row.warnings)))])
    text = table(
        rows,
        ["file, the worst first", "s", *(figure.title for figure in found.figures), ""],
        align=["left", "right", *("right" for _ in found.figures), "left"],
    )
    more = len(found.files) - len(rows)
    return f"{text}\n... and {more} more" if more > 0 else text


def _summary(found: FileFigures) -> str:
    heads = ["mean over files", "value", "median", "files", "without"]
    if found.paired:
        heads += ["reference", "files - reference", "p", "pairs"]
    rows = [_summary_row(one, found.paired) for one in found.summary.values()]
    return "\n".join(numbers(rows, heads))


def _summary_row(one: Summary, paired: bool) -> list[str]:
    words = in_words(one)
    median = NONE if not one.mean.n else number(one.median, 3)
    cells = [
        one.figure.title,
        spoken(one.mean) + (f" ({words})" if words else ""),
        median,
        str(one.mean.n),
        str(one.n_failed),
    ]
    if paired and one.difference:
        p = NONE if one.p != one.p else f"{one.p:.3f}"
        cells += [spoken(one.reference), spoken(one.difference), p, str(one.difference.n)]
    return cells
