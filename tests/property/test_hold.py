"""A stream that holds its offset scores as the fixed-offset protocol with as many windows does, to the bit."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "crash"))

from lawstreams import fixed, of, under
from toy_run import ToyModel, ToyReader, toy_manifest

from avbench.engine.replay import gather, replay
from avbench.engine.runner import Compute, compute
from avbench.engine.store import SnapshotStore
from avbench.protocol.laws import draw_law
from avbench.protocol.manifest import Manifest
from avbench.protocol.offsets import draw_offset
from avbench.protocol.plan import key_rows
from avbench.protocol.rules import streaming
from avbench.registry.heads import head_class, plain_heads
from avbench.results.dynamic_truth import WindowTruth
from avbench.results.truth import Truth
from avbench.scoring import dynamic
from avbench.scoring.scorer import Scorer
from avbench.scoring.stats import Bootstrap
from avbench.ticks import ticks
from avbench.types import OffsetGrid

LONG = streaming(iterations=48)
STREAM = ticks(99)
SEED = 7
FEW = Bootstrap(n_resamples=50)


class Pair(NamedTuple):
    """The same clips and streams: under ``hold``, and at fixed offsets drawn with the same seed."""

    held: Manifest
    fixed: Manifest


@pytest.fixture(scope="module")
def pair() -> Pair:
    """12 streams in 4 clips, none of them muted."""
    clips = toy_manifest(4, 105, (0.0,))
    places = [replace(s, start=ticks(2), id=f"{s.clip_id} {k}") for s in clips.segments for k in range(8)]
    laws = {place.id: draw_law("hold", place.id, SEED, STREAM) for place in places}
    whole = [place for place in places if not laws[place.id].mutes]
    assert len(whole) >= 12
    grid = OffsetGrid()
    at = [fixed(place, draw_offset("uniform", place.id, SEED, grid)) for place in whole[:12]]
    return Pair(of(clips, [under(place, laws[place.id]) for place in whole[:12]]), of(clips, at))


def snapshots(manifest: Manifest, root: Path) -> tuple[np.ndarray, np.ndarray]:
    """(12, 48, 21) logits and (12, 48, 4) tokens, from a store of their own."""
    store = SnapshotStore(root)
    report = compute(manifest, [LONG], {"m": ToyModel(two_tower=True)}, Compute(store, 1), open_clip=ToyReader)
    assert not report.failures
    logits, tokens = gather(store, manifest.clips, manifest.segments, LONG, report.fingerprints["m"])
    assert tokens is not None
    return logits, tokens


def test_the_same_windows_are_asked_for_and_the_same_is_true(pair: Pair) -> None:
    assert all(segment.law for segment in pair.held.segments)
    assert pair.held.sha256 != pair.fixed.sha256  # they are other data all the same
    held, plain = (manifest.segments for manifest in pair)
    assert key_rows(LONG, held).tobytes() == key_rows(LONG, plain).tobytes()
    for clip_id, clip in pair.held.clips.items():
        supported = [[LONG.supports(s, clip) for s in some if s.clip_id == clip_id] for some in (held, plain)]
        assert supported[0] == supported[1]
    a, b = Truth.of(held), Truth.of(plain)
    assert a.segment_ids == b.segment_ids
    assert a.labels.tolist() == b.labels.tolist()
    assert len(set(a.labels.tolist())) > 5
    windows = [WindowTruth.of(some, LONG) for some in (held, plain)]
    assert windows[0].frame().equals(windows[1].frame())
    labels = np.array([[OffsetGrid().class_of(o) for o in row] for row in windows[0].offset_end_s])
    assert (labels == a.labels[:, None]).all()


def test_logits_and_scores_are_those_of_the_fixed_offsets_to_the_bit(pair: Pair, tmp_path: Path) -> None:
    held, plain = snapshots(pair.held, tmp_path / "held"), snapshots(pair.fixed, tmp_path / "fixed")
    shards = [sorted((tmp_path / name).rglob("*.safetensors")) for name in ("held", "fixed")]
    assert [path.read_bytes() for path in shards[0]] == [path.read_bytes() for path in shards[1]]
    assert [part.tobytes() for part in held] == [part.tobytes() for part in plain]
    truth, windows = Truth.of(pair.fixed.segments), WindowTruth.of(pair.held.segments, LONG)
    for name in plain_heads():
        ours, theirs = (replay(head_class(name)(), *found, 2.0) for found in (held, plain))
        assert ours.tobytes() == theirs.tobytes(), name
        scores = [
            Scorer(Truth.of(some), FEW)(logits)
            for some, logits in ((pair.held.segments, ours), (pair.fixed.segments, theirs))
        ]
        assert {m: s.model_dump() for m, s in scores[0].items()} == {m: s.model_dump() for m, s in scores[1].items()}
        price = dynamic.price(ours, theirs, windows, truth.clusters, FEW)
        assert {(d["difference"], d["ci_low"], d["ci_high"]) for d in price.values()} == {(0.0, 0.0, 0.0)}, name
        every_window = (theirs[:, 3:].argmax(axis=2) == truth.labels[:, None]).mean()
        found = dynamic.score(ours, windows, videos=truth.clusters, bootstrap=Bootstrap(0))
        assert found["tracked_acc"]["value"] == every_window
        assert (found["n_changes"], found["recovery"]) == (0, [])
