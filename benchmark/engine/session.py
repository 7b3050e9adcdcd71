"""One evaluation's data, models and snapshots."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from avbench.protocol.rules import Protocol
from avbench.system.progress import Progress
from avbench.ticks import seconds
from avbench.types import SegmentRecord, SnapshotPredictor, UsageError

if TYPE_CHECKING:
    from avbench.engine.store import SnapshotStore
    from avbench.protocol.manifest import Manifest


class Snapshots:
    """The stored snapshots of some backbones on the supported segments, and what it took to get them."""

    def __init__(
        self, manifest: Manifest, supported: Sequence[SegmentRecord], protocol: Protocol, workers: int, device: str
    ) -> None:
        self.manifest, self.supported, self.protocol = manifest, supported, protocol
        self.workers, self.device = workers, device
        self.store: SnapshotStore | None = None
        self.failures: list[Any] = []
        self.warnings: list[str] = []
        self.counters: dict[str, int] = {}
        self.ms_per_step: float | None = None
        self._fingerprints: dict[str, str] = {}
        self._factories: dict[str, Callable[[], SnapshotPredictor]] = {}
        self._gathered: dict[str, tuple[np.ndarray, np.ndarray | None]] = {}

    def need(self, name: str, backbone: SnapshotPredictor, factory: Callable[[], SnapshotPredictor] | None) -> None:
        """Ask for a backbone; the first one asked for is the model that is evaluated."""
        from avbench.engine.fingerprint import model_fingerprint

        assert factory is not None
        self._fingerprints[name] = model_fingerprint(backbone)
        self._factories[name] = factory

    def fingerprint(self, name: str) -> str:
        """Of a backbone asked for; a trivial model has none and is its name."""
        return self._fingerprints.get(name, name)

    def compute(self, store: SnapshotStore, batch_size: int, progress: Progress | None) -> None:
        """Fill the store with what it lacks: one pass over the clips for all backbones."""
        from avbench.engine.runner import compute

        self.store = store
        tell = (lambda done, total, item: progress("decoding and snapshots", done, total, item)) if progress else None
        report = compute(
            replace(self.manifest, segments=tuple(self.supported)),
            [self.protocol],
            self._factories,
            store,
            workers=self.workers,
            batch_size=batch_size,
            device=self.device,
            progress=tell,
        )
        for name, fingerprint in report.fingerprints.items():
            if fingerprint != self._fingerprints[name]:
                raise UsageError(f"model {name} is another one each time it is made (unseeded weights?)")
        self.failures, self.warnings = report.failures, report.warnings
        self.counters = dict(sorted(report.counters.items()))
        self.ms_per_step = report.ms_per_snapshot(next(iter(self._factories)))

    @property
    def scored(self) -> list[SegmentRecord]:
        """The supported segments that did not fail, in the manifest's order."""
        failed = {failure.segment_id for failure in self.failures}
        return [s for s in self.supported if s.id not in failed]

    def replay(self, backbone: str, head: Any) -> np.ndarray:
        """Streaming predictions (N, W, 21) float32 of ``head`` on the scored segments."""
        from avbench.engine.replay import gather, replay

        assert self.store is not None
        if backbone not in self._gathered:
            fingerprint = self._fingerprints[backbone]
            self._gathered[backbone] = gather(self.store, self.manifest.clips, self.scored, self.protocol, fingerprint)
        return replay(head, *self._gathered[backbone], seconds(self.protocol.hop))
