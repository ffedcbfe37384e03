"""What does a line of JSON cost: parsed, filtered, enriched, and counted by 1,000 keys?"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from typing import Any

from benchmarks.measuring import Form, Race, trial_of
from benchmarks.questions.against_the_floor import NOTES, UNIT, row
from benchmarks.results import Table

ITEMS = 6_000
KEYS = 1_000
LEVELS = ("debug", "info", "warning", "error")
TEAMS = {f"service-{i}": f"team-{i % 37}" for i in range(KEYS)}

parse = json.loads


def is_wanted(record: dict[str, Any]) -> bool:
    return bool(record["level"] != "debug")


def enrich(record: dict[str, Any]) -> dict[str, Any]:
    return {**record, "team": TEAMS[record["service"]], "is_slow": record["took_ms"] > 500}


class Count:
    """Counts records by service and team; gives the counts at the end."""

    def __init__(self) -> None:
        self.counts: dict[tuple[str, str], int] = {}

    def process(self, record: dict[str, Any]) -> None:
        key = record["service"], record["team"]
        self.counts[key] = self.counts.get(key, 0) + 1

    def end(self) -> Iterator[dict[tuple[str, str], int]]:
        yield self.counts


ARGUMENTS = (parse, is_wanted, enrich, Count)


def ask(form: Form) -> Table:
    race = Race(lambda items: trial_of(lines(items)), ITEMS)
    found = row("lines of JSON", "json_lines", race, ARGUMENTS, form, 1.05)
    return Table("json_lines", UNIT, (found,), NOTES)


@cache
def lines(count: int) -> list[str]:
    """So many lines, the same ones every time."""
    return [json.dumps(_record(i)) for i in range(count)]


def _record(i: int) -> dict[str, Any]:
    return {
        "time": 1_700_000_000 + i / 8,
        "service": f"service-{i * 7919 % KEYS}",
        "level": LEVELS[i * 31 % 4],
        "took_ms": i * 104_729 % 1_000,
        "path": f"/orders/{i}/lines",
        "tags": ["eu-west", f"host-{i % 12}"],
    }
