"""What does an item cost that goes to one of 8 plain functions, by what it is, and back into one sink?"""

from __future__ import annotations

from benchmarks.measuring import Form, Race, Trial, trial_of
from benchmarks.questions.against_the_floor import NOTES, UNIT, row
from benchmarks.questions.broadcast import branch
from benchmarks.results import Table

ITEMS = 100_000
NAMES = ("a", "b", "c", "d", "e", "f", "g", "h")
BRANCHES = {name: branch(i) for i, name in enumerate(NAMES)}


def choose(number: int) -> str:
    return NAMES[number & 7]


def ask(form: Form) -> Table:
    race = Race(lambda items: trial_of(range(items)), ITEMS, _answer)
    return Table("route", UNIT, (row("to 8 and back", "route", race, (choose, BRANCHES), form, 1.5),), NOTES)


def _answer(trial: Trial) -> list[int]:
    """Branches may overtake each other."""
    return sorted(trial.kept)
