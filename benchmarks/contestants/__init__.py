"""Who takes part: one module each, with an async function for each question that it has an answer to, named like it.

A function is given the `Trial` and then the question's user functions.  It reads `trial.source` to its end, sees to it
that `trial.sink` is called with each result, and calls `trial.ended()` when the last is processed.
"""

from __future__ import annotations

import importlib
from collections.abc import Awaitable, Callable
from typing import Any

import attrs


@attrs.frozen
class Contestant:
    """A library, or a way to do without."""

    name: str
    module: str
    share: float = 1
    """Of the items: a slow one gets fewer, so that rounds stay short.  Figures are per item."""


FLOOR = Contestant("floor", "floor")
QUEUE = Contestant("asyncio.Queue", "queues", 1 / 8)
OURS = Contestant("ours", "ours")
ALL = (FLOOR, QUEUE, OURS)


def answering(question: str, *arguments: Any) -> dict[Contestant, Callable[[Any], Awaitable[None]]]:
    """Those who have an answer to a question and are installed, each with its run of a trial with `arguments`."""
    found: dict[Contestant, Callable[[Any], Awaitable[None]]] = {}
    for contestant in ALL:
        try:
            module = importlib.import_module(f"{__name__}.{contestant.module}")
        except ImportError:
            continue
        if hasattr(module, question):
            found[contestant] = _bound(getattr(module, question), arguments)
    return found


def _bound(fn: Callable[..., Awaitable[None]], arguments: tuple[Any, ...]) -> Callable[[Any], Awaitable[None]]:
    return lambda trial: fn(trial, *arguments)
