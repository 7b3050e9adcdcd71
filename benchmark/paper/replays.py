"""The streams behind the tables: their union is planned first, what the store lacks is computed, the rest is replay."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from avbench.protocol.manifest import Manifest
from avbench.protocol.rules import Protocol
from avbench.system.progress import Progress
from avbench.ticks import ticks
from avbench.types import SegmentRecord

if TYPE_CHECKING:
    from avbench.engine.runner import Failure
    from avbench.registry.options import StreamingModel

FORWARDS = "snapshots_computed"  # the counter of backbone forwards: one a window and backbone


@dataclass(frozen=True)
class Need:
    """What one table replays: ``models`` at ``settings`` (pairs of hop in seconds and windows), scored on the segments
    that hold all of these settings."""

    models: tuple[str, ...]
    settings: tuple[tuple[float, int], ...]

    def protocol(self, hop_s: float) -> Protocol:
        """The largest number of windows at this hop: heads are causal, shorter streams are its beginnings."""
        return Protocol(
            hop=ticks(hop_s),
            iterations=max(windows for hop, windows in self.settings if hop == hop_s),
            support="common",
            common_support=tuple((ticks(hop), windows) for hop, windows in self.settings),
        )

    @property
    def protocols(self) -> tuple[Protocol, ...]:
        return tuple(self.protocol(hop_s) for hop_s in dict.fromkeys(hop for hop, _ in self.settings))


class Part(NamedTuple):
    """The segments that one table scores, in the manifest's order."""

    segments: tuple[SegmentRecord, ...]
    labels: np.ndarray  # (N,) int64
    videos: np.ndarray  # (N,) str, the clusters of the bootstrap
    n_total: int  # segments of the split

    @property
    def n(self) -> int:
        return len(self.segments)


class Replays:
    """``part(need)`` and ``streams(need, model, hop_s)``; ``counters`` say what it took.

    A segment that failed for one model is left out for all of them and listed in ``failures``.
    """

    def __init__(
        self,
        manifest: Manifest,
        needs: Sequence[Need],
        store: Path | str,
        workers: int = 1,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> None:
        from avbench.engine.store import SnapshotStore
        from avbench.registry.names import load_model

        self.manifest, self.seed = manifest, seed
        self.counters: Counter[str] = Counter()
        self.failures: list[Failure] = []
        self.warnings: list[str] = []
        self.unsupported: dict[str, int] = {}
        self._store = SnapshotStore(store)
        self._fingerprints: dict[str, str] = {}
        names = dict.fromkeys(name for need in needs for name in need.models)
        self.models: dict[str, StreamingModel] = {name: load_model(name) for name in names}
        passes = self._passes(needs)
        for number, (protocols, backbones) in enumerate(passes.items(), 1):
            stage = "decoding and snapshots" + (f", pass {number} of {len(passes)}" if len(passes) > 1 else "")
            self._compute(protocols, backbones, workers, stage, progress)
        self._failed = {failure.segment_id for failure in self.failures}
        self._parts: dict[Need, Part] = {}
        self._streams: dict[tuple[str, Protocol], np.ndarray] = {}
        self._gathered: dict[tuple[str, Protocol], tuple[np.ndarray, np.ndarray | None]] = {}

    def _passes(self, needs: Sequence[Need]) -> dict[tuple[Protocol, ...], list[str]]:
        """Backbones that need the same protocols share a pass: a clip is decoded once for all of them."""
        wanted: dict[str, dict[Protocol, None]] = {}
        for need in needs:
            for name in need.models:
                if self.models[name].load_backbone is not None:
                    wanted.setdefault(self.models[name].backbone_name, {}).update(dict.fromkeys(need.protocols))
        order = list(dict.fromkeys(protocol for need in needs for protocol in need.protocols))
        passes: dict[tuple[Protocol, ...], list[str]] = {}
        for backbone, protocols in wanted.items():
            passes.setdefault(tuple(p for p in order if p in protocols), []).append(backbone)
        return passes

    def _compute(
        self,
        protocols: tuple[Protocol, ...],
        backbones: Sequence[str],
        workers: int,
        stage: str,
        progress: Progress | None,
    ) -> None:
        from avbench.engine.runner import compute

        factories = {m.backbone_name: m.load_backbone for m in self.models.values() if m.backbone_name in backbones}
        tell = (lambda done, total, item: progress(stage, done, total, item)) if progress else None
        report = compute(
            self.manifest,
            protocols,
            factories,  # type: ignore[arg-type]
            self._store,
            workers=workers,
            progress=tell,
        )
        self._fingerprints |= report.fingerprints
        self.failures += [f for f in report.failures if f not in self.failures]
        self.warnings += [w for w in report.warnings if w not in self.warnings]
        self.counters.update(report.counters)

    def part(self, need: Need) -> Part:
        if need not in self._parts:
            protocol, clips = need.protocols[0], self.manifest.clips
            held = [
                s for s in self.manifest.segments if protocol.supports(s, clips[s.clip_id]) and s.id not in self._failed
            ]
            self._parts[need] = Part(
                segments=tuple(held),
                labels=np.array([s.offset_class for s in held], np.int64),
                videos=np.array([s.video_id for s in held], str),
                n_total=len(self.manifest.segments),
            )
        return self._parts[need]

    def streams(self, need: Need, model: str, hop_s: float) -> np.ndarray:
        """(N, W, 21) float32: what ``model`` says after each window, W being the largest count at this hop."""
        from avbench.baselines.trivial import TRIVIAL
        from avbench.engine.replay import gather, replay

        protocol, loaded, segments = need.protocol(hop_s), self.models[model], self.part(need).segments
        if (model, protocol) in self._streams:
            return self._streams[model, protocol]
        if loaded.load_backbone is None:
            streams = TRIVIAL[loaded.name][1](segments, self.manifest, protocol.iterations, self.seed)
        else:
            key = loaded.backbone_name, protocol
            if key not in self._gathered:
                fingerprint = self._fingerprints[loaded.backbone_name]
                self._gathered[key] = gather(self._store, self.manifest.clips, segments, protocol, fingerprint)
            logits, tokens = self._gathered[key]
            streams = replay(loaded.head, logits, tokens, hop_s)  # type: ignore[arg-type]
        self._streams[model, protocol] = streams
        return streams


def summary(counters: Mapping[str, int]) -> str:
    """In words: how many backbone forwards were spent, and how many were not."""
    computed, stored = counters.get(FORWARDS, 0), counters.get("snapshots_from_store", 0)
    return f"{computed} backbone forwards, {stored} snapshots from the store"
