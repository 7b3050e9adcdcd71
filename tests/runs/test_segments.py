"""A file's segments through a model: where they begin, that each is encoded once, and which are judged together."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from avbench.baselines.synchformer import Synchformer
from avbench.data.clicks import click_and_flash
from avbench.data.encode import encode_clip
from avbench.data.media import ClipReader
from avbench.runs import segments
from avbench.runs.segments import Segmenter, picture_segments, sound_segments, square_pictures
from avbench.scoring import desync
from avbench.types import FrontEnd, MediaError, Snapshot, UsageError
from avbench.weights.checkpoints import drawn_weights


@given(st.integers(0, 60), st.one_of(st.none(), st.integers(1, 70)))
def test_pictures_are_cut_every_eight(n: int, most: int | None) -> None:
    pictures = [np.full((3, 2, 2), k) for k in range(n)]
    cut = [segment[:, 0, 0, 0].tolist() for segment in picture_segments(pictures, most)]
    there = list(range(n))[:most]
    assert cut == [there[k : k + 16] for k in range(0, len(there) - 15, 8)]


@given(st.lists(st.integers(0, 17_000), max_size=6), st.one_of(st.none(), st.integers(640, 40_000)))
def test_sound_is_cut_every_5120_samples(lengths: list[int], most: int | None) -> None:
    wave = np.arange(sum(lengths), dtype=np.float32)
    blocks = np.split(wave, np.cumsum(lengths))[:-1]
    cut = list(sound_segments(blocks, most))
    there = wave[:most]
    expected = [there[k : k + 10_240] for k in range(0, len(there) - 10_239, 5_120)]
    assert len(cut) == len(expected)
    assert all(np.array_equal(a, b) for a, b in zip(cut, expected, strict=True))
    frames = [np.zeros(1)] * (len(there) // 640)
    assert len(cut) == len(list(picture_segments(frames))), "as many as of the pictures of the same time"


class Fake:
    """Features are the numbers of the segments; logits say which 14 were put together."""

    frontend = FrontEnd(size=2)

    def __init__(self) -> None:
        self.batches: list[int] = []

    def encode_video_segments(self, pictures: torch.Tensor) -> torch.Tensor:
        self.batches.append(len(pictures))
        assert pictures.dtype == torch.float32
        return (pictures[:, 0, 0, 0, 0] * 127.5 + 127.5).round()[:, None]  # undo the normalisation

    def encode_audio_segments(self, sounds: torch.Tensor) -> torch.Tensor:
        return sounds[:, :1]

    def fuse_segments(self, video: torch.Tensor, audio: torch.Tensor) -> Snapshot:
        assert torch.equal(video, audio), "picture and sound of the same time"
        return Snapshot(torch.cat([video[..., 0], torch.zeros(1, 7)], dim=1))


@pytest.mark.parametrize("n", [0, 1, 5, 13, 14, 15, 27, 28, 29, 43, 60])
@pytest.mark.parametrize("batch", [1, 4])
def test_the_groups_are_those_that_the_variants_need(n: int, batch: int) -> None:
    fake, told = Fake(), []
    segmenter = Segmenter(fake, "fake")
    segmenter.batch = batch
    pairs = ((np.full((16, 3, 2, 2), k, np.uint8), np.full(10_240, k, np.float32)) for k in range(n))
    found, logits = segmenter._judged(pairs, told.append)
    assert found == n == sum(fake.batches)  # each is encoded once
    assert told == [min(batch * (k + 1), n) for k in range(-(-n // batch))]
    wanted = {s for starts in (desync.first_last, desync.consecutive, desync.every_two_seconds) for s in starts(n)}
    assert wanted <= set(logits)
    for start, row in logits.items():
        assert row[:14].astype(int).tolist() == list(desync.members(start, n))


def test_no_more_is_held_than_a_group() -> None:
    alive: weakref.WeakSet[Any] = weakref.WeakSet()
    most = 0

    class Piece(np.ndarray):
        """An array that can be counted."""

    def pairs() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        nonlocal most
        for k in range(200):
            pair = np.full((16, 3, 2, 2), k, np.uint8).view(Piece), np.full(10_240, k, np.float32).view(Piece)
            alive.update(Counted(piece) for piece in pair)
            most = max(most, len(alive))
            yield pair

    class Counted:
        """Lives as long as its array."""

        def __init__(self, piece: Any) -> None:
            piece.counted = self

    Segmenter(Fake(), "fake")._judged(pairs(), print)
    assert 0 < most <= 8, "segments that were encoded are let go"


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    encode_clip(tmp_path / "clip.mp4", *click_and_flash(7, seed=1))
    return tmp_path / "clip.mp4"


def small() -> Any:
    model = Synchformer(dim=64, layers=1, heads=4, size=32)
    model.load_state_dict(drawn_weights(model.state_dict(), seed=3), assign=True)
    model.frontend = FrontEnd(size=32, fit="square")
    return model.eval()


def test_a_file_is_judged_as_the_whole_of_it_cut_at_once(clip: Path) -> None:
    model = small()
    found = Segmenter(model, "small").logits(ClipReader(clip))
    reader = ClipReader(clip)
    pictures = np.stack(list(square_pictures(reader, 32)))
    wave = reader.audio()
    assert (found.n, found.n_frames, len(pictures), len(wave)) == (20, 175, 175, 7 * 16_000)
    with torch.inference_mode():
        video = torch.stack([torch.from_numpy(pictures[8 * s : 8 * s + 16]) for s in range(20)])
        sound = torch.stack([torch.from_numpy(wave[5120 * s : 5120 * s + 10_240]) for s in range(20)])
        v, a = model.encode_video_segments((video.float() / 255 - 0.5) / 0.5), model.encode_audio_segments(sound)
        for start in (0, 6):
            some = slice(start, start + 14)
            expected = model.fuse_segments(v[None, some], a[None, some]).logits[0].numpy()
            np.testing.assert_allclose(found.logits[start], expected, atol=1e-4)
    assert set(found.logits) == {0, 6}
    part = Segmenter(model, "small").logits(ClipReader(clip), most_frames=int(Fraction(5) * 25))
    assert (part.n, part.n_frames, set(part.logits)) == (14, 125, {0})
    np.testing.assert_allclose(part.logits[0], found.logits[0], atol=1e-5)


def test_pictures_are_resized_to_the_short_side_and_cut_in_the_middle(clip: Path) -> None:
    rgb = np.zeros((40, 90, 3), np.uint8)
    rgb[:, 25:65] = (200, 100, 50)  # the centre square
    cut = segments._square(rgb, 20, "c")
    assert cut.shape == (3, 20, 20)
    assert (cut[0, :, 3:-3] == 200).all()  # bicubic rings at the edges
    same = segments._square(rgb, 40, "c")  # nothing is resized
    assert np.array_equal(same, rgb[:, 25:65].transpose(2, 0, 1))
    with pytest.raises(MediaError, match="too narrow to cut a square out"):
        segments._square(np.zeros((1, 5000, 3), np.uint8), 224, "c")
    held = list(square_pictures(ClipReader(clip), 32))
    assert {array.shape for array in held} == {(3, 32, 32)}


def test_a_model_that_cannot_encode_single_segments_is_refused() -> None:
    with pytest.raises(UsageError, match=r"model x cannot encode single segments \(it lacks fuse_segments\)"):
        Segmenter(type("X", (), {"encode_video_segments": len, "encode_audio_segments": len})(), "x")
    wrong = Fake()
    wrong.fuse_segments = lambda video, audio: Snapshot(torch.zeros(1, 2))  # type: ignore[method-assign]
    with pytest.raises(UsageError, match=r"model fake: logits are \(1, 2\), they must be \(1, 21\)"):
        Segmenter(wrong, "fake")._judged([(np.zeros((16, 3, 2, 2), np.uint8), np.zeros(10_240, np.float32))], print)
