"""What follows a change below its region, until nothing but state that has met the old version is under way."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Set
from typing import Final, Protocol

from hotplumb._alignment import Settling
from hotplumb._links import Link, Marker
from hotplumb._runner import Runner
from hotplumb.keys import Key

SETTLED: Final = Marker("settle")
"""Of a change that has settled: its own marker holds on to it, and the two would wait for the garbage collector."""


class Settler(Protocol):
    """What following a change asks of the engine."""

    loop: asyncio.AbstractEventLoop
    runners: dict[Key, Runner]
    following: list[Following]
    """Oldest first: a change settles after those before it, for what they have cut off may still be under way."""

    def ordered(self, keys: Iterable[Key]) -> Iterable[Key]:
        """The keys in an order that a run repeats."""

    async def wait(self, waiter: asyncio.Future[None]) -> None:
        """Wait for a future that a failure of the graph ends too."""


class Following:
    """The settling marker of one change on its way.

    Args:
        touched: what the change touches.
        inside: the nodes of its region.
        awaited: on how many links of each node below the marker is to come in, and on which.
    """

    def __init__(
        self,
        engine: Settler,
        touched: Set[Key],
        inside: Set[Key],
        awaited: tuple[dict[Runner, int], set[Link]],
        without: str = "",
    ) -> None:
        self.touched = touched
        self.marker = Marker("settle", self)
        self._engine = engine
        self._settling: Settling[Runner, Link] = Settling(touched, inside, *awaited, without)
        self._waiters: list[asyncio.Future[None]] = []
        self._late: set[Key] = set()  # nodes that pass it on when they have sent what they have in hand
        engine.following.append(self)
        for key in engine.ordered([runner.key for runner in self._settling.at_once()]):
            self._pass_on(engine.runners[key])
        self._look()

    def came(self, runner: Runner, link: Link) -> None:
        """A node has read the marker, between two items."""
        if self._settling.came(runner, link):
            self._mark(runner)
            self._look()

    def lost(self, runner: Runner, link: Link) -> None:
        """A link of a node is gone, perhaps while it works on what came by it."""
        if self._settling.came(runner, link):
            self._pass_on(runner)
            self._look()

    def _pass_on(self, runner: Runner) -> None:
        if runner.is_between:
            self._mark(runner)
        else:
            self.pass_later(runner)

    def pass_later(self, runner: Runner) -> None:
        """Have a node pass it on in its next step, when it has sent what it has in hand."""
        self._late.add(runner.key)
        runner.pass_later(self.pass_late)

    def pass_late(self, runner: Runner) -> None:
        """A node has sent what it had in hand."""
        if runner.key in self._late:
            self._late.discard(runner.key)
            self._mark(runner)
            self._look()

    def _mark(self, runner: Runner) -> None:
        if self.marker is SETTLED:
            return  # it was withdrawn meanwhile
        for output in runner.outputs:
            output.mark(self.marker)

    def switched(self, key: Key) -> None:
        """A node of the region has switched."""
        self._settling.switched(key)
        self._look()

    def gone(self, runner: Runner) -> None:
        """A node is there no longer."""
        self._settling.gone(runner)
        self._late.discard(runner.key)
        self._look()

    def replaced(self, old: Runner, new: Runner) -> None:
        """Another stands in the place of a node."""
        self._settling.replaced(old, new)

    def stop(self) -> None:
        """Follow no more: the change was withdrawn."""
        self._engine.following.remove(self)
        self._tell()
        self._look()

    def _look(self) -> None:
        following = self._engine.following
        while following and following[0]._settling.is_done and not following[0]._late:
            following.pop(0)._tell()

    def _tell(self) -> None:
        self.marker = SETTLED
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._waiters.clear()

    async def wait_settled(self) -> None:
        """Return when it has settled."""
        if self in self._engine.following:
            waiter = self._engine.loop.create_future()
            self._waiters.append(waiter)
            await self._engine.wait(waiter)
