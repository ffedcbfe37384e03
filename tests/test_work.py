"""How much work the engine does for fixed tasks: counted, so that no machine is too slow or too busy for it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import work


def test_no_more_work_is_done_than_was_written_down() -> None:
    """Nor much less: what was gained is written down, that it may not get lost again."""
    written = work.written().get(work.VERSION)
    if written is None:
        pytest.skip(f"nothing is written down for Python {work.VERSION}: `nox -s work` does")
    changes = list(work.changes(written, work.counts()))
    hint = f"If that is as it should be, `nox -s work` writes it down anew in {work.FILE.name}, to be committed."
    assert not changes, "\n".join([*changes, hint])


def test_the_counts_of_a_task_are_the_same_each_time() -> None:
    """Neither clock, hashes nor collection have a part in them."""
    first, second = work.counts(), work.counts()
    assert first == second
    assert all(counted["calls"] and counted["instructions"] for counted in first.values())


def test_more_and_less_work_is_named() -> None:
    """Beyond five in a hundred, whichever way; a task that is new or gone is named too."""
    before = {"a": {"calls": 100, "instructions": 1_000}, "gone": {"calls": 1}}
    after = {"a": {"calls": 105, "instructions": 1_051}, "new": {"calls": 1}}
    assert sorted(work.changes(before, after)) == [
        "a: 1,051 instructions, 5.1% more than 1,000",
        "gone: counted only before",
        "new: counted only now",
    ]
    assert list(work.changes({"a": {"calls": 100}}, {"a": {"calls": 94}})) == ["a: 94 calls, 6.0% less than 100"]


def test_what_is_written_down_keeps_other_versions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each Python writes its own counts, in the order of versions."""
    monkeypatch.setattr(work, "FILE", tmp_path / "counts.json")
    for version in ("3.12", "3.9", "3.12"):
        monkeypatch.setattr(work, "VERSION", version)
        work.write({"a": {"calls": 1}})
    assert list(json.loads(work.FILE.read_text())) == ["3.9", "3.12"]
    assert work.written()["3.12"] == {"a": {"calls": 1}}


def test_user_code_and_other_libraries_are_not_counted() -> None:
    """What hotplumb generates is."""
    assert work._is_ours(f"{work.PACKAGE}/_runner.py")
    assert work._is_ours("<generated loop>")
    assert not work._is_ours("<frozen importlib._bootstrap>")
    assert not work._is_ours(json.__file__)
    assert not work._is_ours(__file__)
