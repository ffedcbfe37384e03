"""What `hp.run` does on SIGINT and SIGTERM: the first drains within a bound, the second stops at once.

Each script runs in a process of its own and says "ready" when it is time for a signal.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

import hotplumb as hp

PATIENCE_S = 20.0  # real; a busy machine takes its time to start Python
HEAD = """
import asyncio, itertools, signal, sys, time
import hotplumb as hp

def ready():
    print("ready", flush=True)

class Ready:
    def __init__(self, at):
        self.at = at
    def __call__(self, value):
        if value == self.at:
            ready()
        return value

async def counter():
    try:
        for i in itertools.count():
            yield i
            await asyncio.sleep(0.001)
    finally:
        print("source closed", flush=True)

class Closing:
    def process(self, value):
        return value
    def close(self):
        print("closed", flush=True)

def graph(**nodes):
    topology = hp.Topology()
    for key, node in nodes.items():
        topology = topology.add(key, node)
    return topology
"""

both = pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])


class Child:
    """A script that runs, from outside."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def wait_ready(self) -> None:
        assert self.process.stdout is not None
        assert select.select([self.process.stdout], [], [], PATIENCE_S)[0], "not ready"
        assert self.process.stdout.readline() == "ready\n", self.process.communicate()

    def signal(self, signum: int) -> None:
        self.process.send_signal(signum)

    def ended(self) -> tuple[int, str, str]:
        """Its exit code, what it printed and what it wrote to its standard error."""
        out, err = self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode, out, err


@contextmanager
def running(script: str) -> Iterator[Child]:
    code = HEAD + textwrap.dedent(script)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-W", "error", "-c", code]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, bufsize=1, env=environment) as process:
        try:
            yield Child(process)
        finally:
            if process.poll() is None:
                process.kill()


def signalled(script: str, *signals: int) -> tuple[int, str, str]:
    """Run a script, and send it a signal whenever it says that it is ready."""
    with running(script) as child:
        for signum in signals:
            child.wait_ready()
            child.signal(signum)
        return child.ended()


def stopped_code(signum: int) -> int:
    """How a process ends that a signal has stopped."""
    return -signal.SIGINT if signum == signal.SIGINT else 128 + signum


@both
def test_the_first_signal_drains_and_the_result_is_returned(signum: int) -> None:
    """All that the source gave is there, all is closed, and the script goes on after `hp.run`."""
    code, out, err = signalled(
        """
        nodes = dict(s=hp.source(counter), n=hp.map(Ready(3), "s"), p=hp.process(Closing, "n"), out=hp.collect("p"))
        found = hp.run(graph(**nodes))["out"]
        print(found == list(range(len(found))), len(found) > 3)
        """,
        signum,
    )
    assert (code, err) == (0, "")
    assert out == "source closed\nclosed\nTrue True\n"


@both
@pytest.mark.parametrize(
    "node",
    [
        'hp.map(fail, "s", on_error=hp.hold())',
        'hp.map(fail_async, "s", on_error=hp.hold())',
        'hp.map(fail_async, "s", concurrency=3, on_error=hp.hold())',
        'hp.map(fail, "s", on_error=hp.retry(1, delay_s=0.3, then=hp.hold()))',
        'hp.map(fail, "s", on_error=hp.hold(), capacity=1)',
    ],
    ids=["hold", "async hold", "concurrent hold", "retry", "full behind"],
)
def test_what_is_held_is_a_dead_letter_when_a_signal_drains(signum: int, node: str) -> None:
    """Also what is to be tried again first; what waits behind it is processed."""
    code, out, err = signalled(
        f"""
        def fail(value):
            if value == 3:
                asyncio.get_running_loop().call_later(0.05, ready) if not said else None
                said.append(1)
                raise ValueError(value)
            return value

        async def fail_async(value):
            return fail(value)

        said = []
        dead = hp.collect(hp.ERRORS)
        found = hp.run(graph(s=hp.source(counter), n={node}, out=hp.collect("n"), dead=dead))
        print([(failure.item.value, failure.reason) for failure in found["dead"]])
        print(found["out"][:4], found["out"] == sorted(found["out"]))
        """,
        signum,
    )
    assert (code, err) == (0, "")
    letter, values = out.splitlines()[1:] if out.startswith("source closed") else out.splitlines()[:2]
    assert letter == "[(3, 'drained')]"
    assert values.startswith("[0, 1, 2")
    assert values.endswith("True")


STUCK = """
async def stick(value):
    if value == 3:
        ready()
        await asyncio.sleep(1000)
    return value

nodes = dict(s=hp.source(range(9)), n=hp.map(stick, "s"), p=hp.process(Closing, "n"), out=hp.collect("p"))
"""


@both
def test_a_drain_that_takes_too_long_stops_at_once(signum: int) -> None:
    """The process ends as by the signal, and the log names what was stuck."""
    code, out, err = signalled(STUCK + "hp.run(graph(**nodes), drain_timeout_s=0.2)", signum)
    assert code == stopped_code(signum)
    assert out == "closed\n"
    assert 'not drained after 0.2 s: "n" is busy' in err
    assert "ExceptionGroup" not in err


@both
def test_a_node_that_retries_past_the_bound_is_stopped(signum: int) -> None:
    """A minute's back-off is not waited for."""
    code, _, err = signalled(
        """
        def fail(value):
            asyncio.get_running_loop().call_soon(ready)
            raise ValueError(value)

        node = hp.sink(fail, "s", on_error=hp.retry(9, delay_s=60))
        hp.run(graph(s=hp.source([1]), n=node), drain_timeout_s=0.2)
        """,
        signum,
    )
    assert code == stopped_code(signum)
    assert '"n" is retrying' in err


@both
@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_the_second_signal_stops_at_once(signum: int, second: int) -> None:
    """Whichever they are, while the drain is still waiting; what was open is closed."""
    code, out, err = signalled(
        STUCK
        + """
async def say_when_draining():
    try:
        for i in itertools.count():
            yield i
            await asyncio.sleep(0.001)
    finally:
        ready()

nodes["t"] = hp.source(say_when_draining)
nodes["other"] = hp.collect("t")
hp.run(graph(**nodes), drain_timeout_s=None)
""",
        signum,
        second,
    )
    assert code in (stopped_code(signum), stopped_code(second))
    assert out == "closed\n"
    assert "ExceptionGroup" not in err


@both
def test_the_second_signal_stops_where_python_drops_what_it_raises(signum: int) -> None:
    """In a finalizer an exception is only reported, not raised."""
    code, out, err = signalled(
        STUCK
        + """
class Final:
    def __del__(self):
        ready()
        time.sleep(0.5)

def finalize(value):
    if value == 8:
        Final()

async def more_when_draining():
    try:
        while True:
            yield 0
            await asyncio.sleep(0.001)
    finally:
        yield 8

nodes["t"] = hp.source(more_when_draining)
nodes["final"] = hp.sink(finalize, "t")
hp.run(graph(**nodes), drain_timeout_s=None)
""",
        signum,
        signum,
    )
    assert code == stopped_code(signum)
    assert out == "closed\n"
    assert "Exception ignored in" in err


@both
def test_the_second_signal_ends_a_plain_function_that_does_not_return(signum: int) -> None:
    """Nothing else could: while it runs the loop does not."""
    code, out, _ = signalled(
        """
        def stick(value):
            ready()
            until = time.monotonic() + 0.2
            while time.monotonic() < until:
                pass
            ready()
            while True:
                pass

        hp.run(graph(s=hp.source([1]), p=hp.process(Closing, "s"), out=hp.sink(stick, "p")))
        """,
        signum,
        signum,
    )
    assert code == stopped_code(signum)
    assert out == "closed\n"


@both
def test_a_call_that_swallows_its_cancellation_does_not_keep_the_process(signum: int) -> None:
    """It is waited for a while, and what is behind it is not called."""
    code, out, err = signalled(
        """
        async def deaf(value):
            ready()
            for pause in (1000, 0.2):
                try:
                    await asyncio.sleep(pause)
                except asyncio.CancelledError:
                    pass
            print("came back", flush=True)

        hp.run(graph(s=hp.source([1, 2]), n=hp.sink(deaf, "s")), drain_timeout_s=0.1)
        """,
        signum,
    )
    assert code == stopped_code(signum)
    assert out == "came back\n"
    assert 'not drained after 0.1 s: "n" is busy' in err


def test_a_failure_while_a_signal_drains_is_raised() -> None:
    """It comes before the signal."""
    code, _, err = signalled(
        """
        async def fail(value):
            ready()
            await asyncio.sleep(0.2)
            raise ValueError(value)

        try:
            hp.run(graph(s=hp.source([1, 2]), n=hp.sink(fail, "s")))
        except hp.NodeError as error:
            print(error, file=sys.stderr)
        """,
        signal.SIGINT,
    )
    assert (code, err) == (0, 'sink of "n" failed on 1: ValueError: 1\n')


# --- in this process


def test_the_handlers_are_those_of_before_when_the_run_is_over() -> None:
    """Whatever way it ended."""
    before = [signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)]

    def interrupt(value: int) -> int:
        assert signal.getsignal(signal.SIGTERM) is not before[1]
        if value == 2:
            signal.raise_signal(signal.SIGTERM)
        return value

    topology = hp.Topology().add("s", hp.source(range(1000))).add("n", hp.map(interrupt, "s"))
    found = hp.run(topology.add("out", hp.collect("n")))["out"]
    assert found == list(range(len(found)))
    with pytest.raises(hp.NodeError):
        hp.run(hp.Topology().add("s", hp.source([1])).add("out", hp.sink(fail, "s")))
    assert [signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)] == before


def fail(value: int) -> None:
    raise ValueError(value)


def test_in_another_thread_signals_are_left_alone() -> None:
    """They are the main thread's, which may have handlers of its own."""
    seen: list[object] = []
    before = signal.getsignal(signal.SIGTERM)
    topology = (
        hp.Topology().add("s", hp.source([1])).add("out", hp.sink(lambda _: seen.append(signal.getsignal(15)), "s"))
    )
    thread = threading.Thread(target=hp.run, args=(topology,))
    thread.start()
    thread.join(PATIENCE_S)
    assert seen == [before]


def test_a_block_leaves_signals_to_its_host(seed: int) -> None:
    """Only `hp.run` takes them: a service has handlers of its own."""
    before = signal.getsignal(signal.SIGTERM)

    async def main() -> None:
        async with hp.Plumbing(hp.Topology().add("s", hp.source([1])).add("out", hp.collect("s"))):
            assert signal.getsignal(signal.SIGTERM) is before

    hp.testing.run(main, seed=seed)
