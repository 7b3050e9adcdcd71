"""Latency: the command on a small model, then statistics of times, audits and modes with made-up clocks and models.

No test asserts a real time: clocks are injected where a figure matters.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from scipy.stats import binom

from avbench.engine.store import SnapshotStore
from avbench.latency import stepper
from avbench.latency.measure import measure
from avbench.latency.modes import Request
from avbench.latency.record import (
    SCHEMA_FILE,
    LatencyRecord,
    json_schema_text,
    parse_latency,
    percentile_ms,
    read_latency,
    summary,
    write_latency,
)
from avbench.latency.stepper import Clock
from avbench.system.facts import run_facts, timing_facts
from avbench.types import AvbenchError, StoreError, UsageError

Avbench = Callable[..., subprocess.CompletedProcess[str]]

NET = """
import sys, types
import numpy as np
from avbench import FrontEnd, Snapshot, SnapshotPredictor

tick = sys.modules.setdefault("made_up_tick", types.SimpleNamespace(now=0))  # ns; one, however often this is loaded

def said(video, audio):
    seed = int(video[0, :, 0, 0, 0].astype(np.int64) @ np.arange(1, video.shape[1] + 1)) % 2**32
    return np.random.default_rng(seed).standard_normal((len(video), 21)).astype(np.float32)

class Net(SnapshotPredictor):
    frontend = FrontEnd(size=16)
    uses_torch = False
    cost_ns = 3_000_000

    def predict(self, video, audio):
        tick.now += self.cost_ns
        return Snapshot(said(video, audio))

    def fingerprint_parts(self):
        return {"cost": self.cost_ns}

class Quick(Net):
    cost_ns = 1_000_000

class Caching(Net):
    last = None

    def predict(self, video, audio):
        if self.last is not None and np.array_equal(self.last[0], video):
            tick.now += 1000
            return Snapshot(self.last[1])
        self.last = video, super().predict(video, audio).logits
        return Snapshot(self.last[1])

class Fickle(Net):
    n = 0

    def predict(self, video, audio):
        self.n += 1
        more = np.eye(21, dtype=np.float32)[self.n % 2] / 100
        return Snapshot(super().predict(video, audio).logits + more)

class Slow(Net):
    cost_ns = 50_000_000

class Jumpy(Net):
    n = 0

    def predict(self, video, audio):
        self.n += 1
        tick.now += 2_000_000 * (7919 * self.n % 5)
        return super().predict(video, audio)

class Broken(Net):
    def predict(self, video, audio):
        raise ValueError("no such layer\\nat all")

class Shop(Net):
    def predict(self, video, audio):
        from avbench.engine.store import SnapshotStore
        SnapshotStore(self.root)
"""


@pytest.fixture
def net(tmp_path: Path) -> Path:
    path = tmp_path / "net.py"
    path.write_text(NET)
    return path


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Encoded and decoded once for all tests: that is most of their cost."""
    made = stepper.Media(tmp_path_factory.mktemp("media"), 0)
    made.windows = cache(made.windows)  # type: ignore[method-assign]
    return made


@pytest.fixture
def made_up(net: Path, media: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., LatencyRecord]]:
    """``made_up("Net", samples=...)``: measured on a clock that only the models move."""
    monkeypatch.setattr(stepper, "Media", lambda folder, seed: media)

    def run(name: str, head: str = "none", reference: str = "Net", **settings: Any) -> LatencyRecord:
        clock = Clock("made up", lambda: sys.modules["made_up_tick"].now)  # type: ignore[attr-defined]
        return measure(f"{net}:{name}+{head}", Request(**settings), reference=f"{net}:{reference}", clock=clock)

    yield run
    for name in [name for name in sys.modules if name.startswith(("avbench_user_net_", "made_up_tick"))]:
        del sys.modules[name]


def test_as_a_command(avbench: Avbench, tmp_path: Path) -> None:
    out = tmp_path / "latency.json"
    done = avbench("latency", "--model", "streamsync-lstm", "--samples", 8, "--json", "--out", out)
    assert done.returncode in (0, 1), done.stderr  # a busy machine may fail the audit of times
    found = json.loads(done.stdout)
    assert {"p50_ms", "p90_ms", "n", "ratio_to_snapshot", "unstable", "environment"} <= set(found)
    assert (found["mode"], found["n"], found["iteration"]) == ("step", 8, 18)
    assert found["audits"]["outputs"]["ok"]
    assert set(found["by_iteration"]) == {"1", "18", "48"}
    assert {"cpu", "cores", "torch", "torch_threads"} <= set(found["environment"])
    assert found["model"]["dtype"] == "float32"
    assert "8 samples are too few" in done.stderr
    jsonschema.validate(found, json.loads(SCHEMA_FILE.read_text()))
    assert read_latency(out).to_json() == done.stdout
    assert out.read_text() == done.stdout


def test_the_record_says_which_model_as_a_run_does(avbench: Avbench, clicks: Path, net: Path) -> None:
    done = avbench("latency", "--model", f"{net}:Net+apa", "--samples", 4, "--json")
    assert done.returncode in (0, 1), done.stderr
    measured = json.loads(done.stdout)["model"]
    done = avbench("run", "--model", f"{net}:Net+apa", "--data", clicks, "--iterations", 2, "--workers", 1, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["model"] == measured


# -- statistics --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("percentile", "fewest"), [(0.9, 64), (0.95, 130), (0.99, 662)])
def test_the_fewest_samples_that_tell_a_percentile(percentile: float, fewest: int) -> None:
    assert percentile_ms(list(range(fewest - 1)), percentile) is None
    assert percentile_ms(list(range(fewest)), percentile) == fewest - 1  # the slowest


@pytest.mark.parametrize(("n", "place"), [(100, 97), (500, 466), (2000, 1833)])
def test_the_estimate_of_p90(n: int, place: int) -> None:
    """The third slowest of 100; nearer to the 90 % as samples grow."""
    times = np.random.default_rng(n).permutation(n) + 1.0
    found = percentile_ms(times.tolist(), 0.9)
    assert found is not None
    t = int(n - found + 1)
    assert binom.cdf(t, n, 0.1) <= 0.01 < binom.cdf(t + 1, n, 0.1)
    assert abs(found - (place + 1)) <= 2


def test_the_estimate_is_honest() -> None:
    """In 99 % of the cases at least 90 % of all steps are faster than the estimate."""
    g = np.random.default_rng(0)
    true_p90 = np.exp(0.5 * 1.2815515655446004)
    found = [percentile_ms(np.exp(0.5 * g.standard_normal(100)).tolist(), 0.9) for _ in range(1000)]
    assert np.mean(np.array(found) >= true_p90) > 0.98


def test_summary_of_times() -> None:
    found = summary([1.0, 2.0, 3.0, 4.0, 5.0])
    assert (found.n, found.p50_ms, found.p90_ms, found.p99_ms) == (5, 3.0, None, None)
    assert found.iqr_over_median == pytest.approx(2 / 3)


# -- measuring, on a made-up clock -------------------------------------------------------------------------------------


def test_a_step_costs_what_the_clock_says(made_up: Callable[..., LatencyRecord]) -> None:
    found = made_up("Net", "apa", reference="Quick", samples=100)
    assert found.times_ms == [3.0] * 100
    assert found.snapshot_times_ms == [1.0] * 100
    assert (found.p50_ms, found.p90_ms, found.p99_ms, found.ratio_to_snapshot) == (3.0, 3.0, None, 3.0)
    assert (found.unstable, found.warnings) == (False, [])
    assert {k: t.n for k, t in found.by_iteration.items()} == {"1": 30, "18": 100, "48": 30}
    assert found.warmup.settled
    assert found.warmup.seconds >= 1
    assert found.warmup.first_step_ms == 3.0
    assert found.n_windows == 64
    assert found.audits["same_sample"].value == 1.0
    assert found.audits["outputs"].ok
    assert (found.clock, found.device, found.threads) == ("made up", "cpu", 1)
    assert found.audits_passed


def test_a_model_that_remembers_its_last_input_is_caught(made_up: Callable[..., LatencyRecord]) -> None:
    found = made_up("Caching", samples=64)
    audit = found.audits["same_sample"]
    assert not audit.ok
    assert audit.value < 0.01
    assert not found.audits_passed
    with pytest.raises(AvbenchError, match="audit failed: one sample repeated"):
        made_up("Caching", samples=662, leaderboard=True)


def test_a_model_that_answers_otherwise_than_at_speed_is_caught(made_up: Callable[..., LatencyRecord]) -> None:
    audit = made_up("Fickle", samples=20).audits["outputs"]
    assert not audit.ok
    assert audit.value == pytest.approx(1e-2, rel=0.01)


def test_unstable_times_are_flagged_and_refused_for_the_leaderboard(made_up: Callable[..., LatencyRecord]) -> None:
    found = made_up("Jumpy", samples=64)
    assert found.unstable
    assert found.iqr_over_median > 0.1
    with pytest.raises(AvbenchError, match="vary too much for the leaderboard"):
        made_up("Jumpy", samples=662, leaderboard=True)


def test_a_leaderboard_entry(made_up: Callable[..., LatencyRecord]) -> None:
    found = made_up("Net", samples=None, leaderboard=True)
    assert (found.n, found.leaderboard, found.p99_ms) == (662, True, 3.0)
    assert {t.n for t in found.by_iteration.values()} == {662}
    assert found.warmup.seconds >= 5


def test_the_real_time_factor(made_up: Callable[..., LatencyRecord]) -> None:
    """The first window's 5 s and 17 hops of 2 s: 39 s of stream in 18 steps of 3 ms."""
    found = made_up("Net", "apa", mode="realtime_factor", samples=18)
    assert found.n == 18
    assert found.realtime_factor == pytest.approx(39 / (18 * 0.003))
    assert found.ratio_to_snapshot == 1.0


def test_end_to_end_decides_from_encoded_files(made_up: Callable[..., LatencyRecord]) -> None:
    found = made_up("Net", "apa", mode="end_to_end", samples=9)
    assert (found.n, found.p50_ms) == (9, 3.0)
    assert found.audits["outputs"].ok
    assert "encoded" in found.media


def test_streams_fill_the_hop(made_up: Callable[..., LatencyRecord]) -> None:
    """3 ms a step, 2 s: 666 streams are served in 1.998 s, one more in 2.001 s; the search stops within 3 %."""
    found = made_up("Net", mode="streams", samples=100)
    assert found.streams is not None
    assert 646 <= found.streams <= 672  # the slowest 1 % of the decisions may be later
    held, failed = ([p.streams for p in found.probes if p.met is met] for met in (True, False))
    assert max(held) == found.streams < min(failed)
    assert all(p.met == (p.p99_ms < 2000) for p in found.probes)


def test_a_model_slower_than_the_hop_holds_no_stream(made_up: Callable[..., LatencyRecord]) -> None:
    found = made_up("Slow", mode="streams", samples=4, hop_s=0.04)
    assert found.streams == 0
    assert [p.met for p in found.probes] == [False]
    assert "not even one stream" in found.warnings[0]


def test_the_store_stays_shut(made_up: Callable[..., LatencyRecord], net: Path, tmp_path: Path) -> None:
    net.write_text(net.read_text().replace("self.root", repr(str(tmp_path / "store"))))
    with pytest.raises(StoreError, match="may not be opened while latency is measured"):
        made_up("Shop", samples=4)
    SnapshotStore(tmp_path / "store")  # and is open again afterwards


def test_what_a_model_breaks_with_is_one_line(made_up: Callable[..., LatencyRecord]) -> None:
    with pytest.raises(AvbenchError, match=r"failed with ValueError: no such layer$"):
        made_up("Broken", samples=4)


# -- requests and files ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "constant"], "ignores its input"),
        (["--model", "nobody"], "unknown model"),
        (["--model", "xcorr", "--samples", "1"], "samples is 1"),
        (["--model", "xcorr", "--samples", "0"], "samples is 0"),
        (["--model", "xcorr", "--samples", "100", "--leaderboard"], "needs 662"),
        (["--model", "xcorr", "--leaderboard", "--mode", "streams"], "timed in mode step"),
        (["--model", "xcorr", "--device", "cuda:7"], "cannot be used here"),
        (["--model", "xcorr", "--device", "abacus"], "cpu and cuda (or cuda:N) can be timed"),
        (["--model", "xcorr", "--threads", "0"], "threads is 0"),
        (["--model", "xcorr", "--hop", "0.03"], "hop is 0.03 s"),
        (["--model", "xcorr", "--hop", "nan"], "hop is nan s"),
        (["--model", "xcorr", "--mode", "fast"], "invalid choice: 'fast'"),
        (["--model", "sparsesync", "--dtype", "int8"], "dtype is 'int8'"),
    ],
)
def test_bad_requests_are_one_line(avbench: Avbench, arguments: list[str], message: str) -> None:
    done = avbench("latency", *arguments)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_the_published_schema_is_that_of_the_type() -> None:
    assert SCHEMA_FILE.read_text() == json_schema_text()


def test_a_record_whose_figures_its_times_do_not_bear_out_is_refused(
    made_up: Callable[..., LatencyRecord], tmp_path: Path
) -> None:
    record = made_up("Net", samples=70)
    path = write_latency(record, tmp_path)
    assert path == tmp_path / "latency.json"
    assert read_latency(tmp_path) == record
    whole = json.loads(path.read_text())
    for changes, field in (
        ({"p50_ms": 1.0}, "p50_ms"),
        ({"p90_ms": 1.0}, "p90_ms"),
        ({"n": 700}, "n"),
        ({"iqr_over_median": 0.5}, "iqr_over_median"),
        ({"ratio_to_snapshot": 0.1}, "ratio_to_snapshot"),
        ({"times_ms": []}, "times"),
        ({"extra": 1}, "extra"),
        ({"schema_version": 2}, "schema_version"),
        ({"mode": "guess"}, "mode"),
    ):
        with pytest.raises(UsageError, match=field) as caught:
            parse_latency(json.dumps(whole | changes).encode())
        assert "\n" not in str(caught.value)


def test_reading_a_record_needs_no_torch(made_up: Callable[..., LatencyRecord], tmp_path: Path) -> None:
    path = write_latency(made_up("Net", samples=8), tmp_path / "latency.json")
    code = (
        "import sys; from avbench.latency.record import read_latency; read_latency(sys.argv[1]); "
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr


def test_nothing_in_the_environment_names_the_machine() -> None:
    import getpass
    import platform

    text = json.dumps([timing_facts("cpu"), run_facts("cpu", 1)])
    for name in (platform.node(), str(Path.home())):
        assert name not in text
    assert f"/{getpass.getuser()}" not in text
