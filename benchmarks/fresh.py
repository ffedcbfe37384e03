"""Measuring in a process of its own: for memory, for what happens once, and under valgrind."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
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
    command = [*under, *_command("call", function, arguments)]
    environment = _environment(packages, seed)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    if done.returncode:
        raise RuntimeError(f"{function}{arguments} failed in a process of its own:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def _command(how: str, function: str, arguments: Sequence[Any]) -> list[str]:
    return [sys.executable, "-P", "-m", "benchmarks.fresh", how, function, json.dumps(arguments)]


def _environment(packages: Path | None = None, seed: int = 0) -> dict[str, str]:
    paths = [str(packages)] if packages is not None else []
    path = os.pathsep.join([*paths, *filter(None, sys.path)])
    return os.environ | {"PYTHONPATH": path, "PYTHONHASHSEED": str(seed)}


@contextmanager
def asked(function: str, *arguments: Any) -> Iterator[Callable[[], Any]]:
    """Call a generator function "module:function" in a new process; gives what asks that for the next value."""
    command = _command("answer", function, arguments)
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, env=_environment(), text=True, bufsize=1, stdin=pipe, stdout=pipe)
    assert process.stdin is not None
    assert process.stdout is not None
    asks, answers = process.stdin, process.stdout

    def ask() -> Any:
        print(file=asks)
        answer = answers.readline()
        if not answer:
            raise RuntimeError(f"{function}{arguments} failed in a process of its own: see above")
        return json.loads(answer)

    try:
        yield ask
    finally:
        process.kill()
        process.communicate()


def at_once(*calls: Callable[[], Any]) -> list[Any]:
    """Make calls in processes of their own, on all cores: for what the others do not disturb, as memory and counts."""
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        return [made.result() for made in [threads.submit(each) for each in calls]]


def _main(how: str, function: str, arguments: str) -> None:
    module, _, name = function.partition(":")
    result = getattr(importlib.import_module(module), name)(*json.loads(arguments))
    if how == "call":
        print(json.dumps(result), flush=True)
    else:
        for _ in sys.stdin:
            print(json.dumps(next(result)), flush=True)
    os._exit(0)  # taking a large graph apart takes longer than building it


if __name__ == "__main__":
    _main(*sys.argv[1:])
