"""The commands of `fakesys/kvm/ctl` that make and end VMs and vCPUs."""

from __future__ import annotations

from collections.abc import Callable
from errno import EBUSY, EEXIST, EINVAL, ENOENT
from typing import Any

from fakesys.core.commands import (
    Args,
    Operand,
    Option,
    Verb,
    flag,
    number,
    number_within,
    word,
    words_of,
)
from fakesys.core.scheduling.resched import might_resched
from fakesys.subsystems.kvm.model import Kvm
from fakesys.subsystems.kvm.params import Params
from fakesys.subsystems.kvm.vm import Irqchip, Vcpu, Vm, VmOptions

# Operands with which the commands of every extension begin.
VM = Operand("VM", word)
VCPU = Operand("K", number)

NAME = Operand("NAME", word)
PID = Option("pid", number_within(1, 4194304), 0, "the owner; the writing process by default")
FD = Option("fd", number_within(0, 1 << 20), 0, "number of the VM's descriptor")
IRQCHIP = Option("irqchip", words_of(*(mode.value for mode in Irqchip)), "kernel", "where it is")
ID: Option[int | None] = Option("id", number, None, "the vCPU's id; the next free one by default")
START = Option("start", flag, True, "0: user space does not run them yet")
COUNT = Option("count", number_within(1, 4096), 1, "how many vCPUs, with ascending ids")

NO_VM = {ENOENT: "there is no such VM"}


def vm_of(kvm: Kvm, args: Args) -> Vm:
    """Return the VM that a command names. Raises ENOENT."""
    return kvm.vm(args[VM])


def vcpu_of(kvm: Kvm, args: Args) -> Vcpu:
    """Return the vCPU that a command names. Raises ENOENT, also when its descriptor is closed."""
    vcpu = kvm.vm(args[VM]).vcpu(args[VCPU])
    vcpu.require_open()
    return vcpu


def _creator(vm_options: tuple[Option[Any], ...]) -> Callable[[Kvm, Args], str]:
    def create_vm(kvm: Kvm, args: Args) -> str:
        irqchip = Irqchip(args[IRQCHIP])
        options = VmOptions({option: args[option] for option in vm_options})
        kvm.create_vm(args[NAME], pid=args[PID], fd=args[FD], irqchip=irqchip, options=options)
        return ""

    return create_vm


def _destroy_vm(kvm: Kvm, args: Args) -> str:
    vm = kvm.vm(args[NAME])
    if vm.vcpus:
        might_resched()
    vm.kill()
    return ""


def _close_vm(kvm: Kvm, args: Args) -> str:
    vm = kvm.vm(args[NAME])
    if vm.vcpus:
        might_resched()
    vm.close_fd()
    return ""


def _add_vcpu(kvm: Kvm, args: Args) -> str:
    vm = vm_of(kvm, args)
    kvm.create_vcpus(vm, count=args[COUNT], first_id=args[ID], start=args[START])
    return ""


def _close_vcpu(kvm: Kvm, args: Args) -> str:
    vcpu_of(kvm, args).close()
    return ""


def _create_irqchip(kvm: Kvm, args: Args) -> str:
    kvm.create_irqchip(vm_of(kvm, args))
    return ""


def verbs(vm_options: tuple[Option[Any], ...] = ()) -> tuple[Verb[Kvm], ...]:
    """Return the commands. `vm_options`: those that extensions add to `vm create`."""
    return (
        Verb(
            words=("vm", "create", NAME),
            options=(PID, FD, IRQCHIP, *vm_options),
            run=_creator(vm_options),
            errors={
                ENOENT: "the module kvm_amd is not loaded",
                EEXIST: "the name, or the owner's descriptor, is in use",
                EINVAL: "not a name, or a bad option",
            },
            doc="KVM_CREATE_VM, then the irqchip that is asked for.",
        ),
        Verb(
            words=("vm", "destroy", NAME),
            run=_destroy_vm,
            errors=NO_VM,
            doc="Closes all vCPU descriptors, then the VM's; open stat files keep the VM. Ends a "
            "command of the VM that is still at work.",
            ends=True,
        ),
        Verb(
            words=("vm", "close", NAME),
            run=_close_vm,
            errors={ENOENT: "there is no such VM, or its descriptor is closed"},
            doc="Closes the VM's own descriptor; its vCPUs keep it.",
        ),
        Verb(
            words=(VM, "irqchip"),
            run=_create_irqchip,
            errors=NO_VM | {EEXIST: "there is one", EINVAL: "a vCPU exists"},
            doc="KVM_CREATE_IRQCHIP.",
        ),
        Verb(
            words=(VM, "vcpu", "add"),
            options=(ID, COUNT, START),
            run=_add_vcpu,
            errors=NO_VM | {EEXIST: "the id is in use", EINVAL: "id or number above the limits"},
            doc="KVM_CREATE_VCPU, then KVM_RUN: vCPU 0 runs, the others wait for INIT.",
        ),
        Verb(
            words=(VM, "vcpu", VCPU, "close"),
            run=_close_vcpu,
            errors={ENOENT: "there is no such VM or vCPU, or it is closed"},
            doc="Closes the vCPU's descriptor; its id and its debugfs directory stay.",
        ),
    )


def modprobe(params: Params) -> Verb[Kvm]:
    """Return `modprobe NAME=VALUE ...` for the module parameters among these."""
    rows = [row for row in params.rows.values() if row.modprobe]
    options: dict[str, Option[Any]] = {
        row.name: Option(row.name, row.parse, None, doc=row.doc) for row in rows
    }

    def run(kvm: Kvm, args: Args) -> str:
        kvm.require_idle()
        for row in rows:
            if row.name in args.given:
                kvm.params.choose(row, args[options[row.name]])
        return ""

    return Verb(
        words=("modprobe",),
        options=tuple(options.values()),
        run=run,
        errors={EBUSY: "a VM exists", EINVAL: "no such parameter, or not a value of it"},
        doc="Loads the module again with these parameters; the others keep their values.",
    )
