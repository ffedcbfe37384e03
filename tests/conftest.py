"""Where the tests' chance comes from, so that what failed once can be run again.

Each run draws one base seed, shown in the header and beside every failure; `--hp-seed N`, or HOTPLUMB_SEED=N in the
environment, gives it instead.  `seed` and `seeds` derive theirs from it and the test's own name, so one test run alone
draws what it drew among all.  Hypothesis draws from it when it is given, or in CI; else from its database of failures.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Callable, Generator

import pytest
import structlog
from hypothesis import HealthCheck, settings

BASE_SEED = pytest.StashKey[int]()
IN_CI = bool(os.environ.get("CI"))

# A busy machine is no failure, so neither deadline nor `too_slow`: pytest's own bound of time catches what hangs.
settings.register_profile(
    "ci", derandomize=False, print_blob=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("dev", settings.get_profile("ci"), max_examples=50)
settings.load_profile("ci" if IN_CI else "dev")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--hp-seed", type=int, metavar="N", help="base seed of the run; a fresh one without it")


@pytest.hookimpl(tryfirst=True)  # before Hypothesis reads its own option
def pytest_configure(config: pytest.Config) -> None:
    given = config.getoption("--hp-seed")
    if given is None and (text := os.environ.get("HOTPLUMB_SEED")):
        given = int(text)
    base = secrets.randbelow(2**32) if given is None else given
    config.stash[BASE_SEED] = base
    if (IN_CI or given is not None) and config.getoption("--hypothesis-seed") is None:
        config.option.hypothesis_seed = str(base)


def pytest_report_header(config: pytest.Config) -> str:
    return f"base seed: --hp-seed={config.stash[BASE_SEED]}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        report.sections.append(("to repeat", f"pytest '{item.nodeid}' --hp-seed={item.config.stash[BASE_SEED]}"))
    return report


@pytest.fixture
def seeds(request: pytest.FixtureRequest) -> Callable[[int], list[int]]:
    """Derive as many seeds as asked for, the same ones for the same test and base seed."""
    base = request.config.stash[BASE_SEED]

    def derive(count: int) -> list[int]:
        texts = [f"{base} {request.node.nodeid} {i}" for i in range(count)]
        return [int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest()) for text in texts]

    return derive


@pytest.fixture
def seed(seeds: Callable[[int], list[int]]) -> int:
    """One seed for this test, of this run."""
    return seeds(1)[0]


@pytest.fixture(autouse=True)
def _structlog_as_found() -> Generator[None, None, None]:
    """Capturing its records configures structlog for good, and then the standard logging sees none of ours."""
    yield
    structlog.reset_defaults()
