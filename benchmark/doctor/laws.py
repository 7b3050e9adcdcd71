"""The doctor's check of offsets that change: a click-and-flash clip under laws of every kind, encoded and read as in a
run, is heard where o(t) says, to the sample.

What must be heard is found without ``avbench.protocol.laws``: not by asking for the offset of each instant, but by
counting for how many instants each sample of the clip is heard.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from avbench.data.clicks import click_and_flash
from avbench.data.encode import encode_clip
from avbench.data.media import ClipReader, media_sha256
from avbench.engine.replay import gather
from avbench.engine.runner import Compute, compute
from avbench.engine.store import SnapshotStore
from avbench.protocol.laws import draw_law
from avbench.protocol.manifest import Manifest, read_manifest, write_manifest
from avbench.protocol.rules import streaming
from avbench.system.findings import Finding
from avbench.ticks import FRAME_RATE_HZ, SAMPLE_RATE_HZ, TICKS_PER_FRAME, Tick, frames, seconds, ticks
from avbench.types import ClipRecord, FrontEnd, Law, OffsetGrid, SegmentRecord, Snapshot, SnapshotPredictor

CLIP_S, START_S = 50, 2
WINDOWS = streaming(hop_s=4, iterations=11)
STREAM: Tick = WINDOWS.window + (WINDOWS.iterations - 1) * WINDOWS.hop  # 45 s, all of it in a window
# seeds: a hold with mutes, steps up and down, slopes of both signs, from a crystal's to 44.1 kHz played as 48 kHz
DRAWN = {
    "hold": (6,),
    "jump": (1, 7),
    "excursion": (3,),
    "multi": (1,),
    "ramp": (4, 6),
    "drops": (2,),
    "drift": (2, 15, 6, 13, 3),
}
CLICK, AROUND = 320, 160  # samples of a click that are compared, and how far from its place it is looked for
HISS = 0.01  # under the clicks: without it, where a mute begins could not be heard
BRIGHT = 128
_MILLION = 1_000_000


class Listener(SnapshotPredictor):
    """Believes nothing: it hands on what it was given. Token (B, 80125): the window's sound as it is heard, then the
    brightness of each of its pictures."""

    uses_torch = False
    two_tower = True
    frontend = FrontEnd(size=64)  # the clip's own
    token_dim = WINDOWS.window + frames(WINDOWS.window)

    def encode_video(self, video: np.ndarray) -> np.ndarray:
        """(B, T, 3, 64, 64) uint8 -> (B, T) float32."""
        return video.mean(axis=(2, 3, 4), dtype=np.float64).astype(np.float32)

    def encode_audio(self, audio: np.ndarray) -> np.ndarray:
        """(B, N) float32, as it is."""
        return audio

    def fuse(self, video: np.ndarray, audio: np.ndarray) -> Snapshot:
        """Both, side by side."""
        return Snapshot(np.zeros((len(audio), WINDOWS.grid.n_classes)), np.concatenate([audio, video], axis=1))


class _Clip(NamedTuple):
    """What was written into the file."""

    manifest: Manifest
    bright: np.ndarray  # (T,) bool: the pictures that flash
    sound: np.ndarray  # (N,) float32


def check_laws() -> Iterator[Finding]:
    """One finding: all is heard where it must be, or the first thing that is not, in words."""
    with tempfile.TemporaryDirectory(prefix="avbench-doctor-") as scratch:
        problem = next(_problems(_made(Path(scratch) / "data"), Path(scratch) / "store"), "")
    kinds, n_laws = ", ".join(DRAWN), sum(map(len, DRAWN.values()))
    well = f"click and flash under {n_laws} laws ({kinds}): heard where o(t) says, to the sample"
    yield Finding(not problem, f"changing offsets: {problem or well}")


def must_be_heard(sound: np.ndarray, start: Tick, length: Tick, law: Law) -> np.ndarray:
    """(length,) samples of a stream that begins at ``start`` in a clip with (N,) ``sound``.

    In a piece, u instants after its start, its sample ``floor(u * rate / 1e6)`` is heard; ``rate`` is 1e6 + slope. So
    sample k is heard from u = ``ceil(k * 1e6 / rate)`` until it is the next one's turn.
    """
    heard = []
    for piece, end in zip(law.pieces, [*(piece.start for piece in law.pieces[1:]), length], strict=True):
        lasts, rate = end - piece.start, _MILLION + piece.slope_ppm
        turn = -(-np.arange(lasts * rate // _MILLION + 2) * _MILLION // rate)
        begin = start + piece.start + piece.offset
        n_times = np.diff(np.minimum(turn, lasts))
        heard.append(np.repeat(sound[begin : begin + len(n_times)], n_times))
    stream = np.concatenate(heard)
    for mute in law.mutes:
        stream[mute.start : mute.start + mute.length] = 0
    return stream


def _made(folder: Path) -> _Clip:
    """A clip in ``folder`` and one stream of it under each law, written and read back."""
    pictures, clicks = click_and_flash(CLIP_S)
    hiss = HISS * np.random.default_rng(1).standard_normal(len(clicks))
    sound = (clicks + hiss).clip(-1, 1).astype(np.float32)
    path = folder / "media" / "clip.mp4"
    path.parent.mkdir(parents=True)
    encode_clip(path, pictures, sound)
    clip = ClipRecord("clip", "clip", path.name, media_sha256(path), CLIP_S * FRAME_RATE_HZ, CLIP_S * SAMPLE_RATE_HZ)
    segments = []
    for name, seed in ((name, seed) for name, seeds in DRAWN.items() for seed in seeds):
        law = draw_law(name, "click and flash", seed, STREAM)
        first = law.pieces[0].offset
        label = OffsetGrid().class_of(seconds(first))
        segments.append(SegmentRecord(f"{name} {seed}", "clip", "clip", ticks(START_S), first, label, law=law))
    manifest = Manifest(
        "laws", "synthetic", "made by avbench doctor", "uniform", {"clip": clip}, tuple(segments), path.parent
    )
    write_manifest(manifest, folder)
    return _Clip(read_manifest(folder), pictures[:, 0, 0, 0] > BRIGHT, sound)


def _problems(made: _Clip, store_root: Path) -> Iterator[str]:
    """What is not as it must be: clicks in the file, then pictures and sound of each window."""
    manifest, store = made.manifest, SnapshotStore(store_root)
    clip = manifest.clips["clip"]
    sound = ClipReader(manifest.clip_path(clip), clip).audio()
    yield from _misread(made, sound)
    report = compute(manifest, [WINDOWS], {"listener": Listener()}, Compute(store, workers=1))
    yield from (f"law {failure.segment_id}: {failure.reason}" for failure in report.failures)
    if report.failures:
        return
    _, tokens = gather(store, manifest.clips, manifest.segments, WINDOWS, report.fingerprints["listener"])
    assert tokens is not None
    for segment, stream in zip(manifest.segments, tokens, strict=True):
        assert segment.law is not None
        must = must_be_heard(sound, segment.start, STREAM, segment.law)
        for window, token in zip(WINDOWS.picture_windows(segment), stream, strict=True):
            heard, bright = np.split(token, [WINDOWS.window])
            if not np.array_equal(bright > BRIGHT, made.bright[frames(window.start) : frames(window.end)]):
                yield f"law {segment.id}: the window at {seconds(window.start):g} s shows other pictures"
            begin = window.start - segment.start
            wrong = np.flatnonzero(heard != must[begin : begin + WINDOWS.window])
            if len(wrong):
                yield (
                    f"law {segment.id}: {seconds(begin + int(wrong[0])):.4f} s into the stream something else is heard "
                    f"than o(t) says ({len(wrong)} samples of this window)"
                )


def _misread(made: _Clip, sound: np.ndarray) -> Iterator[str]:
    """Clicks of the file that are not read where they were written."""
    flashes = [k for k, (a, b) in enumerate(itertools.pairwise(made.bright.tolist()), 1) if b and not a]
    for at in (frame * TICKS_PER_FRAME for frame in flashes):
        near = sound[at - AROUND : at + CLICK + AROUND]
        lag = int(np.correlate(near, made.sound[at : at + CLICK], "valid").argmax()) - AROUND
        if lag:
            when = "late" if lag > 0 else "early"
            yield f"the click written at {seconds(at):.2f} s is read {abs(lag)} samples {when}"
