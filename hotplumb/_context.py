"""What user code may know of its place in the graph, and ask of it: the `Context` that one runner hands out."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from hotplumb.errors import UsageError
from hotplumb.items import MOST_MEMBERS, Item, Members, in_hand
from hotplumb.keys import Key, canonical, freeze, key_order

if TYPE_CHECKING:
    from hotplumb._runner import Runner


class NodeContext:
    """The `Context` of one runner."""

    __slots__ = ("_runner", "_timer", "key", "wanted")

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self.key = runner.key
        self._timer: asyncio.TimerHandle | None = None  # for the earliest of the runner's wakes
        self.wanted: frozenset[Key] | None = None  # None: all

    @property
    def reads(self) -> tuple[Key, ...]:
        reads = self._runner.node.reads
        return reads if self.wanted is None else tuple(key for key in reads if key in self.wanted)

    @reads.setter
    def reads(self, keys: Iterable[object]) -> None:
        wanted = frozenset(freeze(key) for key in keys)
        reads = frozenset(self._runner.node.reads)
        if not wanted <= reads:
            unknown = ", ".join(canonical(key) for key in sorted(wanted - reads, key=key_order))
            raise UsageError(f"context.reads = {unknown}: {canonical(self.key)} does not read that")
        self.wanted = None if wanted == reads else wanted
        self._interrupt()

    @property
    def shared(self) -> Any:
        return self._runner.host.shared

    @property
    def readers(self) -> frozenset[Key]:
        return self._runner.host.readers_of(self.key)

    @property
    def sinks(self) -> frozenset[Key]:
        return self._runner.host.sinks_of(self.key)

    @property
    def source(self) -> Key | None:
        link = self._runner.link_in_hand
        return None if link is None or in_hand.get() is None else link.source

    def wake_at(self, time: float) -> None:
        runner = self._runner
        if runner.wakes is None:
            runner.wakes = []
        heapq.heappush(runner.wakes, time)
        self._set_timer()

    def cancel_wakes(self) -> None:
        """Forget all pending times."""
        self._runner.wakes = None
        self._set_timer()

    def _set_timer(self) -> None:
        runner = self._runner
        if self._timer is not None:
            self._timer.cancel()
        self._timer = runner.host.loop.call_at(runner.wakes[0], self._wake) if runner.wakes else None

    def _wake(self) -> None:
        self._timer = None
        runner = self._runner
        if runner.wakes and runner.wakes[0] > runner.host.loop.time():
            self._set_timer()  # a loop may come a little early, by the resolution of its clock
        else:
            runner.wake()

    def taken_wakes(self, now: float) -> None:
        """Take the times that have come off the list."""
        wakes = self._runner.wakes
        while wakes and wakes[0] <= now:
            heapq.heappop(wakes)
        self._set_timer()

    def finish(self) -> None:
        self._runner.wants_finish = True
        self._interrupt()

    def derive_from(self, *items: Item) -> None:
        filling = self._runner.filling
        if filling is None:
            raise UsageError("derive_from is for a Process: what a source gives begins there")
        trails = tuple(item.trail for item in items[:MOST_MEMBERS])
        filling.gather(Members(trails, len(items) - len(trails)))
        self._runner.leave_loops()
        self._runner.may_gather = False  # what it gathers is not looked at in a loop where it gives nothing

    def _interrupt(self) -> None:
        """Look at what has been set as soon as the value in hand is done."""
        runner = self._runner
        if runner.work is not None:
            runner.work.is_interrupted = True
        if runner.driver is not None:
            runner.driver.is_interrupted = True
        runner.leave_loops()
        runner.wake()
