"""Models in several files: what a user's file may import, and what its fingerprint then counts."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from avbench.engine.fingerprint import _source_sha256, model_fingerprint
from avbench.registry import user_files
from avbench.registry.names import load_model, resolve
from avbench.types import UsageError

NET = """
import numpy as np
from avbench import FrontEnd, Snapshot, SnapshotPredictor
{imports}

class Net(SnapshotPredictor):
    frontend = FrontEnd(size=16)

    def predict(self, video, audio):
        return Snapshot(np.full((len(video), 21), small(), np.float32))
"""
SMALL = "def small():\n    return {value}\n"


@pytest.fixture(autouse=True)
def forgotten(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each test is a new process, as far as the imported files go."""
    before = set(sys.modules)
    monkeypatch.setattr(user_files, "_helpers", {})
    monkeypatch.setattr(user_files, "_packages", set())
    yield
    for name in set(sys.modules) - before:
        if "lipnet" in name or "avbench_user" in name or name in ("layers", "shared"):
            del sys.modules[name]
    _source_sha256.cache_clear()


def package(folder: Path, imports: str, init: bool = True, value: int = 1) -> str:
    """``folder/lipnet`` with a model in two files; the model's name."""
    files = {"lipnet/model.py": NET.format(imports=imports), "lipnet/layers.py": SMALL.format(value=value)}
    if init:
        files["lipnet/__init__.py"] = ""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return f"{folder / 'lipnet' / 'model.py'}:Net"


def fingerprint(name: str) -> str:
    """As in a process that has loaded no model yet."""
    code = "import sys; from avbench.registry import load_model; from avbench.engine.fingerprint import "
    code += "model_fingerprint; print(model_fingerprint(load_model(sys.argv[1]).backbone))"
    done = subprocess.run([sys.executable, "-c", code, name], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("init", [True, False])
@pytest.mark.parametrize(
    "imports", ["from .layers import small", "from lipnet.layers import small", "from layers import small"]
)
def test_a_model_in_two_files_of_a_package(tmp_path: Path, imports: str, init: bool) -> None:
    path = list(sys.path)
    backbone = load_model(package(tmp_path, imports, init)).backbone
    assert backbone is not None
    assert backbone.predict([0], [0]).logits[0, 0] == 1  # type: ignore[arg-type]
    assert sys.path == path


def test_a_package_in_a_package_and_what_lies_beside_it(tmp_path: Path) -> None:
    name = package(tmp_path / "lipnet_all", "from ..shared import small", init=True)
    (tmp_path / "lipnet_all" / "__init__.py").write_text("")
    shared = tmp_path / "lipnet_all" / "shared.py"
    shared.write_text(SMALL.format(value=3))
    backbone = load_model(name).backbone
    assert backbone is not None
    assert backbone.predict([0], [0]).logits[0, 0] == 3  # type: ignore[arg-type]
    before = model_fingerprint(backbone)
    shared.write_text(SMALL.format(value=4))
    _source_sha256.cache_clear()
    assert model_fingerprint(backbone) != before, "what it imports from a package above counts"


def test_a_package_may_be_named_from_any_folder_above(tmp_path: Path) -> None:
    package(tmp_path / "lipnets", "from lipnets.lipnet.layers import small", init=False)
    assert load_model(f"{tmp_path}/lipnets/lipnet/model.py:Net").backbone is not None


def test_folders_may_have_the_names_of_modules(tmp_path: Path) -> None:
    """``layers`` is the file in the folder of that name, ``numpy`` the installed one."""
    for folder in ("layers", "numpy"):
        name = package(tmp_path, "from layers import small", init=False)
        (tmp_path / "lipnet").rename(tmp_path / folder)
        backbone = load_model(name.replace("lipnet", folder)).backbone
        assert type(backbone).__module__.startswith("avbench_user_model_"), "a script as ever"


@pytest.mark.parametrize("imports", ["from .layers import small", "from lipnet.layers import small"])
def test_a_fingerprint_does_not_depend_on_what_else_can_be_imported(
    tmp_path: Path, imports: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = package(tmp_path, imports)
    first = fingerprint(name)
    for _ in range(2):  # the second time its package has been imported
        backbone = load_model(name).backbone
        assert backbone is not None
        assert model_fingerprint(backbone) == first
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    assert fingerprint(name) == first


def test_what_a_member_imports_is_in_its_fingerprint(tmp_path: Path) -> None:
    (a, b, c) = (
        package(tmp_path / folder, "from .layers import small", value=value)
        for folder, value in (("a", 1), ("b", 1), ("c", 2))
    )
    same, other = fingerprint(a), fingerprint(c)
    assert fingerprint(b) == same, "where it lies does not count"
    assert other != same
    (tmp_path / "b" / "lipnet" / "__init__.py").write_text("x = 1\n")
    assert fingerprint(b) != same


@pytest.mark.parametrize("imports", ["from .layers import small", "from lipnet.layers import small"])
def test_two_packages_of_one_name_are_refused(tmp_path: Path, imports: str) -> None:
    a, b = (package(tmp_path / folder, imports, value=value) for folder, value in (("a", 1), ("b", 2)))
    load_model(a)
    with pytest.raises(UsageError, match=r"two folders contain a different layers\.py .*: rename one"):
        load_model(b)


def test_a_package_that_an_installed_one_hides(tmp_path: Path) -> None:
    name = package(tmp_path, "from .layers import small")
    (tmp_path / "lipnet").rename(tmp_path / "email")
    with pytest.raises(UsageError, match=r"the package email in .* is hidden by another one \(.*\): rename its folder"):
        load_model(name.replace("lipnet", "email"))
    (tmp_path / "email").rename(tmp_path / "net.v2")
    with pytest.raises(UsageError, match=r"net\.v2 cannot be one: rename it, without a dot"):
        load_model(name.replace("lipnet", "net.v2"))


def test_a_script_in_a_package_keeps_its_fingerprint(tmp_path: Path) -> None:
    """Models that load as scripts count as ever: neither ``__init__.py`` nor folders above them are theirs."""
    inside, alone = (
        package(tmp_path / folder, "from layers import small", init) for folder, init in (("a", True), ("b", False))
    )
    assert fingerprint(inside) == fingerprint(alone)


FACTORIES = """
import torch
import avbench

class Plain:
    pass

def make():
    return Plain()

class Loads(avbench.SnapshotPredictor):
    def __init__(self, width: int, ckpt: str):
        torch.load(ckpt)

class Fails(avbench.SnapshotPredictor):
    def __init__(self, width: int, ckpt: str):
        raise KeyError(101)
"""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("make", "my.py:make returned a Plain, which is not a SnapshotPredictor; subclass it, as in class Plain("),
        (
            "Loads --model-args width=2 ckpt=best.pt",
            "width, ckpt: best.pt among the arguments is probably no checkpoint",
        ),
        ("Loads --model-args width=2 ckpt=best.pt", "(my.py, line 13, in __init__)"),
        ("Fails --model-args width=2 ckpt=best.pt", "with width, ckpt: KeyError: 101 (my.py, line 17, in __init__)"),
        ("make+lstm --head-weights best.pt", "--head-weights: weight file best.pt is neither a safetensors file nor"),
        ("make+lstm --head-weights whole.safetensors", "--head-weights: whole.safetensors contains more than a head"),
        ("make+trf --head-weights lstm.safetensors", "lstm.safetensors contains the weights of a lstm head, but trf"),
        ("make+trf --head-weights other.safetensors", "--head-weights: other.safetensors contains no head, but trf is"),
    ],
)
def test_what_a_model_is_made_of_may_be_the_wrong_thing(
    avbench: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path, words: str, said: str
) -> None:
    (tmp_path / "my.py").write_text(FACTORIES)
    (tmp_path / "best.pt").write_text("epoch 3")
    one = np.zeros(1, np.float32)
    for file, key in (("whole", "backbone.a"), ("lstm", "head.lstm.weight_ih_l0"), ("other", "encoder.weight")):
        save_file({key: one}, tmp_path / f"{file}.safetensors")
    name, *options = words.split()
    done = avbench("doctor", f"xcorr{name.removeprefix('make')}" if "+" in name else f"my.py:{name}", *options)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert said in done.stderr


def test_what_is_not_there_may_have_a_name_like_it(tmp_path: Path) -> None:
    (tmp_path / "my_net.py").write_text("import helpers\n")
    (tmp_path / "helper.py").write_text("")
    with pytest.raises(UsageError, match=r"my_nett\.py does not exist; did you mean my_net\.py\?$"):
        load_model(f"{tmp_path}/my_nett.py:Net")
    with pytest.raises(UsageError, match=r"in <module>\); did you mean helper\?$"):
        load_model(f"{tmp_path}/my_net.py:Net")
    (tmp_path / "my_net.py").write_text("import quite_another\n")
    with pytest.raises(UsageError, match=r"\); it is neither installed nor beside the file$"):
        load_model(f"{tmp_path}/my_net.py:Net")
    with pytest.raises(UsageError, match=r"model file \S+/zzz\.py does not exist$"):
        load_model(f"{tmp_path}/zzz.py:Net")


def test_a_class_that_cannot_be_made_says_what_it_takes(tmp_path: Path) -> None:
    code = "class Net:\n    def __init__(self, width: int = 32, ckpt=''):\n        raise ValueError('size mismatch')\n"
    (tmp_path / "net.py").write_text(code)
    with pytest.raises(UsageError, match=r"in __init__\); it takes width: int = 32, ckpt = ''$"):
        load_model(f"{tmp_path}/net.py:Net", model_args={"ckpt": "best.pt"})


def test_worker_processes_load_it_too(tmp_path: Path) -> None:
    name = package(tmp_path, "from .layers import small")
    code = "import pickle, sys; print(pickle.loads(bytes.fromhex(sys.argv[1]))().predict([0], [0]).logits[0, 0])"
    factory = pickle.dumps(resolve(name).load_backbone).hex()
    done = subprocess.run([sys.executable, "-c", code, factory], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "1.0", done.stderr
