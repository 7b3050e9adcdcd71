"""The streams behind the tables: the snapshots that the store lacks are computed once for all, the rest is replay."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from avbench.baselines.families import families
from avbench.engine.session import Session
from avbench.protocol.rules import Protocol
from avbench.registry.facts import signature_of
from avbench.registry.loading import load_all
from avbench.registry.names import only_learned, resolve, split_model_name, takes_arguments, without_folders
from avbench.registry.options import ModelOptions, StreamingModel
from avbench.results.truth import Truth
from avbench.ticks import ticks
from avbench.types import UsageError

FORWARDS = "snapshots_computed"  # the counter of backbone forwards: one per window and backbone


@dataclass(frozen=True)
class Need:
    """What one table replays: ``models`` at ``settings`` (pairs of hop in seconds and windows), scored on the segments
    that are long enough for all of these settings."""

    models: tuple[str, ...]
    settings: tuple[tuple[float, int], ...]

    def and_of(self, models: Iterable[str]) -> Need:
        """The same of more models."""
        return replace(self, models=(*self.models, *models))

    def protocol(self, hop_s: float) -> Protocol:
        """The protocol with the most windows at this hop. Heads are causal: its beginnings are the shorter streams."""
        return Protocol(
            hop=ticks(hop_s),
            iterations=max(windows for hop, windows in self.settings if hop == hop_s),
            support="common",
            common_support=tuple((ticks(hop), windows) for hop, windows in self.settings),
        )

    @property
    def protocols(self) -> tuple[Protocol, ...]:
        """One protocol per hop, in the order of ``settings``."""
        return tuple(self.protocol(hop_s) for hop_s in dict.fromkeys(hop for hop, _ in self.settings))


def with_weights(model: str, tag: str) -> str:
    """The model's name with the embedded weights ``tag`` ("" for none), if its family has such and the name has no tag
    of its own; the name as it is otherwise."""
    backbone, head = split_model_name(model)
    family = families().get(backbone)
    if not family or tag not in family.weights:
        return model
    return "+".join(part for part in (f"{backbone}.{tag}", head) if part)


@dataclass(frozen=True)
class Own:
    """The reader's own models: ``rows``, row -> model; and what all models of the tables are computed with: ``options``
    (their arguments are for classes from outside), the ``tag`` of the package's weights, the ``device``."""

    rows: Mapping[str, str] = field(default_factory=dict)
    options: ModelOptions = field(default_factory=ModelOptions)
    tag: str = ""
    device: str = "cpu"

    @classmethod
    def of(cls, models: Sequence[str], options: ModelOptions, tag: str = "", device: str = "cpu") -> Own:
        """One row per model, marked, with the weights that it has in the tables; ``UsageError`` for an unknown model,
        or options that go with none."""
        rows: dict[str, str] = {}
        for model in dict.fromkeys(models):
            name = without_folders(with_weights(model, tag))
            same = sum(row.startswith(f"† {name} (yours") for row in rows)  # files of one name in two folders
            rows[f"† {name} (yours{f', {same + 1}' if same else ''})"] = model
        own = cls(rows, options, tag, device)
        if options.model_args and not any(map(takes_arguments, rows.values())):
            raise UsageError("--model-args goes with a class of your own in --model, and there is none")
        for model in rows.values():
            own.resolved(model, tag)
        return own

    def resolved(self, model: str, tag: str) -> StreamingModel:
        """Any model of the tables, with the weights ``tag`` (``with_weights``); not loaded."""
        options = self.options_of(model)
        return resolve(with_weights(model, tag), options and options.made_quick(self.device))

    def options_of(self, model: str) -> ModelOptions | None:
        """What a model of the tables is computed with; None if none of it applies."""
        return only_learned(model, self.options if takes_arguments(model) else replace(self.options, model_args={}))


class Replays:
    """``part(need)`` and ``streams(need, model, hop_s)`` of one session, computed for all ``needs`` at once.

    ``tag``: of the embedded weights that stand in for the shipped ones, where a family has such (``with_weights``).
    ``own``: row -> model of the reader's own, which are in the needs, too, and what all models are computed with, on
    the session's device. A segment that failed for one model is left out for all of them and listed in the session's
    ``failures``.
    """

    def __init__(self, session: Session, needs: Sequence[Need], tag: str = "", own: Own | None = None) -> None:
        device = session.how.device
        own = own or Own(device=device)
        self.session, self.manifest, self.tag, self.own = session, session.manifest, tag, own.rows
        names = list(dict.fromkeys(name for need in needs for name in need.models))
        loaded = load_all([own.resolved(name, tag) for name in names], device)
        self.models = dict(zip(names, loaded, strict=True))
        for need in needs:
            for name in need.models:
                session.need(self.models[name], *need.protocols)
        session.compute()

    def part(self, need: Need) -> Truth:
        """The segments that one table scores, in the manifest's order."""
        return self.session.truth(need.protocols[0])

    def streams(self, need: Need, model: str, hop_s: float) -> np.ndarray:
        """(N, W, 21) float32: what ``model`` says after each window, W being the largest count at this hop.

        ``model``: its name in the need.
        """
        return self.session.predictions(self.models[model], need.protocol(hop_s))

    def single_windows(self, need: Need, model: str, hop_s: float) -> np.ndarray | None:
        """(N, W, 21) float32: what the backbone of ``model`` says of each window alone; None if it has none."""
        loaded = self.models[model]
        if loaded.backbone is None:
            return None
        return self.session.snapshots(loaded.backbone_name, need.protocol(hop_s))[0]

    def signature(self, need: Need, model: str, selection: str = "final", hop_s: float = 2.0) -> str:
        """The signature of one model's streams."""
        protocol = replace(need.protocol(hop_s), selection=selection)
        return str(signature_of(self.session, self.models[model], protocol))

    def setting(self, model: str, selection: str, hop_s: float | None, windows: int) -> dict[str, Any]:
        """What was run for a row, as the exhibits' files record it; ``model`` with the weights that were used."""
        return {"model": with_weights(model, self.tag), "selection": selection, "hop_s": hop_s, "windows": windows}


def summary(counters: Mapping[str, int]) -> str:
    """In words: how many backbone forwards were computed, and how many snapshots came from the store."""
    computed, stored = counters.get(FORWARDS, 0), counters.get("snapshots_from_store", 0)
    return f"{computed} backbone forwards, {stored} snapshots from the store"
