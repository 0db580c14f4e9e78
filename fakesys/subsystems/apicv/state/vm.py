"""The state that interrupt virtualization keeps of each VM, and which vCPUs are tracked singly.

In a mask of vCPUs, bit N is the vCPU with id N. Every vCPU is in one of three groups:

* `tracked`: its own fields are true. Those that the present command changed are `touched` too.
* `batched`: in guest, with nothing pending that distinguishes it from the others. A request to all
  vCPUs is recorded once for all of them, in `batch`: a flip of a VM with 255 vCPUs costs as much
  as one with 2.
* neither: not in guest. Of all requests that were made, the last one is pending on it.

`engine/requests.py` moves vCPUs between the groups.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from msgspec import Struct

from fakesys.core.clock import Timer
from fakesys.subsystems.apicv.chips.ioapic import Ioapic
from fakesys.subsystems.apicv.chips.pic import Pic
from fakesys.subsystems.apicv.chips.pit import Pit
from fakesys.subsystems.apicv.chips.rtc import RtcStatus
from fakesys.subsystems.apicv.state.access_page import AccessPage, GuestMemory
from fakesys.subsystems.apicv.state.apic_map import ApicMap
from fakesys.subsystems.apicv.state.avic_tables import AvicTables
from fakesys.subsystems.apicv.state.inhibit import make_inhibit
from fakesys.subsystems.apicv.state.module import Module
from fakesys.subsystems.apicv.state.policy import ApicvPolicy
from fakesys.subsystems.apicv.state.tracer import ApicTracer
from fakesys.subsystems.apicv.state.vcpu import ApicVcpu, AssignedIrq, IrqSource
from fakesys.subsystems.kvm.vcpu_run.halt_poll import HaltPolling
from fakesys.subsystems.kvm.vm import Irqchip, Vm

MEMBER_CACHE = 64
"""Masks whose members are remembered."""


def takes_irqchip(policy: ApicvPolicy, module: Module, irqchip: Irqchip) -> bool:
    """Return whether AVIC works with this irqchip, if it works at all."""
    return irqchip is Irqchip.SPLIT or policy.kernel_irqchip or module.any_irqchip


class Batch(Struct):
    """What happened to every batched vCPU since the VM was created.

    `exits`, `events`: how many exits and KVM_REQ_EVENTs each of them had. `active`: whether AVIC
    is on on them. `kicked`: they got a request and have not run since. `requests`: how many
    requests to all vCPUs were made; `last_request`: the last one.
    """

    exits: int = 0
    events: int = 0
    active: bool = False
    kicked: bool = False
    requests: int = 0
    last_request: int = 0


class Engine(Struct, frozen=True):
    """Operations that the state of a VM starts itself; the parts above hand them in.

    `request_all(vm, request)` makes an APICv request to every vCPU. `after(vm, seconds, action)`
    runs an action on the VM at a later time, as a command; the timer can be cancelled.
    """

    request_all: Callable[[ApicVm, int], None]
    after: Callable[[ApicVm, float, Callable[[], None]], Timer]


class ApicVm:
    """One VM.

    `vm_id`: its AVIC id, 0 without AVIC. `inhibit`: whether AVIC is on, and what keeps it off.
    `polling`: parameters of halt polling.
    `running`: mask of vCPUs with IsRunning set in their physical table entry. `devices`: interrupts
    of assigned devices by name. `auto_handler`: interrupt handlers of the guest send their EOI and
    return at once; `handlers`: those that still have to do so, with what they must end.
    `runnable`: vCPUs that a kick or wake-up makes run in the present command. `irr_known`: by
    vector, vCPUs that certainly have it in IRR. `synic_auto_eoi_used`: vCPUs with AutoEOI vectors.
    `eoi_inject`: timers after which the delayed pins of the IOAPIC are sent again.
    """

    def __init__(
        self,
        kvm: Vm,
        policy: ApicvPolicy,
        module: Module,
        tracer: ApicTracer,
        vm_id: int,
        memory: GuestMemory,
        engine: Engine,
    ) -> None:
        self.kvm = kvm
        self.policy = policy
        self.module = module
        self.tracer = tracer
        self.vm_id = vm_id
        self.vcpus: dict[int, ApicVcpu] = {}
        self.map = ApicMap(self.vcpus)
        self.access_page = AccessPage(
            memory,
            policy.access_page_slot,
            follows=policy.page_follows,
            stays=not policy.follows_state,
        )
        self.polling = HaltPolling({}, 0)
        self.inhibit = make_inhibit(
            policy, tracer, self.access_page, lambda request: engine.request_all(self, request)
        )
        self.pic: Pic | None = None
        self.ioapic: Ioapic | None = None
        self.pit: Pit | None = None
        self.eoi_inject: list[Timer] = []
        self.rtc = RtcStatus()
        self.tables = AvicTables()
        self.running = 0
        self.devices: dict[str, AssignedIrq] = {}
        self.synic_auto_eoi_used = 0
        self.sev = False
        self.auto_handler = False
        self.handlers: deque[tuple[ApicVcpu, IrqSource]] = deque()
        self.runnable = 0
        self.tracked = self.touched = self.batched = 0
        self.batch = Batch()
        self.irr_known: dict[int, int] = {}
        self._engine = engine
        self._members: dict[int, list[ApicVcpu]] = {}

    def forget_parts(self) -> None:
        """Let go of what refers to this VM, so that it is freed now and not by a collection."""
        for device in self.devices.values():
            device.target = None
        self.vcpus.clear()
        self._members.clear()
        self.handlers.clear()
        self.pic = None
        self.inhibit = make_inhibit(self.policy, self.tracer, self.access_page, _request_none)

    @property
    def now_ns(self) -> int:
        """The simulated time."""
        return self.kvm.kvm.kernel.clock.now_ns

    @property
    def has_lapics(self) -> bool:
        """Whether the local APICs are in the kernel."""
        return self.kvm.irqchip is not Irqchip.NONE

    @property
    def avic(self) -> bool:
        """Whether this VM can use AVIC at all."""
        used = self.module.avic and self.has_lapics
        return used and takes_irqchip(self.policy, self.module, self.kvm.irqchip)

    def hides_apic(self, vcpu: ApicVcpu) -> bool:
        """Return whether the guest's accesses to the APIC of this vCPU go to plain memory.

        The access page is there for the vCPUs with AVIC, and maps for those without.
        """
        plain = self.access_page.present and self.policy.page_follows
        return plain and not vcpu.apicv_active and not vcpu.lapic.x2apic

    def after(self, seconds: float, action: Callable[[], None]) -> Timer:
        """Run `action` on this VM after so many seconds."""
        return self._engine.after(self, seconds, action)

    def accelerates(self, vcpu: ApicVcpu) -> bool:
        """Return whether AVIC handles the guest's accesses to the APIC of this vCPU.

        In x2APIC mode that takes x2AVIC.
        """
        return vcpu.apicv_active and (self.module.x2avic or not vcpu.lapic.x2apic)

    def serve(self, vcpu: ApicVcpu, vector: int) -> None:
        """Move a vector from IRR to ISR of a vCPU."""
        self.irr_known.clear()
        vcpu.lapic.serve(vector)

    def warn(self, text: str) -> None:
        """Count a warning that the kernel would raise here."""
        self.kvm.kvm.warn(text)

    def warn_once(self, text: str) -> None:
        """Count a warning that the kernel raises once per boot."""
        if text not in self.kvm.kvm.warnings:
            self.warn(text)

    def add(self, vcpu: ApicVcpu) -> None:
        """Add a new vCPU."""
        self.vcpus[vcpu.id] = vcpu
        self._members.clear()

    def members(self, mask: int) -> list[ApicVcpu]:
        """Return the vCPUs in a mask by ascending id."""
        known = self._members.get(mask)
        if known is not None:
            return known
        found = [self.vcpus[vcpu_id] for vcpu_id in bits_of(mask) if vcpu_id in self.vcpus]
        if len(self._members) >= MEMBER_CACHE:
            self._members.clear()
        self._members[mask] = found
        return found

    def lowest(self, mask: int) -> ApicVcpu:
        """Return the vCPU with the lowest id in a mask that is not 0."""
        return self.vcpus[(mask & -mask).bit_length() - 1]

    def is_running(self, vcpu: ApicVcpu) -> bool:
        """Return IsRunning of the vCPU's physical table entry."""
        return bool(self.running >> vcpu.id & 1)

    def set_running(self, vcpu: ApicVcpu, *, running: bool) -> None:
        """Set or clear IsRunning in the vCPU's physical table entry; without `ipiv` it is clear."""
        running = running and self.module.ipiv
        self.running = self.running | vcpu.bit if running else self.running & ~vcpu.bit


def bits_of(mask: int) -> list[int]:
    """Return the numbers of the bits that are set, ascending."""
    if mask & (mask - 1) == 0:
        return [mask.bit_length() - 1] if mask else []
    return [number for number, bit in enumerate(format(mask, "b")[::-1]) if bit == "1"]


def _request_none(_request: int) -> None:
    """Make no request: the VM is gone."""
