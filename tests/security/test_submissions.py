"""For any content of a submission's folder: one clear line, exit code 2, nothing run, nothing written outside."""

from __future__ import annotations

import copy
import hashlib
import io
import json
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from runs import make_run

from avbench.submissions.format import read_folder
from avbench.submissions.pack import pack

Avbench = Callable[..., "subprocess.CompletedProcess[str]"]
# "field: message", the field dotted, without anything that a terminal would act on
LINE = re.compile(r"(?:avbench: error: [\x20-\x7e]+: [^\x00-\x1f\x7f-\x9f]+\n)+")
# cloudpickle is not named: pyarrow imports it where it is installed; that nothing is unpickled is watched below
FORBIDDEN = ("torch", "avbench.engine.runner", "avbench.registry.names", "av", "yaml", "joblib", "dill")
# what evaluates text or bytes as code; calls of these are counted while a check runs
WATCHED = (
    "import",
    "exec",
    "compile",
    "pickle.find_class",
    "subprocess.Popen",
    "os.system",
    "os.exec",
    "socket.connect",
)


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("packed")
    make_run(root / "run")
    return pack(root / "run", root / "entries", "acme", "toy", {"revision": "v1", "paper_url": "https://example.org/p"})


def test_the_checker_imports_nothing_that_runs_models_or_pickles(packed: Path, tmp_path: Path) -> None:
    code = (
        "import json, sys\n"
        "from avbench.cli import main\n"
        "code = main(['submit', 'check', sys.argv[1], '--json'])\n"
        "print(json.dumps(sorted(sys.modules)), file=sys.stderr)\n"
        "sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code, packed], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    loaded = json.loads(done.stderr.splitlines()[-1])
    assert "avbench.submissions.check" in loaded
    assert "pyarrow.parquet" in loaded
    assert [name for name in FORBIDDEN if name in loaded] == []


def test_reading_a_submission_executes_nothing(packed: Path, tmp_path: Path) -> None:
    """Python's own audit events: between the first byte and the verdict nothing is compiled, unpickled or started."""
    code = """
import sys
from avbench.submissions.check import check
check(sys.argv[1], n_resamples=5)  # so that every import happens now
seen = []
sys.addaudithook(lambda event, args: seen.append(event))
report = check(sys.argv[1], n_resamples=5)
assert report.ok, report.errors
print(sorted(set(seen)))
"""
    done = subprocess.run([sys.executable, "-c", code, packed], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    seen = done.stdout
    assert "open" in seen  # the hook works
    assert [event for event in WATCHED if f"'{event}'" in seen] == [], seen


def test_the_source_neither_unpickles_nor_evaluates() -> None:
    import avbench.submissions

    sources = [p for root in avbench.submissions.__path__ for p in Path(root).glob("*.py")]
    assert {p.name for p in sources} >= {"check.py", "format.py", "tracks.py", "pack.py", "push.py"}
    never = re.compile(r"\b(pickle|eval\(|exec\(|(?<!re\.)compile\(|__import__|yaml|allow_pickle)")
    for path in sources:
        assert not never.search(path.read_text()), path


# -- mutated submissions -----------------------------------------------------------------------------------------------


class Mutator:
    """Damages a sound submission in one of many ways; the same number gives the same damage."""

    def __init__(self, packed: Path) -> None:
        self.document = json.loads((packed / "submission.json").read_text())
        self.predictions = (packed / "predictions.parquet").read_bytes()
        self.table = pq.read_table(io.BytesIO(self.predictions))
        self.parts = packed.parts[-3:]

    def write(self, root: Path, number: int) -> Path:
        rng = random.Random(number)
        document, predictions, text = copy.deepcopy(self.document), self.predictions, None
        folder = root.joinpath(*self.parts)
        folder.mkdir(parents=True)
        kind = rng.choice(("field", "field", "field", "text", "bytes", "bytes", "table", "table", "files"))
        if kind == "field":
            for _ in range(rng.choice((1, 1, 1, 3))):
                self._field(document, rng)
        elif kind == "bytes":
            predictions = self._bytes(predictions, rng)
        elif kind == "table":
            predictions = self._table(rng)
        if kind in ("bytes", "table") and rng.random() < 0.9:  # otherwise only the hash would be checked
            info = document["files"]["predictions"]
            info["sha256"], info["bytes"] = hashlib.sha256(predictions).hexdigest(), len(predictions)
        text = json.dumps(document).encode()
        if kind == "text":
            text = self._bytes(text, rng)
        (folder / "submission.json").write_bytes(text)
        (folder / "predictions.parquet").write_bytes(predictions)
        if kind == "files":
            self._files(folder, rng)
        return folder

    def _field(self, document: dict[str, Any], rng: random.Random) -> None:
        """Another value, no value, or a further key somewhere in the tree."""
        node: Any = document
        while True:
            keys = list(node) if isinstance(node, dict) else list(range(len(node)))
            if not keys:
                break
            key = rng.choice(keys)
            if isinstance(node[key], dict | list) and node[key] and rng.random() < 0.8:
                node = node[key]
                continue
            action = rng.random()
            if action < 0.75:
                node[key] = self._value(node[key], rng)
            elif action < 0.9:
                del node[key]
            elif isinstance(node, dict):
                node[self._text(rng)] = self._value(None, rng)
            break

    def _value(self, old: Any, rng: random.Random) -> Any:
        near = []
        if isinstance(old, int | float) and not isinstance(old, bool):
            near = [old + 1, -old, old * 1e9, float(old) + 0.001, str(old), 2**70]
        if isinstance(old, str):
            near = [
                old + "x",
                old[:-1],
                old.upper(),
                old * 300,
                old + "\n",
                f"../{old}",
                f"/{old}",
                old.replace("a", "<b>"),
            ]
        return rng.choice(
            [
                *near,
                *near,
                None,
                True,
                0,
                -1,
                1e308,
                5e-324,
                2**63,
                "",
                [],
                {},
                [[[]]],
                {"a": {"b": 1}},
                self._text(rng),
            ]
        )

    def _text(self, rng: random.Random) -> str:
        hostile = (
            "<script>",
            "javascript:alert(1)",
            "../../x",
            "/etc/passwd",
            "C:\\x",
            "\x1b[2J",
            "\u202e",
            "con",
            "a\0b",
        )
        noise = "".join(
            chr(rng.choice((rng.randrange(32, 127), rng.randrange(0x3000)))) for _ in range(rng.randrange(12))
        )
        return rng.choice((*hostile, noise))

    def _bytes(self, data: bytes, rng: random.Random) -> bytes:
        changed = bytearray(data)
        action = rng.randrange(5)
        if action == 0:
            return bytes(changed[: rng.randrange(len(changed))])
        if action == 1:
            at = rng.randrange(len(changed))
            return bytes(changed[:at] + rng.randbytes(rng.randrange(1, 40)) + changed[at:])
        if action == 2:
            at = rng.randrange(len(changed))
            return bytes(changed[:at] + changed[at + rng.randrange(1, 200) :])
        # the footer is where a parquet file's structure is: half of the flips go there
        start = max(0, len(changed) - 4000) if action == 3 else 0
        for _ in range(rng.choice((1, 2, 8, 64))):
            changed[rng.randrange(start, len(changed))] ^= 1 << rng.randrange(8)
        return bytes(changed)

    def _table(self, rng: random.Random) -> bytes:
        table, n = self.table, self.table.num_rows
        action = rng.randrange(8)
        if action == 0:
            table = table.slice(rng.randrange(n), rng.randrange(1, n))
        elif action == 1:
            table = pa.concat_tables([table, table.slice(rng.randrange(n), rng.randrange(1, 40))])
        elif action == 2:
            at, name = rng.randrange(n), f"logit_{rng.randrange(21)}"
            column = table[name].to_numpy().copy()
            column[at] = rng.choice((float("nan"), float("inf"), float("-inf")))
            table = table.set_column(table.schema.get_field_index(name), table.schema.field(name), pa.array(column))
        elif action == 3:
            column = table["iteration"].to_numpy().copy()
            column[rng.randrange(n)] = rng.choice((0, -1, 1, 19, 32767))
            table = table.set_column(1, table.schema.field(1), pa.array(column))
        elif action == 4:
            ids = table["segment_id"].to_pylist()
            ids[rng.randrange(n)] = rng.choice((self._text(rng), ids[0], ids[-1], None))
            table = table.set_column(0, pa.field("segment_id", pa.string()), pa.array(ids, pa.string()))
        elif action == 5:
            table = table.drop_columns([rng.choice(table.column_names)])
        elif action == 6:
            name = rng.choice(table.column_names[1:])
            kind = rng.choice((pa.float64(), pa.string(), pa.int32()))
            at = table.schema.get_field_index(name)
            table = table.set_column(at, name, table[name].cast(kind, safe=False))
        else:
            order = rng.sample(table.column_names, len(table.column_names))
            table = table.select(order)
        sink = io.BytesIO()
        pq.write_table(table, sink, compression=rng.choice(("zstd", "snappy", "gzip", "none")))
        return sink.getvalue()

    def _files(self, folder: Path, rng: random.Random) -> None:
        name = rng.choice(("submission.json", "predictions.parquet"))
        action = rng.randrange(6)
        if action == 0:
            (folder / name).unlink()
        elif action == 1:
            target = folder.parents[3] / "target"
            (folder / name).rename(target)
            (folder / name).symlink_to(target)
        elif action == 2:
            (folder / name).unlink()
            (folder / name).mkdir()
        elif action == 3:
            (folder / rng.choice(("x.py", "latency.json", ".git", "a\nb", "\x1b[0m"))).write_text("{}")
        elif action == 4:
            folder.rename(folder.with_name(rng.choice(("other", "synthsync-test-hop3", "x" * 200))))
        else:
            with open(folder / name, "ab") as file:
                file.truncate(rng.choice((10, 300_000_000)))


def snapshot(root: Path) -> dict[str, tuple[int, int]]:
    """Every file and folder below ``root``: size and time of change."""
    found = {}
    for path in root.rglob("*"):
        facts = path.lstat()
        found[str(path)] = (facts.st_size, facts.st_mtime_ns)
    return found


def survives(mutator: Mutator, avbench: Avbench, root: Path, number: int) -> bool:
    """Checks one mutated submission; whether it was refused. What was not changed in meaning may pass."""
    place = root / "arena"
    folder = mutator.write(place / "entries", number)
    folder = folder if folder.exists() else next(p for p in folder.parent.iterdir())
    before = snapshot(root)
    done = avbench("submit", "check", folder, "--n-resamples", "0")
    assert snapshot(root) == before, f"mutation {number} made the checker write"
    shutil.rmtree(place)
    assert "Traceback" not in done.stderr, (number, done.stderr)
    if done.returncode == 0:
        assert all(line.startswith("avbench: note: ") for line in done.stderr.splitlines()), number
        return False
    assert done.returncode == 2, (number, done.stderr)
    assert LINE.fullmatch(done.stderr), (number, done.stderr)
    return True


def run_mutations(packed: Path, avbench: Avbench, root: Path, numbers: range) -> int:
    mutator = Mutator(packed)
    return sum(survives(mutator, avbench, root, number) for number in numbers)


def test_150_mutated_submissions(packed: Path, avbench: Avbench, tmp_path: Path) -> None:
    refused = run_mutations(packed, avbench, tmp_path, range(150))
    assert refused > 120  # the others were changed where it does not matter (an optional field, the order of columns)


@pytest.mark.slow
def test_10000_mutated_submissions(packed: Path, avbench: Avbench, tmp_path: Path) -> None:
    refused = run_mutations(packed, avbench, tmp_path, range(1000, 11_000))
    assert refused > 8000


def test_a_sound_submission_passes_the_same_gate(packed: Path, avbench: Avbench) -> None:
    assert avbench("submit", "check", packed, "--n-resamples", "0").returncode == 0
    assert set(read_folder(packed).content) == {"predictions.parquet"}
