"""KVM in a machine: models, parameters, commands and files of VMs put together."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from fakesys.core.commands import Bound, Interpreter, Option, bind
from fakesys.core.features import FeatureSet
from fakesys.core.kernel import Kernel
from fakesys.machine.kernels.apicv import ApicvKernel
from fakesys.machine.profiles import MmuKernel
from fakesys.subsystems.apicv.commands import catalog as apicv_verbs
from fakesys.subsystems.apicv.commands import presets as apicv_presets
from fakesys.subsystems.apicv.files import views as apicv_views
from fakesys.subsystems.apicv.files.state import state as interrupt_state
from fakesys.subsystems.apicv.model import Apicv
from fakesys.subsystems.apicv.recorded_boot import BootHost
from fakesys.subsystems.apicv.state import params as apicv_params
from fakesys.subsystems.kvm.files import commands as verbs
from fakesys.subsystems.kvm.files import control, debugfs
from fakesys.subsystems.kvm.files.control import KernelChoice
from fakesys.subsystems.kvm.model import Kvm
from fakesys.subsystems.kvm.params import Param, Params
from fakesys.subsystems.kvm.state import state as kvm_state
from fakesys.subsystems.kvm.vcpu_run.extension import VcpuRuns
from fakesys.subsystems.kvm.vcpu_run.params import PROCESSOR
from fakesys.subsystems.kvm.vm import WatchProcess, watch_no_process
from fakesys.subsystems.kvm_mmu import params as mmu_params
from fakesys.subsystems.kvm_mmu.extension import MmuExtension
from fakesys.subsystems.kvm_mmu.files import commands as mmu_verbs
from fakesys.subsystems.kvm_mmu.files import views as mmu_files
from fakesys.subsystems.kvm_mmu.files.state import state as memory_state
from fakesys.subsystems.kvm_module import kvm_amd as apicv_files
from fakesys.subsystems.kvm_module.features import ParamFeature
from fakesys.subsystems.kvm_module.kvm import KvmModule
from fakesys.subsystems.kvm_module.modules import register as register_modules
from fakesys.subsystems.modules.known import KVM_AMD, KVM_MODULES
from fakesys.subsystems.modules.model import Modules
from fakesys.tree.attr import Mount, Row

# Parameters of every part, and what parts add to `vm create`.
PARAMS: tuple[Param[Any], ...] = (PROCESSOR, *mmu_params.PARAMS, *apicv_params.PARAMS)
VM_OPTIONS: tuple[Option[Any], ...] = (*apicv_params.VM_OPTIONS,)


class KvmSubsystem:
    """KVM with its memory and interrupt models, of the kernels that were chosen last.

    The models refer to the register of VMs (`Kvm`), which knows them as its extensions. Another
    kernel has other extensions and other commands; the register and its parameters stay.
    """

    def __init__(
        self,
        kvm: Kvm,
        runs: VcpuRuns,
        memory: MmuExtension,
        apicv: Apicv,
        mmu_kernel: MmuKernel,
        apicv_kernel: ApicvKernel,
    ) -> None:
        self.kvm, self.runs, self.memory, self.apicv = kvm, runs, memory, apicv
        self.mmu_kernel, self.apicv_kernel = mmu_kernel, apicv_kernel
        self._ctl, self._preset = self._interpreters()

    def use(self, mmu: MmuKernel, apicv: ApicvKernel) -> None:
        """Behave like these kernels. Raises EBUSY while a VM exists."""
        self.kvm.require_idle()
        self.runs, self.memory, self.apicv = extend(self.kvm, mmu, apicv)
        self.mmu_kernel, self.apicv_kernel = mmu, apicv
        self._ctl, self._preset = self._interpreters()

    @property
    def features(self) -> FeatureSet:
        """The features of the chosen kernels."""
        return self.mmu_kernel.features | self.apicv_kernel.features

    def state(self) -> dict[str, Any]:
        """Return all of KVM as plain data."""
        state = kvm_state(self.kvm)
        for name, found in state["vms"].items():
            vm = self.kvm.vm(name)
            found["memory"] = memory_state(self.memory.memories[vm])
            found["interrupts"] = interrupt_state(self.apicv.of(vm), self.apicv_kernel.name)
        return state

    def mounts(self, choices: Iterable[KernelChoice]) -> tuple[Mount, ...]:
        """Return the mount points of KVM's files; `choices` are files that choose its kernels."""
        return (
            *debugfs.mounts(self.kvm, (apicv_files.state_row(self.apicv),)),
            *apicv_files.mounts(self.apicv, self.memory),
            *control.mounts(
                self.kvm,
                ctl=self._ctl,
                preset=self._preset,
                views=self._views(),
                choices=choices,
            ),
        )

    def _interpreters(self) -> tuple[Interpreter, Interpreter]:
        """Return the commands of `ctl` and of `preset`, on the models of now."""
        ctl = Interpreter(self._verbs())
        self.kvm.reserved_names = ctl.reserved
        host = BootHost(self.apicv, lambda text: ctl.find(text).run())
        own = bind(apicv_presets.PRESETS, self.apicv)
        presets = (*own, *bind(apicv_presets.RECORDED, host))
        return ctl, Interpreter(presets)

    def _verbs(self) -> tuple[Bound, ...]:
        own = (*verbs.verbs(VM_OPTIONS), verbs.modprobe(self.kvm.params))
        return (
            *bind(own, self.kvm),
            *bind(mmu_verbs.verbs(), self.memory),
            *bind(apicv_verbs.VERBS, self.apicv),
        )

    def _views(self) -> tuple[Row, ...]:
        interrupts = apicv_views.views(self.apicv, self.apicv_kernel.name)
        return (*mmu_files.views(self.memory), *interrupts)


def kvm_of(
    kernel: Kernel,
    mmu: MmuKernel,
    apicv: ApicvKernel,
    watch: WatchProcess = watch_no_process,
    modules: Modules | None = None,
) -> KvmSubsystem:
    """Return KVM without any VM, as these kernels have it.

    `modules`: the register of the machine, which gets the modules of KVM.
    """
    kvm = Kvm(kernel, Params(PARAMS), daemon=os.getpid, watch=watch)
    made = KvmSubsystem(kvm, *extend(kvm, mmu, apicv), mmu, apicv)
    if modules is not None:
        register_modules(modules, lambda: KvmModule(made.apicv, made.memory))
        modules.at_boot(info.name for info in KVM_MODULES)
        kvm.is_loaded = lambda: modules.is_loaded(KVM_AMD.name)
    return made


def extend(kvm: Kvm, mmu: MmuKernel, apicv: ApicvKernel) -> tuple[VcpuRuns, MmuExtension, Apicv]:
    """Give `kvm` the limits, parameters and extensions of these kernels; return the extensions.

    Precondition: there is no VM.
    """
    kvm.limits = apicv.limits
    kvm.params.use_kernel({**mmu.params, **apicv.params})
    # The kernels with this parameter shrink the time of polling by half, not to nothing.
    runs = VcpuRuns(kvm, 2 if ParamFeature.ENABLE_VIRT_AT_LOAD in mmu.features else 0)
    memory = MmuExtension(kvm, mmu.policy, runs)
    interrupts = Apicv(kvm, apicv.policy, memory, runs)
    kvm.extensions = (runs, memory, interrupts)
    return runs, memory, interrupts
