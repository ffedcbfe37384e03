"""A graph under full load and change in real time; and what would be wrong is found."""

from __future__ import annotations

import importlib.util
import os
from collections import Counter
from collections.abc import Sequence

import pytest
from soak import FEW, HOW, MOST_CHUNKS, Checker, Sample, Spec, Wrong, check_kept, soaked

import hotplumb as hp

CHANGES = 120


@pytest.mark.parametrize("on_uvloop", [False, True], ids=["asyncio", "uvloop"])
def test_nothing_goes_wrong_under_full_load_and_change(on_uvloop: bool, seed: int) -> None:
    """A change every 10 ms, of every kind: nothing is lost, doubled, overtaken, mixed or kept."""
    if on_uvloop and importlib.util.find_spec("uvloop") is None and not os.environ.get("CI"):
        pytest.skip("uvloop is not installed; pip install 'hotplumb[uvloop]'")
    soak = soaked(seed, lambda soak: soak.changes / CHANGES, lambda _: None, on_uvloop)
    assert soak.changes == CHANGES
    assert soak.done.keys() == HOW.keys()
    assert soak.checker.families > CHANGES


# ---- the checks

DIAMOND = {
    "n": Spec("source"),
    "left": Spec("map", ("n",)),
    "right": Spec("map", ("n",)),
    "join": Spec("map", ("left", "right")),
    "out": Spec("sink", ("join",)),
}


def diamond(*changes: dict[str, Spec]) -> Checker:
    """A checker that knows the diamond, and the changes that it has gone through."""
    checker, specs = Checker(), DIAMOND
    for epoch, change in enumerate([{}, *changes]):
        specs = {**specs, **change}
        checker.reigns(epoch, specs)
    return checker


def arrive(checker: Checker, *way: tuple[str, int], number: int = 0, versions: Sequence[int] = (0, 0, 0)) -> None:
    """Something has come to the sink through nodes as they were in these epochs."""
    hops = tuple(hp.Hop(key, epoch) for key, epoch in way)
    steps = tuple((key, version, 0) for (key, _), version in zip(way, versions, strict=False))
    checker.arrive("out", number, hops, steps)


N, LEFT, RIGHT, JOIN = ("n", 0), ("left", 0), ("right", 0), ("join", 0)
NEW_LEFT, NEW_JOIN = ({key: Spec("map", DIAMOND[key].reads, 1)} for key in ("left", "join"))


def test_what_came_right_is_checked_once() -> None:
    """Each family is counted, and forgotten."""
    checker = diamond()
    for number in range(3):
        arrive(checker, N, LEFT, JOIN, number=number)
        arrive(checker, N, RIGHT, JOIN, number=number)
    checker.check("n", 2)
    checker.check("n", 3)
    assert (checker.families, checker.arrived) == (3, 6)


def test_what_has_not_arrived_is_lost() -> None:
    """Whether a part of a family or all of it."""
    checker = diamond()
    arrive(checker, N, LEFT, JOIN)
    with pytest.raises(Wrong, match=r"lost: #0, n in 0: .*right"):
        checker.check("n", 1)
    with pytest.raises(Wrong, match="lost: nothing came of n #0"):
        diamond().check("n", 1)


def test_what_arrives_twice_is_doubled() -> None:
    """By the same way, whether or not its family has been checked."""
    checker = diamond()
    arrive(checker, N, LEFT, JOIN)
    with pytest.raises(Wrong, match="doubled"):
        arrive(checker, N, LEFT, JOIN)
    arrive(checker, N, RIGHT, JOIN)
    checker.check("n", 1)
    with pytest.raises(Wrong, match="doubled: n #0 had arrived"):
        arrive(checker, N, ("other", 0), JOIN)


def test_what_overtakes_is_out_of_order() -> None:
    """Only on the same way: another may be faster."""
    checker = diamond()
    arrive(checker, N, LEFT, JOIN, number=1)
    arrive(checker, N, RIGHT, JOIN, number=0)
    with pytest.raises(Wrong, match="order: n #0 came after #1"):
        arrive(checker, N, LEFT, JOIN, number=0)


def test_a_family_that_meets_both_versions_is_mixed() -> None:
    """Though each of its ways lies in a wiring that reigned."""
    checker = diamond(NEW_JOIN)
    arrive(checker, N, LEFT, JOIN)
    arrive(checker, N, RIGHT, ("join", 1), versions=(0, 0, 1))
    with pytest.raises(Wrong, match=r"mixed: #0 met both versions of .*join.* in epoch 1"):
        checker.check("n", 1)


def test_a_way_through_an_old_node_and_a_newer_one_is_in_no_reign() -> None:
    """The old node was gone before the newer one was there."""
    checker = diamond(NEW_LEFT, NEW_JOIN)
    arrive(checker, N, LEFT, ("join", 2), versions=(0, 0, 1))
    with pytest.raises(Wrong, match="reign"):
        checker.check("n", 1)


def test_a_way_where_no_link_is_is_in_no_reign() -> None:
    """However many of the right ways were taken too."""
    checker = diamond()
    arrive(checker, N, LEFT, JOIN)
    arrive(checker, N, RIGHT, JOIN)
    arrive(checker, N, JOIN)
    with pytest.raises(Wrong, match="reign"):
        checker.check("n", 1)


def test_a_trail_that_names_another_version_is_wrong() -> None:
    """What the functions themselves have noted is what the trail says."""
    checker = diamond()
    arrive(checker, N, LEFT, JOIN, versions=(0, 1, 0))
    with pytest.raises(Wrong, match="trail"):
        checker.check("n", 1)


def test_a_state_that_is_not_handed_over_is_found() -> None:
    """The stateful node has counted every value that it was called with."""
    checker = Checker()
    state, _ = checker.count("count", 0, 0, ("n", 0, ()))
    state, _ = checker.count("count", 1, state, ("n", 1, ()))
    assert state == 2
    with pytest.raises(Wrong, match="state: count has counted 0 of 2"):
        checker.count("count", 2, 0, ("n", 2, ()))


def test_one_object_more_for_each_change_is_found() -> None:
    """A few that come and go are not, nor the chunks that are under way."""

    def sample(changes: int, **objects: int) -> Sample:
        return Sample(changes, 0, 0, Counter(objects))

    check_kept(sample(0), sample(10_000, Runner=900, Chunk=MOST_CHUNKS))
    check_kept(sample(0), sample(100, Runner=FEW))
    with pytest.raises(Wrong, match="memory: 10000 more Runner after 10000 changes"):
        check_kept(sample(0), sample(10_000, Runner=10_000))


def test_a_wiring_touches_what_reads_or_is_read_otherwise() -> None:
    """The epoch of a node is new when its description, its sources or its readers are."""
    checker = diamond()
    assert checker.reigns(1, {**DIAMOND, "join": Spec("map", ("right",))}) == {"n", "left", "join"}
    assert checker.reigns(2, DIAMOND) == {"n", "left", "join"}
