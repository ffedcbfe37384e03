"""Does a node cost more where there are more of them in a row?"""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.contestants import field
from benchmarks.measuring import Form, Race, raced, trial_of
from benchmarks.questions import growth
from benchmarks.questions.chain import add_one
from benchmarks.results import Figure, Table

NODES = (1, 10, 100, 1_000)
BASE = 10
CALLS = 500_000  # in one try
FEWEST = 10_000  # items: nodes that start with one at a time have come to full chunks long since
UNIT = "ns an item and node, median of rounds (lowest to highest); growth: hotplumb's, as a multiple of 10 nodes"
NOTES = ("sync maps in a row; floor: a loop over the functions within a loop over the values",)


def ask(form: Form) -> Table:
    found = growth.by_turns(NODES, _seconds, form.long())
    return Table("depth", UNIT, growth.rows(found, BASE, "nodes"), NOTES)


def _seconds(nodes: int, form: Form) -> Mapping[str, Figure | str]:
    race = Race(lambda items: trial_of(range(items)), max(FEWEST, CALLS // nodes), tries=1)
    fns = [add_one] * nodes
    return raced(race, field("depth", fns), form, lambda trial, items: trial.seconds / items / nodes)
