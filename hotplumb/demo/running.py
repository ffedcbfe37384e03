"""One run of the demo, from its first sample to its last line."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import cycle, pairwise
from types import FrameType
from typing import Literal, Protocol, TypeAlias

import attrs

import hotplumb as hp
from hotplumb.demo.graph import SCREEN, Rewired, Value, demo_topology, rewire, wanted
from hotplumb.demo.keyboard import Keyboard
from hotplumb.demo.lines import Lines
from hotplumb.demo.tally import Counts, Tally

SIGNALS = (signal.SIGINT, signal.SIGTERM)

Wish: TypeAlias = Literal["rewire", "end"] | signal.Signals
"""What is asked of a run; a signal ends it."""

Wishes: TypeAlias = asyncio.Queue[Wish]


@attrs.frozen
class Settings:
    """What a run is to be like."""

    rollup_s: float
    """The length of the windows; each change makes them twice as long, or as long as this again."""
    every_s: float
    """How often the machine is asked."""
    seconds: float | None = None
    """How long it goes on; None: until it is ended."""
    rewire_after_s: float | None = None
    """How long after its start, or the last change, the graph is changed; None: only when somebody wishes it."""


@attrs.frozen
class Ended:
    """How a run went."""

    samples: int
    """Read from the machine."""
    rows: int
    """Shown."""
    changes: int
    counts: Counts | None
    """None where nobody reads its output any more, so that not all could be shown."""
    signal: int | None
    """What ended it, None where it was something else."""

    @property
    def is_well(self) -> bool:
        """Whether nothing was found to be lost, doubled or mixed."""
        return self.counts in (None, Counts(0, 0, 0))

    def __str__(self) -> str:
        shown = f"{self.samples} samples read, {self.rows} rows shown"
        return shown if self.counts is None else f"{shown}, {_number_of_changes(self.changes)}: {self.counts}"


class View(Protocol):
    """What shows a run to somebody."""

    def show(self, value: Value) -> None:
        """Show the item in hand."""

    def changed(self, rewired: Rewired) -> None:
        """The graph has been changed."""


async def demo(settings: Settings, is_json: bool) -> Ended:
    """Show this machine until the time is over, a signal comes or `q` is pressed; then all that is still under way.

    A second signal ends the process at once, whatever that waits for.
    """
    wishes: Wishes = asyncio.Queue()
    if is_json:
        with _signals(wishes.put_nowait):
            return await run(settings, Lines(), wishes)
    from hotplumb.demo.table import Board, live_table  # which needs rich

    keyboard = Keyboard()
    title, hint = f"this machine, every {settings.every_s} s", _hint(settings, keyboard.is_there)
    board = Board(wanted(settings.rollup_s), title, hint, asyncio.get_running_loop().time)
    with _signals(wishes.put_nowait, keyboard.restore), keyboard.listening(_keys(wishes.put_nowait)):
        async with live_table(board):
            return await run(settings, board, wishes)


async def run(settings: Settings, view: View, wishes: Wishes) -> Ended:
    """Run the graph, and change it when that is wished, until its end is wished or its time is over."""
    screen = Screen(settings, view)
    plumbing = screen.plumbing
    wish: Wish = "end"
    has_shown_all = False
    try:
        async with plumbing:
            wish = await screen.fulfil(wishes)
        has_shown_all = True
    except hp.NodeError as exc:
        if not isinstance(exc.__cause__, BrokenPipeError):  # as when `head -1` has its line
            raise
    samples = samples_of(plumbing)
    return Ended(
        sum(samples.values()),
        plumbing.statistics().nodes[SCREEN].received,
        plumbing.epoch,
        screen.tally.counts(samples) if has_shown_all else None,
        wish if isinstance(wish, signal.Signals) else None,
    )


class Screen:
    """The end of the graph: shows what comes to it, counts that, and has the graph changed."""

    def __init__(self, settings: Settings, view: View) -> None:
        self.tally = Tally()
        self.plumbing = hp.Plumbing(demo_topology(settings.rollup_s, settings.every_s, self.show))
        self._settings = settings
        self._view = view
        self._is_rewiring = False

    def show(self, value: Value) -> None:
        """Show the item in hand."""
        self.tally.see(hp.current_item(), self._epoch())
        self._view.show(value)

    def _epoch(self) -> int:
        """The change that last touched the screen."""
        if self._is_rewiring:  # some nodes have switched, and this may be one of them
            return self.plumbing.statistics().nodes[SCREEN].epoch
        return self.plumbing.topology.epoch_of(SCREEN)

    async def fulfil(self, wishes: Wishes) -> Wish:
        """Rewire as often as that is wished, or due; gives the wish that is none for that."""
        settings = self._settings
        loop = asyncio.get_running_loop()
        over = None if settings.seconds is None else loop.call_later(settings.seconds, wishes.put_nowait, "end")
        lengths = pairwise(cycle([settings.rollup_s, 2 * settings.rollup_s]))
        try:
            while (wish := await _next(wishes, settings.rewire_after_s)) == "rewire":
                await self._rewire(*next(lengths))
            return wish
        finally:
            if over is not None:
                over.cancel()

    async def _rewire(self, before_s: float, after_s: float) -> None:
        self._is_rewiring = True
        change = await rewire(self.plumbing, self.show, after_s)
        self._is_rewiring = False
        self.tally.changed(change)
        self._view.changed(Rewired(change, before_s, after_s))


async def _next(wishes: Wishes, rewire_after_s: float | None) -> Wish:
    try:
        async with asyncio.timeout(rewire_after_s):
            return await wishes.get()
    except TimeoutError:
        return "rewire"


def _number_of_changes(number: int) -> str:
    return "1 change" if number == 1 else f"{number} changes"


def samples_of(plumbing: hp.Plumbing) -> dict[str, int]:
    """How many samples of each metric its source has given."""
    active, nodes = plumbing.topology.active, plumbing.statistics().nodes
    found = {}
    for key, node in active.items():
        match key:
            case {"metric": metric} | {"counter": metric} if node.kind == "source":
                found[metric] = nodes[key].sent
    return found


def _keys(wish: Callable[[Wish], None]) -> Callable[[str], None]:
    """What the keys stand for."""

    def press(key: str) -> None:
        match key.lower():
            case "r":
                wish("rewire")
            case "q":
                wish("end")

    return press


def _hint(settings: Settings, has_keys: bool) -> str:
    """How the run goes on, in one line."""
    found = ["r: rewire", "q: end"] if has_keys else ["Ctrl-C: end"]
    if settings.rewire_after_s is not None:
        found.append(f"rewired every {settings.rewire_after_s} s")
    if settings.seconds is not None:
        found.append(f"ends after {settings.seconds} s")
    return "   ".join(found)


@contextmanager
def _signals(wish: Callable[[Wish], None], prepare: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Take the first SIGINT or SIGTERM for a wish; the second ends the process, though that be stuck in a write.

    `prepare` is called with the first, since nothing can be called with the second.
    """
    loop = asyncio.get_running_loop()

    def note(signum: int, frame: FrameType | None) -> None:
        prepare()
        for each in SIGNALS:
            signal.signal(each, signal.SIG_DFL)
        loop.call_soon_threadsafe(wish, signal.Signals(signum))

    before = {signum: signal.signal(signum, note) for signum in SIGNALS}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
