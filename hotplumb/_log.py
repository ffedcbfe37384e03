"""Where warnings of the engine go: to structlog as the host has configured it, else to the standard logging."""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from typing import Any

import structlog


def _as_text(_: Any, __: str, event: MutableMapping[str, Any]) -> str:
    """One line that says all: the standard logging shows nothing else."""
    said = event.pop("event")
    return " ".join([f"{said}:", *(f"{name}={value}" for name, value in event.items())]) if event else str(said)


_STANDARD: Any = structlog.wrap_logger(
    logging.getLogger("hotplumb"),
    processors=[structlog.stdlib.filter_by_level, structlog.processors.format_exc_info, _as_text],
    wrapper_class=structlog.stdlib.BoundLogger,
)


def log() -> Any:
    """The logger to use now; a host may configure structlog at any time."""
    return structlog.get_logger("hotplumb") if structlog.is_configured() else _STANDARD
