"""The model families: one file each, with a tuple FAMILIES of descriptors, and one line below. Loads no torch."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module

from avbench.baselines.family import Family, Layout

REGISTERED = (
    "avbench.baselines.families.streamsync",
    "avbench.baselines.families.sparsesync",
    "avbench.baselines.families.synchformer",
    "avbench.baselines.families.syncnet",
    "avbench.baselines.families.xcorr",
)


def families() -> dict[str, Family]:
    """Every registered family by name, in the order of the lines above."""
    return {family.name: family for module in REGISTERED for family in import_module(module).FAMILIES}


def layouts() -> dict[str, Layout]:
    """Every known layout of a published state dict by name, a family's full-size model before its relatives."""
    found = [layout for family in families().values() for layout in (family.full, *family.also_published) if layout]
    return {layout.name: layout for layout in found}


def recognise(keys: Iterable[str]) -> Layout | None:
    """The layout of a state dict with these keys, with or without ``module.`` in front; None if it is unknown."""
    names = {key.removeprefix("module.") for key in keys}
    return next((layout for layout in layouts().values() if layout.recognises(names)), None)


def layout_with_head(head: str) -> Layout | None:
    """The full-size model that carries this streaming head ("trf" or "lstm"); None if there is none."""
    return next((layout for layout in layouts().values() if layout.head == head), None)
