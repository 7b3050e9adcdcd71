"""Time one decision of a model, and audit the measurement: ``avbench latency``.

A measurement never opens the snapshot store. It uses batch size 1, synchronises the device before each start and after
each end, records its warm-up and keeps every single time. The headline is the *ratio* to the SparseSync snapshot, timed
alternately in the same process, because milliseconds are not comparable between machines. Two audits follow: feeding
the same sample repeatedly must not be faster (nothing is cached), and the timed outputs must equal a plain replay's.

The four modes measure four different quantities, never shown in one column:

- ``step``: tensors on the device -> streaming logits, one window, at the 18th iteration with a full history;
- ``end_to_end``: the encoded bytes of a 5 s window (an mp4 file) -> decision (a class on the host);
- ``realtime_factor``: one stream decoded hop by hop; seconds of stream per second of work;
- ``streams``: how many streams, whose windows all arrive at once every hop, get 99 % of their decisions within a hop.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from avbench import __version__
from avbench.latency.modes import Request, TimedRun
from avbench.latency.record import REFUSED, LatencyRecord
from avbench.latency.stepper import Clock, Media, clock_of
from avbench.system.facts import CHANGING, timing_facts
from avbench.system.machine import peak_memory_bytes
from avbench.system.precision import exact_float32
from avbench.types import AvbenchError, UsageError, in_one_line

if TYPE_CHECKING:
    from avbench.registry.options import ModelOptions, StreamingModel
    from avbench.system.progress import Progress


STEP = Request()


def measure(
    model: str,
    request: Request = STEP,
    options: ModelOptions | None = None,
    reference: str = "sparsesync",
    progress: Progress | None = None,
    clock: Clock | None = None,
) -> LatencyRecord:
    """Times ``model`` (a registry name or ``file.py:Class[+head]``) and audits the measurement; see the module's text.

    ``options``: weight files, random weights, precision. ``reference``, a snapshot model, gets the same precision, and
    has the published size (with random weights) if the model has. ``clock``: for tests. ``UsageError``: a device that
    cannot be used, or a model that ignores its input. ``AvbenchError``: the model failed, or see ``Request``.
    """
    from avbench.engine.fingerprint import model_fingerprint
    from avbench.engine.store import SnapshotStore
    from avbench.registry.facts import model_facts, whole_fingerprint
    from avbench.registry.loading import load
    from avbench.system.devices import check_device

    device = check_device(request.device)
    resolved, compared = _resolved(model, reference, options, device)
    clock = clock or clock_of(device)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="avbench-latency-")))
        stack.enter_context(_threads(request.threads))
        loaded, other = load(resolved, device), load(compared, device)
        fingerprints = [whole_fingerprint(m, model_fingerprint(m.backbone)) for m in (loaded, other)]  # type: ignore[arg-type]
        media = Media(folder, request.seed)
        stack.enter_context(SnapshotStore.forbidden())
        stack.enter_context(_inference())
        before = timing_facts(device)
        run = TimedRun(loaded, other, media, request, clock, progress)
        try:
            run.measure()
        except AvbenchError:
            raise
        except Exception as error:  # whatever a model does wrong ends its measurement in one line
            raise AvbenchError(f"model {model} failed with {in_one_line(error)}") from error
        after = timing_facts(device)
    record = LatencyRecord(
        avbench_version=__version__,
        model=model_facts(loaded, fingerprints[0], ""),
        reference=f"{reference} (published size)" if compared.full_size else reference,
        reference_fingerprint=fingerprints[1],
        media=media.text,
        parameters=_parameters(loaded),
        peak_memory_mb=_peak_memory_mb(device),
        environment=before | {f"{name}_after": after[name] for name in before if name in CHANGING},
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        **run.measured(),
    )
    if request.leaderboard:
        _refuse(record)
    return record


def _resolved(
    model: str, reference: str, options: ModelOptions | None, device: str
) -> tuple[StreamingModel, StreamingModel]:
    """The model and the reference, not yet loaded; both must read media."""
    from avbench.registry.names import resolve
    from avbench.registry.options import ModelOptions

    options = (options or ModelOptions()).made_quick(device)
    resolved = resolve(model, options)
    of_reference = ModelOptions(autocast=options.autocast, compiled=options.compiled, made_for=options.made_for)
    if resolved.full_size:
        of_reference = replace(of_reference, random_seed=0)
    compared = resolve(reference, of_reference)
    for asked in (resolved, compared):
        if asked.load_backbone is None:
            raise UsageError(f"model {asked.name} ignores its input: there is nothing to time")
    return resolved, compared


def _refuse(record: LatencyRecord) -> None:
    """Refuses now what a leaderboard would refuse after the pull request."""
    for audit in record.audits.values():
        if not audit.ok:
            raise AvbenchError(f"audit failed: {audit.text}")
    worst = max(record.iqr_over_median, record.snapshot.iqr_over_median)
    if worst > REFUSED:
        raise AvbenchError(
            f"the times vary too much for the leaderboard (interquartile range {worst:.0%} of the median, at most "
            f"{REFUSED:.0%}): measure again on an idle machine"
        )


# -- the machine -----------------------------------------------------------------------------------------------


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
    """Peak so far of this process: memory allocated on the GPU, or resident memory."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.max_memory_allocated(device) / 2**20
    return peak_memory_bytes() / 2**20
