"""The loop that runs one node, and the only caller of user code.

A `Runner` is one node of a running graph: its links, what it has in hand, and what it has counted.  It is a machine of
steps: each takes a slice from a link, has it worked on, and sends what came of it.  Between two steps it stands between
two items and runs nothing, so that it can be looked at and re-plumbed from outside.

What drives the steps depends on the user code:

    plain functions                       the turn itself calls them (`_work`)
    async functions, async sources        a task of the node's own (`OwnTask`)
    async functions with concurrency > 1  the turn starts a task for each call (`Calling`)
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Iterator
from functools import partial
from itertools import islice
from typing import Any, Literal, Protocol

from hotplumb._alignment import Alignment
from hotplumb._context import NodeContext
from hotplumb._drivers import Calling, OwnTask
from hotplumb._links import END, WHOLE, Link, Marker, Writer, only
from hotplumb._loops import KINDS, Loop, Past
from hotplumb._met import Met
from hotplumb._supervision import Again, Hold, PassOver, Policy, Stop, Verdict, decide, may_hold
from hotplumb._turns import SLICE_S, SLOW_CALL_S, Turns
from hotplumb._work import (
    Calls,
    CallsWhole,
    Filling,
    Gives,
    Keeps,
    Outcome,
    Passes,
    Work,
    check_outputs,
    iterator_of,
    may_start_tasks,
    outputs_of,
    pull_into,
    read_of,
    refuse_awaitables,
    step_of,
    wants_context,
)
from hotplumb.errors import NodeError, UsageError, of_user_code
from hotplumb.items import Chunk, Failure, Hop, Item, Members, Named, Record, Root, in_hand
from hotplumb.keys import Key
from hotplumb.nodes import Node, is_async, is_exclusive

MANY = ("flat_map", "stateful", "process")  # kinds that can give several outputs for one input
LONG_RUN_S = 120.0  # a source that has run for so long between two failures is taken to have recovered
LOOP_AFTER_ITEMS = 1  # that a head has worked on without one: the first goes ahead, to show how long each node takes
LOOP_INNER_ITEMS = 8192  # after which a node does not wait any longer for a loop from above to take it in
LOOP_PAYS_ITEMS = 512  # which a loop has to be run with, or the next waits for as many: things change too fast for it
FEW_LINKS = 16  # that a chunk is put into in no time
CHUNK_ITEMS = 256  # larger chunks lose to caches and the collector on real records

State = Literal["waiting", "busy", "full", "paused", "retrying", "holding", "failed", "ended", "finished"]


class Numbers:
    """The numbers of the items that begin at one key; they go on whatever becomes of the node."""

    __slots__ = ("next",)

    def __init__(self) -> None:
        self.next = 0

    def take(self, count: int) -> int:
        """The first of `count` new numbers."""
        first = self.next
        self.next = first + count
        return first


class Host(Protocol):
    """What a runner asks of the plumbing it is part of."""

    loop: asyncio.AbstractEventLoop
    turns: Turns

    def numbers(self, key: Key) -> Numbers:
        """The numbers of items that begin at `key`."""

    def start_task(self, key: Key, work: Coroutine[Any, Any, Any], is_call: bool = False) -> asyncio.Task[Any]:
        """Run a coroutine as a task of the plumbing; what a call raises is its caller's affair."""

    def shield(self, task: asyncio.Task[Any], is_closing: bool) -> None:
        """Say that a task is closing something, so that it is not cancelled when everything stops."""

    on_error: Policy
    """What nodes do that have no policy of their own."""
    is_draining: bool
    """Whether nothing may be held any more."""
    shared: Any
    """What all nodes have in common, for their own use."""

    def failed(self, error: NodeError) -> None:
        """User code raised, and the policy is to stop."""

    def is_below_errors(self, key: Key) -> bool:
        """Whether a node derives from an error stream."""

    def marked(self, runner: Runner, link: Link, marker: Marker) -> None:
        """A marker of a change has come in on `link`."""

    def link_gone(self, runner: Runner, link: Link) -> None:
        """No marker will come in on `link`."""

    def dead_letter(self, runner: Runner, failure: Failure) -> None:
        """Something of `runner` goes no further."""

    async def wait_cancelled(self, tasks: Iterable[asyncio.Task[Any]]) -> None:
        """Wait for cancelled tasks to end, so long as that is worth waiting for."""

    def chance(self) -> float:
        """A random number from 0 up to 1."""

    def ended(self, runner: Runner) -> None:
        """`runner` has given its last item."""

    def began_anew(self, runner: Runner) -> None:
        """`runner` had ended and goes on."""

    def warn_swallowed(self, key: Key, is_left: bool) -> None:
        """User code goes on in spite of its cancellation."""

    def leave_behind(self, task: asyncio.Task[Any]) -> None:
        """Wait for a task no longer."""

    def warn_slow(self, key: Key, seconds: float, values: int) -> None:
        """User code held up the loop."""

    def readers_of(self, key: Key) -> frozenset[Key]:
        """Who reads `key` now."""

    def sinks_of(self, key: Key) -> frozenset[Key]:
        """Which sinks want `key` now."""


class Trouble:
    """What a node has failed on and will not get past by itself."""

    __slots__ = ("again", "call", "cause", "handover", "item", "link", "since", "skip", "state", "timer")

    def __init__(self, call: str, item: Item | None, cause: BaseException, since: float) -> None:
        self.state: Literal["failed", "retrying", "holding"] = "failed"
        self.call = call
        self.item = item
        self.cause = cause
        self.since = since  # on the loop's clock
        self.link: Link | None = None  # where the item waits, in front
        self.handover: Handover | None = None  # where it holds between two processes
        self.again: Callable[[], None] | None = None
        self.skip: Callable[[], None] | None = None
        self.timer: asyncio.TimerHandle | None = None


def error_of(key: Key, trouble: Trouble) -> NodeError:
    """The error that stops a plumbing."""
    error = NodeError(key, trouble.item, trouble.call, trouble.cause)
    error.__cause__ = trouble.cause
    return error


class Handover(Protocol):
    """One node between its old process and the new one."""

    new: Runner
    """Who is to stand there."""
    change: Any
    """What it is part of."""

    def renew(
        self, new: Runner, make: Callable[[], Runner], held: Callable[[Any], None], stands: Callable[[], None]
    ) -> None:
        """Have another runner take the place."""


class Switcher(Protocol):
    """A change that nodes switch in."""

    def switch(self, runner: Runner) -> None:
        """`runner` is between two items."""


class Driver(Protocol):
    """What makes a runner's steps where the turn alone cannot."""

    is_interrupted: bool
    """Whether to stop after the value in hand, and look again."""

    @property
    def is_busy(self) -> bool:
        """Whether user code is under way."""

    @property
    def busy_since(self) -> float:
        """When it was called, on the loop's clock."""

    @property
    def is_beginning(self) -> bool:
        """Whether a `begin` is under way."""

    @property
    def is_between(self) -> bool:
        """Whether nothing is half made."""

    def step(self, now: float) -> float:
        """It is this node's turn: begin a slice."""

    @property
    def is_producing(self) -> bool:
        """Whether a source has more to give."""

    def in_hand(self) -> Iterator[Chunk]:
        """The values that user code works on."""

    def dismiss(self) -> None:
        """Let the task end, for the node has no use for it any more; what it holds goes back to the links."""

    async def retire(self) -> None:
        """Close what it runs, and let the task end; to be ordered."""

    def give_up(self) -> None:
        """Cancel what is under way; what it has in hand goes to the dead letters."""

    def order(self, action: Callable[[], Awaitable[Any]]) -> asyncio.Future[Any]:
        """Have something done in the task of the node's own, between two items."""

    def interrupt(self) -> None:
        """Stop waiting for the source's next value."""

    async def close_unstarted(self) -> None:
        """Close what was made for a task that never came to its first step."""


class Wiring:
    """What planning a change looks at of each node, which lies together: memory comes by the line."""

    __slots__ = ("closed_outputs", "inputs", "is_many", "key", "outputs")

    closed_outputs: Collection[Link]
    """Links that their readers want nothing from any more."""
    inputs: list[Link]
    is_many: bool
    """Whether it can give several outputs for one input."""
    key: Key
    outputs: list[Link]


class Runner(Wiring):
    """One node of a running graph; see the module."""

    __slots__ = (
        "busy_s",
        "context",
        "cut",
        "driver",
        "dropped",
        "epoch",
        "act",
        "after_end",
        "alignment",
        "attempts",
        "failed",
        "failed_at",
        "filling",
        "front",
        "full_links",
        "given",
        "given_most",
        "hops",
        "host",
        "inbox",
        "is_ending",
        "is_finished",
        "is_first",
        "is_fresh",
        "is_given_up",
        "is_over",
        "is_paused",
        "is_ready",
        "is_single",
        "is_source",
        "is_switching",
        "is_whole",
        "last_loop",
        "late",
        "left",
        "link_in_hand",
        "loop",
        "looping_s",
        "loops",
        "may_gather",
        "may_loop",
        "met",
        "next_state",
        "node",
        "numbers",
        "open_inputs",
        "opens_late",
        "process",
        "pull",
        "pulled",
        "received",
        "sending_s",
        "sent",
        "slice",
        "state",
        "switching",
        "taps",
        "trouble",
        "unlooped",
        "waiting",
        "wakes",
        "wants_finish",
        "work",
    )

    def __init__(self, key: Key, node: Node, epoch: int, host: Host) -> None:
        self.key = key
        self.node = node
        self.epoch = epoch
        self.hops: tuple[Hop, ...] = (Hop(key, epoch),)
        self.host = host
        self.inputs: list[Link] = []
        self.outputs: list[Link] = []
        self.closed_outputs: Collection[Link] = ()  # links that their readers want nothing from any more
        self.inbox: Link | None = None
        self.waiting: list[Link] = []  # links that hold something, the one to take from next first
        self.is_source = node.is_source
        self.open_inputs = 1 if self.is_source else 0  # links not ended; a source's producer counts as one
        self.full_links = 0
        self.cut = CHUNK_ITEMS  # the largest chunk that every reader takes
        self.taps: list[Tap] | None = None

        self.is_many = node.kind in MANY
        self.is_ready = False  # stands in the line of the turn
        self.is_paused = False
        self.is_fresh = False  # had ended: to begin anew before it takes a value
        self.wants_finish = False
        self.is_finished = False  # its incoming links are closed
        self.is_ending = False  # in `end` or what it gave
        self.is_over = False
        self.alignment: Alignment[Link] | None = None  # inside the region of a change, until it has switched
        self.switching: Switcher | None = None  # the change it is to switch in, as soon as it is between two items
        self.is_switching = False  # hands its state over
        self.is_given_up = False  # what it has in hand is to go to the dead letters, whatever its policy
        self.after_end: Callable[[BaseException | None], None] | None = None  # what follows `end`, and what that raised
        self.opens_late = False  # what is exclusive is opened when the one before has closed
        self.trouble: Trouble | None = None  # what it has failed on, until that is decided
        self.attempts = 0  # that have failed, of what it works on now
        self.front: Link | None = None  # where the value to try again waits: to be taken next, alone
        self.act: Callable[[], None] | None = None  # to be done before anything else
        self.given = 0  # values of a source since it was started last
        self.given_most = 0  # the most that any start has given
        self.failed_at = host.loop.time() if self.is_source else 0.0  # when it last failed, or was made
        self.left = 0  # outputs that have left, of the item that `pull` goes on with

        self.process: Any = None
        self.state: Any = node.initial
        self.late: list[Callable[[Runner], None]] | None = None  # to be done when it stands between two items
        self.next_state: Any = None  # of a `stateful`, once the outputs that came with it are taken
        self.context: NodeContext | None = None
        self.work: Work | None = None
        self.filling: Filling | None = None
        self.driver: Driver | None = None
        self.link_in_hand: Link | None = None
        self.pull: Iterator[Any] | None = None  # outputs to send before anything else is taken up
        self.pulled: Chunk | None = None  # the one item they are of; None: they are this node's own
        self.slice = 1  # as many values at a time as the last slices say fit
        self.is_single = False  # never more than one value at a time
        self.is_whole = False  # as many as there are, however long that takes: a call with many costs little more
        self.wakes: list[float] | None = None
        self.numbers: Numbers | None = None
        self.may_loop = False  # is a source, or calls a plain function that gives one answer a value
        self.may_gather = False  # is a plain process, which a loop may take in while it gives little
        self.unlooped = 0  # values worked on without a loop since anything was different
        self.is_first = False  # where a loop above stops short of it
        self.loop: Loop | None = None  # that begins here
        self.last_loop: Past | None = None
        self.loops: tuple[Loop, ...] | None = None  # that take it in, or stop short of it
        self.met = Met() if may_hold(node.on_error or host.on_error) else None

        self.received = 0
        self.sent = 0
        self.sending_s = 0.0  # in this slice, into many links
        self.looping_s = 0.0  # in this slice of a source, in loops and in others, which count it themselves
        self.failed = 0
        self.dropped = 0
        self.busy_s = 0.0

    @property
    def kept(self) -> list[Any]:
        """What a `collect` has kept."""
        return self.work.kept if isinstance(self.work, Keeps) else []

    @property
    def call_name(self) -> str:
        """What the user's function is called in error texts."""
        return _CALLS[self.node.kind]

    @property
    def standing(self) -> State:
        """What the node is doing, in a word."""
        if self.is_over and self.handover is None:
            return "finished" if self.is_finished else "ended"
        if self.trouble is not None:
            return self.trouble.state
        if self.is_paused:
            return "paused"
        if self.full_links or (self.loop is not None and self.loop.is_blocked):
            return "full"
        is_busy = self.is_ready or self.is_switching or (self.driver is not None and self.driver.is_busy)
        return "busy" if is_busy else "waiting"

    # -- links

    def add_output(self, link: Link) -> None:
        """Send on `link` too, from now on."""
        self.outputs.append(link)
        self.cut = min(self.cut, link.capacity)
        self.unloop()

    def fit_outputs(self) -> None:
        """Make chunks that every reader takes."""
        self.unloop()
        self.cut = min([CHUNK_ITEMS, *[link.capacity for link in self.outputs]])
        self.slice = min(self.slice, self.cut)

    def offer(self, link: Link) -> None:
        """`link` was empty and holds something now."""
        self.waiting.append(link)
        if self.is_over and link.queued:
            self._begin_again()
        if not self.is_ready:
            self.host.turns.add(self)

    def offer_behind(self, link: Link) -> None:
        """`link` holds something now, perhaps behind markers: an ended node begins again with it."""
        if self.is_over and link.queued:
            self._begin_again()
        if not self.is_ready:
            self.host.turns.add(self)

    def wake(self) -> None:
        """Something has changed for this node: let it step."""
        if not self.is_ready:
            self.host.turns.add(self)
        for loop in self.loops or ():
            loop.has_room()

    def reader_gone(self, link: Link) -> None:
        """The reader of `link` wants no more; where it was the last, this node is not wanted either."""
        self.outputs.remove(link)
        self.closed_outputs = [*self.closed_outputs, link]
        self.fit_outputs()
        if not self.outputs and not self.is_over:
            self.wants_finish = True
            self.wake()

    def forget_closed(self, link: Link) -> None:
        """The reader of `link` has done with it for good."""
        self.closed_outputs = [other for other in self.closed_outputs if other is not link]

    def unloop(self) -> None:
        """Something is different here: what loops there are hold no longer."""
        self.unlooped, self.is_first = 0, False
        loops, self.loops = self.loops, None
        for loop in loops or ():
            loop.retire()

    def pause(self, is_paused: bool) -> None:
        """Take up nothing more, or go on."""
        self.is_paused = is_paused
        self.unloop()
        self.wake()

    def has_work(self) -> bool:
        """Whether a step would do something, were there room."""
        return bool(
            (self.waiting and self._next_place() is not None)
            or self.pull is not None
            or self.act is not None
            or self.switching is not None
            or (self.wakes and self.wakes[0] <= self.host.loop.time())
            or not (self.open_inputs or self.waiting)
        )

    def next_chunk(self, most: int) -> tuple[Link, Chunk] | None:
        """Take at most `most` values from the link whose turn it is, None where there are none to take."""
        if self.front is not None:
            most = 1
        while (place := self._next_place()) is not None:
            link = self.waiting.pop(place)
            entry = link.take(most)
            if link.entries:
                self.waiting.append(link)
            elif self.loops is not None and self.loop is None:
                link.relieve()  # what comes next goes through a loop
            if type(entry) is Chunk:
                if link.is_ended:
                    link.is_ended = False
                    self.open_inputs += 1
                    self.unloop()  # the link may be inside of loops again
                self.link_in_hand = link
                return link, entry
            assert isinstance(entry, Marker)
            self._pass_marker(link, entry)
            if self.switching is not None:
                return None
        return None

    @property
    def is_marker_next(self) -> bool:
        """Whether the next thing to take is a marker."""
        place = self._next_place()
        return place is not None and type(self.waiting[place].entries[0]) is not Chunk

    def _pass_marker(self, link: Link, marker: Marker) -> None:
        """Take note of a marker that has come in."""
        if marker is not END:
            self.host.marked(self, link, marker)
        elif not link.is_ended:
            link.is_ended = True
            self.open_inputs -= 1

    def _read_markers(self) -> None:
        """An ended node reads no values, but markers; a value has it begin again."""
        for link in list(self.waiting):
            while link.entries and type(link.entries[0]) is not Chunk and not link.is_marked:
                entry = link.take(1)
                assert isinstance(entry, Marker)
                self._pass_marker(link, entry)
            if not link.entries:
                self.waiting.remove(link)
            elif not link.is_marked and self.is_over:
                self._begin_again()
                self.wake()

    def _next_place(self) -> int | None:
        """Which of the waiting links to take from: the first that the process wants to read."""
        if not self.waiting:
            return None
        if self.front is not None:
            front, self.front = self.front, None
            return self.waiting.index(front)
        wanted = None if self.context is None else self.context.wanted
        alignment = self.alignment
        if wanted is None and alignment is None:
            return 0
        readable = [(place, link) for place, link in enumerate(self.waiting) if not link.is_marked]
        for place, link in readable:
            if wanted is None or link.source in wanted or link is self.inbox or type(link.entries[0]) is not Chunk:
                return place
            if alignment is not None and alignment.awaits(link):  # whatever `reads` says
                return place
        if wanted is not None and not any(link.source in wanted for link in self._open_links()):
            return readable[0][0] if readable else None
        return None

    def _open_links(self) -> Iterator[Link]:
        """The links that something may still come by."""
        return (link for link in self.inputs if not (link.is_ended or link.is_closed))

    def put_back(self, link: Link, rest: Chunk) -> None:
        """Return what was not worked on to where it came from."""
        if link.is_closed:
            self.dropped += len(rest)
        elif rest.values:
            link.put_back(rest)

    def count(self, chunk: Chunk, done: int) -> None:
        """The first `done` values of `chunk` are finished."""
        self.received += done
        if self.met is not None and done:
            self.met.note(chunk, done)

    # -- sending

    def send(self, values: list[Any], record: Record) -> None:
        """Put values into every link, in chunks that all readers take."""
        self.sent += len(values)
        self.put(values, record)

    def put(self, values: list[Any], record: Record) -> None:
        """The same with what is counted already."""
        if len(self.outputs) > FEW_LINKS:
            self._send_widely(values, record)
            return
        cut = self.cut
        if len(values) <= cut:
            self._put(Chunk(values, record))
        else:
            for start in range(0, len(values), cut):
                self._put(Chunk(values[start : start + cut], record, start))

    def _send_widely(self, values: list[Any], record: Record) -> None:
        """Put them in, when it takes time that is not to be counted as the values'."""
        began = self.host.turns.clock()
        self.put_into(self.outputs, values, record)
        for tap in self.taps or ():
            tap.put(Chunk(values, record))
        self.sending_s += self.host.turns.clock() - began

    def put_into(self, links: Iterable[Link], values: list[Any], record: Record) -> None:
        """Put values into some of its links; they are counted elsewhere."""
        cut = self.cut
        for start in range(0, len(values), cut):
            chunk = Chunk(values[start : start + cut] if start or len(values) > cut else values, record, start)
            for link in links:
                link.push(chunk)

    def _put(self, chunk: Chunk) -> None:
        for link in self.outputs:
            link.push(chunk)
        if self.taps is not None:
            for tap in self.taps:
                tap.put(chunk)

    def send_own(self, values: list[Any], members: dict[int, Members] | None = None) -> None:
        """Send values that begin here, each with a number of its own."""
        if not values:
            return
        if self.numbers is None:
            self.numbers = self.host.numbers(self.key)
        self.unlooped += len(values)
        record = Record(Root(self.key, self.numbers.take(len(values))), self.hops)
        record.members = members
        if self.node.kind == "process":
            self._send_named(values, record)
        else:
            self.send(values, record)

    def send_through(self, values: list[Any], now: float) -> float:
        """Send values of a source, through the loop that begins here if there is one; gives the time at its end."""
        loop = self._loop_to_run()
        if loop is None or loop.standing() != "ready":
            self.send_own(values)
            return self.host.turns.clock()
        return self._send_through(loop, values, now) if values else now

    def _send_through(self, loop: Loop, values: list[Any], now: float) -> float:
        """Send values of a source through a loop, as far as there is time and room; the rest goes into the links.

        It is `now` when it begins; gives the time at its end.
        """
        if self.numbers is None:
            self.numbers = self.host.numbers(self.key)
        count = len(values)
        self.sent += count
        root = Root(self.key, self.numbers.take(count))
        clock = self.host.turns.clock
        start, most, began = 0, loop.cut, now
        in_hand.set(loop)
        while True:
            size = count - start
            if size > self.slice or size > most:
                size = min(self.slice, most)
            loop.run(None, Chunk(values if size == count else values[start : start + size], root, start))
            start += size
            then, now = now, clock()
            self._ran(loop, now - then, size)
            self._fit_slice(now - then, size, most)
            if start == count:
                break
            if now - began >= SLICE_S or not loop.may_go_on:
                self.put(values[start:], Record(root, self.hops, start))
                break
        in_hand.set(None)
        self.looping_s += now - began
        return now

    def send_outcome(self, chunk: Chunk, outcome: Outcome) -> None:
        """Send what values of `chunk`, from its first on, have given."""
        values, places, names, members = outcome
        if not values:
            return
        record = Record(chunk.record, self.hops, chunk.start, places)
        record.members = members
        if names is not None:
            self._send_routed(values, record, names)
        elif self.node.kind == "process":
            self._send_named(values, record)
        else:
            self.send(values, record)

    def _send_named(self, values: list[Any], record: Record) -> None:
        """Put values of a process into the links that read them: some may be for one output."""
        if not (Named in set(map(type, values)) or self._is_read_by_name()):
            self.send(values, record)
            return
        names = [value.name if type(value) is Named else WHOLE for value in values]
        self._send_routed([value.value if type(value) is Named else value for value in values], record, names)

    def _is_read_by_name(self) -> bool:
        """Whether some reader takes one output only."""
        return any(link.name is not WHOLE for link in self.outputs)

    def _send_routed(self, values: list[Any], record: Record, names: list[Key]) -> None:
        """Put each value into the links that read its output."""
        self.sent += len(values)
        places: dict[Any, list[int]] = {}
        for place, name in enumerate(names):
            if name in places:
                places[name].append(place)
            else:
                places[name] = [place]
        chunks: dict[Any, Chunk] = {}
        for name, found in places.items():
            index = [record.parent_place(place) for place in found]
            part = Record(record.parent, record.hops, 0, index)
            if record.members is not None:
                part.members = {n: record.members[place] for n, place in enumerate(found) if place in record.members}
            chunks[name] = Chunk([values[place] for place in found], part)
        whole = Chunk(values, record)
        for link in self.outputs:
            chunk = whole if link.name is WHOLE else chunks.get(link.name)
            if chunk is not None:
                link.push(chunk)
        if self.taps is not None:
            for tap in self.taps:
                tap.put(whole)

    # -- opening

    def open(self) -> Awaitable[None] | None:
        """Make and begin what runs here; gives what is left to await.  Raises what user code raises.

        Of what is exclusive and is to be opened late, only the process is made.
        """
        if self.node.kind == "process" and self.process is None:
            self.process = _made(self.node.fn)
        if self.opens_late and is_exclusive(type(self.process) if self.node.kind == "process" else self.node.fn):
            return None
        self.opens_late = False
        match self.node.kind:
            case "source":
                return self._open_source()
            case "process":
                return self._open_process()
            case "errors":
                return None  # fed by the plumbing
        if self.node.is_async:
            self._open_async()
        else:
            self._open_plain()
        return None

    def _open_async(self) -> None:
        if self.node.kind in ("flat_map", "stateful"):
            self.filling = Filling()
        self.driver = OwnTask(self) if self.node.concurrency == 1 else Calling(self)

    def _open_plain(self) -> None:
        kind, fn = self.node.kind, self.node.fn
        match kind:
            case "merge":
                self.work = Passes()
            case "collect":
                self.work = Keeps()
            case "flat_map":
                self._work_with(fn, read_of(kind, fn))
            case "stateful":
                self._work_with(self._next_state, finished=self._keep_state)
            case "map_chunk":
                self.work = CallsWhole(self.key, fn)
                self.is_whole = True
                return
            case _:
                self.work = Calls(kind, fn)
        self.is_single = fn is not None and may_start_tasks(fn)
        self.may_loop = kind in KINDS and not self.is_single

    def _work_with(
        self,
        give: Callable[[Any], Any],
        read: Callable[[Any], Iterable[Any]] | None = None,
        skips_none: bool = False,
        finished: Callable[[], None] | None = None,
    ) -> None:
        self.filling = Filling()
        self.work = Gives(give, self.filling, read, skips_none, finished)

    def _next_state(self, value: Any) -> Any:
        self.next_state, outputs = step_of("stateful", self.node.fn, self.node.fn(self.state, value))
        return outputs

    def _keep_state(self) -> None:
        """The outputs of a value are all there: the state that came with them is the state."""
        if self.node.kind == "stateful":
            self.state = self.next_state

    def _open_process(self) -> Awaitable[None] | None:
        """Begin the process here or, if anything of it is async, in a task of its own."""
        process = self.process
        self.renew_context()
        if self.node.timeout_s is not None and not is_async(process.process):
            raise UsageError(f"within({self.node.timeout_s}): {process.process!r} is plain, so it cannot be given up")
        if any(is_async(getattr(process, name, None)) for name in ("begin", "process", "end", "close", "wake")):
            self.filling = Filling()
            self.driver = own = OwnTask(self)
            return own.begin()
        self._work_with(process.process, read_of("process", process.process), skips_none=True)
        self.is_single = may_start_tasks(process.process)
        self.may_gather = not self.is_single
        self._call("begin", self.context)
        return None

    def renew_context(self) -> None:
        """Have a context that nobody has set anything on."""
        self.forget_wakes()
        self.context = NodeContext(self)

    def _open_source(self) -> Awaitable[None] | None:
        self.may_loop = True
        made = self.produce()
        if hasattr(type(made), "__aiter__") or (is_async(self.node.fn) and hasattr(type(made), "__await__")):
            self.driver = own = OwnTask(self, made)
            return None if hasattr(type(made), "__aiter__") else own.begin()
        if hasattr(type(made), "__await__"):
            refuse_awaitables("source", self.node.fn, [made])
        self.pull = iterator_of(made, self.node.fn)
        return None

    def produce(self) -> Any:
        """What a source is to give: an iterable of either kind, or what is to be awaited for one."""
        produce = self.node.fn
        is_iterable = not inspect.isclass(produce) and (hasattr(produce, "__iter__") or hasattr(produce, "__aiter__"))
        if not callable(produce) or is_iterable:
            return produce
        self.context = self.context or NodeContext(self)
        return produce(self.context) if wants_context(produce) else produce()

    def _call(self, name: str, *args: Any) -> Any:
        """Call a plain method of the process, where it has it."""
        return _call_plain(getattr(self.process, name, None), *args)

    # -- steps

    def step(self, now: float) -> float:
        """Do a slice of work that began at `now`; give the time at its end."""
        if self.wants_finish and not self.is_finished:
            self._close_inputs()
        if self.is_switching:
            return now
        if self.switching is not None and self.is_between:
            self.switching.switch(self)
            return now
        if self.late is not None and self.is_between:
            self._pass_late()
        if self.is_over and self.waiting and not self.is_paused:
            self._read_markers()
        if self.full_links or self.is_paused or self.is_over or self.trouble is not None:
            return now
        if self.act is not None:
            act, self.act = self.act, None
            act()
            self.wake()
            return now
        if self.driver is not None:
            return self.driver.step(now)
        loop = self._loop_to_run() if self.may_loop and self._has_values() else None
        if loop is not None:
            match loop.standing():
                case "full":
                    return self.host.turns.clock()
                case "filled":
                    self.wake()
                    return self.host.turns.clock()
                case "stuck":
                    loop = None
        self.sending_s = 0.0  # what it has sent in a loop of others was in their time
        units = self._slice(loop)
        end = self.host.turns.clock()
        if loop is None or self.is_source:
            seconds, self.looping_s = end - now - self.looping_s, 0.0
            self.busy_s += seconds
            if seconds > SLOW_CALL_S:
                self.host.warn_slow(self.key, seconds, units)
        else:
            self._ran(loop, end - now, units)
        if units:
            self._fit_slice(end - now - self.sending_s, units, self.cut if loop is None else loop.cut)
        if not self.is_over and not self.is_ready and self.has_work():
            self.host.turns.add(self)
        return end

    @property
    def is_between(self) -> bool:
        """Whether it stands between two items, with nothing half made."""
        if self.is_over:
            return True
        if self.is_ending:
            return False
        if self.driver is not None:
            return self.driver.is_between
        return self.pulled is None and (self.pull is None or self.is_source)

    def _loop_to_run(self) -> Loop | None:
        """The loop that begins here, if it is time for one and it is worth while."""
        loop = self.loop
        if loop is not None:
            if loop.is_worth:
                return loop
            if self.unlooped <= loop.again:
                return None
            loop.retire()
        last = self.last_loop
        is_late = last is not None and last.is_worth and last.values < LOOP_PAYS_ITEMS
        if self.unlooped < (LOOP_PAYS_ITEMS if is_late else LOOP_AFTER_ITEMS):
            return None
        if self.unlooped < LOOP_INNER_ITEMS and self._is_inner():
            return None
        loop = self.loop = Loop(self, CHUNK_ITEMS, last)
        self.unlooped = 0
        return loop if loop.is_worth else None

    def _has_values(self) -> bool:
        """Whether there is something to run a loop with."""
        if self.is_source:
            return self.pull is not None
        return bool(self.waiting) and type(self.waiting[0].entries[0]) is Chunk

    def _is_inner(self) -> bool:
        """Whether a loop that begins above is likely to take it in."""
        if self.is_first or self.is_source:
            return False
        return len(self.inputs) > FEW_LINKS or all(_may_take_in(link.writer) for link in self.inputs)

    def _slice(self, loop: Loop | None) -> int:
        """Do what is next; gives how many values were worked on or made."""
        if self.pull is not None and not (self.waiting and self.is_source):
            if not self.is_source:
                return self._pull_slice(self.pull)
            return self._pull_source(self.pull, None) if loop is None else self._pull_through(loop, self.pull)
        if self.wakes and self.wakes[0] <= self.host.loop.time():
            self._pull_from("wake", self.due_time())
            return 0
        most = min(self.slice, self.cut if loop is None else loop.cut)
        taken = self.next_chunk(self.cut if self.is_whole else most)
        if taken is not None:
            return self._work_on(*taken) if loop is None or self.is_source else self._run_loop(loop, *taken)
        if not self.open_inputs and not self.waiting and self.switching is None:
            self.end()
        return 0

    def _ran(self, loop: Loop, seconds: float, units: int) -> None:
        """A loop that begins here has run for so long."""
        loop.note(seconds, units)
        if seconds > SLOW_CALL_S:
            self.host.warn_slow(loop.slowest, seconds, units)

    def _fit_slice(self, seconds: float, units: int, most: int) -> None:
        """Learn from a slice how many values fit in the next."""
        if seconds > SLICE_S:
            self.slice = max(1, min(most, int(units * SLICE_S / seconds)))
        elif units >= self.slice and not self.is_single:
            fits = units * SLICE_S / seconds if seconds else most
            self.slice = int(min(most, 2 * self.slice, fits))

    def _work_on(self, link: Link, chunk: Chunk) -> int:
        if self.is_source:  # what was injected
            self.send_own(chunk.values)
            return len(chunk.values)
        if self.is_fresh and not self._anew(link, chunk):
            return 0
        self.unlooped += len(chunk.values)
        work, error = self.work, None
        assert work is not None
        in_hand.set((chunk, 0) if self.is_single else work)
        try:
            work.run(chunk, self.cut)
        except (Exception, asyncio.CancelledError) as exc:
            error = exc
        in_hand.set(None)
        self._after(link, chunk, work, error)
        return len(chunk.values)

    def _run_loop(self, loop: Loop, link: Link, chunk: Chunk) -> int:
        self.is_fresh = False
        in_hand.set(loop)
        loop.run(link, chunk)
        in_hand.set(None)
        return len(chunk.values)

    def _after(self, link: Link, chunk: Chunk, work: Work, error: BaseException | None) -> None:
        """Send what a slice gave; return to the link what it left."""
        done = upto = work.done
        if work.rest is not None:
            self._keep_rest(work, only(chunk, done, done + 1))
            upto += 1
        self.send_outcome(chunk, work.outcome())
        if self.filling is not None:
            self.filling.renew()
        self.count(chunk, done)
        if done and self.attempts:
            self.attempts = 0
            self.unloop()
        if upto < len(chunk.values):
            self.put_back(link, only(chunk, upto, len(chunk.values)))
        if error is not None:
            self.fail(self.call_name, chunk.item(done), error, link=link)

    def give(self, chunk: Chunk, outputs: Any) -> None:
        """Send what a process has given for the one value of `chunk`, in a loop, which counts it."""
        work, filling = self.work, self.filling
        assert isinstance(work, Gives)
        assert filling is not None
        work.take(chunk, outputs, self.cut)
        if work.rest is not None:
            self.received -= 1  # it is counted when the rest has been sent
            self._keep_rest(work, chunk)
            self.wake()
        self.send_outcome(chunk, work.outcome())
        filling.renew()

    def _keep_rest(self, work: Work, chunk: Chunk) -> None:
        """Outputs of the one value of `chunk` are to be sent before anything else is taken up."""
        self.pull, self.pulled, work.rest = work.rest, chunk, None
        self.left = self.filling.in_call(chunk.start) if self.filling is not None else 0

    def forget_gathered(self) -> None:
        """What a call has gathered, and given nothing, concerns no other."""
        if self.filling is not None and self.pull is None:
            self.filling.marks = {}

    def leave_loops(self) -> None:
        """What a loop does not look at between two values has been asked for."""
        for loop in self.loops or ():
            loop.leave(self)

    def _pull_through(self, loop: Loop, pull: Iterator[Any]) -> int:
        """Send the next values of the producer through a loop, as many as there is time for; gives how many."""
        clock = self.host.turns.clock
        began = then = clock()
        count = self._pull_source(pull, loop)
        now = clock()
        while self.pull is pull and 2 * now - then - began < SLICE_S and loop.may_go_on:  # for as much again
            count += self._pull_source(pull, loop)
            then, now = now, clock()
        return count

    def _pull_source(self, pull: Iterator[Any], loop: Loop | None) -> int:
        """Send the next values of the producer."""
        out: list[Any] = []
        error, most = None, min(self.slice, self.cut if loop is None else loop.cut)
        in_hand.set(None)
        try:
            out.extend(islice(pull, most))
        except (Exception, asyncio.CancelledError) as exc:
            error = exc
        self.given += len(out)
        if loop is None or not loop.may_go_on:  # with the producer, user code has run
            self.send_own(out)
        elif out:
            self._send_through(loop, out, self.host.turns.clock())
        if error is not None:
            self._pull_failed(None, error)
        elif len(out) < most:
            self._pulled_all()
            return len(out)
        return most

    def _pull_slice(self, pull: Iterator[Any]) -> int:
        """Send the next outputs of the item in hand, or of `end` or `wake`."""
        filling, pulled, error = self.filling or Filling(), self.pulled, None
        out, most = filling.out, self.slice
        in_hand.set(None if pulled is None else (pulled, 0))
        has_ended = False
        try:
            has_ended = pull_into(out, pull, most, self.process is not None)
        except (Exception, asyncio.CancelledError) as exc:
            error = exc
        in_hand.set(None)
        self.left += len(out)
        place = 0 if pulled is None else pulled.start
        filling.attribute(place)
        members = filling.members()
        if error is not None or has_ended:
            filling.end_call(place)
        if pulled is None:
            self.send_own(out, members)
        else:
            self.send_outcome(pulled, Outcome(out, filling.index, None, members))
        filling.renew()
        if error is not None:
            self._pull_failed(pulled, error)
        elif has_ended:
            self._pulled_all()
        return most if not has_ended else len(out)

    def _pull_failed(self, pulled: Chunk | None, error: BaseException) -> None:
        if self.is_ending or not (self.is_source or pulled is not None):
            self.pull = None
            name, args = ("end", ()) if self.is_ending else ("wake", (self.host.loop.time(),))
            again = partial(self._pull_from, name, *args)
            self.fail(name, None, error, again=again, skip=self._over if self.is_ending else None, left=self.left)
        elif pulled is not None:
            self.pull = self.pulled = None
            self.fail(self.call_name, pulled.item(0), error, left=self.left)
        else:
            self.fail_source(error, self._produce_again, self._produce_no_more)

    def fail_source(self, cause: BaseException, again: Callable[[], None], skip: Callable[[], None]) -> None:
        """A source raised; one that had come further than ever, or ran for long, has its attempts counted anew."""
        now = self.host.loop.time()
        if self.given > self.given_most or now - self.failed_at > LONG_RUN_S:
            self.attempts = 0
        self.given_most, self.given, self.failed_at = max(self.given, self.given_most), 0, now
        self.fail("source", None, cause, again=again, skip=skip)

    def _produce_again(self) -> None:
        """Start a source that has failed from its beginning."""
        try:
            self.close()
            self._open_source()
        except (Exception, asyncio.CancelledError) as exc:
            self.fail_source(exc, self._produce_again, self._produce_no_more)

    def _produce_no_more(self) -> None:
        """Go on after a failure: with the same iterator, where it is still there."""
        if self.pull is None:
            self.open_inputs = 0

    def _pulled_all(self) -> None:
        self.pull, pulled, self.pulled, self.left = None, self.pulled, None, 0
        self.attempts = 0
        if self.is_ending:
            self._over()
        elif pulled is not None:
            self.count(pulled, 1)
            self._keep_state()
        elif self.is_source:
            self.open_inputs -= 1

    def _pull_from(self, name: str, *args: Any) -> None:
        """Call `end` or `wake`, and have what it gives sent."""
        self.left = 0
        try:
            result = self._call(name, *args)
            check_outputs("process", getattr(self.process, name, None), result)
            outputs = outputs_of(result)
        except (Exception, asyncio.CancelledError) as exc:
            again = partial(self._pull_from, name, *args)
            self.fail(name, None, exc, again=again, skip=self._over if self.is_ending else None)
            return
        if outputs is not None:
            self.pull = iter(outputs)
            return
        self.attempts = 0
        if self.is_ending:
            self._over()

    def due_time(self) -> float:
        """Now, when `wake` is due; the times that have come are off the list."""
        now = self.host.loop.time()
        assert self.context is not None
        self.context.taken_wakes(now)
        return now

    # -- failing

    def fail(
        self,
        call: str,
        item: Item | None,
        cause: BaseException,
        *,
        link: Link | None = None,
        again: Callable[[], None] | None = None,
        skip: Callable[[], None] | None = None,
        left: int = 0,
        is_last: bool = False,
    ) -> None:
        """User code raised `cause`: do what the policy says.

        The item waits in front of `link`; what had none is tried again by `again` and passed over by `skip`.  `left` is
        how many of its outputs have been sent already; `is_last` says that there is nothing to try again.
        """
        of_user_code(cause)
        if self.after_end is not None:
            self.left = left
            self._flushed(cause)
            return
        if link is not None and link.is_closed:  # it has finished meanwhile: there is nowhere to try this again from
            link, is_last = None, True
            self.dropped -= 1
        elif self.is_finished and isinstance(self.driver, Calling):  # it keeps nothing for those who read it later
            is_last = True
        self.attempts += 1
        host = self.host
        policy = self.node.on_error or host.on_error
        verdict: Verdict = decide(
            policy, self.attempts, chance=host.chance(), has_left=left > 0 or is_last, is_draining=host.is_draining
        )
        self.trouble = trouble = Trouble(call, item, cause, host.loop.time())
        self.unloop()
        if link is not None:
            link.keeps_front = True
        trouble.link, trouble.again, trouble.skip = link, again, skip
        if self.is_given_up:
            self.is_given_up = False
            verdict = PassOver("given up")
        match verdict:
            case Stop() if host.is_below_errors(self.key):  # what fails there is only logged, so that nothing loops
                self.pass_over("below an error stream")
            case Stop():
                self.failed += 1
                host.failed(error_of(self.key, trouble))
            case PassOver("partly sent") if left:
                self.pass_over(f"partly sent: {left} of its outputs had left")
            case PassOver(reason):
                self.pass_over("discarded" if reason == "partly sent" else reason)
            case Hold():
                trouble.state = "holding"
            case Again(delay_s):
                trouble.state = "retrying"
                trouble.timer = host.loop.call_later(delay_s, self.try_again)

    def try_again(self) -> None:
        """Attempt once more what has failed."""
        trouble = self.out_of_trouble()
        if trouble.handover is not None:
            self._go_on_handing_over(trouble.again)
            return
        self.front, self.act = trouble.link, trouble.again
        self.wake()

    def pass_over(self, reason: str) -> None:
        """Send what has failed to the dead letters, and go on without it."""
        trouble = self.out_of_trouble()
        self.failed += 1
        attempts, self.attempts = self.attempts, 0
        if trouble.link is not None:
            self.front = trouble.link
            self.next_chunk(1)
        self.host.dead_letter(self, Failure(self.key, trouble.item, trouble.cause, attempts, reason))
        if trouble.handover is not None:
            self._go_on_handing_over(trouble.skip)
            return
        self.act = trouble.skip
        self.wake()

    def _go_on_handing_over(self, act: Callable[[], None] | None) -> None:
        assert act is not None
        self.host.loop.call_soon(act)  # not from within whatever user code has called `retry`

    def out_of_trouble(self) -> Trouble:
        """Forget what it has failed on; gives that."""
        trouble, self.trouble = self.trouble, None
        self.unloop()
        assert trouble is not None
        if trouble.timer is not None:
            trouble.timer.cancel()
        return trouble

    # -- ending

    def end(self) -> None:
        """All links have ended: give what `end` gives, close, and pass the end on."""
        self.is_ending = True
        self.forget_wakes()
        if self.process is not None and not self.is_fresh:
            self._pull_from("end")
        else:
            self._over()

    def forget_wakes(self) -> None:
        """Nothing is to be woken any more."""
        if self.wakes and self.context is not None:
            self.context.cancel_wakes()

    def _over(self) -> None:
        if self.after_end is not None:
            self._flushed(None)
            return
        try:
            self.close()
        except (Exception, asyncio.CancelledError) as exc:
            self.fail("close", None, exc, skip=self.pass_end, is_last=True)
            return
        self.pass_end()

    # -- changing places

    def take_over(self, old: Runner) -> None:
        """Stand where another runner has stood: its links, what waits in them, its counts."""
        old.unloop()
        self.inputs, self.outputs, self.closed_outputs = old.inputs, old.outputs, old.closed_outputs
        self.inbox = old.inbox
        self.waiting, self.taps, self.numbers = old.waiting, old.taps, old.numbers
        self.is_paused, self.is_finished = old.is_paused, False
        self.late, old.late = old.late, None
        self.received, self.sent, self.failed = old.received, old.sent, old.failed
        self.dropped, self.busy_s = old.dropped, old.busy_s
        self.full_links += old.full_links
        for link in (*self.outputs, *self.closed_outputs):
            link.writer = self
        for link in (*self.inputs, *([self.inbox] if self.inbox is not None else ())):
            link.reader = self
        self.cut = old.cut
        self.slice = min(self.slice, self.cut)
        old.inputs, old.outputs, old.closed_outputs, old.inbox, old.waiting, old.taps = ([], [], (), None, [], None)

    def rewire(self, lost: Collection[Link], outputs: Collection[Link], inputs: Collection[Link]) -> None:
        """Take up new links in place of `lost` ones, and read all there are."""
        for link in lost:
            if link in self.outputs:
                self.outputs.remove(link)
                link.detach_writer()
            elif link in self.closed_outputs:
                self.forget_closed(link)
            elif link in self.inputs:
                self.inputs.remove(link)
                if link in self.waiting:
                    self.waiting.remove(link)
        for link in outputs:
            self.outputs.append(link)
            link.attach_writer(self)
            if self.is_over:
                link.mark(END)
        for link in outputs:
            if link.is_closed:  # meanwhile, before anybody wrote
                self.reader_gone(link)
        if lost or outputs:
            self.fit_outputs()
        self.take_up(inputs)
        if inputs and self.is_finished:
            self.is_finished = self.wants_finish = False
        for link in self.inputs:
            link.is_marked = False
        self.alignment = None
        self.refit()

    def take_up(self, links: Iterable[Link]) -> None:
        """Read new links too."""
        for link in links:
            self.inputs.append(link)
            self.open_inputs += 1
            link.attach_reader(self)
            if isinstance(link.writer, Runner):
                link.writer.unloop()

    def refit(self) -> None:
        """Take up the links there are, as the node is described now."""
        self.unloop()
        node = self.node
        for link in self.inputs:
            is_other = link.capacity != node.capacity
            if is_other or link.when_full != node.when_full:
                link.resize(node.capacity, node.when_full)
            if is_other and isinstance(link.writer, Runner):
                link.writer.fit_outputs()
        self.open_inputs = self._is_producing() + sum(1 for _ in self._open_links())
        self.wake()

    def _is_producing(self) -> bool:
        if not self.is_source:
            return False
        return (
            self.pull is not None
            or (self.driver is not None and self.driver.is_producing)
            or self.node.kind == "errors"
        )

    def flush(self, flushed: Callable[[BaseException | None], None]) -> None:
        """Send what `end` gives, and call `flushed` with what it raised."""
        self.is_ending, self.after_end = True, flushed
        self.forget_wakes()
        self._pull_from("end")

    def _flushed(self, cause: BaseException | None) -> None:
        flushed, self.after_end, self.is_ending = self.after_end, None, False
        assert flushed is not None
        flushed(cause)

    def pass_later(self, act: Callable[[Runner], None]) -> None:
        """Do something when it stands between two items again."""
        self.late = [*(self.late or ()), act]
        if not self.is_ready:
            self.host.turns.add(self)

    def _pass_late(self) -> None:
        late, self.late = self.late, None
        for act in late or ():
            act(self)

    def pass_end(self) -> None:
        """Tell the readers, and the plumbing."""
        self.is_ending, self.is_over = False, True
        self._pass_late()
        self.unloop()
        for link in self.outputs:
            link.mark(END)
        self.host.ended(self)
        if any(link.queued for link in self.waiting):
            self._begin_again()
        if self.waiting or self.switching is not None:
            self.wake()

    @property
    def handover(self) -> Handover | None:
        """The handover in which it holds between two processes."""
        return None if self.trouble is None else self.trouble.handover

    def under_way(self) -> Iterator[Chunk]:
        """What has come in and has not gone on."""
        for link in (*self.inputs, *([] if self.inbox is None else [self.inbox])):
            yield from (entry for entry in link.entries if type(entry) is Chunk)
        if self.pulled is not None:
            yield self.pulled
        if self.driver is not None:
            yield from self.driver.in_hand()

    def cancel_retry(self) -> None:
        """Do not try again by itself."""
        if self.trouble is not None and self.trouble.timer is not None:
            self.trouble.timer.cancel()

    def close(self) -> None:
        """Close the process or the producer, if that takes no await; at most once."""
        pull, self.pull, self.pulled = self.pull, None, None
        process, self.process = self.process, None
        try:
            _close_iterator(pull)
        finally:
            if self.driver is None and not self.opens_late:
                _call_plain(getattr(process, "close", None))

    def _begin_again(self) -> None:
        """Something has come after the end."""
        self.is_over = self.is_finished = self.wants_finish = False
        self.unloop()
        self.is_fresh = True
        self.host.began_anew(self)

    def _anew(self, link: Link, chunk: Chunk) -> bool:
        """Begin as at the start; where that fails, what was taken goes back."""
        self.state = self.node.initial
        try:
            if self.node.kind == "process":
                self.process = _made(self.node.fn)
                self._open_process()
        except (Exception, asyncio.CancelledError) as exc:
            self.put_back(link, chunk)
            self._close_after(exc)
            self.fail("begin", chunk.item(0), exc, link=link)
            return False
        self.is_fresh = False
        return True

    def _close_after(self, error: BaseException) -> None:
        """Close what could not begin."""
        try:
            self.close()
        except (Exception, asyncio.CancelledError) as exc:
            error.add_note(f"and its close raised {type(exc).__name__}: {exc}")

    def stop_producing(self) -> None:
        """A source gives no more of its own; what was injected it still sends."""
        if self.is_over or self.is_ending:
            return
        if self.driver is None:
            self.act = None  # it may have been about to start again
        if self.trouble is not None and self.trouble.state != "failed":
            self.pass_over("drained")
        if self.driver is not None:
            self.driver.interrupt()
        elif self.open_inputs:
            self.open_inputs = 0
            self._close_producer()
        self.wake()

    def _close_producer(self) -> None:
        try:
            self.close()
        except (Exception, asyncio.CancelledError) as exc:
            self.fail("close", None, exc, is_last=True)

    def _leave_rest(self, rest: Iterator[Any]) -> None:
        """Do without outputs that nobody wants, perhaps without end."""
        self.received += self.pulled is not None
        self.pull = self.pulled = None
        if self.filling is not None:
            self.filling.marks = {}
        try:
            _close_iterator(rest)
        except (Exception, asyncio.CancelledError) as exc:
            self.fail(self.call_name, None, exc, is_last=True)

    def _keeps_item(self) -> bool:
        """Whether it holds an item, or is about to try one again."""
        trouble = self.trouble
        is_undecided = trouble is not None and trouble.state != "failed" and trouble.handover is None
        return is_undecided and not (self.is_ending or self.is_source)

    def _close_inputs(self) -> None:
        """Finish: forget what waits to be read, and tell the writers."""
        self.is_finished = True
        self.unloop()
        if self._keeps_item():
            self.out_of_trouble()  # what it kept is forgotten with the rest of the link
            if isinstance(self.driver, Calling):
                self.driver.forget_oldest()
        if self.is_source:
            self.stop_producing()
        elif self.pull is not None and not self.outputs and not self.is_ending:
            self._leave_rest(self.pull)
        self.waiting.clear()
        self.open_inputs = 0
        open_links = [
            link for link in self.inputs if not link.is_closed
        ]  # it may have finished before, and begun again
        for link in open_links:
            self.dropped += link.close()
            self.host.link_gone(self, link)
            if isinstance(link.writer, Runner):
                link.writer.reader_gone(link)
        if self.inbox is not None:
            self.dropped += self.inbox.close()
        self.wake()


def _may_take_in(writer: Writer) -> bool:
    """Whether a loop that takes in who reads this may yet be made; what a source's does not take goes without it."""
    if not isinstance(writer, Runner) or not writer.may_loop:
        return False
    if not writer.is_source:
        return True
    is_first = writer.loop is None and writer.last_loop is None
    return writer.driver is None and (is_first or (writer.loop is not None and writer.loop.is_pending))


def _made(make: Callable[[], Any]) -> Any:
    process = make()
    if not callable(getattr(process, "process", None)):
        raise UsageError(f"process({make!r}) made {process!r}, which has no method `process(value)`")
    return process


def _call_plain(method: Callable[..., Any] | None, *args: Any) -> Any:
    """What a plain method of a process gives; nothing where the process has no such method."""
    if method is None:
        return None
    result = method(*args)
    if hasattr(type(result), "__await__"):
        refuse_awaitables("process", method, [result])
    return result


def _close_iterator(iterator: Iterator[Any] | None) -> None:
    if iterator is not None and hasattr(iterator, "close"):
        iterator.close()


_CALLS = {kind: kind for kind in ("map", "map_chunk", "filter", "flat_map", "sink", "source", "merge", "collect")} | {
    "stateful": "step",
    "route": "choose",
    "process": "process",
}


class Tap(Protocol):
    """Where somebody listens."""

    def put(self, chunk: Chunk) -> None:
        """Something was sent."""

    def close(self) -> None:
        """Nothing more will be."""
