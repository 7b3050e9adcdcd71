"""What the words of ``predict`` and ``watch`` are worth: the shipped record, and how it is made."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from avbench.protocol.laws import draw_law
from avbench.scoring.regimes import Change, Regime, Rules
from avbench.ticks import ticks
from avbench.training import recipes, words
from avbench.training.dynamic import LENGTH, ChangingStreams, segments_of
from avbench.training.words import Followed, WordsRecipe, figures
from avbench.types import Law, Piece, SegmentRecord

REPO = Path(__file__).parents[2]
RECORD = json.loads((REPO / "baselines" / "results" / "words.json").read_text(encoding="utf-8"))


def test_the_shipped_record_is_of_todays_recipe_and_begins_with_todays_rules() -> None:
    assert RECORD["recipe"] == json.loads(json.dumps(asdict(WordsRecipe())))
    assert RECORD["rows"][0]["rules"] == asdict(Rules())
    assert len(RECORD["rows"]) == len(WordsRecipe().settings()) + len(WordsRecipe().heads) - 1


def test_the_words_mean_what_they_say() -> None:
    told = RECORD["rows"][0]["words"]
    assert told["sure"]["right"] >= 0.95
    assert told["likely"]["right"] >= 0.75
    assert told["unsure"]["right"] < told["likely"]["right"]


def test_the_documents_quote_the_record() -> None:
    row, readme = RECORD["rows"][0], (REPO / "baselines" / "README.md").read_text(encoding="utf-8")
    for word, found in row["words"].items():
        assert f"| {word} | {found['n']} | {100 * found['right']:.0f} % |" in readme


def stream(*pieces: tuple[float, float]) -> SegmentRecord:
    """A stream with these (from_s, offset_s)."""
    law = Law("multi", tuple(Piece(ticks(at_s), ticks(offset_s)) for at_s, offset_s in pieces))
    return SegmentRecord("s", "c", "c", 0, law.pieces[0].offset, 10, law=law)


def regime(start_s: float, end_s: float, offset_s: float, words: str = "sure") -> Regime:
    return Regime(start_s, end_s, offset_s, 0.1, 1.0, words)


def test_figures_of_a_stream_with_known_answers() -> None:
    before, after = regime(0, 53, 0.05), regime(53, 99, 0.6, "likely")
    change = Change(53, 60, before, after)
    found = figures([Followed(stream((0, 0.0), (50, 0.6)), [before, after], [change])])
    assert found["words"] == {"sure": {"n": 1, "right": 1.0}, "likely": {"n": 1, "right": 1.0}}
    assert (found["steps"], found["found"], found["false_changes_per_h"]) == (1, 1.0, 0.0)
    assert (found["date_error_s"], found["declared_after_s"]) == (3.0, 10.0)
    assert (found["within_one_spread"], found["within_two_spreads"]) == (1.0, 1.0)


def test_a_change_where_there_is_none_is_false_and_a_missed_one_is_not_found() -> None:
    before, after = regime(0, 20, 0.0), regime(20, 99, 0.6)
    found = figures([Followed(stream((0, 0.0), (50, 0.6)), [before, after], [Change(20, 30, before, after)])])
    assert found["found"] == 0.0
    assert found["false_changes_per_h"] == pytest.approx(3600 / 99, abs=0.01)
    assert found["words"]["sure"] == {"n": 2, "right": 1.0}  # 49 of 79 s
    assert figures([Followed(stream((0, 0.0)), [regime(0, 99, 0.25)], [])])["words"]["sure"]["right"] == 0.0


def test_streams_that_move_slowly_count_for_the_words_alone() -> None:
    law = draw_law("drift", "s", 1, LENGTH)
    segment = replace(stream((0, 0.0)), law=law)
    found = figures([Followed(segment, [regime(0, 99, 0.0)], [])])
    assert (found["steps"], found["false_changes_per_h"]) == (0, None)
    assert found["words"]["sure"]["n"] == 1


def test_the_record_is_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    segments = segments_of(3, 3, 4)
    labels = torch.from_numpy(np.random.default_rng(0).integers(0, 21, (12, 48)))
    logits = 4 * torch.nn.functional.one_hot(labels, 21).float()
    streams = ChangingStreams(logits, logits, logits, labels, tuple(segments))
    monkeypatch.setattr(words, "changing_streams", lambda *args: streams)
    small = replace(WordsRecipe(), hold=(2,), trust=(), enough=(), certain=(), heads=("bayes", "apa"))
    monkeypatch.setitem(recipes.RECIPES, "words", small)
    record = json.loads(recipes.run("words", tmp_path, lambda text: None).read_text(encoding="utf-8"))
    assert [(row["head"], row["rules"]["hold"]) for row in record["rows"]] == [("bayes", 3), ("bayes", 2), ("apa", 3)]
