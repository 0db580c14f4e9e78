"""The `VcpuRun` of every vCPU, as the model of virtual machines in `kvm` asks for it."""

from __future__ import annotations

from msgspec.structs import replace

from fakesys.subsystems.kvm.model import Kvm
from fakesys.subsystems.kvm.vcpu_run.clock import synchronize_tsc, trace_master_clock
from fakesys.subsystems.kvm.vcpu_run.halt_poll import HaltPolling
from fakesys.subsystems.kvm.vcpu_run.params import processor_of
from fakesys.subsystems.kvm.vcpu_run.pause_loop import PauseLoop
from fakesys.subsystems.kvm.vcpu_run.processor import Processor
from fakesys.subsystems.kvm.vcpu_run.run import VcpuRun
from fakesys.subsystems.kvm.vm import Irqchip, Vcpu, Vm, VmOptions


class VcpuRuns:
    """Entries and exits by vCPU. `processors`: what the host had when each VM was made.

    `settings`: values, as text, of the parameters of the modules kvm and kvm_amd that were written
    or given at the load and that are no `Param`. `polling`, `pause_loop`: those of them about
    halt polling, and about guests that spin.
    """

    def __init__(self, kvm: Kvm, halt_poll_shrink: int, settings: dict[str, str]) -> None:
        self.kvm = kvm
        self.settings = settings
        self.pause_loop = PauseLoop(self.settings)
        self.polling = HaltPolling(self.settings, halt_poll_shrink)
        self.processors: dict[Vm, Processor] = {}
        self._runs: dict[Vcpu, VcpuRun] = {}

    def of(self, vcpu: Vcpu) -> VcpuRun:
        """Return the entries and exits of a vCPU."""
        return self._runs[vcpu]

    def check_vm(self, irqchip: Irqchip, options: VmOptions) -> None:
        """Accept every VM."""

    def add_vm(self, vm: Vm, options: VmOptions) -> None:
        """Let the VM run on the processor that the host has now."""
        processor = processor_of(self.kvm.params)
        if self.settings.get("nrips") == "0":
            processor = replace(processor, next_rip=False)
        self.processors[vm] = processor
        trace_master_clock(self.kvm.kernel.bus, used=False)

    def check_irqchip(self, vm: Vm) -> None:
        """Accept every irqchip."""

    def add_irqchip(self, vm: Vm) -> None:
        """Do nothing: an irqchip does not concern exits."""

    def check_vcpu(self, vm: Vm, vcpu_id: int) -> None:
        """Accept every vCPU."""

    def add_vcpu(self, vcpu: Vcpu, *, start: bool) -> None:
        """Add a vCPU whose thread is in user space; another extension starts it."""
        self.new_run(vcpu).clock_request = True
        synchronize_tsc(self.kvm.kernel.bus, vcpu, self.kvm.kernel.clock.now_ns)

    def new_run(self, vcpu: Vcpu) -> VcpuRun:
        """Return the entries and exits of a vCPU before anything was done to it."""
        bus, processor = self.kvm.kernel.bus, self.processors[vcpu.vm]
        run = self._runs[vcpu] = VcpuRun(bus, vcpu.id, vcpu.stats, processor)
        run.pause_loop = self.pause_loop
        run.now_ns = lambda: self.kvm.kernel.clock.now_ns
        return run

    def close_vcpu(self, vcpu: Vcpu) -> None:
        """Do nothing: the thread has left already."""

    def hold_vcpu(self, vcpu: Vcpu) -> None:
        """Do nothing: the model of interrupts brings the thread to user space."""

    def is_in_guest(self, vcpu: Vcpu) -> bool:
        """Return whether the vCPU runs the guest; False once its VM is removed."""
        run = self._runs.get(vcpu)
        return run is not None and run.in_guest

    def remove_vm(self, vm: Vm) -> None:
        """Drop what belongs to a VM."""
        del self.processors[vm]
        for vcpu in vm.vcpus.values():
            del self._runs[vcpu]
