"""A change goes through a graph in order, whatever the order of steps; and each rule of that is needed.

Three thousand fresh cases a run, each a random graph with random changes and one random interleaving; all interleavings
of some small cases; and both again with one rule left out, where something must go wrong.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Set

import pytest
from change_model import (
    Case,
    Changing,
    Edit,
    Graph,
    Hop,
    Item,
    Link,
    Marker,
    Node,
    Run,
    at_random,
    each_run,
    random_case,
)
from hypothesis import given
from hypothesis import strategies as st

from hotplumb._alignment import Alignment, Settling
from hotplumb.keys import Key

CHAIN: Graph = {0: (), 1: (0,), 2: (1,)}
LONG_CHAIN: Graph = {**CHAIN, 3: (2,)}
CUT_CHAIN: Graph = {**LONG_CHAIN, 2: ()}
SHORT_CHAIN: Graph = {0: (), 1: (0,)}
DIAMOND: Graph = {0: (), 1: (0,), 2: (0, 1)}  # 0 -> 2 directly and by way of 1


def replacing(graph: Graph, *keys: Node) -> Edit:
    """Give these nodes another process."""
    return Edit(graph, frozenset(keys))


SMALL = {
    "two of a chain are replaced, one after the other": Case(CHAIN, (replacing(CHAIN, 1), replacing(CHAIN, 2))),
    "a node is put between two": Case(SHORT_CHAIN, (Edit({0: (), 1: (2,), 2: (0,)}),)),
    "the start of a diamond is replaced": Case(DIAMOND, (replacing(DIAMOND, 0),), items=1),
    "the end of a diamond is replaced": Case(DIAMOND, (replacing(DIAMOND, 2),), items=1),
    "both ends of a diamond are replaced": Case(DIAMOND, (replacing(DIAMOND, 0, 2),), items=1),
    "a chain is cut, then its start is replaced": Case(LONG_CHAIN, (Edit(CUT_CHAIN), replacing(CUT_CHAIN, 0)), items=1),
    "what a node that closes its link reads is replaced": Case(CHAIN, (replacing(CHAIN, 0),), ends={1: 1}),
}


def random_run(seed: int, without: str = "", kind: type[Run] = Run) -> Run:
    """Play one random case with one random interleaving."""
    rng = random.Random(seed)
    run = kind(random_case(rng), at_random(rng), without)
    run.play()
    return run


# --- all rules together


@pytest.mark.parametrize("part", range(6))
def test_changes_keep_every_promise_on_random_graphs(part: int, seeds: Callable[[int], list[int]]) -> None:
    """No family meets both versions, every trail lies in one reign, nothing is lost, changes end, and then settle."""
    for seed in seeds(500):
        assert random_run(seed).verdict == "ok", f"seed {seed}"


@pytest.mark.parametrize("name", SMALL)
def test_changes_keep_every_promise_in_every_order_of_steps(name: str) -> None:
    """Of a small case all interleavings are tried."""
    verdicts = Counter(run.verdict for run in each_run(SMALL[name]))
    assert verdicts.keys() == {"ok"}
    assert verdicts["ok"] > 10


def test_a_way_that_a_later_change_makes_may_lead_a_family_to_both_versions() -> None:
    """Where 1 has a backlog, 3 is replaced, and then read by that way too: so far the promise does not go."""
    before: Graph = {0: (), 1: (0,), 2: (), 3: (0, 2)}
    case = Case(before, (replacing(before, 3), Edit({**before, 2: (1,)})))
    runs = [Run(case, at_random(random.Random(seed))) for seed in range(300)]
    assert {run.play() for run in runs} == {"ok"}
    assert any({hop.epoch for hop in run.met[0, 1] if hop.key == 3} == {0, 1} for run in runs)


# --- each rule by itself


@pytest.mark.parametrize("clause", ["family", "paths", "align", "late", "plan"])
def test_a_rule_left_out_is_caught_on_random_graphs(clause: str) -> None:
    """The promises above can be broken."""
    verdicts = [random_run(seed, clause).verdict for seed in range(100)]
    assert set(verdicts) > {"ok"}


@pytest.mark.parametrize(
    ("clause", "name", "verdict"),
    [
        ("family", "the end of a diamond is replaced", "mixed"),
        ("paths", "both ends of a diamond are replaced", "mixed"),
        ("unsettled", "two of a chain are replaced, one after the other", "reign"),
        ("align", "the end of a diamond is replaced", "mixed"),
        ("late", "a node is put between two", "mixed"),
        ("plan", "the start of a diamond is replaced", "settled early"),
        ("order", "a chain is cut, then its start is replaced", "settled early"),
        ("closed", "what a node that closes its link reads is replaced", "settled early"),
    ],
)
def test_a_rule_left_out_is_caught_in_some_order_of_steps(clause: str, name: str, verdict: str) -> None:
    """However rare the order is in which it matters."""
    assert any(run.verdict == verdict for run in each_run(SMALL[name], clause))


links = st.integers(0, 5)
some_links = st.frozensets(links)
deliveries = st.permutations(range(6))


@given(some_links, deliveries, some_links)
def test_a_link_is_read_until_it_has_delivered_the_marker(
    awaited: frozenset[int], order: list[int], closed: frozenset[int]
) -> None:
    """Rule 1; links from outside the region are read all the time."""
    alignment = Alignment(awaited)
    delivered: set[int] = set()
    for link in order:
        assert {link for link in order if alignment.may_read(link)} == set(order) - delivered
        if link in closed:
            alignment.close(link)
        elif link in awaited:
            assert alignment.awaits(link)
            alignment.deliver(link)
            delivered.add(link)
        assert not alignment.awaits(link)


@given(some_links, deliveries, some_links)
def test_a_node_switches_when_every_link_has_delivered_the_marker_or_is_closed(
    awaited: frozenset[int], order: list[int], closed: frozenset[int]
) -> None:
    """Rules 2 and 3, in whatever order that happens."""
    alignment = Alignment(awaited)
    left = set(awaited)
    for link in order:
        assert alignment.is_complete == (not left)
        if link in closed:
            alignment.close(link)
        elif link in awaited:
            alignment.deliver(link)
        left.discard(link)
    assert alignment.is_complete


def test_a_head_may_switch_at_once() -> None:
    """Rule 2: it awaits no marker."""
    assert Alignment([]).is_complete


def test_new_links_are_left_alone_before_the_switch() -> None:
    """Rule 4, also when all markers have come in."""
    alignment = Alignment(["a"])
    assert not alignment.takes_up_new_links
    alignment.deliver("a")
    assert alignment.is_complete
    assert not alignment.takes_up_new_links


def settling_of(
    awaited: dict[Key, set[int]], touched: Set[Key] = frozenset(), inside: Set[Key] = frozenset()
) -> Settling[Key, tuple[Key, int]]:
    """What awaits the marker on `{node: its links}`."""
    links = {(key, link) for key, links in awaited.items() for link in links}
    return Settling(touched, inside, {key: len(links) for key, links in awaited.items()}, links)


below: st.SearchStrategy[dict[Key, set[int]]] = st.dictionaries(st.sampled_from("uvw"), st.sets(links, min_size=1))


@given(below, st.randoms(use_true_random=False))
def test_the_settling_marker_is_passed_on_once_when_it_has_come_in_on_all_links_of_the_plan(
    awaited: dict[Key, set[int]], rng: random.Random
) -> None:
    """Rule 5; what comes in on a link that is new since, or twice, counts for nothing."""
    left = {key: set(links) for key, links in awaited.items()}
    settling = settling_of(left)
    events = [(key, link) for key in "uvwx" for link in range(8)] * 2
    rng.shuffle(events)
    for key, link in events:
        had = bool(left.get(key))
        left.get(key, set()).discard(link)
        assert settling.came(key, (key, link)) == (had and not left[key])
        assert settling.is_done == (not any(left.values()))


def test_a_node_that_awaits_the_settling_marker_on_no_link_passes_it_on_at_once() -> None:
    """Rule 5: it has closed its links, but what it made of their items may be on the way."""
    settling = settling_of({"closed": set(), "open": {1}})
    assert settling.at_once() == ["closed"]
    assert settling.at_once() == []
    assert not settling.came("closed", ("closed", 2))
    assert not settling.is_done
    assert settling.came("open", ("open", 1))
    assert settling.is_done


@given(st.permutations(["switch a", "switch b", "pass u", "remove v"]))
def test_a_change_has_settled_when_all_have_switched_and_all_that_are_still_there_have_passed_the_marker_on(
    order: list[str],
) -> None:
    """Rule 6, in whatever order that happens."""
    settling = settling_of({"u": {1}, "v": {2, 3}}, touched=frozenset("a"), inside=frozenset("ab"))
    for event in order:
        assert not settling.is_done
        match event.split():
            case "switch", key:
                settling.switched(key)
            case "pass", key:
                assert settling.came(key, (key, 1))
            case _, key:
                settling.gone(key)
    assert settling.is_done
    assert settling.touched == {"a"}


def test_who_takes_the_place_of_a_node_passes_the_settling_marker_on_for_it() -> None:
    """With what has come in before counted; who takes the place of a node that has passed it on does not."""
    settling = settling_of({"u": {1, 2}, "v": {3}})
    assert not settling.came("u", ("u", 1))
    settling.replaced("u", "its successor")
    assert not settling.came("u", ("u", 2))
    assert settling.came("its successor", ("u", 2))
    settling.replaced("its successor", "the next")
    assert not settling.is_done
    assert settling.came("v", ("v", 3))
    assert settling.is_done


# --- the tests of the test


def test_a_run_repeats_from_its_seed() -> None:
    """The same seed gives the same case and the same order of steps."""
    one, other = random_run(7), random_run(7)
    assert one.case == other.case
    assert [link.received for link in one.links] == [link.received for link in other.links]


def test_seeds_differ_in_all_that_may_happen() -> None:
    """What the generator never made would never be tested."""
    runs = [random_run(seed) for seed in range(300)]
    changes = [change for run in runs for change in run.changes]
    assert sum(len(change.region.inside) > 2 for change in changes) > 50
    assert sum(change.region.heads < change.region.inside for change in changes) > 50
    assert sum(change.has_below for change in changes) > 50
    assert sum(len(change.region.heads) > 1 for change in changes) > 50
    assert sum(len(run.changes) == 3 for run in runs) > 50
    assert sum(link.is_closed for run in runs for link in run.links) > 50
    assert sum(link.name > 0 for run in runs for link in run.links) > 20  # two links between the same two nodes
    assert sum(len(link.received) > 10 for run in runs for link in run.links) > 500
    assert {run.case.capacity for run in runs} == {1, 2, 4, 99}
    assert sum(map(returns, runs)) > 5


def returns(run: Run) -> bool:
    """Whether a node is removed and comes back."""
    graphs = [run.case.graph, *(edit.graph for edit in run.case.edits)]
    later = [frozenset().union(*graphs[place:]) for place in range(len(graphs))]
    return any(graphs[place - 1].keys() & later[place] - graphs[place].keys() for place in range(1, len(graphs)))


class Losing(Run):
    def send(self, key: Node, came: Item, hop: Hop) -> None:
        super().send(key, came, hop)
        for link in self.outputs[key]:
            if len(link.sent) == 3 and not link.is_closed:
                link.entries.pop()


class Swapping(Run):
    def read(self, key: Node, link: Link) -> None:
        link.entries.rotate(1 if len(link.items) == len(link.entries) else 0)
        super().read(key, link)


class Doubling(Run):
    def read(self, key: Node, link: Link) -> None:
        entry = link.entries[0]
        super().read(key, link)
        if not isinstance(entry, Marker) and len(link.received) == 2:
            link.entries.appendleft(entry)


class Deaf(Run):
    def take_marker(self, key: Node, link: Link, marker: Marker) -> None:
        if marker.what == "settle":
            super().take_marker(key, link, marker)


class Endless(Run):
    def take_marker(self, key: Node, link: Link, marker: Marker) -> None:
        if marker.what == "mark":
            super().take_marker(key, link, marker)


class Hasty(Run):
    def pass_on(self, key: Node, changing: Changing) -> None:
        for link in self.outputs[key]:
            link.entries.appendleft(Marker("settle", changing))


@pytest.mark.parametrize(
    ("kind", "verdict"),
    [
        (Losing, "lost"),
        (Swapping, "lost"),
        (Doubling, "doubled"),
        (Deaf, "stuck"),
        (Endless, "never settled"),
        (Hasty, "settled early"),
    ],
)
def test_a_run_sees_what_goes_wrong(kind: type[Run], verdict: str) -> None:
    """A verdict that is always "ok" would hide every bug."""
    assert verdict in {random_run(seed, kind=kind).verdict for seed in range(60)}
