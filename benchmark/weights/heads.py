"""Files that hold a learned head alone, for ``--head-weights FILE``: made by one training, used on any backbone.

FILE.safetensors holds ``head.*`` (the state dict of a ``StreamingTransformer`` or ``StreamingLSTM`` of any width) and,
where the token's map was trained too, ``adapter.weight`` (D, 42) and ``adapter.bias`` (D,): see
:mod:`avbench.baselines.adapter`. FILE.json beside it is the card: schema_version 1, head ("trf" or "lstm"), token
("backbone": the head reads the backbone's own token; "adapter": tokens are made from the logits), token_dim, heads (of
the transformer's attention), trained_on, backbone, backbone_fingerprint, sha256, and whatever the trainer adds. Whole
models are no head files: their head reads tokens that its own backbone's trained map makes.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from avbench.baselines.adapter import TRAINED, AdaptedHead
from avbench.baselines.streamsync import StreamingLSTM, StreamingTransformer
from avbench.system.atomic import atomic_write_bytes
from avbench.types import AvbenchError

TOKENS = ("backbone", "adapter")
ATTENTION_HEADS = 8
WHOLE = ("backbone.", "token_maker.", "transformer.", "vfeat_extractor.", "afeat_extractor.")


def kind_of(head: nn.Module) -> str:
    return "lstm" if isinstance(head, StreamingLSTM) else "trf"


def _attention_heads(head: Any) -> int:
    return 0 if isinstance(head, StreamingLSTM) else head.blocks[0].attn.heads


def export_head(
    path: Path, head: Any, *, trained_on: str, backbone: str, backbone_fingerprint: str, **more: Any
) -> dict[str, Any]:
    """Writes ``path`` (.safetensors, float32) and its card (.json), which is returned.

    ``head``: a StreamingTransformer or StreamingLSTM that reads the backbone's token, or an ``AdaptedHead`` around one.
    ``more`` goes onto the card (recipe, log, ...). ``OSError`` as it comes.
    """
    inner, adapter = (head.head, head) if isinstance(head, AdaptedHead) else (head, None)
    tensors = {f"head.{key}": value.float().contiguous() for key, value in inner.state_dict().items()}
    if adapter is not None and adapter.token_source == TRAINED:
        tensors |= {f"adapter.{key}": getattr(adapter, key).detach().float().contiguous() for key in ("weight", "bias")}
    data = save(tensors)
    card = {
        "schema_version": 1,
        "head": kind_of(inner),
        "token": "adapter" if adapter is not None else "backbone",
        "token_dim": inner.dim,
        "heads": _attention_heads(inner),
        "trained_on": trained_on,
        "backbone": backbone,
        "backbone_fingerprint": backbone_fingerprint,
        "parameters": sum(p.numel() for p in inner.parameters()),
        "sha256": hashlib.sha256(data).hexdigest(),
        **more,
    }
    atomic_write_bytes(path, data)
    atomic_write_bytes(path.with_suffix(".json"), (json.dumps(card, indent=1) + "\n").encode())
    return card


def card_of(path: Path) -> dict[str, Any]:
    """The card beside a head file; empty if there is none. ``AvbenchError`` if it is damaged or of another file."""
    sidecar = Path(path).with_suffix(".json")
    if Path(path).suffix != ".safetensors" or not sidecar.is_file():
        return {}
    try:
        card = json.loads(sidecar.read_text(encoding="utf-8"))
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError, RecursionError) as error:
        raise AvbenchError(f"{sidecar} cannot be read: {error}") from error
    if not isinstance(card, dict) or card.get("sha256") != digest:
        raise AvbenchError(f"{path} is not the file that {sidecar.name} describes")
    return card


def load_head(path: Path, kind: str, with_its_backbone: bool = False) -> Any:
    """The head of a file, in eval mode, float32; ``kind``: "trf" or "lstm". Its ``token_from`` says where it wants its
    token from ("backbone", "adapter", or "" where the file does not say), ``backbone_fingerprint`` what it was trained
    on ("" if unknown). ``with_its_backbone``: the file is a whole model's and its backbone is used too.
    ``AvbenchError`` in one line.
    """
    from avbench.weights.checkpoints import load_weights

    path = Path(path)
    tensors = load_weights(path)
    if not with_its_backbone and any(key.startswith(WHOLE) for key in tensors):
        raise AvbenchError(
            f"{path.name} holds more than a head, which reads tokens made by what is with it: name it with --weights"
        )
    state = {k.removeprefix("head."): t.float() for k, t in tensors.items() if k.startswith("head.")}
    adapter = {k.removeprefix("adapter."): t.float() for k, t in tensors.items() if k.startswith("adapter.")}
    card = card_of(path)
    head = head_from_state(state, kind, path.name, int(card.get("heads") or ATTENTION_HEADS))
    token = str(card.get("token", "")) or ("adapter" if adapter else "")
    if token not in ("", *TOKENS):
        raise AvbenchError(f"{path.name}: its card says token {token!r}, it must be one of {', '.join(TOKENS)}")
    if token == TOKENS[1]:
        head = AdaptedHead(head, head.dim, head.logit_head.out_features, adapter.get("weight"), adapter.get("bias"))
    head.token_from, head.backbone_fingerprint = token, str(card.get("backbone_fingerprint", ""))
    return head.eval()


def head_from_state(state: Mapping[str, Tensor], kind: str, name: str, heads: int = ATTENTION_HEADS) -> Any:
    """A head of the width and depth that its weights have."""
    found = "lstm" if any(k.startswith("lstm.") for k in state) else "trf" if "OFF_tok" in state else ""
    if found != kind:
        raise AvbenchError(f"{name} holds {f'the weights of a {found} head' if found else 'no head'}, {kind} is needed")
    try:
        dim, n_classes = len(state["ln_f.weight"]), len(state["logit_head.weight"])
        pattern = r"lstm\.weight_ih_l(\d+)" if kind == "lstm" else r"blocks\.(\d+)\..*"
        layers = 1 + max(int(m[1]) for key in state if (m := re.fullmatch(pattern, key)))
        with torch.device("meta"):
            head: Any = (
                StreamingLSTM(dim, layers, n_classes)
                if kind == "lstm"
                else StreamingTransformer(dim, heads, layers, n_classes)
            )
        head.load_state_dict(dict(state), strict=True, assign=True)
    except (KeyError, ValueError, RuntimeError) as error:
        first = " ".join(str(error).split())[:200]
        raise AvbenchError(f"the head in {name} does not fit a {kind} head: {first}") from error
    return head
