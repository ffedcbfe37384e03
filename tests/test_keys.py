"""What names a node, how that reads, and when two descriptions of a node are the same."""

import os
import subprocess
import sys
from collections import OrderedDict, UserDict, deque, namedtuple
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, Flag, IntEnum, StrEnum
from functools import partial, wraps
from itertools import permutations
from pathlib import Path, PurePosixPath, PureWindowsPath
from types import MappingProxyType
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyrsistent import PMap, pmap, pset, pvector

from hotplumb.errors import UnfreezableKey
from hotplumb.keys import ERRORS, Errors, Output, canonical, errors, freeze, key_order, output, same

NEW_YORK = ZoneInfo("America/New_York")
BERLIN = ZoneInfo("Europe/Berlin")
FOUR_WEST, TWO_EAST, THREE_EAST = (timezone(timedelta(hours=hours)) for hours in (-4, 2, 3))
Point = namedtuple("Point", "x y")


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Level(IntEnum):
    LOW = 0
    HIGH = 1


class Side(StrEnum):
    LEFT = "left"


class Right(Flag):
    READ = 1
    WRITE = 2


class Corner(tuple, Enum):  # type: ignore[type-arg]
    ORIGIN = (0, 0)


@dataclass(frozen=True)
class Feed:
    name: str
    tags: Any = ()
    note: Any = field(default=None, compare=False)


@attrs.frozen
class Window:
    size: Any
    unit: Any = attrs.field(default="s", eq=str.lower)
    note: Any = attrs.field(default=None, eq=False)


# ---- freeze and canonical

texts = st.text(max_size=5) | st.sampled_from(["", "a", "1", "None", "it's", '"', "'\"", "\\", "\\'", "\n", "\ud800"])
numbers = (
    st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.decimals(allow_nan=False)
    | st.sampled_from([10**40, 10**400, -(10**4000) + 1, 2**1000, Decimal("1E+5000"), Decimal("1E-5000")])
)
zones = st.sampled_from([None, UTC, NEW_YORK, BERLIN, FOUR_WEST, timezone(timedelta(hours=14))])
datetimes = st.datetimes(timezones=zones) | st.sampled_from(
    [datetime(2026, 11, 1, 1, 30, tzinfo=NEW_YORK, fold=fold) for fold in (0, 1)]
    + [datetime(2026, 11, 1, hour, 30, tzinfo=UTC) for hour in (5, 6)]
    + [datetime(2026, 3, 8, hour, 30, tzinfo=zone) for hour in (2, 3) for zone in (NEW_YORK, FOUR_WEST)]
)
every_leaf = (
    st.none()
    | texts
    | numbers
    | datetimes
    | st.binary(max_size=3)
    | st.dates()
    | st.times(timezones=zones)
    | st.timedeltas()
    | st.uuids()
    | texts.map(PurePosixPath)
    | texts.map(PureWindowsPath)
    | st.sampled_from([*Colour, *Level, *Side, Right.READ, Right(0), Right.READ | Right.WRITE])
)


@st.composite
def leaf(draw: st.DrawFn) -> Any:
    """One of every leaf, under a short name: Hypothesis writes the strategies of compound keys out many times."""
    return draw(every_leaf)


def compound(parts: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    hashable = parts.map(freeze)
    return (
        st.lists(parts, max_size=3)
        | st.lists(parts, max_size=3).map(tuple)
        | st.sets(hashable, max_size=3)
        | st.dictionaries(hashable, parts, max_size=3)
        | st.builds(Feed, texts, parts)
        | st.builds(Window, parts, texts, parts)
        | st.builds(output, parts, parts)
        | st.builds(errors, parts)
    )


raw_keys = st.recursive(leaf(), compound, max_leaves=8)

# Few values in few shapes, so that two drawn at random are often equal.
alike = st.sampled_from([0, False, -0.0, Decimal("-0"), Level.LOW]) | st.sampled_from(
    [1, True, 1.0, Decimal("1.00"), Level.HIGH, "1", "left", Side.LEFT, "Left"]
)
shapes = st.recursive(alike, compound, max_leaves=3)

# Each line is one key, written in several ways.
KEYS: list[list[object]] = [
    [0, False, 0.0, -0.0, Decimal(0), Decimal("-0.00"), Level.LOW],
    [1, True, 1.0, Decimal(1), Decimal("1.00"), Level.HIGH],
    [0.1],
    [Decimal("0.1"), Decimal("0.10")],
    [0.5, Decimal("0.5"), Decimal("0.500")],
    [10**23, Decimal("1e23")],
    [1e23, Decimal.from_float(1e23), int(1e23)],
    [10**40, Decimal("1e40")],
    [2**200, float(2**200), Decimal(2**200)],
    [10**5000, Decimal("1e5000"), Decimal("10e4999")],
    [10**5000 + 1, Decimal(10**5000 + 1)],
    [Decimal("1e999999"), Decimal("1.0e999999")],
    [Decimal("1e-999999"), Decimal("10e-1000000")],
    [float("inf"), Decimal("Infinity")],
    [float("-inf"), Decimal("-Infinity")],
    ["1"],
    [b"1"],
    ["left", Side.LEFT],
    [Colour.RED],
    [Colour.BLUE],
    ["red"],
    [None],
    ["None"],
    [Right(0)],
    [Right.READ],
    [Right.READ | Right.WRITE],
    [(), [], pvector()],
    [(0, 0), [0, 0], Point(0, 0), Corner.ORIGIN, pvector([0, 0])],
    [((0, 0),), [[0, 0]]],
    [(0, (0,)), [False, [0.0]]],
    [{}, pmap(), MappingProxyType({}), UserDict()],
    [set(), frozenset(), pset(), {}.keys()],
    [{1}, frozenset([True]), pset([1.0]), {1: 2}.keys()],
    [{"a": 1, "b": 2}, {"b": 2, "a": 1}, OrderedDict(b=2, a=1), pmap({"a": 1, "b": 2})],
    [{"a": 1}],
    ['{"a": 1}'],
    [{"a": (1,)}, {"a": [True]}],
    [{("a", 1)}],
    [{1: "a"}, {True: "a"}],
    [{"1": "a"}],
    [date(2026, 1, 2)],
    [datetime(2026, 1, 2), datetime(2026, 1, 2, fold=1)],
    [datetime(2026, 1, 2, tzinfo=UTC), datetime(2026, 1, 1, 19, tzinfo=NEW_YORK)],
    [datetime(2026, 11, 1, 1, 30, tzinfo=NEW_YORK), datetime(2026, 11, 1, 1, 30, tzinfo=NEW_YORK, fold=1)],
    [datetime(2026, 11, 1, 5, 30, tzinfo=UTC), datetime(2026, 11, 1, 1, 30, tzinfo=FOUR_WEST)],
    [datetime(2026, 3, 8, 2, 30, tzinfo=NEW_YORK)],
    [datetime(2026, 3, 8, 3, 30, tzinfo=NEW_YORK), datetime(2026, 3, 8, 7, 30, tzinfo=UTC)],
    [
        datetime.min.replace(tzinfo=TWO_EAST),
        datetime(1, 1, 1, 1, tzinfo=THREE_EAST),
    ],
    [time(12), time(12, fold=1), time(12, tzinfo=BERLIN)],
    [time(12, tzinfo=UTC), time(8, tzinfo=FOUR_WEST)],
    [time(0, tzinfo=timezone(timedelta(hours=1))), time(1, tzinfo=timezone(timedelta(hours=2)))],
    [time(23, tzinfo=UTC)],
    [timedelta(hours=24), timedelta(days=1)],
    [UUID(int=7)],
    [PurePosixPath("a/b"), PurePosixPath("a//b/"), PurePosixPath("a/./b")],
    [PurePosixPath("A/b")],
    [PureWindowsPath("a/b"), PureWindowsPath("A\\B")],
    [Feed("cpu"), Feed("cpu", []), Feed("cpu", (), "not compared")],
    [Feed("cpu", {"a": [1]}), Feed("cpu", pmap({"a": (True,)}))],
    [Window(10), Window(10.0), Window(10, "S"), Window(10, note="not compared")],
    [output("parts", ["left"]), Output("parts", (Side.LEFT,))],
    [errors("x"), Errors("x")],
    [errors(None)],
    [ERRORS],
]


def disguise(key: Any) -> Any:
    """The same key, written with other types and in another order."""
    match key:
        case Enum() | str():
            return key
        case int() | float():
            return Decimal(key)
        case Decimal() if key.is_finite() and abs(key) < 10**9 and key == int(key):
            return float(key)
        case datetime() if key.tzinfo is not None and 1 < key.year < 9999:
            return key.astimezone(UTC) if key.astimezone(UTC) == key else key
        case list() | tuple():
            return pvector(map(disguise, key))
        case dict() | PMap():
            return UserDict({freeze(disguise(name)): disguise(key[name]) for name in reversed(list(key))})
        case set() | frozenset():
            return pset(map(freeze, map(disguise, key)))
        case Feed():
            return Feed(disguise(key.name), disguise(key.tags), "not compared")
        case Output():
            return Output(disguise(key.key), disguise(key.name))
    return key


@given(raw_keys)
def test_frozen_data_is_left_as_it_is(key: object) -> None:
    """Freezing what is frozen gives the very object, and what is frozen can be looked up."""
    frozen = freeze(key)
    assert freeze(frozen) is frozen
    assert {frozen: 1}[frozen] == 1


@given(raw_keys)
def test_frozen_data_holds_nothing_that_changes(key: object) -> None:
    """No list, dict or set is left in a key, however deep."""

    def check(part: Any) -> None:
        assert not isinstance(part, (list, dict, set))
        match part:
            case PMap():
                check(tuple(part.items()))
            case tuple() | frozenset():
                assert type(part) in (tuple, frozenset)
                list(map(check, part))
            case Feed() | Output():
                check((part.name, part.tags if isinstance(part, Feed) else part.key))

    check(freeze(key))


@given(raw_keys)
def test_equal_keys_have_one_text(key: object) -> None:
    """A key reads the same whatever types and order it is written with."""
    other = disguise(key)
    assert freeze(other) == freeze(key)
    assert hash(freeze(other)) == hash(freeze(key))
    assert canonical(other) == canonical(key)


@given(leaf(), leaf())
def test_different_leaves_have_different_texts(a: object, b: object) -> None:
    """The text of a leaf tells it from every other."""
    assert (freeze(a) == freeze(b)) is (canonical(a) == canonical(b))


@given(shapes, shapes)
def test_different_shapes_have_different_texts(a: object, b: object) -> None:
    """The text of a key tells it from every other, nested ones too."""
    assert (freeze(a) == freeze(b)) is (canonical(a) == canonical(b))


@pytest.mark.parametrize("row", range(len(KEYS)))
def test_a_key_has_many_spellings_and_one_text(row: int) -> None:
    """All spellings of a key are equal, read alike, and differ from every other key and its text."""
    for one, other in permutations(KEYS[row], 2):
        assert freeze(one) == freeze(other)
        assert canonical(one) == canonical(other)
    others = [key for i, keys in enumerate(KEYS) if i != row for key in keys]
    for one in KEYS[row]:
        assert freeze(one) not in list(map(freeze, others))
        assert canonical(one) not in list(map(canonical, others))


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("screen", '"screen"'),
        ('it\'s "so"', '"it\'s \\"so\\""'),
        ({"rollup_s": 10.0, "feed": "cpu"}, '{"feed": "cpu", "rollup_s": 10}'),
        (["a", [True], []], '("a", (1,), ())'),
        ({"b", "a"}, '{"a", "b"}'),
        ({"empty": (set(), {})}, '{"empty": (frozenset(), {})}'),
        ([None, 0.1, Decimal("0.10"), b"x", -0.0], "(None, 0.1, Decimal(\"0.1\"), b'x', 0)"),
        (1e300, "1e+300"),
        (Colour.RED, f"{__name__}.Colour.RED"),
        (Right.READ | Right.WRITE, f"{__name__}.Right.READ|WRITE"),
        (Right(0), f"{__name__}.Right(0)"),
        (Feed("cpu", ["a"]), f'{__name__}.Feed(name="cpu", tags=("a",))'),
        (datetime(2026, 1, 2, 3, tzinfo=BERLIN), 'datetime("2026-01-02T02:00:00+00:00")'),
        (datetime(2026, 3, 8, 2, 30, tzinfo=NEW_YORK), 'datetime("2026-03-08T02:30:00 America/New_York")'),
        (date(2026, 1, 2), 'date("2026-01-02")'),
        (timedelta(seconds=90), "timedelta(seconds=90)"),
        (UUID(int=1), 'UUID("00000000-0000-0000-0000-000000000001")'),
        (Path("a/b"), 'PurePosixPath("a/b")' if os.name == "posix" else 'PureWindowsPath("a/b")'),
        (output("parts", "left"), 'output("parts", "left")'),
        (errors({"feed": "cpu"}), 'errors({"feed": "cpu"})'),
        (ERRORS, "ERRORS"),
    ],
)
def test_text_reads_like_python(key: object, text: str) -> None:
    """A key is shown as one would write it."""
    assert canonical(key) == text


SHOW_KEYS = """
from datetime import date
from hotplumb.keys import canonical, key_order, output
names = ["cpu", "memory", "disk", "net", "it's"]
keys = [{name: i, "tags": {*names, 1, None, (name,)}, date(2026, 1, 2): {b"x"}} for i, name in enumerate(names)]
mixed = set(map(hash, names)) and {*names, 1, None, ("a", 1), output("a", "b"), frozenset(names), 2.5}
print(*map(canonical, keys), *map(canonical, sorted(mixed, key=key_order)), sep="\\n")
"""


def shown_with_hash_seed(seed: int) -> str:
    root = str(Path(sys.modules["hotplumb.keys"].__file__ or "").parent.parent)
    environment = {**os.environ, "PYTHONHASHSEED": str(seed), "PYTHONPATH": root}
    process = [sys.executable, "-c", SHOW_KEYS]
    return subprocess.run(process, env=environment, capture_output=True, text=True, check=True, timeout=60).stdout


def test_text_and_order_are_the_same_in_every_process() -> None:
    """Neither the text of keys nor their order depends on the seed of Python's hashes."""
    shown = [shown_with_hash_seed(seed) for seed in (1, 2, 3)]
    assert shown[0].count("\n") == 16
    assert shown[1:] == shown[:1] * 2


@given(st.lists(raw_keys, max_size=5))
def test_order_does_not_depend_on_the_order_given(keys: list[object]) -> None:
    """Keys of any types can be sorted together, always to the same order."""
    in_order = sorted(map(freeze, keys), key=key_order)
    other_order = list(reversed(keys))
    assert sorted(map(freeze, other_order), key=key_order) == in_order


def test_patterns_take_frozen_keys_apart() -> None:
    """A factory's `match` sees mappings, sequences, outputs and error streams."""

    def taken_apart(key: object) -> object:
        match freeze(key):
            case {"feed": name, "rollup_s": [low, high]}:
                return name, low, high
            case {"feed": {"host": host}}:
                return host
            case Output(of, name):
                return of, name
            case Errors(of):
                return of
            case [first, *_]:
                return first
        return None

    assert taken_apart({"feed": "cpu", "rollup_s": [1, 10]}) == ("cpu", 1, 10)
    assert taken_apart({"feed": {"host": "a"}}) == "a"
    assert taken_apart(output({"x": [1]}, "left")) == (pmap({"x": (1,)}), "left")
    assert taken_apart(errors(["x"])) == ("x",)
    assert taken_apart([1, 2]) == 1


def test_subclasses_of_plain_types_become_plain() -> None:
    """What a factory gets does not depend on which subclass a key was written with."""

    class Text(str):
        pass

    class Number(float):
        pass

    class Moment(datetime):
        pass

    class Pause(timedelta):
        pass

    class Place(PurePosixPath):
        pass

    given = [Text("a"), Number(0.5), Moment(2026, 1, 2, tzinfo=UTC), Pause(1), Place("a"), Point(1, 2)]
    assert [type(part) for part in map(freeze, given)] == [str, float, datetime, timedelta, PurePosixPath, tuple]
    assert list(map(freeze, given)) == given


def test_enum_members_and_paths_stay_what_they_are() -> None:
    """An enum member stays one, an IntEnum's too, and a path keeps its methods."""
    assert freeze([Level.HIGH, Side.LEFT, Path("x")]) == (Level.HIGH, Side.LEFT, Path("x"))
    assert [type(part) for part in freeze([Level.HIGH, Side.LEFT, Path("x")])] == [Level, Side, type(Path())]  # type: ignore[attr-defined]


def test_objects_of_frozen_classes_get_frozen_fields() -> None:
    """A list in a field of a frozen object becomes a tuple; an object that is frozen throughout is left alone."""
    assert freeze(Feed("cpu", ["a", {"b"}])) == Feed("cpu", ("a", frozenset({"b"})))
    assert freeze(Window([1])) == Window((1,))
    feed = Feed("cpu", ("a",))
    assert freeze(feed) is feed
    assert freeze({"x": [feed]}) == pmap({"x": (feed,)})


def test_fields_may_be_private() -> None:
    """A private attrs field, whose argument has another name, is frozen too."""

    @attrs.frozen
    class Private:
        _size: Any

    assert freeze(Private([1])) == Private((1,))


class Doubtful(float):
    def __eq__(self, other: object) -> bool:
        return type(other) is Doubtful and float(self) == float(other)

    __hash__ = float.__hash__


@dataclass
class Open:
    name: str


@dataclass(frozen=True, eq=False)
class Unequal:
    name: str


def as_list(items: Any) -> list[Any]:
    return list(items)


@attrs.frozen
class Listing:
    items: Any = attrs.field(converter=as_list)


@attrs.frozen
class Picky:
    items: Any = attrs.field(validator=attrs.validators.instance_of(list))


@dataclass(frozen=True)
class Derived:
    items: Any = field(init=False, default_factory=list)


class Nan(float, Enum):
    NAN = float("nan")


class Repeating(UserDict[str, int]):
    """As a multidict: a key comes twice."""

    def items(self) -> Any:
        return [("a", 1), ("a", 2)]


@pytest.mark.parametrize(
    ("key", "place", "reason"),
    [
        (float("nan"), "key", "not equal to itself"),
        ({"feeds": ["a", {"window": float("nan")}]}, 'key["feeds"][1]["window"]', "not equal to itself"),
        (Decimal("NaN"), "key", "not equal to itself"),
        (Decimal("sNaN"), "key", "cannot be hashed"),
        (Nan.NAN, "key", "not equal to itself"),
        ({"feeds": [0, 1, Window(object())]}, 'key["feeds"][2].size', "no frozen form"),
        ({3: {(4, 5): len}}, "key[3][(4, 5)]", "code is no name"),
        ([Colour], "key[0]", "code is no name"),
        ({(1, 1j): 2}, "key{(1, 1j)}[1]", "no frozen form"),
        ({"a": {1j}}, 'key["a"]{1j}', "no frozen form"),
        ((1, bytearray(b"x")), "key[1]", "give bytes"),
        ([deque([1])], "key[0]", "give a tuple"),
        ([Open("x")], "key[0]", "freeze its class"),
        ([Unequal("x")], "key[0]", "eq=True"),
        ([Listing([1])], "key[0]", "does not keep frozen fields as given: items"),
        ([Picky([1])], "key[0]", "items cannot be replaced by the frozen form"),
        ([Derived()], "key[0]", "items cannot be replaced by the frozen form"),
        ([Doubtful(1)], "key[0]", "holds more than the float 1.0"),
        ([Repeating(a=1)], "key[0]", "two of its keys are equal"),
        ({10**5000: 1j}, "key[<int>]", "no frozen form"),
        ({"{}": {"a{0}": 1j}}, 'key["{}"]["a{0}"]', "no frozen form"),
    ],
)
def test_what_cannot_be_frozen_is_named_with_its_place(key: object, place: str, reason: str) -> None:
    """The error says where in the key the value stands, shows it, and why it is refused."""
    with pytest.raises(UnfreezableKey) as caught:
        freeze(key)
    assert caught.value.place == place
    assert caught.value.key is key
    assert str(caught.value).startswith(f"{place} is ")
    assert reason in str(caught.value)


def test_the_errors_of_a_class_are_kept_as_cause() -> None:
    """Why a class refuses its frozen fields can be read in the cause."""
    with pytest.raises(UnfreezableKey) as caught:
        freeze(Picky([1]))
    assert isinstance(caught.value.__cause__, TypeError)


def test_every_function_on_keys_refuses_what_cannot_be_frozen() -> None:
    """Making a key of an output, or the text of a key, refuses the same as freezing."""
    refused: list[Callable[[], object]] = [
        lambda: canonical([1j]),
        lambda: key_order([1j]),
        lambda: output([1j], "a"),
        lambda: output("a", [1j]),
        lambda: errors([1j]),
    ]
    for call in refused:
        with pytest.raises(UnfreezableKey, match=r"key\[0\] is 1j"):
            call()


def test_what_contains_itself_is_refused() -> None:
    """A list or dict that contains itself, or two that contain each other, end in an error that says so."""
    ring: list[Any] = [1]
    ring.append(ring)
    mapping: dict[str, Any] = {}
    mapping["self"] = [mapping]
    other: dict[str, Any] = {}
    one: list[Any] = [0, other]
    other["one"] = one
    held = Feed("x", [])
    held.tags.append(held)
    for key, place in [(ring, "key[1]"), (mapping, 'key["self"][0]'), (one, 'key[1]["one"]'), (held, "key.tags[0]")]:
        with pytest.raises(UnfreezableKey, match="contains itself") as caught:
            freeze(key)
        assert caught.value.place == place


def nested(depth: int, wrap: Callable[[Any], Any]) -> Any:
    value: Any = "deep"
    for _ in range(depth):
        value = wrap(value)
    return value


WRAPS: list[Callable[[Any], Any]] = [
    lambda value: [value],
    lambda value: (value,),
    lambda value: {"a": value},
    lambda value: frozenset({value}),
    lambda value: Feed("x", value),
]


@pytest.mark.parametrize("wrap", WRAPS[:2] + WRAPS[2:3] + WRAPS[4:])
def test_very_deep_keys_are_refused(wrap: Callable[[Any], Any]) -> None:
    """Ten thousand levels are an error, not a crash."""
    with pytest.raises(UnfreezableKey, match="100 levels"):
        freeze(nested(10_000, wrap))


@pytest.mark.parametrize("wrap", WRAPS)
def test_a_hundred_levels_work(wrap: Callable[[Any], Any]) -> None:
    """Down to the limit a key can be frozen, compared, looked up and shown."""
    one, other = freeze(nested(100, wrap)), freeze(nested(100, wrap))
    assert one == other
    assert len({one, other}) == 1
    assert canonical(one) == canonical(other)
    with pytest.raises(UnfreezableKey):
        freeze([[one]])


def test_outputs_and_errors_are_values() -> None:
    """They are equal by what they name, frozen, and not each other."""
    assert output("a", [1]) == Output("a", (1,))
    assert hash(output("a", [1])) == hash(Output("a", (1,)))
    assert len({output("a", "b"), output("b", "a"), errors("a"), errors("b"), ERRORS}) == 5
    assert repr(output("a", [1])) == "Output(key='a', name=(1,))"
    assert freeze({"x": [ERRORS, errors("a")]}) == pmap({"x": (ERRORS, errors("a"))})


# ---- same


def define(source: str, name: str = "f", lines_down: int = 0, **names: Any) -> Any:
    """What `name` is after running `source` in a module "user", as a file edited and loaded again."""
    namespace = {"__name__": "user", **names}
    exec(compile("\n" * lines_down + source, f"file_{lines_down}.py", "exec"), namespace)
    return namespace[name]


FUNCTIONS = [
    "def f(x): return x + 1",
    "def f(x): return x + True",
    "def f(x): return x + 1.0",
    "def f(x): return x + 0.0",
    "def f(x): return x + -0.0",
    "def f(x): return x + 1j",
    "def f(x): return x + '1'",
    "def f(x): return x + b'1'",
    "def f(x): return x - 1",
    "def f(y): return y + 1",
    "def f(x, /): return x + 1",
    "def f(*, x): return x + 1",
    "def f(*x): return x + 1",
    "def f(x, z): return x + 1",
    "def f(x=1): return x + 1",
    "def f(x=True): return x + 1",
    "def f(x=(1, 2)): return x + 1",
    "def f(x=(True, 2)): return x + 1",
    "def f(*, x=1): return x + 1",
    "def f(*, x=2): return x + 1",
    "async def f(x): return x + 1",
    "def f(x): yield x + 1",
    "async def f(x): yield x + 1",
    "async def f(x): await x",
    "f = lambda x: x + 1",
    "f = lambda x: x + 2",
    "def f(x): return x.a",
    "def f(x): return x.b",
    "def f(x): return g(x)",
    "def f(x): return h(x)",
    "def f(x): return x in {1, 2}",
    "def f(x): return x in {True, 2}",
    "def f(x): return x in (1, 2)",
    "def f(x): return x in (1, (2, 3.0))",
    "def f(x): return x in (1, (2, 3))",
    "def f(x): return lambda y: y + 1",
    "def f(x): return lambda y: y + 2",
    "def f(x): return lambda y: y + x",
    "def f(x): return lambda y=x: y",
    "def f(x):\n try:\n  a()\n  b()\n except ValueError:\n  c()",
    "def f(x):\n try:\n  a()\n except ValueError:\n  c()\n else:\n  b()",
    "def f(x):\n global g\n g = x",
    "def make():\n a = 1\n return lambda: a\nf = make()",
    "def make():\n b = 1\n return lambda: b\nf = make()",
    "def f(x):\n g = x",
    "from functools import partial\nf = partial(max, 1)",
    "from functools import partial\nf = partial(max, True)",
    "from functools import partial\nf = partial(max, 1, 2)",
    "from functools import partial\nf = partial(min, 1)",
    "from functools import partial\nf = partial(max, key=1)",
    "from functools import partial\nf = partial(max, key=1.0)",
    "from functools import partial\nf = partial(max, other=1)",
    "from functools import partial\nf = partial(max, keys=[lambda x: x + 1])",
    "from functools import partial\nf = partial(max, keys=[lambda x: x + 2])",
    "from operator import itemgetter\nf = itemgetter('a')",
    "from operator import itemgetter\nf = itemgetter('a', 'b')",
    "from operator import itemgetter\nf = itemgetter(1)",
    "from operator import itemgetter\nf = itemgetter(True)",
    "from operator import attrgetter\nf = attrgetter('a')",
    "from operator import methodcaller\nf = methodcaller('a')",
    "from operator import methodcaller\nf = methodcaller('a', 1)",
    "from operator import methodcaller\nf = methodcaller('a', b=1)",
    "f = staticmethod(lambda x: x)",
    "f = classmethod(lambda x: x)",
    "f = 'a'.join",
    "f = 'b'.join",
    "f = 'a'.split",
    "f = len",
    "f = print",
    "f = str.upper",
    "f = range(5)",
    "f = 1",
    "f = True",
    "f = 1.0",
    "f = None",
    "f = [1, 2]",
    "f = [True, 2]",
    "f = (1, 2)",
    "f = (1, 2, 3)",
    "f = {1: 2}",
    "f = {True: 2}",
    "f = {1: 2.0}",
    "f = {1: [len]}",
    "f = {1, 2}",
    "f = {True, 2}",
    "f = frozenset({1, 2})",
    "f = {'a': lambda x: 1}",
    "f = {'a': lambda x: 2}",
    "f = {'b': lambda x: 1}",
]


@given(st.sampled_from(FUNCTIONS), st.sampled_from(FUNCTIONS), st.integers(0, 300))
def test_functions_compare_by_their_own_code(one: str, other: str, lines_down: int) -> None:
    """Code that reads the same is the same wherever it stands in whichever file; any other is not."""
    assert same(define(one), define(other, lines_down=lines_down)) is (one == other)


def test_every_two_different_functions_differ() -> None:
    """Each pair of the table, so that none is left to chance."""
    made = [define(source) for source in FUNCTIONS]
    assert [(a, b) for a, b in permutations(made, 2) if same(a, b)] == []
    assert all(same(made[i], define(source, lines_down=7)) for i, source in enumerate(FUNCTIONS))


def test_a_lambda_made_anew_is_the_same_unless_it_holds_something_else() -> None:
    """What a factory makes again from an equal key is no change; another closure value is one."""

    def scale(by: object) -> Callable[[Any], Any]:
        return lambda value: value * by

    assert same(scale(2), scale(2))
    assert not same(scale(2), scale(3))
    assert not same(scale(1), scale(True))
    assert same(scale((1, [scale(2)])), scale((1, [scale(2)])))
    assert not same(scale((1, [scale(2)])), scale((1, [scale(3)])))
    assert same(scale(freeze({"a": [1]})), scale(freeze({"a": [1]})))
    assert not same(scale(freeze({"a": [1]})), scale(freeze({"a": [True]})))


def test_code_that_has_run_hot_is_the_same_as_fresh_code() -> None:
    """Python rewrites the bytecode of what runs often; that is no change."""
    source = "def f(x):\n t = 0\n for i in range(x):\n  t += i * 2\n  t = t if t < 10 else len(str(t))\n return t"
    hot = define(source)
    for _ in range(100):
        hot(1000)
    assert same(hot, define(source))


def test_module_and_name_of_a_function_count() -> None:
    """The same code under another name, in another module or class, is another function."""
    source = "def f(x): return x"
    assert not same(define(source), define(source, __name__="other"))
    assert not same(define(source), define("def g(x): return x", "g"))
    assert not same(define("class A:\n" + " " + source, "A").f, define("class B:\n" + " " + source, "B").f)


def test_attributes_and_annotations_of_a_function_do_not_count() -> None:
    """A function compares by what it does, not by what is noted on it."""
    one, other = define("def f(x): return x"), define("def f(x: int) -> int: return x")
    one.note = 1
    assert same(one, other)


def test_helpers_that_a_function_calls_are_not_looked_at() -> None:
    """What a global name means to a function may change without making it another."""
    source = "def f(x): return helper(x)"
    assert same(define(source, helper=len), define(source, helper=str))


def test_wrapped_functions_compare_by_wrapper_and_what_it_wraps() -> None:
    """A decorated function is the same while its decorator and what is decorated are."""

    def twice(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
        @wraps(function)
        def call(value: Any) -> Any:
            return function(function(value))

        return call

    one, other = "def f(x): return x + 1", "def f(x): return x + 2"
    assert same(twice(define(one)), twice(define(one)))
    assert not same(twice(define(one)), twice(define(other)))
    assert not same(twice(define(one)), define(one))


def test_functions_that_hold_themselves_are_compared() -> None:
    """A closure that contains itself, or two that contain each other, end in an answer, and the right one."""
    source = """
def make(step):
    def f(n):
        return g(n - step)
    def g(n):
        return f(n) if n else g(n + step)
    return f
"""
    make = define(source, "make")
    assert same(make(1), make(1))
    assert not same(make(1), make(2))


def test_values_that_hold_themselves_are_compared() -> None:
    """A list that contains itself is compared to the end."""

    def ring(value: int) -> list[Any]:
        made: list[Any] = [value]
        made.append(made)
        return made

    assert same(ring(1), ring(1))
    assert not same(ring(1), ring(2))


def test_deep_values_are_compared() -> None:
    """Ten thousand wrappers around a function neither recurse too deep nor hide a difference."""

    def wrap(inner: object) -> Callable[[], object]:
        return lambda: inner

    def deep(value: object) -> object:
        return nested(10_000, lambda inner: wrap([inner] if inner != "deep" else value))

    assert same(deep(1), deep(1))
    assert not same(deep(1), deep(2))


def test_shared_parts_are_compared_once() -> None:
    """A value reached over very many ways costs no more than one reached once."""

    def diamonds() -> Any:
        return nested(200, lambda value: [value, value])

    assert same(diamonds(), diamonds())


def test_a_closure_variable_without_value_is_no_error() -> None:
    """A function made before what it refers to compares like any other."""
    source = "def make(n):\n def f(): return later\n if n:\n  later = n\n return f"
    make = define(source, "make")
    assert same(make(0), make(0))
    assert not same(make(0), make(1))


class Scale:
    def __init__(self, by: int) -> None:
        self.by = by

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Scale) and self.by == other.by

    def apply(self, value: int) -> int:
        return self.by * value

    def divide(self, value: int) -> float:
        return value / self.by

    @classmethod
    def make(cls, by: int) -> Any:
        return cls(by)


class Sub(Scale):
    pass


def test_bound_methods_compare_by_function_and_object() -> None:
    """A method of an equal object of the same class is the same."""
    assert same(Scale(2).apply, Scale(2).apply)
    assert not same(Scale(2).apply, Scale(3).apply)
    assert not same(Scale(2).apply, Scale(2).divide)
    assert not same(Scale(2).apply, Sub(2).apply)
    assert same(Scale.make, Scale.make)
    assert not same(Scale.make, Sub.make)


def test_builtin_methods_of_mutable_objects_compare_by_the_object() -> None:
    """Appending to one empty list is not appending to another, though the lists are equal."""
    results: list[int] = []
    assert same(results.append, results.append)
    assert not same(results.append, [].append)
    assert not same(results.append, results.extend)
    assert same("".join(["a"]).join, "a".join)


def test_classes_compare_by_identity() -> None:
    """A class defined again is another, as are its objects: its methods may have changed."""
    source = "class A:\n def f(self): return 1"
    one, other = define(source, "A"), define(source, "A")
    assert same(one, one)
    assert not same(one, other)
    assert not same(one().f, other().f)


def test_values_compare_by_type_and_equality() -> None:
    """Equal values of one type are the same; of two types they are not."""
    assert same(Feed("a"), Feed("a"))
    assert not same(Feed("a"), Feed("b"))
    assert same(Scale(1), Scale(1))
    assert not same(Scale(1), Sub(1))
    assert not same(Level.HIGH, 1)
    assert same(OrderedDict(a=1, b=2), OrderedDict(a=1, b=2))
    assert not same(OrderedDict(a=1, b=2), OrderedDict(b=2, a=1))
    assert same({"a": 1, "b": 2}, {"b": 2, "a": 1})
    assert same(Point(1, len), Point(1, len))
    assert not same(Point(1, 2), (1, 2))
    assert not same(object(), object())


def test_nan_is_the_same_as_itself_only() -> None:
    """An object that equals nothing is still the same as itself."""
    nan = float("nan")
    assert same(nan, nan)
    assert same([nan], [nan])
    assert not same(nan, float("nan"))


class Array:
    """As in numpy: `==` gives no bool."""

    def __eq__(self, other: object) -> Any:
        return [True]

    __hash__ = None  # type: ignore[assignment]


class Raising:
    def __eq__(self, other: object) -> bool:
        raise ValueError("cannot say")

    def __hash__(self) -> int:
        return 1


def test_what_cannot_be_compared_is_different() -> None:
    """An `==` that raises or gives no bool counts as a difference, wherever the object stands."""
    for make in (Array, Raising, lambda: [Array()], lambda: partial(max, Raising()), lambda: {Raising(): 1}):
        one: Any = make()
        assert same(one, one)
        assert not same(one, make())


@given(raw_keys)
def test_a_key_is_the_same_as_itself_made_anew(key: Hashable) -> None:
    """Whatever a factory takes from a key and binds into a node makes no difference when it is bound again."""
    assert same(partial(max, key), partial(max, key))
    assert same(freeze(key), freeze(key))


@given(st.sampled_from(FUNCTIONS), st.sampled_from(FUNCTIONS))
def test_sameness_goes_both_ways(one: str, other: str) -> None:
    """It does not matter which of two descriptions is the old one."""
    a, b = define(one), define(other)
    assert same(a, b) is same(b, a)
