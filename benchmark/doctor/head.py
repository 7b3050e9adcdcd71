"""Check one streaming head: shape, state of its own, batch invariance, ``step`` against ``replay``, and causality."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from avbench.doctor.new_process import fingerprint_finding
from avbench.engine.fingerprint import head_fingerprint
from avbench.engine.replay import leaks, replay, snapshot_for
from avbench.registry.heads import head_label, is_outside, outside_head
from avbench.registry.loading import moved
from avbench.registry.names import split_model_name
from avbench.registry.user_files import HEAD, MODEL, file_and_class, is_file, kind_of, registered
from avbench.system import debug
from avbench.system.debug import with_users_line
from avbench.system.findings import Finding
from avbench.types import Snapshot, StreamingHead

N_CLASSES = 21
STREAMS, WINDOWS = 4, 12  # of the random snapshots
HOP_S = 2.0
TOKEN_DIM = 64  # of the random tokens, unless the head says what it reads (token_dim or dim)
CLOSE = 1e-3  # allowed between two ways of computing the same, as for backbones


def names_a_head(name: str) -> bool:
    """Whether ``name`` is a head alone: a file's class (by its base class; the file is run) or an entry point."""
    if split_model_name(name)[1]:
        return False
    if is_file(name):
        return kind_of(*file_and_class(name)) is HEAD
    return is_outside(name) and name not in registered(MODEL)


def check_head_alone(name: str, device: str = "cpu") -> Iterator[Finding]:
    """The findings about a head from outside, fed random snapshots (and tokens, if it needs them); computed on
    ``device`` if it is a torch module."""
    head = moved(outside_head(name)(), device)
    token_dim = None
    if head.needs_token:
        token_dim = int(getattr(head, "token_dim", None) or getattr(head, "dim", None) or TOKEN_DIM)
    needs = (
        f"needs a streaming token, fed {token_dim} values (its token_dim)" if token_dim else "reads the logits alone"
    )
    yield Finding(True, f"{head_label(name)} loads: a streaming head, {needs}")
    yield from check_head(head, name, token_dim)
    yield same_fingerprint(head, name)


def check_head(head: StreamingHead, name: str, token_dim: int | None) -> Iterator[Finding]:
    """The findings about a loaded head, fed random snapshots; ``token_dim``: width of the tokens, None for none."""
    label = head_label(name)
    logits, tokens = _random_snapshots(token_dim)
    before = [array.copy() for array in (logits, tokens) if array is not None]
    try:
        problem = _shape_problem(head, logits, tokens)
    except Exception as error:  # whatever a head does wrong is a finding about the head
        debug.show(error)
        problem = f"it breaks off with {with_users_line(error)}"
    yield Finding(not problem, f"shape: head {label}: {problem or 'logits (B, 21) at each step, finite'}")
    if problem:
        return
    checks = (_fresh_state, _states_apart, _batch_invariance, _step_and_replay)
    for check in checks:
        try:
            finding = check(head, label, logits, tokens)
        except Exception as error:
            debug.show(error)
            finding = Finding(False, f"{check.__name__.strip('_').replace('_', ' ')}: {with_users_line(error)}")
        if finding is not None:
            yield finding
    after = [array for array in (logits, tokens) if array is not None]
    same = all(map(np.array_equal, after, before))
    said = "are left as they were" if same else "are CHANGED: other heads read the same arrays; copy before writing"
    yield Finding(same, f"snapshots given to head {label} {said}")
    yield causality(head, label, token_dim)


def causality(head: StreamingHead, label: str, token_dim: int | None) -> Finding:
    """Noise in place of everything after a window must leave all predictions up to it bit-identical."""
    found = leaks(head, *_random_snapshots(token_dim), HOP_S)
    said = "CHANGES earlier predictions" if found else "leaves earlier predictions unchanged"
    return Finding(not found, f"causality: noise in the future of head {label} {said}")


def same_fingerprint(head: StreamingHead, name: str) -> Finding:
    """The fingerprint of a head from outside, made again in a process of its own."""
    code = (
        "import sys; from avbench.registry.heads import outside_head; "
        "from avbench.engine.fingerprint import head_fingerprint; "
        "print(head_fingerprint(outside_head(sys.argv[1])()))"
    )
    return fingerprint_finding(f"fingerprint of head {head_label(name)}", head_fingerprint(head), code, name)


def _random_snapshots(token_dim: int | None, seed: int = 2) -> tuple[np.ndarray, np.ndarray | None]:
    """(STREAMS, WINDOWS, 21) float32 logits, and tokens (STREAMS, WINDOWS, token_dim) or None."""
    rng = np.random.default_rng(seed)
    logits = rng.standard_normal((STREAMS, WINDOWS, N_CLASSES)).astype(np.float32)
    tokens = rng.standard_normal((STREAMS, WINDOWS, token_dim or 0)).astype(np.float32)
    return logits, tokens if token_dim else None


# -- stepping ----------------------------------------------------------------------------------------------------------


class _Stream:
    """A head's steps through a batch of streams, one at a time."""

    def __init__(self, head: Any, logits: np.ndarray, tokens: np.ndarray | None) -> None:
        self.head, self.logits, self.tokens = head, logits, tokens
        self.state = head.init(len(logits))
        self.said: list[Any] = []

    def step(self) -> None:
        i = len(self.said)
        token = None if self.tokens is None else self.tokens[:, i]
        snapshot = snapshot_for(self.head, Snapshot(self.logits[:, i], token))
        with _no_gradients(self.head):
            self.state, now = self.head.step(self.state, snapshot, i * HOP_S)
        if hasattr(now, "detach"):
            now = (now.float() if now.is_floating_point() else now).detach().cpu().numpy()
        self.said.append(np.array(now))

    def all(self) -> np.ndarray:
        """(B, W, 21)."""
        while len(self.said) < self.logits.shape[1]:
            self.step()
        return np.stack(self.said, axis=1)


def _no_gradients(head: Any) -> Any:
    if not getattr(head, "uses_torch", True):
        import contextlib

        return contextlib.nullcontext()
    import torch

    return torch.inference_mode()


def _shape_problem(head: StreamingHead, logits: np.ndarray, tokens: np.ndarray | None) -> str:
    """What is wrong with the logits of a step; "" if nothing."""
    stream = _Stream(head, logits, tokens)
    for i in range(WINDOWS):
        stream.step()
        now = stream.said[-1]
        if now.shape != (STREAMS, N_CLASSES):
            return f"step {i + 1} gives logits {now.shape}, they must be ({STREAMS}, {N_CLASSES})"
        if now.dtype.kind != "f":
            return f"step {i + 1} gives logits of type {now.dtype}, they must be floating point"
        if not np.isfinite(now).all():
            return f"step {i + 1} gives logits that are not finite (NaN or infinity)"
    return ""


# -- the checks --------------------------------------------------------------------------------------------------------


def _fresh_state(head: StreamingHead, label: str, logits: np.ndarray, tokens: np.ndarray | None) -> Finding:
    """The same streams before and after others."""
    first = _Stream(head, logits, tokens).all()
    others, other_tokens = _random_snapshots(None if tokens is None else tokens.shape[2], seed=3)
    _Stream(head, others, other_tokens).all()
    again = _Stream(head, logits, tokens).all()
    return _equal(f"fresh state: head {label} from init, twice", first, again, 0.0, "init must begin anew")


def _states_apart(head: StreamingHead, label: str, logits: np.ndarray, tokens: np.ndarray | None) -> Finding:
    """Two streams stepped in turn, each from a state of its own, against one after the other."""
    half = STREAMS // 2
    parts = [
        (logits[part], None if tokens is None else tokens[part]) for part in (slice(0, half), slice(half, STREAMS))
    ]
    alone = [_Stream(head, *part).all() for part in parts]
    streams = [_Stream(head, *part) for part in parts]
    for _ in range(WINDOWS):
        for stream in streams:
            stream.step()
    said = np.concatenate([stream.all() for stream in streams])
    advice = "keep all memory in the state, none on the head"
    return _equal(f"own state: head {label} on two streams in turn and alone", np.concatenate(alone), said, 0.0, advice)


def _batch_invariance(head: StreamingHead, label: str, logits: np.ndarray, tokens: np.ndarray | None) -> Finding:
    together = _Stream(head, logits, tokens).all()
    alone = [
        _Stream(head, logits[i : i + 1], None if tokens is None else tokens[i : i + 1]).all() for i in range(STREAMS)
    ]
    what = f"batch invariance: head {label} on streams alone and together"
    return _equal(what, together, np.concatenate(alone), CLOSE, "no stream may depend on the others of its batch")


def _step_and_replay(head: StreamingHead, label: str, logits: np.ndarray, tokens: np.ndarray | None) -> Finding | None:
    """None for a head without ``replay``: it is stepped anyway."""
    if not hasattr(head, "replay"):
        return None
    stepped = _Stream(head, logits, tokens).all()
    what = f"replay: head {label} in steps and all at once"
    return _equal(what, stepped, replay(head, logits, tokens, HOP_S), CLOSE, "replay must equal init and step")


def _equal(what: str, a: np.ndarray, b: np.ndarray, tolerance: float, advice: str) -> Finding:
    gap = float(np.abs(a.astype(np.float64) - b.astype(np.float64)).max())
    ok = gap <= tolerance  # a NaN is not
    numbers = f"(largest difference {gap:.2g}, allowed {tolerance:g})"
    return Finding(ok, f"{what} {'agree' if ok else 'DIFFER'} {numbers}{'' if ok else f'; {advice}'}")
