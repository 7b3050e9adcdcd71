"""What the paper expected of offsets that change: does a learned head react faster than averaging?

The paper did not measure it. Here every row follows the same streams, whose offsets change while they run; rows and
scores are those of dynamic.md, sections 6 and 7. Plain heads read the snapshots of SparseSync. A StreamSync head reads
those of the backbone that it was trained with; where they are not the same, averaging on that is a row, too, so that
only the head differs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from avbench.data.dynamic import with_laws
from avbench.engine.session import Session
from avbench.paper import reported
from avbench.paper.exhibits import (
    CHANGING,
    OWN_NOTE,
    Cell,
    Claim,
    Curve,
    Exhibit,
    cell,
    claim,
    number,
    title_of,
    videos_of,
)
from avbench.paper.replays import Own
from avbench.protocol.manifest import Manifest
from avbench.protocol.rules import dynamic
from avbench.registry.facts import signature_of
from avbench.registry.loading import load_all
from avbench.registry.options import StreamingModel
from avbench.results.dynamic_truth import WindowTruth
from avbench.results.truth import Truth
from avbench.runs.changing import without_laws
from avbench.scoring.dynamic import AVERAGED_S, SHOWN, headline, main_scores, paired, recovery_times
from avbench.scoring.reaction import tracked_since
from avbench.scoring.stats import Bootstrap, Estimate, bootstrap_scores, paired_difference
from avbench.scoring.streams import Streams, checked_streams
from avbench.scoring.survival import table
from avbench.ticks import TICKS_PER_S, seconds
from avbench.types import UsageError

PROTOCOL = dynamic()
APA, SLIDING, DECAYING, BAYES = "APA SparseSync", "APA, sliding", "APA, decaying", "bayes"
TRF, LSTM = "StreamSync-Trf", "StreamSync-LSTM"
TRAINED_FOR_IT = {TRF: f"{TRF}, changing", LSTM: f"{LSTM}, changing"}  # trained on offsets that change
ON_THE_SAME = {TRF: f"APA on {TRF}'s backbone", LSTM: f"APA on {LSTM}'s backbone"}
# row -> model
ROWS = {
    APA: "sparsesync+apa",
    SLIDING: "sparsesync+apa-sliding",
    DECAYING: "sparsesync+apa-decay",
    TRF: "streamsync-trf",
    LSTM: "streamsync-lstm",
    TRAINED_FOR_IT[TRF]: "streamsync-trf.dynamic",
    TRAINED_FOR_IT[LSTM]: "streamsync-lstm.dynamic",
    "one window": "sparsesync",
    BAYES: "sparsesync+bayes",
    "cusum": "sparsesync+cusum",
    "oracle": "oracle",
    "constant": "constant",
    ON_THE_SAME[TRF]: "streamsync-trf+apa",
    ON_THE_SAME[LSTM]: "streamsync-lstm+apa",
}
NOT_DRAWN = ("constant", *ON_THE_SAME.values())
SCORES = (
    *("recovery_s", "recovery_median_s", "recovered_within_10_s", "recovered_within_20_s", "recovered_within_40_s"),
    *("false_changes_per_h", "tracked_acc_tol1", "tracked_acc", "tracking_error_s"),
)
HEADLINE, HELD = "headline (s)", "Acc, held"
EXPECTED, OURS = " (the paper expects it)", " (not in the paper)"
NOT_RECOVERED, TRACKED = "share of changes not yet recovered from", "share of windows within ±1 class"


@dataclass(frozen=True, eq=False)
class Followed:
    """What each row says of N streams whose offsets may change, and of the H among them that never do.

    ``missing``: rows whose model this avbench does not have. A row of ``ON_THE_SAME`` is left out where it is that of
    ``APA`` to the bit: the backbone was not changed when its head was trained.
    """

    manifest: Manifest
    windows: WindowTruth
    truth: Truth
    logits: Mapping[str, np.ndarray]  # row -> (N, 48, 21)
    held: Truth
    held_logits: Mapping[str, np.ndarray]  # row -> (H, 21), at the last window, nothing muted
    missing: tuple[str, ...] = ()
    own: Mapping[str, str] = field(default_factory=dict)  # row -> model of the reader's own
    signatures: Mapping[str, str] = field(default_factory=dict)  # row -> that of the streams that change

    def streams(self, row: str) -> Streams:
        """What one row says, ready to be scored."""
        return checked_streams(self.logits[row], self.windows, videos=self.truth.clusters)


def follow(session: Session, own: Own | None = None) -> tuple[Followed, list[Session]]:
    """All rows, with those of one's ``own`` models, on the data of ``session``: as they are if their offsets change,
    else laws are imposed on their clips as ``synthsync-dynamic`` does. Returns with them the sessions that computed,
    for their counters, failures and warnings.

    Snapshots come from the session's store; those that it lacks are computed. ``UsageError``: no clip, or no stream, is
    long enough, or the offsets are hidden.
    """
    own = own or Own(device=session.how.device)
    models, missing = _models(own)
    whole = _session(session, with_laws(session.manifest))
    if not whole.supported(PROTOCOL):
        raise UsageError(
            f"no stream of {whole.manifest.name} is long enough for {CHANGING} ({PROTOCOL.iterations} windows at hop "
            f"{seconds(PROTOCOL.hop):g} s); `avbench data dynamic` makes longer ones"
        )
    logits = _predictions(whole, models, "offsets that change")
    segments = whole.segments(PROTOCOL)
    still = _session(session, without_laws(replace(whole.manifest, segments=segments)))
    held = _predictions(still, models, "offsets that hold")
    for row in ON_THE_SAME.values():
        if np.array_equal(logits[row], logits[APA]) and np.array_equal(held[row], held[APA]):
            del logits[row], held[row]
    followed = Followed(
        manifest=whole.manifest,
        windows=WindowTruth.of(segments, PROTOCOL),
        truth=whole.truth(PROTOCOL),
        logits=logits,
        held=still.truth(PROTOCOL),
        held_logits={row: said[:, -1] for row, said in held.items()},
        missing=missing,
        own=own.rows,
        signatures={row: str(signature_of(whole, model, PROTOCOL)) for row, model in models.items() if row in logits},
    )
    return followed, [whole, still]


def _session(like: Session, manifest: Manifest) -> Session:
    return Session(manifest, replace(like.how, store=like.store), like.seed, like.progress)


def _models(own: Own) -> tuple[dict[str, StreamingModel], tuple[str, ...]]:
    """Row -> loaded model, and the rows of models that this avbench does not have."""
    found, missing = {}, []
    for row, name in (ROWS | dict(own.rows)).items():
        try:
            found[row] = own.resolved(name, own.tag if row in own.rows else "")
        except UsageError:
            if row not in TRAINED_FOR_IT.values():
                raise
            missing.append(row)
    return dict(zip(found, load_all(list(found.values()), own.device), strict=True)), tuple(missing)


def _predictions(session: Session, models: Mapping[str, StreamingModel], stage: str) -> dict[str, np.ndarray]:
    for model in models.values():
        session.need(model, PROTOCOL)
    if session.manifest.segments:
        session.compute(stage)
    return {row: session.predictions(model, PROTOCOL) for row, model in models.items()}


# ---------------------------------------------------------------------------------------------------------- the chapter


def changing(followed: Followed, boot: Bootstrap) -> Exhibit:
    """The scores of all rows, the verdicts on the paper's expectation, and the lines of the figure."""
    exhibit = _empty()
    exhibit.own, exhibit.signatures = tuple(followed.own), list(followed.signatures.items())
    models = ROWS | dict(followed.own)
    raised = []
    for row in followed.logits:
        streams = followed.streams(row)
        best = headline(streams, boot)
        exhibit.settings[row] = {
            "model": models[row],
            "selection": "every window",
            "hop_s": seconds(PROTOCOL.hop),
            "windows": PROTOCOL.iterations,
            "held_windows": best["held"],
        }
        exhibit.cells += _cells(row, followed, streams, best["recovery_s"], boot)
        if best["raised"]:
            raised.append(f"{row} {best['held']}")
        if row not in NOT_DRAWN:
            exhibit.curves += _curves(row, streams, boot)
    exhibit.claims += _claims(followed, boot)
    exhibit.notes += _notes(followed, exhibit.claims, raised)
    return exhibit


def nothing(manifest: Manifest, why: str) -> Exhibit:
    """The chapter with empty cells: nothing could be followed."""
    exhibit = _empty()
    n = len(manifest.segments)
    exhibit.cells = [cell(CHANGING, row, column, None, 0, n) for row in ROWS for column in _columns()]
    exhibit.notes = [f"Nothing could be followed: {why}."]
    return exhibit


def _empty() -> Exhibit:
    return Exhibit(
        CHANGING,
        "What the paper expected: offsets that change",
        claimed="What the paper expected",
        quotations=reported.quotations(CHANGING),
    )


def _columns() -> tuple[str, ...]:
    return (*map(_column, SCORES), HEADLINE, HELD)


def _column(score: str) -> str:
    return SHOWN[score].title


def _cells(row: str, followed: Followed, streams: Streams, best: Estimate, boot: Bootstrap) -> Iterator[Cell]:
    main, held = main_scores(streams, boot), followed.held
    n, n_total = len(followed.truth), followed.truth.n_total
    for score in SCORES:
        yield cell(CHANGING, row, _column(score), main[score], n, n_total)
    yield cell(CHANGING, row, HEADLINE, best, n, n_total)
    acc = None
    if len(held):
        acc = bootstrap_scores(followed.held_logits[row], held.labels, held.clusters, boot, ["acc"])["acc"]
    yield cell(CHANGING, row, HELD, acc, len(held), n_total)


def _curves(row: str, streams: Streams, boot: Bootstrap) -> Iterator[Curve]:
    ranked = recovery_times(streams).take(streams.ranked)
    if not len(ranked):
        return
    steps = [step for step in table(ranked) if step["time_s"] <= AVERAGED_S]
    x, share = [step["time_s"] for step in steps], [step["survival"] for step in steps]
    nowhere: list[float | None] = [None] * (len(x) + 1)
    yield Curve(NOT_RECOVERED, row, [*x, AVERAGED_S], [*share, share[-1]], nowhere, nowhere)
    found = tracked_since(streams, boot)
    hop_s = streams.hop / TICKS_PER_S
    values, low, high = ([number(bound) for bound in column] for column in zip(*found, strict=True))
    yield Curve(TRACKED, row, [k * hop_s for k in range(len(found))], values, low, high)


# ------------------------------------------------------------------------------------------------------------- verdicts


def _claims(followed: Followed, boot: Bootstrap) -> Iterator[Claim]:
    """The expectation first, then against heads that the paper does not have, then what it costs."""

    def sooner(head: str, other: str, whose: str) -> Claim:
        logits, videos = followed.logits, followed.truth.clusters
        asked = paired(
            logits[head], logits[other], followed.windows, videos=videos, bootstrap=boot, metrics=("recovery_s",)
        )
        text = f"{head} recovers sooner than {other}, in seconds{whose}"
        return claim(text, asked["recovery_s"], videos_of(followed.truth), less=True)

    heads = [row for row in (*TRAINED_FOR_IT, *TRAINED_FOR_IT.values()) if row in followed.logits]
    yield from (sooner(head, APA, EXPECTED) for head in heads)
    yield from (sooner(head, apa, EXPECTED) for head, apa in ON_THE_SAME.items() if apa in followed.logits)
    yield from (sooner(head, other, OURS) for head in heads for other in (SLIDING, DECAYING, BAYES))
    for fixed, trained in TRAINED_FOR_IT.items():
        if trained in followed.logits and len(followed.held):
            yield from _price(trained, fixed, followed, boot)


def _price(trained: str, fixed: str, followed: Followed, boot: Bootstrap) -> Iterator[Claim]:
    held, metrics = followed.held, ("acc", "acc_tol1")
    logits = followed.held_logits
    found = paired_difference(logits[trained], logits[fixed], held.labels, held.clusters, boot, metrics)
    for metric, d in found.items():
        text = f"{trained} < {fixed} in {title_of(metric)} where the offset holds: a price{OURS}"
        yield claim(text, d, videos_of(held), less=True)


def _notes(followed: Followed, claims: list[Claim], raised: list[str]) -> list[str]:
    answers = [c for c in claims if c.claim.endswith(EXPECTED)]
    said = "; ".join(f"{c.claim.removesuffix(EXPECTED).replace(', in seconds', '')}: {c.verdict}" for c in answers)
    any_row = followed.streams(next(iter(followed.logits)))
    notes = [
        f"Does a learned head react faster than averaging? {said}. Differences are the first minus the second, so that "
        "a negative one says that the first recovers sooner. The paper only expects it; it reports no number.",
        f"{len(any_row.ranked)} changes of at least 0.4 s rank. recovery: mean time from a change until three windows "
        f"in a row are within one class, up to {AVERAGED_S:g} s; oracle: the floor that windows impose; headline: "
        "recovery at no more than one false change an hour.",
        f"{HELD}: accuracy at the last window of the {len(followed.held)} streams whose offset never changes, unmuted.",
    ]
    if raised:
        notes.append(
            "Above one false change an hour, so for the headline a class is believed once it was held for so many "
            f"windows instead of 3: {', '.join(raised)}."
        )
    if followed.missing:
        names = ", ".join(f"{row} ({ROWS[row]})" for row in followed.missing)
        notes.append(f"Missing, as this avbench has no such weights: {names}.")
    apart = [head for head, apa in ON_THE_SAME.items() if apa in followed.logits]
    notes.append(
        "StreamSync's heads read snapshots of the backbone they were trained with, other heads those of SparseSync. "
        + (f"They differ for {', '.join(apart)}." if apart else "They say the same: only the heads differ.")
    )
    notes.append("No row but APA and StreamSync's is the paper's.")
    notes += [OWN_NOTE] if followed.own else []
    return notes
