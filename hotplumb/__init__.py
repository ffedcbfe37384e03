"""Dataflow for asyncio, with graphs that can be re-plumbed while they run.

keys       what names a node          topology   which nodes there are, resolved from the sinks back
nodes      what a node does           compose    pipelines written `a | [b, c] | d`
items      values and their trails    region     where a change has to pass in order
errors     all that can go wrong      testing    a seeded loop with virtual time, scripted sources
cli, demo  the command `hotplumb`     _supervision, _alignment   pure decisions: about failures, about markers
drawing    what a graph looks like    profiling  where the time of a run goes

_links, _turns, _work, _drivers, _context, _runner   how one node runs: from the stream between two nodes to the loop
                                                     that, with what it calls, is the only caller of user code
_changes, _engine                                    how a graph of them is opened, changed and closed
"""

from hotplumb import testing
from hotplumb._changes import Change
from hotplumb._supervision import Policy, discard, hold, retry, stop
from hotplumb.compose import Pipeline, broadcast, merge, route
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
    JoinError,
    NodeError,
    OpenEnd,
    StaleTopology,
    TopologyError,
    UnfreezableKey,
    UnknownBranch,
    UnknownKey,
    UnmetDependency,
    UsageError,
)
from hotplumb.items import Failure, Hop, Item, Origin, Trail, current_item, to
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
    map_chunk,
    process,
    sink,
    source,
    stateful,
)
from hotplumb.plumbing import NodeStatistics, Plumbing, Statistics, Trouble, run, start
from hotplumb.profiling import NodeProfile, Profile, profile
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
    "JoinError",
    "Node",
    "NodeError",
    "NodeProfile",
    "NodeStatistics",
    "OpenEnd",
    "Origin",
    "Pipeline",
    "Plumbing",
    "Policy",
    "Process",
    "Profile",
    "Statistics",
    "Topology",
    "TopologyError",
    "Trail",
    "Trouble",
    "UnfreezableKey",
    "UnknownBranch",
    "UnknownKey",
    "UnmetDependency",
    "UsageError",
    "broadcast",
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
    "map_chunk",
    "merge",
    "output",
    "process",
    "profile",
    "retry",
    "route",
    "run",
    "sink",
    "source",
    "start",
    "stateful",
    "stop",
    "testing",
    "to",
]
