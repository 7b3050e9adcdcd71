"""What the annotator networks cost on one CPU thread, in CPU time: ``ms_per_s`` of material is in ``extra_info``."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from avbench.baselines.lrasd import LRASD as LRASDNetwork
from avbench.baselines.lrasd import LipSync, mfcc
from avbench.data.pinned import EFFICIENTAT, LRASD
from avbench.data.tagging import AudioSetTagger, EfficientAT, mel_input
from avbench.ticks import FRAME_RATE_HZ, SAMPLE_RATE_HZ

MODELS = Path(__file__).resolve().parents[2].parent / "shared" / "models"
cpu_time = pytest.mark.benchmark(timer=time.process_time)
needs_weights = pytest.mark.skipif(not MODELS.is_dir(), reason="the published weights are absent: ../shared/models")


@pytest.fixture(autouse=True)
def _one_thread_no_gradients() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.inference_mode():
        yield
    torch.set_num_threads(threads)


def per_second(benchmark: Any, length_s: float) -> None:
    """Notes the least cost of a round by second of sound or video."""
    if benchmark.stats:  # none with --benchmark-disable
        benchmark.extra_info["ms_per_s"] = round(1000 * benchmark.stats.stats.min / length_s, 2)


@cpu_time
@needs_weights
@pytest.mark.parametrize("sound_s", [4, 10])
def test_efficientat_tagger(benchmark: Any, sound_s: int) -> None:
    """A chunk of 16 kHz sound to names: resampling, mel input, network. 4 s is what a clip is annotated by."""
    tagger = AudioSetTagger(MODELS / EFFICIENTAT.name)
    sound = np.random.default_rng(0).standard_normal(sound_s * SAMPLE_RATE_HZ).astype(np.float32) / 10
    names = benchmark(tagger.events, sound)
    assert set(names) <= set(tagger.names)
    per_second(benchmark, sound_s)


@cpu_time
@pytest.mark.parametrize("batch", [1, 8])
def test_efficientat_network(benchmark: Any, batch: int) -> None:
    """The network alone on 4 s: a batch gains little on a CPU, so chunks are tagged one by one."""
    torch.manual_seed(0)
    model = EfficientAT().eval()
    mel = mel_input(0.1 * torch.randn(batch, 128_000))
    assert benchmark(model, mel).shape == (batch, 527)
    per_second(benchmark, 4 * batch)


def lrasd_track(video_s: int) -> tuple[np.ndarray, np.ndarray]:
    """Faces and MFCC of a track that fills its clip."""
    rng = np.random.default_rng(0)
    faces = rng.integers(0, 256, (video_s * FRAME_RATE_HZ, 112, 112), dtype=np.uint8)
    return faces, mfcc(rng.normal(0, 3000, video_s * SAMPLE_RATE_HZ)).astype(np.float32)


@cpu_time
@needs_weights
@pytest.mark.parametrize("video_s", [3, pytest.param(40, marks=pytest.mark.slow)])
def test_lrasd_lip_score(benchmark: Any, video_s: int) -> None:
    """A face track's whole lag curve."""
    lips, (faces, rows) = LipSync(MODELS / LRASD.name), lrasd_track(video_s)
    found = benchmark.pedantic(lips.score, (faces, rows, 0), rounds=3, warmup_rounds=1)
    assert found.curve.shape == (51,)
    per_second(benchmark, video_s)


@cpu_time
@pytest.mark.parametrize("part", ["faces", "sound", "scores"])
def test_lrasd_network(benchmark: Any, part: str) -> None:
    """4 s through one of the encoders, or all through the network once."""
    network, (faces, rows) = LRASDNetwork(), lrasd_track(4)
    picture, sound = torch.from_numpy(faces[:96])[None], torch.from_numpy(rows[: 4 * 96])[None]
    work = {
        "faces": lambda: network.encode_faces(picture),
        "sound": lambda: network.encode_sound(sound),
        "scores": lambda: network.scores(picture, sound),
    }
    assert benchmark.pedantic(work[part], rounds=3, warmup_rounds=1).shape[:2] == (1, 96)
    per_second(benchmark, 96 / FRAME_RATE_HZ)


@cpu_time
def test_lrasd_mfcc(benchmark: Any) -> None:
    """The front end on 60 s of sound."""
    sound = np.random.default_rng(0).normal(0, 3000, 60 * SAMPLE_RATE_HZ)
    assert benchmark(mfcc, sound).shape == (5999, 13)
    per_second(benchmark, 60)
