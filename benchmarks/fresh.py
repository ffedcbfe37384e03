"""Measuring in a process of its own: for memory, for what happens once, and under valgrind."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

TIMEOUT_S = 600


def call(function: str, *arguments: Any, packages: Path | None = None, under: Sequence[str] = (), seed: int = 0) -> Any:
    """Call "module:function" in a new process; gives its result.

    Args:
        arguments: JSON, as the result.
        packages: a folder to import from before all others.
        under: a command to run Python under.
        seed: of the hashes of text, so that one run takes the same way as another.
    """
    paths = [str(packages)] if packages is not None else []
    path = os.pathsep.join([*paths, *filter(None, sys.path)])
    environment = os.environ | {"PYTHONPATH": path, "PYTHONHASHSEED": str(seed)}
    command = [*under, sys.executable, "-P", "-m", "benchmarks.fresh", function, json.dumps(arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    if done.returncode:
        raise RuntimeError(f"{function}{arguments} failed in a process of its own:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def at_once(*calls: Callable[[], Any]) -> list[Any]:
    """Make calls in processes of their own, on all cores: for what the others do not disturb, as memory and counts."""
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        return [made.result() for made in [threads.submit(each) for each in calls]]


def _main(function: str, arguments: str) -> None:
    module, _, name = function.partition(":")
    print(json.dumps(getattr(importlib.import_module(module), name)(*json.loads(arguments))), flush=True)
    os._exit(0)  # taking a large graph apart takes longer than building it


if __name__ == "__main__":
    _main(*sys.argv[1:])
