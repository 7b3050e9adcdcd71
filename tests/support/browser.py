"""A real browser for tests of pages: the system's Chromium, cut off from the network, driven by playwright."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

DESKTOP, PHONE = (1280, 900), (390, 844)
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking")


@dataclass
class Opened:
    """``page``: playwright's; ``errors``: what the console complained of; ``requests``: every address asked for that
    is not the file itself."""

    page: Any
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    @property
    def overflow_px(self) -> int:
        """By how much the page is wider than its window: 0 where nothing has to be scrolled sideways."""
        return self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")


def chromium() -> str:
    """Where Chromium is; skips the test where there is none, unless AVBENCH_BROWSER=required says there must be."""
    found = next((path for path in map(shutil.which, NAMES) if path), None)
    if found is None:
        if os.environ.get("AVBENCH_BROWSER") == "required":
            pytest.fail(f"there is no browser ({', '.join(NAMES)}) and AVBENCH_BROWSER says there must be")
        pytest.skip("no Chromium on this machine (apt-get install chromium)")
    return found


@contextlib.contextmanager
def opened(path: Path, size: tuple[int, int] = DESKTOP, javascript: bool = True) -> Iterator[Opened]:
    """A local page in a browser of its own; nothing but the file itself is ever served to it."""
    from playwright.sync_api import sync_playwright

    executable = chromium()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=list(FLAGS))
        context = browser.new_context(
            viewport={"width": size[0], "height": size[1]}, java_script_enabled=javascript, offline=True
        )
        seen = Opened(context.new_page())
        seen.page.on("console", lambda m: seen.errors.append(m.text) if m.type in ("error", "warning") else None)
        seen.page.on("pageerror", lambda error: seen.errors.append(str(error)))
        seen.page.on("request", lambda r: None if r.url.startswith("file:") else seen.requests.append(r.url))
        seen.page.goto(path.resolve().as_uri())
        yield seen
        browser.close()


def overlapping(page: Any, selector: str) -> list[tuple[str, str]]:
    """The texts of each two visible elements whose boxes lie over each other."""
    return page.evaluate(
        """(selector) => {
          const all = [...document.querySelectorAll(selector)].map((e) => [e.textContent, e.getBoundingClientRect()]);
          const seen = all.filter(([, box]) => box.width);
          const over = (a, b) => a.left < b.right - 0.5 && b.left < a.right - 0.5
            && a.top < b.bottom - 0.5 && b.top < a.bottom - 0.5;
          return seen.flatMap(([a, one], i) =>
            seen.slice(i + 1).filter(([, two]) => over(one, two)).map(([b]) => [a, b]));
        }""",
        selector,
    )
