"""`avbench paper` as its users meet it: files, what they say, and what a second run costs."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from avbench.data.dynamic import with_laws
from avbench.latency import measure as avbench_measure
from avbench.latency.record import LatencyRecord
from avbench.paper.changing import ON_THE_SAME, PROTOCOL, ROWS, TRAINED_FOR_IT
from avbench.paper.exhibits import CHANGING, FIG4_HOPS_S, NAMES, STREAMING_ROWS, TABLE3_ROWS, TABLE4_WINDOWS
from avbench.paper.figures import PAINTERS, SUFFIXES
from avbench.paper.records import TABLE5_ROWS
from avbench.protocol.manifest import read_manifest
from avbench.protocol.plan import keys_of
from avbench.protocol.rules import streaming
from avbench.registry.names import resolve
from avbench.runs.changing import without_laws
from avbench.types import UsageError

Avbench = Callable[..., subprocess.CompletedProcess[str]]
VERDICTS = {"holds", "does not hold", "not separable", "too few"}
TABLES = [streaming(hop_s, 48 if hop_s == 2 else 18) for hop_s in FIG4_HOPS_S]  # the settings of all tables
CELL = {"row", "column", "value", "ci_low", "ci_high", "n_scored", "n_total", "paper"}
CLAIM = {"claim", "verdict", "difference", "ci_low", "ci_high"}
FAST = ("--workers", "1", "--n-resamples", "20", "--latency-samples", "0")


def read(folder: Path, name: str) -> dict:
    def refuse(word: str) -> None:
        raise AssertionError(f"{name}: {word} is not strict JSON")

    return json.loads((folder / f"{name}.json").read_text(encoding="utf-8"), parse_constant=refuse)


def by(table: dict) -> dict[tuple[str, str], dict]:
    return {(c["row"], c["column"]): c for c in table["cells"]}


def known_rows() -> list[str]:
    """The rows of the chapter on changing offsets whose weights this avbench has."""

    def known(row: str) -> bool:
        try:
            return resolve(ROWS[row]).name == ROWS[row]
        except UsageError:
            return False

    return [row for row in ROWS if known(row)]


def added_windows(data: Path) -> int:
    """How many snapshots the chapter on changing offsets adds to those of the tables, for all backbones of its rows."""
    fixed = read_manifest(data)
    whole = with_laws(fixed)
    tables = [(s.clip_id, key) for s in fixed.segments for p in TABLES for key in keys_of(p, s)]
    chapter = {
        (s.clip_id, key) for m in (whole, without_laws(whole)) for s in m.segments for key in keys_of(PROTOCOL, s)
    }
    models = [resolve(ROWS[row]) for row in known_rows()]
    backbones = {model.backbone_name for model in models if model.load_backbone is not None}
    shared = {resolve(model).backbone_name for model in STREAMING_ROWS.values()}
    return sum(len(chapter - set(tables if name in shared else ())) for name in backbones)


@pytest.mark.slow
def test_everything_from_one_store_and_nothing_twice(
    avbench: Avbench, make_clicks: Callable[..., Path], tmp_path: Path
) -> None:
    data = make_clicks(clips=("one", "two"), duration_s=108, offsets_s=(0.4,))
    args = ("paper", "all", "--data", data, "--store", tmp_path / "store", *FAST)
    done = avbench(*args, "--out", tmp_path / "a")
    assert done.returncode == 0, done.stderr
    for name in NAMES:
        for suffix in (".md", ".tex", ".csv", ".json", *(SUFFIXES if name in PAINTERS else ())):
            assert (tmp_path / "a" / f"{name}{suffix}").stat().st_size > 0, name + suffix
    tables = {name: read(tmp_path / "a", name) for name in NAMES}
    for name, table in tables.items():
        assert table["cells"], name
        assert all(set(c) == CELL for c in table["cells"]), name
        assert all(set(c) == CLAIM and c["verdict"] in VERDICTS for c in table["claims"]), name
        if name != "table5":  # a record: its data are its own
            assert {c["n_total"] for c in table["cells"]} <= {2, 1, 0}, name

    table3 = by(tables["table3"])
    assert list(dict.fromkeys(row for row, _ in table3)) == list(TABLE3_ROWS)
    assert table3["oracle", "Acc"]["value"] == 1.0
    assert table3["StreamSync-LSTM", "mAP"]["paper"] == 0.632
    assert table3["constant", "mAP"]["paper"] is None
    assert table3["StreamSync-Trf", "ms"]["value"] is None
    settings = tables["table3"]["settings"]
    assert settings["pretrained SparseSync*"]["selection"] == "best_iter"
    assert settings["APA SparseSync"]["selection"] == "final"
    assert {column for _, column in by(tables["table4"])} == {str(n) for n in TABLE4_WINDOWS}
    assert {column for _, column in by(tables["fig4"])} == {
        f"{m}, {h:g} s" for m in ("Acc", "mAP") for h in FIG4_HOPS_S
    }
    # the same streams in two tables: 18 windows at hop 2 s
    assert by(tables["table6"])["overall", "mAP"]["value"] == table3["StreamSync-LSTM", "mAP"]["value"]
    assert by(tables["fig4"])["APA SparseSync", "mAP, 2 s"]["value"] == table3["APA SparseSync", "mAP"]["value"]
    shares = [c["value"] for c in tables["fig2"]["cells"] if c["row"].startswith("share of windows by signed")]
    assert len(shares) == 41
    assert sum(shares) == pytest.approx(1)

    with (tmp_path / "a" / "table3.csv").open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == len(tables["table3"]["cells"])
    assert {line["paper"] for line in lines if line["row"] == "oracle"} == {""}
    page = (tmp_path / "a" / "table3.md").read_text(encoding="utf-8")
    measured, paper = page.split("**Reported by the paper**")
    assert "0.632" not in measured
    assert "0.632" in paper
    assert "| oracle" in measured

    overview = (tmp_path / "a" / "paper.md").read_text(encoding="utf-8")
    listed = overview.split("## Which of the paper's orderings hold here")[1].split("\n## ")[0]
    claimed = [claim["claim"] for table in tables.values() for claim in table["claims"]]
    assert f"{len(claimed)} orderings on clicks test" in listed
    rows = [line for line in listed.splitlines() if line.startswith(("| table", "| fig", "| changing"))]
    assert len(rows) == len(claimed)

    # one pass for the union of all tables: 48 windows at 2 s, and what 18 at 1, 3 and 4 s add to them
    first = read(tmp_path / "a", "paper")
    unique = len({i * 2 for i in range(48)} | {i * h for h in (1, 3, 4) for i in range(18)})
    # two segments: three backbones need them all, sparsesync-pt, synchformer and synchformer+trf 18 windows each
    assert first["counters"]["snapshots_computed"] == 2 * (3 * unique + 3 * 18) + added_windows(data)
    assert tables[CHANGING]["measured_on"].startswith("clicks-dynamic test (click and flash, offsets that change")

    again = avbench(*args, "--out", tmp_path / "b", "--json")
    assert again.returncode == 0, again.stderr
    second = json.loads(again.stdout)
    assert second["counters"].get("snapshots_computed", 0) == 0
    assert second["counters"].get("clips_decoded", 0) == 0
    assert second["counters"]["snapshots_from_store"] >= first["counters"]["snapshots_computed"]
    for file in (f"{name}{suffix}" for name in NAMES for suffix in (".json", ".csv", ".md", ".tex")):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes(), file


@pytest.mark.slow
def test_what_the_paper_expected_on_data_whose_offsets_change(
    avbench: Avbench, make_clicks: Callable[..., Path], tmp_path: Path
) -> None:
    clips = make_clicks(clips=("one", "two"), duration_s=104, offsets_s=(0.0,))
    data = tmp_path / "dynamic"
    # two streams: one jumps, one holds
    made = avbench("data", "dynamic", clips, "--out", data, "--laws", "jump,hold", "--seed", "3")
    assert made.returncode == 0, made.stderr
    args = ("paper", "changing", "--data", data, "--store", tmp_path / "store", *FAST)
    done = avbench(*args, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    files = {path.name for path in (tmp_path / "out").iterdir()}
    made_of = {f"{CHANGING}{suffix}" for suffix in (".md", ".tex", ".csv", ".json", *SUFFIXES)}
    assert files == {*made_of, "paper.md", "paper.json", "index.html"}
    assert "does a learned head react faster than averaging?" in done.stdout.lower()
    assert '"could possibly adapt faster" (section 4)' in done.stdout

    table = read(tmp_path / "out", CHANGING)
    cells = by(table)
    rows = list(dict.fromkeys(row for row, _ in cells))
    assert rows[: len(known_rows()) - len(ON_THE_SAME)] == [r for r in known_rows() if r not in ON_THE_SAME.values()]
    assert any("only the heads differ" in note for note in table["notes"]) == (
        not set(rows) & set(ON_THE_SAME.values())
    )
    assert {c["paper"] for c in table["cells"]} == {None}
    assert cells["oracle", "tracked"]["value"] == 1
    assert cells["oracle", "Acc, held"] == {
        **{"row": "oracle", "column": "Acc, held", "value": 1.0, "ci_low": 1.0, "ci_high": 1.0},
        **{"n_scored": 1, "n_total": 2, "paper": None},
    } | {key: cells["oracle", "Acc, held"][key] for key in ("ci_low", "ci_high")}  # of one video there is none
    assert cells["constant", "false/h"]["value"] == 0
    assert {c["verdict"] for c in table["claims"]} <= VERDICTS
    assert {q["section"] for q in table["quotations"]} == {"4", "6"}
    lacking = [row for row in TRAINED_FOR_IT.values() if row not in known_rows()]
    assert len([note for note in table["notes"] if note.startswith("Missing")]) == bool(lacking)
    assert f"![{table['title']}](changing.svg)" in (tmp_path / "out" / "paper.md").read_text(encoding="utf-8")

    again = avbench(*args, "--out", tmp_path / "again")
    assert again.returncode == 0, again.stderr
    assert "0 backbone forwards" in again.stdout
    for name in files - {"paper.md", "paper.json", "index.html", "changing.png"}:
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "again" / name).read_bytes(), name

    # tables that take offsets for fixed: refused alone, empty beside others
    refused = avbench("paper", "table4", "table6", "--data", data, "--out", tmp_path / "no", *FAST)
    assert refused.returncode == 2
    assert "table4, table6 take them for fixed: name changing" in refused.stderr
    beside = avbench("paper", "table4", "fig1", "--data", data, "--out", tmp_path / "beside", *FAST)
    assert beside.returncode == 0, beside.stderr
    table4 = read(tmp_path / "beside", "table4")
    assert {c["value"] for c in table4["cells"]} == {None}
    assert "change while the streams run" in table4["notes"][0]


def test_clips_too_short_for_changing_offsets_are_said_and_stop_nothing_else(
    avbench: Avbench, clicks: Path, tmp_path: Path
) -> None:
    alone = avbench("paper", "changing", "--data", clicks, "--out", tmp_path / "a", *FAST)
    assert alone.returncode == 2
    assert "no clip of clicks is long enough" in alone.stderr
    done = avbench("paper", "changing", "fig1", "--data", clicks, "--out", tmp_path / "b", *FAST)
    assert done.returncode == 0, done.stderr
    table = read(tmp_path / "b", CHANGING)
    assert {c["value"] for c in table["cells"]} == {None}
    assert "no clip of clicks is long enough" in table["notes"][0]


def test_statistics_and_records_need_no_model(avbench_process: Avbench, clicks: Path, tmp_path: Path) -> None:
    done = avbench_process("paper", "table1", "table2", "fig1", "table5", "--data", clicks, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    table1, table2, fig1 = (by(read(tmp_path / "out", name)) for name in ("table1", "table2", "fig1"))
    assert (tmp_path / "out" / "fig1.pdf").read_bytes().startswith(b"%PDF")
    assert r"\toprule" in (tmp_path / "out" / "table1.tex").read_text(encoding="utf-8")
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert all(f'id="{name}"' in page for name in ("table1", "table2", "fig1", "table5"))
    assert table1["videos", "data set"]["value"] == 2
    assert table1["videos", "data set"]["paper"] == 670
    assert table2["all", "clips"]["value"] == 2
    assert table2["NHL", "clips"] == {
        **{"row": "NHL", "column": "clips", "value": None, "ci_low": None, "ci_high": None},
        **{"n_scored": 4, "n_total": 4, "paper": 1181},
    }
    assert sum(c["value"] for (row, _), c in fig1.items() if row == "segments by offset (s)") == 4
    assert {row for row, _ in by(read(tmp_path / "out", "table5"))} == set(TABLE5_ROWS)


def test_a_table_that_no_segment_can_hold_says_so(avbench: Avbench, clicks: Path, tmp_path: Path) -> None:
    """14 s clips hold five windows at 2 s: with a table that needs none there is something to write."""
    done = avbench("paper", "table4", "fig1", "--data", clicks, "--out", tmp_path / "out", *FAST)
    assert done.returncode == 0, done.stderr
    table = read(tmp_path / "out", "table4")
    assert {c["value"] for c in table["cells"]} == {None}
    assert {(c["n_scored"], c["n_total"]) for c in table["cells"]} == {(0, 4)}
    assert "No segment of this split holds 48 windows" in (tmp_path / "out" / "table4.md").read_text()


OWN_NET = """
import numpy as np
from avbench import FrontEnd, Snapshot, SnapshotPredictor

class A_B(SnapshotPredictor):
    frontend, uses_torch = FrontEnd(size=32), False

    def __init__(self, best: int = 3) -> None:
        self.best = best

    def predict(self, video, audio):
        return Snapshot(np.tile(np.eye(21, dtype=np.float32)[self.best], (len(video), 1)))
"""


def test_own_models_get_marked_rows_in_tables_figures_and_page(
    avbench: Avbench, make_clicks: Callable[..., Path], tmp_path: Path
) -> None:
    data = make_clicks(clips=("one",), duration_s=44, offsets_s=(0.4,))
    (tmp_path / "my_net.py").write_text(OWN_NET)
    model = ("--model", f"{tmp_path / 'my_net.py'}:A_B+apa", "--model-args", "best=12")  # audio 0.4 s early
    done = avbench("paper", "table6", "table1", *model, "--data", data, "--out", tmp_path / "out", *FAST)
    assert done.returncode == 0, done.stderr
    own, out = "† my_net.py:A_B+apa (yours)", tmp_path / "out"
    table6 = by(read(out, "table6"))
    assert table6[f"overall, {own}", "Acc"]["value"] == 1.0, "its constructor got the argument"
    assert table6[f"overall, {own}", "Acc"]["paper"] is None
    assert table6["overall", "mAP"]["paper"] == 0.632
    assert read(out, "table6")["own"] == [own]
    assert r"overall, $\dagger$ my\_net.py:A\_B+apa (yours) & 1.000" in (out / "table6.tex").read_text(encoding="utf-8")
    page = (out / "index.html").read_text(encoding="utf-8")
    assert f'<tr class="run"><th scope="row">overall, {own}</th>' in page
    assert str(tmp_path) not in page, "folders are nobody's business"
    assert "written: 2 of 2 tables and figures" in done.stderr
    again = ("paper", "table6", "table1", *model, "--data", data, "--out", tmp_path / "out")
    assert avbench(*again, *FAST).returncode == 0, "the same is made anew"
    kept = (out / "paper.json").read_bytes()
    assert str(tmp_path).encode() not in kept
    other = make_clicks("other", clips=("two",), duration_s=44, offsets_s=(0.4,))
    for words, lost in (
        (("table6", *model), "with table1"),
        (("table6", "table1"), "with my_net.py:A_B+apa"),
        (("table6", "table1", *model[:3], "best=11"), "with model_args {'best': '12'}"),
        (("table6", "table1", *model, "--dtype", "bfloat16"), "with dtype float32"),
        (("table6", "table1", *model, "--seed", 3), "with seed 0"),
        (("table6", "table1", *model, "--data", other), "of other data: clicks test, "),
    ):
        lossy = avbench("paper", "--data", data, "--out", out, *FAST, *words)
        assert (lossy.returncode, lossy.stderr.count("\n")) == (2, 1), lossy.stderr
        assert f"{out} already holds a reproduction ({lost}" in lossy.stderr
    assert (out / "paper.json").read_bytes() == kept
    assert avbench("paper", "table6", "--data", data, "--out", out, *FAST, "--force").returncode == 0
    refused = avbench("paper", "table1", *model, "--data", data, "--out", tmp_path / "no", *FAST)
    assert refused.returncode == 2
    assert "--model adds no row to table1; it does to table3" in refused.stderr
    assert not (tmp_path / "no").exists()


@pytest.mark.slow
def test_own_models_are_timed_too_once_all_tables_are_written(
    avbench: Avbench, make_clicks: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = make_clicks(clips=("one", "two"), duration_s=108, offsets_s=(0.4,))
    (tmp_path / "my_net.py").write_text(OWN_NET)
    out, timed = tmp_path / "out", []

    def measure(name: str, *given: object, **named: object) -> LatencyRecord:
        timed.append((name, (out / "table4.tex").exists() and "–" in (out / "table3.md").read_text(encoding="utf-8")))
        return really(name, *given, **named)  # type: ignore[arg-type]

    really = avbench_measure.measure
    monkeypatch.setattr(avbench_measure, "measure", measure)
    model = f"{tmp_path / 'my_net.py'}:A_B+apa"
    names = ("table3", "table4", "fig2", "fig4", CHANGING)
    args = ("--model", model, "--workers", "1", "--n-resamples", "20", "--latency-samples", "2")
    done = avbench("paper", *names, *args, "--data", data, "--out", out)
    assert done.returncode == 0, done.stderr
    assert all(written for _, written in timed)
    assert timed[-1][0] == model
    assert f"timing models: {len(timed)} of {len(timed)} models" in done.stderr
    own = "† my_net.py:A_B+apa (yours)"
    table3, table4, fig2, fig4, chapter = (by(read(out, name)) for name in names)
    assert table3[own, "ms"]["value"] > 0
    assert table3["StreamSync-Trf", "ms"]["value"] > 0
    assert {column for row, column in table4 if row == own} == {str(n) for n in TABLE4_WINDOWS}
    assert table4[own, "48"]["n_scored"] == 2
    errors = "share of windows by signed class error"
    for row in (errors, f"{errors}, {own}"):
        assert sum(c["value"] for (name, _), c in fig2.items() if name == row) == pytest.approx(1)
    assert fig4[own, "Acc, 2 s"]["value"] == table3[own, "Acc"]["value"]
    assert chapter[own, "tracked"]["value"] is not None
    notes = read(out, "table3")["notes"]
    assert any(note.startswith(f"{own} minus APA SparseSync, paired: Acc") for note in notes)
    for name in ("fig2", "fig4", CHANGING):
        assert (out / f"{name}.pdf").read_bytes().startswith(b"%PDF")
        assert own.encode() in (out / f"{name}.svg").read_bytes()


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("table3", "--model", "xcor"), "unknown model 'xcor'"),
        (("table3", "--model", "xcorr,constant"), "separate several by spaces"),
        (("table3", "--model", "xcorr", "--model-args", "a=1"), "class of your own"),
        (("table7",), "there is no 'table7' in the paper; did you mean table6"),
        (("table3",), "no segment of clicks is long enough for table3"),
        (("table1", "--limit", "0"), "limit is 0"),
        (("table1", "--split", "holdout"), "holdout"),
        (("table1", "--workers", "0"), "workers is 0"),
        (("table1", "--n-resamples", "-1"), "n_resamples is -1"),
        (("table1", "--latency-samples", "-1"), "latency_samples is -1"),
    ],
)
def test_bad_requests_are_one_line(
    avbench: Avbench, clicks: Path, tmp_path: Path, args: tuple[str, ...], said: str
) -> None:
    done = avbench("paper", *args, "--data", clicks, "--out", tmp_path / "out")
    assert done.returncode == 2
    (line,) = [text for text in done.stderr.splitlines() if text.startswith("avbench: error:")]
    assert said in line
    assert "Traceback" not in done.stderr


def test_a_folder_that_cannot_be_written_is_said_at_once(avbench: Avbench, clicks: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = avbench("paper", "table1", "--data", clicks, "--out", tmp_path / "file" / "out")
    assert done.returncode == 1
    assert "choose another folder with --out" in done.stderr


def test_the_rooms_of_the_paper_import_without_torch() -> None:
    code = (
        "import sys, avbench.paper.regenerate, avbench.paper.records, avbench.paper.reported; "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
