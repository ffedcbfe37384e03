"""The demo: what it makes of samples, in virtual time, and how it looks; the program itself is in test_cli."""

from __future__ import annotations

import asyncio
import io
import json
import math
import re
import signal
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from functools import partial
from itertools import count
from typing import Any

import psutil
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rich.console import Console, ConsoleDimensions, RenderableType

import hotplumb as hp
from hotplumb import testing
from hotplumb._changes import Changing
from hotplumb._links import Link
from hotplumb.demo import counters
from hotplumb.demo.graph import (
    MOST_WAITING,
    SCREEN,
    Pair,
    Pairing,
    Rewired,
    Rollup,
    Sample,
    Summary,
    Value,
    demo_topology,
    rate,
    rewire,
    sampled,
    wanted,
    what,
    window_end,
    window_of,
)
from hotplumb.demo.lines import line
from hotplumb.demo.painting import HIDE_CURSOR, Above, Painting
from hotplumb.demo.running import Ended, Screen, Settings, run, samples_of
from hotplumb.demo.table import Board, amounts, bars, shortened
from hotplumb.demo.tally import Counts, Families, Numbers, Tally
from hotplumb.items import MOST_MEMBERS, Chunk, Members, Record, Root, Trail

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
    ],
)
def test_a_rate_needs_two_counts(last: Sample | None, count: Sample, rates: list[Sample]) -> None:
    """A counter tells how fast it grows from its second sample on, and never that it shrinks."""
    assert rate(last, count) == (count, rates)


def test_what_grew_while_the_clock_stood_is_seen_when_it_moves() -> None:
    """Each count but the first gives a rate, and nothing that was counted is missing in the sum of them."""
    state, still = rate(Sample(1, 5.0), Sample(1, 6.0))
    _, moved = rate(state, Sample(3, 9.0))
    assert (still, moved) == ([Sample(1, 0.0)], [Sample(3, 2.0)])


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


# -- what is counted


@given(st.lists(st.integers(2, 12)), st.integers(13, 15))
def test_gaps_and_repetitions_are_found_in_any_order(came: list[int], end: int) -> None:
    """Missing is what has not come, doubled is what has come more than once."""
    numbers = Numbers(2)
    for number in came:
        numbers.note(number)
    assert numbers.missing(end) == set(range(2, end)) - set(came)
    assert numbers.doubled == len(came) - len(set(came))


def hop(key: object, epoch: int = 0) -> hp.Hop:
    return hp.Hop(hp.freeze(key), epoch)


def trail(source: object, number: int, *hops: hp.Hop) -> Trail:
    return Trail(Record(Root(hp.freeze(source), number), hops), 0)


def rollup_of(metric: str, numbers: Sequence[int]) -> hp.Item:
    """A roll-up of samples with these numbers."""
    source = {"metric": metric} if metric in counters.GAUGES else {"counter": metric}
    members = [trail(source, number, hop(source)) for number in numbers]
    key = {"metric": metric, "rollup_s": 5}
    record = Record(Root(hp.freeze(key), 0), (hop(key),))
    record.members = {0: Members(tuple(members[:MOST_MEMBERS]), len(members[MOST_MEMBERS:]))}
    return hp.Item(None, Trail(record, 0))


def counted(shown: Sequence[int], windows: Sequence[Sequence[int]], given: int, metric: str = "cpu") -> Counts:
    """What a tally makes of samples with these numbers, and roll-ups of these."""
    tally = Tally()
    source = {"metric": metric} if metric in counters.GAUGES else {"counter": metric}
    for number in shown:
        tally.see(hp.Item(None, trail(source, number, hop(source), hop({"metric": metric}))), 0)
    for numbers in windows:
        tally.see(rollup_of(metric, numbers), 0)
    return tally.counts({metric: given})


@pytest.mark.parametrize(
    ("shown", "windows", "given", "found"),
    [
        (range(6), [[0, 1], [2, 3, 4], [5]], 6, Counts(0, 0, 0)),
        ([0, 1, 3], [[0, 1], [2, 3]], 4, Counts(1, 0, 0)),  # not shown
        (range(4), [[0, 1], [3]], 4, Counts(1, 0, 0)),  # in no window
        ([0, 1, 3], [[0, 1], [3]], 4, Counts(1, 0, 0)),  # neither: it is one sample
        ([0, 1, 3], [[0, 2], [3]], 4, Counts(2, 0, 0)),
        (range(4), [[0, 1, 2]], 4, Counts(1, 0, 0)),  # the last one
        ([0, 1, 1, 2], [[0, 1, 2]], 3, Counts(0, 1, 0)),  # shown again
        (range(4), [[0, 1, 2], [2, 3]], 4, Counts(0, 1, 0)),  # in two windows
        (range(4), [[0, 1, 1, 2, 3]], 4, Counts(0, 1, 0)),  # twice in one
        (range(200), [range(100), range(100, 200)], 200, Counts(0, 0, 0)),  # more than a trail names
        (range(200), [range(100), range(101, 200)], 200, Counts(1, 0, 0)),
        (range(200), [range(100), range(99, 200)], 200, Counts(0, 1, 0)),
        ([], [], 7, Counts(7, 0, 0)),
    ],
)
def test_lost_and_doubled_samples_are_counted(
    shown: Sequence[int], windows: Sequence[Sequence[int]], given: int, found: Counts
) -> None:
    """Each sample is to be shown once, and to be in one window."""
    assert counted(shown, windows, given) == found


def test_the_first_count_is_not_lost() -> None:
    """How fast a counter grows is known from its second sample on."""
    assert counted([1, 2], [[1, 2]], 3, metric="disk") == Counts(0, 0, 0)
    assert counted([2], [[2]], 3, metric="disk") == Counts(1, 0, 0)


@pytest.mark.parametrize(
    ("met", "mixed"),
    [
        ([[hop("a", 1), hop("b", 1)]], 0),
        ([[hop("a", 0), hop("b", 0)]], 0),
        ([[hop("a", 0), hop("b", 1)]], 1),
        ([[hop("a", 0)], [hop("a", 1)]], 1),  # on two ways
        ([[hop("a", 0), hop("c", 1)]], 0),  # one that this change does not touch
        ([[hop("a", 1), hop("b", 2)]], 0),  # and no other change is known
    ],
)
def test_mixed_families_are_counted(met: list[list[hp.Hop]], mixed: int) -> None:
    """What derives from one sample meets what a change touches before it or after it, and never both."""
    families = Families()
    for hops in met:
        families.met(hp.Origin("s", 7, 0), [hop("s"), *hops])
    families.changed(1, {"a", "b"})
    assert families.mixed == mixed
    for number in range(5000):  # it is judged before it is forgotten
        families.met(hp.Origin("other", number, 0), [hop("a", 1)])
    assert families.mixed == mixed


class Noting:
    """A view that keeps what it is shown, and when it was told of changes; also the screen's epochs, if it may ask."""

    def __init__(self) -> None:
        self.items: list[hp.Item] = []
        self.rewired: list[Rewired] = []
        self.times: list[float] = []
        self.epochs: list[int] = []
        self.plumbing: hp.Plumbing | None = None

    def show(self, _: Value) -> None:
        self.items.append(hp.current_item())
        if self.plumbing is not None:
            self.epochs.append(self.plumbing.statistics().nodes[SCREEN].epoch)

    def changed(self, rewired: Rewired) -> None:
        self.rewired.append(rewired)
        self.times.append(asyncio.get_running_loop().time())


FAST = Settings(rollup_s=0.4, every_s=0.01, seconds=2.055, rewire_after_s=0.1)  # changes come when samples do


def ran(view: Noting, seed: int, settings: Settings = FAST) -> Ended:
    """Run the demo in virtual time; gives up when it does not come to its end."""

    async def main() -> Ended:
        async with asyncio.timeout(1000):
            return await run(settings, view, asyncio.Queue())

    return testing.run(main, seed=seed)


def test_a_run_that_is_rewired_loses_doubles_and_mixes_nothing(seed: int) -> None:
    """Twenty changes while samples are under way; what the tally says can be seen in what was shown."""
    view = Noting()
    ended = ran(view, seed)
    assert (ended.counts, ended.changes, ended.rows) == (Counts(0, 0, 0), 20, len(view.items))
    assert str(ended).endswith("20 changes: 0 lost, 0 doubled, 0 mixed")
    samples, members = defaultdict(list), defaultdict(list)
    for item in view.items:
        match item.trail.keys[-1]:
            case {"metric": metric, "rollup_s": _}:
                members[metric].extend([member.origin.number for member in item.trail.members.trails])
            case {"metric": metric}:
                samples[metric].append(item.origin.number)
    assert samples == members
    assert samples["cpu"] == list(range(len(samples["cpu"])))
    assert samples["disk"] == list(range(1, len(samples["cpu"])))
    assert {item.trail.hops[-1].epoch for item in view.items} == set(range(21))


def test_a_change_takes_the_lengths_by_turns_and_leaves_the_counters_alone(seed: int) -> None:
    """Its region is all that the screen reads, and the screen; the state of rates is kept."""
    view = Noting()
    ran(view, seed)
    assert [(rewired.before_s, rewired.after_s) for rewired in view.rewired[:3]] == [(0.4, 0.8), (0.8, 0.4), (0.4, 0.8)]
    for rewired in view.rewired:
        assert rewired.change.region == {"screen", *map(hp.freeze, wanted(rewired.before_s))}
        assert rewired.change.state["screen"] == "kept"
        assert set(rewired.change.topology.reads("screen")) == {*map(hp.freeze, wanted(rewired.after_s))}


async def counts_under_mutant(view: Noting) -> Counts:
    """The counts of a run that may not be able to end; what was not shown after a long time is lost."""
    screen = Screen(FAST, view)
    view.plumbing = screen.plumbing
    with suppress(TimeoutError):
        async with asyncio.timeout(1000), screen.plumbing:
            await screen.fulfil(asyncio.Queue())
    return screen.tally.counts(samples_of(screen.plumbing))


def mixed_in(view: Noting) -> int:
    """The families that met two versions of what one change touched, in what a view was shown."""
    met = defaultdict(set)
    for item, epoch in zip(view.items, view.epochs, strict=True):
        met[item.origin].update([*item.trail.hops, hop(SCREEN, epoch)])
    changes = [rewired.change for rewired in view.rewired]
    return sum(
        any(len({hop.epoch >= change.epoch for hop in hops if hop.key in change.touched}) > 1 for change in changes)
        for hops in met.values()
    )


def test_a_screen_that_switches_too_early_is_seen(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """Without the rule that it waits for all it reads, windows are lost, and samples meet it on the wrong side."""
    assert testing.run(lambda: counts_under_mutant(Noting()), seed=seed) == Counts(0, 0, 0)
    monkeypatch.setattr(Changing, "without", "align")
    view = Noting()
    counts = testing.run(lambda: counts_under_mutant(view), seed=seed)
    assert counts.lost > 0
    assert counts.mixed == mixed_in(view) > 0


@pytest.mark.parametrize(("times", "wrong"), [(0, "lost"), (2, "doubled")])
def test_links_that_lose_or_double_are_seen(times: int, wrong: str, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """Every tenth chunk to the screen is not sent, or sent twice."""
    push, pushed = Link.push, count()

    def wrongly(link: Link, chunk: Chunk) -> None:
        is_tenth = link.source in map(hp.freeze, wanted(0.4)) and next(pushed) % 10 == 9
        for _ in range(times if is_tenth else 1):
            push(link, chunk)

    monkeypatch.setattr(Link, "push", wrongly)
    counts = testing.run(lambda: counts_under_mutant(Noting()), seed=seed)
    assert getattr(counts, wrong) > 10
    assert counts.mixed == 0


def test_wishes_come_before_time(seed: int) -> None:
    """Each wish for a change is fulfilled, in order, until the end is wished."""

    async def main() -> tuple[Ended, float]:
        wishes: asyncio.Queue[Any] = asyncio.Queue()
        loop = asyncio.get_running_loop()
        for time_s, wish in [(1, "rewire"), (1, "rewire"), (2.5, "rewire"), (4, signal.SIGTERM), (5, "rewire")]:
            loop.call_later(time_s, wishes.put_nowait, wish)
        return await run(Settings(2, 0.5, seconds=100), Noting(), wishes), loop.time()

    ended, time_s = testing.run(main, seed=seed)
    assert (ended.changes, ended.signal, ended.counts, time_s) == (3, signal.SIGTERM, Counts(0, 0, 0), 4)


def test_a_change_in_between_puts_the_next_one_off() -> None:
    """Whoever has pressed a key has as long to look at what came of it."""

    async def main() -> list[float]:
        loop, view = asyncio.get_running_loop(), Noting()
        wishes: asyncio.Queue[Any] = asyncio.Queue()
        loop.call_later(4.5, wishes.put_nowait, "rewire")
        await run(Settings(2, 0.5, seconds=10, rewire_after_s=2), view, wishes)
        return view.times

    assert testing.run(main) == [2, 4, 4.5, 6.5, 8.5]


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


def drawn(picture: RenderableType, width: int) -> list[str]:
    """The lines of a picture in a terminal so wide."""
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    with console.capture() as captured:
        console.print(picture)
    return [text.rstrip() for text in captured.get().splitlines()]


def board_of(rollup_s: float, clock: Callable[[], float] = lambda: 0.0) -> Board:
    return Board(wanted(rollup_s), "title", "hint", clock)


def heads(rows: Sequence[str]) -> list[str]:
    """What each row is about."""
    found = [re.match(r"\w+( & \w+)?(, [\d.]+ s)?", row) for row in rows]
    return [match[0] for match in found if match]


async def board_of_scripted() -> Board:
    board = board_of(1, asyncio.get_running_loop().time)
    async with hp.Plumbing(scripted(board.show)) as plumbing:
        await plumbing.join()
    await asyncio.sleep(2)
    return board


@pytest.mark.parametrize("width", [60, 80, 119, 120, 200])
def test_the_table_has_a_row_for_each_key(width: int) -> None:
    """What, how much, since when, and where from; nothing is wrapped or wider than the terminal."""
    lines = drawn(testing.run(board_of_scripted).drawn(width), width)
    assert max(map(len, lines)) <= width
    title, head, rule, *rows, below, _, hint = lines
    assert (title, below, hint) == ("title, epoch 0", "no change yet", "hint")
    assert head.split()[:4] == ["what", "value", "age", "epoch"]
    assert set(rule) == {"─"}
    assert heads(rows) == [what(hp.freeze(key)) for key in wanted(1)]
    network_1 = next(text for text in lines if text.startswith("network, 1 s"))
    assert "10.0 < 15.0 < 20.0 MB/s" in network_1
    assert re.search(r" 2\.0 +0\b", network_1)
    assert ("trail" in head, network_1.endswith("2 items)")) == (width >= 80, width >= 80)
    assert (bars([10e6, 20e6]) in next(text for text in lines if text.startswith("network "))) == (width >= 120)


@pytest.mark.parametrize("width", range(1, 60))
def test_a_terminal_too_narrow_shows_what_it_can(width: int) -> None:
    """Each row stays one line."""
    lines = drawn(testing.run(board_of_scripted).drawn(width), width)
    assert max(map(len, lines)) <= width
    assert len(lines) == 6 + len(wanted(1))


def test_a_row_without_values_says_so() -> None:
    """The table has its shape from the start, and keeps it when values come."""
    waiting, filled = drawn(board_of(1).drawn(80), 80), drawn(testing.run(board_of_scripted).drawn(80), 80)
    assert [text.split()[-2:] for text in waiting[3:-3]] == [["-", "0"]] * len(wanted(1))
    assert waiting[:3] == filled[:3]


def test_after_a_change_the_table_has_other_rows() -> None:
    """Those of the keys that the screen reads now, each with its epoch, and which nodes the change was about."""

    async def main() -> list[str]:
        board = board_of(2, asyncio.get_running_loop().time)
        async with hp.Plumbing(demo_topology(2, 0.5, board.show)) as plumbing:
            await asyncio.sleep(2.75)
            board.changed(Rewired(await rewire(plumbing, board.show, 4), 2, 4))
            await asyncio.sleep(2)
            return drawn(board.drawn(200), 200)

    title, _, _, *rows, changed, region, hint = testing.run(main)
    assert (title, hint) == ("title, epoch 1", "hint")
    assert heads(rows) == [what(hp.freeze(key)) for key in wanted(4)]
    assert all(re.search(r" 0\.[28] +1\b", row) for row in rows)
    assert changed == "change 1: roll-ups of 2 s -> 4 s, region of 12 nodes, 0.0 ms"
    assert region == f"region: {'; '.join(sorted(['screen', *(what(hp.freeze(key)) for key in wanted(2))]))}"


def test_a_value_may_come_before_the_news_of_its_key(seed: int) -> None:
    """A row is made for it, which stays when the change is told."""

    async def main() -> list[str]:
        board = board_of(2)
        async with hp.Plumbing(demo_topology(2, 0.5, board.show)) as plumbing:
            change = await rewire(plumbing, board.show, 0.5)
            await asyncio.sleep(3)
            before = drawn(board.drawn(60), 60)
            board.changed(Rewired(change, 2, 0.5))
        assert sum("0.5 s" in line for line in before) == 7
        return [line for line in drawn(board.drawn(60), 60) if re.search(r"0\.5 s .*[%B]", line)]

    assert len(testing.run(main, seed=seed)) == 7


# -- how it is painted


def painted(*pictures: str, sizes: Sequence[tuple[int, int]] = ((20, 5),)) -> str:
    """What is written to a terminal for pictures, each in a terminal so wide and high; the last one is the last."""
    console = Console(file=io.StringIO(), width=20, height=5, force_terminal=True, legacy_windows=False, _environ={})
    painting = Painting(console)
    for number, picture in enumerate(pictures):
        console.size = ConsoleDimensions(*sizes[min(number, len(sizes) - 1)])
        painting.draw(picture, is_last=number == len(pictures) - 1)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_picture_goes_over_the_one_before() -> None:
    """Line over line, so that nothing is blank in between; what the last one had more is erased."""
    texts = painted("a\nb\nc", "d\ne").split(HIDE_CURSOR)
    assert texts == ["", "\x1b[Ka\n\x1b[Kb\n\x1b[Kc\n\x1b[J", "\x1b[3F\x1b[Kd\n\x1b[Ke\n\x1b[J"]


def test_a_picture_too_high_is_cut_off_till_the_end() -> None:
    """The cursor can go back no further than the terminal is high."""
    high = "\n".join("abcdefgh")
    first, last = painted(high, high).split("\x1b[4F")
    assert (first.count("\n"), last.count("\n")) == (4, 8)


def test_a_narrower_terminal_is_cleared() -> None:
    """It may have broken the lines of the last picture into more; a wider one has not."""
    texts = painted("a", "b", "c", "d", sizes=[(20, 5), (30, 5), (10, 5), (10, 5)])
    assert texts.count("\x1b[2J") == 1
    assert "\x1b[H\x1b[2J\x1b[Kc" in texts


def test_what_is_logged_takes_the_place_of_the_picture() -> None:
    """And the next picture comes below it."""
    console = Console(file=io.StringIO(), width=20, height=5, force_terminal=True, legacy_windows=False)
    assert isinstance(console.file, io.StringIO)
    painting = Painting(console)
    painting.draw("a\nb")
    print("oh", file=Above(painting, console.file))
    painting.draw("c")
    assert console.file.getvalue().endswith(f"\x1b[2F\x1b[Joh\x1b[J\n{HIDE_CURSOR}\x1b[Kc\n\x1b[J")


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
        ({"counter": "disk"}, "disk counter"),
        ("screen", "screen"),
        (("any", "other"), '("any", "other")'),
    ],
)
def test_keys_have_short_names(key: object, text: str) -> None:
    """The table has no room for whole keys."""
    assert what(hp.freeze(key)) == text
