"""Plumbing: a topology that runs.

The face of a running graph: what is done to it and asked of it.  What runs it is the engine.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from types import FrameType, TracebackType
from typing import Any, TypeVar

import attrs

from hotplumb._changes import Change
from hotplumb._engine import Engine
from hotplumb._links import Inbox
from hotplumb._log import log
from hotplumb._repair import HoldsNothing
from hotplumb._runner import Runner, State
from hotplumb._supervision import Policy, check_policy, stop
from hotplumb.compose import Branch, in_order, topology_of
from hotplumb.errors import HotplumbError, UsageError
from hotplumb.items import Chunk, Failure, Item, Root
from hotplumb.keys import Key, canonical, freeze, key_order
from hotplumb.nodes import CAPACITY_ITEMS, Node
from hotplumb.topology import Factory, Topology

V = TypeVar("V")

DRAIN_NOTICE_S = 10.0  # a block that is slow to leave says why


@attrs.frozen
class NodeStatistics:
    """What one node has done so far, and what it is doing."""

    received: int
    """Items it has taken and worked on."""
    sent: int
    """Items it has given, each counted once however many read it."""
    failed: int
    """Items, and calls without one, that failed and went no further."""
    dropped: int
    """Items forgotten, unread: by `.overflow(...)`, or because the node finished."""
    queued_items: int
    """Items that wait in its incoming links."""
    busy_s: float
    """Seconds spent in its user code, for async code with what it awaited."""
    state: State
    """"waiting" for items, "busy", "full" (waits for a reader), "paused", "retrying" (waits before a further attempt),
    "holding", "failed", "ended" or "finished"."""
    epoch: int
    """The change that last touched it."""
    trouble: Trouble | None
    """What it has failed on, while it waits to try again, holds it or has stopped the plumbing; else None."""


@attrs.frozen
class Trouble:
    """A failure that is not decided yet."""

    call: str
    """What user code was called as: "map", "process", "end" ..."""
    item: Item | None
    """What it had in hand."""
    exception: BaseException
    """What it raised last."""
    attempts: int
    """How many attempts have failed."""
    since: float
    """When the last of them did, on the loop's clock."""


class ByKey(Mapping[Any, V]):
    """`{key: value}` in canonical order, where a key may be given as it was written: `nodes[{"feed": "cpu"}]`."""

    def __init__(self, values: dict[Key, V]) -> None:
        self._values = {key: values[key] for key in sorted(values, key=key_order)}

    def __getitem__(self, key: object) -> V:
        return self._values[freeze(key)]

    def __iter__(self) -> Iterator[Key]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"{{{', '.join(f'{canonical(key)}: {value!r}' for key, value in self._values.items())}}}"


@attrs.frozen
class Statistics:
    """A picture of a running graph, taken at one moment."""

    nodes: Mapping[Any, NodeStatistics]
    """By key, in canonical order; a key may be given as it was written."""


class Tap:
    """The items that a node sends, from now on: an async iterator that ends with the node or the plumbing.

    It never makes the node wait: of what is not taken in time the oldest is forgotten and counted in `dropped`.
    """

    def __init__(self, forget: Callable[[Tap], None]) -> None:
        self._chunks: deque[Chunk] = deque()
        self._items: Iterator[Item] = iter(())
        self._queued = 0
        self._waiter: asyncio.Future[None] | None = None
        self._forget = forget
        self._is_closed = False
        self.dropped = 0

    def put(self, chunk: Chunk) -> None:
        """The node has sent a chunk."""
        self._chunks.append(chunk)
        self._queued += len(chunk)
        while self._queued > CAPACITY_ITEMS:
            gone = len(self._chunks.popleft())
            self._queued -= gone
            self.dropped += gone
        self._wake()

    def close(self) -> None:
        """Nothing more will come."""
        self._is_closed = True
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def __aiter__(self) -> Tap:
        return self

    async def __anext__(self) -> Item:
        while True:
            for item in self._items:
                return item
            if self._chunks:
                chunk = self._chunks.popleft()
                self._queued -= len(chunk)
                self._items = chunk.items()
            elif self._is_closed:
                raise StopAsyncIteration
            else:
                self._waiter = asyncio.get_running_loop().create_future()
                await self._waiter

    async def aclose(self) -> None:
        """Listen no more."""
        if not self._is_closed:
            self._forget(self)
            self.close()


class Plumbing:
    """A topology that runs, from entering the block to leaving it.

        async with hp.Plumbing(topology) as plumbing:
            await plumbing.join()

    Leaving the block drains: sources give no more, and all that is under way is processed; so an endless source ends
    there, and a finite one is cut short unless it has been joined.  Leaving by an exception or a cancellation stops at
    once.  What user code raises stops everything, cancels the block and is raised from it as `NodeError`.

    asyncio and uvloop; not trio.

    Args:
        topology: what is to run; a pipeline is run as its `.topology()`.
        on_error: what nodes do that have no policy of their own; by default `hp.stop()`.
        drain_timeout_s: how long leaving the block, or `stop()`, may drain; what is under way then is given up, and
            `TimeoutError` names the nodes.  By default there is no bound, and a log line names them after ten seconds.
        shared: one object for all nodes, `context.shared`; by default a new dict.
    """

    def __init__(
        self,
        topology: Topology | Branch,
        *,
        on_error: Policy | None = None,
        drain_timeout_s: float | None = None,
        shared: Any = None,
    ) -> None:
        policy = stop() if on_error is None else check_policy("Plumbing(..., on_error=...)", on_error)
        self._engine = Engine(topology_of(topology), policy, self._told_of_failure)
        if shared is not None:
            self._engine.shared = shared
        self._drain_timeout_s = drain_timeout_s
        self._has_block = False
        self._owner: asyncio.Task[Any] | None = None  # who is in the block
        self._cancelling_before = 0  # what the block's task was asked to end before it entered
        self._has_cancelled_owner = False

    @property
    def topology(self) -> Topology:
        """The topology that reigns."""
        return self._engine.topology

    @property
    def epoch(self) -> int:
        """The number of its reign: 0 at the start, one more with each change."""
        return self._engine.epoch

    # -- entering and leaving

    async def __aenter__(self) -> Plumbing:
        self._refuse_start()
        self._has_block = True
        self._owner = asyncio.current_task()
        self._cancelling_before = 0 if self._owner is None else self._owner.cancelling()
        await self._start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, traceback: TracebackType | None
    ) -> None:
        owner, self._owner = self._owner, None
        try:
            if raised is None and self._engine.failure is None:
                await self._drain_to_leave()
        except BaseException as exc:
            raised = exc
        try:
            await self._engine.shut_down()
        except asyncio.CancelledError as exc:
            raised = exc
        outcome = self._outcome(raised, owner is not None and self._is_cancelled(owner))
        if outcome is not None:
            raise outcome

    def _is_cancelled(self, owner: asyncio.Task[Any]) -> bool:
        """Whether the block's task is cancelled by somebody else than this plumbing."""
        if self._has_cancelled_owner:
            owner.uncancel()
        return owner.cancelling() > self._cancelling_before

    def _outcome(self, raised: BaseException | None, is_cancelled: bool) -> BaseException | None:
        """What a block ends with: what stopped the plumbing, in place of the cancellation that it sent there."""
        failure = self._engine.failure
        if failure is None or raised is failure:
            return raised
        if raised is None or (isinstance(raised, asyncio.CancelledError) and not is_cancelled):
            return failure
        if not isinstance(raised, asyncio.CancelledError):
            raised.add_note(f"the plumbing had stopped: {failure}")
        return raised

    async def _start(self) -> None:
        self._refuse_start()
        await self._engine.start()

    def _refuse_start(self) -> None:
        if self._engine.stage != "new":
            raise UsageError("this Plumbing has been started before: make another of the same topology")
        if not _is_loop_running():
            raise UsageError("a Plumbing runs on asyncio (or uvloop): start it with asyncio.run, not trio.run")

    async def stop(self) -> None:
        """Drain, then close everything; from any task.

        Raises:
            NodeError: user code raised since the start.
        """
        engine = self._engine
        self._refuse_own_tasks("stop")
        if engine.stage == "new":
            raise UsageError("this Plumbing has not been started: `plumbing = await hp.start(topology)`")
        try:
            if engine.failure is None and engine.stage == "open":
                await self._drain_to_leave()
        finally:
            await engine.shut_down()
        engine.raise_failure()

    async def _drain_to_leave(self) -> None:
        notice = asyncio.create_task(self._name_under_way())
        try:
            await self.drain(self._drain_timeout_s)
        finally:
            notice.cancel()
            await asyncio.wait([notice])

    async def _name_under_way(self) -> None:
        seconds = DRAIN_NOTICE_S
        while True:
            await asyncio.sleep(seconds)
            seconds *= 2
            log().warning("still draining", under_way=self._under_way())

    def _told_of_failure(self, error: BaseException, told: set[asyncio.Task[Any]]) -> None:
        """Something has stopped the graph: cancel the block, where that waits for something else."""
        if not self._has_block:
            if not told:
                log().error("the plumbing has stopped", error=str(error))
        elif self._owner is not None and self._owner not in told and self._owner is not asyncio.current_task():
            self._has_cancelled_owner = True
            self._owner.cancel()

    # -- changing it

    async def apply(self, topology: Topology, timeout_s: float | None = None) -> Change:
        """Become exactly `topology`, while items stream through.

        No source item, nor anything derived from it, meets both an old and a new version of what the change touches.
        Nothing is lost or doubled, and every link keeps its order.  Returns when every node concerned has switched, and
        what was removed has closed.  Changes take turns; one that touches nothing is empty, and keeps the epoch.

        Args:
            topology: what is to reign.
            timeout_s: seconds to wait from when its turn has come; by default there is no bound.

        Raises:
            ChangeRejected: a new node could not start; nothing has changed.
            ChangeTimeout: it has not come through in time.
            HandoverError: a node holds between its old and its new process.
            StaleTopology: `topology` was edited from one that reigns no longer.
            UsageError: awaited by the task that runs a node's own user code.
        """
        if not isinstance(topology, Topology):
            raise UsageError(f"apply({topology!r}): give a hotplumb.Topology, of a pipeline its `.topology()`")
        if timeout_s is not None and (not isinstance(timeout_s, int | float) or isinstance(timeout_s, bool)):
            raise UsageError(f"apply(timeout_s={timeout_s!r}): give a number of seconds, or None")

        def become(_: Topology) -> Topology:
            self._engine.check_base(topology)
            return topology

        return await self._change("apply", become, timeout_s)

    async def add(self, key: object, node: Node) -> Change:
        """Add a node to what reigns when the turn of this change has come; as `Topology.add` and `apply`."""
        return await self._change("add", lambda reigns: reigns.add(key, node))

    async def replace(self, key: object, node: Node) -> Change:
        """Replace a node of what reigns when the turn of this change has come; as `Topology.replace` and `apply`.

        A node that holds between its old process and the new one, after `HandoverError`, is given this one instead, as
        part of the change that is under way.
        """
        if self._engine.holds_between(key):
            with suppress(HoldsNothing):  # it went on meanwhile, by `retry` or `discard`
                return await self.repair(key, node)
        return await self._change("replace", lambda reigns: reigns.replace(key, node))

    async def remove(self, key: object) -> Change:
        """Remove a given node from what reigns when the turn of this change has come; as `Topology.remove`, `apply`."""
        return await self._change("remove", lambda reigns: reigns.remove(key))

    async def refactor(self, factory: Factory | None) -> Change:
        """Take another factory when the turn of this change has come; as `Topology.refactor` and `apply`."""
        return await self._change("refactor", lambda reigns: reigns.refactor(factory))

    async def repair(self, key: object, node: Node) -> Change:
        """Give a node that holds another process at once, whatever hangs above it.

        The item it holds and all that waits for it go to the new process.  This is the exception to what `apply`
        promises: families that have met the old process elsewhere may meet the new one too; `change.crossed` counts
        them as they do.  It changes no wiring, and does not wait for a change under way, which it joins.

        Raises:
            UsageError: the node holds nothing, or hands over to another process already, or the new one would read, or
                be read by, others.
            ChangeRejected: the new process could not start; nothing has changed.
            HandoverError: the node holds between its old and its new process.
        """
        self._refuse_own_tasks("repair")
        self._refuse_closed()
        if not isinstance(node, Node):
            raise UsageError(f"repair({key!r}, {node!r}): give a node")
        return await self._engine.repair(key, node)

    async def _change(self, name: str, edit: Callable[[Topology], Topology], timeout_s: float | None = None) -> Change:
        self._refuse_own_tasks(name)
        self._refuse_closed()
        return await self._engine.apply(edit, timeout_s)

    # -- what its users do

    async def join(self) -> None:
        """Return when the finite sources have ended and all that came of them is processed.

        With a source that does not end, and that nothing downstream finishes, it waits for ever.

        Raises:
            NodeError: user code raised.
            UsageError: awaited by the task that runs a node's own user code.
        """
        self._refuse_own_tasks("join")
        self._refuse_closed()
        await self._engine.wait_ended()

    async def drain(self, timeout_s: float | None = None) -> None:
        """Have the sources give no more, and return when all that is under way is processed.

        What is paused is resumed, and what is held, or would be, goes to the dead letters.

        Args:
            timeout_s: seconds to wait at the most; by default there is no bound.

        Raises:
            TimeoutError: there is still something under way; it names the nodes.  They go on.
            NodeError: user code raised.
        """
        self._refuse_own_tasks("drain")
        self._refuse_closed()
        self._engine.drain()
        try:
            async with asyncio.timeout(timeout_s):
                await self.join()
        except TimeoutError:
            raise TimeoutError(f"not drained after {timeout_s} s: {self._under_way()}") from None

    def _under_way(self, most: int = 5) -> str:
        live = [runner for runner in self._engine.runners.values() if not runner.is_over]
        found = sorted(live, key=lambda runner: (runner.standing == "waiting", key_order(runner.key)))
        named = [f"{canonical(runner.key)} is {runner.standing}" for runner in found[:most]]
        return ", ".join([*named, f"and {len(found) - most} more"] if len(found) > most else named)

    async def inject(self, key: object, value: object) -> None:
        """Put a value into a running graph, beginning a family of its own; waits for room.

        A source sends it, any other node processes it.  A node that had ended begins anew, and so do those below it:
        to feed a graph by `inject` alone, read from a source that waits, an async generator that never gives a value.

        Raises:
            UnknownKey: no such node is active.
            UsageError: the node has finished; or awaited by the task that runs a node's own user code.
        """
        self._refuse_own_tasks("inject")
        self._refuse_closed()
        engine, runner = self._engine, self._runner(key)
        inbox = await self._room_in(runner)
        number = 0 if runner.node.is_source else engine.numbers(runner.key).take(1)  # a source numbers as it sends
        inbox.push(Chunk([value], Root(runner.key, number)))

    async def reinject(self, failure: Failure) -> None:
        """Have the node that failed process the item again, as a new attempt of its origin; waits for room.

        `trail.before` of the new attempt is the trail of the one that failed.

        Raises:
            UsageError: there was no item in hand, or the node has finished.
            UnknownKey: the node is not active any more.
        """
        self._refuse_own_tasks("reinject")
        self._refuse_closed()
        item = failure.item
        if item is None:
            raise UsageError(f"{canonical(failure.key)} had no item in hand when it failed: there is nothing to inject")
        runner = self._runner(failure.key)
        inbox = await self._room_in(runner)
        attempt = self._engine.next_attempt(item.origin)
        inbox.push(Chunk([item.value], Root(item.origin.source, item.origin.number, attempt, item.trail)))

    async def _room_in(self, runner: Runner) -> Inbox:
        if runner.is_finished:
            raise UsageError(f"{canonical(runner.key)} has finished and takes no more")
        inbox = self._engine.inbox_of(runner)
        while inbox.is_full:
            await self._engine.wait(inbox.waiter(self._engine.loop))
            self._refuse_closed()
        return inbox

    def retry(self, key: object) -> None:
        """Have a node that holds what failed, or waits before a further attempt, try it again now.

        Raises:
            UsageError: it does neither.
        """
        self._in_trouble(key).try_again()

    def discard(self, key: object) -> None:
        """Have a node that holds what failed, or waits before a further attempt, pass it over.

        It goes to the dead letters.

        Raises:
            UsageError: it does neither.
        """
        self._in_trouble(key).pass_over("discarded")

    def _in_trouble(self, key: object) -> Runner:
        self._refuse_closed()
        runner = self._runner(key)
        if runner.trouble is None:
            raise UsageError(f"{canonical(runner.key)} holds nothing: it is {runner.standing}")
        return runner

    def pause(self, key: object) -> None:
        """Have a node take up nothing more until `resume`; what writes to it waits when its link is full."""
        self._runner(key).pause(True)

    def resume(self, key: object) -> None:
        """Have a paused node go on."""
        self._runner(key).pause(False)

    def tap(self, key: object) -> Tap:
        """Listen to what a node sends from now on: an async iterator of items.

        It ends with the node or the plumbing, and never makes the node wait: of what is not taken in time, the oldest
        is forgotten and counted in its `dropped`.
        """
        runner = self._runner(key)
        if runner.node.is_sink:
            raise UsageError(f"{canonical(runner.key)} is a sink and sends nothing: tap what it reads")
        taps = runner.taps = runner.taps or []
        tap = Tap(taps.remove)
        taps.append(tap)
        runner.unloop()
        if runner.is_over:
            tap.close()
        return tap

    def statistics(self) -> Statistics:
        """Count what has been done so far, node by node, in canonical order."""
        return Statistics(ByKey({key: _statistics_of(runner) for key, runner in self._engine.runners.items()}))

    def collected(self) -> dict[Key, list[Any]]:
        """What the `hp.collect()` sinks have kept so far, `{sink key: list}`."""
        found = {key: runner for key, runner in self._engine.runners.items() if runner.node.kind == "collect"}
        return {key: list(found[key].kept) for key in sorted(found, key=key_order)}

    # -- helpers

    def _runner(self, key: object) -> Runner:
        self._refuse_closed()
        return self._engine.runner(key)

    def _refuse_closed(self) -> None:
        self._engine.raise_failure()
        if self._engine.stage != "open":
            state = "has stopped" if self._engine.stage == "closed" else "has not been started"
            raise UsageError(f"the plumbing {state}")
        if _is_loop_running() and asyncio.get_running_loop() is not self._engine.loop:
            raise UsageError("the plumbing runs on another event loop: call this there")

    def _refuse_own_tasks(self, name: str) -> None:
        task = asyncio.current_task()
        if task in self._engine.tasks:
            raise UsageError(
                f"{canonical(self._engine.tasks[task])} would wait for itself: in a node's own code use "
                f"asyncio.create_task(plumbing.{name}(...)), and do not await it there"
            )


def _statistics_of(runner: Runner) -> NodeStatistics:
    for loop in runner.loops or ():
        loop.settle()
    links = [*runner.inputs, *([runner.inbox] if runner.inbox else [])]
    return NodeStatistics(
        received=runner.received,
        sent=runner.sent,
        failed=runner.failed,
        dropped=runner.dropped,
        queued_items=sum(link.queued for link in links),
        busy_s=runner.busy_s,
        state=runner.standing,
        epoch=runner.epoch,
        trouble=_trouble_of(runner),
    )


def _trouble_of(runner: Runner) -> Trouble | None:
    found = runner.trouble
    return None if found is None else Trouble(found.call, found.item, found.cause, runner.attempts, found.since)


async def start(
    topology: Topology | Branch,
    *,
    on_error: Policy | None = None,
    drain_timeout_s: float | None = None,
    shared: Any = None,
) -> Plumbing:
    """Start a topology without a block; `await plumbing.stop()` ends it, from any task.

    For a REPL, a notebook, a test fixture.  What user code raises stops everything, is logged, and raised from `join`
    and `stop`.  Options as for `Plumbing`.
    """
    plumbing = Plumbing(topology, on_error=on_error, drain_timeout_s=drain_timeout_s, shared=shared)
    await plumbing._start()
    return plumbing


def run(
    topology: Topology | Branch,
    items: Any = None,
    *,
    on_error: Policy | None = None,
    drain_timeout_s: float | None = 10.0,
    shared: Any = None,
) -> dict[Key, list[Any]]:
    """Run a topology or a pipeline to its end, for scripts; gives `{sink key: values}` of its `hp.collect()` sinks.

    They come in the order in which a pipeline was written; those of a topology are sorted by their keys.

    The first SIGINT or SIGTERM drains: sources end, what is under way is processed, and what was collected is returned.
    A second one stops at once, and so does a drain that takes too long.

    Args:
        topology: what is to run.
        items: what the open start of a pipeline is to take in, anything that `hp.source` takes; its key is "items".
        on_error: what nodes do that have no policy of their own; by default `hp.stop()`.
        drain_timeout_s: how long the drain after a signal may take, None for as long as it takes.
        shared: one object for all nodes, `context.shared`; by default a new dict.

    >>> import hotplumb as hp
    >>> hp.run(hp.map(int) | hp.collect(), ["1", "2"])
    {'collect': [1, 2]}

    Raises:
        OpenEnd: a pipeline is open at its start, with no items, or at its end.
        TopologyError: it makes no topology.
        NodeError: user code raised.
        KeyboardInterrupt, SystemExit: it was stopped at once, by SIGINT or SIGTERM.
        UsageError: an event loop is running here already.
    """
    if _is_loop_running():
        raise UsageError("hp.run() starts an event loop, but one runs here: use `async with hp.Plumbing(topology)`")
    plumbing = Plumbing(topology_of(topology, items), on_error=on_error, shared=shared)
    return in_order(topology, asyncio.run(_joined(plumbing, drain_timeout_s)))


async def _joined(plumbing: Plumbing, drain_timeout_s: float | None) -> dict[Key, list[Any]]:
    async with plumbing:
        with draining_on_signals(plumbing, drain_timeout_s):
            await plumbing.join()
        return plumbing.collected()


@contextmanager
def draining_on_signals(plumbing: Plumbing, timeout_s: float | None) -> Iterator[None]:
    """Drain on the first SIGINT or SIGTERM, stop at once on the second or when draining takes too long.

    The second is raised wherever the main thread is, so that it also ends a plain function that does not return.
    In another thread than the main one, signals stay as they are.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop, owner = asyncio.get_running_loop(), asyncio.current_task()
    assert owner is not None
    caught: list[int] = []
    draining: list[asyncio.Task[None]] = []  # keeps the task alive

    async def drain() -> None:
        try:
            await plumbing.drain(timeout_s)
        except TimeoutError as exc:
            log().warning("stopped at once", reason=str(exc))
            owner.cancel()
        except HotplumbError:
            return  # the owner is told too

    def catch(signum: int, _: FrameType | None) -> None:
        caught.append(signum)
        if len(caught) > 1:
            loop.call_soon_threadsafe(owner.cancel)  # Python drops what is raised in some places, such as a finalizer
            raise _exit_for(signum)
        loop.call_soon_threadsafe(lambda: draining.append(loop.create_task(drain())))

    before = {signum: signal.signal(signum, catch) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except asyncio.CancelledError:
        if caught:
            owner.uncancel()
            raise _exit_for(caught[0]) from None
        raise
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
        for task in draining:
            task.cancel()


def _exit_for(signum: int) -> BaseException:
    return KeyboardInterrupt() if signum == signal.SIGINT else SystemExit(128 + signum)


def _is_loop_running() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
