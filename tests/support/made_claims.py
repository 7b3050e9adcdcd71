"""Claims of the paper with made-up differences."""

from __future__ import annotations

from avbench.paper.exhibits import Claim, claim
from avbench.scoring.stats import Difference


def claimed(text: str, difference: float, low: float, high: float, n_videos: int = 100) -> Claim:
    return claim(text, Difference(difference=difference, ci_low=low, ci_high=high, p=0.5), n_videos)
