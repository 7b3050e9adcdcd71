"""Label-free figures of many files: means, intervals, pairs, and what is missing; without a model."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from avbench.scoring.figures import Figure, FileFigures, FileRow, LabelFree, pair
from avbench.scoring.stats import Bootstrap, cluster_weights

SIZE = Figure("size", "size (s)", "s", True, "how far off", most=2.0)
SURE = Figure("sure", "sure", "", False, "how sure")
SHIFT = Figure("shift_s", "shift (s)", "s", None, "signed", True)


def nothing(file: Any) -> dict[str, float]:
    raise AssertionError


FIRST = LabelFree("first", (SIZE, SHIFT), "by us", nothing, "synchformer")
OTHER = LabelFree("other", (SURE,), "by others", nothing, "syncnet")


def row(name: str, *, error: str = "", **values: float) -> FileRow:
    reasons = {"first": error, "other": error} if error else {}
    return FileRow(f"d/{name}.mp4", name, 5.0, values, reasons)


def figures(*rows: FileRow, **more: Any) -> FileFigures:
    return FileFigures((FIRST, OTHER), rows, **more)


def test_means_are_over_the_files_that_have_a_value_and_the_others_are_counted() -> None:
    values = [0.0, 0.2, 0.7, 1.4, 0.3, 0.6, 0.1]
    rows = [row(f"f{i}", size=v, shift_s=-v, sure=1.0) for i, v in enumerate(values)]
    rows += [row("x", error="broken"), row("y", error="broken"), row("z", error="silent")]
    found = figures(*rows, bootstrap=Bootstrap(500, seed=4))
    size, shift = found.summary["size"], found.summary["shift_s"]
    assert size.mean.value == pytest.approx(np.mean(values))
    assert size.median == pytest.approx(np.median(values))
    assert (size.mean.n, size.n_failed, dict(size.reasons)) == (7, 3, {"broken": 2, "silent": 1})
    # bounds are those of resampled means, widened: they hold the plain percentiles and stay within the range
    drawn = cluster_weights(list(range(7)), Bootstrap(500, seed=4)) @ np.array(values) / 7
    low, high = np.quantile(drawn, [0.025, 0.975])
    assert 0 <= size.mean.ci_low < low < size.mean.value < high < size.mean.ci_high < 2.0
    assert shift.mean.value == pytest.approx(-np.mean(values))
    assert shift.mean.ci_low < -high
    again = figures(*rows, bootstrap=Bootstrap(500, seed=4)).summary["size"]
    assert again.mean == size.mean
    assert figures(*rows, bootstrap=Bootstrap(500, seed=5)).summary["size"].mean != size.mean
    assert not found.complete


@pytest.mark.parametrize("n", [0, 1])
def test_fewer_than_two_files_have_no_interval(n: int) -> None:
    found = figures(*[row(f"f{i}", size=0.4, shift_s=0.4, sure=2.0) for i in range(n)])
    mean = found.summary["size"].mean
    assert mean.n == n
    assert math.isnan(mean.ci_low)
    assert math.isnan(mean.ci_high)
    document = found.document()["summary"]["size"]
    assert (document["value"], document["ci_low"], document["ci_high"]) == (0.4 if n else None, None, None)


def test_the_worst_comes_first_whichever_way_is_better() -> None:
    rows = [row("a", size=0.2, sure=1.0), row("b", size=1.0, sure=3.0), row("c", error="short"), row("d", size=0.6)]
    assert [r.key for r in figures(*rows).worst_first()] == ["b", "d", "a", "c"]
    by_sure = FileFigures((OTHER,), tuple(rows))
    assert [r.key for r in by_sure.worst_first()] == ["a", "b", "c", "d"]
    assert [SHIFT.badness(v) for v in (-1.0, 0.5)] == [1.0, 0.5]


def test_pairs_are_by_name_without_ending_and_differences_over_them() -> None:
    ours = [row(f"f{i}", size=0.1 * i, shift_s=0.1 * i, sure=1.0) for i in range(8)]
    theirs = [row(f"f{i}", size=0.05 * i + 0.1, shift_s=0.0, sure=1.0) for i in range(1, 9)]
    files, reference = pair(ours, theirs)
    assert [r.key for r in files if r.unpaired] == ["f0"]
    assert files[0].unpaired == "the reference has no file f0.*"
    assert [r.unpaired for r in reference if r.unpaired] == ["the files have no file f8.*"]
    found = figures(*files, reference=reference, paired=True)
    size = found.summary["size"]
    differences = [0.1 * i - (0.05 * i + 0.1) for i in range(1, 8)]
    assert size.difference is not None
    assert size.reference is not None
    assert size.difference.value == pytest.approx(np.mean(differences))
    assert size.difference.ci_low < np.mean(differences) < size.difference.ci_high
    assert (size.difference.n, size.reference.n, size.mean.n) == (7, 8, 8)
    assert size.reference.value == pytest.approx(np.mean([0.05 * i + 0.1 for i in range(1, 9)]))
    assert 0 < size.p < 1
    frame = found.frame().set_index("path")
    assert frame.loc["d/f3.mp4", "size.difference"] == pytest.approx(differences[2])
    assert math.isnan(frame.loc["d/f0.mp4", "size.reference"])
    assert found.document()["n_unpaired"] == 2
    assert not found.complete
    whole = figures(*pair(ours[1:], theirs[:-1])[0], reference=pair(ours[1:], theirs[:-1])[1], paired=True)
    assert whole.complete


def test_two_files_of_one_name_have_no_pair() -> None:
    twice = [FileRow("d/a.mp4", "a", values={"size": 1.0}), FileRow("d/a.mkv", "a", values={"size": 0.0})]
    files, reference = pair(twice, [row("a", size=0.5)])
    assert {r.unpaired for r in (*files, *reference)} == {"several files are named a.*"}
    found = figures(*files, reference=reference, paired=True).summary["size"]
    assert found.difference is not None
    assert found.difference.n == 0


def test_the_error_is_one_line_and_says_which_metrics() -> None:
    whole = FileRow("a", "a", reasons={"first": "broken", "other": "broken"})
    assert whole.error == "broken"
    part = FileRow("a", "a", values={"sure": 1.0}, reasons={"first": "too short"})
    assert part.error == "first: too short"
    both = FileRow("a", "a", reasons={"first": "too short", "other": "no face"})
    assert both.error == "first: too short; other: no face"
    assert FileRow("a", "a", values={"sure": 1.0}).error is None


def test_the_document_is_strict_json_with_a_key_for_every_metric() -> None:
    found = figures(row("a", size=0.4, shift_s=-0.4, sure=2.0), row("b", error="broken"))
    document = json.loads(json.dumps(found.document(), allow_nan=False))
    first, second = document["files"]
    assert (first["first"], first["size"], first["other"], first["sure"]) == (0.4, 0.4, 2.0, 2.0)
    assert first["shift_s_in_words"] == "audio 0.4 s late"
    assert (second["first"], second["size"], second["shift_s_in_words"], second["error"]) == (
        None,
        None,
        None,
        "broken",
    )
    assert {"path", "duration_s", "warnings", "error"} <= set(first)
    assert document["summary"]["first"] == document["summary"]["size"]
    assert {"value", "ci_low", "ci_high", "n", "n_failed"} <= set(document["summary"]["other"])
    assert (document["n_files"], document["n_failed"], document["complete"]) == (2, 1, False)
    assert "reference" not in document
    frame = found.frame()
    assert frame["size"].tolist()[0] == 0.4
    assert frame["error"].tolist() == ["", "broken"]
