"""What to cite for runs, as a user asks it and as a function."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from avbench.runs.citing import AVBENCH, PAPER, bibtex, cited
from avbench.types import AvbenchError

Avbench = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(avbench: Avbench, clicks: Path, tmp_path: Path) -> Path:
    few = ("--iterations", "1", "--n-resamples", "20")
    done = avbench("run", "--model", "constant", "--data", clicks, "--out", tmp_path / "run", *few)
    assert done.returncode == 0, done.stderr
    return tmp_path / "run"


def changed(run: Path, to: Path, model: dict[str, str], data: str) -> Path:
    record = json.loads((run / "run.json").read_text())
    record["model"] |= model
    record["data"]["name"] = data
    to.mkdir()
    (to / "run.json").write_text(json.dumps(record))
    return to


def test_without_runs_it_is_avbench_and_the_paper(avbench: Avbench) -> None:
    done = avbench("cite")
    assert done.returncode == 0
    assert re.findall(r"^@\w+{(\w+),$", done.stdout, re.MULTILINE) == [AVBENCH, PAPER]
    assert "Temporally Streaming Audio-Visual Synchronization for Real-World Videos" in done.stdout


def test_a_run_adds_its_model_and_its_data(avbench: Avbench, run: Path, tmp_path: Path) -> None:
    model = {"name": "synchformer", "backbone": "synchformer.audioset", "trained_on": "LRS3, then AudioSet"}
    other = changed(run, tmp_path / "a", model, "vggsound-test")
    own = changed(run, tmp_path / "b", {"name": "my_net.py:MyNet", "backbone": "my_net.py:MyNet"}, "rushes")
    done = avbench("cite", other, own)
    keys = re.findall(r"^@\w+{(\w+),$", done.stdout, re.MULTILINE)
    assert keys[2:] == ["iashin2024synchformer", "afouras2018lrs3", "gemmeke2017audioset", "chen2020vggsound"]
    assert "% what synchformer was trained on\n@misc{afouras2018lrs3," in done.stdout
    lines = ["no entry for the model my_net.py:MyNet", "no entry for the data rushes"]
    assert done.stdout.splitlines()[-2:] == [f"% {line}: cite it as its authors ask" for line in lines]
    assert done.stderr.splitlines() == [
        "avbench: no entry for the model my_net.py:MyNet: cite it as its authors ask",
        "avbench: no entry for the data rushes: cite it as its authors ask",
    ]


def test_streamsync_is_the_papers_and_sparsesyncs(run: Path, tmp_path: Path) -> None:
    model = {"name": "streamsync-trf", "backbone": "streamsync-trf.synthsync", "trained_on": "SynthSync"}
    found, unknown = cited([changed(run, tmp_path / "a", model, "synthsync"), tmp_path / "a"])
    assert list(found) == [AVBENCH, PAPER, "iashin2022sparse"]
    assert found["iashin2022sparse"] == ["the model streamsync-trf"]
    assert unknown == []


def test_a_comment_begins_no_entry(avbench: Avbench, run: Path, tmp_path: Path) -> None:
    """BibTeX takes what follows an @ for an entry, in a comment too."""
    done = avbench("cite", changed(run, tmp_path / "a", {}, "vggsound-hub@0123abc"))
    assert "the data vggsound-hub at 0123abc" in done.stdout
    assert done.stdout.count("@") == len(re.findall(r"^@\w+{", done.stdout, re.MULTILINE))


def test_every_entry_is_whole() -> None:
    from avbench.runs.citing import _ENTRIES

    for key in _ENTRIES:
        text = bibtex(key, ["a test"])
        assert text.count("{") == text.count("}")
        assert {"title", "author", "year"} <= set(re.findall(r"^  (\w+) +=", text, re.MULTILINE))


def test_a_folder_that_is_no_run_is_one_line(avbench: Avbench, tmp_path: Path) -> None:
    done = avbench("cite", tmp_path)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    with pytest.raises(AvbenchError):
        cited([tmp_path])


def test_a_folder_of_runs_stands_for_all_of_them(avbench: Avbench, run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "all"
    folder.mkdir()
    changed(run, folder / "sparse", {"backbone": "sparsesync"}, "synthsync")
    changed(run, folder / "mine", {"backbone": "net.py:Net", "name": "net.py:Net"}, "synthsync")
    found, unknown = cited([folder])
    assert "iashin2022sparse" in found
    assert "the model net.py:Net" in unknown
    assert "iashin2022sparse" in avbench("cite", folder).stdout
