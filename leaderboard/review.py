"""Check the entries that a pull request adds or changes, and report on them to the maintainers."""

from __future__ import annotations

import filecmp
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from avbench.pages import number
from avbench.protocol.tracks import BLIND
from avbench.submissions.check import Report, check
from avbench.submissions.format import MAX_BYTES, Problem, find_entries, shown
from avbench.submissions.tracks import measures

MAX_CHANGED = 50  # entries checked in one review


class Review(NamedTuple):
    """``checked``: folder below the entries' root -> its report; ``private``: entries to blind tracks, which only those
    with the labels can check; ``removed``: entries that are gone; ``stray``: files and folders that are not entries."""

    checked: dict[str, Report]
    private: list[str]
    removed: list[str]
    stray: list[str]

    @property
    def ok(self) -> bool:
        """Whether the pull request is acceptable as it is."""
        return not self.stray and all(report.ok for report in self.checked.values())


def review(base: Path, entries: Path) -> Review:
    """Checks the entries below ``entries`` that are new or differ in any byte from the accepted ones below ``base``.

    A missing folder counts as empty. No code below ``entries`` is run, and no link is followed.
    """
    old, new = _folders(base), _folders(entries)
    changed = [name for name in new if name not in old or not _same(old[name], new[name])]
    private = [name for name in changed if BLIND in Path(name).name]
    checked = {name: check(new[name]) for name in changed[:MAX_CHANGED] if name not in private}
    stray = [shown(name) for name in _stray(entries)]
    if len(changed) > MAX_CHANGED:
        stray.append(f"{len(changed) - MAX_CHANGED} more changed entries than the {MAX_CHANGED} that are checked")
    return Review(checked, private, sorted(set(old) - set(new)), stray)


def _folders(root: Path) -> dict[str, Path]:
    if not root.is_dir():
        return {}
    return {folder.relative_to(root).as_posix(): folder for folder in find_entries(root)}


def _same(a: Path, b: Path) -> bool:
    """Whether two entries have the same files."""
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
    """Files and folders that ``find_entries`` ignores: hidden ones, and files above the entries' folders."""
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
    """The review as text for a comment. Untrusted text is put in code spans, so no markup or @mention takes effect."""
    if not any(found):
        return "No entry is added, changed or removed.\n"
    parts = ["Scores recomputed by the checker of the main branch from the predictions in this pull request."]
    parts += [_entry(name, report) for name, report in found.checked.items()]
    parts += [
        f"### {_code(name)}\nIts labels are private: a maintainer who has them will check it." for name in found.private
    ]
    parts += [f"**Not an entry**: {_code(name)}" for name in found.stray]
    parts += [f"Removed: {_code(name)}" for name in found.removed]
    parts.append("Every change is valid." if found.ok else "**Not acceptable as it is**: see above.")
    return "\n\n".join(parts) + "\n"


def _entry(name: str, report: Report) -> str:
    lines = [f"### {_code(name)}: {'valid' if report.ok else '**refused**'}"]
    if report.recomputed and report.entry:
        lines += ["", "| | claimed | recomputed | 95 % interval |", "|---|---:|---:|---:|"]
        for key, metric in measures(report.entry.track).items():
            score = report.recomputed[key]
            bounds = f"{number(score.ci_low, 4)} … {number(score.ci_high, 4)}"
            claimed = number(report.claimed.get(key), 4)
            lines.append(f"| {metric.title} | {claimed} | {number(score.value, 4)} | {bounds} |")
    lines += ["", *(_problem(problem) for problem in report.errors)] if report.errors else []
    return "\n".join(lines)


def _problem(problem: Problem) -> str:
    return f"- {_code(problem.field)}: {_code(problem.message)}"


def _code(text: str) -> str:
    return f"`{shown(text, 400).replace('`', chr(0x2019)) or ' '}`"
