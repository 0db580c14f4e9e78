"""Commands about interrupts and their refusals; views; module parameters; `apicv-state`."""

from __future__ import annotations

from errno import EACCES, EBUSY, EEXIST, EINVAL, ENODEV, ENOENT, ERANGE

import pytest

from fakesys.core.errors import KernelError
from tests.avic_kit import FOLDER, KERNELS, NEW, Guests, events

AMD = "sys/module/kvm_amd/parameters"
KVM = "sys/module/kvm/parameters"


@pytest.fixture(scope="module")
def guests() -> Guests:
    """vCPU 0 in guest, 1 stopped, 2 preempted, 3 halted; and VMs with other irqchips."""
    found = Guests("v3").boot(4)
    found("g vcpu 1 stop", "g vcpu 2 preempt", "g vcpu 3 hlt")
    found("g dev add d irq=1 gsi=24 vec=0x41 dst=0")
    found("vm create s irqchip=split", "s vcpu add", "vm create n irqchip=none", "n vcpu add")
    found("vm create p pit=0", "p vcpu add", "p handler auto")
    return found


BAD = (
    (ENOENT, "x vcpu 0 cli"),
    (ENOENT, "g vcpu 9 cli"),
    (ENOENT, "g vcpu 9 stop"),
    (ENOENT, "g vcpu 9 start"),
    (ENOENT, "g vcpu 9 cpuid svm=1"),
    (ENOENT, "g vcpu 9 guestdbg blockirq=1"),
    (ENOENT, "g vcpu 9 hv synic"),
    (ENOENT, "g vcpu 9 nested vmrun"),
    (ENOENT, "g vcpu 9 lvt0 masked"),
    (ENOENT, "g vcpu 9 ipi dst=0 vec=0x40"),
    (ENOENT, "x pic base=0 imr=0"),
    (ENOENT, "x ioapic 0 vec=0x30"),
    (ENOENT, "x irq 1 1"),
    (ENOENT, "x pit tick"),
    (ENOENT, "x dev add d irq=1 gsi=24 vec=0x41 dst=0"),
    (ENOENT, "g dev fire e"),
    (ENOENT, "g dev route e vec=0x41 dst=0"),
    (ENOENT, "g dev del e"),
    (ENOENT, "x sev init"),
    (ENOENT, "x handler auto"),
    *((EBUSY, f"g vcpu {number} {act}") for number in (1, 2, 3) for act in
      ("cli", "sti", "iret", "hlt", "eoi", "piceoi", "lvt0 masked", "ipi dst=0 vec=0x40",
       "apic read 0x30", "apic write 0x80 0", "apicbase off", "nested vmrun",
       "hv sint 0 vec=0x40", "preempt")),
    (EBUSY, "g vcpu 1 stop"),
    (EBUSY, "g vcpu 2 stop"),
    (EBUSY, "g vcpu 0 start"),
    (EBUSY, "g vcpu 2 start"),
    (EBUSY, "g vcpu 3 start"),
    (EBUSY, "g vcpu 0 resume"),
    (EBUSY, "g vcpu 1 resume"),
    (EBUSY, "g vcpu 0 cpuid svm=1"),
    (EBUSY, "g vcpu 0 guestdbg blockirq=1"),
    (EBUSY, "g vcpu 0 hv synic"),
    (EBUSY, "modprobe avic=0"),
    (EEXIST, "g dev add d irq=1 gsi=24 vec=0x41 dst=0"),
    (EEXIST, "vm create g"),
    (EINVAL, "g vcpu 0 nested vmrun"),
    (EINVAL, "g vcpu 0 nested vmexit"),
    (EINVAL, "g vcpu 0 nested vmjump"),
    (EINVAL, "g vcpu 0 ipi vec=0x40"),
    (EINVAL, "g vcpu 0 ipi dst=1"),
    (EINVAL, "g vcpu 0 ipi dst=1 vec=256"),
    (EINVAL, "g vcpu 0 ipi dst=1 vec=0x40 dm=extint"),
    (EINVAL, "g vcpu 0 ipi dst=1 vec=0x40 sh=some"),
    (EINVAL, "g vcpu 0 lvt0 smi"),
    (EINVAL, "g vcpu 0 hv sint 0 vec=0x40"),
    (EINVAL, "g vcpu 0 preempt now"),
    (EINVAL, "g vcpu 1 start cpu=4096"),
    (EINVAL, "g vcpu 1 guestdbg"),
    (EINVAL, "g pic base=0x30"),
    (EINVAL, "g pic base=0x30 imr=0x10000"),
    (EINVAL, "g ioapic 24 vec=0x30"),
    (EINVAL, "g ioapic 2 dm=best"),
    (EINVAL, "g ioapic 2 trig=soft"),
    (EINVAL, "g irq 24 1"),
    (EINVAL, "g irq 5 2"),
    (EINVAL, "g irq 5 1 loud"),
    (EINVAL, "g pulse 24"),
    (EINVAL, "g pit tick 0"),
    (EINVAL, "g rtc tick 0"),
    (EINVAL, "g handler lazy"),
    (EINVAL, "g sev init"),
    (EINVAL, "g dev add e gsi=24 vec=0x41 dst=0"),
    (EINVAL, "galog vmid=1"),
    (EINVAL, "modprobe avic=2"),
    (EINVAL, "vm create h irqchip=apic"),
    (ERANGE, "g irq 99999999999999999999999 1"),
    (ENODEV, "vm create h irqchip=split pit=1"),
    *((ENODEV, f"s {act}") for act in
      ("pic base=0x30 imr=0", "ioapic 2 vec=0x30", "irq 5 1", "pulse 5", "rtc tick", "pit tick",
       "pit reinject 0", "pit load")),
    (ENODEV, "p pit tick"),
    (ENODEV, "n dev add d irq=1 gsi=24 vec=0x41 dst=0"),
    *((ENODEV, f"n vcpu 0 {act}") for act in
      ("lvt0 masked", "eoi", "ipi dst=0 vec=0x40", "apic read 0x30", "apic write 0x30 0",
       "apicbase off", "hv sint 0 vec=0x40", "hv synic")),
)  # fmt: skip


@pytest.mark.parametrize(("errno", "text"), BAD)
def test_refused_without_a_trace(guests: Guests, errno: int, text: str) -> None:
    guests.refuses(errno, text)
    assert guests.last().startswith("error E")


def test_hyperv_sints_that_fault() -> None:
    guests = Guests("6.18").boot(1)
    guests("g vcpu 0 stop", "g vcpu 0 hv synic", "g vcpu 0 start")
    guests.refuses(EINVAL, "g vcpu 0 hv sint 16 vec=0x40")
    guests.refuses(EINVAL, "g vcpu 0 hv sint 0 vec=15")
    assert guests("g vcpu 0 hv sint 15 vec=15 masked=1") != []


def test_sev_comes_before_vcpus_and_once() -> None:
    guests = Guests("6.18")
    guests("vm create g", "g sev init")
    guests.refuses(EBUSY, "g sev init")


def test_run_states() -> None:
    guests = Guests("v3").boot(2)
    assert events(guests("g vcpu 1 stop")) == ["kvm_exit", "kvm_fpu", "kvm_userspace_exit"]
    assert guests.lines[-1] == "kvm_userspace_exit: reason restart (4)"
    assert guests.vcpu(1)["run"] == "stopped"
    assert guests("g vcpu 1 start cpu=5") == ["kvm_fpu: load", "kvm_entry: vcpu 1"]
    assert guests.vcpu(1)["host"] == "5"
    assert events(guests("g vcpu 1 hlt")) == ["kvm_exit"]
    assert guests.vcpu(1)["run"] == "halted"
    # Out of its sleep and back into it.
    guests("g vcpu 1 stop", "g vcpu 1 start")
    assert guests.vcpu(1)["run"] == "halted"
    guests("g vcpu 1 stop", "g ioapic 5 vec=0x35 dst=1", "g pulse 5")
    assert guests.vcpu(1)["irr"] == "0x35"
    guests("g vcpu 1 start")
    assert (guests.vcpu(1)["run"], guests.vcpu(1)["isr"]) == ("guest", "0x35")
    assert guests.counts(1, "halt_exits", "signal_exits") == (1, 3)


def test_hlt_does_not_sleep_on_an_interrupt_that_waits() -> None:
    guests = Guests("v3").boot(2)
    guests("g vcpu 1 cli", "g vcpu 0 ipi dst=1 vec=0x40", "g vcpu 1 hlt")
    # With interrupts off it sleeps for good.
    assert guests.vcpu(1)["run"] == "halted"
    guests = Guests("v3").boot(1, options="reinject=0").with_pic()
    guests("g handler auto", "g vcpu 0 apic write 0x80 0x50", "g vcpu 0 ipi sh=self vec=0x40")
    guests("g vcpu 0 hlt")
    assert guests.vcpu(0)["run"] == "halted"
    guests("g pit tick")
    assert guests.vcpu(0)["run"] == "guest"


def test_a_wake_up_says_how_long_it_slept() -> None:
    guests = Guests("v3").boot(2)
    guests("g vcpu 1 hlt")
    guests.machine.clock.advance(1.5)
    lines = guests("g vcpu 0 ipi dst=1 vec=0x40")
    assert "kvm_vcpu_wakeup: wait time 1500000000 ns, polling valid" in lines
    assert guests.counts(1, "halt_wait_ns") == (1_500_000_000,)


def test_irq_line_status() -> None:
    guests = Guests("v3").boot(1)
    guests("g pic base=0x30 imr=0xffff", "g irq 5 1 status")
    assert guests.last() == "ok status=-1"
    guests("g irq 5 0 status")
    assert guests.last() == "ok status=1"
    guests("g ioapic 5 vec=0x35", "g irq 5 1 status")
    assert guests.last() == "ok status=1"
    guests("g irq 5 1 status")
    assert guests.last() == "ok status=0"
    # Both controllers take it: the status is the sum.
    guests("g pic base=0x30 imr=0", "g ioapic 6 vec=0x36", "g irq 6 1 status")
    assert guests.last() == "ok status=2"


def test_a_pin_keeps_what_is_not_given() -> None:
    guests = Guests("v3").boot(1)
    guests("g ioapic 5 vec=0x35 dst=3 dm=lowest mode=logical trig=level")
    row = "pin5 vec=0x35 dst=0x3 dm=1 mode=logical trig=level mask=0 remote_irr=0"
    assert row in guests.view("ioapic")
    guests("g ioapic 5 mask=1")
    assert row.replace("mask=0", "mask=1") in guests.view("ioapic")
    assert "pin5 vec=0x35 dst=0x3 dm=1 mode=phys" not in guests.view("ioapic")
    guests("g ioapic 5 dm=fixed mode=phys trig=edge")
    assert "pin5 vec=0x35 dst=0x3 dm=0 mode=phys trig=edge mask=0" in guests.view("ioapic")


def test_a_level_pin_that_is_high_is_sent_when_it_is_set_up() -> None:
    guests = Guests("v3").boot(1)
    guests("g ioapic 5 vec=0x35 trig=level mask=1", "g irq 5 1")
    lines = guests("g ioapic 5 mask=0")
    assert lines == ["kvm_apic_accept_irq: apicid 0 vec 53 (Fixed|level)"]


def test_views_of_a_vm_without_controllers() -> None:
    guests = Guests("v3")
    guests("vm create n irqchip=none", "n vcpu add")
    for name in ("ioapic", "pic", "pit", "physid", "logid", "irtes"):
        assert guests.view(name, "n") == ""
    assert guests.state("n")["pit"] == "none"
    assert guests.vcpu(0, "n")["valid"] == "0"


def test_the_state_of_a_vm() -> None:
    guests = Guests("v3").boot(1)
    assert guests.view("state") == (
        "profile v3\nirqchip kernel\napicv_state 2 ACTIVATED\ninhibits 0x0\nirq_window_req 0\n"
        "access_page present\nflips_off 0\nflips_on 0\nmemslot_updates 0\nrtc_pending_eoi 0\n"
        "pit reinject=1 irq_ack=1 pending=0\n"
    )
    first, *counters = guests.view("vcpu0").splitlines()
    assert first == (
        "run=guest if=1 apicv_active=1 avic_en=1 v_irq=0 req=0x0 ir=0 host=0 valid=1 irr=- isr=-"
        " is_running=1"
    )
    assert "exits 0" in counters
    assert "irq_window_exits 0" in counters


@pytest.mark.parametrize("name", ["vcpu", "vcpu1", "vcpu00", "vcpu-0", "cpu0", "vcpu0x"])
def test_no_view_of_a_vcpu_that_is_not(name: str) -> None:
    guests = Guests("v3").boot(1)
    with pytest.raises(KernelError) as refusal:
        guests.view(name)
    assert refusal.value.errno == ENOENT


def opened_for_writing(guests: Guests, path: str) -> int | None:
    try:
        guests.machine.write(path, "1")
    except KernelError as refusal:
        return refusal.errno
    return None


OLD = {"avic": "1", "npt": "Y", "nested": "1", "nrips": "1", "vgif": "1", "vls": "1", "sev": "0"}
NEWER = OLD | {
    "avic": "Y", "sev": "N", "sev_es": "N", "force_avic": "N", "dump_invalid_vmcb": "N",
    "intercept_smi": "Y", "lbrv": "1", "tsc_scaling": "1", "pause_filter_count": "3000",
    "pause_filter_count_grow": "2", "pause_filter_count_max": "65535",
    "pause_filter_count_shrink": "0", "pause_filter_thresh": "128",
}  # fmt: skip
NEWEST = NEWER | {"sev_snp": "N", "debug_swap": "N", "vnmi": "N"}
PARAMETERS = {
    "v3": OLD,
    "5.6": OLD,
    "6.1": NEWER,
    "6.12": NEWEST,
    "6.18": NEWEST | {"enable_ipiv": "Y"},
    "7.x": NEWEST | {"enable_ipiv": "Y"},
}


@pytest.mark.parametrize("kernel", KERNELS)
def test_parameters_of_the_module(kernel: str) -> None:
    guests = Guests(kernel)
    machine = guests.machine
    found = {name: machine.read(f"{AMD}/{name}").rstrip("\n") for name in machine.listdir(AMD)}
    assert found == PARAMETERS[kernel]
    for name in found.keys() - {"dump_invalid_vmcb"}:
        assert opened_for_writing(guests, f"{AMD}/{name}") == EACCES


@pytest.mark.parametrize("kernel", KERNELS)
def test_parameters_that_depend_on_others(kernel: str) -> None:
    guests = Guests(kernel)
    guests("modprobe npt=0 nested=0")
    off = "N\n" if kernel in NEW else "0\n"
    read = guests.machine.read
    assert read(f"{AMD}/avic") == off
    assert read(f"{AMD}/npt") == "N\n"
    assert read(f"{AMD}/nested") == "0\n"
    if kernel in ("6.18", "7.x"):
        assert read(f"{AMD}/enable_ipiv") == "N\n"
    guests("modprobe npt=1")
    assert read(f"{AMD}/avic") != off
    guests.machine.write(f"{FOLDER}/params/paging", "shadow")
    assert read(f"{AMD}/avic") == off


@pytest.mark.parametrize("mmu", ["5.3", "5.4", "6.1", "6.12", "6.18"])
def test_parameters_of_kvm(mmu: str) -> None:
    guests = Guests("v3")
    machine = guests.machine
    machine.write(f"{FOLDER}/mmu_profile", f"{mmu}\n")
    for name in machine.listdir(KVM):
        path = f"{KVM}/{name}"
        old = machine.read(path)
        if opened_for_writing(guests, path) == EACCES:
            assert machine.read(path) == old
            continue
        if old in ("Y\n", "N\n"):
            machine.write(path, "n")
            assert machine.read(path) == "N\n"
            assert refused(guests, path, "maybe") == EINVAL
        elif name == "pi_inject_timer":
            # A truth value that reads as a number.
            machine.write(path, "yes")
            assert machine.read(path) == "1\n"
            assert refused(guests, path, "maybe") == EINVAL
        else:
            machine.write(path, "0x10")
            assert machine.read(path) == "16\n"
            assert refused(guests, path, "many") == EINVAL
            assert refused(guests, path, str(1 << 32)) == ERANGE


def refused(guests: Guests, path: str, text: str) -> int:
    before = guests.machine.read(path)
    with pytest.raises(KernelError) as refusal:
        guests.machine.write(path, text)
    assert guests.machine.read(path) == before
    assert refusal.value.errno is not None
    return refusal.value.errno


def test_the_state_file_of_the_second_version() -> None:
    guests = Guests("v3")
    guests.machine.write(f"{FOLDER}/params/apicv_state_file", "1")
    guests("vm create g pid=4242 fd=7", "g vcpu add count=2")
    guests.with_pic()
    path = "sys/kernel/debug/kvm/4242-7/apicv-state"
    assert guests.machine.read(path) == "2\n"
    guests("g vcpu 0 cli", "g pit tick")
    assert guests.machine.read(path) == "1\n"
    guests("g vcpu 1 hv synic", "g vcpu 0 sti", "g vcpu 0 stop", "g vcpu 0 hv synic")
    assert guests.machine.read(path) == "0\n"
    assert opened_for_writing(guests, path) == EACCES
    assert guests.machine.fs.resolve(path).mode & 0o777 == 0o444


@pytest.mark.parametrize("setting", ["apicv_state_file=0", "avic=0"])
def test_the_state_file_is_an_exception(setting: str) -> None:
    guests = Guests("v3")
    guests.machine.write(f"{FOLDER}/params/apicv_state_file", str(int("avic" in setting)))
    if setting == "avic=0":
        guests("modprobe avic=0")
    guests("vm create g pid=4242 fd=7")
    assert "apicv-state" not in guests.machine.listdir("sys/kernel/debug/kvm/4242-7")
