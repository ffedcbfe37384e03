"""Who takes part: one module each, with an async function for each question that it has an answer to, named like it.

A function is given the `Trial` and then the question's user functions.  It reads `trial.source` to its end, sees to it
that `trial.sink` is called with each result, and calls `trial.ended()` when the last is processed.

Each library is used as its own documentation says, in the fastest of the ways that it shows; there is no function for
what it cannot do.
"""

from __future__ import annotations

import importlib
from collections.abc import Awaitable, Callable, Mapping
from importlib import metadata
from types import ModuleType
from typing import Any

import attrs

Run = Callable[[Any], Awaitable[None]]  # of a trial, with the question's user functions


@attrs.frozen
class Contestant:
    """A library, or a way to do without."""

    name: str
    module: str
    share: float = 1
    """Of the items: a slow one gets fewer, so that rounds stay short.  Figures are per item."""
    package: str = ""
    """What it has to have installed."""
    loop: str = "asyncio"


FLOOR = Contestant("floor", "floor")
QUEUE = Contestant("asyncio.Queue", "queues", 1 / 8)
OURS = Contestant("ours", "ours")
PEERS = (
    Contestant("anyio streams", "anyio_streams", 1 / 40, "anyio"),
    Contestant("streamz", "streamz_streams", 1 / 20, "streamz"),
    Contestant("reactivex", "reactivex_observables", 1 / 4, "reactivex"),
    Contestant("aiostream", "aiostream_streams", 1 / 40, "aiostream"),
    Contestant("consecution", "consecution_nodes", 1 / 2, "consecution"),
    Contestant("bytewax", "bytewax_dataflow", 1 / 2, "bytewax"),
)
ALL = (FLOOR, QUEUE, *PEERS, OURS)
CANNOT, ABSENT = "no", "not installed"


@attrs.frozen
class Field:
    """Who runs for a question, and who does not."""

    runs: Mapping[Contestant, Run]
    others: Mapping[str, str]
    """{name: why not, in a word}"""


def field(question: str, *arguments: Any) -> Field:
    """Those who have an answer to a question and are installed, each with its run of a trial with `arguments`."""
    runs: dict[Contestant, Run] = {}
    others: dict[str, str] = {}
    for contestant in ALL:
        try:
            run = run_of(contestant, question, *arguments)
        except ImportError:
            others[contestant.name] = ABSENT
            continue
        if run is None:
            others[contestant.name] = CANNOT
        else:
            runs[contestant] = run
    return Field(runs, others)


def run_of(contestant: Contestant, question: str, *arguments: Any) -> Run | None:
    """Its run of a trial with `arguments`, if it has an answer to a question.

    Raises:
        ImportError: it is not installed.
    """
    answer = getattr(_module(contestant), question, None)
    return None if answer is None else _bound(answer, arguments)


def _module(contestant: Contestant) -> ModuleType:
    return importlib.import_module(f"{__name__}.{contestant.module}")


def _bound(fn: Callable[..., Awaitable[None]], arguments: tuple[Any, ...]) -> Run:
    return lambda trial: fn(trial, *arguments)


def versions() -> dict[str, str]:
    """Which libraries take part: {package: its version, or why it does not}."""
    return {contestant.package: _version(contestant) for contestant in ALL if contestant.package}


def _version(contestant: Contestant) -> str:
    try:
        _module(contestant)
    except ImportError as exc:
        return f"{ABSENT}: {exc}"
    return metadata.version(contestant.package)
