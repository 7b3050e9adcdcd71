"""The heads for offsets that change: what they compute, that they forget, and that their state does not grow."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avbench.baselines.apa import Apa
from avbench.baselines.tracking import BayesFilter, RestartingApa
from avbench.types import Snapshot, UsageError

HEADS = [BayesFilter(), RestartingApa()]


def stream(classes: list[int], sharpness: float = 2.0, seed: int = 0) -> np.ndarray:
    """(1, W, 21) noisy logits that favour ``classes`` in turn."""
    logits = np.random.default_rng(seed).standard_normal((1, len(classes), 21))
    logits[0, np.arange(len(classes)), classes] += sharpness
    return logits.astype(np.float32)


def replayed(head: BayesFilter | RestartingApa | Apa, logits: np.ndarray) -> np.ndarray:
    return head.replay(logits, None, np.arange(logits.shape[1]) * 2.0)


@pytest.mark.parametrize("head", HEADS)
def test_both_find_the_offset_again_after_a_change_when_averaging_cannot(head: BayesFilter | RestartingApa) -> None:
    truth = [4] * 30 + [15] * 30
    late = {name: [] for name in ("head", "apa")}
    for seed in range(20):
        logits = stream(truth, 3.0, seed)
        for name, one in (("head", head), ("apa", Apa())):
            right = replayed(one, logits)[0].argmax(-1)[30:] == 15
            late[name].append(int(right.argmax()) if right.any() else 30)
    assert np.median(late["head"]) <= 5 < np.median(late["apa"])


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.001, 0.9), st.floats(0.1, 1.5))
def test_the_filter_is_the_forward_algorithm(seed: int, change: float, trust: float) -> None:
    logits = np.random.default_rng(seed).standard_normal((3, 12, 21)).astype(np.float32) * 3
    found = replayed(BayesFilter(change, trust), logits)
    matrix = np.full((21, 21), change / 20)
    np.fill_diagonal(matrix, 1 - change)
    for b in range(3):
        belief = np.full(21, 1 / 21)
        for i in range(12):
            powers = np.exp(logits[b, i].astype(np.float64))
            belief = (matrix @ belief if i else belief) * (powers / powers.sum()) ** trust
            belief /= belief.sum()
            assert np.allclose(np.exp(found[b, i]), belief, atol=2e-7)


def test_without_a_change_restarting_is_averaging() -> None:
    logits = stream([7] * 48, 4.0)
    assert np.array_equal(replayed(RestartingApa(1e6), logits), replayed(Apa(), logits))


def test_restarting_averages_the_windows_since_the_change() -> None:
    logits = stream([4] * 20 + [15] * 20, 8.0)
    found = replayed(RestartingApa(), logits)
    anew = replayed(Apa(), logits[:, 20:])
    assert np.allclose(found[0, -1], anew[0, -1], atol=1e-6)


@pytest.mark.parametrize("head", HEADS)
def test_the_state_does_not_grow_and_a_stream_of_hours_ends_finite(head: BayesFilter | RestartingApa) -> None:
    state, sizes = head.init(2), set()
    rng = np.random.default_rng(0)
    for i in range(3 * 1800):
        state, out = head.step(state, Snapshot(rng.standard_normal((2, 21)) * 30), 2.0 * i)
        parts = state if isinstance(state, tuple) else (state,)
        sizes.add(sum(part.nbytes for part in parts))
    assert len(sizes) == 1
    assert np.isfinite(out).all()


@pytest.mark.parametrize(
    "make", [lambda: BayesFilter(0), lambda: BayesFilter(1), lambda: BayesFilter(0.1, 0), lambda: RestartingApa(0)]
)
def test_impossible_settings_are_refused(make: object) -> None:
    with pytest.raises(UsageError, match="must be"):
        make()  # type: ignore[operator]
