"""Processes: what their methods may give, when each is called, and what their context lets them ask for."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any

import pytest
from running import failure, graph, joined, now, outcome, run

import hotplumb as hp
from hotplumb.testing import Pause, script


def collected(make: Any, values: Any, seed: int, **options: Any) -> Any:
    """What a process gives for the values of a source."""
    return outcome(graph(n=hp.source(values), x=hp.process(make, "n", **options), out=hp.collect("x")), seed)


def giving(call: Callable[[], Any]) -> type:
    """A process whose `process` gives what `call` does."""

    class Give:
        def process(self, value: Any) -> Any:
            return call()

    return Give


def awaiting(call: Callable[[], Any]) -> type:
    class Give:
        async def process(self, value: Any) -> Any:
            await asyncio.sleep(0)
            return call()

    return Give


# --- what is an output

GIVEN = {
    "None": (lambda: None, []),
    "a value": (lambda: 5, [5]),
    "a false value": (lambda: 0, [0]),
    "a string": (lambda: "ab", ["ab"]),
    "a dict": (lambda: {"a": 1}, [{"a": 1}]),
    "a range": (lambda: range(2), [range(2)]),
    "a set": (lambda: {1}, [{1}]),
    "a list": (lambda: [1, 2], [1, 2]),
    "an empty list": (list, []),
    "a tuple": (lambda: (1, 2), [1, 2]),
    "a list of None": (lambda: [None, 1], [None, 1]),
    "a list in a list": (lambda: [[1, 2]], [[1, 2]]),
    "an iterator": (lambda: iter("ab"), ["a", "b"]),
    "a generator": (lambda: (n for n in (1, 2)), [1, 2]),
    "a map": (lambda: map(str, (1, 2)), ["1", "2"]),
}


@pytest.mark.parametrize("make", [giving, awaiting])
@pytest.mark.parametrize(("call", "outputs"), GIVEN.values(), ids=GIVEN)
def test_a_list_tuple_or_iterator_is_several_outputs_and_all_else_one(
    make: Callable[[Any], type], call: Callable[[], Any], outputs: list[Any], seed: int
) -> None:
    """None is none."""
    assert collected(make(call), "xy", seed) == outputs * 2


class Yields:
    def process(self, value: Any) -> Iterator[Any]:
        yield value
        yield None
        yield [value]


class YieldsAsync:
    async def process(self, value: Any) -> AsyncIterator[Any]:
        yield value
        await asyncio.sleep(0.1)
        yield None
        yield [value]


@pytest.mark.parametrize("make", [Yields, YieldsAsync])
def test_what_a_process_yields_is_an_output_each(make: type, seed: int) -> None:
    """A list too; None is none."""
    assert collected(make, [1, 2], seed) == [1, [1], 2, [2]]


@pytest.mark.parametrize("size", [255, 256, 257, 3000])
@pytest.mark.parametrize("make", [giving, awaiting])
def test_outputs_may_fill_several_chunks(make: Callable[[Any], type], size: int, seed: int) -> None:
    """None is missing, and they stay in order."""
    assert collected(make(lambda: [*range(size)]), "xy", seed) == [*range(size)] * 2


def test_a_process_gives_endless_outputs_as_there_is_room(seed: int) -> None:
    """Its generator is closed when nobody wants more."""
    log: list[str] = []

    class Endless:
        def process(self, value: int) -> Iterator[int]:
            try:
                yield from itertools.count(value)
            finally:
                log.append("finally")

        def close(self) -> None:
            log.append("close")

    topology = graph(n=hp.source([5]), x=hp.process(Endless, "n"), five=hp.process(Take, "x"), out=hp.collect("five"))
    assert outcome(topology, seed) == [5, 6, 7, 8, 9]
    assert log == ["finally", "close"]


class Take:
    """The first five values."""

    def __init__(self) -> None:
        self.taken = 0

    def begin(self, context: hp.Context) -> None:
        self.context = context

    def process(self, value: Any) -> Any:
        self.taken += 1
        if self.taken == 5:
            self.context.finish()
        return value


class TakeAsync(Take):
    async def process(self, value: Any) -> Any:
        await asyncio.sleep(0)
        return Take.process(self, value)


# --- when each method is called


def methods(form: str, log: list[str], fails: str) -> type:
    """A process of which every method notes its name, and one raises."""

    def act(name: str) -> None:
        log.append(name)
        if name == fails:
            raise OSError("no")

    class Plain:
        def begin(self, context: hp.Context) -> None:
            context.wake_at(now())
            act("begin")

        def process(self, value: Any) -> Any:
            act("process")

        def wake(self, time: float) -> Any:
            act("wake")

        def end(self) -> Any:
            act("end")

        def close(self) -> None:
            act("close")

    class Generators(Plain):
        def process(self, value: Any) -> Any:
            act("process")
            yield 1

        def wake(self, time: float) -> Any:
            act("wake")
            yield 1

        def end(self) -> Any:
            act("end")
            yield 1

    class Async:
        async def begin(self, context: hp.Context) -> None:
            context.wake_at(now())
            await asyncio.sleep(0)
            act("begin")

        async def process(self, value: Any) -> Any:
            await asyncio.sleep(0)
            act("process")

        async def wake(self, time: float) -> Any:
            await asyncio.sleep(0)
            act("wake")

        async def end(self) -> Any:
            await asyncio.sleep(0)
            act("end")

        async def close(self) -> None:
            await asyncio.sleep(0)
            act("close")

    class AsyncGenerators(Async):
        async def process(self, value: Any) -> Any:
            act("process")
            yield 1

        async def wake(self, time: float) -> Any:
            act("wake")
            yield 1

        async def end(self) -> Any:
            act("end")
            yield 1

    found = [Plain, Generators, Async, AsyncGenerators]
    return {"plain": found[0], "generators": found[1], "async": found[2], "async generators": found[3]}[form]


every_form = pytest.mark.parametrize("form", ["plain", "generators", "async", "async generators"])


@every_form
def test_begin_is_called_first_then_wake_and_process_then_end_and_close(form: str, seed: int) -> None:
    """Each as often as there is reason, `close` once and last."""
    log: list[str] = []
    collected(methods(form, log, fails="nothing"), script([Pause(1), 1, 2]), seed)
    assert log == ["begin", "wake", "process", "process", "end", "close"]


@every_form
@pytest.mark.parametrize("name", ["begin", "wake", "process", "end", "close"])
def test_whatever_method_raises_the_process_is_closed_once_and_last(form: str, name: str, seed: int) -> None:
    """The error names the method, and has an item only where there was one in hand."""
    log: list[str] = []
    make = methods(form, log, fails=name)
    error = failure(graph(n=hp.source(script([Pause(1), 1])), x=hp.process(make, "n"), out=hp.collect("x")), seed)
    assert error.key == "x"
    assert isinstance(error.__cause__, OSError)
    assert (error.item is not None) == (name == "process")
    assert name in str(error)
    assert log.count("close") == 1
    assert log[-1] == "close"


def test_each_start_makes_a_new_process(seed: int) -> None:
    """What one run counted, the next one does not know."""
    topology = graph(n=hp.source("abc"), x=hp.process(Count, "n"), out=hp.collect("x"))
    assert outcome(topology, seed) == [3]
    assert outcome(topology, seed) == [3]


class Count:
    """How many there were; an end gives that."""

    def begin(self, context: hp.Context) -> None:
        self.count = 0

    def process(self, value: Any) -> None:
        self.count += 1

    def end(self) -> int:
        return self.count


class CountAsync(Count):
    async def process(self, value: Any) -> None:  # type: ignore[override]
        self.count += 1


@pytest.mark.parametrize("base", [Count, CountAsync])
def test_a_process_that_has_ended_begins_anew_for_what_comes_later(base: type, seed: int) -> None:
    """A new one is made, begun, ended and closed."""
    log: list[str] = []

    class Watched(base):  # type: ignore[misc]
        def begin(self, context: hp.Context) -> None:
            log.append("begin")
            super().begin(context)

        def end(self) -> int:
            log.append("end")
            return int(super().end())

        def close(self) -> None:
            log.append("close")

    async def main() -> None:
        topology = graph(n=hp.source([1, 2, 3]), x=hp.process(Watched, "n"), out=hp.collect("x"))
        async with hp.Plumbing(topology) as plumbing:
            await plumbing.join()
            await plumbing.inject("n", 5)
            await plumbing.join()
            assert plumbing.collected()["out"] == [3, 1]
        assert log == ["begin", "end", "close"] * 2

    run(main, seed)


@pytest.mark.parametrize("is_async", [False, True])
def test_a_process_that_begins_anew_reads_all_again(is_async: bool, seed: int) -> None:
    """What the one before chose to read is its own."""

    seen: list[Any] = []

    class Once:
        def begin(self, context: hp.Context) -> None:
            self.context = context
            seen.append(tuple(context.reads))

        def process(self, value: int) -> int:
            self.context.reads = ["b"]
            return value

    class OnceAsync(Once):
        async def begin(self, context: hp.Context) -> None:  # type: ignore[override]
            Once.begin(self, context)

    async def main() -> None:
        make = OnceAsync if is_async else Once
        topology = graph(a=hp.source([1]), b=hp.source([2]), x=hp.process(make, "a", "b"), out=hp.collect("x"))
        async with hp.Plumbing(topology) as plumbing:
            await plumbing.join()
            await plumbing.inject("a", 3)
            await plumbing.join()
            assert sorted(plumbing.collected()["out"]) == [1, 2, 3]

    run(main, seed)
    assert seen == [("a", "b"), ("a", "b")]


def test_begin_is_done_before_any_value_comes(seed: int) -> None:
    """However long it takes, for all processes of the graph."""
    log: list[str] = []

    class Slow:
        async def begin(self, context: hp.Context) -> None:
            await asyncio.sleep(60)
            log.append("begun")

        def process(self, value: int) -> int:
            log.append("value")
            return value

    topology = graph(
        n=hp.source([1]), a=hp.map(lambda n: log.append("map"), "n"), x=hp.process(Slow, "n"), out=hp.collect("a", "x")
    )
    run(lambda: joined(topology), seed)
    assert log[0] == "begun"
    assert sorted(log[1:]) == ["map", "value"]


def test_an_async_close_at_a_normal_end_may_take_its_time(seed: int) -> None:
    """There is no bound; `join` waits for it."""
    log: list[float] = []

    class Slow:
        async def process(self, value: int) -> None: ...

        async def close(self) -> None:
            await asyncio.sleep(100)
            log.append(now())

    assert collected(Slow, [1], seed) == []
    assert log == [100]


@pytest.mark.parametrize(("make", "words"), [(lambda: 5, "5"), (object, "object"), (lambda: None, "None")])
def test_a_process_without_a_process_method_is_an_error_that_shows_it(make: Any, words: str, seed: int) -> None:
    """Before anything runs."""
    error = failure(graph(n=hp.source([1]), x=hp.process(make, "n"), out=hp.collect("x")), seed)
    assert isinstance(error.__cause__, hp.UsageError)
    assert words in str(error.__cause__)
    assert "process(value)" in str(error.__cause__)


# --- the context: who is there


def test_a_context_knows_its_key_its_readers_and_the_sinks_that_want_it(seed: int) -> None:
    """Readers are who reads it itself, sinks are however far down; a source has them too."""
    seen: dict[str, Any] = {}

    class Look:
        def begin(self, context: hp.Context) -> None:
            seen["begin"] = (context.key, context.readers, context.sinks)
            self.context = context

        def process(self, value: int) -> int:
            seen["process"] = (self.context.key, self.context.readers, self.context.sinks)
            return value

    def produce(context: hp.Context) -> Iterator[int]:
        seen["source"] = (context.key, context.readers, context.sinks)
        yield 1

    topology = graph(
        n=hp.source(produce),
        x=hp.process(Look, "n"),
        a=hp.map(lambda n: n, "x"),
        b=hp.route(lambda n: "one", "x"),
        one=hp.collect("a", hp.output("b", "one")),
        two=hp.collect("x"),
        other=hp.collect("n"),
    )
    run(lambda: joined(topology), seed)
    expected = ("x", frozenset({"a", "b", "two"}), frozenset({"one", "two"}))
    assert seen["begin"] == seen["process"] == expected
    assert seen["source"] == ("n", frozenset({"x", "other"}), frozenset({"one", "two", "other"}))


@pytest.mark.parametrize("is_async", [False, True])
def test_a_context_says_where_the_value_in_hand_came_from(is_async: bool, seed: int) -> None:
    """As the key was given to the node, an output too; None where there is no value in hand."""
    seen: set[Any] = set()

    class Look:
        def begin(self, context: hp.Context) -> None:
            self.context = context
            seen.add(("begin", context.source))

        def process(self, value: int) -> None:
            seen.add((value, self.context.source))

        def end(self) -> None:
            seen.add(("end", self.context.source))

    class LookAsync(Look):
        async def process(self, value: int) -> None:  # type: ignore[override]
            await asyncio.sleep(0)
            Look.process(self, value)

    topology = graph(
        a=hp.source([1, 2]),
        b=hp.source([3]),
        r=hp.route(lambda n: "odd", "b"),
        x=hp.process(LookAsync if is_async else Look, "a", hp.output("r", "odd")),
        out=hp.collect("x"),
    )
    run(lambda: joined(topology), seed)
    assert seen == {("begin", None), (1, "a"), (2, "a"), (3, hp.output("r", "odd")), ("end", None)}


# --- the context: when to be woken


class Window:
    """What came in ten seconds, as a list."""

    def begin(self, context: hp.Context) -> None:
        self.context = context
        self.items: list[hp.Item] = []
        context.wake_at(10)

    def process(self, value: int) -> Any:
        self.items.append(hp.current_item())

    def wake(self, time: float) -> Iterator[list[int]]:
        assert time == now()
        yield from self.flush()
        self.context.wake_at(time + 10)

    def end(self) -> Iterator[list[int]]:
        yield from self.flush()

    def flush(self) -> Iterator[list[int]]:
        items, self.items = self.items, []
        if items:
            self.context.derive_from(*items)
            yield [item.value for item in items]


class WindowAsync(Window):
    async def process(self, value: int) -> Any:
        Window.process(self, value)


@pytest.mark.parametrize("make", [Window, WindowAsync])
def test_a_window_closes_when_its_time_has_come(make: type, seeds: Callable[[int], list[int]]) -> None:
    """Nothing is lost, each window numbers itself, and its members are the trails it gathered."""
    for seed in seeds(5):
        seen: list[hp.Item] = []
        values = script([what for n in range(25) for what in (n, Pause(1))])
        topology = graph(
            n=hp.source(values),
            w=hp.process(make, "n"),
            out=hp.sink(lambda _, seen=seen: seen.append(hp.current_item()), "w"),  # type: ignore[misc]
        )
        run(lambda topology=topology: joined(topology), seed)  # type: ignore[misc]
        assert list(itertools.chain.from_iterable(item.value for item in seen)) == list(range(25))
        assert [len(item.value) for item in seen][1:] in ([10, 5], [10, 4], [9, 5], [10, 6], [11, 4], [9, 6])
        for i, item in enumerate(seen):
            assert item.trail.hops == (("w", 0),)
            assert item.origin == ("w", i, 0)
            assert [trail.origin.number for trail in item.trail.members.trails] == item.value
            assert item.trail.origins == (item.origin, *(("n", n, 0) for n in item.value))


@pytest.mark.parametrize("is_async", [False, True])
def test_wake_is_called_once_for_each_time_asked_for(is_async: bool, seed: int) -> None:
    """In order of time, with what is due together in one call; a past time is due at once."""
    log: list[float] = []

    class Ask:
        def begin(self, context: hp.Context) -> None:
            for time in (30, 10, 20, 20, -5):
                context.wake_at(time)

        def process(self, value: int) -> None: ...

        def wake(self, time: float) -> None:
            log.append(time)

    class AskAsync(Ask):
        async def wake(self, time: float) -> None:  # type: ignore[override]
            log.append(time)

    collected(AskAsync if is_async else Ask, script([Pause(100), 1]), seed)
    assert log == [0, 10, 20, 30]


def test_a_process_that_has_ended_is_not_woken(seed: int) -> None:
    """What was pending is forgotten, and holds nobody up."""
    log: list[float] = []

    class Ask:
        def begin(self, context: hp.Context) -> None:
            context.wake_at(1000)

        def process(self, value: int) -> None: ...

        def wake(self, time: float) -> None:
            log.append(time)

    async def main() -> None:
        topology = graph(n=hp.source([1]), m=hp.source(script([Pause(5000)])), x=hp.process(Ask, "n"))
        async with hp.Plumbing(topology.add("out", hp.collect("x", "m"))) as plumbing:
            await plumbing.join()

    run(main, seed)
    assert log == []


def test_a_process_without_wake_may_ask_for_a_time_in_vain(seed: int) -> None:
    """Nothing comes of it."""

    class Ask:
        def begin(self, context: hp.Context) -> None:
            context.wake_at(1)

        def process(self, value: int) -> int:
            return value

    assert collected(Ask, script([1, Pause(5), 2]), seed) == [1, 2]


# --- the context: what to read


class SortMerge:
    """Two sorted streams as one."""

    def begin(self, context: hp.Context) -> None:
        self.context = context
        self.held: dict[Any, list[int]] = {"a": [], "b": []}

    def process(self, value: int) -> Any:
        self.held[self.context.source].append(value)
        if all(self.held.values()):
            yield self.held[min(self.held, key=lambda key: self.held[key])].pop(0)
        self.context.reads = [key for key, values in self.held.items() if not values]

    def end(self) -> list[int]:
        return sorted(self.held["a"] + self.held["b"])


class SortMergeAsync(SortMerge):
    async def process(self, value: int) -> Any:
        await asyncio.sleep(0)
        for output in SortMerge.process(self, value):
            yield output


@pytest.mark.parametrize("make", [SortMerge, SortMergeAsync])
@pytest.mark.parametrize("capacity", [1, 3, 1024])
def test_a_process_chooses_which_link_to_read_next(
    make: type, capacity: int, seeds: Callable[[int], list[int]]
) -> None:
    """From the next value on; when all it wants has ended, it reads the rest."""
    for seed in seeds(3):
        node = hp.process(make, "a", "b", capacity=capacity)
        topology = graph(a=hp.source(range(0, 400, 2)), b=hp.source(range(1, 200, 2)), x=node, out=hp.collect("x"))
        assert outcome(topology, seed) == sorted([*range(0, 400, 2), *range(1, 200, 2)])


class Pairs:
    """One of `a`, then one of `b`."""

    def begin(self, context: hp.Context) -> None:
        self.context = context
        context.reads = ["a"]

    def process(self, value: int) -> Any:
        if self.context.source == "a":
            self.first = value
            self.context.reads = ["b"]
            return None
        self.context.reads = ["a"]
        return [(self.first, value)]


class PairsAsync(Pairs):
    async def process(self, value: int) -> Any:
        return Pairs.process(self, value)


@pytest.mark.parametrize("make", [Pairs, PairsAsync])
def test_a_link_left_unread_fills_up_and_makes_its_writer_wait(make: type, seed: int) -> None:
    """Memory stays bounded while the slow side is waited for."""
    made: list[int] = []

    def fast() -> Iterator[int]:
        for n in range(1000):
            made.append(n)
            yield n

    async def main() -> None:
        node = hp.process(make, "a", "b", capacity=5)
        slow = script([what for n in range(20) for what in (n, Pause(1))])
        async with hp.Plumbing(graph(a=hp.source(fast), b=hp.source(slow), x=node, out=hp.collect("x"))) as plumbing:
            await asyncio.sleep(9.5)
            assert plumbing.statistics().nodes["x"].queued_items <= 10
            assert len(made) <= 10 + 2 * 5 + 5
            await plumbing.join()
            assert plumbing.collected()["out"][:20] == [(n, n) for n in range(20)]

    run(main, seed)


def test_what_it_reads_is_seen_in_the_order_of_its_keys(seed: int) -> None:
    """All by default; assigned in any form of the keys."""
    seen: list[Any] = []

    class Look:
        def begin(self, context: hp.Context) -> None:
            seen.append(context.reads)
            context.reads = {"b", ("a", 1)}
            seen.append(context.reads)
            context.reads = (["a", 1],)  # type: ignore[assignment]
            seen.append(context.reads)
            context.reads = [("a", 1), "b", "c"]
            seen.append(context.reads)

        def process(self, value: int) -> None: ...

    topology = hp.Topology().add(("a", 1), hp.source([1])).add("b", hp.source([1])).add("c", hp.source([1]))
    topology = topology.add("x", hp.process(Look, "b", ("a", 1), "c")).add("out", hp.collect("x"))
    run(lambda: joined(topology), seed)
    everything = ("b", ("a", 1), "c")
    assert [tuple(reads) for reads in seen] == [everything, ("b", ("a", 1)), (("a", 1),), everything]


def test_reading_what_it_does_not_read_is_an_error_that_names_both(seed: int) -> None:
    """The key, and the node that does not read it."""

    class Wrong:
        def begin(self, context: hp.Context) -> None:
            self.context = context

        def process(self, value: int) -> None:
            self.context.reads = ["n", "elsewhere"]

    error = failure(graph(n=hp.source([1]), x=hp.process(Wrong, "n"), out=hp.collect("x")), seed)
    assert isinstance(error.__cause__, hp.UsageError)
    assert '"elsewhere"' in str(error.__cause__)
    assert '"x"' in str(error.__cause__)


# --- the context: finishing


def endless(log: list[str]) -> Any:
    def plain() -> Iterator[int]:
        try:
            yield from itertools.count()
        finally:
            log.append("finally")

    return plain


def endless_async(log: list[str], delay_s: float | None = None) -> Any:
    async def awaited() -> AsyncIterator[int]:
        try:
            for n in itertools.count():
                yield n
                if delay_s is not None:
                    await asyncio.sleep(delay_s)
        finally:
            log.append("finally")

    return awaited


ENDLESS: dict[str, Callable[[list[str]], Any]] = {
    "plain": endless,
    "async": endless_async,
    "async that waits": lambda log: endless_async(log, 1),
}


@pytest.mark.parametrize("make_source", ENDLESS.values(), ids=ENDLESS)
@pytest.mark.parametrize("take", [Take, TakeAsync])
@pytest.mark.parametrize("concurrency", [0, 1, 3])
def test_five_taken_of_an_endless_source_end_the_run(
    make_source: Callable[[list[str]], Any], take: type, concurrency: int, seed: int
) -> None:
    """What only a finished node wanted stops, and closes."""
    log: list[str] = []

    async def same(n: int) -> int:
        return n

    between = hp.map(same, "n", concurrency=concurrency) if concurrency else hp.map(lambda n: n, "n")
    topology = graph(n=hp.source(make_source(log)), m=between, five=hp.process(take, "m"), out=hp.collect("five"))
    assert outcome(topology, seed) == [0, 1, 2, 3, 4]
    assert log == ["finally"]


def test_what_others_want_goes_on_when_a_reader_has_finished(seed: int) -> None:
    """Only the links into the finished node close."""
    topology = graph(
        n=hp.source(range(1000)), five=hp.process(Take, "n"), a=hp.collect("five"), b=hp.collect("n", capacity=3)
    )
    assert run(lambda: joined(topology), seed) == {"a": [0, 1, 2, 3, 4], "b": [*range(1000)]}


@pytest.mark.parametrize("make", [Take, TakeAsync])
def test_a_finished_node_counts_what_it_did_not_take_as_dropped(make: type, seed: int) -> None:
    """Received and dropped together are what was sent to it."""

    async def main() -> None:
        topology = graph(
            n=hp.source(script([Pause(1), *range(100)])),
            x=hp.process(make, "n"),
            b=hp.collect("n"),
            out=hp.collect("x"),
        )
        async with hp.Plumbing(topology) as plumbing:
            plumbing.pause("x")
            await asyncio.sleep(2)
            assert plumbing.statistics().nodes["x"].queued_items == 100
            plumbing.resume("x")
            await plumbing.join()
            counts = plumbing.statistics().nodes["x"]
            assert (counts.received, counts.failed, counts.dropped) == (5, 0, 95)
            assert (counts.state, counts.queued_items) == ("finished", 0)

    run(main, seed)


def test_a_node_that_finishes_still_gives_its_end(seed: int) -> None:
    """And closes once, last."""
    log: list[str] = []

    class Finish(Take):
        def end(self) -> str:
            log.append("end")
            return "end"

        def close(self) -> None:
            log.append("close")

    topology = graph(n=hp.source(endless(log)), x=hp.process(Finish, "n"), out=hp.collect("x"))
    assert outcome(topology, seed) == [0, 1, 2, 3, 4, "end"]
    assert sorted(log) == ["close", "end", "finally"]
    assert log.index("end") < log.index("close")


def test_a_flat_map_that_waits_ends_when_its_reader_has_finished(seed: int) -> None:
    """An endless async generator is closed as soon as it gives its next output."""
    log: list[str] = []

    async def ticks(_: int) -> AsyncIterator[int]:
        try:
            for n in itertools.count():
                yield n
                await asyncio.sleep(0.0005)
        finally:
            log.append("finally")

    topology = graph(n=hp.source([1]), x=hp.flat_map(ticks, "n"), five=hp.process(Take, "x"), out=hp.collect("five"))
    assert outcome(topology, seed) == [0, 1, 2, 3, 4]
    assert log == ["finally"]


def test_what_the_finally_of_an_unwanted_generator_raises_is_not_lost(seed: int) -> None:
    """It is a failure of its node."""

    def wrong(_: int) -> Iterator[int]:
        try:
            yield from itertools.count()
        finally:
            raise OSError("finally")

    topology = graph(n=hp.source([1]), x=hp.flat_map(wrong, "n"), five=hp.process(Take, "x"), out=hp.collect("five"))
    error = failure(topology, seed)
    assert error.key == "x"
    assert isinstance(error.__cause__, OSError)


# --- the context: what else an output derives from


def members_seen(make: type, values: Iterable[int], seed: int) -> list[tuple[Any, int]]:
    """Each output, and how many members its trail shows."""
    seen: list[tuple[Any, int]] = []

    def see(value: Any) -> None:
        seen.append((value, len(hp.current_item().trail.members.trails)))

    run(lambda: joined(graph(n=hp.source(values), x=hp.process(make, "n"), out=hp.sink(see, "x"))), seed)
    return seen


class GathersAtEnd:
    def begin(self, context: hp.Context) -> None:
        self.context = context
        self.items: list[hp.Item] = []

    def process(self, value: int) -> Any:
        self.items.append(hp.current_item())

    def end(self) -> Any:
        self.context.derive_from(*self.items)
        return ["a", "b", "c"]


class GathersAtEndYielding(GathersAtEnd):
    def end(self) -> Any:
        self.context.derive_from(*self.items)
        yield from "abc"


class GathersAtEndAsync(GathersAtEnd):
    async def end(self) -> Any:
        await asyncio.sleep(0)
        self.context.derive_from(*self.items)
        return ["a", "b", "c"]


@pytest.mark.parametrize("make", [GathersAtEnd, GathersAtEndYielding, GathersAtEndAsync])
def test_every_later_output_of_a_call_derives_from_what_it_names(make: type, seed: int) -> None:
    """However the call gives them."""
    assert members_seen(make, range(3), seed) == [("a", 3), ("b", 3), ("c", 3)]


class GathersTheLast:
    """Each call's outputs derive from the item before, too."""

    def begin(self, context: hp.Context) -> None:
        self.context = context
        self.last: hp.Item | None = None

    def gather(self) -> None:
        if self.last is not None:
            self.context.derive_from(self.last)
        self.last = hp.current_item()

    def process(self, value: int) -> Any:
        self.gather()
        return [value] * 600


class GathersTheLastAsync(GathersTheLast):
    async def process(self, value: int) -> Any:
        self.gather()
        for _ in range(600):
            yield value


@pytest.mark.parametrize("make", [GathersTheLast, GathersTheLastAsync])
def test_members_are_of_one_call_however_many_chunks_it_fills(make: type, seed: int) -> None:
    """They reach its last output, and none of the next call's."""
    assert members_seen(make, range(3), seed) == [(0, 0)] * 600 + [(1, 1)] * 600 + [(2, 1)] * 600


@pytest.mark.parametrize("is_async", [False, True])
def test_outputs_given_before_a_call_gathers_derive_from_nothing_else(is_async: bool, seed: int) -> None:
    """Only what comes after."""

    class Late:
        def begin(self, context: hp.Context) -> None:
            self.context = context

        def process(self, value: int) -> Any:
            yield "before"
            self.context.derive_from(hp.current_item(), hp.current_item())
            yield "after"

    class LateAsync:
        async def begin(self, context: hp.Context) -> None:
            self.context = context

        async def process(self, value: int) -> Any:
            yield "before"
            await asyncio.sleep(0)
            self.context.derive_from(hp.current_item(), hp.current_item())
            yield "after"

    make = LateAsync if is_async else Late
    assert members_seen(make, [1, 2], seed) == [("before", 0), ("after", 2)] * 2


@pytest.mark.parametrize("count", [63, 64, 65, 100])
def test_at_most_64_members_are_kept_and_the_rest_is_counted(count: int, seed: int) -> None:
    """A window of millions keeps no millions of trails."""
    seen: list[hp.Trail] = []
    topology = graph(
        n=hp.source(range(count)),
        x=hp.process(GathersAtEnd, "n"),
        out=hp.sink(lambda _: seen.append(hp.current_item().trail), "x"),
    )
    run(lambda: joined(topology), seed)
    for trail in seen:
        assert [member.origin.number for member in trail.members.trails] == [*range(min(count, 64))]
        assert trail.members.left_out == max(0, count - 64)
        assert f"(of {count} items)" in str(trail)


def test_members_are_passed_on_by_nodes_below(seed: int) -> None:
    """A map keeps what was gathered above it."""
    seen: list[int] = []
    topology = graph(
        n=hp.source(range(3)),
        x=hp.process(GathersAtEnd, "n"),
        m=hp.map(str.upper, "x"),
        f=hp.filter(lambda c: c != "B", "m"),
        out=hp.sink(lambda _: seen.append(len(hp.current_item().trail.members.trails)), "f"),
    )
    run(lambda: joined(topology), seed)
    assert seen == [3, 3]


def test_a_source_derives_from_nothing(seed: int) -> None:
    """What it gives begins there; the text says so."""

    def produce(context: hp.Context) -> Iterator[int]:
        context.derive_from()
        yield 1

    error = failure(graph(n=hp.source(produce), out=hp.collect("n")), seed)
    assert isinstance(error.__cause__, hp.UsageError)
    assert "begins there" in str(error.__cause__)


class Sorted:
    """Gives on named outputs, in each way there is."""

    def __init__(self) -> None:
        self.items: list[hp.Item] = []

    def begin(self, context: hp.Context) -> None:
        self.context = context

    def process(self, value: int) -> Any:
        self.items.append(hp.current_item())
        self.context.derive_from(*self.items)
        yield hp.to("odd" if value % 2 else ("even", 0), value)
        if value == 3:
            yield "unnamed"

    def end(self) -> Any:
        return [hp.to("odd", "last"), "unnamed last"]


class SortedLater(Sorted):
    async def process(self, value: int) -> Any:
        for output in super().process(value):
            await asyncio.sleep(0)
            yield output

    async def end(self) -> Any:
        return super().end()


@pytest.mark.parametrize("make", [Sorted, SortedLater])
def test_a_process_gives_on_named_outputs(make: Any, seed: int) -> None:
    """Who reads an output gets its values, who reads the key gets all; trails and members come along."""
    trails = []

    def see(_: Any) -> None:
        trails.append(hp.current_item().trail)

    async def main() -> dict[Any, list[Any]]:
        topology = (
            hp.Topology()
            .add("n", hp.source(range(5)))
            .add("p", hp.process(make, "n"))
            .add("odd", hp.collect(hp.output("p", "odd")))
            .add("even", hp.collect(hp.output("p", ["even", 0])))
            .add("none", hp.collect(hp.output("p", "none")))
            .add("all", hp.collect("p"))
            .add("see", hp.sink(see, hp.output("p", "odd")))
        )
        async with hp.Plumbing(topology) as plumbing:
            await plumbing.join()
            return plumbing.collected()

    assert hp.testing.run(main, seed=seed) == {
        "all": [0, 1, 2, 3, "unnamed", 4, "last", "unnamed last"],
        "even": [0, 2, 4],
        "none": [],
        "odd": [1, 3, "last"],
    }
    assert [trail.origin[:2] for trail in trails] == [("n", 1), ("n", 3), ("p", 0)]
    assert [len(trail.members.trails) for trail in trails] == [2, 4, 0]


def test_values_for_no_output_reach_only_who_reads_the_key(seed: int) -> None:
    """Also where a process gives no others."""

    class Unnamed:
        def process(self, value: int) -> int:
            return value

    async def main() -> dict[Any, list[Any]]:
        topology = (
            hp.Topology()
            .add("n", hp.source(range(5)))
            .add("p", hp.process(Unnamed, "n"))
            .add("odd", hp.collect(hp.output("p", "odd")))
            .add("all", hp.collect("p"))
        )
        async with hp.Plumbing(topology) as plumbing:
            await plumbing.join()
            return plumbing.collected()

    assert hp.testing.run(main, seed=seed) == {"all": [0, 1, 2, 3, 4], "odd": []}


@pytest.mark.parametrize("name", ["begin", "close"])
def test_a_plain_begin_or_close_that_gives_an_awaitable_is_refused(name: str, seed: int) -> None:
    """It would not be awaited, and what it was to do would not be done."""

    async def later() -> None:
        raise AssertionError("is not awaited")

    class Awaited:
        def process(self, value: Any) -> Any:
            return value

    setattr(Awaited, name, lambda *_: later())
    error = failure(graph(n=hp.source([1]), x=hp.process(Awaited, "n"), out=hp.collect("x")), seed)
    assert isinstance(error.__cause__, hp.UsageError)
    assert "gave a coroutine: make it `async def`" in str(error.__cause__)
