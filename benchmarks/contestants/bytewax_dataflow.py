"""bytewax: a dataflow run by an engine in Rust, which takes items in batches; nothing of it awaits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any

import bytewax.operators as op
from bytewax.dataflow import Dataflow
from bytewax.inputs import DynamicSource, StatelessSourcePartition, batch, batch_async
from bytewax.operators import StatefulBatchLogic
from bytewax.outputs import DynamicSink, StatelessSinkPartition
from bytewax.testing import run_main

from benchmarks.measuring import Trial

Fn = Callable[[Any], Any]

BATCH_ITEMS = 1000  # what its own connectors for files take by default
PATIENCE_S = 0.1  # for a lone item, before the engine is asked for other work


class Reading(DynamicSource):
    """Batches of items, as they come."""

    def __init__(self, batches: Iterator[list[Any]]) -> None:
        self._batches = batches

    def build(self, step_id: str, worker_index: int, worker_count: int) -> StatelessSourcePartition:
        return Part(self._batches)


class Part(StatelessSourcePartition):
    def __init__(self, batches: Iterator[list[Any]]) -> None:
        self._batches = batches

    def next_batch(self) -> list[Any]:
        return next(self._batches)


class Calling(DynamicSink):
    """Calls a function with each item."""

    def __init__(self, fn: Fn) -> None:
        self._fn = fn

    def build(self, step_id: str, worker_index: int, worker_count: int) -> StatelessSinkPartition:
        return Called(self._fn)


class Called(StatelessSinkPartition):
    def __init__(self, fn: Fn) -> None:
        self._fn = fn

    def write_batch(self, items: list[Any]) -> None:
        fn = self._fn
        for item in items:
            fn(item)


class Counting(StatefulBatchLogic):
    """All records under one key, counted by the question's own process."""

    def __init__(self, count: Any) -> None:
        self._count = count

    def on_batch(self, values: list[Any]) -> tuple[list[Any], bool]:
        for value in values:
            self._count.process(value)
        return [], self.RETAIN

    def on_eof(self) -> tuple[list[Any], bool]:
        return list(self._count.end()), self.DISCARD

    def snapshot(self) -> None:
        return None


async def chain(trial: Trial, fns: Sequence[Fn]) -> None:
    flow, items = read(trial)
    run(trial, flow, mapped(items, fns))


async def broadcast(trial: Trial, fns: Sequence[Fn]) -> None:
    flow, items = read(trial)
    run(trial, flow, op.merge("merge", *[op.map(f"branch {i}", items, fn) for i, fn in enumerate(fns)]))


async def route(trial: Trial, choose: Fn, branches: Mapping[str, Fn]) -> None:
    """By halves: a branch divides in two."""
    flow, items = read(trial)
    named = op.map("choose", items, lambda item: (choose(item), item))
    run(trial, flow, op.merge("merge", *_divided(named, branches, list(branches))))


def _divided(items: Any, branches: Mapping[str, Fn], names: list[str]) -> list[Any]:
    if len(names) == 1:
        fn = branches[names[0]]
        return [op.map(f"branch {names[0]}", items, lambda named: fn(named[1]))]
    first, second = names[: len(names) // 2], names[len(names) // 2 :]
    halves = op.branch(f"divide {' '.join(names)}", items, lambda named: named[0] in first)
    return _divided(halves.trues, branches, first) + _divided(halves.falses, branches, second)


async def json_lines(trial: Trial, parse: Fn, is_wanted: Fn, enrich: Fn, new_count: Callable[[], Any]) -> None:
    flow, items = read(trial)
    wanted = op.filter("filter", op.map("parse", items, parse), is_wanted)
    keyed = op.key_on("key", op.map("enrich", wanted, enrich), lambda _: "all")
    run(trial, flow, op.key_rm("counts", op.stateful_batch("count", keyed, lambda _: Counting(new_count()))))


async def lone_item(trial: Trial, fns: Sequence[Fn]) -> None:
    """In a thread: the dataflow runs an event loop of its own, to wait for items."""
    await asyncio.to_thread(_lone_item, trial, fns)


def _lone_item(trial: Trial, fns: Sequence[Fn]) -> None:
    loop = asyncio.new_event_loop()
    try:
        flow = Dataflow("benchmark")
        batches = batch_async(_items(trial.source), timedelta(seconds=PATIENCE_S), 1, loop)
        run(trial, flow, mapped(op.input("source", flow, Reading(batches)), fns))
    finally:
        loop.close()


async def _items(source: AsyncIterable[Any]) -> Any:
    async for item in source:
        yield item


def read(trial: Trial) -> tuple[Dataflow, Any]:
    flow = Dataflow("benchmark")
    return flow, op.input("source", flow, Reading(batch(trial.source, BATCH_ITEMS)))


def mapped(items: Any, fns: Sequence[Fn]) -> Any:
    for i, fn in enumerate(fns):
        items = op.map(f"stage {i}", items, fn)
    return items


def run(trial: Trial, flow: Dataflow, results: Any) -> None:
    op.output("sink", results, Calling(trial.sink))
    run_main(flow)
    trial.ended()
