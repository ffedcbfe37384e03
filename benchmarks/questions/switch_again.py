"""How long does it take to replace a node right after one above it, so that the second change has to pass in order?"""

from __future__ import annotations

from benchmarks.measuring import Form
from benchmarks.questions.switch import NOTES, UNIT, Changer, Taken, rows
from benchmarks.results import Table

CHANGES = {64: 20, 1024: 2}  # in a round, {capacity: so many}: with more queued it takes so much longer
WHY = (
    "right after a change that has not settled, a region reaches from the one change to the other: all that is queued"
    " between the two is worked off first, while the graph runs on"
)


def ask(form: Form) -> Table:
    return Table("switch_again", UNIT, rows(form, _replaced_after_another, CHANGES, {}), (*NOTES, WHY))


async def _replaced_after_another(changer: Changer) -> Taken:
    await changer.replace(changer.graph.above, is_to_settle=False)
    return await changer.replace(changer.graph.target)
