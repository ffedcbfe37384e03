"""What to do about a failure: (policy, attempts so far) -> verdict.  Pure: nothing here awaits or reads a clock.

    stop()                      the plumbing stops
    discard()                   what failed goes to the dead letters, the node goes on
    hold()                      the node keeps what failed until somebody decides
    retry(times, then=policy)   up to `times` further attempts, each later than the one before; then `policy`

Rule 1: attempts are counted over nested policies: `retry(2, then=retry(3, then=hold()))` holds after six attempts.
Rule 2: what has left cannot be called back: a value that fails after some of its outputs were sent is neither held nor
        tried again, which would double them.  Only `stop` is followed; any other policy discards.
Rule 3: a plumbing that drains holds nothing: what would be held is discarded.
"""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

import attrs

from hotplumb.errors import UsageError

MOST_DELAY_S = 60.0  # an exponential delay grows past all patience otherwise


@attrs.frozen
class Stop:
    """Stop the plumbing."""


@attrs.frozen
class Discard:
    """Send what failed to the dead letters, and go on."""


@attrs.frozen
class Hold:
    """Keep what failed, and wait for a decision."""


@attrs.frozen
class Retry:
    """Try again `times` times, then follow another policy."""

    times: int
    delay_s: float
    then: Policy


Policy: TypeAlias = Stop | Discard | Hold | Retry


@attrs.frozen
class Again:
    """Try again after a delay."""

    delay_s: float


@attrs.frozen
class PassOver:
    """Send it to the dead letters, for a reason."""

    reason: Literal["discarded", "drained", "partly sent", "given up"]


Verdict: TypeAlias = Stop | PassOver | Hold | Again


def stop() -> Policy:
    """Stop the plumbing when user code raises, and raise it from the block as `NodeError`.  The default."""
    return Stop()


def discard() -> Policy:
    """Send what failed to the dead letters (`hp.errors(key)`, `hp.ERRORS`), and go on with the next."""
    return Discard()


def hold() -> Policy:
    """Keep what failed, let upstream wait and the rest flow, until `plumbing.retry(key)` or `plumbing.discard(key)`."""
    return Hold()


def retry(times: int, delay_s: float = 0.1, then: Policy | None = None) -> Policy:
    """Try again.

    Args:
        times: how many further attempts, at least 1.
        delay_s: seconds before the first of them; each later one waits twice as long as the one before, at most a
            minute, and every delay is shortened at random by up to a half, so that many that failed together do not
            come back together.
        then: what to do when they have failed too; by default `hp.stop()`.

    >>> import hotplumb as hp
    >>> hp.retry(3, delay_s=0.1, then=hp.hold())
    Retry(times=3, delay_s=0.1, then=Hold())
    """
    if not isinstance(times, int) or isinstance(times, bool) or times < 1:
        raise UsageError(f"retry(times={times!r}): times is a whole number of at least 1")
    if not isinstance(delay_s, int | float) or not 0 <= delay_s < math.inf:
        raise UsageError(f"retry(delay_s={delay_s!r}): delay_s is a number of seconds, 0 or more")
    return Retry(times, float(delay_s), Stop() if then is None else check_policy("retry(then=...)", then))


def check_policy(where: str, policy: object) -> Policy:
    """`policy`, if it is one."""
    if isinstance(policy, Stop | Discard | Hold | Retry):
        return policy
    hint = f"; call it: hp.{policy.__name__}()" if callable(policy) and hasattr(policy, "__name__") else ""
    raise UsageError(f"{where}: {policy!r} is no policy: hp.stop(), hp.discard(), hp.retry(...) or hp.hold(){hint}")


def decide(
    policy: Policy, attempts: int, *, chance: float, has_left: bool = False, is_draining: bool = False
) -> Verdict:
    """What to do when attempt number `attempts` (from 1) has failed.

    `chance` is a random number from 0 up to 1, for the jitter; `has_left` says that outputs of it were sent already.
    """
    match policy:
        case Stop():
            return policy
        case Retry(times, delay_s, then):
            if has_left or attempts > times:
                return decide(then, attempts - times, chance=chance, has_left=has_left, is_draining=is_draining)
            return Again(_delay_s(delay_s, attempts, chance))
        case _ if has_left:
            return PassOver("partly sent")
        case Discard():
            return PassOver("discarded")
        case Hold() if is_draining:
            return PassOver("drained")
        case Hold():
            return policy


def may_hold(policy: Policy) -> bool:
    """Whether a node with this policy may come to hold."""
    return may_hold(policy.then) if isinstance(policy, Retry) else isinstance(policy, Hold)


def _delay_s(first_s: float, attempt: int, chance: float) -> float:
    longest = min(first_s * 2.0 ** min(attempt - 1, 60), MOST_DELAY_S)
    return longest * (1 - chance / 2)
