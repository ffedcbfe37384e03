"""How much memory does an idle node take that has one reader, its key and description included?"""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from collections.abc import AsyncIterator, Callable
from functools import partial
from operator import add
from pathlib import Path
from typing import Any

import hotplumb as hp
from benchmarks import fresh
from benchmarks.measuring import Form, on_loop
from benchmarks.results import Row, Table, figure

LENGTH = 100  # nodes in a row, source and sink among them
AT_MOST_BYTES = 4096
ROWS = {"never used": (5_000, 0), "after 1,000 items": (500, 1000)}  # {what: (nodes, items in each row of nodes)}
UNIT = "bytes a node, median of rounds (lowest to highest), each in a process of its own"
NOTES = (
    f"rows of {LENGTH} nodes, from a factory: mapping keys of two entries, a partial as function; topology included",
    "traced: what Python's allocator gave out (tracemalloc); resident: what the process grew by (RSS)",
)


def ask(form: Form) -> Table:
    rounds = form.long().rounds
    rows = (_row(what, min(nodes, form.items(nodes)), burst, rounds) for what, (nodes, burst) in ROWS.items())
    return Table("idle_node", UNIT, tuple(rows), NOTES)


def _row(what: str, nodes: int, burst: int, rounds: int) -> Row:
    module = f"{__name__}:bytes_a_node"
    weighed = {how: [partial(fresh.call, module, how, nodes, burst)] * rounds for how in ("traced", "resident")}
    found = {how: figure(fresh.at_once(*calls)) for how, calls in weighed.items()}
    return Row(what, found, dict.fromkeys(found, AT_MOST_BYTES))


def bytes_a_node(how: str, nodes: int, burst: int) -> float:
    """Start a graph of so many nodes, send `burst` items through it, and look when it is idle."""
    if how == "traced":
        tracemalloc.start()
        return float(on_loop(_grown(lambda: tracemalloc.get_traced_memory()[0], nodes, burst))) / nodes
    return float(on_loop(_grown(resident_bytes, nodes, burst))) / nodes


def resident_bytes() -> int:
    """What the process holds in memory now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


async def _grown(used: Callable[[], int], nodes: int, burst: int) -> int:
    rows = max(1, nodes // LENGTH)
    async with hp.Plumbing(rows_of(min(nodes, LENGTH), 1, _Burst(0).produce, print)):
        pass  # what is imported or cached at the first use is no node's
    work = _Burst(burst * rows)
    gc.collect()
    before = used()
    async with hp.Plumbing(rows_of(min(nodes, LENGTH), rows, partial(work.produce, burst), work.arrive)):
        await work.done.wait()
        await asyncio.sleep(0.01)
        gc.collect()
        return used() - before


class _Burst:
    """So many items, and then nothing more while the graph runs."""

    def __init__(self, items: int) -> None:
        self._missing = items
        self.done = asyncio.Event()
        if not items:
            self.done.set()

    async def produce(self, items: int = 0) -> AsyncIterator[int]:
        for i in range(items):
            yield i
        await asyncio.Event().wait()

    def arrive(self, _: Any) -> None:
        self._missing -= 1
        if not self._missing:
            self.done.set()


def rows_of(length: int, count: int, produce: Callable[[], Any], fn: Callable[[Any], Any]) -> hp.Topology:
    """`count` rows of `length` nodes: a source, maps, a sink that calls `fn`."""

    def factory(key: Any) -> hp.Node | None:
        match key:
            case {"row": row, "stage": stage}:
                reads = {"row": row, "stage": stage - 1} if stage > 1 else {"row": row}
                return hp.map(partial(add, stage), reads)
            case {"row": _}:
                return hp.source(produce)
        return None

    last = length - 2
    sinks = {("sink", row): hp.sink(fn, {"row": row, "stage": last} if last else {"row": row}) for row in range(count)}
    return hp.Topology(factory).update(sinks)
