"""The part of a running graph that a change must pass through in order.  Pure: nothing here awaits.

Over the graph as it runs now, with the links that their readers have closed (what came through them before may still
be on the way):

Rule 1: a node *leads* when it is touched, or anything below it is.
Rule 2: a node is *anchored* when it is touched; or two or more of its links lead (a family must not be parted); or it
        leads and can give several outputs for one input (likewise); or it leads and was touched by an earlier change
        that has not settled (what the old node made may still be on the way).
Rule 3: *inside* is every node on a path between two anchored nodes.
Rule 4: a *head* is inside, and reads from no node that is.

Sources: Fries, VLDB 2022, for regions; Chi, VLDB 2018, for topologies.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Container, Hashable, Iterable
from typing import TypeVar

import attrs

from hotplumb.keys import Key

Node = TypeVar("Node", bound=Hashable)

Neighbours = Callable[[Key], Iterable[Key]]
"""The keys next to a node in the graph as it runs, in one direction."""


@attrs.frozen
class Region:
    """Where a change has to pass in order."""

    inside: frozenset[Key]
    """The nodes that switch."""
    heads: frozenset[Key]
    """Those of them that switch at once."""
    below: frozenset[Key]
    """The nodes that derive from the region and are not in it: they pass the settling marker on."""


def region_of(
    touched: Collection[Key],
    *,
    sources: Neighbours,
    readers: Neighbours,
    is_many: Callable[[Key], bool],
    unsettled: Container[Key] = frozenset(),
    without: str = "",
) -> Region:
    """The region of a change.

    Args:
        touched: the nodes of the running graph that it touches.
        sources, readers: who a node reads, who reads it; as often as there are links between the two.
        is_many: whether a node can give several outputs for one input.
        unsettled: nodes touched by earlier changes that have not settled.
        without: a clause to leave out, for tests of the tests: "family", "paths" or "unsettled".
    """
    leading = reach(touched, sources)
    anchored = set(touched)
    links = Counter(source for key in leading for source in sources(key))
    for key in leading:
        may_part = without != "family" and (links[key] >= 2 or is_many(key))
        if may_part or (without != "unsettled" and key in unsettled):
            anchored.add(key)
    inside = anchored if without == "paths" else reach(anchored, lambda key: leading.intersection(readers(key)))
    heads = {key for key in inside if not any(source in inside for source in sources(key))}
    return Region(frozenset(inside), frozenset(heads), frozenset(reach(inside, readers) - inside))


def reach(starts: Iterable[Node], next_to: Callable[[Node], Iterable[Node]]) -> set[Node]:
    """`starts`, and all that can be come to from them."""
    seen = set(starts)
    todo = list(seen)
    while todo:
        for key in next_to(todo.pop()):
            if key not in seen:
                seen.add(key)
                todo.append(key)
    return seen
