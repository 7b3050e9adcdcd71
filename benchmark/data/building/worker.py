"""A worker process of ``LocalEngine``: one JSON job per line on stdin, one JSON answer per line on stdout."""

from __future__ import annotations

import json
import os
import queue
import sys
import threading

from avbench.data.building.jobs import perform


def main() -> None:
    # answers go to a copy of stdout; whatever a library prints goes to stderr and cannot be taken for an answer
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    jobs: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def listen() -> None:
        """Ends the process as soon as the one that started it is gone, even in the middle of a job."""
        for line in sys.stdin.buffer:
            jobs.put(line)
        os._exit(0)

    threading.Thread(target=listen, daemon=True).start()
    while True:
        answers.write(json.dumps(perform(json.loads(jobs.get()))).encode() + b"\n")
        answers.flush()


if __name__ == "__main__":
    main()
