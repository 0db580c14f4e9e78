"""One command from begin to quiescence.

First what the command itself does, with all lines of devices. Then the vCPUs react in ascending
order, the acting one before them; when none is left the handlers that they started go on.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from fakesys.subsystems.apicv.engine import guest_steps, requests, routing, vcpu_enter
from fakesys.subsystems.apicv.state.vcpu import ApicVcpu
from fakesys.subsystems.apicv.state.vm import ApicVm


@contextmanager
def command(vm: ApicVm, actor: ApicVcpu | None = None) -> Iterator[None]:
    """Do something to the VM, as its vCPU `actor` or from outside; then let all react.

    The body must not raise after its first change.
    """
    with vm.tracer.context():
        vm.tracer.act(actor)
        if actor is not None:
            requests.sync_vcpu(vm, actor)
            actor.kvm.runs()
        yield
        quiesce(vm)


def quiesce(vm: ApicVm) -> None:
    """Let everybody react until nothing is left to do."""
    while step(vm):
        pass
    requests.regroup(vm)


def step(vm: ApicVm) -> bool:
    """One reaction; False when there was none."""
    if vm.pit is not None and vm.pit.due:
        routing.run_pit(vm)
    elif vm.runnable:
        vcpu = vm.lowest(vm.runnable)
        vm.runnable &= ~vcpu.bit
        vcpu_enter.take_turn(vm, requests.sync_vcpu(vm, vcpu))
    elif vm.batch.kicked:
        requests.run_batched(vm)
    elif vm.handlers:
        vcpu, source = vm.handlers.popleft()
        requests.sync_vcpu(vm, vcpu)
        vm.tracer.act(vcpu)
        guest_steps.handle(vm, vcpu, source)
    else:
        return False
    return True
