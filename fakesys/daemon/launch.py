"""Mounts for Python programs: a daemon in a process of its own, which always ends.

Knows no trio and no FUSE: it starts the command `fakesys mount` and waits for its READY.
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
from typing import IO, TypedDict, Unpack

from fakesys.transport import mounting
from fakesys.transport.mounting import MountError

START_SECONDS = 30.0
END_SECONDS = 5.0
READY = b"ready\n"
USAGE = 2
COMMAND = (sys.executable, "-m", "fakesys")


class MountOptions(TypedDict, total=False):
    """Keywords of `mount`: the options of `fakesys mount`. None and False leave an option out."""

    scenario: str | os.PathLike[str]
    profile: str | None
    preset: str | None
    seed: int | None
    boot: str | None
    clock_rate: float | None
    transport: str | None
    lockdown: bool
    allow_other: bool
    log_level: str | None
    log_file: str | os.PathLike[str] | None


@contextmanager
def mount(
    point: str | os.PathLike[str] | None = None, **options: Unpack[MountOptions]
) -> Iterator[Path]:
    """Mount a machine on `point`, by default on a new folder that is removed with the mount.

    The options are those of `fakesys mount`. The mount and its daemon end with the block,
    also when an exception leaves it while files are open, and with this process.
    Raises MountError when it cannot be mounted, ValueError for an option that cannot be used,
    TypeError for one that does not exist.

        with fakesys.mount(profile="6.1", seed=7) as path:
            (path / "sys/bus/ap/apmask").read_text()
    """
    unknown = options.keys() - MountOptions.__annotations__.keys()
    if unknown:
        raise TypeError(f"mount() has no option {', '.join(sorted(unknown))}")
    log = options.pop("log_file", None)
    words = option_words(options)
    with (
        _folder(point) as place,
        Daemon(place, words, log=None if log is None else Path(log)) as daemon,
    ):
        yield daemon.point


def option_words(options: Mapping[str, object]) -> list[str]:
    """Return the words of a command line: None and False are left out, True is a flag."""
    words = []
    for name, value in options.items():
        if value is None or value is False:
            continue
        words.append(f"--{name.replace('_', '-')}")
        if value is not True:
            words.append(os.fspath(value) if isinstance(value, os.PathLike) else str(value))
    return words


class Daemon:
    """`fakesys mount --foreground` as a child of this process; a context manager.

    `log`: the file for its output; without one the output goes to standard error at the end.
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
        """The pid of the process; 0 before it was started."""
        return self._process.pid if self._process is not None else 0

    def poll(self) -> int | None:
        """Return the exit status, or None while it runs."""
        return self._process.poll() if self._process is not None else None

    def wait(self, seconds: float) -> int | None:
        """Return the exit status, or None if it still runs after so many seconds."""
        if self._process is not None:
            with suppress(subprocess.TimeoutExpired):
                return self._process.wait(seconds)
        return None

    def start(self) -> None:
        """Start; return when every file answers.

        Raises MountError, or ValueError for a wrong option.
        """
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
        """Unmount, lazily while files are open, and end the process. Do nothing a second time."""
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
        """Return all that the process has written so far; nothing when it is not running."""
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
    """Yield the folder to mount on; a temporary one is removed at the end if it is empty."""
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
    """Yield a pidfd of this process, which becomes readable when it ends; none on old kernels."""
    try:
        descriptor = os.pidfd_open(os.getpid())
    except OSError:
        yield ()
        return
    try:
        yield (descriptor,)
    finally:
        os.close(descriptor)
