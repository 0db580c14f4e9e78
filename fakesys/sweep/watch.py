"""In the daemon: record what the processes of a program do on the fake, and disturb one call."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from errno import EINTR
from pathlib import Path
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from fakesys.core.errors import ERRNO_NAMES, Blocked, KernelError
from fakesys.core.scheduling.resched import TakesLong
from fakesys.machine.machine import Machine
from fakesys.sweep.disturbances import Disturbance, act, device_of
from fakesys.sweep.operations import LONGEST_TEXT, Names, Operation
from fakesys.tree.node import File, Node

_NUMBERS = {name: number for number, name in ERRNO_NAMES.items()}
_KINDS = {"open": "open", "opendir": "readdir", "read": "read", "write": "write"}


class Aim(Struct, frozen=True):
    """The operation that is disturbed, by its `Operation.key`, and how."""

    key: tuple[str, str, str, int]
    disturbance: Disturbance


class Processes:
    """Those of one program: of its session, and their children that began another one."""

    def __init__(self, session: int) -> None:
        self._session = session
        self._sessions = {session}
        self._known: dict[int, bool] = {session: False}

    def has(self, pid: int) -> bool:
        """Whether a process belongs to the program. The leader of the session does not."""
        found = self._known.get(pid)
        if found is None:
            found = self._known[pid] = self._belongs(pid)
        return found

    def _belongs(self, pid: int) -> bool:
        parent, session = _origin(pid)
        if session in self._sessions:
            return True
        if parent != self._session and not self._known.get(parent):
            return False
        self._sessions.add(session)
        return True

    def kill(self) -> None:
        """Kill all of them, those too that did nothing here so far."""
        for entry in os.scandir("/proc"):
            if entry.name.isdigit() and int(entry.name) != self._session:
                _, session = _origin(int(entry.name))
                if session in self._sessions:
                    with suppress(ProcessLookupError):
                        os.kill(int(entry.name), signal.SIGKILL)


def _origin(pid: int) -> tuple[int, int]:
    """Return parent and session of a process; zeros when it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return 0, 0
    _, parent, _, session, *_ = text.rpartition(b")")[2].split(maxsplit=4)
    return int(parent), int(session)


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text(errors="replace").rstrip("\n")
    except OSError:
        return "?"


class Watch:
    """Comes between a program and the files. `settle`: shows clients what a disturbance changed.

    `operations`: those of the program so far. `reached`: whether the aim was met.
    """

    def __init__(self, machine: Machine, settle: Callable[[], None]) -> None:
        self._machine = machine
        self._settle = settle
        self.names = Names()
        self.operations: list[Operation] = []
        self.reached = False
        self._processes = Processes(0)
        self._aim: Aim | None = None
        self._counts: Counter[tuple[str, str, str]] = Counter()
        # Calls that are to be repeated: they are no other operations.
        self._unfinished: set[tuple[str, int, int]] = set()

    def begin(self, session: int, aim: Aim | None) -> None:
        """Look at the program of a session from now on."""
        self.operations = []
        self.reached = False
        self._processes, self._aim = Processes(session), aim
        self._counts.clear()
        self._machine.calls.intercept(self._around)

    def end(self) -> None:
        """Look no more."""
        self._machine.calls.intercept(None)

    def disturb(self, disturbance: Disturbance) -> None:
        """Do what a disturbance does to the machine."""
        act(self._machine, disturbance, self.names.real(disturbance.device))
        self._settle()

    def _around(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        kind = _KINDS[name]

        def watched(node: Node, *rest: Any, **named: Any) -> Any:
            pid = self._machine.kernel.caller.pid
            if (kind == "read" and rest[1] != 0) or not self._processes.has(pid):
                return call(node, *rest, **named)
            unfinished = (kind, node.ino, pid)
            if unfinished in self._unfinished:
                self._unfinished.discard(unfinished)
            elif not self._enter(kind, node, rest[1] if kind == "write" else b"", pid):
                return self._killed(lambda: call(node, *rest, **named))
            try:
                return call(node, *rest, **named)
            except (Blocked, TakesLong):
                self._unfinished.add(unfinished)
                raise
            except KernelError as refusal:
                self.operations[-1] = replace(self.operations[-1], result=refusal.name)
                raise

        return watched

    def _enter(self, kind: str, node: Node, data: bytes, pid: int) -> bool:
        """Record an operation and disturb it if it is the aim.

        Return False when the program is to be killed after it. Raises KernelError.
        """
        operation = self._recorded(kind, node, data, pid)
        self.operations.append(operation)
        if self.reached or self._aim is None or self._aim.key != operation.key:
            return True
        self.reached = True
        disturbance = self._aim.disturbance
        if disturbance.kind == "errno":
            self.operations[-1] = replace(operation, result=disturbance.name)
            raise KernelError(_NUMBERS[disturbance.name], "a sweep")
        if disturbance.kind == "kill":
            if disturbance.name == "after":
                return False
            self._processes.kill()
            raise KernelError(EINTR, "the program was killed")
        self.disturb(disturbance)
        return True

    def _killed(self, call: Callable[[], Any]) -> Any:
        try:
            return call()
        finally:
            self._processes.kill()

    def _recorded(self, kind: str, node: Node, data: bytes, pid: int) -> Operation:
        names, text = self.names, data[:LONGEST_TEXT].decode("latin-1")
        path = names.normal(node.path)
        process = _command(pid)
        nth = self._counts[kind, path, process]
        self._counts[kind, path, process] += 1
        return Operation(
            number=len(self.operations) + 1,
            kind=kind,
            path=path,
            process=process,
            nth=nth,
            text=names.normal(text),
            errnos=_declared(kind, node),
            device=names.normal(device_of(self._machine, node.path, text)),
        )


def _declared(kind: str, node: Node) -> tuple[str, ...]:
    """Return the errnos that a file declares for a kind of call."""
    if not isinstance(node, File) or kind not in ("read", "write"):
        return ()
    if kind == "read" and node.row.store is not None:
        # They are those of its writes.
        return ()
    return tuple(ERRNO_NAMES[number] for number in node.row.errors)
