"""The published front ends: cuts as truncated as published, shapes, standardisation, agreement of the paths."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from avbench.baselines import frontends as fe
from avbench.types import UsageError


def ramp(seconds: float = 10) -> tuple[torch.Tensor, torch.Tensor]:
    """Frames and samples that carry their own index."""
    return torch.arange(round(seconds * 25)), torch.arange(round(seconds * 16_000))


def test_a_window_begins_at_its_second_and_sound_at_its_offset() -> None:
    frames, wave = fe.cut_window(*ramp(), start_s=2.0, offset_s=0.4)
    assert (frames[0], len(frames)) == (50, 125)
    assert (wave[0], len(wave)) == (38_400, 80_000)


def test_frames_are_truncated_but_sound_starts_at_the_untruncated_second() -> None:
    frames, wave = fe.cut_window(*ramp(), start_s=2.28, offset_s=0.0)
    assert frames[0] == 56  # 2.28 * 25 is 56.999...
    assert wave[0] == int(2.28 * 16_000) == 36_480


def test_published_truncations() -> None:
    late = [k for k in range(250) if int(k * 4 / 100 * 25) != k]
    assert [round(k * 0.04, 2) for k in late] == [
        *(1.16, 2.28, 2.32, 4.52, 4.56, 4.6, 4.64, 8.04, 8.12, 8.2, 8.28, 9.04, 9.12, 9.2, 9.28)
    ]
    wave = fe.cut_window(*ramp(), start_s=2, offset_s=-1.87)[1]
    assert wave[0] == 2079


def test_57_of_the_401_two_decimal_offsets_lose_a_sample() -> None:
    offsets = [k / 100 for k in range(-200, 201)]
    firsts = [int(fe.cut_window(*ramp(), start_s=2, offset_s=o)[1][0]) for o in offsets]
    exact = [32_000 + 160 * k for k in range(-200, 201)]
    assert {e - f for e, f in zip(exact, firsts, strict=True)} == {0, 1}
    assert sum(e != f for e, f in zip(exact, firsts, strict=True)) == 57


LONG = torch.arange(300), torch.arange(300 * 640)


@given(
    start_s=st.one_of(st.integers(0, 250).map(lambda k: k * 0.04), st.integers(0, 1000).map(lambda k: k / 100)),
    offset_s=st.one_of(st.floats(-2.2, 2.2), st.integers(-200, 200).map(lambda k: k / 100)),
    n_frames=st.integers(100, 300),
    n_samples=st.integers(60_000, 300 * 640),
    trim=st.sampled_from([0, 1024]),
)
def test_any_start_and_offset_are_cut_as_published_or_refused(
    start_s: float, offset_s: float, n_frames: int, n_samples: int, trim: int
) -> None:
    length_s = min(10, (n_samples - trim) / 16_000, n_frames / 25)
    have_frames = int(25 * length_s)
    frame, sample = int(start_s * 25), int((start_s + round(offset_s, 2)) * 16_000)
    if -640 <= sample < 0:
        sample = 0
    fits = sample >= 0 and frame + 125 <= have_frames and sample + 80_000 <= 640 * have_frames
    inputs = LONG[0][:n_frames], LONG[1][:n_samples]
    if not fits:
        with pytest.raises(UsageError, match="does not fit"):
            fe.cut_window(*inputs, start_s, offset_s, audio_lead_trim_samples=trim)
        return
    frames, wave = fe.cut_window(*inputs, start_s, offset_s, audio_lead_trim_samples=trim)
    assert torch.equal(frames, torch.arange(frame, frame + 125))
    assert torch.equal(wave, torch.arange(sample + trim, sample + trim + 80_000))


@settings(max_examples=20)
@given(st.integers(0, 2**32), st.integers(62_080, 120_000))
def test_every_front_end_accepts_what_a_cut_may_give(seed: int, n_samples: int) -> None:
    wave = 0.1 * torch.randn(n_samples, generator=torch.Generator().manual_seed(seed))
    spectrum = fe.sparsesync_audio(wave)
    assert spectrum.shape == (1, 257, 1 + n_samples // 128)
    assert spectrum.isfinite().all()
    n_frames = n_samples // 640
    if n_frames >= 120:
        assert fe.synchformer_audio(wave).shape == (14, 1, 128, 66)
    else:
        with pytest.raises(UsageError, match="too short for 14 segments"):
            fe.synchformer_audio(wave)


def test_lead_trim_shifts_the_sound_alone() -> None:
    frames, wave = fe.cut_window(*ramp(), start_s=1.0, offset_s=0.0, audio_lead_trim_samples=1024)
    assert frames[0] == 25
    assert wave[0] == 16_000 + 1024


def test_sound_up_to_one_frame_before_the_clip_begins_at_its_start() -> None:
    assert fe.cut_window(*ramp(), start_s=0, offset_s=-0.04)[1][0] == 0
    with pytest.raises(UsageError, match="does not fit into 10 s of picture"):
        fe.cut_window(*ramp(), start_s=0, offset_s=-0.05)


def test_a_window_beyond_the_end_is_refused() -> None:
    with pytest.raises(UsageError, match=r"5 s window at 5\.04 s"):
        fe.cut_window(*ramp(), start_s=5.04, offset_s=0)
    with pytest.raises(UsageError, match="does not fit"):
        fe.cut_window(*ramp(), start_s=4, offset_s=1.2)


@given(st.integers(0, 400), st.integers(100_000, 250_000))
def test_streams_are_cut_to_the_same_whole_number_of_frames(n_frames: int, n_samples: int) -> None:
    frames, wave = fe.equalise(torch.zeros(n_frames), torch.zeros(n_samples))
    assert len(wave) == 640 * len(frames)
    assert len(frames) <= min(250, n_frames, n_samples // 640)


def test_crop_rounds_half_to_even() -> None:
    rows = torch.arange(229)[:, None].expand(-1, 227)
    columns = torch.arange(227)[None].expand(229, -1)
    frames = torch.stack([rows, columns, columns], dim=-1)[None].to(torch.uint8)
    cropped = fe.centre_crop(frames)
    assert cropped.shape == (1, 3, 224, 224)
    assert cropped[0, 0, 0, 0] == round(2.5) == 2
    assert cropped[0, 1, 0, 0] == round(1.5) == 2
    with pytest.raises(UsageError, match="320x200"):
        fe.centre_crop(torch.zeros(1, 200, 320, 3, dtype=torch.uint8))


def test_sparsesync_video_is_imagenet_normalised() -> None:
    frames = torch.full((2, 256, 256, 3), 255, dtype=torch.uint8)
    video = fe.sparsesync_video(frames)
    assert (video.shape, video.dtype) == ((2, 3, 224, 224), torch.float32)
    assert torch.allclose(video[0, :, 0, 0], torch.tensor([(1 - m) / s for m, s in zip(fe.RGB_MEAN, fe.RGB_STD)]))  # noqa: B905


def test_spectrogram_of_a_tone_peaks_at_its_frequency() -> None:
    t = torch.arange(80_000) / 16_000
    spectrum = fe.log_spectrogram(torch.sin(2 * math.pi * 1000 * t))
    assert spectrum.shape == (257, 626)
    assert torch.all(spectrum[:, 10:-10].argmax(0) == 32)  # 1000 Hz in bins of 31.25 Hz
    # a full-scale sine under a Hann window of 512: amplitude 512 / 4
    assert spectrum[32, 300].item() == pytest.approx(2 * math.log(128), abs=1e-3)


def test_spectrogram_is_standardised_over_time() -> None:
    spectrum = fe.sparsesync_audio(torch.randn(80_000, generator=torch.Generator().manual_seed(0)))[0]
    assert torch.allclose(spectrum.mean(1), torch.zeros(257), atol=1e-4)
    assert torch.allclose(spectrum.std(1), torch.ones(257), atol=1e-4)  # unbiased


def test_silence_and_constants_stay_finite() -> None:
    for wave in (torch.zeros(80_000), torch.full((80_000,), 0.5)):
        assert fe.sparsesync_audio(wave).isfinite().all()
        assert fe.synchformer_audio(wave).isfinite().all()


def test_a_batch_of_windows_equals_one_by_one() -> None:
    waves = 0.1 * torch.randn(3, 80_000, generator=torch.Generator().manual_seed(0))
    together = fe.window_spectrogram(waves)
    assert together.shape == (3, 1, 257, 626)
    assert all(torch.equal(together[i], fe.sparsesync_audio(waves[i])) for i in range(3))
    together = fe.synchformer_audio(waves)
    assert together.shape == (3, 14, 1, 128, 66)
    assert all(torch.equal(together[i], fe.synchformer_audio(waves[i])) for i in range(3))


def test_stretch_windows_are_slices_of_one_standardised_spectrogram() -> None:
    wave = 0.1 * torch.randn(9 * 16_000, generator=torch.Generator().manual_seed(0))
    frames = torch.randint(0, 255, (9 * 25, 224, 224, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    videos, audios = fe.streamsync_windows(frames, wave, 2, 2)
    assert (videos.shape, audios.shape) == ((2, 125, 3, 224, 224), (2, 1, 257, 625))
    whole = fe.sparsesync_audio(wave)
    assert torch.equal(audios[1], whole[:, :, 250:875])
    assert torch.equal(videos[1], fe.sparsesync_video(frames[50:175]))
    # a window's own samples, standardised over the stretch, differ at its edges alone, where they are reflected
    mean, deviation = fe.spectrogram_statistics(fe.log_spectrogram(wave)).unbind(-1)
    alone = fe.log_spectrogram(wave[32_000 : 32_000 + 80_000])[:, :625]
    alone = (alone - mean[:, None]) / (deviation[:, None] + 1e-6)
    assert torch.allclose(alone[:, 2:-2], audios[1, 0, :, 2:-2], atol=1e-3)
    for edge in (slice(2), slice(-2, None)):
        assert not torch.allclose(alone[:, edge], audios[1, 0, :, edge], atol=1e-3)
    with pytest.raises(UsageError, match=r"3 windows with hop 2\.5 s do not fit into 9 s"):
        fe.streamsync_windows(frames, wave, 3, 2.5)


def test_half_cast_rounds_to_float16() -> None:
    wave = 0.1 * torch.randn(7 * 16_000, generator=torch.Generator().manual_seed(0))
    frames = torch.full((7 * 25, 224, 224, 3), 77, dtype=torch.uint8)
    full, half = (fe.streamsync_windows(frames, wave, 1, 1, half_cast)[1] for half_cast in (False, True))
    assert half.dtype == torch.float32
    assert torch.equal(half, full.half().float())
    assert not torch.equal(half, full)


def test_segments_overlap_by_half_and_are_centred() -> None:
    video = torch.arange(125, dtype=torch.float32)[:, None, None, None].expand(-1, 3, 1, 1)
    segments = fe.segment_video(video)
    assert segments.shape == (14, 16, 3, 1, 1)
    assert segments[:, 0, 0, 0, 0].tolist() == [2 + 8 * i for i in range(14)]
    assert segments[-1, -1, 0, 0, 0] == 121
    sound = fe.segment_audio(torch.arange(80_000))
    assert sound.shape == (14, 10_240)
    assert sound[:, 0].tolist() == [1280 + 5120 * i for i in range(14)]
    for cut, window in ((fe.segment_video, video[:100]), (fe.segment_audio, torch.zeros(70_000))):
        with pytest.raises(UsageError, match="too short"):
            cut(window)


def test_synchformer_video_takes_every_step_in_float16() -> None:
    frames = torch.arange(256, dtype=torch.uint8).repeat(224, 1)[None, :, :, None].expand(125, -1, -1, 3)
    video = fe.synchformer_video(frames)
    assert (video.shape, video.dtype) == ((14, 16, 3, 224, 224), torch.float16)
    value = ((torch.tensor(16.0).half() / 255).half() - 0.5).half() / 0.5
    assert video[0, 0, 0, 0, 0] == value.half()


def test_synchformer_mel_pads_after_the_log() -> None:
    mel = fe.synchformer_audio(0.1 * torch.randn(80_000, generator=torch.Generator().manual_seed(0)))
    assert (mel.shape, mel.dtype) == ((14, 1, 128, 66), torch.float32)
    assert torch.allclose(mel[..., 65], torch.tensor(0.46703), atol=1e-5)
    assert mel[..., :65].std() > 0.05


def test_mel_filters_are_triangles_of_height_below_one() -> None:
    filters = fe._mel_filters(torch.device("cpu"))
    assert filters.shape == (513, 128)
    assert filters.min() == 0
    assert filters.max() <= 1
    centres = filters.argmax(0)[30:]  # the lowest filters are narrower than a bin
    assert torch.all(centres[1:] > centres[:-1])


def test_numpy_arrays_are_taken_as_tensors_are() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (125, 230, 260, 3), np.uint8)
    wave = np.random.default_rng(1).standard_normal(80_000).astype(np.float32)
    for frontend in (fe.sparsesync_video, fe.synchformer_video):
        assert torch.equal(frontend(frames), frontend(torch.from_numpy(frames)))
    for frontend in (fe.sparsesync_audio, fe.synchformer_audio):
        assert torch.equal(frontend(wave), frontend(torch.from_numpy(wave)))


def test_sound_too_short_for_a_spectrum_is_refused() -> None:
    assert fe.sparsesync_audio(torch.ones(257)).shape == (1, 257, 3)
    with pytest.raises(UsageError, match="256 samples are too short for a spectrum: at least 257"):
        fe.sparsesync_audio(torch.ones(256))
