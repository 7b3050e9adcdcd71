"""The manifest on disk: what was written is read, what was tampered with is named, nothing leaves its root."""

from __future__ import annotations

import errno
import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avbench.protocol import manifest as manifests
from avbench.protocol.laws import SHARES, draw_law
from avbench.protocol.manifest import Manifest, check, read_manifest, reading_of, write_manifest
from avbench.ticks import seconds, ticks
from avbench.types import (
    GRIDS,
    AvbenchError,
    ClipRecord,
    Gap,
    Law,
    MediaError,
    OffsetGrid,
    Piece,
    Reading,
    SegmentRecord,
    UsageError,
    Window,
)

GRID = OffsetGrid()


def make(root: Path, n_clips: int = 3, per_clip: int = 4) -> Manifest:
    clips, segments = {}, []
    for c in range(n_clips):
        split = "train" if c == 0 else "test"
        clip = ClipRecord(f"c{c}", f"v{c // 2}", f"sub/c{c}.mp4", f"{c:064x}", 3000, 1_920_000, f"ch{c % 2}", split)
        clips[clip.id] = clip
        for k in range(per_clip):
            offset = ticks(round(-1.9 + 0.33 * (c * per_clip + k), 2))
            segments.append(
                SegmentRecord(
                    id=f"{clip.id}@{k}",
                    clip_id=clip.id,
                    video_id=clip.video_id,
                    start=ticks(10 * k + 2),
                    offset=offset,
                    offset_class=GRID.class_of(seconds(offset)),
                    category=("talking head", "voice-over", "other")[k % 3],
                    events=("speech", "bang") if k else (),
                    channel=clip.channel,
                    split=split,
                )
            )
    return Manifest(
        name="toy",
        kind="files",
        note="a note with ü",
        offset_law="uniform",
        clips=clips,
        segments=tuple(segments),
        media_root=root,
        sources={"c0": {"encoder": "Lavf", "warnings": ["x"]}},
    )


@pytest.mark.parametrize("at_once", [1, 5, 12])
def test_the_rows_are_read_some_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    manifest = make(tmp_path)
    write_manifest(manifest, tmp_path)
    held: list[int] = []

    class Table:
        def __init__(self, table: pa.Table) -> None:
            self.table = table

        def to_batches(self, max_chunksize: int) -> list[Any]:
            batches = self.table.to_batches(max_chunksize=max_chunksize)
            held.extend(map(len, batches))
            return batches

    rows_of = manifests._rows_of
    monkeypatch.setattr(manifests, "ROWS_AT_ONCE", at_once)
    monkeypatch.setattr(manifests, "_rows_of", lambda table: rows_of(Table(table)))
    assert read_manifest(tmp_path).segments == manifest.segments
    assert max(held) <= at_once
    assert sum(held) == len(manifest.segments) + len(manifest.clips)


# ----------------------------------------------------------------------------------------------------- there and back


def test_what_was_written_is_read(tmp_path: Path) -> None:
    manifest = make(tmp_path / "m" / "media")
    write_manifest(manifest, tmp_path / "m")
    again = read_manifest(tmp_path / "m")
    assert again.clips == manifest.clips
    assert again.segments == manifest.segments
    assert again.sources == manifest.sources
    assert (again.name, again.kind, again.note, again.offset_law) == ("toy", "files", "a note with ü", "uniform")
    assert again.sha256 == manifest.sha256
    assert again.media_root == tmp_path / "m" / "media"
    assert sorted(p.name for p in (tmp_path / "m").iterdir()) == ["clips.parquet", "manifest.json", "segments.parquet"]


def test_writing_is_deterministic(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        write_manifest(make(tmp_path / "media"), tmp_path / folder)
    for name in ("manifest.json", "clips.parquet", "segments.parquet"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_columns_are_documented_and_readable_by_pandas(tmp_path: Path) -> None:
    import pandas as pd

    write_manifest(make(tmp_path / "media"), tmp_path)
    table = pd.read_parquet(tmp_path / "segments.parquet")
    assert (table["start_s"] * 16_000 == table["start_ticks"]).all()
    assert (table["offset_s"] * 16_000 == table["offset_ticks"]).all()
    assert list(table["events"][1]) == ["speech", "bang"]
    for name in ("clips.parquet", "segments.parquet"):
        for column in pq.read_schema(tmp_path / name):
            assert column.metadata[b"description"], column.name


def test_media_may_lie_inside_elsewhere_or_be_moved(tmp_path: Path) -> None:
    write_manifest(make(tmp_path / "far"), tmp_path / "m")
    assert read_manifest(tmp_path / "m").media_root == (tmp_path / "far").resolve()
    assert read_manifest(tmp_path / "m", media_root=tmp_path / "new").media_root == tmp_path / "new"
    write_manifest(make(tmp_path / "n" / "media"), tmp_path / "n")
    (tmp_path / "n").rename(tmp_path / "moved")
    assert read_manifest(tmp_path / "moved").media_root == tmp_path / "moved" / "media"


def test_hash_is_of_the_content_not_of_the_place(tmp_path: Path) -> None:
    manifest = make(tmp_path)
    assert manifest.sha256 == make(tmp_path / "other").sha256
    assert manifest.sha256 == replace(manifest, note="other words", sources={}).sha256
    reordered = dict(reversed(manifest.clips.items()))
    assert manifest.sha256 == replace(manifest, clips=reordered).sha256


def test_every_field_that_may_change_a_score_changes_the_hash(tmp_path: Path) -> None:
    manifest = make(tmp_path)
    seen = {manifest.sha256}
    changes = {"name": "n", "kind": "realsync", "offset_law": "list", "grid": OffsetGrid(11, 1.0), "spec_sha256": "ab"}
    for name, value in changes.items():
        seen.add(replace(manifest, **{name: value}).sha256)  # type: ignore[arg-type]
    clip, segment = manifest.clips["c1"], manifest.segments[5]
    for record in (clip, segment):
        for f in fields(record):
            old = getattr(record, f.name)
            new = old + 1 if isinstance(old, int) else ("x",) if isinstance(old, tuple) else None
            others = {"reading": Reading(grid="centred"), "law": Law("jump", (Piece(0, 6400), Piece(640, 0)))}
            new = new or others.get(f.name) or old + "x"
            changed = replace(record, **{f.name: new})
            if record is clip:
                seen.add(replace(manifest, clips={**manifest.clips, "c1": changed}).sha256)
            else:
                rest = (*manifest.segments[:5], changed, *manifest.segments[6:])
                seen.add(replace(manifest, segments=rest).sha256)
    assert len(seen) == 1 + len(changes) + len(fields(clip)) + len(fields(segment))


READINGS = st.builds(
    Reading,
    grid=st.sampled_from(GRIDS),
    video_track=st.integers(0, 3),
    audio_track=st.integers(0, 3),
    sound_gap=st.sampled_from([160, 320]),
    picture_gap=st.sampled_from([16_000, 48_000]),
    gaps=st.lists(
        st.builds(
            lambda kind, start: Gap(kind, start, start + 341), st.sampled_from(["picture", "sound"]), st.integers(0)
        ),
        max_size=3,
    ).map(tuple),
)


@settings(max_examples=30, deadline=None)
@given(one=READINGS, other=READINGS)
def test_how_a_file_is_read_comes_back_and_is_pinned(
    one: Reading, other: Reading, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("m")
    base = make(folder, 1, 1)
    clips = [replace(base.clips["c0"], reading=reading) for reading in (one, other)]
    manifests = [replace(base, clips={"c0": clip}) for clip in clips]
    assert (manifests[0].sha256 == manifests[1].sha256) == (one == other)
    rules = [replace(reading, gaps=()) for reading in (one, other)]
    assert (clips[0].as_read == clips[1].as_read) == (rules[0] == rules[1])
    write_manifest(manifests[0], folder / "m")
    assert read_manifest(folder / "m").clips["c0"].reading == one
    written = json.loads((folder / "m" / "manifest.json").read_text())["schema_version"]
    assert written == (1 if one == Reading() else 2)


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "{}",
        "3",
        "{",
        '{"grid":"middle"}',
        '{"audio_track":-1}',
        '{"audio_track":true}',
        '{"gaps":[["sound",5,5]]}',
    ],
)
def test_a_reading_that_says_nothing_sensible_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="does not say how a file is read"):
        reading_of(text)


def under(law: Law, root: Path) -> Manifest:
    """One segment under the law."""
    base, first = make(root, 1, 1), law.pieces[0].offset
    segment = replace(base.segments[0], law=law, offset=first, offset_class=GRID.class_of(seconds(first)))
    return replace(base, segments=(segment,))


DRAWN = {name: draw_law(name, "s3", 0, ticks(99)) for name in sorted(SHARES)}  # this hold has mutes


@pytest.mark.parametrize("name", DRAWN)
def test_a_law_comes_back(name: str, tmp_path: Path) -> None:
    manifest = under(DRAWN[name], tmp_path)
    write_manifest(manifest, tmp_path / "m")
    again = read_manifest(tmp_path / "m")
    assert again.segments == manifest.segments
    assert again.sha256 == manifest.sha256 != make(tmp_path, 1, 1).sha256
    assert json.loads((tmp_path / "m" / "manifest.json").read_text())["schema_version"] == 2


def law_changes(law: Law) -> dict[str, Law]:
    """Where -> the law with that one thing changed: every field of it, of each piece and of each mute."""
    changes = {"name": replace(law, name=f"{law.name}s")}
    for part in ("pieces", "mutes"):
        rows = getattr(law, part)
        for k, row in enumerate(rows):
            for field, value in row._asdict().items():
                others = (*rows[:k], row._replace(**{field: value + 640}), *rows[k + 1 :])
                changes[f"{part} {k} {field}"] = replace(law, **{part: others})
            if len(rows) > 1 or part == "mutes":
                changes[f"{part} without {k}"] = replace(law, **{part: (*rows[:k], *rows[k + 1 :])})
    changes["one more piece"] = replace(law, pieces=(*law.pieces, law.pieces[-1]._replace(start=ticks(98.8))))
    changes["one more mute"] = replace(law, mutes=(*law.mutes, Window(ticks(98.8), 640)))
    return changes


def test_the_changes_of_a_law_are_of_all_its_fields() -> None:
    assert [f.name for f in fields(Law)] == ["name", "pieces", "mutes"]
    of_hold, of_ramp = law_changes(DRAWN["hold"]), law_changes(DRAWN["ramp"])
    assert {f"mutes 0 {field}" for field in Window._fields} < set(of_hold)
    assert {f"pieces {k} {field}" for field in Piece._fields for k in range(3)} < set(of_ramp)


@pytest.mark.parametrize(
    ("name", "where"), [(name, where) for name, law in DRAWN.items() for where in law_changes(law)]
)
def test_every_field_of_a_law_changes_the_hash(name: str, where: str, tmp_path: Path) -> None:
    law = DRAWN[name]
    plain = under(law, tmp_path)
    changed = replace(plain.segments[0], law=law_changes(law)[where])  # nothing but the law
    assert changed.law != law
    assert replace(plain, segments=(changed,)).sha256 != plain.sha256


@pytest.mark.parametrize("name", DRAWN)
def test_no_two_laws_have_one_hash(name: str, tmp_path: Path) -> None:
    plain = under(DRAWN[name], tmp_path)
    laws = [None, DRAWN[name], *law_changes(DRAWN[name]).values()]
    seen = {replace(plain, segments=(replace(plain.segments[0], law=law),)).sha256 for law in laws}
    assert len(seen) == len(set(laws))


def test_a_law_that_contradicts_its_segment_is_named(tmp_path: Path) -> None:
    base = make(tmp_path, 1, 1)
    segment = base.segments[0]
    for law, words in (
        (Law("x", (Piece(0, segment.offset + 1),)), "law: it begins with"),
        (Law("x", (Piece(0, segment.offset), Piece(641, 0))), "law: a change at 641 is not a frame instant"),
        (Law("x", (Piece(0, segment.offset), Piece(640, 40_000))), "law: an offset of 2.5 s is outside"),
        (
            Law("x", (Piece(0, segment.offset), Piece(640, 0, 88_000), Piece(640 + ticks(25), 0))),
            "law: an offset of 2.19994 s is outside",
        ),
    ):
        assert any(words in text for text in check(replace(base, segments=(replace(segment, law=law),))))


@settings(max_examples=15, deadline=None)
@given(
    offsets=st.lists(st.integers(-200, 200), min_size=1, max_size=6),
    names=st.text(st.characters(categories=("L", "N", "Zs"), include_characters="-_.@~"), min_size=1, max_size=20),
)
def test_any_valid_content_comes_back(offsets: list[int], names: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("m")
    base = make(folder, 1, 1)
    clip = replace(base.clips["c0"], id="c" + names.replace("\xa0", "")[:10])
    template = replace(base.segments[0], clip_id=clip.id)
    segments = tuple(
        replace(template, id=f"s{k}", offset=160 * o, offset_class=GRID.class_of(o / 100), start=640 * k)
        for k, o in enumerate(offsets)
    )
    manifest = replace(base, clips={clip.id: clip}, segments=segments, sources={})
    if check(manifest):  # a space that does not print
        return
    write_manifest(manifest, folder)
    assert read_manifest(folder).segments == segments


# ------------------------------------------------------------------------------------------------------------- parts


def test_splits_and_limit(tmp_path: Path) -> None:
    manifest = make(tmp_path)
    assert manifest.splits == ("train", "test")
    test = manifest.split("test")
    assert set(test.clips) == {"c1", "c2"}
    assert len(test.segments) == 8
    assert test.sha256 != manifest.sha256
    with pytest.raises(UsageError, match="no split 'valid'; it has train, test"):
        manifest.split("valid")
    first = test.limit(3)
    assert [s.id for s in first.segments] == ["c1@0", "c1@1", "c1@2"]
    assert set(first.clips) == {"c1"}
    assert manifest.limit(1000) is manifest
    with pytest.raises(UsageError, match="at least 1"):
        manifest.limit(0)


def test_prior_follows_the_law(tmp_path: Path) -> None:
    manifest = make(tmp_path)
    assert manifest.prior().shape == (21,)
    assert np.argmax(replace(manifest, offset_law="truncnorm:0.5").prior()) == 10
    assert np.ptp(replace(manifest, offset_law="list").prior()) == 0


def test_no_path_leaves_the_media_root(tmp_path: Path) -> None:
    root = tmp_path / "media"
    (root / "sub").mkdir(parents=True)
    (tmp_path / "secret.mp4").write_text("x")
    (root / "out.mp4").symlink_to(tmp_path / "secret.mp4")
    (root / "sub" / "in.mp4").symlink_to(root / "sub")
    manifest = make(root)
    clip = manifest.clips["c0"]
    assert manifest.clip_path(clip) == root / "sub" / "c0.mp4"
    assert manifest.clip_path(replace(clip, path="sub/in.mp4")) == root / "sub" / "in.mp4"
    for path in ("../secret.mp4", "sub/../../secret.mp4", str(tmp_path / "secret.mp4"), "out.mp4", "", "a\\b", "C:/x"):
        with pytest.raises(MediaError, match="path"):
            manifest.clip_path(replace(clip, path=path))


# ---------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda c, s: (c, replace(s, offset_class=3)), "segments.parquet row 1 column offset_class: 3, but "),
        (lambda c, s: (c, replace(s, offset=ticks(2.5))), "row 1 column offset_ticks"),
        (lambda c, s: (c, replace(s, start=-640)), "row 1 column start_ticks: -640"),
        (lambda c, s: (c, replace(s, start=641)), "row 1 column start_ticks: 641 is not a frame instant"),
        (lambda c, s: (c, replace(s, start=ticks(120))), "row 1 column start_ticks: 120 s, the clip lasts 120 s"),
        (lambda c, s: (c, replace(s, clip_id="nope")), "row 1 column clip_id: there is no clip 'nope'"),
        (lambda c, s: (c, replace(s, video_id="v9")), "row 1 column video_id"),
        (lambda c, s: (c, replace(s, id="c0@0")), "row 1 column id: 'c0@0' is already in row 0"),
        (lambda c, s: (c, replace(s, id="a/b")), "row 1 column id"),
        (lambda c, s: (c, replace(s, id="a\nb")), "row 1 column id"),
        (lambda c, s: (replace(c, path="../x.mp4"), s), "clips.parquet row 0 column path: '../x.mp4' points outside"),
        (lambda c, s: (replace(c, path="/x.mp4"), s), "clips.parquet row 0 column path"),
        (lambda c, s: (replace(c, sha256="AB"), s), "clips.parquet row 0 column sha256"),
        (lambda c, s: (replace(c, n_frames=0), s), "clips.parquet row 0 column n_frames"),
        (lambda c, s: (replace(c, id="other"), s), "clips.parquet row 0 column id"),
    ],
)
def test_contradictions_are_named_by_file_row_and_column(
    tmp_path: Path, change: Callable[[ClipRecord, SegmentRecord], tuple[ClipRecord, SegmentRecord]], word: str
) -> None:
    manifest = make(tmp_path, 1, 4)
    clip, segment = change(manifest.clips["c0"], manifest.segments[1])
    segments = (manifest.segments[0], segment, *manifest.segments[2:])
    bad = replace(manifest, clips={"c0": clip}, segments=segments)
    with pytest.raises(UsageError) as caught:
        write_manifest(bad, tmp_path / "m")
    assert word in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "m").exists()


def test_kind_and_law_are_checked(tmp_path: Path) -> None:
    problems = check(replace(make(tmp_path), kind="other", offset_law="gauss", name=""))
    assert len(problems) == 3
    assert all(p.startswith("manifest.json: ") for p in problems)


def rewrite(folder: Path, table: str, edit: Callable[[pa.Table], pa.Table]) -> None:
    """Change a table and pin it again, as a forger (or another tool) would."""
    changed = edit(pq.read_table(folder / table))
    pq.write_table(changed, folder / table)
    meta = json.loads((folder / "manifest.json").read_text())
    meta["tables"][table] = hashlib.sha256((folder / table).read_bytes()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(meta))


def with_column(name: str, values: Callable[[list[object]], list[object]]) -> Callable[[pa.Table], pa.Table]:
    def edit(table: pa.Table) -> pa.Table:
        return table.set_column(table.column_names.index(name), name, pa.array(values(table[name].to_pylist())))

    return edit


@pytest.mark.parametrize(
    ("table", "edit", "word"),
    [
        ("segments.parquet", lambda t: t.drop_columns(["offset_ticks"]), "column offset_ticks is missing"),
        ("segments.parquet", with_column("start_ticks", lambda v: [str(x) for x in v]), "must be int64"),
        ("segments.parquet", with_column("id", lambda v: [None, *v[1:]]), "row 0 column id: empty"),
        ("segments.parquet", with_column("offset_s", lambda v: [0.5, *v[1:]]), "row 0 column offset_s"),
        ("segments.parquet", with_column("category", lambda v: ["x", *v[1:]]), "sha256 does not match the content"),
        ("clips.parquet", with_column("id", lambda v: [v[0], v[0], *v[2:]]), "is already in row 0"),
        ("clips.parquet", with_column("source", lambda v: ["[1]", *v[1:]]), "not a JSON object"),
    ],
)
def test_tables_changed_by_hand(tmp_path: Path, table: str, edit: Callable[[pa.Table], pa.Table], word: str) -> None:
    write_manifest(make(tmp_path / "media"), tmp_path)
    rewrite(tmp_path, table, edit)
    with pytest.raises(UsageError, match=word) as caught:
        read_manifest(tmp_path)
    assert "\n" not in str(caught.value)


def test_rewritten_by_another_tool_with_the_same_content_is_accepted(tmp_path: Path) -> None:
    manifest = make(tmp_path / "media")
    write_manifest(manifest, tmp_path)
    for table in ("clips.parquet", "segments.parquet"):
        rewrite(tmp_path, table, lambda t: pa.Table.from_pylist(t.to_pylist()))
    assert read_manifest(tmp_path).sha256 == manifest.sha256


def test_damaged_folders(tmp_path: Path) -> None:
    def line() -> str:
        with pytest.raises(UsageError) as caught:
            read_manifest(tmp_path / "m")
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "no such folder" in line()
    (tmp_path / "m").mkdir()
    assert "no manifest.json" in line()
    manifest = make(tmp_path / "media")
    write_manifest(manifest, tmp_path / "m")
    good = (tmp_path / "m" / "manifest.json").read_text()
    for key, value, word in (
        ("schema_version", 3, "schema_version is 3"),
        ("schema_version", True, "schema_version is True"),
        ("name", 3, "name is missing"),
        ("grid", {"n_classes": 21}, "grid is missing"),
        ("sha256", "0" * 64, "sha256 does not match the content"),
        ("offset_law", "gauss", "offset law 'gauss'"),
    ):
        (tmp_path / "m" / "manifest.json").write_text(json.dumps(json.loads(good) | {key: value}))
        assert word in line()
    for text in ("", "[]", "{", "\x00", "{}", "[" * 200_000):
        (tmp_path / "m" / "manifest.json").write_text(text)
        assert "manifest.json" in line()
    (tmp_path / "m" / "manifest.json").write_text(good)
    data = (tmp_path / "m" / "clips.parquet").read_bytes()
    (tmp_path / "m" / "clips.parquet").write_bytes(data[:-10])
    assert "clips.parquet is not the table that manifest.json pins" in line()
    (tmp_path / "m" / "clips.parquet").unlink()
    assert "clips.parquet cannot be read" in line()


def test_a_full_disk_is_one_line_and_leaves_the_old_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    manifest = make(tmp_path / "media")
    write_manifest(manifest, tmp_path / "m")
    monkeypatch.setattr("avbench.system.atomic.atomic_write_bytes", refuse)
    with pytest.raises(AvbenchError, match=r"cannot write the manifest .*No space left"):
        write_manifest(replace(manifest, name="other"), tmp_path / "m")
    assert read_manifest(tmp_path / "m") == manifest


def test_manifests_need_no_torch_and_no_pandas() -> None:
    code = "import sys, avbench.data.inspect; print([m for m in ('torch', 'pandas') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
