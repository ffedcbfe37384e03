"""Everything that is checked: `nox` runs all of it, `nox -s lint` one part, `nox -s tests -- -k order` a few tests.

lint    style, imports that point outward, changelog fragments
types   mypy
tests   pytest, on each Python from 3.11 on that this machine has
docs    the pages, with every snippet in them and every example in a docstring run
bench   the benchmarks; only when asked for
changes random graphs under random changes on the seeded loop, 20,000 of them or `-- --runs N`; only when asked for
soak    a graph under full load and change in real time, for a minute or `-- --seconds N`; only when asked for
work    writes down how much work is done, which `tests` holds every change against; only when asked for
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import nox

nox.needs_version = ">=2025.2.9"
nox.options.sessions = ["lint", "types", "tests", "docs"]
nox.options.error_on_external_run = True

PROJECT = nox.project.load_toml("pyproject.toml")
OLDEST = (3, 11)
RANDOM_CHANGES = 3_000  # runs with fresh seeds, on all Pythons together


@nox.session
def lint(session: nox.Session) -> None:
    session.install(*group("lint"))
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("lint-imports", "--no-logo", "--no-cache")
    session.run("towncrier", "build", "--draft", "--version", "next", silent=True)


@nox.session
def types(session: nox.Session) -> None:
    session.install(".[all]", *group("types"))
    session.run("mypy", "hotplumb")
    others = [path for path in ("tests", "benchmarks", "docs", "noxfile.py") if Path(path).exists()]
    session.run("mypy", "--allow-untyped-defs", "--allow-incomplete-defs", "--allow-untyped-calls", *others)


def interpreters() -> dict[str, str]:
    """Find the Pythons of this machine that really start: {"3.11": path}, the first on PATH of each minor version."""
    found: dict[str, str] = {}
    for candidate in candidates():
        asked = "import sys; print(*sys.version_info[:2], sys.version_info.releaselevel, sys.executable)"
        try:
            done = subprocess.run([candidate, "-c", asked], capture_output=True, text=True, timeout=10, check=True)
        except (OSError, subprocess.SubprocessError):
            continue  # a version manager's shim for a version that is not selected, for one
        major, minor, level, path = done.stdout.strip().split(maxsplit=3)
        if (int(major), int(minor)) >= OLDEST and level == "final":
            found.setdefault(f"{major}.{minor}", path)
    return dict(sorted(found.items(), key=lambda pair: int(pair[0].partition(".")[2])))


def candidates() -> Iterator[Path | str]:
    yield sys.executable
    for directory in os.get_exec_path():
        yield from sorted(Path(directory).glob("python3"))
        yield from sorted(path for path in Path(directory).glob("python3.*") if path.name[8:].isdigit())
    if shutil.which("pyenv"):
        root = subprocess.run(["pyenv", "root"], capture_output=True, text=True, check=False).stdout.strip()
        yield from sorted(Path(root, "versions").glob("3.*/bin/python"))


@nox.session
@nox.parametrize("python", [nox.param(path, id=version) for version, path in interpreters().items()])
def tests(session: nox.Session) -> None:
    session.install(".[all]", *group("tests"))
    share = -(-RANDOM_CHANGES // len(interpreters()))
    session.run("pytest", *session.posargs, env={"HOTPLUMB_RANDOM_CHANGES": str(share)})


@nox.session
def docs(session: nox.Session) -> None:
    session.install(".[all]", *group("docs"))
    session.run("sphinx-build", "-q", "-W", "--keep-going", "docs", "docs/_build/html")
    session.run(
        "pytest", "docs", "--doctest-modules", "hotplumb", "--ignore=docs/conf.py", "--tb=short", *session.posargs
    )


@nox.session
def changes(session: nox.Session) -> None:
    session.install(".[all]", *group("tests"))
    session.run("python", "-m", "tests.changing", *(session.posargs or ["--runs", "20000"]))


@nox.session
def soak(session: nox.Session) -> None:
    session.install(".[all]")
    session.run("python", "-m", "tests.soak", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    session.install(".[all]")
    for peer in group("bench"):
        session.install(peer, success_codes=range(256))  # one that cannot be had stands in the tables as not installed
    session.run("python", "-m", "benchmarks", *session.posargs)


@nox.session
@nox.parametrize("python", [nox.param(path, id=version) for version, path in interpreters().items()])
def work(session: nox.Session) -> None:
    session.install(".[all]")
    session.run("python", "-m", "benchmarks.work", *session.posargs)


def group(name: str) -> list[str]:
    """List what a dependency group of pyproject.toml holds, those it includes too."""
    return list(nox.project.dependency_groups(PROJECT, name))
