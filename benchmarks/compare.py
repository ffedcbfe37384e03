"""What got slower from one run to another: `python -m benchmarks.compare OLD.json NEW.json`.

Compared are hotplumb's figures, for most questions multiples of the floor's time in the same run.  One is named where
the difference is beyond the spread of the rounds: its median is above all that the old run has seen, and the old median
below all that the new run has.  Exit status 1 where anything got slower.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence

import attrs

from benchmarks import results
from benchmarks.contestants import OURS
from benchmarks.results import Figure, Results, Row, number


@attrs.frozen
class Difference:
    """One figure in both runs."""

    place: str
    old: Figure
    new: Figure

    @property
    def is_slower(self) -> bool:
        return self.new.median > self.old.high and self.old.median < self.new.low

    @property
    def is_faster(self) -> bool:
        return self.new.median < self.old.low and self.old.median > self.new.high

    def __str__(self) -> str:
        times = self.new.median / self.old.median if self.old.median else float("inf")
        return f"{self.place}: {_spread(self.old)} -> {_spread(self.new)}, {number(times)} times"


def _spread(found: Figure) -> str:
    return f"{number(found.median)} ({number(found.low)} to {number(found.high)})"


def differences(old: Results, new: Results) -> Iterator[Difference]:
    """All of hotplumb's figures that both runs have."""
    before = dict(_figures(old))
    for place, figure in _figures(new):
        if place in before:
            yield Difference(place, before[place], figure)


def _figures(found: Results) -> Iterator[tuple[str, Figure]]:
    for table in found.tables:
        for row in table.rows:
            for column in _ours(row):
                figure = row.figures.get(column)
                if isinstance(figure, Figure):
                    yield f"{table.question}, {row.what}, {column}", figure


def _ours(row: Row) -> Iterator[str]:
    """The columns that are about hotplumb: its own, and those with a budget."""
    return (column for column in row.figures if column == OURS.name or column in row.at_most)


def report(old: Results, new: Results) -> tuple[str, bool]:
    """What to print, and whether anything got slower."""
    found = list(differences(old, new))
    slower, faster = [each for each in found if each.is_slower], [each for each in found if each.is_faster]
    lines = [*_warnings(old, new), f"{len(found)} figures compared: {len(slower)} slower, {len(faster)} faster"]
    lines += [f"slower: {each}" for each in slower] + [f"faster: {each}" for each in faster]
    return "\n".join(lines), bool(slower)


def _warnings(old: Results, new: Results) -> Iterator[str]:
    for name in ("processor", "cores", "python", "loop"):
        was, is_ = old.machine.get(name), new.machine.get(name)
        if was != is_:
            yield f"not the same {name}: {was} -> {is_}"
    if old.form != new.form:
        yield f"not the same form: {old.form} -> {new.form}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare what the command line names; gives the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare", description="What got slower.")
    parser.add_argument("old", type=results.of_file, metavar="OLD.json")
    parser.add_argument("new", type=results.of_file, metavar="NEW.json")
    options = parser.parse_args(arguments)
    text, is_slower = report(options.old, options.new)
    print(text)
    return int(is_slower)


if __name__ == "__main__":
    sys.exit(main())
