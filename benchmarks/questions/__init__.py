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
    "json_lines",
    "lone_item",
    "trail",
    "idle_node",
    "build",
    "loop_delay",
)
LIST = ", ".join(NAMES)


def ask(name: str, form: Form) -> Table:
    """Ask one question, for as long as `form` says."""
    found = importlib.import_module(f"{__name__}.{name}").ask(form)
    assert isinstance(found, Table)
    return found
