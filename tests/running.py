"""What the tests of running graphs share: short ways to build one, and a run that must leave nothing behind."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import hotplumb as hp
from hotplumb import testing

T = TypeVar("T")

LONG_S = 20_000.0  # virtual; what is not over then never is

gc.collect()
gc.freeze()  # what is imported is looked at no more: each run of a test collects, and takes half the time


def graph(**nodes: hp.Node) -> hp.Topology:
    """A topology of given nodes, upstream first."""
    topology = hp.Topology()
    for key, node in nodes.items():
        topology = topology.add(key, node)
    return topology


def run(main: Callable[[], Coroutine[Any, Any, T]], seed: int) -> T:
    """`testing.run`, which also fails on tasks that are left and on what only the loop's handler was told."""
    told: list[dict[str, Any]] = []

    async def watched() -> T:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
        async with asyncio.timeout(LONG_S):
            result = await main()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, f"left behind: {left}"
        return result

    result = testing.run(watched, seed=seed)
    gc.collect()
    assert not told, f"seed {seed}: only the loop's exception handler was told: {told}"
    return result


async def joined(topology: hp.Topology) -> dict[Any, list[Any]]:
    """Run to the end; gives what the `collect` sinks have."""
    async with hp.Plumbing(topology) as plumbing:
        await plumbing.join()
        return plumbing.collected()


def outcome(topology: hp.Topology, seed: int) -> Any:
    """What the sink `out` collects in a seeded run to the end."""
    return run(lambda: joined(topology), seed)["out"]


async def failure_of(topology: hp.Topology) -> hp.NodeError:
    """The error that ends a run of it."""
    try:
        await joined(topology)
    except hp.NodeError as error:
        return error
    raise AssertionError("nothing was raised")


def failure(topology: hp.Topology, seed: int) -> hp.NodeError:
    """The error that ends a seeded run of it."""
    return run(lambda: failure_of(topology), seed)


def run_in_order(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run on a loop of asyncio's own, which goes round as real ones do: what is ready first runs first."""

    async def bounded() -> T:
        async with asyncio.timeout(60):
            return await main()

    return asyncio.run(bounded())


def now() -> float:
    """The loop's time: virtual, from 0."""
    return asyncio.get_running_loop().time()


class Clock:
    """The clock by which the engine measures work, moved by user code alone; to be made before the plumbing."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.readings = 0  # the engine reads it between two slices, and within none of plain functions
        setattr(asyncio.get_running_loop(), "work_clock", self._read)  # noqa: B010  no loop of typeshed has it

    def _read(self) -> float:
        self.readings += 1
        return self.seconds

    def work(self, seconds: float) -> None:
        """Hold up the loop for so long."""
        self.seconds += seconds


async def rounds(clock: Clock, count: int) -> list[float]:
    """How long each of so many rounds of the loop worked."""
    found = []
    for _ in range(count):
        before = clock.seconds
        await asyncio.sleep(0)
        found.append(clock.seconds - before)
    return found
