"""streamz: pushes each item through the whole graph by calls; with asyncio only where something is awaited."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from streamz import Stream

from benchmarks.measuring import Trial

Fn = Callable[[Any], Any]


async def chain(trial: Trial, fns: Sequence[Fn]) -> None:
    source = Stream()
    with sunk(mapped(source, fns), trial.sink):
        emit_all(source, trial)


async def broadcast(trial: Trial, fns: Sequence[Fn]) -> None:
    source = Stream()
    first, *others = [source.map(fn) for fn in fns]
    with sunk(first.union(*others), trial.sink):
        emit_all(source, trial)


async def route(trial: Trial, choose: Fn, branches: Mapping[str, Fn]) -> None:
    """By a filter in front of each branch: a stream has no outputs by name."""
    source = Stream()
    first, *others = [source.filter(_chosen(choose, name)).map(fn) for name, fn in branches.items()]
    with sunk(first.union(*others), trial.sink):
        emit_all(source, trial)


def _chosen(choose: Fn, name: str) -> Callable[[Any], bool]:
    return lambda value: bool(choose(value) == name)


async def async_stage(trial: Trial, fn: Callable[[Any], Awaitable[Any]]) -> None:
    await concurrent_stage(trial, fn, 1)


async def concurrent_stage(trial: Trial, fn: Callable[[Any], Awaitable[Any]], concurrency: int) -> None:
    source = Stream(asynchronous=True)
    stage = source.map_async(fn, parallelism=concurrency)
    emitted = arrived = 0
    is_done = asyncio.Event()

    def arrive(value: Any) -> None:
        nonlocal arrived
        trial.sink(value)
        arrived += 1
        if arrived == emitted:
            is_done.set()

    with sunk(stage, arrive):
        for value in trial.source:
            emitted += 1
            is_done.clear()
            await source.emit(value)
        await is_done.wait()
        trial.ended()
        _, worker = stage.work_task
        stage.stop()
        worker.cancel()


async def json_lines(trial: Trial, parse: Fn, is_wanted: Fn, enrich: Fn, new_count: Callable[[], Any]) -> None:
    """A stream has no end, so whoever emits says when the counts are to go on."""
    source, counted, count = Stream(), Stream(), new_count()
    with sunk(source.map(parse).filter(is_wanted).map(enrich), count.process), sunk(counted, trial.sink):
        for line in trial.source:
            source.emit(line)
        for counts in count.end():
            counted.emit(counts)
        trial.ended()


async def lone_item(trial: Trial, fns: Sequence[Fn]) -> None:
    source = Stream()
    with sunk(mapped(source, fns), trial.sink):
        async for value in trial.source:
            source.emit(value)
        trial.ended()


async def queued_item(trial: Trial, items: int) -> None:
    source, is_weighed = Stream(asynchronous=True), asyncio.Event()

    async def take(value: Any) -> None:
        await is_weighed.wait()

    with sunk(source.buffer(items), take):
        for value in trial.source:
            await source.emit(value)
        trial.ended()
        is_weighed.set()


def mapped(source: Any, fns: Sequence[Fn]) -> Any:
    for fn in fns:
        source = source.map(fn)
    return source


@contextmanager
def sunk(stream: Any, fn: Fn) -> Iterator[None]:
    """A sink is kept by streamz itself until it is destroyed."""
    sink = stream.sink(fn)
    try:
        yield
    finally:
        sink.destroy()


def emit_all(source: Any, trial: Trial) -> None:
    emit = source.emit
    for value in trial.source:
        emit(value)
    trial.ended()
