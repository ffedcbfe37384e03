"""Repeatable tests of asyncio code: seeded order, virtual time, scripted sources.

    def test_the_screen_shows_every_value():
        async def main():
            shown = []
            source = hp.source(testing.script([1, testing.Pause(3600), 2]))
            topology = hp.Topology().add("in", source).add("out", hp.sink(shown.append, "in"))
            async with hp.Plumbing(topology) as plumbing:
                await plumbing.join()
            assert shown == [1, 2]

        testing.run(main)

`run` draws the order in which ready tasks take their next step from a seed, and adds the seed to whatever is raised:
`run(main, seed=123)`, or HOTPLUMB_SEED=123 in the environment, repeats that run.  An hour's sleep takes no time.  When
nothing can go on any more, `Stuck` says which task waits where, instead of a test that hangs.

What is drawn.  Rule 1: each time the loop goes round, the steps of tasks that are ready run in an order drawn from the
seed.  Rule 2: other callbacks keep their order, and no step overtakes a callback that was ready before it; what runs
when a future is done thus still runs before the task that awaits it.  Rule 3: nothing depends on hashes, on ids, or on
the order in which steps became ready.

What time does.  It starts at 0.0 and passes only when nothing is ready: then it jumps to the next timer.

What comes from outside is real, and its timing is not drawn from the seed:

- A call in a thread (`asyncio.to_thread`, `run_in_executor`, `anyio.to_thread.run_sync`) takes no virtual time: till it
  has come back no timer fires, and `settle` does not return.  A call that waits for a later timer is thus `Stuck`.
- A socket whose other end is on this loop takes no virtual time either (on Linux, where loopback delivers at once).  Of
  one whose other end is elsewhere the first timeout fires at once: test such code on a plain loop.
- While a child process lives, time passes as on a clock, for at most 60 s between two timers.
- Of a thread started by hand the loop knows nothing; it may use `call_soon_threadsafe`, but timers do not wait for it.
- Whatever the loop waits for outside, it gives up after 60 s with `Stuck`.  Timers that come for ever, or a task that
  never waits, are not noticed: put `async with asyncio.timeout(3600)` around the former, it costs nothing here.
- `time.monotonic()`, `random` and the order of a set of strings are not the loop's: give the code under test a clock
  (`loop.time`) and a generator of its own.
"""

from __future__ import annotations

import asyncio
import math
import os
import random
import secrets
import threading
import time
from bisect import insort
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from concurrent.futures import Executor
from operator import itemgetter
from selectors import BaseSelector
from types import FrameType
from typing import Any, TypeVar, cast
from weakref import WeakKeyDictionary

from attrs import field, frozen

from hotplumb.errors import UsageError

__all__ = ["Pause", "Raise", "Script", "SeededLoop", "Stuck", "run", "script", "settle"]

T = TypeVar("T")

PATIENCE_S = 60.0  # real time; what takes longer than this is no unit test
THREAD_PATIENCE_S = 1.0  # real time for a thread the loop knows nothing of to call `call_soon_threadsafe`
LONG_SLICE_S = 0.001  # a whole turn's work: one reading in twenty ends the engine's slice
SHORT_SLICE_S = 0.00005

# The names of what a task puts into the loop to be run on, in C and in Python.
STEP_NAMES = frozenset({"TaskStepMethWrapper", "task_wakeup", "__step", "__wakeup"})


class Stuck(AssertionError):
    """Nothing on the loop can go on: the text lists the tasks and where each waits."""


def run(main: Callable[[], Coroutine[Any, Any, T]], *, seed: int | None = None) -> T:
    """Run `main()` on a new `SeededLoop`, and return its result.

    As with `asyncio.run`, tasks that are left over are cancelled at the end, async generators and threads shut down.
    Without a seed, the one in the environment variable HOTPLUMB_SEED is used, else a fresh one.  The seed is a note on
    whatever is raised, so that any failure can be run again.

        testing.run(main)
        testing.run(main, seed=123)

    Raises:
        Stuck: nothing can go on, and `main` has not returned.
        UsageError: `main` is a coroutine instead of the function, or HOTPLUMB_SEED is no integer.
    """
    if asyncio.iscoroutine(main):
        main.close()
        raise UsageError("run() takes the async function itself: write run(main), not run(main())")
    chosen = _seed_from_environment() if seed is None else seed
    try:
        with asyncio.Runner(loop_factory=lambda: SeededLoop(chosen)) as runner:
            return runner.run(main())
    except BaseException as exc:
        exc.add_note(f"hotplumb.testing seed: {chosen}")
        raise


def _seed_from_environment() -> int:
    text = os.environ.get("HOTPLUMB_SEED")
    if not text:
        return secrets.randbelow(2**32)
    try:
        return int(text)
    except ValueError:
        raise UsageError(f"HOTPLUMB_SEED must be an integer, not {text!r}") from None


async def settle() -> None:
    """Wait until every other task is blocked.

    No time passes: a task that sleeps is blocked.  Of several tasks that settle, one returns at a time, drawn from the
    seed, so that each finds all others blocked.  Calls in threads are awaited; sockets and processes elsewhere are not.
    A loop around `settle` alone keeps time from passing for ever; sleep instead.

    Raises:
        UsageError: the running loop is no `SeededLoop`.
    """
    loop = asyncio.get_running_loop()
    if not isinstance(loop, SeededLoop):
        raise UsageError(f"settle() needs a SeededLoop, not {loop!r}: start the test with hotplumb.testing.run(main)")
    await loop._wait_settled()


class SeededLoop(asyncio.SelectorEventLoop):
    """Event loop with virtual time that runs ready tasks in an order drawn from `seed`.

    The rules and limits are at the top of this module.  `run` makes one; where something else runs the loop:

        with asyncio.Runner(loop_factory=lambda: SeededLoop(123)) as runner:
            runner.run(main())
    """

    # What asyncio keeps, from BaseEventLoop and BaseSelectorEventLoop.
    _ready: deque[asyncio.Handle]
    _scheduled: list[asyncio.TimerHandle]
    _selector: BaseSelector
    _stopping: bool

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._random = random.Random(seed)
        self._now_s = 0.0
        self._worked_s = 0.0
        self._numbers: WeakKeyDictionary[asyncio.Task[Any], int] = WeakKeyDictionary()
        self._numbered = 0
        self._settlers: list[asyncio.Future[None]] = []
        self._calls = 0
        self._children: list[asyncio.SubprocessTransport] = []
        super().__init__()

    def time(self) -> float:
        """Return the virtual time in seconds: 0.0 at the start."""
        return self._now_s

    def draw(self, n: int) -> int:
        """Return a number in `range(n)`, drawn from the seed.  For engines.

        An engine that picks one of several ready things itself does so with this, that tests may see every order:

            draw = getattr(loop, "draw", None)
            node = ready.popleft() if draw is None else pop_at(ready, draw(len(ready)))
        """
        # `random()` alone is promised to give the same numbers in every version of Python.
        return int(self._random.random() * n) if n > 1 else 0

    def work_clock(self) -> float:
        """Return a time that passes only by being read.  For engines.

        An engine that measures how long it has worked reads this in place of a clock, so that slices of work end at
        places drawn from the seed.  It moves by up to 50 us a reading, by 1 ms in one of twenty, and not with `time()`.
        """
        is_long = self.draw(20) == 0
        self._worked_s += LONG_SLICE_S if is_long else SHORT_SLICE_S * self._random.random()
        return self._worked_s

    def run_in_executor(  # type: ignore[override]
        self, executor: Executor | None, func: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        """Call `func` in a thread, as asyncio does; no virtual time passes until it has come back."""
        future = super().run_in_executor(executor, func, *args)
        self._calls += 1
        future.add_done_callback(self._end_call)
        return future

    async def shutdown_default_executor(self, *args: Any, **kwargs: Any) -> None:
        """Wait for the threads of the default executor; no virtual time passes until they have ended."""
        self._calls += 1
        try:
            await super().shutdown_default_executor(*args, **kwargs)
        finally:
            self._end_call()

    def _end_call(self, future: asyncio.Future[Any] | None = None) -> None:
        self._calls -= 1

    async def _make_subprocess_transport(self, *args: Any, **kwargs: Any) -> asyncio.SubprocessTransport:
        make = super()._make_subprocess_transport  # type: ignore[misc]
        child: asyncio.SubprocessTransport = await make(*args, **kwargs)
        self._children = [*self._living_children(), child]
        return child

    def _living_children(self) -> list[asyncio.SubprocessTransport]:
        return [child for child in self._children if child.get_returncode() is None]

    async def _wait_settled(self) -> None:
        settler = self.create_future()
        self._settlers.append(settler)
        try:
            await settler
        finally:
            if settler in self._settlers:
                self._settlers.remove(settler)

    def _run_once(self) -> None:
        if not self._ready and not self._stopping:
            self._wait()
        self._shuffle()
        super()._run_once()  # type: ignore[misc]

    def _shuffle(self) -> None:
        # Threads append on the right at any time, hence no iteration over the deque itself.
        handles = [self._ready.popleft() for _ in range(len(self._ready))]
        self._ready.extendleft(reversed(list(self._in_drawn_order(handles))))

    def _in_drawn_order(self, handles: list[asyncio.Handle]) -> Iterator[asyncio.Handle]:
        steps: list[tuple[int, asyncio.Handle]] = []  # by the task's number, so that rule 3 holds
        for handle in handles:
            task = _task_of_step(handle)
            if task is not None:
                insort(steps, (self._number(task), handle), key=itemgetter(0))
                continue
            for _ in range(self.draw(len(steps) + 1)):
                yield steps.pop(self.draw(len(steps)))[1]
            yield handle
        while steps:
            yield steps.pop(self.draw(len(steps)))[1]

    def _number(self, task: asyncio.Task[Any]) -> int:
        # First steps become ready in the order in which tasks are made; later ones perhaps in the order of some set.
        number = self._numbers.get(task)
        if number is None:
            number = self._numbers[task] = self._numbered
            self._numbered += 1
        return number

    def _wait(self) -> None:
        """Make sure that the coming round of the loop has something to do and need not block."""
        due_s = self._next_timer_s()
        if self._selector.select(0) or due_s <= self._now_s:
            return
        if self._calls_in_threads():
            self._block(PATIENCE_S)
        elif self._settlers:
            self._settlers.pop(self.draw(len(self._settlers))).set_result(None)
        elif due_s < math.inf:
            self._pass_time(due_s)
        else:
            self._block(self._patience_s())

    def _next_timer_s(self) -> float:
        if self._scheduled and not self._scheduled[0].cancelled():
            return self._scheduled[0].when()
        return min((timer.when() for timer in self._scheduled if not timer.cancelled()), default=math.inf)

    def _pass_time(self, due_s: float) -> None:
        self._now_s = self._wait_really(due_s) if self._living_children() else due_s
        # As asyncio's clock, but far out on the axis a timer must still be earlier than `time()` and one resolution.
        self._clock_resolution = max(1e-9, math.ulp(self._now_s))

    def _wait_really(self, due_s: float) -> float:
        """Block until something comes from outside, at most until `due_s`; return what time it is then."""
        began_s = time.monotonic()
        if not self._selector.select(min(due_s - self._now_s, PATIENCE_S)):
            return due_s
        return min(due_s, self._now_s + time.monotonic() - began_s)

    def _block(self, patience_s: float) -> None:
        """Block until something comes from outside."""
        if not self._selector.select(patience_s):
            raise Stuck(self._situation())

    def _patience_s(self) -> float:
        if self._living_children() or self._open_files():
            return PATIENCE_S
        return THREAD_PATIENCE_S if threading.active_count() > 1 else 0.0

    def _open_files(self) -> int:
        return len(self._selector.get_map() or ()) - 1  # the loop's own pipe, by which threads wake it

    def _calls_in_threads(self) -> int:
        return self._calls + sum(_has_call_of(self, thread) for thread in threading.enumerate())

    def _situation(self) -> str:
        waits = "".join(_where_it_waits(task) for task in _in_order_of_names(asyncio.all_tasks(self)))
        return f"nothing can go on at {self._now_s} s: {self._outside()}; these tasks wait{waits or ': none'}"

    def _outside(self) -> str:
        files, calls, children = self._open_files(), self._calls_in_threads(), len(self._living_children())
        return f"outside are {files} sockets or pipes, {calls} calls in threads, {children} child processes"


def _task_of_step(handle: asyncio.Handle) -> asyncio.Task[Any] | None:
    """The task whose next step this is, if it is one."""
    callback: Any = handle._callback  # type: ignore[attr-defined]
    owner = getattr(callback, "__self__", None)
    is_step = getattr(callback, "__name__", type(callback).__name__) in STEP_NAMES and asyncio.isfuture(owner)
    return cast("asyncio.Task[Any]", owner) if is_step else None


def _has_call_of(loop: SeededLoop, thread: Any) -> bool:
    """Is this an anyio worker thread that works for `loop`?  anyio hands calls to them without the loop's knowing."""
    idle = getattr(thread, "idle_workers", None)
    return idle is not None and thread.loop is loop and not thread.stopping and thread not in idle


def _in_order_of_names(tasks: Iterable[asyncio.Task[Any]]) -> list[asyncio.Task[Any]]:
    return sorted(tasks, key=lambda task: (len(task.get_name()), task.get_name()))  # Task-2 before Task-10


def _where_it_waits(task: asyncio.Task[Any]) -> str:
    places = [f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}" for frame in _frames(task)]
    return "".join(f"\n    {place}" for place in [f"{task.get_name()}:", *(f"    {place}" for place in places)])


def _frames(task: asyncio.Task[Any]) -> Iterator[FrameType]:
    """The frames of a task that waits, outermost first; `Task.get_stack` has only that one."""
    awaited: Any = task.get_coro()
    while awaited is not None:
        kind = next((kind for kind in ("cr", "gi", "ag") if hasattr(awaited, f"{kind}_frame")), None)
        if kind is None:
            return
        yield getattr(awaited, f"{kind}_frame")
        awaited = getattr(awaited, "gi_yieldfrom" if kind == "gi" else f"{kind}_await")


def _type_and_arguments(exc: BaseException) -> tuple[type[BaseException], tuple[Any, ...]]:
    return type(exc), exc.args


@frozen
class Raise:
    """In a script: raise `exc` here.  Equal to another of the same type and arguments."""

    exc: BaseException = field(eq=_type_and_arguments)


@frozen
class Pause:
    """In a script: sleep here, in virtual time on a `SeededLoop`.  `Pause(0)` lets other tasks run once."""

    seconds: float


@frozen
class Script:
    """What `script` makes: an async iterable that can be read any number of times.  Equal if its entries are."""

    entries: tuple[Any, ...]

    def __aiter__(self) -> AsyncIterator[Any]:
        return _Reading(iter(self.entries))


@frozen(eq=False)
class _Reading(AsyncIterator[Any]):
    """One reading of a script."""

    _entries: Iterator[Any]

    async def __anext__(self) -> Any:
        for entry in self._entries:
            match entry:
                case Raise(exc):
                    raise exc.with_traceback(None)  # else it grows with each reading
                case Pause(seconds):
                    await asyncio.sleep(seconds)
                case value:
                    return value
        raise StopAsyncIteration


def script(entries: Iterable[Any]) -> Script:
    """Make a source that gives values, raises and pauses as written.

    Entries are values, `Raise` and `Pause`.  Each `async for` reads them from the start.  An iterator that has raised,
    or whose pause was cancelled, goes on with the next entry when it is asked again, which an async generator cannot.

        hp.source(testing.script([1, testing.Pause(60), testing.Raise(OSError("gone")), 2]))
    """
    return Script(tuple(entries))
