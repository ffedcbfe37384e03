"""What is wrong with a node when it is made, and when two nodes are the same."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from functools import partial
from operator import add
from typing import Any

import attrs
import pytest

import hotplumb as hp
from hotplumb.nodes import CAPACITY_ITEMS, Node, is_async


async def fetch(value: Any) -> Any:
    await asyncio.sleep(0)
    return value


async def several(value: Any) -> AsyncIterator[Any]:
    yield value


def double(n: int) -> int:
    return 2 * n


def step(state: int, n: int) -> tuple[int, list[int]]:
    return state + n, [n]


class Doubler:
    async def __call__(self, n: int) -> int:
        return 2 * n


class Single:
    def process(self, value: Any) -> Any:
        return value


async def sequence() -> AsyncIterator[int]:
    yield 1


def add_one() -> Callable[[int], int]:
    return lambda n: n + 1


# A function that makes one of each, reading "n"; the same each time it is called.
EACH: dict[str, Callable[[], Node]] = {
    "source": lambda: hp.source([1, 2]),
    "map": lambda: hp.map(double, "n"),
    "filter": lambda: hp.filter(double, "n"),
    "flat_map": lambda: hp.flat_map(str.split, "n"),
    "stateful": lambda: hp.stateful(step, 0, "n"),
    "merge": lambda: hp.merge("n"),
    "route": lambda: hp.route(double, "n"),
    "process": lambda: hp.process(Single, "n"),
    "sink": lambda: hp.sink(double, "n"),
    "collect": lambda: hp.collect("n"),
}
TAKE_A_FUNCTION = {
    "map": hp.map,
    "filter": hp.filter,
    "flat_map": hp.flat_map,
    "route": hp.route,
    "process": hp.process,
    "sink": hp.sink,
}


# ---- made


@pytest.mark.parametrize("kind", EACH)
def test_a_node_is_what_its_constructor_says(kind: str) -> None:
    """Its kind, whether it is wanted for its own sake, and room for four chunks on each link."""
    node = EACH[kind]()
    assert node.kind == kind
    assert node.is_sink == (kind in ("sink", "collect"))
    assert node.reads == (() if kind == "source" else ("n",))
    assert (node.concurrency, node.capacity, node.name) == (1, CAPACITY_ITEMS, None)


def test_what_a_node_reads_is_a_set_of_frozen_keys() -> None:
    """In the order given, each once."""
    node = hp.merge({"feed": ["cpu"]}, "n", {"feed": ("cpu",)}, hp.output("r", "x"), "n")
    assert [repr(key) for key in node.reads] == ["pmap({'feed': ('cpu',)})", "'n'", repr(hp.output("r", "x"))]
    match node.reads[0]:
        case {"feed": (name,)}:
            assert name == "cpu"
        case _:
            pytest.fail("the key is not frozen to what `match` takes apart")


def test_a_node_cannot_change() -> None:
    """It is a value: options are changed on a copy."""
    node = hp.map(double, "n")
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        node.capacity = 1  # type: ignore[misc]
    assert node.named(["half", "done"]).name == ("half", "done")
    assert node.name is None


def test_a_node_that_reads_nothing_can_be_made() -> None:
    """It is given what it reads when nodes are composed."""
    assert hp.map(double).reads == ()
    assert hp.collect().reads == ()


# ---- wrong in itself


@pytest.mark.parametrize("kind", TAKE_A_FUNCTION)
def test_the_function_comes_first(kind: str) -> None:
    """A key in its place, or None, is shown with the order of arguments."""
    make: Any = TAKE_A_FUNCTION[kind]
    with pytest.raises(
        hp.UsageError, match=rf"{kind}\('n', \.\.\.\): the first argument is the function, then .* keys"
    ):
        make("n", double)
    with pytest.raises(hp.UsageError, match=rf"{kind}\(None, \.\.\.\): the first argument is the function"):
        make(None, "n")


def test_a_step_is_a_function() -> None:
    """`stateful` takes the function, then the state."""
    with pytest.raises(hp.UsageError, match=r"stateful\(0, \.\.\.\): the first argument is the function"):
        hp.stateful(0, step, "n")  # type: ignore[arg-type]


@pytest.mark.parametrize("produce", [7, None, object()])
def test_a_source_is_made_of_what_gives_values(produce: Any) -> None:
    """Anything else is shown."""
    with pytest.raises(hp.UsageError, match="give an iterable, an async iterable or a function that makes one"):
        hp.source(produce)


@pytest.mark.parametrize("produce", ["abc", [1], range(3), {"a": 1}, iter([1]), sequence, partial(range, 3), double])
def test_a_source_takes_iterables_and_functions(produce: Any) -> None:
    """Plain and async, and what makes them."""
    assert hp.source(produce).fn is produce


def test_a_source_takes_an_async_iterator() -> None:
    """One that has begun, too."""
    assert hp.source(sequence()).kind == "source"


@pytest.mark.parametrize("count", [0, -1, 1.5, "8", None, True])
def test_counts_are_whole_and_positive(count: Any) -> None:
    """`capacity` and `concurrency` say so, with the value."""
    with pytest.raises(hp.UsageError, match=rf"map\(\.\.\., capacity={count!r}\): capacity is a whole number of at"):
        hp.map(double, "n", capacity=count)
    with pytest.raises(hp.UsageError, match=rf"sink\(\.\.\., concurrency={count!r}\): concurrency is a whole number"):
        hp.sink(fetch, "n", concurrency=count)
    with pytest.raises(hp.UsageError, match="capacity is a whole number"):
        hp.merge("n", capacity=count)


@pytest.mark.parametrize("fn", [double, add_one(), str.split, partial(add, 1)])
def test_only_async_functions_overlap(fn: Any) -> None:
    """Concurrency of plain functions would be none, so it is refused; the text shows the way out."""
    with pytest.raises(hp.UsageError, match=r"concurrency=2\): only calls of an async function .*asyncio\.to_thread"):
        hp.map(fn, "n", concurrency=2)


@pytest.mark.parametrize("fn", [fetch, several, partial(fetch), Doubler(), Doubler().__call__])
def test_async_functions_are_known_in_any_form(fn: Any) -> None:
    """Functions, generators, partials, bound methods and objects that are called."""
    assert is_async(fn)
    assert hp.map(fn, "n", concurrency=3).concurrency == 3


def test_a_key_that_cannot_be_frozen_is_shown() -> None:
    """When the node is made, and where in the key it stands."""
    with pytest.raises(hp.UnfreezableKey, match=r'key\["feed"\]\[1\] is <function double'):
        hp.map(double, {"feed": ["cpu", double]})
    with pytest.raises(hp.UnfreezableKey):
        hp.merge("n").named(object())


# ---- the same


@pytest.mark.parametrize("kind", EACH)
def test_nodes_are_equal_that_describe_the_same(kind: str) -> None:
    """Made twice, a node is the same; nodes of two kinds never are."""
    assert EACH[kind]() == EACH[kind]()
    assert hash(EACH[kind]()) == hash(EACH[kind]())
    assert [other for other in EACH if EACH[other]() == EACH[kind]()] == [kind]
    assert EACH[kind]() != kind


def test_a_lambda_made_anew_is_no_change() -> None:
    """A factory makes functions each time it is asked."""
    assert hp.map(add_one(), "n") == hp.map(add_one(), "n")


@pytest.mark.parametrize(
    "other",
    [
        hp.map(add_one(), "n"),
        hp.map(double, "m"),
        hp.map(double, "n", "m"),
        hp.map(double),
        hp.map(double, "n", capacity=8),
        hp.map(double, "n").named("d"),
        hp.map(partial(double), "n"),
    ],
)
def test_any_part_of_a_description_counts(other: Node) -> None:
    """The function, what is read, and each option."""
    assert hp.map(double, "n") != other
    assert other != hp.map(double, "n")


def test_concurrency_and_initial_state_count() -> None:
    """Of the same function, too; `1` and `True` are two states."""
    assert hp.map(fetch, "n") != hp.map(fetch, "n", concurrency=2)
    assert hp.stateful(step, 0, "n") != hp.stateful(step, 1, "n")
    assert hp.stateful(step, 1, "n") != hp.stateful(step, True, "n")


def test_the_order_of_what_is_read_does_not_count() -> None:
    """What a node reads is a set."""
    assert hp.merge("a", "b") == hp.merge("b", "a")
    assert hash(hp.merge("a", "b")) == hash(hp.merge("b", "a"))


def test_the_process_may_be_the_same_in_another_node() -> None:
    """Then links and options change, and it goes on."""
    node = hp.stateful(step, 0, "n")
    assert node.has_same_process(hp.stateful(step, 0, "other", capacity=1).named("x"))
    assert not node.has_same_process(hp.stateful(step, 1, "n"))
    assert not hp.map(double, "n").has_same_process(hp.filter(double, "n"))
