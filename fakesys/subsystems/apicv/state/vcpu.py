"""What interrupt virtualization keeps for each vCPU. Behaviour stands in the modules above."""

from __future__ import annotations

from enum import Enum

from msgspec import Struct

from fakesys.subsystems.apicv.chips.lapic import BASE, FLAT, Lapic, Mode
from fakesys.subsystems.apicv.state.avic_tables import PhysicalEntry
from fakesys.subsystems.kvm.vm import Vcpu

# Requests, by their bit in vcpu->requests (v5.3, v6.18: asm/kvm_host.h).
EVENT = 1 << 14
NMI = 1 << 17
UPDATE = ACTIVATE = 1 << 33
DEACTIVATE = 1 << 34
APICV_REQUESTS = UPDATE | DEACTIVATE


class RunState(Enum):
    """Where a vCPU is. HALTED and UNINIT are blocked in the kernel."""

    UNINIT = "uninit"
    GUEST = "guest"
    HOST = "host"
    HALTED = "halted"
    PREEMPTED = "preempted"
    STOPPED = "stopped"


class IrqSource(Enum):
    """Who a delivered vector came from: what the handler must end."""

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
    """Where a device's interrupt goes, as its MSI message says."""

    vector: int
    dest: int
    logical: bool = False
    mode: Mode = Mode.FIXED
    level: bool = False

    @property
    def address(self) -> int:
        """MSI address; ids above 255 in its upper half."""
        logical = LOGICAL_ADDRESS if self.logical else 0
        return (self.dest & ~0xFF) << 32 | BASE | (self.dest & 0xFF) << 12 | logical

    @property
    def data(self) -> int:
        """MSI data."""
        return self.vector | self.mode << 8 | (LEVEL_DATA if self.level else 0)


class AssignedIrq(Struct, eq=False):
    """One interrupt of an assigned device. `target`: the vCPU whose ir_list it is on.

    `guest_mode`: its IRTE is in GA mode at the moment; it is switched with the vCPU.
    """

    name: str
    host_irq: int
    gsi: int
    route: MsiRoute
    target: ApicVcpu | None = None
    guest_mode: bool = False


class ApicVcpu:
    """One vCPU. `apicv_active` and `requests` may lag behind: `crowd.rouse` brings them up.

    `running`: the shadow of its halt state (avic_is_running). `window`: it holds a unit of the
    VM's count of windows. `user_window`: user space asked to be told when a window opens.
    `exits_seen`, `events_seen`, `requests_seen`: how much of the VM-wide counts it has booked.
    """

    __slots__ = (
        "apicv_active",
        "auto_eoi",
        "avic_is_running",
        "block_irq",
        "blocked_since",
        "dfr_reg",
        "entry",
        "event_inj",
        "events_seen",
        "exits_seen",
        "has_svm",
        "id",
        "in_l2",
        "init_pending",
        "injected",
        "interrupts_on",
        "ir_list",
        "kicked",
        "kvm",
        "lapic",
        "ldr_reg",
        "nmi_pending",
        "requests",
        "requests_seen",
        "rip",
        "run",
        "sipi_pending",
        "stats",
        "stopped_from",
        "synic",
        "user_extint",
        "user_window",
        "v_irq",
        "waits_for_sipi",
        "wants_x2apic",
        "window",
    )  # fmt: skip

    def __init__(self, kvm: Vcpu) -> None:
        self.kvm = kvm
        self.id = kvm.id
        self.stats = kvm.stats
        self.run = RunState.GUEST if kvm.id == 0 else RunState.UNINIT
        self.stopped_from = self.run
        self.interrupts_on = True
        self.rip = 0xFFFFFFFF81000000
        self.apicv_active = False
        self.avic_is_running = False
        self.v_irq = False
        self.requests = 0
        self.kicked = False
        self.blocked_since = 0
        self.injected: QueuedIrq | None = None
        self.event_inj: QueuedIrq | None = None
        self.nmi_pending = self.init_pending = self.sipi_pending = False
        self.waits_for_sipi = False
        self.user_extint: int | None = None
        self.user_window = False
        self.window = False
        self.in_l2 = self.has_svm = False
        self.block_irq = False
        self.synic = False
        self.auto_eoi: dict[int, int] = {}
        self.wants_x2apic = False
        self.lapic = Lapic(kvm.id)
        self.entry: PhysicalEntry | None = None
        self.ldr_reg = 0
        self.dfr_reg = FLAT
        self.ir_list: dict[str, AssignedIrq] = {}
        self.exits_seen = self.events_seen = self.requests_seen = 0

    @property
    def bit(self) -> int:
        """Its bit in masks of vCPUs."""
        return 1 << self.id

    @property
    def blocked(self) -> bool:
        """Does it sleep in the kernel until something wakes it?"""
        return self.run is RunState.HALTED or self.run is RunState.UNINIT
