"""Topology: which nodes there are, resolved from the sinks back, and what differs between two.

    given     the nodes put in by hand; a given node wins over the factory
    needed    a given sink, and every key that a needed node reads
    active    {key: node} of all that is needed, given or made by the factory: what runs

A topology is a value: an edit makes another, and one that fails makes none.  An edit asks the factory only for needed
keys that are not active yet, each once.  It costs time by what it changes and by what lies up- or downstream of that,
not by the size of the graph.
"""

from __future__ import annotations

import difflib
import gc
import inspect
import weakref
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from itertools import chain, islice
from operator import attrgetter, is_
from reprlib import repr as short_repr
from types import FunctionType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NoReturn, TypeAlias, TypeVar

import attrs

from hotplumb.errors import (
    CycleError,
    DuplicateKey,
    FactoryError,
    OpenEnd,
    TopologyError,
    UnknownKey,
    UnmetDependency,
    UsageError,
)
from hotplumb.keys import AllErrors, Errors, Key, Output, canonical, freeze, key_order, same
from hotplumb.nodes import Node, merge

if TYPE_CHECKING:
    from hotplumb.compose import Branch

V = TypeVar("V")
Factory: TypeAlias = Callable[[Any], Node | None]
_Places: TypeAlias = "dict[Key, _Place] | _Table[_Place]"
_Given: TypeAlias = "dict[Key, Node] | _Table[Node]"
_Readers: TypeAlias = "tuple[Key, ...] | dict[Key, None] | _Table[None]"

DEEPEST = 200_000  # nodes that read one another: a factory that has made more than this does not end
PARTS = 1021  # with 100,000 keys, a part costs less to copy than the list of all; a prime, whatever stride hashes have
MOST_IN_DICT = 1024  # above that, to copy a dict costs more than 10 us
FEW_READERS = 8  # a tuple of these is smaller than a dict, and as fast
MOST_CANDIDATES = 1000  # keys looked at for one that is spelt alike: an error text must not hold up the loop
MOST_REMEMBERED = 4000  # keys; where more have changed over several edits, comparing everything is as good
SHORTEST_PAST = 16  # steps; fewer are not worth looking through for those that can be forgotten

_MAPPINGS = "a mapping pattern in the factory also matches larger mappings, so write the longest first"


def node_key(read: Key) -> Key:
    """Return the key of the node that a read key refers to: that of the route for one of its outputs, else itself."""
    return read.key if isinstance(read, Output) else read


@attrs.frozen
class Edit:
    """One edit: `node` is what was given, None where there is none; the `key` of a refactoring is None."""

    kind: Literal["add", "replace", "remove", "refactor"]
    key: Key = None
    node: Node | None = None


# ---- places: the nodes and who reads whom


class _Table(MutableMapping[Key, V]):
    """A dict that costs little to copy: copies share its parts until one of them writes there.

    A persistent map of pyrsistent takes 3 to 9 times as long to look a key up, and walks do that for each node; and it
    shows all it holds to the garbage collector again after every edit, which takes 30 ms with 100,000 nodes.
    """

    __slots__ = ("_own", "_parts", "_size")

    def __init__(self, items: Mapping[Key, V]) -> None:
        self._parts: list[dict[Key, V]] = [{} for _ in range(PARTS)]
        self._own = set(range(PARTS))  # parts that no copy shares
        self._size = len(items)
        for key, value in items.items():
            self._parts[hash(key) % PARTS][key] = value

    def copy(self) -> _Table[V]:
        """The same, to be changed on its own."""
        table: _Table[V] = _Table.__new__(_Table)
        table._parts = self._parts.copy()
        table._size = self._size
        table._own, self._own = set(), set()
        return table

    def get(self, key: Key, default: Any = None) -> Any:
        return self._parts[hash(key) % PARTS].get(key, default)

    def __getitem__(self, key: Key) -> V:
        return self._parts[hash(key) % PARTS][key]

    def __setitem__(self, key: Key, value: V) -> None:
        part = self._part(key)
        self._size -= len(part)
        part[key] = value
        self._size += len(part)

    def __delitem__(self, key: Key) -> None:
        del self._part(key)[key]
        self._size -= 1

    def _part(self, key: Key) -> dict[Key, V]:
        """The part that `key` belongs to, to be written in."""
        i = hash(key) % PARTS
        if i not in self._own:
            self._own.add(i)
            self._parts[i] = self._parts[i].copy()
        return self._parts[i]

    def __contains__(self, key: object) -> bool:
        return key in self._parts[hash(key) % PARTS]

    def __iter__(self) -> Iterator[Key]:
        return chain.from_iterable(self._parts)

    def __len__(self) -> int:
        return self._size


def _changed(items: dict[Key, V] | _Table[V], changes: Mapping[Key, V | None]) -> dict[Key, V] | _Table[V]:
    """The same items but for `changes`, where None takes one away; in what is cheapest to copy."""
    if not changes:
        return items
    items = items.copy()
    for key, value in changes.items():
        if value is not None:
            items[key] = value
        else:
            items.pop(key, None)
    return _compact(items)


def _compact(items: dict[Key, V] | _Table[V]) -> dict[Key, V] | _Table[V]:
    return _Table(items) if isinstance(items, dict) and len(items) > MOST_IN_DICT else items


class Nodes(Mapping[Any, Node]):
    """A persistent map of nodes: edits make others.  Any form of a key finds its node."""

    __slots__ = ("_items", "_node")

    def __init__(self, items: Mapping[Key, V], node: Callable[[V], Node]) -> None:
        self._items: Mapping[Key, Any] = items
        self._node = node

    def __getitem__(self, key: Any) -> Node:
        try:
            return self._node(self._items[key])
        except (KeyError, TypeError):  # a TypeError where it cannot be hashed as it is
            return self._node(self._items[freeze(key)])

    def __iter__(self) -> Iterator[Key]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __repr__(self) -> str:
        return f"Nodes({dict(self)})"


class _Place:
    """Where a node stands: what it reads from, and who reads it.  Changes only during the edit that makes it."""

    __slots__ = ("key", "node", "readers", "sources")

    def __init__(self, key: Key, node: Node, sources: tuple[Key, ...] = (), readers: _Readers = ()) -> None:
        self.key = key
        self.node = node
        self.sources = sources  # each once; `_OPEN` while they are being resolved
        self.readers: Any = dict.fromkeys(readers) if isinstance(readers, tuple) else readers.copy()

    def copy(self) -> _Place:
        """The same, to be changed on its own."""
        return _Place(self.key, self.node, self.sources, self.readers)

    def close(self) -> None:
        """Make it as small as can be; nothing changes it any more."""
        readers = self.readers
        self.readers = tuple(readers) if len(readers) <= FEW_READERS else _compact(readers)


_OPEN: tuple[Key, ...] = (None,)  # told from other tuples by identity
_UNCHANGED = _Place(None, merge())  # told from other places by identity


# ---- what a topology was edited from


class _Version:
    """Stands for a topology in the memory of those edited from it, and is alive as long as it is."""

    __slots__ = ("__weakref__",)


@attrs.frozen(eq=False)
class _Step:
    """An edit on the way to a topology: what it was made from, which keys it changed, and the steps before it."""

    version: weakref.ref[_Version]
    changed: frozenset[Key] | None  # None: too many to remember
    older: _Step | None
    length: int  # of all steps from here on
    most: int  # the length at which what nobody can ask for is forgotten


def _steps(step: _Step | None) -> Iterator[_Step]:
    while step is not None:
        yield step
        step = step.older


def _union(sets: Iterable[frozenset[Key] | None]) -> frozenset[Key] | None:
    """All keys of `sets`; None where one is, or where they are too many."""
    keys: set[Key] = set()
    for each in sets:
        if each is None or len(each) + len(keys) > MOST_REMEMBERED:
            return None
        keys |= each
    return frozenset(keys)


def _step(version: _Version, changed: frozenset[Key], older: _Step | None) -> _Step:
    """One step more; every so often, a long past is shortened to the topologies that somebody still holds."""
    length, most = (1, SHORTEST_PAST) if older is None else (older.length + 1, older.most)
    step = _Step(weakref.ref(version), changed, older, length, most)
    return step if length <= most else _shortened(step)


def _shortened(newest: _Step) -> _Step:
    """Merge each step from a topology that is gone into the one before it: nobody can ask for what lies between."""
    kept: list[tuple[weakref.ref[_Version], frozenset[Key] | None]] = []
    merged: list[frozenset[Key] | None] = []
    for step in _steps(newest):
        merged.append(step.changed)
        if step.version() is not None:
            kept.append((step.version, merged[0] if len(merged) == 1 else _union(merged)))
            merged = []
    most = 2 * len(kept) + SHORTEST_PAST  # twice as long before the next time, so that all times cost what one does
    shortened: _Step | None = None
    for length, (version, changed) in enumerate(reversed(kept), 1):
        shortened = _Step(version, changed, shortened, length, most)
    assert shortened is not None  # the topology that is being edited is there
    return shortened


@attrs.frozen(eq=False)
class _Past:
    """Who a topology is, and what it was edited from.  Holds no other topology, so that none lives on through it."""

    version: _Version = attrs.field(factory=_Version)
    base: weakref.ref[Topology] | None = None
    step: _Step | None = None


# ---- the value


class Pictured:
    """What notebooks show as a picture; how that is made is the work of `drawing`, which is built on this module."""

    __slots__ = ()

    _pictures: ClassVar[Callable[[Any], dict[str, str]]]

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        return Pictured._pictures(self)


@attrs.frozen(init=False, eq=False, repr=False)
class Topology(Pictured):
    """Nodes that are given, a factory for the others, and the active nodes that they resolve to.

    Args:
        factory: a plain function `key -> Node or None`, asked for needed keys that are not given.  Its keys are frozen:
            `match` takes them apart.  Asked twice for a key, it is to give the same.

    Every edit returns a new topology, which remembers its `edits`, and its `base` while somebody holds that.  Two are
    equal when they have the same given and active nodes and the same factory, however they came about.

    >>> import hotplumb as hp
    >>> def factory(key):
    ...     match key:
    ...         case ("double", of):
    ...             return hp.map(lambda n: 2 * n, of)
    >>> topology = hp.Topology(factory).add("n", hp.source([1, 2])).add("out", hp.collect(("double", "n")))
    >>> topology.upstream("out") == {"n", ("double", "n")}
    True

    Raises:
        UsageError: `factory` cannot be called.
    """

    factory: Factory | None
    edits: tuple[Edit, ...]
    """What made this topology of its base; none if it has no base."""
    changed: frozenset[Key]
    """The keys whose node, sources or readers may differ from those in its base."""
    _given: _Given
    _places: _Places
    _epochs: dict[Key, int] | _Table[int]
    _past: _Past
    _streams: frozenset[Errors]  # the error streams of single nodes that are active

    _nodes_of: ClassVar[Callable[[object], Nodes | None]]  # of a pipeline: the work of `compose`, built on this module

    def __init__(self, factory: Factory | None = None) -> None:
        _checked_factory("Topology", factory)
        self.__attrs_init__(factory, (), frozenset(), {}, {}, {}, _Past(), frozenset())

    # -- edits

    def add(self, key: object, node: Node) -> Topology:
        """Give a node that is not there yet.

        Raises:
            DuplicateKey: `key` is given, or active as the factory made it.
            OpenEnd: the node reads nothing and is no source.
            TopologyError: it makes no topology: `UnmetDependency`, `CycleError`, `FactoryError`.
        """
        name = _own_key("add", key)
        if self._is_known(name):
            raise DuplicateKey(name)
        return self._edited([Edit("add", name, _checked("add", name, node))])

    def add_pipeline(self, pipeline: Branch) -> Topology:
        """Give all nodes of a pipeline, or of what makes one, at once.

        Its last nodes may be open: what reads them can be given by key.

        >>> import hotplumb as hp
        >>> parsed = hp.source(["1", "2"]) | hp.map(int)
        >>> hp.run(hp.Topology().add_pipeline(parsed).add("out", hp.collect("int")))
        {'out': [1, 2]}

        Raises:
            DuplicateKey: one of its keys is there already; it names both nodes.
            OpenEnd: nothing is joined to its start.
            TopologyError: as for `add`.
        """
        nodes = Topology._nodes_of(pipeline)
        if nodes is None:
            raise UsageError(f"add_pipeline({short_repr(pipeline)}): give a pipeline, what `a | b` makes")
        return self._edited([self._addition(key, node) for key, node in nodes.items()])

    def _addition(self, key: Key, node: Node) -> Edit:
        name = _own_key("add_pipeline", key)
        if self._is_known(name):
            both = f"as a {self._known(name).kind}, and is a {node.kind} of the pipeline"
            raise DuplicateKey(
                name, f"is there already, {both}: give one a name of its own, node.named(...) or pipeline.named(...)"
            )
        return Edit("add", name, _checked("add_pipeline", name, node))

    def replace(self, key: object, node: Node) -> Topology:
        """Give another node for a key that is given, or active as the factory made it.

        A route in the place of a pipeline's gives its values to the same branches, by their names or indexes.

        Raises:
            UnknownKey: `key` is neither.
            OpenEnd, TopologyError: as for `add`.
        """
        name = _own_key("replace", key)
        self._check_known(name)
        if isinstance(node, Node) and not node.reads and not node.is_source:
            how = f"hp.{node.kind}(..., *topology.reads({canonical(name)}))"
            raise OpenEnd(name, node.kind, f"reads nothing: give it the keys that the one before reads, {how}")
        return self._edited([self._replacement(name, _checked("replace", name, node))])

    def _replacement(self, key: Key, node: Node) -> Edit:
        return Edit("replace", key, _choosing(self._known(key), node))

    def remove(self, key: object) -> Topology:
        """Take a given node back; where it is still needed, the factory is asked for one.

        Raises:
            UnknownKey: `key` is not given.
            TopologyError: as for `add`.
        """
        name = _own_key("remove", key)
        self._check_given(name)
        return self._edited([Edit("remove", name)])

    def update(self, nodes: Mapping[Any, Node | None]) -> Topology:
        """Make several edits at once, which are checked as one: None removes a given node, a node adds or replaces.

        A route in the place of a pipeline's gives its values to the same branches, as for `replace`.

        Raises:
            UnknownKey: a key to remove is not given.
            UsageError: two keys are equal when frozen.
            OpenEnd, TopologyError: as for `add`.
        """
        edits = {edit.key: edit for edit in (self._update(key, node) for key, node in nodes.items())}
        if len(edits) != len(nodes):
            raise UsageError("update(...): two of the keys given are equal when frozen, so one edit would be lost")
        return self._edited(list(edits.values()))

    def _update(self, key: object, node: Node | None) -> Edit:
        name = _own_key("update", key)
        if node is None:
            self._check_given(name)
            return Edit("remove", name)
        _checked("update", name, node)
        return self._replacement(name, node) if self._is_known(name) else Edit("add", name, node)

    def refactor(self, factory: Factory | None) -> Topology:
        """Take another factory, and ask it for every needed key that is not given.

        Raises:
            UsageError: `factory` cannot be called.
            TopologyError: as for `add`.
        """
        resolution = _Resolution(self._given, _checked_factory("refactor", factory), self._places, anew=True)
        with collection_off():
            resolution.resolve_all(self.sinks)
            return self._become([Edit("refactor")], resolution)

    def _edited(self, edits: list[Edit]) -> Topology:
        given = _changed(self._given, {edit.key: edit.node for edit in edits})
        resolution = _Resolution(given, self.factory, self._places)
        with collection_off():
            resolution.edit(edits)
            resolution.fit_routes()
            return self._become(edits, resolution)

    def _become(self, edits: Iterable[Edit], resolution: _Resolution) -> Topology:
        changes = resolution.closed_places()
        places = _changed(resolution.before, changes)
        changed = frozenset(changes if resolution.before else chain(changes, self._places))
        streams = frozenset(key for key in self._streams.union(_errors_in(changes)) if key in places)
        for stream in streams:
            resolution.check_own_errors(stream, places)
        past = _Past(_Version(), weakref.ref(self), _step(self._past.version, changed, self._past.step))
        return _topology(
            resolution.factory, tuple(edits), changed, resolution.given, places, self._epochs, past, streams
        )

    def with_epochs(self, reigned: Topology, touched: Iterable[Key], epoch: int) -> Topology:
        """The same topology as it is after change `epoch` of the one that reigned, which touched these keys.

        For the plumbing.  It is the same in what was edited from what, too.
        """
        epochs = _changed(reigned._epochs, {key: epoch if key in self._places else None for key in touched})
        return _topology(
            self.factory, self.edits, self.changed, self._given, self._places, epochs, self._past, self._streams
        )

    # -- what it was edited from

    def edited_from(self, other: Topology, changed: frozenset[Key]) -> Topology:
        """The same topology as an edit of `other`, from which it differs by these keys at most.  For the plumbing."""
        past = _Past(_Version(), weakref.ref(other), _step(other._past.version, changed, other._past.step))
        return _topology(self.factory, (), changed, self._given, self._places, self._epochs, past, self._streams)

    @property
    def base(self) -> Topology | None:
        """The topology it was edited from; None if it was built afresh, or nobody holds that one any more."""
        return None if self._past.base is None else self._past.base()

    def is_edit_of(self, other: Topology) -> bool:
        """Say whether it was edited from `other`, in any number of steps; none is enough."""
        return self._past.version is other._past.version or any(
            step.version() is other._past.version for step in _steps(self._past.step)
        )

    def changed_since(self, other: Topology) -> frozenset[Key] | None:
        """Return the keys that may differ from `other`, which this was edited from.

        None says that anything may differ: this is no edit of `other`, or more than 4,000 keys have changed in several
        steps.
        """
        if self._past.version is other._past.version:
            return frozenset()
        changed: list[frozenset[Key] | None] = []
        for step in _steps(self._past.step):
            changed.append(step.changed)
            if step.version() is other._past.version:
                return changed[0] if len(changed) == 1 else _union(changed)
        return None

    # -- what is in it

    @property
    def given(self) -> Nodes:
        """The nodes put in by hand, active or not."""
        return Nodes(self._given, _itself)

    @property
    def active(self) -> Nodes:
        """The nodes that run: the sinks given, and all they need."""
        return Nodes(self._places, _node_of)

    @property
    def sinks(self) -> tuple[Key, ...]:
        """The given nodes that are wanted for their own sake, in an order that is the same in every process."""
        return tuple(sorted((key for key, node in self._given.items() if node.is_sink), key=key_order))

    def reads(self, key: object) -> tuple[Key, ...]:
        """What an active node reads, as given to it: `output(...)` keys are among them.

        Raises:
            UnknownKey: `key` is not active; here and in what follows.
        """
        return self._place(key).node.reads

    def readers(self, key: object) -> frozenset[Key]:
        """The nodes that read an active node."""
        return frozenset(self._place(key).readers)

    def upstream(self, key: object) -> frozenset[Key]:
        """The nodes that an active node reads, and what they read, up to the sources."""
        place = self._place(key)
        return frozenset(_walk(place, self._places.get, _sources_of))

    def downstream(self, key: object) -> frozenset[Key]:
        """The nodes that read an active node, and who reads them, down to the sinks."""
        place = self._place(key)
        return frozenset(_walk(place, self._places.get, _readers_of))

    def epoch_of(self, key: object) -> int:
        """The epoch of the change that last touched an active node, 0 if none has."""
        return self._epochs.get(self._place(key).key, 0)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Topology):
            return NotImplemented
        return self is other or (
            same(self.factory, other.factory) and self.given == other.given and self.active == other.active
        )

    __hash__ = None  # type: ignore[assignment]  # by value it would cost a look at every node

    def __repr__(self) -> str:
        return f"<Topology: {len(self._given)} nodes given, {len(self._places)} active, {_factory_text(self.factory)}>"

    def _place(self, key: object) -> _Place:
        name = freeze(key)
        place = self._places.get(name)
        if place is None:
            raise UnknownKey(name, self._why_unknown(name))
        return place

    def _is_known(self, key: Key) -> bool:
        return key in self._given or self._places.get(key) is not None

    def _known(self, key: Key) -> Node:
        return self._given[key] if key in self._given else self._places[key].node

    def _check_known(self, key: Key) -> None:
        if not self._is_known(key):
            raise UnknownKey(key, self._why_unknown(key))

    def _check_given(self, key: Key) -> None:
        if key in self._given:
            return
        if self._places.get(key) is not None:
            raise UnknownKey(key, "was made by the factory: it goes by itself when nobody reads it")
        raise UnknownKey(key, self._why_unknown(key))

    def _why_unknown(self, key: Key) -> str:
        if key in self._given:
            return "is given but not active: no sink needs it"
        return f"is neither given nor active{_meant(key, chain(self._given, self._places))}"


# ---- resolution


@attrs.define(eq=False)
class _Frame:
    """A node whose sources are being resolved."""

    place: _Place
    reads: Iterator[Key]
    kept: frozenset[Key]  # what it read before, where it is still linked to that
    was_read: bool  # by nodes that stay
    sources: list[Key] = attrs.field(factory=list)


class _Resolution:
    """One edit under way: which places of its base it changes.

    It goes from the sinks, or the nodes edited, back to what they read, and takes in nothing before it is sure that a
    sink needs it: so every key the factory is asked for is needed, and every cycle met is one.  What loses its last
    reader goes, and then what only that had read.
    """

    def __init__(self, given: _Given, factory: Factory | None, base: _Places, anew: bool = False) -> None:
        self.given = given
        self.factory = factory
        self.base = base  # whose key objects are used on
        self.before: _Places = {} if anew else base  # the places that stay where they are not changed
        self.places: dict[Key, _Place | None] = {}  # {key: its place now, None if it has gone}; else it is as before
        self.waiting: dict[Key, _Place] = {}  # edited, and not yet resolved: places as before
        self.path: list[_Frame] = []  # from a node that is needed to the one in hand, each read by the one before
        self.loose: list[Key] = []  # what has lost its last reader
        self.rewired: list[_Place] = []  # nodes that were read before and read what they did not
        self.made = 0  # by the factory

    # -- the whole

    def edit(self, edits: Collection[Edit]) -> None:
        """Resolve what is given now, where it differs from before by `edits`."""
        for edit in edits:
            self._wait(edit.key)
        if len(edits) > 1:  # else all that is read now will be needed, and taking it up again would cost
            for place in self.waiting.values():
                self._unlink(place, place.sources)
                place.sources = ()
            self._sweep()
        self.resolve_all([edit.key for edit in edits if self._is_needed(edit)])
        for place in self.waiting.values():
            self._unlink(place, place.sources)
        self._sweep()
        for place in self.rewired:
            self._check_acyclic(place)

    def _wait(self, key: Key) -> None:
        place = self.before.get(key)
        if place is not None:
            self.waiting[place.key] = place.copy()
            self.places[place.key] = None

    def _is_needed(self, edit: Edit) -> bool:
        is_sink = edit.node is not None and edit.node.is_sink
        return is_sink or (edit.key in self.waiting and bool(self.waiting[edit.key].readers))

    def resolve_all(self, keys: Iterable[Key]) -> None:
        """Resolve `keys`, which are needed, and all they need."""
        for key in keys:
            if self._find(key) is None:
                self._resolve(key)

    def fit_routes(self) -> None:
        """Have the routes of pipelines choose between the outputs that are read now."""
        fitted = {}
        for place in self.places.values():
            choosing = None if place is None else _choosing_of(place.node)
            if place is None or choosing is None:
                continue
            fn = choosing(outputs=self._outputs_read(place))
            if not same(fn, place.node.fn):
                place.node = attrs.evolve(place.node, fn=fn)
                fitted[place.key] = place.node
        self.given = _changed(self.given, {key: node for key, node in fitted.items() if key in self.given})

    def _outputs_read(self, place: _Place) -> frozenset[Key]:
        """The names of a route's outputs that somebody reads."""
        found = (self._find(reader) for reader in place.readers)
        reads = chain.from_iterable(reader.node.reads for reader in found if reader is not None)
        return frozenset(read.name for read in reads if isinstance(read, Output) and read.key == place.key)

    def closed_places(self) -> dict[Key, _Place | None]:
        """The places that have changed, in their final form."""
        for place in self.places.values():
            if place is not None:
                place.close()
        return self.places

    # -- one node after the other: a stack, since chains may be deeper than Python recurses

    def _resolve(self, key: Key) -> None:
        self._enter(key)
        while self.path:
            frame = self.path[-1]
            for read in frame.reads:
                if self._follow(frame, read):
                    break
            else:
                self._leave(self.path.pop())

    def _follow(self, frame: _Frame, read: Key) -> bool:
        """Link a node to one that it reads; say whether that one is to be resolved first."""
        above = self._find(node_key(read))
        is_new = above is None
        if above is None:
            above = self._enter(node_key(read))
        elif above.sources is _OPEN:
            self._raise_cycle(above)
        if isinstance(read, Output) or above.node.is_sink:
            _check_gives(above.node, read, frame.place.key)
        frame.sources.append(above.key)
        if not frame.kept or read not in frame.kept:
            self._own(above).readers[frame.place.key] = None
        return is_new

    def _enter(self, key: Key) -> _Place:
        """Begin with the node of `key`."""
        known = self.base.get(key) if self.base else None
        node = self._node(key, known)
        place = self.waiting.pop(key, None)
        if place is not None and place.sources and node.reads == place.node.reads:
            return self._put(place, node)
        if place is None:
            # Where each key is one object, a dict finds it without comparing.
            place = _Place(key if known is None else known.key, node)
        else:
            self._check_readers(place, node)
        kept = frozenset(place.node.reads if place.sources else ())
        frame = _Frame(place, iter(node.reads), kept, bool(place.readers))
        place.node, place.sources = node, _OPEN
        self.places[place.key] = place
        self.path.append(frame)
        return place

    def _put(self, place: _Place, node: Node) -> _Place:
        """Have another node in a place that reads what the one before did, by the same keys."""
        self._check_readers(place, node)
        object.__setattr__(node, "reads", place.node.reads)
        place.node = node
        self.places[place.key] = place
        return place

    def _leave(self, frame: _Frame) -> None:
        """End with a node all of whose sources are known."""
        place = frame.place
        place.sources = _interned(place.node, frame.sources)
        if frame.was_read and not frame.kept.issuperset(place.node.reads):
            self.rewired.append(place)
        if frame.kept:
            self._let_go(place, frame.kept)

    def _let_go(self, place: _Place, kept: frozenset[Key]) -> None:
        """Part from what a node no longer reads."""
        left = {node_key(read) for read in kept.difference(place.node.reads)}
        self._unlink(place, left.difference(place.sources))
        for source in left.intersection(place.sources):  # another of its outputs
            self._own(self._find(source))

    def _find(self, key: Key) -> _Place | None:
        """The place of `key` as it is now."""
        place = self.places.get(key, _UNCHANGED)
        return self.before.get(key) if place is _UNCHANGED else place

    def _own(self, place: _Place | None) -> _Place:
        """The same place, to be changed in this edit."""
        assert place is not None  # a place that is read is there
        if self.places.get(place.key) is not place:
            place = self.places[place.key] = place.copy()
        return place

    # -- what is no longer read

    def _unlink(self, reader: _Place, sources: Iterable[Key]) -> None:
        for source in sources:
            place = self.waiting.get(source) or self._own(self._find(source))
            del place.readers[reader.key]
            if not place.readers:
                self.loose.append(source)

    def _sweep(self) -> None:
        while self.loose:
            key = self.loose.pop()
            place = self._find(key)
            if place is not None and not place.readers and not place.node.is_sink:
                self.places[key] = None
                self._unlink(place, place.sources)

    # -- nodes

    def _node(self, key: Key, known: _Place | None) -> Node:
        """The node that `key` has now: given, built in, there before, or made by the factory."""
        if key in self.given:
            return self.given[key]
        if known is not None and self.before and key not in self.waiting:
            return known.node
        node = _built_in(key) or self._ask(key)
        if node is None:
            raise UnmetDependency(key, self._chain(key), self._why_unmet(key))
        _check_closed(key, node)
        return node

    def _ask(self, key: Key) -> Node | None:
        if self.factory is None:
            return None
        if min(len(self.path), self.made) > DEEPEST:
            raise FactoryError(key, f"it makes nodes that read one another without end: {_MAPPINGS}")
        self.made += 1
        try:
            made: object = self.factory(key)
        except Exception as exc:
            raise FactoryError(key, f"it raised {type(exc).__name__}: {exc}") from exc
        if made is None or isinstance(made, Node):
            return made
        raise FactoryError(key, _why_no_node(made))

    def _check_readers(self, place: _Place, node: Node) -> None:
        """Who reads a node that is edited must be able to go on so."""
        if not (node.is_sink or place.node.kind == "route" != node.kind):
            return
        for reader in place.readers:
            below = self._find(reader)
            for read in below.node.reads if below is not None else ():
                if node_key(read) == place.key:
                    _check_gives(node, read, reader)

    # -- error texts

    def _chain(self, key: Key) -> list[Key]:
        """The keys from a missing one down to a sink."""
        keys = [key, *(frame.place.key for frame in reversed(self.path))]
        below = self.path[0].place if self.path else self.waiting.get(key)
        while below is not None and below.readers:
            below = self._find(next(iter(below.readers)))
            keys += [] if below is None else [below.key]
        return keys

    def _why_unmet(self, key: Key) -> str:
        if self.factory is None:
            why = "it is not given, and there is no factory"
        else:
            why = "it is not given, and the factory has no case for it (it gave None)"
        return why + _meant(key, self.given)

    def _raise_cycle(self, place: _Place) -> NoReturn:
        """Raise for a node on the path that the last node there reads."""
        keys = [frame.place.key for frame in self.path]
        raise self._cycle([place.key, *reversed(keys[keys.index(place.key) :])])

    def _check_acyclic(self, place: _Place) -> None:
        """A node that reads something new must not be found above itself, nor, which is as good, below itself."""
        above = _walk(place, self._find, _sources_of)
        below = _walk(place, self._find, _readers_of)
        # By turns, so that it ends as soon as the smaller side has been looked through.
        if any(up is place.key or down is place.key for up, down in zip(above, below, strict=False)):
            raise self._cycle(self._circle(place.key))

    def check_own_errors(self, stream: Errors, places: Mapping[Key, _Place]) -> None:
        """A node must not read its own failures, however far down: they would feed themselves."""
        node = places.get(stream.key)
        if node is None:
            return
        above = {stream, *_walk(places[stream], places.get, _readers_of)}
        if node.key in above:
            way = self._way(stream, node.key, places)
            raise CycleError([node.key, *way], "a node cannot read its own failures, however far down")

    def _way(self, start: Key, end: Key, places: Mapping[Key, _Place]) -> list[Key]:
        """The keys on the shortest way from `start` down to `end`."""
        sources: dict[Key, Key] = {start: start}  # {key: what it reads on the way}
        todo = deque([start])
        while end not in sources:
            source = todo.popleft()
            for reader in places[source].readers:
                if reader not in sources:
                    sources[reader] = source
                    todo.append(reader)
        way = [end]
        while way[-1] != start:
            way.append(sources[way[-1]])
        return way[::-1]

    def _circle(self, start: Key) -> list[Key]:
        """The keys on the shortest way from `start` down to itself."""
        readers: dict[Key, Key] = {}  # {key: who reads it on the way}
        todo = deque([start])
        while start not in readers:
            reader = todo.popleft()
            place = self._find(reader)
            for source in place.sources if place is not None else ():
                if source not in readers:
                    readers[source] = reader
                    todo.append(source)
        keys = [start, readers[start]]
        while keys[-1] != start:
            keys.append(readers[keys[-1]])
        return keys

    def _cycle(self, keys: list[Key]) -> CycleError:
        is_made = any(isinstance(key, Mapping) and key not in self.given for key in keys)
        return CycleError(keys, _MAPPINGS if is_made else "let one of them read something else")


def _errors_in(keys: Iterable[Key]) -> Iterator[Errors]:
    return (key for key in keys if isinstance(key, Errors))


_ERROR_STREAM = Node("errors", None, ())


def _built_in(key: Key) -> Node | None:
    """The node of a key that hotplumb itself gives one."""
    return _ERROR_STREAM if isinstance(key, Errors | AllErrors) else None


def _topology(*state: Any) -> Topology:
    topology = Topology.__new__(Topology)
    topology.__attrs_init__(*state)
    return topology


def _checked_factory(method: str, factory: Factory | None) -> Factory | None:
    if factory is not None and not callable(factory):
        raise UsageError(f"{method}({short_repr(factory)}): the factory is a function from a key to a node or None")
    return factory


def _own_key(method: str, key: object) -> Key:
    frozen = freeze(key)
    if isinstance(frozen, Output | Errors | AllErrors):
        text = canonical(frozen)
        what = "an output of a route" if isinstance(frozen, Output) else "an error stream"
        raise UsageError(f"{method}({text}, ...): that is {what}, so give the node a key of its own")
    return frozen


def _checked(method: str, key: Key, node: object) -> Node:
    if not isinstance(node, Node):
        text = f"{method}({canonical(key)}, {short_repr(node)})"
        raise UsageError(f"{text}: that is no node, give what hp.map(fn, key), hp.sink(fn, key) or their like make")
    _check_closed(key, node)
    return node


def _check_closed(key: Key, node: Node) -> None:
    if not node.reads and not node.is_source:
        raise OpenEnd(key, node.kind)


def _check_gives(node: Node, read: Key, reader: Key) -> None:
    text = f"{canonical(reader)} reads {canonical(read)}"
    if node.is_sink:
        raise TopologyError(f"{text}, but a {node.kind} gives nothing: read what that reads")
    if isinstance(read, Output) and node.kind not in ("route", "process"):
        raise TopologyError(
            f"{text}, but only a route or a process has outputs, and that is a {node.kind}: read its key"
        )


def _choosing(before: Node, node: Node) -> Node:
    """`node` as it takes the place of another: both routes, it chooses between the same branches.

    Only routes of pipelines know their branches; one that does keeps its own.
    """
    choosing = _choosing_of(before) if node.kind == "route" and _choosing_of(node) is None else None
    return node if choosing is None else attrs.evolve(node, fn=choosing(node.fn))


def _choosing_of(node: Node) -> Callable[..., Any] | None:
    """What makes another function choose between the branches of a pipeline's route; None for any other node."""
    is_ours = node.kind == "route" and isinstance(node.fn, FunctionType)  # an object may have any attribute
    return getattr(node.fn, "choosing", None) if is_ours else None


def _why_no_node(made: object) -> str:
    if inspect.iscoroutine(made):
        made.close()  # else it would be warned of as never awaited
        return "it is a coroutine function: factories are plain functions, what waits belongs in the nodes"
    return f"it gave {short_repr(made)}, which is neither a node nor None"


def _meant(key: Key, candidates: Iterable[Key]) -> str:
    texts = {canonical(candidate) for candidate in islice(candidates, MOST_CANDIDATES)}
    close = difflib.get_close_matches(canonical(key), sorted(texts), n=3, cutoff=0.7)  # the quotes are alike
    return f"; did you mean {' or '.join(close)}?" if close else ""


def _factory_text(factory: Factory | None) -> str:
    if factory is None:
        return "no factory"
    return f"factory {getattr(factory, '__qualname__', None) or short_repr(factory)}"


def _interned(node: Node, sources: list[Key]) -> tuple[Key, ...]:
    """The node's sources, each once, by the one object that is used for each key.

    The node takes these for its own: equal keys, so it is the same value, and dicts find one and the same object many
    times as fast, which need not be kept twice.
    """
    if not all(map(is_, node.reads, sources)):
        pairs = zip(node.reads, sources, strict=True)
        object.__setattr__(node, "reads", tuple([read if isinstance(read, Output) else key for read, key in pairs]))
    return tuple(dict.fromkeys(sources)) if Output in map(type, node.reads) else node.reads


def _walk(
    start: _Place, find: Callable[[Key], _Place | None], neighbours: Callable[[_Place], Iterable[Key]]
) -> Iterator[Key]:
    """The keys that `start` leads to, each once."""
    met: set[_Place | None] = set()  # places, which are hashed in less time than keys
    todo: list[_Place | None] = [start]
    while todo:
        place = todo.pop()
        for key in neighbours(place) if place is not None else ():
            found = find(key)
            if found not in met:
                met.add(found)
                todo.append(found)
                yield key


def _itself(node: Node) -> Node:
    return node


_node_of = attrgetter("node")
_sources_of = attrgetter("sources")
_readers_of = attrgetter("readers")


@contextmanager
def collection_off() -> Iterator[None]:
    """No automatic collection while all that is built is alive: looking at it again and again costs as much."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


# ---- what differs


@attrs.frozen
class Difference:
    """What a change from one topology to another touches, each key once: among what is active."""

    added: frozenset[Key]
    removed: frozenset[Key]
    replaced: frozenset[Key]
    """Described otherwise: another process, other options, or other keys to read."""
    rewired: frozenset[Key]
    """Described as before, but read by others, or on other outputs."""

    @property
    def touched(self) -> frozenset[Key]:
        """All of these: their epoch becomes the change's."""
        return self.added | self.removed | self.replaced | self.rewired


def difference(old: Topology, new: Topology) -> Difference:
    """Return what differs between two topologies.

    Where one was edited from the other, this looks only at what the edits changed.
    """
    nodes = {key: (_found(old, key), _found(new, key)) for key in _candidates(old, new)}
    differ = {key: pair for key, pair in nodes.items() if pair[0] is not pair[1] and pair[0] != pair[1]}
    added = frozenset(key for key, (before, _) in differ.items() if before is None)
    removed = frozenset(key for key, (_, after) in differ.items() if after is None)
    rewired = chain.from_iterable(_sources_changed(*pair) for pair in differ.values())
    return Difference(added, removed, frozenset(differ) - added - removed, frozenset(rewired) - frozenset(differ))


def _candidates(old: Topology, new: Topology) -> Iterable[Key]:
    for one, other in ((new, old), (old, new)):
        changed = one.changed_since(other)
        if changed is not None:
            return changed
    return frozenset(chain(old._places, new._places))


def _found(topology: Topology, key: Key) -> Node | None:
    place = topology._places.get(key)
    return None if place is None else place.node


def _sources_changed(before: Node | None, after: Node | None) -> Iterator[Key]:
    """What one of the two nodes reads and the other does not."""
    if before is not None and after is not None and before.reads == after.reads:
        return iter(())
    reads = [frozenset(() if node is None else node.reads) for node in (before, after)]
    return map(node_key, reads[0] ^ reads[1])
