"""What one change does to a running graph: a table of edits, each played quietly and amid what streams through.

Graphs are written as words, one a node, upstream first: `m'[capacity=1]<a,r.even` is the node `m`, made by its second
version, reading `a` and the output `even` of `r`.  The first letter of a key says what it is:

    s t  source: two values, a pause, two more        q  source that has ended early       e n  source without a value
    p    process that counts                          c  stateful that counts              f    flat_map, two for one
    k    filter for even numbers                      r  route by parity                   j    merge
    w    async map                                    o  sink                              else map

A value is a text that grows on its way: `s0` becomes `s0m` in `m` and `s0m'` in its second version; what counts adds
its count: `s0p#1`.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import attrs
import pytest
from running import graph, now, run

import hotplumb as hp
from hotplumb import testing

AT_S = 0.5  # when a quiet change is made: after two values of each source, which then waits
BUSY_ITEMS = 40


# --- graphs as words


@attrs.frozen
class Word:
    """One node, as written."""

    key: str
    mark: str = ""
    option: str = ""
    setting: str = ""
    reads: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        return self.key[0]

    @property
    def label(self) -> str:
        return self.key + self.mark


WORD = re.compile(r"([a-z]\d?)('*)(?:\[(\w+)=(\w+)\])?(?:<([\w.,]+))?")


def word_of(text: str) -> Word:
    found = WORD.fullmatch(text)
    assert found is not None, text
    key, mark, option, setting, reads = found.groups(default="")
    return Word(key, mark, option, setting, tuple(reads.split(",")) if reads else ())


def words_of(text: str) -> dict[str, Word]:
    return {word.key: word for word in map(word_of, text.split())}


# --- what the nodes do


def append(label: str, value: str) -> str:
    return value + label


async def append_later(label: str, value: str) -> str:
    await asyncio.sleep(0.001)
    return value + label


def double(label: str, value: str) -> list[str]:
    return [value + label, value + label.upper()]


def count_up(label: str, count: int, value: str) -> tuple[int, list[str]]:
    return count + 1, [f"{value}{label}#{count + 1}"]


def parity(value: str) -> str:
    return "odd" if number_of(value) % 2 else "even"


def is_even(mark: str, value: str) -> bool:
    return parity(value) == "even"


def number_of(value: str) -> int:
    """The place among the values of its source."""
    found = re.match(r"[a-z]\d?'*?(\d+)", value)
    assert found is not None, value
    return int(found[1])


class Counting:
    """A process that counts, and writes down what is called."""

    def __init__(self, label: str) -> None:
        self.label = label
        self.count = 0
        self.calls: list[str] = []

    def begin(self, _: hp.Context) -> None:
        self.calls.append("begin")

    def process(self, value: str) -> str:
        self.count += 1
        return f"{value}{self.label}#{self.count}"

    def snapshot(self) -> int:
        return self.count

    def restore(self, state: int) -> None:
        self.count = state

    def close(self) -> None:
        self.calls.append("close")


def quietly(values: list[Any]) -> Any:
    """Two values, a pause, two more."""
    return testing.script([*values[:2], testing.Pause(1), *values[2:]])


def busily(seed: int, values: list[Any]) -> Any:
    """All at once, or with pauses drawn from the seed; the same for the same values."""
    rng = random.Random(f"{seed} {values}")
    if rng.random() < 0.4:
        return values
    pauses = rng.choice([(0.0,), (0.0, 0.001), (0.001, 0.004)])
    return testing.script([entry for value in values for entry in (value, testing.Pause(rng.choice(pauses)))])


@attrs.define(eq=False)
class World:
    """Makes the nodes of one run, and writes down what becomes of them."""

    give: Callable[[list[str]], Any] = quietly
    items: int = 4
    capacity: int = 1024
    silence_s: float = 2.0
    seen: defaultdict[str, list[tuple[str, hp.Trail]]] = attrs.field(factory=lambda: defaultdict(list))
    made: defaultdict[str, list[Counting]] = attrs.field(factory=lambda: defaultdict(list))

    def see(self, key: str, mark: str, value: str) -> None:
        self.seen[key].append((value + mark, hp.current_item().trail))

    def make(self, key: str, label: str) -> Counting:
        self.made[key].append(Counting(label))
        return self.made[key][-1]

    def arrived(self, key: str) -> list[str]:
        return [value for value, _ in self.seen[key]]

    def node(self, word: Word) -> hp.Node:
        node = self._node(word, [hp.output(*read.split(".")) if "." in read else read for read in word.reads])
        if word.kind not in SOURCES:
            node = attrs.evolve(node, capacity=self.capacity)
        match word.option, word.setting:
            case "capacity", items:
                node = attrs.evolve(node, capacity=int(items))
            case "concurrency", calls:
                node = attrs.evolve(node, concurrency=int(calls))
            case "on_error", "discard":
                node = attrs.evolve(node, on_error=hp.discard())
        return node

    def _node(self, word: Word, reads: list[object]) -> hp.Node:
        label = word.label
        match word.kind:
            case "s" | "t":
                return hp.source(self.give([f"{label}{i}" for i in range(self.items)]))
            case "q":
                return hp.source([f"{label}0", f"{label}1"])
            case "e":
                return hp.source([])
            case "n":
                return hp.source(testing.script([testing.Pause(self.silence_s)]))
            case "p":
                return hp.process(partial(self.make, word.key, label), *reads)
            case "c":
                return hp.stateful(partial(count_up, label), 0, *reads)
            case "f":
                return hp.flat_map(partial(double, label), *reads)
            case "k":
                return hp.filter(partial(is_even, word.mark), *reads)
            case "r":
                return hp.route(parity, *reads)
            case "j":
                return hp.merge(*reads)
            case "w":
                return hp.map(partial(append_later, label), *reads)
            case "o":
                return hp.sink(partial(self.see, word.key, word.mark), *reads)
        return hp.map(partial(append, label), *reads)

    def factory(self, key: str) -> hp.Node | None:
        """A map that reads `s`, for the key `g`."""
        return self.node(GENERATED) if key == GENERATED.key else None

    def topology(self, text: str) -> hp.Topology:
        return hp.Topology(self.factory).update({word.key: self.node(word) for word in words_of(text).values()})

    def edited(self, topology: hp.Topology, row: Row) -> hp.Topology:
        return topology.update({key: None if word is None else self.node(word) for key, word in row.edited.items()})


SOURCES = "stqen"
GENERATED = Word("g", reads=("s",))
GENERATED_ONLY = {GENERATED.key: GENERATED}


# --- the table


@attrs.frozen
class Row:
    """One edit, and what is expected of it."""

    name: str
    before: str
    edits: str
    """A word adds or replaces, `-key` removes."""
    arrives: str
    """`sink value value ...; sink value ...` when the change is made in the pause of the sources."""
    touched: str = ""
    added: str = ""
    removed: str = ""
    replaced: str = ""
    region: str = ""
    heads: str = ""
    kept: str = ""
    """Of the processes, those that are not made anew."""

    @property
    def given(self) -> dict[str, Word]:
        return words_of(self.before)

    @property
    def edited(self) -> dict[str, Word | None]:
        """{key: what is given for it now}."""
        removed = {text[1:]: None for text in self.edits.split() if text[0] == "-"}
        return removed | words_of(" ".join(text for text in self.edits.split() if text[0] != "-"))

    @property
    def given_after(self) -> dict[str, Word]:
        return {key: word for key, word in (self.given | self.edited).items() if word is not None}


TABLE = """
add a sink
    s m<s o<m => o2<m
    touched m o2, added o2, region m, heads m
    o s0m s1m s2m s3m; o2 s2m s3m

add a chain
    s o<s => a<s p<a o2<p
    touched s a p o2, added a p o2, region s, heads s
    o s0 s1 s2 s3; o2 s2ap#1 s3ap#2

add a part of its own
    s o<s => t o2<t
    touched t o2, added t o2
    o s0 s1 s2 s3; o2 t0 t1 t2 t3

remove a sink, and with it what only it wanted
    s m<s o<m x<s p<x o2<p => -o2
    touched s x p o2, removed x p o2, region s x p o2, heads s
    o s0m s1m s2m s3m; o2 s0xp#1 s1xp#2

remove one of two sinks of a node
    s m<s o<m o2<m => -o2
    touched m o2, removed o2, region m o2, heads m
    o s0m s1m s2m s3m; o2 s0m s1m

remove the last sink
    s m<s o<m => -o
    touched s m o, removed s m o, region s m o, heads s
    o s0m s1m

exchange one sink for another
    s p<s o<p => -o o2<p
    touched p o o2, added o2, removed o, region p o, heads p, kept p
    o s0p#1 s1p#2; o2 s2p#3 s3p#4

replace a map
    s m<s o<m => m'<s
    touched m, replaced m, region m, heads m
    o s0m s1m s2m' s3m'

replace an async map
    s w<s o<w => w'<s
    touched w, replaced w, region w, heads w
    o s0w s1w s2w' s3w'

replace a source
    s m<s o<m => s'
    touched s, replaced s, region s, heads s
    o s0m s1m s'0m s'1m s'2m s'3m

replace a sink
    s m<s o<m => o'<m
    touched o, replaced o, region o, heads o
    o s0m s1m s2m' s3m'

replace a process
    s p<s o<p => p'<s
    touched p, replaced p, region p, heads p
    o s0p#1 s1p#2 s2p'#3 s3p'#4

replace a stateful
    s c<s o<c => c'<s
    touched c, replaced c, region c, heads c
    o s0c#1 s1c#2 s2c'#3 s3c'#4

replace a flat_map
    s f<s o<f => f'<s
    touched f, replaced f, region f, heads f
    o s0f s0F s1f s1F s2f' s2F' s3f' s3F'

replace a filter
    s k<s o<k => k'<s
    touched k, replaced k, region k, heads k
    o s0 s2

replace a source and its reader
    s m<s o<m => s' m'<s
    touched s m, replaced s m, region s m, heads s
    o s0m s1m s'0m' s'1m' s'2m' s'3m'

read fewer sources
    s t a<s b<t m<a,b o<m => m<a
    touched t b m, removed t b, replaced m, region t b m, heads t
    o s0am s1am s2am s3am t0bm t1bm

read fewer nodes of one family
    s a<s b<s m<a,b o<m => m<a
    touched s b m, removed b, replaced m, region s a b m, heads s
    o s0am s0bm s1am s1bm s2am s3am

read more sources
    s t a<s b<t m<a o<m o2<b => m<a,b
    touched b m, replaced m, region b m, heads b m
    o s0am s1am s2am s3am t2bm t3bm; o2 t0b t1b t2b t3b

read more nodes of one family
    s a<s b<s m<a o<m o2<b => m<a,b
    touched b m, replaced m, region s a b m, heads s
    o s0am s1am s2am s2bm s3am s3bm; o2 s0b s1b s2b s3b

read another source
    s t a<s b<t m<a o<m o2<b => m<b
    touched s a b m, removed s a, replaced m, region s a b m, heads s b
    o s0am s1am t2bm t3bm; o2 t0b t1b t2b t3b

a process that reads another source is kept
    s t p<s o<p o2<t => p<t
    touched s t p, removed s, replaced p, region s t p, heads s t, kept p
    o s0p#1 s1p#2 t2p#3 t3p#4; o2 t0 t1 t2 t3

read from each other's sources
    s t a<s b<t o<a o2<b => a<t b<s
    touched s t a b, replaced a b, region s t a b, heads s t
    o s0a s1a t2a t3a; o2 t0b t1b s2b s3b

read each other the other way round
    s a<s b<a o<b => b<s a<b o<a
    touched s a b o, replaced a b o, region s a b o, heads s
    o s0ab s1ab s2ba s3ba

insert a node
    s p<s o<p => x<s p<x
    touched s x p, added x, replaced p, region s p, heads s, kept p
    o s0p#1 s1p#2 s2xp#3 s3xp#4

take a node out
    s x<s p<x o<p => p<s
    touched s x p, removed x, replaced p, region s x p, heads s, kept p
    o s0xp#1 s1xp#2 s2p#3 s3p#4

a generated node takes a given one's place
    s g'<s o<g => -g
    touched g, replaced g, region g, heads g
    o s0g' s1g' s2g s3g

a given node takes a generated one's place
    s o<g => g'<s
    touched g, replaced g, region g, heads g
    o s0g s1g s2g' s3g'

give what had been generated alike
    s o<g => g<s
    nothing
    o s0g s1g s2g s3g

add a sink of what is generated for it
    s o<s => o2<g
    touched s g o2, added g o2, region s, heads s
    o s0 s1 s2 s3; o2 s2g s3g

a generated node goes with its reader
    s o<s o2<g => -o2
    touched s g o2, removed g o2, region s g o2, heads s
    o s0 s1 s2 s3; o2 s0g s1g

give an equal node
    s m<s o<m => m<s
    nothing
    o s0m s1m s2m s3m

read the same keys in another order
    s a<s b<s m<a,b o<m => m<b,a
    nothing
    o s0am s0bm s1am s1bm s2am s2bm s3am s3bm

give a node that nobody wants
    s m<s o<m => x<s
    nothing
    o s0m s1m s2m s3m

two of a chain
    s a<s p<a b<p o<b => a'<s b'<p
    touched a b, replaced a b, region a p b, heads a, kept p
    o s0ap#1b s1ap#2b s2a'p#3b' s3a'p#4b'

two parts
    s a<s o<a t b<t o2<b => a'<s b'<t
    touched a b, replaced a b, region a b, heads a b
    o s0a s1a s2a' s3a'; o2 t0b t1b t2b' t3b'

two of a fan-out
    s a<s b<s o<a o2<b => a'<s b'<s
    touched a b, replaced a b, region s a b, heads s
    o s0a s1a s2a' s3a'; o2 s0b s1b s2b' s3b'

two of a deep fan-out
    s x<s a<x y<s b<y o<a o2<b => a'<x b'<y
    touched a b, replaced a b, region s x y a b, heads s
    o s0xa s1xa s2xa' s3xa'; o2 s0yb s1yb s2yb' s3yb'

one of a fan-out
    s a<s b<s o<a o2<b => a'<s
    touched a, replaced a, region a, heads a
    o s0a s1a s2a' s3a'; o2 s0b s1b s2b s3b

the join of a diamond
    s a<s b<s m<a,b o<m => m'<a,b
    touched m, replaced m, region s a b m, heads s
    o s0am s0bm s1am s1bm s2am' s2bm' s3am' s3bm'

one side of a diamond
    s a<s b<s m<a,b o<m => a'<s
    touched a, replaced a, region a, heads a
    o s0am s0bm s1am s1bm s2a'm s2bm s3a'm s3bm

both sides of a diamond
    s a<s b<s m<a,b o<m => a'<s b'<s
    touched a b, replaced a b, region s a b, heads s
    o s0am s0bm s1am s1bm s2a'm s2b'm s3a'm s3b'm

one side and the join of a diamond
    s a<s b<s m<a,b o<m => a'<s m'<a,b
    touched a m, replaced a m, region s a b m, heads s
    o s0am s0bm s1am s1bm s2a'm' s2bm' s3a'm' s3bm'

below a flat_map
    s f<s m<f o<m => m'<f
    touched m, replaced m, region f m, heads f
    o s0fm s0Fm s1fm s1Fm s2fm' s2Fm' s3fm' s3Fm'

far below a flat_map
    s f<s x<f m<x o<m => m'<x
    touched m, replaced m, region f x m, heads f
    o s0fxm s0Fxm s1fxm s1Fxm s2fxm' s2Fxm' s3fxm' s3Fxm'

below a stateful
    s c<s m<c o<m => m'<c
    touched m, replaced m, region c m, heads c
    o s0c#1m s1c#2m s2c#3m' s3c#4m'

below a process
    s p<s m<p o<m => m'<p
    touched m, replaced m, region p m, heads p, kept p
    o s0p#1m s1p#2m s2p#3m' s3p#4m'

below a filter
    s k<s m<k o<m => m'<k
    touched m, replaced m, region m, heads m
    o s0m s2m'

below a merge
    s t j<s,t m<j o<m => m'<j
    touched m, replaced m, region m, heads m
    o s0m s1m s2m' s3m' t0m t1m t2m' t3m'

a merge reads less
    s t j<s,t o<j => j<s
    touched t j, removed t, replaced j, region t j, heads t
    o s0 s1 s2 s3 t0 t1

below an output of a route
    s r<s m<r.even o<m => m'<r.even
    touched m, replaced m, region m, heads m
    o s0m s2m'

below two outputs of a route
    s r<s m<r.even,r.odd o<m => m'<r.even,r.odd
    touched m, replaced m, region r m, heads r
    o s0m s1m s2m' s3m'

read another output
    s r<s m<r.even o<m => m<r.odd
    touched r m, replaced m, region r m, heads r
    o s0m s3m

read one more output
    s r<s m<r.even o<m => m<r.even,r.odd
    touched r m, replaced m, region r m, heads r
    o s0m s2m s3m

read one output less
    s r<s m<r.even,r.odd o<m => m<r.even
    touched r m, replaced m, region r m, heads r
    o s0m s1m s2m

read all in place of an output
    s r<s m<r.even o<m => m<r
    touched r m, replaced m, region r m, heads r
    o s0m s2m s3m

below an empty source
    e p<e o<p => p'<e
    touched p, replaced p, region p, heads p
    o

an ended source is kept, and ends what newly reads it
    q m<q o<m => o2<q
    touched q o2, added o2, region q, heads q
    o q0m q1m; o2

an ended source that is replaced starts at its beginning
    q m<q o<m => q'
    touched q, replaced q, region q, heads q
    o q0m q1m q'0m q'1m

a process begins anew after the end
    q p<q o<p => q'
    touched q, replaced q, region q, heads q
    o q0p#1 q1p#2 q'0p#1 q'1p#2

an ended node is replaced
    q p<q o<p => p'<q
    touched p, replaced p, region p, heads p
    o q0p#1 q1p#2

an ended node and its source are replaced
    q p<q o<p => q' p'<q
    touched q p, replaced q p, region q p, heads q
    o q0p#1 q1p#2 q'0p'#1 q'1p'#2

an ended node reads a live source, and begins anew
    q p<q o<p s o2<s => p<s
    touched q p s, removed q, replaced p, region q p s, heads q s
    o q0p#1 q1p#2 s2p#1 s3p#2; o2 s0 s1 s2 s3

an ended stateful reads a live source, and begins anew
    q c<q o<c s o2<s => c<s
    touched q c s, removed q, replaced c, region q c s, heads q s
    o q0c#1 q1c#2 s2c#1 s3c#2; o2 s0 s1 s2 s3

an ended node ends what newly reads it
    q p<q o<p s o2<s => o3<p
    touched p o3, added o3, region p, heads p, kept p
    o q0p#1 q1p#2; o2 s0 s1 s2 s3; o3

a node reads an ended source too
    s q m<s o<m o2<q => m<s,q
    touched q m, replaced m, region q m, heads q m
    o s0m s1m s2m s3m; o2 q0 q1

a node no longer reads the source that goes on
    s q p<s,q o<p o2<s => p<q
    touched s p, replaced p, region s p, heads s, kept p
    o q0p#1 q1p#2 s0p#3 s1p#4; o2 s0 s1 s2 s3

a node that was never fed
    n p<n o<p => p'<n
    touched p, replaced p, region p, heads p
    o

a process that was never fed reads another source
    n p<n o<p s o2<s => p<s
    touched n p s, removed n, replaced p, region n p s, heads n s, kept p
    o s2p#1 s3p#2; o2 s0 s1 s2 s3

another capacity
    s p<s o<p => p[capacity=7]<s
    touched p, replaced p, region p, heads p, kept p
    o s0p#1 s1p#2 s2p#3 s3p#4

another policy of a source, which goes on where it is
    s o<s => s[on_error=discard]
    touched s, replaced s, region s, heads s
    o s0 s1 s2 s3

another policy
    s p<s o<p => p[on_error=discard]<s
    touched p, replaced p, region p, heads p, kept p
    o s0p#1 s1p#2 s2p#3 s3p#4

another capacity of a stateful
    s c<s o<c => c[capacity=7]<s
    touched c, replaced c, region c, heads c
    o s0c#1 s1c#2 s2c#3 s3c#4

more calls at once
    s w<s o<w => w[concurrency=3]<s
    touched w, replaced w, region w, heads w
    o s0w s1w s2w s3w

fewer calls at once
    s w[concurrency=3]<s o<w => w<s
    touched w, replaced w, region w, heads w
    o s0w s1w s2w s3w
"""


def row_of(text: str) -> Row:
    name, edit, facts, arrives = (line.strip() for line in text.strip().splitlines())
    before, edits = edit.split(" => ")
    found = dict(fact.split(" ", 1) for fact in facts.split(", ") if facts != "nothing")
    return Row(name, before, edits, arrives, **found)


ROWS = [row_of(text) for text in TABLE.split("\n\n")]
every_row = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)


def keys(text: str) -> frozenset[str]:
    return frozenset(text.split())


def arrivals(row: Row) -> dict[str, list[str]]:
    parts = [part.split() for part in row.arrives.split(";")]
    return {key: sorted(values) for key, *values in parts}


def check_change(row: Row, change: hp.Change, plumbing: hp.Plumbing, epoch: int = 1) -> None:
    assert change.touched == keys(row.touched)
    assert change.region == keys(row.region)
    assert change.heads == keys(row.heads)
    assert (change.added, change.removed, change.replaced) == (keys(row.added), keys(row.removed), keys(row.replaced))
    assert (change.seconds, change.crossed) == (0.0, 0)
    check_reign(row, change, plumbing, epoch if row.touched else 0)


def check_reign(row: Row, change: hp.Change, plumbing: hp.Plumbing, epoch: int) -> None:
    """The new topology reigns, and every node bears the epoch of the change that last touched it."""
    reigns = plumbing.topology
    assert (plumbing.epoch, change.epoch) == (epoch, epoch)
    assert change.topology is reigns
    expected = {key: epoch if key in keys(row.touched) else 0 for key in reigns.active}
    assert {key: reigns.epoch_of(key) for key in reigns.active} == expected
    assert {key: node.epoch for key, node in plumbing.statistics().nodes.items()} == expected


def check_processes(row: Row, world: World, active: Any) -> None:
    """What is to be kept is one object throughout; each is begun and closed once."""
    before = {key for key in row.given if key[0] == "p"}
    assert {key for key in before & set(active) if len(world.made[key]) == 1} == keys(row.kept)
    for made in world.made.values():
        assert [process.calls for process in made] == [["begin", "close"]] * len(made)


def check_order(world: World) -> None:
    """On each way from a source to a sink, link by link, numbers only rise."""
    for seen in world.seen.values():
        ways = defaultdict(list)
        for value, trail in seen:
            ways[trail.keys, parity(value) if "r" in trail.keys else ""].append(trail.origin.number)
        assert all(numbers == sorted(numbers) for numbers in ways.values())


@every_row
def test_a_quiet_change(row: Row, seed: int) -> None:
    """Made while the sources wait: it takes no time, and touches, keeps, opens and closes what the table says."""
    world = World()

    async def main() -> None:
        async with hp.Plumbing(world.topology(row.before)) as plumbing:
            await asyncio.sleep(AT_S)
            edited = world.edited(plumbing.topology, row)
            change = await plumbing.apply(edited)
            assert plumbing.topology == edited
            check_change(row, change, plumbing)
            await change.wait_settled()
            assert now() == AT_S
            await plumbing.join()
            active = plumbing.topology.active
        assert {key: sorted(world.arrived(key)) for key in arrivals(row)} == arrivals(row)
        assert set(world.seen) <= set(arrivals(row))
        check_processes(row, world, active)
        check_order(world)

    run(main, seed)


# --- the same amid what streams through


Sight = tuple[str, str, tuple[tuple[Any, int], ...]]
"""(sink, value without counts, hops)."""


def without_counts(value: str) -> str:
    return re.sub(r"#\d+", "", value)


@attrs.frozen
class Reign:
    """What is expected of the families that begin while one topology reigns."""

    words: dict[Any, Word]
    epochs: dict[Any, int]

    def family(self, source: str, number: int) -> Counter[Sight]:
        """What the sinks see of the value at place `number` of a source."""
        if source not in self.words:
            return Counter()
        return Counter(self._below(source, f"{self.words[source].label}{number}", ((source, self.epochs[source]),)))

    def _below(self, key: str, value: str, hops: tuple[tuple[Any, int], ...]) -> Iterator[Sight]:
        for reader, word in self.words.items():
            for read in word.reads:
                if read == key or read == f"{key}.{parity(value)}":
                    yield from self._through(word, value, (*hops, (reader, self.epochs[reader])))

    def _through(self, word: Word, value: str, hops: tuple[tuple[Any, int], ...]) -> Iterator[Sight]:
        match word.kind:
            case "o":
                yield word.key, value + word.mark, hops[:-1]
            case "f":
                yield from self._below(word.key, value + word.label, hops)
                yield from self._below(word.key, value + word.label.upper(), hops)
            case "k" if parity(value) == "odd":
                return
            case "k" | "r" | "j":
                yield from self._below(word.key, value, hops)
            case _:
                yield from self._below(word.key, value + word.label, hops)


def reigns_of(row: Row) -> tuple[Reign, Reign]:
    """What reigns before and after."""
    world = World()
    before = world.topology(row.before)
    after = world.edited(before, row)
    old, new = (
        {key: word for key, word in (GENERATED_ONLY | given).items() if key in topology.active}
        for given, topology in ((row.given, before), (row.given_after, after))
    )
    return Reign(old, dict.fromkeys(old, 0)), Reign(new, {key: int(key in keys(row.touched)) for key in new})


def lengths(row: Row, items: int) -> dict[str, int]:
    """How many values each source has to give from its beginning."""
    sources = [key for key in row.given | row.given_after if key[0] in SOURCES]
    return {key: {"q": 2, "e": 0, "n": 0}.get(key[0], items) for key in sources}


def families_of(world: World, source: str) -> dict[int, Counter[Sight]]:
    """{number: what the sinks have seen of it}."""
    found: defaultdict[int, Counter[Sight]] = defaultdict(Counter)
    for key, seen in world.seen.items():
        for value, trail in seen:
            if trail.origin.source == source:
                hops = tuple((hop.key, hop.epoch) for hop in trail.hops)
                found[trail.origin.number][key, without_counts(value), hops] += 1
    return dict(found)


def expected_families(row: Row, source: str, cut: int, count: int) -> dict[int, Counter[Sight]]:
    """What is seen when the first `cut` values of a source met what was there before, of `count` that it gives."""
    old, new = reigns_of(row)
    families = [old.family(source, number) for number in range(cut)]
    if source in new.words:
        anew = source not in old.words or old.words[source].label != new.words[source].label
        families += [new.family(source, number) for number in range(0 if anew else cut, count)]
    return {number: family for number, family in enumerate(families) if family}


def check_families(row: Row, world: World, counts: dict[str, int]) -> None:
    """Every family met the old graph, or the new one, whole and once; the earlier ones the old."""
    for source, count in counts.items():
        found = families_of(world, source)
        most = count if source in row.given else 0
        cuts = [cut for cut in range(most + 1) if expected_families(row, source, cut, count) == found]
        assert cuts, (source, count, found)


@pytest.mark.parametrize("end", ["join", "drain"])
@every_row
def test_a_busy_change(row: Row, end: str, seeds: Callable[[int], list[int]]) -> None:
    """Made while items stream through: each family meets the old graph or the new one, whole, once and in order."""
    for seed in seeds(3):
        rng = random.Random(seed)
        world = World(partial(busily, seed), BUSY_ITEMS, rng.choice([1, 2, 5, 1024]), silence_s=0.01)
        counts = lengths(row, BUSY_ITEMS)
        run(partial(play_busily, row, end, rng, world, counts), seed)
        check_families(row, world, counts)
        check_order(world)


async def play_busily(row: Row, end: str, rng: random.Random, world: World, counts: dict[str, int]) -> None:
    async with hp.Plumbing(world.topology(row.before)) as plumbing:
        for _ in range(rng.randint(0, 20)):
            await asyncio.sleep(rng.choice([0, 0, 0, 0.001]))
        change = await plumbing.apply(world.edited(plumbing.topology, row))
        await asyncio.sleep(rng.choice([0, 0.005]))
        await getattr(plumbing, end)()
        await change.wait_settled()
        if end == "drain":
            nodes = plumbing.statistics().nodes
            counts.update({key: nodes[key].sent for key in counts if key in nodes and key not in keys(row.replaced)})
            for key in counts.keys() - (nodes.keys() - keys(row.replaced)):
                counts.pop(key)  # how many it has given is not to be seen


# --- back and forth


@every_row
def test_the_inverse_goes_back_and_its_inverse_forth(row: Row, seed: int) -> None:
    """Each is a change of the same nodes with an epoch of its own, and leads to a topology equal to the one before."""
    world = World()

    async def main() -> None:
        async with hp.Plumbing(world.topology(row.before)) as plumbing:
            await asyncio.sleep(AT_S)
            before = plumbing.topology
            there = await plumbing.apply(world.edited(before, row))
            after = plumbing.topology
            back = await plumbing.apply(there.inverse)
            assert plumbing.topology == before
            assert (back.touched, back.added, back.removed) == (there.touched, there.removed, there.added)
            again = await plumbing.apply(back.inverse)
            assert plumbing.topology == after
            assert (again.touched, again.added, again.removed) == (there.touched, there.added, there.removed)
            check_reign(row, again, plumbing, 3 if row.touched else 0)
            await again.wait_settled()
            assert now() == AT_S
            await plumbing.join()
        assert all(process.calls == ["begin", "close"] for made in world.made.values() for process in made)

    run(main, seed)


# --- what stands in each other's place


class Passing:
    """A process around a function."""

    def __init__(self, process: Callable[[Any], Any]) -> None:
        self.process = process


@attrs.frozen
class Version:
    """User code of one version of a node, of every kind: a value becomes `(value, number of the version)`."""

    number: int

    def __call__(self, value: int) -> Any:
        return value, self.number

    async def later(self, value: int) -> Any:
        await asyncio.sleep(0.001)
        return value, self.number

    def listed(self, value: int) -> Any:
        return [(value, self.number)]

    def generated(self, value: int) -> Iterator[Any]:
        yield value, self.number

    async def generated_later(self, value: int) -> Any:
        await asyncio.sleep(0.001)
        yield value, self.number

    def step(self, state: int, value: int) -> Any:
        return state + 1, [(value, self.number)]

    async def step_later(self, state: int, value: int) -> Any:
        await asyncio.sleep(0.001)
        return state + 1, [(value, self.number)]


KINDS: dict[str, Callable[[Version], hp.Node]] = {
    "map": lambda version: hp.map(version, "s"),
    "flat_map": lambda version: hp.flat_map(version.listed, "s"),
    "flat_map of generators": lambda version: hp.flat_map(version.generated, "s"),
    "stateful": lambda version: hp.stateful(version.step, 0, "s"),
    "process": lambda version: hp.process(lambda: Passing(version.generated), "s"),
    "async map": lambda version: hp.map(version.later, "s"),
    "async flat_map": lambda version: hp.flat_map(version.generated_later, "s"),
    "async stateful": lambda version: hp.stateful(version.step_later, 0, "s"),
    "async process": lambda version: hp.process(lambda: Passing(version.generated_later), "s"),
    "concurrent map": lambda version: hp.map(version.later, "s", concurrency=3),
    "concurrent flat_map": lambda version: hp.flat_map(version.generated_later, "s", concurrency=3),
    "map in time": lambda version: hp.map(version.later, "s").within(9),
}


@pytest.mark.parametrize("new", KINDS)
@pytest.mark.parametrize("old", KINDS)
def test_any_kind_takes_the_place_of_any_other(old: str, new: str, seeds: Callable[[int], list[int]]) -> None:
    """While items stream through, with and without room: none is lost or doubled, and the order is kept."""
    for seed in seeds(2):
        run(partial(exchange, KINDS[old], KINDS[new], seed), seed)


async def exchange(old: Callable[[Version], hp.Node], new: Callable[[Version], hp.Node], seed: int) -> None:
    rng = random.Random(seed)
    source = hp.source(busily(seed, list(range(BUSY_ITEMS))))
    capacity = rng.choice([1, 2, 1024])
    nodes = [attrs.evolve(make(Version(i)), capacity=capacity) for i, make in enumerate([old, new])]
    out = hp.collect("n", capacity=rng.choice([1, 1024]))
    async with hp.Plumbing(graph(s=source, n=nodes[0], out=out)) as plumbing:
        await asyncio.sleep(rng.choice([0, 0.003, 0.01, 1]))
        change = await plumbing.replace("n", nodes[1])
        assert change.touched == change.region == change.heads == {"n"}
        await plumbing.join()
        got = plumbing.collected()["out"]
    assert [value for value, _ in got] == list(range(BUSY_ITEMS))
    versions = [version for _, version in got]
    assert versions == sorted(versions)


def numbers(first: int) -> Iterator[int]:
    yield from range(first, first + BUSY_ITEMS)


async def numbers_later(first: int) -> Any:
    for number in numbers(first):
        yield number
        await asyncio.sleep(0.001 * (number % 2))


async def numbers_at_last(first: int) -> list[int]:
    await asyncio.sleep(0.002)
    return list(numbers(first))


SOURCE_KINDS: dict[str, Callable[[int], Any]] = {
    "list": lambda first: list(numbers(first)),
    "generator": lambda first: partial(numbers, first),
    "async generator": lambda first: partial(numbers_later, first),
    "async function": lambda first: partial(numbers_at_last, first),
    "script": lambda first: busily(first, list(numbers(first))),
}


@pytest.mark.parametrize("new", SOURCE_KINDS)
@pytest.mark.parametrize("old", SOURCE_KINDS)
def test_any_source_takes_the_place_of_any_other(old: str, new: str, seeds: Callable[[int], list[int]]) -> None:
    """What the old one has given arrives, then all of the new one from its beginning; the numbers of the key go on."""
    for seed in seeds(3):
        run(partial(exchange_sources, SOURCE_KINDS[old](0), SOURCE_KINDS[new](100), seed), seed)


async def exchange_sources(old: Any, new: Any, seed: int) -> None:
    rng = random.Random(seed)
    got: list[tuple[int, int]] = []

    def see(value: int) -> None:
        got.append((value, hp.current_item().origin.number))

    topology = graph(s=hp.source(old), n=hp.map(abs, "s"), out=hp.sink(see, "n", capacity=rng.choice([1, 1024])))
    async with hp.Plumbing(topology) as plumbing:
        await asyncio.sleep(rng.choice([0, 0.001, 0.005, 1]))
        await plumbing.replace("s", hp.source(new))
        await plumbing.join()
    given = len(got) - BUSY_ITEMS
    assert [value for value, _ in got] == [*range(given), *range(100, 100 + BUSY_ITEMS)]
    assert [number for _, number in got] == list(range(len(got)))


def test_the_numbers_of_a_source_go_on_when_it_returns(seed: int) -> None:
    """No number is given twice, though it was away and starts at its beginning."""

    async def main() -> None:
        got: list[hp.Origin] = []

        def see(_: int) -> None:
            got.append(hp.current_item().origin)

        topology = graph(s=hp.source([7, 8]), out=hp.sink(see, "s"), t=hp.source([9]), other=hp.sink(see, "t"))
        async with hp.Plumbing(topology) as plumbing:
            await plumbing.join()
            there = await plumbing.remove("out")
            assert there.removed == keys("s out")
            await plumbing.apply(there.inverse)
            await plumbing.join()
        assert sorted(got) == [("s", 0, 0), ("s", 1, 0), ("s", 2, 0), ("s", 3, 0), ("t", 0, 0)]

    run(main, seed)


def test_what_has_ended_begins_again_all_the_way_down_before_anything_is_taken_for_over() -> None:
    """A source that is replaced after the end of everything: `join` waits for what the new one gives."""

    async def main() -> list[int]:
        topology = graph(s=hp.source([0, 1]), **{f"n{i}": hp.map(abs, f"n{i - 1}" if i else "s") for i in range(8)})
        async with hp.Plumbing(topology.add("out", hp.collect("n7"))) as plumbing:
            await plumbing.join()
            await plumbing.replace("s", hp.source([2, 3]))
            await plumbing.join()
            return plumbing.collected()["out"]

    assert [seed for seed in range(400) if testing.run(main, seed=seed) != [0, 1, 2, 3]] == []


def test_a_change_of_what_has_ended_is_through_when_apply_returns() -> None:
    """Even where the new source has given all it has, and ended, before its reader has switched."""

    async def main() -> tuple[int, bool]:
        topology = graph(s=hp.source([0, 1]), n=hp.map(Version(0), "s"), out=hp.collect("n"))
        async with hp.Plumbing(topology) as plumbing:
            await plumbing.join()
            edited = plumbing.topology.update({"s": hp.source([2, 3]), "n": hp.map(Version(1), "s")})
            await plumbing.apply(edited)
            return plumbing.epoch, plumbing.topology == edited

    assert [seed for seed in range(400) if testing.run(main, seed=seed) != (1, True)] == []


# --- who a head is, and what it is doing


async def late(seconds: float, value: int) -> int:
    await asyncio.sleep(seconds)
    return value


def test_parts_that_do_not_meet_switch_independently(seed: int) -> None:
    """One waits for a slow call; the other goes on in its new version meanwhile."""

    async def main() -> None:
        topology = graph(
            s=hp.source([0]),
            a=hp.map(partial(late, 10), "s"),
            out=hp.collect("a"),
            t=hp.source([0]),
            b=hp.map(partial(late, 2), "t"),
            out2=hp.collect("b"),
        )
        async with hp.Plumbing(topology) as plumbing:
            await asyncio.sleep(1)
            edited = plumbing.topology.update({"a": hp.map(Version(1), "s"), "b": hp.map(Version(1), "t")})
            change = asyncio.create_task(plumbing.apply(edited))
            await asyncio.sleep(2)
            nodes = plumbing.statistics().nodes
            assert (nodes["a"].epoch, nodes["b"].epoch, plumbing.epoch, change.done()) == (0, 1, 0, False)
            assert (await change).heads == {"a", "b"}
            assert (now(), plumbing.epoch, plumbing.statistics().nodes["a"].epoch) == (10, 1, 1)

    run(main, seed)


# A generator whose last output has left has not ended yet, and calls that have come back wait to be sent: half made.
HALF_MADE = ("flat_map of generators", "process", "concurrent map", "concurrent flat_map")
FULL = {name: make for name, make in KINDS.items() if name not in HALF_MADE}


@pytest.mark.parametrize("kind", FULL)
def test_a_head_that_waits_for_room_switches_at_once(kind: str, seed: int) -> None:
    """Its reader takes one value in ten seconds; nothing is lost, and what has left stays as it is."""

    async def main() -> None:
        got: list[tuple[int, int]] = []

        async def take(value: tuple[int, int]) -> None:
            await asyncio.sleep(10)
            got.append(value)

        topology = graph(s=hp.source(range(6)), n=FULL[kind](Version(0)), out=hp.sink(take, "n", capacity=1))
        async with hp.Plumbing(topology) as plumbing:
            await asyncio.sleep(15)
            assert plumbing.statistics().nodes["n"].state == "full"
            await plumbing.replace("n", FULL[kind](Version(1)))
            assert now() == 15
            assert len(got) == 1
            await plumbing.join()
        assert [value for value, _ in got] == list(range(6))
        assert [version for _, version in got] == [0, 0, 0, 1, 1, 1]

    run(main, seed)


@pytest.mark.parametrize("kind", SOURCE_KINDS)
def test_a_source_that_waits_for_room_switches_at_once(kind: str, seed: int) -> None:
    """What it has sent arrives; then comes the new one."""

    async def main() -> None:
        got: list[int] = []

        async def take(value: int) -> None:
            await asyncio.sleep(10)
            got.append(value)

        topology = graph(s=hp.source(SOURCE_KINDS[kind](0)), out=hp.sink(take, "s", capacity=1))
        async with hp.Plumbing(topology) as plumbing:
            await asyncio.sleep(15)
            assert plumbing.statistics().nodes["s"].state == "full"
            began = now()
            await plumbing.replace("s", hp.source([100, 101]))
            assert now() == began
            await plumbing.join()
        assert got == [0, 1, 2, 100, 101]

    run(main, seed)


def ten(value: int) -> Iterator[tuple[int, int]]:
    for i in range(10):
        yield value, i


@pytest.mark.parametrize("kind", ["flat_map", "process"])
def test_a_head_in_the_middle_of_an_item_sends_all_of_it_first(kind: str, seed: int) -> None:
    """Of the ten outputs of one value one fits into the link: all ten are of the old version, the rest of the new."""

    async def main() -> None:
        got: list[tuple[Any, int]] = []

        async def take(value: Any) -> None:
            await asyncio.sleep(1)
            got.append((value, hp.current_item().trail.hops[1].epoch))

        node = hp.flat_map(ten, "s") if kind == "flat_map" else hp.process(lambda: Passing(ten), "s")
        async with hp.Plumbing(graph(s=hp.source([0, 1]), n=node, out=hp.sink(take, "n", capacity=1))) as plumbing:
            await asyncio.sleep(3.5)
            await plumbing.replace("n", attrs.evolve(node, fn=KINDS[kind](Version(1)).fn))
            assert 7 <= now() <= 9  # two values are ahead of what its reader has in hand
            await plumbing.join()
        assert got == [*(((0, i), 0) for i in range(10)), ((1, 1), 1)]

    run(main, seed)


def test_a_head_in_the_middle_of_a_call_switches_when_it_has_returned(seed: int) -> None:
    """That value is the last of the old version; nothing is taken up meanwhile."""

    async def main() -> None:
        topology = graph(s=hp.source(range(4)), n=hp.map(partial(late, 10), "s"), out=hp.collect("n"))
        async with hp.Plumbing(topology) as plumbing:
            await asyncio.sleep(11)
            await plumbing.replace("n", hp.map(Version(1), "s"))
            assert now() == 20
            await plumbing.join()
            assert plumbing.collected()["out"] == [0, 1, (2, 1), (3, 1)]

    run(main, seed)


def test_a_head_with_calls_under_way_switches_when_they_have_returned(seed: int) -> None:
    """The first of eight takes longest: all leave in order, by the old version, and no ninth has begun."""

    async def main() -> None:
        begun: list[int] = []

        async def work(value: int) -> int:
            begun.append(value)
            await asyncio.sleep(20 - value)
            return value

        topology = graph(s=hp.source(range(12)), n=hp.map(work, "s", concurrency=8), out=hp.collect("n"))
        async with hp.Plumbing(topology) as plumbing:
            await asyncio.sleep(5)
            assert sorted(begun) == list(range(8))
            await plumbing.replace("n", hp.map(Version(1), "s"))
            assert now() == 20
            assert sorted(begun) == list(range(8))
            await plumbing.join()
            assert plumbing.collected()["out"] == [*range(8), *((value, 1) for value in range(8, 12))]

    run(main, seed)


@pytest.mark.parametrize("then", ["replace", "remove", "keep"])
def test_a_source_that_waits_for_its_next_value_is_not_waited_for(then: str, seed: int) -> None:
    """Replaced or removed it is closed at once; kept it goes on waiting, undisturbed."""

    async def main() -> None:
        notes: list[str] = []

        async def give() -> Any:
            try:
                yield 0
                await asyncio.sleep(3600)
                yield 1
            except asyncio.CancelledError:
                notes.append("cancelled")
                raise
            finally:
                notes.append("closed")

        topology = graph(s=hp.source(give), t=hp.source([5]), out=hp.collect("s", "t"))
        async with hp.Plumbing(topology) as plumbing:
            await asyncio.sleep(1)
            match then:
                case "replace":
                    await plumbing.replace("s", hp.source([7]))
                case "remove":
                    await plumbing.replace("out", hp.collect("t"))
                case "keep":
                    await plumbing.add("out2", hp.collect("s"))
            assert now() == 1
            assert notes == ([] if then == "keep" else ["cancelled", "closed"])
            await plumbing.join()
            assert sorted(plumbing.collected()["out"]) == sorted([0, 5, *{"replace": [7], "keep": [1]}.get(then, [])])
            assert plumbing.collected().get("out2", [1]) == [1]
        assert notes == (["closed"] if then == "keep" else ["cancelled", "closed"])

    run(main, seed)


@pytest.mark.parametrize("count", range(6))
def test_a_source_that_is_about_to_wait_is_not_waited_for(count: int, seeds: Callable[[int], list[int]]) -> None:
    """However soon after its start the change comes."""

    async def main() -> None:
        source = hp.source(testing.script([1, testing.Pause(3600), 2]))
        async with hp.Plumbing(graph(s=source, out=hp.sink(id, "s"))) as plumbing:
            for _ in range(count):
                await asyncio.sleep(0)
            await plumbing.add("out2", hp.sink(abs, "s"))
            assert now() == 0

    for seed in seeds(60):
        testing.run(main, seed=seed)


@pytest.mark.parametrize("is_replaced", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_a_paused_head_switches_at_once_and_stays_paused(kind: str, is_replaced: bool, seed: int) -> None:
    """What waits to be read goes to the new version when it is resumed."""

    async def main() -> None:
        topology = graph(s=hp.source(range(5)), n=KINDS[kind](Version(0)), out=hp.collect("n"))
        async with hp.Plumbing(topology) as plumbing:
            plumbing.pause("n")
            await asyncio.sleep(1)
            if is_replaced:
                await plumbing.replace("n", KINDS[kind](Version(1)))
            else:
                await plumbing.add("out2", hp.collect("n"))
            assert now() == 1
            await asyncio.sleep(1)
            nodes = plumbing.statistics().nodes
            assert (nodes["n"].state, nodes["n"].queued_items, nodes["n"].epoch) == ("paused", 5, 1)
            plumbing.resume("n")
            await plumbing.join()
            expected = [(value, int(is_replaced)) for value in range(5)]
            assert plumbing.collected()["out"] == expected
            assert plumbing.collected().get("out2", expected) == expected

    run(main, seed)


def test_a_paused_source_that_is_replaced_stays_paused(seed: int) -> None:
    """The new one gives nothing before it is resumed."""

    async def main() -> None:
        async with hp.Plumbing(graph(s=hp.source(ticking), out=hp.collect("s"))) as plumbing:
            await asyncio.sleep(2.5)
            plumbing.pause("s")
            await asyncio.sleep(1)
            before = list(plumbing.collected()["out"])
            await plumbing.replace("s", hp.source([100, 101]))
            assert now() == 3.5
            await asyncio.sleep(10)
            assert plumbing.statistics().nodes["s"].state == "paused"
            assert plumbing.collected()["out"] == before
            plumbing.resume("s")
            await plumbing.join()
            assert plumbing.collected()["out"] == [*before, 100, 101]

    run(main, seed)


async def ticking() -> Any:
    number = 0
    while True:
        yield number
        number += 1
        await asyncio.sleep(1)


# --- a head that holds


BAD = 2


class Broken(Exception):
    """What user code raises here."""


@attrs.define
class Failing:
    """User code of a version that fails on one value, until it is mended."""

    is_mended: bool = False

    def __call__(self, value: int) -> Any:
        if value == BAD and not self.is_mended:
            raise Broken(value)
        return value, 0

    async def later(self, value: int) -> Any:
        await asyncio.sleep(0.001)
        return self(value)

    def listed(self, value: int) -> Any:
        return [self(value)]

    def generated(self, value: int) -> Iterator[Any]:
        yield self(value)

    async def generated_later(self, value: int) -> Any:
        await asyncio.sleep(0.001)
        yield self(value)

    def step(self, state: int, value: int) -> Any:
        return state + 1, [self(value)]

    async def step_later(self, state: int, value: int) -> Any:
        await asyncio.sleep(0.001)
        return state + 1, [self(value)]


every_kind = pytest.mark.parametrize("kind", KINDS)


def holding(kind: str, failing: Failing, policy: hp.Policy | None = None) -> hp.Topology:
    node = attrs.evolve(KINDS[kind](failing), on_error=policy or hp.hold())  # type: ignore[arg-type]
    return graph(s=hp.source(range(6)), n=node, out=hp.collect("n"), dead=hp.collect(hp.ERRORS))


@every_kind
def test_a_replaced_head_that_holds_gives_all_it_has_to_the_new_one(kind: str, seed: int) -> None:
    """The held item first, then what waits behind it; the change takes no time, and nothing is a dead letter."""

    async def main() -> None:
        async with hp.Plumbing(holding(kind, Failing())) as plumbing:
            await asyncio.sleep(1)
            assert plumbing.statistics().nodes["n"].state == "holding"
            await plumbing.replace("n", KINDS[kind](Version(1)))
            assert now() == 1
            await plumbing.join()
            assert plumbing.collected() == {"out": [(v, int(v >= BAD)) for v in range(6)], "dead": []}
            assert plumbing.statistics().nodes["n"].trouble is None

    run(main, seed)


@pytest.mark.parametrize("then", ["retry", "discard"])
@every_kind
def test_a_head_that_holds_and_is_not_replaced_goes_on_holding(kind: str, then: str, seed: int) -> None:
    """It switches at once, and the new reader gets what is sent from then on: what is held among it."""

    async def main() -> None:
        failing = Failing()
        async with hp.Plumbing(holding(kind, failing)) as plumbing:
            await asyncio.sleep(1)
            await plumbing.add("out2", hp.collect("n"))
            assert now() == 1
            await asyncio.sleep(1)
            node = plumbing.statistics().nodes["n"]
            assert node.trouble is not None
            assert (node.state, node.trouble.attempts) == ("holding", 1)
            failing.is_mended = True
            getattr(plumbing, then)("n")
            await plumbing.join()
            rest = [(value, 0) for value in range(6) if value > BAD or (value == BAD and then == "retry")]
            assert plumbing.collected()["out2"] == rest
            assert plumbing.collected()["out"] == [(0, 0), (1, 0), *rest]
            assert len(plumbing.collected()["dead"]) == (then == "discard")

    run(main, seed)


@pytest.mark.parametrize("is_replaced", [True, False])
@every_kind
def test_a_head_that_waits_to_try_again_switches_at_once(kind: str, is_replaced: bool, seed: int) -> None:
    """Replaced, the new one takes the item up at once; else it is tried again when its time has come."""

    async def main() -> None:
        failing = Failing()
        topology = holding(kind, failing, hp.retry(3, delay_s=100))
        async with hp.Plumbing(topology) as plumbing:
            await asyncio.sleep(1)
            assert plumbing.statistics().nodes["n"].state == "retrying"
            if is_replaced:
                await plumbing.replace("n", KINDS[kind](Version(1)))
            else:
                await plumbing.add("out2", hp.collect("n"))
            assert now() == 1
            failing.is_mended = True
            await plumbing.join()
            assert (now() < 2) == is_replaced
            assert plumbing.collected()["out"] == [(v, int(is_replaced and v >= BAD)) for v in range(6)]
            assert plumbing.collected().get("out2", []) == ([] if is_replaced else [(v, 0) for v in range(BAD, 6)])

    run(main, seed)


def test_a_policy_that_is_given_to_a_holding_head_leaves_what_it_holds(seed: int) -> None:
    """Its process is kept, and so is the item in hand: it waits for a decision as before."""

    async def main() -> None:
        failing = Failing()
        async with hp.Plumbing(holding("map", failing)) as plumbing:
            await asyncio.sleep(1)
            await plumbing.replace("n", hp.map(failing, "s", on_error=hp.discard()))
            assert plumbing.statistics().nodes["n"].state == "holding"
            plumbing.retry("n")
            await plumbing.join()
            assert plumbing.collected()["out"] == [(value, 0) for value in range(6) if value != BAD]
            assert [failure.reason for failure in plumbing.collected()["dead"]] == ["discarded"]

    run(main, seed)


# --- what a Change says, and where it comes from


def test_a_change_that_touches_nothing_keeps_the_epoch(seed: int) -> None:
    """It says so, and can be undone like any other."""

    async def main() -> None:
        topology = graph(s=hp.source(range(3)), out=hp.collect("s"))
        async with hp.Plumbing(topology) as plumbing:
            change = await plumbing.add("x", hp.map(abs, "s"))  # nobody wants it
            assert (change.epoch, plumbing.epoch) == (0, 0)
            assert change.touched == change.region == change.heads == change.added == frozenset()
            assert change.topology is plumbing.topology
            assert "x" in plumbing.topology.given
            await change.wait_settled()
            await plumbing.apply(change.inverse)
            assert plumbing.topology == topology
            later = await plumbing.add("out2", hp.collect("s"))
            assert later.epoch == 1

    run(main, seed)


def test_each_kind_of_edit_is_a_change_of_what_reigns(seed: int) -> None:
    """`add`, `replace`, `remove` and `refactor` do what the topology's own edits do."""

    def doubles(key: str) -> hp.Node | None:
        return hp.map(Version(2), "s") if key == "d" else None

    def triples(key: str) -> hp.Node | None:
        return hp.map(Version(3), "s") if key == "d" else None

    async def main() -> None:
        topology = hp.Topology(doubles).add("s", hp.source(range(3))).add("out", hp.collect("d"))
        out2 = hp.collect("d", capacity=5)
        async with hp.Plumbing(topology) as plumbing:
            added = await plumbing.add("out2", out2)
            assert (added.epoch, plumbing.topology) == (1, topology.add("out2", out2))
            replaced = await plumbing.replace("s", hp.source([7]))
            assert (replaced.epoch, replaced.replaced) == (2, keys("s"))
            removed = await plumbing.remove("out2")
            assert (removed.epoch, removed.removed, removed.touched) == (3, keys("out2"), keys("out2 d"))
            refactored = await plumbing.refactor(triples)
            assert (refactored.epoch, refactored.touched, refactored.replaced) == (4, keys("d"), keys("d"))
            assert plumbing.topology == topology.replace("s", hp.source([7])).refactor(triples)

    run(main, seed)


def test_a_refactoring_touches_only_what_really_differs(seed: int) -> None:
    """Another factory that makes equal nodes, of lambdas made anew, touches nothing."""

    def make(width: int) -> Callable[[Any], hp.Node | None]:
        def factory(key: Any) -> hp.Node | None:
            match key:
                case {"of": of, "times": times}:
                    return hp.map(lambda value: value * times, of)
                case {"of": of, "width": _}:
                    return hp.map(lambda value: str(value)[:width], of)
            return None

        return factory

    async def main() -> None:
        wide, double = {"of": {"of": "s", "times": 2}, "width": 0}, {"of": "s", "times": 2}
        topology = hp.Topology(make(5)).add("s", hp.source(quietly([1, 2, 3, 4])))
        topology = topology.add("wide", hp.collect(wide)).add("double", hp.collect(double))
        async with hp.Plumbing(topology) as plumbing:
            await asyncio.sleep(AT_S)
            same = await plumbing.refactor(make(5))
            assert (same.epoch, same.touched) == (0, frozenset())
            change = await plumbing.refactor(make(3))
            assert (change.epoch, change.touched) == (1, frozenset([hp.freeze(wide)]))
            await plumbing.join()
            assert plumbing.collected() == {"wide": ["2", "4", "6", "8"], "double": [2, 4, 6, 8]}

    run(main, seed)


def test_a_topology_built_afresh_is_compared_as_a_whole(seed: int) -> None:
    """It has no base; what is equal in it is left alone all the same."""

    def build(version: int) -> hp.Topology:
        nodes = {"s": hp.source(quietly([0, 1, 2, 3])), "n": hp.map(Version(version), "s"), "out": hp.collect("n")}
        return graph(**nodes)

    async def main() -> None:
        async with hp.Plumbing(build(0)) as plumbing:
            await asyncio.sleep(AT_S)
            assert (await plumbing.apply(build(0))).touched == frozenset()
            assert (await plumbing.apply(build(1))).touched == {"n"}
            assert (await plumbing.apply(build(0))).touched == {"n"}
            assert (await plumbing.apply(build(1))).epoch == 3
            await plumbing.join()
            assert plumbing.collected()["out"] == [(0, 0), (1, 0), (2, 1), (3, 1)]

    run(main, seed)


def test_the_seconds_of_a_change_go_from_the_first_switch_to_the_last(seed: int) -> None:
    """What is inside the region processes first what is ahead of the marker."""

    async def main() -> None:
        topology = graph(
            s=hp.source([0, 1]),
            f=hp.flat_map(Version(0).listed, "s"),
            n=hp.map(partial(late, 10), "f"),
            out=hp.collect("n"),
        )
        async with hp.Plumbing(topology) as plumbing:
            await asyncio.sleep(4)
            change = await plumbing.replace("n", hp.map(Version(1), "f"))
            assert (now(), change.seconds) == (20, 16)

    run(main, seed)


def test_what_a_collecting_sink_has_is_kept_with_its_process(seed: int) -> None:
    """Another capacity and another source to read make no new list."""

    async def main() -> None:
        topology = graph(s=hp.source([1, 2]), t=hp.source([3]), out=hp.collect("s"), out2=hp.collect("t"))
        async with hp.Plumbing(topology) as plumbing:
            await plumbing.join()
            await plumbing.replace("out", hp.collect("s", "t", capacity=3))
            await plumbing.join()
            assert plumbing.collected() == {"out": [1, 2], "out2": [3]}

    run(main, seed)


def test_an_error_stream_comes_and_goes_without_touching_what_fails(seed: int) -> None:
    """It is a source of its own, fed by the plumbing."""

    async def main() -> None:
        got: list[Any] = []
        failing = hp.map(Failing(), "s", on_error=hp.discard())
        topology = graph(s=hp.source(testing.script([BAD, testing.Pause(1), BAD, testing.Pause(1), BAD])), n=failing)
        async with hp.Plumbing(topology.add("out", hp.collect("n"))) as plumbing:
            await asyncio.sleep(AT_S)
            there = await plumbing.add("dead", hp.sink(got.append, hp.ERRORS))
            assert (there.touched, there.region) == (frozenset([hp.ERRORS, "dead"]), frozenset())
            await asyncio.sleep(1)
            assert [failure.item.origin.number for failure in got] == [1]
            back = await plumbing.remove("dead")
            assert back.touched == {hp.ERRORS, "dead"}
            await plumbing.join()
        assert len(got) == 1

    run(main, seed)
