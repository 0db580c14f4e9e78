"""Does the operations of a recording on a machine; one method for each operation."""

from __future__ import annotations

import os
import re
from collections.abc import Callable

from fakesys.core.events import Task, Uevent
from fakesys.machine.machine import Machine
from tests.replay_ap.compare import NOTHING_PASSED, Passed
from tests.replay_ap.host import Answer, Held, Host, Writer, answer
from tests.replay_ap.snapshot import queue_state, snapshot
from tests.replay_ap.words import escaped, unescaped

FLAGS = {"r": os.O_RDONLY, "w": os.O_WRONLY, "rw": os.O_RDWR}
SNAPSHOT_SECONDS, SNAPSHOT_STEPS = 0.2, 10
RESET = re.compile(r"w \S*/([0-9a-f]{2}\.[0-9a-f]{4})/reset ")
NO_ID = ("EBADF", "id")
DONE = ("0", "")
# The recording program is process 1 of its machine.
TASK = Task(pid=1, comm="init", cpu=0)


class Player:
    """One program that works through a recording.

    `held`: its descriptors by name; `writers`: its child processes that write.
    """

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.host = Host(machine)
        self.held: dict[str, Held] = {}
        self.writers: dict[str, Writer] = {}
        self.passed = NOTHING_PASSED
        machine.kernel.bus.task = TASK
        self._uevents = machine.control.uevents.last
        self._lines = machine.control.log.last

    def play(self, operation: str) -> tuple[str, str]:
        """Errno by name and text, escaped as in a recording."""
        verb, _, rest = operation.partition(" ")
        if verb != "snap":
            reset = RESET.match(operation)
            self.passed = Passed(reset[1], ()) if reset else NOTHING_PASSED
        method: Callable[[str], tuple[str, str]] = getattr(self, f"do_{verb}")
        result = method(rest.lstrip(" "))
        self.machine.fs.settle()
        return result

    # Files

    def do_r(self, path: str) -> tuple[str, str]:
        return _told(self.host.read(path))

    def do_w(self, rest: str) -> tuple[str, str]:
        path, _, text = rest.partition(" ")
        return self._write(path, text.encode() + b"\n")

    def do_wn(self, rest: str) -> tuple[str, str]:
        path, _, text = rest.partition(" ")
        return self._write(path, unescaped(text))

    def _write(self, path: str, data: bytes) -> tuple[str, str]:
        errno, taken = self.host.write(path, data)
        short = errno == "0" and taken != len(data)
        return errno, f"short {taken} of {len(data)}" if short else ""

    def do_ls(self, path: str) -> tuple[str, str]:
        return _told(answer(lambda: " ".join(self.host.names(path)).encode()))

    def do_lk(self, path: str) -> tuple[str, str]:
        return _told(answer(lambda: self.host.target(path)))

    def do_st(self, path: str) -> tuple[str, str]:
        return _told(answer(lambda: self.host.status(path)))

    def do_mk(self, path: str) -> tuple[str, str]:
        return _told(answer(lambda: self.host.change("mk", path)))

    def do_rmdir(self, path: str) -> tuple[str, str]:
        return _told(answer(lambda: self.host.change("rmdir", path)))

    def do_rm(self, path: str) -> tuple[str, str]:
        return _told(answer(lambda: self.host.change("rm", path)))

    def do_cr(self, path: str) -> tuple[str, str]:
        return _told(answer(lambda: self.host.change("cr", path)))

    # Descriptors that are kept

    def do_open(self, rest: str) -> tuple[str, str]:
        name, path, mode = rest.split()

        def call() -> None:
            self.held[name] = Held(self.host, path, FLAGS[mode])

        return _told(answer(call))

    def do_fr(self, name: str) -> tuple[str, str]:
        held = self.held.get(name)
        return NO_ID if held is None else _told(answer(held.read))

    def do_fs(self, name: str) -> tuple[str, str]:
        held = self.held.get(name)
        if held is None:
            return NO_ID
        held.rewind()
        return DONE

    def do_fw(self, rest: str) -> tuple[str, str]:
        name, _, text = rest.partition(" ")
        held, data = self.held.get(name), unescaped(text)
        if held is None:
            return NO_ID
        taken = len(data)

        def call() -> None:
            nonlocal taken
            taken = held.write(data)

        errno = answer(call).errno
        return errno, "" if taken == len(data) else f"short {taken} of {len(data)}"

    def do_fc(self, name: str) -> tuple[str, str]:
        held = self.held.pop(name, None)
        if held is not None:
            held.close()
        return DONE

    # Processes that may wait

    def do_bgw(self, rest: str) -> tuple[str, str]:
        name, path, text = rest.split(" ", 2)
        self.writers[name] = Writer(self.host, path, text.encode() + b"\n")
        return DONE

    def do_bgq(self, name: str) -> tuple[str, str]:
        writer = self.writers.get(name)
        if writer is None:
            return NO_ID
        writer.go_on()
        if writer.ended is None:
            return "0", "running"
        del self.writers[name]
        return "0", f"done {writer.ended}"

    def do_bgi(self, name: str) -> tuple[str, str]:
        writer = self.writers.get(name)
        if writer is not None:
            writer.signal()
        return self.do_bgq(name)

    do_bgk = do_bgi

    # What the machine tells

    def do_ue(self, _rest: str) -> tuple[str, str]:
        journal = self.machine.control.uevents
        events = [event for _, event in journal.since(self._uevents)]
        self._uevents = journal.last
        return "0", escaped("".join(map(_line, events)).encode("latin-1"))

    def do_log(self, _rest: str) -> tuple[str, str]:
        journal = self.machine.control.log
        lines = [line for _, line in journal.since(self._lines)]
        self._lines = journal.last
        return "0", escaped("".join(f"{line}\n" for line in lines).encode("latin-1"))

    def do_snap(self, _rest: str) -> tuple[str, str]:
        # It reads hundreds of files before it comes to those that tell of resets.
        states = []
        for _ in range(SNAPSHOT_STEPS):
            states.append(queue_state(self.host, self.passed.queue) if self.passed.queue else "")
            self.machine.clock.advance(SNAPSHOT_SECONDS / SNAPSHOT_STEPS)
        text = snapshot(self.host)
        if self.passed.queue:
            states.append(queue_state(self.host, self.passed.queue))
            self.passed = self.passed._replace(states=tuple(states))
        return "0", escaped(text.encode())

    def do_zap(self, apqn: str) -> tuple[str, str]:
        told = []
        for name, file in (("rapq", "rapq"), ("zapq", "resets")):
            found = self.host.read(f"kernel/debug/fakesys/ap/queues/{apqn}/{file}")
            told.append(f"{name} {found.data.decode().strip()}")
        return found.errno, " ".join(told)

    # What is done to the machine

    def do_scan(self, _rest: str) -> tuple[str, str]:
        return self._write("bus/ap/scans", b"1\n")

    def do_sleep(self, milliseconds: str) -> tuple[str, str]:
        self.machine.clock.advance(int(milliseconds) / 1000)
        return DONE

    def do_mod(self, rest: str) -> tuple[str, str]:
        module, on = rest.split()
        assert module == "vfio_ap"
        return self.host.tell("vfio_ap_loaded", on), ""

    def do_hw(self, rest: str) -> tuple[str, str]:
        """Change the machine, then scan, as the recording program does."""
        result = self.do_hwn(rest)
        if result[0] == "0":
            self.do_scan("")
        return result

    def do_hwn(self, rest: str) -> tuple[str, str]:
        words = rest.split()
        return self.host.tell(*_command(words)), ""

    def do_guest(self, rest: str) -> tuple[str, str]:
        verb, name, *more = rest.split()
        if verb == "new":
            return self.host.tell("new_guest", name), ""
        if verb == "del":
            return self.host.tell("del_guest", name), ""
        if verb == "attach":
            return self.host.tell(f"guests/{name}/attach", more[0]), ""
        if verb in ("detach", "reset"):
            return self.host.tell(f"guests/{name}/{verb}", "1"), ""
        return "0", self.host.guest_masks(name)


def _command(words: list[str]) -> tuple[str, str]:
    """Control file of the AP part and text for a change of the machine."""
    verb, target, *more = words
    if verb == "card":
        return "new_card", " ".join(words[1:4])
    if verb == "uncard":
        return "del_card", target
    if verb == "rc":
        return f"queues/{target}/rc", f"0x{more[0]}"
    if verb in ("cfg", "cs"):
        switch = "config" if verb == "cfg" else "checkstop"
        return f"cards/{int(target, 0):02x}/{switch}", more[0]
    masks = {"apm": "adapters", "aqm": "domains", "adm": "control_domains"}
    return f"lpar/{masks[verb]}", target


def _line(event: Uevent) -> str:
    fields = {"SUBSYSTEM": event.subsystem, **event.env}
    words = " ".join(f"{key}={value}" for key, value in fields.items() if value != "")
    return f"{event.action}@{event.devpath} {words}\n"


def _told(found: Answer) -> tuple[str, str]:
    return found.errno, escaped(found.data)
