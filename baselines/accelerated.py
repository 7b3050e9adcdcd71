"""Inference copies of the full-size models for accelerators: the same logits to rounding, fewer passes over memory.

BatchNorm is folded into the convolutions before it, and the weights of convolutions store their channels last, so that
cuDNN computes in that layout (the one that tensor cores take) without rearranging. In lower precision the weights of
the large layers are stored in it: autocast, which stays on, need not convert them at each call, and gives the same
logits.
"""

from __future__ import annotations

import copy
from typing import Any, TypeVar

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from avbench.baselines.resnet import fast_resnet
from avbench.baselines.s3d import S3D, BasicConv, SepConv
from avbench.baselines.sparsesync import SparseSync
from avbench.baselines.synchformer import Synchformer
from avbench.types import UsageError

Model = TypeVar("Model", bound=nn.Module)
_LARGE = (nn.Linear, nn.Conv2d, nn.Conv3d)  # layers that autocast computes in the lower precision
_PAIRS = {BasicConv: (("conv", "bn"),), SepConv: (("conv_s", "bn_s"), ("conv_t", "bn_t"))}


def accelerated(model: Model) -> Model:
    """An inference copy of a full-size model for accelerators; another model is returned as it is.

    The copy shares no weight with ``model`` and cannot be trained or saved under the published keys. ``UsageError`` for
    a model in training mode.
    """
    if not isinstance(model, SparseSync | Synchformer):
        return model
    if model.training:
        raise UsageError("call eval() before accelerated(): the copy has the BatchNorm folded in")
    # the deep copy's memo: these parts are replaced instead of copied
    replaced: dict[int, Any] = {}
    if isinstance(model, SparseSync) and isinstance(model.vfeat_extractor, S3D):
        replaced[id(model.vfeat_extractor)] = folded(model.vfeat_extractor)
        replaced[id(model.afeat_extractor)] = fast_resnet(model.afeat_extractor)
    return channels_last(copy.deepcopy(model, replaced)).requires_grad_(False)


def folded(trunk: S3D) -> S3D:
    """A copy of a picture encoder in eval mode without BatchNorm: the same function to rounding."""
    trunk = copy.deepcopy(trunk)
    for part in trunk.modules():
        for conv, norm in _PAIRS.get(type(part), ()):  # type: ignore[call-overload]
            before, after = getattr(part, conv), getattr(part, norm)
            part.add_module(conv, fuse_conv_bn_eval(before, after))
            part.add_module(norm, nn.Identity())
    return trunk


def channels_last(model: Model) -> Model:
    """``model`` with the weights of its 2-D and 3-D convolutions stored channels last, in place: the values stay."""
    for part in model.modules():
        if isinstance(part, nn.Conv2d | nn.Conv3d):
            layout = torch.channels_last if isinstance(part, nn.Conv2d) else torch.channels_last_3d
            part.weight.data = part.weight.data.contiguous(memory_format=layout)
    return model


def stored(model: Model, dtype: torch.dtype) -> Model:
    """``model`` with the weights of its linear and convolutional layers stored in ``dtype``, in place. Under autocast
    to ``dtype`` the logits are those of float32 weights: norms, embeddings and sums stay in float32."""
    for part in model.modules():
        if isinstance(part, _LARGE):
            for name, parameter in part.named_parameters(recurse=False):
                # a new parameter keeps the layout; one that layers share stays shared only as values
                part.register_parameter(name, nn.Parameter(parameter.detach().to(dtype), requires_grad=False))
    return model
