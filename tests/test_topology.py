"""Which nodes there are: resolution from the sinks back, edits, and what differs between two topologies."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Hashable, Iterable, Mapping
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyrsistent import pmap

import hotplumb as hp
from hotplumb.keys import Key, Output, freeze
from hotplumb.nodes import Node
from hotplumb.topology import MOST_REMEMBERED, Difference, Topology, difference, node_key

# ---- a model: graphs over the keys {"n": 0}, {"n": 1} ..., resolved the slow and obvious way

KEYS, SINKS = 8, 2  # the keys below `SINKS` are mostly sinks
Plan = tuple[str, tuple[int, ...], int]  # kind, what it reads, a label; reading 10 + i is reading an output of i


def key(i: int) -> Key:
    """A key object of its own each time, as users and factories make them."""
    return freeze({"n": i})


def labelled(label: int, value: Any) -> Any:
    return value, label


def node(plan: Plan) -> Node:
    kind, reads, label = plan
    keys = [hp.output(key(i - 10), "a") if i >= 10 else key(i) for i in reads]
    match kind:
        case "source":
            return hp.source([label])
        case "map":
            return hp.map(partial(labelled, label), *keys)
        case "merge":
            return hp.merge(*keys)
        case "route":
            return hp.route(partial(labelled, label), *keys)
    return hp.sink(partial(labelled, label), *keys)


class Factory:
    """Makes what `plans` says, and remembers what it was asked for."""

    def __init__(self, plans: dict[int, Plan]) -> None:
        self.plans = plans
        self.asked: list[Key] = []

    def __call__(self, asked: Any) -> Node | None:
        self.asked.append(asked)
        plan = self.plans.get(asked["n"])
        return None if plan is None else node(plan)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Factory) and self.plans == other.plans

    __hash__ = None  # type: ignore[assignment]


class Model:
    """What is active, and what is wrong, where `given` are the nodes put in by hand."""

    def __init__(self, given: dict[Key, Node], plans: dict[int, Plan]) -> None:
        self.given = given
        self.plans = plans
        self.active: dict[Key, Node] = {}
        self.wrong: set[type[Exception]] = set()
        for sink in [k for k, n in given.items() if n.is_sink]:
            self.need(sink, ())

    def need(self, wanted: Key, below: tuple[Key, ...]) -> None:
        found = self.find(wanted)
        if wanted in below:
            self.wrong.add(hp.CycleError)
        elif found is None:
            self.wrong.add(hp.UnmetDependency)
        elif not found.reads and found.kind != "source":
            self.wrong.add(hp.OpenEnd)
        else:
            self.active[wanted] = found
            for read in found.reads:
                self.need(node_key(read), (wanted, *below))
                self.check(read)

    def check(self, read: Key) -> None:
        found = self.find(node_key(read))
        if found is not None and (found.is_sink or (isinstance(read, Output) and found.kind != "route")):
            self.wrong.add(hp.TopologyError)

    def find(self, wanted: Any) -> Node | None:
        if wanted in self.given:
            return self.given[wanted]
        plan = self.plans.get(wanted["n"])
        return None if plan is None else node(plan)

    def sources(self) -> dict[Key, set[Key]]:
        return {k: {node_key(read) for read in n.reads} for k, n in self.active.items()}

    def readers(self) -> dict[Key, set[Key]]:
        return turned(self.sources())


def turned(links: dict[Key, set[Key]]) -> dict[Key, set[Key]]:
    return {k: {other for other, ends in links.items() if k in ends} for k in links}


def reach(links: dict[Key, set[Key]], start: Key) -> set[Key]:
    return set().union(*({k} | reach(links, k) for k in links[start]))


def read_pairs(topology: Topology, k: Key) -> set[tuple[Key, Key]]:
    """Who reads a node, and by which key."""
    return {(r, read) for r in topology.readers(k) for read in topology.reads(r) if node_key(read) == k}


def differs(old: Topology, new: Topology) -> Difference:
    """What differs, looked up for every key."""
    both = [k for k in old.active if k in new.active]
    replaced = {k for k in both if old.active[k] != new.active[k]}
    rewired = {k for k in both if k not in replaced and read_pairs(old, k) != read_pairs(new, k)}
    added, removed = set(new.active) - set(old.active), set(old.active) - set(new.active)
    return Difference(*map(frozenset, (added, removed, replaced, rewired)))


# Most of what is drawn makes a graph: nodes read keys above their own, outputs are of routes, factories have most keys.
# One in eight choices is made from everything, so that all errors come up too.


def mostly(usual: Iterable[int], *unusual: int) -> st.SearchStrategy[int]:
    few, every = list(usual) or list(range(KEYS)), [*range(KEYS), *unusual]
    return st.sampled_from([*few * (7 * len(every) // len(few)), *every])


@st.composite
def plan_for(draw: st.DrawFn, i: int, kinds: Mapping[int, str]) -> Plan:
    """A node `i`, where the nodes around it are of these kinds."""
    usual = ["sink"] if i < SINKS else ["map", "merge", "route", "source"]
    kind = draw(st.sampled_from(usual * 4 + ["sink", "map"]))
    above = range(max(i + 1, SINKS), KEYS)
    routes = [10 + k for k in above if kinds.get(k) == "route"]
    reads = draw(
        st.lists(mostly([*above, *routes], 10, 14), min_size=draw(mostly([1], 0)) % 2, max_size=3, unique=True)
    )
    return ("source", (), 0) if kind == "source" or i == KEYS - 1 else (kind, tuple(reads), draw(st.integers(0, 1)))


@st.composite
def plans(draw: st.DrawFn) -> dict[int, Plan]:
    """A factory."""
    made: dict[int, Plan] = {}
    for i in reversed(range(SINKS, KEYS)):
        if draw(st.integers(0, 15)):
            made[i] = draw(plan_for(i, {k: plan[0] for k, plan in made.items()}))
    return made


def numbers(keys: Any) -> list[int]:
    return sorted(k["n"] for k in keys)


@st.composite
def edit_of(draw: st.DrawFn, topology: Topology) -> tuple[str, Any]:
    """An edit, mostly one that can be made."""
    given_keys, active = numbers(topology.given), numbers(topology.active)
    known = sorted({*given_keys, *active})
    choose = {
        "add": mostly(range(SINKS)) if not active else mostly(i for i in range(KEYS) if i not in known),
        "replace": mostly(known),
        "remove": mostly(given_keys),
        "update": mostly(known) | mostly(range(KEYS)),
    }
    kind = draw(st.sampled_from([*choose, *choose, "update", "refactor"]))
    if kind == "refactor":
        return kind, draw(plans())
    kinds = {i: topology.active[key(i)].kind for i in active}
    what: dict[int, Plan | None] = {}
    fewest, most = (2, 4) if kind == "update" else (1, 1)
    for i in draw(st.lists(choose[kind], min_size=fewest, max_size=most, unique=True)):
        is_removed = kind == "remove" or (kind == "update" and i in given_keys and draw(st.booleans()))
        what[i] = None if is_removed else draw(plan_for(i, kinds))
    return kind, what


def applied(topology: Topology, kind: str, what: Any) -> Topology:
    """Make the edit by the method of its name."""
    if kind == "refactor":
        return topology.refactor(Factory(what))
    nodes = {key(i): None if plan is None else node(plan) for i, plan in what.items()}
    if kind == "update":
        return topology.update(nodes)
    [(name, new)] = nodes.items()
    return topology.remove(name) if kind == "remove" else getattr(topology, kind)(name, new)


def expected(old: Topology, kind: str, what: Any) -> Model | type[Exception]:
    """What the edit must lead to; an exception where it is refused whatever the graph."""
    assert isinstance(old.factory, Factory)
    if kind == "refactor":
        return Model(dict(old.given), what)
    nodes = {key(i): None if plan is None else node(plan) for i, plan in what.items()}
    for name, new in nodes.items():
        known = name in old.given or name in old.active
        if (new is None and name not in old.given) or (kind == "replace" and not known):
            return hp.UnknownKey
        if kind == "add" and known:
            return hp.DuplicateKey
        if new is not None and not new.reads and new.kind != "source":
            return hp.OpenEnd
    return Model({k: n for k, n in {**old.given, **nodes}.items() if n is not None}, old.factory.plans)


def edits_of(data: st.DataObject) -> Iterable[tuple[Topology, Topology, Model]]:
    """Make edits one after the other; give (before, after, the model of after) for those that can be made."""
    topology = hp.Topology(Factory(data.draw(plans())))
    for _ in range(data.draw(st.integers(1, 12))):
        kind, what = data.draw(edit_of(topology))
        model = expected(topology, kind, what)
        if isinstance(model, type) or model.wrong:
            with pytest.raises(hp.TopologyError) as caught:
                applied(topology, kind, what)
            assert caught.type in ({model} if isinstance(model, type) else model.wrong)
        else:
            factory = topology.factory
            assert isinstance(factory, Factory)
            factory.asked.clear()
            edited = applied(topology, kind, what)
            yield topology, edited, model
            topology = edited


def line_of(data: st.DataObject) -> list[Topology]:
    """The topologies on the way, each edited from the one before."""
    pairs = list(edits_of(data))
    return [*(before for before, _, _ in pairs[:1]), *(after for _, after, _ in pairs)]


sequences = given(st.data())


@sequences
def test_active_is_what_the_sinks_reach(data: st.DataObject) -> None:
    """What runs is what the sinks need, whatever edits led there; edits that make no topology fail by their type."""
    for _, edited, model in edits_of(data):
        assert dict(edited.active) == model.active
        assert dict(edited.given) == model.given


@sequences
def test_edited_equals_built(data: st.DataObject) -> None:
    """A topology edited into a shape equals one built in that shape, and no other."""
    for before, edited, model in edits_of(data):
        built = hp.Topology(Factory(model.plans)).update(model.given)
        assert edited == built
        assert (before == edited) == (
            before.given == edited.given and before.active == edited.active and before.factory == edited.factory
        )


@sequences
def test_the_factory_is_asked_once_for_what_is_new(data: st.DataObject) -> None:
    """An edit asks only for needed keys that were not active, a refactoring for all; each once."""
    for before, edited, model in edits_of(data):
        assert isinstance(edited.factory, Factory)
        was_refactored = edited.edits[0].kind == "refactor"
        taken = {each.key for each in edited.edits}
        kept = set() if was_refactored else set(before.active) - taken
        assert len(edited.factory.asked) == len(set(edited.factory.asked))
        assert set(edited.factory.asked) == set(model.active) - set(model.given) - kept


@sequences
def test_neighbours_are_those_of_the_graph(data: st.DataObject) -> None:
    """Sources, readers, and all that is up- or downstream."""
    for _, edited, model in edits_of(data):
        sources, readers = model.sources(), model.readers()
        for k, n in model.active.items():
            assert edited.reads(k) == n.reads
            assert edited.readers(k) == readers[k]
            assert edited.upstream(k) == reach(sources, k)
            assert edited.downstream(k) == reach(readers, k)
            assert edited.epoch_of(k) == 0


@sequences
def test_the_difference_is_found_among_what_was_edited(data: st.DataObject) -> None:
    """The difference between any two of a line of edits is what a look at every key finds."""
    line = line_of(data)
    for i, old in enumerate(line):
        for new in line[i:]:
            assert difference(old, new) == differs(old, new)
            assert difference(new, old) == differs(new, old)
            changed = new.changed_since(old)
            assert changed is not None
            assert differs(old, new).touched <= changed
        afresh = hp.Topology(old.factory).update(dict(old.given))
        assert difference(line[-1], afresh) == differs(line[-1], afresh)


@sequences
def test_an_edit_is_remembered(data: st.DataObject) -> None:
    """A topology knows what was edited, from which base, and which topologies it was edited from."""
    line = line_of(data)
    for before, edited in pairwise(line):
        assert edited.base is before
        assert all((each.node is None) == (each.kind in ("remove", "refactor")) for each in edited.edits)
    for i, old in enumerate(line):
        assert [new.is_edit_of(old) for new in line] == [j >= i for j in range(len(line))]
        assert old.changed_since(old) == frozenset()


@sequences
def test_each_key_is_one_object(data: st.DataObject) -> None:
    """Keys are made many times and kept once, so that looking one up need not compare it."""
    for _, edited, _ in edits_of(data):
        keys = {k: k for k in edited.active}
        for k, n in edited.active.items():
            assert all(read is keys[read] for read in n.reads if not isinstance(read, Output))
            assert all(reader is keys[reader] for reader in edited.readers(k))


# ---- resolution


def value(n: Any) -> Any:
    return n


def letters(asked: Any) -> Node | None:
    """A factory of chains: "abc" reads "bc", which reads "c", a source; no digits."""
    if not isinstance(asked, str) or not asked.isalpha():
        return None
    return hp.map(value, asked[1:]) if asked[1:] else hp.source([asked])


def abc() -> Topology:
    return hp.Topology(letters).add("out", hp.sink(print, "abc"))


def test_nothing_runs_without_a_sink() -> None:
    """Given nodes that no sink needs are not active."""
    topology = hp.Topology(letters).add("n", hp.source([1])).add("sq", hp.map(value, "n"))
    assert set(topology.given) == {"n", "sq"}
    assert topology.active == {}
    assert topology.sinks == ()


def test_removing_the_last_sink_stops_everything() -> None:
    """No sink, nothing active."""
    assert abc().remove("out").active == {}


def test_a_given_node_wins_over_the_factory() -> None:
    """What is given first is not asked for."""
    assert set(hp.Topology(letters).add("bc", hp.source([1])).add("out", hp.sink(print, "abc")).active) == {
        "bc",
        "abc",
        "out",
    }


def test_a_generated_node_can_be_replaced_and_comes_back() -> None:
    """`replace` makes it given, and `remove` lets the factory make it again."""
    replaced = abc().replace("bc", hp.source([1]))
    assert set(replaced.active) == {"out", "abc", "bc"}
    assert set(replaced.given) == {"out", "bc"}
    assert replaced.remove("bc") == abc()


def test_a_node_that_is_put_between_keeps_what_is_above() -> None:
    """The factory is not asked again for what the new node reads."""
    asked: list[str] = []

    def factory(k: str) -> Node | None:
        asked.append(k)
        return letters(k)

    topology = hp.Topology(factory).add("out", hp.sink(print, "abc"))
    assert asked == ["abc", "bc", "c"]
    between = topology.replace("out", hp.sink(print, "xabc"))
    assert asked == ["abc", "bc", "c", "xabc"]
    assert between.active["abc"] is topology.active["abc"]
    assert between.changed == {"out", "xabc", "abc"}


def test_an_edit_touches_what_it_changes_and_no_more() -> None:
    """In a graph of 4,000 nodes, replacing one changes one, and asks for none."""
    asked: list[int] = []

    def factory(k: int) -> Node:
        asked.append(k)
        return hp.map(value, k - 1, k - 2) if k > 1 else hp.source([k])

    topology = hp.Topology(factory).add("out", hp.sink(print, 4000))
    assert len(asked) == len(set(asked)) == 4001
    asked.clear()
    assert topology.replace(2000, hp.merge(1999, 1998)).changed == {2000}
    assert topology.replace(2000, hp.merge(1999, 1997)).changed == {1997, 1998, 2000}
    assert topology.replace("out", hp.sink(repr, 4000)).changed == {"out"}
    assert asked == []


def test_many_read_one() -> None:
    """Where thousands of nodes read one, each can come and go."""
    many = [hp.map(value, "hub")] * 3000
    topology = hp.Topology(lambda k: many[k]).add("hub", hp.source([1])).add("out", hp.sink(print, *range(3000)))
    rewired = topology.add("x", hp.source([1])).replace(7, hp.map(value, "x"))
    assert rewired.readers("hub") == set(range(3000)) - {7}
    assert topology.readers("hub") == set(range(3000))
    assert rewired.remove(7) == topology.add("x", hp.source([1]))
    assert rewired.replace(7, hp.map(value, "hub")).readers("hub") == set(range(3000))
    assert rewired.remove("out").active == {}


def test_chains_may_be_deeper_than_python_recurses() -> None:
    """20,000 nodes that read one another are built, walked, found equal, edited and taken down."""
    topology = hp.Topology(lambda k: hp.map(value, k - 1) if k else hp.source([1])).add("out", hp.sink(print, 20_000))
    assert len(topology.upstream("out")) == len(topology.downstream(0)) == 20_001
    assert topology.replace(0, hp.source([1])).remove(0) == topology
    with pytest.raises(hp.CycleError, match="19989 more"):
        topology.replace(0, hp.map(value, 19_999))
    assert topology.remove("out").active == {}


def test_what_an_update_no_longer_needs_is_not_asked_for() -> None:
    """Several edits are checked once: what the last of them needs is all that counts."""
    topology = abc().add("n", hp.source([1])).replace("abc", hp.map(value, "n"))
    assert topology.update({"out": None, "abc": hp.map(value, "404"), "n": None}).active == {}
    with pytest.raises(hp.UnmetDependency, match="404"):
        topology.replace("abc", hp.map(value, "404"))


def test_what_an_update_needs_again_is_not_asked_for() -> None:
    """Several edits together take off what is read again: it stays as it is."""
    topology = abc()
    edited = topology.update({"out": hp.sink(repr, "xyz"), "xyz": hp.map(value, "abc")})
    assert all(edited.active[k] is topology.active[k] for k in ("abc", "bc", "c"))
    assert difference(topology, edited).touched == {"out", "xyz", "abc"}


def test_a_circle_that_no_sink_needs_is_no_cycle() -> None:
    """Nodes that are not active are not looked at."""
    topology = hp.Topology().update({"a": hp.source([1]), "b": hp.map(value, "a"), "out": hp.sink(print, "b")})
    edited = topology.update({"a": hp.map(value, "b"), "out": hp.sink(print, "c"), "c": hp.source([1])})
    assert set(edited.active) == {"c", "out"}


def test_an_output_is_read_from_its_route() -> None:
    """`hp.output(key, name)` leads to the route; read twice, it is one source."""
    topology = (
        hp.Topology()
        .add("n", hp.source([1]))
        .add("r", hp.route(value, "n"))
        .add("out", hp.sink(print, hp.output("r", 1), hp.output("r", 2), "r"))
    )
    assert topology.reads("out") == (hp.output("r", 1), hp.output("r", 2), "r")
    assert topology.readers("r") == {"out"}
    assert topology.upstream("out") == {"r", "n"}
    fewer = topology.replace("out", hp.sink(print, hp.output("r", 1)))
    assert topology.replace("out", hp.sink(print, "r", hp.output("r", 2))).changed == {"out", "r"}
    assert difference(topology, fewer) == Difference(frozenset(), frozenset(), frozenset({"out"}), frozenset({"r"}))


def test_keys_are_frozen_on_the_way_in() -> None:
    """Any form of a key finds the node."""
    topology = hp.Topology().add({"a": [1]}, hp.source([1])).add(["out"], hp.sink(print, {"a": (1,)}))
    assert topology.sinks == (("out",),)
    assert topology.readers({"a": [1]}) == {("out",)}
    assert topology.replace({"a": [1]}, hp.source([2])).remove(["out"]).active == {}
    with pytest.raises(hp.UnfreezableKey):
        topology.add({"a": object()}, hp.source([1]))


def test_the_factory_gets_frozen_keys() -> None:
    """`match` takes them apart, at every depth."""

    def factory(k: Any) -> Node | None:
        match k:
            case {"feed": {"name": (str(), *_)}}:
                return hp.source([1])
        return None

    assert len(hp.Topology(factory).add("out", hp.sink(print, {"feed": {"name": ["cpu", 1]}})).active) == 2


def test_sinks_are_in_one_order() -> None:
    """Of whatever types, the same in every process."""
    topology = hp.Topology().add("n", hp.source([1]))
    for k in ["b", 10, "a", ("x", 1), 9]:
        topology = topology.add(k, hp.sink(print, "n"))
    assert topology.sinks == ("a", "b", ("x", 1), 10, 9)


def test_active_and_given_are_persistent_maps() -> None:
    """What one has in hand does not change under later edits; any form of a key finds its node."""
    topology = hp.Topology().add({"n": [1]}, hp.source([1])).add("out", hp.sink(print, {"n": [1]}))
    active, given_nodes = topology.active, topology.given
    assert topology.remove("out").active == {}
    assert set(active) == set(given_nodes) == {"out", freeze({"n": (1,)})}
    assert active == given_nodes == dict(active) == pmap(active)
    assert active[{"n": [1]}] == given_nodes.get({"n": [1]}) == hp.source([1])
    assert {"n": [2]} not in active
    assert repr(given_nodes["out"]) in repr(active)
    for edit in ("__setitem__", "__delitem__", "update", "pop"):
        assert not hasattr(active, edit)


def test_refactoring_keeps_what_is_given() -> None:
    """Everything else is asked for again, and what nobody needs goes."""
    topology = abc().replace("bc", hp.map(value, "c"))
    other = topology.refactor(lambda k: hp.source([k]))
    assert set(other.active) == {"out", "abc"}
    assert set(other.given) == {"out", "bc"}
    assert other.refactor(letters) == topology
    assert changed(other, topology) == {"out", "abc", "bc", "c"}


def test_epochs_are_told_by_the_plumbing() -> None:
    """A topology with epochs is the same one, and edits keep the epochs of what they leave."""
    topology = abc()
    reigning = topology.with_epochs(topology, {"out", "gone"}, 3)
    assert (reigning.epoch_of("out"), reigning.epoch_of("abc")) == (3, 0)
    assert reigning == topology
    edited = topology.replace("abc", hp.source([1]))
    assert edited.is_edit_of(reigning)
    assert reigning.replace("abc", hp.source([1])).epoch_of("out") == 3
    later = edited.with_epochs(reigning, {"abc"}, 4)
    assert (later.epoch_of("out"), later.epoch_of("abc")) == (3, 4)
    gone = later.remove("out").with_epochs(later, {"out", "abc"}, 5)
    assert gone.add("out", hp.sink(print, "abc")).epoch_of("out") == 0


# ---- what is remembered


def changed(new: Topology, old: Topology) -> set[Any]:
    found = new.changed_since(old)
    assert found is not None
    return set(found)


def test_no_ancestor_lives_on_through_an_edit() -> None:
    """A topology edited for ever holds none of those before it."""
    topology = abc()
    old = weakref.ref(topology)
    for i in range(3):
        topology = topology.replace("out", hp.sink(partial(print, i), "abc"))
    gc.collect()
    assert old() is None
    edited = topology.replace("out", hp.sink(print, "abc"))
    assert edited.base is topology
    del topology
    gc.collect()
    assert edited.base is None


def test_memory_of_edits_is_bounded_and_exact() -> None:
    """After thousands of edits, a topology still knows that it came from the first, and what has changed."""
    first = abc()
    topology = first.add("x", hp.sink(print, "c")).remove("x")
    for i in range(1000):
        topology = topology.replace("out", hp.sink(partial(print, i), "abc"))
    middle, topology = topology, topology.replace("bc", hp.source([1]))
    for i in range(1000):
        topology = topology.replace("abc", hp.map(partial(labelled, i), "bc"))
    assert changed(topology, middle) == {"bc", "c", "abc"}
    assert changed(topology, first) == {"out", "bc", "c", "abc", "x"}
    assert not first.is_edit_of(topology)
    assert first.changed_since(topology) is None
    assert abc().changed_since(first) is None
    step, length = topology._past.step, 0
    while step is not None:
        step, length = step.older, length + 1
    assert length < 50


def test_every_held_ancestor_is_known() -> None:
    """However many versions a user keeps, each is known for what it is."""
    line = [abc()]
    for i in range(300):
        line.append(line[-1].replace("out", hp.sink(partial(print, i), "abc")))
    assert all(new.is_edit_of(old) and not old.is_edit_of(new) for old, new in pairwise(line))
    assert all(line[-1].is_edit_of(old) for old in line)


def test_what_is_too_much_to_remember_is_compared() -> None:
    """Where edits changed more keys than are remembered, everything is compared, with the same result."""
    n = MOST_REMEMBERED + 10
    first = abc()
    grown = first.add("wide", hp.sink(print, *(f"x{chr(i)}" for i in range(0x4E00, 0x4E00 + n))))
    later = grown.remove("out")
    assert later.is_edit_of(first)
    assert later.changed_since(first) is None
    assert changed(later, grown) == later.changed
    assert difference(first, later) == differs(first, later)


# ---- errors


def test_a_missing_node_is_named_with_the_way_to_its_sink() -> None:
    """The key, who wanted it, and the chain."""
    topology = hp.Topology(lambda k: hp.map(value, "tmp") if k == "parse" else None)
    with pytest.raises(hp.UnmetDependency) as caught:
        topology.add("temp", hp.source([1])).add("out", hp.sink(print, "parse"))
    error = caught.value
    assert (error.key, error.wanted_by, error.chain) == ("tmp", "parse", ("tmp", "parse", "out"))
    assert '"tmp" -> "parse" -> "out"' in str(error)
    assert "the factory has no case for it" in str(error)
    assert 'did you mean "temp"?' in str(error)


def test_a_missing_node_deep_down_is_named_with_the_whole_way() -> None:
    """Also where the edit was in the middle, or took the node away."""
    topology = abc().add("x", hp.source([1])).replace("bc", hp.map(value, "x"))
    with pytest.raises(hp.UnmetDependency) as caught:
        topology.replace("bc", hp.map(value, "1"))
    assert caught.value.chain == ("1", "bc", "abc", "out")
    given_only = hp.Topology().update({"n": hp.source([1]), "m": hp.map(value, "n"), "out": hp.sink(print, "m")})
    with pytest.raises(hp.UnmetDependency, match="there is no factory") as caught:
        given_only.remove("n")
    assert caught.value.chain == ("n", "m", "out")


def test_a_long_way_is_cut_short_in_the_text() -> None:
    """The error has all of it."""
    topology = hp.Topology(lambda k: hp.map(value, k - 1) if k else None)
    with pytest.raises(hp.UnmetDependency) as caught:
        topology.add("out", hp.sink(print, 1000))
    assert len(caught.value.chain) == 1002
    assert "990 more" in str(caught.value)
    assert len(str(caught.value)) < 300


def test_cycles_show_the_circle_in_reading_order() -> None:
    """Each is read by the next; found among given nodes, and by the factory's own."""
    topology = hp.Topology().update(
        {"a": hp.source([1]), "b": hp.map(value, "a"), "c": hp.map(value, "b"), "out": hp.sink(print, "c")}
    )
    with pytest.raises(hp.CycleError, match="let one of them read something else") as caught:
        topology.replace("a", hp.map(value, "c"))
    assert caught.value.cycle == ("a", "b", "c", "a")
    with pytest.raises(hp.CycleError) as caught:
        hp.Topology(lambda k: hp.map(value, (k + 1) % 3)).add("out", hp.sink(print, 0))
    assert caught.value.cycle == (0, 2, 1, 0)
    with pytest.raises(hp.CycleError) as caught:
        topology.replace("b", hp.map(value, "a", "b"))
    assert caught.value.cycle == ("b", "b")


def test_a_cycle_of_mappings_hints_at_the_order_of_patterns() -> None:
    """The mistake everybody makes: `{"feed": name}` also matches `{"feed": name, "rollup_s": 10}`."""

    def factory(k: Any) -> Node | None:
        match k:
            case {"feed": name}:
                return hp.map(value, {"feed": name, "rollup_s": 10})
        return None

    with pytest.raises(hp.CycleError, match="a mapping pattern in the factory also matches larger mappings"):
        hp.Topology(factory).add("out", hp.sink(print, {"feed": "cpu"}))


def test_an_endless_factory_ends() -> None:
    """Every key needs a larger one: it fails in the end, and says why."""
    with pytest.raises(hp.FactoryError, match="without end: a mapping pattern"):
        hp.Topology(lambda k: hp.map(value, k + 1, k + 2)).add("out", hp.sink(print, 0))
    with pytest.raises(hp.FactoryError, match="100 levels") as caught:
        hp.Topology(lambda k: hp.map(value, {"a": k})).add("out", hp.sink(print, {"a": 1}))
    assert isinstance(caught.value.__cause__, hp.UnfreezableKey)


def test_what_the_factory_raises_is_the_cause() -> None:
    """And the key it was asked for is named."""
    with pytest.raises(hp.FactoryError, match=r'"12".*it raised ZeroDivisionError: .*by zero') as caught:
        hp.Topology(lambda k: 1 // 0).add("out", hp.sink(print, "12"))  # type: ignore[arg-type, return-value]
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert caught.value.key == "12"


def test_a_factory_gives_nodes() -> None:
    """Nothing else; a coroutine function is told that it is none."""

    async def factory(k: Key) -> Node:
        raise AssertionError

    with pytest.raises(hp.FactoryError, match=r"it gave 'no node', which is neither a node nor None"):
        hp.Topology(lambda k: "no node").add("out", hp.sink(print, 1))  # type: ignore[arg-type, return-value]
    with pytest.raises(hp.FactoryError, match="factories are plain functions"):
        hp.Topology(factory).add("out", hp.sink(print, 1))  # type: ignore[arg-type]
    gc.collect()  # a coroutine left behind would warn now


def test_open_ends_are_refused() -> None:
    """A node that reads nothing and is no source can be made, and put in nowhere."""
    open_end = hp.map(value)
    with pytest.raises(hp.OpenEnd, match=r'"m" is a map that reads nothing: .*hp.map\(\.\.\., key\)'):
        hp.Topology().add("m", open_end)
    with pytest.raises(hp.OpenEnd, match="is a collect that reads nothing"):
        abc().replace("out", hp.collect())
    with pytest.raises(hp.OpenEnd):
        abc().update({"bc": open_end})
    with pytest.raises(hp.OpenEnd, match="404"):
        hp.Topology(lambda k: open_end).add("out", hp.sink(print, 404))


def test_what_is_there_is_not_added_again() -> None:
    """Neither a given nor a generated node; `replace` is what is meant."""
    for k in ("out", "bc"):
        with pytest.raises(hp.DuplicateKey, match=f'"{k}" is there already: use replace'):
            abc().add(k, hp.source([1]))
    with pytest.raises(hp.DuplicateKey):
        hp.Topology().add("n", hp.source([1])).add("n", hp.source([1]))


@pytest.mark.parametrize(
    ("ask", "text"),
    [
        (lambda t: t.replace("abd", hp.source([1])), 'is neither given nor active; did you mean "abc"'),
        (lambda t: t.remove("abd"), 'did you mean "abc"'),
        (lambda t: t.remove("abc"), "was made by the factory: it goes by itself"),
        (lambda t: t.update({"abc": None}), "was made by the factory"),
        (lambda t: t.readers("idle"), "is given but not active: no sink needs it"),
        (lambda t: t.reads("abd"), "did you mean"),
        (lambda t: t.upstream("idle"), "no sink needs it"),
        (lambda t: t.downstream(17), "17 is neither given nor active"),
        (lambda t: t.epoch_of("idle"), "no sink needs it"),
    ],
)
def test_unknown_keys_are_told_apart(ask: Callable[[Topology], object], text: str) -> None:
    """Given and not needed, generated and not to be removed, spelt otherwise, or not there at all."""
    with pytest.raises(hp.UnknownKey, match=text) as caught:
        ask(abc().add("idle", hp.source([1])))
    assert isinstance(caught.value, KeyError)


def test_a_given_node_that_is_not_active_can_be_edited() -> None:
    """It is there, though it does not run."""
    topology = abc().add("idle", hp.source([1]))
    assert topology.replace("idle", hp.source([2])).given["idle"] == hp.source([2])
    assert topology.remove("idle") == abc()


@pytest.mark.parametrize(
    "edit", [Topology.add, Topology.replace, lambda topology, name, new: topology.update({name: new})]
)
def test_only_nodes_are_taken(edit: Callable[[Topology, Key, Any], object]) -> None:
    """The text shows the value and what makes a node."""
    topology = abc() if edit is Topology.replace else hp.Topology()
    text = r'\("out", <function val.*\): that is no node, give what hp\.map\(fn, key\)'
    with pytest.raises(hp.UsageError, match=text):
        edit(topology, "out", value)


def test_a_sink_is_not_read() -> None:
    """Whether the reader comes, or the node becomes a sink."""
    with pytest.raises(hp.TopologyError, match='"more" reads "out", but a sink gives nothing'):
        abc().add("more", hp.sink(print, "out"))
    with pytest.raises(hp.TopologyError, match='"abc" reads "bc", but a collect gives nothing'):
        abc().replace("bc", hp.collect("c"))
    with pytest.raises(hp.TopologyError, match="but a sink gives nothing"):
        hp.Topology(lambda k: hp.sink(print, "x")).add("out", hp.sink(print, "m"))


def test_only_a_route_has_outputs() -> None:
    """Whether the reader comes, or the route becomes something else."""
    with pytest.raises(hp.TopologyError, match="only a route or a process has outputs, and that is a map"):
        abc().add("more", hp.sink(print, hp.output("abc", 1)))
    routed = abc().replace("bc", hp.route(value, "c")).replace("abc", hp.map(value, hp.output("bc", "x")))
    with pytest.raises(hp.TopologyError, match=r'"abc" reads output\("bc", "x"\), but only a route or a process'):
        routed.replace("bc", hp.map(value, "c"))
    with pytest.raises(hp.UsageError, match="that is an output of a route"):
        abc().add(hp.output("bc", 1), hp.source([1]))


def test_a_factory_is_a_function() -> None:
    """Or None."""
    with pytest.raises(hp.UsageError, match="the factory is a function"):
        hp.Topology({"a": 1})  # type: ignore[arg-type]
    with pytest.raises(hp.UsageError, match="the factory is a function"):
        abc().refactor("factory")  # type: ignore[arg-type]


def test_two_edits_of_one_key_are_refused() -> None:
    """Which of them was meant?"""
    twice: dict[Hashable, Node] = {frozenset({(1,)}): hp.source([1]), OneTuple(): hp.source([2])}
    with pytest.raises(hp.UsageError, match="two of the keys given are equal when frozen"):
        hp.Topology().update(twice)


class OneTuple(frozenset[Any]):
    """Equal, when frozen, to `frozenset({(1,)})`, and not before."""

    def __new__(cls) -> OneTuple:
        return super().__new__(cls, {(1,)})

    def __eq__(self, other: object) -> bool:
        return self is other

    __hash__ = frozenset.__hash__


# ---- the value


def test_a_topology_is_a_value() -> None:
    """Equal by what is in it, not hashable, shown in a line."""
    assert abc() == abc()
    assert abc() != abc().add("n", hp.source([1]))
    assert abc() != abc().refactor(lambda k: letters(k))
    assert abc() != "abc"
    assert hp.Topology() == hp.Topology()
    assert repr(abc()) == "<Topology: 1 nodes given, 4 active, factory letters>"
    assert repr(hp.Topology()) == "<Topology: 0 nodes given, 0 active, no factory>"
    with pytest.raises(TypeError, match="unhashable"):
        hash(abc())
    with pytest.raises(AttributeError):
        abc().factory = None  # type: ignore[misc]


def test_an_edit_leaves_the_topology_as_it_was() -> None:
    """Whether it succeeds or fails."""
    topology = abc()
    readers = {k: topology.readers(k) for k in topology.active}
    topology.add("more", hp.sink(print, "bc", "c"))
    topology.remove("out")
    with pytest.raises(hp.UnmetDependency):
        topology.add("more", hp.sink(print, "bc", "1"))
    assert topology == abc()
    assert {k: topology.readers(k) for k in topology.active} == readers


@pytest.mark.parametrize("is_on", [True, False])
def test_garbage_collection_is_left_as_it_was(is_on: bool) -> None:
    """Off while a graph is built, then as the user has it, also when the edit fails."""
    seen: list[bool] = []

    def factory(k: str) -> Node | None:
        seen.append(gc.isenabled())
        return letters(k)

    was_on = gc.isenabled()
    try:
        (gc.enable if is_on else gc.disable)()
        topology = hp.Topology(factory).add("out", hp.sink(print, "abc"))
        assert gc.isenabled() == is_on
        with pytest.raises(hp.UnmetDependency):
            topology.add("other", hp.sink(print, "1"))
        assert gc.isenabled() == is_on
    finally:
        (gc.enable if was_on else gc.disable)()
    assert not any(seen)
