"""Tracks: a pinned manifest and a protocol that a leaderboard entry answers."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, replace
from typing import Literal

from avbench.protocol.rules import Protocol, dynamic, streaming, usual
from avbench.protocol.signature import Signature
from avbench.ticks import seconds
from avbench.types import UsageError

BLIND = ".blind-"  # in the name of a private track: <public track>.blind-<first digits of the manifest's hash>

_SYNTHSYNC = "8211d7f41ccbea92c1acda4fe0e5017a358c747ed7c88aca32cbf873a229a131"
_SYNTHSYNC_FULL = "29ee63b74d646bc73f1747dbd155a3e39fa03d9df7db139341322df18cffb878"
_SYNTHSYNC_DYNAMIC = "b0519951071595246901d36f780dfaf638d8ff1a10f06ba11010a5269e9fb651"


@dataclass(frozen=True)
class Track:
    """``data`` and ``split``: arguments for ``avbench run``. ``labels``: "public", or "private" (read from a file)."""

    name: str
    title: str
    data: str
    split: str
    manifest_sha256: str
    protocol: Protocol
    labels: Literal["public", "private"] = "public"

    @property
    def signature(self) -> str:
        """Protocol and data; two scores are ranked together only if these are equal."""
        return Signature.of(self.protocol, "", self.manifest_sha256, "").shared()

    @property
    def changing(self) -> bool:
        """Whether offsets change while a stream runs, so that every window has a truth of its own."""
        return self.protocol.name == "dynamic"

    @property
    def command(self) -> str:
        """The command that makes a run for this track."""
        return f"avbench run --model MODEL --data {self.data} --split {self.split}{self._hop()}"

    def blind_command(self, folder: str, model: str = "MODEL") -> str:
        """The command that makes a run on a blind set of this track. The manifest of such a set does not say that
        offsets change, so the command has to."""
        protocol = f" --protocol {self.protocol.name}" if self.changing else ""
        return f"avbench run --model {model} --data {shlex.quote(folder)}{protocol}{self._hop()}"

    def _hop(self) -> str:
        hop_s = seconds(self.protocol.hop)
        return "" if hop_s == 2 else f" --hop {hop_s:g}"


def _hops(name: str, title: str, data: str, sha256: str) -> list[Track]:
    """A track at the usual hop of 2 s, and the tracks at other hops for hop curves."""
    main = Track(name, title, data, "test", sha256, streaming())
    others = [
        replace(main, name=f"{name}-hop{hop_s}", title=f"{title}, hop {hop_s} s", protocol=streaming(hop_s=hop_s))
        for hop_s in (1, 3, 4)
    ]
    return [main, *others]


TRACKS: dict[str, Track] = {
    track.name: track
    for track in (
        *_hops("synthsync-test", "SynthSync test (procedural stand-in, 24 clips)", "synthsync", _SYNTHSYNC),
        *_hops(
            "synthsync-full-test",
            "SynthSync full test (procedural stand-in, 120 clips)",
            "synthsync-full",
            _SYNTHSYNC_FULL,
        ),
        Track(
            "synthsync-dynamic-test",
            "SynthSync test, offsets that change (procedural stand-in, 240 streams)",
            "synthsync-dynamic",
            "test",
            _SYNTHSYNC_DYNAMIC,
            dynamic(),
        ),
    )
}
# for `avbench run --data TRACK`: (data, split) of the tracks with the usual protocol
DATA_OF_TRACK = {t.name: (t.data, t.split) for t in TRACKS.values() if t.protocol == usual(t.changing)}


def signature_problem(text: str, track: Track, fingerprint: str, version: str) -> str:
    """Why ``text`` is not the signature of a run of such a model on such a track; empty if it is."""
    needed = Signature.of(track.protocol, fingerprint, track.manifest_sha256, version)
    wrong = f"is {text}; track {track.name} needs {needed}"
    try:
        found = Signature.parse(text)
    except UsageError:
        return wrong
    if (found.protocol, found.model, found.data, found.version) != (
        needed.protocol,
        needed.model,
        needed.data,
        needed.version,
    ):
        return wrong
    how = "".join(f"|{part}" for part in found.computed)
    if re.fullmatch(r"\|?[a-z0-9|]*random[0-9]+", how):
        return "is from a model with random weights; its scores mean nothing"
    if not re.fullmatch(r"(\|lead[0-9]{1,6})?(\|b?float16)?(\|compiled)?", how):
        return f"has {how!r} between model and data; only lead, precision and compiled are allowed there"
    return ""
