"""Any bytes in a media file: a result or one line, in bounded memory and time; nobody dies of them but a worker's file.

A fault is reported with its seed: ``break_file(files, seed)`` (tests/support/broken_media.py) makes the same file.
"""

from __future__ import annotations

import mmap
from collections import Counter
from pathlib import Path

import pytest
from broken_media import Outcome, break_file, reading, whole_files

from avbench.system.workers import Lost, Pool

LIMIT_S = 120  # of one file, on the slowest and busiest machine; they take some 20 ms
# above what the process holds before; 50 times what whole files of this kind take (5 MiB), and what an uncompressed
# hour of 16 kHz mono sound takes, as floats
MOST_MIB = 256


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return whole_files(tmp_path_factory.mktemp("whole"))


def outcomes_of(paths: list[Path]) -> dict[Path, list[Outcome] | Lost]:
    """What came of reading each file, in a worker."""
    return dict(Pool[Path, list[Outcome]](reading, 1, timeout_of=limit_s, quiet=True).run(paths))


def limit_s(path: Path) -> float:
    return LIMIT_S


def faults(files: list[Path], folder: Path, seeds: range) -> tuple[list[str], Counter[str]]:
    """What is wrong, in words with the seed, and how often which outcome was right."""
    made = {}
    for seed in seeds:
        broken = break_file(files, seed)
        path = folder / broken.name
        path.write_bytes(broken.data)
        made[path] = broken
    wrong, right = [], Counter[str]()
    for path, outcomes in outcomes_of(list(made)).items():
        how = made[path].how
        if isinstance(outcomes, Lost):
            wrong.append(f"{how}: {outcomes.reason}")
            continue
        for one in outcomes:
            if one.kind == "bug":
                wrong.append(f"{how}: {one.text.strip().splitlines()[-1]}\n{one.text}")
            elif one.kind == "refused" and not (one.text.isprintable() and 0 < len(one.text) < 500):
                wrong.append(f"{how}: refused with {one.text!r}")
            elif one.mib > MOST_MIB:
                wrong.append(f"{how}: {one.mib:.0f} MiB to read {len(made[path].data)} bytes")
            else:
                right[one.kind] += 1
    return wrong, right


def test_whole_files_are_read_or_refused_in_words(files: list[Path]) -> None:
    outcomes = outcomes_of(files)
    assert not [got for got in outcomes.values() if isinstance(got, Lost)]
    kinds = {path.name: [one.kind for one in got] for path, got in outcomes.items() if not isinstance(got, Lost)}
    for name in ("h264_aac.mp4", "fragments.mp4", "vp9_opus.mkv", "h264_flac.mkv", "h264_aac.ts", "mpeg4_mp3.avi"):
        assert kinds[name] == ["read", "read"], name
    for name in ("sound.ogg", "sound.wav"):
        assert kinds[name] == ["refused", "refused"], name
    assert {kind for both in kinds.values() for kind in both} == {"read", "refused"}


def test_the_same_seed_breaks_in_the_same_way(files: list[Path]) -> None:
    broken = [break_file(files, seed) for seed in range(60)]
    assert broken == [break_file(files, seed) for seed in range(60)]
    whole = {path.name: path.read_bytes() for path in files}
    assert {one.how.split()[2].strip(",") for one in broken} == set(whole)
    assert sum(one.data != whole[one.name.partition("_")[2]] for one in broken) > 55


def test_broken_files_end_in_a_result_or_in_one_line(files: list[Path], tmp_path: Path) -> None:
    wrong, right = faults(files, tmp_path, range(20))
    assert wrong == []
    assert set(right) == {"read", "refused"}


@pytest.mark.slow
@pytest.mark.parametrize("first", range(100, 400, 50))
def test_many_broken_files(files: list[Path], tmp_path: Path, first: int) -> None:
    wrong, _ = faults(files, tmp_path, range(first, first + 50))
    assert not wrong, "\n\n".join(wrong)


def test_what_a_broken_file_may_do_is_noticed(files: list[Path], tmp_path: Path) -> None:
    """The worker's own rules: a traceback is a bug, more memory than the limit is refused, and both are told."""
    from broken_media import outcome_of

    def bug(path: Path) -> None:
        raise IndexError(f"no stream in {path}")

    def greedy(path: Path) -> str:
        with mmap.mmap(-1, 2**26) as held:  # not from the heap, which may keep what earlier tests have freed
            held[:: mmap.PAGESIZE] = b"x" * (len(held) // mmap.PAGESIZE)
            return f"{len(held)}"

    assert outcome_of(bug, files[0]).kind == "bug"
    assert "IndexError: no stream in" in outcome_of(bug, files[0]).text
    assert outcome_of(greedy, files[0]).mib > 60
