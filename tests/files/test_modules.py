"""Modules: sys/module, loading and removing, parameters at the load."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fakesys.core.errors import KernelError
from fakesys.machine.machine import Machine
from fakesys.machine.profiles import PROFILES
from fakesys.machine.scenario import load, with_boot
from tests.files.ap import BUS, complaints
from tests.whole_machine import differences

F = "sys/kernel/debug/fakesys"
M = f"{F}/modules"
ORACLE = Path(__file__).parent.parent / "oracle" / "kvm-hosts" / "params.json"
ALL = ["zcrypt", "zcrypt_cex4", "pkey", "vfio", "mdev", "vfio_ap", "kvm", "kvm_amd"]
every_profile = pytest.mark.parametrize("profile", PROFILES)


def refusal(machine: Machine, name: str, text: str) -> str:
    with pytest.raises(KernelError) as error:
        machine.write(f"{M}/{name}", text)
    return error.value.name


def loaded(machine: Machine) -> list[str]:
    """The loaded modules, the oldest first."""
    lines = machine.read(f"{M}/list").splitlines()
    return [line.split()[0] for line in lines][::-1]


def exists(machine: Machine, path: str) -> bool:
    try:
        machine.fs.resolve(path)
    except KernelError:
        return False
    return True


def module(machine: Machine, name: str) -> dict[str, str]:
    """The files of a module that can be read."""
    folder = f"sys/module/{name}"
    return {
        file: machine.read(f"{folder}/{file}").rstrip("\n")
        for file in machine.listdir(folder)
        if file not in ("uevent", "holders", "notes", "sections", "drivers", "parameters")
    }


@every_profile
def test_what_is_loaded_at_boot(profile: str) -> None:
    machine = Machine(profile)
    assert loaded(machine) == ALL
    lines = machine.read(f"{M}/list").splitlines()
    assert lines[0] == "kvm_amd 163840 0 - Live 0x0000000000000000"
    assert lines[1] == "kvm 1146880 1 kvm_amd, Live 0x0000000000000000"
    assert lines[-1] == "zcrypt 118784 2 pkey,zcrypt_cex4, Live 0x0000000000000000"
    # Built in, as in the recordings: no more than this.
    assert sorted(machine.listdir("sys/module/ap")) == ["parameters", "uevent"]


@every_profile
def test_the_directory_of_a_module(profile: str) -> None:
    """The names of list 06 of the AP recordings."""
    machine = Machine(profile)
    assert sorted({*machine.listdir("sys/module/vfio_ap")} - {"version"}) == [
        "coresize", "drivers", "holders", "initsize", "initstate", "notes", "refcnt", "sections",
        "taint", "uevent",
    ]  # fmt: skip
    found = module(machine, "vfio_ap")
    assert found.pop("version", "1.2.0") == "1.2.0"
    assert found == {
        "coresize": "45056", "initsize": "0", "initstate": "live", "refcnt": "0", "taint": "",
    }  # fmt: skip
    assert machine.listdir("sys/module/vfio_ap/holders") == []
    assert machine.listdir("sys/module/kvm/holders") == ["kvm_amd"]
    assert machine.read("sys/module/kvm/refcnt") == "1\n"
    vfio = module(machine, "vfio")
    assert (vfio["version"], vfio["refcnt"]) == ("0.3", "1")
    assert len(vfio["srcversion"]) == 23
    with pytest.raises(KernelError, match="EACCES"):
        machine.read("sys/module/kvm/uevent")


def test_notes_and_sections() -> None:
    machine = Machine("6.1")
    build_id = machine.read("sys/module/kvm/notes/.note.gnu.build-id").encode("latin-1")
    assert build_id[:16] == b"\0\0\0\x04\0\0\0\x14\0\0\0\x03GNU\0"
    assert len(build_id) == machine.fs.resolve("sys/module/kvm/notes/.note.gnu.build-id").size
    note = machine.read("sys/module/kvm/notes/.note.Linux")
    assert len(note) == machine.fs.resolve("sys/module/kvm/notes/.note.Linux").size
    sections = machine.listdir("sys/module/kvm/sections")
    texts = [machine.read(f"sys/module/kvm/sections/{name}") for name in sections]
    assert all(len(text) == 19 and int(text, 16) for text in texts)
    assert machine.fs.resolve("sys/module/kvm/sections/.text").size == 19
    assert not exists(machine, "sys/module/kvm/sections/.nothing")


@every_profile
def test_a_module_that_is_removed_and_loaded_again(profile: str) -> None:
    machine = Machine(profile)
    before = machine.control.uevents.last
    machine.write(f"{M}/remove", "vfio_ap")
    assert loaded(machine) == [name for name in ALL if name != "vfio_ap"]
    assert not exists(machine, "sys/module/vfio_ap")
    assert not exists(machine, f"{BUS}/drivers/vfio_ap")
    assert machine.read(f"{F}/ap/vfio_ap_loaded") == "0\n"
    assert machine.read("sys/module/mdev/refcnt") == "0\n"
    machine.write(f"{M}/insert", "vfio-ap")
    assert loaded(machine)[-1] == "vfio_ap"
    assert exists(machine, f"{BUS}/drivers/vfio_ap")
    events = [event for _, event in machine.control.uevents.since(before)]
    own = [f"{event.action}@{event.devpath}" for event in events if event.subsystem == "module"]
    assert own == ["remove@/module/vfio_ap", "add@/module/vfio_ap"]
    # The module's own event comes last.
    assert events[-1].devpath == "/module/vfio_ap"


def test_a_written_uevent() -> None:
    machine = Machine("6.1")
    machine.write("sys/module/ap/uevent", "add")
    machine.write("sys/module/kvm/uevent", "change")
    text = machine.read(f"{F}/uevents")
    assert "ACTION=add\nDEVPATH=/module/ap\nSUBSYSTEM=module\nSYNTH_UUID=0\n" in text
    assert "ACTION=change\nDEVPATH=/module/kvm\nSUBSYSTEM=module\nSYNTH_UUID=0\n" in text
    with pytest.raises(KernelError, match="EINVAL"):
        machine.write("sys/module/kvm/uevent", "nonsense")


def test_modprobe_loads_what_is_needed_and_takes_it_along() -> None:
    machine = Machine("6.1")
    machine.write(f"{M}/unload", "vfio_ap\n")
    assert loaded(machine) == ["zcrypt", "zcrypt_cex4", "pkey", "kvm", "kvm_amd"]
    assert refusal(machine, "insert", "vfio_ap") == "ENOENT"
    assert "vfio_ap: Unknown symbol of vfio (err -2)" in complaints(machine)
    machine.write(f"{M}/load", "vfio_ap\n")
    assert loaded(machine)[-3:] == ["vfio", "mdev", "vfio_ap"]
    # What is there already is no error for modprobe.
    for name in ("vfio_ap", "ap", "vfio-ap"):
        machine.write(f"{M}/load", name)
    assert refusal(machine, "insert", "vfio_ap") == "EEXIST"
    assert refusal(machine, "insert", "ap") == "EEXIST"


def test_what_loading_and_removing_refuse() -> None:
    machine = Machine("6.1")
    for name in ("load", "insert"):
        assert refusal(machine, name, "nothing") == "ENOENT"
        assert refusal(machine, name, "\n") == "EINVAL"
        assert refusal(machine, name, "kvm=1") == "EINVAL"
    for name in ("unload", "remove"):
        assert refusal(machine, name, "nothing") == "ENOENT"
        assert refusal(machine, name, "ap") == "ENOENT"
        assert refusal(machine, name, "kvm kvm_amd") == "EINVAL"
        assert refusal(machine, name, "vfio") == "EAGAIN"
        assert refusal(machine, name, "kvm") == "EAGAIN"
    machine.write(f"{M}/remove", "pkey")
    assert refusal(machine, "remove", "pkey") == "ENOENT"
    machine.write(f"{M}/unload", "pkey")


def test_a_guest_keeps_its_modules() -> None:
    machine = Machine("6.1")
    uuid = "10000000-0000-4000-8000-000000000000"
    create = "sys/devices/vfio_ap/matrix/mdev_supported_types/vfio_ap-passthrough/create"
    machine.write(create, uuid)
    machine.write(f"{F}/ap/new_guest", "g")
    machine.write(f"{F}/ap/guests/g/attach", uuid)
    assert machine.read("sys/module/vfio_ap/refcnt") == "1\n"
    assert refusal(machine, "remove", "vfio_ap") == "EAGAIN"
    with pytest.raises(KernelError, match="EAGAIN"):
        machine.write(f"{F}/ap/vfio_ap_loaded", "0")
    machine.write(f"{F}/kvm/ctl", "vm create v")
    assert machine.read("sys/module/kvm_amd/refcnt") == "1\n"
    assert refusal(machine, "remove", "kvm_amd") == "EAGAIN"
    machine.write(f"{F}/kvm/ctl", "vm destroy v")
    machine.write(f"{M}/remove", "kvm_amd")


@every_profile
def test_without_the_hosts_drivers(profile: str) -> None:
    machine = Machine(profile)
    machine.write(f"{BUS}/apmask", "-5")
    machine.write(f"{M}/remove", "zcrypt_cex4")
    drivers = f"{BUS}/drivers"
    assert machine.listdir(drivers) == ["vfio_ap"]
    assert machine.read(f"{BUS}/bindings") == "4/12\n"
    assert not exists(machine, f"{BUS}/devices/card05/driver")
    # New cards and queues of the host stay unbound.
    machine.write(f"{F}/ap/new_card", "7 CEX6 cca")
    machine.write(f"{BUS}/drivers_probe", "card07")
    machine.write(f"{BUS}/drivers_probe", "07.0004")
    assert machine.read(f"{BUS}/bindings") == "4/16\n"
    machine.write(f"{M}/load", "zcrypt_cex4")
    assert machine.read(f"{BUS}/bindings") == "16/16 (complete)\n"
    assert exists(machine, f"{BUS}/devices/card07/driver")
    assert sorted(machine.listdir(drivers)) == ["cex4card", "cex4queue", "vfio_ap"]


def test_without_kvm() -> None:
    machine = Machine("6.1")
    machine.write(f"{M}/unload", "kvm_amd")
    for path in ("sys/module/kvm", "sys/module/kvm_amd", "sys/kernel/debug/kvm"):
        assert not exists(machine, path)
    with pytest.raises(KernelError, match="ENOENT"):
        machine.write(f"{F}/kvm/ctl", "vm create a")
    machine.write(f"{M}/load", "kvm_amd avic=0 enable_ipiv=0")
    assert exists(machine, "sys/kernel/debug/kvm/exits")
    assert machine.read("sys/module/kvm_amd/parameters/avic") == "N\n"
    machine.write(f"{F}/kvm/ctl", "vm create a")


def test_parameters_at_the_load() -> None:
    machine = Machine("6.18")
    kvm, amd = "sys/module/kvm/parameters", "sys/module/kvm_amd/parameters"
    machine.write(f"{kvm}/halt_poll_ns", "5")
    machine.write(f"{kvm}/nx_huge_pages", "never")
    machine.write(f"{amd}/dump_invalid_vmcb", "Y")
    with pytest.raises(KernelError, match="EINVAL"):
        machine.write(f"{amd}/dump_invalid_vmcb", "maybe")
    machine.write(f"{M}/unload", "kvm_amd")
    machine.write(f"{M}/load", "kvm ignore_msrs nx_huge_pages=force mmio_caching=0 tdp_mmu=0")
    machine.write(f"{M}/insert", 'kvm-amd enable-ipiv=0 vgif=0 nested="0" x2avic unheard=1')
    assert machine.read(f"{kvm}/halt_poll_ns") == "200000\n"
    assert machine.read(f"{kvm}/ignore_msrs") == "Y\n"
    assert machine.read(f"{kvm}/nx_huge_pages") == "Y\n"
    assert machine.read(f"{kvm}/mmio_caching") == "N\n"
    assert machine.read(f"{kvm}/tdp_mmu") == "N\n"
    assert machine.read(f"{amd}/enable_ipiv") == "N\n"
    assert machine.read(f"{amd}/vgif") == "0\n"
    assert machine.read(f"{amd}/nested") == "0\n"
    assert machine.read(f"{amd}/dump_invalid_vmcb") == "N\n"
    assert "kvm_amd: unknown parameter 'unheard' ignored" in complaints(machine)
    machine.write(f"{M}/unload", "kvm_amd")
    assert refusal(machine, "load", "kvm halt_poll_ns=x") == "EINVAL"
    assert refusal(machine, "insert", "kvm halt_poll_ns=4294967296") == "ERANGE"
    assert refusal(machine, "load", "kvm_amd npt=x") == "EINVAL"
    assert refusal(machine, "load", "kvm_amd pause_filter_count=4294967296") == "ERANGE"
    assert "kvm: `x' invalid for parameter `halt_poll_ns'" in complaints(machine)
    assert "kvm_amd" not in loaded(machine)
    machine.write(f"{M}/remove", "pkey")
    machine.write(f"{M}/unload", "zcrypt_cex4")
    assert refusal(machine, "insert", "zcrypt hwrng_seed=x") == "EINVAL"
    assert refusal(machine, "insert", "zcrypt hwrng_seed=4294967296") == "ERANGE"
    machine.write(f"{M}/insert", "zcrypt hwrng_seed=0")
    assert machine.read("sys/module/zcrypt/parameters/hwrng_seed") == "0\n"


@pytest.mark.parametrize(
    ("profile", "avic"), [("seed", "1"), ("6.1", "N"), ("6.12", "N"), ("6.18", "Y")]
)
def test_avic_is_off_where_the_kernel_has_it_off(profile: str, avic: str) -> None:
    machine, kvm = Machine(profile), "sys/kernel/debug/fakesys/kvm"
    assert machine.read("sys/module/kvm_amd/parameters/avic") == f"{avic}\n"
    machine.write(f"{kvm}/ctl", "modprobe avic=1")
    assert machine.read("sys/module/kvm_amd/parameters/avic") == avic.replace("N", "Y") + "\n"
    machine.write(f"{kvm}/ctl", "vm create g reinject=0")
    assert "inhibits 0x0\n" in machine.read(f"{kvm}/vms/g/state")


def test_parameters_of_the_boot_command_line() -> None:
    line = "kvm.halt_poll_ns=7 kvm-amd.avic=0 zcrypt.hwrng_seed=0 kvm.nx_huge_pages=x"
    machine = Machine("6.1", with_boot(load("default"), line))
    kvm, amd = "sys/module/kvm/parameters", "sys/module/kvm_amd/parameters"
    for _ in range(2):
        assert machine.read(f"{kvm}/halt_poll_ns") == "7\n"
        assert machine.read(f"{amd}/avic") == "N\n"
        assert machine.read("sys/module/zcrypt/parameters/hwrng_seed") == "0\n"
        # As a line of modprobe's: it holds whenever modprobe loads the module.
        machine.write(f"{F}/reset", "1")
    assert "kvm: `x' invalid for parameter `nx_huge_pages'" in complaints(machine)
    machine.write(f"{M}/unload", "kvm_amd")
    machine.write(f"{M}/insert", "kvm")
    assert machine.read(f"{kvm}/halt_poll_ns") == "200000\n"


@pytest.mark.parametrize("profile", ["6.1", "6.12"])
def test_the_parameters_are_those_of_a_real_host(profile: str) -> None:
    machine = Machine(profile)
    for name, params in json.loads(ORACLE.read_text())[profile].items():
        folder = f"sys/module/{name}/parameters"
        found = {each: f"{machine.fs.resolve(f'{folder}/{each}').mode & 0o777:o}"
                 for each in machine.listdir(folder)}  # fmt: skip
        assert found == {each: mode for each, (mode, _) in params.items()}


def test_what_modinfo_tells() -> None:
    text = Machine("6.1").read(f"{M}/info")
    blocks = [dict(line.split(": ", 1) for line in block.splitlines() if "parm" not in line)
              for block in text.strip().split("\n\n")]  # fmt: skip
    assert [block["name"] for block in blocks] == ["ap", *ALL]
    by_name = {block["name"]: block for block in blocks}
    assert by_name["vfio_ap"]["depends"] == "vfio,mdev"
    assert by_name["ap"]["builtin"] == "Y"
    assert "parm: halt_poll_ns:" in text
    assert "parm: nested:kvm_amd: guests" not in text


@every_profile
def test_a_reset_and_a_preset_load_everything(profile: str) -> None:
    machine = Machine(profile)
    ap = ALL[:6]
    for path, text, there in (
        (f"{F}/ap/reset", "1", ap), (f"{F}/ap/preset", "default", ap), (f"{F}/reset", "1", ALL),
    ):  # fmt: skip
        for name in ("vfio_ap", "pkey", "zcrypt_cex4", "kvm_amd"):
            machine.write(f"{M}/unload", name)
        assert loaded(machine) == []
        machine.write(f"{M}/load", "zcrypt hwrng_seed=0")
        machine.write(path, text)
        assert loaded(machine) == there
        assert machine.read(f"{BUS}/bindings") == "12/12 (complete)\n"
        assert machine.read("sys/module/zcrypt/parameters/hwrng_seed") == "1\n"
        machine.write(f"{M}/load", "kvm_amd")


@every_profile
@pytest.mark.parametrize(
    "removed", [(), ("vfio_ap",), ("zcrypt_cex4",), ("kvm_amd", "pkey"), ("vfio_ap", "zcrypt_cex4")]
)
def test_a_snapshot_keeps_them(profile: str, removed: tuple[str, ...]) -> None:
    machine = Machine(profile)
    for name in removed:
        machine.write(f"{M}/remove", name)
    machine.write(f"{M}/unload", "zcrypt_cex4")
    machine.write(f"{M}/load", "zcrypt_cex4")
    if removed[-1:] == ("zcrypt_cex4",):
        machine.write(f"{M}/remove", "zcrypt_cex4")
    copy = Machine("seed", "empty")
    copy.load(machine.save())
    assert differences(machine, copy) == []
    for each in (machine, copy):
        each.write(f"{M}/load", "zcrypt_cex4")
        each.write(f"{M}/load", "kvm_amd")
    assert differences(machine, copy) == []
