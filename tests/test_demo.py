"""The demo: what it makes of samples, in virtual time, and how it looks; the program itself is in test_cli."""

from __future__ import annotations

import asyncio
import io
import json
import math
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import Any

import psutil
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rich.console import Console

import hotplumb as hp
from hotplumb import testing
from hotplumb.demo import counters
from hotplumb.demo.graph import (
    MOST_WAITING,
    Pair,
    Pairing,
    Rollup,
    Sample,
    Summary,
    Value,
    demo_topology,
    rate,
    sampled,
    wanted,
    window_end,
    window_of,
)
from hotplumb.demo.lines import line
from hotplumb.demo.table import Board, amounts, bars, shortened, what

seeds_drawn = st.integers(0, 2**32 - 1)
CPU, MEMORY = {"metric": "cpu"}, {"metric": "memory"}


async def ticking(gaps_s: Sequence[float]) -> AsyncIterator[Sample]:
    """Samples that each come so long after the one before; their values count them."""
    for number, gap_s in enumerate(gaps_s):
        await asyncio.sleep(gap_s)
        yield Sample(asyncio.get_running_loop().time(), float(number))


def shown_of(
    topology_of: Callable[[Callable[[Any], None]], hp.Topology], *, seed: int = 0, after_s: float | None = None
) -> list[tuple[float, hp.Item]]:
    """Run a topology, to its end or for a virtual time; gives when each item was shown, and the item."""
    shown: list[tuple[float, hp.Item]] = []

    def show(value: object) -> None:
        shown.append((asyncio.get_running_loop().time(), hp.current_item()))

    async def main() -> None:
        async with hp.Plumbing(topology_of(show)) as plumbing:
            if after_s is None:
                await plumbing.join()
            else:
                await asyncio.sleep(after_s)

    testing.run(main, seed=seed)
    return shown


def by_key(shown: list[tuple[float, hp.Item]]) -> dict[Any, list[hp.Item]]:
    found = defaultdict(list)
    for _, item in shown:
        found[item.trail.keys[-1]].append(item)
    return found


# -- windows and roll-ups


@given(st.floats(0, 1e8), st.floats(0.001, 1e4))
@example(0.3, 0.1)
@example(41639.22210515414, 5.529042903353359)  # the quotient is rounded down
@example(56684349.119986616, 6.592488921384626)  # and here up
def test_a_window_holds_its_time(time_s: float, rollup_s: float) -> None:
    """Every moment lies in exactly one window."""
    window = window_of(time_s, rollup_s)
    assert window_end(window - 1, rollup_s) <= time_s < window_end(window, rollup_s)


@given(st.lists(st.floats(-1e300, 1e300), min_size=1))
def test_a_summary_is_of_all_its_samples(values: list[float]) -> None:
    """Its mean lies between its least and its most, whatever is rounded."""
    samples = [Sample(float(number), value) for number, value in enumerate(values)]
    found = Summary.of(7, samples)
    assert (found.time_s, found.window, found.count) == (len(values) - 1, 7, len(values))
    assert (found.least, found.most) == (min(values), max(values))
    assert found.least <= found.mean <= found.most
    assert math.isclose(found.mean, math.fsum(values) / len(values), abs_tol=1e-9)


def rolled_up(gaps_s: Sequence[float], rollup_s: float, seed: int) -> list[tuple[float, hp.Item]]:
    return shown_of(
        lambda show: (
            hp.Topology()
            .add("samples", hp.source(partial(ticking, gaps_s)))
            .add("rollup", hp.process(partial(Rollup, rollup_s), "samples"))
            .add("screen", hp.sink(show, "rollup"))
        ),
        seed=seed,
    )


@given(st.lists(st.sampled_from([0.0, 0.125, 0.25, 0.5, 1.0, 2.75]), min_size=1, max_size=30), seeds_drawn)
def test_a_rollup_is_what_its_windows_say(gaps_s: list[float], seed: int) -> None:
    """Each sample is in one summary, that of its window, given when the window has ended or nothing more comes."""
    times = [sum(gaps_s[: number + 1]) for number in range(len(gaps_s))]
    windows = defaultdict(list)
    for number, time_s in enumerate(times):
        windows[window_of(time_s, 1.0)].append(Sample(time_s, float(number)))
    shown = rolled_up(gaps_s, 1.0, seed)
    assert [item.value for _, item in shown] == [Summary.of(window, windows[window]) for window in sorted(windows)]
    for given_s, item in shown:
        assert given_s == min(window_end(item.value.window, 1.0), times[-1])


@given(st.lists(st.sampled_from([0.0, 0.25, 1.5]), min_size=1, max_size=30), seeds_drawn)
def test_a_rollup_knows_what_it_is_of(gaps_s: list[float], seed: int) -> None:
    """The trails of a summary's samples are its members, and each sample is a member once."""
    members = [item.trail.members for _, item in rolled_up(gaps_s, 1.0, seed)]
    assert sum(found.left_out for found in members) == 0
    assert [trail.origin.number for found in members for trail in found.trails] == list(range(len(gaps_s)))


def test_a_window_ends_in_silence() -> None:
    """A summary does not wait for the next sample, which may be long in coming."""
    shown = rolled_up([0.5, 3600], 1.0, seed=0)
    assert [(given_s, item.value.count) for given_s, item in shown] == [(1.0, 1), (3600.5, 1)]


def test_a_late_sample_counts_in_the_next_window() -> None:
    """No sample is lost, and no window is given twice."""
    entries = [Sample(0.5, 1.0), testing.Pause(1.5), Sample(0.9, 2.0), Sample(2.0, 3.0), testing.Pause(1), Sample(3, 4)]
    shown = shown_of(
        lambda show: (
            hp.Topology()
            .add("samples", hp.source(testing.script(entries)))
            .add("rollup", hp.process(partial(Rollup, 1.0), "samples"))
            .add("screen", hp.sink(show, "rollup"))
        )
    )
    assert [(item.value.window, item.value.count) for _, item in shown] == [(0, 1), (1, 1), (2, 1), (3, 1)]


# -- rates


@given(st.lists(st.tuples(st.floats(0.01, 100), st.integers(0, 2**40)), min_size=2, max_size=20))
def test_rates_add_up_to_the_count(steps: list[tuple[float, int]]) -> None:
    """What was counted is what was fast for how long."""
    state, time_s, count = None, 0.0, 0
    rates: list[float] = []
    for gap_s, grown in steps:
        before_s, time_s, count = time_s, time_s + gap_s, count + grown
        state, found = rate(state, Sample(time_s, float(count)))
        rates.extend((sample.value * (time_s - before_s)) for sample in found)
    assert len(rates) == len(steps) - 1
    assert math.isclose(sum(rates), sum(grown for _, grown in steps[1:]), rel_tol=1e-9, abs_tol=1e-6)


@pytest.mark.parametrize(
    ("last", "count", "rates"),
    [
        (None, Sample(1, 5.0), []),
        (Sample(1, 5.0), Sample(3, 9.0), [Sample(3, 2.0)]),
        (Sample(1, 5.0), Sample(3, 1.0), [Sample(3, 0.0)]),  # a device was unplugged
        (Sample(1, 5.0), Sample(1, 6.0), []),  # a clock that did not move
    ],
)
def test_a_rate_needs_two_counts(last: Sample | None, count: Sample, rates: list[Sample]) -> None:
    """A counter tells how fast it grows from its second sample on, and never that it shrinks."""
    assert rate(last, count) == (count, rates)


# -- pairs


def paired(left: Sequence[Any], right: Sequence[Any], seed: int = 0) -> list[hp.Item]:
    return [
        item
        for _, item in shown_of(
            lambda show: (
                hp.Topology()
                .add(CPU, hp.source(testing.script(left)))
                .add(MEMORY, hp.source(testing.script(right)))
                .add("pairs", hp.process(partial(Pairing, "cpu"), CPU, MEMORY))
                .add("screen", hp.sink(show, "pairs"))
            ),
            seed=seed,
        )
    ]


def summary(window: int, mean: float) -> Summary:
    return Summary(float(window), window, mean, mean, mean, 1)


windows_drawn = st.sets(st.integers(0, 20)).map(sorted)


@given(windows_drawn, windows_drawn, seeds_drawn)
def test_pairs_are_of_one_window(left: list[int], right: list[int], seed: int) -> None:
    """Whoever comes first waits for the other; a window that only one has gives no pair."""
    found = paired([summary(w, w + 0.25) for w in left], [summary(w, w + 0.75) for w in right], seed)
    both = sorted(set(left) & set(right))
    assert [item.value for item in found] == [Pair(float(w), w, w + 0.25, w + 0.75) for w in both]
    for item, window in zip(found, both, strict=True):
        numbers = {(CPU["metric"], left.index(window)), (MEMORY["metric"], right.index(window))}
        assert {(trail.origin.source["metric"], trail.origin.number) for trail in item.trail.members.trails} == numbers  # type: ignore[index]


@pytest.mark.parametrize(("window", "found"), [(0, []), (1, [1])])
def test_what_finds_no_partner_is_forgotten(window: int, found: list[int]) -> None:
    """A metric that this machine does not have costs no memory in the end."""
    alone = [summary(window, 1.0) for window in range(MOST_WAITING + 1)]
    late = [testing.Pause(1), summary(window, 2.0)]
    assert [item.value.window for item in paired(alone, late)] == found


# -- the whole graph, in virtual time


def test_the_factory_builds_what_the_screen_wants() -> None:
    """Each pair has two parents, each roll-up a metric, what is counted a counter, and nothing else runs."""
    topology = demo_topology(5, 0.5, print)
    assert topology.reads({"pair": ["cpu", "disk"], "rollup_s": 5}) == (
        hp.freeze({"metric": "cpu", "rollup_s": 5}),
        hp.freeze({"metric": "disk", "rollup_s": 5}),
    )
    assert topology.reads({"metric": "disk", "rollup_s": 5}) == (hp.freeze({"metric": "disk"}),)
    assert topology.reads({"metric": "disk"}) == (hp.freeze({"counter": "disk"}),)
    assert len(topology.active) == 1 + len(wanted(5)) + len(counters.COUNTERS)


def test_another_rollup_leaves_the_sources_as_they_are() -> None:
    """Only what depends on the length of the windows differs."""
    before, after = demo_topology(5, 0.5, print).active, demo_topology(2, 0.5, print).active
    kept = {key for key, node in before.items() if after.get(key) == node}
    assert kept == {key for key in before if key != "screen" and "rollup_s" not in key}  # type: ignore[operator]


@pytest.mark.parametrize("key", [{"metric": "luck"}, {"metric": "luck", "rollup_s": 5}, {"counter": "cpu"}])
def test_the_factory_refuses_what_there_is_not(key: dict[str, Any]) -> None:
    """A metric that does not exist is found when the topology is made."""
    with pytest.raises(hp.UnmetDependency):
        demo_topology(5, 0.5, print).add("more", hp.sink(print, key))


def test_the_graph_gives_all_it_was_made_for(seed: int) -> None:
    """Twenty seconds: samples twice a second, from the first moment on; four windows and what there is of a fifth."""
    found = by_key(shown_of(partial(demo_topology, 5, 0.5), seed=seed, after_s=20.25))
    assert {key: len(items) for key, items in found.items() if "pair" not in key} == {
        hp.freeze({"metric": "cpu"}): 41,
        hp.freeze({"metric": "memory"}): 41,
        hp.freeze({"metric": "disk"}): 40,
        hp.freeze({"metric": "network"}): 40,
        **{hp.freeze({"metric": metric, "rollup_s": 5}): 5 for metric in ("cpu", "memory", "disk", "network")},
    }
    assert {len(items) for key, items in found.items() if "pair" in key} == {5}
    for key, items in found.items():
        if "rollup_s" in key and "metric" in key:
            gathered = [trail.origin.number for item in items for trail in item.trail.members.trails]
            assert gathered == [item.origin.number for item in found[key.remove("rollup_s")]]


@pytest.mark.parametrize("answer", [None, NotImplementedError("no /proc/diskstats"), PermissionError("hidden")])
def test_a_metric_that_the_machine_does_not_have_is_left_out(monkeypatch: pytest.MonkeyPatch, answer: object) -> None:
    """As in containers, where psutil may find no disk."""

    def no_disk() -> None:
        if isinstance(answer, Exception):
            raise answer

    monkeypatch.setattr(psutil, "disk_io_counters", no_disk)
    found = by_key(shown_of(partial(demo_topology, 5, 0.5), after_s=6))
    assert {what(key) for key in found} == {"cpu", "memory", "network", "cpu, 5 s", "memory, 5 s", "network, 5 s"} | {
        "cpu & memory, 5 s"
    }


@pytest.mark.parametrize(
    ("busy_s", "times"), [([0.1, 0.1, 0.1], [0, 0.5, 1, 1.5]), ([1.75, 0, 0], [0, 1.75, 2.25, 2.75])]
)
def test_samples_keep_their_beat(busy_s: list[float], times: list[float]) -> None:
    """Whoever takes them may be slow: beats do not drift, and those that are missed are not made up for."""

    async def main() -> list[float]:
        samples = sampled("memory", 0.5)
        found = [(await anext(samples)).time_s]
        for seconds in busy_s:
            await asyncio.sleep(seconds)
            found.append((await anext(samples)).time_s)
        return found

    assert testing.run(main) == times


# -- how it looks


def scripted(show: Callable[[Value], None]) -> hp.Topology:
    """The demo, with two samples of each metric in one window."""
    topology = demo_topology(1, 0.5, show)
    for place, metric in enumerate(("cpu", "memory", "disk", "network")):
        samples = [Sample(0.25, 10.0 * 100**place), Sample(0.75, 20.0 * 100**place)]
        topology = topology.replace({"metric": metric}, hp.source(samples))
    return topology


def test_a_line_of_json_says_all() -> None:
    """Key, value, time and where the item comes from."""

    found = by_key(shown_of(scripted))
    sample, rollup, pair = (
        json.loads(json.dumps(line(found[hp.freeze(key)][-1], started_s=1000.0)))
        for key in (CPU, {"metric": "cpu", "rollup_s": 1}, {"pair": ("cpu", "memory"), "rollup_s": 1})
    )
    cpu, cpu_1 = '{"metric": "cpu"}', '{"metric": "cpu", "rollup_s": 1}'
    assert sample == {
        "key": {"metric": "cpu"},
        "value": 20.0,
        "time": 1000.75,
        "trail": [[cpu, 0]],
        "origin": {"source": cpu, "number": 1, "attempt": 0},
        "members": [],
    }
    assert rollup == {
        "key": {"metric": "cpu", "rollup_s": 1},
        "value": {"min": 10.0, "mean": 15.0, "max": 20.0, "count": 2},
        "time": 1000.75,
        "trail": [[cpu_1, 0]],
        "origin": {"source": cpu_1, "number": 0, "attempt": 0},
        "members": [{"source": cpu, "number": number, "attempt": 0} for number in (0, 1)],
    }
    assert pair["key"] == {"pair": ["cpu", "memory"], "rollup_s": 1}
    assert pair["value"] == {"cpu": 15.0, "memory": 1500.0}
    assert [key for key, _ in pair["trail"]][1:] == ['{"pair": ("cpu", "memory"), "rollup_s": 1}']
    assert {member["source"] for member in pair["members"]} == {cpu_1, '{"metric": "memory", "rollup_s": 1}'}


def drawn(board: Board, width: int) -> list[str]:
    """The lines of a board in a terminal so wide."""
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    with console.capture() as captured:
        console.print(board.table("title", width))
    return [text.rstrip() for text in captured.get().splitlines() if text.strip()]


async def board_of_scripted() -> Board:
    board = Board(wanted(1), asyncio.get_running_loop().time)
    async with hp.Plumbing(scripted(board.show)) as plumbing:
        await plumbing.join()
    await asyncio.sleep(2)
    return board


@pytest.mark.parametrize("width", [80, 119, 120, 200])
def test_the_table_has_a_row_for_each_key(width: int) -> None:
    """What, how much, since when, and where from; nothing is wrapped or wider than the terminal."""
    lines = drawn(testing.run(board_of_scripted), width)
    assert max(map(len, lines)) <= width
    title, head, rule, *rows = lines
    assert (title.strip(), head.split()[0], set(rule)) == ("title", "what", {"─"})
    assert [row.split("  ")[0].strip() for row in rows] == [what(hp.freeze(key)) for key in wanted(1)]
    network_1 = next(text for text in lines if text.startswith("network, 1 s"))
    assert "10.0 < 15.0 < 20.0 MB/s" in network_1
    assert " 2.0 " in network_1
    assert network_1.endswith("of 2 items)")
    assert (bars([10e6, 20e6]) in next(text for text in lines if text.startswith("network "))) == (width >= 120)


def test_a_row_without_values_says_so() -> None:
    """The table has its shape from the start."""
    lines = drawn(Board(wanted(1), lambda: 0.0), 80)
    assert [text.split()[-1] for text in lines[3:]] == ["-"] * len(wanted(1))


@pytest.mark.parametrize(
    ("metric", "numbers", "text"),
    [
        ("cpu", [0.0], "0.0 %"),
        ("memory", [0.04, 50, 100], "0.0 < 50.0 < 100.0 %"),
        ("disk", [0.0], "0 B/s"),
        ("disk", [999.4], "999 B/s"),
        ("disk", [999.5], "1.0 kB/s"),
        ("disk", [999_499.0], "999.5 kB/s"),
        ("disk", [999_500.0], "1.0 MB/s"),
        ("network", [1e6, 2e9, 3e12], "0.0 < 0.0 < 3.0 TB/s"),
        ("network", [1e15], "1000.0 TB/s"),
    ],
)
def test_amounts_have_the_unit_that_suits_them(metric: str, numbers: list[float], text: str) -> None:
    """Numbers in one cell share their unit."""
    assert amounts(metric, *numbers) == text


@given(st.lists(st.floats(0, 1e15), max_size=12), st.none() | st.floats(0, 100))
def test_there_is_a_bar_for_each_number(numbers: list[float], top: float | None) -> None:
    """Higher numbers never have lower bars."""
    drawn_bars = bars(numbers, top)
    assert len(drawn_bars) == len(numbers)
    assert [drawn_bars[place] for place in sorted(range(len(numbers)), key=numbers.__getitem__)] == sorted(drawn_bars)


@given(st.text(), st.integers(0, 40))
def test_a_shortened_text_keeps_its_ends(text: str, width: int) -> None:
    """It is never wider than it may be, and whole where it fits."""
    found = shortened(text, width)
    assert len(found) == min(len(text), width)
    before, _, after = found.partition("…")
    assert text.startswith(before) or found == text
    assert text.endswith(after) or found == text


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ({"metric": "cpu"}, "cpu"),
        ({"metric": "cpu", "rollup_s": 2.5}, "cpu, 2.5 s"),
        ({"pair": ("cpu", "disk"), "rollup_s": 60}, "cpu & disk, 60 s"),
        ("other", '"other"'),
    ],
)
def test_keys_have_short_names(key: object, text: str) -> None:
    """The table has no room for whole keys."""
    assert what(hp.freeze(key)) == text
