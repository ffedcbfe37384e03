"""Items, their trails, and the chunks they travel in.

Values travel in chunks.  What the values of a chunk share is written down once, in a `Record`: the record of the chunk
they were made from, the hop that made them, and, only where a node drops or multiplies values, which value each came
from.  An `Item` or a `Trail` exists only when somebody looks; a value's way is then read back record by record.

    Root(source key, first number, attempt)  <-parent-  Record(hop of the source)  <-parent-  Record(hop of a map) ...
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from itertools import chain
from typing import Any, NamedTuple, Protocol

import attrs

from hotplumb.keys import Key, canonical, freeze

MOST_MEMBERS = 64  # a window of millions must not keep the trails of them all


class Hop(NamedTuple):
    """One node on an item's way: its key, and the epoch of the change that last touched it (0 if none has)."""

    key: Key
    epoch: int


class Origin(NamedTuple):
    """The source item something derives from: who made it, its number there (from 0), and which attempt this is."""

    source: Key
    number: int
    attempt: int


class Root:
    """Where a chunk begins: consecutive numbers of one source."""

    __slots__ = ("attempt", "before", "key", "number")

    def __init__(self, key: Key, number: int, attempt: int = 0, before: Trail | None = None) -> None:
        self.key = key
        self.number = number
        self.attempt = attempt
        self.before = before


class Record:
    """How the values of a chunk came: made in `hops`, the first of them first, from the values that `parent` describes.

    Value i came from the parent's value `index[i]`, or `start + i` where there is no index.
    """

    __slots__ = ("hops", "index", "members", "parent", "start")

    def __init__(
        self, parent: Record | Root, hops: tuple[Hop, ...], start: int = 0, index: Sequence[int] | None = None
    ) -> None:
        self.parent = parent
        self.hops = hops
        self.start = start
        self.index = index
        self.members: Mapping[int, Members] | None = None  # {place in this record: what else it derives from}

    def parent_place(self, place: int) -> int:
        """The place in the parent of the value at `place`."""
        return self.start + place if self.index is None else self.index[place]


class Chunk:
    """Values that travel together; value i is number `start + i` of the record."""

    __slots__ = ("record", "start", "values")

    def __init__(self, values: list[Any], record: Record | Root, start: int = 0) -> None:
        self.values = values
        self.record = record
        self.start = start

    def __len__(self) -> int:
        return len(self.values)

    def item(self, i: int) -> Item:
        """The i-th value as an item, with the hops it has made."""
        return Item(self.values[i], Trail(self.record, self.start + i))

    def items(self) -> Iterator[Item]:
        """All values as items."""
        return (self.item(i) for i in range(len(self.values)))


class Members(NamedTuple):
    """What an item derives from beside the item its node had in hand: at most 64 trails, and how many were left out."""

    trails: tuple[Trail, ...]
    left_out: int = 0


class Trail:
    """The hops an item has made, source first.  A frozen value; reading it walks the records, so it costs per look.

    `str(trail)` is one readable line.  Two trails are equal when their hops and origins are.
    """

    __slots__ = ("_place", "_record")

    def __init__(self, record: Record | Root, place: int) -> None:
        self._record = record
        self._place = place

    @property
    def hops(self) -> tuple[Hop, ...]:
        """The hops made so far, source first."""
        return tuple(chain.from_iterable(reversed([record.hops for record, _ in self._back()])))

    @property
    def keys(self) -> tuple[Key, ...]:
        """The keys of the hops."""
        return tuple(hop.key for hop in self.hops)

    @property
    def origin(self) -> Origin:
        """The source item it derives from."""
        root, place = self._root()
        return Origin(root.key, root.number + place, root.attempt)

    @property
    def before(self) -> Trail | None:
        """The trail of the attempt before this one, where the item was injected again; None where it was not."""
        return self._root()[0].before

    def _root(self) -> tuple[Root, int]:
        record, place = self._record, self._place
        while type(record) is Record:
            place = record.parent_place(place)
            record = record.parent
        assert type(record) is Root
        return record, place

    @property
    def origins(self) -> tuple[Origin, ...]:
        """Its own origin first, then those of its members, each once, in order."""
        found = [self.origin]
        for member in self.members.trails:
            found.extend(member.origins)
        return tuple(dict.fromkeys(found))

    @property
    def members(self) -> Members:
        """What else it derives from, gathered by the latest hop that gathered anything: `(trails, left_out)`."""
        for record, place in self._back():
            if record.members is not None and place in record.members:
                return record.members[place]
        return _NO_MEMBERS

    def _back(self) -> Iterator[tuple[Record, int]]:
        """The records from the last hop to the first, each with this value's place in it."""
        record, place = self._record, self._place
        while type(record) is Record:
            yield record, place
            place = record.parent_place(place)
            record = record.parent

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Trail):
            return NotImplemented
        return self.hops == other.hops and self.origins == other.origins

    def __hash__(self) -> int:
        return hash((self.hops, self.origin))

    def __str__(self) -> str:
        source, number, attempt = self.origin
        again = f" attempt {attempt}" if attempt else ""
        members = self.members
        beside = len(members.trails) + members.left_out
        gathered = f" (of {beside} items)" if beside else ""
        way = "".join(f" -> {_hop_text(hop)}" for hop in self.hops)
        return f"{canonical(source)} #{number}{again}{way}{gathered}"

    def __repr__(self) -> str:
        return f"<Trail {self}>"


_NO_MEMBERS = Members(())


def _hop_text(hop: Hop) -> str:
    return f"{canonical(hop.key)}@{hop.epoch}" if hop.epoch else canonical(hop.key)


@attrs.frozen
class Item:
    """A value and how it came here."""

    value: Any
    trail: Trail

    @property
    def origin(self) -> Origin:
        """The source item it derives from: `(source key, number, attempt)`."""
        return self.trail.origin


@attrs.frozen
class Failure:
    """Something that failed and will not go on by itself; what the error streams give.

    A failure begins a family of its own; the failed item and its trail are inside it.
    """

    key: Key
    """The node whose user code raised."""
    item: Item | None
    """What it had in hand; None where it had nothing (a source, `end`, `wake`, `close`)."""
    exception: BaseException
    """What user code raised last."""
    attempts: int
    """How many attempts there were."""
    reason: str
    """Why it goes no further: "discarded" by policy or by hand; "drained" while it was, or would have been, held;
    "partly sent: N of its outputs had left"; "given up" by `change.force`."""


@attrs.frozen
class Named:
    """A value for one output of a process."""

    name: Key
    value: Any


def to(name: object, value: object) -> Named:
    """Give a value on one output of a process; readers of `hp.output(key, name)` get it, and those of the key itself.

    >>> import hotplumb as hp
    >>> class Sizes:
    ...     def process(self, word):
    ...         yield hp.to("long" if len(word) > 3 else "short", word)
    >>> topology = (hp.Topology()
    ...     .add("words", hp.source(["tic", "tictac"]))
    ...     .add("sizes", hp.process(Sizes, "words"))
    ...     .add("out", hp.collect(hp.output("sizes", "long"))))
    >>> hp.run(topology)
    {'out': ['tictac']}
    """
    return Named(freeze(name), value)


class Hand(Protocol):
    """What a node has in hand: knows the chunk it works on and how far it has come."""

    def item(self) -> Item | None:
        """The item that user code is called with now, None where it is called with none."""


# The hand of the user code that runs now; tasks and threads that it starts inherit it with the context.
in_hand: ContextVar[Hand | tuple[Chunk, int] | None] = ContextVar("hotplumb_in_hand", default=None)


def current_item() -> Item:
    """The item that the calling user function has in hand.

    Right in every user function, before and after its awaits, in each of `concurrency` calls, in tasks it starts and
    in threads that inherit its context (`asyncio.to_thread`).  Its trail has the hops made so far: this node's is not
    among them.

    Raises:
        LookupError: not in user code, or in user code that has no item in hand (a source, `begin`, `end`, `wake`).

    >>> import hotplumb as hp
    >>> def numbered(word):
    ...     return f"{hp.current_item().origin.number}: {word}"
    >>> hp.run(hp.Topology()
    ...     .add("words", hp.source(["tic", "tac"]))
    ...     .add("lines", hp.map(numbered, "words"))
    ...     .add("out", hp.collect("lines")))
    {'out': ['0: tic', '1: tac']}
    """
    hand = in_hand.get()
    item = hand[0].item(hand[1]) if type(hand) is tuple else hand.item() if hand is not None else None  # type: ignore[union-attr]
    if item is None:
        raise LookupError("no item in hand: hp.current_item() works in a user function that was called with a value")
    return item
