"""Worker processes: a task that dies, hangs or raises is named and costs nothing else; no process is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from workertasks import OddError, counting, counting_slowly, limit_s, task

from avbench.system import workers
from avbench.system.workers import Lost, Pool, can_be_sent, each, stateless
from avbench.types import AvbenchError, UsageError

SUPPORT = str(Path(__file__).parents[1] / "support")


def run(tasks: list[str], n: int = 2, **options: Any) -> dict[str, Any]:
    return dict(Pool[str, Any](partial(stateless, task), n, **options).run(tasks))


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "waited for a minute"
        time.sleep(0.05)


def test_a_worker_that_dies_costs_its_task_only() -> None:
    ends = run(["a", "die SIGKILL", "b", "segfault", "c", "exit 7", "d"])
    died = {name: end.reason for name, end in ends.items() if isinstance(end, Lost)}
    assert died == {
        "die SIGKILL": "the worker process died (killed by SIGKILL)",
        "segfault": "the worker process died (killed by SIGSEGV)",
        "exit 7": "the worker process died (exit code 7)",
    }
    assert {name: end for name, end in ends.items() if name not in died} == {n: n.upper() for n in "abcd"}


def test_a_task_out_of_time_is_ended_and_the_next_one_gets_another_worker(tmp_path: Path) -> None:
    hangs = f"note {tmp_path / 'pid'}"
    ends = run(["pid", hangs, "pid again"], 1, timeout_of=limit_s)
    assert ends[hangs] == Lost("timed out after 2 s", timed_out=True)
    assert not alive(int((tmp_path / "pid").read_text()))
    assert ends["pid"] != ends["pid again"]


@pytest.mark.parametrize("n", [1, 2])
def test_exceptions_are_raised_where_the_results_are_read(n: int) -> None:
    for what, kind, text in (("wrong", UsageError, "^not so$"), ("bug", ValueError, "no such box")):
        with pytest.raises(kind, match=text):
            list(each(task, [what, what], n))
    with pytest.raises(OSError, match="No space left") as full:
        list(each(task, ["full", "full"], n))
    assert full.value.filename == "out"
    # errors that cannot be unpickled come as their text
    with pytest.raises(AvbenchError, match="clip c: no sound"):
        list(each(task, ["media", "media"], n))
    with pytest.raises(AvbenchError if n > 1 else OddError, match="1 and 2"):
        list(each(task, ["odd", "odd"], n))


def test_a_bug_in_a_worker_brings_its_traceback() -> None:
    with pytest.raises(ValueError, match="no such box") as error:
        run(["bug"], 1)
    assert "in a worker process" in error.value.__notes__[0]
    assert "in task" in error.value.__notes__[0]


def test_every_result_comes_with_its_task_and_in_order_where_there_is_one_worker() -> None:
    tasks = [f"word {k}" for k in range(40)]
    expected = [(name, name.upper()) for name in tasks]
    assert list(each(task, tasks, 1)) == expected
    assert sorted(each(task, tasks, 3)) == sorted(expected)
    one = Pool[str, Any](partial(stateless, task), 1).run(tasks)
    assert list(one) == expected
    assert list(each(task, [], 3)) == []


def test_large_results_and_tasks_arrive_whole() -> None:
    n = 4_000_000  # 32 MB, far more than a pipe holds
    ends = run([f"large {n}", f"large {n + 1}", "x" * n])
    for size in (n, n + 1):
        np.testing.assert_array_equal(ends[f"large {size}"], np.arange(size))
    assert ends["x" * n] == "X" * n


def test_isolated_tasks_never_run_here() -> None:
    assert list(each(task, ["pid"], 1)) == [("pid", os.getpid())]
    (_, elsewhere), *_ = each(task, ["pid"], 1, isolated=True)
    assert elsewhere != os.getpid()
    ends = dict(each(task, ["a", "segfault", "b"], 1, isolated=True))
    assert {name: ends[name] for name in "ab"} == {"a": "A", "b": "B"}
    assert ends["segfault"].how == "SIGSEGV"


def test_a_task_that_may_have_died_of_another_is_tried_again_alone(tmp_path: Path) -> None:
    note = tmp_path / "note"
    # the first task of its worker is to blame itself
    ends = dict(each(task, [f"die-once {note}", "a"], 1, isolated=True))
    assert ends == {
        f"die-once {note}": Lost("the worker process died (killed by SIGSEGV)"),
        "a": "A",
    }
    # a later one is tried again when the others are done, in a process of its own
    note.unlink()
    tasks = ["pid", f"die-once {note}", "pid again", "exit 3"]
    ends = list(each(task, tasks, 1, isolated=True))
    assert [name for name, _ in ends] == ["pid", "pid again", f"die-once {note}", "exit 3"]
    by_name = dict(ends)
    assert by_name[f"die-once {note}"].startswith("well in ")
    assert by_name[f"die-once {note}"].split()[-1] not in map(str, (by_name["pid"], by_name["pid again"]))
    assert by_name["exit 3"] == Lost("the worker process died (exit code 3)")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux counts all of a process's memory")
def test_a_worker_may_use_so_much_memory_and_no_more() -> None:
    (_, got), *_ = each(task, [f"fill {2**20}"], 1, isolated=True, memory_bytes=2**30)
    assert got == 2**20
    with pytest.raises(MemoryError):
        list(each(task, [f"fill {2**32}"], 1, isolated=True, memory_bytes=2**30))


def test_a_task_that_tells_something_has_its_time_again() -> None:
    """Five messages, 0.7 s apart, with a limit of 3 s."""
    pool = Pool[int, int](counting_slowly, 1, timeout_of=lambda n: 3)
    assert list(pool.run([5], lambda n, k: None)) == [(5, 5)]


def test_what_can_be_sent_to_a_worker() -> None:
    assert can_be_sent(partial(task, "a"))
    assert not can_be_sent(lambda: None)


def test_lost_tasks_may_be_tried_again() -> None:
    todo, seen = deque(["exit 3", "a"]), []
    for name, end in Pool[str, Any](partial(stateless, task), 2).run(todo):
        seen.append(name)
        if isinstance(end, Lost) and seen.count(name) < 3:
            todo.append(name)
    assert sorted(seen) == ["a", "exit 3", "exit 3", "exit 3"]


def test_workers_are_replaced_after_so_many_tasks() -> None:
    pids = list(run([f"pid {k}" for k in range(4)], 1, tasks_per_process=2).values())
    assert pids[0] == pids[1] != pids[2] == pids[3]


def test_threads_stdin_stdout_and_processes_of_a_worker(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert run(["threads"], 1, one_thread=True) == {"threads": "1"}
    assert "OMP_NUM_THREADS" not in os.environ
    assert run(["threads", "stdin", "children", "fork"], 1) == {"threads": None, "stdin": "", "children": 0, "fork": 0}
    assert "last words" in run(["die SIGKILL"], 1, quiet=True)["die SIGKILL"].reason
    assert capfd.readouterr() == ("", "")
    assert run(["die SIGKILL"], 1)["die SIGKILL"].reason == "the worker process died (killed by SIGKILL)"
    assert capfd.readouterr() == ("", "the library's\nlast words\n")


# -------------------------------------------------------------------------------------------- preparation, messages


def test_tasks_tell_how_far_they_are() -> None:
    heard: dict[int, list[int]] = {3: [], 5: []}
    ends = Pool[int, int](partial(counting, 10), 2).run([3, 5], lambda n, k: heard[n].append(k))
    assert dict(ends) == {3: 13, 5: 15}
    assert heard == {3: [0, 1, 2], 5: [0, 1, 2, 3, 4]}


def test_workers_that_cannot_start_end_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="cannot prepare"):
        list(Pool[int, int](partial(counting, -1), 2).run([1, 2, 3]))
    starts = []
    real = workers._Worker
    monkeypatch.setattr(workers, "_Worker", lambda pool: starts.append(pool) or real(pool))
    with pytest.raises(AvbenchError, match=r"worker processes do not start: the worker process died \(exit code 5\)"):
        list(Pool[int, int](partial(counting, 0), 1).run([1, 2, 3]))
    assert len(starts) == workers.START_TRIES


# -------------------------------------------------------------------------------------------------- ends of the parent

SCRIPT = """
import sys
from workertasks import task
from avbench.system.workers import each
if {guard}:
    list(each(task, sys.argv[1:], 2))
"""


def start(tmp_path: Path, *tasks: str, guard: str = "__name__ == '__main__'") -> subprocess.Popen[str]:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(guard=guard))
    path = os.pathsep.join(filter(None, (SUPPORT, os.environ.get("PYTHONPATH"))))
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    return subprocess.Popen(
        [sys.executable, str(script), *tasks],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": path},
        start_new_session=True,
        preexec_fn=heed,
    )


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc, which only Linux has")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL, signal.SIGTERM])
def test_no_worker_outlives_its_parent(tmp_path: Path, how: signal.Signals) -> None:
    notes = [tmp_path / name for name in "ab"]
    parent = start(tmp_path, *(f"note {note}" for note in notes))
    wait_until(lambda: all(note.exists() and note.read_text() for note in notes) or parent.poll() is not None)
    pids = [int(note.read_text()) for note in notes]
    assert all(map(alive, pids))
    # as a terminal does it, Ctrl-C reaches the workers too
    os.killpg(parent.pid, how) if how == signal.SIGINT else parent.send_signal(how)
    said = parent.communicate(timeout=60)[1]
    assert parent.returncode == -how
    assert said.count("KeyboardInterrupt") == (how == signal.SIGINT)  # of the parent, none of the workers
    wait_until(lambda: not any(map(alive, pids)))


def test_closing_early_ends_the_workers(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    results = each(task, [f"note {note}", "a"], 2)
    assert next(results) == ("a", "A")
    wait_until(lambda: note.exists() and note.read_text())
    results.close()
    assert not alive(int(note.read_text()))


def test_a_script_without_a_guard_is_told_so(tmp_path: Path) -> None:
    parent = start(tmp_path, "a", "b", guard="True")
    said = parent.communicate(timeout=60)[1]
    assert parent.returncode == 1
    assert "needs `if __name__ == '__main__':`" in said.splitlines()[-1]
