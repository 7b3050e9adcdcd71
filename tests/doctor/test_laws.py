"""The doctor hears a clip under every law where o(t) says, to the sample, and hears it when a reader does otherwise.

The reader's mutations, such as one that applies a law a picture late, are caught by the doctor's own check.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from avbench.data.media import ClipReader
from avbench.doctor import laws as doctor
from avbench.doctor import machine
from avbench.engine import clip_pass
from avbench.protocol import laws, plan
from avbench.protocol.laws import SHARES, draw_law
from avbench.ticks import TICKS_PER_FRAME
from avbench.types import Law, Piece, Window

Avbench = Callable[..., subprocess.CompletedProcess[str]]


def drawn() -> list[Law]:
    return [draw_law(name, "click and flash", k, doctor.STREAM) for name, seeds in doctor.DRAWN.items() for k in seeds]


def problem() -> str:
    """What the doctor finds wrong; nothing if all is well."""
    (finding,) = doctor.check_laws()
    return "" if finding.ok else finding.text


def test_a_clip_under_every_law_is_heard_where_it_says() -> None:
    (finding,) = machine._laws()
    assert finding.ok, finding.text
    assert finding.text == (
        "changing offsets: click and flash under 13 laws (hold, jump, excursion, multi, ramp, drops, drift): "
        "heard where o(t) says, to the sample"
    )


def test_the_laws_that_are_checked_do_all_that_laws_do() -> None:
    checked = drawn()
    assert set(doctor.DRAWN) == set(SHARES)
    steps = [b.offset - a.offset for law in checked for a, b in zip(law.pieces, law.pieces[1:], strict=False)]
    slopes = {piece.slope_ppm for law in checked for piece in law.pieces}
    assert min(steps) < 0 < max(steps)
    assert {-88_000, 88_000, -2_800, 999, -23} < slopes
    assert any(law.mutes for law in checked)
    # each change is heard in a window, not only between two
    assert doctor.WINDOWS.hop < doctor.WINDOWS.window
    assert max(piece.start for law in checked for piece in law.pieces) < doctor.STREAM


def test_what_must_be_heard_is_found_by_counting_samples() -> None:
    """On paper: 5 samples a step, then one in four is skipped, then one in four is heard twice."""
    law = Law("any", (Piece(0, 2), Piece(5, -1), Piece(9, 0, 250_000), Piece(17, 0, -250_000)), (Window(1, 2),))
    heard = doctor.must_be_heard(np.arange(100), 10, 25, law).tolist()
    assert heard[:5] == [12, 0, 0, 15, 16]
    assert heard[5:9] == [14, 15, 16, 17]
    assert heard[9:17] == [19, 20, 21, 22, 24, 25, 26, 27]
    assert heard[17:] == [27, 27, 28, 29, 30, 30, 31, 32]


def test_the_doctor_prints_it(avbench: Avbench, monkeypatch: pytest.MonkeyPatch) -> None:
    for other in ("_environment", "_decoder", "_shifts", "_weights"):
        monkeypatch.setattr(machine, other, lambda: iter(()))
    done = avbench("doctor")
    assert done.returncode == 0
    assert sum("changing offsets: click and flash under" in line for line in done.stdout.splitlines()) == 1
    monkeypatch.setattr(clip_pass, "gathered", a_picture_late(clip_pass.gathered))
    done = avbench("doctor")
    assert done.returncode == 1
    assert "FAIL" in done.stdout


# ----------------------------------------------------------------------------------------------------------- mutations

Function = Callable[..., Any]


def moved(law: Law, pieces: tuple[int, int], mutes: tuple[int, int]) -> Law:
    """The law with other (start, slope or step) of what happens: ticks later, and times; mutes later and longer."""
    later, times = pieces
    changed = [piece._replace(start=piece.start + later, offset=piece.offset * times) for piece in law.pieces]
    return Law(law.name, tuple(changed), tuple(Window(m.start + mutes[0], m.length + mutes[1]) for m in law.mutes))


def a_picture_late(gathered: Function) -> Function:
    """Inside a window, everything happens 640 ticks late."""

    def late(sound: np.ndarray, begin: int, length: int, law: Law) -> np.ndarray:
        first = law.pieces[0]
        later = moved(law, (TICKS_PER_FRAME, 1), (TICKS_PER_FRAME, 0))
        return gathered(sound, begin, length, Law("", (first, *later.pieces[1:]), later.mutes))

    return late


def whole_a_picture_late(inside: Function) -> Function:
    """Everything in the stream happens 640 ticks late."""

    def late(law: Law, window: Window) -> tuple[int, Law | None]:
        later = moved(law, (TICKS_PER_FRAME, 1), (TICKS_PER_FRAME, 0))
        return inside(Law(law.name, (Piece(0, law.pieces[0].offset), *later.pieces), later.mutes), window)

    return late


def with_the_wrong_sign(gathered: Function) -> Function:
    return lambda sound, begin, length, law: gathered(sound, begin, length, moved(law, (0, -1), (0, 0)))


def mutes_end_a_sample_early(gathered: Function) -> Function:
    return lambda sound, begin, length, law: gathered(sound, begin, length, moved(law, (0, 1), (0, -1)))


def mutes_begin_a_sample_late(gathered: Function) -> Function:
    return lambda sound, begin, length, law: gathered(sound, begin, length, moved(law, (0, 1), (1, -1)))


def truncated(_: Function) -> Function:
    """Drift rounded towards 0 instead of down."""

    def offsets_at(law: Law, t: Any) -> np.ndarray:
        t = np.asarray(t, np.int64)
        k = np.maximum(np.searchsorted([piece.start for piece in law.pieces], t, side="right") - 1, 0)
        start, offset, slope = (np.array(column)[k] for column in zip(*law.pieces, strict=True))
        return offset + np.trunc((t - start) * slope / 1e6).astype(np.int64)

    return offsets_at


def a_slope_begins_anew_in_each_window(inside: Function) -> Function:
    """It is rounded from the window's beginning on, not from its own."""

    def anew(law: Law, window: Window) -> tuple[int, Law | None]:
        first, within = inside(law, window)
        if within is None:
            return first, None
        begun = [Piece(0, 0, p.slope_ppm) if p.start < 0 else p for p in within.pieces]
        return first, Law("", tuple(begun), within.mutes)

    return anew


def without_mutes(inside: Function) -> Function:
    return lambda law, window: inside(Law(law.name, law.pieces), window)


def without_a_law(sound_id: Function) -> Function:
    """Encoded sounds are taken for each other where only the law differs."""
    return lambda key: sound_id(key)._replace(law="")


@pytest.mark.parametrize(
    ("module", "name", "mutated"),
    [
        (clip_pass, "gathered", a_picture_late),
        (plan, "inside", whole_a_picture_late),
        (clip_pass, "gathered", with_the_wrong_sign),
        (laws, "offsets_at", truncated),
        (clip_pass, "gathered", mutes_end_a_sample_early),
        (clip_pass, "gathered", mutes_begin_a_sample_late),
        (plan, "inside", without_mutes),
        (plan, "inside", a_slope_begins_anew_in_each_window),
        (clip_pass, "_sound_id", without_a_law),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_reader_that_does_otherwise_is_caught(
    module: Any, name: str, mutated: Callable[[Function], Function], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mutation of the code, caught by the check of ``test_a_clip_under_every_law_is_heard_where_it_says``."""
    monkeypatch.setattr(module, name, mutated(getattr(module, name)))
    assert "something else is heard than o(t) says" in problem()


def test_sound_or_pictures_read_out_of_place_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    audio, frames = ClipReader.audio, ClipReader.frames
    with monkeypatch.context() as patched:
        patched.setattr(ClipReader, "audio", lambda self: np.roll(audio(self), 1))
        assert "is read 1 samples late" in problem()

    def late(self: ClipReader, *frontends: Any) -> Any:
        first = None
        for shown in frames(self, *frontends):
            first = first or shown
            yield first
            first = shown

    monkeypatch.setattr(ClipReader, "frames", late)
    assert "shows other pictures" in problem()
