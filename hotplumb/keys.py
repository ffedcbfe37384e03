"""Keys: frozen data that names a node; their canonical text; and when two descriptions of a node are the same.

    freeze(value)      mappings become pyrsistent maps, lists and tuples tuples, sets frozensets, at every depth
    canonical(key)     its text, the same in every process; equal keys have one text
    key_order(key)     for sorted(): the same order in every process, whatever types are mixed
    same(a, b)         functions by their own code and what they hold, values by type and ==

Equality is Python's: 1, True, 1.0 and Decimal(1) are one key, and so are an IntEnum member and its number.  What is
equal must read alike, so the text of a key shows its value and not its type: `freeze(a) == freeze(b)` implies
`canonical(a) == canonical(b)`.  The converse holds for all but objects of two classes of one name, and of classes
with an `==` of their own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable, Iterable, Mapping, Set
from datetime import date, datetime, time, timedelta
from decimal import MAX_EMAX, MAX_PREC, MIN_EMIN, Context, Decimal
from enum import Enum
from functools import lru_cache, partial
from itertools import chain
from operator import attrgetter, is_, itemgetter, methodcaller
from pathlib import PosixPath, PurePath, PurePosixPath, PureWindowsPath, WindowsPath
from reprlib import repr as short_repr
from types import BuiltinFunctionType, CellType, CodeType, FunctionType, MethodType
from typing import Any, NoReturn, TypeAlias, cast
from uuid import UUID

import attrs
from pyrsistent import PMap, PVector, pmap

from hotplumb.errors import UnfreezableKey

Key: TypeAlias = Hashable

# ((how to write the step, what to write in it, the container it leads into), ...): ("[{}]", 2, ["a", "b", nan])
_Place: TypeAlias = tuple[tuple[str, object, object], ...]

# Hashing and comparing a key recurse, so Python's recursion limit bounds how deep a key can be: far above any name.
_MAX_DEPTH = 100

# Their values are frozen whatever they are.
_PLAIN = frozenset(
    {type(None), bool, int, str, bytes, date, timedelta, UUID}
    | {PurePosixPath, PureWindowsPath, PosixPath, WindowsPath}
)


def freeze(value: object) -> Key:
    """Return the frozen form of a key, which is `value` itself where that is frozen.

    Mappings become `pyrsistent.PMap`, lists and tuples tuples, sets frozensets, at every depth.  Leaves are None, bool,
    int, float but nan, str, bytes, Enum members, dates and times, Decimal, UUID, paths, and objects of frozen attrs
    classes and dataclasses, whose fields are frozen likewise.  An object of a subclass (namedtuple, numpy.float64,
    concrete path of your own) becomes the plain type that it equals.

    >>> match freeze({"feed": ["cpu", 1]}):
    ...     case {"feed": (name, number)}:
    ...         print(name, number)
    cpu 1

    Raises:
        UnfreezableKey: a part has no frozen form, contains itself, or is nested more than 100 levels deep.
    """
    if type(value) in _PLAIN:
        return value
    return _frozen(value, ())


def _frozen(value: Any, place: _Place) -> Key:
    if type(value) in _PLAIN:
        return cast(Key, value)
    if len(place) > _MAX_DEPTH:
        _reject_depth(value, place)
    match value:
        case dict() | PMap():
            return _frozen_map(value, place)
        case list() | tuple():
            return _frozen_tuple(value, place)
        case set() | frozenset():
            return _frozen_set(value, place)
        case Enum():
            return _checked(value, place)
        case _ if isinstance(value, _LEAF_TYPES):
            return _frozen_leaf(value, place)
        case Mapping():
            return _frozen_map(value, place)
        case PVector():
            return _frozen_tuple(value, place)
        case Set():
            return _frozen_set(value, place)
    return _frozen_object(value, place)


def _frozen_map(value: Mapping[Any, Any], place: _Place) -> Key:
    before = list(value.items())
    if _are_plain(chain.from_iterable(before)):
        after = dict(before)
    else:
        after = dict(_frozen_entry(name, part, (value, place)) for name, part in before)
    if len(after) != len(before):
        _reject(value, place, "two of its keys are equal when frozen: give each another")
    if type(value) is PMap and all(map(is_, chain.from_iterable(after.items()), chain.from_iterable(before))):
        return value
    return pmap(after)


def _frozen_entry(name: object, part: object, within: tuple[object, _Place]) -> tuple[Key, Key]:
    container, place = within
    frozen_name = _frozen(name, (*place, ("{{{}}}", name, container)))
    return frozen_name, _frozen(part, (*place, ("[{}]", name, container)))


def _frozen_tuple(value: Iterable[Any], place: _Place) -> Key:
    if type(value) is tuple and _are_plain(value):
        return value
    parts = tuple([_frozen(part, (*place, ("[{}]", i, value))) for i, part in enumerate(value)])
    return value if type(value) is tuple and all(map(is_, parts, value)) else parts


def _frozen_set(value: Set[Any], place: _Place) -> Key:
    members = list(value)
    frozen = [_frozen(member, (*place, ("{{{}}}", member, value))) for member in members]
    return value if type(value) is frozenset and all(map(is_, frozen, members)) else frozenset(frozen)


def _frozen_leaf(value: Any, place: _Place) -> Key:
    leaf = _checked(value, place)
    if type(value) in _LEAVES:
        return leaf
    plain = _plain(value)
    if plain == leaf:
        return plain
    _reject(value, place, f"it holds more than the {type(plain).__name__} {plain}: give that, or a tuple")


def _frozen_object(value: Any, place: _Place) -> Key:
    if _frozen_names(value) is None:
        _reject(value, place, _why_no_key(value))
    if _equality(value) is object.__eq__:
        _reject(value, place, "one made anew would be another key: let its class compare by fields (eq=True)")
    changes = _frozen_fields(value, place)
    if changes:
        value = _evolved(value, changes, place)
    if changes and _frozen_fields(value, place):
        _reject(value, place, f"its class does not keep frozen fields as given: {', '.join(changes)}")
    return _checked(value, place)


def _frozen_fields(value: Any, place: _Place) -> dict[str, Key]:
    """The fields whose frozen form is another object: {name: that form}."""
    before = {name: getattr(value, name) for name in _frozen_names(value) or ()}
    after = {name: _frozen(part, (*place, (f".{name}", None, value))) for name, part in before.items()}
    return {name: part for name, part in after.items() if part is not before[name]}


def _evolved(value: Any, changes: dict[str, Key], place: _Place) -> Any:
    try:
        if attrs.has(type(value)):
            aliases = {field.name: field.alias for field in attrs.fields(type(value))}
            return attrs.evolve(value, **{aliases[name] or name: part for name, part in changes.items()})
        return dataclasses.replace(value, **changes)
    except Exception as exc:
        _reject(value, place, f"{', '.join(changes)} cannot be replaced by the frozen form: {exc}", exc)


def _frozen_names(value: object) -> tuple[str, ...] | None:
    """The fields of an object of a frozen attrs class or dataclass; None for any other."""
    return _names_if_frozen(type(value))  # type: ignore[arg-type]  # mypy takes the hash of its objects


@lru_cache(maxsize=256)
def _names_if_frozen(cls: type[object]) -> tuple[str, ...] | None:
    names: tuple[str, ...]
    if attrs.has(cls):
        names = tuple(field.name for field in attrs.fields(cls))
    elif dataclasses.is_dataclass(cls):
        names = tuple(field.name for field in dataclasses.fields(cls))
    else:
        return None
    return names if _is_frozen(cls, *names[:1]) else None


def _is_frozen(cls: type, attribute: str = "any") -> bool:
    """Try to change an empty object of the class: neither library has a public way to ask."""
    try:
        setattr(object.__new__(cls), attribute, None)
    except (attrs.exceptions.FrozenInstanceError, dataclasses.FrozenInstanceError):
        return True
    except Exception:  # a converter or validator that runs on change, so it can change
        return False
    return False


def _equality(value: object) -> object:
    """The `__eq__` of its class, to be told from those we know."""
    return type(value).__eq__


def _are_plain(values: Iterable[object]) -> bool:
    return _PLAIN.issuperset(map(type, values))


def _checked(value: Any, place: _Place) -> Key:
    """`value`, which can be found again in a dict."""
    try:
        hash(value)
        is_itself = bool(value == value)
    except Exception as exc:
        _reject(value, place, f"it cannot be hashed and compared: {exc}", exc)
    if not is_itself:
        _reject(value, place, "it is not equal to itself, so it could never be found again: give None or a text")
    return cast(Key, value)


def _reject_depth(value: object, place: _Place) -> NoReturn:
    met: set[int] = set()
    for depth, (_, _, container) in enumerate(place):
        if id(container) in met:
            _reject(container, place[:depth], "it contains itself, and a key must end: name that part by a text")
        met.add(id(container))
    _reject(value, place, f"keys are nested at most {_MAX_DEPTH} levels deep: give a flat tuple, or a text")


def _reject(value: object, place: _Place, reason: str, cause: Exception | None = None) -> NoReturn:
    key = place[0][2] if place else value
    text = "".join(form.format(_part_text(part)) for form, part, _ in place)
    raise UnfreezableKey(key, f"key{text}", value, reason) from cause


def _part_text(part: object) -> str:
    try:
        return _quoted(part) if isinstance(part, str) else short_repr(part)
    except Exception:
        return f"<{type(part).__name__}>"


def _why_no_key(value: object) -> str:
    kind = type(value)
    if attrs.has(kind) or dataclasses.is_dataclass(kind):
        return "it can change: freeze its class, by @attrs.frozen or @dataclass(frozen=True)"
    if isinstance(value, (bytearray, memoryview)):
        return "it can change: give bytes"
    if callable(value):
        return "code is no name: give its name as a text, and let the factory look it up"
    if isinstance(value, Iterable):
        return f"a {kind.__name__} has no frozen form: give a tuple of what is in it"
    return (
        f"a {kind.__name__} has no frozen form: give text, numbers, dates, mappings, lists or sets of these, "
        "or an object of a frozen class"
    )


def _plain(value: object) -> Key:
    """The plain leaf that an object of a leaf type, or of a subclass, stands for."""
    return next(plain for base, plain in _LEAVES.items() if isinstance(value, base))(value)


def _plain_datetime(value: datetime) -> datetime:
    return datetime.combine(_plain_date(value), _plain_time(value.timetz()))


def _plain_date(value: date) -> date:
    return date(value.year, value.month, value.day)


def _plain_time(value: time) -> time:
    return time(value.hour, value.minute, value.second, value.microsecond, value.tzinfo, fold=value.fold)


def _plain_path(value: PurePath) -> PurePath:
    return (PureWindowsPath if isinstance(value, PureWindowsPath) else PurePosixPath)(value)


# {type: makes the plain one of an object of a subclass}; a datetime is a date, so it stands first.
_LEAVES: dict[type, Callable[[Any], Key]] = {
    str: str.__str__,
    bytes: bytes.__bytes__,
    int: int.__int__,
    float: float.__float__,
    datetime: _plain_datetime,
    date: _plain_date,
    time: _plain_time,
    timedelta: lambda value: timedelta(value.days, value.seconds, value.microseconds),
    Decimal: Decimal,
    UUID: lambda value: UUID(int=value.int),
    PurePath: _plain_path,
}
_LEAF_TYPES = tuple(_LEAVES)


@attrs.frozen(cache_hash=True)
class Output:
    """The key of one output of a `route` node: what `output(key, name)` makes."""

    key: Key = attrs.field(converter=freeze)
    """The key of the `route` node."""
    name: Key = attrs.field(converter=freeze)
    """What `choose(value)` gives for the values on this output."""


@attrs.frozen(cache_hash=True)
class Errors:
    """The key of the failures of one node: what `errors(key)` makes."""

    key: Key = attrs.field(converter=freeze)
    """The key of the node that fails."""


@attrs.frozen(cache_hash=True)
class AllErrors:
    """The key of the failures of all nodes, whose one value is `ERRORS`."""


ERRORS = AllErrors()
"""The key of the stream of every `Failure`, whichever node it came from."""


def output(key: object, name: object) -> Output:
    """Return the key of the output `name` of the `route` node `key`.

    >>> output("parts", "left")
    Output(key='parts', name='left')

    Raises:
        UnfreezableKey: `key` or `name` cannot be frozen.
    """
    return Output(key, name)


def errors(key: object) -> Errors:
    """Return the key of the stream of each `Failure` of the node `key`.

    >>> errors("parse")
    Errors(key='parse')

    Raises:
        UnfreezableKey: `key` cannot be frozen.
    """
    return Errors(key)


# Integers shorter than this are written out, which holds for a UUID's 128 bits; longer ones as floats or decimals.
_LONG = 10**40

# Strips the zeros off a Decimal and never rounds it.
_EXACT = Context(prec=MAX_PREC, Emin=MIN_EMIN, Emax=MAX_EMAX, traps=[])


def canonical(key: object) -> str:
    """Return the text of a key, the same in every process, and one for all equal keys.

    It reads like Python, with entries and members sorted by their texts.  True is shown as the 1 that it equals,
    an IntEnum member as its number, a moment in UTC.

    >>> canonical({"rollup_s": 10.0, "feed": "cpu"})
    '{"feed": "cpu", "rollup_s": 10}'

    Raises:
        UnfreezableKey: `key` cannot be frozen.
    """
    return _text(freeze(key))


def key_order(key: object) -> str:
    """Return what to sort keys by: `sorted(keys, key=key_order)` is the same in every process."""
    return canonical(key)


def _text(key: Any) -> str:
    match key:
        case Enum():
            return _member_text(key)
        case str():
            return _quoted(key)
        case int() | float() | Decimal():
            return _number_text(key)
        case None | bytes():
            return repr(key)
        case PMap():
            entries = sorted((_text(name), _text(part)) for name, part in key.iteritems())
            return f"{{{', '.join(f'{name}: {part}' for name, part in entries)}}}"
        case tuple():
            return f"({', '.join(map(_text, key))}{',' * (len(key) == 1)})"
        case frozenset():
            return f"{{{', '.join(sorted(map(_text, key)))}}}" if key else "frozenset()"
    return _object_text(key)


def _object_text(key: Any) -> str:
    match key:
        case Output(of, name):
            return f"output({_text(of)}, {_text(name)})"
        case Errors(of):
            return f"errors({_text(of)})"
        case AllErrors():
            return "ERRORS"
        case datetime():
            return f"datetime({_quoted(_moment(key))})"
        case time():
            return f"time({_quoted(_time_of_day(key))})"
        case date() | UUID():
            return f"{type(key).__name__}({_quoted(str(key))})"
        case timedelta():
            return repr(key).removeprefix("datetime.")
        case PurePath():
            return _path_text(key)
    fields = ", ".join(f"{name}={canonical(part)}" for name, part in _compared_fields(key))
    return f"{_class_text(type(key))}({fields})"


def _class_text(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _member_text(member: Enum) -> str:
    """The text of an IntEnum or StrEnum member is that of the value it equals."""
    if isinstance(member, _LEAF_TYPES):
        plain = _plain(member)
        if plain == member:
            return _text(plain)
    name = f".{member.name}" if member.name else f"({member.value!r})"  # bits of a Flag may have no name
    return _class_text(type(member)) + name


def _quoted(text: str) -> str:
    """Its `repr`, in double quotes whatever it holds."""
    inner = repr('"' + text)[2:-1]  # a double quote in it makes repr choose single ones, and escape those
    return '"' + inner.replace("\\'", "'").replace('"', '\\"') + '"'


def _number_text(number: int | float | Decimal) -> str:
    """One text for all numbers that are equal: an integer, else a float, else a Decimal."""
    if -_LONG < number < _LONG and number == int(number):
        return str(int(number))
    if _nearest_float(number) == number:
        return repr(_nearest_float(number))
    return f'Decimal("{Decimal(number).normalize(_EXACT)}")'


def _nearest_float(number: int | float | Decimal) -> float:
    try:
        return float(number)
    except OverflowError:
        return float("inf")


def _moment(value: datetime) -> str:
    """ISO 8601, in UTC where the zone is known; equal moments of two zones give one text.

    Where clocks are put forward or back, a time with a zone equals none but that of its own zone, whatever its fold
    (PEP 495): it is shown with its zone instead.
    """
    naive = value.replace(tzinfo=None, fold=0)
    offset, later_offset = value.replace(fold=0).utcoffset(), value.replace(fold=1).utcoffset()
    if offset is None:
        return naive.isoformat()
    if offset != later_offset:
        return f"{naive.isoformat()} {value.tzinfo}"
    try:
        return f"{(naive - offset).isoformat()}+00:00"
    except OverflowError:  # in UTC it lies in the year 0 or 10000
        return f"{datetime.min.isoformat()} + {naive - datetime.min - offset}"


def _time_of_day(value: time) -> str:
    """A time in UTC may lie on the day before or after, which == distinguishes: "-1 day, 23:00:00+00:00"."""
    offset = value.utcoffset()
    naive = value.replace(tzinfo=None, fold=0)
    if offset is None:
        return naive.isoformat()
    return f"{datetime.combine(date.min, naive) - datetime.min - offset}+00:00"


def _path_text(path: PurePath) -> str:
    if isinstance(path, PureWindowsPath):
        return f"PureWindowsPath({_quoted(path.as_posix().lower())})"
    return f"PurePosixPath({_quoted(path.as_posix())})"


def _compared_fields(value: Any) -> list[tuple[str, Any]]:
    """Name and value of the fields that == looks at, as it looks at them."""
    if not attrs.has(type(value)):
        return [(field.name, getattr(value, field.name)) for field in dataclasses.fields(value) if field.compare]
    compared = [field for field in attrs.fields(type(value)) if field.eq]
    return [(field.name, (field.eq_key or _as_it_is)(getattr(value, field.name))) for field in compared]


def _as_it_is(value: Any) -> Any:
    return value


def same(a: object, b: object) -> bool:
    """Say whether two parts of a node's description are the same.

        functions           own code: module, qualified name, bytecode, names, constants with their types, flags,
                            defaults, closure values; not file, lines, attributes, nor what they call
        partials, methods   their parts; itemgetter, attrgetter and methodcaller their arguments
        lists, dicts, sets  their elements, and likewise tuples and persistent maps
        classes             identity: one defined anew differs
        all else            identity, or type and ==; one whose == raises or gives no bool is different

    A builtin method of what cannot be hashed, such as `results.append`, acts on that object and no other: two are the
    same only where the object is, though two empty lists are equal.  What contains itself is compared to its end.

    >>> same(lambda x: x + 1, lambda x: x + True)
    False
    """
    met = {}  # {(id, id): the pair}, which keeps both alive so that no other gets their id
    todo = [(a, b)]
    while todo:
        one, other = pair = todo.pop()
        ids = (id(one), id(other))
        if one is other or ids in met:
            continue
        met[ids] = pair
        parts = _matched_parts(one, other)
        if parts is None:
            return False
        todo.extend(parts)
    return True


_Pairs: TypeAlias = list[tuple[object, object]]

# What compares as these do is compared element by element instead, so that 1 is not True and functions may stand in it.
_ELEMENTWISE = (list.__eq__, tuple.__eq__, dict.__eq__, set.__eq__, frozenset.__eq__, PMap.__eq__)


def _matched_parts(a: Any, b: Any) -> _Pairs | None:
    """The pairs that must be the same if `a` and `b` are to be; None if these differ, whatever is in them."""
    if type(a) is not type(b):
        return None
    try:
        return _parts_by_type(a, b)
    except Exception:  # `==` and `hash` may be the user's: what cannot be compared is different
        return None


def _parts_by_type(a: Any, b: Any) -> _Pairs | None:
    match a:
        case type():
            return None
        case FunctionType():
            return _function_parts(a, b)
        case CodeType():
            return _no_more_if(_code_form(a) == _code_form(b))
        case partial() if type(a) is partial:
            return [(a.func, b.func), (a.args, b.args), (a.keywords, b.keywords)]
        case MethodType():
            return [(a.__func__, b.__func__), (a.__self__, b.__self__)]
        case staticmethod() | classmethod():
            return [(a.__func__, b.__func__)]
        case itemgetter() | attrgetter() | methodcaller():
            return [(a.__reduce__(), b.__reduce__())]  # (class, arguments): they have no `==`
        case BuiltinFunctionType():
            return _builtin_parts(a, b)
    if _equality(a) in _ELEMENTWISE:
        return _element_parts(a, b)
    return _no_more_if((a == b) is True)


def _element_parts(a: Any, b: Any) -> _Pairs | None:
    if len(a) != len(b):
        return None
    if isinstance(a, (list, tuple)):
        return _pairs(list(a), list(b))
    partners = {member: member for member in b}  # of equal members, which may differ in type
    if not all(member in partners for member in a):
        return None
    members = _pairs(list(a), [partners[member] for member in a])
    if members is None or isinstance(a, (set, frozenset)):
        return members
    values = _pairs([a[name] for name in a], [b[name] for name in a])
    return None if values is None else members + values


def _pairs(a: list[object], b: list[object]) -> _Pairs | None:
    if _are_plain(a):  # at the speed of C: a source may be a list of a million numbers
        return _no_more_if(a == b and all(map(is_, map(type, a), map(type, b))))
    return list(zip(a, b, strict=True))


def _function_parts(a: FunctionType, b: FunctionType) -> _Pairs | None:
    if (a.__module__, a.__qualname__) != (b.__module__, b.__qualname__):
        return None
    defaults = [(a.__defaults__, b.__defaults__), (a.__kwdefaults__, b.__kwdefaults__)]
    return [(a.__code__, b.__code__), *defaults, (_held(a), _held(b))]


class _Unbound(Enum):
    """What a closure holds for a variable that has no value yet."""

    UNBOUND = 0


def _held(function: FunctionType) -> tuple[object, ...]:
    return tuple(map(_cell_value, function.__closure__ or ()))


def _cell_value(cell: CellType) -> object:
    try:
        return cell.cell_contents
    except ValueError:
        return _Unbound.UNBOUND


def _builtin_parts(a: BuiltinFunctionType, b: BuiltinFunctionType) -> _Pairs | None:
    if type(a.__self__).__hash__ is None:
        return _no_more_if(a == b)
    names_match = (a.__module__, a.__qualname__) == (b.__module__, b.__qualname__)
    return [(a.__self__, b.__self__)] if names_match else None


def _no_more_if(equal: bool) -> _Pairs | None:
    return [] if equal else None


def _code_form(code: CodeType) -> tuple[object, ...]:
    """All of a code object that says what it does: neither file, lines nor columns, nor how it was specialised."""
    names = (code.co_name, code.co_qualname, code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
    arguments = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
    constants = tuple(map(_constant_form, code.co_consts))
    return (names, arguments, code.co_code, code.co_exceptiontable, constants)


def _constant_form(constant: object) -> Key:
    match constant:
        case CodeType():
            return _code_form(constant)
        case tuple():
            return tuple, tuple(map(_constant_form, constant))
        case frozenset():
            return frozenset, frozenset(map(_constant_form, constant))
        case float() | complex():
            return type(constant), repr(constant)  # which tells -0.0 from 0.0
    return type(constant), constant
