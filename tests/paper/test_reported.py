"""The paper's numbers: all there, once, and as the references have them."""

from __future__ import annotations

import math
import re
from collections import Counter
from pathlib import Path

import pytest

from avbench.paper import reported
from avbench.paper.exhibits import NAMES, STREAMING_ROWS, TABLE3_ROWS, TABLE4_WINDOWS
from avbench.paper.records import TABLE5_ROWS
from avbench.scoring.metrics import METRICS

REFERENCE = Path(__file__).parents[3] / "shared" / "reference" / "protocol.md"
WORDS = REFERENCE.with_name("dynamic.md")
SCORES = ("Acc", "Acc±1", "ROC-AUC", "mAP")
CHANNELS = ("ABC", "CBS", "CNN", "NBC", "GolfsHome", "MLB", "NFL", "NHL", "WTA")


def grid(table: str) -> dict[tuple[str, str], reported.Reported]:
    return {(c.row, c.column): c for c in reported.of_table(table)}


def test_no_cell_is_written_twice_and_every_value_is_a_number() -> None:
    assert max(Counter((c.table, c.row, c.column) for c in reported.cells()).values()) == 1
    assert all(math.isfinite(c.value) and c.table in NAMES for c in reported.cells())
    assert {c.metric for c in reported.cells()} <= {*METRICS, "latency_ms", "count"}


def test_table3_is_complete_with_its_selection_rules() -> None:
    found = grid("table3")
    assert len(found) == 7 * 5
    assert {row for row, _ in found} <= set(TABLE3_ROWS)
    for (row, column), c in found.items():
        assert (c.hop_s, c.windows) == (2.0, 18)
        if column != "ms":
            assert c.selection == TABLE3_ROWS[row][1] == ("best_iter" if row.endswith("*") else "final")
            assert c.iteration == (None if row.endswith("*") else 18)
        else:
            assert "L4" in c.where


def test_table4_is_complete() -> None:
    found = grid("table4")
    assert set(found) == {(r, str(n)) for r in ("APA SparseSync", "StreamSync-Trf") for n in TABLE4_WINDOWS}
    assert {row for row, _ in found} <= set(STREAMING_ROWS)
    assert all(c.windows == c.iteration == int(c.column) and c.hop_s == 2.0 for c in found.values())


def test_table5_is_complete_with_k_and_h() -> None:
    found = grid("table5")
    assert set(found) == {(row, column) for row in TABLE5_ROWS for column in SCORES}
    for (row, _), c in found.items():
        assert row.startswith(f"K = {c.gradient_windows}, H = {c.training_windows}")


def test_table6_and_table2_are_complete_and_add_up() -> None:
    rows = ("talking heads", "voice-overs", "others", "overall")
    assert set(grid("table6")) == {(row, column) for row in rows for column in SCORES}
    channels = grid("table2")
    for column in ("videos", "clips"):
        assert sum(channels[name, column].value for name in CHANNELS) == channels["all", column].value
    # Table 6's model is Table 3's, overall
    for column in SCORES:
        assert grid("table6")["overall", column].value == grid("table3")["StreamSync-LSTM", column].value


@pytest.mark.skipif(not REFERENCE.is_file(), reason="the shared references are not beside this checkout")
def test_every_number_of_the_reference_is_there() -> None:
    text = REFERENCE.read_text(encoding="utf-8")
    section = text[text.index("## 6. Paper numbers") : text.index("## 7.")]
    parts = re.split(r"Table (\d)", section)
    by_table = {f"table{n}": body for n, body in zip(parts[1::2], parts[2::2], strict=True)}
    assert set(by_table) >= {"table3", "table4", "table5", "table6"}
    for table in ("table3", "table4", "table5", "table6"):
        numbers = Counter(float(x) for x in re.findall(r"(?<![\d×])(\.\d+|\d+\.\d+)", by_table[table]))
        written = Counter(c.value for c in reported.of_table(table))
        assert set(numbers) <= set(written), (table, set(numbers) - set(written))
    for videos, clips in re.findall(r" (\d+)/(\d{4})", by_table["table2"]):
        assert float(videos) in {c.value for c in reported.of_table("table2")}
        assert float(clips) in {c.value for c in reported.of_table("table2")}


def test_what_is_not_reported_is_none() -> None:
    assert reported.value("fig4", "APA SparseSync", "mAP, 1 s") is None
    assert reported.value("table3", "oracle", "mAP") is None
    assert reported.value("table3", "StreamSync-LSTM", "mAP") == 0.632


def test_the_papers_words_are_quoted_with_their_sections() -> None:
    found = [(q.section, q.about, q.words) for q in reported.quotations("changing")]
    assert ("4", "averaging", "would inherently introduce a delayed response") in found
    assert {section for section, *_ in found} == {"4", "6"}
    assert reported.quotations("table3") == ()


@pytest.mark.skipif(not WORDS.is_file(), reason="the shared references are not beside this checkout")
def test_the_papers_words_are_those_of_the_reference() -> None:
    text = WORDS.read_text(encoding="utf-8")
    for quotation in reported.quotations("changing"):
        assert f'"{quotation.words}"' in text
        assert f"section {quotation.section}" in text
