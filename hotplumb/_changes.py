"""One change of a running graph, in four phases: plan, open, mark, close.

Plan     what differs, and the region the change has to pass through in order (`region`).
Open     new processes are made and begun; what fails here rejects the change, and the graph has not noticed.
Mark     the heads of the region switch between two items, and send a marker on; each further node switches when the
         marker has come in on all its links from inside the region (`_alignment`).
Close    what was replaced or removed is closed as it switches, after its last item.

What leaves the region is followed by a settling marker: when that has passed everything below, nothing that has met the
old version is under way any more but state.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Collection
from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING, Any, ClassVar

import attrs

from hotplumb._alignment import Alignment
from hotplumb._handover import Handing, Handover, Leaving
from hotplumb._links import WHOLE, Link, Marker, Parked
from hotplumb._runner import Runner
from hotplumb._settling import Following
from hotplumb.errors import ChangeRejected, ChangeTimeout, HandoverError, of_user_code, said_by
from hotplumb.items import Hop
from hotplumb.keys import Key, Output, canonical, key_order
from hotplumb.nodes import Node
from hotplumb.region import Region, awaited_below, region_of
from hotplumb.topology import Topology, difference, node_key

if TYPE_CHECKING:
    from hotplumb._engine import Engine


@attrs.define(eq=False)
class Change:
    """A change of a running graph that has come through, or is on its way."""

    epoch: int
    """The number of the reign that it begins."""
    topology: Topology
    """What reigns then."""
    inverse: Topology
    """What to apply to go back."""
    touched: frozenset[Key]
    """The nodes whose description, sources or readers differ, and those added or removed; their epoch is this one."""
    added: frozenset[Key]
    """The nodes that were not there before."""
    removed: frozenset[Key]
    """The nodes that are there no longer."""
    replaced: frozenset[Key]
    """The nodes of both topologies whose description or sources differ."""
    region: frozenset[Key] = frozenset()
    """The nodes of the old graph that switched in order."""
    heads: frozenset[Key] = frozenset()
    """Those of them that switched at once."""
    state: dict[Key, Handing] = attrs.field(factory=dict)
    """What became of the state of each replaced node."""
    seconds: float = 0.0
    """From the heads' switch to the last, on the loop's clock."""
    crossed: int = 0
    """Families that have met both versions of a node; 0 but after a repair."""
    _following: Following | None = attrs.field(default=None, repr=False)
    _engine: Engine | None = attrs.field(default=None, repr=False)

    async def wait_settled(self) -> None:
        """Return when nothing but state that has met the old version is under way any more."""
        if self._following is not None:
            await self._following.wait_settled()

    def force(self, key: object) -> None:
        """Give up what a node that holds the change up has in hand; it goes to the dead letters."""
        if self._engine is not None:
            self._engine.force(key)

    def follow(self, following: Following) -> None:
        """Settle when `following` does.

        :meta private:
        """
        self._following = following

    def count_crossed(self, families: int) -> None:
        """So many more families have met both versions.

        :meta private:
        """
        self.crossed += families


class Changing:
    """The carrying out of one change."""

    without: ClassVar[str] = ""
    """A clause of the rules to leave out, for tests of the tests; see `region_of` and `_alignment`."""

    def __init__(self, engine: Engine, new: Topology) -> None:
        self.engine = engine
        self.old = engine.topology
        self.new = new
        self.found = found = difference(self.old, new)
        self.change = Change(
            engine.epoch + 1,
            new,
            self.old,
            found.touched,
            found.added,
            found.removed,
            found.replaced,
            engine=engine,
        )
        self.done: asyncio.Future[None] = engine.loop.create_future()
        self.has_switched = False
        self.is_complete = False
        self._successors: dict[Key, Runner] = {}  # {replaced key: who takes its place}
        self._added: dict[Key, Runner] = {}
        self._left: set[Key] = set()  # of the region, not yet switched
        self._region: Region[Runner] = Region(frozenset(), frozenset())
        self._outputs: defaultdict[Key, list[Link]] = defaultdict(list)  # {key: new links from it}
        self.pending: defaultdict[Key, list[Link]] = defaultdict(list)  # {key: new links to it, till it switches}
        self.repaired: set[Key] = set()  # nodes that were repaired meanwhile
        self._lost: defaultdict[Key, list[Link]] = defaultdict(list)  # {key: links that go, at either end}
        self._began = 0.0

    # -- open

    async def open(self, deadline: float | None) -> None:
        """Make and begin what is new; where that fails or takes too long it raises, with all of it closed."""
        active = self.new.active
        for key in self.engine.ordered(self.found.replaced):
            if not _keeps_process(self.old.active[key], active[key]):
                self._successors[key] = self._runner(key, active[key])
        for key in self.engine.ordered(self.found.added):
            self._added[key] = self._runner(key, active[key])
        runners = [*self._successors.values(), *self._added.values()]
        try:
            async with asyncio.timeout_at(deadline):
                errors = await self.engine.open_runners(runners)
        except TimeoutError:
            late = [runner.key for runner in runners if runner.driver and runner.driver.is_beginning]
            await asyncio.shield(self.engine.discard(runners))
            raise ChangeTimeout(self.change, dict.fromkeys(late, "is busy in `begin`"), True) from None
        except BaseException:
            await asyncio.shield(self.engine.discard(runners))
            raise
        if errors:
            await asyncio.shield(self.engine.discard(runners))
            runner, cause = errors[0]
            of_user_code(cause)
            raise ChangeRejected(runner.key, cause) from cause

    def _runner(self, key: Key, node: Node) -> Runner:
        runner = Runner(key, node, self.change.epoch, self.engine)
        runner.is_switching = True  # until it has its links
        runner.opens_late = key in self.found.replaced
        return runner

    # -- mark

    def begin(self) -> None:
        """Plan over the graph as it runs now, and let the heads switch."""
        engine = self.engine
        self._began = engine.loop.time()
        self._region = region = region_of(
            engine.running(self.found.touched),
            inputs=_inputs,
            outputs=_outputs,
            writer=_writer,
            reader=_reader,
            is_many=_is_many,
            unsettled={runner for following in engine.following for runner in engine.running(following.touched)},
            without=self.without,
        )
        inside = frozenset([runner.key for runner in region.inside])
        self.change.region, self.change.heads = inside, frozenset([runner.key for runner in region.heads])
        self._left = set(inside)
        self._make_links()
        self._following = Following(
            engine, self.change.touched, inside, settling_below(engine, region.inside), self.without
        )
        self.change.follow(self._following)
        for runner in self._added.values():
            self._attach(runner)
        self._align()
        self._look_whether_complete()

    def _make_links(self) -> None:
        for key in self.engine.ordered(self.found.removed):
            for link in self.engine.runners[key].inputs:
                self._lose(link)
        for key in self.engine.ordered((*self.found.replaced, *self.found.added)):
            self._make_inputs(key, self.new.active[key])

    def _make_inputs(self, key: Key, node: Node) -> None:
        runner = self.engine.runners.get(key)
        if runner is not None and self.old.active[key].reads == node.reads:
            return
        there = {link.source: link for link in (runner.inputs if runner is not None else ())}
        wanted = set(node.reads)
        for source, link in there.items():
            if source not in wanted:
                self._lose(link)
        for read in node.reads:
            if read not in there:
                self._make_input(key, read)

    def _make_input(self, key: Key, read: Key) -> None:
        node, writer = self.new.active[key], node_key(read)
        name = read.name if isinstance(read, Output) else WHOLE
        link = Link(read, Parked(writer), Parked(key), node.capacity, name, node.when_full)
        self.pending[key].append(link)
        self._outputs[writer].append(link)

    def _lose(self, link: Link) -> None:
        for end in (link.writer, link.reader):
            assert isinstance(end, Runner)
            self._lost[end.key].append(link)

    def _attach(self, runner: Runner) -> None:
        """Put an added node into the graph; what writes to it begins to when that switches."""
        self.engine.add_runner(runner)
        runner.is_switching = runner.is_source  # which wait until the change has come through
        runner.rewire((), self._outputs.pop(runner.key, ()), self.pending.pop(runner.key, ()))

    def _align(self) -> None:
        runners = self.engine.runners
        inside = [runners[key] for key in self.engine.ordered(self.change.region)]
        for runner in inside:
            inner = [link for link in runner.inputs if not link.is_closed and link.writer in self._region.inside]
            runner.unloop()
            runner.alignment = Alignment(inner, self.without)
            if runner.alignment.takes_up_new_links:
                runner.take_up(self.pending.pop(runner.key, ()))
        heads = [runner for runner in inside if runner.alignment is not None and runner.alignment.is_complete]
        for runner in heads:
            runner.switching = self
        for runner in heads:
            if runner.is_between and not runner.is_switching:
                self.switch(runner)
            else:
                runner.wake()

    def switch(self, runner: Runner) -> None:
        """`runner` is between two items: have it hand over, and send the marker on."""
        runner.switching = None
        self.has_switched = True
        key = runner.key
        if key in self.found.removed:
            Leaving(self.engine, runner, partial(self._leave, runner)).begin()
        elif key in self._successors:
            self._hand_over(runner)
        else:
            if key in self.found.replaced:
                self.change.state[key] = "kept"
            self._go_on(runner, runner)

    def _go_on(self, old: Runner, new: Runner) -> None:
        """Send the marker on the links inside as they were, and take up those of the new topology."""
        key = old.key
        self._mark_inside(old)
        if new is not old:
            new.take_over(old)
            self.engine.replace_runner(old, new)
            self._renew_closed(new)
        node = self.new.active[key]
        if key in self.change.touched:
            new.node, new.epoch, new.hops = node, self.change.epoch, (Hop(key, self.change.epoch),)
        new.trouble, new.is_switching = (old.trouble if new is old else None), False
        lost, inputs = self._lost.pop(key, []), self.pending.pop(key, [])
        new.rewire(lost, self._outputs.pop(key, ()), inputs)
        if new is not old and new.node.is_source:
            self.engine.start_source(new)
        for link in lost:
            if link.reader is new:
                self.engine.link_gone(new, link)
        for link in inputs:
            self._connect(link)
        self._following.pass_later(new)
        self._has_gone_on(key)

    def _renew_closed(self, new: Runner) -> None:
        """What the old process had finished with, the new one reads anew."""
        for link in new.inputs:
            if link.is_closed and link not in self._lost[new.key]:
                self._lost[new.key].append(link)
                assert isinstance(link.writer, Runner)
                link.writer.forget_closed(link)
                self._make_input(new.key, link.source)

    def _connect(self, link: Link) -> None:
        """Take a new link up at its other end, where that has switched or does not switch."""
        writer = self.engine.runners[node_key(link.source)]
        if isinstance(link.writer, Parked) and writer.key not in self._left:
            self._outputs[writer.key].remove(link)
            writer.rewire((), (link,), ())

    def _mark_inside(self, runner: Runner) -> None:
        inside = self.change.region
        for link in runner.outputs if len(inside) > 1 else ():
            if _key_of(link.reader) in inside:
                link.mark(Marker("mark", self))

    def _has_gone_on(self, key: Key) -> None:
        self._left.discard(key)
        self._following.switched(key)
        self._look_whether_complete()

    # -- handing over, and removing

    def _hand_over(self, old: Runner) -> None:
        key = old.key
        make = partial(self._runner, key, self.new.active[key])
        Handover(self.engine, old, self._successors[key], self.change, make, self._handed_over).begin(self._tell)

    def _handed_over(self, handover: Handover) -> None:
        key, node = handover.old.key, handover.new.node
        self.change.state[key] = handover.handing
        if node is not self.new.active[key]:  # yet another was put in its place while it held
            self.put(key, node)
        self._go_on(handover.old, handover.new)

    def put(self, key: Key, node: Node) -> None:
        """Have another description of a node in what will reign."""
        self.engine.note_former(self.new)
        self.new = self.new.replace(key, node)

    def _tell(self, error: HandoverError) -> None:
        if not self.done.done():
            self.done.set_exception(error)

    def _leave(self, runner: Runner) -> None:
        self._mark_inside(runner)
        self.engine.remove_runner(runner)
        for link in self._lost.pop(runner.key, []):
            if link.reader is runner:
                self.engine.link_gone(runner, link)
        self._has_gone_on(runner.key)

    # -- close

    def _look_whether_complete(self) -> None:
        if not self._left and not self.is_complete:
            self.is_complete = True
            self.change.seconds = self.engine.loop.time() - self._began
            self.change.topology = self.engine.reign(self.new, self.change, self.repaired)
            self.change.inverse = self.old.edited_from(self.change.topology, self.change.touched)
            for runner in self._added.values():
                self.engine.start_source(runner)
            if not self.done.done():
                self.done.set_result(None)

    def withdraw(self) -> None:
        """Take the change back: no node has switched."""
        runners = self.engine.runners
        for key in self.engine.ordered(self.change.region):
            runners[key].switching = None
            runners[key].rewire((), (), ())
        for runner in self._added.values():
            self.engine.remove_runner(runner)
        opened = [*self._added.values(), *self._successors.values()]
        self.is_complete = True
        self._following.stop()
        self.engine.discard(opened)
        self.engine.change_over()

    def waiting_for(self) -> dict[Key, str]:
        """{key: why} of the nodes that hold the change up."""
        runners = self.engine.runners
        ready = [key for key in self._left if runners[key].switching is not None or runners[key].alignment is None]
        found = {key: _why(runners[key]) for key in sorted(ready or self._left, key=key_order)}
        for key in sorted(self._left, key=key_order):
            if runners[key].is_paused or runners[key].trouble is not None:
                found[key] = _why(runners[key])
        return found

    def repair(self, key: Key, node: Node) -> None:
        """A node has been repaired while this was under way: it stays so, unless this gives it a process of its own."""
        self.old = self.engine.topology
        if key in self.new.active and key not in self._successors:
            self.put(key, attrs.evolve(node, reads=self.new.reads(key)))
            self.repaired.add(key)


def settling_below(
    engine: Engine, inside: Collection[Runner], is_amid: bool = False
) -> tuple[dict[Runner, int], set[Link]]:
    """On how many links of each node below a region a settling marker is to come in, and on which.

    Amid a change there are readers that have yet to take a link up, and some that have left before their writers know.
    """

    def outputs_amid(runner: Runner) -> Collection[Link]:
        return [link for link in _outputs(runner) if engine.is_there(engine.reader_of(link))]

    outputs, reader = (outputs_amid, engine.reader_of) if is_amid else (_outputs, _reader)
    return awaited_below(inside, outputs=outputs, reader=reader, is_closed=attrgetter("is_closed"))


def _is_many(runner: Runner) -> bool:
    return runner.is_many


def _inputs(runner: Runner) -> Collection[Link]:
    return runner.inputs


def _outputs(runner: Runner) -> Collection[Link]:
    return [*runner.outputs, *runner.closed_outputs] if runner.closed_outputs else runner.outputs


def _writer(link: Link) -> Any:
    return link.writer


def _reader(link: Link) -> Any:
    return link.reader


def _why(runner: Runner) -> str:
    now = runner.host.loop.time()
    if runner.trouble is not None:
        trouble = runner.trouble
        return f"is {runner.standing} for {_ago(trouble.since, now)}: {said_by(trouble.cause)}"
    if runner.is_paused:
        return "is paused"
    if runner.driver is not None and runner.driver.is_busy:
        return f"is busy in user code for {_ago(runner.driver.busy_since, now)}"
    if runner.is_switching:
        return "is busy in user code: it hands over"
    full = sorted([_key_of(link.reader) for link in runner.outputs if link.is_full], key=key_order)
    if full:
        return f"waits for a full link to {', '.join(map(canonical, full))}"
    return "waits for the marker"


def _ago(time: float, now: float) -> str:
    return f"{now - time:.3g} s"


def _keeps_process(old: Node, new: Node) -> bool:
    return old.has_same_process(new) and old.concurrency == new.concurrency


def _key_of(end: object) -> Key:
    return end.key if isinstance(end, Runner) else None
