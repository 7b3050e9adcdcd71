"""Nothing that is said of a stream up to a window depends on what comes after it: every head, under every law.

The present of a stream is the time of its pictures. Where the sound is early, what is heard by then lies up to 2 s
further on in the source, and the media after that may be anything.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[1] / "crash"))

from lawstreams import of, reach, under
from toy_run import ToyModel, ToyReader, toy_manifest

from avbench.engine.replay import gather, leaks, replay
from avbench.engine.runner import Compute, compute
from avbench.engine.store import SnapshotStore
from avbench.protocol.laws import SHARES, draw_law, offsets_at
from avbench.protocol.rules import streaming
from avbench.registry.heads import HEADS, head_class
from avbench.ticks import TICKS_PER_FRAME, ticks
from avbench.types import FrontEnd, Law, Piece, SegmentRecord, Snapshot, StreamingHead

STREAM = ticks(99)
DIM = 4  # of the toy model's tokens
START = ticks(2)
TOY = toy_manifest(1, 105)


def head(name: str, dim: int = DIM) -> Any:
    """A registered head; a learned one is small and has random weights."""
    torch.manual_seed(0)
    made = head_class(name)
    if not HEADS[name].learned:
        return made()
    return made(dim, heads=2, layers=1) if name == "trf" else made(dim, layers=2)


def believed(law: Law, seed: int) -> np.ndarray:
    """Logits (48, 21) of a backbone that is mostly right about where the offset is at the end of each window."""
    at = offsets_at(law, ticks(5) + ticks(2) * np.arange(48)) / ticks(0.2) + 10
    noise = np.random.default_rng(seed).standard_normal((48, 21))
    return (4 * np.exp(-((np.arange(21) - at[:, None]) ** 2) / 2) + noise).astype(np.float32)


@pytest.mark.parametrize("name", sorted(HEADS))
def test_noise_after_a_window_leaves_what_every_head_said_until_then(name: str) -> None:
    """Of streams under every law, whatever the window."""
    laws = [draw_law(law, "s", seed, STREAM) for seed, law in enumerate(SHARES)]
    logits = np.stack([believed(law, k) for k, law in enumerate(laws)])
    tokens = np.random.default_rng(1).standard_normal((*logits.shape[:2], DIM)).astype(np.float32)
    assert leaks(head(name), logits, tokens, 2.0) == []
    said = replay(head(name), logits, tokens, 2.0)
    stepped = replay(Stepped(head(name)), logits, tokens, 2.0)
    np.testing.assert_allclose(said, stepped, atol=1e-3)
    assert leaks(Stepped(head(name)), logits[:1], tokens[:1], 2.0) == []


class Stepped(StreamingHead):
    """A head that is stepped, window by window, though it could do all at once."""

    def __init__(self, made: Any) -> None:
        self.made, self.needs_token, self.uses_torch = made, made.needs_token, getattr(made, "uses_torch", True)
        if isinstance(made, torch.nn.Module):
            made.eval()

    def init(self, batch: int) -> Any:
        return self.made.init(batch)

    def step(self, state: Any, snapshot: Snapshot, time_s: float) -> Any:
        return self.made.step(state, snapshot, time_s)


# --------------------------------------------------------------------------------------------------- from the media on


class Changed(ToyReader):
    """Another clip from a picture and a sample on."""

    def __init__(self, clip: Any, frame: int, sample: int) -> None:
        super().__init__(clip)
        self.frame, self.sample = frame, sample

    def audio(self) -> np.ndarray:
        other = np.random.default_rng(99).uniform(-1, 1, self.clip.n_samples).astype(np.float32)
        return np.concatenate([super().audio()[: self.sample], other[self.sample :]])

    def frames(self, *frontends: FrontEnd) -> Iterator[tuple[np.ndarray, ...]]:
        for k, shown in enumerate(super().frames(*frontends)):
            yield shown if k < self.frame else tuple(255 - picture for picture in shown)


def snapshots(root: Path, segment: SegmentRecord, windows: int, reader: Any) -> tuple[np.ndarray, np.ndarray]:
    """Logits (1, W, 21) and tokens (1, W, 4) of one stream."""
    manifest, protocol, store = of(TOY, [segment]), streaming(iterations=windows), SnapshotStore(root)
    report = compute(manifest, [protocol], {"m": ToyModel()}, Compute(store, 1), open_clip=reader)
    assert not report.failures
    logits, tokens = gather(store, manifest.clips, [segment], protocol, report.fingerprints["m"])
    assert tokens is not None
    return logits, tokens


def check_the_future_of_the_media(law: Law, last: int, root: Path) -> None:
    """Media that change after window ``last`` (from 0): what is said up to it stays, what is said after it does not."""
    segment = under(replace(TOY.segments[0], start=START), law)
    end = ticks(5) + last * ticks(2)
    frame, sample = (START + end) // TICKS_PER_FRAME, START + reach(law, end)
    before = snapshots(root / "before", segment, last + 2, ToyReader)
    after = snapshots(root / "after", segment, last + 2, partial(Changed, frame=frame, sample=sample))
    for a, b in zip(before, after, strict=True):
        assert a[:, : last + 1].tobytes() == b[:, : last + 1].tobytes()
        assert not np.array_equal(a[:, last + 1], b[:, last + 1])
    for name in HEADS:
        said, now = (replay(head(name), *found, 2.0)[:, : last + 1] for found in (before, after))
        assert said.tobytes() == now.tobytes(), name
    # no sooner: a picture or a sample before would be seen or heard
    for earlier in ({"frame": frame - 1, "sample": sample}, {"frame": frame, "sample": sample - 1}):
        seen = snapshots(root / f"{sorted(earlier.values())}", segment, last + 1, partial(Changed, **earlier))
        assert not np.array_equal(before[0][:, : last + 1], seen[0])


@pytest.mark.parametrize("name", sorted(SHARES))
@settings(max_examples=3)
@given(seed=st.integers(0, 1000), last=st.integers(0, 46))
def test_media_after_a_window_leave_what_was_said_until_then(
    name: str, seed: int, last: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    law = draw_law(name, "s", seed, STREAM)
    check_the_future_of_the_media(Law(law.name, law.pieces), last, tmp_path_factory.mktemp("causal"))


@pytest.mark.parametrize(("step_s", "ahead_s"), [(1.6, 1.6), (-1.6, 0.0)])
@pytest.mark.parametrize("into_s", [0.04, 2.0, 4.96])
def test_a_step_up_reaches_ahead_of_the_pictures_and_a_step_down_does_not_forget(
    step_s: float, ahead_s: float, into_s: float, tmp_path: Path
) -> None:
    """The change is ``into_s`` before the end of the window. After a step down the source that was heard before it
    still counts: it reaches as far as the larger of the two."""
    end = ticks(25)  # of window 10
    law = Law("jump", (Piece(0, 0), Piece(end - ticks(into_s), ticks(step_s))))
    assert reach(law, end) == end + (ticks(ahead_s) if step_s > 0 else -min(ticks(into_s), ticks(1.6)))
    check_the_future_of_the_media(law, 10, tmp_path)
