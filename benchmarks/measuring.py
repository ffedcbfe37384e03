"""Interleaved rounds: in each, every contestant has some tries, by turns, and the best of them counts.

So what slows the machine down for a while slows all alike, and what interrupts one try leaves the others.  The clock of
a try starts when its first item is asked for and stops when the last is processed: event loops, queues and graphs are
there before.  Automatic collection is on.  What reaches the sink is held against what the floor gives.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping
from itertools import chain
from typing import Any

import attrs

from benchmarks.contestants import FLOOR, Contestant
from benchmarks.results import Figure, figure

ROUNDS = 5  # of what takes long


@attrs.frozen
class Form:
    """How long to measure."""

    name: str
    rounds: int
    scale: float
    """Of the items a question asks for by itself."""

    def items(self, count: int) -> int:
        """`count` items, at this scale."""
        return max(1, round(count * self.scale))


SHORT = Form("short", 7, 1)
FULL = Form("full", 15, 4)
TINY = Form("tiny", 1, 0.005)  # to see that everything runs; its figures mean nothing


class WrongAnswer(Exception):
    """A contestant has not done the work."""


class Trial:
    """One run of one contestant: what it reads, what it calls at the end, and the clock."""

    def __init__(self, source: Any, sink: Callable[[Any], None], kept: list[Any]) -> None:
        self.source = source
        self.sink = sink
        self.kept = kept
        self.seconds = 0.0

    def started(self) -> None:
        """The first item is asked for."""
        self._began = time.perf_counter()

    def ended(self) -> None:
        """The last item is processed."""
        self.seconds = time.perf_counter() - self._began


def trial_of(values: Iterable[Any]) -> Trial:
    """A run over `values`, with a sink that keeps what it is given."""
    kept: list[Any] = []

    def keep(value: Any) -> None:
        kept.append(value)

    def starting() -> Iterator[Any]:
        trial.started()
        yield from ()

    trial = Trial(chain(starting(), values), keep, kept)
    return trial


Run = Callable[[Trial], Awaitable[None]]  # of one contestant, with the question's user functions


@attrs.frozen
class Race:
    """What the contestants are to do, and how it is measured."""

    new_trial: Callable[[int], Trial]
    """Makes a run over so many items."""
    items: int
    answer: Callable[[Trial], Any] = lambda trial: trial.kept
    """What must be the same for all."""
    measure: Callable[[Trial, int], float] = lambda trial, items: trial.seconds / items
    """Gives the figure of a run over so many items; by default its seconds per item."""
    tries: int = 3
    """In each round; the lowest figure counts."""


def raced(race: Race, runs: Mapping[Contestant, Run], form: Form) -> dict[str, Figure]:
    """Run all contestants, round after round: {name: what was measured}."""
    heat = _Heat(race, runs, {})
    items = {contestant: form.items(int(race.items * contestant.share)) for contestant in runs}
    for contestant in runs:
        heat.run(contestant, max(1, items[contestant] // 10))  # to warm up
    samples: dict[str, list[float]] = {contestant.name: [] for contestant in runs}
    for i in range(form.rounds):
        tries: dict[str, list[float]] = {contestant.name: [] for contestant in runs}
        for j in range(race.tries):
            for contestant in _rotated(list(runs), i + j):
                tries[contestant.name].append(heat.run(contestant, items[contestant]))
        for name, found in tries.items():
            samples[name].append(min(found))
    return {name: figure(found) for name, found in samples.items()}


def _rotated(contestants: list[Contestant], by: int) -> list[Contestant]:
    """Nobody is always the first."""
    by %= len(contestants)
    return contestants[by:] + contestants[:by]


@attrs.frozen
class _Heat:
    """Runs one contestant at a time, and checks its answer."""

    race: Race
    runs: Mapping[Contestant, Run]
    answers: dict[int, Any]
    """{items: what the floor gives}"""

    def run(self, contestant: Contestant, items: int) -> float:
        """What was measured in one run over so many items."""
        if items not in self.answers:
            self.answers[items] = self.race.answer(self._ran(FLOOR, items))
        trial = self._ran(contestant, items)
        if self.race.answer(trial) != self.answers[items]:
            raise WrongAnswer(f"{contestant.name}: of {items} items, what reached the sink is not what the floor gives")
        return self.race.measure(trial, items)

    def _ran(self, contestant: Contestant, items: int) -> Trial:
        trial = self.race.new_trial(items)
        gc.collect()
        on_loop(_awaited(self.runs[contestant](trial)))
        return trial


async def _awaited(work: Awaitable[None]) -> None:
    await work


def on_loop(work: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine on a new event loop."""
    return asyncio.run(work)


def ratios(figures: Mapping[str, Figure], base: str) -> dict[str, Figure]:
    """Each figure as a multiple of `base`, round by round."""
    under = figures[base].samples
    return {
        name: figure(mine / theirs for mine, theirs in zip(found.samples, under, strict=True))
        for name, found in figures.items()
    }
