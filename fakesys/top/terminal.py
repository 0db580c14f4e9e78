"""Shows frames in a terminal until the user has seen enough, or prints one."""

from __future__ import annotations

import os
import select
import signal
import sys
import termios
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from errno import ECONNABORTED, ENOTCONN
from io import TextIOWrapper
from pathlib import Path
from types import FrameType

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from fakesys.top.frame import counters_of, lines_of
from fakesys.top.rates import Rates
from fakesys.transport import mounting
from fakesys.view.store import Store
from fakesys.view.watching import Watcher

# Seconds between two looks at what has changed, and at the size of the terminal.
PACE = 0.25
# Wide enough for every line in a pipe.
PIPE_WIDTH = 400
STARTING = 10.0
PREFIXES = ("mount/", "ap/", "kvm/")


class Gone(Exception):
    """The mount is not there any more, or its daemon says nothing. The message is one line."""


class Top:
    """What is known of a mount, and the frames of it. `window`: seconds of the rates."""

    def __init__(self, root: Path, *, window: float) -> None:
        self._root = root
        self._window = window
        self._store = Store()
        self._watcher = Watcher(root, self._store)
        self._rates = Rates(window)
        self._watcher.start()

    def stop(self) -> None:
        """Read no more."""
        self._watcher.stop()

    def frame(self, width: int, height: int | None) -> list[Text]:
        """Return the lines of the present frame. Raises Gone."""
        present = self._store.present()
        trouble = self._watcher.trouble()
        if trouble:
            self._require_mount()
        if "kvm/" in present.read:
            self._rates.note(present.read["kvm/"], counters_of(present.values))
        return lines_of(present, self._rates, trouble=trouble, width=width, height=height)

    def _require_mount(self) -> None:
        error = self._watcher.error
        # Of a daemon that was killed the mount remains.
        ended = error is not None and error.errno in (ENOTCONN, ECONNABORTED)
        if ended or mounting.find(self._root) is None:
            raise Gone(f"{self._root}: the mount is gone")

    def complete(self) -> bool:
        """Return whether everything was read, and the counters over the whole window."""
        present = self._store.present()
        if any(prefix not in present.read for prefix in PREFIXES):
            return False
        self._rates.note(present.read["kvm/"], counters_of(present.values))
        return "kvm/counters" not in present.values or self._rates.seconds >= self._window

    def wait(self) -> None:
        """Wait until a frame has everything. Raises Gone."""
        deadline = time.monotonic() + STARTING + 3 * self._window
        while not self.complete():
            if self._watcher.trouble():
                self._require_mount()
            if time.monotonic() > deadline:
                raise Gone(f"{self._root}: its daemon does not answer in time")
            time.sleep(0.02)


def _console(width: int | None = None) -> Console:
    """Return standard output, which shows what its encoding lacks as a question mark."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    return Console(width=width, highlight=False)


def interactive() -> bool:
    """Return whether standard output can show one frame over another."""
    console = Console()
    return console.is_terminal and not console.is_dumb_terminal


def print_frame(root: Path, *, window: float) -> None:
    """Print one frame, with all its lines in their full width. Raises Gone."""
    top = Top(root, window=window)
    try:
        top.wait()
        lines = top.frame(PIPE_WIDTH, None)
    finally:
        top.stop()
    console = _console(PIPE_WIDTH)
    for line in lines:
        line.rstrip()
        console.print(line, soft_wrap=True)


def watch(root: Path, *, window: float) -> None:
    """Show frames until `q`, SIGINT or SIGTERM. Raises Gone; the terminal is as before then."""
    console = _console()
    top = Top(root, window=window)
    shown: list[Text] = []
    try:
        with (
            _ended_by_signals(),
            _keys() as keys,
            Live(console=console, screen=True, auto_refresh=False) as live,
        ):
            while "q" not in keys.pressed(PACE if shown else 0.05):
                size = console.size
                lines = top.frame(size.width, size.height)
                redraw, keys.redraw = keys.redraw, False
                if redraw or lines != shown:
                    live.update(Group(*lines), refresh=True)
                    shown = lines
    except KeyboardInterrupt:
        pass
    finally:
        top.stop()


class Keys:
    """The keys that are pressed, of a terminal in a mode that gives each at once."""

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor
        # Ctrl-Z and `fg`: the shell has written meanwhile, and may have set another mode.
        self.redraw = False

    def pressed(self, seconds: float) -> str:
        """Wait at most so long for a key; return those that were pressed."""
        if self._descriptor is None:
            time.sleep(seconds)
            return ""
        if not select.select([self._descriptor], [], [], seconds)[0]:
            return ""
        keys = os.read(self._descriptor, 64)
        if not keys:
            # The terminal was closed.
            return "q"
        return keys.decode("latin-1").lower()

    def resumed(self, _number: int, _frame: FrameType | None) -> None:
        """Set the mode again, and draw everything."""
        if self._descriptor is not None:
            with suppress(termios.error):
                tty.setcbreak(self._descriptor)
        self.redraw = True


@contextmanager
def _keys() -> Iterator[Keys]:
    """Let keys be read one by one; without a terminal there are none."""
    try:
        descriptor = sys.stdin.fileno()
        before = termios.tcgetattr(descriptor)
    except (OSError, ValueError, AttributeError, termios.error):
        yield Keys(None)
        return
    keys = Keys(descriptor)
    tty.setcbreak(descriptor)
    resumed = signal.signal(signal.SIGCONT, keys.resumed)
    try:
        yield keys
    finally:
        signal.signal(signal.SIGCONT, resumed)
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the block as Ctrl-C does, so that the terminal is restored."""

    def end(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, action in before.items():
            signal.signal(number, action)
