"""Tagging sound: what the network and the annotator accept, refuse and answer (equality: tests/golden)."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from avbench.data import tagging
from avbench.data.pinned import AUDIOSET_CLASSES, EFFICIENTAT, Pinned
from avbench.data.tagging import AudioSetTagger, EfficientAT, mel_input
from avbench.types import UsageError

MODELS = Path(__file__).resolve().parents[2].parent / "shared" / "models"
needs_weights = pytest.mark.skipif(not MODELS.is_dir(), reason="the published weights are absent: ../shared/models")


@pytest.fixture(scope="module")
def network() -> EfficientAT:
    torch.manual_seed(0)
    return EfficientAT().eval()


@pytest.fixture(scope="module")
def tagger() -> AudioSetTagger:
    return AudioSetTagger(MODELS / EFFICIENTAT.name)


def noise(n: int, batch: int = 1) -> torch.Tensor:
    return 0.1 * torch.randn(batch, n, generator=torch.Generator().manual_seed(0))


# ------------------------------------------------------------------------------------------------------------ network


@pytest.mark.parametrize(("n_samples", "frames"), [(514, 2), (32_000, 100), (32_001, 101), (320_000, 1000)])
def test_a_frame_of_the_mel_input_every_10_ms(n_samples: int, frames: int) -> None:
    assert mel_input(noise(n_samples, 2)).shape == (2, 1, 128, frames)


def test_the_shortest_sound_is_tagged_and_one_sample_less_is_refused(network: EfficientAT) -> None:
    with torch.inference_mode():
        assert network.logits(noise(514)).shape == (1, 527)
        with pytest.raises(ValueError, match=r"at least 514 samples \(16 ms at 32 kHz\), not 513"):
            network.logits(noise(513))


def test_an_item_of_a_batch_gets_the_logits_that_it_gets_alone(network: EfficientAT) -> None:
    both = noise(20_000, 2).double()
    double = EfficientAT().double().eval()
    double.load_state_dict(network.state_dict())
    with torch.inference_mode():
        together, alone = double.logits(both), double.logits(both[1:])
    assert together.shape == (2, 527)
    assert torch.allclose(together[1:], alone, atol=1e-10)


def test_the_answer_has_the_dtype_of_the_weights(network: EfficientAT) -> None:
    with torch.inference_mode():
        assert network.logits(noise(2000).double()).dtype == torch.float32


def test_a_network_can_be_trained_after_it_was_evaluated(network: EfficientAT) -> None:
    with torch.inference_mode():
        network.logits(noise(2000))
    network.logits(noise(2000)).sum().backward()
    assert network.features[0][0].weight.grad is not None
    network.zero_grad()


@pytest.mark.parametrize(
    ("wave", "message"),
    [
        (torch.zeros(32_000), r"shape \(batch, samples\), not \(32000,\)"),
        (torch.zeros(1, 2, 32_000), r"not \(1, 2, 32000\)"),
        (torch.zeros(0, 32_000), r"not \(0, 32000\)"),
        (torch.zeros(1, 0), "not 0"),
        (torch.zeros(1, 32_000, dtype=torch.int16), "float in -1 ... 1, not int16"),
        (torch.full((1, 32_000), torch.nan), "NaN or infinity"),
        (torch.full((1, 32_000), torch.inf), "NaN or infinity"),
    ],
)
def test_what_cannot_be_tagged_is_refused_in_one_line(network: EfficientAT, wave: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message) as refused:
        network.logits(wave)
    assert "\n" not in str(refused.value)


# ---------------------------------------------------------------------------------------------------------- annotator


@needs_weights
def test_names_with_commas_are_whole(tagger: AudioSetTagger) -> None:
    assert len(tagger.names) == len(set(tagger.names)) == 527
    assert tagger.names[0] == "Speech"
    assert tagger.names[86] == "Livestock, farm animals, working animals"
    assert tagger.names[526] == "Field recording"


@needs_weights
def test_events_are_the_names_above_the_threshold_the_most_probable_first(tagger: AudioSetTagger) -> None:
    tone = np.sin(2 * np.pi * 440 * np.arange(64_000) / 16_000).astype(np.float32) / 4
    found, events = tagger.probabilities(tone), tagger.events(tone)
    assert (found.shape, found.dtype) == ((527,), np.float32)
    assert events
    by_name = dict(zip(tagger.names, found.tolist(), strict=True))
    assert set(events) == {name for name, p in by_name.items() if p > tagger.threshold}
    assert [by_name[name] for name in events] == sorted((by_name[name] for name in events), reverse=True)
    assert "Sine wave" in tagger.names
    assert by_name["Sine wave"] > by_name["Dog"]


@needs_weights
def test_silence_is_no_event(tagger: AudioSetTagger) -> None:
    assert set(tagger.events(np.zeros(64_000, np.float32))) <= {"Silence"}


@needs_weights
def test_the_annotator_refuses_what_the_network_refuses(tagger: AudioSetTagger) -> None:
    assert tagger.probabilities(np.zeros(257, np.float32)).shape == (527,)
    with pytest.raises(ValueError, match="at least 514 samples"):
        tagger.events(np.zeros(256, np.float32))
    with pytest.raises(ValueError, match=r"shape \(samples,\), not \(2, 16000\)"):
        tagger.events(np.zeros((2, 16_000), np.float32))
    with pytest.raises(ValueError, match="NaN or infinity"):
        tagger.events(np.full(16_000, np.nan, np.float32))


# -------------------------------------------------------------------------------------------------------------- files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The two published files, to be damaged at will."""
    for name in (EFFICIENTAT.name, AUDIOSET_CLASSES.name):
        shutil.copyfile(MODELS / name, tmp_path / name)
    return tmp_path


@needs_weights
def test_the_pinned_files_are_the_published_ones() -> None:
    for published in (EFFICIENTAT, AUDIOSET_CLASSES):
        data = (MODELS / published.name).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (published.n_bytes, published.sha256)


@needs_weights
@pytest.mark.parametrize("published", [EFFICIENTAT, AUDIOSET_CLASSES])
@pytest.mark.parametrize("change", ["flipped", "longer", "shorter", "empty"])
def test_another_file_is_refused_before_it_is_opened(
    folder: Path, monkeypatch: pytest.MonkeyPatch, published: Pinned, change: str
) -> None:
    path = folder / published.name
    data = path.read_bytes()
    flipped = data[:100] + bytes([data[100] ^ 1]) + data[101:]
    path.write_bytes({"flipped": flipped, "longer": data + b"\0", "shorter": data[:-1], "empty": b""}[change])

    def opened(*_: object, **__: object) -> None:
        raise AssertionError("the file was opened")

    monkeypatch.setattr(torch, "load", opened)
    with pytest.raises(UsageError, match=r"is not the published .* \(other sha256\); remove it and get it") as refused:
        AudioSetTagger(folder / EFFICIENTAT.name)
    assert str(path) in str(refused.value)
    assert f"avbench weights fetch {published.fetched_as}" in str(refused.value)
    assert "\n" not in str(refused.value)


@needs_weights
@pytest.mark.parametrize("published", [EFFICIENTAT, AUDIOSET_CLASSES])
@pytest.mark.parametrize("instead", ["nothing", "folder", "fifo"])
def test_a_missing_file_is_named_with_how_to_get_it(folder: Path, published: Pinned, instead: str) -> None:
    path = folder / published.name
    path.unlink()
    if instead != "nothing":
        {"folder": os.mkdir, "fifo": os.mkfifo}[instead](path)
    with pytest.raises(
        UsageError, match=f"(does not exist|not a file); get it with `avbench weights fetch {published.fetched_as}`"
    ):
        AudioSetTagger(folder / EFFICIENTAT.name)


@needs_weights
def test_of_a_huge_file_no_more_is_read_than_the_published_one_has(folder: Path) -> None:
    path = folder / EFFICIENTAT.name
    with path.open("r+b") as file:
        file.truncate(1 << 40)  # sparse
    with pytest.raises(UsageError, match="other sha256"):
        AudioSetTagger(path)


def test_no_other_module_of_the_room_imports_torch() -> None:
    """Annotators are loaded by name; who only reads manifests or media does not wait for torch."""
    room = Path(tagging.__file__).parent
    modules = [f"avbench.data.{p.stem}" for p in sorted(room.glob("*.py")) if p.stem not in ("__init__", "tagging")]
    code = f"import sys, importlib; [importlib.import_module(m) for m in {modules}]; sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
