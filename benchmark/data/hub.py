"""A manifest folder as a data set on the Hugging Face hub: push, pull, pin and verify.

The repository contains ``manifest.json``, ``clips.parquet`` and ``segments.parquet`` as in the folder (media_root is
``media``), the media under ``media/``, a card (``README.md``) and, for ``datasets.load_dataset``, a copy of each
split's rows under ``splits/``. A revision is a commit: its 40 digits always name the same bytes.

Files from a hub are not trusted: paths must stay inside the folder (links included), sizes are capped, and no file is
put in place before its sha256 matches the pinned one. This is why :func:`pull` reads the tables itself and not through
``load_dataset``, which knows no pins and needs the rows of a split as separate files; :mod:`avbench.data.dataset` has
the ``datasets`` view.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avbench.data.inspect import by_channel, event_counts, event_credit, media_problems, overview
from avbench.data.media import media_sha256
from avbench.protocol.manifest import Manifest, clip_columns, read_manifest, read_meta, schema_version, segment_columns
from avbench.system.atomic import atomic_write_bytes, sweep, whole
from avbench.system.findings import first_of
from avbench.system.outputs import held_in, listed
from avbench.system.paths import path_of
from avbench.system.progress import ItemProgress
from avbench.system.proxies import proxy_hint, unusable_proxy
from avbench.types import AvbenchError, ClipRecord, UsageError, first_line

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd, HfApi

TABLES = ("clips.parquet", "segments.parquet")
MEDIA = "media"
ADDRESS = "hub:ORG/NAME@COMMIT"
MAX_BYTES = {"manifest.json": 2**22, **dict.fromkeys(TABLES, 2**30), MEDIA: 2**35}  # largest size of one file
MAX_ROWS = 20_000_000
MAX_UNPACKED_BYTES = 2**33
DOWNLOADS = 6  # in parallel
UPLOADS = 20  # files per call of the client
_REPO = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
_COMMIT = re.compile("[0-9a-f]{40}")
_SPLIT = re.compile(r"\w+")


@dataclass(frozen=True)
class HubRepo:
    """A data set's repository. ``name``: ORG/NAME; ``endpoint``: the hub's URL (None: $HF_ENDPOINT or huggingface.co);
    ``token``: None takes $HF_TOKEN or the login. ``UsageError`` if ``name`` is not a repository name."""

    name: str
    endpoint: str | None = None
    token: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not _REPO.fullmatch(self.name) or ".." in self.name or "--" in self.name:
            raise UsageError(f"{self.name!r} is not a valid repository name (ORG/NAME)")

    @contextlib.contextmanager
    def client(self, revision: str | None = None, path: str | None = None) -> Iterator[HfApi]:
        """The hub's client, for calls of the client only: every error raised in this block is blamed on the hub.
        ``revision`` and ``path`` are named in the message."""
        from huggingface_hub import HfApi

        with hub_errors(self.name, self.endpoint, revision, path):
            yield HfApi(endpoint=self.endpoint, token=self.token)


@dataclass(frozen=True)
class Pulled:
    """``folder``: a manifest folder; ``revision``: the commit it contains; ``n_unseen``: number of clips without
    media."""

    folder: Path
    revision: str
    manifest: Manifest
    n_unseen: int


# ------------------------------------------------------------------------------------------------------------- pushing


def push(
    directory: Path,
    repo: HubRepo,
    *,
    private: bool = False,
    with_media: bool = True,
    progress: ItemProgress | None = None,
) -> str:
    """Publish a manifest folder as a data set, in one commit; returns the commit's sha, the pin of what was published.

    Every media file's hash is checked first. Files already on the hub are not sent again, so an interrupted push
    resumes; media that the manifest no longer names are removed. ``with_media`` False: publish the labels only.
    ``UsageError``: not a manifest folder; ``AvbenchError``: changed media, or the hub refuses.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    manifest = read_manifest(directory)
    unfit = [name for name in manifest.splits if not _SPLIT.fullmatch(name)]
    if unfit:
        raise UsageError(f"split {unfit[0]!r} cannot be hosted: split names may contain letters, digits and _ only")
    seen = [c for c in manifest.clips.values() if c.seen] if with_media else []
    problems = media_problems(manifest, seen, decode=False)
    if problems:
        raise AvbenchError(f"not pushed: {first_of(problems)}")
    with tempfile.TemporaryDirectory() as temporary:
        small = _hosted_files(Path(directory), manifest, repo.name, Path(temporary))
        media = {f"{MEDIA}/{c.path}": manifest.clip_path(c) for c in seen}
        with repo.client():
            adds = [CommitOperationAdd(path, str(file)) for path, file in {**media, **small}.items()]
        _create(repo, private)
        _upload(repo, adds, progress)
        with repo.client() as api:
            there = api.list_repo_files(repo.name, repo_type="dataset")
        ours = {f"{MEDIA}/{c.path}" for c in manifest.clips.values()} | set(small)
        stale = [p for p in there if p.startswith((f"{MEDIA}/", "splits/")) and p not in ours]
        deletes = [CommitOperationDelete(path) for path in stale]
        message = f"{manifest.name}: {len(manifest.segments)} segments, manifest {manifest.sha256[:12]}"
        with repo.client() as api:
            commit = api.create_commit(repo.name, [*adds, *deletes], commit_message=message, repo_type="dataset")
    if progress:
        progress(len(adds), len(adds), "")
    return commit.oid


def _create(repo: HubRepo, private: bool) -> None:
    """Make the repository if there is none; ``private``: refuse one that is public."""
    with repo.client() as api:
        api.create_repo(repo.name, repo_type="dataset", private=private, exist_ok=True)
        is_private = api.dataset_info(repo.name).private
    if private and not is_private:
        raise AvbenchError(f"{repo.name} already exists and is public; nothing was pushed")


def _upload(repo: HubRepo, adds: list[CommitOperationAdd], progress: ItemProgress | None) -> None:
    """Send the large files ahead of the commit, several at a time."""
    for done in range(0, len(adds), UPLOADS):
        if progress:
            progress(done, len(adds), adds[done].path_in_repo)
        with repo.client() as api:
            api.preupload_lfs_files(repo.name, adds[done : done + UPLOADS], repo_type="dataset")


def _hosted_files(directory: Path, manifest: Manifest, repo: str, folder: Path) -> dict[str, Path]:
    """Everything except the media, path in the repository -> file: the tables unchanged, and the files made from
    them."""
    meta = json.loads((directory / "manifest.json").read_bytes()) | {"media_root": MEDIA}
    files = {"manifest.json": (json.dumps(meta, indent=2, ensure_ascii=False) + "\n").encode()}
    files |= {name: (directory / name).read_bytes() for name in TABLES}
    own = directory / "README.md"
    own_text = own.read_text("utf-8") if own.is_file() else ""
    files["README.md"] = (
        own_text if re.match(r"---\n.*?^configs:", own_text, re.S | re.M) else card(manifest, repo)
    ).encode()
    files |= _by_split(files, manifest)
    placed = {}
    for name, data in files.items():
        placed[name] = folder / name
        placed[name].parent.mkdir(exist_ok=True)
        placed[name].write_bytes(data)
    return placed


def _by_split(tables: Mapping[str, bytes], manifest: Manifest) -> dict[str, bytes]:
    """Each split's rows as separate files: a configuration in the card can name files, but not rows of a file."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    clips, segments = (pq.ParquetFile(io.BytesIO(tables[name])).read() for name in TABLES)
    files = {}
    for split in manifest.splits:
        rows = segments.filter(pc.equal(segments["split"], split))
        used = pc.is_in(clips["id"], value_set=rows["clip_id"].combine_chunks())
        for name, part in (
            ("clips", clips.filter(pc.or_(pc.equal(clips["split"], split), used))),
            ("segments", rows),
        ):
            sink = pa.BufferOutputStream()
            pq.write_table(part, sink, compression="zstd")
            files[f"splits/{split}-{name}.parquet"] = sink.getvalue().to_pybytes()
    return files


def card(manifest: Manifest, repo: str = "ORG/NAME") -> str:
    """The data set's card in Markdown: configurations and splits for ``load_dataset``, counts, columns, how to pin."""
    lines = ["---", f"pretty_name: {json.dumps(manifest.name)}", "tags:", "- audio-visual synchronisation", "configs:"]
    for name in ("segments", "clips"):
        lines += [f"- config_name: {name}", *(["  default: true"] if name == "segments" else []), "  data_files:"]
        for split in manifest.splits:
            lines += [f"  - split: {split}", f"    path: splits/{split}-{name}.parquet"]
    n_seen = sum(c.seen for c in manifest.clips.values())
    credit = event_credit(event_counts(manifest))
    lines += [
        "---",
        "",
        f"# {manifest.name}",
        "",
        f"{manifest.note or 'Labelled segments of video clips for audio-visual synchronisation.'}",
        "",
        f"- kind: {manifest.kind}; offsets: {manifest.offset_law}; schema version {schema_version(manifest)}",
        "- **A positive offset means that the sound comes early** (it leads the picture), a negative one that it comes"
        " late.",
        f"- {len(manifest.clips)} clips, {n_seen} of them with media pinned by sha256 (under `{MEDIA}/`, or"
        " where `--media-root` says)",
        f"- manifest sha256: `{manifest.sha256}`",
        *([f"- {credit}"] if credit else []),
        "",
        "## Use",
        "",
        "```",
        f"avbench data pull {repo} --revision COMMIT",
        f"avbench run --model streamsync-trf --data hub:{repo}@COMMIT",
        "```",
        "",
        "```python",
        "import datasets",
        "",
        f'segments = datasets.load_dataset("{repo}", revision=COMMIT)  # splits: {", ".join(manifest.splits)}',
        f'clips = datasets.load_dataset("{repo}", "clips", revision=COMMIT)  # a clip\'s file is {MEDIA}/<path>',
        "```",
        "",
        "## Splits",
        "",
        *_markdown(
            overview(manifest),
            {"hours": ".2f", "clip_s": ".1f", "segments_per_clip": ".1f", "in_sync": ".3f", "annotated": ".3f"},
        ),
        "",
        "## Channels",
        "",
        *_markdown(by_channel(manifest), {"hours": ".2f"}),
        "",
    ]
    for name, columns in (("segments", segment_columns(manifest)), ("clips", clip_columns(manifest))):
        rows = [{"column": f"`{key}`", "type": kind, "meaning": text} for key, (kind, text) in columns.items()]
        lines += [f"## Columns of `{name}`", "", *_markdown(rows, {}), ""]
    return "\n".join(lines)


def _markdown(rows: Sequence[Mapping[str, Any]], formats: Mapping[str, str]) -> list[str]:
    if not rows:
        return []
    heads = list(rows[0])
    body = [[format(row[h], formats.get(h, "")).replace("|", "\\|").replace("\n", " ") for h in heads] for row in rows]
    return [
        "| " + " | ".join(cells) + " |" for cells in [[h.replace("_", " ") for h in heads], ["---"] * len(heads), *body]
    ]


# ------------------------------------------------------------------------------------------------------------- pulling


def pull(  # noqa: PLR0913  (the options of `avbench data pull`)
    repo: HubRepo,
    revision: str = "main",
    out: Path | None = None,
    *,
    allow_moving: bool = False,
    media_root: Path | None = None,
    force: bool = False,
    progress: ItemProgress | None = None,
) -> Pulled:
    """Fetch a hosted data set at one commit into ``out`` (None: avbench's cache) and verify every hash.

    Files already there are not fetched again, so an interrupted pull resumes: ``pulled.json``, written first, says
    which one it is. ``manifest.json`` is written last, so an unfinished folder is never taken for a data set. Without a
    network (HF_HUB_OFFLINE=1) files come from the client's cache. A file whose hash is wrong, there or as it arrived,
    is fetched anew once, then refused. ``media_root``: the media are in this folder; they are verified, not fetched.
    ``force``: ``out`` may hold something else, which is replaced where names are the same.

    ``UsageError``: a revision that can move (a branch or a tag) without ``allow_moving``, or an ``out`` that holds
    something else; ``AvbenchError``: no such repository or revision, no access, not an avbench data set, a file that
    does not match its hash, no network.
    """
    if out is not None and not force:
        check_another(Path(out), repo.name)
    pinned = _pin(repo, revision, allow_moving)
    folder = Path(out) if out is not None else default_folder(repo.name, pinned)
    source = _Source(repo, pinned)
    try:
        data, manifest = source.tables()
    except AvbenchError:
        whole = _there_already(folder, repo.name, pinned) if media_root is None else None
        if whole is None:
            raise
        return whole  # neither the hub nor the client's cache has it, but the folder itself is complete
    clips = [c for c in manifest.clips.values() if c.seen]
    origin = {"repo": repo.name, "revision": pinned, "asked_for": revision}
    if folder.is_dir():
        for clip in clips if media_root is None else ():
            _inside(folder, f"{MEDIA}/{clip.path}")
        if not force:
            _refuse_foreign(folder, origin)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write_json(folder / "pulled.json", origin)
        if media_root is not None:
            media_root = Path(media_root).resolve()
            _verify_elsewhere(clips, media_root, progress)
        else:
            _fetch_media(source, clips, folder, progress)
        with contextlib.suppress(AvbenchError):  # a data set may have no card
            atomic_write_bytes(folder / "README.md", source.fetch("README.md", "manifest.json").read_bytes())
        _write_pulled(folder, data, media_root)
    except OSError as error:
        raise AvbenchError(f"cannot write {folder}: {error.strerror or error}") from error
    return Pulled(folder, pinned, read_manifest(folder), len(manifest.clips) - len(clips))


def check_another(folder: Path, repo: str) -> None:
    """``UsageError`` if the folder holds anything but a pull of this repository, which is known without a network."""
    held, there = held_in(folder), _origin(folder)
    if held and there.get("repo") != repo:
        raise UsageError(_taken(folder, held, there))


def _refuse_foreign(folder: Path, origin: Mapping[str, str]) -> None:
    """``UsageError`` if the folder holds anything but this pull, finished or not."""
    held = held_in(folder)
    there = _origin(folder)
    if not held or (there.get("repo"), there.get("revision")) == (origin["repo"], origin["revision"]):
        return
    raise UsageError(_taken(folder, held, there))


def _taken(folder: Path, held: list[str], there: Mapping[str, str]) -> str:
    what = f"{there['repo']} at {there['revision']}" if {"repo", "revision"} <= set(there) else listed(held)
    return f"{folder} already holds {what}; give --force to replace it, or choose another --out"


def _origin(folder: Path) -> dict[str, Any]:
    """What ``pulled.json`` says of the folder; empty if there is none."""
    try:
        origin = json.loads((folder / "pulled.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return origin if isinstance(origin, dict) else {}


def _write_pulled(folder: Path, data: Mapping[str, bytes], media_root: Path | None) -> None:
    """Write the tables, then ``manifest.json``. ``media_root``: recorded in it; None: as published."""
    meta = json.loads(data["manifest.json"]) | ({"media_root": str(media_root)} if media_root is not None else {})
    for name in TABLES:
        atomic_write_bytes(folder / name, data[name])
    _write_json(folder / "manifest.json", meta)


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    atomic_write_bytes(path, (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())


def fetch_tables(repo: HubRepo, revision: str) -> Path:
    """The folder in the client's cache with ``manifest.json`` and the two tables of one commit, verified against each
    other; no media are fetched. Errors as :func:`pull`'s."""
    source = _Source(repo, revision)
    source.tables()
    return source.fetch("manifest.json", "manifest.json").parent


def fetch_meta(repo: HubRepo, revision: str) -> dict[str, Any]:
    """The content of one commit's ``manifest.json``, not verified against the tables. Errors as :func:`pull`'s."""

    def read(path: Path) -> dict[str, Any]:
        try:
            return read_meta(path.parent)
        except UsageError as error:
            raise AvbenchError(f"{repo.name}: {str(error).replace(str(path), path.name)}") from error

    source = _Source(repo, revision)
    path = source.fetch("manifest.json", "manifest.json")
    try:
        return read(path)
    except AvbenchError as error:
        return read(source.fetch_anew("manifest.json", "manifest.json", str(error)))


def place_tables(repo: HubRepo, revision: str, folder: Path) -> Manifest:
    """Fetch and verify the tables of one commit and write them into ``folder``, which gets no media; the manifest in
    it. Errors as :func:`pull`'s."""
    data, _ = _Source(repo, revision).tables()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write_pulled(folder, data, None)
    except OSError as error:
        raise AvbenchError(f"cannot write {folder}: {error.strerror or error}") from error
    return read_manifest(folder)


def media_sizes(repo: HubRepo, revision: str, paths: Sequence[str]) -> dict[str, int]:
    """The sizes in bytes of the hosted media of these paths (relative to the media), as the hub says. Errors as
    :func:`pull`'s."""
    found = _Source(repo, revision).sizes([f"{MEDIA}/{path}" for path in paths], MEDIA)
    return {path: found[f"{MEDIA}/{path}"] for path in paths}


def fetch_into(folder: Path, repo: HubRepo, revision: str, path: str, *, anew: bool = False) -> Path:
    """Fetch one medium into ``folder``, past the client's cache; nothing of it is verified. ``anew``: not from there
    either. Errors as :func:`pull`'s; a hub that does not answer at once is told without further tries."""
    from huggingface_hub import hf_hub_url

    name = f"{MEDIA}/{path}"
    with repo.client(revision, name) as api:
        address = hf_hub_url(repo.name, name, repo_type="dataset", revision=revision, endpoint=api.endpoint)
        api.get_hf_file_metadata(url=address)
        file = api.hf_hub_download(
            repo.name, name, repo_type="dataset", revision=revision, local_dir=folder, force_download=anew
        )
    return Path(file)


def may_pass(error: AvbenchError) -> bool:
    """Whether an error of the hub is of the kind that may be over soon: it does not answer, or is busy."""
    from huggingface_hub import errors

    cause = error.__cause__
    if isinstance(cause, errors.HfHubHTTPError):
        return cause.response.status_code >= 500 or cause.response.status_code == 429
    return isinstance(cause, ConnectionError | TimeoutError) or _of_http(cause)


def expect_file(repo: HubRepo, revision: str, path: str) -> None:
    """``AvbenchError`` unless the commit has this table and its size is allowed. Errors as :func:`pull`'s."""
    _Source(repo, revision).expect([path], TABLES[0])


def _there_already(folder: Path, repo: str, revision: str) -> Pulled | None:
    """The folder, if it contains exactly this revision and every hash matches; None otherwise."""
    origin = _origin(folder)
    try:
        manifest = read_manifest(folder)
    except UsageError:
        return None
    clips = [c for c in manifest.clips.values() if c.seen]
    if (origin.get("repo"), origin.get("revision")) != (repo, revision) or media_problems(
        manifest, clips, decode=False
    ):
        return None
    return Pulled(folder, revision, manifest, len(manifest.clips) - len(clips))


def open_address(address: str, progress: ItemProgress | None = None) -> Manifest:
    """The manifest of ``hub:ORG/NAME@COMMIT``, pulled now unless it was pulled before and is undamaged. Only a commit
    is accepted, because a result must name the bytes it was computed from. Errors as :func:`pull`'s."""
    repo, revision = parse_address(address)
    return undamaged(default_folder(repo.name, revision)) or pull(repo, revision, progress=progress).manifest


def undamaged(folder: Path) -> Manifest | None:
    """The manifest in a folder that was pulled; None if there is none, or if its tables were damaged since."""
    try:
        return read_manifest(folder)
    except UsageError:
        return None


def parse_address(address: str) -> tuple[HubRepo, str]:
    """Repository and commit of ``hub:ORG/NAME@COMMIT``; ``UsageError`` if it is not pinned to a commit."""
    name, at, revision = address.removeprefix("hub:").partition("@")
    if not at or not _COMMIT.fullmatch(revision):
        what = f"{revision!r} can move" if at and _REPO.fullmatch(name) else f"{address!r} is not pinned"
        raise UsageError(f"{what}: write {ADDRESS} with all 40 digits of the commit (`avbench data pull` prints it)")
    return HubRepo(name), revision


def default_folder(repo: str, revision: str) -> Path:
    """Where a data set is pulled to by default: ``hub/ORG--NAME/COMMIT`` in avbench's cache."""
    from avbench.system.cache import cache_root

    return cache_root() / "hub" / repo.replace("/", "--") / revision


def _pin(repo: HubRepo, revision: str, allow_moving: bool) -> str:
    """The commit that a revision names. A branch or tag is refused unless the caller allows it."""
    if _COMMIT.fullmatch(revision):
        return revision
    if re.fullmatch("[0-9a-f]{4,39}", revision):
        raise UsageError(f"revision {revision} is abbreviated; give all 40 digits of the commit")
    with repo.client(revision) as api:
        now = api.dataset_info(repo.name, revision=revision).sha
    if not isinstance(now, str) or not _COMMIT.fullmatch(now):
        raise AvbenchError(f"{repo.name}: the hub returned no commit for revision {revision}")
    if not allow_moving:
        raise UsageError(
            f"revision {revision!r} can move; pin it: --revision {now} (or --allow-moving, never for a board)"
        )
    return now


class _Source:
    """One commit of one repository: fetches files into the client's cache."""

    def __init__(self, repo: HubRepo, revision: str) -> None:
        self.repo, self.revision = repo, revision
        self.expected: set[str] = set()  # files that the hub has, and whose size is allowed

    def tables(self) -> tuple[dict[str, bytes], Manifest]:
        """The content of ``manifest.json`` and the two tables, by name, and the manifest that they are."""
        data = {name: _content(self.fetch(name, name)) for name in ("manifest.json", *TABLES)}
        try:
            return data, _read_hosted(self.repo.name, data)
        except AvbenchError as error:
            damaged = str(error)
        # manifest.json first: what it pins cannot be trusted if it is damaged itself
        data["manifest.json"] = _content(self.fetch_anew("manifest.json", "manifest.json", damaged))
        for name in _not_pinned(data):
            self.forget(name)
            data[name] = _content(self.fetch_anew(name, name, damaged))
        try:
            return data, _read_hosted(self.repo.name, data)
        except AvbenchError:
            for name in _not_pinned(data):
                self.forget(name)
            raise

    def expect(self, paths: Sequence[str], kind: str, *, anew: bool = False) -> None:
        """Ask the hub for the sizes of the files that are not cached (``anew``: of all); a missing or too large one is
        refused."""
        todo = [path for path in paths if path not in self.expected and (anew or self.cached(path) is None)]
        self.expected |= self.sizes(todo, kind).keys()

    def sizes(self, paths: Sequence[str], kind: str) -> dict[str, int]:
        """What the hub says are the sizes of the files; a missing or too large one is refused."""
        from huggingface_hub.hf_api import RepoFile

        sizes: dict[str, int] = {}
        for begin in range(0, len(paths), 500):
            part = paths[begin : begin + 500]
            with self.repo.client(self.revision, part[0]) as api:
                found = api.get_paths_info(self.repo.name, list(part), revision=self.revision, repo_type="dataset")
                sizes |= {f.path: f.size for f in found if isinstance(f, RepoFile)}
            for path in part:
                if path not in sizes:
                    hint = "; it is not an avbench data set" if path == "manifest.json" else ""
                    raise AvbenchError(f"{self.repo.name} has no {path} at revision {self.revision[:12]}{hint}")
                if sizes[path] > MAX_BYTES[kind]:
                    raise AvbenchError(
                        f"{self.repo.name}: {path} has {sizes[path]} bytes, at most {MAX_BYTES[kind]} are allowed"
                    )
        return sizes

    def fetch(self, path: str, kind: str) -> Path:
        """The file in the client's cache, fetched if it is not there. ``kind``: its key in ``MAX_BYTES``."""
        known = self.cached(path)
        if known is not None and known.stat().st_size > MAX_BYTES[kind]:
            self.forget(path)  # the hub is asked what its size is
            known = None
        return known if known is not None else self._download(path, kind)

    def fetch_anew(self, path: str, kind: str, wrong: str) -> Path:
        """As ``fetch``, but fetched in any case: the client never looks again into a file that it has. ``wrong``: what
        is wrong with that file, in words."""
        try:
            return self._download(path, kind, anew=True)
        except AvbenchError as error:
            raise AvbenchError(f"{wrong}; it could not be fetched anew: {error}") from error

    def _download(self, path: str, kind: str, *, anew: bool = False) -> Path:
        self.expect([path], kind, anew=anew)
        with self.repo.client(self.revision, path) as api:
            name, revision = self.repo.name, self.revision
            file = Path(api.hf_hub_download(name, path, repo_type="dataset", revision=revision, force_download=anew))
        if file.stat().st_size > MAX_BYTES[kind]:
            self.forget(path)
            raise AvbenchError(f"{self.repo.name}: {path} is too large (at most {MAX_BYTES[kind]} bytes are allowed)")
        return file

    def cached(self, path: str) -> Path | None:
        """The file in the client's cache; None if it is not there."""
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(self.repo.name, path, repo_type="dataset", revision=self.revision)
        return Path(found) if isinstance(found, str) else None

    def forget(self, path: str) -> None:
        """Remove a wrong file from the client's cache, so that it is not used again."""
        known = self.cached(path)
        if known is not None:
            for file in (known.resolve(), known):
                file.unlink(missing_ok=True)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise AvbenchError(f"{path} cannot be read: {error.strerror or error}") from error


def _not_pinned(data: Mapping[str, bytes]) -> list[str]:
    """The tables that are not those whose hashes are in ``manifest.json``; none if nothing can be read from it."""
    try:
        pins = json.loads(data["manifest.json"])["tables"]
        return [name for name in TABLES if hashlib.sha256(data[name]).hexdigest() != pins[name]]
    except (ValueError, LookupError, TypeError, RecursionError):
        return []


def _read_hosted(repo: str, data: Mapping[str, bytes]) -> Manifest:
    """The manifest in these three files, read in a temporary folder. Nothing in it is trusted yet."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    for name in TABLES:
        try:
            facts = pq.ParquetFile(io.BytesIO(data[name])).metadata
            unpacked = sum(facts.row_group(i).total_byte_size for i in range(facts.num_row_groups))
        except (pa.ArrowException, OSError, ValueError) as error:
            raise AvbenchError(f"{repo}: {name} is not a readable parquet table") from error
        if facts.num_rows > MAX_ROWS or unpacked > MAX_UNPACKED_BYTES:
            raise AvbenchError(f"{repo}: {name} is too large ({facts.num_rows} rows, {unpacked} bytes unpacked)")
    with tempfile.TemporaryDirectory() as temporary:
        for name, content in data.items():
            (Path(temporary) / name).write_bytes(content)
        try:
            manifest = read_manifest(Path(temporary))
        except UsageError as error:
            raise AvbenchError(f"{repo}: {str(error).replace(temporary, '').lstrip(':/ ')}") from error
    if json.loads(data["manifest.json"])["media_root"] != MEDIA:
        raise AvbenchError(f"{repo}: media_root in manifest.json must be {MEDIA!r}")
    return manifest


def _fetch_media(source: _Source, clips: Sequence[ClipRecord], folder: Path, progress: ItemProgress | None) -> None:
    """Fetch and verify the media that the folder lacks; each file appears there only when it is complete, and
    ``manifest.json`` is removed before the first does."""
    targets = {clip.path: _inside(folder, f"{MEDIA}/{clip.path}") for clip in clips}

    def is_there(clip: ClipRecord) -> bool:
        return targets[clip.path].is_file() and media_sha256(targets[clip.path]) == clip.sha256

    def fetch(clip: ClipRecord) -> None:
        path = f"{MEDIA}/{clip.path}"
        wrong = f"{source.repo.name}: {path} is not the file that the manifest pins (other sha256); it was discarded"
        file = source.fetch(path, MEDIA)
        if media_sha256(file) != clip.sha256:  # damaged on its way or in the cache
            source.forget(path)
            file = source.fetch_anew(path, MEDIA, wrong)
        if media_sha256(file) != clip.sha256:
            source.forget(path)
            raise AvbenchError(wrong)
        targets[clip.path].parent.mkdir(parents=True, exist_ok=True)
        _place(file, targets[clip.path])

    with ThreadPoolExecutor(DOWNLOADS) as pool:
        lacking = [clip for clip, held in zip(clips, pool.map(is_there, clips), strict=True) if not held]
        source.expect([f"{MEDIA}/{clip.path}" for clip in lacking], MEDIA)
        (folder / "manifest.json").unlink(missing_ok=True)  # not a data set until it is back
        jobs = [pool.submit(fetch, clip) for clip in lacking]
        try:
            for done, (clip, job) in enumerate(zip(lacking, jobs, strict=True), len(clips) - len(lacking)):
                job.result()
                if progress:
                    progress(done + 1, len(clips), clip.id)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _verify_elsewhere(clips: Sequence[ClipRecord], media: Path, progress: ItemProgress | None) -> None:
    """Check the hashes of media kept in another folder; ``AvbenchError`` for the first problem."""
    problems = []
    for done, clip in enumerate(clips):
        path = media / path_of(clip.path)
        if not path.resolve().is_relative_to(media):
            problems.append(f"clip {clip.id}: {path} points outside {media} through a link")
        elif not path.is_file():
            problems.append(f"clip {clip.id}: {path} does not exist")
        elif media_sha256(path) != clip.sha256:
            problems.append(f"clip {clip.id}: {path} is not the file that the manifest pins (other sha256)")
        if progress:
            progress(done + 1, len(clips), clip.id)
    if problems:
        raise AvbenchError(first_of(problems))


def _inside(folder: Path, path: str) -> Path:
    """``folder/path``; refused if it is outside the folder, also through a link."""
    target = folder / path_of(path)
    home = folder.resolve()
    there = target.parent
    while not there.exists():
        there = there.parent
    if ".." in Path(path).parts or not there.resolve().is_relative_to(home) or target.is_symlink():
        raise AvbenchError(f"{target} points outside {folder}; nothing was written there")
    return target


def _place(file: Path, target: Path) -> None:
    """Hard-link the cached file, or copy it where that is impossible; the target appears complete or not at all."""
    sweep(target)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        os.link(file.resolve(), temporary)
        os.replace(temporary, target)
    except OSError:
        with whole(target) as copy:
            shutil.copyfile(file, copy)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def hub_errors(
    repo: str, endpoint: str | None = None, revision: str | None = None, path: str | None = None
) -> Iterator[None]:
    """Turn an error of the hub's client into one line that says what to do. Wrap calls of the client only: an error of
    our own code in this block would be blamed on the hub."""
    from huggingface_hub import constants, utils

    bars = utils.are_progress_bars_disabled()
    if not bars:
        utils.disable_progress_bars()
    try:
        yield
    except Exception as error:
        told = _told(error, repo, endpoint or constants.ENDPOINT, revision, path)
        if problem := unusable_proxy():
            told = AvbenchError(problem)
        if told is None:
            raise
        raise told from error
    finally:
        if not bars:
            utils.enable_progress_bars()


def _told(error: Exception, repo: str, where: str, revision: str | None, path: str | None) -> AvbenchError | None:
    """What an error of the hub's client means; None if it is not known as one."""
    from huggingface_hub import constants, errors

    if isinstance(error, errors.GatedRepoError):
        return AvbenchError(f"{repo} is gated: request access on {where}, then log in (`hf auth login`)")
    if isinstance(error, errors.RepositoryNotFoundError):
        return AvbenchError(
            f"there is no data set {repo} on {where}, or it is private and your token (HF_TOKEN, `hf auth login`) "
            "does not give access"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return AvbenchError(f"{repo} has no revision {revision}")
    if isinstance(error, (errors.OfflineModeIsEnabled, errors.LocalEntryNotFoundError)):
        why = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else f"{where} cannot be reached"
        if revision is None:
            return AvbenchError(f"{why}; nothing can be pushed to {repo}")
        what = f"{path} of {repo}" if path else f"the commit of revision {revision} of {repo}"
        return AvbenchError(f"{why}, and {what} is not in the cache; pull it once online")
    if isinstance(error, errors.EntryNotFoundError):
        return AvbenchError(f"{repo} has no {path} at revision {(revision or '')[:12]}")
    if isinstance(error, errors.HFValidationError):
        return UsageError(f"{repo}: {first_line(error)}")
    if isinstance(error, errors.HfHubHTTPError):
        status = getattr(error.response, "status_code", None)
        if status == 401:
            return AvbenchError(f"{where} rejected the token (HF_TOKEN, `hf auth login`)")
        if status == 403:
            return AvbenchError(f"your token does not allow this on {repo} at {where}")
        return AvbenchError(f"{where} answered {status} for {repo}: {first_line(error)}")
    if isinstance(error, OSError) and error.strerror:  # a full disk, a cache that cannot be written
        return AvbenchError(f"{error.filename or repo}: {error.strerror}")
    # the client's own kinds of a broken connection differ between its versions
    if isinstance(error, OSError) or _of_http(error):
        return AvbenchError(f"{where} cannot be reached: {first_line(error)}{proxy_hint()}")
    if isinstance(error, (LookupError, TypeError, AttributeError, AssertionError)):
        return AvbenchError(f"{where} is not a Hugging Face Hub endpoint")
    if isinstance(error, (RuntimeError, ValueError)):
        cause = error.__cause__
        return AvbenchError(f"{where}, {repo}: {first_line(error)} {first_line(cause) if cause else ''}")
    return None


def _of_http(error: BaseException | None) -> bool:
    """Whether it is an error of one of the libraries that the client may use."""
    libraries = ("httpx", "httpx2", "httpcore", "httpcore2", "requests", "urllib3")
    return type(error).__module__.split(".")[0] in libraries
