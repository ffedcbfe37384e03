"""What the benchmarks ran on."""

from __future__ import annotations

import datetime
import os
import platform
from collections.abc import Mapping
from pathlib import Path

import attrs

from benchmarks import contestants


@attrs.frozen
class Machine:
    """What has a part in how fast things are."""

    processor: str
    cores: int
    load: tuple[float, ...]
    """How many others wanted a core when this was asked: averages over 1, 5 and 15 minutes."""
    system: str
    python: str
    loop: str
    packages: Mapping[str, str]
    """{library that takes part: its version, or why it does not}"""
    when: str


def describe() -> Machine:
    """This machine, now."""
    return Machine(
        processor=_processor(),
        cores=os.cpu_count() or 1,
        load=tuple(round(load, 2) for load in os.getloadavg()) if hasattr(os, "getloadavg") else (),
        system=platform.platform(),
        python=f"{platform.python_implementation()} {platform.python_version()}, {platform.python_compiler()}",
        loop="asyncio",
        packages=contestants.versions(),
        when=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )


def text(found: Machine) -> str:
    """A machine, in two lines."""
    load = ", load " + " ".join(map(str, found.load)) if found.load else ""
    packages = ", ".join(f"{name} {version}" for name, version in found.packages.items())
    return (
        f"{found.processor}, {found.cores} cores{load}; {found.system}; {found.python}; {found.loop}; {found.when}\n"
        f"with {packages}"
    )


def _processor() -> str:
    """The processor's name, where the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
