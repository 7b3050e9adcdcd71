"""The reader of imports: every kind of statement, and what it says of this package against what Python loads."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from avbench.system import imports
from avbench.system.imports import Import, imports_of, path_of, reachable

SOURCE = b"""
from __future__ import annotations
import os
from typing import TYPE_CHECKING
import avbench.system.machine as m
from avbench import scoring, __version__
from avbench.scoring import metrics
from avbench.types import UsageError, Tick
from . import charts
from ..data import synthsync
if TYPE_CHECKING:
    from avbench.protocol.manifest import Manifest
else:
    from avbench.protocol import Protocol
try:
    import avbench.latency
except ImportError:
    pass
class A:
    from avbench.ticks import seconds
    def method(self):
        if self:
            from avbench.scoring.stats import paired_difference
            import avbench.system.machine
async def later():
    from avbench.results import *
loaded = importlib.import_module("avbench.engine.store")
later = lambda: getattr(import_module("avbench.baselines.mini"), "load")
outside = import_module("torch.nn"), import_module(name), import_module("avbench_other")
"""


def test_every_kind_of_statement(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imports, "source", lambda module: SOURCE)
    at_once = "avbench avbench.data.synthsync avbench.latency avbench.system.machine avbench.scoring"
    at_once += " avbench.scoring.metrics avbench.pages.charts avbench.protocol avbench.ticks avbench.types"
    at_once += " avbench.engine.store"
    lazy = "avbench.scoring.stats avbench.results avbench.system.machine avbench.baselines.mini"
    expected = {Import(name, lazy=False, type_checking=False) for name in at_once.split()}
    expected |= {Import(name, lazy=True, type_checking=False) for name in lazy.split()}
    expected.add(Import("avbench.protocol.manifest", lazy=False, type_checking=True))
    for name in {found.module for found in expected}:
        assert path_of(name).is_file(), "a made-up source names modules there are"
    assert imports_of.__wrapped__("avbench.pages.sections") == expected
    # in a package's own file, one dot is the package itself
    relative = {found.module for found in imports_of.__wrapped__("avbench.pages") if "charts" in found.module}
    assert relative == {"avbench.pages.charts"}


def test_a_module_that_is_not_there() -> None:
    for name in ("avbench.nothing", "avbench.system.machine.nothing", "avbench.nothing.more"):
        with pytest.raises(ModuleNotFoundError, match=name):
            imports_of(name)


def test_reachable_holds_what_python_loads_and_loads_nothing() -> None:
    code = (
        "import json, sys\n"
        "from avbench.system.imports import reachable\n"
        "found = reachable(['avbench.leaderboard.site', 'avbench.commands.train'])\n"
        "before = sorted(sys.modules)\n"
        "import avbench.leaderboard.site, avbench.commands.train\n"
        "print(json.dumps([found, before, sorted(sys.modules)]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found, before, after = json.loads(done.stdout)
    reader = {"avbench", "avbench.system", "avbench.system.imports"}
    assert {name for name in before if name.startswith("avbench")} == reader
    assert {name for name in after if name.startswith("avbench")} - reader <= set(found)
    assert "avbench.training.head" in found, "lazy imports are followed"
    assert "avbench.baselines.mini" in found, "import_module of a constant name is followed"


def test_imports_for_type_checkers_are_not_followed() -> None:
    only_types = {found.module for found in imports_of("avbench.commands.common") if found.type_checking}
    assert "avbench.protocol.rules" in only_types
    checker = reachable(["avbench.submissions.check"])
    assert "avbench.scoring.metrics" in checker
    for other in ("avbench.engine.runner", "avbench.registry.names"):
        assert path_of(other).is_file()
        assert other not in checker
