"""LR-ASD against its description in plain operations, the lip score against its definition; weights from a seed."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from avbench.baselines import lrasd
from avbench.baselines.lrasd import FAR, LAGS_FRAMES, LRASD, MIN_SOUND_FRAMES, MIN_TRACK_FRAMES, NEAR, LipScore, LipSync
from avbench.data import pinned
from avbench.types import AvbenchError
from avbench.weights.checkpoints import drawn_weights


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def drawn(dtype: torch.dtype = torch.float32) -> LRASD:
    network = LRASD()
    network.load_state_dict(drawn_weights(network.state_dict(), 3))
    return network.to(dtype)


def track(n: int, seed: int = 0) -> np.ndarray:
    """(n, 112, 112) uint8: a texture that changes from frame to frame."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 200, (n, 8, 8), dtype=np.uint8).repeat(14, axis=1).repeat(14, axis=2)
    return coarse + rng.integers(0, 55, coarse.shape, dtype=np.uint8)


def rows(n: int, seed: int = 0) -> np.ndarray:
    """(4 n, 13) float32 coefficients of n frames."""
    made = 8 * np.random.default_rng(seed).standard_normal((4 * n, 13))
    made[:, 0] += 12
    return made.astype(np.float32)


# ------------------------------------------------------------------------------------- the network, by its description


class Plain:
    """The network as described, from its state dict, in plain operations; ``wrong`` names one mistake to make."""

    def __init__(self, state: dict[str, Tensor], wrong: str = "") -> None:
        self.state, self.wrong = state, wrong

    def norm(self, x: Tensor, key: str) -> Tensor:
        w, b, mean, var = (
            self.state[f"{key}.{part}"].reshape(-1, *[1] * (x.ndim - 2))
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        return (x - mean) / torch.sqrt(var + (1e-5 if self.wrong == "eps 1e-5" else 1e-3)) * w + b

    def encoder(self, x: Tensor, key: str, first: str, conv: Callable[..., Tensor]) -> Tensor:
        for block in (1, 2, 3):
            for step in (f"{first}_1", f"{first}_2", "t_1", "t_2"):
                weight = self.state[f"{key}.block{block}.{step}.weight"]
                stride = (1, 2, 2) if (block, step) == (1, "s_1") else 1
                x = conv(x, weight, None, stride, tuple(k // 2 for k in weight.shape[2:]))
                x = self.norm(x, f"{key}.block{block}.{step[0]}_norm_{step[2]}").clamp(min=0)
            if block < 3 and first == "s":
                x = functional.max_pool3d(x, (1, 3, 3), (1, 2, 2), (0, 1, 1))
            elif block < 3:
                x = functional.max_pool2d(x, (1, 3), (1, 2), (0, 1))
        return x

    def gate(self, x: Tensor, key: str) -> Tensor:  # (B, T, C)
        weight = self.state[f"{key}.attention.weight"][:, :, 0]
        return x * torch.sigmoid(self.norm((x @ weight.T).transpose(1, 2), f"{key}.bn")).transpose(1, 2)

    def gru(self, x: Tensor, key: str) -> Tensor:
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        w_in, w_state, b_in, b_state = (self.state[f"{key}.{name}_l0"] for name in names)
        h, states = x.new_zeros(len(x), 64), []
        for t in range(x.shape[1]):
            of_in, of_state = (x[:, t] @ w_in.T + b_in).chunk(3, 1), (h @ w_state.T + b_state).chunk(3, 1)
            reset, update = (torch.sigmoid(a + b) for a, b in zip(of_in[:2], of_state[:2], strict=True))
            h = (1 - update) * torch.tanh(of_in[2] + reset * of_state[2]) + update * h
            states.append(h)
        return torch.stack(states, 1)

    def scores(self, faces: Tensor, mfcc: Tensor) -> Tensor:
        grey = faces / 255 if self.wrong == "only / 255" else (faces / 255 - 0.4161) / 0.1688
        picture = self.encoder(grey[:, None], "model.visualEncoder", "s", functional.conv3d)
        picture = picture.flatten(3).max(3).values.transpose(1, 2)
        mfcc = mfcc.roll(1, 1) if self.wrong == "a row late" else mfcc
        sound = self.encoder(mfcc.transpose(1, 2)[:, None], "model.audioEncoder", "m", functional.conv2d)
        both = [sound.mean(2).transpose(1, 2), picture]
        x = self.gate(torch.cat(both[::-1] if self.wrong == "video first" else both, 2), "model.fusion")
        back = self.gru(x.flip(1), "model.detector.gru_backward")
        back = back if self.wrong == "not turned back" else back.flip(1)
        x = torch.cat([self.gru(x, "model.detector.gru_forward"), back], 2)
        x = self.gate(x, "model.detector.attention")
        logits = x @ self.state["lossAV.FC.weight"].T + self.state["lossAV.FC.bias"]
        if self.wrong == "difference":
            return logits[..., 1] - logits[..., 0]
        return logits.softmax(2)[..., 1] if self.wrong == "probability" else logits[..., 1]


@pytest.fixture(scope="module")
def case() -> tuple[LRASD, Tensor, Tensor, Tensor]:
    """A float64 network, two tracks of 9 frames, their rows, their scores."""
    network = drawn(torch.float64)
    faces = torch.from_numpy(np.stack([track(9, seed) for seed in (1, 2)]))
    sound = torch.from_numpy(np.stack([rows(9, seed) for seed in (1, 2)])).double()
    return network, faces, sound, network.scores(faces, sound)


def test_equals_the_description(case: Any) -> None:
    network, faces, sound, scores = case
    assert scores.shape == (2, 9)
    assert scores.dtype == torch.float64
    assert (scores - Plain(network.state_dict()).scores(faces.double(), sound)).abs().max() < 1e-10


@pytest.mark.parametrize(
    "wrong",
    ["video first", "only / 255", "not turned back", "a row late", "eps 1e-5", "difference", "probability"],
)
def test_a_mistake_would_be_seen(wrong: str, case: Any) -> None:
    network, faces, sound, scores = case
    assert (scores - Plain(network.state_dict(), wrong).scores(faces.double(), sound)).abs().max() > 1e-4


def test_a_frame_is_scored_from_the_whole_stretch(case: Any) -> None:
    network, faces, sound, scores = case
    assert (network.scores(faces[:, :5], sound[:, :20]) - scores[:, :5]).abs().max() > 1e-4


def test_grey_levels_may_be_floats(case: Any) -> None:
    network, faces, sound, scores = case
    assert torch.equal(network.scores(faces.float(), sound), scores)
    single = LRASD()
    single.load_state_dict(network.state_dict())
    assert single.scores(faces, sound).dtype == torch.float32
    assert (single.scores(faces, sound) - scores).abs().max() < 1e-4


def test_a_new_network_only_scores() -> None:
    network = LRASD()
    assert not network.training
    assert not any(p.requires_grad for p in network.parameters())
    assert sum(p.numel() for p in network.parameters()) == 837_156


@pytest.mark.parametrize(
    ("faces", "sound"),
    [
        ((1, 2, 112, 112), (1, 7, 13)),
        ((1, 2, 112, 112), (1, 12, 13)),
        ((1, 2, 112, 112), (2, 8, 13)),
        ((1, 2, 112, 112), (1, 8, 12)),
        ((1, 2, 112, 112), (8, 13)),
        ((1, 2, 224, 224), (1, 8, 13)),
        ((1, 2, 112, 112, 1), (1, 8, 13)),
        ((2, 112, 112), (1, 8, 13)),
        ((1, 0, 112, 112), (1, 0, 13)),
        ((0, 2, 112, 112), (0, 8, 13)),
        ((), ()),
    ],
)
def test_wrong_shapes_are_refused_in_one_line(faces: tuple[int, ...], sound: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"must be|differ") as refused:
        LRASD().scores(torch.zeros(faces), torch.zeros(sound))
    assert "\n" not in str(refused.value)


def test_wrong_embeddings_are_refused_in_one_line() -> None:
    with pytest.raises(ValueError, match=r"must be \(B, T, 128\)"):
        LRASD().fuse(torch.zeros(1, 3, 128), torch.zeros(1, 4, 128))


# ------------------------------------------------------------------------------------------------------ the weight file


class _Evil:
    def __reduce__(self) -> Any:
        raise_ = "raise RuntimeError('executed')"
        return exec, (raise_,)


def test_any_other_file_is_refused_unopened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "load", lambda *a, **k: pytest.fail("opened"))
    path, saved = tmp_path / "lrasd_pretrain_AVA.model", io.BytesIO()
    torch.save(LRASD().state_dict(), saved)
    for content in (b"", pickle.dumps(_Evil()), saved.getvalue(), bytes(pinned.LRASD.n_bytes)):
        path.write_bytes(content)
        with pytest.raises(AvbenchError, match=r"sha256.*avbench weights fetch lrasd") as refused:
            LipSync(path)
        assert "\n" not in str(refused.value)


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "weights.model"
    with path.open("wb") as file:
        file.truncate(2**40)  # a hole: it takes no space
    with pytest.raises(AvbenchError, match="sha256"):
        LRASD.load(path)


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.model", tmp_path):
        with pytest.raises(AvbenchError, match=r"(does not exist|is a folder).*avbench weights fetch lrasd"):
            LipSync(path)


# -------------------------------------------------------------------------------------------------------- the lip score


def changed(encode: Callable[[Tensor], Tensor], x: Tensor, n_per_frame: int) -> list[int]:
    """Which frames' embeddings depend on frame 10 of 21."""
    other = x.clone()
    other[:, 10 * n_per_frame : 11 * n_per_frame] += 40
    return torch.nonzero((encode(x) - encode(other)).abs().amax(dim=(0, 2)) > 1e-12).flatten().tolist()


def test_how_far_the_encoders_reach() -> None:
    network = drawn(torch.float64)
    faces, sound = torch.from_numpy(track(21)).double()[None], torch.from_numpy(rows(21))[None].double()
    seen = changed(network.encode_faces, faces, 1)
    assert (seen[0], seen[-1]) == (10 - lrasd.FACE_REACH_FRAMES, 10 + lrasd.FACE_REACH_FRAMES)
    seen = changed(network.encode_sound, sound, 4)
    assert (seen[0], seen[-1]) == (10 - lrasd.SOUND_REACH_FRAMES, 10 + lrasd.SOUND_REACH_FRAMES)


@pytest.fixture
def lips(monkeypatch: pytest.MonkeyPatch) -> Callable[..., LipSync]:
    """``lips(dtype)``: the annotator with weights drawn from a seed."""

    def make(dtype: torch.dtype = torch.float32) -> LipSync:
        monkeypatch.setattr(LRASD, "load", lambda path: drawn(dtype))
        return LipSync(Path("unused"))

    return make


def by_definition(network: LRASD, faces: np.ndarray, mfcc: np.ndarray, first: int) -> np.ndarray:
    """Every lag on its own: cut the rows, encode the whole stretch, average the scores."""
    n_sound = len(mfcc) // 4
    cuts = []
    for lag in LAGS_FRAMES:
        frames = [(first + t + lag) % n_sound for t in range(len(faces))]
        cuts.append(np.concatenate([mfcc[4 * f : 4 * f + 4] for f in frames]))
    sound = network.encode_sound(torch.from_numpy(np.stack(cuts)))
    return network.fuse(sound, network.encode_faces(torch.from_numpy(faces)[None])).mean(dim=1).numpy()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dtype", "tolerance", "n", "first", "n_sound", "piece"),
    [
        (torch.float32, 1e-5, 80, 20, 110, 64),
        # the shortest, in several pieces; every shift comes round
        (torch.float64, 1e-10, MIN_TRACK_FRAMES, 13, MIN_SOUND_FRAMES, 9),
    ],
)
def test_pieces_give_the_curve_of_the_definition(
    dtype: torch.dtype, tolerance: float, n: int, first: int, n_sound: int, piece: int, lips: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(lrasd, "_PIECE_FRAMES", piece)
    monkeypatch.setattr(lrasd, "_FUSED_FRAMES", 7 * n)  # seven lags at once, two in the end
    annotator, faces, mfcc = lips(dtype), track(n), rows(n_sound)
    expected = by_definition(annotator.network, faces, mfcc, first)
    # three rows of a frame that is not whole do not count
    found = annotator.score(faces, np.concatenate([mfcc, rows(1)[:3]]), first)
    assert np.abs(found.curve - expected).max() < tolerance
    assert np.ptp(expected) > 100 * tolerance
    assert np.array_equal(found.lags, np.arange(-25, 26))
    assert found.raw == found.curve[25]
    near = [found.curve[25 + k] for k in range(-4, 5)]
    far = [found.curve[25 + sign * k] for k in (13, 16, 19, 22, 25) for sign in (-1, 1)]
    assert found.excess == pytest.approx(max(near) - np.median(far), abs=1e-12)


def test_the_lags_that_count() -> None:
    assert LAGS_FRAMES[NEAR].tolist() == list(range(-4, 5))
    assert LAGS_FRAMES[FAR].tolist() == [-25, -22, -19, -16, -13, 13, 16, 19, 22, 25]


def test_memory_does_not_grow_with_the_track(lips: Any, monkeypatch: Any) -> None:
    annotator, faces_seen, sound_seen, fused = lips(), [], [], []
    network = annotator.network

    def note(name: str, sizes: list[int], size: Callable[..., int]) -> None:
        real = getattr(network, name)
        monkeypatch.setattr(network, name, lambda *given: (sizes.append(size(*given)), real(*given))[1])

    monkeypatch.setattr(lrasd, "_PIECE_FRAMES", 10)
    monkeypatch.setattr(lrasd, "_FUSED_FRAMES", 250)
    note("encode_faces", faces_seen, lambda x: x.shape[0] * x.shape[1])
    note("encode_sound", sound_seen, lambda x: x.shape[0] * x.shape[1] // 4)
    note("fuse", fused, lambda sound, faces: sound.shape[0] * sound.shape[1])
    annotator.score(track(50), rows(80), 0)
    assert max(faces_seen) == 10 + 2 * 9
    assert max(sound_seen) == 51 * 12  # the ends, whatever the track's length is
    assert max(fused) == 250
    assert sum(fused) == 51 * 50


def test_features_are_the_mfcc_in_the_16_bit_scale(lips: Any) -> None:
    samples = np.random.default_rng(0).integers(-9000, 9000, 5000).astype(np.int16)
    assert np.array_equal(lips().features(samples.astype(np.float32) / 32768), lrasd.mfcc(samples))
    without_sound = lips().features(np.zeros(0, np.float32))
    assert lips().score(track(30), without_sound, 0).reason.startswith("the clip has 0 frames of sound")


def test_frames_after_the_sounds_end_are_left_out(lips: Any) -> None:
    annotator, faces, mfcc = lips(), track(50), rows(60)
    whole, cut = annotator.score(faces, mfcc, 20), annotator.score(faces[:40], mfcc, 20)
    assert np.array_equal(whole.curve, cut.curve)


def test_the_same_track_gets_the_same_bits(lips: Any) -> None:
    faces, mfcc = track(30), rows(60)
    faces.flags.writeable = mfcc.flags.writeable = False
    one, two = (lips().score(faces, mfcc, 5) for _ in range(2))
    assert np.array_equal(one.curve, two.curve)
    assert (one.raw, one.excess) == (two.raw, two.excess)


@pytest.mark.parametrize(
    ("n", "first", "n_sound", "reason"),
    [
        (MIN_TRACK_FRAMES - 1, 0, 100, "24 frames"),
        (0, 0, 100, "0 frames"),
        (100, 80, 100, "20 frames"),  # the sound ends
        (100, 200, 100, "0 frames"),  # it has ended before
        (MIN_TRACK_FRAMES, 0, MIN_SOUND_FRAMES - 1, "37 frames of sound"),
        (MIN_TRACK_FRAMES, 0, 0, "0 frames of sound"),
    ],
)
def test_no_score_without_enough_to_compare(n: int, first: int, n_sound: int, reason: str, lips: Any) -> None:
    found: LipScore = lips().score(track(n), rows(n_sound), first)
    assert (found.raw, found.excess) == (None, None)
    assert len(found.lags) == len(found.curve) == 0
    assert reason in found.reason


@pytest.mark.parametrize(
    ("faces", "mfcc", "first"),
    [
        (track(30).astype(np.float32), rows(60), 0),
        (track(30)[:, :96], rows(60), 0),
        (track(30)[..., None], rows(60), 0),
        (track(30), rows(60).T, 0),
        (track(30), np.full((240, 13), np.nan, np.float32), 0),
        (track(30), rows(60), -1),
    ],
)
def test_wrong_tracks_are_refused_in_one_line(faces: np.ndarray, mfcc: np.ndarray, first: int, lips: Any) -> None:
    with pytest.raises(ValueError, match=r"must be|cannot begin") as refused:
        lips().score(faces, mfcc, first)
    assert "\n" not in str(refused.value)
