"""`fakesys top` beside a shell, in a terminal of its own and in a pipe."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from fakesys.daemon.launch import Daemon
from tests.mounts import COMMAND, Mount, fakesys, mounted

SOON = 20.0
LEAVES = b"\x1b[?1049l"


class Terminal:
    """A terminal of 80 x 24 with `fakesys top` in it."""

    def __init__(self, root: Path) -> None:
        self.master, slave = pty.openpty()
        self.resize(24, 80)
        self.before = termios.tcgetattr(slave)
        environment = {**os.environ, "TERM": "xterm"}
        for name in ("COLUMNS", "LINES"):
            environment.pop(name, None)
        self.process = subprocess.Popen(
            [*COMMAND, "top", "--seconds", "0.2", str(root)],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environment,
            preexec_fn=lambda: fcntl.ioctl(slave, termios.TIOCSCTTY, 0),
            start_new_session=True,
        )
        self.slave = slave
        self.seen = b""

    def resize(self, rows: int, columns: int) -> None:
        """Give the terminal another size."""
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def wait_for(self, words: str | Callable[[str], bool]) -> None:
        """Wait until the last whole frame has these words."""
        deadline = time.monotonic() + SOON
        holds = (lambda frame: words in frame) if isinstance(words, str) else words
        while not holds(self.frame()):
            assert time.monotonic() < deadline, f"waited in vain for {words}: {self.frame()}"
            if select.select([self.master], [], [], 0.1)[0]:
                with suppress(OSError):
                    self.seen += os.read(self.master, 65536)

    def frame(self) -> str:
        """What was written since the last jump to the upper left corner."""
        return self.seen.rpartition(b"\x1b[H")[2].decode()

    def type(self, keys: bytes) -> None:
        """Press keys."""
        os.write(self.master, keys)

    def end(self) -> int:
        """Wait for the end; return the exit status. The terminal is as it was before."""
        self.wait_for(lambda _: self.process.poll() is not None)
        status = self.process.wait(SOON)
        while select.select([self.master], [], [], 0)[0]:
            self.seen += os.read(self.master, 65536)
        assert LEAVES in self.seen
        assert termios.tcgetattr(self.slave) == self.before
        return status


@contextmanager
def top(root: Path) -> Iterator[Terminal]:
    """`fakesys top` in a terminal, ended in every case."""
    terminal = Terminal(root)
    try:
        terminal.wait_for("12")
        yield terminal
    finally:
        terminal.process.kill()
        terminal.process.wait()
        os.close(terminal.master)
        os.close(terminal.slave)


@pytest.fixture(scope="module")
def mount(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mount]:
    """A mount with the default machine."""
    with mounted(tmp_path_factory.mktemp("top"), scenario="default") as found:
        yield found


def put(mount: Mount, path: str, words: str) -> None:
    """Write as a shell does, once."""
    mount.command(f"../../../{path}", words)


def test_writes_of_a_shell_appear(mount: Mount) -> None:
    with top(mount.root) as terminal:
        put(mount, "bus/ap/aqmask", "-4")
        terminal.wait_for("all                   12        -      9      3")
        with pytest.raises(OSError, match="Invalid"):
            put(mount, "bus/ap/apmask", "5 [x]")
        terminal.wait_for("sys/bus/ap/apmask  '5 [x]'")
        terminal.wait_for("is not a mask")
        mount.command("kvm/preset", "linux-boot vcpus=2 name=boots")
        terminal.wait_for("boots ")
        terminal.wait_for("irq_exits")
        terminal.resize(12, 40)
        terminal.wait_for(lambda frame: "and 6 more" in frame and "and 3 more" in frame)
        terminal.type(b"xq")
        assert terminal.end() == 0
        mount.command("kvm/ctl", "vm destroy boots")


@pytest.mark.parametrize("how", ["Ctrl-C", "SIGTERM", "SIGSTOP and q"])
def test_it_ends_with_the_terminal_as_before(mount: Mount, how: str) -> None:
    with top(mount.root) as terminal:
        if how == "Ctrl-C":
            terminal.type(b"\x03")
        elif how == "SIGTERM":
            terminal.process.send_signal(signal.SIGTERM)
        else:
            terminal.process.send_signal(signal.SIGSTOP)
            # What a shell does while the program is stopped.
            termios.tcsetattr(terminal.slave, termios.TCSANOW, terminal.before)
            terminal.seen = b""
            terminal.process.send_signal(signal.SIGCONT)
            terminal.wait_for("card")
            terminal.type(b"q")
        assert terminal.end() == 0


def test_in_a_pipe_it_is_one_frame(mount: Mount) -> None:
    mount.command("kvm/preset", "linux-boot vcpus=2 name=piped")
    done = fakesys("top", "--seconds", "0.05", str(mount.root))
    mount.command("kvm/ctl", "vm destroy piped")
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    assert done.stdout.count("counter ") == 1
    [exits] = [line.split() for line in done.stdout.splitlines() if line.startswith("exits ")]
    assert exits == ["exits", "0.0", exits[2]]


def test_a_mount_that_goes_away_is_one_line(tmp_path: Path) -> None:
    root = tmp_path / "mnt"
    root.mkdir()
    with (
        Daemon(root, ["--scenario", "default"], log=tmp_path / "log"),
        top(root) as terminal,
    ):
        assert fakesys("umount", "--lazy", str(root)).returncode == 0
        assert terminal.end() == 1
        line = terminal.seen.rpartition(LEAVES)[2].decode().strip()
        assert line == f"fakesys: {root}: the mount is gone"
    done = fakesys("top", str(root))
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
