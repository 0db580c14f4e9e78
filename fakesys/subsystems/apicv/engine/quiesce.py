"""One command from begin to quiescence.

First what the command itself does, with all lines of devices. Then the vCPUs react in ascending
order, the acting one before them; when none is left the handlers that they started go on.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from fakesys.subsystems.apicv.engine import guest_steps as guest
from fakesys.subsystems.apicv.engine import requests as crowd
from fakesys.subsystems.apicv.engine import routing as irqs
from fakesys.subsystems.apicv.engine import vcpu_enter as entry
from fakesys.subsystems.apicv.state.vcpu import ApicVcpu
from fakesys.subsystems.apicv.state.vm import ApicVm


@contextmanager
def command(vm: ApicVm, actor: ApicVcpu | None = None) -> Iterator[None]:
    """Do something to the VM, as its vCPU `actor` or from outside; then let all react.

    The body must not raise after its first change.
    """
    with vm.lines.context():
        vm.lines.act(actor)
        if actor is not None:
            crowd.rouse(vm, actor)
            actor.kvm.runs()
        yield
        quiesce(vm)


def quiesce(vm: ApicVm) -> None:
    """Let everybody react until nothing is left to do."""
    while step(vm):
        pass
    crowd.settle(vm)


def step(vm: ApicVm) -> bool:
    """One reaction; False when there was none."""
    if vm.pit is not None and vm.pit.due:
        irqs.run_pit(vm)
    elif vm.todo:
        vcpu = vm.lowest(vm.todo)
        vm.todo &= ~vcpu.bit
        entry.run_on(vm, crowd.rouse(vm, vcpu))
    elif vm.lazy.kicked:
        crowd.catch_up(vm)
    elif vm.handlers:
        vcpu, source = vm.handlers.popleft()
        crowd.rouse(vm, vcpu)
        vm.lines.act(vcpu)
        guest.handle(vm, vcpu, source)
    else:
        return False
    return True
