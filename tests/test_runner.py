"""Every kind of node with every kind of function, and what happens when the function misbehaves."""

from __future__ import annotations

import asyncio
import functools
import gc
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
import structlog
from running import failure, graph, joined, outcome, run

import hotplumb as hp
from hotplumb.testing import Pause, Raise, script

Form = tuple[Callable[[Any], Any], int]


class Odd:
    """Functions in the shapes that users write them in."""

    def method(self, n: int) -> int:
        return n % 2

    async def async_method(self, n: int) -> int:
        await asyncio.sleep(0)
        return n % 2

    def __call__(self, n: int) -> int:
        return n % 2


class AsyncOdd:
    async def __call__(self, n: int) -> int:
        await asyncio.sleep(0.001)
        return n % 2


def odd(n: int) -> int:
    return n % 2


def modulo(m: int, n: int) -> int:
    return n % m


async def async_odd(n: int) -> int:
    await asyncio.sleep(0)
    return n % 2


async def prompt_odd(n: int) -> int:
    return n % 2


async def late_odd(n: int) -> int:
    await asyncio.sleep((7 - n % 7) / 100)  # the later value returns earlier
    return n % 2


async def async_modulo(m: int, n: int) -> int:
    await asyncio.sleep(0)
    return n % m


ODD = {
    "plain": (odd, 1),
    "lambda": (lambda n: n % 2, 1),
    "partial": (functools.partial(modulo, 2), 1),
    "method": (Odd().method, 1),
    "object": (Odd(), 1),
    "async": (async_odd, 1),
    "async that never waits": (prompt_odd, 1),
    "async that waits": (late_odd, 1),
    "async partial": (functools.partial(async_modulo, 2), 1),
    "async method": (Odd().async_method, 1),
    "async object": (AsyncOdd(), 1),
    "concurrent": (async_odd, 4),
    "concurrent that never waits": (prompt_odd, 4),
    "concurrent that returns out of order": (late_odd, 4),
    "concurrent partial": (functools.partial(async_modulo, 2), 2),
    "concurrent object": (AsyncOdd(), 100),
}
any_form = pytest.mark.parametrize("form", ODD.values(), ids=ODD)


# --- constructors


@any_form
def test_map_gives_what_the_function_returns(form: Form, seed: int) -> None:
    """One output for each value, in order."""
    fn, concurrency = form
    topology = graph(n=hp.source(range(20)), x=hp.map(fn, "n", concurrency=concurrency), out=hp.collect("x"))
    assert outcome(topology, seed) == [n % 2 for n in range(20)]


@any_form
def test_filter_gives_the_values_for_which_the_function_is_true(form: Form, seed: int) -> None:
    """The value itself goes on, in order."""
    fn, concurrency = form
    topology = graph(n=hp.source(range(20)), x=hp.filter(fn, "n", concurrency=concurrency), out=hp.collect("x"))
    assert outcome(topology, seed) == list(range(1, 20, 2))


@any_form
def test_route_gives_each_value_on_the_output_the_function_names(form: Form, seed: int) -> None:
    """Readers of an output get its values, readers of the node all."""
    fn, concurrency = form
    topology = graph(
        n=hp.source(range(20)),
        x=hp.route(fn, "n", concurrency=concurrency),
        odd=hp.collect(hp.output("x", 1)),
        even=hp.collect(hp.output("x", 0)),
        all=hp.collect("x"),
        none=hp.collect(hp.output("x", "nobody")),
    )
    found = run(lambda: joined(topology), seed)
    assert found == {"odd": [*range(1, 20, 2)], "even": [*range(0, 20, 2)], "all": [*range(20)], "none": []}


@any_form
def test_sink_calls_the_function_with_each_value(form: Form, seed: int) -> None:
    """A sink gives nothing and sees everything once."""
    fn, concurrency = form
    seen: list[int] = []

    def see(value: int) -> Any:
        seen.append(value)
        return fn(value)

    async def see_async(value: int) -> Any:
        seen.append(value)
        return await fn(value)

    is_async = asyncio.iscoroutinefunction(getattr(fn, "func", fn)) or isinstance(fn, AsyncOdd)
    sink = hp.sink(see_async, "n", concurrency=concurrency) if is_async else hp.sink(see, "n")
    assert run(lambda: joined(graph(n=hp.source(range(20)), out=sink)), seed) == {}
    assert sorted(seen) == list(range(20))


def twice(n: int) -> list[int]:
    return [n, -n]


def twice_generated(n: int) -> Iterator[int]:
    yield n
    yield -n


async def twice_async(n: int) -> tuple[int, int]:
    await asyncio.sleep(0.01)
    return n, -n


async def twice_iterated(n: int) -> Iterator[int]:
    return iter([n, -n])


async def twice_async_generated(n: int) -> AsyncIterator[int]:
    yield n
    await asyncio.sleep(0.01)
    yield -n


class Twice:
    async def __call__(self, n: int) -> AsyncIterator[int]:
        yield n
        yield -n


FLAT = {
    "list": (twice, 1),
    "generator": (twice_generated, 1),
    "tuple": (lambda n: (n, -n), 1),
    "iterator": (lambda n: iter([n, -n]), 1),
    "keys": (lambda n: {n: 0, -n: 0}.keys() if n else [0, 0], 1),
    "async": (twice_async, 1),
    "async iterator": (twice_iterated, 1),
    "async generator": (twice_async_generated, 1),
    "async generator object": (Twice(), 1),
    "async generator partial": (functools.partial(twice_async_generated), 1),
    "concurrent": (twice_async, 3),
    "concurrent async generators": (twice_async_generated, 3),
    "concurrent async generator objects": (Twice(), 3),
}


@pytest.mark.parametrize("form", FLAT.values(), ids=FLAT)
def test_flat_map_gives_each_of_what_the_function_gives(form: Form, seed: int) -> None:
    """An iterable, a generator or an async generator."""
    fn, concurrency = form
    topology = graph(n=hp.source(range(10)), x=hp.flat_map(fn, "n", concurrency=concurrency), out=hp.collect("x"))
    assert outcome(topology, seed) == [x for n in range(10) for x in (n, -n)]


@pytest.mark.parametrize("size", [0, 1, 255, 256, 257, 3000])
@pytest.mark.parametrize("concurrency", [0, 1, 3])
def test_flat_map_gives_any_number_of_values(size: int, concurrency: int, seed: int) -> None:
    """Outputs that fill several chunks are all there, in order, and what follows them too."""

    async def count(n: int) -> range:
        return range(n)

    fn = count if concurrency else range
    node = hp.flat_map(fn, "n", concurrency=max(1, concurrency))
    topology = graph(n=hp.source([size, 2, size]), x=node, out=hp.collect("x"))
    assert outcome(topology, seed) == [*range(size), 0, 1, *range(size)]


def total(state: int, n: int) -> tuple[int, list[int]]:
    return state + n, [state + n]


def total_generated(state: int, n: int) -> tuple[int, Iterator[int]]:
    return state + n, iter([state + n])


async def total_async(state: int, n: int) -> tuple[int, list[int]]:
    await asyncio.sleep(0.001)
    return state + n, [state + n]


@pytest.mark.parametrize("step", [total, total_generated, total_async])
def test_stateful_hands_its_state_from_value_to_value(step: Callable[..., Any], seed: int) -> None:
    """A step gives the next state and the outputs."""
    topology = graph(n=hp.source(range(6)), x=hp.stateful(step, 100, "n"), out=hp.collect("x"))
    assert outcome(topology, seed) == [100, 101, 103, 106, 110, 115]


def test_stateful_gives_none_or_several(seed: int) -> None:
    """None is no output; an iterable is as many as it has."""
    steps = {0: None, 1: [], 2: ["a", "b"], 3: "xy", 4: (None,)}
    node = hp.stateful(lambda state, n: (state, steps[n]), None, "n")
    assert outcome(graph(n=hp.source(range(5)), x=node, out=hp.collect("x")), seed) == ["a", "b", "x", "y", None]


def test_merge_gives_every_value_and_keeps_the_order_of_each(seed: int) -> None:
    """Between its sources any order is right."""
    topology = graph(
        a=hp.source(range(500)),
        b=hp.source(script([-1, Pause(0), -2, Pause(0.1), -3])),
        both=hp.merge("a", "b"),
        out=hp.collect("both"),
    )
    found = outcome(topology, seed)
    assert [n for n in found if n >= 0] == list(range(500))
    assert [n for n in found if n < 0] == [-1, -2, -3]
    assert len(found) == 503


def test_a_sink_reads_several_keys(seed: int) -> None:
    """What comes of each keeps its order."""
    found = outcome(graph(a=hp.source("abc"), b=hp.source("xyz"), out=hp.collect("a", "b")), seed)
    assert [c for c in found if c in "abc"] == list("abc")
    assert [c for c in found if c in "xyz"] == list("xyz")


def test_every_reader_gets_every_value(seed: int) -> None:
    """A broadcast, and its two ways come together again."""
    topology = graph(
        n=hp.source(range(300)),
        a=hp.map(lambda n: ("a", n), "n"),
        b=hp.map(lambda n: ("b", n), "n", capacity=3),
        both=hp.merge("a", "b"),
        out=hp.collect("both"),
    )
    assert sorted(outcome(topology, seed)) == [(side, n) for side in "ab" for n in range(300)]


def test_none_is_a_value_like_any_other(seed: int) -> None:
    """Only a process gives none by giving None."""
    topology = graph(
        n=hp.source([None, 0, None]),
        m=hp.map(lambda n: n, "n"),
        f=hp.flat_map(lambda n: [n, None], "m"),
        out=hp.collect("f"),
    )
    assert outcome(topology, seed) == [None, None, 0, None, None, None]


# --- sources


def numbers() -> Iterator[int]:
    yield from range(3)


async def async_numbers() -> AsyncIterator[int]:
    for n in range(3):
        await asyncio.sleep(0.01)
        yield n


async def prompt_numbers() -> AsyncIterator[int]:
    for n in range(3):
        yield n


async def fetched() -> list[int]:
    await asyncio.sleep(1)
    return [0, 1, 2]


async def fetched_stream() -> AsyncIterator[int]:
    await asyncio.sleep(0)
    return async_numbers()


class Feed:
    """An iterable class: calling it makes one."""

    def __init__(self, stop: int = 3) -> None:
        self.stop = stop

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.stop))


class AsyncFeed:
    async def __aiter__(self) -> AsyncIterator[int]:
        for n in range(3):
            yield n


class AsyncCursor:
    """An async iterator that is no generator and has no aclose."""

    def __init__(self) -> None:
        self.n = -1

    def __aiter__(self) -> AsyncCursor:
        return self

    async def __anext__(self) -> int:
        self.n += 1
        await asyncio.sleep(0)
        if self.n == 3:
            raise StopAsyncIteration
        return self.n


class Sequence:
    def __getitem__(self, i: int) -> int:
        return range(3)[i]


class Reader:
    def __init__(self, stop: int) -> None:
        self.stop = stop

    def rows(self) -> Iterator[int]:
        yield from range(self.stop)

    async def async_rows(self) -> AsyncIterator[int]:
        for n in range(self.stop):
            yield n

    def __call__(self) -> Iterator[int]:
        return iter(range(self.stop))


SOURCES = {
    "list": lambda: [0, 1, 2],
    "range": lambda: range(3),
    "iterator": lambda: iter([0, 1, 2]),
    "generator": numbers,
    "iterable object": Feed,
    "object with __getitem__": Sequence,
    "async iterable": lambda: script([0, Pause(1), 1, 2]),
    "async iterable object": AsyncFeed,
    "async iterator": AsyncCursor,
    "async generator": async_numbers,
    "function": lambda: lambda: [0, 1, 2],
    "generator function": lambda: numbers,
    "async function": lambda: fetched,
    "async function that gives an async iterator": lambda: fetched_stream,
    "async generator function": lambda: async_numbers,
    "async generator function that never waits": lambda: prompt_numbers,
    "iterable class": lambda: Feed,
    "async iterable class": lambda: AsyncFeed,
    "async iterator class": lambda: AsyncCursor,
    "partial": lambda: functools.partial(range, 3),
    "bound generator method": lambda: Reader(3).rows,
    "bound async generator method": lambda: Reader(3).async_rows,
    "callable object": lambda: Reader(3),
    "function with an optional parameter": lambda: lambda stop=3: range(stop),
    "function with a keyword of its own": lambda: lambda *, stop=3: range(stop),
    "function of any arguments": lambda: lambda *args: range(3 - len(args)),
}


@pytest.mark.parametrize("make", SOURCES.values(), ids=SOURCES)
def test_a_source_gives_the_values_of_whatever_makes_them(make: Callable[[], Any], seed: int) -> None:
    """Iterables, async iterables, and functions that make one."""
    assert outcome(graph(n=hp.source(make()), out=hp.collect("n")), seed) == [0, 1, 2]


def plain_with_context(context: hp.Context) -> list[Any]:
    return [context.key]


def generator_with_context(context: hp.Context) -> Iterator[Any]:
    yield context.key


async def async_with_context(context: hp.Context) -> list[Any]:
    return [context.key]


async def async_generator_with_context(context: hp.Context) -> AsyncIterator[Any]:
    yield context.key


@pytest.mark.parametrize(
    "produce",
    [plain_with_context, generator_with_context, async_with_context, async_generator_with_context],
)
def test_a_source_function_with_a_required_parameter_gets_a_context(produce: Any, seed: int) -> None:
    """It knows its key by it."""
    assert outcome(graph(n=hp.source(produce), out=hp.collect("n")), seed) == ["n"]


def test_a_source_can_finish_itself(seed: int) -> None:
    """`context.finish()` ends the node after the value in hand."""

    def endless(context: hp.Context) -> Iterator[int]:
        n = 0
        while True:
            if n == 3:
                context.finish()
            yield n
            n += 1

    found = outcome(graph(n=hp.source(endless), out=hp.collect("n")), seed)
    assert found[:3] == [0, 1, 2]
    assert len(found) < 1000


def test_a_source_nobody_wants_does_not_run(seed: int) -> None:
    """Sinks drive: what no sink wants is not even opened."""
    opened: list[str] = []

    def produce() -> list[int]:
        opened.append("idle")
        return [1]

    topology = graph(idle=hp.source(produce), n=hp.source([1]), out=hp.collect("n"))
    assert outcome(topology, seed) == [1]
    assert opened == []


def test_a_source_function_is_called_when_the_plumbing_starts(seed: int) -> None:
    """Plain and async functions before anything runs, a generator's body at its first value."""
    log: list[str] = []

    def plain() -> list[int]:
        log.append("plain")
        return []

    async def awaited() -> list[int]:
        await asyncio.sleep(10)
        log.append("awaited")
        return []

    def generated() -> Iterator[int]:
        log.append("generated")
        yield 1

    topology = graph(a=hp.source(plain), b=hp.source(awaited), c=hp.source(generated), out=hp.collect("a", "b", "c"))

    async def main() -> None:
        plumbing = await hp.start(topology)
        assert sorted(log) in (["awaited", "plain"], ["awaited", "generated", "plain"])
        assert log.index("plain") < log.index("awaited")
        assert "generated" not in log or log[-1] == "generated"
        await plumbing.join()
        await plumbing.stop()

    run(main, seed)


# --- concurrency


def test_as_many_calls_are_under_way_as_concurrency_says(seed: int) -> None:
    """Never more, and that many where there is work for them."""
    under_way, most = 0, 0

    async def work(n: int) -> int:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(1)
        under_way -= 1
        return n

    async def main() -> None:
        found = await joined(graph(n=hp.source(range(30)), x=hp.map(work, "n", concurrency=10), out=hp.collect("x")))
        assert found["out"] == list(range(30))
        assert asyncio.get_running_loop().time() < 3.1

    run(main, seed)
    assert most == 10


def test_with_concurrency_one_calls_follow_each_other(seed: int) -> None:
    """The next call begins when the last has returned."""
    log: list[str] = []

    async def work(n: int) -> None:
        log.append(f"+{n}")
        await asyncio.sleep(0.1)
        log.append(f"-{n}")

    run(lambda: joined(graph(n=hp.source(range(3)), out=hp.sink(work, "n"))), seed)
    assert log == ["+0", "-0", "+1", "-1", "+2", "-2"]


@pytest.mark.parametrize("concurrency", [1, 5])
def test_an_async_function_may_use_timeouts(concurrency: int, seed: int) -> None:
    """A timeout of the user's own cancels and uncancels the task it runs in; that is no end of the node."""

    async def work(n: int) -> Any:
        try:
            async with asyncio.timeout(1):
                await asyncio.sleep(n)
        except TimeoutError:
            return "late"
        return n

    topology = graph(n=hp.source([0, 5, 0.5, 7, 0]), x=hp.map(work, "n", concurrency=concurrency), out=hp.collect("x"))
    assert outcome(topology, seed) == [0, "late", 0.5, "late", 0]


# --- user code that fails


class Boom(Exception):
    pass


def boom(*_: Any) -> Any:
    raise Boom("no")


async def async_boom(*_: Any) -> Any:
    await asyncio.sleep(0)
    raise Boom("no")


def boom_generated(_: Any) -> Iterator[int]:
    yield 1
    raise Boom("no")


async def boom_async_generated(_: Any) -> AsyncIterator[int]:
    yield 1
    raise Boom("no")


class PlainBoom:
    process = boom


class AsyncBoom:
    process = async_boom


class GeneratedBoom:
    def process(self, value: Any) -> Iterator[int]:
        yield 1
        raise Boom("no")


FAILING = {
    "map": hp.map(boom, "n"),
    "async map": hp.map(async_boom, "n"),
    "concurrent map": hp.map(async_boom, "n", concurrency=3),
    "filter": hp.filter(boom, "n"),
    "async filter": hp.filter(async_boom, "n"),
    "concurrent filter": hp.filter(async_boom, "n", concurrency=3),
    "flat_map": hp.flat_map(boom, "n"),
    "flat_map generator": hp.flat_map(boom_generated, "n"),
    "async flat_map": hp.flat_map(async_boom, "n"),
    "async flat_map generator": hp.flat_map(boom_async_generated, "n"),
    "concurrent flat_map": hp.flat_map(async_boom, "n", concurrency=3),
    "concurrent flat_map generator": hp.flat_map(boom_async_generated, "n", concurrency=3),
    "stateful": hp.stateful(boom, 0, "n"),
    "async stateful": hp.stateful(async_boom, 0, "n"),
    "route": hp.route(boom, "n"),
    "async route": hp.route(async_boom, "n"),
    "concurrent route": hp.route(async_boom, "n", concurrency=3),
    "process": hp.process(PlainBoom, "n"),
    "async process": hp.process(AsyncBoom, "n"),
    "process generator": hp.process(GeneratedBoom, "n"),
}


@pytest.mark.parametrize("node", FAILING.values(), ids=FAILING)
def test_what_user_code_raises_comes_out_as_a_node_error(node: hp.Node, seed: int) -> None:
    """It names the node and the value, its cause is what was raised, and its note is the trail."""
    error = failure(graph(n=hp.source([42]), x=node, out=hp.collect("x")), seed)
    assert error.key == "x"
    assert isinstance(error.__cause__, Boom)
    assert error.item is not None
    assert error.item.value == 42
    assert error.trail is not None
    assert error.trail.keys == ("n",)
    assert '"x"' in str(error)
    assert "42" in str(error)
    assert "Boom: no" in str(error)
    assert any("trail" in note and str(error.trail) in note for note in error.__notes__)


@pytest.mark.parametrize(
    "sink", [hp.sink(boom, "n"), hp.sink(async_boom, "n"), hp.sink(async_boom, "n", concurrency=2)]
)
def test_what_a_sink_raises_comes_out_as_a_node_error(sink: hp.Node, seed: int) -> None:
    """As for any node."""
    error = failure(graph(n=hp.source([42]), out=sink), seed)
    assert (error.key, error.item and error.item.value) == ("out", 42)
    assert isinstance(error.__cause__, Boom)


@pytest.mark.parametrize("node", FAILING.values(), ids=FAILING)
def test_a_failed_item_is_counted_as_failed_and_not_as_received(node: hp.Node, seed: int) -> None:
    """Received, dropped and failed together are what was sent."""

    async def main() -> None:
        plumbing = hp.Plumbing(graph(n=hp.source([42]), x=node, out=hp.collect("x")))
        with pytest.raises(hp.NodeError):
            async with plumbing:
                await plumbing.join()
        counts = plumbing.statistics().nodes["x"]
        assert (counts.received, counts.failed, counts.dropped) == (0, 1, 0)

    run(main, seed)


@pytest.mark.parametrize("kind", ["map", "filter", "flat_map", "route", "sink", "stateful", "process"])
@pytest.mark.parametrize("at", [0, 1, 5])
def test_stop_iteration_from_user_code_is_a_failure_of_that_value(
    kind: str, at: int, seeds: Callable[[int], list[int]]
) -> None:
    """It ends no loop of ours in silence."""

    def fn(n: int) -> Any:
        if n == at:
            raise StopIteration("mine")
        return [n]

    class Give:
        def process(self, n: int) -> Any:
            return fn(n)

    match kind:
        case "stateful":
            node = hp.stateful(lambda _, n: (None, fn(n)), None, "n")
        case "process":
            node = hp.process(Give, "n")
        case _:
            node = getattr(hp, kind)(fn, "n")
    nodes = {"n": hp.source(range(10)), "x": node, **({} if kind == "sink" else {"out": hp.collect("x")})}
    for seed in seeds(10):  # which values share a chunk with it is drawn
        error = failure(graph(**nodes), seed)
        assert error.key == "x"
        assert error.item is not None
        assert error.item.value == at
        assert isinstance(error.__cause__, StopIteration)


class AsyncBeginning:
    """A process with something async in it, so that it has a task; its `process` is plain."""

    async def begin(self, context: hp.Context) -> None:
        pass

    def process(self, value: Any) -> Any:
        raise StopIteration("mine")


def test_stop_iteration_from_a_plain_method_of_an_async_process_is_a_failure_too(seed: int) -> None:
    """The value is named; Python may have wrapped the exception on its way through a coroutine."""
    error = failure(graph(n=hp.source([1]), x=hp.process(AsyncBeginning, "n"), out=hp.collect("x")), seed)
    assert error.item is not None
    cause = error.__cause__
    assert isinstance(cause, StopIteration) or (cause is not None and isinstance(cause.__cause__, StopIteration))


async def answer(n: int) -> list[int]:
    return [n]


class GivesCoroutine:
    def process(self, n: int) -> Any:
        return answer(n)


COROUTINES = {
    "map": hp.map(lambda n: answer(n), "n"),
    "filter": hp.filter(lambda n: answer(n), "n"),
    "flat_map": hp.flat_map(lambda n: answer(n), "n"),
    "route": hp.route(lambda n: answer(n), "n"),
    "stateful": hp.stateful(lambda _, n: answer(n), 0, "n"),
    "stateful outputs": hp.stateful(lambda _, n: (0, answer(n)), 0, "n"),
    "process": hp.process(GivesCoroutine, "n"),
}


@pytest.mark.parametrize("node", COROUTINES.values(), ids=COROUTINES)
def test_a_coroutine_from_a_plain_function_is_an_error_that_says_so(node: hp.Node, seed: int) -> None:
    """No coroutine is dropped, and the text says `async def`."""
    error = failure(graph(n=hp.source(range(5)), x=node, out=hp.collect("x")), seed)
    assert error.key == "x"
    assert isinstance(error.__cause__, hp.UsageError)
    assert "async def" in str(error.__cause__)
    gc.collect()


def test_a_coroutine_from_a_plain_sink_is_an_error_that_says_so(seed: int) -> None:
    """As for any node."""
    error = failure(graph(n=hp.source(range(5)), out=hp.sink(lambda n: answer(n), "n")), seed)
    assert isinstance(error.__cause__, hp.UsageError)
    assert "async def" in str(error.__cause__)


@pytest.mark.parametrize("kind", ["map", "filter", "route", "sink"])
def test_a_coroutine_from_a_plain_function_is_found_at_the_first_value(
    kind: str, seeds: Callable[[int], list[int]]
) -> None:
    """Where every answer is one, nothing goes on."""
    for seed in seeds(5):
        fn = getattr(hp, kind)(lambda n: answer(n), "n")
        nodes = {"x": fn} if kind == "sink" else {"x": fn, "out": hp.collect("x")}
        error = failure(graph(n=hp.source(range(100)), **nodes), seed)
        assert isinstance(error.__cause__, hp.UsageError)
        assert "async def" in str(error.__cause__)
        assert error.item is not None
        assert error.item.value == 0


@pytest.mark.parametrize("kind", ["sink", "flat_map", "stateful", "process"])
def test_a_coroutine_from_a_plain_function_is_found_at_any_value(kind: str, seeds: Callable[[int], list[int]]) -> None:
    """Where the answer is looked at anyway, not only at the first."""

    class Give:
        def process(self, n: int) -> Any:
            return answer(n) if n == 70 else n

    makes: dict[str, Callable[[], hp.Node]] = {
        "sink": lambda: hp.sink(lambda n: answer(n) if n == 70 else None, "n"),
        "flat_map": lambda: hp.flat_map(lambda n: answer(n) if n == 70 else [n], "n"),
        "stateful": lambda: hp.stateful(lambda _, n: (0, answer(n) if n == 70 else [n]), 0, "n"),
        "process": lambda: hp.process(Give, "n"),
    }
    for seed in seeds(5):
        nodes = {"x": makes[kind](), **({} if kind == "sink" else {"out": hp.collect("x")})}
        error = failure(graph(n=hp.source(range(100)), **nodes), seed)
        assert isinstance(error.__cause__, hp.UsageError)
        assert "async def" in str(error.__cause__)


def test_a_plain_source_function_that_gives_a_coroutine_is_an_error_that_says_so(seed: int) -> None:
    """Before anything runs."""
    error = failure(graph(n=hp.source(lambda: fetched()), out=hp.collect("n")), seed)
    assert isinstance(error.__cause__, hp.UsageError)
    assert "async def" in str(error.__cause__)


NO_OUTPUTS = {
    "flat_map": (hp.flat_map(lambda n: 5, "n"), ["5", "iterable"]),
    "async flat_map": (hp.flat_map(async_odd, "n"), ["0", "iterable"]),
    "concurrent flat_map": (hp.flat_map(async_odd, "n", concurrency=2), ["0", "iterable"]),
    "flat_map gives an async generator": (hp.flat_map(lambda n: twice_async_generated(n), "n"), ["async"]),
    "stateful gives no pair": (hp.stateful(lambda s, n: n, 0, "n"), ["0", "(state, outputs)"]),
    "stateful gives a list": (hp.stateful(lambda s, n: [s, [n]], 0, "n"), ["(state, outputs)"]),
    "stateful gives a triple": (hp.stateful(lambda s, n: (s, n, n), 0, "n"), ["(state, outputs)"]),
    "stateful gives one output bare": (hp.stateful(lambda s, n: (s, n), 0, "n"), ["0", "iterable"]),
    "async stateful gives no pair": (hp.stateful(async_modulo, 1, "m"), ["(state, outputs)"]),
    "route names what cannot be frozen": (hp.route(lambda n: object(), "n"), ["object"]),
}


@pytest.mark.parametrize(("node", "words"), NO_OUTPUTS.values(), ids=NO_OUTPUTS)
def test_an_answer_that_is_no_answer_is_an_error_that_shows_it(node: hp.Node, words: list[str], seed: int) -> None:
    """The text has the value and what to give instead."""
    error = failure(graph(n=hp.source([0]), m=hp.source([1]), x=node, out=hp.collect("x")), seed)
    assert error.key == "x"
    assert error.item is not None
    assert isinstance(error.__cause__, hp.UsageError)
    for word in words:
        assert word in str(error.__cause__)


# --- sources that fail


def raising_function() -> Any:
    raise Boom("no")


async def raising_async_function() -> Any:
    await asyncio.sleep(1)
    raise Boom("no")


@pytest.mark.parametrize("produce", [raising_function, raising_async_function])
def test_a_source_function_that_raises_keeps_the_plumbing_from_starting(produce: Any, seed: int) -> None:
    """The block is never entered, and what was open is closed."""
    log: list[str] = []

    class Watch:
        def process(self, value: Any) -> None: ...

        def close(self) -> None:
            log.append("closed")

    async def main() -> None:
        with pytest.raises(hp.NodeError) as raised:
            async with hp.Plumbing(
                graph(n=hp.source(produce), ok=hp.source([1]), x=hp.process(Watch, "n", "ok"), out=hp.collect("x"))
            ):
                log.append("entered")
        assert raised.value.key == "n"
        assert isinstance(raised.value.__cause__, Boom)
        assert "source" in str(raised.value)

    run(main, seed)
    assert log in (["closed"], [])  # not made yet, or closed


def raising_generator() -> Iterator[int]:
    yield 1
    yield 2
    raise Boom("no")


async def raising_async_generator() -> AsyncIterator[int]:
    yield 1
    await asyncio.sleep(1)
    yield 2
    raise Boom("no")


HALFWAY = {
    "generator": lambda: raising_generator,
    "async generator": lambda: raising_async_generator,
    "script": lambda: script([1, 2, Raise(Boom("no")), 3]),
    "script that waits": lambda: script([1, 2, Pause(60), Raise(Boom("no")), 3]),
    "at the first value": lambda: script([Raise(Boom("no"))]),
    "iterator": lambda: map(boom, [1]),
}


@pytest.mark.parametrize("make", HALFWAY.values(), ids=HALFWAY)
def test_a_source_that_raises_halfway_stops_the_plumbing(make: Callable[[], Any], seed: int) -> None:
    """The error names the source; there is no item in hand."""
    error = failure(graph(n=hp.source(make()), out=hp.collect("n")), seed)
    assert error.key == "n"
    assert error.item is None
    assert error.trail is None
    assert isinstance(error.__cause__, Boom)
    assert str(error) == 'source of "n" failed: Boom: no'


def test_what_came_before_a_source_failed_was_sent(seed: int) -> None:
    """With a pause in between it has arrived, too."""

    async def main() -> None:
        produce = script([1, 2, Pause(1), Raise(Boom("no"))])
        plumbing = hp.Plumbing(graph(n=hp.source(produce), out=hp.collect("n")))
        with pytest.raises(hp.NodeError):
            async with plumbing:
                await plumbing.join()
        assert plumbing.collected() == {"out": [1, 2]}

    run(main, seed)


@pytest.mark.parametrize("made", [5, None, object()], ids=["5", "None", "object"])
def test_a_source_that_gives_no_iterable_is_an_error_that_shows_it(made: Any, seed: int) -> None:
    """Before anything runs."""
    error = failure(graph(n=hp.source(lambda: made), out=hp.collect("n")), seed)
    assert error.key == "n"
    assert isinstance(error.__cause__, hp.UsageError)
    assert repr(made) in str(error.__cause__)
    assert "iterable" in str(error.__cause__)


def test_a_source_whose_aclose_raises_is_a_failure_of_its_node(seed: int) -> None:
    """What its `finally` raises when it is stopped is not lost."""

    async def endless() -> AsyncIterator[int]:
        try:
            while True:
                yield 1
                await asyncio.sleep(1)
        finally:
            raise Boom("no")

    async def main() -> None:
        with pytest.raises(hp.NodeError) as raised:
            async with hp.Plumbing(graph(n=hp.source(endless), out=hp.collect("n"))):
                await asyncio.sleep(10.5)
        assert raised.value.key == "n"
        assert isinstance(raised.value.__cause__, Boom)

    run(main, seed)


@pytest.mark.parametrize("leaves", ["drained", "raising"])
def test_a_generator_whose_close_raises_is_a_failure_of_its_node(leaves: str, seed: int) -> None:
    """As for async generators; an exception of the block's own goes first, with a note."""
    started = asyncio.Event()

    def endless() -> Iterator[int]:
        try:
            while True:
                yield 1
                started.set()
        finally:
            raise Boom("no")

    async def main() -> None:
        async with hp.Plumbing(graph(n=hp.source(endless), out=hp.sink(lambda n: None, "n"))):
            await started.wait()
            if leaves == "raising":
                raise KeyError("body")

    if leaves == "raising":
        with pytest.raises(KeyError) as raised:
            run(main, seed)
        assert any("Boom" in note for note in raised.value.__notes__)
    else:
        with pytest.raises(hp.NodeError) as failed:
            run(main, seed)
        assert isinstance(failed.value.__cause__, Boom)


# --- nodes that are wrong in themselves


@pytest.mark.parametrize("kind", ["map", "filter", "flat_map", "route", "sink"])
def test_concurrency_is_for_async_functions(kind: str) -> None:
    """Plain calls cannot be under way at once; the text says what to do."""
    with pytest.raises(hp.UsageError, match="async def"):
        getattr(hp, kind)(odd, "n", concurrency=2)


@pytest.mark.parametrize("option", ["capacity", "concurrency"])
@pytest.mark.parametrize("value", [0, -1, 1.5, True, None, "many"])
def test_a_count_that_is_no_count_fails_when_the_node_is_made(option: str, value: Any) -> None:
    """The text names the option and shows the value."""
    with pytest.raises(hp.UsageError, match=option) as raised:
        hp.map(async_odd, "n", **{option: value})
    assert repr(value) in str(raised.value)


@pytest.mark.parametrize("make", [hp.map, hp.filter, hp.flat_map, hp.route, hp.process, hp.sink])
@pytest.mark.parametrize("fn", [None, "n", 3])
def test_a_node_without_a_function_fails_when_it_is_made(make: Any, fn: Any) -> None:
    """The text says what comes first."""
    with pytest.raises(hp.UsageError, match="first"):
        make(fn, "n")


def test_a_source_of_nothing_fails_when_it_is_made() -> None:
    """It is no iterable and makes none."""
    with pytest.raises(hp.UsageError, match="iterable"):
        hp.source(5)  # type: ignore[arg-type]


# --- closing what user code has open


def arrive(arrived: asyncio.Event, _: Any) -> None:
    arrived.set()


CUT_SHORT = {
    "a": "source",
    "b": "async source",
    "c": "slow source",
    "d": "flat_map",
    "e": "other flat_map",
    "f": "async flat_map",
    "p": "process",
}


def test_a_generator_that_is_cut_short_runs_its_finally(seeds: Callable[[int], list[int]]) -> None:
    """Plain and async, as source and as flat_map, when the block is left by an exception."""

    class Left(Exception):
        pass

    for seed in seeds(20):
        log: list[str] = []
        arrived = asyncio.Event()

        def plain(name: str, log: list[str] = log) -> Iterator[str]:
            try:
                while True:
                    yield name
            finally:
                log.append(name)

        async def awaited(name: str, log: list[str] = log) -> AsyncIterator[str]:
            try:
                while True:
                    yield name
            finally:
                log.append(name)

        async def slow(name: str, log: list[str] = log) -> AsyncIterator[str]:
            try:
                while True:
                    yield name
                    await asyncio.sleep(0.001)
            finally:
                await asyncio.sleep(0)
                log.append(name)

        async def endless_of_one(_: Any, log: list[str] = log) -> AsyncIterator[str]:
            try:
                while True:
                    yield "async flat_map"
            finally:
                log.append("async flat_map")

        class Gives:
            def process(self, value: str) -> Iterator[str]:
                yield from plain("process")

        topology = graph(
            a=hp.source(functools.partial(plain, "source")),
            b=hp.source(functools.partial(awaited, "async source")),
            c=hp.source(functools.partial(slow, "slow source")),
            n=hp.source([1]),
            d=hp.flat_map(lambda _: plain("flat_map"), "n"),
            e=hp.flat_map(lambda _: plain("other flat_map"), "n", capacity=1),
            f=hp.flat_map(endless_of_one, "n"),
            p=hp.process(Gives, "n"),
            out=hp.sink(functools.partial(arrive, arrived), "a", "b", "c", "d", "e", "f", "p", capacity=3),
        )

        plumbing = hp.Plumbing(topology)

        async def cut_short(plumbing: hp.Plumbing = plumbing, arrived: asyncio.Event = arrived) -> None:
            async with plumbing:
                await arrived.wait()
                for _ in range(20):
                    await asyncio.sleep(0)  # no time passes while sources are busy
                raise Left

        async def main(cut_short: Any = cut_short, plumbing: hp.Plumbing = plumbing, log: list[str] = log) -> None:
            with pytest.raises(Left):
                await cut_short()
            began = {name for key, name in CUT_SHORT.items() if plumbing.statistics().nodes[key].sent}
            assert began <= set(log)
            assert len(log) == len(set(log))

        run(main, seed)


def test_nothing_is_warned_of_where_all_is_well(seed: int) -> None:
    """No log line comes of an ordinary run."""
    with structlog.testing.capture_logs() as logs:
        outcome(graph(n=hp.source(range(1000)), x=hp.map(async_odd, "n"), out=hp.collect("x")), seed)
    assert logs == []


def calls_of_a_run(width: int) -> int:
    """How many Python calls it takes to bring one value through so many branches, behind which one node reads all."""
    nodes: dict[Any, hp.Node] = {"s": hp.source([1]), "out": hp.collect(*[("m", n) for n in range(width)])}
    nodes |= {("m", n): hp.map(abs, "s") for n in range(width)}
    topology = hp.Topology().update(nodes)
    calls = 0

    def count(_: Any, event: str, __: Any) -> None:
        nonlocal calls
        calls += event == "call"

    sys.setprofile(count)
    try:
        hp.run(topology)
    finally:
        sys.setprofile(None)
    return calls


def test_the_work_of_a_node_that_reads_many_grows_with_what_it_is_given() -> None:
    """Not with the number of its links times the number of their values."""
    assert calls_of_a_run(1_000) < 15 * calls_of_a_run(100)
