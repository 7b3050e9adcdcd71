"""The cache of published weights: its paths, downloads into it, and the kind of a weight file. Does not load torch.

For each checkpoint the cache contains the downloaded file (NAME.pt) and its conversion by ``avbench weights convert``
(NAME.safetensors and NAME.json). NAME is ``family.tag``: a published name, or the family with a tag of the user's own.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any, BinaryIO

from avbench.baselines.families import layouts
from avbench.system.progress import ItemProgress
from avbench.system.proxies import proxy_hint
from avbench.types import AvbenchError, UsageError
from avbench.weights.published import Published, find_published, published_entry

PUBLISHED_ROOT = "https://a3s.fi/swift/v1/AUTH_a235c0f452d648828f745589cde1219a/sync/"
TIMEOUT_S = 30
CHUNK_BYTES = 2**20
MAX_HEADER_BYTES = (
    2 * 2**20
)  # of a safetensors file: the largest published one has 0.1 MB; read, it takes 30 times that


def weights_root() -> Path:
    """The folder ``weights`` in $AVBENCH_CACHE or, if that is not set, in avbench's folder of the user's cache."""
    from avbench.system.cache import cache_root

    return cache_root() / "weights"


def check_name(name: str) -> str:
    """The name, if weights may be cached under it; ``UsageError`` otherwise (no name leads out of the cache)."""
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*\.[A-Za-z0-9_-]+", name):
        raise UsageError(f"{name!r} is not a name for weights; it must be family.tag, such as sparsesync.vggsound")
    return name


def downloaded(name: str) -> Path:
    """The path in the cache of a checkpoint's downloaded file, whether it exists or not."""
    return weights_root() / f"{check_name(name)}.pt"


def converted(name: str) -> Path:
    """The path in the cache of the converted weights, whether they exist or not."""
    return weights_root() / f"{check_name(name)}.safetensors"


def converted_tags(family: str) -> list[str]:
    """The tags of a family whose converted weights are in the cache, sorted."""
    return sorted(path.stem.partition(".")[2] for path in weights_root().glob(f"{family}.*.safetensors"))


def advice(entry: Published) -> str:
    """What to do before a published checkpoint can be run, or why it cannot be run; "" if its weights are ready."""
    layout = layouts()[entry.family]
    if layout.no_offset:
        return f"{entry.name} {layout.no_offset}"
    if layout.encoders:
        return f"{entry.name} is an encoder-only checkpoint ({entry.note}); it is usable for training, not for runs"
    if entry.n_classes != 21:
        return f"{entry.name} has {entry.n_classes} classes, the protocols have 21: it cannot be run"
    if converted(entry.name).is_file():
        return ""
    if downloaded(entry.name).is_file():
        return f"{entry.name} is in the cache but not converted: `avbench weights convert {entry.name}`"
    return (
        f"{entry.name} is not in the cache: `avbench weights fetch {entry.name}`, "
        f"then `avbench weights convert {entry.name}`"
    )


# ------------------------------------------------------------------------------------------------ the kind of a file


def file_kind(path: Path) -> str:
    """The kind of a weight file: ``"full"`` for the published layout (a ``.pt`` or its conversion), ``"mini"`` for one
    written by ``avbench train``, ``"head"`` for one with a head only. Reads the tensors' names, not their values.

    ``AvbenchError`` if the file is missing or not a weight file.
    """
    keys = safetensors_keys(path)
    if keys is None:
        return "full"
    if any(key.startswith(("backbone.", "token_maker.")) for key in keys):
        return "mini"
    return "head" if keys and all(key.startswith(("head.", "adapter.")) for key in keys) else "full"


def safetensors_keys(path: Path) -> list[str] | None:
    """The names of the tensors in a safetensors file; None if it begins as torch's files do (a zip archive, or pickles
    one after another).

    ``AvbenchError`` if the file is missing or neither of the two.
    """
    path = Path(path)
    neither = f"weight file {path} is neither a safetensors file nor a torch checkpoint"
    if path.exists() and not path.is_file():
        raise AvbenchError(f"weight file {path} is not a regular file")
    try:
        with open(path, "rb") as file:
            start = file.read(8)
            if start[:4] == b"PK\x03\x04" and not zipfile.is_zipfile(file):
                raise AvbenchError(
                    f"{path} is not a torch checkpoint in zip form: its end is missing; download it again"
                )
            if start[:4] in (b"PK\x03\x04", b"\x80\x02\x8a\x0a"):
                return None
            refuse_long_header(path, start, path.stat().st_size)
            size = int.from_bytes(start, "little")
            header = json.loads(file.read(size)) if len(start) == 8 and size <= MAX_HEADER_BYTES else None
    except FileNotFoundError as error:
        raise AvbenchError(f"weight file {path} does not exist") from error
    except OSError as error:
        raise AvbenchError(f"weight file {path} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise AvbenchError(neither) from error
    if not isinstance(header, dict):
        raise AvbenchError(neither)
    return [key for key in header if key != "__metadata__"]


def refuse_long_header(path: Path, start: bytes, n_bytes: int) -> None:
    """``AvbenchError`` if a safetensors file's names and shapes take more than ``MAX_HEADER_BYTES``. ``start``: its
    first 8 bytes; ``n_bytes``: its length."""
    header = int.from_bytes(start, "little")
    if MAX_HEADER_BYTES < header <= n_bytes:
        raise AvbenchError(
            f"weight file {path} has {header} bytes of names and shapes, at most {MAX_HEADER_BYTES} are read"
        )


# ------------------------------------------------------------------------------------------------------- fetching


@dataclass(frozen=True, slots=True)
class Download:
    """One file to be fetched. ``digest``: hex digits of ``algorithm`` ("md5" or "sha256") that the file must have, or
    the first of them; "" if unknown. ``n_bytes``: its length; 0 if unknown."""

    name: str
    address: str
    target: Path
    algorithm: str
    digest: str
    n_bytes: int = 0

    @property
    def part(self) -> Path:
        """What has arrived up to now."""
        return self.target.with_name(f"{self.target.name}.part")

    @property
    def by_hand(self) -> str:
        """What to do if the download does not work."""
        return f"download the file by other means and put it at {self.target}"

    def problem(self, path: Path) -> str:
        """What is wrong with a file that should be this one; "" if nothing is. Raises ``OSError``."""
        size = path.stat().st_size
        if self.n_bytes and size != self.n_bytes:
            return f"it has {size} bytes, it must have {self.n_bytes}"
        with open(path, "rb") as file:
            found = hashlib.file_digest(file, lambda: hashlib.new(self.algorithm, usedforsecurity=False)).hexdigest()
        if found.startswith(self.digest):
            return ""
        return f"its {self.algorithm} is {found[:7]}..., it must be {self.digest[:7]}..."


def fetch(name: str, url: str | None = None, md5: str = "", progress: ItemProgress | None = None) -> Path:
    """Download a checkpoint into the cache and check its md5; resumes an interrupted download. Returns the file.

    ``name``: a published name or id or, with ``url``, a name of the user's own. ``url`` replaces the published address;
    if it ends in "/", only the part that all published addresses share. ``md5``: a prefix to check against if none was
    published. ``AvbenchError`` (one line) if the download fails or the file is wrong; it says what to do by hand.
    """
    entry = find_published(name) if url is None else published_entry(name)
    address = web_address(url, entry.url if entry else "", PUBLISHED_ROOT)
    target = downloaded(entry.name if entry else name)
    return download(
        Download(name, address, target, "md5", (entry.md5_prefix if entry else "") or md5.lower()), progress
    )


def web_address(url: str | None, published: str, root: str) -> str:
    """The address to fetch from: ``url`` or, if that is None, the published one ("" if there is none). A ``url`` that
    ends in "/" replaces ``root`` in the published one (all but the file's name where that begins otherwise).
    ``UsageError`` if the result is no web address."""
    address = url or published
    if published and address.endswith("/"):
        inside = published.startswith(root)  # else of another server: by the file's name
        address += published.removeprefix(root) if inside else published.rpartition("/")[2]
    if urllib.parse.urlsplit(address).scheme not in ("http", "https"):
        raise UsageError(f"{address!r} is not a web address; it must begin with https:// or http://")
    return address


def download(what: Download, progress: ItemProgress | None = None) -> Path:
    """Fetch a file unless it is there already, and check it; resumes an interrupted download. Returns its path.

    ``AvbenchError`` (one line) if the download fails or the file is wrong; it says what to do by hand.
    """
    target, part = what.target, what.part
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_file():
            if problem := what.problem(target):
                raise AvbenchError(f"{target} is not {what.name}: {problem}; delete it and fetch again")
            return target
        _download(what, progress)
        if problem := what.problem(part):
            _delete(part)
            raise AvbenchError(f"the file from {what.address} is not {what.name}: {problem}; it was deleted")
        part.replace(target)
        _validator(part).unlink(missing_ok=True)
    except OSError as error:
        raise AvbenchError(f"cannot write {target}: {error.strerror or error}; set AVBENCH_CACHE") from error
    return target


class _OnlyHttp(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if urllib.parse.urlsplit(newurl).scheme not in ("http", "https"):
            raise urllib.error.URLError(f"it redirects to {newurl[:80]}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _validator(part: Path) -> Path:
    """The file with the ETag of a partial download: it names the version of the file on the server."""
    return part.with_suffix(".etag")


def _delete(part: Path) -> None:
    part.unlink(missing_ok=True)
    _validator(part).unlink(missing_ok=True)


def _download(what: Download, progress: ItemProgress | None) -> None:
    """Download into ``what.part``, starting where it ends. ``AvbenchError`` with the address and what to do by hand."""
    address, part = what.address, what.part
    have = before = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": "avbench", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
        if _validator(part).exists():
            headers["If-Range"] = _validator(part).read_text(encoding="ascii", errors="replace").strip()
    try:
        opener = urllib.request.build_opener(_OnlyHttp)
        with opener.open(urllib.request.Request(address, headers=headers), timeout=TIMEOUT_S) as answer:  # noqa: S310
            continues = answer.status == 206
            if continues and not answer.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
                raise AvbenchError(f"{address} resumed at the wrong position; delete {part} and fetch again")
            have = have if continues else 0
            length = answer.headers.get("Content-Length")
            total = have + int(length) if length and length.isdigit() else 0
            if total - have > shutil.disk_usage(part.parent).free:
                raise AvbenchError(f"{what.name} is {total / 1e9:.1f} GB, more than the free space in {part.parent}")
            etag = answer.headers.get("ETag", "")
            if etag.startswith('"'):  # weak ETags do not guarantee equal bytes
                _validator(part).write_text(etag, encoding="ascii", errors="replace")
            else:
                _validator(part).unlink(missing_ok=True)
            with open(part, "ab" if continues else "wb") as file:
                _copy(answer, file, have, total, what, progress)
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:  # asked for bytes past the end: the file may be complete already
            return
        raise AvbenchError(f"{address} answered {error.code} {error.reason}; {what.by_hand}") from error
    except (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError, ValueError) as error:
        reason = " ".join(str(getattr(error, "reason", "") or error).split()) or type(error).__name__
        if part.exists() and part.stat().st_size > before:
            raise AvbenchError(f"{address} broke off ({reason}); run the same command to resume") from error
        raise AvbenchError(f"cannot fetch {address} ({reason}); {what.by_hand}{proxy_hint(socks=False)}") from error
    if total and part.stat().st_size < total:
        raise AvbenchError(
            f"{address} broke off after {part.stat().st_size} of {total} bytes; run the same command to resume"
        )


def _copy(answer: Any, file: BinaryIO, have: int, total: int, what: Download, progress: ItemProgress | None) -> None:
    while chunk := answer.read(CHUNK_BYTES):
        file.write(chunk)
        have += len(chunk)
        if what.n_bytes and have > what.n_bytes:
            _delete(what.part)
            too_long = f"it has more than {what.n_bytes} bytes"
            raise AvbenchError(f"the file from {what.address} is not {what.name}: {too_long}; it was deleted")
        if progress:
            progress(have, max(total, have), what.name)
