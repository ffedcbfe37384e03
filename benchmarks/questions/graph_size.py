"""Does an item, or a node, cost more in a larger graph?  At most 100 nodes are busy, the others idle."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from functools import partial
from operator import add
from typing import Any

import hotplumb as hp
from benchmarks import fresh
from benchmarks.contestants import OURS
from benchmarks.measuring import Form
from benchmarks.questions import growth
from benchmarks.questions.idle_node import resident_bytes
from benchmarks.results import Figure, Row, Table, figure

NODES = (10, 100, 1_000, 10_000, 100_000)
BASE = 100
AT_MOST = 1.2  # idle nodes cost nothing but what they take up in the processor's caches
LENGTH = 10  # nodes in a row
BUSY_ROWS = 10
ITEMS = 2_000  # in each busy row
TRIES = 3  # in each round; the best counts
WEIGHED, FEW = 10_000, "too few"  # nodes that show in what a process takes
UNIT = (
    "ns an item and busy node, median of rounds (lowest to highest), each size in a process of its own, by turns;"
    " growth: as a multiple of that in a graph of 100 nodes"
)
NOTES = (
    "rows of 10 nodes: source, sync maps, sink; seconds are the processor's;"
    " bytes a node: what the process grew by (RSS) until the graph ran",
)


def ask(form: Form) -> Table:
    sizes = [nodes for nodes in NODES if nodes <= max(BASE, form.items(NODES[-1]))]
    with ExitStack() as processes:
        graphs = {nodes: _graph_of(processes, nodes, form.items(ITEMS)) for nodes in sizes}
        bytes_a_node = {nodes: figure([graph()]) for nodes, graph in graphs.items()}
        found = growth.by_turns(sizes, lambda nodes, _: {OURS.name: figure([graphs[nodes]()])}, form.long())
    rows = growth.rows(found, BASE, "nodes", AT_MOST)
    weighed = [_with_bytes(row, nodes, bytes_a_node[nodes]) for nodes, row in zip(sizes, rows, strict=True)]
    return Table("graph_size", UNIT, tuple(weighed), NOTES)


def _graph_of(processes: ExitStack, nodes: int, items: int) -> Callable[[], float]:
    """What asks for a round of a graph in a process of its own; the first time, for bytes a node."""
    return processes.enter_context(fresh.asked(f"{__name__}:measured", nodes, items))


def _with_bytes(row: Row, nodes: int, bytes_a_node: Figure) -> Row:
    return Row(row.what, {**row.figures, "bytes a node": bytes_a_node if nodes >= WEIGHED else FEW}, row.at_most)


def measured(nodes: int, items: int) -> Iterator[float]:
    """Bytes a node in a graph of so many, and then, each time, seconds an item and busy node."""
    busy = min(BUSY_ROWS, nodes // LENGTH)
    bursts = Bursts(busy, items)
    with asyncio.Runner() as runner:
        gc.collect()
        before = resident_bytes()
        runner.run(hp.start(_graph(nodes // LENGTH, bursts)))
        yield (resident_bytes() - before) / nodes
        runner.run(bursts.seconds())  # to warm up
        while True:
            yield min(runner.run(bursts.seconds()) for _ in range(TRIES)) / items / busy / LENGTH


class Bursts:
    """So many items in each busy row, as often as is asked."""

    def __init__(self, rows: int, items: int) -> None:
        self._rows = rows
        self._items = items
        self._missing = 0
        self._asked = 0
        self._begin = asyncio.Event()
        self._done = asyncio.Event()

    async def seconds(self) -> float:
        """How long the processor works on one burst."""
        self._missing = self._rows * self._items
        self._done.clear()
        began = time.process_time()
        self._asked += 1
        begin, self._begin = self._begin, asyncio.Event()
        begin.set()
        await self._done.wait()
        return time.process_time() - began

    async def produce(self, row: int) -> AsyncIterator[int]:
        """The items of a row, which is idle unless it is one of the first."""
        given = 0
        while row < self._rows:
            while given == self._asked:
                await self._begin.wait()
            given += 1
            for i in range(self._items):
                yield i
        await asyncio.Event().wait()

    def arrive(self, _: Any) -> None:
        self._missing -= 1
        if not self._missing:
            self._done.set()


def _graph(rows: int, bursts: Bursts) -> hp.Topology:
    def factory(key: Any) -> hp.Node | None:
        match key:
            case {"row": row, "stage": 1}:
                return hp.map(partial(add, 1), {"row": row})
            case {"row": row, "stage": stage}:
                return hp.map(partial(add, stage), {"row": row, "stage": stage - 1})
            case {"row": row}:
                return hp.source(partial(bursts.produce, row))
        return None

    last = LENGTH - 2
    return hp.Topology(factory).update(
        {("sink", row): hp.sink(bursts.arrive, {"row": row, "stage": last}) for row in range(rows)}
    )
