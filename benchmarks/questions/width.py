"""Does a reader cost more where there are more of them on one node?"""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.contestants import field
from benchmarks.measuring import Form, Race, counting_trial_of, raced
from benchmarks.questions import growth
from benchmarks.results import Figure, Table

READERS = (1, 10, 100, 1_000)
BASE = 10
CALLS = 500_000  # in one try
FEWEST = 3_000  # items: nodes that start with one at a time have come to full chunks
UNIT = "ns an item and reader, median of rounds (lowest to highest); growth: hotplumb's, as a multiple of 10 readers"
NOTES = (
    "one source, so many sinks that call one function; floor: a loop over the sinks within a loop over the values",
)


def ask(form: Form) -> Table:
    found = growth.by_turns(READERS, _seconds, form.long())
    return Table("width", UNIT, growth.rows(found, BASE, "readers"), NOTES)


def _seconds(readers: int, form: Form) -> Mapping[str, Figure | str]:
    race = Race(lambda items: counting_trial_of(range(items)), max(FEWEST, CALLS // readers), tries=1)
    return raced(race, field("width", readers), form, lambda trial, items: trial.seconds / items / readers)
