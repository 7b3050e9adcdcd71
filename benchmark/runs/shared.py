"""One evaluation shared out over processes: which share is whose, and when all are done."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta

from avbench.system import machine
from avbench.types import AvbenchError, UsageError

LONGEST = timedelta(days=7)  # that the first process waits for the others


@dataclass(frozen=True)
class Share:
    """``which``: (i, n), i from 1 on. ``reports``: whether this process makes the report, once all are
    ``done_together``. ``workers``: how many processes it may use for it (None: as ever). ``waits``: the
    others belong to one torchrun."""

    which: tuple[int, int]
    reports: bool = False
    workers: int | None = None
    waits: bool = False

    @contextlib.contextmanager
    def done_together(self) -> Iterator[None]:
        """Ends when the block has ended in all processes of one torchrun; at once for a share by itself.
        ``AvbenchError`` if another process is lost."""
        if not self.waits:
            yield
            return
        from torch import distributed

        distributed.init_process_group("gloo", timeout=LONGEST)
        try:
            yield
            distributed.barrier()
        except RuntimeError as error:
            raise AvbenchError(
                "another process of this run was lost: its clips are missing; run the same command again"
            ) from error
        finally:
            with contextlib.suppress(RuntimeError):
                distributed.destroy_process_group()


def shared_by(asked: tuple[int, int] | None, environment: Mapping[str, str] = os.environ) -> Share | None:
    """The share that ``--shard`` asks for, or that of this process: of a torchrun, or of whatever else sets ``RANK``
    and ``WORLD_SIZE`` (it then reports nothing). None for a run by itself. ``UsageError``: it does not exist."""
    if asked:
        if not asked[1]:
            raise UsageError(f"--shard {asked[0]}/0 does not exist; there must be at least one share, as in 1/1")
        if not 1 <= asked[0] <= asked[1]:
            raise UsageError(
                f"--shard {asked[0]}/{asked[1]} does not exist; shares are 1/{asked[1]} to {asked[1]}/{asked[1]}"
            )
        return Share(asked)
    rank, size = (environment.get(name, "") for name in ("RANK", "WORLD_SIZE"))
    if not rank.isdigit() or not size.isdigit() or int(size) < 2:
        return None
    if int(rank) >= int(size):
        raise UsageError(f"RANK is {rank} and WORLD_SIZE {size}; the ranks are 0 to {int(size) - 1}")
    together = "MASTER_ADDR" in environment
    here = environment.get("LOCAL_WORLD_SIZE", "1")
    workers = max(1, machine.cores() // max(int(here) if here.isdigit() else 1, 1)) if together else None
    return Share((int(rank) + 1, int(size)), together and rank == "0", workers, together)
