"""Decode a clip's sound: every sample at its pts on the clip's clock, mono, resampled to 16 kHz as a whole."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from avbench.data.edits import EditList
from avbench.ticks import SAMPLE_RATE_HZ

if TYPE_CHECKING:
    import av

AAC_SAMPLES = 1024  # per packet
_SOUND_HOLE_S = Fraction(1, 50)  # a longer hole (or jump back) in the sound is damage, not a jittery clock


class SoundStream:
    """Decode a sound stream, place every sample by its pts and yield 16 kHz mono from the clip's time 0 on.

    Frames that follow each other within the rounding of the container's clock are joined without a gap. The rounding is
    measured from the start of such a run, so it cannot add up to a drift. ``start_s``, ``patched`` and ``rate`` are
    final when the iteration is over. ``error(reason)`` makes the exception to raise for damaged sound. ``edits``: where
    the samples are placed, if the container is opened with ``edits.UNEDITED``.
    """

    def __init__(
        self, container: Any, stream: Any, origin: Fraction, error: Any, edits: EditList | None = None
    ) -> None:
        self.container, self.stream, self.origin, self.error, self.edits = container, stream, origin, error, edits
        self.start_s = Fraction(0)  # of the first decoded sample on the clip's clock (negative: before the picture)
        self.patched = 0  # native samples of short holes that were left silent
        self.rate = 0

    def __iter__(self) -> Iterator[np.ndarray]:
        """(n,) float32 blocks at 16 kHz."""
        resample: _To16k | None = None
        for native in self._native():
            resample = resample or _To16k(self.rate)
            yield from resample.feed(native)
        assert resample is not None
        yield from resample.end()

    def _native(self) -> Iterator[np.ndarray]:
        """(rate,) float32 blocks at the native rate; the last one is shorter.

        The latest samples are held back: a frame may begin up to 20 ms before the last one ended, and the container's
        declared end may cut off the padding of the last two packets.
        """
        waiting, emitted, held = np.zeros(0, np.float32), 0, 0  # waiting[0] is native sample ``emitted``
        end: int | None = None
        for place, mono in self._placed():
            if not held:
                packet = self.stream.codec_context.frame_size or AAC_SAMPLES
                held = 2 * packet + int(_SOUND_HOLE_S * self.rate) + 2
                self.start_s = Fraction(place, self.rate)
            end = place + len(mono)
            if end <= 0:
                continue
            if end - emitted > len(waiting):
                waiting = np.concatenate([waiting, np.zeros(end - emitted - len(waiting), np.float32)])
            low = max(place, 0)
            waiting[low - emitted : end - emitted] = mono[low - place :]
            while len(waiting) - held >= self.rate:
                yield waiting[: self.rate]
                waiting, emitted = waiting[self.rate :], emitted + self.rate
        if end is None:
            raise self.error("the sound stream is empty")
        if end <= 0:
            raise self.error("the sound ends before the picture begins")
        if not self.edits:
            end = min(end, max(_declared_end(self.stream, self.origin, self.rate, end), 1))
        waiting = waiting[: end - emitted]
        for begin in range(0, len(waiting), self.rate):
            yield waiting[begin : begin + self.rate]

    def _placed(self) -> Iterator[tuple[int, np.ndarray]]:
        """(native sample index on the clip's clock, mono samples) of every decoded frame."""
        run_start, run_samples, end = Fraction(0), 0, 0
        for frame in self.container.decode(self.stream):
            rate = self.rate
            at = f"{end / rate if rate else 0:.2f} s"
            if frame.is_corrupt or frame.pts is None:
                raise self.error(f"the sound is damaged at about {at}")
            if rate and frame.sample_rate != rate:
                raise self.error(f"the sample rate changes from {rate} to {frame.sample_rate} Hz at {at}")
            for heard_s, mono in self._played(frame):
                start = heard_s - self.origin
                if not rate:
                    rate = self.rate = frame.sample_rate
                    run_start, end = start, round(start * rate)
                step = start - (run_start + Fraction(run_samples, rate))
                if abs(step) > frame.time_base + Fraction(1, rate):
                    if step < -_SOUND_HOLE_S:
                        raise self.error(f"the sound jumps back by {-float(step):.3f} s at {at}")
                    place = round(start * rate)
                    # (mp4 without edit list: after the priming, before the picture)
                    if step > _SOUND_HOLE_S and place > 0:
                        raise self.error(f"the sound has a hole of {float(step):.3f} s at {at}")
                    self.patched += max(0, place - max(end, 0))
                    run_start, run_samples, end = start, 0, place
                yield end, mono
                run_samples += len(mono)
                end += len(mono)

    def _played(self, frame: Any) -> Iterator[tuple[Fraction, np.ndarray]]:
        """(when it is heard on the stream's own clock, mono samples) of each part of a frame that is played."""
        mono = _mono(frame)
        if not self.edits:
            yield frame.pts * frame.time_base, mono
            return
        for first, last, heard_s in self.edits.sound(frame.pts, len(mono), frame.sample_rate):
            yield heard_s, mono[first:last]


def _declared_end(stream: Any, origin: Fraction, rate: int, end: int) -> int:
    """End of the sound in native samples: the container's own if it only cuts off padding of the last two packets."""
    if stream.duration is None or stream.start_time is None:
        return end
    declared = round(((stream.start_time + stream.duration) * stream.time_base - origin) * rate)
    packet = stream.codec_context.frame_size or AAC_SAMPLES
    return declared if end - 2 * packet < declared < end else end


def _mono(frame: av.AudioFrame) -> np.ndarray:
    """(samples,) float32 in [-1, 1]: the mean over channels, as in the published code."""
    array: np.ndarray = frame.to_ndarray()
    channels = frame.layout.nb_channels
    if not frame.format.is_planar:
        array = array.reshape(-1, channels).T
    if array.dtype == np.uint8:
        array = (array.astype(np.float32) - 128) / 128
    elif array.dtype.kind == "i":
        array = array.astype(np.float64) / 2 ** (8 * array.dtype.itemsize - 1)
    return np.ascontiguousarray(array[0] if channels == 1 else array.mean(axis=0), dtype=np.float32)


class _To16k:
    """Resamples to 16 kHz from sample 0 on (swr has no group delay); n samples become floor(n * 16000 / rate)."""

    def __init__(self, rate: int) -> None:
        from av import AudioResampler

        self.rate = rate
        self.fed = self.made = 0
        same = rate == SAMPLE_RATE_HZ
        self._resampler = None if same else AudioResampler(format="fltp", layout="mono", rate=SAMPLE_RATE_HZ)

    def feed(self, native: np.ndarray) -> Iterator[np.ndarray]:
        """Take the next (m,) native samples and yield the 16 kHz samples that are final."""
        if self._resampler is None:
            yield native
            return
        import av

        piece = av.AudioFrame.from_ndarray(np.ascontiguousarray(native)[None], "fltp", "mono")
        piece.sample_rate, piece.pts, piece.time_base = self.rate, self.fed, Fraction(1, self.rate)
        self.fed += len(native)
        yield from self._up_to_length(self._resampler.resample(piece))

    def end(self) -> Iterator[np.ndarray]:
        """Yield the remaining samples, cut or padded with silence to the exact length."""
        if self._resampler is None:
            return
        yield from self._up_to_length(self._resampler.resample(None))
        missing = self.fed * SAMPLE_RATE_HZ // self.rate - self.made
        if missing:  # the resampler may hold back the last fraction of a sample
            yield np.zeros(missing, np.float32)

    def _up_to_length(self, frames: list[av.AudioFrame]) -> Iterator[np.ndarray]:
        for frame in frames:
            samples = frame.to_ndarray()[0][: self.fed * SAMPLE_RATE_HZ // self.rate - self.made]
            self.made += len(samples)
            if len(samples):
                yield samples
