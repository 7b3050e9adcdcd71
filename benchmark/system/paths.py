"""Paths of files that somebody else has named: kept as text without loss, and what is at them if not a file.

On Linux a name is bytes, which need not be UTF-8. Tables and JSON contain text only, so each byte that is not UTF-8 is
written there as ``\\xNN`` (two lower-case hex digits), and a backslash as ``\\x5c``. Every other path is written as it
is. To print a path, or to quote it in a message, is another matter: see :func:`avbench.types.printable`.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import stat
import unicodedata
from pathlib import Path, PurePath

from avbench.types import printable

# only what path_text writes: no escape stands for a separator, a dot or a NUL
_ESCAPE = re.compile(rb"\\x(5c|[89a-f][0-9a-f])")


def path_text(path: PurePath | str) -> str:
    """A path as text for tables and JSON, '/'-separated; :func:`path_of` gives the same path back.

    A relative one that looks as if it began with a drive ("a:b.mp4") begins with "./" instead.
    """
    escaped = os.fsencode(PurePath(path).as_posix()).replace(b"\\", rb"\x5c")
    text = escaped.decode("utf-8", "backslashreplace")
    return f"./{text}" if not PurePath(path).is_absolute() and re.match("[A-Za-z]:", text) else text


def path_of(text: str) -> Path:
    """The path that :func:`path_text` wrote. A backslash that begins none of its escapes stays as it is."""
    raw = _ESCAPE.sub(lambda found: bytes.fromhex(found[1].decode()), text.encode("utf-8", "surrogateescape"))
    return Path(os.fsdecode(raw))


def has_foreign_backslash(text: str) -> bool:
    """Whether a path's text has a backslash that :func:`path_text` did not write."""
    return b"\\" in _ESCAPE.sub(b"", text.encode("utf-8", "surrogatepass"))


def shown(path: Path | str) -> str:
    """A path for a message: relative where it lies below the current folder, as a person would write it; printable."""
    path = Path(path)
    with contextlib.suppress(OSError, ValueError):  # there is no current folder any more, or the path is elsewhere
        return printable(str(path.relative_to(Path.cwd())))
    return printable(str(path))


def without_name(reason: str, path: Path | str) -> str:
    """A reason that begins with the path of its file, for those who name the file themselves."""
    return reason.removeprefix(f"{shown(path)} ").removeprefix(f"{printable(str(path))} ")


def as_file_name(text: str, instead: str = "_", keep: str = "._-") -> str:
    """``text`` as a part of a file's name on any system: letters and digits of all scripts stay, and so do signs that
    are not ASCII; what separates, controls or is no text, and ASCII signs not in ``keep``, become ``instead``, several
    of them one. At most 150 bytes of UTF-8, the last ones. Different texts may give one name."""

    def safe(char: str) -> bool:
        if char.isascii():
            return char.isalnum() or char in keep
        return unicodedata.category(char)[0] not in "CZ"

    runs = (
        "".join(chars) if good else instead
        for good, chars in itertools.groupby(unicodedata.normalize("NFC", text), key=safe)
    )
    return "".join(runs).encode()[-150:].decode(errors="ignore")


def why_no_file(path: Path) -> str:
    """Why there is no ordinary file at ``path``, in words; empty if there is one. Links are followed.

    Opening something else can wait forever (a pipe) or never end (a device).
    """
    try:
        kind = stat.S_IFMT(path.stat().st_mode)
    except FileNotFoundError:
        return "is a link to nothing" if path.is_symlink() else "does not exist"
    except (OSError, ValueError) as error:  # no access, a loop of links, a NUL in the path
        return f"cannot be read ({getattr(error, 'strerror', None) or error})"
    return _OTHER_KINDS.get(kind, "is not an ordinary file") if kind != stat.S_IFREG else ""


_OTHER_KINDS = {
    stat.S_IFDIR: "is a folder, not a file",
    stat.S_IFIFO: "is a named pipe, not a file",
    stat.S_IFSOCK: "is a socket, not a file",
    stat.S_IFCHR: "is a device, not a file",
    stat.S_IFBLK: "is a device, not a file",
}
