"""Other ways to compute the same model: in lower precision or compiled. Plain float32 is the reference.

They change at least the last digits of the logits, and therefore the fingerprint and the signature.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from avbench.baselines.accelerated import accelerated, stored
from avbench.baselines.sparsesync import SparseSync, fast
from avbench.baselines.synchformer import Synchformer
from avbench.engine.shared_segments import layout_of
from avbench.types import AvbenchError, Snapshot, SnapshotPredictor, UsageError, first_line

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class Tuned(nn.Module, SnapshotPredictor):
    """``inner`` under autocast to ``dtype`` (float32: none) and compiled on request. Logits and tokens are float32.

    The front ends stay in float32 (:mod:`avbench.baselines.frontends` ensures it), because the published code also
    computes them outside autocast.
    """

    def __init__(self, inner: Any, dtype: str, compiled: bool) -> None:
        super().__init__()
        self.inner, self.dtype, self.compiled = inner, DTYPES[dtype], compiled
        self.frontend, self.token_dim, self.two_tower = inner.frontend, inner.token_dim, inner.two_tower
        self.description, self.trained_on = inner.description, inner.trained_on
        if hasattr(inner, "stretch_sound"):
            # in float32, whatever the weights are stored in: the runner cuts and keeps it outside autocast
            self.stretch_sound = lambda audio: inner.stretch_sound(audio).float()
            self.column_samples = inner.column_samples
        segments = [name for name in ("encode_video_segments", "encode_audio_segments") if hasattr(inner, name)]
        names = ["predict", *(("encode_video", "encode_audio", "fuse") if inner.two_tower else ()), *segments]
        names += ["fuse_segments"] if hasattr(inner, "fuse_segments") else []
        calls = {name: getattr(inner, name) for name in names}
        self._calls = {name: torch.compile(call) if compiled else call for name, call in calls.items()}
        for name in segments:  # only a Synchformer's: what a model offers says what it can do
            setattr(self, name, partial(self._call, name))
        self.segment_layout = layout_of(inner)
        if "fuse_segments" in calls:
            self.fuse_segments = partial(self._snapshot, "fuse_segments")
        self._tried: set[str] = set()  # devices for which a tiny function was compiled

    def fingerprint_parts(self) -> dict[str, Any]:
        """What decides the output: the inner model, the precision, and whether it is compiled."""
        return {"inner": self.inner, "dtype": str(self.dtype), "compiled": self.compiled}

    def _call(self, name: str, *inputs: Tensor) -> Any:
        weight = next(self.parameters(), None)
        device = "cpu" if weight is None else weight.device.type
        if self.compiled and device not in self._tried:
            _try_to_compile(device)
            self._tried.add(device)
        with torch.autocast(device, self.dtype, enabled=self.dtype != torch.float32):
            return self._calls[name](*inputs)

    def _snapshot(self, name: str, *inputs: Tensor) -> Snapshot:
        logits, token = self._call(name, *inputs)
        return Snapshot(logits.float(), None if token is None else token.float())

    def predict(self, video: Tensor, audio: Tensor) -> Snapshot:
        """As the inner model's ``predict``; logits (B, 21) and token (B, D) are float32."""
        return self._snapshot("predict", video, audio)

    def encode_video(self, video: Tensor) -> Any:
        """As the inner model's ``encode_video``; features may be in the lower precision."""
        return self._call("encode_video", video)

    def encode_audio(self, audio: Tensor) -> Any:
        """As the inner model's ``encode_audio``; features may be in the lower precision."""
        return self._call("encode_audio", audio)

    def fuse(self, video_features: Tensor, audio_features: Tensor) -> Snapshot:
        """As the inner model's ``fuse``; logits (B, 21) and token (B, D) are float32."""
        return self._snapshot("fuse", video_features, audio_features)


def tuned(model: Any, made_for: str = "", dtype: str = "float32", compiled: bool = False) -> Any:
    """``model``, made ready to run. ``made_for``: "cpu" or "accelerator", the copy for it if the family has one (equal
    logits up to rounding; on the CPU with bfloat16 the picture encoder computes in bfloat16). With another ``dtype``
    than float32 a full-size model's large weights are stored in it. ``UsageError`` for a model without torch. The first
    call of a compiled model raises ``AvbenchError`` if this machine cannot compile for its device.
    """
    if made_for == "cpu" and isinstance(model, SparseSync):
        model = fast(model.eval(), torch.bfloat16 if dtype == "bfloat16" else None)
    if made_for == "accelerator" and isinstance(model, nn.Module):
        model = accelerated(model.eval())
    if dtype == "float32" and not compiled:
        return model
    if not isinstance(model, nn.Module):
        raise UsageError(f"--dtype and --compile need a torch model; {type(model).__name__} is not one")
    if dtype != "float32" and isinstance(model, SparseSync | Synchformer):
        model = stored(model, DTYPES[dtype])
    return Tuned(model, dtype, compiled)


def _try_to_compile(device: str) -> None:
    """Reports a missing compiler in one line instead of as a failure of every clip."""
    try:
        torch.compile(lambda x: x + 1)(torch.zeros(2, device=device))
    except Exception as error:
        raise AvbenchError(
            f"torch.compile does not work here, for {device} ({first_line(error)[:200]}); leave out --compile"
        ) from error
