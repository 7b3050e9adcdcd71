"""Procedural scenes for SynthSync: events, picture and sound. numpy only, seeded.

A scene is a sequence of shots of 4-14 s in one of three categories that mirror the paper's: a *talking head* whose
mouth follows the syllables (when the speaker is on screen), a *voice-over* whose narrator is mostly unseen, and
*other* material (ball games) with sparse impacts over crowd noise. Every category carries distractors: mouths that do
not belong to the sound, B-roll, visible hits without a sound and sounds without a visible hit. One 5 s window is
therefore often ambiguous; a minute usually is not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import NamedTuple

import numpy as np

from avbench.ticks import FRAME_RATE_HZ, SAMPLE_RATE_HZ
from avbench.types import CATEGORIES

SIZE = 64  # pixels, square
MARGIN = 8  # pixels of background around the picture for camera movement
MOUTH_LEVELS = 10
TALKING_HEAD, VOICE_OVER, OTHER = CATEGORIES

N_CHANNELS = 6


@dataclass(frozen=True)
class Difficulty:
    """How hard scenes are: shots, cues, distractors and latencies. Part of the hashed specification of their data.

    Probabilities and gaps (s) are per shot or event, standard deviations in seconds; mappings are by category.
    ``shot_mix``: the share of each kind of shot. ``latency_sd_s``: a whole clip's sound is a little early or late, as
    in real material. ``jitter_sd_s``: each event's own.
    """

    name: str
    version: int
    shot_mix: Mapping[str, Mapping[str, float]]
    whoosh: Mapping[str, float]  # probability at a cut
    caption: Mapping[str, float]  # probability in a shot
    shot_length_s: tuple[float, float] = (4.0, 14.0)
    ding: float = 0.4  # probability that a caption is heard
    broll_impact_gap_s: tuple[float, float] = (2.0, 7.0)
    game_hit_gap_s: tuple[float, float] = (1.2, 5.5)
    hit_sound: float = 0.62  # probability that a visible hit is heard
    offscreen_hit_gap_s: float = 8.0
    latency_sd_s: float = 0.03
    jitter_sd_s: float = 0.02
    # share of clips in which nothing that is seen is heard: mouths are of another voice, visible events are silent
    unrelated: Mapping[str, float] = field(default_factory=dict)


STANDARD = Difficulty(
    name="standard",
    version=1,
    shot_mix={
        TALKING_HEAD: {"speaker": 0.40, "broll": 0.22, "listener": 0.18, "dubbed": 0.20},
        VOICE_OVER: {"speaker": 0.08, "broll": 0.56, "listener": 0.16, "dubbed": 0.20},
        OTHER: {"game": 0.74, "broll": 0.14, "listener": 0.12},
    },
    whoosh={TALKING_HEAD: 0.12, VOICE_OVER: 0.35, OTHER: 0.15},
    caption={TALKING_HEAD: 0.25, VOICE_OVER: 0.55, OTHER: 0.20},
)

# As hard as the paper's material; calibrated by training.calibrate on validation scenes. A typical window shows more of
# its sound than in version 1, but a clip's own latency limits what any number of windows can tell, and in part of the
# voice-overs and others there is nothing to see.
HARD = replace(
    STANDARD,
    name="hard",
    version=2,
    shot_mix={
        TALKING_HEAD: {"speaker": 0.68, "broll": 0.14, "listener": 0.08, "dubbed": 0.10},
        VOICE_OVER: {"speaker": 0.26, "broll": 0.52, "listener": 0.08, "dubbed": 0.14},
        OTHER: {"game": 0.80, "broll": 0.14, "listener": 0.06},
    },
    game_hit_gap_s=(1.0, 4.5),
    latency_sd_s=0.06,
    unrelated={TALKING_HEAD: 0.0, VOICE_OVER: 0.18, OTHER: 0.40},
)
# HARD as it was before its one adjustment: the embedded weights with the tag "hard" were trained on it. All but the
# latencies is the same; with these, averaging got .48 of the classes right on validation scenes (the paper: .58).
HARD_TRAINING = replace(HARD, name="hard-training", latency_sd_s=0.085)
DIFFICULTIES = {difficulty.name: difficulty for difficulty in (STANDARD, HARD, HARD_TRAINING)}

VOWELS = ((730, 1090, 1.0), (530, 1840, 0.6), (270, 2290, 0.35), (570, 840, 0.8), (300, 870, 0.3), (490, 1350, 0.55))


def parameters(difficulty: Difficulty = STANDARD) -> dict[str, object]:
    """What scenes of this difficulty depend on, as plain data, for the specification's hash."""
    facts = {"size": SIZE} | asdict(difficulty)
    del facts["name"]
    if not difficulty.unrelated:
        del facts["unrelated"]  # version 1 is from before there were such clips
    return facts


class Syllable(NamedTuple):
    """When which syllable of a voice is spoken."""

    start_s: float
    kind: int  # index into the voice's bank


class Layer(NamedTuple):
    """A sprite track: for every frame the index of the sprite (-1: hidden) and its top left corner in pixels."""

    sprites: list[tuple[np.ndarray, np.ndarray]]  # (h, w, 3) uint8 and (h, w, 1) bool
    shown: np.ndarray
    x: np.ndarray
    y: np.ndarray


@dataclass
class Shot:
    """Frames between two cuts: a background, the camera's position on it, and sprites."""

    first: int  # frame
    n: int  # frames
    background: np.ndarray  # (SIZE + 2 MARGIN, SIZE + 2 MARGIN, 3) uint8
    camera_x: np.ndarray  # (n,) pixels in 0 ... 2 MARGIN
    camera_y: np.ndarray
    layers: list[Layer] = field(default_factory=list)


class Voice:
    """A speaker's bank of synthetic syllables: two formants over a harmonic source, some with a noisy onset."""

    def __init__(self, rng: np.random.Generator, n_kinds: int = 18) -> None:
        pitch_hz = rng.uniform(90, 240)
        tract = rng.uniform(0.9, 1.15)
        self.sounds: list[np.ndarray] = []
        self.openings: list[np.ndarray] = []  # mouth opening 0 ... 1 at 100 Hz, the sound's own envelope
        self.lengths_s: list[float] = []
        for _ in range(n_kinds):
            f1, f2, openness = VOWELS[rng.integers(len(VOWELS))]
            length_s = rng.uniform(0.11, 0.27)
            t = np.arange(int(length_s * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
            envelope = np.minimum(t / 0.035, 1) * np.minimum((length_s - t) / 0.06, 1)
            glide = pitch_hz * (1 + rng.uniform(-0.15, 0.15) * t / length_s)
            phase = 2 * np.pi * np.cumsum(glide) / SAMPLE_RATE_HZ
            sound = np.zeros_like(t)
            for harmonic in range(1, 13):
                hz = harmonic * pitch_hz
                weight = np.exp(-(((hz - f1 * tract) / 180) ** 2)) + 0.6 * np.exp(-(((hz - f2 * tract) / 260) ** 2))
                sound += (weight + 0.05 / harmonic) * np.sin(harmonic * phase)
            sound *= envelope
            if rng.random() < 0.5:
                burst = int(rng.uniform(0.02, 0.05) * SAMPLE_RATE_HZ)
                sound[:burst] += 0.5 * rng.standard_normal(burst) * np.linspace(1, 0, burst)
            self.sounds.append((0.25 * sound).astype(np.float32))
            steps = np.arange(int(length_s * 100) + 1) / 100
            shape = np.minimum(steps / 0.035, 1) * np.clip((length_s - steps) / 0.06, 0, 1)
            self.openings.append(openness * shape)
            self.lengths_s.append(length_s)

    def speech(self, rng: np.random.Generator, start_s: float, end_s: float) -> list[Syllable]:
        """Phrases of syllables with pauses between, from ``start_s`` to ``end_s``."""
        syllables: list[Syllable] = []
        t = start_s + rng.uniform(0, 0.4)
        while t < end_s - 0.3:
            for _ in range(rng.integers(3, 10)):
                kind = int(rng.integers(len(self.sounds)))
                if t + self.lengths_s[kind] > end_s:
                    break
                syllables.append(Syllable(t, kind))
                t += self.lengths_s[kind] + rng.uniform(0, 0.06)
            t += rng.uniform(0.25, 0.9)
        return syllables

    def mouth_levels(self, syllables: list[Syllable], first: int, n: int) -> np.ndarray:
        """(n,) mouth level 0 ... MOUTH_LEVELS - 1 at the frames ``first`` ... ``first + n - 1``."""
        opening = np.zeros(n)
        for start_s, kind in syllables:
            shape = self.openings[kind]
            a = max(int(np.ceil(start_s * FRAME_RATE_HZ)) - first, 0)
            b = min(int((start_s + self.lengths_s[kind]) * FRAME_RATE_HZ) + 1 - first, n)
            for k in range(a, b):
                step = int(((first + k) / FRAME_RATE_HZ - start_s) * 100)
                if step < len(shape):
                    opening[k] = max(opening[k], shape[step])
        return np.rint(opening * (MOUTH_LEVELS - 1)).astype(int)


class Palette(NamedTuple):
    """A channel's look: two background colours, the camera's noise and the logo's colour."""

    low: np.ndarray
    high: np.ndarray
    noise_sd: float
    logo: np.ndarray


def _palette(channel: int) -> Palette:
    rng = np.random.default_rng([channel, 77])
    low = rng.uniform(20, 110, 3)
    return Palette(low, low + rng.uniform(40, 120, 3), rng.uniform(2, 6), rng.uniform(0, 255, 3))


def _ellipse(h: int, w: int, cy: float, cx: float, ry: float, rx: float) -> np.ndarray:
    y, x = np.mgrid[0:h, 0:w]
    return ((y - cy) / max(ry, 1e-3)) ** 2 + ((x - cx) / max(rx, 1e-3)) ** 2 <= 1


def _face(
    rng: np.random.Generator, skin: np.ndarray, hair: np.ndarray, scale: float
) -> list[tuple[np.ndarray, np.ndarray]]:
    """2 x MOUTH_LEVELS sprites: eyes open, then eyes shut."""
    h, w = int(40 * scale), int(32 * scale)
    mask = _ellipse(h, w, h / 2, w / 2, h / 2, w / 2)
    y, x = np.mgrid[0:h, 0:w]
    base = np.zeros((h, w, 3)) + skin * (0.8 + 0.2 * x[..., None] / w)
    base[y < 0.24 * h] = hair
    sprites = []
    for shut in (False, True):
        for level in range(MOUTH_LEVELS):
            image = base.copy()
            for side in (0.32, 0.68):
                eye = _ellipse(h, w, 0.42 * h, side * w, (0.02 if shut else 0.05) * h, 0.09 * w)
                image[eye] = 30
            # a soft-edged mouth, so that neighbouring levels differ even at this size
            half = 0.012 * h + level / (MOUTH_LEVELS - 1) * 0.13 * h
            distance = ((y - 0.74 * h) / half) ** 2 + ((x - w / 2) / (0.24 * w)) ** 2
            soft = np.clip(1.5 - distance, 0, 1)[..., None]
            image = image * (1 - soft) + np.array([70, 15, 20]) * soft
            sprites.append((np.clip(image, 0, 255).astype(np.uint8), mask[..., None]))
    return sprites


def _blob(rng: np.random.Generator, size: int, colour: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    colour = rng.uniform(60, 255, 3) if colour is None else colour
    mask = _ellipse(size, size, (size - 1) / 2, (size - 1) / 2, size / 2, size / 2)
    if colour is not None and rng.random() < 0.4:
        mask = np.ones_like(mask)
    return np.clip(np.zeros((size, size, 3)) + colour, 0, 255).astype(np.uint8), mask[..., None]


def _background(rng: np.random.Generator, palette: Palette) -> np.ndarray:
    side = SIZE + 2 * MARGIN
    coarse = rng.random((6, 6))
    grid = np.linspace(0, 4.999, side)
    i, f = grid.astype(int), grid % 1
    rows = coarse[i] * (1 - f)[:, None] + coarse[i + 1] * f[:, None]
    field_ = rows[:, i] * (1 - f) + rows[:, i + 1] * f
    image = palette.low + (palette.high - palette.low) * field_[..., None]
    return np.clip(image + rng.uniform(-15, 15, 3), 0, 255).astype(np.uint8)


def _walk(rng: np.random.Generator, n: int, low: float, high: float, speed: float) -> np.ndarray:
    """(n,) ints: a smooth wander between ``low`` and ``high``; ``speed`` in pixels per frame."""
    knots = max(int(n * speed / 6) + 2, 3)
    values = rng.uniform(low, high, knots)
    return np.rint(np.interp(np.linspace(0, knots - 1, n), np.arange(knots), values)).astype(int)


def _thud(rng: np.random.Generator) -> np.ndarray:
    """An impact: a decaying partial and a noise burst; its timbre is part of the identity."""
    length = int(rng.uniform(0.06, 0.14) * SAMPLE_RATE_HZ)
    t = np.arange(length) / SAMPLE_RATE_HZ
    tone = np.sin(2 * np.pi * rng.uniform(150, 1500) * t) * np.exp(-t * rng.uniform(25, 60))
    noise = rng.standard_normal(length) * np.exp(-t * rng.uniform(60, 160))
    return (0.5 * (tone + rng.uniform(0.3, 1) * noise)).astype(np.float32)


class Scene:
    """One planned clip; its frames and samples depend on the arguments only.

    ``category``: one of CATEGORIES; ``channel``: 0 ... N_CHANNELS - 1; ``seed``: any non-negative int, the identity.
    """

    def __init__(
        self, category: str, channel: int, seed: int, duration_s: float, difficulty: Difficulty = STANDARD
    ) -> None:
        self.n_frames = round(duration_s * FRAME_RATE_HZ)
        self.n_samples = round(duration_s * SAMPLE_RATE_HZ)
        self.category, self.duration_s, self.difficulty = category, duration_s, difficulty
        self.rng = rng = np.random.default_rng([seed, CATEGORIES.index(category), channel, 20_260])
        self.palette = _palette(channel)
        self.latency_s = rng.normal(0, difficulty.latency_sd_s)
        self.related = not difficulty.unrelated or bool(rng.random() >= difficulty.unrelated[category])
        self.events: set[str] = set()
        self._sound = np.zeros(self.n_samples, np.float32)
        self._thuds = [_thud(rng) for _ in range(3)]
        self._skin = rng.uniform([150, 100, 70], [245, 205, 180])
        self._hair = rng.uniform(10, 140, 3)
        self.shots: list[Shot] = []
        self._bed()
        voice = Voice(rng)
        speech = self._narration(voice)
        kinds = list(difficulty.shot_mix[category])
        shares = np.array(list(difficulty.shot_mix[category].values()))
        first = 0
        while first < self.n_frames:
            n = int(rng.uniform(*difficulty.shot_length_s) * FRAME_RATE_HZ)
            if self.n_frames - first - n < FRAME_RATE_HZ:  # no flicker of a shot at the end
                n = self.n_frames - first
            shot = self._shot(first, n, moving=rng.random() < 0.5)
            kind = kinds[rng.choice(len(kinds), p=shares / shares.sum())]
            if first and rng.random() < difficulty.whoosh[category]:
                self._whoosh(first / FRAME_RATE_HZ)
            if kind == "speaker" and self.related:
                self._head(shot, voice.mouth_levels(speech, first, n), self._skin, self._hair)
            elif kind in ("speaker", "dubbed"):
                other = Voice(rng, 6)
                moves = other.speech(rng, first / FRAME_RATE_HZ, (first + n) / FRAME_RATE_HZ)
                self._head(shot, other.mouth_levels(moves, first, n), *self._stranger())
            elif kind == "listener":
                self._head(shot, (rng.random(n) < 0.02).astype(int), *self._stranger())
            elif kind == "game":
                self._game(shot)
            else:
                self._broll(shot)
            if rng.random() < difficulty.caption[category]:
                self._caption(shot)
            self.shots.append(shot)
            first += n

    # -- sound ---------------------------------------------------------------------------------------------------

    def audio(self) -> np.ndarray:
        """(n_samples,) float32 in [-1, 1]."""
        return np.tanh(1.2 * self._sound).astype(np.float32)

    def _hear_seen(self, sound: np.ndarray, time_s: float, gain: float = 1.0) -> None:
        """Mix in the sound of something visible, unless the clip's picture and sound are unrelated."""
        if self.related:
            self._hear(sound, time_s, gain, self.difficulty.jitter_sd_s)

    def _hear(self, sound: np.ndarray, time_s: float, gain: float, jitter_s: float) -> None:
        """Mix in a sound at a picture time, with the clip's latency and a small jitter of its own."""
        at = round((time_s + self.latency_s + self.rng.normal(0, jitter_s)) * SAMPLE_RATE_HZ)
        a, b = max(at, 0), min(at + len(sound), self.n_samples)
        if a < b:
            self._sound[a:b] += gain * sound[a - at : b - at]

    def _bed(self) -> None:
        """Room tone or crowd: looped coloured noise that swells slowly; some clips have a quiet music pad."""
        rng = self.rng
        loud = 0.10 if self.category == OTHER else 0.015
        n = 4 * SAMPLE_RATE_HZ
        spectrum = np.fft.rfft(rng.standard_normal(n))
        spectrum /= np.maximum(np.arange(len(spectrum)) / len(spectrum), 0.02) ** rng.uniform(0.3, 0.7)
        loop = np.fft.irfft(spectrum, n)
        bed = np.resize(loop / loop.std(), self.n_samples) * loud * rng.uniform(0.5, 1.3)
        knots = max(int(self.duration_s / 3), 2)
        swell = np.interp(np.linspace(0, knots - 1, self.n_samples), np.arange(knots), rng.uniform(0.4, 1.4, knots))
        self._sound += (bed * swell).astype(np.float32)
        if self.category == VOICE_OVER and rng.random() < 0.5:
            t = np.arange(n) / SAMPLE_RATE_HZ
            pad = sum(np.sin(2 * np.pi * round(hz * 4) / 4 * t) for hz in rng.uniform(110, 440, 3))
            self._sound += (0.03 * np.resize(pad, self.n_samples)).astype(np.float32)
            self.events.add("music")

    def _narration(self, voice: Voice) -> list[Syllable]:
        rng = self.rng
        if self.category == OTHER:
            start = rng.uniform(0, 10)
            speech: list[Syllable] = []
            while start < self.duration_s:  # a little low commentary
                end = min(start + rng.uniform(2, 6), self.duration_s)
                speech += voice.speech(rng, start, end)
                start = end + rng.uniform(6, 20)
            gain = 0.35
        else:
            speech, gain = voice.speech(rng, 0, self.duration_s), rng.uniform(0.7, 1.1)
        for start_s, kind in speech:
            self._hear(voice.sounds[kind], start_s, gain * rng.uniform(0.8, 1.2), 0.0)
        self.events.add("speech")
        return speech

    def _whoosh(self, time_s: float) -> None:
        n = int(0.3 * SAMPLE_RATE_HZ)
        swell = np.sin(np.linspace(0, np.pi, n)) ** 2
        noise = np.convolve(self.rng.standard_normal(n), np.ones(6) / 6, "same")
        self._hear_seen((0.5 * swell * noise).astype(np.float32), time_s - 0.15)
        self.events.add("whoosh")

    # -- picture -------------------------------------------------------------------------------------------------

    def frames(self) -> Iterator[np.ndarray]:
        """Yields ``n_frames`` arrays (SIZE, SIZE, 3) uint8; deterministic, the same on every call."""
        rng = np.random.default_rng([int(1e6 * abs(self.latency_s)), self.n_frames])
        noise = rng.normal(0, self.palette.noise_sd, (32, SIZE, SIZE, 1)).astype(np.int16)
        logo = self.palette.logo.astype(np.uint8)
        for shot in self.shots:
            for k in range(shot.n):
                x, y = shot.camera_x[k], shot.camera_y[k]
                frame = shot.background[y : y + SIZE, x : x + SIZE].copy()
                for layer in shot.layers:
                    i = layer.shown[k]
                    if i >= 0:
                        sprite, mask = layer.sprites[i]
                        h, w = sprite.shape[:2]
                        px, py = min(max(layer.x[k], 0), SIZE - w), min(max(layer.y[k], 0), SIZE - h)
                        np.copyto(frame[py : py + h, px : px + w], sprite, where=mask)
                frame[3:7, SIZE - 11 : SIZE - 3] = logo
                grain = noise[(shot.first + k * 7) % 32]
                yield np.clip(frame + grain, 0, 255).astype(np.uint8)

    def _shot(self, first: int, n: int, moving: bool) -> Shot:
        rng = self.rng
        if moving:
            x, y = (_walk(rng, n, 0, 2 * MARGIN, 0.25) for _ in range(2))
        else:
            x = y = np.full(n, MARGIN)
        jitter = rng.random((2, n)) < 0.04
        x, y = (np.clip(v + j, 0, 2 * MARGIN) for v, j in zip((x, y), jitter, strict=True))
        return Shot(first, n, _background(rng, self.palette), x, y)

    def _stranger(self) -> tuple[np.ndarray, np.ndarray]:
        return self.rng.uniform([150, 100, 70], [245, 205, 180]), self.rng.uniform(10, 140, 3)

    def _head(self, shot: Shot, levels: np.ndarray, skin: np.ndarray, hair: np.ndarray) -> None:
        rng, n = self.rng, shot.n
        scale = rng.uniform(0.7, 1.25)
        sprites = _face(rng, skin, hair, scale)
        h, w = sprites[0][0].shape[:2]
        cx, cy = rng.uniform(4, SIZE - w - 4), rng.uniform(2, max(SIZE - h - 2, 3))
        x = _walk(rng, n, cx - 2, cx + 2, 0.3)
        y = _walk(rng, n, cy - 2, cy + 2, 0.3)
        blink = np.convolve(rng.random(n) < 0.008, np.ones(3), "same") > 0
        shot.layers.append(Layer(sprites, levels + MOUTH_LEVELS * blink, x, y))

    def _broll(self, shot: Shot) -> None:
        """Drifting objects; now and then one falls and lands, mostly with a quiet thud."""
        rng, n = self.rng, shot.n
        for _ in range(rng.integers(1, 4)):
            size = int(rng.integers(6, 18))
            x, y = (_walk(rng, n, 0, SIZE - size, 0.5) for _ in range(2))
            shot.layers.append(Layer([_blob(rng, size)], np.zeros(n, int), x, y))
        size = int(rng.integers(7, 12))
        floor = SIZE - size - int(rng.integers(2, 12))
        x, y = np.full(n, int(rng.integers(4, SIZE - size - 4))), np.full(n, floor)
        index = np.full(n, -1)
        t = rng.uniform(*self.difficulty.broll_impact_gap_s)
        while t < n / FRAME_RATE_HZ - 0.5:
            land = int(t * FRAME_RATE_HZ)
            fall = 8
            for j in range(max(land - fall, 0), min(land + 25, n)):
                index[j] = 0
                y[j] = floor if j >= land else round(floor * (1 - ((land - j) / fall) ** 2))
            if rng.random() < self.difficulty.hit_sound:
                self._hear_seen(self._thuds[2], (shot.first + land) / FRAME_RATE_HZ, 0.6)
                self.events.add("impact")
            t += rng.uniform(*self.difficulty.broll_impact_gap_s)
        shot.layers.append(Layer([_blob(rng, size)], index, x, y))

    def _game(self, shot: Shot) -> None:
        """A ball flies between hits; a hit turns it, flashes shortly and is mostly heard."""
        rng, n = self.rng, shot.n
        hits, t = [0], rng.uniform(0.3, 1.5)
        while t < n / FRAME_RATE_HZ:
            hits.append(int(t * FRAME_RATE_HZ))
            t += rng.uniform(*self.difficulty.game_hit_gap_s)
        size = int(rng.integers(5, 8))
        upright = rng.random() < 0.4  # bouncing on the floor rather than crossing the court
        far = [int(rng.integers(6, 14)), int(rng.integers(SIZE - 20, SIZE - 12))]
        x, y = np.zeros(n, int), np.zeros(n, int)
        side = int(rng.integers(2))
        ends = [*hits[1:], n + int(1.5 * FRAME_RATE_HZ)]
        across = _walk(rng, n, 10, SIZE - 16, 0.3)
        for a, b in zip(hits, ends, strict=True):
            span = np.arange(a, min(b, n))
            u = (span - a) / max(b - a, 1)
            if upright:
                height = min(46.0, 10 + 8 * (b - a) / FRAME_RATE_HZ)
                y[span] = np.rint(SIZE - 12 - height * 4 * u * (1 - u))
                x[span] = across[span]
            else:
                x[span] = np.rint(far[side] + (far[1 - side] - far[side]) * u)
                y[span] = np.rint(SIZE / 2 - 30 * u * (1 - u) + 8 * (side - 0.5))
                side = 1 - side
        for cx in far:
            player = _blob(rng, 14)
            px = _walk(rng, n, cx - 3, cx + 3, 0.4)
            shot.layers.append(Layer([player], np.zeros(n, int), px, _walk(rng, n, 22, 34, 0.4)))
        flash = np.full(n, -1)
        for hit in hits[1:]:
            flash[hit : hit + 2] = 0
            if rng.random() < self.difficulty.hit_sound:
                sound = self._thuds[0 if upright else 1]
                self._hear_seen(sound, (shot.first + hit) / FRAME_RATE_HZ, rng.uniform(0.6, 1.2))
                self.events.add("impact")
        white = _blob(rng, size + 6, np.array([250.0, 250.0, 235.0]))
        shot.layers.append(Layer([white], flash, x - 3, y - 3))
        shot.layers.append(Layer([_blob(rng, size)], np.zeros(n, int), x, y))
        t = rng.exponential(self.difficulty.offscreen_hit_gap_s)
        while t < n / FRAME_RATE_HZ:
            gain = rng.uniform(0.3, 0.9)
            self._hear(self._thuds[0], shot.first / FRAME_RATE_HZ + t, gain, self.difficulty.jitter_sd_s)
            t += rng.exponential(self.difficulty.offscreen_hit_gap_s)

    def _caption(self, shot: Shot) -> None:
        rng, n = self.rng, shot.n
        at = int(rng.uniform(0.1, 0.7) * n)
        colour = np.array([235.0, 235.0, 235.0]) * rng.uniform(0.4, 1)
        bar = (np.zeros((8, 44, 3)) + colour).astype(np.uint8), np.ones((8, 44, 1), bool)
        bar[0][2:6, 3 : int(rng.integers(12, 42))] = 20
        index = np.where(np.arange(n) >= at, 0, -1)
        shot.layers.append(Layer([bar], index, np.full(n, 5), np.full(n, SIZE - 11)))
        if rng.random() < self.difficulty.ding:
            t = np.arange(int(0.35 * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
            ding = 0.35 * np.sin(2 * np.pi * rng.uniform(900, 2200) * t) * np.exp(-t * 12)
            self._hear_seen(ding.astype(np.float32), (shot.first + at) / FRAME_RATE_HZ)
            self.events.add("ding")
