"""Random pipelines, and what must come of them in plain Python.

    written = random_pipeline(seed)     what somebody may write: nodes, chains, lists, choosers, pieces used twice
    found = play(written, seed)         one run of it, composed by `|` and the functions of `compose`
    check(written, found)               raises `Wrong` where the model says otherwise

The model (`planted`) knows no engine and no composition: a value is put through the pieces by hand, together with the
keys it has come through.  Links keep their order, so the values that have come one way must have come in that order;
how ways mingle is free.

`python -m tests.pipelines SEED ...` shows the pipelines of these seeds, plays and checks them.
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, TypeAlias, cast

import attrs

import hotplumb as hp
from hotplumb import testing
from hotplumb.compose import topology_of
from hotplumb.keys import Key

Way: TypeAlias = tuple[Key, ...]  # the keys that a value has come through, its source first
Arrived: TypeAlias = list[tuple[Way, int]]
Piece: TypeAlias = "Leaf | Chain | Fan | Choice | Named | Unit"

MOST_NODES = 10
ITEMS = "items"  # the key of the source that `hp.run(pipeline, items)` makes


class Wrong(AssertionError):
    """The pipeline and the model do not agree."""


# --- what is written


@attrs.frozen(eq=False)
class Leaf:
    """One node."""

    kind: str
    number: int  # of no other
    name: Key  # None: it is numbered by its kind
    naming: str  # "named", "function" or "none"
    salt: int
    style: str  # "plain", "async" or "several": two or three calls at once
    capacity: int
    values: tuple[int, ...] = ()  # of a source

    def outputs(self, value: int) -> list[int]:
        """What it gives for one value."""
        match self.kind:
            case "map" | "process":
                return [(3 * value + self.salt) % 1009]
            case "filter":
                return [value] if (value + self.salt) % 4 else []
            case "flat_map":
                return [value + 1000 * i for i in range((value + self.salt) % 3)]
        return [value]


@attrs.frozen(eq=False)
class Chain:
    """One below the other."""

    pieces: tuple[Piece, ...]


@attrs.frozen(eq=False)
class Fan:
    """Side by side."""

    branches: tuple[Piece, ...]


@attrs.frozen(eq=False)
class Choice:
    """One of its branches for each value."""

    chooser: Leaf
    branches: tuple[Piece, ...]
    style: str  # "list", "function", "mapping behind", "mapping in a list" or "mapping in a function"
    names: tuple[Key, ...]  # of the branches in a mapping

    def index(self, value: int) -> int:
        return (value + self.chooser.salt) % len(self.branches)


@attrs.frozen(eq=False)
class Named:
    """A piece under a name of its own."""

    name: Key
    piece: Piece


@attrs.frozen(eq=False)
class Unit:
    """A piece that is composed before it is joined to anything."""

    piece: Piece


@attrs.frozen(eq=False)
class Written:
    """A whole pipeline."""

    piece: Piece
    items: tuple[int, ...] | None = None  # for its open start; None: it has sources of its own


def called(piece: Piece) -> Key:
    """The name a chooser may call a branch by; None if there is none."""
    match piece:
        case Leaf(name=name) | Named(name=name):
            return name
        case Chain(pieces=(first, *_)):
            return first.name if isinstance(first, Leaf) else None
        case Choice(chooser=chooser):
            return chooser.name
    return None


# --- drawn from a seed


class _Drawing:
    """One random pipeline being drawn."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.count = 0

    def pipeline(self) -> Written:
        """A whole one: it begins with sources, or is open there, and ends in sinks."""
        body, end = self.body(3), self.end()
        match self.random.randrange(4):
            case 0:
                return Written(Chain((body, end)), self.values())
            case 1:
                return Written(Chain((self.leaf("source"), body, end)))
        branches = [self.branch_of_source() for _ in range(self.random.randint(2, 3))]
        return Written(Chain((Fan(tuple(branches)), *self.some(self.leaf("merge")), body, end)))

    def values(self) -> tuple[int, ...]:
        return tuple(self.random.randrange(1000) for _ in range(self.random.randint(0, 8)))

    def branch_of_source(self) -> Piece:
        source = self.leaf("source")
        chain = Chain((source, self.step()))
        match self.random.randrange(3):
            case 0:
                return source
            case 1:
                return chain
        return Unit(chain)

    def end(self) -> Piece:
        sinks = [self.leaf(self.random.choice(["sink", "collect"])) for _ in range(self.random.choice([1, 1, 2]))]
        return sinks[0] if len(sinks) == 1 else Fan(tuple(sinks))

    def some(self, *pieces: Piece) -> list[Piece]:
        return [piece for piece in pieces if self.random.random() < 0.5]

    def body(self, depth: int) -> Piece:
        """A piece that is open at both ends."""
        if depth == 0 or self.count > MOST_NODES:
            return self.step()
        draw = self.random.randrange(10)
        if draw < 3:
            return Chain(tuple(self.body(depth - 1) for _ in range(self.random.randint(2, 3))))
        if draw < 5:
            return Fan(tuple(self.branches(depth)))
        if draw < 7:
            return self.choice(depth)
        if draw < 8:
            return self.twice(depth)
        return self.unit(depth) if draw < 9 else self.step()

    def branches(self, depth: int) -> list[Piece]:
        """At least one of them is open at its end."""
        pieces = [self.body(depth - 1) for _ in range(self.random.randint(1, 3))]
        closed = [Chain((*self.some(self.step()), self.leaf("sink"))) for _ in range(self.random.choice([0, 0, 1]))]
        pieces += closed
        self.random.shuffle(pieces)
        return pieces

    def choice(self, depth: int) -> Choice:
        branches = tuple(self.branches(depth))
        styles = ["list", "list", "function", "mapping behind", "mapping in a list", "mapping in a function"]
        style = self.random.choice(styles)
        chooser = self.leaf("route", may_be_named=style == "mapping behind")
        names = [("to", i) if self.random.random() < 0.5 else f"to{i}" for i in range(len(branches))]
        return Choice(chooser, branches, style, tuple(names))

    def twice(self, depth: int) -> Piece:
        """One piece under two names, below one another, side by side, or of which one is chosen."""
        piece = self.body(depth - 1)
        both = tuple(Named(self.name(), piece) for _ in range(2))
        match self.random.randrange(3):
            case 0:
                return Chain(both)
            case 1:
                return Fan(both)
        return Choice(self.leaf("route", may_be_named=False), both, "list", ("x", "y"))

    def unit(self, depth: int) -> Piece:
        """A piece of its own, perhaps with a source beside its start."""
        if self.random.random() < 0.5:
            return Unit(self.body(depth - 1))
        beside = [self.leaf("merge"), self.leaf("source")]
        self.random.shuffle(beside)
        return Unit(Chain((Fan(tuple(beside)), self.step())))

    def step(self) -> Leaf:
        return self.leaf(self.random.choice(["map", "map", "filter", "flat_map", "process", "merge"]))

    def name(self) -> Key:
        self.count += 1
        return self.random.choice([f"n{self.count}", ("n", self.count), 100 + self.count])

    def leaf(self, kind: str, may_be_named: bool = True) -> Leaf:
        naming = self.random.choice([*["named"] * may_be_named, "function", "none"])
        if (kind == "process" and naming == "none") or (kind in ("merge", "collect") and naming == "function"):
            naming = "named"
        name = {"named": self.name(), "function": f"fn{self.count}", "none": None}[naming]
        values = self.values() if kind == "source" else ()
        styles = ["plain", "plain", "async", *["several"] * (kind != "sink")]  # whose calls begin in any order
        style = "plain" if kind in ("source", "merge", "collect", "process") else self.random.choice(styles)
        capacity = self.random.choice([1, 2, 1024, 1024])
        self.count += 1
        return Leaf(kind, self.count, name, naming, self.random.randrange(100), style, capacity, values)


def random_pipeline(seed: int) -> Written:
    """Draw a pipeline."""
    return _Drawing(seed).pipeline()


# --- how it is composed


class Composer:
    """Writes a pipeline down in one of the ways that all mean the same."""

    def __init__(self, seed: int, arrived: dict[int, Arrived]) -> None:
        self.random = random.Random(seed)
        self.arrived = arrived  # {number of a sink: what has come}
        self.made: dict[Any, Any] = {}  # {leaf or named piece: the value it is}, since pieces are used twice

    def composed(self, piece: Piece) -> Any:
        """The value that a piece is: a node, an object, a list, a mapping, a pipeline."""
        match piece:
            case Leaf():
                return self._once(piece, self._node)
            case Unit(piece=inner):
                return self._pipeline(inner)
            case Named(name=name, piece=inner):
                return self._once(inner, self._pipeline).named(name)
            case Chain(pieces=pieces):
                return self._chained(list(pieces))
            case Fan(branches=branches):
                made = [self.composed(branch) for branch in branches]
                return made if self._toss() else hp.broadcast(*made)
            case Choice():
                return self._chosen(piece)

    def _toss(self) -> bool:
        return self.random.random() < 0.5

    def _once(self, piece: Piece, make: Callable[[Any], Any]) -> Any:
        if piece not in self.made:
            self.made[piece] = make(piece)
        return self.made[piece]

    def _pipeline(self, piece: Piece) -> Any:
        made = self.composed(piece)
        return made if isinstance(made, hp.Pipeline) else hp.broadcast(made)

    def _chained(self, pieces: list[Piece]) -> Any:
        """Joined from either side, or from between; of two lists, one has to be made a pipeline first."""
        if len(pieces) == 1:
            return self.composed(pieces[0])
        match pieces:
            case [Fan(branches=branches), Leaf(kind="merge", naming="none") as leaf] if self._toss():
                return hp.merge(*[self.composed(branch) for branch in branches], capacity=leaf.capacity)
        cut = self.random.randint(1, len(pieces) - 1)
        above, below = self._chained(pieces[:cut]), self._chained(pieces[cut:])
        if isinstance(above, list) and isinstance(below, list):
            above = hp.broadcast(above)
        return above | below

    def _chosen(self, choice: Choice) -> Any:
        branches = [self.composed(branch) for branch in choice.branches]
        mapping = dict(zip(choice.names, branches, strict=True))
        if choice.style in ("list", "function"):
            names = [called(branch) for branch in choice.branches]
            answers: list[Key] = [i if name is None or self._toss() else name for i, name in enumerate(names)]
        else:
            answers = list(choice.names)
        choose = self._function(choice.chooser, lambda value: answers[choice.index(value)])
        options: dict[str, Any] = {}
        if choice.chooser.style == "several":
            options = {"concurrency": 2, "capacity": choice.chooser.capacity}
        match choice.style:
            case "list":
                return [*branches, choose]
            case "function":
                alone = len(branches) == 1 and isinstance(branches[0], list)  # which would be a list of branches
                return hp.route(choose, *[hp.broadcast(*branches)] if alone else branches, **options)
            case "mapping in a list":
                return [mapping, choose]
            case "mapping in a function":
                return hp.route(choose, mapping, **options)
        return self._titled(choice.chooser, hp.route(choose, **options)) | mapping

    def _node(self, leaf: Leaf) -> Any:
        options: dict[str, Any] = {} if leaf.kind == "source" else {"capacity": leaf.capacity}
        if leaf.style == "several":
            options["concurrency"] = 1 + leaf.salt % 3
        match leaf.kind:
            case "source":
                node = hp.source(_producer(leaf) if leaf.naming == "function" else list(leaf.values))
            case "merge" | "collect":
                node = getattr(hp, leaf.kind)(**options)
            case "process":
                made = _process_class(leaf)(leaf)
                if self._toss() and leaf.naming == "function":
                    return made
                node = hp.process(made, **options)
            case "sink":
                node = hp.sink(self._function(leaf, partial(self._arrive, leaf)), **options)
            case "map":
                node = hp.map(self._function(leaf, lambda value: leaf.outputs(value)[0]), **options)
            case "filter":
                node = hp.filter(self._function(leaf, lambda value: bool(leaf.outputs(value))), **options)
            case _:
                node = hp.flat_map(self._function(leaf, leaf.outputs), **options)
        return self._titled(leaf, node)

    def _titled(self, leaf: Leaf, node: hp.Node) -> hp.Node:
        return node.named(leaf.name) if leaf.naming == "named" else node

    def _arrive(self, leaf: Leaf, value: int) -> None:
        self.arrived.setdefault(leaf.number, []).append((hp.current_item().trail.keys, value))

    def _function(self, leaf: Leaf, fn: Callable[[int], Any]) -> Callable[[int], Any]:
        """`fn`, plain or async, with the name that the node is to have."""

        def called_plainly(value: int) -> Any:
            return fn(value)

        async def awaited(value: int) -> Any:
            if (value + leaf.salt) % 3 == 0:
                await asyncio.sleep(0)
            return fn(value)

        function: Any = called_plainly if leaf.style == "plain" else awaited
        function.__name__ = leaf.name if leaf.naming == "function" else "<lambda>"
        return cast(Callable[[int], Any], function)


def _producer(leaf: Leaf) -> Callable[[], Iterator[int]]:
    def produce() -> Iterator[int]:
        yield from leaf.values

    produce.__name__ = str(leaf.name)
    return produce


def _process_class(leaf: Leaf) -> Any:
    """A class whose objects are made with arguments, and count, which must not show in any other copy."""

    class Computing(hp.Process):
        def __init__(self, leaf: Leaf) -> None:
            self.leaf = leaf
            self.begun = 0

        def begin(self, context: hp.Context) -> None:
            self.begun += 1
            assert self.begun == 1

        def process(self, value: int) -> Any:
            return self.leaf.outputs(value)

    Computing.__name__ = str(leaf.name)
    return Computing


# --- the model


@attrs.define(eq=False)
class Spot:
    """One node of the model: a leaf may stand in several."""

    leaf: Leaf
    key: Key


@attrs.define
class Log:
    """What the model says will come."""

    arrived: dict[int, Arrived] = attrs.field(factory=dict)  # {number of a sink: what comes}
    collected: dict[Key, Arrived] = attrs.field(factory=dict)  # {key: what comes}


@attrs.frozen(eq=False)
class One:
    """A node."""

    spot: Spot

    def put(self, way: Way, value: int, log: Log) -> Arrived:
        leaf, key = self.spot.leaf, self.spot.key
        if leaf.kind == "sink":
            log.arrived.setdefault(leaf.number, []).append((way, value))
            return []
        if leaf.kind == "collect":
            log.collected.setdefault(key, []).append((way, value))
            return []
        if leaf.kind == "source":
            return []
        return [((*way, key), output) for output in leaf.outputs(value)]

    def begin(self, log: Log) -> Arrived:
        """What begins here."""
        return [((self.spot.key,), value) for value in self.spot.leaf.values]


@attrs.frozen(eq=False)
class Row:
    """One below the other."""

    parts: Sequence[Any]

    def put(self, way: Way, value: int, log: Log) -> Arrived:
        return self._through(self.parts, [(way, value)], log)

    def begin(self, log: Log) -> Arrived:
        found: Arrived = []
        for part in self.parts:
            found = self._through([part], found, log) + part.begin(log)
        return found

    def _through(self, parts: Iterable[Any], found: Arrived, log: Log) -> Arrived:
        for part in parts:
            found = [output for way, value in found for output in part.put(way, value, log)]
        return found


@attrs.frozen(eq=False)
class Beside:
    """Side by side; or, with a chooser, one for each value."""

    parts: Sequence[Any]
    choice: Choice | None = None
    spot: Spot | None = None  # of the chooser

    def put(self, way: Way, value: int, log: Log) -> Arrived:
        if self.choice is None or self.spot is None:
            return [output for part in self.parts for output in part.put(way, value, log)]
        chosen: Arrived = self.parts[self.choice.index(value)].put((*way, self.spot.key), value, log)
        return chosen

    def begin(self, log: Log) -> Arrived:
        return [output for part in self.parts for output in part.begin(log)]


def planted(piece: Piece, spots: list[Spot]) -> Any:
    """The model of a piece; its nodes are added to `spots` in the order written."""
    match piece:
        case Leaf():
            spots.append(Spot(piece, piece.name))
            return One(spots[-1])
        case Chain(pieces=pieces):
            return Row([planted(each, spots) for each in pieces])
        case Fan(branches=branches):
            return Beside([planted(each, spots) for each in branches])
        case Choice(chooser=chooser, branches=branches):
            spot = Spot(chooser, chooser.name)
            spots.append(spot)
            return Beside([planted(each, spots) for each in branches], piece, spot)
        case Named(name=name, piece=inner):
            own: list[Spot] = []
            part = planted(inner, own)
            number(own)
            for each in own:
                each.key = (name, each.key)
            spots += own
            return part
    return planted(piece.piece, spots)


def number(spots: Iterable[Spot]) -> None:
    """Give keys to those that have no name: "map", "map_2", "map_3"."""
    counts: Counter[str] = Counter()
    for spot in spots:
        if spot.key is None:
            kind = spot.leaf.kind
            counts[kind] += 1
            spot.key = kind if counts[kind] == 1 else f"{kind}_{counts[kind]}"


# --- one run


@attrs.define
class Found:
    """What a run gave."""

    pipelines: list[Any]  # the same written in several ways
    arrived: dict[int, Arrived]
    collected: dict[Key, list[int]]


def play(written: Written, seed: int) -> Found:
    """Compose and run it: most on the seeded loop, one in ten as scripts do."""
    arrived: dict[int, Arrived] = {}
    pipelines = [hp.broadcast(Composer(seed + i, arrived).composed(written.piece)) for i in range(2)]
    items = None if written.items is None else list(written.items)
    if seed % 10 == 0:
        return Found(pipelines, arrived, hp.run(pipelines[0], items))

    async def main() -> dict[Key, list[int]]:
        async with asyncio.timeout(1000), hp.Plumbing(topology_of(pipelines[0], items)) as plumbing:
            await plumbing.join()
            return plumbing.collected()

    return Found(pipelines, arrived, testing.run(main, seed=seed))


def check(written: Written, found: Found) -> None:
    """Raise where a run gave something else than the model."""
    spots: list[Spot] = []
    part = planted(written.piece, spots)
    number(spots)
    log = Log()
    for value in written.items or ():
        part.put((ITEMS,), value, log)
    if part.begin(log):
        raise Wrong("the model itself has an open end")
    keys = [spot.key for spot in spots]
    for pipeline in found.pipelines:
        if list(pipeline.nodes()) != keys:
            raise Wrong(f"keys: {list(pipeline.nodes())}, not {keys}")
        if str(pipeline) != str(found.pipelines[0]):
            raise Wrong(f"written in another way, it is wired otherwise:\n{pipeline}")
    places = Counter(spot.leaf.number for spot in spots)
    for sink in {*log.arrived, *found.arrived}:
        ways, should = (by_way(each.get(sink, []), places[sink] == 1) for each in (found.arrived, log.arrived))
        if ways != should:
            raise Wrong(f"sink {sink} took {ways}, not {should}")
    for key, values in found.collected.items():
        should_be = Counter(value for _, value in log.collected.get(key, []))
        if Counter(values) != should_be:
            raise Wrong(f"{key!r} collected {Counter(values)}, not {should_be}")


def by_way(arrived: Arrived, is_ordered: bool) -> dict[Way, list[int]]:
    """The values that have come one way, in their order; sorted where they came to two nodes of one function."""
    found: dict[Way, list[int]] = {}
    for way, value in arrived:
        found.setdefault(way, []).append(value)
    return found if is_ordered else {way: sorted(values) for way, values in found.items()}


def play_and_check(seed: int) -> None:
    """One random pipeline, written, run and held against the model."""
    written = random_pipeline(seed)
    found = None
    try:
        found = play(written, seed)
        check(written, found)
    except BaseException as exc:
        exc.add_note(f"python -m tests.pipelines {seed}")
        if found is not None:
            exc.add_note(str(found.pipelines[0]))
        raise


if __name__ == "__main__":
    for text in sys.argv[1:]:
        print(hp.broadcast(Composer(int(text), {}).composed(random_pipeline(int(text)).piece)))
        play_and_check(int(text))
