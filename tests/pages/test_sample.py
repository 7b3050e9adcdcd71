"""What a page shows of a long table, and how it says so."""

from __future__ import annotations

import pytest

from avbench.pages.sample import MOST_SHOWN, sampled


@pytest.mark.parametrize("n", [0, 1, MOST_SHOWN])
def test_a_short_table_is_shown_whole_and_without_a_word(n: int) -> None:
    found = sampled(n)
    assert found.rows.tolist() == list(range(n))
    assert not found.note


def test_of_a_long_table_every_kth_row_is_shown_and_the_page_says_so() -> None:
    found = sampled(100_000)
    assert found.rows.tolist() == list(range(0, 100_000, 200))
    assert found.note == "500 of 100,000 segments, every 200th"


@pytest.mark.parametrize(
    ("n", "note"),
    [
        (501, "251 of 501 segments, every 2nd"),
        (1001, "334 of 1,001 segments, every 3rd"),
        (5001, "455 of 5,001 segments, every 11th"),
        (10_001, "477 of 10,001 segments, every 21st"),
        (1_000_000, "500 of 1,000,000 segments, every 2,000th"),
    ],
)
def test_never_more_than_the_page_takes(n: int, note: str) -> None:
    found = sampled(n)
    assert len(found.rows) <= MOST_SHOWN
    assert found.rows[-1] < n
    assert found.note == note


def test_what_the_rows_are_is_said() -> None:
    assert sampled(30, "clips", most=10).note == "10 of 30 clips, every 3rd"
