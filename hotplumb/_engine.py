"""The engine: the runners of one topology, the links between them, and the tasks they run in.

One task, the host, opens the nodes, waits to be told to stop, and closes everything; so a graph may be started in one
task and stopped in another.  All other tasks are the nodes', and are gone when the host is.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Set
from typing import Any, Literal, NoReturn

import attrs

from hotplumb._changes import Change, Changing
from hotplumb._drivers import SWALLOW_LEAVE_S, SWALLOW_WARN_S, OwnTask
from hotplumb._handover import Handover, Leaving
from hotplumb._links import WHOLE, Inbox, Link, Marker
from hotplumb._log import log
from hotplumb._repair import Repair
from hotplumb._runner import Numbers, Runner
from hotplumb._settling import Following
from hotplumb._supervision import Policy
from hotplumb._turns import SLOW_CALL_S, Turns
from hotplumb.errors import ChangeTimeout, NodeError, StaleTopology, UnknownKey, UsageError, of_user_code, said_by
from hotplumb.items import Chunk, Failure, Origin, Root
from hotplumb.keys import ERRORS, AllErrors, Errors, Key, Output, canonical, freeze, key_order
from hotplumb.nodes import Node
from hotplumb.topology import Topology, collection_off, node_key

MOST_FORMER = 16  # topologies that have reigned before, for telling edits of them

Stage = Literal["new", "opening", "open", "closed"]


class Engine:
    """One running graph; what `Plumbing` is the face of.

    `told_of_failure` is called with what stops the graph and the tasks that have been told of it already.
    """

    def __init__(
        self, topology: Topology, on_error: Policy, told_of_failure: Callable[[BaseException, set[Any]], None]
    ) -> None:
        self.topology = topology
        self.on_error = on_error
        self.is_draining = False
        self.shared: Any = {}
        self.epoch = 0
        self.stage: Stage = "new"
        self.runners: dict[Key, Runner] = {}
        self.failure: BaseException | None = None
        self._told_of_failure = told_of_failure
        self._numbers: dict[Key, Numbers] = {}
        self._live = 0  # runners that have not ended
        self.changing: Changing | None = None  # the change under way
        self._spare: list[Runner] = []  # opened, and not in the graph yet
        self.following: list[Following] = []  # changes that have not settled
        self._is_changing = False
        self._next_change: deque[asyncio.Future[None]] = deque()  # of those whose change has to wait for its turn
        self._is_gone = False  # nobody can wait for anything any more
        self._former: deque[Topology] = deque(maxlen=MOST_FORMER)
        self._below_errors: frozenset[Key] = frozenset()  # error streams, and what reads them, however far down
        self._live_above = 0  # runners that have not ended and may still feed an error stream
        self._attempts: dict[tuple[Key, int], int] = {}  # {(source, number) injected again: its latest attempt}
        self.tasks: dict[asyncio.Task[Any], Key] = {}  # {task that runs user code: its node's key}
        self.parting: dict[Key, Handover | Leaving] = {}  # {key: who sees to it that the node hands over, or leaves}
        self._closers: set[asyncio.Task[Any]] = set()  # tasks that close something, and are not to be cancelled
        self._waiters: dict[asyncio.Future[None], asyncio.Task[Any] | None] = {}  # {what is waited for: by which task}
        self._all_ended: list[asyncio.Future[None]] = []  # to be done when every node has ended
        self._slow: set[Key] = set()  # nodes that have been warned about
        self._swallowed: set[Key] = set()  # likewise

    async def start(self) -> None:
        """Open every node and set the sources going; raises what fails then, with everything closed."""
        self.loop = asyncio.get_running_loop()
        self.turns = Turns(self.loop, self._crashed)
        self.stage = "opening"
        self._stop_asked: asyncio.Future[None] = self.loop.create_future()
        opened: asyncio.Future[None] = self.loop.create_future()
        self._host = self.loop.create_task(self._run(opened), name="hotplumb")
        try:
            await opened
            self.raise_failure()  # a node may have failed at once
        except BaseException:
            await self.shut_down()
            raise
        self.stage = "open"
        for runner in self.runners.values():
            if runner.is_source:
                runner.wake()
        if not self._live_above:
            self._end_error_streams()

    async def shut_down(self) -> None:
        """Have the host close everything, and wait for that whatever is cancelled meanwhile."""
        self._ask_to_stop()
        cancelled = None
        while not self._host.done():
            try:
                await asyncio.wait([self._host])
            except asyncio.CancelledError as exc:
                cancelled = exc  # closing is bounded in time, so it may be waited for
        if cancelled is not None:
            raise cancelled

    def _ask_to_stop(self) -> None:
        if not self._stop_asked.done():
            self._stop_asked.set_result(None)

    # -- waiting

    async def wait(self, waiter: asyncio.Future[None]) -> None:
        """Wait for a future that a failure of the graph ends too."""
        if self._is_gone and not waiter.done():
            raise self.failure or UsageError("the plumbing has stopped")
        self._waiters[waiter] = asyncio.current_task()
        try:
            await waiter
        finally:
            del self._waiters[waiter]

    async def wait_ended(self) -> None:
        """Return when every node has ended and, while all drains, what changes are under way have come through."""
        while not self._has_ended:
            waiter = self.loop.create_future()
            self._all_ended.append(waiter)
            await self.wait(waiter)
        self.raise_failure()

    def drain(self) -> None:
        """Have the sources give no more; let go what is paused or held."""
        self.is_draining = True
        for runner in self.runners.values():
            if runner.is_paused:
                runner.pause(False)
            if runner.node.kind == "source":
                runner.stop_producing()
            elif runner.trouble is not None and runner.trouble.state == "holding":
                runner.pass_over("drained")

    def runner(self, key: object) -> Runner:
        """The runner of an active node."""
        frozen = freeze(key)
        if frozen not in self.runners:
            raise UnknownKey(frozen, "is no active node of this plumbing")
        return self.runners[frozen]

    def raise_failure(self) -> None:
        """Raise what has stopped the graph, if anything has."""
        if self.failure is not None:
            raise self.failure

    # -- the host task

    async def _run(self, opened: asyncio.Future[None]) -> None:
        try:
            await self._open()
            if not opened.done():  # else whoever starts has been cancelled, and asks to stop
                opened.set_result(None)
            await self._stop_asked
        except asyncio.CancelledError:
            opened.cancel()
            raise
        except Exception as exc:
            if not opened.done():
                opened.set_exception(exc)
        finally:
            self.stage = "closed"
            await self._close()

    async def _open(self) -> None:
        with collection_off():
            self._build()
        errors = await self.open_runners(self.runners.values())
        if errors:
            _raise_not_begun(errors)

    async def open_runners(self, runners: Iterable[Runner]) -> list[tuple[Runner, BaseException]]:
        """Make and begin what runs in `runners`; gives those that failed, at the first moment that any had."""
        begun: dict[asyncio.Future[Any], Runner] = {}
        with collection_off():
            for runner in runners:
                try:
                    awaited = self.opened(runner)
                except Exception as exc:
                    return [(runner, exc)]
                if awaited is not None:
                    begun[awaited] = runner
        return await self._all_begun(begun)

    def _build(self) -> None:
        """Make a runner for each node and a link for each key it reads."""
        runners = self.runners
        for key, node in self.topology.active.items():
            runners[key] = Runner(key, node, self.epoch, self)
        self._live = len(runners)
        self._below_errors = self._find_below_errors()
        self._live_above = len(runners.keys() - self._below_errors)
        for runner in runners.values():
            for read in runner.node.reads:
                writer = runners[node_key(read)]
                name = read.name if isinstance(read, Output) else WHOLE
                link = Link(read, writer, runner, runner.node.capacity, name, runner.node.when_full)
                runner.inputs.append(link)
                runner.open_inputs += 1
                writer.add_output(link)

    def _find_below_errors(self) -> frozenset[Key]:
        streams = [key for key, runner in self.runners.items() if runner.node.kind == "errors"]
        return frozenset(streams).union(*(self.topology.downstream(key) for key in streams))

    def opened(self, runner: Runner) -> asyncio.Future[Any] | None:
        """Open what runs in a runner; gives what is left to wait for.  Raises what user code raises."""
        if self.runners.get(runner.key) is not runner:
            self._spare.append(runner)
        began = self.turns.clock()
        try:
            awaited = runner.open()
        finally:
            seconds = self.turns.clock() - began
            if seconds > SLOW_CALL_S:
                self.warn_slow(runner.key, seconds, 0)
        if isinstance(awaited, Coroutine):
            return self.start_task(runner.key, awaited, is_call=True)
        return None if awaited is None else asyncio.ensure_future(awaited)

    async def _all_begun(self, left: dict[asyncio.Future[Any], Runner]) -> list[tuple[Runner, BaseException]]:
        while left and not self._stop_asked.done():
            done, _ = await asyncio.wait([*left, self._stop_asked], return_when=asyncio.FIRST_COMPLETED)
            errors = [
                (runner, exc)
                for future, runner in left.items()
                if future in done and not future.cancelled() and (exc := future.exception()) is not None
            ]
            for future in done:
                left.pop(future, None)
            if errors:
                return errors
        return []

    async def _close_unused(self, runners: Iterable[Runner]) -> None:
        for runner in runners:
            runner.forget_wakes()
            self._no_spare(runner)
            driver = runner.driver
            try:
                if isinstance(driver, OwnTask):
                    await driver.abandon()
                else:
                    runner.close()
            except (Exception, asyncio.CancelledError) as exc:
                if self.turns.is_closed:
                    raise
                log().warning("closing what was not used failed", key=canonical(runner.key), error=said_by(exc))

    def _no_spare(self, runner: Runner) -> None:
        if runner in self._spare:
            self._spare.remove(runner)

    def discard(self, runners: Iterable[Runner]) -> asyncio.Future[None]:
        """Close what has been opened and will not be used, whether or not somebody waits for that."""
        return self.start_task(None, self._close_unused(list(runners)))

    def start_call(self, runner: Runner, awaitable: Any) -> asyncio.Task[Any]:
        """Await something of user code; a coroutine as it is, so that one cancelled before its first step is closed."""
        work = awaitable if isinstance(awaitable, Coroutine) else _awaited(awaitable)
        return self.start_task(runner.key, work, is_call=True)

    async def _close(self) -> None:
        """Cancel what still runs, close what is still open."""
        self.turns.close()
        try:
            await self._cancel_tasks()
            await self._close_unstarted()
        finally:
            for runner in self._all_runners():
                self.close_runner(runner)
            self._release_waiters()

    async def _cancel_tasks(self) -> None:
        for task in self.tasks.keys() - self._closers:
            task.cancel()
        await self.wait_cancelled(self.tasks)
        for task in self._closers:  # they have had their time
            task.cancel()

    async def _close_unstarted(self) -> None:
        """Close what was made for tasks that never came to their first step."""
        for runner in self._all_runners():
            if runner.driver is not None:
                await runner.driver.close_unstarted()

    def _all_runners(self) -> list[Runner]:
        return [*self.runners.values(), *self._spare]

    async def wait_cancelled(self, tasks: Iterable[asyncio.Task[Any]]) -> None:
        """Wait for cancelled tasks to end; name those that go on after a second, leave them behind after five."""
        left = set(tasks)
        for seconds, leave in ((SWALLOW_WARN_S, False), (SWALLOW_LEAVE_S - SWALLOW_WARN_S, True)):
            if left:
                _, left = await asyncio.wait(left, timeout=seconds)
            for key in {self.tasks[task] for task in left if leave or task not in self._closers}:
                self.warn_swallowed(key, leave)
        for task in left:
            self.leave_behind(task)

    def leave_behind(self, task: asyncio.Task[Any]) -> None:
        """Wait for a task no longer."""
        self.tasks.pop(task, None)

    def shield(self, task: asyncio.Task[Any], is_closing: bool) -> None:
        """Say that a task is closing something, so that it is not cancelled when everything stops."""
        if is_closing:
            self._closers.add(task)
        else:
            self._closers.discard(task)

    def warn_swallowed(self, key: Key, is_left: bool) -> None:
        """User code goes on in spite of its cancellation."""
        if is_left:
            log().error("user code that goes on in spite of its cancellation is left behind", key=canonical(key))
        elif key not in self._swallowed:
            self._swallowed.add(key)
            log().warning("user code goes on in spite of its cancellation", key=canonical(key))

    def close_runner(self, runner: Runner) -> None:
        """Close what a runner holds, so far as that takes no await."""
        try:
            runner.forget_wakes()
            runner.cancel_retry()
            runner.close()
        except (Exception, asyncio.CancelledError) as exc:
            runner.fail("close", None, exc, is_last=True)
        for tap in runner.taps or ():
            tap.close()

    def _release_waiters(self) -> None:
        self._is_gone = True
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_exception(self.failure or UsageError("the plumbing has stopped"))

    # -- changes

    async def apply(self, edit: Callable[[Topology], Topology], timeout_s: float | None) -> Change:
        """Have the topology that reigns when the turn has come become what `edit` makes of it."""
        await self._wait_turn()
        try:
            self.raise_failure()
            changing = Changing(self, edit(self.topology))
            if not changing.change.touched:
                self._reign_unchanged(changing)
                return changing.change
            self.changing = changing
            deadline = None if timeout_s is None else self.loop.time() + timeout_s
            await changing.open(deadline)
            if self._stop_asked.done():
                raise self.failure or UsageError("the plumbing has stopped")
        except BaseException:
            self.change_over()
            raise
        changing.begin()
        await self._come_through(changing, deadline)
        return changing.change

    async def _wait_turn(self) -> None:
        if not self._is_changing:
            self._is_changing = True
            return
        waiter = self.loop.create_future()
        self._next_change.append(waiter)
        try:
            await self.wait(waiter)
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():  # the turn had come already
                self.change_over()
            raise

    def change_over(self) -> None:
        """The next change may begin."""
        self.changing = None
        while self._next_change:
            waiter = self._next_change.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
        self._is_changing = False
        self._release_joined()

    async def _come_through(self, changing: Changing, deadline: float | None) -> None:
        try:
            async with asyncio.timeout_at(deadline):
                await self.wait(changing.done)
        except TimeoutError:
            if changing.is_complete:  # at this very moment
                return
            waiting_for = changing.waiting_for()
            is_withdrawn = not changing.has_switched
            if is_withdrawn:
                changing.withdraw()
            raise ChangeTimeout(changing.change, waiting_for, is_withdrawn) from None

    async def repair(self, key: object, node: Node) -> Change:
        """Have another process at a node that holds, at once."""
        return await Repair(self, freeze(key), node).carry_out()

    def holds_between(self, key: object) -> bool:
        """Whether a node holds between its old process and a new one."""
        runner = self.runners.get(freeze(key))
        return runner is not None and runner.handover is not None

    def force(self, key: object) -> None:
        """Give up what a node has in hand."""
        runner = self.runner(key)
        runner.pause(False)
        if runner.trouble is not None:
            runner.pass_over("given up")
        elif runner.key in self.parting:
            self.parting[runner.key].give_up()
        elif runner.driver is not None and runner.driver.is_busy:
            runner.driver.give_up()

    def guarded(self, act: Callable[[Any], None], done: Any) -> None:
        """Act on something that is done; what is raised then is a bug of ours, but no reason to hang."""
        try:
            act(done)
        except Exception as exc:
            self._crashed(exc)

    def check_base(self, new: Topology) -> None:
        """Refuse an edit of a topology that reigned before."""
        if not new.is_edit_of(self.topology) and any(new.is_edit_of(former) for former in self._former):
            raise StaleTopology

    def _reign_unchanged(self, changing: Changing) -> None:
        self.note_former(self.topology)
        self.topology = changing.new.with_epochs(self.topology, (), self.epoch)
        changing.change.epoch = self.epoch
        changing.change.topology = self.topology
        changing.change.inverse = changing.old.edited_from(self.topology, frozenset())
        self.change_over()

    def reign(self, new: Topology, change: Change, repaired: Set[Key]) -> Topology:
        """`new` reigns, from the epoch of `change` on; meanwhile nodes have been repaired."""
        self.note_former(self.topology)
        self.topology = new.with_epochs(self.topology, change.touched | repaired, change.epoch)
        self.epoch = change.epoch
        if self._below_errors or any(isinstance(key, Errors | AllErrors) for key in change.added):
            self._count_above()
        self.change_over()
        return self.topology

    def reign_repaired(self, key: Key, node: Node, epoch: int) -> Topology:
        """What reigns has another process at a node, and so has what is about to."""
        if key in self.topology.active:
            self.note_former(self.topology)
            repaired = self.topology.replace(key, attrs.evolve(node, reads=self.topology.reads(key)))
            self.topology = repaired.with_epochs(self.topology, [key], epoch)
            self.epoch = epoch
        if self.changing is not None:
            self.changing.repair(key, node)
        return self.topology

    def note_former(self, topology: Topology) -> None:
        """Edits of a topology that reigns no longer are stale."""
        self._former.append(topology)

    def _count_above(self) -> None:
        self._below_errors = self._find_below_errors()
        above = [runner for key, runner in self.runners.items() if key not in self._below_errors]
        self._live_above = sum(not runner.is_over for runner in above)
        if not self._live_above:
            self._end_error_streams()

    def add_runner(self, runner: Runner) -> None:
        """A node has been added."""
        self.runners[runner.key] = runner
        self._no_spare(runner)
        self._live += 1
        self._live_above += 1

    def replace_runner(self, old: Runner, new: Runner) -> None:
        """Another stands in the place of a node."""
        self.runners[new.key] = new
        for following in self.following:
            following.replaced(old, new)
        self._no_spare(new)
        if old.is_over and not new.is_over:
            self.began_anew(new)
        elif new.is_over and not old.is_over:  # something has come meanwhile
            new.is_over, new.is_fresh = False, True

    def start_source(self, runner: Runner) -> None:
        """Let a source that a change has brought give its values; while all drains, it gives none."""
        runner.is_switching = False
        if self.is_draining and runner.node.kind == "source":
            runner.stop_producing()
        runner.wake()

    def ordered(self, keys: Iterable[Key]) -> Iterable[Key]:
        """The keys in an order that a run repeats: on a seeded loop, one that does not hang on hashes."""
        return sorted(keys, key=key_order) if hasattr(self.loop, "draw") else keys

    def running(self, keys: Iterable[Key]) -> set[Runner]:
        """Those of the nodes that are there."""
        runners = self.runners
        return {runners[key] for key in keys if key in runners}

    def reader_of(self, link: Link) -> Runner:
        """Who reads a link, or will when it has switched."""
        reader = link.reader
        return reader if type(reader) is Runner else self.runners[reader.key]  # type: ignore[attr-defined]

    def is_there(self, runner: Runner) -> bool:
        """Whether a node has not been removed."""
        return self.runners.get(runner.key) is runner

    def remove_runner(self, runner: Runner) -> None:
        """A node has been removed."""
        del self.runners[runner.key]
        if not runner.is_over:
            runner.is_over = True
            self.ended(runner)
        for tap in runner.taps or ():
            tap.close()
        for following in list(self.following):
            following.gone(runner)

    def marked(self, runner: Runner, link: Link, marker: Marker) -> None:
        """A marker of a change has come in on `link`."""
        if marker.what == "settle":
            marker.change.came(runner, link)
            return
        if runner.alignment is None:
            return  # it has switched before it might: a rule was left out
        runner.alignment.deliver(link)
        link.is_marked = not runner.alignment.may_read(link)
        self._look_whether_aligned(runner)
        if runner.waiting and link.entries and link not in runner.waiting:
            runner.waiting.append(link)

    def link_gone(self, runner: Runner, link: Link) -> None:
        """No marker will come in on `link`."""
        for following in list(self.following):
            following.lost(runner, link)
        if runner.alignment is not None:
            runner.alignment.close(link)
            self._look_whether_aligned(runner)

    def _look_whether_aligned(self, runner: Runner) -> None:
        if runner.alignment is not None and runner.alignment.is_complete and self.changing is not None:
            runner.switching = self.changing
            runner.wake()

    # -- what runners ask of it

    def numbers(self, key: Key) -> Numbers:
        """The numbers of items that begin at `key`."""
        return self._numbers.setdefault(key, Numbers())

    def start_task(self, key: Key, work: Coroutine[Any, Any, Any], is_call: bool = False) -> asyncio.Task[Any]:
        """Run a coroutine as a task of the plumbing; what a call raises is its caller's affair."""
        task = self.loop.create_task(work, name=None if is_call else f"hotplumb node {canonical(key)}")
        self.tasks[task] = key
        task.add_done_callback(self._call_done if is_call else self._task_done)
        return task

    def _call_done(self, task: asyncio.Task[Any]) -> None:
        was_here = self.tasks.pop(task, None) is not None  # one that was left behind is not
        if not task.cancelled() and task.exception() is not None and (self.turns.is_closed or not was_here):
            log().warning("user code raised after its node had stopped", error=repr(task.exception()))

    def _task_done(self, task: asyncio.Task[Any]) -> None:
        self.tasks.pop(task, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._crashed(error)

    def failed(self, error: NodeError) -> None:
        """User code raised, and the policy is to stop."""
        self._stop_for(error)

    def chance(self) -> float:
        """A random number from 0 up to 1; on a seeded loop, from its seed."""
        draw = getattr(self.loop, "draw", None)
        return random.random() if draw is None else draw(_CHANCES) / _CHANCES

    def is_below_errors(self, key: Key) -> bool:
        """Whether a node derives from an error stream."""
        return key in self._below_errors

    def dead_letter(self, runner: Runner, failure: Failure) -> None:
        """Something of `runner` goes no further: tell the error streams that are read, or the log."""
        streams = [] if self.is_below_errors(runner.key) else [Errors(runner.key), ERRORS]
        found = [self.runners[key] for key in streams if key in self.runners and not self.runners[key].is_finished]
        if not found or self.stage == "closed":
            _log_failure(failure)
        for stream in found:
            inbox = self.inbox_of(stream)
            inbox.push(Chunk([failure], Root(stream.key, 0)))
            if inbox.is_full:
                runner.full_links += 1
                inbox.blocked.append(runner)

    def inbox_of(self, runner: Runner) -> Inbox:
        """Where values are put into a node from outside."""
        if runner.inbox is None:
            inbox = Inbox()
            runner.inbox = inbox.link = Link(runner.key, inbox, runner, runner.node.capacity)
        found = runner.inbox.writer
        assert isinstance(found, Inbox)
        return found

    def next_attempt(self, origin: Origin) -> int:
        """The number of one more attempt at what began there."""
        at = (origin.source, origin.number)
        self._attempts[at] = attempt = max(self._attempts.get(at, 0), origin.attempt) + 1
        return attempt

    def _crashed(self, error: BaseException) -> None:
        """The engine itself raised: a bug, but no reason to hang."""
        self._stop_for(error)

    def _stop_for(self, error: BaseException) -> None:
        if self.failure is not None:
            if error is not self.failure:
                self.failure.add_note(f"and then: {error}")
            return
        self.failure = error
        self._ask_to_stop()
        self.turns.close()
        if self.stage == "open":  # else `start` looks
            self._tell(error)

    def _tell(self, error: BaseException) -> None:
        """Raise `error` from what is being waited for here, and say who has been told."""
        told: set[Any] = set()
        for waiter, task in self._waiters.items():
            if not waiter.done():
                waiter.set_exception(error)
                told.add(task)
        self._told_of_failure(error, told)

    def ended(self, runner: Runner) -> None:
        """`runner` has given its last item."""
        for tap in runner.taps or ():
            tap.close()
        if runner.key not in self._below_errors:
            self._live_above -= 1
            if not self._live_above:
                self._end_error_streams()
        self._live -= 1
        self._release_joined()

    @property
    def _has_ended(self) -> bool:
        return not self._live and not (self.is_draining and self._is_changing)

    def _release_joined(self) -> None:
        if self._has_ended:
            waiters, self._all_ended = self._all_ended, []
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)

    def _end_error_streams(self) -> None:
        """No failure can come any more."""
        for key in self.ordered(self._below_errors & self.runners.keys()):  # a change may just have removed some
            runner = self.runners[key]
            if runner.node.kind == "errors":
                runner.open_inputs = 0
                runner.wake()

    def began_anew(self, runner: Runner) -> None:
        """`runner` had ended and goes on."""
        self._live += 1
        self._live_above += runner.key not in self._below_errors

    def warn_slow(self, key: Key, seconds: float, values: int) -> None:
        """User code held up the loop."""
        if key not in self._slow:
            self._slow.add(key)
            log().warning(
                "user code held up the event loop: make it async, or run what is slow in a thread",
                key=canonical(key),
                milliseconds=round(seconds * 1000),
                values=values,
            )

    def readers_of(self, key: Key) -> frozenset[Key]:
        """Who reads `key` now."""
        topology = self._topology_with(key)
        return frozenset() if topology is None else topology.readers(key)

    def sinks_of(self, key: Key) -> frozenset[Key]:
        """Which sinks want `key` now."""
        topology = self._topology_with(key)
        if topology is None:
            return frozenset()
        return frozenset(other for other in topology.downstream(key) | {key} if topology.active[other].is_sink)

    def _topology_with(self, key: Key) -> Topology | None:
        """What reigns or, for a node that is being added, is about to; None for one that was removed."""
        coming = [] if self.changing is None else [self.changing.new]
        return next((topology for topology in (self.topology, *coming) if key in topology.active), None)


async def _awaited(awaitable: Any) -> Any:
    return await awaitable


_CHANCES = 1 << 30


def _log_failure(failure: Failure) -> None:
    trail = None if failure.item is None else str(failure.item.trail)
    log().error(
        "a failure that nobody reads",
        key=canonical(failure.key),
        error=said_by(failure.exception),
        attempts=failure.attempts,
        reason=failure.reason,
        trail=trail,
    )


def _raise_not_begun(errors: list[tuple[Runner, BaseException]]) -> NoReturn:
    """Raise for the first; the others are its notes."""
    (runner, cause), *others = errors
    error = _not_begun(runner, cause)
    for runner, other in others:
        error.add_note(f"and then: {_not_begun(runner, other)}")
    raise error from cause


def _not_begun(runner: Runner, exc: BaseException) -> NodeError:
    of_user_code(exc)
    return NodeError(runner.key, None, "source" if runner.is_source else "begin", exc)
