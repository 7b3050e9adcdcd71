"""Published checkpoints: converted as they are laid out, refused when they are anything but data."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import pickle
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Optional

import pytest
import torch
from published_files import build_small, config_class, forget_config, publish
from safetensors.torch import save_file

from avbench.baselines import checkpoints
from avbench.baselines.checkpoints import (
    convert,
    drawn_weights,
    family_of,
    fit,
    load_full_size,
    load_weights,
    read_container,
    renamed,
    verify,
)
from avbench.baselines.published import find_published, published
from avbench.types import AvbenchError, NonFiniteError, UsageError


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
    with pytest.raises(AvbenchError, match=r"a\.safetensors says whether .*cannot be run"):
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


# ------------------------------------------------------------------------------------------------------------- hostile


class _Calls:
    def __init__(self, function: Any, *args: Any) -> None:
        self.call = (function, args)

    def __reduce__(self) -> tuple:
        return self.call


def _evil(path: str) -> None:
    Path(path).write_text("executed")


HOSTILE = {
    "posix.system": lambda mark: _Calls(os.system, f"touch {mark}"),
    "builtins.eval": lambda mark: _Calls(eval, f"open({mark!r}, 'w')"),
    "builtins.exec": lambda mark: _Calls(exec, f"open({mark!r}, 'w')"),
    "builtins.getattr": lambda mark: _Calls(getattr, Path, "write_text"),
    "shutil.rmtree": lambda mark: _Calls(__import__("shutil").rmtree, mark),
    "torch.serialization.load": lambda mark: _Calls(torch.load, mark),
    "torch.hub.download_url_to_file": lambda mark: _Calls(torch.hub.download_url_to_file, "http://x", mark),
    "numpy.*savetxt": lambda mark: _Calls(__import__("numpy").savetxt, mark, [1]),
    "_evil": lambda mark: _Calls(_evil, mark),
}


@pytest.mark.parametrize("place", ["args", "model", "optimizer"])
@pytest.mark.parametrize("what", HOSTILE)
def test_a_malicious_pickle_is_refused_by_name_and_does_nothing(what: str, place: str, tmp_path: Path) -> None:
    mark = str(tmp_path / "executed")
    content = {"model": {"w": torch.zeros(2)}, "args": {}, "optimizer": {}}
    content[place]["x"] = HOSTILE[what](mark)
    torch.save(content, tmp_path / "evil.pt")
    with pytest.raises(AvbenchError, match=rf"evil\.pt is refused and was not executed: it (names|calls) .*{what}"):
        read_container(tmp_path / "evil.pt")
    assert not Path(mark).exists()


def test_a_bare_malicious_pickle_and_a_text_are_no_checkpoints(tmp_path: Path) -> None:
    mark = tmp_path / "executed"
    (tmp_path / "a.pt").write_bytes(pickle.dumps(_Calls(os.system, f"touch {mark}")))
    (tmp_path / "b.pt").write_text("<html>404</html>")
    for name in ("a.pt", "b.pt"):
        with pytest.raises(AvbenchError, match="not a torch checkpoint in zip form"):
            read_container(tmp_path / name)
    assert not mark.exists()


def rewritten(source: Path, target: Path, change: Callable[[str, bytes], bytes | None], **options: Any) -> Path:
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", **options) as new:
        for name in old.namelist():
            data = change(name, old.read(name))
            if data is not None:
                new.writestr(name, data)
    return target


def test_damaged_and_lying_archives(tmp_path: Path) -> None:
    good = tmp_path / "good.pt"
    torch.save({"model": {"w": torch.arange(6.0).reshape(2, 3).t()}}, good)
    assert torch.equal(read_container(good).tensors["w"], torch.arange(6.0).reshape(2, 3).t())
    bad = tmp_path / "bad.pt"
    rewritten(good, bad, lambda name, data: data[:-4] if name.endswith("data/0") else data)
    with pytest.raises(AvbenchError, match="storage 0 is 20 bytes long, its tensor says 24"):
        read_container(bad)
    rewritten(good, bad, lambda name, data: data, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(AvbenchError, match="refused"):
        read_container(bad)
    rewritten(good, bad, lambda name, data: None if name.endswith("data/0") else data)
    with pytest.raises(AvbenchError, match="damaged"):
        read_container(bad)
    rewritten(good, bad, lambda name, data: data[:20] if name.endswith("data.pkl") else data)
    with pytest.raises(AvbenchError, match="damaged"):
        read_container(bad)
    bad.write_bytes(good.read_bytes()[:-30])
    with pytest.raises(AvbenchError, match="zip form"):
        read_container(bad)
    with pytest.raises(AvbenchError, match="does not exist"):
        read_container(tmp_path / "nothing.pt")


def test_views_outside_their_storage_are_refused(tmp_path: Path) -> None:
    good = tmp_path / "good.pt"
    torch.save({"model": {"w": torch.zeros(3, 2)}}, good)

    def larger(name: str, data: bytes) -> bytes:
        return data.replace(b"K\x03K\x02\x86", b"K\x7fK\x7f\x86") if name.endswith("data.pkl") else data

    rewritten(good, tmp_path / "bad.pt", larger)
    with pytest.raises(AvbenchError, match="its tensors take 64516 bytes, the file holds"):
        read_container(tmp_path / "bad.pt")
    torch.save({"model": {"w": torch.arange(6)[3:]}}, good)

    def later(name: str, data: bytes) -> bytes:
        return data.replace(b"K\x03K\x03\x85", b"K\x04K\x03\x85") if name.endswith("data.pkl") else data

    rewritten(good, tmp_path / "bad.pt", later)
    with pytest.raises(AvbenchError, match="damaged"):
        read_container(tmp_path / "bad.pt")


def test_a_small_file_cannot_ask_for_much_memory_or_time(tmp_path: Path) -> None:
    nested: list[Any] = ["x"] * 10
    for _ in range(12):
        nested = [nested] * 10
    content = {
        "model": {"w": torch.zeros(2)},
        "args": [_Calls(bytearray, 10**13), _Calls(bytes, 10**13), _Calls(str, nested)],
    }
    torch.save(content, tmp_path / "a.pt")
    assert read_container(tmp_path / "a.pt").about == {}
    torch.save({"model": {"w": torch.zeros(1).expand(10**7, 10**7)}}, tmp_path / "b.pt")
    with pytest.raises(AvbenchError, match=r"refused and was not executed: its tensors take 4\d{14} bytes"):
        read_container(tmp_path / "b.pt")


def with_pickle(path: Path, data: bytes, member: bytes = b"", **options: Any) -> Path:
    """A torch archive with this pickle and one storage."""
    with zipfile.ZipFile(path, "w", **options) as archive:
        archive.writestr("a/data.pkl", data)
        archive.writestr("a/data/0", member)
    return path


def tensor_pickle(*storages: tuple[str, int]) -> bytes:
    """{"w0": a tensor over all of the first storage, ...}: each of a type, all in member 0."""
    out = b"\x80\x02}"
    for i, (kind, n) in enumerate(storages):
        pid = b"(X\x07\0\0\0storagectorch\n" + kind.encode() + b"\nX\x01\0\0\x000X\x03\0\0\0cpuJ"
        numel = n.to_bytes(4, "little")
        rebuild = b"ctorch._utils\n_rebuild_tensor_v2\n(" + pid + numel + b"tQK\0J" + numel + b"\x85K\x01\x85\x89NtR"
        out += b"X\x02\0\0\0w" + str(i).encode() + rebuild + b"s"
    return out + b"."


def test_every_reference_to_a_storage_is_checked(tmp_path: Path) -> None:
    path = with_pickle(tmp_path / "a.pt", tensor_pickle(("FloatStorage", 2)), bytes(8))
    assert read_container(path).tensors["w0"].tolist() == [0, 0]
    with_pickle(path, tensor_pickle(("FloatStorage", 2), ("FloatStorage", 6)), bytes(8))
    with pytest.raises(AvbenchError, match="storage 0 is 8 bytes long, its tensor says 24"):
        read_container(path)
    with_pickle(path, tensor_pickle(("FloatStorage", 2), ("IntStorage", 2)), bytes(8))
    tensors = read_container(path).tensors  # each as it says it is
    assert (tensors["w0"].dtype, tensors["w1"].dtype) == (torch.float32, torch.int32)
    with_pickle(path, tensor_pickle(*[("FloatStorage", 2000)] * 10), bytes(8000))
    with pytest.raises(AvbenchError, match="its tensors take 80000 bytes, the file holds"):
        read_container(path)


def test_pickles_that_ask_for_room_or_change_the_reader(tmp_path: Path) -> None:
    nested = b"\x80\x02)" + b"2\x86" * 60  # a tuple of a tuple ... : 2**60 when written out
    far, compressed = b"\x80\x02}r\x00\xa3\xe1\x11.", tensor_pickle(("FloatStorage", 2))
    changed = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\nN}X\x07\0\0\0__doc__X\x01\0\0\0xs\x86b."
    parameter = b"ctorch._utils\n_rebuild_parameter\n"
    hidden = b"\x80\x02}" + parameter + nested.removeprefix(b"\x80\x02") + b"\x85RNs."
    for data, options, said in (
        (nested + b"Q.", {}, "it refers to something that is no tensor storage"),
        (far, {}, "it remembers something at place 300000000"),
        (compressed, {"compression": zipfile.ZIP_DEFLATED}, "or compressed"),
        (changed, {}, "damaged: AttributeError"),
        (b"\x80\x02}" + nested.removeprefix(b"\x80\x02") + b"Ns.", {}, "a tuple of tuples for a key"),
        (b"\x80\x02}(" + nested.removeprefix(b"\x80\x02") + b"Nu.", {}, "a tuple of tuples for a key"),
        (b"\x80\x04\x8f(" + nested.removeprefix(b"\x80\x02") + b"\x90.", {}, "a tuple of tuples for a key"),
        (hidden, {}, "it makes a parameter of something that is no tensor"),
        (b"\x80\x02s.", {}, "damaged: IndexError"),
    ):
        with pytest.raises(AvbenchError, match=said):
            read_container(with_pickle(tmp_path / "a.pt", data, bytes(8), **options))


def test_tied_weights_and_huge_numbers_are_no_obstacle(tmp_path: Path) -> None:
    tied = torch.ones(3)
    torch.save({"model": {"a": tied, "b": tied}, "epoch": 10**5000, "note": "x" * 5000, "loss": 0.5}, tmp_path / "a.pt")
    found = read_container(tmp_path / "a.pt")
    assert found.about == {"loss": 0.5}
    assert found.tensors["a"].data_ptr() != found.tensors["b"].data_ptr()


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


def test_types_and_simple_values_of_a_configuration_are_no_obstacle(tmp_path: Path) -> None:
    kinds = [int, str, float, bool, bytes, bytearray, complex, dict, list, tuple, set, frozenset, range, slice]
    kinds += [Any, Optional[int], type(None)]  # noqa: UP045 (as configurations write it)
    values = [1, 2**70, "x", 0.5, True, b"x", bytearray(b"x"), 1j, {1: 2}, [3], (4,), {5}, frozenset({6}), range(7)]
    content = {"model": {"w": torch.ones(2)}, "args": {"ref_type": kinds, "values": [*values, slice(8)]}, "epoch": 3}
    for protocol in (2, 3, 4):
        torch.save(content, tmp_path / "a.pt", pickle_protocol=protocol)
        container = read_container(tmp_path / "a.pt")
        assert container.about == {"epoch": 3}
        assert container.tensors["w"].tolist() == [1, 1]


def test_shared_and_half_precision_tensors(tmp_path: Path) -> None:
    base = torch.arange(10, dtype=torch.float16)
    content = {"model": {"a": base[2:5], "b": torch.nn.Parameter(base[::2].float()), "n": torch.tensor(3)}}
    torch.save(content, tmp_path / "a.pt")
    tensors = read_container(tmp_path / "a.pt").tensors
    assert torch.equal(tensors["a"], base[2:5])
    assert torch.equal(tensors["b"], base[::2].float())
    assert int(tensors["n"]) == 3


# --------------------------------------------------------------------------------------------------------------- table


def test_table_is_complete_and_unambiguous() -> None:
    entries = published()
    assert len({e.name for e in entries}) == len({e.id for e in entries}) == len(entries) == 15
    assert {e.family for e in entries} <= {*checkpoints.FAMILIES, *checkpoints.PARTS}
    assert all(e.url.startswith("https://") and e.id in e.url for e in entries)
    assert find_published("22-09-21T21-00-52").name == "sparsesync.vggsound"
    assert find_published("synchformer.audioset").md5_prefix == "54037d2"
    with pytest.raises(UsageError, match=r"did you mean .*sparsesync\.vggsound"):
        find_published("sparsesync.vgsound")


def test_full_size_models_are_built_without_memory() -> None:
    for family in checkpoints.FAMILIES:
        model = checkpoints.build(family)
        assert all(p.is_meta for p in model.parameters())
    with pytest.raises(UsageError, match="there are sparsesync"):
        checkpoints.build("sparse")


def test_drawn_weights_depend_on_seed_and_key_alone() -> None:
    template = {"a.weight": torch.empty(512, 512, device="meta"), "n": torch.empty((), dtype=torch.int64)}
    drawn = drawn_weights(template, 0)
    assert drawn["a.weight"].double().sum().item() == pytest.approx(13.1092874964119, abs=1e-3)
    assert drawn["n"].dtype == torch.int64
    assert not torch.equal(drawn["a.weight"], drawn_weights(template, 1)["a.weight"])
