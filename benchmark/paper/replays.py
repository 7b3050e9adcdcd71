"""The streams behind the tables: the snapshots that the store lacks are computed once for all, the rest is replay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from avbench.baselines.families import families
from avbench.engine.session import Session
from avbench.protocol.rules import Protocol
from avbench.registry.loading import load_all
from avbench.registry.names import only_learned, resolve, split_model_name
from avbench.registry.options import ModelOptions
from avbench.results.truth import Truth
from avbench.ticks import ticks

FORWARDS = "snapshots_computed"  # the counter of backbone forwards: one per window and backbone


@dataclass(frozen=True)
class Need:
    """What one table replays: ``models`` at ``settings`` (pairs of hop in seconds and windows), scored on the segments
    that are long enough for all of these settings."""

    models: tuple[str, ...]
    settings: tuple[tuple[float, int], ...]

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


class Replays:
    """``part(need)`` and ``streams(need, model, hop_s)`` of one session, computed for all ``needs`` at once.

    ``tag``: of the embedded weights that stand in for the shipped ones, where a family has such (``with_weights``).
    ``options``: precision and compiling of the learned models. They compute on the session's device.
    A segment that failed for one model is left out for all of them and listed in the session's ``failures``.
    """

    def __init__(
        self, session: Session, needs: Sequence[Need], tag: str = "", options: ModelOptions | None = None
    ) -> None:
        self.session, self.manifest, self.tag = session, session.manifest, tag
        names = list(dict.fromkeys(name for need in needs for name in need.models))
        device = session.how.device
        options = (options or ModelOptions()).made_quick(device)
        resolved = [resolve(with_weights(name, tag), only_learned(name, options)) for name in names]
        loaded = load_all(resolved, device)
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

    def setting(self, model: str, selection: str, hop_s: float | None, windows: int) -> dict[str, Any]:
        """What was run for a row, as the exhibits' files record it; ``model`` with the weights that were used."""
        return {"model": with_weights(model, self.tag), "selection": selection, "hop_s": hop_s, "windows": windows}


def summary(counters: Mapping[str, int]) -> str:
    """In words: how many backbone forwards were computed, and how many snapshots came from the store."""
    computed, stored = counters.get(FORWARDS, 0), counters.get("snapshots_from_store", 0)
    return f"{computed} backbone forwards, {stored} snapshots from the store"
