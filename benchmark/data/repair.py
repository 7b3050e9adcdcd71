"""The command that would mend a constant offset: shown to a person, never run."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import PurePath

from avbench.scoring.regimes import WORDS, Regime
from avbench.types import printable

KEPT = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".ts", ".mts", ".m2ts", ".flv")  # hold sound and picture at any time
CLEAR = 2.0  # standard deviations that an offset must be away from 0


def constant_offset_s(regimes: Sequence[Regime]) -> float | None:
    """The one offset of a stream, if it is sure or likely and clearly not 0; what has no evidence does not count."""
    heard = [regime for regime in regimes if regime.offset_s is not None]
    if len(heard) != 1 or heard[0].words not in WORDS[:2]:
        return None
    offset_s, spread_s = heard[0].offset_s, heard[0].spread_s
    assert offset_s is not None
    assert spread_s is not None
    return offset_s if abs(offset_s) > CLEAR * spread_s else None


def repair_command(path: str, offset_s: float, streams: tuple[int, int]) -> str:
    """The ffmpeg command that moves the sound by ``offset_s`` (positive: it is early, so it must come later) and copies
    picture and sound as they are. ``streams``: picture and sound, counted from 0 among all of the file's."""
    pure = PurePath(path)
    folder = pure if pure.is_absolute() else PurePath(os.curdir, path)  # "./-name.mp4" is no option, "./a:b" no address
    name = folder.as_posix() if pure.is_absolute() else f"./{pure.as_posix()}"
    suffix = pure.suffix if pure.suffix.lower() in KEPT else ".mkv"
    target = f"{name.removesuffix(pure.suffix)}.in-sync{suffix}"
    picture, sound = streams
    # without -copyts each input would begin at 0 with the stream that is taken from it, and lose what lies between both
    words = ["ffmpeg", "-n", "-copyts", "-i", name, "-itsoffset", f"{offset_s:.3f}", "-i", name]
    words += ["-map", f"0:{picture}", "-map", f"1:{sound}", "-c", "copy", target]
    return " ".join(map(quoted, words))


def quoted(word: str) -> str:
    """A word for a shell; with escapes, as bash and zsh read them, where it holds bytes that no terminal shows."""
    if printable(word) == word:
        return shlex.quote(word)
    plain = "".join(chr(b) if 32 <= b < 127 and chr(b) not in "\\'" else f"\\x{b:02x}" for b in os.fsencode(word))
    return f"$'{plain}'"
