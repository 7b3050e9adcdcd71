"""Disable TF32 and bfloat16 rounding.

By default, a GPU rounds the inputs of convolutions to TF32 (10 bits of mantissa). A model's own code may have told
torch to round more, which then applies to every later model in its process.
"""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Callable, Iterator
from typing import Any

ON_GPU = ("cuda.matmul", "cudnn.conv", "cudnn.rnn")
ON_CPU = ("mkldnn.matmul", "mkldnn.conv", "mkldnn.rnn")


@contextlib.contextmanager
def exact_float32() -> Iterator[None]:
    """No TF32 or bfloat16 in float32 convolutions, recurrent layers and matrix products inside this block.

    The previous settings are restored afterwards. torch has two sets of switches; the newer one (from 2.9) has a switch
    for each operation. Reading the older one fails if only the newer one was changed, and torch itself reads both, so
    both are set.
    """
    import torch

    cudnn, switches = torch.backends.cudnn, _switches(*ON_GPU, *ON_CPU)
    matmul, convolutions = _read(torch.get_float32_matmul_precision), _read(lambda: cudnn.allow_tf32)
    newer = [switch.fp32_precision for switch in switches]
    torch.set_float32_matmul_precision("highest")
    cudnn.allow_tf32 = False
    for switch in switches:
        switch.fp32_precision = "ieee"
    try:
        yield
    finally:
        if matmul is not None:
            torch.set_float32_matmul_precision(matmul)
        if convolutions is not None:
            cudnn.allow_tf32 = convolutions
        for switch, value in zip(switches, newer, strict=True):
            switch.fp32_precision = value


def gpu_rounds_float32() -> bool:
    """Whether a GPU would compute float32 convolutions, recurrent layers or matrix products in TF32 at this moment."""
    import torch

    if switches := _switches(*ON_GPU):
        return any(switch.fp32_precision == "tf32" for switch in switches)
    return bool(torch.backends.cuda.matmul.allow_tf32 or torch.backends.cudnn.allow_tf32)


def _switches(*names: str) -> list[Any]:
    """The newer switches; an empty list if this torch does not have them."""
    import torch

    if not hasattr(torch.backends.cuda.matmul, "fp32_precision"):
        return []
    return [operator.attrgetter(name)(torch.backends) for name in names]


def _read(switch: Callable[[], Any]) -> Any:
    try:
        return switch()
    except RuntimeError:  # the newer switches have a setting that the older one cannot express
        return None
