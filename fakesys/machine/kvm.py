"""The KVM side of a machine: models, knobs, commands and files of VMs put together."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from fakesys.core.commands import Bound, Interpreter, Option, bind
from fakesys.core.features import FeatureSet
from fakesys.core.kernel import Kernel
from fakesys.machine.profiles import ApicvKernel, MmuKernel
from fakesys.subsystems.apicv.chips.lapic import BASE as APIC_BASE
from fakesys.subsystems.apicv.commands import catalog as apicv_verbs
from fakesys.subsystems.apicv.commands import presets as apicv_presets
from fakesys.subsystems.apicv.files import views as apicv_views
from fakesys.subsystems.apicv.files.state import state as interrupt_state
from fakesys.subsystems.apicv.model import PAGE, Apicv, Memory
from fakesys.subsystems.apicv.state import params as apicv_params
from fakesys.subsystems.kvm.files import commands as verbs
from fakesys.subsystems.kvm.files import control, debugfs
from fakesys.subsystems.kvm.files.control import KernelChoice
from fakesys.subsystems.kvm.model import Kvm
from fakesys.subsystems.kvm.params import Param, Params
from fakesys.subsystems.kvm.state import state as kvm_state
from fakesys.subsystems.kvm.vm import Vm, WatchProcess, watch_no_process
from fakesys.subsystems.kvm_mmu import params as mmu_params
from fakesys.subsystems.kvm_mmu.extension import MmuExtension
from fakesys.subsystems.kvm_mmu.files import commands as mmu_verbs
from fakesys.subsystems.kvm_mmu.files import views as mmu_files
from fakesys.subsystems.kvm_mmu.files.state import state as memory_state
from fakesys.subsystems.kvm_module import kvm_amd as apicv_files
from fakesys.tree.attr import Mount, Row

# Knobs of every part, and what parts add to `vm create`.
PARAMS: tuple[Param[Any], ...] = (*mmu_params.PARAMS, *apicv_params.PARAMS)
VM_OPTIONS: tuple[Option[Any], ...] = (*apicv_params.VM_OPTIONS,)


class KvmSide:
    """KVM with its memory and interrupt models, of the kernels that were chosen last."""

    def __init__(
        self,
        kernel: Kernel,
        mmu: MmuKernel,
        apicv: ApicvKernel,
        watch: WatchProcess = watch_no_process,
    ) -> None:
        self.kvm = Kvm(kernel, Params(PARAMS), daemon=os.getpid, watch=watch)
        self.use(mmu, apicv)

    def use(self, mmu: MmuKernel, apicv: ApicvKernel) -> None:
        """Behave like these kernels. Raises EBUSY while a VM exists."""
        self.kvm.require_idle()
        self.mmu_kernel, self.apicv_kernel = mmu, apicv
        self.kvm.limits = apicv.limits
        self.kvm.params.use_kernel({**mmu.params, **apicv.params})
        memory = self.memory = MmuExtension(self.kvm, mmu.policy)
        self.apicv = Apicv(self.kvm, apicv.policy, _access_page_in(memory))
        self.kvm.extensions = (self.memory, self.apicv)
        self._make_commands()

    @classmethod
    def around(
        cls, kvm: Kvm, memory: MmuExtension, apicv: Apicv, *kernels: *tuple[MmuKernel, ApicvKernel]
    ) -> KvmSide:
        """KVM whose models exist already."""
        side = cls.__new__(cls)
        side.kvm, side.memory, side.apicv = kvm, memory, apicv
        side.mmu_kernel, side.apicv_kernel = kernels
        side._make_commands()
        return side

    @property
    def features(self) -> FeatureSet:
        """What the chosen kernels have."""
        return self.mmu_kernel.features | self.apicv_kernel.features

    def state(self) -> dict[str, Any]:
        """All of KVM as plain data."""
        state = kvm_state(self.kvm)
        for name, found in state["vms"].items():
            vm = self.kvm.vm(name)
            found["memory"] = memory_state(self.memory.memories[vm])
            found["interrupts"] = interrupt_state(self.apicv.of(vm), self.apicv_kernel.name)
        return state

    def mounts(self, choices: Iterable[KernelChoice]) -> tuple[Mount, ...]:
        """Where KVM's files stand."""
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

    def _make_commands(self) -> None:
        self._ctl = Interpreter(self._verbs())
        self._preset = Interpreter(bind(apicv_presets.PRESETS, self.apicv))
        self.kvm.reserved_names = self._ctl.reserved

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


def _access_page_in(memory: MmuExtension) -> Memory:
    """The APIC access page as a slot of the VM's memory."""

    def set_page(vm: Vm, slot_id: int, present: bool) -> int:
        return memory.set_private_slot(vm, slot_id, APIC_BASE, present=present)

    return Memory(
        set_page=set_page,
        is_taken=lambda vm: memory.has_slot_at(vm, APIC_BASE),
        zap=lambda vm: memory.zap(vm, APIC_BASE, PAGE),
    )
