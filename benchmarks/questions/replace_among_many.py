"""How long does it take to replace one node of a running graph of 100,000?"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from functools import partial
from itertools import count
from operator import add
from typing import Any

import attrs

import hotplumb as hp
from benchmarks import fresh
from benchmarks.measuring import Form, on_loop
from benchmarks.questions.switch import percentile
from benchmarks.results import Figure, Row, Table, figure

NODES = 100_000
FEW, MANY = NODES // 100, NODES // 10  # up- or downstream of a node that is replaced
LENGTH = 9  # nodes, and a sink, in each of the rows that make up the rest of the graph
CHANGES = 40  # in a round
MOST_S = 0.3  # that a round takes, if it has two changes
AT_MOST_MS = {"p99": 1.0, "processor": 1.0}
FURTHER = "us for each further"
AT_MOST_US = {FURTHER: 1.0}
UNIT = "ms, median of rounds (lowest to highest)"
NOTES = (
    f"one graph of {NODES:,} nodes, all idle, in a process of its own; the next change comes when one has settled",
    "number: how many nodes are up- or downstream of the one that is replaced; beside: one of as many that read, or are"
    " read by, the same node",
    "p50, p99: from the call of `replace` until it returns; processor: p99 of the time that the processor spent on it",
    f"settled: p50, from then until the change has settled; {FURTHER}: of the processor's p50, against the line above",
)


@attrs.frozen
class Taken:
    """What one change took, in seconds."""

    clock: float
    processor: float
    settled: float


def ask(form: Form) -> Table:
    few, many = (min(related, form.items(related)) for related in (FEW, MANY))
    nodes = min(NODES, form.items(NODES))
    found = fresh.call(f"{__name__}:measured", nodes, few, many, max(2, form.items(CHANGES)), form.long().rounds)
    taken = {what: [[Taken(*each) for each in changes] for changes in rounds] for what, rounds in found.items()}
    figures = {what: _figures(rounds) for what, rounds in taken.items()}
    for shape in SHAPES:
        less, more = (_name(related, shape) for related in (few, many))
        figures[more][FURTHER] = _further(taken[less], taken[more], many - few)
    rows = [Row(what, row, AT_MOST_US if FURTHER in row else AT_MOST_MS) for what, row in figures.items()]
    return Table("replace_among_many", UNIT, tuple(rows), NOTES)


def _figures(rounds: list[list[Taken]]) -> dict[str, Figure | str]:
    return {
        "p50": figure(percentile([taken.clock for taken in changes], 50) for changes in rounds),
        "p99": figure(percentile([taken.clock for taken in changes], 99) for changes in rounds),
        "processor": figure(percentile([taken.processor for taken in changes], 99) for changes in rounds),
        "settled": figure(percentile([taken.settled for taken in changes], 50) for changes in rounds),
    }


def _further(less: list[list[Taken]], more: list[list[Taken]], nodes: int) -> Figure:
    """What each of so many nodes more costs."""
    pairs = zip(map(_worked_ms, less), map(_worked_ms, more), strict=True)
    return figure(max(0.0, longer - shorter) * 1000 / nodes for shorter, longer in pairs)


def _worked_ms(changes: list[Taken]) -> float:
    return percentile([taken.processor for taken in changes], 50)


# ---- where a node is replaced

SHAPES = ("in a row", "read it", "it reads")


def _name(related: int, shape: str) -> str:
    return f"{related:,} {shape}"


def _places(few: int, many: int) -> dict[str, Any]:
    """{what lies around a node: its key}."""
    places = {_name(LENGTH, SHAPES[0]): _in_row(LENGTH)}
    for related in (few, many):
        places[_name(related, SHAPES[0])] = _in_row(related)
    for shape in SHAPES[1:]:
        places |= {_name(related, shape): (shape, related) for related in (few, many)}
    places["2, beside readers"], places["2, beside sources"] = ("reader", many, 0), ("source", many, 0)
    return places


def _in_row(length: int) -> Any:
    return "row", length, 0, length // 2


def _graph(nodes: int, few: int, many: int) -> hp.Topology:
    """What is replaced, and rows of nodes that make up the rest."""
    sinks: dict[Any, hp.Node | None] = {}
    for related in (few, many):
        sinks["end", related] = hp.sink(_forget, ("row", related, 0, related - 1))
        sinks["joined", related] = hp.sink(_forget, ("it reads", related))
        sinks |= {("reader", related, i): hp.sink(_forget, ("read it", related)) for i in range(related - 1)}
    rows = max(1, (nodes - 3 * (few + many)) // (LENGTH + 1))
    sinks |= {("end", LENGTH, row): hp.sink(_forget, ("row", LENGTH, row, LENGTH - 1)) for row in range(rows)}
    return hp.Topology(_factory).update(sinks)


def _factory(key: Any) -> hp.Node | None:
    match key:
        case ("row", _, _, 0) | ("source", *_):
            return hp.source(_wait)
        case ("row", length, row, stage):
            return hp.map(partial(add, 0), ("row", length, row, stage - 1))
        case ("read it", related):
            return hp.map(partial(add, 0), ("source", related))
        case ("it reads", related):
            return hp.map(partial(add, 0), *[("source", related, i) for i in range(related - 1)])
    return None


async def _wait(version: int = 0) -> AsyncIterator[int]:
    await asyncio.Event().wait()
    yield version


def _forget(value: int, version: int = 0) -> None:
    """Nothing comes."""


# ---- in a process of its own


def measured(nodes: int, few: int, many: int, changes: int, rounds: int) -> dict[str, list[list[Any]]]:
    """{what lies around a node: of each round, what each change took}."""
    found: dict[str, list[list[Any]]] = on_loop(_measured(nodes, few, many, changes, rounds))
    return found


async def _measured(nodes: int, few: int, many: int, changes: int, rounds: int) -> dict[str, list[list[Any]]]:
    found: dict[str, list[list[Any]]] = {}
    async with hp.Plumbing(_graph(nodes, few, many)) as plumbing:
        versions = count(1)
        for what, key in _places(few, many).items():
            await _taken(plumbing, key, next(versions))  # to warm up
            found[what] = [await _round(plumbing, key, changes, versions) for _ in range(rounds)]
    return found


async def _round(plumbing: hp.Plumbing, key: Any, changes: int, versions: Iterator[int]) -> list[Any]:
    found: list[Any] = []
    until = time.perf_counter() + MOST_S
    while len(found) < 2 or (len(found) < changes and time.perf_counter() < until):
        found.append(await _taken(plumbing, key, next(versions)))
    return found


async def _taken(plumbing: hp.Plumbing, key: Any, version: int) -> tuple[float, float, float]:
    node = plumbing.topology.active[key]
    anew = attrs.evolve(node, fn=partial(FUNCTIONS[node.kind], version))
    began, worked = time.perf_counter(), time.process_time()
    change = await plumbing.replace(key, anew)
    ended, worked = time.perf_counter(), time.process_time() - worked
    assert change.replaced
    await change.wait_settled()
    return ended - began, worked, time.perf_counter() - ended


FUNCTIONS: Mapping[str, Callable[..., Any]] = {"source": _wait, "map": add, "sink": _forget}
