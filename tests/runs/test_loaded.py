"""A run opened from its folder: lazily, checked, and as a table of segments."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import avbench
from avbench.engine.runner import Compute
from avbench.protocol.manifest import read_manifest
from avbench.protocol.rules import streaming
from avbench.results.predictions import write_predictions
from avbench.runs.evaluate import evaluate
from avbench.runs.loaded import load_run
from avbench.scoring.stats import Bootstrap
from avbench.types import UsageError

REPO = Path(__file__).resolve().parents[2]
COLUMNS = ["segment_id", "video_id", "category", "offset_s", "predicted_offset_s", "error_s"]


@pytest.fixture(scope="module")
def constant(clicks: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the model that always says "in sync"; read only."""
    folder = tmp_path_factory.mktemp("run")
    evaluate(
        "constant",
        data=str(clicks),
        protocol=streaming(iterations=3),
        out=folder,
        compute=Compute(folder / "store", 1),
        bootstrap=Bootstrap(20),
        reference_rows=False,
    )
    return folder


@pytest.fixture
def copy(constant: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(constant, tmp_path / "copy"))


def change(folder: Path, **changes: Any) -> None:
    document = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(document | changes))


def change_logits(folder: Path, logits: np.ndarray, **changes: Any) -> None:
    """Other predictions of the same segments, with their hash in run.json."""
    ids = load_run(folder).predictions.segment_ids
    sha256 = write_predictions(folder / "predictions.parquet", ids, logits)
    files = json.loads((folder / "run.json").read_text())["files"]
    change(folder, files=files | {"predictions": {"path": "predictions.parquet", "sha256": sha256}}, **changes)


def test_a_run_opens_from_its_folder_or_its_file(constant: Path, clicks: Path) -> None:
    segments = read_manifest(clicks).segments
    for path in (constant, str(constant), constant / "run.json"):
        run = avbench.load_run(path)
        assert run.folder == constant
        assert run.result.model.name == "constant"
        assert run.predictions.segment_ids == tuple(s.id for s in segments)
        assert run.predictions.logits.shape == (4, 3, 21)
        assert run.truth is not None
        assert run.truth.labels.tolist() == [s.offset_class for s in segments]


def test_one_row_a_segment(constant: Path, clicks: Path) -> None:
    frame = load_run(constant).frame()
    assert list(frame.columns) == COLUMNS
    expected = [[s.id, s.video_id, s.category, s.offset_s, 0.0, -s.offset_s] for s in read_manifest(clicks).segments]
    assert frame.values.tolist() == expected


def test_predictions_are_those_of_the_scored_iteration(copy: Path) -> None:
    logits = np.zeros((4, 3, 21), np.float32)
    for iteration, predicted in enumerate((0, 20, 10)):
        logits[:, iteration, predicted] = 1
    change_logits(copy, logits)
    assert load_run(copy).frame().predicted_offset_s.tolist() == [0.0] * 4  # the last
    document = json.loads((copy / "run.json").read_text())
    curve = [{"acc": {"value": value, "ci_low": None, "ci_high": None}} for value in (0.0, 0.75, 0.5)]
    change(copy, protocol=document["protocol"] | {"selection": "best_iter"}, curve=curve)
    frame = load_run(copy).frame()
    assert frame.predicted_offset_s.tolist() == [2.0] * 4  # the second has the best accuracy
    assert frame.error_s.tolist() == [2.8, 1.6] * 2, "decimals, as a person would write them"


def test_without_labels_only_the_predictions_are_known(copy: Path) -> None:
    files = json.loads((copy / "run.json").read_text())["files"]
    change(copy, files={"predictions": files["predictions"]})
    run = load_run(copy)
    assert run.truth is None
    frame = run.frame()
    assert frame.predicted_offset_s.tolist() == [0.0] * 4
    assert frame[["video_id", "category", "offset_s", "error_s"]].isna().all(axis=None)


def test_files_are_read_when_needed_and_checked(copy: Path) -> None:
    (copy / "segments.parquet").write_bytes(b"of another run")
    (copy / "predictions.parquet").unlink()
    run = load_run(copy)
    assert run.result.n_scored == 4
    with pytest.raises(UsageError, match="sha256 differs"):
        _ = run.truth
    with pytest.raises(UsageError, match=r"'predictions\.parquet' is missing"):
        run.frame()
    with pytest.raises(UsageError, match="cannot read"):
        load_run(copy / "nowhere")


def test_parts_that_do_not_belong_together_are_refused(copy: Path, tmp_path: Path) -> None:
    change_logits(copy, np.zeros((4, 2, 21), np.float32))
    with pytest.raises(UsageError, match="the predictions have 2 iterations, the protocol has 3"):
        _ = load_run(copy).predictions
    sha256 = write_predictions(copy / "predictions.parquet", ["stranger"], np.zeros((1, 3, 21), np.float32))
    files = json.loads((copy / "run.json").read_text())["files"]
    change(copy, files=files | {"predictions": {"path": "predictions.parquet", "sha256": sha256}})
    with pytest.raises(UsageError, match="segment stranger has no label"):
        load_run(copy).frame()


def test_the_example_of_the_readme(clicks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As printed, but for a model and data that take no time."""
    monkeypatch.chdir(tmp_path)
    section = (REPO / "README.md").read_text().partition("## From Python")[2]
    code = section.partition("```python\n")[2].partition("```")[0]
    quick = f'"oracle", data={str(clicks)!r}, protocol=avbench.streaming(iterations=2)'
    assert '"streamsync-trf", data="synthsync"' in code
    lines = code.replace('"streamsync-trf", data="synthsync"', quick).strip().splitlines()
    names: dict[str, Any] = {}
    exec("\n".join(lines[:-1]), names)
    assert eval(lines[-1], names)["acc"] == names["result"].scores["acc"].value == 1.0
    assert names["logits"].shape == (4, 2, 21)


def test_the_readmes_wide_table_is_that_of_its_first_result(clicks: Path, tmp_path: Path) -> None:
    readme = (REPO / "README.md").read_text()
    header, _, *lines = readme.partition("<!-- result.table -->\n```\n")[2].partition("\n```")[0].splitlines()
    found = {re.split(r" {2,}", line)[0]: line.split()[-8:] for line in lines}
    result = evaluate("constant", str(clicks), out=tmp_path / "r", hop_s=4, iterations=2, bootstrap=Bootstrap(20))
    assert header.split() == list(result.table(["acc", "map"]).columns)
    printed = readme.partition("## First result")[2].partition("```\n\nIt makes")[0]
    for label, (n, _, acc, _, _, ranked, _, _) in found.items():
        (line,) = re.findall(rf"^ *{re.escape(label)}  +(.+)$", printed, re.MULTILINE)
        cells = re.split(r" {2,}", line)
        assert [cells[i].split()[0] for i in (0, 2)] == [acc.removeprefix("0"), ranked.removeprefix("0")], label
        assert f"{n}/{n}" in cells
    assert len(found) == 11
