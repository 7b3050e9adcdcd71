"""An exhibit as LaTeX, CSV and Markdown: measured and reported apart, each with its origin."""

from __future__ import annotations

import csv
import io
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from made_claims import claimed

from avbench.pages.formats import as_text
from avbench.paper.exhibits import MS, UNTIMED, Cell, Exhibit, with_latencies
from avbench.paper.write import csv_of_all, markdown, orderings, plain, tables, verdicts_for_a_terminal

OWN = "† a_b.py:Net & 50 % (yours)"
SIGNED = [(row, f"avb|streaming:1|n18|m:{m}|d:d|v0.1.0") for row, m in (("APA SparseSync", "1"), (OWN, "2"))]


@pytest.fixture
def exhibit() -> Exhibit:
    cells = [
        Cell("APA SparseSync", "mAP", 0.5, 0.4, 0.6, 4, 5, 0.62),
        Cell("APA SparseSync", MS, None, None, None, 4, 5, 18.5),
        Cell(OWN, "mAP", None, None, None, 4, 5, None),
        Cell(OWN, MS, None, None, None, 4, 5, None),
    ]
    return Exhibit(
        "table3",
        "Table 3: models",
        cells,
        [claimed("a > b", -0.2, -0.3, -0.1)],
        settings={"APA SparseSync": {"model": "sparsesync+apa"}, OWN: {"model": "x/a_b.py:Net"}},
        notes=["half of #1", UNTIMED],
        measured_on="synthsync test (procedural stand-in)",
        signatures=SIGNED,
        own=(OWN,),
    )


def test_measured_reported_and_verdicts_are_three_tables(exhibit: Exhibit) -> None:
    measured, reported, verdicts = tables(exhibit)
    assert measured.rows == [["APA SparseSync", "0.500 [0.400, 0.600]", "–"], [OWN, "–", "–"]]
    assert reported.rows == [["APA SparseSync", "0.620", "18.5"]]
    assert "reported by the paper" in reported.title
    assert "reported" not in measured.title
    assert verdicts.rows == [["a > b", "does not hold", "-0.200 [-0.300, -0.100]"]]
    latex = as_text(tables(exhibit), "latex")
    assert r"$\dagger$ a\_b.py:Net \& 50 \% (yours) & -- & -- \\" in latex
    assert latex.count(r"\toprule") == latex.count(r"\end{table}") == 3
    assert latex.count("n = 4 of 5 segments") == 6  # in each one's head, and in its caption or note
    assert latex.count("procedural stand-in") == 2
    page = markdown(exhibit)
    assert (
        "`avb|streaming:1|n18|m:*|d:d|v0.1.0`, with m: APA SparseSync `1`, † a\\_b.py:Net \\& 50 % (yours) `2`" in page
    )
    assert "0.62" not in page.split("**Reported by the paper**")[0]


def test_each_line_of_the_csv_has_its_own_signature(exhibit: Exhibit) -> None:
    categories = Exhibit(
        "table6",
        "T",
        [Cell("others", "Acc", 0.5, 0.4, 0.6, 1, 2, None), Cell(f"others, {OWN}", "Acc", 0.5, 0.4, 0.6, 1, 2, None)],
        signatures=[("StreamSync-LSTM", "avb|first"), (OWN, "avb|own")],
        own=(OWN,),
    )
    lines = list(csv.DictReader(io.StringIO(csv_of_all([exhibit, categories]))))
    assert [line["table"] for line in lines] == ["table3"] * 4 + ["table6"] * 2
    assert [line["signature"] for line in lines] == [SIGNED[0][1]] * 2 + [SIGNED[1][1]] * 2 + ["avb|first", "avb|own"]
    assert {line["version"] for line in lines} == {"0.1.0"}
    assert [line["n"] for line in lines] == ["4"] * 4 + ["1"] * 2
    assert lines[2]["value"] == ""
    assert [row for row in categories.rows if categories.is_own(row)] == [f"others, {OWN}"]


def test_milliseconds_come_into_the_table_that_was_written_before(exhibit: Exhibit) -> None:
    timed = {"p50_ms": 7.5, "n": 3, "device": "cpu", "threads": 1, "ratio_to_snapshot": 0.5, "unstable": True}
    filled = with_latencies(exhibit, {"x/a_b.py:Net": timed})
    found = {(c.row, c.column): c.value for c in filled.cells}
    assert found[OWN, MS] == 7.5
    assert found["APA SparseSync", MS] is None
    assert UNTIMED not in filled.notes
    assert any("0.50 (unstable)" in note for note in filled.notes)
    assert UNTIMED in exhibit.notes, "the exhibit that was written is left as it was"


def test_in_a_terminal_there_is_no_markup(exhibit: Exhibit) -> None:
    told = plain(exhibit)
    for sign in ("**", "|:--", "`", "\\*", "# "):
        assert sign not in told
    assert "measured on synthsync test (procedural stand-in); 95 % intervals over videos" in told
    assert any(line.split()[:3] == ["APA", "SparseSync", "0.500"] for line in told.splitlines())
    assert "does not hold" in told
    measured, reported = told.split("reported by the paper on RealSync")
    assert "0.620" not in measured
    assert "0.620" in reported
    assert told.splitlines()[-1] == (
        "signature avb|streaming:1|n18|m:*|d:d|v0.1.0 (m: of each row, in table3.json); avbench 0.1.0; "
        "n = 4 of 5 segments"
    )


def test_where_nothing_can_have_an_interval_it_is_said_once_and_nothing_is_judged(exhibit: Exhibit) -> None:
    exhibit.few = "one video: no intervals, nothing can be separated; use --limit 36 or more (6 videos)"
    for told in (plain(exhibit), markdown(exhibit), as_text(tables(exhibit)[:1], "md")):
        assert told.count(exhibit.few) == 1
        assert "95 %" not in told
        assert "does not hold" not in told
    assert "a > b" not in as_text(tables(exhibit), "latex")
    assert "0 orderings" in orderings([exhibit])
    assert verdicts_for_a_terminal([exhibit]) == ""
