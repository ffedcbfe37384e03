"""What follows a change below its region, until nothing but state that has met the old version is under way."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Set
from typing import Protocol

from hotplumb._alignment import Settling
from hotplumb._links import Link, Marker
from hotplumb._runner import Runner
from hotplumb.keys import Key


class Settler(Protocol):
    """What following a change asks of the engine."""

    loop: asyncio.AbstractEventLoop
    following: list[Following]

    async def wait(self, waiter: asyncio.Future[None]) -> None:
        """Wait for a future that a failure of the graph ends too."""


class Following:
    """The settling marker of one change on its way.

    Args:
        touched: what the change touches.
        inside: the nodes of its region.
        awaited: `{key below: the links on which the marker is to come in}`.
    """

    def __init__(
        self,
        engine: Settler,
        touched: Set[Key],
        inside: Set[Key],
        awaited: Mapping[Key, list[Link]],
        without: str = "",
    ) -> None:
        self.touched = touched
        self.marker = Marker("settle", self)
        self._engine = engine
        self._settling: Settling[Link] = Settling(touched, inside, awaited, without)
        self._waiters: list[asyncio.Future[None]] = []
        engine.following.append(self)

    def came(self, runner: Runner, link: Link) -> None:
        """The marker has come in on a link of `runner`, or that link is gone."""
        if self._settling.came(runner.key, link):
            for output in runner.outputs:
                output.mark(self.marker)
            self._look()

    def switched(self, key: Key) -> None:
        """A node of the region has switched."""
        self._settling.switched(key)
        self._look()

    def gone(self, key: Key) -> None:
        """A node is there no longer."""
        self._settling.gone(key)
        self._look()

    def stop(self) -> None:
        """Follow no more: the change was withdrawn."""
        self._engine.following.remove(self)

    def _look(self) -> None:
        if self._settling.is_done and self in self._engine.following:
            self._engine.following.remove(self)
            for waiter in self._waiters:
                if not waiter.done():
                    waiter.set_result(None)

    async def wait_settled(self) -> None:
        """Return when it has settled."""
        if self in self._engine.following:
            waiter = self._engine.loop.create_future()
            self._waiters.append(waiter)
            await self._engine.wait(waiter)
