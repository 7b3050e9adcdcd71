"""``avbench data pairs`` and what a run says of its pairs."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avbench.data.pairs import SHIFTS_S, make_pairs, shifts_of
from avbench.data.synthsync import planned
from avbench.protocol.manifest import check, read_manifest, write_manifest
from avbench.protocol.rules import streaming
from avbench.results.run import read_run
from avbench.ticks import ticks
from avbench.types import UsageError

Avbench = Callable[..., "subprocess.CompletedProcess[str]"]


# -- as its user meets it ----------------------------------------------------------------------------------------------


def test_pairs_are_made_and_a_run_scores_them(
    avbench_process: Avbench, avbench: Avbench, clicks: Path, tmp_path: Path
) -> None:
    made = avbench_process("data", "pairs", clicks, "--shifts", "0.5,0.1", "--out", "p", "--iterations", 1)
    assert made.returncode == 0, made.stderr
    assert "p: 2 clips, 10 segments: 2 streams in sync, 8 pairs" in made.stdout
    done = avbench("run", "--model", "xcorr", "--data", "p", "--iterations", 1, "--out", "r", "--workers", 1)
    assert done.returncode == 0, done.stderr
    assert "pairs, share with the one in sync ahead (a guess: .50): all " in done.stdout
    assert "0.1 s" in done.stdout
    result = read_run(tmp_path / "r")
    numbers = {(p.shift_s, p.direction): p.n for p in result.pairs}
    assert (numbers[None, "both"], numbers[0.1, "early"], numbers[0.5, "late"]) == (8, 2, 2)
    half_second = next(p for p in result.pairs if (p.shift_s, p.direction) == (0.5, "both"))
    assert half_second.value == 1, "the classical model hears and sees clicks and flashes"
    page = (tmp_path / "r" / "run.html").read_text(encoding="utf-8")
    assert "Which of two is in sync" in page
    again = avbench("report", "r")
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "r" / "run.html").read_text(encoding="utf-8") == page


def test_a_run_on_other_data_has_no_pairs(avbench: Avbench, clicks: Path, tmp_path: Path) -> None:
    done = avbench("run", "--model", "uniform", "--data", clicks, "--iterations", 2, "--out", "r")
    assert "pairs" not in done.stdout
    assert json.loads((tmp_path / "r" / "run.json").read_text())["pairs"] == []


def test_nothing_is_replaced_unasked_and_bad_input_is_one_line(avbench: Avbench, clicks: Path, tmp_path: Path) -> None:
    for shifts, says in (
        ("0.1,x", "is not a list of seconds"),
        ("0", "must be above 0"),
        ("-0.1", "must be above 0"),
        ("2.5", "at most 2 s"),
        ("0.00001", "a multiple of 1/16000 s"),
        (",", "there is no shift"),
    ):
        done = avbench("data", "pairs", clicks, "--shifts", shifts, "--out", "p")
        assert done.returncode == 2, shifts
        assert says in done.stderr
    assert not (tmp_path / "p").exists()
    done = avbench("data", "pairs", clicks, "--iterations", 40, "--out", "p")
    assert done.returncode == 2
    assert "no stream of clicks has room for 40 windows under every shift" in done.stderr
    assert avbench("data", "pairs", clicks, "--out", "p").returncode == 0
    assert "give --force" in avbench("data", "pairs", clicks, "--out", "p").stderr
    assert avbench("data", "pairs", clicks, "--out", "p", "--force").returncode == 0


# -- what is made ------------------------------------------------------------------------------------------------------


@settings(max_examples=10, deadline=None)
@given(st.lists(st.integers(1, 200), min_size=1, max_size=4), st.integers(1, 18))
def test_every_stream_and_its_copies_show_the_same_pictures_and_fit(hundredths: list[int], iterations: int) -> None:
    protocol = streaming(iterations=iterations)
    made, short = make_pairs(planned().limit(20), [h / 100 for h in hundredths], protocol=protocol)
    assert check(made) == []
    by_id = {s.id: s for s in made.segments}
    originals = [s for s in made.segments if not s.pair_of]
    assert len(originals) + len(short) == 20
    wanted = sorted({sign * ticks(h / 100) for h in hundredths for sign in (1, -1)})
    for original in originals:
        copies = [s for s in made.segments if s.pair_of == original.id]
        assert sorted(s.offset for s in copies) == wanted
        assert original.offset == 0
        for copy in copies:
            same = replace(copy, id=original.id, offset=0, offset_class=10, pair_of="")
            assert same == by_id[original.id]
            assert protocol.supports(copy, made.clips[copy.clip_id])


def test_the_manifest_is_read_back_and_its_hash_names_the_pairs(tmp_path: Path) -> None:
    made, _ = make_pairs(planned().limit(3))
    assert len(made.segments) == 3 * (1 + 2 * len(SHIFTS_S))
    made = replace(made, clips={k: replace(c, sha256="a" * 64) for k, c in made.clips.items()})
    write_manifest(made, tmp_path)
    assert read_manifest(tmp_path).segments == made.segments
    assert json.loads((tmp_path / "manifest.json").read_text())["schema_version"] == 2
    apart = replace(made, segments=tuple(replace(s, pair_of="") for s in made.segments))
    assert apart.sha256 != made.sha256


def test_a_pair_that_is_none_is_refused(tmp_path: Path) -> None:
    made, _ = make_pairs(planned().limit(2), [0.1])
    first, early, late, second, *_ = made.segments
    for wrong in (
        replace(early, pair_of="nobody"),
        replace(early, pair_of=second.id),  # other pictures
        replace(early, pair_of=late.id),  # not in sync
        replace(early, offset=0, offset_class=10),  # not shifted
    ):
        problems = check(replace(made, segments=(first, wrong, late, *made.segments[3:])))
        assert len(problems) == 1
        assert "column pair_of" in problems[0]


def test_limit_draws_by_seed_and_keeps_pairs_whole() -> None:
    drawn = [make_pairs(planned(), [0.1], limit=5, seed=seed)[0] for seed in (0, 0, 1)]
    ids = [[s.id for s in made.segments if not s.pair_of] for made in drawn]
    assert ids[0] == ids[1] != ids[2]
    assert {len(made.segments) for made in drawn} == {15}
    assert all(check(made) == [] for made in drawn)
    everything = [s.id for s in make_pairs(planned(), [0.1])[0].segments]
    assert [id for id in everything if id in set(ids[2])] == ids[2], "in the data's order"


def test_what_cannot_be_paired_is_refused() -> None:
    hidden = replace(planned(), offset_law="hidden")
    with pytest.raises(UsageError, match="labels of synthsync are hidden"):
        make_pairs(hidden)
    with pytest.raises(UsageError, match="limit is 0"):
        make_pairs(planned(), limit=0)
    assert shifts_of([0.2, 0.05, 0.2], 2.0) == [800, 3200]
