"""Random graphs, and what must come of them in plain Python.

    graph = random_graph(seed)     what runs: the nodes, how each is written, how the run ends
    played = play(graph)           one run of it on the seeded loop: what each user function was given, and all counts
    check(graph, played)           raises `Wrong` where the model says otherwise

The model needs no engine.  Values carry their own provenance, built by the user functions, and all that a function does
with a value is drawn from that; so what a node sends follows from what it was given (`Machine`), and what it may be
given from what the nodes above it sent: each link's values, all of them, in order.  Only how the links of a fan-in
mingle is free, and taken as it was.  Trails and origins are held against the provenance.

`python -m tests.graphs SEED ...` shows the graphs of these seeds, plays and checks them.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import random
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, NamedTuple

import attrs

import hotplumb as hp
from hotplumb import _runner
from hotplumb._links import Link
from hotplumb._loops import Text
from hotplumb.keys import Key, canonical
from hotplumb.testing import Pause, script

Hops = tuple[tuple[Key, int], ...]

NAMES: tuple[Key, ...] = ("a", "b", ("c", 1))  # of a route's outputs
NOBODY = "nobody"  # the name that none reads
WIDTHS = (0, 1, 1, 1, 2, 3, 5)  # how many outputs a value gives
BURST = 300  # more than a chunk holds
PATIENCE_S = 3600.0  # virtual
CLOSING_S = 0.05  # virtual: longer than any wait of a user function
MOST_VALUES = 150  # that a node may be expected to get: small graphs are many graphs


class Wrong(AssertionError):
    """The engine and the model do not agree."""


# --- values and what is done with them


@attrs.frozen
class Value:
    """What flows: where it began, and each function that has made it anew since."""

    source: Key
    number: int
    steps: tuple[tuple[Key, int, int], ...] = ()  # (node, version of its function, which output)
    beside: tuple[tuple[Key, int, int], ...] = ()  # origins of what it was joined with
    mark: int = attrs.field(default=0, eq=False, repr=False)  # what functions draw from

    @property
    def origins(self) -> tuple[tuple[Key, int, int], ...]:
        """What its trail must give."""
        return tuple(dict.fromkeys([(self.source, self.number, 0), *self.beside]))

    def __str__(self) -> str:
        steps = "".join(f">{canonical(key)}.{k}" for key, _, k in self.steps)
        beside = "".join(f"+{canonical(key)}#{number}" for key, number, _ in self.beside)
        return f"{canonical(self.source)}#{self.number}{steps}{beside}"


class Read(NamedTuple):
    """What a node reads: another node, or one output of a route."""

    key: Key
    name: Key = None

    @property
    def as_given(self) -> Key:
        return self.key if self.name is None else hp.output(self.key, self.name)


@attrs.frozen
class Spec:
    """One node: what it does, and how it is written."""

    key: Key
    kind: str
    style: str
    reads: tuple[Read, ...] = ()
    concurrency: int = 1
    capacity: int = 1024
    pace: str = "fast"  # how async functions wait: "fast", "yields", "slow"
    count: int | None = 0  # values of a source (None: no end), or those that a `take` takes
    is_bursty: bool = False  # one value in twenty gives more outputs than a chunk holds
    methods: tuple[tuple[str, str], ...] = ()  # the style of each method that a process has beside `process`
    salt: int = 0
    version: int = 0

    def draw(self, mark: int, n: int, purpose: int = 0) -> int:
        """A number in range(n) that depends on the value and this node alone."""
        return (_mix(mark, self.salt ^ purpose) >> 8) % n

    @property
    def is_sink(self) -> bool:
        return self.kind in ("sink", "collect")

    @property
    def is_process(self) -> bool:
        return self.kind in ("process", "zip", "take", "timer")

    @property
    def is_logged(self) -> bool:
        """Whether it calls a user function with each value."""
        return self.kind not in ("source", "merge", "collect")

    @property
    def is_ordered(self) -> bool:
        """Whether its log shows the order in which values were taken."""
        return self.is_logged and self.concurrency == 1


def _mix(mark: int, salt: int) -> int:
    mixed = (mark ^ salt * 0x9E3779B1) & 0xFFFFFFFF
    mixed = (mixed ^ mixed >> 16) * 0x45D9F3B & 0xFFFFFFFF
    return (mixed ^ mixed >> 13) & 0xFFFFFFFF


class Machine:
    """What one node does to values, without any engine; the run and the model both use it."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.seen = 0
        self.owned = 0
        self.held: Value | None = None  # of a zip: what waits for its partner

    def own(self, mark: int) -> Value:
        """A value that begins here."""
        spec, number = self.spec, self.owned
        self.owned += 1
        return Value(spec.key, number, ((spec.key, spec.version, 0),), (), _mix(mark + number, spec.salt))

    def give(self, value: Value, source: Key = None) -> list[Value]:
        """The outputs for one value."""
        spec = self.spec
        match spec.kind:
            case "map":
                return [self._made(value, 0)]
            case "filter":
                return [value] if self.passes(value) else []
            case "flat_map":
                return self._several(value, 0)
            case "merge" | "route":
                return [value]
            case "zip":
                return self._zipped(value, source)
            case "sink" | "collect":
                return []
        self.seen += 1
        return self._several(value, self.seen)

    def passes(self, value: Value) -> bool:
        return self.spec.draw(value.mark, 3) != 0

    def name(self, value: Value) -> Key:
        """The output of a route that a value goes to."""
        return (*NAMES, NOBODY)[self.spec.draw(value.mark, 4)]

    def wake(self) -> list[Value]:
        """What a timer gives when it is woken."""
        return [self.own(self.seen) for _ in range(self.spec.draw(self.owned, 3, purpose=5))]

    def end(self) -> list[Value]:
        """The last outputs of a process."""
        return [self.own(self.seen) for _ in range(self.spec.draw(self.seen, 4, purpose=6))]

    def _several(self, value: Value, nth: int) -> list[Value]:
        spec = self.spec
        if spec.is_bursty and spec.draw(value.mark, 20, purpose=2) == 0:
            width = BURST
        else:
            width = WIDTHS[spec.draw(value.mark + nth, len(WIDTHS), purpose=1)]
        return [self._made(value, nth * 1000 + k) for k in range(width)]

    def _zipped(self, value: Value, source: Key) -> list[Value]:
        if source == self.spec.reads[0].as_given:
            self.held = value
            return []
        held, self.held = self.held, None
        if held is None:
            return [self._made(value, 0)]
        return [self._made(value, 1 + k, held.origins) for k in range(1 + self.spec.draw(held.mark, 4))]

    def _made(self, value: Value, k: int, beside: tuple[tuple[Key, int, int], ...] | None = None) -> Value:
        spec = self.spec
        step = (spec.key, spec.version, k)
        mark = _mix(value.mark + k + 1, spec.salt)
        return Value(value.source, value.number, (*value.steps, step), beside or value.beside, mark)


# --- graphs


@attrs.frozen
class Graph:
    """Nodes in an order in which each comes after what it reads, and how the run goes."""

    seed: int
    specs: tuple[Spec, ...]
    wiring: str  # how the topology is built: "add", "update", "factory"
    ending: str  # "join", "stop" (of `hp.start`), "drain", "leave" (which drains)
    rounds: int  # turns of the loop before a drain
    pauses: tuple[tuple[float, Key, float], ...]  # (wait this long, pause this node, for so long)
    taps: tuple[Key, ...]

    def readers(self, key: Key) -> list[Spec]:
        return [spec for spec in self.specs if any(read.key == key for read in spec.reads)]

    def __str__(self) -> str:
        lines = [f"seed {self.seed}: {self.wiring}, {self.ending}" + f" after {self.rounds} rounds" * self.is_drained]
        lines += [f"  {_line_of(spec)}" for spec in self.specs]
        lines += [f"  after {wait} s pause {canonical(key)} for {pause} s" for wait, key, pause in self.pauses]
        lines += [f"  tap {canonical(key)}" for key in self.taps]
        return "\n".join(lines)

    @property
    def is_drained(self) -> bool:
        return self.ending in ("drain", "leave")


def _line_of(spec: Spec) -> str:
    reads = ", ".join(canonical(read.as_given) for read in spec.reads)
    options = [spec.pace] if "async" in spec.style or spec.methods else []
    options += [f"{name}: {style}" for name, style in spec.methods]
    options += [f"concurrency {spec.concurrency}"] if spec.concurrency > 1 else []
    options += [f"capacity {spec.capacity}"] if spec.reads else []
    options += [f"count {spec.count}"] if spec.kind in ("source", "take") else []
    options += ["bursty"] if spec.is_bursty else []
    return f"{canonical(spec.key):12} {spec.kind:8} {reads:32} {spec.style}; {', '.join(options)}"


SOURCE_STYLES = ("list", "function", "generator", "generator of context", "async function", "async generator", "script")
CALL_STYLES = ("plain", "plain", "object", "partial", "plain with a task")
ASYNC_CALL_STYLES = ("async", "async", "async object", "async with a task")
GIVE_STYLES = ("list", "tuple", "iterator", "generator", "generator")
ASYNC_GIVE_STYLES = ("async list", "async generator")
STEP_STYLES = ("list", "generator", "async list", "async with generator")
PROCESS_STYLES = ("plain", "plain", "generator", "generator", "async", "async generator")
OWN_STYLES = ("plain", "plain", "generator", "async", "async generator")  # of `end` and `wake`
MIDDLE_KINDS = {
    "map": 20, "filter": 12, "flat_map": 16, "stateful": 8, "merge": 8, "route": 12, "process": 8, "zip": 10, "take": 7,
    "timer": 5, "sink": 5,
}  # fmt: skip
CALM_KINDS = ("map", "filter", "merge", "route", "sink")  # for where there are many values already


class Sketch:
    """A random graph while it grows, node by node."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.specs: list[Spec] = []
        self.volume: dict[Key, int] = {}  # about how many values it sends
        self.ancestry: dict[Key, frozenset[Key]] = {}  # itself among them
        self.capacities = self.rng.choice([(1,), (1, 2, 3, 4), (1, 2, 3, 4), (1, 2, 3, 4, 1024), (7, 300, 1024)])
        self.paces = self.rng.choice([("fast",), ("yields",), ("slow",), ("fast", "yields", "slow"), ("fast", "slow")])
        self.has_zip = False

    def add(self, kind: str, style: str, reads: Sequence[Read] = (), **options: Any) -> Spec:
        rng, i = self.rng, len(self.specs)
        key = hp.freeze(rng.choice([f"{kind}{i}", f"{kind}{i}", f"{kind}{i}", (kind, i), {"node": i}]))
        spec = Spec(key, kind, style, tuple(reads), pace=rng.choice(self.paces), salt=rng.randrange(2**32), **options)
        if reads:
            spec = attrs.evolve(spec, capacity=rng.choice(self.capacities))
        self.specs.append(spec)
        self.ancestry[spec.key] = frozenset([spec.key]).union(*(self.ancestry[read.key] for read in reads))
        return spec

    def add_source(self) -> None:
        rng = self.rng
        count = rng.choice([0, 1, 2, 3, 5, 8, 12, 12])
        if rng.random() < 0.02:
            count = BURST
        spec = self.add("source", rng.choice(SOURCE_STYLES), count=count)
        self.volume[spec.key] = count

    def add_middle(self) -> None:
        rng = self.rng
        kind = rng.choices(list(MIDDLE_KINDS), list(MIDDLE_KINDS.values()))[0]
        reads = self._pair() if kind == "zip" else self._some_reads()
        if kind == "zip" and not reads:
            kind, reads = "process", self._some_reads()
        arriving = sum(self.volume[read.key] for read in reads)
        if arriving > MOST_VALUES / 2 and kind not in CALM_KINDS:
            kind = rng.choice(CALM_KINDS)
        self.add_reader(kind, reads)

    def add_reader(self, kind: str, reads: Sequence[Read]) -> None:
        rng = self.rng
        arriving = sum(self.volume[read.key] for read in reads)
        is_bursty = kind in ("flat_map", "process", "stateful") and arriving < 20 and rng.random() < 0.06
        style, concurrency, options = self._written(kind)
        spec = self.add(kind, style, reads, concurrency=concurrency, is_bursty=is_bursty, **options)
        widening = 2 if kind in ("flat_map", "process", "stateful", "zip", "timer") else 1
        self.volume[spec.key] = arriving * widening + BURST * is_bursty
        self.has_zip |= kind == "zip"

    def _written(self, kind: str) -> tuple[str, int, dict[str, Any]]:
        """How a node of a kind is written: style, concurrency and what else."""
        rng = self.rng
        match kind:
            case "merge" | "collect":
                return "", 1, {}
            case "stateful":
                return rng.choice(STEP_STYLES), 1, {}
            case "process" | "zip" | "take" | "timer":
                count = rng.randint(1, 8) if kind == "take" else 0
                return rng.choice(PROCESS_STYLES), 1, {"methods": self._methods(kind), "count": count}
        calm, awaited = (GIVE_STYLES, ASYNC_GIVE_STYLES) if kind == "flat_map" else (CALL_STYLES, ASYNC_CALL_STYLES)
        if rng.random() < 0.5:
            return rng.choice(calm), 1, {}
        return rng.choice(awaited), rng.choice([1, 1, 2, 3, 4]), {}

    def _methods(self, kind: str) -> tuple[tuple[str, str], ...]:
        rng = self.rng
        is_calm = rng.random() < 0.4
        own = ("plain", "generator") if is_calm else OWN_STYLES
        one = ("plain",) if is_calm else ("plain", "async")
        methods = {"begin": rng.choice(one)}
        if kind == "timer":
            methods["wake"] = rng.choice(own)
        if kind == "timer" or rng.random() < 0.6:
            methods["end"] = rng.choice(own)
        if rng.random() < 0.7:
            methods["close"] = rng.choice(one)
        return tuple(methods.items())

    def _some_reads(self) -> list[Read]:
        rng = self.rng
        givers = [spec for spec in self.specs if not spec.is_sink]
        latest = givers[-3:] if rng.random() < 0.5 else givers
        count = min(len(latest), rng.choices([1, 2, 3], [70, 22, 8])[0])
        reads: list[Read] = []
        for spec in rng.sample(latest, count):
            if not reads or sum(self.volume[read.key] for read in reads) + self.volume[spec.key] < 2 * MOST_VALUES:
                reads += self._reads_of(spec)
        return reads

    def _reads_of(self, spec: Spec) -> list[Read]:
        """The whole of a node, or some outputs of a route."""
        if spec.kind != "route" or self.rng.random() < 0.25:
            return [Read(spec.key)]
        return [Read(spec.key, name) for name in self.rng.sample(NAMES, self.rng.choice([1, 1, 2]))]

    def _pair(self) -> list[Read]:
        """Two nodes without a source in common: else one that waits for the other would starve it."""
        givers = [spec for spec in self.specs if not spec.is_sink and self.volume[spec.key] < MOST_VALUES]
        pairs = [
            pair
            for pair in itertools.permutations(givers, 2)
            if not self.has_zip and not self.ancestry[pair[0].key] & self.ancestry[pair[1].key]
        ]
        return [self._reads_of(spec)[0] for spec in self.rng.choice(pairs)] if pairs else []

    def add_sinks(self, most: int) -> None:
        """Have every node read."""
        rng = self.rng
        read = {read.key for spec in self.specs for read in spec.reads}
        unread = [spec for spec in self.specs if not spec.is_sink and spec.key not in read]
        if not unread and not any(spec.is_sink for spec in self.specs):
            unread = [rng.choice(self.specs)]
        rng.shuffle(unread)
        while unread:
            count = rng.randint(1, len(unread)) if most > 1 else len(unread)
            most -= 1
            taken, unread = unread[:count], unread[count:]
            kind = rng.choice(["sink", "sink", "collect"])
            self.add_reader(kind, [wanted for spec in taken for wanted in self._reads_of(spec)])


def random_graph(seed: int) -> Graph:
    """The graph of a seed: 2 to 12 nodes or so."""
    sketch = Sketch(seed)
    rng = sketch.rng
    size = rng.randint(2, 12)
    sources = rng.randint(1, min(3, size - 1))
    for _ in range(sources):
        sketch.add_source()
    for _ in range(size - sources - rng.randint(1, 3)):
        sketch.add_middle()
    sketch.add_sinks(max(1, size - len(sketch.specs)))
    keys = [spec.key for spec in sketch.specs]
    givers = [spec.key for spec in sketch.specs if not spec.is_sink]
    return Graph(
        seed,
        tuple(_endless(sketch.specs, rng)),
        wiring=rng.choice(["add", "update", "factory"]),
        ending=rng.choices(["join", "stop", "drain", "leave"], [65, 10, 12, 13])[0],
        rounds=rng.randrange(12),
        pauses=tuple((rng.choice(_WAITS), rng.choice(keys), rng.choice(_WAITS)) for _ in range(rng.choice(_FEW))),
        taps=tuple(rng.sample(givers, min(len(givers), rng.choice(_FEW)))),
    )


_WAITS = (0, 0, 0, 0.0005, 0.003, 0.02)
_FEW = (0, 0, 0, 1, 2)


def _endless(specs: list[Spec], rng: random.Random) -> Iterator[Spec]:
    """Some sources give without end, where what all who read them take is sure to be enough."""
    readers: dict[Key, list[Spec]] = {spec.key: [] for spec in specs}
    for spec in specs:
        for key in {read.key for read in spec.reads}:
            readers[key].append(spec)

    def is_finished(spec: Spec) -> bool:
        if spec.kind == "take":
            return True
        found = readers[spec.key]
        return spec.kind in ("source", "map", "merge") and bool(found) and all(map(is_finished, found))

    for spec in specs:
        if spec.kind == "source" and is_finished(spec) and rng.random() < 0.8:
            yield attrs.evolve(spec, count=None, style=rng.choice(["generator", "async generator"]))
        else:
            yield spec


# --- a run


@attrs.define
class Event:
    """Something that a node's user code was called for."""

    call: str  # "value", "wake", "end"
    value: Value | None = None
    trail: hp.Trail | None = None
    hops: Hops | None = None  # where they were read at once
    source: Key = None


class Doing:
    """One node of one run: its user functions, and what they were given."""

    def __init__(self, spec: Spec, run: Run) -> None:
        self.spec = spec
        self.run = run
        self.machine = Machine(spec)
        self.log: list[Event] = []
        self.calls: list[str] = []  # of a process: "begin", "end", "close"
        self.tasks: list[asyncio.Task[None]] = []  # that its functions have started
        self.opened = 0  # generators begun
        self.closed = 0  # generators whose `finally` ran
        self.due: list[float] = []  # when a timer wants to be woken
        self.missed: list[float] = []  # when it should have been, and was not before its end

    # -- what every function does

    def take_up(self, value: Value, source: Key = None) -> list[Value]:
        """A user function has been called with a value: write that down, and do what the machine does."""
        item = self.in_hand(value)
        self.log.append(Event("value", value, item.trail, item.trail.hops if value.mark & 1 else None, source))
        outputs = self.machine.give(value, source)
        self.in_hand(value)
        return outputs

    def in_hand(self, value: Value) -> hp.Item:
        item = hp.current_item()
        if item.value is not value:
            raise Wrong(f"{canonical(self.spec.key)} was called with {value} and has {item.value} in hand")
        return item

    def nothing_in_hand(self) -> None:
        try:
            item = hp.current_item()
        except LookupError:
            return
        raise Wrong(f"{canonical(self.spec.key)} has {item.value} in hand, and should have nothing")

    def nap(self, mark: int, purpose: int = 9) -> Awaitable[Any]:
        """A wait of random length, perhaps none."""
        draw = self.spec.draw
        match self.spec.pace:
            case "yields":
                return _yield_to_others(draw(mark, 3, purpose))
            case "slow":
                return asyncio.sleep((0, 0.0001, 0.0004, 0.001, 0.002, 0.007)[draw(mark, 6, purpose)])
        return _yield_to_others(0)

    # -- functions that give one answer: `map`, `filter`, `route`, `sink`

    def call(self, value: Value) -> Any:
        """A plain function."""
        self.take_up(value)
        return self.answer(value)

    async def call_async(self, value: Value) -> Any:
        """An async function."""
        self.take_up(value)
        await self.nap(value.mark)
        self.in_hand(value)
        return self.answer(value)

    def answer(self, value: Value) -> Any:
        """What the function of this kind of node gives."""
        machine = self.machine
        match self.spec.kind:
            case "map":
                return machine.give(value)[0]
            case "filter":
                return ("yes", 1, True) if machine.passes(value) else ("", 0, None)[value.mark % 3]
            case "route":
                return machine.name(value)
        return None

    def call_with_task(self, value: Value) -> Any:
        """A plain function that leaves a task behind."""
        self.take_up(value)
        self.tasks.append(asyncio.get_running_loop().create_task(self.look_later(value)))
        return self.answer(value)

    async def call_async_with_task(self, value: Value) -> Any:
        """An async function that waits for a task of its own."""
        self.take_up(value)
        await asyncio.get_running_loop().create_task(self.look_later(value))
        self.in_hand(value)
        return self.answer(value)

    async def look_later(self, value: Value) -> None:
        await self.nap(value.mark, 10)
        self.in_hand(value)

    # -- functions that give outputs: `flat_map`, `process`

    def give(self, value: Value) -> Any:
        return self.formed(self.take_up(value))

    def give_generator(self, value: Value) -> Iterator[Value]:
        return self._counted(self._each(value))

    def _each(self, value: Value) -> Iterator[Value]:
        for output in self.take_up(value):
            yield output
            self.in_hand(value)

    async def give_async(self, value: Value) -> Any:
        outputs = self.take_up(value)
        await self.nap(value.mark)
        self.in_hand(value)
        return self.formed(outputs)

    async def give_async_generator(self, value: Value) -> AsyncIterator[Value]:
        async with self.open_for_a_while():
            for output in self.take_up(value):
                await self.nap(output.mark)
                self.in_hand(value)
                yield output
                self.in_hand(value)

    def formed(self, outputs: list[Value]) -> Any:
        """Outputs in one of the forms that this kind of node may give."""
        spec = self.spec
        if not outputs and spec.draw(len(self.log), 2, purpose=3):
            return None
        if spec.is_process and len(outputs) == 1 and spec.draw(outputs[0].mark, 2, purpose=4):
            return outputs[0]
        forms: dict[str, Callable[[list[Value]], Any]] = {"tuple": tuple, "iterator": iter}
        return forms.get(spec.style, list)(outputs)

    def _counted(self, outputs: Iterable[Value]) -> Iterator[Value]:
        self.opened += 1
        try:
            yield from outputs
        finally:
            self.closed += 1

    @asynccontextmanager
    async def open_for_a_while(self) -> AsyncIterator[None]:
        """Count an async generator, whose closing takes time where it is cut short."""
        self.opened += 1
        try:
            yield
        except BaseException:
            await asyncio.sleep(CLOSING_S)
            raise
        finally:
            self.closed += 1

    # -- the step of a `stateful`

    def step(self, state: int, value: Value) -> tuple[int, Any]:
        if state != self.machine.seen:
            raise Wrong(f"{canonical(self.spec.key)} has state {state} after {self.machine.seen} values")
        outputs = self.take_up(value)
        if "generator" in self.spec.style:
            return state + 1, self._counted(outputs)
        return state + 1, self.formed(outputs)

    async def step_async(self, state: int, value: Value) -> tuple[int, Any]:
        given = self.step(state, value)
        await self.nap(value.mark)
        self.in_hand(value)
        return given

    # -- sources

    def values(self) -> Iterator[Value]:
        """What a source gives."""
        machine, count = self.machine, self.spec.count
        for i in itertools.count() if count is None else range(count):
            yield machine.own(i)

    def generate(self) -> Iterator[Value]:
        return self._counted(self._checked_values())

    def _checked_values(self) -> Iterator[Value]:
        for value in self.values():
            self.nothing_in_hand()
            yield value

    def generate_with(self, context: hp.Context) -> Iterator[Value]:
        if context.key != self.spec.key:
            raise Wrong(f"{canonical(self.spec.key)} got the context of {canonical(context.key)}")
        return self.generate()

    async def make_async(self) -> list[Value]:
        await self.nap(self.spec.salt)
        return list(self.values())

    async def generate_async(self) -> AsyncIterator[Value]:
        async with self.open_for_a_while():
            for value in self.values():
                self.nothing_in_hand()
                await self.nap(value.mark)
                yield value

    def scripted(self) -> Iterator[Any]:
        for value in self.values():
            for wait in ((), (0,), (0.0005,), (0.003, 0))[self.spec.draw(value.mark, 4)]:
                yield Pause(wait)
            yield value

    # -- as a node

    def node(self) -> hp.Node:
        spec = self.spec
        reads = [read.as_given for read in spec.reads]
        capacity = spec.capacity
        match spec.kind:
            case "source":
                return hp.source(self._producer())
            case "merge":
                return hp.merge(*reads, capacity=capacity)
            case "collect":
                return hp.collect(*reads, capacity=capacity)
            case "stateful":
                step = self.step_async if "async" in spec.style else self.step
                return hp.stateful(step, 0, *reads, capacity=capacity)
            case "flat_map":
                return hp.flat_map(self._giver(), *reads, concurrency=spec.concurrency, capacity=capacity)
            case "map" | "filter" | "route" | "sink":
                make = getattr(hp, spec.kind)
                made: hp.Node = make(self._caller(), *reads, concurrency=spec.concurrency, capacity=capacity)
                return made
        return hp.process(functools.partial(ProcessOf, self), *reads, capacity=capacity)

    def _producer(self) -> Any:
        return {
            "list": list(self.values()) if self.spec.style == "list" else None,
            "function": functools.partial(list, self.values()),
            "generator": self.generate,
            "generator of context": self.generate_with,
            "async function": self.make_async,
            "async generator": self.generate_async,
            "script": script(self.scripted()) if self.spec.style == "script" else None,
        }[self.spec.style]

    def _caller(self) -> Callable[[Value], Any]:
        functions: dict[str, Callable[[Value], Any]] = {
            "plain": self.call,
            "object": Called(self.call),
            "partial": functools.partial(self.call),
            "plain with a task": self.call_with_task,
            "async": self.call_async,
            "async object": CalledAsync(self.call_async),
            "async with a task": self.call_async_with_task,
        }
        return functions[self.spec.style]

    def _giver(self) -> Callable[[Value], Any]:
        functions: dict[str, Callable[[Value], Any]] = {
            "generator": self.give_generator,
            "async list": self.give_async,
            "async generator": self.give_async_generator,
        }
        return functions.get(self.spec.style, self.give)


async def _yield_to_others(times: int) -> None:
    for _ in range(times):
        await asyncio.sleep(0)


@attrs.frozen
class Called:
    """A callable object."""

    fn: Callable[[Value], Any]

    def __call__(self, value: Value) -> Any:
        return self.fn(value)


@attrs.frozen
class CalledAsync:
    """A callable object to be awaited."""

    fn: Callable[[Value], Awaitable[Any]]

    async def __call__(self, value: Value) -> Any:
        return await self.fn(value)


class ProcessOf:
    """The process of one node; has the methods, each in the style, that its spec wants."""

    def __init__(self, doing: Doing) -> None:
        spec = doing.spec
        self.doing = doing
        self.process = {
            "plain": self._process,
            "generator": self._process_generator,
            "async": self._process_async,
            "async generator": self._process_async_generator,
        }[spec.style]
        for name, style in spec.methods:
            setattr(self, name, self._method(name, style))

    def _method(self, name: str, style: str) -> Callable[..., Any]:
        match name:
            case "begin":
                return self._begin_async if style == "async" else self._begin
            case "close":
                return self._close_async if style == "async" else self._close
            case "end":
                return self._in_style(style, self._last, self._no_wake_missed)
        return self._in_style(style, self._woken, self.doing.nothing_in_hand)

    # -- with a value

    def _take_up(self, value: Value) -> list[Value]:
        doing, context, spec = self.doing, self.context, self.doing.spec
        if doing.calls != ["begin"]:
            raise Wrong(f"{canonical(spec.key)} is given {value} after {doing.calls}")
        held, self.held_item = self.held_item, doing.in_hand(value)
        outputs = doing.take_up(value, context.source)
        match spec.kind:
            case "zip":
                self._zip(outputs, held)
            case "take":
                self._count()
            case "timer":
                due = asyncio.get_running_loop().time() + (0, 0.0005, 0.004)[spec.draw(value.mark, 3)]
                doing.due.append(due)
                context.wake_at(due)
        return outputs

    def _zip(self, outputs: list[Value], held: hp.Item | None) -> None:
        first, second = (read.as_given for read in self.doing.spec.reads)
        if outputs and outputs[0].steps[-1][2] > 0:
            assert held is not None
            self.context.derive_from(held)
        self.context.reads = [second if self.context.source == first else first]

    def _count(self) -> None:
        doing = self.doing
        if len(doing.log) == doing.spec.count:
            self.context.finish()
        elif len(doing.log) > (doing.spec.count or 0):
            raise Wrong(f"{canonical(doing.spec.key)} has finished and is given another value")

    def _process(self, value: Value) -> Any:
        return self.doing.formed(self._take_up(value))

    def _process_generator(self, value: Value) -> Iterator[Value | None]:
        return self.doing._counted(self._each(value))  # type: ignore[arg-type]

    def _each(self, value: Value) -> Iterator[Value | None]:
        for output in self._take_up(value):
            yield output
            self.doing.in_hand(value)
        yield None

    async def _process_async(self, value: Value) -> Any:
        doing = self.doing
        await doing.nap(value.mark, 7)
        doing.in_hand(value)
        outputs = self._take_up(value)
        await doing.nap(value.mark)
        doing.in_hand(value)
        return doing.formed(outputs)

    async def _process_async_generator(self, value: Value) -> AsyncIterator[Value]:
        doing = self.doing
        async with doing.open_for_a_while():
            for output in self._take_up(value):
                yield output
                await doing.nap(output.mark)
                doing.in_hand(value)

    # -- with none

    held_item: hp.Item | None = None

    def _begin(self, context: hp.Context) -> None:
        doing = self.doing
        self.context = context
        doing.nothing_in_hand()
        doing.calls.append("begin")
        if context.key != doing.spec.key or doing.log or context.source is not None:
            raise Wrong(f"{canonical(doing.spec.key)} begins as {canonical(context.key)} after {len(doing.log)} values")
        if doing.spec.kind == "zip":
            context.reads = [doing.spec.reads[0].as_given]

    async def _begin_async(self, context: hp.Context) -> None:
        await self.doing.nap(1)
        self._begin(context)

    def _no_wake_missed(self) -> None:
        doing, now = self.doing, asyncio.get_running_loop().time()
        doing.missed = [due for due in doing.due if due <= now]

    def _last(self) -> list[Value]:
        doing = self.doing
        doing.nothing_in_hand()
        doing.calls.append("end")
        doing.log.append(Event("end"))
        return doing.machine.end()

    def _woken(self, now: float) -> list[Value]:
        doing = self.doing
        doing.nothing_in_hand()
        if not doing.due or now < min(doing.due):
            raise Wrong(f"{canonical(doing.spec.key)} is woken at {now}, and wanted {doing.due}")
        doing.due = [due for due in doing.due if due > now]
        doing.log.append(Event("wake"))
        return doing.machine.wake()

    def _close(self) -> None:
        self.doing.nothing_in_hand()
        self.doing.calls.append("close")

    async def _close_async(self) -> None:
        await self.doing.nap(2)
        self._close()

    def _in_style(self, style: str, make: Callable[..., list[Value]], begin: Callable[[], None]) -> Callable[..., Any]:
        """A method that calls `begin` and gives what `make` does, in one of the ways to write it."""
        doing = self.doing

        def plain(*args: Any) -> Any:
            begin()
            return make(*args)

        def generator(*args: Any) -> Iterator[Value]:
            begin()  # when it is called: its first output may be asked for later
            return (value for value in make(*args))

        async def awaited(*args: Any) -> Any:
            begin()
            await doing.nap(3)
            return make(*args)

        async def async_generator(*args: Any) -> AsyncIterator[Value]:
            begin()
            for output in make(*args):
                await doing.nap(output.mark)
                yield output

        return {"plain": plain, "generator": generator, "async": awaited, "async generator": async_generator}[style]


class Watch:
    """Counts what is put into links, and sees whether one ever holds more than twice its capacity."""

    def __init__(self) -> None:
        self.pushed: Counter[tuple[Key, Key]] = Counter()  # {(what is read, reader): items}
        self.overfull: str | None = None

    def look(self, link: Link) -> None:
        if link.queued > 2 * link.capacity and self.overfull is None:
            self.overfull = f"{_link_text(link)} holds {link.queued} items, its capacity is {link.capacity}"


def _link_text(link: Link) -> str:
    return f"the link {canonical(link.source)} -> {canonical(link.reader.key)}"  # type: ignore[attr-defined]


@contextmanager
def watched_links() -> Iterator[Watch]:
    """Watch all links while the block runs, and the places in generated loops that stand for them."""
    watch = Watch()
    push, put_back, node, call = Link.push, Link.put_back, Text._node, Text._call

    def watched_push(link: Link, chunk: Any) -> None:
        push(link, chunk)
        watch.pushed[link.source, link.reader.key] += len(chunk)  # type: ignore[attr-defined]
        watch.look(link)

    def watched_put_back(link: Link, chunk: Any) -> None:
        put_back(link, chunk)
        watch.look(link)

    def count(text: Text, link: Link | None, value: str, at: Any) -> None:
        if link is not None:
            way = link.source, link.reader.key  # type: ignore[attr-defined]
            text.functions.append(lambda _: watch.pushed.update([way]))
            text._line(at, f"f{len(text.functions) - 1}({value})")

    def watched_node(text: Text, runner: Any, link: Link | None, value: str, *rest: Any) -> None:
        if runner.node.kind == "merge":
            count(text, link, value, rest[-1])
        node(text, runner, link, value, *rest)

    def watched_call(text: Text, stage: Any, at: Any) -> str:
        result = call(text, stage, at)
        count(text, stage.link, stage.value, at)  # what has failed is put into the link
        return result

    Link.push, Link.put_back = watched_push, watched_put_back  # type: ignore[method-assign,assignment]
    Text._node, Text._call = watched_node, watched_call  # type: ignore[method-assign,assignment]
    after, _runner.LOOP_AFTER_ITEMS = _runner.LOOP_AFTER_ITEMS, 1  # the graphs are small
    try:
        yield watch
    finally:
        Link.push, Link.put_back = push, put_back  # type: ignore[method-assign]
        Text._node, Text._call = node, call  # type: ignore[method-assign]
        _runner.LOOP_AFTER_ITEMS = after


@attrs.define
class Played:
    """What came of a run."""

    doings: dict[Key, Doing]
    statistics: hp.Statistics
    collected: dict[Key, list[Any]]
    tapped: dict[Key, list[hp.Item]]
    watch: Watch


class Run:
    """One run of a graph."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.doings = {spec.key: Doing(spec, self) for spec in graph.specs}

    def topology(self) -> hp.Topology:
        nodes = {key: doing.node() for key, doing in self.doings.items()}
        topology = hp.Topology()
        if self.graph.wiring == "update" and hasattr(topology, "update"):
            return topology.update(nodes)
        if self.graph.wiring == "factory" and hasattr(topology, "update"):
            topology = hp.Topology(nodes.get)
            nodes = {key: node for key, node in nodes.items() if node.is_sink}
        for key, node in nodes.items():
            topology = topology.add(key, node)
        return topology

    async def main(self) -> tuple[hp.Statistics, dict[Key, list[Any]], dict[Key, list[hp.Item]]]:
        before = asyncio.all_tasks()
        async with asyncio.timeout(PATIENCE_S):
            plumbing, tapped = await self._run()
        if asyncio.all_tasks() != before:
            raise Wrong(f"tasks are left: {asyncio.all_tasks() - before}")
        return plumbing.statistics(), plumbing.collected(), tapped

    async def _run(self) -> tuple[hp.Plumbing, dict[Key, list[hp.Item]]]:
        graph = self.graph
        if graph.ending == "stop":
            plumbing = await hp.start(self.topology())
            taps = await self._use(plumbing)
            await plumbing.stop()
        else:
            async with hp.Plumbing(self.topology()) as plumbing:
                taps = await self._use(plumbing)
        self._check_closed()
        for doing in self.doings.values():
            for task in doing.tasks:
                await task
        return plumbing, {key: [item async for item in tap] for key, tap in taps.items()}

    async def _use(self, plumbing: hp.Plumbing) -> dict[Key, Any]:
        """Do what is done while the graph runs."""
        graph = self.graph
        taps = {key: plumbing.tap(key) for key in graph.taps}
        meddling = asyncio.get_running_loop().create_task(self._meddle(plumbing))
        try:
            if graph.is_drained:
                await _yield_to_others(graph.rounds)
            else:
                await plumbing.join()
            if graph.ending == "drain":
                await plumbing.drain(timeout_s=PATIENCE_S)
        finally:
            meddling.cancel()
            await asyncio.wait([meddling])
        if not meddling.cancelled():
            meddling.result()
        return taps

    def _check_closed(self) -> None:
        """When the block is left, what user code opened is closed already, by no later task and no collector."""
        for key, doing in self.doings.items():
            if doing.opened != doing.closed:
                raise Wrong(f"{canonical(key)} has {doing.opened - doing.closed} generators open after the block")

    async def _meddle(self, plumbing: hp.Plumbing) -> None:
        """Pause and resume; nothing that is sent or received depends on it."""
        for wait, key, pause in self.graph.pauses:
            await asyncio.sleep(wait)
            plumbing.pause(key)
            await asyncio.sleep(pause)
            plumbing.resume(key)


def play(graph: Graph) -> Played:
    """Run a graph on the seeded loop."""
    run = Run(graph)
    with watched_links() as watch:
        statistics, collected, tapped = hp.testing.run(run.main, seed=graph.seed)
    return Played(run.doings, statistics, collected, tapped, watch)


# --- the model


class Token(NamedTuple):
    """A value on a link, and the hops its trail must have there."""

    value: Value
    hops: Hops

    def __str__(self) -> str:
        return f"{self.value} by {' '.join(canonical(key) for key, _ in self.hops)}"


Chain = list[Token]  # tokens whose order is known
Stream = list[Chain]  # what a node sends: chains, mingled in some order


def check(graph: Graph, played: Played) -> None:
    """Hold what came of a run against the model.

    Raises:
        Wrong: something was lost, doubled, out of order, has a wrong trail, was not counted right or left open.
    """
    if played.watch.overfull is not None:
        raise Wrong(played.watch.overfull)
    sent: dict[Key, Stream] = {}
    for spec in graph.specs:
        arriving = {read: _on_link(sent[read.key], read, graph) for read in spec.reads}
        node = played.statistics.nodes[spec.key]
        is_finished = node.state == "finished"
        try:
            _check_state(spec, graph, played)
            _check_arrivals(spec, list(itertools.chain(*arriving.values())), played, is_finished)
            sent[spec.key] = _sent_by(spec, arriving, played)
            _check_counts(spec, arriving, sent[spec.key], played, graph)
            _check_tap(spec, sent[spec.key], played)
            _check_doing(played.doings[spec.key], is_finished)
        except Wrong as exc:
            raise Wrong(f"{canonical(spec.key)} ({spec.kind}): {exc}") from None
    _check_agreement(graph, played)


def _on_link(stream: Stream, read: Read, graph: Graph) -> Stream:
    """What of a stream goes over the link to one reader."""
    if read.name is None:
        return stream
    machine = Machine(next(spec for spec in graph.specs if spec.key == read.key))
    return [[token for token in chain if machine.name(token.value) == read.name] for chain in stream]


def _sent_by(spec: Spec, arriving: dict[Read, Stream], played: Played) -> Stream:
    """What a node has sent, from what it was given."""
    doing = played.doings[spec.key]
    hop = (spec.key, 0)
    machine = Machine(spec)
    if spec.kind == "source":
        count = played.statistics.nodes[spec.key].sent
        values = itertools.islice(Doing(spec, doing.run).values(), count)
        return [[Token(value, (hop,)) for value in values]]
    if spec.is_ordered:
        return [[token for event in doing.log for token in _replayed(machine, event, hop)]]
    return [
        [Token(value, (*token.hops, hop)) for token in chain for value in machine.give(token.value)]
        for stream in arriving.values()
        for chain in stream
    ]


def _replayed(machine: Machine, event: Event, hop: tuple[Key, int]) -> Iterator[Token]:
    if event.value is None:
        yield from (Token(value, (hop,)) for value in (machine.wake() if event.call == "wake" else machine.end()))
        return
    assert event.trail is not None
    hops = (*event.trail.hops, hop)
    yield from (Token(value, hops) for value in machine.give(event.value, event.source))


def _check_state(spec: Spec, graph: Graph, played: Played) -> None:
    """A node finishes where it has taken all it wants, or where nobody wants anything of it any more."""
    state = played.statistics.nodes[spec.key].state
    readers = [played.statistics.nodes[reader.key].state for reader in graph.readers(spec.key)]
    taken = sum(_values(played.doings[spec.key]))
    if state not in ("ended", "finished"):
        raise Wrong(f"is {state!r} at the end")
    if spec.kind == "take" and taken == spec.count and state != "finished":
        raise Wrong(f"has taken all {taken} values that it wants, and is {state!r}")
    if state == "finished" and set(readers) != {"finished"} and (spec.kind != "take" or taken != spec.count):
        raise Wrong(f"is finished, and its readers are {readers}")


def _check_arrivals(spec: Spec, chains: Stream, played: Played, is_finished: bool) -> None:
    """Each link's values, all of them unless the node has finished, in order, with their trails."""
    if spec.kind == "collect":
        values = played.collected[spec.key]
        check_mingled(values, _values_of(chains), is_finished)
        return
    if not spec.is_logged:
        return
    events = [event for event in played.doings[spec.key].log if event.value is not None]
    taken = [_token_of(event) for event in events]
    if not spec.is_ordered:
        _check_taken(taken, chains, is_finished)
        return
    check_mingled([token.value for token in taken], _values_of(chains), is_finished)
    check_mingled(taken, chains, is_finished)
    if spec.kind == "zip":
        _check_turns(spec, events)


def _values_of(chains: Stream) -> list[list[Value]]:
    return [[token.value for token in chain] for chain in chains]


def _token_of(event: Event) -> Token:
    assert event.value is not None
    assert event.trail is not None
    hops = event.trail.hops
    if event.hops is not None and event.hops != hops:
        raise Wrong(f"the trail of {event.value} was {event.hops} and is {hops}")
    if event.trail.origins != event.value.origins:
        raise Wrong(f"the origins of {event.value} are given as {event.trail.origins}")
    return Token(event.value, hops)


def check_mingled(taken: Sequence[Any], chains: Sequence[Sequence[Any]], is_finished: bool) -> None:
    """`taken` is all the chains, or the beginnings of them, mingled."""
    if len(chains) == 1 and list(taken) == chains[0][: len(taken)]:
        places: set[tuple[int, ...]] = {(len(taken),)}  # how far each chain may have come
    else:
        places = {(0,) * len(chains)}
        for i, found in enumerate(taken):
            onward = {_moved(place, c) for place in places for c in _next_with(found, place, chains)}
            if not onward:
                wanted = [str(chain[at]) for chain, at in zip(chains, min(places), strict=True) if at < len(chain)]
                raise Wrong(f"value {i} is {found}, and should be one of {wanted}")
            places = onward
    if not is_finished and tuple(map(len, chains)) not in places:
        missing = [str(chain[at]) for chain, at in zip(chains, max(places), strict=True) if at < len(chain)]
        raise Wrong(f"ended after {len(taken)} of {sum(map(len, chains))} values, before {missing}")


def _next_with(found: Any, place: tuple[int, ...], chains: Sequence[Sequence[Any]]) -> Iterator[int]:
    return (c for c, chain in enumerate(chains) if place[c] < len(chain) and chain[place[c]] == found)


def _moved(place: tuple[int, ...], c: int) -> tuple[int, ...]:
    return (*place[:c], place[c] + 1, *place[c + 1 :])


def _check_taken(taken: Chain, chains: Stream, is_finished: bool) -> None:
    """As `check_mingled`, where the order in which values were taken is not known."""
    count = Counter(taken)
    doubled = [str(token) for token, times in count.items() if times > 1]
    if doubled:
        raise Wrong(f"doubled: {doubled}")
    for chain in chains:
        found = sum(token in count for token in chain)
        if not all(token in count for token in chain[: found if is_finished else None]):
            raise Wrong(f"lost: {[str(token) for token in chain if token not in count]}")
    unknown = count.keys() - set(itertools.chain(*chains))
    if unknown:
        raise Wrong(f"unknown: {sorted(map(str, unknown))}")


def _check_turns(spec: Spec, events: list[Event]) -> None:
    """A zip was given values from its two keys by turns, until one ended."""
    first, second = (read.as_given for read in spec.reads)
    sources = [event.source for event in events]
    counts = Counter(sources)
    pairs = min(counts[first], counts[second])
    longer = first if counts[first] > pairs else second
    if sources != [first, second] * pairs + [longer] * (len(sources) - 2 * pairs):
        raise Wrong(f"should read by turns, and was given values from {[canonical(source) for source in sources]}")


def _check_counts(spec: Spec, arriving: dict[Read, Stream], sent: Stream, played: Played, graph: Graph) -> None:
    """received + dropped + failed = sent, for each link."""
    node = played.statistics.nodes[spec.key]
    is_finished = node.state == "finished"
    pushed = {read: played.watch.pushed[read.as_given, spec.key] for read in arriving}
    if node.received + node.dropped + node.failed != sum(pushed.values()):
        raise Wrong(f"{sum(pushed.values())} items were put into its links, and it counts {node}")
    for read, stream in arriving.items():
        if not is_finished and pushed[read] != sum(map(len, stream)):
            raise Wrong(f"{pushed[read]} came from {canonical(read.as_given)}, and {sum(map(len, stream))} were sent")
    taken = len(played.collected[spec.key]) if spec.kind == "collect" else sum(_values(played.doings[spec.key]))
    if spec.is_logged | (spec.kind == "collect") and node.received != taken:
        raise Wrong(f"was given {taken} values, and counts {node}")
    if (node.dropped and not is_finished) or node.failed or node.queued_items or node.epoch:
        raise Wrong(f"counts {node}")
    count = 0 if spec.is_sink else sum(map(len, sent))
    if node.sent > count or (node.sent < count and not is_finished):
        raise Wrong(f"should have sent {count} items, and counts {node}")
    if spec.kind == "source" and not is_finished and not graph.is_drained and node.sent != spec.count:
        raise Wrong(f"has sent {node.sent} of {spec.count} items")


def _values(doing: Doing) -> Iterator[bool]:
    return (event.call == "value" for event in doing.log)


def _check_tap(spec: Spec, sent: Stream, played: Played) -> None:
    """A tap that began late has the last of what was sent, in order."""
    if spec.key not in played.tapped:
        return
    items = played.tapped[spec.key]
    is_finished = played.statistics.nodes[spec.key].state == "finished"
    for item in items:
        own = item.trail.origins[0].number if item.trail.origins else -1
        if is_finished and item.value.source == spec.key and own <= item.value.number:
            continue  # of what nobody wanted any more, the rest was never sent, and has no number
        if item.trail.origins != item.value.origins:
            raise Wrong(f"the tap has {item.value} with origins {item.trail.origins}")
    tokens = [Token(item.value, item.trail.hops) for item in items][::-1]
    if not is_finished:
        check_mingled(tokens, [chain[::-1] for chain in sent], is_finished=True)


def _check_doing(doing: Doing, is_finished: bool) -> None:
    """What user code opened is closed; a process is begun first, ended and closed last, each once."""
    if doing.opened != doing.closed:
        raise Wrong(f"{doing.opened - doing.closed} generators are still open")
    if doing.spec.is_process:
        names = dict(doing.spec.methods)
        wanted = [name for name in ("begin", "end", "close") if name in names]
        if doing.calls != wanted:
            raise Wrong(f"was called for {doing.calls}, and should for {wanted}")
        if doing.missed and not is_finished:  # of one that finished, nobody may have wanted what `wake` gives
            raise Wrong(f"should have been woken at {doing.missed}, before its end")


def _check_agreement(graph: Graph, played: Played) -> None:
    """All who read the same are given it in the same order."""
    seen: dict[Read, Chain] = {}
    for spec in graph.specs:
        if not spec.is_ordered:
            continue
        taken = [_token_of(event) for event in played.doings[spec.key].log if event.value is not None]
        for read in spec.reads:
            if Read(read.key) in spec.reads and read.name is not None:
                continue
            found = [token for token in taken if token.hops[-1][0] == read.key and _is_on(token, read, graph)]
            other = seen.setdefault(read, found)
            if any(a != b for a, b in zip(found, other, strict=False)):
                raise Wrong(f"{canonical(spec.key)} was given {canonical(read.as_given)} in another order than others")


def _is_on(token: Token, read: Read, graph: Graph) -> bool:
    return bool(_on_link([[token]], read, graph)[0])


def play_and_check(seed: int) -> None:
    """Play the graph of a seed; what is raised says which, and shows it."""
    graph = random_graph(seed)
    try:
        check(graph, play(graph))
    except BaseException as exc:
        exc.add_note(f"{graph}\nto repeat: python -m tests.graphs {seed}")
        raise


if __name__ == "__main__":
    for text in sys.argv[1:]:
        print(random_graph(int(text)))
        play_and_check(int(text))
