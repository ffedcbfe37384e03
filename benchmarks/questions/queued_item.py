"""How much memory does an item take that waits in a queue, its value not counted?"""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Iterator
from functools import partial

from benchmarks import fresh
from benchmarks.contestants import ALL, Contestant, field, run_of
from benchmarks.measuring import Form, Trial, awaited, on_loop
from benchmarks.results import Figure, Row, Table, figure

ITEMS = 20_000
UNIT = "bytes an item, traced (tracemalloc), median of rounds (lowest to highest), each in a process of its own"
NOTES = ("a queue that holds so many is filled while its reader takes none; what has no queue has no figure",)


def ask(form: Form) -> Table:
    items = min(ITEMS, form.items(ITEMS))
    others = field("queued_item", items).others
    figures = {each.name: others.get(each.name) or _bytes(each, items, form) for each in ALL}
    return Table("queued_item", UNIT, (Row(f"{items:,} in a queue", figures),), NOTES)


def _bytes(contestant: Contestant, items: int, form: Form) -> Figure:
    weigh = partial(fresh.call, f"{__name__}:bytes_an_item", contestant.name, items)
    return figure(fresh.at_once(*[weigh] * form.long().rounds))


def bytes_an_item(name: str, items: int) -> float:
    """Have a contestant fill its queue with so many items."""
    contestant = next(each for each in ALL if each.name == name)
    run = run_of(contestant, "queued_item", items)
    assert run is not None
    tracemalloc.start()
    for count in (10, items):  # the first for what is imported or cached at the first use
        trial = Weighing(list(range(count)))
        on_loop(awaited(run(trial)))
    return trial.grown / items


class Weighing(Trial):
    """A run whose items are there before; memory is looked at when it starts and when it ends."""

    def __init__(self, values: list[int]) -> None:
        super().__init__(self._weighed(), print, values)
        self.grown = 0

    def _weighed(self) -> Iterator[int]:
        gc.collect()
        self._before = tracemalloc.get_traced_memory()[0]
        yield from self.kept

    def ended(self) -> None:
        gc.collect()
        self.grown = tracemalloc.get_traced_memory()[0] - self._before
