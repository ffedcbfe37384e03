"""Dataflow for asyncio, with graphs that can be re-plumbed while they run.

keys       what names a node          topology   which nodes there are, resolved from the sinks back
nodes      what a node does           region     where a change has to pass in order
items      values and their trails    plumbing   a topology that runs
errors     all that can go wrong      testing    a seeded loop with virtual time, scripted sources
cli, demo  the command `hotplumb`     _supervision, _alignment   pure decisions: about failures, about markers

_links, _turns, _work, _drivers, _context, _runner   how one node runs: from the stream between two nodes to the loop
                                                     that, with what it calls, is the only caller of user code
_changes, _engine                                    how a graph of them is opened, changed and closed
"""

from hotplumb import testing
from hotplumb._changes import Change
from hotplumb._supervision import Policy, discard, hold, retry, stop
from hotplumb.drawing import Drawing, draw
from hotplumb.errors import (
    ChangeError,
    ChangeRejected,
    ChangeTimeout,
    CycleError,
    DuplicateKey,
    FactoryError,
    HandoverError,
    HotplumbError,
    NodeError,
    OpenEnd,
    StaleTopology,
    TopologyError,
    UnfreezableKey,
    UnknownKey,
    UnmetDependency,
    UsageError,
)
from hotplumb.items import Failure, Hop, Item, Origin, Trail, current_item
from hotplumb.keys import ERRORS, canonical, errors, freeze, output
from hotplumb.nodes import (
    Context,
    Node,
    Process,
    collect,
    exclusive,
    filter,
    flat_map,
    map,
    merge,
    process,
    route,
    sink,
    source,
    stateful,
)
from hotplumb.plumbing import NodeStatistics, Plumbing, Statistics, Trouble, run, start
from hotplumb.topology import Topology

__all__ = [
    "StaleTopology",
    "HandoverError",
    "ChangeTimeout",
    "ChangeRejected",
    "ChangeError",
    "Change",
    "Context",
    "CycleError",
    "Drawing",
    "DuplicateKey",
    "ERRORS",
    "FactoryError",
    "Failure",
    "Hop",
    "HotplumbError",
    "Item",
    "Node",
    "NodeError",
    "NodeStatistics",
    "OpenEnd",
    "Origin",
    "Plumbing",
    "Policy",
    "Process",
    "Statistics",
    "Topology",
    "TopologyError",
    "Trail",
    "Trouble",
    "UnfreezableKey",
    "UnknownKey",
    "UnmetDependency",
    "UsageError",
    "canonical",
    "collect",
    "current_item",
    "discard",
    "draw",
    "errors",
    "exclusive",
    "filter",
    "flat_map",
    "freeze",
    "hold",
    "map",
    "merge",
    "output",
    "process",
    "retry",
    "route",
    "run",
    "sink",
    "source",
    "start",
    "stateful",
    "stop",
    "testing",
]
