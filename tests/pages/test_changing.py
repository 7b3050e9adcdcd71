"""The page of a run whose offsets change: what a reader sees, what is said where nothing is defined, odd runs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from browser import DESKTOP, PHONE, opened
from pages import assert_stands_alone, read

from avbench.pages.changing import band_s, chosen, corners, page_of, share_at
from avbench.pages.run_report import command, report_again, run_page
from avbench.protocol.laws import SHARES, draw_law
from avbench.protocol.rules import dynamic
from avbench.results.dynamic_truth import WindowTruth, write_truth
from avbench.results.predictions import write_predictions
from avbench.results.run import RunResult, write_run
from avbench.results.truth import Truth, write_segments
from avbench.scoring.calibration import classes_of
from avbench.scoring.dynamic import SHOWN, recovery_times
from avbench.scoring.metrics import METRICS
from avbench.scoring.scorer import ChangingScorer
from avbench.scoring.stats import Bootstrap
from avbench.scoring.streams import checked_streams
from avbench.ticks import seconds, ticks
from avbench.types import Law, Piece, SegmentRecord, UsageError

SHA = "0123456789abcdef" * 4
PROTOCOL = dynamic()
Made = tuple[RunResult, Truth, np.ndarray, WindowTruth]


def drawn(n: int, names: tuple[str, ...] = tuple(SHARES)) -> list[Law]:
    return [draw_law(names[k % len(names)], f"s{k}", 1, ticks(99)) for k in range(n)]


def made_up(laws: list[Law], late: int = 4, skill: float = 6.0, videos: int = 6, details: bool = True) -> Made:
    """A run of a model that says, uncertainly, what was so some windows ago."""
    segments = [
        SegmentRecord(
            f"s{k}",
            "c",
            f"v{k % videos}",
            0,
            law.pieces[0].offset,
            10,
            category=("other", "talking head")[k % 2],
            law=law,
        )
        for k, law in enumerate(laws)
    ]
    windows, truth = WindowTruth.of(segments, PROTOCOL), Truth.of(segments, protocol=PROTOCOL)
    labels = classes_of(windows.offset_end_s)
    said = np.concatenate([np.repeat(labels[:, :1], late, axis=1), labels[:, : 48 - late]], axis=1)
    noise = np.random.default_rng(0).standard_normal((len(laws), 48, 21))
    logits = (noise + skill * np.eye(21)[said]).astype(np.float32)
    score = ChangingScorer(truth, windows, PROTOCOL, Bootstrap(20))
    found = score.details(logits, [law.name for law in laws])
    oracle = (30 * np.eye(21)[labels]).astype(np.float32)
    result = RunResult(
        avbench_version="0.1.0",
        signature="avb|dynamic:1|w5.000|h2.000|n48|m:1f3a|d:8211|v0.1.0",
        protocol=PROTOCOL,
        model={"name": "made+up", "backbone": "made", "head": "up", "fingerprint": SHA},
        data={"name": "changing", "split": "test", "manifest_sha256": SHA, "n_clips": 1},
        n_scored=len(laws),
        n_total=len(laws),
        scores=score(logits),
        slices=score.slices(logits, "final"),
        curve=score.curve(logits) if details else [],
        recovery=found["recovery"],
        dynamic={k: v for k, v in found.items() if k not in (*SHOWN, "recovery")} | {"price": {}},
        laws={
            s.id: {
                "name": s.law.name,
                "mutes": [{"start_s": seconds(m.start), "end_s": seconds(m.end)} for m in s.law.mutes],
            }
            for s in segments
        },
        rows=[
            {
                "name": name,
                "label": label,
                "selection": "final",
                "n": len(laws),
                "scores": score(of),
                "recovery": score.recovery(of),
            }
            for name, label, of in (("apa", "same, APA", logits), ("oracle", "the labels", oracle))
        ],
        environment={"python": "3.11", "device": "cpu"},
        seed=0,
        n_resamples=20,
        created="2026-01-02T03:04:05Z",
    )
    return result, truth, logits, windows


@pytest.fixture(scope="module")
def made() -> Made:
    return made_up(drawn(21))


@pytest.fixture(scope="module")
def page(made: Made) -> str:
    return run_page(*made)


def words(page: str) -> str:
    return " ".join(assert_stands_alone(page).text.split())


def test_the_page_in_a_browser(page: str, tmp_path: Path) -> None:
    path = tmp_path / "run.html"
    path.write_text(page, encoding="utf-8")
    with opened(path, DESKTOP) as seen:
        for size in (DESKTOP, PHONE):
            seen.page.set_viewport_size({"width": size[0], "height": size[1]})
            assert seen.overflow_px == 0, size
        cards = seen.page.locator(".belief-card")
        assert cards.count() == seen.page.locator("svg.stream").count() >= 4
        assert seen.page.locator("svg.recovery").count() == 1
        assert seen.page.locator("svg.belief").count() == 0
        link = seen.page.get_by_role("region", name="the worst streams").locator("a").first
        shown = cards.nth(0).locator("code").inner_text()
        assert (link.inner_text(), link.get_attribute("href")) == (shown, "#stream-1")
        steps = cards.first.locator("table.steps")
        assert not steps.is_visible()
        cards.first.locator("summary").click()
        assert steps.locator("tbody tr").count() == 48
        colour = "getComputedStyle(document.querySelector('svg .true')).stroke"
        light = seen.page.evaluate(colour)
        seen.page.emulate_media(color_scheme="dark")
        assert seen.page.evaluate(colour) != light
        assert (seen.errors, seen.requests) == ([], [])
    with opened(path, PHONE, javascript=False) as seen:
        assert seen.page.locator("svg.stream").first.is_visible()


def test_it_says_what_the_run_says(made: Made, page: str) -> None:
    result, text = made[0], words(page)
    assert "Headline: after a change of at least 0.4 s the answer is back within one class after" in text
    for shown in SHOWN.values():
        assert shown.title in text
    false = result.dynamic["false_changes"]
    assert f"{false['n']} changes declared" in text or f"{false['n']} change declared" in text
    for law in SHARES:
        assert f"typical of {law}" in text or f"{law} · among the worst" in text
    for name in ("itu-detect", "itu-accept", "atsc", "ebu"):
        assert name in text
    assert text.index("Scores of offsets that change") < text.index("The last window alone")
    assert "offset is framed" not in text, "the truth of a window is not that of the last one"
    assert page.count('class="reference"') == 0, "always in sync is right in other windows to another extent"
    assert "Price: – : no stream" in text.replace("–:", "– :")
    assert len(page.encode()) < 600_000


def test_equal_runs_have_equal_pages(made: Made, page: str) -> None:
    assert run_page(*made_up(drawn(21))) == page
    assert run_page(*made) == page


def test_a_page_is_rebuilt_from_the_files(made: Made, page: str, tmp_path: Path) -> None:
    result, truth, logits, windows = made
    alarm = np.full(logits.shape[:2], 0.75, np.float32)
    files = {
        "predictions": write_predictions(tmp_path / "predictions.parquet", truth.segment_ids, logits),
        "segments": write_segments(tmp_path / "segments.parquet", truth),
        "truth": write_truth(tmp_path / "truth.parquet", windows),
    }
    told = {name: {"path": f"{name}.parquet", "sha256": sha256} for name, sha256 in files.items()}
    write_run(RunResult(**(result.model_dump() | {"files": told, "protocol": PROTOCOL})), tmp_path)
    text = report_again(tmp_path).read_text(encoding="utf-8")
    assert read(text).tags == read(page).tags
    assert 'class="alarm"' not in text
    told["predictions"]["sha256"] = write_predictions(
        tmp_path / "predictions.parquet", truth.segment_ids, logits, alarm
    )
    write_run(RunResult(**(result.model_dump() | {"files": told, "protocol": PROTOCOL})), tmp_path)
    assert 'class="alarm"' in report_again(tmp_path).read_text(encoding="utf-8")

    told["truth"]["sha256"] = write_truth(tmp_path / "truth.parquet", windows.take(range(20)))
    write_run(RunResult(**(result.model_dump() | {"files": told, "protocol": PROTOCOL})), tmp_path)
    with pytest.raises(UsageError, match="are not from one run"):
        report_again(tmp_path)


def test_a_run_of_before_laws_were_recorded_is_still_read(made: Made) -> None:
    document = json.loads(made[0].to_json())
    del document["laws"]
    for row in document["rows"]:
        del row["recovery"]
    old = RunResult(**(document | {"protocol": PROTOCOL}))
    text = words(run_page(old, *made[1:]))
    assert "This run was written before laws were recorded" in text
    assert "typical" in text
    assert "law not recorded" in text
    # and one whose truth is not there says what its run.json says
    assert "Streams as they were tracked" not in words(run_page(old, made[1], made[2]))


def test_hidden_labels_stay_hidden(made: Made) -> None:
    result = made[0]
    document = result.model_dump() | {"protocol": PROTOCOL}
    document["data"]["labels"] = "hidden"
    none = {name: {"value": None} for name in (*METRICS, *SHOWN)}
    document |= {"scores": none, "slices": {}, "curve": [], "rows": [], "recovery": [], "dynamic": {}, "laws": {}}
    page = run_page(RunResult(**document), None, made[2])
    assert "svg" not in read(page).tags
    assert "truth" not in words(page)
    assert "jump" not in words(page)


def test_one_stream_without_intervals() -> None:
    text = words(run_page(*made_up(drawn(1, ("jump",)))))
    assert "1 of 1 streams" in text
    assert "Too few videos for an interval: it needs at least 3." in text


def test_without_a_change_that_ranks_it_says_why() -> None:
    page = run_page(*made_up(drawn(6, ("hold",))))
    text = words(page)
    assert "No change ranks, so there is no curve." in text
    assert "Recovery is – because no change ranks" in text
    assert 'svg class="chart recovery' not in page


def test_a_run_where_everything_failed_has_a_page(made: Made) -> None:
    document = made[0].model_dump() | {"protocol": PROTOCOL, "n_scored": 0, "incomplete": True}
    none = {name: {"value": None} for name in (*METRICS, *SHOWN)}
    document |= {"scores": none, "slices": {}, "curve": [], "rows": [], "recovery": [], "dynamic": {}, "laws": {}}
    document["failures"] = [{"segment_id": "s0", "clip_id": "c", "reason": "cut off"}]
    text = words(run_page(RunResult(**document), Truth.of([]), np.empty((0, 48, 21), np.float32)))
    assert "Nothing was scored" in text
    assert "cut off" in text


def test_hundreds_of_streams_make_a_page_of_a_few() -> None:
    result, truth, logits, windows = made_up(drawn(300), details=False)
    page = run_page(result, truth, logits, windows)
    assert page.count("<article") <= 4 + len(SHARES)
    assert "of 300 streams" in words(page)
    assert len(page.encode()) < 600_000


@pytest.mark.parametrize("text", ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "{{7*7}}", "</style>"])
def test_hostile_text_is_only_text(text: str) -> None:
    def hostile(name: str) -> str:
        result, truth, logits, windows = made_up(drawn(3, ("jump", "multi")))
        document = result.model_dump() | {"protocol": PROTOCOL}
        document["model"]["name"] = document["rows"][0]["label"] = name
        document["laws"] = {name: {"name": name}, **{s: {"name": name} for s in truth.segment_ids[1:]}}
        document["dynamic"]["by_law"] = {name: document["dynamic"]["by_law"]["jump"]}
        ids = (name, *truth.segment_ids[1:])
        named = replace(windows, segment_ids=ids)
        return run_page(RunResult(**document), replace(truth, segment_ids=ids), logits, named)

    found = assert_stands_alone(hostile(text))
    assert found.tags == read(hostile("harmless")).tags
    assert text in found.text


# -- what is shown -----------------------------------------------------------------------------------------------------


def test_the_worst_are_shown_and_one_in_the_middle_of_each_law() -> None:
    laws = ["jump", "hold", "jump", "hold", "jump", "jump", "hold", "ramp"]
    why = chosen([0, 1, 2, 3, 4, 5, 6, 7], laws)
    # jump: 0 2 4 5, of the two in the middle the worse, which is among the worst already; hold: 1 3 6
    assert why == {
        0: "among the worst",
        1: "among the worst",
        2: "among the worst",
        3: "among the worst",
        7: "typical of ramp",
    }
    assert chosen([3, 2, 1, 0], ["", "", "", ""]) == dict.fromkeys([3, 2, 1, 0], "among the worst")
    assert chosen(list(range(9)), [""] * 9)[4] == "typical"


def test_streams_tell_what_the_scores_count(made: Made) -> None:
    result, truth, logits, windows = made
    found = page_of(result, truth, windows, logits)
    streams = checked_streams(logits, windows, videos=truth.clusters)
    errors_s = streams.errors_s[:, 3:].mean(axis=1)
    listed = [line.stream for line in found.streams.listed]
    assert [s.error_s for s in listed] == pytest.approx(sorted(errors_s.tolist(), reverse=True)[:12])
    everyone = page_of(result.model_copy(update={"laws": {}}), truth, windows, logits)
    assert everyone.streams.unknown_laws
    times = recovery_times(streams)
    for stream in found.streams.shown:
        row = windows.place[stream.id]
        rows = [r for r in streams.ranked if streams.changes.stream[r] == row]
        assert len(stream.changes) == len(rows)
        for said, r in zip(stream.changes, rows, strict=True):
            assert said == (f"{times.time_s[r]:.1f} s" if times.event[r] else f"not within {times.time_s[r]:.1f} s")
        assert [step[1] for step in stream.steps] == windows.offset_end_s[row].tolist()
    for row in found.recovery_rows:
        assert row.shares == sorted(row.shares, reverse=True)
    assert sum(part["n"] for _, part in found.sizes) == result.dynamic["n_counted"]


def test_the_band_holds_four_fifths() -> None:
    p = np.zeros((3, 21))
    p[0, 10] = 1.0
    p[1, [5, 15]] = 0.5
    p[2] = 1 / 21
    low_s, high_s = band_s(p)
    assert low_s.tolist() == pytest.approx([-0.08, -1.06, -1.68])
    assert high_s.tolist() == pytest.approx([0.08, 1.06, 1.68])


def test_the_true_line_jumps_where_the_change_is_and_slides_where_it_slides() -> None:
    jump = Law("jump", (Piece(0, 0), Piece(ticks(30.2), ticks(0.8))))
    ramp = Law("ramp", (Piece(0, 0), Piece(ticks(20), 0, 80_000), Piece(ticks(30), ticks(0.8))))
    _, truth, logits, windows = made_up([jump, ramp])
    found = checked_streams(logits, windows, videos=truth.clusters)
    line = corners(found, 0)
    assert line[:2] == [(0.0, 0.0), (5.0, 0.0)]
    assert [point for point in line if point[0] == 30.2] == [(30.2, 0.0), (30.2, 0.8)]
    assert line[-1] == (99.0, 0.8)
    sliding = dict(corners(found, 1))
    assert (sliding[19.0], sliding[25.0], sliding[31.0]) == pytest.approx((0.0, 0.4, 0.8))
    assert len(sliding) == 49


def test_shares_are_read_off_the_steps() -> None:
    steps = [(0.0, 1.0), (4.0, 0.5), (20.0, 0.25)]
    assert [share_at(steps, t) for t in (0, 3.9, 4, 19, 20, 40)] == [1.0, 1.0, 0.5, 0.5, 0.25, 0.25]


def test_the_command_names_built_in_data_only_if_they_are_those(made: Made) -> None:
    from avbench.data import dynamic as data

    planned = data.planned("test")
    result = made[0]

    def of(**facts: object) -> str:
        return command(result.model_copy(update={"data": result.data.model_copy(update={"name": data.NAME, **facts})}))

    assert "--data FOLDER" in of(), "`avbench data dynamic synthsync` gives the same name to other data"
    assert "--data synthsync-dynamic" in of(manifest_sha256=planned.sha256)
    assert "--limit" not in of(manifest_sha256=planned.sha256)
    part = of(manifest_sha256=planned.limit(result.n_total).sha256)
    assert "--data synthsync-dynamic --split test" in part
    assert f"--limit {result.n_total}" in part
