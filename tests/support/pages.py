"""What a page is made of, read without a browser."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"meta", "link", "br", "input", "img", "col"}


@dataclass
class Read:
    tags: list[str] = field(default_factory=list)
    attributes: list[tuple[str, str, str]] = field(default_factory=list)  # tag, name, value
    text: str = ""
    blocks: dict[str, list[str]] = field(default_factory=lambda: {"style": [], "script": []})
    unclosed: list[str] = field(default_factory=list)

    @property
    def policy(self) -> str:
        names = [v for t, n, v in self.attributes if t == "meta" and n == "http-equiv"]
        assert names == ["Content-Security-Policy"]
        return next(v for t, n, v in self.attributes if t == "meta" and n == "content" and "default-src" in v)


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.read, self.open = Read(), []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.read.tags.append(tag)
        self.read.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID and not self.get_starttag_text().endswith("/>"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.read.unclosed.append(tag)

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in self.read.blocks:
            self.read.blocks[self.open[-1]].append(data)
        else:
            self.read.text += data


def read(page: str) -> Read:
    reader = _Reader()
    reader.feed(page)
    reader.close()
    reader.read.unclosed += reader.open
    return reader.read


def assert_stands_alone(page: str) -> Read:
    """Well-formed, self-contained and under its own policy: returns what was read."""
    found = read(page)
    assert not found.unclosed
    for tag, name, value in found.attributes:
        assert not name.startswith("on"), (tag, name)
        assert name != "style", f"the policy would ignore it: {tag} {value}"
        if (tag, name) == ("img", "src") and value.startswith("data:image/jpeg;base64,"):
            continue
        if tag == "video" and re.fullmatch(r"run-clips/(worst|surest)-\d+-(seen|corrected)\.mp4", value):
            continue  # of the run's own folder
        assert name not in ("src", "srcset", "action", "formaction", "data", "xlink:href"), (tag, name, value)
        if name == "href":
            assert re.match(r"#|data:,$|\.\./|[\w./-]+$|https?://[!-~]+$", value), value
            assert tag == "a" or value == "data:,", "only links may name an address"
    assert "@import" not in page
    assert "url(" not in page
    for kind in ("style", "script"):
        for block in found.blocks[kind]:
            digest = base64.b64encode(hashlib.sha256(block.encode()).digest()).decode()
            assert f"{kind}-src 'sha256-{digest}'" in found.policy
    assert "unsafe" not in found.policy
    assert "default-src 'none'" in found.policy
    return found
