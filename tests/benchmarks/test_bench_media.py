"""What reading a clip costs over plain PyAV decoding to rgb24 (the floor): the ratio stands in ``extra_info``."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.video.reformatter import VideoReformatter

from avbench.data.encode import encode_clip
from avbench.data.media import ClipReader
from avbench.types import FrontEnd

N_FRAMES = 200


def plain(path: Path) -> int:
    reformatter, count = VideoReformatter(), 0
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_type, stream.codec_context.thread_count = "NONE", 1
        for picture in container.decode(stream):
            count += reformatter.reformat(picture, format="rgb24", threads=1).to_ndarray().shape[2] == 3
    return count


def ours(path: Path, frontend: FrontEnd) -> int:
    return sum(1 for _ in ClipReader(path).frames(frontend))


def cpu_s(*works: Callable[[], Any]) -> np.ndarray:
    """(15, len(works)) CPU times of each, taken in turns: a machine that changes its pace changes it for all alike."""
    costs = np.empty((15, len(works)))
    for row in costs:
        for k, work in enumerate(works):
            begin = time.process_time()
            work()
            row[k] = time.process_time() - begin
    return costs


@pytest.mark.parametrize(
    ("height", "width", "frontend"),
    [(64, 64, FrontEnd(size=64)), (256, 342, FrontEnd(size=224, fit="crop"))],
    ids=["synthsync-64", "published-256"],
)
def test_reading(benchmark: Any, tmp_path: Path, height: int, width: int, frontend: FrontEnd) -> None:
    base = np.random.default_rng(0).integers(0, 255, (height // 8, width // 2, 3)).astype(np.uint8)
    base = base.repeat(8, axis=0).repeat(2, axis=1)
    path = tmp_path / "c.mp4"
    encode_clip(path, (np.roll(base, k, axis=1) for k in range(N_FRAMES)), np.zeros(N_FRAMES * 640, np.float32))
    assert benchmark(ours, path, frontend) == plain(path) == N_FRAMES
    costs = cpu_s(lambda: ours(path, frontend), lambda: plain(path))
    cost = costs[:, 0].min()
    benchmark.extra_info["ratio_to_plain_pyav"] = round(float(np.median(costs[:, 0] / costs[:, 1])), 3)
    benchmark.extra_info["frames_per_cpu_s"] = round(N_FRAMES / cost)
    benchmark.extra_info["times_real_time"] = round(N_FRAMES / 25 / cost)
