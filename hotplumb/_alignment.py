"""When may a node act on a marker?  Pure decisions: nothing here awaits.

Rule 1: from the moment a link from inside the region has delivered the marker, the node stops reading it.
Rule 2: when every such link has delivered it, the node switches, once, and then reads all its links.
Rule 3: a link that its reader has closed counts as having delivered it.
Rule 4: a node below the region passes the settling marker on, once, when it has come in on every link that, when the
        change was planned, came from the region or from below it, and that is still there.
Rule 5: a change has settled when all its nodes have switched, and all that were below and are still there have passed
        the settling marker on.

Sources: aligned snapshots, arXiv:1506.08603, the acyclic case; regions after Fries, VLDB 2022.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Set
from typing import Generic, TypeVar

from hotplumb.keys import Key

L = TypeVar("L")  # what stands for a link


class Alignment(Generic[L]):
    """One node inside the region, until it has switched."""

    __slots__ = ("_awaited", "_marked")

    def __init__(self, awaited: Collection[L]) -> None:
        self._awaited = set(awaited)
        self._marked: set[L] = set()

    def may_read(self, link: L) -> bool:
        """Rule 1."""
        return link not in self._marked

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
        return not self._awaited


class Settling(Generic[L]):
    """What is below one change, until nothing but state has met the old version."""

    def __init__(self, touched: Set[Key], inside: Set[Key], awaited: Mapping[Key, Collection[L]]) -> None:
        self.touched = touched
        self._unswitched = set(inside)
        self._awaited = {
            key: set(links) for key, links in awaited.items()
        }  # {key: links}, only nodes that have not passed it on

    def switched(self, key: Key) -> None:
        """A node of the region has switched, or is there no longer."""
        self._unswitched.discard(key)

    def came(self, key: Key, link: L) -> bool:
        """The settling marker has come in on a link of `key`, or that link is gone; whether to pass it on."""
        awaited = self._awaited.get(key)
        if awaited is None:
            return False
        awaited.discard(link)
        if awaited:
            return False
        del self._awaited[key]
        return True

    def gone(self, key: Key) -> None:
        """A node is there no longer."""
        self._awaited.pop(key, None)

    @property
    def is_done(self) -> bool:
        """Rule 5."""
        return not self._unswitched and not self._awaited
