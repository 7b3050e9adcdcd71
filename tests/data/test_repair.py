"""The command that would mend an offset; that it does so is tested with ffmpeg in tests/commands/test_predict.py."""

from __future__ import annotations

import os
import subprocess

import pytest

from avbench.data.repair import constant_offset_s, quoted, repair_command
from avbench.scoring.regimes import Regime

HEARD = Regime(0.0, 60.0, -0.62, 0.05, 0.99, "sure", 20)
SILENT = Regime(60.0, 70.0, None, None, 0.0, "no evidence", 0, "the sound is silent")


@pytest.mark.parametrize(
    ("regimes", "offset_s"),
    [
        ([HEARD], -0.62),
        ([SILENT, HEARD, SILENT], -0.62),
        ([HEARD, HEARD], None),  # it changes
        ([SILENT], None),
        ([], None),
        ([Regime(0.0, 9.0, 0.4, 0.05, 0.5, "unsure")], None),
        ([Regime(0.0, 9.0, 0.09, 0.05, 0.99, "sure")], None),  # it may well be 0
    ],
)
def test_only_a_constant_offset_that_is_clear_is_mended(regimes: list[Regime], offset_s: float | None) -> None:
    assert constant_offset_s(regimes) == offset_s


def test_names_are_neither_options_nor_addresses_nor_commands() -> None:
    early = repair_command("-x;rm.mp4", 0.4, (0, 2))
    assert early == (
        "ffmpeg -n -copyts -i './-x;rm.mp4' -itsoffset 0.400 -i './-x;rm.mp4' -map 0:0 -map 1:2 -c copy "
        "'./-x;rm.in-sync.mp4'"
    )
    assert "-i ./a:b.mkv -itsoffset -0.400" in repair_command("a:b.mkv", -0.4, (0, 1))
    assert repair_command("/a/b.avi", 0.4, (0, 1)).endswith("-c copy /a/b.in-sync.mkv")  # AVI has no time stamps
    assert repair_command("/a/b", 0.4, (0, 1)).endswith("-c copy /a/b.in-sync.mkv")


@pytest.mark.parametrize("raw", [b"a b", b"it's", b"\xff\xfe'\\n$x`", b"a\nb\x1b[31m", "grüße".encode(), b"$(id)"])
def test_a_shell_reads_back_what_was_quoted(raw: bytes) -> None:
    word = quoted(os.fsdecode(raw))
    assert "\n" not in word
    assert "\x1b" not in word
    read = subprocess.run(["bash", "-c", f"printf %s {word}"], capture_output=True, check=True).stdout
    assert read == raw
