"""Where a run's time went, as the page of the run shows it."""

from __future__ import annotations

import re

import pytest
from pages import read

from avbench.pages.time_spent import BAR, in_words, where_time_went
from avbench.results.run import RunResult, Spent


def block(spent: Spent | None) -> str:
    return str(where_time_went(RunResult.model_construct(spent=spent)))


def test_the_parts_fill_the_bar_in_proportion() -> None:
    text = block(Spent(decode_s=30, compute_s=90, wait_s=0, transfer_s=0))
    widths = [float(w) for w in re.findall(r'<rect [^>]*y="0" width="([\d.]+)"', text)][:2]
    assert widths == [BAR[0] / 4, 3 * BAR[0] / 4]
    said = " ".join(read(text).text.split())
    assert "reading and cutting clips 30.0 s · the models' calls 1 min 30 s (added up" in said
    assert "waiting" not in said  # what took no time is not shown


@pytest.mark.parametrize("spent", [None, Spent()])
def test_nothing_is_shown_where_nothing_was_computed(spent: Spent | None) -> None:
    assert block(spent).strip() == ""


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.42, "0.42 s"), (1.25, "1.2 s"), (59.7, "1 min 0 s"), (75, "1 min 15 s"), (8000, "2 h 13 min")],
)
def test_lengths_are_read_easily(seconds: float, words: str) -> None:
    assert in_words(seconds) == words
