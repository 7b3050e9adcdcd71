"""The documentation site, the notebook and the README's first picture: made by one command each (extra: nightly)."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parent.parent
NOTEBOOK = REPO / "docs" / "avbench.ipynb"


def program(name: str) -> Path:
    path = Path(sys.executable).parent / name
    if not path.exists():
        pytest.skip(f"{name} is not installed: pip install -c constraints.txt -e '.[nightly]'")
    return path


def test_the_notebook_is_kept_without_outputs_and_its_code_is_valid() -> None:
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    codes = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert len(codes) > 5
    assert not any(cell.get("outputs") for cell in cells)
    for code in codes:
        compile(re.sub(r"\A%%writefile .*\n", "", code), NOTEBOOK.name, "exec")


def test_the_first_picture_of_the_readme_says_what_it_was_made_of() -> None:
    picture = (REPO / "docs" / "picture.svg").read_text(encoding="utf-8")
    assert "a procedural stand-in" in picture
    assert "what one window alone says" in picture
    assert len(picture) < 300_000


@pytest.mark.slow
def test_the_notebook_runs_as_it_stands(tmp_path: Path) -> None:
    command = [program("jupyter-execute"), "--timeout=600", "--output=done.ipynb", NOTEBOOK]
    copy = tmp_path / NOTEBOOK.name
    copy.write_bytes(NOTEBOOK.read_bytes())
    done = subprocess.run([*command[:-1], copy], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    cells = json.loads((tmp_path / "done.ipynb").read_text(encoding="utf-8"))["cells"]
    kinds = [set(output.get("data", {})) for cell in cells for output in cell.get("outputs", [])]
    assert sum("text/html" in kind for kind in kinds) >= 2, "the table of scores and the comparison"
    assert any("image/png" in kind for kind in kinds), "the picture of what is believed"
    assert (tmp_path / "runs" / "mine" / "run.html").exists()


@pytest.mark.slow
def test_the_site_is_built_and_no_link_leads_nowhere(tmp_path: Path) -> None:
    command = [program("mkdocs"), "build", "--strict", "--site-dir", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPO)
    assert done.returncode == 0, done.stdout + done.stderr
    pages = {path: path.read_text(encoding="utf-8") for path in tmp_path.rglob("index.html")}
    assert {"baselines", "benchmark/data", "docs/commands"} <= {
        p.parent.relative_to(tmp_path).as_posix() for p in pages
    }
    for path, page in pages.items():
        asked = re.findall(r'<(?:script|img|link)[^>]+(?:src|href)="(https?://[^"]+)"', page)
        assert not asked, f"{path} asks another host"
    front = pages[tmp_path / "index.html"]
    assert '<a href="benchmark/data/"><code>benchmark/data/README.md</code></a>' in front
    assert "avbench leaderboard build" in pages[tmp_path / "docs" / "commands" / "index.html"]
