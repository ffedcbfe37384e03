"""A graph under full load, in real time, that is changed every 10 ms and checked while it runs.

    python -m tests.soak --seconds 600 [--uvloop] [--seed N]

There are a diamond, a route, a stateful node, async nodes with and without concurrency, and two endless sources.  Their
nodes are replaced, rewired, inserted, removed, and changes taken back, in an order drawn from the seed (when things
happen is up to the clock).  Values carry their provenance, and the wiring that each change makes is known without the
engine.  So all that came of a source item can be checked as soon as it must have arrived, and is then forgotten:

    lost      something that it gave has not arrived
    doubled   something has arrived twice
    order     something has overtaken what came the same way before it
    mixed     it has met two versions of what one change touched
    reign     its way lies in no wiring that reigned, or leads where that has no link
    trail     trail, origin or version do not agree with its provenance
    state     the state of the stateful node is not that of all it has seen
    stuck     a change does not end, or does not settle
    memory    something of the engine is kept: there is more of it the more changes there were
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import random
import sys
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import attrs

import hotplumb as hp

EVERY_S = 0.01  # a change
STUCK_S = 60.0  # for one change on a busy machine
CAPACITY_ITEMS = 16  # so a change that has to pass in order is through before the next is due
IN_FLIGHT = 1500  # source items at the most: more than all links on the longest way hold
MOST_CHUNKS = 4000  # likewise, of one item each
KEPT_CHANGES = 1000  # that are remembered: what they have cut off has arrived long since
SAMPLES = 10  # looks at the memory; the first when a tenth is done
ENGINE = "hotplumb"
FEW = 50  # things that there may be more of at one look than at another
LINE_S = 10.0
MOST_ALIKE = 2000  # families that are remembered as right


class Wrong(AssertionError):
    """A promise is broken."""


# ---- values: (source, number, ((key, version, which output), ...))

Step = tuple[Any, int, int]
Value = tuple[str, int, tuple[Step, ...]]


def made(key: str, version: int, value: Value, which: int = 0) -> Value:
    """The value, with one step more."""
    return (value[0], value[1], (*value[2], (key, version, which)))


async def made_later(key: str, version: int, value: Value) -> Value:
    """Mostly after one round of the loop, sometimes later."""
    await asyncio.sleep(0 if value[1] % 256 else 0.001)
    return made(key, version, value)


def several(key: str, version: int, value: Value) -> list[Value]:
    return [made(key, version, value, which) for which in range(_outputs("flat_map", value[1]))]


def is_kept(version: int, value: Value) -> bool:
    return _outputs("filter", value[1]) > 0


def choice(version: int, value: Value) -> str:
    return _choice(value[1])


def _outputs(kind: str, number: int) -> int:
    """How many outputs a node gives for one value."""
    if kind == "flat_map":
        return 2 if number % 7 == 0 else 1
    return number % 2 if kind == "filter" else 1


def _choice(number: int) -> str:
    return "abc"[number % 3]


# ---- the graph


@attrs.frozen
class Spec:
    """What one node is."""

    kind: str
    reads: tuple[Any, ...] = ()
    version: int = 0


@attrs.frozen
class Wiring:
    """What can be wired in several ways."""

    inserted: frozenset[str] = frozenset()
    """Nodes that have another behind them."""
    join: tuple[str, ...] = ("left", "right")
    out: tuple[str, ...] = ("all", "ticked")
    has_extra: bool = False


JOINS = (("left", "right"), ("right",), ("left",), ("left", "right", "parse"))
OUTS = (("all", "ticked"), ("all",), ("all", "ticked", "count"))
CHOICES = {name: hp.output("choose", name) for name in "abc"}
INSERTED = ("parse", "left", "count")


def specs_of(wiring: Wiring) -> dict[str, Spec]:
    """Every node that is given, as it is at first."""

    def behind(key: str) -> str:
        return f"behind {key}" if key in wiring.inserted else key

    specs = {
        "numbers": Spec("source"),
        "parse": Spec("map", ("numbers",)),
        "fork": Spec("flat_map", (behind("parse"),)),
        "left": Spec("concurrent", ("fork",)),
        "right": Spec("map", ("fork",)),
        "join": Spec("map", tuple(behind(key) if key == "left" else key for key in wiring.join)),
        "count": Spec("stateful", ("join",)),
        "choose": Spec("route", (behind("count"),)),
        "on a": Spec("map", (CHOICES["a"],)),
        "on b": Spec("async", (CHOICES["b"],)),
        "on c": Spec("filter", (CHOICES["c"],)),
        "all": Spec("merge", ("on a", "on b", "on c")),
        "ticks": Spec("async source"),
        "ticked": Spec("async", ("ticks",)),
        "out": Spec("sink", wiring.out),
        "every choice": Spec("sink", ("choose",)),  # so something arrives of all that a node gives
        "every number": Spec("sink", ("parse",)),
        "every tick": Spec("sink", ("ticks",)),
    }
    specs |= {f"behind {key}": Spec("map", (key,)) for key in wiring.inserted}
    if wiring.has_extra:
        specs |= {"extra": Spec("map", ("right",)), "extra out": Spec("sink", ("extra",))}
    return specs


def source_of(read: Any) -> str:
    """The node that a read key refers to."""
    return read if isinstance(read, str) else str(read.key)


def active_of(specs: Mapping[str, Spec]) -> dict[str, Spec]:
    """Those that a sink needs."""
    found: dict[str, Spec] = {}
    todo = [key for key, spec in specs.items() if spec.kind == "sink"]
    while todo:
        key = todo.pop()
        found[key] = specs[key]
        todo += [source_of(read) for read in specs[key].reads if source_of(read) not in found]
    return found


def links_of(specs: Mapping[str, Spec]) -> dict[str, set[tuple[str, Any]]]:
    """{key: {(who reads it, by which key)}}."""
    found: dict[str, set[tuple[str, Any]]] = defaultdict(set)
    for key, spec in specs.items():
        for read in spec.reads:
            found[source_of(read)].add((key, read))
    return found


class Feed:
    """What the sources give: numbers go on when a source is replaced."""

    def __init__(self) -> None:
        self.given: Counter[str] = Counter()

    def take(self, key: str, version: int) -> Value:
        number = self.given[key]
        self.given[key] = number + 1
        return (key, number, ((key, version, 0),))

    def numbers(self, key: str, version: int) -> Iterator[Value]:
        while True:
            yield self.take(key, version)

    async def ticks(self, key: str, version: int) -> AsyncIterator[Value]:
        while True:
            for _ in range(16):
                yield self.take(key, version)
            await asyncio.sleep(0)


def node_of(key: str, spec: Spec, feed: Feed, checker: Checker) -> hp.Node:
    """The node that a spec describes."""
    kind, reads, version = spec.kind, spec.reads, spec.version
    match kind:
        case "source":
            return hp.source(partial(feed.numbers, key, version))
        case "async source":
            return hp.source(partial(feed.ticks, key, version))
        case "map":
            return hp.map(partial(made, key, version), *reads, capacity=CAPACITY_ITEMS)
        case "async":
            return hp.map(partial(made_later, key, version), *reads, capacity=CAPACITY_ITEMS)
        case "concurrent":
            return hp.map(partial(made_later, key, version), *reads, capacity=CAPACITY_ITEMS, concurrency=8)
        case "flat_map":
            return hp.flat_map(partial(several, key, version), *reads, capacity=CAPACITY_ITEMS)
        case "filter":
            return hp.filter(partial(is_kept, version), *reads, capacity=CAPACITY_ITEMS)
        case "route":
            choose: hp.Node = hp.route(partial(choice, version), *reads, capacity=CAPACITY_ITEMS)
            return choose
        case "stateful":
            return hp.stateful(partial(checker.count, key, version), 0, *reads, capacity=CAPACITY_ITEMS)
        case "merge":
            merge: hp.Node = hp.merge(
                *reads, capacity=CAPACITY_ITEMS + version % 100
            )  # what differs, else it calls nothing
            return merge
    return hp.sink(partial(checker.see, key, version), *reads, capacity=CAPACITY_ITEMS)


# ---- checking

Hops = tuple[hp.Hop, ...]
Output = tuple[Any, int, int]  # of a node as it was from an epoch on, which of those that one value gives


@attrs.frozen(eq=False)
class Arrival:
    """How something has come to a sink: the same for many items."""

    sink: str
    steps: tuple[Step, ...]
    outputs: tuple[Output, ...]
    """The way from the source on."""
    last: list[int]
    """The number that has come last by the same nodes and outputs, in whatever epochs."""


class Checker:
    """Holds what arrives against the wirings that reigned."""

    def __init__(self) -> None:
        self.arrived = 0
        self.families = 0
        self._counted = 0
        self._under_way: dict[str, dict[int, list[Arrival]]] = defaultdict(dict)  # {source: {number: what has come}}
        self._checked: Counter[str] = Counter()  # {source: how many numbers}
        self._arrivals: dict[Any, Arrival] = {}
        self._last: dict[Any, list[int]] = {}  # {way to a sink: see `Arrival`}
        self._right: set[Any] = set()  # families that were found right: most look like many before them

        self.epoch = -1
        self._kinds: dict[str, str] = {}  # {key: the kind it always has}
        self._active: dict[str, Spec] = {}
        self._since: dict[str, int] = {}  # {active key: the epoch of the change that last touched it}
        self._specs: dict[tuple[str, int], Spec] = {}  # {(key, epoch): what it was from then on}
        self._readers: dict[tuple[str, int], frozenset[tuple[str, Any]]] = {}  # likewise: {(who reads it, as what)}
        self._until: dict[tuple[str, int], int] = {}  # likewise: the epoch in which that ended
        self._touched: dict[int, frozenset[str]] = {}  # {epoch: keys}

    # -- what user functions tell

    def count(self, key: str, version: int, state: int, value: Value) -> tuple[int, list[Value]]:
        """The step of the stateful node: its state is how often it was called."""
        if state != self._counted:
            raise Wrong(f"state: {key} has counted {state} of {self._counted} values")
        self._counted += 1
        return state + 1, [made(key, version, value)]

    def see(self, sink: str, version: int, value: Value) -> None:
        """Something has come to a sink."""
        source, number, steps = value
        trail = hp.current_item().trail
        if trail.origin != (source, number, 0):
            raise Wrong(f"trail: {trail} brought {value}")
        self.arrive(sink, number, trail.hops, steps)

    def arrive(self, sink: str, number: int, hops: Hops, steps: tuple[Step, ...]) -> None:
        self.arrived += 1
        source = str(hops[0].key)
        arrival = self._arrivals.get((sink, hops, steps)) or self._arrival(sink, hops, steps)
        if number <= arrival.last[0]:
            what = "doubled" if number == arrival.last[0] else "order"
            raise Wrong(f"{what}: {source} #{number} came after #{arrival.last[0]}: {arrival}")
        arrival.last[0] = number
        if number < self._checked[source]:
            raise Wrong(f"doubled: {source} #{number} had arrived: {arrival}")
        self._under_way[source].setdefault(number, []).append(arrival)

    def _arrival(self, sink: str, hops: Hops, steps: tuple[Step, ...]) -> Arrival:
        which = {key: k for key, _, k in steps}
        outputs = tuple((key, epoch, which.get(key, 0)) for key, epoch in hops)
        last = self._last.setdefault((sink, tuple((key, k) for key, _, k in outputs)), [-1])
        arrival = self._arrivals[sink, hops, steps] = Arrival(sink, steps, outputs, last)
        return arrival

    # -- what reigns

    def reigns(self, epoch: int, specs: Mapping[str, Spec]) -> frozenset[str]:
        """From `epoch` on, these nodes are given; gives what that touches."""
        active = active_of(specs)
        before, now = (links_of(specs) for specs in (self._active, active))
        touched = frozenset(
            key
            for key in self._active.keys() | active.keys()
            if self._active.get(key) != active.get(key) or before[key] != now[key]
        )
        for key in touched:
            if key in self._since:
                self._until[key, self._since.pop(key)] = epoch
            if key in active:
                self._since[key] = epoch
                self._specs[key, epoch], self._readers[key, epoch] = active[key], frozenset(now[key])
        self._kinds |= {key: spec.kind for key, spec in active.items()}
        self._active, self.epoch, self._touched[epoch] = active, epoch, touched
        if epoch % 100 == 0:
            self._forget()
        return touched

    def _forget(self) -> None:
        """Forget what ended long ago."""
        oldest = self.epoch - KEPT_CHANGES
        for epoch in [epoch for epoch in self._touched if epoch < oldest]:
            del self._touched[epoch]
        for old in [old for old, until in self._until.items() if until < oldest]:
            del self._until[old], self._specs[old], self._readers[old]
        if len(self._right) > MOST_ALIKE:
            self.forget_alike()

    def forget_alike(self) -> None:
        """Forget what was found right."""
        self._right.clear()
        self._arrivals.clear()

    # -- families

    def check(self, source: str, given: int) -> None:
        """Check what came of the first `given` numbers of a source, all of which must have arrived."""
        under_way = self._under_way[source]
        for number in range(self._checked[source], given):
            arrivals = under_way.pop(number, [])
            family = (source, number % 7 == 0, number % 3, number % 2, frozenset(arrivals))
            if family not in self._right:
                self._check_family(source, number, arrivals)
                self._right.add(family)
            self._checked[source] = number + 1
            self.families += 1

    def _check_family(self, source: str, number: int, arrivals: list[Arrival]) -> None:
        for arrival in arrivals:
            self._check_reign(number, arrival)
            self._check_provenance(number, arrival)
        self._check_mixed(number, arrivals)
        if not arrivals:
            raise Wrong(f"lost: nothing came of {source} #{number}")
        self._check_complete(number, [(arrival.outputs, arrival.sink) for arrival in arrivals], 0)

    def _check_reign(self, number: int, arrival: Arrival) -> None:
        """Some wiring had each node of the way as it then was."""
        unknown = [output for output in arrival.outputs if output[:2] not in self._specs]
        first = max(epoch for _, epoch, _ in arrival.outputs)
        until = min(self._until.get((key, epoch), self.epoch + 1) for key, epoch, _ in arrival.outputs)
        if unknown or until <= first:
            raise Wrong(f"reign: #{number} {arrival} {unknown}")

    def _check_provenance(self, number: int, arrival: Arrival) -> None:
        """The functions that made it are those that its trail names."""
        specs = {key: self._specs[key, epoch] for key, epoch, _ in arrival.outputs}
        hops = [(key, spec.version) for key, spec in specs.items() if spec.kind not in ("filter", "route", "merge")]
        if [(key, version) for key, version, _ in arrival.steps] != hops:
            raise Wrong(f"trail: #{number} {arrival}, its hops are {hops}")

    def _check_mixed(self, number: int, arrivals: list[Arrival]) -> None:
        met = {(key, epoch) for arrival in arrivals for key, epoch, _ in arrival.outputs}
        epochs = [epoch for _, epoch in met]
        for epoch in range(min(epochs, default=0) + 1, max(epochs, default=0) + 1):
            touched = self._touched.get(epoch, frozenset())
            if len({since >= epoch for key, since in met if key in touched}) > 1:
                raise Wrong(f"mixed: #{number} met both versions of {sorted(touched)} in epoch {epoch}: {sorted(met)}")

    def _check_complete(self, number: int, found: list[tuple[tuple[Output, ...], str]], deep: int) -> None:
        """All that an output was to be given to has come of it: `found` are the ways that begin with it."""
        key, epoch, _ = found[0][0][deep]
        expected: set[Any] = set()
        for reader, read in self._readers[key, epoch]:
            if not isinstance(read, str) and read.name != _choice(number):
                continue
            kind = self._kinds[reader]
            expected |= {reader} if kind == "sink" else {(reader, k) for k in range(_outputs(kind, number))}
        below: dict[Any, list[tuple[tuple[Output, ...], str]]] = defaultdict(list)
        for outputs, sink in found:
            if deep + 1 == len(outputs):
                below[sink].append((outputs, sink))
            else:
                reader, _, k = outputs[deep + 1]
                below[reader, k].append((outputs, sink))
        if below.keys() != expected:
            missing, more = expected - below.keys(), below.keys() - expected
            raise Wrong(f"{'lost' if missing else 'reign'}: #{number}, {key} in {epoch}: {missing} {more} of {found}")
        for which, ways in below.items():
            if not isinstance(which, str):
                self._check_complete(number, ways, deep + 1)


# ---- what is kept in memory

CHUNKS = ("Chunk", "Record", "Root")  # and what else there is one of for some items under way


@attrs.frozen
class Sample:
    """What there is in memory while all changes have settled and the wiring is that of the start."""

    changes: int
    arrived: int
    resident_bytes: int
    objects: Counter[str]
    """{class of the engine: how many of it the collector knows}"""


def resident_bytes() -> int:
    """What the process holds in memory; 0 where the system does not tell."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * 4096 if statm.exists() else 0


def objects() -> Counter[str]:
    """{class of the engine: how many of it there are}."""
    gc.collect()
    classes = map(type, gc.get_objects())
    return Counter(found.__qualname__ for found in classes if str(found.__module__).startswith(ENGINE))


def check_kept(first: Sample, last: Sample) -> None:
    """There is no more of anything than one for ten changes, or of what items are made of than can be under way."""
    most = max(FEW, (last.changes - first.changes) / 10)
    for name, count in last.objects.items():
        grown = count - first.objects[name]
        if grown > (MOST_CHUNKS if name in CHUNKS else most):
            raise Wrong(f"memory: {grown} more {name} after {last.changes - first.changes} changes")


# ---- the run

HOW = {"replace": 6, "several": 2, "two at once": 1, "in a row": 2, "insert": 3, "rewire": 4, "sink": 2, "inverse": 3}
"""{kind of change: how often, among all}"""


class Soak:
    """One run."""

    def __init__(self, seed: int) -> None:
        self.checker = Checker()
        self.done: Counter[str] = Counter()  # {kind of change: how many}
        self.samples: list[Sample] = []
        self._rng = random.Random(seed)
        self._bag: list[str] = []  # kinds of change to come
        self._feed = Feed()
        self._versions: Counter[str] = Counter()  # {key: its latest}
        self._wiring = Wiring()
        self._specs = specs_of(self._wiring)  # what is given
        self._latest: tuple[hp.Change, Wiring, Mapping[str, Spec]] | None = None  # a change, and what was before

    @property
    def changes(self) -> int:
        return self.done.total()

    async def run(self, progress: Callable[[Soak], float], tell: Callable[[Soak], None] = lambda _: None) -> None:
        """Change the graph until `progress` is 1; raises `Wrong`."""
        self.checker.reigns(0, self._specs)
        try:
            async with hp.Plumbing(hp.Topology().update(self._nodes(self._specs))) as self._plumbing:
                while (part := progress(self)) < 1:
                    if part >= (1 + len(self.samples)) / SAMPLES:
                        await self._sample()
                    await self._change_and_check()
                    tell(self)
                await self._sample()
        except hp.NodeError as error:
            raise (error.__cause__ if isinstance(error.__cause__, Wrong) else error) from None
        for source, given in self._feed.given.items():
            self.checker.check(source, given)
        check_kept(self.samples[0], self.samples[-1])

    async def _change_and_check(self) -> None:
        due = time.perf_counter() + EVERY_S
        kind = self._next_kind()
        async with bounded(kind):
            await getattr(self, f"_{kind.replace(' ', '_')}")()
        self.done[kind] += 1
        for source, given in self._feed.given.items():
            self.checker.check(source, given - IN_FLIGHT)
        await asyncio.sleep(max(0.0, due - time.perf_counter()))

    def _next_kind(self) -> str:
        """Drawn from a bag that is filled again when it is empty, so none is left out for long."""
        if not self._bag:
            self._bag = [kind for kind, often in HOW.items() for _ in range(often)]
            self._rng.shuffle(self._bag)
        return self._bag.pop()

    async def _sample(self) -> None:
        """Look at what there is in memory."""
        async with bounded("settling"):
            await self._rewired(Wiring())
            await self._replace()
            assert self._latest is not None
            await self._latest[0].wait_settled()
        self.checker.forget_alike()
        self.samples.append(Sample(self.changes, self.checker.arrived, resident_bytes(), objects()))

    # -- kinds of change

    async def _replace(self) -> None:
        """One node."""
        [key] = self._some(1)
        specs = self._renewed(key)
        self._note(await self._plumbing.replace(key, self._nodes(specs)[key]), specs)

    async def _several(self) -> None:
        """Some nodes in one change."""
        await self._become(self._renewed(*self._some(3)))

    async def _two_at_once(self) -> None:
        """Two nodes by changes that are asked for at the same moment, so that one waits for its turn."""
        keys = self._some(2)
        specs = self._renewed(*keys)
        nodes = self._nodes(specs)
        changes = await asyncio.gather(*(self._plumbing.replace(key, nodes[key]) for key in keys))
        for change, key in sorted(zip(changes, keys, strict=True), key=lambda pair: pair[0].epoch):
            self._note(change, {**self._specs, key: specs[key]})

    async def _in_a_row(self) -> None:
        """Some nodes, each before the change before has settled."""
        for _ in range(3):
            await self._replace()

    async def _insert(self) -> None:
        """A node between two, or take it away."""
        inserted = self._wiring.inserted ^ {self._rng.choice(INSERTED)}
        await self._rewired(attrs.evolve(self._wiring, inserted=inserted))

    async def _rewire(self) -> None:
        """Have a node read others."""
        if self._rng.random() < 0.6:
            await self._rewired(attrs.evolve(self._wiring, join=self._rng.choice(JOINS)))
        else:
            await self._rewired(attrs.evolve(self._wiring, out=self._rng.choice(OUTS)))

    async def _sink(self) -> None:
        """Add a sink that needs a node of its own, or remove both."""
        wiring = attrs.evolve(self._wiring, has_extra=not self._wiring.has_extra)
        specs = self._specs_of(wiring)
        if wiring.has_extra:
            for key in ("extra", "extra out"):
                now = {**self._specs, key: specs[key]}
                self._note(await self._plumbing.add(key, self._nodes(specs)[key]), now)
        else:
            for key in ("extra out", "extra"):
                now = {other: spec for other, spec in self._specs.items() if other != key}
                self._note(await self._plumbing.remove(key), now)
        self._wiring, self._latest = wiring, None

    async def _inverse(self) -> None:
        """Take the latest change back."""
        if self._latest is None:
            await self._replace()
            return
        change, wiring, specs = self._latest
        self._note(await self._plumbing.apply(change.inverse), specs)
        self._wiring = wiring

    # -- helpers

    async def _rewired(self, wiring: Wiring) -> None:
        before = self._wiring
        await self._become(self._specs_of(wiring))
        self._wiring = wiring
        if self._latest is not None:
            self._latest = (self._latest[0], before, self._latest[2])

    async def _become(self, specs: Mapping[str, Spec]) -> None:
        edits: dict[Any, hp.Node | None] = dict.fromkeys(self._specs.keys() - specs.keys())
        edits |= self._nodes({key: spec for key, spec in specs.items() if self._specs.get(key) != spec})
        self._note(await self._plumbing.apply(self._plumbing.topology.update(edits)), specs)

    def _note(self, change: hp.Change, specs: Mapping[str, Spec]) -> None:
        """A change has come through."""
        touched = self.checker.reigns(change.epoch, specs) if change.touched else frozenset()
        if touched != change.touched or active_of(specs).keys() != set(change.topology.active):
            raise Wrong(f"reign: the change touched {set(change.touched)}, but should have {set(touched)}")
        self._latest = (change, self._wiring, self._specs) if touched else None
        self._specs = dict(specs)

    def _some(self, count: int) -> list[str]:
        """So many nodes that run."""
        return self._rng.sample(sorted(active_of(self._specs)), count)

    def _renewed(self, *keys: str) -> dict[str, Spec]:
        """What is given, with another version of these."""
        self._versions.update(keys)
        return {**self._specs, **{key: attrs.evolve(self._specs[key], version=self._versions[key]) for key in keys}}

    def _specs_of(self, wiring: Wiring) -> dict[str, Spec]:
        """What is given in another wiring, in the versions of now."""
        found = specs_of(wiring)
        for key, spec in found.items():
            known = self._specs.get(key)
            found[key] = attrs.evolve(spec, version=self._versions[key] if known is None else known.version)
        return found

    def _nodes(self, specs: Mapping[str, Spec]) -> dict[str, hp.Node]:
        return {key: node_of(key, spec, self._feed, self.checker) for key, spec in specs.items()}


@asynccontextmanager
async def bounded(what: str) -> AsyncIterator[None]:
    """What is stuck is wrong."""
    try:
        async with asyncio.timeout(STUCK_S):
            yield
    except TimeoutError:
        raise Wrong(f"stuck: {what}") from None


def soaked(seed: int, progress: Callable[[Soak], float], tell: Callable[[Soak], None], on_uvloop: bool) -> Soak:
    """Run one to its end."""
    soak = Soak(seed)
    with asyncio.Runner(loop_factory=new_uvloop if on_uvloop else None) as runner:
        runner.run(soak.run(progress, tell))
    return soak


def new_uvloop() -> asyncio.AbstractEventLoop:
    import uvloop

    return uvloop.new_event_loop()


# ---- the command line


class Progress:
    """For so many seconds, with a line every ten."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._began = self._told = time.perf_counter()

    def part(self, _: Soak) -> float:
        return (time.perf_counter() - self._began) / self._seconds

    def tell(self, soak: Soak) -> None:
        now = time.perf_counter()
        if now - self._told >= LINE_S:
            self._told = now
            print(f"{now - self._began:6.0f} s  {state_of(soak)}", flush=True)


def state_of(soak: Soak) -> str:
    checker = soak.checker
    return (
        f"{checker.arrived:,} items arrived, of {checker.families:,} families checked; {soak.changes:,} changes;"
        f" {resident_bytes() / 2**20:.1f} MiB"
    )


def report(soak: Soak) -> str:
    """What was done, and what there was in memory at each tenth."""
    lines = [state_of(soak), "  ".join(f"{kind}: {count:,}" for kind, count in sorted(soak.done.items()))]
    for sample in soak.samples:
        size = f"{sample.resident_bytes / 2**20:7.1f} MiB"
        lines.append(f"{sample.changes:7,} changes, {sample.arrived:11,} items: {size}, {_counts(sample.objects)}")
    return "\n".join(lines)


def _counts(found: Counter[str]) -> str:
    named = [f"{found[name]:,} {name}" for name in NAMED]
    return ", ".join([*named, f"{found.total() - sum(found[name] for name in NAMED):,} others"])


NAMED = ("Runner", "Link", "Change", "Changing", "Topology", "Loop", "Chunk", "Record")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description="A graph under load and change.")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--uvloop", action="store_true", help="on uvloop's event loop instead of asyncio's own")
    parser.add_argument("--seed", type=int, default=0, help="of the order of changes")
    options = parser.parse_args()
    progress = Progress(options.seconds)
    try:
        soak = soaked(options.seed, progress.part, progress.tell, options.uvloop)
    except Wrong as wrong:
        print(wrong, file=sys.stderr)
        return 1
    print(report(soak))
    return 0


if __name__ == "__main__":
    sys.exit(main())
