"""class/misc, class/zcrypt, class/vfio and their devices."""

from __future__ import annotations

import json

import pytest

from fakesys.core.errors import KernelError
from fakesys.machine.machine import Machine
from tests.files.ap import (
    BUS,
    CONTROL,
    U1,
    U2,
    every_kernel,
    exists,
    free_all,
    link,
    machine_of,
    new_mdev,
    refused,
    uevents,
)
from tests.saved.files import sealed
from tests.whole_machine import differences

F = "sys/kernel/debug/fakesys"
M = f"{F}/modules"
CLASS = "sys/class/zcrypt"
NODES = "sys/devices/virtual/zcrypt"
PKEY = "sys/devices/virtual/misc/pkey"
ZEROS = "0x" + "0" * 64 + "\n"


@every_kernel
def test_misc_devices(kernel: str) -> None:
    machine = machine_of(kernel)
    assert sorted(machine.listdir("sys/class/misc")) == ["pkey", "vfio", "z90crypt"]
    device = "sys/devices/virtual/misc/vfio"
    assert sorted(machine.listdir(device)) == ["dev", "subsystem", "uevent"]
    assert machine.read(f"{device}/dev") == "10:196\n"
    assert machine.read(f"{device}/uevent") == (
        "MAJOR=10\nMINOR=196\nDEVNAME=vfio/vfio\nDEVMODE=0666\n"
    )
    assert link(machine, "sys/class/misc/vfio") == "../../devices/virtual/misc/vfio"
    assert link(machine, f"{device}/subsystem") == "../../../../class/misc"
    assert "DEVMODE" not in machine.read("sys/devices/virtual/misc/z90crypt/uevent")
    machine.write(f"{device}/uevent", "change")
    assert uevents(machine)[-1].startswith("change /devices/virtual/misc/vfio SUBSYSTEM=misc")
    assert refused(machine, f"{device}/uevent", "x") == "EINVAL"


@every_kernel
def test_misc_devices_belong_to_modules(kernel: str) -> None:
    machine = machine_of(kernel)
    count = len(uevents(machine))
    for name in ("pkey", "zcrypt_cex4", "vfio_ap"):
        machine.write(f"{M}/unload", name)
    assert machine.listdir("sys/class/misc") == []
    for path in (CLASS, "sys/class/vfio", "sys/class/vfio-dev", "sys/bus/mdev",
                 "sys/class/mdev_bus", "sys/devices/virtual/misc/pkey"):  # fmt: skip
        assert not exists(machine, path)
    told = [event.split(" SUBSYSTEM")[0] for event in uevents(machine)[count:]]
    assert told.index("remove /devices/virtual/misc/z90crypt") < told.index("remove /class/zcrypt")
    for name in ("pkey", "zcrypt_cex4", "vfio_ap"):
        machine.write(f"{M}/load", name)
    told = [event.split(" SUBSYSTEM")[0] for event in uevents(machine)]
    wanted = ["add /class/zcrypt", "add /devices/virtual/misc/z90crypt", "add /module/zcrypt",
              "add /devices/virtual/misc/pkey", "add /module/pkey"]  # fmt: skip
    places = [len(told) - 1 - told[::-1].index(event) for event in wanted]
    assert places == sorted(places)
    assert "add /bus/mdev" in told
    assert len(machine.listdir("sys/class/misc")) == 3


@every_kernel
def test_a_node_of_zcrypt(kernel: str) -> None:
    machine = machine_of(kernel)
    assert sorted(machine.listdir(CLASS)) == ["create", "destroy"]
    assert machine.fs.resolve(f"{CLASS}/create").mode & 0o777 == 0o600
    assert not exists(machine, NODES)
    machine.write(f"{CLASS}/create", "my_node\n")
    assert uevents(machine)[-1] == (
        "add /devices/virtual/zcrypt/my_node SUBSYSTEM=zcrypt MAJOR=252 MINOR=0 DEVNAME=my_node"
    )
    assert link(machine, f"{CLASS}/my_node") == "../../devices/virtual/zcrypt/my_node"
    node = f"{NODES}/my_node"
    assert sorted(machine.listdir(node)) == [
        "admask", "apmask", "aqmask", "dev", "ioctlmask", "subsystem", "uevent",
    ]  # fmt: skip
    assert machine.read(f"{node}/dev") == "252:0\n"
    for name in ("ioctlmask", "apmask", "aqmask", "admask"):
        assert machine.read(f"{node}/{name}") == ZEROS
        machine.write(f"{node}/{name}", "+0,+255")
        assert machine.read(f"{node}/{name}") == "0x8" + "0" * 62 + "1\n"
        machine.write(f"{node}/{name}", "0xf")
        assert machine.read(f"{node}/{name}") == "0xf" + "0" * 63 + "\n"
        assert refused(machine, f"{node}/{name}", "0x-") == "EINVAL"
    machine.write(f"{CLASS}/destroy", " my_node ")
    assert uevents(machine)[-1].startswith("remove /devices/virtual/zcrypt/my_node ")
    assert not exists(machine, node)
    assert refused(machine, f"{CLASS}/destroy", "my_node") == "ENOENT"
    with pytest.raises(KernelError, match="EIO"):
        machine.read(f"{CLASS}/create")


def test_names_of_nodes() -> None:
    machine = machine_of("6.1")
    create, destroy = f"{CLASS}/create", f"{CLASS}/destroy"
    machine.write(create, " \t" + "x" * 40 + "\n")
    assert exists(machine, f"{NODES}/{'x' * 31}")
    assert refused(machine, create, "x" * 31) == "EEXIST"
    machine.write(create, "\n")
    machine.write(create, "zcrypt_3")
    assert sorted(machine.listdir(NODES)) == ["x" * 31, "zcrypt_1", "zcrypt_3"]
    # The next number is 3, and its name is taken.
    assert refused(machine, create, "\n") == "EEXIST"
    machine.write(create, "a/b c")
    assert exists(machine, f"{NODES}/a!b c")
    assert "DEVNAME=a/b c" in uevents(machine)[-1]
    assert refused(machine, create, "a/b c") == "EEXIST"
    assert refused(machine, destroy, "a/b c") == "ENOENT"
    machine.write(destroy, "a!b c")
    for name in (".", ".."):
        assert refused(machine, create, name) == "EINVAL"
    machine.write(create, "gr\u00fcn".encode().decode("latin-1"))
    assert exists(machine, f"{NODES}/gr\u00fcn")
    assert "DEVNAME=gr\u00c3\u00bcn" in uevents(machine)[-1]


def test_there_are_256_nodes() -> None:
    machine = machine_of("6.1")
    for _ in range(256):
        machine.write(f"{CLASS}/create", "\n")
    assert refused(machine, f"{CLASS}/create", "\n") == "ENOSPC"
    assert refused(machine, f"{CLASS}/create", "zcrypt_7") == "EEXIST"
    machine.write(f"{CLASS}/destroy", "zcrypt_7")
    machine.write(f"{CLASS}/create", "again")
    assert machine.read(f"{NODES}/again/dev") == "252:7\n"
    # Removing the module takes them all.
    machine.write(f"{M}/unload", "zcrypt_cex4")
    machine.write(f"{M}/unload", "pkey")
    assert not exists(machine, NODES)
    machine.write(f"{M}/load", "zcrypt")
    assert sorted(machine.listdir(CLASS)) == ["create", "destroy"]


SIZES = {"protkey": 80, "ccadata": 64, "ccacipher": 136, "ep11": 320}


@every_kernel
def test_keys(kernel: str) -> None:
    machine = machine_of(kernel)
    machine.write(f"{CONTROL}/new_card", "7 CEX7 cca")
    machine.write(f"{CONTROL}/new_card", "8 CEX8 ep11")
    sizes = SIZES | ({"ep11": 336} if kernel == "6.12" else {})
    for family, size in sizes.items():
        folder = f"{PKEY}/{family}"
        names = machine.listdir(folder)
        assert names == [f"{family}_aes_{end}" for end in
                         ("128", "192", "256", "128_xts", "256_xts")]  # fmt: skip
        for name in names:
            text = machine.read(f"{folder}/{name}")
            assert len(text) == size * (1 + name.endswith("xts"))
            assert machine.fs.resolve(f"{folder}/{name}").size == len(text)
            machine.clock.advance(0.001)
            assert machine.read(f"{folder}/{name}") != text
    token = machine.read(f"{PKEY}/protkey/protkey_aes_256").encode("latin-1")
    assert token[:16] == b"\0\0\0\0\1\0\0\0" + b"\0\0\0\3" + b"\0\0\0\x40"


@every_kernel
def test_keys_need_a_card_of_the_host(kernel: str) -> None:
    machine = machine_of(kernel)

    def can(family: str) -> bool:
        try:
            machine.read(f"{PKEY}/{family}/{family}_aes_128")
        except KernelError as error:
            assert error.name == "ENODEV"
            return False
        return True

    # The cards of the default machine are too old for the others.
    assert [can(family) for family in SIZES] == [True, True, False, False]
    machine.write(f"{BUS}/apmask", "-5")
    assert not can("ccadata")
    machine.write(f"{BUS}/apmask", "+5")
    assert can("ccadata")
    machine.write("sys/devices/ap/card05/online", "0")
    assert not can("ccadata")


@every_kernel
def test_vfio_groups(kernel: str) -> None:
    """Names, numbers and order of the events are those of the recordings of 6.1 and 6.12."""
    machine = machine_of(kernel)
    free_all(machine)
    assert machine.listdir("sys/class/vfio") == []
    assert not exists(machine, "sys/devices/virtual/vfio")
    count = len(uevents(machine))
    new_mdev(machine, U1)
    told = [event.split(" SUBSYSTEM=")[0] for event in uevents(machine)[count:]]
    assert told[:2] == [f"add /devices/vfio_ap/matrix/{U1}", "add /devices/virtual/vfio/0"]
    assert "add /devices/virtual/vfio/0 SUBSYSTEM=vfio MAJOR=253 MINOR=0 DEVNAME=vfio/0" in (
        uevents(machine)
    )
    new_mdev(machine, U2)
    assert machine.listdir("sys/class/vfio") == ["0", "1"]
    assert link(machine, "sys/class/vfio/1") == "../../devices/virtual/vfio/1"
    node = "sys/devices/virtual/vfio/1"
    assert sorted(machine.listdir(node)) == ["dev", "subsystem", "uevent"]
    assert machine.read(f"{node}/dev") == "253:1\n"
    assert machine.read(f"{node}/uevent") == "MAJOR=253\nMINOR=1\nDEVNAME=vfio/1\n"
    assert link(machine, f"{node}/subsystem") == "../../../../class/vfio"
    count = len(uevents(machine))
    machine.write(f"sys/bus/mdev/devices/{U1}/remove", "1")
    told = [event.split(" SUBSYSTEM=")[0] for event in uevents(machine)[count:]]
    assert told[-3:] == [
        "remove /devices/virtual/vfio/0",
        f"unbind /devices/vfio_ap/matrix/{U1}",
        f"remove /devices/vfio_ap/matrix/{U1}",
    ]
    assert machine.listdir("sys/class/vfio") == ["1"]
    assert not exists(machine, "sys/class/vfio/0")
    assert not exists(machine, "sys/devices/virtual/vfio/nothing")


@every_kernel
def test_a_snapshot_keeps_nodes(kernel: str) -> None:
    machine = machine_of(kernel)
    machine.write(f"{CLASS}/create", "one")
    machine.write(f"{CLASS}/create", "two")
    machine.write(f"{CLASS}/destroy", "one")
    machine.write(f"{NODES}/two/apmask", "+5")
    machine.write(f"{M}/remove", "pkey")
    copy = Machine("seed", "empty")
    copy.load(machine.save())
    assert differences(machine, copy) == []
    assert copy.read(f"{NODES}/two/dev") == "252:1\n"
    copy.write(f"{M}/load", "pkey")
    machine.write(f"{M}/load", "pkey")
    assert differences(machine, copy) == []


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "x" * 32, "a\x00"])
def test_a_node_of_a_snapshot_has_a_proper_name(name: str) -> None:
    machine = machine_of("6.1")
    machine.write(f"{CLASS}/create", "one")
    found = json.loads(machine.save())
    found["models"]["ap"]["nodes"]["zcrypt"][0]["name"] = name
    with pytest.raises(KernelError, match="EINVAL"):
        machine.load(sealed(found))
    assert exists(machine, f"{NODES}/one")


def test_nodes_of_a_snapshot_are_all_different() -> None:
    machine = machine_of("6.1")
    for name in ("one", "two"):
        machine.write(f"{CLASS}/create", name)
    for key in ("name", "minor"):
        found = json.loads(machine.save())
        nodes = found["models"]["ap"]["nodes"]["zcrypt"]
        nodes[1][key] = nodes[0][key]
        with pytest.raises(KernelError, match="EINVAL"):
            machine.load(sealed(found))
    found = json.loads(machine.save())
    found["models"]["modules"]["loaded"] = ["vfio", "mdev", "vfio_ap", "kvm", "kvm_amd"]
    with pytest.raises(KernelError, match="EINVAL"):
        machine.load(sealed(found))
