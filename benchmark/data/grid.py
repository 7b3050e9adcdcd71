"""Which picture of a source each frame of the 25 fps grid shows: two rules, by name.

``"latest"``: grid frame k shows what the source shows at k/25 s, so that at other rates a change is seen up to one grid
frame late (on average 11 to 20 ms). It is the rule of all manifests that do not name one.

``"centred"``: grid frame k, which stands from k/25 s to (k + 1)/25 s, shows what the source shows at its middle. A
change is seen early as often as late, at every rate; of a 25 fps source, grid frame k is exactly picture k, whatever
its stamps jitter by less than 19 ms. A source of 50, 30, 20 or 10 fps changes its picture exactly at such a middle.
Then the earlier and the later picture take turns, second by second (even seconds: the later one): taking always the
later one would make the changes of a 50 fps source early by 10 ms on average, and turns from frame to frame would make
it judder.
"""

from __future__ import annotations

from fractions import Fraction
from math import gcd, lcm

from avbench.ticks import FRAME_RATE_HZ
from avbench.types import GRIDS, UsageError

GRID_SLACK_PER_S = 2000  # 1/2000 s: containers with a 1 ms clock (mkv) round picture times by up to half of it
_END_SLACK_S = Fraction(3, 2000)  # "latest": an end that is rounded up by 2 ms (with the slack) adds no frame


class Grid:
    """The rule ``name`` for pictures whose times are whole numbers of ``base`` seconds on the clip's clock.

    Only integers are used: :meth:`first_frame` is asked for every picture. ``UsageError`` for another name.
    """

    def __init__(self, name: str, base: Fraction) -> None:
        if name not in GRIDS:
            raise UsageError(f"grid is {name!r}; it must be one of: {', '.join(GRIDS)}")
        self.name, self.base = name, base
        self._tie = name == "centred"
        # one ``base``, the slack and half a grid frame, as small whole numbers
        times = base, Fraction(1, GRID_SLACK_PER_S), Fraction(1, 2 * FRAME_RATE_HZ)
        unit = Fraction(gcd(*(t.numerator for t in times)), lcm(*(t.denominator for t in times)))
        self._up, self._slack, self._half = (int(t / unit) for t in times)
        self._low = self._slack + (self._half if self._tie else 0)

    def first_frame(self, start: int) -> int:
        """The first grid frame that shows a picture which begins at ``start`` (or a later one): all frames before show
        an earlier one. A picture whose time is up to 0.5 ms off the instant is taken to be at it."""
        now, frame = start * self._up, 2 * self._half
        k = -((self._low - now) // frame)
        if self._tie and k // FRAME_RATE_HZ % 2 and k * frame + self._half <= now + self._slack:
            return (
                k + 1
            )  # the source changes at the middle of an odd second's frame: that one shows the earlier picture
        return max(0, k)

    def n_frames(self, end: int) -> int:
        """Grid frames of a picture stream that ends at ``end``: those whose instant lies before it, at least one."""
        if not self._tie:
            return max(1, self.first_frame(end - round(_END_SLACK_S / self.base)))
        return max(1, -((self._low - end * self._up) // (2 * self._half)))
