"""The mini backbones: sign of the correlation, segments, two-tower path, batches."""

from __future__ import annotations

import pytest
import torch

from avbench.baselines.mini import LogMel, MiniBackbone, MiniSparseSync, MiniSynchformer, lag_correlation, luma


def windows(batch: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    video = torch.randint(0, 256, (batch, 125, 3, 64, 64), dtype=torch.uint8, generator=g)
    return video, 0.1 * torch.randn(batch, 80_000, generator=g)


@pytest.fixture(params=[MiniSparseSync, MiniSynchformer])
def model(request: pytest.FixtureRequest) -> MiniBackbone:
    torch.manual_seed(0)
    return request.param().eval()


@pytest.mark.parametrize("shift", [-50, -7, 0, 13, 50])
def test_early_sound_peaks_at_a_positive_lag(shift: int) -> None:
    stream = torch.randn(1, 300, 32, generator=torch.Generator().manual_seed(1))
    video, audio = stream[:, 80:205], stream[:, 80 + shift : 205 + shift]  # sound from later in the source = early
    peak = lag_correlation(video, audio, heads=1)[0, 0].argmax()
    assert int(peak) - 55 == shift


def test_correlation_equals_its_definition() -> None:
    g = torch.Generator().manual_seed(2)
    video, audio = torch.randn(1, 20, 4, generator=g), torch.randn(1, 20, 4, generator=g)
    v, a = video - video.mean(1, keepdim=True), audio - audio.mean(1, keepdim=True)
    ours = lag_correlation(video, audio, heads=1, max_lag=6)[0, 0]
    for lag in range(-6, 7):
        pairs = [(t + lag, t) for t in range(20) if 0 <= t + lag < 20]
        expected = sum(v[0, i] @ a[0, j] for i, j in pairs) / len(pairs) ** 0.5
        assert torch.isclose(ours[lag + 6], expected, atol=1e-5)


def test_two_towers_equal_the_plain_path(model: MiniBackbone) -> None:
    video, audio = windows()
    with torch.inference_mode():
        whole = model.predict(video, audio)
        parts = model.fuse(model.encode_video(video), model.encode_audio(audio))
    assert torch.equal(whole.logits, parts.logits)
    assert torch.equal(whole.token, parts.token)
    assert whole.logits.shape == (2, 21)
    assert whole.token.shape == (2, model.token_dim)


def test_batch_does_not_change_a_prediction(model: MiniBackbone) -> None:
    video, audio = windows(3)
    with torch.inference_mode():
        together = model.predict(video, audio).logits
        alone = torch.cat([model.predict(video[i : i + 1], audio[i : i + 1]).logits for i in range(3)])
    assert torch.allclose(together, alone, atol=1e-4)


def test_silence_stays_finite(model: MiniBackbone) -> None:
    video, _ = windows(1)
    with torch.inference_mode():
        assert torch.isfinite(model.predict(video * 0, torch.zeros(1, 80_000)).logits).all()


def test_a_window_cut_out_of_a_stretch_is_taken_in_place_of_samples(model: MiniBackbone) -> None:
    video, audio = windows(1)
    loud = torch.cat([0.01 * audio[0], audio[0], 0.01 * audio[0]])
    with torch.inference_mode():
        own = model.predict(video, model.stretch_sound(audio[0])[None]).logits
        assert torch.allclose(own, model.predict(video, audio).logits, atol=1e-5)  # the window is all of its stretch
        heard = model.stretch_sound(loud)
        cut = heard[None, :, 500:1000]
        inner = model.predict(video, cut)
        fused = model.fuse(model.encode_video(video), model.encode_audio(cut))
    assert heard.shape == (48, len(loud) // model.column_samples) == (48, 1500)
    assert torch.equal(inner.logits, fused.logits)
    assert not torch.allclose(inner.logits, own, atol=1e-3)
    spectrum = torch.stft(loud, 512, 160, 400, torch.hann_window(400), pad_mode="reflect", return_complex=True)
    mel = (model.logmel.filters.T @ spectrum.abs() ** 2 + 1e-5).log()[:, :1500]
    mel = (mel - mel.mean(1, keepdim=True)) / mel.std(1, keepdim=True).clamp(min=0.25)
    assert torch.allclose(heard, mel, atol=1e-4)


def test_synchformer_segments_cover_the_window_centred() -> None:
    torch.manual_seed(0)
    model = MiniSynchformer().eval()
    frames = torch.arange(125.0).expand(1, 125)
    segments = model._segments(frames, 1)
    assert segments.shape == (14, 16)
    assert segments[0, 0] == 2
    assert segments[-1, -1] == 121
    stitched = model._stitch(segments[..., None])
    assert torch.equal(stitched[0, :, 0], torch.arange(2.0, 122.0))


def test_synchformer_towers_see_one_segment_only() -> None:
    torch.manual_seed(0)
    model = MiniSynchformer().eval()
    picture = torch.randn(1, 125, 64, 64)
    changed = picture.clone()
    changed[:, 60:] += 1
    with torch.inference_mode():
        a, b = (model.segment_video(x).unflatten(0, (1, 14)) for x in (picture, changed))
    assert torch.equal(a[:, :5], b[:, :5])  # segment 5 is the first that reaches frame 60
    assert not torch.equal(a[:, 6], b[:, 6])


def test_luma_and_logmel_shapes() -> None:
    video, audio = windows(1)
    assert luma(video).shape == (1, 125, 64, 64)
    assert LogMel()(audio).shape == (1, 48, 500)
    white = torch.full((1, 1, 3, 64, 64), 255, dtype=torch.uint8)
    assert torch.allclose(luma(white), torch.tensor(0.5), atol=1e-5)
