"""Published checkpoints are converted from every published layout and refused if they contain anything but data."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from published_files import build_small, config_class, forget_config, publish
from safetensors.torch import save_file

from avbench.baselines.families import layouts
from avbench.baselines.syncnet import SyncNet
from avbench.registry.names import load_model
from avbench.types import AvbenchError, NonFiniteError, UsageError
from avbench.weights import checkpoints
from avbench.weights.cache import file_kind
from avbench.weights.checkpoints import (
    convert,
    drawn_weights,
    family_of,
    fit,
    load_full_size,
    load_weights,
    renamed,
    verify,
)
from avbench.weights.published import find_published, published


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Callable[..., torch.nn.Module]:
    """Stands in for the full-size models: the same structure, small enough for a test."""
    monkeypatch.setattr(checkpoints, "build", build_small)
    return build_small


@pytest.fixture
def omegaconf() -> Iterator[Any]:
    """A look-alike of OmegaConf's DictConfig, importable while a file is written and gone when it is read."""
    yield config_class()
    forget_config()


def test_a_published_file_is_converted_verified_and_loaded(tmp_path: Path, small: Any, omegaconf: Any) -> None:
    weights = drawn_weights(small("sparsesync").state_dict(), seed=5)
    source = publish(tmp_path / "22-09-21T21-00-52.pt", weights, omegaconf)
    card = convert(source, tmp_path / "cache" / "sparsesync.safetensors")
    assert (card["family"], card["n_classes"], card["changes"]) == ("sparsesync", 21, [])
    assert card["about"] == {"loss": 1.25, "epoch": 7, "model_type": "AVCorrModel"}
    assert verify(tmp_path / "cache" / "sparsesync.safetensors") == card
    assert "omegaconf" not in sys.modules
    for path in (source, tmp_path / "cache" / "sparsesync.safetensors"):
        model = load_full_size("sparsesync", path)
        assert not model.training
        loaded = model.state_dict()
        assert list(loaded) == list(weights)
        assert all(torch.equal(loaded[key], weights[key]) for key in weights)


def test_the_sidecar_sets_the_lead_trim_and_the_training_data(tmp_path: Path, small: Any, omegaconf: Any) -> None:
    source = publish(tmp_path / "a.pt", drawn_weights(small("sparsesync").state_dict(), 5), omegaconf)
    entry = find_published("sparsesync.vggsound")
    with pytest.raises(AvbenchError, match=r"md5 is .*, published is 83fba5f.*download https://"):
        convert(source, tmp_path / "a.safetensors", entry)
    assert not (tmp_path / "a.safetensors").exists()
    honest = checkpoints.replace(entry, md5_prefix=hashlib.md5(source.read_bytes()).hexdigest()[:7])
    convert(source, tmp_path / "a.safetensors", honest)
    model = load_full_size("sparsesync", tmp_path / "a.safetensors")
    assert model.frontend.audio_lead_trim_samples == 1024
    assert model.trained_on == "LRS3, then VGGSound"
    assert load_full_size("sparsesync", source).frontend.audio_lead_trim_samples == 0


@pytest.mark.parametrize("family", ["streamsync-trf", "streamsync-lstm", "synchformer"])
def test_every_family_is_known_by_its_keys(family: str, tmp_path: Path, small: Any, omegaconf: Any) -> None:
    weights = drawn_weights(small(family).state_dict(), 1)
    assert family_of(weights) == family
    assert convert(publish(tmp_path / "a.pt", weights, omegaconf), tmp_path / "a.safetensors")["family"] == family


def test_syncnet_as_torch_wrote_it_before_1_6_becomes_a_model(tmp_path: Path) -> None:
    """Its file is a bare state dict in torch's older form, perhaps without BatchNorm's counts. It has no classes: the
    model makes 21 of the lags."""
    weights = drawn_weights(checkpoints.build("syncnet").state_dict(), 5)
    for dropped, changes in (("nothing", []), ("tracked", ["14 missing counts of training batches set to 0"])):
        source = tmp_path / f"{dropped}.model"
        kept = {key: tensor for key, tensor in weights.items() if dropped not in key}
        torch.save(kept, source, _use_new_zipfile_serialization=False)
        assert file_kind(source) == "full"
        card = convert(source, tmp_path / "a.safetensors", find_published("syncnet.v2"))
        assert (card["family"], card["n_classes"], card["changes"]) == ("syncnet", 21, changes)
        assert verify(tmp_path / "a.safetensors") == card
        for path in (source, tmp_path / "a.safetensors"):
            loaded = load_model("syncnet+apa", path).backbone
            assert isinstance(loaded, SyncNet)
            assert all(torch.equal(tensor, weights[key]) for key, tensor in loaded.state_dict().items())
    assert loaded.trained_on == "BBC broadcasts (as its paper says)"
    del kept["netfclip.3.bias"]
    torch.save(kept, source, _use_new_zipfile_serialization=False)
    with pytest.raises(AvbenchError, match=r"do not fit syncnet: 1 missing \(netfclip\.3\.bias\)"):
        load_model("syncnet", source)


def test_distributed_prefix_is_removed(small: Any) -> None:
    weights = drawn_weights(small("sparsesync").state_dict(), 1)
    plain, notes = renamed({f"module.{key}": tensor for key, tensor in weights.items()})
    assert list(plain) == list(weights)
    assert notes == ["prefix 'module.' removed"]


def test_first_stage_encoders_are_renamed(tmp_path: Path, small: Any) -> None:
    model = drawn_weights(small("synchformer").state_dict(), 1)
    prefixes = {"vfeat_extractor.": "module.v_encoder.", "afeat_extractor.": "module.a_encoder."}
    stage = {
        new + key.removeprefix(old): tensor
        for key, tensor in model.items()
        for old, new in prefixes.items()
        if key.startswith(old)
    }
    extra = {"module.logit_scale": torch.zeros(()), "module.vproj.weight": torch.zeros(2, 2)}
    torch.save(
        {"epoch": 3, "name": "x", "state_dict": stage | extra, "args": argparse.Namespace(a=1)}, tmp_path / "s.pt"
    )
    card = convert(tmp_path / "s.pt", tmp_path / "s.safetensors")
    assert card["family"] == "synchformer-s1"
    assert card["changes"][-1] == "left out: logit_scale, vproj.weight"
    encoders = load_weights(tmp_path / "s.safetensors")
    assert encoders.keys() == {key for key in model if key.startswith(("vfeat_extractor.", "afeat_extractor."))}
    assert verify(tmp_path / "s.safetensors") == card


def test_lone_sound_encoder_loses_its_classifier(tmp_path: Path, small: Any) -> None:
    model = drawn_weights(small("sparsesync").state_dict(), 1)
    lone = {k.removeprefix("afeat_extractor."): t for k, t in model.items() if k.startswith("afeat_extractor.")}
    torch.save({"model": lone | {"fc.weight": torch.zeros(308, 48), "fc.bias": torch.zeros(308)}}, tmp_path / "r.pt")
    card = convert(tmp_path / "r.pt", tmp_path / "r.safetensors")
    assert (card["family"], card["changes"]) == ("resnet-audio", ["left out: fc.bias, fc.weight"])


def test_longer_positions_are_cut_and_shorter_ones_refused(small: Any) -> None:
    template = small("synchformer").state_dict()
    weights = drawn_weights(template, 1)
    key = "transformer.pos_emb_cfg.pos_emb"
    long = weights | {key: torch.randn(1, 250, 48)}
    fitted, notes = fit(long, template, "synchformer")
    assert torch.equal(fitted[key], long[key][:, :198])
    assert notes == [f"{key} cut from 250 to 198 positions"]
    with pytest.raises(AvbenchError, match=r"1 of another shape \(.*1x100x48 instead of 1x198x48\)"):
        fit(weights | {key: torch.randn(1, 100, 48)}, template, "synchformer")


def test_synchronisability_head_is_a_model_of_its_own(tmp_path: Path, small: Any, omegaconf: Any) -> None:
    weights = drawn_weights(small("synchformer-synchronisability", 2).state_dict(), 1)
    unused = {"transformer.off_head.weight": torch.zeros(21, 48), "transformer.off_head.bias": torch.zeros(21)}
    source = publish(tmp_path / "a.pt", weights | unused, omegaconf)
    card = convert(source, tmp_path / "a.safetensors")
    assert (card["family"], card["n_classes"]) == ("synchformer-synchronisability", 2)
    assert "transformer.off_head.weight" in card["changes"][0]
    with pytest.raises(AvbenchError, match=r"a\.safetensors predicts whether .*cannot be run"):
        load_full_size("synchformer", tmp_path / "a.safetensors")


def test_three_class_checkpoints_are_read_as_such(tmp_path: Path, small: Any, omegaconf: Any) -> None:
    source = publish(tmp_path / "a.pt", drawn_weights(small("sparsesync", 3).state_dict(), 1), omegaconf)
    assert convert(source, tmp_path / "a.safetensors")["n_classes"] == 3


def test_misfits_are_listed_readably(small: Any) -> None:
    template = small("sparsesync").state_dict()
    weights = drawn_weights(template, 1)
    del weights["transformer.off_head.weight"], weights["v_bridge.bridge.0.bias"]
    weights |= {"surprise": torch.zeros(1), "transformer.pre_lnorm_vis.bias": torch.zeros(7)}
    with pytest.raises(AvbenchError) as refused:
        fit(weights, template, "sparsesync")
    assert str(refused.value) == (
        "the weights do not fit sparsesync: 2 missing (transformer.off_head.weight, v_bridge.bridge.0.bias); "
        "1 unexpected (surprise); 1 of another shape (transformer.pre_lnorm_vis.bias: 7 instead of 48)"
    )


def test_weights_of_nothing_known(small: Any) -> None:
    with pytest.raises(AvbenchError, match="belong to no known model"):
        load_full_size("sparsesync", {"weight": torch.zeros(1)})


def test_changed_and_non_finite_weights_are_noticed(tmp_path: Path, small: Any, omegaconf: Any) -> None:
    weights = drawn_weights(small("sparsesync").state_dict(), 1)
    torch.save({"model": weights}, tmp_path / "good.pt")
    weights["transformer.off_head.weight"][0, 0] = float("nan")
    bad = publish(tmp_path / "bad.pt", weights, omegaconf)
    with pytest.raises(NonFiniteError, match=r"bad\.pt: transformer\.off_head\.weight"):
        convert(bad, tmp_path / "bad.safetensors")
    convert(tmp_path / "good.pt", tmp_path / "a.safetensors")
    assert not (tmp_path / "bad.safetensors").exists()
    card = json.loads((tmp_path / "a.json").read_text())
    save_file(weights, tmp_path / "b.safetensors")  # by another tool
    card["sha256"] = hashlib.sha256((tmp_path / "b.safetensors").read_bytes()).hexdigest()
    (tmp_path / "b.json").write_text(json.dumps(card))
    with pytest.raises(NonFiniteError, match=r"transformer\.off_head\.weight"):
        verify(tmp_path / "b.safetensors")
    data = bytearray((tmp_path / "a.safetensors").read_bytes())
    data[-1] ^= 1
    (tmp_path / "a.safetensors").write_bytes(data)
    with pytest.raises(AvbenchError, match="convert it again"):
        verify(tmp_path / "a.safetensors")


def test_the_lead_trim_survives_the_loss_of_the_sidecar(tmp_path: Path, small: Any, omegaconf: Any) -> None:
    source = publish(tmp_path / "a.pt", drawn_weights(small("sparsesync").state_dict(), 1), omegaconf)
    convert(source, tmp_path / "a.safetensors", audio_lead_trim_samples=1024)
    card = json.loads((tmp_path / "a.json").read_text())
    (tmp_path / "a.json").unlink()
    assert load_full_size("sparsesync", tmp_path / "a.safetensors").frontend.audio_lead_trim_samples == 1024
    for field, value in {"audio_lead_trim_samples": -5000, "n_classes": True}.items():
        (tmp_path / "a.json").write_text(json.dumps(card | {field: value}))
        with pytest.raises(AvbenchError, match=f"does not say {field}"):
            verify(tmp_path / "a.safetensors")
    (tmp_path / "a.json").write_text(json.dumps(card | {"family": "sparse"}))
    with pytest.raises(AvbenchError, match="names no known family"):
        verify(tmp_path / "a.safetensors")


# --------------------------------------------------------------------------------------------------------------- table


def test_table_is_complete_and_unambiguous() -> None:
    entries = published()
    assert len({e.name for e in entries}) == len({e.id for e in entries}) == len(entries) == 16
    assert {e.family for e in entries} <= set(layouts())
    assert all(e.url.startswith("https://") and e.id in e.url for e in entries)
    assert find_published("22-09-21T21-00-52").name == "sparsesync.vggsound"
    assert find_published("synchformer.audioset").md5_prefix == "54037d2"
    with pytest.raises(UsageError, match=r"did you mean .*sparsesync\.vggsound"):
        find_published("sparsesync.vgsound")


def test_full_size_models_are_built_without_memory() -> None:
    for family in layouts():
        model = checkpoints.build(family)
        assert all(p.is_meta for p in model.parameters())
    with pytest.raises(UsageError, match="known families: streamsync-trf, streamsync-lstm, sparsesync, synchformer"):
        checkpoints.build("sparse")


def test_drawn_weights_depend_on_seed_and_key_alone() -> None:
    template = {"a.weight": torch.empty(512, 512, device="meta"), "n": torch.empty((), dtype=torch.int64)}
    drawn = drawn_weights(template, 0)
    assert drawn["a.weight"].double().sum().item() == pytest.approx(13.1092874964119, abs=1e-3)
    assert drawn["n"].dtype == torch.int64
    assert not torch.equal(drawn["a.weight"], drawn_weights(template, 1)["a.weight"])
