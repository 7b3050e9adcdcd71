"""One evaluation shared out over processes: which share is whose, and when all are done."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NoReturn

from avbench.system import machine
from avbench.types import AvbenchError, UsageError

LONGEST = timedelta(days=7)  # that the first process waits for the others
NAMED = 10  # clips, of those that are missing


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
    def done_together(self, missing: Callable[[], Sequence[str]]) -> Iterator[None]:
        """Ends when the block has ended in all processes of one torchrun; at once for a share by itself.

        If a process is lost, torchrun ends the others: ``AvbenchError``, in the first of them with the clips of which
        snapshots are ``missing``.
        """
        if not self.waits:
            yield
            return
        from torch import distributed
        from torch.distributed.rendezvous import rendezvous

        notes, rank, size = next(rendezvous("env://", timeout=LONGEST))
        distributed.init_process_group(
            "gloo", store=distributed.PrefixStore("avbench", notes), rank=rank, world_size=size, timeout=LONGEST
        )
        before = signal.signal(signal.SIGTERM, _break_off)
        try:
            yield
            _wait_for_all()
            signal.signal(signal.SIGTERM, before)
        except _BrokenOff as error:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # all that is left is to say so, in torchrun's 30 s
            raise AvbenchError(
                _what_is_missing(missing()) if _first_to_say(notes) else f"share {rank + 1} of {size} was broken off"
            ) from error
        finally:
            with contextlib.suppress(RuntimeError):
                distributed.destroy_process_group()


class _BrokenOff(BaseException):
    """Another process was lost, or torchrun ends this one. No ``Exception``: those that a model or a reader raises are
    failures of a clip."""


def _break_off(*_: object) -> NoReturn:
    raise _BrokenOff


def _wait_for_all() -> None:
    from torch import distributed

    try:
        distributed.barrier()
    except RuntimeError as error:
        raise _BrokenOff from error


def _first_to_say(notes: Any) -> bool:
    """Whether no other process of this torchrun has said that one is lost; also if there is nobody left to ask."""
    notes.set_timeout(timedelta(seconds=5))
    try:
        said: int = notes.add(f"said {os.environ.get('TORCHELASTIC_RESTART_COUNT', '')}", 1)
    except RuntimeError:
        return True
    return said == 1


def _what_is_missing(clips: Sequence[str]) -> str:
    more = f" and {len(clips) - NAMED} more" if len(clips) > NAMED else ""
    what = (
        f"{len(clips)} clips are not finished: {', '.join(clips[:NAMED])}{more}" if clips else "all clips are finished"
    )
    return f"a process of this run was lost or stopped; {what}; the same command computes what is missing and reports"


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
