"""What a result shows in Python: a few lines, the printed table, the table of a notebook."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest

from avbench.pages.run_text import render
from avbench.results.run import RunResult, read_run
from avbench.runs.evaluate import evaluate
from avbench.runs.loaded import load_run
from avbench.runs.shown import Evaluation
from avbench.scoring.stats import Bootstrap


@pytest.fixture(scope="module")
def result(clicks: Path, tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    """Of the model that always says "in sync"."""
    out = tmp_path_factory.mktemp("shown") / "run"
    return evaluate("constant", str(clicks), out=out, hop_s=4, iterations=2, bootstrap=Bootstrap(20))


def changed(result: Evaluation, **changes: Any) -> Evaluation:
    return Evaluation.of(RunResult(**(result.model_dump() | changes)), Path("there"))


def test_print_shows_the_table_of_the_command_and_no_next_lines(result: Evaluation) -> None:
    assert result.folder is not None
    printed = render(result, result.folder).splitlines()
    n_next = next(i for i, line in enumerate(printed) if line.startswith("next "))
    assert str(result).splitlines() == printed[:n_next]
    assert "Acc±1" in str(result)
    assert str(load_run(result.folder).result) == str(result)


def test_one_class_alone_is_said_to_leave_scores_undefined(result: Evaluation) -> None:
    said = "; mAP and ROC-AUC are undefined with one class alone"
    assert f"20 of 21 classes have no segment; means over classes leave them out{said}" in str(
        changed(result, absent_classes=list(range(20)))
    )
    assert said not in str(changed(result, absent_classes=list(range(19))))


def test_repr_is_a_few_lines(result: Evaluation) -> None:
    first, signature, folder = repr(result).splitlines()
    assert first.startswith("Evaluation(constant on clicks test, 4 of 4 segments scored: acc 0.00, map 0.50, ")
    assert "mae_s" in first
    assert "±" not in first, "two videos are too few for an interval"
    assert signature.strip() == f"signature {result.signature}"
    assert folder.strip() == f"folder {result.folder})"
    assert len(repr([result, result])) < 1500


def test_a_notebook_shows_the_table_and_obeys_no_name(result: Evaluation) -> None:
    html = result._repr_html_()
    assert html.count("<tr>") == 1 + 1 + len(result.rows)
    assert '<th scope="row">always in sync</th>' not in html, "the row of the model itself"
    assert '<th scope="row">constant</th>' in html
    named = changed(result, model=result.model.model_dump() | {"name": "<script>alert(1)</script>"})
    assert "<script" not in named._repr_html_()
    assert "&lt;script&gt;" in named._repr_html_()


def test_what_was_not_scored_is_said_in_place_of_a_table(result: Evaluation) -> None:
    failure = {"segment_id": "s", "clip_id": "a", "reason": "model <b> broke off"}
    nothing = changed(result, n_scored=0, failures=[failure] * 4, incomplete=True)
    assert "nothing was scored: 4 of 4 segments failed" in str(nothing)
    assert "INCOMPLETE" in repr(nothing)
    assert "model &lt;b&gt; broke off" in nothing._repr_html_()
    hidden = changed(result, data=result.data.model_dump() | {"labels": "hidden"})
    assert "maintainers score it" in str(hidden)
    assert "<table>" not in hidden._repr_html_()


def test_it_is_the_result_that_was_written(result: Evaluation) -> None:
    assert result.folder is not None
    written = read_run(result.folder)
    assert type(written) is RunResult
    assert result == written
    assert written == result
    assert result.to_json() == (result.folder / "run.json").read_text(encoding="utf-8")
    again = pickle.loads(pickle.dumps(result))  # as a user's process pool would
    assert (again, again.folder) == (result, result.folder)
    assert result != changed(result, seed=7)
