"""Names of models as people type them: what they mean, and what is said when they mean nothing."""

from __future__ import annotations

import pickle
import subprocess
import sys
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from published_files import build_small

from avbench.baselines.families import families, sparsesync
from avbench.registry import facts, user_files
from avbench.registry.heads import plain_heads
from avbench.registry.names import list_models, load_model, resolve
from avbench.registry.options import ModelOptions
from avbench.types import AvbenchError, SnapshotPredictor, UsageError
from avbench.weights import checkpoints

NET = """
import numpy as np
from avbench import FrontEnd, Snapshot, SnapshotPredictor

class Net(SnapshotPredictor):
    frontend = FrontEnd(size=16)
    description = "a net"
    trained_on = "my tapes"

    def predict(self, video, audio):
        return Snapshot(np.zeros((len(video), 21), np.float32))

class Fails(SnapshotPredictor):
    def __init__(self):
        raise ValueError("no weights\\nat all")

class Stranger:
    pass
"""


@pytest.fixture
def net(tmp_path: Path) -> Path:
    path = tmp_path / "my+nets" / "net.py"
    path.parent.mkdir()
    path.write_text(NET)
    return path


@pytest.mark.parametrize(
    ("name", "backbone", "head", "kind"),
    [
        ("streamsync-trf", "streamsync-trf.synthsync", "trf", "learned"),
        ("streamsync-trf.synthsync", "streamsync-trf.synthsync", "trf", "learned"),
        ("streamsync-lstm+apa", "streamsync-lstm.synthsync", "apa", "learned"),
        ("apa-sparsesync", "sparsesync.synthsync", "apa", "learned"),
        ("apa-synchformer.synthsync", "synchformer.synthsync", "apa", "learned"),
        ("sparsesync", "sparsesync.synthsync", "none", "learned"),
        ("sparsesync.synthsync-pt+apa-sliding", "sparsesync.synthsync-pt", "apa-sliding", "learned"),
        ("xcorr", "xcorr", "none", "classical"),
        ("xcorr+apa-decay", "xcorr", "apa-decay", "classical"),
        ("oracle", "oracle", "none", "trivial"),
    ],
)
def test_names(name: str, backbone: str, head: str, kind: str) -> None:
    model = resolve(name)
    assert (model.name, model.backbone_name, model.head_name, model.kind) == (name, backbone, head, kind)
    assert model.backbone is None, "resolving a name loads nothing"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("streamsync_trf", "did you mean streamsync-trf"),
        ("sparsesink", "did you mean sparsesync"),
        ("gibberish", "avbench models"),
        ("sparsesync.mars", "synthsync, synthsync-pt"),
        ("xcorr.synthsync-pt", "no weights to choose"),
        ("xcorr+appa", "did you mean apa?"),
        ("xcorr+trf", "no trained trf head for xcorr"),
        ("apa-sparsesync+apa", "already is sparsesync+apa"),
        ("constant+apa", "unknown model"),
        ("net.py", "file.py:ClassName"),
        ("net.py:no class", "file.py:ClassName"),
        ("net.py:Net+trf", "no trained trf head"),
        ("net.py:Net+lstm", "(`avbench train head --head lstm --backbone net.py:Net` makes one)"),
        ("", "unknown model"),
    ],
)
def test_unknown_names_are_answered_in_one_line(name: str, said: str) -> None:
    with pytest.raises(UsageError) as error:
        resolve(name)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_list_with_wildcards() -> None:
    names = [m.name for m in list_models()]
    assert names[:4] == ["streamsync-trf", "streamsync-lstm", "apa-sparsesync", "apa-synchformer"]
    assert len(names) == len(set(names))
    assert {"sparsesync.synthsync-pt", "xcorr+apa", "constant", "prior", "uniform", "oracle"} <= set(names)
    assert [m.name for m in list_models("xcorr*")] == [
        "xcorr",
        *(f"xcorr+{head}" for head in plain_heads() if head != "none"),
    ]
    assert list_models("nothing*") == []


def test_every_listed_name_resolves_to_itself_and_can_be_pickled() -> None:
    for model in list_models():
        assert resolve(model.name) == model or model.load_backbone is not None
        assert resolve(model.name).backbone_name == model.backbone_name
        pickle.dumps((model.load_backbone, model.load_head))


def test_a_users_file(net: Path) -> None:
    model = resolve(f"{net}:Net+apa-sliding")
    assert (model.backbone_name, model.head_name) == (f"{net}:Net", "apa-sliding")
    factory = pickle.loads(pickle.dumps(model.load_backbone))  # as a worker process gets it
    predictor = factory()
    assert isinstance(predictor, SnapshotPredictor)
    assert predictor.predict(np.zeros((2, 1)), np.zeros((2, 1))).logits.shape == (2, 21)


def test_loading_a_users_model_fills_in_what_the_class_says(net: Path) -> None:
    model = load_model(f"{net}:Net+apa")
    assert (model.description, model.trained_on) == ("a net", "my tapes")
    assert model.backbone is not None
    assert model.head is not None


@pytest.mark.parametrize(
    ("class_name", "said"),
    [
        ("Missing", "no such class; the file defines Net, Fails"),
        ("Fails", "ValueError: no weights"),
        ("Stranger", "not a SnapshotPredictor"),
    ],
)
def test_a_users_mistakes(net: Path, class_name: str, said: str) -> None:
    factory = resolve(f"{net}:{class_name}").load_backbone
    assert factory is not None
    with pytest.raises(UsageError, match=said) as error:
        factory()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["import nothing_like_this", "def broken(:", "1 / 0"])
def test_a_file_that_does_not_run(tmp_path: Path, text: str) -> None:
    path = tmp_path / "broken.py"
    path.write_text(text)
    with pytest.raises(UsageError, match="does not run"):
        user_files.load_from_file(str(path), "Net")
    assert not [name for name in sys.modules if name.startswith("avbench_user_broken")]


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        user_files.load_from_file(str(tmp_path / "none.py"), "Net")


def test_files_of_one_name_are_different_models(tmp_path: Path) -> None:
    """All are loaded before one is fingerprinted, as in a sweep: snapshots of one must not be taken for another's."""
    from avbench.engine.fingerprint import model_fingerprint

    found = []
    for folder, text in (("a", NET), ("b", NET.replace("np.zeros", "np.ones")), ("c", NET)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "net.py").write_text(text)
        found.append(load_model(f"{tmp_path}/{folder}/net.py:Net").backbone)
    a, b, c = (model_fingerprint(backbone) for backbone in found if backbone is not None)
    assert a != b
    assert a == c, "the folder does not count"


def test_entry_points(monkeypatch: pytest.MonkeyPatch, net: Path) -> None:
    class Entry:
        name, value = "their-net", "their.module:Net"

        def load(self) -> object:
            return lambda: user_files.load_from_file(str(net), "Net")

    monkeypatch.setattr(user_files, "entry_points", lambda group: [Entry()] if group == "avbench.models" else [])
    assert "their-net" in [m.name for m in list_models()]
    assert resolve("their-net+apa").head_name == "apa"
    assert isinstance(user_files.load_entry_point("their-net"), SnapshotPredictor)
    with pytest.raises(UsageError, match="did you mean their-net"):
        resolve("theirnet")


def test_weights_are_only_for_models_that_have_some(net: Path, tmp_path: Path) -> None:
    for name in ("xcorr", "constant", f"{net}:Net"):
        with pytest.raises(UsageError, match=r"takes no weight file|ignores its input; --weights, --dtype"):
            load_model(name, weights=tmp_path / "x.safetensors")


def test_a_file_of_avbench_train_is_the_mini_model(tmp_path: Path) -> None:
    """Embedded weights under another name: one file with backbone and head."""
    from avbench.baselines import weights
    from avbench.engine.fingerprint import model_fingerprint

    path = tmp_path / "mine.safetensors"
    path.write_bytes(files(weights).joinpath("streamsync-trf.safetensors").read_bytes())
    embedded, given = load_model("streamsync-trf"), load_model("streamsync-trf", weights=path)
    assert not given.full_size
    assert (given.trained_on, given.backbone_name) == (
        "undeclared (mine.safetensors)",
        "streamsync-trf.mine.safetensors",
    )
    assert given.backbone is not None
    assert embedded.backbone is not None
    assert model_fingerprint(given.backbone) == model_fingerprint(embedded.backbone)
    assert facts.whole_fingerprint(given, "x") == facts.whole_fingerprint(embedded, "x")
    assert load_model("sparsesync+trf", weights=path).head_name == "trf", "its head goes with the file"
    with pytest.raises(AvbenchError, match="lstm is needed"):
        load_model("streamsync-lstm", weights=path)
    plain = tmp_path / "plain.safetensors"
    plain.write_bytes(files(weights).joinpath("sparsesync.safetensors").read_bytes())
    with pytest.raises(UsageError, match="no trained trf head"):
        resolve("streamsync-trf", ModelOptions(weights=plain))


def test_an_embedded_file_may_bring_a_head_for_another_name(monkeypatch: pytest.MonkeyPatch) -> None:
    family = replace(families()["sparsesync"], heads={"trf": "streamsync-trf"})
    monkeypatch.setattr(sparsesync, "FAMILIES", (family,))
    model = resolve("sparsesync+trf")
    assert model.backbone_name == "sparsesync.streamsync-trf", "not the snapshots of sparsesync alone"
    assert resolve("sparsesync+apa").backbone_name == "sparsesync.synthsync"
    assert "sparsesync+trf" in [m.name for m in list_models()]
    with pytest.raises(UsageError, match="no trained trf head"):
        resolve("sparsesync.synthsync-pt+trf")


def test_seed_zero_is_a_seed() -> None:
    model = resolve("streamsync-trf", ModelOptions(random_seed=0))
    assert (model.full_size, model.random_seed, model.backbone_name) == (True, 0, "streamsync-trf.random-0")
    assert resolve("sparsesync").random_seed is None


def test_names_and_lists_load_no_torch() -> None:
    code = (
        "import sys; from avbench import list_models; from avbench.registry import load_model; "
        "list_models(); load_model('xcorr'); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_loaded_model_says_what_it_is_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "build", build_small)
    weights = checkpoints.drawn_weights(build_small("sparsesync").state_dict(), 0)
    shown = repr(load_model("sparsesync", weights))
    assert "sparsesync.state-dict" in shown
    assert len(shown) < 500


def test_a_device_that_is_not_there() -> None:
    with pytest.raises(UsageError, match="device 'warp' cannot be used here"):
        load_model("sparsesync", device="warp")
