"""Self-contained pages: one file, no network requests. Shared by the run report and the leaderboard: the frame with
its content security policy, the stylesheet (``page.css``), charts, sections, and number formats.

Everything a page shows may come from a stranger. Autoescaping is on for every template; the content security policy
allows only the page's own style and script, by their hashes, so style attributes and event handlers have no effect; an
address becomes a link only through ``safe_url``.
"""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from importlib import resources
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from avbench.scoring.dynamic import SHOWN
from avbench.scoring.metrics import METRICS
from avbench.scoring.stats import interval_in_words, too_few
from avbench.types import OffsetGrid, offset_in_words

UNDEFINED = "–"
STAND_IN = "procedural stand-in"  # in the note of data made by a program: every figure of it says so
SCHEMES = ("https://", "http://")
MAX_URL = 500


def render(template: str, script: str = "", package: str = __name__, media: str = "", **context: Any) -> str:
    """Renders a template from ``templates/`` of ``package`` or of this package; ``script``: its JavaScript; ``media``:
    where its video may come from, in the words of the policy.

    Equal arguments give equal text. A name that the template uses but ``context`` lacks is an error.
    """
    style = _stylesheet()
    policy = "; ".join(
        (
            "default-src 'none'",
            f"style-src '{_csp_hash(style)}'",
            f"script-src '{_csp_hash(script)}'" if script else "script-src 'none'",
            "img-src data:",
            *([f"media-src {media}"] if media else []),
            "base-uri 'none'",
            "form-action 'none'",
        )
    )
    # both are files of this package; apart from charts, they are the only text that is not escaped
    parts = {"policy": policy, "style": Markup(style), "script": Markup(script)}  # noqa: S704
    return _environment(package).get_template(template).render(parts | context)


def script_text(name: str, package: str = __name__, sorting: bool = False) -> str:
    """A script of ``package``, for ``render``; ``sorting``: after the one that sorts tables."""
    texts = [resources.files(__name__).joinpath("sorting.js")] if sorting else []
    return "".join(file.read_text(encoding="utf-8") for file in (*texts, resources.files(package).joinpath(name)))


def fragment(template: str, package: str = __name__, **context: Any) -> Markup:
    """Renders a part of a page: a template as in ``render``, without the frame."""
    return Markup(_environment(package).get_template(template).render(context))  # noqa: S704 (autoescaped)


def safe_url(text: str | None) -> str | None:
    """The address if it may become a link, else None: http or https, no spaces or control characters."""
    if not text or len(text) > MAX_URL or not text.lower().startswith(SCHEMES):
        return None
    return text if re.fullmatch(r"[!-~]+", text) and not set(text) & set("\"'<>\\^`{|}") else None


def number(value: float | None, digits: int = 2) -> str:
    """``0.84`` with ``digits`` decimals and a real minus sign; a dash if undefined."""
    if value is None or value != value:
        return UNDEFINED
    text = f"{value:.{digits}f}"
    return text.replace("-", "\N{MINUS SIGN}") if float(text) else text.removeprefix("-")


def interval(low: float | None, high: float | None, digits: int = 2, between: str = "–") -> str:
    """``0.76–0.91``, empty if undefined."""
    if low is None or high is None or low != low or high != high:
        return ""
    return f"{number(low, digits)}{between}{number(high, digits)}"


def sortable(value: float | None) -> str:
    """The value for a sorting script; empty if undefined."""
    return "" if value is None or value != value else f"{value:.6g}"


def share_bar(value: float | None) -> Markup:
    """A thin bar as long as a value from 0 to 1, for a table cell; nothing if undefined or outside."""
    if value is None or not 0 <= value <= 1:
        return Markup("")
    shape = '<svg class="share" viewBox="0 0 48 3" aria-hidden="true"><rect class="field" width="48" height="3"/>'
    return Markup(shape + '<rect class="full" width="{:.1f}" height="3"/></svg>').format(48 * value)  # noqa: S704


def seconds_short(value: float) -> str:
    """``+0.4``, ``−1.2``, ``0`` for narrow headings; use ``offset_in_words`` elsewhere."""
    return "0" if abs(value) < 0.005 else f"{'+' if value > 0 else chr(0x2212)}{abs(value):.1f}"


def signed(value: float, digits: int = 2) -> str:
    """``+0.43``, ``−1.20``, ``0.00``, for tables whose heading says what a sign means; a dash if undefined."""
    return ("+" if round(value, digits) > 0 else "") + number(value, digits)


def class_in_words(label: int) -> str:
    """The offset of a class in words, such as "audio 0.4 s early"."""
    return offset_in_words(OffsetGrid().offset_of(label))


@cache
def _environment(package: str) -> Environment:
    loader = ChoiceLoader([PackageLoader(name) for name in dict.fromkeys((package, __name__))])
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, loader=loader
    )
    environment.filters.update(
        number=number, interval=interval, seconds_short=seconds_short, in_words=class_in_words, safe_url=safe_url
    )
    environment.filters.update(
        sortable=sortable, share_bar=share_bar, signed=signed, interval_in_words=interval_in_words
    )
    grid = OffsetGrid()
    offsets_s = [grid.offset_of(c) for c in range(grid.n_classes)]
    environment.globals.update(METRICS=METRICS, SHOWN=SHOWN, UNDEFINED=UNDEFINED, OFFSETS_S=offsets_s)
    environment.globals.update(STAND_IN=STAND_IN, TOO_FEW=f"{too_few().capitalize()}.")
    return environment


@cache
def _stylesheet() -> str:
    return resources.files(__name__).joinpath("page.css").read_text(encoding="utf-8")


def _csp_hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
