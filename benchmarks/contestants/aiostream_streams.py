"""aiostream: asynchronous generators, composed; they pull one item at a time.  A stream has one reader."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from aiostream import pipe, stream

from benchmarks.measuring import Trial

Fn = Callable[[Any], Any]


async def chain(trial: Trial, fns: Sequence[Fn]) -> None:
    await consumed(trial, mapped(trial, fns))


async def async_stage(trial: Trial, fn: Callable[[Any], Awaitable[Any]]) -> None:
    await concurrent_stage(trial, fn, 1)


async def concurrent_stage(trial: Trial, fn: Callable[[Any], Awaitable[Any]], concurrency: int) -> None:
    await consumed(trial, stream.iterate(trial.source) | pipe.map(fn, task_limit=concurrency))


async def json_lines(trial: Trial, parse: Fn, is_wanted: Fn, enrich: Fn, new_count: Callable[[], Any]) -> None:
    count = new_count()
    records = stream.iterate(trial.source) | pipe.map(parse) | pipe.filter(is_wanted) | pipe.map(enrich)
    async with records.stream() as streamer:
        async for record in streamer:
            count.process(record)
    for counts in count.end():
        trial.sink(counts)
    trial.ended()


async def lone_item(trial: Trial, fns: Sequence[Fn]) -> None:
    await consumed(trial, mapped(trial, fns))


def mapped(trial: Trial, fns: Sequence[Fn]) -> Any:
    found: Any = stream.iterate(trial.source)
    for fn in fns:
        found = found | pipe.map(fn)
    return found


async def consumed(trial: Trial, values: Any) -> None:
    async with values.stream() as streamer:
        async for value in streamer:
            trial.sink(value)
    trial.ended()
