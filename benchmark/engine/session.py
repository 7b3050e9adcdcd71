"""One object from data to streaming predictions: it plans, computes what the store lacks, gathers and replays.

``evaluate``, ``sweep``, ``compare``, the paper's tables, Table 5 and the training of heads all use it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any
from typing import Protocol as Interface

import numpy as np

from avbench.data.on_demand import media_of
from avbench.data.opening import read_data
from avbench.engine.job import Backbone
from avbench.engine.replay import alarms, gather, replay
from avbench.engine.runner import Compute, compute, default_workers, unfinished
from avbench.engine.store import SnapshotStore
from avbench.protocol.manifest import Manifest
from avbench.protocol.rules import Protocol
from avbench.results.run import Failure, Spent
from avbench.results.truth import Truth
from avbench.system.progress import Progress, of_stage
from avbench.ticks import seconds
from avbench.types import AvbenchError, SegmentRecord, SnapshotPredictor, StreamingHead

STAGE = "decoding and snapshots"
# (segments, manifest, protocol, seed) -> logits (N, W, 21) float32 of a model that reads no media
Guess = Callable[[Sequence[SegmentRecord], Manifest, Protocol, int], np.ndarray]


class Model(Interface):
    """What a session needs of a loaded model; :class:`avbench.registry.StreamingModel` is the real one."""

    @property
    def name(self) -> str: ...
    @property
    def backbone_name(self) -> str: ...
    @property
    def backbone(self) -> SnapshotPredictor | None: ...
    @property
    def load_backbone(self) -> Callable[[], SnapshotPredictor] | None: ...
    @property
    def head(self) -> StreamingHead | None: ...
    @property
    def guess(self) -> Guess | None: ...


class Session:
    """Models on one split. Say what is needed, compute it, then ask for predictions as often as you like::

        session = Session.open("synthsync")
        session.need(model, protocol)
        session.compute()
        streams = session.predictions(model, protocol)  # (N, W, 21), of session.segments(protocol)

    Every backbone is fingerprinted once, each clip is decoded once for all backbones that need the same protocols, and
    every snapshot is gathered once. A segment that failed for one model is left out for all of them and listed in
    ``failures``. ``warnings``, ``counters`` and ``spent`` (of :class:`~avbench.engine.runner.RunReport`) add up over
    all passes. ``seed``: of models that guess.
    """

    def __init__(
        self, manifest: Manifest, how: Compute | None = None, seed: int = 0, progress: Progress | None = None
    ) -> None:
        self.manifest, self.how, self.seed, self.progress = manifest, how or Compute(), seed, progress
        self.media = media_of(manifest, self.how.keep_bytes) if self.how.on_demand else None
        self.failures: list[Failure] = []
        self.warnings: list[str] = []
        self.counters: Counter[str] = Counter()
        self.spent = Spent()
        self.ms_per_snapshot: dict[str, float | None] = {}
        self._backbones: dict[str, Backbone] = {}
        self._needed: dict[str, dict[Protocol, None]] = {}  # backbone -> its protocols, in the order asked for
        self._segments: dict[Protocol, tuple[SegmentRecord, ...]] = {}
        self._gathered: dict[tuple[str, Protocol], tuple[np.ndarray, np.ndarray | None]] = {}
        self._predictions: dict[tuple[str, Protocol], np.ndarray] = {}
        self._alarms: dict[tuple[str, Protocol], np.ndarray | None] = {}

    @classmethod
    def open(
        cls,
        data: str,
        split: str | None = "test",
        limit: int | None = None,
        how: Compute | None = None,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> Session:
        """A session on any ``--data``; errors as in :func:`avbench.data.opening.read_data`."""
        on_demand = how is not None and how.on_demand
        return cls(read_data(data, split, progress, limit, on_demand), how, seed, progress)

    def need(self, model: Model, *protocols: Protocol) -> None:
        """Ask for the snapshots that ``model`` needs under ``protocols``; a model that guesses needs none.
        ``UsageError``: the data have other offset classes than a protocol."""
        for protocol in protocols:
            self.manifest.refuse_other_classes(protocol.grid)
        if model.backbone is None:
            return
        name = model.backbone_name
        if name not in self._backbones:
            self._backbones[name] = Backbone.loaded(model.backbone, model.load_backbone)
        self._needed.setdefault(name, {}).update(dict.fromkeys(protocols))

    def fingerprint(self, model: Model) -> str:
        """64 hex digits that identify the backbone of a model passed to ``need``; for a model that guesses, its
        backbone's name."""
        backbone = self._backbones.get(model.backbone_name)
        return backbone.fingerprint if backbone else model.backbone_name

    @cached_property
    def store(self) -> SnapshotStore:
        """Opened when first needed."""
        return self.how.opened()

    @property
    def workers(self) -> int:
        """How many processes compute; with media on demand no more than have room for a clip."""
        workers = self.how.workers or default_workers(self._backbones.values(), self.how.device)
        return min(workers, (self.media and self.media.at_once) or workers)

    def compute(self, stage: str = STAGE) -> None:
        """Compute the snapshots that the store lacks. Errors as in :func:`avbench.engine.runner.compute`."""
        passes = self._passes()
        for number, (protocols, backbones) in enumerate(passes, 1):
            self._pass(protocols, backbones, stage + (f", pass {number} of {len(passes)}" if len(passes) > 1 else ""))
        for cache in (self._segments, self._gathered, self._predictions, self._alarms):  # segments may have failed
            cache.clear()

    def unfinished(self) -> list[str]:
        """The clips of which the store lacks snapshots that are needed, of all shares."""
        found = (unfinished(self.manifest, ps, backbones.values(), self.store) for ps, backbones in self._passes())
        return list(dict.fromkeys(clip_id for some in found for clip_id in some))

    def _passes(self) -> list[tuple[tuple[Protocol, ...], dict[str, Backbone]]]:
        """Protocols, and the backbones that need just these: they share one decoding."""
        passes: dict[frozenset[Protocol], tuple[tuple[Protocol, ...], dict[str, Backbone]]] = {}
        for name, needed in self._needed.items():
            _, sharing = passes.setdefault(frozenset(needed), (tuple(needed), {}))
            sharing[name] = self._backbones[name]
        return list(passes.values())

    def _pass(self, protocols: Sequence[Protocol], backbones: Mapping[str, Backbone], stage: str) -> None:
        how = self.how.using(self.store, self.workers)
        told = of_stage(self.progress, stage)
        report = compute(self.manifest, protocols, backbones, how, open_clip=self.media, progress=told)
        self.failures = list(dict.fromkeys([*self.failures, *report.failures]))  # each once, in order
        self.warnings = list(dict.fromkeys([*self.warnings, *map(self.manifest.by_name, report.warnings)]))
        self.counters.update(report.counters)
        self.spent += report.spent
        self.ms_per_snapshot |= {name: report.ms_per_snapshot(name) for name in backbones}

    def refuse_failures(self, why: str) -> None:
        """``AvbenchError`` naming the first failure, if there is one; ``why`` ends the message."""
        if self.failures:
            first = self.failures[0]
            raise AvbenchError(f"{len(self.failures)} segments failed, first clip {first.clip_id}: {first.reason}{why}")

    def supported(self, protocol: Protocol) -> list[SegmentRecord]:
        """The segments that are long enough for ``protocol``, failed ones included, in the manifest's order.
        ``UsageError``: the data have other offset classes than it."""
        self.manifest.refuse_other_classes(protocol.grid)
        clips = self.manifest.clips
        return [s for s in self.manifest.segments if protocol.supports(s, clips[s.clip_id])]

    def segments(self, protocol: Protocol) -> tuple[SegmentRecord, ...]:
        """The supported segments that did not fail, in the manifest's order: predictions have one row for each."""
        if protocol not in self._segments:
            failed = {failure.segment_id for failure in self.failures}
            self._segments[protocol] = tuple(s for s in self.supported(protocol) if s.id not in failed)
        return self._segments[protocol]

    def truth(self, protocol: Protocol | None = None) -> Truth:
        """True classes and groups of ``segments(protocol)``; of all segments if ``protocol`` is None. Where an offset
        changes, the class is that at the end of the last window."""
        segments = self.manifest.segments if protocol is None else self.segments(protocol)
        return Truth.of(segments, len(self.manifest.segments), protocol)

    def snapshots(self, backbone_name: str, protocol: Protocol) -> tuple[np.ndarray, np.ndarray | None]:
        """Stored logits (N, W, 21) float32 and tokens (N, W, D) float32 (None without tokens) of a backbone."""
        key = backbone_name, protocol
        if key not in self._gathered:
            fingerprint = self._backbones[backbone_name].fingerprint
            self._gathered[key] = gather(
                self.store, self.manifest.clips, self.segments(protocol), protocol, fingerprint
            )
        return self._gathered[key]

    def replay(self, backbone_name: str, head: Any, protocol: Protocol) -> np.ndarray:
        """Streaming predictions (N, W, 21) float32 of any ``head`` on the snapshots of a backbone."""
        return replay(head, *self.snapshots(backbone_name, protocol), seconds(protocol.hop))

    def alarms(self, model: Model, protocol: Protocol) -> np.ndarray | None:
        """The model's own probabilities of being out of tolerance, (N, W) float32; None if its head has none."""
        if model.backbone is None or model.head is None or not self.segments(protocol):
            return None
        key = model.name, protocol
        if key not in self._alarms:
            snapshots = self.snapshots(model.backbone_name, protocol)
            self._alarms[key] = alarms(model.head, *snapshots, seconds(protocol.hop))
        return self._alarms[key]

    def predictions(self, model: Model, protocol: Protocol) -> np.ndarray:
        """Streaming predictions (N, W, 21) float32 of a model: its logits after each window."""
        key = model.name, protocol
        if key not in self._predictions:
            segments = self.segments(protocol)
            if not segments:
                return np.empty((0, protocol.iterations, protocol.grid.n_classes), np.float32)
            if model.guess is not None:
                self._predictions[key] = model.guess(segments, self.manifest, protocol, self.seed)
            else:
                self._predictions[key] = self.replay(model.backbone_name, model.head, protocol)
        return self._predictions[key]
