"""Answers for files as text for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from tabulate import tabulate

from avbench.pages import number
from avbench.scoring.prediction import Prediction
from avbench.scoring.regimes import WORDS, Regime, judged

MOST_WARNINGS = 10


def clock(time_s: float) -> str:
    """``3:12``, ``1:02:03``; with a decimal below ten seconds where it is not whole."""
    whole = round(time_s)
    if time_s < 9.95 and abs(time_s - whole) >= 0.05:
        return f"0:{time_s:04.1f}"
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


def measured(regime: Regime) -> str:
    """The offset with its spread, one standard deviation: ``-0.62 ±0.05 s``; "" without evidence."""
    if regime.offset_s is None:
        return ""
    sign = "+" if round(regime.offset_s, 2) > 0 else ""
    if regime.words == "unsure":  # the spread is of what is believed, and that is not much
        return f"{sign}{number(regime.offset_s)} s"
    return f"{sign}{number(regime.offset_s)} ±{number(regime.spread_s)} s"


def verdict(prediction: Prediction, regime: Regime) -> str:
    """Outside which tolerances a regime is, and within which; "" if that cannot be said."""
    said = {table.name: judged(regime, table) for table in prediction.tables}
    parts = [
        f"{word} {', '.join(name for name, within in said.items() if within is wanted)}"
        for word, wanted in (("outside", False), ("within", True))
        if wanted in said.values()
    ]
    return " · ".join(parts)


def facts(prediction: Prediction) -> str:
    """``12:31 · 29.97 fps · picture track 1 of 1 · sound track 1 of 2 (default)``."""
    return " · ".join([clock(prediction.duration_s), f"{prediction.fps:.4g} fps", *prediction.tracks])


def in_text(prediction: Prediction, page: str = "") -> str:
    """One file's answer. ``page``: where its page is."""
    if prediction.error:
        return f"{prediction.path}   error: {prediction.error}"
    rows = [
        (
            f"{clock(regime.start_s)} - {clock(regime.end_s)}",
            f"no evidence ({regime.why})" if regime.offset_s is None and regime.why else regime.in_words,
            measured(regime),
            "" if regime.words == WORDS[3] else regime.words,
            verdict(prediction, regime),
        )
        for regime in prediction.regimes
    ]
    lines = [f"{prediction.path}   {facts(prediction)} · {prediction.model}"]
    lines += [f"  {line}".rstrip() for line in tabulate(rows, tablefmt="plain", disable_numparse=True).splitlines()]
    lines += [f"  note      {warning}" for warning in prediction.warnings[:MOST_WARNINGS]]
    if len(prediction.warnings) > MOST_WARNINGS:
        lines.append(f"  note      and {len(prediction.warnings) - MOST_WARNINGS} more, all of them with --json")
    if page:
        lines.append(f"  timeline  {page}")
    if prediction.repair:
        lines.append(f"  fix       {prediction.repair}   (not run)")
    return "\n".join(lines)


def table_of(predictions: Sequence[Prediction]) -> str:
    """One row a file, the worst first, and how many there are of each kind."""
    rows = [(standing(p), *worst_of(p), p.path) for p in sorted(predictions, key=lambda p: p.rank)]
    counts = {word: sum(row[0] == word for row in rows) for word in ("outside", "not judged", "within", "error")}
    told = ", ".join(f"{n} {word}" for word, n in counts.items() if n)
    asked = next((p.asked for p in predictions if p.asked), None)
    of = f"tolerance {asked.name}" if asked else "all tolerances"
    headers = ("", "worst regime", "offset", "confidence", "file")
    table = tabulate(rows, headers, tablefmt="plain", disable_numparse=True)
    return f"{table}\n\n{len(rows)} files: {told} ({of})"


def standing(prediction: Prediction) -> str:
    """Whether the file is outside the tolerance asked for, or any, in a word or two."""
    if prediction.error:
        return "error"
    return {False: "outside", None: "not judged", True: "within"}[prediction.within]


def worst_of(prediction: Prediction) -> tuple[str, str, str]:
    """The worst regime of a file in words, its offset with spread, and how sure it is; or why there is none."""
    worst = prediction.worst
    if prediction.error:
        return prediction.error, "", ""
    if worst is None:
        why = next((regime.why for regime in prediction.regimes if regime.why), "")
        return f"no evidence{f' ({why})' if why else ''}", "", ""
    changes = len(prediction.regimes) - 1
    more = f", {changes} change{'s' * (changes > 1)}" if changes else ""
    return f"{worst.in_words}{more}", measured(worst), worst.words
