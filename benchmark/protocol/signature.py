"""The signature: one short string that names everything which may change a score."""

from __future__ import annotations

from dataclasses import dataclass

from avbench.protocol.rules import Protocol
from avbench.types import UsageError

DIGITS = 12  # of a hash that a signature quotes
PROTOCOL_FIELDS = (
    "protocol",
    "window",
    "hop",
    "iterations",
    "classes",
    "front end",
    "start shift",
    "selection",
    "support",
)


@dataclass(frozen=True, slots=True)
class Signature:
    """A run's signature, built and parsed here: ``avb|protocol ...|m:model|computed ...|d:data|vversion``.

    ``model`` and ``data``: the first 12 hex digits of the model's fingerprint and of the manifest's sha256.
    ``computed``: how the logits were computed where that may change them (lead trim, precision, compiling, random
    weights), in the words of ``StreamingModel.computed``. Equal signatures, comparable scores.
    """

    protocol: Protocol
    model: str
    data: str
    version: str
    computed: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, protocol: Protocol, fingerprint: str, manifest_sha256: str, version: str, computed: tuple[str, ...] = ()
    ) -> Signature:
        """From whole hashes (64 hex digits)."""
        return cls(protocol, fingerprint[:DIGITS], manifest_sha256[:DIGITS], version, computed)

    @classmethod
    def parse(cls, text: str) -> Signature:
        """What :meth:`__str__` wrote; ``UsageError`` for any other text."""
        head, _, rest = text.rpartition("|m:")  # a protocol may be called m
        model, *computed = rest.split("|")
        if len(computed) < 2 or not computed[-2].startswith("d:") or not computed[-1].startswith("v"):
            raise UsageError(f"{text[:200]!r} is not the signature of a run")
        *computed, data, version = computed
        return cls(Protocol.parse(head), model, data[2:], version[1:], tuple(computed))

    def __str__(self) -> str:
        model = "|".join((f"m:{self.model}", *self.computed))
        return f"{self.protocol.signature()}|{model}|d:{self.data}|v{self.version}"

    def fields(self) -> dict[str, str]:
        """The parts by name: ``PROTOCOL_FIELDS``, then model (with how it is computed), data and version."""
        parts = self.protocol.signature().split("|")[1:]
        return dict(zip(PROTOCOL_FIELDS, parts, strict=True)) | {
            "model": "|".join((f"m:{self.model}", *self.computed)),
            "data": f"d:{self.data}",
            "version": f"v{self.version}",
        }

    def shared(self) -> str:
        """What two runs must have in common for their scores to be ranked together: protocol and data."""
        return f"{self.protocol.signature()}|d:{self.data}"
