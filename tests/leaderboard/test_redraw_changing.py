"""Blind sets of offsets that change: the laws are in the media and nowhere else; run, submitted, scored, audited."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from runs import logits_on, make_run

from avbench.data import dynamic as changing
from avbench.data import synthsync
from avbench.data.media import ClipReader
from avbench.leaderboard import redraw as blind
from avbench.leaderboard.redraw import Redrawn, cut_streams, fresh_cuts, redraw, same_cuts
from avbench.protocol import rules
from avbench.protocol.laws import SHARES, extremes, law_of, offsets_at
from avbench.protocol.manifest import read_manifest
from avbench.protocol.tracks import TRACKS, Track
from avbench.results.dynamic_truth import WindowTruth
from avbench.results.run import read_run
from avbench.submissions.check import check
from avbench.submissions.pack import pack
from avbench.submissions.tracks import Labels, read_labels, segments_of, truth, window_truth
from avbench.ticks import TICKS_PER_S, ticks
from avbench.types import UsageError

Avbench = Callable[..., "subprocess.CompletedProcess[str]"]
NAME = "synthsync-dynamic-test"
WINDOWS = 13


def shrink(patch: pytest.MonkeyPatch) -> Track:
    """The track over three clips, one stream of 29 s each, with the laws that fit."""
    protocol, kinds = rules.dynamic(iterations=WINDOWS), ("jump", "drift", "drops")
    how = changing.ChangingRules(laws=kinds, seed=1, protocol=protocol)
    patch.setattr(synthsync, "CLIP_S", 36)
    patch.setattr(synthsync, "FULL_CLIPS", {"train": 3, "valid": 3, "test": 3})
    patch.setattr(changing, "_of", lambda manifest: changing.changing(manifest, how, changing.NAME).manifest)
    patch.setattr(blind, "SHARES", dict.fromkeys(kinds, 1.0))
    track = Track(NAME, "small", changing.NAME, "test", changing.planned().sha256, protocol)
    patch.setitem(TRACKS, NAME, track)
    return track


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Redrawn:
    """A set of the small track; read only."""
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch)
        return redraw(NAME, 2**70 + 1, tmp_path_factory.mktemp("set") / "blind", workers=1)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Track:
    return shrink(monkeypatch)


@pytest.fixture
def made(kept: Redrawn, small: Track, tmp_path: Path) -> Redrawn:
    """The set with a labels file that may be changed."""
    shutil.copy(kept.labels, tmp_path / "labels.json")
    return kept._replace(labels=tmp_path / "labels.json")


def test_the_whole_tracks_laws_are_new_and_in_their_shares() -> None:
    track = TRACKS[NAME]
    cuts = same_cuts(track, 2**70)
    public = truth(track)
    old = dict(zip(public.segment_ids, public.laws, strict=True))
    laws = {cut.segment_id: cut.law for cut in cuts}
    assert set(laws) == set(old)
    assert np.mean([law == old[name] for name, law in laws.items()]) < 0.02
    names = [law.name for law in laws.values() if law]
    assert {name: names.count(name) / len(names) for name in SHARES} == pytest.approx(SHARES, abs=0.01)
    assert {cut.length for cut in cuts} == {ticks(99 + 1)}, "equal lengths tell nothing"
    assert all(max(map(abs, extremes(cut.law, cut.length))) <= ticks(2) for cut in cuts if cut.law)
    assert [cut.id for cut in cuts] == sorted(cut.id for cut in cuts)
    other = {cut.segment_id: cut.law for cut in same_cuts(track, 2**70 + 1)}
    assert np.mean([law == other[name] for name, law in laws.items()]) < 0.02


def test_fresh_scenes_hold_every_sample_that_a_law_asks_for() -> None:
    cuts = fresh_cuts(TRACKS[NAME], 7)
    assert len({cut.scene_seed for cut in cuts}) == len(cuts) == 240
    for cut in cuts:
        assert cut.law is not None
        low, high = extremes(cut.law, cut.length)
        assert cut.start + low >= 0
        assert cut.start + high + cut.length <= ticks(cut.scene_s)


def test_the_sound_is_the_scenes_sample_at_t_plus_the_laws_offset(small: Track) -> None:
    """To the sample, before encoding, at every tick of every clip: the definition, written out."""
    for cut in same_cuts(small, 5):
        assert cut.law is not None
        scene = np.arange(ticks(cut.scene_s), dtype=np.float32)  # each sample tells where it is from
        picture, heard = cut_streams(cut, np.arange(cut.scene_s * 25), scene)
        t = np.arange(cut.length)
        told = cut.start + t + offsets_at(cut.law, t - cut.before)
        for mute in cut.law.mutes:
            told[cut.before + mute.start : cut.before + mute.end] = 0
        assert np.array_equal(heard, told)
        assert np.array_equal(picture, cut.start // 640 + np.arange(cut.length // 640))


def test_the_encoded_sound_is_where_the_law_says(small: Track, made: Redrawn) -> None:
    """Every two seconds of every clip against the scene, and not one picture earlier or later."""
    document = json.loads(made.labels.read_text())
    manifest = read_manifest(made.inputs)
    specs = {spec.id: spec for spec in synthsync.clip_specs("test", 3)}
    planned = {s.id: s for s in changing.planned().segments}
    kinds, checked = set(), 0
    for row in document["segments"]:
        law, public = law_of(row["law"]), planned[row["source"]]
        kinds.add(law.name)
        clip = manifest.clips[row["segment_id"]]
        with ClipReader(manifest.clip_path(clip), clip) as reader:
            heard = reader.audio()
        sound = specs[public.clip_id].scene().audio()
        for begin in range(0, ticks(29), ticks(1)):
            t = np.arange(begin, begin + ticks(1))
            offset = offsets_at(law, t)
            muted = any(mute.start < t[-1] and t[0] < mute.end for mute in law.mutes)
            if np.ptp(offset) or muted or sound[public.start + t + offset].std() < 0.02:
                continue

            scene = {shift: sound[public.start + t + offset + shift] for shift in (0, 640, -640)}
            match = {shift: float(np.corrcoef(heard[t], part)[0, 1]) for shift, part in scene.items()}
            assert match[0] > 0.85
            assert match[0] > max(match[640], match[-640])
            checked += 1
    assert len(kinds) > 1
    assert checked > 20


def test_nothing_in_the_files_tells_the_laws(small: Track, kept: Redrawn, made: Redrawn) -> None:
    manifest = read_manifest(made.inputs)
    assert manifest.labels_hidden
    assert not manifest.changing
    assert {(s.start, s.offset, s.law, s.category) for s in manifest.segments} == {(0, 0, None, "")}
    assert {(c.n_frames, c.n_samples) for c in manifest.clips.values()} == {(750, 30 * TICKS_PER_S)}
    text = b"".join(p.read_bytes() for p in sorted(made.inputs.rglob("*")) if p.is_file())
    names = [*truth(small).segment_ids, *(f'"{kind}"' for kind in SHARES), "pieces", "ss-test"]
    assert [name for name in names if name.encode() in text] == []
    assert kept.labels.stat().st_mode & 0o077 == 0


def test_the_labels_give_the_truth_of_every_window(small: Track, made: Redrawn) -> None:
    track, answers = read_labels(made.labels)
    assert (track.protocol, track.labels, track.changing) == (small.protocol, "private", True)
    windows = window_truth(track, answers)
    assert windows is not None
    rows = json.loads(made.labels.read_text())["segments"]
    ends = ticks(5) + ticks(2) * np.arange(WINDOWS)
    for row, end_s in zip(rows, windows.offset_end_s, strict=True):
        assert np.array_equal(end_s, offsets_at(law_of(row["law"]), ends) / TICKS_PER_S)
    again = WindowTruth.of(segments_of(answers), track.protocol)
    assert np.array_equal(again.purity, windows.purity)
    last = [TRACKS[NAME].protocol.grid.class_of(s) for s in windows.offset_end_s[:, -1]]
    assert answers.labels.tolist() == last


def test_from_redraw_to_score(avbench: Avbench, small: Track, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for other in TRACKS.keys() - {NAME}:  # they pin clips of the usual length
        monkeypatch.delitem(TRACKS, other)
    done = avbench("leaderboard", "redraw", "--track", NAME, "--seed", 10, "--out", "blind", "--workers", 1)
    assert done.returncode == 0, done.stderr
    assert "avbench run --model sparsesync+bayes --data blind/inputs --protocol dynamic\n" in done.stdout
    options = ("--iterations", WINDOWS, "--workers", 1, "--n-resamples", 50)
    run = ("run", "--model", "xcorr+bayes", "--data", "blind/inputs", *options)
    forgot = avbench(*run, "--out", "forgot")
    assert forgot.returncode == 0, forgot.stderr
    refused = avbench("submit", "pack", "forgot", "--out", "mine", "--org", "acme", "--name", "xcorr")
    assert refused.returncode == 2
    assert "run `avbench run --model MODEL --data FOLDER --protocol dynamic`" in refused.stderr
    ran = avbench(*run, "--protocol", "dynamic", "--out", "run")
    assert ran.returncode == 0, ran.stderr
    result = read_run(tmp_path / "run")
    assert ({score.value for score in result.scores.values()}, result.dynamic) == ({None}, {})
    packed = avbench("submit", "pack", "run", "--out", "mine", "--org", "acme", "--name", "xcorr")
    assert packed.returncode == 0, packed.stderr
    folder = tmp_path / packed.stdout.strip()
    assert "--labels" in avbench("submit", "check", folder).stderr
    report = json.loads(avbench("submit", "check", folder, "--labels", "blind/labels.json", "--json").stdout)
    assert report["ok"], report
    assert 0 <= report["recomputed"]["headline_recovery_s"]["value"] <= 40
    build = ("leaderboard", "build", "--entries", "mine", "--out", "site", "--labels", "blind/labels.json")
    built = avbench(*build, "--workers", 1)
    assert built.returncode == 0, built.stderr
    (row,) = json.loads((tmp_path / "site" / "data.json").read_text())
    assert (row["rank"], row["ranked_by"]) == (1, "headline_recovery_s")
    page = (tmp_path / "site" / row["page"]).read_text()
    assert not any(name in page for name in truth(small).segment_ids)


def rewritten(made: Redrawn, change: Callable[[dict[str, object]], object]) -> Path:
    document = json.loads(made.labels.read_text())
    change(document["segments"][0])
    made.labels.write_text(json.dumps(document))
    return made.labels


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"law": None}, "needs a law"),
        ({"law": "x"}, "law: 'x' is not a law"),
        ({"law": 5}, "law"),
        ({"law": '{"name":"hold","pieces":[[0,99999,0]]}', "offset_ticks": 0, "offset_class": 10}, "does not begin"),
        ({"law": '{"name":"jump","pieces":[[0,0,0],[640,99999,0]]}', "offset_ticks": 0, "offset_class": 10}, "leaves"),
        ({"law": '{"name":"hold","pieces":[[0,0,99999999999999999999]]}'}, "a number that no law has"),
        ({"offset_class": 10, "offset_ticks": 32000}, "offset_class does not match"),
    ],
)
def test_labels_with_laws_that_are_not_right(small: Track, made: Redrawn, change: dict[str, object], says: str) -> None:
    with pytest.raises(UsageError, match=says) as raised:
        read_labels(rewritten(made, lambda row: row.update(change)))
    assert "\n" not in str(raised.value)


def test_a_law_has_no_place_in_a_track_of_fixed_offsets(small: Track, made: Redrawn) -> None:
    document = json.loads(made.labels.read_text())
    fixed = TRACKS["synthsync-test"]
    document |= {"base": fixed.name, "signature": fixed.protocol.signature()}
    made.labels.write_text(json.dumps(document))
    with pytest.raises(UsageError, match="has no law"):
        read_labels(made.labels)


def test_a_changed_law_changes_the_scores(small: Track, made: Redrawn, tmp_path: Path) -> None:
    track, answers = read_labels(made.labels)
    make_run(tmp_path / "run", track, answers, logits_on(track, answers, 8.0))
    folder = pack(tmp_path / "run", tmp_path / "mine", "acme", "toy")
    before = check(folder, made.labels, n_resamples=0).recomputed
    assert before["tracked_acc"].value == 1
    hold = {"law": '{"name":"hold","pieces":[[0,0,0]]}', "offset_ticks": 0, "offset_class": 10}
    after = check(folder, rewritten(made, lambda row: row.update(hold)), n_resamples=0).recomputed
    assert after["tracked_acc"].value < 1


def test_the_audit_pairs_the_streams(avbench: Avbench, tmp_path: Path) -> None:
    """On the whole track: an honest model, and one that says what the public laws say whatever it sees."""
    base = TRACKS[NAME]
    labels = Labels(
        track=f"{NAME}.blind-00000000",
        base=NAME,
        manifest_sha256="a" * 64,
        signature=base.protocol.signature(),
        seed=3,
        segments=[blind._label(cut) for cut in same_cuts(base, 3)],
    )
    (tmp_path / "labels.json").write_text(labels.to_json())
    track, answers = read_labels(tmp_path / "labels.json")
    public = truth(base)
    make_run(tmp_path / "official", base, public, logits_on(base, public, 8.0))
    make_run(tmp_path / "honest", track, answers, logits_on(track, answers, 8.0))
    known = public.take([public.place[source] for source in answers.sources])
    make_run(tmp_path / "learnt", track, answers, logits_on(base, known, 8.0))
    audit = ("leaderboard", "audit", "official")
    fine = avbench(*audit, "honest", "--labels", "labels.json", "--n-resamples", 400)
    assert (fine.returncode, "consistent" in fine.stdout) == (0, True), fine.stdout + fine.stderr
    assert "240 segments under both offsets" in fine.stdout
    caught = avbench(*audit, "learnt", "--labels", "labels.json", "--n-resamples", 400, "--json")
    assert caught.returncode == 1, caught.stdout + caught.stderr
    told = json.loads(caught.stdout)
    assert (told["memorised"], told["deciding"]) == (True, ["tracked_acc", "recovery_s"])
    assert set(told["metrics"]) == {"tracked_acc", "tracked_acc_tol1", "tracking_error_s", "recovery_s"}
    assert told["metrics"]["tracked_acc"]["official"] == 1
    assert told["metrics"]["tracked_acc"]["redrawn"] < 0.3
    assert told["metrics"]["recovery_s"]["ci_high"] < 0
