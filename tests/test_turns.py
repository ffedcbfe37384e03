"""Turns: how long a plumbing works before the loop goes on, and which node's slice is next."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
import structlog
from running import Clock, graph, joined, now, outcome, rounds, run, run_in_order

import hotplumb as hp
from hotplumb import _runner
from hotplumb._turns import Turns
from hotplumb.testing import Pause, script, settle

# --- the line, alone


class Step:
    """A node that takes as long as it says, as often as it says."""

    def __init__(self, turns: Turns, clock: Clock, seconds: float, times: int, log: list[Any]) -> None:
        self.turns, self.clock, self.seconds, self.times, self.log = turns, clock, seconds, times, log
        self.is_ready = False

    def step(self, began: float) -> float:
        assert not self.is_ready
        self.log.append(self)
        self.clock.work(self.seconds)
        self.times -= 1
        if self.times:
            self.turns.add(self)
        return self.clock.seconds


def line(crashes: list[BaseException] | None = None) -> tuple[Turns, Clock]:
    clock = Clock()
    return Turns(asyncio.get_running_loop(), ([] if crashes is None else crashes).append), clock


def test_a_turn_ends_with_the_slice_that_uses_up_its_millisecond() -> None:
    """Then the loop goes round, and the line goes on where it was."""

    async def main() -> None:
        turns, clock = line()
        log: list[Any] = []
        for _ in range(5):
            turns.add(Step(turns, clock, 0.0003, 20, log))
        worked = await rounds(clock, 100)
        assert len(log) == 100
        assert max(worked) == pytest.approx(0.0012)
        assert [each for each in worked if each] == pytest.approx([0.0012] * 25)
        assert not any(one and other for one, other in itertools.pairwise(worked))  # others have rounds of their own

    run_in_order(main)


def test_every_node_in_the_line_has_its_turn() -> None:
    """One that always has more to do goes to the end of the line."""

    async def main() -> None:
        turns, clock = line()
        log: list[Any] = []
        steps = [Step(turns, clock, 0.0003, 5, log) for _ in range(4)]
        for step in steps:
            turns.add(step)
        await rounds(clock, 20)
        assert log == steps * 5

    run_in_order(main)


def test_what_slices_cost_in_their_own_tasks_counts_in_the_next_turn() -> None:
    """What is charged is no longer there for others."""

    async def main() -> None:
        turns, clock = line()
        log: list[Any] = []
        turns.add(Step(turns, clock, 0.0001, 100, log))
        turns.charged_s = 0.0005
        worked = [each for each in await rounds(clock, 20) if each]
        assert worked[0] == pytest.approx(0.0005)
        assert worked[1] == pytest.approx(0.001)

    run_in_order(main)


def test_a_full_charge_lets_the_loop_go_on() -> None:
    """No node steps beside slices that take a whole millisecond."""

    async def main() -> None:
        turns, clock = line()
        log: list[Any] = []

        class Charging(Step):
            def step(self, began: float) -> float:
                turns.charged_s += 0.001
                return super().step(began)

        for _ in range(3):
            turns.add(Charging(turns, clock, 0, 1, log))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert len(log) <= 2
        await rounds(clock, 10)
        assert len(log) == 3

    run_in_order(main)


def test_ready_nodes_may_step_at_once_within_the_same_millisecond() -> None:
    """`run_now` uses what is left of the turn, and no more."""

    async def main() -> None:
        turns, clock = line()
        log: list[Any] = []
        turns.add(Step(turns, clock, 0.0004, 10, log))
        turns.run_now()
        assert len(log) == 3
        turns.run_now()
        assert len(log) == 3
        await rounds(clock, 20)
        assert len(log) == 10
        turns.run_now()

    run_in_order(main)


def test_a_closed_line_forgets_its_nodes_and_takes_no_more(seed: int) -> None:
    """Nothing steps after the end."""

    async def main() -> None:
        turns, clock = line()
        log: list[Any] = []
        turns.add(Step(turns, clock, 0, 1, log))
        turns.close()
        turns.add(Step(turns, clock, 0, 1, log))
        await rounds(clock, 5)
        assert log == []
        assert turns.is_closed

    run(main, seed)


def test_what_the_engine_itself_raises_is_told(seed: int) -> None:
    """A bug is no reason to hang."""

    async def main() -> None:
        crashes: list[BaseException] = []
        turns, clock = line(crashes)
        turns.add(Step(turns, clock, 0, 1, None))  # type: ignore[arg-type]
        await rounds(clock, 3)
        assert [type(crash) for crash in crashes] == [AttributeError]

    run(main, seed)


# --- a whole plumbing


def plain(clock: Clock, seconds: float) -> Callable[[Any], Any]:
    def fn(value: Any) -> Any:
        clock.work(seconds)
        return value

    return fn


def awaited(clock: Clock, seconds: float) -> Callable[[Any], Awaitable[Any]]:
    async def fn(value: Any) -> Any:
        clock.work(seconds)
        return value

    return fn


def endless(clock: Clock) -> Callable[[], Any]:
    def produce() -> Iterator[int]:
        for n in itertools.count():
            clock.work(1e-6)
            yield n

    return produce


def endless_async(clock: Clock) -> Callable[[], Any]:
    async def produce() -> AsyncIterator[int]:
        for n in itertools.count():
            clock.work(1e-6)
            yield n

    return produce


Makes = Callable[[Clock], Callable[..., Any]]
SEGMENTS: dict[str, tuple[Makes, Callable[[Clock, float], Callable[..., Any]], int]] = {
    "plain": (endless, plain, 1),
    "async source": (endless_async, plain, 1),
    "async maps": (endless, awaited, 1),
    "all async": (endless_async, awaited, 1),
    "concurrent maps": (endless, awaited, 8),
}
every_segment = pytest.mark.parametrize("segment", SEGMENTS.values(), ids=SEGMENTS)


def check_delays(worked: list[float], is_plain: bool) -> None:
    """The budget; of plain functions a turn knows the cost, that of awaited ones it takes from their last slice."""
    if is_plain:
        assert max(worked) <= 0.00136
    assert sorted(worked)[len(worked) * 99 // 100] <= 0.002
    assert max(worked) <= 0.005


@every_segment
@pytest.mark.parametrize("call_s", [1e-6, 20e-6, 100e-6])
def test_a_plumbing_works_a_millisecond_and_a_slice_in_one_round_of_the_loop(
    segment: tuple[Makes, Callable[[Clock, float], Callable[..., Any]], int], call_s: float
) -> None:
    """Thirty saturated nodes together; what else runs on the loop waits no longer."""
    make_source, make_fn, concurrency = segment

    async def main() -> None:
        clock = Clock()
        topology = hp.Topology().add(0, hp.source(make_source(clock)))
        for i in range(30):
            topology = topology.add(i + 1, hp.map(make_fn(clock, call_s), i, concurrency=concurrency))
        topology = topology.add("out", hp.sink(make_fn(clock, call_s), 30, concurrency=concurrency))
        async with hp.Plumbing(topology) as plumbing:
            worked = await rounds(clock, 250)
            assert plumbing.statistics().nodes[3].received > 0
        check_delays(worked, is_plain=segment == SEGMENTS["plain"])

    run_in_order(main)


@every_segment
@pytest.mark.parametrize("call_s", [1e-6, 20e-6, 100e-6])
def test_many_readers_that_become_ready_together_share_the_millisecond(
    segment: tuple[Makes, Callable[[Clock, float], Callable[..., Any]], int], call_s: float
) -> None:
    """Though nobody knows yet how long their calls take."""
    make_source, make_fn, concurrency = segment

    async def main() -> None:
        clock = Clock()
        topology = hp.Topology().add(0, hp.source(make_source(clock)))
        for i in range(30):
            topology = topology.add(i + 1, hp.sink(make_fn(clock, call_s), 0, concurrency=concurrency))
        async with hp.Plumbing(topology):
            worked = await rounds(clock, 200)
        check_delays(worked, is_plain=segment == SEGMENTS["plain"])

    run_in_order(main)


def test_calls_under_way_share_the_millisecond() -> None:
    """However many may begin at once, what they do before their first wait counts."""

    async def main() -> None:
        clock = Clock()

        async def fn(value: int) -> None:
            clock.work(100e-6)
            await asyncio.sleep(0)

        async with hp.Plumbing(graph(n=hp.source(range(1000)), out=hp.sink(fn, "n", concurrency=200))):
            worked = await rounds(clock, 250)
        check_delays(worked, is_plain=False)

    run_in_order(main)


def test_two_plumbings_have_a_millisecond_each() -> None:
    """Neither keeps the other from working."""

    async def main() -> None:
        clock = Clock()
        seen = [0, 0]

        def sink(which: int) -> Callable[[int], None]:
            def see(_: int) -> None:
                clock.work(50e-6)
                seen[which] += 1

            return see

        async with (
            hp.Plumbing(graph(n=hp.source(endless(clock)), out=hp.sink(sink(0), "n"))),
            hp.Plumbing(graph(n=hp.source(endless(clock)), out=hp.sink(sink(1), "n"))),
        ):
            worked = await rounds(clock, 400)
        assert max(worked) <= 0.0027
        assert min(seen) > max(seen) / 4

    run_in_order(main)


def test_a_lone_item_travels_through_idle_nodes_at_once(seed: int) -> None:
    """In the round of the loop in which its producer suspends."""

    async def main() -> None:
        Clock()
        loop = asyncio.get_running_loop()
        log: list[str] = []

        async def produce() -> AsyncIterator[int]:
            await asyncio.sleep(1)
            loop.call_soon(log.append, "round")
            yield 1
            await asyncio.sleep(1)

        topology = hp.Topology().add(0, hp.source(produce))
        for i in range(5):
            topology = topology.add(i + 1, hp.map(lambda n: n, i))
        await joined(topology.add("out", hp.sink(lambda _: log.append("out"), 5)))
        assert log == ["out", "round"]

    run(main, seed)


def test_a_producer_that_gives_one_value_a_wait_is_asked_for_the_next_when_it_has_arrived(seed: int) -> None:
    """From the second on: the first may be one of many, and those of one wait travel together."""

    async def main() -> None:
        Clock()
        log: list[str] = []

        async def produce() -> AsyncIterator[str]:
            for each in ("first", "second", "third"):
                await asyncio.sleep(1)
                yield each
                log.append(f"after {each}")

        await joined(graph(n=hp.source(produce), out=hp.sink(log.append, "n")))
        assert log == ["after first", "first", "second", "after second", "third", "after third"]

    run(main, seed)


def test_a_thousand_nodes_deep_nothing_recurs(seed: int) -> None:
    """A chain may be as long as one likes."""
    topology = hp.Topology().add(0, hp.source(range(3)))
    for i in range(1000):
        topology = topology.add(i + 1, hp.map(lambda n: n + 1, i))
    assert outcome(topology.add("out", hp.collect(1000)), seed) == [1000, 1001, 1002]


def test_an_idle_plumbing_does_nothing(seed: int) -> None:
    """The loop is not woken for it."""

    async def main() -> None:
        async with hp.Plumbing(graph(n=hp.source(script([1, Pause(1000)])), out=hp.collect("n"))):
            await settle()
            assert not vars(asyncio.get_running_loop())["_ready"]

    run(main, seed)


# --- slices


class Slices:
    """How many values each node works on at a time."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.log: list[tuple[str, int]] = []

    def noted(self, name: str, cost_s: Callable[[int], float]) -> Callable[[int], int]:
        """A function that takes so long for a value."""

        def fn(value: int) -> int:
            self.log.append((name, self.clock.readings))
            self.clock.work(cost_s(value))
            return value

        return fn

    def of(self, name: str) -> list[int]:
        readings = [reading for node, reading in self.log if node == name]
        return [sum(1 for _ in same) for _, same in itertools.groupby(readings)]


def slices_of(cost_s: Callable[[int], float], count: int, seed: int) -> list[int]:
    """How many values a sink takes at a time."""

    async def main() -> list[int]:
        slices = Slices()
        await joined(graph(n=hp.source(range(count)), out=hp.sink(slices.noted("out", cost_s), "n")))
        return slices.of("out")

    return run(main, seed)


def test_a_node_starts_with_one_value_and_takes_twice_as_many_while_they_fit(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Up to a chunk of 256, by itself."""
    monkeypatch.setattr(_runner, "LOOP_AFTER_ITEMS", 10**9)
    sizes = slices_of(lambda _: 0, 5000, seed)
    assert sizes[:2] == [1, 2]
    assert max(sizes) == 256
    assert all(later <= 2 * max(sizes[: i + 1]) for i, later in enumerate(sizes[1:]))
    assert sum(sizes) == 5000


def test_a_slice_is_as_many_values_as_fit_in_a_quarter_of_a_millisecond(seed: int) -> None:
    """Learnt from the slices before."""
    sizes = slices_of(lambda _: 30e-6, 500, seed)
    assert max(sizes) <= 8
    assert max(sizes) >= 4


def test_a_node_whose_values_take_long_takes_one_at_a_time(seed: int) -> None:
    """It never takes two before it knows."""
    assert set(slices_of(lambda _: 0.01, 50, seed)) == {1}


def test_slices_shrink_at_once_when_values_become_slow(seed: int) -> None:
    """After the one slice that showed it."""
    sizes = slices_of(lambda n: 0 if n < 1000 else 0.001, 1600, seed)
    taken = list(itertools.accumulate(sizes))
    after = [size for size, upto in zip(sizes, taken, strict=True) if upto - size >= 1000]
    assert set(after[1:]) == {1}


def test_slices_grow_again_when_values_become_fast(seed: int) -> None:
    """Twice as many each time."""
    sizes = slices_of(lambda n: 0.001 if n < 20 else 0, 3000, seed)
    assert set(sizes[:20]) == {1}
    assert max(sizes[20:]) == 256


def test_a_source_makes_one_value_first_and_then_as_many_as_fit(seed: int) -> None:
    """As any node."""

    async def main() -> list[int]:
        slices = Slices()
        produce = map(slices.noted("source", lambda _: 30e-6), range(300))
        await joined(graph(n=hp.source(produce), out=hp.collect("n")))
        return slices.of("source")

    sizes = run(main, seed)
    assert sizes[0] == 1
    assert 4 <= max(sizes) <= 8


def test_a_function_that_starts_tasks_takes_one_value_at_a_time(seed: int) -> None:
    """A task inherits what is in hand, which must then not move."""

    async def main() -> list[int]:
        slices, tasks = Slices(), []
        note = slices.noted("out", lambda _: 0)

        async def nothing() -> None: ...

        def fn(value: int) -> None:
            note(value)
            tasks.append(asyncio.create_task(nothing()))

        await joined(graph(n=hp.source(range(100)), out=hp.sink(fn, "n")))
        await asyncio.gather(*tasks)
        return slices.of("out")

    assert set(run(main, seed)) == {1}


# --- calls that hold up the loop


class Blocking:
    """A process that works too long in one of its methods."""

    def __init__(self, clock: Clock, where: str) -> None:
        self.clock, self.where = clock, where

    def act(self, where: str) -> None:
        if where == self.where:
            self.clock.work(0.06)

    def begin(self, context: hp.Context) -> None:
        context.wake_at(now())
        self.act("begin")

    def process(self, value: Any) -> None:
        self.act("process")

    def wake(self, time: float) -> None:
        self.act("wake")

    def end(self) -> None:
        self.act("end")

    def close(self) -> None:
        self.act("close")


def slow_source(clock: Clock) -> Callable[[], Any]:
    def produce() -> Iterator[int]:
        for n in range(3):
            clock.work(0.06)
            yield n

    return produce


def slow_async_source(clock: Clock) -> Callable[[], Any]:
    async def produce() -> AsyncIterator[int]:
        for n in range(3):
            clock.work(0.06)
            yield n

    return produce


def slow_making(clock: Clock) -> Callable[[], Any]:
    def produce() -> list[int]:
        clock.work(0.06)
        return []

    return produce


SLOW: dict[str, Callable[[Clock], dict[str, hp.Node]]] = {
    "plain": lambda clock: {"x": hp.sink(plain(clock, 0.06), "n")},
    "async": lambda clock: {"x": hp.sink(awaited(clock, 0.06), "n")},
    "concurrent": lambda clock: {"x": hp.sink(awaited(clock, 0.06), "n", concurrency=2)},
    "async map": lambda clock: {"x": hp.map(awaited(clock, 0.06), "n"), "out": hp.collect("x")},
    "source": lambda clock: {"x": hp.source(slow_source(clock)), "out": hp.collect("x")},
    "source function": lambda clock: {"x": hp.source(slow_making(clock)), "out": hp.collect("x")},
    "async source": lambda clock: {"x": hp.source(slow_async_source(clock)), "out": hp.collect("x")},
    **{
        where: lambda clock, where=where: {  # type: ignore[misc]
            "x": hp.process(lambda: Blocking(clock, where), "n"),
            "out": hp.collect("x"),
        }
        for where in ("begin", "process", "wake", "end", "close")
    },
}


@pytest.mark.parametrize("make", SLOW.values(), ids=SLOW)
def test_user_code_that_holds_up_the_loop_is_named_once(make: Callable[[Clock], Any], seed: int) -> None:
    """Whatever it was called as, where one call takes longer than 50 ms."""

    async def main() -> None:
        clock = Clock()
        topology = graph(n=hp.source(range(3)), unread=hp.collect("n"), **make(clock))
        with structlog.testing.capture_logs() as logs:
            await joined(topology)
        assert [log["key"] for log in logs] == ['"x"']
        assert logs[0]["log_level"] == "warning"
        assert logs[0]["milliseconds"] >= 60
        assert "held up" in logs[0]["event"]

    run(main, seed)


def test_user_code_that_waits_holds_up_nothing(seed: int) -> None:
    """However long that takes."""

    async def main() -> None:
        clock = Clock()

        async def fn(value: int) -> None:
            await asyncio.sleep(0.01)
            clock.work(0.04)  # elsewhere, meanwhile
            await asyncio.sleep(0.01)
            clock.work(0.04)

        with structlog.testing.capture_logs() as logs:
            await joined(graph(n=hp.source(range(3)), a=hp.sink(fn, "n"), b=hp.sink(fn, "n", concurrency=2)))
        assert logs == []

    run(main, seed)


# --- when what has been made leaves


def test_what_a_source_gave_leaves_when_it_suspends(seed: int) -> None:
    """No value waits for the next one."""
    at: dict[int, float] = {}
    values = script([1, 2, Pause(5), 3, Pause(7), 4])
    topology = graph(n=hp.source(values), out=hp.sink(lambda n: at.setdefault(n, now()), "n"))
    run(lambda: joined(topology), seed)
    assert at == {1: 0, 2: 0, 3: 5, 4: 12}


def test_what_a_source_gave_leaves_when_it_is_a_chunk(seeds: Callable[[int], list[int]]) -> None:
    """The smallest that all its readers take, though it never suspends."""
    for capacity, most in ((3, 3), (100, 100), (1024, 256)):
        made, seen, ahead = [0], [0], [0]

        async def produce(made: list[int] = made, seen: list[int] = seen, ahead: list[int] = ahead) -> Any:
            for n in range(2000):
                made[0] += 1
                ahead[0] = max(ahead[0], made[0] - seen[0])
                yield n

        def see(_: int, seen: list[int] = seen) -> None:
            seen[0] += 1

        async def main(produce: Any = produce, see: Any = see, capacity: int = capacity) -> None:
            Clock()  # stands still, so that no slice is ever over
            await joined(graph(n=hp.source(produce), out=hp.sink(see, "n", capacity=capacity)))

        for seed in seeds(3):
            made[0], seen[0], ahead[0] = 0, 0, 0
            run(main, seed)
            assert seen[0] == 2000
            assert ahead[0] <= 2 * max(most, capacity) + most


def test_what_an_async_source_gave_leaves_within_a_millisecond() -> None:
    """Of work, where it never suspends and never fills a chunk."""
    waited: list[float] = []

    async def main() -> None:
        clock = Clock()

        async def stamped() -> AsyncIterator[float]:
            while True:
                yield clock.seconds
                clock.work(40e-6)

        topology = graph(n=hp.source(stamped), out=hp.sink(lambda at: waited.append(clock.seconds - at), "n"))
        async with hp.Plumbing(topology):
            await rounds(clock, 200)

    run_in_order(main)
    assert len(waited) > 500
    assert max(waited) <= 0.00125


async def waiting_from(value: int, first: int) -> None:
    if value >= first:
        await asyncio.sleep(3600)


async def slow_value(value: int) -> int:
    await waiting_from(value, 20)
    return value


async def slow_list(value: int) -> list[int]:
    return [await slow_value(value)]


async def slow_generator(value: int) -> AsyncIterator[int]:
    yield await slow_value(value)


async def slow_step(state: int, value: int) -> tuple[int, list[int]]:
    return state, await slow_list(value)


async def slow_truth(value: int) -> bool:
    await waiting_from(value, 20)
    return True


class SlowProcess:
    async def process(self, value: int) -> int:
        return await slow_value(value)


LINGERING = {
    "map": hp.map(slow_value, "n"),
    "filter": hp.filter(slow_truth, "n"),
    "route": hp.route(slow_truth, "n"),
    "flat_map": hp.flat_map(slow_list, "n"),
    "flat_map generator": hp.flat_map(slow_generator, "n"),
    "stateful": hp.stateful(slow_step, 0, "n"),
    "process": hp.process(SlowProcess, "n"),
    "concurrent map": hp.map(slow_value, "n", concurrency=3),
    "concurrent filter": hp.filter(slow_truth, "n", concurrency=3),
    "concurrent route": hp.route(slow_truth, "n", concurrency=3),
    "concurrent flat_map": hp.flat_map(slow_list, "n", concurrency=3),
}


@pytest.mark.parametrize("node", LINGERING.values(), ids=LINGERING)
@pytest.mark.parametrize("first", [0, 19])
def test_what_an_async_node_gave_leaves_within_a_millisecond(
    node: hp.Node, first: int, seeds: Callable[[int], list[int]]
) -> None:
    """It does not wait for a call that takes an hour, whether it is alone or one of many."""
    for seed in seeds(2):
        at: dict[int, float] = {}

        def see(value: int, at: dict[int, float] = at) -> None:
            at[value] = now()

        topology = graph(n=hp.source(range(first, 23)), x=node, out=hp.sink(see, "x"))
        run(lambda topology=topology: joined(topology), seed)  # type: ignore[misc]
        assert len(at) == 23 - first
        assert max(time for value, time in at.items() if value < 20) <= 0.0011


async def two_slowly(value: int) -> AsyncIterator[tuple[int, str]]:
    await waiting_from(value, 20)
    yield value, "first"
    await asyncio.sleep(0.0021)
    yield value, "second"


class TwoSlowly:
    async def process(self, value: int) -> AsyncIterator[tuple[int, str]]:
        async for output in two_slowly(value):
            yield output


@pytest.mark.parametrize("node", [hp.flat_map(two_slowly, "n"), hp.process(TwoSlowly, "n")])
def test_outputs_of_an_item_leave_together_within_a_millisecond_of_the_last(node: hp.Node, seed: int) -> None:
    """Not one by one, however long lies between them."""
    at: dict[Any, float] = {}

    def see(value: Any) -> None:
        at[value] = now()

    async def main() -> None:
        Clock()  # stands still, so that both values are of one slice
        await joined(graph(n=hp.source(script([1, 20])), x=node, out=hp.sink(see, "x")))

    run(main, seed)
    assert at[1, "first"] == at[1, "second"]
    assert 0.0021 <= at[1, "first"] <= 0.0032
