"""The command `hotplumb`."""

from __future__ import annotations

import argparse
import asyncio
import math
import signal
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

import structlog

from hotplumb.errors import NodeError

SHORTEST_S = 0.001  # a thousand samples a second is more than counters like these can tell apart
INTERRUPTED = 128 + signal.SIGINT  # what shells expect of a program that Ctrl-C has ended

DEMO = """\
Read this machine's CPU, memory, disk and network counters, sum them up over windows of time, pair the sums, and show
all of it in a live table, each row with the trail of its latest item.  Into a pipe or a file it prints JSON lines.

While it runs, the graph behind it can be changed, by --rewire-after or by a key: the roll-ups make place for others,
of windows twice as long, and then for such as before.
"""

EXAMPLES = """\
examples:
  hotplumb demo --seconds 20                  a table, for 20 seconds
  hotplumb demo --rewire-after 3              another graph every 3 seconds
  hotplumb demo --every 0.1 --rollup 1        more samples, shorter windows
  hotplumb demo | jq -c '[.key, .value]'      JSON lines, for another program

keys, where there is a table:
  r                                           change the graph now
  q                                           end

However it ends, by itself, with q, Ctrl-C or SIGTERM, what it has read until then is still summed up and shown; a
second Ctrl-C ends it at once.  The last line counts, from the numbers and trails of all that was shown:

  lost      samples that were read but not shown, or are in no window of a roll-up
  doubled   samples that were shown twice, or are in two windows
  mixed     samples of which something met the graph both before and after one change

and the exit code is 1 where one of these is not 0.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with these arguments, by default those of the process; gives the exit code."""
    options = _parser().parse_args(arguments)
    _log_to_stderr()
    try:
        return _demo(options)
    except KeyboardInterrupt:  # while the demo does not listen to signals yet, or no more
        return INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("hotplumb", description="Dataflow for asyncio, rewired while it runs.")
    parser.add_argument("--version", action="version", version=f"hotplumb {_version()}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    demo = commands.add_parser(
        "demo",
        help="show this machine's counters in a live table",
        description=DEMO,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    demo.add_argument(
        "--seconds", type=_seconds, metavar="N", help="end after N seconds (default: with a key or Ctrl-C)"
    )
    demo.add_argument("--every", type=_seconds, metavar="N", default=0.5, help="sample every N seconds (default: 0.5)")
    demo.add_argument("--rollup", type=_seconds, metavar="N", default=2, help="windows of N seconds (default: 2)")
    demo.add_argument(
        "--rewire-after", type=_seconds, metavar="N", help="change the graph every N seconds (default: with a key)"
    )
    demo.add_argument("--json", action="store_true", help="print JSON lines in a terminal too")
    demo.set_defaults(refuse=demo.error)
    return parser


def _version() -> str:
    try:
        return version("hotplumb")
    except PackageNotFoundError:
        return "(not installed)"


def _seconds(text: str) -> float:
    """A number of seconds; a whole one as an int, which reads better in keys."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not SHORTEST_S <= seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no finite number of seconds of at least {SHORTEST_S}")
    return int(seconds) if seconds.is_integer() else seconds


def _log_to_stderr() -> None:
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.format_exc_info,
            structlog.dev.ConsoleRenderer(colors=False),
        ],
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),  # what it is by then: a live table replaces it
    )


def _demo(options: argparse.Namespace) -> int:
    is_json = options.json or not sys.stdout.isatty()
    try:
        import psutil  # noqa: F401

        if not is_json:
            import rich  # noqa: F401
    except ImportError as exc:
        options.refuse(f"{exc.name} is missing: pip install 'hotplumb[demo]'")
    from hotplumb.demo.running import Settings, demo

    settings = Settings(options.rollup, options.every, options.seconds, options.rewire_after)
    try:
        ended = asyncio.run(demo(settings, is_json))
    except NodeError as exc:
        if not isinstance(exc.__cause__, OSError):
            raise
        print(f"hotplumb demo: error: {exc.__cause__}", file=sys.stderr)  # the disk is full, for one
        return 1
    print(f"hotplumb demo: {ended}", file=sys.stderr)
    if not ended.is_well:
        return 1
    return INTERRUPTED if ended.signal == signal.SIGINT else 0
