"""When may a node act on a marker?  Pure decisions: nothing here awaits.

Rule 1: from the moment a link from inside the region has delivered the marker, the node stops reading it.
Rule 2: when every such link has delivered it, the node switches, once, and then reads all its links.
Rule 3: a link that its reader has closed counts as having delivered it.
Rule 4: new links are read only after their reader has switched.
Rule 5: a node below the region passes the settling marker on, once, when it has come in on every link that, when the
        change was planned, came from the region or from below it, and that is still there and open.
Rule 6: a change has settled when all its nodes have switched, all that were below and are still there have passed the
        settling marker on, and each change before it has settled (what that one has cut off is below no longer, and
        may have met the old version of both).

Sources: aligned snapshots, arXiv:1506.08603, the acyclic case; regions after Fries, VLDB 2022.
"""

from __future__ import annotations

from collections.abc import Collection, Set
from typing import Generic, TypeVar

from hotplumb.keys import Key

N = TypeVar("N")  # what stands for a node
L = TypeVar("L")  # what stands for a link


class Alignment(Generic[L]):
    """One node inside the region, until it has switched.

    Args:
        awaited: its links from inside the region that it has not closed.
        without: a rule to leave out, for tests of the tests: "align" (1 and 2) or "late" (4).
    """

    __slots__ = ("_awaited", "_marked", "_without")

    def __init__(self, awaited: Collection[L], without: str = "") -> None:
        self._awaited = set(awaited)
        self._marked: set[L] = set()
        self._without = without

    def may_read(self, link: L) -> bool:
        """Rule 1."""
        return link not in self._marked or self._without == "align"

    def awaits(self, link: L) -> bool:
        """Whether the marker is still to come on `link`."""
        return link in self._awaited

    def deliver(self, link: L) -> None:
        """The marker has come in on `link`."""
        self._awaited.discard(link)
        self._marked.add(link)

    def close(self, link: L) -> None:
        """Rule 3."""
        self._awaited.discard(link)

    @property
    def is_complete(self) -> bool:
        """Rule 2."""
        return not self._awaited or (self._without == "align" and bool(self._marked))

    @property
    def takes_up_new_links(self) -> bool:
        """Rule 4."""
        return self._without == "late"


class Settling(Generic[N, L]):
    """What is below one change, until nothing but state has met the old version.

    Args:
        touched: the nodes that the change touches.
        inside: the nodes of its region.
        counts: {node below the region: how many links from inside or below it has not closed}; kept, and changed.
        links: these links; likewise.
        without: a rule to leave out, for tests of the tests: "plan" (5: the first marker to come in is passed on).
    """

    def __init__(
        self, touched: Set[Key], inside: Set[Key], counts: dict[N, int], links: set[L], without: str = ""
    ) -> None:
        self.touched = touched
        self._unswitched = set(inside)
        self._counts = counts  # only of nodes that have not passed it on
        self._links = links
        self._without = without

    def switched(self, key: Key) -> None:
        """A node of the region has switched, or is there no longer."""
        self._unswitched.discard(key)

    def came(self, node: N, link: L) -> bool:
        """The settling marker has come in on a link of `node`, or that link is gone; whether to pass it on."""
        if link not in self._links or node not in self._counts:
            return False
        self._links.discard(link)
        self._counts[node] -= 1
        if self._counts[node] and self._without != "plan":
            return False
        del self._counts[node]
        return True

    def at_once(self) -> list[N]:
        """The nodes that await the settling marker on no link, and pass it on when the change begins."""
        found = [node for node, count in self._counts.items() if not count] if 0 in self._counts.values() else []
        for node in found:
            del self._counts[node]
        return found

    def gone(self, node: N) -> None:
        """A node is there no longer."""
        self._counts.pop(node, None)

    def replaced(self, old: N, new: N) -> None:
        """Another stands for a node."""
        if old in self._counts:
            self._counts[new] = self._counts.pop(old)

    @property
    def is_done(self) -> bool:
        """Rule 6, but for the changes before."""
        return not self._unswitched and not self._counts
