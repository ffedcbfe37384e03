"""Turns: which node works next on the loop, and for how long.

A plumbing works at most a millisecond in one turn of the event loop, all its nodes together; then the loop looks at its
sockets.  Nodes that are ready wait in one line; each does a slice of work when it comes to the front, and goes to the
end of the line again if it has more.  A node with a task of its own does its slice in that task: the turn lets it go,
and counts what its last slice cost.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from contextvars import Context, copy_context
from typing import Any, Protocol

REST_ROUNDS = 2  # of the loop, after a used-up turn: a timer's task takes two to come to its step
TURN_S = 0.001  # what the embedding loop's other callbacks may be made to wait
SLOW_CALL_S = 0.05  # user code that holds up the loop for longer is worth a warning
SLICE_S = 0.00025  # several nodes get their turn within one millisecond


class Ready(Protocol):
    """What can stand in the line."""

    is_ready: bool

    def step(self, now: float) -> float:
        """Do a slice of work that began at `now`; give the time at its end.  Raises nothing."""


class Turns:
    """The line of ready nodes of one plumbing."""

    def __init__(self, loop: asyncio.AbstractEventLoop, crashed: Callable[[BaseException], None]) -> None:
        self.clock: Callable[[], float] = getattr(loop, "work_clock", time.perf_counter)
        self.context: Context = copy_context()
        self.charged_s = 0.0  # for slices that have been let go to run in tasks, in the next turn of the loop
        self._carried_s = 0.0  # what of this turn such slices take
        self._loop = loop
        self._crashed = crashed
        self.is_closed = False
        self._draw: Callable[[int], int] | None = getattr(loop, "draw", None)
        self._line: deque[Ready] = deque()
        self._is_scheduled = False
        self._rounds = 0
        self._is_running = False
        self._until: float | None = None  # when this turn of the loop is used up; None: not begun

    def add(self, node: Ready) -> None:
        """Let `node` step when it comes to the front; it is not in the line yet."""
        node.is_ready = True
        self._line.append(node)
        if not (self._is_scheduled or self._is_running):
            self._schedule(0)

    def close(self) -> None:
        """No node steps any more."""
        self.is_closed = True
        self._line.clear()
        self._line = deque(maxlen=0)  # which forgets what is added

    def run_now(self) -> None:
        """Let ready nodes step at once, as far as this turn of the loop has time left."""
        if self._line and not self._is_running:
            self.context.run(self._run)

    def run_first(self, act: Callable[[list[Any], float], float], values: list[Any], now: float) -> bool:
        """Do something with values and let ready nodes step at once, if this turn has time; gives whether it had.

        `act` is given the values and the time, and gives the time at its end.
        """
        if self._is_running or (self._until is not None and now >= self._until) or self.charged_s >= TURN_S:
            return False
        self.context.run(self._run, act, values, now)
        return True

    def _schedule(self, rounds: int) -> None:
        """Have a turn after so many rounds of the loop."""
        self._is_scheduled = True
        self._rounds = rounds
        self._loop.call_soon(self._turn, context=self.context)

    def _turn(self) -> None:
        if self._rounds:
            self._schedule(self._rounds - 1)
            return
        self._is_scheduled = False
        self._until = None
        self._carried_s, self.charged_s = self.charged_s, 0.0
        if self._line:
            self._run()

    def _run(
        self, first: Callable[[list[Any], float], float] | None = None, values: Any = None, now: float = 0.0
    ) -> None:
        line = self._line
        if first is None:
            now = self.clock()
        if self._until is None:
            self._until = now + TURN_S - self._carried_s
        until = self._until
        self._is_running = True
        try:
            if first is not None:
                now = first(values, now)
            while line and now < until and self.charged_s < TURN_S:
                node = line.popleft() if self._draw is None else self._drawn()
                node.is_ready = False
                now = node.step(now)
        except (KeyboardInterrupt, SystemExit):  # the host is to end: user code must not be called again
            self.close()
            raise
        except BaseException as exc:
            self._crashed(exc)
        finally:
            self._is_running = False
            if not self._is_scheduled:  # to go on, or only to see that a new round of the loop has begun
                self._schedule(REST_ROUNDS if now >= until else 0)

    def _drawn(self) -> Ready:
        """Any node of the line, as the seeded loop draws."""
        assert self._draw is not None
        line = self._line
        line.rotate(-self._draw(len(line)))
        return line.popleft()
