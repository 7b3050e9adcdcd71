"""``avbench completion``, and what a shell is told when somebody presses Tab. Nothing here imports torch."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

from avbench.commands.common import add_command

VARIABLE = "_ARGCOMPLETE"  # set by the shell when it asks
PROFILES = {"bash": "~/.bashrc", "zsh": "~/.zshrc", "fish": "~/.config/fish/config.fish"}


def add(commands: Any) -> None:
    """Adds the subcommand to the parser."""
    completion = add_command(
        commands,
        "completion",
        _completion,
        "make Tab complete commands, options and names in your shell",
        "Prints the code that the shell needs. Put the line of the examples that is for your shell into its profile\n"
        f"({', '.join(PROFILES.values())}); `avbench` must be on the PATH.",
        'eval "$(avbench completion bash)"',
        'eval "$(avbench completion zsh)"     # after compinit',
        "avbench completion fish | source",
    )
    completion.add_argument("shell", choices=tuple(PROFILES), metavar="SHELL", help=", ".join(PROFILES))


def _completion(args: argparse.Namespace) -> int:
    import argcomplete

    print(argcomplete.shellcode(["avbench"], shell=args.shell), end="")
    return 0


def complete(parser: argparse.ArgumentParser) -> None:
    """Answers the shell and ends the process."""
    import argcomplete

    for action in _actions(parser):
        if action.dest in NAMES and action.choices is None:
            action.completer = partial(_names_or_files, NAMES[action.dest])  # type: ignore[attr-defined]
    argcomplete.autocomplete(parser, always_complete_options="long")


def _names_or_files(names: Callable[[], Iterable[str]], prefix: str, **_: Any) -> list[str]:
    """Names first; where none fits, a file or a folder may stand there too."""
    from argcomplete.completers import FilesCompleter

    fitting = [name for name in names() if name.startswith(prefix)]
    return fitting or list(FilesCompleter()(prefix))


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """All arguments of a command and of its verbs."""
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for verb in action.choices.values():
                yield from _actions(verb)


def _models() -> Iterable[str]:
    from avbench.registry.names import list_models

    return [model.name for model in list_models()]


def _data() -> Iterable[str]:
    from avbench.data.synthsync import NAMES as SYNTHSYNC
    from avbench.protocol.tracks import DATA_OF_TRACK

    return [*SYNTHSYNC, *DATA_OF_TRACK]


def _tracks() -> Iterable[str]:
    from avbench.protocol.tracks import TRACKS

    return TRACKS


def _metrics() -> Iterable[str]:
    from avbench.scoring.below_grid import BELOW_GRID
    from avbench.scoring.dynamic import SHOWN
    from avbench.scoring.metrics import METRICS

    return [*METRICS, *BELOW_GRID, *SHOWN]


def _tolerances() -> Iterable[str]:
    from avbench.scoring.tolerance import TOLERANCES

    return TOLERANCES


# argument -> the names that may stand there
NAMES: Mapping[str, Callable[[], Iterable[str]]] = {
    **dict.fromkeys(("model", "models", "backbone"), _models),
    "data": _data,
    "split": lambda: ["train", "valid", "test"],
    "track": _tracks,
    "metrics": _metrics,
    "tolerance": _tolerances,
}
