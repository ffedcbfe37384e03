"""A task for each stage, one of anyio's memory object streams between two."""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from benchmarks.measuring import Trial

Fn = Callable[[Any], Any]
Send = MemoryObjectSendStream[Any]
Receive = MemoryObjectReceiveStream[Any]

CAPACITY_ITEMS = 1024  # as a link of ours


async def chain(trial: Trial, fns: Sequence[Fn]) -> None:
    streams = [new_stream() for _ in range(len(fns) + 1)]
    stages = [mapped(fn, streams[i][1], streams[i + 1][0]) for i, fn in enumerate(fns)]
    await together(trial, produced(trial, [streams[0][0]]), *stages, consumed(trial, streams[-1][1]))


async def broadcast(trial: Trial, fns: Sequence[Fn]) -> None:
    streams, (send, receive) = [new_stream() for _ in fns], new_stream()
    stages = [mapped(fn, stream[1], send.clone()) for fn, stream in zip(fns, streams, strict=True)]
    send.close()
    await together(trial, produced(trial, [stream[0] for stream in streams]), *stages, consumed(trial, receive))


async def route(trial: Trial, choose: Fn, branches: Mapping[str, Fn]) -> None:
    streams, source, (send, receive) = {name: new_stream() for name in branches}, new_stream(), new_stream()

    async def routed() -> None:
        async with source[1]:
            async for value in source[1]:
                await streams[choose(value)][0].send(value)
        for stream in streams.values():
            stream[0].close()

    stages = [mapped(fn, streams[name][1], send.clone()) for name, fn in branches.items()]
    send.close()
    await together(trial, produced(trial, [source[0]]), routed(), *stages, consumed(trial, receive))


async def async_stage(trial: Trial, fn: Callable[[Any], Awaitable[Any]]) -> None:
    (before, reads), (send, after) = new_stream(), new_stream()
    await together(trial, produced(trial, [before]), awaited(fn, reads, send), consumed(trial, after))


async def concurrent_stage(trial: Trial, fn: Callable[[Any], Awaitable[Any]], concurrency: int) -> None:
    (before, reads), (send, after) = new_stream(), new_stream()
    stages = [awaited(fn, reads.clone(), send.clone()) for _ in range(concurrency)]
    reads.close()
    send.close()
    await together(trial, produced(trial, [before]), *stages, consumed(trial, after))


async def json_lines(trial: Trial, parse: Fn, is_wanted: Fn, enrich: Fn, new_count: Callable[[], Any]) -> None:
    lines, parsed, wanted, enriched, counted = (new_stream() for _ in range(5))

    async def filtered() -> None:
        async with parsed[1], wanted[0]:
            async for record in parsed[1]:
                if is_wanted(record):
                    await wanted[0].send(record)

    async def processed() -> None:
        count = new_count()
        async with enriched[1], counted[0]:
            async for record in enriched[1]:
                count.process(record)
            for counts in count.end():
                await counted[0].send(counts)

    stages = [mapped(parse, lines[1], parsed[0]), filtered(), mapped(enrich, wanted[1], enriched[0]), processed()]
    await together(trial, produced(trial, [lines[0]]), *stages, consumed(trial, counted[1]))


async def lone_item(trial: Trial, fns: Sequence[Fn]) -> None:
    streams = [new_stream() for _ in range(len(fns) + 1)]
    stages = [mapped(fn, streams[i][1], streams[i + 1][0]) for i, fn in enumerate(fns)]
    await together(trial, produced_slowly(trial.source, streams[0][0]), *stages, consumed(trial, streams[-1][1]))


async def queued_item(trial: Trial, items: int) -> None:
    send, receive = anyio.create_memory_object_stream[Any](items)
    async with send, receive:
        for value in trial.source:
            await send.send(value)
        trial.ended()


def new_stream() -> tuple[Send, Receive]:
    return anyio.create_memory_object_stream[Any](CAPACITY_ITEMS)


async def produced(trial: Trial, streams: Sequence[Send]) -> None:
    for value in trial.source:
        for stream in streams:
            await stream.send(value)
    for stream in streams:
        stream.close()


async def produced_slowly(source: AsyncIterable[Any], writes: Send) -> None:
    async with writes:
        async for value in source:
            await writes.send(value)


async def mapped(fn: Fn, reads: Receive, writes: Send) -> None:
    async with reads, writes:
        async for value in reads:
            await writes.send(fn(value))


async def awaited(fn: Callable[[Any], Awaitable[Any]], reads: Receive, writes: Send) -> None:
    async with reads, writes:
        async for value in reads:
            await writes.send(await fn(value))


async def consumed(trial: Trial, reads: Receive) -> None:
    async with reads:
        async for value in reads:
            trial.sink(value)


async def together(trial: Trial, *stages: Coroutine[Any, Any, None]) -> None:
    """Run each stage in a task."""
    async with anyio.create_task_group() as tasks:
        for stage in stages:
            tasks.start_soon(_run, stage)
    trial.ended()


async def _run(stage: Coroutine[Any, Any, None]) -> None:
    await stage
