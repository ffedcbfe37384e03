"""The rows of questions that ask whether something grows faster than in line with the size of a graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import attrs

from benchmarks.contestants import FLOOR, OURS
from benchmarks.measuring import Form
from benchmarks.results import Figure, Row, figure

AT_MOST = 1.5  # for what no longer fits into the processor's caches
COLUMN = "growth"


def by_turns(
    sizes: Sequence[int], seconds: Callable[[int, Form], Mapping[str, Figure | str]], form: Form
) -> dict[int, dict[str, Figure | str]]:
    """Ask for all sizes in each round, so that what slows the machine down slows all: {size: seconds by contestant}."""
    once = attrs.evolve(form, rounds=1)
    rounds = [{size: seconds(size, once) for size in sizes} for _ in range(form.rounds)]
    return {size: _joined([found[size] for found in rounds]) for size in sizes}


def _joined(rounds: list[Mapping[str, Figure | str]]) -> dict[str, Figure | str]:
    """The samples of all rounds, or why there are none."""
    found: dict[str, Figure | str] = {}
    for name, first in rounds[0].items():
        every = [figures[name] for figures in rounds]
        found[name] = (
            first
            if isinstance(first, str)
            else figure(sample for each in every if isinstance(each, Figure) for sample in each.samples)
        )
    return found


def rows(
    found: Mapping[int, Mapping[str, Figure | str]], base: int, what: str, at_most: float = AT_MOST
) -> tuple[Row, ...]:
    """Of {size: seconds by contestant}, nanoseconds, and ours as a multiple of that at `base` in the same round."""
    at_base = found[base][OURS.name]
    assert isinstance(at_base, Figure)
    return tuple(
        _row(f"{size:,} {what}", figures, at_base, {COLUMN: at_most} if size > base else {})
        for size, figures in found.items()
    )


def _row(what: str, figures: Mapping[str, Figure | str], at_base: Figure, at_most: Mapping[str, float]) -> Row:
    ours = figures[OURS.name]
    assert isinstance(ours, Figure)
    shown: dict[str, Figure | str] = {
        name: _nanoseconds(figures[name]) for name in (FLOOR.name, OURS.name) if name in figures
    }
    shown[COLUMN] = figure(sample / base for sample, base in zip(ours.samples, at_base.samples, strict=True))
    return Row(what, shown, at_most)


def _nanoseconds(found: Figure | str) -> Figure | str:
    return found if isinstance(found, str) else figure(sample * 1e9 for sample in found.samples)
