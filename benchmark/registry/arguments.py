"""Arguments for a user's class: ``width=128 ckpt=best.pt``, typed as the signature of its constructor says."""

from __future__ import annotations

import ast
import dataclasses
import difflib
import hashlib
import inspect
import os
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from avbench.types import UsageError

OPTION = "--model-args"
_BOOLS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
_NONE = ("none", "null")
_MAX_SHOWN = 200
_MANY = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)  # kinds of *args and **kwargs


def parsed(texts: Sequence[str]) -> dict[str, str]:
    """``["width=128", "ckpt=best.pt"]`` -> name -> text, the last one of a name. ``UsageError`` for what is no
    ``name=value``."""
    pairs = [text.partition("=") for text in texts]
    for text, (name, sign, _) in zip(texts, pairs, strict=True):
        if not sign or not name:
            raise UsageError(f"{OPTION} {text!r}: write it as NAME=VALUE, for example width=128")
    return {name: value for name, _, value in pairs}


def typed(factory: Callable[..., Any], given: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The keyword arguments for ``factory``: texts in the types of its annotations and defaults, other values as they
    are. ``a.b`` is the field b of the argument a, a dataclass or else a dict.

    ``UsageError``, naming the known arguments, for one that is unknown, missing, or not of its type.
    """
    return _bound(factory, _tree(given, where), where, "")


def counted(value: Any) -> Any:
    """The arguments as they count in a fingerprint: the name of a file with the sha256 of its bytes, wherever it is."""
    if isinstance(value, str | os.PathLike):
        sha256 = _sha256(value)
        said = Path(value).name if sha256 else os.fspath(value)
        return [said, sha256] if sha256 else said
    if isinstance(value, Mapping):
        return {name: counted(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [counted(item) for item in value]
    return value


def files_among(given: Any) -> dict[str, str]:
    """Path as given -> the file's name, of every file among the arguments."""
    if isinstance(given, str | os.PathLike):
        return {os.fspath(given): Path(given).name} if os.path.isfile(given) else {}
    inside = given.values() if isinstance(given, Mapping) else given if isinstance(given, list | tuple) else ()
    return {path: name for item in inside for path, name in files_among(item).items()}


def shown(given: Mapping[str, Any]) -> dict[str, str]:
    """The arguments in words, for people: files without their folders, which are nobody's business."""
    return {name: _shown(value) for name, value in given.items()}


def names_file(text: str, root: Path) -> bool:
    """Whether the text of an argument names a file, seen from the folder ``root``, or with a "/" in it a folder. What
    reads as a number, a list, true, false or none is a value, whatever lies there."""
    if text.lower() in (*_BOOLS, *_NONE):
        return False
    try:
        ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        path = os.path.join(root, text)
        return os.path.isfile(path) or (os.sep in text and os.path.isdir(path))
    return False


def _shown(value: Any) -> str:
    if not isinstance(value, str | os.PathLike):
        return repr(value)[:_MAX_SHOWN]
    sha256, text = _sha256(value), os.fspath(value)
    if sha256:
        return f"{Path(text).name} (sha256 {sha256[:12]})"
    return str(Path(text).name if os.sep in text and Path(text).exists() else text)[:_MAX_SHOWN]


def _sha256(path: Any) -> str:
    """Of the file's bytes; "" if it is no file."""
    try:
        if not Path(path).is_file():
            return ""
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError) as error:  # a text that can be no path is no file
        if isinstance(error, OSError) and error.filename and Path(path).exists():
            raise UsageError(f"{path} cannot be read: {error.strerror}") from error
        return ""


def _tree(given: Mapping[str, Any], where: str) -> dict[str, Any]:
    """``{"a.b": 1}`` -> ``{"a": {"b": 1}}``."""
    tree: dict[str, Any] = {}
    for name, value in given.items():
        *above, last = name.split(".")
        if not all(part.isidentifier() for part in (*above, last)):
            raise UsageError(f"{where}: {name!r} is no name of an argument")
        branch = tree
        for part in above:
            branch = branch.setdefault(part, {})
            if not isinstance(branch, dict):
                raise UsageError(f"{where}: the argument {name} is given whole and in parts")
        if last in branch:
            raise UsageError(f"{where}: the argument {name} is given whole and in parts")
        branch[last] = value
    return tree


def _bound(factory: Callable[..., Any], tree: Mapping[str, Any], where: str, prefix: str) -> dict[str, Any]:
    try:
        parameters = inspect.signature(factory).parameters
    except (TypeError, ValueError):  # compiled code may not say what it takes
        return {name: _value(item, Any, where, prefix + name) for name, item in tree.items()}
    hints = _hints(factory)
    named = {
        name: hints.get(name, _of_default(parameter.default))
        for name, parameter in parameters.items()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    }
    any_name = any(parameter.kind == parameter.VAR_KEYWORD for parameter in parameters.values())
    takes = _takes(parameters, named)
    for name in tree:
        if name not in named and not any_name:
            close = difflib.get_close_matches(name, named, n=1)
            hint = f"; did you mean {prefix}{close[0]}?" if close else ""
            raise UsageError(f"{where} has no argument {prefix + name!r}: {takes}{hint}")
    for name in named:
        if parameters[name].default is inspect.Parameter.empty and name not in tree:
            raise UsageError(f"{where} needs the argument {prefix + name!r} ({OPTION} {prefix}{name}=...): {takes}")
    return {name: _value(item, named.get(name, Any), where, prefix + name) for name, item in tree.items()}


def takes(factory: Callable[..., Any]) -> str:
    """``it takes width: int = 32, ckpt: str = ''``; "" where that is not known, or there is nothing to take."""
    try:
        parameters = inspect.signature(factory).parameters
    except (TypeError, ValueError):
        return ""
    hints = _hints(factory)
    named = {name: hints.get(name, Any) for name in parameters if parameters[name].kind not in _MANY}
    return _takes(parameters, named) if named else ""


def _takes(parameters: Mapping[str, inspect.Parameter], named: Mapping[str, Any]) -> str:
    known = ", ".join(_described(parameters[name], wanted) for name, wanted in named.items())
    return f"it takes {known}" if known else "it takes no arguments"


def _hints(factory: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(factory.__init__ if isinstance(factory, type) else factory)  # type: ignore[misc]
    except Exception:  # annotations are anybody's code
        return {}


def _of_default(default: Any) -> Any:
    """The type that a default stands for; a whole number may become a fraction."""
    if isinstance(default, bool | float | str | Path):
        return Path if isinstance(default, Path) else type(default)
    return int | float if isinstance(default, int) else Any


def _described(parameter: inspect.Parameter, wanted: Any) -> str:
    annotated = parameter.annotation is not parameter.empty
    said = parameter.name + (f": {_type_name(wanted)}" if annotated else "")
    return said if parameter.default is parameter.empty else f"{said} = {parameter.default!r}"[:_MAX_SHOWN]


def _type_name(wanted: Any) -> str:
    return inspect.formatannotation(wanted).replace("pathlib.", "").replace("typing.", "")


def _value(item: Any, wanted: Any, where: str, name: str) -> Any:
    if isinstance(item, dict):
        if isinstance(wanted, type) and dataclasses.is_dataclass(wanted):
            return wanted(**_bound(wanted, item, where, f"{name}."))
        return {part: _value(inner, Any, where, f"{name}.{part}") for part, inner in item.items()}
    if not isinstance(item, str):
        return item
    try:
        return _read(item, wanted)
    except (ValueError, SyntaxError):
        raise UsageError(f"{where}: the argument {name} is {item!r}; it must be {_type_name(wanted)}") from None


def _read(text: str, wanted: Any) -> Any:
    """``text`` as the type ``wanted``; ``ValueError`` or ``SyntaxError`` if it is none."""
    if wanted is bool:
        if text.lower() not in _BOOLS:
            raise ValueError(text)
        return _BOOLS[text.lower()]
    if wanted in (int, float, str):
        return wanted(text)
    if isinstance(wanted, type) and issubclass(wanted, os.PathLike):
        return Path(text)
    origin = typing.get_origin(wanted)
    if origin in (typing.Union, types.UnionType):
        return _read_one_of(text, typing.get_args(wanted))
    if origin is typing.Literal:
        return _chosen(typing.get_args(wanted), text)
    if wanted in (Any, inspect.Parameter.empty):
        try:
            return ast.literal_eval(text)
        except (ValueError, SyntaxError):
            return _BOOLS[text.lower()] if text in ("true", "false") else text
    found = ast.literal_eval(text)  # (1, 2), [3], {"a": 4}
    if isinstance(origin or wanted, type) and not isinstance(found, origin or wanted):
        raise ValueError(text)
    return found


def _chosen(choices: Sequence[Any], text: str) -> Any:
    for choice in choices:
        if str(choice) == text:
            return choice
    raise ValueError(text)


def _read_one_of(text: str, kinds: Sequence[Any]) -> Any:
    if type(None) in kinds and text.lower() in _NONE:
        return None
    for kind in sorted((k for k in kinds if k is not type(None)), key=lambda k: k is str):  # any text is a str
        try:
            return _read(text, kind)
        except (ValueError, SyntaxError):
            continue
    raise ValueError(text)
