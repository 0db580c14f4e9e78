"""debug/s390dbf: levels, pages, and what the drivers say."""

from __future__ import annotations

import json
import re

import pytest

from fakesys.core.errors import KernelError
from fakesys.machine.machine import Machine
from tests.files.ap import BUS, CONTROL, complaints, every_kernel, exists, machine_of, refused
from tests.saved.files import sealed
from tests.whole_machine import differences

D = "sys/kernel/debug/s390dbf"
M = "sys/kernel/debug/fakesys/modules"
NAMES = ["ap", "zcrypt", "pkey", "vfio_ap"]
LINE = re.compile(r"00 (\d{11}):(\d{6}) (\d) - 0000 [0-9a-f]{16}  (.*)")


def messages(machine: Machine, name: str = "ap") -> list[str]:
    found = []
    for line in machine.read(f"{D}/{name}/sprintf").splitlines():
        match = LINE.fullmatch(line)
        assert match is not None, line
        found.append(f"{match[3]} {match[4]}")
    return found


@every_kernel
def test_the_features(kernel: str) -> None:
    machine = machine_of(kernel)
    assert machine.listdir(D) == NAMES
    for name, level, pages in zip(NAMES, "3334", "2211", strict=True):
        modes = {each: machine.fs.resolve(f"{D}/{name}/{each}").mode & 0o777
                 for each in machine.listdir(f"{D}/{name}")}  # fmt: skip
        assert modes == {"level": 0o600, "pages": 0o600, "flush": 0o200, "sprintf": 0o400}
        assert machine.read(f"{D}/{name}/level") == f"{level}\n"
        assert machine.read(f"{D}/{name}/pages") == f"{pages}\n"
        assert messages(machine, name) == []


@pytest.mark.parametrize(
    ("text", "level"),
    [("6", "6"), (" 5\n", "5"), ("-", "-"), ("-x", "-"), ("0", "0"), ("", "3"), ("\n", "0"),
     ("7", "3"), ("06", "6")],
)  # fmt: skip
def test_levels(text: str, level: str) -> None:
    machine = machine_of("6.1")
    machine.write(f"{D}/ap/level", text)
    assert machine.read(f"{D}/ap/level") == f"{level}\n"


def test_what_is_refused_and_what_is_logged() -> None:
    machine = machine_of("6.1")
    for text in ("x", "5x", "+5", "0x5", "5 ", "4294967295", "5\n\n"):
        assert refused(machine, f"{D}/ap/level", text) == "EINVAL"
        assert refused(machine, f"{D}/ap/pages", text) == "EINVAL"
    assert refused(machine, f"{D}/ap/pages", "-1") == "EINVAL"
    assert refused(machine, f"{D}/ap/pages", "1025") == "EINVAL"
    machine.write(f"{D}/ap/level", "9")
    machine.write(f"{D}/ap/level", "-")
    machine.write(f"{D}/ap/pages", "3\n")
    machine.write(f"{D}/ap/flush", "x")
    machine.write(f"{D}/ap/flush", "7")
    said = [line for line in complaints(machine) if line.startswith("s390dbf")]
    assert said[0] == "s390dbf: x is not a valid level for a debug feature"
    assert said[-4:] == [
        "s390dbf: ap: level 9 is out of range (0 - 6)",
        "s390dbf: ap: switched off",
        "s390dbf: ap: set new size (3 pages)",
        "s390dbf: Flushing debug data failed because x is not a valid area",
    ]
    assert refused(machine, f"{D}/ap/sprintf", "x") == "EACCES"
    with pytest.raises(KernelError, match="EACCES"):
        machine.read(f"{D}/ap/flush")


@every_kernel
def test_messages_of_the_bus(kernel: str) -> None:
    machine = machine_of(kernel)
    machine.write(f"{CONTROL}/new_card", "9 CEX6 cca")
    assert messages(machine) == []
    machine.write(f"{D}/ap/level", "6")
    machine.clock.advance(1.5)
    machine.write(f"{CONTROL}/new_card", "7 CEX6 cca")
    found = messages(machine)
    assert found[0] == "5 ap_scan_adapter(7) new card dev type=12 func=0x92000000 created"
    assert "5 ap_scan_domains(7,71) new queue dev created" in found
    assert len(found) == 5
    assert machine.read(f"{D}/ap/sprintf").startswith("00 00000000001:500000 5 - 0000 ")
    machine.write(f"{CONTROL}/cards/07/config", "0")
    assert "5 ap_scan_adapter(7) card dev config off" in messages(machine)
    machine.write(f"{CONTROL}/cards/07/config", "1")
    assert "5 ap_scan_adapter(7) card dev config on" in messages(machine)
    machine.write(f"{CONTROL}/del_card", "7")
    last = "5 ap_scan_adapter(7) ap not in config any more, rm card and queue devs"
    assert last in messages(machine)
    machine.write(f"{D}/ap/flush", "-")
    assert messages(machine) == []
    machine.write("sys/devices/ap/card05/uevent", "add")
    assert messages(machine) == []


def test_only_the_newest_messages_are_kept() -> None:
    machine = machine_of("6.1")
    machine.write(f"{D}/ap/level", "5")
    for _ in range(30):
        machine.write(f"{CONTROL}/new_card", "7 CEX6 cca")
        machine.write(f"{CONTROL}/del_card", "7")
    # 62 entries of 66 bytes in each of two pages.
    assert len(messages(machine)) == 124
    machine.write(f"{D}/ap/pages", "1")
    assert len(messages(machine)) == 62
    machine.write(f"{D}/ap/pages", "0")
    assert messages(machine) == []


def test_messages_of_zcrypt() -> None:
    machine = machine_of("6.1")
    machine.write(f"{BUS}/apmask", "-5")
    with pytest.raises(KernelError, match="ENODEV"):
        machine.read("sys/devices/virtual/misc/pkey/ccadata/ccadata_aes_128")
    assert messages(machine, "zcrypt") == [
        "3 cca_genseckey zcrypt_send_cprb (cardnr=65535 domain=65535) failed, errno -19"
    ]
    machine.write(f"{D}/zcrypt/flush", "0")
    machine.write(f"{D}/zcrypt/level", "5")
    machine.write("sys/class/zcrypt/create", "one")
    machine.write("sys/devices/virtual/zcrypt/one/uevent", "add")
    machine.write("sys/class/zcrypt/destroy", "one")
    assert messages(machine, "zcrypt") == [
        "5 zcdn_create created zcdn device 252:0",
        "5 zcdn_device_release releasing zcdn device 252:0",
    ]


def test_a_feature_belongs_to_its_module() -> None:
    machine = machine_of("6.1")
    machine.write(f"{D}/vfio_ap/level", "6")
    assert exists(machine, f"{D}/vfio_ap/level")
    machine.write(f"{M}/remove", "vfio_ap")
    machine.write(f"{M}/remove", "pkey")
    assert machine.listdir(D) == ["ap", "zcrypt"]
    assert not exists(machine, f"{D}/vfio_ap")
    machine.write(f"{M}/load", "vfio_ap")
    assert machine.read(f"{D}/vfio_ap/level") == "4\n"


@every_kernel
def test_a_snapshot_keeps_messages(kernel: str) -> None:
    machine = machine_of(kernel)
    machine.write(f"{D}/ap/level", "6")
    machine.write(f"{D}/zcrypt/pages", "5")
    machine.write(f"{CONTROL}/new_card", "7 CEX6 cca")
    copy = Machine("seed", "empty")
    copy.load(machine.save())
    assert differences(machine, copy) == []
    assert len(messages(copy)) == 5
    for each in (machine, copy):
        each.write(f"{CONTROL}/del_card", "7")
    assert differences(machine, copy) == []
    found = json.loads(machine.save())
    found["models"]["ap"]["debug"]["ap"]["entries"][0][0] = 1 << 60
    with pytest.raises(KernelError, match="later messages"):
        copy.load(sealed(found))
    found = json.loads(machine.save())
    found["models"]["ap"]["debug"]["ap"]["pages"] = 0
    with pytest.raises(KernelError, match="more messages than pages"):
        copy.load(sealed(found))
