"""A watch's figures for Prometheus, read when they are asked for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from avbench.runs.watch import Watch
from avbench.scoring.regimes import Evidence
from avbench.types import AvbenchError, UsageError

HOST = "127.0.0.1"  # what a stream is and whether it is well is nobody's business unless asked


class Metrics:
    """Serves http://HOST:PORT/metrics from a thread. ``port`` 0: any that is free (``self.port``).

    ``AvbenchError`` if the port cannot be used, ``UsageError`` without the package prometheus_client.
    """

    def __init__(self, state: Watch, port: int, host: str = HOST) -> None:
        try:
            from prometheus_client import CollectorRegistry, start_http_server
        except ImportError:
            raise UsageError("--metrics-port needs prometheus_client: pip install 'avbench[live]'") from None
        registry = CollectorRegistry()
        registry.register(_Collector(state))
        try:
            self._server, self._thread = start_http_server(port, host, registry)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise AvbenchError(f"--metrics-port {port} on {host} cannot be used: {reason}") from error
        self.port = self._server.server_port

    def put(self, record: dict[str, Any], evidence: Evidence | None = None) -> None:
        """The figures are read when they are asked for."""

    def close(self) -> None:
        """Free the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Collector:
    def __init__(self, state: Watch) -> None:
        self._state = state

    def collect(self) -> Iterator[Any]:
        """The figures as they are now."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        state = self._state
        regime, account = state.regime, state.source.account
        nan = float("nan")
        figures: tuple[tuple[str, str, Any], ...] = (
            ("offset_seconds", "Offset of the sound; positive: early, NaN: no evidence", regime and regime.offset_s),
            ("offset_spread_seconds", "One standard deviation of the offset", regime and regime.spread_s),
            ("confidence", "Probability of this offset, to one class", regime and regime.confidence),
            ("within_tolerance", "1: within, 0: outside, NaN: cannot be judged", state.within),
            ("alarm", "1 while the alarm is raised", state.alarm.raised),
            ("connected", "0 while the connection is lost", state.connected),
            ("lag_seconds", "From the end of the latest window to what had come when it was answered", state.lag_s),
            ("stream_seconds", "The stream's clock", state.source.t_s),
        )
        for name, text, value in figures:
            yield GaugeMetricFamily(f"avbench_{name}", text, nan if value is None else float(value))
        yield CounterMetricFamily(
            "avbench_out_of_tolerance_seconds", "Stream judged out of tolerance", state.alarm.outside_s
        )
        windows = CounterMetricFamily(
            "avbench_windows", "Windows of the stream, by what became of them", labels=["what"]
        )
        for what in ("computed", "skipped", "uncoverable"):
            windows.add_metric([what], getattr(account, what))
        yield windows
        for name, n in state.counts.items():
            yield CounterMetricFamily(f"avbench_{name}", f"Events of the stream: {name}", n)
