"""YAML recipes of a command: ``--config FILE`` gives options that the command line lacks, ``--save-config FILE`` keeps
them.

Relative paths in a recipe are read from the recipe's own folder, and written so: a recipe means the same wherever it is
used from. On the command line they are of the current folder, as ever.
"""

from __future__ import annotations

import argparse
import difflib
import os
import shlex
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

OPTION, MODEL = "--config", "--model"
_NOT_KEPT = ("help", "config", "save-config", "debug")
_OF_MODEL = ("model-args", "weights", "head-weights", "random-weights")  # what a recipe says of its own model only
NUMBERS: dict[Any, str] = {int: "a whole number", float: "a number"}  # as a person calls them
_NOT_SAVED = "force"  # a recipe may say it, but leave to replace files is given anew for each run
MAX_BYTES = 2**20


def add_config(parser: argparse.ArgumentParser) -> None:
    """Adds --config and --save-config."""
    parser.add_argument(
        OPTION,
        type=Path,
        metavar="FILE",
        help="a YAML recipe of these options, as in `hop: 4`; the command line wins. With another --model there, the "
        "recipe's model-args, weights, head-weights and random-weights, which are of its model, are left out. Relative "
        "paths in it (--out, too) start from the recipe's folder, those of the command line from the current one",
    )
    parser.add_argument(
        "--save-config",
        type=Path,
        metavar="FILE",
        help="write the options of this run as a recipe, all but --force, with paths relative to the recipe's folder",
    )


def with_config(parser: argparse.ArgumentParser, words: Sequence[str]) -> list[str]:
    """The words of a command line, after those that the recipe in its --config stands for: later ones win. Where they
    name another --model than the recipe, what it says of its own (``_OF_MODEL``) is left out, which is said on stderr.

    ``UsageError`` if the recipe cannot be read, or has an unknown option or a value that is none.
    """
    probe = argparse.ArgumentParser(add_help=False, exit_on_error=False)
    probe.add_argument(OPTION)
    probe.add_argument(MODEL)
    try:
        given = probe.parse_known_args(list(words))[0]
    except argparse.ArgumentError:  # the parser itself says what is missing
        return list(words)
    return [*_words(parser, Path(given.config), given.model), *words] if given.config else list(words)


class Recipe(NamedTuple):
    """What --save-config is to write, once the run has shown that it can be done."""

    file: Path
    text: str

    def write(self) -> str:
        """Writes it; returns where it is and how it is used."""
        from avbench.system.strict import write_whole

        write_whole(self.file, self.text.encode())
        return f"{self.file} ({shlex.join(['avbench', 'run', OPTION, str(self.file)])})"


def recipe_of(args: argparse.Namespace, parser: argparse.ArgumentParser) -> Recipe | None:
    """The recipe that --save-config asks for, None if it does not: every option that has a value, the defaults too.

    ``UsageError`` or ``AvbenchError`` for a file that could not be written; nothing is written yet.
    """
    import yaml

    from avbench.system.outputs import check_file

    file: Path | None = args.save_config
    if file is None:
        return None
    if not file.parent.is_dir():
        _refuse(f"--save-config {file}: there is no folder {file.parent}; make it first")
    check_file(file, "--save-config", args.force)
    kept: dict[str, Any] = {}
    for name, action in options(parser).items():
        value = getattr(args, action.dest)
        if value is None or value == [] or (action.nargs == 0 and value == action.default) or name == _NOT_SAVED:
            continue
        items = value if isinstance(value, list) else [value]
        plain = [_saved(name, action, item, file.parent) for item in items]
        kept[name] = True if action.nargs == 0 else plain if isinstance(value, list) else plain[0]
    return Recipe(file, yaml.safe_dump(kept, sort_keys=False, allow_unicode=True))


def _saved(name: str, action: argparse.Action, value: Any, folder: Path) -> Any:
    """One value as it stands in a recipe in ``folder``: a number, or what would be typed."""
    if isinstance(value, bool | int | float):
        return value
    return _with_paths(name, action, str(value), Path(), lambda path: _relative(path, folder))


def options(parser: argparse.ArgumentParser) -> dict[str, argparse.Action]:
    """The options that a recipe may have, by their names without dashes."""
    named = {action.option_strings[-1].lstrip("-"): action for action in parser._actions if action.option_strings}
    return {name: action for name, action in named.items() if name not in _NOT_KEPT}


def _words(parser: argparse.ArgumentParser, file: Path, model: str | None) -> Iterator[str]:
    """``model``: that of the command line, None if it names none."""
    known, recipe = options(parser), _read(file)
    left_out = _of_another_model(recipe, file, known, model)
    if left_out:
        from avbench.commands.common import say

        theirs, remedy = " and ".join(left_out), "give them on the command line if they are meant"
        say(f"note: {theirs} of {file}, which are of its model, left out for {MODEL} {model}: {remedy}")
    for key, value in recipe.items():
        name = str(key).replace("_", "-")
        if name in left_out:
            continue
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(known)}"
            _refuse(f"{file}: unknown option {str(key)!r}; {hint}")
        if value is not None:
            yield from _option(name, known[name], value, file)


def _of_another_model(
    recipe: dict[Any, Any], file: Path, known: dict[str, argparse.Action], model: str | None
) -> list[str]:
    """The options in a recipe that are of its own model, if the command line names another one."""
    own = recipe.get("model")
    if model is None or not isinstance(own, str):
        return []
    placed = _with_paths("model", known["model"], own, file.parent, lambda path: _placed(path, file.parent))
    names = [str(key).replace("_", "-") for key, value in recipe.items() if value is not None]
    return [name for name in names if name in _OF_MODEL] if model not in (own, placed) else []


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

    def placed(text: str) -> str:
        return _with_paths(name, action, text, file.parent, lambda path: _placed(path, file.parent))

    if action.nargs == "+":
        pairs = isinstance(value, dict) and name == "model-args"
        items = [f"{k}={_text(v, name, file)}" for k, v in value.items()] if pairs else value
        texts = [_typed(placed(_text(i, name, file)), name, action, file) for i in _listed(items)]
        if any(text.startswith("-") for text in texts):
            _refuse(f"{file}: {name} has a value that begins with '-'")
        yield from [f"--{name}", *texts] if texts else []
        return
    text = _typed(placed(_text(value, name, file)), name, action, file)
    yield f"--{name}={text}"  # one word: the value may begin with "-"


def _listed(items: Any) -> list[Any]:
    return items if isinstance(items, list) else [items]


def _typed(text: str, name: str, action: argparse.Action, file: Path) -> str:
    """``text``, if the option can take it: what is wrong in a recipe is said of the recipe."""
    try:
        value = action.type(text) if callable(action.type) else text
    except argparse.ArgumentTypeError as error:
        _refuse(f"{file}: {name}: {error}")
    except (TypeError, ValueError):
        wanted = NUMBERS.get(action.type, "another value")
        _refuse(f"{file}: {name} is {text!r}; it must be {wanted}")
    if action.choices is not None and value not in action.choices:
        _refuse(f"{file}: {name} is {text!r}; it must be one of {', '.join(map(str, action.choices))}")
    return text


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


# -- paths: as typed in the current folder, as written in a recipe's ---------------------------------------------------


def _with_paths(name: str, action: argparse.Action, text: str, root: Path, moved: Callable[[str], str]) -> str:
    """The text of an option's value with every path in it ``moved``; ``root``: the folder that they are of now. Names
    of models, of data, and on the hub are no paths."""
    if "\0" in text:  # no path has it: refused like one that was typed
        return text
    if action.type is Path:
        return moved(text)
    if name == "model":
        return _model(text, moved)
    if name == "data" and _is_folder(text, root):
        from avbench.commands.common import as_data

        return as_data(Path(moved(text)))
    if name == "model-args":
        from avbench.registry.arguments import names_file

        key, _, value = text.partition("=")
        return f"{key}={moved(value)}" if names_file(value, root) else text
    return text


def _model(name: str, moved: Callable[[str], str]) -> str:
    """A model's name with the files in it moved: of a backbone, of a head."""
    from avbench.registry.names import split_model_name
    from avbench.registry.user_files import is_file
    from avbench.types import UsageError

    try:
        parts = split_model_name(name)
    except UsageError:  # said when the model is made
        return name
    return "+".join(moved(part) if is_file(part) else part for part in parts if part)


def _is_folder(data: str, root: Path) -> bool:
    """Whether --data names a folder, and neither built-in nor hosted data. A folder of the current folder alone counts
    too: it must not be read in place of one that is missing beside the recipe."""
    from avbench.data import dynamic, synthsync
    from avbench.protocol.tracks import DATA_OF_TRACK

    if data.startswith("hub:") or data in (*synthsync.NAMES, dynamic.NAME, *DATA_OF_TRACK):
        return False
    return os.sep in data or os.path.exists(root / data) or os.path.exists(data)


def _placed(path: str, folder: Path) -> str:
    """A path in a recipe as it is called in the current folder; ``folder``: the recipe's."""
    whole = os.path.join(folder, path)
    short = os.path.normpath(whole)
    return short if os.path.realpath(short) == os.path.realpath(whole) else whole  # ".." after a link leads elsewhere


def _relative(path: str, folder: Path) -> str:
    """A path of the current folder as it is called in ``folder``; absolute where the two have only the root in
    common."""
    start, end = os.path.abspath(folder), os.path.abspath(path)
    if os.path.realpath(os.path.join(start, os.path.relpath(end, start))) != os.path.realpath(path):
        above, name = os.path.split(path)  # a link lies on the way
        start, end = os.path.realpath(folder), os.path.join(os.path.realpath(above or os.curdir), name)
    shared = os.path.commonpath([start, end])
    return end if shared == os.path.dirname(shared) else os.path.relpath(end, start)
