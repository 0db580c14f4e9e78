"""A fresh machine with a private view of it, in forked processes: the world of one cell.

The process that forks (`zygote.py`) holds the machine and all modules; a fork of it is a machine
that nothing has happened to, at the cost of the pages that are written to.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from fakesys.daemon.background import Starting
from fakesys.daemon.service import Service, serve_in_background
from fakesys.execution import namespace, view
from fakesys.execution.base import places
from fakesys.machine.machine import Machine
from fakesys.sweep.links import Link
from fakesys.sweep.stage import beside

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
# Of what a program writes, as much is kept.
MOST_OUTPUT = 1 << 16
_libc = ctypes.CDLL(None, use_errno=True)


class World:
    """The processes of one cell: the daemon (`stage`), and the one that starts programs (`runner`).

    Precondition: this process has no threads, and `adopt_orphans` was called. `task`: with the
    directory and environment of the programs. `master`: as in Link.
    """

    def __init__(self, machine: Machine, task: dict[str, Any], master: socket.socket) -> None:
        own_stage, stage = socket.socketpair()
        own_runner, runner = socket.socketpair()
        alive, self._life = os.pipe()
        self.session = os.fork()
        if self.session == 0:
            for end in (own_stage, own_runner, master):
                end.close()
            os.close(self._life)
            _be_runner(machine, task, Link(runner), stage, alive)
        os.close(alive)
        stage.close()
        runner.close()
        self.stage, self.runner = Link(own_stage, master), Link(own_runner, master)

    def end(self) -> None:
        """End all processes; what they mounted goes with the last of them."""
        self.stage.close()
        self.runner.close()
        os.close(self._life)
        end_children()


def adopt_orphans() -> None:
    """Become the parent of descendants whose parents end."""
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1)


def end_children() -> None:
    """Kill and reap until there is no child, adopted ones included."""
    children = Path("/proc/thread-self/children")
    while True:
        for pid in _children(children):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def _children(file: Path) -> list[int]:
    try:
        return [int(word) for word in file.read_text().split()]
    except OSError:
        # A kernel without this file.
        import psutil

        return [child.pid for child in psutil.Process().children()]


def _die_with_parent() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _be_runner(
    machine: Machine, task: dict[str, Any], link: Link, stage: socket.socket, alive: int
) -> None:
    """Do the rest of a forked child: make the view, then start programs. Never returns."""
    try:
        os.setsid()
        _die_with_parent()
        _enter(machine, task, stage, alive)
        # Lost with the change of rights.
        _die_with_parent()
        link.send({})
        while (asked := link.receive()) is not None:
            link.send(_run(asked["command"], asked["seconds"]))
    except BaseException as error:
        with suppress(Exception):
            link.send({"failed": f"no private view of a machine: {error}"})
    finally:
        os._exit(0)


def _enter(machine: Machine, task: dict[str, Any], stage: socket.socket, alive: int) -> None:
    """Give this process a private view of a machine that a daemon of its own serves."""
    os.environ.clear()
    os.environ.update(task["environment"])
    with suppress(OSError):
        os.chdir(task["directory"])
    runner = os.getpid()
    namespace.enter()

    def show_fake() -> None:
        def prepare() -> Any:
            return serve

        def serve(ready: Any) -> None:
            namespace.join_mounts(runner)
            service = Service(
                point=places.FAKE,
                allow_other=os.geteuid() == 0,
                lives_with=alive,
                beside=beside(stage),
            )
            serve_in_background(machine, service, ready)

        with places.records_of_the_daemon():
            starting = Starting(prepare)
        starting.prepared()
        namespace.leave_to_others()
        starting.serve()

    view.enter(network=task["net"], for_udevd=task["net"], host_writable=False, show_fake=show_fake)
    stage.close()
    os.close(alive)


def _run(command: list[str], seconds: float) -> dict[str, Any]:
    """Run a program in this session; end it when the time is over."""
    output = os.memfd_create("output")
    os.set_blocking(output, True)
    began = time.monotonic()
    try:
        with subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=view.environment(),
            preexec_fn=_die_with_parent,
        ) as program:
            hung = False
            try:
                program.wait(seconds)
            except subprocess.TimeoutExpired:
                hung = True
                program.kill()
        status = program.returncode
        text = os.pread(output, MOST_OUTPUT, 0).decode(errors="replace")
    except OSError as error:
        text, status, hung = f"{command[0]}: {error.strerror}\n", 127, False
    finally:
        os.close(output)
    seconds_taken = time.monotonic() - began
    return {"status": status, "hung": hung, "output": text, "seconds": seconds_taken}
