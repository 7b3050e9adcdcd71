"""float32 that is float32: a GPU rounds the inputs of convolutions to TF32 (10 bits of mantissa) unless told not to,
and a model's own code may have told torch to round more, in its process for every model after it."""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Callable, Iterator
from typing import Any

ON_GPU = ("cuda.matmul", "cudnn.conv", "cudnn.rnn")
ON_CPU = ("mkldnn.matmul", "mkldnn.conv", "mkldnn.rnn")


@contextlib.contextmanager
def exact_float32() -> Iterator[None]:
    """No TF32 or bfloat16 in float32 convolutions, recurrent layers and matrix products; afterwards all is as it was.

    torch has two sets of switches, the newer one (2.9 on) by operation. Reading the older one fails where only the
    newer one was touched, and torch itself reads both: so both are set.
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
    """Whether a GPU would now compute float32 convolutions, recurrent layers or matrix products in TF32."""
    import torch

    if switches := _switches(*ON_GPU):
        return any(switch.fp32_precision == "tf32" for switch in switches)
    return bool(torch.backends.cuda.matmul.allow_tf32 or torch.backends.cudnn.allow_tf32)


def _switches(*names: str) -> list[Any]:
    """The newer switches; none in a torch that has not got them."""
    import torch

    if not hasattr(torch.backends.cuda.matmul, "fp32_precision"):
        return []
    return [operator.attrgetter(name)(torch.backends) for name in names]


def _read(switch: Callable[[], Any]) -> Any:
    try:
        return switch()
    except RuntimeError:  # the newer switches say something else
        return None
