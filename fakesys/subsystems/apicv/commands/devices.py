"""Commands for assigned devices and the GA log, and for a VM as a whole."""

from __future__ import annotations

from errno import EBUSY, EEXIST, EINVAL, ENODEV, ENOENT

from fakesys.core.commands import (
    Args,
    Operand,
    Option,
    Verb,
    number,
    word,
    words_of,
)
from fakesys.subsystems.apicv.chips.lapic import Mode
from fakesys.subsystems.apicv.commands.operands import (
    COUNT,
    DESTINATION,
    VEC,
    apic_id,
    apic_vm,
    delivery_mode,
)
from fakesys.subsystems.apicv.devices import posted
from fakesys.subsystems.apicv.model import Apicv
from fakesys.subsystems.apicv.state.vcpu import MsiRoute
from fakesys.subsystems.kvm.files.commands import NO_VM, VM, vm_of

DEVICE = Operand("D", word)
HOST_IRQ = Option("irq", number, 0, "number of the host's interrupt", required=True)
DEVICE_GSI = Option("gsi", number, 0, "GSI of the MSI route", required=True)
DEVICE_DST = Option("dst", apic_id, 0, "APIC id, or logical destination", required=True)
DEVICE_DM = Option("dm", delivery_mode, Mode.FIXED, "delivery mode")
DEVICE_TRIGGER = Option("trig", words_of("edge", "level"), "edge", "trigger mode")
VM_ID = Option("vmid", number, 0, "AVIC id of the VM", required=True)
VCPU_ID = Option("vcpu", number, 0, "id of the vCPU", required=True)
HANDLER = Operand("auto|manual", word, one_of=("auto", "manual"))
NO_DEVICE = {ENOENT: "there is no such VM or device"}


def _route(args: Args) -> MsiRoute:
    return MsiRoute(
        vector=args[VEC],
        dest=args[DEVICE_DST],
        logical=args[DESTINATION] == "logical",
        mode=args[DEVICE_DM],
        level=args[DEVICE_TRIGGER] == "level",
    )


def _dev_add(apicv: Apicv, args: Args) -> str:
    posted.add(apic_vm(apicv, args), args[DEVICE], args[HOST_IRQ], args[DEVICE_GSI], _route(args))
    return ""


def _dev_route(apicv: Apicv, args: Args) -> str:
    posted.reroute(apic_vm(apicv, args), args[DEVICE], _route(args))
    return ""


def _dev_fire(apicv: Apicv, args: Args) -> str:
    posted.fire(apic_vm(apicv, args), args[DEVICE], args[COUNT])
    return ""


def _dev_del(apicv: Apicv, args: Args) -> str:
    posted.remove(apic_vm(apicv, args), args[DEVICE])
    return ""


def _ga_log(apicv: Apicv, args: Args) -> str:
    posted.notify_ga_log(apicv.by_vm_id(args[VM_ID]), apicv.tracer, args[VM_ID], args[VCPU_ID])
    return ""


def _sev(apicv: Apicv, args: Args) -> str:
    apicv.start_sev(vm_of(apicv.kvm, args))
    return ""


def _handler(apicv: Apicv, args: Args) -> str:
    apic_vm(apicv, args).auto_handler = args[HANDLER] == "auto"
    return ""


def _devices() -> tuple[Verb[Apicv], ...]:
    route = (VEC, DEVICE_DST, DESTINATION, DEVICE_DM, DEVICE_TRIGGER)
    return (
        Verb(
            words=(VM, "dev", "add", DEVICE),
            options=(HOST_IRQ, DEVICE_GSI, *route),
            run=_dev_add,
            errors=NO_VM
            | {EEXIST: "the name is in use", ENODEV: "there are no local APICs in the kernel"},
            doc="An interrupt of an assigned device.",
        ),
        Verb(
            words=(VM, "dev", "route", DEVICE),
            options=route,
            run=_dev_route,
            errors=NO_DEVICE,
            doc="The guest writes another message into the device.",
        ),
        Verb(
            words=(VM, "dev", "fire", DEVICE, COUNT),
            run=_dev_fire,
            errors=NO_DEVICE,
            doc="The device raises its interrupt.",
        ),
        Verb(
            words=(VM, "dev", "del", DEVICE),
            run=_dev_del,
            errors=NO_DEVICE,
            doc="The device is taken away.",
        ),
        Verb(
            words=("galog",),
            options=(VM_ID, VCPU_ID),
            run=_ga_log,
            doc="The IOMMU's GA log names a VM and vCPU; unknown ones are only traced.",
        ),
    )


def _vm() -> tuple[Verb[Apicv], ...]:
    return (
        Verb(
            words=(VM, "sev", "init"),
            run=_sev,
            errors=NO_VM | {EINVAL: "there are vCPUs", EBUSY: "it is an SEV guest already"},
            doc="KVM_SEV_INIT.",
        ),
        Verb(
            words=(VM, "handler", HANDLER),
            run=_handler,
            errors=NO_VM,
            doc="auto: every interrupt that a guest gets is ended at once, and IRET follows.",
        ),
    )


VERBS: tuple[Verb[Apicv], ...] = (*_devices(), *_vm())
