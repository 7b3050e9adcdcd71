"""The rooms: ARCHITECTURE.md lists them, imports run one way, tests mirror them, what documents name is there."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from avbench.system import imports

REPO = Path(__file__).resolve().parent.parent
SETUPTOOLS = tomllib.loads((REPO / "pyproject.toml").read_text())["tool"]["setuptools"]
FOLDERS = {package: REPO / folder for package, folder in SETUPTOOLS["package-dir"].items()}
DOCUMENTS = ("ARCHITECTURE.md", "CONTRIBUTING.md")
NO_ROOM = {"golden", "property", "crash", "security", "benchmarks", "support"}  # folders of tests beside the rooms
# tests of the package as a whole, directly in tests/
WHOLE_PACKAGE = {
    f"test_{name}.py"
    for name in (
        "architecture",
        "cli",
        "cuda",
        "loopback_hub",
        "packaging",
        "requirements",
        "shape",
        "site",
        "workflows",
        "wrong_inputs",
    )
}
# -- rooms -------------------------------------------------------------------------------------------------------------


def listed() -> list[str]:
    """The rooms and files of the list in ARCHITECTURE.md, in its order, each described in one line."""
    block = re.search(r"^## Rooms\n.*?^```\n(.*?)^```$", (REPO / "ARCHITECTURE.md").read_text(), re.M | re.S)
    assert block, "ARCHITECTURE.md has no fenced list under '## Rooms'"
    names = []
    for line in block[1].splitlines():
        found = re.fullmatch(r"([a-z_]+(?:/|\.py)) {2,}\S.*", line)
        assert found, f"ARCHITECTURE.md, rooms: {line!r} is not 'room/  what it is for'"
        names.append(found[1])
    return names


ORDER = [name.removesuffix("/").removesuffix(".py") for name in listed()]


def package_folders(folder: Path) -> set[str]:
    return {f"{path.parent.name}/" for path in folder.glob("*/__init__.py")}


def test_the_list_names_the_rooms_there_are() -> None:
    rooms = package_folders(FOLDERS["avbench"]) | {f"{p.rpartition('.')[2]}/" for p in FOLDERS if p != "avbench"}
    assert {name for name in listed() if name.endswith("/")} == rooms
    assert len(set(ORDER)) == len(ORDER)


def test_the_root_of_the_package_contains_only_what_all_rooms_share() -> None:
    files = {path.name for path in FOLDERS["avbench"].glob("*.py")}
    assert files == {"__init__.py", "__main__.py", "cli.py", "types.py", "ticks.py"}
    assert files - {"__init__.py", "__main__.py"} == {name for name in listed() if name.endswith(".py")}


# -- imports -----------------------------------------------------------------------------------------------------------


def modules() -> Iterator[tuple[str, Path]]:
    """Every module of the package with its file, from the folders of pyproject's packages."""
    for package in SETUPTOOLS["packages"]:
        top = max((p for p in FOLDERS if f"{package}.".startswith(f"{p}.")), key=len)
        inside = package.removeprefix(top).strip(".").split(".")
        for path in sorted(FOLDERS[top].joinpath(*inside).glob("*.py")):
            yield package if path.name == "__init__.py" else f"{package}.{path.stem}", path.relative_to(REPO)


def read_imports() -> dict[str, set[str]]:
    """Module -> the modules it imports, also inside functions, for type checkers only, or by ``import_module``."""
    return {module: {found.module for found in imports.imports_of(module)} - {module} for module, _ in modules()}


def floor(module: str) -> int:
    """Where a module stands in the list: the package itself below all, ``__main__`` above all."""
    room = f"{module}..".split(".")[1]
    if room in ("", "__main__"):
        return -1 if room == "" else len(ORDER)
    return ORDER.index(room)


def arrows_back(found: Mapping[str, set[str]]) -> list[tuple[str, str]]:
    """What is imported from a room further down the list: (module, the module that it imports)."""
    return [
        (module, other)
        for module, others in sorted(found.items())
        for other in sorted(others)
        if floor(other) > floor(module)
    ]


def circles(found: Mapping[str, set[str]]) -> list[str]:
    """Modules that import each other in a circle, as "a -> b -> a"; one circle for each module that closes one."""
    told: list[str] = []
    done: set[str] = set()

    def walk(module: str, way: tuple[str, ...]) -> None:
        if module in way:
            told.append(" -> ".join((*way[way.index(module) :], module)))
        elif module not in done:
            for other in sorted(found.get(module, ())):
                walk(other, (*way, module))
            done.add(module)

    for module in sorted(found):
        walk(module, ())
    return told


def test_imports_run_one_way() -> None:
    found = read_imports()
    # the reader saw the package: a room without a single import from another one would prove nothing
    assert {"avbench.engine.session", "avbench.leaderboard.site", "avbench.cli", "avbench.__main__"} <= set(found)
    assert "avbench.commands.run" in found["avbench.cli"]
    files = dict(modules())
    assert [f"{files[module].as_posix()} imports {other}" for module, other in arrows_back(found)] == []
    assert circles(found) == []


@pytest.mark.parametrize(
    "line",
    [
        "from avbench.engine.store import SnapshotStore",
        "import avbench.engine.store",
        "from ..engine import store",
        "def later():\n    from avbench.engine import store",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from avbench.engine.store import SnapshotStore",
        "from importlib import import_module\ndef later():\n    import_module('avbench.engine.store')",
    ],
)
def test_an_arrow_back_is_named_however_it_is_written(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = imports.source
    made_up = f"\n{line}\n".encode()
    monkeypatch.setattr(imports, "source", lambda name: stored(name) + made_up * (name == "avbench.system.atomic"))
    imports.imports_of.cache_clear()
    try:
        found = read_imports()
    finally:
        imports.imports_of.cache_clear()
    assert arrows_back(found) == [("avbench.system.atomic", "avbench.engine.store")]
    assert any("avbench.system.atomic -> avbench.engine.store" in circle for circle in circles(found))


def test_which_arrows_run_back() -> None:
    fine = {
        "avbench.engine.a": {"avbench", "avbench.types", "avbench.system.b", "avbench.engine.c"},
        "avbench.__main__": {"avbench.cli"},
    }
    assert arrows_back(fine) == []
    assert arrows_back({"avbench.data": {"avbench.engine"}}) == [("avbench.data", "avbench.engine")]
    assert arrows_back({"avbench": {"avbench.types"}}) == [("avbench", "avbench.types")]
    with pytest.raises(ValueError, match="nowhere"):
        arrows_back({"avbench.nowhere.a": {"avbench.types"}})


def test_which_imports_are_a_circle() -> None:
    assert circles({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}}) == ["a -> b -> c -> a"]
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b -> c -> b"]


# -- the documents -----------------------------------------------------------------------------------------------------

_TOP = "|".join(["benchmark", "baselines", "submissions", "leaderboard", "tests"])
_PATH = re.compile(rf"(?<![\w./-])(?:{_TOP})/[\w./-]*[\w/]")
_ROOT_FILE = re.compile(r"(?<=[`(\s])[A-Za-z]+\.(?:md|toml|cff)(?=[`).,\s])")
_NAME_IN_FILE = re.compile(r"`([A-Za-z_][\w.]*)`\s+\(`([\w/]+\.py)`\)")
PLACEHOLDER = "NAME"  # baselines/families/NAME.py


def missing(text: str, repo: Path = REPO) -> set[str]:
    """What ``text`` names and ``repo`` lacks: paths, and "path name" for a `name` (`path`) that the file does not
    define."""
    paths = {p for p in _PATH.findall(text) if PLACEHOLDER not in p} | set(_ROOT_FILE.findall(text))
    named = _NAME_IN_FILE.findall(text)
    lacking = {path for path in paths if not (repo / path).exists()}
    in_files = [(repo / path, path, name) for name, path in named if path not in lacking]
    return lacking | {f"{path} {name}" for file, path, name in in_files if not defines(file, name)}


def defines(path: Path, name: str) -> bool:
    """Whether a file assigns, or defines as a class or function, ``name`` (``Class.member`` too) at its top level."""
    body: Sequence[ast.stmt] = ast.parse(path.read_bytes()).body
    for part in name.split("."):
        found = next((node for node in body if part in _names(node)), None)
        if found is None:
            return False
        body = getattr(found, "body", [])
    return True


def _names(node: ast.stmt) -> set[str]:
    if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        return {node.name}
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return {target.id for target in targets if isinstance(target, ast.Name)}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_what_a_document_names_is_there(document: str) -> None:
    text = (REPO / document).read_text()
    assert len(_PATH.findall(text)) > 20
    assert len(_NAME_IN_FILE.findall(text)) > 8
    assert missing(text) == set()


def test_a_missing_path_or_name_is_found(tmp_path: Path) -> None:
    folder = tmp_path / "benchmark"
    folder.mkdir()
    (folder / "a.py").write_text("X = 1\ny: int = 2\nclass C:\n    def method(self): ...\ndef f():\n    inner = 1\n")
    good = "`X` (`benchmark/a.py`), `y` (`benchmark/a.py`), `C.method` (`benchmark/a.py`) and benchmark/NAME.py"
    assert missing(good, tmp_path) == set()
    bad = "`benchmark/b.py` `inner` (`benchmark/a.py`) `C.other`\n(`benchmark/a.py`), see OTHER.md and tests/support/"
    lacking = {"benchmark/b.py", "benchmark/a.py inner", "benchmark/a.py C.other", "OTHER.md", "tests/support/"}
    assert missing(bad, tmp_path) == lacking


def test_the_readme_leads_to_both() -> None:
    assert all(document in (REPO / "README.md").read_text() for document in DOCUMENTS)


def test_every_test_that_any_text_names_is_there() -> None:
    texts = [p for f in FOLDERS.values() for e in ("*.py", "*.md") for p in f.rglob(e)]
    texts += [*REPO.glob("*.md"), *(REPO / ".github").rglob("*.yml"), *(REPO / "tests").rglob("*.py")]
    named = {
        (path.relative_to(REPO).as_posix(), test)
        for path in texts
        if path != Path(__file__).resolve()
        for test in re.findall(r"(?<![\w./-])tests/[\w/]+\.py", path.read_text(encoding="utf-8"))
    }
    assert len(named) > 10
    assert {(path, test) for path, test in named if not (REPO / test).exists()} == set()


# -- tests mirror the rooms --------------------------------------------------------------------------------------------


def misplaced(repo: Path, rooms: Mapping[str, Path]) -> list[str]:
    """Folders of tests that are no room, and test files that are not named after a module or folder of their room:
    ``tests/ROOM/test_x.py`` and ``test_x_more.py`` are the tests of ``x`` in ``rooms[ROOM]``."""
    tests, wrong = repo / "tests", []
    for folder in sorted(path for path in tests.iterdir() if path.is_dir() and not path.name.startswith((".", "__"))):
        if folder.name not in rooms and folder.name not in NO_ROOM:
            wrong.append(f"tests/{folder.name}/ is no room")
    for path in sorted(tests.rglob("test_*.py")):
        inside = path.relative_to(tests)
        room = inside.parts[0]
        if len(inside.parts) == 1:
            fits = path.name in WHOLE_PACKAGE
        elif room in rooms:
            beside = rooms[room].joinpath(*inside.parts[1:-1])
            known = {entry.stem for entry in beside.glob("*") if entry.is_dir() or entry.suffix == ".py"}
            name = path.stem.removeprefix("test_")
            fits = any(name == module or name.startswith(f"{module}_") for module in known)
        else:
            continue  # named after what they are about
        if not fits:
            wrong.append(f"tests/{inside.as_posix()} is named after no module")
    return wrong


def test_tests_mirror_the_rooms() -> None:
    rooms = {name: FOLDERS.get(f"avbench.{name}", FOLDERS["avbench"] / name) for name in ORDER}
    assert misplaced(REPO, {name: folder for name, folder in rooms.items() if folder.is_dir()}) == []


def test_a_misplaced_test_is_named(tmp_path: Path) -> None:
    room = tmp_path / "benchmark" / "data"
    for path in (room / "media.py", room / "building" / "split.py"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    good = ("data/test_media.py", "data/test_media_holes.py", "data/building/test_split.py", "crash/test_any.py")
    bad = ("attic/test_old.py", "data/building/test_media.py", "data/test_mediation.py", "test_media.py")
    for name in (*good, "test_cli.py", *bad):
        path = tmp_path / "tests" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert misplaced(tmp_path, {"data": room}) == [
        "tests/attic/ is no room",
        "tests/data/building/test_media.py is named after no module",
        "tests/data/test_mediation.py is named after no module",
        "tests/test_media.py is named after no module",
    ]
