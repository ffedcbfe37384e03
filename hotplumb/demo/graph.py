"""The graph behind `hotplumb demo`: metrics of this machine, what they were per window of time, and pairs of these.

    {"counter": "disk"}                              source    bytes since the machine was started
    {"metric": "cpu"}                                source    percent
    {"metric": "disk"}                               stateful  bytes a second, from {"counter": "disk"}
    {"metric": "cpu", "rollup_s": 5}                 process   a Summary of every 5 seconds of {"metric": "cpu"}
    {"pair": ("cpu", "memory"), "rollup_s": 5}       process   what both were in the same 5 seconds

The screen names what it wants; the factory builds that, and whatever stands between it and the machine.  To have other
roll-ups while it runs, the screen is replaced by one that wants others: see `rewire`.
All times are those of the event loop's clock.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import Any, TypeAlias

import attrs

import hotplumb as hp
from hotplumb.demo import counters
from hotplumb.keys import canonical

METRICS = ("cpu", "memory", "disk", "network")
PAIRS = (("cpu", "memory"), ("cpu", "disk"), ("disk", "network"))
SCREEN = "screen"
"""The key of the sink."""

MOST_WAITING = 64  # summaries without a partner: the other metric may not exist on this machine


@attrs.frozen
class Sample:
    """What a metric was at one moment."""

    time_s: float
    value: float


@attrs.frozen
class Summary:
    """What a metric was in one window of time."""

    time_s: float
    """When its last sample was taken."""
    window: int
    """The number of the window: all windows of one length begin at a multiple of it, so they can be paired."""
    least: float
    mean: float
    most: float
    count: int
    """How many samples it is of."""

    @classmethod
    def of(cls, window: int, samples: Sequence[Sample]) -> Summary:
        """Sum up the samples of a window: one or more."""
        values = [sample.value for sample in samples]
        least, most = min(values), max(values)
        mean = min(max(math.fsum(values) / len(values), least), most)  # rounding can carry it past both
        return cls(samples[-1].time_s, window, least, mean, most, len(values))


@attrs.frozen
class Pair:
    """What two metrics were on average in the same window of time."""

    time_s: float
    window: int
    left: float
    right: float


Value: TypeAlias = Sample | Summary | Pair
Show: TypeAlias = Callable[[Value], None]


def window_of(time_s: float, rollup_s: float) -> int:
    """Number the windows of `rollup_s` seconds: window n ends at `window_end(n)`, which is no part of it."""
    window = math.floor(time_s / rollup_s)
    while window_end(window, rollup_s) <= time_s:  # the quotient was rounded down
        window += 1
    while window_end(window - 1, rollup_s) > time_s:  # or up
        window -= 1
    return window


def window_end(window: int, rollup_s: float) -> float:
    """When the window with this number ends."""
    return (window + 1) * rollup_s


def rate(last: Sample | None, count: Sample) -> tuple[Sample, list[Sample]]:
    """Give how much a counter grew a second since its last sample; nothing for its first."""
    if last is None:
        return count, []
    if count.time_s <= last.time_s:  # a coarse clock: what it grew is seen with the next sample
        return last, [Sample(count.time_s, 0.0)]
    grown = max(count.value - last.value, 0.0)  # it falls when a device is unplugged
    return count, [Sample(count.time_s, grown / (count.time_s - last.time_s))]


class Rollup:
    """Takes samples; gives the summary of each window as it ends, which derives from all samples in it.

    A sample that comes after its window was given is counted in the next one.
    """

    def __init__(self, rollup_s: float) -> None:
        self._rollup_s = rollup_s
        self._window: int | None = None  # which is open, or was the last
        self._items: list[hp.Item] = []  # of the open window; none: no window is open

    def begin(self, context: hp.Context) -> None:
        """See `hp.Process`."""
        self._context = context

    def process(self, sample: Sample) -> Summary | None:
        """Count a sample; give the window before it, where the sample is the first to tell that it is over."""
        summary = self._ended(sample.time_s)
        if not self._items:
            self._open(sample.time_s)
        self._items.append(hp.current_item())
        return summary

    def wake(self, now: float) -> Summary | None:
        """A window may be over."""
        return self._ended(now)

    def end(self) -> Summary | None:
        """Give what there is of the last window."""
        return self._ended(math.inf)

    def _open(self, time_s: float) -> None:
        window = window_of(time_s, self._rollup_s)
        self._window = window if self._window is None else max(window, self._window + 1)
        self._context.wake_at(window_end(self._window, self._rollup_s))

    def _ended(self, now: float) -> Summary | None:
        """The summary of the open window if that has ended, which closes it."""
        if self._window is None or not self._items or now < window_end(self._window, self._rollup_s):
            return None
        items, self._items = self._items, []
        self._context.derive_from(*items)
        return Summary.of(self._window, [item.value for item in items])


class Pairing:
    """Takes the summaries of two metrics; gives a pair as soon as it has both of a window, which derives from both.

    Of summaries that find no partner the last 64 are kept.
    """

    def __init__(self, left: str) -> None:
        self._left = left
        self._waiting: dict[tuple[bool, int], hp.Item] = {}  # {(is it the left one, window): the summary}

    def begin(self, context: hp.Context) -> None:
        """See `hp.Process`."""
        self._context = context

    def process(self, summary: Summary) -> Pair | None:
        """Keep a summary until the other of its window comes."""
        is_left, window = self._is_left(), summary.window
        other = self._waiting.pop((not is_left, window), None)
        if other is None:
            self._keep((is_left, window))
            return None
        self._context.derive_from(hp.current_item(), other)
        left, right = (summary, other.value) if is_left else (other.value, summary)
        return Pair(max(left.time_s, right.time_s), window, left.mean, right.mean)

    def _keep(self, place: tuple[bool, int]) -> None:
        self._waiting[place] = hp.current_item()
        if len(self._waiting) > MOST_WAITING:
            del self._waiting[next(iter(self._waiting))]

    def _is_left(self) -> bool:
        match self._context.source:
            case {"metric": self._left}:
                return True
        return False


async def sampled(metric: str, every_s: float) -> AsyncIterator[Sample]:
    """Read a metric of this machine every so many seconds; beats that the machine was too busy for are left out."""
    loop = asyncio.get_running_loop()
    due_s = loop.time()
    while True:
        now_s = loop.time()
        value = counters.read(metric)
        if value is not None:
            yield Sample(now_s, value)
        due_s = max(due_s + every_s, loop.time())
        await asyncio.sleep(due_s - loop.time())


def factory_of(every_s: float) -> Callable[[Any], hp.Node | None]:
    """Make the factory of a graph that reads this machine every so many seconds."""

    def factory(key: Any) -> hp.Node | None:
        match key:  # a mapping pattern also matches larger mappings: longest first
            case {"pair": (left, right), "rollup_s": rollup_s}:
                parents = ({"metric": metric, "rollup_s": rollup_s} for metric in (left, right))
                return hp.process(partial(Pairing, left), *parents)
            case {"metric": metric, "rollup_s": rollup_s}:
                return hp.process(partial(Rollup, rollup_s), {"metric": metric})
            case {"metric": metric} if metric in counters.COUNTERS:
                return hp.stateful(rate, None, {"counter": metric})
            case {"metric": metric} if metric in counters.GAUGES:
                return hp.source(partial(sampled, metric, every_s))
            case {"counter": metric} if metric in counters.COUNTERS:
                return hp.source(partial(sampled, metric, every_s))
        return None

    return factory


def wanted(rollup_s: float) -> list[dict[str, Any]]:
    """The keys that the screen shows, in its order."""
    return [
        *({"metric": metric} for metric in METRICS),
        *({"metric": metric, "rollup_s": rollup_s} for metric in METRICS),
        *({"pair": pair, "rollup_s": rollup_s} for pair in PAIRS),
    ]


def demo_topology(rollup_s: float, every_s: float, show: Show) -> hp.Topology:
    """Wire this machine's metrics, their roll-ups and pairs of these to `show`.

    Args:
        rollup_s: the length of the windows, in seconds.
        every_s: how often the machine is asked, in seconds.
        show: called with each value, in whose trail it finds where that came from.
    """
    return hp.Topology(factory_of(every_s)).add(SCREEN, hp.sink(show, *wanted(rollup_s)))


async def rewire(plumbing: hp.Plumbing, show: Show, rollup_s: float) -> hp.Change:
    """Have the screen show roll-ups of another length, while samples stream through.

    One node is replaced; what is to be built for it, and what nobody wants any more, follows from that.  Roll-ups that
    go sum up the window that is open in them, so each sample is in one of the old ones or in one of the new.
    """
    return await plumbing.replace(SCREEN, hp.sink(show, *wanted(rollup_s)))


@attrs.frozen
class Rewired:
    """What came of one `rewire`; its text is one line."""

    change: hp.Change
    before_s: float
    """The length of the windows before."""
    after_s: float
    """And after."""

    def __str__(self) -> str:
        change = self.change
        lengths = f"roll-ups of {self.before_s:g} s -> {self.after_s:g} s"
        return f"change {change.epoch}: {lengths}, region of {len(change.region)} nodes, {change.seconds * 1000:.1f} ms"

    @property
    def where(self) -> str:
        """The nodes of the region, in one line."""
        return "; ".join(sorted(map(what, self.change.region)))


def what(key: Any) -> str:
    """A key in few words.

    >>> what({"metric": "cpu", "rollup_s": 5})
    'cpu, 5 s'
    """
    match key:
        case {"pair": (left, right), "rollup_s": rollup_s}:
            return f"{left} & {right}, {rollup_s:g} s"
        case {"metric": metric, "rollup_s": rollup_s}:
            return f"{metric}, {rollup_s:g} s"
        case {"metric": metric}:
            return str(metric)
        case {"counter": metric}:
            return f"{metric} counter"
        case str():
            return key
    return canonical(key)
