"""The leaderboard as its readers and maintainers use it."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import workertasks
from browser import DESKTOP, PHONE, opened
from entries import make_entry, make_logits
from pages import assert_stands_alone

from avbench.cli import main
from avbench.leaderboard import entries as board_entries
from avbench.leaderboard import entries as entries_module
from avbench.leaderboard.board import Decision, assemble
from avbench.leaderboard.entries import read_entries
from avbench.leaderboard.site import counted, write_site
from avbench.protocol.tracks import TRACKS
from avbench.scoring.below_grid import below_grid_scores
from avbench.scoring.metrics import METRICS, score
from avbench.scoring.scorer import as_scores
from avbench.scoring.stats import bootstrap_scores, paired_difference
from avbench.submissions.format import TrainingData
from avbench.submissions.tracks import truth
from avbench.system import imports

Avbench = Callable[..., subprocess.CompletedProcess[str]]
TRACK = TRACKS["synthsync-test"]
TRUTH = truth(TRACK)
GOOD = make_logits(TRUTH, 18, 0.35)


def make_entries(root: Path) -> None:
    """Two that cannot be told apart, a worse one with undeclared training data, and one at two hops."""
    nearly = GOOD + 0.01 * np.random.default_rng(5).standard_normal(GOOD.shape).astype(np.float32)
    make_entry(root, TRACK, TRUTH, "alpha", logits=GOOD, ratio=1.2, head="trf")
    make_entry(root, TRACK, TRUTH, "beta", logits=nearly, org="zeta", backbone="synchformer", ratio=0.5)
    make_entry(root, TRACK, TRUTH, "gamma", skill=0.1, training_data=TrainingData(status="undeclared"))
    for name in ("synthsync-test", "synthsync-test-hop4"):
        track = TRACKS[name]
        make_entry(root, track, truth(track), "delta", skill=0.2, training_data=TrainingData(status="none"))


@pytest.fixture(scope="module")
def entries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Read only."""
    root = tmp_path_factory.mktemp("board") / "entries"
    make_entries(root)
    return root


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cache of this module's builds."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def site(entries: Path, store: Path) -> Path:
    """Read only."""
    out = entries.parent / "site"
    assert main(["leaderboard", "build", "--entries", str(entries), "--out", str(out), "--cache", str(store)]) == 0
    return out


def hashes(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def rows_of(site: Path, track: str = "synthsync-test") -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in json.loads((site / "data.json").read_text()) if row["track"] == track}


# -- in a browser ------------------------------------------------------------------------------------------------------


def test_the_board_is_sorted_filtered_and_read(site: Path) -> None:
    with opened(site / "index.html", DESKTOP) as seen:
        page = seen.page
        table = page.locator("#track-synthsync-test table")

        def names() -> list[str]:
            shown = table.locator("tbody tr:not([hidden]) th.model").all_inner_texts()
            return [text.split("\n")[0] for text in shown]

        trivial = ["always in sync", "class prior", "random guess", "the labels"]
        ranked = names()
        assert set(ranked[:2]) == {"alpha", "beta"}
        assert ranked[2:] == ["delta", "gamma", *trivial]

        head = table.locator("thead th", has_text="mAP").first
        head.locator("button").click()
        assert head.get_attribute("aria-sort") == "descending"
        assert names()[0] == "the labels"
        head.locator("button").click()
        assert names()[-1] == "the labels"
        table.locator("thead th", has_text="model").locator("button").click()
        assert names() == sorted(names())
        for _ in range(2):  # either way up, what is empty comes last
            table.locator("thead th", has_text="parameters").locator("button").click()
            assert names()[-4:] == trivial
        page.locator("label[for=view-windows]").click()
        table.locator("thead th", has_text="18 windows").locator("button").click()
        assert names()[:4] == ["the labels", "alpha", "beta", "delta"], "a header sorts by the cells below it"
        page.locator("label[for=view-scores]").click()
        table.locator("thead th", has_text="rank").locator("button").click()
        assert names() == ranked

        page.select_option("#backbone", "synchformer")
        assert names() == ["beta", *trivial], "the trivial rows are always there"
        page.select_option("#backbone", "")
        page.select_option("#training", "undeclared")
        assert names() == ["gamma", *trivial]
        page.select_option("#training", "")
        page.fill("#find", "ZETA")
        assert names() == ["beta", *trivial]
        assert page.locator("#shown").inner_text() == "1 of 5 entries"
        page.fill("#find", "")
        page.select_option("#track", "synthsync-test-hop4")
        assert not table.is_visible()
        page.select_option("#track", "")

        assert table.locator("th.v-scores").first.is_visible()
        page.click("label[for=view-windows]")
        assert not table.locator("th.v-scores").first.is_visible()
        assert table.locator("th.v-windows").first.is_visible()
        page.click("label[for=view-scores]")

        for size in (DESKTOP, PHONE):
            page.set_viewport_size({"width": size[0], "height": size[1]})
            assert seen.overflow_px == 0, size
        page.set_viewport_size({"width": DESKTOP[0], "height": DESKTOP[1]})
        table.locator("a", has_text="alpha").click()
        assert page.locator("h1").inner_text() == "alpha"
        assert page.locator("table.confusion").is_visible()
        page.set_viewport_size({"width": PHONE[0], "height": PHONE[1]})
        assert seen.overflow_px == 0
        page.locator(".eyebrow a").click()
        assert page.locator("#track-synthsync-test").is_visible()
        assert (seen.errors, seen.requests) == ([], [])


def test_the_address_keeps_the_view_and_the_filters(site: Path) -> None:
    with opened(site / "index.html", DESKTOP) as seen:
        page = seen.page
        page.click("label[for=view-windows]")
        page.click("label[for=compact]")
        page.select_option("#backbone", "synchformer")
        page.fill("#find", "zeta")
        kept = page.evaluate("location.hash")
        assert "view=windows" in kept
        page.goto("about:blank")
        page.goto((site / "index.html").resolve().as_uri() + kept)
        assert page.locator("#view-windows").is_checked()
        assert page.locator("#compact").is_checked()
        assert page.input_value("#backbone") == "synchformer"
        assert page.locator("#shown").inner_text() == "1 of 5 entries"
        assert not page.locator("#track-synthsync-test tbody .range").first.is_visible()
        page.goto((site / "index.html").resolve().as_uri() + "#backbone=gone&view=no%22thing")
        assert page.locator("#shown").inner_text() == "5 of 5 entries", "what is no choice any more is none"
        page.goto((site / "index.html").resolve().as_uri() + "#track-synthsync-test-hop4")
        assert page.locator("#shown").inner_text() == "5 of 5 entries", "a link to a track is no filter"
        assert (seen.errors, [r for r in seen.requests if r != "about:blank"]) == ([], [])


def test_a_row_says_size_date_and_links_and_a_chart_has_every_entry(entries: Path, store: Path, tmp_path: Path) -> None:
    more = tmp_path / "entries"
    shutil.copytree(entries, more)
    links = {"paper_url": "https://example.org/its-paper", "code_url": "https://example.org/its-code"}
    for n in range(9):
        make_entry(more, TRACK, TRUTH, f"many-{n}", skill=0.2 + n / 50, parameters=1_240_000, **links)
    write_site(assemble(read_entries(more, store)[0], store), tmp_path / "site")
    page = (tmp_path / "site" / "index.html").read_text()
    section = page[page.index('id="track-synthsync-test"') : page.index('id="track-synthsync-full-test"')]
    assert section.count(">1.24 M</td>") == 9
    cell = r'class="num v-scores" data-v="([0-9.]+)">[^<]*<svg class="share".*?<rect class="full" width="([0-9.]+)"'
    bars = [(float(value), float(length)) for value, length in re.findall(cell, section)]
    assert len(bars) >= 13
    assert all(length == pytest.approx(48 * value, abs=0.06) for value, length in bars), "a bar as long as its score"
    assert section.count('<a href="https://example.org/its-paper" rel="noopener nofollow noreferrer">paper</a>') == 9
    standing = section[section.index('aria-label="every entry by mAP"') :]
    standing = standing[: standing.index("</svg>")]
    assert standing.count("<circle") == 13
    for name in ("alpha", "many-0", "many-8", "gamma"):
        assert f">{name}</text></a>" in standing
    curve = section[section.index('aria-label="mAP over the windows seen"') :]
    assert curve[: curve.index("</svg>")].count('class="line') == 13, "those without a colour of their own are grey"
    assert "the other 6" in section
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", section, re.DOTALL)
    assert len(captions) >= 3
    assert all("procedural stand-in" in caption for caption in captions)


@pytest.mark.parametrize(
    ("count", "told"), [(None, ""), (0, "0"), (999, "999"), (815_010, "815 k"), (10**6, "1 M"), (7 * 10**9, "7 G")]
)
def test_parameters_are_counted_in_three_digits(count: int | None, told: str) -> None:
    assert counted(count) == told


def test_a_board_says_whose_it_is(avbench: Avbench, entries: Path, store: Path, tmp_path: Path) -> None:
    base = ("leaderboard", "build", "--entries", entries, "--cache", store, "--out", "site")
    told = ("--title", "Our <b>board", "--repo-url", "https://example.org/repo", "--contact", "us@example.org")
    assert avbench(*base, *told, "--site-url", "https://example.org/board/").returncode == 0
    page = (tmp_path / "site" / "index.html").read_text()
    assert "<h1>Our &lt;b&gt;board</h1>" in page
    assert '<a href="https://example.org/repo" rel="noopener noreferrer">Send an entry</a>' in page
    assert "Questions: us@example.org" in page
    assert '<meta property="og:image" content="https://example.org/board/share.png">' in page
    assert (tmp_path / "site" / "share.png").read_bytes()[16:24] == (1200).to_bytes(4) + (630).to_bytes(4)
    entry = next((tmp_path / "site").glob("entries/acme__alpha/*/synthsync-test.html"))
    assert f"](https://example.org/board/{entry.relative_to(tmp_path / 'site').as_posix()})" in entry.read_text()
    badge = entry.with_suffix(".svg").read_text()
    assert "avbench synthsync-test" in badge
    assert "rank 1 (shared) · mAP" in badge
    for option in ("--repo-url", "--site-url"):
        done = avbench(*base, option, "javascript:alert(1)")
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert avbench(*base, "--title", " ").returncode == 2


def test_the_board_without_javascript(site: Path) -> None:
    with opened(site / "index.html", PHONE, javascript=False) as seen:
        page = seen.page
        assert not page.locator("#controls").is_visible(), "controls that would do nothing are not shown"
        assert page.locator("section.track").count() == 4
        assert page.locator("#track-synthsync-test tr.entry").count() == 4
        page.click("label[for=view-category]")
        assert page.locator("#track-synthsync-test th.v-category").first.is_visible()
        assert not page.locator("#track-synthsync-test th.v-scores").first.is_visible()
        assert page.locator("svg.chart").count() >= 3
        assert (seen.errors, seen.requests) == ([], [])


# -- what it says ------------------------------------------------------------------------------------------------------


def test_scores_are_recomputed_and_ties_share_a_rank(site: Path) -> None:
    rows = rows_of(site)
    assert {name: row["rank"] for name, row in rows.items()} == {"alpha": 1, "beta": 1, "delta": 3, "gamma": 4}
    assert [rows[name]["tied"] for name in ("alpha", "beta", "delta", "gamma")] == [True, True, False, False]
    for name, value in score(GOOD[:, -1], TRUTH.labels).items():
        assert rows["alpha"]["scores"][name]["value"] == pytest.approx(value, abs=1e-12)
    again = as_scores(bootstrap_scores(GOOD[:, -1], TRUTH.labels, TRUTH.clusters))
    assert TRUTH.offsets_s is not None
    again |= as_scores(below_grid_scores(GOOD[:, -1], TRUTH.offsets_s, TRUTH.clusters))
    assert rows["alpha"]["scores"] == {name: s.model_dump() for name, s in again.items()}
    # the second of the tied two is not told from the first; the next group is
    second = next(row for row in rows.values() if row["rank"] == 1 and row["minus_entry_above"])
    assert second["minus_group_leader"]["ci_low"] <= 0 <= second["minus_group_leader"]["ci_high"]
    assert rows["delta"]["minus_entry_above"]["ci_high"] < 0
    assert rows["alpha"]["by_window"]["18"] == rows["alpha"]["scores"]
    assert set(rows["alpha"]["by_category"]) == {"talking head", "voice-over", "other"}


def test_a_difference_within_the_paired_interval_is_a_tie(entries: Path, store: Path) -> None:
    accepted, refused = read_entries(entries, store)
    board = next(b for b in assemble(accepted, store).tracks if b.track == TRACK)
    assert refused == []
    for row in board.rows:
        leader = next(r for r in board.rows if r.entry.name == row.ranked.leader)
        pair = (row.entry.scored.last, leader.entry.scored.last)
        found = paired_difference(*pair, TRUTH.labels, TRUTH.clusters, metrics=["map"])["map"]
        inside = row is leader or found["ci_low"] <= 0 <= found["ci_high"]
        assert inside == (row.ranked.rank == leader.ranked.rank)


def test_hops_are_compared_on_the_segments_they_share(site: Path) -> None:
    hops = rows_of(site)["delta"]["by_hop_s"]
    assert set(hops) == {"2", "4"}
    assert hops == rows_of(site, "synthsync-test-hop4")["delta"]["by_hop_s"]
    assert rows_of(site)["alpha"]["by_hop_s"] == {}
    assert "over hops, on common segments" in (site / "index.html").read_text()


def test_reported_and_trivial_rows_are_apart_from_measured_ones(site: Path) -> None:
    text = (site / "index.html").read_text(encoding="utf-8")
    board, _, rest = text.partition('id="reported"')
    assert "StreamSync-LSTM" not in board
    assert "0.632" in rest
    assert rest.count(">reported<") == 5
    for label in ("always in sync", "class prior", "random guess", "the labels"):
        assert board.count(f'data-v="{label}"') == 4, "once a track"
    assert "procedural stand-in" in board


def test_every_page_stands_alone(site: Path) -> None:
    pages = [site / "index.html", *site.rglob("entries/*/*/*.html")]
    assert len(pages) == 6
    for path in pages:
        found = assert_stands_alone(path.read_text(encoding="utf-8"))
        for tag, name, value in found.attributes:
            if (tag, name) == ("a", "href") and not value.startswith("http"):
                target = value.partition("#")[0]
                assert not target or (path.parent / target).is_file(), value


def test_downloads_hold_the_same_numbers(site: Path) -> None:
    lines = list(csv.DictReader(io.StringIO((site / "data.csv").read_text())))
    rows = json.loads((site / "data.json").read_text())
    assert [line["name"] for line in lines] == [row["name"] for row in rows]
    for line, row in zip(lines, rows, strict=True):
        assert int(line["rank"]) == row["rank"]
        assert float(line["map_ci_low"]) == row["scores"]["map"]["ci_low"]
        single = json.loads((site / row["page"].replace(".html", ".json")).read_text())
        assert single == row
    decisions = [json.loads(line) for line in (site / "decisions.jsonl").read_text().splitlines()]
    assert decisions[-1]["action"] == "note"


def test_time_is_shown_where_it_was_measured_well(site: Path) -> None:
    rows = rows_of(site)
    assert rows["beta"]["latency"]["ratio_to_snapshot"] == pytest.approx(0.5, rel=0.02)
    assert rows["gamma"]["latency"] is None
    assert "Accuracy against time" in (site / "index.html").read_text()


# -- building ----------------------------------------------------------------------------------------------------------


def test_equal_entries_give_equal_bytes(
    avbench: Avbench, site: Path, entries: Path, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("avbench.leaderboard.entries.FEW_ENTRIES", 0)  # by two processes, the others by one
    cold = avbench("leaderboard", "build", "--entries", entries, "--out", "cold", "--cache", "c", "--workers", "2")
    warm = avbench("leaderboard", "build", "--entries", entries, "--out", "warm", "--cache", store)
    assert (cold.returncode, warm.returncode) == (0, 0), cold.stderr + warm.stderr
    assert hashes(tmp_path / "cold") == hashes(tmp_path / "warm") == hashes(site)


def test_an_entry_that_kills_its_reader_is_refused_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entries_module, "_check_and_score", workertasks.score_entry)
    names = ["bad", "unlucky", "wrong", *map(str, range(entries_module.FEW_ENTRIES))]
    found = dict(entries_module._compute([Path(name) for name in names], tmp_path, None, 2))
    expected = dict.fromkeys(map(Path, names), None) | {
        Path("bad"): "predictions: the worker process died (killed by SIGKILL) while reading them",
        Path("wrong"): "not right",
    }
    assert found == expected


def test_a_board_without_entries(avbench: Avbench, store: Path, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    done = avbench("leaderboard", "build", "--entries", "none", "--out", "site", "--cache", store, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"site": "site", "entries": 0, "refused": []}
    assert json.loads((tmp_path / "site" / "data.json").read_text()) == []
    text = assert_stands_alone((tmp_path / "site" / "index.html").read_text(encoding="utf-8")).text
    assert "No entry yet." in text
    assert "always in sync" in text
    assert "StreamSync-LSTM" in text


def test_entries_that_are_not_right_are_named_and_not_shown(avbench: Avbench, store: Path, tmp_path: Path) -> None:
    root = tmp_path / "entries"
    make_entry(root, TRACK, TRUTH, "right", logits=GOOD)
    folder = make_entry(root, TRACK, TRUTH, "liar", logits=GOOD, claimed=dict.fromkeys(METRICS, 0.999))
    cut = make_entry(root, TRACK, TRUTH, "cut", logits=GOOD)
    (cut / "predictions.parquet").write_bytes(b"PAR1")
    (root / "acme__odd" / "1" / "synthsync-test").mkdir(parents=True)
    blind = make_entry(root, TRACK, TRUTH, "blind", logits=GOOD)
    blind.rename(blind.with_name("synthsync-test.blind-0123"))
    (root / "link__away").symlink_to(tmp_path)
    done = avbench("leaderboard", "build", "--entries", root, "--out", "site", "--cache", store)
    assert done.returncode == 1
    lines = [line for line in done.stderr.splitlines() if line.startswith("avbench: refused:")]
    assert "Traceback" not in done.stderr
    for name in ("acme__liar/", "acme__cut/", "acme__odd/", "acme__blind/"):
        assert sum(name in line for line in lines) == 1, name
    assert any(folder.parent.name in line and "claimed.acc" in line for line in lines)
    assert list(rows_of(tmp_path / "site")) == ["right"]
    assert "liar" not in (tmp_path / "site" / "index.html").read_text()
    assert not (tmp_path / "site" / "entries" / "acme__liar").exists()


def test_an_entry_that_is_withdrawn_goes_from_the_site(store: Path, tmp_path: Path) -> None:
    make_entry(tmp_path / "e", TRACK, TRUTH, "one", logits=GOOD)
    make_entry(tmp_path / "e", TRACK, TRUTH, "two", skill=0.1)
    accepted, _ = read_entries(tmp_path / "e", store)
    write_site(assemble(accepted, store), tmp_path / "site")
    write_site(assemble(accepted[:1], store), tmp_path / "site")
    pages = [p.parts[-3] for p in (tmp_path / "site").rglob("entries/*/*/*")]
    assert set(pages) == {"acme__one"}


def test_a_folder_with_other_things_is_left_alone(avbench: Avbench, store: Path, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("my thesis")
    (tmp_path / "none").mkdir()
    done = avbench("leaderboard", "build", "--entries", "none", "--out", "home", "--cache", store)
    assert done.returncode == 2
    assert "not a site made by this program" in done.stderr
    assert [p.name for p in (tmp_path / "home").iterdir()] == ["thesis.tex"]
    assert avbench("leaderboard", "build", "--entries", "missing", "--out", "s").returncode == 2


def test_a_decisions_log_is_checked(avbench: Avbench, store: Path, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    log = tmp_path / "log.jsonl"
    log.write_text('{"date": "2026-01-01", "action": "removed", "entry": "a__b/1/t", "reason": "Withdrawn."}\n')
    base = ("leaderboard", "build", "--entries", "none", "--out", "site", "--cache", store, "--decisions", log)
    assert avbench(*base).returncode == 0
    assert "Withdrawn." in (tmp_path / "site" / "index.html").read_text()
    for bad in ("{", '{"date": "2026"}', '{"date": "2026-01-01", "action": "note", "reason": "<b>x</b>"}', "[]", '"a"'):
        log.write_text(f"\n{bad}\n")
        done = avbench(*base)
        assert done.returncode == 2, bad
        assert "line 2" in done.stderr


def test_a_damaged_cache_is_computed_again(entries: Path, site: Path, tmp_path: Path) -> None:
    only = tmp_path / "entries"
    make_entry(only, TRACK, TRUTH, "alpha", logits=GOOD)
    read_entries(only, tmp_path / "c")
    for i, path in enumerate(sorted((tmp_path / "c").iterdir())):
        path.write_bytes(b"{}" if i % 2 else b"\x93NUMPY")
    accepted, refused = read_entries(only, tmp_path / "c")
    assert refused == []
    assert accepted[0].scored.scores["map"].value == rows_of(site)["alpha"]["scores"]["map"]["value"]


def change_source(monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    """From now on the source of ``module`` reads as if a line had been added. ``ModuleNotFoundError`` if it has none:
    a name that is no longer a module's would change nothing and prove nothing."""
    imports.path_of(module)
    stored = imports.source
    monkeypatch.setattr(imports, "source", lambda name: stored(name) + b"\n# changed\n" * (name == module))
    monkeypatch.setattr(board_entries, "program_sha256", board_entries.program_sha256.__wrapped__)


@pytest.mark.parametrize(
    ("module", "counts"),
    [
        ("avbench.scoring.metrics", True),
        ("avbench.scoring.stats", True),
        ("avbench.leaderboard.board", True),
        ("avbench.pages.charts", True),
        ("avbench.training.head", False),
        ("avbench.engine.runner", False),
        ("avbench.cli", False),
    ],
)
def test_the_cache_is_for_the_code_that_scores(
    module: str, counts: bool, entries: Path, site: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored: list[Path] = []
    monkeypatch.setattr(board_entries, "_check_and_score", lambda path, **_: scored.append(path) or "not scored here")
    change_source(monkeypatch, module)
    accepted, refused = read_entries(entries, store)
    assert (len(scored), len(accepted), len(refused)) == ((5, 0, 5) if counts else (0, 5, 0))


def test_the_cache_is_for_the_templates_too(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    add = board_entries._add
    monkeypatch.setattr(board_entries, "_add", lambda to, name, data: seen.append(name) or add(to, name, data))
    assert board_entries.program_sha256.__wrapped__() == board_entries.program_sha256()
    assert len(set(seen)) == len(seen)
    for name in ("avbench.leaderboard board.js", "avbench.leaderboard entry_report.html", "avbench.pages page.css"):
        assert name in seen


def test_exports(avbench: Avbench, site: Path, entries: Path, store: Path, tmp_path: Path) -> None:
    import yaml
    from huggingface_hub import parse_eval_result_entries

    base = ("leaderboard", "export", "--entries", entries, "--cache", store)
    done = avbench(*base, "--format", "csv", "--out", "board.csv")
    assert (done.returncode, done.stdout) == (0, "board.csv\n")
    assert (tmp_path / "board.csv").read_text() == (site / "data.csv").read_text()

    url = "https://example.org/board"
    done = avbench(*base, "--format", "eval-results", "--dataset", "acme/synthsync", "--url", url, "--out", "cards")
    assert done.returncode == 0, done.stderr
    files = [tmp_path / line for line in done.stdout.splitlines()]
    assert len(files) == 5
    assert all(path.parent.name == ".eval_results" for path in files)
    alpha = next(path for path in files if "acme__alpha" in str(path))
    (entry,) = parse_eval_result_entries(yaml.safe_load(alpha.read_text()))
    assert entry.value == rows_of(site)["alpha"]["scores"]["map"]["value"]
    assert (entry.dataset_id, entry.task_id, entry.source_url) == ("acme/synthsync", "synthsync-test", url)
    # the data set's own file names the same tasks
    done = avbench(*base, "--format", "eval-yaml", "--out", "eval.yaml")
    assert done.returncode == 0, done.stderr
    benchmark = yaml.safe_load((tmp_path / "eval.yaml").read_text())
    assert list(benchmark) == ["name", "description", "evaluation_framework", "tasks"]
    tasks = {task["id"]: (task["config"], task["split"]) for task in benchmark["tasks"]}
    assert tasks[entry.task_id] == ("segments", "test")
    assert {yaml.safe_load(path.read_text())[0]["dataset"]["task_id"] for path in files} <= set(tasks)

    done = avbench(*base, "--format", "every-eval-ever", "--out", "records")
    assert done.returncode == 0, done.stderr
    records = {tmp_path / line: json.loads((tmp_path / line).read_text()) for line in done.stdout.splitlines()}
    assert len(records) == 5
    schema = json.loads((Path(__file__).parents[1] / "pages/data/every_eval_ever-0.3.0/eval.schema.json").read_text())
    for record in records.values():
        jsonschema.validate(record, schema, jsonschema.Draft7Validator)
    first = next(one for one in records.values() if one["model_info"]["id"] == "acme/alpha")
    scores = {one["metric_config"]["metric_id"]: one["score_details"]["score"] for one in first["evaluation_results"]}
    assert scores["avbench.map"] == rows_of(site)["alpha"]["scores"]["map"]["value"]

    for wrong in (("--dataset", "no slash"), (), ("--dataset", "a/b", "--url", "javascript:alert(1)")):
        assert avbench(*base, "--format", "eval-results", "--out", "x", *wrong).returncode == 2


def test_building_loads_no_torch(tmp_path: Path) -> None:
    make_entry(tmp_path / "entries", TRACK, TRUTH, "alpha", logits=GOOD, ratio=1.2)  # nothing of it is in a cache
    code = (
        "import sys; from avbench.cli import main\n"
        "code = main(['leaderboard', 'build', '--entries', 'entries', '--out', 'site', '--cache', 'cache'])\n"
        "bad = {'torch', 'matplotlib', 'av', 'avbench.data.media', 'avbench.engine.runner'} & set(sys.modules)\n"
        "sys.exit(code or (f'loaded {bad}' if bad else 0))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-500:]


# -- hostile text ------------------------------------------------------------------------------------------------------


def with_text(text: str, entries: Path, store: Path, out: Path) -> Path:
    """A site whose entry says ``text`` wherever its makers could write, past the format's own checks."""
    accepted, _ = read_entries(entries, store)
    entry = next(e for e in accepted if e.model[1] == "alpha")
    training = TrainingData.model_construct(status="declared", datasets=[text])
    card = entry.submission.card.model_copy(
        update={"description": text, "backbone": text, "head": text, "contact": text, "licence": text}
        | {"paper_url": text, "code_url": text, "training_data": training}
    )
    run = entry.submission.run.model_copy(update={"model": text, "weights_note": text, "environment": {text: text}})
    changed = replace(entry, submission=entry.submission.model_copy(update={"card": card, "run": run}))
    log = [Decision.model_construct(date=text, action=text, entry=text, reason=text)]
    write_site(assemble([changed], store, log), out)
    return out


HOSTILE = (
    """javascript:alert(1) <script>alert(1)</script> "><img src=x onerror=alert(1)> ' onclick=1 {{7*7}} </style>"""
)


def test_hostile_text_is_only_text(entries: Path, store: Path, tmp_path: Path) -> None:
    bad = with_text(HOSTILE, entries, store, tmp_path / "bad")
    harmless = with_text("=harmless", entries, store, tmp_path / "harmless")
    for name in ("index.html", next(bad.rglob("entries/*/*/*.html")).relative_to(bad)):
        found = assert_stands_alone((bad / name).read_text(encoding="utf-8"))
        assert found.tags == assert_stands_alone((harmless / name).read_text(encoding="utf-8")).tags
        assert HOSTILE in found.text
        assert not any("javascript" in value for _, n, value in found.attributes if n == "href")
    assert json.loads((bad / "data.json").read_text())[0]["card"]["backbone"] == HOSTILE
    (line,) = csv.DictReader(io.StringIO((harmless / "data.csv").read_text()))
    assert line["backbone"] == "'=harmless", "a spreadsheet would take it for a formula"
    assert float(line["map"]) > 0
