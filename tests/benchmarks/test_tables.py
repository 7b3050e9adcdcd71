"""Tables that stay small: 100,000 segments from the manifest to the leaderboard's check, on two cores and in 4 GiB."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

import scale

SIZES = (1000, 10_000, 100_000)
MOST_S, MOST_MIB, MOST_EXPONENT = 120, 4096, 1.1
SHORT_S = 0.5  # stages shorter than that at the largest size have no exponent worth the name


def test_the_exponent_is_the_slope_of_the_logarithms() -> None:
    assert scale.exponent([10, 100, 1000], [1.0, 10.0, 100.0]) == pytest.approx(1)
    assert scale.exponent([10, 100, 1000], [2.0, 200.0, 20_000.0]) == pytest.approx(2)


@pytest.mark.slow  # a quarter of an hour, most of it filling the store
def test_a_hundred_thousand_segments(tmp_path: Path) -> None:
    """In CPU time, because other work on the machine is not what is asked about: stages are of one thread, so two cores
    take no longer."""
    found = {n: scale.measured(n, tmp_path, []) for n in SIZES}
    largest = found[SIZES[-1]]
    assert largest["run"].cpu_s <= MOST_S, scale.table(found)
    assert max(took.peak_mib for took in largest.values()) <= MOST_MIB, scale.table(found)
    for stage, took in largest.items():
        if took.cpu_s >= SHORT_S:
            slope = scale.exponent(list(SIZES), [found[n][stage].cpu_s for n in SIZES])
            assert slope <= MOST_EXPONENT, f"{stage}\n{scale.table(found)}"
