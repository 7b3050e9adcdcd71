"""The full-size models through the whole command line on real clips, with weights drawn from a seed. Minutes each.

`pytest -m slow tests/weights/test_checkpoints_full_size.py`
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from loopback import serving
from published_files import publish

from avbench.protocol.manifest import Manifest, read_manifest
from avbench.results.predictions import read_predictions
from avbench.ticks import frames
from avbench.weights import checkpoints

MEDIA = Path(__file__).resolve().parents[2].parent / "shared" / "media"
SEED = 5
pytestmark = pytest.mark.slow


@pytest.fixture
def real(avbench: Callable[..., Any], tmp_path: Path) -> Path:
    """A manifest over the real clips, made by the command; every segment holds two windows."""
    if not MEDIA.is_dir():
        pytest.skip("the real clips are absent: ../shared/media")
    clips = [MEDIA / name for name in ("lrs3", "vggsound_h264", "vggsound_original")]  # long enough for two windows
    done = avbench("data", "from-files", *clips, "--out", tmp_path / "real", "--iterations", 2, "--seed", 3)
    assert done.returncode == 0, done.stderr
    return tmp_path / "real"


def published_file(folder: Path, family: str) -> Path:
    weights = checkpoints.drawn_weights(checkpoints.build(family).state_dict(), SEED)
    return publish(folder / f"{family}-epoch_best.pt", weights)


def first_windows(manifest: Manifest, model: Any) -> dict[str, np.ndarray]:
    """Logits (21,) of each segment's first window from the plain model, the clip cut by hand."""
    from avbench.data.media import ClipReader

    out = {}
    for segment in manifest.segments:
        reader = ClipReader(manifest.clip_path(manifest.clips[segment.clip_id]))
        crops = np.stack([crop for (crop,) in reader.frames(model.frontend)])
        first, sound = frames(segment.start), segment.start + segment.offset
        video = torch.from_numpy(crops[first : first + 125])[None]
        audio = torch.from_numpy(reader.audio()[sound : sound + 80_000])[None]
        with torch.inference_mode():
            out[segment.id] = model.predict(video, audio).logits[0].numpy()
    return out


def check(done: Any, out: Path, manifest: Manifest, source: Path, iterations: int = 2) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    run = json.loads((out / "run.json").read_text())
    ids, logits = read_predictions(out / "predictions.parquet")
    assert run["n_scored"] == run["n_total"] == len(ids) == len(manifest.segments) > 0
    assert logits.shape == (len(ids), iterations, 21)
    assert np.isfinite(logits).all()
    assert run["model"]["full_size"]
    assert run["model"]["trained_on"] == f"undeclared ({source.name})"
    assert "|lead0|" in run["signature"]
    assert "sound heard unshifted" in done.stdout
    return run


def test_sparsesync_from_a_server_to_scores(avbench: Callable[..., Any], real: Path, tmp_path: Path) -> None:
    manifest, source = read_manifest(real), published_file(tmp_path, "sparsesync")
    data = source.read_bytes()
    with serving(data) as server:
        md5 = hashlib.md5(data).hexdigest()
        done = avbench("weights", "fetch", "sparsesync.mine", "--url", server.url + "a.pt", "--md5", md5)
    assert done.returncode == 0, done.stderr
    assert avbench("weights", "convert", "sparsesync.mine").returncode == 0
    verified = avbench("weights", "verify", "sparsesync.mine")
    assert verified.returncode == 0, verified.stdout
    assert "810 entries, 54379468 numbers" in verified.stdout
    one = ("--data", real, "--iterations", 2, "--no-reference-rows")
    done = avbench("run", "--model", "sparsesync.mine", *one, "--out", "a")
    converted = Path("avbench-cache/weights/sparsesync.mine.safetensors")
    run = check(done, Path("a"), manifest, converted)
    assert run["counters"]["snapshots_computed"] == 2 * len(manifest.segments)
    ids, logits = read_predictions(Path("a/predictions.parquet"))
    expected = first_windows(manifest, checkpoints.load_full_size("sparsesync", source))
    worst = max(float(np.abs(row[0] - expected[name]).max()) for name, row in zip(ids, logits, strict=True))
    assert worst < 2e-3, worst
    # the published file itself is the same model: every snapshot is stored already
    again = avbench("run", "--model", "sparsesync", "--weights", source, *one, "--out", "b")
    run = check(again, Path("b"), manifest, source)
    assert run["counters"]["snapshots_from_store"] == 2 * len(manifest.segments)
    assert (Path("a") / "predictions.parquet").read_bytes() == (Path("b") / "predictions.parquet").read_bytes()


def test_streamsync_trf(avbench: Callable[..., Any], real: Path, tmp_path: Path) -> None:
    manifest, source = read_manifest(real), published_file(tmp_path, "streamsync-trf")
    one = ("--data", real, "--iterations", 2, "--weights", source)
    done = avbench("run", "--model", "streamsync-trf", *one, "--out", "a")
    run = check(done, Path("a"), manifest, source)
    assert run["model"]["token"] == "the backbone's own"
    # the same snapshots, the model's own iteration: forward(video, audio, history)
    plain = checkpoints.load_full_size("streamsync-trf", source)
    ids, logits = read_predictions(Path("a/predictions.parquet"))
    segment = manifest.segments[0]
    from avbench.data.media import ClipReader

    reader, history = ClipReader(manifest.clip_path(manifest.clips[segment.clip_id])), None
    crops = np.stack([crop for (crop,) in reader.frames(plain.frontend)])
    for i in range(2):
        first = segment.start + i * 32_000
        video = torch.from_numpy(crops[frames(first) : frames(first) + 125])[None]
        audio = torch.from_numpy(reader.audio()[first + segment.offset : first + segment.offset + 80_000])[None]
        with torch.inference_mode():
            streaming, _, history = plain(video, audio, history)
        np.testing.assert_allclose(logits[ids.index(segment.id), i], streaming[0].numpy(), atol=2e-3)
    wrong = avbench("run", "--model", "sparsesync", *one)
    assert wrong.returncode == 1
    assert "contains streamsync-trf weights, not sparsesync weights: use --model streamsync-trf" in wrong.stderr


def test_syncnet_finds_the_faces_in_real_clips_by_itself(
    avbench: Callable[..., Any], real: Path, tmp_path: Path
) -> None:
    """Of a talking face it says something, of what has no face nothing: all classes are alike."""
    yunet = MEDIA.parent / "models" / "yunet_s_640_640.onnx"
    if not yunet.is_file():
        pytest.skip("the face detector's weights are absent: ../shared/models")
    manifest, source = read_manifest(real), tmp_path / "syncnet.model"
    weights = checkpoints.drawn_weights(checkpoints.build("syncnet").state_dict(), SEED)
    torch.save(weights, source, _use_new_zipfile_serialization=False)
    run = ("run", "--model", "syncnet", "--weights", source, "--data", real, "--iterations", 2, "--no-reference-rows")
    without = avbench(*run, "--out", "a")
    assert without.returncode != 0
    assert "get it with `avbench weights fetch yunet`" in without.stderr
    Path("avbench-cache/weights/annotators").mkdir(parents=True)
    shutil.copy(yunet, "avbench-cache/weights/annotators")
    check(avbench(*run, "--out", "b"), Path("b"), manifest, source)
    ids, logits = read_predictions(Path("b/predictions.parquet"))
    expected = first_windows(manifest, checkpoints.load_full_size("syncnet", source))
    for name, row in zip(ids, logits, strict=True):
        np.testing.assert_allclose(row[0], expected[name], atol=2e-3 * max(1.0, float(np.abs(expected[name]).max())))
    clip_of = {segment.id: segment.clip_id for segment in manifest.segments}
    answered = {clip_of[name]: bool(row.any()) for name, row in zip(ids, logits, strict=True)}
    assert set(answered.values()) == {True, False}, answered


def test_synchformer_and_its_heads(avbench: Callable[..., Any], real: Path, tmp_path: Path) -> None:
    manifest, source = read_manifest(real), published_file(tmp_path, "synchformer")
    manifest = manifest.limit(1)
    one = ("--data", real, "--limit", 1, "--iterations", 2, "--weights", source, "--no-reference-rows")
    run = check(avbench("run", "--model", "synchformer", *one, "--out", "a"), Path("a"), manifest, source)
    assert run["counters"]["snapshots_computed"] == 2
    _, logits = read_predictions(Path("a/predictions.parquet"))
    expected = first_windows(manifest, checkpoints.load_full_size("synchformer", source))
    np.testing.assert_allclose(logits[0, 0], expected[manifest.segments[0].id], atol=2e-3)
    apa = check(avbench("run", "--model", "apa-synchformer", *one, "--out", "b"), Path("b"), manifest, source)
    assert apa["counters"]["snapshots_from_store"] == 2
    done = avbench("run", "--model", "synchformer+trf", *one, "--random-weights", "--out", "c")
    trf = check(done, Path("c"), manifest, source)
    assert trf["counters"]["snapshots_from_store"] == 2
    assert "fixed map" in trf["model"]["token"]
    assert "RANDOM WEIGHTS (seed 0): these scores mean nothing" in done.stdout
    assert trf["model"]["random_weights"] == 0
