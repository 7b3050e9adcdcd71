"""A protocol: every setting of an evaluation that can change a score, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from avbench.protocol.laws import extremes
from avbench.ticks import TICKS_PER_FRAME, TICKS_PER_S, Tick, seconds, ticks
from avbench.types import ClipRecord, OffsetGrid, SegmentRecord, UsageError, Window

SELECTIONS = ("final", "best_iter", "any_hit")
FRONTEND_SCOPES = ("window", "stretch")
SUPPORTS = ("own", "common")


@dataclass(frozen=True, slots=True)
class Protocol:
    """The settings of an evaluation. Times are in ticks (1/16000 s). Made by :func:`streaming` or :func:`paper`.

    ``frontend_scope``: "window" is causal (a window's front end sees that window only); "stretch" is that of the
    published evaluation code: windows are cut out of what a front end makes of the sound of the whole stretch, which
    standardises over it (information from the future leaks in), and the stretch begins as ``heard`` says.
    ``start_shift``: the start of the first window relative to the segment's start (published code: -2 s).
    ``selection``: the iteration that is scored; one table column never mixes selections.
    ``support``: "own" scores the segments that are long enough for this protocol; "common" those long enough for all
    settings in ``common_support`` (pairs of hop in ticks and number of iterations).
    ``UsageError`` for settings that are not allowed.
    """

    name: str = "streaming"
    version: int = 1
    window: Tick = ticks(5)  # noqa: RUF009 (pure)
    hop: Tick = ticks(2)  # noqa: RUF009
    iterations: int = 18
    grid: OffsetGrid = OffsetGrid()  # noqa: RUF009 (frozen)
    frontend_scope: str = "window"
    start_shift: Tick = 0
    selection: str = "final"
    support: str = "own"
    common_support: tuple[tuple[Tick, int], ...] = ()

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("selection", self.selection, SELECTIONS),
            ("frontend_scope", self.frontend_scope, FRONTEND_SCOPES),
            ("support", self.support, SUPPORTS),
        ):
            if value not in allowed:
                raise UsageError(f"protocol {name} is {value!r}; it must be one of {', '.join(allowed)}")
        if not isinstance(self.iterations, int) or self.iterations < 1:
            raise UsageError(f"iterations is {self.iterations!r}; it must be a whole number, at least 1")
        if "|" in self.name or not self.name:
            raise UsageError(f"protocol name is {self.name!r}; it must be a word without |")
        if self.start_shift % TICKS_PER_FRAME:
            raise UsageError(
                f"start_shift is {seconds(self.start_shift):g} s; it must be a multiple of 0.04 s (one frame)"
            )
        for name, tick in (("hop", self.hop), ("window", self.window)):
            if tick <= 0 or tick % TICKS_PER_FRAME:
                raise UsageError(f"{name} is {seconds(tick):g} s; it must be a positive multiple of 0.04 s (one frame)")

    def signature(self) -> str:
        """One short string with every field. Scores are comparable if the signatures are equal."""
        parts = [f"{self.name}:{self.version}", f"w{seconds(self.window):.3f}", f"h{seconds(self.hop):.3f}"]
        parts += [f"n{self.iterations}", f"g{self.grid.n_classes}@{self.grid.max_offset_s!r}"]
        parts += [f"fe-{self.frontend_scope}", f"s{seconds(self.start_shift):+.3f}", self.selection]
        common = ",".join(f"{seconds(h):g}x{n}" for h, n in self.common_support)
        parts.append(self.support + (f"[{common}]" if common else ""))
        return "avb|" + "|".join(parts)

    @classmethod
    def parse(cls, text: str) -> Protocol:
        """The protocol that :meth:`signature` wrote as ``text``; ``UsageError`` for any other text."""
        found = _SIGNATURE.fullmatch(text)
        if found is None:
            raise UsageError(f"{text[:200]!r} is not the signature of a protocol")
        part = found.groupdict()
        pairs = [pair.split("x") for pair in (part["common"] or "").split(",") if pair]
        protocol = cls(
            name=part["name"],
            version=int(part["version"]),
            window=ticks(part["window"]),
            hop=ticks(part["hop"]),
            iterations=int(part["iterations"]),
            grid=OffsetGrid(int(part["classes"]), float(part["reach"])),
            frontend_scope=part["scope"],
            start_shift=ticks(part["shift"]),
            selection=part["selection"],
            support=part["support"],
            common_support=tuple((ticks(hop), int(iterations)) for hop, iterations in pairs),
        )
        if protocol.signature() != text:  # one protocol has one signature: h2.0 is not h2.000
            raise UsageError(f"{text[:200]!r} is not the signature of a protocol")
        return protocol

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Protocol:
        """The protocol whose ``dataclasses.asdict`` went through JSON. ``UsageError``, ``TypeError``, ``KeyError`` or
        ``ValueError`` if these are not its fields."""
        return cls(
            **{
                **fields,
                "grid": OffsetGrid(**fields["grid"]),
                "common_support": tuple((hop, iterations) for hop, iterations in fields["common_support"]),
            }
        )

    def picture_windows(self, segment: SegmentRecord) -> list[Window]:
        """The picture windows of a segment, one per iteration."""
        first = segment.start + self.start_shift
        return [Window(first + i * self.hop, self.window) for i in range(self.iterations)]

    def heard(self, segment: SegmentRecord) -> Tick:
        """By how much the sound is shifted: the segment's offset. The published code, which "stretch" follows, rounds
        it to 0.01 s and cuts its seconds, as doubles, down to a sample: 57 of its 401 offsets lose one (-1.6 s does).
        """
        if self.frontend_scope == "window" or segment.law:
            return segment.offset
        return int((-seconds(self.start_shift) + round(segment.offset_s, 2)) * TICKS_PER_S) + self.start_shift

    def sound_windows(self, segment: SegmentRecord) -> list[Window]:
        """The sound windows: the picture windows shifted as ``heard`` says."""
        shift = self.heard(segment)
        return [Window(w.start + shift, w.length) for w in self.picture_windows(segment)]

    def stretch(self, segment: SegmentRecord) -> Window:
        """The sound that the "stretch" front end is given, shifted as ``heard`` says.

        Its length is window + iterations x hop, one hop more than the last window needs, as in the published code.
        """
        start = segment.start + self.start_shift + self.heard(segment)
        return Window(start, self.window + self.iterations * self.hop)

    def supports(self, segment: SegmentRecord, clip: ClipRecord) -> bool:
        """Whether the clip contains all picture and sound windows of the segment (and the stretch, if one is used), and
        none of its gaps touches them. Under a law: wherever its offset goes."""
        settings = self.common_support if self.support == "common" else ((self.hop, self.iterations),)
        for hop, iterations in settings:
            length = self.window + (iterations - (0 if self.frontend_scope == "stretch" else 1)) * hop
            first = segment.start + self.start_shift
            low, high = extremes(segment.law, length) if segment.law else (self.heard(segment),) * 2
            if first < 0 or first + low < 0:
                return False
            if first + length > clip.n_frames * TICKS_PER_FRAME or first + high + length > clip.n_samples:
                return False
            picture, sound = Window(first, length), Window(first + low, high - low + length)
            if clip.reading.gap_in("picture", picture) or clip.reading.gap_in("sound", sound):
                return False
        return True


_NUMBER = r"[0-9]{1,12}(?:\.[0-9]{1,12})?(?:e[+-]?[0-9]{1,3})?"
_SIGNATURE = re.compile(
    rf"avb\|(?P<name>[^|]+):(?P<version>[0-9]{{1,9}})\|w(?P<window>{_NUMBER})\|h(?P<hop>{_NUMBER})"
    rf"\|n(?P<iterations>[0-9]{{1,9}})\|g(?P<classes>[0-9]{{1,9}})@(?P<reach>{_NUMBER})\|fe-(?P<scope>[a-z]+)"
    rf"\|s(?P<shift>[+-]{_NUMBER})\|(?P<selection>[a-z_]+)"
    rf"\|(?P<support>[a-z]+)(?:\[(?P<common>{_NUMBER}x[0-9]{{1,9}}(?:,{_NUMBER}x[0-9]{{1,9}})*)\])?"
)


def streaming(hop_s: float = 2.0, iterations: int = 18, **changes: object) -> Protocol:
    """The default protocol, which leaderboards use. It is causal."""
    return Protocol(hop=ticks(hop_s), iterations=iterations, **changes)  # type: ignore[arg-type]


def paper(hop_s: float = 2.0, iterations: int = 18, **changes: object) -> Protocol:
    """The protocol of the published evaluation code: starts 2 s early, its front end hears the whole stretch.

    Version 2 cuts windows out of what the front end makes of the stretch, and the sound as ``Protocol.heard`` says;
    version 1 only took the stretch's mean and deviation. With hops of whole seconds every window begins where the
    published one does; of others (0.6 s) some published windows begin a frame earlier, which is not followed.
    """
    return Protocol(
        name="paper",
        version=2,
        hop=ticks(hop_s),
        iterations=iterations,
        frontend_scope="stretch",
        start_shift=-ticks(2),
        **changes,  # type: ignore[arg-type]
    )


def dynamic(hop_s: float = 2.0, iterations: int = 48, **changes: object) -> Protocol:
    """The protocol for offsets that change: each window is scored against what is so at its end."""
    return Protocol(name="dynamic", hop=ticks(hop_s), iterations=iterations, **changes)  # type: ignore[arg-type]


PROTOCOLS = {"streaming": streaming, "paper": paper, "dynamic": dynamic}


def usual(changing: bool, hop_s: float = 2.0, iterations: int | None = None) -> Protocol:
    """The protocol that data are run under unless another one is asked for: ``dynamic`` if offsets are ``changing``."""
    make = dynamic if changing else streaming
    return make(hop_s) if iterations is None else make(hop_s, iterations)
