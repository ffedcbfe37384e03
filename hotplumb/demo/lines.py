"""The demo's values as JSON lines."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

from pyrsistent import thaw

import hotplumb as hp
from hotplumb.demo.graph import Pair, Rewired, Sample, Summary, Value
from hotplumb.items import Origin
from hotplumb.keys import canonical


class Lines:
    """Prints each value as a line of JSON; and changes of the graph to standard error, that all lines be alike."""

    def show(self, value: Value) -> None:
        """Print the item in hand; needs a running loop."""
        started_s = time.time() - asyncio.get_running_loop().time()
        print(json.dumps(line(hp.current_item(), started_s), sort_keys=True), flush=True)

    def changed(self, rewired: Rewired) -> None:
        """Say what was changed, and where."""
        print(f"hotplumb demo: {rewired}: {rewired.where}", file=sys.stderr, flush=True)


def line(item: hp.Item, started_s: float) -> dict[str, Any]:
    """What is printed of an item; `started_s` is the Unix time at which the loop's clock stood at 0.

    `trail` has a `[key, epoch]` for each hop, source first.  `origin` is where it began: in a source, or in a roll-up
    that gave it when its time had come.  `members` are the origins of what it was gathered from, at most 64.
    """
    trail = item.trail
    key = trail.keys[-1]
    return {
        "key": thaw(key),
        "value": plain(key, item.value),
        "time": round(started_s + item.value.time_s, 3),
        "trail": [[canonical(hop.key), hop.epoch] for hop in trail.hops],
        "origin": named(trail.origin),
        "members": [named(member.origin) for member in trail.members.trails],
    }


def named(origin: Origin) -> dict[str, Any]:
    """An origin by the names of its parts."""
    return {"source": canonical(origin.source), "number": origin.number, "attempt": origin.attempt}


def plain(key: Any, value: Value) -> float | dict[str, float]:
    """A value as JSON has it."""
    match key, value:
        case _, Sample(value=number):
            return number
        case _, Summary():
            return {"min": value.least, "mean": value.mean, "max": value.most, "count": value.count}
        case {"pair": (left, right)}, Pair():
            return {left: value.left, right: value.right}
    raise TypeError(f"{canonical(key)} gave {value!r}")
