"""What interrupt virtualization keeps for each VM, and which vCPUs are tracked one by one.

Masks have bit N for the vCPU with id N. Every vCPU is in one of three groups:

* `eager`: its own fields are true. `dirty` of them were changed by the present command.
* `plain`: in guest with nothing of its own going on. A request to all vCPUs is booked for all
  plain ones in one step (`lazy_*`), so a flip costs the same for 2 and for 255 of them.
* neither: out of the guest; of all requests that were made it only has the last one pending.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from msgspec import Struct

from fakesys.subsystems.apicv.chips.ioapic import Ioapic
from fakesys.subsystems.apicv.chips.pic import Pic
from fakesys.subsystems.apicv.chips.pit import Pit
from fakesys.subsystems.apicv.chips.rtc import RtcStatus
from fakesys.subsystems.apicv.state.apic_map import ApicMap
from fakesys.subsystems.apicv.state.avic_tables import LogicalTable, PhysicalTable
from fakesys.subsystems.apicv.state.inhibit import Inhibit
from fakesys.subsystems.apicv.state.policy import ApicvPolicy
from fakesys.subsystems.apicv.state.tracer import ApicTracer
from fakesys.subsystems.apicv.state.vcpu import ApicVcpu, AssignedIrq, IrqSource
from fakesys.subsystems.kvm.vm import Irqchip, Vm

MEMBER_CACHE = 64


class Module(Struct, frozen=True):
    """Parameters of the module as they were when the VM was made; `avic` counts npt in."""

    avic: bool
    nested: bool
    x2avic: bool

    @property
    def highest_id(self) -> int:
        """The highest APIC id that the hardware's table can hold."""
        return 511 if self.x2avic else 254


class Batch(Struct):
    """Sums over what happened to every plain vCPU since the VM was made.

    `active`: whether AVIC is on on them. `kicked`: they got a request and have not run since.
    """

    exits: int = 0
    events: int = 0
    active: bool = False
    kicked: bool = False


class ApicVm:
    """One VM. `marked`: vCPUs whose table entry says that they are running.

    `inhibit`, `map`, `later` are set by `model.Apicv` right after construction.
    `with_entry`: vCPUs that have an entry in the physical table.
    `auto`: the guest's handler ends every interrupt at once. `todo`: vCPUs that must run on.
    `requested`: by vector, vCPUs that are known to have it in IRR.
    `handlers`: vCPUs whose handler must run, with what it must end.
    """

    inhibit: Inhibit
    map: ApicMap
    # RunState something on this VM after so many seconds, to quiescence.
    later: Callable[[float, Callable[[], None]], None]

    def __init__(
        self, kvm: Vm, policy: ApicvPolicy, module: Module, tracer: ApicTracer, vm_id: int
    ) -> None:
        self.kvm = kvm
        self.policy = policy
        self.module = module
        self.tracer = tracer
        self.vm_id = vm_id
        self.now_ns: Callable[[], int] = lambda: kvm.kvm.kernel.clock.now_ns
        self.vcpus: dict[int, ApicVcpu] = {}
        self.pic: Pic | None = None
        self.ioapic: Ioapic | None = None
        self.pit: Pit | None = None
        self.rtc = RtcStatus()
        self.physical = PhysicalTable()
        self.logical = LogicalTable()
        self.devices: dict[str, AssignedIrq] = {}
        self.running = 0
        self.with_entry = 0
        self.synic_auto_eoi_used = 0
        self.sev = False
        self.auto_handler = False
        self.runnable = 0
        self.tracked = self.touched = self.batched = 0
        self.batch = Batch()
        self.requests_made = 0
        self.last_request = 0
        self.irr_known: dict[int, int] = {}
        self.handlers: deque[tuple[ApicVcpu, IrqSource]] = deque()
        self._members: dict[int, list[ApicVcpu]] = {}

    @property
    def has_lapics(self) -> bool:
        """Are the local APICs in the kernel?"""
        return self.kvm.irqchip is not Irqchip.NONE

    @property
    def avic(self) -> bool:
        """Can this VM have AVIC at all?"""
        return self.module.avic and self.has_lapics

    def accelerates(self, vcpu: ApicVcpu) -> bool:
        """Does AVIC do this guest's accesses to its APIC? Without x2AVIC not in x2APIC mode."""
        return vcpu.apicv_active and (self.module.x2avic or not vcpu.lapic.x2apic)

    def serve(self, vcpu: ApicVcpu, vector: int) -> None:
        """A vCPU takes a vector: from IRR to ISR."""
        self.irr_known.clear()
        vcpu.lapic.serve(vector)

    def warn(self, text: str) -> None:
        """The kernel would have warned here."""
        self.kvm.kvm.warn(text)

    def warn_once(self, text: str) -> None:
        """The kernel warns about this once per boot."""
        if text not in self.kvm.kvm.warnings:
            self.warn(text)

    def add(self, vcpu: ApicVcpu) -> None:
        """A vCPU was created."""
        self.vcpus[vcpu.id] = vcpu
        self._members.clear()

    def members(self, mask: int) -> list[ApicVcpu]:
        """The vCPUs in a mask by ascending id."""
        known = self._members.get(mask)
        if known is not None:
            return known
        found = [self.vcpus[vcpu_id] for vcpu_id in bits_of(mask) if vcpu_id in self.vcpus]
        if len(self._members) >= MEMBER_CACHE:
            self._members.clear()
        self._members[mask] = found
        return found

    def lowest(self, mask: int) -> ApicVcpu:
        """The vCPU with the lowest id in a mask that is not empty."""
        return self.vcpus[(mask & -mask).bit_length() - 1]

    def is_running(self, vcpu: ApicVcpu) -> bool:
        """Does the table say that this vCPU is running?"""
        return bool(self.running >> vcpu.id & 1)

    def set_running(self, vcpu: ApicVcpu, *, running: bool) -> None:
        """Write the bit of the vCPU's table entry."""
        bit = 1 << vcpu.id
        self.running = self.running | bit if running else self.running & ~bit


def bits_of(mask: int) -> list[int]:
    """The numbers of the bits in a mask, ascending."""
    if mask & (mask - 1) == 0:
        return [mask.bit_length() - 1] if mask else []
    return [number for number, bit in enumerate(format(mask, "b")[::-1]) if bit == "1"]
