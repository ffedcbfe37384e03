"""What does a value cost that NumPy works on, with 255 others at a time?"""

from __future__ import annotations

import importlib
import importlib.util
import math
from collections.abc import Awaitable, Callable
from itertools import islice
from typing import Any

import hotplumb as hp
from benchmarks.contestants import ABSENT, FLOOR, Contestant, Field
from benchmarks.contestants.ours import joined
from benchmarks.measuring import Form, Race, Trial, raced, ratios, trial_of
from benchmarks.questions.against_the_floor import UNIT
from benchmarks.results import Figure, Row, Table, figure

ITEMS = 100_000
CHUNK = 256
LATITUDE = math.radians(51.5)
RADIUS_KM = 6371.0
NOTES = (
    "what is worked out: how far it is from Greenwich to other places of its latitude, by their longitudes",
    "floor: NumPy on lists of 256 values taken from the source, in a hand-written loop that calls the sink with each",
    "hp.map: the same with math, a call for each value; hp.map_chunk: the floor's function",
)

numpy: Any = importlib.import_module("numpy") if importlib.util.find_spec("numpy") else None


def distance_km(longitude: float) -> float:
    across = math.sin(math.radians(longitude) / 2) * math.cos(LATITUDE)
    return 2 * RADIUS_KM * math.asin(math.sqrt(across * across))


def distances_km(longitudes: list[float]) -> Any:
    across = numpy.sin(numpy.radians(longitudes) / 2) * math.cos(LATITUDE)
    return (2 * RADIUS_KM * numpy.arcsin(numpy.sqrt(across * across))).tolist()


async def by_hand(trial: Trial) -> None:
    sink = trial.sink
    while values := list(islice(trial.source, CHUNK)):
        for distance in distances_km(values):
            sink(distance)
    trial.ended()


def graph_of(node: hp.Node) -> Callable[[Trial], Awaitable[None]]:
    """A graph with one node between its source and its sink."""

    def run(trial: Trial) -> Awaitable[None]:
        topology = hp.Topology().add("source", hp.source(trial.source)).add("node", node)
        return joined(trial, topology.add("sink", hp.sink(trial.sink, "node")))

    return run


RUNS = {
    FLOOR: by_hand,
    Contestant("hp.map_chunk", "ours"): graph_of(hp.map_chunk(distances_km, "source")),
    Contestant("hp.map", "ours"): graph_of(hp.map(distance_km, "source")),
}


def ask(form: Form) -> Table:
    return Table("vector", UNIT, (Row("NumPy on 256 values", _figures(form)),), NOTES)


def _figures(form: Form) -> dict[str, Figure | str]:
    if numpy is None:
        return {contestant.name: ABSENT for contestant in RUNS}
    race = Race(lambda items: trial_of([i % 360 - 180.0 for i in range(items)]), ITEMS, _answer)
    found = raced(race, Field(RUNS, {}), form)
    floor = found[FLOOR.name]
    assert isinstance(floor, Figure)
    return {"us": figure(sample * 1e6 for sample in floor.samples), **ratios(found, FLOOR.name)}


def _answer(trial: Trial) -> list[float]:
    """NumPy and math need not agree on the last digits."""
    return [round(distance, 3) for distance in trial.kept]
