"""What does the other event loop make of it?"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Any

import attrs

from benchmarks.contestants import ABSENT, FLOOR, OURS, Contestant, Field, field
from benchmarks.measuring import Form, Measure, Race, raced, ratios, seconds_an_item, trial_of
from benchmarks.questions import async_stage, chain, concurrent_stage, lone_item
from benchmarks.results import Figure, Row, Table

LOOPS = ("asyncio", "uvloop")
UNIT = (
    "times the floor's time on asyncio's loop, median of rounds (lowest to highest); lone item: us from yield to call"
)


def ask(form: Form) -> Table:
    rows = (
        _row("10 sync maps", "chain", _race(chain.ITEMS // 10), ([chain.add_one] * 10,), form),
        _row("suspends once", "async_stage", _race(async_stage.ITEMS), (async_stage.add_one_later,), form),
        _row(
            "1 ms, 100 at a time",
            "concurrent_stage",
            _race(concurrent_stage.ITEMS),
            (concurrent_stage.add_one_later, concurrent_stage.CONCURRENCY),
            form,
        ),
    )
    lone = _raced("lone_item", lone_item.RACE, ([lone_item.same] * 5,), form, lone_item.p50_us)
    return Table("uvloop", UNIT, (*rows, Row("lone item, p50", lone)))


def _race(items: int) -> Race:
    return Race(lambda count: trial_of(range(count)), items, lambda trial: sorted(trial.kept), tries=2)


def _row(what: str, question: str, race: Race, arguments: tuple[Any, ...], form: Form) -> Row:
    return Row(what, ratios(_raced(question, race, arguments, form), FLOOR.name))


def _raced(
    question: str, race: Race, arguments: tuple[Any, ...], form: Form, measure: Measure = seconds_an_item
) -> Mapping[str, Figure | str]:
    asked = field(question, *arguments)
    runs = {_on(contestant, loop): asked.runs[contestant] for contestant in (FLOOR, OURS) for loop in _loops()}
    absent = {
        _on(contestant, loop).name: ABSENT for contestant in (FLOOR, OURS) for loop in LOOPS if loop not in _loops()
    }
    return raced(race, Field(runs, absent), form.long(), measure)


def _loops() -> tuple[str, ...]:
    return LOOPS if importlib.util.find_spec("uvloop") else LOOPS[:1]


def _on(contestant: Contestant, loop: str) -> Contestant:
    if loop == contestant.loop:
        return contestant
    return attrs.evolve(contestant, name=f"{contestant.name}, {loop}", loop=loop)
