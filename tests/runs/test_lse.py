"""LSE of files whose lips and sound are made: the true offset from the file to the figures, the reasons where there are
none, and memory that does not grow with the file."""

from __future__ import annotations

import json
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lips import FACE, NoFace, Reads, early, levels, pictures, sound

from avbench.baselines.syncnet import as_int16, lse, mfcc, sound_windows
from avbench.data.encode import Codec, encode_clip
from avbench.data.face_boxes import read_face_boxes
from avbench.data.faces import FaceTrack, face_crop
from avbench.data.media import ClipReader
from avbench.runs import lse as module
from avbench.runs.lse import measure_lse
from avbench.types import MediaError


@pytest.fixture
def clip(tmp_path: Path) -> Callable[..., Path]:
    """``clip(n_frames, early_frames)``: an encoded file whose sound comes so many frames early."""

    def make(n_frames: int = 120, early_frames: int = 0, heard: np.ndarray | None = None) -> Path:
        path, level = tmp_path / f"{n_frames}_{early_frames}.mp4", levels(n_frames)
        loud = sound(early(level, early_frames)) if heard is None else heard
        encode_clip(path, pictures(level), loud, Codec(crf=12, audio_bit_rate=128_000))
        return path

    return make


@pytest.mark.parametrize(("early_frames", "words"), [(3, "audio 0.12 s early"), (-7, "audio 0.28 s late")])
def test_the_offset_of_a_file_is_found_and_said_in_both_conventions(clip: Any, early_frames: int, words: str) -> None:
    found = measure_lse(clip(120, early_frames), Reads())
    assert found.offset_frames == early_frames
    assert found.words == f"SyncNet {early_frames:+d} frames: {words}"
    assert (found.n_frames, found.detector) == (120, "OneFace")
    assert 0 < found.lse_d < found.lse_c


def test_the_figures_are_those_of_the_whole_track_at_once(clip: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lips are encoded in pieces, and the sound of each with its neighbours."""
    path, network = clip(131, 2), Reads()
    reader = ClipReader(path)
    track = FaceTrack(0, np.tile([10.0, 10, 30, 30], (131, 1)))
    shown = [f[0].transpose(1, 2, 0) for f in reader.frames(types.SimpleNamespace(**_WHOLE))]  # type: ignore[arg-type]
    crops = np.stack([face_crop(p, s) for p, s in zip(shown, track.squares(), strict=True)])
    samples = as_int16(reader.audio()[: 131 * 640])
    with torch.inference_mode():
        lips, heard = network.face_features(crops)[:126], network.sound_features(sound_windows(mfcc(samples)))[:126]
    expected = lse(lips, heard)
    for piece in (100, 17, 5):
        monkeypatch.setattr(module, "PIECE_FRAMES", piece)
        found = measure_lse(path, network)
        assert (found.lse_d, found.lse_c, found.offset_frames) == pytest.approx(expected, rel=1e-5)


_WHOLE = {"size": 64, "fit": "short", "short_side": 0, "fps": 25, "sample_rate": 16_000, "audio_lead_trim_samples": 0}


def test_a_short_face_is_measured_and_said_and_a_shorter_one_is_not(clip: Any) -> None:
    assert measure_lse(clip(60, 1), Reads()).words.endswith("over 2.4 s of a face (published figures need 4 s)")
    with pytest.raises(MediaError, match=r"clip 20_0\.mp4: too short: the longest face is seen with sound for 0\.8 s"):
        measure_lse(clip(20), Reads())


def test_no_face_no_sound_and_silence_are_reasons(clip: Any, tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="no face is seen"):
        measure_lse(clip(), Reads(NoFace()))
    with pytest.raises(MediaError, match="silent while the face is seen"):
        measure_lse(clip(110, 0, np.zeros(110 * 640, np.float32)), Reads())
    with pytest.raises(MediaError, match=r"nothing\.mp4"):
        measure_lse(tmp_path / "nothing.mp4", Reads())
    import av

    mute = tmp_path / "mute.mp4"
    with av.open(str(clip(100))) as source, av.open(str(mute), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    with pytest.raises(MediaError, match="sound"):
        measure_lse(mute, Reads(NoFace()))


def test_boxes_of_a_file_stand_in_for_the_detector(clip: Any, tmp_path: Path) -> None:
    path = clip(120, -4)
    x, y, w, h = FACE
    rows = [{"clip": path.stem, "frame": k, "x": x, "y": y, "w": w, "h": h} for k in (5, 30, 55, 80, 105, 130, 155)]
    (tmp_path / "boxes.json").write_text(json.dumps(rows))
    boxes = read_face_boxes(tmp_path / "boxes.json")
    found = measure_lse(path, Reads(NoFace()), boxes=boxes)  # the boxes go on after the last picture
    assert (found.offset_frames, found.n_frames, found.detector) == (-4, 115, "boxes of boxes.json")
    with pytest.raises(MediaError, match="no face"):
        measure_lse(clip(100), Reads(NoFace()), boxes=boxes)  # of another file
    late = {path.stem: (FaceTrack(500, np.tile([10.0, 10, 30, 30], (100, 1))),)}
    with pytest.raises(MediaError, match="its boxes lie after its last picture"):
        measure_lse(path, Reads(), boxes=types.SimpleNamespace(of=lambda p: late[p.stem], source="x"))  # type: ignore[arg-type]


def test_the_longest_of_several_faces_is_measured(tmp_path: Path) -> None:
    """A cut at frame 40: the face after it is seen for longer."""
    level = levels(150)
    shown = pictures(level)
    shown[:40, :, 40:] = 10
    heard = sound(early(level, 2))
    encode_clip(tmp_path / "a.mp4", shown, heard, Codec(crf=12, audio_bit_rate=128_000))
    found = measure_lse(tmp_path / "a.mp4", Reads())
    assert (found.n_frames, found.offset_frames) == (110, 2)


def test_no_more_than_a_piece_of_the_crops_is_held(clip: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    plain = Reads.face_features

    def noted(self: Reads, crops: np.ndarray, device: str = "cpu") -> torch.Tensor:
        seen.append(len(crops))
        return plain(self, crops, device)

    monkeypatch.setattr(Reads, "face_features", noted)
    monkeypatch.setattr(module, "PIECE_FRAMES", 40)
    measure_lse(clip(400, 1), Reads())
    assert len(seen) == 10
    assert max(seen) <= 44
