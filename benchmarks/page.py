"""The page of results: `python -m benchmarks.page RESULT.json > docs/reference/benchmarks.md`."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Iterator, Sequence

from benchmarks import questions, results
from benchmarks.contestants import OURS
from benchmarks.results import Budget, Results, Table, number

NAME = "hotplumb"
HEAD = """\
# How fast it is

This page is written by `python -m benchmarks.page` from one run of `benchmarks/`, which is part of the repository:
`nox -s bench` runs it on your machine in less than five minutes.

Figures are medians of rounds, with the lowest and highest beside them. In each round all contestants run by turns, so
that what slows the machine down slows all alike; what reaches the sink is checked against the floor. The *floor* is
the same work as a hand-written loop that calls the same functions. *no* says that a library cannot do it. A *budget*
is what hotplumb sets itself: the median has to be at most that.
"""


def page(found: Results) -> str:
    """A run, as a page of this documentation."""
    return "\n".join([HEAD, *_machine(found), *_budgets(found), *(_section(table) for table in found.tables)])


def _machine(found: Results) -> Iterator[str]:
    machine = found.machine
    yield "## The machine\n"
    yield f"- {machine['processor']}, {machine['cores']} cores; {machine['system']}"
    yield f"- {machine['python']}; {machine['loop']}"
    yield f"- {', '.join(f'{name} {version}' for name, version in machine['packages'].items())}"
    yield f"- {machine['when'][:10]}, {found.form} form, load {' '.join(map(str, machine['load']))} when it began\n"


def _budgets(found: Results) -> Iterator[str]:
    budgets = list(results.budgets(found.tables))
    missed = [budget for budget in budgets if not budget.is_met]
    yield "## Budgets\n"
    yield f"{len(budgets) - len(missed)} of {len(budgets)} budgets are met.{' Missed:' if missed else ''}\n"
    if missed:
        yield "| question | budget | measured |\n|---|---|---|"
        yield from (_missed(budget) for budget in missed)
        yield ""


def _missed(budget: Budget) -> str:
    place = f"{budget.question}, {budget.what}, {_named(budget.column)}"
    return f"| {place} | {number(budget.at_most)} | {number(budget.measured)} |"


def _section(table: Table) -> str:
    """A question, its table, and how to read it."""
    lines = results.cells(table, "")
    if len(table.columns) > len(table.rows):
        lines = results.turned(lines)
    head, *body = [f"| {' | '.join(map(_named, line))} |" for line in lines]
    rule = "|" + "---|" * len(lines[0])
    asked = _question(table.question)
    notes = [f"Unit: {table.unit}.", *(f"{note[0].upper()}{note[1:]}." for note in table.notes)]
    return "\n".join([f"## {asked}\n", head, rule, *body, "", *notes, ""])


def _named(text: str) -> str:
    """Contestants by name, which for readers of this page hotplumb has too."""
    return NAME if text == OURS.name else text.replace(f"{OURS.name}, ", f"{NAME}, ")


def _question(name: str) -> str:
    """What a question asks: the first line of its module."""
    if name not in questions.NAMES:
        return name
    text = importlib.import_module(f"{questions.__name__}.{name}").__doc__ or name
    return text.partition("\n\n")[0].replace("\n", " ").strip()


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the page of a run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.page", description="The page of results.")
    parser.add_argument("result", type=results.of_file, metavar="RESULT.json")
    print(page(parser.parse_args(arguments).result), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
