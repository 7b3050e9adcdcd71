"""How hard SynthSync's scenes are for a backbone: the figures by which ``scenes.HARD`` was calibrated.

    python -m avbench.training.calibrate --difficulty hard --model sparsesync

renders validation scenes of their own (no seed of a training, its validation or a test split), and prints what one
window and the average of 18 windows at hop 2 s (APA) score, by category, beside the figures of the paper's Tables 3
and 6. Nothing is encoded to a file and no test clip is read.
"""

from __future__ import annotations

import argparse
import multiprocessing as mp
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from tabulate import tabulate

from avbench.baselines.embedded import load_backbone
from avbench.baselines.mini import MiniBackbone
from avbench.data.scenes import DIFFICULTIES, Difficulty
from avbench.paper import reported
from avbench.paper.exhibits import title_of
from avbench.scoring.metrics import score
from avbench.training.pool import keep_freed_memory, render_material
from avbench.training.streaming import STREAM_S, Streams, joined, scene_streams
from avbench.types import CATEGORIES

CALIBRATION_SEED = 2_400_000  # of scenes that serve nothing else
WINDOWS, HOP_S = 18, 2
STARTS_S = tuple(range(0, 51, 10))
METRICS = ("acc", "acc_tol1", "roc_auc", "map")
# what to compare with, and the table and row in which the paper reports it
PAPER = {
    "one window": ("table3", "finetuned SparseSync*"),
    "APA": ("table3", "APA SparseSync"),
    "StreamSync, talking heads": ("table6", "talking heads"),
    "StreamSync, voice-overs": ("table6", "voice-overs"),
    "StreamSync, others": ("table6", "others"),
}


def measure(
    backbone: MiniBackbone, difficulty: Difficulty, scenes: int, workers: int = 1
) -> dict[str, dict[str, dict[str, float]]]:
    """Scores of one window (mean over the 18) and of APA: row -> category or "overall" -> metric -> score in [0, 1].

    ``scenes``: of 100 s, cycling through the categories; each gives 36 streams (six starts, six uniform offsets).
    """
    make = partial(_streams, difficulty=difficulty)
    with mp.get_context("spawn").Pool(workers, _begin, (type(backbone), backbone.state_dict())) as pool:
        parts = list(pool.imap(make, range(scenes)))
    whole = {name: joined(parts[i :: len(CATEGORIES)]) for i, name in enumerate(CATEGORIES)}
    whole["overall"] = joined(parts)
    rows: dict[str, dict[str, dict[str, float]]] = {"one window": {}, "APA": {}}
    for name, streams in whole.items():
        windows, labels = _windows(streams), np.tile(streams.labels.numpy(), len(STARTS_S))
        each = [score(np.log(p + 1e-12), labels) for p in windows.swapaxes(0, 1)]
        rows["one window"][name] = {key: float(np.mean([one[key] for one in each])) for key in METRICS}
        mean = score(np.log(windows.mean(1) + 1e-12), labels)
        rows["APA"][name] = {key: mean[key] for key in METRICS}
    return rows


def _windows(streams: Streams) -> np.ndarray:
    """Probabilities (starts x N, 18, 21) of the streams' windows, start by start."""
    columns = [start + HOP_S * np.arange(WINDOWS) for start in STARTS_S]
    return np.concatenate([streams.logits[:, c].double().softmax(-1).numpy() for c in columns])


_worker: dict[str, MiniBackbone] = {}


def _begin(cls: type[MiniBackbone], state: dict[str, torch.Tensor]) -> None:
    torch.set_num_threads(1)
    keep_freed_memory()
    _worker["backbone"] = cls()
    _worker["backbone"].load_state_dict(state)
    _worker["backbone"].eval()


def _streams(number: int, difficulty: Difficulty) -> dict[str, torch.Tensor]:
    scene = render_material(
        number, base_seed=CALIBRATION_SEED, categories=CATEGORIES, duration_s=STREAM_S, difficulty=difficulty
    )
    return scene_streams(_worker["backbone"], scene, np.random.default_rng([CALIBRATION_SEED, number, 2]))


def table(rows: dict[str, dict[str, dict[str, float]]]) -> str:
    """The measured rows and the paper's, for people."""
    lines = [
        (row, name, *(f"{scores[key]:.3f}" for key in METRICS))
        for row, by_category in rows.items()
        for name, scores in by_category.items()
    ]
    titles = [title_of(metric) for metric in METRICS]
    for name, place in PAPER.items():
        lines.append(("the paper's", name, *(f"{reported.value(*place, title):.3f}" for title in titles)))
    return tabulate(lines, headers=("", "", *titles), disable_numparse=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command above."""
    parser = argparse.ArgumentParser(prog="python -m avbench.training.calibrate")
    parser.add_argument("--difficulty", choices=tuple(DIFFICULTIES), default="hard")
    parser.add_argument("--model", default="sparsesync", help="the name of embedded backbone weights, or of --weights'")
    parser.add_argument("--weights", type=Path, help="a weight file of `avbench train`, made like the embedded --model")
    parser.add_argument("--scenes", type=int, default=90, help="of 100 s (default: 90, 30 a category)")
    parser.add_argument("--workers", type=int, default=1, help="processes (default: 1)")
    args = parser.parse_args(arguments)
    backbone = load_backbone(args.model, args.weights)
    print(table(measure(backbone, DIFFICULTIES[args.difficulty], args.scenes, args.workers)))


if __name__ == "__main__":
    main()
