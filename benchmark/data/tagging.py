"""Tag sound with the 527 AudioSet classes: EfficientAT mn04 (Schmid et al., "Efficient Large-Scale Audio Tagging via
Transformer-To-CNN Knowledge Distillation", 2023) with its published weights; 43.2 mAP on AudioSet.

The paper tags events with BEATs; its checkpoint is BEATs_iter3+ fine-tuned on AS2M (AudioSet's 527 classes, too). BEATs
is not part of avbench, but it fits in as a plug-in: a class with ``events(audio)`` (``EventTagger`` in ``annotate.py``)
in a file of your own, named as ``--events path/to/file.py:Class``.

Measured on the 27 event clips of real sound at hand: what a person hears first is among the three most probable classes
of 26. Tagging takes about 3 ms of one CPU core a second of sound; batches of chunks gain a tenth, so there are none.

The class names are AudioSet's (CC BY 4.0): name AudioSet wherever they are shown.

This module imports torch; the other modules of this room import it only when a tagger is asked for.
"""

from __future__ import annotations

import csv
import io
import math
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from scipy.signal import resample_poly
from torch import Tensor, nn

from avbench.data.pinned import AUDIOSET_CLASSES, EFFICIENTAT, read_pinned
from avbench.ticks import SAMPLE_RATE_HZ

RATE_HZ = 32_000
MIN_SAMPLES = 514  # the reflection at both ends needs more than half an FFT of sound
N_CLASSES = 527

FFT, HOP, WINDOW = 1024, 320, 800  # samples at 32 kHz
MEL_BANDS, MEL_TOP_HZ = 128, 15_000.0
PRE_EMPHASIS = 0.97


# ---------------------------------------------------------------------------------------------------------- front end


@lru_cache(maxsize=1)
def _mel_filters() -> np.ndarray:
    """(128, 513) float64 triangles, straight in mel = 1127 ln(1 + f / 700), from 0 to 15 kHz; the last bin counts 0."""
    bins_mel = 1127 * np.log1p(np.arange(FFT // 2 + 1) * (RATE_HZ / FFT) / 700)
    step = 1127 * math.log1p(MEL_TOP_HZ / 700) / (MEL_BANDS + 1)
    left = step * np.arange(MEL_BANDS)[:, None]
    weights = np.minimum(bins_mel - left, left + 2 * step - bins_mel) / step
    weights[:, -1] = 0
    return np.maximum(weights, 0)


def mel_input(wave: Tensor) -> Tensor:
    """What the network sees: (B, N) sound at 32 kHz in -1 ... 1 -> (B, 1, 128, 1 + (N - 1) // 320), in its dtype.

    Decoded AAC may overshoot 1 and is not clipped.
    """
    emphasised = wave[:, 1:] - PRE_EMPHASIS * wave[:, :-1]
    window = torch.from_numpy(np.hanning(WINDOW)).to(wave)  # symmetric
    spectrum = torch.stft(emphasised, FFT, HOP, WINDOW, window, center=True, pad_mode="reflect", return_complex=True)
    power = spectrum.real**2 + spectrum.imag**2
    mel = torch.from_numpy(_mel_filters()).to(wave) @ power
    return ((torch.log(mel + 1e-5) + 4.5) / 5)[:, None]


# ------------------------------------------------------------------------------------------------------------ network

# MobileNetV3-Large scaled by 0.4. One row per inverted residual block, features.1 ... features.15:
# kernel, expanded channels, channels out, units of the squeeze-excitation (0: none), activation, stride
_BLOCKS: tuple[tuple[int, int, int, int, type[nn.Module], int], ...] = (
    (3, 8, 8, 0, nn.ReLU, 1),
    (3, 24, 16, 0, nn.ReLU, 2),
    (3, 32, 16, 0, nn.ReLU, 1),
    (5, 32, 16, 8, nn.ReLU, 2),
    (5, 48, 16, 16, nn.ReLU, 1),
    (5, 48, 16, 16, nn.ReLU, 1),
    (3, 96, 32, 0, nn.Hardswish, 2),
    (3, 80, 32, 0, nn.Hardswish, 1),
    (3, 72, 32, 0, nn.Hardswish, 1),
    (3, 72, 32, 0, nn.Hardswish, 1),
    (3, 192, 48, 48, nn.Hardswish, 1),
    (3, 272, 48, 72, nn.Hardswish, 1),
    (5, 272, 64, 72, nn.Hardswish, 2),
    (5, 384, 64, 96, nn.Hardswish, 1),
    (5, 384, 64, 96, nn.Hardswish, 1),
)
_STEM, _EMBEDDING, _HIDDEN = 8, 384, 512  # channels out of features.0, out of features.16, units before the classes


def _convolution(c_in: int, c_out: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    padding = kernel // 2
    return [
        nn.Conv2d(c_in, c_out, kernel, stride, padding, groups=groups, bias=False),
        nn.BatchNorm2d(c_out, eps=1e-3),
    ]


class _Squeeze(nn.Module):
    """One branch of squeeze-excitation over the channels: a gain for each, from all its places."""

    def __init__(self, channels: int, units: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(channels, units), nn.Linear(units, channels)

    def forward(self, x: Tensor) -> Tensor:
        gain = torch.sigmoid(self.fc2(torch.relu(self.fc1(x.mean(dim=(2, 3))))))
        return x * gain[:, :, None, None]


class _Excitation(nn.Module):
    """The published class may hold several branches; mn04 has this one, which its keys number 0."""

    def __init__(self, channels: int, units: int) -> None:
        super().__init__()
        self.conc_se_layers = nn.ModuleList([_Squeeze(channels, units)])

    def forward(self, x: Tensor) -> Tensor:
        return self.conc_se_layers[0](x)


class _Block(nn.Module):
    """Inverted residual: expand, depthwise, perhaps squeeze-excitation, project; plus the input where it fits."""

    def __init__(self, c_in: int, row: tuple[int, int, int, int, type[nn.Module], int]) -> None:
        super().__init__()
        kernel, expanded, c_out, units, activation, stride = row
        steps: list[nn.Module] = []
        if expanded != c_in:
            steps.append(nn.Sequential(*_convolution(c_in, expanded, 1), activation()))
        steps.append(nn.Sequential(*_convolution(expanded, expanded, kernel, stride, groups=expanded), activation()))
        if units:
            steps.append(_Excitation(expanded, units))
        steps.append(nn.Sequential(*_convolution(expanded, c_out, 1)))
        self.block = nn.Sequential(*steps)
        self.adds_input = stride == 1 and c_in == c_out

    def forward(self, x: Tensor) -> Tensor:
        return x + self.block(x) if self.adds_input else self.block(x)


class EfficientAT(nn.Module):
    """EfficientAT mn04: 983,599 parameters; its state dict has the 312 published keys and no others.

    Evaluate it (``eval()``): the random choices of its training front end are not part of it.
    """

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Sequential(*_convolution(1, _STEM, 3, stride=2), nn.Hardswish())]
        channels = _STEM
        for row in _BLOCKS:
            layers.append(_Block(channels, row))
            channels = row[2]
        layers.append(nn.Sequential(*_convolution(channels, _EMBEDDING, 1), nn.Hardswish()))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(_EMBEDDING, _HIDDEN),
            nn.Hardswish(),
            nn.Dropout(0.2),
            nn.Linear(_HIDDEN, N_CLASSES),
        )

    def logits(self, wave: Tensor) -> Tensor:
        """(B, N) float sound at 32 kHz, mono, in -1 ... 1 -> (B, 527) before the sigmoid, in the weights' dtype.

        Any length from 514 samples; trained on 10 s. ``ValueError``: another shape or dtype, too short, not finite.
        """
        if wave.ndim != 2 or not len(wave):
            raise ValueError(f"the sound must have the shape (batch, samples), not {tuple(wave.shape)}")
        if not wave.is_floating_point():
            raise ValueError(f"the sound must be float in -1 ... 1, not {str(wave.dtype).removeprefix('torch.')}")
        if wave.shape[1] < MIN_SAMPLES:
            raise ValueError(
                f"the sound must have at least {MIN_SAMPLES} samples (16 ms at 32 kHz), not {wave.shape[1]}"
            )
        if not bool(torch.isfinite(wave).all()):
            raise ValueError("the sound holds NaN or infinity")
        return self(mel_input(wave.to(next(self.parameters()).dtype)))

    def forward(self, mel: Tensor) -> Tensor:
        """(B, 1, 128, frames) of ``mel_input`` -> (B, 527) logits."""
        return self.classifier(self.features(mel))


# ---------------------------------------------------------------------------------------------------------- annotator


class AudioSetTagger:
    """Names the AudioSet classes heard in a chunk (an ``EventTagger`` of ``annotate.py``), with the published weights.

    ``path`` is the published ``mn04_as_mAP_432.pt``; ``class_labels.csv`` lies in the same folder. ``names``: the 527
    class names, in the order of ``probabilities``. ``UsageError``: one of the two is missing or is not the published
    file; nothing of it has then been interpreted.
    """

    # Of 0.05, 0.10 ... 0.70 the best on half of the real clips (F1 of: how many names are right; in how many clips the
    # obvious one is named). On the other half 74 % of the names are right and 20 of 22 clips get their obvious one;
    # between 0.25 and 0.4 it hardly matters.
    threshold = 0.35

    def __init__(self, path: Path) -> None:
        torch.set_num_threads(1)  # as the other annotators: clips are spread over processes
        self.names = _class_names(read_pinned(path.with_name(AUDIOSET_CLASSES.name), AUDIOSET_CLASSES))
        state = torch.load(io.BytesIO(read_pinned(path, EFFICIENTAT)), map_location="cpu", weights_only=True)
        with torch.device("meta"):
            self._model = EfficientAT()
        self._model.load_state_dict(state, strict=True, assign=True)
        self._model.eval()

    def probabilities(self, audio: np.ndarray) -> np.ndarray:
        """(N,) float32 at 16 kHz, N >= 257 -> (527,) float32. Classes do not exclude each other: no sum of 1.

        ``ValueError``: another shape, too short, not finite.
        """
        if audio.ndim != 1:
            raise ValueError(f"the sound must have the shape (samples,), not {audio.shape}")
        wave = resample_poly(audio.astype(np.float64), RATE_HZ // SAMPLE_RATE_HZ, 1).astype(np.float32)
        with torch.inference_mode():
            return torch.sigmoid(self._model.logits(torch.from_numpy(wave)[None])[0]).numpy()

    def events(self, audio: np.ndarray) -> list[str]:
        """Names of the classes whose probability is above ``threshold``, the most probable first; sound as above."""
        found = self.probabilities(audio)
        return [self.names[i] for i in np.argsort(-found, kind="stable") if found[i] > self.threshold]


def _class_names(data: bytes) -> tuple[str, ...]:
    return tuple(row["display_name"] for row in csv.DictReader(io.StringIO(data.decode("utf-8"))))
