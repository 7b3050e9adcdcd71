"""The ring: windows that are whole, that lack something, that lie across a cut, that are no longer there."""

from __future__ import annotations

import numpy as np
import pytest

from avbench.data.live_ring import MISSING_PICTURE, MISSING_SOUND, NOTHING, Ring, rows_of

ROW = 640


def picture(k: int) -> np.ndarray:
    return np.full((3, 4, 4), k % 251, np.uint8)


def filled(rows: int = 50, upto: int = 30) -> Ring:
    ring = Ring(4, rows, 10)
    for k in range(upto):
        ring.show(k, k + 1, picture(k))
    ring.hear(0, np.arange(upto * ROW, dtype=np.float32))
    return ring


def test_a_window_is_what_was_put_in() -> None:
    taken = filled().take(5, 20, 0)
    assert taken.video is not None
    assert taken.video[:, 0, 0, 0].tolist() == list(range(5, 25))
    assert np.array_equal(taken.audio, np.arange(5 * ROW, 25 * ROW, dtype=np.float32))


@pytest.mark.parametrize("skip", [1, 639, 640, 700])
def test_a_model_that_hears_early_gets_the_sound_from_later(skip: int) -> None:
    taken = filled().take(5, 20, skip)
    assert np.array_equal(taken.audio, np.arange(5 * ROW + skip, 25 * ROW + skip, dtype=np.float32))


def test_a_window_is_a_copy() -> None:
    ring = filled(rows=30)
    taken = ring.take(0, 20, 0)
    for k in range(30, 60):
        ring.show(k, k + 1, picture(k))
    assert taken.video is not None
    assert taken.video[:, 0, 0, 0].tolist() == list(range(20))


def test_what_is_written_over_is_said_to_be_gone() -> None:
    ring = filled(rows=30)
    ring.show(30, 31, picture(30))
    assert ring.take(0, 20, 0).overrun
    assert not ring.take(1, 20, 0).overrun


@pytest.mark.parametrize("piece", [1, 100, 639, 640, 641, 5000])
def test_sound_in_pieces_of_any_length_is_the_same(piece: int) -> None:
    ring, sound = Ring(4, 50, 10), np.arange(20 * ROW, dtype=np.float32)
    ring.show(0, 20, picture(1))
    for at in range(0, len(sound), piece):
        ring.hear(at, sound[at : at + piece])
    assert ring.end == 20
    assert np.array_equal(ring.take(0, 20, 0).audio, sound)


def test_missing_pictures_and_missing_sound_are_named() -> None:
    ring = filled()
    ring.show(32, 60, picture(1))
    ring.hear(30 * ROW, np.zeros(30 * ROW, np.float32))
    assert ring.take(15, 20, 0).why == MISSING_PICTURE
    assert ring.take(32, 20, 0).why == ""
    ring = filled()
    ring.show(30, 60, picture(1))
    ring.hear(31 * ROW - 5, np.zeros(29 * ROW + 5, np.float32))  # row 30 has its last samples only
    assert ring.take(15, 20, 0).why == MISSING_SOUND
    assert ring.take(31, 20, 0).why == ""


def test_a_hole_inside_a_row_makes_it_incomplete() -> None:
    ring = Ring(4, 50, 10)
    ring.show(0, 20, picture(1))
    ring.hear(0, np.zeros(10 * ROW + 100, np.float32))
    ring.hear(10 * ROW + 101, np.zeros(10 * ROW, np.float32))
    assert ring.take(0, 10, 0).why == ""
    assert ring.take(1, 10, 0).why == MISSING_SOUND
    assert ring.take(11, 9, 0).why == ""


def test_no_window_holds_both_sides_of_a_cut() -> None:
    ring = filled()
    ring.cut(12, "another format")
    assert ring.take(0, 12, 0).why == ""
    assert ring.take(0, 13, 0).why == "another format"
    assert ring.take(11, 5, 0).why == "another format"
    assert ring.take(12, 5, 0).why == ""


def test_cuts_do_not_pile_up() -> None:
    ring = filled(rows=30)
    for k in range(30, 5000):
        ring.show(k, k + 1, picture(k))
        ring.cut(k, "again")
    assert len(ring._cuts) < 70


def test_one_side_is_waited_for_and_then_counts_as_missing() -> None:
    ring = Ring(4, 50, 10)
    ring.show(0, 8, picture(1))
    assert (ring.end, ring.lacking()) == (0, "")
    ring.show(8, 25, picture(1))
    assert (ring.end, ring.latest, ring.lacking()) == (15, 25, MISSING_SOUND)
    ring.hear(0, np.zeros(60 * ROW, np.float32))
    assert (ring.end, ring.latest, ring.lacking()) == (50, 60, MISSING_PICTURE)
    ring.pass_to(70)
    assert (ring.end, ring.latest) == (70, 70)


def test_what_never_came_is_not_taken_for_what_was_written_over() -> None:
    ring = filled(rows=40)
    for row in (31, 45, 100):
        ring.pass_to(row)
    for k in range(100, 135):
        ring.show(k, k + 1, picture(k))
        ring.hear(k * ROW, np.zeros(ROW, np.float32))
    for row in (12, 30, 60, 85):
        taken = ring.take(row, 20, 0)
        assert (taken.why, taken.overrun) == (NOTHING, False)
    assert ring.take(100, 20, 0).why == ""
    assert len(ring._holes) == 0


def test_rows_of_seconds() -> None:
    assert [rows_of(s) for s in (0, 0.04, 0.05, 5, 5.0)] == [0, 1, 2, 125, 125]
