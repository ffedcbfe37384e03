"""The command line: see the package."""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

import attrs

from benchmarks import machine, questions, results
from benchmarks.measuring import FULL, SHORT, Form
from benchmarks.results import Results, Table


def main(arguments: Sequence[str] | None = None) -> int:
    """Ask what the command line names; gives the exit status: 1 where a question could not be answered."""
    options = _parser().parse_args(arguments)
    here, form = machine.describe(), FULL if options.full else SHORT
    print(f"{machine.text(here)}\n", flush=True)
    began = time.perf_counter()
    asked = options.questions or questions.NAMES
    tables: list[Table] = []
    for name in asked:
        table = _answered(name, form)
        tables += [table] if table is not None else []
        if options.json is not None:  # each time, so that what is interrupted has not been for nothing
            options.json.write_text(results.as_json(Results(attrs.asdict(here), form.name, tuple(tables))))
    print(_summary(tables))
    print(f"{len(tables)} of {len(asked)} questions answered in {time.perf_counter() - began:.0f} s")
    return int(len(tables) < len(asked))


def _answered(name: str, form: Form) -> Table | None:
    """Ask one question and print its table; one that fails is shown and does not keep the others from being asked."""
    began = time.perf_counter()
    try:
        table = questions.ask(name, form)
    except Exception:
        print(f"{name}: no answer\n{traceback.format_exc()}", file=sys.stderr)
        return None
    print(f"{results.as_text(table)}\n({time.perf_counter() - began:.0f} s)\n", flush=True)
    return table


def _summary(tables: Sequence[Table]) -> str:
    """Which budgets are met."""
    found = list(results.budgets(tables))
    missed = [budget for budget in found if not budget.is_met]
    lines = [f"budgets: {len(found) - len(missed)} of {len(found)} met", *(f"  missed: {budget}" for budget in missed)]
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="How fast hotplumb is.")
    parser.add_argument("questions", nargs="*", type=_question, metavar="question", help=questions.LIST)
    parser.add_argument("--full", action="store_true", help="more rounds, more items")
    parser.add_argument("--json", type=_file, metavar="FILE", help="write the results here too")
    return parser


def _question(name: str) -> str:
    if name not in questions.NAMES:
        raise argparse.ArgumentTypeError(f"no question {name!r}: there are {questions.LIST}")
    return name


def _file(name: str) -> Path:
    path = Path(name)
    if not path.parent.is_dir() or path.is_dir():
        raise argparse.ArgumentTypeError(f"{name}: there is no folder {path.parent}, or that is one itself")
    return path


if __name__ == "__main__":
    sys.exit(main())
