"""Functions that are given a whole chunk: what they are called with, what they give, and how they fail."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from itertools import chain, repeat
from typing import Any

import pytest
from running import Clock, failure, graph, joined, now, outcome, run, run_in_order

import hotplumb as hp
from hotplumb.testing import Pause, script

COUNT = 600  # more than two chunks
BAD = 300

Fn = Callable[[list[Any]], Any]


class Broken(Exception):
    """What user code raises here."""


class Whole:
    """Gives ten times each value, and keeps what it was called with."""

    def __init__(self, bad: Iterable[int] = (), times: int = COUNT) -> None:
        self.bad = frozenset(bad)
        self.times = times  # that a bad value fails alone
        self.calls: list[list[int]] = []

    def __call__(self, values: list[int]) -> list[int]:
        self.calls.append(list(values))
        for value in sorted(self.bad.intersection(values), reverse=True):
            if self.calls.count([value]) <= self.times:
                raise Broken(value)
        return [10 * value for value in values]

    async def awaited(self, values: list[int]) -> list[int]:
        await asyncio.sleep(0.001)
        return self(values)

    @property
    def alone(self) -> Counter[int]:
        """How often each value was given by itself."""
        return Counter(call[0] for call in self.calls if len(call) == 1)


def style_of(whole: Whole, style: str) -> Fn:
    return whole if style == "plain" else whole.awaited


styles = pytest.mark.parametrize("style", ["plain", "async"])


def numbers(fn: Fn, count: int = COUNT, **options: Any) -> hp.Topology:
    return graph(n=hp.source(range(count)), x=hp.map_chunk(fn, "n", **options), out=hp.collect("x"))


def tens(values: Iterable[int]) -> list[int]:
    return [10 * value for value in values]


# ---- what it is called with


@styles
def test_each_value_has_its_output_in_order(style: str, seed: int) -> None:
    """Called with what has come together, and with each value once."""
    whole = Whole()
    assert outcome(numbers(style_of(whole, style)), seed) == tens(range(COUNT))
    assert list(chain.from_iterable(whole.calls)) == list(range(COUNT))
    assert len(whole.calls) < COUNT / 10


def test_a_call_is_given_a_whole_chunk_however_long_it_takes() -> None:
    """A call with few values would cost as much; the loop is held up, as is said."""
    whole = Whole()

    async def main() -> None:
        clock = Clock()

        def slow(values: list[int]) -> list[int]:
            clock.work(0.01)
            return whole(values)

        await joined(numbers(slow, 5 * COUNT))

    run_in_order(main)
    assert max(map(len, whole.calls)) == 256
    assert len(whole.calls) < 30


@styles
@pytest.mark.parametrize("where", ["node", "reader"])
@pytest.mark.parametrize("capacity", [1, 7])
def test_a_call_is_given_no_more_than_there_is_room_for(where: str, capacity: int, style: str, seed: int) -> None:
    """A capacity of 1 makes each value a call of its own."""
    whole = Whole()
    topology = graph(
        n=hp.source(range(100)),
        x=hp.map_chunk(style_of(whole, style), "n", capacity=capacity if where == "node" else 1024),
        out=hp.collect("x", capacity=capacity if where == "reader" else 1024),
    )
    assert outcome(topology, seed) == tens(range(100))
    assert max(map(len, whole.calls)) == capacity


@styles
def test_the_list_is_the_functions_own(style: str, seed: int) -> None:
    """Who changes it changes nothing for another reader."""

    def emptying(values: list[int]) -> list[int]:
        found = tens(values)
        values.clear()
        return found

    async def emptying_later(values: list[int]) -> list[int]:
        return emptying(values)

    fn = emptying if style == "plain" else emptying_later
    topology = numbers(fn).add("other", hp.collect("n"))
    assert run(lambda: joined(topology), seed) == {"out": tens(range(COUNT)), "other": list(range(COUNT))}


def test_a_list_that_is_given_may_be_used_again(seed: int) -> None:
    """What it held when it was given is what goes on."""
    kept: list[int] = []

    def reusing(values: list[int]) -> list[int]:
        kept[:] = tens(values)
        return kept

    assert outcome(numbers(reusing), seed) == tens(range(COUNT))


@styles
def test_each_output_has_the_trail_of_its_value(style: str, seed: int) -> None:
    """Also below a node that drops values."""
    topology = graph(
        n=hp.source(range(COUNT)),
        odd=hp.filter(lambda n: n % 2, "n"),
        x=hp.map_chunk(style_of(Whole(), style), "odd"),
        out=hp.map(lambda _: (hp.current_item().value, hp.current_item().trail), "x"),
        kept=hp.collect("out"),
    )
    found = run(lambda: joined(topology), seed)["kept"]
    assert [(value, trail.origin.number, trail.keys) for value, trail in found] == [
        (10 * n, n, ("n", "odd", "x")) for n in range(1, COUNT, 2)
    ]


@styles
@pytest.mark.parametrize("bad", [(), (BAD,)])
def test_there_is_no_item_in_hand(bad: tuple[int, ...], style: str, seed: int) -> None:
    """Not of a chunk of one either: what works must not hang on how many come together.  Nor in tasks it starts."""
    said: set[str] = set()
    tasks: list[asyncio.Task[None]] = []
    whole = Whole(bad)

    def look() -> None:
        with pytest.raises(LookupError, match="map_chunk has many items in hand") as raised:
            hp.current_item()
        said.add(str(raised.value))

    async def look_later() -> None:
        look()

    def plain(values: list[int]) -> list[int]:
        look()
        tasks.append(asyncio.create_task(look_later()))
        return whole(values)

    async def awaited(values: list[int]) -> list[int]:
        await asyncio.create_task(look_later())
        look()
        return await whole.awaited(values)

    fn: Fn = plain if style == "plain" else awaited
    assert len(outcome(numbers(fn, on_error=hp.discard()), seed)) == COUNT - len(bad)
    assert len(said) == 1
    assert (whole.alone[BAD] == 1) == bool(bad)


def test_a_plain_function_that_starts_tasks_is_given_chunks_too(seed: int) -> None:
    """Its hand never moves, so no task can see it move."""
    whole, tasks = Whole(), []

    def starting(values: list[int]) -> list[int]:
        tasks.append(asyncio.create_task(asyncio.sleep(0)))
        return whole(values)

    assert outcome(numbers(starting), seed) == tens(range(COUNT))
    assert max(map(len, whole.calls)) > 1


# ---- what it gives


@pytest.mark.parametrize("make", [list, tuple, iter, lambda found: (n for n in found)])
def test_any_iterable_of_as_many_outputs_will_do(make: Callable[[Any], Any], seed: int) -> None:
    """A list, a tuple, an iterator, a generator."""
    assert outcome(numbers(lambda values: make(tens(values))), seed) == tens(range(COUNT))


@styles
@pytest.mark.parametrize(
    ("give", "said"),
    [
        (lambda values: values[1:], "gave 2 outputs for 3 values"),
        (lambda values: [*values, 0, 0], "gave 5 outputs for 3 values"),
        (lambda values: iter(values[1:]), "gave 2 outputs for 3 values"),
        (lambda values: repeat(0), "gave more than 3 outputs for 3 values"),
        (lambda values: [sum(values)], "gave 1 outputs for 3 values"),
        (lambda values: None, "gave None, which is no sequence"),
        (lambda values: "abc", "gave 'abc', which is no sequence"),
        (lambda values: dict.fromkeys(values), "gave {1: None, 2: None, 3: None}, which is no sequence"),
        (lambda values: set(values), "gave {1, 2, 3}, which is no sequence"),
    ],
)
def test_what_is_not_as_many_outputs_is_refused(give: Fn, said: str, style: str, seed: int) -> None:
    """Both numbers are named, and nothing is tried one by one: one value might be right by chance."""
    calls: list[int] = []

    def plain(values: list[int]) -> Any:
        calls.append(len(values))
        return give(values)

    async def awaited(values: list[int]) -> Any:
        return plain(values)

    fn = plain if style == "plain" else awaited
    three = hp.flat_map(lambda _: [1, 2, 3], "one")
    error = failure(graph(one=hp.source([0]), n=three, x=hp.map_chunk(fn, "n"), out=hp.collect("x")), seed)
    assert said in str(error.__cause__)
    assert isinstance(error.__cause__, hp.UsageError)
    assert error.item is not None
    assert (error.item.value, calls) == (1, [3])


def test_what_a_plain_function_gives_is_not_awaited(seed: int) -> None:
    """It is to be made async."""

    async def awaited(values: list[int]) -> list[int]:
        return values

    error = failure(numbers(lambda values: awaited(values)), seed)
    assert "make it `async def`" in str(error.__cause__)


# ---- when it raises


@styles
def test_the_policy_is_for_the_value_that_fails(style: str, seed: int) -> None:
    """Those before and behind it go on, and the failure has its trail."""
    whole = Whole([BAD, BAD + 1, COUNT - 1])
    topology = numbers(style_of(whole, style), on_error=hp.discard()).add("dead", hp.collect(hp.errors("x")))

    async def main() -> tuple[dict[Any, Any], hp.NodeStatistics]:
        async with hp.Plumbing(topology) as plumbing:
            await plumbing.join()
            return plumbing.collected(), plumbing.statistics().nodes["x"]

    found, counts = run(main, seed)
    assert found["out"] == tens(n for n in range(COUNT) if n not in whole.bad)
    assert [(dead.item.value, dead.item.origin.number, dead.attempts) for dead in found["dead"]] == [
        (n, n, 1) for n in sorted(whole.bad)
    ]
    assert (counts.received, counts.sent, counts.failed) == (COUNT - 3, COUNT - 3, 3)
    assert max(whole.alone.values()) == 1  # nothing fails twice, and nothing that has passed alone is called again
    for n in range(BAD):
        assert sum(n in call for call in whole.calls) <= 2


@styles
def test_by_default_it_stops_on_the_value_that_fails(style: str, seed: int) -> None:
    """Which is in the error, with what was raised for it alone."""
    error = failure(numbers(style_of(Whole([BAD, BAD + 1]), style)), seed)
    assert error.item is not None
    assert (error.item.value, error.key, str(error.__cause__)) == (BAD, "x", str(BAD))
    assert "map_chunk" in str(error)
    assert error.__cause__ is not None
    assert error.__cause__.__context__ is None


@styles
def test_a_lone_value_is_called_with_once(style: str, seed: int) -> None:
    """That it fails needs no second call."""
    whole = Whole([0])
    assert outcome(numbers(style_of(whole, style), 1, on_error=hp.discard()), seed) == []
    assert whole.calls == [[0]]


@styles
def test_a_failed_value_is_tried_again_alone(style: str, seed: int) -> None:
    """As often as its policy says, and then the rest goes on together."""
    whole = Whole([BAD], times=3)
    assert outcome(numbers(style_of(whole, style), on_error=hp.retry(5, delay_s=0.01)), seed) == tens(range(COUNT))
    assert whole.alone[BAD] == 4
    assert max(map(len, whole.calls[whole.calls.index([BAD]) :])) > 1


@styles
def test_a_value_can_be_held(style: str, seed: int) -> None:
    """What is before it has left, what is behind it waits, until somebody decides."""
    whole = Whole([BAD])

    async def main() -> tuple[Any, ...]:
        async with hp.Plumbing(numbers(style_of(whole, style), on_error=hp.hold())) as plumbing:
            await asyncio.sleep(10)
            held, before = plumbing.statistics().nodes["x"].trouble, plumbing.collected()["out"]
            whole.bad = frozenset()
            plumbing.retry("x")
            await plumbing.join()
            return held, before, plumbing.collected()["out"]

    held, before, after = run(main, seed)
    assert held.item.value == BAD
    assert (before, after) == (tens(range(BAD)), tens(range(COUNT)))


@styles
def test_a_held_value_goes_to_the_node_that_replaces_it(style: str, seed: int) -> None:
    """With all that waits behind it; what was before has the old epoch."""

    async def main() -> list[tuple[int, int]]:
        topology = numbers(style_of(Whole([BAD]), style), on_error=hp.hold())
        look = hp.map(lambda value: (value, hp.current_item().trail.hops[-1].epoch), "x")
        topology = topology.add("look", look).add("kept", hp.collect("look"))
        async with hp.Plumbing(topology) as plumbing:
            await asyncio.sleep(10)
            assert plumbing.statistics().nodes["x"].state == "holding"
            await plumbing.replace("x", hp.map_chunk(style_of(Whole(), style), "n"))
            await plumbing.join()
            return plumbing.collected()["kept"]

    assert run(main, seed) == [(10 * n, int(n >= BAD)) for n in range(COUNT)]


@styles
def test_what_fails_only_together_is_logged(style: str, seed: int, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing has failed, so nothing is lost; but somebody wants to know, once."""

    def plain(values: list[int]) -> list[int]:
        if len(values) > 1:
            raise Broken("too many")
        return tens(values)

    async def awaited(values: list[int]) -> list[int]:
        return plain(values)

    with caplog.at_level(logging.WARNING, "hotplumb"):
        assert outcome(numbers(plain if style == "plain" else awaited), seed) == tens(range(COUNT))
    (record,) = caplog.records
    assert 'together, and on none of them alone: key="x" error=Broken: too many' in record.getMessage()


@styles
def test_what_a_generator_raises_is_of_one_value(style: str, seed: int) -> None:
    """The outputs are looked at before any leaves."""

    def plain(values: list[int]) -> Iterable[int]:
        for value in values:
            if value == BAD:
                raise Broken(value)
            yield 10 * value

    async def awaited(values: list[int]) -> Iterable[int]:
        return plain(values)

    fn: Fn = plain if style == "plain" else awaited
    found = outcome(numbers(fn, on_error=hp.discard()), seed)
    assert found == tens(n for n in range(COUNT) if n != BAD)


def test_a_function_may_raise_what_ends_iterators_and_tasks(seed: int) -> None:
    """StopIteration and CancelledError are failures like others; the second is not tried one by one."""
    for raised in (StopIteration(), asyncio.CancelledError()):

        def fails(values: list[int], raised: BaseException = raised) -> list[int]:
            if BAD in values:
                raise raised
            return tens(values)

        error = failure(numbers(fails), seed)
        assert type(error.__cause__) is type(raised)


# ---- as an awaited node


def test_one_call_is_under_way_at_a_time(seed: int) -> None:
    """So the order is kept without ado."""
    under_way = 0

    async def alone(values: list[int]) -> list[int]:
        nonlocal under_way
        under_way += 1
        assert under_way == 1
        await asyncio.sleep(0.01)
        under_way -= 1
        return tens(values)

    assert outcome(numbers(alone), seed) == tens(range(COUNT))
    with pytest.raises(TypeError, match="concurrency"):
        hp.map_chunk(alone, "n", concurrency=2)  # type: ignore[call-arg]


def test_outputs_do_not_wait_for_slow_calls(seed: int) -> None:
    """Where values are tried one by one, each output leaves when it is there."""

    async def slow(values: list[int]) -> list[int]:
        if len(values) > 1:
            raise Broken("together")
        await asyncio.sleep(10)
        return tens(values)

    async def main() -> list[float]:
        topology = graph(s=hp.source([[0, 1, 2]]), n=hp.flat_map(list, "s"), x=hp.map_chunk(slow, "n"))
        topology = topology.add("at", hp.map(lambda _: now(), "x")).add("out", hp.collect("at"))
        return (await joined(topology))["out"]

    assert [round(time) for time in run(main, seed)] == [10, 20, 30]


def test_an_async_function_that_holds_up_the_loop_is_named(caplog: pytest.LogCaptureFixture) -> None:
    """As any other."""

    async def main() -> None:
        clock = Clock()

        async def slow(values: list[int]) -> list[int]:
            clock.work(0.1)
            return values

        await joined(numbers(slow, 10))

    run_in_order(main)
    (record,) = caplog.records
    assert "held up the event loop" in record.getMessage()


def test_a_call_that_was_left_behind_gives_nothing(seed: int) -> None:
    """Though it comes back in the end: its first value is in the dead letters, the others were called with again."""

    async def deaf(values: list[int]) -> list[int]:
        until = now() + (3600 if 0 in values else 1)
        while now() < until:
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(until - now())
        return values

    async def main() -> dict[Any, list[Any]]:
        nodes = {"s": hp.source(script([[0, 1, 2], Pause(5_000), [3]])), "n": hp.flat_map(list, "s")}
        nodes |= {"x": hp.map_chunk(deaf, "n"), "y": hp.map(abs, "x"), "out": hp.collect("y")}
        topology = graph(**nodes, dead=hp.collect(hp.errors("x")))
        async with hp.Plumbing(topology) as plumbing:
            await asyncio.sleep(1)
            edited = topology.update({"n": hp.flat_map(reversed, "s"), "y": hp.map(float, "x")})
            with pytest.raises(hp.ChangeTimeout) as raised:
                await plumbing.apply(edited, timeout_s=1)
            raised.value.change.force("x")
            await asyncio.sleep(10)
            await plumbing.join()
            return plumbing.collected()

    found = run(main, seed)
    assert [(dead.item.value, dead.reason) for dead in found["dead"]] == [(0, "given up")]
    assert found["out"] == [1, 2, 3]


def test_what_was_done_before_a_call_was_left_behind_is_not_lost(seed: int) -> None:
    """Also where it waits for room."""
    found: list[int] = []

    async def deaf(values: list[int]) -> list[int]:
        if len(values) > 1 and 5 in values:
            raise Broken("together")
        until = now() + (3600 if 5 in values else 1)
        while now() < until:
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(until - now())
        return values

    async def slow(value: int) -> None:
        found.append(value)
        await asyncio.sleep(500)

    async def slow_too(value: int) -> None:
        await slow(value)

    async def main() -> None:
        nodes = {"s": hp.source(script([[0, 1, 2], Pause(5), [3, 4, 5]])), "n": hp.flat_map(list, "s")}
        topology = graph(**nodes, x=hp.map_chunk(deaf, "n"), out=hp.sink(slow, "x", capacity=3))
        async with hp.Plumbing(topology) as plumbing:
            await asyncio.sleep(30)
            edited = topology.update({"n": hp.flat_map(reversed, "s"), "out": hp.sink(slow_too, "x", capacity=3)})
            with pytest.raises(hp.ChangeTimeout) as raised:
                await plumbing.apply(edited, timeout_s=1)
            raised.value.change.force("x")
            await plumbing.join()
        await asyncio.sleep(5_000)  # until what was left behind is over

    run(main, seed)
    assert found == [0, 1, 2, 3, 4]


def test_a_call_can_be_given_up(seed: int) -> None:
    """With `within`, one that takes too long is tried value by value, each with the same time."""
    alone: list[int] = []

    async def hangs(values: list[int]) -> list[int]:
        if len(values) == 1:
            alone.append(values[0])
        if BAD in values:
            await asyncio.sleep(100)
        return tens(values)

    node = hp.map_chunk(hangs, "n", on_error=hp.discard()).within(1)
    topology = graph(n=hp.source(range(COUNT)), x=node, out=hp.collect("x"))
    assert outcome(topology, seed) == tens(n for n in range(COUNT) if n != BAD)
    assert alone.count(BAD) == 1
    with pytest.raises(hp.UsageError, match="map_chunk calls a plain function"):
        hp.map_chunk(tens, "n").within(1)


def test_force_gives_up_one_value_and_the_rest_is_called_with_again(seed: int) -> None:
    """Which of the values in hand a call hangs on nobody knows: it is the first that goes to the dead letters."""

    async def hangs(values: list[int]) -> list[int]:
        await asyncio.sleep(15_000 if 0 in values else 0)
        return values

    async def main() -> dict[Any, list[Any]]:
        lists = {"s": hp.source([[0, 1, 2]]), "n": hp.flat_map(list, "s"), "x": hp.map_chunk(hangs, "n")}
        topology = graph(**lists, out=hp.collect("x"), dead=hp.collect(hp.errors("x")))
        async with hp.Plumbing(topology) as plumbing:
            await asyncio.sleep(1)
            edited = topology.update({"n": hp.flat_map(reversed, "s"), "x": hp.map_chunk(tens, "n")})
            with pytest.raises(hp.ChangeTimeout) as raised:
                await plumbing.apply(edited, timeout_s=1)
            raised.value.change.force("x")
            await asyncio.sleep(10)
            await plumbing.join()
            assert plumbing.epoch == 1
            return plumbing.collected()

    found = run(main, seed)
    assert [(dead.item.value, dead.reason) for dead in found["dead"]] == [(0, "given up")]
    assert found["out"] == [1, 2]


@styles
def test_no_link_holds_more_than_twice_its_capacity(style: str, seed: int) -> None:
    """What is in hand counts until it is done."""
    most = {"x": 0, "out": 0}
    whole = Whole(range(2, 60, 3))

    async def main() -> list[int]:
        found: list[int] = []

        async def slow(value: int) -> None:
            await asyncio.sleep(0.01)
            for key in most:
                most[key] = max(most[key], plumbing.statistics().nodes[key].queued_items)
            found.append(value)

        node = hp.map_chunk(style_of(whole, style), "n", capacity=5, on_error=hp.discard())
        topology = graph(n=hp.source(range(60)), x=node, out=hp.sink(slow, "x", capacity=5))
        async with hp.Plumbing(topology) as plumbing:
            await plumbing.join()
        return found

    assert run(main, seed) == tens(n for n in range(60) if n % 3 != 2)
    assert max(most.values()) <= 10


# ---- changed while it runs


@styles
def test_it_is_replaced_between_two_chunks(style: str, seeds: Callable[[int], list[int]]) -> None:
    """Nothing is lost or doubled, and what went through the old one is what has the old epoch."""

    async def main() -> list[tuple[int, int]]:
        topology = numbers(style_of(Whole(), style), 5_000)
        look = hp.map(lambda value: (value, hp.current_item().trail.hops[-1].epoch), "x", capacity=64)
        topology = topology.add("look", look).add("kept", hp.collect("look"))
        async with hp.Plumbing(topology) as plumbing:
            for factor in (20, 30):
                await asyncio.sleep(0)
                times = partial(multiplied, factor)
                await plumbing.replace("x", hp.map_chunk(times if style == "plain" else later(times), "n"))
            await plumbing.join()
            return plumbing.collected()["kept"]

    for seed in seeds(5):
        found = run(main, seed)
        epochs = [epoch for _, epoch in found]
        assert epochs == sorted(epochs)
        assert [value for value, _ in found] == [n * 10 * (1 + epoch) for n, epoch in enumerate(epochs)]


def multiplied(factor: int, values: list[int]) -> list[int]:
    return [factor * value for value in values]


def later(fn: Fn) -> Fn:
    async def awaited(values: list[int]) -> Any:
        await asyncio.sleep(0.001)
        return fn(values)

    return awaited


def test_a_slow_reader_that_goes_leaves_room_for_whole_chunks(seed: int) -> None:
    """How many fit into a slice is not learned of a vector function."""
    whole = Whole()

    async def main() -> None:
        topology = numbers(whole, 5_000).add("narrow", hp.collect("x", capacity=1))
        async with hp.Plumbing(topology) as plumbing:
            while len(whole.calls) < 20:  # noqa: ASYNC110  a plain function says nothing by itself
                await asyncio.sleep(0)
            await plumbing.remove("narrow")
            await plumbing.join()

    run(main, seed)
    assert max(map(len, whole.calls[:20])) == 1
    assert max(map(len, whole.calls)) == 256


# ---- as a node


def test_it_is_one_output_for_one_input() -> None:
    """It needs no order of its own where it leads to what a change touches."""
    topology = graph(n=hp.source([1]), x=hp.map_chunk(tens, "n"), y=hp.map(abs, "x"), out=hp.collect("y"))

    async def main() -> hp.Change:
        async with hp.Plumbing(topology) as plumbing:
            return await plumbing.replace("y", hp.map(float, "x"))

    assert set(asyncio.run(main()).region) == {"y"}


def test_it_is_named_by_its_kind() -> None:
    """In pipelines, drawings and errors."""
    assert hp.run(hp.source([1, 2]) | hp.map_chunk(tens) | hp.collect()) == {"collect": [10, 20]}
    topology = hp.Topology().add("n", hp.source([1])).add("x", hp.map_chunk(tens, "n")).add("out", hp.collect("x"))
    assert "map_chunk tens" in str(hp.draw(topology))
    with pytest.raises(hp.OpenEnd, match=r"hp\.map_chunk\(\.\.\., key\)"):
        hp.Topology().add("x", hp.map_chunk(tens))
    with pytest.raises(hp.UsageError, match=r"map_chunk\('n', \.\.\.\): the first argument is the function"):
        hp.map_chunk("n", tens)  # type: ignore[arg-type]


# ---- NumPy


@pytest.fixture
def numpy() -> Any:
    return pytest.importorskip("numpy", reason="NumPy is not installed")


def test_an_array_is_one_output_for_each_of_its_rows(numpy: Any, seed: int) -> None:
    """Of one dimension or of more; a function of NumPy's own is a function too."""
    roots = outcome(numbers(numpy.sqrt), seed)
    assert roots == [numpy.sqrt(n) for n in range(COUNT)]
    pairs = outcome(numbers(lambda values: numpy.stack([values, numpy.square(values)], axis=1)), seed)
    assert [row.tolist() for row in pairs] == [[n, n * n] for n in range(COUNT)]
    assert outcome(numbers(lambda values: numpy.square(values).tolist()), seed) == [n * n for n in range(COUNT)]


def test_an_array_of_another_length_is_refused(numpy: Any, seed: int) -> None:
    """A sum is no array at all."""
    short = failure(numbers(lambda values: numpy.asarray(values)[1:]), seed)
    assert "gave 0 outputs for 1 values" in str(short.__cause__)
    none = failure(numbers(lambda values: numpy.array(sum(values))), seed)
    assert "gave array(0), which is no sequence" in str(none.__cause__)


def test_an_array_that_cannot_be_made_fails_on_the_value_it_is_for(numpy: Any, seed: int) -> None:
    """As with any function that raises."""
    topology = graph(
        n=hp.source([1, 2, "drei", 4]),
        x=hp.map_chunk(lambda values: numpy.asarray(values, dtype=float).tolist(), "n", on_error=hp.discard()),
        out=hp.collect("x"),
        dead=hp.collect(hp.errors("x")),
    )
    found = run(lambda: joined(topology), seed)
    assert found["out"] == [1.0, 2.0, 4.0]
    assert [dead.item.value for dead in found["dead"]] == ["drei"]
