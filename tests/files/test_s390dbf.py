"""debug/s390dbf: levels, pages, and what the drivers say."""

from __future__ import annotations

import json
import re

import pytest

from fakesys.core.errors import KernelError
from fakesys.machine.machine import Machine
from tests.files.ap import (
    BUS,
    CONTROL,
    U1,
    complaints,
    every_kernel,
    exists,
    free_all,
    machine_of,
    merged_kernels,
    new_guest,
    new_mdev,
    refusal,
    refused,
)
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
    levels = "3344" if kernel == "6.12" else "3334"
    for name, level, pages in zip(NAMES, levels, "2211", strict=True):
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


@pytest.mark.parametrize(("text", "left"), [("-", 0), ("0", 0), ("0x", 0), ("7", 1), ("x", 1)])
def test_flushing(text: str, left: int) -> None:
    machine = machine_of("6.1")
    machine.write(f"{D}/ap/level", "5")
    machine.write(f"{BUS}/scans", "1")
    machine.write(f"{D}/ap/flush", text)
    assert len(messages(machine)) == left


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
    found = [line for line in complaints(machine) if line.startswith("s390dbf")]
    assert found[0] == "s390dbf: x is not a valid level for a debug feature"
    assert found[-4:] == [
        "s390dbf: ap: level 9 is out of range (0 - 6)",
        "s390dbf: ap: switched off",
        "s390dbf: ap: set new size (3 pages)",
        "s390dbf: Flushing debug data failed because x is not a valid area",
    ]
    assert refused(machine, f"{D}/ap/sprintf", "x") == "EACCES"
    with pytest.raises(KernelError, match="EACCES"):
        machine.read(f"{D}/ap/flush")


@every_kernel
def test_messages_of_cards(kernel: str) -> None:
    machine = machine_of(kernel)
    machine.write(f"{CONTROL}/new_card", "9 CEX6 cca")
    assert messages(machine) == []
    machine.write(f"{D}/ap/level", "5")
    machine.clock.advance(1.5)
    machine.write(f"{CONTROL}/new_card", "7 CEX6 cca")
    domains = (4, 0x47, 0xAB, 0xFF)
    assert said(machine) == [
        "5 ap_scan_adapter(7) new card dev type=12 func=0x92000000 created",
        *(f"5 ap_scan_domains(7,{domain}) new queue dev created" for domain in domains),
    ]
    machine.write(f"{CONTROL}/new_card", "8 20 accel")
    assert said(machine)[:2] == [
        "5 ap_get_compatible_type queue=08.0004 map type 20 to 14",
        "5 ap_scan_adapter(8) new card dev type=20 func=0x6a000000 created",
    ]
    machine.write(f"{CONTROL}/cards/07/config", "0")
    machine.write(f"{CONTROL}/cards/07/config", "1")
    machine.write(f"{CONTROL}/cards/07/checkstop", "1")
    machine.write(f"{CONTROL}/cards/07/checkstop", "0")
    assert [line for line in said(machine) if "card dev" in line] == [
        "5 ap_scan_adapter(7) card dev config off",
        "5 ap_scan_adapter(7) card dev config on",
        "5 ap_scan_adapter(7) card dev checkstop on",
        "5 ap_scan_adapter(7) card dev checkstop off",
    ]
    # The bus learns of what Linux itself configures before it scans.
    machine.write("sys/devices/ap/card07/config", "0")
    assert not any("card dev" in line for line in said(machine))
    machine.write(f"{CONTROL}/del_card", "7")
    why = "5 ap_scan_adapter(7) ap not in config any more, rm card and queue devs"
    assert said(machine) == [why]
    machine.write("sys/devices/ap/card05/uevent", "add")
    assert said(machine) == []


def said(machine: Machine, name: str = "ap") -> list[str]:
    """The messages since the last call."""
    found = messages(machine, name)
    machine.write(f"{D}/{name}/flush", "-")
    return found


@merged_kernels
def test_cards_that_come_in_another_state_or_in_place_of_another(kernel: str) -> None:
    machine = machine_of(kernel)
    machine.write(f"{D}/ap/level", "5")
    machine.write(f"{CONTROL}/autoscan", "0")
    for number, switch in ((7, "config"), (8, "checkstop")):
        machine.write(f"{CONTROL}/new_card", f"{number} CEX6 cca")
        machine.write(f"{CONTROL}/cards/{number:02x}/{switch}", f"{switch == 'checkstop':d}")
    machine.write(f"{BUS}/scans", "1")
    found = said(machine)
    assert found[0] == "5 scans_store force AP bus rescan"
    for number, state in ((7, "(decfg)"), (8, "(chkstop)")):
        what = f"new {state} card dev type=12 func=0x92000000 created"
        assert f"5 ap_scan_adapter({number}) {what}" in found
        assert f"5 ap_scan_domains({number},71) new {state} queue dev created" in found
    machine.write(f"{CONTROL}/del_card", "8")
    machine.write(f"{CONTROL}/new_card", "8 CEX7 cca")
    machine.write(f"{BUS}/scans", "1")
    assert "5 ap_scan_adapter(8) hwtype 13 changed, rm card and queue devs" in said(machine)
    machine.write(f"{CONTROL}/del_card", "8")
    machine.write(f"{CONTROL}/new_card", "8 CEX7 ep11")
    machine.write(f"{BUS}/scans", "1")
    shown = "0x86000000" if kernel == "6.12" else "0x0000000d"
    why = f"functions {shown} changed, rm card and queue devs"
    assert f"5 ap_scan_adapter(8) {why}" in said(machine)


def test_cards_that_are_too_old() -> None:
    machine = machine_of("6.12")
    machine.write(f"{D}/ap/level", "4")
    machine.write(f"{CONTROL}/new_card", "7 CEX3 cca")
    assert said(machine) == [
        "4 ap_get_compatible_type queue=07.0004 unsupported type 9",
        "4 ap_scan_adapter(7) type 9, can't get compatibility type",
    ]


@merged_kernels
def test_adapters_and_queues_that_do_not_answer(kernel: str) -> None:
    machine = machine_of(kernel)
    machine.write(f"{D}/ap/level", "5")
    machine.write(f"{CONTROL}/lpar/domains", "-0x47")
    found = said(machine)
    for card in (4, 5, 6):
        assert f"5 ap_scan_domains({card},71) not in config anymore, rm queue dev" in found
    machine.write(f"{CONTROL}/queues/05.00ab/rc", "1")
    assert "5 ap_scan_domains(5,171) queue_info() failed, rm queue dev" in said(machine)
    for domain in ("0004", "00ff"):
        machine.write(f"{CONTROL}/queues/05.{domain}/rc", "1")
    why = "5 ap_scan_adapter(5) no type info (no APQN found), rm card and queue devs"
    assert said(machine)[-1] == why
    machine.write(f"{D}/ap/level", "6")
    machine.write(f"{BUS}/scans", "1")
    ignored = "6 ap_scan_adapter(5) no type info (no APQN found), ignored"
    assert (ignored in said(machine)) == (kernel == "6.1")
    machine.write(f"{CONTROL}/lpar/adapters", "-5")
    assert ignored not in said(machine)


@merged_kernels
def test_messages_of_the_level_debug(kernel: str) -> None:
    machine = machine_of(kernel)
    machine.write(f"{D}/ap/level", "6")
    machine.write(f"{CONTROL}/cards/05/config", "0")
    machine.write(f"{CONTROL}/cards/05/config", "1")
    machine.write(f"{CONTROL}/cards/05/checkstop", "1")
    machine.write(f"{CONTROL}/cards/05/checkstop", "0")
    machine.write(f"{BUS}/apmask", "-5")
    found = [line for line in said(machine) if line.startswith("6 ")]
    if kernel == "6.12":
        assert found == []
        return
    assert found[:2] == [
        "6 ap_bus_cfg_chg config change, forcing bus rescan",
        "6 ap_scan_bus running",
    ]
    states = [line for line in found if "(5,71)" in line]
    what = ("config off", "config on", "checkstop on", "checkstop off")
    assert states == [f"6 ap_scan_domains(5,71) queue dev {each}" for each in what]
    assert found[-4:] == [
        f"6 __ap_revise_reserved reprobing queue=05.{domain}"
        for domain in ("0004", "0047", "00ab", "00ff")
    ]


@merged_kernels
def test_resets_and_queues_in_error(kernel: str) -> None:
    machine = machine_of(kernel)
    machine.write(f"{D}/ap/level", "5")
    machine.write("sys/devices/ap/card05/05.0047/reset", "1")
    machine.clock.advance(1)
    assert said(machine) == ["5 reset_store reset queue=05.0047 triggered by user"]
    machine.write(f"{CONTROL}/autoscan", "0")
    machine.write(f"{CONTROL}/queues/05.0047/rc", "5")
    machine.write("sys/devices/ap/card05/05.0047/reset", "1")
    error = "4 ap_sm_reset RC 0x05 on 0x05.0047 -> AP_DEV_STATE_ERROR"
    assert sorted(said(machine)) == [error, "5 reset_store reset queue=05.0047 triggered by user"]
    machine.write(f"{CONTROL}/queues/05.0047/rc", "0")
    machine.write(f"{BUS}/scans", "1")
    assert "5 ap_scan_domains(5,71) queue dev reinit enforced" in said(machine)


@every_kernel
def test_the_default_domain(kernel: str) -> None:
    machine = machine_of(kernel)
    machine.write(f"{D}/ap/level", "5")
    machine.write(f"{BUS}/ap_domain", "9")
    assert said(machine) == ["5 ap_domain_store stored new default domain=9"]
    machine.write(f"{BUS}/scans", "1")
    none = "5 ap_scan_bus no queue device with default domain 9 available"
    assert said(machine) == ["5 scans_store force AP bus rescan", none]
    machine = machine_of(kernel, "empty")
    machine.write(f"{D}/ap/level", "5")
    machine.write(f"{CONTROL}/lpar/domains", "+6")
    machine.write(f"{CONTROL}/new_card", "3 CEX6 cca")
    assert said(machine)[0] == "5 ap_select_domain new default domain is 6"


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


@every_kernel
def test_messages_of_nodes(kernel: str) -> None:
    machine = machine_of(kernel)
    machine.write(f"{BUS}/apmask", "-5")
    with pytest.raises(KernelError, match="ENODEV"):
        machine.read("sys/devices/virtual/misc/pkey/ccadata/ccadata_aes_128")
    failed = "3 cca_genseckey zcrypt_send_cprb (cardnr=65535 domain=65535) failed, errno -19"
    assert said(machine, "zcrypt") == ([] if kernel == "6.12" else [failed])
    machine.write(f"{D}/zcrypt/level", "5")
    machine.write("sys/class/zcrypt/create", "one")
    machine.write("sys/devices/virtual/zcrypt/one/uevent", "add")
    machine.write("sys/class/zcrypt/destroy", "one")
    assert messages(machine, "zcrypt") == [
        "5 zcdn_create created zcdn device 252:0",
        "5 zcdn_device_release releasing zcdn device 252:0",
    ]


@every_kernel
def test_messages_of_cards_and_queues_of_the_host(kernel: str) -> None:
    machine = machine_of(kernel)
    machine.write(f"{D}/zcrypt/level", "5")
    machine.write(f"{BUS}/drivers/cex4queue/unbind", "05.0047")
    machine.write(f"{BUS}/drivers/cex4queue/bind", "05.0047")
    machine.write("sys/devices/ap/card05/05.0047/online", "0")
    machine.write("sys/devices/ap/card05/online", "1")
    assert said(machine, "zcrypt") == [
        "5 zcrypt_queue_unregister queue=05.0047 unregister",
        "5 zcrypt_queue_register queue=05.0047 register online=1",
        "5 online_store queue=05.0047 online=0",
        "5 online_store card=05 online=1",
    ]
    machine.write(f"{CONTROL}/del_card", "5")
    assert said(machine, "zcrypt")[-1] == "5 zcrypt_card_unregister card=05 unregister"
    machine.write(f"{CONTROL}/new_card", "5 CEX5 cca")
    assert said(machine, "zcrypt")[0] == "5 zcrypt_card_register card=05 register online=1"


@every_kernel
def test_requests_that_no_queue_takes(kernel: str) -> None:
    machine = machine_of(kernel)
    machine.write(f"{BUS}/apmask", "-4,-5")
    for card, file in ((4, "serialnr"), (5, "serialnr")):
        machine.read(f"sys/devices/ap/card{card:02x}/{file}")
    assert said(machine, "zcrypt") == [
        "3 ep11_query_info zcrypt_send_ep11_cprb(card=4 dom=65535) failed, rc=-19",
        "3 cca_query_crypto_facility zcrypt_send_cprb (cardnr=5 domain=65535) failed, rc=-19",
    ]
    machine.write(f"{D}/zcrypt/level", "6")
    machine.read("sys/devices/ap/card05/serialnr")
    no_match = "6 _zcrypt_send_cprb no match for address 05.ffff => ENODEV"
    assert (no_match in said(machine, "zcrypt")) == (kernel != "6.12")


@every_kernel
def test_messages_of_vfio_ap(kernel: str) -> None:
    machine = machine_of(kernel)
    free_all(machine)
    new_mdev(machine, U1, "5", "4 0x47")
    aqic = f"{new_guest(machine, 'g', U1)}/aqic"
    machine.write(aqic, "05.0004 on 3")
    assert messages(machine, "vfio_ap") == []
    for text, errno in (("06.0004 on 3", "ENODEV"), ("05.0004 on 9", "EFAULT")):
        assert refused(machine, aqic, text) == errno
    assert said(machine, "vfio_ap") == [
        "4 handle_pqap: Queue 06.0004 not bound to the vfio_ap driver",
        "4 vfio_ap_irq_enable: gisc registration failed: nisc=-34, isc=9, apqn=0x504",
    ]
    machine.write(f"{CONTROL}/queues/05.0004/rc", "4")
    assert refusal(machine, aqic, "05.0004 on 2") == "EIO"
    assert machine.read(aqic) == ""
    assert complaints(machine)[-1] == "vfio_ap_irq_enable: apqn 0504: response: 04"
    (line,) = said(machine, "vfio_ap")
    assert line.startswith("4 vfio_ap_irq_enable: PQAP(AQIC) failed with status=0x4: zone=0, ")
    assert line.endswith("isc=0x5, apqn=0x504")


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
    machine.write(f"{D}/ap/level", "5")
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


def test_another_kernel_has_the_level_of_its_driver_unless_it_was_changed() -> None:
    machine = machine_of("6.1")
    profile = "sys/kernel/debug/fakesys/profile"
    machine.write(profile, "6.12")
    assert machine.read(f"{D}/pkey/level") == "4\n"
    machine.write(f"{D}/pkey/level", "6")
    machine.write(profile, "6.1")
    assert machine.read(f"{D}/pkey/level") == "6\n"
    machine.write(f"{M}/remove", "pkey")
    machine.write(f"{M}/load", "pkey")
    assert machine.read(f"{D}/pkey/level") == "3\n"
