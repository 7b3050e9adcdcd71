"""JSON from anybody: what it costs to read is bounded by its length, and what is wrong with it is one short line."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pydantic import Field, ValidationError

import avbench.latency.record
import avbench.leaderboard.board
import avbench.results.run
import avbench.submissions.format
import avbench.submissions.tracks  # noqa: F401 (all records are defined)
from avbench.latency.record import parse_latency
from avbench.system.strict import Many, Named, StrictPart, parse_json, parse_record
from avbench.types import UsageError

N = 200_000  # bytes
BOMBS: dict[str, Callable[[int], bytes]] = {
    "lists": lambda n: b"[" + b"[]," * (n // 3) + b"[]]",
    "objects": lambda n: b"[" + b"{}," * (n // 3) + b"{}]",
    "objects with an entry": lambda n: b"[" + b'{"":0},' * (n // 7) + b"{}]",
    "nested": lambda n: b"[" * (n // 2) + b"]" * (n // 2),
    "numbers": lambda n: b"[" + b"1.5," * (n // 4) + b"1.5]",
    "words": lambda n: b"[" + b'"ab",' * (n // 5) + b'"ab"]',
    "keys": lambda n: b"{" + b",".join(b'"%x":1' % i for i in range(n // 9)) + b"}",
    "one long text": lambda n: '["\U0001f600'.encode() + b"a" * n + b'"]',
    "a long number": lambda n: b"[" + b"9" * n + b"]",
}


class Part(StrictPart):
    """Two numbers."""

    a: int
    b: int


class Whole(StrictPart):
    """Lists and maps of everything."""

    schema_version: int = 1
    numbers: Many[float] = Field(default_factory=list)
    parts: Many[Part] = Field(default_factory=list)
    named: Named[str, Part] = Field(default_factory=dict)
    deep: Named[str, Named[str, Part]] = Field(default_factory=dict)
    lists: Many[Many[int]] = Field(default_factory=list)


def peak_of(call: Callable[[], object]) -> tuple[int, str]:
    """The peak of memory in bytes, and the error's text ("": none)."""
    said = ""
    tracemalloc.start()
    try:
        call()
    except UsageError as error:
        said = str(error)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert "\n" not in said
    return peak, said


@pytest.mark.parametrize("name", BOMBS)
def test_json_takes_a_small_multiple_of_its_length(name: str) -> None:
    data = BOMBS[name](N)
    peak, said = peak_of(lambda: parse_json(data, "x.json"))
    assert peak <= 30 * len(data)
    assert bool(said) == (name in ("lists", "objects", "objects with an entry", "nested", "a long number"))


def test_what_people_write_is_read() -> None:
    document = {
        "rows": [{"id": f"s{i}", "pair": [i, i + 1], "map": {}} for i in range(5000)],
        "flat": list(range(10**5)),
    }
    assert parse_json(json.dumps(document, indent=2).encode(), "x") == document
    assert parse_json(json.dumps({"pairs": [[0, 1]] * 5000}).encode(), "x")["pairs"] == [[0, 1]] * 5000
    assert parse_json(b'{"a": "\\u00e9\\ud83d\\ude00"}', "x") == {"a": "é\U0001f600"}
    with pytest.raises(UsageError, match="not strict JSON"):
        parse_json(b'{"a": "\\ud83d"}', "x")


FLOODS: dict[str, dict[str, Any]] = {
    "numbers": {"numbers": ["x"] * 5000},
    "parts": {"parts": [{}] * 5000},
    "named": {"named": {f"k{i}": {"a": "x"} for i in range(5000)}},
    "deep": {"deep": {f"k{i}": {f"k{j}": {} for j in range(50)} for i in range(100)}},
    "lists": {"lists": [["x"] * 50] * 100},
    "unknown fields": {f"k{i}": 1 for i in range(5000)},
    "unknown fields inside": {"parts": [{f"k{i}": 1 for i in range(5000)}] * 2},
}


@pytest.mark.parametrize("name", FLOODS)
def test_thousands_of_problems_are_a_few(name: str) -> None:
    with pytest.raises(ValidationError) as error:
        Whole.model_validate(FLOODS[name])
    assert error.value.error_count() <= 2
    data = json.dumps({"schema_version": 1, **FLOODS[name]}).encode()
    with pytest.raises(UsageError) as told:
        parse_record(data, "x.json", Whole, "a whole", "make it again")
    assert len(str(told.value)) < 200


def test_the_first_problem_is_named_by_its_place() -> None:
    def said(document: dict[str, Any]) -> str:
        with pytest.raises(UsageError) as error:
            parse_record(json.dumps({"schema_version": 1, **document}).encode(), "x.json", Whole, "a whole", "again")
        return str(error.value)

    assert "field numbers.1: " in said({"numbers": [1.0, "x", "y"]})
    assert "field named.q.b: Field required (1 problem(s) in all)" in said(
        {"named": {"p": {"a": 1, "b": 2}, "q": {"a": 1}}}
    )
    assert "field deep.p.q.a: " in said({"deep": {"p": {"q": {"a": "x", "b": 1}, "r": {}}}})
    assert "x.json: has 5001 fields, 6 are known" in said({f"k{i}": 1 for i in range(5000)})
    assert "field c: Extra inputs" in said({"c": 1})


def test_right_values_are_kept() -> None:
    whole = Whole.model_validate(
        {"named": {"p": {"a": 1, "b": 2}, "q": {"a": 3, "b": 4}}, "deep": {"x": {}}, "lists": [[1]]}
    )
    assert list(whole.named) == ["p", "q"]
    assert whole.named["q"].b == 4
    assert (whole.deep, whole.lists) == ({"x": {}}, [[1]])


def test_a_latency_record_of_wrong_times_is_cheap_to_refuse() -> None:
    """2 MB of it took 0.6 GB, of empty probes 2.4 GB."""
    times = b'{"schema_version":1,"times_ms":[' + b'"",' * (N // 3) + b'""]}'
    probes = b'{"schema_version":1,"probes":[' + b"{},             " * (N // 16) + b"{}]}"
    for data in (times, probes):
        peak, said = peak_of(lambda data=data: parse_latency(data))
        assert peak <= 25 * len(data)
        assert "Field required" in said


def records(kind: type = StrictPart) -> Iterator[type]:
    for record in kind.__subclasses__():
        yield record
        yield from records(record)


def test_every_list_and_map_of_a_record_stops_at_the_first_problem() -> None:
    ours = [record for record in records() if record.__module__.startswith("avbench.")]
    assert len(ours) > 20
    plain = [
        f"{record.__name__}.{name}"
        for record in ours
        for name, text in record.__annotations__.items()
        if "ONE_BY_ONE" not in str(text)
        and any(word in str(text) for word in ("list[", "dict[", "List[", "Dict[", "set[", "tuple["))
    ]
    assert plain == []
