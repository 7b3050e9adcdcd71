"""The page of label-free figures: means with intervals, the files worst first, what failed and why, definitions."""

from __future__ import annotations

from collections import Counter

from avbench.pages import render
from avbench.pages.score_text import in_words, model_line
from avbench.scoring.figures import FileFigures, FileRow

MOST_FILES, MOST_LISTED = 1000, 200  # on one page


def score_page(found: FileFigures, title: str) -> str:
    """The page as text; equal arguments give equal text. ``title``: of what was scored."""
    failed = [row for row in (*found.files, *found.reference) if row.reasons or row.unpaired]
    return render(
        "score_page.html",
        title=title,
        found=found,
        summary=[(one, in_words(one)) for one in found.summary.values()],
        rows=found.worst_first()[:MOST_FILES],
        references={row.key: row for row in found.reference if not row.unpaired},
        failed=failed[:MOST_LISTED],
        n_failed=len(failed),
        n_unpaired=sum(bool(row.unpaired) for row in failed),
        reasons=_reasons(failed),
        notes=[row for row in found.files if row.warnings][:MOST_LISTED],
        models={need: model_line(facts) for need, facts in found.models.items()},
        random=any(facts.get("random_weights") is not None for facts in found.models.values()),
    )


def _reasons(failed: list[FileRow]) -> list[tuple[str, int]]:
    """Why figures are missing, and of how many files."""
    return Counter(reason for row in failed for reason in set(row.reasons.values())).most_common(10)
