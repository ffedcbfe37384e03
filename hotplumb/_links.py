"""A link: the bounded, ordered stream from one node to one reader, carrying chunks and markers.

A writer puts one chunk into every link it has, and then waits until all of them have room.  A chunk is never larger
than the capacity, so a link holds at most twice its capacity, and what its reader had in hand and has put back.
Markers need no room.

The two ends know each other only by what is called on them: the reader's `offer`, the writer's `full_links` and `wake`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, Final, Protocol

import attrs

from hotplumb.items import Chunk
from hotplumb.keys import Key
from hotplumb.nodes import Overflow


@attrs.frozen(eq=False)
class Marker:
    """A boundary among the items of a link."""

    what: str
    change: Any = None  # the change whose boundary it is


END: Final = Marker("end")
"""Nothing more will come, unless the writer starts anew."""

NOTHING: Final[Any] = ()
"""The entries of a link that was never used, or lies within a loop: an empty deque takes more than the rest of it."""

WHOLE: Final = Marker("whole")
"""The name of a link that carries every value of its writer, not those of one named output."""


class Writer(Protocol):
    """The end that puts in."""

    full_links: int
    """How many of its links have no room."""

    def wake(self) -> None:
        """All its links have room again."""


class Reader(Protocol):
    """The end that takes out."""

    dropped: int
    """How many items its links have forgotten."""

    def offer(self, link: Link) -> None:
        """`link` was empty and holds something now."""

    def offer_behind(self, link: Link) -> None:
        """`link` had ended, and holds something now behind its markers."""


class Ends:
    """What planning a change looks at of each link, which lies together: memory comes by the line."""

    __slots__ = ("is_closed", "reader", "writer")

    is_closed: bool
    reader: Reader
    writer: Writer


class Link(Ends):
    """See the module."""

    __slots__ = (
        "capacity",
        "entries",
        "is_ended",
        "is_full",
        "is_marked",
        "keeps_front",
        "name",
        "queued",
        "source",
        "when_full",
    )

    def __init__(
        self,
        source: Key,
        writer: Writer,
        reader: Reader,
        capacity: int,
        name: Key = WHOLE,
        when_full: Overflow = "wait",
    ) -> None:
        self.source = source  # the key as the reader gave it
        self.name = name
        self.writer = writer
        self.reader = reader
        self.capacity = capacity
        self.when_full = when_full
        self.entries: deque[Chunk | Marker] = NOTHING
        self.queued = 0  # items, not chunks
        self.is_full = False
        self.is_marked = False  # has delivered the marker of a change that its reader has still to switch in
        self.keeps_front = False  # the item in front has failed, and is not to be forgotten
        self.is_ended = False  # the reader has taken END, and nothing since
        self.is_closed = False  # the reader wants no more

    def push(self, chunk: Chunk) -> None:
        """Put a chunk in; the writer sees to it that there is room, or the link forgets."""
        if self.when_full != "wait":
            self._push_forgetting(chunk)
            return
        self.queued += len(chunk.values)
        if self.queued >= self.capacity and not self.is_full:
            self.is_full = True
            self.writer.full_links += 1
        self._append(chunk)

    def _push_forgetting(self, chunk: Chunk) -> None:
        """Put a chunk in and forget what is too much; markers stay where they are among the rest."""
        most = (1 if self.when_full == "latest" else self.capacity) + self.keeps_front
        if self.when_full == "drop_newest":
            kept = only(chunk, 0, max(0, most - self.queued))
        else:
            kept = only(chunk, max(0, len(chunk) - most + self.keeps_front), len(chunk))
        was_empty = not self.entries
        if self.when_full != "drop_newest":
            self._forget_oldest(self.queued + len(kept) - most)
        self.reader.dropped += len(chunk) - len(kept)
        if kept.values:
            self.queued += len(kept)
            if self.entries is NOTHING:
                self.entries = deque()
            self.entries.append(kept)
            if was_empty:
                self.reader.offer(self)
            elif self.is_ended:
                self.reader.offer_behind(self)

    def _forget_oldest(self, count: int) -> None:
        place = 0
        if self.keeps_front and count > 0:
            front = self.entries.popleft()
            assert type(front) is Chunk
            if len(front) > 1:
                self.entries.appendleft(only(front, 1, len(front)))
            self.entries.appendleft(only(front, 0, 1))
            place = 1
        while count > 0:
            entry = self.entries[place]
            if type(entry) is not Chunk:
                place += 1
                continue
            gone = min(count, len(entry))
            count -= gone
            self.queued -= gone
            self.reader.dropped += gone
            if gone == len(entry):
                del self.entries[place]
            else:
                self.entries[place] = only(entry, gone, len(entry))

    def mark(self, marker: Marker) -> None:
        """Put a marker in, room or not."""
        if not self.is_closed:
            self._append(marker)

    def _append(self, entry: Chunk | Marker) -> None:
        entries = self.entries
        if entries is NOTHING:
            entries = self.entries = deque()
        entries.append(entry)
        if len(entries) == 1:
            self.reader.offer(self)
        elif self.is_ended:
            self.reader.offer_behind(self)

    def take(self, most: int) -> Chunk | Marker:
        """Take the next marker, or at most `most` values of the next chunk."""
        entry = self.entries[0]
        if type(entry) is not Chunk:
            return self.entries.popleft()
        self.keeps_front = False
        values = entry.values
        if len(values) <= most:
            self.entries.popleft()
        else:
            self.entries[0] = Chunk(values[most:], entry.record, entry.start + most)
            entry = Chunk(values[:most], entry.record, entry.start)
        self.queued -= len(entry.values)
        if self.is_full and self.queued < self.capacity:
            self._has_room()
        return entry

    def put_back(self, chunk: Chunk) -> None:
        """Put what was taken, or the rest of it, back in front; the end, where that was taken since, comes after it."""
        was_empty = not self.entries
        if self.entries is NOTHING:
            self.entries = deque()
        if self.is_ended:
            self.is_ended = False
            self.entries.appendleft(END)
        self.entries.appendleft(chunk)
        self._add(len(chunk))
        if was_empty:
            self.reader.offer(self)

    def relieve(self) -> None:
        """Take up no more room than need be: nothing is to come for a while."""
        if not self.entries:
            self.entries = NOTHING

    def count_in(self, items: int) -> None:
        """Count items that were taken and may yet come back, so that the writer does not take their room."""
        if self.when_full == "wait":
            self._add(items)

    def _add(self, items: int) -> None:
        self.queued += items
        if self.queued >= self.capacity and not self.is_full and self.when_full == "wait":
            self.is_full = True
            self.writer.full_links += 1

    def count_out(self, items: int) -> None:
        """They will not come back."""
        if self.is_closed or self.when_full != "wait":
            return
        self.queued -= items
        if self.is_full and self.queued < self.capacity:
            self._has_room()

    def resize(self, capacity: int, when_full: Overflow) -> None:
        """Hold more or fewer items from now on."""
        self.capacity = capacity
        self.when_full = when_full
        if self.is_full and (self.queued < capacity or when_full != "wait"):
            self._has_room()
        else:
            self.count_in(0)

    def attach_writer(self, writer: Writer) -> None:
        """Have another writer; what the old one waited for, the new one waits for."""
        if self.is_full:
            self.writer.full_links -= 1
            writer.full_links += 1
        self.writer = writer

    def detach_writer(self) -> None:
        """Nobody writes any more, and waits for room."""
        self.attach_writer(Parked())

    def attach_reader(self, reader: Reader) -> None:
        """Have another reader, who is offered what is there."""
        self.reader = reader
        if self.entries:
            reader.offer(self)

    def close(self) -> int:
        """Forget what is in it and take nothing more; gives the number of items forgotten."""
        forgotten, self.queued = self.queued, 0
        self.is_closed = True
        self.entries = NOTHING
        if self.is_full:
            self._has_room()
        return forgotten

    def _has_room(self) -> None:
        self.is_full = False
        writer = self.writer
        writer.full_links -= 1
        if not writer.full_links:
            writer.wake()


def only(chunk: Chunk, start: int, stop: int) -> Chunk:
    """The values from `start` to `stop` of a chunk, as a chunk."""
    return Chunk(chunk.values[start:stop], chunk.record, chunk.start + start)


class Parked:
    """The end of a link that nobody has taken up yet, or no longer; `key` says who will."""

    full_links = 0
    dropped = 0
    may_loop = False
    may_gather = False

    def __init__(self, key: Key = None) -> None:
        self.key = key

    def wake(self) -> None:
        """Nobody writes yet."""

    def offer(self, link: Link) -> None:
        """Nobody reads yet."""

    def offer_behind(self, link: Link) -> None:
        """Nobody reads yet."""


class Inbox:
    """The writing end of what is put into a node from outside: by `inject`, or by nodes that have failed."""

    __slots__ = ("_waiters", "blocked", "full_links", "link")

    def __init__(self) -> None:
        self.full_links = 0
        self.link: Link | None = None
        self.blocked: list[Writer] = []  # nodes that wait for room; a node may be here more than once
        self._waiters: deque[asyncio.Future[None]] = deque()

    @property
    def is_full(self) -> bool:
        """Whether whoever puts something in has to wait next."""
        return self.full_links > 0

    def push(self, chunk: Chunk) -> None:
        """Put a chunk in."""
        assert self.link is not None
        self.link.push(chunk)

    def wake(self) -> None:
        """There is room: let all who wait look again, in order."""
        blocked, self.blocked = self.blocked, []
        for node in blocked:
            node.full_links -= 1
            if not node.full_links:
                node.wake()
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)

    def waiter(self, loop: asyncio.AbstractEventLoop) -> asyncio.Future[None]:
        """A future that is done when there is room."""
        waiter: asyncio.Future[None] = loop.create_future()
        self._waiters.append(waiter)
        return waiter
