"""Which families a node has met of late: so that a repair can tell which of them meet both of its processes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator

from hotplumb.items import Chunk, Origin, Record, Root
from hotplumb.keys import Key

MOST_SPANS = 256  # slices that are remembered: what has come further does not come back but in a graph full of items

Span = tuple[Record | Root, int, int]  # of a record, from here to there


class Met:
    """What one node with a policy that may hold has worked on of late, and who of them had met its process before.

    `crossed` is called with a count of families, each counted once.
    """

    __slots__ = ("_before", "_crossed", "_spans")

    def __init__(self) -> None:
        self._spans: deque[Span] = deque(maxlen=MOST_SPANS)
        self._before: set[Origin] = set()
        self._crossed: Callable[[int], None] | None = None

    def note(self, chunk: Chunk, done: int) -> None:
        """The first `done` values of `chunk` have been worked on."""
        start = stop = chunk.start
        if self._spans and self._spans[-1][0] is chunk.record and self._spans[-1][2] == start:
            start = self._spans.pop()[1]
        self._spans.append((chunk.record, start, stop + done))
        if self._before:
            self._count(self._before.intersection(origins((chunk.record, stop, stop + done), _bounds(self._before))))

    def _count(self, found: set[Origin]) -> None:
        self._before -= found
        if found and self._crossed is not None:
            self._crossed(len(found))

    def cross(self, old: Met, under_way: Iterable[Chunk], crossed: Callable[[int], None]) -> None:
        """Take the place of `old`: count the families of what is under way that it has met, as they come here too."""
        met = {origin for span in old._spans for origin in origins(span)}
        bounds = _bounds(met)
        coming = (
            origin
            for chunk in under_way
            for origin in origins((chunk.record, chunk.start, chunk.start + len(chunk)), bounds)
        )
        self._before = met.intersection(coming)
        self._crossed = crossed


Bounds = dict[Key, tuple[int, int]]  # {source: the lowest and the highest number}


def _bounds(found: Iterable[Origin]) -> Bounds:
    bounds: Bounds = {}
    for source, number, _ in found:
        low, high = bounds.get(source, (number, number))
        bounds[source] = (min(low, number), max(high, number))
    return bounds


def origins(span: Span, bounds: Bounds | None = None) -> Iterator[Origin]:
    """The origins of the values of a span; none where all lie outside of `bounds`."""
    record, start, stop = span
    if start == stop or (bounds is not None and not _may_be_in(bounds, span)):
        return
    for place in range(start, stop):
        yield _origin(record, place)


def _may_be_in(bounds: Bounds, span: Span) -> bool:
    """Whether numbers may lie there; along a record they never go down, but where nodes mingle, and so do records."""
    record, start, stop = span
    first, last = _origin(record, start), _origin(record, stop - 1)
    if first.source not in bounds:
        return False
    low, high = bounds[first.source]
    return first.number <= high and last.number >= low


def _origin(record: Record | Root, place: int) -> Origin:
    while type(record) is Record:
        place = record.parent_place(place)
        record = record.parent
    assert type(record) is Root
    return Origin(record.key, record.number + place, record.attempt)
