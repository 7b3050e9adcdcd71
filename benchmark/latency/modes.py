"""The ways of timing a model: step, end to end, real-time factor, streams."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from avbench.latency.record import Audit, Mode, Probe, Warmup, percentile_ms
from avbench.latency.stepper import ITERATION, WINDOW_S, Clock, Media, Stepper, as_array
from avbench.types import Snapshot

if TYPE_CHECKING:
    from avbench.registry.options import StreamingModel

SAMPLES = 100  # as in the paper
OTHER_ITERATIONS = (1, 48)
OTHER_SAMPLES = 30  # at each of the other iterations, except for the leaderboard
SAME_SAMPLE = 0.90  # the least ratio of same-sample time to ordinary time
OUTPUT_TOLERANCE = 1e-3  # largest logit difference: float32 sums in another order


class TimedRun:
    """One measurement in progress; ``measure`` fills the public attributes."""

    def __init__(
        self,
        model: StreamingModel,
        reference: StreamingModel,
        media: Media,
        clock: Clock,
        mode: Mode,
        samples: int,
        device: str,
        hop_s: float,
        leaderboard: bool,
        progress: Callable[[str, int, int, str], None] | None,
    ) -> None:
        self.media, self.clock, self.mode, self.samples = media, clock, mode, samples
        self.hop_s, self.leaderboard, self.progress = hop_s, leaderboard, progress
        self.times_ms: list[float] = []
        self.reference_ms: list[float] = []
        self.by_iteration: dict[int, list[float]] = {}
        self.audits: dict[str, Audit] = {}
        self.warnings: list[str] = []
        self.probes: list[Probe] = []
        self.realtime_factor: float | None = None
        self.streams: int | None = None
        self._step_ms: list[float] = []
        windows = media.windows(model.backbone.frontend, samples)  # type: ignore[union-attr]
        same = model.backbone.frontend == reference.backbone.frontend  # type: ignore[union-attr]
        others = windows if same else media.windows(reference.backbone.frontend, samples)  # type: ignore[union-attr]
        self.model = Stepper(model, windows, device, hop_s)
        self.reference = Stepper(reference, others, device, hop_s)
        self.n_windows = len(windows)

    @property
    def ratio(self) -> float:
        """Of the medians; in ``streams`` of the steps timed beforehand."""
        times = self._step_ms if self.mode == "streams" else self.times_ms
        return float(np.median(times) / np.median(self.reference_ms))

    def measure(self) -> None:
        for i in range(len(self.model)):
            self.model.prepare(i, ITERATION)
        order = np.random.default_rng(0).permutation(len(self.model)).tolist()
        self._order = [order[i % len(order)] for i in range(max(self.samples, len(order)))]
        self.warmup = self._warm_up()
        getattr(self, f"_{self.mode}")()

    def _tell(self, done: int, total: int) -> None:
        if self.progress:
            self.progress("timing", done, total, "")

    def _warm_up(self) -> Warmup:
        """At least so many steps and seconds, and until the medians of two blocks agree; bounded."""
        block, least_s, most_s = (50, 5.0, 60.0) if self.leaderboard else (10, 1.0, 10.0)
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
        others = self.samples if self.leaderboard else min(self.samples, OTHER_SAMPLES)
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
        self._add_audit("outputs", differ == 0, differ, 0, f"{differ} of {len(said)} decisions change when taken again")

    def _decision(self, stepper: Stepper, i: int, state: Any) -> int:
        """File ``i`` -> class: opened, decoded, moved to the device, one step, and back on the host."""
        clip = self.media.files[i]
        window = next(self.media.hops(clip, stepper.backbone.frontend, WINDOW_S))
        given = stepper.give(*window)
        if stepper is self.reference:
            return int(as_array(stepper.backbone.predict(*given)[0])[0].argmax())
        return int(as_array(stepper.decide(given, state, ITERATION))[0].argmax())

    def _realtime_factor(self) -> None:
        """Hop by hop through the clip again and again, model and reference in turn, each decoding for itself."""
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
                state, logits = self.model.head.step(state, snapshot, iteration * self.hop_s)
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
        """Doubling-free search: start where the step time says the limit is, walk to both sides, then bisect."""
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
        """All windows of ``streams`` streams arrive at once, round after round; each decision's time since then."""
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
        text = (
            f"what was said at speed is {gap:.2g} off a plain replay of {len(outputs)} windows (at most {tolerance:g})"
        )
        self._add_audit("outputs", gap <= tolerance, gap, tolerance, text)
        distinct, same = self._same_sample(min(self.samples, 60))
        if same < SAME_SAMPLE * distinct:  # a busy moment is no verdict
            distinct, same = self._same_sample(2 * min(self.samples, 60))
        ratio = same / distinct if distinct else 1.0
        text = f"one sample again and again takes {ratio:.2f} of the time of distinct ones (at least {SAME_SAMPLE:g})"
        self._add_audit("same_sample", ratio >= SAME_SAMPLE, ratio, SAME_SAMPLE, text)

    def _same_sample(self, n: int, block: int = 5) -> tuple[float, float]:
        """Median times of distinct windows and of one window repeated, in blocks that take turns."""
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
