"""Nodes: frozen descriptions of what to do with values, and the keys to read them from.

    constructor                          a value in gives
    source(produce)                      what `produce` gives; reads nothing
    map(fn, *keys)                       fn(value)
    map_chunk(fn, *keys)                 its place in fn([value, ...]), called with what has come together
    filter(fn, *keys)                    the value, where fn(value) is true
    flat_map(fn, *keys)                  each of fn(value)
    stateful(step, initial, *keys)       step(state, value) -> (state, outputs)
    merge(*keys)                         the value itself
    route(choose, *keys)                 the value, on the output that choose(value) names
    process(make, *keys)                 what the Process from make() gives
    sink(fn, *keys), collect(*keys)      nothing; fn(value) is called for its effect, or the values are kept

A node is a value: nothing runs when it is made, and two nodes are equal when they describe the same thing.
"""

from __future__ import annotations

import copy
import functools
import inspect
import math
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, TypeVar, get_args

import attrs

from hotplumb._supervision import Policy, check_policy
from hotplumb.errors import UsageError, said_by
from hotplumb.keys import Key, freeze, same

if TYPE_CHECKING:
    from hotplumb.compose import Pipeline

Kind = Literal[
    "source",
    "map",
    "map_chunk",
    "filter",
    "flat_map",
    "stateful",
    "merge",
    "route",
    "process",
    "sink",
    "collect",
    "errors",  # an error stream, which topologies make by themselves
]

State = Literal["carry", "fresh", "flush"] | Callable[[Any], Any]

F = TypeVar("F", bound=Callable[..., Any])

Overflow = Literal["wait", "drop_oldest", "drop_newest", "latest"]

CAPACITY_ITEMS = 1024  # four full chunks: enough that writer and reader need not wait for each other by turns


class Context(Protocol):
    """What a node's own code may know of its place in the graph, and ask of it.

    A `Process` gets it in `begin`; the function of a source gets it where it has a required positional parameter.
    """

    key: Key
    reads: Iterable[Key]
    """The keys to take values from next, by default all.  A link left out fills up and makes its writer wait; once
    every link named here has ended, the rest is read again.  Where two come from one node, a link left out stops
    that node, and with it the other link: leave none out for longer than `capacity` items."""

    @property
    def shared(self) -> Any:
        """One object for all nodes of a run: what the plumbing was given as `shared`, else a new dict."""

    @property
    def readers(self) -> frozenset[Key]:
        """The keys of the nodes that read this one, now."""

    @property
    def sinks(self) -> frozenset[Key]:
        """The sinks that want what this node gives, now."""

    @property
    def source(self) -> Key | None:
        """The key that the value in hand came from, as given to the node; None where there is none in hand."""

    def wake_at(self, time: float) -> None:
        """Have `wake(now)` called at `time` on the loop's clock, or as soon after as the node is free."""

    def finish(self) -> None:
        """End this node after the value in hand: its incoming links close, and what only it wanted stops."""

    def derive_from(self, *items: Any) -> None:
        """Say that further outputs of this call derive from `items` (of `current_item()`) too: `trail.members`."""


class Piece:
    """What `|` joins to pipelines; how it does so is the work of `compose`, which is built on this module."""

    __slots__ = ()

    _join: ClassVar[Callable[[object, object], Pipeline]]

    def __or__(self, below: object) -> Pipeline:
        return Piece._join(self, below)

    def __ror__(self, above: object) -> Pipeline:
        return Piece._join(above, self)


class Process(Protocol):
    """What a node does to values, as an object; only `process` is required.

    `process`, `end` and `wake` may be plain or async functions or generators.  A list, tuple or iterator that they
    return is several outputs; any other value is one; None is none.  What they yield is an output each, None is none.

    Beside it an object may have, each plain or async:

        begin(context)     called first, before any value; what it raises stops the start
        snapshot()         its state, when another process takes its place
        restore(state)     called after begin, with what the one before gave as its snapshot
        end()              all links have ended; may give last outputs
        wake(now)          a time given to context.wake_at() has come
        close()            called once, last, whatever happened

    An object whose class is derived from this one can be joined by `|` as it is: each start of the node takes a new
    deep copy of it, so it changes nothing itself.  Two such nodes are the same where it is one object, or where the
    class has an `==` that says so.

    >>> import hotplumb as hp
    >>> class Scale(hp.Process):
    ...     def __init__(self, factor):
    ...         self.factor = factor
    ...     def process(self, value):
    ...         return value * self.factor
    >>> hp.run(hp.source([1, 2]) | Scale(3) | hp.collect())
    {'collect': [3, 6]}
    """

    def process(self, value: Any) -> Any:
        """Give the outputs for one value."""

    def named(self, key: object) -> Node:
        """The node that runs copies of this process, with a name of its own."""
        return process(self).named(key)

    def __or__(self, below: object) -> Pipeline:
        return Piece._join(self, below)

    def __ror__(self, above: object) -> Pipeline:
        return Piece._join(above, self)


class Processing(Protocol):
    """An object with the one method that a process must have."""

    def process(self, value: Any) -> Any:
        """Give the outputs for one value."""


def is_process(value: object) -> bool:
    """Whether it is an object that has a method `process`, and no class."""
    return not isinstance(value, type) and callable(getattr(value, "process", None))


@attrs.frozen(eq=False)
class Node(Piece):
    """A frozen description of one node; made by the constructors of this module, not by hand."""

    kind: Kind
    fn: Any
    reads: tuple[Key, ...]
    """The frozen keys it reads: a set, in the order given."""
    initial: Any = None
    concurrency: int = 1
    capacity: int = CAPACITY_ITEMS
    name: Key = None
    on_error: Policy | None = None
    """What to do when its user code raises; None: as the plumbing says."""
    timeout_s: float | None = None
    """How long one call may take."""
    when_full: Overflow = "wait"
    """What a link into this node does when it is full."""
    state: State = "carry"
    """What becomes of the state when another process takes its place."""

    def named(self, key: object) -> Node:
        """The same node with a name of its own, for where nodes are composed without giving keys."""
        return attrs.evolve(self, name=freeze(key))

    def within(self, timeout_s: float) -> Node:
        """The same node, with calls of its async function given up after `timeout_s` seconds, as a `TimeoutError`.

        A call that goes on in spite of its cancellation is named in a warning after a second, and left behind after
        five.  With an async generator the time counts for all that one value gives, which is gathered before it leaves.
        """
        if not self._calls_async():
            raise UsageError(f"within({timeout_s!r}): {self.kind} calls a plain function, which cannot be given up")
        if not isinstance(timeout_s, int | float) or not 0 < timeout_s < math.inf:
            raise UsageError(f"within({timeout_s!r}): give a number of seconds above 0")
        return attrs.evolve(self, timeout_s=float(timeout_s))

    def overflow(self, when_full: Overflow) -> Node:
        """The same node, with another way for a full link into it than to make its writer wait.

        `"drop_oldest"` and `"drop_newest"` forget items where there is no room, `"latest"` keeps only the newest item.
        Only the links into this node forget; what is forgotten is counted in its `dropped`.
        """
        if when_full not in get_args(Overflow):
            raise UsageError(
                f"overflow({when_full!r}): give one of {', '.join([repr(way) for way in get_args(Overflow)])}"
            )
        if self.kind == "source":
            raise UsageError(
                f"overflow({when_full!r}): a source has no link into it; call it on the node that reads it"
            )
        return attrs.evolve(self, when_full=when_full)

    def _calls_async(self) -> bool:
        return self.kind not in ("source", "merge", "collect") and (self.kind == "process" or self.is_async)

    @property
    def is_source(self) -> bool:
        """Whether items begin here."""
        return self.kind in ("source", "errors")

    @property
    def is_sink(self) -> bool:
        """Whether it is wanted for its own sake."""
        return self.kind in ("sink", "collect")

    @property
    def is_async(self) -> bool:
        """Whether calling its function gives something to await or to iterate with `async for`."""
        return is_async(self.fn)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Node):
            return NotImplemented
        return self is other or (
            self.kind == other.kind
            and frozenset(self.reads) == frozenset(other.reads)
            and self.concurrency == other.concurrency
            and self.capacity == other.capacity
            and self.name == other.name
            and self.on_error == other.on_error
            and self.timeout_s == other.timeout_s
            and self.when_full == other.when_full
            and same(self.state, other.state)
            and self.has_same_process(other)
        )

    def has_same_process(self, other: Node) -> bool:
        """Whether what it does to values is the same; only links and options may differ."""
        return self.kind == other.kind and same(self.fn, other.fn) and same(self.initial, other.initial)

    def __hash__(self) -> int:
        return hash((self.kind, frozenset(self.reads)))


def source(produce: Iterable[Any] | AsyncIterable[Any] | Callable[..., Any], *, on_error: Policy | None = None) -> Node:
    """Give the values of `produce`, in order.

    Args:
        produce: an iterable, an async iterable, or a function (plain, async, generator or async generator) that makes
            one when the node starts.  A function with a required positional parameter gets a `Context`.
        on_error: what to do when it raises while it produces.  A retry starts it again, at its beginning: an iterable
            is iterated anew, a function called anew.  `discard` asks the same iterator for its next value, and so ends
            a generator.  Attempts are counted anew after a start that gave more values than any before, and after two
            minutes without a failure.

    A plain iterable is asked in slices of at most a quarter of a millisecond, on the loop: one that blocks (a file on a
    slow disk, standard input) belongs in an async generator that awaits a thread.

    >>> import hotplumb as hp
    >>> hp.run(hp.Topology().add("n", hp.source(range(3))).add("out", hp.collect("n")))
    {'out': [0, 1, 2]}
    """
    if not (callable(produce) or isinstance(produce, Iterable | AsyncIterable) or hasattr(produce, "__getitem__")):
        raise UsageError(f"source({produce!r}): give an iterable, an async iterable or a function that makes one")
    return Node("source", produce, (), on_error=_policy("source", on_error))


def map(
    fn: Callable[[Any], Any],
    *keys: object,
    concurrency: int = 1,
    capacity: int = CAPACITY_ITEMS,
    on_error: Policy | None = None,
) -> Node:
    """Give `fn(value)` for each value.

    Args:
        fn: plain or async.
        keys: what to read.
        concurrency: for an async function, how many calls may be under way at once; outputs keep their order.
        capacity: how many items a link into this node holds before its writer waits.
        on_error: what to do when `fn` raises: `hp.stop()`, `hp.discard()`, `hp.retry(...)`, `hp.hold()`; by default as
            the plumbing says, which is to stop unless told otherwise.

    >>> import hotplumb as hp
    >>> hp.run(hp.Topology()
    ...     .add("n", hp.source([1, 2]))
    ...     .add("sq", hp.map(lambda n: n * n, "n"))
    ...     .add("out", hp.collect("sq")))
    {'out': [1, 4]}
    """
    return _node("map", fn, keys, concurrency, capacity, on_error)


def map_chunk(
    fn: Callable[[list[Any]], Iterable[Any] | Awaitable[Iterable[Any]]],
    *keys: object,
    capacity: int = CAPACITY_ITEMS,
    on_error: Policy | None = None,
) -> Node:
    """Give what `fn(values)` gives, called with a list of values that have come together: one output for each value.

    Args:
        fn: plain or async; for code that is fast on many values at once.  Gives as many outputs as it was given values,
            in their order: a list, an array, any iterable.  The list is `fn`'s own, to be changed as it likes.
        keys: what to read.
        capacity: how many items a link into this node holds before its writer waits, and so the most that one call is
            given; 256 at most, 1 makes each a call of its own.
        on_error: as for `map`.

    How many values come together is not for `fn` to rely on: of a busy stream it is 256, of a sparse one 1.  A plain
    `fn` is given all of them however long that takes, and the loop waits: make `capacity` less where a call takes
    milliseconds.  Each output has the trail of its own value.  In `fn`, `hp.current_item()` raises LookupError.

    Where a call with several values raises, which of them it was is not known.  So `fn` is called again, with one of
    them at a time, and the policy is for the value that raises alone; those behind it are then called together again.
    Effects of `fn` on the others may so be had twice.  Where none raises alone, nothing has failed, and a warning is
    logged.  A wrong number of outputs is a `UsageError` and no matter of a value: it counts as a failure of the first.

    >>> import hotplumb as hp
    >>> def to_celsius(values):
    ...     return [round((value - 32) / 1.8) for value in values]
    >>> hp.run(hp.Topology()
    ...     .add("f", hp.source([32, 68, 212]))
    ...     .add("c", hp.map_chunk(to_celsius, "f"))
    ...     .add("out", hp.collect("c")))
    {'out': [0, 20, 100]}
    """
    return _node("map_chunk", fn, keys, 1, capacity, on_error)


def filter(
    fn: Callable[[Any], Any],
    *keys: object,
    concurrency: int = 1,
    capacity: int = CAPACITY_ITEMS,
    on_error: Policy | None = None,
) -> Node:
    """Give each value for which `fn(value)` is true.  Options as for `map`.

    >>> import hotplumb as hp
    >>> hp.run(hp.Topology()
    ...     .add("n", hp.source(range(5)))
    ...     .add("odd", hp.filter(lambda n: n % 2, "n"))
    ...     .add("out", hp.collect("odd")))
    {'out': [1, 3]}
    """
    return _node("filter", fn, keys, concurrency, capacity, on_error)


def flat_map(
    fn: Callable[[Any], Any],
    *keys: object,
    concurrency: int = 1,
    capacity: int = CAPACITY_ITEMS,
    on_error: Policy | None = None,
) -> Node:
    """Give each element of `fn(value)`: an iterable, a generator or an async generator.  Options as for `map`.

    Generators are pulled as there is room, so an endless one is welcome (with `concurrency` above 1, each call is
    gathered whole before its outputs leave).

    >>> import hotplumb as hp
    >>> hp.run(hp.Topology()
    ...     .add("s", hp.source(["a b", "c"]))
    ...     .add("w", hp.flat_map(str.split, "s"))
    ...     .add("out", hp.collect("w")))
    {'out': ['a', 'b', 'c']}
    """
    return _node("flat_map", fn, keys, concurrency, capacity, on_error)


def stateful(
    step: Callable[[Any, Any], Any],
    initial: Any,
    *keys: object,
    capacity: int = CAPACITY_ITEMS,
    on_error: Policy | None = None,
    state: State = "carry",
) -> Node:
    """Call `step(state, value)`, which gives the next state and an iterable of outputs (None is none).

    Args:
        step: plain or async.
        initial: the first state: plain data, never changed in place by `step` (it is shared with every restart).
        keys: what to read.
        capacity: how many items a link into this node holds before its writer waits.
        state: what becomes of the state when a running node is replaced: `"carry"` hands it on where the new node has
            an equal `initial`, `"fresh"` begins with `initial`, a function makes the new state from the old one.

    >>> import hotplumb as hp
    >>> def total(so_far, n):
    ...     return so_far + n, [so_far + n]
    >>> hp.run(hp.Topology()
    ...     .add("n", hp.source([1, 2, 3]))
    ...     .add("sum", hp.stateful(total, 0, "n"))
    ...     .add("out", hp.collect("sum")))
    {'out': [1, 3, 6]}
    """
    node = _node("stateful", step, keys, 1, capacity, on_error)
    return attrs.evolve(node, initial=initial, state=_state("stateful", state))


def merge(*keys: object, capacity: int = CAPACITY_ITEMS) -> Node:
    """Give every value of all `keys` as it comes; the order within each is kept.

    >>> import hotplumb as hp
    >>> found = hp.run(hp.Topology()
    ...     .add("a", hp.source("ab"))
    ...     .add("b", hp.source("x"))
    ...     .add("both", hp.merge("a", "b"))
    ...     .add("out", hp.collect("both")))
    >>> sorted(found["out"])
    ['a', 'b', 'x']
    """
    return _node("merge", None, keys, 1, capacity)


def route(
    choose: Callable[[Any], Any],
    *keys: object,
    concurrency: int = 1,
    capacity: int = CAPACITY_ITEMS,
    on_error: Policy | None = None,
) -> Node:
    """Give each value on the output that `choose(value)` names; readers read `hp.output(key, name)`.

    A name that nobody reads goes nowhere, as a value does that a filter drops; who reads the node's own key reads all
    values.  Names are frozen like keys.  Options as for `map`.

    >>> import hotplumb as hp
    >>> topology = (hp.Topology()
    ...     .add("n", hp.source(range(4)))
    ...     .add("parity", hp.route(lambda n: "odd" if n % 2 else "even", "n"))
    ...     .add("out", hp.collect(hp.output("parity", "odd"))))
    >>> hp.run(topology)
    {'out': [1, 3]}
    """
    return _node("route", choose, keys, concurrency, capacity, on_error)


def process(
    make: Callable[[], Any] | Processing,
    *keys: object,
    capacity: int = CAPACITY_ITEMS,
    on_error: Policy | None = None,
    state: State = "carry",
) -> Node:
    """Give what the `Process` from `make()` gives; each start of the node makes a new one.

    Args:
        make: gives the process; or the process itself, of which each start takes a deep copy.
        keys: what to read.
        state: what becomes of the state when a running node is replaced: `"carry"` gives the old one's `snapshot()` to
            the new one's `restore(state)`, where both have the method; `"fresh"` does not; `"flush"` calls the old
            one's `end()` and sends what it gives; a function makes what is restored of the snapshot.

    >>> import hotplumb as hp
    >>> class Pairs:
    ...     def __init__(self):
    ...         self.last = None
    ...     def process(self, value):
    ...         pair, self.last = (self.last, value), value
    ...         yield pair
    >>> hp.run(hp.Topology()
    ...     .add("s", hp.source("abc"))
    ...     .add("pairs", hp.process(Pairs, "s"))
    ...     .add("out", hp.collect("pairs")))
    {'out': [(None, 'a'), ('a', 'b'), ('b', 'c')]}
    """
    if getattr(make, "process", None) is Process.process or getattr(type(make), "process", None) is Process.process:
        raise UsageError(f"process({make!r}): it has no method `process(value)` of its own")
    if is_process(make):
        make = _copies_of(make)
    return attrs.evolve(_node("process", make, keys, 1, capacity, on_error), state=_state("process", state))


def _copies_of(process: object) -> Callable[[], Any]:
    """A function that makes copies of `process`, and is the same as another where that is the same."""

    def make() -> Any:
        try:
            return copy.deepcopy(process)
        except Exception as exc:
            text = f"each start takes a deep copy of {process!r}, and that failed ({said_by(exc)})"
            raise UsageError(f"{text}: open things in begin(context), or give hp.process a function") from exc

    made = type(process)
    make.__module__, make.__qualname__, make.__name__ = made.__module__, made.__qualname__, made.__name__
    return make


def sink(
    fn: Callable[[Any], Any],
    *keys: object,
    concurrency: int = 1,
    capacity: int = CAPACITY_ITEMS,
    on_error: Policy | None = None,
) -> Node:
    """Call `fn(value)` for its effect.  A sink is wanted for its own sake: what it reads, runs.  Options as for `map`.

    >>> import hotplumb as hp
    >>> hp.run(hp.Topology().add("n", hp.source([1, 2])).add("show", hp.sink(print, "n")))
    1
    2
    {}
    """
    return _node("sink", fn, keys, concurrency, capacity, on_error)


def collect(*keys: object, capacity: int = CAPACITY_ITEMS) -> Node:
    """Keep every value in a list, which `hp.run` returns under this sink's key."""
    return _node("collect", None, keys, 1, capacity)


def _state(kind: str, state: State) -> State:
    if callable(state) or state in ("carry", "fresh", "flush"):
        return state
    raise UsageError(
        f'{kind}(..., state={state!r}): give "carry", "fresh", "flush" or a function from old to new state'
    )


def _policy(kind: str, on_error: Policy | None) -> Policy | None:
    return None if on_error is None else check_policy(f"{kind}(..., on_error=...)", on_error)


def _node(
    kind: Kind, fn: Any, keys: tuple[object, ...], concurrency: int, capacity: int, on_error: Policy | None = None
) -> Node:
    if fn is None:
        if kind not in ("merge", "collect"):
            raise UsageError(f"{kind}(None, ...): the first argument is the function")
    elif not callable(fn):
        raise UsageError(f"{kind}({fn!r}, ...): the first argument is the function, then come the keys to read")
    _check_count(kind, "capacity", capacity)
    _check_count(kind, "concurrency", concurrency)
    if concurrency > 1 and not is_async(fn):
        raise UsageError(
            f"{kind}({fn!r}, concurrency={concurrency}): only calls of an async function can be under way at once; "
            "make it `async def`, and await asyncio.to_thread(...) in it where it blocks"
        )
    frozen = tuple(dict.fromkeys([freeze(key) for key in keys]))
    return Node(kind, fn, frozen, None, concurrency, capacity, on_error=_policy(kind, on_error))


def _check_count(kind: str, name: str, value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UsageError(f"{kind}(..., {name}={value!r}): {name} is a whole number of at least 1")


def exclusive(opened: F) -> F:
    """Mark what cannot be open twice, a listening port or a lock file: a `Process` class, or the function of a source.

    When such a node is replaced while it runs, the new one begins after the old one has closed, and not before, as
    others do, where a failure would still reject the change: if it cannot begin, the node holds without a process, its
    upstream waits, and the change raises `HandoverError`.  `plumbing.retry(key)` tries again, and so does another
    `replace`.  A class is taken to open nothing before `begin`; its subclasses are exclusive too.

    >>> import hotplumb as hp
    >>> @hp.exclusive
    ... class Locked:
    ...     def begin(self, context):
    ...         self.lock = open("feed.lock", "x")
    ...     def process(self, value):
    ...         return value
    ...     def close(self):
    ...         self.lock.close()
    """
    try:
        setattr(opened, _EXCLUSIVE, True)
    except (AttributeError, TypeError):
        raise UsageError(f"exclusive({opened!r}): give a Process class, or a function written in Python") from None
    return opened


def is_exclusive(opened: object) -> bool:
    """Whether `opened`, or what it is a partial of, is marked as exclusive."""
    while isinstance(opened, functools.partial):
        opened = opened.func
    return getattr(opened, _EXCLUSIVE, False) is True


_EXCLUSIVE = "__hotplumb_exclusive__"


def is_async(fn: object) -> bool:
    """Whether calling `fn` gives a coroutine or an async generator, as far as its definition tells."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    if inspect.isroutine(fn) or inspect.isclass(fn):
        return _is_async_function(fn)
    return _is_async_function(getattr(type(fn), "__call__", None))  # noqa: B004  it is looked at, not tested for


def _is_async_function(fn: object) -> bool:
    return inspect.iscoroutinefunction(fn) or inspect.isasyncgenfunction(fn)
