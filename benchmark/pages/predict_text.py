"""Answers for files as text for a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from avbench.pages import number
from avbench.pages.tables import table
from avbench.scoring.prediction import VERDICTS, Prediction
from avbench.scoring.regimes import WORDS, Regime, judged

MOST_WARNINGS = 10


def clock(time_s: float) -> str:
    """``3:12``, ``1:02:03``; with a decimal below ten seconds where it is not whole."""
    whole = round(time_s)
    if time_s < 9.95 and abs(time_s - whole) >= 0.05:
        return f"0:{time_s:04.1f}"
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


def signed(offset_s: float) -> str:
    """``+0.41``, ``−0.62``."""
    return f"{'+' if round(offset_s, 2) > 0 else ''}{number(offset_s)}"


def measured(regime: Regime) -> str:
    """The offset with its spread, one standard deviation: ``-0.62 ±0.05 s``; "" without evidence."""
    if regime.offset_s is None:
        return ""
    if regime.words == "unsure":  # the spread is of what is believed, and that is not much
        return f"{signed(regime.offset_s)} s"
    return f"{signed(regime.offset_s)} ±{number(regime.spread_s)} s"


def verdict(prediction: Prediction, regime: Regime) -> str:
    """Outside which tolerances a regime is, within which, and by which it is not judged; "" without evidence."""
    if regime.offset_s is None:
        return ""
    said = {table.name: judged(regime, table) for table in prediction.tables}
    if set(said.values()) == {None}:
        return VERDICTS[None]
    parts = [
        f"{VERDICTS[wanted]} {', '.join(name for name, within in said.items() if within is wanted)}"
        for wanted in (False, True, None)
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
    lines += [table(rows, indent="  ")] if rows else []
    if prediction.verdict:
        lines.append(f"  asked     {prediction.verdict}")
    lines += [f"  note      {warning}" for warning in prediction.warnings[:MOST_WARNINGS]]
    if len(prediction.warnings) > MOST_WARNINGS:
        lines.append(f"  note      and {len(prediction.warnings) - MOST_WARNINGS} more, all of them with --json")
    if page:
        lines.append(f"  timeline  {page}")
    if prediction.repair:
        lines.append(f"  fix       {prediction.repair}   (not run)")
    return "\n".join(lines)


def table_of(predictions: Sequence[Prediction]) -> str:
    """One row a file, the worst first, how many there are of each kind, and what is true of many of them, once."""
    rows = [(standing(p), *worst_of(p), p.path) for p in sorted(predictions, key=lambda p: p.rank)]
    counts = {word: sum(row[0] == word for row in rows) for word in ("outside", "not judged", "within", "error")}
    told = ", ".join(f"{n} {word}" for word, n in counts.items() if n)
    asked = next((p.asked for p in predictions if p.asked), None)
    of = f"tolerance {asked.name}" if asked else "all tolerances"
    headers = ("", "worst regime", "offset", "confidence", "file")
    lines = [f"{name:<12}{said}" for name, said in shared_facts(predictions)]
    return "\n".join([table(rows, headers), "", *lines, f"{len(rows)} files: {told} ({of})"])


def shared_facts(predictions: Sequence[Prediction]) -> list[tuple[str, str]]:
    """What holds for many files, once: the model, why some are not judged and how many, and the notes of all files."""
    answered = [p for p in predictions if not p.error]
    if not answered:
        return []

    reasons = Counter(p.why_not_judged for p in answered if p.why_not_judged)
    return [
        ("model", answered[0].model),
        *((VERDICTS[None], f"{text} ({n} of {len(answered)} files)") for text, n in reasons.most_common(MOST_WARNINGS)),
        *(("note", text) for text in answered[0].warnings if all(text in p.warnings for p in answered)),
    ]


def standing(prediction: Prediction) -> str:
    """Whether the file is outside the tolerance asked for, or any, in a word or two."""
    if prediction.error:
        return "error"
    return VERDICTS[prediction.within]


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
