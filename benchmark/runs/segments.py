"""A file's segments of 0.64 s through Synchformer: each is encoded once, and any 14 of them are judged together.

As in the published code of DeSync: pictures at 25 per second, the short side resized (bicubic, antialiased) to the
model's size and the centre square cut out, float32 in [-1, 1]; sound at 16 kHz, mono, from the file's first picture on.
Segment s holds pictures 8s ... 8s + 15 and the samples of the same 0.64 s. Memory does not grow with the file.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from avbench.data.media import ClipReader, rgb_converter
from avbench.scoring.desync import (
    GROUP,
    SEGMENT_FRAMES,
    SEGMENT_SAMPLES,
    STEP_FRAMES,
    STEP_SAMPLES,
    is_start,
    members,
)
from avbench.system.devices import on_cpu
from avbench.types import MediaError, UsageError

if TYPE_CHECKING:
    from torch import Tensor

NEEDED = ("encode_video_segments", "encode_audio_segments", "fuse_segments")
BATCH = 16  # segments encoded at once on an accelerator; one on the CPU, where its activations then stay in the cache


class SegmentLogits(NamedTuple):
    """What the model says of a file of ``n`` segments: first segment of a group of 14 -> (21,) float32 logits.
    ``n_frames``: pictures that were read; those after the sound's last segment are not."""

    n: int
    n_frames: int
    logits: dict[int, np.ndarray]


class Segmenter:
    """A Synchformer that judges files. ``UsageError`` for a model that cannot encode single segments.

    ``model`` offers ``encode_video_segments (N, 16, 3, size, size) float32 in [-1, 1] -> (N, ...)``,
    ``encode_audio_segments (N, 10240) -> (N, ...)`` and ``fuse_segments((B, 14, ...), (B, 14, ...)) -> Snapshot``.
    """

    def __init__(self, model: Any, name: str, device: str = "cpu", batch: int | None = None) -> None:
        lacking = [method for method in NEEDED if not callable(getattr(model, method, None))]
        if lacking:
            raise UsageError(
                f"model {name} cannot encode single segments (it lacks {', '.join(lacking)}): "
                "needed is a full-size Synchformer (`avbench weights fetch synchformer.audioset`)"
            )
        self.model, self.name, self.device = model, name, device
        self.batch = 1 if on_cpu(device) else batch or BATCH

    def logits(
        self, reader: ClipReader, most_frames: int | None = None, tell: Callable[[int], None] = lambda n: None
    ) -> SegmentLogits:
        """Of a file, or of its first ``most_frames`` pictures and as much sound. ``tell`` gets the number of segments
        done. ``MediaError`` for a file that cannot be read."""
        import torch

        read = _Counted(square_pictures(reader, self.model.frontend.size))
        most_samples = None if most_frames is None else most_frames * (SEGMENT_SAMPLES // SEGMENT_FRAMES)
        # the shorter stream decides
        pairs = zip(
            picture_segments(read, most_frames), sound_segments(reader.audio_blocks(), most_samples), strict=False
        )
        with torch.inference_mode():
            n, logits = self._judged(pairs, tell)
        return SegmentLogits(n, read.n, logits)

    def _judged(
        self, pairs: Iterable[tuple[np.ndarray, np.ndarray]], tell: Callable[[int], None]
    ) -> tuple[int, dict[int, np.ndarray]]:
        held: deque[tuple[Tensor, Tensor]] = deque(maxlen=GROUP)
        logits: dict[int, np.ndarray] = {}
        n = 0
        pairs = iter(pairs)
        while some := list(islice(pairs, self.batch)):
            for encoded in self._encoded(some):
                held.append(encoded)
                n += 1
                if len(held) == GROUP and is_start(n - GROUP):
                    logits[n - GROUP] = self._fused(held)
            tell(n)
        last = max(n - GROUP, 0)
        if n and last not in logits:  # the last 14; of a shorter file all, in a circle
            logits[last] = self._fused([held[i - last] for i in members(last, n)])
        return n, logits

    def _encoded(self, some: Iterable[tuple[np.ndarray, np.ndarray]]) -> Iterator[tuple[Tensor, Tensor]]:
        import torch

        pictures, sounds = (torch.from_numpy(np.stack(part)).to(self.device) for part in zip(*some, strict=True))
        video = self.model.encode_video_segments(pictures.float().div_(255).sub_(0.5).div_(0.5))
        audio = self.model.encode_audio_segments(sounds)
        return zip(video, audio, strict=True)

    def _fused(self, group: Iterable[tuple[Tensor, Tensor]]) -> np.ndarray:
        import torch

        video, audio = (torch.stack(part)[None] for part in zip(*group, strict=True))
        found = self.model.fuse_segments(video, audio).logits
        if tuple(found.shape) != (1, 21):
            raise UsageError(f"model {self.name}: logits are {tuple(found.shape)}, they must be (1, 21)")
        row: np.ndarray = found[0].float().cpu().numpy()
        return row


class _Counted:
    """An iterator that knows how many it has given."""

    def __init__(self, items: Iterable[np.ndarray]) -> None:
        self.items, self.n = iter(items), 0

    def __iter__(self) -> _Counted:
        return self

    def __next__(self) -> np.ndarray:
        item = next(self.items)
        self.n += 1
        return item


def picture_segments(pictures: Iterable[np.ndarray], most: int | None = None) -> Iterator[np.ndarray]:
    """Pictures (at most the first ``most``) -> (16, ...) arrays that begin every 8 pictures, as far as they are
    whole."""
    held: deque[np.ndarray] = deque(maxlen=SEGMENT_FRAMES)
    for count, picture in enumerate(pictures, 1):
        held.append(picture)
        if count >= SEGMENT_FRAMES and (count - SEGMENT_FRAMES) % STEP_FRAMES == 0:
            yield np.stack(held)
        if count == most:
            return


def sound_segments(blocks: Iterable[np.ndarray], most: int | None = None) -> Iterator[np.ndarray]:
    """Blocks (n,) of sound (at most its first ``most`` samples) -> (10240,) arrays that begin every 5120 samples, as
    far as they are whole."""
    held, left = np.zeros(0, np.float32), most
    for block in blocks:
        held = np.concatenate([held, block[:left]])
        left = None if left is None else left - min(left, len(block))
        while len(held) >= SEGMENT_SAMPLES:
            yield held[:SEGMENT_SAMPLES]
            held = held[STEP_SAMPLES:]
        if left == 0:
            return


def square_pictures(reader: ClipReader, size: int) -> Iterator[np.ndarray]:
    """(3, size, size) uint8 of every picture of the 25 fps grid; one that is held is the same array again."""
    convert, shown, array = rgb_converter(), None, np.empty(0, np.uint8)
    for picture in reader.pictures():
        if picture is not shown:
            shown, array = picture, _square(convert(picture, reader.clip_id), size, reader.clip_id)
        yield array


def _square(rgb: np.ndarray, size: int, clip_id: str) -> np.ndarray:
    """(H, W, 3) uint8 -> (3, size, size): the short side becomes ``size``, then the centre square."""
    import torch
    from torch.nn.functional import interpolate

    planes = torch.from_numpy(np.ascontiguousarray(rgb)).permute(2, 0, 1)[None]
    short = min(rgb.shape[:2])
    if short != size:
        height, width = (size * side // short for side in rgb.shape[:2])
        if max(height, width) > 100 * size:  # a picture of one line would become a huge one
            raise MediaError(clip_id, f"the picture is {rgb.shape[1]}x{rgb.shape[0]}, too narrow to cut a square out")
        planes = interpolate(planes, size=(height, width), mode="bicubic", antialias=True, align_corners=False)
    top, left = (round((side - size) / 2.0) for side in planes.shape[2:])  # half to even, as published
    cut: np.ndarray = planes[0, :, top : top + size, left : left + size].contiguous().numpy()
    return cut
