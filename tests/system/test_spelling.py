"""Names that are nearly right."""

from __future__ import annotations

from avbench.system.spelling import nearest


def test_the_nearest_names_or_all() -> None:
    known = ("train", "valid", "test")
    assert nearest("tset", known) == "did you mean test?"
    assert nearest("TEST", known) == "did you mean test?"
    assert nearest("perpetuum", known) == "there are train, valid, test"
    assert nearest("perpetuum", known, "ask somebody") == "ask somebody"
