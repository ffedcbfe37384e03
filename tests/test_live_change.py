"""A running graph is changed: no family meets both versions, every trail lies in one reign, nothing is lost."""

from __future__ import annotations

import asyncio
import random
import sys
from collections import defaultdict
from contextlib import suppress
from typing import Any

import pytest

import hotplumb as hp
from hotplumb import testing
from hotplumb._changes import Changing

SEEDS = range(400)  # fixed, so that a failure here is a failure everywhere


class Live:
    """One random graph under up to four random changes, and what its sinks saw."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.seen: list[tuple[Any, tuple[hp.Hop, ...], hp.Origin]] = []
        self.met: dict[hp.Origin, set[hp.Hop]] = defaultdict(set)
        self.reigns: list[dict[Any, int]] = []
        self.changes: list[hp.Change] = []
        self.items = self.rng.randint(3, 20)
        self.kinds: dict[Any, str] = {}
        self.options = {("n", i): (self.capacity(), self.rng.choice([0, 0.001, 0.01])) for i in range(8)}

    def capacity(self) -> int:
        return self.rng.choice([1, 1, 2, 3, 100])

    def source(self, key: Any) -> hp.Node:
        async def slowly() -> Any:
            for i in range(self.items):
                yield (key, i)
                await asyncio.sleep(0.003)

        def quickly() -> Any:
            return ((key, i) for i in range(self.items))

        return hp.source(self.rng.choice([slowly, quickly]))

    def node(self, key: Any, reads: list[Any], version: int) -> hp.Node:
        capacity, delay_s = self.options[key]

        def same(value: Any, version: int = version) -> Any:
            return value

        async def slowly(value: Any, version: int = version) -> Any:
            await asyncio.sleep(delay_s)
            return value

        def twice(value: Any, version: int = version) -> Any:
            return [value, value]

        def most(value: Any, version: int = version) -> bool:
            return bool(value[1] % 3)

        def count(state: int, value: Any, version: int = version) -> Any:
            return state + 1, [value]

        match self.kinds[key]:
            case "map":
                return hp.map(same, *reads, capacity=capacity)
            case "slow":
                return hp.map(slowly, *reads, capacity=capacity)
            case "concurrent":
                return hp.map(slowly, *reads, capacity=capacity, concurrency=3)
            case "flat_map":
                return hp.flat_map(twice, *reads, capacity=capacity)
            case "filter":
                return hp.filter(most, *reads, capacity=capacity)
        return hp.stateful(count, 0, *reads, capacity=capacity)

    def sink(self, key: Any, reads: list[Any]) -> hp.Node:
        def see(_: Any) -> None:
            trail = hp.current_item().trail
            self.seen.append((key, trail.hops, trail.origin))
            self.met[trail.origin].update(trail.hops)

        return hp.sink(see, *reads, capacity=self.capacity())

    def topology(self) -> hp.Topology:
        rng, topology = self.rng, hp.Topology()
        keys: list[Any] = [("s", i) for i in range(rng.randint(1, 2))]
        for key in keys:
            topology = topology.add(key, self.source(key))
        unread = set(keys)
        for i in range(rng.randint(2, 7)):
            key, reads = ("n", i), rng.sample(keys, min(len(keys), rng.choice([1, 1, 2, 3])))
            self.kinds[key] = rng.choice(["map", "map", "slow", "concurrent", "flat_map", "filter", "stateful"])
            topology = topology.add(key, self.node(key, reads, 0))
            keys.append(key)
            unread = unread - set(reads) | {key}
        for key in sorted(unread):
            topology = topology.add(("out", key), self.sink(("out", key), [key]))
        return topology

    def edited(self, reigns: hp.Topology, version: int) -> hp.Topology:
        edits = {}
        for _ in range(self.rng.randint(1, 2)):
            active: Any = reigns.active
            nodes = sorted(key for key in active if key[0] == "n")
            if not nodes:
                break
            key = self.rng.choice(nodes)
            reads = list(reigns.reads(key))
            if self.rng.random() < 0.4:
                below = reigns.downstream(key) | {key}
                free = sorted(other for other in active if other not in below and other[0] != "out")
                reads = self.rng.sample(free, min(len(free), self.rng.choice([1, 1, 2])))
            edits[key] = self.node(key, reads, version)
        try:
            return reigns.update(edits)
        except hp.CycleError:
            return reigns  # two rewirings that read each other

    async def play(self) -> None:
        async with hp.Plumbing(self.topology()) as plumbing:
            self.note(plumbing)
            for version in range(1, self.rng.randint(2, 5)):
                await asyncio.sleep(self.rng.choice([0, 0, 0.001, 0.004, 0.02]))
                async with asyncio.timeout(1000):
                    self.changes.append(await plumbing.apply(self.edited(plumbing.topology, version)))
                self.note(plumbing)
            async with asyncio.timeout(1000):
                await plumbing.join()
            for change in self.changes:
                async with asyncio.timeout(1000):
                    await change.wait_settled()

    def note(self, plumbing: hp.Plumbing) -> None:
        reigns = plumbing.topology
        self.reigns.append({key: reigns.epoch_of(key) for key in reigns.active})

    def mixed(self) -> list[Any]:
        """Families that met two versions of what one change touched."""
        return [
            (origin, change.epoch, met)
            for change in self.changes
            for origin, met in self.met.items()
            if len({hop.epoch >= change.epoch for hop in met if hop.key in change.touched}) > 1
        ]

    def homeless(self) -> list[Any]:
        """Trails that lie in no topology that reigned."""
        return [
            hops
            for _, hops, _ in self.seen
            if not any(all(reign.get(hop.key) == hop.epoch for hop in hops) for reign in self.reigns)
        ]


def played(seed: int) -> Live:
    live = Live(seed)
    testing.run(live.play, seed=seed)
    return live


@pytest.mark.parametrize("part", range(4))
def test_no_family_meets_both_versions_and_every_trail_lies_in_one_reign(part: int) -> None:
    """Random graphs, up to four random changes in quick succession; each change ends, and settles."""
    for seed in SEEDS[part::4]:
        live = played(seed)
        assert (live.mixed(), live.homeless()) == ([], []), f"seed {seed}"


@pytest.mark.parametrize("clause", ["family", "paths"])
def test_a_clause_left_out_of_the_region_is_caught(clause: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The property can fail."""

    monkeypatch.setattr(Changing, "without", clause)
    assert any(played(seed).mixed() for seed in range(60))


async def ticks() -> Any:
    number = 0
    while True:
        yield number
        number += 1
        await asyncio.sleep(0.001)


def old(value: int) -> tuple[str, int]:
    return "old", value


def new(value: int) -> tuple[str, int]:
    return "new", value


def test_a_replaced_map_in_a_chain_is_a_region_of_one(seed: int) -> None:
    """It switches at once; every item goes through one version, in order, and `inverse` goes back."""

    async def main() -> None:
        seen: list[tuple[str, int]] = []
        topology = (
            hp.Topology().add("n", hp.source(ticks)).add("m", hp.map(old, "n")).add("out", hp.sink(seen.append, "m"))
        )
        async with hp.Plumbing(topology) as plumbing:
            await asyncio.sleep(0.02)
            change = await plumbing.replace("m", hp.map(new, "n"))
            assert change.epoch == 1
            assert change.touched == change.region == change.heads == frozenset(["m"])
            await asyncio.sleep(0.02)
            await change.wait_settled()
            back = await plumbing.apply(change.inverse)
            assert (back.epoch, plumbing.epoch, plumbing.topology == topology) == (2, 2, True)
            await asyncio.sleep(0.02)
        assert [number for _, number in seen] == list(range(len(seen)))
        versions = [version for version, _ in seen]
        first, last = versions.index("new"), len(versions) - versions[::-1].index("new")
        assert set(versions[:first]) == {"old"} == set(versions[last:])
        assert set(versions[first:last]) == {"new"}

    testing.run(main, seed=seed)


class Counting:
    def __init__(self) -> None:
        self.count = 0

    def process(self, _: Any) -> Any:
        self.count += 1
        return self.count

    def snapshot(self) -> int:
        return self.count

    def restore(self, state: int) -> None:
        self.count = state


class CountingAnew(Counting):
    """Another process."""


@pytest.mark.parametrize(("state", "carried"), [("carry", True), ("fresh", False), (lambda count: count, True)])
def test_a_replaced_process_begins_with_the_state_it_is_given(state: Any, carried: bool, seed: int) -> None:
    """`snapshot` of the old one, `restore` of the new one."""

    async def main() -> None:
        seen: list[int] = []
        topology = hp.Topology().add("n", hp.source(ticks)).add("c", hp.process(Counting, "n"))
        async with hp.Plumbing(topology.add("out", hp.sink(seen.append, "c"))) as plumbing:
            await asyncio.sleep(0.02)
            await plumbing.replace("c", hp.process(CountingAnew, "n", state=state))
            before = len(seen)
            await asyncio.sleep(0.02)
        assert (seen == list(range(1, len(seen) + 1))) == carried
        assert before < len(seen)

    testing.run(main, seed=seed)


def test_what_cannot_start_rejects_the_change_and_the_graph_has_not_noticed(seed: int) -> None:
    """What was opened is closed, the epoch and the topology stay, items flow on."""
    closed = []

    class Broken:
        def begin(self, _: hp.Context) -> None:
            raise ValueError("no")

        def process(self, value: Any) -> Any:
            return value

        def close(self) -> None:
            closed.append(1)

    async def main() -> None:
        seen: list[int] = []
        topology = hp.Topology().add("n", hp.source(ticks)).add("out", hp.sink(seen.append, "n"))
        async with hp.Plumbing(topology) as plumbing:
            broken = plumbing.topology.update({"b": hp.process(Broken, "n"), "o": hp.sink(print, "b")})
            with pytest.raises(hp.ChangeRejected, match='"b" could not start: ValueError: no') as rejected:
                await plumbing.apply(broken)
            assert isinstance(rejected.value.__cause__, ValueError)
            assert (plumbing.epoch, plumbing.topology == topology, closed) == (0, True, [1])
            await asyncio.sleep(0.01)
        assert seen

    testing.run(main, seed=seed)


def test_the_second_of_two_edits_of_one_base_is_stale(seed: int) -> None:
    """Applying it would undo the first; an edit of what reigns is welcome."""

    async def main() -> None:
        topology = hp.Topology().add("n", hp.source(ticks)).add("out", hp.sink(id, "n"))
        async with hp.Plumbing(topology) as plumbing:
            one = plumbing.topology.add("one", hp.sink(abs, "n"))
            two = plumbing.topology.add("two", hp.sink(abs, "n"))
            await plumbing.apply(one)
            with pytest.raises(hp.StaleTopology, match="reigns no longer"):
                await plumbing.apply(two)
            await plumbing.add("two", hp.sink(abs, "n"))
            assert plumbing.topology.sinks == ("one", "out", "two")

    testing.run(main, seed=seed)


def test_a_change_that_no_node_has_switched_in_is_withdrawn_when_its_time_is_up(seed: int) -> None:
    """It names who holds it up and why; the next change finds the graph as it was."""

    async def main() -> None:
        async def slow(value: int) -> int:
            await asyncio.sleep(100)
            return value

        topology = hp.Topology().add("n", hp.source(range(3))).add("m", hp.map(slow, "n")).add("out", hp.collect("m"))
        async with hp.Plumbing(topology) as plumbing:
            await asyncio.sleep(1)
            with pytest.raises(hp.ChangeTimeout, match='"m" is busy in user code for 2 s; it is withdrawn') as late:
                await plumbing.apply(plumbing.topology.replace("m", hp.map(old, "n")), timeout_s=1)
            assert late.value.withdrawn
            assert late.value.waiting_for == {"m": "is busy in user code for 2 s"}
            assert plumbing.epoch == 0
            await plumbing.join()
            assert plumbing.collected() == {"out": [0, 1, 2]}

    testing.run(main, seed=seed)


def calls_of_a_change(readers: int) -> int:
    """How many Python calls it takes to replace one of so many maps that read one source."""

    async def main() -> int:
        nodes: dict[Any, hp.Node] = {"s": hp.source(ticks)}
        for number in range(readers):
            nodes["m", number] = hp.map(abs, "s")
            nodes["out", number] = hp.sink(id, ("m", number))
        async with hp.Plumbing(hp.Topology().update(nodes)) as plumbing:
            await asyncio.sleep(0)
            calls = 0

            def count(_: Any, event: str, __: Any) -> None:
                nonlocal calls
                calls += event == "call"

            await (await plumbing.replace(("m", 0), hp.map(id, "s"))).wait_settled()
            sys.setprofile(count)
            try:
                await plumbing.replace(("m", 1), hp.map(id, "s"))
            finally:
                sys.setprofile(None)
            return calls

    return testing.run(main, seed=0)


def test_what_a_change_costs_does_not_grow_with_what_it_does_not_touch() -> None:
    """A thousand readers of the same source are not asked."""
    few, many = calls_of_a_change(10), calls_of_a_change(1_000)
    assert many < few + 200, (few, many)


def test_waiting_for_a_change_to_settle_ends_with_the_plumbing(seed: int) -> None:
    """Begun before the plumbing was left, or after."""

    async def main() -> None:
        async def slow(_: int) -> None:
            await asyncio.sleep(100)

        topology = hp.Topology().add("n", hp.source(range(5))).add("m", hp.map(abs, "n")).add("out", hp.sink(slow, "m"))
        with suppress(KeyError):
            async with hp.Plumbing(topology) as plumbing:
                await asyncio.sleep(1)
                change = await plumbing.replace("m", hp.map(int, "n"))
                early = asyncio.create_task(change.wait_settled())
                await asyncio.sleep(1)
                raise KeyError("leave")
        for waiting in (early, change.wait_settled()):
            with pytest.raises(hp.UsageError, match="has stopped"):
                await asyncio.wait_for(waiting, 1)

    testing.run(main, seed=seed)


def test_what_is_only_to_be_read_and_closed_holds_up_nothing(seed: int) -> None:
    """A process that has finished with what it had picked reads what a change gives it."""

    class Picky:
        def begin(self, context: hp.Context) -> None:
            self.context = context
            context.reads = ["a"]

        def process(self, value: int) -> int:
            self.context.finish()
            return value

    def picky(*reads: str) -> hp.Node:
        return hp.process(Picky, *reads)

    async def main() -> dict[Any, list[Any]]:
        topology = (
            hp.Topology()
            .add("a", hp.source([1, 2]))
            .add("b", hp.source([3, 4]))
            .add("p", picky("a", "b"))
            .add("out", hp.collect("p"))
        )
        async with hp.Plumbing(topology) as plumbing:
            await asyncio.sleep(1)
            await plumbing.apply(plumbing.topology.update({"c": hp.source([5, 6]), "p": picky("a", "c")}))
            await plumbing.join()
            return plumbing.collected()

    assert testing.run(main, seed=seed) == {"out": [1, 5]}


class Last:
    """Takes one value, and has that in hand for five seconds."""

    def begin(self, context: hp.Context) -> None:
        self.context = context

    async def process(self, value: int) -> list[int]:
        self.context.finish()
        await asyncio.sleep(5)
        return [value]


def test_a_change_settles_when_a_finished_node_has_sent_what_met_the_old_version(seed: int) -> None:
    """Its link is closed, and yet what came by it is under way."""

    async def main() -> None:
        topology = (
            hp.Topology()
            .add("n", hp.source(testing.script([0, testing.Pause(20), 1])))
            .add("a", hp.map(abs, "n"))
            .add("last", hp.process(Last, "a"))
            .add("out", hp.collect("last"))
            .add("all", hp.collect("a"))
        )
        async with hp.Plumbing(topology) as plumbing:
            await asyncio.sleep(2.5)
            change = await plumbing.replace("a", hp.map(int, "n"))
            assert plumbing.collected()["out"] == []
            await change.wait_settled()
            assert plumbing.collected()["out"] == [0]
            assert 5 <= asyncio.get_running_loop().time() < 10

    testing.run(main, seed=seed)


def test_a_change_settles_though_the_next_takes_a_link_away(seed: int) -> None:
    """A link that is gone is nothing to wait for, where it came in: at its writer others still are."""

    async def main() -> None:
        topology = (
            hp.Topology()
            .add("n", hp.source(testing.script([0, testing.Pause(20), 1])))
            .add("a", hp.map(abs, "n"))
            .add("b", hp.map(abs, "a"))
            .add("out", hp.collect("b"))
        )
        async with hp.Plumbing(topology) as plumbing:
            await asyncio.sleep(1)
            first = await plumbing.add("more", hp.collect("n"))
            second = await plumbing.apply(
                plumbing.topology.update({"c": hp.map(abs, "b"), "out": hp.collect("c")}),
            )
            await asyncio.wait_for(first.wait_settled(), 10)
            await asyncio.wait_for(second.wait_settled(), 10)
            await plumbing.join()
            assert plumbing.collected() == {"out": [0, 1], "more": [1]}

    testing.run(main, seed=seed)


@pytest.mark.parametrize("at_s", [2.5, 7], ids=["in hand", "passed on"])
def test_a_change_that_was_withdrawn_sends_no_marker_late(at_s: float, seed: int) -> None:
    """A node below that was about to, when it had sent what it had in hand, or read that of another, forgets it."""

    async def slowly(value: int) -> int:
        await asyncio.sleep(50 * value)
        return value

    async def main() -> None:
        topology = (
            hp.Topology()
            .add("n", hp.source([0, 1]))
            .add("a", hp.map(slowly, "n"))
            .add("last", hp.process(Last, "a"))
            .add("m", hp.map(abs, "last"))
            .add("out", hp.collect("m"))
            .add("all", hp.collect("a"))
        )
        async with hp.Plumbing(topology) as plumbing:
            await asyncio.sleep(at_s)
            plumbing.pause("m")
            with pytest.raises(hp.ChangeTimeout) as late:
                await plumbing.apply(plumbing.topology.replace("a", hp.map(abs, "n")), timeout_s=0.1)
            await late.value.change.wait_settled()
            plumbing.resume("m")
            await plumbing.join()
            assert plumbing.collected() == {"out": [0], "all": [0, 1]}

    testing.run(main, seed=seed)
