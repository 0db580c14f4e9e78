"""lszcrypt: every cell of its tables is what the files say."""

from __future__ import annotations

import re
from pathlib import Path

from tests.tools.machines import S390

# Bits of ap_functions from the lowest on, as the tool prints them.
FUNCTIONS = "SMCDAXNHFR"
MODES = {0x1000_0000: "CCA-Coproc", 0x0800_0000: "Accelerator", 0x0400_0000: "EP11-Coproc"}


def rows(table: str) -> list[dict[str, str]]:
    """The rows of a table by the words of its heading; STATUS may be two words."""
    heading, _, *lines = table.strip("\n").split("\n")
    starts = [(match.start(), match.group()) for match in re.finditer(r"\S+", heading)]
    found = []
    for line in lines:
        words = re.split(r"\s+", line.strip().replace("in use", "in_use"))
        found.append(dict(zip((name for _, name in starts), words, strict=False)))
    return found


def mode_of(machine: S390, card: str) -> str:
    functions = int(machine.read(f"devices/{card}/ap_functions"), 16)
    return next(mode for bit, mode in MODES.items() if functions & bit)


def device_of(row: dict[str, str]) -> str:
    card, _, domain = row["CARD.DOM"].partition(".")
    return f"devices/{card}.{domain}" if domain else f"devices/card{card}"


def driver_of(machine: S390, device: str) -> str:
    link = machine.bus / device / "driver"
    return link.readlink().name if link.is_symlink() else "-no-driver-"


def names(machine: S390) -> set[str]:
    return {path.name for path in (machine.bus / "devices").iterdir()}


def test_plain_table(each_kernel: S390) -> None:
    machine = each_kernel
    table = machine.ok("lszcrypt")
    assert table.startswith("CARD.DOM TYPE  MODE        STATUS     REQUESTS\n")
    found = rows(table)
    assert {Path(device_of(row)).name for row in found} == names(machine)
    for row in found:
        card = f"card{row['CARD.DOM'][:2]}"
        device = device_of(row)
        assert row["TYPE"] == machine.read(f"devices/{card}/type")
        assert row["MODE"] == mode_of(machine, card)
        assert row["STATUS"] == {"1": "online", "0": "offline"}[machine.read(f"{device}/online")]
        assert row["REQUESTS"] == machine.read(f"{device}/request_count")


def test_detailed_table_with_all_drivers(each_kernel: S390) -> None:
    machine = each_kernel
    machine.write("apmask", "-5")
    machine.make_mdev([5], [4])
    found = rows(machine.ok("lszcrypt", "-V"))
    assert {Path(device_of(row)).name for row in found} == names(machine)
    for row in found:
        device, card = device_of(row), f"devices/card{row['CARD.DOM'][:2]}"
        vfio = driver_of(machine, device) == "vfio_ap"
        functions = int(machine.read(f"{card}/ap_functions"), 16)
        assert row["TYPE"] == machine.read(f"{card}/type")
        assert row["MODE"] == mode_of(machine, card.removeprefix("devices/"))
        assert row["FUNCTIONS"] == "".join(
            letter if functions >> (31 - bit) & 1 else "-" for bit, letter in enumerate(FUNCTIONS)
        )
        assert row["DRIVER"] == driver_of(machine, device)
        assert row["HWTYPE"] == machine.read(f"{card}/hwtype")
        # Up to 2.40 the tool adds the one that the hardware leaves out.
        assert int(row["QDEPTH"]) == int(machine.read(f"{card}/depth")) + 1
        assert row["REQUESTS"] == machine.read(f"{device}/request_count")
        if not vfio:
            waiting = ("pendingq_count", "requestq_count")
            pending = sum(int(machine.read(f"{device}/{name}")) for name in waiting)
            assert row["PENDING"] == str(pending)
            assert row["STATUS"] == "online"
        else:
            assert row["STATUS"] == machine.read(f"{device}/status").replace(" ", "_")
            assert row["PENDING"] == "-"
    vfio_rows = [row for row in found if row["DRIVER"] == "vfio_ap"]
    assert {row["CARD.DOM"] for row in vfio_rows} == {
        f"05.{d}" for d in ["0004", "0047", "00ab", "00ff"]
    }
    assert {row["STATUS"] for row in vfio_rows} == {"assigned", "unassigned"}


def test_types_go_with_their_hardware_and_mode(machine: S390) -> None:
    """The letter and the number as on a real host: CEX6C is hardware 12 with the bit of CCA."""
    for number, generation in enumerate((4, 5, 6, 7, 8)):
        for index, mode in enumerate(("accel", "cca", "ep11")):
            card = 0x10 + number * 3 + index
            machine.control("new_card", f"{card} CEX{generation} {mode}")
    found = {row["CARD.DOM"]: row for row in rows(machine.ok("lszcrypt", "-V"))}
    letters = {"Accelerator": "A", "CCA-Coproc": "C", "EP11-Coproc": "P"}
    cards = [row for name, row in found.items() if int(name[:2], 16) >= 0x10]
    assert len({(row["TYPE"], row["MODE"]) for row in cards}) == 15
    for row in cards:
        assert int(row["HWTYPE"]) == int(row["TYPE"][3]) + 6
        assert row["TYPE"][4] == letters[row["MODE"]]


def test_queues_of_vfio_do_not_show_without_v(machine: S390) -> None:
    machine.write("apmask", "-5")
    cards = [row["CARD.DOM"] for row in rows(machine.ok("lszcrypt")) if row["CARD.DOM"][:2] == "05"]
    assert cards == ["05"]
    machine.write("apmask", "+5")
    assert "05.0004" in machine.ok("lszcrypt")


def test_requests_are_counted(machine: S390) -> None:
    machine.control("queues/04.0004/submit", "7")
    found = {row["CARD.DOM"]: row["REQUESTS"] for row in rows(machine.ok("lszcrypt"))}
    assert found["04.0004"] == found["04"] == "7"


def test_status_of_deconfigured_broken_and_offline(each_kernel: S390) -> None:
    machine = each_kernel
    machine.write("devices/card04/config", "0")
    machine.write("devices/card05/online", "0")
    machine.control("cards/06/checkstop", "1")
    found = {
        row["CARD.DOM"]: row
        for card in ("04", "05", "06")
        for row in rows(machine.run("lszcrypt", "-V", card).stdout)
    }
    assert found["04"]["STATUS"] == "deconfig"
    assert found["04"]["REQUESTS"] == "-"
    assert found["05"]["STATUS"] == found["05.0004"]["STATUS"] == "offline"
    assert found["06"]["STATUS"] == "chkstop"


def test_bus_attributes(each_kernel: S390) -> None:
    machine = each_kernel
    said = machine.ok("lszcrypt", "-b")
    assert f"ap_domain={int(machine.read('ap_domain')):#x}\n" in said
    assert f"ap_max_domain_id={int(machine.read('ap_max_domain_id')):#x}\n" in said
    assert f"config_time={machine.read('config_time')} (seconds)\n" in said
    assert f"poll_timeout={machine.read('poll_timeout')} (nanoseconds)\n" in said
    assert "ap_interrupts are enabled\n" in said
    assert "poll_thread is disabled\n" in said


def test_map_of_domains(machine: S390) -> None:
    usage = machine.mask("ap_usage_domain_mask")
    control = machine.mask("ap_control_domain_mask")
    said = machine.ok("lszcrypt", "-d")
    cells = re.findall(r"^ +[0-9a-f]0((?:  [.BUC])+)", said, re.MULTILINE)
    letters = "".join(cells).replace(" ", "")
    assert len(letters) == 256
    assert {index for index, letter in enumerate(letters) if letter in "BU"} == usage
    assert {index for index, letter in enumerate(letters) if letter in "BC"} == control


def test_serial_numbers_of_all_but_accelerators(machine: S390) -> None:
    found = {row["CARD.DOM"]: row["SERIALNR"] for row in rows(machine.ok("lszcrypt", "-s"))}
    wanted = {
        # The tool prints eight characters.
        card: machine.read(f"devices/card{card}/serialnr")[:8]
        for card in ("04", "05", "06")
        if mode_of(machine, f"card{card}") != "Accelerator"
    }
    assert found == wanted


def test_capabilities_follow_the_functions(machine: S390) -> None:
    assert "CCA Secure Key" in machine.ok("lszcrypt", "-c", "5")
    assert "EP11 Secure Key" in machine.ok("lszcrypt", "-c", "4")
    assert "Secure Key" not in machine.ok("lszcrypt", "-c", "6")


def test_a_card_without_queues(machine: S390) -> None:
    # An older kernel has no queue devices of a card that is configured off.
    machine.write("devices/card04/config", "0")
    assert "no subdevices found" in machine.refused("lszcrypt", "4")


def test_a_card_that_is_not_there(machine: S390) -> None:
    assert "does not exist" in machine.refused("lszcrypt", "0x33")


def test_without_any_ap_bus(machine: S390, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    said = machine.refused("lszcrypt", sysfs=tmp_path / "empty")
    assert "Crypto device driver not available" in said
