"""The region of a change is what its definition says, and finding it costs no more than what lies above and below."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Container
from operator import itemgetter
from typing import TypeAlias

import attrs
import pytest
from change_model import Graph, Node, naive_region, random_graph, reached_from
from hypothesis import given
from hypothesis import strategies as st

from hotplumb.region import Region, awaited_below, region_of

Link: TypeAlias = tuple[Node, Node, int]
"""(its reader, its writer, which of the links that the reader reads)."""


@attrs.frozen
class Asked:
    """A graph, and what is asked about it."""

    graph: Graph
    touched: frozenset[Node]
    many: frozenset[Node] = frozenset()
    unsettled: frozenset[Node] = frozenset()
    calls: Counter[Node] = attrs.field(factory=Counter, eq=False, repr=False)  # {node: how often for its neighbours}

    def region(self, without: str = "") -> Region[Node]:
        """What is found."""
        return region_of(
            self.touched,
            inputs=self._asks(0),
            outputs=self._asks(1),
            writer=itemgetter(1),
            reader=itemgetter(0),
            is_many=self.many.__contains__,
            unsettled=self.unsettled,
            without=without,
        )

    def below(self, closed: Container[Link] = ()) -> dict[Node, set[Link]]:
        """{each node below the region: the links on which a settling marker is to come in}."""
        counts, links = awaited_below(
            self.region().inside, outputs=self._asks(1), reader=itemgetter(0), is_closed=closed.__contains__
        )
        found = {node: {link for link in links if link[0] == node} for node in counts}
        assert {node: len(awaited) for node, awaited in found.items()} == counts
        return found

    def _asks(self, end: int) -> Callable[[Node], Collection[Link]]:
        """What gives the links whose reader, or writer, a node is."""
        links = defaultdict[Node, list[Link]](list)
        for link in self.all_links:
            links[link[end]].append(link)
        return lambda node: self.calls.update([node]) or links[node]

    @property
    def all_links(self) -> list[Link]:
        return [
            (reader, source, number) for reader, sources in self.graph.items() for number, source in enumerate(sources)
        ]

    def naive(self) -> Region[Node]:
        """What its definition says."""
        return naive_region(self.graph, self.touched, self.many, self.unsettled)

    @property
    def links(self) -> list[tuple[Node, Node]]:
        return [(source, reader) for reader, sources in self.graph.items() for source in sources]


def random_asked(seed: int) -> Asked:
    rng = random.Random(seed)
    graph = random_graph(rng, rng.randint(1, 12))

    def some(chance: float) -> frozenset[Node]:
        return frozenset(key for key in graph if rng.random() < chance)

    return Asked(graph, some(rng.choice([0.1, 0.3])), some(rng.choice([0, 0.3])), some(rng.choice([0, 0.3])))


@st.composite
def asked(draw: st.DrawFn) -> Asked:
    """Nodes read any of those before them, some by two links."""
    graph: dict[Node, tuple[Node, ...]] = {0: ()}
    for key in range(1, draw(st.integers(1, 8))):
        graph[key] = tuple(draw(st.lists(st.integers(0, key - 1), max_size=3)))
    some = st.frozensets(st.sampled_from(sorted(graph)))
    return Asked(graph, draw(some), draw(some), draw(some))


# --- against the definition


@given(asked())
def test_a_region_is_what_its_definition_says(asked: Asked) -> None:
    """Every node on a path between two anchored nodes, and its heads."""
    assert asked.region() == asked.naive()


def test_the_regions_of_random_graphs_are_what_the_definition_says(seeds: Callable[[int], list[int]]) -> None:
    """Larger graphs than Hypothesis draws, in larger numbers."""
    for seed in seeds(4000):
        asked = random_asked(seed)
        assert asked.region() == asked.naive(), f"seed {seed}"


@pytest.mark.parametrize("clause", ["family", "paths", "unsettled"])
def test_a_clause_left_out_gives_another_region(clause: str) -> None:
    """The comparison above can fail."""
    assert any(asked.region(without=clause) != asked.naive() for asked in map(random_asked, range(100)))


# --- what follows from it


@given(asked())
def test_what_is_touched_is_inside(asked: Asked) -> None:
    """Every node that differs switches."""
    assert asked.touched <= asked.region().inside


@given(asked())
def test_heads_read_nothing_inside_and_all_others_do(asked: Asked) -> None:
    """So heads wait for no marker, and all others for at least one."""
    found = asked.region()
    assert found.heads == {key for key in found.inside if not found.inside & set(asked.graph[key])}


@given(asked())
def test_no_path_leaves_a_region_and_comes_back(asked: Asked) -> None:
    """What has left it has passed all that switches."""
    inside = asked.region().inside
    for key in asked.below():
        assert not reached_from(key, asked.links) & inside


@given(asked(), st.data())
def test_a_settling_marker_is_awaited_on_all_links_from_inside_or_below_but_closed_ones(
    asked: Asked, data: st.DataObject
) -> None:
    """By all that derives from the region and is not inside, also where all its links are closed."""
    closed = data.draw(st.frozensets(st.sampled_from(asked.all_links))) if asked.all_links else frozenset()
    inside = asked.region().inside
    below = {key for anchor in inside for key in reached_from(anchor, asked.links)} - inside
    assert asked.below(closed) == {
        key: {link for link in asked.all_links if link[0] == key and link[1] in inside | below} - closed
        for key in below
    }


@given(asked())
def test_nothing_touched_is_no_region(asked: Asked) -> None:
    """Though earlier changes may not have settled."""
    assert attrs.evolve(asked, touched=frozenset()).region() == Region(frozenset(), frozenset())


# --- cases

CHAIN: Graph = {0: (), 1: (0,), 2: (1,), 3: (2,)}
FAN: Graph = {0: (), 1: (0,), 2: (1,), 3: (1,), 4: (2, 3)}  # 0 -> 1 -> (2, 3) -> 4


@pytest.mark.parametrize("key", CHAIN)
def test_one_touched_map_of_a_chain_is_a_region_of_one(key: int) -> None:
    """It switches at once, whatever the backlog above it."""
    asked = Asked(CHAIN, frozenset([key]))
    assert asked.region() == Region(frozenset([key]), frozenset([key]))
    assert asked.below().keys() == set(range(key + 1, 4))


def test_where_a_family_could_be_parted_the_node_that_parts_it_is_the_head() -> None:
    """Two ways lead to what is touched; what lies on them has to switch in order."""
    assert Asked(FAN, frozenset([4])).region() == Region(frozenset([1, 2, 3, 4]), frozenset([1]))


def test_a_way_that_leads_to_nothing_touched_parts_no_family() -> None:
    """Only one of the two ways leads to 2."""
    asked = Asked(FAN, frozenset([2]))
    assert asked.region() == Region(frozenset([2]), frozenset([2]))
    assert asked.below() == {4: {(4, 2, 0)}}


def test_two_links_to_one_reader_lead_twice() -> None:
    """As a node reads two outputs of one route: items on the one link do not wait for those on the other."""
    asked = Asked({0: (), 1: (0,), 2: (1, 1)}, frozenset([2]))
    assert asked.region() == Region(frozenset([1, 2]), frozenset([1]))


def test_two_links_to_one_reader_are_one_to_a_node_with_many_outputs() -> None:
    """A caller who knows readers only as a set may say so in this way."""
    twice = Asked({0: (), 1: (0,), 2: (1, 1), 3: (2,)}, frozenset([3, 2]))
    assert Asked(CHAIN, frozenset([3, 2]), many=frozenset([1])).region() == twice.region()


@pytest.mark.parametrize("key", [0, 1, 2])
def test_a_node_with_many_outputs_for_one_input_is_a_head_though_only_one_link_leads(key: int) -> None:
    """Its outputs are one family, and the reader must not switch between them."""
    asked = Asked(CHAIN, frozenset([3]), many=frozenset([key]))
    assert asked.region() == Region(frozenset(range(key, 4)), frozenset([key]))


def test_many_outputs_matter_only_where_they_lead_to_what_is_touched() -> None:
    """Neither below it nor beside it."""
    assert Asked(CHAIN, frozenset([1]), many=frozenset([2, 3])).region().inside == {1}
    assert Asked(FAN, frozenset([2]), many=frozenset([3])).region().inside == {2}


def test_what_was_touched_and_has_not_settled_is_the_head_of_what_is_touched_below_it() -> None:
    """What its old version made is still on the way, and must not meet the new version of both."""
    asked = Asked(CHAIN, frozenset([2]), unsettled=frozenset([1, 3]))
    assert asked.region() == Region(frozenset([1, 2]), frozenset([1]))


def test_regions_that_do_not_meet_have_heads_of_their_own() -> None:
    """One change may pass through several parts of a graph at once."""
    asked = Asked({0: (), 1: (0,), 2: (), 3: (2,), 4: (1, 3)}, frozenset([1, 3]))
    assert asked.region() == Region(frozenset([1, 3]), frozenset([1, 3]))


# --- what it costs


@given(asked())
def test_only_what_lies_above_or_below_is_asked_for_its_neighbours(asked: Asked) -> None:
    """Each node a few times: above what is touched, inside, and below."""
    above = {key for key in asked.graph if reached_from(key, asked.links) & asked.touched}
    inside = asked.region().inside
    assert all(count <= 3 for count in asked.calls.values())
    assert asked.calls.keys() <= above | inside | asked.below().keys()


def test_the_cost_follows_what_is_above_and_below_and_not_the_graph() -> None:
    """A chain of ten beside one of ten thousand, which is never asked, and with a crowd that reads its source."""
    alone: Graph = {0: (), **{key: (key - 1,) for key in range(1, 10)}}
    beside: Graph = {100: (), **{key: (key - 1,) for key in range(101, 10_100)}}
    crowd: Graph = dict.fromkeys(range(20_000, 30_000), (0,))
    small, large = Asked(alone, frozenset([5])), Asked({**alone, **beside, **crowd}, frozenset([5]))
    assert small.region() == large.region()
    assert small.calls.total() <= 3 * len(alone)
    assert small.below() == large.below()
    assert small.calls == large.calls
