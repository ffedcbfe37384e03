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

from collections.abc import Callable, Collection, Hashable, Iterable, Set
from typing import Generic, TypeVar

import attrs

Node = TypeVar("Node", bound=Hashable)
Link = TypeVar("Link", bound=Hashable)


@attrs.frozen
class Region(Generic[Node]):
    """Where a change has to pass in order."""

    inside: frozenset[Node]
    """The nodes that switch."""
    heads: frozenset[Node]
    """Those of them that switch at once."""


def region_of(
    touched: Collection[Node],
    *,
    inputs: Callable[[Node], Collection[Link]],
    outputs: Callable[[Node], Collection[Link]],
    writer: Callable[[Link], Node],
    reader: Callable[[Link], Node],
    is_many: Callable[[Node], bool],
    unsettled: Set[Node] = frozenset(),
    without: str = "",
) -> Region[Node]:
    """The region of a change.

    Args:
        touched: the nodes of the running graph that it touches.
        inputs, outputs: the links that a node reads, and those that it writes to.
        writer, reader: the node at either end of a link.
        is_many: whether a node can give several outputs for one input.
        unsettled: nodes touched by earlier changes that have not settled.
        without: a clause to leave out, for tests of the tests: "family", "paths" or "unsettled".
    """
    leading, families = _leading(touched, inputs, writer, is_many)
    anchored = set(touched)
    if without != "family":
        anchored |= families
    if without != "unsettled":
        anchored |= leading & unsettled
    inside = anchored
    if without != "paths":
        inside = reach(anchored, lambda node: leading.intersection(map(reader, outputs(node))))
    heads = {node for node in inside if inside.isdisjoint(map(writer, inputs(node)))}
    return Region(frozenset(inside), frozenset(heads))


def _leading(
    touched: Collection[Node],
    inputs: Callable[[Node], Collection[Link]],
    writer: Callable[[Link], Node],
    is_many: Callable[[Node], bool],
) -> tuple[set[Node], set[Node]]:
    """All that leads; and of it, but for what is touched, all that two or more links lead to, or that can give many."""
    seen, todo = set(touched), list(touched)
    families: set[Node] = set()
    for node in todo:  # which grows
        for link in inputs(node):
            above = writer(link)
            if above not in seen:
                seen.add(above)
                todo.append(above)
                if not is_many(above):
                    continue
            families.add(above)
    return seen, families


def awaited_below(
    inside: Collection[Node],
    *,
    outputs: Callable[[Node], Collection[Link]],
    reader: Callable[[Link], Node],
    is_closed: Callable[[Link], bool],
) -> tuple[dict[Node, int], set[Link]]:
    """Where a settling marker is to come in: on how many links of each node below a region, and on which.

    Args:
        inside: the nodes of the region.
        outputs: the links that a node writes to.
        reader: who reads a link.
        is_closed: whether its reader wants nothing from it any more: no marker will come in.
    """
    counts: dict[Node, int] = {}
    links: list[Link] = []
    todo = list(inside)
    for node in todo:  # which grows
        for link in outputs(node):
            below = reader(link)
            if below in counts:
                counts[below] += 1
            elif below not in inside:
                counts[below] = 1
                todo.append(below)
            else:
                continue
            links.append(link)
    closed = list(filter(is_closed, links))
    for link in closed:
        counts[reader(link)] -= 1
    return counts, set(links).difference(closed) if closed else set(links)


def reach(starts: Iterable[Node], next_to: Callable[[Node], Iterable[Node]]) -> set[Node]:
    """`starts`, and all that can be come to from them."""
    seen = set(starts)
    todo = list(seen)
    while todo:
        for node in next_to(todo.pop()):
            if node not in seen:
                seen.add(node)
                todo.append(node)
    return seen
