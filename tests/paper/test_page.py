"""The page over all tables and figures: whole, labelled, and harmless whatever a model is called."""

from __future__ import annotations

import html
import re
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from made_claims import claimed

from avbench.paper.exhibits import ERROR_ROW, SD_ROW, Cell, Exhibit
from avbench.paper.figures import draw
from avbench.paper.page import page

OWN = "† <script>alert(1)</script>$x$ (yours)"
ON = "synthsync test (procedural stand-in, 4 clips)"
FACTS = {
    "data": {"name": "synthsync", "split": "test", "note": "procedural stand-in", "sha256": "d" * 64},
    **{"n_segments": 5, "n_resamples": 20, "seed": 0, "incomplete": True, "counters": {"snapshots_computed": 3}},
    "failures": [{"segment_id": "s", "clip_id": "c", "reason": "r"}],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the figure is drawn, and the page written."""
    found = tmp_path_factory.mktemp("paper")
    (found / "index.html").write_text(made(found), encoding="utf-8")
    return found


def made(folder: Path) -> str:
    signatures = [("a", "avb|x|m:1|d:d|v0.1.0"), (OWN, "avb|x|m:2|d:d|v0.1.0")]
    cells = [Cell("a", "mAP", 0.5, 0.4, 0.6, 4, 5, 0.62), Cell(OWN, "mAP", None, None, None, 3, 5, None)]
    claims = [claimed("a > b", 0.2, 0.1, 0.3), claimed("b > c", -0.2, -0.3, -0.1)]
    table = Exhibit("table3", "Table 3: models", cells, claims, measured_on=ON, signatures=signatures, own=(OWN,))
    bars = [
        Cell(row, str(k), 0.1, 0.0, 0.2, 4, 5, None)
        for row in (ERROR_ROW, SD_ROW, f"{ERROR_ROW}, {OWN}", f"{SD_ROW}, {OWN}")
        for k in range(20)
    ]
    figure = Exhibit("fig2", "Figure 2: errors", bars, measured_on=ON, signatures=signatures, own=(OWN,))
    draw(figure, folder)
    return page([table, figure], FACTS, folder)


def test_the_page_shows_everything_and_says_what_is_measured_and_what_reported(folder: Path) -> None:
    text = (folder / "index.html").read_text(encoding="utf-8")
    measured, _, reported = text.split('id="table3"')[1].partition("reported by the paper")
    assert "0.500" in measured
    assert "0.620" not in measured
    assert "0.620" in reported
    table, figure = text.split('id="table3"')[1].split('id="fig2"')
    for part in (table, figure):
        assert "procedural stand-in" in part
        assert "<code>avb|x|m:*|d:d|v0.1.0</code>" in part
        assert "avbench 0.1.0; n = " in part
    assert "n = 3 to 4 of 5 segments" in table
    assert '<td class="num">3/5</td>' in table
    assert '<span class="right">holds</span>' in table
    assert '<span class="wrong">does not hold</span>' in table
    assert "−0.200" in table
    assert "data:image/svg+xml;base64," in figure
    assert 'href="fig2.pdf"' in figure
    assert 'class="run"' in table
    assert "Incomplete." in text


def test_nothing_a_model_is_called_is_obeyed_and_nothing_is_fetched(folder: Path) -> None:
    text = (folder / "index.html").read_text(encoding="utf-8")
    assert "<script" not in text
    assert html.escape("<script>alert(1)</script>") in text
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", text)
    addresses = re.findall(r"""(?:src|href)="([^"]*)""", text)
    assert all(re.fullmatch(r"#\w+|data:.*|\w+\.(tex|csv|json|md|pdf|svg|png)", address) for address in addresses)
    svg = (folder / "fig2.svg").read_text(encoding="utf-8")
    assert "$x$" in svg, "a name is no formula"
    assert "procedural stand-in" in svg
    assert "avbench 0.1.0" in svg
