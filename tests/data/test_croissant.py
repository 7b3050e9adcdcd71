"""Croissant metadata: every column and hash of the manifest is in it, and the field's own validator accepts it."""

from __future__ import annotations

import hashlib
import json
import logging
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from avbench.data import hub as hosted
from avbench.data.croissant import About, croissant
from avbench.protocol.manifest import CLIP_COLUMNS, SEGMENT_COLUMNS, read_manifest, write_manifest

Avbench = Callable[..., "subprocess.CompletedProcess[str]"]
ABOUT = (
    "--url",
    "https://example.org/clicks",
    "--license",
    "cc-by-4.0",
    "--creator",
    "We",
    "--published",
    "2026-11-30",
)


def test_every_column_and_hash_is_said(clicks: Path, avbench: Avbench, tmp_path: Path) -> None:
    done = avbench("data", "croissant", clicks, "--out", "croissant.json", *ABOUT)
    assert (done.returncode, done.stdout) == (0, "croissant.json\n"), done.stderr
    facts = json.loads((tmp_path / "croissant.json").read_text())
    assert facts["conformsTo"] == "http://mlcommons.org/croissant/1.1"
    assert facts["identifier"] == f"sha256:{read_manifest(clicks).sha256}"
    assert "sound comes early" in facts["description"]
    assert {f["@id"]: f["sha256"] for f in facts["distribution"]} == {
        name: hashlib.sha256((clicks / name).read_bytes()).hexdigest() for name in ("clips.parquet", "segments.parquet")
    }
    columns = {one["@id"]: [field["name"] for field in one["field"]] for one in facts["recordSet"]}
    assert columns == {"clips": list(CLIP_COLUMNS), "segments": list(SEGMENT_COLUMNS)}
    assert (facts["license"], facts["creator"]["name"], facts["datePublished"]) == ("cc-by-4.0", "We", "2026-11-30")


def test_hidden_labels_are_not_said(clicks: Path, tmp_path: Path) -> None:
    manifest = read_manifest(clicks)
    segments = tuple(replace(s, offset=0, offset_class=10) for s in manifest.segments)
    write_manifest(replace(manifest, offset_law="hidden", segments=segments), tmp_path / "hidden")
    said = croissant(str(tmp_path / "hidden"))["recordSet"][1]["field"]
    assert [field["name"] for field in said] == [name for name in SEGMENT_COLUMNS if not name.startswith("offset_")]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("gone",), "gone is not a manifest folder"),
        (("hub:org/clicks@main",), "'main' can move"),
        ((".", "--published", "yesterday"), "it must be a date"),
        ((".", "--url", "javascript:alert(1)"), "it must be an http(s) address"),
    ],
)
def test_wrong_requests(avbench: Avbench, words: tuple[str, ...], said: str) -> None:
    done = avbench("data", "croissant", *words, "--out", "croissant.json")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert said in done.stderr


def test_hosted_data_name_the_commit(clicks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosted, "fetch_tables", lambda repo, commit: clicks)
    commit = "0123456789" * 4
    facts = croissant(f"hub:org/clicks@{commit}")
    addresses = {f["@id"]: f["contentUrl"] for f in facts["distribution"] if "contentUrl" in f}
    page = "https://huggingface.co/datasets/org/clicks"
    assert addresses["clips.parquet"] == f"{page}/resolve/{commit}/clips.parquet"
    assert (facts["url"], addresses["repo"]) == (page, f"{page}/tree/{commit}")
    assert facts["distribution"][-1]["includes"] == "media/**"


@pytest.mark.slow
def test_mlcroissant_accepts_it_and_reads_the_rows(
    clicks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    mlcroissant = pytest.importorskip("mlcroissant", reason="the extra `exports` is not installed")
    about = About("https://example.org/clicks", "cc-by-4.0", "We", "2026-11-30", "@misc{clicks}")
    folder = tmp_path / "data"
    write_manifest(replace(read_manifest(clicks), media_root=clicks / "media"), folder)
    (folder / "croissant.json").write_text(json.dumps(croissant(str(folder), about)))
    with caplog.at_level(logging.WARNING):
        found = mlcroissant.Dataset(jsonld=str(folder / "croissant.json"))
    issues = found.metadata.ctx.issues
    assert (issues.errors, issues.warnings, caplog.messages) == (set(), set(), [])
    assert found.metadata.ctx.conforms_to.value == "http://mlcommons.org/croissant/1.1"
    rows = list(found.records("segments"))
    assert [(row["segments/id"].decode(), row["segments/offset_s"]) for row in rows] == [
        (s.id, s.offset_s) for s in read_manifest(clicks).segments
    ]
    monkeypatch.setattr(hosted, "fetch_tables", lambda repo, commit: clicks)
    (folder / "hosted.json").write_text(json.dumps(croissant(f"hub:org/clicks@{'0' * 40}", about)))
    assert not mlcroissant.Dataset(jsonld=str(folder / "hosted.json")).metadata.ctx.issues.errors
