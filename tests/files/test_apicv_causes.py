"""Every cause that keeps a VM, or a vCPU, without AVIC, in every kernel: the table of causes."""

from __future__ import annotations

from errno import EINVAL

import pytest

from tests.avic_kit import BITS, CTL, FOLDER, KERNELS, NEW, Guests, only

INHIBIT = "kvm_apicv_inhibit_changed"
UPDATE = "kvm_apicv_update_request"
OFF, ON = "kvm_apicv_deactivate_request", "kvm_apicv_activate_request"
VM_LINES = (INHIBIT, UPDATE, OFF, ON)

# How the enum, or what would be it, reads.
DISABLED, SUSPENDED, ACTIVATED = "0 DISABLED", "1 SUSPENDED", "2 ACTIVATED"

HYPERV = {"5.6": 1, "6.1": 1, "6.12": 1, "6.18": 1, "7.x": 1}
NESTED = {"5.6": 2}
IRQWIN = {"5.6": 3, "6.1": 7, "6.12": 8, "6.18": 8, "7.x": 8}
PIT_REINJ = {"5.6": 4, "6.1": 8, "6.12": 9, "6.18": 9, "7.x": 9}
BLOCKIRQ = {"6.1": 3, "6.12": 3, "6.18": 3, "7.x": 3}
ID_MODIFIED = {"6.1": 4, "6.12": 5, "6.18": 5, "7.x": 5}
BASE_MODIFIED = {"6.1": 5, "6.12": 6, "6.18": 6, "7.x": 6}
SEV = {"6.1": 9, "6.12": 10, "6.18": 10, "7.x": 10}
PHYSICAL_ALIASED = {"6.12": 4, "6.18": 4, "7.x": 4}
LOGICAL_ALIASED = {"6.12": 11, "6.18": 11, "7.x": 11}
TOO_BIG = {"6.18": 12, "7.x": 12}


def inhibits(guests: Guests) -> int:
    return int(guests.state()["inhibits"], 16)


def bit(numbers: dict[str, int], kernel: str) -> int:
    return 1 << numbers[kernel] if kernel in numbers else 0


def quiet(kernel: str, vcpus: int = 2, options: str = "reinject=0") -> Guests:
    """A VM that has AVIC on, with nothing against it."""
    guests = Guests(kernel).boot(vcpus, options)
    assert guests.state()["apicv_state"] == ACTIVATED
    assert inhibits(guests) == 0
    assert all(guests.active(number) for number in range(vcpus))
    return guests


@pytest.mark.parametrize("parameters", ["avic=0", "avic=1 npt=0"])
@pytest.mark.parametrize("kernel", KERNELS)
def test_without_the_module_parameter(kernel: str, parameters: str) -> None:
    guests = Guests(kernel)
    guests(f"modprobe {parameters}")
    lines = only(guests("vm create g reinject=0"), *VM_LINES)
    guests("g vcpu add")
    # 6.1 finds the irqchip absent as well; nobody clears that while AVIC is off.
    wanted = {"v3": 0, "5.6": 1, "6.1": 0b101, "6.12": 1, "6.18": 1, "7.x": 1}[kernel]
    assert inhibits(guests) == wanted
    assert guests.state()["apicv_state"] == (DISABLED if kernel == "v3" else SUSPENDED)
    assert not guests.active()
    assert guests.vcpu(0)["valid"] == "0"
    assert guests.state()["access_page"] == "absent"
    told = {
        "6.1": [f"{INHIBIT}: set reason=2, inhibits=0x4", f"{INHIBIT}: set reason=0, inhibits=0x5"],
        "6.12": [f"{INHIBIT}: set reason=0, inhibits=0x1 DISABLED"],
        "6.18": [f"{INHIBIT}: set reason=0, inhibits=0x1 DISABLED"],
        "7.x": [f"{INHIBIT}: set reason=0, inhibits=0x1 DISABLED"],
    }
    assert lines == told.get(kernel, [])


@pytest.mark.parametrize("kernel", KERNELS)
def test_avic_off_hears_of_no_other_reason(kernel: str) -> None:
    guests = Guests(kernel)
    guests("modprobe avic=0", "vm create g reinject=0", "g vcpu add")
    guests.with_pic()
    before = inhibits(guests)
    lines = guests("g vcpu 0 cli", "g pit tick")
    assert only(lines, *VM_LINES) == []
    assert inhibits(guests) == before


@pytest.mark.parametrize("kernel", KERNELS)
def test_without_an_irqchip_in_the_kernel(kernel: str) -> None:
    guests = Guests(kernel)
    lines = only(guests("vm create g irqchip=none"), *VM_LINES)
    guests("g vcpu add")
    absent = {"6.1": "0x4", "6.12": "0x4 ABSENT", "6.18": "0x4 ABSENT", "7.x": "0x4 ABSENT"}
    wanted = [f"{INHIBIT}: set reason=2, inhibits={absent[kernel]}"] if kernel in NEW else []
    assert lines == wanted
    assert inhibits(guests) == (4 if kernel in NEW else 0)
    state = {"v3": DISABLED, "5.6": ACTIVATED}.get(kernel, SUSPENDED)
    assert guests.state()["apicv_state"] == state
    assert not guests.active()


@pytest.mark.parametrize("verb", ["vm create h irqchip=split", "h irqchip"])
@pytest.mark.parametrize("kernel", KERNELS)
def test_an_irqchip_ends_its_absence(kernel: str, verb: str) -> None:
    guests = Guests(kernel)
    if verb == "h irqchip":
        guests("vm create h irqchip=none")
    lines = only(guests(verb), *VM_LINES)
    guests("h vcpu add")
    assert guests.state("h")["apicv_state"] == ACTIVATED
    assert guests.vcpu(0, "h")["apicv_active"] == "1"
    assert (f"{INHIBIT}: cleared reason=2, inhibits=0x0" in lines) == (kernel in NEW)


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_window_for_the_pic(kernel: str) -> None:
    guests = quiet(kernel).with_pic()
    guests("g vcpu 0 cli")
    lines = only(guests("g pit tick"), *VM_LINES)
    assert guests.state()["apicv_state"] == SUSPENDED
    assert inhibits(guests) == bit(IRQWIN, kernel)
    assert not guests.active(0)
    assert not guests.active(1)
    assert lines
    guests("g vcpu 0 sti")
    assert guests.state()["apicv_state"] == ACTIVATED
    assert guests.active(0)
    assert guests.active(1)


@pytest.mark.parametrize("kernel", KERNELS)
def test_synic_at_enable(kernel: str) -> None:
    guests = quiet(kernel)
    guests("g vcpu 0 stop")
    lines = only(guests("g vcpu 0 hv synic"), *VM_LINES)
    told = {
        "v3": [f"{OFF}: vcpu=0, disable=disabled"],
        "5.6": [f"{UPDATE}: deactivate bit=1"],
    }
    assert lines == told.get(kernel, [])
    off = kernel not in NEW
    assert guests.active(1) != off
    assert guests.state()["apicv_state"] == {"v3": DISABLED, "5.6": SUSPENDED}.get(
        kernel, ACTIVATED
    )
    guests("g vcpu 0 start")
    assert guests.active(0) != off


@pytest.mark.parametrize("kernel", NEW)
def test_synic_while_a_vector_ends_itself(kernel: str) -> None:
    guests = quiet(kernel)
    for number in (0, 1):
        guests(f"g vcpu {number} stop", f"g vcpu {number} hv synic", f"g vcpu {number} start")
    names = "" if kernel == "6.1" else " HYPERV"
    assert guests("g vcpu 0 hv sint 2 vec=0x40 autoeoi=0") != []
    assert inhibits(guests) == 0
    lines = only(guests("g vcpu 0 hv sint 2 vec=0x40 autoeoi=1"), INHIBIT)
    assert lines[0] == f"{INHIBIT}: set reason=1, inhibits=0x2{names}"
    assert not guests.active(1)
    # Each further one is told again only when a vCPU gets its first or loses its last.
    assert only(guests("g vcpu 0 hv sint 3 vec=0x41 autoeoi=1"), INHIBIT) == []
    assert only(guests("g vcpu 1 hv sint 0 vec=0x40 autoeoi=1"), INHIBIT) != []
    guests("g vcpu 0 hv sint 3 vec=0x41 masked=1", "g vcpu 0 hv sint 2 vec=0x40 masked=1")
    assert inhibits(guests) == 2
    lines = only(guests("g vcpu 1 hv sint 0 vec=0 masked=1"), INHIBIT)
    assert lines[0] == f"{INHIBIT}: cleared reason=1, inhibits=0x0"
    assert guests.active(0)
    assert guests.active(1)


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_sint_is_written_with_an_exit(kernel: str) -> None:
    guests = quiet(kernel, 1)
    guests("g vcpu 0 stop", "g vcpu 0 hv synic", "g vcpu 0 start")
    guests.clear()
    lines = guests("g vcpu 0 hv sint 1 vec=0x50 autoeoi=1")
    assert "kvm_msr: msr_write 40000091 = 0x20050" in lines
    assert guests.counts(0, "exits") == (1,)
    assert inhibits(guests) == bit(HYPERV, kernel)


@pytest.mark.parametrize("kernel", KERNELS)
def test_nested_in_cpuid(kernel: str) -> None:
    guests = quiet(kernel)
    guests("g vcpu 1 stop")
    lines = only(guests("g vcpu 1 cpuid svm=1"), *VM_LINES)
    told = {
        "v3": [f"{OFF}: vcpu=1, disable=disabled"],
        "5.6": [f"{UPDATE}: deactivate bit=2"],
    }
    assert lines == told.get(kernel, [])
    assert guests.active(0) == (kernel in NEW)
    assert inhibits(guests) == bit(NESTED, kernel)


@pytest.mark.parametrize("kernel", KERNELS)
def test_nested_in_cpuid_means_nothing_without_the_parameter(kernel: str) -> None:
    guests = Guests(kernel)
    guests("modprobe nested=0", "vm create g reinject=0", "g vcpu add", "g vcpu 0 stop")
    assert only(guests("g vcpu 0 cpuid svm=1"), *VM_LINES) == []
    assert guests.state()["apicv_state"] == ACTIVATED


@pytest.mark.parametrize("kernel", NEW)
def test_a_vcpu_in_its_nested_guest_does_without(kernel: str) -> None:
    guests = quiet(kernel)
    guests("g vcpu 1 stop", "g vcpu 1 cpuid svm=1", "g vcpu 1 start")
    guests.clear()
    lines = guests("g vcpu 1 nested vmrun")
    assert only(lines, INHIBIT) == []
    assert "reason vmrun" in lines[0]
    assert not guests.active(1)
    assert guests.vcpu(1)["is_running"] == "0"
    assert guests.active(0)
    assert inhibits(guests) == 0
    guests("g vcpu 1 nested vmexit")
    assert guests.active(1)
    assert guests.vcpu(1)["is_running"] == "1"


@pytest.mark.parametrize("kernel", ["6.1", "6.12", "6.18"])
def test_a_window_in_a_nested_guest_inhibits_nobody(kernel: str) -> None:
    guests = quiet(kernel, 1).with_pic()
    guests("g vcpu 0 stop", "g vcpu 0 cpuid svm=1", "g vcpu 0 start", "g vcpu 0 nested vmrun")
    guests("g vcpu 0 cli")
    assert only(guests("g pit tick"), INHIBIT) == []
    assert guests.vcpu(0)["v_irq"] == "1"
    assert inhibits(guests) == 0


@pytest.mark.parametrize("kernel", KERNELS)
def test_pit_reinjection(kernel: str) -> None:
    guests = Guests(kernel).boot()
    inhibited = bit(PIT_REINJ, kernel)
    assert inhibits(guests) == inhibited
    assert guests.active() == (kernel == "v3")
    guests("g pit reinject 0")
    assert inhibits(guests) == 0
    assert guests.active()
    lines = only(guests("g pit reinject 1"), *VM_LINES)
    assert inhibits(guests) == inhibited
    assert bool(lines) == (kernel in BITS)
    assert only(guests("g pit reinject 1"), *VM_LINES) == []


@pytest.mark.parametrize("kernel", KERNELS)
def test_x2apic_in_cpuid(kernel: str) -> None:
    guests = quiet(kernel, 1)
    guests("g vcpu 0 stop")
    assert only(guests("g vcpu 0 cpuid x2apic=1"), *VM_LINES) == []
    guests("g vcpu 0 start")
    if kernel in NEW:
        guests("g vcpu 0 apicbase x2apic")
        assert guests.active()
    else:
        guests.refuses(EINVAL, "g vcpu 0 apicbase x2apic")
    assert inhibits(guests) == 0


@pytest.mark.parametrize("kernel", ["v3", "5.6"])
def test_x2apic_stays_in_cpuid_while_avic_is_off(kernel: str) -> None:
    guests = quiet(kernel, 1).with_pic()
    guests("g vcpu 0 cli", "g pit tick", "g vcpu 0 stop", "g vcpu 0 cpuid x2apic=1")
    guests("g vcpu 0 start", "g vcpu 0 apicbase x2apic")
    assert guests("g vcpu 0 apic read 0x20")


@pytest.mark.parametrize("kernel", KERNELS)
def test_guest_debugging_with_interrupts_blocked(kernel: str) -> None:
    guests = quiet(kernel)
    guests("g vcpu 0 stop", "g vcpu 1 stop")
    lines = only(guests("g vcpu 0 guestdbg blockirq=1"), *VM_LINES)
    assert bool(lines) == (kernel in NEW)
    assert inhibits(guests) == bit(BLOCKIRQ, kernel)
    guests("g vcpu 1 guestdbg blockirq=1", "g vcpu 0 guestdbg blockirq=0")
    assert inhibits(guests) == bit(BLOCKIRQ, kernel)
    guests("g vcpu 1 guestdbg blockirq=0")
    assert inhibits(guests) == 0


@pytest.mark.parametrize("kernel", NEW)
def test_blocked_interrupts_wait(kernel: str) -> None:
    guests = quiet(kernel, 1)
    guests("g vcpu 0 stop", "g vcpu 0 guestdbg blockirq=1", "g vcpu 0 start")
    guests("g ioapic 5 vec=0x35")
    assert only(guests("g pulse 5"), "kvm_inj_virq") == []
    assert guests.vcpu(0)["irr"] == "0x35"
    guests("g vcpu 0 stop", "g vcpu 0 guestdbg blockirq=0")
    guests("g vcpu 0 start")
    assert guests.vcpu(0)["isr"] == "0x35"


@pytest.mark.parametrize("kernel", KERNELS)
def test_another_apic_id(kernel: str) -> None:
    guests = quiet(kernel)
    guests("g vcpu 1 apic write 0x20 0x7000000")
    assert inhibits(guests) == bit(ID_MODIFIED, kernel)
    moved = kernel in ("v3", "5.6")
    assert guests.active(1) == moved
    ids = [line.split()[0] for line in guests.view("physid").splitlines()]
    assert ids == (["0", "7"] if moved else ["0", "1"])
    guests("g vcpu 1 apic write 0x20 0x1000000")
    # 6.1 never clears it; later kernels look at the map of ids each time.
    assert inhibits(guests) == (bit(ID_MODIFIED, kernel) if kernel == "6.1" else 0)


@pytest.mark.parametrize("address", ["0xfee01000", "off"])
@pytest.mark.parametrize("kernel", KERNELS)
def test_the_apic_base(kernel: str, address: str) -> None:
    guests = quiet(kernel)
    lines = guests(f"g vcpu 1 apicbase {address}")
    assert "reason msr" in lines[0]
    moved = bit(BASE_MODIFIED, kernel) if address != "off" else 0
    assert inhibits(guests) == moved
    assert guests.active(0) == (not moved)
    assert guests.active(1) == (kernel not in NEW)
    guests("g vcpu 1 apicbase 0xfee00000")
    # Moving it back does not help, turning it on does.
    assert inhibits(guests) == moved
    assert guests.active(1) == (not moved)


@pytest.mark.parametrize("kernel", KERNELS)
def test_two_vcpus_with_one_physical_id(kernel: str) -> None:
    guests = quiet(kernel)
    guests("g vcpu 1 apic write 0x20 0")
    wanted = bit(PHYSICAL_ALIASED, kernel) | bit(ID_MODIFIED, kernel)
    assert inhibits(guests) == wanted
    guests("g vcpu 1 apic write 0x20 0x1000000")
    assert inhibits(guests) == (bit(ID_MODIFIED, kernel) if kernel == "6.1" else 0)


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_logical_id_of_two_vcpus(kernel: str) -> None:
    guests = quiet(kernel)
    guests("g vcpu 0 apic write 0xd0 0x1000000", "g vcpu 1 apic write 0xd0 0x1000000")
    assert inhibits(guests) == bit(LOGICAL_ALIASED, kernel)
    guests("g vcpu 1 apic write 0xd0 0x2000000")
    assert inhibits(guests) == 0


@pytest.mark.parametrize("kernel", ["6.12", "6.18", "7.x"])
def test_logical_ids_that_are_not_one_bit(kernel: str) -> None:
    guests = quiet(kernel)
    guests("g vcpu 0 apic write 0xd0 0x3000000")
    assert inhibits(guests) == bit(LOGICAL_ALIASED, kernel)
    guests("g vcpu 0 apic write 0xd0 0x1000000")
    assert inhibits(guests) == 0
    # Flat and cluster at once.
    guests("g vcpu 1 apic write 0xe0 0xfffffff", "g vcpu 1 apic write 0xd0 0x11000000")
    assert inhibits(guests) == bit(LOGICAL_ALIASED, kernel)


@pytest.mark.parametrize("kernel", ["6.12", "6.18", "7.x"])
def test_init_takes_the_logical_id_away(kernel: str) -> None:
    guests = quiet(kernel)
    guests("g vcpu 0 apic write 0xd0 0x1000000", "g vcpu 1 apic write 0xd0 0x1000000")
    assert inhibits(guests) == bit(LOGICAL_ALIASED, kernel)
    guests("g vcpu 0 ipi dst=1 vec=0 dm=init")
    assert inhibits(guests) == 0
    assert guests.active(0)


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_vcpu_id_above_the_table(kernel: str) -> None:
    guests = quiet(kernel)
    if kernel not in TOO_BIG:
        guests.refuses(EINVAL, "g vcpu add id=255")
        assert guests("g vcpu add id=254")[2:] == ["kvm_fpu: load"]
        return
    lines = only(guests("g vcpu add id=255"), INHIBIT)
    assert lines[0] == f"{INHIBIT}: set reason=12, inhibits=0x1000 PHYSICAL_ID_TOO_BIG"
    assert not guests.active(0)
    assert guests.vcpu(255)["valid"] == "0"


@pytest.mark.parametrize("kernel", KERNELS)
def test_x2avic_has_a_larger_table(kernel: str) -> None:
    guests = Guests(kernel)
    guests("modprobe x2avic=1", "vm create g reinject=0", "g vcpu add id=511")
    assert guests.vcpu(511)["valid"] == "1"
    if kernel in TOO_BIG:
        guests("g vcpu add id=512")
        assert inhibits(guests) == bit(TOO_BIG, kernel)
    else:
        guests.refuses(EINVAL, "g vcpu add id=512")


@pytest.mark.parametrize("kernel", KERNELS)
def test_without_avic_every_id_will_do(kernel: str) -> None:
    guests = Guests(kernel)
    guests("modprobe avic=0", "vm create g", "g vcpu add id=600")
    assert guests.vcpu(600)["valid"] == "0"


@pytest.mark.parametrize("kernel", KERNELS)
def test_an_encrypted_guest(kernel: str) -> None:
    guests = Guests(kernel)
    guests("vm create g reinject=0")
    lines = only(guests("g sev init"), *VM_LINES)
    assert bool(lines) == (kernel in NEW)
    assert inhibits(guests) == bit(SEV, kernel)
    guests("g vcpu add")
    assert guests.active() == (kernel not in NEW)


@pytest.mark.parametrize("kernel", NEW)
def test_reasons_add_up(kernel: str) -> None:
    guests = quiet(kernel)
    guests("g pit reinject 1", "g vcpu 0 stop", "g vcpu 0 guestdbg blockirq=1")
    both = bit(PIT_REINJ, kernel) | bit(BLOCKIRQ, kernel)
    assert inhibits(guests) == both
    off = guests.state()["flips_off"]
    guests("g pit reinject 0")
    assert inhibits(guests) == bit(BLOCKIRQ, kernel)
    assert guests.state()["flips_off"] == off
    assert not guests.active(1)
    guests("g vcpu 0 guestdbg blockirq=0")
    assert guests.active(1)


def test_merged_reasons_are_silent_until_the_last_goes() -> None:
    guests = quiet("5.6").with_pic()
    guests("g pit reinject 1")
    guests("g vcpu 0 cli")
    assert only(guests("g pit tick"), UPDATE) == []
    assert inhibits(guests) == 0b11000
    assert only(guests("g vcpu 0 sti"), UPDATE) == []
    assert only(guests("g pit reinject 0"), UPDATE) == [f"{UPDATE}: activate bit=4"]


def test_other_reasons_put_off_the_line_of_a_counted_window() -> None:
    guests = quiet("7.x").with_pic()
    guests("g pit reinject 1", "g vcpu 0 cli")
    assert only(guests("g pit tick"), INHIBIT) == []
    assert guests.state()["irq_window_req"] == "1"
    flips = [guests.state()[name] for name in ("flips_off", "flips_on")]
    # The window is seen when the other reason goes; the VM does not turn on in between.
    assert only(guests("g pit reinject 0"), INHIBIT) == [
        f"{INHIBIT}: cleared reason=9, inhibits=0x0",
        f"{INHIBIT}: set reason=8, inhibits=0x100 IRQWIN",
    ]
    assert [guests.state()[name] for name in ("flips_off", "flips_on")] == flips
    guests("g vcpu 0 sti")
    assert guests.state()["irq_window_req"] == "0"
    assert inhibits(guests) == 0


def test_windows_of_two_vcpus_are_counted() -> None:
    guests = quiet("7.x").with_pic()
    guests("g ioapic 5 vec=0x35 dst=1", "g vcpu 0 cli", "g vcpu 1 cli", "g pit tick")
    # AVIC is off now, so the interrupt of vCPU 1 needs a window as well.
    assert only(guests("g pulse 5"), INHIBIT) == []
    assert guests.state()["irq_window_req"] == "2"
    assert only(guests("g vcpu 0 sti"), INHIBIT) == []
    assert guests.state()["irq_window_req"] == "1"
    assert not guests.active(0)
    assert only(guests("g vcpu 1 sti"), INHIBIT) == [f"{INHIBIT}: cleared reason=8, inhibits=0x0"]
    assert guests.vcpu(1)["isr"] == "0x35"
    assert guests.active(0)


def test_the_kernel_is_chosen_while_no_vm_exists() -> None:
    guests = Guests("v3").boot()
    guests.refuses(16, "6.1", f"{FOLDER}/apicv_profile")
    assert "[v3]" in guests.machine.read(f"{FOLDER}/apicv_profile").split()
    guests("vm destroy g")
    guests.machine.write(f"{FOLDER}/apicv_profile", "6.1")
    guests.machine.write(CTL, "vm create g")
    assert guests.state()["profile"] == "6.1"
