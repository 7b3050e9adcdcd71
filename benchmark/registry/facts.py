"""Facts about a loaded model that a result records."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

from avbench.registry.options import StreamingModel
from avbench.system import machine


def default_workers(models: Iterable[StreamingModel]) -> int:
    """As many worker processes as there are cores and as memory holds: each has every model, a clip's sound and frames,
    and, of a full-size model, the activations of a window (2.7 GB in all were measured for Synchformer)."""
    models = [model for model in models if model.backbone is not None]
    weights = [p for model in models for p in getattr(model.backbone, "parameters", list)()]
    each = machine.GIB + sum(p.numel() * p.element_size() for p in weights)
    return machine.worker_count(each + (machine.GIB if any(model.full_size for model in models) else 0))


def whole_fingerprint(model: StreamingModel, backbone: str) -> str:
    """sha256 over backbone and head: what the signature names as the model."""
    digest = hashlib.sha256(f"{backbone} {model.head_name} ".encode())
    head: Any = model.head
    if hasattr(head, "state_dict"):
        for name, tensor in head.state_dict().items():
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
            digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    elif head is not None:
        digest.update(repr(sorted(getattr(head, "__dict__", {}).items())).encode())
    return digest.hexdigest()


def model_facts(model: StreamingModel, fingerprint: str, note: str) -> Any:
    from avbench.results.run import ModelInfo

    return ModelInfo(
        name=model.name,
        backbone=model.backbone_name,
        head=model.head_name,
        fingerprint=fingerprint,
        description=model.description,
        trained_on=model.trained_on or "undeclared",
        weights_note=note,
        full_size=model.full_size,
        random_weights=model.random_seed,
        audio_lead_trim_samples=model.audio_lead_trim_samples,
        token=model.token,
        dtype=model.options.autocast,  # type: ignore[arg-type]  # checked when it was made
        compiled=model.options.compiled,
    )
