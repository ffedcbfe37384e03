"""One run of the demo, from its first sample to its last line."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, contextmanager, nullcontext
from types import FrameType

import attrs

import hotplumb as hp
from hotplumb.demo.graph import SCREEN, Show, demo_topology, wanted
from hotplumb.demo.lines import print_line

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@attrs.frozen
class Ended:
    """How a run went."""

    samples: int
    """Read from the machine."""
    rows: int
    """Shown."""
    signal: int | None
    """What ended it, None where its time was over or nobody reads its output any more."""


async def demo(rollup_s: float, every_s: float, seconds: float | None, is_json: bool) -> Ended:
    """Show this machine for so many seconds, or until a signal comes; then show all that is still under way.

    A second signal ends the process at once, whatever that waits for.
    """
    async with _view(rollup_s, every_s, seconds, is_json) as show:
        return await _run(demo_topology(rollup_s, every_s, show), seconds)


def _view(rollup_s: float, every_s: float, seconds: float | None, is_json: bool) -> AbstractAsyncContextManager[Show]:
    if is_json:
        return nullcontext(print_line)
    from hotplumb.demo.table import live_table  # which needs rich

    ends = "Ctrl-C ends it" if seconds is None else f"for {seconds} s"
    return live_table(wanted(rollup_s), f"every {every_s} s, roll-ups of {rollup_s} s, {ends}")


async def _run(topology: hp.Topology, seconds: float | None) -> Ended:
    plumbing = hp.Plumbing(topology)
    with _first_signal() as came:
        try:
            async with plumbing:
                await asyncio.wait([came], timeout=seconds)
        except hp.NodeError as exc:
            if not isinstance(exc.__cause__, BrokenPipeError):  # as when `head -1` has its line
                raise
        return Ended(*_counts(plumbing), came.result() if came.done() else None)


def _counts(plumbing: hp.Plumbing) -> tuple[int, int]:
    """How many samples were read, and how many values shown."""
    active, nodes = plumbing.topology.active, plumbing.statistics().nodes
    return sum(nodes[key].sent for key, node in active.items() if node.kind == "source"), nodes[SCREEN].received


@contextmanager
def _first_signal() -> Iterator[asyncio.Future[int]]:
    """Give a future for the first SIGINT or SIGTERM; the second ends the process, though that be stuck in a write."""
    loop = asyncio.get_running_loop()
    came: asyncio.Future[int] = loop.create_future()

    def note(signum: int, frame: FrameType | None) -> None:
        for each in SIGNALS:
            signal.signal(each, signal.SIG_DFL)
        loop.call_soon_threadsafe(came.set_result, signum)

    before = {signum: signal.signal(signum, note) for signum in SIGNALS}
    try:
        yield came
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
