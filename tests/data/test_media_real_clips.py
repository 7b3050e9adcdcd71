"""Real videos (a talk at 25 fps, and a sound event before and after re-encoding), if the shared folder is there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from avbench.data.from_files import SegmentRules, manifest_from_files
from avbench.data.inspect import verify
from avbench.data.media import ClipReader
from avbench.data.probing import probe
from avbench.protocol.manifest import read_manifest
from avbench.protocol.rules import streaming
from avbench.types import FrontEnd

MEDIA = Path(__file__).resolve().parents[2].parent / "shared" / "media"
pytestmark = pytest.mark.skipif(not MEDIA.is_dir(), reason="the shared media folder is not there")

TALK = MEDIA / "lrs3" / "00018.mp4"
EVENT = MEDIA / "vggsound_h264" / "3qesirWAGt4_20000_30000.mp4"
EVENT_RAW = MEDIA / "vggsound_original" / "3qesirWAGt4_20000_30000.mp4"


def test_known_facts() -> None:
    talk, event, raw = probe(TALK), probe(EVENT), probe(EVENT_RAW)
    assert (talk.n_frames, talk.n_samples, talk.channels, talk.is_cfr_25) == (393, 251_904, 2, True)
    assert (event.n_frames, event.channels, event.is_cfr_25) == (250, 1, True)
    assert (raw.n_frames, raw.n_samples, raw.sample_rate, raw.fps) == (250, 160_000, 44_100, 30)
    # the talk signals no encoder delay: a 64 ms doubt that only its maker could settle, so it must be said
    assert (talk.first_audio_packet_s, event.first_audio_packet_s) == (0.0, -0.064)
    assert any("64 ms" in w for w in talk.warnings)
    assert not any("64 ms" in w for w in event.warnings + raw.warnings)


def test_the_re_encoded_clip_has_no_lag_to_its_original() -> None:
    a, b = ClipReader(EVENT).audio()[:160_000], ClipReader(EVENT_RAW).audio()
    cross = np.fft.irfft(np.fft.rfft(a, 2**19) * np.conj(np.fft.rfft(b, 2**19)))
    assert np.argmax(cross) == 0


def test_from_files_makes_a_working_manifest(tmp_path: Path) -> None:
    manifest, refused = manifest_from_files([TALK, EVENT, EVENT_RAW], tmp_path / "real")
    assert refused == []
    assert len(manifest.clips) == 3
    again = read_manifest(tmp_path / "real")
    assert again.sha256 == manifest.sha256
    assert verify(again) == []
    firsts = [s for s in again.segments if s.id.endswith("@0")]
    assert all(streaming(iterations=2).supports(s, again.clips[s.clip_id]) for s in firsts)


def test_three_iterations_fit_ten_seconds_when_the_offset_is_small(tmp_path: Path) -> None:
    rules = SegmentRules(iterations=3, offset_law="fixed:-0.8")
    manifest, refused = manifest_from_files([TALK, EVENT], tmp_path, rules)
    assert refused == []
    assert {s.start for s in manifest.segments} == {20 * 640}
    for clip in manifest.clips.values():
        with ClipReader(manifest.clip_path(clip), clip) as reader:
            shapes = {f.shape for (f,) in reader.frames(FrontEnd(size=224, fit="crop"))}
        assert shapes == {(3, 224, 224)}
