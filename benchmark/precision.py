"""float32 that is float32: GPUs round the inputs of convolutions to TF32 (10 bits of mantissa) unless told not to."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


@contextlib.contextmanager
def exact_float32() -> Iterator[None]:
    """Without TF32 in convolutions, recurrent layers and matrix products; changes nothing on a CPU."""
    import torch

    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, matmul.allow_tf32
    cudnn.allow_tf32 = matmul.allow_tf32 = False
    try:
        yield
    finally:
        cudnn.allow_tf32, matmul.allow_tf32 = before
