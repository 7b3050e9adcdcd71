"""What a model's code told torch about rounding: it changes nothing that is measured, and is there again afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from avbench.results.predictions import read_predictions
from avbench.system.precision import ON_CPU, ON_GPU, _read, _switches, exact_float32, gpu_rounds_float32

newer = pytest.mark.skipif(not _switches(*ON_GPU), reason="this torch has only the older switches")


def _state() -> list[Any]:
    older = _read(torch.get_float32_matmul_precision), _read(lambda: torch.backends.cudnn.allow_tf32)
    return [*older, *(switch.fp32_precision for switch in _switches(*ON_GPU, *ON_CPU))]


@pytest.fixture(autouse=True)
def _left_as_found() -> Iterator[None]:
    """These tests begin with torch's defaults, and so do those after them."""
    older, newer_ones = _state()[:2], _state()[2:]
    yield
    torch.set_float32_matmul_precision(older[0])
    torch.backends.cudnn.allow_tf32 = older[1]
    for switch, value in zip(_switches(*ON_GPU, *ON_CPU), newer_ones, strict=True):
        switch.fp32_precision = value
    assert _state() == [*older, *newer_ones]


SAID = [
    "pass",
    "torch.set_float32_matmul_precision('high')",
    "torch.set_float32_matmul_precision('medium')",
    "torch.backends.cuda.matmul.allow_tf32 = True",
    "torch.backends.cudnn.allow_tf32 = False",
    pytest.param("torch.backends.cuda.matmul.fp32_precision = 'tf32'", marks=[newer, pytest.mark.slow]),
    pytest.param("torch.backends.mkldnn.matmul.fp32_precision = 'bf16'", marks=[newer, pytest.mark.slow]),
    pytest.param("torch.backends.cudnn.conv.fp32_precision = 'ieee'", marks=newer),
    pytest.param("torch.backends.mkldnn.conv.fp32_precision = 'bf16'", marks=[newer, pytest.mark.slow]),
]


@pytest.mark.parametrize("said", SAID)
def test_inside_nothing_rounds_and_afterwards_all_is_as_it_was(said: str) -> None:
    exec(said)
    before = _state()
    with exact_float32():
        assert torch.get_float32_matmul_precision() == "highest"
        assert torch.backends.cuda.matmul.allow_tf32 is False
        assert torch.backends.cudnn.allow_tf32 is False
        assert {switch.fp32_precision for switch in _switches(*ON_GPU, *ON_CPU)} <= {"ieee"}
        assert not gpu_rounds_float32()
    assert _state() == before


@pytest.mark.parametrize("said", SAID)
def test_one_inside_another(said: str) -> None:
    exec(said)
    before = _state()
    with exact_float32():
        inside = _state()
        with pytest.raises(ZeroDivisionError), exact_float32():
            raise ZeroDivisionError
        assert _state() == inside
    assert _state() == before


def test_a_convolution_that_may_round_counts() -> None:
    torch.backends.cudnn.allow_tf32 = True
    assert gpu_rounds_float32()


NET = """
import numpy as np, torch
from avbench import FrontEnd, Snapshot, SnapshotPredictor

{said}

class Linear(SnapshotPredictor):
    frontend = FrontEnd(size=16)

    def __init__(self):
        self.layer = torch.nn.Linear(16 * 16, 21, bias=False)
        torch.nn.init.uniform_(self.layer.weight, generator=torch.Generator().manual_seed(3))

    def predict(self, video, audio):
        pictures = torch.from_numpy(np.asarray(video)).float().mean((1, 2)).flatten(1)
        return Snapshot(self.layer(pictures).detach().numpy())
"""


@pytest.mark.parametrize(
    "said",
    [
        pytest.param("torch.set_float32_matmul_precision('medium')", marks=pytest.mark.slow),
        pytest.param("torch.backends.cuda.matmul.fp32_precision = 'tf32'", marks=[newer, pytest.mark.slow]),
        pytest.param("torch.backends.mkldnn.matmul.fp32_precision = 'bf16'", marks=[newer, pytest.mark.slow]),
    ],
)
def test_a_model_file_that_wants_rounding_gets_the_figures_of_one_that_does_not(
    said: str, avbench_process: Callable[..., Any], clicks: Path, tmp_path: Path
) -> None:
    found = []
    for name, line in (("plain", ""), ("rounds", said)):
        (tmp_path / f"{name}.py").write_text(NET.format(said=line))
        options = ("--iterations", "1", "--n-resamples", "20", "--store", f"store-{name}", "--out", name)
        done = avbench_process("run", "--model", f"{name}.py:Linear+apa", "--data", clicks, *options)
        assert done.returncode == 0, done.stderr
        found.append(read_predictions(tmp_path / name / "predictions.parquet"))
    assert found[0][0] == found[1][0]
    np.testing.assert_array_equal(found[0][1], found[1][1])
