"""Planning: the union of the windows that several protocols need."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avbench.protocol.laws import law_of
from avbench.protocol.plan import Plan, SnapshotKey, key_rows, keys_of, plan, shares
from avbench.protocol.rules import Protocol, paper, streaming
from avbench.ticks import ticks
from avbench.types import ClipRecord, Gap, Law, Piece, Reading, SegmentRecord, UsageError


def clip(duration_s: int = 120, name: str = "c") -> ClipRecord:
    return ClipRecord(name, f"v-{name}", f"{name}.mp4", "0" * 64, duration_s * 25, duration_s * 16_000)


def segment(start_s: float = 4, offset_s: float = 0.4, clip_id: str = "c", name: str = "s") -> SegmentRecord:
    return SegmentRecord(name, clip_id, f"v-{clip_id}", ticks(start_s), ticks(offset_s), 12)


def test_the_papers_tables_need_63_snapshots_a_segment() -> None:
    hops = [streaming(hop_s=h) for h in (1, 2, 3, 4)]
    counts = [streaming(iterations=n) for n in (2, 4, 12, 24, 32, 40, 48)]
    planned = plan([segment()], {"c": clip()}, hops + counts)
    assert planned.n_unique == len(planned.keys["c"]) == 63
    assert planned.n_naive == 4 * 18 + 162
    assert not any(planned.unsupported.values())


def test_keys_say_where_both_windows_start() -> None:
    keys = keys_of(streaming(iterations=3), segment(start_s=4, offset_s=-0.4))
    assert [(k.picture, k.sound) for k in keys] == [(ticks(4 + 2 * i), ticks(3.6 + 2 * i)) for i in range(3)]
    assert {(k.stretch_start, k.stretch_length, k.window) for k in keys} == {(-1, -1, ticks(5))}


def test_a_stretch_is_part_of_the_key() -> None:
    keys = keys_of(paper(iterations=3), segment(start_s=4, offset_s=0.4))
    assert keys[0] == SnapshotKey(ticks(2), ticks(2.4), ticks(2.4), ticks(5 + 3 * 2), ticks(5))
    # hop and count change what window 0 sees, so nothing is shared
    one, two = plan([segment()], {"c": clip()}, [paper(iterations=3)]), [paper(iterations=3), paper(iterations=4)]
    assert plan([segment()], {"c": clip()}, two).n_unique == one.n_unique + 4


def test_the_paper_cuts_the_sound_as_published() -> None:
    """``int((2 + round(offset, 2)) * 16000)`` from 2 s before the picture on: 57 of the 401 offsets lose a sample."""
    hundredths = range(-200, 201)
    shifts = [paper().heard(segment(4, k / 100)) for k in hundredths]
    assert shifts == [int((2 + k / 100) * 16_000) - 32_000 for k in hundredths]
    assert sum(shift != 160 * k for shift, k in zip(shifts, hundredths, strict=True)) == 57
    assert [streaming().heard(segment(4, k / 100)) for k in hundredths] == [160 * k for k in hundredths]
    assert paper().heard(replace(segment(), offset=ticks(0.4) + 79)) == ticks(0.4)  # rounded to 0.01 s
    late = keys_of(paper(iterations=2), segment(4, -1.6))
    assert [key.sound for key in late] == [ticks(0.4) - 1, ticks(2.4) - 1]
    assert late[0].scope == (ticks(0.4) - 1, ticks(9))
    assert keys_of(streaming(), segment(4, -1.6))[0].scope == (ticks(2.4), ticks(5))


@pytest.mark.parametrize(
    ("kind", "start_s", "end_s", "supported"),
    [
        ("picture", 3.9, 4, True),
        ("picture", 3.9, 4.01, False),
        ("picture", 8.99, 9.5, False),
        ("picture", 9, 9.5, True),
        ("sound", 4, 4.4, True),
        ("sound", 4.3, 4.41, False),
        ("sound", 9.39, 9.5, False),
        ("sound", 9.4, 9.5, True),
    ],
)
def test_a_window_that_touches_a_gap_is_not_supported(kind: str, start_s: float, end_s: float, supported: bool) -> None:
    reading = Reading(gaps=(Gap(kind, ticks(start_s), ticks(end_s)),))
    one = plan([segment()], {"c": replace(clip(), reading=reading)}, [streaming(iterations=1)])
    assert bool(one.n_unique) == supported
    assert [len(found) for found in one.unsupported.values()] == [int(not supported)]


@pytest.mark.parametrize("protocol", [streaming(hop_s=1), streaming(iterations=1), paper(hop_s=3, iterations=4)])
def test_rows_are_the_fields_of_the_keys(protocol: Protocol) -> None:
    segments = [segment(start_s=4 + k, offset_s=0.3 * k - 1) for k in range(5)]
    rows = key_rows(protocol, segments)
    assert rows.shape == (5, protocol.iterations, 6)
    expected = [[key.row for key in keys_of(protocol, s)] for s in segments]
    assert [[tuple(row) for row in of_segment] for of_segment in rows.tolist()] == expected
    assert key_rows(protocol, []).shape == (0, protocol.iterations, 6)
    with pytest.raises(UsageError, match="not on a frame"):
        key_rows(protocol, [segment(start_s=4.01)])


def test_windows_of_two_lengths_are_never_shared() -> None:
    both = [streaming(iterations=2), Protocol(window=ticks(4), iterations=2)]
    assert plan([segment()], {"c": clip()}, both).n_unique == 4


def test_segments_that_do_not_fit_are_told_apart_per_protocol() -> None:
    short, long = streaming(iterations=2), streaming(iterations=18)
    segments = [segment(name="a"), segment(start_s=10, name="b"), segment(name="x", clip_id="tiny")]
    planned = plan(segments, {"c": clip(45), "tiny": clip(6, "tiny")}, [short, long])
    assert [s.id for s in planned.supported[short]] == ["a", "b"]
    assert [s.id for s in planned.supported[long]] == ["a"]
    assert [s.id for s in planned.unsupported[long]] == ["b", "x"]
    assert set(planned.keys) == {"c"}


def test_impossible_requests_are_one_line() -> None:
    with pytest.raises(UsageError, match="there is no clip 'gone'"):
        plan([segment(clip_id="gone")], {"c": clip()}, [streaming()])
    with pytest.raises(UsageError, match=r"segment s: its first window starts at .* s, not on a frame"):
        keys_of(streaming(), segment(start_s=4.00625))


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(2, 60), st.integers(-10, 10)), min_size=1, max_size=5),
    st.lists(st.tuples(st.sampled_from([1, 2, 3]), st.integers(1, 12), st.booleans()), min_size=1, max_size=4),
)
def test_the_union_is_exactly_what_the_protocols_need(
    starts: list[tuple[int, int]], settings: list[tuple[int, int, bool]]
) -> None:
    protocols = [(paper if published else streaming)(hop_s=hop, iterations=n) for hop, n, published in settings]
    segments = [segment(start, 0.2 * offset, name=f"s{i}") for i, (start, offset) in enumerate(starts)]
    planned = plan(segments, {"c": clip(60)}, protocols)
    needed = [key for p, held in planned.supported.items() for s in held for key in keys_of(p, s)]
    assert planned.keys.get("c", ()) == tuple(sorted(set(needed)))
    assert planned.n_naive == len(needed)
    assert planned.n_unique <= planned.n_naive


def test_the_left_of_the_store_loads_no_torch() -> None:
    code = (
        "import sys, avbench.protocol.plan, avbench.engine.store, avbench.engine.replay\n"
        "import avbench.engine.fingerprint, avbench.engine.runner\n"
        "import avbench.baselines.apa; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# ------------------------------------------------------------------------------------------------ offsets that change


def test_a_pure_window_is_that_of_the_fixed_offset_and_others_carry_what_happens_inside() -> None:
    law = Law("jump", (Piece(0, ticks(0.4)), Piece(ticks(8), ticks(-0.4))))
    protocol = streaming(iterations=6)
    jumping = replace(segment(), law=law)
    keys = keys_of(protocol, jumping)
    before, after = keys_of(protocol, segment(offset_s=0.4)), keys_of(protocol, segment(offset_s=-0.4))
    assert keys[:2] == before[:2]
    assert keys[4:] == after[4:]
    # windows 2 and 3 begin 4 and 2 s before the change
    assert [key.sound for key in keys[2:4]] == [key.sound for key in before[2:4]]
    assert [law_of(key.law).pieces for key in keys[2:4]] == [
        (Piece(0, 0), Piece(ticks(4), ticks(-0.8))),
        (Piece(0, 0), Piece(ticks(2), ticks(-0.8))),
    ]
    planned = plan([jumping, segment(name="t")], {"c": clip()}, [protocol])
    assert planned.n_unique == 6 + 4  # two windows are shared
    assert key_rows(protocol, [jumping])[0].tolist() == [list(key.row) for key in keys]


def test_the_same_change_elsewhere_has_the_same_law_inside_its_window() -> None:
    def key(start_s: float, offset_s: float, change_s: float) -> SnapshotKey:
        pieces = (Piece(0, ticks(offset_s)), Piece(ticks(change_s), ticks(offset_s + 0.8)))
        one = replace(segment(start_s=start_s, offset_s=offset_s), law=Law("jump", pieces))
        return keys_of(streaming(iterations=1), one)[0]

    assert key(4, 0.4, 3).law == key(10, -0.6, 3).law != key(4, 0.4, 3.04).law
    assert key(4, 0.4, 5).law == "" != key(4, 0.4, 4.96).law


@pytest.mark.parametrize(("change_s", "offset_s", "room_s", "supported"), [(60, 2, 105, True), (60, 2, 100.9, False)])
def test_a_law_is_supported_where_the_clip_has_all_the_sound_that_it_needs(
    change_s: float, offset_s: float, room_s: float, supported: bool
) -> None:
    law = Law("jump", (Piece(0, 0), Piece(ticks(change_s), ticks(offset_s))))
    one = replace(segment(start_s=0, offset_s=0), law=law)
    held = replace(clip(), n_samples=ticks(room_s))
    assert streaming(iterations=48).supports(one, held) == supported
    early = replace(one, law=Law("jump", (Piece(0, 0), Piece(640, ticks(-0.05)))))
    assert not streaming(iterations=48).supports(early, clip())


def test_a_plan_holds_the_number_of_keys_and_makes_them_when_asked() -> None:
    """Those of a million segments would take gigabytes."""
    clips = {name: clip(name=name) for name in ("c", "d")}
    segments = [segment(4 + k, clip_id=name, name=f"{name}{k}") for name in clips for k in (0, 2, 3)]
    planned = plan(segments, clips, [streaming(iterations=4)])
    assert list(planned.keys) == ["c", "d"]
    assert len(planned.keys) == 2
    assert planned.keys["c"] == tuple(sorted({k for s in segments[:3] for k in keys_of(streaming(iterations=4), s)}))
    assert [planned.n_of(name) for name in clips] == [len(keys) for keys in planned.keys.values()] == [9, 9]
    assert planned.keys["c"] is not planned.keys["c"]
    with pytest.raises(KeyError):
        planned.keys["e"]


def test_a_segment_is_looked_at_once_for_each_protocol(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    plain = Protocol.supports
    monkeypatch.setattr(Protocol, "supports", lambda self, s, c: asked.append(s.id) or plain(self, s, c))
    segments = [segment(4 + k, name=f"s{k}") for k in range(10)]
    plan(segments, {"c": clip()}, [streaming(), streaming(iterations=40)])
    assert len(asked) == 2 * len(segments)


@settings(max_examples=50, deadline=None)
@given(sizes=st.lists(st.integers(1, 40), min_size=1, max_size=30), n=st.integers(1, 8))
def test_shares_hold_every_clip_once_and_are_about_equal(sizes: list[int], n: int) -> None:
    keys = {f"clip{k}": tuple(SnapshotKey(640 * i, 0) for i in range(size)) for k, size in enumerate(sizes)}
    found = shares(Plan(keys, {}, {}, 0), n)
    assert sorted(clip for share in found for clip in share) == sorted(keys)
    work = [sum(len(keys[clip]) for clip in share) for share in found]
    assert max(work) - min(work) <= max(sizes)
    assert found == shares(Plan(dict(reversed(keys.items())), {}, {}, 0), n)
