"""Labels of real clips with the published weights: every second clip, in alphabetical order, chose the thresholds of
``annotate.py`` (part A), the others are only scored (part B).

A clip counts as accepted if it is labelled a talking head. Versions of a talking clip: dubbed with the sound of each
other talking clip of its part, its own sound shifted (in a circle) by 1.2 and 1.6 s either way, mute (zeros, and noise
at -60 dB). Other faces are dubbed with the sound of each talking clip of their part.

| accepted | part A | part B |
|---|---|---|
| talking | 7 of 7 | 6 of 6 |
| dubbed | 7 of 42 | 8 of 30 |
| of these, a GRID speaker with another GRID sentence | 5 of 12 | 4 of 12 |
| shifted | 0 of 28 | 0 of 24 |
| mute, or a face that does not talk | 0 of 16 | 0 of 14 |
| another face dubbed: that does not talk, or of an event | 0 of 42 | 0 of 42 |
| an event | 0 of 14 | 0 of 13 |

Sentences of GRID are 3 s long, built from one grammar and said in one rhythm: mouth and sound begin and end together
whoever speaks, and LR-ASD tells little more than that.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from functools import cache

import numpy as np
import pytest
import realclips
from realclips import MODELS, half, read

from avbench.data.annotate import TALKING_HEAD, label, measure
from avbench.data.annotators import Annotators

pytestmark = pytest.mark.skipif(
    not (realclips.REAL.is_dir() and MODELS.is_dir()), reason="the clips and weights in ../shared are not here"
)
EVENTS_WITH_FACES = (
    "Diff-Foley__drum",
    "Diff-Foley__gun",
    "FoleyCrafter__0",
    "FoleyCrafter__3",
    "SpecVQGAN__-Qow",
    "SpecVQGAN__1aDn",
    "SpecVQGAN__3JYj",
    "SpecVQGAN__video_00331",
    "SpecVQGAN__video_02480",
)


@cache
def annotators() -> Annotators:
    return Annotators.load(
        {
            "faces": f"avbench.data.faces:YuNet={MODELS / 'yunet_s_640_640.onnx'}",
            "lips": f"avbench.baselines.lrasd:LipSync={MODELS / 'lrasd_pretrain_AVA.model'}",
            "events": "none",
        }
    )


def category(kind: str, name: str, sound: np.ndarray | None = None) -> str:
    """The label of a real clip, perhaps with another sound, which is repeated or cut to its length."""
    pictures, own = read(kind, name)
    heard = own if sound is None else np.resize(sound, len(own))
    return label(0, measure(lambda: pictures, heard, annotators())).category


def test_a_real_speaker_talks_with_the_own_sound_only() -> None:
    name = "LipNet__sbia1a.mpg"  # of part B, 3 s
    own, other = read("talk", name)[1], read("talk", "video-retalking__4.mp4")[1]
    assert category("talk", name) == "talking head"
    assert category("talk", name, np.roll(own, 19_200)) == "voice-over"
    assert category("talk", name, other) == "voice-over"
    assert category("talk", name, np.zeros(48_000, np.float32)) == "other"


def test_narration_is_a_voice_over_and_a_silent_face_is_neither() -> None:
    assert category("event", "torchcodec__nasa_13013.mp4") == "voice-over"
    assert category("face_no_talk", "LivePortrait__d19.mp4") == "other"
    assert category("face_no_talk", "LivePortrait__d19.mp4", read("talk", "LipNet__sbia1a.mpg")[1]) == "voice-over"


def test_the_score_tells_what_the_mouth_seems_to_do_by_the_picture_alone() -> None:
    golden = np.load(realclips.SHARED / "golden" / "public" / "lrasd.npz")
    lips = annotators().lips
    assert lips is not None
    score = lips.score(golden["real/faces"], golden["real/mfcc"], 0)
    assert score.seen == pytest.approx(golden["real/scores_video_only"], abs=1e-3)
    real = [float(golden[f"real/{name}_fp64"]) for name in ("raw", "excess")]
    assert [score.raw, score.excess] == pytest.approx(real, abs=1e-3)
    assert lips.score(golden["real/faces"][:9], golden["real/mfcc"], 0).seen.shape == (0,)


def versions(part: str) -> Iterator[tuple[str, str, str, np.ndarray | None]]:
    """(what it is, kind, name, sound or None for its own) of every version of every clip of a part."""
    sounds = {name: read("talk", name)[1] for name in half("talk", part)}
    for name, own in sounds.items():
        yield "talking", "talk", name, None
        for other in sounds:
            if other != name:
                pair = "GRID with GRID" if name[:6] == other[:6] == "LipNet" else "dubbed"
                yield pair, "talk", name, sounds[other]
        for shift_s in (1.2, -1.2, 1.6, -1.6):
            yield "shifted", "talk", name, np.roll(own, round(shift_s * 16_000))
        yield "silent", "talk", name, np.zeros_like(own)
        yield "silent", "talk", name, np.random.default_rng(0).normal(0, 1e-3, len(own)).astype(np.float32)
    for name in half("face_no_talk", part):
        yield "silent", "face_no_talk", name, None
        for sound in sounds.values():
            yield "other faces dubbed", "face_no_talk", name, sound
    for name in half("event", part):
        yield "event", "event", name, None
        if name.startswith(EVENTS_WITH_FACES):
            for sound in sounds.values():
                yield "other faces dubbed", "event", name, sound
    read.cache_clear()


@pytest.mark.slow
@pytest.mark.parametrize(("part", "dubbed", "grid"), [("A", 2, 5), ("B", 4, 4)])
def test_what_is_accepted(part: str, dubbed: int, grid: int) -> None:
    accepted: dict[str, list[bool]] = defaultdict(list)
    for what, kind, name, sound in versions(part):
        accepted[what].append(category(kind, name, sound) == TALKING_HEAD)
    print({what: f"{sum(found)} of {len(found)}" for what, found in accepted.items()})
    share = {what: float(np.mean(found)) for what, found in accepted.items()}
    assert share["talking"] >= 0.9
    assert share["shifted"] <= 0.05
    assert share["silent"] <= 0.05
    assert share["other faces dubbed"] <= 0.05
    assert share["event"] <= 0.05
    assert share["dubbed"] <= 0.25
    # what was measured, and one more, as versions of libraries differ
    assert sum(accepted["dubbed"]) <= dubbed + 1
    assert sum(accepted["GRID with GRID"]) <= grid + 1
