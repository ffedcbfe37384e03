"""The floor: the same work as a hand-written loop that calls the same user functions, nested."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import cache
from typing import Any

from benchmarks.measuring import Trial

Fn = Callable[[Any], Any]
Loop = Callable[..., None]


async def chain(trial: Trial, fns: Sequence[Fn]) -> None:
    _nested_loop(len(fns))(trial.source, trial.sink, *fns)
    trial.ended()


@cache
def _nested_loop(depth: int) -> Loop:
    """`for value in source: sink(f1(f0(value)))`, as somebody would write it by hand for so many functions."""
    names = [f"f{i}" for i in range(depth)]
    call = "value"
    for name in names:
        call = f"{name}({call})"
    made: dict[str, Loop] = {}
    exec(f"def loop(source, sink, {', '.join(names)}):\n for value in source:\n  sink({call})", made)
    return made["loop"]


async def broadcast(trial: Trial, fns: Sequence[Fn]) -> None:
    f0, f1, f2, f3, f4, f5, f6, f7 = fns
    sink = trial.sink
    for value in trial.source:
        sink(f0(value))
        sink(f1(value))
        sink(f2(value))
        sink(f3(value))
        sink(f4(value))
        sink(f5(value))
        sink(f6(value))
        sink(f7(value))
    trial.ended()


async def route(trial: Trial, choose: Fn, branches: Mapping[str, Fn]) -> None:
    sink = trial.sink
    for value in trial.source:
        sink(branches[choose(value)](value))
    trial.ended()


async def async_stage(trial: Trial, fn: Callable[[Any], Awaitable[Any]]) -> None:
    sink = trial.sink
    for value in trial.source:
        sink(await fn(value))
    trial.ended()


async def concurrent_stage(trial: Trial, fn: Callable[[Any], Awaitable[Any]], concurrency: int) -> None:
    """So many loops that share the source."""

    async def loop() -> None:
        for value in trial.source:
            trial.sink(await fn(value))

    async with asyncio.TaskGroup() as tasks:
        for _ in range(concurrency):
            tasks.create_task(loop())
    trial.ended()


async def json_lines(trial: Trial, parse: Fn, is_wanted: Fn, enrich: Fn, new_count: Callable[[], Any]) -> None:
    count = new_count()
    for line in trial.source:
        record = parse(line)
        if is_wanted(record):
            count.process(enrich(record))
    for counts in count.end():
        trial.sink(counts)
    trial.ended()


async def lone_item(trial: Trial, fns: Sequence[Fn]) -> None:
    f0, f1, f2, f3, f4 = fns
    async for value in trial.source:
        trial.sink(f4(f3(f2(f1(f0(value))))))
    trial.ended()


async def depth(trial: Trial, fns: Sequence[Fn]) -> None:
    """As `chain`, but so many calls do not fit into one expression."""
    sink = trial.sink
    for value in trial.source:
        for fn in fns:
            value = fn(value)
        sink(value)
    trial.ended()


async def width(trial: Trial, readers: int) -> None:
    sinks = [trial.sink] * readers
    for value in trial.source:
        for sink in sinks:
            sink(value)
    trial.ended()
