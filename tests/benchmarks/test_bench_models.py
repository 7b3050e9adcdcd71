"""What the full-size models cost on this CPU at batch 1, one thread; ratios stand in ``extra_info``.

``pytest tests/benchmarks/test_bench_models.py -m "slow or not slow" --benchmark-enable`` takes some minutes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch

from avbench.baselines.checkpoints import drawn_weights
from avbench.baselines.sparsesync import SparseSync, fast
from avbench.baselines.streamsync import StreamingLSTM, StreamingTransformer, StreamSync
from avbench.baselines.synchformer import Synchformer
from avbench.types import Snapshot


@pytest.fixture(autouse=True)
def _one_thread_no_gradients() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.inference_mode():
        yield
    torch.set_num_threads(threads)


def model(make: Callable[[], Any]) -> Any:
    with torch.device("meta"):
        empty = make()
    empty.load_state_dict(drawn_weights(empty.state_dict(), 0), assign=True)
    return empty.eval()


def window() -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    video = torch.randint(0, 256, (1, 125, 3, 224, 224), dtype=torch.uint8, generator=draw)
    return video, 0.1 * torch.randn(1, 80_000, generator=draw)


def cpu_s(work: Callable[[], Any], tries: int = 2) -> float:
    """Least CPU time: wall time would measure the neighbours."""
    costs = []
    for _ in range(tries):
        begin = time.process_time()
        work()
        costs.append(time.process_time() - begin)
    return min(costs)


@pytest.mark.parametrize("history", [1, 18, 48])
def test_transformer_head(benchmark: Any, history: int) -> None:
    head = StreamingTransformer().eval()
    tokens = torch.randn(1, history, 512)
    assert benchmark(head, tokens).shape == (1, 21)


def test_lstm_step(benchmark: Any) -> None:
    head = StreamingLSTM().eval()
    state = head.init(1)
    snapshot = Snapshot(torch.zeros(1, 21), torch.randn(1, 512))
    assert benchmark(head.step, state, snapshot, 0.0)[1].shape == (1, 21)


@pytest.mark.slow
@pytest.mark.parametrize("head", ["snapshot", "trf", "lstm"])
def test_fast_window(benchmark: Any, head: str) -> None:
    """SparseSync alone, and StreamSync's 18th iteration."""
    quick = fast(model(SparseSync if head == "snapshot" else partial(StreamSync, head)))
    video, audio = window()
    history = () if head == "snapshot" else (torch.randn(1, 17, 512),)
    benchmark.pedantic(quick, (video, audio, *history), rounds=3, warmup_rounds=1)


@pytest.mark.slow
def test_fast_copy_against_the_published_layout(benchmark: Any) -> None:
    """The aim is 3 or more, at equal logits."""
    published = model(SparseSync)
    quick = fast(published)
    inputs = window()
    expected, found = published(*inputs), quick(*inputs)
    assert torch.allclose(expected, found, atol=2e-3)
    slow_s, quick_s = cpu_s(lambda: published(*inputs)), cpu_s(lambda: quick(*inputs))
    benchmark.extra_info |= {
        "published_cpu_s": round(slow_s, 2),
        "fast_cpu_s": round(quick_s, 2),
        "ratio": round(slow_s / quick_s, 2),
        "largest_logit_difference": float((expected - found).abs().max()),
    }
    benchmark.pedantic(quick, inputs, rounds=1)


@pytest.mark.slow
def test_bfloat16_trunk(benchmark: Any) -> None:
    published = model(SparseSync)
    inputs = window()
    exact, rough = fast(published), fast(published, torch.bfloat16)
    difference = (exact(*inputs) - rough(*inputs)).abs().max()
    benchmark.extra_info |= {
        "ratio_to_float32": round(cpu_s(lambda: exact(*inputs)) / cpu_s(lambda: rough(*inputs)), 2),
        "largest_logit_difference": float(difference),
    }
    benchmark.pedantic(rough, inputs, rounds=1)


@pytest.mark.slow
def test_picture_and_sound_halves(benchmark: Any) -> None:
    """What the two-tower path saves: a clip's segments begin every 10 s, so their picture windows coincide."""
    quick = fast(model(SparseSync))
    video, audio = window()
    seen, heard = quick.encode_video(video), quick.encode_audio(audio)
    picture_s = cpu_s(lambda: quick.encode_video(video))
    rest_s = cpu_s(lambda: quick.fuse(seen, quick.encode_audio(audio)))
    starts_s, hop_s, n_windows = range(10, 260, 10), 2, 18
    asked = [start + i * hop_s for start in starts_s for i in range(n_windows)]
    encoded = len(set(asked))
    benchmark.extra_info |= {
        "picture_encodings_saved": round(len(asked) / encoded, 2),
        "clip_time_saved": round((picture_s + rest_s) * len(asked) / (picture_s * encoded + rest_s * len(asked)), 2),
    }
    assert len(asked) / encoded > 3
    benchmark(quick.fuse, seen, heard)


@pytest.mark.slow
def test_synchformer_window(benchmark: Any) -> None:
    benchmark.pedantic(model(Synchformer), window(), rounds=1)
