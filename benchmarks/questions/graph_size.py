"""Does an item, or a node, cost more in a larger graph?  At most 100 nodes are busy, the others idle."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncIterator
from functools import partial
from operator import add
from typing import Any

import hotplumb as hp
from benchmarks import fresh
from benchmarks.contestants import OURS
from benchmarks.measuring import Form, on_loop
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
UNIT = (
    "ns an item and busy node, median of rounds (lowest to highest), each size in a process of its own;"
    " growth: as a multiple of that in a graph of 100 nodes"
)
NOTES = ("rows of 10 nodes: source, sync maps, sink; bytes a node: what the process grew by (RSS) until the graph ran",)


def ask(form: Form) -> Table:
    sizes = [nodes for nodes in NODES if nodes <= max(BASE, form.items(NODES[-1]))]
    found = {nodes: fresh.call(f"{__name__}:measured", nodes, form.items(ITEMS), form.long().rounds) for nodes in sizes}
    seconds: dict[int, dict[str, Figure | str]] = {
        nodes: {OURS.name: figure(samples)} for nodes, (samples, _) in found.items()
    }
    rows = growth.rows(seconds, BASE, "nodes", AT_MOST)
    weighed = [_with_bytes(row, found[nodes][1]) for nodes, row in zip(sizes, rows, strict=True)]
    return Table("graph_size", UNIT, tuple(weighed), NOTES)


def _with_bytes(row: Row, bytes_a_node: float) -> Row:
    return Row(row.what, {**row.figures, "bytes a node": figure([bytes_a_node])}, row.at_most)


def measured(nodes: int, items: int, rounds: int) -> tuple[list[float], float]:
    """Seconds an item and busy node of each round, and bytes a node, in a graph of so many."""
    found: tuple[list[float], float] = on_loop(_measured(nodes, items, rounds))
    return found


async def _measured(nodes: int, items: int, rounds: int) -> tuple[list[float], float]:
    busy = min(BUSY_ROWS, nodes // LENGTH)
    bursts = Bursts(busy, items)
    gc.collect()
    before = resident_bytes()
    async with hp.Plumbing(_graph(nodes // LENGTH, bursts)):
        await asyncio.sleep(0)
        grown = resident_bytes() - before
        await bursts.seconds()  # to warm up
        tries = [[await bursts.seconds() for _ in range(TRIES)] for _ in range(rounds)]
    return [min(found) / items / busy / LENGTH for found in tries], grown / nodes


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
        """How long one burst takes."""
        self._missing = self._rows * self._items
        self._done.clear()
        began = time.perf_counter()
        self._asked += 1
        begin, self._begin = self._begin, asyncio.Event()
        begin.set()
        await self._done.wait()
        return time.perf_counter() - began

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
