"""The control files of the AP part: hardware, guests, settings, journals."""

from __future__ import annotations

import json
import os

import pytest

from fakesys.core.errors import Blocked, KernelError
from fakesys.machine.machine import Machine
from fakesys.tree.node import File
from tests.files.ap import (
    BUS,
    CONTROL,
    KERNELS,
    MATRIX,
    ROOT,
    TYPE,
    U1,
    U2,
    every_kernel,
    exists,
    free_all,
    link,
    machine_of,
    new_guest,
    new_mdev,
    refusal,
    refused,
    uevents,
)
from tests.files.test_ap_bus import mask


@pytest.mark.parametrize(
    "text",
    [
        "", "7", "7 CEX6", "7 CEX6 none", "7 CEX9 cca", "7 CEX3 ep11", "x CEX6 cca", "7 0 cca",
        "7 256 cca", "7 CEX6 cca serialnr", "7 CEX6 cca colour=red", "7 CEX6 cca depth=256",
        "7 CEX6 cca fw_version=7", "7 CEX6 cca serialnr=", "-7 CEX6 cca", "7 CEX6 CCA",
    ],
)  # fmt: skip
def test_new_card_refuses(text: str) -> None:
    machine = machine_of()
    if text:
        assert refused(machine, f"{CONTROL}/new_card", text) == "EINVAL"


def test_new_card_refuses_what_cannot_be() -> None:
    machine = machine_of()
    new_card = f"{CONTROL}/new_card"
    assert refused(machine, new_card, "5 CEX6 cca") == "EEXIST"
    assert refused(machine, new_card, "256 CEX6 cca") == "ENODEV"
    assert refused(machine, new_card, f"{1 << 64} CEX6 cca") == "ERANGE"
    machine.write(f"{CONTROL}/lpar/max_adapter_id", "6")
    assert refused(machine, new_card, "7 CEX6 cca") == "ENODEV"


@pytest.mark.parametrize("name", ["CEX4", "CEX5", "CEX6", "CEX7", "CEX8"])
@pytest.mark.parametrize(("mode", "letter"), [("accel", "A"), ("cca", "C"), ("ep11", "P")])
def test_new_card_makes_every_kind(name: str, mode: str, letter: str) -> None:
    machine = machine_of()
    machine.write(f"{CONTROL}/new_card", f"0x10 {name} {mode}\n")
    assert machine.read(f"{ROOT}/card10/type") == f"{name}{letter}\n"
    assert machine.read(f"{CONTROL}/cards/10/type") == f"{name}{letter}\n"
    assert machine.read(f"{CONTROL}/cards/10/mode") == f"{mode}\n"
    assert machine.read(f"{CONTROL}/lpar/adapters") == mask(4, 5, 6, 16)


def test_del_card() -> None:
    machine = machine_of()
    machine.write(f"{CONTROL}/del_card", "5\n")
    assert machine.read(f"{CONTROL}/lpar/adapters") == mask(4, 6)
    assert not exists(machine, f"{CONTROL}/cards/05")
    assert refused(machine, f"{CONTROL}/del_card", "5") == "ENODEV"
    assert refused(machine, f"{CONTROL}/del_card", "five") == "EINVAL"
    assert refused(machine, f"{CONTROL}/del_card", "5 6") == "EINVAL"
    assert refused(machine, f"{CONTROL}/del_card", str(1 << 64)) == "ERANGE"


@pytest.mark.parametrize("name", ["adapters", "domains", "control_domains"])
def test_lpar_masks(name: str) -> None:
    machine = machine_of()
    path = f"{CONTROL}/lpar/{name}"
    machine.write(path, "0x0c\n")
    assert machine.read(path) == mask(4, 5)
    machine.write(path, "+9")
    assert machine.read(path) == mask(4, 5, 9)
    assert refused(machine, path, "nonsense") == "EINVAL"
    machine.write(path, "0x0c")
    machine.write(f"{CONTROL}/lpar/max_adapter_id", "100")
    machine.write(f"{CONTROL}/lpar/max_domain_id", "100")
    assert refused(machine, path, "+101") == "ENODEV"
    machine.write(path, "+100")


def test_maxima() -> None:
    machine = machine_of()
    lpar = f"{CONTROL}/lpar"
    for name in ("max_adapter_id", "max_domain_id"):
        assert refused(machine, f"{lpar}/{name}", "256") == "EINVAL"
        assert refused(machine, f"{lpar}/{name}", "x") == "EINVAL"
        assert refused(machine, f"{lpar}/{name}", str(1 << 64)) == "ERANGE"
    assert refused(machine, f"{lpar}/max_adapter_id", "5") == "EBUSY"
    machine.write(f"{lpar}/max_adapter_id", "6")
    assert machine.read(f"{BUS}/ap_max_adapter_id") == "6\n"
    machine.write(f"{lpar}/max_domain_id", "0x47")
    # The machine still gives the domains above it, but there are no queues in them.
    assert machine.read(f"{lpar}/domains") == mask(4, 0x47, 0xAB, 0xFF)
    assert machine.read(f"{BUS}/bindings") == "6/6 (complete)\n"
    path = new_mdev(machine)
    machine.write(f"{path}/assign_control_domain", "0x46")
    assert refused(machine, f"{path}/assign_domain", "0x48") == "ENODEV"
    assert refused(machine, f"{lpar}/max_domain_id", "0x45") == "EBUSY"
    machine.write(f"{lpar}/max_domain_id", "0x46")
    machine.write(f"{lpar}/max_adapter_id", "20")
    machine.write(f"{BUS}/apmask", "-6")
    machine.write(f"{path}/assign_adapter", "6")
    machine.write(f"{CONTROL}/del_card", "6")
    assert refused(machine, f"{lpar}/max_adapter_id", "5") == "EBUSY"


@pytest.mark.parametrize("name", ["interrupts", "qci", "reconfig"])
def test_facilities(name: str) -> None:
    machine = machine_of()
    path = f"{CONTROL}/lpar/{name}"
    assert machine.read(path) == "1\n"
    machine.write(path, "0\n")
    assert machine.read(path) == "0\n"
    assert refused(machine, path, "2") == "EINVAL"


def test_switches_of_an_installed_card() -> None:
    machine = machine_of()
    card = f"{CONTROL}/cards/05"
    names = "type mode serialnr fw_version depth raw_hwtype config checkstop online"
    assert [machine.read(f"{card}/{name}").strip() for name in names.split()] == [
        "CEX5C", "cca", "FAKE0005", "7.31", "7", "11", "1", "0", "1",
    ]  # fmt: skip
    for name in ("config", "checkstop", "online"):
        assert refused(machine, f"{card}/{name}", "2") == "EINVAL"
    machine.write(f"{card}/online", "0")
    assert machine.read(f"{ROOT}/card05/online") == "0\n"
    machine.write(f"{card}/config", "0")
    assert refused(machine, f"{card}/online", "1") == "ENODEV"
    machine.write(f"{BUS}/drivers/cex4card/unbind", "card05")
    assert refusal(machine, f"{card}/online") == "ENODEV"
    assert refused(machine, f"{card}/online", "0") == "ENODEV"


def test_answers_of_a_queue() -> None:
    machine = machine_of()
    path = f"{CONTROL}/queues/05.0004/rc"
    assert machine.read(path) == "0x00\n"
    for text in ("1", "0x02", "3\n", "4", "05"):
        machine.write(path, text)
        assert machine.read(path) == f"0x0{text.strip()[-1]}\n"
    assert refused(machine, path, "6") == "EINVAL"
    assert refused(machine, path, "x") == "EINVAL"
    assert refused(machine, path, str(1 << 64)) == "ERANGE"
    assert not exists(machine, f"{CONTROL}/queues/05.0005")
    assert not exists(machine, f"{CONTROL}/queues/09.0004")


def test_submit_needs_a_device() -> None:
    machine = machine_of()
    machine.write(f"{CONTROL}/lpar/adapters", "-5")
    assert refused(machine, f"{CONTROL}/queues/05.0004/submit", "1") == "ENODEV"


@pytest.mark.parametrize("text", ["a/b", "x" * 65, "a b", "a ap=2", "a ap=0 ap=0", ".", "..", " "])
def test_new_guest_refuses(text: str) -> None:
    assert refused(machine_of(), f"{CONTROL}/new_guest", text) == "EINVAL"


def test_guests_come_and_go() -> None:
    machine = machine_of()
    guest = new_guest(machine, "A-b_c.9")
    assert refused(machine, f"{CONTROL}/new_guest", "A-b_c.9") == "EEXIST"
    assert machine.read(f"{guest}/mdev") == "-\n"
    assert machine.listdir(f"{CONTROL}/guests") == ["A-b_c.9"]
    machine.write(f"{CONTROL}/del_guest", "A-b_c.9\n")
    assert not exists(machine, guest)
    assert refused(machine, f"{CONTROL}/del_guest", "A-b_c.9") == "ENODEV"
    assert refused(machine, f"{CONTROL}/del_guest", "two words") == "ENODEV"


def test_attach_refuses_in_this_order() -> None:
    machine = machine_of()
    free_all(machine)
    new_mdev(machine, U1, "5", "4")
    new_mdev(machine, U2)
    one, two = new_guest(machine, "one", U1), new_guest(machine, "two")
    assert refused(machine, f"{one}/attach", "nothing") == "EINVAL"
    assert refused(machine, f"{one}/attach", U1.replace("1", "9")) == "ENODEV"
    assert refused(machine, f"{one}/attach", U1) == "EBUSY"
    assert refused(machine, f"{one}/attach", U2) == "EPERM"
    assert refused(machine, f"{two}/attach", U1.upper()) == "EBUSY"
    assert machine.read(f"{one}/mdev") == f"{U1}\n"
    assert refused(machine, f"{one}/detach", "0") == "EINVAL"
    machine.write(f"{one}/detach", "1")
    assert machine.read(f"{one}/mdev") == "-\n"
    assert machine.read(f"{one}/apm") == "0x" + "0" * 64 + "\n"
    assert refused(machine, f"{one}/detach", "1") == "ENODEV"
    machine.write(f"{two}/attach", U1)
    assert machine.read(f"{two}/apm") == mask(5)


def test_devices_of_a_guest_are_those_that_answer() -> None:
    machine = machine_of("6.1")
    free_all(machine)
    new_mdev(machine, U1, "4 5", "4 0x47")
    guest = new_guest(machine, "g", U1)
    ep11 = "04 CEX5P EP11-Coproc\n04.0004 CEX5P EP11-Coproc\n04.0047 CEX5P EP11-Coproc\n"
    assert machine.read(f"{guest}/devices").startswith(ep11)
    machine.write(f"{CONTROL}/cards/05/config", "0")
    assert machine.read(f"{guest}/devices") == ep11
    machine.write(f"{CONTROL}/autoscan", "0")
    # What the machine takes is out of reach before any scan.
    machine.write(f"{CONTROL}/lpar/domains", "-0x47")
    assert machine.read(f"{guest}/devices") == "04 CEX5P EP11-Coproc\n04.0004 CEX5P EP11-Coproc\n"
    assert machine.read(f"{guest}/aqm") == mask(4, 0x47)


@every_kernel
def test_interrupts_of_a_guest(kernel: str) -> None:
    machine = machine_of(kernel)
    free_all(machine)
    path = new_mdev(machine, U1, "5 9", "4 0x47")
    guest = new_guest(machine, "g", U1)
    aqic = f"{guest}/aqic"
    machine.write(aqic, "05.0004 on 3\n")
    machine.write(aqic, "05.0004 on 3\n")
    machine.write(aqic, "05.0047 on 0x7")
    assert machine.read(aqic) == "05.0004 on 3\n05.0047 on 7\n"
    for text in (
        "05.0004",
        "05.0004 maybe",
        "5.4 on 3",
        "05.0004 on",
        "05.0004 on x",
        "\n",
        "05.0004 off 3",
        "05.0004 on 3 4",
    ):
        assert refused(machine, aqic, text) == "EINVAL"
    assert refused(machine, aqic, f"05.0004 on {1 << 64}") == "ERANGE"
    assert refused(machine, aqic, "06.0004 on 3") == "ENODEV"
    assert refused(machine, aqic, "09.0004 on 3") == "ENODEV"
    assert refused(machine, aqic, "06.0004 off") == "ENODEV"
    assert refused(machine, aqic, "05.0004 on 8") == "EFAULT"
    answer = "06" if kernel == "6.12" else "08"
    assert f"answer {answer}" in machine.read("sys/kernel/debug/fakesys/last_error")
    machine.write(aqic, "05.0047 off")
    machine.write(aqic, "05.0047 off")
    assert machine.read(aqic) == "05.0004 on 3\n"
    machine.write(f"{path}/unassign_domain", "4")
    assert machine.read(aqic) == ""
    machine.write(aqic, "05.0047 on 1")
    machine.write(f"{guest}/detach", "1")
    assert machine.read(aqic) == ""
    assert refused(machine, aqic, "05.0047 on 1") == "ENODEV"
    machine.write(f"{guest}/attach", U1)
    machine.write(aqic, "05.0047 on 1")
    machine.write(f"{CONTROL}/del_card", "5")
    assert machine.read(aqic) == ""


@every_kernel
def test_unloading_the_module(kernel: str) -> None:
    machine = machine_of(kernel)
    free_all(machine)
    new_mdev(machine, U1, "5", "4")
    guest = new_guest(machine, "g", U1)
    assert machine.read("sys/module/vfio_ap/refcnt") == "1\n"
    loaded = f"{CONTROL}/vfio_ap_loaded"
    assert refused(machine, loaded, "0") == "EAGAIN"
    assert refused(machine, loaded, "2") == "EINVAL"
    machine.write(f"{guest}/detach", "1")
    count = len(uevents(machine))
    machine.write(loaded, "0")
    machine.write(loaded, "0")
    assert machine.read(loaded) == "0\n"
    for path in (
        "sys/devices/vfio_ap",
        "sys/bus/matrix",
        "sys/module/vfio_ap",
        f"{BUS}/drivers/vfio_ap",
        "sys/class/mdev_bus/matrix",
    ):
        assert not exists(machine, path)
    assert machine.listdir("sys/class/mdev_bus") == []
    assert machine.listdir("sys/bus/mdev/drivers") == []
    assert machine.read(f"{BUS}/bindings") == "0/12\n"
    assert machine.read(f"{BUS}/aqmask") != "0x" + "f" * 64 + "\n"
    told = uevents(machine)[count:]
    assert any(event.startswith(f"unbind /devices/vfio_ap/matrix/{U1} ") for event in told[:3])
    assert sum(event.endswith("MDEV_STATE=unregistered DRIVER=vfio_ap") for event in told) == 1
    assert told[-3:] == [
        "remove /devices/vfio_ap/matrix SUBSYSTEM=matrix",
        "remove /bus/matrix SUBSYSTEM=bus",
        "remove /module/vfio_ap SUBSYSTEM=module",
    ]
    machine.write(f"{BUS}/aqmask", "+4")
    assert link(machine, f"{ROOT}/card05/05.0004/driver").endswith("cex4queue")
    machine.write(loaded, "1")
    machine.write(loaded, "1")
    assert machine.read(f"{BUS}/bindings") == "12/12 (complete)\n"
    assert machine.read(f"{TYPE}/available_instances") == "65536\n"
    assert not exists(machine, f"{MATRIX}/{U1}")


def test_presets() -> None:
    machine = machine_of()
    preset = f"{CONTROL}/preset"
    assert refused(machine, preset, "huge") == "EINVAL"
    machine.write(preset, "full")
    assert machine.read(f"{BUS}/bindings") == "65536/65536 (complete)\n"
    assert len(machine.listdir(ROOT)) == 257
    machine.write(preset, "empty\n")
    assert machine.read(f"{BUS}/bindings") == "0/0 (complete)\n"
    assert machine.listdir(f"{CONTROL}/cards") == []
    machine.write(preset, "default")
    assert machine.read(f"{BUS}/bindings") == "12/12 (complete)\n"
    new_mdev(machine)
    assert refused(machine, preset, "empty") == "EBUSY"
    machine.write(f"{MATRIX}/{U1}/remove", "1")
    new_guest(machine, "g")
    assert refused(machine, preset, "empty") == "EBUSY"


def test_a_preset_replaces_every_open_file() -> None:
    machine = machine_of()
    old = machine.fs.resolve(f"{BUS}/apmask")
    machine.write(f"{CONTROL}/preset", "default")
    assert old.gone
    machine.clock.advance(30)
    # The old bus scans no more.
    assert machine.read(f"{BUS}/scans") == "2\n"


@every_kernel
def test_reset_is_as_at_mount_time(kernel: str) -> None:
    machine = machine_of(kernel)
    first = machine.read(f"{CONTROL}/state")
    free_all(machine)
    new_mdev(machine, U1, "5", "4")
    new_guest(machine, "g", U1)
    machine.write(f"{CONTROL}/filter", "v6-literal")
    machine.write(f"{CONTROL}/remove_policy", "block")
    machine.write(f"{CONTROL}/autoscan", "0")
    machine.write(f"{CONTROL}/del_card", "6")
    assert refused(machine, f"{CONTROL}/reset", "0") == "EINVAL"
    machine.write(f"{CONTROL}/reset", "1")
    assert machine.read(f"{CONTROL}/state") == first
    assert machine.read(f"{BUS}/bindings") == "12/12 (complete)\n"
    assert not exists(machine, f"{CONTROL}/guests/g")


def test_the_kernel_can_be_chosen() -> None:
    machine = machine_of()
    profile = f"{CONTROL}/profile"
    levels = " ".join(("5.3", *(f"v6-{patch:02d}" for patch in range(1, 11))))
    assert machine.read(profile) == f"{levels} [v6] 6.1 6.12\n"
    assert refused(machine, profile, "6.2") == "EINVAL"
    assert refused(machine, profile, "6.1 6.12") == "EINVAL"
    machine.write(f"{BUS}/aqmask", "-4")
    machine.write(f"{CONTROL}/cards/05/config", "0")
    assert not exists(machine, f"{ROOT}/card05/05.0004")
    machine.write(profile, "6.1\n")
    assert machine.read(profile) == f"{levels} v6 [6.1] 6.12\n"
    assert machine.read(f"{ROOT}/card05/05.0004/config") == "0\n"
    assert machine.read(f"{BUS}/aqmask") != "0x" + "f" * 64 + "\n"
    assert exists(machine, f"{BUS}/drivers/vfio_ap/bind")
    new_guest(machine, "g")
    assert refused(machine, profile, "v6") == "EBUSY"
    assert refused(machine, "sys/kernel/debug/fakesys/profile", "6.18") == "EBUSY"
    machine.write(f"{CONTROL}/reset", "1")
    assert machine.read(profile) == f"{levels} [v6] 6.1 6.12\n"


@pytest.mark.parametrize(
    ("name", "text", "bad"),
    [
        ("filter", "[adapter] v6-literal\n", "literal"),
        ("remove_policy", "[ebusy] block request\n", "EBUSY"),
        ("autoscan", "1\n", "yes"),
    ],
)
def test_settings(name: str, text: str, bad: str) -> None:
    machine = machine_of()
    path = f"{CONTROL}/{name}"
    assert machine.read(path) == text
    assert refused(machine, path, bad) == "EINVAL"


def test_settings_show_the_choice() -> None:
    machine = machine_of()
    machine.write(f"{CONTROL}/filter", "v6-literal\n")
    machine.write(f"{CONTROL}/remove_policy", "request")
    assert machine.read(f"{CONTROL}/filter") == "adapter [v6-literal]\n"
    assert machine.read(f"{CONTROL}/remove_policy") == "ebusy block [request]\n"


@pytest.mark.parametrize("kernel", KERNELS)
def test_state_is_json_with_sorted_keys(kernel: str) -> None:
    machine = machine_of(kernel)
    free_all(machine)
    new_mdev(machine, U1, "5", "4")
    new_guest(machine, "g", U1)
    text = machine.read(f"{CONTROL}/state")
    state = json.loads(text)
    assert text == json.dumps(state, indent=1, sort_keys=True) + "\n"
    assert state["guests"] == {"g": {"ap": True, "mdev": U1}}
    assert state["vfio_ap"]["mdevs"][U1]["matrix"][0] == mask(5).strip()
    assert state["bus"]["aqmask"] == machine.read(f"{BUS}/aqmask").strip()
    assert json.loads(machine.read("sys/kernel/debug/fakesys/state"))["ap"] == state


def test_the_state_of_a_full_machine_is_small() -> None:
    machine = machine_of(scenario="full")
    machine.write(f"{BUS}/apmask", "0")
    assert len(machine.read(f"{CONTROL}/state")) < 400_000


def stream(machine: Machine, name: str) -> list[bytes]:
    """What an open journal gives, read in small pieces until it would wait."""
    node = machine.fs.resolve(f"{CONTROL}/{name}")
    assert isinstance(node, File)
    handle = machine.fs.open(node, os.O_RDONLY)
    pieces = []
    while handle.poll():
        pieces.append(handle.read(0, 100, nonblock=False))
    with pytest.raises(Blocked):
        handle.read(0, 100, nonblock=False)
    with pytest.raises(KernelError, match="EAGAIN"):
        handle.read(0, 100, nonblock=True)
    return pieces


def test_journals_are_streams() -> None:
    machine = machine_of()
    new_mdev(machine, U1)
    new_mdev(machine, U2)
    text = machine.read(f"{CONTROL}/uevents")
    pieces = stream(machine, "uevents_pipe")
    assert b"".join(pieces).decode() == text
    assert max(len(piece) for piece in pieces) == 100
    assert refusal(machine, f"{CONTROL}/uevents", "x") == "EACCES"
    assert len(machine.read(f"{CONTROL}/log").splitlines()) == 3


def test_journals_show_the_ap_part_only() -> None:
    machine = Machine(selftest=True)
    machine.write("sys/kernel/debug/fakesys/selftest/remove", "1")
    machine.subsystems.ap.system.kernel.log("kvm: something else")
    assert "selftest" not in machine.read(f"{CONTROL}/uevents")
    assert machine.read(f"{CONTROL}/log") == "vfio_ap matrix: MDEV: Registered\n"


def test_uevents_are_numbered_without_a_gap() -> None:
    machine = machine_of(scenario="full")
    machine.write(f"{BUS}/apmask", "0")
    records = machine.read(f"{CONTROL}/uevents").split("\n\n")
    numbers = [int(record.rsplit("SEQNUM=", 1)[1]) for record in records if record]
    assert len(numbers) == 65536
    assert numbers == list(range(numbers[0], numbers[0] + 65536))
    assert "APMASK=0x0000" in records[-2]
