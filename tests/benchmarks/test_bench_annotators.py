"""What the annotator networks cost on one CPU thread, in CPU time: ``ms_per_s_of_sound`` stands in ``extra_info``."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from avbench.data.pinned import EFFICIENTAT
from avbench.data.tagging import AudioSetTagger, EfficientAT, mel_input
from avbench.ticks import SAMPLE_RATE_HZ

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


def per_second(benchmark: Any, sound_s: float) -> None:
    """Notes the least cost of a round by second of sound."""
    if benchmark.stats:  # none with --benchmark-disable
        benchmark.extra_info["ms_per_s_of_sound"] = round(1000 * benchmark.stats.stats.min / sound_s, 2)


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
