"""Figures, the tables of them and their budgets; what a run writes, and what is read of it again."""

from __future__ import annotations

import json
import statistics
from argparse import ArgumentTypeError
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

WIDTH = 120  # of a terminal; a wider table is turned on its side


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
    """{column: its budget: what its median may be}"""

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

    @property
    def columns(self) -> list[str]:
        """All columns that some row has."""
        return list(dict.fromkeys(column for row in self.rows for column in row.figures))


@attrs.frozen
class Results:
    """All that one run has found."""

    machine: Mapping[str, Any]
    form: str
    tables: tuple[Table, ...]


@attrs.frozen
class Budget:
    """What one figure may be, and what it is."""

    question: str
    what: str
    column: str
    at_most: float
    measured: float

    @property
    def is_met(self) -> bool:
        return self.measured <= self.at_most

    def __str__(self) -> str:
        place = f"{self.question}, {self.what}, {self.column}"
        return f"{place}: budget {number(self.at_most)}, measured {number(self.measured)}"


def figure(samples: Iterable[float]) -> Figure:
    """A figure of these samples."""
    return Figure(tuple(samples))


def budgets(tables: Iterable[Table]) -> Iterator[Budget]:
    """All budgets whose figures were measured."""
    for table in tables:
        for row in table.rows:
            for column, most in row.at_most.items():
                found = row.figures.get(column)
                if isinstance(found, Figure):
                    yield Budget(table.question, row.what, column, most, found.median)


def as_json(results: Results) -> str:
    """A run, to be kept and compared with others."""
    plain = {
        "machine": dict(results.machine),
        "form": results.form,
        "tables": [_plain(table) for table in results.tables],
    }
    return json.dumps(plain, indent=1) + "\n"


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


def from_json(text: str) -> Results:
    """A run that was written by `as_json`."""
    plain = json.loads(text)
    return Results(plain["machine"], plain["form"], tuple(_table(table) for table in plain["tables"]))


def _table(plain: dict[str, Any]) -> Table:
    rows = tuple(Row(row["what"], _figures(row["figures"]), row["at_most"]) for row in plain["rows"])
    return Table(plain["question"], plain["unit"], rows, tuple(plain["notes"]))


def _figures(plain: dict[str, Any]) -> dict[str, Figure | str]:
    return {column: found if isinstance(found, str) else figure(found["samples"]) for column, found in plain.items()}


def as_text(table: Table) -> str:
    """A table to read: medians, with the lowest and highest of all rounds, each beside its budget."""
    lines = cells(table, table.question)
    printed = _aligned(lines)
    if _width(printed) > WIDTH:
        printed = min(printed, _aligned(turned(lines)), key=_width)
    printed.insert(1, "-" * _width(printed))
    return "\n".join([*printed, f"unit: {table.unit}", *table.notes])


def _width(lines: Sequence[str]) -> int:
    return max(map(len, lines))


def cells(table: Table, corner: str) -> list[list[str]]:
    """The texts of a table, its heads in the first line."""
    columns = table.columns
    return [[corner, *columns], *([row.what, *(cell(row, column) for column in columns)] for row in table.rows)]


def turned(lines: Sequence[Sequence[str]]) -> list[list[str]]:
    """Columns as lines."""
    return [list(line) for line in zip(*lines, strict=True)]


def _aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return ["  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in lines]


def cell(row: Row, column: str) -> str:
    """What a table says of one figure."""
    found = row.figures.get(column, "")
    if isinstance(found, str):
        return found
    spread = f" ({number(found.low)} to {number(found.high)})" if len(found.samples) > 1 else ""
    return f"{number(found.median)}{spread}{_budget(row, column)}"


def _budget(row: Row, column: str) -> str:
    if column not in row.at_most:
        return ""
    return f", budget {number(row.at_most[column])} {'MISSED' if row.has_missed(column) else 'met'}"


def number(value: float) -> str:
    """Digits enough to compare; more of them around 1, where budgets are tight."""
    if value >= 100:
        return f"{value:,.0f}"
    if value >= 10:
        return f"{value:.1f}"
    return f"{value:.3f}" if value < 0.1 or 0.9 < value < 1.1 else f"{value:.2f}"


def of_file(name: str) -> Results:
    """The results in a file that a command line names."""
    try:
        return from_json(Path(name).read_text())
    except OSError as exc:
        raise ArgumentTypeError(f"{name}: {exc.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ArgumentTypeError(f"{name} has no results: write them with `python -m benchmarks --json FILE`") from None
