"""Figure 1: real class names are readable, and whose they are is said."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Mapping
from pathlib import Path

import pytest

from avbench.data.inspect import AUDIOSET_CREDIT, event_counts, info
from avbench.pages.info_text import render_info
from avbench.pages.offsets_plot import LONGEST_NAME, plot_offsets, short_name
from avbench.paper.exhibits import fig1
from avbench.paper.write import write
from avbench.protocol.manifest import Manifest
from avbench.types import ClipRecord, SegmentRecord

LONG = "Livestock, farm animals, working animals"
FIVE = {LONG: 5, "Bird vocalization, bird call, bird song": 4, "Speech": 3, "Dog": 2, "Bird vocalization, other": 1}


def data(counts: Mapping[str, int], name: str = "d") -> Manifest:
    """Segment k has every event whose count is above k."""
    clips = {"c": ClipRecord("c", "v", "c.mp4", "0" * 64, 7500, 4_800_000, "", "test")}
    segments = tuple(
        SegmentRecord(f"s{k}", "c", "v", 0, 0, 10, events=tuple(e for e, n in counts.items() if n > k), split="test")
        for k in range(max(counts.values(), default=1))
    )
    return Manifest(name, "files", "", "list", clips, segments, Path())


def drawn(manifest: Manifest, folder: Path) -> list[str]:
    """The figure's texts in the order in which they are drawn."""
    path = folder / "figure.svg"
    plot_offsets(manifest, path)
    return [node.text or "" for node in ET.parse(path).iter("{http://www.w3.org/2000/svg}text")]


def test_events_are_sorted_and_their_classes_credited(tmp_path: Path) -> None:
    texts = drawn(data(FIVE), tmp_path)
    names = [t for t in texts if t in map(short_name, FIVE)]
    assert names == ["Livestock, farm animals…", "Bird vocalization, bird call…", "Speech", "Dog", *names[4:]]
    assert names[4:] == ["Bird vocalization, other"]
    assert AUDIOSET_CREDIT in texts
    assert not any("most frequent" in t for t in texts)


def test_names_that_are_cut_alike_keep_their_own_bars(tmp_path: Path) -> None:
    a, b = ("one and the same beginning, and end" + end for end in ("ing", "s"))
    assert short_name(a) == short_name(b)
    assert drawn(data({a: 2, b: 1}), tmp_path).count(short_name(a)) == 2


def test_of_many_events_the_first_are_drawn_and_the_rest_is_counted(tmp_path: Path) -> None:
    texts = drawn(data({f"event {k}": 30 - k for k in range(20)}), tmp_path)
    assert [t for t in texts if t.startswith("event ")] == [f"event {k}" for k in range(12)]
    assert "the 12 most frequent of 20 events" in texts
    assert AUDIOSET_CREDIT not in texts  # names of one's own


@pytest.mark.parametrize("name", ["$x^", "a $\\frac$ b$", "_hidden", "<b>&", "x" * 200])
@pytest.mark.parametrize("suffix", [".svg", ".png"])
def test_any_name_can_be_drawn(name: str, suffix: str, tmp_path: Path) -> None:
    plot_offsets(data({name: 1}, name), tmp_path / f"f{suffix}")
    if suffix == ".svg":
        texts = drawn(data({name: 1}, name), tmp_path)
        assert short_name(name) in texts
        assert f"{name}, 1 segments" in texts


def test_without_events_there_is_one_panel(tmp_path: Path) -> None:
    texts = drawn(data({}), tmp_path)
    assert "segments" in texts
    assert not any("event" in t for t in texts)


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("Female speech, woman speaking", "Female speech, woman speaking"),
        (LONG, "Livestock, farm animals…"),
        ("Scratching (performance technique)", "Scratching (performance…"),
        ("x" * 31, "x" * 29 + "…"),
    ],
)
def test_names_are_cut_between_words(name: str, short: str) -> None:
    assert short_name(name) == short
    assert len(short) <= LONGEST_NAME


def test_the_text_lists_whole_names_and_counts_the_rest() -> None:
    manifest = data(FIVE | {f"a{k}": 1 for k in range(9)})
    lines = render_info(info(manifest)).splitlines()
    first = lines.index("segments per audio event") + 1
    assert lines[first].split() == [*LONG.split(), "5", "▪" * 30]
    assert lines[first + 12] == "  and 2 more events (--json lists them)"
    assert lines[first + 13].strip() == AUDIOSET_CREDIT
    assert len(info(manifest)["events"]) == 14


def test_an_event_that_a_segment_names_twice_counts_once() -> None:
    manifest = data({"bell": 2})
    twice = [SegmentRecord("s", "c", "v", 0, 0, 10, events=("bell", "bell"))]
    assert event_counts(Manifest("d", "files", "", "list", manifest.clips, tuple(twice), Path())) == {"bell": 1}


def test_figure_1_of_the_paper_shows_events_where_there_are_any(tmp_path: Path) -> None:
    for counts in (FIVE, {}):
        manifest = data(counts)
        exhibit = fig1(manifest, info(manifest))
        exhibit.measured_on = "these"
        write(exhibit, tmp_path)
        svg, text = ((tmp_path / f"fig1{suffix}").read_text() for suffix in (".svg", ".md"))
        assert ("Livestock, farm animals…" in svg) == bool(counts)
        assert (LONG in text) == bool(counts)
        assert (AUDIOSET_CREDIT[1:] in text) == (AUDIOSET_CREDIT in svg) == bool(counts)
