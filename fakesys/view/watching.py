"""The thread that reads a mount: again and again, at the pace that what it reads allows."""

from __future__ import annotations

import select
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from fakesys.view import reading, streams
from fakesys.view.reading import CONTROL
from fakesys.view.store import Store
from fakesys.view.streams import Stream

# Of the time that reading takes, so many times is left to others.
PATIENCE = 19
SHORTEST = 0.05
# But no more than this: while the daemon was stopped, reading took long without any work.
LONGEST = 5.0
SILENCE = 2.0
RETRY = 0.25


class Source:
    """Something that is read when it is due, at least each `idle` seconds."""

    def __init__(self, prefix: str, idle: float, read: Callable[[Path], dict[str, Any]]) -> None:
        self.prefix = prefix
        self._idle = idle
        self._read = read
        self._earliest = 0.0
        self.due = 0.0

    def wake(self) -> None:
        """Let it be read as soon as its pace allows: something has happened."""
        self.due = min(self.due, self._earliest)

    def read(self, root: Path, store: Store) -> None:
        """Read and store. Raises OSError when the mount is gone."""
        began = time.monotonic()
        store.replace(self.prefix, self._read(root))
        ended = time.monotonic()
        self._earliest = ended + max(SHORTEST, _rest(ended - began))
        self.due = max(self._earliest, ended + self._idle)


class Paced:
    """An open stream with its name and the time before which it is not read again."""

    def __init__(self, name: str, stream: Stream) -> None:
        self.name = name
        self.stream = stream
        self.earliest = 0.0

    def read(self, store: Store) -> None:
        """Read what has come. Raises OSError when the mount is gone."""
        began = time.monotonic()
        store.append(self.name, self.stream.read())
        self.earliest = time.monotonic() + _rest(time.monotonic() - began)


class Watcher:
    """Keeps a store up to date with a mount, which may go and come back.

    `trace`: take the events of `trace_pipe`, which other readers of it then do not get.
    """

    def __init__(self, root: Path, store: Store, *, trace: bool = False) -> None:
        self._root = root
        self._store = store
        self._trace = trace
        self._beat = time.monotonic()
        self._why = ""
        # Why the last attempt to read the mount has failed.
        self.error: OSError | None = None
        self._stopped = threading.Event()

    def start(self) -> None:
        """Begin. The thread may hang on a daemon that does not answer, so none waits for it."""
        threading.Thread(target=self._run, daemon=True).start()

    def stop(self) -> None:
        """End at the next occasion."""
        self._stopped.set()

    def trouble(self) -> str:
        """Return why the page shows nothing new; empty when all is well."""
        silent = time.monotonic() - self._beat
        return self._why or ("The daemon does not answer." if silent > SILENCE else "")

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                self._watch()
            except OSError as error:
                self.error = error
                self._why = f"The mount is gone: {error.strerror}. Waiting for it."
            except (ValueError, KeyError) as error:
                self._why = f"The mount says what this page does not understand: {error!r}"
            self._beat = time.monotonic()
            self._stopped.wait(RETRY)

    def _watch(self) -> None:
        sources = [
            Source("mount/", 1.0, reading.head),
            Source("ap/", 2.0, reading.ap),
            Source("kvm/", 0.5, reading.kvm),
        ]
        # Raises when this is no mount, before the page forgets the old one.
        reading.head(self._root)
        self._store.forget_lines()
        with ExitStack() as stack:
            opened = self._open(stack)
            self._why, self.error = "", None
            while not self._stopped.is_set():
                self._step(sources, opened)

    def _open(self, stack: ExitStack) -> list[Paced]:
        control = self._root / CONTROL
        wanted = [
            ("uevents", control / "uevents_pipe", streams.uevents, b"\n\n"),
            ("log", control / "log_pipe", streams.plain, b"\n"),
            ("writes", control / "writers", streams.writes, b"\n"),
        ]
        if self._trace:
            pipe = self._root / "sys/kernel/tracing/trace_pipe"
            wanted.append(("trace", pipe, streams.plain, b"\n"))
        opened = []
        for name, path, parse, separator in wanted:
            # Some are for the owner of the mount only.
            with suppress(PermissionError):
                stream = Stream(path, parse, separator)
                stack.callback(stream.close)
                opened.append(Paced(name, stream))
        return opened

    def _step(self, sources: list[Source], opened: list[Paced]) -> None:
        """Read what is due, then wait for the next."""
        now = self._beat = time.monotonic()
        for source in sources:
            if source.due <= now:
                source.read(self._root, self._store)
        now = self._beat = time.monotonic()
        free = {paced.stream.descriptor: paced for paced in opened if paced.earliest <= now}
        due = [source.due for source in sources]
        due += [paced.earliest for paced in opened if paced.earliest > now]
        ready = _ready(list(free), max(0.0, min(due) - now))
        for descriptor in ready:
            free[descriptor].read(self._store)
        if ready:
            for source in sources:
                source.wake()


def _rest(seconds: float) -> float:
    """Return for how long not to read again what took so many seconds."""
    return min(LONGEST, PATIENCE * seconds)


def _ready(descriptors: list[int], seconds: float) -> list[int]:
    """Return the descriptors that can be read, waiting for the first one."""
    poll = select.poll()
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)
    return [descriptor for descriptor, _ in poll.poll(min(seconds, 0.5) * 1000)]
