"""What looks like a mount and is plain files: it says what a test wants, true or not."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from fakesys.machine.machine import Machine

CONTROL = "sys/kernel/debug/fakesys"
VMS = f"{CONTROL}/kvm/vms"
KVM = "sys/kernel/debug/kvm"
PIPES = (f"{CONTROL}/uevents_pipe", f"{CONTROL}/log_pipe", f"{CONTROL}/writers")
TRACE_PIPE = "sys/kernel/tracing/trace_pipe"
FILES = ("profile", "version", "bugs", "last_error", "clock/rate", "clock/advance", "ap/state")
COMMANDS = ("ap/new_card", "ap/del_card", "ap/new_guest", "kvm/apicv_profile")


def texts_of(machine: Machine) -> dict[str, str]:
    """What a page reads of a machine, by path."""
    paths = [f"{CONTROL}/{name}" for name in (*FILES, *COMMANDS)]
    for vm in machine.listdir(VMS):
        paths += [f"{VMS}/{vm}/{name}" for name in machine.listdir(f"{VMS}/{vm}")]
    # Of the counters the sums.
    paths += [f"{KVM}/{name}" for name in machine.listdir(KVM) if "-" not in name]
    found = {}
    for path in paths:
        # Of a file that is only written nothing is read.
        found[path] = ""
        with suppress(OSError):
            found[path] = machine.read(path)
    return found


class PlainMount:
    """Files with these texts, and streams as pipes."""

    def __init__(self, root: Path, texts: Mapping[str, str]) -> None:
        self.root = root
        for path, text in texts.items():
            self.put(path, text)
        for folder in (VMS, KVM):
            (root / folder).mkdir(parents=True, exist_ok=True)
        self._pipes = {}
        for path in (*PIPES, TRACE_PIPE):
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            os.mkfifo(root / path)
            self._pipes[path] = os.open(root / path, os.O_RDWR | os.O_NONBLOCK)

    def close(self) -> None:
        """Close the pipes."""
        for descriptor in self._pipes.values():
            os.close(descriptor)

    def say(self, path: str, text: bytes) -> None:
        """Let a stream give this."""
        os.write(self._pipes[path], text)

    def text(self, path: str) -> str:
        """What a control file has now."""
        return (self.root / CONTROL / path).read_text()

    def put(self, path: str, text: str) -> None:
        """Let a file below the mount say this."""
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def change_state(self, change: Callable[[dict[str, Any]], object]) -> None:
        """Let `ap/state` be another one."""
        state = json.loads(self.text("ap/state"))
        change(state)
        self.put(f"{CONTROL}/ap/state", json.dumps(state))
