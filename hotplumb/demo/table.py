"""The demo's values as a table in the terminal, drawn by rich: one row for each key, with its item's trail."""

from __future__ import annotations

import asyncio
import io
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Any

import attrs
from rich import box
from rich.console import Console, ConsoleOptions, Group
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

import hotplumb as hp
from hotplumb.demo.graph import SCREEN, Pair, Rewired, Sample, Summary, Value, what
from hotplumb.demo.painting import Painting
from hotplumb.keys import Key, canonical, freeze

REFRESH_S = 0.25  # so that the ages move
REPRINT_S = 5.0  # where the cursor cannot go back and all is printed anew
HISTORY = 10  # bars in a row
BARS = "▁▂▃▄▅▆▇█"
PREFIXES = ("", "k", "M", "G", "T")
VALUE = 26  # columns of most values, kept for them that nothing moves when they come
NARROW = 60  # columns, from which on there is room for that
MEDIUM = 80  # for trails
WIDE = 120  # for histories
PERCENT = ("cpu", "memory")
"""The metrics that are shares of 100 %; the others are bytes a second."""


@attrs.define
class Row:
    """What is shown of one key."""

    key: Any
    epoch: int = 0
    value: str = "-"
    history: deque[float] = attrs.field(factory=lambda: deque(maxlen=HISTORY))
    came_s: float | None = None
    trail: str = ""

    def cells(self, now_s: float) -> tuple[str, str, str, str]:
        """What it is, what it was at last, the seconds since that came, and the change that last touched its node."""
        age = "" if self.came_s is None else f"{now_s - self.came_s:.1f}"
        return what(self.key), self.value, age, str(self.epoch)


class Board:
    """A row for each key that the screen reads, whichever these are by now; below them, what was changed last.

    Args:
        keys: what the screen reads at first.
        title, hint: what is shown above and, as long as it runs, below.
        clock: gives the time that ages are counted in.
    """

    def __init__(self, keys: Iterable[object], title: str, hint: str, clock: Callable[[], float]) -> None:
        self.hint = hint
        self._title = title
        self._rows: dict[Key, Row] = {key: Row(key) for key in map(freeze, keys)}
        self._rewired: Rewired | None = None
        self._clock = clock

    def show(self, value: Value) -> None:
        """Put the item in hand into its row."""
        trail = hp.current_item().trail
        key, epoch = trail.hops[-1]
        row = self._rows.setdefault(key, Row(key, epoch))  # it may come before the news of the change that wants it
        row.value, row.came_s, row.trail = shown(key, value), self._clock(), brief(trail)
        match value:
            case Sample(value=number) | Summary(mean=number):
                row.history.append(number)

    def changed(self, rewired: Rewired) -> None:
        """Have the rows that are wanted now."""
        self._rewired, topology = rewired, rewired.change.topology
        self._rows = {key: self._rows.get(key, Row(key)) for key in topology.reads(SCREEN)}
        for key, row in self._rows.items():
            row.epoch = topology.epoch_of(key)

    def drawn(self, width: int) -> Group:
        """Draw all as it is now; in narrow terminals without histories, in very narrow ones without trails."""
        above, *below = [Text(line, no_wrap=True, overflow="ellipsis") for line in self._lines()]
        return Group(above, self._table(width), *below)

    def _lines(self) -> list[str]:
        """What stands above the table, and what below it."""
        rewired, hint = self._rewired, [self.hint] if self.hint else []
        if rewired is None:
            return [f"{self._title}, epoch 0", "no change yet", "", *hint]
        return [f"{self._title}, epoch {rewired.change.epoch}", str(rewired), f"region: {rewired.where}", *hint]

    def _table(self, width: int) -> Table:
        has_trails, has_history = width >= MEDIUM, width >= WIDE
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=0, expand=has_trails)
        table.add_column("what", no_wrap=True)
        table.add_column("value", no_wrap=True, style="bold", min_width=VALUE if width >= NARROW else None)
        table.add_column("age", no_wrap=True, justify="right", min_width=4)
        table.add_column("epoch", no_wrap=True, justify="right")
        if has_history:
            table.add_column("history", no_wrap=True, style="cyan", min_width=HISTORY)
        if has_trails:
            table.add_column("trail", no_wrap=True, style="dim", ratio=1)
        now_s = self._clock()
        for row in self._rows.values():
            history = [Text(bars(row.history, top(row.key)))] if has_history else []
            trail = [Shortened(row.trail)] if has_trails else []
            table.add_row(*map(Text, row.cells(now_s)), *history, *trail)
        return table


@attrs.frozen
class Shortened:
    """A text whose middle gives way where its column is narrow."""

    text: str

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterable[Text]:
        yield Text(shortened(self.text, options.max_width))

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(1, max(len(self.text), 1))


def shortened(text: str, width: int) -> str:
    """The text, or its two ends where it is wider.

    >>> shortened("cpu #12 -> cpu -> screen", 11)
    'cpu #…creen'
    """
    if len(text) <= width:
        return text
    before = width // 2
    return f"{text[:before]}…{text[len(text) - (width - before - 1) :]}" if width > 1 else "…"[:width]


def brief(trail: hp.Trail) -> str:
    """A trail in few words, as `cpu #12 -> cpu@3`; keys are called as they are in the first column."""
    text = str(trail)
    for key in (trail.origin.source, *trail.keys):
        text = text.replace(canonical(key), what(key))
    return text


def shown(key: Any, value: Value) -> str:
    """A value in few words; a summary as least < mean < most."""
    match key, value:
        case {"metric": metric}, Sample(value=number):
            return amounts(metric, number)
        case {"metric": metric}, Summary():
            return amounts(metric, value.least, value.mean, value.most)
        case {"pair": (left, right)}, Pair():
            return f"{amounts(left, value.left)} & {amounts(right, value.right)}"
    raise TypeError(f"{canonical(key)} gave {value!r}")


def amounts(metric: str, *numbers: float) -> str:
    """Numbers in rising order, and the unit that suits the largest.

    >>> amounts("cpu", 12.34), amounts("disk", 0, 12345, 1234567)
    ('12.3 %', '0.0 < 0.0 < 1.2 MB/s')
    """
    if metric in PERCENT:
        return " < ".join(f"{number:.1f}" for number in numbers) + " %"
    power = next((power for power in range(4) if numbers[-1] < 999.5 * 1000**power), 4)
    digits = 1 if power else 0
    return " < ".join(f"{number / 1000**power:.{digits}f}" for number in numbers) + f" {PREFIXES[power]}B/s"


def top(key: Any) -> float | None:
    """What a full bar of this row stands for; None: the most in its history."""
    match key:
        case {"metric": metric} if metric in PERCENT:
            return 100.0
    return None


def bars(numbers: Collection[float], top: float | None = None) -> str:
    """A bar for each number, from nothing to `top`, by default the largest of them.

    >>> bars([0, 1, 2, 4, 7])
    '▁▂▃▅█'
    """
    most = max(numbers, default=0.0) if top is None else top
    shares = (min(number / most, 1.0) if most > 0 else 0.0 for number in numbers)
    return "".join(BARS[min(int(share * len(BARS)), len(BARS) - 1)] for share in shares)


@asynccontextmanager
async def live_table(board: Board) -> AsyncIterator[None]:
    """Show a board on standard output as long as the block lasts, and leave it there as it is in the end.

    A terminal that cannot move its cursor has the board printed anew every few seconds.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal may know no bars
    console = Console()
    painting = Painting(console)
    with painting.shown():
        drawing = asyncio.create_task(_draw(board, console, painting))
        try:
            yield
        finally:
            drawing.cancel()
            with suppress(asyncio.CancelledError):
                await drawing
            board.hint = ""
            painting.draw(board.drawn(console.width), is_last=True)


async def _draw(board: Board, console: Console, painting: Painting) -> None:
    while True:
        painting.draw(board.drawn(console.width))
        await asyncio.sleep(REFRESH_S if painting.goes_back else REPRINT_S)
