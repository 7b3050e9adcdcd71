"""What `avbench paper` says of data with too few videos."""

from __future__ import annotations

from pathlib import Path

from avbench.data.opening import read_unmade
from avbench.paper.regenerate import _few


def test_the_limit_that_lets_something_be_separated_is_named() -> None:
    whole = read_unmade("synthsync-hard", "test")
    said = _few(whole.limit(6), "synthsync-hard", "test", 6)
    assert said == "one video: no intervals, nothing can be separated; use --limit 36 or more (6 videos)"
    assert len({s.video_id for s in whole.segments[:36]}) == 6
    assert len({s.video_id for s in whole.segments[:35]}) == 5
    assert _few(whole.limit(20), "synthsync-hard", "test", 20) == "", "of three videos there are intervals"
    assert _few(whole, "synthsync-hard", "test", None) == ""


def test_data_with_too_few_videos_say_how_many_it_takes(clicks: Path, five_clicks: Path) -> None:
    needed = "an interval needs 3 videos, a verdict 6"
    two = "2 videos: no intervals, nothing can be separated"
    assert _few(read_unmade(str(clicks)), str(clicks), "test", None) == f"{two}; {needed}"
    limited = read_unmade(str(five_clicks)).limit(1)
    assert _few(limited, str(five_clicks), "test", 1).endswith(f"; leave out --limit: {needed}")
    assert _few(limited, "hub:o/n@0", "test", 1).endswith(f"; raise --limit: {needed}"), "nothing is fetched for it"
