"""Random graphs of code that fails at random: each item is at its sinks, dropped and counted, or in an error stream.

What a value costs is drawn from the value and the node alone: how many attempts fail, and what a person does who finds
it held.  So what must come out of a graph follows without an engine (`Model`).  Only this is taken from the run: how
much a source gave before a drain, what was held when that came, what a link forgot, and of what failed half sent, how
many outputs had left; each of these is checked to have been possible.

`python tests/test_random_failures.py SEED ...` shows and plays the graphs of these seeds.
"""

from __future__ import annotations

import asyncio
import logging
import random
import sys
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import attrs
import pytest
from running import run

import hotplumb as hp
from hotplumb import testing
from hotplumb._supervision import Discard, Hold, Retry, Stop

Token = tuple[tuple[Any, ...], Any]  # (keys of the hops so far, value): each is in a graph at most once
FOR_EVER = 99
PATIENCE_S = 20.0  # virtual; somebody looks every 3 ms


class Broken(Exception):
    """What user code raises here."""


@attrs.frozen
class Spec:
    """One node: what it does, how it is written, and when it fails."""

    key: str
    kind: str
    style: str = "plain"
    reads: tuple[Any, ...] = ()
    policy: hp.Policy = Stop()  # noqa: RUF009  a frozen value
    capacity: int = 1024
    when_full: Any = "wait"
    salt: int = 0
    count: int = 0  # values of a source, each time it is started
    breaks: tuple[int, ...] = ()  # where a source raises: after so many values of each start, or of a script

    def draw(self, what: object, n: int, purpose: str) -> int:
        """A number in range(n) that depends on this node and `what` alone."""
        return zlib.crc32(repr((self.salt, purpose, what)).encode()) % n

    def failing(self, what: object) -> int:
        """How many attempts at it fail."""
        return (0, 0, 0, 0, 0, 0, 1, 2, 3, FOR_EVER)[self.draw(what, 10, "fails")]

    def is_given_up(self, what: object) -> bool:
        """Whether a person who finds it held discards it at once, and does not try until it works."""
        return self.failing(what) == FOR_EVER or self.draw(what, 3, "hand") == 0

    @property
    def retries(self) -> int:
        found, policy = 0, self.policy
        while isinstance(policy, Retry):
            found, policy = found + policy.times, policy.then
        return found

    @property
    def last(self) -> hp.Policy:
        policy = self.policy
        while isinstance(policy, Retry):
            policy = policy.then
        return policy

    def outputs(self, value: Any) -> list[Any]:
        """What one value gives when nothing fails."""
        match self.kind:
            case "map":
                return [(self.key, value)]
            case "filter":
                return [value] if self.draw(value, 3, "pass") else []
            case "route":
                return [value]
            case "sink":
                return []
        return [(self.key, i, value) for i in range((0, 1, 1, 2, 3, 6)[self.draw(value, 6, "width")])]

    def name(self, value: Any) -> str:
        return ("a", "b", "nobody")[self.draw(value, 3, "name")]

    def source_values(self) -> list[Any]:
        """All that a source gives, in order."""
        if self.style == "script":
            return [(self.key, 0, i) for i in range(self.count)]
        starts = [*self.breaks, self.count]
        return [(self.key, start, i) for start, count in enumerate(starts) for i in range(count)]


POLICIES: list[hp.Policy] = [
    hp.discard(),
    hp.hold(),
    hp.retry(1, delay_s=0.001, then=hp.discard()),
    hp.retry(2, delay_s=0, then=hp.hold()),
    hp.retry(1, delay_s=0.01, then=hp.retry(1, delay_s=0, then=hp.discard())),
]
STYLES = {
    "map": ("plain", "async", "concurrent"),
    "filter": ("plain", "async", "concurrent"),
    "flat_map": ("plain", "generator", "async", "async generator", "concurrent", "concurrent generator"),
    "stateful": ("plain", "async"),
    "route": ("plain", "async", "concurrent"),
    "process": ("plain", "generator", "async", "async generator"),
    "sink": ("plain", "async", "concurrent"),
}


@attrs.frozen
class Graph:
    """Nodes, each after what it reads, and how the run goes."""

    seed: int
    specs: tuple[Spec, ...]
    ending: str  # "join", "drain", "leave", "stop"
    after_s: float  # before a drain
    pauses: tuple[tuple[float, str], ...]
    has_failing_error_sink: bool

    def __str__(self) -> str:
        return "\n".join([f"seed {self.seed}: {self.ending} after {self.after_s} s", *map(repr, self.specs)])


def random_graph(seed: int, policies: list[hp.Policy] = POLICIES) -> Graph:
    rng = random.Random(seed)
    capacities = rng.choice([(1,), (1, 2, 3), (1, 4, 1024), (1024,)])
    specs: list[Spec] = []

    def add(kind: str, style: str, reads: Iterable[Any] = (), **options: Any) -> None:
        options.setdefault("policy", rng.choice(policies))
        capacity, salt = rng.choice(capacities), rng.randrange(2**32)
        specs.append(Spec(f"{kind}{len(specs)}", kind, style, tuple(reads), capacity=capacity, salt=salt, **options))

    def add_reader(kind: str, reads: list[Spec]) -> None:
        keys = [hp.output(spec.key, rng.choice("ab")) if spec.kind == "route" else spec.key for spec in reads]
        when_full = rng.choice(["wait"] * 6 + ["drop_oldest", "drop_newest", "latest"]) if kind == "sink" else "wait"
        add(kind, rng.choice(STYLES[kind]), keys, when_full=when_full)

    for _ in range(rng.randint(1, 2)):
        style, count = rng.choice(["list", "script", "generator", "async generator"]), rng.choice([1, 3, 8, 20])
        match style:
            case "list":
                add("source", style, count=count)
            case "script":
                add("source", style, count=count, breaks=rng.choices(range(count), k=2), policy=hp.discard())
            case _:
                policy = hp.retry(3, delay_s=0.001, then=hp.discard())
                add("source", style, count=count, breaks=tuple(rng.choices(range(count), k=2)), policy=policy)
    for _ in range(rng.randint(1, 6)):
        givers = [spec for spec in specs if spec.kind != "sink"]
        add_reader(
            rng.choice([kind for kind in STYLES if kind != "sink"]),
            rng.sample(givers, rng.choice([1, 1, 1, 2]) if len(givers) > 1 else 1),
        )
    read = {getattr(key, "key", key) for spec in specs for key in spec.reads}
    for spec in [spec for spec in specs if spec.key not in read]:
        add_reader("sink", [spec])
    pausable = [spec.key for spec in specs]
    return Graph(
        seed,
        tuple(specs),
        rng.choice(["join", "join", "join", "drain", "leave", "stop"]),
        rng.choice([0, 0.0005, 0.002, 0.01]),
        tuple((rng.choice([0, 0.001, 0.01]), rng.choice(pausable)) for _ in range(rng.choice([0, 0, 1, 2]))),
        rng.random() < 0.3,
    )


# --- a run


class Playing:
    """One run of a graph: its user functions, and what came of it."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.specs = {spec.key: spec for spec in graph.specs}
        self.calls: Counter[tuple[str, Any]] = Counter()
        self.finished: list[tuple[str, Token]] = []  # at sinks
        self.failures: list[hp.Failure] = []
        self.starts: Counter[str] = Counter()
        self.statistics: Any = None

    def attempt(self, spec: Spec, what: Any) -> None:
        """User code is called: fail, if it is to."""
        self.calls[spec.key, what] += 1
        if self.calls[spec.key, what] <= spec.failing(what):
            raise Broken(spec.key, what)

    def token(self, value: Any) -> Token:
        item = hp.current_item()
        assert item.value is value
        return self.what(item)

    @staticmethod
    def what(item: hp.Item) -> Token:
        return item.trail.keys, item.value

    # -- user functions

    def call(self, spec: Spec, value: Any) -> Any:
        self.attempt(spec, self.token(value))
        match spec.kind:
            case "filter":
                return bool(spec.outputs(value))
            case "route":
                return spec.name(value)
            case "sink":
                self.finished.append((spec.key, self.token(value)))
                return None
            case "map":
                return spec.outputs(value)[0]
        return spec.outputs(value)

    async def call_async(self, spec: Spec, value: Any) -> Any:
        await asyncio.sleep((0, 0, 0.0003, 0.002)[spec.draw(value, 4, "nap")])
        return self.call(spec, value)

    def generate(self, spec: Spec, value: Any) -> Iterator[Any]:
        """Fail, if at all, after some of its outputs."""
        token, outputs = self.token(value), spec.outputs(value)
        fails_at = spec.draw(value, len(outputs) + 1, "place")
        yield from outputs[:fails_at]
        self.attempt(spec, token)
        yield from outputs[fails_at:]

    async def generate_async(self, spec: Spec, value: Any) -> AsyncIterator[Any]:
        for output in self.generate(spec, value):
            yield output
            await asyncio.sleep((0, 0, 0.002)[spec.draw(output, 3, "nap")])

    def step(self, spec: Spec, state: int, value: Any) -> tuple[int, Any]:
        token = self.token(value)
        done = sum(1 for key, what in self.calls if key == spec.key and self.is_done(spec, what))
        assert state == done, "a failed attempt leaves the state alone"
        self.attempt(spec, token)
        return state + 1, spec.outputs(value)

    def is_done(self, spec: Spec, what: Any) -> bool:
        return self.calls[spec.key, what] > spec.failing(what)

    async def step_async(self, spec: Spec, state: int, value: Any) -> tuple[int, Any]:
        await asyncio.sleep(0)
        return self.step(spec, state, value)

    def produce(self, spec: Spec) -> Iterator[Any]:
        start = self.starts[spec.key]
        self.starts[spec.key] += 1
        counts = [*spec.breaks, spec.count]
        for i in range(counts[start]):
            yield spec.key, start, i
        if start < len(spec.breaks):
            raise Broken(spec.key)

    async def produce_async(self, spec: Spec) -> AsyncIterator[Any]:
        for value in self.produce(spec):
            yield value
            await asyncio.sleep((0, 0, 0.002)[spec.draw(value, 3, "nap")])

    def script(self, spec: Spec) -> Iterator[Any]:
        for i in range(spec.count):
            yield from [testing.Raise(Broken(spec.key))] * spec.breaks.count(i)
            yield spec.key, 0, i
            yield testing.Pause((0, 0.0002, 0.002)[spec.draw(i, 3, "nap")])

    # -- as a topology

    def topology(self) -> hp.Topology:
        nodes = {spec.key: self.node(spec) for spec in self.graph.specs}
        nodes["errors"] = hp.sink(self.failures.append, hp.ERRORS)
        if self.graph.has_failing_error_sink:
            nodes["bad"] = hp.sink(self.fail_below, hp.ERRORS, on_error=hp.retry(1, delay_s=0, then=hp.discard()))
        return hp.Topology().update(nodes)

    def fail_below(self, failure: hp.Failure) -> None:
        raise Broken("an error sink")

    def node(self, spec: Spec) -> hp.Node:
        def bound(fn: Callable[..., Any], is_async: bool = False, is_generator: bool = False) -> Callable[..., Any]:
            return _bound(fn, spec, is_async, is_generator)

        if spec.kind == "source":
            return hp.source(self._producer(spec), on_error=spec.policy)
        options: dict[str, Any] = {"capacity": spec.capacity, "on_error": spec.policy}
        if "concurrent" in spec.style:
            options["concurrency"] = 3
        is_async = "plain" not in spec.style and spec.style != "generator"
        if spec.kind == "stateful":
            step = self.step_async if is_async else self.step
            return hp.stateful(bound(step, is_async), 0, *spec.reads, **options)
        if "generator" in spec.style:
            fn = bound(self.generate_async if is_async else self.generate, is_async, is_generator=True)
        else:
            fn = bound(self.call_async if is_async else self.call, is_async)
        if spec.kind == "process":
            return hp.process(lambda: Ending(self, spec, fn), *spec.reads, **options)
        made: hp.Node = getattr(hp, spec.kind)(fn, *spec.reads, **options)
        return made if spec.when_full == "wait" else made.overflow(spec.when_full)

    def _producer(self, spec: Spec) -> Any:
        return {
            "list": lambda: spec.source_values(),
            "script": testing.script(self.script(spec)),
            "generator": _bound(self.produce, spec),
            "async generator": _bound(self.produce_async, spec, is_async=True, is_generator=True),
        }[spec.style]

    # -- the run

    def stopped_by(self) -> hp.NodeError | None:
        """Play; gives what stopped it."""

        async def main() -> None:
            async with asyncio.timeout(PATIENCE_S):
                await self.play()

        try:
            run(main, self.graph.seed)
        except hp.NodeError as error:
            return error
        return None

    async def play(self) -> None:
        topology = self.topology()
        if self.graph.ending == "stop":
            plumbing = await hp.start(topology)
            await self.use(plumbing)
            await plumbing.stop()
        else:
            async with hp.Plumbing(topology) as plumbing:
                await self.use(plumbing)
        self.statistics = plumbing.statistics()

    async def use(self, plumbing: hp.Plumbing) -> None:
        hand = asyncio.create_task(self.decide(plumbing))
        pauses = [asyncio.create_task(self.pause(plumbing, *pause)) for pause in self.graph.pauses]
        try:
            if self.graph.ending == "join":
                await plumbing.join()
                return
            await asyncio.sleep(self.graph.after_s)
            if self.graph.ending == "drain":
                await plumbing.drain()
        finally:
            for task in (hand, *pauses):
                task.cancel()
            await asyncio.wait([hand, *pauses])

    async def pause(self, plumbing: hp.Plumbing, wait_s: float, key: str) -> None:
        await asyncio.sleep(wait_s)
        plumbing.pause(key)
        await asyncio.sleep(0.005)
        plumbing.resume(key)

    async def decide(self, plumbing: hp.Plumbing) -> None:
        """Look now and then for what is held, and do what a person would."""
        while True:
            await asyncio.sleep(0.003)
            for key, found in plumbing.statistics().nodes.items():
                if found.state == "holding":
                    assert found.trouble is not None
                    item = found.trouble.item
                    what = found.trouble.call if item is None else self.what(item)
                    decision = plumbing.discard if self.specs[key].is_given_up(what) else plumbing.retry
                    decision(key)


def _bound(
    fn: Callable[..., Any], spec: Spec, is_async: bool = False, is_generator: bool = False
) -> Callable[..., Any]:
    """`fn` with its first argument given, as a function of the same kind."""
    if is_async and not is_generator:

        async def call_async(*args: Any) -> Any:
            return await fn(spec, *args)

        return call_async
    if is_async:

        async def generate_async(*args: Any) -> AsyncIterator[Any]:
            async for output in fn(spec, *args):
                yield output

        return generate_async
    return lambda *args: fn(spec, *args)


class Ending:
    """A process whose `end` fails too."""

    def __init__(self, playing: Playing, spec: Spec, process: Callable[[Any], Any]) -> None:
        self.playing = playing
        self.spec = spec
        self.process = process

    def end(self) -> Any:
        self.playing.attempt(self.spec, "end")
        return [(self.spec.key, "end")]


# --- what must come of it


class Model:
    """What each node must have been given and have sent, from the sources down."""

    def __init__(self, playing: Playing) -> None:
        self.playing = playing
        self.is_drained = playing.graph.ending != "join"
        self.sent: dict[str, list[tuple[str | None, Token]]] = {}  # {node: its outputs, with their names}
        self.given: dict[str, list[Token]] = {}
        self.failed: Counter[tuple[str, Any]] = Counter()
        self.found = {self.what(failure): failure for failure in playing.failures}

    @staticmethod
    def what(failure: hp.Failure) -> tuple[Any, Any]:
        return failure.key, None if failure.item is None else Playing.what(failure.item)

    def check(self) -> None:
        for spec in self.playing.graph.specs:
            if spec.kind == "source":
                self.check_source(spec)
            else:
                self.check_node(spec)
        told = Counter(self.what(failure) for failure in self.playing.failures)
        assert told == self.failed, "each failure is in the error stream once"

    def check_source(self, spec: Spec) -> None:
        count, values = self.playing.statistics.nodes[spec.key].sent, spec.source_values()
        if not self.is_drained:
            assert count == len(values), spec.key
        self.sent[spec.key] = [(None, ((spec.key,), value)) for value in values[:count]]
        failures = [failure for failure in self.playing.failures if failure.key == spec.key]
        if not self.is_drained:
            assert len(failures) == (len(spec.breaks) if spec.style == "script" else 0)
        assert all(failure.item is None for failure in failures)
        self.failed[spec.key, None] += len(failures)
        self.failed += Counter()

    def check_node(self, spec: Spec) -> None:
        given = self.given[spec.key] = self.inputs(spec)
        assert len(set(given)) == len(given), "the test's own: each token is there once"
        sent: list[tuple[str | None, Token]] = []
        failed = 0
        reached = self.reached(spec, given)
        for token in reached:
            count = self.outputs_of(spec, token)
            failed += (spec.key, token) in self.found
            if count is None or count:
                name = spec.name(token[1]) if spec.kind == "route" else None
                outputs = spec.outputs(token[1])[:count]
                sent += [(name, ((*token[0], spec.key), output)) for output in outputs]
        if spec.kind == "process":
            failed += self.check_end(spec, sent)
        self.sent[spec.key] = sent
        statistics = self.playing.statistics.nodes[spec.key]
        assert statistics.failed == failed, spec.key
        assert statistics.received + failed - ((spec.key, None) in self.found) == len(reached), spec.key
        assert statistics.dropped == len(given) - len(reached), spec.key
        assert statistics.sent == len(sent), spec.key
        if spec.kind == "sink":
            got = Counter(token for key, token in self.playing.finished if key == spec.key)
            assert got == Counter(token for token in reached if (spec.key, token) not in self.found), spec.key

    def inputs(self, spec: Spec) -> list[Token]:
        found: list[Token] = []
        for read in spec.reads:
            key, name = getattr(read, "key", read), getattr(read, "name", None)
            found += [token for output, token in self.sent[key] if name is None or output == name]
        return found

    def reached(self, spec: Spec, given: list[Token]) -> list[Token]:
        """What was not forgotten on the way: all, unless the node may forget."""
        called = {what for key, what in self.playing.calls if key == spec.key and what != "end"}
        assert called <= set(given), spec.key
        if spec.when_full == "wait":
            assert called == set(given), spec.key
        return [token for token in given if token in called]

    def outputs_of(self, spec: Spec, token: Token) -> int | None:
        """How many outputs must have left; None for all.  Checks that what became of it is what the policy says."""
        calls, failing = self.playing.calls[spec.key, token], spec.failing(token)
        failure = self.found.get((spec.key, token))
        if failure is None:
            assert calls == failing + 1, (spec.key, token)
            must_fail = failing > spec.retries and (isinstance(spec.last, Discard) or spec.is_given_up(token))
            assert not must_fail, (spec.key, token)
            return None
        self.failed[spec.key, token] += 1
        assert (failure.attempts, calls) == (calls, min(calls, failing)), (spec.key, token, failure)
        if failure.reason.startswith("partly sent"):
            assert "generator" in spec.style
            return int(failure.reason.split()[2])
        assert failing > spec.retries, (spec.key, token, failure)
        if failure.reason == "drained":
            assert self.is_drained
            assert isinstance(spec.last, Hold)
        elif isinstance(spec.last, Discard):
            assert calls == spec.retries + 1
        else:
            assert spec.is_given_up(token)
        return 0

    def check_end(self, spec: Spec, sent: list[tuple[str | None, Token]]) -> int:
        failure = self.found.get((spec.key, None))
        if failure is not None:
            self.failed[spec.key, None] += 1
            assert spec.failing("end") > spec.retries
            return 1
        assert self.playing.calls[spec.key, "end"] == spec.failing("end") + 1
        sent.append((None, ((spec.key,), (spec.key, "end"))))
        return 0


@pytest.fixture(autouse=True)
def quietly(caplog: pytest.LogCaptureFixture) -> None:
    """Thousands of failures that nobody reads are not worth a line each."""
    caplog.set_level(logging.CRITICAL, "hotplumb")


def play_and_check(seed: int) -> None:
    graph = random_graph(seed)
    with noted(graph):
        playing = Playing(graph)
        assert playing.stopped_by() is None
        Model(playing).check()


@contextmanager
def noted(graph: Graph) -> Iterator[None]:
    """Show the graph beside whatever is raised."""
    try:
        yield
    except BaseException as exc:
        exc.add_note(str(graph))
        raise


@pytest.mark.parametrize("part", range(4))
def test_each_item_is_at_its_sinks_or_dropped_or_in_an_error_stream_once(
    part: int, seeds: Callable[[int], list[int]]
) -> None:
    """And each value has cost as many calls as it had attempts, whatever its neighbours did."""
    for seed in seeds(500):
        play_and_check(seed)


@pytest.mark.parametrize("part", range(2))
def test_whatever_stops_the_plumbing_is_raised_and_leaves_nothing_behind(
    part: int, seeds: Callable[[int], list[int]]
) -> None:
    """With `stop` among the policies: the error of one node itself, or an end as without it."""
    for seed in seeds(250):
        graph = random_graph(seed, [*POLICIES, hp.stop(), hp.retry(1, delay_s=0.001)])
        with noted(graph):
            playing = Playing(graph)
            error = playing.stopped_by()
            if error is None:
                Model(playing).check()
            else:
                check_stop(playing, error)


def check_stop(playing: Playing, error: hp.NodeError) -> None:
    assert isinstance(error.__cause__, Broken)
    spec = playing.specs[str(error.key)]
    assert isinstance(spec.last, Stop)
    if error.item is not None:
        assert playing.calls[spec.key, playing.what(error.item)] >= 1


def test_the_graphs_have_all_that_can_fail() -> None:
    """What the generator never made would never be tested."""
    specs = [spec for seed in range(300) for spec in random_graph(seed).specs]
    kinds = Counter((spec.kind, spec.style) for spec in specs)
    assert set(kinds) == {(kind, style) for kind, styles in STYLES.items() for style in styles} | {
        ("source", style) for style in ("list", "script", "generator", "async generator")
    }
    assert min(kinds.values()) >= 5
    assert {spec.when_full for spec in specs} == {"wait", "drop_oldest", "drop_newest", "latest"}
    assert {random_graph(seed).ending for seed in range(100)} == {"join", "drain", "leave", "stop"}


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        print(random_graph(int(argument)))
        play_and_check(int(argument))
