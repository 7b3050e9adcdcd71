"""What the trainings share: one optimiser step, checkpoints, the choice of the best validation, facts for the cards."""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from avbench import __version__
from avbench.scoring.dynamic import SHOWN
from avbench.scoring.metrics import METRICS
from avbench.system.atomic import atomic_write_bytes
from avbench.system.progress import Progress
from avbench.types import UsageError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Say = Callable[[str], None]  # takes one line about the training's progress


@dataclass(frozen=True)
class Told:
    """A :data:`Say` that is told of every step, too: ``progress`` shows a bar; and of every number, which ``log`` sends
    on (see ``training.logging_to``)."""

    say: Say
    progress: Progress
    log: Callable[[Mapping[str, float], int], None] | None = None

    def __call__(self, line: str) -> None:
        self.say(line)


def tell_step(say: Say, done: int, total: int, stage: str = "training") -> None:
    """Moves the bar, if somebody shows one."""
    if isinstance(say, Told):
        say.progress(stage, done, total, "")


def tell_numbers(say: Say, numbers: Mapping[str, Any], stage: str = "") -> None:
    """Sends numbers, of which "step" is one, to where the training is logged; ``stage``: put before their names."""
    if isinstance(say, Told) and say.log is not None:
        named = {stage + key: float(n) for key, n in numbers.items() if key != "step" and isinstance(n, int | float)}
        say.log(named, int(numbers["step"]))


def validated(scores: Mapping[str, float]) -> str:
    """Scores of a validation under the names of tables, each with that of averaging (APA) where that is known."""
    names = [name for name in scores if name != "step" and not name.startswith("apa_")]
    apa = {name: f" (APA {scores[f'apa_{name}']:g})" if f"apa_{name}" in scores else "" for name in names}
    titles = {name: column.title for name, column in {**METRICS, **SHOWN}.items()}
    return ", ".join(f"{titles.get(name, name)} {scores[name]:g}{apa[name]}" for name in names)


def what_was_kept(name: str, log: Sequence[dict[str, float]]) -> Iterator[str]:
    """Which step's weights a training kept, and a warning if averaging alone is better."""
    kept = best_validation(log)
    yield f"{name}: kept step {kept['step']} of {log[-1]['step']}: {validated(kept)}"
    if kept.get("apa_map", -math.inf) > _merit(kept):
        yield (
            f"warning: {name} is worse than averaging (APA): mAP {kept['map']:g} against {kept['apa_map']:g} on the "
            "validation streams; use +apa, or train longer or on more clips"
        )


def versions() -> dict[str, str]:
    """The versions a training's card records."""
    return {"avbench": __version__, "torch": torch.__version__}


def optimise(loss: Tensor, model: nn.Module, optimizer: torch.optim.Optimizer, rate: float) -> None:
    """One optimiser step at learning rate ``rate``; the gradient's norm is clipped to 1."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()


def best_validation(log: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """The line with the highest mAP or, for offsets that change, the highest ``tracked_acc_tol1``; the first of equals.
    Its scores are the line itself or under "validation"."""
    return max(log, key=lambda line: _merit(line.get("validation", line)))


def _merit(scores: dict[str, float]) -> float:
    if "tracked_acc_tol1" in scores:
        return scores["tracked_acc_tol1"]
    return scores["map" if "map" in scores else "acc"]  # of one class alone there is no mAP


def signature_of(recipe: DataclassInstance) -> str:
    """The recipe as JSON: a checkpoint is continued only by the recipe that wrote it."""
    return json.dumps(asdict(recipe))


def is_recorded(recorded: dict[str, Any], recipe: DataclassInstance) -> bool:
    """Whether the recipe on a card is this one. Fields that are younger than the card have their defaults."""
    today = json.loads(signature_of(recipe))
    return recorded.keys() <= today.keys() and json.loads(signature_of(type(recipe)(**recorded))) == today


def read_checkpoint(path: Path, signature: str) -> dict[str, Any] | None:
    """The state saved at ``path``; None if there is none. ``UsageError`` if another recipe wrote it."""
    if not path.exists():
        return None
    saved = load_checkpoint(path)
    if saved["recipe"] != signature:
        what = differences(saved["recipe"], signature)
        raise UsageError(f"{path} belongs to a training with another recipe ({what}): delete it to start again")
    return saved


def load_checkpoint(path: Path) -> dict[str, Any]:
    """The state saved at ``path``. ``UsageError`` if that is no checkpoint of a training."""
    try:
        saved = torch.load(path, weights_only=True, map_location="cpu")  # it may be of a device that is not here
        json.loads(saved["recipe"])
    except Exception as error:  # torch has no exception of its own for a damaged file
        raise UsageError(f"{path} is no checkpoint of a training: delete it to start again") from error
    return saved


def differences(there: str, asked: str) -> str:
    """What differs between two recipes as of :func:`signature_of`: ``"steps 5 there, 7 asked"``."""
    old, new = json.loads(there), json.loads(asked)

    def said(recipe: dict[str, Any], name: str) -> str:
        return re.sub(r"\b([0-9a-f]{12})[0-9a-f]{52}\b", r"\1", str(recipe.get(name, "nothing")))

    names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    return "; ".join(f"{name} {said(old, name)} there, {said(new, name)} asked" for name in names)


def save_checkpoint(path: Path, state: dict[str, object]) -> None:
    """Atomic: a training killed while saving keeps its previous checkpoint."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    atomic_write_bytes(path, buffer.getvalue())


class PhaseState:
    """Step, log and best weights of one phase of ``training.streaming``, read back from ``path`` if it exists.

    ``UsageError`` if the checkpoint belongs to another recipe.
    """

    def __init__(
        self, path: Path, recipe: DataclassInstance, model: nn.Module, optimizer: torch.optim.Optimizer
    ) -> None:
        self.path, self.signature = path, signature_of(recipe)
        self.model, self.optimizer = model, optimizer
        self.step = 0
        self.log: list[dict[str, float]] = []
        self.best: dict[str, Tensor] = {}
        if saved := read_checkpoint(path, self.signature):
            model.load_state_dict(saved["model"])
            optimizer.load_state_dict(saved["optimizer"])
            self.best, self.log, self.step = saved["best"], saved["log"], saved["step"]

    def note(self, scores: dict[str, float], keep: bool = False) -> None:
        """Log a validation of the present weights; they become the best if it is, or with ``keep``."""
        self.log.append(scores)
        if keep or best_validation(self.log) is scores:
            self.best = {key: tensor.clone() for key, tensor in self.model.state_dict().items()}

    def save(self) -> None:
        """Write the checkpoint."""
        state = {"recipe": self.signature, "model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        save_checkpoint(self.path, state | {"best": self.best, "log": self.log, "step": self.step})
