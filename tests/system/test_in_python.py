from __future__ import annotations

import dataclasses
import inspect
import re

import pytest

from avbench.engine.runner import Compute
from avbench.runs.compare import compare
from avbench.runs.evaluate import evaluate
from avbench.system.in_python import ARGUMENTS, in_python


def test_an_option_is_said_as_the_argument_of_the_same_meaning() -> None:
    assert in_python("--force", "--out") == " (in Python: force=True, out=...)"
    assert in_python("--iterations 4") == " (in Python: iterations=4)"
    assert in_python("--store") == " (in Python: Compute(store=...))"


@pytest.mark.parametrize("said", ARGUMENTS.values())
def test_the_arguments_exist(said: str) -> None:
    of_compute, name = re.fullmatch(r"(Compute\()?(\w+)=.*", said).groups()  # type: ignore[union-attr]
    fields = {field.name for field in dataclasses.fields(Compute)}
    known = fields if of_compute else {*inspect.signature(evaluate).parameters, *inspect.signature(compare).parameters}
    assert name in known
