"""The streams of a manifest that fit a recipe: decoded, cut, augmented, turned into spectrograms."""

from __future__ import annotations

from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from avbench.baselines import frontends
from avbench.data.media import ClipReader, media_sha256
from avbench.protocol.manifest import Manifest
from avbench.ticks import TICKS_PER_FRAME, Tick, seconds, ticks
from avbench.training import augment
from avbench.training.fullsize.recipe import FullSizeRecipe
from avbench.types import ClipRecord, FrontEnd, MediaError, OffsetGrid, UsageError

GRID = OffsetGrid()
MAX_OFFSET = ticks(GRID.max_offset_s)


class Item(NamedTuple):
    """A stream to draw from: at ``start`` (ticks), or for None anywhere in the clip."""

    clip: ClipRecord
    start: Tick | None


class Pinned(NamedTuple):
    """A stream at a fixed start (ticks) and offset (ticks), with the offset's class."""

    clip: ClipRecord
    start: Tick
    offset: Tick
    label: int


class Example(NamedTuple):
    """What the model gets of one stream."""

    video: Tensor  # (T, 3, crop, crop) uint8: the whole stretch
    sound: Tensor  # (H, 1, 257, columns) float32: the windows' spectrograms
    label: int


class _Streams:
    """Examples from one manifest; each clip's file is checked against its sha256 once."""

    def __init__(self, manifest: Manifest, recipe: FullSizeRecipe) -> None:
        self.manifest, self.recipe = manifest, recipe
        self._checked: set[str] = set()

    def example(self, stream: Pinned, rng: np.random.Generator | None) -> Example:
        """The stream's picture and sound: augmented with ``rng``, the centre crop without.

        ``MediaError`` if the clip cannot be read or is not the file that the manifest names.
        """
        clip, start, offset, label = stream
        recipe = self.recipe
        path = self.manifest.clip_path(clip)
        if clip.id not in self._checked:
            if media_sha256(path) != clip.sha256:
                raise MediaError(clip.id, f"{path} is not the file that the manifest names (its sha256 differs)")
            self._checked.add(clip.id)
        reader = ClipReader(path, clip)
        wave = torch.from_numpy(reader.audio()[start + offset : start + offset + recipe.heard].copy())
        first, n = start // TICKS_PER_FRAME, recipe.stretch // TICKS_PER_FRAME
        grid = reader.frames(FrontEnd(size=recipe.short_side, fit="short"))
        try:
            video = torch.from_numpy(np.stack([arrays[0] for arrays in islice(grid, first, first + n)]))
        finally:
            grid.close()
        blank = slice(0, 0), slice(0, 0)
        if rng is None:
            video = augment.centre(video, recipe.crop)
        else:
            video = augment.picture(video, recipe.crop, rng)
            wave = augment.sound(wave, rng)
            blank = augment.masks(rng, 257, recipe.heard // 128 + 1)
        return Example(video.contiguous(), spectrograms(wave, recipe, *blank), label)


class TrainingStreams(_Streams):
    """Streams to draw training examples from. ``left_out``: what is too short for the recipe, one line each.

    ``UsageError`` if nothing is left.
    """

    def __init__(self, manifest: Manifest, recipe: FullSizeRecipe) -> None:
        super().__init__(manifest, recipe)
        self.items: list[Item] = []
        self.left_out: list[str] = []
        length = seconds(recipe.heard)
        if recipe.starts == "free":
            for clip in manifest.clips.values():
                if clip.duration >= recipe.heard + MAX_OFFSET:
                    self.items.append(Item(clip, None))
                else:
                    self.left_out.append(
                        f"clip {clip.id}: {seconds(clip.duration):g} s cannot hold {length:g} s +- 2 s"
                    )
        else:
            for segment in manifest.segments:
                clip = manifest.clips[segment.clip_id]
                if segment.start >= MAX_OFFSET and segment.start + recipe.heard + MAX_OFFSET <= clip.duration:
                    self.items.append(Item(clip, segment.start))
                else:
                    self.left_out.append(
                        f"segment {segment.id}: {length:g} s +- 2 s of sound from {seconds(segment.start):g} s do not "
                        f"fit into {seconds(clip.duration):g} s"
                    )
        if not self.items:
            why = f" ({self.left_out[0]})" if self.left_out else ""
            raise UsageError(f"{manifest.name} has no stream for {recipe.windows} windows of {recipe.hop_s:g} s{why}")

    def draw(self, index: int, rng: np.random.Generator) -> Example:
        """An example of item ``index``, with a new offset (uniform in +-2 s) and new augmentation from ``rng``.

        ``MediaError`` if its clip cannot be read.
        """
        item, recipe = self.items[index], self.recipe
        offset_s = round(float(rng.uniform(-GRID.max_offset_s, GRID.max_offset_s)), 2)
        offset, start = ticks(offset_s), item.start
        if start is None:
            first = -(-max(0, -offset) // TICKS_PER_FRAME)
            last = (item.clip.duration - recipe.heard - max(0, offset)) // TICKS_PER_FRAME
            start = int(rng.integers(first, last + 1)) * TICKS_PER_FRAME
        stream = Pinned(item.clip, start, offset, GRID.class_of(offset_s))
        return self.example(stream, rng if recipe.augment else None)


class ValidationStreams(_Streams):
    """The segments long enough for the recipe's windows, at their own offsets. ``UsageError`` if there are none, if
    they have other offset classes, or if an offset changes."""

    def __init__(self, manifest: Manifest, recipe: FullSizeRecipe) -> None:
        super().__init__(manifest, recipe)
        manifest.refuse_other_classes(GRID)
        changing = next((segment.id for segment in manifest.segments if segment.law), None)
        if changing:
            raise UsageError(f"{manifest.name}: the offset of segment {changing} changes; validate on fixed offsets")
        self.items: list[Pinned] = []
        for segment in manifest.segments:
            clip, end = manifest.clips[segment.clip_id], segment.start + recipe.heard
            if segment.start + segment.offset >= 0 and max(end, end + segment.offset) <= clip.duration:
                self.items.append(Pinned(clip, segment.start, segment.offset, segment.offset_class))
        if not self.items:
            raise UsageError(
                f"no segment of {manifest.name} holds {recipe.windows} windows of {recipe.hop_s:g} s to validate on"
            )

    def __getitem__(self, number: int) -> Example:
        return self.example(self.items[number], None)


def spectrograms(
    wave: Tensor, recipe: FullSizeRecipe, frequencies: slice = slice(0, 0), columns: slice = slice(0, 0)
) -> Tensor:
    """(N,) samples of a stretch -> (H, 1, 257, columns) float32, standardised over each window or over the stretch.

    ``frequencies`` and ``columns`` (of the stretch) are set to 0 after the logarithm, before the standardisation.
    """
    hop, window = recipe.hop // 128, recipe.window // 128
    if recipe.spectrogram == "stretch":
        spectrum = frontends.log_spectrogram(wave)
        spectrum[frequencies], spectrum[:, columns] = 0, 0
        spectrum = frontends.standardise(spectrum)
        return torch.stack([spectrum[None, :, i * hop : i * hop + window] for i in range(recipe.windows)])
    spectrum = frontends.log_spectrogram(wave.unfold(0, recipe.window, recipe.hop))
    spectrum[:, frequencies] = 0
    for i in range(recipe.windows):
        spectrum[i, :, max(columns.start - i * hop, 0) : max(columns.stop - i * hop, 0)] = 0
    return frontends.standardise(spectrum)[:, None]
