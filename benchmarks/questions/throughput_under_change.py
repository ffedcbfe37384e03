"""What is left of the throughput of ten maps in a row while one of them is replaced every 10 ms?"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from itertools import count, repeat
from operator import add
from typing import Any

import attrs

import hotplumb as hp
from benchmarks.measuring import Form, on_loop
from benchmarks.results import Row, Table, figure

MAPS = 10
EVERY_S = 0.01
LOOKS_EVERY_S = 0.001
WINDOW_S = 0.2
WINDOWS = 2  # of each kind in a round, by turns
SETTLE_S = 0.1  # for the nodes to have learned how many values fit in a slice, and for all links to be full
SUSPENDS_EVERY = 64  # items
AT_MOST = 1 / 0.9
UNIT = "median of rounds (lowest to highest)"
NOTES = (
    "one run, in which windows without changes and with them take turns; seconds are the processor's, which are those"
    " of the clock where no other process wants it",
    "times: what an item takes with changes, as a multiple of what it takes without, at most 1 / 0.9;"
    " throughput: the same, the other way round; ms a change: what each change has cost in all",
    "links full: with a consumer that is slower than the maps",
)


@attrs.frozen
class Window:
    """What was done in a while."""

    seconds: float = 0.0
    items: int = 0
    changes: int = 0

    def __add__(self, other: Window) -> Window:
        return Window(self.seconds + other.seconds, self.items + other.items, self.changes + other.changes)

    @property
    def seconds_an_item(self) -> float:
        return self.seconds / self.items


class Sink:
    """Counts what comes in."""

    def __init__(self) -> None:
        self.items = 0

    def consume(self, _: Any) -> None:
        self.items += 1

    async def consume_slowly(self, _: Any) -> None:
        self.items += 1
        if not self.items % SUSPENDS_EVERY:
            await asyncio.sleep(0)


def ask(form: Form) -> Table:
    sink = Sink()
    rows = (
        _row("10 sync maps", sink, sink.consume, form, {"times": AT_MOST}),
        _row("10 sync maps, links full", sink, sink.consume_slowly, form, {}),
    )
    return Table("throughput_under_change", UNIT, rows, NOTES)


def _row(what: str, sink: Sink, consume: Callable[[Any], Any], form: Form, at_most: dict[str, float]) -> Row:
    found: list[tuple[Window, Window]] = on_loop(_measured(sink, consume, form))
    times = [during.seconds_an_item / without.seconds_an_item for without, during in found]
    figures = {
        "ns an item": figure(without.seconds_an_item * 1e9 for without, _ in found),
        "times": figure(times),
        "throughput": figure(1 / ratio for ratio in times),
        "ms a change": figure(_seconds_a_change(*windows) * 1e3 for windows in found),
    }
    return Row(what, figures, at_most)


def _seconds_a_change(without: Window, during: Window) -> float:
    return max(0.0, during.seconds - without.seconds_an_item * during.items) / during.changes


async def _measured(sink: Sink, consume: Callable[[Any], Any], form: Form) -> list[tuple[Window, Window]]:
    """Of each round, all windows without changes, and all with them."""
    found: list[tuple[Window, Window]] = []
    with suppress(_Enough):
        async with hp.Plumbing(_chain(consume)) as plumbing:
            await asyncio.sleep(SETTLE_S)
            found = [await _round(sink, plumbing, WINDOW_S * min(1, form.scale)) for _ in range(form.long().rounds)]
            raise _Enough
    return found


class _Enough(Exception):
    """Leave the block at once: the source has no end."""


def _chain(consume: Callable[[Any], Any]) -> hp.Topology:
    topology = hp.Topology().add("0", hp.source(repeat(0)))
    for i in range(MAPS):
        topology = topology.add(str(i + 1), hp.map(partial(add, 0), str(i)))
    return topology.add("sink", hp.sink(consume, str(MAPS)))


async def _round(sink: Sink, plumbing: hp.Plumbing, seconds: float) -> tuple[Window, Window]:
    versions = count(1)

    async def change() -> None:
        await plumbing.replace(str(MAPS // 2), hp.map(partial(add, next(versions)), str(MAPS // 2 - 1)))

    without = during = Window()
    for _ in range(WINDOWS):
        without += await _window(sink, seconds, None)
        during += await _window(sink, seconds, change)
    return without, during


async def _window(sink: Sink, seconds: float, change: Callable[[], Awaitable[None]] | None) -> Window:
    began = due = now = time.process_time()
    before, changes = sink.items, 0
    while now < began + seconds or sink.items == before:
        if change is not None and now >= due:
            await change()
            due += EVERY_S
            changes += 1
        await asyncio.sleep(LOOKS_EVERY_S)
        now = time.process_time()
    return Window(now - began, sink.items - before, changes)
