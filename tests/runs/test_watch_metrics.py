"""The figures for Prometheus, as a scrape reads them."""

from __future__ import annotations

import math
import socket
import urllib.request

import pytest

from avbench.data.live import LiveOptions, LiveSource
from avbench.data.live_open import Address
from avbench.runs.watch import Alarm, Watch
from avbench.runs.watch_metrics import Metrics
from avbench.scoring.regimes import Regime
from avbench.scoring.tolerance import tolerance_of
from avbench.types import AvbenchError, FrontEnd, UsageError

pytest.importorskip("prometheus_client", reason="the extra live is not installed")


def state() -> Watch:
    source = LiveSource(Address.of("udp://host:1"), FrontEnd(size=2), LiveOptions())
    return Watch(source, Alarm(tolerance_of("ebu")))


def scraped(metrics: Metrics) -> dict[str, float]:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    text = opener.open(f"http://127.0.0.1:{metrics.port}/metrics", timeout=10).read().decode()
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in text.splitlines() if line[0] != "#"}


def test_the_figures_are_those_of_now() -> None:
    watch = state()
    metrics = Metrics(watch, 0)
    try:
        before = scraped(metrics)
        assert math.isnan(before["avbench_offset_seconds"])
        assert before["avbench_connected"] == 1
        assert before['avbench_windows_total{what="skipped"}'] == 0
        watch.regime = Regime(0.0, 9.0, -0.4, 0.05, 0.97, "sure")
        watch.within, watch.lag_s, watch.connected = False, 1.5, False
        watch.alarm.raised, watch.alarm.outside_s = True, 12.5
        watch.counts["reconnects"] = 3
        account = watch.source.account
        account.computed, account.skipped, account.uncoverable = 7, 2, 1
        after = scraped(metrics)
    finally:
        metrics.close()
    assert after == {
        "avbench_offset_seconds": -0.4,
        "avbench_offset_spread_seconds": 0.05,
        "avbench_confidence": 0.97,
        "avbench_within_tolerance": 0.0,
        "avbench_alarm": 1.0,
        "avbench_connected": 0.0,
        "avbench_lag_seconds": 1.5,
        "avbench_stream_seconds": 0.0,
        "avbench_out_of_tolerance_seconds_total": 12.5,
        'avbench_windows_total{what="computed"}': 7.0,
        'avbench_windows_total{what="skipped"}': 2.0,
        'avbench_windows_total{what="uncoverable"}': 1.0,
        "avbench_changes_total": 0.0,
        "avbench_alarms_total": 0.0,
        "avbench_gaps_total": 0.0,
        "avbench_lags_total": 0.0,
        "avbench_reconnects_total": 3.0,
    }


def test_the_port_is_free_again_and_one_that_is_taken_is_refused() -> None:
    metrics = Metrics(state(), 0)
    with pytest.raises(AvbenchError, match=f"--metrics-port {metrics.port} on 127.0.0.1 cannot be used"):
        Metrics(state(), metrics.port)
    metrics.close()
    with socket.socket() as free:
        free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        free.bind(("127.0.0.1", metrics.port))
    with pytest.raises(AvbenchError, match="cannot be used"):
        Metrics(state(), 70_000)


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(UsageError, match=r"pip install 'avbench\[live\]'"):
        Metrics(state(), 0)
