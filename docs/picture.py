"""Draws docs/picture.svg, the README's first picture, from two real runs over SynthSync:

avbench run --model sparsesync --out one && avbench run --model streamsync-trf --out all
python docs/picture.py one all docs/picture.svg
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

import avbench
from avbench.data.media import ClipReader
from avbench.data.opening import read_data
from avbench.pages.drawing import COLOURS, drawing, write_figure
from avbench.ticks import seconds
from avbench.types import FrontEnd, offset_in_words

FRONTEND = FrontEnd(size=112, fps=25, sample_rate=16_000)
FRAMES = 9  # pictures shown along the stream
CLASSES_S = np.linspace(-2, 2, 21)


def softmax(logits: np.ndarray) -> np.ndarray:
    """(W, 21) logits -> probabilities."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def typical(one: np.ndarray, streaming: np.ndarray, labels: np.ndarray) -> int:
    """The segment in the middle by how often one window alone is right, among those that the streaming model names
    rightly in the end and whose offset is 0.4 s or more."""
    right = (one.argmax(axis=2) == labels[:, None]).mean(axis=1)
    fit = np.flatnonzero((streaming[:, -1].argmax(axis=1) == labels) & (abs(labels - 10) >= 2))
    return int(fit[np.argsort(right[fit], kind="stable")[len(fit) // 2]])


def stream_of(segment_id: str) -> tuple[list[np.ndarray], np.ndarray, float, float]:
    """Pictures (224 x 224 RGB) of a segment's stream, its sound (16 kHz), its seconds, and the true offset in s."""
    manifest = read_data("synthsync")
    segment = next(s for s in manifest.segments if s.id == segment_id)
    clip = manifest.clips[segment.clip_id]
    start_s, last_s = seconds(segment.start), 5 + 17 * 2
    wanted = {round((start_s + (k + 0.5) * last_s / FRAMES) * 25) for k in range(FRAMES)}
    with ClipReader(manifest.clip_path(clip), clip) as reader:
        frames = [f.transpose(1, 2, 0) for n, (f,) in enumerate(reader.frames(FRONTEND)) if n in wanted]
        sound = reader.audio()[int(start_s * 16_000) : int((start_s + last_s) * 16_000)]
    return frames, sound, last_s, segment.offset_s


def draw(figure: Any, frames: list[np.ndarray], sound: np.ndarray, last_s: float) -> list[Any]:
    """The stream with its windows, and two empty axes below for what is believed."""
    grid = figure.add_gridspec(5, 1, height_ratios=(1.05, 0.45, 0.75, 2, 2))
    axes = [figure.add_subplot(part) for part in grid]
    for number, frame in enumerate(frames):
        axes[0].imshow(frame, extent=(number * last_s / FRAMES, (number + 0.97) * last_s / FRAMES, 0, 1))
    axes[0].set(ylim=(0, 1), aspect="auto")
    loud = abs(sound[: len(sound) // 640 * 640].reshape(-1, 640)).max(axis=1)
    at_s = np.arange(len(loud)) * 0.04
    axes[1].fill_between(at_s, -loud, loud, color=COLOURS[2], lw=0)
    for window in range(18):
        axes[2].plot([window * 2, window * 2 + 5], [-(window % 3)] * 2, color=COLOURS[1], lw=4, solid_capstyle="butt")
    axes[2].set_ylim(-2.8, 0.8)
    for axis in axes[:3]:
        axis.axis("off")
    for axis in axes:
        axis.set_xlim(0, last_s + 0.01)
    return axes


def believed(axis: Any, probabilities: np.ndarray, true_s: float) -> None:
    """Probability of each class (rows) after each window (columns)."""
    axis.imshow(
        probabilities.T,
        extent=(4, 40, -2.1, 2.1),
        origin="lower",
        aspect="auto",
        cmap="Blues",
        vmin=0,
        vmax=1,
        interpolation="none",
    )
    axis.axhline(true_s, color=COLOURS[6], lw=1, ls=(0, (4, 3)))
    axis.set(yticks=(-2, 0, 2), yticklabels=("2 s late", "in sync", "2 s early"))
    for side in ("top", "right", "left", "bottom"):
        axis.spines[side].set_visible(False)
    axis.tick_params(length=0)


def main(one_run: str, all_run: str, path: str) -> None:
    """Draws the picture from a run of one window at a time and a run of a streaming model."""
    one, streaming = avbench.load_run(one_run), avbench.load_run(all_run)
    truth = streaming.truth
    assert truth is not None
    row = typical(one.predictions.logits, streaming.predictions.logits, np.asarray(truth.labels))
    frames, sound, last_s, true_s = stream_of(streaming.predictions.segment_ids[row])
    with drawing(9.6, 5.2) as figure:
        axes = draw(figure, frames, sound, last_s)
        alone, heads = (softmax(run.predictions.logits[row]) for run in (one, streaming))
        believed(axes[3], alone, true_s)
        believed(axes[4], heads, true_s)
        axes[3].set_xticks([])
        axes[4].set_xlabel("seconds of stream")
        said = float(CLASSES_S[heads[-1].argmax()])
        titles = (
            "a stream: its sound is off by a fixed, unknown offset",
            None,
            "a model sees 5 s of picture and sound, again every 2 s",
            "what one window alone says: often wrong",
            f"what a streaming model believes, remembering: {offset_in_words(round(said, 1))}, "
            f"{heads[-1].max():.0%} sure (dashed: the truth)",
        )
        for axis, title in zip(axes, titles, strict=True):
            if title:
                axis.set_title(title, loc="left", fontsize=10)
        figure.text(
            0.995, 0.005, "SynthSync, a procedural stand-in · embedded weights", ha="right", fontsize=7, color="0.4"
        )
        write_figure(figure, Path(path))


if __name__ == "__main__":
    main(*sys.argv[1:])
