"""Jobs in processes of their own: what one of them does to itself stays with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import types
from pathlib import Path
from typing import Any

import pytest

from avbench.data.building.jobs import Job, LocalEngine, Outcome, RayEngine, engine_of, perform
from avbench.types import UsageError

SUPPORT = Path(__file__).parents[2] / "support"


@pytest.fixture(autouse=True)
def tasks_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(SUPPORT))


def job(name: str, task: str, timeout_s: float = 60.0, retries: int = 1, **arguments: Any) -> Job:
    return Job(name, f"jobtasks:{task}", arguments, timeout_s, retries)


def run(engine: Any, *jobs: Job) -> dict[str, Outcome]:
    return {outcome.job.id: outcome for outcome in engine.run(jobs)}


@pytest.mark.parametrize("workers", [1, 2])
def test_jobs_that_crash_exit_or_go_wrong_lose_nothing_but_themselves(workers: int, tmp_path: Path) -> None:
    jobs = [
        job("a", "double", n=4),
        job("segfault", "segfault"),
        job("b", "double", n=5),
        job("exit", "leave", retries=0, code=7),
        job("bug", "bug", retries=0),
        job("refused", "refuse"),
        job("full", "disk_full"),
        job("again", "crash_once", note=str(tmp_path / "note")),
        job("c", "double", n=6),
    ]
    ends = run(LocalEngine(workers), *jobs)
    assert {name: (end.kind, end.value) for name, end in ends.items() if end.kind == "done"} == {
        "a": ("done", 8),
        "b": ("done", 10),
        "c": ("done", 12),
        "again": ("done", "well"),
    }
    assert ends["again"].attempts == 2
    assert (ends["segfault"].kind, ends["segfault"].attempts) == ("crashed", 2)
    assert "killed by SIGSEGV" in ends["segfault"].reason
    assert "exit code 7" in ends["exit"].reason
    assert ends["bug"].reason == "ValueError: no such box"
    # a refusal is the same every time, and a full disk is not the file's fault: neither is tried again
    assert (ends["refused"].kind, ends["refused"].attempts) == ("refused", 1)
    assert ends["refused"].reason == "the file has no sound stream"
    assert (ends["full"].kind, ends["full"].attempts) == ("failed", 1)


def test_a_job_that_hangs_is_ended_and_the_next_one_gets_a_new_process() -> None:
    first, hanging, last = run(
        LocalEngine(1), job("first", "pid"), job("hangs", "hang", 0.5, retries=0), job("last", "pid")
    ).values()
    assert (hanging.kind, hanging.reason) == ("timeout", "timed out after 0.5 s")
    assert first.kind == last.kind == "done"
    assert first.value != last.value


def test_processes_are_reused_and_replaced() -> None:
    jobs = [job(str(n), "pid") for n in range(4)]
    pids = [outcome.value for outcome in LocalEngine(1, jobs_per_process=2).run(jobs)]
    assert pids[0] == pids[1] != pids[2] == pids[3]


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat")
    return not state.exists() or state.read_text().rpartition(")")[2].split()[0] != "Z"


def wait_until(condition: Any, what: str) -> None:
    for _ in range(600):
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError(what)


def test_workers_end_with_the_process_that_started_them(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    script = (
        "from avbench.data.building.jobs import *\n"
        f"list(LocalEngine(1).run([Job('h', 'jobtasks:hang', {{'note': {str(note)!r}}}, 600)]))"
    )
    parent = subprocess.Popen([sys.executable, "-c", script])
    wait_until(lambda: note.exists() and note.read_text(), "the job never began")
    worker = int(note.read_text())
    assert alive(worker)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    wait_until(lambda: not alive(worker), "the worker outlived its parent")


def test_a_caller_that_stops_early_leaves_no_process(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    outcomes = LocalEngine(2).run([job("h", "hang", note=str(note)), job("a", "double", n=1)])
    assert next(outcomes).value == 2
    wait_until(lambda: note.exists() and note.read_text(), "the job never began")
    outcomes.close()  # type: ignore[attr-defined]
    assert not alive(int(note.read_text()))


def test_unknown_engine_and_missing_ray_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="unknown engine 'slurm': choose local or ray"):
        engine_of("slurm", 1)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=r"engine ray needs Ray: pip install 'avbench\[ray\]'"):
        engine_of("ray", 1)


class FakeRay(types.ModuleType):
    """As much of Ray as the engine uses, one job at a time in this process; a task named "leave" is a dead worker."""

    class exceptions:
        class RayError(Exception): ...

    def __init__(self) -> None:
        super().__init__("ray")
        self.started: list[str] = []
        self.cancelled: list[object] = []

    def is_initialized(self) -> bool:
        return True

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 2.0}

    def put(self, value: Any) -> Any:
        return value

    def remote(self, **options: Any) -> Any:
        assert options["max_retries"] == 0

        def decorate(function: Any) -> Any:
            def start(*given: Any) -> object:
                self.started.append(given[-1][0].task)
                return (function, given)

            class Remote:
                remote = staticmethod(lambda *given: Handle(start(*given)))

            return Remote

        class Handle:
            def __init__(self, call: Any) -> None:
                self.call = call

        return decorate

    def wait(self, handles: list[Any], num_returns: int, timeout: float) -> tuple[list[Any], list[Any]]:
        ready = [h for h in handles if not h.call[1][-1][0].task.endswith("hang")][:num_returns]
        return ready, [h for h in handles if h not in ready]

    def get(self, handle: Any) -> Any:
        function, given = handle.call
        if given[-1][0].task.endswith("leave"):
            raise self.exceptions.RayError("worker died")
        return function(*given)

    def cancel(self, handle: Any, force: bool) -> None:
        assert force
        self.cancelled.append(handle)


def test_the_ray_engine_retries_dead_workers_and_cancels_what_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = FakeRay()
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.syspath_prepend(str(SUPPORT))
    monkeypatch.setattr("avbench.system.cluster.START_TIMEOUT_S", 0)
    ends = run(
        RayEngine(),
        job("a", "double", n=1),
        job("dead", "leave", code=1),
        job("hangs", "hang", timeout_s=0.2, retries=0),
        job("refused", "refuse"),
        job("b", "double", n=2),
    )
    assert {name: end.kind for name, end in ends.items()} == {
        "a": "done",
        "dead": "crashed",
        "hangs": "timeout",
        "refused": "refused",
        "b": "done",
    }
    assert (ends["a"].value, ends["b"].value, ends["dead"].attempts) == (2, 4, 2)
    assert len(ray.cancelled) == 1


def test_a_worker_answers_with_plain_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SUPPORT))
    assert perform({"task": "jobtasks:double", "arguments": {"n": 3}}) == {"kind": "done", "value": 6}
    assert perform({"task": "jobtasks:nothing", "arguments": {}})["kind"] == "crashed"
