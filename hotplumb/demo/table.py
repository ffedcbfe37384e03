"""The demo's values as a table in the terminal, drawn by rich: one row for each key, with its item's trail."""

from __future__ import annotations

import asyncio
import io
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from typing import Any

import attrs
from rich import box
from rich.console import Console, ConsoleOptions
from rich.live import Live
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

import hotplumb as hp
from hotplumb.demo.graph import Pair, Sample, Show, Summary, Value
from hotplumb.keys import Key, canonical, freeze

REFRESH_S = 0.25  # so that the ages move
REPRINT_S = 5.0  # where the cursor cannot go back and all is printed anew
HISTORY = 10  # bars in a row
BARS = "▁▂▃▄▅▆▇█"
PREFIXES = ("", "k", "M", "G", "T")
WIDE = 120  # columns, from which on there is room for the history too
PERCENT = ("cpu", "memory")
"""The metrics that are shares of 100 %; the others are bytes a second."""


@attrs.define
class Row:
    """What is shown of one key."""

    key: Any
    value: str = "-"
    history: deque[float] = attrs.field(factory=lambda: deque(maxlen=HISTORY))
    came_s: float | None = None
    trail: str = ""

    def cells(self, now_s: float) -> tuple[str, str, str]:
        """What it is, what it was at last, and the seconds since that came."""
        age = "" if self.came_s is None else f"{now_s - self.came_s:.1f}"
        return what(self.key), self.value, age


class Board:
    """The rows, in the order in which they are wanted.

    `clock` gives the time that ages are counted in.
    """

    def __init__(self, keys: Iterable[object], clock: Callable[[], float]) -> None:
        self._rows: dict[Key, Row] = {key: Row(key) for key in map(freeze, keys)}
        self._clock = clock

    def show(self, value: Value) -> None:
        """Put the item in hand into its row."""
        trail = hp.current_item().trail
        row = self._rows[trail.keys[-1]]
        row.value, row.came_s, row.trail = shown(row.key, value), self._clock(), str(trail)
        match value:
            case Sample(value=number) | Summary(mean=number):
                row.history.append(number)

    def table(self, title: str, width: int) -> Table:
        """Draw all rows as they are now; in less than 120 columns without their history."""
        table = Table(title=title, box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), expand=True)
        table.add_column("what", no_wrap=True)
        table.add_column("value", no_wrap=True, style="bold")
        table.add_column("age", no_wrap=True, justify="right", min_width=4)
        if width >= WIDE:
            table.add_column("history", no_wrap=True, style="cyan", min_width=HISTORY)
        table.add_column("trail of its latest item", no_wrap=True, style="dim", ratio=1)
        now_s = self._clock()
        for row in self._rows.values():
            history = [Text(bars(row.history, top(row.key)))] if width >= WIDE else []
            table.add_row(*map(Text, row.cells(now_s)), *history, Shortened(row.trail))
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


def what(key: Any) -> str:
    """A key in few words.

    >>> what({"metric": "cpu", "rollup_s": 5})
    'cpu, 5 s'
    """
    match key:
        case {"pair": (left, right), "rollup_s": rollup_s}:
            return f"{left} & {right}, {rollup_s:g} s"
        case {"metric": metric, "rollup_s": rollup_s}:
            return f"{metric}, {rollup_s:g} s"
        case {"metric": metric}:
            return str(metric)
    return canonical(key)


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
async def live_table(keys: Iterable[object], title: str) -> AsyncIterator[Show]:
    """Show a table on standard output as long as the block lasts, and leave it there as it is in the end.

    Gives what is to be called with each value.  A terminal that cannot move its cursor has the table printed anew
    every few seconds.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal may know no bars
    console, board = Console(), Board(keys, asyncio.get_running_loop().time)
    with _drawn_on(console) as draw:
        every_s = REPRINT_S if console.is_dumb_terminal else REFRESH_S

        def redraw() -> None:
            draw(board.table(title, console.width))

        drawing = asyncio.create_task(_repeat(redraw, every_s))
        try:
            yield board.show
        finally:
            drawing.cancel()
            with suppress(asyncio.CancelledError):
                await drawing
            redraw()


@contextmanager
def _drawn_on(console: Console) -> Iterator[Callable[[Table], None]]:
    """Give what puts a table in place of the last one, or below it where the terminal cannot."""
    if console.is_dumb_terminal:
        yield console.print
        return
    is_shared = sys.stderr.isatty()  # then what is logged has to go above the table, which rich sees to
    with Live(console=console, auto_refresh=False, redirect_stdout=False, redirect_stderr=is_shared) as live:
        yield partial(live.update, refresh=True)


async def _repeat(draw: Callable[[], None], every_s: float) -> None:
    while True:
        draw()
        await asyncio.sleep(every_s)
