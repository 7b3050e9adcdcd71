"""YAML recipes of a command: ``--config FILE`` gives options that the command line lacks, ``--save-config FILE`` keeps
them."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

OPTION = "--config"
_NOT_KEPT = ("help", "config", "save-config", "debug")
MAX_BYTES = 2**20


def add_config(parser: argparse.ArgumentParser) -> None:
    """Adds --config and --save-config."""
    text = "a YAML recipe of these options, as in `hop: 4`; the command line wins"
    parser.add_argument(OPTION, type=Path, metavar="FILE", help=text)
    parser.add_argument("--save-config", type=Path, metavar="FILE", help="write the options of this run as a recipe")


def with_config(parser: argparse.ArgumentParser, words: Sequence[str]) -> list[str]:
    """The words of a command line, after those that the recipe in its --config stands for: later ones win.

    ``UsageError`` if the recipe cannot be read, or has an unknown option or a value that is none.
    """
    probe = argparse.ArgumentParser(add_help=False, exit_on_error=False)
    probe.add_argument(OPTION)
    try:
        found = probe.parse_known_args(list(words))[0].config
    except argparse.ArgumentError:  # the parser itself says what is missing
        return list(words)
    return [*_words(parser, Path(found)), *words] if found else list(words)


def save_config(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """Writes the recipe that --save-config asks for, if it does: every option that has a value, the defaults too."""
    import yaml

    from avbench.system.strict import write_whole

    if args.save_config is None:
        return
    kept: dict[str, Any] = {}
    for name, action in options(parser).items():
        value = getattr(args, action.dest)
        if value is None or value == [] or (action.nargs == 0 and value == action.default):
            continue
        items = value if isinstance(value, list) else [value]
        plain: list[Any] = [str(item) if isinstance(item, Path) else item for item in items]
        kept[name] = True if action.nargs == 0 else plain if isinstance(value, list) else plain[0]
    write_whole(args.save_config, yaml.safe_dump(kept, sort_keys=False, allow_unicode=True).encode())


def options(parser: argparse.ArgumentParser) -> dict[str, argparse.Action]:
    """The options that a recipe may have, by their names without dashes."""
    named = {action.option_strings[-1].lstrip("-"): action for action in parser._actions if action.option_strings}
    return {name: action for name, action in named.items() if name not in _NOT_KEPT}


def _words(parser: argparse.ArgumentParser, file: Path) -> Iterator[str]:
    known = options(parser)
    for key, value in _read(file).items():
        name = str(key).replace("_", "-")
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(known)}"
            _refuse(f"{file}: unknown option {str(key)!r}; {hint}")
        if value is not None:
            yield from _option(name, known[name], value, file)


def _option(name: str, action: argparse.Action, value: Any, file: Path) -> Iterator[str]:
    """One option as words of a command line."""
    if action.nargs == 0:  # a switch
        if not isinstance(value, bool):
            _refuse(f"{file}: {name} is {value!r}; it must be true or false")
        yield from [f"--{name}"] if value else []
        return
    if value is True and action.nargs == "?":
        yield f"--{name}"
        return
    if action.nargs == "+":
        pairs = isinstance(value, dict) and name == "model-args"
        items = [f"{k}={_text(v, name, file)}" for k, v in value.items()] if pairs else value
        texts = [_text(item, name, file) for item in (items if isinstance(items, list) else [items])]
        if any(text.startswith("-") for text in texts):
            _refuse(f"{file}: {name} has a value that begins with '-'")
        yield from [f"--{name}", *texts] if texts else []
        return
    yield f"--{name}={_text(value, name, file)}"  # one word: the value may begin with "-"


def _text(value: Any, name: str, file: Path) -> str:
    if isinstance(value, bool) and name != "model-args":
        _refuse(f"{file}: {name} is {str(value).lower()}; it takes a value")
    if value is None or (isinstance(value, dict | list) and name != "model-args"):
        _refuse(f"{file}: {name} is {value!r}; it must be one value")
    return str(value)


def _refuse(text: str) -> NoReturn:
    from avbench.types import UsageError  # loads numpy, which --help does without

    raise UsageError(text)


def _read(file: Path) -> dict[Any, Any]:
    import yaml

    from avbench.system.strict import read_bytes

    try:
        found = yaml.safe_load(read_bytes(file, MAX_BYTES).decode())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        _refuse(f"{file} is no YAML: {' '.join(str(error).split())}")
    if found is None:
        return {}
    if not isinstance(found, dict):
        _refuse(f"{file}: a recipe is a mapping of options, as in `hop: 4`")
    return found
