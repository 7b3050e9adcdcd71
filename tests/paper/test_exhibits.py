"""Verdicts, intervals between groups, shares and the definition of uncorrelated errors."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from made_claims import claimed

from avbench.paper.exhibits import FAILS, HOLDS, OPEN, TOO_FEW, Exhibit, claim, isolated_errors, paired, verdict
from avbench.paper.replays import with_weights
from avbench.paper.write import markdown, orderings, tables
from avbench.results.truth import Truth
from avbench.scoring.stats import FEW_CLUSTERS, Bootstrap, Difference, paired_difference


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.01, 0.2, HOLDS),
        (-0.2, -0.01, FAILS),
        (-0.01, 0.2, OPEN),
        (0.0, 0.2, OPEN),
        (-0.2, 0.0, OPEN),
        (0.0, 0.0, OPEN),
        (0.14, 0.14, TOO_FEW),
        (0.08333333333333331, 0.08333333333333334, TOO_FEW),  # as sums of floats leave it
        (-0.14, -0.14, TOO_FEW),
        (math.nan, math.nan, TOO_FEW),
    ],
)
def test_the_verdict_is_the_intervals(low: float, high: float, said: str) -> None:
    assert verdict(low, high, FEW_CLUSTERS) == said
    assert claim("a > b", Difference(difference=0.1, ci_low=low, ci_high=high, p=0.1), FEW_CLUSTERS).verdict == said


def test_below_six_videos_no_ordering_holds_or_fails_and_the_reader_is_told() -> None:
    assert {verdict(low, low + 0.1, n) for low in (0.01, -0.2) for n in range(FEW_CLUSTERS)} == {TOO_FEW}
    few = Exhibit("table6", "T", claims=[claimed("a > b", 0.2, 0.1, 0.3, 5)], measured_on="toys test")
    assert orderings([few]).startswith("1 orderings on toys test: 0 holds, 0 does not hold, 0 not separable, 1 too few")
    assert "too few: fewer than 6 videos" in markdown(few)
    assert "too few: fewer than 6 videos" in tables(few)[-1].notes[0]
    enough = replace(few, claims=[claimed("a > b", 0.2, 0.1, 0.3, 6)])
    assert "too few" not in markdown(enough)


def test_what_is_undefined_is_none() -> None:
    assert claimed("a > b", math.nan, math.nan, math.nan)[2:] == (None, None, None)


def made_up(n: int = 120, videos: int = 12, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 21, n)
    logits = rng.standard_normal((n, 21)) + 1.5 * np.eye(21)[labels]
    return logits, labels, np.array([f"v{i % videos:02d}" for i in range(n)])


def test_a_claim_is_the_paired_difference() -> None:
    logits, labels, videos = made_up()
    part = Truth(tuple(map(str, range(len(labels)))), labels, videos, n_total=len(labels))
    found = paired(logits + np.eye(21)[labels], logits, part, Bootstrap(200, 3), ("map",))["map"]
    theirs = paired_difference(logits + np.eye(21)[labels], logits, labels, videos, Bootstrap(200, 3), metrics=["map"])[
        "map"
    ]
    assert found == theirs
    assert verdict(found["ci_low"], found["ci_high"], 12) == HOLDS


def test_orderings_are_counted_and_listed_with_their_intervals() -> None:
    claims = [claimed("a* > b", 0.2, 0.1, 0.3), claimed("b > c", 0.1, -0.1, 0.3), claimed("c > d", -0.2, -0.3, -0.1)]
    text = orderings([Exhibit("table3", "T", claims=claims, measured_on="toys test"), Exhibit("fig1", "F")])
    assert text.startswith("3 orderings on toys test: 1 holds, 1 does not hold, 1 not separable.")
    assert "a\\* > b" in text
    assert "+0.200 [+0.100, +0.300]" in text
    assert "-0.200 [-0.300, -0.100]" in text


@pytest.mark.parametrize(
    ("name", "tag", "meant"),
    [
        ("sparsesync+apa", "synthsync-pt", "sparsesync.synthsync-pt+apa"),
        ("sparsesync", "synthsync-pt", "sparsesync.synthsync-pt"),
        ("sparsesync.synthsync-pt", "synthsync", "sparsesync.synthsync-pt"),  # it names its own
        ("synchformer+trf", "synthsync-pt", "synchformer+trf"),  # it has no such weights
        ("constant", "synthsync-pt", "constant"),
        ("sparsesync+apa", "", "sparsesync+apa"),
    ],
)
def test_a_row_gets_the_weights_of_a_tag_only_where_there_are_such(name: str, tag: str, meant: str) -> None:
    assert with_weights(name, tag) == meant


def test_an_error_is_uncorrelated_if_no_neighbour_repeats_it() -> None:
    errors = np.array(
        [
            [0, 5, 0, -7, 9, 0],  # three errors, each alone
            [5, 5, 0, 6, 7, 0],  # two pairs of the same error within one class
            [1, -1, 0, 1, 1, -1],  # within the tolerance: no errors at all
            [4, 6, 4, 6, 4, 6],  # two classes apart: not the same error
        ]
    )
    assert isolated_errors(errors).sum(axis=1).tolist() == [3, 0, 0, 6]
    assert isolated_errors(np.array([[3]])).tolist() == [[True]]
