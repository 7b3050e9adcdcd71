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
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from avbench import __version__
from avbench.latency.modes import SAMPLES, TimedRun
from avbench.latency.record import LEADERBOARD_SAMPLES, REFUSED, UNSTABLE, LatencyRecord, Mode, summary
from avbench.latency.stepper import ITERATION, Clock, Media, clock_of
from avbench.system.facts import CHANGING, latency_environment
from avbench.system.machine import peak_memory_bytes
from avbench.system.precision import exact_float32
from avbench.ticks import TICKS_PER_FRAME, TICKS_PER_S, ticks
from avbench.types import AvbenchError, UsageError, in_one_line

if TYPE_CHECKING:
    from avbench.registry.options import ModelOptions, StreamingModel


MODES: tuple[Mode, ...] = ("step", "end_to_end", "realtime_factor", "streams")


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
    from avbench.engine.fingerprint import model_fingerprint
    from avbench.engine.store import SnapshotStore
    from avbench.registry.facts import model_facts, whole_fingerprint
    from avbench.registry.loading import check_device, load
    from avbench.registry.names import resolve
    from avbench.registry.options import ModelOptions

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
        media = Media(folder, seed)
        stack.enter_context(SnapshotStore.forbidden())
        stack.enter_context(_inference())
        before = latency_environment(device)
        run = TimedRun(loaded, other, media, clock, mode, samples, device, hop_s, leaderboard, progress)
        try:
            run.measure()
        except AvbenchError:
            raise
        except Exception as error:  # whatever a model does wrong ends its measurement in one line
            raise AvbenchError(f"model {model} broke off with {in_one_line(error)}") from error
        after = latency_environment(device)
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


def _parameters(model: StreamingModel) -> int | None:
    parts = [part for part in (model.backbone, model.head) if hasattr(part, "parameters")]
    return sum(p.numel() for part in parts for p in part.parameters()) if parts else None  # type: ignore[union-attr]


def _peak_memory_mb(device: str) -> float:
    """Allocated on the GPU, or the process's resident memory; of this process so far."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.max_memory_allocated(device) / 2**20
    return peak_memory_bytes() / 2**20
