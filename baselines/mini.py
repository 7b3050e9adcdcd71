"""The embedded mini backbones: small enough to train on a laptop's CPU and to ship with the package.

They have the structure of the published models (two towers, selectors, a global transformer with OFF and PASS tokens;
for the segment backbone: towers that see only 0.64 s segments, pretrained contrastively and then frozen), but give the
transformer an explicit correlation of the two towers over time, which makes them trainable in under an hour.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from avbench.baselines.blocks import Block, CrossBlock, init_fusion
from avbench.baselines.streamsync import TokenMaker
from avbench.types import FrontEnd, Snapshot, SnapshotPredictor

N_FRAMES = 125  # one 5 s window at 25 fps
N_MELS = 48
MEL_HOP = 160  # samples: 10 ms
MAX_LAG = 55  # frames: 2.2 s, so that the edge classes are complete
N_CLASSES = 21
FRAMES_PER_CLASS = 5


def mel_filters(n_freqs: int, n_mels: int, sample_rate_hz: int = 16_000) -> Tensor:
    """(n_freqs, n_mels) triangular filters on the HTK mel scale."""
    hz = torch.linspace(0, sample_rate_hz / 2, n_freqs)
    top = 2595 * torch.log10(torch.tensor(1 + sample_rate_hz / 2 / 700))
    edges = 700 * (10 ** (torch.linspace(20, float(top), n_mels + 2) / 2595) - 1)
    rising = (hz[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - hz[:, None]) / (edges[2:] - edges[1:-1])
    return torch.minimum(rising, falling).clamp(min=0)


class LogMel(nn.Module):
    """(B, N) samples in [-1, 1] -> (B, n_mels, N / 160) log-mel, one column per 10 ms, centred frames."""

    def __init__(self) -> None:
        super().__init__()
        self.window: Tensor
        self.filters: Tensor
        self.register_buffer("window", torch.hann_window(400), persistent=False)
        self.register_buffer("filters", mel_filters(257, N_MELS), persistent=False)

    def forward(self, audio: Tensor) -> Tensor:
        """(B, N) samples in [-1, 1] at 16 kHz -> (B, n_mels, N // 160) natural-log mel power, not standardised."""
        spectrum = torch.stft(
            audio, 512, MEL_HOP, 400, self.window, center=True, pad_mode="reflect", return_complex=True
        )
        power = spectrum.real**2 + spectrum.imag**2
        mel = (power.transpose(1, 2) @ self.filters).transpose(1, 2)
        return torch.log(mel[:, :, : audio.shape[1] // MEL_HOP] + 1e-5)

    @staticmethod
    def statistics(mel: Tensor) -> Tensor:
        """(B, n_mels, T) -> (B, n_mels, 2): mean and unbiased standard deviation over time, per frequency."""
        return torch.stack([mel.mean(-1), mel.std(-1)], dim=-1)

    @staticmethod
    def standardise(mel: Tensor, statistics: Tensor) -> Tensor:
        """Per-frequency standardisation; the floor keeps nearly constant bands (and silence) from blowing up."""
        return (mel - statistics[..., :1]) / statistics[..., 1:].clamp(min=0.25)


def luma(video: Tensor) -> Tensor:
    """(B, T, 3, H, W) uint8 RGB -> (B, T, H, W) float32 in [-0.5, 0.5] (BT.601 weights)."""
    weights = video.new_tensor([0.299, 0.587, 0.114], dtype=torch.float32)
    return torch.einsum("btchw,c->bthw", video.float(), weights) / 255 - 0.5


class TemporalBlock(nn.Module):
    """Residual convolution over time, (N, D, T) -> (N, D, T)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(dim)
        self.conv = nn.Conv1d(dim, dim, 5, padding=2)

    def forward(self, x: Tensor) -> Tensor:
        """(N, D, T) -> (N, D, T)."""
        return x + self.conv(F.gelu(self.norm(x)))


class VideoTower(nn.Module):
    """(N, T, 64, 64) luma -> (N, T, D): convolutions over each frame and its difference to the last, then over time."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Conv2d(2, 24, 6, stride=4, padding=1, bias=False),
            nn.BatchNorm2d(24),
            nn.ReLU(),
            nn.Conv2d(24, 32, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.Conv2d(32, 48, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(48),
            nn.ReLU(),
        )
        self.fc = nn.Linear(48 * 16, dim)
        self.time = nn.Sequential(TemporalBlock(dim), TemporalBlock(dim))

    def forward(self, x: Tensor) -> Tensor:
        """(N, T, 64, 64) float32 luma in [-0.5, 0.5] -> (N, T, D)."""
        n, t = x.shape[:2]
        change = torch.diff(x, dim=1, prepend=x[:, :1]) * 3
        frames = torch.stack([x, change], dim=2).flatten(0, 1)
        features = self.fc(self.trunk(frames).flatten(1)).unflatten(0, (n, t))
        return self.time(features.transpose(1, 2)).transpose(1, 2)


class AudioTower(nn.Module):
    """(N, n_mels, 4 T) standardised log-mel -> (N, T, D) at 25 Hz."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Conv2d(1, 16, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.Conv2d(32, 48, 3, stride=(2, 1), padding=1, bias=False),
            nn.BatchNorm2d(48),
            nn.ReLU(),
        )
        self.fc = nn.Linear(48 * (N_MELS // 8), dim)
        self.time = nn.Sequential(TemporalBlock(dim), TemporalBlock(dim))

    def forward(self, mel: Tensor) -> Tensor:
        """(N, n_mels, 4 T) standardised log-mel at 100 Hz -> (N, T, D) at 25 Hz."""
        x = self.trunk(mel[:, None])
        features = self.fc(x.permute(0, 3, 1, 2).flatten(2))
        return self.time(features.transpose(1, 2)).transpose(1, 2)


def lag_correlation(video: Tensor, audio: Tensor, heads: int, max_lag: int = MAX_LAG) -> Tensor:
    """(B, T, D) x (B, T, D) -> (B, heads, 2 max_lag + 1): sum over t of video[t + lag] . audio[t].

    An event at source time s lies at s - v in the picture window and at s - v - offset in the sound window, so the
    peak is at lag = +offset: early audio (positive offset) peaks at a positive lag.
    """
    n = video.shape[1]
    size = 2 * n + 6  # enough for every lag without wrapping; 256 for 5 s windows
    v, a = ((x - x.mean(1, keepdim=True)).float().unflatten(-1, (heads, -1)) for x in (video, audio))
    product = (torch.fft.rfft(v, size, dim=1) * torch.fft.rfft(a, size, dim=1).conj()).sum(-1)
    full = torch.fft.irfft(product, size, dim=1)
    lags = torch.arange(-max_lag, max_lag + 1, device=v.device)
    overlap = (n - lags.abs()).clamp(min=1).to(full)
    return (full[:, lags % size] / overlap.sqrt()[:, None]).transpose(1, 2)


class Fusion(nn.Module):
    """Towers' features -> snapshot: selectors, lag tokens from the correlation, global transformer, OFF and PASS.

    Sequence: [OFF, PASS, 21 lag tokens, S visual, MOD, S audio]. ``forward`` returns logits (B, 21), OFF output (B, D),
    PASS output (B, D) and the auxiliary logits (B, 21) of the correlation alone.
    """

    def __init__(self, feature_dim: int, dim: int = 96, heads: int = 4, layers: int = 2, selectors: int = 4) -> None:
        super().__init__()
        self.correlation_heads = 8
        self.lags = nn.Sequential(nn.Conv1d(8, 32, 7, padding=3), nn.GELU())
        self.lag_tokens = nn.Conv1d(32, dim, 2 * FRAMES_PER_CLASS + 1, stride=FRAMES_PER_CLASS)
        self.lag_pos = nn.Parameter(torch.zeros(1, N_CLASSES, dim))
        self.v_in, self.a_in = nn.Linear(feature_dim, dim), nn.Linear(feature_dim, dim)
        self.v_time, self.a_time = (nn.Parameter(0.02 * torch.randn(1, N_FRAMES, dim)) for _ in range(2))
        self.v_query, self.a_query = (nn.Parameter(torch.randn(1, selectors, dim)) for _ in range(2))
        self.selector = CrossBlock(dim, heads, 0.0)  # shared by both towers to save weights
        self.OFF_tok, self.PASS_tok, self.MOD_tok = (nn.Parameter(torch.randn(1, 1, dim)) for _ in range(3))
        self.blocks = nn.Sequential(*(Block(dim, heads, 0.0) for _ in range(layers)))
        self.ln_f = nn.LayerNorm(dim)
        self.off_head = nn.Linear(dim, N_CLASSES, bias=False)
        self.lag_head = nn.Linear(dim, 1)
        self.aux_head = nn.Linear(dim, 1)
        init_fusion(self)

    def forward(self, video: Tensor, audio: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Features (B, T, D_feature) of both towers, T <= 125 -> logits (B, 21), OFF (B, D), PASS (B, D) and auxiliary
        logits (B, 21)."""
        correlation = lag_correlation(video, audio, self.correlation_heads)
        lag = self.lag_tokens(self.lags(correlation)).transpose(1, 2)
        aux = self.aux_head(lag)[..., 0]
        b, t = video.shape[:2]
        first = (N_FRAMES - t) // 2  # segment backbones cover fewer frames, centred
        v = self.selector(self.v_query.expand(b, -1, -1), self.v_in(video) + self.v_time[:, first : first + t])
        a = self.selector(self.a_query.expand(b, -1, -1), self.a_in(audio) + self.a_time[:, first : first + t])
        off, passed, mod = (x.expand(b, -1, -1) for x in (self.OFF_tok, self.PASS_tok, self.MOD_tok))
        o = self.ln_f(self.blocks(torch.cat([off, passed, lag + self.lag_pos, v, mod, a], dim=1)))
        logits = self.off_head(o[:, 0]) + self.lag_head(o[:, 2 : 2 + N_CLASSES])[..., 0]
        return logits, o[:, 0], o[:, 1], aux


class MiniBackbone(nn.Module, SnapshotPredictor):
    """What both mini backbones share: front end, fusion, streaming token and the two-tower path."""

    frontend = FrontEnd(size=64)
    two_tower = True
    column_samples = MEL_HOP

    def __init__(self, feature_dim: int = 96, dim: int = 96) -> None:
        super().__init__()
        self.logmel = LogMel()
        self.video_tower = VideoTower(feature_dim)
        self.audio_tower = AudioTower(feature_dim)
        self.fusion = Fusion(feature_dim, dim)
        self.token_maker = TokenMaker(dim)
        self.token_dim = dim

    def stretch_sound(self, audio: Tensor) -> Tensor:
        """(N,) samples of a whole stretch -> (n_mels, N // 160) standardised log-mel; a window has 500 columns."""
        return self._standardised(audio[None])[0]

    def _standardised(self, audio: Tensor) -> Tensor:
        mel = self.logmel(audio)
        return LogMel.standardise(mel, LogMel.statistics(mel))

    def encode_video(self, video: Tensor) -> Tensor:
        """(B, 125, 3, 64, 64) uint8 -> (B, T, D)."""
        return self.video_features(luma(video))

    def encode_audio(self, audio: Tensor) -> Tensor:
        """(B, 80000) samples, or (B, n_mels, 500) columns of ``stretch_sound`` -> (B, T, D)."""
        return self.audio_features(self._standardised(audio) if audio.ndim == 2 else audio)

    def fuse(self, video_features: Tensor, audio_features: Tensor) -> Snapshot:
        """Features (B, T, D) of both towers -> logits (B, 21) and token (B, D)."""
        logits, off, passed, _ = self.fusion(video_features, audio_features)
        return Snapshot(logits, self.token_maker(logits, off, passed))

    def predict(self, video: Tensor, audio: Tensor) -> Snapshot:
        """(B, 125, 3, 64, 64) uint8 and (B, 80000) float32 samples, or columns as in ``encode_audio`` -> logits (B, 21)
        and token (B, D)."""
        return self.fuse(self.encode_video(video), self.encode_audio(audio))

    def video_features(self, picture: Tensor) -> Tensor:
        """(B, 125, 64, 64) luma -> (B, T, D)."""
        return self.video_tower(picture)

    def audio_features(self, mel: Tensor) -> Tensor:
        """(B, n_mels, 500) standardised log-mel -> (B, T, D)."""
        return self.audio_tower(mel)


class MiniSparseSync(MiniBackbone):
    """SparseSync-like: both towers see the whole window."""

    description = "mini SparseSync-like backbone (two towers, correlation over lags, selectors, global transformer)"


class MiniSynchformer(MiniBackbone):
    """Synchformer-like: the towers see 14 segments of 0.64 s (50 % overlap), each on its own."""

    description = "mini Synchformer-like backbone (segment towers pretrained contrastively, then frozen)"
    n_segments, segment_frames, step_frames, first_frame = 14, 16, 8, 2

    def _segments(self, x: Tensor, per_frame: int) -> Tensor:
        """(B, ..., time) -> (B * 14, ..., segment) along the last axis; ``per_frame`` columns belong to one frame."""
        x = x[..., self.first_frame * per_frame :]
        x = x.unfold(-1, self.segment_frames * per_frame, self.step_frames * per_frame)[..., : self.n_segments, :]
        return x.movedim(-2, 1).flatten(0, 1)

    def _stitch(self, features: Tensor) -> Tensor:
        """(B * 14, 16, D) -> (B, 120, D): overlapping halves are averaged."""
        x = features.unflatten(0, (-1, self.n_segments))
        first, second = x[:, :, : self.step_frames], x[:, :, self.step_frames :]
        parts = [
            first[:, 0],
            *((second[:, i] + first[:, i + 1]) / 2 for i in range(self.n_segments - 1)),
            second[:, -1],
        ]
        return torch.cat(parts, dim=1)

    def segment_video(self, picture: Tensor) -> Tensor:
        """(B, 125, 64, 64) -> (B * 14, 16, D)."""
        return self.video_tower(self._segments(picture.movedim(1, -1), 1).movedim(-1, 1))

    def segment_audio(self, mel: Tensor) -> Tensor:
        """(B, n_mels, 500) -> (B * 14, 16, D)."""
        return self.audio_tower(self._segments(mel, 4))

    def video_features(self, picture: Tensor) -> Tensor:
        """(B, 125, 64, 64) luma -> (B, 120, D), frames 2 ... 121."""
        return self._stitch(self.segment_video(picture))

    def audio_features(self, mel: Tensor) -> Tensor:
        """(B, n_mels, 500) standardised log-mel -> (B, 120, D), frames 2 ... 121."""
        return self._stitch(self.segment_audio(mel))
