"""Files with a trained head and no backbone, for ``--head-weights FILE``: trained once, used on any backbone.

FILE.safetensors contains ``head.*`` (the state dict of a ``StreamingTransformer`` or ``StreamingLSTM`` of any width)
and, if the token map was trained too, ``adapter.weight`` (D, 42) and ``adapter.bias`` (D,): see
:mod:`avbench.baselines.adapter`. FILE.json beside it is the card: schema_version 1, head ("trf" or "lstm"), token
("backbone": the head reads the backbone's own token; "adapter": tokens are made from the logits), token_dim, heads
(attention heads of the transformer), trained_on, backbone, backbone_fingerprint, sha256, and what the trainer adds. A
whole model is not a head file: its head reads tokens that the trained map of its own backbone makes.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from avbench.baselines.adapter import TRAINED, AdaptedHead
from avbench.baselines.streamsync import StreamingLSTM, StreamingTransformer
from avbench.types import AvbenchError
from avbench.weights.cards import read_card, write_with_card

TOKENS = ("backbone", "adapter")
ATTENTION_HEADS = 8
WHOLE = ("backbone.", "token_maker.", "transformer.", "vfeat_extractor.", "afeat_extractor.")


def kind_of(head: nn.Module) -> str:
    """``"lstm"`` or ``"trf"``, as on cards and command lines."""
    return "lstm" if isinstance(head, StreamingLSTM) else "trf"


def _attention_heads(head: Any) -> int:
    return 0 if isinstance(head, StreamingLSTM) else head.blocks[0].attn.heads


def export_head(
    path: Path, head: Any, *, trained_on: str, backbone: str, backbone_fingerprint: str, **more: Any
) -> dict[str, Any]:
    """Write ``path`` (.safetensors, float32) and its card (.json). Returns the card.

    ``head``: a StreamingTransformer or StreamingLSTM that reads the backbone's token, or an ``AdaptedHead`` around one.
    ``more`` is added to the card (recipe, log, ...). Raises ``OSError``.
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
    write_with_card(path, data, card)
    return card


def card_of(path: Path) -> dict[str, Any]:
    """The card beside a head file; empty if there is none.

    ``AvbenchError`` if it cannot be read or describes another file.
    """
    return read_card(path, remedy="export the head again") or {}


def load_head(path: Path, kind: str, with_its_backbone: bool = False) -> Any:
    """The head in a file, in eval mode, float32; ``kind``: "trf" or "lstm".

    Its ``token_from`` says which token it reads ("backbone", "adapter", or "" if the file does not say), its
    ``backbone_fingerprint`` which backbone it was trained on ("" if unknown). ``with_its_backbone``: the file contains
    a whole model whose backbone is used too. ``AvbenchError`` (one line) if the file does not fit.
    """
    from avbench.weights.checkpoints import load_weights

    path = Path(path)
    tensors = load_weights(path)
    if not with_its_backbone and any(key.startswith(WHOLE) for key in tensors):
        raise AvbenchError(
            f"{path.name} contains more than a head, and the head reads tokens that the rest makes: "
            "name it with --weights"
        )
    state = {k.removeprefix("head."): t.float() for k, t in tensors.items() if k.startswith("head.")}
    adapter = {k.removeprefix("adapter."): t.float() for k, t in tensors.items() if k.startswith("adapter.")}
    card = card_of(path)
    head = head_from_state(state, kind, path.name, int(card.get("heads") or ATTENTION_HEADS))
    token = str(card.get("token", "")) or ("adapter" if adapter else "")
    if token not in ("", *TOKENS):
        raise AvbenchError(f"{path.name}: its card says token {token!r}; it must be one of {', '.join(TOKENS)}")
    if token == TOKENS[1]:
        head = AdaptedHead(head, head.dim, head.logit_head.out_features, adapter.get("weight"), adapter.get("bias"))
    head.token_from, head.backbone_fingerprint = token, str(card.get("backbone_fingerprint", ""))
    return head.eval()


def head_from_state(state: Mapping[str, Tensor], kind: str, name: str, heads: int = ATTENTION_HEADS) -> Any:
    """A head whose width and depth are those of its weights; ``name``: the file, for messages.

    ``heads``: attention heads of the transformer. ``AvbenchError`` (one line) if the weights are of another kind or do
    not fit.
    """
    found = "lstm" if any(k.startswith("lstm.") for k in state) else "trf" if "OFF_tok" in state else ""
    if found != kind:
        what = f"the weights of a {found} head" if found else "no head"
        raise AvbenchError(f"{name} contains {what}, but {kind} is needed")
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
