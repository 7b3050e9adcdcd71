"""Blind sets: made, run, submitted, scored by anyone who has the labels; and the audit that detects a memoriser."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from runs import logits_for, make_run

from avbench.data import synthsync
from avbench.data.media import ClipReader
from avbench.leaderboard import redraw as blind
from avbench.leaderboard.audit import audit, read_official, read_redrawn
from avbench.leaderboard.redraw import Redrawn, fresh_cuts, redraw, same_cuts
from avbench.protocol import tracks
from avbench.protocol.manifest import read_manifest
from avbench.protocol.rules import streaming
from avbench.protocol.tracks import TRACKS, Track
from avbench.results.run import read_run
from avbench.scoring.metrics import METRICS
from avbench.submissions.check import check
from avbench.submissions.pack import pack
from avbench.submissions.tracks import Truth, read_labels, truth
from avbench.ticks import ticks
from avbench.types import UsageError

Avbench = Callable[..., "subprocess.CompletedProcess[str]"]
MAIN = TRACKS["synthsync-test"]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Track:
    """A track of three short clips with two segments of two windows each."""
    monkeypatch.setattr(synthsync, "CLIP_S", 22)
    monkeypatch.setattr(synthsync, "STARTS_S", (4, 8))
    monkeypatch.setattr(synthsync, "SPLIT_CLIPS", {"train": 3, "valid": 3, "test": 3})
    sha256 = synthsync.planned("synthsync", "test").sha256
    track = Track("synthsync-test", "small", "synthsync", "test", sha256, streaming(iterations=2))
    monkeypatch.setitem(TRACKS, track.name, track)
    monkeypatch.setitem(tracks.TRACKS, track.name, track)
    return track


@pytest.fixture
def made(small: Track, tmp_path: Path) -> Redrawn:
    return redraw("synthsync-test", 7, tmp_path / "blind", workers=1)


def test_from_redraw_to_score(avbench: Avbench, small: Track, tmp_path: Path) -> None:
    done = avbench("leaderboard", "redraw", "--track", "synthsync-test", "--seed", 7, "--out", "blind", "--workers", 1)
    assert done.returncode == 0, done.stderr
    assert "can be guessed" in done.stderr
    assert sorted(p.name for p in (tmp_path / "blind").iterdir()) == ["inputs", "labels.json"]

    options = ("--iterations", 2, "--workers", 1, "--n-resamples", 50)
    run = avbench("run", "--model", "xcorr", "--data", "blind/inputs", "--out", "run", *options)
    assert run.returncode == 0, run.stderr
    assert "labels of this data are hidden" in run.stdout
    assert "Acc" not in run.stdout
    result = read_run(tmp_path / "run")
    assert result.data.labels == "hidden"
    assert {score.value for score in result.scores.values()} == {None}
    assert result.rows == result.curve == []
    assert result.n_scored == 6

    packed = avbench("submit", "pack", "run", "--out", "mine", "--org", "acme", "--name", "xcorr")
    assert packed.returncode == 0, packed.stderr
    folder = tmp_path / packed.stdout.strip()
    assert folder.name == result.data.name
    assert json.loads((folder / "submission.json").read_text())["claimed"] == {}

    without = avbench("submit", "check", folder)
    assert without.returncode == 2
    assert "track:" in without.stderr
    assert "--labels" in without.stderr
    (tmp_path / "empty.json").write_text("{}")
    unusable = avbench("submit", "check", folder, "--labels", "empty.json", "--json")
    assert unusable.returncode == 2
    assert json.loads(unusable.stdout)["errors"][0]["field"] == "labels"
    scored = avbench("submit", "check", folder, "--labels", "blind/labels.json", "--json")
    report = json.loads(scored.stdout)
    assert report["ok"], report
    assert 0 <= report["recomputed"]["mae_s"]["value"] <= 4


def test_the_folder_of_both_is_data_too(small: Track, made: Redrawn, avbench: Avbench) -> None:
    done = avbench("data", "info", made.inputs.parent, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["offset_law"] == "hidden"


def test_oracle_has_nothing_to_say(small: Track, made: Redrawn, avbench: Avbench) -> None:
    done = avbench("run", "--model", "oracle", "--data", made.inputs, "--iterations", 2)
    assert done.returncode == 2
    assert "hidden" in done.stderr


def test_what_is_given_away_does_not_tell_the_labels(small: Track, made: Redrawn) -> None:
    manifest = read_manifest(made.inputs)
    assert manifest.labels_hidden
    assert {s.offset for s in manifest.segments} == {0}
    assert len({(c.n_frames, c.n_samples) for c in manifest.clips.values()}) == 1
    assert len({c.video_id for c in manifest.clips.values()}) == 6  # not even which segments share a scene
    assert {(c.channel, s.category) for c, s in zip(manifest.clips.values(), manifest.segments, strict=True)} == {
        ("", "")
    }
    public = truth(small)
    text = b"".join(p.read_bytes() for p in sorted(made.inputs.rglob("*")) if p.is_file())
    assert not any(name.encode() in text for name in public.segment_ids)
    assert made.labels.stat().st_mode & 0o077 == 0


def test_the_sound_is_early_by_the_label(small: Track, made: Redrawn) -> None:
    """Against the scene itself: picture from the start, sound from start + offset, as a protocol would read them."""
    track, answers = read_labels(made.labels)
    assert track.name == made.track
    assert track.labels == "private"
    specs = {spec.id: spec for spec in synthsync.clip_specs("test", 3)}
    by_id = {s.id: s for s in synthsync.planned("synthsync", "test").segments}
    document = json.loads(made.labels.read_text())
    offsets = {row["segment_id"]: row["offset_ticks"] for row in document["segments"]}
    assert len(set(offsets.values())) > 3
    manifest = read_manifest(made.inputs)
    for name, source in zip(answers.segment_ids, answers.sources, strict=True):
        scene = specs[by_id[source].clip_id].scene()
        clip = manifest.clips[name]
        start = by_id[source].start
        with ClipReader(manifest.clip_path(clip), clip) as reader:
            heard = reader.audio()[blind.BEFORE : blind.BEFORE + ticks(7)]
        sound = scene.audio()
        matches = {
            shift: float(np.corrcoef(heard, sound[start + shift : start + shift + ticks(7)])[0, 1])
            for shift in (offsets[name], 0, -offsets[name], offsets[name] + ticks(0.04))
        }
        assert max(matches, key=lambda shift: matches[shift]) == offsets[name]
        assert matches[offsets[name]] > 0.9


def test_the_seed_makes_the_set(small: Track, made: Redrawn, tmp_path: Path) -> None:
    again = redraw("synthsync-test", 7, tmp_path / "again", workers=1)
    other = redraw("synthsync-test", 8, tmp_path / "other", workers=1)
    assert read_manifest(again.inputs).sha256 == read_manifest(made.inputs).sha256
    assert again.labels.read_bytes() == made.labels.read_bytes()
    assert other.track != made.track
    assert not {c.id for c in same_cuts(small, 7)} & {c.id for c in same_cuts(small, 8)}


def test_new_offsets_are_other_offsets() -> None:
    official = {s.id: s.offset for s in synthsync.planned().segments}
    redrawn = {cut.segment_id: cut.offset for cut in same_cuts(MAIN, synthsync.OFFSET_SEED)}
    assert set(redrawn) == set(official)
    assert np.mean([official[name] == redrawn[name] for name in official]) < 0.05
    assert {c.length for c in same_cuts(MAIN, 1)} == {ticks(2 + 39 + 1)}


def test_fresh_scenes_share_nothing_with_published_ones() -> None:
    cuts = fresh_cuts(MAIN, 7)
    assert len({cut.scene_seed for cut in cuts}) == len(cuts) == 168
    assert min(cut.scene_seed for cut in cuts) >= 2**40
    assert {cut.category for cut in cuts} == {"talking head", "voice-over", "other"}
    assert all(
        cut.start + cut.offset >= 0 and cut.start + cut.offset + cut.length <= ticks(cut.scene_s) for cut in cuts
    )


def test_fresh_scenes_are_made(small: Track, tmp_path: Path) -> None:
    made = redraw("synthsync-test", 2**70, tmp_path / "fresh", fresh=True, workers=1)
    _, answers = read_labels(made.labels)
    assert answers.sources == answers.segment_ids
    assert len(read_manifest(made.inputs).clips) == 6


def test_bad_requests(small: Track, tmp_path: Path, avbench: Avbench) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("")
    for options, says in (
        (("--track", "nothing", "--seed", 1, "--out", "a"), "there is no track"),
        (("--track", "synthsync-test", "--seed", -1, "--out", "a"), "0 or more"),
        (("--track", "synthsync-test", "--seed", 1, "--out", "full"), "not empty"),
        (("--track", "synthsync-test", "--seed", 1, "--out", "a", "--workers", 0), "at least 1"),
    ):
        done = avbench("leaderboard", "redraw", *options)
        assert done.returncode == 2, done.stderr
        assert says in done.stderr
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"base": "nothing"}, "no track"),
        ({"signature": "avb|other"}, "made for protocol"),
        ({"schema_version": 2}, "schema_version"),
        ({"segments": []}, "segments"),
        ({"track": "../x"}, "track"),
        ({"extra": 1}, "extra"),
    ],
)
def test_labels_files_that_are_not_right(small: Track, made: Redrawn, change: dict[str, object], says: str) -> None:
    document = json.loads(made.labels.read_text()) | change
    made.labels.write_text(json.dumps(document))
    with pytest.raises(UsageError, match=says):
        read_labels(made.labels)


def test_labels_must_agree_with_themselves(small: Track, made: Redrawn) -> None:
    document = json.loads(made.labels.read_text())
    document["segments"][0]["offset_class"] = (document["segments"][0]["offset_class"] + 5) % 21
    made.labels.write_text(json.dumps(document))
    with pytest.raises(UsageError, match="offset_class"):
        read_labels(made.labels)


# -- the audit, on the real track's labels


def redrawn_truth(seed: int) -> tuple[Track, Truth]:
    """What labels.json of a redrawn set says, without its media."""
    rows = [blind._label(cut) for cut in same_cuts(MAIN, seed)]
    answers = Truth(
        segment_ids=tuple(r.segment_id for r in rows),
        labels=np.array([r.offset_class for r in rows]),
        clusters=np.array([r.video_id for r in rows]),
        categories=tuple(r.category for r in rows),
        channels=tuple(r.channel for r in rows),
        sources=tuple(r.source for r in rows),
    )
    return MAIN, answers


def predictions(answers: Truth, logits: np.ndarray, model: str = "m") -> object:
    from avbench.leaderboard.audit import Predictions

    return Predictions(model, model, answers, logits[:, -1])


def test_a_memoriser_is_caught_and_an_honest_model_is_not() -> None:
    public = truth(MAIN)
    _, answers = redrawn_truth(99)
    known = np.array([public.labels[public.place[source]] for source in answers.sources])
    honest = audit(
        predictions(public, logits_for(public.labels, 18, 2.0, seed=1)),  # type: ignore[arg-type]
        predictions(answers, logits_for(answers.labels, 18, 2.0, seed=2)),  # type: ignore[arg-type]
        n_resamples=400,
    )
    assert honest.consistent
    assert not honest.memorised
    # gives the public label for any input
    memoriser = audit(
        predictions(public, logits_for(public.labels, 18, 6.0, seed=1)),  # type: ignore[arg-type]
        predictions(answers, logits_for(known, 18, 6.0, seed=2)),  # type: ignore[arg-type]
        n_resamples=400,
    )
    assert memoriser.memorised
    assert memoriser.official["acc"] > 0.9
    assert memoriser.redrawn["acc"] < 0.2
    # an honest model that has also memorised a third of the public labels
    rng = np.random.default_rng(0)
    third = dict(zip(public.segment_ids, rng.random(168) < 1 / 3, strict=True))
    official = logits_for(public.labels, 18, 2.0, seed=1)
    redrawn = logits_for(answers.labels, 18, 2.0, seed=2)
    for row, name in enumerate(public.segment_ids):
        official[row, :, public.labels[row]] += 8.0 * third[name]
    for row, name in enumerate(answers.sources):
        redrawn[row, :, known[row]] += 8.0 * third[name]
    partly = audit(predictions(public, official), predictions(answers, redrawn), 400)  # type: ignore[arg-type]
    assert partly.memorised


@pytest.mark.slow
def test_honest_models_are_rarely_flagged() -> None:
    public = truth(MAIN)
    flagged = 0
    for seed in range(40):
        _, answers = redrawn_truth(1000 + seed)
        found = audit(
            predictions(public, logits_for(public.labels, 1, 2.0, seed=seed)),  # type: ignore[arg-type]
            predictions(answers, logits_for(answers.labels, 1, 2.0, seed=500 + seed)),  # type: ignore[arg-type]
            n_resamples=400,
        )
        flagged += found.memorised
    assert flagged <= 3  # expected 0.4; more than 3 has a probability of one in a thousand


def test_worse_on_the_public_offsets_is_no_memorising() -> None:
    public, (_, answers) = truth(MAIN), redrawn_truth(5)
    found = audit(
        predictions(public, logits_for(public.labels, 1, 1.0)),  # type: ignore[arg-type]
        predictions(answers, logits_for(answers.labels, 1, 6.0)),  # type: ignore[arg-type]
    )
    assert not found.memorised
    assert not found.consistent


def test_audit_as_a_command(small: Track, made: Redrawn, avbench: Avbench, tmp_path: Path) -> None:
    track, answers = read_labels(made.labels)
    make_run(tmp_path / "official", small)
    make_run(tmp_path / "redrawn", track, answers)
    folder = pack(tmp_path / "redrawn", tmp_path / "mine", "acme", "toy")
    for redrawn in (tmp_path / "redrawn", folder):
        done = avbench("leaderboard", "audit", "official", redrawn, "--labels", made.labels, "--n-resamples", 100)
        assert done.returncode in (0, 1), done.stderr  # six segments settle nothing
        assert "6 segments under both offsets" in done.stdout
    report = json.loads(
        avbench("leaderboard", "audit", "official", "redrawn", "--labels", made.labels, "--json").stdout
    )
    assert set(report["metrics"]) == set(METRICS)
    make_run(tmp_path / "another", track, answers, model="another")
    refused = avbench("leaderboard", "audit", "official", "another", "--labels", made.labels)
    assert refused.returncode == 2
    assert "different models" in refused.stderr
    swapped = avbench("leaderboard", "audit", "redrawn", "official", "--labels", made.labels)
    assert swapped.returncode == 2
    assert "its manifest differs" in swapped.stderr


def test_the_memoriser_on_disk(tmp_path: Path, avbench: Avbench) -> None:
    """The same through files, on the whole track: exit code 1 and the word."""
    from dataclasses import replace

    from avbench.submissions.tracks import Labels

    public = truth(MAIN)
    rows = [blind._label(cut) for cut in same_cuts(MAIN, 3)]
    labels = Labels(
        track="synthsync-test.blind-00000000",
        base="synthsync-test",
        manifest_sha256="a" * 64,
        signature=MAIN.protocol.signature(),
        seed=3,
        segments=rows,
    )
    (tmp_path / "labels.json").write_text(labels.to_json())
    track, answers = read_labels(tmp_path / "labels.json")
    assert track == replace(track, labels="private")
    known = np.array([public.labels[public.place[source]] for source in answers.sources])
    make_run(tmp_path / "official", MAIN, logits=logits_for(public.labels, 18, 6.0))
    make_run(tmp_path / "redrawn", track, answers, logits=logits_for(known, 18, 6.0))
    make_run(tmp_path / "honest", track, answers, logits=logits_for(answers.labels, 18, 6.0, seed=4))
    caught = avbench("leaderboard", "audit", "official", "redrawn", "--labels", "labels.json")
    assert caught.returncode == 1
    assert "MEMORISED" in caught.stdout
    fine = avbench("leaderboard", "audit", "official", "honest", "--labels", "labels.json")
    assert fine.returncode == 0, fine.stdout
    assert "consistent" in fine.stdout
    # a blind submission may claim a score; then it must be the true one
    folder = pack(tmp_path / "honest", tmp_path / "mine", "acme", "toy")
    assert check(folder, tmp_path / "labels.json", n_resamples=0).ok
    document = json.loads((folder / "submission.json").read_text())
    document["claimed"] = {"acc": 0.5}
    (folder / "submission.json").write_text(json.dumps(document))
    assert check(folder, tmp_path / "labels.json", n_resamples=0).errors[0].field.startswith("claimed.")


def test_reading_what_is_neither(tmp_path: Path, small: Track, made: Redrawn) -> None:
    with pytest.raises(UsageError, match="has neither a submission"):
        read_official(tmp_path, "synthsync-test")
    with pytest.raises(UsageError, match="has neither a submission"):
        read_redrawn(tmp_path, made.labels)
