"""A node that holds is given another process at once: its item and its backlog go on, and who met both is counted."""

from __future__ import annotations

import asyncio
import random
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import pytest

import hotplumb as hp
from hotplumb import testing


async def ticks() -> AsyncIterator[int]:
    for number in range(60):
        yield number
        await asyncio.sleep(0.001)


def left(value: Any) -> Any:
    return "left", value


def right(value: Any) -> Any:
    return "right", value


def fixed(value: Any) -> Any:
    return "fixed", value


def broken_at(wanted: Any) -> Callable[[Any], Any]:
    def broken(value: Any) -> Any:
        if value == wanted:
            raise ValueError("no")
        return "old", value

    return broken


class Seen:
    """What a sink saw: values, and the trails they had."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self.trails: list[hp.Trail] = []

    def __call__(self, value: Any) -> None:
        self.values.append(value)
        self.trails.append(hp.current_item().trail)

    def crossed(self, key: Any) -> int:
        """How many families have met two versions of a node."""
        met: dict[Any, set[int]] = defaultdict(set)
        for trail in self.trails:
            met[trail.origin].update(hop.epoch for hop in trail.hops if hop.key == key)
        return sum(len(epochs) > 1 for epochs in met.values())


def chain(seen: Seen, wanted: Any = 5, source: Any = ticks) -> hp.Topology:
    return (
        hp.Topology()
        .add("n", hp.source(source))
        .add("m", hp.map(broken_at(wanted), "n", on_error=hp.hold()))
        .add("out", hp.sink(seen, "m"))
    )


def test_the_held_item_and_all_that_waits_go_to_the_new_process(seed: int) -> None:
    """Nothing is lost, order is kept, and the change says what it was."""

    async def main() -> None:
        seen = Seen()
        async with hp.Plumbing(chain(seen)) as plumbing:
            await asyncio.sleep(0.02)
            assert plumbing.statistics().nodes["m"].state == "holding"
            change = await plumbing.repair("m", hp.map(fixed, "n"))
            assert (change.epoch, plumbing.epoch, change.crossed) == (1, 1, 0)
            assert change.touched == change.replaced == change.region == change.heads == {"m"}
            assert change.topology is plumbing.topology
            assert plumbing.topology.epoch_of("m") == 1
            await change.wait_settled()
            await plumbing.join()
            assert (await plumbing.apply(change.inverse)).touched == {"m"}
        assert [number for _, number in seen.values] == list(range(60))
        assert Counter(word for word, _ in seen.values) == {"old": 5, "fixed": 55}

    testing.run(main, seed=seed)


def diamond(seen: Seen, wanted: Any, concurrency: int = 1) -> hp.Topology:
    broken = broken_at(wanted)

    async def slowly(value: Any) -> Any:
        await asyncio.sleep(0.003)
        return broken(value)

    join = hp.map(broken, "a", "b", on_error=hp.hold())
    if concurrency > 1:
        join = hp.map(slowly, "a", "b", on_error=hp.hold(), concurrency=concurrency)
    return (
        hp.Topology()
        .add("n", hp.source(range(300)))
        .add("a", hp.map(left, "n", capacity=16))
        .add("b", hp.map(right, "n", capacity=16))
        .add("m", join)
        .add("out", hp.sink(seen, "m"))
    )


@pytest.mark.parametrize("concurrency", [1, 4])
def test_families_that_met_both_processes_of_a_diamonds_join_are_counted(seeds: Any, concurrency: int) -> None:
    """`change.crossed` is what the trails show, and nothing is lost or doubled."""

    async def main() -> int:
        seen = Seen()
        async with hp.Plumbing(diamond(seen, ("right", 150), concurrency)) as plumbing:
            await asyncio.sleep(1)
            change = await plumbing.repair("m", hp.map(fixed, "a", "b"))
            await plumbing.join()
        assert change.crossed == seen.crossed("m")
        for side in ("left", "right"):
            assert [value[1] for _, value in seen.values if value[0] == side] == list(range(300))
        return change.crossed

    crossed = [testing.run(main, seed=seed) for seed in seeds(20)]
    assert any(crossed)


def test_a_repair_joins_a_change_that_waits_for_the_node(seeds: Any) -> None:
    """It has the epoch of that change, which comes through at once."""

    async def main() -> None:
        seen = Seen()
        async with hp.Plumbing(diamond(seen, ("right", 150))) as plumbing:
            await asyncio.sleep(1)
            edited = plumbing.topology.update({"n": hp.source(range(3)), "out": hp.sink(seen, "m", capacity=7)})
            waiting = asyncio.create_task(plumbing.apply(edited))
            await asyncio.sleep(1)
            assert not waiting.done()
            repair = await plumbing.repair("m", hp.map(fixed, "a", "b"))
            change = await waiting
            assert repair.epoch == change.epoch == plumbing.epoch == 1
            assert plumbing.topology.epoch_of("m") == plumbing.topology.epoch_of("out") == 1
            assert plumbing.topology.active["m"] == hp.map(fixed, "a", "b")
            await plumbing.join()
        assert repair.crossed == seen.crossed("m")
        assert Counter(value for _, value in seen.values) == Counter(
            (side, number) for side in ("left", "right") for number in [*range(300), *range(3)]
        )

    for seed in seeds(10):
        testing.run(main, seed=seed)


def test_a_change_that_replaces_the_repaired_node_too_follows_as_planned(seeds: Any) -> None:
    """The repaired process stands only until the node switches."""

    async def main() -> None:
        seen = Seen()
        async with hp.Plumbing(diamond(seen, ("right", 150))) as plumbing:
            await asyncio.sleep(1)
            edited = plumbing.topology.update({"n": hp.source(range(3)), "m": hp.map(left, "a", "b")})
            waiting = asyncio.create_task(plumbing.apply(edited))
            await asyncio.sleep(1)
            await plumbing.repair("m", hp.map(fixed, "a", "b"))
            await waiting
            assert plumbing.topology.active["m"] == hp.map(left, "a", "b")
            await plumbing.join()
        words = [word for word, _ in seen.values]
        assert set(words) == {"old", "fixed", "left"}
        assert words == sorted(words, key=["old", "fixed", "left"].index)

    for seed in seeds(10):
        testing.run(main, seed=seed)


def test_a_repair_outlives_a_change_that_is_withdrawn_or_rejected(seed: int) -> None:
    """What reigns then is what was, but for the repaired node."""

    class Slow:
        async def begin(self, _: hp.Context) -> None:
            await asyncio.sleep(10)
            raise OSError("no")

        def process(self, value: Any) -> Any:
            return value

    async def main() -> None:
        seen = Seen()
        async with hp.Plumbing(chain(seen)) as plumbing:
            await asyncio.sleep(1)
            edited = plumbing.topology.update({"s": hp.process(Slow, "n"), "o": hp.sink(id, "s")})
            rejected = asyncio.create_task(plumbing.apply(edited))
            await asyncio.sleep(1)
            repair = await plumbing.repair("m", hp.map(fixed, "n"))
            with pytest.raises(hp.ChangeRejected):
                await rejected
            assert (repair.epoch, plumbing.epoch) == (1, 1)
            assert set(plumbing.topology.active) == {"n", "m", "out"}
            assert plumbing.topology.active["m"] == hp.map(fixed, "n")
            await plumbing.join()
            assert (await plumbing.replace("m", hp.map(left, "n"))).epoch == 2
        assert len(seen.values) == 60

    testing.run(main, seed=seed)


def test_a_source_that_holds_is_repaired(seed: int) -> None:
    """The new one starts at its beginning."""

    def broken() -> Any:
        yield 1
        raise ValueError("no")

    async def main() -> list[Any]:
        topology = hp.Topology().add("n", hp.source(broken, on_error=hp.hold())).add("out", hp.collect("n"))
        async with hp.Plumbing(topology) as plumbing:
            await asyncio.sleep(1)
            await plumbing.repair("n", hp.source([2, 3]))
            await plumbing.join()
            return plumbing.collected()["out"]

    assert testing.run(main, seed=seed) == [1, 2, 3]


@pytest.mark.parametrize(
    ("key", "node", "text"),
    [
        ("n", hp.source([1]), "it holds nothing, it is"),
        ("m", hp.map(fixed, "other"), 'changes no wiring: the new node is to read what this one reads, "n"'),
        ("m", hp.sink(print, "n"), "changes no wiring"),
        ("m", hp.source([1]), "changes no wiring"),
        ("x", hp.source([1]), "is no active node"),
    ],
)
def test_what_is_no_repair_is_refused(key: Any, node: hp.Node, text: str, seed: int) -> None:
    """The node goes on holding, and the graph has not noticed."""

    async def main() -> None:
        seen = Seen()
        async with hp.Plumbing(chain(seen)) as plumbing:
            await asyncio.sleep(1)
            with pytest.raises((hp.UsageError, hp.UnknownKey), match=text):
                await plumbing.repair(key, node)
            assert (plumbing.epoch, plumbing.statistics().nodes["m"].state) == (0, "holding")

    testing.run(main, seed=seed)


def test_a_process_that_cannot_begin_does_not_repair(seed: int) -> None:
    """The node goes on holding, and what was made is closed."""
    closed = []

    class Broken:
        def begin(self, _: hp.Context) -> None:
            raise OSError("no")

        def process(self, value: Any) -> Any:
            return value

        def close(self) -> None:
            closed.append(self)

    async def main() -> None:
        seen = Seen()
        async with hp.Plumbing(chain(seen)) as plumbing:
            await asyncio.sleep(1)
            with pytest.raises(hp.ChangeRejected, match='"m" could not start: OSError: no'):
                await plumbing.repair("m", hp.process(Broken, "n"))
            assert (plumbing.epoch, plumbing.statistics().nodes["m"].state, len(closed)) == (0, "holding", 1)
            plumbing.discard("m")
            await plumbing.join()
        assert len(seen.values) == 59

    testing.run(main, seed=seed)


# -- exclusive


class Port:
    """What can be open once."""

    is_open = False


@hp.exclusive
class Listener:
    def __init__(self, name: str, port: Port, troubles: list[Exception] | None = None) -> None:
        self.name, self.port, self.troubles = name, port, troubles or []
        self.has_opened = False

    def begin(self, _: hp.Context) -> None:
        assert not self.port.is_open
        if self.troubles:
            raise self.troubles.pop()
        self.port.is_open = self.has_opened = True

    def process(self, value: Any) -> Any:
        return [(self.name, value)]

    def snapshot(self) -> str:
        return self.name

    def restore(self, name: str) -> None:
        self.name = f"{self.name} after {name}"

    def close(self) -> None:
        self.port.is_open &= not self.has_opened


class AsyncListener(Listener):
    async def begin(self, context: hp.Context) -> None:  # type: ignore[override]
        await asyncio.sleep(0.01)
        super().begin(context)

    async def close(self) -> None:  # type: ignore[override]
        await asyncio.sleep(0.01)
        super().close()


KINDS = pytest.mark.parametrize("kind", [Listener, AsyncListener, lambda *args: Listener(*args)])


def listening(kind: Any, port: Port, seen: Seen) -> hp.Topology:
    node = hp.process(making(kind, "one", port), "n")
    return hp.Topology().add("n", hp.source(ticks)).add("m", node).add("out", hp.sink(seen, "m"))


def making(kind: Any, *args: Any) -> Callable[[], Any]:
    return lambda: kind(*args)


@KINDS
def test_what_is_exclusive_begins_when_the_old_one_has_closed(kind: Any, seed: int) -> None:
    """It is never open twice, the state is handed on, and every item goes through one of the two."""

    async def main() -> None:
        seen, port = Seen(), Port()
        async with hp.Plumbing(listening(kind, port, seen)) as plumbing:
            await asyncio.sleep(0.02)
            change = await plumbing.replace("m", hp.process(making(kind, "two", port), "n"))
            assert change.state == {"m": "carried"}
            assert port.is_open
            await plumbing.join()
        assert not port.is_open
        assert [number for _, number in seen.values] == list(range(60))
        assert {name for name, _ in seen.values} == {"one", "two after one"}

    testing.run(main, seed=seed)


@KINDS
@pytest.mark.parametrize("way", ["retry", "discard", "replace", "repair"])
def test_what_cannot_begin_at_the_switch_holds_without_a_process(kind: Any, way: str, seed: int) -> None:
    """Upstream waits, `apply` raises `HandoverError`, and a retry or another process goes on."""

    async def main() -> None:
        seen, port = Seen(), Port()
        async with hp.Plumbing(listening(kind, port, seen)) as plumbing:
            await asyncio.sleep(0.02)
            troubles: list[Exception] = [OSError("in use")]
            with pytest.raises(hp.HandoverError, match="OSError: in use") as raised:
                await plumbing.replace("m", hp.process(making(kind, "two", port, troubles), "n"))
            assert (raised.value.key, port.is_open, plumbing.epoch) == ("m", False, 0)
            await asyncio.sleep(1)
            assert plumbing.statistics().nodes["m"].state == "holding"
            assert plumbing.statistics().nodes["m"].queued_items > 0
            three = hp.process(making(kind, "three", port), "n")
            match way:
                case "replace":
                    assert await plumbing.replace("m", three) is raised.value.change
                case "repair":
                    assert await plumbing.repair("m", three) is raised.value.change
                case _:
                    getattr(plumbing, way)("m")
                    await raised.value.change.wait_settled()
            assert plumbing.epoch == 1
            expected = three if way in ("replace", "repair") else plumbing.topology.active["m"]
            assert plumbing.topology.active["m"] == expected
            await plumbing.join()
        assert not port.is_open
        assert [number for _, number in seen.values] == list(range(60))
        name = {"retry": "two after one", "discard": "two"}.get(way, "three after one")
        assert {name for name, _ in seen.values} == {"one", name}

    testing.run(main, seed=seed)


def test_what_cannot_begin_while_draining_stops_the_plumbing(seed: int) -> None:
    """Nothing may be held any more, and without a process nothing goes on."""

    async def main() -> None:
        seen, port = Seen(), Port()
        async with hp.Plumbing(listening(Listener, port, seen)) as plumbing:
            await asyncio.sleep(0.02)
            troubles: list[Exception] = [OSError("in use"), OSError("in use")]
            with pytest.raises(hp.HandoverError):
                await plumbing.replace("m", hp.process(making(Listener, "two", port, troubles), "n"))

    with pytest.raises(hp.NodeError, match="in use"):
        testing.run(main, seed=seed)


def test_an_exclusive_source_is_called_when_the_old_one_has_closed(seed: int) -> None:
    """So it is with what listens on a port."""
    is_open = [False]

    def listener(name: str) -> Any:
        @hp.exclusive
        async def listen() -> AsyncIterator[Any]:
            assert not is_open[0]
            is_open[0] = True
            try:
                for number in range(20):
                    yield name, number
                    await asyncio.sleep(0.001)
            finally:
                is_open[0] = False

        return listen

    async def main() -> None:
        seen = Seen()
        topology = hp.Topology().add("n", hp.source(listener("one"))).add("out", hp.sink(seen, "n"))
        async with hp.Plumbing(topology) as plumbing:
            await asyncio.sleep(0.0055)
            await plumbing.replace("n", hp.source(listener("two")))
            await plumbing.join()
        before = seen.values.index(("two", 0))
        assert seen.values[before:] == [("two", number) for number in range(20)]
        assert seen.values[:before] == [("one", number) for number in range(before)]

    testing.run(main, seed=seed)


def test_only_what_can_be_marked_is_exclusive() -> None:
    """A builtin cannot."""
    with pytest.raises(hp.UsageError, match="give a Process class, or a function written in Python"):
        hp.exclusive(len)


# -- at random


@pytest.mark.parametrize("after_s", [1, 3])
def test_a_repair_that_is_cancelled_closes_what_it_has_opened(after_s: int, seed: int) -> None:
    """Whether the new process still begins, or is closed since it could not."""
    calls: list[str] = []

    class Failing:
        async def begin(self, _: hp.Context) -> None:
            calls.append("begin")
            await asyncio.sleep(2)
            raise OSError("not today")

        def process(self, value: Any) -> Any:
            return value

        async def close(self) -> None:
            await asyncio.sleep(2)
            calls.append("close")

    async def main() -> None:
        seen = Seen()
        async with hp.Plumbing(chain(seen)) as plumbing:
            await asyncio.sleep(1)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(after_s):
                    await plumbing.repair("m", hp.process(Failing, "n"))
            await asyncio.sleep(10)
            assert calls == ["begin", "close"]
            assert plumbing.statistics().nodes["m"].state == "holding"
            await plumbing.repair("m", hp.map(fixed, "n"))
            await plumbing.join()
        assert [number for _, number in seen.values] == list(range(60))

    testing.run(main, seed=seed)


@pytest.mark.parametrize("is_async", [False, True])
def test_a_repair_below_a_node_that_a_change_has_removed(is_async: bool, seed: int) -> None:
    """The node that holds up the rest of the change is repaired all the same, and the change comes through."""

    async def fixed_later(value: Any) -> Any:
        await asyncio.sleep(0.001)
        return fixed(value)

    async def main() -> None:
        seen = Seen()
        topology = (
            hp.Topology()
            .add("n", hp.source(ticks))
            .add("x", hp.map(abs_of, "n"))
            .add("y", hp.map(abs_of, "x"))
            .add("m", hp.map(broken_at(5), "y", on_error=hp.hold(), capacity=1))
            .add("out", hp.sink(seen, "m"))
        )
        async with hp.Plumbing(topology) as plumbing:
            await asyncio.sleep(0.5)
            edited = plumbing.topology.update({"x": None, "y": hp.map(abs_of, "n")})
            changing = asyncio.create_task(plumbing.apply(edited))
            await asyncio.sleep(0.5)
            assert "x" not in plumbing.statistics().nodes
            assert not changing.done()
            await plumbing.repair("m", hp.map(fixed_later if is_async else fixed, "y"))
            await (await changing).wait_settled()
            await plumbing.join()
        assert [number for _, number in seen.values] == list(range(60))

    testing.run(main, seed=seed)


def refusing(value: Any) -> Any:
    raise ValueError(value)


class SlowToBegin:
    """A process that takes a tenth of a second to begin."""

    def __init__(self, calls: list[str]) -> None:
        self.calls = calls

    async def begin(self, context: hp.Context) -> None:
        await asyncio.sleep(0.1)
        self.calls.append("begin")

    def process(self, value: Any) -> Any:
        return [fixed(value)]

    def close(self) -> None:
        self.calls.append("close")


@pytest.mark.parametrize("is_mended", [False, True])
def test_a_repair_looks_at_who_holds_when_it_has_begun(is_mended: bool, seed: int) -> None:
    """Who replaced the one that held is repaired if it holds too, and left alone if it does not."""

    async def main() -> list[str]:
        seen, calls = Seen(), list[str]()
        async with hp.Plumbing(chain(seen)) as plumbing:
            await asyncio.sleep(0.02)
            repair = asyncio.create_task(plumbing.repair("m", hp.process(partial(SlowToBegin, calls), "n")))
            await asyncio.sleep(0.01)
            await plumbing.replace("m", hp.map(fixed if is_mended else refusing, "n", on_error=hp.hold()))
            if is_mended:
                with pytest.raises(hp.UsageError, match="it holds nothing, it is"):
                    await repair
            else:
                assert (await repair).epoch == 2
            await plumbing.join()
        assert [number for _, number in seen.values] == list(range(60))
        return calls

    assert testing.run(main, seed=seed) == ["begin", "close"]


class HandsOverSlowly:
    """A process of one version, which has to be awaited for all that a change asks of it."""

    def __init__(self, version: int) -> None:
        self._version = version

    async def process(self, value: int) -> list[tuple[int, int]]:
        if self._version == 1 and value == 3:
            raise ValueError("no")
        return [(value, self._version)]

    async def snapshot(self) -> int:
        await asyncio.sleep(1)
        return 0

    async def restore(self, state: int) -> None:
        await asyncio.sleep(1)

    async def close(self) -> None:
        await asyncio.sleep(1)


@pytest.mark.parametrize("kind", ["repair", "replace"])
@pytest.mark.parametrize("after_s", [0.5, 1.5, 2.5], ids=["snapshot", "close", "restore"])
def test_a_node_that_is_handing_over_is_not_repaired(kind: str, after_s: float, seed: int) -> None:
    """Whatever its process is just doing; the first comes through."""

    async def main() -> None:
        first, second = (hp.process(partial(HandsOverSlowly, version), "n") for version in (2, 3))
        topology = hp.Topology().add("n", hp.source(range(6)))
        topology = topology.add("m", hp.process(partial(HandsOverSlowly, 1), "n", on_error=hp.hold()))
        async with hp.Plumbing(topology.add("out", hp.collect("m"))) as plumbing:
            await testing.settle()
            changing = asyncio.create_task(getattr(plumbing, kind)("m", first))
            await asyncio.sleep(after_s)
            with pytest.raises(hp.UsageError, match="handing over to another process already"):
                await plumbing.repair("m", second)
            await changing
            await plumbing.join()
            assert plumbing.collected()["out"] == [(value, 1 if value < 3 else 2) for value in range(6)]

    testing.run(main, seed=seed)


def test_a_repair_while_a_reader_that_has_finished_is_removed(seed: int) -> None:
    """That has left at once, for it reads no more; who wrote to it has not gone on yet."""

    class First:
        def begin(self, context: Any) -> None:
            self._context = context

        def process(self, value: Any) -> Any:
            self._context.finish()
            return value

    async def main() -> None:
        topology = hp.Topology().add("n", hp.source(ticks)).add("a", hp.map(left, "n"))
        topology = topology.add("b", hp.map(broken_at(("left", 3)), "a", on_error=hp.hold()))
        topology = topology.add("out", hp.collect("b")).add("first", hp.process(First, "b"))
        async with hp.Plumbing(topology.add("o2", hp.collect("first"))) as plumbing:
            await asyncio.sleep(0.01)
            assert plumbing.statistics().nodes["b"].state == "holding"
            new = plumbing.topology.update({"a": hp.map(right, "n"), "o2": None})
            applied = asyncio.create_task(plumbing.apply(new))
            await asyncio.sleep(0.01)
            repaired = await plumbing.repair("b", hp.map(fixed, "a"))
            change = await asyncio.wait_for(applied, 10)
            assert change.epoch == repaired.epoch
            await asyncio.wait_for(repaired.wait_settled(), 10)
            await asyncio.wait_for(change.wait_settled(), 10)
            await plumbing.join()
            sides = [value[1] for value in plumbing.collected()["out"]]
            assert [value for _, value in sides] == list(range(60))
            assert sides == sorted(sides, key=lambda side: side[1])

    testing.run(main, seed=seed)


@pytest.mark.parametrize("part", range(4))
def test_repairs_at_random_lose_and_double_nothing(part: int, seeds: Any) -> None:
    """Layers of nodes that fail and are repaired while others change: all arrives, and crossing is counted."""

    async def main(rng: random.Random) -> None:
        seen, changes = Seen(), []

        def node(version: int, reads: list[Any]) -> hp.Node:
            wanted = rng.randrange(40) if rng.random() < 0.7 else None

            def plain(value: Any) -> Any:
                if wanted is not None and value[0] >= wanted:
                    raise ValueError(version)
                return value

            async def slowly(value: Any) -> Any:
                await asyncio.sleep(rng.choice([0, 0.001]))
                return plain(value)

            fn = rng.choice([plain, slowly])
            concurrency = rng.choice([1, 3]) if fn is slowly else 1
            capacity = rng.choice([1, 2, 30])
            return hp.map(fn, *reads, on_error=hp.hold(), concurrency=concurrency, capacity=capacity)

        wide = rng.randint(1, 3)
        reads: dict[Any, list[Any]] = {("a", i): ["n"] for i in range(wide)}
        reads["m"] = list(reads)
        reads["z"] = ["m"]
        topology = hp.Topology().add("n", hp.source([(i,) for i in range(40)]))
        for key in reads:
            topology = topology.add(key, node(0, reads[key]))
        async with hp.Plumbing(topology.add("out", hp.sink(seen, "z"))) as plumbing:
            joined = asyncio.create_task(plumbing.join())
            applied = []
            for version in range(1, 200):
                await asyncio.sleep(rng.choice([0, 0.001, 0.01]))
                if joined.done():
                    break
                held = [key for key in reads if plumbing.statistics().nodes[key].state == "holding"]
                if rng.random() < 0.2:
                    key = rng.choice(list(reads))
                    applied.append(asyncio.create_task(plumbing.replace(key, node(version, reads[key]))))
                elif held:
                    key = rng.choice(held)
                    try:
                        changes.append((key, await plumbing.repair(key, node(version, reads[key]))))
                    except hp.UsageError as exc:
                        if "holds nothing" not in str(exc):  # one of the changes has just replaced it
                            raise
            async with asyncio.timeout(100):
                while not joined.done():
                    for key in reads:
                        if plumbing.statistics().nodes[key].state == "holding":
                            await plumbing.repair(key, hp.map(abs_of, *reads[key]))
                    await asyncio.sleep(0.01)
            for change in applied:
                await asyncio.wait_for(change, 100)
        assert Counter(seen.values) == {(number,): wide for number in range(40)}

    for seed in seeds(50)[part::4]:
        testing.run(partial(main, random.Random(seed)), seed=seed)


def abs_of(value: Any) -> Any:
    return value
