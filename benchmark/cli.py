# PYTHON_ARGCOMPLETE_OK
"""The command line. Only the standard library is imported until a command runs, so that ``--help`` answers at once.

Results go to stdout, progress and everything else to stderr. Exit codes: 0 success, 1 the run is incomplete or
something failed, 2 the request was wrong, 3 a file is outside the tolerance (``predict --tolerance``), 130 interrupted,
141 the reader of a pipe has left, 143 told to end (SIGTERM).
"""

from __future__ import annotations

import argparse
import codecs
import contextlib
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

from avbench import __version__
from avbench.commands import (
    cite,
    compare,
    completion,
    config,
    data,
    doctor,
    latency,
    leaderboard,
    paper,
    plan,
    predict,
    report,
    run,
    score,
    store,
    submit,
    train,
    view,
    watch,
    weights,
)
from avbench.commands.common import DEBUG_HELP, SIGN, Help, complain
from avbench.system.spelling import nearest

# in the order of the help
COMMANDS = (
    *(run, plan, predict, watch, score, report, compare, paper, latency, view, cite),
    *(data, weights, store, train, submit, leaderboard, doctor, completion),
)
# what of the work is kept, and what will be done again
_STORED = (
    "What was computed is in the store, up to the last half minute of a clip, and is not computed again by the same "
    "command; no results were written"
)
_FINISHED = "What was finished is kept; the same command does only the rest"
_TRAINED = "The same command goes on from the last saved state, or anew if none was saved"
_KEPT = {
    **dict.fromkeys(("avbench run", "avbench sweep", "avbench paper", "avbench predict"), _STORED),
    **dict.fromkeys(("avbench data synth", "avbench data build", "avbench data pull", "avbench data push"), _FINISHED),
    **dict.fromkeys(("avbench weights fetch", "avbench leaderboard build", "avbench leaderboard export"), _FINISHED),
}
PIPE_CLOSED, ENDED = 141, 143  # as a shell reports a program ended by SIGPIPE, by SIGTERM


_PLAIN = str.maketrans({"±": "+-", "−": "-", "–": "-", "·": "|", "×": "x", "…": "...", "†": "+", "≤": "<=", "≥": ">="})


def _plainly(error: UnicodeError) -> tuple[str, int]:
    """What is written for characters that an encoding lacks: the like in ASCII, or their numbers."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end].translate(_PLAIN)
    return text.encode("ascii", "backslashreplace").decode(), error.end


codecs.register_error("avbench", _plainly)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code. Known problems are reported as one line on stderr."""
    if sys.stderr is None:  # it was closed (2>&-): print() would write to stdout instead
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115  (as long as the process)
    for stream in (sys.stdout, sys.stderr):  # what the terminal's encoding lacks, and names that are no text
        with contextlib.suppress(AttributeError, ValueError):  # it is closed or no text file
            stream.reconfigure(errors="avbench")  # type: ignore[union-attr]
    parser = _parser()
    if completion.VARIABLE in os.environ:
        completion.complete(parser)
    args, unknown = parser.parse_known_args(argv)
    if unknown:  # parse_args() would point to the help of avbench as a whole
        wrong = args.parser.mistyped(unknown) or f"unrecognized arguments: {' '.join(unknown)}"
        return complain(f"{wrong}; see `{args.parser.prog} --help`", 2)
    from avbench.system import debug
    from avbench.types import AvbenchError, UsageError

    if args.debug:
        debug.turn_on()
    try:
        with _told_to_end():
            code = args.command(args)
        print(end="", flush=True)  # sys.stdout is None where the caller has closed it
        return code
    except AvbenchError as error:
        debug.show(error)
        return complain(error, 2 if isinstance(error, UsageError) else 1)
    except KeyboardInterrupt as how:
        word, code = ("ended", ENDED) if isinstance(how, _Ended) else ("interrupted", 130)
        return complain(f"{word}. {_kept(args.parser.prog)}", code)
    except BrokenPipeError:  # the reader of a pipe (head, less) has left: nothing failed, as other programs say it
        _drop_output()
        return PIPE_CLOSED
    except OSError as error:  # the output itself failed: a full disk behind > or a bad folder
        _drop_output()
        return complain(f"{error.filename or 'writing the output'}: {error.strerror or error}", 1)


class _Ended(KeyboardInterrupt):
    """Told to end by SIGTERM, as queues and containers do: all that an interruption leaves tidy is left so, too."""


@contextlib.contextmanager
def _told_to_end() -> Iterator[None]:
    """Within it, SIGTERM raises ``_Ended``, unless the program that calls :func:`main` has its own way."""

    def end(*_: object) -> NoReturn:
        raise _Ended

    try:
        before = signal.getsignal(signal.SIGTERM)
        if before is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, end)
    except ValueError:  # only the main thread may
        before = None
    try:
        yield
    finally:
        if before is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, before)


def _kept(command: str) -> str:
    """What an interruption of ``command`` leaves."""
    training = command.startswith("avbench train")
    return _KEPT.get(command, _TRAINED if training else "No results were written; the same command starts anew")


def _drop_output() -> None:
    """Discards buffered output: the interpreter would otherwise report the error again at its end. A stream that can
    still be written is left alone."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            with contextlib.suppress(AttributeError, OSError):  # it is closed or not a file
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        except (AttributeError, ValueError):  # there is none
            pass


class _Parser(argparse.ArgumentParser):
    """Says in one line what is wrong, and what may have been meant."""

    given: Sequence[str] = ()

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse does, which also comes here for every subcommand. A recipe's options are put before those of the
        command line, for a command that takes --config."""
        self.given = sys.argv[1:] if args is None else args
        if args is not None and config.OPTION in self._option_string_actions:
            from avbench.types import UsageError

            try:
                args = config.with_config(self, args)
            except UsageError as problem:
                self.exit(complain(problem, 2))
        if any("\0" in word for word in args or self.given):
            self.error("an argument has a character in it (NUL) that no file's name can have")
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """One line, like every other problem; the usage is in the help."""
        from avbench.types import printable

        if message.startswith("the following arguments are required"):
            # they may be there under a mistyped name, or taken by an option
            message = self.mistyped(self.given) or message + self._taken(message)
        message = message.removeprefix("argument ") if message.startswith("argument -") else message
        self.exit(2, f"avbench: error: {printable(message)}; see `{self.prog} --help`\n")

    def _taken(self, message: str) -> str:
        """The option among the given words that takes all words behind it, those that are missed too; "" if none."""
        missed = message.partition(": ")[2]
        many = [o for action in self._actions if action.nargs == "+" for o in action.option_strings]
        taker = next((word.partition("=")[0] for word in self.given if word.partition("=")[0] in many), "")
        return f": put {missed} before {taker}, which takes all words behind it" if taker and "--" not in missed else ""

    def mistyped(self, words: Sequence[str]) -> str:
        """The first mistyped option among ``words`` and what it may have meant; "" if none is near."""
        for word in words:
            name = word.partition("=")[0]
            known = [option for option in self._option_string_actions if option.startswith("--")]
            abbreviated = any(option.startswith(name) for option in known)
            if name.startswith("--") and not abbreviated and (near := nearest(name, known, "", most=1)):
                return f"unknown option {name}: {near.removesuffix('?')}"
        return ""

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            choices = [str(choice) for choice in action.choices]
            message = f"invalid choice: {value!r}: {nearest(str(value), choices).removesuffix('?')}"
            raise argparse.ArgumentError(action, message)

    def _get_value(self, action: argparse.Action, arg_string: str) -> Any:
        try:
            return super()._get_value(action, arg_string)  # type: ignore[misc]
        except argparse.ArgumentError as error:
            if action.nargs == "+" and "," in arg_string:
                raise argparse.ArgumentError(action, f"{arg_string!r}: separate several by spaces") from error
            if action.type in config.NUMBERS:
                raise argparse.ArgumentError(action, f"{arg_string!r} is not {config.NUMBERS[action.type]}") from error
            raise


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="avbench",
        description="Benchmark harness for audio-visual synchronisation in streaming video.",
        epilog=f"{SIGN}\n\nexample: avbench run --model streamsync-trf",
        formatter_class=Help,
    )
    parser.add_argument("--version", action="version", version=f"avbench {__version__}")
    parser.add_argument("--debug", action="store_true", help=DEBUG_HELP)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    for module in COMMANDS:
        module.add(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
