"""Code that changes what a model is given or computes makes stored snapshots missing.

Models are hashed with all they import from their folder. The reader has a version that is raised on purpose; its code
is recorded in ``data/reader_sources.json``, so that it cannot change unnoticed.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from code_text import code_digest
from reader_code import INDIFFERENT, PACKAGE, PARTS, RECORD, imported, reader_code
from safetensors.numpy import save

import avbench.baselines
import avbench.engine.store
from avbench.data.media import READER_VERSION
from avbench.engine.fingerprint import model_fingerprint
from avbench.engine.sources import local_sources
from avbench.engine.store import SnapshotStore
from avbench.protocol.plan import SnapshotKey
from avbench.registry.user_files import load_from_file
from avbench.types import StoreError, UsageError

MEDIA = "b" * 64
KEYS = [SnapshotKey(640 * i, 640 * i + 3) for i in range(3)]

# ---------------------------------------------------------------------------------------------- the reader's version


def test_the_reader_cannot_change_unnoticed() -> None:
    recorded = json.loads(RECORD.read_text()).get(str(READER_VERSION), {"files": {}})["files"]
    found = reader_code()
    changed = sorted(file for file in recorded.keys() | found.keys() if recorded.get(file) != found.get(file))
    assert not changed, (
        f"the code of {', '.join(changed)} differs from what is recorded for READER_VERSION {READER_VERSION}. "
        "If a picture or sound that a model is given may have changed, raise READER_VERSION in "
        "benchmark/data/media.py: stored snapshots are then computed again. In either case record the code, "
        "with the reason: "
        'python tests/support/reader_code.py "why what a model is given did or did not change"'
    )


def test_the_reader_version_only_rises() -> None:
    """A lower version would find snapshots of an older reader."""
    assert max(map(int, json.loads(RECORD.read_text()))) == READER_VERSION


def test_the_recorded_files_are_those_that_make_what_a_model_sees() -> None:
    assert {"data/media.py", "data/sound.py", "engine/clip_pass.py", "protocol/plan.py", "ticks.py"} <= set(
        reader_code()
    )
    assert set(INDIFFERENT) | set(PARTS) <= set(imported()), "an exception that no longer applies"


CODE = '''"""Doc."""
import os  # why

LIMIT = 3


class Cut:
    """Doc."""

    def at(self, x: int) -> str:
        # why
        if x:
            x += 1
        return f"{x!r:>{4}} # no comment {{}}"
'''


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ('"""Doc."""', '"""Other\n    words, Übung."""', True),
        ("# why", "# because", True),
        ("        # why\n", "\n\n", True),
        ("(self, x: int)", "(\n        self,  x:int\n    )", True),
        ('    """Doc."""\n\n    def', "    def", True),
        ("LIMIT = 3", "LIMIT = 4", False),
        ("        return", "            return", False),
        ("# no comment", "# no  comment", False),
        ("{4}", "{5}", False),
        ("x += 1", "x -= 1", False),
    ],
)
def test_only_code_counts(old: str, new: str, same: bool) -> None:
    assert old in CODE
    assert (code_digest(CODE.replace(old, new)) == code_digest(CODE)) == same


def test_some_definitions_only() -> None:
    assert code_digest(CODE.replace("3", "4"), ("Cut",)) == code_digest(CODE, ("Cut",))
    assert code_digest(CODE.replace("+=", "-="), ("Cut",)) != code_digest(CODE, ("Cut",))
    assert code_digest(CODE.replace("3", "4"), ("LIMIT",)) != code_digest(CODE, ("LIMIT",))
    with pytest.raises(ValueError, match="not defined: Gone"):
        code_digest(CODE, ("Cut", "Gone"))


def test_snapshots_of_another_reader_are_missing_and_new_ones_stand_beside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, model = SnapshotStore(tmp_path), "a" * 64
    old, new = np.zeros((3, 21), np.float32), np.ones((3, 21), np.float32)
    store.put(model, MEDIA, KEYS, old)
    monkeypatch.setattr(avbench.engine.store, "READER_VERSION", READER_VERSION + 1)
    assert store.missing(model, MEDIA, KEYS) == KEYS
    store.put(model, MEDIA, KEYS, new)
    np.testing.assert_array_equal(store.get(model, MEDIA, KEYS)[0], new)
    assert store.verify() == []
    assert store.size()[:2] == (2, 6)
    monkeypatch.undo()
    np.testing.assert_array_equal(store.get(model, MEDIA, KEYS)[0], old)


def test_a_shard_says_which_reader_it_is_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, model = SnapshotStore(tmp_path), "a" * 64
    store.put(model, MEDIA, KEYS, np.zeros((3, 21), np.float32))
    (shard,) = tmp_path.rglob("*.safetensors")
    assert shard.name == f"{MEDIA[:32]}.r{READER_VERSION}.safetensors"
    monkeypatch.setattr(avbench.engine.store, "READER_VERSION", READER_VERSION + 1)
    shard.rename(shard.with_name(shard.name.replace(f".r{READER_VERSION}.", f".r{READER_VERSION + 1}.")))
    (problem,) = store.verify()
    assert "another reader version" in problem
    with pytest.raises(StoreError, match="another reader version"):
        store.missing(model, MEDIA, KEYS)


def test_shards_from_before_there_were_versions_are_sound_but_never_used(tmp_path: Path) -> None:
    store, model = SnapshotStore(tmp_path), "a" * 64
    arrays = {"keys": np.array([key.row[:5] for key in KEYS], np.int64), "logits": np.zeros((3, 21), np.float32)}
    digest = hashlib.sha256(f"{model} {MEDIA}\n".encode())
    for name, array in arrays.items():
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode() + array.tobytes())
    meta = {"schema_version": 1, "model": model, "media": MEDIA, "sha256": digest.hexdigest()}
    shard = tmp_path / model[:32] / f"{MEDIA[:32]}.safetensors"
    shard.parent.mkdir()
    shard.write_bytes(save(arrays, {"avbench": json.dumps(meta)}))
    assert store.verify() == []
    assert store.size()[:2] == (1, 3)
    assert store.missing(model, MEDIA, KEYS) == KEYS
    with pytest.raises(StoreError, match="3 of 3 snapshots are not in"):
        store.get(model, MEDIA, KEYS)
    shard.rename(shard.with_name(f"{MEDIA[:32]}.r{READER_VERSION}.safetensors"))
    (problem,) = store.verify()
    assert "another reader version" in problem


# ------------------------------------------------------------------------------------------------- the model's sources

NET = """
from avbench import FrontEnd, SnapshotPredictor

class Net(SnapshotPredictor):
    frontend, token_dim = FrontEnd(size=32), None

    def predict(self, video, audio):
        import helper
        from parts.deep import layer
        return helper.answer(layer(video), audio)
"""
FILES = {
    "my_net.py": NET,
    "helper.py": "from parts import shared\nimport my_net, json\n",
    "parts/__init__.py": "from . import listed\n",
    "parts/listed.py": "",
    "parts/shared.py": "from .deep.layer import LIMIT\n",
    "parts/deep/layer.py": "from ..twice import *\nfrom ... import up\nfrom .... import outside\nLIMIT = 1\n",
    "parts/twice/__init__.py": "__all__ = ['star']\n",
    "parts/twice/star.py": "this does not parse\n",
    "up.py": "import helper\n",
    "unrelated.py": "",
    "parts/unrelated.py": "",
}
COUNTED = sorted(FILES.keys() - {"unrelated.py", "parts/unrelated.py"})


def write(folder: Path) -> Path:
    for name, text in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (folder.parent / "outside.py").write_text("")
    return folder / "my_net.py"


def fingerprint(file: Path) -> str:
    return model_fingerprint(load_from_file(str(file), "Net"))


def fingerprint_elsewhere(file: Path, seed: str) -> str:
    code = (
        "import sys; from avbench.engine.fingerprint import model_fingerprint\n"
        "from avbench.registry.user_files import load_from_file\n"
        "print(model_fingerprint(load_from_file(sys.argv[1], 'Net')))"
    )
    command = [sys.executable, "-W", "error::SyntaxWarning", "-c", code, str(file)]
    env = os.environ | {"PYTHONHASHSEED": seed}
    return subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout.strip()


def test_imports_are_followed_within_the_folder(tmp_path: Path) -> None:
    sources = local_sources(write(tmp_path / "here"), tmp_path / "here")
    assert list(sources) == COUNTED
    assert sources["helper.py"] == FILES["helper.py"].encode()
    as_package = local_sources(tmp_path / "here" / "parts" / "shared.py", tmp_path / "here" / "parts", "my.parts")
    assert list(as_package) == [
        "__init__.py",
        "deep/layer.py",
        "listed.py",
        "shared.py",
        "twice/__init__.py",
        "twice/star.py",
    ]


def test_a_changed_helper_makes_snapshots_missing(tmp_path: Path) -> None:
    file = write(tmp_path / "here")
    store, model = SnapshotStore(tmp_path / "store"), fingerprint(file)
    store.put(model, MEDIA, KEYS, np.zeros((3, 21), np.float32))
    assert fingerprint_elsewhere(file, "1") == fingerprint_elsewhere(write(tmp_path / "there"), "2") == model
    seen = {model}
    for name in COUNTED:
        with (file.parent / name).open("a") as helper:
            helper.write("# 1\n")
        seen.add(changed := fingerprint(file))
        assert store.missing(changed, MEDIA, KEYS) == KEYS, name
    assert len(seen) == len(COUNTED) + 1
    assert fingerprint_elsewhere(file, "3") == changed


def test_a_file_that_is_not_imported_does_not_count(tmp_path: Path) -> None:
    file = write(tmp_path / "here")
    store, model = SnapshotStore(tmp_path / "store"), fingerprint(file)
    store.put(model, MEDIA, KEYS, np.zeros((3, 21), np.float32))
    for name in FILES.keys() - set(COUNTED):
        (file.parent / name).write_text("changed = True\n")
    (tmp_path / "outside.py").write_text("changed = True\n")
    assert store.missing(fingerprint(file), MEDIA, KEYS) == []


def test_a_helper_that_was_moved_counts(tmp_path: Path) -> None:
    """The same bytes under another name may be another helper."""
    file = write(tmp_path / "here")
    before = fingerprint(file)
    (file.parent / "helper").mkdir()
    (file.parent / "helper.py").rename(file.parent / "helper" / "__init__.py")
    assert fingerprint(file) != before


def test_an_invalid_escape_hides_no_imports_when_warnings_are_errors(tmp_path: Path) -> None:
    (tmp_path / "helper.py").write_text("import deeper\nPATTERN = '\\d'\n")
    (tmp_path / "deeper.py").write_text("")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert list(local_sources(tmp_path / "helper.py", tmp_path)) == ["deeper.py", "helper.py"]


def test_a_helper_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_from_file(str(write(tmp_path / "here")), "Net")
    read_bytes = Path.read_bytes

    def refuse(path: Path) -> bytes:
        if path.name == "helper.py":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(
        UsageError, match=r"cannot read .*helper\.py, a source file of avbench_user_my_net_\w+\.Net: Perm"
    ):
        model_fingerprint(model)


def test_unrelated_distributions_do_not_count(tmp_path: Path) -> None:
    file = write(tmp_path / "site-packages")
    before = fingerprint(file)
    (file.parent / "helper.py").write_text("changed = True\n")
    assert fingerprint(file) == before


def test_the_front_end_counts_for_the_baselines_that_use_it(tmp_path: Path) -> None:
    package = tmp_path / "avbench"
    package.mkdir()
    for path in PACKAGE.iterdir():
        if path.name != "baselines":
            (package / path.name).symlink_to(path)
    copy = package / "baselines"
    shutil.copytree(
        Path(avbench.baselines.__file__).parent, copy, ignore=shutil.ignore_patterns("results", "__pycache__")
    )
    code = (
        "from avbench.engine.fingerprint import _source_sha256\n"
        "from avbench.baselines import sparsesync, xcorr\n"
        "print(sparsesync.__file__, _source_sha256(sparsesync.SparseSync), _source_sha256(xcorr.Xcorr))"
    )

    def said() -> list[str]:
        env = os.environ | {"PYTHONPATH": str(tmp_path)}
        return subprocess.run(
            [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
        ).stdout.split()

    before = said()
    assert before[0] == str(copy / "sparsesync.py")
    with (copy / "frontends.py").open("a") as frontends:
        frontends.write("# 1\n")
    after = said()
    assert after[1] != before[1]
    assert after[2] == before[2]
