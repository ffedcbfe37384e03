"""Drawings, and the programs that must be able to read them.

The texts in `drawings/` are what the graphs below look like; `python tests/test_drawing.py` writes them anew.
"""

from __future__ import annotations

import functools
import html
import json
import operator
import os
import re
import shutil
import struct
import subprocess
import sys
import unicodedata
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from graphs import Run, random_graph
from hypothesis import given
from hypothesis import strategies as st
from running import graph, run

import hotplumb as hp
from hotplumb import drawing as module
from hotplumb.drawing import Drawing
from hotplumb.keys import Output, canonical

DRAWINGS = Path(__file__).with_name("drawings")
FORMS: dict[str, Callable[[Drawing], str]] = {"txt": Drawing.tree, "mmd": Drawing.mermaid, "dot": Drawing.dot}
needs_dot = pytest.mark.skipif(
    shutil.which("dot") is None and not os.environ.get("CI"), reason="needs the program `dot` of Graphviz"
)


# --- the graphs whose drawings are kept


def read_payments() -> list[int]:
    return []


def parse(line: Any) -> Any:
    return line


def kind_of(payment: Any) -> str:
    return "loan"


def total(so_far: int, payment: int) -> tuple[int, list[int]]:
    return so_far + payment, []


class Tally:
    """A process."""

    def __init__(self, size: int) -> None:
        self.size = size

    def process(self, value: Any) -> Any:
        return value


def payments() -> hp.Topology:
    """All that can be told apart by its look."""
    rates = hp.freeze({"feed": "rates", "every_s": 5})
    loans = hp.output("kind", "loan")
    topology = graph(
        payments=hp.source(read_payments),
        parsed=hp.map(parse, "payments"),
        kind=hp.route(kind_of, "parsed"),
        interest=hp.map(lambda payment: payment, loans),
        principal=hp.flat_map(parse, loans, hp.output("kind", ("fee", 1))),
        tax=hp.filter(parse, loans),
        totals=hp.stateful(total, 0, "interest", "principal", "tax"),
        raw=hp.source([1, 2, 3]),
    )
    return topology.update(
        {
            rates: hp.source(range(3)),
            "all": hp.merge(rates, "raw"),
            "tally": hp.process(functools.partial(Tally, 3), "totals", "all"),
            "table": hp.sink(print, "tally"),
            "kept": hp.collect("tally", "parsed"),
            "dead letters": hp.sink(print, hp.errors("parsed")),
            "log": hp.sink(print, hp.ERRORS),
        }
    )


def branches() -> hp.Topology:
    """Branches in branches, which meet again one after the other."""
    return graph(
        a=hp.source([]),
        b=hp.map(parse, "a"),
        c=hp.map(parse, "a"),
        ba=hp.map(parse, "b"),
        bb=hp.map(parse, "b"),
        bc=hp.map(parse, "bb"),
        b_all=hp.merge("ba", "bc"),
        c_all=hp.merge("c", "a"),
        all=hp.merge("b_all", "c_all"),
        early=hp.collect("a"),
        late=hp.collect("all"),
        other=hp.source([]),
        out=hp.collect("other", "all"),
    )


HOSTILE = 'a "b" <b>&amp;\\n\n{c} [d] |e| `f` #35; %% $$x$$ é 日本 \u202e \x00 _g_ *h*'


def hostile() -> hp.Topology:
    """Keys and names that are markup in one form or another."""

    def named(value: Any) -> Any:
        return value

    named.__qualname__ = HOSTILE
    key = (HOSTILE, 1.5, None)
    long = hp.freeze({"path": ["very", "long"] * 20, "text": "x" * 200})
    topology = hp.Topology().add(key, hp.source([])).add(long, hp.route(named, key))
    return topology.add("out", hp.collect(hp.output(long, HOSTILE), hp.output(long, None)))


def pipeline() -> hp.Pipeline:
    """Branches of a list in their order, one a pipeline, and what joins them."""
    return (
        hp.source(read_payments)
        | hp.map(parse)
        | [hp.filter(parse).named("later"), hp.map(parse).named("earlier") | Scale(), kind_of]
        | hp.collect()
    )


def piece() -> hp.Pipeline:
    """Open at both ends, and reading what it does not have."""
    return hp.map(parse) | hp.broadcast(hp.map(parse).named("b"), hp.sink(print))


class Scale(hp.Process):
    """A process that is used as it is."""

    def process(self, value: Any) -> Any:
        return value


GRAPHS: dict[str, Callable[[], hp.Topology | hp.Pipeline]] = {
    "payments": payments,
    "branches": branches,
    "hostile": hostile,
    "nothing": hp.Topology,
    "pipeline": pipeline,
    "piece": piece,
}


FILES = [f"{name}.{form}" for name in GRAPHS for form in FORMS]


def save(file: str, folder: Path) -> None:
    """Draw the graph that a file is named after."""
    hp.draw(GRAPHS[file.partition(".")[0]]()).save(folder / file)


@pytest.mark.parametrize("file", FILES)
def test_a_drawing_is_what_it_was(file: str, tmp_path: Path) -> None:
    """What a graph looks like changes only when somebody wants it to: then they write these texts anew."""
    save(file, tmp_path)
    assert (tmp_path / file).read_text("utf-8") == (DRAWINGS / file).read_text("utf-8")


# --- each node once, each link once

Links = Counter[tuple[str, str, str]]  # (writer, reader, output): how often


class Seen(NamedTuple):
    """What a drawing shows, or should show, in canonical texts."""

    nodes: list[str]
    links: Links
    dashed: Links


def random_topology(seed: int) -> hp.Topology:
    """A random graph, with readers of what fails in it."""
    topology = Run(random_graph(seed)).topology()
    first, *_ = topology.active
    topology = topology.add("dead", hp.map(parse, hp.errors(first), hp.ERRORS))
    return topology.add("log", hp.collect("dead", hp.errors(first)))


def to_be_seen(topology: hp.Topology) -> Seen:
    """What there is in a topology."""
    links: Links = Counter()
    dashed: Links = Counter()
    for key, node in topology.active.items():
        for read in node.reads:
            writer, output = (read.key, canonical(read.name)) if isinstance(read, Output) else (read, "")
            drawn = dashed if topology.active[writer].kind == "errors" else links
            drawn[canonical(writer), canonical(key), output] += 1
        if hp.errors(key) in topology.active:
            dashed[canonical(key), canonical(hp.errors(key)), ""] += 1
    return Seen(sorted(map(canonical, topology.active)), links, dashed)


def seen(nodes: dict[str, str], arrows: list[tuple[str, str, str, bool]]) -> Seen:
    """What a text shows that has these nodes and arrows: {name: canonical text}, (writer, reader, output, dashed)."""
    found = Seen(sorted(nodes.values()), Counter(), Counter())
    for writer, reader, output, is_dashed in arrows:
        (found.dashed if is_dashed else found.links)[nodes[writer], nodes[reader], output] += 1
    return found


MERMAID_NODE = re.compile(r"""    (n\d+)(\(\[|\{\{|\[\\|\[\(|\[/|\[\[|\[)"([^"]*)<br/>([^"]*)"([])}/]+)""")
MERMAID_EDGE = re.compile(r"""    (n\d+) (-->|-\.->)(?:\|"([^"]+)"\|)? (n\d+)""")
MERMAID_STYLE = re.compile(r"    style (n\d+) stroke-dasharray: 4 3")
MERMAID_TEXT = re.compile(r"(?:[\w ,.()\[\]='/?!+\u200b-]|#\d+;|#quot;)*")
MERMAID_SHAPES = {"([": "])", "{{": "}}", "[\\": "/]", "[(": ")]", "[/": "/]", "[[": "]]", "[": "]"}


def shown_by_mermaid(text: str) -> str:
    """What a label says: its entities are those of HTML, but begin with another character."""
    assert MERMAID_TEXT.fullmatch(text), text
    return html.unescape(text.replace("#quot;", '"').replace("#", "&#")).replace("\u200b", "")


def seen_in_mermaid(text: str) -> Seen:
    """What a flowchart shows; fails on anything that is no line of ours."""
    first, *lines, last = text.split("\n")
    assert (first, last) == ("flowchart TD", "")
    nodes: dict[str, str] = {}
    arrows = []
    for line in lines:
        if node := MERMAID_NODE.fullmatch(line):
            assert MERMAID_SHAPES[node[2]] == node[5]
            nodes[node[1]] = shown_by_mermaid(node[3])
        elif edge := MERMAID_EDGE.fullmatch(line):
            arrows.append((edge[1], edge[4], shown_by_mermaid(edge[3] or ""), edge[2] == "-.->"))
        else:
            styled = MERMAID_STYLE.fullmatch(line)
            assert styled, line
            assert nodes[styled[1]].startswith(("errors(", "ERRORS"))
    return seen(nodes, arrows)


def dot(form: str, *texts: str) -> str:
    """What Graphviz makes of texts; fails where it finds anything wrong with them."""
    done = subprocess.run(
        ["dot", f"-T{form}"], input="".join(texts).encode(), capture_output=True, timeout=100, check=True
    )
    assert not re.search(rb"^(Warning|Error)", done.stderr, re.MULTILINE), done.stderr
    return done.stdout.decode()


def seen_by_graphviz(text: str) -> list[Seen]:
    """What Graphviz has read of each of the graphs in a text."""
    found, rest = [], text
    while rest.strip():
        read, end = json.JSONDecoder().raw_decode(rest := rest.lstrip())
        rest = rest[end:]
        nodes = {each["_gvid"]: html.unescape(each["tooltip"].replace("\\", "")) for each in read["objects"]}
        arrows = [
            (each["tail"], each["head"], each.get("label", "").replace("\\", ""), each.get("style") == "dashed")
            for each in read["edges"]
        ]
        found.append(seen(nodes, arrows))
    return found


def test_mermaid_shows_each_node_and_each_link_once(seeds: Callable[[int], list[int]]) -> None:
    """The text of a random graph is a flowchart of its active nodes and what these read, and nothing else."""
    for seed in seeds(100):
        topology = random_topology(seed)
        assert seen_in_mermaid(hp.draw(topology).mermaid()) == to_be_seen(topology), seed


@needs_dot
def test_graphviz_shows_each_node_and_each_link_once(seeds: Callable[[int], list[int]]) -> None:
    """What Graphviz reads of a random graph is its active nodes and what these read, and nothing else."""
    topologies = [random_topology(seed) for seed in seeds(50)]
    text = dot("dot_json", *[hp.draw(topology).dot() for topology in topologies])
    assert seen_by_graphviz(text) == list(map(to_be_seen, topologies))


TREE_LINE = re.compile(
    r"(?P<indent>(?:[│ ] {2})*)(?P<branch>(?:[├└]─ )?)"
    r"(?:(?P<outputs>.+): )?[▷◇●◉○■!] (?P<title>.+?) {2}(?P<note>\w[^←]*?)"
    r"(?: {2}← (?P<reads>.+))?"
)


def seen_in_tree(text: str) -> list[tuple[str, str]]:
    """(node, what it reads) for each line, as canonical texts; what it reads is told by its place or written out."""
    column: list[str] = []  # the node last shown at each depth
    found = []
    for line in text.split("\n"):
        parts = TREE_LINE.fullmatch(line)
        assert parts, line
        depth = len(parts["indent"]) // 3
        above = column[depth] if depth < len(column) else ""
        outputs = re.split(r', (?=["(])', parts["outputs"] or "")
        named = [f"{above}[{name}]" if name else above for name in outputs]
        is_root = not parts["indent"] and parts["note"].startswith(("source", "error stream"))
        found.append((parts["title"], "" if is_root else parts["reads"] or ", ".join(named)))
        column[depth + bool(parts["branch"]) :] = [parts["title"]]
    return found


def test_a_tree_shows_each_node_once_and_all_that_it_reads(seeds: Callable[[int], list[int]]) -> None:
    """What a node of a random graph reads can be told from its place in the tree, or is written there."""
    for seed in seeds(300):
        topology = random_topology(seed)
        reads = {canonical(key): ", ".join(map(read_text, node.reads)) for key, node in topology.active.items()}
        shown = seen_in_tree(hp.draw(topology).tree())
        assert sorted(shown) == sorted(reads.items()), seed


def read_text(read: Any) -> str:
    return f"{canonical(read.key)}[{canonical(read.name)}]" if isinstance(read, Output) else canonical(read)


# --- trees


def test_a_chain_keeps_its_column() -> None:
    """The tree of a long chain is as narrow as that of a short one."""
    topology = hp.Topology().add(0, hp.source([]))
    topology = topology.update({i: hp.map(parse, i - 1) for i in range(1, 3000)})
    lines = hp.draw(topology.add("end", hp.collect(2999))).tree().split("\n")
    assert lines[:2] == ["▷ 0  source list", "○ 1  map parse"]
    assert lines[-2:] == ["○ 2999  map parse", '■ "end"  collect']


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("width", [1, 2, 5, 20, 40, 79])
def test_a_tree_fits_its_width(name: str, width: int) -> None:
    """Lines are cut to the columns that there are, and only then."""
    whole = hp.draw(GRAPHS[name]()).tree().split("\n")
    cut = hp.draw(GRAPHS[name]()).tree(width).split("\n")
    assert len(cut) == len(whole)
    for line, full in zip(cut, whole, strict=True):
        assert columns(line) <= width
        assert line == full or line.startswith("…") or (line.endswith("…") and full.startswith(line[:-1]))
        assert (line == full) == (columns(full) <= width) or line.startswith("…")


def columns(line: str) -> int:
    return sum(2 if unicodedata.east_asian_width(each) in "WF" else 1 for each in line)


def test_a_wide_character_takes_two_columns() -> None:
    """A key in Japanese does not run over the edge of the terminal."""
    drawing = hp.draw(graph(日本語=hp.source([]), out=hp.collect("日本語")))
    assert drawing.tree(9).split("\n")[0] == '▷ "日本…'
    assert drawing.tree(10).split("\n")[0] == '▷ "日本語…'


@pytest.mark.parametrize("width", [0, -1])
def test_a_tree_has_a_column_at_least(width: int) -> None:
    """Nothing can be cut to fit into less."""
    with pytest.raises(hp.UsageError, match=rf"tree\({width}\): give the number of columns, at least 1"):
        hp.draw(piece()).tree(width)


def test_a_long_line_is_cut_in_one_go() -> None:
    """A node may read ten thousand: what is cut off is not measured again for each character."""
    measured = 0

    class Counted(str):
        def __getitem__(self, part: Any) -> str:
            nonlocal measured
            measured += 1
            return Counted(super().__getitem__(part))

    assert module._cut(Counted("x" * 10_000), 80) == f"{'x' * 79}…"
    assert measured < 10


def test_an_accent_takes_no_column() -> None:
    """Characters that are put together from two are counted once."""
    key = "e\u0301" * 3
    drawing = hp.draw(hp.Topology().add(key, hp.source([])).add("out", hp.collect(key)))
    assert drawing.tree(20).split("\n")[0] == f'▷ "{key}"  source list'
    assert drawing.tree(19).split("\n")[0] == f'▷ "{key}"  source li…'


def test_a_node_that_reads_a_route_and_an_output_of_it_says_so() -> None:
    """What it reads from the node above it is written out where it is more than outputs."""
    topology = graph(n=hp.source([]), kind=hp.route(kind_of, "n"), out=hp.collect(hp.output("kind", 1), "kind"))
    assert hp.draw(topology).tree().split("\n")[-1] == '■ "out"  collect  ← "kind"[1], "kind"'


def test_a_deep_tree_shows_its_keys_in_a_narrow_terminal() -> None:
    """Of an indentation that takes more than half of the line, only the end is shown."""
    topology = hp.Topology().add(0, hp.source([]))
    for i in range(1, 20):
        topology = topology.update({i: hp.map(parse, i - 1), -i: hp.map(parse, i - 1), ("out", i): hp.collect(-i)})
    tree = hp.draw(topology.add("end", hp.collect(19))).tree(20)
    assert tree.split("\n")[-2:] == ["…      └─ ○ 19  map…", '…         ■ "end"  …']


def test_a_long_line_with_short_branches_keeps_its_column() -> None:
    """Sinks here and there along a chain do not indent the rest of it."""
    topology = hp.Topology().add(0, hp.source([]))
    for i in range(1, 4):
        topology = topology.update({i: hp.map(parse, i - 1), ("seen", i): hp.collect(i - 1)})
    assert hp.draw(topology.add("end", hp.collect(3))).tree().split("\n") == [
        "▷ 0  source list",
        '├─ ■ ("seen", 1)  collect',
        "○ 1  map parse",
        '├─ ■ ("seen", 2)  collect',
        "○ 2  map parse",
        '├─ ■ ("seen", 3)  collect',
        "○ 3  map parse",
        '■ "end"  collect',
    ]


def test_printed_in_a_terminal_a_drawing_is_as_wide_as_that(monkeypatch: pytest.MonkeyPatch) -> None:
    """`print(hp.draw(topology))` cuts lines to the terminal; where there is none it shows them whole."""
    drawing = hp.draw(payments())
    monkeypatch.setenv("COLUMNS", "30")
    assert str(drawing) == repr(drawing) == drawing.tree(30)
    monkeypatch.setenv("COLUMNS", "0")  # asks the terminal
    monkeypatch.setattr(sys, "__stdout__", None)
    assert str(drawing) == drawing.tree()


# --- what is shown of a node


documented = functools.partial(parse, 1)
documented.__doc__ = "One that `partial` does not take apart."


class Handler:
    def __call__(self, value: Any) -> Any:
        return value

    def handle(self, value: Any) -> Any:
        return value


@pytest.mark.parametrize(
    ("fn", "name"),
    [
        (parse, "parse"),
        (lambda value: value, "<lambda>"),
        (str.upper, "str.upper"),
        ([].append, "list.append"),
        (functools.partial(parse, 1), "parse"),
        (functools.partial(documented, 2), "parse"),
        (Handler(), "Handler"),
        (Handler().handle, "Handler.handle"),
        (functools.partial(Handler), "Handler"),
    ],
)
def test_a_function_is_shown_by_its_name(fn: Any, name: str) -> None:
    """Whatever can be called has a name, without the places where it stands and where it lives in memory."""
    assert hp.draw(graph(n=hp.source([]), out=hp.sink(fn, "n"))).boxes[1].function == name


def endless() -> Any:
    yield 1


@pytest.mark.parametrize(
    ("produce", "name"), [([1], "list"), (range(3), "range"), (endless, "endless"), (endless(), "endless")]
)
def test_what_a_source_iterates_is_shown_by_its_type(produce: Any, name: str) -> None:
    """Values do not belong into a drawing."""
    assert hp.draw(graph(n=hp.source(produce), out=hp.collect("n"))).boxes[0].function == name


def test_a_long_key_is_shortened_and_whole_in_the_tooltip() -> None:
    """A picture stays readable, and tells what it leaves out where one points at it."""
    key = "begin" + 100 * "x" + "end"
    drawing = hp.draw(hp.Topology().add(key, hp.source([])).add("out", hp.collect(key)))
    title = drawing.boxes[0].title
    assert len(title) == 60
    assert title.startswith('"beginxx')
    assert title.endswith('xxend"')
    assert key not in drawing.tree() + drawing.mermaid()
    assert f'tooltip="\\"{key}\\""' in drawing.dot()


def test_a_key_that_fits_is_shown_whole() -> None:
    """Shortening begins where it saves something."""
    key = 58 * "x"
    assert hp.draw(hp.Topology().add(key, hp.source([])).add("out", hp.collect(key))).boxes[0].title == f'"{key}"'


def test_a_topology_that_ran_is_drawn_with_its_epochs(seed: int) -> None:
    """Which nodes a change has touched can be seen."""

    async def main() -> str:
        async with hp.Plumbing(graph(n=hp.source([1]), m=hp.map(parse, "n"), out=hp.collect("m"))) as plumbing:
            await plumbing.replace("m", hp.filter(parse, "n"))
            return hp.draw(plumbing.topology).tree()

    assert run(main, seed) == '▷ "n"  source list\n○ "m"  filter parse (epoch 1)\n■ "out"  collect'


def test_what_a_pipeline_reads_from_elsewhere_is_drawn() -> None:
    """It can be drawn before it is put into the topology that has the rest."""
    pipeline = hp.merge("rates", hp.errors("parse")) | hp.collect()
    assert hp.draw(pipeline).tree().split("\n") == [
        '▷ "rates"  elsewhere',
        '! errors("parse")  error stream',
        '○ "merge"  merge  ← "rates", errors("parse")',
        '■ "collect"  collect',
    ]
    assert '[label="\\"rates\\"\\nelsewhere" tooltip="\\"rates\\"" shape=plain];' in hp.draw(pipeline).dot()


def test_a_pipeline_and_its_topology_differ_by_order_alone() -> None:
    """What is written as a pipeline looks like the same graph written with keys."""
    written, keyed = hp.draw(pipeline()), hp.draw(pipeline().topology())
    assert sorted(map(str, written.boxes)) == sorted(map(str, keyed.boxes))
    assert [box.key for box in written.boxes] == [*map(canonical, pipeline().nodes())]


def test_what_does_not_run_is_not_drawn() -> None:
    """A given node that no sink needs is not active."""
    topology = graph(n=hp.source([]), idle=hp.map(parse, "n"), out=hp.collect("n"))
    assert [box.key for box in hp.draw(topology).boxes] == ['"n"', '"out"']


def test_nodes_that_read_each_other_are_no_drawing() -> None:
    """They have no order, and what reads them would be missing; the keys on the cycle are named."""
    odd = hp.broadcast(
        hp.map(float, "str"), hp.map(str, "float"), hp.map(parse, "str") | hp.collect(), hp.source([1]) | hp.sink(print)
    )
    with pytest.raises(hp.CycleError, match="is a cycle: let one of them") as found:
        hp.draw(odd)
    assert set(found.value.cycle) == {"float", "str"}
    assert found.value.cycle[0] == found.value.cycle[-1]


@pytest.mark.parametrize("wrong", [None, {}, 5, "topology"])
def test_only_graphs_are_drawn(wrong: Any) -> None:
    """Anything else is refused, with what to give."""
    with pytest.raises(hp.UsageError, match=r"^draw\(.*\): give a hotplumb.Topology or a pipeline"):
        hp.draw(wrong)


def test_the_failures_of_a_node_that_does_not_run_come_from_nowhere() -> None:
    """An error stream does not make its node run."""
    drawing = hp.draw(hp.Topology().add("dead", hp.sink(print, hp.errors("idle"))))
    assert drawing.tree() == '! errors("idle")  error stream\n■ "dead"  sink print'
    assert drawing.failures == ()


# --- the same in every process


def test_a_drawing_does_not_depend_on_how_the_graph_came_about() -> None:
    """The order of edits is not seen."""
    topology = payments()
    given = dict(topology.given)
    again = hp.Topology().update({key: given[key] for key in reversed(list(given))})
    assert hp.draw(again) == hp.draw(topology)
    assert hp.draw(hp.Topology(given.get).update({k: n for k, n in given.items() if n.is_sink})) == hp.draw(topology)


@pytest.mark.parametrize("hash_seed", ["1", "2"])
def test_a_drawing_is_the_same_in_every_process(hash_seed: str) -> None:
    """Hashes of texts differ from process to process, and are not seen."""
    code = "import test_drawing as t; [print(t.hp.draw(make()).dot()) for make in t.GRAPHS.values()]"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(DRAWINGS.parent), "PYTHONUTF8": "1"},
        capture_output=True,
        timeout=100,
        check=True,
    )
    assert done.stdout.decode() == "".join(hp.draw(make()).dot() + "\n" for make in GRAPHS.values())


# --- hostile keys

PIECES = st.sampled_from(
    [
        *"\"'`#&<>()[]{}|\\/;:$%*_~^@!?=+-.,\n\r\t\0\x7f\x85\u2028\u202e\ud800\ufeff",
        *(
            "<br/>",
            "</text>",
            "<script>",
            "&amp;",
            "&#34;",
            "#quot;",
            "\\n",
            "\\N",
            "\\G",
            "%%",
            "%%{init",
            "$$",
            "-->",
        ),
        *("end", "subgraph", "style a:#b;", "ﬂ°°34¶ß", "fa:fa-car", "1. a", "- a", "é", "e\u0301", "日本", "😀", "  "),
    ]
)
TEXTS = st.lists(PIECES, max_size=8).map("".join) | st.text(max_size=20)
KEYS = st.recursive(
    TEXTS | st.integers() | st.floats(allow_nan=False) | st.none() | st.binary(max_size=5),
    lambda keys: st.lists(keys, max_size=3) | st.dictionaries(TEXTS, keys, max_size=3),
    max_leaves=6,
)


def drawing_of(keys: list[Any], name: str) -> Drawing:
    """Two nodes for each key, and the route between them, whose output has it for a name."""

    def choose(value: Any) -> Any:
        return value

    choose.__qualname__ = name
    topology = hp.Topology()
    for key in dict.fromkeys(map(hp.freeze, keys)):
        route = ("route", key)
        nodes = {("n", key): hp.source([]), route: hp.route(choose, ("n", key))}
        topology = topology.update({**nodes, ("out", key): hp.collect(hp.output(route, key))})
    return hp.draw(topology)


@needs_dot
@given(st.lists(KEYS, min_size=1, max_size=8), TEXTS)
def test_graphviz_shows_whatever_is_in_a_key(keys: list[Any], name: str) -> None:
    """No key and no name of a function is markup: the picture says what they say."""
    drawing = drawing_of(keys, name)
    root = ElementTree.fromstring(dot("svg", drawing.dot()))
    texts = Counter(squeezed(each.text or "") for each in root.iter("{http://www.w3.org/2000/svg}text"))
    said = [text for box in drawing.boxes for text in (box.title, box.note)]
    assert texts == Counter(map(squeezed, [*said, *[arrow.label for arrow in drawing.arrows if arrow.output]]))


def squeezed(text: str) -> str:
    """The same, with spaces as pictures show them."""
    return " ".join(text.split())


@given(st.lists(KEYS, min_size=1, max_size=8), TEXTS)
def test_mermaid_shows_whatever_is_in_a_key(keys: list[Any], name: str) -> None:
    """No key and no name of a function is markup."""
    drawing = drawing_of(keys, name)
    shown = seen_in_mermaid(drawing.mermaid())
    assert shown.nodes == sorted(box.title for box in drawing.boxes)
    assert shown.links == Counter(
        (drawing.boxes[arrow.writer].title, drawing.boxes[arrow.reader].title, arrow.label) for arrow in drawing.arrows
    )


@pytest.mark.parametrize("text", ["\\n", "$$", "fa:fa-car", "ﬂ°", "¶ß"])
def test_mermaid_does_not_read_a_label_twice(text: str) -> None:
    """What Mermaid looks for in labels after it has read their entities is taken apart, in a way that is not seen."""
    label = drawing_of([text], "choose").mermaid().split("\n")[1]
    assert text not in html.unescape(label.replace("#", "&#"))
    (title,) = seen_in_mermaid(f"flowchart TD\n{label}\n").nodes
    assert title == canonical(("n", text))


@given(st.lists(KEYS, min_size=1, max_size=8), TEXTS, st.integers(1, 100))
def test_a_tree_has_one_line_for_each_node_whatever_is_in_a_key(keys: list[Any], name: str, width: int) -> None:
    """Nothing in a key moves the cursor."""
    drawing = drawing_of(keys, name)
    lines = drawing.tree(width).split("\n")
    assert len(lines) == len(drawing.boxes)
    assert "".join(lines).isprintable()


# --- pictures and files


@needs_dot
def test_a_picture_is_made_by_graphviz() -> None:
    """SVG is XML with all labels in it, PNG a picture."""
    drawing = hp.draw(payments())
    texts = [each.text for each in ElementTree.fromstring(drawing.svg()).iter("{http://www.w3.org/2000/svg}text")]
    assert Counter(texts) >= Counter([part for box in drawing.boxes for part in (box.title, box.note)])
    picture = drawing.png()
    assert picture.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", picture[16:24])
    assert min(width, height) > 300


@pytest.mark.parametrize(("name", "form"), [("a.txt", "txt"), ("a.b.mmd", "mmd"), ("A.DOT", "dot")])
def test_a_drawing_is_saved_in_the_form_that_the_name_says(name: str, form: str, tmp_path: Path) -> None:
    """The end of the name decides, in any case of letters."""
    drawing = hp.draw(hostile())
    drawing.save(tmp_path / name)
    assert (tmp_path / name).read_bytes().decode().rstrip("\n") == FORMS[form](drawing).rstrip("\n")


@needs_dot
def test_a_picture_is_saved_in_the_form_that_the_name_says(tmp_path: Path) -> None:
    """A path may be a text too."""
    hp.draw(payments()).save(str(tmp_path / "a.svg"))
    hp.draw(payments()).save(tmp_path / "a.png")
    assert (tmp_path / "a.svg").read_text() == hp.draw(payments()).svg()
    assert (tmp_path / "a.png").read_bytes() == hp.draw(payments()).png()


@pytest.mark.parametrize("name", ["a", "a.jpeg", ".svg"])
def test_a_name_that_says_no_form_is_refused(name: str, tmp_path: Path) -> None:
    """The error lists the forms there are."""
    with pytest.raises(hp.UsageError, match=r"is to end in one of \.txt, \.mmd, \.dot, \.svg, \.png"):
        hp.draw(payments()).save(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("form", ["svg", "png"])
def test_without_graphviz_the_error_says_how_to_get_it(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pictures need a program; nothing else does."""
    monkeypatch.setenv("PATH", str(tmp_path))
    drawing = hp.draw(payments())
    with pytest.raises(hp.UsageError, match="`apt install graphviz`"):
        getattr(drawing, form)()
    with pytest.raises(hp.UsageError, match="not on PATH"):
        drawing.save(tmp_path / f"a.{form}")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Have another program called `dot`, a shell script, found first."""

    def be(script: str) -> None:
        path = tmp_path / "dot"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    return be


def test_graphviz_is_not_waited_for_without_end(
    program: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A graph that is too large to be laid out ends in an error."""
    program("exec sleep 100")
    monkeypatch.setattr(module, "DOT_TIMEOUT_S", 0.1)
    with pytest.raises(TimeoutError, match=r"drew no svg of 17 nodes within 0\.1 s"):
        hp.draw(payments()).svg()


def test_what_graphviz_complains_about_is_told(program: Callable[[str], None]) -> None:
    """A program that fails says why."""
    program("cat >/dev/null; echo no such thing >&2; exit 3")
    with pytest.raises(hp.HotplumbError, match="drew no png, and ended with 3: no such thing"):
        hp.draw(payments()).png()


# --- notebooks


@needs_dot
def test_a_notebook_shows_the_picture() -> None:
    """What JupyterLab prefers among text, Mermaid and SVG is its choice."""
    drawing = hp.draw(payments())
    assert drawing._repr_mimebundle_(include=None, exclude=None) == {
        "text/plain": drawing.tree(),
        "text/vnd.mermaid": drawing.mermaid(),
        "image/svg+xml": drawing.svg(),
    }


@pytest.mark.timeout(20)
@pytest.mark.parametrize("script", ["exec sleep 100", "exit 1"])
def test_a_notebook_does_without_graphviz(
    script: str, program: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where Graphviz fails or takes long, the other forms are shown."""
    program(script)
    monkeypatch.setattr(module, "NOTEBOOK_TIMEOUT_S", 0.1)
    assert list(hp.draw(payments())._repr_mimebundle_()) == ["text/plain", "text/vnd.mermaid"]


def test_a_notebook_needs_no_graphviz(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is not installed, the other forms are shown."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert list(hp.draw(payments())._repr_mimebundle_()) == ["text/plain", "text/vnd.mermaid"]


@pytest.mark.parametrize("make", [payments, pipeline])
def test_a_notebook_shows_a_graph_as_its_drawing(
    make: Callable[[], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cell that ends with a topology or a pipeline shows what it looks like."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert make()._repr_mimebundle_(include=None, exclude=None) == hp.draw(make())._repr_mimebundle_()


def test_a_notebook_shows_a_large_graph_as_text() -> None:
    """A picture of hundreds of nodes would take long, and show nothing."""
    nodes: dict[Any, hp.Node] = {i: hp.collect("n") for i in range(module.MOST_IN_NOTEBOOK)}
    topology: Any = hp.Topology().update({"n": hp.source([]), **nodes})
    assert topology._repr_mimebundle_() == {"text/plain": repr(topology)}
    assert hp.draw(topology)._repr_mimebundle_() == {"text/plain": hp.draw(topology).tree()}
    chain: Any = functools.reduce(operator.or_, [hp.map(parse).named(i) for i in range(module.MOST_IN_NOTEBOOK + 1)])
    assert chain._repr_mimebundle_() == {"text/plain": repr(chain)}


if __name__ == "__main__":
    for file in FILES:
        save(file, DRAWINGS)


@pytest.mark.parametrize("branch", [hp.map(str), [hp.map(str), hp.collect()], {"a": hp.collect()}])
def test_whatever_makes_a_pipeline_is_drawn(branch: Any) -> None:
    """As `hp.run` takes it, so does `hp.draw`."""
    assert str(hp.draw(branch)) == str(hp.draw(hp.broadcast(*branch) if isinstance(branch, list) else branch))
    assert "■" in str(hp.draw(branch)) or "(open)" in str(hp.draw(branch))


def test_branches_are_drawn_in_the_order_in_which_they_were_written() -> None:
    """A long one keeps the column of what it hangs on only as the last, and never behind the name of an output."""
    route = hp.route(lambda n: "a").named("r")
    long, short = hp.map(str).named("a") | hp.collect().named("out"), hp.collect().named("b")
    assert str(hp.draw(hp.source([1]) | route | {"a": long, "b": short})).splitlines()[2:] == [
        '├─ "a": ○ "a"  map str',
        '│  ■ "out"  collect',
        '└─ "b": ■ "b"  collect',
    ]
    assert str(hp.draw(hp.source([1]) | [long, short])).splitlines()[1:] == [
        '├─ ○ "a"  map str',
        '│  ■ "out"  collect',
        '└─ ■ "b"  collect',
    ]
    assert str(hp.draw(hp.source([1]) | [short, long])).splitlines()[1:] == [
        '├─ ■ "b"  collect',
        '○ "a"  map str',
        '■ "out"  collect',
    ]
