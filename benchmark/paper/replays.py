"""The streams behind the tables: the snapshots that the store lacks are computed once for all, the rest is replay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from avbench.engine.session import Session
from avbench.protocol.rules import Protocol
from avbench.registry.loading import load_all
from avbench.registry.names import resolve
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


class Replays:
    """``part(need)`` and ``streams(need, model, hop_s)`` of one session, computed for all ``needs`` at once.

    A segment that failed for one model is left out for all of them and listed in the session's ``failures``.
    """

    def __init__(self, session: Session, needs: Sequence[Need]) -> None:
        self.session, self.manifest = session, session.manifest
        names = dict.fromkeys(name for need in needs for name in need.models)
        self.models = {model.name: model for model in load_all([resolve(name) for name in names])}
        for need in needs:
            for name in need.models:
                session.need(self.models[name], *need.protocols)
        session.compute()

    def part(self, need: Need) -> Truth:
        """The segments that one table scores, in the manifest's order."""
        return self.session.truth(need.protocols[0])

    def streams(self, need: Need, model: str, hop_s: float) -> np.ndarray:
        """(N, W, 21) float32: what ``model`` says after each window, W being the largest count at this hop."""
        return self.session.predictions(self.models[model], need.protocol(hop_s))


def summary(counters: Mapping[str, int]) -> str:
    """In words: how many backbone forwards were computed, and how many snapshots came from the store."""
    computed, stored = counters.get(FORWARDS, 0), counters.get("snapshots_from_store", 0)
    return f"{computed} backbone forwards, {stored} snapshots from the store"
