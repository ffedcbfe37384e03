"""A task for each stage, an `asyncio.Queue` between two: what most people write."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any, Final

from benchmarks.measuring import Trial

Fn = Callable[[Any], Any]
Queue = asyncio.Queue[Any]

END: Final = object()
CAPACITY_ITEMS = 1024  # as a link of ours


async def chain(trial: Trial, fns: Sequence[Fn]) -> None:
    queues = [new_queue() for _ in range(len(fns) + 1)]
    stages = [mapped(fn, queues[i], queues[i + 1]) for i, fn in enumerate(fns)]
    await together(trial, produced(trial, queues[:1]), *stages, consumed(trial, queues[-1]))


async def broadcast(trial: Trial, fns: Sequence[Fn]) -> None:
    queues, merged = [new_queue() for _ in fns], new_queue()
    stages = [mapped(fn, queue, merged) for fn, queue in zip(fns, queues, strict=True)]
    await together(trial, produced(trial, queues), *stages, consumed(trial, merged, len(fns)))


async def route(trial: Trial, choose: Fn, branches: Mapping[str, Fn]) -> None:
    queues, source, merged = {name: new_queue() for name in branches}, new_queue(), new_queue()

    async def routed() -> None:
        while (value := await source.get()) is not END:
            await queues[choose(value)].put(value)
        for queue in queues.values():
            await queue.put(END)

    stages = [mapped(fn, queues[name], merged) for name, fn in branches.items()]
    await together(trial, produced(trial, [source]), routed(), *stages, consumed(trial, merged, len(branches)))


async def async_stage(trial: Trial, fn: Callable[[Any], Awaitable[Any]]) -> None:
    await concurrent_stage(trial, fn, 1)


async def concurrent_stage(trial: Trial, fn: Callable[[Any], Awaitable[Any]], concurrency: int) -> None:
    before, after = new_queue(), new_queue()

    async def awaited() -> None:
        while (value := await before.get()) is not END:
            await after.put(await fn(value))
        await before.put(END)  # for the other workers
        await after.put(END)

    stages = [awaited() for _ in range(concurrency)]
    await together(trial, produced(trial, [before]), *stages, consumed(trial, after, concurrency))


async def json_lines(trial: Trial, parse: Fn, is_wanted: Fn, enrich: Fn, new_count: Callable[[], Any]) -> None:
    lines, parsed, wanted, enriched, counted = (new_queue() for _ in range(5))

    async def filtered() -> None:
        while (record := await parsed.get()) is not END:
            if is_wanted(record):
                await wanted.put(record)
        await wanted.put(END)

    async def processed() -> None:
        count = new_count()
        while (record := await enriched.get()) is not END:
            count.process(record)
        for counts in count.end():
            await counted.put(counts)
        await counted.put(END)

    stages = [mapped(parse, lines, parsed), filtered(), mapped(enrich, wanted, enriched), processed()]
    await together(trial, produced(trial, [lines]), *stages, consumed(trial, counted))


async def lone_item(trial: Trial, fns: Sequence[Fn]) -> None:
    queues = [new_queue() for _ in range(len(fns) + 1)]

    async def produced_slowly() -> None:
        async for value in trial.source:
            await queues[0].put(value)
        await queues[0].put(END)

    stages = [mapped(fn, queues[i], queues[i + 1]) for i, fn in enumerate(fns)]
    await together(trial, produced_slowly(), *stages, consumed(trial, queues[-1]))


async def queued_item(trial: Trial, items: int) -> None:
    queue: Queue = asyncio.Queue(items)
    for value in trial.source:
        await queue.put(value)
    trial.ended()


def new_queue() -> Queue:
    return asyncio.Queue(CAPACITY_ITEMS)


async def produced(trial: Trial, queues: Sequence[Queue]) -> None:
    for value in trial.source:
        for queue in queues:
            await queue.put(value)
    for queue in queues:
        await queue.put(END)


async def mapped(fn: Fn, reads: Queue, writes: Queue) -> None:
    while (value := await reads.get()) is not END:
        await writes.put(fn(value))
    await writes.put(END)


async def consumed(trial: Trial, reads: Queue, writers: int = 1) -> None:
    while writers:
        if (value := await reads.get()) is END:
            writers -= 1
        else:
            trial.sink(value)


async def together(trial: Trial, *stages: Coroutine[Any, Any, None]) -> None:
    """Run each stage in a task."""
    async with asyncio.TaskGroup() as tasks:
        for stage in stages:
            tasks.create_task(stage)
    trial.ended()
