"""SyncNet (Chung and Zisserman 2016): 0.2 s of a face against 0.2 s of sound, the scorer behind LSE-D and LSE-C.

``SyncNet`` is the published network under the published weight names; ``mfcc``, ``distances`` and ``lse`` are the
published measures of its features. As a snapshot model it finds the face in a window itself and compares its lips with
the sound at every lag of -2 ... 2 s.

The published offset in frames, 15 - argmin, is positive if the fitting sound lies *earlier* in the file than the lips,
that is if the sound is early: avbench's own sign, in frames of 40 ms. (The published code says nothing of it and people
contradict each other; delaying the sound of its example by 6 frames makes its answer 6 smaller.)
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from avbench.baselines import mfcc as front_end
from avbench.data.faces import CROP_SIZE, FaceDetector, YuNet, face_crop, face_tracks, main_face
from avbench.data.pinned import YUNET, in_cache
from avbench.ticks import FRAME_RATE_HZ
from avbench.types import FrontEnd, OffsetGrid, Snapshot, SnapshotPredictor

WINDOW_FRAMES, WINDOW_ROWS, ROWS_PER_FRAME = 5, 20, 4  # a window of lips, of sound; rows of the MFCC to a frame
REACH_FRAMES = 15  # LSE: lags to either side
LAGS_FRAMES = 50  # as a snapshot model: 2 s to either side
LEAST_PAIRS = 20  # of lips and sound at every lag, else a window gives no answer
SILENT_PEAK = 10  # of 32768: sound that stays below is silence
DISTANCE_EPS = 1e-6  # added to every difference, as in PyTorch's pairwise distance
WINDOWS_AT_ONCE = 16  # encoded: 0.25 GB

# ---------------------------------------------------------------------------------------------------------- the network


class WholeConv(nn.Conv3d):
    """A convolution whose kernel spans all frames, computed as one of pictures: (B, C T, H, W) -> (B, C', H', W')."""

    def forward(self, x: Tensor) -> Tensor:
        """See the class; the channels of ``x`` are (C, T), T the kernel's length."""
        return functional.conv2d(x, self.weight.flatten(1, 2), self.bias, self.stride[1:], self.padding[1:])  # type: ignore[arg-type]


Conv = Callable[..., nn.Module]


def _picture_conv(n_in: int, n_out: int, kernel: tuple[int, int, int], stride: int, padding: int) -> nn.Module:
    return WholeConv(n_in, n_out, kernel, (1, stride, stride), (0, padding, padding))


def _step(conv: Conv, channels: tuple[int, int], kernel: tuple[int, ...], stride: int = 1, padding: int = 0) -> Any:
    return conv(*channels, kernel, stride, padding), nn.BatchNorm2d(channels[1]), nn.ReLU(inplace=True)


def _sound_tower() -> nn.Sequential:
    return nn.Sequential(
        *_step(nn.Conv2d, (1, 64), (3, 3), padding=1),
        nn.Identity(),  # the published pooling of 1 x 1
        *_step(nn.Conv2d, (64, 192), (3, 3), padding=1),
        nn.MaxPool2d(3, (1, 2)),
        *_step(nn.Conv2d, (192, 384), (3, 3), padding=1),
        *_step(nn.Conv2d, (384, 256), (3, 3), padding=1),
        *_step(nn.Conv2d, (256, 256), (3, 3), padding=1),
        nn.MaxPool2d(3, 2),
        *_step(nn.Conv2d, (256, 512), (5, 4)),
    )


def _lip_tower() -> nn.Sequential:
    return nn.Sequential(
        *_step(_picture_conv, (3, 96), (WINDOW_FRAMES, 7, 7), stride=2),
        nn.MaxPool2d(3, 2),
        *_step(_picture_conv, (96, 256), (1, 5, 5), stride=2, padding=1),
        nn.MaxPool2d(3, 2, 1),
        *_step(_picture_conv, (256, 256), (1, 3, 3), padding=1),
        *_step(_picture_conv, (256, 256), (1, 3, 3), padding=1),
        *_step(_picture_conv, (256, 256), (1, 3, 3), padding=1),
        nn.MaxPool2d(3, 2),
        *_step(_picture_conv, (256, 512), (1, 6, 6)),
    )


def _last_layers() -> nn.Sequential:
    return nn.Sequential(nn.Linear(512, 512), nn.BatchNorm1d(512), nn.ReLU(inplace=True), nn.Linear(512, 1024))


# --------------------------------------------------------------------------------------------------------- the measures


def mfcc(samples: np.ndarray) -> np.ndarray:
    """(N,) int16 samples of 16 kHz mono sound -> (13, T) float64, a column every 10 ms: SyncNet's view of sound.

    T and the errors are those of :func:`avbench.baselines.mfcc.mfcc`.
    """
    return front_end.mfcc(samples).T


def sound_windows(columns: np.ndarray) -> Tensor:
    """(13, T) of ``mfcc`` -> (n, 1, 13, 20) float64: window i is columns 4 i ... 4 i + 19; n is 0 for T under 20."""
    n = max(0, (columns.shape[1] - WINDOW_ROWS) // ROWS_PER_FRAME + 1)
    if not n:
        return torch.zeros(0, 1, len(columns), WINDOW_ROWS, dtype=torch.float64)
    return (
        torch.from_numpy(np.ascontiguousarray(columns)).unfold(1, WINDOW_ROWS, ROWS_PER_FRAME).transpose(0, 1)[:, None]
    )


def lag_distances(lips: Tensor, sound: Tensor) -> Tensor:
    """(N, D) and (N + 2 R, D), the sound from R windows before the lips on -> (2 R + 1, N): row k has the distances of
    lips i and sound i + k - R."""
    n = len(lips)
    return torch.stack([_distance(lips, sound[k : k + n]) for k in range(len(sound) - n + 1)])


def distances(lips: Any, sound: Any, reach_frames: int = REACH_FRAMES) -> Tensor:
    """d (2 R + 1, N): the distance of lips i and sound i + k - R, R = ``reach_frames``; beyond its ends, the sound's
    features are zero, as published.

    ``lips`` and ``sound`` (N, D), arrays or tensors; float64 is computed in float64, float16 and bfloat16 in float32.
    ``ValueError`` for other shapes, and without windows.
    """
    lips, sound = _features(lips), _features(sound)
    if lips.ndim != 2 or lips.shape != sound.shape or not len(lips):
        raise ValueError(f"lips and sound must both be (N, 1024), N >= 1, not {(*lips.shape,)} and {(*sound.shape,)}")
    return lag_distances(lips, functional.pad(sound, (0, 0, reach_frames, reach_frames)))


def lse_of(means: Tensor) -> tuple[float, float, int]:
    """LSE-D, LSE-C and the published offset in frames (positive: the sound is early) of mean distances (2 R + 1,)."""
    least, at = means.min(0)
    return float(least), float(means.median() - least), len(means) // 2 - int(at)


def lse(lips: Any, sound: Any) -> tuple[float, float, int]:
    """(lse_d, lse_c, offset_frames) of features (N, 1024), arrays or tensors, of lips and of sound window by window.

    LSE-D is the least mean distance over lags of -15 ... 15 frames, LSE-C by how much the median over lags is larger.
    ``offset_frames`` has the published sign: positive, the sound is early by so many frames of 40 ms; negative, late.
    ``ValueError`` as :func:`distances`.
    """
    return lse_of(distances(lips, sound).mean(1))


def _features(values: Any) -> Tensor:
    found = torch.as_tensor(values)
    return found.to(torch.promote_types(found.dtype, torch.float32))


def _distance(a: Tensor, b: Tensor) -> Tensor:
    return (a - b + DISTANCE_EPS).norm(dim=-1)


# ----------------------------------------------------------------------------------------------------------- the model


class SyncNet(nn.Module, SnapshotPredictor):
    """SyncNet. Its state dict has exactly the published keys: 13,631,616 parameters.

    ``encode_lips`` and ``encode_sound`` are the published towers; ``face_features`` and ``sound_features`` run them
    over a stretch. As a snapshot model, ``predict`` is given whole pictures: it follows the faces in a window, takes
    the one that covers most of it (:func:`avbench.data.faces.main_face`), and compares its lips with the sound at all
    lags of -50 ... 50 frames: ``curve``. Its logits are those of a softmax of the negative mean distances, summed into
    classes. **It gives no answer (all classes alike, a flat curve) where no face is seen, where one is seen too briefly
    for 20 pairs of lips and sound at every lag (so at least from 2 s to 3 s of a window of 5 s), and in silence.**

    ``detector``: finds the faces; None for YuNet with the weights in the cache, loaded when first needed. Then a
    ``UsageError`` (one line) if OpenCV or the weights are missing.
    """

    frontend = FrontEnd(size=360, fit="short")  # whole pictures; a face a third as high is then cropped from 336 pixels
    two_tower = True
    description = (
        "SyncNet, published size: the lips of the largest face against the sound, 5 frames at a time; no answer (all "
        "classes alike) where no face is seen"
    )
    lags_s: np.ndarray = np.arange(-LAGS_FRAMES, LAGS_FRAMES + 1) / FRAME_RATE_HZ  # of ``curve``; positive: sound early
    detector: FaceDetector | None = None
    mfcc = staticmethod(mfcc)
    lse = staticmethod(lse)

    def __init__(self, *, n_classes: int = 21) -> None:
        super().__init__()
        self.netcnnaud, self.netfcaud = _sound_tower(), _last_layers()
        self.netfclip, self.netcnnlip = _last_layers(), _lip_tower()
        self.grid = OffsetGrid(n_classes)

    def fingerprint_parts(self) -> dict[str, Any]:
        """What decides the output: the weights, the classes, the detector, and the code that follows and crops."""
        detector = YUNET.sha256 if self.detector is None else type(self.detector)
        return {"weights": dict(self.state_dict()), "grid": self.grid, "faces": (detector, face_tracks)}

    def encode_lips(self, lips: Tensor) -> Tensor:
        """(B, 3, 5, 224, 224) BGR, 0 ... 255, not normalised -> (B, 1024). ``ValueError`` for other shapes."""
        if lips.ndim != 5 or lips.shape[1:] != (3, WINDOW_FRAMES, CROP_SIZE, CROP_SIZE):
            raise ValueError(f"lips must be (B, 3, 5, 224, 224), not {(*lips.shape,)}")
        pictures = lips.flatten(1, 2).to(self.dtype, memory_format=torch.channels_last)  # a fifth faster on a CPU
        return self.netfclip(self.netcnnlip(pictures).flatten(1))

    def encode_sound(self, sound: Tensor) -> Tensor:
        """(B, 1, 13, 20), columns of ``mfcc`` -> (B, 1024). ``ValueError`` for other shapes."""
        if sound.ndim != 4 or sound.shape[1:] != (1, front_end.N_COEFFICIENTS, WINDOW_ROWS):
            raise ValueError(f"sound must be (B, 1, 13, 20), not {(*sound.shape,)}")
        return self.netfcaud(self.netcnnaud(sound.to(self.dtype)).flatten(1))

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights, in which everything is computed."""
        return next(self.parameters()).dtype

    def face_features(self, crops: np.ndarray, device: torch.device | str = "cpu") -> Tensor:
        """(T, 224, 224, 3) uint8 RGB crops of one face -> (T - 4, 1024) on ``device``: of frames i ... i + 4 each."""
        frames = torch.from_numpy(np.ascontiguousarray(crops[..., ::-1])).to(device)  # BGR
        windows = frames.unfold(0, WINDOW_FRAMES, 1).permute(0, 3, 4, 1, 2)  # a view: (T - 4, 3, 5, 224, 224)
        return torch.cat([self.encode_lips(some) for some in windows.split(WINDOWS_AT_ONCE)])

    def sound_features(self, windows: Tensor, device: torch.device | str = "cpu") -> Tensor:
        """(n, 1, 13, 20) of ``sound_windows`` -> (n, 1024) on ``device``."""
        parts = windows.split(4 * WINDOWS_AT_ONCE)
        return torch.cat([self.encode_sound(some.to(device, self.dtype)) for some in parts])

    def face_detector(self) -> FaceDetector:
        """The detector in use. ``UsageError`` as in the class."""
        return self.detector or _yunet()

    # ------------------------------------------------------------------------------------------------- as a snapshot

    def encode_video(self, video: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, 3, H, W) uint8 -> features (B, T - 4, 1024), and whether there is a face, (B, T - 4) bool."""
        n_windows = max(video.shape[1] - WINDOW_FRAMES + 1, 0)
        features = torch.zeros(len(video), n_windows, 1024, device=video.device)
        seen = torch.zeros(len(video), n_windows, dtype=torch.bool, device=video.device)
        for row, pictures in enumerate(video.cpu().numpy().transpose(0, 1, 3, 4, 2)):
            track = main_face(face_tracks(map(np.ascontiguousarray, pictures), self.face_detector()))
            if track is None:
                continue
            shown = pictures[track.first_frame : track.end_frame]
            crops = np.stack([face_crop(p, square) for p, square in zip(shown, track.squares(), strict=True)])
            found = self.face_features(crops, video.device)
            features = features.to(found.dtype)
            inside = slice(track.first_frame, track.first_frame + len(found))
            features[row, inside], seen[row, inside] = found, True
        return features, seen

    def encode_audio(self, audio: Tensor) -> tuple[Tensor, Tensor]:
        """(B, N) float in [-1, 1] -> features (B, n, 1024), and whether there is any sound, (B,) bool."""
        samples = [as_int16(sound) for sound in audio.cpu().float().numpy()]
        # one by one: what is heard in a window must not depend on its batch
        features = [self.sound_features(sound_windows(mfcc(sound)), audio.device) for sound in samples]
        heard = torch.tensor([not is_silent(sound) for sound in samples], device=audio.device)
        return torch.stack(features), heard

    def fuse(self, video_features: tuple[Tensor, Tensor], audio_features: tuple[Tensor, Tensor]) -> Snapshot:
        """What ``encode_video`` and ``encode_audio`` return -> a snapshot with logits (B, 21), without a token."""
        return self._snapshot(*self._evidence(video_features, audio_features))

    def predict(self, video: Tensor, audio: Tensor) -> Snapshot:
        """(B, T, 3, H, W) uint8 and (B, N) float32 samples -> a snapshot with logits (B, 21)."""
        return self.fuse(self.encode_video(video), self.encode_audio(audio))

    def curve(self, video: Tensor, audio: Tensor) -> Tensor:
        """What ``predict`` is given -> (B, 101) float32, the evidence for the offsets ``lags_s``: by how much the mean
        distance is smaller there than the median over lags. All 0 where there is no answer."""
        return self.predict_finely(video, audio)[1]

    def predict_finely(self, video: Tensor, audio: Tensor) -> tuple[Snapshot, Tensor]:
        """What ``predict`` and ``curve`` say, for the price of one."""
        evidence, answers = self._evidence(self.encode_video(video), self.encode_audio(audio))
        return self._snapshot(evidence, answers), evidence.float()

    def _snapshot(self, evidence: Tensor, answers: Tensor) -> Snapshot:
        """The curve (B, 101) summed into classes; all alike for those that say nothing."""
        classes = torch.tensor([self.grid.class_of(float(lag_s)) for lag_s in self.lags_s], device=evidence.device)
        of_class = torch.where(
            classes[:, None] == torch.arange(self.grid.n_classes, device=evidence.device), 0.0, -torch.inf
        )
        logits = (evidence[:, :, None] + of_class).logsumexp(1)
        return Snapshot(torch.where(answers[:, None], logits, 0.0).float())

    def _evidence(self, video: tuple[Tensor, Tensor], audio: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """The curve (B, 101), and whether it says anything (B,).

        Unlike in LSE, lips without sound at a lag are left out of its mean: padded with zeros, two fifths of the pairs
        at 2 s would be no pairs, and features are nearer to zero than to each other.
        """
        (lips, seen), (sound, heard) = video, audio
        lips, sound = _features(lips), _features(sound)
        n_lips, n_sound = lips.shape[1], sound.shape[1]
        means, counts = [], []
        for later in range(LAGS_FRAMES, -LAGS_FRAMES - 1, -1):  # frames by which the sound is later, as in lags_s
            first, last = max(0, -later), max(0, -later, min(n_lips, n_sound - later))
            there = seen[:, first:last]
            apart = _distance(lips[:, first:last], sound[:, first + later : last + later])
            counts.append(there.sum(1))
            means.append((apart * there).sum(1) / counts[-1].clamp(min=1))
        mean = torch.stack(means, 1)
        answers = (torch.stack(counts, 1).amin(1) >= LEAST_PAIRS) & heard
        return torch.where(answers[:, None], mean.median(1, keepdim=True).values - mean, 0.0), answers


@cache
def _yunet() -> FaceDetector:
    return YuNet(in_cache(YUNET))


def as_int16(sound: np.ndarray) -> np.ndarray:
    """(N,) float in [-1, 1] -> (N,) int16, as a 16-bit file has it."""
    return np.clip(np.rint(sound * np.float32(2**15)), -(2**15), 2**15 - 1).astype(np.int16)


def is_silent(samples: np.ndarray) -> bool:
    """Whether (N,) int16 samples never exceed 10 of 32768 (-70 dB)."""
    return int(np.abs(samples.astype(np.int32)).max(initial=0)) <= SILENT_PEAK
