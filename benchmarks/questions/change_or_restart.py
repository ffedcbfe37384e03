"""What is it like to change one of ten maps while they run, and what to stop and start them instead?"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import attrs

import hotplumb as hp
from benchmarks.contestants.queues import CAPACITY_ITEMS, END, Queue, mapped, new_queue
from benchmarks.measuring import Form, on_loop
from benchmarks.results import Row, Table, figure

MAPS = 10
CHANGED = MAPS // 2
RUN_S = 0.15  # before the change, and after it
NEW = 1 << 40  # what the new version adds to a number, which can still be told
UNIT = "median of rounds (lowest to highest)"
NOTES = (
    f"ten maps in a row, {CAPACITY_ITEMS:,} items in a link or queue between two, a source without end; one is changed",
    "silent: the longest time without a call of the sink, before the change and from then on; to the new: from when the"
    " change is asked for to the first item that has met the new version",
    "lost: items that the sink never gets; again: items that the source has to give a second time",
)


class Feed:
    """Numbers without end, that can be stopped, and set back."""

    def __init__(self) -> None:
        self.next = 0
        self.is_stopped = False
        self.again = 0

    def __iter__(self) -> Feed:
        return self

    def __next__(self) -> int:
        if self.is_stopped:
            raise StopIteration
        self.next += 1
        return self.next - 1

    def set_back(self, number: int) -> None:
        """Give all from `number` on again."""
        self.again += self.next - number
        self.next = number


class Sink:
    """Looks when items come, and which."""

    def __init__(self) -> None:
        self.next = 0
        self.lost = 0
        self.silent_s = 0.0
        self.new_at = 0.0
        self.has_new = asyncio.Event()
        self._came_at = time.perf_counter()

    def consume(self, value: int) -> None:
        now = time.perf_counter()
        if now - self._came_at > self.silent_s:
            self.silent_s = now - self._came_at
        self._came_at = now
        number = value % NEW
        if number != self.next:
            self.lost += number - self.next
        self.next = number + 1
        if value >= NEW and not self.new_at:
            self.new_at = now
            self.has_new.set()

    def silence(self) -> float:
        """The longest since this was asked last."""
        silent_s, self.silent_s = self.silent_s, 0.0
        return silent_s


Change = Callable[[], Awaitable[None]]
Way = Callable[[Feed, Sink], AbstractAsyncContextManager[Change]]
"""Runs the maps from `Feed` to `Sink`, and gives what changes one."""


def old(number: int) -> int:
    return number


def new(number: int) -> int:
    return number + NEW


# ---- hotplumb


def _chain(feed: Feed, sink: Sink, changed: Callable[[int], int]) -> hp.Topology:
    topology = hp.Topology().add(0, hp.source(feed))
    for i in range(MAPS):
        topology = topology.add(i + 1, hp.map(changed if i + 1 == CHANGED else old, i))
    return topology.add("sink", hp.sink(sink.consume, MAPS))


@asynccontextmanager
async def replaced(feed: Feed, sink: Sink) -> AsyncIterator[Change]:
    """While it runs."""
    async with hp.Plumbing(_chain(feed, sink, old)) as plumbing:

        async def change() -> None:
            await plumbing.replace(CHANGED, hp.map(new, CHANGED - 1))

        yield change


@asynccontextmanager
async def restarted(feed: Feed, sink: Sink) -> AsyncIterator[Change]:
    """Drained, and started anew."""
    running = [await hp.start(_chain(feed, sink, old))]

    async def change() -> None:
        await running.pop().stop()
        running.append(await hp.start(_chain(feed, sink, new)))

    yield change
    await running.pop().stop()


# ---- tasks and queues


class Queues:
    """A task for each map, and a queue between two."""

    def __init__(self, feed: Feed, sink: Sink, changed: Callable[[int], int]) -> None:
        self._feed = feed
        queues = [new_queue() for _ in range(MAPS + 1)]
        stages = [mapped(changed if i + 1 == CHANGED else old, queues[i], queues[i + 1]) for i in range(MAPS)]
        work = [_produced(feed, queues[0]), *stages, _consumed(sink, queues[-1])]
        self._tasks = [asyncio.create_task(each) for each in work]

    async def drain(self) -> None:
        """Let everything come through."""
        self._feed.is_stopped = True
        await asyncio.wait(self._tasks)
        self._feed.is_stopped = False

    async def cancel(self) -> None:
        """End at once."""
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)


async def _produced(feed: Feed, queue: Queue) -> None:
    for value in feed:
        await queue.put(value)
    await queue.put(END)


async def _consumed(sink: Sink, queue: Queue) -> None:
    while (value := await queue.get()) is not END:
        sink.consume(value)


def _queues(stop: Callable[[Queues, Feed, Sink], Awaitable[None]]) -> Way:
    @asynccontextmanager
    async def running(feed: Feed, sink: Sink) -> AsyncIterator[Change]:
        found = [Queues(feed, sink, old)]

        async def change() -> None:
            await stop(found.pop(), feed, sink)
            found.append(Queues(feed, sink, new))

        yield change
        await found.pop().cancel()

    return running


async def _drained(queues: Queues, feed: Feed, sink: Sink) -> None:
    await queues.drain()


async def _cancelled(queues: Queues, feed: Feed, sink: Sink) -> None:
    await queues.cancel()


async def _cancelled_and_set_back(queues: Queues, feed: Feed, sink: Sink) -> None:
    await queues.cancel()
    feed.set_back(sink.next)


WAYS: dict[str, Way] = {
    "hotplumb, replace": replaced,
    "hotplumb, drain and start": restarted,
    "asyncio.Queue, drain and start": _queues(_drained),
    "asyncio.Queue, cancel and start": _queues(_cancelled),
    "asyncio.Queue, cancel and set back": _queues(_cancelled_and_set_back),
}


# ---- measuring


@attrs.frozen
class Found:
    """What a change was like."""

    silent_before_s: float
    silent_s: float
    to_the_new_s: float
    lost: int
    again: int


def ask(form: Form) -> Table:
    rounds = [{name: on_loop(_changed(way, form)) for name, way in WAYS.items()} for _ in range(form.long().rounds)]
    rows = (_row(name, [found[name] for found in rounds]) for name in WAYS)
    return Table("change_or_restart", UNIT, tuple(rows), NOTES)


def _row(name: str, found: list[Found]) -> Row:
    figures = {
        "ms silent before": figure(each.silent_before_s * 1000 for each in found),
        "ms silent": figure(each.silent_s * 1000 for each in found),
        "ms to the new": figure(each.to_the_new_s * 1000 for each in found),
        "lost": figure(each.lost for each in found),
        "again": figure(each.again for each in found),
    }
    return Row(name, figures)


async def _changed(way: Way, form: Form) -> Found:
    feed, sink = Feed(), Sink()
    async with way(feed, sink) as change:
        await asyncio.sleep(RUN_S * min(1, form.scale))
        silent_before_s, began = sink.silence(), time.perf_counter()
        await change()
        await asyncio.sleep(RUN_S * min(1, form.scale))
        await sink.has_new.wait()
        found = Found(silent_before_s, sink.silence(), sink.new_at - began, sink.lost, feed.again)
    return found
