"""Ends in the middle of a storm: owners killed, vCPUs and VMs closed, the machine reset."""

from __future__ import annotations

from errno import ENOENT

import pytest

from fakesys.core.errors import KernelError
from fakesys.subsystems.kvm.stats import STATS, Scope
from tests.avic_kit import CTL, FOLDER, KERNELS, PRESET, Guests, only

STORM = ("vcpu 0 cli", "pit tick", "vcpu 0 sti", "vcpu 0 iret")
LISTENS = pytest.mark.parametrize("listens", [True, False])


def stormy(kernel: str = "v3", *, listens: bool = True, rounds: int = 3) -> Guests:
    """In the middle of a window: AVIC is off, an interrupt waits."""
    guests = Guests(kernel, listens=listens).boot(4, "reinject=0 pid=4242 fd=7")
    guests("g pic base=0x30 imr=0 aeoi=1", "g vcpu 0 lvt0 extint")
    for _ in range(rounds):
        guests(*(f"g {word}" for word in STORM))
    guests("g vcpu 0 cli", "g pit tick")
    assert guests.state()["apicv_state"] == "1 SUSPENDED"
    return guests


def agrees(guests: Guests, vm: str = "g") -> None:
    """The views of vCPUs add up to the VM's counters, and the VMs to the host's."""
    machine = guests.machine
    kvm = machine.subsystems.kvm.kvm
    model = kvm.vm(vm)
    names = [name for name in machine.listdir(f"{FOLDER}/vms/{vm}") if name.startswith("vcpu")]
    views = [guests.vcpu(int(name.removeprefix("vcpu")), vm) for name in names]
    for stat in STATS:
        # Histograms show their first bucket only.
        if stat.scope is Scope.VCPU and stat.key in views[0] and "hist" not in stat.key:
            assert model.read(stat) == sum(int(view[stat.key]) for view in views), stat.key
        assert kvm.read(stat) == sum(other.read(stat) for other in kvm.vms)
    assert machine.read("sys/kernel/debug/fakesys/bugs") == "0\n"


@LISTENS
@pytest.mark.parametrize("kernel", KERNELS)
def test_a_vcpu_is_closed(kernel: str, listens: bool) -> None:
    guests = stormy(kernel, listens=listens)
    exits = guests.sums("exits")[0]
    guests("g vcpu 2 close")
    agrees(guests)
    # Its thread left the guest for that.
    assert guests.sums("exits")[0] == exits + 1
    assert guests.vcpu(2)["run"] == "stopped"
    guests.refuses(ENOENT, "g vcpu 2 start")
    guests("g vcpu 0 sti", "g vcpu 0 iret", *(f"g {word}" for word in STORM))
    # It takes part in nothing any more.
    assert guests.vcpu(2)["exits"] == str(exits // 4 + 1)
    assert guests.active(1)
    agrees(guests)


@LISTENS
def test_the_vcpu_that_waits_is_closed(listens: bool) -> None:
    guests = stormy(listens=listens)
    guests("g vcpu 0 close")
    agrees(guests)
    # Nobody ends the window; the VM stays suspended, as on a real host.
    guests("g pit tick", "g vcpu 1 cli", "g vcpu 1 sti", "g vcpu 1 ipi sh=others vec=0x40")
    assert guests.state()["apicv_state"] == "1 SUSPENDED"
    agrees(guests)


@LISTENS
@pytest.mark.parametrize("kernel", KERNELS)
def test_the_vm_is_destroyed(kernel: str, listens: bool) -> None:
    guests = stormy(kernel, listens=listens)
    guests("vm create h", "h vcpu add count=2")
    before = guests.sums("exits", vm="h")
    assert guests.machine.read("sys/kernel/debug/kvm/exits") != "0\n"
    guests("vm destroy g")
    assert guests.machine.read("sys/kernel/debug/kvm/exits") == f"{before[0]}\n"
    with pytest.raises(KernelError):
        guests.view("state")
    guests("h vcpu 0 ipi dst=1 vec=0 dm=init")
    agrees(guests, "h")


def test_the_owner_is_killed() -> None:
    """As its watch tells; its open counters still hold the VM."""
    guests = stormy(listens=False)
    machine = guests.machine
    vm = machine.subsystems.kvm.kvm.vm("g")
    path = "sys/kernel/debug/kvm/4242-7/exits"
    before = int(machine.read(path))
    release = vm.hold()
    vm.kill()
    # Each of the four threads was in the guest.
    assert int(machine.read(path)) == before + 4
    with pytest.raises(KernelError):
        machine.write(CTL, "g vcpu 0 sti")
    release()
    with pytest.raises(KernelError):
        machine.read(path)
    assert machine.read("sys/kernel/debug/kvm/exits") == "0\n"
    guests("vm create g", "g vcpu add")
    assert guests.sums("exits") == (0,)


@LISTENS
def test_counters_are_cleared(listens: bool) -> None:
    guests = stormy(listens=listens)
    for name in ("exits", "irq_exits", "req_event", "irq_injections"):
        guests.machine.write(f"sys/kernel/debug/kvm/4242-7/{name}", "0")
    assert guests.counts(3, "exits", "irq_exits") == (0, 0)
    guests("g vcpu 0 sti", "g vcpu 0 iret")
    assert guests.counts(3, "exits", "irq_exits") == (1, 1)
    agrees(guests)


def test_the_machine_is_reset() -> None:
    guests = stormy()
    guests.machine.write("sys/kernel/debug/fakesys/reset", "1")
    assert guests.machine.listdir(f"{FOLDER}/vms") == []
    assert guests.machine.read("sys/kernel/debug/kvm/exits") == "0\n"
    assert guests.machine.read("sys/kernel/debug/fakesys/bugs") == "0\n"
    guests.machine.write(PRESET, "linux-boot vcpus=3")
    assert guests.sums("exits") == (146 + 14,)


@pytest.mark.parametrize("end", ["vm destroy g", "vm close g", "g vcpu 1 close"])
def test_ends_during_a_flood_of_the_ioapic(end: str) -> None:
    """What was put off for a moment finds its VM gone, or a vCPU less."""
    guests = Guests("v3").boot(2, handler="auto")
    guests("g ioapic 9 vec=0x39 dst=255 trig=level", "g irq 9 1")
    guests(end)
    guests.lines.clear()
    guests.machine.clock.advance(0.01)
    assert bool(guests.lines) == (end != "vm destroy g")
    assert guests.machine.read("sys/kernel/debug/fakesys/bugs") == "0\n"


def test_a_device_outlives_its_target() -> None:
    guests = Guests("6.1").boot(2, "reinject=0")
    guests("g dev add d irq=1 gsi=24 vec=0x41 dst=1", "g vcpu 1 close")
    lines = guests("g dev fire d")
    assert only(lines, "kvm_avic_ga_log") == ["kvm_avic_ga_log: vmid=1, vcpuid=1"]
    assert guests.vcpu(1)["irr"] == "0x41"
    guests("g dev route d vec=0x41 dst=0", "g dev fire d")
    assert guests.vcpu(0)["isr"] == "0x41"
    assert guests.vcpu(1)["ir"] == "0"


def test_a_vm_moves_with_the_process_that_serves_it(monkeypatch: pytest.MonkeyPatch) -> None:
    guests = Guests("v3")
    guests("vm create mine fd=10", "mine vcpu add", "vm create other pid=4242 fd=10")
    kvm = guests.machine.subsystems.kvm.kvm
    mine = kvm.vm("mine").pid
    kvm.forked()
    assert kvm.vm("mine").pid == mine
    monkeypatch.setattr(kvm, "_daemon", lambda: 77)
    kvm.forked()
    assert sorted(kvm.directories) == ["4242-10", "77-10"]
    assert (kvm.vm("mine").vcpus[0].task.pid, kvm.vm("other").pid) == (78, 4242)
    assert guests.machine.read("sys/kernel/debug/kvm/77-10/exits") == "0\n"
    guests("vm create more")
    assert sorted(kvm.directories) == ["4242-10", "77-10", "77-11"]
