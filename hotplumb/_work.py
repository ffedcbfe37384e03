"""Work: what each kind of node with plain functions does to a slice of a chunk.

A work iterates in C where it can, and is the `Hand` of the user code under it: how many answers there are tells which
value user code is called with, so nothing is written down per value.  When user code raises, `done` values are finished
and `outcome()` is what they gave.
"""

from __future__ import annotations

import inspect
import reprlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set, Sized
from functools import partial
from itertools import compress, islice, repeat
from operator import truth
from types import CellType, CodeType, GeneratorType
from typing import Any, NamedTuple, Protocol

from hotplumb._log import log
from hotplumb.errors import UsageError, said_by
from hotplumb.items import Chunk, Item, Members
from hotplumb.keys import Key, canonical, freeze


class Outcome(NamedTuple):
    """What the finished values of a chunk gave."""

    values: list[Any]
    places: Sequence[int] | None = None  # the place in the chunk's record each came from; None: one for one
    names: list[Key] | None = None  # the output each goes to; None: all to all
    members: dict[int, Members] | None = None  # {number of an output: what it gathers}


NOTHING = Outcome([])
_NO_ANSWERS: list[Any] = []


class Work(Protocol):
    """How one kind of node works; one for each runner, used for one slice at a time."""

    rest: Iterator[Any] | None
    """Outputs of value `done` that did not fit into the slice."""
    is_interrupted: bool
    """Whether to stop after the value in hand."""

    @property
    def done(self) -> int:
        """How many values are finished."""

    def item(self) -> Item | None:
        """The item that user code is called with."""

    def run(self, chunk: Chunk, most: int) -> None:
        """Work until the chunk is finished, `most` outputs are there, or user code raises."""

    def outcome(self) -> Outcome:
        """What the finished values gave, and what there is of the value that has a rest."""


class Calls:
    """`map`, `filter`, `route` and `sink`: one call, one answer a value."""

    __slots__ = ("_answers", "_chunk", "_fn", "_kind", "is_interrupted", "rest")

    def __init__(self, kind: str, fn: Callable[[Any], Any]) -> None:
        self._kind = kind
        self._fn = fn
        self._answers = _NO_ANSWERS
        self._chunk: Chunk | None = None
        self.rest: Iterator[Any] | None = None
        self.is_interrupted = False

    @property
    def done(self) -> int:
        return len(self._answers)

    def item(self) -> Item | None:
        chunk, done = self._chunk, len(self._answers)
        return chunk.item(done) if chunk is not None and done < len(chunk) else None

    def run(self, chunk: Chunk, most: int) -> None:
        self._chunk = chunk
        answers = self._answers = []
        values = chunk.values
        match self._kind:
            case "filter":
                self._run_filter(values)
            case "route":
                answers.extend(map(name_of, map(self._fn, values)))
            case _:
                answers.extend(map(self._fn, values))
        if len(answers) < len(values):
            raise StopIteration  # which ends a `map` without an exception
        self._look_at(answers)

    def _look_at(self, answers: list[Any]) -> None:
        # Only the outer answers of a map: looking at each would cost as much as the call.
        if self._kind == "sink":
            if answers.count(None) < len(answers):
                self._refuse(answers)
        elif hasattr(type(answers[0]), "__await__") or hasattr(type(answers[-1]), "__await__"):
            self._refuse((answers[0], answers[-1]))

    def _run_filter(self, values: list[Any]) -> None:
        answers, rest = self._answers, iter(values)
        first = self._fn(next(rest))
        self._refuse((first,))
        answers.append(truth(first))
        answers.extend(map(truth, map(self._fn, rest)))

    def _refuse(self, answers: Iterable[Any]) -> None:
        """Raise where an answer is to be awaited."""
        if any(hasattr(kind, "__await__") for kind in set(map(type, answers))):
            given = self._answers or list(answers)
            first = next(i for i, answer in enumerate(given) if hasattr(type(answer), "__await__"))
            self._answers = given[:first]
            refuse_awaitables(self._kind, self._fn, given)

    def outcome(self) -> Outcome:
        answers, chunk = self._answers, self._chunk
        self._answers, self._chunk = _NO_ANSWERS, None  # so that the last slice is not kept alive
        assert chunk is not None
        if self._kind == "map":
            return Outcome(answers)
        if self._kind == "filter":
            return _passed(chunk, answers)
        if self._kind == "route":
            return Outcome(chunk.values[: len(answers)], None, answers)
        return NOTHING


def _passed(chunk: Chunk, answers: list[Any]) -> Outcome:
    passed = list(compress(chunk.values, answers))
    if len(passed) == len(answers):
        return Outcome(passed)
    return Outcome(passed, list(compress(range(chunk.start, chunk.start + len(answers)), answers)))


def name_of(answer: Any) -> Key:
    """The name of a routed output, as readers read it."""
    if type(answer) is str:
        return answer
    if hasattr(type(answer), "__await__"):
        refuse_awaitables("route", "its function", [answer])
    return freeze(answer)


def refuse_awaitables(kind: str, fn: Any, answers: Iterable[Any]) -> None:
    """Raise: a plain function gave what is to be awaited."""
    awaitable = [answer for answer in answers if hasattr(type(answer), "__await__")]
    for answer in awaitable:
        if hasattr(answer, "close"):
            answer.close()  # or Python warns of a coroutine that was never awaited
    raise UsageError(
        f"{kind} calls {fn!r} as a plain function, but it gave a {type(awaitable[0]).__name__}: make it `async def`"
    )


class CallsWhole:
    """`map_chunk`: one call with all values; where that raises, one with each, to see which of them it is."""

    __slots__ = ("_answers", "_fn", "_has_warned", "_key", "is_interrupted", "rest")

    def __init__(self, key: Key, fn: Callable[[list[Any]], Any]) -> None:
        self._key = key
        self._fn = fn
        self._answers = _NO_ANSWERS
        self._has_warned = False
        self.rest: Iterator[Any] | None = None
        self.is_interrupted = False

    @property
    def done(self) -> int:
        return len(self._answers)

    def item(self) -> Item | None:
        raise LookupError("the function of a map_chunk has many items in hand: hp.current_item() works in an hp.map")

    def run(self, chunk: Chunk, most: int) -> None:
        self._answers = []
        raised = self._called(chunk.values)
        if raised is None:
            return
        if not is_of_one(raised, chunk.values):
            raise raised
        for value in chunk.values:
            if (alone := self._called([value])) is not None:
                raise alone
        self.warn(raised)

    def _called(self, values: list[Any]) -> Exception | None:
        """Add what one call gives to the answers; or gives what it raised, outside of any other's handling."""
        try:
            self._answers.extend(self.outputs(self._fn(list(values)), len(values)))
        except Exception as exc:
            return exc
        return None

    def outputs(self, answer: Any, count: int) -> list[Any]:
        """What an answer gives for so many values, which is as many outputs."""
        if hasattr(type(answer), "__await__"):
            refuse_awaitables("map_chunk", self._fn, [answer])
        found = list(islice(_in_order(self._fn, answer), count + 1))
        if len(found) == count:
            return found
        given: object = len(found) if len(found) < count else f"more than {count}"
        if isinstance(answer, Sized):
            given = len(answer)
        text = f"map_chunk: {self._fn!r} gave {given} outputs for {count} values"
        raise UsageError(f"{text}: give one for each, in order")

    def warn(self, raised: Exception) -> None:
        """Say once that a call raised, and none with any of its values alone."""
        if not self._has_warned:
            self._has_warned = True
            said = "a map_chunk raised on several values together, and on none of them alone"
            log().warning(said, key=canonical(self._key), error=said_by(raised))

    def outcome(self) -> Outcome:
        answers, self._answers = self._answers, _NO_ANSWERS
        return Outcome(answers)


def is_of_one(raised: Exception, values: list[Any]) -> bool:
    """Whether a call with several values may have failed on one of them; what is wrong in itself fails on all."""
    return len(values) > 1 and not isinstance(raised, UsageError)


def _in_order(fn: Any, answer: Any) -> Iterator[Any]:
    """The outputs in an answer of a `map_chunk`."""
    if not isinstance(answer, str | bytes | Mapping | Set):
        try:
            return iter(answer)
        except TypeError:
            pass
    given = reprlib.repr(answer)
    raise UsageError(f"map_chunk: {fn!r} gave {given}, which is no sequence of outputs: give a list or an array")


class Passes:
    """`merge`: the values themselves."""

    __slots__ = ("_chunk", "is_interrupted", "rest")

    def __init__(self) -> None:
        self._chunk: Chunk | None = None
        self.rest: Iterator[Any] | None = None
        self.is_interrupted = False

    @property
    def done(self) -> int:
        return 0 if self._chunk is None else len(self._chunk.values)

    def item(self) -> Item | None:
        return None

    def run(self, chunk: Chunk, most: int) -> None:
        self._chunk = chunk

    def outcome(self) -> Outcome:
        assert self._chunk is not None
        return Outcome(self._chunk.values)


class Keeps:
    """`collect`: the values go into a list."""

    __slots__ = ("_done", "is_interrupted", "kept", "rest")

    def __init__(self) -> None:
        self.kept: list[Any] = []
        self._done = 0
        self.rest: Iterator[Any] | None = None
        self.is_interrupted = False

    @property
    def done(self) -> int:
        return self._done

    def item(self) -> Item | None:
        return None

    def run(self, chunk: Chunk, most: int) -> None:
        self.kept.extend(chunk.values)
        self._done = len(chunk.values)

    def outcome(self) -> Outcome:
        return NOTHING


class Filling:
    """The outputs of one slice while they are being made: `out`, where each came from, and what it gathers beside."""

    __slots__ = ("index", "marks", "out")

    def __init__(self) -> None:
        self.out: list[Any] = []
        self.index: list[int] = []
        self.marks: dict[int, Members | None] = {}  # {number of an output: what it and those after it gather}

    def renew(self) -> None:
        """Begin new lists, the old ones have been sent.  What a call under way gathers goes on."""
        last = next(reversed(self.marks.values()), None)
        self.out = []
        self.index = []
        self.marks = {} if last is None else {0: last}

    def gather(self, members: Members) -> None:
        """Outputs from here to the end of the call gather `members`."""
        self.marks[len(self.out)] = members

    def attribute(self, place: int) -> None:
        """What has come in since the last time came from `place`."""
        self.index.extend(repeat(place, len(self.out) - len(self.index)))

    def end_call(self, place: int) -> None:
        """What has come in since the last time came from `place`, and no more of it will."""
        self.attribute(place)
        if self.marks:
            self.marks[len(self.out)] = None

    def take(self, size: int) -> Outcome:
        """The first `size` outputs, which are here no longer."""
        members = self.members()
        taken = Outcome(self.out[:size], self.index[:size], None, members)
        del self.out[:size], self.index[:size]
        if self.marks:
            before = [mark for number, mark in self.marks.items() if number <= size]
            later = {number - size: mark for number, mark in self.marks.items() if number > size}
            self.marks = {0: before[-1], **later} if before and before[-1] is not None else later
        return taken

    def in_call(self, place: int) -> int:
        """How many outputs of the latest call there are, which came from `place`."""
        return sum(1 for other in self.index if other == place)

    def cut(self, size: int) -> None:
        """Take back what came after the first `size` outputs."""
        del self.out[size:], self.index[size:]
        self.marks = {number: members for number, members in self.marks.items() if number < size}

    def members(self) -> dict[int, Members] | None:
        """{number of an output: its members}, None where nothing was gathered."""
        if not self.marks:
            return None
        starts = [*self.marks, len(self.out)]
        spans = zip(self.marks.values(), starts, starts[1:], strict=False)
        return {i: members for members, start, stop in spans if members for i in range(start, stop)} or None


class Gives:
    """`flat_map`, `stateful` and `process`: any number of outputs a value."""

    __slots__ = ("_chunk", "_filling", "_finished", "give", "_read", "_skips_none", "done", "is_interrupted", "rest")

    def __init__(
        self,
        give: Callable[[Any], Any],
        filling: Filling,
        read: Callable[[Any], Iterable[Any]] | None = None,
        skips_none: bool = False,
        finished: Callable[[], None] | None = None,
    ) -> None:
        self.give = give
        self._read = read  # makes outputs of what is given and is not None
        self._finished = finished  # to be called when the outputs of a value have been taken
        self._skips_none = skips_none  # among the outputs of an iterator
        self._filling = filling
        self._chunk: Chunk | None = None
        self.done = 0
        self.rest: Iterator[Any] | None = None
        self.is_interrupted = False

    def item(self) -> Item | None:
        chunk = self._chunk
        return chunk.item(self.done) if chunk is not None and self.done < len(chunk) else None

    def run(self, chunk: Chunk, most: int) -> None:
        self._chunk = chunk
        self.done = 0
        self.is_interrupted = False
        give, filling, place = self.give, self._filling, chunk.start
        out = filling.out
        for value in chunk.values:
            before = len(out)
            try:
                outputs = give(value)
                if outputs is not None:
                    self._pull(outputs if self._read is None else self._read(outputs), out, most)
            except BaseException:
                filling.cut(before)
                raise
            if outputs is not None or filling.marks:
                if self.rest is not None:
                    filling.attribute(place)
                    return
                filling.end_call(place)
            if self._finished is not None:
                self._finished()
            self.done += 1
            place += 1
            if self.is_interrupted or len(out) >= most:
                return

    def take(self, chunk: Chunk, outputs: Any, most: int) -> None:
        """Take what a call with the one value of `chunk` has given already."""
        self._chunk, filling = chunk, self._filling
        before = len(filling.out)
        try:
            self._pull(outputs if self._read is None else self._read(outputs), filling.out, most)
        except BaseException:
            filling.cut(before)
            raise
        if self.rest is not None:
            filling.attribute(chunk.start)
        else:
            filling.end_call(chunk.start)

    def _pull(self, outputs: Iterable[Any], out: list[Any], most: int) -> None:
        if (type(outputs) is list or type(outputs) is tuple) and len(out) + len(outputs) <= most:
            out.extend(outputs)
            return
        rest = iter(outputs)
        if not pull_into(out, rest, most - len(out), self._skips_none):
            self.rest = rest

    def outcome(self) -> Outcome:
        filling = self._filling
        return Outcome(filling.out, filling.index, None, filling.members())


def pull_into(out: list[Any], outputs: Iterator[Any], most: int, skips_none: bool) -> bool:
    """Add at most `most` outputs to `out`; whether there are no more."""
    before = len(out)
    try:
        out.extend(islice(outputs, most))
    finally:
        has_ended = len(out) - before < most
        if skips_none and type(outputs) not in _OF_A_LIST and None in out:
            out[before:] = [output for output in out[before:] if output is not None]
    return has_ended


_OF_A_LIST: tuple[type, ...] = (
    type(iter([])),
    type(iter(())),
)  # what a process returned, not yielded: None is a value there


def outputs_of(result: Any) -> Any:
    """What a process returned, as outputs: a list, tuple or iterator is several, None is none, all else is one."""
    if result is None or type(result) is list or type(result) is tuple:
        return result
    if type(result) is GeneratorType or isinstance(result, Iterator):
        return result
    return (result,)


def read_of(kind: str, call: Callable[[Any], Any]) -> Callable[[Any], Iterable[Any]]:
    """What makes outputs of what `call` gave and checks it; None is no matter of its."""

    def read(result: Any) -> Any:
        if type(result) is not list:
            check_outputs(kind, call, result)
        return outputs_of(result) if kind == "process" else result

    return read


def check_outputs(kind: str, fn: Any, result: Any) -> None:
    """Raise where a result is to be awaited, or gives no outputs."""
    if result is None:
        return
    if hasattr(type(result), "__await__"):
        refuse_awaitables(kind, fn, [result])
    if hasattr(type(result), "__aiter__"):
        raise UsageError(f"{kind} calls {fn!r} as a plain function, but it gave {result!r}: make it an async generator")
    if kind != "process" and not isinstance(result, Iterable):
        raise UsageError(f"{kind}: {fn!r} gave {result!r}, which is no iterable of outputs: give [{result!r}], or None")


def step_of(kind: str, fn: Any, result: Any) -> tuple[Any, Any]:
    """The state and outputs that `step` of a `stateful` gave."""
    if hasattr(type(result), "__await__"):
        refuse_awaitables(kind, fn, [result])
    if type(result) is not tuple or len(result) != 2:
        raise UsageError(f"stateful: {fn!r} gave {result!r}: give a pair, (state, outputs)")
    state, outputs = result
    if outputs is not None:
        check_outputs(kind, fn, outputs)
    return state, outputs


def iterator_of(made: Any, produce: Any) -> Iterator[Any]:
    """The iterator of what a source's function made."""
    try:
        return iter(made)
    except TypeError:
        raise UsageError(f"source({produce!r}) gave {made!r}, which is no iterable of values") from None


def wants_context(produce: Callable[..., Any]) -> bool:
    """Whether a source's function has a required positional parameter."""
    try:
        parameters = inspect.signature(produce).parameters.values()
    except (TypeError, ValueError):  # some functions written in C have no signature
        return False
    return any(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) and p.default is p.empty for p in parameters)


_STARTERS = frozenset(
    {"create_task", "ensure_future", "start_soon", "TaskGroup", "gather", "copy_context"}
    | {"call_soon", "call_later", "call_at", "run_in_executor", "to_thread", "add_done_callback"}
)


def may_start_tasks(fn: Any, most: int = 200) -> bool:
    """Whether a plain function, or one that it calls by name, mentions what starts tasks.

    Such a function is given one value at a time: a task inherits the hand as it stands, so that hand must never move.
    """
    todo: list[Any] = [fn]
    seen: set[CodeType] = set()
    while todo and len(seen) < most:
        found = todo.pop()
        code, owner = _code_of(found)
        if code is None or code in seen:
            continue
        seen.add(code)
        if not _STARTERS.isdisjoint(code.co_names):
            return True
        todo.extend(_called_by(code, owner, found))
    return False


def _code_of(fn: Any) -> tuple[CodeType | None, Any]:
    """The code of a function and the object it is bound to."""
    while isinstance(fn, partial):
        fn = fn.func
    if isinstance(fn, CodeType):
        return fn, None
    if not inspect.isroutine(fn) and not inspect.isclass(fn):
        fn = getattr(fn, "__call__", None)  # noqa: B004  it is looked at, not tested for
    return getattr(fn, "__code__", None), getattr(fn, "__self__", None)


def _called_by(code: CodeType, owner: Any, fn: Any) -> Iterator[Any]:
    """Functions that `code` can call by a name it mentions: of its module, its closure, or as a method of an object."""
    while isinstance(fn, partial):
        fn = fn.func
    fn = getattr(fn, "__func__", fn)
    names = getattr(fn, "__globals__", {})
    cells = [cell.cell_contents for cell in getattr(fn, "__closure__", None) or () if not _is_empty(cell)]
    defaults = getattr(fn, "__defaults__", None) or ()
    found = [*(names[name] for name in code.co_names if name in names), *cells, *defaults]
    yield from (each for each in found if inspect.isroutine(each))
    for holder in (owner, *found):
        for name in code.co_names if holder is not None else ():
            method = getattr(holder if inspect.isclass(holder) else type(holder), name, None)
            if inspect.isfunction(method):
                yield method
    yield from (const for const in code.co_consts if isinstance(const, CodeType))


def _is_empty(cell: CellType) -> bool:
    try:
        return cell.cell_contents is cell  # never so: only whether it has contents
    except ValueError:
        return True
