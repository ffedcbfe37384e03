"""How long does it take to replace a node of a saturated, settled graph, whatever waits in its links?"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from functools import partial
from itertools import count, repeat
from operator import add
from statistics import quantiles
from typing import Any

import attrs

import hotplumb as hp
from benchmarks.measuring import Form, on_loop
from benchmarks.results import Figure, Row, Table, figure

CHANGES = {64: 40, 1024: 3, 4096: 1}  # in a round, {capacity: so many}: where more is queued, it settles later
AT_MOST_MS = 1.0
FILL_S = 30.0  # at the most, until no link takes more
SUSPENDS_EVERY = 64  # items: so the consumer is slower than the maps, and every link before it full
UNIT = "ms, median of rounds (lowest to highest)"
NOTES = (
    "number: how many items a link holds; the consumer is slower than the maps, and all links are full; but plain maps"
    " in a row run as one, with nothing between them: where it says async, and in the last two graphs, they are async",
    "p50, p99: from the call of `replace` until it returns; in order: p99 of `change.seconds`, from the first node that"
    " switched to the last; processor: p99 of the time that the processor spent on it, which is no less where no other"
    " process wants it",
)

WHEN = "the next change comes when one has settled"


@attrs.frozen
class Graph:
    """A graph that is to be changed."""

    name: str
    topology: hp.Topology
    fn: Callable[..., Any]
    """What a map calls, with its version and a number."""
    target: str
    """The node to be replaced."""
    above: str
    """A node above that."""


@attrs.frozen
class Taken:
    """What one change took, in seconds."""

    clock: float
    in_order: float
    processor: float


Measure = Callable[["Changer"], Awaitable[Taken]]


def ask(form: Form) -> Table:
    at_most_ms = {CHAIN: AT_MOST_MS, ASYNC: AT_MOST_MS}
    return Table("switch", UNIT, rows(form, _replaced, CHANGES, at_most_ms), (*NOTES, WHEN))


async def _replaced(changer: Changer) -> Taken:
    return await changer.replace(changer.graph.target)


# ---- graphs

CHAIN, ASYNC, DIAMOND, WIDE = "1 of 10 maps", "1 of 10 async", "join of a diamond", "1 of 64 to a join"
MAPS, FAN_IN = 10, 64


async def add_later(version: int, number: int) -> int:
    return version + number


def chain(capacity: int, fn: Callable[..., Any] = add, name: str = CHAIN) -> Graph:
    """Maps in a row: plain ones run as one, so only the first and the consumer have a backlog."""
    topology = hp.Topology().add("0", hp.source(repeat(0)))
    for i in range(MAPS):
        topology = topology.add(str(i + 1), _map(fn, str(i), capacity=capacity))
    return Graph(name, _consumed(topology, str(MAPS), capacity), fn, str(MAPS // 2), "1")


def async_chain(capacity: int) -> Graph:
    """Maps in a row, each with a backlog of its own."""
    return chain(capacity, add_later, ASYNC)


def diamond(capacity: int) -> Graph:
    """One map, two that read it, and one that reads both."""
    nodes = {"fork": ["source"], "left": ["fork"], "right": ["fork"], "join": ["left", "right"]}
    topology = hp.Topology().add("source", hp.source(repeat(0)))
    for key, reads in nodes.items():
        topology = topology.add(key, _map(add_later, *reads, capacity=capacity))
    return Graph(DIAMOND, _consumed(topology, "join", capacity), add_later, "join", "fork")


def fan_in(capacity: int) -> Graph:
    """Many maps of what one gives, and a merge of them all."""
    topology = (
        hp.Topology().add("source", hp.source(repeat(0))).add("fork", _map(add_later, "source", capacity=capacity))
    )
    branches = [f"branch {i}" for i in range(FAN_IN)]
    for branch in branches:
        topology = topology.add(branch, _map(add_later, "fork", capacity=capacity))
    topology = topology.add("join", hp.merge(*branches, capacity=capacity))
    return Graph(WIDE, _consumed(topology, "join", capacity), add_later, branches[-1], "fork")


GRAPHS = (chain, async_chain, diamond, fan_in)


def _map(fn: Callable[..., Any], *reads: str, capacity: int) -> hp.Node:
    return hp.map(partial(fn, 0), *reads, capacity=capacity)


def _consumed(topology: hp.Topology, reads: str, capacity: int) -> hp.Topology:
    counter = count(1)

    async def consume(_: Any) -> None:
        if not next(counter) % SUSPENDS_EVERY:
            await asyncio.sleep(0)

    return topology.add("sink", hp.sink(consume, reads, capacity=capacity))


# ---- measuring


class Changer:
    """Replaces nodes of a graph that runs."""

    def __init__(self, graph: Graph, plumbing: hp.Plumbing) -> None:
        self.graph = graph
        self._plumbing = plumbing
        self._versions = count(1)

    async def fill(self) -> None:
        """Return when as much is queued as there can be."""
        until, queued, before = time.perf_counter() + FILL_S, 0, -1
        while queued > before and time.perf_counter() < until:
            await asyncio.sleep(0.05)
            before, queued = queued, sum(node.queued_items for node in self._plumbing.statistics().nodes.values())

    async def replace(self, key: str, is_to_settle: bool = True) -> Taken:
        """Replace a node, and wait until that has settled."""
        node = attrs.evolve(self.graph.topology.active[key], fn=partial(self.graph.fn, next(self._versions)))
        began, worked = time.perf_counter(), time.process_time()
        change = await self._plumbing.replace(key, node)
        taken = Taken(time.perf_counter() - began, change.seconds, time.process_time() - worked)
        if is_to_settle:
            await change.wait_settled()
        return taken


def rows(form: Form, measure: Measure, changes: Mapping[int, int], at_most_ms: Mapping[str, float]) -> tuple[Row, ...]:
    """A row for each graph and capacity, of so many changes a round; `at_most_ms` are budgets, by the graph's name."""
    found = [
        _row(form, new_graph, capacity, form.items(count), measure)
        for new_graph in GRAPHS
        for capacity, count in changes.items()
    ]
    budgets = {name: dict.fromkeys(("p99", "processor"), most) for name, most in at_most_ms.items()}
    return tuple(attrs.evolve(row, at_most=budgets.get(row.what.partition(",")[0], {})) for row in found)


def _row(form: Form, new_graph: Callable[[int], Graph], capacity: int, changes: int, measure: Measure) -> Row:
    graph = new_graph(form.items(capacity) if form.scale < 1 else capacity)
    found = on_loop(_measured(graph, measure, form.long().rounds, changes))
    return Row(f"{graph.name}, {capacity:,}", _figures(found))


async def _measured(graph: Graph, measure: Measure, rounds: int, changes: int) -> list[list[Taken]]:
    found: list[list[Taken]] = []
    with suppress(_Enough):
        async with hp.Plumbing(graph.topology) as plumbing:
            changer = Changer(graph, plumbing)
            await changer.fill()
            await measure(changer)  # to warm up
            found = [[await measure(changer) for _ in range(changes)] for _ in range(rounds)]
            raise _Enough
    return found


class _Enough(Exception):
    """Leave the block at once: what is queued is of no use any more."""


def _figures(rounds: list[list[Taken]]) -> dict[str, Figure | str]:
    clock, in_order, processor = (
        [[getattr(taken, what) for taken in found] for found in rounds] for what in ("clock", "in_order", "processor")
    )
    return {
        "p50": figure(percentile(found, 50) for found in clock),
        "p99": figure(percentile(found, 99) for found in clock),
        "in order": figure(percentile(found, 99) for found in in_order),
        "processor": figure(percentile(found, 99) for found in processor),
    }


def percentile(seconds: list[float], which: int) -> float:
    """In milliseconds."""
    return quantiles(seconds * 2, n=100, method="inclusive")[which - 1] * 1000  # twice, for there may be but one
