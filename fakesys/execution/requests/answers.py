"""What the relay does with each system call that it is handed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fakesys.execution.base.places import FAKE
from fakesys.execution.requests import messages, mounts, seccomp
from fakesys.execution.requests.modules import ModuleCalls
from fakesys.execution.requests.seccomp import Answer, Call, Handlers

Handler = Callable[[Call], Answer | None]


def handlers(changed: Callable[[], None]) -> Handlers:
    """Return the handlers; `changed` is called when modules were loaded or removed."""
    machine = seccomp.architecture()
    if machine is None:
        return {}
    modules = ModuleCalls(changed)
    return {
        machine.mount: mounts.mount,
        machine.fsopen: mounts.open_type,
        machine.init_module: _of_this_view(modules.init),
        machine.finit_module: _of_this_view(modules.finit),
        machine.delete_module: _of_this_view(modules.delete),
        machine.syslog: _of_this_view(messages.MessageCalls().syslog),
    }


def _of_this_view(handler: Handler) -> Handler:
    """Leave calls from a view within this view to the kernel: they are for another machine."""

    def handle(call: Call) -> Answer | None:
        try:
            shown = Path(f"/proc/{call.pid}/root{FAKE}").stat().st_dev
        except FileNotFoundError:
            return handler(call)
        return handler(call) if shown == FAKE.stat().st_dev else None

    return handle
