"""Mounts for Python programs: a daemon in a process of its own, ended in every case.

Knows no trio and no FUSE: it starts the command `fakesys mount` and waits for its word.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from fakesys.transport import mounting
from fakesys.transport.mounting import MountError

START_SECONDS = 30.0
END_SECONDS = 5.0
READY = b"ready\n"
USAGE = 2
COMMAND = (sys.executable, "-m", "fakesys")


@contextmanager
def mount(
    point: str | os.PathLike[str] | None = None,
    *,
    scenario: str | os.PathLike[str] = "default",
    profile: str | None = None,
    preset: str | None = None,
    seed: int | None = None,
    clock_rate: float | None = None,
    transport: str | None = None,
    lockdown: bool = False,
    allow_other: bool = False,
    log_level: str | None = None,
    log_file: str | os.PathLike[str] | None = None,
) -> Iterator[Path]:
    """A machine mounted on `point`, by default a new folder that goes with the mount.

    The options are those of `fakesys mount`. The mount and its daemon end with the block,
    also when an exception leaves it while files are open, and with this process.
    Raises MountError when it cannot be mounted, ValueError for an option that cannot be used.
    """
    words = option_words(
        {
            "scenario": os.fspath(scenario),
            "profile": profile,
            "preset": preset,
            "seed": seed,
            "clock_rate": clock_rate,
            "transport": transport,
            "lockdown": lockdown,
            "allow_other": allow_other,
            "log_level": log_level,
        }
    )
    log = None if log_file is None else Path(log_file)
    with _folder(point) as place, Daemon(place, words, log=log) as daemon:
        yield daemon.point


def option_words(options: Mapping[str, object]) -> list[str]:
    """Words of a command line: None and False are left out, True is a flag."""
    words = []
    for name, value in options.items():
        if value is None or value is False:
            continue
        words.append(f"--{name.replace('_', '-')}")
        if value is not True:
            words.append(str(value))
    return words


class Daemon:
    """`fakesys mount --foreground` as a child of this process; a context manager.

    `log`: takes what it logs; without it that comes to standard error at the end.
    `prefix`: put before the command, such as `taskset -c 0`.
    """

    def __init__(
        self,
        point: Path,
        words: Sequence[str] = (),
        *,
        log: Path | None = None,
        prefix: Sequence[str] = (),
    ) -> None:
        self.point = mounting.real_point(point.absolute())
        self._command = [*prefix, *COMMAND, "mount", str(self.point), "--foreground", *words]
        self._log = log
        self._output: IO[bytes] | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Daemon:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The process; 0 before it was started."""
        return self._process.pid if self._process is not None else 0

    def poll(self) -> int | None:
        """Exit status, or None while it runs."""
        return self._process.poll() if self._process is not None else None

    def start(self) -> None:
        """Return when every file answers. Raises MountError, or ValueError for a wrong option."""
        self._output = tempfile.TemporaryFile() if self._log is None else self._log.open("w+b")  # noqa: SIM115 - closed by stop()
        reader, writer = os.pipe()
        with os.fdopen(reader, "rb", buffering=0) as pipe:
            with os.fdopen(writer), _own_process() as own:
                self._process = self._spawn(writer, own)
            ready, _, _ = select.select([pipe], [], [], START_SECONDS)
            word = pipe.read(len(READY)) if ready else b""
        if word != READY:
            raise self._why_not()

    def stop(self) -> None:
        """Unmount, lazily while files are open, and end the process. A second time is fine."""
        if self._output is None:
            return
        if self._process is not None:
            mount = mounting.find(self.point)
            _end(self._process)
            if self._process.returncode is None and mount is not None:
                mounting.abort(mount)
            with suppress(MountError):
                mounting.clear_stale(self.point)
        if self._log is None:
            sys.stderr.write(self.said())
        self._output.close()
        self._output = None

    def said(self) -> str:
        """All that the process has written so far; empty when it is not running."""
        if self._output is None:
            return ""
        descriptor = self._output.fileno()
        return os.pread(descriptor, os.fstat(descriptor).st_size, 0).decode(errors="replace")

    def _spawn(self, writer: int, own: Sequence[int]) -> subprocess.Popen[bytes]:
        words = ["--ready-fd", str(writer)]
        for descriptor in own:
            words += ["--lives-with", str(descriptor)]
        return subprocess.Popen(
            [*self._command, *words],
            pass_fds=(writer, *own),
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=self._output,
            # Ctrl-C at a terminal is for this process; the daemon must outlive its clean-up.
            start_new_session=True,
        )

    def _why_not(self) -> Exception:
        assert self._process is not None
        assert self._output is not None
        _end(self._process, wait_first=True)
        lines = self.said().strip().splitlines() or ["the daemon did not get ready"]
        self._output.truncate(0)
        message = lines[-1].removeprefix("fakesys: ")
        wrong_option = self._process.returncode == USAGE
        return ValueError(message) if wrong_option else MountError(message)


def _end(process: subprocess.Popen[bytes], *, wait_first: bool = False) -> None:
    """Wait for a process to end; SIGTERM, then SIGKILL make sure that it does.

    The first SIGTERM unmounts; a second one ends a daemon that a copy of its mount in another
    mount namespace keeps alive.
    """
    asking = (process.poll,) if wait_first else ()
    for ask in (*asking, process.terminate, process.terminate, process.kill):
        ask()
        with suppress(subprocess.TimeoutExpired):
            process.wait(END_SECONDS)
            return


@contextmanager
def _folder(point: str | os.PathLike[str] | None) -> Iterator[Path]:
    """The folder to mount on; one of our own goes again, and never with anything in it."""
    if point is not None:
        yield Path(point)
        return
    folder = Path(tempfile.mkdtemp(prefix="fakesys-"))
    try:
        yield folder
    finally:
        with suppress(OSError):
            folder.rmdir()


@contextmanager
def _own_process() -> Iterator[tuple[int, ...]]:
    """A descriptor that becomes readable when this process ends, where the kernel has such."""
    try:
        descriptor = os.pidfd_open(os.getpid())
    except OSError:
        yield ()
        return
    try:
        yield (descriptor,)
    finally:
        os.close(descriptor)
