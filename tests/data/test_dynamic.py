"""Offsets that change over any clips: which streams, under which laws, and what they keep of their clips."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from avbench.data import synthsync
from avbench.data.dynamic import NAME, SEED, ChangingRules, changing, planned, with_laws
from avbench.data.opening import read_data
from avbench.protocol.laws import SHARES, draw_law, extremes
from avbench.protocol.manifest import Manifest, read_manifest, write_manifest
from avbench.protocol.rules import dynamic, usual
from avbench.protocol.tracks import TRACKS
from avbench.ticks import TICKS_PER_FRAME, ticks
from avbench.types import ClipRecord, Gap, Reading, SegmentRecord, UsageError

LONG_S = 130


def manifest_of(
    *durations_s: int, categories: tuple[str, ...] = ("other",), reading: Reading | None = None
) -> Manifest:
    clips, segments = {}, []
    for n, duration_s in enumerate(durations_s):
        clip = ClipRecord(f"c{n}", f"v{n}", f"c{n}.mp4", "1" * 64, 25 * duration_s, 16_000 * duration_s)
        clips[clip.id] = replace(clip, reading=reading) if reading else clip
        segments += [
            SegmentRecord(f"c{n}-{i}", clip.id, clip.video_id, ticks(30 * i), 0, 10, category=category)
            for i, category in enumerate(categories)
        ]
    return Manifest("m", "files", "mine", "uniform", clips, tuple(segments), Path())


def test_synthsync_dynamic_has_two_streams_a_clip_and_every_law_in_its_share() -> None:
    manifest = planned()
    assert (manifest.name, len(manifest.clips), len(manifest.segments)) == (NAME, 120, 240)
    assert manifest.changing
    assert usual(manifest.changing) == dynamic()
    drawn = Counter(s.law.name for s in manifest.segments if s.law)
    assert drawn == {name: round(240 * share) for name, share in SHARES.items()}
    assert Counter(s.category for s in manifest.segments) == {"talking head": 80, "voice-over": 80, "other": 80}
    assert all(dynamic().supports(s, manifest.clips[s.clip_id]) for s in manifest.segments)
    assert planned() == manifest
    assert planned("valid").sha256 != manifest.sha256
    assert manifest.note.startswith("procedural stand-in")


def test_the_order_of_the_clips_makes_no_difference() -> None:
    """A manifest that was written and read has them by name: the data of the track must be the same."""
    source = synthsync.planned("synthsync-full")
    numbered = replace(source, clips={name: source.clips[name] for name in sorted(source.clips, key=lambda n: n[-3:])})
    assert list(numbered.clips) != list(source.clips)
    made = changing(numbered, ChangingRules(seed=SEED), NAME).manifest
    assert made.sha256 == planned().sha256 == TRACKS["synthsync-dynamic-test"].manifest_sha256
    first = changing(numbered, ChangingRules(limit=6)).manifest
    assert {s.category for s in first.segments} == {"talking head", "voice-over", "other"}


def test_a_law_is_the_one_drawn_for_its_stream_and_labels_its_beginning() -> None:
    rules = ChangingRules(laws=("jump", "multi"), seed=7)
    made = changing(manifest_of(LONG_S, LONG_S), rules).manifest
    for segment in made.segments:
        assert segment.law == draw_law(segment.law.name, segment.id, 7, rules.length)
        assert segment.offset == segment.law.pieces[0].offset
        assert segment.offset_class == made.grid.class_of(segment.offset_s)
    other = changing(manifest_of(LONG_S, LONG_S), replace(rules, seed=8)).manifest
    assert [s.id for s in other.segments] == [s.id for s in made.segments]
    assert other.sha256 != made.sha256


def test_every_law_fits_every_stream_whatever_it_draws() -> None:
    made = changing(manifest_of(104), ChangingRules(start_law="first")).manifest
    (stream,) = made.segments
    length = ChangingRules().length
    assert stream.start == ticks(2)  # the sound of 2 s before is there
    assert stream.start % TICKS_PER_FRAME == 0
    for name in SHARES:
        low, high = extremes(draw_law(name, stream.id, 3, length), length)
        assert stream.start + low >= 0
        assert stream.start + high + length <= made.clips["c0"].n_samples


def test_clips_that_hold_no_stream_are_named() -> None:
    made = changing(manifest_of(100, LONG_S), ChangingRules())
    assert made.too_short == ["c0"]
    assert set(made.manifest.clips) == {"c1"}
    with pytest.raises(UsageError, match=r"48 windows need 103 s without gaps, the longest clip lasts 100 s"):
        changing(manifest_of(100), ChangingRules())
    shorter = ChangingRules(laws=("jump",), protocol=dynamic(iterations=20))
    assert len(changing(manifest_of(100), shorter).manifest.segments) == 6


def test_no_stream_touches_a_gap() -> None:
    reading = Reading("centred", gaps=(Gap("sound", ticks(60), ticks(61)),))
    rules = ChangingRules(laws=("hold",), protocol=dynamic(iterations=12))
    made = changing(manifest_of(LONG_S, reading=reading), rules).manifest
    ends = [(s.start - ticks(2), s.start + rules.length + ticks(2)) for s in made.segments]
    assert ends
    assert all(end <= ticks(60) or start >= ticks(61) for start, end in ends)


def test_a_category_is_kept_where_all_segments_agree() -> None:
    rules = ChangingRules(laws=("hold",), start_law="first")
    assert changing(manifest_of(LONG_S, categories=("other", "other")), rules).manifest.segments[0].category == "other"
    assert changing(manifest_of(LONG_S, categories=("other", "")), rules).manifest.segments[0].category == ""
    assert changing(manifest_of(LONG_S, categories=()), rules).manifest.segments[0].category == ""


def test_a_limit_takes_the_first_streams_and_gives_each_law_its_share_of_them() -> None:
    made = changing(planned(), ChangingRules(laws=("hold", "jump"), limit=10)).manifest
    assert Counter(s.law.name for s in made.segments if s.law) == {"hold": 5, "jump": 5}
    assert len(made.clips) == 5


def test_laws_are_imposed_where_there_are_none_as_the_built_in_data_have_them() -> None:
    assert with_laws(synthsync.planned("synthsync-full", "test")) == planned()
    assert with_laws(planned()) == planned()
    mine = with_laws(manifest_of(LONG_S))
    assert (mine.name, mine.changing) == ("m-dynamic", True)
    assert mine == changing(manifest_of(LONG_S), ChangingRules(seed=SEED)).manifest
    with pytest.raises(UsageError, match="no clip of m is long enough"):
        with_laws(manifest_of(60))


def test_it_is_written_and_read_again(tmp_path: Path) -> None:
    made = changing(manifest_of(LONG_S), ChangingRules(seed=1)).manifest
    write_manifest(made, tmp_path)
    found = read_manifest(tmp_path)
    assert found.segments == made.segments
    assert found.sha256 == made.sha256


@pytest.mark.parametrize(
    ("rules", "problem"),
    [
        ({"limit": 0}, "limit is 0"),
        ({"start_law": "often"}, "start law 'often'"),
        ({"laws": ("hop",)}, "laws hop: choose among hold"),
        ({"laws": ()}, r"laws \(none\)"),
    ],
)
def test_rules_that_make_no_sense(rules: dict[str, object], problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        changing(manifest_of(LONG_S), ChangingRules(**rules))  # type: ignore[arg-type]


def test_hidden_offsets_cannot_be_replaced() -> None:
    with pytest.raises(UsageError, match="hidden offsets"):
        changing(replace(manifest_of(LONG_S), offset_law="hidden"), ChangingRules())


def test_unknown_data_names_all_built_in_ones() -> None:
    with pytest.raises(UsageError, match="synthsync-dynamic"):
        read_data("no-such-data")
