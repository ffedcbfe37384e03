"""The benchmarks run: each question is answered, every answer checked.  Their figures mean nothing here."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks import __main__, contestants, measuring, questions, results
from benchmarks.contestants import floor, ours
from benchmarks.measuring import TINY, Form, WrongAnswer
from benchmarks.questions import trail
from benchmarks.results import Figure, Row, Table, figure


@pytest.mark.parametrize("name", questions.NAMES)
def test_a_question_is_answered(name: str) -> None:
    """Every question runs, and gives a figure in each place: of a few nodes, memory may be none."""
    table = questions.ask(name, TINY)
    assert table.question == name
    assert table.rows
    for found in figures(table):
        assert isinstance(found, Figure)
        assert found.median >= 0
    assert all(set(row.at_most) <= set(row.figures) for row in table.rows)


def figures(table: Table) -> Iterator[Figure | str]:
    return (found for row in table.rows for found in row.figures.values())


def test_a_contestant_that_does_not_do_the_work_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who leaves an item out is no faster."""

    async def chain(trial: Any, fns: Any) -> None:
        next(trial.source)
        await floor.chain(trial, fns)

    monkeypatch.setattr(ours, "chain", chain)
    with pytest.raises(WrongAnswer, match="ours"):
        questions.ask("chain", TINY)


def test_a_contestant_without_an_answer_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A library may answer some questions only, and need not be installed."""
    absent = contestants.Contestant("absent", "no_such_module")
    monkeypatch.setattr(contestants, "ALL", (*contestants.ALL, absent))
    assert [found.name for found in contestants.answering("chain", [])] == ["floor", "asyncio.Queue", "ours"]
    assert not contestants.answering("no_such_question")


def test_the_trail_is_taken_out_of_one_copy(tmp_path: Path) -> None:
    """Each rule finds what it is for, and only the copy without trails lacks them."""
    trail.copy_engine(tmp_path / "kept", ())
    trail.copy_engine(tmp_path / "removed", trail.RULES)
    kept, removed = ((tmp_path / copy / "hotplumb/_runner.py").read_text() for copy in ("kept", "removed"))
    assert "NO_RECORD" in removed
    assert "NO_RECORD" not in kept


def test_a_rule_that_takes_nothing_out_is_found(tmp_path: Path) -> None:
    """When the engine changes, the trail's cost is not measured as nothing."""
    with pytest.raises(LookupError, match="nothing_at_all"):
        trail.copy_engine(tmp_path, (nothing_at_all,))


def nothing_at_all(_: object) -> None:
    """A rule for what the engine does not have."""


def test_the_command_asks_what_it_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`python -m benchmarks chain broadcast --json FILE` prints and writes those two."""
    monkeypatch.setattr(__main__, "SHORT", TINY)
    assert __main__.main(["chain", "broadcast", "--json", str(tmp_path / "found.json")]) == 0
    printed = capsys.readouterr().out
    assert "10 sync maps" in printed
    assert "to 8 and back" in printed
    written = json.loads((tmp_path / "found.json").read_text())
    assert [table["question"] for table in written["tables"]] == ["chain", "broadcast"]
    assert written["machine"]["cores"]
    assert written["tables"][0]["rows"][0]["figures"]["ours"]["samples"]


def test_the_command_asks_all_by_itself(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """`python -m benchmarks` asks every question; a name that is none of them is refused."""
    asked: list[str] = []

    def ask(name: str, form: Form) -> Table:
        asked.append(name)
        return Table(name, form.name, ())

    monkeypatch.setattr(questions, "ask", ask)
    assert __main__.main([]) == 0
    assert asked == list(questions.NAMES)
    with pytest.raises(SystemExit):
        __main__.main(["chian"])
    assert "no question 'chian'" in capsys.readouterr().err


def test_a_question_without_an_answer_fails_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The other questions are asked all the same."""
    monkeypatch.setattr(__main__, "SHORT", TINY)
    monkeypatch.delattr(ours, "chain")
    monkeypatch.setattr(floor, "chain", None)
    assert __main__.main(["chain", "broadcast"]) == 1
    captured = capsys.readouterr()
    assert "chain: no answer" in captured.err
    assert "to 8 and back" in captured.out


def test_what_is_above_its_budget_is_marked() -> None:
    """A budget holds the median, not the worst round."""
    row = Row("what", {"ours": figure([1.0, 1.2, 9.0]), "theirs": "no"}, {"ours": 1.1})
    assert row.has_missed("ours")
    assert not row.has_missed("theirs")
    assert "1.20 (1.000 to 9.00) MISSED" in results.as_text(Table("q", "us", (row,)))
    assert not Row("what", {"ours": figure([1.0, 1.0, 9.0])}, {"ours": 1.1}).has_missed("ours")


def test_ratios_are_taken_round_by_round() -> None:
    """What slows down a whole round changes no ratio."""
    found = {"floor": figure([1.0, 10.0, 1.0]), "ours": figure([2.0, 20.0, 3.0])}
    assert measuring.ratios(found, "floor")["ours"].samples == (2.0, 2.0, 3.0)
