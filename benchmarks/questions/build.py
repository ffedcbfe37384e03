"""How long does it take to build and start a large graph?"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import hotplumb as hp
from benchmarks import fresh
from benchmarks.measuring import Form, on_loop
from benchmarks.questions.idle_node import rows_of
from benchmarks.results import Row, Table, figure

GRAPHS = ((100_000, 100), (10_000, 10_000))  # nodes, and how many of them in a row
AT_MOST_US = 40
UNIT = "us a node, median of rounds (lowest to highest), each in a process of its own"
NOTES = (
    "resolved: the topology, through the factory, mapping keys; started: from Plumbing(topology) to the block's start",
)


def ask(form: Form) -> Table:
    rows = (_row(min(nodes, form.items(nodes)), length, form.long().rounds) for nodes, length in GRAPHS)
    return Table("build", UNIT, tuple(rows), NOTES)


def _row(nodes: int, length: int, rounds: int) -> Row:
    found = [fresh.call(f"{__name__}:seconds", nodes, min(nodes, length)) for _ in range(rounds)]
    resolved = [sample[0] / nodes * 1e6 for sample in found]
    started = [sample[1] / nodes * 1e6 for sample in found]
    both = [sum(pair) for pair in zip(resolved, started, strict=True)]
    figures = {"resolved": figure(resolved), "started": figure(started), "both": figure(both)}
    return Row(f"{nodes:,} nodes, rows of {min(nodes, length):,}", figures, {"both": AT_MOST_US})


def seconds(nodes: int, length: int) -> tuple[float, float]:
    """How long a graph of so many nodes took to resolve, and to start."""
    found = on_loop(_seconds(nodes, length))
    return float(found[0]), float(found[1])


async def _seconds(nodes: int, length: int) -> tuple[float, float]:
    began = time.perf_counter()
    topology = rows_of(length, nodes // length, _wait, print)
    resolved = time.perf_counter()
    async with hp.Plumbing(topology):
        started = time.perf_counter()
    return resolved - began, started - resolved


async def _wait() -> AsyncIterator[int]:
    await asyncio.Event().wait()
    yield 0
