"""What makes a runner's steps where the turn alone cannot: user code that is awaited.

`OwnTask` awaits one call after another in a task of the node's own; `Calling` starts a task for each call and keeps the
order of their outputs.  Both take values only when the turn lets them, stand between two items whenever they wait for
input or room, and send what they have within a millisecond of the first of it.
"""

from __future__ import annotations

import asyncio
import weakref
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from functools import partial
from itertools import islice
from types import coroutine
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import anyio

from hotplumb._links import Link, only
from hotplumb._turns import SLICE_S, SLOW_CALL_S, TURN_S
from hotplumb._work import (
    CallsWhole,
    Filling,
    Outcome,
    check_outputs,
    is_of_one,
    iterator_of,
    name_of,
    outputs_of,
    step_of,
)
from hotplumb.items import Chunk, in_hand
from hotplumb.nodes import is_async

if TYPE_CHECKING:
    from hotplumb._runner import Runner

LINGER_S = 0.001  # how long an output may wait for company
SWALLOW_WARN_S = 1.0  # after which a call that goes on in spite of its cancellation is named
SWALLOW_LEAVE_S = 5.0  # after which it is left behind

Failure = Exception | asyncio.CancelledError


class OwnTask:
    """One node whose code is awaited, in its own task."""

    def __init__(self, runner: Runner, made: Any = None) -> None:
        self._runner = runner
        is_iterable = hasattr(type(made), "__aiter__")
        self._made = None if is_iterable else made  # to be awaited for what a source is to iterate
        self._iterator: AsyncIterator[Any] | None = aiter_of(made) if is_iterable else None  # of a source, till it ends
        self._task: asyncio.Task[None] | None = None
        self._begun: asyncio.Future[None] | None = None
        self._granted: asyncio.Future[None] | None = None  # done when it is this node's turn
        self._clock = runner.host.turns.clock
        self._slice_began = -1.0  # on it; below 0 before the first
        self._looped_s = 0.0  # what the runner's loops had taken by then
        self._chunk_began = 0.0
        self._cost_s = SLICE_S  # of one value in the last slice
        self._left = 0  # outputs of the value in hand that have left
        self._is_async_call = is_async(runner.process.process if runner.process is not None else runner.node.fn)
        # in hand
        self._chunk: Chunk | None = None  # None: what is sent begins here
        self._sent_upto = 0  # values of it whose outputs have left
        self._done = 0  # values of it that are finished
        self._kept = 0  # outputs there when the value in hand was taken up
        self._filling = runner.filling or Filling()
        self._names: list[Any] | None = [] if runner.node.kind == "route" else None
        self._whole = CallsWhole(runner.key, runner.node.fn) if runner.node.kind == "map_chunk" else None
        self._timer: asyncio.TimerHandle | None = None
        self._is_late = False  # the timer came while outputs were half made
        # standing
        self._orders: deque[tuple[Callable[[], Awaitable[Any]], asyncio.Future[Any]]] = deque()
        self._is_dismissed = False  # the task is to end
        self._obeyed: asyncio.Future[Any] | None = None  # the order that is carried out
        self._is_mid = False  # waits in the middle of an item
        self._has_loop = False  # nothing else has run on the loop since the slice began
        self.is_busy = False
        self.busy_since = 0.0
        self._is_pulling = False  # waits for the source's next value
        self._given = 0  # values of a source since it was waited for last
        self._is_lone = False  # what a source gives next is likely to be all it gives before it is waited for again
        self._is_stopping = False
        self._is_stopped = False  # was thrown into its wait
        self.is_interrupted = False
        self._decision: Literal["again", "skip"] | None = None  # about what has failed and had no item

    # -- from outside

    @property
    def is_between(self) -> bool:
        """Whether nothing is half made."""
        if self._filling.out:
            return False
        if self._task is None or self._task.done() or self._is_pulling:
            return True
        return self._granted is not None and not self._granted.done() and not self._is_mid

    @property
    def is_producing(self) -> bool:
        """Whether a source has more to give."""
        return self._iterator is not None

    def dismiss(self) -> None:
        """Let the task end."""
        self._is_dismissed = True
        if self._task is not None and not self._task.done():
            self.order(_nothing)

    def order(self, action: Callable[[], Awaitable[Any]]) -> asyncio.Future[Any]:
        """Have something done in the task, between two items."""
        done: asyncio.Future[Any] = self._runner.host.loop.create_future()
        self._orders.append((action, done))
        if self._task is None or self._task.done():
            self._start()
        elif self._is_pulling:
            self.interrupt()
        elif self._granted is not None and not self._granted.done():
            self._granted.set_result(None)
        return done

    @property
    def has_something_to_close(self) -> bool:
        """Whether there is a process, or a source that has not ended."""
        return self._runner.process is not None or self._iterator is not None

    async def call(self, method: Callable[[], Any]) -> Any:
        """Call a method of the process; to be ordered."""
        return await _awaited(method())

    async def flush_end(self) -> None:
        """Send what `end` gives; to be ordered.  Raises what it raises."""
        runner = self._runner
        runner.forget_wakes()
        self._left = 0
        try:
            await self._give_from(runner.process.end)
        except (Exception, asyncio.CancelledError):
            runner.left = self._left + self._send_whole()
            raise
        finally:
            self.is_busy = False
        await self._flush_with_room()

    def in_hand(self) -> Iterator[Chunk]:
        """The values that user code works on."""
        if self.is_busy and self._chunk is not None:
            yield only(self._chunk, self._done, len(self._chunk))

    def give_up(self) -> None:
        """Cancel the call under way; what it has in hand goes to the dead letters."""
        if self._task is not None and self.is_busy and self._obeyed is None:
            self._runner.is_given_up = True
            self._task.cancel()
            self._runner.host.loop.call_later(SWALLOW_WARN_S, self._look_for_return, self._task, False)

    def give_up_order(self) -> bool:
        """Cancel a `begin`, or what was ordered, if user code is in it; gives whether it is."""
        if self._task is None or not (self.is_beginning or (self.is_busy and self._obeyed is not None)):
            return False
        self._task.cancel()
        order = self._obeyed or self._begun
        assert order is not None
        if order is self._begun:
            self._task.add_done_callback(self._has_not_begun)
        self._runner.host.loop.call_later(SWALLOW_WARN_S, self._look_for_obedience, order, False)
        return True

    def _has_not_begun(self, _: asyncio.Task[None]) -> None:
        """The task has ended, perhaps before its first step."""
        if self._begun is not None and not self._begun.done():
            self._begun.set_exception(asyncio.CancelledError())

    def _look_for_obedience(self, order: asyncio.Future[Any], is_left: bool) -> None:
        """An order that goes on in spite of being given up is named, and in the end left behind."""
        runner, host = self._runner, self._runner.host
        if order.done() or self._task is None or host.turns.is_closed:
            return
        host.warn_swallowed(runner.key, is_left)
        if not is_left:
            host.loop.call_later(SWALLOW_LEAVE_S - SWALLOW_WARN_S, self._look_for_obedience, order, True)
            return
        host.leave_behind(self._task)
        self._task, self._obeyed, self.is_busy = None, None, False
        order.set_exception(asyncio.CancelledError())

    def _look_for_return(self, task: asyncio.Task[None], is_left: bool) -> None:
        """A call that goes on in spite of being given up is named, and in the end left behind."""
        runner, host = self._runner, self._runner.host
        if task.done() or task is not self._task or not runner.is_given_up:
            return
        host.warn_swallowed(runner.key, is_left)
        if not is_left:
            host.loop.call_later(SWALLOW_LEAVE_S - SWALLOW_WARN_S, self._look_for_return, task, True)
            return
        host.leave_behind(task)
        self._task, self.is_busy = None, False
        self._drop_timer()
        chunk, link, done = self._chunk, runner.link_in_hand, self._done
        self._filling.cut(self._kept)
        self.flush()
        if chunk is not None and link is not None:
            runner.count(chunk, done)
            self._return_rest(link, chunk, started=done + 1, done=done)
            runner.fail(runner.call_name, chunk.item(done), asyncio.CancelledError(), link=link)
        self._start()

    async def close(self) -> None:
        """Close the process; to be ordered."""
        await self._close()

    async def retire(self) -> None:
        """Close the process or the source, and let the task end; to be ordered."""
        self._is_dismissed = True
        await self._close_iterator()
        await self._close()

    @property
    def is_beginning(self) -> bool:
        """Whether a `begin` is under way."""
        return self._begun is not None and not self._begun.done()

    async def abandon(self) -> None:
        """Close what it was to run, and end the task; a `begin` under way is cancelled."""
        if self.is_beginning and self._task is not None and self._begun is not None:
            self._begun.add_done_callback(lambda begun: begun.cancelled() or begun.exception())  # nobody waits for it
            self._task.cancel()
            await self._runner.host.wait_cancelled([self._task])
        else:
            await self.order(self.retire)

    def begin(self) -> asyncio.Future[None]:
        """Start the task with the process's `begin`; done when that is."""
        self._begun = self._runner.host.loop.create_future()
        self._start()
        return self._begun

    def step(self, now: float) -> float:
        """Let the task do a slice."""
        runner = self._runner
        if self._task is None or self._task.done():
            self._start()
        elif self._granted is not None and not self._granted.done():
            waiting = runner.waiting[0].queued if runner.waiting else 1
            runner.host.turns.charged_s += min(self._cost_s * max(1, waiting), SLICE_S)
            self._granted.set_result(None)
        elif self._is_pulling:
            self.flush()
            self._send_injected()
            if runner.switching is not None and self.is_between:
                runner.wake()
        return now

    def interrupt(self) -> None:
        """Stop producing: throw into the wait for the next value, if that is where the source is."""
        self._is_stopping = True
        if self._is_pulling and self._task is not None and not self._is_stopped:
            self._is_stopped = True
            self._task.cancel()
            self._runner.host.loop.call_later(SWALLOW_WARN_S, self._look_for_end, self._task, False)

    def _look_for_end(self, task: asyncio.Task[None], is_left: bool) -> None:
        """A source that goes on in spite of its interruption is named, and in the end left behind."""
        host, key = self._runner.host, self._runner.key
        if task.done() or task is not self._task or not self._is_pulling:
            return
        host.warn_swallowed(key, is_left)
        if not is_left:
            host.loop.call_later(SWALLOW_LEAVE_S - SWALLOW_WARN_S, self._look_for_end, task, True)
            return
        host.leave_behind(task)
        self._iterator = self._made = None
        self._is_pulling = False
        self._runner.open_inputs = 0
        self._start()

    def _start(self) -> None:
        self._task = self._runner.host.start_task(self._runner.key, self._live())

    # -- the task

    async def _live(self) -> None:
        runner, task = self._runner, asyncio.current_task()
        try:
            if self._begun is not None and not self._begun.done() and not await self._begin_first(self._begun):
                return
            if self._iterator is not None:
                await self._produce()
            while self._orders or not (runner.is_over or self._is_dismissed):
                if not self._orders:
                    await self._my_turn()
                if self._orders:
                    await self._obey()
                elif runner.wakes and runner.wakes[0] <= runner.host.loop.time():
                    await self._give_own("wake", runner.due_time())
                elif (taken := runner.next_chunk(runner.cut)) is not None:
                    if await self._may_work_on(*taken):
                        await self._worked(*taken, await self._through(*taken))
                elif not runner.open_inputs and not runner.waiting:
                    await self._end()
        finally:
            if self._task is task:  # else it was left behind, and another has taken its place
                self._drop_timer()
                await self._close_at_last()
                self._leave_orders()

    def _leave_orders(self) -> None:
        """The task ends: another obeys what has come meanwhile, unless everything stops."""
        if self._orders and not self._runner.host.turns.is_closed:
            self._start()
            return
        for _, done in self._orders:
            done.cancel()

    async def _obey(self) -> None:
        action, done = self._orders.popleft()
        self.is_busy, self.busy_since = True, self._runner.host.loop.time()
        self._obeyed, task = done, self._task
        try:
            result = await action()
            if self._task is not task:
                raise asyncio.CancelledError  # it was left behind, and has come back
        except (Exception, asyncio.CancelledError) as exc:
            self._refuse_own_cancellation(exc)
            if not done.done():  # else nobody waits for it any more
                done.set_exception(exc)
        else:
            if not done.done():
                done.set_result(result)
        finally:
            if self._task is task:
                self.is_busy, self._obeyed = False, None

    async def _begin_first(self, begun: asyncio.Future[None]) -> bool:
        task = self._task
        try:
            await self._begin()
        except (Exception, asyncio.CancelledError) as exc:
            if isinstance(exc, asyncio.CancelledError) and self._runner.host.turns.is_closed:
                begun.cancel()
                raise
            if self._task is task:  # else it was left behind, and has come back
                begun.set_exception(exc)
            return False
        if self._task is task:
            begun.set_result(None)
        return self._task is task

    async def _begin(self) -> None:
        if self._runner.is_source:
            made: Any = self._made
            self._made = None
            self._iterator = aiter_of(await made)
            return
        begin = getattr(self._runner.process, "begin", None)
        if begin is not None:
            await _awaited(begin(self._runner.context))

    async def _my_turn(self, has_more: bool = False) -> None:
        """Return when the turn lets this node do a slice: it has something to do, and room for what comes of it."""
        runner = self._runner
        clock = self._clock
        if runner.host.turns.is_closed:
            raise asyncio.CancelledError  # left behind, it has come back after the end
        if self._orders and not self._is_mid:
            return  # they come first
        if self._slice_began >= 0:
            self._cost_s = (clock() - self._slice_began) / max(1, self._done)
        self._granted = runner.host.loop.create_future()
        if has_more or runner.late is not None or runner.has_work():
            runner.wake()
        else:
            runner.host.turns.run_now()
        await self._granted
        self._slice_began = clock()
        self._has_loop = True
        runner.host.loop.call_soon(self._let_loop)

    def _let_loop(self) -> None:
        """The loop has turned since the slice began."""
        self._has_loop = False

    def _name_if_slow(self, seconds: float, values: int) -> None:
        """A slice of so many seconds has held up the loop, if nothing else has run meanwhile."""
        seconds -= self._runner.looping_s - self._looped_s
        if seconds > SLOW_CALL_S and self._has_loop:
            self._runner.host.warn_slow(self._runner.key, seconds, values)

    def _is_slice_over(self) -> bool:
        seconds, runner = self._clock() - self._slice_began, self._runner
        if seconds > (SLICE_S if self._has_loop else TURN_S):  # where user code has waited, others have had their turns
            self._name_if_slow(seconds, 1)
            return True
        return (
            runner.full_links > 0
            or runner.is_paused
            or runner.wants_finish
            or self.is_interrupted
            or runner.switching is not None
        )

    async def _may_work_on(self, link: Link, chunk: Chunk) -> bool:
        """Whether what was taken is to be worked on: an ended process has to begin again first."""
        runner = self._runner
        if runner.is_source:
            runner.send_own(chunk.values)
            return False
        return not runner.is_fresh or await self._anew(link, chunk)

    def _through(self, link: Link, chunk: Chunk) -> Awaitable[Failure | None]:
        """Work on a chunk; to be awaited where nothing else lies between the task and user code: each step costs."""
        self._chunk, self._sent_upto, self._done, self.is_interrupted = chunk, 0, 0, False
        link.count_in(len(chunk) - 1)  # what is not taken up in this slice goes back
        self._chunk_began = self._clock()
        return self._work_through(link, chunk) if self._whole is None else self._work_whole(link, chunk, self._whole)

    async def _worked(self, link: Link, chunk: Chunk, error: Failure | None) -> None:
        """Send what a chunk has given, and return what it has left."""
        runner = self._runner
        self.is_busy = False
        in_hand.set(None)
        runner.is_given_up = runner.is_given_up and error is not None  # else the call has returned after all
        runner.busy_s += self._clock() - self._chunk_began
        runner.count(chunk, self._done)
        await self._flush_with_room()
        left = self._left if error is not None else 0
        self._return_rest(link, chunk, started=self._done + (error is not None), done=self._done + bool(left))
        if self._done:
            runner.attempts = 0
        if error is not None:  # where outputs of it have left, it cannot be tried again and has not gone back
            runner.fail(runner.call_name, chunk.item(self._done), error, link=None if left else link, left=left)

    def _return_rest(self, link: Link, chunk: Chunk, started: int, done: int) -> None:
        """Return to the link what is not done; what was not even started is counted there still."""
        if link.is_closed:  # and has forgotten what it counted
            self._runner.put_back(link, only(chunk, done, started))
        else:
            link.count_out(len(chunk) - started)
            self._runner.put_back(link, only(chunk, done, len(chunk)))

    async def _work_through(self, link: Link, chunk: Chunk) -> Failure | None:
        """Call with each value until the slice is over; gives what user code raised."""
        runner, filling = self._runner, self._filling
        is_many, is_map = runner.filling is not None, runner.node.kind == "map"
        fn, task = runner.node.fn, self._task
        timeout_s, turns = runner.node.timeout_s, runner.host.turns
        waits = link.when_full == "wait"
        self.is_busy, self.busy_since = True, runner.host.loop.time()
        for place, value in enumerate(chunk.values):
            in_hand.set((chunk, place))
            if place:
                if link.is_closed or link.queued == link.capacity:  # it has room now
                    link.count_out(1)
                else:
                    link.queued -= waits
            self._kept, self._left = len(filling.out), 0
            try:
                if is_many:
                    await self._give(value, chunk.start + place)
                else:
                    answer = (
                        await fn(value) if timeout_s is None else await within(runner, partial(fn, value), timeout_s)
                    )
                    if is_map:
                        filling.out.append(answer)
                    else:
                        self._keep(value, answer, chunk.start + place)
                if turns.is_closed or self._task is not task:
                    self.is_busy = self.is_busy and self._task is not task
                    raise asyncio.CancelledError  # it was left behind, and has come back
            except (Exception, asyncio.CancelledError) as exc:
                self._refuse_own_cancellation(exc)
                filling.cut(self._kept)
                return exc
            self._done = place + 1
            if filling.out and (self._timer is None or self._is_late or len(filling.out) >= runner.cut):
                self._see_to_sending()
            if self._is_slice_over():
                break
        return None

    async def _work_whole(self, link: Link, chunk: Chunk, whole: CallsWhole) -> Failure | None:
        """Call with all values; where that raises, with one after the other.  All of them are in hand until then."""
        self.is_busy, self.busy_since = True, self._runner.host.loop.time()
        in_hand.set(whole)
        raised = error = await self._call_whole(whole, chunk.values)
        if error is None:
            link.count_out(len(chunk) - 1)
        elif isinstance(raised, Exception) and is_of_one(raised, chunk.values):
            for place, value in enumerate(chunk.values):
                if place:
                    link.count_out(1)
                error = await self._call_whole(whole, [value])
                if error is not None:
                    break
            else:
                whole.warn(raised)
        self._name_if_slow(self._clock() - self._slice_began, len(chunk))
        return error

    async def _call_whole(self, whole: CallsWhole, values: list[Any]) -> Failure | None:
        """Add what one call gives to the outputs; gives what it raised."""
        runner, filling, task = self._runner, self._filling, self._task
        self._kept = len(filling.out)
        try:
            answer = await self._answer(partial(runner.node.fn, list(values)))
            if runner.host.turns.is_closed or self._task is not task:
                self.is_busy = self.is_busy and self._task is not task
                raise asyncio.CancelledError  # it was left behind, and has come back
            outputs = whole.outputs(answer, len(values))
        except (Exception, asyncio.CancelledError) as exc:
            self._refuse_own_cancellation(exc)
            return exc
        filling.out.extend(outputs)
        self._done += len(values)
        self._see_to_sending()
        return None

    def _refuse_own_cancellation(self, exc: BaseException) -> None:
        """Raise on a cancellation that is to end this task; user code may raise one, or cancel itself."""
        task = asyncio.current_task()
        if isinstance(exc, asyncio.CancelledError) and task is not None:
            if self._runner.host.turns.is_closed or task is not self._task:
                raise exc
            if task.cancelling():
                task.uncancel()

    def _keep(self, value: Any, answer: Any, place: int) -> None:
        """Add what one answer means to the outputs."""
        filling = self._filling
        match self._runner.node.kind:
            case "filter":
                if answer:
                    filling.out.append(value)
                    filling.index.append(place)
            case "route":
                assert self._names is not None
                self._names.append(name_of(answer))
                filling.out.append(value)

    async def _give(self, value: Any, place: int) -> None:
        """Add each of the outputs that one value gives."""
        runner = self._runner
        kind, fn = runner.node.kind, runner.node.fn
        if kind == "stateful":
            state, outputs = step_of(kind, fn, await self._answer(partial(fn, runner.state, value)))
            await self._take(outputs, place)
            runner.state = state
            return
        call = runner.process.process if kind == "process" else fn
        outputs = await self._answer(partial(call, value)) if self._is_async_call else call(value)
        if not hasattr(type(outputs), "__aiter__"):
            check_outputs(kind, call, outputs)
        await self._take(outputs, place)

    async def _answer(self, call: Callable[[], Any]) -> Any:
        """What a call of an async function gives in time; an async generator as it is, unless a time is set."""
        timeout_s = self._runner.node.timeout_s
        if timeout_s is not None:
            return await within(self._runner, call, timeout_s)
        made = call()
        return made if hasattr(type(made), "__aiter__") else await made

    async def _take(self, outputs: Any, place: int) -> None:
        filling, runner = self._filling, self._runner
        if hasattr(type(outputs), "__aiter__"):
            await self._take_async(outputs, place)
        elif outputs is not None:
            found = outputs_of(outputs) if runner.process is not None else outputs
            skips_none = runner.process is not None and type(found) is not list and type(found) is not tuple
            try:
                for output in found:
                    if output is None and skips_none:
                        continue
                    filling.out.append(output)
                    if len(filling.out) >= runner.cut and not await self._make_room(place):
                        break
            finally:
                if hasattr(found, "close"):
                    found.close()
        filling.end_call(place)

    async def _take_async(self, outputs: Any, place: int) -> None:
        filling, runner = self._filling, self._runner
        is_process = runner.process is not None
        try:
            async for output in outputs:
                if output is None and is_process:
                    continue
                filling.out.append(output)
                if len(filling.out) >= runner.cut and not await self._make_room(place):
                    break
        finally:
            if hasattr(outputs, "aclose"):
                await outputs.aclose()

    async def _make_room(self, place: int) -> bool:
        """Send a full chunk in the middle of an item; False when nobody wants more of it."""
        runner = self._runner
        self._filling.attribute(place)
        of_this = len(self._filling.out) - self._kept
        await self._flush_with_room()
        self._left += of_this
        self._kept = 0
        return bool(runner.outputs) or not runner.wants_finish

    async def _flush_with_room(self) -> None:
        """Send all outputs there are, when there is room for them."""
        runner = self._runner
        self._is_mid = True
        while self._filling.out and (runner.full_links or runner.is_paused):
            await self._my_turn(has_more=True)
        self._is_mid = False
        self.flush()

    async def _anew(self, link: Link, chunk: Chunk) -> bool:
        """Begin as at the start; where that fails, what was taken goes back."""
        runner = self._runner
        runner.state = runner.node.initial
        link.count_in(len(chunk))  # so that its room is not taken while `begin` waits
        try:
            if runner.node.kind == "process":
                runner.process = runner.node.fn()
                runner.renew_context()
                await self._begin()
        except (Exception, asyncio.CancelledError) as exc:
            self._refuse_own_cancellation(exc)
            link.count_out(len(chunk))
            runner.put_back(link, chunk)
            await self._close_after(exc)
            runner.fail("begin", chunk.item(0), exc, link=link)
            return False
        link.count_out(len(chunk))
        runner.is_fresh = False
        return True

    # -- what has no item in hand

    async def _supervised(self, name: str, attempt: Callable[[], Awaitable[None]], is_last: bool = False) -> None:
        """Do something until it works, or its policy passes it over."""
        runner = self._runner
        while True:
            self._decision, self._left = None, 0
            try:
                await attempt()
                runner.attempts = 0
                return
            except (Exception, asyncio.CancelledError) as exc:
                self._refuse_own_cancellation(exc)
                self._left += self._send_whole()
                again, skip = self._decide_again, self._decide_skip
                runner.fail(name, None, exc, again=again, skip=skip, left=self._left, is_last=is_last)
            finally:
                self.is_busy = False
            await self._until_decided()
            if self._decision == "skip":
                return

    def _send_whole(self) -> int:
        """Send what there is; gives how many outputs that were."""
        count = len(self._filling.out)
        self.flush()
        return count

    async def _until_decided(self) -> None:
        self._is_mid = self._iterator is None  # a source that has failed stands between two values
        while self._decision is None and not self._orders:
            await self._my_turn(has_more=True)
        self._is_mid = False

    def _decide_again(self) -> None:
        self._decision = "again"

    def _decide_skip(self) -> None:
        self._decision = "skip"

    async def _give_own(self, name: str, *args: Any) -> None:
        """Send what `end` or `wake` gives."""
        method = getattr(self._runner.process, name, None)
        if method is not None:
            await self._supervised(name, partial(self._give_from, method, *args))
            self.flush()

    async def _give_from(self, method: Callable[..., Any], *args: Any) -> None:
        clock = self._clock
        self._chunk, self._kept = None, 0
        self.is_busy, self.busy_since = True, self._runner.host.loop.time()
        in_hand.set(None)
        began = clock()
        try:
            result = method(*args)
            if not hasattr(type(result), "__aiter__"):
                result = await _awaited(result)
            await self._take(result, 0)
        finally:
            self._runner.busy_s += clock() - began

    async def _end(self) -> None:
        runner = self._runner
        runner.is_ending = True
        runner.forget_wakes()
        if not runner.is_fresh:
            await self._give_own("end")
        await self._supervised("close", self._close, is_last=True)
        runner.pass_end()

    async def _close(self) -> None:
        """Close the process, once."""
        runner = self._runner
        process, runner.process = runner.process, None
        close = getattr(process, "close", None)
        if close is not None:
            in_hand.set(None)
            await self._shielded(close)

    async def _shielded(self, close: Callable[[], Any]) -> None:
        """Close something, and let that not be cancelled when everything stops meanwhile."""
        host, task = self._runner.host, asyncio.current_task()
        assert task is not None
        host.shield(task, is_closing=True)
        try:
            await _awaited(close())
        finally:
            host.shield(task, is_closing=False)

    async def close_unstarted(self) -> None:
        """Close what was made for a task that never came to its first step."""
        made: Any = self._made
        self._made = None
        if hasattr(made, "close"):
            made.close()  # a coroutine that will not be awaited
        if self._iterator is not None or self._runner.process is not None:
            with anyio.move_on_after(SWALLOW_LEAVE_S):
                await self._close_at_last()

    async def _close_after(self, error: BaseException) -> None:
        """Close what could not begin."""
        try:
            await self._close()
        except (Exception, asyncio.CancelledError) as exc:
            self._refuse_own_cancellation(exc)
            error.add_note(f"and its close raised {type(exc).__name__}: {exc}")

    async def _close_at_last(self) -> None:
        """Close what is open still when everything stops."""
        for close in (self._close_iterator, self._close):
            try:
                await close()
            except Exception as exc:
                self._runner.fail("close", None, exc, is_last=True)

    # -- a source

    async def _produce(self) -> None:
        """Send what the source gives until it ends or is stopped, starting it again as its policy says."""
        runner = self._runner
        self._chunk = None
        await self._my_turn(has_more=True)
        self._send_injected()
        while self._iterator is not None and not self._is_stopping and not runner.wants_finish and not self._orders:
            try:
                ended = await self._produce_slice(self._iterator)
            except (Exception, asyncio.CancelledError) as exc:
                if self._is_own_interruption(exc):
                    break
                self.flush()
                self._decision = None
                runner.fail_source(exc, self._decide_again, self._decide_skip)
                await self._until_decided()
                if self._decision == "again" and not self._is_stopping:
                    await self._start_again()
                continue
            if ended:
                break
            if not runner.full_links:
                self.flush()
            await self._my_turn(has_more=True)
            self.flush()
            self._send_injected()
        await self._flush_with_room()
        await self._stop_producing()

    async def _produce_slice(self, iterator: AsyncIterator[Any]) -> bool:
        """Take values until the slice is over; whether the iterator has ended."""
        began = self._clock()
        try:
            return await self._take_values(iterator)
        finally:
            runner = self._runner
            runner.busy_s += self._clock() - began - runner.looping_s
            runner.looping_s = self._looped_s = 0.0

    async def _take_values(self, iterator: AsyncIterator[Any]) -> bool:
        runner, out = self._runner, self._filling
        while not self._is_stopping:
            try:
                value = await self._next(iterator)
            except StopAsyncIteration:
                return True
            if iterator is not self._iterator or runner.host.turns.is_closed:
                raise asyncio.CancelledError  # it was left behind
            out.out.append(value)
            runner.given += 1
            self._given += 1
            if self._is_lone and not runner.full_links:
                self._is_lone = False
                self._send_at_once()
            else:
                self._see_to_sending()
            if self._is_slice_over():
                return False
        return True

    def _send_at_once(self) -> None:
        """Send what there is of a source, and let the readers have it in this turn of the loop."""
        self._is_late = False
        runner, turns = self._runner, self._runner.host.turns
        out, self._filling.out = self._filling.out, []
        others_s, began = runner.looping_s, self._clock()
        if not turns.run_first(runner.send_through, out, began):  # where there is nothing, others are ready
            runner.send_own(out)
        runner.looping_s = others_s + self._clock() - began

    def _is_own_interruption(self, exc: BaseException) -> bool:
        """Whether a source's wait was ended by `interrupt`; raises where the task itself is cancelled."""
        if isinstance(exc, asyncio.CancelledError) and self._is_stopped and not self._runner.host.turns.is_closed:
            if asyncio.current_task() is not self._task:
                raise exc  # it was left behind
            return True
        self._refuse_own_cancellation(exc)
        return False

    async def _start_again(self) -> None:
        """Start a source that has failed from its beginning."""
        try:
            await self._close_iterator()
            made = self._runner.produce()
            self._iterator = aiter_of(await made if hasattr(type(made), "__await__") else made)
        except (Exception, asyncio.CancelledError) as exc:
            self._refuse_own_cancellation(exc)
            self._iterator = _raising(exc)

    async def _stop_producing(self) -> None:
        if self._is_stopped and self._task is not None:
            self._task.uncancel()
            self._is_stopped = False
        await self._supervised("close", self._close_iterator, is_last=True)
        self._runner.open_inputs = 0

    async def _close_iterator(self) -> None:
        iterator, self._iterator, self._made = self._iterator, None, None
        if iterator is not None and hasattr(iterator, "aclose"):
            await self._shielded(iterator.aclose)

    @coroutine
    def _next(self, iterator: AsyncIterator[Any]) -> Generator[Any, Any, Any]:
        """`await anext(iterator)`, but what there is leaves before the producer is waited for."""
        waits = iterator.__anext__().__await__()
        try:
            wanted = next(waits)
        except StopIteration as got:
            return got.value
        if not self._runner.full_links:
            self._send_at_once()
        self._is_lone, self._given = self._given == 1, 0
        self._is_pulling = True
        self._look_before_waiting()
        try:
            return (yield from _rest_of(waits, wanted))
        finally:
            if iterator is self._iterator:  # else it was left behind
                self._is_pulling = False
                self._looped_s = self._runner.looping_s
                self._slice_began = self._clock()  # it has waited: what it has used is long gone

    def _look_before_waiting(self) -> None:
        """See to what has been asked of it while it was working."""
        if self._is_stopping or self._orders:
            self.interrupt()
        elif self._runner.switching is not None or self._runner.wants_finish or self._runner.late is not None:
            self._runner.wake()

    def _send_injected(self) -> None:
        """Send what was injected into a source, between two of its own."""
        runner = self._runner
        while not runner.full_links and (taken := runner.next_chunk(runner.cut)) is not None:
            runner.send_own(taken[1].values)

    # -- sending

    def _see_to_sending(self) -> None:
        """Outputs leave when there is a chunk of them, and a millisecond after the first at the latest."""
        if self._runner.full_links:
            return  # the slice is over, and they leave when there is room
        if self._is_late or len(self._filling.out) >= self._runner.cut:
            self.flush()
        elif self._timer is None and not self._runner.is_source:  # which sends before it waits for anything
            self._timer = self._runner.host.loop.call_later(LINGER_S, self._linger_over)

    def _linger_over(self) -> None:
        self._timer = None
        filling = self._runner.filling
        if self._runner.full_links:
            self._is_late = True
        elif filling is None or not self.is_busy:
            self.flush()
        elif self._kept:  # what the item in hand has given so far stays: its outputs leave together
            taken, self._kept = filling.take(self._kept), 0
            self._send(taken)
        else:
            self._is_late = True

    def flush(self) -> None:
        """Send all outputs there are."""
        filling, names = self._filling, self._names
        self._is_late = False
        if filling.out:
            self._send(Outcome(filling.out, filling.index, names, filling.members()))
            filling.renew()
            if names is not None:
                self._names = []

    def _send(self, outcome: Outcome) -> None:
        runner, chunk = self._runner, self._chunk
        if chunk is None:
            runner.send_own(outcome.values, outcome.members)
        elif runner.node.kind in ("map", "map_chunk", "route"):  # one for one
            part = Chunk([], chunk.record, chunk.start + self._sent_upto)
            self._sent_upto = self._done
            runner.send_outcome(part, outcome._replace(places=None))
        else:
            runner.send_outcome(chunk, outcome)

    def _drop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


async def _nothing() -> None:
    """An order that only lets the task look."""


def aiter_of(made: Any) -> AsyncIterator[Any]:
    """The iterator of what an async source gave, which may be a plain iterable too."""
    if hasattr(type(made), "__aiter__"):
        iterator: AsyncIterator[Any] = made.__aiter__()
        return iterator
    return _each_of(iterator_of(made, made))


async def _each_of(values: Iterator[Any]) -> AsyncIterator[Any]:
    for value in values:
        yield value


async def _raising(exc: BaseException) -> AsyncIterator[Any]:
    """A source that cannot be started."""
    raise exc
    yield


async def within(runner: Runner, call: Callable[[], Any], timeout_s: float) -> Any:
    """What a call gives, if that takes no longer; it runs in a task of its own, so that it can be left behind.

    Calls are made in their tasks: a task that is cancelled before its first step has then made nothing.
    """
    work = partial(_whole, call, runner.node.kind == "process")
    task = runner.host.start_task(runner.key, timed(runner, work), is_call=True)
    try:
        await asyncio.wait([task], timeout=timeout_s)
    except asyncio.CancelledError:
        task.cancel()
        raise
    if task.done():
        return task.result()
    task.cancel()
    await runner.host.wait_cancelled([task])
    raise TimeoutError(f"gave no answer within {timeout_s:g} s")


async def _whole(call: Callable[[], Any], skips_none: bool) -> Any:
    """What a call gives, an async generator all at once."""
    made = call()
    return await _gathered(made, skips_none) if hasattr(type(made), "__aiter__") else await made


async def timed(runner: Runner, call: Callable[[], Any], note: Callable[[float], None] | None = None) -> Any:
    """What a call gives; a call that holds up the loop before it first waits for something is named."""
    return await _timed(runner, call, note)


@coroutine
def _timed(runner: Runner, call: Callable[[], Any], note: Callable[[float], None] | None) -> Generator[Any, Any, Any]:
    clock = runner.host.turns.clock
    began = clock()
    waits = call().__await__()
    try:
        wanted = next(waits)
    except StopIteration as got:
        return got.value
    finally:
        seconds = clock() - began
        if note is not None:
            note(seconds)
        if seconds > SLOW_CALL_S:
            runner.host.warn_slow(runner.key, seconds, 1)
    return (yield from _rest_of(waits, wanted))


def _rest_of(waits: Any, wanted: Any) -> Generator[Any, Any, Any]:
    """What is left of an `await` that has come to its first wait, for `wanted`."""
    try:
        while True:
            try:
                sent = yield wanted
            except BaseException as exc:
                wanted = waits.throw(exc)
            else:
                wanted = waits.send(sent)
    except StopIteration as got:
        return got.value


async def _awaited(result: Any) -> Any:
    """What a method that is plain or async gave."""
    return await result if hasattr(type(result), "__await__") else result


class _Call(NamedTuple):
    """One call under way."""

    link: Link  # where its value came from
    chunk: Chunk  # that one value
    task: asyncio.Future[Any]
    since: float  # on the loop's clock


class Calling:
    """One node with several calls under way, each in a task; their outputs keep the order of the values."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._calls: deque[_Call] = deque()  # oldest first
        self._record: Any = None  # of the values whose outputs wait to be sent
        self._filling = runner.filling or Filling()
        self._names: list[Any] = []
        self._name: Any = None  # of the output that the oldest call goes to
        self._cost_s = SLICE_S  # how long the latest call ran until it waited for something
        self._rest: Iterator[Any] | None = None  # outputs of the oldest call that wait for room
        self._given_up: weakref.WeakSet[asyncio.Future[Any]] = weakref.WeakSet()
        self._running = 0  # calls that have not come back
        self._busy_from = 0.0  # when there was a first of them, on the clock of slices
        self.is_interrupted = False

    @property
    def is_busy(self) -> bool:
        return bool(self._calls)

    @property
    def busy_since(self) -> float:
        """When the oldest call was started."""
        return self._calls[0].since if self._calls else 0.0

    @property
    def is_beginning(self) -> bool:
        """There is nothing to begin."""
        return False

    def interrupt(self) -> None:
        """Only sources are interrupted."""

    def step(self, now: float) -> float:
        """Send what has come back, and start new calls."""
        runner = self._runner
        clock = runner.host.turns.clock
        self._settle()
        if runner.trouble is None:
            self._start_calls(now + SLICE_S)
            if runner.switching is not None or runner.late is not None:
                if self.is_between:
                    runner.wake()
            elif not self._calls and not runner.open_inputs and not runner.waiting:
                runner.end()
        return clock()

    def _start_calls(self, until: float) -> None:
        runner = self._runner
        turns = runner.host.turns
        if runner.switching is not None:
            return
        while len(self._calls) < runner.node.concurrency and not runner.full_links:
            if turns.clock() > until or turns.charged_s >= TURN_S:
                runner.wake()
                return
            if self._calls and runner.is_marker_next:
                return  # none overtakes an item
            turns.charged_s += self._cost_s
            taken = runner.next_chunk(1)
            if taken is None:
                return
            link, chunk = taken
            self._calls.append(_Call(link, chunk, self._start(chunk), runner.host.loop.time()))

    def _start(self, chunk: Chunk) -> asyncio.Task[Any]:
        runner = self._runner
        runner.is_fresh = False
        timeout_s = runner.node.timeout_s
        in_hand.set((chunk, 0))
        try:
            work = partial(
                timed, runner, partial(_called, runner.node.kind, runner.node.fn, chunk.values[0]), self._note_cost
            )
            call = work() if timeout_s is None else within(runner, work, timeout_s)
            task = runner.host.start_task(runner.key, call, is_call=True)
        finally:
            in_hand.set(None)
        task.add_done_callback(self._came_back)
        if not self._running:
            self._busy_from = runner.host.turns.clock()
        self._running += 1
        return task

    def _note_cost(self, seconds: float) -> None:
        self._cost_s = seconds

    def _came_back(self, _: asyncio.Future[Any]) -> None:
        runner = self._runner
        self._running -= 1
        if not self._running:
            runner.busy_s += runner.host.turns.clock() - self._busy_from
        runner.wake()

    def _settle(self) -> None:
        """Send the outputs of the calls that have come back, as far as all before them have and there is room."""
        runner = self._runner
        while self._calls and self._calls[0].task.done() and not runner.full_links:
            _, chunk, task, _ = self._calls[0]
            error = _error_of(task)
            try:
                if error is None and self._rest is None:
                    self._rest = self._outputs(chunk, task.result())
            except Exception as exc:  # from an answer that is not what it should be
                error = exc
            if error is not None:
                self._flush()
                runner.is_given_up = task in self._given_up
                runner.fail(runner.call_name, chunk.item(0), error, again=self._call_again, skip=self._skip)
                return
            if self._take_rest(chunk):
                self._calls.popleft()
                runner.count(chunk, 1)
                runner.attempts = 0
        self._flush()

    def _take_rest(self, chunk: Chunk) -> bool:
        """Take outputs of the oldest call until a chunk is full; whether that was all of them."""
        filling, cut = self._filling, self._runner.cut
        assert self._rest is not None
        if chunk.record is not self._record or len(filling.out) >= cut:
            self._flush()
            self._record = chunk.record
            if self._runner.full_links:
                return False
        room = cut - len(filling.out)
        before = len(filling.out)
        filling.out.extend(islice(self._rest, room))
        if self._runner.node.kind == "route" and len(filling.out) > before:
            self._names.append(self._name)
        filling.end_call(chunk.start)
        if len(filling.out) - before < room:
            self._rest = None
            return True
        self._flush()
        return False

    def _call_again(self) -> None:
        failed = self._calls[0]
        self._calls[0] = failed._replace(task=self._start(failed.chunk), since=self._runner.host.loop.time())

    def _skip(self) -> None:
        self._calls.popleft()

    @property
    def is_between(self) -> bool:
        """Whether nothing is half made."""
        return not self._calls or (self._runner.trouble is not None and all(call.task.done() for call in self._calls))

    @property
    def is_producing(self) -> bool:
        """Only sources produce."""
        return False

    def order(self, action: Callable[[], Awaitable[Any]]) -> asyncio.Future[Any]:
        """There is no task of the node's own."""
        raise AssertionError("only a process or a source is given orders")

    async def retire(self) -> None:
        """There is nothing to close."""

    def give_up(self) -> None:
        """Cancel the calls under way; what they have in hand goes to the dead letters."""
        self._given_up.update(call.task for call in self._calls if call.task.cancel())
        self._runner.host.loop.call_later(SWALLOW_WARN_S, self._look_for_return, False)

    def _look_for_return(self, is_left: bool) -> None:
        """Calls that go on in spite of being given up are named, and in the end left behind."""
        host = self._runner.host
        late = [n for n, call in enumerate(self._calls) if call.task in self._given_up and not call.task.done()]
        if not late or host.turns.is_closed:
            return
        host.warn_swallowed(self._runner.key, is_left)
        if not is_left:
            host.loop.call_later(SWALLOW_LEAVE_S - SWALLOW_WARN_S, self._look_for_return, True)
            return
        for n in late:
            task, given_up = self._calls[n].task, host.loop.create_future()
            assert isinstance(task, asyncio.Task)
            host.leave_behind(task)
            task.remove_done_callback(self._came_back)
            given_up.cancel()
            self._given_up.add(given_up)
            self._calls[n] = self._calls[n]._replace(task=given_up)
            self._came_back(task)

    def in_hand(self) -> Iterator[Chunk]:
        """The values that user code works on."""
        return (call.chunk for call in self._calls)

    async def wait_returned(self) -> None:
        """Return when all calls under way have returned."""
        while waiting := [call.task for call in self._calls if not call.task.done()]:
            await asyncio.wait(waiting)

    def dismiss(self) -> None:
        """Return what is held, and what has come back behind it, to the links."""
        for call in reversed(self._calls):
            call.link.put_back(call.chunk)
        self._calls.clear()

    def forget_oldest(self) -> None:
        """Do without the call that has failed."""
        self._calls.popleft()
        self._runner.dropped += 1

    async def close_unstarted(self) -> None:
        """There is nothing to close."""

    def _outputs(self, chunk: Chunk, answer: Any) -> Iterator[Any]:
        """What one answer means."""
        runner, value = self._runner, chunk.values[0]
        match runner.node.kind:
            case "map":
                return iter((answer,))
            case "filter":
                return iter((value,) if answer else ())
            case "route":
                self._name = name_of(answer)
                return iter((value,))
            case "flat_map":
                return iter(answer)
        return iter(())

    def _flush(self) -> None:
        filling, runner = self._filling, self._runner
        if filling.out:
            part = Chunk([], self._record, 0)
            names = self._names if runner.node.kind == "route" else None
            runner.send_outcome(part, Outcome(filling.out, filling.index, names))
            self._names = []
        filling.renew()


async def _called(kind: str, fn: Any, value: Any) -> Any:
    """One call, with all that it gives."""
    made = fn(value)
    if hasattr(type(made), "__aiter__"):
        return await _gathered(made)
    answer = await made
    if kind != "flat_map":
        return answer
    check_outputs(kind, fn, answer)
    return list(answer or ())


async def _gathered(outputs: Any, skips_none: bool = False) -> list[Any]:
    return [output async for output in outputs if output is not None or not skips_none]


def _error_of(task: asyncio.Future[Any]) -> BaseException | None:
    return asyncio.CancelledError() if task.cancelled() else task.exception()
