"""What the annotator networks cost on one CPU thread, in CPU time: ``ms_per_s_of_video`` stands in ``extra_info``."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from avbench.baselines.lrasd import LRASD, LipSync, mfcc
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


def per_second_of_video(benchmark: Any, video_s: float) -> None:
    """Notes the least cost of a round by second of video."""
    if benchmark.stats:  # none with --benchmark-disable
        benchmark.extra_info["ms_per_s_of_video"] = round(1000 * benchmark.stats.stats.min / video_s, 2)


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
    lips, (faces, rows) = LipSync(MODELS / "lrasd_pretrain_AVA.model"), lrasd_track(video_s)
    found = benchmark.pedantic(lips.score, (faces, rows, 0), rounds=3, warmup_rounds=1)
    assert found.curve.shape == (51,)
    per_second_of_video(benchmark, video_s)


@cpu_time
@pytest.mark.parametrize("part", ["faces", "sound", "scores"])
def test_lrasd_network(benchmark: Any, part: str) -> None:
    """4 s through one of the encoders, or all through the network once."""
    network, (faces, rows) = LRASD(), lrasd_track(4)
    picture, sound = torch.from_numpy(faces[:96])[None], torch.from_numpy(rows[: 4 * 96])[None]
    work = {
        "faces": lambda: network.encode_faces(picture),
        "sound": lambda: network.encode_sound(sound),
        "scores": lambda: network.scores(picture, sound),
    }
    assert benchmark.pedantic(work[part], rounds=3, warmup_rounds=1).shape[:2] == (1, 96)
    per_second_of_video(benchmark, 96 / FRAME_RATE_HZ)


@cpu_time
def test_lrasd_mfcc(benchmark: Any) -> None:
    """The front end on 60 s of sound."""
    sound = np.random.default_rng(0).normal(0, 3000, 60 * SAMPLE_RATE_HZ)
    assert benchmark(mfcc, sound).shape == (5999, 13)
    per_second_of_video(benchmark, 60)
