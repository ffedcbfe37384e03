"""ReactiveX: observables composed of operators, which push each item through by calls."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import reactivex
from reactivex import operators as ops
from reactivex.subject import Subject

from benchmarks.measuring import Trial

Fn = Callable[[Any], Any]


async def chain(trial: Trial, fns: Sequence[Fn]) -> None:
    reactivex.from_iterable(trial.source).pipe(*map(ops.map, fns)).subscribe(trial.sink, refuse, trial.ended)


async def broadcast(trial: Trial, fns: Sequence[Fn]) -> None:
    source = reactivex.from_iterable(trial.source).pipe(ops.publish())
    reactivex.merge(*[source.pipe(ops.map(fn)) for fn in fns]).subscribe(trial.sink, refuse, trial.ended)
    source.connect()


async def route(trial: Trial, choose: Fn, branches: Mapping[str, Fn]) -> None:
    routed = reactivex.from_iterable(trial.source).pipe(
        ops.group_by(choose),
        ops.flat_map(lambda group: group.pipe(ops.map(branches[group.key]))),
    )
    routed.subscribe(trial.sink, refuse, trial.ended)


async def async_stage(trial: Trial, fn: Callable[[Any], Awaitable[Any]]) -> None:
    await concurrent_stage(trial, fn, 1)


async def concurrent_stage(trial: Trial, fn: Callable[[Any], Awaitable[Any]], concurrency: int) -> None:
    """The source does not wait for what is awaited: all its items wait in the merge."""
    ended = asyncio.get_running_loop().create_future()

    def later(value: Any) -> Any:
        return reactivex.defer(lambda _: asyncio.ensure_future(fn(value)))

    def end() -> None:
        trial.ended()
        ended.set_result(None)

    stages = ops.map(later), ops.merge(max_concurrent=concurrency)
    reactivex.from_iterable(trial.source).pipe(*stages).subscribe(trial.sink, ended.set_exception, end)
    await ended


async def json_lines(trial: Trial, parse: Fn, is_wanted: Fn, enrich: Fn, new_count: Callable[[], Any]) -> None:
    stages = ops.map(parse), ops.filter(is_wanted), ops.map(enrich), ops.reduce(_counted, new_count())
    counts = reactivex.from_iterable(trial.source).pipe(*stages, ops.flat_map(lambda count: count.end()))
    counts.subscribe(trial.sink, refuse, trial.ended)


def _counted(count: Any, record: Any) -> Any:
    count.process(record)
    return count


async def lone_item(trial: Trial, fns: Sequence[Fn]) -> None:
    source: Any = Subject()
    source.pipe(*map(ops.map, fns)).subscribe(trial.sink, refuse, trial.ended)
    async for value in trial.source:
        source.on_next(value)
    source.on_completed()


def refuse(error: Exception) -> None:
    raise error
