"""The ways of timing a model: step, end to end, real-time factor, streams."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from avbench.engine.replay import snapshot_for
from avbench.latency.record import LEADERBOARD_SAMPLES, UNSTABLE, Audit, Mode, Probe, Warmup, percentile_ms, summary
from avbench.latency.stepper import ITERATION, WINDOW_S, Clock, Media, Stepper, as_array
from avbench.system.devices import device_meant
from avbench.ticks import TICKS_PER_FRAME, TICKS_PER_S, ticks
from avbench.types import Snapshot, UsageError

if TYPE_CHECKING:
    from avbench.registry.options import StreamingModel
    from avbench.system.progress import Progress

MODES: tuple[Mode, ...] = ("step", "end_to_end", "realtime_factor", "streams")
SAMPLES = 100  # as in the paper
OTHER_ITERATIONS = (1, 48)
OTHER_SAMPLES = 30  # at each of the other iterations, except for the leaderboard
SAME_SAMPLE = 0.90  # least allowed ratio of same-sample time to ordinary time
OUTPUT_TOLERANCE = 1e-3  # largest allowed logit difference: float32 sums may run in a different order


# -- measuring ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Request:
    """What to time, and how. ``UsageError`` for an impossible request.

    ``samples``: timed steps (None: 100, or 662 for the leaderboard and for ``streams``). ``device``: "cpu", "cuda",
    "cuda:N" or "auto". ``threads``: of torch on the CPU. ``leaderboard``: the strict settings, and an
    ``AvbenchError`` where a leaderboard would refuse the outcome. ``seed``: of the timed clip.
    """

    mode: Mode = "step"
    samples: int | None = None
    device: str = "cpu"
    threads: int = 1
    hop_s: float = 2.0
    leaderboard: bool = False
    seed: int = 0

    @property
    def n_samples(self) -> int:
        """``samples``, or how many the mode needs."""
        if self.samples is not None:
            return self.samples
        return LEADERBOARD_SAMPLES if self.leaderboard or self.mode == "streams" else SAMPLES

    def __post_init__(self) -> None:
        object.__setattr__(self, "device", device_meant(self.device))
        if self.mode not in MODES:
            raise UsageError(f"unknown mode {self.mode!r}: there are {', '.join(MODES)}")
        n = self.n_samples
        if n < 2:
            raise UsageError(f"samples is {n}; it must be at least 2 (64 for an estimate of p90, 662 for p99)")
        if self.leaderboard and n < LEADERBOARD_SAMPLES:
            raise UsageError(f"samples is {n}; a leaderboard entry needs {LEADERBOARD_SAMPLES}")
        if self.leaderboard and self.mode != "step":
            raise UsageError(f"mode is {self.mode}; a leaderboard entry is timed in mode step")
        if self.threads < 1:
            raise UsageError(f"threads is {self.threads}; it must be at least 1")
        if self.seed < 0:
            raise UsageError(f"seed is {self.seed}; it must be 0 or more")
        hop = ticks(self.hop_s) if np.isfinite(self.hop_s) else 0
        if hop <= 0 or hop % TICKS_PER_FRAME or hop > 30 * TICKS_PER_S:
            raise UsageError(
                f"hop is {self.hop_s:g} s; it must be a positive multiple of 0.04 s (one frame), at most 30 s"
            )
        if self.device != "cpu" and self.device.partition(":")[0] != "cuda":
            raise UsageError(f"device is {self.device!r}; cpu and cuda (or cuda:N) can be timed")


class TimedRun:
    """One measurement in progress: ``measure`` takes the times, ``measured`` returns them with their statistics."""

    def __init__(
        self,
        model: StreamingModel,
        reference: StreamingModel,
        media: Media,
        request: Request,
        clock: Clock,
        progress: Progress | None,
    ) -> None:
        self.media, self.request, self.clock, self.progress = media, request, clock, progress
        self.mode, self.samples, self.hop_s = request.mode, request.n_samples, request.hop_s
        self.times_ms: list[float] = []
        self.reference_ms: list[float] = []
        self.by_iteration: dict[int, list[float]] = {}
        self.audits: dict[str, Audit] = {}
        self.warnings: list[str] = []
        self.probes: list[Probe] = []
        self.realtime_factor: float | None = None
        self.streams: int | None = None
        self._step_ms: list[float] = []
        windows = media.windows(model.backbone.frontend, self.samples)  # type: ignore[union-attr]
        same = model.backbone.frontend == reference.backbone.frontend  # type: ignore[union-attr]
        others = windows if same else media.windows(reference.backbone.frontend, self.samples)  # type: ignore[union-attr]
        self.model = Stepper(model, windows, request.device, self.hop_s)
        self.reference = Stepper(reference, others, request.device, self.hop_s)
        self.n_windows = len(windows)

    @property
    def ratio(self) -> float:
        """Median of the model over median of the reference; in ``streams`` of the steps timed beforehand."""
        times = self._step_ms if self.mode == "streams" else self.times_ms
        return float(np.median(times) / np.median(self.reference_ms))

    def measure(self) -> None:
        """Warms up and times; afterwards ``times_ms`` and ``reference_ms`` are filled."""
        for i in range(len(self.model)):
            self.model.prepare(i, ITERATION)
        order = np.random.default_rng(0).permutation(len(self.model)).tolist()
        self._order = [order[i % len(order)] for i in range(max(self.samples, len(order)))]
        self.warmup = self._warm_up()
        getattr(self, f"_{self.mode}")()

    def measured(self) -> dict[str, Any]:
        """What was requested and measured, as fields of ``LatencyRecord``."""
        timing, snapshot = summary(self.times_ms), summary(self.reference_ms)
        few = f"{timing.n} samples are too few to estimate a 90th percentile (64 are needed): p90 is the slowest"
        return {
            "mode": self.mode,
            "device": self.request.device,
            "threads": self.request.threads,
            "clock": self.clock.name,
            "n_windows": self.n_windows,
            "hop_s": self.hop_s,
            "iteration": ITERATION,
            "leaderboard": self.request.leaderboard,
            "n": timing.n,
            "p50_ms": timing.p50_ms,
            "p90_ms": max(self.times_ms) if timing.p90_ms is None else timing.p90_ms,
            "p99_ms": timing.p99_ms,
            "iqr_over_median": timing.iqr_over_median,
            "unstable": max(timing.iqr_over_median, snapshot.iqr_over_median) > UNSTABLE,
            "ratio_to_snapshot": self.ratio,
            "snapshot": snapshot,
            "by_iteration": {str(k): summary(times) for k, times in sorted(self.by_iteration.items())},
            "warmup": self.warmup,
            "realtime_factor": self.realtime_factor,
            "streams": self.streams,
            "probes": self.probes,
            "audits": self.audits,
            "warnings": self.warnings + ([few] if timing.p90_ms is None else []),
            "times_ms": self.times_ms,
            "snapshot_times_ms": self.reference_ms,
        }

    def _tell(self, done: int, total: int) -> None:
        if self.progress:
            self.progress("timing", done, total, "")

    def _warm_up(self) -> Warmup:
        """Runs a minimum of steps and seconds, then until the medians of two blocks agree or time is up."""
        block, least_s, most_s = (50, 5.0, 60.0) if self.request.leaderboard else (10, 1.0, 10.0)
        first_step_ms, _ = self.clock.ms(lambda: self.model.step(0))
        times: list[float] = []
        spent_ms, settled = first_step_ms, False
        while True:
            i = self._order[len(times) % len(self._order)]
            one, _ = self.clock.ms(lambda i=i: self.model.step(i))  # type: ignore[misc]
            two, _ = self.clock.ms(lambda i=i: self.reference.snapshot(i % len(self.reference)))  # type: ignore[misc]
            times.append(one)
            spent_ms += one + two
            if len(times) >= 2 * block and len(times) % block == 0:
                last, previous = np.median(times[-block:]), np.median(times[-2 * block : -block])
                settled = bool(abs(last - previous) < 0.02 * previous)
            enough = len(times) >= block and spent_ms >= 1000 * least_s
            if (enough and settled) or (spent_ms >= 1000 * most_s and len(times) >= 3):
                return Warmup(
                    steps=1 + len(times), seconds=spent_ms / 1000, settled=settled, first_step_ms=first_step_ms
                )

    # -- modes

    def _step(self) -> None:
        outputs: dict[int, Any] = {}
        others = self.samples if self.request.leaderboard else min(self.samples, OTHER_SAMPLES)
        self.by_iteration = {k: [] for k in (*OTHER_ITERATIONS, ITERATION)}
        for n, i in enumerate(self._order[: self.samples]):
            for k in OTHER_ITERATIONS if n < others else ():
                self.model.prepare(i, k)
            taken, outputs[i] = self.clock.ms(lambda i=i: self.model.step(i))  # type: ignore[misc]
            self.times_ms.append(taken)
            self.reference_ms.append(self._reference_step(i))
            for k in OTHER_ITERATIONS if n < others else ():
                self.by_iteration[k].append(self.clock.ms(lambda i=i, k=k: self.model.step(i, k))[0])  # type: ignore[misc]
            self._tell(n + 1, self.samples)
        self.by_iteration[ITERATION] = self.times_ms
        self._audit(outputs)

    def _reference_step(self, i: int) -> float:
        return self.clock.ms(lambda: self.reference.snapshot(i % len(self.reference)))[0]

    def _end_to_end(self) -> None:
        said: dict[int, int] = {}
        for n in range(self.samples):
            i = n % len(self.media.files)
            state = self.model._states[self._order[0], ITERATION]
            taken, said[i] = self.clock.ms(lambda i=i, state=state: self._decision(self.model, i, state))  # type: ignore[misc]
            self.times_ms.append(taken)
            self.reference_ms.append(self.clock.ms(lambda i=i: self._decision(self.reference, i, None))[0])  # type: ignore[misc]
            self._tell(n + 1, self.samples)
        again = {i: self._decision(self.model, i, self.model._states[self._order[0], ITERATION]) for i in said}
        differ = sum(again[i] != said[i] for i in said)
        self._add_audit("outputs", differ == 0, differ, 0, f"{differ} of {len(said)} decisions differ when repeated")

    def _decision(self, stepper: Stepper, i: int, state: Any) -> int:
        """File ``i`` -> class: opens, decodes, moves to the device, takes one step, returns to the host."""
        clip = self.media.files[i]
        window = next(self.media.hops(clip, stepper.backbone.frontend, WINDOW_S))
        given = stepper.give(*window)
        if stepper is self.reference:
            return int(as_array(stepper.backbone.predict(*given)[0])[0].argmax())
        return int(as_array(stepper.decide(given, state, ITERATION))[0].argmax())

    def _realtime_factor(self) -> None:
        """Goes through the clip hop by hop, repeatedly; model and reference take turns and decode separately."""
        streamed_s = 0.0
        while len(self.times_ms) < self.samples:
            streams = [
                self.media.hops(self.media.clip, s.backbone.frontend, self.hop_s) for s in (self.model, self.reference)
            ]
            state, iteration = self.model.head.init(1), 0

            def step(stream: Iterator[Any] = streams[0]) -> bool:
                nonlocal state, iteration
                window = next(stream, None)
                if window is None:
                    return False
                snapshot = Snapshot(*self.model.backbone.predict(*self.model.give(*window)))
                state, logits = self.model.head.step(
                    state, snapshot_for(self.model.head, snapshot), iteration * self.hop_s
                )
                as_array(logits)
                iteration += 1
                return True

            def plain(stream: Iterator[Any] = streams[1]) -> None:
                window = next(stream)
                as_array(self.reference.backbone.predict(*self.reference.give(*window))[0])

            while len(self.times_ms) < self.samples:
                taken, more = self.clock.ms(step)
                if not more:
                    break
                self.times_ms.append(taken)
                streamed_s += WINDOW_S if iteration == 1 else self.hop_s
                self.reference_ms.append(self.clock.ms(plain)[0])
                self._tell(len(self.times_ms), self.samples)
        self.realtime_factor = streamed_s / (sum(self.times_ms) / 1000)

    def _streams(self) -> None:
        """Bracket, then bisect; the search starts at the number of streams that the step time suggests."""
        few = min(self.samples, SAMPLES)
        for i in self._order[:few]:
            self._step_ms.append(self.clock.ms(lambda i=i: self.model.step(i))[0])  # type: ignore[misc]
            self.reference_ms.append(self._reference_step(i))
        hop_ms = 1000 * self.hop_s
        held, failed, streams = 0, 0, max(1, int(hop_ms / np.median(self._step_ms)))
        while streams:
            times = self._round_times(streams)
            p99 = percentile_ms(times, 0.99)
            p99 = max(times) if p99 is None else p99
            met = p99 < hop_ms
            self.probes.append(Probe(streams=streams, n=len(times), p99_ms=p99, met=met))
            self._tell(len(self.probes), len(self.probes) + 1)
            if met:
                held, self.times_ms = streams, times
                streams = (held + failed) // 2 if failed else max(held + 1, held * 5 // 4)
            else:
                failed = streams
                self.times_ms = self.times_ms or times
                streams = (held + failed) // 2 if held else failed * 4 // 5
            if failed and failed - held <= max(1, held * 3 // 100):
                break
        self.streams = held
        if not held:
            self.warnings.append(f"not even one stream gets its decisions within {self.hop_s:g} s")

    def _round_times(self, streams: int) -> list[float]:
        """All windows of ``streams`` streams arrive at once in each round: the times of decisions since the arrival."""
        rounds = max(3, -(-self.samples // streams))
        times: list[float] = []
        for _ in range(rounds):
            self.clock.synchronise()
            began = self.clock.now_ns()
            for s in range(streams):
                self.model.step(self._order[s % len(self._order)])
                self.clock.synchronise()
                times.append((self.clock.now_ns() - began) / 1e6)
        return times

    # -- audits

    def _audit(self, outputs: dict[int, Any]) -> None:
        said, expected = np.concatenate([as_array(rows) for rows in outputs.values()]), self.model.expected()
        gap = float(np.abs(said - expected[list(outputs)]).max())
        exact = self.model.model.options.autocast == "float32"
        tolerance = OUTPUT_TOLERANCE if exact else 100 * OUTPUT_TOLERANCE
        text = f"timed outputs are within {gap:.2g} of a plain replay of {len(outputs)} windows (at most {tolerance:g})"
        self._add_audit("outputs", gap <= tolerance, gap, tolerance, text)
        distinct, same = self._same_sample(min(self.samples, 60))
        if same < SAME_SAMPLE * distinct:  # once more with more samples, in case the machine was busy
            distinct, same = self._same_sample(2 * min(self.samples, 60))
        ratio = same / distinct if distinct else 1.0
        text = f"one sample repeated takes {ratio:.2f} of the time of distinct ones (at least {SAME_SAMPLE:g})"
        self._add_audit("same_sample", ratio >= SAME_SAMPLE, ratio, SAME_SAMPLE, text)

    def _same_sample(self, n: int, block: int = 5) -> tuple[float, float]:
        """Median times of distinct windows and of one window repeated, in alternating blocks."""
        distinct: list[float] = []
        same: list[float] = []
        for first in range(0, n, block):
            for k in range(first, first + block):
                i = self._order[k % len(self.model)]
                distinct.append(self.clock.ms(lambda i=i: self.model.step(i))[0])  # type: ignore[misc]
            for _ in range(block):
                same.append(self.clock.ms(lambda: self.model.step(self._order[0]))[0])
        return float(np.median(distinct)), float(np.median(same))

    def _add_audit(self, name: str, ok: bool, value: float, limit: float, text: str) -> None:
        self.audits[name] = Audit(ok=ok, value=float(value), limit=float(limit), text=text)
