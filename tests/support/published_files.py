"""Weight files laid out as the published ones are: one pickle with arguments, optimizer state and all."""

from __future__ import annotations

import sys
import types
from collections import OrderedDict, defaultdict
from pathlib import Path
from typing import Any

import torch

from avbench.baselines.sparsesync import SparseSync
from avbench.baselines.streamsync import StreamSync
from avbench.baselines.synchformer import Synchformer

SMALL = {"width": 1 / 16, "dim": 48, "heads": 2, "layers": 1}


def build_small(family: str, n_classes: int = 21) -> torch.nn.Module:
    """Stands in for ``checkpoints.build``: the full-size models' structure, small enough for a test."""
    with torch.device("meta"):
        if family.startswith("streamsync"):
            return StreamSync(family.removeprefix("streamsync-"), n_classes=n_classes, **SMALL)
        if family.startswith("synchformer"):
            head = "sync_head" if family.endswith("synchronisability") else "off_head"
            return Synchformer(n_classes=n_classes, head=head, dim=48, layers=1, heads=4)
        return SparseSync(n_classes=n_classes, **SMALL)


def config_class() -> Any:
    """A look-alike of OmegaConf's DictConfig: importable until :func:`publish` has written a file."""
    module = types.ModuleType("omegaconf.dictconfig")

    class DictConfig:
        def __init__(self, content: dict) -> None:
            self.__dict__["_content"] = content

        def __setstate__(self, state: dict) -> None:
            raise AssertionError("the real class must never be touched")

    DictConfig.__module__, DictConfig.__qualname__ = "omegaconf.dictconfig", "DictConfig"
    module.DictConfig = DictConfig  # type: ignore[attr-defined]
    sys.modules |= {"omegaconf": types.ModuleType("omegaconf"), "omegaconf.dictconfig": module}
    return DictConfig


def forget_config() -> None:
    for name in ("omegaconf", "omegaconf.dictconfig"):
        sys.modules.pop(name, None)


def publish(path: Path, weights: dict[str, torch.Tensor], config: Any = None, **beside: Any) -> Path:
    """A file laid out as the published ones are; what its arguments are made of cannot be imported afterwards."""
    config = config or config_class()
    args = config({"model": {"target": "a.b.C"}, "path": Path("logs"), "n": [1, 2]})
    moments = {k: {"step": 3, "exp_avg": torch.ones_like(t)} for k, t in list(weights.items())[:3]}
    torch.save(
        {
            "args": args,
            "loss": 1.25,
            "metrics": defaultdict(list, accuracy_1=[0.5]),
            "epoch": 7,
            "optimizer": {"state": moments, "param_groups": [{"lr": 1e-4, "betas": (0.9, 0.999)}]},
            "model": OrderedDict(weights),
            "scaler": {"scale": 65536.0},
            "lr_scheduler": {"last_epoch": 7},
            "model_type": "AVCorrModel",
            **beside,
        },
        path,
    )
    forget_config()
    return path
