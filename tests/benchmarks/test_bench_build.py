"""What normalising costs: raw 720p video with 48 kHz stereo sound to clips, in one process. Frames per CPU second and
multiples of real time stand in ``extra_info``."""

from __future__ import annotations

import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from avbench.data.building.normalise import Encoding, normalise

N_FRAMES = 200


def raw_video(path: Path, width: int, height: int) -> Path:
    """A moving texture; H.264 with B-frames, AAC 48 kHz stereo."""
    rng = np.random.default_rng(0)
    base = rng.integers(0, 255, (height // 8, width // 8, 3)).astype(np.uint8).repeat(8, axis=0).repeat(8, axis=1)
    sound = (0.1 * rng.standard_normal((2, N_FRAMES * 1920))).astype(np.float32)
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264", rate=25, options={"preset": "veryfast"})
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        voice = out.add_stream("aac", rate=48_000, layout="stereo")
        for k in range(N_FRAMES):
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(np.roll(base, 3 * k, axis=1)), "rgb24")
            picture.pts, picture.time_base = k, Fraction(1, 25)
            out.mux(video.encode(picture))
            piece = av.AudioFrame.from_ndarray(np.ascontiguousarray(sound[:, 1920 * k : 1920 * (k + 1)]), "fltp")
            piece.sample_rate, piece.pts, piece.time_base = 48_000, 1920 * k, Fraction(1, 48_000)
            out.mux(voice.encode(piece))
        out.mux(video.encode(None))
        out.mux(voice.encode(None))
    return path


@pytest.mark.parametrize(("width", "height"), [(1280, 720), (320, 180)], ids=["720p", "180p"])
def test_building(benchmark: Any, tmp_path: Path, width: int, height: int) -> None:
    raw = raw_video(tmp_path / "raw.mp4", width, height)
    costs = []

    def build() -> int:
        run = tmp_path / f"run{len(costs)}"
        for name in ("media", "records"):
            (run / name).mkdir(parents=True)
        begin = time.process_time()
        made = normalise(raw, "v", "k", run / "media", run / "records", Encoding(min_clip_s=1))
        costs.append(time.process_time() - begin)
        return sum(clip.n_frames for clip in made.clips)

    assert benchmark.pedantic(build, rounds=2) == N_FRAMES
    benchmark.extra_info["frames_per_cpu_s"] = round(N_FRAMES / min(costs))
    benchmark.extra_info["times_real_time_per_core"] = round(N_FRAMES / 25 / min(costs), 1)
