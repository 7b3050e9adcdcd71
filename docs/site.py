"""Hooks of mkdocs: the site is made of the pages beside the code, of the notebook, and of every command's help.

Pages keep their paths in the repository, so links between them work there and here. A page that another names in
backquotes (`benchmark/data/README.md`) becomes a link.
"""

from __future__ import annotations

import argparse
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

REPO = Path(__file__).resolve().parent.parent
# what pages show or link to, that is no page itself
ASSETS = ("docs/picture.svg", "docs/avbench.ipynb", "baselines/results/windows.svg", "baselines/results/tracked.svg")
NOTEBOOK, COMMANDS = "docs/avbench.md", "docs/commands.md"
_NAMED = re.compile(r"`([\w./]+\.md)`")


def on_files(files: Files, config: Any) -> Files:
    """Adds the pages of the navigation, and what they show or link to."""
    made = {NOTEBOOK: notebook, COMMANDS: commands}
    for path in [*_pages(config["nav"]), *ASSETS]:
        if path in made:
            files.append(File.generated(config, path, content=made[path]()))
        else:
            files.append(File.generated(config, path, abs_src_path=str(REPO / path)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Turns the names of pages into links, outside blocks of code."""
    here = os.path.dirname(page.file.src_uri)

    def link(match: re.Match[str]) -> str:
        path = match[1]
        if files.get_file_from_path(path) is None or path == page.file.src_uri:
            return match[0]
        return f"[{match[0]}]({os.path.relpath(path, here or '.')})"

    blocks = re.split(r"(^```.*?^```)", markdown, flags=re.MULTILINE | re.DOTALL)
    return "".join(block if block.startswith("```") else _NAMED.sub(link, block) for block in blocks)


def notebook() -> str:
    """The notebook as a page: its texts and its code; what the code prints is seen when it is run."""
    cells = json.loads((REPO / "docs" / "avbench.ipynb").read_text(encoding="utf-8"))["cells"]
    texts = ("".join(cell["source"]) for cell in cells)
    return "\n\n".join(
        f"```python\n{text}\n```" if cell["cell_type"] == "code" else text
        for cell, text in zip(cells, texts, strict=True)
    )


def commands() -> str:
    """The help of every command, as it prints it."""
    from avbench.cli import _parser

    os.environ["COLUMNS"] = "100"
    parts = ["# Every command", "What `avbench COMMAND --help` prints."]
    for parser in _leaves(_parser()):
        parts += [f"## {parser.prog}", f"```text\n{parser.format_help()}```"]
    return "\n\n".join(parts)


def _leaves(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """The parsers of commands that have no commands of their own, in the order of the help, each once."""
    groups = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not groups:
        yield parser
    for group in groups:
        for command in dict.fromkeys(group.choices.values()):
            yield from _leaves(command)


def _pages(nav: Any) -> Iterator[str]:
    """The paths in a navigation of nested lists and dicts."""
    if isinstance(nav, str):
        yield nav
    else:
        for part in nav.values() if isinstance(nav, dict) else nav:
            yield from _pages(part)
