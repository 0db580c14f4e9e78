"""The commands of `fakesys/kvm/preset`: create a VM and boot a well-known guest in it."""

from __future__ import annotations

from errno import EEXIST, EINVAL
from typing import Any

from fakesys.core.commands import Args, Option, Verb, flag, number_within, word, words_of
from fakesys.subsystems.apicv import netperf, presets, recorded_boot
from fakesys.subsystems.apicv.model import Apicv
from fakesys.subsystems.apicv.presets import GuestOs, VmSpec
from fakesys.subsystems.apicv.recorded_boot import BootHost, BootSpec
from fakesys.subsystems.apicv.state.params import REINJECT
from fakesys.subsystems.kvm.files.commands import FD, IRQCHIP, PID
from fakesys.subsystems.kvm.vm import Irqchip

VCPUS = Option("vcpus", number_within(1, 4096), 1, "how many vCPUs", required=True)
NAME = Option("name", word, "g", "name of the VM")
SYNIC = Option("hv_synic", flag, False, "each vCPU has Hyper-V's interrupt controller")
CHIP = Option("irqchip", words_of(*(mode.value for mode in Irqchip)), "kernel", IRQCHIP.doc)


RATE = Option("rate", number_within(1, 1_000_000), 10_000, "interrupts per second")
SECONDS = Option("seconds", number_within(1, 10), 1, "simulated seconds")


def _netperf(apicv: Apicv, args: Args) -> str:
    spec = VmSpec(
        name=args[NAME],
        vcpus=args[VCPUS],
        irqchip=Irqchip(args[CHIP]),
        reinject=False,
        pid=args[PID],
        fd=args[FD],
    )
    return netperf.run(apicv, spec, netperf.Load(rate=args[RATE], seconds=args[SECONDS]))


def _preset(name: str, guest_os: GuestOs, doc: str, *more: Option[Any]) -> Verb[Apicv]:
    def run(apicv: Apicv, args: Args) -> str:
        spec = VmSpec(
            name=args[NAME],
            vcpus=args[VCPUS],
            irqchip=Irqchip(args[CHIP]),
            reinject=args[REINJECT],
            synic=args.get(SYNIC),
            pid=args[PID],
            fd=args[FD],
        )
        return presets.boot(apicv, guest_os, spec)

    return Verb(
        words=(name,),
        options=(VCPUS, CHIP, NAME, REINJECT, PID, FD, *more),
        run=run,
        errors={
            EEXIST: "the name, or the owner's descriptor, is in use",
            EINVAL: "too many vCPUs, or no local APICs",
        },
        doc=doc,
    )


MEMORY = Option("mem", number_within(128, 224), 128, "MiB of memory")


def _boot(host: BootHost, args: Args) -> str:
    spec = BootSpec(args[NAME], args[MEMORY], pid=args[PID], fd=args[FD])
    recorded_boot.boot(host, spec)
    return ""


RECORDED: tuple[Verb[BootHost], ...] = (
    Verb(
        words=(presets.RECORDED_BOOT,),
        options=(NAME, MEMORY, PID, FD),
        run=_boot,
        errors={
            EEXIST: "the name, or the owner's descriptor, is in use",
            EINVAL: "the name cannot be one of a VM",
        },
        doc="A boot as it was recorded: 15,039 exits in 95 seconds of simulated time.",
    ),
)

PRESETS: tuple[Verb[Apicv], ...] = (
    _preset("linux-boot", presets.LINUX, "Linux boots: PIT, APs, RTC, an assigned device."),
    _preset("windows2019-boot", presets.WINDOWS, "As linux-boot with 1024 RTC ticks.", SYNIC),
    _preset("freebsd-boot", presets.FREEBSD, "Fewer PIT ticks, more and logical IPIs."),
    Verb(
        words=("netperf",),
        options=(VCPUS, CHIP, NAME, PID, FD, RATE, SECONDS),
        run=_netperf,
        errors={
            EEXIST: "the name, or the owner's descriptor, is in use",
            EINVAL: "too many vCPUs, or no local APICs",
        },
        doc="An assigned device per vCPU interrupts: exits per second.",
    ),
)
