"""SyncNet's measures on made features, and its snapshots of made lips whose truth is known: the sign, the curve, and
when it gives no answer. That it equals the published network is the golden test's matter."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import realclips
import torch
from lips import NoFace, OneFace, Reads, levels, pictures, sound

from avbench.baselines import syncnet
from avbench.baselines.syncnet import LEAST_PAIRS, SyncNet, as_int16, distances, is_silent, lse, mfcc, sound_windows
from avbench.data.faces import YuNet
from avbench.engine.fingerprint import model_fingerprint
from avbench.types import OffsetGrid, UsageError


@pytest.fixture(autouse=True)
def _no_gradients() -> object:
    with torch.inference_mode():
        yield


@pytest.fixture(scope="module")
def reads() -> Reads:
    return Reads().eval()


def window(offset_frames: int, seed: int = 0, detector: object = None) -> tuple[torch.Tensor, torch.Tensor]:
    """(1, 125, 3, 64, 96) and (1, 80000) whose sound is early by so many frames: taken from later in the source, as
    everywhere in avbench."""
    level = levels(325, seed)
    whole = sound(level)
    begin = 640 * (100 + offset_frames)
    video = torch.from_numpy(pictures(level[100:225]).transpose(0, 3, 1, 2).copy())
    return video[None], torch.from_numpy(whole[begin : begin + 80_000].copy())[None]


# --------------------------------------------------------------------------------------------------------- the measures


def by_hand(lips: np.ndarray, heard: np.ndarray) -> np.ndarray:
    """The description, sum by sum."""
    rows = []
    for k in range(31):
        row = []
        for i in range(len(lips)):
            j = i + k - 15
            there = heard[j] if 0 <= j < len(heard) else np.zeros(heard.shape[1])
            row.append(np.sqrt(((lips[i] - there + 1e-6) ** 2).sum()))
        rows.append(row)
    return np.array(rows)


def test_distances_are_those_of_the_description() -> None:
    rng = np.random.default_rng(3)
    lips, heard = rng.normal(size=(2, 7, 1024))
    assert np.allclose(distances(lips, heard).numpy(), by_hand(lips, heard), rtol=1e-13)
    m = by_hand(lips, heard).mean(1)
    assert lse(lips, heard) == pytest.approx((m.min(), np.median(m) - m.min(), 15 - m.argmin()))
    assert lse(torch.tensor(lips), heard) == lse(lips, heard)
    assert distances(np.float16(lips), np.float16(heard)).dtype == torch.float32
    assert distances(lips, heard, 3).shape == (7, 7)


@pytest.mark.parametrize("frames", [-9, -1, 0, 3, 15])
def test_the_published_offset_is_positive_where_the_sound_is_early(frames: int) -> None:
    """Sound j shows what lips j + ``frames`` show: it is ahead."""
    rng = np.random.default_rng(4)
    source = rng.normal(size=(120, 1024))
    lips, heard = source[20:100], source[20 + frames : 100 + frames] + 0.1 * rng.normal(size=(80, 1024))
    lse_d, lse_c, offset = lse(lips, heard)
    assert offset == frames
    assert lse_d < lse_c


@pytest.mark.parametrize("shapes", [((3, 8), (4, 8)), ((3, 8), (3, 7)), ((0, 8), (0, 8)), ((8,), (8,))])
def test_features_that_do_not_pair_are_refused(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    with pytest.raises(ValueError, match=r"both be \(N, 1024\)"):
        lse(*map(np.zeros, shapes))


def test_windows_of_sound_lie_four_columns_apart() -> None:
    columns = np.arange(13 * 99.0).reshape(13, 99)
    found = sound_windows(columns).numpy()
    assert found.shape == (20, 1, 13, 20)  # a second: the published 25 - 5
    assert np.array_equal(found[7, 0], columns[:, 28:48])
    assert sound_windows(columns[:, :19]).shape == (0, 1, 13, 20)
    assert mfcc(np.zeros(16_000, np.int16)).shape == (13, 99)


def test_the_towers_refuse_other_shapes() -> None:
    network = SyncNet().eval()
    for call, shape in (
        (network.encode_lips, (1, 3, 5, 112, 112)),
        (network.encode_lips, (1, 3, 4, 224, 224)),
        (network.encode_sound, (1, 13, 20)),
        (network.encode_sound, (1, 1, 20, 13)),
    ):
        with pytest.raises(ValueError, match="must be"):
            call(torch.zeros(shape))


def test_crops_reach_the_network_as_bgr_frames_of_0_to_255(monkeypatch: pytest.MonkeyPatch) -> None:
    given = []
    monkeypatch.setattr(
        SyncNet, "encode_lips", lambda self, lips: given.append(lips.clone()) or lips.float().mean((2, 3, 4))
    )
    crops = np.zeros((25, 224, 224, 3), np.uint8)
    crops[..., 0], crops[..., 2] = 200, np.arange(25)[:, None, None]  # red; blue says the frame
    features = Reads.face_features(SyncNet(), crops)
    assert features.shape == (21, 3)
    assert features[:, 2].tolist() == [200] * 21
    assert features[:, 0].tolist() == list(range(2, 23))  # the mean of five frames is the middle one
    assert [len(some) for some in given] == [16, 5]


def test_what_counts_as_silence_and_how_sound_is_rounded() -> None:
    assert as_int16(np.float32([1.0, -1.0, 0.5, 1.6 / 32768])).tolist() == [32767, -32768, 16384, 2]
    assert is_silent(np.int16([-10, 3, 10]))
    assert not is_silent(np.int16([-11]))
    assert not is_silent(np.int16([-32768]))


# ------------------------------------------------------------------------------------------------------- as a snapshot


@pytest.mark.parametrize("frames", [-50, -30, -5, 0, 10, 45, 50])
def test_the_class_is_that_of_the_true_offset(reads: Reads, frames: int) -> None:
    logits = reads.predict(*window(frames)).logits
    assert logits.shape == (1, 21)
    assert logits.dtype == torch.float32
    assert int(logits.argmax()) == OffsetGrid().class_of(frames / 25)


@pytest.mark.parametrize("frames", [-37, -3, 1, 23])
def test_the_curve_peaks_at_the_true_offset_to_the_frame(reads: Reads, frames: int) -> None:
    curve = reads.curve(*window(frames))
    assert curve.shape == (1, 101) == (1, len(reads.lags_s))
    assert reads.lags_s[int(curve.argmax())] == pytest.approx(frames / 25)
    assert float(curve.median()) == 0
    # the classes are the curve's softmax, summed
    p = curve[0].softmax(0)
    summed = [float(p[[OffsetGrid().class_of(s) == c for s in reads.lags_s]].sum()) for c in range(21)]
    assert reads.predict(*window(frames)).logits[0].softmax(0).tolist() == pytest.approx(summed, abs=1e-6)


def test_the_curve_is_the_mean_distance_of_the_pairs_that_there_are(reads: Reads) -> None:
    rng = np.random.default_rng(5)
    lips, heard = (torch.from_numpy(rng.normal(size=(1, n, 8))) for n in (121, 120))
    seen = torch.ones(1, 121, dtype=torch.bool)
    seen[0, :9] = False
    evidence, answers = reads._evidence((lips, seen), (heard, torch.tensor([True])))
    means = []
    for offset in range(-50, 51):
        pairs = [(i, i - offset) for i in range(9, 121) if 0 <= i - offset < 120]
        means.append(np.mean([np.linalg.norm(lips[0, i] - heard[0, j] + 1e-6) for i, j in pairs]))
    assert bool(answers)
    assert np.allclose(evidence[0].numpy(), np.median(means) - means, atol=1e-12)


def test_without_a_face_or_sound_all_classes_are_alike() -> None:
    video, audio = window(5)
    blind, sees = Reads(NoFace()).eval(), Reads().eval()
    for network, heard in ((blind, audio), (sees, torch.zeros_like(audio)), (sees, audio[:, :16_000])):
        assert not network.predict(video, heard).logits.any()
        assert not network.curve(video, heard).any()
    assert sees.predict(video, audio).logits.any()


class SomeTime:
    """Sees the face in the pictures whose first pixel says so."""

    def faces(self, picture: np.ndarray) -> list[tuple[float, float, float, float]]:
        return list(OneFace().faces(picture)) if picture[0, 0, 0] else []


@pytest.mark.parametrize(
    ("first", "last", "answers"), [(0, 125, True), (50, 80, True), (60, 125, False), (0, 60, False)]
)
def test_a_face_must_be_seen_in_the_middle_of_the_window(first: int, last: int, answers: bool) -> None:
    """Else some lags have fewer than 20 pairs."""
    assert LEAST_PAIRS == 20
    video, audio = window(-10)
    video[0, :, :, 0, 0] = 0
    video[0, first:last, :, 0, 0] = 1
    logits = Reads(SomeTime()).eval().predict(video, audio).logits
    assert bool(logits.any()) == answers
    assert not answers or int(logits.argmax()) == OffsetGrid().class_of(-0.4)


def test_windows_are_independent_and_the_towers_fuse_to_the_prediction(reads: Reads) -> None:
    pairs = [window(-20), window(15, seed=9)]
    video, audio = (torch.cat(parts) for parts in zip(*pairs, strict=True))
    together = reads.fuse(reads.encode_video(video), reads.encode_audio(audio)).logits
    assert torch.equal(together, torch.cat([reads.predict(*pair).logits for pair in pairs]))


def test_far_distances_give_finite_logits() -> None:
    """Random weights spread features so far that most lags have no probability in float32."""
    network = Reads().eval()
    network._wide = lambda five: torch.nn.functional.pad(1e5 * five, (0, 1019))  # type: ignore[method-assign]
    logits = network.predict(*window(5)).logits
    assert torch.isfinite(logits).all()
    assert int(logits.argmax()) == 11


# -------------------------------------------------------------------------------------------------------- its detector


def test_without_a_detector_it_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AVBENCH_CACHE", str(tmp_path))
    syncnet._yunet.cache_clear()
    with pytest.raises(UsageError, match="does not exist; get it with `avbench weights fetch yunet`") as caught:
        SyncNet().predict(*window(0))
    assert "\n" not in str(caught.value)
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(UsageError, match=r"pip install 'avbench\[annotate\]'"):
        SyncNet().predict(*window(0))


def test_the_fingerprint_names_weights_and_detector(reads: Reads) -> None:
    plain = SyncNet().eval()
    before = model_fingerprint(plain)
    assert model_fingerprint(plain) == before
    plain.detector = NoFace()
    assert model_fingerprint(plain) != before
    plain.detector = None
    plain.netcnnlip[0].bias.data[3] += 1
    assert model_fingerprint(plain) != before


@pytest.mark.skipif(not (realclips.MODELS / "yunet_s_640_640.onnx").is_file(), reason="../shared/models is not here")
def test_a_real_face_is_seen_and_gives_an_answer() -> None:
    shown, heard = realclips.read("talk", "LipNet__lwbsza.mpg")
    network = Reads(YuNet(realclips.MODELS / "yunet_s_640_640.onnx")).eval()
    n = min(len(shown), 75)
    video = torch.from_numpy(np.stack(shown[:n]).transpose(0, 3, 1, 2).copy())[None]
    features, seen = network.encode_video(video)
    assert features.shape == (1, n - 4, 1024)
    assert seen.float().mean() > 0.9
    assert torch.isfinite(network.predict(video, torch.from_numpy(heard[: 640 * n].copy())[None]).logits).all()


def test_the_descriptor_needs_neither_torch_nor_opencv() -> None:
    code = (
        "import sys; from avbench.baselines.families import families; families()['syncnet'];"
        "sys.exit(any(name in sys.modules for name in ('torch', 'cv2')))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
