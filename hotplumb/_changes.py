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
from collections.abc import Awaitable, Callable, Collection
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import attrs

from hotplumb._alignment import Alignment, Settling
from hotplumb._drivers import OwnTask
from hotplumb._links import WHOLE, Link, Marker, Parked
from hotplumb._runner import Runner, Trouble
from hotplumb.errors import ChangeRejected, HandoverError, of_user_code
from hotplumb.items import Hop
from hotplumb.keys import Key, Output, same
from hotplumb.nodes import Node
from hotplumb.region import Region, region_of
from hotplumb.topology import Topology, difference, node_key

if TYPE_CHECKING:
    from hotplumb._engine import Engine

MANY = ("flat_map", "stateful", "process")  # kinds that can give several outputs for one input

Handing = Literal["kept", "carried", "fresh", "flushed"]


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
    removed: frozenset[Key]
    replaced: frozenset[Key]
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
    _changing: Changing | None = None

    async def wait_settled(self) -> None:
        """Return when nothing but state that has met the old version is under way any more."""
        if self._changing is not None:
            await self._changing.wait_settled()

    def force(self, key: object) -> None:
        """Give up what a node that holds the change up has in hand; it goes to the dead letters."""
        if self._changing is not None:
            self._changing.force(key)


class Changing:
    """The carrying out of one change."""

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
            changing=self,
        )
        self.done: asyncio.Future[None] = engine.loop.create_future()
        self.settling: Settling[Link] = Settling(frozenset(), frozenset(), {})
        self.has_switched = False
        self._is_complete = False
        self._successors: dict[Key, Runner] = {}  # {replaced key: who takes its place}
        self._added: dict[Key, Runner] = {}
        self._left: set[Key] = set()  # of the region, not yet switched
        self._region = Region(frozenset(), frozenset(), frozenset())
        self._outputs: defaultdict[Key, list[Link]] = defaultdict(list)  # {key: new links from it}
        self._inputs: defaultdict[Key, list[Link]] = defaultdict(list)  # {key: new links to it}
        self._lost: defaultdict[Key, list[Link]] = defaultdict(list)  # {key: links that go, at either end}
        self._carried: dict[Key, Any] = {}  # {key: state on its way from the old process to the new}
        self._settled: list[asyncio.Future[None]] = []
        self._began = 0.0

    # -- open

    async def open(self) -> None:
        """Make and begin what is new; raises `ChangeRejected` with all of it closed."""
        active = self.new.active
        for key in self.found.replaced:
            if not _keeps_process(self.old.active[key], active[key]):
                self._successors[key] = self._runner(key, active[key])
        for key in self.found.added:
            self._added[key] = self._runner(key, active[key])
        runners = [*self._successors.values(), *self._added.values()]
        try:
            errors = await self.engine.open_runners(runners)
        except BaseException:
            await self._discard(runners)
            raise
        if errors:
            await self._discard(runners)
            runner, cause = errors[0]
            of_user_code(cause)
            raise ChangeRejected(runner.key, cause) from cause

    def _runner(self, key: Key, node: Node) -> Runner:
        runner = Runner(key, node, self.change.epoch, self.engine)
        runner.is_switching = True  # until it has its links
        return runner

    async def _discard(self, runners: Collection[Runner]) -> None:
        for runner in runners:
            runner.forget_wakes()
            if isinstance(runner.driver, OwnTask):
                await runner.driver.order(runner.driver.retire)
            else:
                self.engine.close_runner(runner)

    # -- mark

    def begin(self) -> None:
        """Plan over the graph as it runs now, and let the heads switch."""
        engine = self.engine
        self._began = engine.loop.time()
        self._region = region = region_of(
            [key for key in self.found.touched if key in engine.runners],
            sources=_sources(engine.runners),
            readers=_readers(engine.runners),
            is_many=lambda key: _is_many(engine.runners[key]),
            unsettled={key for changing in engine.settling for key in changing.change.touched},
        )
        self.change.region, self.change.heads = region.inside, region.heads
        self._left = set(region.inside)
        self._make_links()
        self._settle_below()
        for runner in self._added.values():
            self._attach(runner)
        self._align()
        self._look_whether_complete()

    def _make_links(self) -> None:
        for key in self.found.removed:
            for link in self.engine.runners[key].inputs:
                self._lose(link)
        for key in (*self.found.replaced, *self.found.added):
            self._make_inputs(key, self.new.active[key])

    def _make_inputs(self, key: Key, node: Node) -> None:
        runner = self.engine.runners.get(key)
        there = {link.source: link for link in (runner.inputs if runner is not None else ())}
        if key in self._successors:  # what the old one had closed, the new one reads again
            closed = [source for source, link in there.items() if link.is_closed]
            for source in closed:
                self._lost[key].append(there.pop(source))
        for source, link in there.items():
            if source not in node.reads:
                self._lose(link)
        for read in node.reads:
            if read not in there:
                name = read.name if isinstance(read, Output) else WHOLE
                link = Link(read, Parked(), Parked(), node.capacity, name, node.when_full)
                self._inputs[key].append(link)
                self._outputs[node_key(read)].append(link)

    def _lose(self, link: Link) -> None:
        for end in (link.writer, link.reader):
            assert isinstance(end, Runner)
            self._lost[end.key].append(link)

    def _settle_below(self) -> None:
        region, runners = self._region, self.engine.runners
        from_here = region.inside | region.below
        awaited = {
            key: [link for link in runners[key].inputs if not link.is_closed and _key_of(link.writer) in from_here]
            for key in region.below
        }
        self.settling = Settling(self.change.touched, region.inside, awaited)
        self.engine.settling.append(self)

    def _attach(self, runner: Runner) -> None:
        """Put an added node into the graph; what writes to it begins to when that switches."""
        self.engine.add_runner(runner)
        runner.is_switching = runner.node.is_source  # which wait until the change has come through
        runner.rewire((), self._outputs.pop(runner.key, ()), self._inputs.pop(runner.key, ()))

    def _align(self) -> None:
        runners = self.engine.runners
        inside = [runners[key] for key in self._region.inside]
        for runner in inside:
            inner = [
                link for link in runner.inputs if not link.is_closed and _key_of(link.writer) in self._region.inside
            ]
            runner.alignment = Alignment(inner)
        heads = [runner for runner in inside if runner.alignment is not None and runner.alignment.is_complete]
        for runner in heads:
            runner.switching = self
        for runner in heads:
            if runner.is_between:
                self.switch(runner)
            else:
                runner.wake()

    def switch(self, runner: Runner) -> None:
        """`runner` is between two items: have it hand over, and send the marker on."""
        runner.switching = None
        self.has_switched = True
        key = runner.key
        if key in self.found.removed:
            self._retire(runner)
        elif key in self._successors:
            self._hand_over(runner, self._successors[key])
        else:
            if key in self.found.replaced:
                self.change.state[key] = "kept"
            self._go_on(runner, runner)

    def _go_on(self, old: Runner, new: Runner) -> None:
        """Send the marker on all links as they were, and take up those of the new topology."""
        key = old.key
        self._send_markers(old)
        if new is not old:
            new.take_over(old)
            self.engine.replace_runner(old, new)
        node = self.new.active[key]
        if key in self.change.touched:
            new.node, new.epoch, new.hop = node, self.change.epoch, Hop(key, self.change.epoch)
        new.trouble, new.is_switching = (old.trouble if new is old else None), False
        lost, inputs = self._lost.pop(key, []), self._inputs.pop(key, [])
        new.rewire(lost, self._outputs.pop(key, ()), inputs)
        for link in lost:
            self.engine.link_gone(new, link)
        for link in inputs:
            self._reopen(link)
        self._has_gone_on(key)

    def _reopen(self, link: Link) -> None:
        """A writer that does not switch begins to write to a reader that had closed its links."""
        writer = self.engine.runners[node_key(link.source)]
        if writer.key not in self._region.inside and isinstance(link.writer, Parked) and writer.key not in self._added:
            self._outputs[writer.key].remove(link)
            writer.rewire((), (link,), ())

    def _send_markers(self, runner: Runner) -> None:
        for link in runner.outputs:
            is_inner = _key_of(link.reader) in self._region.inside
            link.mark(Marker("mark" if is_inner else "settle", self))

    def _has_gone_on(self, key: Key) -> None:
        self._left.discard(key)
        self.settling.switched(key)
        self._look_whether_complete()

    # -- handing over

    def _hand_over(self, old: Runner, new: Runner) -> None:
        old.is_switching = True
        if old.is_over and not new.node.is_source:
            self._begin_over(old, new)
        elif new.node.state == "flush" and hasattr(old.process, "end"):
            self.change.state[old.key] = "flushed"
            self._flush(old, partial(self._carry, old, new))
        else:
            self._carry(old, new)

    def _begin_over(self, old: Runner, new: Runner) -> None:
        """The old one has ended, and all its links with it: the new one begins when something comes."""
        new.is_over = True
        go_on = partial(self._go_on, old, new)
        if isinstance(new.driver, OwnTask) and new.process is not None:
            self._order(new, new.driver.close, go_on)
        else:
            self.engine.close_runner(new)
            go_on()

    def _flush(self, runner: Runner, then: Callable[[], None]) -> None:
        if isinstance(runner.driver, OwnTask):
            self._order(runner, partial(runner.driver.give_end), then)
        else:
            runner.is_switching = False
            runner.flush(then)
            runner.wake()

    def _carry(self, old: Runner, new: Runner) -> None:
        """Take the old state, close the old process, give the new one the state."""
        old.is_switching = True
        self._take_state(old, new, lambda: self._close(old, lambda: self._give_state(old, new)))

    def _take_state(self, old: Runner, new: Runner, then: Callable[[], None]) -> None:
        how = new.node.state
        if old.key in self._carried or how in ("fresh", "flush"):
            then()
        elif old.node.kind == "stateful" == new.node.kind:
            if callable(how) or same(old.node.initial, new.node.initial):
                self._carried[old.key] = old.state
            then()
        elif hasattr(old.process, "snapshot") and hasattr(new.process, "restore"):
            self._call(old, new, old, old.process.snapshot, then)
        else:
            then()

    def _give_state(self, old: Runner, new: Runner) -> None:
        key, how = old.key, new.node.state
        go_on = partial(self._go_on, old, new)
        if key not in self._carried:
            self.change.state.setdefault(key, "fresh")
            go_on()
            return
        self.change.state[key] = "carried"
        try:
            state = how(self._carried[key]) if callable(how) else self._carried[key]
        except Exception as exc:
            self._hold(old, new, exc)
            return
        if new.node.kind == "stateful":
            new.state = state
            go_on()
        else:
            self._call(old, new, new, partial(new.process.restore, state), go_on)

    def _call(
        self, old: Runner, new: Runner, whose: Runner, method: Callable[[], Any], then: Callable[[], None]
    ) -> None:
        """Call `snapshot` or `restore`, in the task of the process if it has one."""

        def keep(result: Any) -> None:
            if whose is old:
                self._carried[old.key] = result

        if isinstance(whose.driver, OwnTask):
            self._order(old, partial(whose.driver.call, method), then, keep, new, whose)
            return
        try:
            keep(method())
        except Exception as exc:
            self._hold(old, new, exc)
        else:
            then()

    def _close(self, runner: Runner, then: Callable[[], None]) -> None:
        driver = runner.driver
        if isinstance(driver, OwnTask) and driver.has_something_to_close:
            self._order(runner, driver.retire, then)
            return
        if driver is not None:
            driver.dismiss()
        self.engine.close_runner(runner)
        then()

    def _order(
        self,
        old: Runner,
        action: Callable[[], Awaitable[Any]],
        then: Callable[[], None],
        keep: Callable[[Any], None] | None = None,
        new: Runner | None = None,
        whose: Runner | None = None,
    ) -> None:
        """Have something done in a node's own task, and go on when it is."""
        driver = (whose or old).driver
        assert isinstance(driver, OwnTask)

        def obeyed(done: asyncio.Future[Any]) -> None:
            if done.cancelled():
                return  # everything stops
            error = done.exception()
            if error is None:
                if keep is not None:
                    keep(done.result())
                then()
            elif new is not None:
                self._hold(old, new, error)
            else:
                old.fail("close", None, error, skip=then, is_last=True)

        driver.order(action).add_done_callback(partial(self.engine.guarded, obeyed))

    def _hold(self, old: Runner, new: Runner, cause: BaseException) -> None:
        """Hold between the old process and the new; upstream waits."""
        of_user_code(cause)
        old.trouble = trouble = Trouble("hand over", None, cause, self.engine.loop.time())
        trouble.state = "holding"
        trouble.again = partial(self._carry, old, new)
        trouble.skip = partial(self._give_up_state, old, new)
        old.is_switching = False
        self._tell(HandoverError(old.key, self.change, cause), cause)

    def _give_up_state(self, old: Runner, new: Runner) -> None:
        old.is_switching = True
        self._carried.pop(old.key, None)
        self.change.state[old.key] = "fresh"
        self._close(old, partial(self._go_on, old, new))

    def _tell(self, error: BaseException, cause: BaseException) -> None:
        error.__cause__ = cause
        if not self.done.done():
            self.done.set_exception(error)

    # -- removing

    def _retire(self, runner: Runner) -> None:
        """End a node that was removed: what `end` gives still goes out, before the marker."""
        runner.is_switching = True
        leave = partial(self._close, runner, partial(self._leave, runner))
        if runner.is_over or runner.is_fresh or not hasattr(runner.process, "end"):
            leave()
        else:
            self._flush(runner, leave)

    def _leave(self, runner: Runner) -> None:
        runner.is_switching = True
        self._send_markers(runner)
        self.engine.remove_runner(runner)
        for link in self._lost.pop(runner.key, []):
            if link.reader is runner:
                self.engine.link_gone(runner, link)
        self._has_gone_on(runner.key)

    # -- close

    def _look_whether_complete(self) -> None:
        if not self._left and not self._is_complete:
            self._is_complete = True
            self.change.seconds = self.engine.loop.time() - self._began
            self.change.topology = self.engine.reign(self.new, self.change)
            self.change.inverse = self.old.edited_from(self.change.topology, self.change.touched)
            for runner in self._added.values():
                runner.is_switching = False
                runner.wake()
            if not self.done.done():
                self.done.set_result(None)
        self.look_whether_settled()

    def withdraw(self) -> None:
        """Take the change back: no node has switched."""
        runners = self.engine.runners
        for key in self._region.inside:
            runners[key].switching = None
            runners[key].rewire((), (), ())
        for runner in self._added.values():
            self.engine.remove_runner(runner)
        opened = [*self._added.values(), *self._successors.values()]
        self._is_complete = True
        self.engine.settling.remove(self)
        self.engine.start_task(None, self._discard(opened))
        self.engine.change_over()

    def waiting_for(self) -> dict[Key, str]:
        """{key: why} of the nodes that hold the change up."""
        runners = self.engine.runners
        ready = [key for key in self._left if runners[key].switching is not None or runners[key].alignment is None]
        found = {key: _why(runners[key]) for key in ready or self._left}
        for key in self._left:
            if runners[key].is_paused or runners[key].trouble is not None:
                found[key] = _why(runners[key])
        return found

    def force(self, key: object) -> None:
        """Give up what a node has in hand."""
        runner = self.engine.runner(key)
        runner.is_paused = False
        if runner.trouble is not None:
            runner.pass_over("given up")
        elif runner.driver is not None and runner.driver.is_busy:
            runner.is_given_up = True
            runner.driver.give_up()
        runner.wake()

    # -- settling

    def look_whether_settled(self) -> None:
        """Tell those who wait for it when it has settled."""
        if self._is_complete and self.settling.is_done and self in self.engine.settling:
            self.engine.settling.remove(self)
            for waiter in self._settled:
                if not waiter.done():
                    waiter.set_result(None)

    async def wait_settled(self) -> None:
        """Return when it has."""
        if self in self.engine.settling:
            waiter = self.engine.loop.create_future()
            self._settled.append(waiter)
            await self.engine.wait(waiter)


def _why(runner: Runner) -> str:
    match runner.standing:
        case "holding" | "retrying":
            return f"is {runner.standing} on an error"
        case "paused":
            return "is paused"
        case "full":
            return "waits for a full link"
        case _ if runner.driver is not None and runner.driver.is_busy:
            return "is busy in user code"
        case _:
            return "waits for the marker"


def _keeps_process(old: Node, new: Node) -> bool:
    return old.has_same_process(new) and old.concurrency == new.concurrency


def _is_many(runner: Runner) -> bool:
    readers = [_key_of(link.reader) for link in runner.outputs]
    return runner.node.kind in MANY or len(set(readers)) < len(readers)


def _key_of(end: object) -> Key:
    return end.key if isinstance(end, Runner) else None


def _sources(runners: dict[Key, Runner]) -> Callable[[Key], list[Key]]:
    return lambda key: [_key_of(link.writer) for link in runners[key].inputs if not link.is_closed]


def _readers(runners: dict[Key, Runner]) -> Callable[[Key], list[Key]]:
    return lambda key: list(dict.fromkeys([_key_of(link.reader) for link in runners[key].outputs]))
