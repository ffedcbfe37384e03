"""Random graphs do what their paths predict, whatever the order in which their nodes get their turns.

Five thousand fresh seeds a run.  A failure names the one seed, shows its graph, and `python -m tests.graphs SEED` from
the root of the checkout repeats that graph alone.
"""

from __future__ import annotations

import gc
import itertools
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest
from graphs import (
    Graph,
    Played,
    Read,
    Spec,
    Value,
    Wrong,
    check,
    check_mingled,
    play,
    play_and_check,
    random_graph,
)

ROOT = Path(__file__).parents[1]
EXAMPLE = 7  # any seed


@pytest.mark.parametrize("part", range(10))
def test_each_sink_receives_what_the_paths_predict(part: int, seeds: Callable[[int], list[int]]) -> None:
    """Nothing is lost, doubled or out of order; trails and counts are right; links are bounded; all is closed."""
    for seed in seeds(500):
        play_and_check(seed)
    gc.collect()  # what was not closed warns here


# --- the tests of the test


def test_a_seed_repeats() -> None:
    """The same seed gives the same graph and the same order of calls."""

    def calls(played: Played) -> list[str]:
        return [f"{key} {event.call} {event.value}" for key, doing in played.doings.items() for event in doing.log]

    assert random_graph(EXAMPLE) == random_graph(EXAMPLE)
    assert calls(play(random_graph(EXAMPLE))) == calls(play(random_graph(EXAMPLE)))


def test_seeds_differ_in_all_that_graphs_may_be_made_of() -> None:
    """What the generator never made would never be tested."""
    graphs = [random_graph(seed) for seed in range(1000)]
    specs = [spec for graph in graphs for spec in graph.specs]
    kinds = Counter(spec.kind for spec in specs)
    assert len(kinds) == 13
    assert min(kinds.values()) >= 50
    assert {spec.capacity for spec in specs} >= {1, 2, 3, 4, 1024}
    assert {spec.concurrency for spec in specs} == {1, 2, 3, 4}
    assert {graph.ending for graph in graphs} == {"join", "stop", "drain", "leave"}
    assert {graph.wiring for graph in graphs} == {"add", "update", "factory"}
    assert sum(len(spec.reads) > 1 for spec in specs) > 500  # fan-in
    assert sum(len(graph.readers(spec.key)) > 1 for graph in graphs for spec in graph.specs) > 500  # fan-out
    assert sum(spec.kind == "source" and spec.count is None for spec in specs) > 20
    assert sum(spec.is_bursty for spec in specs) > 20


def chain_of(*kinds: str) -> Graph:
    """A source of twelve values, and a reader of each kind after the one before."""
    specs = [Spec("s", "source", "list", count=12)]
    for i, kind in enumerate(kinds):
        specs.append(Spec(f"n{i}", kind, "plain", (Read(specs[-1].key),), salt=i, capacity=2))
    return Graph(1, tuple(specs), "add", "join", 0, (), ())


def doubled(values: list[Value]) -> None:
    values.append(values[-1])


def lost(values: list[Value]) -> None:
    del values[5]


def swapped(values: list[Value]) -> None:
    values[2], values[3] = values[3], values[2]


def cut_short(values: list[Value]) -> None:
    del values[-1]


def strange(values: list[Value]) -> None:
    values[0] = attrs.evolve(values[0], number=99)


@pytest.mark.parametrize("spoil", [doubled, lost, swapped, cut_short, strange])
def test_the_model_sees_what_is_wrong_at_a_sink(spoil: Callable[[list[Value]], None]) -> None:
    """A check that accepts everything would hide every bug."""
    graph = chain_of("map", "collect")
    played = play(graph)
    check(graph, played)
    spoil(played.collected["n1"])
    with pytest.raises(Wrong, match="n1"):
        check(graph, played)


def test_the_model_sees_a_wrong_trail() -> None:
    """A value with the trail of another is wrong, though the values are all there and in order."""
    graph = chain_of("map", "sink")
    played = play(graph)
    log = played.doings["n1"].log
    log[3].trail, log[4].trail = log[4].trail, log[3].trail
    log[3].hops = log[4].hops = None
    with pytest.raises(Wrong, match="origins"):
        check(graph, played)


def test_the_model_sees_a_generator_that_was_left_open() -> None:
    """Each generator's `finally` has to have run."""
    graph = chain_of("map", "sink")
    played = play(graph)
    played.doings["s"].opened += 1
    with pytest.raises(Wrong, match="still open"):
        check(graph, played)


def test_mingled_links_keep_their_own_order() -> None:
    """Any interleaving of two links is right, and nothing else."""
    for order in set(itertools.permutations("ABxy")):
        is_right = order.index("A") < order.index("B") and order.index("x") < order.index("y")
        if is_right:
            check_mingled(order, ["AB", "xy"], is_finished=False)
        else:
            with pytest.raises(Wrong, match="value"):
                check_mingled(order, ["AB", "xy"], is_finished=False)


def test_a_failing_graph_can_be_shown_from_the_command_line() -> None:
    """`python -m tests.graphs SEED` shows the graph before it plays it."""
    command = [sys.executable, "-m", "tests.graphs", str(EXAMPLE)]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False).stdout
    assert shown.strip() == str(random_graph(EXAMPLE))
