"""StreamSync's heads: causal, step by step equal to the whole sequence, published structure."""

from __future__ import annotations

import pytest
import torch

from avbench.baselines.blocks import neighbour_smoothed
from avbench.baselines.streamsync import RecencyEmbedding, StreamingLSTM, StreamingTransformer, TokenMaker
from avbench.types import Snapshot, StreamingHead


@pytest.fixture(params=[StreamingTransformer, StreamingLSTM])
def head(request: pytest.FixtureRequest) -> StreamingHead:
    torch.manual_seed(0)
    return request.param(32).eval()


def run(head: StreamingHead, tokens: torch.Tensor) -> torch.Tensor:
    state, outputs = head.init(len(tokens)), []
    with torch.inference_mode():
        for i in range(tokens.shape[1]):
            state, logits = head.step(state, Snapshot(torch.zeros(len(tokens), 21), tokens[:, i]), 2.0 * i)
            outputs.append(logits)
    return torch.stack(outputs, dim=1)


def test_noise_after_a_window_leaves_the_past_bit_identical(head: StreamingHead) -> None:
    tokens = torch.randn(3, 12, 32)
    noisy = tokens.clone()
    noisy[:, 7:] = 100 * torch.randn(3, 5, 32)
    before, after = run(head, tokens), run(head, noisy)
    assert torch.equal(before[:, :7], after[:, :7])
    assert not torch.equal(before[:, 7:], after[:, 7:])


def test_lstm_step_by_step_equals_the_sequence() -> None:
    torch.manual_seed(0)
    head = StreamingLSTM(32).eval()
    tokens = torch.randn(2, 9, 32)
    with torch.inference_mode():
        assert torch.allclose(run(head, tokens), head(tokens)[0], atol=1e-6)


def test_transformer_reads_newest_first() -> None:
    torch.manual_seed(0)
    head = StreamingTransformer(32).eval()
    for weight in head.parameters():
        torch.nn.init.normal_(weight, std=0.5)  # trained size: at initialisation attention is almost uniform
    tokens = torch.randn(2, 5, 32)
    with torch.inference_mode():
        assert torch.allclose(run(head, tokens)[:, -1], head(tokens.flip(1)), atol=1e-6)
        assert not torch.allclose(head(tokens), head(tokens.flip(1)), atol=1e-4)  # order matters


def test_published_sizes() -> None:
    assert sum(p.numel() for p in StreamingTransformer().parameters()) == 10_257_429
    assert sum(p.numel() for p in StreamingLSTM().parameters()) == 6_316_565


def test_recency_positions_are_sinusoids_of_window_counts() -> None:
    table = RecencyEmbedding(512).sinusoids(3)
    assert torch.allclose(table[0, ::2], torch.zeros(256))
    assert torch.allclose(table[0, 1::2], torch.ones(256))
    assert torch.isclose(table[2, 0], torch.sin(torch.tensor(2 * torch.pi * 2 / 100)))


def test_token_is_linear_in_expected_offset_off_and_pass() -> None:
    torch.manual_seed(0)
    maker = TokenMaker(8)
    logits, off, passed = torch.randn(2, 21), torch.randn(2, 8), torch.randn(2, 8)
    expected = torch.einsum("bc,cd->bd", logits.softmax(-1), maker.offset_tok[0])
    by_hand = torch.cat([expected, off, passed], 1) @ maker.streaming_down_proj.weight.T
    assert torch.allclose(maker(logits, off, passed), by_hand + maker.streaming_down_proj.bias, atol=1e-5)


def test_neighbour_smoothing_as_published() -> None:
    target = neighbour_smoothed(torch.tensor([0, 3, 20]))
    assert torch.allclose(target.sum(1), torch.ones(3))
    assert torch.allclose(target[0, :2], torch.tensor([0.9, 0.1]))
    assert torch.allclose(target[1, 2:5], torch.tensor([0.1, 0.8, 0.1]))
    assert torch.allclose(target[2, 19:], torch.tensor([0.1, 0.9]))
