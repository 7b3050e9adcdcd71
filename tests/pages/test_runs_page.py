"""`avbench view`: one page over a folder of runs, in a real browser too."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from browser import DESKTOP, PHONE, opened
from pages import read

from avbench.pages.runs_page import find_runs, runs_page

Avbench = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def runs(avbench: Avbench, clicks: Path, tmp_path: Path) -> Path:
    """Three runs: two of one setting, one with a hostile folder name and another setting."""
    folder = tmp_path / "runs"
    for name, model, windows in (("a", "constant", "1"), ("b", "uniform", "1"), ("c <b>'d", "constant", "2")):
        few = ("--iterations", windows, "--n-resamples", "20", "--no-reference-rows")
        done = avbench("run", "--model", model, "--data", clicks, "--out", folder / name, *few)
        assert done.returncode == 0, done.stderr
    return folder


def test_every_run_is_in_the_table_with_its_setting(runs: Path) -> None:
    found, unread = find_runs(runs)
    assert unread == []
    assert {run.folder for run in found} == {"a", "b", "c <b>'d"}
    assert len({run.setting for run in found}) == 2
    text = runs_page(found, unread, "mine")
    assert text == runs_page(found, unread, "mine")
    seen = read(text)
    assert seen.unclosed == []
    assert "default-src 'none'" in seen.policy
    assert "<b>'d" not in text
    assert 'href="./c%20%3Cb%3E%27d/run.html"' in text


def test_a_broken_run_is_named_and_the_others_are_shown(avbench: Avbench, runs: Path) -> None:
    (runs / "b" / "run.json").write_text("{")
    done = avbench("view", runs)
    assert done.returncode == 1
    assert done.stdout.strip() == str(runs / "runs.html")
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("avbench: b is left out: ")
    page = (runs / "runs.html").read_text()
    assert "1 could not be read" in page
    assert page.count("data-scores=") == 2


def test_wrong_requests_are_one_line(avbench: Avbench, tmp_path: Path) -> None:
    for folder, words in ((tmp_path / "none", "no folder"), (tmp_path, "holds no run")):
        done = avbench("view", folder)
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
        assert words in done.stderr


def test_a_page_of_the_users_is_not_replaced(avbench: Avbench, runs: Path) -> None:
    page = runs / "runs.html"
    page.write_text("mine")
    assert avbench("view", runs).returncode == 2
    assert page.read_text() == "mine"
    assert avbench("view", runs, "--force").returncode == 0
    assert avbench("view", runs).returncode == 0, "its own page is made anew"


@pytest.mark.parametrize("size", [DESKTOP, PHONE])
def test_runs_are_filtered_and_set_side_by_side(avbench: Avbench, runs: Path, size: tuple[int, int]) -> None:
    assert avbench("view", runs).returncode == 0
    with opened(runs / "runs.html", size) as there:
        page = there.page
        page.locator("#model").select_option("uniform")
        assert page.locator("#shown").inner_text() == "1 of 3 runs"
        page.locator("#model").select_option("")
        page.locator("#find").fill("constant")
        assert page.locator("tr[data-scores]:visible").count() == 2
        page.locator("#find").fill("")
        assert page.locator("#beside").is_hidden()
        assert page.locator("#below").is_hidden()
        page.get_by_label("choose a", exact=True).check()
        page.get_by_label("choose b", exact=True).check()
        assert page.locator("#same").inner_text().partition("compare ")[2] in ("runs/a runs/b", "runs/b runs/a")
        shown = page.locator("#chosen tbody tr", has_text="Acc±1").inner_text()
        score = json.loads((runs / "a" / "run.json").read_text())["scores"]["acc_tol1"]["value"]
        assert f"{score:.2f}" in shown
        page.get_by_role("link", name="2 side by side").click()
        page.wait_for_function("() => document.querySelector('#beside h2').getBoundingClientRect().top < innerHeight")
        page.get_by_label("choose c <b>'d", exact=True).check()
        assert "different settings" in page.locator("#same").inner_text()
        assert there.overflow_px == 0
        assert there.errors == []
        assert there.requests == []


def test_the_compare_advised_can_be_typed_where_view_was(avbench: Avbench, runs: Path) -> None:
    assert avbench("view", runs).returncode == 0
    page = (runs / "runs.html").read_text()
    assert 'data-typed="runs/a"' in page
    found, unread = find_runs(runs)
    assert 'data-typed="runs/a"' in runs_page(found, unread, "mine", Path("runs"))
    assert 'data-typed="a"' in runs_page(found, unread, "mine")
