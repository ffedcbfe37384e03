"""How long is a lone item under way through 5 idle stages?"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import AsyncIterator

from benchmarks.contestants import OURS, answering
from benchmarks.measuring import Form, Race, Trial, raced
from benchmarks.results import Row, Table

ITEMS = 300  # in each round
REST_S = 0.001  # between two items: long enough for everything to be idle
UNIT = "us from the producer's yield to the sink's call: p50 of a round, median of rounds (lowest to highest)"


def same(value: float) -> float:
    return value


def ask(form: Form) -> Table:
    race = Race(_sparse, ITEMS, lambda trial: len(trial.kept), lambda trial, _: statistics.median(trial.kept) * 1e6, 1)
    found = raced(race, answering("lone_item", [same] * 5), form)
    return Table("lone_item", UNIT, (Row("through 5 idle stages", found, {OURS.name: 5}),))


def _sparse(items: int) -> Trial:
    """Values that are the times they were given at; the sink keeps how long ago that was."""
    took: list[float] = []

    async def produce() -> AsyncIterator[float]:
        trial.started()
        for _ in range(items):
            await asyncio.sleep(REST_S)
            yield time.perf_counter()

    def arrive(given_at: float) -> None:
        took.append(time.perf_counter() - given_at)

    trial = Trial(produce(), arrive, took)
    return trial
