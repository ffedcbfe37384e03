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

from collections.abc import Callable, Collection, Container, Hashable, Iterable, Mapping
from typing import TypeVar

import attrs

from hotplumb.keys import Key

Node = TypeVar("Node", bound=Hashable)

Neighbours = Callable[[Key], Collection[Key]]
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
    leading, links = _leading(touched, sources)
    anchored = set(touched)
    for key in leading:
        may_part = without != "family" and (links.get(key, 0) >= 2 or is_many(key))
        if may_part or (without != "unsettled" and key in unsettled):
            anchored.add(key)
    inside = anchored if without == "paths" else reach(anchored, lambda key: _among(leading, readers(key)))
    heads = {key for key in inside if not any(source in inside for source in sources(key))}
    return Region(frozenset(inside), frozenset(heads), frozenset(reach(inside, readers) - inside))


def _leading(touched: Collection[Key], sources: Neighbours) -> tuple[set[Key], dict[Key, int]]:
    """All that leads, and how many links of each do."""
    seen, todo = set(touched), list(touched)
    links: dict[Key, int] = {}
    while todo:
        for key in sources(todo.pop()):
            links[key] = links.get(key, 0) + 1
            if key not in seen:
                seen.add(key)
                todo.append(key)
    return seen, links


def _among(wanted: set[Key], keys: Collection[Key]) -> list[Key]:
    """Those of `keys` that are wanted; where keys can be looked up, at the cost of the fewer of the two."""
    if isinstance(keys, Mapping) and len(keys) > len(wanted):
        return [key for key in wanted if key in keys]
    return [key for key in keys if key in wanted]


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
