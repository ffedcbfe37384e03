"""What does an item cost on its way through 10, and through 100, plain functions in a row?"""

from __future__ import annotations

from benchmarks.measuring import Form, Race, trial_of
from benchmarks.questions.against_the_floor import NOTES, UNIT, row
from benchmarks.results import Row, Table

ITEMS = 500_000  # through a chain of one


def add_one(number: int) -> int:
    return number + 1


def ask(form: Form) -> Table:
    return Table("chain", UNIT, (_row(10, 1.3, form), _row(100, 1.5, form)), NOTES)


def _row(depth: int, at_most: float, form: Form) -> Row:
    race = Race(lambda items: trial_of(range(items)), ITEMS // depth)
    return row(f"{depth} sync maps", "chain", race, ([add_one] * depth,), form, at_most)
