"""KVM of a machine: register of VMs, parameters and files, and the models once a VM needs them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from importlib import import_module
from typing import TYPE_CHECKING, Any

from fakesys.core.features import FeatureSet
from fakesys.core.kernel import Kernel
from fakesys.core.scheduling.later import Later
from fakesys.core.scheduling.resched import cond_resched
from fakesys.machine.kernels.apicv import ApicvKernel
from fakesys.machine.kernels.mmu import MmuKernel
from fakesys.subsystems.apicv.state import params as apicv_params
from fakesys.subsystems.kvm.files import control, debugfs
from fakesys.subsystems.kvm.files.control import KernelChoice
from fakesys.subsystems.kvm.model import Kvm
from fakesys.subsystems.kvm.params import Param, Params
from fakesys.subsystems.kvm.state import state as kvm_state
from fakesys.subsystems.kvm.vcpu_run.params import PROCESSOR
from fakesys.subsystems.kvm.vm import WatchProcess, watch_no_process
from fakesys.subsystems.kvm_mmu import params as mmu_params
from fakesys.subsystems.kvm_mmu.vm.nx_huge_pages import NxHugePages
from fakesys.subsystems.kvm_module import kvm_amd as apicv_files
from fakesys.subsystems.kvm_module.kvm import KvmModule
from fakesys.subsystems.kvm_module.modules import register as register_modules
from fakesys.subsystems.modules.known import KVM_AMD, KVM_MODULES
from fakesys.subsystems.modules.model import Modules
from fakesys.tree.attr import Mount

if TYPE_CHECKING:
    from fakesys.machine.kvm.models import KvmModels
    from fakesys.subsystems.apicv.model import Apicv
    from fakesys.subsystems.kvm.vcpu_run.extension import VcpuRuns
    from fakesys.subsystems.kvm_mmu.extension import MmuExtension

# Parameters of every part.
PARAMS: tuple[Param[Any], ...] = (PROCESSOR, *mmu_params.PARAMS, *apicv_params.PARAMS)

_KVM, _MMU, _APICV = (f"fakesys.subsystems.{name}" for name in ("kvm", "kvm_mmu", "apicv"))
# What is imported late, in parts of some milliseconds each; the last one imports what is left.
PARTS = (
    f"{_KVM}.vcpu_run.run",
    f"{_MMU}.shadow.arch",
    f"{_MMU}.mmu.zap",
    f"{_MMU}.mmu.faults",
    f"{_MMU}.tdp.mapping",
    f"{_MMU}.tdp.mmu",
    f"{_MMU}.vm.memory",
    f"{_MMU}.guest.vcpu_run",
    f"{_MMU}.guest.race",
    f"{_MMU}.extension",
    f"{_APICV}.state.vm",
    f"{_APICV}.engine.vcpu_enter",
    f"{_APICV}.model",
    f"{_MMU}.files.commands",
    f"{_APICV}.presets",
    f"{_APICV}.commands.catalog",
    "fakesys.machine.kvm.models",
)


class KvmSubsystem:
    """KVM with its memory and interrupt models, of the kernels that were chosen last.

    The models refer to the register of VMs (`Kvm`), which knows them as its extensions. Another
    kernel has other extensions and other commands; the register and its parameters stay.
    `module`: the parameters of both kernel modules.
    """

    def __init__(self, kvm: Kvm, mmu: MmuKernel, apicv: ApicvKernel) -> None:
        self.kvm = kvm
        self.use(mmu, apicv)

    def use(self, mmu: MmuKernel, apicv: ApicvKernel) -> None:
        """Behave like these kernels. Raises EBUSY while a VM exists."""
        self.kvm.require_idle()
        self.mmu_kernel, self.apicv_kernel = mmu, apicv
        nx = NxHugePages(self.kvm, mmu.policy.nx)
        self.module = KvmModule(self.kvm, settings={}, nx=nx)
        self.kvm.limits = apicv.limits
        self.kvm.params.use_kernel({**mmu.params, **apicv.params})
        self._models = Later(self._made)
        models = self._models
        self.kvm.extend(lambda: models().extensions, lambda: models().ctl.reserved)

    def _made(self) -> KvmModels:
        for _ in self.load():
            cond_resched()
        from fakesys.machine.kvm.models import KvmModels

        return KvmModels(self.kvm, self.mmu_kernel, self.apicv_kernel, self.module)

    @staticmethod
    def load() -> Iterator[None]:
        """Import what only VMs need; yield after every part of some milliseconds."""
        for name in PARTS:
            import_module(name)
            yield

    @property
    def runs(self) -> VcpuRuns:
        """The entries and exits of every vCPU."""
        return self._models().runs

    @property
    def memory(self) -> MmuExtension:
        """The memory of every VM."""
        return self._models().memory

    @property
    def apicv(self) -> Apicv:
        """The interrupts of every VM."""
        return self._models().apicv

    @property
    def features(self) -> FeatureSet:
        """The features of the chosen kernels."""
        return self.mmu_kernel.features | self.apicv_kernel.features

    def state(self) -> dict[str, Any]:
        """Return all of KVM as plain data."""
        state = kvm_state(self.kvm)
        for name, found in state["vms"].items():
            found.update(self._models().state(self.kvm.vm(name)))
        return state

    def mounts(self, choices: Iterable[KernelChoice]) -> tuple[Mount, ...]:
        """Return the mount points of KVM's files; `choices` are files that choose its kernels."""
        models = self._models
        return (
            *debugfs.mounts(self.kvm, (apicv_files.state_row(lambda: models().apicv),)),
            *apicv_files.mounts(self.module),
            *control.mounts(
                self.kvm,
                ctl=Later(lambda: models().ctl),
                preset=Later(lambda: models().preset),
                views=lambda: models().views(),
                choices=choices,
            ),
        )


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
    made = KvmSubsystem(kvm, mmu, apicv)
    if modules is not None:
        register_modules(modules, lambda: made.module)
        modules.at_boot(info.name for info in KVM_MODULES)
        kvm.is_loaded = lambda: modules.is_loaded(KVM_AMD.name)
    return made
