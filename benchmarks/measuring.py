"""Interleaved rounds: in each, every contestant has some tries, by turns, and the best of them counts.

So what slows the machine down for a while slows all alike, and what interrupts one try leaves the others.  The clock of
a try starts when its first item is asked for and stops when the last is processed: event loops, queues and graphs are
there before.  Automatic collection is on.  What reaches the sink is held against what the floor gives.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import time
import traceback
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping
from itertools import chain
from typing import Any

import attrs

from benchmarks.contestants import FLOOR, Contestant, Field, Run
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

    def long(self) -> Form:
        """The same, with fewer rounds: for what takes long."""
        return attrs.evolve(self, rounds=min(self.rounds, ROUNDS))


SHORT = Form("short", 5, 1)
FULL = Form("full", 9, 2)
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

    trial = Trial(None, keep, kept)
    trial.source = chain(_starting(trial), values)
    return trial


def counting_trial_of(values: Iterable[Any]) -> Trial:
    """A run over `values`, with a sink that counts what it is given: `kept` holds the count."""
    kept = [0]

    def count(value: Any) -> None:
        kept[0] += 1

    trial = Trial(None, count, kept)
    trial.source = chain(_starting(trial), values)
    return trial


def _starting(trial: Trial) -> Iterator[Any]:
    trial.started()
    yield from ()


Measure = Callable[[Trial, int], float]  # gives the figure of a run over so many items


def seconds_an_item(trial: Trial, items: int) -> float:
    return trial.seconds / items


@attrs.frozen
class Race:
    """What the contestants are to do."""

    new_trial: Callable[[int], Trial]
    """Makes a run over so many items."""
    items: int
    answer: Callable[[Trial], Any] = lambda trial: trial.kept
    """What must be the same for all."""
    tries: int = 3
    """In each round; of each figure the lowest counts."""


def raced(race: Race, field: Field, form: Form, measure: Measure = seconds_an_item) -> dict[str, Figure | str]:
    """Run all contestants, round after round: {name: what was measured, or why nothing was}."""
    return raced_for(race, field, form, (measure,))[0]


def raced_for(
    race: Race, field: Field, form: Form, measures: tuple[Measure, ...]
) -> tuple[dict[str, Figure | str], ...]:
    """As `raced`, with several figures of the same runs."""
    runs, failed = _able(race, field, form)
    samples = _sampled(race, runs, form, measures)
    others = {**field.others, **failed}
    return tuple(
        {name: figure(taken[i] for taken in rounds) for name, rounds in samples.items()} | others
        for i in range(len(measures))
    )


def _able(race: Race, field: Field, form: Form) -> tuple[dict[Contestant, Run], dict[str, str]]:
    """Those whose run to warm up gives the right answer; a library that fails is left out, and the others go on."""
    heat, able, failed = _Heat(race, field.runs, {}), {}, {}
    for contestant, run in field.runs.items():
        try:
            heat.run(contestant, max(10, _items(race, contestant, form) // 10))
        except Exception as exc:
            if not contestant.package:
                raise
            traceback.print_exception(exc, file=sys.stderr)
            failed[contestant.name] = f"failed: {type(exc).__name__}"
        else:
            able[contestant] = run
    return able, failed


def _sampled(
    race: Race, runs: Mapping[Contestant, Run], form: Form, measures: tuple[Measure, ...]
) -> dict[str, list[list[float]]]:
    """{name: of each round what each measure gives}."""
    heat = _Heat(race, runs, {})
    samples: dict[str, list[list[float]]] = {contestant.name: [] for contestant in runs}
    for i in range(form.rounds):
        tries: dict[str, list[list[float]]] = {contestant.name: [] for contestant in runs}
        for j in range(race.tries):
            for contestant in _rotated(list(runs), i + j):
                items = _items(race, contestant, form)
                trial = heat.run(contestant, items)
                tries[contestant.name].append([measure(trial, items) for measure in measures])
        for name, found in tries.items():
            samples[name].append([min(figures) for figures in zip(*found, strict=True)])
    return samples


def _items(race: Race, contestant: Contestant, form: Form) -> int:
    return form.items(max(1, int(race.items * contestant.share)))


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

    def run(self, contestant: Contestant, items: int) -> Trial:
        """A run over so many items."""
        if items not in self.answers:
            self.answers[items] = self.race.answer(self._ran(FLOOR, items))
        trial = self._ran(contestant, items)
        if self.race.answer(trial) != self.answers[items]:
            raise WrongAnswer(f"{contestant.name}: of {items} items, what reached the sink is not what the floor gives")
        return trial

    def _ran(self, contestant: Contestant, items: int) -> Trial:
        trial = self.race.new_trial(items)
        gc.collect()
        on_loop(awaited(self.runs[contestant](trial)), contestant.loop)
        return trial


async def awaited(work: Awaitable[None]) -> None:
    """What only can be awaited, as a coroutine."""
    await work


def on_loop(work: Coroutine[Any, Any, Any], loop: str = "asyncio") -> Any:
    """Run a coroutine on a new event loop, asyncio's own or uvloop's."""
    with asyncio.Runner(loop_factory=_new_uvloop if loop == "uvloop" else None) as runner:
        return runner.run(work)


def _new_uvloop() -> asyncio.AbstractEventLoop:
    import uvloop

    return uvloop.new_event_loop()


def ratios(figures: Mapping[str, Figure | str], base: str) -> dict[str, Figure | str]:
    """Each figure as a multiple of `base`, round by round."""
    under = figures[base]
    assert isinstance(under, Figure)
    return {name: found if isinstance(found, str) else _ratio(found, under) for name, found in figures.items()}


def _ratio(found: Figure, under: Figure) -> Figure:
    return figure(mine / theirs for mine, theirs in zip(found.samples, under.samples, strict=True))
