"""Figures and the tables of them; what a compare script reads."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence

import attrs

from benchmarks import machine


@attrs.frozen
class Figure:
    """One number of the results, as measured in each round."""

    samples: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.samples)

    @property
    def low(self) -> float:
        return min(self.samples)

    @property
    def high(self) -> float:
        return max(self.samples)


@attrs.frozen
class Row:
    """One line of a table."""

    what: str
    figures: Mapping[str, Figure | str]
    """{column: what was measured, or in a word why nothing was}"""
    at_most: Mapping[str, float] = {}
    """{column: what DESIGN.md, section 8, allows its median to be}"""

    def has_missed(self, column: str) -> bool:
        """Whether a figure is above what is allowed."""
        figure = self.figures.get(column)
        return isinstance(figure, Figure) and column in self.at_most and figure.median > self.at_most[column]


@attrs.frozen
class Table:
    """The answer to one question."""

    question: str
    unit: str
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()


def figure(samples: Iterable[float]) -> Figure:
    """A figure of these samples."""
    return Figure(tuple(samples))


def as_json(tables: Sequence[Table]) -> str:
    """All tables, with the machine they were measured on."""
    found = {"machine": attrs.asdict(machine.describe()), "tables": [_plain(table) for table in tables]}
    return json.dumps(found, indent=1) + "\n"


def _plain(table: Table) -> dict[str, object]:
    rows = [
        {
            "what": row.what,
            "figures": {column: _plain_figure(found) for column, found in row.figures.items()},
            "at_most": dict(row.at_most),
            "missed": [column for column in row.figures if row.has_missed(column)],
        }
        for row in table.rows
    ]
    return {"question": table.question, "unit": table.unit, "rows": rows, "notes": list(table.notes)}


def _plain_figure(found: Figure | str) -> dict[str, object] | str:
    if isinstance(found, str):
        return found
    return {"median": found.median, "low": found.low, "high": found.high, "samples": list(found.samples)}


def as_text(table: Table) -> str:
    """A table to read: medians, with the lowest and highest of all rounds; what is above its budget is marked."""
    columns = list(dict.fromkeys(column for row in table.rows for column in row.figures))
    lines = [[table.question, *columns, "at most"]]
    lines += [[row.what, *(_cell(row, column) for column in columns), _budget(row)] for row in table.rows]
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    printed = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    ]
    printed.insert(1, "-" * max(map(len, printed)))
    return "\n".join([*printed, f"unit: {table.unit}", *table.notes])


def _cell(row: Row, column: str) -> str:
    found = row.figures.get(column, "")
    if isinstance(found, str):
        return found
    spread = f" ({_number(found.low)} to {_number(found.high)})" if len(found.samples) > 1 else ""
    return f"{_number(found.median)}{spread}{' MISSED' if row.has_missed(column) else ''}"


def _budget(row: Row) -> str:
    if len(row.at_most) < 2:
        return "".join(map(_number, row.at_most.values()))
    return ", ".join(f"{column} {_number(most)}" for column, most in row.at_most.items())


def _number(number: float) -> str:
    """Digits enough to compare; more of them around 1, where budgets are tight."""
    if number >= 100:
        return f"{number:,.0f}"
    if number >= 10:
        return f"{number:.1f}"
    return f"{number:.3f}" if number < 0.1 or 0.9 < number < 1.1 else f"{number:.2f}"
