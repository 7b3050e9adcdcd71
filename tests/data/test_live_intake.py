"""Frames with all kinds of time stamps: whatever they do, the picture and the sound of a window belong together."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avbench.data.live_intake import Intake, Sound
from avbench.data.live_ring import MISSING_PICTURE, MISSING_SOUND, Ring, Taken

VIDEO, AUDIO = Fraction(1, 90_000), Fraction(1, 16_000)
PIECE = 640  # samples: the sound of a picture
CODES = 2**20  # sample n has the value n % CODES, picture k the pixels of k % CODES
N = 125  # rows of a window


class Feed:
    """A stream whose pictures and samples carry their numbers. ``tick`` sends picture k and its sound; ``clock_s`` is
    added to all stamps."""

    def __init__(self, wrap: int = 0) -> None:
        self.wall = 0.0
        self.events: list[tuple[str, float, dict[str, Any]]] = []
        self.ring = Ring(2, 20_000, 125)
        self.intake = Intake(self.ring, self.tell, wall=lambda: self.wall)
        self.wrap = wrap

    def tell(self, kind: str, t_s: float, **facts: Any) -> None:
        self.events.append((kind, t_s, facts))

    @property
    def reasons(self) -> list[str]:
        return [facts["reason"] for _, _, facts in self.events]

    def picture(self, k: int, clock_s: float = 0.0, kind: str = "64x64") -> None:
        stamp = round((Fraction(k, 25) + Fraction(clock_s)) / VIDEO)
        code = k % CODES
        pixels = np.broadcast_to(
            np.array([code >> 16, code >> 8 & 255, code & 255], np.uint8)[:, None, None], (3, 2, 2)
        )
        self.intake.picture(stamp % self.wrap if self.wrap else stamp, VIDEO, kind, lambda: pixels)

    def sound(self, k: int, clock_s: float = 0.0, channels: int = 1) -> None:
        base = VIDEO if self.wrap else AUDIO
        stamp = round((Fraction(k, 25) + Fraction(clock_s)) / base)
        samples = (np.arange(k * PIECE, (k + 1) * PIECE) % CODES).astype(np.float32)
        self.intake.sound(Sound(stamp % self.wrap if self.wrap else stamp, base, 16_000, channels, samples))

    def run(self, begin: int, end: int, clock_s: float = 0.0, sound_clock_s: float | None = None, **kind: Any) -> None:
        for k in range(begin, end):
            self.picture(k, clock_s)
            self.sound(k, clock_s if sound_clock_s is None else sound_clock_s, **kind)

    def windows(self) -> Iterator[Taken]:
        for row in range(0, self.ring.end - N + 1, 25):
            yield self.ring.take(row, N, 0)

    def covered(self) -> list[bool]:
        """Whether each window is covered; the picture and the sound of those that are belong together."""
        found = []
        for taken in self.windows():
            found.append(taken.video is not None)
            if taken.video is not None and taken.audio is not None:
                parts = taken.video[:, :, 0, 0].astype(int)
                codes = (parts[:, 0] << 16) + (parts[:, 1] << 8) + parts[:, 2]
                assert (np.diff(codes) % CODES == 1).all()
                assert np.array_equal(taken.audio, (codes[0] * PIECE + np.arange(N * PIECE)) % CODES)
        return found


def test_a_plain_stream() -> None:
    feed = Feed()
    feed.run(1000, 1500)
    feed.intake.end()
    assert feed.events == []
    assert feed.ring.end == feed.ring.latest == 500
    assert feed.covered() == [True] * 16


@pytest.mark.parametrize("lead", [-60, -1, 1, 60])
def test_sound_may_come_before_or_after_its_pictures(lead: int) -> None:
    feed = Feed()
    for k in range(1000, 1500):
        feed.picture(k)
        if k + lead >= 1000:
            feed.sound(k + lead)
    feed.intake.end()
    assert feed.events == []
    assert all(feed.covered()[-min(lead, 0) // 25 + (lead > 0) * 3 :])
    assert sum(feed.covered()) >= 10


def test_sound_that_came_before_the_first_picture_is_kept_for_it() -> None:
    feed = Feed()
    for k in range(900, 1100):
        feed.sound(k)
    feed.run(1000, 1001)
    for k in range(1001, 1300):
        feed.picture(k)
        feed.sound(k + 99)
    feed.intake.end()
    assert feed.events == []
    assert all(feed.covered())
    assert len(feed.covered()) > 5


@pytest.mark.parametrize("wrap", [2**33, 2**32])
def test_a_clock_that_wraps_is_no_event(wrap: int) -> None:
    feed = Feed(wrap)
    begin = wrap // 3600 - 200  # 3600 ticks a picture: the wrap comes after 8 s
    feed.run(begin, begin + 600)
    feed.intake.end()
    assert feed.events == []
    assert feed.covered() == [True] * 20


@pytest.mark.parametrize("to", [-900.0, -30.0, -1.0, 11.0, 80_000.0])
@pytest.mark.parametrize("lead", [-20, 0, 20])
def test_a_clock_that_jumps_is_a_gap_and_the_stream_goes_on(to: float, lead: int) -> None:
    feed = Feed()
    picture, sound = 1000, 1000 + lead
    while picture < 1900:
        feed.picture(picture, to if picture >= 1400 else 0)
        if sound >= 1000:
            feed.sound(sound, to if sound >= 1400 else 0)
        picture, sound = picture + 1, sound + 1
    feed.intake.end()
    jumps = [reason for reason in feed.reasons if "the clock of the picture jumps" in reason]
    assert len(jumps) == 1
    assert f"{'ahead' if to > 0 else 'back'} by {abs(to) - (0.04 if to < 0 else -0.04):.2f} s"[:12] in jumps[0]
    covered = feed.covered()
    assert covered[2:10].count(True) >= 7, "before it"
    assert covered[-8:-1].count(True) == 7, "after it"
    assert False in covered
    assert len(covered) == (feed.ring.end - N) // 25 + 1
    assert 900 <= feed.ring.latest <= 930, "the clock goes on from where it was"


def test_time_that_passed_meanwhile_is_time_of_the_stream() -> None:
    feed = Feed()
    feed.run(1000, 1300)
    feed.intake.close("the connection is lost")
    assert feed.ring.end == 300
    feed.wall += 12.0
    feed.run(0, 300)
    feed.intake.end()
    assert feed.reasons == ["the connection is lost"]
    assert feed.ring.latest == 600 + 12 * 25
    assert feed.covered() == [True] * 8 + [False] * 16 + [True] * 8


def test_sound_on_another_clock_than_the_picture_is_not_guessed_at() -> None:
    feed = Feed()
    feed.run(1000, 1300)
    feed.run(1300, 1800, 0.0, 5000.0)
    assert feed.reasons == ["the sound's clock is 5000 s ahead of the picture's"]
    assert feed.intake.lacking_s() > 10
    feed.run(1800, 2200)
    feed.intake.end()
    covered = feed.covered()
    assert all(covered[:7])
    assert not any(covered[9:31])
    assert all(covered[33:])
    assert len(covered) > 40


@pytest.mark.parametrize("missing_s", [3, 30])
def test_missing_pictures_are_a_gap_and_the_clock_goes_on(missing_s: int) -> None:
    feed = Feed()
    feed.run(0, 300)
    for k in range(300, 300 + 25 * missing_s):
        feed.sound(k)
    feed.run(300 + 25 * missing_s, 800 + 25 * missing_s)
    feed.intake.end()
    assert MISSING_PICTURE in feed.reasons
    told = [facts for _, _, facts in feed.events if facts["reason"] == MISSING_PICTURE][-1]
    assert (told["start_s"], told["end_s"]) == (12.0, 12.0 + missing_s)
    assert feed.ring.latest == 800 + 25 * missing_s
    covered = feed.covered()
    assert covered == [True] * 8 + [False] * (missing_s + 4) + [True] * 16
    assert {t.why for t in feed.windows()} == {"", MISSING_PICTURE}


@pytest.mark.parametrize("missing_s", [3, 30])
def test_missing_sound_is_a_gap_and_the_clock_goes_on(missing_s: int) -> None:
    feed = Feed()
    feed.run(0, 300)
    for k in range(300, 300 + 25 * missing_s):
        feed.picture(k)
    feed.run(300 + 25 * missing_s, 800 + 25 * missing_s)
    feed.intake.end()
    told = [facts for _, _, facts in feed.events if facts["reason"] == MISSING_SOUND][-1]
    assert (told["start_s"], told["end_s"]) == (12.0, 12.0 + missing_s)
    assert feed.covered() == [True] * 8 + [False] * (missing_s + 4) + [True] * 16


def test_a_few_lost_packets_are_silence_and_counted() -> None:
    feed = Feed()
    for k in range(500):
        feed.picture(k)
        if k not in (200, 300, 301):
            feed.sound(k)
    feed.intake.end()
    assert feed.events == []
    assert feed.intake.patched_s == pytest.approx(0.12)
    windows = list(feed.windows())
    assert all(t.audio is not None for t in windows)
    heard = windows[7].audio  # from row 175 on
    assert heard is not None
    assert not heard[25 * PIECE : 26 * PIECE].any()
    assert heard[26 * PIECE] == 201 * PIECE % CODES, "what follows is where it was"


def test_another_picture_format_is_a_gap_without_a_hole() -> None:
    feed = Feed()
    feed.run(0, 300)
    for k in range(300, 600):
        feed.picture(k, kind="128x72")
        feed.sound(k)
    feed.intake.end()
    assert feed.reasons == ["the picture changes from 64x64 to 128x72"]
    assert feed.covered() == [True] * 8 + [False] * 4 + [True] * 8


def test_another_sound_format_is_a_gap() -> None:
    feed = Feed()
    feed.run(0, 300)
    feed.run(300, 600, channels=2)
    feed.intake.end()
    assert feed.reasons == ["the sound changes from 16000 Hz, 1 channel to 16000 Hz, 2 channels"]
    covered = feed.covered()
    assert covered.count(True) >= 14
    assert False in covered


def test_pictures_that_come_too_late_and_those_without_a_stamp() -> None:
    feed = Feed()
    for k in range(500):
        feed.picture(k)
        if k == 250:
            feed.picture(k - 1)
        feed.sound(k)
    feed.intake.end()
    assert feed.events == []
    assert all(feed.covered())
    feed = Feed()
    for k in range(500):
        code = np.broadcast_to(np.array([0, k >> 8, k & 255], np.uint8)[:, None, None], (3, 2, 2))
        feed.intake.picture(None if k % 3 == 2 else k * 3600, VIDEO, "", lambda code=code: code)
        feed.sound(k)
    feed.intake.end()
    assert feed.events == []
    assert all(feed.covered())


_PARTS = st.lists(
    st.tuples(
        st.integers(1, 150),  # pictures
        st.sampled_from([0.0, 0.0, -5.0, 700.0, -700.0, 95_000.0]),  # clock of the pictures,
        st.sampled_from([0.0, 0.0, 0.0, 400.0]),  # and how far the sound's is off it
        st.sampled_from(["both", "both", "picture", "sound", "lost"]),
        st.floats(0, 20),  # wall clock that passes after it
    ),
    max_size=6,
)


@settings(max_examples=20)
@given(_PARTS, st.integers(-30, 30))
def test_whatever_the_stamps_do_time_never_goes_back_and_windows_belong_together(
    parts: list[tuple[int, float, float, str, float]], lead: int
) -> None:
    feed, k, latest = Feed(), 1000, 0
    for n, clock_s, off_s, what, passed_s in [*parts, (320, 3.0, 0.0, "both", 0.0)]:
        for i in range(k, k + n):
            if what != "sound":
                feed.picture(i, clock_s)
            if what != "picture":
                feed.sound(i + lead, clock_s + off_s)
            assert feed.ring.latest >= latest
            assert feed.ring.end <= feed.ring.latest
            latest = feed.ring.latest
        k += n
        if what == "lost":
            feed.intake.close("lost")
        feed.wall += passed_s
    feed.intake.end()
    assert feed.covered()[-5:-1] == [True] * 4, "and at the end all is well again"
    assert all(t_s <= latest / 25 for _, t_s, _ in feed.events)
