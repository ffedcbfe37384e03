"""hotplumb."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any

import hotplumb as hp
from benchmarks.measuring import Trial

Fn = Callable[[Any], Any]


async def chain(trial: Trial, fns: Sequence[Fn]) -> None:
    await joined(trial, chained(trial, fns))


def chained(trial: Trial, fns: Sequence[Fn]) -> hp.Topology:
    """Maps in a row."""
    topology, last = hp.Topology().add("source", hp.source(trial.source)), "source"
    for i, fn in enumerate(fns):
        topology, last = topology.add(f"stage {i}", hp.map(fn, last)), f"stage {i}"
    return topology.add("sink", hp.sink(trial.sink, last))


async def broadcast(trial: Trial, fns: Sequence[Fn]) -> None:
    topology = hp.Topology().add("source", hp.source(trial.source))
    for i, fn in enumerate(fns):
        topology = topology.add(f"branch {i}", hp.map(fn, "source"))
    await joined(trial, merged(trial, topology, [f"branch {i}" for i in range(len(fns))]))


async def route(trial: Trial, choose: Fn, branches: Mapping[str, Fn]) -> None:
    topology = hp.Topology().add("source", hp.source(trial.source)).add("route", hp.route(choose, "source"))
    for name, fn in branches.items():
        topology = topology.add(f"branch {name}", hp.map(fn, hp.output("route", name)))
    await joined(trial, merged(trial, topology, [f"branch {name}" for name in branches]))


def merged(trial: Trial, topology: hp.Topology, branches: Sequence[str]) -> hp.Topology:
    """The branches, and back."""
    return topology.add("merge", hp.merge(*branches)).add("sink", hp.sink(trial.sink, "merge"))


async def async_stage(trial: Trial, fn: Callable[[Any], Awaitable[Any]]) -> None:
    await joined(trial, chained(trial, [fn]))


async def concurrent_stage(trial: Trial, fn: Callable[[Any], Awaitable[Any]], concurrency: int) -> None:
    topology = (
        hp.Topology().add("source", hp.source(trial.source)).add("stage", hp.map(fn, "source", concurrency=concurrency))
    )
    await joined(trial, topology.add("sink", hp.sink(trial.sink, "stage")))


async def json_lines(trial: Trial, parse: Fn, is_wanted: Fn, enrich: Fn, new_count: Callable[[], Any]) -> None:
    topology = (
        hp.Topology()
        .add("lines", hp.source(trial.source))
        .add("records", hp.map(parse, "lines"))
        .add("wanted", hp.filter(is_wanted, "records"))
        .add("enriched", hp.map(enrich, "wanted"))
        .add("counts", hp.process(new_count, "enriched"))
        .add("sink", hp.sink(trial.sink, "counts"))
    )
    await joined(trial, topology)


async def lone_item(trial: Trial, fns: Sequence[Fn]) -> None:
    await joined(trial, chained(trial, fns))


async def queued_item(trial: Trial, items: int) -> None:
    is_full, is_weighed = asyncio.Event(), asyncio.Event()

    def produce() -> Iterator[Any]:
        yield from trial.source
        is_full.set()

    async def take(value: Any) -> None:
        await is_weighed.wait()

    topology = hp.Topology().add("source", hp.source(produce))
    async with hp.Plumbing(topology.add("sink", hp.sink(take, "source", capacity=2 * items))) as plumbing:
        await is_full.wait()
        trial.ended()
        is_weighed.set()
        await plumbing.join()


async def depth(trial: Trial, fns: Sequence[Fn]) -> None:
    await joined(trial, chained(trial, fns))


async def width(trial: Trial, readers: int) -> None:
    topology = hp.Topology().add("source", hp.source(trial.source))
    await joined(trial, topology.update({("sink", i): hp.sink(trial.sink, "source") for i in range(readers)}))


async def joined(trial: Trial, topology: hp.Topology) -> None:
    """Run a topology to its end."""
    async with hp.Plumbing(topology) as plumbing:
        await plumbing.join()
        trial.ended()
