"""What each way of ending does to a node in each state: the table of docs/explanation/ways-to-end.md, row by row.

Every cell is played: a source gives 0 to 4 at once, the node takes a second for each and is in trouble with 2, and 3.5
seconds after the start the end begins.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import attrs
import pytest
from running import graph, run

import hotplumb as hp

PAGE = Path(__file__).parents[1] / "docs" / "explanation" / "ways-to-end.md"
VALUES = range(5)
BAD = 2
AT_S = 3.5  # when the end begins: 0 and 1 are done, 2 has failed, 3 would be in hand
BOUND_S = 5.0
PATIENCE_S = 1000.0  # virtual; who waits for longer waits for ever


class Broken(Exception):
    """What user code raises here."""


class Leave(Exception):
    """What the body of a block raises here."""


# --- the rows: what the node is like when the end begins


async def fail(value: int) -> int:
    await asyncio.sleep(1)
    if value == BAD:
        raise Broken(value)
    return value


async def work(value: int) -> int:
    await asyncio.sleep(1)
    return value


async def stick(value: int) -> int:
    await asyncio.sleep(1e9 if value == BAD else 1)
    return value


async def stick_deafly(value: int) -> int:
    """Go on for a hundred seconds, whatever is thrown in."""
    until = asyncio.get_running_loop().time() + (100 if value == BAD else 1)
    while (rest := until - asyncio.get_running_loop().time()) > 0:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(rest)
    return value


ROWS: dict[str, hp.Node] = {
    "fails, `stop()`": hp.map(fail, "s", on_error=hp.stop()),
    "fails, `discard()`": hp.map(fail, "s", on_error=hp.discard()),
    "fails, `retry(2, then=discard())`": hp.map(fail, "s", on_error=hp.retry(2, delay_s=20, then=hp.discard())),
    "fails, `hold()`": hp.map(fail, "s", on_error=hp.hold()),
    "is paused": hp.map(work, "s"),
    "is full": hp.map(work, "s"),
    "is stuck in an `await`": hp.map(stick, "s"),
    "is stuck and swallows its cancellation": hp.map(stick_deafly, "s"),
}


class Reader:
    """Who reads the node: quick, or one item in a hundred seconds."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.got: list[int] = []

    async def __call__(self, value: int) -> None:
        await asyncio.sleep(self.seconds)
        self.got.append(value)


@attrs.define
class Played:
    """One run, from outside."""

    reader: Reader
    failures: list[hp.Failure]
    plumbing: hp.Plumbing | None = None
    raised: BaseException | None = None
    waited: bool = False

    @property
    def node(self) -> hp.NodeStatistics:
        assert self.plumbing is not None
        return self.plumbing.statistics().nodes["n"]

    @property
    def dead(self) -> list[tuple[int, str]]:
        return [(failure.item.value, failure.reason) for failure in self.failures if failure.item is not None]

    @property
    def lost(self) -> int:
        """How many items neither arrived nor are dead letters, as the statistics tell it."""
        assert self.plumbing is not None
        nodes = self.plumbing.statistics().nodes
        return nodes["s"].sent - nodes["out"].received - nodes["n"].failed


def topology_of(row: str, played: Played) -> hp.Topology:
    capacity = 1 if row == "is full" else 1024
    return graph(
        s=hp.source(VALUES),
        n=ROWS[row],
        out=hp.sink(played.reader, "n", capacity=capacity),
        e=hp.sink(played.failures.append, hp.ERRORS),
    )


# --- the columns: the ways to end

Way = Callable[[str, Played], Awaitable[None]]


async def until_then(row: str, plumbing: hp.Plumbing) -> None:
    if row == "is paused":
        await asyncio.sleep(0.5)
        plumbing.pause("n")
        await asyncio.sleep(AT_S - 0.5)
    else:
        await asyncio.sleep(AT_S)


async def patiently(played: Played, awaited: Awaitable[None]) -> None:
    """Wait, but not for ever; then give up at once."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            await awaited
    except TimeoutError:
        played.waited = True
        raise Leave from None


async def by_join(row: str, played: Played) -> None:
    async with hp.Plumbing(topology_of(row, played)) as played.plumbing:
        await until_then(row, played.plumbing)
        await patiently(played, played.plumbing.join())


async def by_drain(row: str, played: Played) -> None:
    async with hp.Plumbing(topology_of(row, played)) as played.plumbing:
        await until_then(row, played.plumbing)
        await patiently(played, played.plumbing.drain())


async def by_leaving(row: str, played: Played) -> None:
    async def leave() -> None:
        async with hp.Plumbing(topology_of(row, played)) as played.plumbing:
            await until_then(row, played.plumbing)

    await patiently(played, leave())


async def by_stop(row: str, played: Played) -> None:
    played.plumbing = await hp.start(topology_of(row, played))
    await until_then(row, played.plumbing)
    await patiently(played, played.plumbing.stop())


async def by_leaving_in_time(row: str, played: Played) -> None:
    async with hp.Plumbing(topology_of(row, played), drain_timeout_s=BOUND_S) as played.plumbing:
        await until_then(row, played.plumbing)


async def by_stopping_in_time(row: str, played: Played) -> None:
    played.plumbing = await hp.start(topology_of(row, played), drain_timeout_s=BOUND_S)
    await until_then(row, played.plumbing)
    await played.plumbing.stop()


async def by_exception(row: str, played: Played) -> None:
    async with hp.Plumbing(topology_of(row, played)) as played.plumbing:
        await until_then(row, played.plumbing)
        raise Leave


async def by_cancellation(row: str, played: Played) -> None:
    async def block() -> None:
        async with hp.Plumbing(topology_of(row, played)) as played.plumbing:
            await until_then(row, played.plumbing)
            await asyncio.sleep(1e9)

    task = asyncio.create_task(block())
    await asyncio.sleep(AT_S + 0.1)
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        raise Leave from None


async def by_another_failure(row: str, played: Played) -> None:
    async def fail_then(value: int) -> None:
        await asyncio.sleep(AT_S + 0.1)
        raise Broken("another")

    topology = topology_of(row, played).add("t", hp.source([1])).add("other", hp.sink(fail_then, "t"))
    try:
        async with hp.Plumbing(topology) as played.plumbing:
            await until_then(row, played.plumbing)
            await played.plumbing.join()
    except hp.NodeError as error:
        if error.key != "other":
            raise
        raise Leave from None


WAYS: dict[str, list[Way]] = {
    "`join`": [by_join],
    "drain": [by_drain, by_leaving, by_stop],
    "its time is up": [by_leaving_in_time, by_stopping_in_time],
    "at once": [by_exception, by_cancellation, by_another_failure],
}

# --- the cells


@attrs.frozen
class Cell:
    """What the page says, and what it means for items 0 to 4."""

    text: str
    out: list[int]
    dead: tuple[tuple[int, str], ...] = ()
    raised: type[BaseException] | None = None
    says: str = ""  # in the error
    state: str = "ended"  # that the statistics show afterwards
    waits: bool = False
    queued: int = 0  # that wait in front of the node afterwards, what is held or to be tried again among them

    @property
    def lost(self) -> int:
        return len(VALUES) - len(self.out) - len(self.dead)


ALL = [0, 1, 2, 3, 4]
REST = [0, 1, 3, 4]
STOPPED = Cell(
    "raises its `NodeError`; loses the item and what waits", [0, 1], raised=hp.NodeError, says="failed on 2",
    state="failed", queued=3,
)  # fmt: skip
LETTER = Cell("the item is a dead letter; nothing is lost", REST, ((BAD, "discarded"),))
NOTHING = Cell("nothing is lost", ALL)


def up(text: str, out: list[int], says: str, **more: Any) -> Cell:
    return Cell(text, out, raised=TimeoutError, says=says, **more)


CELLS: dict[str, tuple[Cell, Cell, Cell, Cell]] = {
    "fails, `stop()`": (
        STOPPED,
        STOPPED,
        STOPPED,
        attrs.evolve(STOPPED, text="it has stopped already"),
    ),
    "fails, `discard()`": (
        LETTER,
        LETTER,
        LETTER,
        Cell("loses what waits, and what is in hand", [0, 1], ((BAD, "discarded"),), Leave, state="busy", queued=1),
    ),
    "fails, `retry(2, then=discard())`": (
        attrs.evolve(LETTER, text="waits for the attempts; then as `then` says"),
        attrs.evolve(LETTER, text="waits for the attempts; then as `then` says"),
        up("raises `TimeoutError`; loses the item and what waits", [0, 1], '"n" is retrying',
           state="retrying", queued=3),
        Cell("loses the item and what waits", [0, 1], raised=Leave, state="retrying", queued=3),
    ),
    "fails, `hold()`": (
        Cell("waits until you decide", [0, 1], raised=Leave, state="holding", queued=3, waits=True),
        Cell("the item is a dead letter, \"drained\"; nothing is lost", REST, ((BAD, "drained"),)),
        Cell("the item is a dead letter, \"drained\"; nothing is lost", REST, ((BAD, "drained"),)),
        Cell("loses the item and what waits", [0, 1], raised=Leave, state="holding", queued=3),
    ),
    "is paused": (
        Cell("waits until you resume it", [0], raised=Leave, state="paused", queued=4, waits=True),
        attrs.evolve(NOTHING, text="is resumed; nothing is lost"),
        attrs.evolve(NOTHING, text="is resumed; nothing is lost"),
        Cell("loses what waits", [0], raised=Leave, state="paused", queued=4),
    ),
    "is full": (
        attrs.evolve(NOTHING, text="waits for its reader; nothing is lost"),
        attrs.evolve(NOTHING, text="waits for its reader; nothing is lost"),
        up("raises `TimeoutError`; loses what waits, and what is in hand", [], '"n" is full', state="full", queued=3),
        Cell("loses what waits, and what is in hand", [], raised=Leave, state="full", queued=3),
    ),
    "is stuck in an `await`": (
        Cell("waits for the call", [0, 1], raised=Leave, state="busy", queued=2, waits=True),
        Cell("waits for the call", [0, 1], raised=Leave, state="busy", queued=2, waits=True),
        up("raises `TimeoutError` and cancels the call; loses the item and what waits", [0, 1], '"n" is busy',
           state="busy", queued=2),
        Cell("cancels the call; loses the item and what waits", [0, 1], raised=Leave, state="busy", queued=2),
    ),
    "is stuck and swallows its cancellation": (
        attrs.evolve(NOTHING, text="waits for the call; nothing is lost"),
        attrs.evolve(NOTHING, text="waits for the call; nothing is lost"),
        up("raises `TimeoutError`, after 5 s more for the call; loses the item and what waits", [0, 1], '"n" is busy',
           state="waiting", queued=2),
        Cell("takes 5 s, then leaves the call behind; loses the item and what waits", [0, 1], raised=Leave,
             state="waiting", queued=2),
    ),
}  # fmt: skip

# Where the page says that it can be seen; `check_statistics` looks there.
SEEN = {
    "fails, `stop()`": "the error's `item` and `trail`; `failed`, `queued_items`",
    "fails, `discard()`": "the error streams, or the log; `failed`",
    "fails, `retry(2, then=discard())`": '`state` "retrying", `trouble`; `queued_items`',
    "fails, `hold()`": '`state` "holding", `trouble`; `queued_items`',
    "is paused": '`state` "paused"; `queued_items`',
    "is full": '`state` "full"; `queued_items` of its reader',
    "is stuck in an `await`": "the text of the `TimeoutError`; `queued_items`",
    "is stuck and swallows its cancellation": "the log, after 1 s and after 5 s; `queued_items`",
}

PLAYS = [(row, column, way) for row in ROWS for column, ways in WAYS.items() for way in ways]


@pytest.mark.parametrize(("row", "column", "way"), PLAYS, ids=lambda part: getattr(part, "__name__", part))
def test_the_table_of_endings(row: str, column: str, way: Way, seed: int, caplog: pytest.LogCaptureFixture) -> None:
    """What is raised, what has arrived, what is a dead letter, what is lost, and what the statistics show of it."""
    played = Played(Reader(100 if row == "is full" else 0), [])
    cell = CELLS[row][list(WAYS).index(column)]

    async def main() -> None:
        try:
            await way(row, played)
        except (Leave, hp.NodeError, TimeoutError) as raised:
            played.raised = raised
        if "swallows" in row:
            await asyncio.sleep(100)  # what was left behind comes back

    run(main, seed)
    assert type(played.raised) is (cell.raised or type(None)), played.raised
    assert cell.says in str(played.raised)
    assert played.waited == cell.waits
    assert played.reader.got == cell.out
    assert played.dead == list(cell.dead)
    check_statistics(played, cell)
    if "swallows" in row and cell.raised is not None:
        levels = [record.levelname for record in caplog.records if "cancellation" in record.getMessage()]
        assert levels == ["WARNING", "ERROR"]


def check_statistics(played: Played, cell: Cell) -> None:
    """They can be read after the end, and show what was lost."""
    node = played.node
    assert node.state == cell.state
    assert played.lost == cell.lost + (cell.raised is hp.NodeError) * -1
    if cell.state in ("retrying", "holding", "failed"):
        assert node.trouble is not None
        assert node.trouble.item is not None
        assert node.trouble.item.value == BAD
        assert isinstance(node.trouble.exception, Broken)
    assert node.failed == len(cell.dead) + (cell.state == "failed")
    if cell.raised is not None:
        assert node.queued_items == cell.queued


def test_the_page_has_this_table() -> None:
    """Row by row, cell by cell."""
    rows = [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line in PAGE.read_text().splitlines()
        if line.startswith("|")
    ]
    head, _, *body = rows[: len(CELLS) + 2]
    assert head[1:] == [*WAYS, "seen in"]
    assert body == [[row, *(cell.text for cell in cells), SEEN[row]] for row, cells in CELLS.items()]


def test_a_source_that_drains_gives_no_more_and_one_that_is_joined_gives_all(seed: int) -> None:
    """What a source has not given yet is not lost: it has not entered."""

    async def main() -> None:
        for seconds, is_joined, count in ((0.0, True, 1000), (2.5, False, 3)):
            made: list[int] = []

            async def produce(made: list[int] = made) -> Any:
                for i in range(1000):
                    made.append(i)
                    yield i
                    await asyncio.sleep(1)

            async with hp.Plumbing(graph(s=hp.source(produce), out=hp.collect("s"))) as plumbing:
                await asyncio.sleep(seconds)
                if is_joined:
                    await plumbing.join()
            assert plumbing.collected()["out"] == made == list(range(count))

    run(main, seed)


def test_a_source_that_swallows_its_interruption_is_named_and_left_behind(
    seed: int, caplog: pytest.LogCaptureFixture
) -> None:
    """A drain waits five seconds for it, and no more; what it had given is processed."""

    async def deaf() -> Any:
        yield 1
        until = asyncio.get_running_loop().time() + 50
        while (rest := until - asyncio.get_running_loop().time()) > 0:
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(rest)

    async def main() -> None:
        async with hp.Plumbing(graph(s=hp.source(deaf), out=hp.collect("s"))) as plumbing:
            await asyncio.sleep(1)
            await plumbing.drain()
            assert asyncio.get_running_loop().time() == pytest.approx(6, abs=0.1)
        assert plumbing.collected()["out"] == [1]
        await asyncio.sleep(100)

    run(main, seed)
    named = [record.levelname for record in caplog.records if 'key="s"' in record.getMessage()]
    assert named == ["WARNING", "ERROR"]


def test_a_source_that_is_about_to_start_again_does_not_when_all_drains(seed: int) -> None:
    """Its back-off is over, but its turn has not come."""
    starts: list[int] = []

    def produce() -> Any:
        starts.append(1)
        yield from range(3)
        if len(starts) == 1:
            raise Broken("s")

    async def main() -> None:
        async with asyncio.timeout(PATIENCE_S):
            topology = graph(s=hp.source(produce, on_error=hp.retry(1, delay_s=1)), out=hp.collect("s"))
            async with hp.Plumbing(topology) as plumbing:
                await asyncio.sleep(0.4)
                plumbing.retry("s")
                await plumbing.drain()
                assert plumbing.collected()["out"] == [0, 1, 2]

    run(main, seed)
    assert starts == [1]


def test_a_drain_that_takes_too_long_goes_on(seed: int) -> None:
    """`drain(timeout_s)` gives up waiting, not draining."""

    async def main() -> None:
        async with hp.Plumbing(graph(s=hp.source(VALUES), n=hp.map(work, "s"), out=hp.collect("n"))) as plumbing:
            await asyncio.sleep(0.5)
            with pytest.raises(TimeoutError, match=r'not drained after 2 s: "n" is busy, "out" is waiting$'):
                await plumbing.drain(2)
            await plumbing.join()
            assert plumbing.collected()["out"] == ALL

    run(main, seed)


def test_what_is_slow_to_drain_is_named(seed: int, caplog: pytest.LogCaptureFixture) -> None:
    """A block that does not leave says why."""

    async def main() -> None:
        async with hp.Plumbing(graph(s=hp.source(VALUES), out=hp.sink(Reader(10), "s"))):
            await asyncio.sleep(0.5)

    run(main, seed)
    assert any('"out" is busy' in record.getMessage() for record in caplog.records)
