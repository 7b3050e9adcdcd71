"""Several runs compared in pairs, as text and as tables: one matrix a metric, row minus column."""

from __future__ import annotations

from collections.abc import Sequence

from avbench.pages.formats import UNDEFINED, Origin, Table, csv_text, estimate
from avbench.pages.tables import numbers
from avbench.scoring.matrix import Comparisons, Matrix, versions
from avbench.scoring.stats import Bootstrap, interval_in_words, too_few
from avbench.types import printable

STAR = "*"  # behind a difference that is significant


def render(found: Comparisons, matrices: Sequence[Matrix]) -> str:
    """The text that ``avbench compare`` prints for more than two runs, with these of its metrics."""
    parts = [f"{title(found)}: {over(found)}"]
    for matrix in matrices:
        headers, rows = _cells(found, matrix)
        parts += [
            "",
            f"{matrix.column.title}, row minus column ({direction(matrix)})",
            *numbers(rows, headers, repeated=2),
        ]
    text = "\n".join([*parts, "", *notes(found), origin(found).in_words()])
    return "\n".join(map(printable, text.split("\n")))  # names may be of a stranger's run


def tables(found: Comparisons, matrices: Sequence[Matrix]) -> list[Table]:
    """The same for a paper."""
    kinds = [] if too_few(found.n_videos) else [f"In brackets: {intervals(found.bootstrap)}."]
    made = []
    for matrix in matrices:
        headers, rows = _cells(found, matrix)
        head = f"{matrix.column.title}, row minus column ({direction(matrix)}), on {title(found)}"
        made.append(Table(f"compare-{matrix.column.name}", head, headers, rows, origin(found), [*kinds, *notes(found)]))
    return made


def to_csv(found: Comparisons) -> str:
    """The table of :meth:`Comparisons.frame` as CSV, with the columns signature_a, signature_b, version and n."""
    frame = found.frame()
    signatures = {name: run.signature for name, run in zip(found.names, found.runs, strict=True)}
    sides = {f"signature_{side}": frame[f"model_{side}"].map(signatures) for side in "ab"}
    return csv_text(frame.assign(**sides, version=versions(found.runs), n=found.n_segments))


def _cells(found: Comparisons, matrix: Matrix) -> tuple[list[str], list[list[str]]]:
    """Headers and rows, the best model first; its number names its column."""
    order = matrix.order
    headers = ["", "", matrix.column.title, "rank", *(f"minus {number}" for number in range(1, len(order) + 1))]
    rows = []
    for number, i in enumerate(order, 1):
        differences = ["" if i == j else difference(matrix, i, j) for j in order]
        rows.append([str(number), found.names[i], estimate(*matrix.values[i]), ranks(matrix, i), *differences])
    return headers, rows


def difference(matrix: Matrix, i: int, j: int) -> str:
    """``+0.031* [+0.010, +0.052]``: with the star if it is significant."""
    pair = matrix.minus(i, j)
    value, gap, ends = estimate(pair.difference, pair.ci_low, pair.ci_high, signed=True).partition(" ")
    return f"{value}{STAR * matrix.significant(i, j)}{gap}{ends}"


def ranks(matrix: Matrix, i: int) -> str:
    """``1``, or ``2–4`` where a model cannot be told apart from others."""
    found = matrix.ranks(i)
    return UNDEFINED if found is None else "–".join(map(str, dict.fromkeys(found)))


def direction(matrix: Matrix) -> str:
    """Which values are good."""
    return f"{'higher' if matrix.column.higher_is_better else 'lower'} is better"


def title(found: Comparisons) -> str:
    """The data, with its note."""
    data = found.runs[0].data
    return f"{data.name} {data.split}" + (f" ({data.note})" if data.note else "")


def over(found: Comparisons) -> str:
    """How many models, on what."""
    return (
        f"{len(found.runs)} models on the same {found.n_segments} segments of {found.n_videos} "
        f"video{'s' * (found.n_videos != 1)}"
        f"{'' if too_few(found.n_videos) else f', {intervals(found.bootstrap)}'}"
    )


def intervals(bootstrap: Bootstrap) -> str:
    """Of what kind they are: ``95 % intervals (1000 resamples, seed 0)``."""
    return f"{100 * bootstrap.level:g} % intervals ({bootstrap.n_resamples} resamples, seed {bootstrap.seed})"


def notes(found: Comparisons) -> list[str]:
    """What has to be known of the numbers."""
    below, n = f"{1 - found.bootstrap.level:.2g}", found.n_pairs
    lines = [
        f"{STAR} p below {below} after Holm's correction for the {n} pair{'s' * (n != 1)} of each metric. "
        "Intervals are of one value or one pair alone, not corrected.",
        "rank: behind the models that are significantly better, before those that are significantly worse.",
    ]
    if any(run.protocol.name == "dynamic" for run in found.runs):
        lines.append("recovery: from changes of at least 0.4 s; last: the last window alone, by what is so at its end.")
    if few := too_few(found.n_videos):
        lines.append(f"{few.capitalize()}.")
    else:
        lines.append(interval_in_words(found.bootstrap.level))
    if not few and found.undecidable:
        lines.append(
            f"Nothing can be significant here: {n} pairs are too many for {found.bootstrap.n_resamples} resamples "
            f"(--n-resamples) of {found.n_videos} videos."
        )
    if found.left_out:
        lines.append(f"Left out: {found.left_out} segments that not all of the models have scored.")
    return lines


def origin(found: Comparisons) -> Origin:
    """Whose signatures, which version, and n."""
    signatures = [(name, run.signature) for name, run in zip(found.names, found.runs, strict=True)]
    return Origin(signatures, versions(found.runs), f"{found.n_segments} segments")
