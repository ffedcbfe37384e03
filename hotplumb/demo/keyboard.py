"""Key presses in a terminal, taken as they come: without the return key, and without waiting for them."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

ESCAPED = re.compile(rb"\x1b(\[[0-?]*[ -/]*[@-~]|O.|.)?", re.DOTALL)  # arrows, function keys: letters stand for them


class Keyboard:
    """The terminal that is standard input; where there is none, or it is not ours to read, no key is ever pressed."""

    def __init__(self) -> None:
        self._fd = _terminal()
        self._before = None if self._fd is None else _modes_of(self._fd)

    @property
    def is_there(self) -> bool:
        """Whether keys can be pressed."""
        return self._fd is not None

    @contextmanager
    def listening(self, press: Callable[[str], None]) -> Iterator[None]:
        """Call `press` with each key pressed as long as the block lasts; the terminal does not show them meanwhile."""
        if self._fd is None:
            yield
            return
        loop, fd = asyncio.get_running_loop(), self._fd

        def read() -> None:
            typed = _read(fd)
            if not typed:  # there will be no more, or not before we come to the foreground
                loop.remove_reader(fd)
            for key in ESCAPED.sub(b"", typed).decode(errors="ignore"):
                press(key)

        def listen() -> None:
            if _is_ours(fd):
                _set_single_keys(fd)
                loop.add_reader(fd, read)

        def go_on(signum: int, frame: FrameType | None) -> None:
            loop.call_soon_threadsafe(listen)

        before = signal.signal(signal.SIGCONT, go_on)  # after Ctrl-Z and `fg`, when the shell has set its own modes
        try:
            listen()
            yield
        finally:
            loop.remove_reader(fd)
            signal.signal(signal.SIGCONT, before)
            self.restore()

    def restore(self) -> None:
        """Set the terminal back to what it was; at once, and in the handler of a signal too."""
        if self._fd is not None and _is_ours(self._fd):
            import termios

            termios.tcsetattr(self._fd, termios.TCSANOW, self._before)  # type: ignore[arg-type]


def _terminal() -> int | None:
    """Standard input, where that is a terminal that gives its keys to us."""
    try:
        import termios  # noqa: F401  Windows has none

        fd = sys.stdin.fileno()
        return fd if os.isatty(fd) and _is_ours(fd) else None
    except (ImportError, AttributeError, OSError, ValueError):  # nor where there is no standard input, or a closed one
        return None


def _is_ours(fd: int) -> bool:
    """Whether we are in the foreground of a terminal; in the background touching it would stop us."""
    try:
        return os.tcgetpgrp(fd) == os.getpgrp()
    except OSError:  # it is gone, or another session's
        return False


def _modes_of(fd: int) -> list[Any]:
    import termios

    return termios.tcgetattr(fd)


def _set_single_keys(fd: int) -> None:
    import termios
    import tty

    tty.setcbreak(fd, termios.TCSANOW)


def _read(fd: int) -> bytes:
    """What was typed; nothing where no more will be, or not to us."""
    try:
        return os.read(fd, 1024) if _is_ours(fd) else b""
    except OSError:
        return b""
