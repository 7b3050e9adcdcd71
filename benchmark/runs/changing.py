"""What an evaluation of streams whose offsets change does besides: its scorer, its figures, and the price."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from avbench.engine.session import Session
from avbench.protocol.manifest import Manifest
from avbench.protocol.rules import Protocol
from avbench.registry.options import StreamingModel
from avbench.results.run import Mute, StreamLaw
from avbench.scoring.dynamic import SHOWN, price
from avbench.scoring.scorer import ChangingScorer, Scorer, undefined_is_none
from avbench.scoring.streams import WARM_UP
from avbench.ticks import seconds
from avbench.types import SegmentRecord, UsageError


def check_changing(manifest: Manifest, protocol: Protocol) -> None:
    """``UsageError`` if offsets change and ``protocol`` takes them for fixed, or if it cannot follow them."""
    if manifest.changing and protocol.name != "dynamic":
        raise UsageError(
            f"the offsets of {manifest.name} change while the streams run, and the {protocol.name} protocol takes them "
            "for fixed: leave the protocol out, or use --protocol dynamic"
        )
    if protocol.name == "dynamic" and not (protocol.iterations > WARM_UP and protocol.hop <= protocol.window):
        raise UsageError(
            f"{protocol.iterations} windows at hop {seconds(protocol.hop):g} s: the dynamic protocol scores windows "
            f"after the first {WARM_UP}, and needs a hop no longer than the window ({seconds(protocol.window):g} s)"
        )


def what_changed(
    score: Scorer, session: Session, model: StreamingModel, protocol: Protocol, logits: np.ndarray
) -> dict[str, Any]:
    """The fields ``recovery``, ``dynamic`` and ``laws`` of a result; none where offsets are fixed or nothing is
    scored."""
    if not isinstance(score, ChangingScorer) or not len(score.truth):
        return {}
    laws = {segment.id: _law(segment) for segment in session.segments(protocol)}
    found = score.details(logits, [law.name for law in laws.values()], session.alarms(model, protocol))
    rest = {name: part for name, part in found.items() if name not in (*SHOWN, "recovery")}
    rest["price"] = _price(session, model, protocol, score, logits)
    return {"recovery": found["recovery"], "dynamic": rest, "laws": laws}


def _law(segment: SegmentRecord) -> StreamLaw:
    mutes = segment.law.mutes if segment.law else ()
    muted = [Mute(start_s=seconds(mute.start), end_s=seconds(mute.end)) for mute in mutes]
    return StreamLaw(name=segment.law.name if segment.law else "hold", mutes=muted)


def _price(
    session: Session, model: StreamingModel, protocol: Protocol, score: ChangingScorer, logits: np.ndarray
) -> dict[str, Any]:
    """Metric -> difference to the fixed-offset track, on the ``n`` streams whose offset never changes: the same streams
    without what their law mutes. Empty where there are none, or where one of them cannot be read so."""
    plain = without_laws(replace(session.manifest, segments=session.segments(protocol)))
    held = plain.segments
    if model.backbone is None or not held:
        return {}
    fixed = Session(plain, session.how.using(session.store, session.workers), session.seed, session.progress)
    fixed.need(model, protocol)
    fixed.compute("the same without mutes")
    if len(fixed.segments(protocol)) != len(held):
        return {}
    rows = [score.truth.place[segment.id] for segment in held]
    found = price(
        logits[rows],
        fixed.predictions(model, protocol),
        score.windows.take(rows),
        score.truth.clusters[rows],
        score.bootstrap,
    )
    return {"n": len(rows), **undefined_is_none({name: dict(part) for name, part in found.items()})}


def without_laws(manifest: Manifest) -> Manifest:
    """The segments whose offset never changes, as ones of fixed offset: nothing is muted."""
    held = (segment for segment in manifest.segments if _constant(segment))
    return replace(manifest, segments=tuple(replace(segment, law=None) for segment in held))


def _constant(segment: SegmentRecord) -> bool:
    """Whether the offset stays all the time."""
    return segment.law is None or (len(segment.law.pieces) == 1 and not segment.law.pieces[0].slope_ppm)
