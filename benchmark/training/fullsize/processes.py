"""The processes of ``torchrun``, or a single one."""

from __future__ import annotations

import os
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch import distributed as dist

from avbench.types import UsageError


class Workers:
    """This process (``rank`` of ``n``) among those of ``torchrun``, or alone (0 of 1). Gradients and losses are summed
    over all processes, moving statistics averaged.

    ``UsageError`` if ``device`` is "cuda" and this process has no GPU.
    """

    def __init__(self, device: str) -> None:
        self.rank, self.n = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
        local = int(os.environ.get("LOCAL_RANK", "0"))
        self.device = torch.device(f"cuda:{local}" if device == "cuda" else device)
        if self.device.type == "cuda":
            if not torch.cuda.is_available():
                raise UsageError("device is cuda, but torch finds no usable GPU on this machine")
            if local >= (n_gpus := torch.cuda.device_count()):
                raise UsageError(f"process {local + 1} has no GPU: this machine has {n_gpus}; start as many processes")
            torch.cuda.set_device(self.device)
        self.mine = self.n > 1 and not dist.is_initialized()
        if self.mine:
            dist.init_process_group("nccl" if self.device.type == "cuda" else "gloo")

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        if self.mine:
            dist.destroy_process_group()

    def add_gradients(self, parameters: list[nn.Parameter]) -> None:
        """Give every parameter the sum of all processes' gradients, zeros where no process has one."""
        for p in parameters:
            if p.grad is None:
                p.grad = torch.zeros_like(p)
        if self.n == 1:
            return
        flat = torch.cat([cast(Tensor, p.grad).flatten() for p in parameters])
        dist.all_reduce(flat)
        for p, part in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
            p.grad = part.view_as(p)

    def total(self, values: list[float]) -> list[float]:
        """The sums over all processes, one per value."""
        if self.n == 1:
            return values
        x = torch.tensor(values, dtype=torch.float64 if self.device.type == "cpu" else torch.float32)
        x = x.to(self.device)
        dist.all_reduce(x)
        return [float(v) for v in x]

    def average_statistics(self, model: nn.Module) -> None:
        """Replace BatchNorm's running statistics by their mean over the processes."""
        if self.n == 1:
            return
        for buffer in model.buffers():
            if buffer.is_floating_point():
                dist.all_reduce(buffer)
                buffer /= self.n

    def gathered(self, values: list[Any]) -> list[Any]:
        """All processes' lists, concatenated in order of rank."""
        if self.n == 1:
            return values
        lists: list[Any] = [None] * self.n
        dist.all_gather_object(lists, values)
        return [x for part in lists for x in part]
