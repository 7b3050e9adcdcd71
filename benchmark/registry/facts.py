"""Facts about a loaded model that a result records."""

from __future__ import annotations

import hashlib
from typing import Any

from avbench import __version__
from avbench.engine.fingerprint import head_fingerprint
from avbench.engine.session import Session
from avbench.protocol.rules import Protocol
from avbench.protocol.signature import Signature
from avbench.registry.arguments import shown
from avbench.registry.options import StreamingModel
from avbench.results.run import ModelInfo


def whole_fingerprint(model: StreamingModel, backbone: str) -> str:
    """sha256 over backbone and head: what the signature names as the model.

    A built-in head counts by its name and its state (its code goes by the version), one from outside by the source
    files of its classes too.
    """
    digest = hashlib.sha256(f"{backbone} {model.head_name} ".encode())
    head: Any = model.head
    if head is not None and is_foreign(head):
        digest.update(head_fingerprint(head).encode())
    elif hasattr(head, "state_dict"):
        for name, tensor in head.state_dict().items():
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
            digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    elif head is not None:
        digest.update(repr(sorted(getattr(head, "__dict__", {}).items())).encode())
    return digest.hexdigest()


def is_foreign(head: Any) -> bool:
    """Whether a head's class is not of this package."""
    return type(head).__module__.partition(".")[0] != "avbench"


def model_facts(model: StreamingModel, fingerprint: str, note: str) -> ModelInfo:
    """What a result says of the model. ``fingerprint``: of backbone and head; ``note``: a word on its weights."""
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
        arguments=shown(model.options.model_args),
    )


def signature_of(session: Session, model: StreamingModel, protocol: Protocol) -> Signature:
    """The signature of a loaded model under a protocol on the data of ``session``, which needs it."""
    fingerprint = whole_fingerprint(model, session.fingerprint(model))
    return Signature.of(protocol, fingerprint, session.manifest.sha256, __version__, model.computed())
