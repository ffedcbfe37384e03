"""What the screen is shown, counted: whether changes of the running graph have lost, doubled or mixed anything.

Nobody is asked how it went.  What is known is how many samples each source has given, and what came to the screen: the
numbers in the trails of samples and of the members of roll-ups, and the hops that each item has made.

    lost      samples that were given, and then not shown, or that no roll-up was of
    doubled   samples that were shown again, or that a second roll-up was of
    mixed     samples, and roll-ups, of which something met what a change had touched both before it and after
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Set

import attrs

import hotplumb as hp
from hotplumb.demo import counters
from hotplumb.demo.graph import SCREEN
from hotplumb.items import Hop, Members, Origin
from hotplumb.keys import Key

MOST_FAMILIES = 4096  # that are remembered: what derives from one sample is shown within moments
MOST_CHANGES = 64  # likewise


@attrs.frozen
class Counts:
    """How it went; all is well where they are 0."""

    lost: int
    doubled: int
    mixed: int

    def __str__(self) -> str:
        return f"{self.lost} lost, {self.doubled} doubled, {self.mixed} mixed"


class Tally:
    """Sees every item that the screen is shown, and every change of the graph before it."""

    def __init__(self) -> None:
        self._shown = _numbers_of_metrics()
        self._rolled_up = _numbers_of_metrics()
        self._families = Families()

    def see(self, item: hp.Item, epoch: int) -> None:
        """The screen, as the change of that epoch has left it, is shown an item."""
        trail = item.trail
        self._families.met(trail.origin, [*trail.hops, Hop(SCREEN, epoch)])
        match trail.keys[-1]:
            case {"metric": metric, "rollup_s": _}:
                for number in numbers_of(trail.members):
                    self._rolled_up[metric].note(number)
            case {"metric": metric}:
                self._shown[metric].note(trail.origin.number)

    def changed(self, change: hp.Change) -> None:
        """The graph has become another."""
        self._families.changed(change.epoch, change.touched)

    def counts(self, given: Mapping[str, int]) -> Counts:
        """How it went, after so many samples of each metric were given and all that came of them was shown."""
        ways = (self._shown, self._rolled_up)
        lost = [set().union(*(way[metric].missing(count) for way in ways)) for metric, count in given.items()]
        doubled = [numbers.doubled for way in ways for numbers in way.values()]
        return Counts(sum(map(len, lost)), sum(doubled), self._families.mixed)


def _numbers_of_metrics() -> dict[str, Numbers]:
    gauges = {metric: Numbers(0) for metric in counters.GAUGES}
    return gauges | {metric: Numbers(1) for metric in counters.COUNTERS}  # the first count of all gives no rate


def numbers_of(members: Members) -> list[int]:
    """The numbers of the samples of one roll-up.

    A trail tells the first 64; the others, of which only the count is known, are taken to be the next ones.
    """
    known = [trail.origin.number for trail in members.trails]
    return [*known, *range(known[-1] + 1, known[-1] + 1 + members.left_out)] if known else known


class Numbers:
    """Which numbers have come, of those that count up from `first`; holds only the gaps between them."""

    def __init__(self, first: int) -> None:
        self.doubled = 0
        self._next = first
        self._gaps: set[int] = set()

    def note(self, number: int) -> None:
        """A number has come."""
        if number >= self._next:
            self._gaps.update(range(self._next, number))
            self._next = number + 1
        elif number in self._gaps:
            self._gaps.remove(number)
        else:
            self.doubled += 1

    def missing(self, end: int) -> set[int]:
        """Those below `end` that have not come."""
        return self._gaps.union(range(self._next, end))


class Families:
    """Which hops all that derives from one sample has made, to tell which met both sides of a change.

    The latest 4096 are remembered.  One is judged as it is forgotten, or in the end: a change is known only when it has
    come through, and by then they may have met it.
    """

    def __init__(self) -> None:
        self._met: dict[Origin, set[Hop]] = {}
        self._changes: deque[tuple[int, Set[Key]]] = deque(maxlen=MOST_CHANGES)  # (epoch, touched keys)
        self._mixed = 0  # of those that are forgotten

    def met(self, origin: Origin, hops: Iterable[Hop]) -> None:
        """Something that derives from `origin` has made these hops."""
        self._met.setdefault(origin, set()).update(hops)
        if len(self._met) > MOST_FAMILIES:
            self._mixed += self._is_mixed(self._met.pop(next(iter(self._met))))

    def changed(self, epoch: int, touched: Set[Key]) -> None:
        """A change has come through."""
        self._changes.append((epoch, touched))

    @property
    def mixed(self) -> int:
        """How many met two versions of what one change touched."""
        return self._mixed + sum(map(self._is_mixed, self._met.values()))

    def _is_mixed(self, hops: Set[Hop]) -> bool:
        return any(
            len({hop.epoch >= epoch for hop in hops if hop.key in touched}) > 1 for epoch, touched in self._changes
        )
