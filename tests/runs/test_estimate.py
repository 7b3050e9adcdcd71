"""The estimate counts what a run then does, and says where each cost comes from."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "crash"))

from toy_run import PROTOCOL, ToyModel, open_toy, toy_manifest

from avbench.engine.runner import Compute, compute
from avbench.protocol.plan import plan, shares
from avbench.protocol.rules import streaming
from avbench.runs.estimate import (
    Model,
    Time,
    equal_clips,
    estimate,
    in_bytes,
    in_time,
    model_of,
    render,
    unit_costs,
    work_of,
)
from avbench.types import UsageError

FULL = "full-sparsesync"


def time_on(name: str, model: Model, **options: Any) -> Time:
    work = work_of(equal_clips(300, 10), streaming(), **options).times(612)
    return next(t for t in estimate("", work, streaming(), model).times if t.machine == name)


def test_the_counts_are_those_of_the_run(tmp_path: Path) -> None:
    manifest = toy_manifest(3, 14, (0.0, -0.8, 1.0, 1.0))
    work = work_of(manifest, PROTOCOL)
    maker = {"m": partial(ToyModel, 1, 16, True)}
    report = compute(manifest, [PROTOCOL], maker, Compute(tmp_path, 1), open_clip=open_toy)
    assert not report.failures
    counters = report.counters
    assert work.snapshots == counters["snapshots_computed"]
    assert (work.pictures, work.sounds) == (counters["picture_windows_encoded"], counters["sound_windows_encoded"])
    assert work.pictures < work.snapshots
    assert work.sounds < work.snapshots, "two segments share an offset"
    assert round(work.decoded_s * 25) == counters["frames_decoded"]
    assert (work.clips, work.segments, work.too_short) == (3, 12, 0)
    files = [path for path in tmp_path.glob("*/*") if path.is_file()]
    found = estimate("toy", work, PROTOCOL, Model("m", "", "none", True, 4, 16))
    assert len(files) == found.store_files
    assert sum(path.stat().st_size for path in files) == pytest.approx(found.store_bytes, rel=0.02)


def test_the_largest_share_is_that_of_the_plan() -> None:
    manifest = toy_manifest(5)
    planned = plan(manifest.segments, manifest.clips, [PROTOCOL])
    loads = [sum(len(planned.keys[c]) for c in share) for share in shares(planned, 3)]
    work = work_of(manifest, PROTOCOL, 3)
    assert work.largest_share == pytest.approx(max(loads) * 3 / sum(loads))
    assert work.times(1).largest_share == 3, "two devices have nothing to do"
    alike = work_of(equal_clips(300, 10), PROTOCOL, 64).times(612)
    assert alike.largest_share == pytest.approx(10 / (612 / 64)), "some device has ten clips"


def test_equal_clips_are_cut_as_the_field_does() -> None:
    manifest = equal_clips(300, 10)
    work = work_of(manifest, streaming())
    assert (len(manifest.segments), work.segments) == (29, 26), "39 s and 2 s of offset behind the last start"
    assert work.snapshots == work.head_steps == 26 * 18
    assert work.pictures == len({10 * k + 2 * i for k in range(1, 27) for i in range(18)})
    with pytest.raises(UsageError, match="at most 300 s"):
        equal_clips(301, 10)
    with pytest.raises(UsageError, match=r"multiples of 0\.04 s"):
        equal_clips(30, 0.01)


def test_machines_are_not_mixed_and_what_was_not_measured_is_named() -> None:
    model = model_of(FULL)
    here, h100 = time_on("CPU core, measured", model), time_on("NVIDIA H100, reported", model)
    assert not here.reported
    assert here.leaves_out == []
    assert here.sum_s == pytest.approx(sum(part or 0 for part in here.parts_s.values()))
    assert h100.reported
    assert h100.leaves_out == ["decoding"], "no figure of another machine stands in"
    assert h100.whole_windows
    n = work_of(equal_clips(300, 10), streaming()).snapshots * 612
    cost = next(m for m in unit_costs()["machines"] if m["name"] == h100.machine)["models"][FULL]["window_s"]
    assert h100.sum_s == pytest.approx(n * cost)
    shared = time_on("NVIDIA H100, reported", model, devices=64)
    assert shared.sum_s == pytest.approx(h100.sum_s)
    assert h100.elapsed_s / 64 < shared.elapsed_s < h100.elapsed_s / 60
    never = time_on("NVIDIA H100, reported", model_of("full-synchformer"))
    assert (never.sum_s, never.leaves_out) == (0, ["decoding", "windows"])


def test_every_cost_says_where_it_is_from() -> None:
    costs = unit_costs()
    for machine in costs["machines"]:
        assert machine["command"]
        assert machine["reported"] == ("reported" in machine["name"]) == ("baselines/README.md" in machine["what"])
        assert set(machine["models"]) <= set(costs["models"])
    text = (Path(__file__).parents[2] / "baselines" / "README.md").read_text()
    for quoted in ("| SparseSync, a window | 3,040", "| 23.1 |", "| Synchformer, a window | 46,500 |"):
        assert quoted in text


def test_models_by_name() -> None:
    assert model_of("sparsesync.vggsound+apa")[1:3] == (FULL, "apa")
    assert model_of("streamsync-lstm")[1:3] == ("sparsesync", "streamsync-lstm")
    xcorr = model_of("xcorr+apa")
    assert (xcorr.costs, xcorr.two_tower, xcorr.token_dim) == ("", True, None)
    with pytest.raises(UsageError, match="reads no media"):
        model_of("uniform")
    with pytest.raises(UsageError):
        model_of("nosuch")
    mini = model_of("sparsesync")
    from avbench.registry.names import load_model

    backbone = load_model("sparsesync").backbone
    assert backbone is not None
    assert (mini.two_tower, mini.token_dim, mini.pixels) == (True, backbone.token_dim, backbone.frontend.size)


def test_the_text_has_a_dash_for_what_is_unknown() -> None:
    text = render(estimate("x", work_of(toy_manifest(), PROTOCOL), PROTOCOL, model_of("xcorr")))
    row = next(line for line in text.splitlines() if line.startswith("NVIDIA H100, reported  "))
    assert row.split()[3:9] == ["-", "-", "-", "-", "0", "s"]
    assert row.endswith("decoding, the model")
    assert [in_time(x) for x in (None, 3.14, 300, 8000, 8e5, 4e9)] == [
        "-",
        "3.14 s",
        "5 min",
        "2.22 h",
        "9.26 d",
        "127 years",
    ]
    assert [in_bytes(x) for x in (12, 1.5e3, 2e12)] == ["12 bytes", "1.5 kB", "2 TB"]


def test_a_plan_of_synthetic_data_makes_no_clips(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from avbench.cli import main
    from avbench.data import synthsync

    monkeypatch.setattr(synthsync, "ensure", lambda *a, **k: pytest.fail("clips were made"))
    assert main(["plan", "--data", "synthsync", "--model", "sparsesync"]) == 0
    assert "168" in capsys.readouterr().out
