"""``--log-to``: what a training tells of itself, sent to TensorBoard, Weights & Biases or trackio as well. Each is an
extra of avbench, imported only where it is asked for."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from avbench.system.lazy import needed
from avbench.types import AvbenchError, in_one_line

PROJECT = "avbench"
Log = Callable[[Mapping[str, float], int], None]  # takes names -> numbers, and the step that they are of


@contextlib.contextmanager
def logger(where: str | None, folder: Path, name: str, settings: Mapping[str, Any]) -> Iterator[Log | None]:
    """What sends numbers to ``where`` (a key of ``LOGGERS``; None: there is none), closed at the end. ``folder``: of
    the training's output; ``name`` and ``settings``: of this training. ``UsageError`` if its library is missing,
    ``AvbenchError`` if it cannot begin."""
    if where is None:
        yield None
        return
    try:
        log, close = LOGGERS[where](folder, name, settings)
    except AvbenchError:
        raise
    except Exception as error:  # not logged in, no network: the library's own kinds
        raise AvbenchError(f"--log-to {where} cannot begin: {in_one_line(error)}") from error
    try:
        yield log
    finally:
        close()


def _tensorboard(folder: Path, name: str, settings: Mapping[str, Any]) -> tuple[Log, Callable[[], None]]:
    needed("tensorboard", "avbench[tensorboard]", "--log-to tensorboard needs")
    from torch.utils.tensorboard import SummaryWriter

    made: list[Any] = []

    def log(numbers: Mapping[str, float], step: int) -> None:
        if not made:  # a training that is refused leaves no folder
            made.append(SummaryWriter(str(folder / "tensorboard" / name)))
            made[0].add_text("settings", "\n".join(f"{key}: {value}  " for key, value in settings.items()))
        for key, number in numbers.items():
            made[0].add_scalar(key, number, step)

    def close() -> None:
        for writer in made:
            writer.close()

    return log, close


def _wandb(folder: Path, name: str, settings: Mapping[str, Any]) -> tuple[Log, Callable[[], None]]:
    wandb = needed("wandb", "avbench[wandb]", "--log-to wandb needs")
    run = wandb.init(project=PROJECT, name=name, dir=str(folder), config=dict(settings))
    run.define_metric("*", step_metric="step")  # it would refuse the steps of a second phase, which begin again at 1
    return (lambda numbers, step: run.log({**numbers, "step": step})), run.finish


def _trackio(folder: Path, name: str, settings: Mapping[str, Any]) -> tuple[Log, Callable[[], None]]:
    trackio = needed("trackio", "avbench[trackio]", "--log-to trackio needs")
    trackio.init(project=PROJECT, name=name, config=dict(settings))
    return (lambda numbers, step: trackio.log(dict(numbers), step=step)), trackio.finish


LOGGERS: dict[str, Callable[[Path, str, Mapping[str, Any]], tuple[Log, Callable[[], None]]]] = {
    "tensorboard": _tensorboard,
    "wandb": _wandb,
    "trackio": _trackio,
}
