"""What a machine saves of its KVM makes another machine that reads and goes on alike."""

from __future__ import annotations

import random
from itertools import product

import pytest

from fakesys.machine.machine import Machine
from fakesys.machine.profiles import PROFILES
from tests.long import LONG
from tests.saved.kvm_copies import CHOICES, copied, differing, encoded
from tests.whole_machine import CONTROL, CTL, TRACING, WRITES, attempt

HISTORIES = 4 if LONG else 1
# After so many writes a copy is compared.
STEP = 9 if LONG else 25
KVM_WRITES = tuple(
    write
    for write in WRITES[:-2]
    if write[0].startswith((CTL, f"{CONTROL}/kvm", "sys/kernel/debug/kvm", f"{CONTROL}/clock"))
)
MODULE = "sys/module/kvm/parameters"
# What shadow paging, large pages, storms of interrupts and nested guests add to the history.
MORE = (
    (f"{MODULE}/nx_huge_pages", "force\n"),
    (f"{MODULE}/nx_huge_pages_recovery_ratio", "2\n"),
    (f"{MODULE}/halt_poll_ns", "5\n"),
    (f"{MODULE}/ignore_msrs", "1\n"),
    (f"{CONTROL}/clock/advance", "3600\n"),
    *(
        (CTL, f"a {text}\n")
        for text in (
            "vcpu 0 run w=0x21000 w64=0x21008,0x40000067 wloop=0x400000,30",
            "vcpu 0 run w64=0x20008,0 r=0x300000",
            "vcpu 1 setup",
            "vcpu 1 run rloop=0x200000,8,0x200000 wloop=0x21000,3",
            "vcpu 2 setup real=1",
            "vcpu 2 access r 0x1000 n=30",
            "vcpu 2 run_real hex=a3ffffe680f4",
            "vcpu 0 cr3 0x11000",
            "mem big size=64M thp=1",
            "slot 5 gpa=0x40000000 size=64M mem=big",
            "slot 65541 gpa=0x40000000 size=64M mem=big",
            "slot 7 gpa=0x50000000 size=2M ua=0x1000",
            "vcpu 0 access x 0x40000000 n=3000",
            "vcpu 1 access w 0x40000000 n=3000",
            "vcpu 1 access r 0x90000000",
            "notifier protect big off=0 size=64K prot=r",
            "nr_mmu_pages 70",
            "cap 168 1",
            "quirks 1",
            "slot 0 gpa=0 size=8M mem=ram off=0",
            "slot 0 gpa=0 size=0",
            "ioapic 5 vec=0x35 dst=1 trig=level",
            "irq 5 1",
            "handler auto",
            "handler manual",
            "vcpu 1 sti",
            "vcpu 2 start",
            "vcpu 1 apic write 0xd0 0x02000000",
            "vcpu 2 apic write 0xe0 0x0fffffff",
            "vcpu 2 ipi dst=2 vec=0x60 mode=logical",
            "vcpu 1 apic write 0x20 0x05000000",
            "vcpu 0 cpuid svm=1 x2apic=1",
            "vcpu 0 start",
            "vcpu 0 nested vmrun",
            "vcpu 1 preempt",
            "vcpu 1 resume cpu=9",
            "vcpu 1 stop",
            "vcpu 1 guestdbg blockirq=1",
            "vcpu 2 hv synic",
            "vcpu 2 hv sint 2 vec=0x50 autoeoi=1",
            "vcpu 2 apicbase x2apic",
            "vcpu 2 ipi sh=others vec=0x70",
            "dev route nic vec=0x52 dst=2",
            "pit tick 3",
            "pit reinject 0",
            "rtc tick 2",
            "vcpu add id=300",
            "vcpu 300 close",
        )
    ),
    *(
        (CTL, f"{text}\n")
        for text in (
            "lin vcpu 1 cli",
            "lin pit tick 2",
            "lin vcpu 1 sti",
            "lin vcpu 0 ipi sh=others vec=0x70",
            "lin vcpu 2 ipi dst=1 vec=0x71",
            "lin vcpu 2 lvt0 extint",
            "lin vcpu 3 stop",
            "lin vcpu 3 start",
            "win vcpu 1 hlt",
            "win pulse 0",
        )
    ),
    (CTL, "vm create c irqchip=none\n"),
    (CTL, "c vcpu add count=2\n"),
    (CTL, "c extint 0x44\n"),
    (CTL, "c irqchip\n"),
    (CTL, "vm create d irqchip=split pit=0\n"),
    (CTL, "vm close c\n"),
    (CTL, "vm destroy d\n"),
)
KERNELS = (*product(PROFILES, ("",), ("",)), ("6.1", "series-06", "v3"), ("seed", "5.3", "5.6"))


def started(kernels: tuple[str, str, str], paging: str, wrap_gen: int = 0) -> Machine:
    """A machine of these kernels, before its first VM."""
    profile, *parts = kernels
    machine = Machine(profile, "empty")
    for path, name in zip(CHOICES, parts, strict=True):
        if name:
            machine.write(path, f"{name}\n")
    machine.write(f"{CONTROL}/kvm/params/paging", paging)
    machine.write(f"{CONTROL}/kvm/params/wrap_gen", str(wrap_gen))
    return machine


def watched(machine: Machine) -> Machine:
    """Record all of KVM's events from now on."""
    for name in ("kvm", "kvmmmu"):
        machine.write(f"{TRACING}/events/{name}/enable", "1\n")
    machine.write(f"{TRACING}/trace_clock", "mono\n")
    return machine


def same(one: Machine, other: Machine) -> None:
    assert differing(one, other) == []
    assert one.control.bugs == other.control.bugs == []


@pytest.mark.parametrize("paging", ["tdp", "shadow", "modules"])
@pytest.mark.parametrize("kernels", KERNELS, ids="-".join)
def test_a_copy_reads_and_goes_on_alike(kernels: tuple[str, str, str], paging: str) -> None:
    for seed in range(HISTORIES):
        chance = random.Random(seed)
        machine = started(kernels, paging, wrap_gen=(1 << 19) - 40)
        for number, write in enumerate((*KVM_WRITES[:: 1 + seed], *MORE[:: 1 + seed])):
            attempt(machine, *write)
            if number % STEP == 0:
                assert encoded(copied(machine)) == encoded(machine)
        for _ in range(60):
            attempt(machine, *chance.choice(MORE + KVM_WRITES))
        data = encoded(machine)
        copy = copied(machine)
        assert encoded(copy) == data
        same(machine, copy)
        for each in (machine, copy):
            watched(each)
        for _ in range(60):
            write = chance.choice(MORE + KVM_WRITES)
            assert attempt(machine, *write) == attempt(copy, *write), write
        same(machine, copy)
        assert machine.read(f"{TRACING}/trace") == copy.read(f"{TRACING}/trace")


def test_a_delayed_interrupt_comes_after_a_load_and_ends_with_its_vm() -> None:
    machine = started(("6.1", "", ""), "tdp")
    for text in (
        "vm create a pid=700",
        "a vcpu add",
        "a handler auto",
        "a ioapic 5 vec=0x35 dst=0 trig=level",
        "a irq 5 1",
    ):
        assert attempt(machine, CTL, f"{text}\n") == "ok"
    assert machine.clock.next_due_ns == 10_000_000
    copy = copied(machine)
    assert copy.clock.next_due_ns == 10_000_000
    for each in (machine, copy):
        watched(each).clock.advance(0.01)
    assert "kvm_ioapic_delayed_eoi_inj" in copy.read(f"{TRACING}/trace")
    assert machine.read(f"{TRACING}/trace") == copy.read(f"{TRACING}/trace")
    assert attempt(copy, CTL, "vm destroy a\n") == "ok"
    assert copy.clock.next_due_ns is None


def test_no_name_of_a_class_or_function_is_in_a_file() -> None:
    machine = started(("6.18", "", ""), "shadow")
    for write in (*KVM_WRITES, *MORE):
        attempt(machine, *write)
    text = encoded(machine).decode()
    assert "fakesys" not in text
    assert len(text) > 10_000


def test_the_history_is_taken() -> None:
    machine = started(("6.18", "", ""), "shadow")
    results = [attempt(machine, *write) for write in (*KVM_WRITES, *MORE)]
    assert results.count("ok") > len(results) * 0.6
