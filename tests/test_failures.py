"""What happens when user code raises: every policy at every kind of user call, on the seeded loop."""

from __future__ import annotations

import asyncio
import gc
import itertools
import logging
import traceback
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from typing import Any

import attrs
import pytest
from running import graph, joined, run

import hotplumb as hp
from hotplumb import testing

VALUES = list(range(12))
BAD = 5  # the value on which calls fail
FOR_EVER = 1000

Make = Callable[["Fails"], hp.Node]


class Broken(Exception):
    """What user code raises here."""


class Fails:
    """User code that fails on one value, the first `times` times."""

    def __init__(self, times: int = FOR_EVER, bad: object = BAD) -> None:
        self.times = times
        self.bad = bad
        self.calls: list[Any] = []  # the values, in the order of the calls
        self.finished: list[Any] = []

    def __call__(self, value: Any) -> Any:
        self.calls.append(value)
        if value == self.bad and self.calls.count(value) <= self.times:
            raise Broken(value)
        self.finished.append(value)
        return value

    async def awaited(self, value: Any) -> Any:
        await asyncio.sleep(0.001 * (value % 3))
        return self(value)

    def true(self, value: Any) -> bool:
        self(value)
        return True

    async def true_awaited(self, value: Any) -> bool:
        return bool(await self.awaited(value) is value)

    def listed(self, value: Any) -> list[Any]:
        return [self(value)]

    async def listed_awaited(self, value: Any) -> list[Any]:
        return [await self.awaited(value)]

    def generated(self, value: Any) -> Iterator[Any]:
        yield self(value)

    async def generated_async(self, value: Any) -> AsyncIterator[Any]:
        yield await self.awaited(value)

    def step(self, count: int, value: Any) -> tuple[int, list[Any]]:
        return count + 1, [self(value)]

    async def step_awaited(self, count: int, value: Any) -> tuple[int, list[Any]]:
        return count + 1, [await self.awaited(value)]

    def name(self, value: Any) -> str:
        self(value)
        return "a"

    async def name_awaited(self, value: Any) -> str:
        await self.awaited(value)
        return "a"


class Processing:
    """A process around one method of `Fails`."""

    def __init__(self, process: Callable[[Any], Any]) -> None:
        self.process = process


MAKES: dict[str, Make] = {
    "map": lambda fails: hp.map(fails, "s"),
    "filter": lambda fails: hp.filter(fails.true, "s"),
    "flat_map": lambda fails: hp.flat_map(fails.listed, "s"),
    "flat_map generator": lambda fails: hp.flat_map(fails.generated, "s"),
    "stateful": lambda fails: hp.stateful(fails.step, 0, "s"),
    "route": lambda fails: hp.route(fails.name, "s"),
    "process": lambda fails: hp.process(lambda: Processing(fails), "s"),
    "process generator": lambda fails: hp.process(lambda: Processing(fails.generated), "s"),
    "sink": lambda fails: hp.sink(fails, "s"),
    "async map": lambda fails: hp.map(fails.awaited, "s"),
    "async filter": lambda fails: hp.filter(fails.true_awaited, "s"),
    "async flat_map": lambda fails: hp.flat_map(fails.listed_awaited, "s"),
    "async flat_map generator": lambda fails: hp.flat_map(fails.generated_async, "s"),
    "async stateful": lambda fails: hp.stateful(fails.step_awaited, 0, "s"),
    "async route": lambda fails: hp.route(fails.name_awaited, "s"),
    "async process": lambda fails: hp.process(lambda: Processing(fails.awaited), "s"),
    "async process generator": lambda fails: hp.process(lambda: Processing(fails.generated_async), "s"),
    "async sink": lambda fails: hp.sink(fails.awaited, "s"),
    "within map": lambda fails: hp.map(fails.awaited, "s").within(9),
    "within process": lambda fails: hp.process(lambda: Processing(fails.generated_async), "s").within(9),
    "concurrent map": lambda fails: hp.map(fails.awaited, "s", concurrency=3),
    "concurrent filter": lambda fails: hp.filter(fails.true_awaited, "s", concurrency=3),
    "concurrent flat_map": lambda fails: hp.flat_map(fails.listed_awaited, "s", concurrency=3),
    "concurrent flat_map generator": lambda fails: hp.flat_map(fails.generated_async, "s", concurrency=3),
    "concurrent route": lambda fails: hp.route(fails.name_awaited, "s", concurrency=3),
    "concurrent sink": lambda fails: hp.sink(fails.awaited, "s", concurrency=3),
    "concurrent within": lambda fails: hp.map(fails.awaited, "s", concurrency=3).within(9),
}

every_call = pytest.mark.parametrize("kind", MAKES)


@attrs.define
class Case:
    """One node that fails, between a source and a collecting sink, with both error streams read."""

    kind: str
    policy: hp.Policy | None
    fails: Fails
    plumbing: hp.Plumbing

    async def join(self) -> None:
        """Run it to the end."""
        async with self.plumbing as plumbing:
            await plumbing.join()

    @property
    def outputs(self) -> list[Any]:
        """What has come out of the node; of a sink, the values it has finished."""
        return self.fails.finished if "sink" in self.kind else self.plumbing.collected()["out"]

    @property
    def failures(self) -> list[hp.Failure]:
        """What the node's own error stream has given, which is what the common one has given."""
        found = self.plumbing.collected()
        assert found["own"] == found["all"]
        return found["own"]

    @property
    def statistics(self) -> hp.NodeStatistics:
        return self.plumbing.statistics().nodes["n"]


def case(kind: str, times: int, policy: hp.Policy | None, default: hp.Policy | None = None) -> Case:
    fails = Fails(times)
    node = attrs.evolve(MAKES[kind](fails), on_error=policy)
    nodes = {"s": hp.source(VALUES), "n": node}
    if "sink" not in kind:
        nodes["out"] = hp.collect(hp.output("n", "a") if "route" in kind else "n")
    topology = graph(**nodes, own=hp.collect(hp.errors("n")), all=hp.collect(hp.ERRORS))
    return Case(kind, policy, fails, hp.Plumbing(topology, on_error=default))


def without_bad() -> list[int]:
    return [value for value in VALUES if value != BAD]


def check_calls(found: Case, attempts: int) -> None:
    """Each value has cost one call, the bad one as many as it had attempts; none was run twice beside it."""
    assert Counter(found.fails.calls) == Counter(dict.fromkeys(without_bad(), 1) | {BAD: attempts})


def check_balance(found: Case, failed: int) -> None:
    """Received + failed = sent, and nothing is queued."""
    statistics = found.statistics
    assert (statistics.received, statistics.failed, statistics.dropped) == (len(VALUES) - failed, failed, 0)
    assert (statistics.queued_items, statistics.state, statistics.trouble) == (0, "ended", None)


# --- stop


@every_call
def test_stop_raises_the_error_itself_from_the_block(kind: str, seed: int) -> None:
    """Not a group: it has the key, the call, the item, and the user's exception as its cause."""
    found = case(kind, FOR_EVER, None)

    async def main() -> hp.NodeError:
        with pytest.raises(hp.NodeError) as raised:
            async with found.plumbing as plumbing:
                await plumbing.join()
        return raised.value

    error = run(main, seed)
    check_error(error, kind)
    assert found.fails.calls.count(BAD) == 1
    assert max(Counter(found.fails.calls).values()) == 1
    assert found.statistics.state == "failed"
    assert found.statistics.failed == 1
    assert found.statistics.trouble is not None


def check_error(error: hp.NodeError, kind: str) -> None:
    assert type(error) is hp.NodeError
    assert error.key == "n"
    assert error.item is not None
    assert (error.item.value, error.item.origin, error.trail.keys) == (BAD, ("s", BAD, 0), ("s",))  # type: ignore[union-attr]
    assert isinstance(error.__cause__, Broken)
    assert f'trail: "s" #{BAD} -> "s"' in error.__notes__
    names = {"flat_map": "flat_map", "stateful": "step", "route": "choose"}
    call = next((name for part, name in names.items() if part in kind), kind.split()[-1].replace("within", "map"))
    assert str(error).startswith("process of" if "process" in kind else f"{call} of"), str(error)
    assert f'of "n" failed on {BAD}: Broken: {BAD}' in str(error)


@every_call
def test_the_traceback_begins_in_the_users_code(kind: str, seed: int) -> None:
    """It reads as if the user's own function had been called by nobody."""

    async def main() -> hp.NodeError:
        with pytest.raises(hp.NodeError) as raised:
            async with case(kind, FOR_EVER, None).plumbing as plumbing:
                await plumbing.join()
        return raised.value

    cause = run(main, seed).__cause__
    assert cause is not None
    frames = traceback.extract_tb(cause.__traceback__)
    assert {frame.filename for frame in frames} == {__file__}


def test_the_error_reads_as_an_ordinary_traceback(seed: int) -> None:
    """The user's exception first, then what it means, then the trail as a note."""

    async def main() -> hp.NodeError:
        with pytest.raises(hp.NodeError) as raised:
            await joined(graph(s=hp.source(VALUES), n=hp.map(Fails(), "s"), out=hp.collect("n")))
        return raised.value

    text = "".join(traceback.format_exception(run(main, seed)))
    places = [text.index(part) for part in ("in __call__", "Broken: 5", "direct cause", "NodeError: map of", "trail: ")]
    assert places == sorted(places)
    assert "ExceptionGroup" not in text


@pytest.mark.parametrize("where", ["block", "join", "drain", "stop", "run"])
def test_a_failure_is_raised_bare_wherever_the_plumbing_is_waited_for(where: str, seed: int) -> None:
    """From the block it cancels, from `join`, `drain`, `stop` and `hp.run`."""

    async def fail(value: int) -> None:
        await asyncio.sleep(0.05)
        raise Broken(value)

    topology = graph(s=hp.source(VALUES), out=hp.sink(fail, "s"))

    async def main() -> None:
        if where == "block":
            async with hp.Plumbing(topology):
                await asyncio.sleep(1000)
        elif where in ("join", "drain"):
            async with hp.Plumbing(topology) as plumbing:
                await testing.settle()
                with pytest.raises(hp.NodeError, match="failed on 0"):
                    await getattr(plumbing, where)()
        else:
            plumbing = await hp.start(topology)
            with pytest.raises(hp.NodeError, match="failed on 0"):
                await plumbing.join()
            await plumbing.stop()

    with pytest.raises(hp.NodeError, match="failed on 0") as raised:
        hp.run(topology) if where == "run" else run(main, seed)
    assert type(raised.value) is hp.NodeError


def test_a_block_that_raises_something_else_keeps_it(seed: int) -> None:
    """The failure is a note on what the block itself raised in answer."""

    async def main() -> None:
        async with hp.Plumbing(graph(s=hp.source(VALUES), out=hp.sink(Fails(), "s"))):
            try:
                await asyncio.sleep(1000)
            except asyncio.CancelledError:
                raise KeyError("mine") from None

    with pytest.raises(KeyError, match="mine") as raised:
        run(main, seed)
    assert any("failed on 5" in note for note in raised.value.__notes__)


def test_the_block_is_not_left_cancelled(seed: int) -> None:
    """The cancellation that brings a failure to the block is taken back."""

    async def main() -> None:
        with pytest.raises(hp.NodeError):
            async with hp.Plumbing(graph(s=hp.source(VALUES), out=hp.sink(Fails(), "s"))):
                await asyncio.sleep(1000)
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        await asyncio.sleep(1)

    run(main, seed)


def test_further_failures_are_notes(seed: int) -> None:
    """What fails while the plumbing stops is not lost."""

    class Closing:
        def process(self, value: int) -> int:
            return value

        def close(self) -> None:
            raise OSError("cannot close")

    topology = graph(s=hp.source(itertools.count()), p=hp.process(Closing, "s"), out=hp.sink(Fails(), "p"))
    with pytest.raises(hp.NodeError, match="failed on 5") as raised:
        run(lambda: joined(topology), seed)
    assert any("cannot close" in note for note in raised.value.__notes__)


def test_calls_that_fail_together_are_not_lost_to_the_loop(seed: int) -> None:
    """Of three calls that raise at the same time one stops the plumbing; none is "never retrieved"."""

    async def fail(value: int) -> None:
        await asyncio.sleep(0.01)
        raise Broken(value)

    async def main() -> None:
        with pytest.raises(hp.NodeError, match="failed on 0"):
            await joined(graph(s=hp.source(range(3)), out=hp.sink(fail, "s", concurrency=3)))

    run(main, seed)


# --- discard


@every_call
def test_discard_costs_the_failing_item_only(kind: str, seeds: Callable[[int], list[int]]) -> None:
    """All others come out in order, each after one call."""
    for seed in seeds(3):
        found = case(kind, FOR_EVER, hp.discard())
        run(found.join, seed)
        assert found.outputs == without_bad() if "sink" not in kind else sorted(found.outputs) == without_bad()
        check_calls(found, 1)
        check_balance(found, 1)
        (failure,) = found.failures
        check_failure(failure, attempts=1)


def check_failure(failure: hp.Failure, attempts: int, reason: str = "discarded") -> None:
    assert (failure.key, failure.attempts, failure.reason) == ("n", attempts, reason)
    assert failure.item is not None
    assert (failure.item.value, failure.item.origin, failure.item.trail.keys) == (BAD, ("s", BAD, 0), ("s",))
    assert isinstance(failure.exception, Broken)


def test_a_node_has_its_own_policy_before_that_of_the_plumbing(seed: int) -> None:
    """`on_error=` of the plumbing is for nodes that have none."""
    with pytest.raises(hp.NodeError):
        run(case("map", FOR_EVER, hp.stop(), default=hp.discard()).join, seed)
    found = case("map", FOR_EVER, None, default=hp.discard())
    run(found.join, seed)
    assert found.outputs == without_bad()
    found = case("map", FOR_EVER, hp.discard(), default=hp.stop())
    run(found.join, seed)
    assert found.outputs == without_bad()


def test_with_no_reader_a_failure_is_logged_and_counted(seed: int, caplog: pytest.LogCaptureFixture) -> None:
    """One line says what failed, on what, and how it had come."""
    topology = graph(s=hp.source(VALUES), n=hp.map(Fails(), "s", on_error=hp.discard()), out=hp.collect("n"))
    assert run(lambda: joined(topology), seed)["out"] == without_bad()
    (record,) = caplog.records
    for part in ('key="n"', "Broken: 5", 'trail="s" #5 -> "s"'):
        assert part in record.getMessage()


def test_an_exception_without_a_text_is_a_failure_like_any_other(seed: int) -> None:
    """Its own `__str__` may be what is broken."""

    class Textless(Exception):
        def __str__(self) -> str:
            raise AttributeError("no text")

    def fail(value: int) -> int:
        if value == BAD:
            raise Textless
        return value

    async def fail_async(value: int) -> int:
        return fail(value)

    for fn in (fail, fail_async):
        topology = graph(s=hp.source(VALUES), n=hp.map(fn, "s", on_error=hp.discard()), out=hp.collect("n"))
        assert run(lambda topology=topology: joined(topology), seed)["out"] == without_bad()  # type: ignore[misc]
        stopped = graph(s=hp.source(VALUES), n=hp.map(fn, "s"), out=hp.collect("n"))
        with pytest.raises(hp.NodeError) as raised:
            run(lambda stopped=stopped: joined(stopped), seed)  # type: ignore[misc]
        assert type(raised.value.__cause__) is Textless


@pytest.mark.parametrize("is_async", [False, True])
def test_user_code_that_raises_no_exception_but_worse_does_not_hang(is_async: bool, seed: int) -> None:
    """A `BaseException` such as pytest's own ends the run somehow; nobody waits for ever."""

    class Worse(BaseException):
        pass

    def fail(value: int) -> None:
        raise Worse

    async def fail_async(value: int) -> None:
        raise Worse

    async def main() -> None:
        async with asyncio.timeout(100):
            await joined(graph(s=hp.source(VALUES), out=hp.sink(fail_async if is_async else fail, "s")))

    with pytest.raises((hp.NodeError, Worse)):
        testing.run(main, seed=seed)


# --- retry


@every_call
def test_a_retry_that_succeeds_leaves_no_trace(kind: str, seeds: Callable[[int], list[int]]) -> None:
    """All come out, in order, and nothing is in an error stream."""
    for seed in seeds(3):
        found = case(kind, 2, hp.retry(2, delay_s=0.1))
        run(found.join, seed)
        assert found.outputs == VALUES if "sink" not in kind else sorted(found.outputs) == VALUES
        check_calls(found, 3)
        check_balance(found, 0)
        assert found.failures == []


@every_call
def test_a_retry_that_fails_follows_the_next_policy(kind: str, seed: int) -> None:
    """Attempts count over nested policies."""
    found = case(kind, FOR_EVER, hp.retry(2, delay_s=0.1, then=hp.retry(1, delay_s=0.1, then=hp.discard())))
    run(found.join, seed)
    assert sorted(found.outputs) == without_bad()
    check_calls(found, 4)
    check_balance(found, 1)
    check_failure(found.failures[0], attempts=4)


@every_call
def test_a_retry_stops_in_the_end(kind: str, seed: int) -> None:
    """Its default `then`."""
    found = case(kind, FOR_EVER, hp.retry(2, delay_s=0))
    with pytest.raises(hp.NodeError) as raised:
        run(found.join, seed)
    check_error(raised.value, kind)
    assert found.fails.calls.count(BAD) == 3


def test_each_attempt_waits_longer_and_the_statistics_say_so(seed: int) -> None:
    """With the delays of the policy, shortened by at most a half, on the loop's clock."""

    async def main() -> list[float]:
        times: list[float] = []
        loop = asyncio.get_running_loop()

        def fail(value: int) -> None:
            times.append(loop.time())
            raise Broken(value)

        policy = hp.retry(4, delay_s=1, then=hp.discard())
        topology = graph(s=hp.source([1]), out=hp.sink(fail, "s", on_error=policy))
        async with hp.Plumbing(topology) as plumbing:
            await asyncio.sleep(0.01)
            statistics = plumbing.statistics().nodes["out"]
            assert statistics.state == "retrying"
            assert statistics.trouble is not None
            assert (statistics.trouble.attempts, statistics.trouble.since) == (1, times[0])
            await plumbing.join()
        return times

    times = run(main, seed)
    waits = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert all(most / 2 <= wait <= most + 1e-6 for wait, most in zip(waits, (1, 2, 4, 8), strict=True))


@pytest.mark.parametrize("decision", ["retry", "discard"])
def test_a_node_that_waits_for_its_next_attempt_can_be_told_what_to_do(decision: str, seed: int) -> None:
    """An hour's back-off need not be waited for."""
    found = case("map", 1, hp.retry(1, delay_s=50))

    async def main() -> float:
        async with found.plumbing as plumbing:
            await testing.settle()
            assert found.statistics.state == "retrying"
            getattr(plumbing, decision)("n")
            await plumbing.join()
        return asyncio.get_running_loop().time()

    assert run(main, seed) < 1
    assert found.outputs == (VALUES if decision == "retry" else without_bad())
    assert len(found.failures) == (decision == "discard")


def test_each_item_has_attempts_of_its_own(seed: int) -> None:
    """Two that fail one after the other are both tried as often as the policy says."""

    class FailsTwice(Fails):
        def __call__(self, value: Any) -> Any:
            self.calls.append(value)
            if value in (4, 5, 6) and self.calls.count(value) <= 2:
                raise Broken(value)
            self.finished.append(value)
            return value

    for kind, make in MAKES.items():
        fails = FailsTwice()
        node = attrs.evolve(make(fails), on_error=hp.retry(2, delay_s=0))
        nodes = {"s": hp.source(VALUES), "n": node} | ({} if "sink" in kind else {"out": hp.collect("n")})
        run(lambda nodes=nodes: joined(graph(**nodes)), seed)  # type: ignore[misc]
        assert sorted(fails.finished) == VALUES, kind


def test_the_attempts_of_an_item_with_many_outputs_end_with_it(seed: int) -> None:
    """What comes after it begins at its own first attempt."""
    calls: list[int] = []

    def several(value: int) -> Iterator[int]:
        calls.append(value)
        if calls.count(value) <= 2:
            raise Broken(value)
        return iter(range(600))

    policy = hp.retry(2, delay_s=0)
    topology = graph(s=hp.source(range(3)), n=hp.flat_map(several, "s", on_error=policy), out=hp.collect("n"))
    assert run(lambda: joined(topology), seed)["out"] == [*range(600)] * 3


@pytest.mark.parametrize("is_async", [False, True])
def test_a_failed_attempt_leaves_the_state_alone(is_async: bool, seed: int) -> None:
    """Outputs that are made lazily fail after `step` has given the next state."""
    calls: list[int] = []

    def step(total: int, value: int) -> tuple[int, Iterator[tuple[int, int]]]:
        def outputs() -> Iterator[tuple[int, int]]:
            calls.append(value)
            if value == 2 and calls.count(2) < 3:
                raise Broken(value)
            yield total, value

        return total + value, outputs()

    async def step_async(total: int, value: int) -> tuple[int, Iterator[tuple[int, int]]]:
        return step(total, value)

    node = hp.stateful(step_async if is_async else step, 0, "s", on_error=hp.retry(5, delay_s=0))
    topology = graph(s=hp.source(range(5)), n=node, out=hp.collect("n"))
    assert run(lambda: joined(topology), seed)["out"] == [(0, 0), (0, 1), (1, 2), (3, 3), (6, 4)]


def test_choose_is_called_once_for_each_value_whatever_it_answers(seed: int) -> None:
    """A name that cannot be frozen costs its own value only."""
    calls: list[int] = []

    def choose(value: int) -> object:
        calls.append(value)
        return object() if value == 50 else "a"

    node = hp.route(choose, "s", on_error=hp.discard())
    topology = graph(s=hp.source(range(200)), n=node, out=hp.collect(hp.output("n", "a")))
    assert run(lambda: joined(topology), seed)["out"] == [value for value in range(200) if value != 50]
    assert calls == list(range(200))


# --- hold


@every_call
@pytest.mark.parametrize("decision", ["retry", "discard"])
def test_hold_keeps_the_item_until_somebody_decides(kind: str, decision: str, seed: int) -> None:
    """What came before has gone on, what comes after waits, and statistics say since when and on what."""
    found = case(kind, 1, hp.hold())

    async def main() -> None:
        async with found.plumbing as plumbing:
            await asyncio.sleep(10)
            check_held(found)
            getattr(plumbing, decision)("n")
            await plumbing.join()

    run(main, seed)
    expected = VALUES if decision == "retry" else without_bad()
    assert sorted(found.outputs) == expected
    assert found.outputs == expected or "concurrent sink" in kind
    check_calls(found, 2 if decision == "retry" else 1)
    check_balance(found, int(decision == "discard"))
    assert len(found.failures) == int(decision == "discard")


def check_held(found: Case) -> None:
    statistics = found.statistics
    assert statistics.state == "holding"
    trouble = statistics.trouble
    assert trouble is not None
    assert trouble.item is not None
    assert (trouble.item.value, trouble.attempts) == (BAD, 1)
    assert isinstance(trouble.exception, Broken)
    assert 0 <= trouble.since < 1
    calls = [value for value in found.fails.calls if value > BAD]
    assert len(calls) <= (2 if "concurrent" in found.kind else 0), "a held item makes what follows wait"
    if "sink" not in found.kind:
        assert found.outputs == VALUES[:BAD], "what came before has gone on, and nothing overtakes"
    assert found.failures == []


def test_hold_makes_upstream_wait_and_lets_the_rest_flow(seed: int) -> None:
    """Its writer runs full; what does not depend on it goes on."""

    async def main() -> None:
        held = hp.map(Fails(), "s", on_error=hp.hold(), capacity=4)
        topology = graph(
            s=hp.source(range(100)), n=held, out=hp.collect("n"), t=hp.source(range(1000)), other=hp.collect("t")
        )
        async with hp.Plumbing(topology) as plumbing:
            await asyncio.sleep(10)
            nodes = plumbing.statistics().nodes
            assert (nodes["s"].state, nodes["n"].state) == ("full", "holding")
            assert nodes["n"].queued_items <= 8
            assert len(plumbing.collected()["other"]) == 1000
            plumbing.discard("n")
            await plumbing.join()
            assert plumbing.collected()["out"] == [value for value in range(100) if value != BAD]

    run(main, seed)


def test_later_calls_under_way_are_awaited_and_kept_behind_a_held_one(seed: int) -> None:
    """Their results leave after the decision, in order, without being called again."""

    async def main() -> None:
        calls: list[int] = []
        back: list[int] = []

        async def work(value: int) -> int:
            calls.append(value)
            await asyncio.sleep(0.01 if value == 0 else 0.1)
            if value == 0 and calls.count(0) == 1:
                raise Broken(value)
            back.append(value)
            return value

        node = hp.map(work, "s", concurrency=3, on_error=hp.hold())
        async with hp.Plumbing(graph(s=hp.source(range(5)), n=node, out=hp.collect("n"))) as plumbing:
            await asyncio.sleep(10)
            assert (sorted(calls), sorted(back), plumbing.collected()["out"]) == ([0, 1, 2], [1, 2], [])
            plumbing.retry("n")
            await plumbing.join()
            assert plumbing.collected()["out"] == list(range(5))
            assert Counter(calls) == {0: 2, 1: 1, 2: 1, 3: 1, 4: 1}

    run(main, seed)


def test_several_held_one_behind_the_other_are_decided_one_by_one(seed: int) -> None:
    """With `concurrency`, a later call that failed too is held in its turn."""

    async def main() -> None:
        async def fail(value: int) -> int:
            raise Broken(value)

        node = hp.map(fail, "s", concurrency=3, on_error=hp.hold())
        topology = graph(s=hp.source(range(3)), n=node, out=hp.collect("n"), e=hp.collect(hp.ERRORS))
        async with hp.Plumbing(topology) as plumbing:
            for value in range(3):
                await testing.settle()
                trouble = plumbing.statistics().nodes["n"].trouble
                assert trouble is not None
                assert trouble.item is not None
                assert trouble.item.value == value
                plumbing.discard("n")
            await plumbing.join()
            assert [failure.item.value for failure in plumbing.collected()["e"]] == [0, 1, 2]

    run(main, seed)


@pytest.mark.parametrize("call", ["retry", "discard"])
def test_only_what_is_held_can_be_decided(call: str, seed: int) -> None:
    """Else the error says what the node does."""

    async def main() -> None:
        async with hp.Plumbing(graph(s=hp.source(testing.script([testing.Pause(5)])), out=hp.collect("s"))) as plumbing:
            with pytest.raises(hp.UsageError, match='"out" holds nothing: it is waiting'):
                getattr(plumbing, call)("out")
            with pytest.raises(hp.UnknownKey):
                getattr(plumbing, call)("nobody")

    run(main, seed)


@pytest.mark.parametrize("kind", ["map", "async map", "concurrent map"])
def test_a_node_that_holds_ends_when_nobody_wants_it_any_more(kind: str, seed: int) -> None:
    """Its only reader has finished: what it holds is wanted by nobody."""

    async def main() -> None:
        node = attrs.evolve(MAKES[kind](Fails()), on_error=hp.hold())
        topology = graph(s=hp.source(VALUES), n=node, first=hp.process(First, "n"), out=hp.collect("first"))
        async with asyncio.timeout(100):
            assert (await joined(topology))["out"] == [0]

    run(main, seed)


class First:
    """Takes one value, and finishes."""

    def begin(self, context: hp.Context) -> None:
        self.context = context

    def process(self, value: Any) -> Any:
        self.context.finish()
        return value


class FinishAndFail(First):
    """Takes no more, and fails with what it has."""

    async def process(self, value: Any) -> Any:
        self.context.finish()
        await asyncio.sleep(1)
        raise Broken(value)


@pytest.mark.parametrize("policy", [hp.discard(), hp.hold(), hp.retry(3, delay_s=1, then=hp.hold())], ids=str)
def test_what_fails_when_its_node_has_finished_goes_to_the_dead_letters(policy: hp.Policy, seed: int) -> None:
    """There is nowhere to try it again from; a change that gives the node another source goes on from there."""

    async def main() -> None:
        topology = graph(
            a=hp.source(hp.testing.script([1, 2, hp.testing.Pause(100)])),
            b=hp.source(hp.testing.script([hp.testing.Pause(50), 3, 4])),
            x=hp.process(FinishAndFail, "a", on_error=policy),
            out=hp.collect("x"),
            a_out=hp.collect("a"),
            b_out=hp.collect("b"),
            failures=hp.collect(hp.ERRORS),
        )
        async with hp.Plumbing(topology) as plumbing:
            await asyncio.sleep(10)
            (failure,) = plumbing.collected()["failures"]
            assert failure.item.value == 1
            found = plumbing.statistics().nodes["x"]
            assert (found.failed, found.state) == (1, "finished")
            assert found.dropped in (0, 1)  # 2, if that had come
            await plumbing.replace("x", hp.process(FinishAndFail, "b", on_error=policy))
            await plumbing.join()
            assert [failure.item.value for failure in plumbing.collected()["failures"]] == [1, 3]

    run(main, seed)


async def fail_first(value: int) -> int:
    await asyncio.sleep(3 if value == 0 else 1)
    if value == 0:
        raise Broken(value)
    return value


@pytest.mark.parametrize("policy", [hp.hold(), hp.retry(3, delay_s=100, then=hp.hold())], ids=str)
def test_what_a_node_that_nobody_reads_has_in_hand_is_not_kept_for_later_readers(policy: hp.Policy, seed: int) -> None:
    """Its calls come to their end; a reader that is added afterwards gets nothing of them."""

    async def main() -> None:
        topology = graph(
            s=hp.source([0, 1]),
            n=hp.map(fail_first, "s", concurrency=2, on_error=policy),
            other=hp.source(hp.testing.script([hp.testing.Pause(0.5), 2])),
            first=hp.process(First, "other", "n"),
            out=hp.collect("first"),
            failures=hp.collect(hp.ERRORS),
        )
        async with hp.Plumbing(topology) as plumbing:
            await asyncio.sleep(5)
            assert plumbing.statistics().nodes["n"].state == "finished"
            assert [failure.item.value for failure in plumbing.collected()["failures"]] == [0]
            await plumbing.add("late", hp.collect("n"))
            await plumbing.join()
            assert plumbing.collected()["late"] == []

    run(main, seed)


# --- what fails after some of its outputs have left


def many(value: int) -> Iterator[int]:
    """More than a chunk, then a failure, of one value."""
    yield from range(600)
    if value == 1:
        raise Broken(value)


async def many_async(value: int) -> AsyncIterator[int]:
    for output in many(value):
        yield output


@pytest.mark.parametrize("policy", [hp.discard(), hp.hold(), hp.retry(3, delay_s=0, then=hp.hold())], ids=str)
@pytest.mark.parametrize("fn", [many, many_async])
def test_what_fails_half_sent_goes_to_the_dead_letters_with_the_number_that_left(
    fn: Callable[[int], Any], policy: hp.Policy, seed: int
) -> None:
    """It is neither held nor tried again, which would double what has left."""

    async def main() -> dict[Any, list[Any]]:
        node = hp.flat_map(fn, "s", on_error=policy)
        return await joined(graph(s=hp.source(range(3)), n=node, out=hp.collect("n"), e=hp.collect(hp.ERRORS)))

    found = run(main, seed)
    (failure,) = found["e"]
    left = len(found["out"]) - 1200
    assert 256 <= left <= 600
    assert found["out"] == [*range(600), *range(left), *range(600)]
    assert str(left) in failure.reason
    assert failure.item.value == 1


def test_what_fails_half_made_but_unsent_is_tried_again_whole(seed: int) -> None:
    """The outputs of one item leave together unless they fill a chunk."""

    def make(times: list[int]) -> Callable[[int], Iterator[int]]:
        def some(value: int) -> Iterator[int]:
            yield value
            yield value
            times.append(value)
            if times.count(value) < 3:
                raise Broken(value)
            yield value

        return some

    async def some_async(value: int) -> AsyncIterator[int]:
        for output in plain(value):
            yield output
            await asyncio.sleep(0.005)

    plain = make([])
    policy = hp.retry(2, delay_s=0)
    for node in (
        hp.flat_map(make([]), "s", on_error=policy),
        hp.process(lambda: Processing(make([])), "s", on_error=hp.retry(2, delay_s=0)),
        hp.flat_map(some_async, "s", on_error=policy),
    ):
        calls = run(lambda node=node: joined(graph(s=hp.source(range(4)), n=node, out=hp.collect("n"))), seed)  # type: ignore[misc]
        assert calls["out"] == [value for value in range(4) for _ in range(3)]


def test_lazy_outputs_of_concurrent_calls_leave_together_too(seed: int) -> None:
    """An async function may return a generator that fails midway."""
    calls: list[int] = []

    async def some(value: int) -> Iterator[tuple[int, int]]:
        def outputs() -> Iterator[tuple[int, int]]:
            yield value, 1
            calls.append(value)
            if calls.count(value) < 2:
                raise Broken(value)
            yield value, 2

        return outputs()

    node = hp.flat_map(some, "s", concurrency=2, on_error=hp.retry(2, delay_s=0))
    topology = graph(s=hp.source(range(3)), n=node, out=hp.collect("n"))
    assert run(lambda: joined(topology), seed)["out"] == [(value, part) for value in range(3) for part in (1, 2)]


def test_a_concurrent_function_that_cannot_be_called_fails_like_any_other(seed: int) -> None:
    """The wrong number of arguments raises before there is anything to await."""

    async def two(one: Any, other: Any) -> Any:
        return one

    called_with_one: Any = two
    node = hp.map(called_with_one, "s", concurrency=2, on_error=hp.discard())
    topology = graph(s=hp.source(range(4)), n=node, out=hp.collect("n"), e=hp.collect(hp.ERRORS))
    found = run(lambda: joined(topology), seed)
    assert [failure.item.value for failure in found["e"]] == [0, 1, 2, 3]


# --- a failure in the middle of a chunk


@pytest.mark.parametrize("bad", [0, 1, 100, 254, 255, 256, 299])
@pytest.mark.parametrize("kind", ["map", "filter", "flat_map", "async map", "concurrent map"])
def test_a_failing_item_in_a_chunk_costs_its_own_attempts_only(kind: str, bad: int, seed: int) -> None:
    """Wherever it stands: first, last, and on either side of where chunks are cut."""

    async def main() -> None:
        fails = Fails(2, bad)
        node = attrs.evolve(MAKES[kind](fails), on_error=hp.retry(1, delay_s=1, then=hp.hold()))
        async with hp.Plumbing(graph(s=hp.source(range(300)), n=node, out=hp.collect("n"))) as plumbing:
            await asyncio.sleep(10)
            assert plumbing.collected()["out"] == list(range(bad)), "what came before has gone on"
            plumbing.retry("n")
            await plumbing.join()
            assert plumbing.collected()["out"] == list(range(300))
            assert Counter(fails.calls) == Counter([*range(300), bad, bad])

    run(main, seed)


# --- calls without an item: begin, end, close, wake


class Whole:
    """A process of which one method fails, the first `times` times."""

    def __init__(self, name: str, times: int, log: list[str]) -> None:
        self.name = name
        self.times = times
        self.log = log

    def called(self, name: str) -> str:
        self.log.append(name)
        if name == self.name and self.log.count(name) <= self.times:
            raise Broken(name)
        return name

    def begin(self, context: hp.Context) -> None:
        context.wake_at(asyncio.get_running_loop().time() + 5)
        self.called("begin")

    def process(self, value: Any) -> Any:
        return value

    def end(self) -> Any:
        return self.called("end")

    def wake(self, now: float) -> Any:
        return self.called("wake")

    def close(self) -> None:
        self.called("close")


class WholeGenerators(Whole):
    """The same, with what it gives yielded."""

    def end(self) -> Any:
        yield self.called("end")

    def wake(self, now: float) -> Any:
        yield self.called("wake")


class WholeAsync(Whole):
    """The same, awaited."""

    async def begin(self, context: hp.Context) -> None:  # type: ignore[override]
        await asyncio.sleep(0.1)
        super().begin(context)

    async def end(self) -> Any:
        await asyncio.sleep(0.1)
        return self.called("end")

    async def wake(self, now: float) -> Any:
        await asyncio.sleep(0.1)
        return self.called("wake")

    async def close(self) -> None:  # type: ignore[override]
        await asyncio.sleep(0.1)
        self.called("close")


class WholeAsyncGenerators(WholeAsync):
    """The same, awaited and yielded."""

    async def end(self) -> Any:
        await asyncio.sleep(0.1)
        yield self.called("end")

    async def wake(self, now: float) -> Any:
        await asyncio.sleep(0.1)
        yield self.called("wake")


wholes = pytest.mark.parametrize("make", [Whole, WholeGenerators, WholeAsync, WholeAsyncGenerators])
calls_without_item = pytest.mark.parametrize("name", ["end", "wake"])


def whole_graph(make: type[Whole], name: str, times: int, log: list[str], policy: hp.Policy) -> hp.Topology:
    return graph(
        s=hp.source(testing.script([1, testing.Pause(20), 2])),
        n=hp.process(lambda: make(name, times, log), "s", on_error=policy),
        out=hp.collect("n"),
        e=hp.collect(hp.errors("n")),
    )


@wholes
@pytest.mark.parametrize("name", ["begin", "end", "wake", "close"])
def test_a_call_without_an_item_can_stop_the_plumbing(make: type[Whole], name: str, seed: int) -> None:
    """The error has no item and no trail, and names the call."""
    log: list[str] = []
    with pytest.raises(hp.NodeError, match=f'{name} of "n" failed: Broken: {name}') as raised:
        run(lambda: joined(whole_graph(make, name, FOR_EVER, log, hp.stop())), seed)
    error = raised.value
    assert (error.item, error.trail) == (None, None)
    assert isinstance(error.__cause__, Broken)
    assert {frame.filename for frame in traceback.extract_tb(error.__cause__.__traceback__)} == {__file__}
    assert log.count(name) == 1
    assert log.count("close") == 1, "close is called once, whatever happened"
    assert log[-1] == "close"


@wholes
@calls_without_item
def test_a_call_without_an_item_can_be_tried_again(make: type[Whole], name: str, seed: int) -> None:
    """Its outputs come once."""
    log: list[str] = []
    found = run(lambda: joined(whole_graph(make, name, 2, log, hp.retry(2, delay_s=0.1))), seed)
    assert found["out"] == [1, "wake", 2, "end"]
    assert found["e"] == []
    assert Counter(log) == {"begin": 1, "end": 1, "wake": 1, "close": 1, name: 3}


@wholes
@calls_without_item
def test_a_call_without_an_item_is_not_tried_for_ever(make: type[Whole], name: str, seed: int) -> None:
    """As often as the policy says, and then it is passed over."""
    log: list[str] = []

    async def main() -> dict[Any, list[Any]]:
        async with asyncio.timeout(1000):
            topology = whole_graph(make, name, FOR_EVER, log, hp.retry(2, delay_s=1, then=hp.discard()))
            return await joined(topology)

    found = run(main, seed)
    assert found["out"] == [output for output in (1, "wake", 2, "end") if output != name]
    (failure,) = found["e"]
    assert (failure.key, failure.item, failure.attempts) == ("n", None, 3)
    assert log.count(name) == 3
    assert log.count("close") == 1


@wholes
@calls_without_item
@pytest.mark.parametrize("decision", ["retry", "discard"])
def test_a_call_without_an_item_can_be_held(make: type[Whole], name: str, decision: str, seed: int) -> None:
    """The node ends when that is decided, not before."""
    log: list[str] = []

    async def main() -> None:
        async with hp.Plumbing(whole_graph(make, name, 1, log, hp.hold())) as plumbing:
            await asyncio.sleep(100)
            statistics = plumbing.statistics().nodes["n"]
            assert statistics.state == "holding"
            assert statistics.trouble is not None
            assert (statistics.trouble.call, statistics.trouble.item) == (name, None)
            getattr(plumbing, decision)("n")
            await plumbing.join()
            assert (name in plumbing.collected()["out"]) == (decision == "retry")
            assert len(plumbing.collected()["e"]) == (decision == "discard")

    run(main, seed)
    assert log.count("close") == 1


@wholes
@pytest.mark.parametrize("policy", [hp.discard(), hp.hold(), hp.retry(3, delay_s=0.1, then=hp.discard())], ids=str)
def test_a_close_that_fails_is_told_and_the_node_ends(make: type[Whole], policy: hp.Policy, seed: int) -> None:
    """`close` is called once, whatever the policy."""
    log: list[str] = []
    found = run(lambda: joined(whole_graph(make, "close", FOR_EVER, log, policy)), seed)
    assert found["out"] == [1, "wake", 2, "end"]
    assert [failure.item for failure in found["e"]] == [None]
    assert log.count("close") == 1


@wholes
def test_a_begin_that_fails_stops_the_start_whatever_the_policy(make: type[Whole], seed: int) -> None:
    """Nothing has run; what was opened is closed."""
    log: list[str] = []
    others: list[str] = []
    topology = whole_graph(make, "begin", FOR_EVER, log, hp.hold())
    topology = topology.add("m", hp.process(lambda: WholeAsync("", 0, others), "s")).add("out2", hp.collect("m"))

    async def main() -> None:
        with pytest.raises(hp.NodeError, match='begin of "n"'):
            await hp.start(topology)

    run(main, seed)
    assert log == ["begin", "close"]
    assert others in ([], ["close"], ["begin", "close"]), "what was made is closed, begun or not"


def test_a_start_that_fails_warns_of_nothing_left_unawaited(seed: int) -> None:
    """An async source function that was called is awaited or closed."""
    made: list[int] = []

    async def produce() -> list[int]:
        made.append(1)
        return [1]

    async def main() -> None:
        topology = graph(s=hp.source(produce), n=hp.process(lambda: Whole("begin", 1, []), "s"), out=hp.collect("n"))
        with pytest.raises(hp.NodeError):
            await hp.start(topology)

    run(main, seed)
    gc.collect()  # where a coroutine that was never awaited would warn


def test_of_two_begins_that_fail_the_second_is_a_note(seed: int) -> None:
    """No exception is lost."""
    nodes = {name: hp.process(lambda: WholeAsync("begin", 1, []), "s") for name in "ab"}

    async def main() -> None:
        with pytest.raises(hp.NodeError) as raised:
            await hp.start(graph(s=hp.source([1]), **nodes, out=hp.collect("a", "b")))
        assert any("begin of" in note for note in getattr(raised.value, "__notes__", []))

    run(main, seed)


def test_a_begin_that_is_cancelled_from_inside_has_failed(seed: int) -> None:
    """It has not begun, so no value may reach it."""

    class Cancelled:
        async def begin(self, context: hp.Context) -> None:
            raise asyncio.CancelledError

        def process(self, value: int) -> int:
            raise AssertionError("called before it had begun")

    async def main() -> None:
        with pytest.raises(hp.NodeError, match="begin") as raised:
            await joined(graph(s=hp.source([1]), n=hp.process(Cancelled, "s"), out=hp.collect("n")))
        assert isinstance(raised.value.__cause__, asyncio.CancelledError)

    run(main, seed)


@pytest.mark.parametrize("make", [Whole, WholeAsync])
def test_a_begin_that_fails_when_a_node_starts_anew_follows_the_policy(make: type[Whole], seed: int) -> None:
    """The item that woke it is in hand."""
    log: list[str] = []

    class Once(make):  # type: ignore[valid-type,misc]
        def called(self, name: str) -> str:
            self.log.append(name)
            if name == "begin" and self.log.count("begin") == 2:
                raise Broken(name)
            return name

    async def main() -> None:
        node = hp.process(lambda: Once("", 0, log), "s", on_error=hp.retry(1, delay_s=1))
        async with hp.Plumbing(graph(s=hp.source([1]), n=node, out=hp.collect("n"))) as plumbing:
            await plumbing.join()
            await plumbing.inject("n", 2)
            await plumbing.join()
            assert plumbing.collected()["out"] == [1, "end", 2, "end"]

    run(main, seed)
    assert log == ["begin", "end", "close", "begin", "close", "begin", "end", "close"]


# --- sources


def failing_generator(values: list[int], starts: list[int]) -> Callable[[], Iterator[int]]:
    """A source's function whose i-th start gives the first `values[i]` values and raises; then it ends."""

    def produce() -> Iterator[int]:
        starts.append(len(starts))
        yield from range(values[len(starts) - 1])
        if len(starts) < len(values):
            raise Broken(len(starts))

    return produce


def failing_async_generator(values: list[int], starts: list[int]) -> Callable[[], AsyncIterator[int]]:
    plain = failing_generator(values, starts)

    async def produce() -> AsyncIterator[int]:
        for value in plain():
            yield value
            await asyncio.sleep(0.01)

    return produce


sources = pytest.mark.parametrize("produce", [failing_generator, failing_async_generator])


@sources
def test_a_source_that_raises_stops_the_plumbing(produce: Any, seed: int) -> None:
    """It has no item in hand; what it gave before has gone on or is lost with the rest."""
    with pytest.raises(hp.NodeError, match='source of "s" failed: Broken') as raised:
        run(lambda: joined(graph(s=hp.source(produce([3, 3], [])), out=hp.collect("s"))), seed)
    assert raised.value.item is None


@sources
def test_a_retried_source_starts_at_its_beginning(produce: Any, seed: int) -> None:
    """What it had given stays given; its numbers go on."""
    starts: list[int] = []
    numbers: list[int] = []

    async def main() -> list[int]:
        got: list[int] = []

        def keep(value: int) -> None:
            got.append(value)
            numbers.append(hp.current_item().origin.number)

        node = hp.source(produce([3, 2, 4], starts), on_error=hp.retry(2, delay_s=1))
        await joined(graph(s=node, out=hp.sink(keep, "s")))
        assert asyncio.get_running_loop().time() >= 0.5 + 1
        return got

    assert run(main, seed) == [*range(3), *range(2), *range(4)]
    assert numbers == list(range(9))
    assert starts == [0, 1, 2]


@sources
def test_a_source_that_comes_further_each_time_is_not_given_up(produce: Any, seed: int) -> None:
    """A start that gives more than the one before has its attempts counted anew."""
    node = hp.source(produce([1, 2, 3, 4, 5], []), on_error=hp.retry(1, delay_s=0))
    found = run(lambda: joined(graph(s=node, out=hp.collect("s"))), seed)
    assert found["out"] == [value for count in range(1, 6) for value in range(count)]


@sources
def test_a_source_that_comes_no_further_is_given_up(produce: Any, seed: int) -> None:
    """Else it would begin again for ever."""
    starts: list[int] = []
    node = hp.source(produce([2] * 20, starts), on_error=hp.retry(2, delay_s=0, then=hp.discard()))
    found = run(lambda: joined(graph(s=node, out=hp.collect("s"), e=hp.collect(hp.errors("s")))), seed)
    assert found["out"] == [0, 1] * 3
    assert [(failure.item, failure.attempts) for failure in found["e"]] == [(None, 3)]


def test_a_discarded_failure_asks_the_same_iterator_for_more(seed: int) -> None:
    """An iterator that can go on does; a generator has ended by raising."""
    scripted = testing.script([1, testing.Raise(Broken("x")), 2, testing.Raise(Broken("y")), 3])

    class Going:
        def __init__(self) -> None:
            self.entries = iter([1, None, 2, None, 3])

        def __iter__(self) -> Any:
            return self

        def __next__(self) -> int:
            value = next(self.entries)
            if value is None:
                raise Broken
            return value

    for produce, expected in ((scripted, [1, 2, 3]), (Going, [1, 2, 3]), (failing_generator([2, 2], []), [0, 1])):
        topology = graph(s=hp.source(produce, on_error=hp.discard()), out=hp.collect("s"), e=hp.collect(hp.ERRORS))
        found = run(lambda topology=topology: joined(topology), seed)  # type: ignore[misc]
        assert found["out"] == expected
        assert len(found["e"]) == (1 if expected == [0, 1] else 2)


@sources
@pytest.mark.parametrize("decision", ["retry", "discard"])
def test_a_source_can_be_held(produce: Any, decision: str, seed: int) -> None:
    """`retry` starts it again, `discard` goes on, which ends a generator."""

    async def main() -> None:
        node = hp.source(produce([2, 3], []), on_error=hp.hold())
        async with hp.Plumbing(graph(s=node, out=hp.collect("s"))) as plumbing:
            await asyncio.sleep(10)
            assert plumbing.statistics().nodes["s"].state == "holding"
            assert plumbing.collected()["out"] == [0, 1]
            getattr(plumbing, decision)("s")
            await plumbing.join()
            assert plumbing.collected()["out"] == ([0, 1, 0, 1, 2] if decision == "retry" else [0, 1])

    run(main, seed)


def test_what_is_no_source_fails_at_the_start(seed: int) -> None:
    """An async function that gives no iterable, an iterable that cannot be read: not a graph that hangs."""

    async def five() -> int:
        return 5

    class Unreadable:
        def __aiter__(self) -> Any:
            raise Broken

    async def main(produce: Any) -> None:
        async with asyncio.timeout(100):
            with pytest.raises(hp.NodeError, match='source of "s" failed'):
                await joined(graph(s=hp.source(produce), out=hp.collect("s")))

    for produce in (five, Unreadable(), lambda: 5):
        run(lambda produce=produce: main(produce), seed)  # type: ignore[misc]


# --- error streams


def failing_graph(values: Any, **nodes: hp.Node) -> hp.Topology:
    """Everything fails and is discarded."""

    def fail(value: Any) -> Any:
        raise Broken(value)

    return graph(s=hp.source(values), n=hp.map(fail, "s", on_error=hp.discard()), out=hp.collect("n"), **nodes)


def test_an_error_stream_does_not_make_the_failing_node_run() -> None:
    """It is no link of the graph."""
    topology = graph(
        s=hp.source([1]), n=hp.map(str, "s"), t=hp.source([1]), out=hp.collect("t"), e=hp.collect(hp.errors("n"))
    )
    assert "n" not in topology.active
    assert topology.readers("t") == frozenset({"out"})
    assert topology.upstream("e") == frozenset({hp.errors("n")})
    assert hp.run(topology) == {"out": [1], "e": []}


def test_a_topology_of_error_sinks_alone_ends(seed: int) -> None:
    """Nothing can fail, so nothing will come."""

    async def main() -> dict[Any, list[Any]]:
        async with asyncio.timeout(100):
            return await joined(graph(e=hp.collect(hp.ERRORS), f=hp.collect(hp.errors("n"))))

    assert run(main, seed) == {"e": [], "f": []}


def test_an_error_stream_has_the_failures_of_its_node_only(seed: int) -> None:
    """`hp.ERRORS` has those of all."""
    other = {"m": hp.sink(Fails(), "s", on_error=hp.discard())}
    streams = {"own": hp.collect(hp.errors("n")), "its": hp.collect(hp.errors("m")), "all": hp.collect(hp.ERRORS)}
    found = run(lambda: joined(failing_graph(VALUES, **other, **streams)), seed)
    assert [failure.key for failure in found["own"]] == ["n"] * 12
    assert [failure.key for failure in found["its"]] == ["m"]
    assert Counter(failure.key for failure in found["all"]) == {"n": 12, "m": 1}


def test_a_failure_begins_a_family_of_its_own(seed: int) -> None:
    """The failed item and its trail are inside it."""
    seen: list[tuple[Any, ...]] = []

    def look(failure: hp.Failure) -> None:
        item = hp.current_item()
        assert item.value is failure
        assert failure.item is not None
        seen.append((item.origin, item.trail.keys, failure.item.origin, failure.item.trail.keys))

    run(lambda: joined(failing_graph(range(3), e=hp.sink(look, hp.errors("n")))), seed)
    stream = hp.errors("n")
    assert seen == [((stream, i, 0), (stream,), ("s", i, 0), ("s",)) for i in range(3)]


def test_failures_can_be_processed_like_anything_else(seed: int) -> None:
    """Filtered, mapped, merged with other streams."""
    nodes = {
        "texts": hp.map(lambda failure: str(failure.exception), hp.ERRORS),
        "some": hp.filter(lambda text: text != "1", "texts"),
        "both": hp.collect("some", "s"),
    }
    found = run(lambda: joined(failing_graph(range(3), **nodes)), seed)
    assert sorted(found["both"], key=str) == [0, "0", 1, 2, "2"]


def test_a_full_error_stream_makes_the_failing_node_wait(seed: int) -> None:
    """Failures are not forgotten, and memory is bounded."""

    async def main() -> None:
        release = asyncio.Event()
        seen: list[int] = []

        async def slow(failure: hp.Failure) -> None:
            await release.wait()
            assert failure.item is not None
            seen.append(failure.item.value)

        topology = failing_graph(range(10_000), e=hp.sink(slow, hp.ERRORS, capacity=4))
        async with hp.Plumbing(topology) as plumbing:
            await asyncio.sleep(10)
            statistics = plumbing.statistics().nodes["n"]
            assert statistics.state == "full"
            assert statistics.failed < 3000
            assert plumbing.statistics().nodes[hp.ERRORS].queued_items <= 2048
            release.set()
            await plumbing.join()
            assert seen == list(range(10_000))

    run(main, seed)


@pytest.mark.parametrize("policy", [hp.stop(), hp.discard(), hp.retry(2, delay_s=0)], ids=str)
def test_a_failing_error_sink_is_only_logged(policy: hp.Policy, seed: int, caplog: pytest.LogCaptureFixture) -> None:
    """What fails below an error stream, however far, goes into no error stream and stops nothing: nothing loops."""

    def fail(failure: Any) -> Any:
        raise Broken("sink")

    nodes = {"e": hp.map(lambda failure: failure, hp.ERRORS), "bad": hp.sink(fail, "e", on_error=policy)}
    found = run(lambda: joined(failing_graph(range(3), **nodes, kept=hp.collect(hp.ERRORS))), seed)
    assert [failure.key for failure in found["kept"]] == ["n"] * 3
    logged = [record.getMessage() for record in caplog.records]
    assert len(logged) == 3
    assert all('key="bad"' in text for text in logged)


def test_failures_after_the_last_reader_has_finished_are_logged(seed: int, caplog: pytest.LogCaptureFixture) -> None:
    """A stream that nobody reads any more is as good as none."""
    slowly = testing.script([entry for value in range(5) for entry in (value, testing.Pause(1))])
    nodes = {"first": hp.process(First, hp.ERRORS), "kept": hp.collect("first")}
    found = run(lambda: joined(failing_graph(slowly, **nodes)), seed)
    assert [failure.item.value for failure in found["kept"]] == [0]
    assert len(caplog.records) == 4


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_a_node_that_reads_its_own_failures_is_a_cycle(depth: int) -> None:
    """However far down."""
    topology = graph(s=hp.source([1]))
    read: Any = hp.errors("n")
    for i in range(depth):
        topology = topology.add(f"m{i}", hp.map(str, read))
        read = f"m{i}"
    with pytest.raises(hp.CycleError, match="own failures"):
        topology.add("n", hp.sink(print, "s", read))


# --- reinject


def test_reinject_is_a_new_attempt_of_the_same_origin(seed: int) -> None:
    """`trail.before` is the trail of the attempt that failed."""

    async def main() -> None:
        items: list[hp.Item] = []

        def work(value: int) -> int:
            items.append(hp.current_item())
            if len(items) < 3:
                raise Broken(value)
            return value

        topology = graph(
            s=hp.source([7]), m=hp.map(lambda v: v + 1, "s"), n=hp.map(work, "m", on_error=hp.discard()),
            out=hp.collect("n"), e=hp.collect(hp.errors("n")),
        )  # fmt: skip
        async with hp.Plumbing(topology) as plumbing:
            for attempt in range(2):
                await plumbing.join()
                await plumbing.reinject(plumbing.collected()["e"][attempt])
            await plumbing.join()
            assert plumbing.collected()["out"] == [8]
        first, second, third = items
        assert [item.origin for item in items] == [("s", 0, 0), ("s", 0, 1), ("s", 0, 2)]
        assert first.trail.before is None
        assert second.trail.before == first.trail
        assert third.trail.before == second.trail
        assert "attempt 2" in str(third.trail)

    run(main, seed)


def test_what_had_no_item_cannot_be_injected_again(seed: int) -> None:
    """A source's failure, say."""

    async def main() -> None:
        produce = testing.script([testing.Raise(Broken("s"))])
        topology = graph(s=hp.source(produce, on_error=hp.discard()), out=hp.collect("s"), e=hp.collect(hp.ERRORS))
        async with hp.Plumbing(topology) as plumbing:
            await plumbing.join()
            with pytest.raises(hp.UsageError, match="no item in hand"):
                await plumbing.reinject(plumbing.collected()["e"][0])

    run(main, seed)


def test_an_error_sink_that_reinjects_is_shown_the_form_that_works(seed: int) -> None:
    """It would wait for itself where both are full; in a task of its own it works."""

    async def main() -> None:
        fails = Fails(1)
        refused: list[str] = []
        tasks: list[asyncio.Task[None]] = []

        async def again(failure: hp.Failure) -> None:
            try:
                await plumbing.reinject(failure)
            except hp.UsageError as error:
                refused.append(str(error))
                tasks.append(asyncio.create_task(plumbing.reinject(failure)))

        node = hp.map(fails, "s", on_error=hp.discard())
        topology = graph(s=hp.source(VALUES), n=node, out=hp.collect("n"), e=hp.sink(again, hp.errors("n")))
        async with hp.Plumbing(topology) as plumbing:
            await plumbing.join()
            await asyncio.gather(*tasks)
            await plumbing.join()
            assert sorted(plumbing.collected()["out"]) == VALUES
        assert "create_task(plumbing.reinject" in refused[0]

    run(main, seed)


# --- within, and calls that go wrong in time


@pytest.mark.parametrize("concurrency", [1, 3])
def test_a_call_that_takes_too_long_fails(concurrency: int, seed: int) -> None:
    """As a `TimeoutError`, which follows the policy like anything else."""

    async def slow(value: int) -> int:
        await asyncio.sleep(100 if value == BAD else 0.1)
        return value

    node = hp.map(slow, "s", concurrency=concurrency, on_error=hp.discard()).within(1)
    topology = graph(s=hp.source(VALUES), n=node, out=hp.collect("n"), e=hp.collect(hp.ERRORS))
    found = run(lambda: joined(topology), seed)
    assert found["out"] == without_bad()
    assert [type(failure.exception) for failure in found["e"]] == [TimeoutError]


def test_what_a_call_raises_when_it_is_given_up_is_not_lost_to_the_loop(seed: int) -> None:
    """The failure is the `TimeoutError`."""

    async def slow(value: int) -> None:
        try:
            await asyncio.sleep(100)
        except asyncio.CancelledError:
            raise Broken("cleanup") from None

    node = hp.sink(slow, "s", on_error=hp.discard()).within(1)
    found = run(lambda: joined(graph(s=hp.source([1]), n=node, e=hp.collect(hp.ERRORS))), seed)
    assert [type(failure.exception) for failure in found["e"]] == [TimeoutError]


def test_none_that_is_yielded_within_a_time_is_none(seed: int) -> None:
    """A process may yield None for no output, with a bound of time too."""

    class Yields:
        async def process(self, value: int) -> AsyncIterator[int | None]:
            yield None
            yield value

    topology = graph(s=hp.source(range(2)), n=hp.process(Yields, "s").within(1), out=hp.collect("n"))
    assert run(lambda: joined(topology), seed)["out"] == [0, 1]


def test_a_call_that_swallows_its_cancellation_is_named_once_and_left_behind(
    seed: int, caplog: pytest.LogCaptureFixture
) -> None:
    """After one second and after five."""

    async def deaf(value: int) -> int:
        until = asyncio.get_running_loop().time() + (20 if value < 2 else 0)
        while (rest := until - asyncio.get_running_loop().time()) > 0:
            try:
                await asyncio.sleep(rest)
            except asyncio.CancelledError:
                continue
        return value

    async def main() -> None:
        node = hp.map(deaf, "s", on_error=hp.discard()).within(1)
        topology = graph(s=hp.source(range(4)), n=node, out=hp.collect("n"), e=hp.collect(hp.ERRORS))
        assert (await joined(topology))["out"] == [2, 3]
        assert asyncio.get_running_loop().time() == pytest.approx(12, abs=0.1)
        await asyncio.sleep(30)  # what was left behind has come back by then

    run(main, seed)
    texts = [record.getMessage() for record in caplog.records if 'key="n"' in record.getMessage()]
    assert [text for text in texts if record_level(caplog, text) == logging.WARNING] == texts[:1]
    assert len(texts) == 3  # named once; left behind twice, each a call of its own


def record_level(caplog: pytest.LogCaptureFixture, text: str) -> int:
    return next(record.levelno for record in caplog.records if record.getMessage() == text)


async def left_by_exception(topology: hp.Topology) -> None:
    """Let it run for a second, and leave its block with an exception of one's own."""
    with suppress(KeyError):
        async with hp.Plumbing(topology):
            await asyncio.sleep(1)
            raise KeyError("host")


@pytest.mark.parametrize("how", ["returns", "raises"])
def test_a_call_that_ends_after_its_cancellation_is_not_left_behind(how: str, seed: int) -> None:
    """A cleanup that takes a moment, or raises something else, is no deaf call."""
    called: list[int] = []

    async def cleaning(value: int) -> None:
        called.append(value)
        try:
            await asyncio.sleep(100)
        except asyncio.CancelledError:
            await asyncio.sleep(0.1)
            if how == "raises":
                raise Broken("cleanup") from None

    async def main() -> None:
        await left_by_exception(graph(s=hp.source(VALUES), out=hp.sink(cleaning, "s", on_error=hp.hold())))
        assert asyncio.get_running_loop().time() < 1.5

    run(main, seed)
    assert called == [0], "no further call after the stop"


def spend(seconds: float) -> None:
    """Let the clock of the engine's work pass, as a call does that blocks."""
    clock = asyncio.get_running_loop().work_clock  # type: ignore[attr-defined]
    until = clock() + seconds
    while clock() < until:
        pass


class Blocking:
    """A process that blocks in one of its methods."""

    def __init__(self, name: str) -> None:
        self.name = name

    def begin(self, context: hp.Context) -> None:
        context.wake_at(asyncio.get_running_loop().time())

    def process(self, value: Any) -> None:
        self.block("process")

    def wake(self, now: float) -> None:
        self.block("wake")

    def end(self) -> None:
        self.block("end")

    def block(self, name: str) -> None:
        if name == self.name:
            spend(0.2)


def blocking(value: Any) -> bool:
    spend(0.2)
    return True


async def blocking_async(value: Any) -> bool:
    spend(0.2)
    return True


def blocking_source() -> Iterator[int]:
    spend(0.2)
    yield 1


@pytest.mark.parametrize(
    "node",
    [
        hp.map(blocking, "s"),
        hp.filter(blocking, "s"),
        hp.map(blocking_async, "s"),
        hp.map(blocking_async, "s", concurrency=3),
        hp.map(blocking_async, "s").within(1000),
        hp.process(lambda: Blocking("process"), "s"),
        hp.process(lambda: Blocking("end"), "s"),
        hp.process(lambda: Blocking("wake"), "s"),
        hp.source(blocking_source),
    ],
    ids=["map", "filter", "async", "concurrent", "within", "process", "end", "wake", "source"],
)
def test_a_call_that_blocks_the_loop_is_named_once(node: hp.Node, seed: int, caplog: pytest.LogCaptureFixture) -> None:
    """One call of user code cannot be cut, so the user is told of it."""
    run(lambda: joined(graph(s=hp.source(range(3)), n=node, other=hp.collect("s"), out=hp.collect("n"))), seed)
    (text,) = [record.getMessage() for record in caplog.records]
    assert 'key="n"' in text
    assert "held up the event loop" in text


# --- overflow


def pushed(node: hp.Node, count: int = 30) -> hp.Topology:
    """A source that is never slow, a reader that may forget and one that may not."""
    slowly = testing.script([entry for value in range(count) for entry in (value, testing.Pause(0.01))])
    return graph(s=hp.source(slowly), n=node, out=hp.collect("n"), all=hp.collect("s"))


@pytest.mark.parametrize(
    ("way", "expected"),
    [
        ("wait", [*range(30)]),
        ("drop_oldest", [0, 26, 27, 28, 29]),
        ("drop_newest", [0, 1, 2, 3, 4]),
        ("latest", [0, 29]),
    ],
)
@pytest.mark.parametrize("concurrency", [1, 2])
def test_a_slow_reader_forgets_as_it_was_told(way: Any, expected: list[int], concurrency: int, seed: int) -> None:
    """Only on its own link; its end is not forgotten, and each loss is counted."""

    async def main() -> None:
        async def slow(value: int) -> int:
            await asyncio.sleep(10 if value == 0 else 0.0001)
            return value

        node = hp.map(slow, "s", capacity=4, concurrency=concurrency).overflow(way)
        async with hp.Plumbing(pushed(node)) as plumbing:
            await plumbing.join()
            found, statistics = plumbing.collected(), plumbing.statistics().nodes["n"]
        assert found["all"] == list(range(30)), "the others forget nothing"
        if concurrency == 1:
            assert found["out"] == expected
        assert found["out"] == sorted(set(found["out"]))
        assert statistics.dropped == 30 - len(found["out"])
        assert statistics.received == len(found["out"])
        assert statistics.state == "ended"

    run(main, seed)


@pytest.mark.parametrize("way", ["drop_oldest", "drop_newest", "latest"])
@pytest.mark.parametrize("decision", ["retry", "discard"])
@pytest.mark.parametrize("kind", ["map", "async map", "concurrent map"])
def test_what_is_held_is_not_forgotten(way: Any, decision: str, kind: str, seed: int) -> None:
    """It is in the node's hands, not in the link: the decision meets the item that failed, and no other."""

    async def main() -> None:
        fails = Fails(1, bad=1)
        made = MAKES[kind](fails)
        node = attrs.evolve(made, capacity=2, on_error=hp.hold()).overflow(way)
        async with hp.Plumbing(pushed(node).add("e", hp.collect(hp.errors("n")))) as plumbing:
            await asyncio.sleep(10)
            assert plumbing.collected()["all"] == list(range(30)), "a reader that forgets makes nobody wait"
            getattr(plumbing, decision)("n")
            await plumbing.join()
            out, failures = plumbing.collected()["out"], plumbing.collected()["e"]
            statistics = plumbing.statistics().nodes["n"]
        assert (1 in out) == (decision == "retry")
        assert [failure.item.value for failure in failures] == ([1] if decision == "discard" else [])
        assert statistics.received == len(out)
        assert statistics.received + statistics.failed + statistics.dropped == 30
        assert Counter(fails.calls) == Counter(out) + Counter({1: 1})

    run(main, seed)


def test_what_may_overflow_is_checked_when_the_node_is_made() -> None:
    """A source has no link into it."""
    with pytest.raises(hp.UsageError, match="drop_oldest"):
        hp.map(str, "s").overflow("oldest")  # type: ignore[arg-type]
    with pytest.raises(hp.UsageError, match="source"):
        hp.source([1]).overflow("latest")


def test_an_error_stream_may_be_read_by_a_sink_that_forgets(seed: int) -> None:
    """Where failures must never make the graph wait."""

    async def main() -> None:
        async def slow(failure: hp.Failure) -> None:
            await asyncio.sleep(1)

        sink = hp.sink(slow, hp.ERRORS, capacity=2).overflow("drop_oldest")
        async with hp.Plumbing(failing_graph(range(5000), e=sink)) as plumbing:
            await asyncio.sleep(0.5)
            assert plumbing.statistics().nodes["n"].failed == 5000
            await plumbing.join()
            statistics = plumbing.statistics().nodes["e"]
            assert statistics.received + statistics.dropped == 5000

    run(main, seed)


# --- after the end


def test_a_retry_that_waits_when_all_stops_never_comes(seed: int) -> None:
    """Its timer goes with the node, and a close that fails too changes nothing about that."""

    class Failing:
        def process(self, value: int) -> None:
            raise Broken(value)

        def close(self) -> None:
            raise OSError("cannot close")

    async def main() -> None:
        node = hp.process(Failing, "s", on_error=hp.retry(3, delay_s=10, then=hp.discard()))
        await left_by_exception(graph(s=hp.source([1]), n=node, out=hp.collect("n")))
        await asyncio.sleep(100)

    run(main, seed)
