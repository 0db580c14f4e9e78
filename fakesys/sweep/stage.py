"""In the daemon of a cell: what its zygote asks for over a socket, one JSON object a line."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import trio

from fakesys.daemon.service import Server
from fakesys.explore.invariants import INVARIANTS
from fakesys.machine.machine import Machine
from fakesys.sweep.disturbances import Disturbance
from fakesys.sweep.operations import Names
from fakesys.sweep.state import state_of
from fakesys.sweep.watch import Aim, Watch

# Simulated seconds after the end of a program, in which what it began comes to an end.
AFTERMATH = 1.0
_PIECE = 1 << 16


def beside(link: socket.socket) -> Callable[[Machine, Server], Awaitable[None]]:
    """Return the task of the daemon's loop that answers on `link`."""

    async def serve(machine: Machine, server: Server) -> None:
        stage = Stage(machine, server.settle)
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(link))
        rest = b""
        while piece := await stream.receive_some(_PIECE):
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                answer = stage.answer(msgspec.json.decode(line))
                await stream.send_all(msgspec.json.encode(answer) + b"\n")

    return serve


class Stage:
    """One machine, as a zygote uses it."""

    def __init__(self, machine: Machine, settle: Callable[[], None]) -> None:
        self._machine = machine
        self._settle = settle
        self._watch = Watch(machine, settle)

    def answer(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Do one thing: `begin`, `disturb` or `finish`."""
        match asked["do"]:
            case "known":
                there = " ".join(self._machine.subsystems.ap.system.mdev_bus.devices)
                self._watch.names = Names(f"{asked['text']} {there}")
            case "begin":
                aim = asked["aim"] and msgspec.convert(asked["aim"], Aim)
                self._watch.begin(asked["session"], aim)
            case "disturb":
                self._watch.disturb(msgspec.convert(asked["disturbance"], Disturbance))
            case "finish":
                return self._finish(asked["seconds"])
        return {}

    def _finish(self, seconds: float) -> dict[str, Any]:
        watch, machine = self._watch, self._machine
        watch.end()
        machine.clock.advance(AFTERMATH + seconds)
        self._settle()
        models = machine.subsystems
        wrong = [line for check in INVARIANTS.values() for line in check(models)]
        return {
            "operations": msgspec.to_builtins(watch.operations),
            "reached": watch.reached,
            "state": watch.names.state(state_of(machine)),
            "violated": [watch.names.normal(line) for line in wrong],
            "bugs": list(machine.control.bugs),
        }
