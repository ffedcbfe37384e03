"""What does an item cost that an async function suspends once for?"""

from __future__ import annotations

import asyncio

from benchmarks.measuring import Form, Race, trial_of
from benchmarks.questions.against_the_floor import NOTES, UNIT, row
from benchmarks.results import Table

ITEMS = 6_000


async def add_one_later(number: int) -> int:
    await asyncio.sleep(0)
    return number + 1


def ask(form: Form) -> Table:
    race = Race(lambda items: trial_of(range(items)), ITEMS)
    found = row("suspends once", "async_stage", race, (add_one_later,), form, 1.05)
    return Table("async_stage", UNIT, (found,), NOTES)
