"""The snapshot store: nothing lost, nothing mixed up, nothing damaged ever used."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import avbench.engine.store
from avbench.data.media import READER_VERSION
from avbench.engine.store import SnapshotStore
from avbench.protocol.plan import SnapshotKey
from avbench.types import NonFiniteError, StoreError, UsageError

MODEL, MEDIA = "a" * 64, "b" * 64
KEYS = [SnapshotKey(640 * i, 640 * i + 3) for i in range(6)]
LOGITS = np.random.default_rng(0).standard_normal((6, 21)).astype(np.float32)
TOKENS = np.random.default_rng(1).standard_normal((6, 4)).astype(np.float32)


def filled(root: Path) -> tuple[SnapshotStore, Path]:
    store = SnapshotStore(root)
    store.put(MODEL, MEDIA, KEYS, LOGITS, TOKENS)
    return store, root / MODEL[:32] / f"{MEDIA[:32]}.r{READER_VERSION}.safetensors"


def test_what_is_put_comes_back_in_any_order(tmp_path: Path) -> None:
    store, _ = filled(tmp_path / "store")
    order = [4, 0, 0, 5]
    logits, tokens = SnapshotStore(tmp_path / "store").get(MODEL, MEDIA, [KEYS[i] for i in order])
    assert logits.dtype == np.float32
    np.testing.assert_array_equal(logits, LOGITS[order])
    np.testing.assert_array_equal(tokens, TOKENS[order])
    new = SnapshotKey(9 * 640, 0)
    assert store.missing(MODEL, MEDIA, [new, *KEYS, new]) == [new]
    assert store.verify() == []
    shards, snapshots, size = store.size()
    assert (shards, snapshots) == (1, 6)
    assert size > LOGITS.nbytes + TOKENS.nbytes


def test_a_model_without_token(tmp_path: Path) -> None:
    store = SnapshotStore(tmp_path)
    store.put(MODEL, MEDIA, KEYS, LOGITS)
    assert store.get(MODEL, MEDIA, KEYS[:2])[1] is None
    with pytest.raises(StoreError, match="another shape; nothing was stored"):
        store.put(MODEL, MEDIA, [SnapshotKey(1, 1)], LOGITS[:1], TOKENS[:1])


@settings(max_examples=25, deadline=None)
@given(st.permutations(range(6)), st.integers(1, 5))
def test_the_same_snapshots_give_the_same_bytes(
    tmp_path_factory: pytest.TempPathFactory, order: list[int], cut: int
) -> None:
    root = tmp_path_factory.mktemp("stores")
    _, expected = filled(root / "at-once")
    store = SnapshotStore(root / "piecemeal")
    for part in (order[:cut], order[cut:], order[:1]):
        store.put(MODEL, MEDIA, [KEYS[i] for i in part], LOGITS[part], TOKENS[part])
    assert (root / "piecemeal" / expected.relative_to(root / "at-once")).read_bytes() == expected.read_bytes()


def test_the_bytes_are_the_same_in_another_process(tmp_path: Path) -> None:
    _, shard = filled(tmp_path / "here")
    code = (
        "import sys, numpy as np\n"
        "from avbench.engine.store import SnapshotStore; from avbench.protocol.plan import SnapshotKey\n"
        "keys = [SnapshotKey(640 * i, 640 * i + 3) for i in range(6)]\n"
        "draw = lambda seed, n: np.random.default_rng(seed).standard_normal((6, n)).astype(np.float32)\n"
        f"SnapshotStore(sys.argv[1]).put('{MODEL}', '{MEDIA}', keys, draw(0, 21), draw(1, 4))"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "there"], check=True)
    assert (tmp_path / "there" / shard.relative_to(tmp_path / "here")).read_bytes() == shard.read_bytes()


def test_a_stored_snapshot_is_never_replaced(tmp_path: Path) -> None:
    store, shard = filled(tmp_path)
    before = shard.read_bytes()
    store.put(MODEL, MEDIA, KEYS[:2], LOGITS[:2] + 1, TOKENS[:2])
    assert shard.read_bytes() == before


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_snapshots_are_refused(tmp_path: Path, bad: float) -> None:
    store = SnapshotStore(tmp_path)
    logits = LOGITS.copy()
    logits[3, 7] = bad
    with pytest.raises(NonFiniteError, match=r"picture=1920.*nothing was stored"):
        store.put(MODEL, MEDIA, KEYS, logits)
    assert store.missing(MODEL, MEDIA, KEYS) == KEYS


@pytest.mark.parametrize(
    ("keys", "logits", "message"),
    [(KEYS[:2], LOGITS[:3], "do not fit 2"), ([KEYS[0], KEYS[0]], LOGITS[:2], "duplicate keys")],
)
def test_nonsense_is_refused(tmp_path: Path, keys: list[SnapshotKey], logits: np.ndarray, message: str) -> None:
    with pytest.raises(StoreError, match=message):
        SnapshotStore(tmp_path).put(MODEL, MEDIA, keys, logits)
    with pytest.raises(StoreError, match="64 lower-case hex digits"):
        SnapshotStore(tmp_path).put("../escape", MEDIA, KEYS, LOGITS)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 40), st.integers(0, 40))
def test_keys_are_found_as_a_dictionary_would(seed: int, n_stored: int, n_wanted: int) -> None:
    g = np.random.default_rng(seed)
    stored = np.unique(g.integers(-1, 2, (n_stored, 5)), axis=0)
    g.shuffle(stored)
    wanted = g.integers(-1, 2, (n_wanted, 5))
    place = {tuple(row): i for i, row in enumerate(stored.tolist())}
    expected = [place.get(tuple(row), -1) for row in wanted.tolist()]
    assert avbench.engine.store._find(stored.reshape(-1, 5), wanted).tolist() == expected


def test_getting_what_is_not_there(tmp_path: Path) -> None:
    store, _ = filled(tmp_path)
    with pytest.raises(StoreError, match="1 of 7 snapshots are not in"):
        store.get(MODEL, MEDIA, [*KEYS, SnapshotKey(1, 1)])
    with pytest.raises(StoreError, match="6 of 6"):
        store.get(MODEL, "c" * 64, KEYS)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_damaged_shard_is_named_and_neither_used_nor_recomputed(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    store, shard = filled(tmp_path_factory.mktemp("store"))
    good = shard.read_bytes()
    if data.draw(st.booleans(), "truncate"):
        shard.write_bytes(good[: data.draw(st.integers(0, len(good) - 1))])
    else:
        at = data.draw(st.integers(0, len(good) - 1))
        changed = bytearray(good)
        changed[at] ^= 1 << data.draw(st.integers(0, 7))
        shard.write_bytes(changed)
    damage = shard.read_bytes()
    if not store.verify():  # some flips change nothing that is read, such as one in the padding of the header
        logits, tokens = store.get(MODEL, MEDIA, KEYS)
        np.testing.assert_array_equal(logits, LOGITS)
        np.testing.assert_array_equal(tokens, TOKENS)
        return
    named = f"damaged snapshot shard {re.escape(str(shard))} .*: delete it and run again$"
    assert [bool(re.fullmatch(named, problem)) for problem in store.verify()] == [True]
    with pytest.raises(StoreError, match=named):
        store.get(MODEL, MEDIA, KEYS)
    with pytest.raises(StoreError, match=named):
        store.missing(MODEL, MEDIA, KEYS)
    with pytest.raises(StoreError, match=named):
        store.put(MODEL, MEDIA, [SnapshotKey(1, 1)], LOGITS[:1], TOKENS[:1])
    assert shard.read_bytes() == damage


def test_a_shard_of_another_model_in_its_place(tmp_path: Path) -> None:
    store, shard = filled(tmp_path)
    other = MODEL[:32] + "0" * 32  # the same file name, another model
    with pytest.raises(StoreError, match="another model or clip"):
        store.missing(other, MEDIA, KEYS)
    moved = shard.with_name(shard.name.replace(MEDIA[:32], "c" * 32))
    shard.rename(moved)
    assert len(store.verify()) == 1
    with pytest.raises(StoreError, match="another model or clip"):
        store.get(MODEL, "c" * 64, KEYS)


@pytest.mark.parametrize("version", [0, 2, "1", None, True])
def test_a_store_of_another_schema(tmp_path: Path, version: object) -> None:
    (tmp_path / "store.json").write_text(json.dumps({"schema_version": version}))
    with pytest.raises(StoreError, match=r"has schema .*this avbench writes 1; delete it, or use another --store"):
        SnapshotStore(tmp_path)


def test_a_folder_that_is_something_else(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("dear to me")
    with pytest.raises(StoreError, match="is not a snapshot store"):
        SnapshotStore(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]
    for text in ("{", "[" * 200_000):
        (tmp_path / "store.json").write_text(text)
        with pytest.raises(StoreError, match="is damaged"):
            SnapshotStore(tmp_path)
    with pytest.raises(StoreError, match="cannot open the snapshot store"):
        SnapshotStore(tmp_path / "thesis.tex" / "store")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_disk_full_or_read_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    store, shard = filled(tmp_path)
    before = shard.read_bytes()

    def refuse(path: Path, data: bytes, swept: bool = False) -> None:
        raise OSError(code, errno.errorcode[code])

    monkeypatch.setattr(avbench.engine.store, "atomic_write_bytes", refuse)
    with pytest.raises(StoreError, match=f"cannot write .*{errno.errorcode[code]}.*run again") as caught:
        store.put(MODEL, MEDIA, [SnapshotKey(1, 1)], LOGITS[:1], TOKENS[:1])
    assert "\n" not in str(caught.value)
    assert shard.read_bytes() == before
    with pytest.raises(StoreError, match="cannot open the snapshot store"):
        SnapshotStore(tmp_path / "fresh")


def test_a_file_size_limit_of_the_system_is_one_line_and_loses_nothing(tmp_path: Path) -> None:
    store, shard = filled(tmp_path)
    before = shard.read_bytes()
    code = (
        "import resource, sys, numpy as np\n"
        "from avbench.engine.store import SnapshotStore; from avbench.protocol.plan import SnapshotKey\n"
        "store = SnapshotStore(sys.argv[1]); resource.setrlimit(resource.RLIMIT_FSIZE, (900, 900))\n"
        f"store.put('{MODEL}', '{MEDIA}', [SnapshotKey(1, 1)], np.ones((1, 21)), np.ones((1, 4)))"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=False)
    assert "StoreError: cannot write" in done.stderr
    assert shard.read_bytes() == before
    assert store.verify() == []
    assert sorted(p.suffix for p in shard.parent.iterdir()) == [".lock", ".safetensors"]


def test_forbidden_while_latency_is_measured(tmp_path: Path) -> None:
    store, _ = filled(tmp_path)
    with SnapshotStore.forbidden():
        for use in (
            lambda: SnapshotStore(tmp_path),
            lambda: store.get(MODEL, MEDIA, KEYS),
            lambda: store.missing(MODEL, MEDIA, KEYS),
            lambda: store.put(MODEL, MEDIA, KEYS, LOGITS, TOKENS),
            store.verify,
            store.size,
        ):
            with pytest.raises(StoreError, match="while latency is measured"):
                use()
    assert store.missing(MODEL, MEDIA, KEYS) == []


def test_what_a_killed_writer_left_is_swept_up(tmp_path: Path) -> None:
    store, shard = filled(tmp_path)
    stale = shard.with_name(f".{shard.name}.abcd.tmp")
    stale.write_bytes(b"half")
    assert store.verify() == []
    store.put(MODEL, MEDIA, [SnapshotKey(1, 1)], LOGITS[:1], TOKENS[:1])
    assert not stale.exists()


def test_a_new_shard_costs_no_look_at_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed: list[str] = []
    plain = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: listed.append(str(path)) or plain(path))
    counts = []
    for n in (20, 40):
        store = SnapshotStore(tmp_path / str(n))
        listed.clear()
        for i in range(n):
            store.put(MODEL, f"{i:02x}" * 32, KEYS, LOGITS, TOKENS)
        counts.append(len(listed))
    assert counts == [1, 1]


# ------------------------------------------------------------------------------------------- stores of several machines


def part_of(root: Path, media: str, first: int, n: int, seed: int = 0, model: str = "a" * 64) -> SnapshotStore:
    """A store with the snapshots ``first`` ... ``first + n - 1`` of one clip; equal seeds give equal snapshots."""
    store = SnapshotStore(root)
    rng = np.random.default_rng(seed)
    logits, tokens = rng.normal(size=(50, 21)).astype(np.float32), rng.normal(size=(50, 4)).astype(np.float32)
    keys = [SnapshotKey(640 * k, 0) for k in range(first, first + n)]
    store.put(model, media, keys, logits[first : first + n], tokens[first : first + n])
    return store


def test_stores_joined_in_any_order_are_one(tmp_path: Path) -> None:
    whole = part_of(tmp_path / "whole", "b" * 64, 0, 30)
    parts = [part_of(tmp_path / f"part{k}", "b" * 64, 10 * k, 12 if k < 2 else 10) for k in range(3)]
    for k, order in enumerate(([0, 1, 2], [2, 0, 1])):
        joined = SnapshotStore(tmp_path / f"joined{k}")
        counts = [joined.absorb(parts[i]) for i in order]
        assert sum(added for added, _ in counts) == 30
        files = [sorted(store.root.glob("*/*.safetensors")) for store in (joined, whole)]
        assert [p.read_bytes() for p in files[0]] == [p.read_bytes() for p in files[1]]
        assert joined.absorb(parts[0]) == (0, 12)


def test_stores_that_disagree_are_refused_and_nothing_is_lost(tmp_path: Path) -> None:
    ours = part_of(tmp_path / "ours", "b" * 64, 0, 5)
    before = [p.read_bytes() for p in sorted(ours.root.glob("*/*.safetensors"))]
    with pytest.raises(StoreError, match="disagree about the same snapshots"):
        ours.absorb(part_of(tmp_path / "theirs", "b" * 64, 3, 5, seed=1))
    assert [p.read_bytes() for p in sorted(ours.root.glob("*/*.safetensors"))] == before


def test_a_damaged_part_is_named(tmp_path: Path) -> None:
    part = part_of(tmp_path / "part", "b" * 64, 0, 5)
    (shard,) = part.root.glob("*/*.safetensors")
    shard.write_bytes(shard.read_bytes()[:-3])
    with pytest.raises(StoreError, match=re.escape(str(shard))):
        SnapshotStore(tmp_path / "whole").absorb(part)


def test_listing_and_pruning(tmp_path: Path) -> None:
    store = part_of(tmp_path, "b" * 64, 0, 5)
    part_of(tmp_path, "c" * 64, 0, 3)
    part_of(tmp_path, "b" * 64, 0, 2, model="d" * 64)
    assert [(model[:1], shards, n) for model, shards, n, _ in store.listing()] == [("a", 2, 8), ("d", 1, 2)]
    for model in ("", "e"):
        with pytest.raises(UsageError, match="give more of the fingerprint"):
            store.prune(model)
    shards, n_bytes = store.prune("aaa")
    assert (shards, n_bytes > 0) == (2, True)
    assert [model[:1] for model, *_ in store.listing()] == ["d"]
