"""SynthSync as its user meets it: made once, checked, never shared between splits."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import workertasks

from avbench.data import scenes, synthsync
from avbench.engine.job import pinned_path
from avbench.protocol.manifest import Manifest
from avbench.ticks import ticks
from avbench.types import CATEGORIES, AvbenchError, MediaError, UsageError


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Three short clips a split, in a cache of their own."""
    monkeypatch.setattr(synthsync, "CLIP_S", 16)
    monkeypatch.setattr(synthsync, "STARTS_S", (2, 5))
    monkeypatch.setattr(synthsync, "SPLIT_CLIPS", {"train": 3, "valid": 3, "test": 3})
    return tmp_path / "cache"


def make(cache: Path, name: str = "synthsync", split: str = "test") -> Manifest:
    return synthsync.ensure(name, split, cache=cache, workers=1)


def test_makes_checked_clips_once(small: Path) -> None:
    made: list[str] = []
    manifest = synthsync.ensure("synthsync", "test", cache=small, workers=1, progress=lambda d, t, c: made.append(c))
    assert made == ["", *(s.clip_id for s in manifest.segments[::2])]
    assert [s.category for s in manifest.segments[::2]] == list(CATEGORIES)
    assert all(manifest.clip_path(clip).is_file() for clip in manifest.clips.values())
    again = synthsync.ensure("synthsync", "test", cache=small, workers=1, progress=lambda d, t, c: made.append(c))
    assert len(made) == 4
    assert again.sha256 == manifest.sha256
    assert not list((small).rglob(".making-*"))


def test_a_part_needs_only_its_own_clips_and_the_whole_only_the_rest(small: Path) -> None:
    told: list[tuple[int, int]] = []

    def progress(done: int, total: int, clip_id: str) -> None:
        told.append((done, total))

    part = synthsync.with_media(synthsync.planned().limit(3), small, progress, workers=1)
    assert told == [(0, 2), (1, 2), (2, 2)]
    assert sorted(path.stem for path in small.rglob("*.mp4")) == sorted(part.clips)
    assert not list(small.rglob("manifest.json"))
    told.clear()
    whole = synthsync.ensure(cache=small, workers=1, progress=progress)
    assert told == [(0, 1), (1, 1)]
    assert (whole.limit(3).sha256, whole.limit(3).clips) == (part.sha256, part.clips)


def test_a_clip_that_was_damaged_after_it_was_made_is_noticed(small: Path) -> None:
    part = synthsync.planned().limit(1)
    made = synthsync.with_media(part, small, workers=1)
    (clip,) = made.clips.values()
    assert pinned_path(made, clip).is_file()
    with made.clip_path(clip).open("ab") as file:
        file.write(b"more")
    again = synthsync.with_media(part, small, workers=1)
    with pytest.raises(MediaError, match="sha256"):
        pinned_path(again, again.clips[clip.id])
    made.clip_path(clip).with_suffix(".sha256").unlink()  # an older cache has none: the file is believed, and noted
    again = synthsync.with_media(part, small, workers=1)
    assert pinned_path(again, again.clips[clip.id]).is_file()
    assert made.clip_path(clip).with_suffix(".sha256").read_text() == again.clips[clip.id].sha256


def test_two_caches_agree(small: Path, tmp_path: Path) -> None:
    a, b = make(small), make(tmp_path / "other")
    assert a.sha256 == b.sha256
    assert a.segments == b.segments


def test_offset_laws(small: Path) -> None:
    uniform, normal = make(small), make(small, "synthsync-normal")
    assert uniform.sha256 != normal.sha256
    assert all(s.offset % ticks(0.2) == 0 for s in normal.segments)
    assert all(abs(s.offset) <= ticks(2) for s in uniform.segments)


def test_splits_share_no_identity() -> None:
    specs = [s for split, n in synthsync.FULL_CLIPS.items() for s in synthsync.clip_specs(split, n)]
    assert len({s.seed for s in specs}) == len({s.id for s in specs}) == sum(synthsync.FULL_CLIPS.values())


def test_default_split_is_a_prefix_of_the_full_one() -> None:
    assert synthsync.clip_specs("test", 24) == synthsync.clip_specs("test", 120)[:24]


@pytest.mark.parametrize("field", [f.name for f in fields(scenes.Difficulty) if f.name != "name"])
def test_every_parameter_is_in_the_specification_hash(field: str) -> None:
    before = synthsync.specification_sha256(scenes.HARD)
    assert synthsync.specification_sha256(replace(scenes.HARD, **{field: 0.5})) != before


def test_version_1_keeps_its_specification() -> None:
    assert synthsync.specification_sha256().startswith("04956712585f4849")


def test_the_hard_family_has_its_own_clips_offsets_and_note(small: Path) -> None:
    one, hard = make(small), make(small, "synthsync-hard")
    assert hard.note == "procedural stand-in, calibrated to the paper's difficulty"
    assert hard.sha256 != one.sha256
    assert not {clip.sha256 for clip in one.clips.values()} & {clip.sha256 for clip in hard.clips.values()}
    assert [s.category for s in hard.segments] == [s.category for s in one.segments]
    assert hard.sha256 == synthsync.planned("synthsync-hard").sha256


def test_clip_lengths_hold_the_longest_setting() -> None:
    last = synthsync.STARTS_S[0] + 5 + 47 * 2 + 2
    assert last <= synthsync.CLIP_S
    assert synthsync.STARTS_S[-1] + 5 + 17 * 2 + 2 <= synthsync.CLIP_S


def test_a_shifted_sound_is_noticed(small: Path) -> None:
    manifest = make(small)
    spec = synthsync.clip_specs("test", 1)[0]
    scene = spec.scene()
    scene._sound = np.roll(scene._sound, 1600)
    with pytest.raises(AvbenchError, match="does not decode to what was drawn"):
        synthsync.check_clip(manifest.clip_path(manifest.clips[spec.id]), spec, scene)


@pytest.mark.parametrize(("name", "split", "word"), [("synthsink", "test", "synthsink"), ("synthsync", "tset", "tset")])
def test_unknown_names_are_refused(small: Path, name: str, split: str, word: str) -> None:
    with pytest.raises(UsageError, match=word):
        synthsync.ensure(name, split, cache=small)


def test_unwritable_cache_is_one_line(small: Path) -> None:
    small.write_text("a file where the cache should be")
    with pytest.raises(AvbenchError, match="AVBENCH_CACHE"):
        make(small)


def test_a_worker_that_dies_is_an_error_that_names_the_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthsync, "make_clip", workertasks.make_clip)
    died = r"making clip ss-test-vo-001: the worker process died \(killed by SIGKILL\)"
    with pytest.raises(AvbenchError, match=died):
        synthsync.ensure("synthsync", "test", cache=tmp_path, workers=2)
