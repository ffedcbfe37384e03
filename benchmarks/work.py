"""How much work hotplumb does for fixed tasks, counted and not timed: `nox -s work` writes it down anew.

Counted are the Python functions that hotplumb runs, and the bytecode instructions of them: those of users, asyncio and
other libraries are left out, loops that hotplumb generates are not.  The tasks run in a process of their own, on an
event loop whose time passes only by being read, so the counts are the same on every machine.  They differ between
versions of Python, whose compilers differ: there are counts for each.  A test holds them against those written down.

What the counts do not see is work within one call of a function in C; the benchmark `trail` counts the processor's
instructions.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import itertools
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import hotplumb
import hotplumb as hp
from benchmarks import fresh
from benchmarks.contestants import ours
from benchmarks.measuring import Trial, awaited, trial_of
from benchmarks.questions import async_stage, broadcast, chain, json_lines, lone_item, route

FILE = Path(__file__).parents[1] / "tests" / "work_counts.json"
VERSION = "{}.{}".format(*sys.version_info)
ROOM = 0.05  # either way; what is within it needs nobody's attention
CLOCK_STEP_S = 5e-6  # at each reading by the engine: 256 calls of a fast function take about as long
TIME_STEP_S = 1e-6  # at each reading by the loop
PACKAGE = str(Path(hotplumb.__file__).parent)

Counts = dict[str, int]  # {what is counted: how much of it}
Task = Callable[[], tuple[Trial, Awaitable[None]]]


# -- the tasks


def _chain() -> tuple[Trial, Awaitable[None]]:
    trial = trial_of(range(4_000))
    return trial, ours.chain(trial, [chain.add_one] * 10)


def _broadcast() -> tuple[Trial, Awaitable[None]]:
    trial = trial_of(range(2_000))
    return trial, ours.broadcast(trial, [broadcast.branch(i) for i in range(8)])


def _route() -> tuple[Trial, Awaitable[None]]:
    trial = trial_of(range(4_000))
    return trial, ours.route(trial, route.choose, route.BRANCHES)


def _async_stage() -> tuple[Trial, Awaitable[None]]:
    trial = trial_of(range(500))
    return trial, ours.async_stage(trial, async_stage.add_one_later)


def _json_lines() -> tuple[Trial, Awaitable[None]]:
    trial = trial_of(json_lines.lines(1_000))
    return trial, ours.json_lines(trial, *json_lines.ARGUMENTS)


def _lone_items() -> tuple[Trial, Awaitable[None]]:
    """Each goes through idle nodes."""
    trial = trial_of(())

    async def produce() -> AsyncIterator[int]:
        trial.started()
        for i in range(100):
            for _ in range(5):
                await asyncio.sleep(0)
            yield i

    trial.source = produce()
    return trial, ours.lone_item(trial, [lone_item.same] * 5)


def _live_change() -> tuple[Trial, Awaitable[None]]:
    """One map of ten is replaced five times, under way."""
    trial = trial_of(())
    return trial, _replacing(trial)


async def _replacing(trial: Trial) -> None:
    places: asyncio.Queue[int] = asyncio.Queue()

    def produce() -> Iterator[int]:
        trial.started()
        for i in range(5):
            yield from range(400)
            places.put_nowait(i)

    trial.source = produce()
    async with hp.Plumbing(ours.chained(trial, [chain.add_one] * 10)) as plumbing:
        for _ in range(5):
            await plumbing.replace("stage 5", hp.map([_same, chain.add_one][await places.get() % 2], "stage 4"))
        await plumbing.join()
        trial.ended()


def _same(value: int) -> int:
    return value


def _start() -> tuple[Trial, Awaitable[None]]:
    """A graph of a hundred nodes is resolved, started and left."""
    trial = trial_of(())
    return trial, _started_and_left(trial)


async def _started_and_left(trial: Trial) -> None:
    trial.started()
    trial.source = ()
    await ours.chain(trial, [chain.add_one] * 100)


TASKS: dict[str, Task] = {
    "chain": _chain,
    "broadcast": _broadcast,
    "route": _route,
    "async stage": _async_stage,
    "json lines": _json_lines,
    "lone items": _lone_items,
    "live change": _live_change,
    "start": _start,
}


# -- counting


def counts() -> dict[str, Counts]:
    """What each task takes, counted in a process of its own: {task: counts}."""
    found: dict[str, Counts] = fresh.call("benchmarks.work:count_all")
    return found


def count_all() -> dict[str, Counts]:
    """Count here; each task runs twice, for what happens only once in a process, in hotplumb or in tracing."""
    gc.disable()
    return {name: [_counted(task) for _ in range(2)][1] for name, task in TASKS.items()}


def _counted(task: Task) -> Counts:
    trial, work = task()
    tracer = Tracer()
    started, ended = trial.started, trial.ended

    def start() -> None:
        started()
        sys.settrace(tracer.called)

    def end() -> None:
        sys.settrace(None)
        ended()

    trial.started, trial.ended = start, end  # type: ignore[method-assign]
    with asyncio.Runner(loop_factory=SteadyLoop) as runner:
        runner.run(awaited(work))
    return {"calls": tracer.calls, "instructions": tracer.instructions}


class Tracer:
    """Counts what hotplumb's code does."""

    def __init__(self) -> None:
        self.calls = 0
        self.instructions = 0

    def called(self, frame: FrameType, event: str, argument: Any) -> Any:
        """A function was called, or goes on after a wait."""
        if not _is_ours(frame.f_code.co_filename):
            return None
        self.calls += 1
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        return self._stepped

    def _stepped(self, frame: FrameType, event: str, argument: Any) -> Any:
        if event == "opcode":
            self.instructions += 1
        return self._stepped


def _is_ours(filename: str) -> bool:
    """Of hotplumb, or generated."""
    return filename.startswith(PACKAGE) or (filename.startswith("<") and not filename.startswith("<frozen"))


class SteadyLoop(asyncio.SelectorEventLoop):
    """Time passes by a fixed step at each reading, so that one run takes the same way as another."""

    def __init__(self) -> None:
        self._times = itertools.count(0.0, TIME_STEP_S)
        self.work_clock = itertools.count(0.0, CLOCK_STEP_S).__next__
        super().__init__()

    def time(self) -> float:
        return next(self._times)


# -- what was written down


def written() -> dict[str, dict[str, Counts]]:
    """What was written down: {version of Python: {task: counts}}."""
    found: dict[str, dict[str, Counts]] = json.loads(FILE.read_text()) if FILE.exists() else {}
    return found


def write(found: dict[str, Counts]) -> None:
    """Write down what was counted with this Python."""
    known = {**written(), VERSION: found}
    in_order = {version: known[version] for version in sorted(known, key=lambda text: int(text.partition(".")[2]))}
    FILE.write_text(json.dumps(in_order, indent=1) + "\n")


def changes(before: Mapping[str, Counts], after: Mapping[str, Counts]) -> Iterator[str]:
    """What is beyond the room there is, in words."""
    for task in {**before, **after}:
        if task in before and task in after:
            yield from _beyond(task, before[task], after[task])
        else:
            yield f"{task}: counted only {'before' if task in before else 'now'}"


def _beyond(task: str, before: Counts, after: Counts) -> Iterator[str]:
    for what, was in before.items():
        more = after[what] - was
        if abs(more) > was * ROOM:
            than = f"{'more' if more > 0 else 'less'} than {was:,}"
            yield f"{task}: {after[what]:,} {what}, {abs(more) / was:.1%} {than}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Count, show what has changed, and write it down."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.work", description="Write down anew how much work is done."
    )
    parser.parse_args(arguments)
    found = counts()
    before = written().get(VERSION, {})
    for task, counted in found.items():
        print(f"{task:12}", *(f"{number:>12,} {what}" for what, number in counted.items()))
    print(*changes(before, found) if before else [f"first counts of Python {VERSION}"], sep="\n")
    write(found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
