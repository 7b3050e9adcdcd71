"""Replay: stored snapshots become streaming predictions, causally; and the heads without learning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from avbench.baselines.apa import Apa, DecayApa, NoHead, SlidingApa
from avbench.engine.replay import gather, leaks, replay, snapshot_for
from avbench.engine.store import SnapshotStore
from avbench.protocol.plan import keys_of
from avbench.protocol.rules import streaming
from avbench.scoring.selection import any_hit, best_iteration, selected_iteration
from avbench.ticks import ticks
from avbench.types import ClipRecord, NonFiniteError, SegmentRecord, Snapshot, StoreError, StreamingHead, UsageError

RNG = np.random.default_rng(0)
LOGITS = (4 * RNG.standard_normal((5, 12, 21))).astype(np.float32)
TOKENS = RNG.standard_normal((5, 12, 8)).astype(np.float32)
PLAIN = [NoHead(), Apa(), SlidingApa(), SlidingApa(3), SlidingApa(1), DecayApa(), DecayApa(0.5), DecayApa(1.0)]


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def stepped(head: Any, logits: np.ndarray) -> np.ndarray:
    state, out = head.init(len(logits)), []
    for i in range(logits.shape[1]):
        state, now = head.step(state, Snapshot(logits[:, i]), 2.0 * i)
        out.append(now)
    return np.stack(out, axis=1)


# ------------------------------------------------------------------------------------------------------------- heads


@pytest.mark.parametrize("head", PLAIN, ids=lambda h: f"{type(h).__name__}{vars(h)}")
def test_step_and_replay_agree_bit_for_bit(head: Any) -> None:
    out = replay(head, LOGITS, None, 2.0)
    assert out.dtype == np.float32
    assert out.tobytes() == stepped(head, LOGITS).tobytes()


@settings(deadline=None, max_examples=40)
@given(arrays(np.float32, (2, 6, 21), elements=st.floats(-60, 60, width=32)))
def test_apa_is_the_mean_of_the_probabilities(logits: np.ndarray) -> None:
    p = softmax(logits)
    mean = np.cumsum(p, axis=1) / np.arange(1, 7)[:, None]
    np.testing.assert_allclose(softmax(replay(Apa(), logits, None, 2.0)), mean, atol=3e-6)
    last3 = np.stack([p[:, max(0, i - 2) : i + 1].mean(axis=1) for i in range(6)], axis=1)
    np.testing.assert_allclose(softmax(replay(SlidingApa(3), logits, None, 2.0)), last3, atol=3e-6)
    weights = 0.7 ** np.arange(5, -1, -1)
    decayed = (p * weights[:, None]).sum(axis=1) / weights.sum()
    np.testing.assert_allclose(softmax(replay(DecayApa(0.7), logits, None, 2.0))[:, -1], decayed, atol=3e-6)


def test_apa_on_paper() -> None:
    """Two classes that matter: sure of 3 once, of 5 twice -> 1/3 and 2/3."""
    logits = np.full((1, 3, 21), -50, np.float32)
    logits[0, [0, 1, 2], [3, 5, 5]] = 50
    p = softmax(replay(Apa(), logits, None, 2.0))[0, -1]
    np.testing.assert_allclose(p[[3, 5, 0]], [1 / 3, 2 / 3, 0], atol=1e-7)
    # averaging logits, or a second softmax, would say something else: 2/3 is log(2/3) in the logits
    np.testing.assert_allclose(replay(Apa(), logits, None, 2.0)[0, -1, 5], np.log(2 / 3), atol=1e-6)


def test_limits_of_the_plain_heads_coincide() -> None:
    everything = replay(Apa(), LOGITS, None, 2.0)
    np.testing.assert_allclose(replay(SlidingApa(12), LOGITS, None, 2.0), everything, atol=1e-6)
    np.testing.assert_allclose(replay(DecayApa(1.0), LOGITS, None, 2.0), everything, atol=1e-6)
    alone = softmax(replay(SlidingApa(1), LOGITS, None, 2.0))
    np.testing.assert_allclose(alone, softmax(replay(NoHead(), LOGITS, None, 2.0)), atol=1e-6)
    np.testing.assert_array_equal(replay(NoHead(), LOGITS, None, 2.0), LOGITS)


@pytest.mark.parametrize("make", [lambda: SlidingApa(0), lambda: DecayApa(0.0), lambda: DecayApa(1.5)])
def test_impossible_heads(make: Any) -> None:
    with pytest.raises(UsageError, match="it must be"):
        make()


def test_a_state_can_be_stepped_twice() -> None:
    """Stepping must not change the old state: latency and what-if runs step one state several times."""
    for head in PLAIN:
        state, _ = head.step(head.init(5), Snapshot(LOGITS[:, 0]), 0.0)
        first = head.step(state, Snapshot(LOGITS[:, 1]), 2.0)[1]
        np.testing.assert_array_equal(first, head.step(state, Snapshot(LOGITS[:, 1]), 2.0)[1])


# --------------------------------------------------------------------------------------------------------- causality


def learned_heads() -> list[Any]:
    from avbench.baselines.streamsync import StreamingLSTM, StreamingTransformer

    torch.manual_seed(0)
    return [StreamingTransformer(8, heads=2, layers=1), StreamingLSTM(8, layers=1)]


def test_every_head_is_causal_to_the_bit() -> None:
    for head in [*PLAIN, *learned_heads()]:
        assert leaks(head, LOGITS, TOKENS, 2.0) == [], type(head).__name__


def test_a_head_that_looks_ahead_is_caught() -> None:
    class Clairvoyant(Apa):
        def replay(self, logits: np.ndarray, tokens: np.ndarray | None, times_s: np.ndarray) -> np.ndarray:
            out = super().replay(logits, tokens, times_s)
            out[:, 4] += 1e-6 * logits[:, 6]
            return out

    assert leaks(Clairvoyant(), LOGITS, None, 2.0) == [4, 5]


# ------------------------------------------------------------------------------------------------------------ replay


def test_torch_heads_are_stepped_in_order_with_their_times() -> None:

    class Clock(StreamingHead):
        """Logits: [time of the window, number of windows before, first token value, grad mode, ...]."""

        needs_token = True

        def init(self, batch: int) -> int:
            return 0

        def step(self, state: int, snapshot: Snapshot, time_s: float) -> tuple[int, Any]:
            out = torch.zeros(len(snapshot.logits), 21)
            out[:, 0], out[:, 1], out[:, 2] = time_s, state, snapshot.token[:, 0]
            out[:, 3] = float(torch.is_grad_enabled())
            return state + 1, out

    out = replay(Clock(), LOGITS, TOKENS, 1.5)
    np.testing.assert_array_equal(out[2, :, 0], 1.5 * np.arange(12))
    np.testing.assert_array_equal(out[2, :, 1], np.arange(12))
    np.testing.assert_array_equal(out[:, :, 2], TOKENS[:, :, 0])
    assert not out[:, :, 3].any()
    with pytest.raises(UsageError, match="head Clock needs a streaming token"):
        replay(Clock(), LOGITS, None, 1.5)


def test_learned_heads_are_replayed_in_eval_mode_and_in_parts() -> None:
    for head in learned_heads():
        head.train()  # dropout would make two replays differ
        many = (np.tile(LOGITS, (60, 1, 1)), np.tile(TOKENS, (60, 1, 1)))
        out = replay(head, *many, 2.0)
        assert out.shape == (300, 12, 21)
        np.testing.assert_allclose(out[:5], out[295:], atol=1e-5)
        np.testing.assert_array_equal(out, replay(head, *many, 2.0))


def test_a_head_that_gives_nan_is_named() -> None:
    class Broken(NoHead):
        def replay(self, logits: np.ndarray, tokens: np.ndarray | None, times_s: np.ndarray) -> np.ndarray:
            out = logits.copy()
            out[3, 7, 0] = np.nan
            return out

    with pytest.raises(NonFiniteError, match="head Broken gave NaN or infinity for segment row 3, iteration 8"):
        replay(Broken(), LOGITS, None, 2.0)


# ------------------------------------------------------------------------------------------------------------ gather


def stored(root: Path, with_tokens: bool = True) -> tuple[SnapshotStore, dict[str, ClipRecord], list[SegmentRecord]]:
    """Two clips; the snapshot of a window says where it is: logits[0] = picture, logits[1] = sound (ticks / 640)."""
    store = SnapshotStore(root)
    clips = {n: ClipRecord(n, n, f"{n}.mp4", n * 64, 25 * 60, 16_000 * 60) for n in "ab"}
    segments = [
        SegmentRecord(f"{n}{i}", n, n, ticks(10 * i), ticks(0.4 * i), 10 + 2 * i) for i in range(3) for n in "ba"
    ]
    for clip in clips.values():
        keys = [k for s in segments if s.clip_id == clip.id for k in keys_of(streaming(iterations=4), s)]
        logits = np.zeros((len(keys), 21), np.float32)
        logits[:, :2] = [(k.picture / 640, k.sound / 640) for k in keys]
        logits[:, 2] = ord(clip.id)
        store.put("f" * 64, clip.sha256, keys, logits, logits[:, :3] if with_tokens else None)
    return store, clips, segments


@pytest.mark.parametrize("with_tokens", [True, False])
def test_gather_puts_every_snapshot_in_its_place(tmp_path: Path, with_tokens: bool) -> None:
    store, clips, segments = stored(tmp_path, with_tokens)
    logits, tokens = gather(store, clips, segments, streaming(iterations=3), "f" * 64)
    assert logits.shape == (6, 3, 21)
    for row, segment in zip(logits, segments, strict=True):
        pictures = segment.start / 640 + 50 * np.arange(3)
        np.testing.assert_array_equal(row[:, 0], pictures)
        np.testing.assert_array_equal(row[:, 1], pictures + segment.offset / 640)
        assert set(row[:, 2]) == {ord(segment.clip_id)}
    if with_tokens:
        np.testing.assert_array_equal(tokens, logits[:, :, :3])
    else:
        assert tokens is None
    with pytest.raises(StoreError, match="3 of 15 snapshots are not in"):
        gather(store, clips, segments, streaming(iterations=5), "f" * 64)


def test_each_clip_is_opened_once_however_many_segments_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, clips, segments = stored(tmp_path)
    opened: list[str] = []
    plain = SnapshotStore.get
    monkeypatch.setattr(SnapshotStore, "get", lambda self, *a: opened.append(a[1]) or plain(self, *a))
    gather(store, clips, segments, streaming(iterations=4), "f" * 64)
    assert sorted(opened) == sorted(clip.as_read for clip in clips.values())


def test_gathering_nothing(tmp_path: Path) -> None:
    store, clips, _ = stored(tmp_path)
    logits, tokens = gather(store, clips, [], streaming(), "f" * 64)
    assert logits.shape == (0, 18, 21)
    assert tokens is None
    assert replay(Apa(), logits, tokens, 2.0).shape == (0, 18, 21)


class Numpy(StreamingHead):
    uses_torch = False


@pytest.mark.parametrize("head", [Numpy(), StreamingHead()])
@pytest.mark.parametrize("token", [TOKENS[:, 0], None])
def test_a_head_is_stepped_with_what_it_computes_with(head: StreamingHead, token: np.ndarray | None) -> None:
    kind = np.ndarray if isinstance(head, Numpy) else torch.Tensor
    arrays = Snapshot(LOGITS[:, 0], token)
    tensors = Snapshot(*(None if part is None else torch.from_numpy(part) for part in arrays))
    for snapshot in (arrays, tensors):
        given_logits, given_token = snapshot_for(head, snapshot)
        assert type(given_logits) is kind
        assert np.array_equal(given_logits, LOGITS[:, 0])
        assert (given_token is None) == (token is None)
        assert token is None or (type(given_token) is kind and np.array_equal(given_token, token))


# --------------------------------------------------------------------------------------------------------- selection


def test_selection_of_one_iteration() -> None:
    values = [0.3, float("nan"), 0.5, 0.5, None]
    assert best_iteration(values, higher_is_better=True) == 2
    assert best_iteration(values, higher_is_better=False) == 0
    assert selected_iteration("final", values, True) == 4
    assert selected_iteration("best_iter", values, True) == 2
    with pytest.raises(UsageError, match="any_hit"):
        selected_iteration("any_hit", values, True)
    with pytest.raises(UsageError, match="undefined at every iteration"):
        best_iteration([None, float("nan")], True)


def test_any_hit() -> None:
    logits = np.zeros((3, 2, 21))
    logits[0, 0, 4] = logits[0, 1, 9] = 1  # right at the first iteration only
    logits[1, :, 5] = 1  # one class off
    logits[2, :, 20] = 1
    labels = np.array([4, 4, 4])
    assert any_hit(logits, labels) == pytest.approx(1 / 3)
    assert any_hit(logits, labels, tolerance=1) == pytest.approx(2 / 3)
