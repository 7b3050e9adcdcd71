"""Whether a fingerprint is the same in a new process."""

from __future__ import annotations

import os
import subprocess
import sys

from avbench.system.findings import Finding


def fingerprint_finding(what: str, here: str, code: str, *arguments: str) -> Finding:
    """``here`` against what Python ``code``, run in a process of its own with another hash seed, prints last."""
    environment = os.environ | {"PYTHONHASHSEED": "17"}
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, env=environment)
    there = done.stdout.strip().splitlines()[-1:] or ["nothing"]
    ok = there[0] == here
    why = "" if ok else ": its weights or settings are not the same every time it is made"
    return Finding(ok, f"{what} {here[:12]} is {'the same' if ok else 'ANOTHER'} in a new process{why}")
