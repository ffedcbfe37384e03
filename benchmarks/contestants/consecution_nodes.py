"""consecution: nodes that push each item on by calls; nothing of it awaits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from consecution import Node, Pipeline

from benchmarks.measuring import Trial

Fn = Callable[[Any], Any]


class Applying(Node):
    def process(self, item: Any) -> None:
        self.push(self.fn(item))


class Filtering(Node):
    def process(self, item: Any) -> None:
        if self.fn(item):
            self.push(item)


class Broadcasting(Node):
    def process(self, item: Any) -> None:
        self.push(item)


class Counting(Node):
    def process(self, item: Any) -> None:
        self.count.process(item)

    def end(self) -> None:
        for counts in self.count.end():
            self.push(counts)


class Ending(Node):
    def process(self, item: Any) -> None:
        self.fn(item)


async def chain(trial: Trial, fns: Sequence[Fn]) -> None:
    consume(trial, chained(trial, fns))


async def broadcast(trial: Trial, fns: Sequence[Fn]) -> None:
    branches = [Applying(f"branch {i}", fn=fn) for i, fn in enumerate(fns)]
    consume(trial, Pipeline(Broadcasting("source") | branches | Ending("sink", fn=trial.sink)))


async def route(trial: Trial, choose: Fn, branches: Mapping[str, Fn]) -> None:
    routed = [*(Applying(name, fn=fn) for name, fn in branches.items()), choose]
    consume(trial, Pipeline(Broadcasting("source") | routed | Ending("sink", fn=trial.sink)))


async def json_lines(trial: Trial, parse: Fn, is_wanted: Fn, enrich: Fn, new_count: Callable[[], Any]) -> None:
    stages = Applying("parse", fn=parse) | Filtering("filter", fn=is_wanted) | Applying("enrich", fn=enrich)
    consume(trial, Pipeline(stages | Counting("count", count=new_count()) | Ending("sink", fn=trial.sink)))


async def lone_item(trial: Trial, fns: Sequence[Fn]) -> None:
    pipeline = chained(trial, fns)
    pipeline.begin()
    async for value in trial.source:
        pipeline.push(value)
    pipeline.end()
    trial.ended()


def chained(trial: Trial, fns: Sequence[Fn]) -> Pipeline:
    """Maps in a row."""
    first, *others = [Applying(f"stage {i}", fn=fn) for i, fn in enumerate(fns)]
    for node in [*others, Ending("sink", fn=trial.sink)]:
        first = first | node
    return Pipeline(first)


def consume(trial: Trial, pipeline: Pipeline) -> None:
    pipeline.consume(trial.source)
    trial.ended()
