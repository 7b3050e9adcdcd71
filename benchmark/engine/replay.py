"""Replay: stored snapshots -> streaming predictions. Takes seconds on a CPU; loads torch only for heads that use it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from avbench.engine.store import SnapshotStore
from avbench.protocol.plan import SnapshotKey, key_rows
from avbench.protocol.rules import Protocol
from avbench.system.debug import with_users_line
from avbench.system.precision import exact_float32
from avbench.types import (
    AvbenchError,
    ClipRecord,
    NonFiniteError,
    SegmentRecord,
    Snapshot,
    StreamingHead,
    UsageError,
)

SEGMENTS_AT_ONCE = 256  # limits a transformer head's memory; fixed, so that results do not depend on the machine


def gather(
    store: SnapshotStore,
    clips: Mapping[str, ClipRecord],
    segments: Sequence[SegmentRecord],
    protocol: Protocol,
    fingerprint: str,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Read the stored snapshots of ``segments`` under ``protocol``, in the order of the segments.

    Returns logits (N, W, 21) float32 and tokens (N, W, D) float32; tokens are None if the model has none.
    ``StoreError`` if one is not stored: leave out the segments that the runner reported as failures.
    """
    rows_of: dict[str, list[int]] = {}
    for row, segment in enumerate(segments):
        rows_of.setdefault(segment.clip_id, []).append(row)
    logits = np.empty((len(segments), protocol.iterations, protocol.grid.n_classes), np.float32)
    tokens = None
    for clip_id, rows in rows_of.items():
        keys = key_rows(protocol, [segments[row] for row in rows]).reshape(-1, len(SnapshotKey._fields))
        some_logits, some_tokens = store.get(fingerprint, clips[clip_id].as_read, keys)
        logits[rows] = some_logits.reshape(len(rows), *logits.shape[1:])
        if some_tokens is not None:
            if tokens is None:
                tokens = np.empty((*logits.shape[:2], some_tokens.shape[1]), np.float32)
            tokens[rows] = some_tokens.reshape(len(rows), *tokens.shape[1:])
    return logits, tokens


def replay(head: StreamingHead, logits: np.ndarray, tokens: np.ndarray | None, hop_s: float) -> np.ndarray:
    """Streaming predictions (N, W, 21) float32 of ``head`` from ``logits`` (N, W, 21) and ``tokens`` (N, W, D).

    Uses ``head.replay(logits, tokens, times_s (W,))`` if the head has it (all steps at once), otherwise ``init`` and
    ``step``. A head with ``uses_torch = False`` gets arrays, any other head tensors on its own device. ``UsageError``
    if the head needs tokens and there are none; ``NonFiniteError`` naming row and iteration.
    """
    if head.needs_token and tokens is None:
        raise UsageError(f"head {type(head).__name__} needs a streaming token, but the backbone gives none")
    times_s = np.arange(logits.shape[1]) * hop_s
    out = np.empty(logits.shape, np.float32)
    run = _replay_torch if getattr(head, "uses_torch", True) else _replay_numpy
    for first in range(0, len(logits), SEGMENTS_AT_ONCE):
        part = slice(first, first + SEGMENTS_AT_ONCE)
        out[part] = _checked(run, head, logits[part], None if tokens is None else tokens[part], times_s)
    bad = np.argwhere(~np.isfinite(out).all(axis=-1))
    if len(bad):
        raise NonFiniteError(
            f"head {type(head).__name__} gave NaN or infinity for segment row {bad[0, 0]}, "
            f"iteration {bad[0, 1] + 1} ({len(bad)} in all)"
        )
    return out


def alarms(head: StreamingHead, logits: np.ndarray, tokens: np.ndarray | None, hop_s: float) -> np.ndarray | None:
    """The head's own probabilities of being out of tolerance, (N, W) float32, if it has ``alarm(state) -> (B,)``, which
    is asked after each step; else None. Arguments as of :func:`replay`. ``UsageError`` if the head breaks off, or if an
    alarm is not such a number."""
    if not hasattr(head, "alarm"):
        return None
    out = np.empty(logits.shape[:2], np.float32)
    try:
        state = head.init(len(logits))
        for i in range(logits.shape[1]):
            seen = Snapshot(logits[:, i], None if tokens is None else tokens[:, i])
            state, _ = head.step(state, snapshot_for(head, seen), i * hop_s)
            said = head.alarm(state)
            out[:, i] = said.detach().cpu().numpy() if hasattr(said, "detach") else said
    except Exception as error:
        raise UsageError(f"head {type(head).__name__} broke off with {with_users_line(error)}") from error
    if not ((out >= 0) & (out <= 1)).all():
        raise UsageError(f"head {type(head).__name__}: an alarm is not a number from 0 to 1")
    return out


def _checked(
    run: Callable[..., np.ndarray], head: Any, logits: np.ndarray, tokens: np.ndarray | None, times_s: np.ndarray
) -> np.ndarray:
    """What ``run`` makes of the head; what somebody else's head does wrong is said in one line."""
    name = type(head).__name__
    try:
        said = run(head, logits, tokens, times_s)
    except AvbenchError:
        raise
    except Exception as error:
        raise UsageError(f"head {name} broke off with {with_users_line(error)}") from error
    if np.shape(said) != logits.shape:  # numpy would spread (N, W, 1) over the classes
        raise UsageError(f"head {name}: logits are {np.shape(said)}, they must be {logits.shape}")
    return said


def snapshot_for(head: StreamingHead, snapshot: Snapshot) -> Snapshot:
    """A backbone's snapshot as ``head.step`` takes it: arrays for a head with ``uses_torch = False``, else tensors."""
    is_tensor, wants_tensor = hasattr(snapshot.logits, "detach"), getattr(head, "uses_torch", True)
    if is_tensor == wants_tensor:
        return snapshot
    if wants_tensor:
        import torch

        device = _device(head)
        return Snapshot(*(None if part is None else torch.from_numpy(np.array(part)).to(device) for part in snapshot))
    return Snapshot(*(None if part is None else part.detach().float().cpu().numpy() for part in snapshot))


def _device(head: Any) -> Any:
    import torch

    weight = next(iter(head.parameters()), None) if isinstance(head, torch.nn.Module) else None
    return weight.device if weight is not None else torch.device("cpu")


def _steps(head: Any, logits: Any, tokens: Any, times_s: np.ndarray) -> list[Any]:
    state, steps = head.init(len(logits)), []
    for i, time_s in enumerate(times_s.tolist()):
        state, now = head.step(state, Snapshot(logits[:, i], None if tokens is None else tokens[:, i]), time_s)
        steps.append(now)
    return steps


def _replay_numpy(head: Any, logits: np.ndarray, tokens: np.ndarray | None, times_s: np.ndarray) -> np.ndarray:
    if hasattr(head, "replay"):
        return head.replay(logits, tokens, times_s)
    return np.stack(_steps(head, logits, tokens, times_s), axis=1)


def _replay_torch(head: Any, logits: np.ndarray, tokens: np.ndarray | None, times_s: np.ndarray) -> np.ndarray:
    import torch

    device = _device(head)
    if isinstance(head, torch.nn.Module):
        head.eval()
    with torch.inference_mode(), exact_float32():
        said, token = (None if a is None else torch.from_numpy(np.array(a)).to(device) for a in (logits, tokens))
        if hasattr(head, "replay"):
            return head.replay(said, token, times_s).float().cpu().numpy()
        return torch.stack(_steps(head, said, token, times_s), dim=1).float().cpu().numpy()


# --------------------------------------------------------------------------------------------------------- causality


def leaks(head: StreamingHead, logits: np.ndarray, tokens: np.ndarray | None, hop_s: float, seed: int = 0) -> list[int]:
    """Test causality: the indices i of iterations whose outputs depend on the future; empty for a causal head.

    For each i, all later snapshots are replaced by noise; i is returned if any bit of the outputs up to i changes.
    ``logits`` (N, W, 21), ``tokens`` (N, W, D) or None; errors as :func:`replay`.
    """
    before = replay(head, logits, tokens, hop_s)
    rng = np.random.default_rng(seed)
    found = []
    for i in range(logits.shape[1] - 1):
        noisy = [None if a is None else a.copy() for a in (logits, tokens)]
        for a in noisy:
            if a is not None:
                a[:, i + 1 :] = 10 * rng.standard_normal(a[:, i + 1 :].shape)
        assert noisy[0] is not None
        after = replay(head, noisy[0], noisy[1], hop_s)
        if before[:, : i + 1].tobytes() != np.ascontiguousarray(after[:, : i + 1]).tobytes():
            found.append(i)
    return found
