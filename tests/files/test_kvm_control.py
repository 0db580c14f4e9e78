"""fakesys/kvm: commands, what `last` says, knobs, kernels, views."""

from __future__ import annotations

import json
from errno import EBUSY, EEXIST, EINVAL, ENOENT, ERANGE

import pytest

from fakesys.core.errors import KernelError
from fakesys.machine.kernels.apicv import APICV_KERNELS
from fakesys.machine.kernels.mmu import MMU_KERNELS
from fakesys.machine.machine import Machine
from fakesys.subsystems.kvm.state import state as kvm_state

KVM = "sys/kernel/debug/kvm"
CONTROL = "sys/kernel/debug/fakesys/kvm"
CTL = f"{CONTROL}/ctl"


@pytest.fixture
def machine() -> Machine:
    return Machine()


def refused(errno: int, machine: Machine, path: str, text: str) -> str:
    """The refusal's reason."""
    with pytest.raises(KernelError) as refusal:
        machine.write(path, text)
    assert refusal.value.errno == errno, text
    return refusal.value.why


def test_last_tells_of_the_last_command(machine: Machine) -> None:
    assert machine.read(f"{CONTROL}/last") == ""
    machine.write(CTL, "vm create a\n")
    assert machine.read(f"{CONTROL}/last") == "ok\n"
    why = refused(EEXIST, machine, CTL, "vm create a\n")
    assert machine.read(f"{CONTROL}/last") == f"error EEXIST {why}\n"
    machine.write(CTL, "vm destroy a")
    assert machine.read(f"{CONTROL}/last") == "ok\n"


@pytest.mark.parametrize(
    ("command", "errno"),
    [
        ("vm create a", EEXIST),
        ("vm create b pid=77 fd=10", EEXIST),
        ("vm create vm", EINVAL),
        ("vm create b/c", EINVAL),
        ("vm create b irqchip=maybe", EINVAL),
        ("vm create b pid=0", EINVAL),
        ("vm create b pid=99999999999999999999", ERANGE),
        ("vm create b colour=red", EINVAL),
        ("vm create", EINVAL),
        ("vm destroy b", ENOENT),
        ("vm close b", ENOENT),
        ("b vcpu add", ENOENT),
        ("a vcpu add id=0", EEXIST),
        ("a vcpu add id=5000", EINVAL),
        ("a vcpu add count=0", EINVAL),
        ("a vcpu add count=300", EINVAL),
        ("a vcpu 7 close", ENOENT),
        ("a vcpu x close", EINVAL),
        ("b vcpu 0 close", ENOENT),
        ("a irqchip", EEXIST),
        ("late irqchip", EINVAL),
        ("b irqchip", ENOENT),
        ("modprobe colour=red", EINVAL),
        ("modprobe", EBUSY),
        ("dance", EINVAL),
        ("", EINVAL),
    ],
)
def test_refused_commands_change_nothing(machine: Machine, command: str, errno: int) -> None:
    machine.write(CTL, "vm create a pid=77")
    machine.write(CTL, "vm create late pid=77 irqchip=none")
    machine.write(CTL, "late vcpu add")
    machine.write(CTL, "a vcpu add")
    before = (machine.listdir(KVM), machine.listdir(f"{KVM}/77-10"))
    refused(errno, machine, CTL, f"{command}\n")
    assert (machine.listdir(KVM), machine.listdir(f"{KVM}/77-10")) == before
    assert machine.read(f"{CONTROL}/last").startswith("error E")


def test_a_vcpu_closes_once(machine: Machine) -> None:
    machine.write(CTL, "vm create a pid=77")
    machine.write(CTL, "a vcpu add count=2")
    machine.write(CTL, "a vcpu 1 close")
    refused(ENOENT, machine, CTL, "a vcpu 1 close")
    refused(EEXIST, machine, CTL, "a vcpu add id=1")


def test_vcpus_keep_a_vm_whose_descriptor_is_closed(machine: Machine) -> None:
    machine.write(CTL, "vm create a pid=77")
    machine.write(CTL, "a vcpu add")
    machine.write(CTL, "vm close a")
    refused(ENOENT, machine, CTL, "vm close a")
    assert "77-10" in machine.listdir(KVM)
    machine.write(CTL, "a vcpu 0 close")
    assert "77-10" not in machine.listdir(KVM)
    assert machine.listdir(f"{CONTROL}/vms") == []


def test_an_irqchip_can_come_later(machine: Machine) -> None:
    machine.write(CTL, "vm create a pid=77 irqchip=none")
    machine.write(CTL, "a irqchip")
    machine.write(CTL, "a vcpu add")
    assert "lapic_timer_advance_ns" in machine.listdir(f"{KVM}/77-10/vcpu0")


def test_vms_have_their_views(machine: Machine) -> None:
    machine.write(CTL, "vm create a")
    machine.write(CTL, "vm create b")
    assert machine.listdir(f"{CONTROL}/vms") == ["a", "b"]
    machine.write(CTL, "vm destroy a")
    assert machine.listdir(f"{CONTROL}/vms") == ["b"]


def test_warnings_are_listed(machine: Machine) -> None:
    assert machine.read(f"{CONTROL}/warnings") == ""
    machine.subsystems.kvm.kvm.warn("a rare thing")
    machine.subsystems.kvm.kvm.warn("a rare thing")
    assert machine.read(f"{CONTROL}/warnings") == "2 a rare thing\n"


@pytest.mark.parametrize(
    ("file", "kernels"), [("mmu_profile", MMU_KERNELS), ("apicv_profile", APICV_KERNELS)]
)
def test_every_kernel_can_be_chosen(
    machine: Machine, file: str, kernels: dict[str, object]
) -> None:
    for name in kernels:
        machine.write(f"{CONTROL}/{file}", f"{name}\n")
        assert f"[{name}]" in machine.read(f"{CONTROL}/{file}").split()
    refused(EINVAL, machine, f"{CONTROL}/{file}", "2.4\n")
    machine.write(CTL, "vm create a")
    refused(EBUSY, machine, f"{CONTROL}/{file}", f"{name}\n")
    machine.write(CTL, "vm destroy a")
    machine.write(f"{CONTROL}/{file}", next(iter(kernels)))


def test_the_machines_profile_chooses_both(machine: Machine) -> None:
    machine.write("sys/kernel/debug/fakesys/profile", "6.18")
    assert "[6.18]" in machine.read(f"{CONTROL}/mmu_profile").split()
    assert "[6.18]" in machine.read(f"{CONTROL}/apicv_profile").split()
    machine.write(CTL, "vm create a")
    refused(EBUSY, machine, "sys/kernel/debug/fakesys/profile", "seed")


def test_every_knob_shows_and_takes_what_it_shows(machine: Machine) -> None:
    for name in machine.listdir(f"{CONTROL}/params"):
        text = machine.read(f"{CONTROL}/params/{name}")
        machine.write(f"{CONTROL}/params/{name}", text)
        assert machine.read(f"{CONTROL}/params/{name}") == text
        refused(EINVAL, machine, f"{CONTROL}/params/{name}", "no such value")
    machine.write(CTL, "vm create a")
    for name in machine.listdir(f"{CONTROL}/params"):
        text = machine.read(f"{CONTROL}/params/{name}")
        refused(EBUSY, machine, f"{CONTROL}/params/{name}", text)


def test_a_reset_ends_every_vm(machine: Machine) -> None:
    machine.write(CTL, "vm create a pid=77")
    machine.write("sys/kernel/debug/fakesys/reset", "1")
    assert machine.listdir(f"{CONTROL}/vms") == []
    assert "77-10" not in machine.listdir(KVM)


def test_no_preset_by_another_name(machine: Machine) -> None:
    refused(EINVAL, machine, f"{CONTROL}/preset", "no-such-guest vcpus=1")
    assert machine.read(f"{CONTROL}/last").startswith("error EINVAL")


def test_the_uevents_of_a_vm(machine: Machine) -> None:
    machine.write(CTL, "vm create a pid=77")
    machine.write(CTL, "vm destroy a")
    text = "".join(str(event.env) for _, event in machine.control.uevents.since(0))
    assert text.count("'STATS_PATH': '/kvm/77-10'") == 2


def test_the_state_of_the_machine_has_its_vms(machine: Machine) -> None:
    machine.subsystems.kvm.kvm.extend(tuple)
    machine.write(CTL, "vm create a pid=77 fd=12 irqchip=split")
    machine.write(CTL, "a vcpu add count=2")
    machine.write(CTL, "a vcpu 1 close")
    vm = machine.subsystems.kvm.kvm.vm("a")
    vm.vcpu(0).stats.exits = 3
    vm.vcpu(0).stats.halt_wait_hist[1] = 1
    vm.stats.mmu_flooded = 2
    machine.subsystems.kvm.kvm.warn("odd")
    state = json.loads(json.dumps(kvm_state(machine.subsystems.kvm.kvm)))
    assert state["vms"]["a"].pop("vcpus") == {
        "0": {
            "closed": False,
            "cpu": 0,
            "stats": {"exits": 3, "halt_wait_hist": [0, 1] + [0] * 30},
            "thread": 78,
        },
        "1": {"closed": True, "cpu": 1, "stats": {}, "thread": 79},
    }
    assert state["vms"] == {
        "a": {
            "fd": 12,
            "irqchip": "split",
            "pid": 77,
            "stats": {"mmu_flooded": 2},
            "vcpu_stats": {},
        }
    }
    assert (state["created"], state["warnings"]) == (1, {"odd": 1})


def test_the_state_of_the_machine_has_memory_interrupts_and_tracing(machine: Machine) -> None:
    for command in (
        "vm create a pid=77",
        "a vcpu add count=2",
        "a mem ram size=4M",
        "a slot 3 gpa=0x200000 size=2M mem=ram off=2M flags=log_dirty",
        "a vcpu 1 start",
        "a vcpu 0 access w 0x200000 n=3",
    ):
        machine.write(CTL, command)
    tracing = "sys/kernel/tracing"
    machine.mkdir(f"{tracing}/instances/foo")
    for name, text in (
        ("instances/foo/events/kvm/kvm_msr/filter", "ecx == 5"),
        ("events/kvm/kvm_exit/enable", "1"),
        ("events/kvm/kvm_exit/trigger", "stacktrace:3"),
        ("set_event_pid", "5 6"),
        ("trace_marker", "hello"),
        ("options/overwrite", "0"),
    ):
        machine.write(f"{tracing}/{name}", text)
    state = json.loads(machine.read("sys/kernel/debug/fakesys/state"))
    vm = state["kvm"]["vms"]["a"]
    assert vm["memory"]["host"] == {"ram": 4 << 20}
    assert "3 0x200000 0x200000 log_dirty ram+0x200000" in vm["memory"]["memslots"]
    assert vm["memory"]["mmu"]["n_used"] > 0
    assert vm["interrupts"]["vm"]["irqchip"] == "kernel"
    assert vm["interrupts"]["vcpus"]["1"]["run"] == "guest"
    assert vm["interrupts"]["ioapic"][0] == "irr 0x0"
    top = state["tracing"]["top"]
    assert top["events"] == ["kvm:kvm_exit"]
    assert top["events_changed"] == {
        "kvm:kvm_exit": {"triggers": ["stacktrace:count=3"]},
    }
    assert (top["pids"], top["buffers"][0]["entries"], top["clock"]) == ([5, 6], 1, "local")
    assert "overwrite" not in top["options"]
    assert state["tracing"]["instances"]["foo"]["events_changed"] == {
        "kvm:kvm_msr": {"filter": "ecx == 5"}
    }
    assert state["clock"] == {"rate": 1.0}
    assert state["faults"] == {"delay": [], "show": [], "store": []}
    assert (state["lockdown"], state["seed"], state["selftest"]) == (False, 1, None)
    assert set(state["kernels"]) == {"ap", "apicv", "mmu", "name", "trace"}


def test_help_lists_every_command(machine: Machine) -> None:
    text = machine.read(f"{CONTROL}/help")
    usages = [line for line in text.splitlines() if not line.startswith(" ")]
    assert usages[0].startswith("vm create NAME [pid=] [fd=] [irqchip=]")
    assert "VM vcpu K close" in usages
    assert len(usages) == len(set(usages))
    assert "    EEXIST: the id is in use\n" in text


def test_events_of_a_command_are_those_of_the_owner_or_of_a_vcpu() -> None:
    machine = Machine()
    tracing = "sys/kernel/tracing"
    machine.write(f"{tracing}/set_event", "kvmmmu:*")
    commands = (
        "vm create g pid=4711",
        "g mem ram size=2M",
        "g slot 0 gpa=0 size=2M mem=ram",
        "g vcpu add",
        "g vcpu 0 access w 0",
        "g slot 0 gpa=0 size=0",
        "vm destroy g",
    )
    who = []
    for command in commands:
        machine.write(f"{tracing}/trace", "")
        machine.write(CTL, command)
        lines = machine.read(f"{tracing}/trace").splitlines()
        who.append({line[:23].strip() for line in lines if not line.startswith("#")})
    assert who[:4] == [set(), set(), set(), set()]
    assert who[4] == {"CPU 0/KVM-4712"}
    assert who[5] == who[6] == {"qemu-system-x86-4711"}
