"""In the REPL: a graph is started at one prompt, looked at and fed at the next, and stopped at a later one."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

pexpect: Any = pytest.importorskip("pexpect", reason="pexpect drives a terminal, which this platform has not")

if sys.platform == "win32":
    pytest.skip("pexpect drives a POSIX terminal", allow_module_level=True)

PROMPT = ">>> "
Ask = Callable[[str], str]


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch) -> Iterator[Ask]:
    """`python -m asyncio`, waiting for a line; what it shows for one is what comes up to its next prompt."""
    environment = {"TERM": "dumb", "PYTHON_BASIC_REPL": "1", "NO_COLOR": "1", "PYTHONWARNINGS": "error"}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    child = pexpect.spawn(sys.executable, ["-m", "asyncio"], encoding="utf-8", echo=False, timeout=30)

    def ask(line: str) -> str:
        child.sendline(line)
        child.expect_exact(PROMPT)
        return str(child.before).replace("\r", "").strip()

    try:
        child.expect_exact(PROMPT)
        child.expect_exact(PROMPT)  # it shows `>>> import asyncio` itself
        assert ask("import hotplumb as hp") == ""
        yield ask
    finally:
        child.close(force=True)


def test_a_graph_is_started_fed_and_stopped_at_different_prompts(ask: Ask) -> None:
    """Each prompt is a task of its own; nothing is complained of."""
    assert ask("seen = []") == ""
    assert ask("t = hp.Topology().add('n', hp.source([1, 2])).add('out', hp.sink(seen.append, 'n'))") == ""
    assert ask("plumbing = await hp.start(t)") == ""
    assert ask("await plumbing.join()") == ""
    assert ask("seen") == "[1, 2]"
    assert ask("await plumbing.inject('n', 3)") == ""
    assert ask("await plumbing.join(); print(seen)") == "[1, 2, 3]"
    assert ask("plumbing.statistics().nodes['out'].received") == "3"
    assert ask("await plumbing.stop()") == ""
    assert ask("sorted(task.get_name() for task in asyncio.all_tasks() if 'hotplumb' in task.get_name())") == "[]"
    assert "has stopped" in ask("await plumbing.join()")


def test_an_endless_graph_runs_on_while_the_prompt_waits(ask: Ask) -> None:
    """Lines are answered while it runs, and `stop` ends it."""
    ask("import itertools")
    ask("count = hp.stateful(lambda s, n: (s + 1, [s + 1]), 0, 'n')")
    ask("t = hp.Topology().add('n', hp.source(itertools.count())).add('c', count)")
    ask("t = t.add('out', hp.sink(lambda n: None, 'c'))")
    assert ask("plumbing = await hp.start(t)") == ""
    assert int(ask("_ = await anext(plumbing.tap('c')); print(_.value)")) > 0
    assert ask("plumbing.statistics().nodes['n'].sent > 0") == "True"
    assert ask("await plumbing.stop()") == ""
    assert ask("plumbing.statistics().nodes['n'].state") == "'ended'"


def test_a_function_defined_at_the_prompt_that_fails_is_named_and_the_prompt_goes_on(ask: Ask) -> None:
    """What it raised is logged, and raised from `stop`."""
    ask("t = hp.Topology().add('n', hp.source([0])).add('out', hp.sink(lambda n: 1 / n, 'n'))")
    shown = ask("plumbing = await hp.start(t)") + ask("await asyncio.sleep(0)") + ask("await asyncio.sleep(0)")
    assert "ZeroDivisionError" in shown
    shown = ask("await plumbing.stop()")
    assert "NodeError" in shown
    assert "'n'" in shown or '"out"' in shown
    assert ask("1 + 1") == "2"
