"""The rows of questions that ask whether something grows faster than in line with the size of a graph."""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.contestants import FLOOR, OURS
from benchmarks.results import Figure, Row, figure

AT_MOST = 1.5  # for what no longer fits into the processor's caches
COLUMN = "growth"


def rows(
    found: Mapping[int, Mapping[str, Figure | str]], base: int, what: str, at_most: float = AT_MOST
) -> tuple[Row, ...]:
    """Of {size: seconds by contestant}, nanoseconds, and those of ours as a multiple of what they are at `base`."""
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
    shown[COLUMN] = figure(sample / at_base.median for sample in ours.samples)
    return Row(what, shown, at_most)


def _nanoseconds(found: Figure | str) -> Figure | str:
    return found if isinstance(found, str) else figure(sample * 1e9 for sample in found.samples)
