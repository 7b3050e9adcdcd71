"""Blind sets: the same scenes under new, secret offsets, or under new, secret laws where offsets change.

A submitter gets ``inputs/``: one clip per segment with the offset already applied. The sound is cut ``offset`` later
than the picture from the drawn scene itself, *before* encoding. So nothing in the files reveals the offset: not the
manifest (all offsets 0, offset law "hidden"), not the container (equal lengths, both streams from 0), not traces of an
earlier encoding, not the clip's opaque name. ``labels.json`` stays with the maintainers.

Where offsets change, the sound is gathered through the law in the same way, as it is when the public streams are read.
A step in it can be heard as a cut, there as here: it tells that something changed, not to what.

What this hides and what it does not: by default the scenes are the same, because the audit pairs the segments. The
public clips show these scenes in sync, so anyone who has them can align picture and sound with them; segments of one
scene overlap as well. Such a set detects memorised answers, not a determined search. With ``fresh=True`` every segment
is a scene of its own that was never published, so there is nothing to align with. Either way, an attacker can try out
every guessable seed: the default seed comes from the system's randomness.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from avbench.data import synthsync
from avbench.data.opening import planned
from avbench.data.scenes import Scene
from avbench.protocol.laws import SHARES, draw_law, gathered, inside, law_text, laws_in_turn
from avbench.protocol.manifest import Manifest, write_manifest
from avbench.protocol.offsets import draw_offset
from avbench.protocol.tracks import BLIND, Track
from avbench.submissions.tracks import LabelRow, Labels, find, truth
from avbench.system import machine
from avbench.system.atomic import atomic_write_bytes
from avbench.system.progress import ItemProgress
from avbench.system.workers import Lost, each
from avbench.ticks import TICKS_PER_FRAME, TICKS_PER_S, Tick, frames, seconds, ticks
from avbench.types import AvbenchError, ClipRecord, Law, OffsetGrid, SegmentRecord, UsageError, Window

BEFORE = ticks(2)  # ticks of picture and sound before a segment's start, for front ends and the paper's protocol
AFTER = ticks(1)
# no picture before a stream whose offset changes: its front ends see one window, and there is little room in the clip
BEFORE_CHANGING = ticks(0)
GUESSABLE_SEED = 2**64


class Redrawn(NamedTuple):
    """A blind set: folder ``inputs`` for submitters, file ``labels`` for the maintainers only. ``command``: what makes
    a run on it."""

    track: str
    inputs: Path
    labels: Path
    n_segments: int
    command: str


@dataclass(frozen=True, slots=True)
class Cut:
    """One blind clip: where its picture starts in a scene, and how much later its sound starts (its offset). ``law``:
    how the offset runs from the segment's start on, ``before`` ticks later; its offset is then that of the beginning.
    """

    id: str
    segment_id: str  # of the public segment, or the clip's own id for a fresh scene
    video_id: str
    start: Tick
    length: Tick
    offset: Tick
    category: str
    channel: int
    scene_seed: int
    scene_s: int
    before: Tick = BEFORE
    law: Law | None = None

    def scene(self) -> Scene:
        """The scene that the clip is cut from, not yet drawn."""
        return Scene(self.category, self.channel, self.scene_seed, self.scene_s)


def redraw(
    track_name: str,
    seed: int,
    out: Path | str,
    fresh: bool = False,
    workers: int | None = None,
    progress: ItemProgress | None = None,
) -> Redrawn:
    """Makes a blind set of a public track under new offsets: ``out/inputs`` and ``out/labels.json``.

    ``seed``: equal seeds give equal sets (and equal files, with the same encoder). ``fresh``: new scenes, one per
    segment. ``progress(done, total, clip)``. ``UsageError``: no such track, or ``out`` is not empty; ``AvbenchError``
    if it cannot be written.
    """
    out = Path(out)
    if seed < 0:
        raise UsageError(f"seed is {seed}; it must be 0 or more")
    track = find(track_name)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} already exists and is not empty; choose a new folder")
    cuts = fresh_cuts(track, seed) if fresh else same_cuts(track, seed)
    inputs, labels = out / "inputs", out / "labels.json"
    name = f"{track.name}{BLIND}{hashlib.sha256(' '.join(c.id for c in cuts).encode()).hexdigest()[:8]}"
    try:
        media = inputs / "media"
        media.mkdir(parents=True)
        _make(cuts, media, workers, progress)
        manifest = blind_manifest(name, cuts, media)
        write_manifest(manifest, inputs)
        answers = Labels(
            track=name,
            base=track.name,
            manifest_sha256=manifest.sha256,
            signature=track.protocol.signature(),
            seed=seed,
            segments=[_label(cut) for cut in cuts],
        )
        atomic_write_bytes(labels, answers.to_json().encode())
        labels.chmod(0o600)
    except OSError as error:
        raise AvbenchError(f"cannot write {error.filename or out}: {error.strerror or error}") from error
    model = "sparsesync+bayes" if track.changing else "streamsync-trf"  # one that any machine has
    return Redrawn(name, inputs, labels, len(cuts), track.blind_command(str(inputs), model))


def same_cuts(track: Track, seed: int) -> list[Cut]:
    """The track's own segments under new offsets or laws, in an order that reveals nothing.

    ``UsageError`` if a segment has no room for every offset in its clip.
    """
    manifest = planned(track.data, track.split)
    specs = {spec.id: spec for spec in synthsync.clip_specs(track.split, len(manifest.clips))}
    by_id = {segment.id: segment for segment in manifest.segments}
    before, laws = BEFORE_CHANGING if track.changing else BEFORE, _laws(track, seed)
    cuts = []
    for name in truth(track).segment_ids:
        segment, spec = by_id[name], specs[by_id[name].clip_id]
        law = laws.get(name)
        fixed = draw_offset(manifest.offset_law, f"{name} blind", seed, manifest.grid) if law is None else 0
        cut = Cut(
            id=_opaque(seed, name),
            segment_id=name,
            video_id=segment.video_id,
            start=segment.start - before,
            length=_length(track),
            offset=law.pieces[0].offset if law else fixed,
            category=spec.category,
            channel=spec.channel,
            scene_seed=spec.seed,
            scene_s=synthsync.CLIP_S,
            before=before,
            law=law,
        )
        reach = ticks(manifest.grid.max_offset_s)
        if cut.start < reach or cut.start + cut.length + reach > ticks(synthsync.CLIP_S):
            raise UsageError(f"track {track.name} cannot be redrawn: segment {name} has no room for every offset")
        cuts.append(cut)
    return sorted(cuts, key=lambda cut: cut.id)


def _laws(track: Track, seed: int) -> dict[str, Law]:
    """New laws for the segments of a track of offsets that change; each kind of law gets its share. They are drawn for
    all of the clip, so that no offset is out of reach after the stream either."""
    if not track.changing:
        return {}
    blind = {f"{name} blind": name for name in truth(track).segment_ids}
    kinds = laws_in_turn(tuple(SHARES), list(blind), seed)
    return {
        blind[name]: draw_law(kind, name, seed, _length(track), track.protocol.grid) for name, kind in kinds.items()
    }


def fresh_cuts(track: Track, seed: int) -> list[Cut]:
    """As many segments of each category and channel as in the track, each in a new scene of its own."""
    rng = np.random.default_rng([seed, 1])
    cuts = []
    for cut in same_cuts(track, seed):
        reach = ticks(2)
        own = _opaque(seed, f"{cut.segment_id} fresh")
        scene_s = -(-(cut.length + 2 * reach) // TICKS_PER_S)
        scene_seed = int(rng.integers(2**40, 2**62))  # far from every published seed
        cuts.append(
            replace(cut, id=own, segment_id=own, video_id=own, start=reach, scene_seed=scene_seed, scene_s=scene_s)
        )
    return sorted(cuts, key=lambda cut: cut.id)


def blind_manifest(name: str, cuts: list[Cut], media: Path) -> Manifest:
    """The manifest for submitters: opaque names, no category, no channel, every offset 0 and the law "hidden"."""
    from avbench.data.media import media_sha256

    clips, segments = {}, []
    for cut in cuts:
        file = media / f"{cut.id}.mp4"
        clips[cut.id] = ClipRecord(
            cut.id, cut.id, file.name, media_sha256(file), frames(cut.length), cut.length, "", "test"
        )
        segments.append(SegmentRecord(cut.id, cut.id, cut.id, cut.before, 0, 10))
    return Manifest(
        name=name,
        kind="synthetic",
        note=f"{synthsync.NOTE}, labels hidden",
        offset_law="hidden",
        clips=clips,
        segments=tuple(segments),
        media_root=media,
        spec_sha256=synthsync.specification_sha256(),
    )


def cut_streams(cut: Cut, pictures: np.ndarray, sound: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A scene's pictures (T, H, W, 3) and sound (N,) -> those of the clip. The sound is cut ``offset`` later in the
    scene, so a positive offset makes it early, as in ``Protocol.sound_windows``. Under a law it is gathered as in a
    window that lasts as long as the clip."""
    first, offset, law = frames(cut.start), cut.offset, None
    if cut.law:
        offset, law = inside(cut.law, Window(-cut.before, cut.length))
    begin = cut.start + offset
    heard = gathered(sound, begin, cut.length, law) if law else sound[begin : begin + cut.length]
    return pictures[first : first + frames(cut.length)], heard


def _make(cuts: list[Cut], media: Path, workers: int | None, progress: ItemProgress | None) -> None:
    """All clips; a scene that several cuts share is drawn once."""
    scenes: dict[tuple[int, int], list[Cut]] = {}
    for cut in cuts:
        scenes.setdefault((cut.scene_seed, cut.scene_s), []).append(cut)
    groups = list(scenes.values())
    done = 0
    for group, made in each(partial(_make_scene, media=media), groups, workers or machine.cores()):
        if isinstance(made, Lost):
            raise AvbenchError(f"making clip {group[0].id}: {made.reason}")
        done += len(made)
        if progress:
            progress(done, len(cuts), made[-1])


def _make_scene(cuts: list[Cut], media: Path) -> list[str]:
    scene = cuts[0].scene()
    pictures, sound = np.stack(list(scene.frames())), scene.audio()
    for cut in cuts:
        picture, heard = cut_streams(cut, pictures, sound)
        synthsync.encode(media / f"{cut.id}.mp4", picture, heard)
    return [cut.id for cut in cuts]


def _label(cut: Cut) -> LabelRow:
    return LabelRow(
        segment_id=cut.id,
        source=cut.segment_id,
        video_id=cut.video_id,
        category=cut.category,
        channel=f"studio {cut.channel + 1}",
        offset_ticks=cut.offset,
        offset_class=OffsetGrid().class_of(seconds(cut.offset)),
        law=law_text(cut.law) if cut.law else None,
    )


def _opaque(seed: int, name: str) -> str:
    return f"b{hashlib.sha256(f'avbench blind {seed} {name}'.encode()).hexdigest()[:15]}"


def _length(track: Track) -> Tick:
    """Length in ticks of every blind clip, in whole frames: the span of the windows and the margins."""
    span = track.protocol.window + (track.protocol.iterations - 1) * track.protocol.hop
    length = (BEFORE_CHANGING if track.changing else BEFORE) + span + AFTER
    assert length % TICKS_PER_FRAME == 0
    return length
