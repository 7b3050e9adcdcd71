"""Failures are gathered by cause, and what looks for a cause fits it."""

from __future__ import annotations

from avbench.pages.causes import causes
from avbench.results.run import Failure


def failure(clip: str, reason: str) -> Failure:
    return Failure(segment_id=f"{clip}@0", clip_id=clip, reason=reason)


def test_one_cause_is_one_line_whatever_the_window() -> None:
    broke = "model m broke off with ValueError: no (m.py, line 3, in predict)"
    failures = [failure(f"c{i // 2}", f"{broke}, iteration {i} (window at {2.5 * i} s)") for i in range(10)]
    found = causes([*failures, failure("x1", "cut off")], {"x1": "Grüße.mp4"})
    assert [str(cause) for cause in found] == [
        f"clips c0, c1, c2 and 2 more: {broke} (10 segments)",
        "clip Grüße.mp4: cut off (1 segment)",
    ]
    assert [cause.of_model for cause in found] == [True, False]


def test_other_windows_in_a_reason_are_of_the_reason() -> None:
    found = causes([failure("a", f"cut off, iteration {i} (window at 0 s), and more") for i in range(2)])
    assert len(found) == 2
