"""Published weights on this machine: where they are kept, how they get there, what kind a file is. Loads no torch.

The cache holds, per checkpoint, the downloaded file (NAME.pt) and what ``avbench weights convert`` made of it
(NAME.safetensors and NAME.json). NAME is ``family.tag``: a published one, or any tag of the user's own.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from typing import Any, BinaryIO

from avbench.types import AvbenchError, UsageError
from avbench.weights.published import Published, published

PUBLISHED_ROOT = "https://a3s.fi/swift/v1/AUTH_a235c0f452d648828f745589cde1219a/sync/"
TIMEOUT_S = 30
CHUNK_BYTES = 2**20
MAX_HEADER_BYTES = 64 * 2**20

Progress = Callable[[int, int, str], None]  # bytes there, bytes in all, name


def weights_root() -> Path:
    """``weights`` in $AVBENCH_CACHE, or in avbench's folder of the platform's cache."""
    from avbench.system.cache import cache_root

    return cache_root() / "weights"


def check_name(name: str) -> str:
    """A name under which weights may lie in the cache; ``UsageError`` otherwise (no path leaves the cache)."""
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*\.[A-Za-z0-9_-]+", name):
        raise UsageError(f"{name!r} is no name for weights: it is family.tag, such as sparsesync.vggsound")
    return name


def downloaded(name: str) -> Path:
    """Where the downloaded file of a checkpoint lies, or has to be put by hand."""
    return weights_root() / f"{check_name(name)}.pt"


def converted(name: str) -> Path:
    """Where the converted weights lie."""
    return weights_root() / f"{check_name(name)}.safetensors"


def converted_tags(family: str) -> list[str]:
    """The tags for which converted weights of a family are in the cache."""
    return sorted(path.stem.partition(".")[2] for path in weights_root().glob(f"{family}.*.safetensors"))


def advice(entry: Published) -> str:
    """What to do to be able to run a published checkpoint, or why it cannot be run; "" if its weights are there."""
    if entry.family == "synchformer-synchronisability":
        return f"{entry.name} says whether a clip can be synchronised (2 classes): it gives no offset and cannot be run"
    if entry.n_classes == 0 or entry.family == "resnet-audio":
        return f"{entry.name} is an encoder alone ({entry.note}): a training starts from it, it cannot be run"
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


def published_entry(name: str) -> Published | None:
    return next((entry for entry in published() if name in (entry.name, entry.id)), None)


# ------------------------------------------------------------------------------------------------- what a file is


def file_kind(path: Path) -> str:
    """``"full"`` for weights in the published layout (a ``.pt`` or what ``convert`` made of it), ``"mini"`` for a file
    that ``avbench train`` wrote, ``"head"`` for one that holds a head alone. Reads the names, no weight.

    ``AvbenchError``: missing or neither.
    """
    keys = safetensors_keys(path)
    if keys is None:
        return "full"
    if any(key.startswith("backbone.") for key in keys):
        return "mini"
    return "head" if keys and all(key.startswith(("head.", "adapter.", "token_maker.")) for key in keys) else "full"


def safetensors_keys(path: Path) -> list[str] | None:
    """The names of the tensors in a safetensors file; None if it is a zip archive, as torch writes them."""
    path = Path(path)
    try:
        with open(path, "rb") as file:
            start = file.read(8)
            if start[:4] == b"PK\x03\x04":
                return None
            size = int.from_bytes(start, "little")
            header = json.loads(file.read(size)) if len(start) == 8 and size <= MAX_HEADER_BYTES else None
    except FileNotFoundError:
        raise AvbenchError(f"weight file {path} does not exist") from None
    except OSError as error:
        raise AvbenchError(f"weight file {path} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict):
        raise AvbenchError(f"weight file {path} is neither a safetensors file nor a torch checkpoint in zip form")
    return [key for key in header if key != "__metadata__"]


# ------------------------------------------------------------------------------------------------------- fetching


def fetch(name: str, url: str | None = None, md5: str = "", progress: Progress | None = None) -> Path:
    """Downloads a checkpoint into the cache and checks its md5; continues a broken download. Returns the file.

    ``name``: a published one (or its id), or, with ``url``, one of the user's own. ``url`` stands for the published
    address; one that ends in "/" for the part of it that all share. ``md5``: a prefix to check against where none was
    published. ``AvbenchError`` in one line, with what to do by hand, if the network or the file is not as it should be.
    """
    entry = published_entry(name)
    if entry is None and url is None:
        from avbench.weights.published import find_published

        find_published(name)  # says what there is
    target = downloaded(entry.name if entry else name)
    address = _address(entry, url)
    wanted = (entry.md5_prefix if entry else "") or md5.lower()
    by_hand = f"bring the file by other means and put it at {target}"
    part = target.with_suffix(".pt.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.is_file():
            _download(address, part, name, by_hand, progress)
            digest = _md5(part)
            if not digest.startswith(wanted):
                part.unlink()
                _validator(part).unlink(missing_ok=True)
                raise AvbenchError(
                    f"what {address} sent is not {name}: its md5 is {digest[:7]}..., it must be {wanted[:7]}...; "
                    "it was deleted"
                )
            part.replace(target)
            _validator(part).unlink(missing_ok=True)
        elif not (digest := _md5(target)).startswith(wanted):
            raise AvbenchError(
                f"{target} is not {name}: its md5 is {digest[:7]}..., it must be {wanted[:7]}...; delete it and fetch "
                "again"
            )
    except OSError as error:
        raise AvbenchError(f"cannot write {target}: {error.strerror or error}; set AVBENCH_CACHE") from error
    return target


def _address(entry: Published | None, url: str | None) -> str:
    address = url or (entry.url if entry else "")
    if entry and address.endswith("/"):
        address += entry.url.removeprefix(PUBLISHED_ROOT)
    scheme = urllib.parse.urlsplit(address).scheme
    if scheme not in ("http", "https"):
        raise UsageError(f"{address!r} is no address to fetch from: it must begin with https:// or http://")
    return address


class _OnlyHttp(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if urllib.parse.urlsplit(newurl).scheme not in ("http", "https"):
            raise urllib.error.URLError(f"it redirects to {newurl[:80]}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _validator(part: Path) -> Path:
    """What names the version of the file that a partial download belongs to (its ETag)."""
    return part.with_suffix(".etag")


def _download(address: str, part: Path, name: str, by_hand: str, progress: Progress | None) -> None:
    """Into ``part``, from where it ends. ``AvbenchError`` naming the address and what to do by hand."""
    have = before = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": "avbench", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
        if _validator(part).exists():
            headers["If-Range"] = _validator(part).read_text(encoding="ascii", errors="replace").strip()
    opener = urllib.request.build_opener(_OnlyHttp)
    try:
        with opener.open(urllib.request.Request(address, headers=headers), timeout=TIMEOUT_S) as answer:  # noqa: S310
            continues = answer.status == 206
            if continues and not answer.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
                raise AvbenchError(f"{address} continues at another place than asked; delete {part} and fetch again")
            have = have if continues else 0
            length = answer.headers.get("Content-Length")
            total = have + int(length) if length and length.isdigit() else 0
            if total - have > shutil.disk_usage(part.parent).free:
                raise AvbenchError(f"{name} is {total / 1e9:.1f} GB, more than is free in {part.parent}")
            etag = answer.headers.get("ETag", "")
            if etag.startswith('"'):  # weak ones do not vouch for bytes
                _validator(part).write_text(etag, encoding="ascii", errors="replace")
            else:
                _validator(part).unlink(missing_ok=True)
            with open(part, "ab" if continues else "wb") as file:
                _copy(answer, file, have, total, name, progress)
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:  # asked for what comes after the end: it may be whole already
            return
        raise AvbenchError(f"{address} answers {error.code} {error.reason}; {by_hand}") from error
    except (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError, ValueError) as error:
        reason = " ".join(str(getattr(error, "reason", "") or error).split()) or type(error).__name__
        if part.exists() and part.stat().st_size > before:
            raise AvbenchError(f"{address} broke off ({reason}); the same command continues") from error
        raise AvbenchError(f"cannot fetch {address} ({reason}); {by_hand}") from error
    if total and part.stat().st_size < total:
        raise AvbenchError(
            f"{address} broke off after {part.stat().st_size} of {total} bytes; the same command continues"
        )


def _copy(answer: Any, file: BinaryIO, have: int, total: int, name: str, progress: Progress | None) -> None:
    while chunk := answer.read(CHUNK_BYTES):
        file.write(chunk)
        have += len(chunk)
        if progress:
            progress(have, max(total, have), name)


def _md5(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
