"""The state that interrupt virtualization keeps of each vCPU. `engine/` changes it."""

from __future__ import annotations

from enum import Enum

from msgspec import Struct, field

from fakesys.subsystems.apicv.chips.lapic import BASE, FLAT, Lapic, Mode
from fakesys.subsystems.apicv.state.avic_tables import PhysicalEntry
from fakesys.subsystems.kvm.vcpu_run.run import VcpuRun
from fakesys.subsystems.kvm.vm import Vcpu

# Requests, by their bit in vcpu->requests (v5.3, v6.18: asm/kvm_host.h).
EVENT = 1 << 14
NMI = 1 << 17
UPDATE = ACTIVATE = 1 << 33
DEACTIVATE = 1 << 34
APICV_REQUESTS = UPDATE | DEACTIVATE


class RunState(Enum):
    """Where the thread of a vCPU is. HALTED and UNINIT are blocked in the kernel."""

    UNINIT = "uninit"
    GUEST = "guest"
    HOST = "host"
    HALTED = "halted"
    PREEMPTED = "preempted"
    STOPPED = "stopped"


class IrqSource(Enum):
    """What delivered a vector: where the guest's handler must send its EOI."""

    PIC = "pic"
    LAPIC = "lapic"
    USER = "user"


class QueuedIrq(Struct, frozen=True):
    """An external interrupt on its way through event injection."""

    vector: int
    source: IrqSource


LOGICAL_ADDRESS = 1 << 2
LEVEL_DATA = 1 << 15


class MsiRoute(Struct):
    """The destination of a device's interrupt, as its MSI message says."""

    vector: int
    dest: int
    logical: bool = False
    mode: Mode = Mode.FIXED
    level: bool = False

    @property
    def address(self) -> int:
        """MSI address; its upper half holds the bits of ids above 255."""
        logical = LOGICAL_ADDRESS if self.logical else 0
        return (self.dest & ~0xFF) << 32 | BASE | (self.dest & 0xFF) << 12 | logical

    @property
    def data(self) -> int:
        """MSI data."""
        return self.vector | self.mode << 8 | (LEVEL_DATA if self.level else 0)


class AssignedIrq(Struct, eq=False):
    """One interrupt of an assigned device.

    `target`: the vCPU that has it in its `ir_list`; None while it is not posted. `guest_mode`: its
    IRTE is in guest (GA) mode; that changes with `apicv_active` of the target.
    """

    name: str
    host_irq: int
    gsi: int
    route: MsiRoute
    target: ApicVcpu | None = None
    guest_mode: bool = False


class AvicVcpu(Struct, eq=False):
    """The AVIC part of struct vcpu_svm (v6.1; `is_running`: v5.3).

    `entry`: the entry in the physical id table; None without one. `ldr_reg`, `dfr_reg`: LDR and DFR
    as the logical id table has them. `is_running`: false while the vCPU is blocked. `ir_list`:
    interrupts that are posted to this vCPU, by name of the device.
    """

    entry: PhysicalEntry | None = None
    ldr_reg: int = 0
    dfr_reg: int = FLAT
    is_running: bool = False
    ir_list: dict[str, AssignedIrq] = field(default_factory=dict)


class Startup(Struct, eq=False):
    """INIT and SIPI: what is pending, and whether the vCPU waits for SIPI after INIT."""

    init_pending: bool = False
    sipi_pending: bool = False
    waits_for_sipi: bool = False


class UserPic(Struct, eq=False):
    """A PIC in user space. `vector`: queued by KVM_INTERRUPT; None for none.

    `wants_window`: user space asked for an exit when the guest takes interrupts again
    (request_interrupt_window of struct kvm_run).
    """

    vector: int | None = None
    wants_window: bool = False


class Cpuid(Struct, eq=False):
    """What KVM_SET_CPUID2 shows to the guest."""

    svm: bool = False
    x2apic: bool = False


class Synic(Struct, eq=False):
    """Hyper-V's synthetic interrupt controller. `auto_eoi`: vectors with AutoEOI, by SINT."""

    enabled: bool = False
    auto_eoi: dict[int, int] = field(default_factory=dict)


class Accounted(Struct, eq=False):
    """How much of the sums in `ApicVm.batch` this vCPU has taken over already."""

    exits: int = 0
    events: int = 0
    requests: int = 0


class ApicVcpu:
    """One vCPU.

    `apicv_active`, `requests` and the counters may lag behind what happened to all vCPUs of the VM:
    call `requests.sync_vcpu` before changing them, `requests.update_fields` before reading.
    `kvm_run`: its entries and exits. `kvm`: the vCPU in KVM's register; `stats` are its counters.
    `run`: where its thread is; `stopped_from`: where it was before STOPPED. `interrupts_on`:
    RFLAGS.IF of the guest.
    `requests`: bits of vcpu->requests. `kicked`: an IPI is on its way to the vCPU in guest.
    `v_irq`: a virtual interrupt is pending that causes an exit when the window opens. `injected`:
    queued for injection again; `event_inj`: injected by the entry that is being made. `in_l2`: it
    runs a nested guest. `block_irq`: KVM_GUESTDBG_BLOCKIRQ. `counts_window`: it holds a unit of
    the VM's count of vCPUs that wait for an interrupt window.
    """

    __slots__ = (
        "accounted",
        "apicv_active",
        "avic",
        "bit",
        "block_irq",
        "blocked_since",
        "counts_window",
        "cpuid",
        "event_inj",
        "id",
        "in_l2",
        "injected",
        "interrupts_on",
        "kicked",
        "kvm",
        "kvm_run",
        "lapic",
        "nmi_pending",
        "requests",
        "run",
        "smi_pending",
        "startup",
        "stats",
        "stopped_from",
        "synic",
        "user_pic",
        "v_irq",
    )  # fmt: skip

    def __init__(self, kvm: Vcpu, kvm_run: VcpuRun) -> None:
        self.kvm = kvm
        self.kvm_run = kvm_run
        self.id = kvm.id
        self.bit = 1 << kvm.id
        self.stats = kvm.stats
        self.run = RunState.GUEST if kvm.id == 0 else RunState.UNINIT
        self.stopped_from = self.run
        self.blocked_since = 0
        self.interrupts_on = True
        self.lapic = Lapic(kvm.id)
        self.apicv_active = False
        self.requests = 0
        self.kicked = False
        self.v_irq = False
        self.injected: QueuedIrq | None = None
        self.event_inj: QueuedIrq | None = None
        self.nmi_pending = False
        self.smi_pending = False
        self.in_l2 = False
        self.block_irq = False
        self.counts_window = False
        self.avic = AvicVcpu()
        self.startup = Startup()
        self.user_pic = UserPic()
        self.cpuid = Cpuid()
        self.synic = Synic()
        self.accounted = Accounted()

    @property
    def blocked(self) -> bool:
        """Whether it sleeps in the kernel until something wakes it."""
        return self.run is RunState.HALTED or self.run is RunState.UNINIT
