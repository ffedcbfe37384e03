"""Plumbing: entering, waiting, leaving and stopping; what is done to a running graph from outside, and asked of it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
import structlog
from running import Clock, graph, joined, now, outcome, run

import hotplumb as hp
from hotplumb.testing import Pause, Raise, script, settle


class Boom(Exception):
    pass


def boom(_: Any) -> Any:
    raise Boom("no")


async def same(value: Any) -> Any:
    return value


class Left(Exception):
    """What a block of these tests is left by."""


async def left_by_an_exception(plumbing: hp.Plumbing, until: Awaitable[Any]) -> None:
    """Enter the block, wait, and leave it by an exception, which has to come out."""

    async def block() -> None:
        async with plumbing:
            await until
            raise Left

    with pytest.raises(Left):
        await block()


def failing_after(seconds: float) -> hp.Topology:
    """A graph that fails after some time."""
    return graph(n=hp.source(script([Pause(seconds), Raise(Boom("no"))])), out=hp.collect("n"))


def for_ever() -> hp.Node:
    """A source that gives 1 and then waits."""
    return hp.source(script([1, Pause(10_000)]))


# --- every kind with every capacity

KINDS: dict[str, tuple[Callable[[int], hp.Node], Callable[[int], list[int]]]] = {
    "map": (lambda c: hp.map(lambda n: n, "n", capacity=c), lambda n: [n]),
    "async map": (lambda c: hp.map(same, "n", capacity=c), lambda n: [n]),
    "concurrent map": (lambda c: hp.map(same, "n", capacity=c, concurrency=3), lambda n: [n]),
    "filter": (lambda c: hp.filter(lambda n: n % 2, "n", capacity=c), lambda n: [n] * (n % 2)),
    "async filter": (lambda c: hp.filter(odd, "n", capacity=c), lambda n: [n] * (n % 2)),
    "concurrent filter": (lambda c: hp.filter(odd, "n", capacity=c, concurrency=3), lambda n: [n] * (n % 2)),
    "flat_map": (lambda c: hp.flat_map(lambda n: [n] * (n % 7), "n", capacity=c), lambda n: [n] * (n % 7)),
    "generators": (lambda c: hp.flat_map(seven, "n", capacity=c), lambda n: [n] * (n % 7)),
    "async flat_map": (lambda c: hp.flat_map(seven_async, "n", capacity=c), lambda n: [n] * (n % 7)),
    "concurrent flat_map": (
        lambda c: hp.flat_map(seven_async, "n", capacity=c, concurrency=3),
        lambda n: [n] * (n % 7),
    ),
    "stateful": (lambda c: hp.stateful(lambda s, n: (s, [n, n]), 0, "n", capacity=c), lambda n: [n, n]),
    "merge": (lambda c: hp.merge("n", capacity=c), lambda n: [n]),
    "route": (lambda c: hp.route(lambda n: n % 2, "n", capacity=c), lambda n: [n]),
    "concurrent route": (lambda c: hp.route(odd, "n", capacity=c, concurrency=3), lambda n: [n]),
    "process": (lambda c: hp.process(Twice, "n", capacity=c), lambda n: [n, n]),
    "async process": (lambda c: hp.process(TwiceAsync, "n", capacity=c), lambda n: [n, n]),
}


async def odd(n: int) -> int:
    return n % 2


def seven(n: int) -> Iterator[int]:
    yield from [n] * (n % 7)


async def seven_async(n: int) -> AsyncIterator[int]:
    for _ in range(n % 7):
        await asyncio.sleep(0)
        yield n


class Twice:
    def process(self, n: int) -> list[int]:
        return [n, n]


class TwiceAsync:
    async def process(self, n: int) -> AsyncIterator[int]:
        yield n
        await asyncio.sleep(0)
        yield n


@pytest.mark.parametrize("capacity", [1, 2, 5, 300])
@pytest.mark.parametrize(("make", "gives"), KINDS.values(), ids=KINDS)
def test_links_are_bounded_and_lose_nothing_whatever_their_capacity(
    make: Callable[[int], hp.Node], gives: Callable[[int], list[int]], capacity: int, seed: int
) -> None:
    """Never more in a link than twice its capacity, even where its reader is the slowest."""
    most = {"x": 0, "out": 0}
    count = 400 if capacity == 300 else 40

    async def main() -> list[int]:
        found: list[int] = []

        async def slow(value: int) -> None:
            await asyncio.sleep(0.01)
            for key, node in plumbing.statistics().nodes.items():
                if key in most:
                    most[key] = max(most[key], node.queued_items)
            found.append(value)

        topology = graph(n=hp.source(range(count)), x=make(capacity), out=hp.sink(slow, "x", capacity=capacity))
        async with hp.Plumbing(topology) as plumbing:
            await plumbing.join()
            assert plumbing.statistics().nodes["x"].received == count
        return found

    assert run(main, seed) == [value for n in range(count) for value in gives(n)]
    assert 1 <= most["out"] <= 2 * capacity
    assert most["x"] <= 2 * capacity


@pytest.mark.parametrize("returned", [1, 100])
def test_calls_under_way_do_not_overfill_a_link(returned: int, seed: int) -> None:
    """Twenty calls that return together leave as there is room."""
    most = 0

    async def main() -> None:
        async def work(n: int) -> list[int]:
            await asyncio.sleep(1)
            return [n] * returned

        async def slow(_: int) -> None:
            nonlocal most
            most = max(most, plumbing.statistics().nodes["out"].queued_items)
            await asyncio.sleep(0.1)

        node = hp.flat_map(work, "n", concurrency=20)
        topology = graph(n=hp.source(range(40)), x=node, out=hp.sink(slow, "x", capacity=2))
        async with hp.Plumbing(topology) as plumbing:
            await plumbing.join()
            assert plumbing.statistics().nodes["out"].received == 40 * returned

    run(main, seed)
    assert 1 <= most <= 4


# --- starting


def test_a_plumbing_is_bound_before_user_code_runs(seeds: Callable[[int], list[int]]) -> None:
    """Functions, and bodies of generators, may use the plumbing that the block names."""
    for seed in seeds(5):
        seen: list[int] = []

        async def main(seen: list[int] = seen) -> None:
            def produce() -> Iterator[int]:
                seen.append(plumbing.epoch)
                yield 1

            async def produce_async() -> AsyncIterator[int]:
                seen.append(plumbing.epoch)
                yield 1

            def fn(n: int) -> None:
                seen.append(plumbing.epoch)

            topology = graph(a=hp.source(produce), b=hp.source(produce_async), out=hp.sink(fn, "a", "b"))
            async with hp.Plumbing(topology) as plumbing:
                await plumbing.join()

        run(main, seed)
        assert seen == [0] * 4


def test_a_plumbing_shows_what_it_runs(seed: int) -> None:
    """Its topology, and epoch 0."""
    topology = graph(n=hp.source([1]), out=hp.collect("n"))

    async def main() -> None:
        async with hp.Plumbing(topology) as plumbing:
            assert plumbing.topology is topology
            assert plumbing.epoch == 0
            await plumbing.join()

    run(main, seed)


def test_an_empty_topology_runs_to_its_end_at_once(seed: int) -> None:
    """There is nothing to wait for."""
    assert run(lambda: joined(hp.Topology()), seed) == {}


@pytest.mark.parametrize("wrong", [None, "topology", hp.source([1])])
def test_a_plumbing_of_no_topology_is_an_error_that_shows_it(wrong: Any) -> None:
    """At once."""
    with pytest.raises(hp.UsageError, match="Topology"):
        hp.Plumbing(wrong)


def test_a_plumbing_runs_once(seed: int) -> None:
    """The text says what to do instead."""

    async def main() -> None:
        plumbing = hp.Plumbing(graph(n=hp.source([1]), out=hp.collect("n")))
        async with plumbing:
            with pytest.raises(hp.UsageError, match="another"):
                await plumbing.__aenter__()
            await plumbing.join()
        with pytest.raises(hp.UsageError, match="another"):
            async with plumbing:
                pass
        assert plumbing.collected() == {"out": [1]}

    run(main, seed)


CALLS: dict[str, Callable[[hp.Plumbing], Awaitable[Any]]] = {
    "join": lambda plumbing: plumbing.join(),
    "drain": lambda plumbing: plumbing.drain(),
    "inject": lambda plumbing: plumbing.inject("n", 1),
    "pause": lambda plumbing: called(plumbing.pause),
    "resume": lambda plumbing: called(plumbing.resume),
    "tap": lambda plumbing: called(plumbing.tap),
    "retry": lambda plumbing: called(plumbing.retry),
    "discard": lambda plumbing: called(plumbing.discard),
}


async def called(method: Callable[[Any], Any]) -> None:
    method("n")


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_what_needs_a_running_graph_says_so_before_and_after(
    call: Callable[[hp.Plumbing], Awaitable[Any]], seed: int
) -> None:
    """Not started, or stopped."""

    async def main() -> None:
        plumbing = hp.Plumbing(graph(n=hp.source([1]), out=hp.collect("n")))
        with pytest.raises(hp.UsageError, match="started"):
            await call(plumbing)
        async with plumbing:
            await plumbing.join()
        with pytest.raises(hp.UsageError, match="stopped"):
            await call(plumbing)

    run(main, seed)


def test_stopping_what_was_not_started_is_an_error(seed: int) -> None:
    """The text says how to start."""

    async def main() -> None:
        with pytest.raises(hp.UsageError, match=r"hp\.start"):
            await hp.Plumbing(hp.Topology()).stop()

    run(main, seed)


def test_a_slow_begin_is_left_when_the_start_is_cancelled(seed: int) -> None:
    """And when another one fails: at once, in both cases."""

    class Slow:
        async def begin(self, context: hp.Context) -> None:
            await asyncio.sleep(3600)

        def process(self, value: Any) -> None: ...

    class Failing(Slow):
        async def begin(self, context: hp.Context) -> None:
            await asyncio.sleep(1)
            raise Boom("no")

    async def cancelled() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await joined(graph(n=hp.source([1]), x=hp.process(Slow, "n"), out=hp.collect("x")))
        assert now() == 1

    async def failed() -> None:
        nodes = {"x": hp.process(Slow, "n"), "y": hp.process(Failing, "n")}
        with pytest.raises(hp.NodeError) as raised:
            await joined(graph(n=hp.source([1]), **nodes, out=hp.collect("x", "y")))
        assert raised.value.key == "y"
        assert now() == 1

    run(cancelled, seed)
    run(failed, seed)


def test_a_start_cancelled_at_any_point_leaves_nothing_open(seed: int) -> None:
    """What was made is closed, and no task is left."""

    async def main() -> None:
        log: list[str] = []

        class Watched:
            def __init__(self) -> None:
                log.append("made")

            async def begin(self, context: hp.Context) -> None:
                await asyncio.sleep(0.5)

            def process(self, value: Any) -> None: ...

            async def close(self) -> None:
                await asyncio.sleep(0)
                log.append("close")

        for rounds in range(8):
            log.clear()
            topology = graph(n=hp.source([1]), x=hp.process(Watched, "n"), out=hp.collect("x"))
            task = asyncio.create_task(joined(topology))
            for _ in range(rounds):
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert log.count("made") == log.count("close")
            assert asyncio.all_tasks() == {asyncio.current_task()}

    run(main, seed)


# --- leaving


def test_leaving_the_block_drains(seed: int) -> None:
    """A finite source is cut short, an endless one ends, and what was under way is processed."""
    seen: list[int] = []

    async def slow(n: int) -> None:
        await asyncio.sleep(1)
        seen.append(n)

    async def main() -> None:
        values = script([1, 2, 3, Pause(100), 4])
        async with hp.Plumbing(graph(n=hp.source(values), m=hp.source(itertools.count(10)), out=hp.sink(slow, "n"))):
            await asyncio.sleep(0.5)
        assert now() == 3

    run(main, seed)
    assert seen == [1, 2, 3]


def test_leaving_by_an_exception_stops_at_once(seed: int) -> None:
    """The exception is the block's own, and everything is closed."""
    log: list[str] = []

    async def slow(_: int) -> None:
        try:
            await asyncio.sleep(1000)
        finally:
            log.append("finally")

    async def main() -> None:
        plumbing = hp.Plumbing(graph(n=hp.source([1, 2]), out=hp.sink(slow, "n")))
        await left_by_an_exception(plumbing, asyncio.sleep(1))
        assert now() == 1

    run(main, seed)
    assert log == ["finally"]


def test_leaving_by_a_cancellation_stops_at_once(seed: int) -> None:
    """A timeout around the block is one."""

    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5), hp.Plumbing(graph(n=for_ever(), out=hp.sink(hours, "n"))) as plumbing:
                await plumbing.join()
        assert now() == 5

    run(main, seed)


async def hours(_: Any) -> None:
    await asyncio.sleep(5000)


def test_an_async_close_goes_on_when_everything_stops(seed: int) -> None:
    """It is not cut, so long as it takes less than five seconds."""
    log: list[str] = []
    closing = asyncio.Event()

    class Closes:
        async def process(self, value: Any) -> None: ...

        async def close(self) -> None:
            log.append("closing")
            closing.set()
            await asyncio.sleep(4)
            log.append("closed")

    async def main() -> None:
        plumbing = hp.Plumbing(graph(n=hp.source([1]), x=hp.process(Closes, "n"), out=hp.collect("x")))
        await left_by_an_exception(plumbing, closing.wait())
        assert now() == 4

    run(main, seed)
    assert log == ["closing", "closed"]


def test_an_async_close_that_does_not_end_is_named_and_left_behind_after_five_seconds(seed: int) -> None:
    """In an error log; the host goes on."""
    closing = asyncio.Event()

    class Closes:
        async def process(self, value: Any) -> None: ...

        async def close(self) -> None:
            closing.set()
            await asyncio.sleep(4000)

    async def main() -> None:
        plumbing = hp.Plumbing(graph(n=hp.source([1]), x=hp.process(Closes, "n"), out=hp.collect("x")))
        with structlog.testing.capture_logs() as logs:
            await left_by_an_exception(plumbing, closing.wait())
        assert 5 <= now() <= 5.1
        assert [(log["log_level"], log["key"]) for log in logs] == [("error", '"x"')]
        await settle()

    run(main, seed)


def test_user_code_that_swallows_its_cancellation_is_named_and_left_behind(seed: int) -> None:
    """A warning after a second, an error after five."""
    is_over = False

    async def stubborn(_: Any) -> None:
        while not is_over:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(1000)

    async def main() -> None:
        nonlocal is_over
        plumbing = hp.Plumbing(graph(n=hp.source([1]), out=hp.sink(stubborn, "n")))
        with structlog.testing.capture_logs() as logs:
            await left_by_an_exception(plumbing, asyncio.sleep(1))
        assert 5.9 <= now() <= 6.1
        assert [(log["log_level"], log["key"]) for log in logs] == [("warning", '"out"'), ("error", '"out"')]
        is_over = True
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.wait(left)

    run(main, seed)


def test_a_source_that_swallows_its_interruption_does_not_hold_up_the_drain(seed: int) -> None:
    """It is named after a second and left behind after five."""

    async def stubborn() -> AsyncIterator[int]:
        yield 1
        while now() < 100:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(1000)
        yield 2

    async def main() -> None:
        with structlog.testing.capture_logs() as logs:
            async with hp.Plumbing(graph(n=hp.source(stubborn), out=hp.collect("n"))) as plumbing:
                await asyncio.sleep(1)
            assert plumbing.collected() == {"out": [1]}
        assert now() <= 6.1
        assert [log["log_level"] for log in logs] == ["warning", "error"]
        await asyncio.sleep(1000)

    run(main, seed)


def test_a_drain_that_takes_long_says_after_ten_seconds_what_is_under_way(seed: int) -> None:
    """And then less and less often."""

    async def slow(_: int) -> None:
        await asyncio.sleep(75)

    async def main() -> None:
        with structlog.testing.capture_logs() as logs:
            async with hp.Plumbing(graph(n=hp.source([1]), out=hp.sink(slow, "n"))):
                await settle()
        assert len(logs) == 3
        assert all('"out" is busy' in log["under_way"] for log in logs)

    run(main, seed)


def test_a_drain_may_be_bounded(seed: int) -> None:
    """`TimeoutError` names the nodes under way; they go on."""

    async def main() -> None:
        async def slow(_: int) -> None:
            await asyncio.sleep(100)

        async with hp.Plumbing(graph(n=hp.source([1]), out=hp.sink(slow, "n"))) as plumbing:
            await asyncio.sleep(1)
            with pytest.raises(TimeoutError, match='"out" is busy'):
                await plumbing.drain(timeout_s=2)
            assert now() == 3
            await plumbing.drain()
            assert now() == 100
            assert plumbing.statistics().nodes["out"].received == 1

    run(main, seed)


def test_the_drain_of_leaving_may_be_bounded(seed: int) -> None:
    """What is under way then is given up."""

    async def main() -> None:
        with pytest.raises(TimeoutError, match='"out"'):
            async with hp.Plumbing(graph(n=hp.source([1]), out=hp.sink(hours, "n")), drain_timeout_s=3):
                await asyncio.sleep(1)
        assert now() == 4
        plumbing = await hp.start(graph(n=hp.source([1]), out=hp.sink(hours, "n")), drain_timeout_s=3)
        await asyncio.sleep(1)
        with pytest.raises(TimeoutError, match='"out"'):
            await plumbing.stop()
        assert now() == 8

    run(main, seed)


# --- failing


@pytest.mark.parametrize("waits", ["sleep", "queue", "join", "gather", "drain", "inject"])
def test_a_failure_ends_the_block_whatever_that_waits_for(waits: str, seed: int) -> None:
    """`NodeError` itself is raised, and the task is not left cancelled."""

    async def main() -> None:
        async def fail(_: Any) -> None:
            await asyncio.sleep(1)
            raise Boom("no")

        async def wait(plumbing: hp.Plumbing) -> None:
            match waits:
                case "sleep":
                    await asyncio.sleep(1000)
                case "queue":
                    await asyncio.Queue[int]().get()
                case "join":
                    await plumbing.join()
                case "gather":
                    await asyncio.gather(plumbing.join(), plumbing.join(), return_exceptions=True)
                    await asyncio.sleep(1000)
                case "drain":
                    await asyncio.sleep(0.5)
                    await plumbing.drain()
                case "inject":
                    while True:
                        await plumbing.inject("out", 1)

        topology = graph(n=hp.source([1]), out=hp.sink(fail, "n", capacity=1))
        with pytest.raises(hp.NodeError) as raised:
            async with hp.Plumbing(topology) as plumbing:
                await wait(plumbing)
        assert isinstance(raised.value.__cause__, Boom)
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        assert now() == 1

    run(main, seed)


def test_a_block_that_swallows_its_cancellation_still_raises_the_failure(seed: int) -> None:
    """It cannot be lost."""

    async def main() -> None:
        async def swallow() -> None:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(100)

        with pytest.raises(hp.NodeError):
            async with hp.Plumbing(failing_after(1)):
                await swallow()
        await asyncio.sleep(0)

    run(main, seed)


def test_a_timeout_and_a_failure_at_the_same_moment_leave_the_task_uncancelled(
    seeds: Callable[[int], list[int]],
) -> None:
    """Whichever of them is raised."""

    async def main() -> None:
        with pytest.raises((hp.NodeError, TimeoutError)):
            async with asyncio.timeout(1), hp.Plumbing(failing_after(1)):
                await asyncio.sleep(100)
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0

    for seed in seeds(10):
        run(main, seed)


def test_a_failure_is_told_in_a_task_that_was_asked_to_end_before(seed: int) -> None:
    """What happened before the block is none of its business."""

    async def main() -> None:
        async def user() -> None:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asyncio.sleep(1)
            with pytest.raises(hp.NodeError):
                async with hp.Plumbing(failing_after(1)):
                    await asyncio.sleep(100)
            assert task.cancelling() == 1

        await asyncio.create_task(user())

    run(main, seed)


def test_a_cancellation_while_a_failed_block_closes_is_not_lost(seed: int) -> None:
    """It goes first: whoever cancelled waits for it."""

    async def main() -> None:
        class Failing:
            async def process(self, value: Any) -> None:
                raise Boom("no")

            async def close(self) -> None:
                await asyncio.sleep(3)

        async def user() -> None:
            async with hp.Plumbing(graph(n=hp.source([1]), x=hp.process(Failing, "n"), out=hp.collect("x"))):
                await asyncio.sleep(100)

        task = asyncio.create_task(user())
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert now() == 3

    run(main, seed)


def test_of_several_failures_one_is_raised_and_nothing_goes_unretrieved(seeds: Callable[[int], list[int]]) -> None:
    """The further ones are notes, or in the log."""

    async def fail(_: int) -> None:
        await asyncio.sleep(1)
        raise Boom("no")

    async def main() -> None:
        nodes = {"a": hp.sink(fail, "n"), "b": hp.sink(fail, "n"), "c": hp.sink(fail, "n", concurrency=2)}
        plumbing = hp.Plumbing(graph(n=hp.source([1]), **nodes))
        with pytest.raises(hp.NodeError):
            async with plumbing:
                await asyncio.gather(plumbing.join(), plumbing.join())

    for seed in seeds(5):
        with structlog.testing.capture_logs():
            run(main, seed)


@pytest.mark.parametrize("begins", ["plain", "async"])
def test_of_several_begins_that_fail_one_is_raised(begins: str, seed: int) -> None:
    """No other one is lost to the loop's handler."""

    class Plain:
        def begin(self, context: hp.Context) -> None:
            raise Boom("no")

        def process(self, value: Any) -> None: ...

    class Async(Plain):
        async def begin(self, context: hp.Context) -> None:  # type: ignore[override]
            raise Boom("no")

    make = Plain if begins == "plain" else Async

    async def main() -> None:
        nodes = {"a": hp.process(make, "n"), "b": hp.process(make, "n")}
        with pytest.raises(hp.NodeError):
            await joined(graph(n=hp.source([1]), **nodes, out=hp.collect("a", "b")))

    run(main, seed)


@pytest.mark.parametrize("concurrency", [1, 3])
def test_a_function_that_cancels_its_own_task_does_not_hang_the_graph(concurrency: int, seed: int) -> None:
    """It is a failure like any other."""

    async def fn(value: int) -> int:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)
        return value

    async def main() -> None:
        topology = graph(n=hp.source([1]), x=hp.map(fn, "n", concurrency=concurrency), out=hp.collect("x"))
        with pytest.raises(hp.NodeError) as raised:
            await joined(topology)
        assert isinstance(raised.value.__cause__, asyncio.CancelledError)

    run(main, seed)


# --- starting and stopping without a block


def test_start_and_stop_may_be_in_different_tasks(seed: int) -> None:
    """As in a REPL; stopping twice, or from several tasks at once, is no error."""

    async def main() -> None:
        plumbing = await asyncio.create_task(hp.start(graph(n=for_ever(), out=hp.collect("n"))))
        await asyncio.sleep(1)
        await asyncio.gather(
            asyncio.create_task(plumbing.stop()), asyncio.create_task(plumbing.stop()), plumbing.join()
        )
        await plumbing.stop()
        assert plumbing.collected() == {"out": [1]}
        assert now() == 1

    run(main, seed)


def test_a_started_graph_that_fails_tells_whoever_waits(seed: int) -> None:
    """Later calls raise it, too; so does `stop`, when all is closed."""

    async def main() -> None:
        plumbing = await hp.start(failing_after(1))
        with pytest.raises(hp.NodeError) as raised:
            await plumbing.join()
        for call in (plumbing.join, plumbing.drain, plumbing.stop):
            with pytest.raises(hp.NodeError) as again:
                await call()
            assert again.value is raised.value

    run(main, seed)


def test_a_started_graph_that_fails_unwatched_is_logged(seed: int) -> None:
    """Nobody waits, so nothing is cancelled."""

    async def main() -> None:
        with structlog.testing.capture_logs() as logs:
            plumbing = await hp.start(failing_after(1))
            await asyncio.sleep(10)
        assert [log["log_level"] for log in logs] == ["error"]
        assert "Boom: no" in logs[0]["error"]
        with pytest.raises(hp.NodeError):
            await plumbing.stop()

    run(main, seed)


# --- what a node's own code may not wait for


@pytest.mark.parametrize("concurrency", [1, 3])
@pytest.mark.parametrize("name", ["join", "drain", "inject", "stop"])
def test_user_code_that_would_wait_for_itself_is_told_what_works(name: str, concurrency: int, seed: int) -> None:
    """`asyncio.create_task(...)`, which does not."""
    texts: list[str] = []

    async def main() -> None:
        tasks: list[asyncio.Task[None]] = []

        async def fn(_: int) -> None:
            try:
                await (plumbing.inject("other", 5) if name == "inject" else getattr(plumbing, name)())
            except hp.UsageError as exc:
                texts.append(str(exc))
            tasks.append(asyncio.create_task(plumbing.inject("other", 7)))

        topology = graph(n=hp.source([1]), x=hp.map(fn, "n", concurrency=concurrency), out=hp.collect("x"))
        plumbing = await hp.start(topology.add("other", hp.collect("n")))
        await plumbing.join()
        await asyncio.gather(*tasks)
        await plumbing.stop()
        assert plumbing.collected()["other"] == [1, 7]

    run(main, seed)
    assert len(texts) == 1
    assert f"asyncio.create_task(plumbing.{name}(" in texts[0]
    assert '"x"' in texts[0]


def test_sources_and_methods_of_processes_are_told_so_too(seed: int) -> None:
    """Whatever user code runs in a task of the plumbing."""
    told: list[str] = []

    async def main() -> None:
        async def refused(where: str, call: Awaitable[Any]) -> None:
            with pytest.raises(hp.UsageError, match="wait for itself"):
                await call
            told.append(where)

        async def produce() -> AsyncIterator[int]:
            await refused("source", plumbing.join())
            yield 1

        class Asks:
            async def begin(self, context: hp.Context) -> None: ...

            async def process(self, value: int) -> None:
                await refused("process", plumbing.drain())

            async def end(self) -> None:
                await refused("end", plumbing.inject("n", 1))

        plumbing = await hp.start(graph(n=hp.source(produce), x=hp.process(Asks, "n"), out=hp.collect("x")))
        await plumbing.join()
        await plumbing.stop()

    run(main, seed)
    assert told == ["source", "process", "end"]


# --- injecting


@pytest.mark.parametrize("make", [lambda: hp.map(lambda n: n, "a"), lambda: hp.map(same, "a"), lambda: hp.merge("a")])
def test_what_is_injected_goes_on_as_from_above(make: Callable[[], hp.Node], seed: int) -> None:
    """A source sends it, any other node processes it, ended or not; each begins a family of its own."""
    seen: list[hp.Item] = []

    async def main() -> None:
        topology = graph(a=hp.source([1]), x=make(), out=hp.sink(lambda _: seen.append(hp.current_item()), "x"))
        async with hp.Plumbing(topology) as plumbing:
            await plumbing.join()
            for key, value in (("x", 3), ("a", 4), ("out", 5), ("out", 6)):
                await plumbing.inject(key, value)
                await plumbing.join()

    run(main, seed)
    assert [(item.value, item.origin, item.trail.keys) for item in seen] == [
        (1, ("a", 0, 0), ("a", "x")),
        (3, ("x", 0, 0), ("x",)),
        (4, ("a", 1, 0), ("a", "x")),
        (5, ("out", 0, 0), ()),
        (6, ("out", 1, 0), ()),
    ]


SOURCES: dict[str, Callable[[], hp.Node]] = {
    "ended": lambda: hp.source([1]),
    "async, ended": lambda: hp.source(script([1])),
    "waiting": for_ever,
}


@pytest.mark.parametrize("make", SOURCES.values(), ids=SOURCES)
def test_a_source_sends_what_is_injected_between_its_own(make: Callable[[], hp.Node], seed: int) -> None:
    """While it waits for its next value, or has ended."""

    async def main() -> None:
        async with hp.Plumbing(graph(n=make(), out=hp.collect("n"))) as plumbing:
            await asyncio.sleep(1)
            await plumbing.inject("n", 3)
            await asyncio.sleep(1)
            assert plumbing.collected() == {"out": [1, 3]}

    run(main, seed)


def test_injecting_waits_for_room(seed: int) -> None:
    """As a writer does."""

    async def main() -> None:
        async def slow(_: int) -> None:
            await asyncio.sleep(10)

        topology = graph(n=hp.source([]), out=hp.sink(slow, "n", capacity=1))
        async with hp.Plumbing(topology, drain_timeout_s=100) as plumbing:
            for i in range(3):
                await plumbing.inject("out", i)
            assert now() == 10
        assert plumbing.statistics().nodes["out"].received == 3

    with structlog.testing.capture_logs():
        run(main, seed)


def test_injecting_into_no_active_node_names_the_key(seed: int) -> None:
    """One that no sink wants is none."""

    async def main() -> None:
        topology = graph(n=hp.source([1]), idle=hp.source([1]), out=hp.collect("n"))
        async with hp.Plumbing(topology) as plumbing:
            for key in ("idle", "nowhere", ("out", 1)):
                with pytest.raises(hp.UnknownKey) as raised:
                    await plumbing.inject(key, 1)
                assert raised.value.key == key

    run(main, seed)


def test_a_node_that_has_finished_takes_nothing_injected(seed: int) -> None:
    """The text names it."""

    class Finish:
        def begin(self, context: hp.Context) -> None:
            context.finish()

        def process(self, value: int) -> None: ...

    async def main() -> None:
        topology = graph(n=hp.source([1]), x=hp.process(Finish, "n"), out=hp.collect("x"))
        async with hp.Plumbing(topology) as plumbing:
            await plumbing.join()
            with pytest.raises(hp.UsageError, match='"x" has finished'):
                await plumbing.inject("x", 1)

    run(main, seed)


# --- pausing


PAUSED: dict[str, Callable[[], hp.Node]] = {
    "source": lambda: hp.source(itertools.count()),
    "async source": lambda: hp.source(prompt),
    "async source that waits": lambda: hp.source(ticking),
}


async def prompt() -> AsyncIterator[int]:
    for n in itertools.count():
        yield n


async def ticking() -> AsyncIterator[int]:
    for n in itertools.count():
        yield n
        await asyncio.sleep(1)


@pytest.mark.parametrize("make", PAUSED.values(), ids=PAUSED)
def test_a_paused_source_gives_nothing_until_it_is_resumed(make: Callable[[], hp.Node], seed: int) -> None:
    """Whatever it is made of."""

    async def main() -> None:
        async def slow(_: int) -> None:
            await asyncio.sleep(0.1)

        async with hp.Plumbing(graph(n=make(), out=hp.sink(slow, "n", capacity=3))) as plumbing:
            await asyncio.sleep(3.55)
            plumbing.pause("n")
            await asyncio.sleep(10)
            sent = plumbing.statistics().nodes["n"].sent
            assert plumbing.statistics().nodes["n"].state == "paused"
            await asyncio.sleep(10)
            assert plumbing.statistics().nodes["n"].sent == sent
            plumbing.resume("n")
            await asyncio.sleep(3)
            assert plumbing.statistics().nodes["n"].sent > sent

    run(main, seed)


@pytest.mark.parametrize("make", [case[0] for case in KINDS.values()], ids=KINDS)
def test_a_paused_node_takes_up_nothing_and_fills_its_link(make: Callable[[int], hp.Node], seed: int) -> None:
    """What writes to it waits; leaving resumes it."""

    async def main() -> None:
        topology = graph(n=hp.source(script([Pause(1), *range(500)])), x=make(4), out=hp.collect("x"))
        async with hp.Plumbing(topology) as plumbing:
            plumbing.pause("x")
            await asyncio.sleep(10)
            counts = plumbing.statistics().nodes["x"]
            assert (counts.received, counts.state) == (0, "paused")
            assert 4 <= counts.queued_items <= 8
            assert plumbing.statistics().nodes["n"].state == "full"
            sent = plumbing.statistics().nodes["n"].sent
        assert plumbing.statistics().nodes["x"].received >= sent

    run(main, seed)


# --- listening


def test_a_tap_gives_all_items_from_now_on_and_ends_with_its_node(seed: int) -> None:
    """With their trails, this node's hop among them."""

    async def main() -> None:
        topology = graph(n=hp.source(script([Pause(1), *range(500)])), x=hp.map(lambda n: n, "n"), out=hp.collect("x"))
        async with hp.Plumbing(topology) as plumbing:
            tap = plumbing.tap("x")
            items = [item async for item in tap]
            assert [item.value for item in items] == [*range(500)]
            assert {item.trail.keys for item in items} == {("n", "x")}
            assert tap.dropped == 0
            late = plumbing.tap("x")
            assert [item async for item in late] == []

    run(main, seed)


def test_a_tap_that_is_not_read_forgets_the_oldest_and_makes_nobody_wait(seed: int) -> None:
    """It counts what it forgot."""

    async def main() -> None:
        async with hp.Plumbing(graph(n=hp.source(range(5000)), out=hp.collect("n"))) as plumbing:
            tap = plumbing.tap("n")
            await plumbing.join()
            assert len(plumbing.collected()["out"]) == 5000
            values = [item.value async for item in tap]
            assert values == [*range(5000 - len(values), 5000)]
            assert tap.dropped == 5000 - len(values)
            assert 256 <= len(values) <= 1024

    run(main, seed)


def test_a_tap_ends_with_the_plumbing_however_that_ends(seed: int) -> None:
    """Nobody who listens hangs."""

    async def listening(tap: Any) -> list[int]:
        return [item.value async for item in tap]

    async def main() -> None:
        plumbing = hp.Plumbing(graph(n=for_ever(), out=hp.collect("n")))
        listeners: list[asyncio.Task[list[int]]] = []

        async def listen() -> None:
            listeners.append(asyncio.create_task(listening(plumbing.tap("n"))))
            await asyncio.sleep(1)

        await left_by_an_exception(plumbing, listen())
        assert await listeners[0] == [1]
        plumbing = await hp.start(graph(n=for_ever(), out=hp.collect("n")))
        listener = asyncio.create_task(listening(plumbing.tap("n")))
        await asyncio.sleep(1)
        await plumbing.stop()
        assert await listener == [1]

    run(main, seed)


def test_a_tap_that_is_closed_ends_and_may_be_closed_again(seed: int) -> None:
    """Others go on."""

    async def main() -> None:
        async with hp.Plumbing(graph(n=hp.source(script([1, Pause(1), 2])), out=hp.collect("n"))) as plumbing:
            first, second = plumbing.tap("n"), plumbing.tap("n")
            await asyncio.sleep(0.5)
            await first.aclose()
            await first.aclose()
            await plumbing.join()
            assert [item.value async for item in first] == [1]
            assert [item.value async for item in second] == [1, 2]

    run(main, seed)


def test_a_sink_sends_nothing_to_listen_to(seed: int) -> None:
    """The text says where to listen."""

    async def main() -> None:
        async with hp.Plumbing(graph(n=hp.source([1]), out=hp.collect("n"))) as plumbing:
            with pytest.raises(hp.UsageError, match="tap what it reads"):
                plumbing.tap("out")

    run(main, seed)


# --- statistics


def test_statistics_count_what_each_node_has_done(seed: int) -> None:
    """In canonical order; sent once however many read it."""

    async def main() -> None:
        topology = graph(
            n=hp.source(range(10)),
            f=hp.filter(lambda n: n % 2, "n"),
            two=hp.flat_map(lambda n: [n, n], "f"),
            a=hp.collect("two"),
            b=hp.collect("two"),
        )
        async with hp.Plumbing(topology) as plumbing:
            await plumbing.join()
            nodes = plumbing.statistics().nodes
            assert list(nodes) == sorted(nodes)
            counts = {key: (node.received, node.sent, node.failed, node.dropped) for key, node in nodes.items()}
            assert counts == {
                "a": (10, 0, 0, 0),
                "b": (10, 0, 0, 0),
                "f": (10, 5, 0, 0),
                "n": (0, 10, 0, 0),
                "two": (5, 10, 0, 0),
            }
            assert {(node.state, node.queued_items, node.epoch, node.trouble) for node in nodes.values()} == {
                ("ended", 0, 0, None)
            }

    run(main, seed)


def test_statistics_say_what_each_node_is_doing(seed: int) -> None:
    """Waiting for items, busy, or waiting for its reader."""

    async def main() -> None:
        async def slow(_: int) -> None:
            await asyncio.sleep(100)

        topology = graph(
            n=hp.source(range(50)),
            m=hp.map(lambda n: n, "n", capacity=2),
            out=hp.sink(slow, "m", capacity=2),
            idle=for_ever(),
            end=hp.collect("idle"),
        )
        plumbing = hp.Plumbing(topology)

        async def look() -> None:
            await asyncio.sleep(1)
            states = {key: node.state for key, node in plumbing.statistics().nodes.items()}
            assert states.pop("idle") in ("busy", "waiting")
            assert states == {"n": "full", "m": "full", "out": "busy", "end": "waiting"}

        await left_by_an_exception(plumbing, look())

    run(main, seed)


def test_what_is_in_hand_of_an_async_node_is_neither_received_nor_lost(seed: int) -> None:
    """Queued, received and one in hand together are what was sent."""

    async def main() -> None:
        clock = Clock()

        async def slow(_: int) -> None:
            await asyncio.sleep(1)
            clock.work(0.002)  # more than a turn

        async with hp.Plumbing(graph(n=hp.source(range(7)), out=hp.sink(slow, "n"))) as plumbing:
            for received in range(7):
                await asyncio.sleep(0.5)
                counts = plumbing.statistics().nodes["out"]
                assert (counts.received, counts.queued_items) == (received, 6 - received)
                await asyncio.sleep(0.5)

    run(main, seed)


def test_collected_is_a_copy(seed: int) -> None:
    """What a caller does to it changes nothing."""

    async def main() -> None:
        async with hp.Plumbing(graph(n=hp.source([1]), out=hp.collect("n"))) as plumbing:
            await plumbing.join()
            plumbing.collected()["out"].append(2)
            assert plumbing.collected() == {"out": [1]}

    run(main, seed)


# --- loops


NOT_ON_ASYNCIO: dict[str, Callable[[hp.Topology], Any]] = {
    "start": hp.start,
    "block": lambda topology: hp.Plumbing(topology).__aenter__(),
}


@pytest.mark.parametrize("call", NOT_ON_ASYNCIO.values(), ids=NOT_ON_ASYNCIO)
def test_where_no_asyncio_loop_runs_nothing_starts(call: Callable[[hp.Topology], Any]) -> None:
    """As on trio; the text says what it runs on."""
    coroutine = call(graph(n=hp.source([1]), out=hp.collect("n")))
    with pytest.raises(hp.UsageError, match=r"asyncio\.run"):
        coroutine.send(None)


def test_a_plumbing_is_used_on_its_own_loop_only(seed: int) -> None:
    """From another thread's loop the call says so."""

    async def main() -> None:
        plumbing = await hp.start(graph(n=hp.source(script([1, Pause(5)])), out=hp.collect("n")))
        found: list[BaseException] = []

        async def elsewhere() -> None:
            try:
                await plumbing.join()
            except hp.UsageError as exc:
                found.append(exc)

        await asyncio.to_thread(asyncio.run, elsewhere())
        await plumbing.stop()
        assert "another event loop" in str(found[0])

    run(main, seed)


# --- hp.run


def test_run_gives_what_the_sinks_collected() -> None:
    """On a loop of its own, to the end."""
    topology = graph(n=hp.source(range(5)), a=hp.collect("n"), sq=hp.map(lambda n: n * n, "n"), b=hp.collect("sq"))
    assert hp.run(topology) == {"a": [0, 1, 2, 3, 4], "b": [0, 1, 4, 9, 16]}


def test_run_inside_a_loop_says_what_to_use(seed: int) -> None:
    """`async with hp.Plumbing(...)`."""

    async def main() -> None:
        with pytest.raises(hp.UsageError, match=r"async with hp\.Plumbing"):
            hp.run(graph(n=hp.source([1]), out=hp.collect("n")))

    run(main, seed)


def test_run_raises_what_user_code_raised() -> None:
    """`NodeError` itself."""
    with pytest.raises(hp.NodeError) as raised:
        hp.run(graph(n=hp.source([1]), out=hp.sink(boom, "n")))
    assert isinstance(raised.value.__cause__, Boom)


def test_run_works_in_a_thread() -> None:
    """Where signals cannot be caught."""
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(hp.run(graph(n=hp.source([1]), out=hp.collect("n")))))
    thread.start()
    thread.join(10)
    assert found == [{"out": [1]}]


def interrupted(value: int) -> None:
    if value == 5:
        raise KeyboardInterrupt


async def interrupted_async(value: int) -> None:
    interrupted(value)


INTERRUPTED = {
    "plain": hp.sink(interrupted, "n"),
    "async": hp.sink(interrupted_async, "n"),
    "concurrent": hp.sink(interrupted_async, "n", concurrency=2),
}


@pytest.mark.parametrize("sink", INTERRUPTED.values(), ids=INTERRUPTED)
def test_a_keyboard_interrupt_from_user_code_ends_run_and_closes_everything(sink: hp.Node) -> None:
    """It is no failure of a node."""
    log: list[str] = []

    def produce() -> Iterator[int]:
        try:
            yield from itertools.count()
        finally:
            log.append("finally")

    with pytest.raises(KeyboardInterrupt):
        hp.run(graph(n=hp.source(produce), out=sink))
    gc.collect()
    assert log == ["finally"]


# --- uvloop


def on_uvloop(main: Callable[[], Any]) -> Any:
    """Run on uvloop, where that is installed; on what only the loop's handler is told, fail."""
    uvloop = pytest.importorskip("uvloop", reason="uvloop is an extra, and not made for this platform")
    told: list[Any] = []

    async def bounded() -> Any:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
        async with asyncio.timeout(30):
            return await main()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        result = runner.run(bounded())
    gc.collect()
    assert told == []
    return result


@pytest.mark.parametrize(("make", "gives"), KINDS.values(), ids=KINDS)
def test_on_uvloop_every_kind_gives_the_same(make: Callable[[int], hp.Node], gives: Callable[[int], list[int]]) -> None:
    """As on asyncio's own loop."""
    found = on_uvloop(lambda: joined(graph(n=hp.source(range(1000)), x=make(50), out=hp.collect("x"))))
    assert found["out"] == [value for n in range(1000) for value in gives(n)]


def test_on_uvloop_an_endless_graph_drains() -> None:
    """Async sources are interrupted, plain ones stop."""

    async def main() -> None:
        arrived = asyncio.Event()

        async def waits() -> AsyncIterator[int]:
            yield 1
            await asyncio.Event().wait()

        nodes = {"a": hp.source(waits), "b": hp.source(itertools.count()), "c": hp.source(prompt)}
        topology = graph(**nodes, out=hp.sink(lambda _: arrived.set(), "a", "b", "c"))
        async with hp.Plumbing(topology):
            await arrived.wait()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    on_uvloop(main)


def test_on_uvloop_a_failure_ends_the_block() -> None:
    """And nothing is left."""

    async def main() -> None:
        with pytest.raises(hp.NodeError):
            async with hp.Plumbing(graph(n=hp.source([1]), out=hp.sink(boom, "n"))):
                await asyncio.Event().wait()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    on_uvloop(main)


def test_on_uvloop_a_graph_starts_and_stops_in_different_tasks() -> None:
    """As on asyncio's own loop."""

    async def main() -> None:
        plumbing = await asyncio.create_task(hp.start(graph(n=hp.source([1]), out=hp.collect("n"))))
        await plumbing.join()
        await plumbing.inject("n", 2)
        await asyncio.create_task(plumbing.stop())
        assert plumbing.collected() == {"out": [1, 2]}

    on_uvloop(main)


def test_a_bigger_graph_runs_the_same_under_every_seed(seeds: Callable[[int], list[int]]) -> None:
    """A broadcast, a route and a join of them, with links of all sizes."""
    topology = graph(
        n=hp.source(range(200)),
        m=hp.source(script([what for n in range(200, 220) for what in (n, Pause(0.001))])),
        all=hp.merge("n", "m", capacity=3),
        parity=hp.route(lambda n: n % 2, "all", capacity=7),
        odd=hp.map(same, hp.output("parity", 1), concurrency=4, capacity=2),
        even=hp.flat_map(lambda n: [n, n], hp.output("parity", 0), capacity=1),
        x=hp.stateful(lambda s, n: (s + 1, [n]), 0, "odd", "even", "all"),
        out=hp.collect("x", capacity=5),
    )
    expected = sorted([n for n in range(220) for _ in range(2 if n % 2 else 3)])
    for seed in seeds(10):
        assert sorted(outcome(topology, seed)) == expected
