"""Runs every Python snippet of the README and of these pages, page by page, from top to bottom.

The snippets of a page share their names, as if typed into one session.  `await` at the top level works, on one loop for
the page.  A block marked `python` is run as it stands, one marked `pycon` (`>>> `) must also print what it shows.
"""

from __future__ import annotations

import ast
import asyncio
import doctest
import inspect
import re
import textwrap
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [
    page
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    if "_build" not in page.parts and re.search(r"^\s*`{3,}.*\b(python|pycon)\b", page.read_text(), re.MULTILINE)
]
FENCE = re.compile(
    r"^(?P<indent> *)(?P<fence>`{3,})(?:\{[\w-]+\} *)?(?P<language>python|pycon)\b[^\n]*\n"
    r"(?P<code>.*?)^(?P=indent)(?P=fence) *$",
    re.MULTILINE | re.DOTALL,
)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_the_snippets_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the page tells readers to write works."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "__main__"}
    text = page.read_text()
    found = list(FENCE.finditer(text))
    assert found, "a Python block of this page is not closed"
    with asyncio.Runner() as runner:
        for block in found:
            line = text.count("\n", 0, block.start("code"))
            if block["language"] == "python":
                run(block["code"], line, page, names, runner)
            else:
                check_session(block["code"], line, page, names)


def run(code: str, line: int, page: Path, names: dict[str, Any], runner: asyncio.Runner) -> None:
    placed = "\n" * line + textwrap.dedent(code)  # a traceback then shows the line of the page
    compiled = compile(placed, str(page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    if compiled.co_flags & inspect.CO_COROUTINE:
        runner.run(eval(compiled, names))
    else:
        exec(compiled, names)


def check_session(code: str, line: int, page: Path, names: dict[str, Any]) -> None:
    session = doctest.DocTestParser().get_doctest(code, names, page.name, str(page), line)
    session.globs = names
    doctest.DebugRunner().run(session, clear_globs=False)
