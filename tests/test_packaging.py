"""What is installed is what is in the folders, and it loads only what it needs."""

from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

import avbench

REPO = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((REPO / "pyproject.toml").read_text())
ROOMS = PROJECT["tool"]["setuptools"]["package-dir"]  # package -> folder
BANNED = {"torchvision", "torchaudio", "torchcodec", "timm", "facenet-pytorch", "open-clip-torch"}


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPO.parent)


def packages_on_disk() -> set[str]:
    found = set()
    for package, folder in ROOMS.items():
        for path, folders, names in os.walk(REPO / folder):
            folders[:] = [f for f in folders if not f.startswith((".", "__"))]
            if "__init__.py" in names:
                found.add(".".join([package, *Path(path).relative_to(REPO / folder).parts]))
    return found


def names_of(requirements: list[str]) -> set[str]:
    return {re.sub(r"[-_.]+", "-", Requirement(r).name).lower() for r in requirements}


def test_every_package_folder_is_shipped() -> None:
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == packages_on_disk()


def test_no_python_file_lies_outside_a_package() -> None:
    folders = {REPO / folder for folder in ROOMS.values()}
    stray = [p for f in folders for p in f.rglob("*.py") if not (p.parent / "__init__.py").exists()]
    # the template's files are a submitter's: they are copied, never imported as a part of the package
    template = {f"submissions/template/{name}.py" for name in ("my_net", "my_head")}
    assert {p.relative_to(REPO).as_posix() for p in stray} in (set(), template)


def test_versions_agree() -> None:
    assert PROJECT["project"]["version"] == avbench.__version__
    assert f"version: {avbench.__version__}" in (REPO / "CITATION.cff").read_text()
    assert f"## {avbench.__version__}" in (REPO / "CHANGELOG.md").read_text()


def test_the_paper_is_named_linked_and_cited() -> None:
    from avbench.runs.citing import PAPER, bibtex

    readme, entry = (REPO / "README.md").read_text(), bibtex(PAPER, ["the task"])
    (title,) = re.findall(r"^  title += \{(.+)\}", entry, re.MULTILINE)
    authors = re.findall(r"author += \{(.+)\}", entry)[0].split(" and ")
    named = " ".join(readme.partition("## The paper")[2].split())
    assert f"*{title}*, WACV 2025" in named
    (address,) = re.findall(r"^  url += \{(.+)\}", entry, re.MULTILINE)
    assert f"[paper]({address}), [code](https://github.com/jvoas655/StreamSync)" in named
    (paper,) = yaml.safe_load((REPO / "CITATION.cff").read_text())["references"]
    assert (paper["title"], paper["url"]) == (title, address)
    assert [f"{one['family-names']}, {one['given-names']}" for one in paper["authors"]] == authors
    assert all(" ".join(reversed(author.split(", "))) in named for author in authors)
    assert "https://arxiv.org/abs/2605.24652" in named, "how to tell it from another work of nearly the same name"


def test_the_readme_opens_with_a_picture_and_three_doors() -> None:
    front = (REPO / "README.md").read_text().partition("\n## ")[0]
    (picture,) = re.findall(r"!\[.+\]\((.+)\)", front)
    assert (REPO / picture).exists()
    doors = re.findall(r"^\| \*\*(.+?)\*\* \| `avbench (\w+)", front, re.MULTILINE)
    assert [command for _, command in doors] == ["run", "predict", "paper"], doors


def test_every_public_name_is_there() -> None:
    for name in avbench.__all__:
        assert getattr(avbench, name) is not None, name
    # a second time, and after the modules behind the names have been imported
    assert callable(avbench.evaluate)
    assert callable(avbench.load_model)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = avbench.nothing


def test_rooms_and_their_modules_are_there_after_a_bare_import() -> None:
    modules = [
        "scoring.metrics",
        "scoring.stats",
        "engine.store",
        "engine.replay",
        "protocol.manifest",
        "results.truth",
        "registry.names",
        "runs.loaded",
        "data.media",
        "latency.modes",
        "baselines.trivial",
        "baselines.apa",
    ]
    code = "; ".join(["import avbench", *(f"assert avbench.{m}.__name__ == 'avbench.{m}'" for m in modules)])
    done = python(code)
    assert done.returncode == 0, done.stderr
    with pytest.raises(AttributeError, match=r"module 'avbench\.scoring' has no attribute 'nothing'"):
        _ = avbench.scoring.nothing
    with pytest.raises(ImportError, match="nothing"):
        from avbench.engine import nothing  # noqa: F401


@pytest.mark.parametrize(
    "code",
    [
        "import avbench",
        "import avbench; avbench.scoring.metrics, avbench.scoring.stats, avbench.engine.store, avbench.engine.replay",
        "import avbench.cli; avbench.cli._parser().format_help()",
        "import avbench; [getattr(avbench, name) for name in avbench.__all__]",
        "import avbench.pages.run_text, avbench.data.from_files, avbench.data.inspect, avbench.baselines.apa",
        "from avbench.cli import main; main(['models'])",
        "import avbench.submissions.check, avbench.submissions.pack, avbench.submissions.push",
        "import avbench.leaderboard.audit, avbench.leaderboard.redraw",
        "from avbench.cli import main; main(['submit', 'tracks'])",
    ],
)
def test_no_torch(code: str) -> None:
    done = python(f"import sys; {code}; sys.exit('torch' in sys.modules)")
    assert done.returncode == 0, done.stderr


def test_the_command_line_imports_only_the_standard_library() -> None:
    code = (
        "import sys; import avbench.cli; avbench.cli._parser(); "
        "print([m for m in ('numpy', 'pandas', 'pyarrow', 'av', 'tqdm', 'pydantic', 'sklearn') if m in sys.modules])"
    )
    assert python(code).stdout.strip() == "[]"


@pytest.mark.parametrize("command", [["avbench"], [sys.executable, "-m", "avbench"]])
def test_the_command_works_as_a_process(command: list[str]) -> None:
    script = Path(sys.executable).parent / command[0]
    command = [str(script), *command[1:]] if command == ["avbench"] else command
    done = subprocess.run([*command, "--version"], capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stdout.strip() == f"avbench {avbench.__version__}"


def test_banned_packages_are_no_dependency_of_anything() -> None:
    """Directly, by an extra of ours, or through what those need."""
    extras = PROJECT["project"]["optional-dependencies"]
    todo = [Requirement(r) for r in [*PROJECT["project"]["dependencies"], *(r for rs in extras.values() for r in rs)]]
    seen: set[str] = set()
    while todo:
        requirement = todo.pop()
        name = re.sub(r"[-_.]+", "-", requirement.name).lower()
        assert name not in BANNED
        if name in seen or name == "avbench":
            continue
        seen.add(name)
        try:
            needs = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue  # of an extra that is not installed here
        for need in map(Requirement, needs):
            if need.marker is None or any(need.marker.evaluate({"extra": e}) for e in ("", *requirement.extras)):
                todo.append(need)
    assert "torch" in seen


def test_constraints_pin_every_dependency_exactly() -> None:
    lines = [line for line in (REPO / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z0-9-]+==[0-9][0-9a-z.]*", line) for line in lines)  # no +cpu: pip takes what fits
    names = [line.partition("==")[0] for line in lines]
    assert names == sorted(set(names))
    pinned = set(names)
    extras = PROJECT["project"]["optional-dependencies"]
    assert names_of(PROJECT["project"]["dependencies"]) <= pinned
    assert names_of([r for rs in extras.values() for r in rs]) - {"avbench"} <= pinned
    assert not pinned & BANNED


def test_ci_runs_the_command_that_the_readme_prints() -> None:
    readme = (REPO / "README.md").read_text()
    marked = re.search(r"<!-- test command -->\n```\n(.+)\n```", readme)
    assert marked is not None
    assert " && .venv/bin/pytest -n 2" in marked[1]
    runner = (REPO / ".ci" / "run").read_text()
    assert "pytest" not in runner, "the command has one home, the README"
    awk = re.search(r"command=\$\((awk .+)\)\n", runner)
    assert awk is not None
    found = subprocess.run(["bash", "-c", awk[1]], capture_output=True, text=True, cwd=REPO)
    assert found.stdout.strip() == marked[1]
    assert os.access(REPO / ".ci" / "run", os.X_OK)


def test_the_readme_and_the_command_agree() -> None:
    """Every ``avbench`` line of the README names a command and options that exist."""
    from avbench.cli import _parser

    lines = re.findall(r"^(?:.*/bin/)?avbench ([^#\n]+)", (REPO / "README.md").read_text(), re.MULTILINE)
    assert len(lines) >= 6
    for line in lines:
        # a recipe of the README is not there to be read
        _parser().parse_args(line.replace("--config run.yaml", "--model xcorr").split())


@pytest.mark.slow
def test_the_wheel_holds_the_packages_and_nothing_else(tmp_path: Path) -> None:
    copy = tmp_path / "source"
    ignore = {".git", ".venv", "build", "dist", "runs", "train"}
    subprocess.run(["cp", "-r", str(REPO), str(copy)], check=True)
    for name in ignore:
        subprocess.run(["rm", "-rf", str(copy / name)], check=True)
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(tmp_path), str(copy)]
    subprocess.run(pip, check=True)
    (wheel,) = tmp_path.glob("avbench-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert all(name.startswith(("avbench/", "avbench-")) for name in names)
    shipped = {name for name in names if name.endswith(".py")}
    expected = set()
    for package in packages_on_disk():
        room = max((r for r in ROOMS if package == r or package.startswith(r + ".")), key=len)
        folder = REPO / ROOMS[room] / package.removeprefix(room).lstrip(".").replace(".", "/")
        expected |= {f"{package.replace('.', '/')}/{p.name}" for p in folder.glob("*.py")}
    assert shipped == expected
    assert "avbench/py.typed" in names
    assert any(name.endswith(".v1.json") for name in names)
