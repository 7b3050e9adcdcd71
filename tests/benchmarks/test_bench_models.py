"""What the models cost at batch 1: a window, a streaming step, the heads; the two-tower saving; fast against published.

``pytest tests/benchmarks/test_bench_models.py -m "slow or not slow" --benchmark-enable`` takes some minutes. On the CPU
one thread and CPU time are measured (wall time would measure the neighbours), and ratios stand in ``extra_info``; on a
GPU wall time with the device waited for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from avbench.baselines.mini import MiniSparseSync, MiniSynchformer
from avbench.baselines.sparsesync import SparseSync, fast
from avbench.baselines.streamsync import StreamingLSTM, StreamingTransformer, StreamSync
from avbench.baselines.synchformer import Synchformer
from avbench.baselines.syncnet import SyncNet
from avbench.baselines.tuned import DTYPES, tuned
from avbench.engine.runner import Compute, compute
from avbench.engine.store import SnapshotStore
from avbench.protocol.manifest import Manifest
from avbench.protocol.rules import streaming
from avbench.system.precision import exact_float32
from avbench.ticks import ticks
from avbench.types import ClipRecord, FrontEnd, OffsetGrid, SegmentRecord, Snapshot
from avbench.weights.checkpoints import drawn_weights

ITERATIONS = 18
cpu_time = pytest.mark.benchmark(timer=time.process_time)
gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")


@pytest.fixture(autouse=True)
def _one_thread_no_gradients() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.inference_mode(), exact_float32():
        yield
    torch.set_num_threads(threads)


def model(make: Callable[[], Any]) -> Any:
    with torch.device("meta"):
        empty = make()
    empty.load_state_dict(drawn_weights(empty.state_dict(), 0), assign=True)
    return empty.eval()


@cache
def full_size(name: str) -> Any:
    """A full-size model as it is run on a CPU."""
    if name == "synchformer":
        return model(Synchformer)
    return fast(model(SparseSync if name == "sparsesync" else partial(StreamSync, name)))


def mini(name: str) -> Any:
    torch.manual_seed(0)
    return (MiniSparseSync if name == "sparsesync" else MiniSynchformer)().eval()


def window(size: int = 224, batch: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    video = torch.randint(0, 256, (batch, 125, 3, size, size), dtype=torch.uint8, generator=draw)
    return video, 0.1 * torch.randn(batch, 80_000, generator=draw)


def head_and_state(kind: str, history: int, dim: int = 512) -> tuple[Any, Any, Snapshot]:
    """A head that has seen ``history`` - 1 tokens, its state, and the next snapshot."""
    torch.manual_seed(0)
    head = (StreamingTransformer if kind == "trf" else StreamingLSTM)(dim).eval()
    state = head.init(1)
    for _ in range(history - 1):
        state, _ = head.step(state, Snapshot(torch.zeros(1, 21), torch.randn(1, dim)), 0.0)
    return head, state, Snapshot(torch.zeros(1, 21), torch.randn(1, dim))


def cpu_s(work: Callable[[], Any], tries: int = 2) -> float:
    """Least CPU time of some tries."""
    costs = []
    for _ in range(tries):
        begin = time.process_time()
        work()
        costs.append(time.process_time() - begin)
    return min(costs)


# -------------------------------------------------------------------------------------------------------------- CPU


@cpu_time
@pytest.mark.parametrize("history", [1, 18, 48])
@pytest.mark.parametrize("kind", ["trf", "lstm"])
def test_head_step(benchmark: Any, kind: str, history: int) -> None:
    """The full-size head alone, at its 1st, 18th and 48th step."""
    head, state, snapshot = head_and_state(kind, history)
    assert benchmark(head.step, state, snapshot, 0.0)[1].shape == (1, 21)


@cpu_time
@pytest.mark.parametrize("name", ["sparsesync", "synchformer"])
def test_mini_window(benchmark: Any, name: str) -> None:
    small = mini(name)
    video, audio = window(64)
    assert benchmark(small.predict, video, audio).logits.shape == (1, 21)


@cpu_time
@pytest.mark.parametrize("kind", ["trf", "lstm"])
def test_mini_streaming_step(benchmark: Any, kind: str) -> None:
    """The 18th iteration: the window and the head."""
    small = mini("sparsesync")
    head, state, _ = head_and_state(kind, ITERATIONS, small.token_dim)
    video, audio = window(64)
    logits = benchmark(lambda: head.step(state, small.predict(video, audio), 34.0))[1]
    assert logits.shape == (1, 21)


@cpu_time
@pytest.mark.slow
@pytest.mark.parametrize("name", ["sparsesync", "synchformer"])
def test_full_size_window(benchmark: Any, name: str) -> None:
    big = full_size(name)
    rounds = 1 if name == "synchformer" else 3
    benchmark.pedantic(big.predict, window(), rounds=rounds, warmup_rounds=rounds // 3)


@cpu_time
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["trf", "lstm"])
def test_full_size_streaming_step(benchmark: Any, kind: str) -> None:
    """StreamSync's 18th iteration: the window and the head; its overhead over the window alone."""
    big = full_size(kind)
    _, state, _ = head_and_state(kind, ITERATIONS)
    video, audio = window()
    snapshot = big.predict(video, audio)
    window_s = cpu_s(lambda: big.predict(video, audio), 1)
    head_s = cpu_s(lambda: big.streaming_head.step(state, snapshot, 34.0), 5)
    benchmark.extra_info["overhead_of_the_head"] = round(head_s / window_s, 4)
    step = lambda: big.streaming_head.step(state, big.predict(video, audio), 34.0)  # noqa: E731
    benchmark.pedantic(step, rounds=2)


@pytest.mark.slow
def test_fast_copy_against_the_published_layout(benchmark: Any) -> None:
    """The aim is 3 or more for the whole window, decoded frames to logits, at equal logits."""
    published = model(SparseSync)
    quick = fast(published)
    inputs = window()
    expected, found = published.predict(*inputs).logits, quick.predict(*inputs).logits
    assert torch.allclose(expected, found, atol=2e-3)
    slow_s, quick_s = [], []
    for _ in range(2):  # by turns
        slow_s.append(cpu_s(lambda: published.predict(*inputs), 1))
        quick_s.append(cpu_s(lambda: quick.predict(*inputs), 1))
    benchmark.extra_info |= {
        "published_cpu_s": round(min(slow_s), 2),
        "fast_cpu_s": round(min(quick_s), 2),
        "ratio": round(min(slow_s) / min(quick_s), 2),
        "largest_logit_difference": float((expected - found).abs().max()),
    }
    benchmark.pedantic(quick.predict, inputs, rounds=1)


@pytest.mark.slow
def test_bfloat16_trunk(benchmark: Any) -> None:
    """Where the CPU has bfloat16; without it, it is slower than float32."""
    published = model(SparseSync)
    inputs = window()
    exact, rough = fast(published), fast(published, torch.bfloat16)
    difference = (exact.predict(*inputs).logits - rough.predict(*inputs).logits).abs().max()
    benchmark.extra_info |= {
        "ratio_to_float32": round(
            cpu_s(lambda: exact.predict(*inputs), 1) / cpu_s(lambda: rough.predict(*inputs), 1), 2
        ),
        "largest_logit_difference": float(difference),
    }
    benchmark.pedantic(rough.predict, inputs, rounds=1)


@cpu_time
@pytest.mark.slow
def test_lips_and_sound_of_syncnet(benchmark: Any) -> None:
    """A second of a face and of sound, cropped and MFCC'd: 21 and 20 windows."""
    network = model(SyncNet)
    draw = np.random.default_rng(0)
    crops = draw.integers(0, 256, (25, 224, 224, 3), np.uint8)
    sound = torch.from_numpy(draw.normal(size=(20, 1, 13, 20)))
    benchmark.pedantic(network.face_features, (crops,), rounds=5, warmup_rounds=1)
    lips_s, sound_s = cpu_s(lambda: network.face_features(crops)), cpu_s(lambda: network.sound_features(sound))
    benchmark.extra_info |= {"lips_per_cpu_s": round(21 / lips_s, 1), "sounds_per_cpu_s": round(20 / sound_s, 1)}


class _Clip:
    """Pictures and sound from memory: decoding has a benchmark of its own."""

    def __init__(self, clip: ClipRecord) -> None:
        draw = np.random.default_rng(0)
        self.images = draw.integers(0, 256, (25, 3, 64, 64), np.uint8)
        self.sound = draw.standard_normal(clip.n_samples).astype(np.float32) / 10
        self.clip = clip

    def audio(self) -> np.ndarray:
        return self.sound

    def gaps(self) -> tuple[()]:
        return ()

    def frames(self, *frontends: FrontEnd) -> Iterator[tuple[np.ndarray, ...]]:
        return ((self.images[k % 25],) * len(frontends) for k in range(self.clip.n_frames))


@cpu_time
@pytest.mark.slow
@pytest.mark.parametrize("two_tower", [True, False])
def test_two_tower_saving(benchmark: Any, two_tower: bool, tmp_path: Path) -> None:
    """A 300 s clip with a segment every 10 s, 18 windows with hop 2 s: their picture windows coincide."""
    clip = ClipRecord("long", "long", "long.mp4", "0" * 64, 300 * 25, 300 * 16_000)
    segments = tuple(
        SegmentRecord(f"s{start}", "long", "long", ticks(start), ticks(offset_s), OffsetGrid().class_of(offset_s))
        for start, offset_s in zip(range(10, 260, 10), np.linspace(-2, 2, 25).round(2).tolist(), strict=True)
    )
    manifest = Manifest("long", "files", "", "uniform", {"long": clip}, segments, tmp_path)
    small = mini("sparsesync")
    small.two_tower = two_tower
    reports = []

    def run() -> None:
        store = SnapshotStore(tmp_path / f"store{len(reports)}")
        reports.append(compute(manifest, [streaming()], {"mini": small}, Compute(store, 1), open_clip=_Clip))

    benchmark.pedantic(run, rounds=1)
    counters = reports[0].counters
    saved = counters["snapshots_computed"] / counters["picture_windows_encoded"]
    benchmark.extra_info |= {
        "snapshots": counters["snapshots_computed"],
        "picture_windows_encoded": counters["picture_windows_encoded"],
        "fewer_by": round(saved, 2),
    }
    assert counters["snapshots_computed"] == 25 * 18
    # 450 windows at 138 places; the longer a clip, the nearer to 18 / 5 = 3.6
    assert saved == (pytest.approx(450 / 138) if two_tower else 1)


# -------------------------------------------------------------------------------------------------------------- GPU


def wall_ms(work: Callable[[], Any], rounds: int = 20, warm_up: int = 5) -> float:
    """Median wall milliseconds; a GPU is waited for before and after each."""
    wait = torch.cuda.synchronize if torch.cuda.is_available() else lambda: None
    for _ in range(warm_up):
        work()
    times = []
    for _ in range(rounds):
        wait()
        began = time.perf_counter()
        work()
        wait()
        times.append(1000 * (time.perf_counter() - began))
    return float(np.median(times))


def throughput(call: Callable[..., Any], inputs: tuple[torch.Tensor, ...], largest: int = 32) -> dict[int, float]:
    """Batch -> windows per second: the batch is doubled while memory lasts and it gains 2 %."""
    rates: dict[int, float] = {}
    batch = 1
    while batch <= largest:
        many = [x.expand(batch, *x.shape[1:]) for x in inputs]
        try:
            rate = 1000 * batch / wall_ms(partial(call, *many), 3, 1)
        except torch.cuda.OutOfMemoryError:
            break
        gains = rate > 1.02 * max(rates.values(), default=0)
        rates[batch], batch = rate, 2 * batch
        if not gains:
            break
    return rates


def costs(big: Any, gflop: tuple[float, float], dtype: str, device: str, size: int = 224, matrix: int = 8192) -> Any:
    """Batch 1; the batches up to the best; and the shares of the measured matrix-multiplication peak of the dtype that
    a window and its picture encoder alone reach at each batch. ``big``: on its device, computing in ``dtype``.

    ``gflop``: of one window, and of its picture encoder, counted (models.md).
    """
    video, audio = (x.to(device) for x in window(size))
    alone = wall_ms(lambda: big.predict(video, audio))
    whole, picture = throughput(big.predict, (video, audio)), throughput(big.encode_video, (video,))
    a = torch.randn(matrix, matrix, device=device, dtype=DTYPES[dtype])
    peak = 2 * matrix**3 / wall_ms(lambda: a @ a) * 1000
    best = max(whole, key=lambda batch: whole[batch])

    def shares(rates: dict[int, float], each: float) -> dict[int, float]:
        return {batch: round(rate * each * 1e9 / peak, 4) for batch, rate in rates.items()}

    return {
        "ms_at_batch_1": round(alone, 2),
        "best_batch": best,
        "windows_per_s": round(whole[best], 1),
        "matmul_peak_tflops": round(peak / 1e12, 1),
        "share_of_matmul_peak": shares(whole, gflop[0]),  # by batch
        "picture_share_of_matmul_peak": shares(picture, gflop[1]),
    }


def test_costs_of_a_small_model(benchmark: Any) -> None:
    """What the GPU benchmarks do, where there is no GPU."""
    found = benchmark.pedantic(costs, (mini("sparsesync"), (0.01, 0.005), "float32", "cpu", 64, 256), rounds=1)
    assert found["ms_at_batch_1"] > 0
    assert found["best_batch"] in found["share_of_matmul_peak"]
    assert found["windows_per_s"] > 0
    assert min(found["share_of_matmul_peak"].values()) > 0
    assert min(found["picture_share_of_matmul_peak"].values()) > 0


@gpu
@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("copy", ["published", "accelerated", "compiled"])
@pytest.mark.parametrize("name", ["sparsesync", "synchformer"])
def test_gpu_window_and_throughput(benchmark: Any, name: str, copy: str, dtype: str) -> None:
    """The published layout, the copy for accelerators (what `avbench run --device cuda` computes with), and that copy
    compiled; in lower precision with weights stored in it."""
    plain = model(SparseSync if name == "sparsesync" else Synchformer)
    big = tuned(plain, "" if copy == "published" else "accelerator", dtype, copy == "compiled").eval().cuda()
    gflop = {"sparsesync": (300.9, 284.6), "synchformer": (5724.6, 5520.9)}[name]
    found = benchmark.pedantic(costs, (big, gflop, dtype, "cuda"), rounds=1)
    benchmark.extra_info |= found
    print(name, copy, dtype, found)


@gpu
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["trf", "lstm"])
def test_gpu_streaming_overhead(benchmark: Any, kind: str) -> None:
    """The 18th iteration over the window alone (the paper, on another GPU: trf +11 %, lstm +3.8 %)."""
    big = model(partial(StreamSync, kind)).cuda()
    video, audio = (x.cuda() for x in window())
    state = big.streaming_head.init(1)
    for _ in range(ITERATIONS - 1):
        state, _ = big.streaming_head.step(state, big.predict(video, audio), 0.0)
    alone = wall_ms(lambda: big.predict(video, audio), 50)
    whole = wall_ms(lambda: big.streaming_head.step(state, big.predict(video, audio), 34.0), 50)
    benchmark.extra_info |= {"window_ms": round(alone, 2), "overhead": round(whole / alone - 1, 4)}
    benchmark.pedantic(lambda: big.predict(video, audio), rounds=1)
