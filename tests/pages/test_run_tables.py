"""The table of a run for a paper says what is missing and why."""

from __future__ import annotations

from pathlib import Path

import pytest

from avbench.pages.formats import UNDEFINED, to_latex
from avbench.pages.run_tables import run_csv, run_table
from avbench.protocol.rules import streaming
from avbench.results.run import Failure, RunResult, Score
from avbench.runs.evaluate import evaluate
from avbench.scoring.stats import Bootstrap


@pytest.fixture(scope="module")
def result(clicks: Path, tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    folder = tmp_path_factory.mktemp("run") / "out"
    protocol, boot = streaming(2.0, 2), Bootstrap(20)
    return evaluate("uniform", data=str(clicks), protocol=protocol, out=folder, bootstrap=boot, reference_rows=True)


def test_rows_are_the_model_and_its_references_with_their_n(result: RunResult) -> None:
    table = run_table(result, ["acc", "map"])
    assert table.headers == ["", "Acc", "mAP", "n"]
    assert [row[0] for row in table.rows] == ["uniform", *(row.label for row in result.rows)]
    assert {row[-1] for row in table.rows} == {"4/4"}
    assert table.origin.in_words() == f"signature {result.signature}; avbench 0.1.0; n = 4 of 4 segments"
    assert table.title == "uniform on clicks test (click and flash), streaming protocol, 2 windows, hop 2 s"
    assert run_csv(result).splitlines()[0].endswith("metric,value,ci_low,ci_high,signature,version")


def test_what_failed_what_is_random_and_what_is_hidden_is_said(result: RunResult) -> None:
    failure = Failure(segment_id="s_1", clip_id="c", reason="r")
    broken = result.model_copy(
        update={
            "incomplete": True,
            "failures": [failure],
            "n_scored": 3,
            "unsupported": ["s_2"],
            "model": result.model.model_copy(update={"name": "my_net.py:A_B & 50 %", "random_weights": 0}),
            "data": result.data.model_copy(update={"labels": "hidden"}),
            "scores": dict.fromkeys(result.scores, Score(value=None)),
            "rows": [],
        }
    )
    table = run_table(broken)
    assert [list(row) for row in table.rows] == [["my_net.py:A_B & 50 % (RANDOM WEIGHTS)", *[UNDEFINED] * 6, "3/4"]]
    assert table.notes[0] == "INCOMPLETE: 1 of 4 segments failed and are not scored."
    assert "hidden: nothing is scored" in " ".join(table.notes)
    assert "1 segment is too short" in " ".join(table.notes)
    latex = to_latex(table)
    assert r"my\_net.py:A\_B \& 50 \% (RANDOM WEIGHTS) & -- & -- & -- & -- & -- & -- & 3/4 \\" in latex
    assert "n = 3 of 4 segments" in latex
