"""The command `hotplumb`, run as its users run it: in a terminal, into a pipe, and ended in every way."""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import struct
import subprocess
import sys
import termios
from collections import defaultdict
from pathlib import Path
from typing import IO, Any

import pexpect
import pytest

from hotplumb.cli import main
from hotplumb.demo.graph import wanted
from hotplumb.keys import canonical

PROGRAM = [sys.executable, "-W", "error", "-m", "hotplumb"]
LONG_S = 60  # for what takes a second when all is well
COUNTED = re.compile(r"hotplumb demo: (\d+) samples read, (\d+) rows shown, (\d+) changes?: 0 lost, 0 doubled, 0 mixed")
CHANGED = re.compile(
    r"hotplumb demo: change (\d+): roll-ups of (\S+) s -> (\S+) s, region of (\d+) nodes, \S+ ms: (.*)"
)
ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")},
    "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]),
    "TERM": "xterm-256color",
}


CALL = "import sys; {}; from hotplumb.cli import main; sys.exit(main({}))"


def ran(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the command to its end, into pipes."""
    return subprocess.run(
        [*PROGRAM, *arguments], env=ENVIRONMENT, capture_output=True, text=True, timeout=LONG_S, check=False, **options
    )


def ran_with(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `main` in a process where `code` has run before."""
    return subprocess.run(
        [sys.executable, "-c", CALL.format(code, list(arguments))],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=LONG_S,
        check=False,
    )


def started(*arguments: str) -> subprocess.Popen[str]:
    """Start the command, and return when it has printed its first line."""
    program = subprocess.Popen(
        [*PROGRAM, *arguments], env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert program.stdout is not None
    assert program.stdout.readline()
    return program


def rest_of(program: subprocess.Popen[str]) -> tuple[str, str]:
    """What a program still prints until it ends: output and errors."""
    with program:
        assert program.stdout is not None
        assert program.stderr is not None
        return program.stdout.read(), program.stderr.read()


def unread_bytes(pipe: IO[str]) -> int:
    """How much there is in a pipe."""
    (count,) = struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, b"    "))
    return int(count)


def in_terminal(*arguments: str, **environment: str) -> pexpect.spawn[str]:
    """Start the command in a terminal of 24 lines with 130 columns."""
    return spawned([*PROGRAM, *arguments], **environment)


def in_shell(script: str) -> pexpect.spawn[str]:
    """Have bash run a script in such a terminal, where `demo` is the program."""
    return spawned(["bash", "-c", script.replace("demo", f"{' '.join(PROGRAM)} demo")])


def in_python(*code: str, command: str) -> pexpect.spawn[str]:
    """Run a command in such a terminal, in a process where `code` has run before."""
    return spawned([sys.executable, "-c", CALL.format("; ".join(code), command.split())])


def spawned(command: list[str], **environment: str) -> pexpect.spawn[str]:
    return pexpect.spawn(
        command[0],
        command[1:],
        env={**ENVIRONMENT, **environment},
        dimensions=(24, 130),
        encoding="utf-8",
        timeout=LONG_S,
    )


def end_of(child: pexpect.spawn[str]) -> str:
    """What a program in a terminal still prints, without colours and movements of the cursor."""
    child.expect(pexpect.EOF)
    child.close()
    assert isinstance(child.before, str)
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", child.before)


def gives_lines(child: pexpect.spawn[str]) -> bool:
    """Whether its terminal waits for the return key, and shows what is typed, as shells want it."""
    modes = termios.tcgetattr(child.child_fd)[3]
    return bool(modes & termios.ICANON) and bool(modes & termios.ECHO)


# -- into a pipe


@pytest.fixture(scope="module")
def piped() -> subprocess.CompletedProcess[str]:
    """A run of 1.3 seconds: thirteen samples of each metric or so, windows of half a second."""
    return ran("demo", "--seconds", "1.3", "--every", "0.1", "--rollup", "0.5")


@pytest.fixture(scope="module")
def lines(piped: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    return [json.loads(text) for text in piped.stdout.splitlines()]


@pytest.fixture(scope="module")
def by_key(lines: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """{canonical text of a key: its lines}"""
    found = defaultdict(list)
    for line in lines:
        found[canonical(line["key"])].append(line)
    return found


def test_it_ends_by_itself_and_says_what_it_did(
    piped: subprocess.CompletedProcess[str], lines: list[dict[str, Any]]
) -> None:
    """All that is on standard error is one line of numbers; as many rows were shown as it says."""
    assert piped.returncode == 0
    counted = COUNTED.fullmatch(piped.stderr.strip())
    assert counted, piped.stderr
    assert (int(counted[2]), int(counted[3])) == (len(lines), 0)
    assert 3 * 3 <= int(counted[1]) <= 4 * 15  # a busy machine leaves some out


def test_each_line_has_the_same_parts(lines: list[dict[str, Any]]) -> None:
    """One object for each item: key, value, time, trail, origin and members."""
    assert {tuple(sorted(line)) for line in lines} == {("key", "members", "origin", "time", "trail", "value")}


def test_every_key_that_is_wanted_comes(by_key: dict[str, list[dict[str, Any]]]) -> None:
    """Metrics, their roll-ups and the pairs of these; a machine without disks has none of the disk."""
    assert {key for key in by_key if "disk" not in key} == {
        canonical(key) for key in wanted(0.5) if "disk" not in canonical(key)
    }
    assert set(by_key) <= {canonical(key) for key in wanted(0.5)}


def test_trails_begin_at_the_origin_and_end_at_the_key(lines: list[dict[str, Any]]) -> None:
    """And nothing has been changed, so every hop is of epoch 0."""
    for line in lines:
        keys = [key for key, _ in line["trail"]]
        assert keys[0] == line["origin"]["source"]
        assert keys[-1] == canonical(line["key"])
        assert {epoch for _, epoch in line["trail"]} == {0}
        match line["key"]:
            case {"pair": [left, right]}:
                parents = [canonical({"metric": metric, "rollup_s": 0.5}) for metric in (left, right)]
                assert keys[-2] in parents
                assert sorted(member["source"] for member in line["members"]) == sorted(parents)
            case {"metric": metric, "rollup_s": _}:
                assert len(line["members"]) == line["value"]["count"]
            case {"metric": "disk" | "network" as metric}:
                assert keys == [canonical({"counter": metric}), canonical({"metric": metric})]


def test_origins_count_up_by_one(by_key: dict[str, list[dict[str, Any]]]) -> None:
    """No sample is missing between two, and none comes twice; a rate begins with the second."""
    for key, found in by_key.items():
        if "rollup_s" not in key:
            first = 0 if key in (canonical({"metric": "cpu"}), canonical({"metric": "memory"})) else 1
            assert [line["origin"]["number"] for line in found] == list(range(first, first + len(found)))


def test_every_sample_is_in_one_rollup(by_key: dict[str, list[dict[str, Any]]]) -> None:
    """The last window too, though it was cut short."""
    for metric in ("cpu", "memory", "network"):
        samples = by_key[canonical({"metric": metric})]
        rollups = by_key[canonical({"metric": metric, "rollup_s": 0.5})]
        members = [member["number"] for line in rollups for member in line["members"]]
        assert members == [line["origin"]["number"] for line in samples]
        values = iter(line["value"] for line in samples)
        for line in rollups:
            own = [next(values) for _ in range(line["value"]["count"])]
            assert line["value"]["min"] == min(own)
            assert line["value"]["max"] == max(own)
            assert line["value"]["mean"] == pytest.approx(sum(own) / len(own))


def test_values_and_times_are_real(lines: list[dict[str, Any]], by_key: dict[str, list[dict[str, Any]]]) -> None:
    """Percentages are that, memory is in use, and time passes as it was asked to."""
    assert all(0 <= line["value"] <= 100 for line in by_key[canonical({"metric": "cpu"})])
    assert all(0 < line["value"] <= 100 for line in by_key[canonical({"metric": "memory"})])
    assert all(line["value"] >= 0 for line in by_key[canonical({"metric": "network"})])
    times = [line["time"] for line in by_key[canonical({"metric": "memory"})]]
    assert times == sorted(times)
    assert 0.2 < times[-1] - times[0] < 2.5


def test_a_reader_that_leaves_ends_it() -> None:
    """`hotplumb demo | head -1` comes back, and nobody complains."""
    shell = f"{' '.join(PROGRAM)} demo --every 0.05 | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", shell], env=ENVIRONMENT, capture_output=True, text=True, timeout=LONG_S, check=True
    )
    line, code = done.stdout.splitlines()
    assert "key" in json.loads(line)
    assert code == "0"
    assert re.fullmatch(r"hotplumb demo: \d+ samples read, \d+ rows shown", done.stderr.strip()), done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_a_full_disk_is_said_in_one_line() -> None:
    """What cannot be written is an error, and no traceback."""
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*PROGRAM, "demo"], env=ENVIRONMENT, stdout=full, stderr=subprocess.PIPE, text=True, timeout=LONG_S
        )
    assert done.returncode == 1
    assert done.stderr.splitlines() == ["hotplumb demo: error: [Errno 28] No space left on device"]


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_a_signal_ends_it_with_all_it_has_read(signum: int, code: int) -> None:
    """Ctrl-C and `kill` are how an endless run ends: its last window is still summed up."""
    program = started("demo", "--every", "0.05", "--rollup", "3600")
    program.send_signal(signum)
    out, err = rest_of(program)
    assert program.returncode == code
    counted = COUNTED.fullmatch(err.strip())
    assert counted, err
    assert int(counted[2]) == 1 + len(out.splitlines())
    pairs = [json.loads(line)["key"] for line in out.splitlines() if "pair" in line]
    assert {"pair": ["cpu", "memory"], "rollup_s": 3600} in pairs
    assert "3600.0" not in out


@pytest.mark.skipif(sys.platform != "linux", reason="needs a pipe whose size can be set")
def test_a_second_signal_ends_it_at_once() -> None:
    """Even where it waits for a reader that does not read."""
    program = started("demo", "--every", "0.001")
    assert program.stdout is not None
    fcntl.fcntl(program.stdout, fcntl.F_SETPIPE_SZ, 4096)
    while unread_bytes(program.stdout) < 3700:  # one more line at the most has room
        assert program.poll() is None
    program.send_signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        program.wait(0.3)
    program.send_signal(signal.SIGINT)
    assert program.wait(LONG_S) == -signal.SIGINT
    assert rest_of(program)[1] == ""


# -- changed while it runs


@pytest.fixture(scope="module")
def rewired() -> subprocess.CompletedProcess[str]:
    """A run of 1.5 seconds, changed every 0.3 seconds."""
    return ran("demo", "--seconds", "1.5", "--every", "0.05", "--rollup", "0.2", "--rewire-after", "0.3")


def test_it_says_what_was_changed(rewired: subprocess.CompletedProcess[str]) -> None:
    """A line for each change, on standard error: from what to what, where, and how long it took; at last the counts."""
    assert rewired.returncode == 0
    *said, last = rewired.stderr.splitlines()
    counted = COUNTED.fullmatch(last)
    assert counted, rewired.stderr
    changes = [match for match in map(CHANGED.fullmatch, said) if match]
    assert len(changes) == len(said) == int(counted[3]) >= 2
    assert [int(change[1]) for change in changes] == list(range(1, len(said) + 1))
    assert [change.group(2, 3) for change in changes[:2]] == [("0.2", "0.4"), ("0.4", "0.2")]
    for change in changes:
        assert len(change[5].split("; ")) == int(change[4]) == 12
        assert {"cpu", "screen", f"cpu, {change[2]} s", f"cpu & memory, {change[2]} s"} <= set(change[5].split("; "))


def test_its_lines_show_what_was_changed(rewired: subprocess.CompletedProcess[str]) -> None:
    """Samples count up by one all the way, each is in one roll-up of either kind, and no trail goes back in epochs."""
    lines = [json.loads(text) for text in rewired.stdout.splitlines()]
    assert {tuple(sorted(line)) for line in lines} == {("key", "members", "origin", "time", "trail", "value")}
    samples = [line["origin"]["number"] for line in lines if line["key"] == {"metric": "cpu"}]
    rollups = [line for line in lines if line["key"].get("metric") == "cpu" and "rollup_s" in line["key"]]
    assert [member["number"] for line in rollups for member in line["members"]] == samples == list(range(len(samples)))
    assert {line["key"]["rollup_s"] for line in rollups} == {0.2, 0.4}
    epochs = [line["trail"][-1][1] for line in lines if "disk" not in str(line["key"])]
    assert set(epochs) == set(range(max(epochs) + 1)) >= {0, 1, 2}
    assert epochs == sorted(epochs)


def test_what_is_lost_is_no_success() -> None:
    """A roll-up that forgets its last window is found out, in the last line and in the exit code."""
    forgetful = "from hotplumb.demo.graph import Rollup; Rollup.end = lambda self: None"
    done = ran_with(forgetful, "demo", "--seconds", "0.3", "--every", "0.1", "--rollup", "3600")
    assert done.returncode == 1
    counted = re.search(r"(\d+) samples read, .* (\d+) lost, 0 doubled, 0 mixed$", done.stderr.strip())
    assert counted, done.stderr
    assert 0 < int(counted[2]) <= int(counted[1])


# -- in a terminal


def test_a_terminal_has_a_table() -> None:
    """A row for each key, with its trail; it stays when the program has ended by itself."""
    child = in_terminal("demo", "--seconds", "1.2", "--every", "0.1", "--rollup", "0.5")
    shown = end_of(child)
    assert child.exitstatus == 0
    last = shown[shown.rindex("this machine, every 0.1 s, epoch 0") :]
    for what in ("cpu  ", "memory  ", "disk  ", "network  ", "cpu, 0.5 s", "network, 0.5 s", "cpu & memory, 0.5 s"):
        assert f"\n{what}" in last.replace("\r", "")
    assert "cpu #" in last
    assert re.search(r"cpu, 0\.5 s .*%.*items\)", last)
    assert COUNTED.search(last)
    assert "{" not in last[last.index("hotplumb demo:") :]


def test_ctrl_c_ends_the_table() -> None:
    """The terminal is as it was: the cursor is back, and there is no traceback."""
    child = in_terminal("demo", "--every", "0.1")
    child.expect("memory #")
    child.sendintr()
    child.expect(re.escape("\x1b[?25h"))  # the cursor is shown again
    assert COUNTED.search(shown := end_of(child))
    assert "Traceback" not in shown
    assert child.exitstatus == 130


def test_a_dumb_terminal_has_a_table_too() -> None:
    """One below the other, without a single escape, or anything but ASCII where that is all it knows."""
    child = in_terminal("demo", "--seconds", "0.5", "--every", "0.1", TERM="dumb", PYTHONIOENCODING="ascii")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0
    assert isinstance(child.before, str)
    assert "\x1b" not in child.before
    assert child.before.isascii()
    assert child.before.count("this machine, every 0.1 s, epoch 0") == 2
    assert "cpu #" in child.before


def test_a_key_changes_the_graph_and_another_ends_it() -> None:
    """The footer names them; the rows are those of the new graph, and the epoch is up by one."""
    child = in_terminal("demo", "--every", "0.1")
    child.expect("every 0.1 s, epoch 0")
    child.expect("r: rewire   q: end")
    assert not gives_lines(child)
    child.send("x\x1bOR")  # a key that is none, and F3, in whose code there is an R
    child.send("r")
    child.expect("cpu, 4 s")
    child.expect(r"change 1: roll-ups of 2 s -> 4 s, region of 12 nodes, \S+ ms")
    child.expect("region: cpu; ")
    child.send("R")
    child.expect("every 0.1 s, epoch 2")
    child.send("q")
    counted = COUNTED.search(end_of(child))
    assert counted
    assert (counted[3], child.exitstatus) == ("2", 0)


def test_it_changes_the_graph_by_itself() -> None:
    """Every so many seconds, which the footer says."""
    child = in_terminal("demo", "--every", "0.1", "--rewire-after", "0.3", "--seconds", "2")
    child.expect("rewired every 0.3 s   ends after 2 s")
    child.expect("change 1: roll-ups of 2 s -> 4 s")
    child.expect("change 2: roll-ups of 4 s -> 2 s")
    assert COUNTED.search(end_of(child))


@pytest.mark.parametrize(("ending", "code"), [("q", 0), ("\x03", 130), (signal.SIGTERM, 0), (None, 0)])
def test_the_terminal_is_as_it_was(ending: str | signal.Signals | None, code: int) -> None:
    """However it ends: what is typed is shown again, line by line, and so is the cursor."""
    child = in_terminal("demo", "--every", "0.1", *([] if ending else ["--seconds", "1"]))
    before = termios.tcgetattr(child.child_fd)
    child.expect(re.escape("\x1b[?25l"))
    child.expect("q: end")
    if isinstance(ending, str):
        child.send(ending)
    elif ending is not None:
        child.kill(ending)
    child.expect(re.escape("\x1b[?25h"))
    child.expect(COUNTED.pattern)
    child.expect(pexpect.EOF)
    assert termios.tcgetattr(child.child_fd) == before
    child.close()
    assert child.exitstatus == code


def test_the_terminal_is_as_it_was_when_a_second_signal_ends_it() -> None:
    """Nothing can be done then, so it is done with the first."""
    child = in_python(
        "import time; from hotplumb.demo.graph import Rollup",
        "Rollup.end = lambda self: (print('stuck', flush=True), time.sleep(1000))",
        command="demo",
    )
    child.expect("q: end")
    assert not gives_lines(child)
    child.sendintr()
    child.expect("stuck")
    assert gives_lines(child)
    child.sendintr()
    end_of(child)
    assert child.signalstatus == signal.SIGINT


def test_keys_work_on_uvloop() -> None:
    """Whatever the loop."""
    child = in_python(
        "import asyncio, atexit, uvloop",
        "runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)",
        "asyncio.run = runner.run",
        "atexit.register(runner.close)",
        command="demo",
    )
    child.expect("q: end")
    child.send("r")
    child.expect("change 1: roll-ups of 2 s -> 4 s")
    child.send("q")
    assert COUNTED.search(end_of(child))
    assert child.exitstatus == 0


def test_keys_work_after_a_stop() -> None:
    """A shell sets its own modes while a program is stopped; when that goes on, keys are keys again."""
    child = in_terminal("demo", "--every", "0.1")
    before = termios.tcgetattr(child.child_fd)
    child.expect("q: end")
    termios.tcsetattr(child.child_fd, termios.TCSANOW, before)
    assert gives_lines(child)
    child.kill(signal.SIGCONT)
    child.send("r")
    child.expect("change 1: roll-ups of 2 s -> 4 s")
    child.send("q")
    assert COUNTED.search(end_of(child))


def test_ctrl_z_gives_the_cursor_back() -> None:
    """To the shell; after `fg` it goes on below what was written there."""
    child = in_shell("set -m; demo --every 0.1; echo stopped; fg; echo code $?")
    child.expect("q: end")
    child.send("\x1a")
    child.expect(re.escape("\x1b[?25h"))
    child.expect("stopped")
    child.expect(re.escape("\x1b[?25l\x1b[K"))
    child.expect("q: end")
    child.send("r")
    child.expect("change 1: roll-ups of 2 s -> 4 s")
    child.send("q")
    child.expect(COUNTED.pattern)
    child.expect("code 0")
    end_of(child)


@pytest.mark.parametrize("without", ["sys.modules['termios'] = None", "sys.stdin.close()", "sys.stdin = None"])
def test_without_keys_it_is_ended_with_ctrl_c(without: str) -> None:
    """As on Windows, or where standard input is closed; the footer names no keys."""
    child = in_python(without, command="demo")
    child.expect("Ctrl-C: end")
    assert gives_lines(child)
    child.sendintr()
    assert "r: rewire" not in (shown := end_of(child))
    assert COUNTED.search(shown)
    assert child.exitstatus == 130


@pytest.mark.parametrize("command", ["demo --seconds 1 < /dev/null", "set -m; demo --seconds 1 & wait $!"])
def test_the_keys_are_not_always_its_own(command: str) -> None:
    """Where standard input is no terminal, or it runs in the background of one, it lets the terminal alone."""
    child = in_shell(f"{command}; echo code $?")
    child.expect("Ctrl-C: end")
    assert gives_lines(child)
    child.expect(COUNTED.pattern)
    child.expect("code 0")
    end_of(child)


def test_json_can_be_had_in_a_terminal() -> None:
    """`--json` needs no pipe."""
    child = in_terminal("demo", "--seconds", "0.3", "--every", "0.1", "--json")
    first, *_ = end_of(child).splitlines()
    assert child.exitstatus == 0
    assert "key" in json.loads(first)


# -- what is missing or wrong


def test_without_psutil_it_names_the_extra() -> None:
    """Whoever has only the core learns what to install."""
    done = ran_with("sys.modules['psutil'] = None", "demo", "--seconds", "1")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == "hotplumb demo: error: psutil is missing: pip install 'hotplumb[demo]'"
    assert "Traceback" not in done.stderr


def test_json_needs_no_rich() -> None:
    """Only the table is drawn by rich."""
    done = ran_with("sys.modules['rich'] = None", "demo", "--seconds", "0.2")
    assert (done.returncode, done.stderr) == (0, COUNTED.search(done.stderr)[0] + "\n")  # type: ignore[index]


def test_a_table_without_rich_names_the_extra() -> None:
    """In a terminal, standard output here is said to be one."""
    done = ran_with("sys.modules['rich'] = None; sys.stdout.isatty = lambda: True", "demo", "--seconds", "1")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == "hotplumb demo: error: rich is missing: pip install 'hotplumb[demo]'"


@pytest.mark.parametrize("option", ["--seconds", "--every", "--rollup", "--rewire-after"])
@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "1e999", "soon", "", "0.0001"])
def test_a_wrong_number_is_named(option: str, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Every option is a finite number of seconds of at least a millisecond."""
    with pytest.raises(SystemExit) as exited:
        main(["demo", f"{option}={text}"])
    assert exited.value.code == 2
    message = f"hotplumb demo: error: argument {option}: {text!r} is no finite number of seconds of at least 0.001"
    assert capsys.readouterr().err.splitlines()[-1] == message


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "hotplumb: error: the following arguments are required: COMMAND"),
        (["dema"], "invalid choice: 'dema'"),
        (["demo", "--second", "x"], "'x' is no finite number"),
        (["demo", "5"], "hotplumb: error: unrecognized arguments: 5"),
    ],
)
def test_a_wrong_command_is_explained(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    """With exit code 2, as is usual."""
    with pytest.raises(SystemExit) as exited:
        main(arguments)
    assert exited.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "texts"),
    [
        (["--help"], ["demo", "--version", "show this machine's counters"]),
        (
            ["demo", "--help"],
            [
                "--seconds N",
                "--every N",
                "--rollup N",
                "--rewire-after N",
                "--json",
                "(default: 0.5)",
                "examples:",
                "mixed",
            ],
        ),
        (["--version"], ["hotplumb "]),
    ],
)
def test_help_and_version(arguments: list[str], texts: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Help says what there is, with its defaults, in lines that fit."""
    with pytest.raises(SystemExit) as exited:
        main(arguments)
    assert exited.value.code == 0
    out = capsys.readouterr().out
    for text in texts:
        assert text in out


def test_help_needs_nothing_but_the_core() -> None:
    """It can be read before the extra is installed."""
    done = ran_with("sys.modules['psutil'] = sys.modules['rich'] = None", "demo", "--help")
    assert (done.returncode, done.stderr) == (0, "")
