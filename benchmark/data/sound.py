"""Decode a clip's sound: every sample where the time stamps put it on the clip's clock, mono, resampled to 16 kHz as a
whole. What is missing is silence and is reported."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from avbench.data.edits import EditList
from avbench.data.packets import packets
from avbench.data.sound_clock import placed
from avbench.ticks import SAMPLE_RATE_HZ

if TYPE_CHECKING:
    import av

AAC_NAMES = ("aac", "aac_latm")  # the second as television packs it
AAC_SAMPLES = 1024  # per packet
GAP_LIMIT_S = Fraction(1, 100)  # a spectrogram's windows are 25 ms: a shorter hole is a scratch in one or two of them
_LONGEST_HOLE_S = 600  # recorders leave the sound out while it is muted; a longer jump is a clock that was set anew
_LONGEST_OVERLAP_S = 1  # joins repeat a packet or two; this much sound is held back, so that the later can win
_RATES_HZ = (4000, 768_000)  # other rates come from damaged headers and ask for absurd memory
_MOST_CHANNELS = 64  # that FFmpeg's converter takes
_UNSTAMPED = 8  # frames without a time stamp, to begin with, after which there are none
_DTX_BYTES = 2  # an Opus packet of this size says that the packets of a pause are left out from here on
_LOUDEST = 1e6  # times full scale: floating-point samples beyond it, and those that are no numbers, are damage
_CANCELS = 0.01  # power of the channels' mean against that of the mean of unrelated channels: 20 dB
_FAINT_RMS, _FAINT_PEAK = 10 ** (-60 / 20), 10 ** (-40 / 20)  # sound below both is nearly silent


class SoundStream:
    """Decode a sound stream, place every sample and yield 16 kHz mono from the clip's time 0 on.

    Frames follow each other without a gap unless the time stamps go on saying otherwise (``sound_clock.placed``). What
    is missing between them is silence; where the sound jumps back by up to a second, the later sound wins. Packets that
    cannot be decoded are left out and so leave a hole. ``gaps`` are the stretches (start_s, end_s) of the clip's clock,
    longer than ``gap_limit_s`` seconds, where what is heard is not what was recorded: holes and overlaps. Pauses that
    an Opus encoder announces are silence and no gap.

    Refused: sound whose clock jumps back further or ahead by over 600 s, and sound of which most packets are damaged.
    If the sample rate changes, the rest is resampled to the first one. ``start_s``, ``patched``, ``gaps``, ``rate`` and
    ``warnings()`` are final when the iteration is over. ``error(reason)`` makes the exception to raise. ``edits``:
    where the samples are placed, if the container is opened with ``edits.UNEDITED``.
    """

    def __init__(
        self,
        container: Any,
        stream: Any,
        origin: Fraction,
        error: Any,
        *,
        gap_limit_s: Fraction = GAP_LIMIT_S,
        edits: EditList | None = None,
    ) -> None:
        self.container, self.stream, self.origin, self.error, self.edits = container, stream, origin, error, edits
        self.gap_limit_s = gap_limit_s
        self.start_s = Fraction(0)  # of the first decoded sample on the clip's clock (negative: before the picture)
        self.patched = 0  # native samples of shorter holes that were left silent
        self.gaps: list[tuple[Fraction, Fraction]] = []  # in order, apart
        self.rate = 0  # of the first frame
        self._holes: list[tuple[Fraction, Fraction]] = []  # the gaps that are holes,
        self._overlaps: list[tuple[Fraction, Fraction]] = []  # and those that are overlaps
        self._good = self._damaged = 0  # frames, and packets or frames
        self._reason = "corrupt"  # why the last one is damaged
        self._changes: dict[str, list[str]] = {"number of channels": [], "sample rate": []}
        self._levels = _Levels()

    def __iter__(self) -> Iterator[np.ndarray]:
        """(n,) float32 blocks at 16 kHz."""
        resample: Resampler | None = None
        for native in self._native():
            self._levels.add(native)
            resample = resample or Resampler(self.rate, SAMPLE_RATE_HZ)
            yield from resample.feed(native)
        assert resample is not None
        yield from resample.end()

    def warnings(self) -> Iterator[str]:
        """What is unusual in the sound, in words."""
        for jumps, done, then in (
            (self._holes, "is missing", "read as silence"),
            (self._overlaps, "overlaps itself", "the later sound is read"),
        ):
            if jumps:
                lengths = [float(end - start) for start, end in jumps]
                times = f" ({len(jumps)} times, {sum(lengths):.3f} s in all)" if len(jumps) > 1 else ""
                yield f"the sound {done} for {lengths[0]:.3f} s at {float(jumps[0][0]):.2f} s{times}: {then}"
        if self._damaged:
            yield f"{self._damaged} damaged packet{'s' if self._damaged > 1 else ''} of the sound left out"
        for what, changes in self._changes.items():
            if changes:
                more = f" ({len(changes)} changes)" if len(changes) > 1 else ""
                yield f"the {what} of the sound changes {changes[0]}{more}; it is read on"
        yield from self._levels.warnings()

    def _native(self) -> Iterator[np.ndarray]:
        """(rate,) float32 blocks at the native rate; the last one is shorter.

        The latest samples are held back: a frame may begin up to a second before the last one ended, and the
        container's declared end may cut off the padding of the last two packets.
        """
        waiting, emitted, end, held = np.zeros(0, np.float32), 0, 0, 0  # waiting[0] is native sample ``emitted``
        for place, mono in self._joined():
            if not held:
                packet = self.stream.codec_context.frame_size or AAC_SAMPLES
                held, end = 2 * packet + _LONGEST_OVERLAP_S * self.rate, place
            end = max(end, place + len(mono))
            if place + len(mono) <= 0:
                continue
            if end - emitted > len(waiting):  # room for another second: growing with every frame costs more
                waiting = np.concatenate([waiting, np.zeros(end - emitted - len(waiting) + self.rate, np.float32)])
            low = max(place, 0)
            waiting[low - emitted : place + len(mono) - emitted] = mono[low - place :]
            while end - emitted - held >= self.rate:
                yield waiting[: self.rate]
                waiting, emitted = waiting[self.rate :], emitted + self.rate
        if end <= 0:
            raise self.error("the sound ends before the picture begins")
        if not self.edits:
            end = min(end, max(_declared_end(self.stream, self.origin, self.rate, end), 1))
        waiting = waiting[: end - emitted]
        for begin in range(0, len(waiting), self.rate):
            yield waiting[begin : begin + self.rate]

    def _joined(self) -> Iterator[tuple[int, np.ndarray]]:
        """(native sample index on the clip's clock, (n,) float32) of the sound and of the silence in its holes."""
        decoded = self._decoded()
        first = next(decoded, None)
        if first is None and not self._damaged:
            raise self.error("the sound stream is empty")
        end, announced = 0, False  # of all sound up to here; whether a pause follows it
        pieces = placed(itertools.chain([first] if first else [], decoded), self.rate, self.stream.time_base)
        for k, (place, (mono, pauses)) in enumerate(pieces):
            if not k:
                self.start_s = Fraction(place, self.rate)
                if self.start_s > _LONGEST_HOLE_S:
                    raise self.error(f"the sound begins {float(self.start_s):.0f} s after the picture")
            elif end > 0 and place != end:  # (mp4 without edit list: a hole after the priming, before the picture)
                self._jump(end, place, announced)
            for begin in range(max(end, 0), place, self.rate):
                yield begin, np.zeros(min(self.rate, place - begin), np.float32)
            yield place, mono
            end, announced = place + len(mono) if not k else max(end, place + len(mono)), pauses
        if self._damaged > self._good:
            some = "most packets of the sound cannot" if self._good else "no packet of the sound can"
            raise self.error(f"{some} be decoded ({self._damaged} of {self._damaged + self._good}: {self._reason})")

    def _jump(self, end: int, place: int, announced: bool) -> None:
        """Record that the sound up to sample ``end`` is followed by sound at ``place``; refuse what cannot be."""
        ahead, length_s, at = place > end, Fraction(abs(place - end), self.rate), f"at {end / self.rate:.2f} s"
        if length_s > (_LONGEST_HOLE_S if ahead else _LONGEST_OVERLAP_S):
            way = "ahead" if ahead else "back"
            raise self.error(f"the sound's clock jumps {way} by {float(length_s):.3f} s {at}; cut the file there")
        if length_s > self.gap_limit_s and not (ahead and announced):
            stretch = (Fraction(max(min(place, end), 0), self.rate), Fraction(max(place, end), self.rate))
            for known in (self.gaps, self._holes if ahead else self._overlaps):
                if known and stretch[0] <= known[-1][1]:
                    known[-1] = (min(known[-1][0], stretch[0]), max(known[-1][1], stretch[1]))
                else:
                    known.append(stretch)
        elif ahead and not announced:
            self.patched += place - end

    def _decoded(self) -> Iterator[tuple[Fraction | None, int, tuple[np.ndarray, bool]]]:
        """(stamp in samples on the clip's clock or None, number of samples, (mono samples, whether a pause is announced
        after them)) of every frame, at the first frame's rate."""
        other: Resampler | None = None  # of frames of another rate
        for start_s, rate, mono, pauses in self._mono():
            self.rate = self.rate or rate
            if other and rate != other.rate:
                yield from ((None, len(block), (block, False)) for block in other.end())
                other = None
            blocks: Iterable[np.ndarray] = [mono]
            if rate != self.rate:
                other = other or Resampler(rate, self.rate)
                if start_s is not None:  # what the resampler holds back comes first
                    start_s -= Fraction(other.fed, rate) - Fraction(other.made, self.rate)
                blocks = other.feed(mono)
            stamp = None if start_s is None else start_s * self.rate
            for block in blocks:
                yield stamp, len(block), (block, pauses)
                stamp = None
        if other:
            yield from ((None, len(block), (block, False)) for block in other.end())

    def _mono(self) -> Iterator[tuple[Fraction | None, int, np.ndarray, bool]]:
        """(stamp in seconds on the clip's clock or None, rate, mono samples, whether a pause is announced after them)
        of every frame."""
        mix, stamped, before = _Mix(self._levels, self.error), False, (0, 0)
        for count, (frame, pauses) in enumerate(self._frames(), 1):
            start_s = None if frame.pts is None else frame.pts * self.stream.time_base - self.origin
            stamped |= start_s is not None
            if count == _UNSTAMPED and not stamped:
                raise self.error("the sound has no time stamps (remux the file to mp4)")
            mono = mix(frame)
            if mono is None:
                self._damaged, self._reason = self._damaged + 1, "samples are no numbers"
                continue
            self._good += 1
            now = (mix.channels, frame.sample_rate)
            if before != now and before[0]:
                at = "" if start_s is None else f" at {float(start_s):.2f} s"
                for what, old, new in zip(self._changes, before, now, strict=True):
                    if old != new:
                        self._changes[what].append(f"from {old} to {new}{at}")
            before = now
            if self.edits and frame.pts is not None:
                for first, last, heard_s in self.edits.sound(frame.pts, len(mono), frame.sample_rate):
                    yield heard_s - self.origin, frame.sample_rate, mono[first:last], pauses
            else:
                yield start_s, frame.sample_rate, mono, pauses

    def _frames(self) -> Iterator[tuple[av.AudioFrame, bool]]:
        """Every frame that can be decoded, and whether its packet announces a pause."""
        import av

        channels_of(self.stream)
        codec = self.stream.codec_context
        codec.open(strict=False)  # (what cannot be opened is no damage of a packet)
        for packet in packets(self.container, self.stream):
            announced = packet.size <= _DTX_BYTES and codec.name in ("opus", "libopus")
            try:
                frames = [frame for frame in packet.decode() if frame.samples]
            except av.error.MemoryError:
                raise
            except av.FFmpegError as error:
                self._damaged, self._reason = self._damaged + 1, str(error.strerror)
                continue
            for frame in frames:
                if frame.is_corrupt:
                    self._damaged += 1
                else:
                    yield frame, announced


def channels_of(stream: Any) -> int:
    """Number of channels of a sound stream that is not being decoded yet; 0 where only its packets tell.

    PyAV copies a channel layout without the list of channels that belongs to an unusual one (a mov's discrete channels)
    and both copies free it, which kills the process. So the stream's layout is taken over and replaced by one that
    needs no list. Read the channels of a stream nowhere else; their positions do not matter to their mean.
    """
    codec = stream.codec_context
    if codec.is_open:
        return codec.layout.nb_channels
    layout = codec.layout
    if layout.nb_channels:
        codec.layout = {1: "mono", 2: "stereo"}.get(layout.nb_channels, f"{layout.nb_channels}C")
    return layout.nb_channels


def sbr_delay_samples(stream: Any) -> int:
    """The largest delay of the common HE-AAC encoders, in samples at the rate that is heard; 0: not HE-AAC.

    HE-AAC makes its upper octave from the lower one (SBR). Encoders delay the lower half by up to 2112 samples at half
    the rate and the decoder's filters by 481 (qaac, fdkaac, FhG); parametric stereo (v2) is given one packet more.
    FFmpeg names the profile where the header says so or the first packets showed it; a packet of twice the usual
    samples says the same.
    """
    codec = stream.codec_context
    profile = codec.profile or ""
    if codec.name not in AAC_NAMES or ("HE-AAC" not in profile and codec.frame_size != 2 * AAC_SAMPLES):
        return 0
    return 2 * (2112 + 481) + (2 * AAC_SAMPLES if "v2" in profile else 0)


def _declared_end(stream: Any, origin: Fraction, rate: int, end: int) -> int:
    """End of the sound in native samples: the container's own if it only cuts off padding of the last two packets."""
    if stream.duration is None or stream.start_time is None:
        return end
    declared = round(((stream.start_time + stream.duration) * stream.time_base - origin) * rate)
    packet = stream.codec_context.frame_size or AAC_SAMPLES
    return declared if end - 2 * packet < declared < end else end


class Samples:
    """Turns decoded frames into arrays, of any sample format and layout.

    FFmpeg converts them to packed doubles first, which hold each value exactly. (PyAV's own arrays read past the list
    of planes where there are eight or more.)
    """

    def __init__(self) -> None:
        self._kind: tuple[Any, ...] = ()
        self._packer: Any = None

    def __call__(self, frame: av.AudioFrame) -> np.ndarray:
        """(channels, samples) float64 in [-1, 1], contiguous."""
        from av import AudioResampler

        kind = (frame.format.name, frame.layout.name, frame.sample_rate)
        if kind != self._kind:
            self._kind, self._packer = kind, AudioResampler(format="dbl")
        channels = frame.layout.nb_channels
        packed = self._packer.resample(frame)
        parts = [np.frombuffer(part.planes[0], np.float64, part.samples * channels) for part in packed]
        return np.ascontiguousarray(np.concatenate(parts).reshape(-1, channels).T)


class _Mix:
    """Turns decoded frames into mono: the mean over channels, as in the published code.

    All channels weigh the same, of surround sound and of a recorder's 64 tracks too: a voice in the centre of 7.1 is
    heard at 1/8, with a subwoofer's channel beside it. Models look at shapes, not levels; no choice of channels is
    better for every recording; and a mean is what the published models were trained on. Doubles hold each value
    exactly, so mono and stereo are as if averaged in single precision.
    """

    def __init__(self, levels: _Levels, error: Any) -> None:
        self.channels = 0  # of the last frame
        self._levels, self._error, self._samples = levels, error, Samples()

    def __call__(self, frame: av.AudioFrame) -> np.ndarray | None:
        """(samples,) float32, full scale is 1; None if they are no sound."""
        self.channels, rate = frame.layout.nb_channels, frame.sample_rate
        if not 1 <= self.channels <= _MOST_CHANNELS:
            raise self._error(f"the sound has {self.channels} channels; 1 to {_MOST_CHANNELS} are read")
        if not _RATES_HZ[0] <= rate <= _RATES_HZ[1]:
            raise self._error(f"the sound's rate is {rate} Hz; {_RATES_HZ[0]} to {_RATES_HZ[1]} Hz are read")
        samples = self._samples(frame)
        if not np.abs(samples).max() < _LOUDEST:  # (nothing is less than a NaN)
            return None
        mono = samples.mean(axis=0)
        self._levels.add_channels(samples, mono)
        return mono.astype(np.float32)


class _Levels:
    """Adds up how loud the sound is, and how loud its channels were before they were averaged. 1.0 is full scale."""

    def __init__(self) -> None:
        self._samples, self._sum, self._power = 0, 0.0, 0.0  # of the mono sound as it is read
        self._low, self._high = math.inf, -math.inf
        self._mixed, self._channels, self._unrelated = 0.0, 0.0, 0.0  # power of the mean of several channels; of one
        # channel; of the mean, if the channels had nothing to do with each other

    def add(self, mono: np.ndarray) -> None:
        self._samples += len(mono)
        self._sum += float(mono.sum(dtype=np.float64))
        self._power += float(np.dot(mono, mono))
        self._low, self._high = min(self._low, float(mono.min())), max(self._high, float(mono.max()))

    def add_channels(self, samples: np.ndarray, mono: np.ndarray) -> None:
        """(channels, n) and their mean (n,)."""
        channels = len(samples)
        if channels > 1:
            power = float(np.vdot(samples, samples))
            self._mixed += float(np.dot(mono, mono))
            self._channels += power / channels
            self._unrelated += power / channels**2

    def warnings(self) -> Iterator[str]:
        n = max(self._samples, 1)
        middle = self._sum / n  # a recorder's constant offset is not heard
        rms = max(self._power / n - middle**2, 0.0) ** 0.5
        peak = max(self._high - middle, middle - self._low, 0.0)
        if self._mixed < _CANCELS * self._unrelated and self._channels > _FAINT_RMS**2 * self._samples:
            below = f"is {_db(self._channels / self._mixed, 10)} below them" if self._mixed else "is zero throughout"
            yield (
                f"left and right cancel out (opposite phase): their mean, which is what is read, {below}; "
                "import one channel instead (ffmpeg -af 'pan=mono|c0=c0')"
            )
        elif self._low == self._high:
            yield f"the sound is silent (every sample is {f'{self._low:.3g}' if self._low else 'zero'})"
        elif rms < _FAINT_RMS and peak < _FAINT_PEAK:
            average = f"{_db(rms)} on average, " if rms else ""
            yield f"the sound is nearly silent: {average}{_db(peak)} at most (0 dB is full scale)"


def _db(ratio: float, factor: int = 20) -> str:
    return f"{factor * math.log10(ratio):.0f} dB"


class Resampler:
    """Resamples from sample 0 on (swr has no group delay); n samples become floor(n * to / rate)."""

    def __init__(self, rate: int, to: int) -> None:
        from av import AudioResampler

        self.rate, self.to = rate, to
        self.fed = self.made = 0
        self._resampler = None if rate == to else AudioResampler(format="fltp", layout="mono", rate=to)

    def feed(self, native: np.ndarray) -> Iterator[np.ndarray]:
        """Take the next (m,) native samples and yield the samples at the new rate that are final."""
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
        missing = self.fed * self.to // self.rate - self.made
        if missing:  # the resampler may hold back the last fraction of a sample
            yield np.zeros(missing, np.float32)

    def _up_to_length(self, frames: list[av.AudioFrame]) -> Iterator[np.ndarray]:
        for frame in frames:
            samples = frame.to_ndarray()[0][: self.fed * self.to // self.rate - self.made]
            self.made += len(samples)
            if len(samples):
                yield samples
