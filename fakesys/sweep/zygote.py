"""A process that holds a machine in memory and forks a world of it for each cell.

Started by `cell.py` with a socket as its only argument; it ends when the other side has ended. It
has no thread, as only such a process may be forked and may enter namespaces.
"""

from __future__ import annotations

import gc
import socket
import sys
from typing import Any

import msgspec

from fakesys.machine.machine import Machine
from fakesys.machine.scenario import Origin
from fakesys.sweep.links import Abandoned, Link, LinkError
from fakesys.sweep.world import World, adopt_orphans, end_children


class MachineSpec(msgspec.Struct, frozen=True):
    """From what the machine of each cell is made."""

    origin: Origin
    clock_rate: float = 1.0
    lockdown: bool = False

    def machine(self) -> Machine:
        """Make it, with all that a daemon would import later."""
        origin = self.origin
        made = Machine(
            origin.profile,
            origin.scenario,
            seed=origin.seed,
            clock_rate=self.clock_rate,
            lockdown=self.lockdown,
        )
        for _ in made.subsystems.kvm.load():
            pass
        return made


def main(descriptor: int) -> None:
    """Serve until the other side has ended."""
    adopt_orphans()
    master = socket.socket(fileno=descriptor)
    link = Link(master)
    made: tuple[object, Machine] | None = None
    try:
        while (task := link.receive()) is not None:
            if made is None or made[0] != task["machine"]:
                made = task["machine"], msgspec.convert(task["machine"], MachineSpec).machine()
                gc.collect()
                gc.freeze()
            try:
                answer = perform(made[1], task, master)
            except (LinkError, OSError) as error:
                answer = {"failed": str(error)}
            link.send(answer)
    except (Abandoned, LinkError):
        pass
    finally:
        end_children()


def perform(machine: Machine, task: dict[str, Any], master: socket.socket) -> dict[str, Any]:
    """Do a cell in a fresh world. Raises LinkError, Abandoned."""
    world = World(machine, task, master)
    try:
        ready = world.runner.receive(60.0)
        if ready is None or "failed" in ready:
            raise LinkError((ready or {}).get("failed", "no private view of a machine"))
        return _performed(world, task)
    finally:
        world.end()


def _performed(world: World, task: dict[str, Any]) -> dict[str, Any]:
    stage, runner = world.stage, world.runner
    command, seconds = task["command"], task["seconds"]
    stage.ask({"do": "known", "text": task["known"]})

    def run(aim: object) -> dict[str, Any]:
        stage.ask({"do": "begin", "session": world.session, "aim": aim})
        words = {"command": command, "seconds": seconds}
        return runner.ask(words, seconds + 60.0) if command else {}

    if task["first"]:
        stage.ask({"do": "disturb", "disturbance": task["first"]})
    result = run(task["aim"])
    if task["last"]:
        stage.ask({"do": "disturb", "disturbance": task["last"]})
    result |= stage.ask({"do": "finish", "seconds": task["wait"]})
    if task["again"] and result["reached"]:
        second = run(None)
        result["again"] = second | stage.ask({"do": "finish", "seconds": task["wait"]})
    if task["check"]:
        words = {"command": task["check"], "seconds": seconds}
        result["check"] = runner.ask(words, seconds + 60.0)
    return result


if __name__ == "__main__":
    main(int(sys.argv[1]))
