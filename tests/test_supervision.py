"""What is done about a failure follows from the policy and the number of attempts alone."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import hotplumb as hp
from hotplumb._supervision import MOST_DELAY_S, Again, Discard, Hold, PassOver, Retry, Stop, Verdict, decide

lasts: st.SearchStrategy[hp.Policy] = st.sampled_from([hp.stop(), hp.discard(), hp.hold()])
chances = st.floats(0, 1, exclude_max=True)
stages = st.lists(st.tuples(st.integers(1, 6), st.floats(0, 100)), max_size=4)


def nested(stages: list[tuple[int, float]], last: hp.Policy) -> hp.Policy:
    """`retry(..., then=retry(..., then=last))`, the first stage outermost."""
    policy = last
    for times, delay_s in reversed(stages):
        policy = hp.retry(times, delay_s, policy)
    return policy


def verdicts(policy: hp.Policy, chance: float = 0.0, **options: Any) -> list[Verdict]:
    """What is decided about something that always fails, attempt by attempt, until that is not to try again."""
    found: list[Verdict] = []
    while not found or isinstance(found[-1], Again):
        assert len(found) < 1000
        found.append(decide(policy, len(found) + 1, chance=chance, **options))
    return found


@given(stages, lasts, chances)
def test_nested_retries_add_up_and_then_the_last_policy_is_followed(
    stages: list[tuple[int, float]], last: hp.Policy, chance: float
) -> None:
    """`retry(2, then=retry(3, then=hold()))` holds after six attempts."""
    *again, end = verdicts(nested(stages, last), chance)
    assert len(again) == sum(times for times, _ in stages)
    assert end == (PassOver("discarded") if last == hp.discard() else last)


@given(stages, lasts, chances)
def test_each_delay_is_twice_the_one_before_up_to_a_minute(
    stages: list[tuple[int, float]], last: hp.Policy, chance: float
) -> None:
    """Each stage begins with its own delay, and none is shortened by more than a half."""
    *again, _ = verdicts(nested(stages, last), chance)
    longest = [min(delay_s * 2**i, MOST_DELAY_S) for times, delay_s in stages for i in range(times)]
    delays = [verdict.delay_s for verdict in again if isinstance(verdict, Again)]
    assert all(most / 2 <= delay <= most for delay, most in zip(delays, longest, strict=True))


def test_jitter_shortens_a_delay_by_up_to_a_half() -> None:
    """Many that failed together do not come back together."""
    delays = [verdicts(hp.retry(1, 1.0), chance)[0] for chance in (0.0, 0.5, 0.75)]
    assert delays == [Again(1.0), Again(0.75), Again(0.625)]


@given(st.integers(1, 10_000), st.floats(0, 1e300))
def test_any_attempt_of_any_retry_has_a_finite_delay(attempt: int, delay_s: float) -> None:
    """A thousand attempts are no overflow."""
    verdict = decide(hp.retry(10_000, delay_s), attempt, chance=0.0)
    assert isinstance(verdict, Again)
    assert 0 <= verdict.delay_s <= MOST_DELAY_S


@given(stages, lasts, chances)
def test_what_has_left_is_neither_held_nor_tried_again(
    stages: list[tuple[int, float]], last: hp.Policy, chance: float
) -> None:
    """It would be doubled: only `stop` is followed."""
    found = verdicts(nested(stages, last), chance, has_left=True)
    assert found == [Stop() if last == hp.stop() else PassOver("partly sent")]


@given(stages, lasts, chances)
def test_a_plumbing_that_drains_holds_nothing(stages: list[tuple[int, float]], last: hp.Policy, chance: float) -> None:
    """It still tries as often as it should, and stops where it should."""
    *again, end = verdicts(nested(stages, last), chance, is_draining=True)
    assert len(again) == sum(times for times, _ in stages)
    assert end == {Stop(): Stop(), Discard(): PassOver("discarded"), Hold(): PassOver("drained")}[last]


def test_policies_are_values() -> None:
    """They compare, hash and show what they are."""
    assert hp.retry(3, 0.5, hp.hold()) == hp.retry(3, delay_s=0.5, then=hp.hold())
    assert len({hp.stop(), hp.stop(), hp.discard(), hp.hold(), hp.retry(1), hp.retry(1)}) == 4
    assert repr(hp.retry(3, delay_s=0.1, then=hp.hold())) == "Retry(times=3, delay_s=0.1, then=Hold())"
    assert [hp.stop(), hp.discard(), hp.hold()] == [Stop(), Discard(), Hold()]


def test_retry_stops_by_default_when_all_attempts_have_failed() -> None:
    """Nothing is thrown away unless that was asked for."""
    assert hp.retry(2) == Retry(2, 0.1, Stop())


@pytest.mark.parametrize("times", [0, -1, 1.5, True, "3", None])
def test_a_number_of_retries_is_a_whole_number_of_at_least_one(times: Any) -> None:
    """The error shows what was given."""
    with pytest.raises(hp.UsageError, match=rf"retry\(times={times!r}\)"):
        hp.retry(times)


@pytest.mark.parametrize("delay_s", [-0.1, math.inf, math.nan, "1", None])
def test_a_delay_is_a_finite_number_of_seconds(delay_s: Any) -> None:
    """The error shows what was given."""
    with pytest.raises(hp.UsageError, match=r"retry\(delay_s="):
        hp.retry(1, delay_s)


@pytest.mark.parametrize("policy", ["discard", hp.discard, 3, ValueError])
def test_what_is_no_policy_is_refused_where_it_is_given(policy: Any) -> None:
    """At once, not when the first item fails."""
    places = [
        lambda: hp.retry(1, then=policy),
        lambda: hp.map(str, "a", on_error=policy),
        lambda: hp.source([1], on_error=policy),
        lambda: hp.Plumbing(hp.Topology(), on_error=policy),
    ]
    for place in places:
        with pytest.raises(hp.UsageError, match="is no policy"):
            place()


def test_a_policy_that_was_not_called_is_hinted_at() -> None:
    """The likeliest slip."""
    with pytest.raises(hp.UsageError, match=r"call it: hp\.discard\(\)"):
        hp.map(str, "a", on_error=hp.discard)  # type: ignore[arg-type]
