"""Items and trails: what is read back from the records of chunks, and which item user code has in hand."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from running import graph, joined, now, run

import hotplumb as hp
from hotplumb._links import only
from hotplumb.items import Chunk, Members, Record, Root
from hotplumb.testing import Pause, script

# --- records and trails


class Way(NamedTuple):
    """A chunk, and what the trail of each of its values has to be."""

    chunk: Chunk
    origins: list[hp.Origin]
    hops: list[tuple[hp.Hop, ...]]


def begun(size: int, number: int, attempt: int) -> Way:
    hop = hp.Hop("s", 0)
    record = Record(Root("s", number, attempt), (hop,))
    origins = [hp.Origin("s", number + i, attempt) for i in range(size)]
    return Way(Chunk([*range(size)], record), origins, [(hop,)] * size)


@st.composite
def ways(draw: st.DrawFn) -> Way:
    """What nodes do to a chunk: cut it, map it, drop and multiply its values, in any order."""
    way = begun(draw(st.integers(1, 6)), draw(st.integers(0, 1000)), draw(st.integers(0, 2)))
    for n in range(draw(st.integers(0, 8))):
        chunk, size = way.chunk, len(way.chunk)
        hop = hp.Hop(f"n{n}", draw(st.integers(0, 3)))
        match draw(st.sampled_from(["cut", "map", "pick"])):
            case "cut":
                start = draw(st.integers(0, size))
                stop = draw(st.integers(start, size))
                way = Way(only(chunk, start, stop), way.origins[start:stop], way.hops[start:stop])
            case "map":
                record = Record(chunk.record, (hop,), chunk.start)
                way = Way(Chunk(chunk.values, record), way.origins, [(*hops, hop) for hops in way.hops])
            case _ if size:
                places = draw(st.lists(st.integers(0, size - 1), max_size=8))
                record = Record(chunk.record, (hop,), 0, [chunk.start + place for place in places])
                values = [chunk.values[place] for place in places]
                hops = [(*way.hops[place], hop) for place in places]
                way = Way(Chunk(values, record), [way.origins[place] for place in places], hops)
    return way


@given(ways())
def test_a_trail_is_read_back_through_cuts_drops_and_copies(way: Way) -> None:
    """Each value's hops and origin are its own, however its chunk came about."""
    for item, origin, hops in zip(way.chunk.items(), way.origins, way.hops, strict=True):
        assert item.origin == item.trail.origin == origin
        assert item.trail.hops == hops
        assert item.trail.keys == tuple(hop.key for hop in hops)
        assert item.trail.origins == (origin,)
        assert item.trail.members == Members((), 0)


@given(ways())
def test_trails_are_equal_when_their_hops_and_origins_are(way: Way) -> None:
    """And equal ones hash alike; other attempts are other trails."""
    trails = [item.trail for item in way.chunk.items()]
    for i, one in enumerate(trails):
        for j, other in enumerate(trails):
            is_same = (way.hops[i], way.origins[i]) == (way.hops[j], way.origins[j])
            assert (one == other) == is_same
            assert not is_same or hash(one) == hash(other)
        assert one != "a trail"


def trail(number: int = 0, attempt: int = 0, before: hp.Trail | None = None) -> hp.Trail:
    record = Record(Root("s", number, attempt, before), (hp.Hop("s", 0),))
    return hp.Trail(record, 0)


def test_a_trail_is_one_readable_line() -> None:
    """Source, number, hops with their epochs, and how many items it gathers."""
    assert str(trail(7)) == '"s" #7 -> "s"'
    assert repr(trail(7)) == '<Trail "s" #7 -> "s">'
    record = Record(Root(("feed", 1), 3, 2), (hp.Hop("a", 0),))
    record = Record(record, (hp.Hop("b", 12),))
    record.members = {0: Members((trail(),), 9)}
    assert str(hp.Trail(record, 0)) == '("feed", 1) #3 attempt 2 -> "a" -> "b"@12 (of 10 items)'


def test_a_new_attempt_knows_the_trail_of_the_one_before() -> None:
    """And is another trail than that."""
    first = trail(4)
    second = trail(4, 1, first)
    assert first.before is None
    assert second.before == first
    assert second != first
    assert "attempt 1" in str(second)


def test_members_are_those_of_the_latest_hop_that_gathered() -> None:
    """A value's own place counts, and what gathers nothing passes them on."""
    early, late = Members((trail(1),), 0), Members((trail(2), trail(3)), 5)
    record = Record(Root("w", 0), (hp.Hop("w", 0),))
    record.members = {0: early, 2: late}
    below = Record(record, (hp.Hop("m", 0),), 0, [2, 1, 0])
    assert [hp.Trail(below, i).members for i in range(3)] == [late, Members(()), early]
    gathering = Record(below, (hp.Hop("v", 0),))
    gathering.members = {0: early}
    assert [hp.Trail(gathering, i).members for i in range(3)] == [early, Members(()), early]


def test_origins_are_its_own_and_those_of_its_members_each_once() -> None:
    """Its own first, then theirs in order, members of members too."""
    inner = Record(Root("v", 5), (hp.Hop("v", 0),))
    inner.members = {0: Members((trail(1), trail(2)), 0)}
    outer = Record(Root("w", 0), (hp.Hop("w", 0),))
    outer.members = {0: Members((trail(2), hp.Trail(inner, 0)), 0)}
    found = hp.Trail(outer, 0).origins
    assert found == (hp.Origin("w", 0, 0), hp.Origin("s", 2, 0), hp.Origin("v", 5, 0), hp.Origin("s", 1, 0))


# --- what is in hand


class Seen(NamedTuple):
    where: str
    value: Any  # as the function was called with
    item: hp.Item


def noting(log: list[Seen]) -> Callable[[str, Any], None]:
    return lambda where, value: log.append(Seen(where, value, hp.current_item()))


def test_current_item_is_the_value_the_function_was_called_with(seeds: Callable[[int], list[int]]) -> None:
    """Before and after awaits, in every call under way, in tasks and in threads that it starts."""
    for seed in seeds(3):
        log: list[Seen] = []
        run(lambda log=log: current_items(log), seed)  # type: ignore[misc]
        for where, value, item in log:
            assert item.value == value == item.origin.number, where
            assert item.trail.keys == ("n",) if where != "sink" else item.trail.keys[0] == "n"
        assert sum(seen.where == "sink" for seen in log) == 200


async def current_items(log: list[Seen]) -> None:
    note = noting(log)
    tasks: list[asyncio.Task[None]] = []

    async def below(value: int) -> None:
        note("in a task", value)
        await asyncio.sleep(1)
        note("in a task, later", value)

    async def fn(value: int) -> int:
        note("before", value)
        await asyncio.sleep(0.1 * (5 - value % 5))
        note("after", value)
        task = asyncio.create_task(below(value))
        await asyncio.to_thread(note, "in a thread", value)
        await asyncio.gather(task, below(value))
        return value

    def plain(value: int) -> int:
        note("plain", value)
        tasks.append(asyncio.create_task(below(value)))
        return value

    def several(value: int) -> Iterator[int]:
        note("generator", value)
        yield value
        note("generator, later", value)

    async def several_async(value: int) -> AsyncIterator[int]:
        note("async generator", value)
        yield value
        await asyncio.sleep(0)
        note("async generator, later", value)

    def step(state: int, value: int) -> tuple[int, list[int]]:
        note("step", value)
        return state, [value]

    def choose(value: int) -> bool:
        note("choose", value)
        return True

    class Give:
        def process(self, value: int) -> Iterator[int]:
            note("process", value)
            yield value
            note("process, later", value)

    topology = graph(
        n=hp.source(range(20)),
        a=hp.map(fn, "n"),
        b=hp.map(fn, "n", concurrency=7),
        c=hp.map(plain, "n"),
        d=hp.flat_map(several, "n"),
        e=hp.flat_map(several_async, "n"),
        f=hp.flat_map(several_async, "n", concurrency=3),
        g=hp.stateful(step, 0, "n"),
        h=hp.filter(choose, "n"),
        i=hp.process(Give, "n"),
        j=hp.route(choose, "n"),
        out=hp.sink(lambda value: note("sink", value), *"abcdefghij"),
    )
    await joined(topology)
    await asyncio.gather(*tasks)


def test_a_trail_in_hand_ends_with_the_node_it_came_from(seed: int) -> None:
    """This node's hop is not among them; an output's trail is that plus this node's."""
    log: list[tuple[hp.Trail, hp.Trail]] = []

    def fn(value: int) -> hp.Trail:
        return hp.current_item().trail

    def see(above: hp.Trail) -> None:
        log.append((above, hp.current_item().trail))

    run(lambda: joined(graph(n=hp.source(range(300)), m=hp.map(fn, "n"), out=hp.sink(see, "m"))), seed)
    assert len(log) == 300
    for number, (above, below) in enumerate(log):
        assert above.hops == (("n", 0),)
        assert below.hops == (*above.hops, ("m", 0))
        assert below.origin == above.origin == ("n", number, 0)


def test_a_trail_kept_for_later_does_not_move(seed: int) -> None:
    """What `current_item()` gave is a value, whatever its node works on since."""
    kept: list[hp.Item] = []
    run(
        lambda: joined(graph(n=hp.source(range(500)), out=hp.sink(lambda _: kept.append(hp.current_item()), "n"))), seed
    )
    assert [item.value for item in kept] == [item.origin.number for item in kept] == [*range(500)]


def test_a_plain_function_may_start_tasks_through_an_object(seeds: Callable[[int], list[int]]) -> None:
    """However hidden the start is, the task has the item that was in hand."""

    class Spawner:
        def __init__(self) -> None:
            self.tasks: list[asyncio.Task[None]] = []

        def go(self, work: Any) -> None:
            self.tasks.append(asyncio.create_task(work))

    async def main() -> None:
        spawner = Spawner()
        found: list[tuple[int, int]] = []

        async def later(value: int) -> None:
            await asyncio.sleep(1)
            found.append((value, hp.current_item().value))

        await joined(graph(n=hp.source(range(300)), out=hp.sink(lambda value: spawner.go(later(value)), "n")))
        await asyncio.gather(*spawner.tasks)
        assert sorted(found) == [(n, n) for n in range(300)]

    for seed in seeds(3):
        run(main, seed)


def test_outside_user_code_there_is_no_current_item(seed: int) -> None:
    """Neither in the block nor elsewhere; the text says where it works."""

    async def main() -> None:
        async with hp.Plumbing(graph(n=hp.source(range(9)), out=hp.collect("n"))) as plumbing:
            await plumbing.join()
            with pytest.raises(LookupError, match="user function"):
                hp.current_item()

    run(main, seed)
    with pytest.raises(LookupError):
        hp.current_item()


def test_user_code_that_is_called_with_no_item_has_none_in_hand(seeds: Callable[[int], list[int]]) -> None:
    """Sources, begin, wake, end and close, plain and async."""
    wrong: list[Any] = []

    def none(where: str) -> None:
        with contextlib.suppress(LookupError):
            wrong.append((where, hp.current_item()))

    def plain() -> Iterator[int]:
        for n in range(5):
            none("source")
            yield n

    async def awaited() -> AsyncIterator[int]:
        for n in range(5):
            none("async source")
            yield n

    class Plain:
        def begin(self, context: hp.Context) -> None:
            none("begin")
            context.wake_at(now())

        def process(self, value: int) -> int:
            return value

        def wake(self, time: float) -> Iterator[int]:
            none("wake")
            yield 1
            none("wake, later")

        def end(self) -> Iterator[int]:
            none("end")
            yield 1
            none("end, later")

        def close(self) -> None:
            none("close")

    class Async:
        async def begin(self, context: hp.Context) -> None:
            none("async begin")
            context.wake_at(now())

        async def process(self, value: int) -> int:
            return value

        async def wake(self, time: float) -> AsyncIterator[int]:
            none("async wake")
            yield 1
            none("async wake, later")

        async def end(self) -> AsyncIterator[int]:
            none("async end")
            yield 1
            none("async end, later")

        async def close(self) -> None:
            none("async close")

    for seed in seeds(5):
        topology = graph(
            n=hp.source(plain),
            m=hp.source(awaited),
            x=hp.process(Plain, "n", "m"),
            y=hp.process(Async, "n", "m"),
            out=hp.collect("x", "y"),
        )
        run(lambda topology=topology: joined(topology), seed)  # type: ignore[misc]
    assert wrong == []


def test_what_is_sent_with_no_item_in_hand_begins_at_its_node(seed: int) -> None:
    """`end` and `wake` number their outputs on their own."""
    seen: list[hp.Item] = []

    class Late:
        def begin(self, context: hp.Context) -> None:
            context.wake_at(now() + 1)

        def process(self, value: int) -> int:
            return value

        def wake(self, time: float) -> list[str]:
            return ["woken"]

        def end(self) -> list[str]:
            return ["one", "two"]

    topology = graph(
        n=hp.source(script([0, Pause(2), 1])),
        x=hp.process(Late, "n"),
        out=hp.sink(lambda _: seen.append(hp.current_item()), "x"),
    )
    run(lambda: joined(topology), seed)
    found = [(item.value, item.origin, item.trail.keys) for item in seen]
    assert found == [
        (0, ("n", 0, 0), ("n", "x")),
        ("woken", ("x", 0, 0), ("x",)),
        (1, ("n", 1, 0), ("n", "x")),
        ("one", ("x", 1, 0), ("x",)),
        ("two", ("x", 2, 0), ("x",)),
    ]
