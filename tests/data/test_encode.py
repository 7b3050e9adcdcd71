"""Writing clips: the same input gives the same bytes, and what cannot be written leaves nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from stamps import noise, stamp

from avbench.data.encode import Codec, encode_clip
from avbench.data.media import ClipReader, media_sha256
from avbench.types import AvbenchError, FrontEnd, UsageError


def test_encoding_is_deterministic_and_takes_arrays_and_iterators(tmp_path: Path) -> None:
    frames = np.stack([stamp(k) for k in range(10)])
    encode_clip(tmp_path / "a.mp4", frames, noise(6400))
    encode_clip(tmp_path / "b.mp4", iter(frames), noise(6400))
    assert media_sha256(tmp_path / "a.mp4") == media_sha256(tmp_path / "b.mp4")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.mp4", "b.mp4"]


def test_encoder_refuses_what_it_cannot_write_and_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "c.mp4"
    good = np.stack([stamp(k) for k in range(3)])
    for frames, audio, word in (
        ([], noise(100), "no frames"),
        (good[:, :63], noise(100), "even"),
        ([good[0], good[1].astype(np.float32)], noise(100), "frame 1"),
        ([good[0], good[1][:32]], noise(100), "frame 1"),
        (good, np.full(100, np.nan), "finite"),
        (good, np.zeros((2, 100)), "finite"),
    ):
        with pytest.raises(UsageError, match=word):
            encode_clip(path, frames, audio)
    with pytest.raises(AvbenchError, match="cannot write"):
        encode_clip(tmp_path / "nowhere" / "c.mp4", good, noise(100))
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_bytes_do_not_depend_on_what_was_encoded_before(tmp_path: Path) -> None:
    """As in a worker that makes one clip after the other, decoding while it encodes. With mbtree some of the 150 clips
    come out with other bytes."""
    source, draw, found = tmp_path / "source.mp4", np.random.default_rng(0), set()
    encode_clip(source, (stamp(k, 96, 64) for k in range(150)), noise(96_000))

    def pictures() -> Iterator[np.ndarray]:
        return (f.transpose(1, 2, 0) for (f,) in ClipReader(source).frames(FrontEnd(size=64, fit="short")))

    for _ in range(150):
        width = 2 * int(draw.integers(30, 60))
        encode_clip(
            tmp_path / "other.mp4", (stamp(k, width, 64) for k in range(int(draw.integers(2, 40)))), noise(6400)
        )
        encode_clip(tmp_path / "same.mp4", pictures(), noise(96_000), Codec(crf=18))
        found.add(media_sha256(tmp_path / "same.mp4"))
    assert len(found) == 1
