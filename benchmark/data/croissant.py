"""Croissant 1.1 metadata (JSON-LD) of a manifest folder or a hosted data set: what search engines for data sets and
loaders of MLCommons read. https://docs.mlcommons.org/croissant/docs/croissant-spec-1.1.html"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from avbench.data import hub
from avbench.data.inspect import event_counts, event_credit
from avbench.protocol.manifest import Manifest, clip_columns, read_manifest, schema_version, segment_columns
from avbench.types import UsageError

CONFORMS_TO = "http://mlcommons.org/croissant/1.1"
PARQUET = "application/x-parquet"
DATA_TYPES = {"string": "sc:Text", "int64": "cr:Int64", "float64": "cr:Float64", "list<string>": "sc:Text"}
KEYWORDS = ("audio-visual synchronisation", "lip sync", "video", "audio")
_OF_CROISSANT = (  # terms that the context maps to the vocabulary of Croissant
    "arrayShape citeAs column containedIn equivalentProperty extract field fileProperty fileObject fileSet format "
    "includes isArray isLiveDataset jsonPath key md5 parentField path recordSet references regex repeated replace "
    "samplingRate separator source subField transform"
)
CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "name": {"@container": "@language"},
    "description": {"@container": "@language"},
    **{term: f"cr:{term}" for term in _OF_CROISSANT.split()},
}


@dataclass(frozen=True)
class About:
    """What a manifest does not know of itself. ``published``: a date, YYYY-MM-DD; "" leaves a field out."""

    url: str = ""
    license: str = ""
    creator: str = ""
    published: str = ""
    cite: str = ""


def croissant(source: str, about: About | None = None) -> dict[str, Any]:
    """The metadata of a manifest folder, or of ``hub:ORG/NAME@COMMIT``, whose tables are fetched and verified, its
    media not. The tables are files with their sha256 and record sets with every column; hosted media are a file set.

    ``UsageError``: not a manifest folder, an address that is not pinned; ``AvbenchError``: the hub's errors.
    """
    about = about or About()
    _check(about)
    if source.startswith("hub:"):
        repo, commit = hub.parse_address(source)
        folder = hub.fetch_tables(repo, commit)
        page = f"https://huggingface.co/datasets/{repo.name}"
        files, url = _hosted(f"{page}/resolve/{commit}"), about.url or page
    else:
        folder = Path(source)
        files, url = {name: name for name in hub.TABLES}, about.url
    manifest = read_manifest(folder)
    facts = {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": CONFORMS_TO,
        "name": manifest.name,
        "description": _description(manifest),
        "version": f"{schema_version(manifest)}.0.0",
        "identifier": f"sha256:{manifest.sha256}",
        "keywords": [*KEYWORDS, *manifest.splits],
        **({"url": url} if url else {}),
        **({"license": about.license} if about.license else {}),
        **({"creator": {"@type": "sc:Organization", "name": about.creator}} if about.creator else {}),
        **({"datePublished": about.published} if about.published else {}),
        **({"citeAs": about.cite} if about.cite else {}),
    }
    return facts | {"distribution": _files(folder, files), "recordSet": _record_sets(manifest)}


def _check(about: About) -> None:
    try:
        if about.published:
            date.fromisoformat(about.published)
    except ValueError as error:
        raise UsageError(f"--published is {about.published[:80]!r}; it must be a date such as 2026-11-30") from error


def _hosted(root: str) -> dict[str, str]:
    return {name: f"{root}/{name}" for name in hub.TABLES} | {"repo": root.replace("/resolve/", "/tree/")}


def _description(manifest: Manifest) -> str:
    credit = event_credit(event_counts(manifest))
    return " ".join(
        (
            manifest.note or "Labelled segments of video clips for audio-visual synchronisation.",
            f"{len(manifest.segments)} segments of {len(manifest.clips)} clips, offsets: {manifest.offset_law}.",
            "A positive offset means that the sound comes early (it leads the picture), a negative one that it comes"
            " late.",
            *([f"{credit}."] if credit else []),
        )
    )


def _files(folder: Path, addresses: Mapping[str, str]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for name in hub.TABLES:
        try:
            content = (folder / name).read_bytes()
        except OSError as error:
            raise UsageError(f"{folder / name} cannot be read: {error.strerror or error}") from error
        found.append(
            {
                "@type": "cr:FileObject",
                "@id": name,
                "name": name,
                "contentUrl": addresses[name],
                "contentSize": f"{len(content)} B",
                "encodingFormat": PARQUET,
                "sha256": hashlib.sha256(content).hexdigest(),
            }
        )
    if "repo" in addresses:
        repo = {"@type": "cr:FileObject", "@id": "repo", "name": "repo", "contentUrl": addresses["repo"]}
        # of a git repository no one file has a hash; the commit in the address is the pin
        repo |= {"encodingFormat": "git+https", "sha256": "https://github.com/mlcommons/croissant/issues/80"}
        media = {"@type": "cr:FileSet", "@id": "media", "name": "media", "containedIn": {"@id": "repo"}}
        found += [repo, media | {"encodingFormat": "video/mp4", "includes": f"{hub.MEDIA}/**"}]
    return found


def _record_sets(manifest: Manifest) -> list[dict[str, Any]]:
    """The two tables, a field a column; a segment's ``clip_id`` refers to its clip."""
    segments = segment_columns(manifest)
    if manifest.labels_hidden:
        segments = {name: column for name, column in segments.items() if not name.startswith("offset_")}
    sets = []
    for table, columns in (("clips", clip_columns(manifest)), ("segments", segments)):
        fields = []
        for name, (kind, meaning) in columns.items():
            field: dict[str, Any] = {
                "@type": "cr:Field",
                "@id": f"{table}/{name}",
                "name": name,
                "description": meaning,
                "dataType": DATA_TYPES[kind],
                "source": {"fileObject": {"@id": f"{table}.parquet"}, "extract": {"column": name}},
            }
            if kind.startswith("list"):
                field |= {"isArray": True, "arrayShape": "-1"}
            if (table, name) == ("segments", "clip_id"):
                field["references"] = {"field": {"@id": "clips/id"}}
            fields.append(field)
        sets.append(
            {"@type": "cr:RecordSet", "@id": table, "name": table, "key": {"@id": f"{table}/id"}, "field": fields}
        )
    return sets
