"""``avbench store``: the snapshot stores of one run on several machines, and what they take."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avbench.commands.common import add_command, say

if TYPE_CHECKING:
    from avbench.engine.store import SnapshotStore


def add(commands: Any) -> None:
    """Add ``store`` to the commands."""
    parser = add_command(
        commands,
        "store",
        _which,
        "join, verify, list and prune snapshot stores",
        "A run that is shared out (`avbench run --shard 1/4 --store part_1`, and so on) leaves a store a process; "
        "joined, they are that of one process.",
        "avbench store merge part_1 part_2 part_3 part_4 --out whole",
        "avbench store verify whole",
        "avbench store ls",
        "avbench store prune 03cf36a4fce1 --store whole",
    )
    verbs = parser.add_subparsers(metavar="VERB", title="what to do")
    merge = add_command(
        verbs,
        "merge",
        _merge,
        "join stores into one",
        "Every shard is checked. Stores that disagree about a snapshot are refused: they were computed on unequal "
        "devices. Stopped and given again, it goes on.",
        "avbench store merge part_1 part_2 --out whole",
    )
    merge.add_argument("stores", nargs="+", type=Path, metavar="STORE", help="folders of snapshots")
    merge.add_argument("--out", type=Path, required=True, metavar="DIR", help="the store that gets all of it")
    for name, function, summary, text in (
        ("verify", _verify, "read every shard of a store", "One line for each that is damaged; exit code 1 then."),
        ("ls", _ls, "what a store holds", "One line a model."),
    ):
        verb = add_command(verbs, name, function, summary, text, f"avbench store {name}")
        verb.add_argument("store", nargs="?", type=Path, metavar="STORE", help="(default: the user's, as in `run`)")
    prune = add_command(
        verbs,
        "prune",
        _prune,
        "delete a model's snapshots",
        "They would have to be computed again.",
        "avbench store prune 03cf36a4fce1",
    )
    prune.add_argument("model", metavar="FINGERPRINT", help="its first digits, as `avbench store ls` shows them")
    prune.add_argument("--store", type=Path, metavar="STORE", help="(default: the user's, as in `run`)")


def _which(args: argparse.Namespace) -> int:
    from avbench.types import UsageError

    raise UsageError("say what to do: merge, verify, ls or prune; see `avbench store --help`")


def _opened(path: Path | None) -> SnapshotStore:
    """A store that is there; ``UsageError`` if it is not (opening would create it)."""
    from avbench.engine.store import SnapshotStore
    from avbench.system.cache import default_store
    from avbench.types import UsageError

    path = path or default_store()
    if not (path / "store.json").is_file():
        raise UsageError(f"{path} is no snapshot store (it has no store.json)")
    return SnapshotStore(path)


def _merge(args: argparse.Namespace) -> int:
    from avbench.engine.store import SnapshotStore

    stores = [_opened(path) for path in args.stores]
    whole = SnapshotStore(args.out)
    for store in stores:
        added, same = whole.absorb(store)
        print(f"{store.root}  {added} snapshots added, {same} were there")
    return 0


def _verify(args: argparse.Namespace) -> int:
    store = _opened(args.store)
    problems = store.verify()
    for problem in problems:
        print(problem)
    if not problems:
        shards, snapshots, n_bytes = store.size()
        print(f"{store.root}  {shards} shards, {snapshots} snapshots, {n_bytes / 1e6:.1f} MB: all as written")
    return 1 if problems else 0


def _ls(args: argparse.Namespace) -> int:
    from avbench.pages.tables import table

    store = _opened(args.store)
    rows = [(model, shards, n, f"{size / 1e6:.1f}") for model, shards, n, size in store.listing()]
    print(table(rows, ("model", "clips", "snapshots", "MB")))
    say(f"{store.root}: {len(rows)} model{'s' * (len(rows) != 1)}")
    return 0


def _prune(args: argparse.Namespace) -> int:
    shards, n_bytes = _opened(args.store).prune(args.model)
    print(f"{shards} shards deleted, {n_bytes / 1e6:.1f} MB")
    return 0
