"""What does an item cost that an async function waits a millisecond for, a hundred of them at a time?"""

from __future__ import annotations

import asyncio

from benchmarks.measuring import Form, Race, Trial, trial_of
from benchmarks.questions.against_the_floor import NOTES, UNIT, row
from benchmarks.results import Table

ITEMS = 3_000
CONCURRENCY = 100
LATENCY_S = 0.001


async def add_one_later(number: int) -> int:
    await asyncio.sleep(LATENCY_S)
    return number + 1


def ask(form: Form) -> Table:
    race = Race(lambda items: trial_of(range(items)), ITEMS, _answer)
    found = row("1 ms, 100 at a time", "concurrent_stage", race, (add_one_later, CONCURRENCY), form)
    notes = (
        "floor: a hundred loops that share the source; some, hotplumb among them, keep the order of the items besides",
    )
    return Table("concurrent_stage", UNIT, (found,), (*NOTES, *notes))


def _answer(trial: Trial) -> list[int]:
    """Not all keep the order."""
    return sorted(trial.kept)
