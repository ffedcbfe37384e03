"""The benchmarks run: each question is answered, every answer checked.  Their figures mean nothing here."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks import __main__, compare, contestants, fresh, measuring, page, questions, results
from benchmarks.contestants import ABSENT, CANNOT, FLOOR, OURS, Contestant, Field, floor, ours
from benchmarks.measuring import TINY, Form, Race, WrongAnswer
from benchmarks.questions import graph_size, growth, trail
from benchmarks.results import Figure, Results, Row, Table, figure


@pytest.mark.parametrize("name", questions.NAMES)
def test_a_question_is_answered(name: str) -> None:
    """Every question runs, and gives a figure or a reason in each place: of a few nodes, memory may be none."""
    table = questions.ask(name, TINY)
    assert table.question == name
    assert table.rows
    for found in figures(table):
        assert found in (CANNOT, ABSENT, graph_size.FEW) if isinstance(found, str) else found.median >= 0
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


def test_who_does_not_run_stands_in_the_table() -> None:
    """A library that cannot do it says no, one that is not there is not hidden either."""
    row = questions.ask("broadcast", TINY).rows[0]
    assert list(row.figures) == ["us", *(contestant.name for contestant in contestants.ALL)]
    assert isinstance(row.figures[OURS.name], Figure)
    assert row.figures["aiostream"] in (CANNOT, ABSENT)


def test_a_library_that_is_not_installed_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the machine's description says of it is what the import raised."""
    absent = Contestant("absent", "no_such_module", package="absent")
    monkeypatch.setattr(contestants, "ALL", (FLOOR, absent, OURS))
    assert contestants.field("chain", []).others == {"absent": ABSENT}
    assert contestants.field("no_such_question").others == {"floor": CANNOT, "absent": ABSENT, "ours": CANNOT}
    assert contestants.versions()["absent"].startswith("not installed: No module named")


def test_a_library_that_fails_leaves_the_others_running(capsys: pytest.CaptureFixture[str]) -> None:
    """Of hotplumb itself, a failure is one."""

    async def fail(trial: Any) -> None:
        raise OSError("broken on this Python")

    async def run(trial: Any) -> None:
        await floor.chain(trial, [])

    race = Race(lambda items: measuring.trial_of(range(items)), 100)
    found = measuring.raced(race, Field({FLOOR: run, Contestant("theirs", "", package="theirs"): fail}, {}), TINY)
    assert found["theirs"] == "failed: OSError"
    assert isinstance(found["floor"], Figure)
    assert "broken on this Python" in capsys.readouterr().err
    with pytest.raises(OSError, match="broken"):
        measuring.raced(race, Field({FLOOR: run, OURS: fail}, {}), TINY)


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
    """A budget holds the median, not the worst round, and stands beside the figure."""
    row = Row("what", {"ours": figure([1.0, 1.2, 9.0]), "theirs": "no"}, {"ours": 1.1})
    assert row.has_missed("ours")
    assert not row.has_missed("theirs")
    assert "1.20 (1.000 to 9.00), budget 1.10 MISSED" in results.as_text(Table("q", "us", (row,)))
    met = Row("what", {"ours": figure([1.0, 1.0, 9.0])}, {"ours": 1.1})
    assert not met.has_missed("ours")
    assert "1.000 (1.000 to 9.00), budget 1.10 met" in results.as_text(Table("q", "us", (met,)))


def test_a_run_ends_with_its_budgets(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Those that are missed are named, with what was measured."""
    row = Row(
        "what", {"ours": figure([2.1]), "p99": figure([1.0]), "theirs": "no"}, {"ours": 1.3, "p99": 2.0, "theirs": 1}
    )
    monkeypatch.setattr(questions, "ask", lambda name, form: Table(name, "us", (row,)))
    __main__.main(["chain"])
    printed = capsys.readouterr().out
    assert "budgets: 1 of 2 met\n  missed: chain, what, ours: budget 1.30, measured 2.10\n" in printed


def test_a_wide_table_is_turned() -> None:
    """What is too wide for a terminal has its columns as lines."""
    names = [f"library {i}" for i in range(20)]
    row = Row("what", dict.fromkeys(names, figure([1.0, 2.0])))
    lines = results.as_text(Table("q", "us", (row,))).splitlines()
    assert lines[0].split() == ["q", "what"]
    assert [line[:10].strip() for line in lines[2:22]] == names
    assert (
        "library 0" in results.as_text(Table("q", "us", (Row("what", {"library 0": figure([1.0])}),))).splitlines()[0]
    )


def test_ratios_are_taken_round_by_round() -> None:
    """What slows down a whole round changes no ratio."""
    found: dict[str, Figure | str] = {
        "floor": figure([1.0, 10.0, 1.0]),
        "ours": figure([2.0, 20.0, 3.0]),
        "theirs": "no",
    }
    ratios = measuring.ratios(found, "floor")
    assert ratios["ours"] == figure([2.0, 2.0, 3.0])
    assert ratios["theirs"] == "no"


def test_sizes_take_turns() -> None:
    """So what slows the machine down for a while slows all of them; the samples of one are those of its rounds."""
    asked: list[int] = []

    def seconds(size: int, form: Form) -> dict[str, Figure | str]:
        asked.append(size)
        return {"floor": CANNOT, "ours": figure([len(asked)] * form.rounds)}

    found = growth.by_turns((10, 100), seconds, Form("three", 3, 1))
    assert asked == [10, 100] * 3
    assert found[10] == {"floor": CANNOT, "ours": figure([1, 3, 5])}
    assert found[100] == {"floor": CANNOT, "ours": figure([2, 4, 6])}


def test_growth_is_a_ratio_of_one_round() -> None:
    """Not of medians, which may come from different rounds."""
    seconds: dict[int, dict[str, Figure | str]] = {
        1: {"ours": figure([1e-9, 5e-9, 1e-9])},
        2: {"ours": figure([2e-9, 10e-9, 2e-9])},
    }
    assert growth.rows(seconds, 1, "nodes")[1].figures["growth"] == figure([2.0, 2.0, 2.0])


def test_a_process_of_its_own_is_asked_more_than_once() -> None:
    """It goes on where it was, and is gone afterwards; one that fails says so."""
    with fresh.asked("itertools:count", 3) as ask:
        assert [ask(), ask(), ask()] == [3, 4, 5]
    with fresh.asked("itertools:repeat", "once", 1) as ask:
        assert ask() == "once"
        with pytest.raises(RuntimeError, match="failed in a process of its own"):
            ask()


def test_growth_is_held_from_the_base_on() -> None:
    """A graph of one node may cost more for each than one of ten; a larger one may not."""
    seconds = {1: {"ours": figure([3e-9])}, 10: {"ours": figure([1e-9])}, 100: {"ours": figure([2e-9])}}
    rows = growth.rows(seconds, 10, "nodes")
    assert [row.what for row in rows] == ["1 nodes", "10 nodes", "100 nodes"]
    assert [row.has_missed("growth") for row in rows] == [False, False, True]


def test_a_written_run_is_read_again() -> None:
    """Nothing of it is lost."""
    row = Row("what", {"ours": figure([1.0, 2.0]), "theirs": "no"}, {"ours": 1.1})
    run = Results({"processor": "a"}, "short", (Table("q", "us", (row,), ("a note",)),))
    assert results.from_json(results.as_json(run)) == run


def run_of(samples: list[float], processor: str = "a", column: str = "ours") -> Results:
    row = Row("what", {"floor": figure([1.0]), column: figure(samples)}, {column: 1.1})
    machine = {"processor": processor, "cores": 2, "system": "s", "python": "3", "loop": "asyncio"}
    machine |= {"packages": {"theirs": "1.0"}, "when": "2030-01-01T00:00", "load": [0.1], "python": "3"}
    return Results(machine, "short", (Table("q", "us", (row,), ("a note",)),))


@pytest.mark.parametrize(
    ("after", "said"),
    [
        ([1.25, 1.3, 1.35], "slower: q, what, ours: 1.10 (1.000 to 1.20) -> 1.30 (1.25 to 1.35), 1.18 times"),
        ([1.05, 1.25, 1.3], "0 slower, 0 faster"),  # the spreads reach into each other
        ([0.8, 0.9, 0.95], "faster: q, what, ours"),
    ],
)
def test_what_got_slower_beyond_the_spread_is_named(after: list[float], said: str) -> None:
    """Two runs on one machine are never the same, so only what lies outside of both spreads counts."""
    text, is_slower = compare.report(run_of([1.0, 1.1, 1.2]), run_of(after))
    assert said in text
    assert is_slower == said.startswith("slower")


def test_the_command_compares_two_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit status 1 where something got slower; another machine is pointed out, a new figure is nothing to compare."""
    for name, run in (("old", run_of([1.0])), ("new", run_of([2.0], "b")), ("other", run_of([2.0], column="p99"))):
        (tmp_path / name).write_text(results.as_json(run))
    old, new, other = (str(tmp_path / name) for name in ("old", "new", "other"))
    assert compare.main([old, new]) == 1
    printed = capsys.readouterr().out
    assert "not the same processor: a -> b" in printed
    assert "slower: q, what, ours" in printed
    assert compare.main([new, old]) == 0
    assert compare.main([old, other]) == 0
    assert "0 figures compared" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("main", "arguments", "said"),
    [
        (compare.main, ["empty", "empty"], "empty has no results: write them with `python -m benchmarks --json FILE`"),
        (compare.main, ["text", "text"], "text has no results"),
        (page.main, ["nowhere"], "nowhere: No such file or directory"),
        (__main__.main, ["--json", "nowhere/run.json"], "there is no folder nowhere"),
        (__main__.main, ["--json", "."], "or that is one itself"),
    ],
)
def test_a_file_that_is_none_of_results_is_refused_before_anything_is_measured(
    main: Callable[[list[str]], int],
    arguments: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With what is wrong with it, and how to come by one."""
    monkeypatch.chdir(tmp_path)
    Path("empty").write_text("{}")
    Path("text").write_text("chain 1.2")
    with pytest.raises(SystemExit) as raised:
        main(arguments)
    assert raised.value.code == 2
    assert said in capsys.readouterr().err


def test_a_run_makes_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The machine, the budgets that are missed, and each table with what was asked."""
    run = run_of([1.3])
    (tmp_path / "run.json").write_text(results.as_json(run))
    page.main([str(tmp_path / "run.json")])
    text = capsys.readouterr().out
    assert "- a, 2 cores; s" in text
    assert "0 of 1 budgets are met." in text
    assert "| q, what, hotplumb | 1.10 | 1.30 |" in text
    assert "| hotplumb | 1.30, budget 1.10 MISSED |" in text
    assert "A note." in text


def test_the_page_asks_what_the_question_asks() -> None:
    """A section's heading is the first line of the question's module."""
    run = run_of([1.0])
    table = Table("graph_size", "us", run.tables[0].rows)
    assert "## Does an item, or a node, cost more in a larger graph?" in page.page(
        Results(run.machine, "short", (table,))
    )
