"""Compose: pipelines written as `a | b | [c, d | e] | f`.

    a | b                   b reads a
    a | [b, c | d]          broadcast(b, c | d): a list's branches all read a
    [b, c] | d              d reads what the branches give, in no order between them
    a | [b, c, chooser]     route(chooser, b, c): chooser(value) gives the key of the branch, or its index
    a | {name: b}           b reads the output `name` of a, which is a route or a process
    merge(b, c)             what b and c give, as one node

A pipeline is a value: nodes in the order they are written, who reads whom, and where it is open.  `|` puts one below
another and changes neither.  Rule 1: every end of the upper one is joined to every start of the lower one.  Rule 2: the
order of branches is the order of the list, in all that is shown and in what is read.  Rule 3: a name stands for one
node; what has no name is numbered by its kind, in the order written.  Rule 4: each part of the lower one must have a
start to join to, so that no source stands where values should come in.
"""

from __future__ import annotations

import functools
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from reprlib import Repr
from types import FunctionType
from typing import Any, NoReturn, TypeAlias, cast, overload

import attrs

from hotplumb import nodes as constructors
from hotplumb._supervision import Policy
from hotplumb.errors import (
    CycleError,
    DuplicateKey,
    JoinError,
    OpenEnd,
    UnfreezableKey,
    UnknownBranch,
    UsageError,
)
from hotplumb.keys import Errors, Key, Output, canonical, freeze, key_order
from hotplumb.nodes import CAPACITY_ITEMS, Node, Piece, Processing, is_async, is_process, process, source
from hotplumb.topology import Nodes, Pictured, Topology, _itself, node_key

Branch: TypeAlias = "Piece | Processing | Sequence[Any] | Mapping[Any, Any]"
"""What `|` joins: a node, a process, a pipeline, a list of these, or a mapping of names to these."""

_SHORT = Repr()
_SHORT.maxother = 80

_TOO_DEEP = "a list or a mapping of branches contains itself, or too many stand one in another"


@attrs.frozen
class _Read:
    """That a step reads the one at a place; `output` is (name,) where it reads one output, else empty."""

    place: int
    output: tuple[Key, ...] = ()


@attrs.frozen(eq=False)
class _Step:
    """One node of a pipeline."""

    node: Node
    key: Key  # None: it has no name, and is numbered by its kind
    reads: tuple[_Read, ...] = ()
    choices: Mapping[Key, Key] | None = None  # {what its `choose` may give: the output that means}; None: anything

    @property
    def is_open(self) -> bool:
        """Whether it still lacks something to read."""
        return not (self.reads or self.node.reads or self.node.is_source)


@attrs.frozen(eq=False, repr=False)
class Pipeline(Piece, Pictured):
    """Nodes that are joined, to be joined further, put into a topology or run; made by `|`, not by hand.

    It may be open at both ends.  Two are equal when they have the same nodes, joined the same way, in the same order.
    `str` shows the wiring, a line for each key that a node reads.

    >>> import hotplumb as hp
    >>> def double(n):
    ...     return 2 * n
    >>> pipeline = hp.source([1, 2]) | hp.map(double) | [hp.collect(), hp.sink(print)]
    >>> print(pipeline)
    "source" -> "double"
    "double" -> "collect"
    "double" -> "print"
    >>> hp.run(pipeline)
    2
    4
    {'collect': [2, 4]}
    """

    _steps: tuple[_Step, ...]
    _starts: tuple[_Read, ...]  # those that lack something to read, and which output it is to be
    _ends: tuple[int, ...]  # the places of those that nobody reads
    _name: Key = None  # of the whole, by which a chooser may call it

    def __attrs_post_init__(self) -> None:
        _check_names(self._steps)

    def named(self, key: object) -> Pipeline:
        """The same pipeline with keys of its own, `(key, what it was)`, so that one piece can be used several times.

        >>> import hotplumb as hp
        >>> clean = hp.map(str.strip) | hp.map(str.lower)
        >>> print(hp.source(["A "]) | [clean.named("left"), clean.named("right")] | hp.collect())
        "source" -> ("left", "strip")
        ("left", "strip") -> ("left", "lower")
        "source" -> ("right", "strip")
        ("right", "strip") -> ("right", "lower")
        ("left", "lower") -> "collect"
        ("right", "lower") -> "collect"
        """
        name = freeze(key)
        keys = {before: (name, before) for before in self._keys()}
        steps = [
            attrs.evolve(step, node=_reading(step.node, keys), key=keys[before])
            for before, step in zip(self._keys(), self._steps, strict=True)
        ]
        return Pipeline(tuple(steps), self._starts, self._ends, name)

    def nodes(self) -> Nodes:
        """Return `{key: node}` in the order written; each node reads what is joined to it."""
        keys = self._keys()
        return Nodes({key: _closed(step, keys) for key, step in zip(keys, self._steps, strict=True)}, _itself)

    def topology(self) -> Topology:
        """Return the topology of these nodes and no others.

        Raises:
            OpenEnd: the pipeline is open; it names the ends.
            TopologyError: a node was given a key to read that nothing has.
        """
        self._check_closed()
        return Topology().add_pipeline(self)

    def _keys(self) -> tuple[Key, ...]:
        return _keys_of(self._steps)

    def _check_closed(self) -> None:
        if any(start.output for start in self._starts):
            self._raise_open(self._open_places(), "reads nothing", "hp.source(...) | hp.route(choose) | ...")
        if self._starts:
            self._raise_open(self._open_places(), "reads nothing", "hp.source(...) | ..., or hp.run(pipeline, items)")
        keys, read = self._keys(), {node_key(each) for step in self._steps for each in step.node.reads}
        ends = [place for place in self._ends if keys[place] not in read]
        routes = [place for place in ends if self._steps[place].node.kind == "route"]
        if routes:
            self._raise_open(routes, "nobody reads", "... | {name: branch}, a branch for each name that it may give")
        if ends:
            self._raise_open(ends, "nobody reads", "... | hp.sink(fn), or ... | hp.collect()")

    def _raise_open(self, places: Sequence[int], why: str, how: str) -> NoReturn:
        first, *others = places
        too = f" (and so are {self._text(others)})" if others else ""
        reason = f"{why}{too}, so the pipeline is open, and makes no Topology: write {how}"
        raise OpenEnd(self._keys()[first], self._steps[first].node.kind, reason)

    def _open_places(self) -> list[int]:
        return [start.place for start in self._starts]

    def _roots(self) -> list[int]:
        return [place for place, step in enumerate(self._steps) if not step.reads]

    def _why_closed(self) -> str | None:
        """Why no values can be joined to some part of it; None if they can be to all."""
        parts = _parts(self._steps)
        opened = {parts[start.place] for start in self._starts}
        place = next((root for root in self._roots() if parts[root] not in opened), None)
        if place is None:
            return None
        key, node = canonical(self._keys()[place]), self._steps[place].node
        if node.is_source:
            return f"{key} is a source, and reads nothing"
        return f"{key} was given what it reads, {', '.join(map(canonical, node.reads))}"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Pipeline):
            return NotImplemented
        return (
            list(self.nodes().items()) == list(other.nodes().items())
            and self._starts == other._starts
            and self._ends == other._ends
            and self._name == other._name
        )

    def __hash__(self) -> int:
        return hash(self._keys())

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        nodes = self.nodes()
        read = {node_key(each) for node in nodes.values() for each in node.reads}
        for key, node in nodes.items():
            yield from (f"{canonical(each)} -> {canonical(key)}" for each in node.reads)
            if not node.reads and key not in read:
                yield canonical(key)

    def __repr__(self) -> str:
        opens = {"start": self._open_places(), "end": self._ends}
        texts = [f"open at its {where}, {self._text(places)}" for where, places in opens.items() if places]
        return f"<Pipeline: {'; '.join([f'{len(self._steps)} nodes', *texts])}>"

    def _text(self, places: Iterable[int]) -> str:
        keys = self._keys()
        return ", ".join(canonical(keys[place]) for place in places)


# ---- functions


def broadcast(*branches: Branch) -> Pipeline:
    """Join each branch to what comes before; `a | broadcast(b, c)` is `a | [b, c]`.

    With no sources before it, it puts pipelines side by side.

    >>> import hotplumb as hp
    >>> print(hp.source([1, 2]) | hp.broadcast(hp.map(str), hp.map(float)) | hp.collect())
    "source" -> "str"
    "source" -> "float"
    "str" -> "collect"
    "float" -> "collect"

    Raises:
        JoinError: there is no branch, or one is no node.
        DuplicateKey: two nodes have one name.
    """
    if not branches:
        raise JoinError("broadcast() of no branches: give at least one, broadcast(a, b)")
    return _beside([_piece(branch) for branch in branches])


@overload
def merge(  # type: ignore[overload-overlap]
    first: Piece | Processing | Sequence[Piece], /, *above: Piece | Processing | Sequence[Piece], capacity: int = ...
) -> Pipeline: ...


@overload
def merge(*above: object, capacity: int = ...) -> Node: ...


def merge(*above: object, capacity: int = CAPACITY_ITEMS) -> Node | Pipeline:
    """Give every value of all that is read as it comes; the order within each is kept.

    Args:
        above: the keys to read, which gives a node; or nodes and pipelines, which gives a pipeline: `merge(a, b)` is
            `[a, b] | merge()`.
        capacity: how many items a link into this node holds before its writer waits.

    >>> import hotplumb as hp
    >>> found = hp.run(hp.Topology()
    ...     .add("a", hp.source("ab"))
    ...     .add("b", hp.source("x"))
    ...     .add("both", hp.merge("a", "b"))
    ...     .add("out", hp.collect("both")))
    >>> sorted(found["out"])
    ['a', 'b', 'x']
    >>> print(hp.merge(hp.source("ab").named("a"), hp.source("x").named("b")) | hp.collect())
    "a" -> "merge"
    "b" -> "merge"
    "merge" -> "collect"

    Raises:
        JoinError: a list or a mapping has nothing in it, or what is no node.
    """
    pieces, keys = _branches_and_keys(above)
    node = constructors.merge(*keys, capacity=capacity)
    return join(pieces, node) if pieces else node


@overload
def route(  # type: ignore[overload-overlap]
    choose: Callable[[Any], Any],
    first: Piece | Processing | Sequence[Piece] | Mapping[Any, Piece],
    /,
    *branches: Piece | Processing | Sequence[Piece] | Mapping[Any, Piece],
    concurrency: int = ...,
    capacity: int = ...,
    on_error: Policy | None = ...,
) -> Pipeline: ...


@overload
def route(
    choose: Callable[[Any], Any],
    *keys: object,
    concurrency: int = ...,
    capacity: int = ...,
    on_error: Policy | None = ...,
) -> Node: ...


def route(
    choose: Callable[[Any], Any],
    *branches: object,
    concurrency: int = 1,
    capacity: int = CAPACITY_ITEMS,
    on_error: Policy | None = None,
) -> Node | Pipeline:
    """Give each value to one of several branches, or on one of several outputs: the one that `choose(value)` names.

    With branches it gives a pipeline: `a | route(choose, b, c)` is `a | [b, c, choose]`.  There `choose` gives the key
    of a branch, which is that of its first node or of the piece as a whole, or the index of a branch; anything else
    fails, and the text lists what it may give.  Branches may be given as a mapping of names, too: the same as
    `route(choose) | {name: branch}`.

    With keys, or with nothing more, it gives a node.  Readers of that read `hp.output(key, name)`.  A name that nobody
    reads goes nowhere, as a value does that a filter drops; who reads the node's own key reads all values.

    Args:
        choose: plain or async; what it gives is frozen like a key.
        branches: nodes, pipelines and mappings of these, or one list of them; or the keys to read.
        concurrency, capacity, on_error: as for `map`.

    >>> import hotplumb as hp
    >>> def parity(n):
    ...     return "odd" if n % 2 else "even"
    >>> topology = (hp.Topology()
    ...     .add("n", hp.source(range(4)))
    ...     .add("parity", hp.route(parity, "n"))
    ...     .add("out", hp.collect(hp.output("parity", "odd"))))
    >>> hp.run(topology)
    {'out': [1, 3]}
    >>> hp.run(hp.source(range(4)) | hp.route(parity, hp.collect().named("odd"), hp.collect().named("even")))
    {'odd': [1, 3], 'even': [0, 2]}

    Raises:
        JoinError: the list or the mapping has no branches, or one is no node.
    """
    pieces, keys = _branches_and_keys(branches) if callable(choose) else ([], [])
    node = constructors.route(choose, *keys, concurrency=concurrency, capacity=capacity, on_error=on_error)
    if not pieces:
        return node
    if len(pieces) == 1 and isinstance(pieces[0], list) and not any(map(_is_chooser, pieces[0])):
        pieces = pieces[0]
    return _routed(node, pieces)


def join(above: object, below: object) -> Pipeline:
    """Put one piece below another: `above | below`."""
    upper, lower = _piece(above), _piece(below)
    _check_joinable(upper, lower)
    shift = len(upper._steps)
    joined = {start.place: [_Read(end, start.output) for end in upper._ends] for start in lower._starts}
    steps = [
        attrs.evolve(step, reads=tuple(joined.get(place) or _shifted(step.reads, shift)))
        for place, step in enumerate(lower._steps)
    ]
    ends = tuple([place + shift for place in lower._ends])
    return Pipeline((*_choosing(upper, lower), *steps), upper._starts, ends)


Piece._join = join


def topology_of(graph: Topology | Branch, items: Any = None) -> Topology:
    """Return the topology that `graph` is or makes, for what runs it; `items` are given to its open start."""
    if isinstance(graph, Topology):
        if items is not None:
            raise UsageError("items are for the open start of a pipeline: a topology has its sources")
        return graph
    if not _is_piece(graph):
        raise UsageError(f"{_SHORT.repr(graph)} cannot run: give a hotplumb.Topology or a pipeline")
    pipeline = _piece(graph)
    if items is None:
        return pipeline.topology()
    closed = pipeline._why_closed()
    if closed is not None:
        raise JoinError(f"items are for the open start of a pipeline, but {closed}")
    return join(source(items).named("items"), pipeline).topology()


def in_order(graph: Topology | Branch, results: dict[Key, list[Any]]) -> dict[Key, list[Any]]:
    """Return what the sinks of `graph` have collected, of a pipeline in the order in which it was written."""
    if isinstance(graph, Topology):
        return results
    return {key: results[key] for key in _piece(graph).nodes() if key in results}


def drawable(graph: object) -> Topology | Pipeline | None:
    """Return the topology or pipeline that `graph` is or makes, if any."""
    if isinstance(graph, Topology):
        return graph
    return _piece(graph) if _is_piece(graph) else None


def _nodes_of(value: object) -> Nodes | None:
    """The nodes of the pipeline that `value` is or makes, if any."""
    return _piece(value).nodes() if _is_piece(value) else None


Topology._nodes_of = _nodes_of


# ---- pieces


def _is_piece(value: object) -> bool:
    """Whether it is what `|` joins, and no key."""
    try:
        match value:
            case list():
                return any(map(_is_piece, value))
            case Mapping():
                return any(map(_is_piece, value.values()))
    except RecursionError:
        raise JoinError(_TOO_DEEP) from None
    return isinstance(value, Piece) or is_process(value)


def _is_branch(value: object) -> bool:
    """Whether it is given to a function as branches: what is empty, too, is more likely a list of none than a key."""
    return _is_piece(value) or (isinstance(value, list | Mapping) and not value)


def _branches_and_keys(given: Sequence[object]) -> tuple[list[Any], list[object]]:
    """What is given to a function, apart; code is neither."""
    for each in given:
        if not _is_branch(each) and (callable(each) or isinstance(each, Topology)):
            raise JoinError(_why_no_piece(each))
    return [each for each in given if _is_branch(each)], [each for each in given if not _is_branch(each)]


def _piece(value: object) -> Pipeline:
    """The pipeline that a value is or makes."""
    try:
        return _made_piece(value)
    except RecursionError:
        raise JoinError(_TOO_DEEP) from None


def _made_piece(value: object) -> Pipeline:
    match value:
        case Pipeline():
            return value
        case Node():
            step = _Step(value, _name_of(value))
            return Pipeline((step,), (_Read(0),) if step.is_open else (), () if value.is_sink else (0,))
        case list():
            return _listed(value)
        case Mapping():
            return _mapped(value)
    if is_process(value):
        return _piece(process(cast(Processing, value)))
    raise JoinError(_why_no_piece(value))


def _listed(branches: list[object]) -> Pipeline:
    """All branches; or one of them a value, where the last is a chooser."""
    choosers = [each for each in branches if _is_chooser(each)]
    if not choosers:
        return broadcast(*cast(list[Any], branches))
    if len(choosers) > 1:
        names = " and ".join(map(_function_text, choosers))
        raise JoinError(
            f"a list with {len(choosers)} choosers, {names}: keep one; hp.map(fn) makes a node of a function"
        )
    if choosers[0] is not branches[-1]:
        raise JoinError(
            f"{_function_text(choosers[0])} stands among the branches of a list: a chooser stands last, and "
            "hp.map(fn) makes a node of a function"
        )
    return _routed(constructors.route(cast(Callable[[Any], Any], choosers[0])), branches[:-1])


def _is_chooser(value: object) -> bool:
    is_class = isinstance(value, type) and hasattr(value, "process")
    return callable(value) and not (isinstance(value, Piece) or is_process(value) or is_class or _is_constructor(value))


def _is_constructor(value: object) -> bool:
    """Whether it is one of our own functions, which make nodes."""
    return isinstance(value, FunctionType) and value.__module__ in (constructors.__name__, __name__)


def _mapped(branches: Mapping[Any, object]) -> Pipeline:
    """Branches that each read the output of their name."""
    if not branches:
        raise JoinError("a mapping of no branches: give at least one, {name: branch}")
    return _beside([_reading_output(_piece(branch), freeze(name)) for name, branch in branches.items()])


def _reading_output(branch: Pipeline, name: Key) -> Pipeline:
    if any(start.output for start in branch._starts):
        raise JoinError(
            f"the branch {canonical(name)} begins with a mapping of names: put what chooses these before it, "
            "hp.route(choose) | {name: branch}"
        )
    return attrs.evolve(branch, starts=tuple([_Read(start.place, (name,)) for start in branch._starts]))


def _beside(pieces: Sequence[Pipeline]) -> Pipeline:
    """Pieces that are not joined to each other."""
    if len(pieces) == 1:
        return pieces[0]
    steps: list[_Step] = []
    starts: list[_Read] = []
    ends: list[int] = []
    for piece in pieces:
        shift = len(steps)
        steps += [attrs.evolve(step, reads=_shifted(step.reads, shift)) for step in piece._steps]
        starts += _shifted(piece._starts, shift)
        ends += [place + shift for place in piece._ends]
    return Pipeline(tuple(steps), tuple(starts), tuple(ends))


def _shifted(reads: Iterable[_Read], shift: int) -> tuple[_Read, ...]:
    return tuple([_Read(read.place + shift, read.output) for read in reads])


# ---- choosing


def _routed(node: Node, branches: Sequence[object]) -> Pipeline:
    """A route and its branches."""
    choices: dict[Key, Key] = {}  # {what the chooser may give: the output that means}
    outputs: dict[int, Key] = {}  # {index of a branch: its output}
    pieces = []
    for i, branch in enumerate(branches):
        if isinstance(branch, Mapping):
            pieces.append(_mapped(branch))
            _add_choices(choices, {start.output[0]: start.output[0] for start in pieces[-1]._starts})
            continue
        piece = _piece(branch)
        names = _names_of_branch(piece) or [i]
        outputs[i] = names[0]
        pieces.append(_reading_output(piece, outputs[i]))
        _add_choices(choices, dict.fromkeys(names, outputs[i]))
    if not pieces:
        raise JoinError(f"{_function_text(node.fn)} has no branches to choose from: [branch, ..., chooser]")
    pipeline = join(node, _beside(pieces))
    first, *steps = pipeline._steps
    choices.update({i: output for i, output in outputs.items() if i not in choices})
    return attrs.evolve(pipeline, steps=(attrs.evolve(first, choices=choices), *steps))


def _names_of_branch(piece: Pipeline) -> list[Key]:
    """The names that a chooser may call it by: that of the whole, and that of the node it begins with."""
    names = [piece._name]
    if len(piece._open_places()) == 1:
        names.append(piece._steps[piece._open_places()[0]].key)
    return [name for name in names if name is not None]


def _add_choices(choices: dict[Key, Key], more: Mapping[Key, Key]) -> None:
    for name, output in more.items():
        if name in choices:
            raise JoinError(f"two branches of one list are called {canonical(name)}: give one another name")
        choices[name] = output


def _choosing(upper: Pipeline, lower: Pipeline) -> Iterator[_Step]:
    """The steps of the upper one, where its open routes know which outputs are read."""
    outputs = [start.output for start in lower._starts]
    choices = {name: name for output in outputs for name in output}
    for place, step in enumerate(upper._steps):
        is_narrowed = step.node.kind == "route" and place in upper._ends and all(outputs)
        yield attrs.evolve(step, choices=choices) if is_narrowed else step


def _sure(
    choose: Callable[[Any], Any], names: Mapping[Key, Key], read: frozenset[Key] | None = None
) -> Callable[[Any], Any]:
    """`choose`, which fails where it names no branch.

    Its `choosing` makes the same of another function, or for other outputs that are read: what a topology calls when
    another route takes its place, and when its outputs have other readers.

    Args:
        choose: what names a branch, or gives its index.
        names: `{what it may give: the output that means}`.
        read: the outputs that are read; None: those of `names`.
    """
    chosen: Any
    choices = names if read is None else _among_read(names, read)
    if is_async(choose):

        async def chosen(value: Any) -> Key:
            return _output(choose, await choose(value), choices)

    else:

        def chosen(value: Any) -> Key:
            choice = choose(value)
            try:
                return choices[choice]
            except (KeyError, TypeError):  # a TypeError where it cannot be hashed as it is
                return _output(choose, choice, choices)

    def choosing(
        other: Callable[[Any], Any] | None = None, outputs: frozenset[Key] | None = None
    ) -> Callable[[Any], Any]:
        return _sure(choose if other is None else other, names, read if outputs is None else outputs)

    functools.update_wrapper(chosen, _unwrapped(choose), updated=())
    chosen.choosing = choosing
    return cast(Callable[[Any], Any], chosen)


def _among_read(names: Mapping[Key, Key], read: frozenset[Key]) -> Mapping[Key, Key]:
    """What a chooser may give where these outputs are read."""
    beside = sorted(read - names.keys(), key=key_order)
    return {name: output for name, output in names.items() if output in read} | {name: name for name in beside}


def _output(choose: Callable[[Any], Any], choice: Any, choices: Mapping[Key, Key]) -> Key:
    """The output that a choice means."""
    if hasattr(type(choice), "__await__"):
        return cast(Key, choice)  # which the plumbing refuses
    try:
        return choices[freeze(choice)]
    except (KeyError, UnfreezableKey):
        raise UnknownBranch(_function_text(choose), choice, list(choices)) from None


# ---- keys


def _name_of(node: Node) -> Key:
    """The name given to a node, else that of its function, else None."""
    if node.name is not None:
        return node.name
    fn = _unwrapped(node.fn)
    name = getattr(fn, "__name__", None)
    if isinstance(name, str):
        return None if name.startswith("<") else name
    return type(fn).__name__ if callable(fn) else None


def _unwrapped(fn: Any) -> Any:
    while isinstance(fn, functools.partial):
        fn = fn.func
    return fn


def _keys_of(steps: Iterable[_Step]) -> tuple[Key, ...]:
    """The keys of all steps; those without a name are numbered."""
    taken = {step.key for step in steps}
    counts: Counter[str] = Counter()
    return tuple([_numbered(step.node.kind, counts, taken) if step.key is None else step.key for step in steps])


def _numbered(kind: str, counts: Counter[str], taken: set[Key]) -> str:
    """A name for one more node of a kind: "map", "map_2", "map_3"."""
    while True:
        counts[kind] += 1
        name = kind if counts[kind] == 1 else f"{kind}_{counts[kind]}"
        if name not in taken:
            return name


def _reading(node: Node, keys: Mapping[Key, Key]) -> Node:
    """The same node where some of the keys that it was given to read are others."""
    reads = tuple([_renamed(read, keys) for read in node.reads])
    return node if reads == node.reads else attrs.evolve(node, reads=reads)


def _renamed(read: Key, keys: Mapping[Key, Key]) -> Key:
    match read:
        case Output(of, name) if of in keys:
            return Output(keys[of], name)
        case Errors(of) if of in keys:
            return Errors(keys[of])
    return keys.get(read, read)


def _closed(step: _Step, keys: Sequence[Key]) -> Node:
    """The node of a step as it stands in a topology."""
    joined = [Output(keys[read.place], *read.output) if read.output else keys[read.place] for read in step.reads]
    fn = step.node.fn if step.choices is None else _sure(step.node.fn, step.choices)
    return attrs.evolve(step.node, reads=tuple(dict.fromkeys([*step.node.reads, *joined])), fn=fn, name=None)


def _check_names(steps: Sequence[_Step]) -> None:
    places: dict[Key, int] = {}
    for place, step in enumerate(steps):
        first = places.setdefault(step.key, place)
        if step.key is not None and first != place:
            raise _clash(steps, first, place)


def _clash(steps: Sequence[_Step], first: int, second: int) -> CycleError | DuplicateKey:
    way = _way(steps, first, second) if steps[first].node is steps[second].node else []
    if way:
        hint = "a node cannot stand below itself; for another one like it, give that a name of its own, .named(...)"
        keys = _keys_of(steps)
        return CycleError([keys[place] for place in way], hint)
    both = " and ".join(_place_text(steps, place) for place in (first, second))
    is_route = steps[second].node.kind == "route"
    how = "hp.route(choose).named(...) | {name: branch}" if is_route else "node.named(...) or pipeline.named(...)"
    return DuplicateKey(steps[first].key, f"names two nodes, {both}: give one a name of its own, {how}")


def _way(steps: Sequence[_Step], first: int, last: int) -> list[int]:
    """The places on the shortest way from one step down to another; empty if there is none."""
    below = {last: last}  # {place: the next on the way}
    todo = deque([last])
    while todo and first not in below:
        place = todo.popleft()
        for read in steps[place].reads:
            if read.place not in below:
                below[read.place] = place
                todo.append(read.place)
    way = [first] if first in below else []
    while way and way[-1] != last:
        way.append(below[way[-1]])
    return way


def _parts(steps: Sequence[_Step]) -> list[int]:
    """For each step a number that it shares with those it is joined to, and they with theirs, and with no others."""
    places = {key: place for place, key in enumerate(_keys_of(steps))}
    parts = list(range(len(steps)))

    def part(place: int) -> int:
        while parts[place] != place:
            parts[place] = place = parts[parts[place]]
        return place

    for place, step in enumerate(steps):
        given = [places[key] for key in map(_writer, step.node.reads) if key in places]
        for above in [*given, *[read.place for read in step.reads]]:
            parts[part(above)] = part(place)
    return [part(place) for place in range(len(steps))]


def _writer(read: Key) -> Key:
    """The key of the node that a key given to read is about."""
    return read.key if isinstance(read, Output | Errors) else read


# ---- what cannot be joined


def _check_joinable(upper: Pipeline, lower: Pipeline) -> None:
    if not upper._ends:
        sinks = [place for place, step in enumerate(upper._steps) if step.node.is_sink]
        _refuse(upper, sinks, lower, "a sink gives nothing; let both read what that reads, ... | [..., ...]")
    closed = lower._why_closed()
    if closed is not None:
        _refuse(upper, upper._ends, lower, f"{closed}; put the two side by side, hp.broadcast(..., ...)")
    routes = [place for place in upper._ends if upper._steps[place].node.kind == "route"]
    if routes and not any(start.output for start in lower._starts):
        why = (
            "that would be all it gives; say which outputs, ... | {name: branch}, or let a list choose, [..., chooser]"
        )
        _refuse(upper, routes, lower, why)
    wrong = [place for place in upper._ends if upper._steps[place].node.kind not in ("route", "process")]
    names = [canonical(name) for start in lower._starts for name in start.output]
    if names and wrong:
        kind = upper._steps[wrong[0]].node.kind
        why = f"a {kind} has no output {names[0]}; put what chooses between, ... | hp.route(choose) | {{name: branch}}"
        _refuse(upper, wrong, lower, why)


def _refuse(upper: Pipeline, places: Iterable[int], lower: Pipeline, why: str) -> NoReturn:
    raise JoinError(f"{lower._text(lower._roots())} cannot read {upper._text(places)}: {why}")


def _why_no_piece(value: object) -> str:
    text = _SHORT.repr(value)
    if isinstance(value, type) and hasattr(value, "process"):
        return f"{text} is a class: join an object of it, {value.__name__}(...), or hp.process({value.__name__})"
    if isinstance(value, Topology):
        return f"{text} is a topology: topology.add_pipeline(pipeline) puts a pipeline into it"
    if _is_constructor(value):
        return f"hp.{value.__name__} makes nodes, and is none: call it, hp.{value.__name__}(...)"  # type: ignore[attr-defined]
    if callable(value):
        name = _function_text(value)
        return f"{name} is a function and no node: write what it does, hp.map({name}), hp.sink({name}) or their like"
    return f"{text} is no node: join what hp.map(fn) and its like make, processes, pipelines, and lists of these"


def _place_text(steps: Sequence[_Step], place: int) -> str:
    """Where a step stands, and what it is."""
    step, keys = steps[place], _keys_of(steps)
    behind = " and ".join(canonical(keys[read.place]) for read in step.reads)
    what = f"{step.node.kind} {_function_text(step.node.fn)}" if step.node.fn is not None else step.node.kind
    return f"the {what} {f'behind {behind}' if behind else 'at the start'} (node {place + 1} as written)"


def _function_text(fn: Any) -> str:
    """The name of a function, with its module; what it is, where it has none."""
    fn = _unwrapped(fn)
    name = getattr(fn, "__qualname__", None)
    if not isinstance(name, str):
        return _SHORT.repr(fn)
    module = getattr(fn, "__module__", None)
    return name if module in (None, "builtins", "__main__") else f"{module}.{name}"
