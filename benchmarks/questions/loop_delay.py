"""How late does the embedding loop run what is due, while nodes are saturated?"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from itertools import repeat
from statistics import quantiles
from typing import Any

import hotplumb as hp
from benchmarks.measuring import Form, on_loop
from benchmarks.results import Figure, Row, Table, figure

BEATS_S = (0.0005, 0.0015)  # between two beats: drawn anew for each, not to keep time with what it measures
SETTLE_S = 0.05  # for every node to have something to do
ROUND_S = 0.2
NODES = (1, 10, 100)
CALLS_S = (1e-6, 1e-4)
AT_MOST_MS = {"p99": 2.0, "worst": 5.0}
UNIT = "ms that a task which sleeps for about a millisecond at a time woke late, median of rounds (lowest to highest)"
NOTES = ("by hand: a task that calls the same function for 1 ms and then lets the loop go on, for ever",)

Load = Callable[[], Coroutine[Any, Any, None]]


def ask(form: Form) -> Table:
    rows = [_row(nodes, call_s, form) for call_s in CALLS_S for nodes in NODES]
    return Table("loop_delay", UNIT, tuple(rows), NOTES)


def _row(nodes: int, call_s: float, form: Form) -> Row:
    work = busy_for(call_s)
    seconds = ROUND_S * form.scale
    rounds = form.rounds
    loads: tuple[Load, Load] = (lambda: _by_hand(work), lambda: _saturated(nodes, work))
    found = [[on_loop(_lateness(load, seconds)) for load in loads] for _ in range(rounds)]
    by_hand, ours = ([_summary(pair[i]) for pair in found] for i in (0, 1))
    figures: dict[str, Figure | str] = {name: figure(sample[name] for sample in ours) for name in ours[0]}
    figures |= {f"by hand {name}": figure(sample[name] for sample in by_hand) for name in AT_MOST_MS}
    return Row(f"{nodes} nodes, calls of {call_s * 1e6:g} us", figures, AT_MOST_MS)


def _summary(late_s: list[float]) -> dict[str, float]:
    cuts = quantiles(late_s, n=100, method="inclusive")
    return {"p50": cuts[49] * 1000, "p99": cuts[98] * 1000, "worst": max(late_s) * 1000}


async def _lateness(load: Load, seconds: float) -> list[float]:
    """How late each beat came, in seconds, while `load` ran."""
    task = asyncio.create_task(load())
    await asyncio.sleep(SETTLE_S)
    late: list[float] = []
    draw = random.Random(0).uniform
    until = time.perf_counter() + seconds
    while len(late) < 2 or time.perf_counter() < until:
        pause_s = draw(*BEATS_S)
        due = time.perf_counter() + pause_s
        await asyncio.sleep(pause_s)
        late.append(time.perf_counter() - due)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    return late


async def _by_hand(work: Callable[[int], int]) -> None:
    while True:
        until = time.perf_counter() + 0.001
        while time.perf_counter() < until:
            work(0)
        await asyncio.sleep(0)


async def _saturated(nodes: int, work: Callable[[int], int]) -> None:
    """An endless source, and so many nodes in a row behind it."""
    topology = hp.Topology().add(0, hp.source(repeat(0)))
    for i in range(nodes):
        topology = topology.add(i + 1, hp.map(work, i))
    async with hp.Plumbing(topology.add("sink", hp.sink(work, nodes))) as plumbing:
        await plumbing.join()


def busy_for(seconds: float) -> Callable[[int], int]:
    """A function that takes about so long."""
    turns = max(1, round(seconds / _turn_s()))

    def work(value: int) -> int:
        for _ in repeat(None, turns):
            pass
        return value

    return work


def _turn_s(turns: int = 100_000) -> float:
    """What one turn of an empty loop takes, at the best of some tries."""
    best = float("inf")
    for _ in range(10):
        began = time.perf_counter()
        for _ in repeat(None, turns):
            pass
        best = min(best, time.perf_counter() - began)
    return best / turns
