"""Profiles: where the time of a run goes, node by node.

    profile(topology)    runs it to its end, as `run` does, and measures
    Profile              a row for each node, the busiest first; shown as a table

An event loop is in plain code of a node, or waits for something to happen, or is in the plumbing or in async code that
does not wait.  The first is counted by the nodes, the second by the loop's selector, and the rest is the difference.
"""

from __future__ import annotations

import asyncio
import selectors
import time
from collections.abc import Iterable, Iterator
from typing import Any

import attrs

from hotplumb._supervision import Policy
from hotplumb.compose import Branch, in_order, topology_of
from hotplumb.drawing import columns, key_text
from hotplumb.errors import UsageError
from hotplumb.keys import Key
from hotplumb.nodes import Kind
from hotplumb.plumbing import NodeStatistics, Plumbing, _is_loop_running, draining_on_signals
from hotplumb.topology import Topology

DRAIN_TIMEOUT_S = 10.0  # after a signal, as `hp.run` has it


@attrs.frozen
class NodeProfile:
    """What one node took of a run."""

    key: Key
    kind: Kind
    is_async: bool
    """Whether its code is awaited: it is then busy while it waits, too."""
    busy_s: float
    """Seconds in its user code, for async code with what it awaited.  What taking chunks up and handing them on costs a
    plain node is in it; plain nodes that run as one loop share its time by what they took in a part of the run."""
    share: float
    """What part of the run it was busy for: 1 is all of it."""
    received: int
    """Items it has taken and worked on, but for those that failed."""
    sent: int
    """Items it has given, each counted once however many read it."""
    failed: int
    """Items, and calls without one, that failed and went no further."""

    @property
    def per_item_s(self) -> float | None:
        """Busy seconds for each item it received or failed on, of a source for each that it sent; None without any."""
        items = self.received + self.failed or self.sent
        return self.busy_s / items if items else None


@attrs.frozen(repr=False)
class Profile:
    """Where the time of a run went: shown as a table."""

    rows: tuple[NodeProfile, ...]
    """The nodes, the busiest first."""
    wall_s: float
    """How long the run took, from when all nodes had begun."""
    waiting_s: float
    """How much of that the event loop waited, with nothing to do."""
    collected: dict[Key, list[Any]]
    """What the `hp.collect()` sinks have, by their keys, as `run` returns it."""

    @property
    def busy_s(self) -> float:
        """How much of the run the plain code of all nodes took; no two can be busy with that at once."""
        return sum(row.busy_s for row in self.rows if not row.is_async)

    @property
    def plumbing_s(self) -> float:
        """How much of the run the plumbing took, where there are async nodes together with their code between waits."""
        return max(0.0, self.wall_s - self.waiting_s - self.busy_s)

    def __repr__(self) -> str:
        return "\n".join([*_table(self.rows), "", *_totals(self)])


def profile(
    topology: Topology | Branch, items: Any = None, *, on_error: Policy | None = None, shared: Any = None
) -> Profile:
    """Run a topology or a pipeline to its end, as `run` does, and tell where the time went.

    >>> import hotplumb as hp
    >>> def squares(n):
    ...     return sum(i * i for i in range(n))
    >>> profile = hp.profile(hp.map(squares) | hp.collect(), range(1000))
    >>> profile.rows[0].key, profile.rows[0].received, profile.rows[0].sent
    ('squares', 1000, 1000)
    >>> len(profile.collected["collect"])
    1000

    `print(profile)` then shows::

        node       kind         busy  share  received   sent  failed  per item
        "squares"  map       15.7 ms    96%     1,000  1,000       0   15.7 us
        "collect"  collect  154.2 us     1%     1,000      0       0    154 ns
        "items"    source   134.3 us     1%         0  1,000       0    134 ns

        16.3 ms in all: 16.0 ms (98%) in plain code of nodes, 220.0 us (1%) in the plumbing, 64.8 us (0%) waiting

    Where the run does not end, Ctrl-C ends it, and what was measured until then is returned.  Arguments as for `run`.

    Raises:
        NodeError, KeyboardInterrupt, SystemExit: as for `run`.
        UsageError: an event loop is running here already.
    """
    if _is_loop_running():
        raise UsageError(
            "hp.profile() starts an event loop, but one runs here: use `await asyncio.to_thread(hp.profile, topology)`"
        )
    plumbing, selector = Plumbing(topology_of(topology, items), on_error=on_error, shared=shared), _TimedSelector()
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selector)) as runner:
        found = runner.run(_measured(plumbing, selector))
    return attrs.evolve(found, collected=in_order(topology, found.collected))


class _TimedSelector(selectors.DefaultSelector):
    """A selector that knows how long it has waited."""

    def __init__(self) -> None:
        super().__init__()
        self.waited_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        began = time.perf_counter()
        try:
            return super().select(timeout)
        finally:
            self.waited_s += time.perf_counter() - began


async def _measured(plumbing: Plumbing, selector: _TimedSelector) -> Profile:
    async with plumbing:
        began, waited_s = time.perf_counter(), selector.waited_s
        with draining_on_signals(plumbing, DRAIN_TIMEOUT_S):
            await plumbing.join()
        wall_s, waited_s = time.perf_counter() - began, selector.waited_s - waited_s
        return Profile(_rows(plumbing, wall_s), wall_s, waited_s, plumbing.collected())


def _rows(plumbing: Plumbing, wall_s: float) -> tuple[NodeProfile, ...]:
    rows = [_row(plumbing, key, found, wall_s) for key, found in plumbing.statistics().nodes.items()]
    return tuple(sorted(rows, key=lambda row: -row.busy_s))


def _row(plumbing: Plumbing, key: Key, found: NodeStatistics, wall_s: float) -> NodeProfile:
    runner = plumbing._engine.runner(key)  # who alone knows whether a process has any async method
    is_async = runner.driver is not None
    share = found.busy_s / wall_s
    return NodeProfile(key, runner.node.kind, is_async, found.busy_s, share, found.received, found.sent, found.failed)


# ---- text

_HEADS = ("node", "kind", "busy", "share", "received", "sent", "failed", "per item")


def _table(rows: Iterable[NodeProfile]) -> Iterator[str]:
    lines = [_HEADS, *map(_cells, rows)]
    widths = [max(map(columns, column)) for column in zip(*lines, strict=True)]
    for key, kind, *numbers in lines:
        cells = [key + " " * (widths[0] - columns(key)), kind.ljust(widths[1])]
        cells += [number.rjust(width) for number, width in zip(numbers, widths[2:], strict=True)]
        yield "  ".join(cells)


def _cells(row: NodeProfile) -> tuple[str, ...]:
    return (
        key_text(row.key),
        f"async {row.kind}" if row.is_async else row.kind,
        _duration(row.busy_s),
        f"{row.share:.0%}",
        *[f"{count:,}" for count in (row.received, row.sent, row.failed)],
        "" if row.per_item_s is None else _duration(row.per_item_s),
    )


def _totals(profile: Profile) -> Iterator[str]:
    is_mixed = any(row.is_async for row in profile.rows)
    parts = {
        "in plain code of nodes": profile.busy_s,
        "in the plumbing and async code" if is_mixed else "in the plumbing": profile.plumbing_s,
        "waiting": profile.waiting_s,
    }
    shares = ", ".join(
        f"{_duration(seconds)} ({seconds / profile.wall_s:.0%}) {what}" for what, seconds in parts.items()
    )
    yield f"{_duration(profile.wall_s)} in all: {shares}"
    if is_mixed:
        yield "async nodes are busy while they wait, too, several of them at a time"


def _duration(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds / 1e-9:.0f} ns"
