"""Any head on any backbone: the made token, head files, precision."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from published_files import build_small

from avbench.baselines import weights
from avbench.baselines.adapter import DESCRIPTION, TRAINED, AdaptedHead, features, fixed_map
from avbench.baselines.streamsync import StreamingLSTM, StreamingTransformer
from avbench.baselines.tuned import Tuned, tuned
from avbench.engine.fingerprint import model_fingerprint
from avbench.engine.replay import leaks, replay
from avbench.registry.facts import whole_fingerprint
from avbench.registry.heads import HEADS
from avbench.registry.names import load_model
from avbench.types import AvbenchError, Snapshot, SnapshotPredictor, UsageError
from avbench.weights import checkpoints
from avbench.weights.checkpoints import drawn_weights
from avbench.weights.heads import export_head, load_head

NET = """
import torch
from avbench import FrontEnd, Snapshot, SnapshotPredictor

class Net(torch.nn.Module, SnapshotPredictor):
    frontend = FrontEnd(size=16)

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(4, 21)

    def predict(self, video, audio):
        return Snapshot(self.layer(audio[:, :4]))

class Token(Net):
    token_dim = 64

    def predict(self, video, audio):
        logits = self.layer(audio[:, :4])
        return Snapshot(logits, torch.nn.functional.pad(logits, (0, 43)))
"""


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Several threads on a busy machine cost more than they save."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def head_of(kind: str, dim: int = 64) -> Any:
    torch.manual_seed(1)
    head = StreamingLSTM(dim) if kind == "lstm" else StreamingTransformer(dim, heads=4, layers=2)
    for weight in head.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    return head.eval()


@pytest.fixture
def net(tmp_path: Path) -> str:
    (tmp_path / "net.py").write_text(NET)
    return f"{tmp_path / 'net.py'}:"


# ----------------------------------------------------------------------------------------------------------- the token


@pytest.mark.parametrize("dim", [64, 96, 512])
def test_the_fixed_map_is_orthonormal_and_always_the_same(dim: int) -> None:
    weight = fixed_map(21, dim)
    assert torch.allclose(weight.T @ weight, torch.eye(42), atol=1e-5)
    assert torch.allclose(weight.sum(0), torch.zeros(42), atol=1e-4)
    assert torch.equal(weight, fixed_map(21, dim))
    with pytest.raises(UsageError, match="needs a width above 42, not 42"):
        fixed_map(21, 42)


def test_the_token_keeps_what_the_backbone_said_even_behind_a_layer_norm() -> None:
    logits = 3 * torch.randn(50, 21, generator=torch.Generator().manual_seed(0))
    token = AdaptedHead(head_of("trf"), 64).token(logits)
    normed = torch.nn.functional.layer_norm(token, (64,))
    scale = token.std(-1, correction=0, keepdim=True)
    back = (normed * scale) @ fixed_map(21, 64)
    assert torch.allclose(back, features(logits), atol=1e-4)
    # a constant added to the logits says nothing; confidence does, though LayerNorm removes the token's size
    assert torch.allclose(AdaptedHead(head_of("trf"), 64).token(logits + 5), token, atol=1e-4)
    sharper = torch.nn.functional.layer_norm(AdaptedHead(head_of("trf"), 64).token(3 * logits), (64,))
    assert (sharper - normed).norm(dim=-1).min() > 0.5


def test_extreme_logits_stay_finite() -> None:
    logits = torch.tensor([[1e4] + [0.0] * 20, [-1e4] + [0.0] * 20])
    assert features(logits).isfinite().all()


@pytest.mark.parametrize("kind", ["trf", "lstm"])
def test_an_adapted_head_is_causal_and_ignores_the_backbones_token(kind: str) -> None:
    head = AdaptedHead(head_of(kind), 64)
    logits = np.random.default_rng(0).standard_normal((3, 6, 21)).astype(np.float32)
    assert leaks(head, logits, None, 2.0) == []
    by_hand = head_of(kind)
    tokens = head.token(torch.from_numpy(logits)).detach().numpy()
    np.testing.assert_allclose(replay(head, logits, None, 2.0), replay(by_hand, logits, tokens, 2.0), atol=1e-6)


# ---------------------------------------------------------------------------------------------------------- head files


@pytest.mark.parametrize("kind", ["trf", "lstm"])
@pytest.mark.parametrize("how", ["backbone", "adapter", "trained adapter"])
def test_a_head_file_gives_back_the_head(kind: str, how: str, tmp_path: Path) -> None:
    head: Any = head_of(kind)
    if how != "backbone":
        head = AdaptedHead(head, 64, learn=how == "trained adapter")
    if how == "trained adapter":
        torch.nn.init.normal_(head.weight)
    path = tmp_path / "head.safetensors"
    card = export_head(path, head, trained_on="my tapes", backbone="net", backbone_fingerprint="0" * 64, steps=3)
    assert json.loads(path.with_suffix(".json").read_text()) == card
    assert (card["head"], card["token"], card["token_dim"], card["steps"]) == (kind, how.split()[-1], 64, 3)
    loaded = load_head(path, kind)
    assert loaded.token_from == how.split()[-1]
    rng = np.random.default_rng(0)
    logits, tokens = (rng.standard_normal((2, 5, n)).astype(np.float32) for n in (21, 64))
    np.testing.assert_array_equal(replay(head, logits, tokens, 2.0), replay(loaded, logits, tokens, 2.0))
    if how != "backbone":
        assert loaded.token_source == (TRAINED if how == "trained adapter" else DESCRIPTION)


def test_wrong_head_files_are_one_line(tmp_path: Path, net: str) -> None:
    path = tmp_path / "head.safetensors"
    facts = {"trained_on": "x", "backbone": "net", "backbone_fingerprint": "0" * 64}
    export_head(path, head_of("trf"), **facts)
    with pytest.raises(AvbenchError, match="contains the weights of a trf head, but lstm is needed"):
        load_head(path, "lstm")
    with pytest.raises(UsageError, match=r"trained on a backbone's own streaming token and .*gives none"):
        load_model(net + "Net+trf", head_weights=path)
    with pytest.raises(UsageError, match="contains a head only: name it with --head-weights"):
        load_model("sparsesync", weights=path)
    with pytest.raises(UsageError, match=r"reads tokens of 64 values, sparsesync\.synthsync gives 96"):
        load_model("sparsesync+trf", head_weights=path)
    with pytest.raises(AvbenchError, match=r"gone\.safetensors does not exist"):
        load_model("sparsesync+trf", head_weights=tmp_path / "gone.safetensors")
    whole = tmp_path / "whole.safetensors"
    whole.write_bytes(files(weights).joinpath("streamsync-trf.safetensors").read_bytes())
    with pytest.raises(AvbenchError, match=r"whole\.safetensors contains more than a head.*name it with --weights"):
        load_model("sparsesync+trf", head_weights=whole)
    card = path.with_suffix(".json")
    card.write_text(card.read_text().replace('"sha256": "', '"sha256": "0'))
    with pytest.raises(AvbenchError, match=r"is not the file that head\.json describes"):
        load_head(path, "trf")


# ------------------------------------------------------------------------------------------------- any backbone x head


@pytest.mark.parametrize("kind", ["trf", "lstm"])
def test_a_users_backbone_with_a_trained_head(kind: str, tmp_path: Path, net: str) -> None:
    path = tmp_path / "head.safetensors"
    facts = {"trained_on": "x", "backbone": "net", "backbone_fingerprint": "0" * 64}
    export_head(path, head_of(kind), **facts)
    model = load_model(f"{net}Token+{kind}", head_weights=path)
    assert (model.token, model.random_seed) == ("the backbone's own", None)
    export_head(path, AdaptedHead(head_of(kind), 64), **facts)
    adapted = load_model(f"{net}Net+{kind}", head_weights=path)
    assert adapted.token == DESCRIPTION
    # the head's adapter is its own, the backbone's snapshots are those it has with any other head
    plain = load_model(f"{net}Net+apa")
    assert plain.backbone is not None
    assert adapted.backbone is not None
    assert model_fingerprint(plain.backbone) == model_fingerprint(adapted.backbone)
    assert whole_fingerprint(model, "b") != whole_fingerprint(adapted, "b")


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("backbone", ["sparsesync", "synchformer", "streamsync-trf", "streamsync-lstm"])
def test_every_full_size_backbone_takes_every_head(backbone: str, head: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "build", build_small)
    model = load_model(f"{backbone}+{head}", random_weights=0)
    assert model.full_size
    assert model.random_seed == 0
    assert "random weights" in model.trained_on
    own = backbone.startswith("streamsync")
    learned = head in ("trf", "lstm")
    assert model.token == ("" if not learned else "the backbone's own" if own else DESCRIPTION)
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((2, 3, 21)).astype(np.float32)
    tokens = rng.standard_normal((2, 3, 48)).astype(np.float32) if own else None
    assert model.head is not None
    assert replay(model.head, logits, tokens, 2.0).shape == (2, 3, 21)


def test_the_classical_model_takes_a_learned_head_too(tmp_path: Path) -> None:
    path = tmp_path / "head.safetensors"
    export_head(path, AdaptedHead(head_of("lstm"), 64), trained_on="x", backbone="xcorr", backbone_fingerprint="0" * 64)
    model = load_model("xcorr+lstm", head_weights=path)
    assert isinstance(model.head, AdaptedHead)


# ----------------------------------------------------------------------------------------------- two towers, precision


@pytest.mark.parametrize("family", ["sparsesync", "streamsync-trf", "synchformer"])
def test_two_towers_equal_the_plain_path(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "build", build_small)
    model: Any = checkpoints.load_full_size(family, 0)
    generator = torch.Generator().manual_seed(0)
    video = torch.randint(0, 256, (1, 125, 3, 224, 224), dtype=torch.uint8, generator=generator)
    audio = 0.1 * torch.randn(1, 80_000, generator=generator)
    with torch.inference_mode():
        plain = model.predict(video, audio)
        fused = model.fuse(model.encode_video(video), model.encode_audio(audio))
    for a, b in zip(plain, fused, strict=True):
        assert (a is None) == (b is None)
        assert a is None or torch.equal(a, b)


class Towers(torch.nn.Module, SnapshotPredictor):
    two_tower, token_dim, column_samples = True, 5, 1

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.v, self.a = torch.nn.Linear(12, 21), torch.nn.Linear(8, 21)

    def encode_video(self, video: torch.Tensor) -> torch.Tensor:
        return self.v(video.float().flatten(1)[:, :12])

    def encode_audio(self, audio: torch.Tensor) -> torch.Tensor:
        return self.a(audio[:, :8])

    def stretch_sound(self, audio: torch.Tensor) -> torch.Tensor:
        return audio - audio.mean()

    def fuse(self, video: torch.Tensor, audio: torch.Tensor) -> Snapshot:
        return Snapshot(video + audio, (video * audio)[:, :5])

    def predict(self, video: torch.Tensor, audio: torch.Tensor) -> Snapshot:
        return self.fuse(self.encode_video(video), self.encode_audio(audio))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_autocast_changes_the_numbers_a_little_and_the_fingerprint(dtype: str) -> None:
    plain = Towers().eval()
    other = tuned(Towers().eval(), dtype=dtype)
    assert isinstance(other, Tuned)
    assert (other.token_dim, other.two_tower, other.frontend) == (5, True, plain.frontend)
    video, audio = torch.randint(0, 9, (3, 1, 3, 2, 2)), torch.randn(3, 8)
    assert other.column_samples == 1
    with torch.inference_mode():
        heard = other.stretch_sound(audio)
        assert torch.equal(heard, audio - audio.mean())  # a front end is computed in full
        exact, rounded = plain.predict(video, heard), other.predict(video, heard)
        fused = other.fuse(other.encode_video(video), other.encode_audio(heard))
    for a, b, c in zip(exact, rounded, fused, strict=True):
        assert b.dtype == c.dtype == torch.float32
        assert torch.equal(b, c)
        assert 0 < (a - b).abs().max() < 0.2
    found = {model_fingerprint(m) for m in (plain, other, tuned(Towers().eval(), dtype="bfloat16"), Towers().half())}
    assert len(found) == (3 if dtype == "bfloat16" else 4)
    assert tuned(plain) is plain


def test_models_without_torch_have_no_precision_to_choose() -> None:
    with pytest.raises(UsageError, match="need a torch model"):
        load_model("xcorr", autocast="bfloat16")


def test_compiling_is_part_of_the_fingerprint_and_a_missing_compiler_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda call: call)
    compiled = tuned(Towers().eval(), compiled=True)
    assert model_fingerprint(compiled) != model_fingerprint(Towers())
    assert model_fingerprint(compiled) != model_fingerprint(tuned(Towers(), dtype="bfloat16"))

    def fails(x: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("no C++ compiler\nlong story")

    monkeypatch.setattr(torch, "compile", lambda call: fails)
    model = tuned(Towers().eval(), compiled=True)
    said = r"torch\.compile does not work here, for cpu \(no C\+\+ compiler\); leave out"
    for call in (
        lambda: model.predict(torch.zeros(1, 1, 3, 2, 2), torch.zeros(1, 8)),
        lambda: model.encode_audio(None),
    ):
        with pytest.raises(AvbenchError, match=said):
            call()


@pytest.mark.slow
def test_compiled_for_real() -> None:
    plain, compiled = Towers().eval(), tuned(Towers().eval(), compiled=True)
    video, audio = torch.randint(0, 9, (3, 1, 3, 2, 2)), torch.randn(3, 8)
    with torch.inference_mode():
        a, b = plain.predict(video, audio), compiled.predict(video, audio)
        c = compiled.fuse(compiled.encode_video(video), compiled.encode_audio(audio))
    assert torch.allclose(a.logits, b.logits, atol=1e-5)
    assert torch.allclose(a.logits, c.logits, atol=1e-5)


def test_drawn_heads_of_two_seeds_differ() -> None:
    small = build_small("streamsync-trf").state_dict()
    one, other = (drawn_weights(small, seed)["streaming_head.OFF_tok"] for seed in (0, 1))
    assert not torch.equal(one, other)
