"""The signature: one short string that names everything which may change a score."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from avbench.types import UsageError

if TYPE_CHECKING:
    from avbench.protocol.tracks import Track


# what the parts of a signature are called, in their order; a run's signature goes on with model, data and version
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


def signature_fields(signature: str) -> dict[str, str]:
    """The parts of a run's signature by name: ``PROTOCOL_FIELDS``, then model, data and version.

    The model's part includes how it is computed (precision, lead trim). ``UsageError`` for anything else.
    """
    head, *parts = signature.split("|")
    n = len(PROTOCOL_FIELDS)
    if len(parts) < n + 3:
        raise UsageError(f"{signature[:200]!r} is not the signature of a run")
    model, (data, version) = parts[n:-2], parts[-2:]
    if head != "avb" or not model[0].startswith("m:") or data[:2] != "d:" or version[:1] != "v":
        raise UsageError(f"{signature[:200]!r} is not the signature of a run")
    return dict(zip(PROTOCOL_FIELDS, parts, strict=False)) | {
        "model": "|".join(model),
        "data": data,
        "version": version,
    }


def signature_problem(signature: str, track: Track, fingerprint: str, version: str) -> str:
    """Why this is not the signature of a run of such a model on such a track; empty if it is."""
    before = f"{track.protocol.signature()}|m:{fingerprint[:12]}"
    after = f"|d:{track.manifest_sha256[:12]}|v{version}"
    # between them stands how the logits were computed: lead trim, precision, compiling (registry.StreamingModel)
    how = signature.removeprefix(before).removesuffix(after)
    if not signature.startswith(before) or not signature.endswith(after) or len(before) + len(after) > len(signature):
        return f"is {signature}; track {track.name} needs {before}{after}"
    if re.fullmatch(r"\|?[a-z0-9|]*random[0-9]+", how):
        return "is that of random weights: such scores mean nothing"
    if not re.fullmatch(r"(\|lead[0-9]{1,6})?(\|b?float16)?(\|compiled)?", how):
        return f"has {how!r} between model and data; only lead, precision and compiled may stand there"
    return ""
