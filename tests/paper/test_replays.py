"""The reader's own models: their rows, and what is refused before anything is computed."""

from __future__ import annotations

import pytest

from avbench.paper.replays import Need, Own
from avbench.registry.options import ModelOptions
from avbench.types import UsageError


def test_own_rows_are_marked_and_name_no_folder() -> None:
    rows = Own.of(["a/net.py:Net+apa", "b/net.py:Net+apa", "xcorr", "xcorr"], ModelOptions()).rows
    assert rows == {
        "† net.py:Net+apa (yours)": "a/net.py:Net+apa",
        "† net.py:Net+apa (yours, 2)": "b/net.py:Net+apa",
        "† xcorr (yours)": "xcorr",
    }
    tagged = Own.of(["sparsesync"], ModelOptions(), "synthsync-pt").rows
    assert tagged == {"† sparsesync.synthsync-pt (yours)": "sparsesync"}, "the weights that it has in the tables"
    need = Need(("xcorr",), ((2.0, 18),)).and_of(rows.values())
    assert need.models == ("xcorr", *rows.values())


def test_own_models_are_checked_at_once() -> None:
    with pytest.raises(UsageError, match="unknown model 'xcor'"):
        Own.of(["xcor"], ModelOptions())
    with pytest.raises(UsageError, match="class of your own in --model, and there is none"):
        Own.of(["xcorr"], ModelOptions(model_args={"a": 1}))
    with pytest.raises(UsageError, match="class of your own"):
        Own.of([], ModelOptions(model_args={"a": 1}))
    arguments = Own.of(["net.py:Net", "xcorr"], ModelOptions(model_args={"a": 1}))
    assert arguments.resolved("net.py:Net", "").options.model_args == {"a": 1}
    assert not arguments.resolved("xcorr", "").options.model_args
