"""Where a training is logged to, besides the terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from avbench.training.common import Told, tell_numbers
from avbench.training.logging_to import LOGGERS, logger
from avbench.types import UsageError

NUMBERS = {"step": 3, "acc": 0.5, "loss": 2, "stage": "words are left out"}
SETTINGS = {"steps": 4, "seed": 0}


def no_bar(*_: object) -> None:
    pass


def train(where: str | None, folder: Path) -> None:
    """What a training does with it."""
    with logger(where, folder, "lstm on xcorr", SETTINGS) as log:
        bar: Any = no_bar
        say = Told(print, bar, log)
        tell_numbers(say, NUMBERS, "toy/")
        tell_numbers(say, {**NUMBERS, "step": 4}, "toy/")


def test_tensorboard_reads_it_back(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="the extra tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train("tensorboard", tmp_path)
    found = EventAccumulator(str(tmp_path / "tensorboard" / "lstm on xcorr")).Reload()
    assert set(found.Tags()["scalars"]) == {"toy/acc", "toy/loss"}
    assert [(event.step, event.value) for event in found.Scalars("toy/acc")] == [(3, 0.5), (4, 0.5)]
    assert found.Tags()["tensors"] == ["settings/text_summary"]


def test_nothing_is_written_before_there_is_a_number(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="the extra tensorboard is not installed")
    with logger("tensorboard", tmp_path, "refused", {}):
        pass
    assert list(tmp_path.iterdir()) == []


def fake_wandb(calls: list[Any]) -> ModuleType:
    module: Any = ModuleType("wandb")
    run = SimpleNamespace(
        define_metric=lambda name, step_metric: calls.append((name, step_metric)),
        log=lambda numbers: calls.append(numbers),
        finish=lambda: calls.append("finish"),
    )
    module.init = lambda **settings: calls.append(settings) or run
    return module


def fake_trackio(calls: list[Any]) -> ModuleType:
    module: Any = ModuleType("trackio")
    module.init = lambda **settings: calls.append(settings)
    module.log = lambda numbers, step: calls.append({**numbers, "step": step})
    module.finish = lambda: calls.append("finish")
    return module


@pytest.mark.parametrize("fake", [fake_wandb, fake_trackio])
def test_the_others_are_told_the_same(
    fake: Callable[[list[Any]], ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []
    module = fake(calls)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    train(module.__name__, tmp_path)
    assert calls[0]["project"] == "avbench"
    assert calls[0]["name"] == "lstm on xcorr"
    assert calls[0]["config"] == SETTINGS
    assert [call for call in calls if isinstance(call, dict)][1:] == [
        {"toy/acc": 0.5, "toy/loss": 2.0, "step": step} for step in (3, 4)
    ]
    assert calls[-1] == "finish"


@pytest.mark.parametrize("where", list(LOGGERS))
def test_a_missing_library_is_one_line(where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, where, None)
    said = rf"--log-to {where} needs {where}: pip install 'avbench\[{where}\]'"
    with pytest.raises(UsageError, match=said), logger(where, tmp_path, "x", {}):
        pass


def test_without_it_nothing_is_logged(tmp_path: Path) -> None:
    train(None, tmp_path)
    tell_numbers(print, NUMBERS)  # a training may be told by print alone
    assert list(tmp_path.iterdir()) == []
