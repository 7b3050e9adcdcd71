"""The board: for each track its ranked entries with ties, the trivial rows, and the curves over hops."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from avbench.baselines.trivial import TRIVIAL
from avbench.leaderboard.entries import (
    BOOTSTRAP,
    FEW,
    SCORES,
    SHOWN_ALONG,
    Entry,
    Scored,
    key,
    load,
    save,
    score,
)
from avbench.protocol.manifest import Manifest
from avbench.protocol.tracks import TRACKS, Track
from avbench.results.run import Scores
from avbench.scoring.ranking import Ranked, rank
from avbench.scoring.scorer import as_scores
from avbench.scoring.stats import bootstrap_scores
from avbench.submissions.format import Line, Paragraph, validated
from avbench.submissions.tracks import Truth, measures, ranked_by, segments_of, truth
from avbench.system.atomic import atomic_write_bytes
from avbench.system.strict import StrictPart, parse_json, read_bytes
from avbench.ticks import seconds
from avbench.types import UsageError

MAIN_HOP_S = 2.0
DECISIONS = "decisions.jsonl"
MAX_DECISIONS_BYTES = 4 * 2**20


@dataclass(frozen=True, eq=False)
class Row:
    """One entry on its track. ``hops``: hop in seconds -> scores on the segments common to all of the model's hops;
    empty unless the model was submitted at several hops."""

    entry: Entry
    ranked: Ranked
    tied: bool
    hops: Mapping[float, Scores]


@dataclass(frozen=True, eq=False)
class TrackBoard:
    """One track with its entries, best first, and its trivial rows."""

    track: Track
    truth: Truth
    rows: list[Row]
    trivial: list[tuple[str, str, Scored]]  # name, label, scores

    @property
    def hop_s(self) -> float:
        """The track's hop in seconds."""
        return seconds(self.track.protocol.hop)


class Decision(StrictPart):
    """One line of ``decisions.jsonl``: a decision of the maintainers and its reason."""

    date: Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\d$")]
    action: Literal["added", "removed", "rescored", "note"]
    entry: Line | None = None
    reason: Paragraph


@dataclass(frozen=True, eq=False)
class Board:
    """The whole leaderboard. ``decisions``: newest first."""

    tracks: list[TrackBoard]
    decisions: list[Decision] = field(default_factory=list)

    @property
    def rows(self) -> list[Row]:
        """The entries of all tracks, in order."""
        return [row for board in self.tracks for row in board.rows]


def assemble(entries: Sequence[Entry], store: Path, decisions: Sequence[Decision] = ()) -> Board:
    """Ranks the entries of every track. The public tracks at the usual hop are included even without an entry.

    ``store``: the cache folder, as in ``read_entries``.
    """
    tracks = {
        name: (track, truth(track)) for name, track in TRACKS.items() if seconds(track.protocol.hop) == MAIN_HOP_S
    }
    tracks |= {entry.track.name: (entry.track, entry.truth) for entry in entries}
    hops = _over_hops(entries, store)
    boards = []
    for name, (track, answers) in sorted(tracks.items(), key=lambda item: _order(item[1][0])):
        mine = [entry for entry in entries if entry.track.name == name]
        boards.append(TrackBoard(track, answers, _ranked(mine, hops), _trivial(track, answers, store)))
    return Board(boards, list(decisions))


def _order(track: Track) -> tuple[int, str]:
    """Sort key: public tracks as listed, then private ones by name."""
    listed = list(TRACKS)
    return listed.index(track.name) if track.name in TRACKS else len(listed), track.name


def _ranked(entries: Sequence[Entry], hops: Mapping[str, Mapping[float, Scores]]) -> list[Row]:
    if not entries:
        return []
    track, by_name = entries[0].track, {entry.name: entry for entry in entries}
    drawn = {name: entry.scored.drawn for name, entry in by_name.items()}
    ranked = rank(drawn, measures(track)[ranked_by(track)].higher_is_better, BOOTSTRAP.level)
    sizes: dict[int, int] = {}
    for place in ranked:
        sizes[place.rank] = sizes.get(place.rank, 0) + 1
    return [Row(by_name[r.name], r, sizes[r.rank] > 1, hops.get(r.name, {})) for r in ranked]


def _trivial(track: Track, answers: Truth, store: Path) -> list[tuple[str, str, Scored]]:
    """The rows of the trivial models, which ignore their input, scored on the track's labels."""
    found, manifest = [], None
    for name, trivial in TRIVIAL.items():
        name_of_row = f"trivial {name}"
        kept = key(name_of_row, track.name, track.signature, track.labels, answers.sha256)
        scored = load(store, kept)
        if scored is None:
            manifest = manifest or _manifest(track)
            logits = trivial.predict(segments_of(answers), manifest, track.protocol, BOOTSTRAP.seed)
            scored = score(track, answers, logits, report=False)
            save(store, kept, scored)
        found.append((name, trivial.label, scored))
    return found


def _manifest(track: Track) -> Manifest:
    """Gives the trivial rows the offset law; for a private track it is hidden."""
    from avbench.data.opening import planned

    if track.labels == "public":
        return planned(track.data, track.split)
    return Manifest(track.name, "files", "", "hidden", {}, (), Path())


# -- hops --------------------------------------------------------------------------------------------------------------


def _over_hops(entries: Sequence[Entry], store: Path) -> dict[str, dict[float, Scores]]:
    """Entry name -> hop in seconds -> scores, for models submitted at several hops of the same data. All are scored on
    the segments that these hops have in common, so that only the hop differs."""
    families: dict[tuple[str, ...], dict[float, Entry]] = {}
    for entry in entries:
        family = families.setdefault((entry.track.manifest_sha256, *entry.model), {})
        family[seconds(entry.track.protocol.hop)] = entry
    found = {}
    for family in families.values():
        if len(family) > 1:
            shared = set.intersection(*(set(entry.truth.segment_ids) for entry in family.values()))
            scores = {hop_s: _on(entry, shared, store) for hop_s, entry in sorted(family.items())}
            found.update({entry.name: scores for entry in family.values()})
    return found


def _on(entry: Entry, segment_ids: set[str], store: Path) -> Scores:
    """The entry's scores on a subset of its track's segments."""
    answers, last = entry.truth, entry.scored.last
    rows = np.array([row for row, id in enumerate(answers.segment_ids) if id in segment_ids])
    content = hashlib.sha256(np.ascontiguousarray(last).tobytes()).hexdigest()
    kept = store / f"{key('on some segments', answers.sha256, content, rows.tolist())}.json"
    try:
        return SCORES.validate_json(kept.read_bytes())
    except (OSError, ValueError):
        pass
    part = (last[rows], answers.labels[rows], answers.clusters[rows])
    scores = as_scores(bootstrap_scores(*part, FEW, SHOWN_ALONG))
    atomic_write_bytes(kept, SCORES.dump_json(scores))
    return scores


# -- decisions ---------------------------------------------------------------------------------------------------------


def read_decisions(path: Path | None = None) -> list[Decision]:
    """The decisions log (None: the one in this package), newest first; ``UsageError`` names the line that is wrong."""
    path = path or Path(__file__).with_name(DECISIONS)
    found = []
    for number, line in enumerate(read_bytes(path, MAX_DECISIONS_BYTES).splitlines(), start=1):
        if line.strip():
            where = f"{path} line {number}"
            try:
                found.append(validated(Decision, parse_json(line, Path(where))))
            except UsageError as error:
                raise UsageError(f"{where}: {error}") from None
    return sorted(found, key=lambda decision: decision.date, reverse=True)
