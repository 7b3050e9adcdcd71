"""Replay: stored snapshots -> streaming predictions, on the CPU, in seconds. Loads torch only for heads that use it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from avbench.plan import SnapshotKey, key_rows
from avbench.precision import exact_float32
from avbench.protocol import Protocol
from avbench.store import SnapshotStore
from avbench.types import ClipRecord, NonFiniteError, SegmentRecord, Snapshot, StreamingHead, UsageError

SEGMENTS_AT_ONCE = 256  # bounds a transformer head's memory; fixed, so that results do not depend on the machine


def gather(
    store: SnapshotStore,
    clips: Mapping[str, ClipRecord],
    segments: Sequence[SegmentRecord],
    protocol: Protocol,
    fingerprint: str,
) -> tuple[np.ndarray, np.ndarray | None]:
    """The stored snapshots of ``segments`` (in their order) under ``protocol``.

    Returns logits (N, W, 21) float32 and tokens (N, W, D) float32, or None if the model has no token.
    ``StoreError`` if one is not stored: leave out the segments that the runner reported as failures.
    """
    rows_of: dict[str, list[int]] = {}
    for row, segment in enumerate(segments):
        rows_of.setdefault(segment.clip_id, []).append(row)
    logits = np.empty((len(segments), protocol.iterations, protocol.grid.n_classes), np.float32)
    tokens = None
    for clip_id, rows in rows_of.items():
        keys = key_rows(protocol, [segments[row] for row in rows]).reshape(-1, len(SnapshotKey._fields))
        some_logits, some_tokens = store.get(fingerprint, clips[clip_id].sha256, keys)
        logits[rows] = some_logits.reshape(len(rows), *logits.shape[1:])
        if some_tokens is not None:
            if tokens is None:
                tokens = np.empty((*logits.shape[:2], some_tokens.shape[1]), np.float32)
            tokens[rows] = some_tokens.reshape(len(rows), *tokens.shape[1:])
    return logits, tokens


def replay(head: StreamingHead, logits: np.ndarray, tokens: np.ndarray | None, hop_s: float) -> np.ndarray:
    """Streaming predictions (N, W, 21) float32 of ``head`` from ``logits`` (N, W, 21) and ``tokens`` (N, W, D).

    ``head.replay(logits, tokens, times_s (W,))`` is used where the head has one (all steps at once), ``init`` and
    ``step`` otherwise. A head with ``uses_torch = False`` is given arrays, any other tensors on its own device.
    ``UsageError`` for a head that needs tokens when there are none; ``NonFiniteError`` naming row and iteration.
    """
    if head.needs_token and tokens is None:
        raise UsageError(f"head {type(head).__name__} needs a streaming token and the backbone gives none")
    times_s = np.arange(logits.shape[1]) * hop_s
    out = np.empty(logits.shape, np.float32)
    run = _replay_torch if getattr(head, "uses_torch", True) else _replay_numpy
    for first in range(0, len(logits), SEGMENTS_AT_ONCE):
        part = slice(first, first + SEGMENTS_AT_ONCE)
        out[part] = run(head, logits[part], None if tokens is None else tokens[part], times_s)
    bad = np.argwhere(~np.isfinite(out).all(axis=-1))
    if len(bad):
        raise NonFiniteError(
            f"head {type(head).__name__} gave NaN or infinity for segment row {bad[0, 0]}, "
            f"iteration {bad[0, 1] + 1} ({len(bad)} in all)"
        )
    return out


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

    weight = next(iter(head.parameters()), None) if isinstance(head, torch.nn.Module) else None
    device = weight.device if weight is not None else torch.device("cpu")
    if isinstance(head, torch.nn.Module):
        head.eval()
    with torch.inference_mode(), exact_float32():
        said, token = (None if a is None else torch.from_numpy(np.array(a)).to(device) for a in (logits, tokens))
        if hasattr(head, "replay"):
            return head.replay(said, token, times_s).float().cpu().numpy()
        return torch.stack(_steps(head, said, token, times_s), dim=1).float().cpu().numpy()


# --------------------------------------------------------------------------------------------------------- selection


def best_iteration(values: Sequence[float | None], higher_is_better: bool) -> int:
    """Index of the best value of one metric over the iterations, the first one winning a tie; undefined ones (NaN,
    None) are passed over. ``UsageError`` if all are undefined."""
    numbers = np.array([np.nan if v is None else v for v in values], np.float64)
    if not np.isfinite(numbers).any():
        raise UsageError("the metric is undefined at every iteration, so there is no best one")
    return int(np.nanargmax(numbers) if higher_is_better else np.nanargmin(numbers))


def selected_iteration(selection: str, values: Sequence[float | None], higher_is_better: bool) -> int:
    """Index of the iteration that ``selection`` scores, given one metric's value at each iteration: the last one for
    "final", the best aggregate for "best_iter" (the paper's starred rows)."""
    if selection == "final":
        return len(values) - 1
    if selection == "best_iter":
        return best_iteration(values, higher_is_better)
    raise UsageError(f'selection {selection!r} does not choose one iteration; use any_hit() for "any_hit"')


def selected_logits(streams: np.ndarray, labels: np.ndarray, selection: str) -> dict[str, np.ndarray]:
    """``streams`` (N, W, 21) -> metric -> (N, 21): each metric at the iteration that ``selection`` scores it at."""
    from avbench.metrics import METRICS, score

    if selection == "final":
        return dict.fromkeys(METRICS, streams[:, -1])
    by_iteration = [score(streams[:, i], labels) for i in range(streams.shape[1])]
    chosen = {}
    for name, metric in METRICS.items():
        values = [scores[name] for scores in by_iteration]
        defined = np.isfinite(values).any()
        best = selected_iteration(selection, values, metric.higher_is_better) if defined else -1
        chosen[name] = streams[:, best]
    return chosen


def any_hit(logits: np.ndarray, labels: np.ndarray, tolerance: int = 0) -> float:
    """Share of the segments where at least one iteration's class is within ``tolerance`` of the label.

    ``logits`` (N, W, 21), ``labels`` (N,) int. It can only rise with W: never beside the other selections in a column.
    """
    hits = np.abs(np.argmax(logits, axis=-1) - np.asarray(labels)[:, None]) <= tolerance
    return float(hits.any(axis=1).mean())


# --------------------------------------------------------------------------------------------------------- causality


def leaks(head: StreamingHead, logits: np.ndarray, tokens: np.ndarray | None, hop_s: float, seed: int = 0) -> list[int]:
    """Indices i of the windows after which the future counts: replacing every later snapshot by noise changes a bit of
    the outputs up to i. Empty for a causal head."""
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
