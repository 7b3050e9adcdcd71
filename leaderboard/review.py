"""What a pull request changes among the entries, checked: the report that maintainers read beside it."""

from __future__ import annotations

import filecmp
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from avbench.protocol.tracks import BLIND
from avbench.scoring.metrics import METRICS
from avbench.submissions.check import Report, check
from avbench.submissions.format import MAX_BYTES, Problem, find_entries, shown

MAX_CHANGED = 50  # entries looked at in one go


class Review(NamedTuple):
    """``checked``: folder below the entries' root -> its report; ``private``: entries to blind tracks, which only who
    has the labels can check; ``removed``: entries that are no longer there; ``stray``: what is no entry."""

    checked: dict[str, Report]
    private: list[str]
    removed: list[str]
    stray: list[str]

    @property
    def ok(self) -> bool:
        return not self.stray and all(report.ok for report in self.checked.values())


def review(base: Path, entries: Path) -> Review:
    """Checks the entries below ``entries`` that are not, byte for byte, below ``base`` (the accepted ones).

    Either folder may be missing: it is then empty. Nothing below ``entries`` is run, and no link is followed.
    """
    old, new = _folders(base), _folders(entries)
    changed = [name for name in new if name not in old or not _same(old[name], new[name])]
    private = [name for name in changed if BLIND in Path(name).name]
    checked = {name: check(new[name]) for name in changed[:MAX_CHANGED] if name not in private}
    stray = [shown(name) for name in _stray(entries)]
    if len(changed) > MAX_CHANGED:
        stray.append(f"{len(changed) - MAX_CHANGED} more changed entries than the {MAX_CHANGED} that are looked at")
    return Review(checked, private, sorted(set(old) - set(new)), stray)


def _folders(root: Path) -> dict[str, Path]:
    if not root.is_dir():
        return {}
    return {folder.relative_to(root).as_posix(): folder for folder in find_entries(root)}


def _same(a: Path, b: Path) -> bool:
    """Whether two entries hold the same files."""
    try:
        names = [sorted(path.name for path in folder.iterdir()) for folder in (a, b)]
        if names[0] != names[1] or any(path.is_symlink() for path in (b, *b.iterdir())):
            return False
        if any(name not in MAX_BYTES or not (b / name).is_file() for name in names[1]):
            return False
        return all(filecmp.cmp(a / name, b / name, shallow=False) for name in names[0])
    except OSError:
        return False


def _stray(root: Path) -> Iterable[str]:
    """Files that lie where no entry's files lie: ``find_entries`` would pass over them."""
    if not root.is_dir():
        return
    level = [root]
    for _ in range(3):
        inside = [child for folder in level for child in sorted(folder.iterdir())]
        yield from (
            child.relative_to(root).as_posix()
            for child in inside
            if (child.name.startswith(".") and child.name != ".gitkeep") or (child.is_file() and child.name[0] != ".")
        )
        level = [child for child in inside if child.is_dir() and not child.is_symlink() and child.name[0] != "."]


def to_markdown(found: Review) -> str:
    """For a comment: whatever a stranger wrote stands in code spans, where nothing is rendered and nobody is called."""
    if not any(found):
        return "No entry is added, changed or removed.\n"
    parts = ["Scores recomputed by the checker of the main branch, from the predictions in this pull request."]
    parts += [_entry(name, report) for name, report in found.checked.items()]
    parts += [
        f"### {_code(name)}\nIts labels are private: a maintainer who has them checks it." for name in found.private
    ]
    parts += [f"**Not an entry**: {_code(name)}" for name in found.stray]
    parts += [f"Removed: {_code(name)}" for name in found.removed]
    parts.append("All right." if found.ok else "**Not accepted as it is**: see above.")
    return "\n\n".join(parts) + "\n"


def _entry(name: str, report: Report) -> str:
    lines = [f"### {_code(name)}: {'right' if report.ok else '**refused**'}"]
    if report.recomputed:
        lines += ["", "| | claimed | recomputed | 95 % interval |", "|---|---:|---:|---:|"]
        for metric in METRICS.values():
            score = report.recomputed[metric.name]
            bounds = f"{_number(score.ci_low)} … {_number(score.ci_high)}"
            claimed = _number(report.claimed.get(metric.name))
            lines.append(f"| {metric.title} | {claimed} | {_number(score.value)} | {bounds} |")
    lines += ["", *(_problem(problem) for problem in report.errors)] if report.errors else []
    return "\n".join(lines)


def _problem(problem: Problem) -> str:
    return f"- {_code(problem.field)}: {_code(problem.message)}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _code(text: str) -> str:
    return f"`{shown(text, 400).replace('`', chr(0x2019)) or ' '}`"
