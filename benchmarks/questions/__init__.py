"""The questions, in the order they are asked: one module each, with `ask(form) -> Table`."""

from __future__ import annotations

import importlib

from benchmarks.measuring import Form
from benchmarks.results import Table

NAMES = (
    "chain",
    "broadcast",
    "route",
    "async_stage",
    "concurrent_stage",
    "json_lines",
    "vector",
    "lone_item",
    "uvloop",
    "trail",
    "idle_node",
    "queued_item",
    "build",
    "depth",
    "width",
    "graph_size",
    "loop_delay",
    "switch",
    "switch_again",
    "throughput_under_change",
    "change_or_restart",
    "replace_among_many",
)
LIST = ", ".join(NAMES)


def ask(name: str, form: Form) -> Table:
    """Ask one question, for as long as `form` says."""
    found = importlib.import_module(f"{__name__}.{name}").ask(form)
    assert isinstance(found, Table)
    return found
