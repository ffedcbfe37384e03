"""What does an item cost that goes to 8 plain functions, and back into one sink?"""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.measuring import Form, Race, Trial, trial_of
from benchmarks.questions.against_the_floor import NOTES, UNIT, row
from benchmarks.results import Table

ITEMS = 25_000


def branch(i: int) -> Callable[[int], int]:
    def add(number: int) -> int:
        return number + i

    return add


def ask(form: Form) -> Table:
    race = Race(lambda items: trial_of(range(items)), ITEMS, _answer)
    fns = [branch(i) for i in range(8)]
    return Table("broadcast", UNIT, (row("to 8 and back", "broadcast", race, (fns,), form, 1.4),), NOTES)


def _answer(trial: Trial) -> list[int]:
    """Branches may overtake each other."""
    return sorted(trial.kept)
