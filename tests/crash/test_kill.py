"""Killed at any point and run again: the same bytes as an undisturbed run, and no process is left behind."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from avbench.cli import main
from avbench.engine.store import SnapshotStore
from avbench.protocol.plan import SnapshotKey

TOY = Path(__file__).parent / "toy_run.py"
SLEEP_S = 0.002  # a second or so for the whole run, so that kills fall everywhere


def start(
    store: Path,
    predictions: Path,
    workers: int = 1,
    sleep_s: float = SLEEP_S,
    save_every_s: float = 30,
    overlapped: int = 0,
) -> subprocess.Popen[bytes]:
    options = map(str, (workers, sleep_s, save_every_s, overlapped))
    command = [sys.executable, str(TOY), str(store), str(predictions), *options]
    # tests that run in the background have SIGINT ignored, and children inherit that
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    return subprocess.Popen(command, stderr=subprocess.PIPE, start_new_session=True, preexec_fn=heed)


def files(store: Path) -> dict[str, bytes]:
    return {str(p.relative_to(store)): p.read_bytes() for p in sorted(store.rglob("*.safetensors"))}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, dict[str, bytes], float]:
    """Predictions, shards and the seconds it took."""
    root, began = tmp_path_factory.mktemp("undisturbed"), time.monotonic()
    run = start(root / "store", root / "predictions")
    assert run.wait() == 0, run.communicate()[1].decode()
    return (root / "predictions").read_bytes(), files(root / "store"), time.monotonic() - began


def kill_and_finish(
    root: Path, undisturbed: tuple[bytes, dict[str, bytes], float], points: list[float], save_every_s: float = 30
) -> int:
    """Kill one run after another at ``points`` (shares of the undisturbed time), then run to the end.

    Returns how many runs were killed while there was something, but not everything, in the store. With a small
    ``save_every_s`` clips are stored window by window.
    """
    predictions, shards, took_s = undisturbed
    store, in_the_middle = root / "store", 0
    for point in points:
        run = start(store, root / "predictions", save_every_s=save_every_s)
        with contextlib.suppress(subprocess.TimeoutExpired):
            run.wait(timeout=point * took_s)
        os.killpg(run.pid, signal.SIGKILL) if run.poll() is None else None
        run.communicate()
        found = files(store)
        in_the_middle += bool(found) and found != shards
        if (store / "store.json").exists():
            assert SnapshotStore(store).verify() == []
        if save_every_s > took_s:  # no shard holds a part of a clip
            assert found.items() <= shards.items()
    last = start(store, root / "predictions", sleep_s=0)
    assert last.wait() == 0, last.communicate()[1].decode()
    assert (root / "predictions").read_bytes() == predictions
    assert files(store) == shards
    assert SnapshotStore(store).verify() == []
    return in_the_middle


def test_killed_again_and_again(tmp_path: Path, undisturbed: tuple[bytes, dict[str, bytes], float]) -> None:
    rng = random.Random(0)
    for chain, save_every_s in enumerate((30.0, 0.0)):
        points = [rng.uniform(0.2, 1.0) for _ in range(3)]
        kill_and_finish(tmp_path / str(chain), undisturbed, points, save_every_s)


@pytest.mark.slow
def test_killed_at_forty_points(tmp_path: Path, undisturbed: tuple[bytes, dict[str, bytes], float]) -> None:
    rng = random.Random(1)
    in_the_middle = 0
    for chain in range(20):
        points = [rng.uniform(0.2, 1.0) for _ in range(2)]
        in_the_middle += kill_and_finish(tmp_path / str(chain), undisturbed, points, (30.0, 0.0)[chain % 2])
    assert in_the_middle >= 5, "the kills did not fall where they hurt"


@pytest.mark.parametrize("n", [1, pytest.param(12, marks=pytest.mark.slow)])
def test_the_pipeline_killed_and_run_again(
    tmp_path: Path, undisturbed: tuple[bytes, dict[str, bytes], float], n: int
) -> None:
    rng = random.Random(2)
    for k in range(n):
        root, save_every_s = tmp_path / str(k), (0.0, 30.0)[k % 2]
        run = start(root / "store", root / "predictions", 2, SLEEP_S, save_every_s, overlapped=1)
        # two decoders and multiprocessing's own helper
        assert wait_until(lambda: len(children(run.pid)) >= 3 or run.poll() is not None)  # noqa: B023
        started = children(run.pid)
        with contextlib.suppress(subprocess.TimeoutExpired):
            run.wait(timeout=rng.uniform(0.5, 1.5) * undisturbed[2])
        run.kill()  # this process alone: the decoding ones are to notice
        run.communicate()
        assert wait_until(lambda: not any(map(alive, started | children(run.pid))))  # noqa: B023
        if (root / "store" / "store.json").exists():
            assert SnapshotStore(root / "store").verify() == []
        last = start(root / "store", root / "predictions", 1, 0, overlapped=1)
        assert last.wait() == 0, last.communicate()[1].decode()
        assert (root / "predictions").read_bytes() == undisturbed[0]
        assert files(root / "store") == undisturbed[1]


def test_killed_exactly_while_a_shard_is_written(tmp_path: Path) -> None:
    """At every stage of the write: before, half way, complete but not renamed, renamed but not reported."""
    keys = [SnapshotKey(640 * i, 0) for i in range(3)]
    logits = np.random.default_rng(0).standard_normal((3, 21)).astype(np.float32)
    model, media = "a" * 64, "b" * 64
    for stage in ("mkstemp", "write", "fsync", "replace", "fsync of the folder"):
        root = tmp_path / stage
        SnapshotStore(root).put(model, media, keys[:1], logits[:1])
        code = (
            "import os, signal, sys, tempfile, numpy as np\n"
            "from avbench.engine.store import SnapshotStore; from avbench.protocol.plan import SnapshotKey\n"
            "stage, store = sys.argv[2], SnapshotStore(sys.argv[1])\n"
            "die = lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL)\n"
            "calls = []\n"
            "def second(*a): calls.append(a); len(calls) == 2 and die()\n"
            "def half(fd, *a):\n"
            "    class File:\n"
            "        def __enter__(self): return self\n"
            "        def __exit__(self, *error): pass\n"
            "        def write(self, data): os.write(fd, data[: len(data) // 2]); die()\n"
            "    return File()\n"
            "if stage == 'mkstemp': tempfile.mkstemp = die\n"
            "if stage == 'write': os.fdopen = half\n"
            "if stage == 'fsync': os.fsync = die\n"
            "if stage == 'replace': os.replace = die\n"
            "if stage == 'fsync of the folder': os.fsync = second\n"
            "logits = np.random.default_rng(0).standard_normal((3, 21)).astype(np.float32)\n"
            f"store.put('{model}', '{media}', [SnapshotKey(640, 0), SnapshotKey(1280, 0)], logits[1:])"
        )
        killed = subprocess.run([sys.executable, "-c", code, root, stage], check=False)
        assert killed.returncode == -signal.SIGKILL, stage
        store = SnapshotStore(root)
        assert store.verify() == [], stage
        assert len(store.missing(model, media, keys)) == (0 if stage == "fsync of the folder" else 2), stage
        store.put(model, media, keys, logits)
        np.testing.assert_array_equal(store.get(model, media, keys)[0], logits)
        assert not [p for p in root.rglob("*.tmp") if p.parent != root], stage


def test_a_run_killed_before_a_file_has_its_name_leaves_nothing_to_the_next(clicks: Path, tmp_path: Path) -> None:
    code = (
        "import os, signal, sys\n"
        "from avbench.cli import main\n"
        "real = os.replace\n"
        "def replace(a, b):\n"
        "    os.kill(os.getpid(), signal.SIGKILL) if str(b).endswith(sys.argv[1]) else real(a, b)\n"
        "os.replace = replace\n"
        "main(sys.argv[2:])"
    )
    run = ["run", "--model", "constant", "--data", clicks, "--out", tmp_path / "out", "--iterations", "1"]
    run += ["--n-resamples", "20", "--workers", "1", "--store", tmp_path / "store"]
    written = ["predictions.parquet", "run.html", "run.json", "segments.parquet"]
    for name in ("predictions.parquet", "run.json"):
        killed = subprocess.run([sys.executable, "-c", code, name, *map(str, run)], capture_output=True)
        assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
        assert [p for p in (tmp_path / "out").iterdir() if p.name.startswith(f".{name}.") and p.suffix == ".tmp"]
    assert main(list(map(str, run))) == 0
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == written


def test_two_runs_on_one_store_at_once(tmp_path: Path, undisturbed: tuple[bytes, dict[str, bytes], float]) -> None:
    runs = [start(tmp_path / "store", tmp_path / f"predictions{i}") for i in range(2)]
    for i, run in enumerate(runs):
        assert run.wait() == 0, run.communicate()[1].decode()
        assert (tmp_path / f"predictions{i}").read_bytes() == undisturbed[0]
    assert files(tmp_path / "store") == undisturbed[1]
    assert SnapshotStore(tmp_path / "store").verify() == []


def test_two_processes_on_one_shard_at_once(tmp_path: Path) -> None:
    code = (
        "import sys, numpy as np\n"
        "from avbench.engine.store import SnapshotStore; from avbench.protocol.plan import SnapshotKey\n"
        "store, first = SnapshotStore(sys.argv[1]), int(sys.argv[2])\n"
        "for i in range(first, 40, 2):\n"
        "    store.put('a' * 64, 'b' * 64, [SnapshotKey(i, i)], np.full((1, 21), i))"
    )
    runs = [subprocess.Popen([sys.executable, "-c", code, tmp_path, str(first)]) for first in (0, 1)]
    assert [run.wait() for run in runs] == [0, 0]
    logits, _ = SnapshotStore(tmp_path).get("a" * 64, "b" * 64, [SnapshotKey(i, i) for i in range(40)])
    np.testing.assert_array_equal(logits[:, 0], np.arange(40))


# ----------------------------------------------------------------------------------------------------- worker processes


def children(pid: int) -> set[int]:
    try:
        return set(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))
    except OSError:
        return set()


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 60
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return condition()


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks for processes in /proc, which only Linux has")
@pytest.mark.parametrize(("how", "overlapped"), [(signal.SIGKILL, 0), (signal.SIGINT, 0), (signal.SIGINT, 1)])
def test_no_worker_outlives_its_parent(tmp_path: Path, how: signal.Signals, overlapped: int) -> None:
    # 7 s a clip: workers are busy
    run = start(tmp_path / "store", tmp_path / "predictions", workers=2, sleep_s=0.05, overlapped=overlapped)
    # two workers and multiprocessing's own helper
    assert wait_until(lambda: len(children(run.pid)) >= 3 or run.poll() is not None)
    started = children(run.pid)
    assert len(started) >= 3
    assert wait_until(lambda: (tmp_path / "store" / "store.json").exists())
    run.send_signal(how)
    said = run.communicate()[1].decode()
    assert run.returncode != 0
    assert (how == signal.SIGINT) == ("KeyboardInterrupt" in said)
    assert wait_until(lambda: not any(map(alive, started)))
    assert not (tmp_path / "predictions").exists()
