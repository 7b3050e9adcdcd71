"""What windows of a clip share of a backbone that cuts them into segments and encodes each by itself, as Synchformer
does with 0.64 s every 0.32 s: which segments there are, and the encoded ones that later windows still need.

Windows share segments if they start a whole number of steps apart. Then each is encoded once; windows of clips in which
none do are encoded whole. (Elsewhere a segment is a labelled stream; here it is such a part of a window.)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

from avbench.protocol.plan import SnapshotKey
from avbench.ticks import TICKS_PER_FRAME, frames
from avbench.types import SegmentLayout, SnapshotPredictor, UsageError, Window

SAMPLES_PER_FRAME = TICKS_PER_FRAME  # a tick is a sample
_HOOKS = ("encode_video_segments", "encode_audio_segments", "fuse_segments")
_WHOLE = ("predict", "encode_video", "encode_audio", "fuse")  # what the hooks must equal


def layout_of(predictor: SnapshotPredictor) -> SegmentLayout | None:
    """How the predictor's windows may be computed out of segments; None if it does not offer that, or if its class
    changes what an inherited ``segment_layout`` was said of. ``UsageError`` for one without the methods it promises."""
    layout: SegmentLayout | None = getattr(predictor, "segment_layout", None)
    if layout is None or not predictor.two_tower or hasattr(predictor, "stretch_sound"):
        return None
    if any(_depth(predictor, name) < _depth(predictor, "segment_layout") for name in _WHOLE):
        return None
    lacking = [name for name in _HOOKS if not callable(getattr(predictor, name, None))]
    if lacking:
        raise UsageError(
            f"model {type(predictor).__name__} has a segment_layout, but lacks {', '.join(lacking)}: define what "
            "SnapshotPredictor describes, or leave segment_layout out"
        )
    return layout


def _depth(predictor: Any, name: str) -> int:
    """How far from the predictor itself (-1) its attribute is defined, in the order in which classes are searched."""
    if name in getattr(predictor, "__dict__", {}):
        return -1
    kinds = type(predictor).__mro__
    return next((i for i, kind in enumerate(kinds) if name in vars(kind)), len(kinds))


class Kept:
    """Encoded segments, each by what it was cut out of, as long as a window needs it."""

    def __init__(self) -> None:
        self._needed: Counter[Hashable] = Counter()
        self._encoded: dict[Hashable, Any] = {}

    def expect(self, ids: Iterable[Hashable]) -> None:
        """One more window needs these."""
        self._needed.update(ids)

    def lacks(self, segment: Hashable) -> bool:
        """Whether it is still to be encoded."""
        return segment not in self._encoded

    def keep(self, segment: Hashable, features: Any) -> None:
        """Take an encoded segment."""
        self._encoded[segment] = features

    def __getitem__(self, segment: Hashable) -> Any:
        return self._encoded[segment]

    def __len__(self) -> int:
        return len(self._encoded)

    def let_go(self, ids: Iterable[Hashable]) -> None:
        """A window no longer needs these: forget those that no other does."""
        for segment in ids:
            self._needed[segment] -= 1
            if self._needed[segment] <= 0:
                del self._needed[segment]
                self._encoded.pop(segment, None)


class SharedSegments:
    """The segments of one clip for one model. ``pictures`` and ``sounds``: those encoded."""

    def __init__(self, layout: SegmentLayout) -> None:
        self.layout = layout
        self.pictures, self.sounds = Kept(), Kept()

    @classmethod
    def where_it_pays(
        cls, layout: SegmentLayout | None, keys_at: Mapping[Window, Sequence[SnapshotKey]]
    ) -> SharedSegments | None:
        """Of the keys of each picture window; None if no two windows have a segment in common."""
        if layout is None or any(layout.starts(frames(window.length))[0] < 0 for window in keys_at):
            return None
        shared = cls(layout)
        pictures = [shared.pictures_of(window) for window in keys_at]
        sounds = {shared.sounds_of(key) for keys in keys_at.values() for key in keys}
        if not any(_overlap(windows) for windows in (pictures, sounds)):
            return None
        for window, keys in keys_at.items():
            shared.expect(window, keys)
        return shared

    def pictures_of(self, window: Window) -> tuple[int, ...]:
        """The segments of a picture window, each by its first picture in the clip."""
        begin = frames(window.start)
        return tuple(begin + first for first in self.layout.starts(frames(window.length)))

    def sounds_of(self, key: SnapshotKey) -> tuple[Hashable, ...]:
        """The segments of a sound window, each by its first sample in the clip; under a law, also by what the law was
        laid over."""
        source = (key.scope, key.law) if key.law else None
        starts = self.layout.starts(frames(key.window))
        return tuple((key.sound + SAMPLES_PER_FRAME * first, source) for first in starts)

    def expect(self, window: Window, keys: Sequence[SnapshotKey]) -> None:
        """The keys of a picture window are to be computed."""
        self.pictures.expect(self.pictures_of(window))
        for key in keys:
            self.sounds.expect(self.sounds_of(key))

    def let_go(self, window: Window | None, keys: Iterable[SnapshotKey]) -> None:
        """These keys are computed, or cannot be; with ``window``, all that there were of that picture window."""
        if window is not None:
            self.pictures.let_go(self.pictures_of(window))
        for key in keys:
            self.sounds.let_go(self.sounds_of(key))


def _overlap(windows: Iterable[tuple[Hashable, ...]]) -> bool:
    """Whether two windows have a segment in common."""
    segments = [segment for window in windows for segment in window]
    return len(set(segments)) < len(segments)
