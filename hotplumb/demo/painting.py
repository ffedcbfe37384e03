"""Pictures in a terminal, each over the one before."""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from types import FrameType
from typing import TextIO

from rich.console import Console, RenderableType

SHOW_CURSOR = "\x1b[?25h"
HIDE_CURSOR = "\x1b[?25l"
ERASE_LINE = "\x1b[K"  # from the cursor on
ERASE_BELOW = "\x1b[J"
ERASE_ALL = "\x1b[H\x1b[2J"


class Painting:
    """Draws on a console, line over line, so that nothing blinks, and leaves the cursor below the picture.

    A console that cannot go back has the pictures one below the other.
    """

    def __init__(self, console: Console) -> None:
        self.goes_back = not (console.is_dumb_terminal or console.legacy_windows)
        self._console = console
        self._lines = 0  # of the picture that is there
        self._width = console.width

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Hide the cursor as long as the block lasts, and put above the picture what is written to standard error."""
        if not self.goes_back:
            yield
            return
        error_stream = Above(self, sys.stderr) if sys.stderr.isatty() else sys.stderr
        try:
            with redirect_stderr(error_stream), self._stopping():
                yield
        finally:
            self._write(SHOW_CURSOR)

    @contextmanager
    def _stopping(self) -> Iterator[None]:
        """When Ctrl-Z stops the program, give the cursor back, and later draw below what has been written since."""
        if sys.platform == "win32" or signal.getsignal(signal.SIGTSTP) != signal.SIG_DFL:
            yield
            return

        def stop(signum: int, frame: FrameType | None) -> None:
            os.write(self._console.file.fileno(), SHOW_CURSOR.encode())  # the console may be in the middle of a picture
            signal.signal(signal.SIGTSTP, signal.SIG_DFL)
            signal.raise_signal(signal.SIGTSTP)  # comes back when the program goes on
            signal.signal(signal.SIGTSTP, stop)
            self._lines = 0

        signal.signal(signal.SIGTSTP, stop)
        try:
            yield
        finally:
            signal.signal(signal.SIGTSTP, signal.SIG_DFL)

    def draw(self, picture: RenderableType, *, is_last: bool = False) -> None:
        """Put a picture over the one before; what is too high for the terminal is cut off, but of the last one."""
        console = self._console
        if not self.goes_back:
            console.print(picture)
            return
        with console.capture() as captured:
            console.print(picture)
        lines = captured.get().splitlines()
        if not is_last:
            del lines[console.height - 1 :]
        self._write(HIDE_CURSOR + self._back() + "".join(f"{ERASE_LINE}{line}\n" for line in lines) + ERASE_BELOW)
        self._lines = len(lines)

    def erase(self) -> None:
        """Take the picture away, until the next one is drawn."""
        self._write(self._back() + ERASE_BELOW)
        self._lines = 0

    def _back(self) -> str:
        """What moves the cursor to where the picture begins."""
        before, self._width = self._width, self._console.width
        if self._width < before:  # its lines are broken into more of them, no one knows how many
            return ERASE_ALL
        return f"\x1b[{self._lines}F" if self._lines else ""

    def _write(self, text: str) -> None:
        self._console.file.write(text)
        self._console.file.flush()


class Above(io.TextIOBase):
    """Stands for a stream to the same terminal: what is written there takes the place of the picture."""

    def __init__(self, painting: Painting, stream: TextIO) -> None:
        self._painting = painting
        self._stream = stream

    def write(self, text: str) -> int:
        self._painting.erase()
        return self._stream.write(text)

    def flush(self) -> None:
        self._stream.flush()

    def isatty(self) -> bool:
        return True
