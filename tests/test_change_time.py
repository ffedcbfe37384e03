"""Changes in time: turns, timeouts, what is forced, cancelled, drained, left or failing while a change is under way."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import attrs
import pytest
from running import graph, now, run

import hotplumb as hp
from hotplumb import testing

BAD = 2  # the value that user code fails on, or gets stuck with
FOR_EVER_S = 1e6


class Broken(Exception):
    """What user code raises here."""


class Leave(Exception):
    """What the body of a block raises here."""


def old(value: Any) -> Any:
    return value


def new(value: Any) -> Any:
    return value, "new"


def twice(value: Any) -> Any:
    return [value, value]


async def slow(seconds: float, value: Any) -> Any:
    await asyncio.sleep(seconds)
    return value


async def stick(value: int) -> int:
    """Take a second, and with one value for ever."""
    await asyncio.sleep(FOR_EVER_S if value == BAD else 1)
    return value


async def ticks() -> AsyncIterator[int]:
    number = 0
    while True:
        yield number
        number += 1
        await asyncio.sleep(1)


async def tocks() -> AsyncIterator[int]:
    async for number in ticks():
        yield 100 + number


def fail(value: int) -> int:
    if value == BAD:
        raise Broken(value)
    return value


@attrs.define(eq=False)
class Notes:
    """What has become of the processes of one run."""

    begun: Counter[str] = attrs.field(factory=Counter)
    closed: Counter[str] = attrs.field(factory=Counter)

    def check(self) -> None:
        """Each that was begun was closed, once."""
        assert self.begun == self.closed
        assert set(self.closed.values()) <= {1}


class Passing:
    """A process that passes on what it gets, and takes its time for what surrounds that."""

    def __init__(self, notes: Notes, name: str, begin_s: float = 0, snapshot_s: float = 0) -> None:
        self.notes = notes
        self.name = name
        self.begin_s = begin_s
        self.snapshot_s = snapshot_s

    async def begin(self, _: hp.Context) -> None:
        self.notes.begun[self.name] += 1
        await asyncio.sleep(self.begin_s)

    def process(self, value: Any) -> Any:
        return [value]

    async def snapshot(self) -> None:
        await asyncio.sleep(self.snapshot_s)

    def restore(self, _: None) -> None:
        pass

    def close(self) -> None:
        self.notes.closed[self.name] += 1


def passing(notes: Notes, name: str, *seconds: float) -> hp.Node:
    return hp.process(partial(Passing, notes, name, *seconds), "s")


def dead_of(plumbing: hp.Plumbing) -> list[tuple[Any, str]]:
    """The values of the dead letters, and why they are there."""
    return [(failure.item.value, failure.reason) for failure in plumbing.collected()["dead"]]


# --- turns


def test_changes_take_turns_in_the_order_they_were_asked_for(seed: int) -> None:
    """Each edits what reigns when its turn has come, and begins when the one before it is through."""

    async def main() -> None:
        topology = graph(s=hp.source(ticks), n=hp.map(partial(slow, 10), "s"), out=hp.collect("n"))
        async with hp.Plumbing(topology) as plumbing:
            await asyncio.sleep(1)
            tasks = []
            for i in range(4):
                node = hp.map(partial(slow, 11 + i), "s")
                tasks.append(asyncio.create_task(plumbing.replace("n", node)))
                await asyncio.sleep(0.1)
            times = []
            for i, task in enumerate(tasks):
                assert (await task).epoch == i + 1
                times.append(now())
            assert times[0] == 10
            assert times == sorted(times)
            assert plumbing.topology.active["n"] == hp.map(partial(slow, 14), "s")

    run(main, seed)


def test_edits_that_were_asked_for_at_once_do_not_undo_each_other(seed: int) -> None:
    """Ten tasks add a sink each: all are there."""

    async def main() -> None:
        async with hp.Plumbing(graph(s=hp.source(ticks), out=hp.collect("s"))) as plumbing:
            found = await asyncio.gather(*(plumbing.add(i, hp.collect("s")) for i in range(10)))
            assert sorted(change.epoch for change in found) == list(range(1, 11))
            assert set(plumbing.topology.sinks) == {"out", *range(10)}

    run(main, seed)


@pytest.mark.parametrize("own_s", [3, 30])
def test_the_time_of_a_change_runs_from_its_turn(own_s: int, seed: int) -> None:
    """It has waited for twenty seconds; what it takes itself is what counts."""

    async def main() -> None:
        topology = graph(
            s=hp.source([0]),
            n=hp.map(partial(slow, 20), "s"),
            t=hp.source([0]),
            m=hp.map(partial(slow, 20 + own_s), "t"),
            out=hp.collect("n", "m"),
        )
        async with hp.Plumbing(topology) as plumbing:
            await testing.settle()
            first = asyncio.create_task(plumbing.replace("n", hp.map(new, "s")))
            await asyncio.sleep(0)
            edited = graph(**{**dict(topology.given), "n": hp.map(new, "s"), "m": hp.map(new, "t")})
            second = asyncio.create_task(plumbing.apply(edited, timeout_s=5))
            if own_s == 3:
                assert (await second).epoch == 2
                assert now() == 23
            else:
                with pytest.raises(hp.ChangeTimeout):
                    await second
                assert now() == 25
            assert (await first).epoch == 1

    run(main, seed)


def test_a_change_that_need_not_wait_takes_no_time(seed: int) -> None:
    """Even where it is given none."""

    async def main() -> None:
        topology = graph(s=hp.source(ticks), n=hp.map(old, "s"), out=hp.collect("n"))
        async with hp.Plumbing(topology) as plumbing:
            await asyncio.sleep(2.5)
            change = await plumbing.apply(plumbing.topology.replace("n", hp.map(new, "s")), timeout_s=0)
            assert (change.epoch, now()) == (1, 2.5)

    run(main, seed)


# --- who holds a change up


@attrs.frozen
class Holder:
    """A graph in which one node holds a change up, and how it comes to do so."""

    topology: hp.Topology
    edit: dict[str, hp.Node]
    names: dict[str, tuple[str, ...]]
    """{key of who is named: words of why}."""
    is_withdrawn: bool = False
    pauses: str = ""

    async def come_about(self, plumbing: hp.Plumbing) -> None:
        if self.pauses:
            plumbing.pause(self.pauses)
        await asyncio.sleep(10)


def given(**nodes: hp.Node) -> hp.Topology:
    return graph(s=hp.source(range(5)), **nodes, dead=hp.collect(hp.ERRORS))


def below_a_flat_map(node: hp.Node, out: hp.Node | None = None) -> hp.Topology:
    """`f` is the head of every change of `n`, which is inside."""
    return given(f=hp.flat_map(twice, "s"), n=node, out=out or hp.collect("n"))


async def read_slowly(_: Any) -> None:
    await asyncio.sleep(FOR_EVER_S)


def one_by_one(value: int) -> Iterator[int]:
    yield from [value] * 10


HOLDERS: dict[str, Holder] = {
    "a busy head": Holder(
        given(n=hp.map(stick, "s"), out=hp.collect("n")),
        {"n": hp.map(new, "s")},
        {"n": ("busy in user code",)},
        is_withdrawn=True,
    ),
    "a head with calls under way": Holder(
        given(n=hp.map(stick, "s", concurrency=3), out=hp.collect("n")),
        {"n": hp.map(new, "s")},
        {"n": ("busy in user code",)},
        is_withdrawn=True,
    ),
    "a head in the middle of an item": Holder(
        given(n=hp.flat_map(one_by_one, "s"), out=hp.sink(read_slowly, "n", capacity=1)),
        {"n": hp.flat_map(twice, "s")},
        {"n": ("waits for a full link", '"out"')},
        is_withdrawn=True,
    ),
    "a busy node inside": Holder(
        below_a_flat_map(hp.map(stick, "f")), {"n": hp.map(new, "f")}, {"n": ("busy in user code",)}
    ),
    "a paused node inside": Holder(
        below_a_flat_map(hp.map(old, "f")), {"n": hp.map(new, "f")}, {"n": ("paused",)}, pauses="n"
    ),
    "a holding node inside": Holder(
        below_a_flat_map(hp.map(fail, "f", on_error=hp.hold())), {"n": hp.map(new, "f")}, {"n": ("hold", "Broken: 2")}
    ),
    "a node inside that waits to try again": Holder(
        below_a_flat_map(hp.map(fail, "f", on_error=hp.retry(3, delay_s=60))),
        {"n": hp.map(new, "f")},
        {"n": ("retrying", "Broken: 2")},
    ),
    "a node inside that waits for a slow reader": Holder(
        below_a_flat_map(hp.map(old, "f"), hp.sink(read_slowly, "n", capacity=1)),
        {"n": hp.map(new, "f")},
        {"n": ("waits for a full link", '"out"')},
    ),
    "a node inside above one that holds": Holder(
        given(
            f=hp.flat_map(twice, "s"),
            n=hp.map(old, "f"),
            h=hp.map(fail, "n", capacity=1, on_error=hp.hold()),
            out=hp.collect("h"),
        ),
        {"n": hp.map(new, "f")},
        {"n": ("waits for a full link", '"h"')},
    ),
    "a node inside above a paused one": Holder(
        given(f=hp.flat_map(twice, "s"), n=hp.map(old, "f"), h=hp.map(old, "n", capacity=1), out=hp.collect("h")),
        {"n": hp.map(new, "f")},
        {"n": ("waits for a full link", '"h"')},
        pauses="h",
    ),
}

every_holder = pytest.mark.parametrize("name", HOLDERS)


async def time_out(plumbing: hp.Plumbing, holder: Holder) -> hp.ChangeTimeout:
    await holder.come_about(plumbing)
    began = now()
    with pytest.raises(hp.ChangeTimeout) as raised:
        await plumbing.apply(plumbing.topology.update(holder.edit), timeout_s=5)
    assert now() == began + 5
    return raised.value


@every_holder
def test_who_holds_a_change_up_is_named(name: str, seed: int) -> None:
    """With the reason, in the exception and in its text; withdrawn, or still under way."""
    holder = HOLDERS[name]

    async def main() -> None:
        with suppress(Leave):
            async with hp.Plumbing(holder.topology) as plumbing:
                late = await time_out(plumbing, holder)
                assert set(late.waiting_for) >= set(holder.names)
                for key, words in holder.names.items():
                    assert all(word in late.waiting_for[key] for word in words), late.waiting_for
                    assert f'"{key}" {late.waiting_for[key]}' in str(late)
                assert late.withdrawn == holder.is_withdrawn
                assert ("withdrawn" in str(late)) == holder.is_withdrawn
                assert ("change.force" in str(late)) != holder.is_withdrawn
                assert (plumbing.epoch, late.change.epoch) == (0, 1)
                raise Leave

    run(main, seed)


@pytest.mark.parametrize("call", ["snapshot", "close", "restore", "end"])
def test_a_slow_hand_over_is_named(call: str, seed: int) -> None:
    """It is user code, and the node is busy in it; the change comes through when that has returned."""

    class Slow:
        def __init__(self, name: str) -> None:
            self.name = name

        async def take(self, name: str) -> None:
            await asyncio.sleep(30 if name == call and now() < 30 else 0)

        async def process(self, value: int) -> Any:
            return [(self.name, value)]

        async def snapshot(self) -> None:
            await self.take("snapshot")

        async def restore(self, _: None) -> None:
            await self.take("restore")

        async def end(self) -> None:
            await self.take("end")

        async def close(self) -> None:
            await self.take("close")

    async def main() -> None:
        topology = graph(s=hp.source(ticks), p=hp.process(partial(Slow, "old"), "s"), out=hp.collect("p"))
        async with hp.Plumbing(topology) as plumbing:
            await asyncio.sleep(1.5)
            node = hp.process(partial(Slow, "new"), "s", state="flush" if call == "end" else "carry")
            with pytest.raises(hp.ChangeTimeout) as late:
                await plumbing.apply(plumbing.topology.replace("p", node), timeout_s=5)
            assert not late.value.withdrawn
            assert set(late.value.waiting_for) == {"p"}
            assert "busy in user code" in late.value.waiting_for["p"]
            assert plumbing.statistics().nodes["p"].state == "busy"
            assert (await plumbing.add("out2", hp.collect("p"))).epoch == 2
            assert now() == 31.5
            await asyncio.sleep(1)
            got = plumbing.collected()["out"]
            assert got == [("old", 0), ("old", 1), *(("new", value) for value in range(2, len(got)))]

    run(main, seed)


@pytest.mark.parametrize("name", [name for name, holder in HOLDERS.items() if holder.is_withdrawn])
def test_a_withdrawn_change_has_left_no_trace(name: str, seed: int) -> None:
    """The next one finds the graph as it was; the same edit is welcome again, for it is not stale."""
    holder = HOLDERS[name]

    async def main() -> None:
        notes = Notes()
        with suppress(Leave):
            async with hp.Plumbing(holder.topology) as plumbing:
                before = plumbing.topology
                added = attrs.evolve(passing(notes, "p"), reads=("t",))
                sources = {"t": hp.source([7]), "u": hp.source(ticks)}
                edit = {**holder.edit, **sources, "p": added, "o2": hp.collect("p", "t", "u")}
                await holder.come_about(plumbing)
                edited = plumbing.topology.update(edit)
                for _ in range(2):
                    with pytest.raises(hp.ChangeTimeout) as late:
                        await plumbing.apply(edited, timeout_s=5)
                    assert late.value.withdrawn
                    await asyncio.sleep(1)
                    assert (plumbing.epoch, plumbing.topology) == (0, before)
                    assert set(plumbing.statistics().nodes) == set(before.active)
                    assert notes.begun == notes.closed
                assert (await plumbing.add("t", hp.source([8]))).epoch == 0
                assert (await plumbing.add("o2", hp.collect("t"))).epoch == 1
                await asyncio.sleep(1)
                assert plumbing.collected()["o2"] == [8]
                raise Leave
        assert notes.closed["p"] == 2

    run(main, seed)


def test_a_change_of_which_a_part_has_switched_is_not_withdrawn(seed: int) -> None:
    """It stays under way, comes through when the other part has switched, and only then the next one begins."""

    async def main() -> None:
        topology = graph(
            s=hp.source([0, 1]),
            n=hp.map(partial(slow, 20), "s"),
            t=hp.source(ticks),
            m=hp.map(old, "t"),
            out=hp.collect("n"),
            out2=hp.collect("m"),
        )
        async with hp.Plumbing(topology) as plumbing:
            await asyncio.sleep(5.5)
            edited = plumbing.topology.update({"n": hp.map(new, "s"), "m": hp.map(new, "t")})
            with pytest.raises(hp.ChangeTimeout) as late:
                await plumbing.apply(edited, timeout_s=5)
            assert not late.value.withdrawn
            assert set(late.value.waiting_for) == {"n"}
            following = asyncio.create_task(plumbing.add("out3", hp.collect("m")))
            await asyncio.sleep(5)
            assert (plumbing.epoch, following.done()) == (0, False)
            assert plumbing.collected()["out2"][-1] == (15, "new")
            assert (await following).epoch == 2
            assert now() == 20
            assert plumbing.topology.epoch_of("n") == 1
            await asyncio.sleep(1)
            assert plumbing.collected()["out"] == [0, (1, "new")]

    run(main, seed)


@pytest.mark.parametrize("name", ["a paused node inside", "a node inside above a paused one"])
def test_a_change_that_is_late_comes_through_when_a_paused_node_is_resumed(name: str, seed: int) -> None:
    """Nothing is lost; the change that was asked for meanwhile follows."""
    holder = HOLDERS[name]

    async def main() -> None:
        async with hp.Plumbing(holder.topology) as plumbing:
            late = await time_out(plumbing, holder)
            following = asyncio.create_task(plumbing.add("out2", hp.collect("n")))
            await asyncio.sleep(10)
            assert (plumbing.epoch, following.done()) == (0, False)
            plumbing.resume(holder.pauses)
            assert (await following).epoch == 2
            await late.change.wait_settled()
            assert late.change.topology.epoch_of("n") == 1
            await plumbing.join()
            assert plumbing.collected()["out"] == [value for value in range(5) for _ in range(2)]

    run(main, seed)


@pytest.mark.parametrize("then", ["discard", "retry", "force"])
@pytest.mark.parametrize("name", ["a holding node inside", "a node inside above one that holds"])
def test_a_change_is_held_up_by_a_node_that_holds_until_that_is_decided(name: str, then: str, seed: int) -> None:
    """Inside the region, or below it with a full link; each decision reaches it at once."""
    mended = False

    def fail_until_mended(value: int) -> int:
        if value == BAD and not mended:
            raise Broken(value)
        return value

    async def main() -> None:
        nonlocal mended
        key = "n" if name == "a holding node inside" else "h"
        topology = HOLDERS[name].topology
        node = attrs.evolve(topology.active[key], fn=fail_until_mended)
        holder = attrs.evolve(HOLDERS[name], topology=topology.replace(key, node))
        async with hp.Plumbing(holder.topology) as plumbing:
            late = await time_out(plumbing, holder)
            await asyncio.sleep(100)
            assert plumbing.epoch == 0
            mended = True
            if then == "force":
                late.change.force(key)
            else:
                getattr(plumbing, then)(key)
            await asyncio.sleep(1)
            assert plumbing.epoch == 1
            await plumbing.join()
            lost = [] if then == "retry" else [BAD]
            reason = {"discard": "discarded", "force": "given up"}.get(then)
            assert dead_of(plumbing) == [(value, reason) for value in lost]
            assert plumbing.collected()["out"] == sorted((Counter([*range(5), *range(5)]) - Counter(lost)).elements())

    run(main, seed)


# --- what is forced


async def late_in(plumbing: hp.Plumbing, edit: dict[str, hp.Node]) -> hp.Change:
    """A change that is late, and stays under way."""
    with pytest.raises(hp.ChangeTimeout) as late:
        await plumbing.apply(plumbing.topology.update(edit), timeout_s=5)
    assert not late.value.withdrawn
    change: hp.Change = late.value.change
    return change


async def deaf(value: int) -> int:
    """Go on for an hour with one value, whatever is thrown in."""
    until = now() + (3600 if value == BAD else 1)
    while now() < until:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(until - now())
    return value


async def give_stuck(value: int) -> AsyncIterator[int]:
    yield await stick(value)


class Sticking:
    """A process that gets stuck, and counts its closings."""

    closed = 0

    async def process(self, value: int) -> int:
        return await stick(value)

    def close(self) -> None:
        Sticking.closed += 1


FORCED: dict[str, Callable[[], hp.Node]] = {
    "map": lambda: hp.map(stick, "f"),
    "map in time": lambda: hp.map(stick, "f").within(FOR_EVER_S),
    "flat_map": lambda: hp.flat_map(give_stuck, "f"),
    "process": lambda: hp.process(Sticking, "f"),
    "held": lambda: hp.map(fail, "f", on_error=hp.hold()),
    "held when forced": lambda: hp.map(stick, "f", on_error=hp.hold()),
    "retried when forced": lambda: hp.map(stick, "f", on_error=hp.retry(100, delay_s=1)),
    "about to try again": lambda: hp.map(fail, "f", on_error=hp.retry(100, delay_s=10_000)),
    "stopping when forced": lambda: hp.map(stick, "f", on_error=hp.stop()),
}


@pytest.mark.parametrize("kind", FORCED)
def test_force_gives_up_what_a_node_inside_has_in_hand(kind: str, seed: int) -> None:
    """It goes to the dead letters, once, whatever the policy; what comes after it is processed as ever."""

    async def main() -> None:
        topology = graph(
            s=hp.source(range(5)),
            f=hp.flat_map(lambda value: [value], "s"),
            n=FORCED[kind](),
            out=hp.collect("n"),
            dead=hp.collect(hp.ERRORS),
        )
        async with hp.Plumbing(topology) as plumbing:
            await asyncio.sleep(10)
            change = await late_in(plumbing, {"n": hp.map(new, "f")})
            change.force("n")
            await asyncio.sleep(10)
            assert plumbing.epoch == 1
            await plumbing.join()
            assert dead_of(plumbing) == [(BAD, "given up")]
            assert plumbing.collected()["out"] == [0, 1, 3, 4]
            assert plumbing.statistics().nodes["n"].failed == 1

    run(main, seed)


@pytest.mark.parametrize("is_async", [False, True])
def test_force_in_the_middle_of_many_outputs(is_async: bool, seed: int) -> None:
    """What has left of them stays, what waits for room goes; what comes after has trails of its own."""

    def give(value: int) -> list[tuple[int, int]]:
        return [(value, n) for n in range(1 if value else 5)]

    async def give_async(value: int) -> AsyncIterator[tuple[int, int]]:
        for output in give(value):
            yield output

    class Giving:
        async def process(self, value: int) -> Any:
            return give(value)

    def giving(**options: Any) -> hp.Node:
        return hp.flat_map(give_async, "f", **options) if is_async else hp.process(Giving, "f", **options)

    async def main() -> None:
        seen: list[tuple[int, int]] = []

        async def see(value: tuple[int, int]) -> None:
            seen.append(value)
            assert hp.current_item().trail.origin.number == value[0]

        topology = graph(
            s=hp.source(range(3)),
            f=hp.flat_map(lambda value: [value], "s"),
            n=giving(),
            out=hp.sink(see, "n", capacity=2),
            dead=hp.collect(hp.ERRORS),
        )
        async with hp.Plumbing(topology) as plumbing:
            plumbing.pause("out")
            await asyncio.sleep(10)
            change = await late_in(plumbing, {"n": giving(capacity=7)})  # it keeps its process
            change.force("n")
            await testing.settle()
            plumbing.resume("out")
            await plumbing.join()
            assert dead_of(plumbing) == [(0, "given up")]
        assert seen == [(0, 0), (0, 1), *give(1), *give(2)]

    run(main, seed)


def test_force_gives_up_all_calls_under_way(seed: int) -> None:
    """Each item once, in order; what had come back behind the stuck ones is not lost."""

    async def main() -> None:
        async def stick_often(value: int) -> int:
            await asyncio.sleep(FOR_EVER_S if value % 2 else 1)
            return value

        topology = graph(
            s=hp.source(range(12)),
            f=hp.flat_map(lambda value: [value], "s"),
            n=hp.map(stick_often, "f", concurrency=8),
            out=hp.collect("n"),
            dead=hp.collect(hp.ERRORS),
        )
        async with hp.Plumbing(topology) as plumbing:
            await asyncio.sleep(10)
            change = await late_in(plumbing, {"n": hp.map(new, "f")})
            for _ in range(3):  # what waited behind those given up is under way then
                change.force("n")
                await asyncio.sleep(5)
            assert plumbing.epoch == 1
            await plumbing.join()
            assert dead_of(plumbing) == [(value, "given up") for value in range(1, 12, 2)]
            assert plumbing.collected()["out"] == list(range(0, 12, 2))

    run(main, seed)


def test_force_lets_a_paused_node_go_on(seed: int) -> None:
    """It has nothing in hand: nothing is given up."""

    async def main() -> None:
        async with hp.Plumbing(below_a_flat_map(hp.map(old, "f"))) as plumbing:
            plumbing.pause("n")
            await asyncio.sleep(1)
            change = await late_in(plumbing, {"n": hp.map(new, "f")})
            change.force("n")
            await plumbing.join()
            assert plumbing.epoch == 1
            assert dead_of(plumbing) == []
            assert plumbing.collected()["out"] == [value for value in range(5) for _ in range(2)]

    run(main, seed)


def test_force_on_a_node_with_nothing_in_hand_gives_nothing_up(seed: int) -> None:
    """Nor does it touch what that takes up later."""

    async def main() -> None:
        topology = graph(
            s=hp.source(testing.script([0, 1, testing.Pause(100), BAD, 3])),
            f=hp.flat_map(lambda value: [value], "s"),
            n=hp.map(partial(slow, 1), "f"),
            x=hp.map(partial(slow, 50), "f"),
            out=hp.collect("n", "x"),
            dead=hp.collect(hp.ERRORS),
        )
        async with hp.Plumbing(topology) as plumbing:
            await asyncio.sleep(10)
            change = await late_in(plumbing, {"n": hp.map(old, "f"), "x": hp.map(old, "f")})
            change.force("n")
            change.force("f")
            with pytest.raises(hp.UnknownKey):
                change.force("nobody")
            await plumbing.join()
            assert dead_of(plumbing) == []
            assert sorted(plumbing.collected()["out"]) == sorted([0, 1, BAD, 3] * 2)

    run(main, seed)


@pytest.mark.parametrize("concurrency", [1, 3])
def test_a_forced_call_that_swallows_its_cancellation_is_left_behind(concurrency: int, seed: int) -> None:
    """Named after a second, left behind after five; the change comes through, and the item is a dead letter."""

    async def main() -> None:
        topology = graph(
            s=hp.source(range(5)),
            f=hp.flat_map(lambda value: [value], "s"),
            n=hp.map(deaf, "f", concurrency=concurrency),
            out=hp.collect("n"),
            dead=hp.collect(hp.ERRORS),
        )
        with suppress(Leave):
            async with hp.Plumbing(topology) as plumbing:
                await asyncio.sleep(10)
                change = await late_in(plumbing, {"n": hp.map(old, "f")})
                began = now()
                change.force("n")
                async with asyncio.timeout(1000):
                    await change.wait_settled()
                assert now() - began < 10
                assert plumbing.epoch == 1
                await plumbing.join()
                assert dead_of(plumbing) == [(BAD, "given up")]
                assert plumbing.collected()["out"] == [0, 1, 3, 4]

    testing.run(main, seed=seed)  # not `run`: the call that is left behind is still there


def test_a_call_that_its_own_time_gives_up_lets_a_change_through(seed: int) -> None:
    """`.within` counts on while a change waits for the call."""

    async def main() -> None:
        topology = graph(
            s=hp.source(range(5)),
            n=hp.map(stick, "s", on_error=hp.discard()).within(60),
            out=hp.collect("n"),
            dead=hp.collect(hp.ERRORS),
        )
        async with hp.Plumbing(topology) as plumbing:
            await asyncio.sleep(10)
            change = await plumbing.replace("n", hp.map(new, "s"))
            assert (now(), change.epoch) == (62, 1)
            await plumbing.join()
            assert dead_of(plumbing) == [(BAD, "discarded")]
            assert plumbing.collected()["out"] == [0, 1, (3, "new"), (4, "new")]

    run(main, seed)


# --- who is cancelled


def test_a_change_that_is_cancelled_while_it_waits_for_its_turn_never_happens(seed: int) -> None:
    """Those behind it have theirs."""

    async def main() -> None:
        topology = graph(s=hp.source([0, 1]), n=hp.map(partial(slow, 10), "s"), out=hp.collect("n"))
        async with hp.Plumbing(topology) as plumbing:
            await asyncio.sleep(1)
            tasks = []
            for edit in (
                plumbing.replace("n", hp.map(new, "s")),
                plumbing.add("out2", hp.collect("n")),
                plumbing.add("out3", hp.collect("n")),
            ):
                tasks.append(asyncio.create_task(edit))
                await asyncio.sleep(0.1)
            first, second, third = tasks
            await asyncio.sleep(1)
            second.cancel()
            assert ((await first).epoch, (await third).epoch) == (1, 2)
            assert second.cancelled()
            assert set(plumbing.topology.sinks) == {"out", "out3"}

    run(main, seed)


@pytest.mark.parametrize("steps", range(8))
def test_a_change_that_is_cancelled_as_its_turn_comes_lets_the_next_one_have_it(
    steps: int, seeds: Callable[[int], list[int]]
) -> None:
    """At whichever step of the loop the cancellation comes."""

    async def main() -> None:
        topology = graph(s=hp.source([0, 1]), n=hp.map(partial(slow, 10), "s"), out=hp.collect("n"))
        async with hp.Plumbing(topology) as plumbing:
            await asyncio.sleep(1)
            first = asyncio.create_task(plumbing.replace("n", hp.map(new, "s")))
            await asyncio.sleep(0.1)
            second = asyncio.create_task(plumbing.add("out2", hp.collect("n")))
            await asyncio.sleep(0.1)
            third = asyncio.create_task(plumbing.add("out3", hp.collect("n")))
            await asyncio.sleep(10 - now())
            for _ in range(steps):
                await asyncio.sleep(0)
            second.cancel()
            async with asyncio.timeout(1000):
                await asyncio.wait([first, second, third])
            assert (first.result().epoch, third.result().topology.sinks[-1]) == (1, "out3")
            assert ("out2" in plumbing.topology.sinks) != second.cancelled()

    for seed in seeds(10):
        run(main, seed)


def test_a_change_that_is_cancelled_while_it_opens_is_withdrawn(seed: int) -> None:
    """What was begun, or was about to be, is closed; the graph has not noticed."""

    async def main() -> None:
        notes = Notes()
        topology = graph(s=hp.source(ticks), p=passing(notes, "old"), out=hp.collect("p"))
        async with hp.Plumbing(topology) as plumbing:
            await asyncio.sleep(1)
            edit = {"p": passing(notes, "new"), "p2": passing(notes, "slow", 3600), "out2": hp.collect("p2")}
            task = asyncio.create_task(plumbing.apply(plumbing.topology.update(edit)))
            await asyncio.sleep(1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert now() < 3
            assert notes.closed == Counter(["new", "slow"])
            assert (plumbing.epoch, plumbing.topology) == (0, topology)
            assert (await plumbing.add("out3", hp.collect("p"))).epoch == 1
        notes.check()

    run(main, seed)


class Reluctant:
    """Takes two seconds to begin, and to close."""

    def __init__(self, closed: list[str], name: str, fails: bool = False) -> None:
        self.closed, self.name, self.fails = closed, name, fails

    async def begin(self, _: hp.Context) -> None:
        await asyncio.sleep(2)
        if self.fails:
            raise Broken(self.name)

    def process(self, value: Any) -> Any:
        return value

    async def close(self) -> None:
        await asyncio.sleep(2)
        self.closed.append(self.name)


@pytest.mark.parametrize("after_s", [1, 3, 5])
@pytest.mark.parametrize("how", ["time-out", "cancelled"])
@pytest.mark.parametrize("first", ["good", "bad"])
def test_what_was_opened_is_closed_whatever_becomes_of_who_waits(first: str, how: str, after_s: int, seed: int) -> None:
    """Given up while it begins, or closes what will not be used: all of that is closed, and the graph runs on."""

    async def main() -> None:
        closed: list[str] = []
        nodes = {"good": hp.process(partial(Reluctant, closed, "good"), "s")}
        nodes["bad"] = hp.process(partial(Reluctant, closed, "bad", fails=True), "s")
        topology = graph(s=hp.source(ticks), out=hp.collect("s"))
        async with hp.Plumbing(topology) as plumbing:
            await asyncio.sleep(1)
            order = sorted(nodes, key=lambda name: name != first)
            edit = {name: nodes[name] for name in order} | {f"out {name}": hp.collect(name) for name in order}
            times_out = how == "time-out"
            applying = plumbing.apply(topology.update(edit), timeout_s=after_s if times_out else None)
            with pytest.raises((hp.ChangeError, TimeoutError)) as raised:
                await asyncio.wait_for(applying, None if times_out else after_s)
            is_in_time = times_out and after_s > 2
            assert isinstance(raised.value, hp.ChangeRejected) == is_in_time
            await asyncio.sleep(10)
            assert set(closed) == {"good", "bad"}
            assert len(closed) == 2
            assert (plumbing.epoch, plumbing.topology) == (0, topology)
            assert (await plumbing.add("out3", hp.collect("s"))).epoch == 1

    run(main, seed)


@pytest.mark.parametrize("at_s", [1.5, 15.0])
def test_a_change_that_is_cancelled_when_it_has_begun_completes(at_s: float, seed: int) -> None:
    """Whether or not a node has switched; the next one follows."""

    async def main() -> None:
        topology = graph(
            s=hp.source([0, 1, 2]),
            n=hp.map(partial(slow, 10), "s"),
            x=hp.map(partial(slow, 20), "n"),
            out=hp.collect("x"),
        )
        async with hp.Plumbing(topology) as plumbing:
            await asyncio.sleep(1)
            edited = plumbing.topology.update({"n": hp.map(new, "s"), "x": hp.map(old, "n")})
            task = asyncio.create_task(plumbing.apply(edited))
            await asyncio.sleep(at_s - now())
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert now() == at_s
            assert (await plumbing.add("out2", hp.collect("x"))).epoch == 2
            assert now() == 30
            assert plumbing.topology.epoch_of("n") == 1
            await plumbing.join()
            assert plumbing.collected()["out"] == [0, (1, "new"), (2, "new")]

    run(main, seed)


# --- what is stale


def test_the_second_of_two_from_one_base_is_stale_when_its_turn_comes(seed: int) -> None:
    """However long it has waited; an edit of what reigns then is welcome."""

    async def main() -> None:
        topology = graph(s=hp.source([0, 1]), n=hp.map(partial(slow, 10), "s"), out=hp.collect("n"))
        async with hp.Plumbing(topology) as plumbing:
            await asyncio.sleep(1)
            one = asyncio.create_task(plumbing.apply(plumbing.topology.replace("n", hp.map(new, "s"))))
            await asyncio.sleep(0)
            two = asyncio.create_task(plumbing.apply(plumbing.topology.add("out2", hp.collect("n"))))
            await asyncio.sleep(5)
            assert not two.done()
            with pytest.raises(hp.StaleTopology):
                await two
            assert (await one).epoch == 1
            assert (await plumbing.apply(plumbing.topology.add("out2", hp.collect("n")))).epoch == 2

    run(main, seed)


def test_an_inverse_is_stale_when_something_else_has_come_between(seed: int) -> None:
    """It would undo that too; in turn, each leads back."""

    async def main() -> None:
        topology = graph(s=hp.source(ticks), out=hp.collect("s"))
        async with hp.Plumbing(topology) as plumbing:
            first = await plumbing.add("out2", hp.collect("s"))
            second = await plumbing.add("out3", hp.collect("s"))
            with pytest.raises(hp.StaleTopology):
                await plumbing.apply(first.inverse)
            await plumbing.apply(second.inverse)
            assert set(plumbing.topology.sinks) == {"out", "out2"}
            assert plumbing.epoch == 3

    run(main, seed)


def test_a_topology_without_a_base_is_never_stale(seed: int) -> None:
    """It is what shall reign, whatever does."""

    async def main() -> None:
        def build(*sinks: str) -> hp.Topology:
            return graph(s=hp.source(ticks), **{sink: hp.collect("s") for sink in sinks})

        async with hp.Plumbing(build("a")) as plumbing:
            for sinks in (("a", "b"), ("b", "c"), ("a",)):
                await plumbing.apply(build(*sinks))
                assert plumbing.topology == build(*sinks)

    run(main, seed)


# --- user code that changes the graph it is part of


@attrs.define(eq=False)
class Inside:
    """User code that awaits something of its own plumbing, and keeps what that raised."""

    plumbing: hp.Plumbing | None = None
    method: str = "add"
    raised: list[BaseException] = attrs.field(factory=list)

    async def ask(self) -> None:
        """Once, await what must not be awaited here."""
        if self.plumbing is None or self.raised:
            return
        arguments: dict[str, tuple[Any, ...]] = {
            "add": ("out2", hp.collect("s")),
            "replace": ("s", hp.source([1])),
            "remove": ("out",),
            "refactor": (None,),
            "apply": (self.plumbing.topology,),
            "inject": ("s", 1),
        }
        try:
            await getattr(self.plumbing, self.method)(*arguments.get(self.method, ()))
        except BaseException as exc:
            self.raised.append(exc)

    async def pass_on(self, value: Any) -> Any:
        await self.ask()
        return value

    async def give(self, value: Any) -> AsyncIterator[Any]:
        await self.ask()
        yield value

    async def step(self, state: int, value: Any) -> Any:
        await self.ask()
        return state, [value]

    async def produce(self) -> AsyncIterator[int]:
        for i in range(3):
            await asyncio.sleep(1)
            await self.ask()
            yield i


class Asking:
    """A process that asks in one of its methods."""

    def __init__(self, inside: Inside, where: str) -> None:
        self.inside = inside
        self.where = where
        self.context: hp.Context | None = None

    async def _ask(self, where: str) -> None:
        if where == self.where:
            await self.inside.ask()

    async def begin(self, context: hp.Context) -> None:
        context.wake_at(1.5)
        await self._ask("begin")

    async def process(self, value: Any) -> Any:
        await self._ask("process")
        return value

    async def wake(self, _: float) -> None:
        await self._ask("wake")

    async def end(self) -> None:
        await self._ask("end")

    async def close(self) -> None:
        await self._ask("close")


PLACES: dict[str, Callable[[Inside], hp.Node]] = {
    "map": lambda inside: hp.map(inside.pass_on, "s"),
    "concurrent map": lambda inside: hp.map(inside.pass_on, "s", concurrency=3),
    "map in time": lambda inside: hp.map(inside.pass_on, "s").within(9),
    "concurrent map in time": lambda inside: hp.map(inside.pass_on, "s", concurrency=3).within(9),
    "filter": lambda inside: hp.filter(inside.pass_on, "s"),
    "flat_map": lambda inside: hp.flat_map(inside.give, "s"),
    "stateful": lambda inside: hp.stateful(inside.step, 0, "s"),
    "process": lambda inside: hp.process(lambda: Asking(inside, "process"), "s"),
    "wake": lambda inside: hp.process(lambda: Asking(inside, "wake"), "s"),
    "end": lambda inside: hp.process(lambda: Asking(inside, "end"), "s"),
    "close": lambda inside: hp.process(lambda: Asking(inside, "close"), "s"),
}

METHODS = ["add", "replace", "remove", "refactor", "apply", "join", "drain", "inject"]


def check_refused(inside: Inside) -> None:
    assert [type(exc) for exc in inside.raised] == [hp.UsageError]
    assert f"asyncio.create_task(plumbing.{inside.method}(...))" in str(inside.raised[0])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("place", PLACES)
def test_a_node_that_awaits_its_own_plumbing_is_told_what_to_write(place: str, method: str, seed: int) -> None:
    """It would wait for itself: refused at once, and the graph goes on."""

    async def main() -> None:
        inside = Inside(method=method)
        topology = graph(
            s=hp.source(testing.script([0, testing.Pause(2), 1])), n=PLACES[place](inside), out=hp.sink(old, "n")
        )
        async with hp.Plumbing(topology) as plumbing:
            await asyncio.sleep(1)
            inside.plumbing = plumbing
            await plumbing.join()
            assert plumbing.epoch == 0
        check_refused(inside)

    run(main, seed)


@pytest.mark.parametrize("place", ["sink", "source", "begin"])
def test_a_node_at_either_end_is_told_too(place: str, seed: int) -> None:
    """A sink, an async source, and the `begin` of a process that a change opens."""

    async def main() -> None:
        inside = Inside()
        source = hp.source(inside.produce if place == "source" else testing.script([0, testing.Pause(2), 1]))
        out = hp.sink(inside.pass_on, "s") if place == "sink" else hp.collect("s")
        async with hp.Plumbing(graph(s=source, out=out)) as plumbing:
            inside.plumbing = plumbing
            if place == "begin":
                asking = hp.process(lambda: Asking(inside, "begin"), "s")
                await plumbing.apply(plumbing.topology.update({"n": asking, "out2": hp.collect("n")}))
            await plumbing.join()
        check_refused(inside)

    run(main, seed)


@pytest.mark.parametrize("is_async", [True, False])
def test_a_task_that_a_node_starts_may_change_the_graph(is_async: bool, seed: int) -> None:
    """The form that the error shows works, also for the node itself."""

    async def main() -> None:
        tasks: list[asyncio.Task[hp.Change]] = []

        def start() -> None:
            if not tasks:
                tasks.append(asyncio.create_task(plumbing.replace("n", hp.map(new, "s"))))

        def change(value: int) -> int:
            start()
            return value

        async def change_later(value: int) -> int:
            start()
            await asyncio.sleep(1)
            return value

        node = hp.map(change_later if is_async else change, "s")
        topology = graph(s=hp.source(testing.script([0, testing.Pause(10), 1])), n=node, out=hp.collect("n"))
        async with hp.Plumbing(topology) as plumbing:
            await plumbing.join()
            assert (await tasks[0]).epoch == 1
            assert plumbing.collected()["out"] == [0, (1, "new")]

    run(main, seed)


# --- draining and leaving


@pytest.mark.parametrize("way", ["drain", "leave"])
def test_draining_lets_a_change_under_way_complete(way: str, seed: int) -> None:
    """What is ahead of it is processed by the old node, what is behind by the new."""

    async def main() -> None:
        got: list[Any] = []
        topology = graph(s=hp.source(ticks), n=hp.map(partial(slow, 10), "s"), out=hp.sink(got.append, "n"))
        async with hp.Plumbing(topology) as plumbing:
            await asyncio.sleep(5.5)
            task = asyncio.create_task(plumbing.replace("n", hp.map(new, "s")))
            await asyncio.sleep(0)
            if way == "drain":
                await plumbing.drain()
                assert plumbing.epoch == 1
        assert (await task).epoch == 1
        assert got == [0, *((value, "new") for value in range(1, 6))]

    run(main, seed)


@pytest.mark.parametrize("way", ["drain", "leave", "join"])
def test_what_ends_lets_a_change_that_opens_complete(way: str, seed: int) -> None:
    """A slow `begin` of a graph that has nothing more to do."""

    async def main() -> None:
        notes = Notes()
        topology = graph(s=hp.source([0]), p=passing(notes, "old"), out=hp.collect("p"))
        async with hp.Plumbing(topology) as plumbing:
            await asyncio.sleep(1)
            task = asyncio.create_task(plumbing.replace("p", passing(notes, "new", 10)))
            await asyncio.sleep(1)
            if way == "drain":
                await plumbing.drain()
            elif way == "join":
                await plumbing.join()
        assert (await task).epoch == 1
        notes.check()

    run(main, seed)


def test_a_stop_while_a_change_opens_lets_it_complete(seed: int) -> None:
    """As leaving the block does."""

    async def main() -> None:
        notes = Notes()
        plumbing = await hp.start(graph(s=hp.source(ticks), p=passing(notes, "old"), out=hp.collect("p")))
        await asyncio.sleep(1)
        task = asyncio.create_task(plumbing.replace("p", passing(notes, "new", 10)))
        await asyncio.sleep(1)
        await plumbing.stop()
        assert (await task).epoch == 1
        notes.check()

    run(main, seed)


def test_a_stop_while_changes_wait_for_their_turn_lets_all_complete_or_refuses_them(seed: int) -> None:
    """None of them is left waiting."""

    async def main() -> None:
        notes = Notes()
        plumbing = await hp.start(graph(s=hp.source(ticks), p=passing(notes, "p0"), out=hp.collect("p")))
        await asyncio.sleep(1)
        tasks = [asyncio.create_task(plumbing.replace("p", passing(notes, f"p{i}", 10))) for i in range(1, 4)]
        await asyncio.sleep(1)
        await plumbing.stop()
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            assert isinstance(outcome, hp.Change | hp.UsageError)
        notes.check()

    run(main, seed)


EDITS_WHILE_DRAINING: dict[str, Callable[[hp.Topology], hp.Topology]] = {
    "a map": lambda topology: topology.replace("n", hp.map(new, "s")),
    "the source": lambda topology: topology.replace("s", hp.source(tocks)),
    "an added source": lambda topology: topology.update({"t": hp.source(ticks), "out2": hp.collect("t")}),
    "an added plain source": lambda topology: topology.update({"t": hp.source(iter(int, 1)), "out2": hp.collect("t")}),
    "a reader of the source": lambda topology: topology.add("out2", hp.collect("s")),
    "a removed sink": lambda topology: topology.remove("other"),
}


@pytest.mark.parametrize("name", EDITS_WHILE_DRAINING)
def test_a_change_while_draining_comes_through_and_adds_nothing_from_the_sources(name: str, seed: int) -> None:
    """Draining ends all the same, with all that was under way processed once."""

    async def main() -> None:
        got: list[Any] = []
        topology = graph(
            s=hp.source(ticks),
            n=hp.map(partial(slow, 5), "s"),
            out=hp.sink(got.append, "n"),
            other=hp.sink(old, "s"),
        )
        async with asyncio.timeout(1000), hp.Plumbing(topology) as plumbing:
            await asyncio.sleep(4.5)
            draining = asyncio.create_task(plumbing.drain())
            await asyncio.sleep(1)
            change = await plumbing.apply(EDITS_WHILE_DRAINING[name](plumbing.topology))
            assert change.epoch == plumbing.epoch == 1
            await draining
            assert plumbing.collected().get("out2", []) == []
        assert [value[0] if isinstance(value, tuple) else value for value in got] == list(range(5))

    run(main, seed)


def test_a_source_that_is_being_replaced_when_draining_begins_gives_nothing_new(seed: int) -> None:
    """The new one takes its place while it drains, and is drained as well."""

    async def main() -> None:
        got: list[Any] = []

        async def take(value: Any) -> None:
            await asyncio.sleep(5)
            got.append(value)

        async def burst() -> AsyncIterator[str]:
            for i in range(4):
                yield f"s{i}"
            await asyncio.sleep(FOR_EVER_S)

        topology = graph(s=hp.source(burst), out=hp.sink(take, "s", capacity=1))
        async with asyncio.timeout(1000), hp.Plumbing(topology) as plumbing:
            await asyncio.sleep(1)
            task = asyncio.create_task(plumbing.replace("s", hp.source(ticks)))
            await asyncio.sleep(0)
            await plumbing.drain()
            assert (await task).epoch == 1
        assert [value for value in got if isinstance(value, str)] == [
            f"s{i}" for i in range(sum(isinstance(value, str) for value in got))
        ]
        assert len(got) < 10

    run(main, seed)


# {the phase that a change is in for an hour: its edit of the graph below}
PHASES: dict[str, Callable[[Notes], dict[str, hp.Node]]] = {
    "open": lambda notes: {"p": passing(notes, "new", 3600), "p2": passing(notes, "other"), "out2": hp.collect("p2")},
    "mark": lambda notes: {"n": hp.map(new, "s"), "p": passing(notes, "new")},
    "hand over": lambda notes: {"p": passing(notes, "new")},
}


def in_phases(notes: Notes) -> hp.Topology:
    """A graph whose `n` is busy for long, and whose `p` is slow to hand over."""
    return graph(
        s=hp.source(ticks),
        p=passing(notes, "old", 0, 3600),
        n=hp.map(partial(slow, 3600), "s"),
        out=hp.collect("p"),
        out3=hp.collect("n"),
    )


@pytest.mark.parametrize("how", ["raise", "cancel", "fail"])
@pytest.mark.parametrize("phase", PHASES)
def test_a_block_that_is_left_at_once_closes_all_of_a_change(phase: str, how: str, seed: int) -> None:
    """By an exception, a cancellation or a failing node: each process is closed once, and who waits is told."""

    async def main() -> None:
        notes = Notes()
        tasks: list[asyncio.Task[hp.Change]] = []
        topology = in_phases(notes).update(
            {"t": hp.source(testing.script([testing.Pause(20), BAD])), "bad": hp.sink(fail, "t")}
        )

        async def block() -> None:
            async with hp.Plumbing(topology) as plumbing:
                await asyncio.sleep(1)
                edited = plumbing.topology.update(PHASES[phase](notes))
                tasks.append(asyncio.create_task(plumbing.apply(edited)))
                await asyncio.sleep(1)
                tasks.append(asyncio.create_task(plumbing.add("later", hp.collect("s"))))
                await asyncio.sleep(FOR_EVER_S if how == "fail" else 10)
                if how == "raise":
                    raise Leave
                await asyncio.sleep(FOR_EVER_S)

        task = asyncio.create_task(block())
        await asyncio.sleep(15)
        if how == "cancel":
            task.cancel()
        await asyncio.wait([task])
        assert now() < 30
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(outcome, hp.NodeError if how == "fail" else hp.UsageError) for outcome in outcomes), (
            outcomes
        )
        outcome = asyncio.CancelledError() if task.cancelled() else task.exception()
        assert isinstance(outcome, {"raise": Leave, "cancel": asyncio.CancelledError, "fail": hp.NodeError}[how])
        notes.check()

    run(main, seed)


@pytest.mark.parametrize("fails_after_s", [0.001, 0.01, 0.011, 0.02])
def test_a_failure_while_a_change_opens_is_raised_from_apply(
    fails_after_s: float, seeds: Callable[[int], list[int]]
) -> None:
    """In a begin, as it returns, in what closes it again: whoever waits in the block is told, and the block is left."""

    async def main() -> None:
        class Closing(Passing):
            async def close(self) -> None:  # type: ignore[override]
                await asyncio.sleep(0.01)
                super().close()

        async def fail_later(value: float) -> None:
            await asyncio.sleep(0.5 + value)
            raise Broken(value)

        notes = Notes()
        topology = graph(s=hp.source([fails_after_s]), out=hp.sink(fail_later, "s"))

        async def block() -> None:
            async with hp.Plumbing(topology) as plumbing:
                await asyncio.sleep(0.5)
                edit = {"p": hp.process(partial(Closing, notes, "new", 0.01), "s"), "out2": hp.collect("p")}
                await plumbing.apply(plumbing.topology.update(edit))
                await asyncio.sleep(FOR_EVER_S)

        async with asyncio.timeout(100):
            with pytest.raises(hp.NodeError):
                await block()
        notes.check()

    for seed in seeds(10):
        run(main, seed)


def test_a_failure_during_a_change_is_raised_from_apply(seed: int) -> None:
    """The error of the node itself, not a group, and from the block as well."""

    async def main() -> None:
        topology = graph(s=hp.source(range(5)), n=hp.map(stick_and_fail, "s"), out=hp.collect("n"))
        raised: list[hp.NodeError] = []

        async def block() -> None:
            async with hp.Plumbing(topology) as plumbing:
                await asyncio.sleep(2.5)
                for edit in (plumbing.replace("n", hp.map(new, "s")), plumbing.add("out2", hp.collect("n"))):
                    with pytest.raises(hp.NodeError) as from_edit:
                        await edit
                    raised.append(from_edit.value)

        with pytest.raises(hp.NodeError, match="failed on 2") as from_block:
            await block()
        assert raised == [from_block.value] * 2
        assert isinstance(from_block.value.__cause__, Broken)

    run(main, seed)


async def stick_and_fail(value: int) -> int:
    await asyncio.sleep(1)
    return fail(value)


def test_a_plumbing_that_has_stopped_refuses_changes(seed: int) -> None:
    """Before its start, too."""

    async def main() -> None:
        topology = graph(s=hp.source([0]), out=hp.collect("s"))
        plumbing = hp.Plumbing(topology)
        with pytest.raises(hp.UsageError, match="has not been started"):
            await plumbing.apply(topology)
        async with plumbing:
            pass
        with pytest.raises(hp.UsageError, match="has stopped"):
            await plumbing.add("out2", hp.collect("s"))

    run(main, seed)


# --- settling


def test_a_change_has_settled_when_the_last_old_item_is_through(seed: int) -> None:
    """`apply` returns when the nodes have switched; what the old one made is still under way below."""

    async def main() -> None:
        topology = graph(
            s=hp.source(ticks),
            n=hp.map(old, "s"),
            x=hp.map(partial(slow, 10), "n"),
            y=hp.map(old, "x"),
            out=hp.collect("y"),
        )
        async with hp.Plumbing(topology) as plumbing:
            await asyncio.sleep(5.5)
            change = await plumbing.replace("n", hp.map(new, "s"))
            assert now() == 5.5
            await change.wait_settled()
            assert 60 <= now() < 70
            assert plumbing.collected()["out"] == list(range(6))
            await change.wait_settled()
            assert now() < 70

    run(main, seed)


def test_a_change_settles_at_once_where_nothing_is_below_or_under_way(seed: int) -> None:
    """A sink, a node nobody feeds, a graph that has ended."""

    async def main() -> None:
        topology = graph(s=hp.source([1]), n=hp.map(old, "s"), out=hp.collect("n"))
        async with hp.Plumbing(topology) as plumbing:
            await plumbing.join()
            began = now()
            for edit in ({"out": hp.collect("n", "s")}, {"n": hp.map(new, "s")}, {"s": hp.source([2])}):
                change = await plumbing.apply(plumbing.topology.update(edit))
                await change.wait_settled()
            assert now() == began

    run(main, seed)


def test_a_change_settles_though_its_source_is_just_giving_a_value(seeds: Callable[[int], list[int]]) -> None:
    """It passes the marker on when it waits for the next one, however long that is."""

    async def main() -> None:
        given: asyncio.Queue[int] = asyncio.Queue()

        async def produce() -> AsyncIterator[int]:
            while True:
                yield await given.get()

        async with hp.Plumbing(graph(s=hp.source(produce), n=hp.map(old, "s"), out=hp.collect("n"))) as plumbing:
            for number in range(4):
                given.put_nowait(number)
                await testing.settle()
            given.put_nowait(4)
            change = await plumbing.add("more", hp.collect("s"))
            async with asyncio.timeout(1):
                await change.wait_settled()

    for seed in seeds(20):
        run(main, seed)


@pytest.mark.parametrize("who", ["x", "y"])
def test_a_paused_node_below_holds_up_the_settling_alone(who: str, seed: int) -> None:
    """Not the change, nor the next one; markers wait behind what it has not read."""

    async def main() -> None:
        topology = graph(
            s=hp.source(ticks), n=hp.map(old, "s"), x=hp.map(old, "n"), y=hp.map(old, "x"), out=hp.collect("y")
        )
        async with hp.Plumbing(topology) as plumbing:
            await asyncio.sleep(2.5)
            plumbing.pause(who)
            await asyncio.sleep(2)
            changes = [await plumbing.replace("n", hp.map(node, "s")) for node in (new, old, new)]
            assert now() == 4.5
            waiting = [asyncio.create_task(change.wait_settled()) for change in changes]
            await asyncio.sleep(10)
            assert not any(task.done() for task in waiting)
            plumbing.resume(who)
            await asyncio.wait(waiting, timeout=0.4)
            assert all(task.done() for task in waiting)

    run(main, seed)


def test_changes_settle_in_their_order_however_fast_they_follow(seeds: Callable[[int], list[int]]) -> None:
    """And none before all that met the old version of what it touched has arrived."""

    async def main() -> None:
        late: list[tuple[int, int]] = []  # (epoch of a hop, latest epoch that has settled)
        settled = [0]

        def see(_: Any) -> None:
            for hop in hp.current_item().trail.hops:
                if hop.key == "n" and hop.epoch < settled[-1]:
                    late.append((hop.epoch, settled[-1]))

        async def note(change: hp.Change) -> None:
            await change.wait_settled()
            settled.append(change.epoch)

        values = [entry for i in range(50) for entry in (i, testing.Pause(0.001))]
        topology = graph(
            s=hp.source(testing.script(values)),
            n=hp.map(old, "s"),
            x=hp.map(partial(slow, 0.002), "n", capacity=3),
            y=hp.map(partial(slow, 0.003), "n", capacity=2),
            z=hp.merge("x", "y"),
            out=hp.sink(see, "z"),
        )
        async with hp.Plumbing(topology) as plumbing:
            tasks = []
            for i in range(6):
                await asyncio.sleep(0.004)
                change = await plumbing.replace("n", hp.map(new if i % 2 else old, "s", capacity=10 + i))
                tasks.append(asyncio.create_task(note(change)))
            await plumbing.join()
            async with asyncio.timeout(10):
                await asyncio.wait(tasks)
        assert late == []
        assert settled == [0, 1, 2, 3, 4, 5, 6]

    for seed in seeds(20):
        run(main, seed)


def test_who_waits_for_a_change_to_settle_is_told_of_a_failure(seed: int) -> None:
    """And of the end of the plumbing."""

    async def main() -> None:
        topology = graph(s=hp.source(range(5)), n=hp.map(old, "s"), x=hp.map(stick_and_fail, "n"), out=hp.collect("x"))
        with suppress(hp.NodeError):
            async with hp.Plumbing(topology) as plumbing:
                await asyncio.sleep(0.5)
                change = await plumbing.replace("n", hp.map(new, "s"))
                with pytest.raises(hp.NodeError, match="failed on 2"):
                    await change.wait_settled()
        assert now() == 3

    run(main, seed)


def test_a_change_has_settled_when_the_nodes_below_it_are_gone(seed: int) -> None:
    """A later change has removed them."""

    async def main() -> None:
        topology = graph(
            s=hp.source(ticks),
            n=hp.map(old, "s"),
            x=hp.map(partial(slow, 50), "n"),
            out=hp.collect("x"),
            o2=hp.collect("n"),
        )
        async with hp.Plumbing(topology) as plumbing:
            await asyncio.sleep(2.5)
            change = await plumbing.replace("n", hp.map(new, "s"))
            waiting = asyncio.create_task(change.wait_settled())
            await asyncio.sleep(1)
            assert not waiting.done()
            await plumbing.remove("out")
            async with asyncio.timeout(1):
                await waiting
            assert change.touched == {"n"}

    run(main, seed)
