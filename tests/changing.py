"""Random graphs under random changes, on the real engine: what is promised of changes, held against what came of a run.

    run = play(seed)         a random graph, up to four random changes, and one interleaving of it all
    wrong_in(run)            {property: what is wrong with it}; empty where all is well

    mixed      a family has met two versions of what one change touched
    reign      a trail lies in no topology that reigned
    lost       what a node gave did not come to a node that read it
    doubled    it came there twice, or what nobody gave
    order      it came in another order than it was given in
    bounded    a link held more than twice its capacity
    quiet      a change has woken a node that is neither in its region nor below
    stuck      a change, or the run, does not end though nothing is paused or held
    settled    what has met an old version is under way after its change has settled; or the change never settles
    clean      a task or a generator is left, or a process is not closed once, at its end
    crash      something else was raised

The user functions write down what they are given and give (`Entry`); nothing of that is asked of the engine but a
node's epoch and the trail in hand.  A change that a rule forbids (an edit that makes a cycle, a stale topology) is left
out.  All chance comes from the seed, so that a run repeats.

`python -m tests.changing SEED ...` shows these runs and what is wrong with them; `python -m tests.changing --runs N`
plays N fresh seeds, or with `--from SEED` the N from there on.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import itertools
import logging
import random
import secrets
import sys
import time
import warnings
import zlib
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, NamedTuple

import attrs

import hotplumb as hp
from hotplumb import _runner, testing
from hotplumb._changes import Change
from hotplumb._engine import Engine
from hotplumb._links import Link
from hotplumb._runner import Runner
from hotplumb._supervision import Hold
from hotplumb.keys import AllErrors, Key, Output, canonical, key_order
from hotplumb.nodes import Node
from hotplumb.topology import Topology, node_key

Hops = tuple[hp.Hop, ...]

LONG_S = 600.0  # virtual; what is not over then never is
CALM_S = 5.0  # virtual: after which all is idle where the sources wait
PERSON_S = 0.003  # virtual: how often somebody looks after what is held
MOST_STEPS = 300_000  # of all runners of a run
BURST = 300  # more outputs than a chunk holds
MOST_VALUES = 500  # that the nodes of a graph may be expected to send: small graphs are many graphs
NAMES = ("a", "b")  # of a route's outputs
ERROR_SINK = "errors"  # never edited; those of single nodes are "e1", "e2" ...
IDLE = ("idle s", "idle m", "idle o")  # a part that has nothing to do, never edited


class Broken(Exception):
    """What user code raises here."""


class BrokenOff(Exception):
    """The block is left at once."""


class NotOver(Exception):
    """Something did not come to its end: a property, and what."""


# --- what flows, and what is written down of it


class Value:
    """What flows; what a function makes of it is another."""

    __slots__ = ("number", "order", "source", "uid")

    def __init__(self, uid: int, source: Key, number: int, order: tuple[int, ...]) -> None:
        self.uid = uid
        self.source = source
        self.number = number
        self.order = order  # along one path, what was given later compares greater

    def __repr__(self) -> str:
        return f"<{self.source}#{'.'.join(map(str, self.order))} {self.uid}>"


class Token(NamedTuple):
    """A value on a link: the hops it has made, and which it is."""

    hops: Hops
    uid: int

    def __str__(self) -> str:
        return f"{self.uid} by {_way_text(self.hops)}"


@attrs.define(eq=False)
class Entry:
    """One call of user code, and what it gave; where it was called again for the same item, the last one."""

    key: Key
    call: str  # "value", "source", "wake", "end", "merge"
    epoch: int
    token: Token | None = None
    value: Value | None = None
    origin: hp.Origin | None = None
    outputs: list[Value] = attrs.field(factory=list)
    name: str | None = None  # of a route
    is_done: bool = False
    code: Code | None = None

    @property
    def hop(self) -> hp.Hop:
        return hp.Hop(self.key, self.epoch)

    @property
    def met(self) -> Hops:
        """The hops of the item, and this one, if it has come to that."""
        before = self.token.hops if self.token is not None else ()
        return (*before, self.hop) if self.epoch >= 0 else before

    def given(self) -> Iterator[Token]:
        """What it gave, as its readers get it."""
        return (Token(self.met, output.uid) for output in self.outputs)


# --- user code


SOURCE_STYLES = ("list", "generator", "async generator", "paced", "paced", "endless")
GATED_STYLES = ("gated", "gated list")
CALL_STYLES = ("plain", "plain", "async", "concurrent")
STYLES: dict[str, tuple[str, ...]] = {
    "map": CALL_STYLES,
    "filter": CALL_STYLES,
    "route": CALL_STYLES,
    "sink": CALL_STYLES,
    "flat_map": ("plain", "generator", "async", "async generator", "concurrent"),
    "stateful": ("plain", "generator", "async"),
    "merge": ("",),
    "process": ("plain", "generator", "async", "async generator"),
}
MIDDLE_KINDS = {"map": 6, "filter": 3, "flat_map": 3, "stateful": 2, "merge": 2, "route": 3, "process": 8}
METHODS = {"begin": 0.9, "snapshot": 0.8, "restore": 0.8, "end": 0.5, "wake": 0.3, "close": 0.9}  # how often
PACES: dict[str, tuple[float, ...]] = {
    "fast": (0,),
    "slow": (0, 0.0003, 0.001, 0.002, 0.007),
    "very slow": (0.005, 0.02),
}


@attrs.define(eq=False)
class Code:
    """The user code of one version of one node."""

    run: Run
    key: Key
    kind: str
    style: str
    version: int
    salt: int
    pace: str = "fast"
    is_flaky: bool = False
    is_bursty: bool = False
    count: int = 0  # values of a source
    methods: tuple[tuple[str, str], ...] = ()  # {method of a process: its style}
    is_exclusive: bool = False
    is_picky: bool = False  # reads only one of its links, for a while
    takes: int = 0  # values after which a process finishes; 0: it does not
    breaks: str = ""  # what raises at first: "begin", "snapshot", "restore"
    fn: Any = None

    def __attrs_post_init__(self) -> None:
        self.fn = self._function()

    def __str__(self) -> str:
        options = [self.pace] if "async" in self.style or self.style == "concurrent" or self.methods else []
        options += [word for word in ("flaky", "bursty", "exclusive", "picky") if getattr(self, f"is_{word}")]
        options += [f"takes {self.takes}"] if self.takes else []
        options += [f"count {self.count}"] if self.kind == "source" else []
        options += [f"{name} raises" for name in [self.breaks] if name]
        options += [f"{style} {name}" for name, style in self.methods]
        return f"{self.kind} {self.style} v{self.version} ({', '.join(options)})"

    def draw(self, what: object, n: int, purpose: str) -> int:
        """A number in range(n) that depends on this code and `what` alone."""
        return zlib.crc32(f"{self.salt} {purpose} {what}".encode()) % n

    async def nap(self, what: object, purpose: str = "nap") -> None:
        """Wait for a while, or not at all."""
        paces = PACES[self.pace]
        seconds = paces[self.draw(what, len(paces), purpose)]
        if seconds or self.draw(what, 2, "yields"):
            await asyncio.sleep(seconds)

    def _function(self) -> Any:
        match self.kind, self.style:
            case ("merge", _):
                return None
            case ("source", "list" | "gated list"):
                return Listed(self)
            case ("source", "generator"):
                return self.generate
            case ("source", _):
                return self.generate_async
            case ("process", _):
                return functools.partial(ExclusiveProcess if self.is_exclusive else Process, self)
            case ("stateful", "async"):
                return self.step_async
            case ("stateful", _):
                return self.step
            case ("flat_map", "plain"):
                return self.give
            case ("flat_map", "generator"):
                return self.give_generator
            case ("flat_map", "async generator"):
                return self.give_async_generator
            case ("flat_map", _):
                return self.give_async
            case (_, "plain"):
                return self.call
        return self.call_async

    # -- taking up

    def take_up(self, value: Value) -> Entry:
        """User code was called with a value: write that down."""
        return self.run.take_up(self, value)

    def attempt(self, entry: Entry) -> None:
        """Fail, if it is to."""
        if not self.is_flaky:
            return
        assert entry.token is not None
        uid = entry.token.uid
        self.run.attempts[self, uid] += 1
        if self.run.attempts[self, uid] <= (0, 0, 0, 1, 2, 99)[self.draw(uid, 6, "fails")]:
            raise Broken(self.key, uid)

    def width(self, value: Value) -> int:
        if self.is_bursty and self.draw(value.uid, 8, "burst") == 0:
            return BURST
        return (0, 1, 1, 1, 2, 3)[self.draw(value.uid, 6, "width")]

    def made(self, value: Value, i: int) -> Value:
        return self.run.value(value.source, value.number, (*value.order, i))

    # -- one answer

    def call(self, value: Value) -> Any:
        entry = self.take_up(value)
        self.attempt(entry)
        return self.answer(entry, value)

    async def call_async(self, value: Value) -> Any:
        entry = self.take_up(value)
        await self.nap(value.uid)
        self.attempt(entry)
        return self.answer(entry, value)

    def answer(self, entry: Entry, value: Value) -> Any:
        entry.is_done = True
        match self.kind:
            case "map":
                entry.outputs = [self.made(value, 0)]
                return entry.outputs[0]
            case "filter":
                entry.outputs = [value] if self.draw(value.uid, 3, "pass") else []
                return bool(entry.outputs)
            case "route":
                entry.outputs, entry.name = [value], (*NAMES, "nobody")[self.draw(value.uid, 3, "name")]
                return entry.name
        return None

    # -- several outputs

    def outputs(self, entry: Entry, value: Value) -> list[Value]:
        self.attempt(entry)
        entry.outputs = [self.made(value, i) for i in range(self.width(value))]
        entry.is_done = True
        return list(entry.outputs)

    def give(self, value: Value) -> list[Value]:
        return self.outputs(self.take_up(value), value)

    async def give_async(self, value: Value) -> list[Value]:
        entry = self.take_up(value)
        await self.nap(value.uid)
        return self.outputs(entry, value)

    def give_generator(self, value: Value) -> Iterator[Value]:
        entry, width = self.take_up(value), self.width(value)
        fails_at = self.draw(value.uid, width + 1, "place")
        with self.run.open_generator():
            for i in range(width):
                if i == fails_at:
                    self.attempt(entry)
                entry.outputs.append(self.made(value, i))
                yield entry.outputs[-1]
            if fails_at == width:
                self.attempt(entry)
            entry.is_done = True

    async def give_async_generator(self, value: Value) -> AsyncIterator[Value]:
        entry, width = self.take_up(value), self.width(value)
        fails_at = self.draw(value.uid, width + 1, "place")
        with self.run.open_generator():
            for i in range(width):
                if i < 4:
                    await self.nap((value.uid, i))
                if i == fails_at:
                    self.attempt(entry)
                entry.outputs.append(self.made(value, i))
                yield entry.outputs[-1]
            if fails_at == width:
                self.attempt(entry)
            entry.is_done = True

    def step(self, state: int, value: Value) -> tuple[int, Any]:
        entry = self.take_up(value)
        self.attempt(entry)
        if self.style == "generator":
            return state + 1, self._each(entry, value)
        entry.outputs, entry.is_done = [self.made(value, i) for i in range(self.width(value))], True
        return state + 1, entry.outputs

    def _each(self, entry: Entry, value: Value) -> Iterator[Value]:
        with self.run.open_generator():
            for i in range(self.width(value)):
                entry.outputs.append(self.made(value, i))
                yield entry.outputs[-1]
            entry.is_done = True

    async def step_async(self, state: int, value: Value) -> tuple[int, Any]:
        entry = self.take_up(value)
        await self.nap(value.uid)
        return state + 1, self.outputs(entry, value)

    # -- what begins here

    def own(self, call: str) -> Value:
        """A value that begins here; it is on its way when this returns."""
        return self.run.own(self, call)

    def generate(self) -> Iterator[Value]:
        with self.run.open_generator():
            for _ in range(self.count):
                yield self.own("source")

    async def generate_async(self) -> AsyncIterator[Value]:
        i = 0
        with self.run.open_generator():
            while i < self.count or self.style == "endless":
                if self.style in ("paced", "endless"):
                    await asyncio.sleep((0.0005, 0.003, 0.003)[self.draw(i, 3, "pace")])
                elif self.draw(i, 3, "waits") == 0:
                    await asyncio.sleep(0)
                yield self.own("source")
                i += 1
            if self.style == "gated":
                await self.run.gate.wait()


class Listed:
    """An iterable, to be iterated anew each time."""

    def __init__(self, code: Code) -> None:
        self.code = code

    def __iter__(self) -> Iterator[Value]:
        return self.code.generate()


class Process:
    """A process that counts; has the methods, each in the style, that its code wants."""

    def __init__(self, code: Code) -> None:
        self.code = code
        self.run = code.run
        self.count = 0
        self.taken = 0
        self.begun = 0
        self.closed = 0
        self.is_handed_over = False
        self.is_ended = False
        self.is_forced = False  # one of its calls was given up
        self.run.processes.append(self)
        for name, style in code.methods:
            setattr(self, name, self._method(name, style))
        match code.style:
            case "plain":
                self.process: Any = self._process
            case "generator":
                self.process = self._process_generator
            case "async":
                self.process = self._process_async
            case "async generator":
                self.process = self._process_async_generator

    def _method(self, name: str, style: str) -> Callable[..., Any]:
        act: Callable[..., Any] = getattr(self, f"_{name}")

        def plain(*args: Any) -> Any:
            return act(*args)

        async def awaited(*args: Any) -> Any:
            try:
                await self.code.nap(name)
            except asyncio.CancelledError:
                self.is_forced = self.is_forced or self.code.key in self.run.forced
                raise
            return act(*args)

        return plain if style == "plain" else awaited

    # -- its life

    context: Any = None

    def _begin(self, context: Any) -> None:
        self.context = context
        self.begun += 1
        if self.code.breaks == "begin":
            raise Broken(self.code.key, "begin")
        if self.begun > 1 or self.closed:
            self.run.note("clean", f"{self.code.key}: began after {self.begun - 1} beginnings, {self.closed} closings")

    def _snapshot(self) -> int:
        self.check_life("snapshot")
        self.fail_once("snapshot")
        self.is_handed_over = True
        return self.count

    def _restore(self, state: int) -> None:
        self.check_life("restore")
        self.fail_once("restore")
        self.count = state

    def fail_once(self, call: str) -> None:
        if self.code.breaks == call and not self.run.attempts[self.code, -1]:
            self.run.attempts[self.code, -1] += 1
            raise Broken(self.code.key, call)

    def _close(self) -> None:
        self.closed += 1
        if self.closed > 1:
            self.run.note("clean", f"{self.code.key}: closed {self.closed} times")

    def check_life(self, call: str) -> None:
        has_begun = self.begun or not self.has("begin")
        if self.closed or self.is_handed_over or self.is_ended or not has_begun:
            self.run.note("clean", f"{self.code.key}: {call} of a process that had ended, or had not begun")

    # -- values

    def _taken(self, value: Value) -> None:
        self.check_life("process")
        code = self.code
        if self.has("wake") and code.draw(value.uid, 3, "wakes") == 0:
            self.wake_in((0, 0.001, 0.01)[code.draw(value.uid, 3, "due")])
            if code.is_picky:
                reads = self.run.reads_of(code.key)
                self.context.reads = [reads[code.draw(value.uid, len(reads), "picks")]]
        self.taken += 1
        if self.taken == code.takes:
            self.context.finish()

    def has(self, method: str) -> bool:
        return any(name == method for name, _ in self.code.methods)

    def wake_in(self, seconds: float) -> None:
        self.context.wake_at(asyncio.get_running_loop().time() + seconds)

    def _process(self, value: Value) -> Any:
        self._taken(value)
        outputs = self.code.give(value)
        self.count += 1
        return outputs

    def _process_generator(self, value: Value) -> Iterator[Value]:
        self._taken(value)
        yield from self.code.give_generator(value)
        self.count += 1

    async def _process_async(self, value: Value) -> Any:
        self._taken(value)
        outputs = await self.code.give_async(value)
        self.count += 1
        return outputs

    async def _process_async_generator(self, value: Value) -> AsyncIterator[Value]:
        self._taken(value)
        given = self.code.give_async_generator(value)
        try:
            async for output in given:
                yield output
        finally:
            await given.aclose()  # type: ignore[attr-defined]
        self.count += 1

    def _end(self) -> Any:
        self.check_life("end")
        self.is_ended = True
        return [self.code.own("end") for _ in range(self.code.draw(self.count, 3, "end"))]

    def _wake(self, now: float) -> Any:
        self.check_life("wake")
        if self.code.is_picky:
            self.context.reads = self.run.reads_of(self.code.key)
        return [self.code.own("wake") for _ in range(self.code.draw(now, 3, "wake"))]


@hp.exclusive
class ExclusiveProcess(Process):
    """One that cannot be open twice."""

    def _begin(self, context: Any) -> None:
        super()._begin(context)
        others = [
            process
            for process in self.run.processes
            if process is not self and process.code.key == self.code.key and process.begun and not process.closed
        ]
        if any(isinstance(other, ExclusiveProcess) and not other.is_forced for other in others):
            self.run.note("clean", f"{self.code.key}: open twice")


def code_of(node: Node) -> Code | None:
    """The code of a node; none of a merge."""
    fn = node.fn
    if isinstance(fn, functools.partial):
        fn = fn.args[0]
    elif isinstance(fn, Listed):
        fn = fn.code
    else:
        fn = getattr(fn, "__self__", None)
    return fn if isinstance(fn, Code) else None


# --- graphs and edits


POLICIES = [
    hp.discard(),
    hp.hold(),
    hp.hold(),
    hp.retry(1, delay_s=0.002, then=hp.hold()),
    hp.retry(3, delay_s=0.001, then=hp.discard()),
]


class Maker:
    """Makes random graphs, and random edits of them."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.rng = rng = random.Random(f"{run.seed} graph")
        self.capacities = rng.choice([(1,), (1, 1, 2, 3), (1, 2, 3), (1, 3, 100), (100,)])
        self.paces = rng.choice([("fast",), ("fast", "slow"), ("fast", "slow"), ("fast", "slow", "very slow")])
        self.flaky = rng.choice([0, 0, 0.15, 0.3])
        self.has_bursts = rng.random() < 0.1
        self.has_takers = rng.random() < 0.15 and not run.is_calm  # a node that reads anew wakes what it reads
        self.has_pickers = rng.random() < 0.2
        self.has_breaks = rng.random() < 0.5
        self.kinds = MIDDLE_KINDS | rng.choice([{}, {}, {}, {"process": 30}, {"stateful": 20}])
        self.versions: Counter[Key] = Counter()
        self.made = 0
        self.taken: set[Key] = set()  # keys given in this edit
        self.gone: list[tuple[str, Key]] = []  # what was removed: whether a source, a sink or neither, and its key

    # -- nodes

    def code(self, key: Key, kind: str, **options: Any) -> Code:
        rng = self.rng
        version = self.versions[key]
        self.versions[key] += 1
        if kind == "source":
            style = rng.choice(GATED_STYLES if self.run.is_calm else SOURCE_STYLES)
            options["count"] = rng.choice([0, 1, 3, 6, 10, 14])
        else:
            style = rng.choice(STYLES[kind])
        if kind == "process":
            methods = options["methods"] = self.methods(options)
            options["is_exclusive"] = {"begin", "close"} <= dict(methods).keys() and rng.random() < 0.2
            options["takes"] = rng.choice([0, 1, 4]) if self.has_takers and "begin" in dict(methods) else 0
            options["is_picky"] = self.has_pickers and "wake" in dict(methods)
        return Code(
            self.run,
            key,
            kind,
            style,
            version,
            rng.randrange(2**32),
            pace=rng.choice(self.paces),
            is_flaky=kind not in ("source", "merge") and rng.random() < self.flaky,
            is_bursty=self.has_bursts and kind in ("flat_map", "process", "stateful") and rng.random() < 0.3,
            **options,
        )

    def methods(self, options: dict[str, Any]) -> tuple[tuple[str, str], ...]:
        """The methods of a process, each with its style; perhaps one of them is to fail."""
        rng = self.rng
        styles = rng.choice([("plain",), ("plain", "async")])
        names = {name for name, share in METHODS.items() if rng.random() < share}
        if "wake" in names:
            names.add("begin")
        if self.has_breaks:
            options.setdefault("breaks", rng.choice(["snapshot", "restore", ""]))
            names |= {"snapshot", "restore"}
        if options.get("breaks") == "begin":
            names.add("begin")
        return tuple((name, rng.choice(styles)) for name in METHODS if name in names)

    def node(self, code: Code, reads: Iterable[Key], like: Node | None = None) -> Node:
        """A node that runs `code`, with random options, or those of another."""
        rng, fn, reads = self.rng, code.fn, tuple(reads)
        capacity = rng.choice(self.capacities) if like is None else like.capacity
        policy = rng.choice(POLICIES) if code.is_flaky else None
        concurrency = rng.choice([2, 3]) if code.style == "concurrent" else 1
        match code.kind:
            case "source":
                return hp.source(fn)
            case "merge":
                return hp.merge(*reads, capacity=capacity)
            case "stateful":
                return hp.stateful(fn, 0, *reads, capacity=capacity, on_error=policy, state=self.state())
            case "process":
                return hp.process(fn, *reads, capacity=capacity, on_error=policy, state=self.state())
        make: Callable[..., Node] = getattr(hp, code.kind)
        return make(fn, *reads, capacity=capacity, on_error=policy, concurrency=concurrency)

    def state(self) -> Any:
        return self.rng.choice(["carry", "carry", "fresh", "flush", _one_more])

    def key(self, role: str) -> Key:
        """A key for a new node: "s"ource, "n"either or "o"ut; perhaps one that has been removed."""
        reigns = self.run.reigning()
        back = [key for old, key in self.gone if old == role and key not in reigns and key not in self.taken]
        if back and self.rng.random() < 0.5:
            key = self.rng.choice(back)
        else:
            self.made += 1
            key = f"{role}{self.made}"
        self.taken.add(key)
        return key

    def middle_kind(self) -> str:
        return self.rng.choices(list(self.kinds), list(self.kinds.values()))[0]

    def reads_of(self, found: Iterable[tuple[Key, Node]]) -> list[Key]:
        """The whole of some nodes, or outputs of routes."""
        reads: list[Key] = []
        for key, node in found:
            if node.kind != "route" or self.rng.random() < 0.2:
                reads.append(key)
            else:
                reads += [hp.output(key, name) for name in self.rng.sample(NAMES, self.rng.choice([1, 1, 2]))]
        return reads

    def some_reads(self, nodes: Mapping[Any, Node], kind: str, free: Iterable[Key]) -> list[Key]:
        """Some of what is free to be read; a merge reads no merge, for what it gives is known by its readers alone."""
        found = [(key, nodes[key]) for key in free if kind != "merge" or nodes[key].kind != "merge"]
        count = min(len(found), self.rng.choice([1, 1, 1, 2, 2, 3]))
        return self.reads_of(self.rng.sample(found, count))

    # -- the first graph

    def graph(self) -> dict[Key, Node]:
        rng = self.rng
        nodes: dict[Key, Node] = {}
        for _ in range(rng.choice([1, 1, 1, 2, 2, 3])):
            key = self.key("s")
            nodes[key] = self.node(self.code(key, "source"), ())
        for _ in range(rng.choice([1, 2, 2, 3, 3, 4, 5])):
            kind = self.middle_kind()
            reads = self.some_reads(nodes, kind, sorted(nodes, key=key_order))
            if reads:
                key = self.key("n")
                nodes[key] = self.node(self.code(key, kind), reads)
        read = {node_key(read) for node in nodes.values() for read in node.reads}
        unread = sorted(nodes.keys() - read, key=key_order)
        while unread:
            count = rng.choice([1, 1, len(unread)])
            some, unread = unread[:count], unread[count:]
            key = self.key("o")
            nodes[key] = self.node(self.code(key, "sink"), self.reads_of((one, nodes[one]) for one in some))
        return nodes

    def topology(self) -> Topology:
        nodes = self.graph()
        while _volume(nodes) > MOST_VALUES:
            nodes = self.graph()
        sinks: dict[Key, Node] = {ERROR_SINK: hp.sink(self.run.failures.append, hp.ERRORS)}
        if self.run.has_idle:
            source, middle, sink = IDLE
            sinks[sink] = hp.sink(self.run.wake_idle, middle)
            nodes |= {source: hp.source(self.run.wait_idle), middle: hp.map(self.run.wake_idle, source)}
        if self.rng.random() < 0.5:
            return Topology().update(nodes | sinks)
        given: dict[Key, Node] = {key: node for key, node in nodes.items() if node.is_sink}
        return Topology(Factory(nodes)).update(given | sinks)

    # -- edits

    def edited(self, reigns: Topology) -> Topology:
        """A topology that differs by one or several random edits."""
        found = reigns
        self.taken.clear()
        for _ in range(self.rng.choice([1, 1, 1, 2, 2, 3])):
            edit: Callable[[Topology], Topology] = self.rng.choice(
                [
                    self.swap,
                    self.swap,
                    self.swap,
                    self.rewire,
                    self.rewire,
                    self.rewire,
                    self.insert,
                    self.bypass,
                    self.remove_sink,
                    self.add_sink,
                    self.add_sink,
                    self.options,
                    self.refactor,
                    self.add_error_sink,
                ]
            )
            try:
                edited = edit(found)
            except hp.TopologyError:
                continue  # a cycle, for one
            if _volume(edited.active) <= MOST_VALUES:
                found = edited
        self.note_gone(reigns, found)
        return found

    def note_gone(self, old: Topology, new: Topology) -> None:
        for key in sorted(_texts(old.active)):
            if key not in new.active:
                self.gone.append((key[0], key))

    def editable(self, topology: Topology, roles: str = "sno") -> list[Key]:
        fixed = (ERROR_SINK, *IDLE)
        return [key for key in sorted(_texts(topology.active)) if key not in fixed and key[0] in roles]

    def free(self, topology: Topology, key: Key | None = None) -> list[Key]:
        """What a node may read."""
        below = frozenset([key]) | topology.downstream(key) if key in topology.active else frozenset()
        return [other for other in self.editable(topology, "sn") if other not in below]

    def pick(self, topology: Topology, roles: str = "sno") -> Key:
        found = self.editable(topology, roles)
        if not found:
            raise hp.UnknownKey(None, "is left")
        return self.rng.choice(found)

    def another(self, key: Key, node: Node) -> Node:
        """Another version of a node, perhaps of another kind."""
        kind: str = node.kind
        if not (node.is_source or node.is_sink) and self.rng.random() < 0.3:
            others = ("merge", "process") if kind == "route" else ("merge",)  # a process has named outputs too
            kind = self.rng.choice([one for one in MIDDLE_KINDS if one not in others])
        if kind == "merge":
            return attrs.evolve(node, capacity=self.rng.choice([1, 2, 5, 99]))
        return self.node(self.code(key, kind), node.reads, node)

    def swap(self, topology: Topology) -> Topology:
        stateful = ("process", "stateful")
        with_state = [key for key in self.editable(topology, "n") if topology.active[key].kind in stateful]
        key = self.rng.choice(with_state) if with_state and self.rng.random() < 0.4 else self.pick(topology)
        return topology.replace(key, self.another(key, topology.active[key]))

    def rewire(self, topology: Topology) -> Topology:
        key = self.pick(topology, "no")
        node = topology.active[key]
        reads = list(node.reads)
        match self.rng.choice(["fewer", "more", "more", "others", "others"]):
            case "fewer":
                self.rng.shuffle(reads)
                reads = reads[1:] or reads
            case "more":
                more = self.some_reads(topology.active, node.kind, self.free(topology, key))
                reads += [read for read in more if node_key(read) not in map(node_key, reads)]
            case _:
                reads = self.some_reads(topology.active, node.kind, self.free(topology, key)) or reads
        if self.rng.random() < 0.3:
            node = self.another(key, node)
        return topology.replace(key, attrs.evolve(node, reads=tuple(reads)))

    def insert(self, topology: Topology) -> Topology:
        reader = self.pick(topology, "no")
        reads = list(topology.reads(reader))
        cut = self.rng.choice(reads)
        kind = self.middle_kind()
        if kind in ("route", "merge"):
            kind = "map"
        key = self.key("n")
        node = self.node(self.code(key, kind), [cut])
        reads[reads.index(cut)] = key
        return topology.update({key: node, reader: attrs.evolve(topology.active[reader], reads=tuple(reads))})

    def bypass(self, topology: Topology) -> Topology:
        key = self.pick(topology, "n")
        nodes: dict[Key, Node] = {}
        for reader in topology.readers(key):
            node = topology.active[reader]
            reads = [read for read in node.reads if node_key(read) != key]
            for read in topology.reads(key):
                is_read = any(node_key(other) == node_key(read) for other in reads)
                if not is_read and (node.kind != "merge" or topology.active[node_key(read)].kind != "merge"):
                    reads.append(read)
            nodes[reader] = attrs.evolve(node, reads=tuple(reads))
        return topology.update(dict(sorted(nodes.items())))

    def remove_sink(self, topology: Topology) -> Topology:
        return topology.remove(self.pick(topology, "ooe"))

    def add_sink(self, topology: Topology) -> Topology:
        """A sink that reads what there is, or new nodes."""
        rng = self.rng
        nodes: dict[Key, Node] = {}
        free = self.free(topology)
        if rng.random() < 0.3 or not free:
            source = self.key("s")
            nodes[source] = self.node(self.code(source, "source"), ())
            free = rng.choice([[source], [*free, source]])
        if rng.random() < 0.5:
            kind, key = self.middle_kind(), self.key("n")
            nodes[key] = self.node(self.code(key, kind), self.some_reads({**topology.active, **nodes}, kind, free))
            free = rng.choice([[key], [*free, key]])
        sink = self.key("o")
        reads = self.some_reads({**topology.active, **nodes}, "sink", free)
        nodes[sink] = self.node(self.code(sink, "sink"), reads)
        return topology.update(nodes)

    def add_error_sink(self, topology: Topology) -> Topology:
        read = hp.errors(self.pick(topology))
        return topology.add(self.key("e"), hp.sink(self.run.see_failure, read, capacity=self.rng.choice([1, 100])))

    def options(self, topology: Topology) -> Topology:
        key = self.pick(topology, "no")
        node = topology.active[key]
        if node.concurrency > 1 or (node.is_async and node.kind not in ("process", "stateful", "merge")):
            node = attrs.evolve(node, concurrency=self.rng.choice([1, 2, 3]))
        return topology.replace(key, attrs.evolve(node, capacity=self.rng.choice([*self.capacities, 1, 4])))

    def refactor(self, topology: Topology) -> Topology:
        if not isinstance(topology.factory, Factory):
            return self.swap(topology)
        nodes = dict(topology.factory.nodes)
        generated = [key for key in self.editable(topology, "sn") if key not in topology.given]
        for key in self.rng.sample(generated, min(len(generated), self.rng.choice([1, 2]))):
            nodes[key] = self.another(key, topology.active[key])
        return topology.refactor(Factory(nodes))


class Factory:
    """Gives the nodes that are not given."""

    def __init__(self, nodes: dict[Key, Node]) -> None:
        self.nodes = nodes

    def __call__(self, key: Key) -> Node | None:
        return self.nodes.get(key)


def _one_more(state: int) -> int:
    return state + 1


def _texts(keys: Iterable[Any]) -> list[str]:
    return [key for key in keys if isinstance(key, str)]


def _volume(nodes: Mapping[Any, Node]) -> float:
    """About how many values all nodes send."""
    found: dict[Key, float] = {}

    def sent(key: Key) -> float:
        if key not in found:
            node = nodes[key]
            code = code_of(node)
            arriving = sum(sent(node_key(read)) for read in node.reads)
            if node.is_source:
                arriving = 0 if code is None else 30 if code.style == "endless" else code.count
            elif node.kind in ("flat_map", "process", "stateful"):
                arriving *= 40 if code is not None and code.is_bursty else 1.4
                arriving += 2 * (code is not None and "end" in dict(code.methods))
            found[key] = arriving
        return found[key]

    return sum(sent(key) for key in _texts(nodes))


# --- a run


class Run:
    """One graph under its changes, and what came of it."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.rng = rng = random.Random(f"{seed} run")
        self.is_calm = rng.random() < 0.1
        self.has_idle = not self.is_calm and rng.random() < 0.3
        self.loop_after = rng.choice([0, 1, 32])
        self.ending = rng.choice(["join", "join", "join", "drain", "leave", "stop", "break off"])
        self.is_rushed = not self.is_calm and rng.random() < 0.15  # a change is under way at the end
        self.maker = Maker(self)
        self.story: list[str] = []
        self.wrong: list[tuple[str, str]] = []  # (property, what), seen while it ran
        # what user code notes
        self.logs: defaultdict[Key, dict[Any, Entry]] = defaultdict(dict)
        self.attempts: Counter[tuple[Code, int]] = Counter()
        self.successes: Counter[tuple[Key, Token]] = Counter()
        self.failures: list[hp.Failure] = []
        self.processes: list[Process] = []
        self.forced: set[Key] = set()
        self.generators = 0  # that are open
        self.made = 0
        self.owned: Counter[Key] = Counter()
        # what the engine shows
        self.reigns: list[tuple[int, Topology]] = []
        self.changes: list[Change] = []
        self.settled: list[Change] = []
        self.steps: Counter[Key] = Counter()
        self.shrunk: dict[int, tuple[Link, int]] = {}  # {id of a link that was made smaller: it, what it held before}
        self.peaks: dict[int, tuple[Link, int]] = {}  # {id of a link that was made smaller: it, what it may hold}
        self.statistics: Any = None
        self.is_cut_short = False
        self.all_steps = 0
        self.watchers: list[asyncio.Task[None]] = []
        self.background: list[asyncio.Task[Any]] = []
        self.plumbing: hp.Plumbing | None = None
        self.now: Callable[[], float] = lambda: 0.0

    def note(self, name: str, what: str) -> None:
        """Something is wrong."""
        self.wrong.append((name, what))

    def tell(self, text: str) -> None:
        self.story.append(f"{self.now():8.4f}  {text}")

    # -- called by user code

    def value(self, source: Key, number: int, order: tuple[int, ...]) -> Value:
        self.made += 1
        return Value(self.made, source, number, order)

    def epoch_of(self, key: Key) -> int:
        """The epoch that a node has now."""
        assert self.plumbing is not None
        runner = self.plumbing._engine.runners.get(key)
        return -1 if runner is None else runner.epoch

    def take_up(self, code: Code, value: Value) -> Entry:
        item = hp.current_item()
        if item.value is not value:
            self.note("lost", f"{code.key} was called with {value} and has {item.value} in hand")
        token = Token(item.trail.hops, value.uid)
        log = self.logs[code.key]
        before = log.pop(token, None)
        if before is not None and before.is_done:
            self.successes[code.key, token] += 1
        log[token] = entry = Entry(code.key, "value", self.epoch_of(code.key), token, value, item.origin, code=code)
        for change in self.settled:
            if any(hop.epoch < change.epoch and hop.key in change.touched for hop in token.hops):
                self.note("settled", f"{code.key} takes {token} after epoch {change.epoch} has settled")
        return entry

    def own(self, code: Code, call: str) -> Value:
        number = self.owned[code.key]
        self.owned[code.key] += 1
        value = self.value(code.key, number, (number,))
        entry = Entry(code.key, call, self.epoch_of(code.key), outputs=[value], is_done=True)
        self.logs[code.key][entry] = entry
        return value

    def reads_of(self, key: Key) -> tuple[Key, ...]:
        """What a node reads now."""
        assert self.plumbing is not None
        reads: tuple[Key, ...] = self.plumbing._engine.runners[key].node.reads
        return reads

    @contextmanager
    def open_generator(self) -> Iterator[None]:
        self.generators += 1
        try:
            yield
        finally:
            self.generators -= 1

    async def wait_idle(self) -> AsyncIterator[None]:
        """A source that has nothing to give."""
        await self.gate.wait()
        for _ in ():
            yield

    def wake_idle(self, value: object) -> object:
        return value

    def see_failure(self, failure: hp.Failure) -> None:
        """The sink of an error stream of one node."""

    # -- the run

    async def main(self) -> None:
        self.now = asyncio.get_running_loop().time
        self.gate = asyncio.Event()
        before = asyncio.all_tasks()
        asyncio.get_running_loop().set_exception_handler(lambda _, context: self.note("clean", f"told {context}"))
        try:
            await self._play()
        except NotOver as exc:
            self.note(*exc.args)
        except BrokenOff:
            self.is_cut_short = True
        except hp.NodeError as exc:  # without a process nothing goes on, and while draining nothing may be held
            if exc.key not in self.forced or not isinstance(exc.__cause__, asyncio.CancelledError):
                raise
            self.is_cut_short = True
            self.tell(f"{exc}")
        left = asyncio.all_tasks() - before
        if left:
            self.note("clean", f"tasks are left: {left}")

    async def _play(self) -> None:
        topology = self.maker.topology()
        self.tell(f"starts; loops after {self.loop_after} items; {_all_text(topology)}")
        try:
            if self.ending == "stop":
                self.plumbing = await hp.start(topology)
                try:
                    await self._use()
                finally:
                    await self.over("stop", self.plumbing.stop())
            else:
                self.plumbing = hp.Plumbing(topology)
                async with self.plumbing:
                    await self._use()
        finally:
            await self._end_tasks([*self.watchers, *self.background])
        self.statistics = self.plumbing.statistics()

    async def _use(self) -> None:
        assert self.plumbing is not None
        self.reigns.append((0, self.plumbing.topology))
        helpers = [asyncio.create_task(self.look_after()), asyncio.create_task(self.meddle())]
        try:
            await self.change()
            if self.is_rushed:
                await self.change_in_background()
            elif self.ending != "break off":
                await self.all_over()
            self.gate.set()
            await self.end()
        finally:
            await self._end_tasks(helpers)

    async def _end_tasks(self, tasks: list[asyncio.Task[Any]]) -> None:
        """Cancel tasks; raises what has gone wrong in one."""
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        for task in tasks:
            if not task.cancelled() and (error := task.exception()) is not None:
                raise error

    async def all_over(self) -> None:
        """Return when all changes have come through, and have settled."""
        await self.over("the changes", self.all_changed())
        await self.see_quiet()
        for change in self.changes:
            await self.over(f"epoch {change.epoch} settles", change.wait_settled(), "settled")

    async def change_in_background(self) -> None:
        """Have a change under way."""
        self.background.append(asyncio.create_task(self.change_at_once()))
        await asyncio.sleep(self.rng.choice([0, 0, 0.0005, 0.003]))

    async def end(self) -> None:
        assert self.plumbing is not None
        self.tell(self.ending)
        if self.ending == "break off":
            raise BrokenOff
        has_end = not any(_is_endless(node) for node in self.plumbing.topology.active.values())
        if self.ending == "join" and has_end and not self.is_rushed:
            await self.over("join", self.plumbing.join())
            return
        await asyncio.sleep(self.rng.choice([0, 0.002, 0.02]))
        if self.ending == "drain":
            await self.over("drain", self.plumbing.drain())

    async def over(self, what: str, work: Coroutine[Any, Any, Any], name: str = "stuck") -> Any:
        """What something gives, in time."""
        try:
            async with asyncio.timeout(LONG_S):
                return await work
        except TimeoutError:
            self.is_cut_short = True
            raise NotOver(name, f"{what}: not over after {LONG_S} s; {self._standings()}") from None

    def _standings(self) -> str:
        assert self.plumbing is not None
        changing = self.plumbing._engine.changing
        waiting = "no change is under way" if changing is None else f"a change waits for {changing.waiting_for()}"
        nodes = self.plumbing.statistics().nodes
        return f"{waiting}; " + ", ".join(f"{key}: {nodes[key].state} {nodes[key].queued_items}" for key in nodes)

    def reigning(self) -> Mapping[Any, Node]:
        return {} if self.plumbing is None else self.plumbing.topology.active

    # -- what goes on meanwhile

    async def look_after(self) -> None:
        """Decide, now and then, about what is held."""
        assert self.plumbing is not None
        rng = random.Random(f"{self.seed} person")
        while True:
            await asyncio.sleep(PERSON_S)
            for key, runner in list(self.plumbing._engine.runners.items()):
                if runner.standing == "holding" and rng.random() < 0.4:
                    self.decide(rng, key)

    def decide(self, rng: random.Random, key: Key) -> None:
        assert self.plumbing is not None
        decision = rng.choice(["retry", "retry", "discard", "force"])
        self.tell(f"{decision} {key}")
        if decision == "force" and self.plumbing._engine.changing is not None:
            self.forced.add(key)
            self.plumbing._engine.changing.change.force(key)
        elif decision == "retry":
            self.plumbing.retry(key)
        else:
            self.plumbing.discard(key)

    async def meddle(self) -> None:
        """Pause a node, and have it go on."""
        assert self.plumbing is not None
        rng = random.Random(f"{self.seed} meddling")
        for _ in range(0 if self.is_calm else rng.choice([0, 0, 1, 2, 3])):
            await asyncio.sleep(rng.choice([0, 0.001, 0.005]))
            keys = self.maker.editable(self.plumbing.topology)
            keys = [key for key in keys if key in self.plumbing._engine.runners]
            if not keys:
                continue
            key = rng.choice(keys)
            self.tell(f"pause {key}")
            self.plumbing.pause(key)
            await asyncio.sleep(rng.choice([0.001, 0.005, 0.02]))
            if key in self.plumbing._engine.runners:
                self.tell(f"resume {key}")
                self.plumbing.resume(key)

    # -- changes

    async def change(self) -> None:
        """Up to four changes in quick succession."""
        rng = self.rng
        await asyncio.sleep(CALM_S if self.is_calm else 0.001 if self.has_idle else rng.choice([0, 0, 0.002, 0.01]))
        self.steps.clear()
        for _ in range(rng.randint(1, 4)):
            await asyncio.sleep(CALM_S if self.is_calm else rng.choice([0, 0, 0, 0.001, 0.004, 0.02]))
            if self.is_calm:
                await self.change_calmly()
                continue
            ways = [self.change_at_once] * 4 + [self.change_together, self.cancel, self.hurry, self.hurry, self.reject]
            await rng.choice([*ways, self.go_back])()

    def edited(self) -> Topology:
        assert self.plumbing is not None
        return self.maker.edited(self.plumbing.topology)

    async def apply(self, topology: Topology, timeout_s: float | None = None) -> Change | None:
        """Apply; gives the change where it came through."""
        assert self.plumbing is not None
        self.tell(f"apply within {timeout_s} s: {_difference_text(self.plumbing.topology, topology)}")
        return await self.tried(self.plumbing.apply(topology, timeout_s))

    async def tried(self, work: Coroutine[Any, Any, Change]) -> Change | None:
        try:
            change: Change = await self.over("a change", work)
        except hp.ChangeTimeout as late:
            held_up = {key: late.waiting_for[key] for key in sorted(late.waiting_for, key=key_order)}
            self.tell(f"too late, {'withdrawn' if late.withdrawn else 'under way'}; waits for {held_up}")
            self.maybe_force(late)
        except hp.ChangeRejected as exc:
            self.tell(f"rejected: {exc}")
            if not isinstance(exc.__cause__, Broken):
                raise
        except (hp.StaleTopology, hp.TopologyError, hp.HandoverError) as exc:
            self.tell(f"{type(exc).__name__}: {exc}")
        except hp.UsageError as exc:
            if "changes no wiring" not in str(exc) and not (self.is_rushed and "has stopped" in str(exc)):
                raise
            self.tell(f"refused: {exc}")
        else:
            self.tell(f"epoch {change.epoch} has come through; region {_keys_text(change.region)}")
            return change
        return None

    def maybe_force(self, late: hp.ChangeTimeout) -> None:
        if late.withdrawn or self.rng.random() < 0.5:
            return
        for key in sorted(late.waiting_for, key=key_order):
            self.tell(f"force {key}")
            self.forced.add(key)
            late.change.force(key)

    async def change_at_once(self) -> None:
        await self.apply(self.edited())

    async def change_calmly(self) -> None:
        """Change a graph that has nothing to do, and see who is woken."""
        assert self.plumbing is not None
        old, new = self.plumbing.topology, self.edited()
        self.steps.clear()
        change = await self.apply(new)
        if change is None:
            return
        allowed = {*change.region, *change.added}
        for key in list(allowed):
            for topology in (old, new):
                if key in topology.active:
                    allowed |= topology.downstream(key)
        woken = [key for key in _texts(self.steps) if key not in allowed and key[0] != "e"]  # they end with all else
        if woken:
            region = _keys_text(change.region)
            self.note("quiet", f"epoch {change.epoch} has woken {_keys_text(woken)}; its region is {region}")

    async def see_quiet(self) -> None:
        """The part that has nothing to do has not been woken."""
        woken = [key for key in IDLE if self.steps[key]]
        if woken:
            self.note("quiet", f"woken by changes elsewhere: {woken}")

    async def change_together(self) -> None:
        """Several edits of what reigns when the turn of each has come."""
        assert self.plumbing is not None
        plumbing, rng, maker = self.plumbing, self.rng, self.maker
        found: list[Coroutine[Any, Any, Change]] = []
        reigns = plumbing.topology
        for _ in range(rng.choice([2, 3])):
            keys = maker.editable(reigns)
            what = rng.choice(["replace", "replace", "add", "remove"])
            if what == "replace" and keys:
                key = rng.choice(keys)
                found.append(plumbing.replace(key, maker.another(key, reigns.active[key])))
            elif what == "remove" and (sinks := maker.editable(reigns, "o")):
                key = rng.choice(sinks)
                maker.gone.append(("o", key))
                found.append(plumbing.remove(key))
            elif free := maker.free(reigns):
                what, key = "add", maker.key("o")
                node = maker.node(maker.code(key, "sink"), maker.some_reads(reigns.active, "sink", free))
                found.append(plumbing.add(key, node))
            else:
                continue
            self.tell(f"together: {what} {key}")
        await asyncio.gather(*map(self.tried, found))

    async def cancel(self) -> None:
        """Apply, and cancel that: what has not begun is withdrawn, what has completes."""
        task = asyncio.create_task(self.apply(self.edited()))
        await asyncio.sleep(self.rng.choice([0, 0, 0.0005, 0.003]))
        self.tell("cancel that")
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            task.result()

    async def hurry(self) -> None:
        await self.apply(self.edited(), self.rng.choice([0, 0.0005, 0.002, 0.005, 0.02]))

    async def reject(self) -> None:
        """Apply what cannot begin, and see that nothing has changed."""
        assert self.plumbing is not None
        topology, maker = self.edited(), self.maker
        free = maker.free(topology)
        if not free:
            return
        code = maker.code("broken", "process", breaks="begin")
        sink = maker.code("unbegun", "sink")
        topology = topology.update(
            {
                "broken": maker.node(code, maker.some_reads(topology.active, "process", free)),
                "unbegun": maker.node(sink, ["broken"]),
            }
        )
        if await self.apply(topology) is not None:
            raise AssertionError("what cannot begin has been begun")

    async def go_back(self) -> None:
        """Change, and go back after a while."""
        change = await self.apply(self.edited())
        if change is not None:
            await asyncio.sleep(self.rng.choice([0, 0.002, 0.01]))
            await self.apply(change.inverse)

    async def all_changed(self) -> None:
        """Return when no change is under way any more."""
        assert self.plumbing is not None
        while True:
            try:
                await self.plumbing.apply(self.plumbing.topology)
                return
            except hp.StaleTopology:
                continue

    # -- called by the engine, as it is watched

    def has_reigned(self, topology: Topology, change: Change) -> None:
        self.reigns.append((change.epoch, topology))
        self.changes.append(change)
        self.watchers.append(asyncio.get_running_loop().create_task(self.watch_settling(change)))

    async def watch_settling(self, change: Change) -> None:
        try:
            await change.wait_settled()
        except hp.UsageError:
            return  # the plumbing has stopped
        self.tell(f"epoch {change.epoch} has settled")
        self.settled.append(change)

    def look_at(self, link: Link) -> None:
        """See whether a link holds too much; one that was made smaller may hold what it held."""
        _, most = self.peaks.get(id(link), (link, 0))
        _, before = self.shrunk.get(id(link), (link, 0))  # its writer may have made outputs for that
        if link.queued <= max(2 * link.capacity, before):
            self.peaks.pop(id(link), None)
        elif link.queued > most and not isinstance(link.source, AllErrors):
            key = getattr(link.reader, "key", None)
            self.note("bounded", f"{link.source} -> {key} holds {link.queued} items; its capacity is {link.capacity}")

    def look_at_returned(self, link: Link) -> None:
        """See whether a link holds too much.

        What several calls at once had in hand may be there beside it; so may what one has, where a writer has sent what
        it had when it was given up.
        """
        in_hand = link.reader.node.concurrency if isinstance(link.reader, Runner) else 1
        if in_hand > 1 or self.forced:
            self.note_peak(link, link.capacity, 2 * link.capacity + in_hand)
        self.look_at(link)

    def count_step(self) -> None:
        """Stop a run in which virtual time stands still."""
        self.all_steps += 1
        if self.all_steps > MOST_STEPS:
            raise NotOver("stuck", f"{MOST_STEPS} steps at {self.now()} s")

    def note_peak(self, link: Link, capacity: int, most: int = 0) -> None:
        """From now on a link may hold more for a while."""
        if link.queued > 2 * capacity:
            self.peaks[id(link)] = (link, max(most or link.queued, self.peaks.get(id(link), (link, 0))[1]))


@contextmanager
def watched(run: Run) -> Iterator[None]:
    """Have `run` see what the engine does while the block runs."""
    push, put_back, resize = Link.push, Link.put_back, Link.resize
    step, reign, start_task = Runner.step, Engine.reign, Engine.start_task
    loops = {name: getattr(_runner, name) for name in ("LOOP_AFTER_ITEMS", "LOOP_PAYS_ITEMS", "LOOP_INNER_ITEMS")}

    def watched_push(link: Link, chunk: Any) -> None:
        push(link, chunk)
        run.look_at(link)

    def watched_put_back(link: Link, chunk: Any) -> None:
        put_back(link, chunk)
        run.look_at_returned(link)

    def watched_resize(link: Link, capacity: int, when_full: Any) -> None:
        run.note_peak(link, capacity)
        if capacity < link.capacity:
            run.shrunk[id(link)] = (link, link.capacity)
        resize(link, capacity, when_full)

    def watched_step(runner: Runner, now: float) -> float:
        run.steps[runner.key] += 1
        run.count_step()
        return step(runner, now)

    def watched_start(engine: Engine, *args: Any, **options: Any) -> asyncio.Task[Any]:
        run.count_step()
        return start_task(engine, *args, **options)

    def watched_reign(engine: Engine, new: Topology, change: Change, repaired: Any) -> Topology:
        topology = reign(engine, new, change, repaired)
        run.has_reigned(topology, change)
        return topology

    Link.push, Link.put_back, Link.resize = (  # type: ignore[method-assign]
        watched_push,  # type: ignore[assignment]
        watched_put_back,  # type: ignore[assignment]
        watched_resize,  # type: ignore[assignment]
    )
    Runner.step, Engine.reign, Engine.start_task = (  # type: ignore[method-assign]
        watched_step,  # type: ignore[assignment]
        watched_reign,  # type: ignore[assignment]
        watched_start,  # type: ignore[assignment]
    )
    for name, times in zip(loops, (1, 16, 256), strict=True):
        setattr(_runner, name, times * run.loop_after)
    try:
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            yield
        for warning in warned:
            run.note("clean", f"{warning.category.__name__}: {warning.message}")
    finally:
        Link.push, Link.put_back, Link.resize = push, put_back, resize  # type: ignore[method-assign]
        Runner.step, Engine.reign, Engine.start_task = step, reign, start_task  # type: ignore[method-assign]
        for name, items in loops.items():
            setattr(_runner, name, items)


def play(seed: int) -> Run:
    """Play the run of a seed."""
    run = Run(seed)
    with watched(run):
        try:
            testing.run(run.main, seed=seed)
        except testing.Stuck as exc:
            run.note("stuck", str(exc))
            run.is_cut_short = True
        except Exception as exc:
            run.is_cut_short = True
            run.note("crash", f"{type(exc).__name__}: {exc}")
            run.tell(_traceback(exc))
    return run


# --- what is promised


class Found:
    """What came of a run, put together: what each node was given, and gave."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.logs: dict[Key, list[Entry]] = {key: list(log.values()) for key, log in run.logs.items()}
        self.concurrent: set[Key] = set()
        self.finishing: set[Key] = set()  # nodes that may close their links
        self.kinds: dict[Key, set[str]] = defaultdict(set)
        for _, topology in run.reigns:
            for key, node in topology.active.items():
                self.kinds[key].add(node.kind)
                if node.concurrency > 1:
                    self.concurrent.add(key)
        reigns = [topology for _, topology in run.reigns]
        for topology, follower in zip(reigns, [*reigns[1:], reigns[-1]], strict=True):
            self._add_finishing(topology, topology)
            self._add_finishing(topology, follower)
        self.arrived = {token for log in self.logs.values() for entry in log for token in self._come_by(entry.token)}
        self.failed: Counter[tuple[Key, Token]] = Counter()
        for failure in run.failures:
            if failure.item is not None:
                self.failed[failure.key, Token(failure.item.trail.hops, failure.item.value.uid)] += 1
        self._cut_failures()
        self.kept: set[Token] = set()  # given behind an item that was held, and perhaps not sent before nobody read it
        self._look_when_sent()
        self._add_merges()
        self.givers: dict[Token, Entry] = {
            token: entry for log in self.logs.values() for entry in log for token in entry.given()
        }

    def _add_finishing(self, topology: Topology, follower: Topology) -> None:
        """A node that takes but some values finishes, and so does one whose readers all have.

        Amid a change, those are the readers that it has in either topology.
        """
        both = (topology, follower)
        found = {key for key, node in topology.active.items() if (code := code_of(node)) is not None and code.takes}

        def staying(key: Key) -> frozenset[Key]:
            return frozenset.intersection(*[each.readers(key) for each in both if key in each.active])

        def sources(key: Key) -> set[Key]:
            return {node_key(read) for each in both if key in each.active for read in each.reads(key)}

        while (
            more := {source for key in found for source in sources(key) if staying(source) <= found | self.finishing}
            - found
        ):
            found |= more
        self.finishing |= found

    def _look_when_sent(self) -> None:
        """What several calls at once gave bears the epoch in which it was sent, where the same code was there then."""
        for key in self.concurrent:
            epochs = [(epoch, topology) for epoch, topology in self.run.reigns if key in topology.active]
            for entry in self.logs.get(key, ()):
                later = [
                    hp.Hop(key, topology.epoch_of(key))
                    for epoch, topology in epochs
                    if epoch > entry.epoch and code_of(topology.active[key]) is entry.code
                ]
                for hop in dict.fromkeys(later):
                    if any(Token((*entry.token.hops, hop), output.uid) in self.arrived for output in entry.outputs):  # type: ignore[union-attr]
                        entry.epoch = hop.epoch
                if any(
                    epoch > entry.epoch and _is_kept_unread(entry, topology, topology.active[key])
                    for epoch, topology in epochs
                ):
                    self.kept.update(entry.given())

    def _come_by(self, token: Token | None) -> Iterator[Token]:
        """What a node was given, and what the merges above it were."""
        while token is not None and token.hops:
            yield token
            is_of_merge = "merge" in self.kinds[token.hops[-1].key]
            token = Token(token.hops[:-1], token.uid) if is_of_merge else None

    def _cut_failures(self) -> None:
        """What failed gave what had left."""
        for failure in self.run.failures:
            if failure.item is None:
                if failure.key in self.run.forced:
                    self._cut_ends(failure.key)
                continue
            token = Token(failure.item.trail.hops, failure.item.value.uid)
            entry = self.run.logs[failure.key].get(token)
            if entry is None:  # given up before its call had begun
                entry = Entry(failure.key, "value", -1, token, failure.item.value, failure.item.origin)
                self.logs.setdefault(failure.key, []).append(entry)
            else:
                entry.is_done = False
                if failure.reason.startswith("partly sent"):
                    del entry.outputs[int(failure.reason.split()[2]) :]
                else:
                    self._cut(entry)
        for key in self.finishing:  # what such a node has failed on, it may have forgotten
            for entry in self.logs.get(key, ()):
                if not entry.is_done:
                    self._cut(entry)

    def _cut_ends(self, key: Key) -> None:
        """What `end` gave was given up while it waited for room."""
        for entry in self.logs.get(key, ()):
            if entry.call == "end":
                self._cut(entry)

    def _cut(self, entry: Entry) -> None:
        """Outputs leave in order."""
        del entry.outputs[sum(token in self.arrived for token in entry.given()) :]

    def _add_merges(self) -> None:
        """What a merge was given is what its readers were given of it; they are held against each other."""
        values = {
            entry.value.uid: entry.value for log in self.logs.values() for entry in log if entry.value is not None
        }
        seen: dict[Key, dict[Token, Entry]] = defaultdict(dict)
        order: dict[Key, list[Token]] = defaultdict(list)  # each reader has seen a part of it
        concurrent = set(self.concurrent)
        for key in sorted(self.logs, key=lambda key: (key in concurrent, str(key))):
            places: Counter[Key] = Counter()  # {merge: where the next that nobody else has seen belongs}
            for entry in self.logs[key]:
                token = entry.token
                if token is None or not token.hops or "merge" not in self.kinds[token.hops[-1].key]:
                    continue
                merge, epoch = token.hops[-1]
                if merge in self.run.logs and self._has_code(merge, epoch):
                    continue
                before = Token(token.hops[:-1], token.uid)
                if token in seen[merge]:
                    places[merge] = order[merge].index(token) + 1
                    continue
                order[merge].insert(places[merge], token)
                places[merge] += 1
                made = Entry(merge, "merge", epoch, before, values[token.uid], entry.origin, [values[token.uid]])
                made.is_done = True
                seen[merge][token] = made
                if key in concurrent:
                    self.concurrent.add(merge)  # for its order is not known
        for key, found in seen.items():
            taken = {Token(token.hops[:-1], token.uid) for token in found}
            # What the merge was given had perhaps been held by the node before it.
            known = [
                entry
                for entry in self.logs.get(key, [])
                if entry.token not in taken or (entry.is_done and not (key in concurrent and self._is_unsent(entry)))
            ]
            entries = [*known, *(found[token] for token in order[key])]
            self.logs[key] = sorted(entries, key=lambda entry: entry.epoch)

    def _is_unsent(self, entry: Entry) -> bool:
        """Whether what a call gave has come nowhere: it was kept behind an item that was held, perhaps."""
        return self.arrived.isdisjoint(entry.given())

    def _has_code(self, key: Key, epoch: int) -> bool:
        """Whether the node was something else than a merge in that epoch."""
        return any(
            topology.active[key].kind != "merge"
            for _, topology in self.run.reigns
            if key in topology.active and topology.epoch_of(key) == epoch
        )

    def tenures(self) -> Iterator[Tenure]:
        """Each link, from the epoch that made it to the one that took it away."""
        open_links: dict[tuple[Key, Key], int] = {}
        for epoch, topology in self.run.reigns:
            there = {(read, key) for key, node in topology.active.items() for read in node.reads}
            for link in sorted(open_links.keys() - there, key=str):
                yield self._tenure(link, open_links.pop(link), epoch)
            for link in there - open_links.keys():
                open_links[link] = epoch
        for link in sorted(open_links, key=str):
            yield self._tenure(link, open_links[link], None)

    def _tenure(self, link: tuple[Key, Key], start: int, stop: int | None) -> Tenure:
        read, reader = link
        writer, name = node_key(read), read.name if isinstance(read, Output) else None

        def is_then(epoch: int) -> bool:
            return start <= epoch and (stop is None or epoch < stop)

        given = [
            token
            for entry in self.logs.get(writer, ())
            if is_then(entry.epoch) and (name is None or entry.name == name)
            for token in entry.given()
        ]
        taken = []
        for entry in self.logs.get(reader, ()):
            token = entry.token
            if token is None or token.hops[-1].key != writer or not is_then(token.hops[-1].epoch):
                continue
            giver = self.givers.get(token)
            if name is None or giver is None or giver.name == name:
                taken.append(token)
        is_ordered = not self.concurrent & {writer, reader}
        return Tenure(read, reader, start, stop, given, taken, is_ordered)

    def way(self, token: Token) -> tuple[object, ...]:
        """The links that a value has come by: what came by the same ones has kept its order."""
        way: list[object] = []
        found: Token | None = token
        while found is not None and found.hops:
            giver = self.givers.get(found)
            way.append((found.hops[-1].key, giver and giver.name))
            found = None if giver is None else giver.token
        return tuple(way)


def _is_kept_unread(entry: Entry, topology: Topology, node: Node) -> bool:
    """Whether a node that may hold an item has kept what a call gave behind it, and nobody reads that any more."""
    wanted = (entry.key, hp.output(entry.key, entry.name))
    is_read = any(read in wanted for reader in topology.readers(entry.key) for read in topology.reads(reader))
    return code_of(node) is entry.code and isinstance(node.on_error, Hold) and not is_read


@attrs.frozen(eq=False)
class Tenure:
    """What went over one link while it was there."""

    read: Key
    reader: Key
    start: int
    stop: int | None
    given: list[Token]
    taken: list[Token]
    is_ordered: bool

    def __str__(self) -> str:
        return f"{canonical(self.read)} -> {self.reader} in epochs {self.start} to {self.stop}"


def mixed(found: Found) -> Iterator[str]:
    """No family has met two versions of what one change touched, but where a later change has made the way there."""
    made = _links_made(found.run.reigns)
    met: dict[hp.Origin, set[tuple[hp.Hop, int]]] = defaultdict(set)
    for log in found.logs.values():
        for entry in log:
            if entry.token is not None and entry.origin is not None:
                met[entry.origin].update(_with_newest(entry.met, made))
    for change in found.run.changes:
        before = change.touched - change.added  # one that was there long before, and was removed, is no old version
        for origin, hops in met.items():
            here = [(hop, newest) for hop, newest in hops if hop.key in change.touched]
            old = [hop for hop, _ in here if hop.epoch < change.epoch and hop.key in before]
            new = [hop for hop, newest in here if newest <= change.epoch <= hop.epoch]
            if old and new:
                yield f"{origin} met {_way_text(sorted(old))} and {_way_text(sorted(new))}, in epoch {change.epoch}"


def _links_made(reigns: list[tuple[int, Topology]]) -> dict[tuple[Key, Key], list[int]]:
    """{(writer, reader): the epochs that made a link between them}."""
    made: dict[tuple[Key, Key], list[int]] = defaultdict(list)
    before: set[tuple[Key, Key]] = set()
    for epoch, topology in reigns:
        links = {(node_key(read), key) for key, node in topology.active.items() for read in node.reads}
        for link in links - before:
            made[link].append(epoch)
        before = links
    return made


def _with_newest(hops: Hops, made: dict[tuple[Key, Key], list[int]]) -> Iterator[tuple[hp.Hop, int]]:
    """Each hop, and the epoch of the newest link by which it was come to."""
    newest = 0
    for i, hop in enumerate(hops):
        if i:
            epochs = [epoch for epoch in made.get((hops[i - 1].key, hop.key), ()) if epoch <= hop.epoch]
            newest = max(newest, max(epochs, default=0))
        yield hop, newest


def reign(found: Found) -> Iterator[str]:
    """Each trail, with the node that it has come to, lies in one topology that reigned, hop by hop and link by link."""
    known: set[Hops] = set()
    for log in found.logs.values():
        for entry in log:
            if entry.met in known:
                continue
            known.add(entry.met)
            if not any(_lies_in(entry.met, topology) for _, topology in found.run.reigns):
                yield f"{_way_text(entry.met)} lies in no reign"


def _lies_in(hops: Hops, topology: Topology) -> bool:
    if not all(key in topology.active and topology.epoch_of(key) == epoch for key, epoch in hops):
        return False
    keys = [hop.key for hop in hops]
    return all(a in map(node_key, topology.reads(b)) for a, b in pairwise(keys))


def lost(found: Found) -> Iterator[str]:
    """What a node gave has come to all that read it; nothing that failed is missing among the failures."""
    for tenure in found.tenures():
        missing = Counter(token for token in tenure.given if token not in found.kept) - Counter(tenure.taken)
        if missing and tenure.reader not in found.finishing:
            yield f"{tenure}: {_few(missing)}"
    for key, log in found.logs.items():
        for entry in log:
            is_failed = found.failed[key, entry.token]  # type: ignore[index]
            if entry.call == "value" and not entry.is_done and not is_failed and key not in found.finishing:
                yield f"{key} has neither finished {entry.token} nor failed on it"
    yield from _miscounted(found)


def _miscounted(found: Found) -> Iterator[str]:
    """The statistics count what was done, where a node has been there all the time."""
    if found.run.statistics is None:
        return
    always = set.intersection(*(set(_texts(topology.active)) for _, topology in found.run.reigns))
    for key in sorted(key for key in always - {*IDLE} - found.finishing if not key.startswith("e")):
        log, node = found.logs.get(key, []), found.run.statistics.nodes[key]
        received = sum(entry.is_done and entry.token is not None for entry in log)
        failed = sum(failure.key == key for failure in found.run.failures)
        sent = sum(len(entry.outputs) for entry in log)
        if len(found.kinds[key]) > 1 or "merge" in found.kinds[key]:
            sent = node.sent  # a merge that is a sink's only reader, for one, is known by its readers alone
        counted = (node.received * (not node.queued_items), node.failed, node.sent, node.dropped, node.queued_items)
        wanted = (received, failed, 0 if "sink" in found.kinds[key] else sent, 0, 0)
        if counted != wanted:
            yield f"{key} counts {node}; should have received {received}, failed {failed}, sent {sent}"
    numbers: defaultdict[Key, dict[int, int]] = defaultdict(dict)  # {source: {number: what the engine made of it}}
    for log in found.logs.values():
        for entry in log:
            if entry.value is not None and entry.origin is not None:
                source, number = entry.value.source, entry.value.number
                # What a node that was given up had still to send has no number.
                made = entry.origin.number if source in found.run.forced else number
                if entry.origin != hp.Origin(source, numbers[source].setdefault(number, made), 0):
                    yield f"{entry.key} was given {entry.value} as {entry.origin}"
    for source, given in numbers.items():
        if any(later <= before for before, later in itertools.pairwise(given[number] for number in sorted(given))):
            yield f"{source} gave {given}"


def doubled(found: Found) -> Iterator[str]:
    """Nothing has come by a link twice, nor what nobody gave."""
    for tenure in found.tenures():
        extra = Counter(tenure.taken) - Counter(tenure.given)
        if extra and node_key(tenure.read) not in found.run.forced:  # what it had sent of an item that it gave up
            yield f"{tenure}: {_few(extra)}"
    for (key, token), times in found.run.successes.items():
        if key not in found.concurrent:  # where one that is held keeps what came after it from leaving
            yield f"{key} had finished {token}, and took it up again {times} times"
    for (key, token), times in found.failed.items():
        if times > 1:
            yield f"{key} failed on {token} {times} times"


def order(found: Found) -> Iterator[str]:
    """What comes by a link comes as it was given; and what comes by one path from one source, in the source's order."""
    for tenure in found.tenures():
        if tenure.is_ordered and Counter(tenure.given) == Counter(tenure.taken) and tenure.given != tenure.taken:
            first = next(a for a, b in zip(tenure.given, tenure.taken, strict=True) if a != b)
            yield f"{tenure}: {first} came later than given"
    for key, log in found.logs.items():
        if key in found.concurrent:
            continue
        latest: dict[tuple[object, ...], Value] = {}
        for entry in log:
            if entry.token is None or entry.value is None:
                continue
            way = found.way(entry.token)
            before = latest.get(way)
            if before is not None and before.order >= entry.value.order:
                yield f"{key} was given {entry.value} after {before}, by {_way_text(entry.token.hops)}"
            latest[way] = entry.value


def _seen(name: str) -> Callable[[Found], Iterator[str]]:
    """What was seen to be wrong while it ran."""

    def check(found: Found) -> Iterator[str]:
        return (what for seen, what in found.run.wrong if seen == name)

    check.__name__ = name
    return check


bounded, quiet, stuck, settled, crash = map(_seen, ("bounded", "quiet", "stuck", "settled", "crash"))


def clean(found: Found) -> Iterator[str]:
    """No task, no generator is left; each process was closed once, and called no more."""
    run = found.run
    yield from _seen("clean")(found)
    if run.generators:
        yield f"{run.generators} generators are open"
    for process in run.processes:
        if process.has("close") and process.begun and process.closed != 1 and not process.is_forced:
            yield f"{process.code.key} v{process.code.version}: closed {process.closed} times"


CHECKS: tuple[Callable[[Found], Iterator[str]], ...] = (
    mixed,
    reign,
    lost,
    doubled,
    order,
    bounded,
    quiet,
    stuck,
    settled,
    clean,
    crash,
)


def wrong_in(run: Run) -> dict[str, list[str]]:
    """{property: what is wrong}; of a run that did not come to its end, not what may still have been under way."""
    found = Found(run)
    checks = [check for check in CHECKS if not run.is_cut_short or check not in (lost, doubled, order, reign)]
    verdict = {check.__name__: list(check(found)) for check in checks}
    return {name: what for name, what in verdict.items() if what}


class Wrong(AssertionError):
    """A run is not as promised."""


def play_and_check(seed: int) -> None:
    """Play the run of a seed; what is raised says what is wrong, and shows the run."""
    run = play(seed)
    wrong = wrong_in(run)
    if wrong:
        error = Wrong(_verdict_text(wrong))
        error.add_note("\n".join([*run.story, f"to repeat: python -m tests.changing {seed}"]))
        raise error


# --- texts


def _way_text(hops: Iterable[hp.Hop]) -> str:
    return " ".join(f"{key}@{epoch}" for key, epoch in hops)


def _keys_text(keys: Iterable[Key]) -> str:
    return ", ".join(canonical(key) for key in sorted(keys, key=key_order)) or "nothing"


def _few(tokens: Iterable[Token], most: int = 4) -> str:
    found = [str(token) for token in tokens]
    return ", ".join(found[:most]) + (f", and {len(found) - most} more" if len(found) > most else "")


def _node_text(key: Key, node: Node) -> str:
    code = code_of(node)
    reads = ", ".join(canonical(read) for read in node.reads)
    state = getattr(node.state, "__name__", node.state)
    options = [f"capacity {node.capacity}", f"concurrency {node.concurrency}", f"on_error {node.on_error}"]
    return f"{key} <- {reads or 'nothing'}: {node.kind if code is None else code}, {', '.join(options)}, state {state}"


def _all_text(topology: Topology) -> str:
    return "".join(f"\n            {_node_text(key, topology.active[key])}" for key in _texts(topology.active))


def _difference_text(old: Topology, new: Topology) -> str:
    lines = []
    for key in _texts({**old.active, **new.active}):
        before, after = old.active.get(key), new.active.get(key)
        if after is None:
            lines.append(f"- {key}")
        elif before != after:
            lines.append(f"{'+' if before is None else '~'} {_node_text(key, after)}")
    return "".join(f"\n            {line}" for line in lines) or "nothing"


def _verdict_text(wrong: dict[str, list[str]]) -> str:
    return "\n".join(f"{name}: {text}" for name, what in wrong.items() for text in what[:5]) or "ok"


def _is_endless(node: Node) -> bool:
    code = code_of(node)
    return code is not None and code.style == "endless"


def _traceback(exc: BaseException) -> str:
    import traceback

    return "".join(traceback.format_exception(exc))


# --- by hand


def _show(seed: int) -> bool:
    run = play(seed)
    wrong = wrong_in(run)
    print(f"seed {seed}", *run.story, _verdict_text(wrong), sep="\n")
    return not wrong


def _play_many(seeds: Iterable[int]) -> list[int]:
    """Play seeds, with a line a minute; gives those that fail."""
    tally: Counter[str] = Counter()
    failing: list[int] = []
    began = told = time.monotonic()
    for i, seed in enumerate(seeds):
        wrong = wrong_in(play(seed))
        tally.update(wrong.keys())
        if wrong:
            failing.append(seed)
            print(f"seed {seed}: {', '.join(wrong)}", flush=True)
        if time.monotonic() - told > 60:
            told = time.monotonic()
            print(f"{i + 1} runs in {told - began:.0f} s, {len(failing)} wrong", flush=True)
    print(f"{len(failing)} wrong: {dict(tally)}; {time.monotonic() - began:.0f} s")
    return failing


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.changing")
    parser.add_argument("seeds", type=int, nargs="*")
    parser.add_argument("--runs", type=int, metavar="N", help="play so many seeds")
    parser.add_argument("--from", type=int, metavar="SEED", dest="start", help="the first of them; a fresh one without")
    given = parser.parse_args(arguments)
    logging.getLogger("hotplumb").setLevel(logging.CRITICAL)
    if given.runs is None:
        shown = [_show(seed) for seed in given.seeds]
        return 0 if all(shown) else 1
    start = secrets.randbelow(2**31) if given.start is None else given.start
    print(f"seeds from {start} on", flush=True)
    failing = _play_many(range(start, start + given.runs))
    print(*failing)
    return 1 if failing else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
