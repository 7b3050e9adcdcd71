"""One session: what is needed is computed once, gathered once, and failures are left out for every model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from avbench.baselines.family import Family
from avbench.engine import job, session
from avbench.engine.runner import Compute
from avbench.engine.session import Session
from avbench.protocol.rules import streaming
from avbench.registry.loading import load_all
from avbench.registry.names import resolve
from avbench.runs.evaluate import evaluate
from avbench.scoring.stats import Bootstrap
from avbench.types import AvbenchError

ONE, TWO = streaming(iterations=1), streaming(iterations=2)


def models(*names: str) -> list[Any]:
    return load_all([resolve(name) for name in names])


def counted(monkeypatch: pytest.MonkeyPatch, module: Any, name: str) -> list[tuple[Any, ...]]:
    """The arguments of every call of a module's function from now on."""
    calls: list[tuple[Any, ...]] = []
    real = getattr(module, name)
    monkeypatch.setattr(module, name, lambda *args, **named: calls.append(args) or real(*args, **named))
    return calls


def test_a_backbone_is_fingerprinted_once_and_its_snapshots_are_gathered_once(
    clicks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fingerprints = counted(monkeypatch, job, "model_fingerprint")
    gathered = counted(monkeypatch, session, "gather")
    plain, averaged = models("xcorr", "xcorr+apa")
    assert plain.backbone is averaged.backbone  # one in memory
    opened = Session.open(str(clicks), how=Compute(tmp_path / "store", 1))
    for model in (plain, averaged):
        opened.need(model, TWO)
    opened.compute()
    streams = [opened.predictions(model, TWO) for model in (plain, averaged, plain)]
    assert len(fingerprints) == 1
    assert len(gathered) == 1
    assert streams[0].shape == (len(opened.truth(TWO)), 2, 21)
    np.testing.assert_array_equal(streams[0], streams[2])
    assert not np.array_equal(streams[0], streams[1])
    assert opened.counters["snapshots_computed"] == 2 * len(streams[0])


def test_backbones_that_need_the_same_share_a_pass_and_others_do_not(
    make_clicks: Callable[..., Path], tmp_path: Path
) -> None:
    stages: list[str] = []
    xcorr, net = models("xcorr", "sparsesync")
    data = str(make_clicks(duration_s=20, offsets_s=(0.4,)))
    for needed, n_passes in (((ONE, ONE), 1), ((ONE, TWO), 2)):
        stages.clear()
        opened = Session.open(
            data, how=Compute(tmp_path / str(n_passes), 1), progress=lambda stage, *_: stages.append(stage)
        )
        for model, protocol in zip((xcorr, net), needed, strict=True):
            opened.need(model, protocol)
        opened.compute("looking")
        told = [f"looking, pass {n} of 2" for n in (1, 2)] if n_passes == 2 else ["looking"]
        assert list(dict.fromkeys(stages)) == told
        assert opened.counters["clips_decoded"] == n_passes * len(opened.manifest.clips)


def test_a_model_that_guesses_needs_no_store(clicks: Path, tmp_path: Path) -> None:
    (constant,) = models("constant")
    opened = Session.open(str(clicks), how=Compute(tmp_path / "store"))
    opened.need(constant, ONE)
    opened.compute()
    assert (opened.predictions(constant, ONE).argmax(-1) == 10).all()
    assert opened.fingerprint(constant) == "constant"
    assert not (tmp_path / "store").exists()


def test_a_clip_that_cannot_be_read_is_left_out_for_every_model(
    make_clicks: Callable[..., Path], tmp_path: Path
) -> None:
    folder = make_clicks(duration_s=20, offsets_s=(0.4, -0.8))
    opened = Session.open(str(folder), how=Compute(tmp_path / "store", 1))
    broken = next(iter(opened.manifest.clips.values()))
    opened.manifest.clip_path(broken).write_bytes(b"rubbish")
    xcorr, constant = models("xcorr", "constant")
    for model in (xcorr, constant):
        opened.need(model, ONE)
    opened.compute()
    lost = {s.id for s in opened.manifest.segments if s.clip_id == broken.id}
    assert lost
    assert {failure.segment_id for failure in opened.failures} == lost
    left = opened.truth(ONE)
    assert not lost & set(left.segment_ids)
    assert left.n_total == len(opened.manifest.segments)
    for model in (xcorr, constant):
        assert len(opened.predictions(model, ONE)) == len(left)
    with pytest.raises(AvbenchError, match=rf"{len(lost)} segments failed, first clip {broken.id}: .*; all are needed"):
        opened.refuse_failures("; all are needed")


def test_a_run_builds_each_backbone_once(clicks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[str] = []
    real = Family.mini_class

    def noted(family: Family) -> Callable[..., Any]:
        cls = real(family)
        return lambda *args: built.append(cls.__name__) or cls(*args)

    # not the class's __new__: CPython cannot take that back, and later models with arguments would break
    monkeypatch.setattr(Family, "mini_class", noted)
    how, few = Compute(tmp_path / "store", 1), Bootstrap(n_resamples=10)
    evaluate("sparsesync+apa", str(clicks), protocol=ONE, out=tmp_path / "out", compute=how, bootstrap=few)
    assert sorted(built) == ["MiniSparseSync", "Xcorr"]
