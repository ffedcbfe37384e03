"""The seeded loop: what it draws, what it keeps, and that it never hangs."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotplumb import testing
from hotplumb.errors import UsageError
from hotplumb.testing import Pause, Raise, SeededLoop, Stuck, script, settle

ROOT = Path(__file__).parent.parent
SEEDS = st.integers(0, 2**32)
MANY_SEEDS = range(200)


def busy_ms() -> str:
    """Work for some milliseconds of real time without the interpreter's lock."""
    return hashlib.pbkdf2_hmac("sha256", b"", b"", 20_000).hex()


def seeded_loop() -> SeededLoop:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, SeededLoop)
    return loop


# --- order


async def many_turns() -> list[str]:
    """What tasks that yield, wait for one event and are cancelled together write down."""
    log: list[str] = []
    opened = asyncio.Event()

    async def work(name: str) -> None:
        for i in range(3):
            log.append(f"{name}{i}")
            await asyncio.sleep(0)
        await opened.wait()
        log.append(f"{name} on")
        try:
            await asyncio.Event().wait()
        finally:
            log.append(f"{name} off")

    try:
        async with asyncio.TaskGroup() as tg:
            for name in "abcdef":
                tg.create_task(work(name))
            await settle()
            opened.set()
            await settle()
            raise EOFError
    except* EOFError:
        log.append(str(seeded_loop().draw(1_000_000)))
    return log


@given(SEEDS)
def test_one_seed_gives_one_order(seed: int) -> None:
    """A run repeats from its seed."""
    assert testing.run(many_turns, seed=seed) == testing.run(many_turns, seed=seed)


@pytest.mark.parametrize("hash_seed", ["0", "1", "4242"])
def test_another_process_gives_the_same_order(hash_seed: str) -> None:
    """A failure found on one machine repeats on another; a task group cancels its tasks in the order of a set."""
    code = "from tests.test_testing import *\nfor seed in range(20): print(*testing.run(many_turns, seed=seed))"
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)}
    shown = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=True, timeout=60
    ).stdout
    here = "".join(" ".join(testing.run(many_turns, seed=seed)) + "\n" for seed in range(20))
    assert shown == here


def test_seeds_together_give_every_order() -> None:
    """Three ready tasks take their steps in all six orders."""

    async def main() -> str:
        log: list[str] = []

        async def step(name: str) -> None:
            log.append(name)

        await asyncio.gather(*(step(name) for name in "abc"))
        return "".join(log)

    assert {testing.run(main, seed=seed) for seed in MANY_SEEDS} == {"abc", "acb", "bac", "bca", "cab", "cba"}


def test_tasks_written_in_python_are_drawn_too() -> None:
    """A debugger that replaces the C tasks does not take the order away."""

    async def main() -> str:
        log: list[str] = []

        async def step(name: str) -> None:
            await asyncio.sleep(0)
            log.append(name)

        make = asyncio.tasks._PyTask  # type: ignore[attr-defined]
        await asyncio.gather(*(make(step(name), loop=asyncio.get_running_loop()) for name in "abc"))
        return "".join(log)

    assert len({testing.run(main, seed=seed) for seed in MANY_SEEDS}) == 6


@pytest.mark.skipif(sys.version_info < (3, 12), reason="there are no eager tasks")
@given(SEEDS)
def test_eager_tasks_repeat_too(seed: int) -> None:
    """Tasks whose first step is taken at once are drawn from then on."""

    async def main() -> list[str]:
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined,unused-ignore]
        return await many_turns()

    assert testing.run(main, seed=seed) == testing.run(main, seed=seed)


@given(SEEDS, st.permutations(range(6)))
def test_the_order_in_which_tasks_became_ready_does_not_matter(seed: int, woken: list[int]) -> None:
    """What wakes tasks in the order of a set does not make a run unrepeatable."""

    async def main(order: list[int]) -> list[int]:
        log: list[int] = []
        gates = [asyncio.Event() for _ in order]

        async def wait(i: int) -> None:
            await gates[i].wait()
            log.append(i)

        tasks = [asyncio.create_task(wait(i)) for i in range(6)]
        await settle()
        for i in order:
            gates[i].set()
        await asyncio.gather(*tasks)
        return log

    assert testing.run(lambda: main(woken), seed=seed) == testing.run(lambda: main(list(range(6))), seed=seed)


@given(SEEDS, st.lists(st.booleans(), min_size=1, max_size=12))
def test_callbacks_keep_their_order_and_no_step_overtakes_one(seed: int, kinds: list[bool]) -> None:
    """A future's callbacks run before the task that awaits it, as asyncio's own code needs."""
    log: list[int] = []

    async def step(i: int) -> None:
        log.append(i)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        tasks = []
        for i, is_step in enumerate(kinds):
            if is_step:
                tasks.append(asyncio.create_task(step(i)))
            else:
                loop.call_soon(log.append, i)
        await settle()

    testing.run(main, seed=seed)
    callbacks = [i for i in log if not kinds[i]]
    assert sorted(log) == list(range(len(kinds)))
    assert callbacks == sorted(callbacks)
    overtaken = [(i, j) for place, i in enumerate(log) for j in log[place:] if kinds[i] and not kinds[j] and j < i]
    assert not overtaken


def test_a_step_may_run_after_a_callback_that_came_later() -> None:
    """An engine that works in a callback meets both orders."""

    async def main() -> str:
        log: list[str] = []

        async def step() -> None:
            log.append("step")

        task = asyncio.create_task(step())
        asyncio.get_running_loop().call_soon(log.append, "callback")
        await task
        await settle()
        return " ".join(log)

    assert {testing.run(main, seed=seed) for seed in MANY_SEEDS} == {"step callback", "callback step"}


# --- for engines


@given(SEEDS, st.lists(st.integers(1, 50), max_size=50))
def test_draw_is_in_range_and_repeats(seed: int, ranges: list[int]) -> None:
    """An engine's own choices repeat from the seed."""

    async def main() -> list[int]:
        return [seeded_loop().draw(n) for n in ranges]

    drawn = testing.run(main, seed=seed)
    assert all(0 <= i < n for i, n in zip(drawn, ranges, strict=True))
    assert drawn == testing.run(main, seed=seed)


def test_draw_gives_every_number() -> None:
    """No order of an engine's ready nodes is left out."""

    async def main() -> set[int]:
        return {seeded_loop().draw(5) for _ in range(1000)}

    assert testing.run(main, seed=1) == set(range(5))


@given(SEEDS)
def test_the_work_clock_passes_by_being_read_only(seed: int) -> None:
    """Slices of work end at drawn places, however fast the machine is, and virtual time stands still."""

    async def main() -> list[float]:
        loop = seeded_loop()
        readings = [loop.work_clock() for _ in range(400)]
        assert loop.time() == 0.0
        await asyncio.sleep(1000)
        assert loop.work_clock() < readings[-1] + 0.002
        return readings

    readings = testing.run(main, seed=seed)
    steps = [after - before for before, after in pairwise(readings)]
    assert readings == testing.run(main, seed=seed)
    assert all(0 <= step < 0.00101 for step in steps)
    assert 0 < sum(step > 0.0009 for step in steps) < 100


# --- time


def test_a_million_seconds_take_no_time() -> None:
    """Tests of long waits are quick."""

    async def main() -> float:
        await asyncio.sleep(1_000_000)
        return asyncio.get_running_loop().time()

    began_s = time.monotonic()
    assert testing.run(main) == 1_000_000
    assert time.monotonic() - began_s < 10


@given(SEEDS, st.lists(st.floats(0, 1e15) | st.integers(0, 3), max_size=12))
def test_timers_fire_in_order_at_their_time(seed: int, delays: list[float]) -> None:
    """A sleeper wakes at exactly the time it asked for, however far that is."""
    woken: list[tuple[float, float]] = []

    async def sleep(delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        woken.append((asyncio.get_running_loop().time(), delay_s))

    async def main() -> None:
        await asyncio.gather(*(sleep(delay_s) for delay_s in delays))

    testing.run(main, seed=seed)
    assert [now for now, _ in woken] == sorted(now for now, _ in woken)
    assert all(abs(now - delay_s) <= 1e-9 for now, delay_s in woken)
    assert sorted(delay_s for _, delay_s in woken) == sorted(delays)


def test_time_does_not_jump_to_a_cancelled_timer() -> None:
    """A timeout that was not needed leaves no trace."""

    async def main() -> float:
        asyncio.get_running_loop().call_later(5, print, "never").cancel()
        await asyncio.sleep(10)
        asyncio.get_running_loop().call_later(5, print, "never").cancel()
        async with asyncio.timeout(30):
            await settle()
        return asyncio.get_running_loop().time()

    assert testing.run(main) == 10


def test_a_timeout_cancels_what_waits_too_long() -> None:
    """`asyncio.timeout` and cancellation work as on any loop."""

    async def main() -> float:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(7):
                await asyncio.Event().wait()
        task = asyncio.create_task(asyncio.sleep(1000))
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return asyncio.get_running_loop().time()

    assert testing.run(main) == 8


# --- settle


@given(SEEDS, st.integers(1, 20))
def test_settle_returns_when_all_others_are_blocked(seed: int, turns: int) -> None:
    """A test may look at what is there once everything has come to rest."""

    async def main() -> None:
        done = []

        async def work() -> None:
            for _ in range(turns):
                await asyncio.sleep(0)
            done.append(1)
            await asyncio.sleep(5)
            done.append(2)

        task = asyncio.create_task(work())
        await settle()
        assert done == [1]
        assert asyncio.get_running_loop().time() == 0
        await asyncio.sleep(5)
        await settle()
        assert done == [1, 2]
        await task

    testing.run(main, seed=seed)


@given(SEEDS)
def test_each_of_several_settlers_finds_the_others_blocked(seed: int) -> None:
    """What one settler does when it returns has come to rest before the next one returns."""
    working = 0

    async def settle_then_work() -> None:
        nonlocal working
        await settle()
        assert working == 0
        working += 1
        for _ in range(3):
            await asyncio.sleep(0)
        working -= 1

    async def main() -> None:
        await asyncio.gather(*(settle_then_work() for _ in range(4)))

    testing.run(main, seed=seed)


def test_settlers_return_in_every_order() -> None:
    """Which of several settlers goes first is drawn, too, not who asked first."""

    async def main() -> str:
        log: list[str] = []

        async def wait(turns: int, name: str) -> None:
            for _ in range(turns):
                await asyncio.sleep(0)
            await settle()
            log.append(name)

        await asyncio.gather(*map(wait, range(3), "abc"))
        return "".join(log)

    assert len({testing.run(main, seed=seed) for seed in MANY_SEEDS}) == 6


def test_a_settler_can_be_cancelled() -> None:
    """A settler that is given up holds nobody up."""

    async def main() -> None:
        task = asyncio.create_task(settle())
        await asyncio.sleep(0)
        task.cancel()
        await settle()
        assert task.cancelled()

    for seed in range(20):
        testing.run(main, seed=seed)


def test_settle_waits_for_timers_that_are_due() -> None:
    """A timer set for the past is ready now; its firing does not turn time back."""

    async def main() -> list[float]:
        fired: list[float] = []
        loop = asyncio.get_running_loop()
        await asyncio.sleep(10)
        loop.call_at(3, lambda: fired.append(loop.time()))
        await settle()
        return [*fired, loop.time()]

    assert testing.run(main) == [10, 10]


def test_settle_on_another_loop_says_what_to_do() -> None:
    """The error shows the call that works."""
    with pytest.raises(UsageError, match=r"hotplumb\.testing\.run\(main\)"):
        asyncio.run(settle())


# --- the world outside


def test_no_time_passes_while_a_thread_works() -> None:
    """A call in a thread neither times out nor lets timers by, whatever it costs."""

    async def main() -> None:
        async with asyncio.timeout(0.000_001):
            assert await asyncio.to_thread(busy_ms) == busy_ms()
        assert asyncio.get_running_loop().time() == 0

    testing.run(main)


def test_settle_waits_for_calls_in_threads() -> None:
    """A node that runs in a thread has come to rest when its call has returned."""

    async def main() -> None:
        task = asyncio.create_task(asyncio.to_thread(busy_ms))
        await settle()
        assert task.done()

    testing.run(main)


def test_calls_in_anyio_threads_take_no_time_either() -> None:
    """anyio has threads of its own, which the loop does not start."""
    to_thread = pytest.importorskip("anyio.to_thread")

    async def main() -> None:
        async with asyncio.timeout(0.000_001):
            for _ in range(3):
                assert await to_thread.run_sync(busy_ms) == busy_ms()
        await asyncio.sleep(60)
        assert asyncio.get_running_loop().time() == 60

    testing.run(main)


def test_a_call_given_up_in_an_anyio_thread_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that anyio has told to stop works for nobody on the loop any more."""
    anyio = pytest.importorskip("anyio")
    opened, started = threading.Event(), threading.Event()

    def wait_for_the_end() -> None:
        started.set()
        opened.wait(60)

    async def give_up() -> None:
        task = asyncio.create_task(anyio.to_thread.run_sync(wait_for_the_end, abandon_on_cancel=True))
        await asyncio.to_thread(started.wait, 60)
        task.cancel()
        await asyncio.wait([task])

    with asyncio.Runner(loop_factory=lambda: SeededLoop(1)) as runner:
        try:
            runner.run(give_up())
            with monkeypatch.context() as patch:
                patch.setattr(testing, "PATIENCE_S", 0.001)
                runner.run(asyncio.sleep(60))
        finally:
            opened.set()


def test_a_thread_started_by_hand_can_wake_the_loop() -> None:
    """`call_soon_threadsafe` ends the wait of a loop that has nothing else to do."""

    async def main() -> str:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[str] = loop.create_future()
        thread = threading.Thread(target=lambda: loop.call_soon_threadsafe(answer.set_result, busy_ms()))
        thread.start()
        try:
            return await answer
        finally:
            thread.join()

    assert testing.run(main) == busy_ms()


def test_real_sockets_work() -> None:
    """A server and its clients on one loop, over loopback, with timeouts around each answer."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(100):
            writer.write(data)
            await writer.drain()
        writer.close()
        await writer.wait_closed()

    async def call(port: int) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        answers = b""
        for i in range(20):
            writer.write(b"%d" % (i % 10))
            async with asyncio.timeout(1):
                answers += await reader.readexactly(1)
        writer.close()
        await writer.wait_closed()
        return answers

    async def main() -> list[bytes]:
        async with await asyncio.start_server(echo, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            answers = await asyncio.gather(*(call(port) for _ in range(3)))
            await settle()
            return answers

    for seed in range(5):
        assert testing.run(main, seed=seed) == [b"01234567890123456789"] * 3


def test_a_socket_may_be_slow_where_nothing_else_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a timer the loop waits for what comes from elsewhere."""
    monkeypatch.setattr(testing, "THREAD_PATIENCE_S", 0)
    here, there = socket.socketpair()

    def send() -> None:
        there.sendall(busy_ms().encode())

    async def main() -> bytes:
        here.setblocking(False)
        thread = threading.Thread(target=send)
        thread.start()
        try:
            return await asyncio.get_running_loop().sock_recv(here, 1000)
        finally:
            thread.join()

    with here, there:
        assert testing.run(main) == busy_ms().encode()


@pytest.mark.skipif(sys.platform == "win32", reason="no child processes on this kind of loop")
def test_child_processes_work_and_time_is_real_beside_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """A timeout around a child process gives it its seconds, and its end is seen without one."""
    monkeypatch.setattr(testing, "THREAD_PATIENCE_S", 0)

    async def main() -> None:
        child = await asyncio.create_subprocess_exec(sys.executable, "-c", "pass")
        assert await asyncio.wait_for(child.wait(), 50) == 0
        assert 0 < asyncio.get_running_loop().time() < 50
        child = await asyncio.create_subprocess_exec(sys.executable, "-c", "pass")
        assert await child.wait() == 0
        child = await asyncio.create_subprocess_exec("cat", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        began_s = time.monotonic()
        await asyncio.sleep(0.002)
        assert time.monotonic() - began_s >= 0.001
        shown, _ = await asyncio.wait_for(child.communicate(b"x"), 50)
        assert shown == b"x"
        await asyncio.sleep(1_000_000)

    testing.run(main)


def test_a_loop_that_waits_outside_for_too_long_is_stuck(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that waits for a connection nobody makes ends, and says so."""
    monkeypatch.setattr(testing, "PATIENCE_S", 0.001)

    async def main() -> None:
        async with await asyncio.start_server(lambda *_: None, "127.0.0.1", 0) as server:
            await server.serve_forever()

    with pytest.raises(Stuck, match="1 sockets or pipes, 0 calls in threads"):
        testing.run(main)


def test_a_call_in_a_thread_that_does_not_return_is_stuck(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that waits for what the loop would do later does not hang the test."""
    monkeypatch.setattr(testing, "PATIENCE_S", 0.001)
    opened = threading.Event()

    async def main() -> None:
        asyncio.get_running_loop().call_later(60, opened.set)
        try:
            await asyncio.to_thread(opened.wait, 60)
        finally:
            opened.set()

    with pytest.raises(Stuck, match="1 calls in threads"):
        testing.run(main)


# --- stuck


def test_stuck_names_each_task_and_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot go on is reported with the line of the test that waits, not hung upon."""
    monkeypatch.setattr(testing, "THREAD_PATIENCE_S", 0)
    ended = []

    async def wait_for_nothing() -> None:
        await asyncio.Event().wait()

    async def main() -> None:
        other = asyncio.create_task(wait_for_nothing(), name="other")
        try:
            await asyncio.sleep(3)
            await asyncio.Queue[int]().get()
        finally:
            ended.append(other)

    with pytest.raises(Stuck) as caught:
        testing.run(main, seed=5)
    text = str(caught.value)
    line = wait_for_nothing.__code__.co_firstlineno + 1
    assert text.startswith("nothing can go on at 3.0 s")
    assert f"    other:\n        {__file__}:{line} in wait_for_nothing\n" in text
    assert f"{__file__}:{main.__code__.co_firstlineno + 4} in main" in text
    assert "in get" in text
    assert caught.value.__notes__ == ["hotplumb.testing seed: 5"]
    assert [task.cancelled() for task in ended] == [True]


def test_stuck_lists_tasks_in_the_order_of_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two reports of one failure read the same."""
    monkeypatch.setattr(testing, "THREAD_PATIENCE_S", 0)

    async def main() -> None:
        async with asyncio.TaskGroup() as tg:
            for i in range(12):
                tg.create_task(asyncio.Event().wait(), name=f"waiter-{i}")

    with pytest.raises(Stuck) as caught:
        testing.run(main)
    assert re.findall(r"waiter-(\d+)", str(caught.value)) == [str(i) for i in range(12)]


def test_a_sleep_for_ever_is_stuck(monkeypatch: pytest.MonkeyPatch) -> None:
    """A timer at infinity never fires."""
    monkeypatch.setattr(testing, "THREAD_PATIENCE_S", 0)
    with pytest.raises(Stuck, match="in sleep"):
        testing.run(lambda: asyncio.sleep(float("inf")))


def test_stuck_sees_into_generators(monkeypatch: pytest.MonkeyPatch) -> None:
    """The place is the innermost one, through objects with `__await__` that are generators."""
    monkeypatch.setattr(testing, "THREAD_PATIENCE_S", 0)

    class Never:
        def __await__(self) -> Any:
            yield from asyncio.get_running_loop().create_future().__await__()

    async def main() -> None:
        await Never()

    with pytest.raises(Stuck, match=r"in main\n.* in __await__"):
        testing.run(main)


def test_a_task_that_swallows_its_cancellation_is_stuck_not_hung(monkeypatch: pytest.MonkeyPatch) -> None:
    """The end of a run is bounded as well."""
    monkeypatch.setattr(testing, "THREAD_PATIENCE_S", 0)
    gate = []

    async def swallow() -> None:
        gate.append(asyncio.Event())
        while len(gate) < 3:
            try:
                await gate[-1].wait()
            except asyncio.CancelledError:
                gate.append(asyncio.Event())
                await asyncio.Future[None]()

    async def main() -> None:
        task = asyncio.create_task(swallow(), name="stubborn")
        await settle()
        assert not task.done()

    with pytest.raises(Stuck, match="stubborn") as caught:
        testing.run(main, seed=1)
    assert "hotplumb.testing seed: 1" in caught.value.__notes__


# --- run


def test_run_gives_the_result_and_ends_what_is_left() -> None:
    """As `asyncio.run`: leftover tasks are cancelled, generators and loop closed."""
    ended = []

    async def forever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("task")

    async def count() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            ended.append("generator")

    async def main() -> tuple[asyncio.AbstractEventLoop, Any]:
        task = asyncio.create_task(forever())
        numbers = count()
        await anext(numbers)
        await settle()
        assert not task.done()
        return asyncio.get_running_loop(), numbers

    loop, _numbers = testing.run(main)
    assert loop.is_closed()
    assert ended == ["task", "generator"]


@pytest.mark.parametrize("exc", [ValueError("x"), AssertionError(), asyncio.CancelledError(), KeyboardInterrupt()])
def test_the_seed_is_a_note_on_whatever_is_raised(exc: BaseException) -> None:
    """A failure says how to run it again."""

    async def main() -> None:
        raise exc

    with pytest.raises(type(exc)) as caught:
        testing.run(main, seed=123)
    assert caught.value.__notes__ == ["hotplumb.testing seed: 123"]


def test_the_seed_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """HOTPLUMB_SEED repeats a run without editing the test; a seed that is given wins."""

    async def main() -> int:
        return seeded_loop().seed

    monkeypatch.setenv("HOTPLUMB_SEED", "77")
    assert testing.run(main) == 77
    assert testing.run(main, seed=0) == 0
    monkeypatch.setenv("HOTPLUMB_SEED", "abc")
    with pytest.raises(UsageError, match="HOTPLUMB_SEED must be an integer, not 'abc'"):
        testing.run(main)


def test_without_a_seed_each_run_has_a_fresh_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seeding `random`, as test plugins do, does not make every run the same."""
    monkeypatch.delenv("HOTPLUMB_SEED", raising=False)

    async def main() -> int:
        return seeded_loop().seed

    def fresh() -> int:
        random.seed(1)
        return testing.run(main)

    assert len({fresh() for _ in range(5)}) == 5


def test_run_of_a_coroutine_says_what_to_write() -> None:
    """`run(main())` is a slip, and leaves no warning about a coroutine never awaited."""

    async def main() -> None: ...

    with pytest.raises(UsageError, match=r"run\(main\), not run\(main\(\)\)"):
        testing.run(main())  # type: ignore[arg-type]


# --- script


async def read(entries: AsyncIterator[Any]) -> list[Any]:
    return [entry async for entry in entries]


@given(st.lists(st.integers() | st.none() | st.text()))
def test_a_script_gives_its_values_each_time_it_is_read(values: list[Any]) -> None:
    """A source that is started again starts at the beginning."""
    source = script(values)

    async def main() -> list[list[Any]]:
        return list(await asyncio.gather(*(read(aiter(source)) for _ in range(2))))

    assert testing.run(main) == [values, values]


def test_a_script_goes_on_after_what_it_raised() -> None:
    """One iterator, asked again, continues; a new one raises at the same place."""
    exc = OSError("gone")
    source = script([1, Raise(exc), 2])

    async def main() -> None:
        for _ in range(3):
            reading = aiter(source)
            assert await anext(reading) == 1
            with pytest.raises(OSError, match="gone") as caught:
                await anext(reading)
            assert caught.value is exc
            assert await anext(reading) == 2
            with pytest.raises(StopAsyncIteration):
                await anext(reading)
            with pytest.raises(StopAsyncIteration):
                await anext(reading)
            assert len(caught.traceback) == 2

    testing.run(main)


def test_a_script_pauses_in_virtual_time() -> None:
    """An hour between two values is an hour to the loop, and nothing to the test."""

    async def main() -> list[tuple[int, float]]:
        loop = asyncio.get_running_loop()
        return [(value, loop.time()) async for value in script([1, Pause(3600), 2, Pause(0.5), 3])]

    assert testing.run(main) == [(1, 0), (2, 3600), (3, 3600.5)]


def test_a_pause_of_nothing_lets_others_run() -> None:
    """`Pause(0)` is where a source suspends once; without it values come without a break."""

    async def main() -> list[str]:
        log: list[str] = []

        async def other() -> None:
            log.append("other")

        task = asyncio.create_task(other())
        log.extend([value async for value in script(["a", "b"])])
        async for value in script([Pause(0), Pause(0), "c"]):
            log.append(value)
        await task
        return log

    assert testing.run(main) == ["a", "b", "other", "c"]


def test_a_cancelled_pause_is_over() -> None:
    """An iterator whose pause was cut short goes on with the next entry."""

    async def main() -> int:
        reading = aiter(script([Pause(60), 1]))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(reading), 1)
        value: int = await anext(reading)
        return value

    assert testing.run(main) == 1


def test_scripts_are_values() -> None:
    """A factory that makes the same script anew has changed nothing."""
    entries = [1, Raise(ValueError("x")), Pause(2)]
    assert script(entries) == script([1, Raise(ValueError("x")), Pause(2)])
    assert hash(script(entries)) == hash(script([1, Raise(ValueError("x")), Pause(2)]))
    assert script(entries) != script([1, Raise(ValueError("y")), Pause(2)])
    assert script(entries) != script([1, Raise(TypeError("x")), Pause(2)])
    assert repr(script(entries)) == "Script(entries=(1, Raise(exc=ValueError('x')), Pause(seconds=2)))"
    with pytest.raises(AttributeError):
        script(entries).entries = ()  # type: ignore[misc]
