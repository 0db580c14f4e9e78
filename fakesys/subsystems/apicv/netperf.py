"""A guest that receives from the network: interrupts of an assigned device over simulated time."""

from __future__ import annotations

from msgspec import Struct

from fakesys.core.scheduling.resched import cond_resched_killable, might_resched
from fakesys.subsystems.apicv import presets
from fakesys.subsystems.apicv.devices import posted
from fakesys.subsystems.apicv.engine import vcpu_run
from fakesys.subsystems.apicv.model import Apicv
from fakesys.subsystems.apicv.presets import DEVICE_VECTOR, VmSpec
from fakesys.subsystems.apicv.state.vcpu import MsiRoute
from fakesys.subsystems.kvm.stats import STATS

DEVICE, HOST_IRQ, GSI = "nic", 40, 24
_EXITS = {stat.key: stat for stat in STATS}["exits"]


class Load(Struct, frozen=True):
    """`seconds` of a device with `rate` interrupts per second, dealt out to all vCPUs in turn."""

    rate: int
    seconds: int


def run(apicv: Apicv, spec: VmSpec, load: Load) -> str:
    """Create the VM and let its devices interrupt it, one device per vCPU.

    Return how many interrupts and exits there were, and exits per second. Raises EEXIST, EINVAL
    before any change, EINTR after a signal.
    """
    might_resched()
    with apicv.kvm.commands.running(spec.name):
        vm = presets.make(apicv, spec)
        for vcpu in list(vm.vcpus.values())[1:]:
            vcpu_run.start(vm, vcpu)
        for number in vm.vcpus:
            route = MsiRoute(DEVICE_VECTOR, number)
            posted.add(vm, f"{DEVICE}{number}", HOST_IRQ + number, GSI + number, route)
        before = vm.kvm.read(_EXITS)
        interrupts = load.rate * load.seconds
        for number in range(interrupts):
            posted.fire(vm, f"{DEVICE}{number % len(vm.vcpus)}")
            cond_resched_killable()
        exits = vm.kvm.read(_EXITS) - before
    return f"interrupts={interrupts} exits={exits} exits_per_second={exits // load.seconds}"
