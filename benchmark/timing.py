"""How long one decision takes, measured so that the figure can be believed: ``avbench latency``.

A measurement never opens the snapshot store. Batch 1, the device synchronised before each start and after each end, a
stated warm-up, every single time kept. The headline is the *ratio* to the SparseSync snapshot, timed alternately in
the same process, because milliseconds do not carry over between machines. Two audits follow: feeding one sample again
and again must not be faster (nothing is cached), and what was said at speed must be what a plain replay says.

Four modes, four quantities, never in one column:

- ``step``: tensors on the device -> streaming logits, one window, at the 18th iteration with a full history;
- ``end_to_end``: the encoded bytes of a 5 s window (an mp4 file) -> decision (a class on the host);
- ``realtime_factor``: one stream decoded hop by hop; seconds of stream per second of work;
- ``streams``: how many streams, all of whose windows arrive at once every hop, get 99 % of their decisions within it.
"""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from avbench import __version__
from avbench.latency import (
    LEADERBOARD_SAMPLES,
    REFUSED,
    UNSTABLE,
    Audit,
    LatencyRecord,
    Mode,
    Probe,
    Warmup,
    percentile_ms,
    summary,
)
from avbench.machine import peak_memory_bytes
from avbench.precision import exact_float32, gpu_rounds_float32
from avbench.ticks import FRAME_RATE_HZ, TICKS_PER_FRAME, TICKS_PER_S, ticks
from avbench.types import AvbenchError, ClipRecord, FrontEnd, Snapshot, UsageError, in_one_line

if TYPE_CHECKING:
    from avbench.registry import ModelOptions, StreamingModel

MODES: tuple[Mode, ...] = ("step", "end_to_end", "realtime_factor", "streams")
SAMPLES = 100  # as in the paper
ITERATION = 18
OTHER_ITERATIONS = (1, 48)
OTHER_SAMPLES = 30  # at each of the other iterations, except for the leaderboard
SAME_SAMPLE = 0.90  # the least ratio of same-sample time to ordinary time
OUTPUT_TOLERANCE = 1e-3  # largest logit difference: float32 sums in another order
WINDOW_S, CLIP_S = 5, 40
N_WINDOWS, N_FILES = 64, 8
MAX_WINDOW_BYTES = 512 * 2**20

# -- clock -------------------------------------------------------------------------------------------------------------


@dataclass
class Clock:
    """``now_ns`` with ``synchronise`` called before each start and after each end."""

    name: str
    now_ns: Callable[[], int] = time.perf_counter_ns
    synchronise: Callable[[], None] = lambda: None

    def ms(self, call: Callable[[], Any]) -> tuple[float, Any]:
        """How long ``call`` takes, and what it returns."""
        self.synchronise()
        began = self.now_ns()
        out = call()
        self.synchronise()
        return (self.now_ns() - began) / 1e6, out


def clock_of(device: str) -> Clock:
    if not device.startswith("cuda"):
        return Clock("perf_counter_ns")
    import torch

    name = "perf_counter_ns, torch.cuda.synchronize before start and after end"
    return Clock(name, synchronise=partial(torch.cuda.synchronize, device))


# -- what is timed -----------------------------------------------------------------------------------------------------


class _Media:
    """A SynthSync clip, really encoded: as one file, as files of one window each, and as decoded windows."""

    text = f"SynthSync scene of {CLIP_S} s, encoded (H.264, AAC)"

    def __init__(self, folder: Path, seed: int) -> None:
        from avbench.data.scenes import Scene
        from avbench.types import CATEGORIES

        self.folder = folder
        scene = Scene(CATEGORIES[0], 0, seed, CLIP_S + 1)
        frames, sound = list(scene.frames()), scene.audio()
        self.clip = self._write("clip", frames, sound)
        self.files = []
        for i in range(N_FILES):
            first = i * WINDOW_S * FRAME_RATE_HZ
            last = first + WINDOW_S * FRAME_RATE_HZ + 1  # a frame more, for front ends that trim the sound's beginning
            part = sound[first * TICKS_PER_FRAME : last * TICKS_PER_FRAME]
            self.files.append(self._write(f"window{i}", frames[first:last], part))

    def _write(self, name: str, frames: list[np.ndarray], sound: np.ndarray) -> ClipRecord:
        from avbench.data.encode import encode_clip

        path = self.folder / f"{name}.mp4"
        encode_clip(path, frames, sound)
        return ClipRecord(name, name, path.name, "", len(frames), len(sound))

    def hops(self, clip: ClipRecord, frontend: FrontEnd, hop_s: float) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The windows of one stream, decoded as they are asked for: (1, T, 3, size, size) uint8, (1, N) float32."""
        from avbench.data.media import ClipReader

        with ClipReader(self.folder / clip.path, clip) as reader:
            sound = reader.audio()
            hop, length = ticks(hop_s), ticks(WINDOW_S)
            held: list[np.ndarray] = []
            start, trim = 0, frontend.audio_lead_trim_samples
            grid = reader.frames(frontend)
            while (start + length) // TICKS_PER_FRAME <= clip.n_frames and start + length + trim <= clip.n_samples:
                drop = min(len(held), hop // TICKS_PER_FRAME) if start else 0
                held = held[drop:]
                for _ in range(hop // TICKS_PER_FRAME - drop if start else 0):
                    next(grid)  # a hop longer than the window
                while len(held) < length // TICKS_PER_FRAME:
                    held.append(next(grid)[0])
                yield np.stack(held)[None], sound[None, start + trim : start + trim + length]
                start += hop
            grid.close()

    def windows(self, frontend: FrontEnd, samples: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """Distinct windows: ``N_WINDOWS``, or as many as are needed for ``samples`` or memory allows."""
        n_bytes = WINDOW_S * FRAME_RATE_HZ * 3 * frontend.size**2
        n = max(2, min(N_WINDOWS, max(samples, N_FILES), MAX_WINDOW_BYTES // n_bytes))
        hop_frames = (CLIP_S - WINDOW_S) * FRAME_RATE_HZ // (n - 1)
        found = self.hops(self.clip, frontend, hop_frames / FRAME_RATE_HZ)
        return [window for _, window in zip(range(n), found, strict=False)]


class _Stepper:
    """A loaded model and its windows on the device: one step of the stream, ready to be timed."""

    def __init__(
        self, model: StreamingModel, windows: Sequence[tuple[np.ndarray, np.ndarray]], device: str, hop_s: float
    ) -> None:
        self.model, self.hop_s = model, hop_s
        self.backbone: Any = model.backbone
        self.head: Any = model.head
        self.uses_torch = getattr(self.backbone, "uses_torch", True)
        self.device = device if hasattr(self.backbone, "parameters") else "cpu"
        self.windows = [self.give(*window) for window in windows]
        self._snapshots: dict[int, Snapshot] = {}
        self._states: dict[tuple[int, int], Any] = {}

    def give(self, video: np.ndarray, audio: np.ndarray) -> tuple[Any, Any]:
        if not self.uses_torch:
            return video, audio
        import torch

        return torch.from_numpy(video).to(self.device), torch.from_numpy(np.array(audio)).to(self.device)

    def __len__(self) -> int:
        return len(self.windows)

    def snapshot(self, i: int) -> Snapshot:
        return Snapshot(*self.backbone.predict(*self.windows[i]))

    def prepare(self, i: int, iteration: int) -> None:
        """The head's state before window ``i``: the history of the windows before it (in a circle), outside timing."""
        if (i, iteration) in self._states:
            return
        state = self.head.init(1)
        for k in range(iteration - 1):
            j = (i - iteration + 1 + k) % len(self)
            if j not in self._snapshots:
                self._snapshots[j] = self.snapshot(j)
            state, _ = self.head.step(state, self._snapshots[j], k * self.hop_s)
        self._states[i, iteration] = state

    def step(self, i: int, iteration: int = ITERATION) -> Any:
        """Window ``i`` as the ``iteration``-th of its stream -> logits (1, 21). The state must have been prepared."""
        return self.decide(self.windows[i], self._states[i, iteration], iteration)

    def decide(self, window: tuple[Any, Any], state: Any, iteration: int) -> Any:
        return self.head.step(state, Snapshot(*self.backbone.predict(*window)), (iteration - 1) * self.hop_s)[1]

    def expected(self, iteration: int = ITERATION) -> np.ndarray:
        """(len(self), 21) what a plain evaluation says: fresh snapshots, replayed as in ``avbench run``."""
        from avbench.replay import replay

        fresh = [self.snapshot(i) for i in range(len(self))]
        before = (np.arange(len(self))[:, None] + np.arange(1 - iteration, 1)) % len(self)
        logits = np.concatenate([_array(row.logits) for row in fresh])
        tokens = None if fresh[0].token is None else np.concatenate([_array(row.token) for row in fresh])[before]
        return replay(self.head, logits[before], tokens, self.hop_s)[:, -1]


def _array(values: Any) -> np.ndarray:
    return np.asarray(values.detach().float().cpu().numpy() if hasattr(values, "detach") else values, np.float32)


# -- measuring ---------------------------------------------------------------------------------------------------------


def measure(
    model: str,
    mode: Mode = "step",
    samples: int | None = None,
    device: str = "cpu",
    threads: int = 1,
    options: ModelOptions | None = None,
    reference: str = "sparsesync",
    hop_s: float = 2.0,
    leaderboard: bool = False,
    seed: int = 0,
    progress: Callable[[str, int, int, str], None] | None = None,
    clock: Clock | None = None,
) -> LatencyRecord:
    """Times ``model`` (a registry name or ``file.py:Class[+head]``) and audits the outcome; see the module's text.

    ``samples``: timed steps (100, or 662 for the leaderboard and for ``streams``). ``threads``: of torch on the CPU.
    ``options``: weight files, random weights, precision; the reference, a snapshot, gets the same precision, and is of
    published size (with random weights) where the model is. ``leaderboard``: the strict settings, and an
    ``AvbenchError`` where the outcome would not be accepted. ``clock``: another one for tests. ``UsageError``: an
    impossible request, such as a device that is not there.
    """
    from avbench.evaluation import model_facts, whole_fingerprint
    from avbench.fingerprint import model_fingerprint
    from avbench.registry import ModelOptions, check_device, load, resolve
    from avbench.store import SnapshotStore

    if samples is None:
        samples = LEADERBOARD_SAMPLES if leaderboard or mode == "streams" else SAMPLES
    _check_request(mode, samples, threads, hop_s, leaderboard, seed)
    if device != "cpu" and device.partition(":")[0] != "cuda":
        raise UsageError(f"device is {device!r}; cpu and cuda (or cuda:N) can be timed")
    device = check_device(device)
    options = replace(options or ModelOptions(), quick=device == "cpu")
    resolved = resolve(model, options)
    of_reference = ModelOptions(autocast=options.autocast, compiled=options.compiled, quick=options.quick)
    if resolved.full_size:
        of_reference = replace(of_reference, random_seed=0)
    compared = resolve(reference, of_reference)
    for asked in (resolved, compared):
        if asked.load_backbone is None:
            raise UsageError(f"model {asked.name} looks at no media: there is nothing to time")
    clock = clock or clock_of(device)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="avbench-latency-")))
        stack.enter_context(_threads(threads))
        loaded, other = load(resolved, device), load(compared, device)
        fingerprints = [whole_fingerprint(m, model_fingerprint(m.backbone)) for m in (loaded, other)]  # type: ignore[arg-type]
        media = _Media(folder, seed)
        stack.enter_context(SnapshotStore.forbidden())
        stack.enter_context(_inference())
        before = _environment(device)
        run = _Run(loaded, other, media, clock, mode, samples, device, hop_s, leaderboard, progress)
        try:
            run.measure()
        except AvbenchError:
            raise
        except Exception as error:  # whatever a model does wrong ends its measurement in one line
            raise AvbenchError(f"model {model} broke off with {in_one_line(error)}") from error
        after = _environment(device)
    timing, snapshot = summary(run.times_ms), summary(run.reference_ms)
    if timing.p90_ms is None:
        run.warnings.append(
            f"{timing.n} samples are too few to estimate a 90th percentile (64 are needed): it is the slowest"
        )
    unstable = max(timing.iqr_over_median, snapshot.iqr_over_median) > UNSTABLE
    record = LatencyRecord(
        avbench_version=__version__,
        mode=mode,
        model=model_facts(loaded, fingerprints[0], ""),
        reference=f"{reference} (published size)" if compared.full_size else reference,
        reference_fingerprint=fingerprints[1],
        device=device,
        threads=threads,
        clock=clock.name,
        media=media.text,
        n_windows=run.n_windows,
        hop_s=hop_s,
        iteration=ITERATION,
        leaderboard=leaderboard,
        n=timing.n,
        p50_ms=timing.p50_ms,
        p90_ms=max(run.times_ms) if timing.p90_ms is None else timing.p90_ms,
        p99_ms=timing.p99_ms,
        iqr_over_median=timing.iqr_over_median,
        unstable=unstable,
        ratio_to_snapshot=run.ratio,
        snapshot=snapshot,
        by_iteration={str(k): summary(times) for k, times in sorted(run.by_iteration.items())},
        warmup=run.warmup,
        realtime_factor=run.realtime_factor,
        streams=run.streams,
        probes=run.probes,
        audits=run.audits,
        parameters=_parameters(loaded),
        peak_memory_mb=_peak_memory_mb(device),
        warnings=run.warnings,
        environment=before | {f"{name}_after": after[name] for name in before if name in CHANGING},
        times_ms=run.times_ms,
        snapshot_times_ms=run.reference_ms,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    if leaderboard:
        _refuse(record)
    return record


def _refuse(record: LatencyRecord) -> None:
    """What a leaderboard would not accept is said now, not after the pull request."""
    for audit in record.audits.values():
        if not audit.ok:
            raise AvbenchError(f"audit failed: {audit.text}")
    worst = max(record.iqr_over_median, record.snapshot.iqr_over_median)
    if worst > REFUSED:
        raise AvbenchError(
            f"the times vary too much for the leaderboard (interquartile range {worst:.0%} of the median, at most "
            f"{REFUSED:.0%}): measure again on a machine that does nothing else"
        )


class _Run:
    """One measurement in progress; ``measure`` fills the public attributes."""

    def __init__(
        self,
        model: StreamingModel,
        reference: StreamingModel,
        media: _Media,
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
        self.model = _Stepper(model, windows, device, hop_s)
        self.reference = _Stepper(reference, others, device, hop_s)
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

    def _decision(self, stepper: _Stepper, i: int, state: Any) -> int:
        """File ``i`` -> class: opened, decoded, moved to the device, one step, and back on the host."""
        clip = self.media.files[i]
        window = next(self.media.hops(clip, stepper.backbone.frontend, WINDOW_S))
        given = stepper.give(*window)
        if stepper is self.reference:
            return int(_array(stepper.backbone.predict(*given)[0])[0].argmax())
        return int(_array(stepper.decide(given, state, ITERATION))[0].argmax())

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
                _array(logits)
                iteration += 1
                return True

            def plain(stream: Iterator[Any] = streams[1]) -> None:
                window = next(stream)
                _array(self.reference.backbone.predict(*self.reference.give(*window))[0])

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
        said, expected = np.concatenate([_array(rows) for rows in outputs.values()]), self.model.expected()
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


# -- request and machine -----------------------------------------------------------------------------------------------


def _check_request(mode: str, samples: int, threads: int, hop_s: float, leaderboard: bool, seed: int) -> None:
    if mode not in MODES:
        raise UsageError(f"unknown mode {mode!r}: there are {', '.join(MODES)}")
    if samples < 2:
        raise UsageError(f"samples is {samples}; it must be at least 2 (64 for an estimate of p90, 662 for p99)")
    if leaderboard and samples < LEADERBOARD_SAMPLES:
        raise UsageError(f"samples is {samples}; a leaderboard entry needs {LEADERBOARD_SAMPLES}")
    if leaderboard and mode != "step":
        raise UsageError(f"mode is {mode}; a leaderboard entry is timed in mode step")
    if threads < 1:
        raise UsageError(f"threads is {threads}; it must be at least 1")
    if seed < 0:
        raise UsageError(f"seed is {seed}; it must be 0 or more")
    hop = ticks(hop_s) if np.isfinite(hop_s) else 0
    if hop <= 0 or hop % TICKS_PER_FRAME or hop > 30 * TICKS_PER_S:
        raise UsageError(f"hop is {hop_s:g} s; it must be a positive multiple of 0.04 s (one frame), at most 30 s")


@contextlib.contextmanager
def _threads(n: int) -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def _inference() -> Iterator[None]:
    import torch

    with torch.inference_mode(), exact_float32():
        yield


CHANGING = ("load_average", "cpu_mhz", "gpu_clocks_mhz", "gpu_temperature_c")  # recorded before and after


def _environment(device: str) -> dict[str, Any]:
    """Versions, kind of machine and its state; nothing that names it. What cannot be found out is left out."""
    import torch

    facts: dict[str, Any] = {
        "python": platform.python_version(),
        "system": platform.system(),
        "machine": platform.machine(),
        "cores": os.cpu_count() or 1,
        "cpu": _cpu_info("model name") or platform.processor() or platform.machine(),
        "torch": str(torch.__version__),
        "numpy": metadata.version("numpy"),
        "torch_threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
    }
    if mhz := _cpu_info("cpu MHz"):
        facts["cpu_mhz"] = float(mhz)
    governor = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    with contextlib.suppress(OSError):
        facts["cpu_governor"] = governor.read_text().strip()
    with contextlib.suppress(OSError, AttributeError):
        facts["load_average"] = round(os.getloadavg()[0], 2)
    if device.startswith("cuda"):
        facts |= _gpu_facts(torch, device)
    return facts


def _cpu_info(field: str) -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() == field), "")


def _gpu_facts(torch: Any, device: str) -> dict[str, Any]:
    facts = {
        "gpu": torch.cuda.get_device_name(device),
        "cuda": str(torch.version.cuda),
        "cudnn": str(torch.backends.cudnn.version()),
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        "tf32": gpu_rounds_float32(),
    }
    query = {
        "driver_version": "gpu_driver",
        "clocks.sm,clocks.mem": "gpu_clocks_mhz",
        "power.limit": "gpu_power_limit_w",
        "temperature.gpu": "gpu_temperature_c",
    }
    tool = shutil.which("nvidia-smi")
    for fields, name in query.items() if tool else ():
        command = [str(tool), f"--query-gpu={fields}", "--format=csv,noheader,nounits"]
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
            lines = done.stdout.splitlines()
            facts[name] = lines[min(torch.device(device).index or 0, len(lines) - 1)].strip()
    return facts


def _parameters(model: StreamingModel) -> int | None:
    parts = [part for part in (model.backbone, model.head) if hasattr(part, "parameters")]
    return sum(p.numel() for part in parts for p in part.parameters()) if parts else None  # type: ignore[union-attr]


def _peak_memory_mb(device: str) -> float:
    """Allocated on the GPU, or the process's resident memory; of this process so far."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.max_memory_allocated(device) / 2**20
    return peak_memory_bytes() / 2**20
