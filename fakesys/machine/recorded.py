"""A machine as recordings see it, and the end of its VMs' owners, which they record too."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from functools import partial
from typing import Protocol

import msgspec

from fakesys.core.clock import Clock
from fakesys.core.kernel import Caller
from fakesys.machine.hardware import CTL, PRESET
from fakesys.machine.scenario import Origin, is_shipped
from fakesys.machine.subsystems import Subsystems
from fakesys.machine.tracing import HostTasks
from fakesys.subsystems.control.recording import Recordings
from fakesys.subsystems.kvm.vm import Vm, WatchProcess


class Recordable(Protocol):
    """What a machine is made from and made of; both change when it is reset or loaded."""

    origin: Origin
    subsystems: Subsystems


class RecordedMachine:
    """What a recording asks of a machine."""

    def __init__(self, machine: Recordable) -> None:
        self._machine = machine

    @property
    def clock(self) -> Clock:
        """The simulated time."""
        return self._machine.subsystems.kernel.clock

    @property
    def mount_options(self) -> str:
        """The options of `fakesys mount` that make such a machine."""
        origin = self._machine.origin
        # Where the scenario is another person's file, the script itself tells it.
        name = origin.scenario.name if is_shipped(origin.scenario) else "./THIS-FILE"
        boot = f" --boot {shlex.quote(origin.scenario.boot)}" if origin.scenario.boot else ""
        return f"--scenario {name} --profile {origin.profile} --seed {origin.seed}{boot}"

    @property
    def description(self) -> str:
        """What the machine was at its beginning, as one line of JSON."""
        return msgspec.json.encode(self._machine.origin).decode()

    @property
    def caller(self) -> Caller:
        """The process that makes the present call."""
        return self._machine.subsystems.kernel.caller

    def comm(self, pid: int) -> str:
        """Return the name of a task of the host."""
        return HostTasks().comm(pid)

    def pinned(self, path: str, text: bytes) -> bytes:
        """Return the text that has the same effect for every writer.

        A command that makes a VM gets the owner (pid, fd) that the VM has now.
        """
        words = text.decode("latin-1").split()
        given = dict(word.partition("=")[::2] for word in words)
        vm = self._made_by(path, words, given)
        if vm is None or "pid" in given:
            return text
        more = f" pid={vm.pid}" + ("" if "fd" in given else f" fd={vm.fd}")
        return text.rstrip() + more.encode() + b"\n"

    def _made_by(self, path: str, words: list[str], given: dict[str, str]) -> Vm | None:
        """Return the VM that a command has made; None for any other write."""
        kvm = self._machine.subsystems.kvm.kvm
        if path == CTL and words[:2] == ["vm", "create"]:
            return kvm.find(words[2])
        if path == PRESET:
            from fakesys.subsystems.apicv.commands import presets

            return kvm.find(given.get("name", presets.NAME.default))
        return None


def recorded_watch(
    watch: WatchProcess, machine: Recordable, recordings: Recordings
) -> WatchProcess:
    """Return a watch of processes that also records what the end of one did."""

    def watch_and_record(pid: int, ended: Callable[[], None]) -> Callable[[], None]:
        return watch(pid, partial(_owner_ended, machine, recordings, ended))

    return watch_and_record


def _owner_ended(machine: Recordable, recordings: Recordings, ended: Callable[[], None]) -> None:
    """Do what the end of a process does, and record it as the command that does the same."""
    kvm = machine.subsystems.kvm.kvm
    begun = recordings.begin()
    before = tuple(kvm.names)
    ended()
    for name in before:
        if kvm.find(name) is None:
            recordings.happened(begun, CTL, f"vm destroy {name}\n".encode())
