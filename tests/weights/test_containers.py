"""Published files are read in every published layout, and refused if they contain anything but data."""

from __future__ import annotations

import os
import pickle
import random
import struct
import subprocess
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, Optional

import pytest
import torch
from hostile_pickles import TENSOR, archive, bomb
from published_files import publish

from avbench.types import AvbenchError
from avbench.weights import containers
from avbench.weights.containers import read_container
from avbench.weights.pickled import MADE_ANYHOW, MADE_PER_BYTE, PickleReader, Refused


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
    with pytest.raises(AvbenchError, match="its tensors take 64516 bytes, the file contains"):
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


def test_an_expanded_tensor_is_refused_even_if_it_is_small(tmp_path: Path) -> None:
    torch.save({"model": {"w": torch.zeros(1).expand(4)}}, tmp_path / "a.pt")
    with pytest.raises(AvbenchError, match="a tensor of 4 numbers is larger than its storage of 1"):
        read_container(tmp_path / "a.pt")


def test_the_cause_of_a_refusal_stays_attached(tmp_path: Path) -> None:
    with pytest.raises(AvbenchError) as missing:
        read_container(tmp_path / "nothing.pt")
    assert isinstance(missing.value.__cause__, FileNotFoundError)


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
    with pytest.raises(AvbenchError, match="its tensors take 80000 bytes, the file contains"):
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
        (changed, {}, "it changes torch._utils._rebuild_tensor_v2"),
        (b"\x80\x02}" + nested.removeprefix(b"\x80\x02") + b"Ns.", {}, "no weights"),  # never hashed
        (b"\x80\x02}(" + nested.removeprefix(b"\x80\x02") + b"Nu.", {}, "no weights"),
        (b"\x80\x04\x8f(" + nested.removeprefix(b"\x80\x02") + b"\x90.", {}, "does not contain a dictionary"),
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


# ------------------------------------------------------------------------------------------------- memory and time


PEAK = """
import sys
from pathlib import Path
from avbench.types import AvbenchError
from avbench.weights.containers import read_container

def peak():
    return 1024 * int(next(x for x in open("/proc/self/status") if x.startswith("VmHWM")).split()[1])

for path in sys.argv[1:]:
    before = peak()
    try:
        read_container(Path(path))
        said = "read"
    except AvbenchError as error:
        said = str(error)
    print(peak() - before, said)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of a process is read from /proc")
def test_no_file_takes_more_than_a_small_multiple_of_its_size(tmp_path: Path) -> None:
    """The attacks took 120 to 490 times their size, or minutes."""
    names = ("empty lists", "numbers that collide", "globals", "sets")
    files = [archive(tmp_path / f"{name}.pt", bomb(name, 2_000_000)) for name in names]
    command = [sys.executable, "-c", PEAK, *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == len(files)
    for file, line in zip(files, lines, strict=True):
        peak, said = line.split(" ", 1)
        assert int(peak) < 20 * file.stat().st_size, file.name
        assert "is refused and was not executed" in said


@pytest.mark.parametrize("what", ["globals", "numbers that collide"])
def test_a_file_of_64_mb_is_refused_by_the_length_of_its_pickle(what: str, tmp_path: Path) -> None:
    archive(tmp_path / "a.pt", bomb(what, 5_000_000) + b"." * 59_000_000)
    with pytest.raises(AvbenchError, match=r"its pickle is 6\d{7} bytes long, or compressed"):
        read_container(tmp_path / "a.pt")


def test_too_many_members_are_refused_before_they_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({f"w{i}": torch.zeros(1) for i in range(50)}, tmp_path / "a.pt")
    assert len(read_container(tmp_path / "a.pt").tensors) == 50
    monkeypatch.setattr(containers, "MAX_DIRECTORY_BYTES", 2000)
    with pytest.raises(AvbenchError, match=r"refused and was not executed: its directory is \d+ bytes long"):
        read_container(tmp_path / "a.pt")


def test_too_many_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(containers, "MAX_TENSORS", 2)
    torch.save({f"w{i}": torch.zeros(0) for i in range(3)}, tmp_path / "a.pt")
    with pytest.raises(AvbenchError, match="it has 3 weights, at most 2 are read"):
        read_container(tmp_path / "a.pt")


def test_members_that_overlap_are_refused(tmp_path: Path) -> None:
    """Each member contains the next one, so that all together are far larger than the file."""
    torch.save({"w": torch.zeros(1)}, tmp_path / "a.pt")
    data = (tmp_path / "a.pt").read_bytes()
    start = data.index(b"PK\x01\x02")
    size = struct.pack("<LL", 10**6, 10**6)
    entry = data[start : data.index(b"PK\x01\x02", start + 1)]
    larger = entry[:20] + size + entry[28:]
    (tmp_path / "a.pt").write_bytes(data[:start] + larger + data[start + len(entry) :])
    with pytest.raises(AvbenchError, match=r"refused and was not executed: its members take 10\d+ bytes, the file is"):
        read_container(tmp_path / "a.pt")


def test_a_member_is_read_once_whatever_its_numbers_are_said_to_be(tmp_path: Path) -> None:
    read = []

    class Archive(zipfile.ZipFile):
        def read(self, name: Any, pwd: bytes | None = None) -> bytes:
            read.append(getattr(name, "filename", name))
            return super().read(name, pwd)

    path = with_pickle(
        tmp_path / "a.pt", tensor_pickle(("FloatStorage", 2), ("ByteStorage", 8), ("HalfStorage", 4)), bytes(8)
    )
    with Archive(path) as opened:
        found = containers._read_archive(opened, path.stat().st_size)
    assert [len(t) for t in found.tensors.values()] == [2, 8, 4]
    assert read == ["a/data.pkl", "a/data/0"]


def test_a_weight_without_a_name_is_not_left_out(tmp_path: Path) -> None:
    torch.save({"model": {"w": torch.zeros(1), 5: torch.zeros(1)}}, tmp_path / "a.pt")
    with pytest.raises(AvbenchError, match="it contains no weights"):
        read_container(tmp_path / "a.pt")


# -------------------------------------------------------------------------------------------- torch's form before 1.6


def old_form(path: Path, content: Any) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=False)
    return path


def test_the_form_of_torch_before_1_6_is_read_too(tmp_path: Path) -> None:
    base = torch.arange(10.0)
    weights = {"a": base[2:5], "b": torch.nn.Parameter(base[::2].half()), "n": torch.tensor(3), "t": base}
    for content in (weights, {"model": weights, "epoch": 3, "optimizer": {"state": [torch.ones(5), {"x": base}]}}):
        found = read_container(old_form(tmp_path / "a.pt", content))
        assert found.about == ({"epoch": 3} if "epoch" in content else {})
        assert list(found.tensors) == list(weights)
        for name, tensor in found.tensors.items():
            assert torch.equal(tensor, weights[name]), name
            assert tensor.dtype == weights[name].dtype


def test_a_dictionary_of_python_2_is_read(tmp_path: Path) -> None:
    """Python 2 makes an OrderedDict of a list of lists."""
    pairs = [["w", torch.ones(2)], ["b", torch.zeros(3)]]
    found = read_container(old_form(tmp_path / "a.pt", _Calls(OrderedDict, pairs)))
    assert {name: tensor.tolist() for name, tensor in found.tensors.items()} == {"w": [1, 1], "b": [0, 0, 0]}
    for wrong in ([["w", 1, 2]], [[1, torch.ones(2)]], [("w", torch.ones(2))], {"w": torch.ones(2)}):
        with pytest.raises(AvbenchError, match="refused and was not executed"):
            read_container(old_form(tmp_path / "a.pt", _Calls(OrderedDict, wrong)))


@pytest.mark.parametrize("what", HOSTILE)
def test_a_malicious_pickle_in_the_old_form_does_nothing(what: str, tmp_path: Path) -> None:
    mark = str(tmp_path / "executed")
    path = old_form(tmp_path / "evil.pt", {"w": torch.zeros(2), "x": [HOSTILE[what](mark)]})
    with pytest.raises(AvbenchError, match=rf"evil\.pt is refused and was not executed: it (names|calls) .*{what}"):
        read_container(path)
    assert not Path(mark).exists()


def test_a_whole_model_in_the_old_form_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AvbenchError, match=r"it contains a whole model with its code \(save the model's state_dict"):
        read_container(old_form(tmp_path / "a.pt", torch.nn.Linear(2, 2)))


def test_old_files_that_are_damaged_or_lie_are_refused(tmp_path: Path) -> None:
    good, bad = old_form(tmp_path / "a.pt", {"w": torch.arange(6.0)}).read_bytes(), tmp_path / "bad.pt"
    numbers = (6).to_bytes(8, "little") + bytes(4)
    assert good.count(numbers) == 1
    for data, said in (
        (good[:-4], "has 6 numbers, more than the file: is the download complete"),
        (good[: len(good) // 2], "damaged"),
        (good.replace(numbers, (2**40).to_bytes(8, "little") + bytes(4)), "more than the file"),
        (good.replace(numbers, (5).to_bytes(8, "little") + bytes(4)), "is 20 bytes long, its tensor says 24"),
        (good.replace(b"K\x06\x85", b"K\x07\x85"), "a tensor of 7 numbers is larger than its storage of 6"),
        (good.replace(b"little_endianq\x02\x88", b"little_endianq\x02\x89"), "big-endian"),
        (good.replace(b"\x80\x02M\xe9\x03.", b"\x80\x02M\xe8\x03."), "its form is none of torch's"),
    ):
        assert data != good
        bad.write_bytes(data)
        with pytest.raises(AvbenchError, match=said):
            read_container(bad)


def test_an_old_file_takes_no_more_than_a_small_multiple_of_its_size() -> None:
    """A dictionary made of one list again and again, and lists in lists, are counted before they are kept."""
    pairs = b"\x80\x02]q\x00(" + b"".join(b"](X\x04\0\0\0" + f"{i:04}".encode() + b"Ne" for i in range(9000)) + b"e"
    many = pairs + b"ccollections\nOrderedDict\nq\x01" + b"(h\x01h\x00\x85R" * 50_000 + b"."
    lists = b"\x80\x02" + b"]" * 3_000_000 + b"."
    for data in (many, lists):
        reader = PickleReader(data, keep_lists=True)
        with pytest.raises(Refused, match="makes more than"):
            reader.load()
        assert reader.n_made < MADE_ANYHOW + (MADE_PER_BYTE + 1) * len(data)


def test_what_is_no_regular_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.pt")
    with pytest.raises(AvbenchError, match="is not a regular file"):
        read_container(tmp_path / "a.pt")


def test_a_refusal_is_short_and_printable(tmp_path: Path) -> None:
    named = b"\x80\x04\x8c\x02os\x8c\x83a\n\x1b[31m" + b"x" * 124 + b"\x93."
    with pytest.raises(AvbenchError) as error:
        read_container(archive(tmp_path / "a.pt", named))
    assert str(error.value).isprintable()
    assert "it names os.a??[31mxxx" in str(error.value)
    unknown = b"\x80\x02}X\x01\0\0\0w" + TENSOR.replace(b"X\x01\0\0\x000", b"X\x02\0\0\0\x1b\n") + b"s."
    with pytest.raises(AvbenchError) as error:
        read_container(archive(tmp_path / "a.pt", unknown))
    assert str(error.value).isprintable()


def mutated_files_end_in_one_line(folder: Path, n: int, seed: int, old: bool = False) -> None:
    weights = {f"layer.{i}.weight": torch.zeros(2, 3) for i in range(3)}
    good = (old_form if old else publish)(folder / "good.pt", weights).read_bytes()
    draw, path, refused = random.Random(seed), folder / "a.pt", 0
    for _ in range(n):
        data = bytearray(good)
        for _ in range(draw.randint(1, 8)):
            at = draw.randrange(len(data))
            data[at : at + draw.choice((1, 1, 4))] = draw.randbytes(draw.choice((1, 1, 4)))
        path.write_bytes(data if draw.random() < 0.9 else data[: draw.randrange(len(data))])
        said = ""
        try:
            read_container(path)
        except AvbenchError as error:
            said = str(error)
            refused += 1
        assert "\n" not in said
    assert refused > 0


@pytest.mark.parametrize("old", [False, True])
def test_300_mutated_files_end_in_one_line(old: bool, tmp_path: Path) -> None:
    mutated_files_end_in_one_line(tmp_path, 300, 0, old)


@pytest.mark.slow
@pytest.mark.parametrize("old", [False, True])
def test_20000_mutated_files_end_in_one_line(old: bool, tmp_path: Path) -> None:
    mutated_files_end_in_one_line(tmp_path, 20_000, 1, old)
