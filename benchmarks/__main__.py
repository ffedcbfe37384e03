"""The command line: see the package."""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from benchmarks import machine, questions, results
from benchmarks.measuring import FULL, SHORT, Form
from benchmarks.results import Table


def main(arguments: Sequence[str] | None = None) -> int:
    """Ask what the command line names; gives the exit status: 1 where a question could not be answered."""
    options = _parser().parse_args(arguments)
    print(f"{machine.text()}\n")
    began = time.perf_counter()
    asked = options.questions or questions.NAMES
    found = [_answered(name, FULL if options.full else SHORT) for name in asked]
    tables = [table for table in found if table is not None]
    if options.json is not None:
        options.json.write_text(results.as_json(tables))
    print(f"{len(tables)} of {len(asked)} questions answered in {time.perf_counter() - began:.0f} s")
    return int(len(tables) < len(asked))


def _answered(name: str, form: Form) -> Table | None:
    """Ask one question and print its table; one that fails is shown and does not keep the others from being asked."""
    try:
        table = questions.ask(name, form)
    except Exception:
        print(f"{name}: no answer\n{traceback.format_exc()}", file=sys.stderr)
        return None
    print(f"{results.as_text(table)}\n", flush=True)
    return table


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="How fast hotplumb is.")
    parser.add_argument("questions", nargs="*", type=_question, metavar="question", help=questions.LIST)
    parser.add_argument("--full", action="store_true", help="more rounds, more items")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results here too")
    return parser


def _question(name: str) -> str:
    if name not in questions.NAMES:
        raise argparse.ArgumentTypeError(f"no question {name!r}: there are {questions.LIST}")
    return name


if __name__ == "__main__":
    sys.exit(main())
