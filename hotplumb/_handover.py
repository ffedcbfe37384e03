"""How one process takes another's place at a node, or leaves it: step by step, nothing lost where a step fails.

    state=        the old one                                     the new one
    "carry"       snapshot(), close()                             restore(state), where both have the method
    "fresh"       close()                                         as begun
    "flush"       end(), what it gives leaves before; close()     as begun
    old -> new    snapshot(), close()                             restore(f(state))

A `stateful` has its state for a snapshot.  What is exclusive begins only when the old one has closed.  When a step
raises, the node holds between the two: `retry` goes on from that step, `discard` goes on without the state.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Generator, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

from hotplumb._drivers import OwnTask
from hotplumb._runner import Runner, Trouble, error_of
from hotplumb._turns import Turns
from hotplumb.errors import HandoverError, NodeError, of_user_code
from hotplumb.keys import Key, same

if TYPE_CHECKING:
    from hotplumb._changes import Change

Handing = Literal["kept", "carried", "fresh", "flushed"]

Held = Callable[[HandoverError], None]

Step = Callable[[], Generator[asyncio.Future[Any], Any, None]]

NO_STATE: Final = object()


class Opener(Protocol):
    """What a handover asks of the engine."""

    loop: asyncio.AbstractEventLoop
    turns: Turns
    is_draining: bool
    parting: dict[Key, Handover | Leaving]
    """Who sees to it that a node hands over or leaves, while it does."""

    def opened(self, runner: Runner) -> asyncio.Future[Any] | None:
        """Open what runs in `runner`; gives what is left to wait for."""

    def discard(self, runners: Iterable[Runner]) -> asyncio.Future[None]:
        """Close what has been opened and will not be used."""

    def start_call(self, runner: Runner, awaitable: Any) -> asyncio.Task[Any]:
        """Await something of user code."""

    def guarded(self, act: Callable[[Any], None], done: Any) -> None:
        """Act on something that is done."""

    def failed(self, error: NodeError) -> None:
        """Stop everything."""


class Handover:
    """One node between its old process and the new one.

    Args:
        old: the runner that stands at the node.
        new: the runner that is to take its place.
        change: what this is part of.
        make: makes another runner like `new`, where that could not be opened.
        go_on: called when `new` is ready to stand there.
    """

    def __init__(
        self,
        engine: Opener,
        old: Runner,
        new: Runner,
        change: Change,
        make: Callable[[], Runner],
        go_on: Callable[[Handover], None],
    ) -> None:
        self.old = old
        self.new = new
        self.handing: Handing = "fresh"
        self.change = change
        self._engine = engine
        self._make = make
        self._go_on = go_on
        self._held: Held = _unheard
        self._stands: Callable[[], None] | None = None
        self._state: Any = NO_STATE
        self._wakes: list[float] = []  # that the old one has asked for
        self._unused: Runner | None = None  # opened, and not to take the place
        self._steps = deque(self._plan())
        self._running: Generator[asyncio.Future[Any], Any, None] | None = None
        self._call: asyncio.Task[Any] | None = None  # what a plain process has given to be awaited
        self._is_given_up = False  # the step that is taken just now

    def _plan(self) -> list[Step]:
        if self.old.is_over and not self.old.node.is_source:
            return [self._open_new, self._close_new]  # all links have ended: it begins when something comes
        is_flushed = self.new.node.state == "flush" and hasattr(self.old.process, "end") and not self.old.is_fresh
        first = self._flush if is_flushed else self._take_state
        return [first, self._close_old, self._open_new, self._give_state]

    def begin(self, held: Held, stands: Callable[[], None] | None = None) -> None:
        """Take the steps; those that wait for nothing are taken at once.

        `held` is called when the node holds between the two, `stands` when the new one stands there.
        """
        self._held, self._stands = held, stands
        self.old.is_switching = True
        self._engine.parting[self.old.key] = self
        self._go()

    def give_up(self) -> None:
        """Cancel what user code is asked for just now, and go on without it, where that can be."""
        ordered = [gives_up_order(self.old), gives_up_order(self.new)]
        self._is_given_up = any(ordered) or (self._call is not None and self._call.cancel())

    def renew(self, new: Runner, make: Callable[[], Runner], held: Held, stands: Callable[[], None]) -> None:
        """Have another runner take the place, where the node holds between the two."""
        self._unused = self.new
        self.new, self._make, self._held, self._stands = new, make, held, stands
        if self._steps[0] in (self._flush, self._take_state):
            self._steps = deque(self._plan())
        elif self._steps[0] == self._give_state and new.opens_late:
            self._steps.appendleft(self._open_new)
        self._steps.appendleft(self._discard)
        self.old.out_of_trouble()
        self._go()

    def _go(self, sent: Any = None, error: BaseException | None = None) -> None:
        while self._steps:
            running = self._running = self._running or self._steps[0]()
            try:
                waits = running.send(sent) if error is None else running.throw(error)
            except StopIteration:
                self._running, sent, error = None, None, None
                self._steps.popleft()
            except (Exception, asyncio.CancelledError) as exc:
                self._running = None
                self._hold(exc)
                return
            else:
                waits.add_done_callback(partial(self._engine.guarded, self._came_back))
                return
        del self._engine.parting[self.old.key]
        self._go_on(self)
        if self._stands is not None:
            self._stands()

    def _came_back(self, done: asyncio.Future[Any]) -> None:
        is_error = not done.cancelled() and done.exception() is not None
        if self._engine.turns.is_closed and not is_error:
            return  # everything stops: nothing more is opened
        error = raised_by(done)
        self._go(error=error) if error is not None else self._go(done.result())

    # -- the steps

    def _flush(self) -> Generator[asyncio.Future[Any], Any, None]:
        self.handing = "flushed"
        yield flushed(self._engine, self.old)

    def _take_state(self) -> Generator[asyncio.Future[Any], Any, None]:
        old, new = self.old, self.new
        how = new.node.state
        if how in ("fresh", "flush"):
            return
        if old.node.kind == "stateful":
            is_like = new.node.kind == "stateful" and same(old.node.initial, new.node.initial)
            if callable(how) or is_like:
                self._state = old.state
        elif hasattr(old.process, "snapshot") and (hasattr(new.process, "restore") or callable(how)):
            self._state = yield from self._called(old, old.process.snapshot)
            self._wakes = list(old.wakes or ())

    def _close_old(self) -> Generator[asyncio.Future[Any], Any, None]:
        yield from closed(self.old)

    def _open_new(self) -> Generator[asyncio.Future[Any], Any, None]:
        new = self.new
        if not new.opens_late:
            return
        new.opens_late = False
        try:
            waits = self._engine.opened(new)
            if waits is not None:
                yield waits
        except (Exception, asyncio.CancelledError):  # not where a generator is closed: everything has stopped then
            self._engine.discard([new])
            self.new = self._make()
            raise

    def _discard(self) -> Generator[asyncio.Future[Any], Any, None]:
        """Close what will not be used, before another is opened in its place."""
        if self._unused is not None:
            yield self._engine.discard([self._unused])
            self._unused = None

    def _close_new(self) -> Generator[asyncio.Future[Any], Any, None]:
        new = self.new
        new.is_over = True
        if isinstance(new.driver, OwnTask) and new.process is not None:
            yield new.driver.order(new.driver.close)
        else:
            new.close()

    def _give_state(self) -> Generator[asyncio.Future[Any], Any, None]:
        new = self.new
        if self._state is NO_STATE:
            return
        how = new.node.state
        if how in ("fresh", "flush"):
            return
        state = how(self._state) if callable(how) else self._state
        if new.node.kind == "stateful":
            new.state = state
        elif hasattr(new.process, "restore"):
            yield from self._called(new, partial(new.process.restore, state))
        else:
            return
        self.handing = "carried"
        for time in self._wakes:
            assert new.context is not None
            new.context.wake_at(time)

    def _called(self, runner: Runner, method: Callable[[], Any]) -> Generator[asyncio.Future[Any], Any, Any]:
        """What a method of a process gives; it is called in the process's own task, if it has one."""
        if isinstance(runner.driver, OwnTask):
            return (yield runner.driver.order(partial(runner.driver.call, method)))
        result = method()
        if hasattr(type(result), "__await__"):
            self._call = self._engine.start_call(runner, result)
            result = yield self._call
        return result

    # -- holding

    def _hold(self, cause: BaseException) -> None:
        of_user_code(cause)
        old, can_go_on = self.old, self._steps[0] != self._open_new
        is_given_up, self._is_given_up = self._is_given_up and can_go_on, False
        if not is_given_up:
            self._tell(HandoverError(old.key, self.change, cause), cause)
        if self._engine.is_draining and can_go_on:
            self._without_state()
            return
        old.cancel_retry()
        old.trouble = Trouble("hand over", None, cause, self._engine.loop.time())
        old.trouble.state = "holding"
        old.trouble.handover = self
        old.trouble.again, old.trouble.skip = self._go, self._without_state
        if is_given_up:
            old.pass_over("given up")
        if self._engine.is_draining:  # nothing may be held any more, and without a process nothing goes on
            self._engine.failed(error_of(old.key, old.trouble))

    def _tell(self, error: HandoverError, cause: BaseException) -> None:
        error.__cause__ = cause
        self._held(error)

    def _without_state(self) -> None:
        """Go on as begun."""
        failed = self._steps[0]
        if failed == self._give_state:  # it may be half restored
            self._unused, self.new = self.new, self._make()
            self._steps.extendleft([self._open_new, self._discard])
        elif failed != self._open_new:
            self._steps.popleft()
        self._state, self._wakes, self.handing = NO_STATE, [], "fresh"
        self._go()


def _unheard(_: HandoverError) -> None:
    """Nobody waits for it yet."""


def gives_up_order(runner: Runner) -> bool:
    """Cancel what user code in the node's own task was asked for, if it was."""
    return isinstance(runner.driver, OwnTask) and runner.driver.give_up_order()


def raised_by(done: asyncio.Future[Any]) -> BaseException | None:
    """What user code raised, be it a cancellation of its own."""
    return asyncio.CancelledError() if done.cancelled() else done.exception()


def flushed(engine: Opener, runner: Runner) -> asyncio.Future[Any]:
    """Have a node send what `end` gives; what that raises, the future raises."""
    driver = runner.driver
    runner.is_switching = False  # what is given takes its turns
    if isinstance(driver, OwnTask):
        return driver.order(partial(_flush_end, runner, driver))
    done: asyncio.Future[Any] = engine.loop.create_future()

    def ended(cause: BaseException | None) -> None:
        runner.is_switching = True
        if cause is None:
            done.set_result(None)
        else:
            done.set_exception(cause)

    runner.flush(ended)
    runner.wake()
    return done


async def _flush_end(runner: Runner, driver: OwnTask) -> None:
    try:
        await driver.flush_end()
    finally:
        runner.is_switching = True


def closed(runner: Runner) -> Generator[asyncio.Future[Any], Any, None]:
    """Close what runs in a node that has nothing in hand."""
    driver = runner.driver
    runner.forget_wakes()
    runner.cancel_retry()
    if isinstance(driver, OwnTask) and driver.has_something_to_close:
        yield driver.order(driver.retire)
        return
    if driver is not None:
        driver.dismiss()
    runner.close()


class Leaving:
    """A node that was removed: what `end` gives still leaves, by its policy, and then it is closed."""

    def __init__(self, engine: Opener, runner: Runner, left: Callable[[], None]) -> None:
        self._engine = engine
        self._runner = runner
        self._left = left

    def begin(self) -> None:
        """Flush and close; what waits for nothing is done at once."""
        runner = self._runner
        runner.is_switching = True
        self._engine.parting[runner.key] = self
        if runner.is_over or runner.is_fresh or not hasattr(runner.process, "end"):
            self._close()
        else:
            flushed(self._engine, runner).add_done_callback(partial(self._engine.guarded, self._flushed))

    def give_up(self) -> None:
        """Cancel what user code is asked for just now, and go on without it."""
        self._runner.is_given_up = gives_up_order(self._runner)

    def _flushed(self, done: asyncio.Future[Any]) -> None:
        if done.cancelled() and self._engine.turns.is_closed:
            return  # everything stops
        error = raised_by(done)
        if error is None:
            self._close()
            return
        self._runner.is_switching = False
        self._runner.fail("end", None, error, again=self.begin, skip=self._close, left=self._runner.left)

    def _close(self) -> None:
        self._runner.is_switching = True
        closing = closed(self._runner)
        try:
            for waits in closing:
                waits.add_done_callback(partial(self._engine.guarded, self._closed))
                return
        except (Exception, asyncio.CancelledError) as exc:
            self._not_closed(exc)
        self._gone()

    def _closed(self, done: asyncio.Future[Any]) -> None:
        if done.cancelled() and self._engine.turns.is_closed:
            return
        error = raised_by(done)
        if error is not None:
            self._not_closed(error)
        self._gone()

    def _gone(self) -> None:
        del self._engine.parting[self._runner.key]
        self._left()

    def _not_closed(self, error: BaseException) -> None:
        self._runner.fail("close", None, error, is_last=True)
