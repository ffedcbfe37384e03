"""Drawings: a graph as a tree for terminals, as Mermaid text, and by Graphviz.

    draw(graph)    takes down what there is to see: a box for each node, an arrow for each key that a node reads
    Drawing        shows that: tree, mermaid, dot, svg, png

A drawing is a value, and the same in every process: sources come first, then each node when all that it reads has come.
What is in keys and names is only ever text, whatever characters it holds.

In a tree, each node stands below the one that all its values come through (its immediate dominator; Cooper, Harvey and
Kennedy, "A Simple, Fast Dominance Algorithm", 2001).  Branches are indented, and where they meet again the tree goes on
in the column that they left; a chain keeps its column.  A node reads the one above it in its column, or the one that it
branches off from; where that is not all, what it reads is written out.
"""

from __future__ import annotations

import functools
import re
import shutil
import subprocess
import unicodedata
from bisect import bisect_right
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import suppress
from itertools import accumulate
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import attrs

from hotplumb.compose import Branch, Pipeline, drawable
from hotplumb.errors import CycleError, HotplumbError, UsageError
from hotplumb.keys import AllErrors, Errors, Key, Output, canonical, key_order
from hotplumb.nodes import Kind, Node
from hotplumb.topology import Pictured, Topology, node_key

LONGEST_KEY = 60  # characters of a key that are shown; of a longer one its beginning and its end
LONGEST_NAME = 30  # of an output's name, and of a function's
DOT_TIMEOUT_S = 60.0  # some thousand nodes take Graphviz this long
NOTEBOOK_TIMEOUT_S = 5.0  # a notebook shows a graph unasked, so it must not wait
MOST_IN_NOTEBOOK = 200  # nodes: a picture of more is no picture

_HOW_TO_INSTALL = (
    "which is not on PATH: `apt install graphviz`, `brew install graphviz`, `winget install graphviz`, or "
    "`conda install graphviz`.  .tree() and .mermaid() need nothing"
)

_MARKS: dict[str, str] = {
    "source": "▷",
    "errors": "!",
    "elsewhere": "▷",
    "route": "◇",
    "stateful": "●",
    "process": "◉",
    "sink": "■",
    "collect": "■",
}
_MERMAID_SHAPES: dict[str, tuple[str, str]] = {
    "source": ("([", "])"),
    "errors": ("([", "])"),
    "route": ("{{", "}}"),
    "merge": ("[\\", "/]"),
    "stateful": ("[(", ")]"),
    "process": ("[/", "/]"),
    "sink": ("[[", "]]"),
    "collect": ("[[", "]]"),
}
_DOT_SHAPES: dict[str, str] = {
    "source": "shape=ellipse",
    "errors": "shape=ellipse style=dashed",
    "elsewhere": "shape=plain",
    "route": "shape=hexagon",
    "merge": "shape=invtrapezium",
    "stateful": "shape=cylinder",
    "process": "shape=component",
    "sink": "shape=box peripheries=2",
    "collect": "shape=box peripheries=2",
}


@attrs.frozen
class Box:
    """A node as it is drawn."""

    key: str
    """The canonical text of its key."""
    kind: Kind | Literal["elsewhere"]
    function: str = ""
    """The name of its function; empty where it has none."""
    epoch: int = 0
    """The change that last touched it; 0 is none."""
    is_open: bool = False
    """Whether it still lacks something to read."""

    @property
    def title(self) -> str:
        """Its key, shortened."""
        return _shortened(self.key, LONGEST_KEY)

    @property
    def note(self) -> str:
        """What it does, "map parse", and the epoch of the change that last touched it."""
        kind = "error stream" if self.kind == "errors" else self.kind
        epoch = f"(epoch {self.epoch})" if self.epoch else ""
        return " ".join(filter(None, [kind, _shortened(self.function, LONGEST_NAME), epoch]))


@attrs.frozen
class Arrow:
    """A key that a node reads, as it is drawn; or the way that failures take out of a node."""

    writer: int
    """The place of its writer among the boxes."""
    reader: int
    """The place of its reader among the boxes."""
    output: str = ""
    """The name of the route's output that is read; empty for a whole node."""

    @property
    def label(self) -> str:
        """The name of the output, shortened."""
        return _shortened(self.output, LONGEST_NAME)


@attrs.frozen(repr=False)
class Drawing:
    """A graph to look at, as `hp.draw` gives it: `print` shows the tree, a notebook the picture."""

    boxes: tuple[Box, ...]
    """The nodes, each after what it reads."""
    arrows: tuple[Arrow, ...]
    """The links: one for each key that a node reads."""
    failures: tuple[Arrow, ...] = ()
    """From nodes to their error streams."""

    def tree(self, width: int | None = None) -> str:
        """Return it as lines for a terminal, from the sources down.

        They are cut off after `width` columns, at least 1.  The signs::

            ▷ source    ◇ route    ● stateful    ◉ process    ○ any other    ■ sink    ! error stream
            name:       the output of the route above that is read
            ← keys      what is read, where that is not just the node above

        Raises:
            UsageError: there are no columns.
        """
        if width is not None and width < 1:
            raise UsageError(f"tree({width!r}): give the number of columns, at least 1")
        lines = list(_Tree(self).lines()) or [("", "(no node is active)")]
        return "\n".join(_line(before, text, width) for before, text in lines)

    def mermaid(self) -> str:
        """Return it as the text of a Mermaid flowchart, which GitHub, GitLab and JupyterLab show as a picture."""
        lines = ["flowchart TD"]
        for i, box in enumerate(self.boxes):
            start, end = _MERMAID_SHAPES.get(box.kind, ("[", "]"))
            lines.append(f'    n{i}{start}"{_in_mermaid(box.title)}<br/>{_in_mermaid(box.note)}"{end}')
        for arrow in (*self.arrows, *self.failures):
            line = "-.->" if self._is_dashed(arrow) else "-->"
            label = f'|"{_in_mermaid(arrow.label)}"|' if arrow.output else ""
            lines.append(f"    n{arrow.writer} {line}{label} n{arrow.reader}")
        for i, box in enumerate(self.boxes):
            if box.kind == "errors":
                lines.append(f"    style n{i} stroke-dasharray: 4 3")
        return "\n".join([*lines, ""])

    def dot(self) -> str:
        """Return it as text in Graphviz's language.  Tooltips hold keys that are shortened in the picture whole."""
        lines = [
            "digraph hotplumb {",
            "    graph [ordering=out];",  # what reads a node, from left to right as in the text
            '    node [fontname="Helvetica,Arial,sans-serif" fontsize=11];',
            '    edge [fontname="Helvetica,Arial,sans-serif" fontsize=9 arrowsize=0.7];',
        ]
        for i, box in enumerate(self.boxes):
            label = f"{_in_dot(box.title)}\\n{_in_dot(box.note)}"
            shape = _DOT_SHAPES.get(box.kind, "shape=box style=rounded")
            lines.append(f'    n{i} [label="{label}" tooltip="{_in_dot(box.key)}" {shape}];')
        for arrow in (*self.arrows, *self.failures):
            options = [f'label="{_in_dot(arrow.label)}"'] if arrow.output else []
            options += ["style=dashed"] if self._is_dashed(arrow) else []
            lines.append(f"    n{arrow.writer} -> n{arrow.reader}" + (f" [{' '.join(options)}];" if options else ";"))
        return "\n".join([*lines, "}", ""])

    def svg(self) -> str:
        """Return it as an SVG picture, made by Graphviz's program `dot`.

        Raises:
            UsageError: there is no such program here.
            TimeoutError: it took longer than a minute.
        """
        return self._rendered("svg", DOT_TIMEOUT_S).decode()

    def png(self) -> bytes:
        """Return it as a PNG picture; as `svg`."""
        return self._rendered("png", DOT_TIMEOUT_S)

    def save(self, path: str | PathLike[str]) -> None:
        """Write it to a file, in the form that the name ends in: .txt (the tree), .mmd, .dot, .svg or .png.

        Raises:
            UsageError: the name ends otherwise; or as for `svg`.
        """
        forms: dict[str, Callable[[], str | bytes]] = {
            ".txt": lambda: f"{self.tree()}\n",
            ".mmd": self.mermaid,
            ".dot": self.dot,
            ".svg": self.svg,
            ".png": self.png,
        }
        form = forms.get(Path(path).suffix.lower())
        if form is None:
            raise UsageError(f"save({str(path)!r}): the name is to end in one of {', '.join(forms)}")
        drawn = form()
        Path(path).write_bytes(drawn.encode() if isinstance(drawn, str) else drawn)

    def __repr__(self) -> str:
        """The tree, cut to the terminal where there is one."""
        columns = shutil.get_terminal_size((0, 0)).columns
        return self.tree(columns or None)

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        """What a notebook shows: the picture that it prefers."""
        shown = {"text/plain": self.tree()}
        if len(self.boxes) > MOST_IN_NOTEBOOK:
            return shown
        shown["text/vnd.mermaid"] = self.mermaid()
        with suppress(HotplumbError, OSError):  # without Graphviz, or where it takes long, do without
            shown["image/svg+xml"] = self._rendered("svg", NOTEBOOK_TIMEOUT_S).decode()
        return shown

    def _is_dashed(self, arrow: Arrow) -> bool:
        return "errors" in (self.boxes[arrow.writer].kind, self.boxes[arrow.reader].kind)

    def _rendered(self, form: Literal["svg", "png"], timeout_s: float) -> bytes:
        program = shutil.which("dot")
        if program is None:
            raise UsageError(f".{form}() is made by Graphviz's program `dot`, {_HOW_TO_INSTALL}")
        try:
            done = subprocess.run(
                [program, f"-T{form}"], input=self.dot().encode(), capture_output=True, timeout=timeout_s, check=True
            )
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"Graphviz drew no {form} of {len(self.boxes)} nodes within {timeout_s:g} s") from None
        except subprocess.CalledProcessError as exc:
            told = exc.stderr.decode(errors="replace").strip()
            raise HotplumbError(f"Graphviz drew no {form}, and ended with {exc.returncode}: {told}") from None
        return done.stdout


def draw(graph: Topology | Branch) -> Drawing:
    """Take down what a graph looks like: the nodes that are active, or all of a pipeline, and what each reads.

    The topology of a running graph, `plumbing.topology`, is shown with the epochs of the changes that touched its
    nodes.

    >>> import hotplumb as hp
    >>> topology = (hp.Topology()
    ...     .add("n", hp.source([1, 2, 3]))
    ...     .add("parity", hp.route(lambda n: "odd" if n % 2 else "even", "n"))
    ...     .add("half", hp.map(lambda n: n / 2, hp.output("parity", "even")))
    ...     .add("out", hp.collect("half", hp.output("parity", "odd"))))
    >>> hp.draw(topology)
    ▷ "n"  source list
    ◇ "parity"  route <lambda>
    ├─ "even": ○ "half"  map <lambda>
    ■ "out"  collect  ← "half", "parity"["odd"]

    Raises:
        CycleError: nodes of a pipeline read each other by key.
        UsageError: `graph` is neither.
    """
    match drawable(graph):
        case Topology() as topology:
            active = topology.active
            return _drawn({key: active[key] for key in sorted(active, key=_errors_last)}, topology.epoch_of)
        case Pipeline() as pipeline:
            return _drawn(dict(pipeline.nodes()), lambda key: 0)
    raise UsageError(f"draw({graph!r}): give a hotplumb.Topology or a pipeline")


def _errors_last(key: Key) -> tuple[bool, str]:
    return isinstance(key, Errors | AllErrors), key_order(key)


def _drawn(nodes: dict[Key, Node], epoch_of: Callable[[Key], int]) -> Drawing:
    reads = {key: node.reads for key, node in nodes.items()}
    reads |= {node_key(read): () for node in nodes.values() for read in node.reads if node_key(read) not in nodes}
    places = {key: place for place, key in enumerate(_upstream_first(reads))}
    if len(places) < len(reads):
        raise CycleError(_cycle(reads, places), "let one of them read something else")
    boxes = tuple(_box(key, nodes[key], epoch_of(key)) if key in nodes else _box_elsewhere(key) for key in places)
    arrows = tuple(_arrow(read, places[key], places) for key in places for read in reads[key])
    failures = tuple(
        Arrow(places[key.key], place) for key, place in places.items() if isinstance(key, Errors) and key.key in places
    )
    return Drawing(boxes, arrows, failures)


def _box(key: Key, node: Node, epoch: int) -> Box:
    is_open = not (node.is_source or node.reads)
    return Box(_printable(canonical(key)), node.kind, _printable(_name_of(node.fn)), epoch, is_open)


def _box_elsewhere(key: Key) -> Box:
    """What a pipeline reads that is not of its own."""
    return Box(_printable(canonical(key)), "errors" if isinstance(key, Errors | AllErrors) else "elsewhere")


def _arrow(read: Key, reader: int, places: Mapping[Key, int]) -> Arrow:
    output = _printable(canonical(read.name)) if isinstance(read, Output) else ""
    return Arrow(places[node_key(read)], reader, output)


def _upstream_first(reads: dict[Key, tuple[Key, ...]]) -> list[Key]:
    """The keys, each as soon as all that it reads has come, else in the order given."""
    readers: dict[Key, list[Key]] = {key: [] for key in reads}  # as often as they read it
    missing: dict[Key, int] = {}  # {key: how much of what it reads is still to come}
    for key, read_here in reads.items():
        missing[key] = len(read_here)
        for read in read_here:
            readers[node_key(read)].append(key)
    ready = [key for key in reversed(reads) if not missing[key]]  # a stack
    ordered = []
    while ready:
        ordered.append(key := ready.pop())
        for reader in reversed(readers[key]):
            missing[reader] -= 1
            if not missing[reader]:
                ready.append(reader)
    return ordered


def _cycle(reads: Mapping[Key, tuple[Key, ...]], ordered: Container[Key]) -> list[Key]:
    """The keys on a cycle, from one down to itself: each that could not be ordered reads another one."""
    key = next(key for key in reads if key not in ordered)
    way: dict[Key, None] = {}  # upwards
    while key not in way:
        way[key] = None
        key = next(above for above in map(node_key, reads[key]) if above not in ordered)
    keys = [*way]
    return [key, *reversed(keys[keys.index(key) :])]


# ---- text


def _name_of(fn: Any) -> str:
    """A short name for a function, or for what a source iterates; the same in every process."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    if fn is None:
        return ""
    name = getattr(fn, "__qualname__", None)
    return (name if isinstance(name, str) else type(fn).__qualname__).rpartition("<locals>.")[2]


def _printable(text: str) -> str:
    """The same, with escapes for what would end a line, or show nothing."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def key_text(key: Key) -> str:
    """The canonical text of a key on one line, shortened if it is long."""
    return _shortened(_printable(canonical(key)), LONGEST_KEY)


def _shortened(text: str, longest: int) -> str:
    """Its beginning and its end."""
    if len(text) <= longest:
        return text
    return f"{text[: longest // 2]}…{text[len(text) - (longest - 1) // 2 :]}"


# Written as they are: what neither Mermaid, nor the Markdown and HTML in its labels, takes for its own.
_SPECIAL_IN_MERMAID = re.compile(r"[^\w ,.()\[\]='/?!+-]|\b_|_\b")
# What it takes for a line break, a formula, an icon and a mark of its own even where it is written by entities; each
# is taken apart by a space of no width.
_READ_AGAIN_BY_MERMAID = re.compile(r"\\(?=n)|\$(?=\$)|:(?=fa-)|ﬂ(?=°)|¶(?=ß)")


def _in_mermaid(text: str) -> str:
    """What Mermaid shows as `text`."""
    apart = _READ_AGAIN_BY_MERMAID.sub("\\g<0>\u200b", text)
    return _SPECIAL_IN_MERMAID.sub(lambda found: "#quot;" if found[0] == '"' else f"#{ord(found[0])};", apart)


def _in_dot(text: str) -> str:
    """What Graphviz shows as `text`: it knows escapes, and entities of HTML."""
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("&", "&amp;")


def columns(text: str) -> int:
    """How many columns of a terminal a text takes."""
    return sum(map(_columns, text))


def _columns(character: str) -> int:
    return 0 if unicodedata.combining(character) else 1 + (unicodedata.east_asian_width(character) in "WF")


def _cut(text: str, width: int) -> str:
    """As much of it as fits."""
    columns = list(accumulate(map(_columns, text)))  # taken up to and with each character
    return text if not text or columns[-1] <= width else f"{text[: bisect_right(columns, width - 1)]}…"


def _line(before: str, text: str, width: int | None) -> str:
    """A line of the tree; of a deep indentation, only its end."""
    if width is None:
        return before + text
    if len(before) > width // 2:
        before = f"…{before[len(before) - width // 2 + 1 :]}"
    return _cut(before + text, width)


# ---- the tree


class _Tree:
    """The lines of a tree, each as what stands before it and what it says."""

    def __init__(self, drawing: Drawing) -> None:
        self._boxes = drawing.boxes
        self._reads: list[list[Arrow]] = [[] for _ in drawing.boxes]  # of each box
        for arrow in drawing.arrows:
            self._reads[arrow.reader].append(arrow)
        self._above = self._dominators()  # -1 where there is none
        self._below: dict[int, list[int]] = {}  # {box, or -1: those that stand below it}
        for box, above in enumerate(self._above):
            self._below.setdefault(above, []).append(box)

    def _dominators(self) -> list[int]:
        """For each box, the nearest that all its values come through."""
        above: list[int] = []
        for reads in self._reads:
            nearest = reads[0].writer if reads else -1
            for arrow in reads[1:]:
                other = arrow.writer
                while nearest != other:
                    if nearest < other:
                        nearest, other = other, nearest
                    nearest = above[nearest]
            above.append(nearest)
        return above

    def lines(self) -> Iterator[tuple[str, str]]:
        todo = [(box, "", "") for box in reversed(self._below.get(-1, []))]  # a stack: chains may be long
        while todo:
            box, before, indent = todo.pop()
            yield before, self._text(box)
            todo += reversed(list(self._branches(box, indent)))

    def _branches(self, box: int, indent: str) -> Iterator[tuple[int, str, str]]:
        """What stands below a box, and what comes before its first line and before those below that."""
        below = self._below.get(box, [])
        goes_on = self._going_on(box, below)
        branches = [each for each in below if each not in goes_on]
        for i, branch in enumerate(branches, 1):
            is_last = i == len(below)
            yield branch, indent + ("└─ " if is_last else "├─ "), indent + ("   " if is_last else "│  ")
        for each in below:
            if each in goes_on:
                yield each, indent, indent

    def _going_on(self, box: int, below: list[int]) -> set[int]:
        """What keeps the column of a box: where branches meet, else the last, if only that is longer than a line."""
        meets = {each for each in below if not self._reads_only(each, box)}
        if meets or len(below) == 1:
            return meets or set(below)
        long = [each for each in below if each in self._below]
        is_output = any(arrow.output for each in long for arrow in self._reads[each])
        return set(long) if long == below[-1:] and not is_output else set()

    def _reads_only(self, reader: int, writer: int) -> bool:
        return all(arrow.writer == writer for arrow in self._reads[reader])

    def _text(self, i: int) -> str:
        box, reads = self._boxes[i], self._reads[i]
        text = f"{_MARKS.get(box.kind, '○')} {box.title}  {box.note}"
        if box.is_open:
            return f"{text}  ← (open)"
        outputs = [arrow.label for arrow in reads if arrow.output]
        if not self._reads_only(i, self._above[i]) or (outputs and len(outputs) < len(reads)):
            return f"{text}  ← {', '.join(map(self._read_text, reads))}"
        return f"{', '.join(outputs)}: {text}" if outputs else text

    def _read_text(self, arrow: Arrow) -> str:
        title = self._boxes[arrow.writer].title
        return f"{title}[{arrow.label}]" if arrow.output else title


# ---- notebooks


def _pictures(graph: Topology | Pipeline) -> dict[str, str]:
    """What a notebook shows of a graph: its drawing, where that is to be taken in."""
    if len(graph.active if isinstance(graph, Topology) else graph.nodes()) > MOST_IN_NOTEBOOK:
        return {"text/plain": repr(graph)}
    return draw(graph)._repr_mimebundle_()


Pictured._pictures = _pictures
