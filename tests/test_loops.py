"""Generated loops: they do what their nodes would do one by one, and one that holds no longer is not run."""

from __future__ import annotations

import asyncio
import enum
import gc
import itertools
import logging
import random
import traceback
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import suppress
from fractions import Fraction
from functools import partial
from typing import Any

import attrs
import changing
import pytest
from changing import play, wrong_in
from running import Clock, failure_of, graph, joined, now, rounds, run, run_in_order

import hotplumb as hp
from hotplumb import _loops, _runner, testing
from hotplumb._engine import Engine
from hotplumb._loops import Loop, Stage
from hotplumb._runner import Runner
from hotplumb.keys import canonical
from hotplumb.topology import node_key

NEVER = 10**9  # more values than any test has: nothing runs as a loop
MANY = 1000  # values: more than some chunks hold

Main = Callable[[], Coroutine[Any, Any, Any]]
Nodes = dict[Any, hp.Node]


class Broken(Exception):
    """What user code raises here."""


class Watch:
    """The loops that have run, each with how many values it was given, and what failed in them."""

    def __init__(self) -> None:
        self.ran: list[tuple[Loop, int]] = []
        self.values = 0  # that loops have taken up
        self.failed: list[Stage] = []
        self._wanted: tuple[int, asyncio.Event] | None = None

    def shapes(self) -> set[str]:
        """Each loop that ran, as the keys of its nodes in order."""
        return {shape_of(loop) for loop, _ in self.ran}

    def run(self, loop: Loop, values: int) -> None:
        """A loop is given so many values."""
        self.ran.append((loop, values))
        self.values += values
        if self._wanted is not None and self.values >= self._wanted[0]:
            self._wanted[1].set()

    async def wait_taken(self, values: int) -> None:
        """Wait until loops have taken up so many values more."""
        taken = asyncio.Event()
        self._wanted = (self.values + values, taken)
        await taken.wait()


def shape_of(loop: Loop) -> str:
    """The keys of its nodes, a node as often as it is there."""
    return " ".join(sorted(str(visit.runner.key) for visit in loop._text.visits))


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    """Loops are made as early as may be, and seen to run."""
    watch, run_loop, failed = Watch(), Loop.run, Loop._count_failed

    def watched_run(loop: Loop, link: Any, chunk: Any) -> None:
        watch.run(loop, len(chunk))
        run_loop(loop, link, chunk)

    def watched_failed(loop: Loop, stage: Stage, *rest: Any) -> None:
        watch.failed.append(stage)
        failed(loop, stage, *rest)

    monkeypatch.setattr(Loop, "run", watched_run)
    monkeypatch.setattr(Loop, "_count_failed", watched_failed)
    monkeypatch.setattr(_runner, "LOOP_AFTER_ITEMS", 1)
    monkeypatch.setattr(_runner, "LOOP_PAYS_ITEMS", 1)
    monkeypatch.setattr(_runner, "LOOP_INNER_ITEMS", 256)
    return watch


@pytest.fixture(autouse=True)
def quietly(caplog: pytest.LogCaptureFixture) -> None:
    """Failures that nobody reads are logged, and many fail here."""
    caplog.set_level(logging.CRITICAL, "hotplumb")


def same(value: Any) -> Any:
    return value


def yes(value: Any) -> bool:
    return True


def ignore(value: Any) -> None:
    pass


async def slowly(value: Any) -> Any:
    await asyncio.sleep(0.001)
    return value


async def swallow(value: Any) -> None:
    await asyncio.sleep(0.001)


def parity(value: Any) -> str:
    return "odd" if value % 2 else "even"


def twice(value: Any) -> list[Any]:
    return [value, value]


def count(number: int, value: Any) -> tuple[int, list[Any]]:
    return number + 1, [value]


class Through:
    """A process that gives what it is given."""

    def process(self, value: Any) -> Any:
        return value


class Ends(Through):
    """A process that finishes after so many values."""

    def __init__(self, most: int) -> None:
        self.left = most

    def begin(self, context: Any) -> None:
        self.context = context

    def process(self, value: Any) -> Any:
        self.left -= 1
        if self.left == 0:
            self.context.finish()
        return value


def calm(main: Main) -> Main:
    """`main` where work takes no time: slices grow as large as they may, and every loop is worth while."""

    async def calmly() -> Any:
        Clock()
        return await main()

    return calmly


async def to_the_end(topology: hp.Topology) -> hp.Statistics:
    async with hp.Plumbing(topology) as plumbing:
        await plumbing.join()
        return plumbing.statistics()


def played(nodes: Nodes, seed: int) -> hp.Statistics:
    """The counts of a run to the end."""
    statistics: hp.Statistics = run(calm(partial(to_the_end, hp.Topology().update(nodes))), seed)
    return statistics


def counts(statistics: hp.Statistics) -> dict[Any, tuple[int, ...]]:
    """What is counted of items: `{key: (received, sent, failed, dropped, queued)}`."""
    return {
        key: (node.received, node.sent, node.failed, node.dropped, node.queued_items)
        for key, node in statistics.nodes.items()
    }


# --- what becomes a loop


def chain(*nodes: Callable[..., Any], items: int = MANY) -> Nodes:
    """A source, and each node a reader of the one before: "a", "b" ..."""
    found: Nodes = {"s": hp.source(range(items))}
    before = "s"
    for key, make in zip("abcdefgh", nodes, strict=False):
        found[key] = make(before)
        before = key
    return found


plain = partial(hp.map, same)
passing = partial(hp.filter, yes)
end = partial(hp.sink, ignore)

SHAPES: dict[str, tuple[Nodes, set[str]]] = {
    "a chain": (chain(plain, plain, end), {"a b c"}),
    "one node": (chain(end), {"a"}),
    "every plain kind": (
        chain(plain, passing, hp.merge, partial(hp.route, parity), end) | {"k": hp.collect("d")},
        {"a b c d e k"},
    ),
    "readers of one node": (
        {"s": hp.source(range(MANY)), "a": plain("s"), "b": end("a"), "c": plain("a"), "d": end("c")},
        {"a b c d"},
    ),
    "away and back": (
        {"s": hp.source(range(MANY)), "a": plain("s"), "b": plain("a"), "c": plain("a"), "d": end("b", "c")},
        {"a b c d d"},
    ),
    "branches of a route": (
        {
            "s": hp.source(range(MANY)),
            "a": hp.route(parity, "s"),
            "b": end(hp.output("a", "odd")),
            "c": end(hp.output("a", "even")),
            "d": end("a"),
        },
        {"a b c d"},
    ),
    "two heads, one tail": (
        {
            "s": hp.source(range(MANY)), "z": hp.source(range(MANY)),
            "a": plain("s"), "b": plain("z"), "c": end("a", "b"),
        },
        {"a c", "b c"},
    ),
    "short of an async node": (chain(plain, plain, partial(hp.sink, swallow)), {"a b"}),
    "short of calls at once": (chain(plain, plain, partial(hp.sink, swallow, concurrency=3)), {"a b"}),
    "short of a stateful": (chain(plain, partial(hp.stateful, count, 0), plain, end), {"a", "c d"}),
    "short of a flat_map": (chain(plain, partial(hp.flat_map, twice), plain, end), {"a", "c d"}),
    "short of a process": (chain(plain, partial(hp.process, Through), plain, end), {"a", "c d"}),
    "short of a map_chunk": (chain(plain, partial(hp.map_chunk, list), plain, end), {"a", "c d"}),
    "short of what starts tasks": (
        chain(plain, partial(hp.map, lambda value: (asyncio.create_task, value)[1]), plain, end),
        {"a", "c d"},
    ),
    "short of what forgets": (chain(plain, plain, lambda key: end(key).overflow("drop_oldest")), {"a b", "c"}),
    "a node that may hold": (chain(plain, partial(hp.map, same, on_error=hp.hold()), end), {"a b c"}),
    "short of one that may hold under a condition": (
        chain(passing, partial(hp.map, same, on_error=hp.hold()), end),
        {"a", "b c"},
    ),
    "an async source": (chain(plain, end) | {"s": hp.source(testing.script(range(MANY)))}, {"a b"}),
}  # fmt: skip


@pytest.mark.parametrize(("nodes", "shapes"), SHAPES.values(), ids=SHAPES)
def test_neighbouring_plain_nodes_run_as_one_loop(nodes: Nodes, shapes: set[str], watch: Watch, seed: int) -> None:
    """As far as plain functions give one answer a value, and no further; at first without what nobody knows yet."""
    played(nodes, seed)
    assert shapes <= watch.shapes()
    for shape in watch.shapes() - shapes:
        assert any(Counter(shape.split()) <= Counter(other.split()) for other in shapes), shape


def test_one_call_of_a_function_in_c_gains_nothing_from_a_loop(watch: Watch, seed: int) -> None:
    """It is mapped in C as it is; two of them do gain."""
    played(chain(partial(hp.map, abs), partial(hp.sink, swallow)), seed)
    assert watch.shapes() == set()
    played(chain(partial(hp.map, abs), partial(hp.map, str), partial(hp.sink, swallow)), seed)
    assert watch.shapes() == {"a b"}


def test_the_first_value_goes_ahead_alone(watch: Watch, seed: int) -> None:
    """It shows how long each node takes, and nothing is made for one value."""
    played(chain(plain, end, items=1), seed)
    assert not watch.ran
    played(chain(plain, end), seed)
    assert watch.values == MANY - 1


def test_nodes_whose_values_take_long_take_turns(watch: Watch, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A loop over them would hold up the line for all of them together."""
    monkeypatch.setattr(_runner, "LOOP_INNER_ITEMS", NEVER)

    async def main(seconds: float) -> None:
        clock = Clock()

        def work(value: Any) -> Any:
            clock.work(seconds)
            return value

        await joined(graph(s=hp.source(range(MANY)), a=hp.map(work, "s"), b=hp.map(work, "a"), c=hp.sink(work, "b")))

    run(partial(main, 120e-6), seed)
    assert not watch.ran
    run(partial(main, 10e-6), seed)
    assert "a b c" in watch.shapes()


def test_a_loop_that_has_become_slow_is_given_up(watch: Watch, seed: int) -> None:
    """And its nodes take turns again."""

    async def main() -> None:
        clock = Clock()

        def work(value: int) -> int:
            clock.work(1e-6 if value < 5_000 else 200e-6)
            return value

        await joined(graph(s=hp.source(range(6_000)), a=hp.map(work, "s"), b=hp.map(work, "a"), c=end("b")))

    run(main, seed)
    assert 4_000 < sum(values for loop, values in watch.ran if shape_of(loop) == "a b c") < 5_500


def long_chain(length: int, make: Callable[[int, Any], hp.Node]) -> Nodes:
    nodes: Nodes = {"s": hp.source(range(100))}
    before: Any = "s"
    for i in range(length):
        nodes[i] = make(i, before)
        before = i
    return nodes | {"out": hp.collect(before)}


@pytest.mark.parametrize("length", [_loops.MOST_LINES, 1000])
def test_long_chains_are_several_loops(length: int, watch: Watch, seed: int) -> None:
    """Each begins where the one before ends."""
    nodes = long_chain(length, lambda i, before: hp.map(same, before))
    statistics = played(nodes, seed)
    assert statistics.nodes["out"].received == 100
    sizes = [len(shape.split()) for shape in watch.shapes()]
    assert max(sizes) == _loops.MOST_LINES
    assert sum(sizes) == length


def test_conditions_within_each_other_are_several_loops(watch: Watch) -> None:
    """Python allows but so many."""
    nodes = long_chain(60, lambda i, before: hp.filter(yes, before)) | {"s": hp.source(range(3000))}
    statistics = run_in_order(calm(partial(to_the_end, hp.Topology().update(nodes))))
    assert statistics.nodes["out"].received == 3000
    found = [shape.split() for shape in watch.shapes()]
    assert len(set(itertools.chain(*found))) >= 60
    assert max(map(len, found)) == _loops.MOST_DEEP


@pytest.mark.parametrize("every", [1, 3, NEVER])
def test_merges_in_a_chain_of_any_length_loop(every: int, watch: Watch, seed: int) -> None:
    """Though they call nothing, and so have no line of their own."""
    nodes = long_chain(700, lambda i, before: hp.merge(before) if i % every else hp.map(same, before))
    assert played(nodes, seed).nodes["out"].received == 100
    assert watch.ran


@pytest.mark.parametrize("kind", ["broadcast", "route", "broadcast to what waits", "route to what waits"])
def test_a_loop_stays_small_however_many_read_a_node(kind: str, watch: Watch, seed: int) -> None:
    """It is made between two items: the event loop waits meanwhile, and each exit costs every slice."""
    width, fn = 300, swallow if "waits" in kind else ignore
    nodes: Nodes = {"s": hp.source(range(100)), "a": plain("s")}
    if "route" in kind:
        nodes["a"] = hp.route(lambda value: value % width, "s")
    for i in range(width):
        nodes[i] = hp.sink(fn, hp.output("a", i) if "route" in kind else "a")
    statistics = played(nodes, seed)
    assert sum(statistics.nodes[i].received for i in range(width)) == (100 if "route" in kind else 100 * width)
    sizes = [len(loop._text.exits) + len(loop._text.visits) for loop, _ in watch.ran]
    assert max(sizes, default=0) <= _loops.MOST_LINES


def test_a_loop_that_is_not_worth_while_is_not_kept(watch: Watch, seed: int) -> None:
    """It is made again now and then, and each would stay with all its nodes."""

    async def main() -> int:
        topology = graph(s=hp.source(range(15_000)), a=hp.map(abs, "s"), b=hp.sink(swallow, "a", concurrency=1000))
        async with hp.Plumbing(topology) as plumbing:
            runner = plumbing._engine.runner("a")
            most = 0
            while plumbing.statistics().nodes["b"].received < 15_000:
                most = max(most, len(runner.loops or ()))
                await asyncio.sleep(0.001)
            return most

    assert run(calm(main), seed) == 2  # its own, and that of the source


# --- the same as without loops


class Code:
    """The user function of one node: what it does depends on the value alone, and it writes down what it was given."""

    def __init__(self, key: str, kind: str, salt: int, clock: Clock, log: list[Any], is_flaky: bool) -> None:
        self.key = key
        self.kind = kind
        self.salt = salt
        self.clock = clock
        self.log = log
        self.is_flaky = is_flaky
        self.attempts: Counter[Any] = Counter()

    def __call__(self, value: int) -> Any:
        item = hp.current_item()
        way = tuple(hop.key for hop in item.trail.hops)
        self.clock.work((value + self.salt) % 7 * 1e-7)
        assert item.value is value
        assert all(hop.epoch == 0 for hop in item.trail.hops)
        self.attempts[way, item.origin.number] += 1
        self.log.append((self.key, way, item.origin.number, value))
        self._fail(value, self.attempts[way, item.origin.number])
        drawn = (value * 2654435761 + self.salt) >> 7
        match self.kind:
            case "map":
                return drawn % 100_003
            case "filter":
                return drawn % 3 > 0
            case "route":
                return ("a", "b", ("c", 1), "nobody")[drawn % 4]
            case "flat_map":
                return [drawn % 100_003] * (drawn % 3)
            case "process":
                return self._gathered(drawn % 100_003, drawn % 24)
        return None

    def _gathered(self, value: int, way: int) -> Any:
        """What a process gives, which is seldom anything; in all the forms there are."""
        forms: dict[int, Any] = {0: [value], 1: (value + i for i in range(20)), 2: hp.to("a", value), 3: [], 4: value}
        return forms.get(way)

    def _fail(self, value: int, attempts: int) -> None:
        """Some values fail once, some twice, some for ever."""
        drawn = (value * 40503 + self.salt) >> 3
        if self.is_flaky and drawn % 29 == 0 and attempts <= (1, 2, NEVER)[drawn % 3]:
            raise (Broken(value) if drawn % 5 else asyncio.CancelledError(value))

    def step(self, number: int, value: int) -> tuple[int, list[int]]:
        self(value)
        return number + 1, [value]

    async def awaited(self, value: int) -> Any:
        if value % 5 == 0:
            await asyncio.sleep(value % 3 * 0.001)
        return self(value)


class Gatherer:
    """A process of a code."""

    def __init__(self, code: Code) -> None:
        self.code = code

    def begin(self, context: hp.Context) -> None:
        self.context = context

    def process(self, value: int) -> Any:
        assert node_key(self.context.source) == hp.current_item().trail.keys[-1]
        return self.code(value)


KINDS = {"map": 30, "filter": 14, "merge": 10, "route": 14, "sink": 8, "process": 8}
KINDS |= {"flat_map": 3, "stateful": 3, "async map": 3}
POLICIES = (hp.discard(), hp.retry(1, delay_s=0.01, then=hp.discard()), hp.hold())
OUTPUTS = ("a", "b", ("c", 1))


class Tree:
    """A random graph, mostly of plain nodes; the same for the same seed."""

    def __init__(self, seed: int, clock: Clock, log: list[Any]) -> None:
        self.rng = random.Random(seed)
        self.clock = clock
        self.log = log
        self.nodes: Nodes = {}
        self.volume: dict[Any, int] = {}
        self.outputs: dict[Any, tuple[Any, ...]] = {}  # {key: what may be read of it}
        self.capacities = self.rng.choice([(1,), (1, 2, 3, 7), (1024,), (1024,), (5, 300, 1024)])
        self.flakiness = self.rng.choice([0, 0, 0.2, 0.6])
        for i in range(self.rng.choice([1, 1, 1, 2])):
            self._add(f"s{i}", hp.source(range(self.rng.choice([30, 120, 300]))), 300, (f"s{i}",))
        for i in range(self.rng.randint(2, 12)):
            self._grow(f"n{i}", givers=self._two_ways(i) if self.rng.random() < 0.3 else None)
        for i, key in enumerate(self._unread()):
            self._grow(f"t{i}", self.rng.choice(["sink", "sink", "sink", "collect", "collect", "async sink"]), [key])

    def _add(self, key: str, node: hp.Node, volume: int, outputs: tuple[Any, ...]) -> None:
        self.nodes[key], self.volume[key], self.outputs[key] = node, volume, outputs

    def _two_ways(self, i: int) -> list[str]:
        """Two readers of one node."""
        giver = self.rng.choice([key for key, node in self.nodes.items() if not node.is_sink])
        for side in "xy":
            self._grow(f"n{i}{side}", self.rng.choice(["map", "map", "filter", "merge"]), [giver])
        return [f"n{i}x", f"n{i}y"]

    def _unread(self) -> list[str]:
        read = {node_key(read) for node in self.nodes.values() for read in node.reads}
        return [key for key, node in self.nodes.items() if not node.is_sink and key not in read]

    def _grow(self, key: str, kind: str | None = None, givers: list[str] | None = None) -> None:
        rng = self.rng
        kind = kind or rng.choices(list(KINDS), list(KINDS.values()))[0]
        if givers is None:
            senders = [found for found, node in self.nodes.items() if not node.is_sink]
            senders = senders[-4:] if rng.random() < 0.6 else senders
            givers = rng.sample(senders, min(len(senders), rng.choice([1, 1, 1, 2, 3])))
        while len(givers) > 1 and sum(self.volume[giver] for giver in givers) > 600:
            givers.pop()
        reads = [rng.choice(self.outputs[giver]) for giver in givers]
        options: dict[str, Any] = {"capacity": rng.choice(self.capacities)}
        is_flaky = rng.random() < self.flakiness
        code = Code(key, kind.removeprefix("async "), rng.randrange(2**32), self.clock, self.log, is_flaky)
        if is_flaky and kind not in ("merge", "collect"):
            options["on_error"] = rng.choice(POLICIES)
        volume = sum(self.volume[giver] for giver in givers) * (2 if kind == "flat_map" else 1)
        is_named = kind in ("route", "process")
        outputs = (key, *(hp.output(key, name) for name in OUTPUTS)) if is_named else (key,)
        self._add(key, self._node(kind, code, reads, options), volume, outputs)

    def _node(self, kind: str, code: Code, reads: list[Any], options: dict[str, Any]) -> hp.Node:
        functions: tuple[Any, ...] = (code,)
        if kind in ("merge", "collect"):
            functions = ()
        elif kind == "stateful":
            functions = (code.step, 0)
        elif kind == "process":
            functions = (partial(Gatherer, code),)
        elif kind.startswith("async "):
            functions = (code.awaited,)
        made: hp.Node = getattr(hp, kind.removeprefix("async "))(*functions, *reads, **options)
        return made


@attrs.frozen
class Outcome:
    """What came of a run, whatever the order of turns: what each node was given by each way, and what is counted."""

    given: dict[Any, list[Any]]  # {(node, way): [(number, value), ...]}
    failures: dict[Any, list[Any]]
    collected: dict[Any, list[Any]]
    counts: dict[Any, tuple[int, ...]]


async def decide(plumbing: hp.Plumbing) -> None:
    """Retry what is held, and pass over what has been tried three times."""
    while True:
        await asyncio.sleep(1)
        for key, node in plumbing.statistics().nodes.items():
            if node.state == "holding":
                assert node.trouble is not None
                (plumbing.retry if node.trouble.attempts < 3 else plumbing.discard)(key)


async def play_tree(seed: int) -> Outcome:
    clock, log, failures = Clock(), list[Any](), list[hp.Failure]()
    topology = hp.Topology().update(Tree(seed, clock, log).nodes | {"errors": hp.sink(failures.append, hp.ERRORS)})
    async with hp.Plumbing(topology) as plumbing:
        deciding = asyncio.create_task(decide(plumbing))
        await plumbing.join()
        deciding.cancel()
        with suppress(asyncio.CancelledError):
            await deciding
        collected = plumbing.collected()
        found = counts(plumbing.statistics())
    given, failed = defaultdict(list), defaultdict(list)
    for key, way, number, value in log:
        given[key, way].append((number, value))
    for failure in failures:
        assert failure.item is not None
        item = failure.item
        text = (item.origin.number, item.value, repr(failure.exception), failure.attempts, failure.reason)
        failed[failure.key, item.trail.keys].append(text)
    return Outcome(given, failed, {key: sorted(values) for key, values in collected.items()}, found)


def both(main: Callable[[], Any], seed: int, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any]:
    """What comes of a run with loops, and of the same without."""
    looped = testing.run(main, seed=seed)
    with monkeypatch.context() as patch:
        patch.setattr(_runner, "LOOP_AFTER_ITEMS", NEVER)
        return looped, testing.run(main, seed=seed)


@pytest.mark.parametrize("part", range(4))
def test_loops_do_what_their_nodes_do_one_by_one(
    part: int, seeds: Callable[[int], list[int]], watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On random graphs: the same values by the same ways in the same order, the same failures, the same counts."""
    for seed in seeds(8):
        looped, bare = both(partial(play_tree, seed), seed, monkeypatch)
        for field in attrs.fields(Outcome):
            assert getattr(looped, field.name) == getattr(bare, field.name), f"{field.name} of play_tree({seed})"
    assert watch.ran


def test_random_graphs_loop_in_all_ways(watch: Watch) -> None:
    """What the generator never made would never be tested."""
    for seed in range(25):
        testing.run(partial(play_tree, seed), seed=seed)
    texts = {id(loop): loop._text for loop, _ in watch.ran}.values()
    visits = [visit for text in texts for visit in text.visits]
    assert set(Counter(visit.runner.node.kind for visit in visits)) == {*_loops.KINDS, "process"}
    found = {
        "two places": sum(len(text.visits) > len({visit.runner.key for visit in text.visits}) for text in texts),
        "ways out": sum(len(text.exits) > 1 for text in texts),
        "many nodes": sum(len(text.visits) > 5 for text in texts),
        "failed below the head": sum(stage.link is not None for stage in watch.failed),
        "given in a loop": sum(loop._given for loop in {id(loop): loop for loop, _ in watch.ran}.values()),
        "at a source": sum(loop._head.is_source for loop, _ in watch.ran),
        "below a source": sum(not loop._head.is_source for loop, _ in watch.ran),
        "failed before others": sum(bool(stage.pending) for stage in watch.failed),
    }
    found |= Counter(f"{stage.runner.node.kind} failed" for stage in watch.failed)
    assert {"map failed", "filter failed", "route failed", "sink failed", "process failed"} <= found.keys()
    assert min(found.values()) >= 3, found
    assert watch.values > 4_000


# --- processes in loops


class Sums:
    """Gives the sum of each fifty values, with what it derives from, in one of the forms."""

    def __init__(self, form: str, log: list[Any]) -> None:
        self.form, self.log = form, log
        self.kept: list[hp.Item] = []

    def begin(self, context: hp.Context) -> None:
        self.context = context

    def process(self, value: int) -> Any:
        item = hp.current_item()
        self.log.append((value, item.value, item.trail.keys, item.origin.number, self.context.source))
        self.kept.append(item)
        if len(self.kept) < 50:
            return None
        kept, self.kept = self.kept, []
        if "members" in self.form:
            self.context.derive_from(*kept)
        return self._given(sum(item.value for item in kept))

    def _given(self, value: int) -> Any:
        match self.form.removesuffix(" with members"):
            case "a value":
                return value
            case "a list":
                return [value, None, value]
            case "nothing in a list":
                return []
            case "a generator":
                return self._each(value)
            case "a name":
                return hp.to("sum", value)
        return iter(range(value, value + 700))  # more than a link holds

    def _each(self, value: int) -> Iterator[int | None]:
        for output in (value, None, value + 1):
            assert hp.current_item().origin.number == self.log[-1][3]
            yield output


FORMS = ("a value", "a list", "nothing in a list", "a generator", "a name", "many", "a value with members")


async def in_bursts() -> AsyncIterator[int]:
    for value in range(1800):
        if value % 7 == 0:
            await asyncio.sleep(0.001 * (value % 3))
        yield value


WAYS: dict[str, Nodes] = {
    "below a map": {"s": hp.source(range(1999)), "a": plain("s")},
    "below a filter": {"s": hp.source(range(3000)), "a": hp.filter(lambda value: value % 3, "s")},
    "below an async source": {"s": hp.source(in_bursts), "a": plain("s")},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("form", FORMS)
def test_a_process_that_gives_little_is_part_of_a_loop(
    way: str, form: str, watch: Watch, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is called with the same, and what it gives has the same trail."""

    async def main() -> Any:
        log, given = list[Any](), list[Any]()

        async def take(value: Any) -> None:
            trail = hp.current_item().trail
            given.append((value, trail.keys, trail.origins, trail.members.left_out))
            await asyncio.sleep(0.001)

        nodes = dict(WAYS[way])
        nodes["p"] = hp.process(partial(Sums, form, log), list(nodes)[-1])
        nodes["out"] = hp.sink(take, "p", capacity=64)
        nodes["sums"] = hp.collect(hp.output("p", "sum"))
        return log, given, counts(await to_the_end(hp.Topology().update(nodes)))

    looped, bare = both(main, seed, monkeypatch)
    assert looped == bare
    if form not in ("many", "a value with members"):  # which leave it at once
        assert any("p" in shape for shape in watch.shapes())


class Asks:
    """Asks its context for something at its 500th value."""

    def __init__(self, what: str, log: list[Any]) -> None:
        self.what, self.log, self.count = what, log, 0

    def begin(self, context: hp.Context) -> None:
        self.context = context

    def process(self, value: int) -> Any:
        self.count += 1
        self.log.append((self.count, value, now()))
        if self.count == 500:
            return self._ask()
        return [self.count, len(hp.current_item().trail.members.trails)] if self.count % 100 == 0 else None

    def _ask(self) -> Any:
        match self.what:
            case "to finish":
                self.context.finish()
            case "to derive from its item, and gives nothing":
                self.context.derive_from(hp.current_item())
            case "to be woken":
                self.context.wake_at(now())
        return None

    def wake(self, time: float) -> Any:
        return ["woken"]


@pytest.mark.parametrize(
    "what",
    ["to finish", "to derive from its item, and gives nothing", "to be woken"],
)
def test_what_a_process_asks_for_in_a_loop_holds_from_the_next_value_on(
    what: str, watch: Watch, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> Any:
        log, given = list[Any](), list[Any]()

        def take(value: Any) -> None:
            given.append((value, hp.current_item().trail.origins, hp.current_item().trail.members))

        nodes = {
            "s": hp.source(range(1200)),
            "a": plain("s"),
            "p": hp.process(partial(Asks, what, log), "a"),
            "out": hp.sink(take, "p"),
        }
        found = counts(await to_the_end(hp.Topology().update(nodes)))
        if what == "to be woken":  # whenever the node has its turn
            given.sort(key=lambda entry: (entry[0] == "woken", entry[1]))
            given[-1:] = [value for value, _, _ in given[-1:]]
        if what == "to finish":  # how much was under way is drawn
            found.pop("s")
            found.pop("a")
            found["p"] = found["p"][:2]
        return log, given, found

    looped, bare = both(calm(main), seed, monkeypatch)
    assert looped == bare
    assert len(looped[0]) == (500 if what == "to finish" else 1200)
    assert "a p" in watch.shapes() or "a out p" in watch.shapes()


def test_a_process_comes_into_a_loop_as_it_gives_little_and_leaves_as_it_gives_much(watch: Watch, seed: int) -> None:
    """One that gives something for its first value is not known yet."""

    class Turns(Through):
        def process(self, value: int) -> Any:
            return value if value > 10_000 or value % 100 == 0 else None

    async def main() -> list[Any]:
        nodes = {"s": hp.source(range(40_000)), "a": plain("s"), "p": hp.process(Turns, "a"), "out": hp.collect("p")}
        return (await joined(hp.Topology().update(nodes)))["out"]

    assert run(calm(main), seed) == [*range(0, 10_001, 100), *range(10_001, 40_000)]
    shapes = [shape_of(loop) for loop, _ in watch.ran]
    assert any("p" in shape for shape in shapes)
    assert "p" not in shapes[-1]


def test_a_process_of_a_loop_that_gives_what_is_to_be_awaited_is_refused(watch: Watch) -> None:
    class Forgets(Through):
        def process(self, value: int) -> Any:
            return slowly(value) if value == 300 else None

    topology = graph(s=hp.source(range(MANY)), a=plain("s"), p=hp.process(Forgets, "a"), out=hp.collect("p"))
    error = run_in_order(partial(failure_of, topology))
    assert error.key == "p"
    assert error.item is not None
    assert error.item.value == 300
    assert "gave a coroutine: make it `async def`" in str(error)
    assert [stage.runner.key for stage in watch.failed] == ["p"]


# --- what a route answers


class Colour(enum.StrEnum):
    RED = "red"


ANSWERS: dict[str, Callable[[int], Any]] = {
    "names": lambda value: ("red", "blue")[value % 2],
    "names that nobody reads": lambda value: f"other {value}" if value % 3 else "red",
    "lists": lambda value: ["a", value % 2],
    "numbers": lambda value: (1, 1.0, True, 0)[value % 4],
    "members of an enum": lambda value: Colour.RED,
    "nothing": lambda value: None if value % 2 else "blue",
}


@pytest.mark.parametrize("answers", ANSWERS)
def test_a_route_in_a_loop_takes_every_kind_of_name(
    answers: str, watch: Watch, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What has come before, what has not, what nobody reads, and what has no hash before it is frozen."""

    async def main() -> Any:
        nodes: Nodes = {"s": hp.source(range(4000)), "r": hp.route(ANSWERS[answers], "s"), "all": hp.collect("r")}
        for name in ("red", "blue", ("a", 1), 1, None):
            nodes["out", name] = hp.collect(hp.output("r", name))
        collected = await joined(hp.Topology().update(nodes))
        return {canonical(key): values for key, values in collected.items()}

    looped, bare = both(calm(main), seed, monkeypatch)
    assert looped == bare
    assert any(looped.values())
    assert watch.values > 3000


@pytest.mark.parametrize(("name", "value"), [(1, Fraction(1)), (1, 1j + 1 - 1j), ("a", Fraction(1))])
def test_what_equals_a_name_and_is_none_is_refused_in_a_loop_too(name: Any, value: Any, watch: Watch) -> None:
    """Names are compared by type as well."""
    answers = {300: value}
    topology = graph(
        s=hp.source(range(MANY)), r=hp.route(lambda n: answers.get(n, name), "s"), out=hp.collect(hp.output("r", name))
    )
    error = run_in_order(partial(failure_of, topology))
    assert error.item is not None
    assert error.item.value == 300
    assert "has no frozen form" in str(error)
    assert "KeyError" not in "".join(traceback.format_exception(error))  # that nobody knew it is not what was wrong
    assert [stage.runner.key for stage in watch.failed] == ["r"]


def test_names_are_not_kept_without_end() -> None:
    names = _loops.Names({"a": 0, "b": 1})
    assert [names.find(answer) for answer in ("a", "b", ["c"], "d")] == [("a", 0), ("b", 1), (("c",), 2), ("d", 2)]
    for n in range(3 * _loops.MOST_NAMES):
        names.find(f"name {n}")
    assert len(names.known) == _loops.MOST_NAMES
    assert names.known["a"] == 0


# --- loops that begin at a source


@pytest.mark.parametrize("source", [range(40), in_bursts], ids=["plain", "async"])
def test_of_a_loop_the_node_is_named_that_holds_up_the_event_loop(
    source: Any, watch: Watch, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not where the loop begins; and its time is counted as the node's."""
    named: list[Any] = []
    monkeypatch.setattr(Engine, "warn_slow", lambda engine, key, seconds, values: named.append(key))

    async def main() -> hp.Statistics:
        clock = Clock()

        def work(value: int) -> int:
            clock.work(0.06 if value == 30 else 1e-5)
            return value

        return await to_the_end(graph(s=hp.source(source), a=plain("s"), b=hp.map(work, "a"), c=end("b")))

    statistics = run(main, seed)
    assert set(named) == {"b"}
    assert watch.ran
    busy_s = {key: node.busy_s for key, node in statistics.nodes.items()}
    assert sum(busy_s.values()) == pytest.approx(0.06 + (statistics.nodes["b"].received - 1) * 1e-5)
    assert busy_s["s"] == pytest.approx(0)


def test_a_loop_begins_at_a_source(watch: Watch, seed: int) -> None:
    """Plain or async, what it gives goes through all that is plain below it at once."""
    played(chain(plain, end), seed)
    assert {loop._head.key for loop, _ in watch.ran} == {"s"}
    watch.ran.clear()
    played({"s": hp.source(in_bursts), "a": plain("s"), "b": end("a")}, seed)
    assert "s" in {loop._head.key for loop, _ in watch.ran}


def test_many_readers_of_a_source_have_loops_of_their_own(watch: Watch) -> None:
    """It would take in some, and put each value by itself into the links of the others."""
    nodes: Nodes = {"s": hp.source(range(MANY))}
    nodes |= {i: hp.sink(ignore, "s") for i in range(_loops.MOST_READERS + 1)}
    run_in_order(calm(partial(joined, hp.Topology().update(nodes))))
    assert {loop._head.key for loop, _ in watch.ran} == {*nodes} - {"s"}


def test_a_slice_is_never_less_than_a_value(monkeypatch: pytest.MonkeyPatch, watch: Watch, seed: int) -> None:
    """A process whose outputs take time to go into many links gives some in a loop, and then some by itself."""
    told: list[float] = []
    fit = Runner._fit_slice

    def fitted(runner: Runner, seconds: float, units: int, most: int) -> None:
        fit(runner, seconds, units, most)
        told.append(seconds)
        assert 1 <= runner.slice <= max(most, runner.cut)

    class Some:
        def process(self, value: int) -> int | None:
            return value if value % 20 == 19 or value > 4 * BAD else None

    nodes: Nodes = {"s": hp.source(range(5 * BAD)), "a": plain("s"), "p": hp.process(Some, "a")}
    nodes |= {i: hp.sink(ignore, "p") for i in range(_runner.FEW_LINKS + 1)}

    async def main() -> None:
        loop, ticks = asyncio.get_running_loop(), itertools.count()
        setattr(loop, "work_clock", lambda: next(ticks) * 1e-6)  # noqa: B010  no loop of typeshed has it
        await joined(hp.Topology().update(nodes))

    monkeypatch.setattr(Runner, "_fit_slice", fitted)
    run(main, seed)
    assert min(told) >= 0
    assert "a p" in watch.shapes()


def test_a_source_learns_no_larger_slices_than_its_readers_take(monkeypatch: pytest.MonkeyPatch, watch: Watch) -> None:
    """However many of them it sends through a loop at a time."""
    fit, most = Runner._fit_slice, 0

    def fitted(runner: Runner, seconds: float, units: int, limit: int) -> None:
        nonlocal most
        fit(runner, seconds, units, limit)
        most = max(most, runner.slice)

    async def main() -> None:
        clock = Clock()
        costs = lambda value: clock.work(8e-7 if value % 512 > 255 else 4e-7)  # noqa: E731
        await joined(graph(s=hp.source(range(4 * BAD)), out=hp.sink(costs, "s")))

    monkeypatch.setattr(Runner, "_fit_slice", fitted)
    run_in_order(main)
    assert watch.values > BAD
    assert most == _runner.CHUNK_ITEMS


def test_what_is_slow_at_first_only_loops_soon(watch: Watch) -> None:
    """A first call may import something."""

    async def main() -> None:
        clock = Clock()

        def work(value: int) -> int:
            clock.work(1e-6 if value else 1.0)
            return value

        await joined(graph(s=hp.source(range(2_000)), a=hp.map(work, "s"), b=hp.map(work, "a"), c=end("b")))

    run_in_order(main)
    assert sum(values for loop, values in watch.ran if loop._head.key == "s") > 1_200


def test_many_async_sources_share_a_turn(watch: Watch) -> None:
    """Each has its item through at once, as long as the turn has time."""

    async def main() -> list[float]:
        clock = Clock()

        async def often() -> AsyncIterator[int]:
            while True:
                yield 1
                await asyncio.sleep(0)

        def work(value: int) -> int:
            clock.work(100e-6)
            return value

        nodes: Nodes = {}
        for i in range(40):
            nodes["s", i], nodes["a", i] = hp.source(often), hp.map(work, ("s", i))
            nodes["out", i] = hp.sink(work, ("a", i))
        async with hp.Plumbing(hp.Topology().update(nodes)):
            return await rounds(clock, 300)

    assert max(run_in_order(main)) <= 0.0012
    assert watch.values > 100


# --- what fails in a loop


def failing(wanted: Any, error: Callable[[], BaseException] = Broken) -> Callable[[Any], Any]:
    """The value itself, but one fails."""

    def fail(value: Any) -> Any:
        if value == wanted:
            raise error()
        return value

    return fail


def failing_yes(wanted: Any) -> Callable[[Any], bool]:
    fail = failing(wanted)

    def answer(value: Any) -> bool:
        fail(value)
        return True

    return answer


class Truth:
    """An answer that is neither true nor false where it is asked for one value; as arrays are."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __bool__(self) -> bool:
        assert hp.current_item().value == self.value
        if self.value == BAD:
            raise Broken
        return self.value % 3 > 0


class Unfreezable:
    """What names no output."""


BAD = 650  # the value on which something fails, once all loops run


def beside(side: str, wanted: Any = None) -> Callable[[int], tuple[int, str]]:
    """The value with a name, but one fails."""
    fail = failing(wanted)
    return lambda value: (fail(value), side)


def away_and_back(**nodes: hp.Node) -> Nodes:
    """From "a" by "b" and "c" to "d", from which "out" collects."""
    return {
        "s": hp.source(range(MANY)),
        "a": plain("s"),
        "b": hp.map(beside("b"), "a"),
        "c": hp.map(beside("c"), "a"),
        "d": hp.map(same, "b", "c"),
        "out": hp.collect("d"),
    } | nodes


skip: dict[str, Any] = {"on_error": hp.discard()}
FAILING: dict[str, Callable[[], Nodes]] = {
    "head": lambda: chain(partial(hp.map, failing(BAD), **skip), plain, hp.collect),
    "middle": lambda: chain(plain, partial(hp.map, failing(BAD), **skip), plain, hp.collect),
    "sink": lambda: chain(plain, plain, partial(hp.sink, failing(BAD), **skip)),
    "filter": lambda: chain(plain, partial(hp.filter, failing_yes(BAD), **skip), plain, hp.collect),
    "truth of an answer": lambda: chain(plain, partial(hp.filter, Truth, **skip), plain, hp.collect),
    "truth of the head's answer": lambda: chain(partial(hp.filter, Truth, **skip), hp.collect),
    "under a filter": lambda: chain(passing, passing, partial(hp.map, failing(BAD), **skip), hp.collect),
    "route": lambda: (
        chain(plain, partial(hp.route, lambda value: Unfreezable() if value == BAD else parity(value), **skip))
        | {"odd": hp.collect(hp.output("b", "odd")), "even": hp.collect(hp.output("b", "even")), "all": hp.collect("b")}
    ),
    "branch": lambda: (
        chain(plain, partial(hp.route, parity))
        | {"c": hp.map(failing(BAD), hp.output("b", "even"), **skip), "even": hp.collect("c"), "all": hp.collect("b")}
        | {"more": hp.collect(hp.output("b", "even")), "odd": hp.collect(hp.output("b", "odd"))}
    ),
    "all of a route": lambda: (
        chain(plain, partial(hp.route, parity))
        | {"c": hp.map(failing(BAD), "b", **skip), "all": hp.collect("c")}
        | {"even": hp.collect(hp.output("b", "even")), "odd": hp.collect(hp.output("b", "odd"))}
    ),
    "first of two readers": lambda: away_and_back(b=hp.map(beside("b", BAD), "a", **skip)),
    "second of two readers": lambda: away_and_back(c=hp.map(beside("c", BAD), "a", **skip)),
    "where two ways meet, by the first": lambda: away_and_back(d=hp.map(failing((BAD, "b")), "b", "c", **skip)),
    "where two ways meet, by the second": lambda: away_and_back(d=hp.map(failing((BAD, "c")), "b", "c", **skip)),
    "below a merge": lambda: chain(hp.merge, hp.merge, partial(hp.map, failing(BAD), **skip), hp.merge, hp.collect),
    "StopIteration": lambda: chain(plain, partial(hp.map, failing(BAD, StopIteration), **skip), hp.collect),
    "a cancellation": lambda: chain(plain, partial(hp.map, failing(BAD, asyncio.CancelledError), **skip), hp.collect),
    "an answer to be awaited": lambda: chain(
        plain, partial(hp.sink, lambda value: slowly(value) if value == BAD else None, **skip)
    ),
}


@pytest.mark.parametrize("first", [0, BAD - 2], ids=lambda first: f"chunk from {first}")
@pytest.mark.parametrize("make", FAILING.values(), ids=FAILING)
def test_what_fails_in_a_loop_fails_as_by_itself(
    make: Callable[[], Nodes], first: int, watch: Watch, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One item is passed over with its trail, all else goes everywhere it goes, and is counted."""

    async def main() -> Any:
        Clock()
        failures: list[hp.Failure] = []
        nodes = make() | {"errors": hp.sink(failures.append, hp.ERRORS)}
        if first:  # the value comes in a slice of which some are timed
            nodes["s"] = hp.source(testing.script([*range(first), testing.Pause(1), *range(first, MANY)]))
        async with hp.Plumbing(hp.Topology().update(nodes)) as plumbing:
            await plumbing.join()
            collected = {key: sorted(values) for key, values in plumbing.collected().items()}
            found = [(f.key, f.item and (f.item.value, f.item.trail.hops), f.attempts, f.reason) for f in failures]
            return collected, found, [repr(f.exception)[:12] for f in failures], counts(plumbing.statistics())

    looped, bare = both(main, seed, monkeypatch)
    assert looped == bare
    assert len(looped[1]) == 1
    assert len(watch.failed) == 1


POLICY_CASES = {
    "discard": (hp.discard(), 1),
    "retry": (hp.retry(2, delay_s=0.5, then=hp.discard()), 3),
    "retry, which helps": (hp.retry(5, delay_s=0.5), 0),
    "hold": (hp.hold(), 3),
}


@pytest.mark.parametrize("place", ["a", "b", "c"])
@pytest.mark.parametrize(("policy", "attempts"), POLICY_CASES.values(), ids=POLICY_CASES)
def test_every_policy_holds_in_a_loop(policy: Any, attempts: int, place: str, watch: Watch, seed: int) -> None:
    """What has failed is tried as often as it says, and comes in its place in the order."""
    most = attempts or 2
    tried: list[int] = []

    def fail(value: int) -> int:
        if value == BAD:
            tried.append(value)
            if len(tried) <= most:
                raise Broken
        return value

    async def main() -> Any:
        Clock()
        nodes = chain(plain, plain, plain, hp.collect)
        nodes[place] = hp.map(fail, *nodes[place].reads, on_error=policy)
        async with hp.Plumbing(hp.Topology().update(nodes)) as plumbing:
            deciding = asyncio.create_task(decide(plumbing))
            await plumbing.join()
            deciding.cancel()
            return plumbing.collected()["d"]

    wanted = [value for value in range(MANY) if value != BAD or not attempts]
    assert run(main, seed) == wanted
    assert len(tried) == (attempts or 3)
    assert [stage.runner.key for stage in watch.failed] == [place]
    assert watch.values > BAD


def test_a_failure_that_stops_comes_with_the_item_and_its_trail(watch: Watch, seed: int) -> None:
    """As `NodeError`, and nothing is called after it."""
    calls: list[int] = []

    async def main() -> None:
        def note(value: int) -> None:
            calls.append(value)
            failing(BAD)(value)

        await joined(hp.Topology().update(chain(plain, plain, partial(hp.sink, note))))

    with pytest.raises(hp.NodeError) as caught:
        run(calm(main), seed)
    error = caught.value
    assert (error.key, error.item and error.item.value) == ("c", BAD)
    assert error.item is not None
    assert error.item.trail.keys == ("s", "a", "b")
    assert error.item.origin.number == BAD
    assert calls == list(range(BAD + 1))
    assert watch.failed


class Abort(BaseException):
    """What no policy catches."""


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, Abort])
def test_what_no_policy_catches_ends_a_loop_and_all(error: type[BaseException], watch: Watch, seed: int) -> None:
    """User code is not called again, and what is open is closed."""
    calls, closed = [], []

    def produce() -> Iterator[int]:
        try:
            yield from range(MANY)
        finally:
            closed.append("source")

    def note(value: int) -> None:
        calls.append(value)
        if value == BAD:
            raise error

    nodes = chain(plain, partial(hp.sink, note)) | {"s": hp.source(produce)}
    with pytest.raises(error):
        testing.run(calm(partial(to_the_end, hp.Topology().update(nodes))), seed=seed)
    assert calls == list(range(BAD + 1))
    assert closed == ["source"]
    assert shape_of(watch.ran[-1][0]) == "a b"


def test_what_a_loop_was_busy_with_is_counted_though_it_failed(watch: Watch, seed: int) -> None:
    """The whole slice, which the failure has ended."""

    async def main() -> float:
        clock = Clock()

        def work(value: int) -> int:
            clock.work(1e-6)
            if value % 40 == 39:
                raise Broken
            return value

        nodes = chain(partial(hp.map, work, **skip), end, items=4_000)
        statistics = await to_the_end(hp.Topology().update(nodes))
        return sum(node.busy_s for node in statistics.nodes.values())

    assert run(main, seed) == pytest.approx(4_000e-6)
    assert len(watch.failed) > 20  # the rest fail by themselves: after a failure, what a source has made comes by links


def test_a_repair_counts_what_a_loop_has_done_before_it_failed(watch: Watch, seed: int) -> None:
    """The first of a family had come through the node when it failed below; the second was held."""

    async def main() -> int:
        Clock()
        nodes = away_and_back(
            d=hp.map(failing((BAD, "c")), "b", "c", on_error=hp.hold()),
            e=hp.map(failing((BAD, "b")), "d", on_error=hp.discard()),
            out=hp.collect("e"),
        )
        async with hp.Plumbing(hp.Topology().update(nodes)) as plumbing:
            await testing.settle()
            assert [stage.runner.key for stage in watch.failed][:1] == ["e"]
            assert plumbing.statistics().nodes["d"].state == "holding"
            met = {value for value, side in plumbing.collected()["out"] if side == "b"} | {BAD}
            there = {value for value, side in plumbing.collected()["out"] if side == "c"}
            change = await plumbing.repair("d", hp.map(same, "b", "c", on_error=hp.hold()))
            await plumbing.join()
            assert change.crossed == len(met - there)
            return change.crossed

    assert run(main, seed) >= 1


# --- what a change, a pause or a tap does to loops


class Feed:
    """A source that gives what it is given."""

    def __init__(self) -> None:
        self.given: asyncio.Queue[Any] = asyncio.Queue()

    async def __call__(self) -> AsyncIterator[int]:
        while (values := await self.given.get()) is not None:
            for value in values:
                yield value

    async def give(self, values: Any) -> None:
        """Have values come through as far as they come."""
        self.given.put_nowait(values)
        await asyncio.sleep(10)
        await testing.settle()


class Scene:
    """A running tree of which all but "v" is one loop, what its sinks are given, and the loops when all has come in.

    s -> a -> b -> c -> t
         |    +-> v (async)
         +-> u
    """

    def __init__(self) -> None:
        self.log: defaultdict[Any, list[Any]] = defaultdict(list)
        self.feed = Feed()
        self.most_queued = 0
        self.taps: list[Any] = []
        self.plumbing: hp.Plumbing
        self.failures = 0

    def note(self, key: str) -> Callable[[Any], None]:
        def note(value: Any) -> None:
            trail = hp.current_item().trail
            self.log[key, trail.keys].append((value, trail.hops, trail.origin.number))

        return note

    def tag(self, key: str) -> Callable[[Any], Any]:
        def tag(value: Any) -> Any:
            number, *tags = value if isinstance(value, tuple) else (value,)
            if number < 0 and key == "b" and self.failures < -number:
                self.failures += 1
                raise Broken(number)
            return (number, *tags, key)

        return tag

    async def wait(self, value: Any) -> None:
        """What "v" does."""
        self.note("v")(value)
        queued = sum(link.queued for link in self.plumbing._engine.runner("v").inputs)
        self.most_queued = max(self.most_queued, queued)
        await asyncio.sleep(0.001)

    def nodes(self) -> Nodes:
        return {
            "s": hp.source(self.feed),
            "a": hp.map(self.tag("a"), "s"),
            "b": hp.map(self.tag("b"), "a", on_error=hp.hold()),
            "c": hp.filter(yes, "b"),
            "t": hp.sink(self.note("t"), "c"),
            "u": hp.sink(self.note("u"), "a"),
            "v": hp.sink(self.wait, "b", capacity=64),
        }

    def loops(self, *keys: str) -> list[Loop]:
        """The loops that some nodes are part of, or next to."""
        return [loop for key in keys for loop in self.plumbing._engine.runner(key).loops or ()]

    async def change(self, **nodes: hp.Node | None) -> None:
        """Replace, add and remove nodes."""
        self.most_queued = 0
        await self.plumbing.apply(self.plumbing.topology.update(nodes))
        await testing.settle()

    def snapshot(self) -> Any:
        """What every sink has been given so far."""
        found = counts(self.plumbing.statistics())
        found.pop("p", None)  # how much a link that is closed has held is drawn from the seed
        return {key: list(entries) for key, entries in self.log.items()}, found


Event = Callable[[Scene], Awaitable[None]]


def changed(**make: Callable[[Scene], hp.Node] | None) -> Event:
    async def event(scene: Scene) -> None:
        await scene.change(**{key: None if found is None else found(scene) for key, found in make.items()})

    return event


async def pause(scene: Scene, key: str) -> None:
    scene.plumbing.pause(key)


async def pause_and_resume(scene: Scene, key: str) -> None:
    scene.plumbing.pause(key)
    await scene.feed.give(range(900, 950))
    scene.plumbing.resume(key)


async def tap(scene: Scene, key: str) -> None:
    scene.taps.append(scene.plumbing.tap(key))


async def hold(scene: Scene) -> None:
    await scene.feed.give([-1])


async def hold_and_retry(scene: Scene) -> None:
    await scene.feed.give([-1, *range(600, 700)])
    scene.plumbing.retry("b")


async def hold_and_discard(scene: Scene) -> None:
    await scene.feed.give([-1, *range(600, 700)])
    scene.plumbing.discard("b")


async def hold_and_repair(scene: Scene) -> None:
    await scene.feed.give([-1])
    await scene.plumbing.repair("b", hp.map(scene.tag("B"), "a"))


async def inject(scene: Scene, key: str) -> None:
    for number in range(3):
        await scene.plumbing.inject(key, (10_000 + number,))


async def fill_the_way_out(scene: Scene) -> None:
    """So that the loop stands, and is changed as it does."""
    scene.plumbing.pause("v")
    await scene.feed.give(range(20_000, 20_400))
    assert "full" in {node.state for node in scene.plumbing.statistics().nodes.values()}
    scene.plumbing.resume("v")
    await scene.feed.give([])


def take_some(scene: Scene) -> hp.Node:
    return hp.process(partial(Ends, 5), "b")


EVENTS: dict[str, tuple[Event, str]] = {  # what happens, and the nodes where loops hold no longer
    "replace the head": (changed(a=lambda scene: hp.map(scene.tag("A"), "s")), "a"),
    "replace one inside": (changed(b=lambda scene: hp.map(scene.tag("B"), "a", on_error=hp.hold())), "b"),
    "replace a filter": (changed(c=lambda scene: hp.filter(lambda value: value[0] % 2, "b")), "c"),
    "replace the last": (changed(t=lambda scene: hp.sink(scene.note("T"), "c")), "t"),
    "replace all": (
        changed(
            a=lambda scene: hp.map(scene.tag("A"), "s"),
            b=lambda scene: hp.map(scene.tag("B"), "a"),
            t=lambda scene: hp.sink(scene.note("T"), "c"),
        ),
        "a b t",
    ),
    "replace by an async one": (changed(b=lambda scene: hp.map(slowly, "a")), "a"),
    "insert a node": (
        changed(x=lambda scene: hp.map(scene.tag("x"), "a"), b=lambda scene: hp.map(scene.tag("B"), "x")),
        "a b",
    ),
    "leave a node out": (changed(t=lambda scene: hp.sink(scene.note("t"), "b")), "b t"),
    "add a plain reader": (changed(w=lambda scene: hp.sink(scene.note("w"), "b")), "b"),
    "add an async reader": (changed(w=lambda scene: hp.sink(swallow, "a")), "a"),
    "add a second read": (changed(u=lambda scene: hp.sink(scene.note("u"), "a", "b")), "a b u"),
    "remove a reader": (changed(u=None), "a"),
    "remove what waits": (changed(v=None), "b"),
    "read another source": (
        changed(z=lambda scene: hp.source(range(30)), u=lambda scene: hp.sink(scene.note("u"), "z")),
        "a",
    ),
    "a smaller link": (changed(v=lambda scene: hp.sink(scene.wait, "b", capacity=2)), "b v"),
    "a smaller link inside": (changed(t=lambda scene: hp.sink(scene.note("t"), "c", capacity=2)), "t"),
    "a link that forgets": (changed(t=lambda scene: hp.sink(scene.note("t"), "c").overflow("drop_oldest")), "c t"),
    "another policy": (changed(b=lambda scene: hp.map(scene.tag("b"), "a", on_error=hp.discard())), "b"),
    "pause the head": (partial(pause, key="a"), "a"),
    "pause one inside": (partial(pause, key="b"), "b"),
    "pause the last": (partial(pause, key="t"), "t"),
    "pause and resume": (partial(pause_and_resume, key="b"), "b"),
    "tap the head": (partial(tap, key="a"), "a"),
    "tap one inside": (partial(tap, key="b"), "b"),
    "tap a filter": (partial(tap, key="c"), "c"),
    "hold": (hold, "b"),
    "hold and retry": (hold_and_retry, "b"),
    "hold and discard": (hold_and_discard, "b"),
    "hold and repair": (hold_and_repair, "b"),
    "add one that finishes": (changed(p=take_some, w=lambda scene: hp.sink(scene.note("w"), "p")), "b"),
    "add an error stream": (changed(w=lambda scene: hp.sink(ignore, hp.errors("b"))), ""),
    "inject at the head": (partial(inject, key="a"), ""),
    "inject inside": (partial(inject, key="b"), ""),
    "inject at the last": (partial(inject, key="t"), ""),
    "fill the way out": (fill_the_way_out, "v"),
}
UNSEEN = {"add an error stream", "inject at the head", "inject inside", "inject at the last"}  # which retire nothing
UNSEEN |= {"hold", "hold and retry", "hold and discard", "hold and repair"}  # a loop that has failed is run no more


async def staged(name: str, check: Callable[[Scene], None] = lambda scene: None) -> Any:
    """What comes of a scene in which something happens after a while; `check` looks right after."""
    Clock()
    scene, found = Scene(), []
    event, keys = EVENTS[name]
    async with hp.Plumbing(hp.Topology().update(scene.nodes())) as plumbing:
        scene.plumbing = plumbing
        await scene.feed.give(range(150))
        found.append(scene.snapshot())
        held = scene.loops(*(key for key in keys.split() if key in plumbing.topology.active))
        await event(scene)
        if held:
            assert all(loop.is_retired for loop in held)
        found.append(scene.snapshot())
        for values in ([1000], [1001, 1002], range(2000, 2200), range(3000, 3020)):
            await scene.feed.give(values)
            found.append(scene.snapshot())
        check(scene)
        if "smaller link" in name:
            assert scene.most_queued <= 2 * plumbing.topology.active["v"].capacity
        for key, node in plumbing.statistics().nodes.items():
            if node.state == "holding":
                plumbing.retry(key)
            plumbing.resume(key)
        scene.feed.given.put_nowait(None)
        await plumbing.join()
        found.append(scene.snapshot())
    tapped = [[(item.value, item.trail.hops) async for item in tap] for tap in scene.taps]
    return found, tapped


@pytest.mark.parametrize("name", EVENTS)
def test_what_happens_to_a_node_happens_to_its_loop(
    name: str, watch: Watch, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the next item on, as if there were no loop."""
    looped, bare = both(partial(staged, name), seed, monkeypatch)
    for step, (one, other) in enumerate(zip(looped[0], bare[0], strict=True)):
        assert one == other, f"after step {step}"
    assert looped[1] == bare[1]
    assert {*"abctu"} <= set(itertools.chain(*watch.shapes()))


@pytest.mark.parametrize("name", [name for name in EVENTS if name not in UNSEEN])
def test_a_stale_loop_is_seen(name: str, watch: Watch, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests above can fail: where nothing retires a loop, each of them does."""
    bare = both(partial(staged, name), seed, monkeypatch)[1]
    monkeypatch.setattr(Runner, "unloop", lambda runner: None)
    monkeypatch.setattr(Loop, "_look_at_hopeful", lambda loop: None)  # which would mend some in time
    try:
        looped = testing.run(partial(staged, name), seed=seed)
    except (Exception, asyncio.CancelledError):
        return
    assert looped != bare


BACK = {
    "replace the head": "a b c t u",
    "replace one inside": "a b c t u",
    "replace all": "a b c t u",
    "replace by an async one": "a u",
    "insert a node": "a b c t u x",
    "leave a node out": "a b t u",
    "add a plain reader": "a b c t u w",
    "add an async reader": "a b c t u",
    "add a second read": "a b c t u u",
    "remove a reader": "a b c t",
    "remove what waits": "a b c t u",
    "a link that forgets": "a b c u",
    "another policy": "a b c t u",
    "pause the last": "a b c u",
    "pause and resume": "a b c t u",
    "tap a filter": "a b u",
    "hold and retry": "a b c t u",
    "hold and discard": "a b c t u",
    "hold and repair": "a b c t u",
    "add one that finishes": "a b c t u",
    "fill the way out": "a b c t u",
}


@pytest.mark.parametrize(("name", "shape"), BACK.items(), ids=BACK)
def test_loops_come_back(name: str, shape: str, watch: Watch, seed: int) -> None:
    """As wide as they may be now."""

    def check(scene: Scene) -> None:
        loop, _ = next(found for found in reversed(watch.ran) if found[0]._head.key in ("s", "a"))
        assert not loop.is_retired
        assert shape_of(loop) == shape

    run(partial(staged, name, check), seed)


# --- the same under random changes


@pytest.fixture
def plain_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random changes are of graphs that loop: most code is plain, and work takes little of the loop's own clock."""

    def work_clock(loop: Any) -> float:
        loop._worked_s += 1e-5
        found: float = loop._worked_s
        return found

    styles = dict.fromkeys(("map", "filter", "route", "sink"), ("plain", "plain", "plain", "async"))
    kinds = {"map": 12, "filter": 4, "flat_map": 1, "stateful": 1, "merge": 4, "route": 4, "process": 1}
    monkeypatch.setattr(changing, "STYLES", changing.STYLES | styles)
    monkeypatch.setattr(changing, "MIDDLE_KINDS", kinds)
    monkeypatch.setattr(testing.SeededLoop, "work_clock", work_clock)
    monkeypatch.setattr(changing, "LONG_S", 10.0)


@pytest.mark.usefixtures("plain_changes")
def test_changed_graphs_that_loop_keep_what_is_promised(seeds: Callable[[int], list[int]], watch: Watch) -> None:
    """No family meets two versions, nothing is lost or doubled or out of order, and all ends."""
    for seed in seeds(50):
        changing.play_and_check(seed)
    assert watch.ran


@pytest.mark.usefixtures("plain_changes")
def test_a_stale_loop_is_caught_under_random_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Items go by the ways and to the versions of before."""
    monkeypatch.setattr(Runner, "unloop", lambda runner: None)
    caught: set[str] = set()
    for seed in range(1500):
        caught |= set(wrong_in(play(seed)))
        if caught >= {"lost", "mixed"}:
            return
    raise AssertionError(f"only {caught} was caught")


# --- what a user function does while its loop runs


@pytest.mark.parametrize("key", ["a", "b", "c"])
def test_a_node_that_is_paused_from_within_a_loop_takes_up_no_further_item(key: str, watch: Watch, seed: int) -> None:
    """By a function above it, in the middle of a chunk; at most the item in hand still comes through."""
    taken: Counter[str] = Counter()
    plumbing: hp.Plumbing

    def note(name: str) -> Callable[[int], int]:
        def work(value: int) -> int:
            taken[name] += 1
            if name == "a" and value == BAD:
                plumbing.pause(key)
            return value

        return work

    async def main() -> list[int]:
        nonlocal plumbing
        Clock()
        nodes = {"s": hp.source(range(MANY))} | {
            name: hp.map(note(name), before) for name, before in [("a", "s"), ("b", "a"), ("c", "b")]
        }
        async with hp.Plumbing(hp.Topology().update(nodes | {"out": hp.collect("c")})) as plumbing:
            await testing.settle()
            assert plumbing.statistics().nodes[key].state == "paused"
            assert taken[key] <= BAD + 1
            assert plumbing.statistics().nodes[key].received == taken[key]
            plumbing.resume(key)
            await plumbing.join()
            return plumbing.collected()["out"]

    assert run(main, seed) == list(range(MANY))
    assert taken == dict.fromkeys("abc", MANY)
    assert "a b c out" in watch.shapes()


@pytest.mark.parametrize("key", ["a", "b"])
def test_a_node_that_a_source_pauses_takes_up_no_further_item(key: str, watch: Watch, seed: int) -> None:
    """The loop that begins at the source was ready when it was asked for values, and is not when they are there."""
    taken: Counter[str] = Counter()
    before: Counter[str] = Counter()
    plumbing: hp.Plumbing

    def produce() -> Iterator[int]:
        for value in range(MANY):
            if value == BAD:
                before.update(taken)
                plumbing.pause(key)
            yield value

    def note(name: str) -> Callable[[int], int]:
        def work(value: int) -> int:
            taken[name] += 1
            return value

        return work

    async def main() -> list[int]:
        nonlocal plumbing
        Clock()
        topology = graph(s=hp.source(produce), a=hp.map(note("a"), "s"), b=hp.map(note("b"), "a"), out=hp.collect("b"))
        async with hp.Plumbing(topology) as plumbing:
            await testing.settle()
            assert taken[key] == before[key]
            plumbing.resume(key)
            await plumbing.join()
            return plumbing.collected()["out"]

    assert run(main, seed) == list(range(MANY))
    assert "s" in {loop._head.key for loop, _ in watch.ran}


def test_a_tap_from_within_a_loop_misses_no_further_item(watch: Watch, seed: int) -> None:
    """It listens from the next item on, not from the next chunk."""
    taps: list[Any] = []
    plumbing: hp.Plumbing

    def listen(value: int) -> int:
        if value == BAD:
            taps.append(plumbing.tap("b"))
        return value

    async def main() -> list[int]:
        nonlocal plumbing
        Clock()
        nodes = chain(partial(hp.map, listen), plain, end)
        async with hp.Plumbing(hp.Topology().update(nodes)) as plumbing:
            await plumbing.join()
        return [item.value async for item in taps[0]]

    heard = run(main, seed)
    assert heard == list(range(heard[0], MANY))
    assert heard[0] <= BAD + 1
    assert "a b c" in watch.shapes()


def test_what_fails_after_it_has_paused_its_node_is_counted_once(watch: Watch, seed: int) -> None:
    """The loop was retired already when user code raised."""
    plumbing: hp.Plumbing

    def fail(value: int) -> int:
        if value == BAD:
            plumbing.pause("c")
            raise Broken
        return value

    async def main() -> Any:
        nonlocal plumbing
        Clock()
        nodes = chain(plain, partial(hp.map, fail, **skip), hp.collect)
        async with hp.Plumbing(hp.Topology().update(nodes)) as plumbing:
            await testing.settle()
            plumbing.resume("c")
            await plumbing.join()
            return plumbing.collected()["c"], counts(plumbing.statistics())

    collected, found = run(main, seed)
    assert collected == [value for value in range(MANY) if value != BAD]
    assert found["a"] == (MANY, MANY, 0, 0, 0)
    assert found["b"] == (MANY - 1, MANY - 1, 1, 0, 0)
    assert found["c"] == (MANY - 1, 0, 0, 0, 0)


def test_counts_that_are_read_from_within_a_loop_add_up(watch: Watch, seed: int) -> None:
    """And nothing is counted twice for it."""
    plumbing: hp.Plumbing
    seen: list[int] = []

    def look(value: int) -> int:
        seen.append(plumbing.statistics().nodes["a"].received)
        return value

    async def main() -> Any:
        nonlocal plumbing
        Clock()
        async with hp.Plumbing(hp.Topology().update(chain(plain, partial(hp.map, look), end))) as plumbing:
            await plumbing.join()
            return counts(plumbing.statistics())

    assert run(main, seed) == {
        "s": (0, MANY, 0, 0, 0), "a": (MANY, MANY, 0, 0, 0), "b": (MANY, MANY, 0, 0, 0), "c": (MANY, 0, 0, 0, 0),
    }  # fmt: skip
    assert seen == sorted(seen)
    assert watch.values > BAD


# --- order


def meeting(first: int, second: int, after: int, seen: list[Any]) -> Nodes:
    """Two ways from "a" to "m", which notes what it gives, of so many filters; then so many maps and a filter."""
    nodes: Nodes = {"s": hp.source(range(500)), "a": plain("s")}
    last: dict[str, Any] = {}
    for side, length in (("x", first), ("y", second)):
        before: Any = "a"
        for i in range(length):
            nodes[side, i] = hp.filter(yes, before)
            before = (side, i)
        nodes[side] = hp.map(beside(side), before)
        last[side] = side

    def note(value: Any) -> Any:
        seen.append(value)
        return value

    nodes["m"] = hp.map(note, "x", "y")
    before = "m"
    for i in range(after):
        nodes["z", i] = hp.map(same, before)
        before = ("z", i)
    nodes["f"] = hp.filter(yes, before)
    return nodes | {"out": hp.collect("f")}


@pytest.mark.parametrize(
    ("first", "second", "after"),
    [(0, 0, 0), (0, 11, 0), (11, 0, 0), (0, 10, 5), (1, 0, 190), (0, 1, 120), (3, 2, 95), (2, 3, 60)],
)
def test_a_node_where_two_ways_meet_keeps_its_order(
    first: int, second: int, after: int, watch: Watch, seed: int
) -> None:
    """However little of what is below it still fits into the loop in the second place."""
    seen: list[Any] = []
    collected = run(calm(partial(joined, hp.Topology().update(meeting(first, second, after, seen)))), seed)["out"]
    assert collected == seen
    assert len(collected) == 1000
    assert watch.ran


def test_what_may_hold_below_two_ways_keeps_its_order(watch: Watch, seed: int) -> None:
    """One of them is under a condition, where no loop takes it in."""
    seen: list[Any] = []

    def note(value: Any) -> Any:
        seen.append(value)
        return value

    nodes = away_and_back(
        c=hp.filter(yes, "a"),
        d=hp.map(note, "b", "c"),
        e=hp.map(same, "d", on_error=hp.hold()),
        out=hp.collect("e"),
    )
    collected = run(calm(partial(joined, hp.Topology().update(nodes))), seed)["out"]
    assert collected == seen
    assert len(collected) == 2 * MANY
    assert watch.ran


# --- ends


def test_what_comes_through_a_link_that_had_ended_opens_it_though_in_a_loop(watch: Watch, seed: int) -> None:
    """Else its reader would end with its other link, and all below it, and begin again."""
    ends: list[str] = []

    class Ending(Through):
        def end(self) -> None:
            ends.append("end")

    async def steps() -> AsyncIterator[int]:
        for number in range(400):
            yield number
            if number % 50 == 49:
                await asyncio.sleep(1)

    async def main() -> int:
        Clock()
        nodes = {
            "s": hp.source([1]),
            "f": hp.filter(lambda value: value > 100, "s"),
            "other": hp.source(testing.script([1000, testing.Pause(5.5)])),
            "r": hp.map(same, "f", "other"),
            "p": hp.process(Ending, "r"),
            "out": hp.collect("p"),
        }
        async with hp.Plumbing(hp.Topology().update(nodes)) as plumbing:
            await asyncio.sleep(0.1)
            edited = plumbing.topology.update(
                {"more": hp.source(steps), "f": hp.filter(lambda value: value > 100, "more")}
            )
            await plumbing.apply(edited)
            await plumbing.join()
            return len(plumbing.collected()["out"])

    assert run(main, seed) == 1 + 299
    assert ends == ["end"]
    assert watch.ran


def test_a_loop_ends_with_a_reader_that_has_finished(watch: Watch, seed: int) -> None:
    """Five hundred items taken of an endless source end the run, and the other reader has all till then."""

    def numbers() -> Iterator[int]:
        number = 0
        while True:
            yield number
            number += 1

    nodes = {
        "s": hp.source(numbers),
        "a": plain("s"),
        "b": plain("a"),
        "p": hp.process(partial(Ends, 500), "b"),
        "out": hp.collect("p"),
    }

    async def main() -> Any:
        clock = Clock()

        def work(value: int) -> int:
            clock.work(1e-6)
            return value

        nodes["a"] = hp.map(work, "s")
        return await joined(hp.Topology().update(nodes))

    assert run(main, seed)["out"] == list(range(500))
    assert "a b" in watch.shapes()


def endless(clock: Clock) -> Callable[[], Iterator[int]]:
    def numbers() -> Iterator[int]:
        number = 0
        while True:
            clock.work(1e-6)
            yield number
            number += 1

    return numbers


def busy(clock: Clock, log: list[int], capacity: int = 1024) -> Nodes:
    """An endless source and a loop that takes time."""

    def work(value: int) -> int:
        clock.work(1e-6)
        return value

    return {
        "s": hp.source(endless(clock)),
        "a": hp.map(work, "s"),
        "b": hp.filter(yes, "a", capacity=capacity),
        "out": hp.sink(log.append, "b"),
    }


@pytest.mark.parametrize("way", ["drain", "leave", "raise", "cancel", "stop", "drain in time"])
def test_a_running_loop_is_ended_between_two_items(way: str, watch: Watch, seed: int) -> None:
    """Draining has all come through; nothing is half done however it ends."""
    log: list[int] = []
    statistics: hp.Statistics

    async def main() -> None:
        nonlocal statistics
        topology = hp.Topology().update(busy(Clock(), log))
        if way == "stop":
            plumbing = await hp.start(topology)
            await watch.wait_taken(1_000)
            await plumbing.stop()
            statistics = plumbing.statistics()
            return
        with suppress(Broken):
            async with hp.Plumbing(topology) as plumbing:
                await watch.wait_taken(1_000)
                if way == "raise":
                    raise Broken
                if way.startswith("drain"):
                    await plumbing.drain(timeout_s=1 if way == "drain in time" else None)
                if way == "cancel":
                    task = asyncio.current_task()
                    assert task is not None
                    asyncio.get_running_loop().call_soon(task.cancel)
                    with suppress(asyncio.CancelledError):
                        await plumbing.join()
                    task.uncancel()
                    raise Broken
        statistics = plumbing.statistics()

    run(main, seed)
    assert log == list(range(len(log)))
    found = counts(statistics)
    assert found["out"][0] == len(log)
    assert found["b"][1] == len(log) + found["out"][4]
    if way not in ("raise", "cancel"):
        assert found["s"][1] == found["a"][0] == found["b"][0] == found["out"][0]
    assert "a b out" in watch.shapes()


def test_changes_come_through_loops_that_are_never_idle(watch: Watch, seed: int) -> None:
    """Each within its time, though there is always more to do."""
    log: list[Any] = []

    async def main() -> None:
        clock = Clock()
        async with hp.Plumbing(hp.Topology().update(busy(clock, log, capacity=8))) as plumbing:
            for _ in range(20):
                await watch.wait_taken(200)
                change = await plumbing.apply(
                    plumbing.topology.replace("b", hp.filter(lambda value: value >= 0, "a", capacity=8))
                    if plumbing.epoch % 2
                    else plumbing.topology.replace("b", hp.filter(yes, "a", capacity=8)).replace(
                        "out", hp.sink(lambda value: log.append(value), "b")
                    ),
                    timeout_s=1,
                )
                await change.wait_settled()

    run(main, seed)
    assert log == list(range(len(log)))


# --- fairness


@pytest.mark.parametrize("call_s", [1e-6, 20e-6, 100e-6])
@pytest.mark.parametrize("shape", ["chain", "broadcast", "route"])
def test_a_loop_holds_up_the_event_loop_no_longer_than_a_turn_and_a_slice(
    shape: str, call_s: float, watch: Watch
) -> None:
    """By the engine's own clock, which user code alone moves."""

    async def main() -> list[float]:
        clock = Clock()

        def work(value: int) -> int:
            clock.work(call_s)
            return value

        nodes: Nodes = {"s": hp.source(endless(clock)), 0: hp.map(work, "s")}
        if shape == "route":
            nodes[0] = hp.route(lambda value: work(value) % 8, "s")
        for i in range(1, 9):
            reads = {"chain": i - 1, "broadcast": 0, "route": hp.output(0, i - 1)}[shape]
            nodes[i] = hp.map(work, reads)
        nodes["out"] = hp.sink(ignore, *([8] if shape == "chain" else range(1, 9)))
        async with hp.Plumbing(hp.Topology().update(nodes)):
            return await rounds(clock, 600)

    worked = run_in_order(main)
    assert max(worked) <= 0.00136 + 9 * call_s
    if call_s == 1e-6:
        assert watch.values > 5_000


LATE: dict[str, Callable[[Callable[[int], Any]], Nodes]] = {
    "behind a filter": lambda work: {"a": hp.filter(lambda n: n >= 3000, "s"), "b": hp.sink(work, "a")},
    "behind a route": lambda work: {
        "a": hp.route(lambda n: n >= 3000, "s"), "b": end(hp.output("a", False)),
        "c": hp.sink(work, hp.output("a", True)),
    },
    "a process behind a filter": lambda work: {
        "a": hp.filter(lambda n: n >= 3000, "s"), "b": hp.process(partial(Works, work), "a"), "c": end("b"),
    },
}  # fmt: skip


class Works:
    def __init__(self, work: Callable[[int], Any]) -> None:
        self.work = work

    def process(self, value: int) -> None:
        self.work(value)


@pytest.mark.parametrize("where", LATE)
def test_a_slow_node_that_is_reached_late_holds_up_the_event_loop_for_one_call(where: str, watch: Watch) -> None:
    """Nobody knows how long it takes, though all above it is fast."""

    async def main() -> list[float]:
        clock = Clock()
        nodes = {"s": hp.source(endless(clock)), **LATE[where](lambda value: clock.work(0.02))}
        async with hp.Plumbing(hp.Topology().update(nodes)):
            return await rounds(clock, 300)

    worked = run_in_order(main)
    assert 0.02 <= max(worked) <= 0.02 + 0.00136
    assert watch.values > 1_000


# --- what is kept


def test_a_loop_keeps_no_node_that_is_gone(watch: Watch, seed: int) -> None:
    """Not even where the source that it began at gives nothing more."""

    async def main() -> None:
        feed = Feed()
        async with hp.Plumbing(graph(s=hp.source(feed), a=plain("s"), b=end("a"), brief=end("a"))) as plumbing:
            await feed.give(range(50))
            assert any("brief" in shape for shape in watch.shapes())
            watch.ran.clear()
            await (await plumbing.remove("brief")).wait_settled()
            await testing.settle()
            gc.collect()
            assert not [found for found in gc.get_objects() if type(found) is Runner and found.key == "brief"]
            feed.given.put_nowait(None)
            await plumbing.join()

    run(calm(main), seed)


# --- the generated code


STRANGE = {
    "quotes": '\'"""\\',
    "a line": "a\nraise SystemExit",
    "code": "'); raise SystemExit  #",
    "braces": "{0}{v1}%s",
    "words": "lambda",
    "unicode": "größe ∑ \u202e \x00",
    "a tuple": ("a", 1, None, frozenset({2})),
    "a mapping": {"v0": "f0", "i": 1},
    "bytes": b"\xff\n",
    "a number": -1.5,
}


@pytest.mark.parametrize("key", STRANGE.values(), ids=STRANGE)
def test_no_key_and_no_name_gets_into_the_code(key: Any, watch: Watch, seed: int) -> None:
    """Keys of nodes, names of outputs and names of functions are what they are."""

    def work(value: int) -> int:
        return value

    work.__name__ = work.__qualname__ = str(key)
    kind = ("kind", key)
    nodes: Nodes = {
        "s": hp.source(range(MANY)),
        hp.freeze(key): hp.map(work, "s"),
        "r": hp.route(lambda value: key if value % 2 else kind, key),
        "odd": hp.collect(hp.output("r", key)),
        "even": hp.collect(hp.output("r", kind)),
    }
    collected = run(calm(partial(joined, hp.Topology().update(nodes))), seed)
    assert collected == {"odd": list(range(1, MANY, 2)), "even": list(range(0, MANY, 2))}
    assert watch.values > BAD
    for loop, _ in watch.ran:
        names = set(loop._codes[0].co_names + loop._codes[0].co_varnames + loop._codes[0].co_freevars)
        assert all(name.isascii() and name.isidentifier() for name in names)


def test_loops_of_one_shape_share_their_code(watch: Watch, seed: int) -> None:
    """And each has its own nodes in hand."""
    origins: dict[str, list[tuple[Any, ...]]] = {"x": [], "y": []}
    nodes: Nodes = {}
    for side, found in origins.items():

        def note(value: int, found: list[Any] = found) -> int:
            item = hp.current_item()
            found.append((item.value, *item.trail.keys, item.origin.source))
            return value

        nodes |= {side: hp.source(range(MANY)), f"{side}1": hp.map(same, side), f"{side}2": hp.map(note, f"{side}1")}
        nodes[f"{side}3"] = hp.collect(f"{side}2")
    run(calm(partial(joined, hp.Topology().update(nodes))), seed)
    for side, found in origins.items():
        assert found == [(value, side, f"{side}1", side) for value in range(MANY)]
    assert len({loop._codes[0] for loop, _ in watch.ran if len(loop._text.visits) == 3}) == 1


def inner_function(value: int) -> int:
    return 1 // (value - BAD)


@pytest.mark.parametrize("place", ["a", "b", "c"])
def test_a_traceback_from_a_loop_begins_in_the_users_function(place: str, watch: Watch, seed: int) -> None:
    """And ends on the line that raised; nothing of the loop is shown."""
    nodes = chain(plain, plain, plain, end)
    nodes[place] = hp.map(lambda value: inner_function(value) or 1, *nodes[place].reads)
    with pytest.raises(hp.NodeError) as caught:
        run(calm(partial(joined, hp.Topology().update(nodes))), seed)
    cause = caught.value.__cause__
    assert isinstance(cause, ZeroDivisionError)
    frames = traceback.extract_tb(cause.__traceback__)
    assert [frame.name for frame in frames] == ["<lambda>", "inner_function"]
    assert {frame.filename for frame in frames} == {__file__}
    assert frames[-1].line == "return 1 // (value - BAD)"
    assert watch.failed


def test_the_item_in_hand_is_right_at_every_place_of_a_loop(watch: Watch, seed: int) -> None:
    """In helpers, in what C calls back, and in the code of values too; between calls there is none."""
    seen: list[tuple[str, Any, Any, int]] = []

    def look(name: str) -> None:
        item = hp.current_item()
        seen.append((name, item.value, item.trail.keys, item.origin.number))

    def deep(value: int, levels: int) -> int:
        if levels:
            return deep(value, levels - 1)
        look("helper")
        return value

    def by_c(value: int) -> bool:
        def key(number: int) -> int:
            look("key")
            return number

        return bool(sorted([2, 1], key=key))

    def choose(value: int) -> Any:
        look("choose")
        return "a" if value % 2 else ("b", 1)

    nodes = {
        "s": hp.source(range(MANY)),
        "a": hp.map(lambda value: deep(value, 20) + 1000, "s"),
        "b": hp.filter(by_c, "a"),
        "r": hp.route(choose, "b"),
        "m": hp.merge(hp.output("r", "a"), hp.output("r", ("b", 1))),
        "t": hp.sink(lambda value: look("sink"), "m"),
    }
    run(calm(partial(joined, hp.Topology().update(nodes))), seed)
    by_name = {name: [entry[1:] for entry in seen if entry[0] == name] for name in ("helper", "key", "choose", "sink")}
    assert by_name["helper"] == [(number, ("s",), number) for number in range(MANY)]
    assert by_name["key"][::2] == by_name["key"][1::2] == [(n + 1000, ("s", "a"), n) for n in range(MANY)]
    assert by_name["choose"] == [(n + 1000, ("s", "a", "b"), n) for n in range(MANY)]
    assert sorted(by_name["sink"]) == [(n + 1000, ("s", "a", "b", "r", "m"), n) for n in range(MANY)]
    assert any(shape == "a b m m r t t" for shape in watch.shapes())
    with pytest.raises(LookupError):
        hp.current_item()


def test_values_that_are_generators_go_through_a_loop_as_they_are(watch: Watch, seed: int) -> None:
    """What runs in a generator has in hand the item of whoever asks for its next value."""
    seen: list[Any] = []

    def generate(value: int) -> Iterator[int]:
        seen.append(hp.current_item().trail.keys)
        yield value

    nodes = chain(partial(hp.map, generate), partial(hp.map, list), hp.collect)
    assert run(calm(partial(joined, hp.Topology().update(nodes))), seed)["c"] == [[n] for n in range(MANY)]
    assert set(seen) == {("s", "a")}
    assert "a b c" in watch.shapes()
