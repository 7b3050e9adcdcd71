"""Who speaks: the LR-ASD network (Liao et al. 2025) and a lip score made of it.

``LRASD`` is the published network, under the published weight names. ``LipSync`` asks it whether a mouth makes a sound:
a mouth that moves over any speech gets high scores, so what counts is by how much the scores fall when the sound is
shifted.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from avbench.baselines.mfcc import N_COEFFICIENTS, mfcc
from avbench.data import pinned
from avbench.data.pinned import read_pinned

__all__ = ["LRASD", "LipScore", "LipSync", "mfcc"]

FACE_PIXELS, ROWS_PER_FRAME = 112, 4  # a face frame lasts 40 ms, a row of coefficients 10 ms
GREY_MEAN, GREY_STD = 0.4161, 0.1688
FACE_REACH_FRAMES = 9  # an embedding of the picture depends on so many frames to either side
SOUND_REACH_FRAMES = 6  # the same of the sound: 24 rows
NORM_EPS = 1e-3
SPEAKING = 1  # the class whose logit is the score


# ---------------------------------------------------------------------------------------------------------- the network


class SpaceConv(nn.Conv3d):
    """Kernel (1, k, k), as a convolution of single frames: with channels last, three times faster on a CPU."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, H, W) -> (B, C', T, H', W')."""
        weight, stride, padding = self.weight[:, :, 0], self.stride[1:], self.padding[1:]
        return _per_frame(lambda frames: functional.conv2d(frames, weight, None, stride, padding), x)


class TimeConv(nn.Conv3d):
    """Kernel (k, 1, 1), as a convolution of one picture of T rows, which has all places of a frame in a row."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, H, W) -> (B, C', T, H, W)."""
        rows = functional.conv2d(x.flatten(3), self.weight[..., 0], padding=(self.kernel_size[0] // 2, 0))
        return rows.unflatten(3, x.shape[3:])


class SpacePool(nn.Module):
    """The largest of 3 x 3 places, at every second place."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, H, W) -> (B, C, T, H / 2, W / 2)."""
        return _per_frame(lambda frames: functional.max_pool2d(frames, 3, 2, 1), x)


def _per_frame(work: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """``work`` on (B T, C, H, W) of (B, C, T, H, W). With channels last, no number is moved for it."""
    return work(x.transpose(1, 2).flatten(0, 1)).unflatten(0, (len(x), -1)).transpose(1, 2)


# the convolutions of a block, by published name: two within a frame ("s": space, "m": coefficients), two along time
Steps = Mapping[str, tuple[Callable[..., nn.Module], tuple[int, ...]]]
FACE_STEPS: Steps = {
    "s_1": (SpaceConv, (1, 5, 5)),
    "s_2": (SpaceConv, (1, 3, 3)),
    "t_1": (TimeConv, (5, 1, 1)),
    "t_2": (TimeConv, (3, 1, 1)),
}
SOUND_STEPS: Steps = {
    "m_1": (nn.Conv2d, (5, 1)),
    "m_2": (nn.Conv2d, (3, 1)),
    "t_1": (nn.Conv2d, (1, 5)),
    "t_2": (nn.Conv2d, (1, 3)),
}


class Block(nn.Module):
    """Four convolutions, each normalised and rectified; all but a stride keeps the sizes."""

    def __init__(self, steps: Steps, norm: Callable[..., nn.Module], n_in: int, n_out: int) -> None:
        super().__init__()
        widths = (n_in, n_out // 2, n_out, n_out, n_out)
        for i, (name, (conv, kernel)) in enumerate(steps.items()):
            stride = (1, 2, 2) if name == "s_1" and n_in == 1 else 1  # the picture itself is halved
            padding = tuple(k // 2 for k in kernel)
            self.add_module(name, conv(widths[i], widths[i + 1], kernel, stride, padding, bias=False))
            self.add_module(name.replace("_", "_norm_"), norm(widths[i + 1], eps=NORM_EPS))

    def forward(self, x: Tensor) -> Tensor:
        """(B, n_in, ...) -> (B, n_out, ...)."""
        layers = list(self.children())
        for conv, norm in zip(layers[::2], layers[1::2], strict=True):
            x = functional.relu(norm(conv(x)), inplace=True)
        return x


WIDTHS = ((1, 32), (32, 64), (64, 128))


class VisualEncoder(nn.Module):
    """(B, T, 112, 112) grey levels -> (B, T, 128)."""

    def __init__(self) -> None:
        super().__init__()
        self.block1, self.block2, self.block3 = (Block(FACE_STEPS, nn.BatchNorm3d, *widths) for widths in WIDTHS)
        self.pool1, self.pool2 = SpacePool(), SpacePool()

    def forward(self, faces: Tensor) -> Tensor:
        """Grey levels 0-255."""
        x = ((faces / 255 - GREY_MEAN) / GREY_STD)[:, None].contiguous(memory_format=torch.channels_last_3d)
        x = self.block3(self.pool2(self.block2(self.pool1(self.block1(x)))))
        return x.amax(dim=(3, 4)).transpose(1, 2)


class AudioEncoder(nn.Module):
    """(B, 4T, 13) coefficients -> (B, T, 128)."""

    def __init__(self) -> None:
        super().__init__()
        self.block1, self.block2, self.block3 = (Block(SOUND_STEPS, nn.BatchNorm2d, *widths) for widths in WIDTHS)
        self.pool1, self.pool2 = (nn.MaxPool2d((1, 3), (1, 2), (0, 1)) for _ in range(2))

    def forward(self, rows: Tensor) -> Tensor:
        """Not normalised."""
        x = rows.transpose(1, 2)[:, None]
        x = self.block3(self.pool2(self.block2(self.pool1(self.block1(x)))))
        return x.mean(dim=2).transpose(1, 2)


class Gate(nn.Module):
    """(B, T, C) -> (B, T, C): every channel weighed by all channels of its frame."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.attention = nn.Conv1d(n, n, 1, bias=False)
        self.bn = nn.BatchNorm1d(n, eps=NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        """The input times its weights."""
        return x * torch.sigmoid(self.bn(self.attention(x.transpose(1, 2)))).transpose(1, 2)


class Detector(nn.Module):
    """(B, T, 256) -> (B, T, 128): forwards and backwards through time."""

    def __init__(self) -> None:
        super().__init__()
        self.gru_forward, self.gru_backward = (nn.GRU(256, 64, batch_first=True) for _ in range(2))
        self.attention = Gate(128)

    def forward(self, x: Tensor) -> Tensor:
        """The two directions side by side, weighed."""
        forward, _ = self.gru_forward(x)
        backward, _ = self.gru_backward(x.flip(1))
        return self.attention(torch.cat([forward, backward.flip(1)], dim=2))


class _Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.visualEncoder, self.audioEncoder = VisualEncoder(), AudioEncoder()
        self.fusion, self.detector = Gate(256), Detector()


class _Head(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.FC = nn.Linear(128, 2)


class LRASD(nn.Module):
    """The published network, for scoring only: in evaluation mode, without gradients and without training's dropout.

    Its state dict has exactly the published keys (``lossV`` scores the picture alone; it was only trained along).
    Faces are (B, T, 112, 112) grey levels 0-255 at 25 fps, uint8 or float; sound is (B, 4T, 13) from ``mfcc``, whose
    rows 4t ... 4t + 3 belong to frame t. Results have the weights' dtype. ``ValueError`` for other shapes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.model = _Network()
        self.lossAV, self.lossV = _Head(), _Head()
        self.eval().requires_grad_(False)

    @classmethod
    def load(cls, path: Path) -> LRASD:
        """The network with the published weights, float32. ``UsageError`` if the file is any other: it is compared by
        sha256 before it is opened."""
        network = cls()
        network.load_state_dict(
            torch.load(io.BytesIO(read_pinned(path, pinned.LRASD)), map_location="cpu", weights_only=True)
        )
        return network

    def scores(self, faces: Tensor, mfcc: Tensor) -> Tensor:
        """(B, T, 112, 112), (B, 4T, 13) -> (B, T): the logit of "speaking aloud" per frame.

        The network looks at the whole stretch at once, so a score depends on all T frames.
        """
        both = faces.ndim == 4 and mfcc.ndim == 3  # else refused below
        if both and (len(faces) != len(mfcc) or ROWS_PER_FRAME * faces.shape[1] != mfcc.shape[1]):
            raise ValueError(
                f"faces {tuple(faces.shape)} and mfcc {tuple(mfcc.shape)} differ: (B, T, 112, 112) needs (B, 4T, 13)"
            )
        return self.fuse(self.encode_sound(mfcc), self.encode_faces(faces))

    def encode_faces(self, faces: Tensor) -> Tensor:
        """(B, T, 112, 112) -> (B, T, 128); frame t depends on frames t - 9 ... t + 9."""
        if faces.ndim != 4 or faces.shape[2:] != (FACE_PIXELS, FACE_PIXELS) or 0 in faces.shape:
            raise ValueError(f"faces must be (B, T, 112, 112) grey levels, not {tuple(faces.shape)}")
        return self.model.visualEncoder(faces.to(self.lossAV.FC.weight))

    def encode_sound(self, mfcc: Tensor) -> Tensor:
        """(B, 4T, 13) -> (B, T, 128); frame t depends on frames t - 6 ... t + 6."""
        if mfcc.ndim != 3 or mfcc.shape[2] != N_COEFFICIENTS or mfcc.shape[1] % ROWS_PER_FRAME or 0 in mfcc.shape:
            raise ValueError(f"mfcc must be (B, 4T, 13), four rows to a frame, not {tuple(mfcc.shape)}")
        return self.model.audioEncoder(mfcc.to(self.lossAV.FC.weight))

    def fuse(self, sound: Tensor, faces: Tensor) -> Tensor:
        """Embeddings (B, T, 128) of sound and faces -> (B, T) scores. Either may have B = 1 for all of the other."""
        if not sound.ndim == faces.ndim == 3 or sound.shape[1:] != faces.shape[1:] or sound.shape[2] != 128:
            raise ValueError(f"both embeddings must be (B, T, 128), not {tuple(sound.shape)} and {tuple(faces.shape)}")
        batch = max(len(sound), len(faces))
        both = torch.cat([sound.expand(batch, -1, -1), faces.expand(batch, -1, -1)], dim=2)
        return self.lossAV.FC(self.model.detector(self.model.fusion(both)))[..., SPEAKING]


# -------------------------------------------------------------------------------------------------------- the lip score

LAGS_FRAMES = np.arange(-25, 26)
NEAR = np.abs(LAGS_FRAMES) <= 4  # the sound fits here, if the mouth makes it: 0.16 s early or late
FAR = np.isin(np.abs(LAGS_FRAMES), (13, 16, 19, 22, 25))  # and does not fit here, whoever makes it
MIN_TRACK_FRAMES = 25
MIN_SOUND_FRAMES = 25 + 13  # in a shorter clip, sound shifted by 25 frames comes round to within 13 frames of its place
_PIECE_FRAMES = 64  # encoded at once: 0.2 GB
_FUSED_FRAMES = 15_000  # fused at once, over as many lags as make them: 0.2 GB


@dataclass(frozen=True, slots=True, eq=False)
class LipScore:
    """Whether a mouth makes a sound, over one face track.

    ``raw``: mean logit of "speaking aloud" with the sound in its place. ``excess``: best mean logit within 4 frames of
    its place, less the median over lags of 13 to 25 frames; low for a mouth that moves to another sound. ``curve`` (L,)
    float64: the mean logit at every lag of ``lags`` (L,), in frames; a positive lag is sound from later in the file, so
    a peak at -3 says that the sound comes 3 frames before the lips. ``seen`` (T,) float32: the logit of every frame by
    the picture alone, above 0 where the mouth seems to speak. ``reason`` says why there is no score; ``raw`` and
    ``excess`` are then None, the arrays empty.
    """

    raw: float | None
    excess: float | None
    lags: np.ndarray
    curve: np.ndarray
    seen: np.ndarray
    reason: str = ""


class LipSync:
    """The annotator of lips: LR-ASD's scores of a face track over lags of the sound. On the CPU, deterministic."""

    def __init__(self, path: Path) -> None:
        """``path``: the published weight file; ``UsageError`` if it is another."""
        self.network = LRASD.load(path)

    def features(self, audio: np.ndarray) -> np.ndarray:
        """What ``score`` wants to have of a clip's sound: (N,) float at 16 kHz in -1 ... 1 -> (M, 13) float64."""
        return mfcc(audio * np.float32(2**15))

    @torch.inference_mode()
    def score(self, faces: np.ndarray, mfcc: np.ndarray, first_frame: int) -> LipScore:
        """How well a track's mouth and the clip's sound fit.

        ``faces`` (T, 112, 112) uint8 grey at 25 fps, from frame ``first_frame`` of the clip; ``mfcc`` (M, 13) of the
        whole clip's sound, 100 rows a second. Frames of the track after the sound's end are left out; shifted sound
        that would lie outside the clip is taken from its other end. No score, with the reason, for a track under
        25 frames or a clip with less than 38 frames of sound; under 3 s it tells little (of 14 real talking faces, cuts
        of 1 s had the excess of dubbed ones). ``ValueError`` for wrong shapes and values.
        """
        if faces.ndim != 3 or faces.shape[1:] != (FACE_PIXELS, FACE_PIXELS) or faces.dtype != np.uint8:
            raise ValueError(f"faces must be (T, 112, 112) uint8, not {faces.shape} {faces.dtype}")
        if mfcc.ndim != 2 or mfcc.shape[1] != N_COEFFICIENTS or not np.isfinite(mfcc).all():
            raise ValueError(f"mfcc must be (M, 13) finite numbers, not {mfcc.shape} {mfcc.dtype}")
        if first_frame < 0:
            raise ValueError(f"a track cannot begin at frame {first_frame}")
        n_sound = len(mfcc) // ROWS_PER_FRAME
        n = min(len(faces), n_sound - first_frame)
        if n_sound < MIN_SOUND_FRAMES:
            return _no_score(f"the clip has {n_sound} frames of sound, a lag curve needs {MIN_SOUND_FRAMES}")
        if n < MIN_TRACK_FRAMES:
            return _no_score(
                f"the face is seen with sound for {max(n, 0)} frames, a lag curve needs {MIN_TRACK_FRAMES}"
            )
        pictures = _in_pieces(self.network.encode_faces, torch.tensor(faces[:n]), FACE_REACH_FRAMES)
        at = np.arange(first_frame + LAGS_FRAMES[0], first_frame + LAGS_FRAMES[-1] + n) % n_sound
        rows = np.float32(mfcc[: n_sound * ROWS_PER_FRAME]).reshape(n_sound, ROWS_PER_FRAME, -1)[at]
        curve = self._curve(pictures, torch.tensor(rows))
        raw, excess = float(curve[LAGS_FRAMES == 0][0]), float(curve[NEAR].max() - np.median(curve[FAR]))
        seen = self.network.lossV.FC(pictures)[:, SPEAKING].numpy()
        return LipScore(raw, excess, LAGS_FRAMES.copy(), curve, seen)

    def _curve(self, pictures: Tensor, rows: Tensor) -> np.ndarray:
        """(T, 128) embedded frames, (T + L - 1, 4, 13) rows of sound from the first lag on -> (L,) mean scores.

        The sound of every lag is a stretch of its own, with zeros around it. Yet it differs from a stretch of the
        whole only at its ends, as far as the encoder reaches: so the whole is encoded once, and the ends for each lag.
        """
        n, reach = len(pictures), SOUND_REACH_FRAMES

        def encode(frames: Tensor) -> Tensor:
            return self.network.encode_sound(frames.flatten(1, 2))

        inner = _in_pieces(encode, rows, reach)
        windows = rows.unfold(0, n, 1).movedim(-1, 1)  # (L, T, 4, 13), a view
        head, tail = encode(windows[:, : 2 * reach])[:, :reach], encode(windows[:, -2 * reach :])[:, -reach:]
        at_once, curve = max(1, _FUSED_FRAMES // n), []
        for lag in range(0, len(windows), at_once):
            lags = slice(lag, lag + at_once)
            middle = inner.unfold(0, n, 1)[lags].movedim(-1, 1)[:, reach:-reach]
            sound = torch.cat([head[lags], middle, tail[lags]], dim=1)
            curve.append(self.network.fuse(sound, pictures[None]).double().mean(dim=1))
        return torch.cat(curve).numpy()


def _no_score(reason: str) -> LipScore:
    return LipScore(None, None, LAGS_FRAMES[:0], np.zeros(0), np.zeros(0, np.float32), reason)


def _in_pieces(encode: Callable[[Tensor], Tensor], frames: Tensor, reach: int) -> Tensor:
    """``encode(frames[None])[0]`` in bounded memory: (T, ...) -> (T, 128), for an encoder whose result at a frame
    depends on ``reach`` frames to either side."""
    pieces = []
    for start in range(0, len(frames), _PIECE_FRAMES):
        first = max(start - reach, 0)
        piece = encode(frames[None, first : start + _PIECE_FRAMES + reach])[0]
        pieces.append(piece[start - first : start - first + _PIECE_FRAMES])
    return torch.cat(pieces)
