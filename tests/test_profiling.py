"""Profiles.  They measure real time, so these tests hold only what no other load on the machine can change."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from running import graph

import hotplumb as hp
from hotplumb.profiling import NodeProfile, Profile


def spin(n: int) -> int:
    return sum(range(20_000)) + n


async def wait_a_little(n: int) -> int:
    await asyncio.sleep(0.01)
    return n


def row_of(profile: Profile, key: str) -> NodeProfile:
    (row,) = [row for row in profile.rows if row.key == key]
    return row


# --- a run


def test_a_profile_counts_what_each_node_did() -> None:
    """All nodes are there, with what they received and sent, and what was collected as `run` gives it."""
    topology = graph(
        n=hp.source(range(100)),
        odd=hp.filter(lambda n: n % 2, "n"),
        twice=hp.flat_map(lambda n: [n, n], "odd"),
        out=hp.collect("twice"),
        all=hp.collect("n"),
    )
    profile = hp.profile(topology)
    counts = {row.key: (row.kind, row.received, row.sent, row.failed) for row in profile.rows}
    assert counts == {
        "n": ("source", 0, 100, 0),
        "odd": ("filter", 100, 50, 0),
        "twice": ("flat_map", 50, 100, 0),
        "out": ("collect", 100, 0, 0),
        "all": ("collect", 100, 0, 0),
    }
    assert profile.collected == hp.run(topology)


def test_the_busiest_node_comes_first() -> None:
    """Who asks where the time goes reads the first row."""
    profile = hp.profile(graph(n=hp.source(range(100)), spin=hp.map(spin, "n"), out=hp.collect("spin")))
    assert profile.rows[0].key == "spin"
    assert [row.busy_s for row in profile.rows] == sorted((row.busy_s for row in profile.rows), reverse=True)
    assert 0.5 < profile.rows[0].share < 1
    assert profile.rows[0].share == profile.rows[0].busy_s / profile.wall_s


def test_the_parts_of_a_run_are_its_whole() -> None:
    """Plain code, plumbing and waiting add up to the time that the run took."""
    profile = hp.profile(graph(n=hp.source(range(100)), spin=hp.map(spin, "n"), out=hp.collect("spin")))
    assert profile.busy_s == sum(row.busy_s for row in profile.rows)
    assert 0 < profile.plumbing_s < profile.wall_s
    assert profile.busy_s + profile.plumbing_s + profile.waiting_s == pytest.approx(profile.wall_s)


def test_async_code_is_busy_while_it_waits() -> None:
    """What an async node awaited is in its own row, and is time that the loop waited."""
    profile = hp.profile(graph(n=hp.source([1]), wait=hp.map(wait_a_little, "n"), out=hp.collect("wait")))
    row = profile.rows[0]
    assert (row.key, row.is_async) == ("wait", True)
    assert row.busy_s > 0.009
    assert profile.waiting_s > 0.005
    assert profile.busy_s < profile.wall_s - profile.waiting_s
    assert not row_of(profile, "n").is_async


async def slow_numbers() -> AsyncIterator[int]:
    await asyncio.sleep(0.01)
    yield 1


def test_whatever_is_awaited_counts() -> None:
    """So does the wait for a source's next value, and so do calls that are under way at once, as long as one is."""
    wait = hp.map(wait_a_little, "n", concurrency=4)
    profile = hp.profile(graph(n=hp.source(slow_numbers), wait=wait, out=hp.collect("wait")))
    assert row_of(profile, "n").busy_s > 0.009
    assert 0.009 < row_of(profile, "wait").busy_s < profile.wall_s


class Late:
    def process(self, value: Any) -> Any:
        return value

    async def end(self) -> None: ...


async def numbers() -> AsyncIterator[int]:
    yield 1


def test_a_node_is_async_where_any_of_its_code_is() -> None:
    """A process with one async method is, and a source that is an async generator."""
    profile = hp.profile(graph(n=hp.source(numbers), late=hp.process(Late, "n"), out=hp.collect("late")))
    assert {row.key for row in profile.rows if row.is_async} == {"n", "late"}


def test_opening_the_nodes_is_no_part_of_the_run() -> None:
    """A process that loads for long before it takes its first item is not the plumbing's fault."""

    took_s = []

    class Loading(Late):
        def begin(self, context: hp.Context) -> None:
            began = time.perf_counter()
            for i in range(500):
                spin(i)
            took_s.append(time.perf_counter() - began)

    profile = hp.profile(graph(n=hp.source([1]), load=hp.process(Loading, "n"), out=hp.collect("load")))
    assert profile.wall_s < took_s[0]


def test_what_fails_is_counted() -> None:
    """With a policy that goes on, failures have their column."""
    topology = graph(n=hp.source([2, 1, 0]), inverse=hp.map(lambda n: 1 / n, "n"), out=hp.collect("inverse"))
    profile = hp.profile(topology, on_error=hp.discard())
    assert row_of(profile, "inverse").failed == 1
    assert profile.collected == {"out": [0.5, 1]}


def test_what_user_code_raises_is_raised() -> None:
    """A run that fails has no profile."""
    with pytest.raises(hp.NodeError, match="inverse"):
        hp.profile(graph(n=hp.source([0]), inverse=hp.map(lambda n: 1 / n, "n"), out=hp.collect("inverse")))


def test_a_signal_ends_the_run_and_leaves_the_profile() -> None:
    """An endless graph is profiled until somebody presses Ctrl-C."""

    def endless() -> Iterator[int]:
        for n in range(10**9):
            if n == 1000:
                signal.raise_signal(signal.SIGINT)
            yield n

    profile = hp.profile(graph(n=hp.source(endless), out=hp.collect("n")))
    assert row_of(profile, "out").received == row_of(profile, "n").sent >= 1000


async def test_it_is_refused_where_a_loop_runs() -> None:
    """The error says what works there, and nothing has been called."""
    called: list[str] = []

    def produce() -> list[int]:
        called.append("n")
        return [1]

    topology = graph(n=hp.source(produce), out=hp.collect("n"))
    with pytest.raises(hp.UsageError, match=r"`await asyncio\.to_thread\(hp\.profile, topology\)`"):
        hp.profile(topology)
    assert called == []
    assert (await asyncio.to_thread(hp.profile, topology)).collected == {"out": [1]}


def test_nothing_runs_where_nothing_is_wanted() -> None:
    """A topology without sinks has an empty profile."""
    assert hp.profile(hp.Topology()).rows == ()


def test_a_pipeline_is_profiled_with_its_items() -> None:
    """What `run` takes, `profile` takes."""
    profile = hp.profile(hp.map(spin).named("spin") | hp.collect(), range(3))
    assert profile.collected == hp.run(hp.map(spin) | hp.collect(), range(3))
    assert {row.key: row.received for row in profile.rows} == {"items": 0, "spin": 3, "collect": 3}


def test_what_was_collected_comes_in_the_order_written() -> None:
    """As `run` returns it."""
    pipeline = hp.source([1]) | [hp.collect().named("z"), hp.collect().named("a")]
    assert list(hp.profile(pipeline).collected) == list(hp.run(pipeline)) == ["z", "a"]


def test_nodes_share_what_the_run_is_given() -> None:
    """`shared` is there while it is profiled, too."""

    class Counting(Late):
        def begin(self, context: hp.Context) -> None:
            context.shared.append(context.key)

    begun: list[Any] = []
    hp.profile(graph(n=hp.source([1]), count=hp.process(Counting, "n"), out=hp.collect("count")), shared=begun)
    assert begun == ["count"]


# --- the table


def row(key: str, kind: Any, is_async: bool, busy_s: float, *counts: int) -> NodeProfile:
    return NodeProfile(key, kind, is_async, busy_s, busy_s / 2, *counts)


PLAIN = Profile(
    (
        row("parse", "map", False, 1.5, 1234567, 1234566, 1),
        row("n", "source", False, 0.025, 0, 1234567, 0),
        row("never", "sink", False, 0.0, 0, 0, 0),
    ),
    wall_s=2.0,
    waiting_s=0.075,
    collected={},
)
MIXED = Profile((row("fetch", "map", True, 1.999, 10, 10, 0), *PLAIN.rows[1:]), 2.0, 1.875, {})


def test_it_prints_as_a_table() -> None:
    """A row for each node, and what the whole run was spent on."""
    assert repr(PLAIN) == str(PLAIN)
    assert str(PLAIN).split("\n") == [
        "node     kind       busy  share   received       sent  failed  per item",
        '"parse"  map       1.5 s    75%  1,234,567  1,234,566       1    1.2 us',
        '"n"      source  25.0 ms     1%          0  1,234,567       0     20 ns',
        '"never"  sink       0 ns     0%          0          0       0          ',
        "",
        "2.0 s in all: 1.5 s (76%) in plain code of nodes, 400.0 ms (20%) in the plumbing, 75.0 ms (4%) waiting",
    ]


def test_it_says_what_it_cannot_tell_apart() -> None:
    """Async nodes wait at the same time, and their code between waits is counted with the plumbing."""
    assert str(MIXED).split("\n")[1:] == [
        '"fetch"  async map    2.0 s   100%        10         10       0  199.9 ms',
        '"n"      source     25.0 ms     1%         0  1,234,567       0     20 ns',
        '"never"  sink          0 ns     0%         0          0       0          ',
        "",
        "2.0 s in all: 25.0 ms (1%) in plain code of nodes, 100.0 ms (5%) in the plumbing and async code, "
        "1.9 s (94%) waiting",
        "async nodes are busy while they wait, too, several of them at a time",
    ]


def test_a_long_key_does_not_widen_the_table() -> None:
    """Keys are shortened as in drawings."""
    profile = Profile((row("x" * 1000, "map", False, 1, 1, 1, 0),), 1, 0, {})
    assert max(map(len, str(profile).split("\n"))) < 130


def test_an_items_time_is_that_of_what_it_works_on() -> None:
    """Of a source it is for each item sent, since it receives none; where some failed, for these too."""
    assert [each.per_item_s for each in PLAIN.rows] == [1.5 / 1234568, 0.025 / 1234567, None]


def test_the_plumbings_part_is_never_below_nothing() -> None:
    """Clocks are read at different moments."""
    assert Profile(PLAIN.rows, wall_s=1.0, waiting_s=0.5, collected={}).plumbing_s == 0
