"""/sys/bus/ap: every attribute, every grammar edge, every refusal."""

from __future__ import annotations

import pytest

from tests.files.ap import (
    BUS,
    CONTROL,
    KERNELS,
    MATRIX,
    ROOT,
    TYPE,
    U1,
    U2,
    complaints,
    every_kernel,
    exists,
    free_all,
    link,
    machine_of,
    new_mdev,
    refusal,
    refused,
    uevents,
)

ONES = "0x" + "f" * 64 + "\n"
ZEROS = "0x" + "0" * 64 + "\n"


def mask(*numbers: int) -> str:
    """A mask as the files print it."""
    bits = ["1" if index in numbers else "0" for index in range(256)]
    return f"0x{int(''.join(bits), 2):064x}\n"


def without(*numbers: int) -> str:
    """All ones but these."""
    return mask(*(set(range(256)) - set(numbers)))


@every_kernel
def test_the_default_machine_reads_so(kernel: str) -> None:
    machine = machine_of(kernel)
    domains = mask(4, 0x47, 0xAB, 0xFF)
    expected = {
        "ap_domain": "4\n",
        "ap_adapter_mask": mask(4, 5, 6),
        "ap_usage_domain_mask": domains,
        "ap_control_domain_mask": domains,
        "ap_interrupts": "1\n",
        "config_time": "30\n",
        "poll_thread": "0\n",
        "poll_timeout": "250000\n",
        "ap_max_domain_id": "255\n",
        "ap_max_adapter_id": "255\n",
        "apmask": ONES,
        "aqmask": ONES,
        "scans": "1\n",
        "bindings": "12/12 (complete)\n",
        "drivers_autoprobe": "1\n",
    }
    assert {name: machine.read(f"{BUS}/{name}") for name in expected} == expected


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("0x\n", ZEROS),
        ("\n", ZEROS),
        ("x1\n", mask(3)),
        ("0x1", mask(3)),
        ("80\n", mask(0)),
        ("0xABCDEF\n", "0xabcdef" + "0" * 58 + "\n"),
        ("0x" + "f" * 64, ONES),
        ("-5\n", without(5)),
        ("-5-6\n", without(5, 6)),
        ("-5,-6\n", without(5, 6)),
        ("-5-6+6\n", without(5)),
        ("-0x10,-010\n", without(16, 8)),
        ("-5\n\n,,-6,\n", without(5, 6)),
        ("-0-255", ZEROS),
        ("-0-255+255\n", mask(255)),
        ("+5-5\n", ONES),
    ],
)
@pytest.mark.parametrize("name", ["apmask", "aqmask"])
def test_masks_accept(name: str, text: str, result: str) -> None:
    machine = machine_of()
    machine.write(f"{BUS}/{name}", text)
    assert machine.read(f"{BUS}/{name}") == result


@pytest.mark.parametrize(
    "text",
    [
        "0x" + "f" * 65, "0X1", "0xx1", "0x1,2", "0x1 ", " 0x1", "0xg", "0x1\n\n",
        "+256", "-5-256", "+6-5", "+", "-", "+ 5", "+0x", "-08", "+5,7", "+5-", "-5x",
        "+99999999999999999999", "--5",
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["apmask", "aqmask"])
def test_masks_refuse(name: str, text: str) -> None:
    assert refused(machine_of(), f"{BUS}/{name}", text) == "EINVAL"


@every_kernel
@pytest.mark.parametrize(("name", "good", "bad"), [("apmask", "-5", "+5"), ("aqmask", "-4", "+4")])
def test_masks_are_vetoed_while_a_matrix_has_a_queue(
    kernel: str, name: str, good: str, bad: str
) -> None:
    machine = machine_of(kernel)
    machine.write(f"{BUS}/{name}", good)
    new_mdev(machine, U1, "5", "4")
    errno = "EADDRINUSE" if kernel == "v6" else "EBUSY"
    assert refused(machine, f"{BUS}/{name}", bad) == errno
    assert refused(machine, f"{BUS}/{name}", f"{bad},-7") == errno
    assert refused(machine, f"{BUS}/{name}", ONES) == errno
    line = f"vfio_ap_mdev {U1}: Can not reserve queue 05.0004 for host driver: in use by mdev"
    assert complaints(machine) == ([] if kernel == "v6" else [line] * 3)
    # Bits that only go off, or that are on already, ask nobody.
    machine.write(f"{BUS}/{name}", "-9")
    machine.write(f"{BUS}/{name}", "+10")
    machine.write(f"{BUS}/{name}", "+9")
    machine.write(f"{CONTROL}/vfio_ap_loaded", "0")
    machine.write(f"{BUS}/{name}", bad)
    assert machine.read(f"{BUS}/{name}") == ONES


def test_a_mask_names_adapters_that_do_not_exist_for_later() -> None:
    machine = machine_of()
    machine.write(f"{BUS}/apmask", "-9")
    machine.write(f"{CONTROL}/new_card", "9 CEX7 cca")
    assert link(machine, f"{ROOT}/card09/09.0004/driver").endswith("drivers/vfio_ap")
    assert machine.read(f"{ROOT}/card09/09.0004/status") == "unassigned\n"


@pytest.mark.parametrize(("text", "result"), [("0x47", 71), (" \n4x", 4), ("0253", 171), ("9", 9)])
def test_ap_domain_accepts(text: str, result: int) -> None:
    machine = machine_of()
    machine.write(f"{BUS}/ap_domain", text)
    assert machine.read(f"{BUS}/ap_domain") == f"{result}\n"


@pytest.mark.parametrize("text", ["-1", "256", "x", "", "+4", "7"])
def test_ap_domain_refuses(text: str) -> None:
    machine = machine_of()
    machine.write(f"{BUS}/aqmask", "-7")
    if text:
        assert refused(machine, f"{BUS}/ap_domain", text) == "EINVAL"
    else:
        assert machine.write(f"{BUS}/ap_domain", text) == 0


def test_ap_domain_is_picked_when_a_queue_answers() -> None:
    machine = machine_of(scenario="empty")
    assert machine.read(f"{BUS}/ap_domain") == "-1\n"
    assert machine.read(f"{BUS}/bindings") == "0/0 (complete)\n"
    machine.write(f"{CONTROL}/lpar/domains", "+7,+9")
    machine.write(f"{BUS}/aqmask", "-7")
    machine.write(f"{CONTROL}/new_card", "3 CEX8 accel")
    assert machine.read(f"{BUS}/ap_domain") == "9\n"


@pytest.mark.parametrize(("text", "result"), [("5", 5), ("120\n", 120), (" 10abc", 10)])
def test_config_time_accepts(text: str, result: int) -> None:
    machine = machine_of()
    machine.write(f"{BUS}/config_time", text)
    assert machine.read(f"{BUS}/config_time") == f"{result}\n"


@pytest.mark.parametrize("text", ["4", "121", "-5", "+5", "x", "0x10", "\n"])
def test_config_time_refuses(text: str) -> None:
    assert refused(machine_of(), f"{BUS}/config_time", text) == "EINVAL"


def test_the_timer_scans_and_starts_anew() -> None:
    machine = machine_of()
    machine.clock.advance(29)
    assert machine.read(f"{BUS}/scans") == "1\n"
    machine.write(f"{BUS}/config_time", "10")
    machine.clock.advance(9)
    assert machine.read(f"{BUS}/scans") == "1\n"
    machine.clock.advance(1)
    assert machine.read(f"{BUS}/scans") == "2\n"
    machine.clock.advance(100)
    assert machine.read(f"{BUS}/scans") == "12\n"


@pytest.mark.parametrize("text", ["1", "\n", "anything", "-1"])
def test_scans_takes_anything(text: str) -> None:
    machine = machine_of()
    machine.write(f"{BUS}/scans", text)
    assert machine.read(f"{BUS}/scans") == "2\n"


@every_kernel
def test_poll_thread(kernel: str) -> None:
    machine = machine_of(kernel)
    machine.write(f"{BUS}/poll_thread", "1")
    assert machine.read(f"{BUS}/poll_thread") == "0\n"
    machine.write(f"{CONTROL}/lpar/interrupts", "0")
    assert machine.read(f"{BUS}/ap_interrupts") == "0\n"
    machine.write(f"{BUS}/poll_thread", "1")
    assert machine.read(f"{BUS}/poll_thread") == "1\n"
    assert refused(machine, f"{BUS}/poll_thread", "maybe") == "EINVAL"
    assert refusal(machine, f"{BUS}/poll_thread", "yes") == ("" if kernel == "6.12" else "EINVAL")
    machine.write(f"{BUS}/poll_thread", "0")
    assert machine.read(f"{BUS}/poll_thread") == "0\n"
    # A number other than 0 or 1 is one for sscanf, none for kstrtobool.
    assert refusal(machine, f"{BUS}/poll_thread", "7") == ("EINVAL" if kernel == "6.12" else "")


@every_kernel
def test_poll_timeout(kernel: str) -> None:
    machine, path = machine_of(kernel), f"{BUS}/poll_timeout"
    strict = kernel == "6.12"
    for text in ("1", "120000000000\n", "250000"):
        machine.write(path, text)
        assert machine.read(path) == text.strip() + "\n"
    assert refused(machine, path, "120000000001") == "EINVAL"
    assert refused(machine, path, "x") == "EINVAL"
    assert refused(machine, path, "-1") == "EINVAL"
    assert refusal(machine, path, "0") == ("" if strict else "EINVAL")
    assert refusal(machine, path, " 5x") == ("EINVAL" if strict else "")
    assert refusal(machine, path, str(1 << 64)) == ("ERANGE" if strict else "EINVAL")
    assert refusal(machine, path, "0x10") == ("" if strict else "EINVAL")


@every_kernel
def test_lpar_masks_without_qci(kernel: str) -> None:
    machine = machine_of(kernel)
    machine.write(f"{CONTROL}/lpar/qci", "0")
    for name in ("ap_adapter_mask", "ap_usage_domain_mask", "ap_control_domain_mask"):
        assert machine.read(f"{BUS}/{name}") == "not supported\n"


def test_lpar_masks_are_those_of_the_last_scan() -> None:
    machine = machine_of()
    machine.write(f"{CONTROL}/autoscan", "0")
    machine.write(f"{CONTROL}/lpar/control_domains", "-4")
    assert machine.read(f"{BUS}/ap_control_domain_mask") == mask(4, 0x47, 0xAB, 0xFF)
    machine.write(f"{BUS}/scans", "1")
    assert machine.read(f"{BUS}/ap_control_domain_mask") == mask(0x47, 0xAB, 0xFF)


def test_features() -> None:
    machine = machine_of("6.12")
    assert machine.read(f"{BUS}/features") == "APSC APXA QACT\n"
    machine.subsystems.ap.system.hardware.qci_words = ()
    assert machine.read(f"{BUS}/features") == ""
    machine.write(f"{CONTROL}/lpar/qci", "0")
    assert machine.read(f"{BUS}/features") == "-\n"
    for kernel in KERNELS[:2]:
        assert not exists(machine_of(kernel), f"{BUS}/features")


def test_bindings_counts_queues_without_driver() -> None:
    machine = machine_of("6.1")
    machine.write(f"{BUS}/drivers/cex4queue/unbind", "05.0004\n")
    assert machine.read(f"{BUS}/bindings") == "11/12\n"
    machine.write(f"{BUS}/drivers_probe", "05.0004\n")
    assert machine.read(f"{BUS}/bindings") == "12/12 (complete)\n"


@every_kernel
def test_unbind_and_bind_by_hand(kernel: str) -> None:
    machine = machine_of(kernel)
    driver = f"{BUS}/drivers/cex4queue"
    machine.write(f"{driver}/unbind", "05.0004\n")
    assert not exists(machine, f"{driver}/05.0004")
    assert not exists(machine, f"{ROOT}/card05/05.0004/driver")
    assert not exists(machine, f"{ROOT}/card05/05.0004/online")
    assert refused(machine, f"{driver}/unbind", "05.0004\n") == "ENODEV"
    assert refused(machine, f"{driver}/unbind", "card05") == "ENODEV"
    assert refused(machine, f"{driver}/unbind", "\n") == "ENODEV"
    assert refused(machine, f"{driver}/bind", "nothing") == "ENODEV"
    assert refused(machine, f"{driver}/bind", "card05") == "ENODEV"
    machine.write(f"{driver}/bind", "05.0004")
    assert link(machine, f"{driver}/05.0004") == "../../../../devices/ap/card05/05.0004"
    assert refused(machine, f"{driver}/bind", "05.0004") == "EBUSY"
    machine.write(f"{driver}/unbind", "05.0004")
    # A queue without driver is not offered to vfio_ap when it leaves the host.
    machine.write(f"{BUS}/apmask", "-5")
    assert refused(machine, f"{driver}/bind", "05.0004") == "ENODEV"
    machine.write(f"{BUS}/apmask", "+5")
    assert refused(machine, f"{driver}/bind", "05.0004") == "EBUSY"


@every_kernel
def test_cards_unbind_and_bind(kernel: str) -> None:
    machine, driver = machine_of(kernel), f"{BUS}/drivers/cex4card"
    machine.write(f"{driver}/unbind", "card05")
    assert not exists(machine, f"{ROOT}/card05/type")
    assert exists(machine, f"{ROOT}/card05/05.0004/online")
    assert refused(machine, f"{driver}/unbind", "card05") == "ENODEV"
    assert refused(machine, f"{driver}/unbind", "05.0004") == "ENODEV"
    assert refused(machine, f"{driver}/bind", "05.0004") == "ENODEV"
    machine.write(f"{driver}/bind", "card05\n")
    assert machine.read(f"{ROOT}/card05/online") == "1\n"
    assert refused(machine, f"{driver}/bind", "card05\n") == "EBUSY"
    machine.write(f"{driver}/unbind", "card05")
    machine.write(f"{BUS}/drivers_probe", "card05")
    machine.write(f"{BUS}/drivers_probe", "card05")
    assert exists(machine, f"{driver}/card05")


def test_vfio_ap_binds_by_hand_where_it_may() -> None:
    machine, driver = machine_of("6.1"), f"{BUS}/drivers/vfio_ap"
    free_all(machine)
    machine.write(f"{driver}/unbind", "05.0004")
    assert refused(machine, f"{BUS}/drivers/cex4queue/bind", "05.0004") == "ENODEV"
    machine.write(f"{driver}/bind", "05.0004")
    assert refused(machine, f"{driver}/bind", "05.0004") == "EBUSY"
    assert refused(machine, f"{driver}/bind", "05.0003") == "ENODEV"
    assert refused(machine, f"{driver}/unbind", "05.0003") == "ENODEV"


def test_old_cards_have_no_driver() -> None:
    machine = machine_of("6.1")
    machine.write(f"{CONTROL}/new_card", "9 CEX3 cca")
    assert machine.read(f"{ROOT}/card09/raw_hwtype") == "9\n"
    assert not exists(machine, f"{ROOT}/card09/type")
    assert not exists(machine, f"{ROOT}/card09/09.0004/driver")
    assert machine.read(f"{BUS}/bindings") == "12/16\n"
    assert refused(machine, f"{BUS}/drivers/cex4queue/bind", "09.0004") == "ENODEV"
    assert refused(machine, f"{BUS}/drivers/cex4card/bind", "card09") == "ENODEV"
    machine.write(f"{BUS}/drivers_probe", "09.0004")
    machine.write(f"{BUS}/apmask", "-9")
    assert not exists(machine, f"{ROOT}/card09/09.0004/driver")


def test_drivers_probe_and_autoprobe() -> None:
    machine = machine_of()
    assert refused(machine, f"{BUS}/drivers_probe", "card99") == "ENODEV"
    assert refused(machine, f"{BUS}/drivers_probe", "05.0004\n\n") == "ENODEV"
    machine.write(f"{BUS}/drivers_probe", "05.0004\n")
    machine.write(f"{BUS}/drivers_autoprobe", "0")
    assert machine.read(f"{BUS}/drivers_autoprobe") == "0\n"
    machine.write(f"{CONTROL}/new_card", "9 CEX6 accel")
    assert not exists(machine, f"{ROOT}/card09/driver")
    assert not exists(machine, f"{ROOT}/card09/09.0004/driver")
    machine.write(f"{BUS}/drivers_probe", "09.0004")
    machine.write(f"{BUS}/drivers_probe", "card09")
    assert link(machine, f"{ROOT}/card09/09.0004/driver").endswith("cex4queue")
    machine.write(f"{BUS}/drivers_autoprobe", "x")
    assert machine.read(f"{BUS}/drivers_autoprobe") == "1\n"


def test_a_mask_change_offers_unbound_queues_too() -> None:
    machine = machine_of()
    machine.write(f"{BUS}/drivers/cex4queue/unbind", "05.0004")
    machine.write(f"{BUS}/apmask", "-9")
    assert link(machine, f"{ROOT}/card05/05.0004/driver").endswith("cex4queue")


def test_files_of_the_wrong_direction() -> None:
    machine = machine_of()
    for path in (f"{BUS}/ap_interrupts", f"{BUS}/bindings", f"{ROOT}/card05/hwtype"):
        assert refusal(machine, path, "1") == "EACCES"
    for path in (f"{BUS}/drivers_probe", f"{BUS}/uevent", f"{BUS}/drivers/cex4queue/bind"):
        assert refusal(machine, path) == "EACCES"


def test_uevent_of_the_bus_takes_actions_only() -> None:
    machine = machine_of()
    machine.write(f"{BUS}/uevent", "add\n")
    assert refusal(machine, f"{BUS}/uevent", "Add\n") == "EINVAL"
    assert refusal(machine, f"{BUS}/drivers/vfio_ap/uevent", "nothing") == "EINVAL"


def test_a_bus_and_its_drivers_send_events_of_their_own() -> None:
    machine = machine_of()
    count = len(uevents(machine))
    buses = BUS.removesuffix("/ap")
    machine.write(f"{BUS}/uevent", "change\n")
    machine.write(f"{BUS}/drivers/cex4card/uevent", "add")
    machine.write(f"{BUS}/drivers/vfio_ap/uevent", f"change {U1} A=1")
    machine.write(f"{buses}/mdev/uevent", "online")
    machine.write(f"{buses}/mdev/drivers/vfio_mdev/uevent", "add")
    machine.write(f"{buses}/matrix/uevent", "add")
    machine.write(f"{buses}/matrix/drivers/vfio_ap/uevent", "bind")
    synthetic = "SYNTH_UUID=0"
    assert uevents(machine)[count:] == [
        f"change /bus/ap SUBSYSTEM=bus {synthetic}",
        f"add /bus/ap/drivers/cex4card SUBSYSTEM=drivers {synthetic}",
        f"change /bus/ap/drivers/vfio_ap SUBSYSTEM=drivers SYNTH_UUID={U1} SYNTH_ARG_A=1",
        f"online /bus/mdev SUBSYSTEM=bus {synthetic}",
        f"add /bus/mdev/drivers/vfio_mdev SUBSYSTEM=drivers {synthetic}",
        f"add /bus/matrix SUBSYSTEM=bus {synthetic}",
        f"bind /bus/matrix/drivers/vfio_ap SUBSYSTEM=drivers {synthetic}",
    ]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("explode", "unknown uevent action string"),
        ("ADD\n", "unknown uevent action string"),
        ("\n", "unknown uevent action string"),
        ("add 1234", "incorrect uevent action arguments"),
        (f"add {U1} A=b.c", "incorrect uevent action arguments"),
        (f"add {U1} ", "incorrect uevent action arguments"),
        (f"add  {U1}", "incorrect uevent action arguments"),
        (f"add {U1} A", "incorrect uevent action arguments"),
    ],
)
def test_a_refused_event_is_logged_as_the_kernel_does(text: str, why: str) -> None:
    machine = machine_of()
    count = len(uevents(machine))
    assert refusal(machine, f"{ROOT}/card05/uevent", text) == "EINVAL"
    assert refusal(machine, f"{BUS}/uevent", text) == "EINVAL"
    assert complaints(machine) == [
        f"synth uevent: /devices/ap/card05: {why}",
        "cex4card card05: uevent: failed to send synthetic uevent: -22",
        f"synth uevent: /bus/ap: {why}",
    ]
    assert len(uevents(machine)) == count


def test_links_are_relative() -> None:
    machine = machine_of()
    assert link(machine, f"{BUS}/devices/card05") == "../../../devices/ap/card05"
    assert link(machine, f"{BUS}/devices/05.0004") == "../../../devices/ap/card05/05.0004"
    assert link(machine, f"{ROOT}/card05/subsystem") == "../../../bus/ap"
    assert link(machine, f"{ROOT}/card05/driver") == "../../../bus/ap/drivers/cex4card"
    assert link(machine, f"{ROOT}/card05/05.0004/driver") == "../../../../bus/ap/drivers/cex4queue"


def test_module_parameters_are_those_of_the_boot() -> None:
    machine = machine_of()
    parameters = "sys/module/ap/parameters"
    assert machine.read(f"{parameters}/apmask") == "(null)\n"
    # Except for this one: it is the variable behind `ap_domain`.
    assert machine.read(f"{parameters}/domain") == "4\n"
    machine.write(f"{BUS}/ap_domain", "0x47")
    assert machine.read(f"{parameters}/domain") == "71\n"
    assert machine.read(f"{parameters}/useirq") == "1\n"


def test_every_bus_has_its_probe_files() -> None:
    machine = machine_of("6.1")
    new_mdev(machine)
    for bus, device in ("ap", "card05"), ("matrix", "matrix"), ("mdev", U1):
        path = f"sys/bus/{bus}"
        machine.write(f"{path}/drivers_probe", f"{device}\n")
        assert refused(machine, f"{path}/drivers_probe", f"{device}\n\n") == "ENODEV"
        assert refused(machine, f"{path}/drivers_probe", "nobody") == "ENODEV"
        assert machine.read(f"{path}/drivers_autoprobe") == "1\n"
        machine.write(f"{path}/drivers_autoprobe", "0")
        assert machine.read(f"{path}/drivers_autoprobe") == "0\n"
        machine.write(f"{path}/drivers_autoprobe", " 0")
        assert machine.read(f"{path}/drivers_autoprobe") == "1\n"
    machine.write("sys/bus/mdev/drivers_autoprobe", "0")
    machine.write(f"{TYPE}/create", U2)
    assert exists(machine, f"{MATRIX}/{U2}/driver")


def test_the_root_of_the_matrix_has_no_bus_and_sends_nothing() -> None:
    machine = machine_of("6.1")
    root = "sys/devices/vfio_ap"
    count = len(uevents(machine))
    assert machine.read(f"{root}/uevent") == ""
    machine.write(f"{root}/uevent", "add\n")
    assert refused(machine, f"{root}/uevent", "added\n") == "EINVAL"
    assert uevents(machine)[count:] == []
    assert link(machine, f"{root}/module") == "../../module/vfio_ap"
    assert not exists(machine, f"{root}/subsystem")
    assert not exists(machine, f"{root}/power")
    # That driver belongs to no module.
    assert not exists(machine, "sys/bus/matrix/drivers/vfio_ap/module")


def test_masks_beyond_one_page_are_cut() -> None:
    machine = machine_of()
    # The first 4096 bytes are one store; all of them are terms of the chain.
    text = "-05," * 2000
    assert machine.write(f"{BUS}/apmask", text) == 4096
    assert machine.read(f"{BUS}/apmask") == without(5)
