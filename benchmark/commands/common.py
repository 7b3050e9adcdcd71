"""Shared by the commands: messages, progress bars, and arguments that several of them take."""

from __future__ import annotations

import argparse
import math
import re
import shlex
import sys
import textwrap
import time
from collections.abc import Callable, Sequence
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    import pandas as pd

    from avbench.engine.on_ray import OnRay
    from avbench.pages.formats import Table
    from avbench.protocol.manifest import Manifest
    from avbench.protocol.rules import Protocol
    from avbench.registry.options import ModelOptions
    from avbench.scoring.stats import Bootstrap
    from avbench.types import Reading

DEBUG_HELP = "show the traceback behind a one-line error (also: AVBENCH_DEBUG=1)"
SIGN = "A positive offset means that the sound comes early (it leads the picture), a negative one that it is late."
FORMATS = ("text", "md", "latex", "csv", "json")  # the first one is the default
FEWEST_RESAMPLES = 20  # with fewer, the ends of a 95 % interval are the smallest and the largest of a handful
MAX_LINES = 10  # of one kind on the screen; run.json has all of them


def complain(problem: object, code: int) -> int:
    """Prints the problem as one line on stderr, or its ``lines`` where it is several, and returns ``code``, the exit
    code."""
    for line in getattr(problem, "lines", (problem,)):
        say(f"error: {' '.join(str(line).split())}")
    return code


def say(text: str) -> None:
    """Prints one line on stderr; stdout is for results. The text may quote a stranger's file: see ``printable``."""
    from avbench.types import printable

    print(f"avbench: {printable(text)}", file=sys.stderr)


def show(text: str) -> None:
    """Prints lines of a result on stdout. The text may quote a stranger's file: see ``printable``."""
    from avbench.types import printable

    print("\n".join(map(printable, text.split("\n"))))


def say_each(kind: str, lines: Sequence[str]) -> None:
    """Prints the first ``MAX_LINES`` lines on stderr, and how many more there are."""
    for line in lines[:MAX_LINES]:
        say(f"{kind}: {line}")
    if len(lines) > MAX_LINES:
        say(f"{kind}: ... and {len(lines) - MAX_LINES} more")


UNITS = {  # what a stage counts, if not clips
    **dict.fromkeys(("decoding and snapshots", "train snapshots", "valid snapshots"), "snapshot"),
    **dict.fromkeys(("the same without mutes", "offsets that change", "offsets that hold"), "snapshot"),
    **dict.fromkeys(("training", "training, phase 2"), "step"),
    "timing": "sample",
    "timing models": "model",
    "written": "table or figure",
    "entries": "entry",
    **dict.fromkeys(("reading", "fetching data", "fetching and verifying", "uploading", "hashing media"), "file"),
}
PLURALS = {"B": "bytes", "entry": "entries", "table or figure": "tables and figures"}  # of units; others end in s


class _Lines:
    """A bar for logs, where a line cannot be drawn again: one line a minute, and one at the end of the stage."""

    EVERY_S = 60.0
    WORTH_S = 1.0  # of a stage of one thing, to be worth a line

    def __init__(self, total: int, desc: str, unit: str, initial: int) -> None:
        self.n, self.total, self.desc, self.unit = initial, total, desc, unit
        self.began_s = self.said_s = time.monotonic()

    def update(self, more: int) -> None:
        self.n += more
        if self.n < self.total and time.monotonic() - self.said_s >= self.EVERY_S:
            self._say()

    def close(self) -> None:
        if self.total > 1 or time.monotonic() - self.began_s >= self.WORTH_S:
            self._say()

    def _say(self) -> None:
        self.said_s = time.monotonic()
        many = PLURALS.get(self.unit, f"{self.unit}s")
        say(f"{self.desc}: {self.n} of {self.total} {many}, {self.said_s - self.began_s:.0f} s")


class Progress:
    """One bar with ETA per stage, on stderr; a few whole lines if stderr is not a terminal. ``unit`` "B": bytes."""

    def __init__(self, unit: str = "clip") -> None:
        self.unit = unit
        self.stage = ""
        self.bar: Any = None

    def __call__(self, stage: str, done: int, total: int, item: str = "") -> None:
        if stage != self.stage or self.bar is None:
            self.close()
            self.stage = stage
            self.bar = self._bar(stage, total, done)  # an interrupted stage counts on, and its ETA is not too short
        if done > self.bar.n:
            self.bar.update(done - self.bar.n)

    def line(self, text: str) -> None:
        """Prints one line on stderr, above the bar if there is one."""
        from tqdm import tqdm

        tqdm.write(text, file=sys.stderr)

    def _bar(self, stage: str, total: int, done: int) -> Any:
        unit = UNITS.get(stage.partition(", pass ")[0], self.unit)
        if not sys.stderr.isatty():
            return _Lines(total, stage, unit, done)
        from tqdm import tqdm

        return tqdm(total=total, initial=done, desc=stage, unit=unit, unit_scale=self.unit == "B", file=sys.stderr)

    def close(self) -> None:
        """Ends the current bar, if any."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None

    def of(self, stage: str) -> Any:
        """A ``(done, total, item)`` callback for one stage."""
        return lambda done, total, item="": self(stage, done, total, item)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def add_csv(parser: argparse.ArgumentParser, rows: str) -> None:
    """Adds --csv; ``rows``: what a row of the file is."""
    parser.add_argument("--csv", type=Path, metavar="FILE", help=f"also write a CSV file with one row {rows}")


def add_engine(parser: argparse.ArgumentParser) -> None:
    """Adds --engine and --ray-address; :func:`engine_of` reads them."""
    parser.add_argument(
        "--engine",
        choices=("local", "ray"),
        default="local",
        help="ray: hand the clips to a Ray cluster, --workers at a time; its machines must see the media under the "
        "same paths, and send back what they compute (default: local, worker processes here)",
    )
    parser.add_argument(
        "--ray-address",
        metavar="A",
        help="of a running cluster, HOST:PORT or auto (default: $RAY_ADDRESS, else one on this machine)",
    )


def engine_of(args: argparse.Namespace) -> OnRay | None:
    """What --engine and --ray-address ask for, None for local; ``UsageError`` if Ray is not installed."""
    from avbench.types import UsageError

    if args.engine == "local":
        if args.ray_address:
            raise UsageError("--ray-address goes with --engine ray")
        return None
    from avbench.engine.on_ray import OnRay

    return OnRay(args.ray_address, args.workers)


def add_format(parser: argparse.ArgumentParser) -> None:
    """Adds --format; :func:`print_as` obeys it."""
    parser.add_argument(
        "--format",
        choices=FORMATS,
        default=FORMATS[0],
        help="what is printed: text, a GitHub table, a LaTeX table (booktabs), CSV, or the same as --json "
        "(default: text)",
    )


def check_format(args: argparse.Namespace) -> None:
    """``UsageError``, before the work, if --json and --format ask for two different things."""
    from avbench.types import UsageError

    if args.json and args.format not in (FORMATS[0], "json"):
        raise UsageError(f"--json and --format {args.format} contradict each other: leave out one of them")


def print_as(
    args: argparse.Namespace,
    text: Callable[[], str],
    tables: Callable[[], Sequence[Table]],
    csv: Callable[[], str],
    json: Callable[[], str],
) -> None:
    """Prints a result as --format or --json asks for it."""
    from avbench.pages.formats import as_text

    form = "json" if args.json else args.format
    made = {"text": text, "csv": csv, "json": json}.get(form) or (lambda: as_text(tables(), form))
    print(made().rstrip("\n"))


def add_force(parser: argparse.ArgumentParser) -> None:
    """Adds --force, for a command that fills a folder or writes a file."""
    parser.add_argument("--force", action="store_true", help="replace what is there already")


def add_log_to(parser: argparse.ArgumentParser, **defaults: Any) -> None:
    """Adds --log-to, for a training."""
    parser.add_argument(
        "--log-to",
        choices=("tensorboard", "wandb", "trackio"),
        help="also send losses and scores there (pip install 'avbench[tensorboard]', [wandb] or [trackio])",
        **defaults,
    )


def add_fetch(parser: argparse.ArgumentParser) -> None:
    """Adds the options about fetching hosted media; :func:`fetch_of` reads them."""
    group = parser.add_argument_group("hosted data (--data hub:ORG/NAME@COMMIT)")
    group.add_argument(
        "--fetch",
        choices=("all", "on-demand"),
        default="all",
        help="fetch all media first (default), or each clip when its turn comes, for data larger than the disk",
    )
    group.add_argument(
        "--keep-media",
        type=_n_bytes,
        metavar="SIZE",
        help="with on-demand: media on the disk at any time, such as 500MB or 20GB (default: what the disk holds)",
    )


def _n_bytes(text: str) -> int:
    """A size such as 20GB, in bytes."""
    found = re.fullmatch(r"(\d{1,15}(?:\.\d{1,9})?) ?([KMGT]?)B?", text, re.IGNORECASE | re.ASCII)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no size such as 500MB or 20GB")
    return round(Decimal(found[1]) * 1000 ** "_KMGT".index(found[2].upper() or "_"))


def fetch_of(args: argparse.Namespace) -> dict[str, Any]:
    """The options that :func:`add_fetch` added, as those of ``Compute``; ``UsageError`` if they do not go together."""
    from avbench.types import UsageError

    if args.keep_media is not None and args.fetch != "on-demand":
        raise UsageError("--keep-media goes with --fetch on-demand")
    return {"on_demand": args.fetch == "on-demand", "keep_bytes": args.keep_media}


def by_spaces(option: str, names: Sequence[str]) -> None:
    """``UsageError`` if several names were given as one, with commas between them."""
    from avbench.types import UsageError

    for text in names:
        if "," in text and not Path(text.partition(":")[0]).exists():  # a file's name may have a comma
            several = " ".join(name.strip() for name in text.split(",") if name.strip())
            raise UsageError(f"{option} {text!r}: separate several by spaces: {option} {several}")


def put_before(option: str, words: Sequence[str], kind: str, is_one: Callable[[str], bool]) -> None:
    """``UsageError`` if ``option``, which takes all words behind it, has taken one of another ``kind``."""
    from avbench.types import UsageError

    for word in words:
        if is_one(word):
            raise UsageError(f"{word} is {kind}: put it before {option}, which takes all words behind it")


def as_data(folder: Path) -> str:
    """A manifest's folder as a --data that can be taken for no built-in name and no option."""
    return str(folder) if "/" in str(folder) else f"./{folder}"


def say_next(commands: Sequence[Sequence[object]], to: TextIO | None = None) -> None:
    """Prints what to do next, a command a line, each as it can be pasted into a shell."""
    from avbench.types import printable

    for i, words in enumerate(commands):
        line = shlex.join(["avbench", *map(str, words)])
        print(f"{'next' if i == 0 else '':8}{printable(line)}", file=to or sys.stdout)


def bootstrap_of(args: argparse.Namespace) -> Bootstrap:
    """--n-resamples and --seed; ``UsageError`` for fewer resamples than the ends of an interval need."""
    from avbench.scoring.stats import Bootstrap
    from avbench.types import UsageError

    if args.n_resamples < FEWEST_RESAMPLES:
        raise UsageError(
            f"n_resamples is {args.n_resamples}; it must be at least {FEWEST_RESAMPLES}, for an interval to publish "
            "at least 1000"
        )
    return Bootstrap(args.n_resamples, args.seed)


def workers_of(args: argparse.Namespace) -> int:
    """--workers, or one for each core; ``UsageError`` if it is below 1."""
    from avbench.system.machine import cores
    from avbench.types import UsageError

    if args.workers is not None and args.workers < 1:
        raise UsageError(f"workers is {args.workers}; it must be at least 1")
    return args.workers or cores()


def check_files(args: argparse.Namespace) -> None:
    """Refuses, before the work, what --csv, --plot and --page name: ``UsageError`` for a folder, a file that is there
    (unless --force) and a --plot of a format that cannot be drawn; ``AvbenchError`` for what cannot be written."""
    from avbench.pages.drawing import check_format
    from avbench.system.outputs import check_file

    for option in ("csv", "plot", "page"):
        path = getattr(args, option, None)
        if isinstance(path, Path):  # a --page without a value writes beside each file
            if option == "plot":
                check_format(path)
            check_file(path, f"--{option}", args.force)


def say_files(args: argparse.Namespace, *more: Path) -> None:
    """Names the files of --csv, --plot and --page, and ``more``: below a text, else on stderr."""
    asked = [getattr(args, option, None) for option in ("page", "plot", "csv")]
    names = " · ".join(str(path) for path in [*more, *asked] if isinstance(path, Path))
    if not names:
        return
    text = not (args.json or getattr(args, "jsonl", False) or getattr(args, "format", "text") != "text")
    if text:
        show(f"files   {names}")
    else:
        say(f"files: {names}")


def write_csv(frame: pd.DataFrame, path: Path) -> None:
    """Writes the table as UTF-8 CSV with a header line, atomically; undefined numbers are empty cells. ``AvbenchError``
    if it cannot be written."""
    from avbench.system.strict import write_whole

    write_whole(path, frame.to_csv(index=False, lineterminator="\n").encode())


def protocol_of(args: argparse.Namespace) -> Protocol | Callable[[bool], Protocol]:
    """The protocol that --protocol, --hop and --iterations name; without --protocol a function that picks one, given
    whether the offsets of the data change."""
    from avbench.protocol.rules import PROTOCOLS, usual

    if args.protocol is None:
        return partial(usual, hop_s=hop_s(args), iterations=args.iterations)
    windows = {} if args.iterations is None else {"iterations": args.iterations}
    return PROTOCOLS[args.protocol](hop_s=hop_s(args), **windows)


def hop_s(args: argparse.Namespace) -> float:
    """--hop in seconds; ``UsageError`` unless finite."""
    from avbench.types import UsageError

    if not math.isfinite(args.hop):
        raise UsageError(f"hop is {args.hop} s; it must be a positive multiple of 0.04 s (one frame)")
    return args.hop


def add_tracks(parser: Any, default: str) -> None:
    """Adds --video-track and --audio-track; ``default``: which one is read without. :func:`tracks_of` reads them."""
    for kind, word in (("video", "picture"), ("audio", "sound")):
        text = f"the {word} track to read, counted from 1 (default: {default})"
        parser.add_argument(f"--{kind}-track", type=int, metavar="N", help=text)


def tracks_of(args: argparse.Namespace) -> tuple[int, int]:
    """--video-track and --audio-track, 0 for the default; ``UsageError`` for a number below 1."""
    from avbench.types import UsageError

    for option, value in (("--video-track", args.video_track), ("--audio-track", args.audio_track)):
        if value is not None and value < 1:
            raise UsageError(f"{option} is {value}; tracks are counted from 1")
    return args.video_track or 0, args.audio_track or 0


def chosen_tracks(args: argparse.Namespace, reading: Reading) -> Reading:
    """``reading`` with the tracks of :func:`tracks_of`."""
    from dataclasses import replace

    video, audio = tracks_of(args)
    return replace(reading, video_track=video, audio_track=audio)


def add_compute_options(
    parser: argparse.ArgumentParser, batch: str = "1", each: str = "windows", one: str = ""
) -> None:
    """Adds --device, --dtype, --compile and --batch-size, the same in every command that computes. ``batch``: what
    --batch-size is by default; ``each``: what a batch is of; ``one``: why it can only be 1 (see :func:`one_window`).
    :func:`device_of`, :func:`batch_of` and :func:`model_options` read them."""
    group = parser.add_argument_group("where and how to compute")
    group.add_argument(
        "--device",
        default="cpu",
        metavar="D",
        help="cpu, cuda, cuda:1, mps ...; auto: the best there is (default: cpu)",
    )
    group.add_argument(
        "--dtype",
        default="float32",
        help="bfloat16 or float16: layers compute in it, large weights are stored in it (default: float32)",
    )
    group.add_argument("--compile", action="store_true", help="compile the model with torch.compile")
    group.add_argument(
        "--batch-size",
        type=_batch_size,
        default=batch,
        metavar="N|auto",
        help=f"only 1: {one}"
        if one
        else f"{each} per call on an accelerator, halved when its memory runs out; auto: many (default: {batch})",
    )


def _batch_size(text: str) -> int:
    """A number, or 0 for auto."""
    if text != "auto" and not text.removeprefix("-").isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is neither a whole number nor auto")
    return 0 if text == "auto" else int(text)


def device_of(args: argparse.Namespace) -> str:
    """--device, checked; what "auto" picked is said on stderr. ``UsageError`` for one that is not here."""
    from avbench.system.devices import AUTO, check_device, in_words

    device = check_device(args.device)
    if args.device == AUTO:
        say(f"device: {in_words(device)}")
        args.device = device  # said once
    return device


def batch_of(args: argparse.Namespace) -> int | None:
    """--batch-size; None for auto."""
    return args.batch_size or None


def one_window(args: argparse.Namespace, why: str) -> None:
    """``UsageError`` for a --batch-size other than 1, in a command that computes windows one by one; ``why`` so."""
    from avbench.types import UsageError

    if args.batch_size != 1:
        raise UsageError(f"--batch-size can only be 1 here: {why}")


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options about weights; with those of :func:`add_compute_options`, :func:`model_options` reads them."""
    group = parser.add_argument_group("weights")
    add_model_args(group)
    group.add_argument("--weights", type=Path, metavar="FILE", help="converted, published .pt, or from `avbench train`")
    group.add_argument("--head-weights", type=Path, metavar="FILE", help="a separately trained head, for +trf or +lstm")
    group.add_argument(
        "--random-weights",
        type=int,
        nargs="?",
        const=0,
        metavar="SEED",
        help="full-size model with random values for all weights not in a file: its scores are meaningless",
    )


def add_model_args(parser: Any) -> None:
    """Adds --model-args."""
    parser.add_argument(
        "--model-args",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME=VALUE",
        help="arguments of your own class, typed as its constructor says: width=128 ckpt=best.pt",
    )


def model_options(args: argparse.Namespace) -> ModelOptions:
    """The options that :func:`add_model_options` and :func:`add_compute_options` added, as far as they did."""
    from avbench.registry.arguments import parsed
    from avbench.registry.options import ModelOptions

    given = vars(args)
    return ModelOptions(
        weights=given.get("weights"),
        head_weights=given.get("head_weights"),
        random_seed=given.get("random_weights"),
        autocast=args.dtype,
        compiled=args.compile,
        model_args=parsed(given.get("model_args", [])),
    )


def model_words(args: argparse.Namespace) -> list[str]:
    """The options that :func:`model_options` reads as they can be typed again, in the next command about the model."""
    given = vars(args)
    words = ["--model-args", *given["model_args"]] if given.get("model_args") else []
    for name in ("weights", "head_weights", "random_weights"):
        value = given.get(name)
        words += [] if value is None else [f"--{name.replace('_', '-')}", str(value)]
    words += ["--dtype", args.dtype] if args.dtype != "float32" else []
    return [*words, *(["--compile"] if args.compile else [])]


def split_words(manifest: Manifest) -> tuple[str, ...]:
    """The --split without which `avbench run` would find nothing to evaluate in data that have no split test."""
    splits = manifest.splits
    return ("--split", splits[0]) if splits and "test" not in splits else ()


def manifest_of(args: argparse.Namespace) -> Manifest:
    """The manifest that --data and --split name, read with a progress bar."""
    return with_clips(unmade_of(args))


def unmade_of(args: argparse.Namespace) -> Manifest:
    """As :func:`manifest_of`, but before any clip of SynthSync is made: a part of it may be all that is needed."""
    from avbench.data.opening import read_unmade

    with Progress() as progress:
        return read_unmade(args.data, args.split, progress)


def with_clips(manifest: Manifest) -> Manifest:
    """What was made of :func:`unmade_of`, with its clips."""
    from avbench.data.opening import made

    with Progress() as progress:
        return made(manifest, progress)


def count(manifest: Manifest) -> str:
    """Numbers of clips and segments in words."""
    n_clips, n_segments = len(manifest.clips), len(manifest.segments)
    return f"{n_clips} clip{'s' * (n_clips != 1)}, {n_segments} segment{'s' * (n_segments != 1)}"


class Help(argparse.HelpFormatter):
    """Wraps texts, where a line that ends with a full stop or a colon is the last of its paragraph; one that begins
    with a space, an example, stays as it can be typed."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        fill = partial(textwrap.fill, width=width, break_long_words=False, break_on_hyphens=False)
        text = re.sub(r"(?<=[^.:\n])\n(?=[^ \n])", " ", text)
        return "\n".join(line if line.startswith(" ") else fill(line) for line in text.splitlines())


def add_command(
    commands: Any, name: str, function: Any, summary: str, text: str, *examples: str
) -> argparse.ArgumentParser:
    """Adds a subcommand that runs ``function``, with its one-line ``summary``, help ``text`` and ``examples``."""
    parser = commands.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}. {text}",
        epilog="examples:\n" + "\n".join(f"  {example}" for example in examples),
        formatter_class=Help,
    )
    # SUPPRESS: without --debug here, a --debug before the command keeps its effect
    parser.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=DEBUG_HELP)
    parser.set_defaults(command=function, parser=parser)
    return parser
