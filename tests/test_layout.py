"""The shape of the project: which module may import which, what an installation needs, what users find."""

from __future__ import annotations

import importlib.metadata
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import hotplumb

ROOT = Path(__file__).parents[1]
CORE = {"anyio", "attrs", "pyrsistent", "structlog"}
OPTIONAL = {"psutil", "rich", "uvloop", "hypothesis"}
NODES = "source map filter flat_map stateful merge route process sink collect output"
OTHER_NAMES = "Node Process Context Item current_item Topology Plumbing Statistics start run"


def lint_imports(tree: Path) -> subprocess.CompletedProcess[str]:
    """Hold the package in `tree` against the layers in pyproject.toml."""
    command = "import sys; sys.path.insert(0, '.'); from importlinter.cli import lint_imports_command as main; main()"
    options = ["--config", str(ROOT / "pyproject.toml"), "--no-cache", "--no-logo"]
    return subprocess.run(
        [sys.executable, "-c", command, *options], cwd=tree, capture_output=True, text=True, timeout=100, check=False
    )


def test_imports_point_inward_only() -> None:
    """A module can be read without those above it."""
    found = lint_imports(ROOT)
    assert found.returncode == 0, found.stdout + found.stderr


@pytest.mark.parametrize("line", ["import hotplumb.plumbing", "from hotplumb import Plumbing", "import hotplumb as hp"])
def test_an_import_that_points_outward_is_found(tmp_path: Path, line: str) -> None:
    """The check above can fail, whichever way the import is written."""
    shutil.copytree(ROOT / "hotplumb", tmp_path / "hotplumb", ignore=shutil.ignore_patterns("__pycache__"))
    with (tmp_path / "hotplumb" / "keys.py").open("a") as keys:
        keys.write(f"\n{line}\n")
    found = lint_imports(tmp_path)
    assert found.returncode == 1
    assert "hotplumb.keys -> hotplumb" in found.stdout


def test_a_module_without_a_layer_is_found(tmp_path: Path) -> None:
    """Whoever adds a module says where it stands."""
    shutil.copytree(ROOT / "hotplumb", tmp_path / "hotplumb", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "hotplumb" / "utils.py").touch()
    found = lint_imports(tmp_path)
    assert found.returncode == 1
    assert "hotplumb.utils" in found.stdout


@pytest.mark.parametrize("name", [*NODES.split(), *OTHER_NAMES.split()])
def test_the_public_names_are_there(name: str) -> None:
    """What the documentation calls `hp.<name>` can be imported, is listed, and says what it is."""
    assert name in hotplumb.__all__
    assert getattr(hotplumb, name).__doc__


def test_every_exception_is_public() -> None:
    """Whatever hotplumb raises can be caught by its name in `hotplumb`."""
    found = vars(hotplumb.errors).items()
    raised = {name for name, value in found if isinstance(value, type) and value.__module__ == "hotplumb.errors"}
    assert raised <= set(hotplumb.__all__)


def test_all_lists_what_exists_once() -> None:
    """`from hotplumb import *` works."""
    assert len(set(hotplumb.__all__)) == len(hotplumb.__all__)
    assert [name for name in hotplumb.__all__ if not hasattr(hotplumb, name)] == []


def test_the_core_has_four_dependencies() -> None:
    """An installation without extras brings four packages and what those bring."""
    required = importlib.metadata.requires("hotplumb") or []
    assert {re.split(r"[^\w-]", line)[0] for line in required if "extra ==" not in line} == CORE


def python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100, check=True).stdout


def test_importing_hotplumb_imports_nothing_beyond_its_core() -> None:
    """What is optional costs nothing until it is used."""
    # The dependencies are imported first: structlog itself imports rich where it finds it.
    loaded = python(
        "import sys, json, anyio, attrs, pyrsistent, structlog; before = set(sys.modules); import hotplumb\n"
        "print(json.dumps(sorted({name.partition('.')[0] for name in set(sys.modules) - before})))"
    )
    assert set(json.loads(loaded)) - sys.stdlib_module_names - {"hotplumb", "attr"} <= CORE


def test_hotplumb_works_without_what_is_optional() -> None:
    """The extras are extras."""
    absent = "; ".join(f"sys.modules[{name!r}] = None" for name in sorted(OPTIONAL))
    code = "hp.run(hp.Topology().add('n', hp.source([1, 2])).add('out', hp.collect('n')))"
    assert python(f"import sys; {absent}; import hotplumb as hp; print({code})") == "{'out': [1, 2]}\n"


def test_types_are_shipped() -> None:
    """A type checker takes our annotations."""
    assert Path(hotplumb.__file__).with_name("py.typed").exists()


@pytest.mark.parametrize("path", ["LICENSE", "CHANGELOG.md", "README.md", "docs/when-not.md"])
def test_the_project_has_its_files(path: str) -> None:
    """What the README leads to is there."""
    assert (ROOT / path).read_text()


def test_ci_runs_the_command_in_the_readme() -> None:
    """Who follows the README runs what CI runs, and nothing else."""
    command = "python -m pip install nox && python -m nox"
    assert f"\n{command}\n" in (ROOT / "README.md").read_text()
    assert (ROOT / ".ci" / "run").read_text().endswith(f"\n{command}\n")
