"""A repair: one node that holds is given another process at once, whatever hangs above it.

It is the declared exception to what a change promises: a family that has met the old process may meet the new one too,
and is then counted.  It changes no wiring and waits for no marker.  A change under way it joins, with its epoch.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import TYPE_CHECKING

import attrs

from hotplumb._changes import Change, settling_below
from hotplumb._drivers import Calling
from hotplumb._handover import Handover
from hotplumb._met import Met
from hotplumb._runner import Runner
from hotplumb._settling import Following
from hotplumb.errors import ChangeRejected, HandoverError, UsageError, of_user_code
from hotplumb.items import Chunk, Hop
from hotplumb.keys import Key, canonical
from hotplumb.nodes import Node
from hotplumb.region import reach
from hotplumb.topology import Topology, difference

if TYPE_CHECKING:
    from hotplumb._engine import Engine


class HoldsNothing(UsageError):
    """The node holds nothing, or no longer."""


class Repair:
    """The carrying out of one repair."""

    def __init__(self, engine: Engine, key: Key, node: Node) -> None:
        self._engine = engine
        self._key = key
        self._node = node
        self._old = self._holding()
        self._new = self._make()
        self._done: asyncio.Future[None] = engine.loop.create_future()

    async def carry_out(self) -> Change:
        """Open the new process, and have it take the place of the one that holds."""
        engine = self._engine
        try:
            await self._open()
            old = self._old = await self._returned()
        except BaseException:
            await asyncio.shield(engine.discard([self._new]))
            raise
        handover = old.handover
        if handover is not None:
            handover.renew(self._new, self._make, self._held, self._stands)
        else:
            handover = Handover(engine, old, self._new, self._planned(), self._make, self._stand)
            handover.begin(self._held, self._stands)
        await engine.wait(self._done)
        return handover.change

    def _held(self, error: HandoverError) -> None:
        if not self._done.done():
            self._done.set_exception(error)

    def _stands(self) -> None:
        if not self._done.done():
            self._done.set_result(None)

    async def _open(self) -> None:
        errors = await self._engine.open_runners([self._new])
        if errors:
            cause = errors[0][1]
            of_user_code(cause)
            raise ChangeRejected(self._key, cause) from cause

    def _make(self) -> Runner:
        runner = Runner(self._key, self._node, self._engine.epoch, self._engine)
        runner.is_switching = runner.opens_late = True
        return runner

    async def _returned(self) -> Runner:
        """Who holds when all calls have returned; a change may have replaced who held before."""
        while isinstance(driver := self._holding().driver, Calling) and not driver.is_between:
            await driver.wait_returned()
        return self._holding()

    def _holding(self) -> Runner:
        """Who holds now.  Raises where it cannot be repaired with this node."""
        key = self._key
        text = f"repair({canonical(key)})"
        old = self._engine.runner(key)
        if old.trouble is None or old.trouble.state == "failed":
            raise HoldsNothing(f"{text}: it holds nothing, it is {old.standing}: replace it")
        if old.handover is None and key in self._engine.parting:
            raise HoldsNothing(f"{text}: it is handing over to another process already: wait for that, or replace it")
        if old.handover is None and not (old.is_between or isinstance(old.driver, Calling)):
            raise UsageError(f"{text}: it holds in `{old.trouble.call}`, with no item in hand: retry or discard that")
        reads = (old if old.handover is None else old.handover.new).node.reads
        if frozenset(self._node.reads) != frozenset(reads) or self._node.is_sink != old.node.is_sink:
            now = ", ".join(map(canonical, reads)) or "nothing"
            raise UsageError(f"{text} changes no wiring: the new node is to read what this one reads, {now}")
        for topology in (
            self._engine.topology,
            *([] if self._engine.changing is None else [self._engine.changing.new]),
        ):
            self._check_in(topology)
        return old

    def _check_in(self, topology: Topology) -> None:
        if self._key in topology.active:
            node = attrs.evolve(self._node, reads=topology.reads(self._key))
            others = difference(topology, topology.replace(self._key, node)).touched - {self._key}
            if others:
                named = ", ".join(sorted(map(canonical, others)))
                raise UsageError(f"repair({canonical(self._key)}) changes no wiring, but this one would touch {named}")

    # -- the place is taken

    def _planned(self) -> Change:
        only = frozenset([self._key])
        none: frozenset[Key] = frozenset()
        topology = self._engine.topology
        return Change(self._epoch(), topology, topology, only, none, none, only, region=only, heads=only)

    def _epoch(self) -> int:
        changing = self._engine.changing
        return self._engine.epoch + 1 if changing is None else changing.change.epoch

    def _stand(self, handover: Handover) -> None:
        engine, old, new, change = self._engine, handover.old, handover.new, handover.change
        change.epoch, change.state = self._epoch(), {self._key: handover.handing}
        following = Following(engine, change.touched, change.region, settling_below(engine, [old], is_amid=True))
        if old.met is not None:
            new.met = new.met or Met()
            new.met.cross(old.met, self._under_way(), change.count_crossed)
        for output in old.outputs:
            output.mark(following.marker)
        new.take_over(old)
        engine.replace_runner(old, new)
        new.epoch, new.hops = change.epoch, (Hop(self._key, change.epoch),)
        new.alignment, new.switching, new.wants_finish = old.alignment, old.switching, old.wants_finish
        new.is_switching = False
        new.refit()
        before = engine.topology
        change.topology = engine.reign_repaired(self._key, new.node, change.epoch)
        change.inverse = before.edited_from(change.topology, change.touched)
        change.follow(following)
        following.switched(self._key)

    def _under_way(self) -> Iterator[Chunk]:
        """What may still come to the node, in the links above it and in hand there, of nodes too that have left."""

        def sources(runner: Runner) -> list[Runner]:
            return [found for link in runner.inputs if isinstance(found := link.writer, Runner)]

        for runner in reach([self._old], sources):
            yield from runner.under_way()
