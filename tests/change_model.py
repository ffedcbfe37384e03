"""Live changes without an engine: random graphs, changes and interleavings of single steps.

    case = random_case(rng)              a graph, the changes that it goes through, and how its nodes behave
    run = Run(case, at_random(rng))      one interleaving of its steps
    run.play()                           "ok", or the first of these that is wrong:

    mixed           a family has met two versions of what one change touched, by ways that no later change has made
    reign           a trail lies in no topology that reigned
    lost            an item that was put into a link has not been read, or not in order
    doubled         an item has been read twice
    stuck           a change does not end
    never settled   a change does not settle
    settled early   a change settles while something that has met an old version of it is under way

`region_of`, `Alignment` and `Settling` decide, as in the engine; all else is as plain as can be: a link is a deque, and
a step takes one item.  There is no state, no hold, no pause, and sources that run dry send no end; but nodes may close
the links that they read.  `without` leaves out a clause of the rules: those that the three know by name, and two that
are kept here: "closed" (closed links count for the region) and "order" (changes settle one after the other).

`naive_region` says what a region is, at any cost.
"""

from __future__ import annotations

import random
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Container, Iterator, Mapping, Sequence, Set
from functools import partial
from itertools import chain
from operator import attrgetter
from typing import Any, Literal, NamedTuple, TypeAlias

import attrs

from hotplumb._alignment import Alignment, Settling
from hotplumb.region import Region, awaited_below, region_of

Node: TypeAlias = Any  # a number; of the keys in a `Region` is known only that they can be hashed

Graph: TypeAlias = Mapping[Node, tuple[Node, ...]]
"""{node: the nodes it reads}; as often as there are links between the two, and a node that reads none is a source."""

MOST_STEPS = 30_000


# --- what a region is


def naive_region(
    graph: Graph,
    touched: Collection[Node],
    many: Container[Node] = (),
    unsettled: Container[Node] = (),
) -> Region[Node]:
    """The region of a change, from the sets of all that can be reached."""
    links = [(source, reader) for reader, sources in graph.items() for source in sources]
    reached = {key: reached_from(key, links) for key in graph}  # each reaches itself
    anchored = set(touched)
    for key in graph:
        leading = [reader for source, reader in links if source == key and reached[reader] & set(touched)]
        if len(leading) > 1 or (leading and (key in many or key in unsettled)):
            anchored.add(key)
    inside = {key for key in graph if reached[key] & anchored and any(key in reached[anchor] for anchor in anchored)}
    heads = {key for key in inside if not inside & set(graph[key])}
    return Region(frozenset(inside), frozenset(heads))


def naive_below(graph: Graph, inside: Set[Node]) -> Set[Node]:
    """All that derives from a region and is not in it."""
    links = [(source, reader) for reader, sources in graph.items() for source in sources]
    return {key for anchor in inside for key in reached_from(anchor, links)} - inside


def reached_from(start: Node, links: Collection[tuple[Node, Node]]) -> set[Node]:
    """`start`, and all that derives from it."""
    found = {start}
    while more := {reader for source, reader in links if source in found} - found:
        found |= more
    return found


def readers_of(graph: Graph) -> dict[Node, list[Node]]:
    """{node: who reads it}, as often as it does."""
    readers: dict[Node, list[Node]] = {key: [] for key in graph}
    for reader, sources in graph.items():
        for source in sources:
            readers[source].append(reader)
    return readers


# --- cases


@attrs.frozen
class Edit:
    """The graph after a change, and which of the nodes that it keeps have another process."""

    graph: Graph
    changed: frozenset[Node] = frozenset()


@attrs.frozen
class Case:
    """A graph, the changes that it goes through, and how its nodes behave."""

    graph: Graph
    edits: tuple[Edit, ...]
    items: int = 2  # that each source makes
    capacity: int = 99  # of each link
    many: frozenset[Node] = frozenset()  # nodes that give two outputs for one input
    ends: Mapping[Node, int] = attrs.field(factory=dict)  # {node: after how many items it closes the links it reads}


def random_case(rng: random.Random, size: int = 8, edits: int = 3) -> Case:
    """A case of up to so many nodes and changes."""
    graph = random_graph(rng, rng.randint(2, size))
    found = [Edit(graph)]
    for _ in range(rng.randint(1, edits)):
        found.append(random_edit(rng, found[-1].graph))
    keys = range(size + 2 * edits)
    return Case(
        graph,
        tuple(found[1:]),
        items=rng.randint(3, 14),
        capacity=rng.choice([1, 2, 4, 99]),
        many=frozenset(key for key in keys if rng.random() < 0.2),
        ends={key: rng.randint(1, 12) for key in keys if rng.random() < rng.choice([0, 0.2])},
    )


def random_graph(rng: random.Random, size: int) -> Graph:
    """Nodes that read some of those before them."""
    return {key: random_reads(rng, range(key), [0, 1, 1, 2, 2, 3]) for key in range(size)}


def random_reads(rng: random.Random, free: Sequence[Node], counts: list[int]) -> tuple[Node, ...]:
    """Some of `free`; now and then one of them by two links, as two outputs of a route are read."""
    reads = rng.sample(free, min(rng.choice(counts), len(free)))
    if reads and rng.random() < 0.05:
        reads.append(reads[0])
    return tuple(sorted(reads))


def random_edit(rng: random.Random, old: Graph) -> Edit:
    """Up to two nodes are rewired, removed or added, and some get another process."""
    new = dict(old)
    for _ in range(rng.randint(0, 2)):
        if not new:
            break
        key = rng.choice(sorted(new))
        match rng.choices(["rewire", "remove", "add"], [4, 2, 4]):
            case ["rewire"]:
                new[key] = random_reads(rng, not_below(new, key), [1, 1, 2])
            case ["remove"]:
                del new[key]
                new = {other: tuple(source for source in reads if source != key) for other, reads in new.items()}
            case _:
                add_node(rng, new, key)
    return Edit(new, frozenset(key for key in sorted(old) if key in new and rng.random() < 0.3))


def add_node(rng: random.Random, graph: dict[Node, tuple[Node, ...]], reader: Node) -> None:
    """Add a node, perhaps one that there was before; perhaps `reader` reads it."""
    added = rng.choice(sorted({*range(max(graph) + 2)} - graph.keys()))
    if rng.random() < 0.5:
        graph[added] = random_reads(rng, sorted(graph), [1, 2])
    else:
        graph[added] = random_reads(rng, not_below(graph, reader), [1, 2])
        graph[reader] = tuple(sorted({*graph[reader], added}))


def not_below(graph: Graph, key: Node) -> list[Node]:
    """The nodes that `key` may read without a cycle."""
    links = [(source, reader) for reader, sources in graph.items() for source in sources]
    return sorted(graph.keys() - reached_from(key, links))


# --- what runs


class Hop(NamedTuple):
    """A node that an item has met."""

    key: Node
    epoch: int  # of the change that last touched it
    which: int  # of its outputs, or for a source the item's number
    newest: int  # the epoch of the newest link that the item has come by


Item: TypeAlias = tuple[Hop, ...]


class Marker(NamedTuple):
    """What says that a change has come by."""

    what: Literal["mark", "settle"]
    change: Changing


@attrs.define(eq=False)
class Link:
    """What a node sends to one reader."""

    writer: Node
    reader: Node
    name: int  # links between the same two are numbered
    epoch: int  # of the change that made it
    entries: deque[Item | Marker] = attrs.field(factory=deque)
    is_closed: bool = False
    sent: list[Item] = attrs.field(factory=list)
    received: list[Item] = attrs.field(factory=list)

    def put(self, entry: Item | Marker) -> None:
        """Put something in, unless the reader wants no more."""
        if not self.is_closed:
            self.entries.append(entry)
            if not isinstance(entry, Marker):
                self.sent.append(entry)

    @property
    def items(self) -> list[Item]:
        """The items in it."""
        return [entry for entry in self.entries if not isinstance(entry, Marker)]

    def is_full(self, capacity: int) -> bool:
        """Whether its writer has to wait."""
        return not self.is_closed and len(self.sent) - len(self.received) >= capacity

    @property
    def is_lossy(self) -> bool:
        """Whether what was read differs from what was sent, though the reader wanted it."""
        return self.received != (self.sent[: len(self.received)] if self.is_closed else self.sent)


@attrs.define(eq=False)
class Changing:
    """A change under way, or on its way to settle."""

    epoch: int
    edit: Edit
    touched: frozenset[Node]  # those added too
    region: Region[Node]
    settling: Settling[Node, Link]
    left: set[Node]  # nodes that have still to switch
    has_below: bool  # whether anything derives from the region and is not inside
    lost: defaultdict[Node, list[Link]] = attrs.field(factory=lambda: defaultdict(list))  # {node at either end: links}
    inputs: defaultdict[Node, list[Link]] = attrs.field(factory=lambda: defaultdict(list))  # {reader: new links}
    outputs: defaultdict[Node, list[Link]] = attrs.field(factory=lambda: defaultdict(list))  # {writer: new links}


def named(reads: tuple[Node, ...]) -> list[tuple[Node, int]]:
    """(the node read, the number of the link from it) for each read."""
    return [(source, reads[:place].count(source)) for place, source in enumerate(reads)]


class Act(NamedTuple):
    """One thing that can happen next."""

    key: Node  # that does it, or -1 for a change that begins
    do: Callable[[], None]


Choose: TypeAlias = Callable[[list[Act]], Act]


def at_random(rng: random.Random) -> Choose:
    """Let chance choose what happens next; some nodes are slow, and changes come sooner or later."""
    paces = defaultdict(lambda: rng.choice([1, 1, 1, 0.1, 0.01]), {-1: rng.choice([0.5, 0.1, 0.02])})
    return lambda acts: rng.choices(acts, [paces[act.key] for act in acts])[0]


def each_run(case: Case, without: str = "") -> Iterator[Run]:
    """All runs of a case: one for each order in which its steps can follow each other."""
    order: list[int] = []
    while True:
        widths: list[int] = []

        def choose(acts: list[Act], order: list[int] = order, widths: list[int] = widths) -> Act:
            widths.append(len(acts))
            return acts[order[len(widths) - 1] if len(widths) <= len(order) else 0]

        run = Run(case, choose, without)
        run.play()
        yield run
        order = order + [0] * (len(widths) - len(order))
        while order and order[-1] + 1 == widths[len(order) - 1]:
            order.pop()
        if not order:
            return
        order[-1] += 1


class Run:
    """One case with one interleaving."""

    def __init__(self, case: Case, choose: Choose, without: str = "") -> None:
        self.case = case
        self.choose = choose
        self.without = without
        self.verdict = ""
        self.epoch = 0
        self.edits = deque(case.edits)
        self.graph = case.graph
        self.versions = dict.fromkeys(case.graph, 0)  # {node: epoch of the change that last touched it}
        self.reigns = [dict(self.versions)]
        self.inputs: dict[Node, list[Link]] = {key: [] for key in case.graph}
        self.outputs: dict[Node, list[Link]] = {key: [] for key in case.graph}
        self.links: list[Link] = []  # all there ever were
        self.ends = dict(case.ends)  # {node: how many items it still takes}
        self.made: dict[Node, int] = defaultdict(int)
        self.changes: list[Changing] = []
        self.change: Changing | None = None  # the one under way
        self.settling: list[Changing] = []
        self.alignments: dict[Node, Alignment[Link]] = {}
        self.met: dict[tuple[Node, int], set[Hop]] = defaultdict(set)  # {(source, number): what the family has met}
        self.trails: set[tuple[tuple[Node, int], ...]] = set()
        self.seen: set[tuple[Node, int, Node, Item]] = set()  # (writer, name of the link, reader, item read)
        for key, reads in case.graph.items():
            for link in self.new_links(key, named(reads), 0):
                self.inputs[key].append(link)
                self.outputs[link.writer].append(link)

    def play(self) -> str:
        """Take steps until nothing is left to do; gives the verdict."""
        for _ in range(MOST_STEPS):
            acts = self.acts()
            if self.verdict or not acts:
                break
            self.choose(acts).do()
        else:
            self.verdict = "stuck"
        self.verdict = self.verdict or self.judge()
        return self.verdict

    # -- steps

    def acts(self) -> list[Act]:
        """All that can happen next."""
        acts = [Act(-1, self.begin)] if self.change is None and self.edits else []
        for key in self.inputs:
            if key in self.alignments and self.alignments[key].is_complete:
                acts.append(Act(key, partial(self.switch, key)))
            steps = [Act(key, partial(self.read, key, link)) for link in self.readable(key) if link.entries]
            if not self.inputs[key] and self.made[key] < self.case.items:
                steps.append(Act(key, partial(self.make, key)))
            if steps and not any(link.is_full(self.case.capacity) for link in self.outputs[key]):
                acts += steps
        return acts

    def readable(self, key: Node) -> list[Link]:
        """The links that a node may read now."""
        alignment = self.alignments.get(key)
        if alignment is None:
            return self.inputs[key]
        links = [link for link in self.inputs[key] if alignment.may_read(link)]
        if alignment.takes_up_new_links:
            assert self.change is not None
            links += self.change.inputs[key]
        return links

    def make(self, key: Node) -> None:
        """A source makes its next item."""
        self.made[key] += 1
        self.send(key, (), Hop(key, self.versions[key], self.made[key], 0))

    def send(self, key: Node, came: Item, hop: Hop) -> None:
        """Send what a node makes of an item."""
        item = (*came, hop)
        self.met[item[0].key, item[0].which].add(hop)
        self.trails.add(tuple(hop[:2] for hop in item))
        for link in self.outputs[key]:
            link.put(item)

    def read(self, key: Node, link: Link) -> None:
        """A node takes what comes next on a link."""
        entry = link.entries.popleft()
        if isinstance(entry, Marker):
            self.take_marker(key, link, entry)
            return
        link.received.append(entry)
        if (seen := (link.writer, link.name, key, entry)) in self.seen:
            self.verdict = "doubled"
        self.seen.add(seen)
        for which in range(1 + (key in self.case.many)):
            newest = max(entry[-1].newest, link.epoch)
            self.send(key, entry, Hop(key, self.versions[key], 2 * link.name + which, newest))
        if key in self.ends:
            self.ends[key] -= 1
            if self.ends[key] <= 0:
                self.close(key)

    def close(self, key: Node) -> None:
        """A node wants no more: it closes the links that it reads."""
        del self.ends[key]
        for link in self.inputs[key]:
            link.is_closed = True
            link.entries.clear()
            if key in self.alignments:
                self.alignments[key].close(link)
            self.settle_on(key, link)

    # -- changes

    def begin(self) -> None:
        """Plan the next change; its heads may switch from now on."""
        edit = self.edits.popleft()
        touched = self.touched(edit)
        added = edit.graph.keys() - self.graph.keys()
        if not touched and not added:
            return
        region = self.region(touched)
        open_inputs = {key: [link for link in self.inputs[key] if not link.is_closed] for key in self.graph}
        counts, links = awaited_below(
            region.inside,
            outputs=lambda key: [link for link in self.counted_links() if link.writer == key],
            reader=attrgetter("reader"),
            is_closed=attrgetter("is_closed"),
        )
        has_below = bool(counts)
        settling = Settling(touched, region.inside, counts, links, self.without)
        change = Changing(self.epoch + 1, edit, touched | added, region, settling, set(region.inside), has_below)
        self.change = change
        self.changes.append(change)
        self.settling.append(change)
        self.plan_links(change)
        self.alignments = {
            key: Alignment([link for link in open_inputs[key] if link.writer in region.inside], self.without)
            for key in region.inside
        }
        for key in added:
            self.inputs[key], self.outputs[key] = change.inputs.pop(key, []), change.outputs.pop(key, [])
            self.go_on(key, change)
        for key in settling.at_once():
            self.pass_on(key, change)
        self.look_whether_complete(change)

    def touched(self, edit: Edit) -> frozenset[Node]:
        """The nodes there are that a change touches."""
        old, new = readers_of(self.graph), readers_of(edit.graph)
        return frozenset(
            key
            for key in self.graph
            if key in edit.changed
            or key not in edit.graph
            or sorted(old[key]) != sorted(new[key])
            or sorted(self.graph[key]) != sorted(edit.graph[key])
        )

    def region(self, touched: frozenset[Node]) -> Region[Node]:
        """The region of a change."""
        links = self.counted_links()
        return region_of(
            touched,
            inputs=lambda key: [link for link in links if link.reader == key],
            outputs=lambda key: [link for link in links if link.writer == key],
            writer=attrgetter("writer"),
            reader=attrgetter("reader"),
            is_many=self.case.many.__contains__,
            unsettled={key for changing in self.settling for key in changing.settling.touched},
            without=self.without,
        )

    def counted_links(self) -> list[Link]:
        """All there are; without the clause of them, closed ones do not count."""
        links = chain.from_iterable(self.inputs.values())
        return [link for link in links if not (self.without == "closed" and link.is_closed)]

    def plan_links(self, change: Changing) -> None:
        """Find the links that go, and make those that are new."""
        new = change.edit.graph
        for key in self.graph.keys() | new.keys():
            wanted = named(new.get(key, ()))
            for link in self.inputs.get(key, ()):
                if (link.writer, link.name) in wanted:
                    wanted.remove((link.writer, link.name))
                else:
                    change.lost[key].append(link)
                    change.lost[link.writer].append(link)
            for link in self.new_links(key, wanted, change.epoch):
                change.inputs[key].append(link)
                change.outputs[link.writer].append(link)

    def new_links(self, key: Node, wanted: list[tuple[Node, int]], epoch: int) -> list[Link]:
        """Make links from those that `key` is to read."""
        links = [Link(source, key, name, epoch) for source, name in wanted]
        self.links += links
        return links

    def take_marker(self, key: Node, link: Link, marker: Marker) -> None:
        """Take note of a marker that has come in."""
        if marker.what == "settle":
            self.settle_on(key, link, marker.change)
        elif key in self.alignments:
            self.alignments[key].deliver(link)

    def switch(self, key: Node) -> None:
        """Send the marker on all links as they were, and take up the new ones."""
        change = self.change
        assert change is not None
        for link in self.outputs[key]:
            link.put(Marker("mark" if link.reader in change.region.inside else "settle", change))
        del self.alignments[key]
        change.left.discard(key)
        lost = [link for link in change.lost[key] if link.reader == key]
        if key in change.edit.graph:
            self.rewire(key, change)
            self.go_on(key, change)
        else:
            self.leave(key)
        for link in lost:
            self.settle_on(key, link)
        change.settling.switched(key)
        self.look_whether_complete(change)

    def rewire(self, key: Node, change: Changing) -> None:
        """Give up the lost links and take up the new ones."""
        if key in change.edit.changed:
            for link in self.inputs[key]:
                if link.is_closed and link not in change.lost[key]:
                    self.read_anew(link, change)
        for links, new in ((self.inputs[key], change.inputs), (self.outputs[key], change.outputs)):
            links[:] = [link for link in links if link not in change.lost[key]] + new.pop(key, [])

    def read_anew(self, link: Link, change: Changing) -> None:
        """Another process reads what the one before it had closed."""
        new = Link(link.writer, link.reader, link.name, link.epoch)
        self.links.append(new)
        change.lost[link.reader].append(link)
        change.inputs[link.reader].append(new)
        if link.writer in change.left:
            change.lost[link.writer].append(link)
            change.outputs[link.writer].append(new)
        else:
            self.outputs[link.writer].remove(link)
            self.outputs[link.writer].append(new)

    def go_on(self, key: Node, change: Changing) -> None:
        """A node is as the change wants it."""
        if key in change.touched:
            self.versions[key] = change.epoch
        if key in change.edit.changed or key not in self.graph:
            self.ends.pop(key, None)
            if key in self.case.ends:
                self.ends[key] = self.case.ends[key]

    def leave(self, key: Node) -> None:
        """A node is there no longer."""
        del self.inputs[key], self.outputs[key], self.versions[key]
        for changing in list(self.settling):
            changing.settling.gone(key)
        self.look_whether_settled()

    def settle_on(self, key: Node, link: Link, only: Changing | None = None) -> None:
        """Pass a settling marker on that has come in on a link, or all of them where none will."""
        for changing in [only] if only is not None else list(self.settling):
            if changing.settling.came(key, link):
                self.pass_on(key, changing)
        self.look_whether_settled()

    def pass_on(self, key: Node, changing: Changing) -> None:
        """Send a settling marker on."""
        for link in self.outputs[key]:
            link.put(Marker("settle", changing))

    def look_whether_complete(self, change: Changing) -> None:
        """When all have switched, the new topology reigns."""
        if not change.left:
            self.epoch, self.graph, self.change = change.epoch, change.edit.graph, None
            self.reigns.append(dict(self.versions))
        self.look_whether_settled()

    def look_whether_settled(self) -> None:
        """Changes settle, each after those before it."""
        for changing in list(self.settling):
            if not changing.settling.is_done:
                if self.without == "order":
                    continue
                break
            self.settling.remove(changing)
            if any(self.is_old(item, changing) for link in self.links for item in link.items):
                self.verdict = "settled early"

    # -- the verdict

    def is_old(self, item: Item, changing: Changing) -> bool:
        """Whether it has met an old version of what a change touched."""
        return any(hop.key in changing.touched and hop.epoch < changing.epoch for hop in item)

    def judge(self) -> str:
        """What is wrong after all."""
        checks = {
            "stuck": self.change is not None or any(link.entries for links in self.inputs.values() for link in links),
            "never settled": bool(self.settling),
            "mixed": any(self.is_mixed(met, change) for change in self.changes for met in self.met.values()),
            "reign": not all(any(self.lies_in(trail, reign) for reign in self.reigns) for trail in self.trails),
            "lost": any(link.is_lossy for link in self.links),
        }
        return next((name for name, is_wrong in checks.items() if is_wrong), "ok")

    def is_mixed(self, met: set[Hop], change: Changing) -> bool:
        """Whether a family has met two versions of what a change touched, by ways that no later change has made."""
        hops = [hop for hop in met if hop.key in change.touched]
        is_old = any(hop.epoch < change.epoch for hop in hops)
        return is_old and any(hop.newest <= change.epoch <= hop.epoch for hop in hops)

    def lies_in(self, trail: tuple[tuple[Node, int], ...], reign: Mapping[Node, int]) -> bool:
        """Whether all hops of a trail are of one topology."""
        return all(reign.get(key) == epoch for key, epoch in trail)
