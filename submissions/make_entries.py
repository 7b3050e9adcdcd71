"""Make the entries that avbench ships: ``python -m avbench.submissions.make_entries [--track T] [--model NAME ...]``.

Every model of ``ENTRIES`` is run on its track and packed. An entry whose predictions are those of the one that is there
stays as it is; another one takes the place of the model's earlier revisions on that track. So after weights, constants
or scores have changed, one command brings all entries up to date; ``tests/submissions/test_make_entries.py`` fails
until it was given.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from avbench.engine.runner import Compute
from avbench.protocol.tracks import TRACKS
from avbench.registry.names import load_model
from avbench.runs.evaluate import evaluate
from avbench.submissions.format import PREDICTIONS_FILE
from avbench.submissions.pack import pack
from avbench.submissions.tracks import find
from avbench.system.progress import Progress
from avbench.types import AvbenchError, UsageError

ORG = "avbench"
LICENCE = "MIT"
# track -> the name of an entry -> its model
ENTRIES: dict[str, dict[str, str]] = {
    "synthsync-test": {
        "apa-sparsesync": "apa-sparsesync",
        "apa-synchformer": "apa-synchformer",
        "sparsesync": "sparsesync",
        "streamsync-lstm": "streamsync-lstm",
        "streamsync-trf": "streamsync-trf",
        "synchformer": "synchformer",
        "synchformer-trf": "synchformer+trf",
        "xcorr": "xcorr",
        "xcorr-apa": "xcorr+apa",
    },
    # dynamic.md, section 7; "always in sync" and the labels are on every board
    "synthsync-dynamic-test": {
        "sparsesync": "sparsesync",
        "sparsesync-apa": "sparsesync+apa",
        "sparsesync-apa-sliding": "sparsesync+apa-sliding",
        "sparsesync-apa-decay": "sparsesync+apa-decay",
        "sparsesync-bayes": "sparsesync+bayes",
        "sparsesync-cusum": "sparsesync+cusum",
        "streamsync-lstm": "streamsync-lstm",
        "streamsync-trf": "streamsync-trf",
        "streamsync-lstm.dynamic": "streamsync-lstm.dynamic",
        "streamsync-trf.dynamic": "streamsync-trf.dynamic",
    },
}


class Made(NamedTuple):
    """An entry of a model: its folder, whether it is a new one, and the earlier revisions that it replaced."""

    folder: Path
    new: bool
    removed: tuple[Path, ...]


def make_entries(
    track_name: str,
    out: Path,
    names: Sequence[str] = (),
    compute: Compute | None = None,
    progress: Callable[[str], Progress | None] = lambda name: None,
) -> Iterator[Made]:
    """Runs the models of a track and writes their entries below ``out``, one after the other.

    ``names``: only these entries. ``progress(name)``: what is told of the run for that entry. ``UsageError``: no such
    track or entry, or as ``evaluate`` and ``pack``.
    """
    track, models = find(track_name), ENTRIES.get(track_name, {})
    unknown = [name for name in names if name not in models]
    if unknown or not models:
        what = f"{track_name} has no entry {unknown[0]!r} of ours" if unknown else f"there are none for {track_name}"
        raise UsageError(f"{what}; there are {', '.join(models) or ', '.join(ENTRIES)}")
    for name in names or models:
        with tempfile.TemporaryDirectory() as scratch:
            run = Path(scratch) / "run"
            evaluate(
                models[name],
                track.data,
                track.split,
                protocol=track.protocol,
                out=run,
                compute=compute,
                reference_rows=False,
                progress=progress(name),
            )
            card = {"licence": LICENCE, "parameters": parameters_of(models[name])}
            yield _placed(pack(run, Path(scratch) / "entries", ORG, name, card), Path(out))


def parameters_of(model: str) -> int:
    """How many numbers a model has learned, in its backbone and its head."""
    loaded = load_model(model)
    parts: tuple[Any, ...] = (loaded.backbone, loaded.head)
    return sum(p.numel() for part in parts if hasattr(part, "parameters") for p in part.parameters())


def _placed(folder: Path, out: Path) -> Made:
    """Puts a packed entry below ``out``."""
    model, revision, track = folder.parts[-3:]
    place = out / model / revision / track
    if _same_predictions(folder, place):
        return Made(place, False, ())
    old = tuple(sorted(path for path in (out / model).glob(f"*/{track}") if path.is_dir()))
    for path in old:
        shutil.rmtree(path)
        if not any(path.parent.iterdir()):
            path.parent.rmdir()
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(folder, place)
    return Made(place, True, old)


def _same_predictions(a: Path, b: Path) -> bool:
    files = [path / PREDICTIONS_FILE for path in (a, b)]
    return files[1].is_file() and files[0].read_bytes() == files[1].read_bytes()


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; prints a line for each entry."""
    parser = argparse.ArgumentParser(
        prog="python -m avbench.submissions.make_entries", description="Make the entries that avbench ships."
    )
    parser.add_argument("--track", action="append", choices=list(ENTRIES), help="(default: all of these)")
    parser.add_argument("--model", action="append", metavar="NAME", help="only this entry; repeat for several")
    parser.add_argument("--out", type=Path, default=Path("submissions/entries"), help="(default: %(default)s)")
    parser.add_argument("--workers", type=int, metavar="N", help="number of processes (default: one per core)")
    args = parser.parse_args(arguments)
    try:
        compute = Compute(workers=args.workers)
        for track in args.track or [name for name in TRACKS if name in ENTRIES]:
            for made in make_entries(track, args.out, args.model or (), compute):
                print("new    " if made.new else "as ever", made.folder, flush=True)
                for path in made.removed:
                    print("removed", path, flush=True)
    except AvbenchError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
