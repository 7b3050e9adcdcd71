"""Laws that choose the offsets and starts of segments. Seeded per segment, so order and other clips do not matter.

Offset laws: ``uniform`` (continuous in [-2, 2] s, rounded to 0.01 s), ``truncnorm`` or ``truncnorm:SD`` (normal with
standard deviation SD, 1 s by default, truncated to +-2 s and quantised to the 21 grid values: the paper's main
setting), ``fixed:S`` (always S seconds). Two names mark data whose offsets cannot be drawn: ``list``, the offsets came
with the data; ``hidden``, they are already imposed in the media and kept secret (every offset in the manifest is 0).
"""

from __future__ import annotations

import hashlib
from statistics import NormalDist

import numpy as np

from avbench.ticks import TICKS_PER_FRAME, Tick, ticks
from avbench.types import OffsetGrid, UsageError

OFFSET_LAWS = ("uniform", "truncnorm[:SD]", "fixed:SECONDS", "list", "hidden")
START_LAWS = ("first", "grid:SECONDS")
_STEP_S = 0.01  # offsets are whole hundredths of a second, as in the published lists


def draw_offset(law: str, segment_id: str, seed: int, grid: OffsetGrid | None = None) -> Tick:
    """The offset of one segment in ticks; it depends on (law, segment id, seed) only. ``UsageError``: unknown law, or
    one without draws."""
    grid = grid or OffsetGrid()
    kind, value = parse_offset_law(law, grid)
    if kind in ("list", "hidden"):
        raise UsageError(f"offset law {kind!r} means the offsets came with the data; they cannot be drawn")
    if kind == "fixed":
        return ticks(value)
    u, limit = _uniform(segment_id, seed), grid.max_offset_s
    if kind == "uniform":
        return ticks(round((2 * u - 1) * limit, 2))
    normal = NormalDist(0.0, value)
    low, high = normal.cdf(-limit), normal.cdf(limit)
    offset_s = min(max(normal.inv_cdf(low + u * (high - low)), -limit), limit)
    return ticks(grid.offset_of(grid.class_of(offset_s)))


def class_prior(law: str, grid: OffsetGrid | None = None) -> np.ndarray:
    """(n_classes,) float64, sums to 1: the probability of each class under ``law``.

    Exact: the law's mass in every cell of 0.01 s counts for the class of that cell (so the two edge classes of
    ``uniform`` get half as much as the others). ``list`` and ``hidden`` give equal shares. Classes that cannot occur
    keep 1e-6 each, so that a logarithm stays finite. ``UsageError``: unknown law.
    """
    grid = grid or OffsetGrid()
    kind, value = parse_offset_law(law, grid)
    n_classes, limit = grid.n_classes, grid.max_offset_s
    if kind in ("list", "hidden"):
        return np.full(n_classes, 1 / n_classes)
    prior = np.zeros(n_classes)
    if kind == "fixed":
        prior[grid.class_of(value)] = 1.0
    else:
        normal = NormalDist(0.0, value or 1.0)
        steps = round(limit / _STEP_S)
        for k in range(-steps, steps + 1):
            low, high = max((k - 0.5) * _STEP_S, -limit), min((k + 0.5) * _STEP_S, limit)
            mass = high - low if kind == "uniform" else normal.cdf(high) - normal.cdf(low)
            prior[grid.class_of(k * _STEP_S)] += mass
    prior = np.maximum(prior / prior.sum(), 1e-6)
    return prior / prior.sum()


def parse_offset_law(law: str, grid: OffsetGrid | None = None) -> tuple[str, float]:
    """``"truncnorm:0.8"`` -> ``("truncnorm", 0.8)``; ``UsageError``, which lists the laws, for an unknown one."""
    grid = grid or OffsetGrid()
    kind, colon, text = law.partition(":")
    if kind in ("uniform", "list", "hidden") and not colon:
        return kind, 0.0
    if kind == "truncnorm" and not colon:
        return kind, 1.0
    if kind in ("truncnorm", "fixed") and colon:
        value = _number(text)
        if kind == "truncnorm" and value is not None and 0.01 <= value <= 100:
            return kind, value
        if kind == "fixed" and value is not None and abs(value) <= grid.max_offset_s:
            return kind, value
    raise UsageError(
        f"offset law {law!r} is not one of {', '.join(OFFSET_LAWS)} (offsets within +-{grid.max_offset_s:g} s)"
    )


def nominal_starts(law: str, duration: Tick) -> list[Tick]:
    """Starts in ticks below ``duration``: ``first`` -> 0; ``grid:10`` -> 0, 10, 20 s, ... A start too early for its
    segment's offset is later moved to the first frame that fits; the others stay on a common grid, so that segments
    share picture windows. ``UsageError``: unknown law."""
    kind, colon, text = law.partition(":")
    if kind == "first" and not colon:
        return [0]
    step_s = _number(text) if kind == "grid" else None
    if step_s is None or step_s <= 0 or ticks(step_s) % TICKS_PER_FRAME or not ticks(step_s):
        raise UsageError(f"start law {law!r} is not one of {', '.join(START_LAWS)} (a multiple of 0.04 s)")
    return list(range(0, duration, ticks(step_s)))


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if np.isfinite(value) else None


def _uniform(segment_id: str, seed: int) -> float:
    """A number in (0, 1) from the segment's name and the seed, the same on every platform."""
    digest = hashlib.sha256(f"avbench offset {seed} {segment_id}".encode()).digest()
    return (int.from_bytes(digest[:8], "big") // 2**11 + 0.5) / 2**53
