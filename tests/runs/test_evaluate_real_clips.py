"""Real clips with imposed offsets: the recipe of benchmark/data/README.md, with every model that needs no fetched
weights. It shows that real files go through; the embedded weights know procedural clips only: no score is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from avbench.data.folders import find_media
from avbench.data.from_files import SegmentRules, TooShort, manifest_from_files
from avbench.engine.runner import Compute
from avbench.protocol.rules import streaming
from avbench.runs.evaluate import evaluate

REAL = Path(__file__).resolve().parents[3] / "shared" / "media" / "real"
MODELS = ("xcorr", "xcorr+apa", "constant", "sparsesync+apa", "synchformer+apa", "streamsync-trf", "streamsync-lstm")
KINDS = ("event", "face_no_talk", "talk")

pytestmark = pytest.mark.skipif(not REAL.is_dir(), reason="the real clips are not here (shared/media/real)")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("real") / "manifest"
    rules = SegmentRules(offset_law="uniform", start_law="grid:1")
    manifest, refused = manifest_from_files(find_media([REAL], out), out, rules, workers=2)
    assert all(isinstance(error, TooShort) for error in refused), [str(error) for error in refused]
    assert {clip.channel for clip in manifest.clips.values()} == set(KINDS)
    return out


@pytest.mark.slow
@pytest.mark.parametrize(
    "model", ["xcorr", "xcorr+apa", "constant", "sparsesync+apa", "synchformer+apa", "streamsync-trf"]
)
def test_every_model_that_needs_no_fetched_weights_runs_on_real_clips(model: str, folder: Path, tmp_path: Path) -> None:
    result: Any = evaluate(
        model,
        data=str(folder),
        protocol=streaming(hop_s=1, iterations=2),
        out=tmp_path / "run",
        compute=Compute(tmp_path / "store", workers=2),
    )
    assert result.failures == []
    assert result.n_scored > 50
    assert set(result.slices["channel"]) == set(KINDS)
    assert sum(part.n for part in result.slices["channel"].values()) == result.n_scored
