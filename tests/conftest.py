"""What several tests share: a cache of their own, a process to run the command in, and small really encoded clips."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

from avbench.cli import main
from avbench.data.clicks import click_and_flash
from avbench.data.encode import encode_clip
from avbench.data.media import media_sha256
from avbench.protocol.manifest import Manifest, write_manifest
from avbench.ticks import FRAME_RATE_HZ, SAMPLE_RATE_HZ, ticks
from avbench.types import ClipRecord, OffsetGrid, SegmentRecord

# Read when the hub's client is imported: no test reaches the real hub or uses anybody's token or cache; a test that
# wants a hub starts its own (tests/support/loopback_hub.py). Nobody answers at this address.
for _name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE"):
    os.environ.pop(_name, None)
os.environ["HF_ENDPOINT"] = "http://127.0.0.1:9"
os.environ["HF_HOME"] = os.path.join(tempfile.gettempdir(), f"avbench-tests-no-hub-{os.getpid()}")
for _name in ("XET", "TELEMETRY", "UPDATE_CHECK", "PROGRESS_BARS"):
    os.environ[f"HF_HUB_DISABLE_{_name}"] = "1"

os.environ["AVBENCH_NO_MEDIA"] = "1"  # hundreds of runs need no clips; tests of these take it back

# a busy machine is slow, not wrong
settings.register_profile("avbench", deadline=None)
settings.load_profile("avbench")

Avbench = Callable[..., "subprocess.CompletedProcess[str]"]  # tests write it out: a conftest cannot be imported


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No test reads or fills the cache of the person who runs it."""
    cache = tmp_path / "avbench-cache"
    monkeypatch.setenv("AVBENCH_CACHE", str(cache))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.delenv("COLUMNS", raising=False)  # xdist sets it; a test's output is no terminal
    return cache


@pytest.fixture
def avbench_process(tmp_path: Path) -> Avbench:
    """``avbench_process("run", "--model", "xcorr")`` as a process of its own, in the test's folder."""

    def run(*args: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "avbench", *map(str, args)]
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=300)

    return run


@pytest.fixture
def avbench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Avbench:
    """The same in this process: it need not start Python and import everything again."""
    monkeypatch.chdir(tmp_path)

    def run(*args: object) -> subprocess.CompletedProcess[str]:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                code = main([str(arg) for arg in args])
            except SystemExit as stop:
                code = int(stop.code or 0)
        return subprocess.CompletedProcess(args, code, out.getvalue(), err.getvalue())

    return run


def click_manifest(
    folder: Path, clips: Sequence[str] = ("one", "two"), duration_s: int = 14, offsets_s: Sequence[float] = (-0.8, 0.4)
) -> Manifest:
    """A manifest in ``folder`` over click-and-flash clips; one segment per clip and offset, at 3 s."""
    folder.mkdir(parents=True, exist_ok=True)
    records, segments = {}, []
    for seed, name in enumerate(clips):
        path = folder / "media" / f"{name}.mp4"
        path.parent.mkdir(exist_ok=True)
        encode_clip(path, *click_and_flash(duration_s, seed=seed))
        n_frames, n_samples = duration_s * FRAME_RATE_HZ, duration_s * SAMPLE_RATE_HZ
        records[name] = ClipRecord(name, name, path.name, media_sha256(path), n_frames, n_samples)
        for i, offset_s in enumerate(offsets_s):
            label = OffsetGrid().class_of(offset_s)
            category = ("talking head", "voice-over", "other")[i % 3]
            segments.append(
                SegmentRecord(f"{name}-{i}", name, name, ticks(3), ticks(offset_s), label, category=category)
            )
    manifest = Manifest(
        name="clicks",
        kind="files",
        note="click and flash",
        offset_law="uniform",
        clips=records,
        segments=tuple(segments),
        media_root=folder / "media",
    )
    write_manifest(manifest, folder)
    return manifest


@pytest.fixture(scope="session")
def clicks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest folder with two sound clips and four segments; read only."""
    folder = tmp_path_factory.mktemp("clicks")
    click_manifest(folder)
    return folder


@pytest.fixture(scope="session")
def five_clicks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest folder with five short sound clips, a to e, and ten segments; read only."""
    folder = tmp_path_factory.mktemp("five-clicks")
    click_manifest(folder, "abcde", duration_s=10)
    return folder


@pytest.fixture
def make_clicks(tmp_path: Path) -> Callable[..., Path]:
    """A fresh manifest folder of the test's own, to be damaged at will."""

    def make(name: str = "data", **changes: object) -> Path:
        click_manifest(tmp_path / name, **changes)  # type: ignore[arg-type]
        return tmp_path / name

    return make


@pytest.fixture
def silence() -> np.ndarray:
    return np.zeros(14 * SAMPLE_RATE_HZ, np.float32)
