"""How long is a lone item under way through 5 idle stages?"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import AsyncIterator

from benchmarks.contestants import OURS, field
from benchmarks.measuring import Form, Race, Trial, raced_for
from benchmarks.questions.against_the_floor import in_order
from benchmarks.results import Row, Table

ITEMS = 300  # in each round
REST_S = 0.001  # between two items: long enough for everything to be idle
UNIT = "us from the producer's yield to the sink's call, of all items of a round: median of rounds (lowest to highest)"


def same(value: float) -> float:
    return value


def ask(form: Form) -> Table:
    p50, p99 = raced_for(RACE, field("lone_item", [same] * 5), form, (p50_us, _p99_us))
    return Table("lone_item", UNIT, (Row("p50", in_order(p50), {OURS.name: 5}), Row("p99", in_order(p99))))


def p50_us(trial: Trial, items: int) -> float:
    return float(statistics.median(trial.kept)) * 1e6


def _p99_us(trial: Trial, items: int) -> float:
    return float(statistics.quantiles([*trial.kept, trial.kept[-1]], n=100, method="inclusive")[98]) * 1e6


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


RACE = Race(_sparse, ITEMS, lambda trial: len(trial.kept), tries=1)
