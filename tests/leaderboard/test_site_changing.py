"""The board of the track of changing offsets, as its readers see it."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from browser import DESKTOP, PHONE, opened
from entries import make_entry
from pages import assert_stands_alone
from runs import logits_on

from avbench.cli import main
from avbench.leaderboard.board import assemble
from avbench.leaderboard.entries import BOOTSTRAP, read_entries
from avbench.protocol.tracks import TRACKS
from avbench.scoring import dynamic
from avbench.scoring.stats import as_difference, distribution, resamples
from avbench.submissions.check import streams_on
from avbench.submissions.tracks import truth

TRACK = TRACKS["synthsync-dynamic-test"]
MODELS = {  # skill, and how many windows late
    "quick": (8.0, 0),
    "quick-too": (7.5, 0),
    "late": (8.0, 6),
    "noisy": (2.2, 0),
}


@pytest.fixture(scope="module")
def entries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Read only."""
    root, answers = tmp_path_factory.mktemp("board") / "entries", truth(TRACK)
    for name, (skill, late) in MODELS.items():
        logits = logits_on(TRACK, answers, skill, late=late, seed=len(name))
        make_entry(root, TRACK, answers, name, logits=logits, ratio=1.0 if name == "late" else None)
    return root


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def site(entries: Path, store: Path) -> Path:
    """Read only."""
    out = entries.parent / "site"
    assert main(["leaderboard", "build", "--entries", str(entries), "--out", str(out), "--cache", str(store)]) == 0
    return out


def rows_of(site: Path) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in json.loads((site / "data.json").read_text())}


def test_entries_rank_by_recovery_with_ties(site: Path) -> None:
    rows = rows_of(site)
    assert {name: row["rank"] for name, row in rows.items()} == {"quick": 1, "quick-too": 1, "late": 3, "noisy": 4}
    assert (rows["quick"]["tied"], rows["quick-too"]["tied"], rows["late"]["tied"]) == (True, True, False)
    for row in rows.values():
        assert row["ranked_by"] == "headline_recovery_s"
        assert row["scores"]["headline_recovery_s"]["value"] >= row["scores"]["recovery_s"]["value"] - 1e-12
    assert rows["late"]["minus_entry_above"]["ci_low"] > 0, "seconds later"


def test_a_model_above_one_false_change_an_hour_is_marked(site: Path) -> None:
    rows = rows_of(site)
    assert rows["noisy"]["scores"]["false_changes_per_h"]["value"] > 1
    assert (rows["noisy"]["raised"], rows["noisy"]["held"] > 3) == (True, True)
    assert (rows["quick"]["raised"], rows["quick"]["held"]) == (False, 3)
    text = (site / "index.html").read_text()
    assert "† declares more than one false change an hour" in text
    page = (site / rows["noisy"]["page"]).read_text()
    assert f"held it for {rows['noisy']['held']} windows instead of 3" in " ".join(page.split())
    assert "That is more than one an hour" not in (site / rows["quick"]["page"]).read_text()


def test_the_numbers_are_those_of_the_scores(entries: Path, store: Path, site: Path) -> None:
    accepted, refused = read_entries(entries, store)
    assert refused == []
    board = next(b for b in assemble(accepted, store).tracks if b.track == TRACK)
    answers = truth(TRACK)
    found = {
        name: streams_on(TRACK, answers, logits_on(TRACK, answers, skill, late=late, seed=len(name)))
        for name, (skill, late) in MODELS.items()
    }
    for row in board.rows:
        name, leader = row.entry.submission.card.name, row.ranked.leader.split("/")[0].removeprefix("acme__")
        assert row.entry.scored.scores["headline_recovery_s"].value == row.entry.scored.drawn.estimate.value
        first = dynamic.headline(found[name], BOOTSTRAP)["recovery_s"]
        assert tuple(row.ranked.estimate) == pytest.approx(first, abs=1e-12)
        (of_a, videos), (of_b, _) = (dynamic.headline_recovery(found[model]) for model in (name, leader))
        drawn = resamples(videos, BOOTSTRAP)
        pair = as_difference(distribution(of_a, drawn).minus(distribution(of_b, drawn)), drawn.n_clusters, 0.95)
        assert row.ranked.to_leader == pytest.approx(pair, nan_ok=True)


def test_trivial_rows_give_the_floor_and_the_ceiling(site: Path) -> None:
    with opened(site / "index.html", DESKTOP) as seen:
        table = seen.page.locator("#track-synthsync-dynamic-test table")
        names = [text.split("\n")[0] for text in table.locator("tbody th.model").all_inner_texts()]
        assert set(names[:2]) == {"quick", "quick-too"}
        assert names[2:4] == ["late", "noisy"]
        assert names[4:] == ["always in sync", "class prior", "random guess", "the labels"]
        heads = [text.split("\n")[0] for text in table.locator("th.v-scores").all_inner_texts()]
        shown = ["recovery at ≤ 1 false/h (s)", "recovery (s)", "false/h", "tracked ±1", "tracked", "error (s)"]
        assert heads[:9] == [*shown, "in 10 s", "in 20 s", "in 40 s"]
        floor, ceiling = (table.locator("tr.trivial").nth(i).locator("td.v-scores").first for i in (3, 0))
        assert float(floor.get_attribute("data-v") or "nan") < 3 < float(ceiling.get_attribute("data-v") or "nan")
        table.locator("thead th", has_text="recovery at").locator("button").click()
        assert table.locator("tbody th.model").first.inner_text().split("\n")[0] in ("the labels", "quick", "quick-too")
        assert (seen.overflow_px, seen.errors, seen.requests) == (0, [], [])


@pytest.mark.parametrize("size", [DESKTOP, PHONE])
def test_the_entrys_own_page(site: Path, size: tuple[int, int]) -> None:
    with opened(site / rows_of(site)["noisy"]["page"], size) as seen:
        page = seen.page
        assert page.locator("h1").inner_text() == "noisy"
        assert page.locator(".tile-value").first.inner_text().endswith("†")
        assert page.locator("figcaption", has_text="not yet recovered from").count() == 1
        laws = page.locator("section", has=page.locator("h2", has_text="By law")).locator("tbody th").all_inner_texts()
        assert laws == ["hold", "jump", "excursion", "multi", "ramp", "drops", "drift"]
        assert (seen.overflow_px, seen.errors, seen.requests) == (0, [], [])


def test_pages_stand_alone_and_downloads_agree(site: Path) -> None:
    for path in [site / "index.html", *site.rglob("entries/*/*/*.html")]:
        assert_stands_alone(path.read_text(encoding="utf-8"))
    lines = list(csv.DictReader((site / "data.csv").open()))
    for line, row in zip(lines, rows_of(site).values(), strict=True):
        assert float(line["headline_recovery_s"]) == row["scores"]["headline_recovery_s"]["value"]
    shares = rows_of(site)["late"]["not_recovered_after_s"]
    assert shares["0"]["value"] == 1 > shares["20"]["value"]


def test_a_second_build_computes_nothing(
    site: Path, entries: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*args: object, **more: object) -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr("avbench.leaderboard.entries.score", never)
    monkeypatch.setattr("avbench.leaderboard.board.score", never)
    accepted, _ = read_entries(entries, store)
    ranked = [row.entry.name for row in assemble(accepted, store).rows]
    assert ranked == [row["entry"] for row in json.loads((site / "data.json").read_text())]
