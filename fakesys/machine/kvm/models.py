"""The models behind VMs, their commands and their views. Import it late: see the folder."""

from __future__ import annotations

from typing import Any

from fakesys.core.commands import Bound, Interpreter, Option, bind
from fakesys.machine.kernels.apicv import ApicvKernel
from fakesys.machine.kernels.mmu import MmuKernel
from fakesys.subsystems.apicv.commands import catalog as apicv_verbs
from fakesys.subsystems.apicv.commands import presets as apicv_presets
from fakesys.subsystems.apicv.files import views as apicv_views
from fakesys.subsystems.apicv.files.state import state as interrupt_state
from fakesys.subsystems.apicv.model import Apicv
from fakesys.subsystems.apicv.recorded_boot import BootHost
from fakesys.subsystems.apicv.state import params as apicv_params
from fakesys.subsystems.kvm.files import commands as verbs
from fakesys.subsystems.kvm.model import Kvm
from fakesys.subsystems.kvm.vcpu_run.extension import VcpuRuns
from fakesys.subsystems.kvm.vm import Vm
from fakesys.subsystems.kvm_mmu.extension import MmuExtension
from fakesys.subsystems.kvm_mmu.files import commands as mmu_verbs
from fakesys.subsystems.kvm_mmu.files import views as mmu_files
from fakesys.subsystems.kvm_mmu.files.state import state as memory_state
from fakesys.subsystems.kvm_module.features import ParamFeature
from fakesys.subsystems.kvm_module.kvm import KvmModule
from fakesys.tree.attr import Row

# What parts add to `vm create`.
VM_OPTIONS: tuple[Option[Any], ...] = (*apicv_params.VM_OPTIONS,)


class KvmModels:
    """The models of memory and interrupts, as these kernels have them, for the VMs of `kvm`.

    `module`: the parameters of both modules. `extensions`: for `Kvm`, in the order in which they
    are told. `ctl`, `preset`: the commands.
    """

    def __init__(self, kvm: Kvm, mmu: MmuKernel, apicv: ApicvKernel, module: KvmModule) -> None:
        # The kernels with this parameter shrink the time of polling by half, not to nothing.
        shrink = 2 if ParamFeature.ENABLE_VIRT_AT_LOAD in mmu.features else 0
        self.runs = VcpuRuns(kvm, shrink, module.settings)
        self.memory = MmuExtension(kvm, mmu.policy, self.runs, module.nx)
        self.apicv = Apicv(kvm, apicv.policy, self.memory, self.runs)
        self.extensions = (self.runs, self.memory, self.apicv)
        self._kvm, self._kernel = kvm, apicv.name
        self.ctl = Interpreter(self._verbs())
        host = BootHost(self.apicv, lambda text: self.ctl.find(text).run())
        own = bind(apicv_presets.PRESETS, self.apicv)
        self.preset = Interpreter((*own, *bind(apicv_presets.RECORDED, host)))

    def views(self) -> tuple[Row, ...]:
        """Return the rows of each directory in `vms` of `fakesys/kvm`."""
        interrupts = apicv_views.views(self.apicv, self._kernel)
        return (*mmu_files.views(self.memory), *interrupts)

    def state(self, vm: Vm) -> dict[str, Any]:
        """Return a VM's memory and interrupts as plain data."""
        return {
            "memory": memory_state(self.memory.memories[vm]),
            "interrupts": interrupt_state(self.apicv.of(vm), self._kernel),
        }

    def _verbs(self) -> tuple[Bound, ...]:
        own = (*verbs.verbs(VM_OPTIONS), verbs.modprobe(self._kvm.params))
        return (
            *bind(own, self._kvm),
            *bind(mmu_verbs.verbs(), self.memory),
            *bind(apicv_verbs.VERBS, self.apicv),
        )
