"""How one process takes another's place: which calls are made, in which order, and what happens where one raises.

A source gives 0 and 1, waits for a second, and gives 2 and 3; half a second after the start the process between it and
a sink is replaced.  Processes count what they are given, and write down what is called on them.
"""

from __future__ import annotations

import asyncio
import gc
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import attrs
import pytest
from running import graph, now, run

import hotplumb as hp
from hotplumb import testing

AT_S = 0.5
LATER_S = 0.01  # how long an async call takes
PATIENCE_S = 1000.0  # virtual; what takes longer never ends

GIVEN = testing.script([0, 1, testing.Pause(1), 2, 3])
REST = testing.script([testing.Pause(1), 2, 3])


class Broken(Exception):
    """What user code raises here."""


@attrs.define(eq=False)
class Notes:
    """What is called in one run, and what is to raise."""

    calls: list[str] = attrs.field(factory=list)
    failing: set[str] = attrs.field(factory=set)
    """`old close` and the like; a call that is not in it any more is mended."""
    hung: list[str] = attrs.field(factory=list)
    """The call that did not return."""

    def note(self, call: str) -> None:
        self.calls.append(call)
        if call in self.failing:
            raise Broken(call)

    @property
    def closed(self) -> Counter[str]:
        """How often each process was closed."""
        return Counter(call.split()[0] for call in self.calls if call.endswith(" close"))

    def double(self, state: int) -> int:
        """What makes a new state of an old one."""
        self.note("double")
        return 2 * state


class Plain:
    """Counts; gives `(name, value, count)` for a value, and `(name, "end", count)` at the end."""

    def __init__(self, notes: Notes, name: str) -> None:
        self.notes = notes
        self.name = name
        self.count = 0

    def begin(self, _: hp.Context) -> Any:
        self.notes.note(f"{self.name} begin")

    def process(self, value: int) -> Any:
        self.count += 1
        return [(self.name, value, self.count)]

    def snapshot(self) -> Any:
        self.notes.note(f"{self.name} snapshot")
        return self.count

    def restore(self, state: int) -> Any:
        self.count = state  # where it raises, it has done half of it
        self.notes.note(f"{self.name} restore")

    def end(self) -> Any:
        self.notes.note(f"{self.name} end")
        return [(self.name, "end", self.count)]

    def close(self) -> Any:
        self.notes.note(f"{self.name} close")


class StateLater(Plain):
    """What hands the state over is async, all else plain."""

    async def snapshot(self) -> Any:
        await asyncio.sleep(LATER_S)
        return super().snapshot()

    async def restore(self, state: int) -> None:
        await asyncio.sleep(LATER_S)
        super().restore(state)


class AroundLater(StateLater):
    """What surrounds the work is async, the work is plain."""

    async def begin(self, context: hp.Context) -> None:
        await asyncio.sleep(LATER_S)
        super().begin(context)

    async def close(self) -> None:
        await asyncio.sleep(LATER_S)
        super().close()


class Later(AroundLater):
    """All of it is async."""

    async def process(self, value: int) -> Any:
        await asyncio.sleep(LATER_S)
        return super().process(value)

    async def end(self) -> Any:
        await asyncio.sleep(LATER_S)
        return super().end()


FLAVOURS: dict[str, type[Plain]] = {
    "plain": Plain,
    "async state": StateLater,
    "async around": AroundLater,
    "async": Later,
}

every_flavour = pytest.mark.parametrize("flavour", FLAVOURS)


def node_of(flavour: str, notes: Notes, name: str, state: Any = "carry") -> hp.Node:
    return hp.process(partial(FLAVOURS[flavour], notes, name), "s", state=state)


def state_of(how: str, notes: Notes) -> Any:
    return notes.double if how == "function" else how


OLD = [("old", 0, 1), ("old", 1, 2)]

# {state=: (the calls of the change, what becomes of the state, what the sink gets beside `OLD`)}
STATES: dict[str, tuple[list[str], str, list[Any]]] = {
    "carry": (
        ["new begin", "old snapshot", "old close", "new restore"],
        "carried",
        [("new", 2, 3), ("new", 3, 4), ("new", "end", 4)],
    ),
    "fresh": (["new begin", "old close"], "fresh", [("new", 2, 1), ("new", 3, 2), ("new", "end", 2)]),
    "flush": (
        ["new begin", "old end", "old close"],
        "flushed",
        [("old", "end", 2), ("new", 2, 1), ("new", 3, 2), ("new", "end", 2)],
    ),
    "function": (
        ["new begin", "old snapshot", "old close", "double", "new restore"],
        "carried",
        [("new", 2, 5), ("new", 3, 6), ("new", "end", 6)],
    ),
}

every_state = pytest.mark.parametrize("how", STATES)


# --- the table


@every_state
@every_flavour
def test_the_calls_of_a_handover(flavour: str, how: str, seed: int) -> None:
    """In their order, each once; at the end of the run the new one ends and is closed, once too."""

    async def main() -> None:
        notes = Notes()
        topology = graph(s=hp.source(GIVEN), p=node_of(flavour, notes, "old"), out=hp.collect("p"))
        async with hp.Plumbing(topology) as plumbing:
            await asyncio.sleep(AT_S)
            change = await plumbing.replace("p", node_of(flavour, notes, "new", state_of(how, notes)))
            calls, state, got = STATES[how]
            assert notes.calls == ["old begin", *calls]
            assert change.state == {"p": state}
            await plumbing.join()
            assert plumbing.collected()["out"] == [*OLD, *got]
        assert notes.calls == ["old begin", *calls, "new end", "new close"]

    run(main, seed)


@pytest.mark.parametrize("new", FLAVOURS)
@pytest.mark.parametrize("old", FLAVOURS)
def test_any_flavour_hands_its_state_to_any_other(old: str, new: str, seed: int) -> None:
    """Plain or async, whole or in part."""

    async def main() -> None:
        notes = Notes()
        topology = graph(s=hp.source(GIVEN), p=node_of(old, notes, "old"), out=hp.collect("p"))
        async with hp.Plumbing(topology) as plumbing:
            await asyncio.sleep(AT_S)
            await plumbing.replace("p", node_of(new, notes, "new"))
            assert notes.calls == ["old begin", *STATES["carry"][0]]
            await plumbing.join()
            assert plumbing.collected()["out"] == [*OLD, *STATES["carry"][2]]

    run(main, seed)


class Bare:
    """Has nothing but `process`."""

    def __init__(self, name: str) -> None:
        self.name = name

    def process(self, value: int) -> Any:
        return [(self.name, value, 0)]


@every_state
@every_flavour
def test_where_the_new_one_cannot_restore_it_begins_without_a_state(flavour: str, how: str, seed: int) -> None:
    """With `carry` the old one is then not even asked for it; the change says so."""

    async def main() -> None:
        notes = Notes()
        topology = graph(s=hp.source(GIVEN), p=node_of(flavour, notes, "old"), out=hp.collect("p"))
        async with hp.Plumbing(topology) as plumbing:
            await asyncio.sleep(AT_S)
            change = await plumbing.replace("p", hp.process(partial(Bare, "new"), "s", state=state_of(how, notes)))
            assert change.state == {"p": "flushed" if how == "flush" else "fresh"}
            if how != "function":
                assert notes.calls == ["old begin", *(["old end"] if how == "flush" else []), "old close"]
            await plumbing.join()
            flushed = [("old", "end", 2)] if how == "flush" else []
            assert plumbing.collected()["out"] == [*OLD, *flushed, ("new", 2, 0), ("new", 3, 0)]

    run(main, seed)


@every_state
@every_flavour
def test_where_the_old_one_has_no_snapshot_the_new_one_begins_without_a_state(
    flavour: str, how: str, seed: int
) -> None:
    """`restore` is not called, nor is a function that has nothing to work on."""

    async def main() -> None:
        notes = Notes()
        topology = graph(s=hp.source(GIVEN), p=hp.process(partial(Bare, "old"), "s"), out=hp.collect("p"))
        async with hp.Plumbing(topology) as plumbing:
            await asyncio.sleep(AT_S)
            change = await plumbing.replace("p", node_of(flavour, notes, "new", state_of(how, notes)))
            assert change.state == {"p": "fresh"}
            await plumbing.join()
            new = [("new", 2, 1), ("new", 3, 2), ("new", "end", 2)]
            assert plumbing.collected()["out"] == [("old", 0, 0), ("old", 1, 0), *new]
        assert notes.calls == ["new begin", "new end", "new close"]

    run(main, seed)


def count(name: str, so_far: int, value: int) -> Any:
    return so_far + 1, [(name, value, so_far + 1)]


async def count_later(name: str, so_far: int, value: int) -> Any:
    await asyncio.sleep(LATER_S)
    return count(name, so_far, value)


def double(so_far: int) -> int:
    return 2 * so_far


STATEFULS: dict[str, tuple[int, Any, str, int]] = {
    # name: (initial of the new one, state=, what becomes of the state, the next count)
    "carry, equal initial": (0, "carry", "carried", 3),
    "carry, another initial": (10, "carry", "fresh", 11),
    "fresh": (0, "fresh", "fresh", 1),
    "flush": (0, "flush", "fresh", 1),
    "function, equal initial": (0, double, "carried", 5),
    "function, another initial": (10, double, "carried", 5),
}


@pytest.mark.parametrize("step", [count, count_later])
@pytest.mark.parametrize("case", STATEFULS)
def test_the_state_of_a_stateful_is_handed_on(case: str, step: Callable[..., Any], seed: int) -> None:
    """Plain data, where both have the same `initial` or a function takes it; it has no `end` to flush."""
    initial, how, state, first = STATEFULS[case]

    async def main() -> None:
        topology = graph(s=hp.source(GIVEN), p=hp.stateful(partial(step, "old"), 0, "s"), out=hp.collect("p"))
        async with hp.Plumbing(topology) as plumbing:
            await asyncio.sleep(AT_S)
            change = await plumbing.replace("p", hp.stateful(partial(step, "new"), initial, "s", state=how))
            assert change.state == {"p": state}
            await plumbing.join()
            assert plumbing.collected()["out"] == [*OLD, ("new", 2, first), ("new", 3, first + 1)]

    run(main, seed)


@every_flavour
def test_a_stateful_and_a_process_have_no_state_in_common(flavour: str, seed: int) -> None:
    """Each begins without one in the other's place."""

    async def main() -> None:
        notes = Notes()
        stateful = hp.stateful(partial(count, "stateful"), 0, "s")
        topology = graph(s=hp.source(GIVEN), p=stateful, out=hp.collect("p"))
        async with hp.Plumbing(topology) as plumbing:
            await asyncio.sleep(AT_S)
            there = await plumbing.replace("p", node_of(flavour, notes, "process"))
            assert (there.state, notes.calls) == ({"p": "fresh"}, ["process begin"])
            back = await plumbing.replace("p", stateful)
            assert (back.state, notes.calls) == ({"p": "fresh"}, ["process begin", "process close"])
            await plumbing.join()
            got = [*((("stateful", value, value + 1)) for value in (0, 1)), ("stateful", 2, 1), ("stateful", 3, 2)]
            assert plumbing.collected()["out"] == got

    run(main, seed)


@pytest.mark.parametrize("how", ["carry", "fresh", "flush"])
@every_flavour
def test_handovers_amid_what_streams_through(flavour: str, how: str, seeds: Callable[[int], list[int]]) -> None:
    """Each value is processed once, in order; a state that is carried counts them all."""

    async def main(rng: random.Random) -> list[Any]:
        notes = Notes()
        values = [entry for i in range(60) for entry in (i, testing.Pause(rng.choice([0, 0, 0.004])))]
        source = hp.source(testing.script(values) if rng.random() < 0.5 else range(60))
        out = hp.collect("p", capacity=rng.choice([1, 1024]))
        async with hp.Plumbing(graph(s=source, p=node_of(flavour, notes, "p0"), out=out)) as plumbing:
            for i in range(1, 4):
                await asyncio.sleep(rng.choice([0, 0.005, 0.05]))
                await plumbing.replace("p", node_of(flavour, notes, f"p{i}", how))
            await plumbing.join()
        assert notes.closed == Counter(f"p{i}" for i in range(4))
        return plumbing.collected()["out"]

    for seed in seeds(4):
        got = run(partial(main, random.Random(seed)), seed)
        counted = [(name, value, count) for name, value, count in got if value != "end"]
        assert [value for _, value, _ in counted] == list(range(60))
        assert [name for name, _, _ in counted] == sorted(name for name, _, _ in counted)
        assert how != "carry" or [count for _, _, count in counted] == list(range(1, 61))
        ended = [name for name, value, _ in got if value == "end"]  # where all was over, the later ones never began
        assert ended == ([f"p{i}" for i in range(len(ended))] if how == "flush" else ended[-1:])
        assert ended[-1] >= counted[-1][0]


# --- what is kept


KEEPING: dict[str, Callable[[hp.Node], dict[str, hp.Node]]] = {
    "capacity": lambda node: {"p": attrs.evolve(node, capacity=3)},
    "policy": lambda node: {"p": attrs.evolve(node, on_error=hp.discard())},
    "state": lambda node: {"p": attrs.evolve(node, state="fresh")},
    "overflow": lambda node: {"p": node.overflow("drop_oldest")},
    "name": lambda node: {"p": node.named("other")},
    "reads": lambda node: {"x": hp.map(abs, "s"), "p": attrs.evolve(node, reads=("x",))},
    "readers": lambda node: {"out2": hp.collect("p")},
    "nodes around it": lambda node: {"s": hp.source(REST), "out": hp.collect("p", capacity=3)},
}


@pytest.mark.parametrize("what", KEEPING)
@every_flavour
def test_a_kept_process_is_neither_begun_nor_closed(flavour: str, what: str, seed: int) -> None:
    """Whatever else of its node, or around it, is changed: it counts on."""

    async def main() -> None:
        notes = Notes()
        node = node_of(flavour, notes, "old")
        async with hp.Plumbing(graph(s=hp.source(GIVEN), p=node, out=hp.collect("p"))) as plumbing:
            await asyncio.sleep(AT_S)
            change = await plumbing.apply(plumbing.topology.update(KEEPING[what](node)))
            assert notes.calls == ["old begin"]
            assert change.state.get("p", "kept") == "kept"
            await plumbing.join()
            assert plumbing.collected()["out"] == [*OLD, ("old", 2, 3), ("old", 3, 4), ("old", "end", 4)]
        assert notes.calls == ["old begin", "old end", "old close"]

    run(main, seed)


# --- when


@every_flavour
def test_the_new_one_begins_while_the_old_one_still_works(flavour: str, seed: int) -> None:
    """In the opening of the change, long before the old one can be asked for its state."""

    async def main() -> None:
        notes = Notes()
        flavoured = FLAVOURS[flavour]

        class Slow(flavoured):  # type: ignore[misc, valid-type]
            async def process(self, value: int) -> Any:
                await asyncio.sleep(10)
                self.notes.note(f"{self.name} process {value}")
                self.count += 1
                return [(self.name, value, self.count)]

        topology = graph(s=hp.source([0, 1]), p=hp.process(partial(Slow, notes, "old"), "s"), out=hp.collect("p"))
        async with hp.Plumbing(topology) as plumbing:
            await asyncio.sleep(AT_S)
            change = asyncio.create_task(plumbing.replace("p", node_of(flavour, notes, "new")))
            await asyncio.sleep(1)
            assert notes.calls == ["old begin", "new begin"]
            await change
            expected = ["old begin", "new begin", "old process 0", "old snapshot", "old close", "new restore"]
            assert notes.calls[: len(expected)] == expected
            await plumbing.join()
            assert plumbing.collected()["out"] == [("old", 0, 1), ("new", 1, 2), ("new", "end", 2)]

    run(main, seed)


@pytest.mark.parametrize("way", ["join", "leave", "raise"])
@every_flavour
def test_each_is_closed_once_however_the_run_ends(flavour: str, way: str, seed: int) -> None:
    """The old ones at their changes, the last one at the end."""

    async def main() -> None:
        notes = Notes()
        topology = graph(s=hp.source(ticks), p=node_of(flavour, notes, "p0"), out=hp.collect("p"))
        with suppress(Broken):
            async with hp.Plumbing(topology) as plumbing:
                for i in range(1, 4):
                    await asyncio.sleep(0.01)
                    await plumbing.replace("p", node_of(flavour, notes, f"p{i}"))
                assert notes.closed == Counter(["p0", "p1", "p2"])
                if way == "join":
                    await plumbing.replace("s", hp.source([1]))
                    await plumbing.join()
                elif way == "raise":
                    raise Broken
        assert notes.closed == Counter(["p0", "p1", "p2", "p3"])
        assert ("p3 end" in notes.calls) == (way != "raise")

    run(main, seed)


async def ticks() -> Any:
    number = 0
    while True:
        yield number
        number += 1
        await asyncio.sleep(0.003)


# --- times to be woken at


class Woken(Plain):
    """Asks to be woken, and gives `(name, time)` when it is."""

    def __init__(self, notes: Notes, name: str, times: tuple[float, ...] = ()) -> None:
        super().__init__(notes, name)
        self.times = times

    def begin(self, context: hp.Context) -> Any:
        for time in self.times:
            context.wake_at(time)

    def wake(self, time: float) -> Any:
        return [(self.name, time)]


class WokenLater(Woken):
    """Likewise, in a task of its own."""

    async def wake(self, time: float) -> Any:
        await asyncio.sleep(0)
        return super().wake(time)

    async def snapshot(self) -> Any:
        await asyncio.sleep(0)
        return super().snapshot()


WAKES = {"carry": ["new", "new"], "function": ["new", "new"], "fresh": [], "flush": []}


@pytest.mark.parametrize("how", WAKES)
@pytest.mark.parametrize("new", [Woken, WokenLater])
@pytest.mark.parametrize("old", [Woken, WokenLater])
def test_pending_times_move_with_the_state(old: type[Woken], new: type[Woken], how: str, seed: int) -> None:
    """The new one is woken at them, and at its own; without the state they are forgotten."""

    async def main() -> None:
        notes = Notes()
        topology = graph(
            s=hp.source(testing.script([testing.Pause(100)])),
            p=hp.process(partial(old, notes, "old", (0.25, 2.0, 4.0)), "s"),
            out=hp.collect("p"),
        )
        async with hp.Plumbing(topology) as plumbing:
            await asyncio.sleep(AT_S)
            make = partial(new, notes, "new", (3.0,))
            await plumbing.replace("p", hp.process(make, "s", state=state_of(how, notes)))
            await plumbing.join()
            moved = [2.0, 3.0, 4.0] if WAKES[how] else [3.0]
            flushed = [("old", "end", 0)] if how == "flush" else []
            expected = [("old", 0.25), *flushed, *(("new", time) for time in moved), ("new", "end", 0)]
            assert plumbing.collected()["out"] == expected

    run(main, seed)


@pytest.mark.parametrize("make", [Woken, WokenLater])
def test_a_kept_process_is_woken_as_it_has_asked(make: type[Woken], seed: int) -> None:
    """What else of its node is changed does not touch its times."""

    async def main() -> None:
        node = hp.process(partial(make, Notes(), "old", (2.0,)), "s")
        topology = graph(s=hp.source(testing.script([testing.Pause(100)])), p=node, out=hp.collect("p"))
        async with hp.Plumbing(topology) as plumbing:
            await asyncio.sleep(AT_S)
            await plumbing.replace("p", attrs.evolve(node, capacity=3))
            await plumbing.join()
            assert plumbing.collected()["out"] == [("old", 2.0), ("old", "end", 0)]

    run(main, seed)


# --- flushing


MANY = 700  # more than a chunk


class Gathering:
    """Gives what it was given at the end, in many outputs."""

    def __init__(self, name: str) -> None:
        self.name = name

    def process(self, value: int) -> None:
        pass

    def end(self) -> Any:
        return [(self.name, i) for i in range(MANY)]


class GatheringOneByOne(Gathering):
    def end(self) -> Any:
        for i in range(MANY):
            yield self.name, i


class GatheringLater(Gathering):
    async def end(self) -> Any:
        await asyncio.sleep(LATER_S)
        return super().end()


class GatheringOneByOneLater(Gathering):
    async def end(self) -> Any:
        for i in range(MANY):
            if i % 100 == 0:
                await asyncio.sleep(LATER_S)
            yield self.name, i


GATHERING = [Gathering, GatheringOneByOne, GatheringLater, GatheringOneByOneLater]


@pytest.mark.parametrize("capacity", [1, 100, 1024])
@pytest.mark.parametrize("make", GATHERING)
def test_what_is_flushed_leaves_before_the_marker(make: type[Gathering], capacity: int, seed: int) -> None:
    """All of it bears the old epoch and meets the old reader, though that is slow and reads from a full link."""

    async def main() -> None:
        got: list[tuple[Any, tuple[hp.Hop, ...], Any]] = []

        async def read(value: Any) -> Any:
            await asyncio.sleep(0.001)
            return value

        async def read_anew(value: Any) -> Any:
            await asyncio.sleep(0.001)
            return value, "anew"

        def see(value: Any) -> None:
            got.append((value, hp.current_item().trail.hops, hp.current_item().origin))

        topology = graph(
            s=hp.source(GIVEN),
            p=hp.process(partial(make, "old"), "s"),
            m=hp.map(read, "p", capacity=capacity),
            out=hp.sink(see, "m", capacity=capacity),
        )
        async with hp.Plumbing(topology) as plumbing:
            await asyncio.sleep(AT_S)
            new = {
                "p": hp.process(partial(make, "new"), "s", state="flush"),
                "m": hp.map(read_anew, "p", capacity=capacity),
            }
            change = await plumbing.apply(plumbing.topology.update(new))
            assert (change.region, change.heads) == (frozenset(["p", "m"]), frozenset(["p"]))
            assert change.state["p"] == "flushed"
            await plumbing.join()
        old, anew = got[:MANY], got[MANY:]
        assert [value for value, _, _ in old] == [("old", i) for i in range(MANY)]
        assert {hops for _, hops, _ in old} == {(hp.Hop("p", 0), hp.Hop("m", 0))}
        assert [value for value, _, _ in anew] == [(("new", i), "anew") for i in range(MANY)]
        assert {hops for _, hops, _ in anew} == {(hp.Hop("p", 1), hp.Hop("m", 1))}
        assert [origin for _, _, origin in got] == [("p", i, 0) for i in range(2 * MANY)]

    run(main, seed)


@every_flavour
def test_a_removed_process_ends_and_what_it_gives_still_arrives(flavour: str, seed: int) -> None:
    """By the links as they were, with the old epoch, before its reader reads anything else."""

    async def main() -> None:
        notes = Notes()
        got: list[tuple[Any, tuple[Any, ...]]] = []

        def see(value: Any) -> None:
            got.append((value, hp.current_item().trail.keys))

        topology = graph(
            s=hp.source(GIVEN), p=node_of(flavour, notes, "old"), m=hp.map(partial(same, 0), "p"), out=hp.sink(see, "m")
        )
        async with hp.Plumbing(topology) as plumbing:
            await asyncio.sleep(AT_S)
            change = await plumbing.replace("m", hp.map(partial(same, 0), "s"))
            assert change.removed == {"p"}
            assert notes.calls == ["old begin", "old end", "old close"]
            await plumbing.join()
        ways = [*((value, ("s", "p", "m")) for value in OLD), (("old", "end", 2), ("p", "m"))]
        assert got == [*ways, (2, ("s", "m")), (3, ("s", "m"))]

    run(main, seed)


def same(_: int, value: Any) -> Any:
    return value


# --- what raises


# {state=: calls of the handover that may raise}
RAISING = {
    "carry": ["old snapshot", "old close", "new restore"],
    "fresh": ["old close"],
    "flush": ["old end", "old close"],
    "function": ["old snapshot", "old close", "double", "new restore"],
}
CASES = [(how, call) for how, calls in RAISING.items() for call in calls]

every_failure = pytest.mark.parametrize(("how", "call"), CASES)


@attrs.define(eq=False)
class Held:
    """A node that holds between its old process and the new one."""

    plumbing: hp.Plumbing
    notes: Notes
    flavour: str
    how: str

    async def replace(self) -> hp.HandoverError:
        """Have it hold; gives what that raises."""
        await asyncio.sleep(AT_S)
        new = node_of(self.flavour, self.notes, "new", state_of(self.how, self.notes))
        with pytest.raises(hp.HandoverError) as raised:
            await self.plumbing.replace("p", new)
        return raised.value

    @property
    def standing(self) -> str:
        return self.plumbing.statistics().nodes["p"].state

    @property
    def arrived(self) -> list[Any]:
        return self.plumbing.collected()["out"]


def held(flavour: str, how: str, call: str, **options: Any) -> Held:
    notes = Notes(failing={call})
    topology = graph(s=hp.source(GIVEN), p=node_of(flavour, notes, "old"), out=hp.collect("p"))
    return Held(hp.Plumbing(topology, **options), notes, flavour, how)


@every_failure
@every_flavour
def test_what_raises_in_a_handover_holds_the_node(flavour: str, how: str, call: str, seed: int) -> None:
    """The error names the node, the change and the cause; upstream waits, and the old topology reigns."""

    async def main() -> None:
        case = held(flavour, how, call)
        async with case.plumbing as plumbing:
            before = plumbing.topology
            error = await case.replace()
            assert error.key == "p"
            assert isinstance(error.change, hp.Change)
            assert error.change.touched == {"p"}
            assert isinstance(error.__cause__, Broken)
            assert str(error) == f'"p" holds between its old and its new process: Broken: {call}'
            await asyncio.sleep(10)
            assert case.standing == "holding"
            assert (plumbing.epoch, plumbing.topology) == (0, before)
            assert plumbing.statistics().nodes["p"].queued_items == 2
            assert case.arrived[:2] == OLD
            assert not any(name == "new" for name, *_ in case.arrived)
            case.notes.failing.clear()
            plumbing.retry("p")
            await plumbing.join()

    run(main, seed)


@every_failure
@every_flavour
def test_retry_goes_on_with_a_handover(flavour: str, how: str, call: str, seed: int) -> None:
    """As if nothing had been the matter: the state is there, nothing is lost, each is closed once."""

    async def main() -> None:
        case = held(flavour, how, call)
        async with case.plumbing as plumbing:
            error = await case.replace()
            await asyncio.sleep(10)
            case.notes.failing.clear()
            plumbing.retry("p")
            await asyncio.sleep(1)
            assert (plumbing.epoch, plumbing.topology.epoch_of("p")) == (1, 1)
            await error.change.wait_settled()
            await plumbing.join()
            _, state, got = STATES[how]
            assert case.arrived == [*OLD, *got]
            assert error.change.state == {"p": state}
        assert case.notes.closed == Counter(["old", "new"])

    run(main, seed)


# `close` is called once: a second attempt goes on without it
@pytest.mark.parametrize(("how", "call"), [(how, call) for how, call in CASES if call != "old close"])
@every_flavour
def test_retry_may_fail_again(flavour: str, how: str, call: str, seed: int) -> None:
    """The node goes on holding; nobody is told twice, and the next attempt is as good as the first."""

    async def main() -> None:
        case = held(flavour, how, call)
        async with case.plumbing as plumbing:
            await case.replace()
            for _ in range(3):
                plumbing.retry("p")
                await asyncio.sleep(1)
                assert case.standing == "holding"
            case.notes.failing.clear()
            plumbing.retry("p")
            await plumbing.join()
            assert case.arrived == [*OLD, *STATES[how][2]]
            assert case.notes.calls.count(call) == 5
        assert case.notes.closed == Counter(["old", "new"])

    run(main, seed)


WITHOUT = [("new", 2, 1), ("new", 3, 2), ("new", "end", 2)]


def without_state(case: Held, call: str) -> list[Any]:
    """What arrives when the node goes on without the state."""
    flushed = [("old", "end", 2)] if case.how == "flush" and call != "old end" else []
    return [*OLD, *flushed, *WITHOUT]


@every_failure
@every_flavour
def test_discard_goes_on_without_the_state(flavour: str, how: str, call: str, seed: int) -> None:
    """The new process is as begun, and not half restored; each one made is closed once."""

    async def main() -> None:
        case = held(flavour, how, call)
        async with case.plumbing as plumbing:
            error = await case.replace()
            plumbing.discard("p")
            await plumbing.join()
            assert plumbing.epoch == 1
            assert case.arrived == without_state(case, call)
            await error.change.wait_settled()
        begun = Counter(note.split()[0] for note in case.notes.calls if note.endswith(" begin"))
        assert case.notes.closed == begun

    run(main, seed)


@pytest.mark.parametrize("way", ["drain", "leave"])
@every_failure
@every_flavour
def test_draining_goes_on_without_the_state(flavour: str, how: str, call: str, way: str, seed: int) -> None:
    """Nothing may be held any more: what waits upstream is processed by the new one, and all is closed."""

    async def main() -> None:
        case = held(flavour, how, call)
        async with asyncio.timeout(PATIENCE_S):
            async with case.plumbing as plumbing:
                await case.replace()
                await asyncio.sleep(2)
                if way == "drain":
                    await plumbing.drain()
            assert case.arrived == without_state(case, call)
        begun = Counter(note.split()[0] for note in case.notes.calls if note.endswith(" begin"))
        assert case.notes.closed == begun

    run(main, seed)


@every_failure
@every_flavour
def test_what_raises_while_draining_holds_nothing(flavour: str, how: str, call: str, seed: int) -> None:
    """Who has asked for the change is told, and the node goes on without the state."""

    async def main() -> None:
        notes = Notes(failing={call})
        flavoured = FLAVOURS[flavour]

        class Slow(flavoured):  # type: ignore[misc, valid-type]
            async def process(self, value: int) -> Any:
                await asyncio.sleep(5)
                return [(self.name, value, 0)]

        topology = graph(s=hp.source([0, 1]), p=hp.process(partial(Slow, notes, "old"), "s"), out=hp.collect("p"))
        async with asyncio.timeout(PATIENCE_S), hp.Plumbing(topology) as plumbing:
            await asyncio.sleep(AT_S)
            change = asyncio.create_task(plumbing.replace("p", node_of(flavour, notes, "new", state_of(how, notes))))
            await asyncio.sleep(1)
            await plumbing.drain()
            with pytest.raises(hp.HandoverError, match=f"Broken: {call}"):
                await change
            assert plumbing.epoch == 1
            got = [value for value in plumbing.collected()["out"] if value[1] != "end"]
            assert got == [("old", 0, 0), ("new", 1, 1)]
        begun = Counter(note.split()[0] for note in notes.calls if note.endswith(" begin"))
        assert notes.closed == begun

    run(main, seed)


@every_failure
@every_flavour
def test_a_block_that_raises_while_a_node_holds_closes_both(flavour: str, how: str, call: str, seed: int) -> None:
    """Each process that was begun, once."""

    async def main() -> None:
        case = held(flavour, how, call)
        with suppress(Broken):
            async with case.plumbing:
                await case.replace()
                raise Broken
        assert case.notes.closed == Counter(["old", "new"])

    run(main, seed)


def test_the_next_change_waits_for_a_node_that_holds(seed: int) -> None:
    """Until it goes on; then it has its turn, and edits what reigns."""

    async def main() -> None:
        case = held("plain", "carry", "new restore")
        async with case.plumbing as plumbing:
            await case.replace()
            later = asyncio.create_task(plumbing.add("out2", hp.collect("p")))
            await asyncio.sleep(10)
            assert not later.done()
            case.notes.failing.clear()
            plumbing.retry("p")
            assert (await later).epoch == 2
            await plumbing.join()

    run(main, seed)


def test_the_rest_of_the_graph_flows_while_a_node_holds(seed: int) -> None:
    """Only what is above the node waits."""

    async def main() -> None:
        case = held("plain", "carry", "old snapshot")
        edited = case.plumbing.topology.add("t", hp.source([7, 8])).add("other", hp.collect("t"))
        plumbing = case.plumbing = hp.Plumbing(edited)
        async with plumbing:
            await case.replace()
            assert plumbing.collected()["other"] == [7, 8]
            plumbing.discard("p")
            await plumbing.join()

    run(main, seed)


def test_two_nodes_of_one_change_hold_each_by_itself(seed: int) -> None:
    """The error names the first; the change is through when both have gone on."""

    async def main() -> None:
        notes = Notes(failing={"new restore"})
        topology = graph(s=hp.source(GIVEN), t=hp.source(GIVEN), p=node_of("plain", notes, "old"))
        other = attrs.evolve(node_of("plain", notes, "old"), reads=("t",))
        topology = topology.add("q", other).add("out", hp.collect("p")).add("out2", hp.collect("q"))
        async with hp.Plumbing(topology) as plumbing:
            await asyncio.sleep(AT_S)
            new = node_of("plain", notes, "new")
            with pytest.raises(hp.HandoverError) as raised:
                await plumbing.apply(plumbing.topology.update({"p": new, "q": attrs.evolve(new, reads=("t",))}))
            assert raised.value.key in ("p", "q")
            states = {key: node.state for key, node in plumbing.statistics().nodes.items()}
            assert (states["p"], states["q"]) == ("holding", "holding")
            notes.failing.clear()
            plumbing.retry("p")
            await asyncio.sleep(1)
            assert plumbing.epoch == 0
            plumbing.retry("q")
            await asyncio.sleep(1)
            assert plumbing.epoch == 1
            await plumbing.join()
            assert plumbing.collected()["out"] == plumbing.collected()["out2"] == [*OLD, *STATES["carry"][2]]

    run(main, seed)


@pytest.mark.parametrize("call", ["old end", "old close"])
@every_flavour
def test_what_raises_in_a_node_that_is_removed_follows_its_policy(flavour: str, call: str, seed: int) -> None:
    """It is no handover: nothing is held between two processes, and the change comes through."""

    async def main() -> None:
        notes = Notes(failing={call})
        node = attrs.evolve(node_of(flavour, notes, "old"), on_error=hp.discard())
        topology = graph(s=hp.source(GIVEN), p=node, out=hp.collect("p"), m=hp.collect("s"), dead=hp.collect(hp.ERRORS))
        async with hp.Plumbing(topology) as plumbing:
            await asyncio.sleep(AT_S)
            change = await plumbing.remove("out")
            assert change.removed == {"p", "out"}
            await plumbing.join()
            assert [
                (failure.key, failure.item, str(failure.exception)) for failure in plumbing.collected()["dead"]
            ] == [("p", None, call)]
            assert plumbing.collected()["m"] == [0, 1, 2, 3]
        assert notes.closed == Counter(["old"])

    run(main, seed)


# --- rejected


class Refuses(Plain):
    def begin(self, _: hp.Context) -> Any:
        super().begin(_)
        raise Broken("begin")


class RefusesLater(Plain):
    async def begin(self, _: hp.Context) -> Any:
        await asyncio.sleep(LATER_S)
        super().begin(_)
        raise Broken("begin")


class Unmade(Plain):
    def __init__(self, notes: Notes, name: str) -> None:
        raise Broken("make")


def refuse() -> Any:
    raise Broken("source")


def refuse_with(_: hp.Context) -> Any:
    raise Broken("source")


async def refuse_later() -> Any:
    await asyncio.sleep(LATER_S)
    raise Broken("source")


UNABLE: dict[str, Callable[[Notes], hp.Node]] = {
    "begin": lambda notes: hp.process(partial(Refuses, notes, "unable"), "s"),
    "async begin": lambda notes: hp.process(partial(RefusesLater, notes, "unable"), "s"),
    "make": lambda notes: hp.process(partial(Unmade, notes, "unable"), "s"),
    "no process": lambda notes: hp.process(dict, "s"),
    "source": lambda notes: hp.source(refuse),
    "source with a context": lambda notes: hp.source(refuse_with),
    "async source": lambda notes: hp.source(refuse_later),
    "source of no values": lambda notes: hp.source(lambda: 7),
}

every_unable = pytest.mark.parametrize("unable", UNABLE)


async def check_unnoticed(plumbing: hp.Plumbing, before: hp.Topology) -> None:
    """The graph is as it was: it reigns, flows and can be changed."""
    assert (plumbing.epoch, plumbing.topology) == (0, before)
    assert set(plumbing.statistics().nodes) == set(before.active)
    assert all(node.epoch == 0 for node in plumbing.statistics().nodes.values())
    got = len(plumbing.collected()["out"])
    await asyncio.sleep(1)
    assert len(plumbing.collected()["out"]) > got
    assert (await plumbing.add("out2", hp.collect("p"))).epoch == 1


@pytest.mark.parametrize("place", ["first", "last"])
@every_unable
@every_flavour
def test_what_cannot_be_opened_rejects_the_change(flavour: str, unable: str, place: str, seed: int) -> None:
    """What was opened beside it is closed, once; the graph has not noticed."""

    async def main() -> None:
        notes = Notes()
        topology = graph(s=hp.source(ticks), p=node_of(flavour, notes, "old"), out=hp.collect("p"))
        async with hp.Plumbing(topology) as plumbing:
            await asyncio.sleep(AT_S)
            edits = {
                "p": node_of(flavour, notes, "new"),
                "p2": node_of(flavour, notes, "other"),
                "o2": hp.collect("p2"),
            }
            bad = {"x": UNABLE[unable](notes), "o3": hp.collect("x")}
            edited = plumbing.topology.update(bad | edits if place == "first" else edits | bad)
            with pytest.raises(hp.ChangeRejected, match='"x" could not start') as raised:
                await plumbing.apply(edited)
            assert raised.value.key == "x"
            assert isinstance(raised.value.__cause__, Broken | hp.UsageError)
            made = {note.split()[0] for note in notes.calls} - {"old"}
            assert notes.closed == Counter(made)
            assert not any(note.startswith("old") for note in notes.calls[1:])
            await check_unnoticed(plumbing, topology)

    run(main, seed)


@every_unable
def test_what_cannot_take_a_place_rejects_the_change(unable: str, seed: int) -> None:
    """The one that stands there goes on, with the state it has."""

    async def main() -> None:
        notes = Notes()
        topology = graph(s=hp.source(ticks), p=node_of("plain", notes, "old"), out=hp.collect("p"))
        async with hp.Plumbing(topology) as plumbing:
            await asyncio.sleep(AT_S)
            key = "s" if "source" in unable else "p"
            with pytest.raises(hp.ChangeRejected) as raised:
                await plumbing.replace(key, UNABLE[unable](notes))
            assert raised.value.key == key
            await check_unnoticed(plumbing, topology)
        assert [count for _, _, count in plumbing.collected()["out"][:-1]] == list(
            range(1, len(plumbing.collected()["out"]))
        )

    run(main, seed)


def test_a_factory_that_raises_halfway_is_an_error_of_the_edit(seed: int) -> None:
    """Nothing has been opened; the next edit asks it again."""

    async def main() -> None:
        notes = Notes()

        def factory(key: Any) -> hp.Node | None:
            match key:
                case ("a", _):
                    return hp.map(partial(same, 0), ("b", 1))
                case ("b", _):
                    notes.note("factory")
                    return node_of("plain", notes, "made")
            return None

        topology = hp.Topology(factory).add("s", hp.source(ticks)).add("p", hp.map(partial(same, 0), "s"))
        topology = topology.add("out", hp.collect("p"))
        async with hp.Plumbing(topology) as plumbing:
            await asyncio.sleep(AT_S)
            notes.failing.add("factory")
            with pytest.raises(hp.FactoryError, match="Broken: factory"):
                await plumbing.add("made", hp.collect(("a", 1)))
            assert notes.calls == ["factory"]
            notes.failing.clear()
            change = await plumbing.add("made", hp.collect(("a", 1)))
            assert (change.epoch, change.added) == (1, frozenset(["made", ("a", 1), ("b", 1)]))

    run(main, seed)


@pytest.mark.parametrize("unable", ["begin", "async begin", "make", "source", "async source"])
def test_a_slow_begin_is_given_up_when_another_fails(unable: str, seed: int) -> None:
    """The change is rejected as soon as one has failed; the slow one is cancelled, and closed like any other."""

    async def main() -> None:
        notes = Notes()

        class Slow(Plain):
            async def begin(self, context: hp.Context) -> None:
                try:
                    await asyncio.sleep(3600)
                except asyncio.CancelledError:
                    self.notes.note(f"{self.name} cancelled")
                    raise

        topology = graph(s=hp.source(ticks), p=node_of("plain", notes, "old"), out=hp.collect("p"))
        async with hp.Plumbing(topology) as plumbing:
            await asyncio.sleep(AT_S)
            slow = hp.process(partial(Slow, notes, "slow"), "s")
            edits = {"slow": slow, "o2": hp.collect("slow"), "x": UNABLE[unable](notes), "o3": hp.collect("x")}
            with pytest.raises(hp.ChangeRejected) as raised:
                await plumbing.apply(plumbing.topology.update(edits))
            assert raised.value.key == "x"
            assert now() < AT_S + 1
            await asyncio.sleep(1)
            assert notes.closed["slow"] == any("slow" in note for note in notes.calls)
            await check_unnoticed(plumbing, topology)

    run(main, seed)


def test_the_time_runs_while_a_begin_is_slow(seed: int) -> None:
    """The change is withdrawn and names it; what was opened is closed, and the graph has not noticed."""

    async def main() -> None:
        notes = Notes()

        class Slow(Plain):
            async def begin(self, context: hp.Context) -> None:
                await asyncio.sleep(3600)

        topology = graph(s=hp.source(ticks), p=node_of("async", notes, "old"), out=hp.collect("p"))
        async with hp.Plumbing(topology) as plumbing:
            await asyncio.sleep(AT_S)
            slow = hp.process(partial(Slow, notes, "slow"), "s")
            edits = {"slow": slow, "o2": hp.collect("slow"), "p": node_of("async", notes, "new")}
            began = now()
            with pytest.raises(hp.ChangeTimeout) as raised:
                await plumbing.apply(plumbing.topology.update(edits), timeout_s=5)
            assert now() - began < 6
            assert raised.value.withdrawn
            assert set(raised.value.waiting_for) == {"slow"}
            assert "begin" in raised.value.waiting_for["slow"]
            assert notes.closed == Counter(["slow", "new"])
            await check_unnoticed(plumbing, topology)

    run(main, seed)


def test_what_was_rejected_is_not_woken(seed: int) -> None:
    """A time that it has asked for in `begin` is forgotten."""

    async def main() -> None:
        notes = Notes()

        class Asks(Plain):
            def begin(self, context: hp.Context) -> None:
                context.wake_at(now() + 0.1)

            def wake(self, _: float) -> None:
                self.notes.note("woken")

        topology = graph(s=hp.source(ticks), p=node_of("plain", notes, "old"), out=hp.collect("p"))
        async with hp.Plumbing(topology) as plumbing:
            await asyncio.sleep(AT_S)
            asks = hp.process(partial(Asks, notes, "asks"), "s")
            edits = {"asks": asks, "o2": hp.collect("asks"), "x": hp.source(refuse), "o3": hp.collect("x")}
            with pytest.raises(hp.ChangeRejected):
                await plumbing.apply(plumbing.topology.update(edits))
            await asyncio.sleep(1)
            assert "woken" not in notes.calls

    run(main, seed)


def test_the_sources_of_a_rejected_change_are_closed(seed: int) -> None:
    """What their functions made has given nothing, and is closed like what has."""

    async def main() -> None:
        closed: list[str] = []

        class Values:
            def __init__(self, name: str) -> None:
                self.name = name

            def __iter__(self) -> Iterator[int]:
                return self

            def __next__(self) -> int:
                raise AssertionError("asked for a value")

            def close(self) -> None:
                closed.append(self.name)

        class ValuesLater(Values):
            def __aiter__(self) -> Any:
                return self

            async def __anext__(self) -> int:
                raise AssertionError("asked for a value")

            async def aclose(self) -> None:
                closed.append(self.name)

        topology = graph(s=hp.source(ticks), out=hp.collect("s"))
        async with hp.Plumbing(topology) as plumbing:
            edits = {
                "a": hp.source(partial(Values, "plain")),
                "b": hp.source(partial(ValuesLater, "async")),
                "o2": hp.collect("a", "b"),
                "x": hp.process(partial(RefusesLater, Notes(), "unable"), "s"),
                "o3": hp.collect("x"),
            }
            with pytest.raises(hp.ChangeRejected):
                await plumbing.apply(plumbing.topology.update(edits))
            await asyncio.sleep(1)
            assert sorted(closed) == ["async", "plain"]

    run(main, seed)


# --- what user code sees of it


class Asks(Plain):
    """Looks at who wants it."""

    def begin(self, context: hp.Context) -> Any:
        self.context = context
        self.look("begin")

    def look(self, call: str) -> None:
        readers, sinks = self.context.readers, self.context.sinks
        self.notes.calls.append(f"{call}: {sorted(map(str, readers))} {sorted(map(str, sinks))}")

    def close(self) -> Any:
        self.look("close")


class AsksLater(Asks):
    async def begin(self, context: hp.Context) -> None:
        await asyncio.sleep(LATER_S)
        super().begin(context)


@pytest.mark.parametrize("make", [Asks, AsksLater])
def test_a_node_that_is_opened_knows_who_will_read_it(make: type[Asks], seed: int) -> None:
    """`context.readers` and `context.sinks` can be asked in `begin`, and still in `close`."""

    async def main() -> None:
        notes = Notes()
        async with hp.Plumbing(graph(s=hp.source(ticks), out=hp.collect("s"))) as plumbing:
            await asyncio.sleep(AT_S)
            asks = hp.process(partial(make, notes, "asks"), "s")
            edits = {"p": asks, "m": hp.map(partial(same, 0), "p"), "o2": hp.collect("m")}
            await plumbing.apply(plumbing.topology.update(edits))
            assert notes.calls == ["begin: ['m'] ['o2']"]
            await plumbing.add("o3", hp.collect("p"))
            await plumbing.remove("o2")
            await plumbing.remove("o3")
        assert len(notes.calls) == 3
        assert notes.calls[1] == "asks end"
        assert notes.calls[2].startswith("close: ")

    run(main, seed)


# --- what cannot be open twice


@every_flavour
def test_what_is_exclusive_opens_when_the_old_one_has_closed(flavour: str, seed: int) -> None:
    """Before the marker goes on, and before the state comes."""

    async def main() -> None:
        notes = Notes()
        exclusive = hp.exclusive(type("Exclusive", (FLAVOURS[flavour],), {}))
        topology = graph(s=hp.source(GIVEN), p=hp.process(partial(exclusive, notes, "old"), "s"), out=hp.collect("p"))
        async with hp.Plumbing(topology) as plumbing:
            await asyncio.sleep(AT_S)
            await plumbing.replace("p", hp.process(partial(exclusive, notes, "new"), "s"))
            calls = ["old begin", "old snapshot", "old close", "new begin", "new restore"]
            assert notes.calls == calls
            await plumbing.join()
            assert plumbing.collected()["out"] == [*OLD, *STATES["carry"][2]]
        assert notes.calls == [*calls, "new end", "new close"]

    run(main, seed)


@every_flavour
def test_what_is_exclusive_and_cannot_open_holds_the_node(flavour: str, seed: int) -> None:
    """It is too late to reject the change; `retry` opens it, with the state of the old one."""

    async def main() -> None:
        notes = Notes(failing={"new begin"})
        exclusive = hp.exclusive(type("Exclusive", (FLAVOURS[flavour],), {}))
        topology = graph(s=hp.source(GIVEN), p=hp.process(partial(exclusive, notes, "old"), "s"), out=hp.collect("p"))
        async with hp.Plumbing(topology) as plumbing:
            await asyncio.sleep(AT_S)
            with pytest.raises(hp.HandoverError, match="Broken: new begin"):
                await plumbing.replace("p", hp.process(partial(exclusive, notes, "new"), "s"))
            await asyncio.sleep(5)
            assert plumbing.statistics().nodes["p"].state == "holding"
            notes.failing.clear()
            plumbing.retry("p")
            await plumbing.join()
            assert plumbing.collected()["out"] == [*OLD, *STATES["carry"][2]]
        assert notes.closed == {"old": 1, "new": 2}  # one of the two could not begin

    run(main, seed)


class Slow(Plain):
    async def begin(self, context: hp.Context) -> None:
        await asyncio.sleep(PATIENCE_S)


def test_leaving_at_once_while_what_is_exclusive_opens_ends_in_silence(
    monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """What was under way is dropped with the loop: nothing is started then, and nothing complained of."""
    notes = Notes()

    async def main() -> None:
        exclusive = hp.exclusive(Slow)
        topology = graph(s=hp.source(GIVEN), p=hp.process(partial(Plain, notes, "old"), "s"), out=hp.collect("p"))
        async with hp.Plumbing(topology) as plumbing:
            await asyncio.sleep(AT_S)
            change = asyncio.create_task(plumbing.replace("p", hp.process(partial(exclusive, notes, "new"), "s")))
            change.add_done_callback(asyncio.Task.exception)
            await asyncio.sleep(LATER_S)
            raise Broken("leave at once")

    unraisable: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", unraisable.append)
    with pytest.raises(Broken):
        testing.run(main, seed=seed)
    gc.collect()
    assert unraisable == []


# --- giving a step up

HUNG = [("old", "snapshot", "carry"), ("old", "end", "flush"), ("old", "close", "carry"), ("new", "restore", "carry")]


def hung(notes: Notes, name: str, call: str, is_deaf: bool) -> Plain:
    """A process of which one call does not return, the first time it is made."""
    process = Later(notes, name)
    method = getattr(process, call)

    async def hang(*args: Any) -> Any:
        setattr(process, call, method)
        notes.hung.append(f"{name} {call}")
        while True:
            try:
                return await asyncio.sleep(PATIENCE_S)
            except asyncio.CancelledError:
                if not is_deaf or asyncio.get_running_loop().time() > PATIENCE_S:
                    raise

    if notes.hung != [f"{name} {call}"]:
        setattr(process, call, hang)
    return process


@pytest.mark.parametrize("is_deaf", [False, True], ids=["heeds", "deaf"])
@pytest.mark.parametrize(("name", "call", "how"), HUNG)
def test_force_gives_up_a_step_that_hangs(name: str, call: str, how: Any, is_deaf: bool, seed: int) -> None:
    """The change goes on without state, as where a failed step is discarded; what swallows that is left behind."""
    notes = Notes()

    def make(made: str) -> hp.Node:
        fn = partial(hung, notes, made, call, is_deaf) if made == name else partial(Later, notes, made)
        return hp.process(fn, "s", state=how)

    async def main() -> tuple[Any, float]:
        topology = graph(s=hp.source(GIVEN), p=make("old"), out=hp.collect("p"))
        async with hp.Plumbing(topology) as plumbing:
            await asyncio.sleep(AT_S)
            with pytest.raises(hp.ChangeTimeout) as late:
                await plumbing.apply(plumbing.topology.replace("p", make("new")), timeout_s=0.1)
            assert set(late.value.waiting_for) == {"p"}
            assert "busy in user code" in late.value.waiting_for["p"]
            forced_at = now()
            late.value.change.force("p")
            await late.value.change.wait_settled()
            taken_s = now() - forced_at
            assert late.value.change.state == {"p": "fresh"}
            await plumbing.join()
            return plumbing.collected()["out"], taken_s

    found, taken_s = testing.run(main, seed=seed)
    assert notes.hung == [f"{name} {call}"]
    assert [value for _, value, _ in found if value != "end"] == [0, 1, 2, 3]
    assert [who for who, value, _ in found if value != "end"] == ["old", "old", "new", "new"]
    assert [count for who, _, count in found if who == "new"][:2] == [1, 2]
    assert (4 < taken_s < 6) if is_deaf else taken_s < 1


def test_force_before_a_step_has_begun_gives_it_up_too(seed: int) -> None:
    """What a plain process gave to be awaited has then not taken its first step, and is closed in silence."""
    notes = Notes()

    class Forcing(Plain):
        change: hp.Change

        def snapshot(self) -> Any:
            asyncio.get_running_loop().call_soon(self.change.force, "p")
            return asyncio.sleep(PATIENCE_S)

    def processes(make: type[Plain], name: str) -> dict[str, hp.Node]:
        return {"p": hp.process(partial(make, notes, name), "s"), "q": hp.process(partial(Plain, notes, name), "s")}

    async def main() -> None:
        old = processes(Forcing, "old")
        async with hp.Plumbing(graph(s=hp.source(GIVEN), **old, out=hp.collect("p"), outq=hp.collect("q"))) as plumbing:
            await asyncio.sleep(AT_S)
            plumbing.pause("p")
            with pytest.raises(hp.ChangeTimeout) as late:
                await plumbing.apply(plumbing.topology.update(processes(Plain, "new")), timeout_s=0.1)
            Forcing.change = late.value.change
            plumbing.resume("p")
            await plumbing.join()
            assert Forcing.change.state == {"p": "fresh", "q": "carried"}
            assert now() < PATIENCE_S

    testing.run(main, seed=seed)
    gc.collect()  # a coroutine that was never awaited warns here


@pytest.mark.parametrize("is_deaf", [False, True], ids=["heeds", "deaf"])
@pytest.mark.parametrize("call", ["end", "close"])
def test_force_gives_up_what_hangs_in_a_node_that_is_removed(call: str, is_deaf: bool, seed: int) -> None:
    """What it was to give is lost, as was asked for, and told; the rest goes on."""
    notes = Notes()

    async def main() -> None:
        topology = graph(
            s=hp.source(GIVEN),
            p=hp.process(partial(hung, notes, "old", call, is_deaf), "s"),
            out=hp.collect("p"),
            other=hp.collect("s"),
            failures=hp.collect(hp.ERRORS),
        )
        async with hp.Plumbing(topology) as plumbing:
            await asyncio.sleep(AT_S)
            with pytest.raises(hp.ChangeTimeout) as late:
                await plumbing.apply(plumbing.topology.remove("out").remove("p"), timeout_s=0.1)
            late.value.change.force("p")
            await late.value.change.wait_settled()
            await plumbing.join()
            assert plumbing.collected()["other"] == [0, 1, 2, 3]
            (failure,) = plumbing.collected()["failures"]
            assert (failure.key, failure.reason) == ("p", "given up")

    testing.run(main, seed=seed)
    assert notes.hung == [f"old {call}"]


@pytest.mark.parametrize("call", ["snapshot", "restore", "close", "end"])
@pytest.mark.parametrize("flavour", ["async state", "async"])
def test_a_cancellation_of_its_own_holds_the_node(flavour: str, call: str, seed: int) -> None:
    """What user code awaits may be cancelled by others: that is a failure like any other."""
    notes = Notes()
    name = "new" if call == "restore" else "old"

    Cancelled = type("Cancelled", (FLAVOURS[flavour],), {})

    async def cancelled(process: Any, *args: Any) -> Any:
        if process.name == name and f"{name} {call}" not in notes.hung:
            notes.hung.append(f"{name} {call}")
            future = asyncio.get_running_loop().create_future()
            future.cancel()
            await future
        result = getattr(FLAVOURS[flavour], call)(process, *args)
        return await result if asyncio.iscoroutine(result) else result

    setattr(Cancelled, call, cancelled)
    how: Any = "flush" if call == "end" else "carry"

    async def main() -> list[Any]:
        def make(made: str) -> hp.Node:
            return hp.process(partial(Cancelled, notes, made), "s", state=how)

        async with hp.Plumbing(graph(s=hp.source(GIVEN), p=make("old"), out=hp.collect("p"))) as plumbing:
            await asyncio.sleep(AT_S)
            with pytest.raises(hp.HandoverError) as held:
                await plumbing.replace("p", make("new"))
            assert isinstance(held.value.__cause__, asyncio.CancelledError)
            plumbing.retry("p")
            await plumbing.join()
            return plumbing.collected()["out"]

    found = testing.run(main, seed=seed)
    assert [value for _, value, _ in found if value != "end"] == [0, 1, 2, 3]


@pytest.mark.parametrize("is_deaf", [False, True], ids=["heeds", "deaf"])
@pytest.mark.parametrize("after_s", [0, 1])
def test_force_gives_up_the_beginning_of_what_is_exclusive(after_s: float, is_deaf: bool, seed: int) -> None:
    """Without a process the node cannot go on, so it holds: that may be tried again, or repaired with another."""
    notes = Notes()

    class Exclusive(Later):
        async def begin(self, context: hp.Context) -> None:
            if not notes.hung:
                notes.hung.append("begin")
                with suppress(*([asyncio.CancelledError] if is_deaf else [])):
                    await asyncio.sleep(PATIENCE_S)
                await asyncio.sleep(PATIENCE_S / 10)
            await super().begin(context)

    async def main() -> list[Any]:
        def make(name: str) -> hp.Node:
            return hp.process(partial(hp.exclusive(Exclusive) if name == "new" else Plain, notes, name), "s")

        async with hp.Plumbing(graph(s=hp.source(GIVEN), p=make("old"), out=hp.collect("p"))) as plumbing:
            await asyncio.sleep(AT_S)
            with pytest.raises(hp.ChangeTimeout) as late:
                await plumbing.apply(plumbing.topology.replace("p", make("new")), timeout_s=after_s)
            late.value.change.force("p")
            await asyncio.sleep(10)
            assert plumbing.statistics().nodes["p"].state == "holding"
            plumbing.retry("p")
            await late.value.change.wait_settled()
            await plumbing.join()
            await asyncio.sleep(PATIENCE_S)  # what was left behind comes back
            return plumbing.collected()["out"]

    found = testing.run(main, seed=seed)
    assert [value for _, value, _ in found if value != "end"] == [0, 1, 2, 3]
    assert [count for _, value, count in found if value != "end"] == [1, 2, 3, 4]


def test_a_hand_over_that_is_held_outlives_its_readers(seed: int) -> None:
    """Nobody wants more of the node, but the change is still to come through."""
    notes = Notes(failing={"old snapshot"})

    class Few:
        """Takes no more after a second."""

        def begin(self, context: hp.Context) -> None:
            context.wake_at(now() + 1)
            self.context = context

        def process(self, value: Any) -> Any:
            return value

        def wake(self, _: float) -> None:
            self.context.finish()

    async def main() -> None:
        topology = graph(
            s=hp.source(GIVEN), p=node_of("plain", notes, "old"), few=hp.process(Few, "p"), out=hp.collect("few")
        )
        async with hp.Plumbing(topology) as plumbing:
            await asyncio.sleep(AT_S)
            with pytest.raises(hp.HandoverError):
                await plumbing.replace("p", node_of("plain", notes, "new"))
            await asyncio.sleep(1)
            assert plumbing.statistics().nodes["few"].state == "finished"
            assert plumbing.statistics().nodes["p"].state == "holding"
            notes.failing.clear()
            plumbing.retry("p")
            assert (await plumbing.add("late", hp.collect("s"))).epoch == 2
            await plumbing.join()
        assert notes.closed == {"old": 1, "new": 1}

    testing.run(main, seed=seed)


def test_a_new_reader_that_finishes_before_it_reads_leaves_the_others_theirs(seed: int) -> None:
    """The node goes on for those, though the one that comes first among its links is closed already."""
    notes = Notes()

    class One:
        """Takes no more than one value."""

        def begin(self, context: hp.Context) -> None:
            self.context = context

        def process(self, value: Any) -> None:
            self.context.finish()

    async def main() -> list[Any]:
        topology = graph(
            s=hp.source(GIVEN),
            t=hp.source(testing.script([testing.Pause(AT_S + 1.5 * LATER_S), "amid the hand-over"])),
            t_out=hp.collect("t"),
            p=node_of("async", notes, "old", "fresh"),
            out=hp.collect("p"),
        )
        async with hp.Plumbing(topology) as plumbing:
            await asyncio.sleep(AT_S)
            edited = plumbing.topology.update(
                {
                    "p": node_of("async", notes, "new", "fresh"),
                    "a": hp.process(One, "p", "t"),
                    "a out": hp.collect("a"),
                    "out": None,
                    "z out": hp.collect("p"),
                }
            )
            change = await plumbing.apply(edited)
            assert plumbing.statistics().nodes["a"].state == "finished"
            assert change.state == {"p": "fresh"}
            await plumbing.join()
            return plumbing.collected()["z out"]

    assert [value for _, value, _ in testing.run(main, seed=seed) if value != "end"] == [2, 3]
