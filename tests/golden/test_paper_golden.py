"""The ``paper`` protocol from a media file to streaming logits, against a computation of its own: decoded here, one
spectrogram of the whole stretch by ``torch.stft``, cut and normalised here as the published evaluation does it."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
import pytest
import torch
from torch import Tensor

from avbench.baselines.apa import Apa
from avbench.baselines.sparsesync import SparseSync, fast
from avbench.baselines.streamsync import StreamSync
from avbench.data.encode import encode_clip
from avbench.data.media import media_sha256
from avbench.engine.replay import gather, replay
from avbench.engine.runner import Compute, compute
from avbench.engine.store import SnapshotStore
from avbench.protocol.manifest import Manifest
from avbench.protocol.rules import paper
from avbench.ticks import ticks
from avbench.types import ClipRecord, FrontEnd, OffsetGrid, SegmentRecord
from avbench.weights.checkpoints import drawn_weights

TOLERANCE = 2e-3  # float32
CLIP = Path(__file__).resolve().parents[2].parent / "shared/media/vggsound_h264/3qesirWAGt4_20000_30000.mp4"
MAKE: dict[str, Callable[..., Any]] = {
    "sparsesync": SparseSync,
    "streamsync-trf": lambda **size: StreamSync("trf", **size),
    "streamsync-lstm": lambda **size: StreamSync("lstm", **size),
}
REDUCED: dict[str, Any] = {"width": 1 / 8, "dim": 64, "heads": 2, "layers": 1, "visual_grid": (16, 1, 1)}
CLIP_S = 13


class Stream(NamedTuple):
    """The stretch begins 2 s before the segment does and lasts 5 s + iterations x hop."""

    hop_s: int
    iterations: int
    start_s: int
    offset_s: float


STREAMS = [
    Stream(2, 3, 3, 0.4),
    Stream(2, 3, 2, 0.0),  # picture and sound begin with the clip
    Stream(2, 3, 4, -2.0),  # the sound begins with the clip, the picture ends with it
    Stream(2, 3, 3, 1.0),  # the sound ends with the clip
    Stream(2, 3, 4, 0.0),  # both end with it
    Stream(2, 3, 4, -1.6),  # loses a sample when its seconds are cut
    Stream(1, 4, 2, 2.0),
    Stream(1, 4, 5, 0.91),  # no whole column
    Stream(1, 4, 6, -1.87),  # loses a sample, and ends with the clip
]


def drawn(make: Callable[[], Any]) -> Any:
    """A model in eval mode with the weights of seed 0."""
    with torch.device("meta"):
        model = make()
    model.load_state_dict(drawn_weights(model.state_dict(), 0), strict=True, assign=True)
    return model.eval()


# ---------------------------------------------------------------------------------------------- computed independently


def decoded(path: Path) -> tuple[Tensor, Tensor]:
    """Frames (T, H, W, 3) uint8 and samples (N,), each placed by its own time stamp."""
    with av.open(str(path)) as file:
        frames = [f.to_ndarray(format="rgb24") for f in file.decode(file.streams.video[0])]
    sound = np.zeros(len(frames) * 640 + 16_000, np.float32)
    end = 0
    with av.open(str(path)) as file:
        for part in file.decode(file.streams.audio[0]):
            samples, at = part.to_ndarray().mean(0), round(part.time * 16_000)
            sound[max(at, 0) : at + len(samples)] = samples[max(-at, 0) :]
            end = at + len(samples)
    return torch.from_numpy(np.stack(frames)), torch.from_numpy(sound[:end])


def expected(model: Any, path: Path, size: int, stream: Stream) -> Tensor:
    """Streaming logits (iterations, 21)."""
    hop_s, iterations, start_s, offset_s = stream
    frames, wave = decoded(path)
    length_s = 5 + iterations * hop_s
    loaded_s = start_s - 4
    first_frame = (loaded_s + 2) * 25
    first_sample = loaded_s * 16_000 + int((2 + round(offset_s, 2)) * 16_000)
    frames = frames[first_frame : first_frame + length_s * 25]
    wave = wave[first_sample : first_sample + length_s * 16_000]
    assert (len(frames), len(wave)) == (length_s * 25, length_s * 16_000)

    top, left = ((n - size) // 2 for n in frames.shape[1:3])
    video = frames[:, top : top + size, left : left + size].permute(0, 3, 1, 2).float() / 255
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    video = (video - mean[:, None, None]) / deviation[:, None, None]
    spectrum = torch.stft(wave, 512, 128, window=torch.hann_window(512), pad_mode="reflect", return_complex=True)
    spectrum = (spectrum.abs() ** 2 + 1e-6).log()
    spectrum = (spectrum - spectrum.mean(1, keepdim=True)) / (spectrum.std(1, keepdim=True) + 1e-6)

    streaming, history, beliefs = [], None, []
    for i in range(iterations):
        seen = video[int(i * hop_s * 25) :][:125][None]
        heard = spectrum[:, int(i * hop_s * 16_000 / 128) :][:, :625][None, None]
        assert heard.shape[-1] == 625
        if isinstance(model, StreamSync):
            logits, _, history = model(seen, heard, history)
        else:  # averaged probabilities
            beliefs.append(model(seen, heard).softmax(-1))
            logits = torch.stack(beliefs).mean(0).log()
        streaming.append(logits[0])
    return torch.stack(streaming)


# -------------------------------------------------------------------------------------------------------- by the bench


def manifest_of(path: Path, stream: Stream) -> Manifest:
    frames, wave = decoded(path)
    clip = ClipRecord("c", "v", path.name, media_sha256(path), len(frames), min(len(wave), len(frames) * 640))
    offset_class = OffsetGrid().class_of(stream.offset_s)
    segment = SegmentRecord("s", "c", "v", ticks(stream.start_s), ticks(stream.offset_s), offset_class)
    return Manifest("one clip", "synthetic", "", "list", {"c": clip}, (segment,), path.parent)


def found(model: Any, path: Path, stream: Stream, folder: Path, batch_size: int = 1) -> Tensor:
    """Streaming logits (iterations, 21): the file is read, windows cut, snapshots stored and the head replayed."""
    manifest, protocol = manifest_of(path, stream), paper(stream.hop_s, stream.iterations)
    store = SnapshotStore(folder)
    report = compute(manifest, [protocol], {"m": model}, Compute(store, 1, batch_size=batch_size))
    assert not report.failures
    assert not any(report.plan.unsupported.values())
    snapshots = gather(store, manifest.clips, manifest.segments, protocol, report.fingerprints["m"])
    head = model.streaming_head if isinstance(model, StreamSync) else Apa()
    return torch.from_numpy(replay(head, *snapshots, stream.hop_s)[0])


def made_clip(path: Path, size: tuple[int, int]) -> Path:
    """Pictures and sound in which every instant differs: coloured noise whose loudness and pitch move."""
    rng = np.random.default_rng(5)
    rows, columns = size
    small = rng.integers(0, 256, (CLIP_S * 25, rows // 16, columns // 16, 3), np.uint8)
    t = np.arange(CLIP_S * 16_000) / 16_000
    loud = 0.02 + 0.2 * np.repeat(rng.random(CLIP_S * 8), 2000)
    sound = loud * (rng.standard_normal(len(t)) * 0.3 + np.sin(2 * np.pi * (300 * t + 40 * np.cumsum(loud) / 100)))
    encode_clip(path, small.repeat(16, 1).repeat(16, 2), sound.astype(np.float32).clip(-1, 1))
    return path


@pytest.fixture(scope="module")
def small_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_clip(tmp_path_factory.mktemp("small") / "made.mp4", (64, 80))


@pytest.fixture(scope="module")
def large_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_clip(tmp_path_factory.mktemp("large") / "made.mp4", (256, 320))


@lru_cache(maxsize=1)
def reduced(name: str, two_tower: bool) -> Any:
    model = drawn(lambda: MAKE[name](**REDUCED))
    model.frontend, model.two_tower = FrontEnd(size=32, fit="crop"), two_tower
    return model


@pytest.mark.parametrize("stream", STREAMS, ids=str)
@pytest.mark.parametrize("name", MAKE)
def test_from_the_file_to_every_streaming_logit(
    name: str, stream: Stream, small_clip: Path, tmp_path: Path, close: Any
) -> None:
    model = reduced(name, True)
    close(found(model, small_clip, stream, tmp_path), expected(model, small_clip, 32, stream), TOLERANCE)


@pytest.mark.parametrize("name", MAKE)
def test_the_plain_path_in_batches_gives_the_same(name: str, small_clip: Path, tmp_path: Path, close: Any) -> None:
    model = reduced(name, False)
    reference = expected(model, small_clip, 32, STREAMS[6])
    close(found(model, small_clip, STREAMS[6], tmp_path, batch_size=3), reference, TOLERANCE)


@pytest.mark.slow
@pytest.mark.parametrize("stream", [STREAMS[0], STREAMS[4], STREAMS[7]], ids=str)
@pytest.mark.parametrize("name", MAKE)
def test_from_the_file_to_every_streaming_logit_at_full_size(
    name: str, stream: Stream, large_clip: Path, tmp_path: Path, close: Any
) -> None:
    """With the fast copy, which a CPU runs; see test_streamsync_golden.py for its equality with the plain one."""
    model = fast(drawn(MAKE[name]))
    close(found(model, large_clip, stream, tmp_path), expected(model, large_clip, 224, stream), TOLERANCE)


@pytest.mark.slow
def test_a_real_clip_against_the_published_vectors(reference: Any, tmp_path: Path, close: Any) -> None:
    """The published model on the published stretch: hop 1 s, two windows, from 2 s into the clip on."""
    golden = reference("streamsync_trf_real_3qesir_off+0.6_2x1s_linear.npz")
    if not CLIP.exists():
        pytest.skip("the real clip is absent: ../shared/media/vggsound_h264")
    stream = Stream(1, 2, 4, float(golden["offset_sec"]))
    model = fast(drawn(MAKE["streamsync-trf"]))
    close(found(model, CLIP, stream, tmp_path), golden["streaming_logits"][:, 0], TOLERANCE)
