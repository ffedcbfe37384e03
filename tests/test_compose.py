"""Pipelines: what `|`, lists, mappings and choosers mean, how nodes get their names, and what is refused."""

from __future__ import annotations

import asyncio
import functools
import operator
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest
from pipelines import (
    Chain,
    Choice,
    Composer,
    Fan,
    Leaf,
    Named,
    Unit,
    Written,
    Wrong,
    check,
    play,
    play_and_check,
    random_pipeline,
)
from running import failure, run

import hotplumb as hp
from hotplumb.nodes import Node

ROOT = Path(__file__).parents[1]
EXAMPLE = 7  # any seed


def one(value: int) -> int:
    return value + 1


def two(value: int) -> int:
    return 2 * value


def parity(value: int) -> str:
    return "odd" if value % 2 else "even"


def text(value: int) -> str:
    return str(value)


A = hp.source([1, 2, 3, 4]).named("a")
B, C, D, E = (hp.map(one).named(name) for name in "bcde")
F = hp.collect().named("f")


def wiring(piece: Any) -> list[str]:
    """The lines it prints as, without the quotes."""
    return str(hp.broadcast(piece)).replace('"', "").splitlines()


def doing(**nodes: Callable[[int], Any]) -> list[Node]:
    return [hp.map(fn).named(name) for name, fn in nodes.items()]


# --- what is joined to what


def test_nodes_are_joined_in_the_order_written() -> None:
    """Each reads the one before."""
    assert wiring(A | B | C | F) == ["a -> b", "b -> c", "c -> f"]
    assert hp.run(A | B | C | F) == {"f": [3, 4, 5, 6]}


def test_a_list_broadcasts_and_joining_from_a_list_merges() -> None:
    """Lists nest, and stand at either end."""
    assert wiring(A | B | [C, D | E] | F) == ["a -> b", "b -> c", "b -> d", "d -> e", "c -> f", "e -> f"]
    assert wiring(A | [B, [C, D | [E, hp.map(two)]]] | F) == [
        *["a -> b", "a -> c", "a -> d", "d -> e", "d -> two"],
        *["b -> f", "c -> f", "e -> f", "two -> f"],
    ]
    assert wiring([A, hp.source("xy").named("s")] | B) == ["a -> b", "s -> b"]
    assert wiring(A | [B, C]) == ["a -> b", "a -> c"]


def test_every_end_is_joined_to_every_start() -> None:
    """A list behind a list."""
    assert wiring(A | [B, C] | [D, E]) == ["a -> b", "a -> c", "b -> d", "c -> d", "b -> e", "c -> e"]


def test_branches_keep_the_order_of_the_list() -> None:
    """In what is printed, in the nodes and in what is read."""
    branches = doing(**{f"n{i}": one for i in (3, 1, 2)})
    pipeline = A | branches | F
    assert list(pipeline.nodes()) == ["a", "n3", "n1", "n2", "f"]
    assert pipeline.nodes()["f"].reads == ("n3", "n1", "n2")
    assert (A | branches[::-1] | F).nodes()["f"].reads == ("n2", "n1", "n3")


def test_a_branch_may_end_in_a_sink() -> None:
    """What is joined behind the list reads the others."""
    kept: list[int] = []
    pipeline = A | [B | hp.sink(kept.append), C] | F
    assert wiring(pipeline) == ["a -> b", "b -> append", "a -> c", "c -> f"]
    assert hp.run(pipeline) == {"f": [2, 3, 4, 5]}
    assert kept == [2, 3, 4, 5]


def test_it_does_not_matter_what_is_joined_first() -> None:
    """A pipeline is composable again."""
    pieces: list[Any] = [A, B, hp.broadcast(C, D | E), hp.map(two), F]
    left = functools.reduce(operator.or_, pieces)
    right = functools.reduce(lambda below, above: above | below, reversed(pieces))
    assert left == right
    assert left == (A | B) | ([C, D | E] | (hp.map(two) | F))


def test_functions_say_what_lists_say() -> None:
    """`broadcast`, `route` and `merge`."""
    assert A | hp.broadcast(B, C | D) | F == A | [B, C | D] | F
    assert A | hp.route(parity, B, C) | F == A | [B, C, parity] | F
    assert A | hp.route(parity, [B, C]) | F == A | [B, C, parity] | F
    assert A | hp.route(parity, {"odd": B}) | F == A | [{"odd": B}, parity] | F == A | hp.route(parity) | {"odd": B} | F
    assert hp.merge(A | B, hp.source("x")) | F == [A | B, hp.source("x")] | hp.merge() | F
    assert hp.merge([B, C]) == [B, C] | hp.merge()
    assert hp.route(parity, [B, C, parity_index]) == hp.broadcast([[B, C, parity_index], parity])


def test_keys_still_make_nodes() -> None:
    """`hp.merge` and `hp.route` are the constructors too, and keys may be lists and mappings."""
    assert isinstance(hp.merge(), Node)
    assert hp.merge("a", {"b": [1]}, ["c", 2]).reads == ("a", hp.freeze({"b": [1]}), ("c", 2))
    assert hp.route(parity, ["a", 1], capacity=3, on_error=hp.discard()).reads == (("a", 1),)
    assert hp.route(parity, "a", capacity=3).capacity == hp.merge("a", capacity=3).capacity == 3


def test_options_go_to_the_node() -> None:
    """Those of the route, and of the merge."""
    nodes = (A | hp.route(parity, {"odd": B, "even": C}, capacity=3, on_error=hp.discard()) | F).nodes()
    assert (nodes["parity"].capacity, nodes["parity"].on_error) == (3, hp.discard())
    assert hp.merge(A, B, capacity=5).nodes()["merge"].capacity == 5


def test_a_piece_may_have_a_source_of_its_own() -> None:
    """As long as all of it is joined to a start."""
    rates = hp.source([10]).named("rates")
    piece = [hp.merge(), rates] | hp.map(one)
    assert wiring(A | piece | F) == ["a -> merge", "merge -> one", "rates -> one", "one -> f"]
    assert hp.run(piece | F, [1]).keys() == {"f"}


def test_what_reads_a_piece_by_key_is_a_part_of_it() -> None:
    """A reader of a node's errors needs no start of its own, where that node has one."""
    kept: list[Any] = []
    parse = hp.map(int, on_error=hp.discard()).named("parse")
    dead = hp.sink(lambda failure: kept.append(failure.item.value), hp.errors("parse"))
    assert hp.run(hp.source(["1", "x", "2"]) | [parse | F, dead]) == {"f": [1, 2]}
    assert hp.run([parse | F, hp.collect("parse").named("too")], ["3"]) == {"f": [3], "too": [3]}
    assert kept == ["x"]


def test_pipelines_are_put_side_by_side() -> None:
    """With no sources before it, a list joins nothing."""
    both = hp.broadcast(A | F, hp.source("x") | hp.collect().named("g"))
    assert wiring(both) == ["a -> f", "source -> g"]
    assert hp.run(both) == {"f": [1, 2, 3, 4], "g": ["x"]}


# --- choosing


@pytest.mark.parametrize(
    "choose",
    [
        lambda value: "b" if value < 3 else "c",
        lambda value: 0 if value < 3 else 1,
        lambda value: value >= 3,
        lambda value: "b" if value < 3 else 1,
    ],
)
def test_a_chooser_names_the_branch_or_gives_its_index(choose: Callable[[int], Any]) -> None:
    """Either, for each value; False and True are the first and the second."""
    b, c = hp.collect().named("b"), hp.collect().named("c")
    assert hp.run(A | [b, c, choose]) == {"b": [1, 2], "c": [3, 4]}


def test_a_branch_is_called_by_the_key_of_its_first_node() -> None:
    """Of a longer one, of an inner list that chooses itself; or by the name of the whole."""
    inner: list[Any] = [hp.collect().named("x"), hp.collect().named("y"), parity_index]
    branches = [B | D | F, inner, (C | hp.collect().named("z")).named("piece")]
    names = {1: "b", 2: "parity_index", 3: "piece", 4: ("piece", "c")}
    pipeline = A | [*branches, names.get]
    assert hp.run(pipeline) == {"f": [3], "x": [2], "y": [], ("piece", "z"): [4, 5]}
    assert wiring(pipeline)[:2] == ["a -> get", "output(get, b) -> b"]


def parity_index(value: int) -> int:
    return value % 2


def test_a_mapping_routes_by_name() -> None:
    """Behind a route, or with the chooser in a list; names are frozen like keys."""
    odd, even = hp.collect().named("o"), hp.collect().named("e")
    found = {"o": [1, 3], "e": [2, 4]}
    assert hp.run(A | hp.route(parity) | {"odd": odd, "even": even}) == found
    assert hp.run(A | [{"odd": odd, "even": even}, parity]) == found
    assert hp.run(A | [{"odd": odd}, even, lambda value: "odd" if value % 2 else "e"]) == found
    assert hp.run(A | [{"odd": odd}, even, lambda value: "odd" if value % 2 else 1]) == found
    by_list = hp.route(lambda value: ["is", parity(value)]) | {("is", "odd"): odd, ("is", "even"): even}
    assert hp.run(A | by_list) == found


def test_a_route_keeps_the_order_of_each_branch(seed: int) -> None:
    """However the turns fall."""

    async def main() -> None:
        branches = doing(even=lambda value: ("even", value), odd=lambda value: ("odd", value))
        async with hp.Plumbing(hp.source(range(2000)) | [*branches, parity_index] | F) as plumbing:
            await plumbing.join()
            found = plumbing.collected()["f"]
        assert [value for name, value in found if name == "even"] == list(range(0, 2000, 2))
        assert [value for name, value in found if name == "odd"] == list(range(1, 2000, 2))

    run(main, seed)


async def slow_parity(value: int) -> str:
    await asyncio.sleep(0)
    return parity(value)


def test_a_chooser_may_be_async() -> None:
    """In a list, and with several calls at once."""
    odd, even = hp.collect().named("odd"), hp.collect().named("even")
    found = {"odd": [1, 3], "even": [2, 4]}
    assert hp.run(A | [odd, even, slow_parity]) == found
    assert hp.run(A | hp.route(slow_parity, odd, even, concurrency=3)) == found
    assert hp.run(A | hp.route(partial(slow_parity), concurrency=3) | {"odd": odd, "even": even}) == found


def test_a_chooser_that_gives_what_is_to_be_awaited_is_told(seed: int) -> None:
    """A plain function that calls an async one."""
    error = failure((A | [B, C, lambda value: slow_parity(value)] | F).topology(), seed)
    assert "make it `async def`" in str(error.__cause__)


@pytest.mark.parametrize(
    ("pipeline", "choice", "valid", "names"),
    [
        (A | [B, C, parity] | F, "odd", ("b", "c", 0, 1), '"b", "c", 0, 1'),
        (A | [B, C, lambda value: 2] | F, 2, ("b", "c", 0, 1), '"b", "c", 0, 1'),
        (A | [B, C, lambda value: -1] | F, -1, ("b", "c", 0, 1), '"b", "c", 0, 1'),
        (A | [B, C, lambda value: None] | F, None, ("b", "c", 0, 1), '"b", "c", 0, 1'),
        (A | [B, C, lambda value: [value]] | F, [1], ("b", "c", 0, 1), '"b", "c", 0, 1'),
        (A | [B, C, lambda value: object] | F, object, ("b", "c", 0, 1), '"b", "c", 0, 1'),
        (A | [hp.map(lambda value: value), C, parity] | F, "odd", (0, "c", 1), '0, "c", 1'),
        (A | hp.route(parity) | {"even": B, ("x", 1): C} | F, "odd", ("even", ("x", 1)), '"even", ("x", 1)'),
        (A | hp.route(slow_parity) | {"even": B} | F, "odd", ("even",), '"even"'),
        (A | [{"even": B}, C, parity] | F, "odd", ("even", "c", 1), '"even", "c", 1'),
        (A | [B.named(1), C, parity] | F, "odd", (1, "c", 0), '1, "c", 0'),
    ],
)
def test_a_chooser_that_names_no_branch_fails(
    pipeline: hp.Pipeline, choice: Any, valid: tuple[Any, ...], names: str, seed: int
) -> None:
    """The value goes nowhere silently; the error lists what it may give."""
    error = failure(pipeline.topology(), seed)
    cause = error.__cause__
    assert isinstance(cause, hp.UnknownBranch)
    assert isinstance(cause, hp.UsageError)
    assert (cause.choice, cause.valid) == (choice, valid)
    assert str(cause).endswith(f" gave {choice!r}, which names no branch: it may give {names}")
    assert error.item is not None
    assert error.item.value == 1


def test_the_chooser_that_failed_is_named(seed: int) -> None:
    """By its module and name."""
    error = failure((A | [B, C, parity] | F).topology(), seed)
    assert error.key == "parity"
    assert str(error.__cause__).startswith("test_compose.parity gave 'odd'")


def test_what_a_chooser_raises_is_raised(seed: int) -> None:
    """A KeyError or TypeError of its own is not taken for a wrong name."""
    for raised in (KeyError("mine"), TypeError("mine")):

        def choose(value: int, raised: Exception = raised) -> Any:
            raise raised

        assert failure((A | [B, C, choose] | F).topology(), seed).__cause__ is raised


def test_an_unwatched_output_is_no_mistake_where_somebody_reads_all() -> None:
    """A list of a mapping and a branch: the branch reads all that the route gives."""
    odd, whole = hp.collect().named("odd"), hp.collect().named("all")
    pipeline = A | hp.route(parity) | [{"odd": odd}, whole]
    assert wiring(pipeline) == ["a -> parity", "output(parity, odd) -> odd", "parity -> all"]
    assert hp.run(pipeline) == {"odd": [1, 3], "all": [1, 2, 3, 4]}


def test_a_name_of_a_branch_wins_over_an_index() -> None:
    """Where somebody names branches by numbers."""
    zero, one_ = hp.collect().named(0), hp.collect().named(1)
    assert hp.run(A | [one_, zero, parity_index]) == {0: [2, 4], 1: [1, 3]}


# --- names


class Doubler:
    def __call__(self, value: int) -> int:
        return 2 * value

    async def fetch(self, value: int) -> int:
        return value


class Scale(hp.Process):
    """Multiplies."""

    def __init__(self, factor: int) -> None:
        self.factor = factor

    def process(self, value: int) -> Any:
        return value * self.factor


class Identity(hp.Process):
    def process(self, value: int) -> Any:
        return value


def count() -> Iterator[int]:
    yield from range(3)


async def ticks() -> AsyncIterator[int]:
    yield 1


@pytest.mark.parametrize(
    ("node", "key"),
    [
        (hp.map(one), "one"),
        (hp.map(partial(partial(pow, 2), 3)), "pow"),
        (hp.map(str.strip), "strip"),
        (hp.map(Doubler()), "Doubler"),
        (hp.map(Doubler().fetch), "fetch"),
        (hp.map(operator.itemgetter("x")), "itemgetter"),
        (hp.map(lambda value: value), "map"),
        (hp.filter(lambda value: value), "filter"),
        (hp.stateful(lambda state, value: (state, [value]), 0), "stateful"),
        (hp.merge(), "merge"),
        (hp.collect(), "collect"),
        (hp.sink(print), "print"),
        (hp.source([1]), "source"),
        (hp.source(count), "count"),
        (hp.source(count()), "count"),
        (hp.source(ticks), "ticks"),
        (hp.source(partial(range, 3)), "range"),
        (hp.source(value for value in "ab"), "source"),
        (hp.process(Identity), "Identity"),
        (hp.process(partial(Scale, 2)), "Scale"),
        (hp.process(lambda: Scale(2)), "process"),
        (Scale(2), "Scale"),
        (Scale(2).named("x"), "x"),
        (hp.map(one).named({"a": [1]}), hp.freeze({"a": [1]})),
        (hp.collect("elsewhere").named(("t", 1)), ("t", 1)),
    ],
)
def test_nodes_are_named_by_their_function(node: Any, key: Any) -> None:
    """`.named` wins; what has no name of its own is called by its kind."""
    assert list(hp.broadcast(node).nodes()) == [key]


def test_what_has_no_name_is_numbered_in_the_order_written() -> None:
    """However it was put together, and around what is called so."""
    plain = [hp.map(lambda value: value + 1) for _ in range(3)]
    pipeline = hp.source([1]) | plain[0] | (plain[1] | hp.map(one).named("map_2") | plain[2]) | hp.collect()
    assert list(pipeline.nodes()) == ["source", "map", "map_3", "map_2", "map_4", "collect"]
    assert hp.run(pipeline) == {"collect": [5]}


def test_the_nodes_are_the_topology_s() -> None:
    """Closed, without names of their own: the key says it."""
    nodes = (A | [B, C | hp.map(two), parity] | F).nodes()
    assert nodes["b"] == hp.map(one, hp.output("parity", "b"))
    assert nodes["two"] == hp.map(two, "c")
    assert nodes["f"] == hp.collect("b", "two")
    assert nodes["a"] == hp.source([1, 2, 3, 4])
    assert (B | C).nodes() == {"b": hp.map(one), "c": hp.map(one, "b")}


def test_a_piece_is_used_twice_under_two_names() -> None:
    """All its keys are put under the name; what it chooses and reads of itself goes with them."""
    piece = [B | D, C, parity_index] | hp.map(two)
    both = A | [piece.named("left"), piece.named("right")] | F
    assert wiring(both)[:4] == [
        "a -> (left, parity_index)",
        "output((left, parity_index), b) -> (left, b)",
        "(left, b) -> (left, d)",
        "output((left, parity_index), c) -> (left, c)",
    ]
    assert Counter(hp.run(both)["f"]) == Counter(2 * [4, 8, 8, 12])
    below = A | piece.named("left") | piece.named("right") | F
    assert sorted(hp.run(below)["f"]) == [12, 20, 20, 28]
    assert len(below.nodes()) == 12


def test_what_a_piece_reads_of_its_own_by_key_goes_with_its_name() -> None:
    """Error streams above all, outputs and nodes; what stands elsewhere keeps its name."""
    dead = hp.collect(hp.errors("b"), hp.output("r", 1), "b", "elsewhere").named("dead")
    piece = hp.broadcast(B | hp.route(parity).named("r") | {"odd": C}, dead).named("left")
    assert piece.nodes()["left", "dead"].reads == (
        hp.errors(("left", "b")),
        hp.output(("left", "r"), 1),
        ("left", "b"),
        "elsewhere",
    )


def test_a_name_may_be_put_under_another() -> None:
    """Pieces nest."""
    assert list((B | C).named("x").named("y").nodes()) == [("y", ("x", "b")), ("y", ("x", "c"))]
    assert list((hp.map(lambda v: v) | hp.map(lambda v: v)).named("x").nodes()) == [("x", "map"), ("x", "map_2")]


# --- the value


def test_pipelines_are_values() -> None:
    """Equal when they say the same; nothing of them changes."""
    pipeline = A | [B, C, parity] | F
    assert pipeline == A | [B, C, parity] | F
    assert hash(pipeline) == hash(A | [B, C, parity] | F)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        pipeline._steps = ()  # type: ignore[misc]
    before = str(pipeline)
    [pipeline.named("x"), A | B] | hp.map(text)
    assert str(pipeline) == before


@pytest.mark.parametrize(
    "other",
    [
        A | [C, B, parity] | F,
        A | [B, C] | F,
        A | [B, D, parity] | F,
        A | [B, C, parity_index] | F,
        A | hp.route(parity) | {"b": B, "c": C} | F,
        A | [B, hp.map(two).named("c"), parity] | F,
        A | [B, C, parity],
        hp.broadcast(B, C, F),
        (A | [B, C, parity] | F).named("x"),
        "no pipeline",
    ],
)
def test_any_part_of_a_pipeline_counts(other: Any) -> None:
    """Nodes, wiring, order, choosers, what is open."""
    assert A | [B, C, parity] | F != other


@pytest.mark.parametrize(
    ("one_way", "other_way"),
    [
        (hp.broadcast(B, C), hp.broadcast(C, B)),
        (hp.broadcast({"x": B}), hp.broadcast(B)),
        (A | hp.map(two), hp.broadcast(A, hp.map(two, "a"))),
        (hp.broadcast(B).named("x"), hp.broadcast(B.named(("x", "b")))),
    ],
)
def test_pipelines_that_join_otherwise_differ(one_way: hp.Pipeline, other_way: hp.Pipeline) -> None:
    """By the order of branches, by what they are to read, by what is open, by what a chooser calls them."""
    assert dict(one_way.nodes()) == dict(other_way.nodes())
    assert one_way != other_way


def test_a_pipeline_prints_as_its_wiring() -> None:
    """One line an edge, in the order written; what is joined to nothing stands alone."""
    pipeline = A | [B, C | D, parity_index] | hp.merge() | [F, hp.sink(print)]
    assert str(pipeline) == (
        '"a" -> "parity_index"\n'
        'output("parity_index", "b") -> "b"\n'
        'output("parity_index", "c") -> "c"\n'
        '"c" -> "d"\n'
        '"b" -> "merge"\n'
        '"d" -> "merge"\n'
        '"merge" -> "f"\n'
        '"merge" -> "print"'
    )
    assert str(hp.broadcast(B, A | F, hp.map(two, "elsewhere"))) == '"b"\n"a" -> "f"\n"elsewhere" -> "two"'


def test_the_repr_says_what_is_open() -> None:
    """At the start and at the end."""
    assert repr(A | F) == "<Pipeline: 2 nodes>"
    assert repr([B, C] | D) == '<Pipeline: 3 nodes; open at its start, "b", "c"; open at its end, "d">'


# --- into a topology, and run


def test_a_pipeline_is_the_topology_written_by_hand() -> None:
    """With keys, edges and outputs."""
    by_hand = (
        hp.Topology()
        .add("a", hp.source([1, 2, 3, 4]))
        .add("b", hp.map(one, "a"))
        .add("two", hp.map(two, "b"))
        .add("c", hp.map(one, "a"))
        .add("f", hp.collect("two", "c"))
    )
    assert (A | [B | hp.map(two), C] | F).topology() == by_hand
    assert (A | B | [hp.map(two), C] | F).topology() != by_hand


def test_a_pipeline_is_added_to_a_topology() -> None:
    """Beside what is there: it may read that, and be read, and a factory may build what is missing."""

    def factory(key: Any) -> Node | None:
        match key:
            case {"feed": number}:
                return hp.source([number])
        return None

    piece = hp.map(two, {"feed": 21}) | hp.map(one)
    topology = hp.Topology(factory).add_pipeline(piece).add("out", hp.collect("one"))
    assert hp.run(topology) == {"out": [43]}
    assert [edit.key for edit in hp.Topology().add_pipeline(A | B | F).edits] == ["a", "b", "f"]


def test_a_pipeline_is_added_whole_or_not_at_all() -> None:
    """A key that is there already, an open start, and what is no pipeline."""
    topology = hp.Topology().add_pipeline(A | F)
    words = r'"a" is there already, as a source, and is a map of the pipeline: give one .* pipeline.named\(...\)'
    with pytest.raises(hp.DuplicateKey, match=words):
        topology.add_pipeline(hp.map(one, "f").named("a") | hp.collect().named("g"))
    with pytest.raises(hp.OpenEnd, match='"b" is a map that reads nothing'):
        topology.add_pipeline(B | hp.collect())
    with pytest.raises(hp.UsageError, match=r"add_pipeline\(<.*\): give a pipeline"):
        topology.add_pipeline(hp.Plumbing(topology))  # type: ignore[arg-type]
    with pytest.raises(hp.UsageError, match=r"add_pipeline\(None\): give a pipeline"):
        topology.add_pipeline(None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "keys"),
    [
        (A, ["a"]),
        ([A, hp.source([1]).named("s")], ["a", "s"]),
        ({"odd": hp.map(one, "a").named("b")}, ["b"]),
        (hp.source([1]) | [B, {"x": C}, parity], ["source", "parity", "b", "c"]),
    ],
)
def test_whatever_makes_a_pipeline_is_added_to_a_topology(given: Any, keys: list[str]) -> None:
    """What `run` takes: a node, a list, a mapping."""
    assert [edit.key for edit in hp.Topology().add_pipeline(given).edits] == keys


def test_an_object_is_added_to_a_topology() -> None:
    """It is a node that reads nothing yet, and that is said as of any other."""
    with pytest.raises(hp.OpenEnd, match='"Identity" is a process that reads nothing'):
        hp.Topology().add_pipeline(Identity())


@pytest.mark.parametrize("items", [[1, 2], (1, 2), range(1, 3), lambda: iter([1, 2])])
def test_items_are_given_to_the_open_start(items: Any) -> None:
    """Whatever a source takes; to all starts, where there are several."""
    assert hp.run(B | F, items) == {"f": [2, 3]}
    assert Counter(hp.run([B, C] | F, items)["f"]) == Counter([2, 2, 3, 3])
    assert hp.run(F, items) == {"f": [1, 2]}


def test_items_have_a_key() -> None:
    """Trails begin with it."""
    kept: list[Any] = []
    hp.run(B | hp.sink(lambda value: kept.append(hp.current_item().trail.keys)), [1])
    assert kept == [("items", "b")]


def test_a_plumbing_runs_a_pipeline(seed: int) -> None:
    """And `hp.start`, and `hp.run`."""

    async def main() -> None:
        async with hp.Plumbing(A | B | F) as plumbing:
            await plumbing.join()
            assert plumbing.collected() == {"f": [2, 3, 4, 5]}
            assert plumbing.topology == (A | B | F).topology()
        started = await hp.start(A | B | F)
        await started.join()
        assert started.collected() == {"f": [2, 3, 4, 5]}
        await started.stop()

    run(main, seed)


def test_items_are_for_open_starts() -> None:
    """A topology has its sources, and so has a closed pipeline."""
    with pytest.raises(hp.UsageError, match="items are for the open start of a pipeline: a topology has its sources"):
        hp.run((A | F).topology(), [1])
    with pytest.raises(hp.JoinError, match='items are for the open start of a pipeline, but "a" is a source'):
        hp.run(A | F, [1])
    with pytest.raises(hp.JoinError, match='but "b" was given what it reads, "feed"'):
        hp.run(hp.map(one, "feed").named("b") | F, [1])
    with pytest.raises(hp.UsageError, match=r"7 cannot run: give a hotplumb\.Topology or a pipeline"):
        hp.run(7)  # type: ignore[arg-type]


# --- what is refused


OPEN: list[tuple[Any, str, str]] = [
    (B | F, "b", '"b" is a map that reads nothing, so the pipeline is open'),
    (B | F, "b", r"write hp.source\(...\) | ..., or hp.run\(pipeline, items\)"),
    ([B, C] | F, "b", r'"b" is a map that reads nothing \(and so are "c"\), so the'),
    (A | B, "b", '"b" is a map that nobody reads, so the pipeline is open'),
    (A | B, "b", r"write ... \| hp.sink\(fn\), or ... \| hp.collect\(\)"),
    (A | [B | F, C, D], "c", r'"c" is a map that nobody reads \(and so are "d"\)'),
    (A | [B, C, parity], "b", '"b" is a map that nobody reads'),
    (B | C, "b", '"b" is a map that reads nothing'),
    (hp.broadcast(A | F, C | D), "c", '"c" is a map that reads nothing'),
    (B, "b", '"b" is a map that reads nothing'),
    (A, "a", '"a" is a source that nobody reads'),
    ([A, C], "c", '"c" is a map that reads nothing'),
]


@pytest.mark.parametrize(("piece", "key", "words"), OPEN)
def test_running_an_open_pipeline_names_the_open_end(piece: Any, key: str, words: str) -> None:
    """Before anything runs; at the start first."""
    for start in (hp.run, hp.Plumbing):
        with pytest.raises(hp.OpenEnd, match=words) as caught:
            start(piece)
        assert caught.value.key == key


def test_an_open_last_end_is_named_with_items_too() -> None:
    """Nobody would get what comes out there."""
    with pytest.raises(hp.OpenEnd, match='"c" is a map that nobody reads'):
        hp.run(B | C, [1])


def test_an_end_that_is_read_by_key_is_not_open() -> None:
    """Here as in a topology."""
    pipeline = hp.broadcast(A | B, hp.collect("b").named("out"))
    assert hp.run(pipeline) == {"out": [2, 3, 4, 5]}
    with pytest.raises(hp.OpenEnd):
        hp.run(hp.broadcast(A | B, hp.collect(hp.errors("b")).named("out")))


def endless_list(*first: Any) -> list[Any]:
    branches = [*first]
    branches.append(branches)
    return branches


def nested(depth: int) -> Any:
    branch: Any = B
    for _ in range(depth):
        branch = {"name": branch}
    return branch


JOINS: list[tuple[Callable[[], Any], str]] = [
    (lambda: A | 3, "3 is no node: join what hp.map"),
    (lambda: None | A, "None is no node"),
    (lambda: "a" | B, "'a' is no node"),
    (lambda: A | {1, 2}, "{1, 2} is no node"),
    (lambda: A | (B, C), "is no node"),
    (lambda: A | [B, "c"], "'c' is no node"),
    (lambda: A | [B, [C, None]], "None is no node"),
    (
        lambda: A | hp.broadcast(B, one),  # type: ignore[arg-type]
        r"test_compose.one is a function and no node: write .* hp.map\(test_compose.one",
    ),
    (lambda: A | one, "test_compose.one is a function and no node"),
    (lambda: A | Scale, r"Scale'> is a class: join an object of it, Scale\(...\), or hp.process\(Scale\)"),
    (lambda: A | [B, Scale], "Scale'> is a class"),
    (lambda: A | hp.Topology(), "is a topology: topology.add_pipeline"),
    (lambda: A | [], r"broadcast\(\) of no branches"),
    (lambda: A | {}, "a mapping of no branches"),
    (lambda: A | [parity], "test_compose.parity has no branches to choose from"),
    (lambda: hp.route(parity, []), "test_compose.parity has no branches to choose from"),
    (lambda: hp.route(parity, {}), "a mapping of no branches"),
    (lambda: hp.merge([]), r"broadcast\(\) of no branches"),
    (lambda: hp.merge({}), "a mapping of no branches"),
    (lambda: hp.broadcast([]), r"broadcast\(\) of no branches"),
    (lambda: hp.broadcast({}), "a mapping of no branches"),
    (lambda: A | endless_list(), "contains itself"),
    (lambda: A | endless_list(B), "contains itself"),
    (lambda: hp.run(endless_list()), "contains itself"),
    (lambda: hp.route(parity, endless_list()), "contains itself"),
    (lambda: A | nested(100_000), "too many stand one in another"),
    (lambda: A | [B, C, one, parity], "a list with 2 choosers, test_compose.one and test_compose.parity: keep one"),
    (lambda: A | [parity, B, parity], "a list with 2 choosers"),
    (lambda: A | [B, parity, C], "test_compose.parity stands among the branches of a list: a chooser stands last"),
    (lambda: A | [B, [C, parity, D], parity], "stands among the branches"),
    (lambda: A | [(B | C).named("x"), D.named("x"), parity], 'two branches of one list are called "x"'),
    (lambda: A | [hp.map(lambda value: value), B.named(0), parity], "two branches of one list are called 0"),
    (lambda: A | [{"b": C}, B, parity], 'two branches of one list are called "b"'),
    (lambda: B | A, '"a" cannot read "b": "a" is a source, and reads nothing; put the two side by side'),
    (lambda: B | C | A | D, '"a" cannot read "c": "a" is a source'),
    (lambda: B | [C, A], '"c", "a" cannot read "b": "a" is a source'),
    (lambda: B | hp.broadcast(C, A | D), '"a" is a source, and reads nothing'),
    (lambda: B | [C, A, parity], '"a" is a source'),
    (lambda: B | hp.map(one, "feed").named("c"), '"c" cannot read "b": "c" was given what it reads, "feed"'),
    (lambda: A | F | B, '"b" cannot read "f": a sink gives nothing; let both read what that reads'),
    (lambda: A | [F, hp.sink(print)] | B, '"b" cannot read "f", "print": a sink gives nothing'),
    (lambda: A | {"odd": B}, '"b" cannot read "a": a source has no output "odd"; put what chooses between'),
    (lambda: A | [B, {"odd": C}], 'a source has no output "odd"'),
    (lambda: [hp.route(parity), B] | hp.broadcast({"odd": C}), '"c" cannot read "b": a map has no output "odd"'),
    (lambda: A | hp.route(parity) | [B, C], '"b", "c" cannot read "parity": that would be all it gives; say which'),
    (lambda: A | hp.route(parity) | F, '"f" cannot read "parity": that would be all it gives'),
    (lambda: A | [[{"odd": B}, C], D, parity], "the branch 0 begins with a mapping of names"),
    (lambda: A | hp.route(parity) | {"odd": {"even": B}}, 'the branch "odd" begins with a mapping of names'),
]


@pytest.mark.parametrize(("joined", "words"), JOINS)
def test_what_cannot_be_joined_is_refused(joined: Callable[[], Any], words: str) -> None:
    """At the `|`, with what is wrong and what to write."""
    with pytest.raises(hp.JoinError, match=words):
        joined()
    assert issubclass(hp.JoinError, hp.TopologyError)


CLASHES: list[tuple[Callable[[], Any], Any, str]] = [
    (lambda: hp.map(one) | hp.map(one), "one", r'the map test_compose.one behind "one" \(node 2 as written\)'),
    (
        lambda: (A | B | C) | (D | hp.filter(two).named("b")),
        "b",
        r'"b" names two nodes, the map test_compose.one behind "a" \(node 2 as written\) and the filter '
        r'test_compose.two behind "d" \(node 5 as written\): give one a name of its own, node.named\(...\) or '
        r"pipeline.named\(...\)",
    ),
    (lambda: [B, B] | F, "b", r"\(node 1 as written\) and the map test_compose.one at the start \(node 2 as written\)"),
    (lambda: A | [Scale(1), Scale(2)], "Scale", "the process test_compose.Scale at the start"),
    (lambda: A | [B, C, parity] | [D, E, parity], "parity", r"of its own, hp.route\(choose\).named\(...\) \| {name: b"),
    (lambda: hp.broadcast(A | F, F), "f", r'the collect behind "a" \(node 2 as written\) and the collect at the start'),
    (lambda: [(B | C).named("x"), (B | C).named("x")] | F, ("x", "b"), r'\("x", "b"\) names two nodes'),
    (lambda: (B | C).named("x") | D.named(("x", "c")), ("x", "c"), r'\("x", "c"\) names two nodes'),
]


@pytest.mark.parametrize(("joined", "key", "words"), CLASHES)
def test_a_name_for_two_nodes_is_refused(joined: Callable[[], Any], key: Any, words: str) -> None:
    """With where both stand and what they are."""
    with pytest.raises(hp.DuplicateKey, match=words) as caught:
        joined()
    assert caught.value.key == key


@pytest.mark.parametrize(
    ("joined", "cycle"),
    [
        (lambda: A | B | C | B, ("b", "c", "b")),
        (lambda: A | B | B, ("b", "b")),
        (lambda: A | [B, C | D] | E | [hp.map(two), D], ("d", "e", "d")),
        (lambda: (B | C) | (B | C), ("b", "c", "b")),
        (lambda: B | hp.map(lambda value: value) | B, ("b", "map", "b")),
    ],
)
def test_a_node_below_itself_is_a_cycle(joined: Callable[[], Any], cycle: tuple[str, ...]) -> None:
    """Shown as the way from it to itself."""
    with pytest.raises(hp.CycleError, match=r"a node cannot stand below itself; .* a name of its own") as caught:
        joined()
    assert caught.value.cycle == cycle


def test_a_cycle_by_given_keys_is_found_before_anything_runs() -> None:
    """When the topology is made."""
    pipeline = hp.merge("c").named("b") | C | F
    with pytest.raises(hp.CycleError, match="is a cycle"):
        hp.run(pipeline)


def test_a_key_that_nobody_has_is_found_before_anything_runs() -> None:
    """When the topology is made."""
    with pytest.raises(hp.UnmetDependency, match='no node for "feed"'):
        hp.run(hp.merge("feed") | F)


def test_a_name_must_be_a_key() -> None:
    """Of a piece, and of an output."""
    with pytest.raises(hp.UnfreezableKey):
        (B | C).named(object())
    with pytest.raises(hp.UnfreezableKey):
        A | hp.route(parity) | {object(): B}


# --- objects as nodes


class Counting(hp.Process):
    """Numbers values, and keeps all that it may."""

    def __init__(self, first: int = 0) -> None:
        self.seen = [first]

    def begin(self, context: hp.Context) -> None:
        self.context = context

    def process(self, value: int) -> Any:
        self.seen.append(value)
        yield len(self.seen), value

    def end(self) -> Any:
        yield "end", sum(self.seen)


def test_objects_are_nodes() -> None:
    """Anywhere in a pipeline, two of them side by side or below each other."""
    pipeline = Scale(2) | Scale(5).named("five") | [Counting(100), Scale(3).named("three")] | F
    assert Counter(hp.run(pipeline, [1, 2])["f"]) == Counter([(2, 10), (3, 20), ("end", 130), 30, 60])
    assert wiring([Scale(2), B] | Scale(3).named("t") | {"x": C}) == ["Scale -> t", "b -> t", "output(t, x) -> c"]
    assert wiring([A, B] | Scale(1)) == ["a -> Scale", "b -> Scale"]


def test_each_start_takes_a_copy() -> None:
    """The object that was given never changes, and a second run begins as the first did."""
    counting = Counting()
    assert hp.run(A | counting | F) == hp.run(A | counting | F)
    assert counting.seen == [0]
    assert not hasattr(counting, "context")


def test_an_object_may_be_a_process_by_its_methods_alone() -> None:
    """Where something else in the `|` is a node."""

    class Bare:
        def process(self, value: int) -> int:
            return -value

    assert hp.run(A | Bare() | F) == {"f": [-1, -2, -3, -4]}
    assert wiring(hp.merge(Bare())) == ["Bare -> merge"]
    assert wiring(hp.route(parity, Bare())) == ["output(parity, Bare) -> Bare"]
    assert hp.process(Bare(), "a", on_error=hp.discard()).kind == "process"


@attrs.frozen
class Equal(hp.Process):
    """Compares by its fields."""

    factor: int

    def process(self, value: int) -> Any:
        return value * self.factor


def test_objects_are_the_same_by_identity_or_as_their_class_says() -> None:
    """So a pipeline written twice is equal where they are."""
    scale = Scale(2)
    assert A | scale | F == A | scale | F
    assert A | Scale(2) | F != A | Scale(2) | F
    assert A | Equal(2) | F == A | Equal(2) | F
    assert A | Equal(2) | F != A | Equal(3) | F


def test_a_process_without_the_method_is_refused() -> None:
    """The class would give one that drops everything."""

    class Empty(hp.Process):
        pass

    anything: Any = Empty
    for make in (anything, anything()):
        with pytest.raises(hp.UsageError, match=r"has no method `process\(value\)` of its own"):
            hp.process(make)


class Locked(hp.Process):
    def __init__(self) -> None:
        self.lock = threading.Lock()

    def process(self, value: int) -> Any:
        return value


def test_what_cannot_be_copied_says_so(seed: int) -> None:
    """With the way that works."""
    error = failure((A | Locked() | F).topology(), seed)
    assert error.key == "Locked"
    assert "each start takes a deep copy of <test_compose.Locked" in str(error.__cause__)
    assert "open things in begin(context), or give hp.process a function" in str(error.__cause__)


def test_an_exclusive_object_is_exclusive(seed: int) -> None:
    """Its class says so; the copy opens after the old one has closed."""
    log: list[str] = []

    @hp.exclusive
    class Port(hp.Process):
        def __init__(self, name: str) -> None:
            self.name = name

        def begin(self, context: hp.Context) -> None:
            log.append(f"open {self.name}")

        def process(self, value: int) -> Any:
            return value

        def close(self) -> None:
            log.append(f"close {self.name}")

    async def main() -> None:
        endless = hp.source(forever).named("a")
        async with hp.Plumbing(endless | Port("old").named("port") | F) as plumbing:
            await asyncio.sleep(1)
            await plumbing.replace("port", hp.process(Port("new"), "a"))

    run(main, seed)
    assert log == ["open old", "close old", "open new", "close new"]


async def forever() -> AsyncIterator[int]:
    number = 0
    while True:
        yield number
        number += 1
        await asyncio.sleep(0.01)


# --- what all nodes share


class Keeping(hp.Process):
    def begin(self, context: hp.Context) -> None:
        self.shared = context.shared

    def process(self, value: int) -> Any:
        self.shared[value] = self.shared.get("from source")
        return self.shared


def beginning(context: hp.Context) -> Iterator[int]:
    context.shared["from source"] = "told"
    yield from (1, 2)


def test_one_object_is_shared_by_a_run(seed: int) -> None:
    """The one that was given, by processes and functions of sources alike."""
    told = {"from source": "told", 1: "told", 2: "told"}
    shared: dict[Any, Any] = {}
    found = hp.run(hp.source(beginning) | Keeping() | F, shared=shared)
    assert found["f"] == [shared, shared]
    assert found["f"][0] is shared
    assert shared == told

    async def main() -> None:
        for start in (plumbing_of, hp.start):
            given: dict[Any, Any] = {}
            plumbing = await start(hp.source(beginning) | Keeping() | F, shared=given)
            await plumbing.join()
            await plumbing.stop()
            assert given == told

    run(main, seed)


async def plumbing_of(*args: Any, **options: Any) -> hp.Plumbing:
    plumbing = hp.Plumbing(*args, **options)
    await plumbing._start()
    return plumbing


def test_a_run_without_one_has_a_dict_of_its_own() -> None:
    """Another in each run."""
    pipeline = hp.source(beginning) | Keeping() | F
    first, second = hp.run(pipeline)["f"][0], hp.run(pipeline)["f"][0]
    assert first == second == {"from source": "told", 1: "told", 2: "told"}
    assert first is not second


def test_what_is_shared_may_be_false() -> None:
    """An empty list is one that was given."""
    shared: list[int] = []

    class Adding(hp.Process):
        def begin(self, context: hp.Context) -> None:
            self.context = context

        def process(self, value: int) -> Any:
            self.context.shared.append(value)

    hp.run(Adding() | F, [1, 2], shared=shared)
    assert shared == [1, 2]


# --- live


def test_a_replaced_branch_keeps_its_routing(seed: int) -> None:
    """Items chosen for it go to the new node, by the same name; the other branch notices nothing."""

    def tagged(tag: str) -> Callable[[int], tuple[str, int]]:
        return lambda value: (tag, value)

    def pipeline(left: str) -> hp.Pipeline:
        branches = [hp.map(tagged(left)).named("left"), hp.map(tagged("right")).named("right")]
        return hp.source(forever).named("a") | [*branches, lambda value: "right" if value % 3 else "left"] | F

    async def main() -> None:
        async with hp.Plumbing(pipeline("old")) as plumbing:
            await asyncio.sleep(1)
            new = hp.map(tagged("new"), *plumbing.topology.reads("left"))
            change = await plumbing.replace("left", new)
            assert change.replaced == {"left"}
            assert plumbing.topology == pipeline("new").topology()
            assert plumbing.topology.reads("left") == (hp.output("route", "left"),)
            await asyncio.sleep(1)
            await plumbing.drain()
            found = plumbing.collected()["f"]
        left = [value for tag, value in found if tag != "right"]
        assert left == list(range(0, 3 * len(left), 3))
        tags = [tag for tag, _ in found if tag != "right"]
        assert set(tags) == {"old", "new"}
        assert tags == sorted(tags, reverse=True)
        assert [value for tag, value in found if tag == "right"] == [v for v in range(len(found)) if v % 3]

    run(main, seed)


@pytest.mark.parametrize("form", ["list", "mapping"])
def test_an_edited_pipeline_equals_the_one_written_that_way(form: str) -> None:
    """Each of its nodes in turn, behind a route or not."""

    def pipeline(**others: Callable[[int], Any]) -> hp.Pipeline:
        made = {name: hp.map(others.get(name, one)).named(name) for name in "bcde"}
        branches: list[object] = [made["c"], made["d"], parity]
        if form == "mapping":
            branches = [{"odd": made["c"], "even": made["d"]}, parity]
        return A | made["b"] | branches | made["e"] | F

    topology = pipeline().topology()
    for name in "bcde":
        edited = topology.replace(name, hp.map(two, *topology.reads(name)))
        assert edited == pipeline(**{name: two}).topology()
        assert edited != topology
    added = hp.Topology().add_pipeline(A | B | F).add("c", hp.map(one, "b")).replace("f", hp.collect("c"))
    assert added == (A | B | C | F).topology()


async def slow_misspelt(value: int) -> str:
    return "cc"


def misspelt(value: int) -> str:
    return "cc"


def by_name(value: int) -> str:
    return "c" if value % 2 else "b"


def routed(choose: Callable[[int], Any]) -> hp.Topology:
    """Branches that are called by name."""
    return (A | hp.route(choose).named("by") | {"b": B, "c": hp.map(two).named("c")} | F).topology()


def listed(choose: Callable[[int], Any]) -> hp.Topology:
    """Branches that are called by name or index; a lambda's key is "route"."""
    return (A | [B, hp.map(two).named("c"), choose] | F).topology()


@pytest.mark.parametrize("edit", ["replace", "update"])
@pytest.mark.parametrize(
    "choose", [lambda value: "c", by_name, partial(by_name), operator.itemgetter(0), slow_misspelt]
)
def test_a_replaced_chooser_keeps_the_branches(edit: str, choose: Callable[[int], Any]) -> None:
    """It is the one that would have been written there, whatever kind of function it is."""
    topology, route = routed(parity), hp.route(choose, "a")
    edited = topology.replace("by", route) if edit == "replace" else topology.update({"by": route})
    assert edited == routed(choose)
    assert edited != topology


def test_a_replaced_chooser_may_give_indexes() -> None:
    """Those of the branches as they were listed."""
    edited = listed(lambda value: "b").replace("route", hp.route(lambda value: value % 2, "a"))
    assert edited == listed(lambda value: value % 2)
    assert Counter(hp.run(edited)["f"]) == Counter([2, 3, 5, 6])


@pytest.mark.parametrize("choose", [misspelt, slow_misspelt])
def test_a_replaced_chooser_that_names_no_branch_fails(choose: Callable[[int], Any], seed: int) -> None:
    """Also where it took the place of one that had been replaced already."""
    first = listed(lambda value: 0)
    edited = first.replace("route", hp.route(by_name, "a")).replace("route", hp.route(choose, "a"))
    found = failure(edited, seed)
    assert isinstance(found.__cause__, hp.UnknownBranch)
    assert found.__cause__.valid == ("b", "c", 0, 1)


def test_a_route_with_branches_of_its_own_keeps_these(seed: int) -> None:
    """A node of another pipeline is taken as it is there."""
    route = (A | [B, C, D, lambda value: value % 3] | F).topology().active["route"]
    edited = listed(lambda value: 0).update({"route": route, "d": hp.collect(hp.output("route", "d"))})
    assert edited.active["route"] == route
    assert hp.run(edited)["d"] == [2]
    assert valid(failure(listed(lambda value: 0).replace("route", route), seed)) == ("b", "c", 0, 1)  # no third


PARITY = A | hp.route(parity)
EVENS = hp.collect(hp.output("parity", "even"))


def valid(error: hp.NodeError) -> tuple[Any, ...]:
    """What the chooser that gave no such thing may give."""
    assert isinstance(error.__cause__, hp.UnknownBranch)
    return error.__cause__.valid


def branches(**names: str) -> dict[str, Any]:
    return {name: hp.collect().named(key) for name, key in names.items()}


def test_a_chooser_may_give_every_output_that_is_read(seed: int) -> None:
    """By key beside the branches, by an edit, or by a change; and nothing else."""
    one, both = PARITY | branches(odd="o"), PARITY | branches(odd="o", even="e")
    expected = {"o": [1, 3], "e": [2, 4]}
    assert hp.run(hp.broadcast(one, EVENS.named("e"))) == hp.run(one.topology().add("e", EVENS)) == expected
    assert one.topology().add("e", EVENS) == both.topology()
    assert both.topology().remove("e") == one.topology()
    third = both.topology().replace("e", hp.collect(hp.output("parity", "third")))
    assert third == (PARITY | branches(odd="o", third="e")).topology()
    assert valid(failure(third, seed)) == ("odd", "third")
    assert third.replace("e", EVENS) == both.topology()


def test_a_running_chooser_may_give_what_is_added(seed: int) -> None:
    """The route is touched as any node that has another reader."""

    async def main() -> dict[Any, list[Any]]:
        topology = (
            hp.source(hp.testing.script([1, hp.testing.Pause(1), 2])) | hp.route(parity) | branches(odd="o")
        ).topology()
        async with hp.Plumbing(topology) as plumbing:
            await asyncio.sleep(0.5)
            await plumbing.add("e", EVENS)
            await plumbing.join()
            return plumbing.collected()

    assert hp.testing.run(main, seed=seed) == {"o": [1], "e": [2]}


@pytest.mark.parametrize(
    ("join", "said"),
    [
        (lambda: hp.route(bool, hp.map(abs), parity), "parity is a function and no node"),
        (lambda: hp.merge(hp.map(abs), parity), "parity is a function and no node"),
        (lambda: hp.merge(A, hp.Topology()), "is a topology"),
        (lambda: A | hp.collect, r"hp.collect makes nodes, and is none: call it, hp.collect\("),
        (lambda: A | [B, hp.merge], "hp.merge makes nodes"),
    ],
)
def test_what_is_no_node_among_branches_is_refused_when_they_are_joined(join: Callable[[], Any], said: str) -> None:
    """The text says what to write instead."""
    with pytest.raises(hp.JoinError, match=said):
        join()


def test_what_is_open_says_what_can_close_it() -> None:
    """An open route wants branches, and a mapping at the start a route."""
    with pytest.raises(hp.OpenEnd, match=r"write \.\.\. \| \{name: branch\}"):
        hp.run(A | hp.route(parity))
    with pytest.raises(hp.OpenEnd, match=r"write hp.source\(\.\.\.\) \| hp.route\(choose\) \| \.\.\."):
        hp.run(branches(odd="o"))


def test_an_update_gives_a_route_outputs_with_those_who_read_them() -> None:
    """Beside the branches that it has, which are still checked, and whose indexes still mean them."""

    def three_ways(value: int) -> Any:
        return ["b", 1, "third"][value % 3]

    topology = listed(lambda value: 0)
    new = {"route": hp.route(three_ways, "a"), "out": hp.collect(hp.output("route", "third"))}
    found = hp.run(topology.update({**new, "by index": hp.collect(hp.output("route", 1))}))
    assert found["out"] == [2]
    assert Counter(found["f"]) == Counter([2 * 1, 3 + 1, 2 * 4])
    assert found["by index"] == []
    with pytest.raises(hp.NodeError, match='"b", "c", 0, 1, "third"'):
        hp.run(topology.update({**new, "route": hp.route(misspelt, "a")}))


def test_a_bare_route_stays_bare() -> None:
    """Keys alone say nothing about which outputs there are, and attributes of a user's object are not ours."""

    class Choosing:
        def choosing(self, *args: Any) -> Any:
            raise AssertionError

        def __call__(self, value: int) -> str:
            return "b"

    bare = hp.Topology().add("a", A).add("by", hp.route(Choosing(), "a")).add("f", hp.collect(hp.output("by", "odd")))
    assert bare.replace("by", hp.route(parity, "a")).active["by"] == hp.route(parity, "a")
    assert hp.run(bare.replace("by", hp.route(parity, "a"))) == {"f": [1, 3]}
    assert bare.replace("f", hp.collect("by")).active["f"].reads == ("by",)


def test_a_running_chooser_is_replaced(seed: int) -> None:
    """By one that gives indexes where the one before gave names; no value is lost."""

    async def main() -> None:
        pipeline = hp.source(forever).named("a") | [B, C, lambda value: "b"] | F
        async with hp.Plumbing(pipeline) as plumbing:
            await asyncio.sleep(1)
            change = await plumbing.replace("route", hp.route(lambda value: 1, "a"))
            assert change.replaced == {"route"}
            await asyncio.sleep(1)
            received = plumbing.statistics().nodes["c"].received
            await plumbing.drain()
            found = plumbing.collected()["f"]
        assert received
        assert found == [value + 1 for value in range(len(found))]

    run(main, seed)


def test_replacing_by_a_node_that_reads_nothing_shows_how_to_keep_the_reads() -> None:
    """The keys are the pipeline's affair, so the text gives the line to write."""
    topology = (A | [B, C, parity] | F).topology()
    with pytest.raises(hp.OpenEnd, match=r"hp.map\(..., \*topology.reads\(\"b\"\)\)"):
        topology.replace("b", hp.map(two))
    assert topology.replace("b", hp.map(two, *topology.reads("b"))).reads("b") == (hp.output("parity", "b"),)


def test_a_running_pipeline_becomes_another_one(seed: int) -> None:
    """With other branches and another chooser: what was written anew is applied."""

    def pipeline(*branches: Node) -> hp.Pipeline:
        return hp.source(forever).named("a") | [*branches, last_digit] | F

    def last_digit(value: int) -> int:
        return 0 if value < 50 else 1

    async def main() -> None:
        async with hp.Plumbing(pipeline(*doing(x=lambda v: ("x", v), y=lambda v: ("y", v)))) as plumbing:
            await asyncio.sleep(0.25)
            change = await plumbing.apply(pipeline(*doing(x=lambda v: ("x", v), z=lambda v: ("z", v))).topology())
            assert change.added == {"z"}
            assert change.removed == {"y"}
            await asyncio.sleep(1)
            await plumbing.drain()
            found = plumbing.collected()["f"]
        assert {tag for tag, _ in found} == {"x", "z"}
        assert [value for _, value in found] == list(range(len(found)))

    run(main, seed)


# --- random pipelines


@pytest.mark.parametrize("part", range(10))
def test_random_pipelines_do_what_the_model_says(part: int, seeds: Callable[[int], list[int]]) -> None:
    """Nested lists, choosers, mappings, merges, pieces used twice: 5,000 fresh ones a run."""
    for seed in seeds(500):
        play_and_check(seed)


def all_pieces(piece: Any) -> Iterator[Any]:
    yield piece
    for name in ("pieces", "branches"):
        for inner in getattr(piece, name, ()):
            yield from all_pieces(inner)
    if hasattr(piece, "piece"):
        yield from all_pieces(piece.piece)


def test_random_pipelines_have_all_that_may_be_written() -> None:
    """What the generator never made would never be tested."""
    written = [random_pipeline(seed) for seed in range(500)]
    pieces = [piece for each in written for piece in all_pieces(each.piece)]
    kinds = Counter(type(piece) for piece in pieces)
    assert min(kinds[kind] for kind in (Chain, Choice, Fan, Leaf, Named, Unit)) > 100
    styles = Counter(piece.style for piece in pieces if isinstance(piece, Choice))
    assert len(styles) == 5
    assert min(styles.values()) > 20
    leaves = Counter((piece.kind, piece.naming) for piece in pieces if isinstance(piece, Leaf))
    assert min(leaves.values()) > 10
    assert {kind for kind, _ in leaves} == {
        "source",
        "map",
        "filter",
        "flat_map",
        "process",
        "merge",
        "sink",
        "collect",
    }
    assert sum(each.items is not None for each in written) > 50
    nested = [piece for piece in pieces if isinstance(piece, Fan) and any(isinstance(b, Fan) for b in piece.branches)]
    assert len(nested) > 10


def simple() -> Written:
    """A chain to a recording sink, beside one that collects."""
    for seed in range(1000):
        written = random_pipeline(seed)
        found = play(written, 1)
        if sum(len(each) > 2 for each in found.arrived.values()) and any(map(any, found.collected.values())):
            return written
    raise AssertionError


@pytest.mark.parametrize("spoil", ["lost", "doubled", "strange", "elsewhere", "collected"])
def test_the_model_sees_what_is_wrong(spoil: str) -> None:
    """A check that accepts everything would hide every bug."""
    written = simple()
    found = play(written, 1)
    check(written, found)
    arrived = next(each for each in found.arrived.values() if len(each) > 2)
    match spoil:
        case "lost":
            del arrived[1]
        case "doubled":
            arrived.append(arrived[0])
        case "strange":
            arrived[0] = (arrived[0][0], arrived[0][1] + 1)
        case "elsewhere":
            arrived[0] = ((*arrived[0][0], "elsewhere"), arrived[0][1])
        case "collected":
            next(each for each in found.collected.values() if any(each)).pop()
    with pytest.raises(Wrong):
        check(written, found)


def test_the_model_sees_another_wiring() -> None:
    """The same pipeline in two ways is to be one."""
    written = random_pipeline(EXAMPLE)
    found = play(written, 1)
    found.pipelines[1] = hp.broadcast(Composer(1, {}).composed(random_pipeline(EXAMPLE + 1).piece))
    with pytest.raises(Wrong, match=r"keys|wired"):
        check(written, found)


def test_a_random_pipeline_can_be_shown_from_the_command_line() -> None:
    """`python -m tests.pipelines SEED` shows its wiring before it plays it."""
    command = [sys.executable, "-m", "tests.pipelines", str(EXAMPLE)]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False).stdout
    assert shown.strip() == str(play(random_pipeline(EXAMPLE), EXAMPLE).pipelines[0])


class Sizes(hp.Process):
    def process(self, word: str) -> Any:
        yield hp.to("long" if len(word) > 3 else "short", word)


def test_branches_behind_a_class_node_read_its_named_outputs() -> None:
    """A mapping routes by the names that the process gives on."""
    pipeline = hp.source(["tic", "tictac", "toe"]) | Sizes() | {"long": hp.collect().named("l")}
    assert hp.run(pipeline) == {"l": ["tictac"]}
    both = hp.source(["tic", "tictac"]) | Sizes() | {"long": hp.collect().named("l"), "short": hp.collect().named("s")}
    assert hp.run(both) == {"l": ["tictac"], "s": ["tic"]}


def test_results_come_in_the_order_in_which_the_pipeline_was_written() -> None:
    """Not sorted, as those of a topology are."""
    pipeline = hp.source([0, 1]) | [hp.collect().named(name) for name in ("odd", "even", "all")]
    assert list(hp.run(pipeline)) == ["odd", "even", "all"]
    assert list(hp.run(pipeline.topology())) == ["all", "even", "odd"]
