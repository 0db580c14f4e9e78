"""What a recording is replayed on: a machine in this process, or one behind a mount."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from fakesys.core.errors import KernelError
from fakesys.core.event_format import event_format
from fakesys.core.tracepoint import Tracepoint
from fakesys.machine.machine import Machine
from fakesys.subsystems.kvm_mmu.events.catalog import EVENTS

DEBUG = "sys/kernel/debug"
KVM = f"{DEBUG}/fakesys/kvm"
TRACING = "sys/kernel/tracing"
VM_NAME = "replayed"
# The trace of the largest step fits into it.
BUFFER_KB = 16384

_LINE = re.compile(r"\s*\S.*-\d+\s+\[\d+\] \S+\s+\d+\.\d+: (\w+): ?(.*)")


class Files(Protocol):
    """Control files, in process or on a mount."""

    def write(self, path: str, text: str) -> None:
        """Raises KernelError."""

    def read(self, path: str) -> str:
        """Raises KernelError."""

    def listdir(self, path: str) -> list[str]:
        """The names in a directory."""


class Events(Protocol):
    """Where the events of a step come from."""

    def take(self) -> list[str]:
        """Lines `name: text` since the last call."""

    def untake(self, lines: list[str]) -> None:
        """Put lines back before those that came since."""


class Recorder:
    """Hears every event of KVM on the bus of a machine in process."""

    def __init__(self, machine: Machine) -> None:
        self._lines: list[str] = []
        features = machine.subsystems.kvm.features
        for cls in all_events():
            form = event_format(cls, 1, features)
            if form is not None:
                machine.kernel.bus.subscribe(cls, self._watcher(form.event, form.text))

    def take(self) -> list[str]:
        """Lines `name: text` since the last call."""
        lines, self._lines = self._lines, []
        return lines

    def untake(self, lines: list[str]) -> None:
        """Put lines back before those that came since."""
        self._lines[:0] = lines

    def _watcher(self, name: str, text: Callable[[Any], str]) -> Callable[[Any], None]:
        return lambda event: self._lines.append(f"{name}: {text(event)}")


def all_events() -> tuple[type[Tracepoint], ...]:
    """The events of systems kvm and kvmmmu."""
    from fakesys.subsystems.kvm.events import avic as apicv_trace
    from fakesys.subsystems.kvm.events import catalog as kvm_trace

    return tuple(dict.fromkeys((*EVENTS, *kvm_trace.EVENTS, *apicv_trace.EVENTS)))


class InProcess:
    """Control files of a machine in this process."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def write(self, path: str, text: str) -> None:
        """Raises KernelError."""
        self._machine.write(path, text)

    def read(self, path: str) -> str:
        """Raises KernelError."""
        return self._machine.read(path)

    def listdir(self, path: str) -> list[str]:
        """The names in a directory."""
        return self._machine.listdir(path)


class OnMount:
    """The files of a mount, by system calls."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def write(self, path: str, text: str) -> None:
        """One write(2). Raises KernelError."""
        with _refusals():
            descriptor = os.open(self._root / path, os.O_WRONLY)
            try:
                os.write(descriptor, text.encode())
            finally:
                os.close(descriptor)

    def read(self, path: str) -> str:
        """Raises KernelError."""
        with _refusals():
            return (self._root / path).read_text()

    def listdir(self, path: str) -> list[str]:
        """The names in a directory."""
        with _refusals():
            return os.listdir(self._root / path)


class TraceReader:
    """Reads the events of KVM from a ring buffer of its own: `instance`, a folder of tracefs."""

    def __init__(self, instance: Path) -> None:
        self._trace = instance / "trace"
        self._before: list[str] = []
        (instance / "buffer_size_kb").write_text(f"{BUFFER_KB}\n")
        for system in ("kvm", "kvmmmu"):
            (instance / "events" / system / "enable").write_text("1\n")

    def untake(self, lines: list[str]) -> None:
        """Put lines back before those that came since."""
        self._before[:0] = lines

    def take(self) -> list[str]:
        """Lines `name: text` since the last call."""
        before, self._before = self._before, []
        text = self._trace.read_text()
        # Truncation clears the buffer; what is written does not matter.
        self._trace.write_text("")
        found = (_LINE.fullmatch(line) for line in text.splitlines() if not line.startswith("#"))
        return before + [f"{line[1]}: {line[2]}" for line in found if line is not None]


@contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise KernelError(error.errno or 0, str(error)) from None


@contextmanager
def in_process() -> Iterator[tuple[Files, Events]]:
    """A machine of its own."""
    machine = Machine("6.18")
    files = InProcess(machine)
    with _like_the_recordings(files):
        yield files, Recorder(machine)


@contextmanager
def on_mount(root: Path) -> Iterator[tuple[Files, Events]]:
    """A machine behind a mount, left as it was. Raises KernelError, as while it has a VM."""
    files = OnMount(root)
    instance = root / TRACING / "instances" / VM_NAME
    with _like_the_recordings(files):
        with suppress(FileNotFoundError):
            # Left over from a replay that was killed.
            instance.rmdir()
        instance.mkdir()
        try:
            yield files, TraceReader(instance)
        finally:
            instance.rmdir()


def _chosen(text: str) -> str:
    """What a file has, of several words that in brackets."""
    found = re.search(r"\[(.*)\]", text)
    return text if found is None else f"{found[1]}\n"


@contextmanager
def _like_the_recordings(files: Files) -> Iterator[None]:
    """The kernel and the knobs of the recordings: 6.18, shadow paging, no MMIO caching.

    Their host had no virtualisation in hardware.
    """
    wanted = {
        "mmu_profile": "6.18",
        "apicv_profile": "6.18",
        "params/paging": "shadow",
        "params/processor": "software",
        "params/mmio_caching": "0",
        "params/as_num": "1",
    }
    before = {name: _chosen(files.read(f"{KVM}/{name}")) for name in wanted}
    for name, value in wanted.items():
        files.write(f"{KVM}/{name}", f"{value}\n")
    try:
        yield
    finally:
        with suppress(KernelError):
            files.write(f"{KVM}/ctl", f"vm destroy {VM_NAME}\n")
        for name, value in before.items():
            files.write(f"{KVM}/{name}", value)
