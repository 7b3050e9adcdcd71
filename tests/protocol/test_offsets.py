"""Offset and start laws: seeded per segment, of the right shape, refused by name."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avbench.protocol.offsets import class_prior, draw_offset, nominal_starts, parse_offset_law
from avbench.ticks import seconds, ticks
from avbench.types import OffsetGrid, UsageError

GRID = OffsetGrid()
LAWS = ("uniform", "truncnorm", "truncnorm:0.5", "fixed:0.4", "fixed:-1.23")


def test_draws_are_pinned() -> None:
    """Golden values: a changed draw would change every published manifest."""
    assert [draw_offset("uniform", f"clip@{k}", 0, GRID) for k in range(4)] == GOLDEN_UNIFORM
    assert [draw_offset("truncnorm", f"clip@{k}", 0, GRID) for k in range(4)] == GOLDEN_TRUNCNORM


GOLDEN_UNIFORM = [14880, -19200, 12480, 800]
GOLDEN_TRUNCNORM = [9600, -12800, 6400, 0]


@given(law=st.sampled_from(LAWS), name=st.text(max_size=30), seed=st.integers(0, 2**40))
def test_every_draw_is_a_hundredth_of_a_second_within_two(law: str, name: str, seed: int) -> None:
    offset = draw_offset(law, name, seed, GRID)
    assert isinstance(offset, int)
    assert offset % 160 == 0
    assert abs(offset) <= ticks(2)
    assert offset == draw_offset(law, name, seed, GRID)
    if law.startswith("truncnorm"):
        assert offset % ticks(0.2) == 0
        assert seconds(offset) == pytest.approx(GRID.offset_of(GRID.class_of(seconds(offset))))


def test_fixed_is_fixed_and_seed_and_name_matter_otherwise() -> None:
    assert {draw_offset("fixed:-1.23", str(k), k) for k in range(20)} == {ticks(-1.23)}
    assert len({draw_offset("uniform", str(k), 0) for k in range(50)}) > 30
    assert len({draw_offset("uniform", "a", seed) for seed in range(50)}) > 30


@pytest.mark.parametrize("law", ["uniform", "truncnorm", "truncnorm:0.5"])
def test_draws_follow_the_declared_prior(law: str) -> None:
    n = 8000
    counts = Counter(GRID.class_of(seconds(draw_offset(law, f"s{k}", 7))) for k in range(n))
    prior = class_prior(law)
    assert prior.sum() == pytest.approx(1)
    seen = np.array([counts[c] for c in range(21)])
    chi2 = ((seen - n * prior) ** 2 / (n * prior)).sum()
    assert chi2 < 45.3  # 0.1 % point of chi-square with 20 degrees of freedom


def test_priors_have_the_published_shape() -> None:
    uniform = class_prior("uniform")
    assert uniform[0] == pytest.approx(1 / 40, rel=0.1)  # the edge classes own half cells
    assert uniform[10] == pytest.approx(1 / 20, rel=0.1)
    normal = class_prior("truncnorm")
    assert np.argmax(normal) == 10
    assert normal[10] == pytest.approx(0.0834, abs=0.005)
    assert np.array_equal(class_prior("list"), np.full(21, 1 / 21))
    fixed = class_prior("fixed:0.4")
    assert fixed[12] > 0.9999
    assert np.isfinite(np.log(fixed)).all()


@pytest.mark.parametrize(
    "law",
    ["", "normal", "truncnorm:", "truncnorm:0", "truncnorm:nan", "fixed", "fixed:3", "fixed:x", "uniform:1", "list:2"],
)
def test_unknown_laws_are_refused(law: str) -> None:
    with pytest.raises(UsageError, match="offset law"):
        parse_offset_law(law)
    with pytest.raises(UsageError, match="offset law"):
        class_prior(law)


def test_nothing_is_drawn_from_a_list() -> None:
    with pytest.raises(UsageError, match="came with the data"):
        draw_offset("list", "a", 0)


@settings(max_examples=20)
@given(step_frames=st.integers(1, 2000))
def test_grid_starts(step_frames: int) -> None:
    starts = nominal_starts(f"grid:{step_frames / 25}", 3 * 640 * step_frames)
    assert starts == [0, 640 * step_frames, 1280 * step_frames]


def test_start_laws() -> None:
    assert nominal_starts("first", ticks(300)) == [0]
    assert nominal_starts("grid:10", ticks(30)) == [0, 160_000, 320_000]
    for law in ("", "grid", "grid:0", "grid:-1", "grid:0.05", "grid:inf", "first:2", "random"):
        with pytest.raises(UsageError, match="start law"):
            nominal_starts(law, ticks(30))
