"""Neighbouring nodes with plain functions, run as one generated loop: one pass for all of them, with a line per call.

A loop begins at one node, its head, and takes in what reads it, and what reads that, as far as there are only plain
functions that give one answer a value, and processes that seldom give any.  A source can be the head too: what it has
made goes through its loop at once.  Where a loop ends, values leave into links as ever:

    for v0 in it:
        v1 = f0(v0)             a map
        o0(v1)                  a reader of it that is not taken in
        b = f1(v1)              a filter that reads it too, and
        if b:
            c1 += 1
            b = f2(v1)          a sink that reads that

Nothing is written down for an item.  When user code raises, or asks for `hp.current_item()`, the line says which node
it is, the variables say with what, and how far the iterator has come says which item.  What the failed item was still
to be given to goes into the links it would have gone through, and everything goes on node by node.

A loop holds for the wiring it was made for.  Whatever changes at one of its nodes, or at one that it stops short of,
retires it (`Runner.unloop`), and the next is made anew, when a first value has come through and shown how long the
nodes take.  It is not used while a link inside it holds something, which it would overtake, nor where one value takes
so long that the nodes had better take turns.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import cache, lru_cache
from itertools import islice
from types import CodeType, FrameType, FunctionType, TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

import attrs

from hotplumb._links import WHOLE, Link, only
from hotplumb._turns import SLICE_S
from hotplumb._work import Gives, name_of, refuse_awaitables
from hotplumb.items import Chunk, Hop, Item, Record, Trail
from hotplumb.keys import Key

if TYPE_CHECKING:
    from hotplumb._runner import Runner

KINDS: Final = frozenset(["map", "filter", "merge", "route", "sink", "collect"])
MOST_LINES = 200  # a longer loop gains nothing more, and compiling it takes its time
MOST_DEEP = 12  # conditions within each other
MOST_READERS = MOST_LINES // 2  # of one node; where there are more, each had better read chunks
MOST_BRANCHES = 64  # of a route: each is an exit at least, with lists of its own
GATHERED = 16  # values, at least, for each output of a process that a loop takes in
FEW_ITEMS = 64  # by which nobody can tell how long values take,
FIRST_S = 8 * SLICE_S  # of the first run, which is timed, and in new code
COLD_S = 0.00001  # where each goes from node to node alone, for the first time
SOON_ITEMS = 8  # after which a loop is made again where not all nodes were known
LOOP_AGAIN_ITEMS = 1024  # after which a loop that was not worth while is made again
PLAIN_NAMES: Final = (str, int, bool, float, bytes, type(None))  # two of the same type are equal as names are
MOST_NAMES = 1024  # that a route has answered with, which are kept
TIMED_EVERY = 32  # slices: at the beginning of one of them each call is timed, and its answer looked at
TIMED_VALUES = 4  # which takes ten times as long
JUDGED_EVERY = 16  # slices: whether values take too long by now, which one interruption is not to decide
PATIENCE = 12  # times that the nodes inside may go first, and once more for each of them: what they have comes through
FIRST_LINE = 5  # of a loop's body, in its text

Taken = dict[Key, tuple[float, int]]
"""{node: (how long it had been busy, with how many values)}."""


@attrs.frozen(eq=False)
class Way:
    """The nodes that a value has come through since the loop began; ways share their beginnings."""

    last: Runner
    before: Way | None

    def runners(self) -> list[Runner]:
        """The nodes, first to last."""
        found, way = [], self
        while True:
            found.append(way.last)
            if way.before is None:
                return found[::-1]
            way = way.before

    def hops(self) -> tuple[Hop, ...]:
        """The hops made in them."""
        return tuple(hop for runner in self.runners() for hop in runner.hops)


@attrs.frozen(eq=False)
class Pending:
    """What is still to come of a value when a node is called: it shares with those of others what is the same."""

    links: Sequence[Link]
    first: int
    """Of the links, the first that has not had its turn."""
    value: str
    """The variable that goes there."""
    name: str | None
    """For branches of a route: the variable that has the name of the one that it goes to."""
    then: Pending | None

    def each(self) -> Iterator[tuple[Link, str, str | None]]:
        """The links, what goes there, and where the name is."""
        pending: Pending | None = self
        while pending is not None:
            for link in islice(pending.links, pending.first, None):
                yield link, pending.value, pending.name
            pending = pending.then


@attrs.frozen(eq=False)
class Stage:
    """One line that calls user code."""

    runner: Runner
    link: Link | None
    """By which the node reads; None for the head, which may read several."""
    value: str
    """The variable it is called with."""
    path: Way | None
    """The nodes that the value has come through since the loop began."""
    pending: Pending | None
    function: int
    """Its number among the functions that the loop calls."""


@attrs.frozen(eq=False)
class Visit:
    """A place in the loop where a node is given a value."""

    runner: Runner
    line: int
    region: int
    sends: int
    """The region of the lines that what it gives goes to."""


@attrs.frozen(eq=False)
class Exit:
    """Where values leave the loop."""

    writer: Runner
    links: tuple[Link, ...]
    hops: tuple[Hop, ...]
    region: int


@attrs.frozen
class Place:
    """Where lines are written: how deep, and in which region."""

    deep: int = 0
    region: int = 0


class Names:
    """Which branch of a route its answers name.

    Where all names are text, `known` has answers, and what equals a text is taken for it; else `(type, answer)`: 1, 1.0
    and True are equal, and different names.
    """

    def __init__(self, places: dict[Key, int]) -> None:
        self._places = places
        self.is_text = all(type(name) is str for name in places)
        self.known: dict[Any, int] = {}
        """{answer: the number of its branch}; where nobody reads what it names, one that no branch has."""
        for name in places:
            self.find(name)

    def find(self, answer: Any) -> tuple[Key, int]:
        """The name in an answer that is not known, and its branch.  Raises where it names nothing."""
        try:
            name = name_of(answer)
        except Exception as exc:
            exc.__suppress_context__ = True  # the loop has caught that it is not known
            raise
        place = self._places.get(name, len(self._places))
        if type(answer) in (PLAIN_NAMES if not self.is_text else (str,)) and len(self.known) < MOST_NAMES:
            self.known[answer if self.is_text else (type(answer), answer)] = place
        return name, place


class Text:
    """The lines of a loop, and what they stand for.  A region is what runs under one condition; region 0 is all."""

    def __init__(self, head: Runner) -> None:
        self.head = head
        self.lines: list[tuple[int, str, int | None]] = []  # (how deep, text, the function it calls)
        self.stages: dict[int, Stage] = {}  # {line: what it calls}
        self.visits: list[Visit] = []
        self.exits: list[Exit] = []
        self.regions: list[tuple[int, int]] = [(0, 0)]  # (first line, line after the last)
        self.functions: list[Any] = []
        self.owners: dict[int, Runner] = {}  # {function: whose it is}
        self.gatherers: dict[int, Stage] = {}  # {function: the call of a process}
        self.short_of: list[Runner] = []
        self.hopeful: list[Runner] = []  # left out: processes that gave much so far, and what has been given nothing
        self._taken = 0  # nodes, one as often as it is there
        self._variables = 0  # in use
        self._extents: dict[Key, tuple[slice, slice, int]] = {}  # {node: its lines and visits, how deep}
        self._leaving: set[Key] = set()  # nodes that values leave the loop from, or from below
        if is_plain(head):
            if head.is_source:
                self._readers(head, head.outputs, "v0", Way(head, None), None, Place())
            else:
                self._node(head, None, "v0", None, None, Place())
        self.regions[0] = (0, len(self.lines))

    # -- writing

    def _line(self, at: Place, text: str) -> None:
        self.lines.append((at.deep, text, None))

    def _node(
        self, runner: Runner, link: Link | None, value: str, path: Way | None, pending: Pending | None, at: Place
    ) -> None:
        """Write what one node does with a value, and what comes of it."""
        line, visit, sends, on = len(self.lines), len(self.visits), at.region, Way(runner, path)
        self._taken += 1
        kind = runner.node.kind
        if kind == "merge":
            self._readers(runner, runner.outputs, value, on, pending, at)
        else:
            result = self._call(Stage(runner, link, value, path, pending, len(self.functions)), at)
            if kind == "map":
                self._readers(runner, runner.outputs, result, on, pending, at)
            elif kind == "filter":
                self._line_of(self.stages[line], at, f"if {result}:")  # whether it is true, the answer's own code says
                sends = self._under(at, runner, runner.outputs, value, on, pending)
            elif kind == "route":
                self._branches(self.stages[line], result, on, at)
            elif kind == "process":
                self._gatherer(self.stages[line], result, on, at)
        self.visits.append(Visit(runner, line, at.region, sends))
        self._extents[runner.key] = (slice(line, len(self.lines)), slice(visit, len(self.visits)), at.deep)

    def _call(self, stage: Stage, at: Place) -> str:
        """Write a line that calls a node's function; gives the variable its answer is in."""
        runner, k = stage.runner, stage.function
        self.stages[len(self.lines)] = stage
        self.functions.append(_function_of(runner))
        self.owners[k] = runner
        self._variables += 1
        answer = _variable(self._variables)
        self.lines.append((at.deep, f"{answer} = f{k}({stage.value})", k))
        if runner.node.kind == "sink":
            self._line_of(stage, at, f"if {answer} is not None: look({k}, {answer})")
        return answer

    def _line_of(self, stage: Stage, at: Place, text: str) -> None:
        """Write a line that belongs to a call before it."""
        self.stages[len(self.lines)] = stage
        self._line(at, text)

    def _gatherer(self, stage: Stage, answer: str, on: Way, at: Place) -> None:
        """Write that what a process gives, which is seldom, is sent by itself."""
        self.gatherers[stage.function] = stage
        self._leaving.update(runner.key for runner in on.runners())
        self._line_of(stage, at, f"if {answer} is not None: give({stage.function}, {answer}, {stage.value})")

    def _under(
        self, at: Place, runner: Runner, links: Sequence[Link], value: str, on: Way, pending: Pending | None
    ) -> int:
        """Write what becomes of a value under a condition; gives the region of that."""
        region, first = len(self.regions), len(self.lines)
        self.regions.append((first, first))
        inner = Place(at.deep + 1, region)
        self._line(inner, f"c{region} += 1")
        self._readers(runner, links, value, on, pending, inner)
        self.regions[region] = (first, len(self.lines))
        return region

    def _readers(
        self, runner: Runner, links: Sequence[Link], value: str, on: Way, pending: Pending | None, at: Place
    ) -> None:
        """Write what becomes of a value that a node gives: first where it leaves the loop, then what takes it in."""
        taken: list[Any] = [link for link in links if self._may_take(link, at)] if len(links) <= MOST_READERS else []
        inside = set(map(id, taken))
        left = tuple(link for link in links if id(link) not in inside)
        if left:
            self._exit(runner, left, value, on, at)
        for n, link in enumerate(taken):
            if self._may_take(link, at):  # still, after those before it
                self._node(link.reader, link, value, on, Pending(taken, n + 1, value, None, pending), at)
            else:
                self._exit(runner, (link,), value, on, at)

    def _exit(self, runner: Runner, links: tuple[Link, ...], value: str, on: Way, at: Place) -> None:
        """Write that a value leaves the loop."""
        j = len(self.exits)
        self.exits.append(Exit(runner, links, on.hops(), at.region))
        self._leaving.update(runner.key for runner in on.runners())
        self.short_of += [link.reader for link in links if isinstance(link.reader, type(runner))]
        self._line(at, f"o{j}({value})")
        if at.region:
            self._line(at, f"p{j}(i)")

    def _branches(self, stage: Stage, name: str, on: Way, at: Place) -> None:
        """Write what reads all that a route gives, and the choice of what reads one output."""
        runner, value = stage.runner, stage.value
        named: dict[Key, list[Link]] = {}
        for link in runner.outputs:
            if link.name is not WHOLE:
                named.setdefault(link.name, []).append(link)
        branches = list(named.values())
        later = Pending([link for links in branches for link in links], 0, value, name, stage.pending)
        whole = [link for link in runner.outputs if link.name is WHOLE]
        choice = self._choice(stage, name, {name: j for j, name in enumerate(named)}, at)
        self._readers(runner, whole, value, on, later, at)
        self._choose(choice, 0, [*branches, []], stage, on, at)

    def _choice(self, stage: Stage, name: str, places: dict[Key, int], at: Place) -> str:
        """Write which branch the answer in `name` names; gives the variable with its number.

        Answers that have come before are in a dict; one that has not, or cannot be, is looked at by `Names`.
        """
        k = len(self.functions)
        names = Names(places)
        self.functions += [names.known, names.find]
        known = name if names.is_text else f"type({name}), {name}"
        self._line_of(stage, at, f"try: j{k} = f{k}[{known}]")
        self._line_of(stage, at, f"except (KeyError, TypeError): {name}, j{k} = f{k + 1}({name})")
        return f"j{k}"

    def _choose(self, choice: str, first: int, branches: list[list[Link]], stage: Stage, on: Way, at: Place) -> None:
        """Write the choice of a branch by its number, halving them each time; an empty one is what nobody reads."""
        if branches == [[]]:
            self._line(at, "pass")
            return
        if len(branches) == 1:
            self._under(at, stage.runner, branches[0], stage.value, on, stage.pending)
            return
        half, inner, before = len(branches) // 2, Place(at.deep + 1, at.region), self._variables
        self._line(at, f"if {choice} < {first + half}:")
        self._choose(choice, first, branches[:half], stage, on, inner)
        self._variables = before  # either the ones or the others are in use
        self._line(at, "else:")
        self._choose(choice, first + half, branches[half:], stage, on, inner)

    def _may_take(self, link: Link, at: Place) -> bool:
        reader: Any = link.reader
        if not ((is_plain(reader) or reader.may_gather) and self._has_place_for(link, at)):
            return False
        is_known = at.region == 0 or reader.received > 0 or reader.node.kind in ("merge", "collect")
        if not is_known or (reader.may_gather and not is_gatherer(reader)):
            self.hopeful.append(reader)
            return False
        return True

    def _has_place_for(self, link: Link, at: Place) -> bool:
        reader: Any = link.reader
        return (
            len(self.lines) < MOST_LINES
            and self._taken < MOST_LINES  # a merge has no line
            and at.deep < MOST_DEEP
            and link.when_full == "wait"
            and not link.is_ended  # what comes through it has its reader begin anew
            and reader.key not in self._leaving  # in two places, what leaves there would lose its order
            and not (reader.may_gather and reader.key in self._extents)  # for it has one link
            and (at.region == 0 or reader.met is None)
            and self._fits_again(reader.key, at)
        )

    def _fits_again(self, key: Key, at: Place) -> bool:
        """Whether a node that has a place may have another: all below it there too, or it would lose its order."""
        if key not in self._extents:
            return True
        lines, visits, deep = self._extents[key]
        deepest = max((deep for deep, _, _ in self.lines[lines]), default=deep)
        return (
            len(self.lines) + lines.stop - lines.start <= MOST_LINES
            and self._taken + visits.stop - visits.start <= MOST_LINES
            and at.deep + deepest - deep < MOST_DEEP
            and (at.region == 0 or all(visit.runner.met is None for visit in self.visits[visits]))
        )

    # -- making

    def made(self, give: Callable[[int, Any, Any], None], is_timed: bool) -> Callable[..., tuple[int, ...]]:
        """The loop; where it is timed, it adds up the time of each call, and looks at its answer.

        `give` is called with what a process gives: its number among the functions, the outputs, the value.
        """
        names: dict[str, Any] = {"clock": self.head.host.turns.clock, "look": self._look, "give": give}
        exec(_compiled(self._source(is_timed)), names)
        made: Callable[..., tuple[int, ...]] = names["make"](*self.functions)
        return made

    def _source(self, is_timed: bool) -> str:
        functions = [f"f{k}" for k in range(len(self.functions))]
        local = "".join(f", {name}={name}" for name in functions)
        exits = "".join(f", o{j}, p{j}" if exit.region else f", o{j}" for j, exit in enumerate(self.exits))
        counts = [f"c{n}" for n in range(1, len(self.regions))]
        is_numbered = any(exit.region for exit in self.exits)
        return "\n".join(
            [
                f"def make({', '.join(functions)}):",
                f"    def loop(it, start, seconds{exits}{local}):",
                f"        {' = '.join(counts)} = 0" if counts else "        pass",
                "        for i, v0 in enumerate(it, start):" if is_numbered else "        for v0 in it:",
                *[
                    f"            {'    ' * deep}{_timed(text, k) if is_timed else text}"
                    for deep, text, k in self.lines
                ],
                f"        return ({''.join(f'{count}, ' for count in counts)})",
                "    return loop",
            ]
        )

    def _look(self, k: int, answer: Any) -> None:
        node = self.owners[k].node
        if hasattr(type(answer), "__await__") and node.kind != "process":  # whose answers are looked at when given
            refuse_awaitables(node.kind, node.fn, [answer])


@cache
def _variable(n: int) -> str:
    """The name of a variable, one object for all loops."""
    return f"v{n}"


def _timed(text: str, k: int | None) -> str:
    if k is None:
        return text
    return f"t = clock(); {text}; seconds[{k}] += clock() - t; look({k}, {text.partition(' ')[0]})"


@lru_cache(maxsize=256)
def _compiled(source: str) -> CodeType:
    return compile(source, _FILE, "exec")


_FILE = os.path.join(os.path.dirname(__file__), "a generated loop")  # within the package: cut off tracebacks like it


def _function_of(runner: Runner) -> Any:
    """What a loop calls for a node."""
    match runner.node.kind:
        case "collect":
            return runner.kept.append
        case "process":
            assert isinstance(runner.work, Gives)
            return runner.work.give
    return runner.node.fn


def is_plain(reader: Any) -> bool:
    """Whether a node can be part of a loop: it calls a plain function, and nothing is the matter with it."""
    return reader.may_loop and _is_well(reader)


def is_gatherer(reader: Any) -> bool:
    """Whether a loop can take in a process: it reads one link, and has given little of late, or nothing yet."""
    return (
        reader.may_gather
        and len(reader.inputs) == 1
        and reader.context.wanted is None
        and reader.pull is None
        and not reader.is_fresh
        and reader.sent * GATHERED <= reader.received
        and _is_well(reader)
    )


def _is_takeable(runner: Runner) -> bool:
    """Whether a node that was left out of a loop may be taken in by the next."""
    return runner.received > 0 and (is_gatherer(runner) if runner.may_gather else is_plain(runner))


def _is_well(reader: Any) -> bool:
    """Whether nothing is the matter with a node."""
    return (
        not (reader.is_over or reader.is_paused or reader.wants_finish or reader.is_switching or reader.attempts)
        and reader.trouble is None
        and reader.switching is None
        and reader.alignment is None
        and not reader.taps
        and (reader.node.kind != "route" or len(reader.outputs) <= MOST_BRANCHES)
    )


class Past(NamedTuple):
    """What is to be known of the loop that a head had last."""

    is_worth: bool
    values: int
    taken: Taken


class Loop:
    """The loop that begins at one node, and may be run instead of the node's own slice."""

    def __init__(self, head: Runner, most: int, last: Past | None) -> None:
        self._text = text = Text(head)
        self._taken: Taken = {} if last is None else last.taken
        self._head = head
        self.is_retired = False
        self.is_blocked = False  # the head waits for room
        self.busy_s = 0.0
        self.values = 0  # that it has taken up, before this run
        self.is_worth = len(text.owners) > 1 or any(type(fn) is FunctionType for fn in text.functions)
        self.again = LOOP_AGAIN_ITEMS  # values after which one that is not worth while had better be made again
        leaving = {id(exit.writer): exit.writer for exit in text.exits}
        self.cut = min([most, *(writer.cut for writer in leaving.values())])
        if head.is_source:
            self.cut = min(self.cut, head.cut)  # where something fails, the rest of what it has made goes into links
        self._gatherers = [(stage.runner, stage.link) for stage in text.gatherers.values()]
        self._writers = [*leaving.values(), *(runner for runner, _ in self._gatherers)]
        self._given = 0  # times that processes have given something
        members = list({id(visit.runner): visit.runner for visit in text.visits}.values())
        self.size = max(1, len(members))
        self._waiting = [runner.waiting for runner in members if runner is not head]
        for runner in members:
            if runner is not head:
                for link in runner.inputs:
                    link.relieve()  # what is inside goes through none from now on
                    if link.writer is head and head.is_source:
                        runner.unlooped = 0  # which makes a loop of its own where much comes by the link in spite of it
        self._mets = {runner.key: runner.met for runner in members if runner.met is not None}
        self._counts = [0] * len(text.regions)
        self._seconds = [0.0] * len(text.functions)
        self._slices = 0
        self._judged = 0  # values since the last time it was looked at whether the loop is worth while
        self._judged_s = 0.0
        self._patience = PATIENCE + self.size
        self._chunk: Chunk | None = None
        self._it: Any = None
        self._last: int | None = None  # place of the last value to be taken up, where it is not the chunk's
        self._known_to = list({id(runner): runner for runner in (head, *members, *text.short_of)}.values())
        for runner in self._known_to:
            runner.loops = (*(runner.loops or ()), self)
        for runner in text.short_of:
            runner.is_first = not any(runner is other for other in text.hopeful)
        self._plain: Callable[..., tuple[int, ...]] | None = None
        self._timed: Callable[..., tuple[int, ...]] | None = None
        self._codes: tuple[CodeType, ...] = ()
        if not self.is_worth:
            text.lines.clear()  # they take more room than all the rest

    def standing(self) -> Literal["ready", "full", "filled", "stuck"]:
        """Whether it may run: not where there is no room where values leave it, or something is in a link inside it.

        What is inside comes through as the nodes take their turns, so it is worth to let them go first, for a while.
        """
        for writer in self._writers:
            if writer.full_links:
                self.is_blocked = True
                return "full"
        if not (any(self._waiting) or (self._gatherers and self._is_pulling())):
            return "ready" if self._plain is not None or self._is_made() else "stuck"
        self._patience -= 1
        if self._patience > 0:
            return "filled"
        self._patience = PATIENCE + self.size
        return "stuck"

    @property
    def may_go_on(self) -> bool:
        """Whether it may run once more, now that it has."""
        return self.is_worth and not self.is_retired and self.standing() == "ready"

    @property
    def is_pending(self) -> bool:
        """Whether it waits for what is to show how long the nodes take, or for another that will."""
        return self._plain is None and (self.is_worth or self.again < FEW_ITEMS)

    def _is_made(self) -> bool:
        """Make it, now that what has come in has come through: each node has shown how long a value takes."""
        text, head = self._text, self._head
        seconds_each = sum(map(self._seconds_each, text.owners.values()))
        if not all(is_gatherer(runner) for runner, _ in self._gatherers) or any(map(_is_takeable, text.hopeful)):
            self.is_worth, self.again = False, -1  # another one is
        elif text.hopeful and head.received + head.sent < FEW_ITEMS:
            self.is_worth, self.again = False, SOON_ITEMS  # there may be more to take in by then
        elif seconds_each < SLICE_S:
            fits = SLICE_S / (2 * seconds_each) if seconds_each else head.slice
            head.slice = max(1, int(min(head.slice / 4, fits)))  # it was learned of fewer nodes
            self._plain, self._timed = text.made(self._give, is_timed=False), text.made(self._give, is_timed=True)
            self._codes = (self._plain.__code__, self._timed.__code__)
        else:
            self.is_worth = False
            self._taken = {runner.key: (runner.busy_s, runner.received) for runner in text.owners.values()}
            if head.received + head.sent < FEW_ITEMS:
                self.again = FEW_ITEMS  # the first calls of all take longer
        text.lines.clear()  # they take more room than all the rest
        return self.is_worth

    def _seconds_each(self, runner: Runner) -> float:
        """What a value has taken at a node since the last loop was judged, less what the first of all take longer."""
        busy_s, received = self._taken.get(runner.key, (0.0, 0))
        seconds = (runner.busy_s - busy_s) / max(1, runner.received - received)
        return max(0.0, seconds - COLD_S * min(1, FEW_ITEMS / max(1, runner.received)))

    def _is_pulling(self) -> bool:
        """Whether a process inside has still to send what it gave last."""
        return any(runner.pull is not None for runner, _ in self._gatherers)

    def has_room(self) -> None:
        """There may be room where values leave it."""
        if self.is_blocked:
            self.is_blocked = False
            self._head.wake()

    # -- running

    def run(self, link: Link | None, chunk: Chunk) -> None:
        """Have everything done with a chunk that the head has taken from `link`, or has made, where that is None."""
        outs: list[list[Any]] = []
        for exit in self._text.exits:
            outs += ([], []) if exit.region else ([],)
        self._chunk, self._it, self._last = chunk, iter(chunk.values), None
        self._slices += 1
        self._patience = PATIENCE + self.size
        for runner, inside in self._gatherers:
            runner.link_in_hand = inside
        adds: list[Callable[[Any], None]] = [out.append for out in outs] if outs else []
        start, error = chunk.start, None
        assert self._plain is not None
        assert self._timed is not None
        try:
            if self._slices % TIMED_EVERY == 1:
                self._count(self._timed(islice(self._it, TIMED_VALUES), start, self._seconds, *adds))
                start += self._place(chunk) + 1
            self._count(self._plain(self._it, start, self._seconds, *adds))
        except (Exception, asyncio.CancelledError) as exc:
            error = exc
        if outs:
            self._send(chunk, outs)
        if error is not None:
            self._failed(link, chunk, error)
        else:
            done = len(chunk.values) if self._last is None else self._last + 1
            self.values += done
            self._counts[0] += done
            for met in self._mets.values():
                met.note(chunk, done)
            if self._last is not None:
                self._return_rest(link, chunk, done)
        for runner, _ in self._gatherers:
            runner.forget_gathered()
        self._chunk = self._it = None
        if self.is_retired:  # by what it has sent
            self.settle()

    def _send(self, chunk: Chunk, outs: list[list[Any]]) -> None:
        left = iter(outs)
        for exit in self._text.exits:
            out = next(left)
            places = next(left) if exit.region else None
            if out:
                exit.writer.put_into(exit.links, out, Record(chunk.record, exit.hops, chunk.start, places))

    def _give(self, k: int, outputs: Any, value: Any) -> None:
        """Have a process send what it has given for a value."""
        stage, chunk = self._text.gatherers[k], self._chunk
        assert chunk is not None
        place = self._place(chunk)
        stage.runner.give(Chunk([value], self._record(chunk, place, stage.path)), outputs)
        self._given += 1
        if self._given > GATHERED and self._given * GATHERED > self.values + place:
            stage.runner.may_gather = False
            self.retire()
        elif stage.runner.full_links or stage.runner.pull is not None:
            self._take_up_no_more(chunk)

    def leave(self, runner: Runner) -> None:
        """A process has asked for something: run no more, if it is inside."""
        if any(runner is other for other, _ in self._gatherers):
            self.retire()

    def _return_rest(self, link: Link | None, chunk: Chunk, start: int) -> None:
        """What was not taken up goes back to where it came from; what the head has made, to those who read it."""
        if start == len(chunk.values):
            return
        if link is None:
            self._head.put(chunk.values[start:], Record(chunk.record, self._head.hops, chunk.start + start))
        else:
            self._head.put_back(link, only(chunk, start, len(chunk)))

    def _count(self, counts: Sequence[int]) -> None:
        for n, count in enumerate(counts, 1):
            self._counts[n] += count

    # -- counting

    def settle(self) -> None:
        """Add what has been counted to the nodes."""
        counts, busy_s = self._counts, self.busy_s
        self._counts, self.busy_s = [0] * len(counts), 0.0
        for visit in self._text.visits:
            _add(visit.runner, counts[visit.region], counts[visit.sends])
        timed_s = sum(self._seconds)
        for k, runner in self._text.owners.items():
            runner.busy_s += busy_s * (self._seconds[k] / timed_s if timed_s else 1 / len(self._text.owners))
        if not self._text.owners:
            self._head.busy_s += busy_s

    def note(self, seconds: float, values: int) -> None:
        """A run has taken so long."""
        self.busy_s += seconds
        self._judged_s += seconds
        self._judged += values
        if self._slices == 1 and seconds > values * FIRST_S:
            self.is_worth = False
        elif self._slices % JUDGED_EVERY == 0:
            self.is_worth = self._judged_s < self._judged * SLICE_S
            self._judged, self._judged_s = 0, 0.0
            self._look_at_hopeful()
        if self.is_retired:  # in this run
            self.settle()

    def _look_at_hopeful(self) -> None:
        """Where nodes were left out that need be no longer, give way to a loop with them."""
        if any(map(_is_takeable, self._text.hopeful)):
            self.is_worth, self.again = False, -1
            self.retire()

    @property
    def slowest(self) -> Key:
        """The node that has taken the longest, of what was timed."""
        owners = self._text.owners
        return owners[max(owners, key=self._seconds.__getitem__)].key if owners else self._head.key

    def retire(self) -> None:
        """Run no more."""
        if not self.is_retired:
            self.is_retired = True
            if self._chunk is not None:
                self._take_up_no_more(self._chunk)
            self.settle()
            self.has_room()
            if self._head.loop is self:
                self._head.loop, self._head.last_loop = None, Past(self.is_worth, self.values, self._taken)
            for runner in self._known_to:  # else it would keep nodes alive that are gone
                runner.loops = tuple(loop for loop in runner.loops or () if loop is not self) or None

    def _take_up_no_more(self, chunk: Chunk) -> None:
        """Have the run end with the value in hand."""
        self._last = self._place(chunk)
        deque(self._it, maxlen=0)

    # -- what user code has in hand

    def item(self) -> Item | None:
        """The item that user code is called with."""
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and not self._is_mine(frame):
            frame = frame.f_back
        chunk = self._chunk
        if frame is None or chunk is None:
            return None
        stage = self._text.stages.get(frame.f_lineno - FIRST_LINE)
        return None if stage is None else self._item(stage, chunk, self._place(chunk), frame.f_locals[stage.value])

    def _is_mine(self, frame: FrameType) -> bool:
        return frame.f_code in self._codes

    def _place(self, chunk: Chunk) -> int:
        """Which value of the chunk it is."""
        if self._last is not None:
            return self._last
        return len(chunk.values) - int(self._it.__length_hint__()) - 1

    def _item(self, stage: Stage, chunk: Chunk, place: int, value: Any) -> Item:
        if stage.link is None:
            return chunk.item(place)
        return Item(value, Trail(self._record(chunk, place, stage.path), 0))

    def _record(self, chunk: Chunk, place: int, path: Way | None) -> Record:
        return Record(chunk.record, () if path is None else path.hops(), chunk.start + place)

    # -- failing

    def _failed(self, link: Link | None, chunk: Chunk, error: BaseException) -> None:
        """User code raised: what is not done goes into the links, and the node does what its policy says."""
        frame, line = self._where(error.__traceback__)
        stage, place = self._text.stages[line], self._place(chunk)
        self.values += place
        found = frame.f_locals
        self._count_failed(stage, line, place, found)
        done = {visit.runner.key for visit in self._text.visits if not self._is_left_out(visit, stage, line)}
        for key, met in self._mets.items():  # none of them under a condition
            met.note(chunk, place + (key in done))
        value = found[stage.value]
        item = self._item(stage, chunk, place, value)
        self.retire()
        for pending, variable, name in stage.pending.each() if stage.pending is not None else ():
            if name is None or pending.name == found[name]:
                self._put(pending, chunk, place, found[variable], stage.path)
        failed = link
        if stage.link is not None:
            failed = stage.link
            self._put(failed, chunk, place, value, stage.path)
            place += 1
        self._return_rest(link, chunk, place)
        stage.runner.fail(stage.runner.call_name, item, error, link=failed)

    def _where(self, traceback: TracebackType | None) -> tuple[FrameType, int]:
        while traceback is not None and not self._is_mine(traceback.tb_frame):
            traceback = traceback.tb_next
        assert traceback is not None
        return traceback.tb_frame, traceback.tb_lineno - FIRST_LINE

    def _count_failed(self, stage: Stage, line: int, place: int, found: dict[str, Any]) -> None:
        """Count what was done before `stage` failed on a value."""
        so_far = [place + 1, *(found[f"c{n}"] for n in range(1, len(self._text.regions)))]
        for visit in self._text.visits:
            received = so_far[visit.region] - self._is_left_out(visit, stage, line)
            _add(visit.runner, received, received if visit.sends == visit.region else so_far[visit.sends])

    def _is_left_out(self, visit: Visit, stage: Stage, line: int) -> bool:
        """Whether a place was not come to with the value that failed, or is where it failed."""
        first, stop = self._text.regions[visit.region]
        is_stage = visit.runner is stage.runner and self._text.stages.get(visit.line) is stage
        return first <= line < stop and (visit.line > line or is_stage)

    def _put(self, link: Link, chunk: Chunk, place: int, value: Any, path: Way | None) -> None:
        while path is not None and path.last is not link.writer:
            path = path.before
        link.push(Chunk([value], self._record(chunk, place, path)))


def _add(runner: Runner, received: int, sent: int) -> None:
    runner.received += received
    if not (runner.node.is_sink or runner.node.kind == "process"):
        runner.sent += sent
