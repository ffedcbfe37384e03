"""The rows of questions that ask how many times the floor's time something takes."""

from __future__ import annotations

from typing import Any

from benchmarks.contestants import ALL, FLOOR, OURS, field
from benchmarks.measuring import Form, Race, raced, ratios
from benchmarks.results import Figure, Row, figure

UNIT = "times the floor's time: best try of a round, median of rounds (lowest to highest); us: the floor's time an item"
NOTES = (
    "floor: a hand-written loop that calls the same user functions, nested, the sink's too; collection is on for all",
    "the clock runs from the first item asked for to the last one processed; loops, queues and graphs are there before",
)


def row(
    what: str, question: str, race: Race, arguments: tuple[Any, ...], form: Form, at_most: float | None = None
) -> Row:
    """Race all who have an answer to `question`."""
    found = raced(race, field(question, *arguments), form)
    floor = found[FLOOR.name]
    assert isinstance(floor, Figure)
    figures: dict[str, Figure | str] = {"us": figure(sample * 1e6 for sample in floor.samples)}
    figures |= in_order(ratios(found, FLOOR.name))
    return Row(what, figures, {} if at_most is None else {OURS.name: at_most})


def in_order(figures: dict[str, Figure | str]) -> dict[str, Figure | str]:
    """By contestant, those that did not run among the others."""
    return {contestant.name: figures[contestant.name] for contestant in ALL}
