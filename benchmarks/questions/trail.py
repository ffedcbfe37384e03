"""What does it cost that every item knows where it has been?

The engine is copied, and from one of the copies all code that keeps the trail is taken out: the rules are below, and
each must find something to take out.  Both copies then do the same work, in processes of their own.

Noise is larger than what is looked for, so instructions are counted where valgrind is installed, less those of a run
over fewer items: what happens once does not count.  They vary by a percent with where things lie in memory, so there
are rounds, all in one process, for to start Python under valgrind takes longer than a round.  Without valgrind, time
has to do.  Under valgrind a second means nothing, and how much a node takes at a time depends on it: there the graph's
clock goes on by a fixed step at each reading, so that chunks fill as in a run outside.
"""

from __future__ import annotations

import ast
import asyncio
import gc
import itertools
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import hotplumb
from benchmarks import fresh
from benchmarks.contestants import ours
from benchmarks.measuring import Form, Trial, trial_of
from benchmarks.questions import broadcast, chain, json_lines, route
from benchmarks.results import Figure, Row, Table, figure

CLOCK_STEP_S = 5e-6  # 256 calls of a fast function take about as long
AT_MOST = 1.03
ITEMS = {"chain": 2_000, "broadcast": 1_500, "route": 4_000, "json_lines": 800}
PROCESSES = {"short": 1, "full": 3}  # {form: of each copy}
FEWER = 4  # the run that is subtracted has a fourth of the items
TIMED = 100  # times as many items where time is measured
UNIT = "as a multiple of the same run with the trail's code removed"
NOTES = ("chain: 10 sync maps; the others as in the questions of those names",)

Rule = Callable[[ast.AST], ast.AST | None]  # gives what comes in its place, None where it is not meant


def ask(form: Form) -> Table:
    is_counted = shutil.which("valgrind") is not None and form.name in PROCESSES
    with tempfile.TemporaryDirectory() as folder:
        kept, removed = Path(folder, "kept"), Path(folder, "removed")
        copy_engine(kept, ())
        copy_engine(removed, RULES)
        measured = (_counted if is_counted else _timed)(kept, removed, form)
    rows = [Row(what, figures, {"kept": AT_MOST}) for what, figures in measured.items()]
    what = "instructions (valgrind --tool=callgrind)" if is_counted else "time (valgrind would count instructions)"
    return Table("trail", f"{what}, {UNIT}", tuple(rows), NOTES)


Figures = dict[str, Figure | str]


def _counted(kept: Path, removed: Path, form: Form) -> dict[str, Figures]:
    """Instructions for each item."""
    count = partial(partial, _instructions, form.long().rounds)
    found = [fresh.at_once(count(kept, i), count(removed, i)) for i in range(PROCESSES[form.name])]
    return {
        what: _figures([zip(with_it[what], without[what], strict=True) for with_it, without in found]) for what in ITEMS
    }


def _figures(found: list[Iterable[tuple[float, float]]]) -> Figures:
    """Of what each round took, with the trail and without."""
    pairs = [pair for rounds in found for pair in rounds]
    return {
        "instructions an item without": figure(without for _, without in pairs),
        "kept": figure(with_it / without for with_it, without in pairs),
    }


def _instructions(rounds: int, packages: Path, seed: int) -> dict[str, list[float]]:
    """What each item takes in each round, by question."""
    out = packages / f"callgrind.{seed}"
    under = ("valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", "--dump-before=getppid")
    fresh.call(f"{__name__}:run_marked", rounds, packages=packages, under=under, seed=seed)
    runs = [int(_TOTAL.findall(Path(f"{out}.{2 * i + 2}").read_text())[0]) for i in range(2 * rounds * len(ITEMS))]
    more = iter([more - fewer for fewer, more in zip(runs[::2], runs[1::2], strict=True)])
    return {what: [next(more) / (items - items // FEWER) for _ in range(rounds)] for what, items in ITEMS.items()}


_TOTAL = re.compile(r"^totals: (\d+)", re.MULTILINE)


def _timed(kept: Path, removed: Path, form: Form) -> dict[str, Figures]:
    found: dict[str, Figures] = {}
    for what in ITEMS:
        items = form.items(ITEMS[what] * TIMED)
        pairs = [(_seconds(what, items, kept), _seconds(what, items, removed)) for _ in range(form.rounds)]
        found[what] = {
            "us an item without": figure(without / items * 1e6 for _, without in pairs),
            "kept": figure(with_it / without for with_it, without in pairs),
        }
    return found


def _seconds(what: str, items: int, packages: Path) -> float:
    seconds: float = fresh.call(f"{__name__}:run", what, items, packages=packages)
    return seconds


# -- in the other process


def run_marked(rounds: int) -> None:
    """In each round of each question, a run over fewer items and one over all; every second part is a run."""
    for what, items in ITEMS.items():
        run(what, items, _loop_with_steady_clock)  # to warm up
        for count in (items // FEWER, items) * rounds:
            json_lines.lines(count)  # made here and kept, so that making them is not counted
            gc.collect()
            gc.freeze()  # so that no collection under way looks at all that is there before
            os.getppid()  # where valgrind begins to count anew
            run(what, count, _loop_with_steady_clock)
            os.getppid()


def run(what: str, items: int, loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None) -> float:
    """Have our contestant do its part of a question; gives the seconds."""
    trial, work = _work(what, items)
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(work)
    if not trial.kept:
        raise RuntimeError("nothing reached the sink")
    return trial.seconds


def _work(what: str, items: int) -> tuple[Trial, Coroutine[Any, Any, None]]:
    trial = trial_of(json_lines.lines(items) if what == "json_lines" else range(items))
    match what:
        case "chain":
            return trial, ours.chain(trial, [chain.add_one] * 10)
        case "broadcast":
            return trial, ours.broadcast(trial, [broadcast.branch(i) for i in range(8)])
        case "route":
            return trial, ours.route(trial, route.choose, route.BRANCHES)
    return trial, ours.json_lines(trial, *json_lines.ARGUMENTS)


def _loop_with_steady_clock() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    loop.work_clock = itertools.count(time.perf_counter(), CLOCK_STEP_S).__next__  # type: ignore[attr-defined]
    return loop


# -- the copies


def _constant_record(node: ast.AST) -> ast.AST | None:
    """`Record(...)` and `Root(...)`, with the places and numbers that are worked out for them: one that is there."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("Record", "Root"):
        return ast.Name("NO_RECORD", ast.Load())
    return None


def _no_places(node: ast.AST) -> ast.AST | None:
    """The places in `Outcome(values, places, ...)`."""
    match node:
        case ast.Call(func=ast.Name(id="Outcome"), args=[values, places, *rest]) if not _is_none(places):
            return ast.Call(node.func, [values, ast.Constant(None), *rest], [])
    return None


def _no_hand(node: ast.AST) -> ast.AST | None:
    """`in_hand.set(...)`."""
    match node:
        case ast.Expr(ast.Call(ast.Attribute(ast.Name(id="in_hand"), "set"))):
            return ast.Pass()
    return None


def _no_bookkeeping(node: ast.AST) -> ast.AST | None:
    """What says which value an output came from: `filling.end_call(...)`, `self._add_members(...)`, `index = ...`."""
    match node:
        case ast.Expr(ast.Call(ast.Attribute(attr="end_call" | "_add_members"))):
            return ast.Pass()
        case ast.Assign([ast.Name(id="index")], value) if not _is_none(value):
            return ast.Assign(node.targets, ast.Constant(None))
    return None


def _no_places_of_a_loop(node: ast.AST) -> ast.AST | None:
    """In generated loops, the lists of places: `Exit(writer, links, hops, region)`, and `if at.region:` where it is."""
    match node:
        case ast.Call(ast.Name(id="Exit"), [*args, ast.Attribute(attr="region")]):
            return ast.Call(node.func, [*args, ast.Constant(0)], [])
        case ast.If(ast.Attribute(ast.Name(id="at"), "region"), [ast.Expr()], []):
            return ast.Pass()
    return None


def _is_none(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


RULES: tuple[Rule, ...] = (_constant_record, _no_places, _no_hand, _no_bookkeeping, _no_places_of_a_loop)


def copy_engine(folder: Path, rules: tuple[Rule, ...]) -> None:
    """Copy hotplumb into `folder`, with what the rules find replaced.

    Raises:
        LookupError: a rule has found nothing: the engine has changed, and this question has to change with it.
    """
    package = folder / "hotplumb"
    shutil.copytree(Path(hotplumb.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    unused = set(rules)
    for path in [*package.glob("_*.py"), package / "plumbing.py"]:
        tree = ast.parse(path.read_text())
        unused -= _replaced(tree, rules)
        path.write_text(ast.unparse(tree) + "\n")
    if rules:
        with (package / "items.py").open("a") as items:
            items.write("\nNO_RECORD = Record(Root(None, 0), Hop(None, 0))\n")
    if unused:
        raise LookupError(f"nothing to take out for {', '.join(rule.__name__ for rule in unused)}: see {__name__}")


def _replaced(tree: ast.Module, rules: tuple[Rule, ...]) -> set[Rule]:
    """Apply the rules to a module; gives those that found something."""
    used: set[Rule] = set()

    class Replacing(ast.NodeTransformer):
        def visit(self, node: ast.AST) -> Any:
            for rule in rules:
                if (instead := rule(node)) is not None:
                    used.add(rule)
                    node = instead
            return self.generic_visit(node)

    Replacing().visit(tree)
    if used:
        place = next(i for i, node in enumerate(tree.body) if not _comes_first(node))
        tree.body.insert(place, ast.parse("from hotplumb.items import NO_RECORD").body[0])
    ast.fix_missing_locations(tree)
    return used


def _comes_first(node: ast.stmt) -> bool:
    """The docstring, and `from __future__ import ...`."""
    return isinstance(node, ast.Expr) or (isinstance(node, ast.ImportFrom) and node.module == "__future__")
