"""Every exception hotplumb raises.  The branch says who must act.

HotplumbError
├── UsageError               the caller: nothing has started, or nothing has changed
│   ├── UnfreezableKey       a key holds what cannot be frozen  (also a TypeError)
│   ├── TopologyError        an edit that makes no topology
│   │   ├── UnmetDependency  a node reads a key that nothing builds
│   │   ├── CycleError       nodes that read each other
│   │   ├── FactoryError     the factory raised, or gave what is no node
│   │   ├── DuplicateKey     `add` of a key that is there already, or two nodes of one name
│   │   ├── UnknownKey       no such node  (also a KeyError)
│   │   ├── JoinError        what `|` cannot join
│   │   └── OpenEnd          a node that reads nothing and is no source, or that nobody reads
│   ├── UnknownBranch        a chooser named none of its branches
│   └── StaleTopology        an edit of a topology that reigns no longer
├── ChangeError              a change of a running graph
│   ├── ChangeRejected       it could not be opened: the graph has not noticed
│   ├── ChangeTimeout        it has not come through in time
│   └── HandoverError        a node holds between its old and its new process
└── NodeError                user code: what it raised is the cause
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hotplumb.items import Item, Trail


class HotplumbError(Exception):
    """Base of all that hotplumb raises."""


class UsageError(HotplumbError):
    """The call is wrong in itself; nothing has started or changed."""


class UnfreezableKey(UsageError, TypeError):
    """A key holds a value that has no frozen form.

    `key` is the whole key, `place` where in it the value stands (`key["feeds"][2]`), `value` the value.
    """

    def __init__(self, key: object, place: str, value: object, reason: str) -> None:
        super().__init__(f"{place} is {_short(value)}: {reason}")
        self.key = key
        self.place = place
        self.value = value


class TopologyError(UsageError):
    """Base of what is wrong with an edit; the topology that was edited is unchanged."""


class UnmetDependency(TopologyError):
    """A node reads a key that is neither given nor built by the factory.

    `key` is what is missing, `wanted_by` the node that reads it, `chain` the keys from it down to a sink.
    """

    def __init__(self, key: object, chain: Sequence[object], hint: str) -> None:
        wanted_by = chain[1] if len(chain) > 1 else None
        super().__init__(f"no node for {_text(key)}, which {_text(wanted_by)} reads ({_way(chain)}): {hint}")
        self.key = key
        self.wanted_by = wanted_by
        self.chain = tuple(chain)


class CycleError(TopologyError):
    """Nodes read each other in a circle; `cycle` is the keys on it, each read by the next, the first again last."""

    def __init__(self, cycle: Sequence[object], hint: str) -> None:
        super().__init__(f"{_way(cycle)} is a cycle: {hint}")
        self.cycle = tuple(cycle)


class FactoryError(TopologyError):
    """The factory raised (the cause) or gave something other than a node or None for `key`."""

    def __init__(self, key: object, reason: str) -> None:
        super().__init__(f"the factory failed on {_text(key)}: {reason}")
        self.key = key


class DuplicateKey(TopologyError):
    """`key` is there already, so it cannot be added; or it is the name of two nodes of one pipeline."""

    def __init__(self, key: object, reason: str | None = None) -> None:
        text = _text(key)
        super().__init__(f"{text} {reason or f'is there already: use replace({text}, node), or another key'}")
        self.key = key


class UnknownKey(TopologyError, KeyError):
    """There is no node `key`."""

    def __init__(self, key: object, reason: str) -> None:
        super().__init__(f"{_text(key)} {reason}")
        self.key = key

    __str__ = Exception.__str__  # KeyError would show the repr of the text


class JoinError(TopologyError):
    """Pieces that make no pipeline: one that is no node, or that nothing can be joined to."""


class OpenEnd(TopologyError):
    """The node given as `key` reads nothing and is no source; or it ends a pipeline that is to run, and is no sink."""

    def __init__(self, key: object, kind: str, reason: str | None = None) -> None:
        how = f"hp.{kind}(key)" if kind in ("merge", "collect") else f"hp.{kind}(..., key)"
        why = reason or f"reads nothing: give it the keys it reads, {how}"
        super().__init__(f"{_text(key)} is a {kind} that {why}")
        self.key = key


class UnknownBranch(UsageError):
    """A chooser gave `choice`, which is no name of its branches; `valid` is what it may give, their indices too."""

    def __init__(self, chooser: str, choice: object, valid: Sequence[object]) -> None:
        names = ", ".join(_text(name) for name in valid)
        super().__init__(f"{chooser} gave {_short(choice)}, which names no branch: it may give {names}")
        self.choice = choice
        self.valid = tuple(valid)


class StaleTopology(UsageError):
    """The topology was edited from one that reigns no longer: edit `plumbing.topology` again."""

    def __init__(self) -> None:
        super().__init__(
            "this topology was edited from one that reigns no longer, so applying it would undo what came between: "
            "edit plumbing.topology again, or use plumbing.replace(key, node) and its like, which edit what reigns"
        )


class ChangeError(HotplumbError):
    """Base of what goes wrong with a change of a running graph."""


class ChangeRejected(ChangeError):
    """The new node `key` could not be opened; what it raised is the cause.  The graph has not noticed."""

    def __init__(self, key: object, cause: BaseException) -> None:
        super().__init__(f"the change is rejected, nothing has changed: {_text(key)} could not start: {said_by(cause)}")
        self.key = key


class ChangeTimeout(ChangeError):
    """A change has not come through in time.

    `waiting_for` is `{key: why}` of the nodes that hold it up.  `withdrawn` says whether it was taken back whole, as no
    node had switched yet; else it stays under way.
    """

    def __init__(self, change: Any, waiting_for: dict[Any, str], withdrawn: bool) -> None:
        named = ", ".join(f"{_text(key)} {why}" for key, why in waiting_for.items()) or "nothing any more"
        then = (
            "it is withdrawn" if withdrawn else "it stays under way: change.force(key) gives up what a node has in hand"
        )
        super().__init__(f"the change to epoch {change.epoch} is waiting for: {named}; {then}")
        self.change = change
        self.waiting_for = waiting_for
        self.withdrawn = withdrawn


class HandoverError(ChangeError):
    """A node could not hand its state over, and holds between its old and its new process; the cause says why.

    Nothing is lost: its upstream waits, until `plumbing.retry(key)`.
    """

    def __init__(self, key: object, change: Any, cause: BaseException) -> None:
        super().__init__(f"{_text(key)} holds between its old and its new process: {said_by(cause)}")
        self.key = key
        self.change = change


class NodeError(HotplumbError):
    """User code of the node `key` raised; what it raised is the cause (`__cause__`).

    `item` is what it had in hand, None where it had none (`begin`, `end`, `close`, `wake`, a source); `trail` is the
    way that item had come, and is shown as a note under the traceback.
    """

    def __init__(self, key: object, item: Item | None, call: str, cause: BaseException) -> None:
        what = "" if item is None else f" on {_short(item.value)}"
        super().__init__(f"{call} of {_text(key)} failed{what}: {said_by(cause)}")
        self.key = key
        self.item = item
        if item is not None:
            self.add_note(f"trail: {item.trail}")

    @property
    def trail(self) -> Trail | None:
        """The hops the item in hand had made, None where there was no item."""
        return None if self.item is None else self.item.trail


def said_by(error: BaseException) -> str:
    """The type and text of an exception, whatever its `__str__` does."""
    try:
        return f"{type(error).__name__}: {error}"
    except Exception as exc:
        return f"{type(error).__name__} (whose text raised {type(exc).__name__})"


def of_user_code(error: BaseException) -> None:
    """Have a traceback begin at the first frame that is not of this package."""
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_frame.f_code.co_filename.startswith(_PACKAGE):
        traceback = traceback.tb_next
    if traceback is not None:
        error.__traceback__ = traceback


_PACKAGE = os.path.join(os.path.dirname(__file__), "")


def _text(key: object) -> str:
    from hotplumb.keys import canonical  # keys imports this module

    return canonical(key)


def _way(keys: Sequence[object], most: int = 12) -> str:
    """The keys from one to the next, those in the middle left out where they are many."""
    if len(keys) > most:
        first, last = keys[: most // 2], keys[-most // 2 :]
        return f"{_way(first)} -> ... {len(keys) - most} more ... -> {_way(last)}"
    return " -> ".join(_text(key) for key in keys)


def _short(value: Any, most: int = 200) -> str:
    """`repr`, cut, and never raising: it stands in error texts."""
    try:
        text = repr(value)
    except Exception as exc:
        text = f"<{type(value).__name__} whose repr raised {type(exc).__name__}>"
    return text if len(text) <= most else text[: most - 3] + "..."
