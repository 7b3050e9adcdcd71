"""A weight file and its card: NAME.safetensors and, beside it, NAME.json with its provenance and its sha256."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from avbench.system.atomic import atomic_write_bytes
from avbench.types import AvbenchError


def write_with_card(path: Path, data: bytes, card: dict[str, Any]) -> None:
    """Write ``data`` to ``path``, then ``card`` beside it; each file is complete or absent. Raises ``OSError``."""
    atomic_write_bytes(path, data)
    atomic_write_bytes(path.with_suffix(".json"), (json.dumps(card, indent=1) + "\n").encode())


def read_card(path: Path, remedy: str) -> dict[str, Any] | None:
    """The card of a weight file, checked against the file's sha256; None if there is none.

    ``AvbenchError`` if file or card cannot be read or the card describes another file; then ``remedy`` says what to do.
    """
    path = Path(path)
    card_path = path.with_suffix(".json")
    if path.suffix != ".safetensors" or not card_path.is_file():
        return None
    try:
        card = json.loads(card_path.read_text(encoding="utf-8"))
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError as error:
        raise AvbenchError(f"{error.filename} does not exist") from error
    except (OSError, ValueError, RecursionError) as error:
        raise AvbenchError(f"{path.name} and {card_path.name} cannot be read: {error}") from error
    if not isinstance(card, dict) or card.get("sha256") != digest:
        raise AvbenchError(f"{path.name} is not the file that {card_path.name} describes: {remedy}")
    return card
