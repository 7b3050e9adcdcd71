"""A manifest folder as a data set on the Hugging Face hub: pushed, pulled, pinned and verified.

In the repository: ``manifest.json``, ``clips.parquet`` and ``segments.parquet`` as in the folder (media_root is
``media``), the media under ``media/``, a card (``README.md``) and, for ``datasets.load_dataset``, the rows of each
split once more under ``splits/``. A revision is a commit: the same 40 digits are the same bytes for ever.

What comes from a hub is not trusted: paths stay below the folder, nothing is followed out of it through a link, sizes
are capped, and no file is put in place before its sha256 is the pinned one.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avbench.data.inspect import by_channel, media_problems, overview
from avbench.data.media import media_sha256
from avbench.protocol.manifest import CLIP_COLUMNS, SCHEMA_VERSION, SEGMENT_COLUMNS, Manifest, read_manifest
from avbench.system.atomic import atomic_write_bytes
from avbench.types import AvbenchError, ClipRecord, UsageError, first_line

TABLES = ("clips.parquet", "segments.parquet")
MEDIA = "media"
ADDRESS = "hub:ORG/NAME@COMMIT"
MAX_BYTES = {"manifest.json": 2**22, **dict.fromkeys(TABLES, 2**30), MEDIA: 2**35}  # what one file may have
MAX_ROWS = 20_000_000
MAX_UNPACKED_BYTES = 2**33
DOWNLOADS = 6  # at a time
_REPO = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
_COMMIT = re.compile("[0-9a-f]{40}")
_SPLIT = re.compile(r"\w+")

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Pulled:
    """``folder`` is a manifest folder; ``revision`` the commit it holds; ``n_unseen``: clips that have no media."""

    folder: Path
    revision: str
    manifest: Manifest
    n_unseen: int


# ------------------------------------------------------------------------------------------------------------- pushing


def push(
    directory: Path,
    repo: str,
    *,
    private: bool = False,
    with_media: bool = True,
    endpoint: str | None = None,
    token: str | None = None,
    progress: Progress | None = None,
) -> str:
    """Publish a manifest folder as a data set, in one commit; returns the commit's sha, the pin of what was published.

    Every media file's hash is checked first. Files that the hub has already are not sent again, so a push that was
    killed continues; media that the manifest no longer names are removed. ``with_media`` False: the labels alone.
    ``UsageError``: not a repository's name, not a manifest folder; ``AvbenchError``: changed media, or the hub refuses.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    _check_repo(repo)
    manifest = read_manifest(directory)
    unfit = [name for name in manifest.splits if not _SPLIT.fullmatch(name)]
    if unfit:
        raise UsageError(f"the hub takes letters, digits and _ in a split's name; {unfit[0]!r} has others")
    seen = [c for c in manifest.clips.values() if c.seen] if with_media else []
    problems = media_problems(manifest, seen, decode=False)
    if problems:
        more = f" (and {len(problems) - 1} more such problems)" if len(problems) > 1 else ""
        raise AvbenchError(f"not pushed: {problems[0]}{more}")
    api = HfApi(endpoint=endpoint, token=token)
    with tempfile.TemporaryDirectory() as temporary, _hub_errors(repo, endpoint):
        small = _hosted_files(Path(directory), manifest, repo, Path(temporary))
        api.create_repo(repo, repo_type="dataset", private=private, exist_ok=True)
        if private and not api.dataset_info(repo).private:
            raise AvbenchError(f"{repo} exists already and is public; nothing was pushed")
        media = {f"{MEDIA}/{c.path}": manifest.clip_path(c) for c in seen}
        adds = [CommitOperationAdd(path, str(file)) for path, file in {**media, **small}.items()]
        for done in range(0, len(adds), 20):  # several at a time, and the large ones before the commit
            if progress:
                progress(done, len(adds), adds[done].path_in_repo)
            api.preupload_lfs_files(repo, adds[done : done + 20], repo_type="dataset")
        there = api.list_repo_files(repo, repo_type="dataset")
        ours = {f"{MEDIA}/{c.path}" for c in manifest.clips.values()} | set(small)
        stale = [p for p in there if p.startswith((f"{MEDIA}/", "splits/")) and p not in ours]
        deletes = [CommitOperationDelete(path) for path in stale]
        done_ = api.create_commit(
            repo,
            [*adds, *deletes],
            commit_message=f"{manifest.name}: {len(manifest.segments)} segments, manifest {manifest.sha256[:12]}",
            repo_type="dataset",
        )
        if progress:
            progress(len(adds), len(adds), "")
        return done_.oid


def _hosted_files(directory: Path, manifest: Manifest, repo: str, folder: Path) -> dict[str, Path]:
    """Everything but the media, path in the repository -> file: the tables' bytes as they are, and what is made of
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
    """The rows of each split as files of their own: ``load_dataset`` cannot choose rows of one file."""
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
    """The data set's card: configurations and splits for ``load_dataset``, counts, columns, how to pin."""
    lines = ["---", f"pretty_name: {json.dumps(manifest.name)}", "tags:", "- audio-visual synchronisation", "configs:"]
    for name in ("segments", "clips"):
        lines += [f"- config_name: {name}", *(["  default: true"] if name == "segments" else []), "  data_files:"]
        for split in manifest.splits:
            lines += [f"  - split: {split}", f"    path: splits/{split}-{name}.parquet"]
    n_seen = sum(c.seen for c in manifest.clips.values())
    lines += [
        "---",
        "",
        f"# {manifest.name}",
        "",
        f"{manifest.note or 'Labelled segments of video clips for audio-visual synchronisation.'}",
        "",
        f"- kind: {manifest.kind}; offsets: {manifest.offset_law}; schema version {SCHEMA_VERSION}",
        "- **A positive offset means that the sound comes early** (it leads the picture), a negative one that it comes"
        " late.",
        f"- {len(manifest.clips)} clips, {n_seen} of them with their media pinned by sha256 (under `{MEDIA}/`, or"
        " wherever you keep them: `--media-root`)",
        f"- manifest sha256: `{manifest.sha256}`",
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
    for name, columns in (("segments", SEGMENT_COLUMNS), ("clips", CLIP_COLUMNS)):
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


def pull(
    repo: str,
    revision: str = "main",
    out: Path | None = None,
    *,
    allow_moving: bool = False,
    media_root: Path | None = None,
    endpoint: str | None = None,
    token: str | None = None,
    progress: Progress | None = None,
) -> Pulled:
    """Fetch a hosted data set at one commit into ``out`` (None: avbench's cache) and verify every hash.

    What is there already is not fetched again, so a pull that was killed continues; ``manifest.json`` is written last,
    and so an unfinished folder is never taken for a data set. Without a network (HF_HUB_OFFLINE=1) the client's cache
    serves. ``media_root``: the media are there, and are only verified.

    ``UsageError``: not a repository's name, a revision that can move (a branch or a tag) without ``allow_moving``;
    ``AvbenchError``: no such repository or revision, no access, not an avbench data set, a file that is not the pinned
    one, no network.
    """
    _check_repo(repo)
    pinned = _pin(repo, revision, allow_moving, endpoint, token)
    folder = Path(out) if out is not None else default_folder(repo, pinned)
    source = _Source(repo, pinned, endpoint, token)
    try:
        small = {name: source.fetch(name, name) for name in ("manifest.json", *TABLES)}
    except AvbenchError:
        whole = _there_already(folder, repo, pinned) if media_root is None else None
        if whole is None:
            raise
        return whole  # neither the hub nor the client's cache, but the folder itself is whole
    data = {name: path.read_bytes() for name, path in small.items()}
    manifest = _read_hosted(repo, data)
    media = Path(media_root).resolve() if media_root is not None else folder / MEDIA
    try:
        folder.mkdir(parents=True, exist_ok=True)
        clips = [c for c in manifest.clips.values() if c.seen]
        if media_root is not None:
            _verify_elsewhere(clips, media, progress)
        else:
            (folder / "manifest.json").unlink(missing_ok=True)  # not whole until it is back
            source.expect([f"{MEDIA}/{c.path}" for c in clips], MEDIA)
            _fetch_media(source, clips, folder, progress)
        meta = json.loads(data["manifest.json"]) | ({"media_root": str(media)} if media_root is not None else {})
        origin = {"repo": repo, "revision": pinned, "asked_for": revision}
        with contextlib.suppress(AvbenchError):  # a data set may have no card
            atomic_write_bytes(folder / "README.md", source.fetch("README.md", "manifest.json").read_bytes())
        atomic_write_bytes(folder / "pulled.json", (json.dumps(origin, indent=2) + "\n").encode())
        for name in TABLES:
            atomic_write_bytes(folder / name, data[name])
        text = json.dumps(meta, indent=2, ensure_ascii=False) + "\n"
        atomic_write_bytes(folder / "manifest.json", text.encode())
    except OSError as error:
        raise AvbenchError(f"cannot write {folder}: {error.strerror or error}") from error
    return Pulled(folder, pinned, read_manifest(folder), len(manifest.clips) - len(clips))


def _there_already(folder: Path, repo: str, revision: str) -> Pulled | None:
    """The folder, if it holds just this revision and every hash is right; None otherwise."""
    try:
        origin = json.loads((folder / "pulled.json").read_bytes())
        manifest = read_manifest(folder)
    except (OSError, ValueError, UsageError):
        return None
    clips = [c for c in manifest.clips.values() if c.seen]
    same = isinstance(origin, dict) and (origin.get("repo"), origin.get("revision")) == (repo, revision)
    if not same or media_problems(manifest, clips, decode=False):
        return None
    return Pulled(folder, revision, manifest, len(manifest.clips) - len(clips))


def open_address(address: str, progress: Progress | None = None) -> Manifest:
    """The manifest of ``hub:ORG/NAME@COMMIT``: as pulled before, or pulled now. A result must name the bytes it is of,
    so only a commit will do. Errors as :func:`pull`'s."""
    repo, at, revision = address.removeprefix("hub:").partition("@")
    if not at or not _COMMIT.fullmatch(revision):
        what = f"{revision!r} can move" if at and _REPO.fullmatch(repo) else f"{address!r} is not pinned"
        raise UsageError(f"{what}: write {ADDRESS} with all 40 digits of the commit (`avbench data pull` says which)")
    _check_repo(repo)
    folder = default_folder(repo, revision)
    if (folder / "manifest.json").is_file():
        return read_manifest(folder)
    return pull(repo, revision, progress=progress).manifest


def default_folder(repo: str, revision: str) -> Path:
    """Where a pulled data set lies if nobody says otherwise: ``hub/ORG--NAME/COMMIT`` in avbench's cache."""
    from avbench.system.cache import cache_root

    return cache_root() / "hub" / repo.replace("/", "--") / revision


def _check_repo(repo: str) -> None:
    if not _REPO.fullmatch(repo) or ".." in repo or "--" in repo:
        raise UsageError(f"{repo!r} is not the name of a repository on the hub (ORG/NAME)")


def _pin(repo: str, revision: str, allow_moving: bool, endpoint: str | None, token: str | None) -> str:
    """The commit a revision means. What can move is refused unless the caller says that it may."""
    if _COMMIT.fullmatch(revision):
        return revision
    if re.fullmatch("[0-9a-f]{4,39}", revision):
        raise UsageError(f"revision {revision} is cut short; give all 40 digits of the commit")
    from huggingface_hub import HfApi

    with _hub_errors(repo, endpoint, revision):
        now = HfApi(endpoint=endpoint, token=token).dataset_info(repo, revision=revision).sha
    if not isinstance(now, str) or not _COMMIT.fullmatch(now):
        raise AvbenchError(f"{repo}: the hub names no commit for revision {revision}")
    if not allow_moving:
        raise UsageError(
            f"revision {revision!r} can move; pin it: --revision {now} (or --allow-moving, never for a board)"
        )
    return now


class _Source:
    """One commit of one repository: fetches files into the client's cache."""

    def __init__(self, repo: str, revision: str, endpoint: str | None, token: str | None) -> None:
        self.repo, self.revision, self.endpoint, self.token = repo, revision, endpoint, token
        self.expected: set[str] = set()  # files that the hub has, and whose size is allowed

    def expect(self, paths: Sequence[str], kind: str) -> None:
        """Ask the hub for the sizes of the files that are not cached; one that is missing or too large is refused."""
        from huggingface_hub import HfApi
        from huggingface_hub.hf_api import RepoFile

        todo = [path for path in paths if path not in self.expected and self.cached(path) is None]
        for begin in range(0, len(todo), 500):
            part = todo[begin : begin + 500]
            with _hub_errors(self.repo, self.endpoint, self.revision, part[0]):
                api = HfApi(endpoint=self.endpoint, token=self.token)
                found = api.get_paths_info(self.repo, part, revision=self.revision, repo_type="dataset")
            sizes = {f.path: f.size for f in found if isinstance(f, RepoFile)}
            for path in part:
                if path not in sizes:
                    hint = "; it is not an avbench data set" if path == "manifest.json" else ""
                    raise AvbenchError(f"{self.repo} has no {path} at revision {self.revision[:12]}{hint}")
                if sizes[path] > MAX_BYTES[kind]:
                    raise AvbenchError(f"{self.repo}: {path} has {sizes[path]} bytes, {MAX_BYTES[kind]} are allowed")
            self.expected |= set(part)

    def fetch(self, path: str, kind: str) -> Path:
        """The file in the client's cache. ``kind``: of the table of sizes."""
        from huggingface_hub import hf_hub_download

        known = self.cached(path)
        if known is None:
            self.expect([path], kind)
            with _hub_errors(self.repo, self.endpoint, self.revision, path):
                known = Path(
                    hf_hub_download(
                        self.repo,
                        path,
                        repo_type="dataset",
                        revision=self.revision,
                        endpoint=self.endpoint,
                        token=self.token,
                    )
                )
        if known.stat().st_size > MAX_BYTES[kind]:
            self.forget(path)
            raise AvbenchError(f"{self.repo}: {path} turned out to be too large ({MAX_BYTES[kind]} bytes are allowed)")
        return known

    def cached(self, path: str) -> Path | None:
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(self.repo, path, repo_type="dataset", revision=self.revision)
        return Path(found) if isinstance(found, str) else None

    def forget(self, path: str) -> None:
        """Take a file out of the cache: it is not what it should be, and must not be served again."""
        known = self.cached(path)
        if known is not None:
            for file in (known.resolve(), known):
                file.unlink(missing_ok=True)


def _read_hosted(repo: str, data: Mapping[str, bytes]) -> Manifest:
    """The manifest in these three files, read in a folder of its own. Nothing in it is trusted yet."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    for name in TABLES:
        try:
            facts = pq.ParquetFile(io.BytesIO(data[name])).metadata
            unpacked = sum(facts.row_group(i).total_byte_size for i in range(facts.num_row_groups))
        except (pa.ArrowException, OSError, ValueError) as error:
            raise AvbenchError(f"{repo}: {name} is not a readable parquet table") from error
        if facts.num_rows > MAX_ROWS or unpacked > MAX_UNPACKED_BYTES:
            raise AvbenchError(f"{repo}: {name} has {facts.num_rows} rows, {unpacked} bytes unpacked; that is too much")
    with tempfile.TemporaryDirectory() as temporary:
        for name, content in data.items():
            (Path(temporary) / name).write_bytes(content)
        try:
            manifest = read_manifest(Path(temporary))
        except UsageError as error:
            raise AvbenchError(f"{repo}: {str(error).replace(temporary, '').lstrip(':/ ')}") from error
    if json.loads(data["manifest.json"])["media_root"] != MEDIA:
        raise AvbenchError(f"{repo}: manifest.json has another media_root than {MEDIA!r}")
    return manifest


def _fetch_media(source: _Source, clips: Sequence[ClipRecord], folder: Path, progress: Progress | None) -> None:
    """Fetch and verify; files are put in place one by one, whole."""

    def one(clip: ClipRecord) -> None:
        target = _inside(folder, f"{MEDIA}/{clip.path}")
        if target.is_file() and media_sha256(target) == clip.sha256:
            return
        path = f"{MEDIA}/{clip.path}"
        was_cached = source.cached(path) is not None
        file = source.fetch(path, MEDIA)
        if was_cached and media_sha256(file) != clip.sha256:  # somebody has changed the cache, not the hub
            source.forget(path)
            file = source.fetch(path, MEDIA)
        if media_sha256(file) != clip.sha256:
            source.forget(path)
            raise AvbenchError(
                f"{source.repo}: {path} is not the file that the manifest pins (other sha256); it was not taken"
            )
        _place(file, target)

    with ThreadPoolExecutor(DOWNLOADS) as pool:
        jobs = [pool.submit(one, clip) for clip in clips]
        try:
            for done, (clip, job) in enumerate(zip(clips, jobs, strict=True)):
                job.result()
                if progress:
                    progress(done + 1, len(clips), clip.id)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _verify_elsewhere(clips: Sequence[ClipRecord], media: Path, progress: Progress | None) -> None:
    problems = []
    for done, clip in enumerate(clips):
        path = media / clip.path
        if not path.resolve().is_relative_to(media):
            problems.append(f"clip {clip.id}: {path} leads out of {media} through a link")
        elif not path.is_file():
            problems.append(f"clip {clip.id}: {path} does not exist")
        elif media_sha256(path) != clip.sha256:
            problems.append(f"clip {clip.id}: {path} is not the file that the manifest pins (other sha256)")
        if progress:
            progress(done + 1, len(clips), clip.id)
    if problems:
        more = f" (and {len(problems) - 1} more such problems)" if len(problems) > 1 else ""
        raise AvbenchError(f"{problems[0]}{more}")


def _inside(folder: Path, path: str) -> Path:
    """``folder/path``, its folders made; refused if it would lie elsewhere, a link on the way included."""
    target = folder / path
    home = folder.resolve()
    there = target.parent
    while not there.exists():
        there = there.parent
    if ".." in Path(path).parts or not there.resolve().is_relative_to(home) or target.is_symlink():
        raise AvbenchError(f"{target} leads out of {folder}; nothing is written there")
    target.parent.mkdir(parents=True, exist_ok=True)
    return target


def _place(file: Path, target: Path) -> None:
    """A second name for the cached file where the disk can do that, else a copy; there whole or not at all."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    try:
        try:
            os.link(file.resolve(), temporary)
        except OSError:
            shutil.copyfile(file, temporary)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def _hub_errors(
    repo: str, endpoint: str | None = None, revision: str | None = None, path: str | None = None
) -> Iterator[None]:
    """Whatever the hub's client raises becomes one line that says what to do."""
    from huggingface_hub import constants, errors, utils

    where = endpoint or constants.ENDPOINT
    bars = utils.are_progress_bars_disabled()
    if not bars:
        utils.disable_progress_bars()
    try:
        yield
    except AvbenchError:
        raise
    except errors.GatedRepoError as error:
        raise AvbenchError(f"{repo} is gated: ask for access on {where}, then log in (`hf auth login`)") from error
    except errors.RepositoryNotFoundError as error:
        raise AvbenchError(
            f"there is no data set {repo} on {where}, or it is private and the token given (HF_TOKEN, `hf auth login`) "
            "may not see it"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise AvbenchError(f"{repo} has no revision {revision}") from error
    except (errors.OfflineModeIsEnabled, errors.LocalEntryNotFoundError) as error:
        offline = constants.HF_HUB_OFFLINE
        why = "HF_HUB_OFFLINE is set" if offline else f"{where} cannot be reached"
        what = f"{path} of {repo}" if path else f"what revision {revision} of {repo} means"
        raise AvbenchError(f"{why}, and {what} is not in the cache; pull it once online") from error
    except errors.EntryNotFoundError as error:
        raise AvbenchError(f"{repo} has no {path} at revision {(revision or '')[:12]}") from error
    except errors.HFValidationError as error:
        raise UsageError(f"{repo}: {first_line(error)}") from error
    except errors.HfHubHTTPError as error:
        status = getattr(error.response, "status_code", None)
        if status == 401:
            raise AvbenchError(f"{where} does not know the token given (HF_TOKEN, `hf auth login`)") from error
        if status == 403:
            raise AvbenchError(f"the token given may not do that to {repo} on {where}") from error
        raise AvbenchError(f"{where} answered {status} for {repo}: {first_line(error)}") from error
    except OSError as error:
        if error.strerror:  # a full disk, a cache that cannot be written
            raise AvbenchError(f"{error.filename or repo}: {error.strerror}") from error
        raise AvbenchError(f"{where} cannot be reached: {first_line(error)}") from error
    except Exception as error:  # the client's own kinds of a broken connection differ between its versions
        if type(error).__module__.split(".")[0] in ("httpx", "httpx2", "httpcore", "httpcore2", "requests", "urllib3"):
            raise AvbenchError(f"{where} cannot be reached: {first_line(error)}") from error
        if isinstance(error, (LookupError, TypeError, AttributeError, AssertionError)):
            raise AvbenchError(f"{where} does not answer as the Hugging Face hub does; is it one?") from error
        if isinstance(error, (RuntimeError, ValueError)):
            cause = error.__cause__
            raise AvbenchError(f"{where}, {repo}: {first_line(error)} {first_line(cause) if cause else ''}") from error
        raise
    finally:
        if not bars:
            utils.enable_progress_bars()
