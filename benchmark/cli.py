"""The command line. Only the standard library is imported until a command runs, so that ``--help`` answers at once.

Results go to stdout, progress and everything else to stderr. Exit codes: 0 success, 1 the run is incomplete or
something failed, 2 the request was wrong, 3 a file is outside the tolerance (``predict --tolerance``), 130 interrupted.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from avbench import __version__
from avbench.commands import (
    compare,
    config,
    data,
    doctor,
    latency,
    leaderboard,
    paper,
    predict,
    report,
    run,
    score,
    store,
    submit,
    train,
    watch,
    weights,
)
from avbench.commands.common import DEBUG_HELP, SIGN, complain

# in the order of the help
COMMANDS = (
    *(run, predict, watch, score, report, compare, paper, latency),
    *(data, weights, store, train, submit, leaderboard, doctor),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code. Known problems are reported as one line on stderr."""
    for stream in (sys.stdout, sys.stderr):  # what the terminal's encoding lacks, and names that are no text
        with contextlib.suppress(AttributeError, ValueError):  # it is closed or no text file
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    args, unknown = _parser().parse_known_args(argv)
    if unknown:  # parse_args() would point to the help of avbench as a whole
        return complain(f"unrecognized arguments: {' '.join(unknown)}; see `{args.prog} --help`", 2)
    from avbench.system import debug
    from avbench.types import AvbenchError, UsageError

    if args.debug:
        debug.turn_on()
    try:
        code = args.command(args)
        print(end="", flush=True)  # sys.stdout is None where the caller has closed it
        return code
    except AvbenchError as error:
        debug.show(error)
        return complain(error, 2 if isinstance(error, UsageError) else 1)
    except KeyboardInterrupt:
        return complain("interrupted. Progress is saved; run the same command to resume", 130)
    except BrokenPipeError:  # the reader of a pipe (head, less) has left
        _drop_stdout()
        return 1
    except OSError as error:  # the output itself failed: a full disk behind > or a bad folder
        _drop_stdout()
        return complain(f"{error.filename or 'writing the output'}: {error.strerror or error}", 1)


def _drop_stdout() -> None:
    """Discards buffered output: the interpreter would otherwise report the error again at its end."""
    with contextlib.suppress(AttributeError, OSError):  # it is closed or not a file
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _Parser(argparse.ArgumentParser):
    def parse_known_args(self, args=None, namespace=None):  # type: ignore[no-untyped-def, override]  # argparse's own
        """Puts a recipe's options before those of the command line, for a command that takes --config."""
        if args is not None and config.OPTION in self._option_string_actions:
            from avbench.types import UsageError

            try:
                args = config.with_config(self, args)
            except UsageError as problem:
                self.exit(complain(problem, 2))
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """One line, like every other problem; the usage is in the help."""
        self.exit(2, f"avbench: error: {message}; see `{self.prog} --help`\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="avbench",
        description="Benchmark harness for audio-visual synchronisation in streaming video.",
        epilog=f"{SIGN}\n\nexample: avbench run --model streamsync-trf",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"avbench {__version__}")
    parser.add_argument("--debug", action="store_true", help=DEBUG_HELP)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    for module in COMMANDS:
        module.add(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
