"""A command from its beginning until nothing is left to do.

A real VM does many things at once; here their order is fixed. First comes what the command itself
does, interrupt lines of devices included. Then one step after the other until there is none left;
the first of these that is possible is the next step:

1. the worker of the PIT runs;
2. the runnable vCPU with the lowest id reacts to its kick or wake-up;
3. the batched vCPUs together react to a request;
4. the interrupt handler that was started first goes on.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from fakesys.subsystems.apicv.engine import guest_steps, requests, routing, vcpu_enter
from fakesys.subsystems.apicv.state.vcpu import ApicVcpu
from fakesys.subsystems.apicv.state.vm import ApicVm


@contextmanager
def command(vm: ApicVm, actor: ApicVcpu | None = None) -> Iterator[None]:
    """Surround a change to the VM, made by its vCPU `actor` or by the host; then let all react.

    Precondition of the body: it must not raise after its first change. For example:

        with command(vm, vcpu):
            guest_steps.halt(vm, vcpu)
    """
    with vm.tracer.context():
        vm.tracer.act(actor)
        if actor is not None:
            requests.sync_vcpu(vm, actor)
            actor.kvm.runs()
        yield
        quiesce(vm)


def quiesce(vm: ApicVm) -> None:
    """Make steps until nothing is left to do."""
    while step(vm):
        pass
    requests.regroup(vm)


def step(vm: ApicVm) -> bool:
    """Make one step; return False if there was nothing to do."""
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
        guest_steps.finish_handler(vm, vcpu, source)
    else:
        return False
    return True
