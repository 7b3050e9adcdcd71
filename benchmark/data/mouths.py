"""How far a mouth opens, and whether the sound's level follows: a second witness beside the lip network.

LR-ASD hears little more than when a mouth moves and when there is speech, so two sentences of one rhythm look alike to
it. How far a mouth opens, at 2 to 7 Hz, goes with the level of the sound, and most of all with the resonances of the
vocal tract (Chandrasekaran et al., "The natural statistics of audiovisual speech", PLoS Computational Biology 2009).
That differs between sentences.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from avbench.ticks import FRAME_RATE_HZ, SAMPLE_RATE_HZ, TICKS_PER_FRAME

MOUTH = (slice(36, 92), slice(28, 84))  # rows and columns of a face view: the lips, with room for views that are off
SYLLABLES_HZ = (2.0, 8.0)
FORMANTS_HZ = (1000.0, 3000.0)  # the second and third: resonances that the mouth's shape moves
QUIETEST = 3e-4  # of full scale (-70 dB): below it, all sounds count as equally loud
SHORTEST_FRAMES = 25  # the filter needs 16
_LEAST = 1e-6  # what changes by less does not change


def opening(views: np.ndarray) -> np.ndarray:
    """(T, 112, 112) uint8 grey views (``faces.face_view``) -> (T,) float64: the contrast around the mouth.

    An open mouth is a dark hole, often with bright teeth, so the grey levels spread. Their standard deviation over
    their mean does not depend on the light.
    """
    mouth = views[:, MOUTH[0], MOUTH[1]].astype(np.float64)
    contrast: np.ndarray = mouth.std(axis=(1, 2)) / (mouth.mean(axis=(1, 2)) + 1)
    return contrast


def formant_level(audio: np.ndarray) -> np.ndarray:
    """(N,) float32 at 16 kHz -> (N // 640,) float64: decibels in the band of the formants, in every frame."""
    whole = audio[: len(audio) // TICKS_PER_FRAME * TICKS_PER_FRAME].astype(np.float64)
    if len(whole) == 0:
        return np.zeros(0)
    frames = _band(whole, FORMANTS_HZ, SAMPLE_RATE_HZ).reshape(-1, TICKS_PER_FRAME)
    level: np.ndarray = 20 * np.log10(np.maximum(np.sqrt((frames**2).mean(axis=1)), QUIETEST))
    return level


def opening_curve(views: np.ndarray, level: np.ndarray, first_frame: int, lags: Sequence[int]) -> np.ndarray:
    """(L,) float64 in -1 ... 1: how a mouth's opening and the sound's level go together at each of ``lags`` (frames).

    ``views`` (T, 112, 112) uint8, from frame ``first_frame`` of the clip; ``level`` (N,): ``formant_level`` of the
    whole clip. Pearson's correlation of the two at the rate of syllables. A positive lag is sound from later in the
    clip; sound that would lie outside the clip is taken from its other end. Zeros where the mouth or the sound does not
    change; empty where there are under 25 frames of both.
    """
    n = min(len(views), len(level) - first_frame)
    if n < SHORTEST_FRAMES:
        return np.zeros(0)
    seen, heard = (_band(values, SYLLABLES_HZ, FRAME_RATE_HZ) for values in (opening(views), level))
    at = (first_frame + np.asarray(lags, np.int64)[:, None] + np.arange(n)) % len(heard)
    seen, heard = seen[:n] - seen[:n].mean(), heard[at] - heard[at].mean(axis=1, keepdims=True)
    size = np.sqrt((seen**2).sum() * (heard**2).sum(axis=1))
    return np.divide(heard @ seen, size, out=np.zeros(len(size)), where=size > _LEAST)


def _band(values: np.ndarray, band_hz: tuple[float, float], rate_hz: int) -> np.ndarray:
    """What lies in a band, in its place: (N,) at ``rate_hz`` -> (N,). Filtered forwards and backwards."""
    from scipy.signal import butter, sosfiltfilt

    filtered: np.ndarray = sosfiltfilt(butter(2, band_hz, "bandpass", fs=rate_hz, output="sos"), values)
    return filtered
