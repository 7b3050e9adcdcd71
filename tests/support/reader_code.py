"""The code that decides what a model is given, and its record: what was recorded last for each ``READER_VERSION``.

``python tests/support/reader_code.py "REASON"`` records the code as it is now.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from code_text import code_digest

import avbench
from avbench.data.media import READER_VERSION
from avbench.engine.sources import local_sources

RECORD = Path(__file__).parents[1] / "engine" / "data" / "reader_sources.json"
PACKAGE = Path(avbench.__file__).parent
READER = (
    "data/media.py",
    "data/unlabelled.py",
    "engine/clip_pass.py",
)  # placing, padding, cutting
# of these files only some definitions decide what a model is given
PARTS = {
    "types.py": ("ClipRecord", "FrontEnd", "Gap", "Reading", "Window"),
    "protocol/plan.py": ("NO_STRETCH", "SnapshotKey", "keys_of", "key_rows"),
}
# what the reader imports, but what a model is given does not depend on
INDIFFERENT = {
    "__init__.py": "names that are loaded on first use",
    "protocol/__init__.py": "names",
    "protocol/rules.py": "which windows there are: a key names its own",
    "system/debug.py": "tracebacks",
    "system/lazy.py": "modules that are loaded on first use",
    "system/machine.py": "cores and memory",
}


def imported() -> dict[str, bytes]:
    """Path in the package -> source, of the reader and all that it imports: a new helper is among them."""
    return {
        file: source for root in READER for file, source in local_sources(PACKAGE / root, PACKAGE, "avbench").items()
    }


def reader_code() -> dict[str, str]:
    """Path in the package -> digest of the code in it that counts."""
    files = imported()
    return {file: code_digest(files[file].decode(), PARTS.get(file, ())) for file in sorted(files.keys() - INDIFFERENT)}


def record(reason: str) -> None:
    """Write down the code of this ``READER_VERSION``; the records of other versions stay."""
    records = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    records[str(READER_VERSION)] = {"reason": reason, "files": reader_code()}
    RECORD.write_text(json.dumps(records, indent=2) + "\n")


if __name__ == "__main__":
    if len(sys.argv) != 2 or not sys.argv[1].strip():
        sys.exit('give the reason: python tests/support/reader_code.py "REASON"')
    record(sys.argv[1])
