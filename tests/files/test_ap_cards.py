"""Cards and queues: every attribute's text, every refusal, hot plug and unplug."""

from __future__ import annotations

import pytest

from fakesys.machine.machine import Machine
from tests.files.ap import (
    BUS,
    CONTROL,
    FAULTS,
    ROOT,
    every_kernel,
    exists,
    free_all,
    link,
    machine_of,
    refusal,
    refused,
    uevents,
)

CARD = f"{ROOT}/card05"
QUEUE = f"{CARD}/05.0004"


def texts(machine: Machine, path: str, names: str) -> dict[str, str]:
    return {name: machine.read(f"{path}/{name}") for name in names.split()}


@every_kernel
def test_a_cca_card_reads_so(kernel: str) -> None:
    machine = machine_of(kernel)
    expected = {
        "hwtype": "11\n",
        "raw_hwtype": "11\n",
        "depth": "8\n" if kernel == "6.12" else "7\n",
        "ap_functions": "0x92000000\n",
        # The random number generator has asked it once.
        "request_count": "1\n",
        "requestq_count": "0\n",
        "pendingq_count": "0\n",
        "modalias": "ap:t0B\n",
        "config": "1\n",
        "chkstop": "0\n",
        "max_msg_size": "12288\n",
        "type": "CEX5C\n",
        "online": "1\n",
        "load": "0\n",
        "serialnr": "FAKE0005\n",
        "uevent": "DEVTYPE=ap_card\nDRIVER=cex4card\nDEV_TYPE=000B\nMODALIAS=ap:t0B\nMODE=cca\n",
    }
    assert texts(machine, CARD, " ".join(expected)) == expected


def test_an_ep11_card_and_an_accelerator_read_so() -> None:
    machine = machine_of()
    ep11, accel = f"{ROOT}/card04", f"{ROOT}/card06"
    assert texts(machine, ep11, "type ap_functions API_ordinalnr FW_version serialnr op_modes") == {
        "type": "CEX5P\n",
        "ap_functions": "0x86000000\n",
        "API_ordinalnr": "4\n",
        "FW_version": "7.31\n",
        "serialnr": "FAKE0004EP110000\n",
        "op_modes": "FIPS2009 BSI2009 FIPS2011 BSI2011\n",
    }
    assert texts(machine, accel, "type ap_functions") == {
        "type": "CEX5A\n",
        "ap_functions": "0x6A000000\n",
    }
    assert not exists(machine, f"{accel}/serialnr")
    # Offline, a card is not asked: it tells what it told before, or nothing.
    before = texts(machine, ep11, "API_ordinalnr FW_version serialnr op_modes")
    machine.write(f"{ep11}/online", "0")
    assert texts(machine, ep11, "API_ordinalnr FW_version serialnr op_modes") == before
    machine.write(f"{CARD}/online", "0")
    assert machine.read(f"{CARD}/serialnr") == "\n"


@every_kernel
def test_a_host_queue_reads_so(kernel: str) -> None:
    machine = machine_of(kernel)
    expected = {
        "request_count": "1\n",
        "requestq_count": "0\n",
        "pendingq_count": "0\n",
        "reset": "No Reset Timer set.\n",
        "interrupt": "Interrupts enabled.\n",
        "config": "1\n",
        "chkstop": "0\n",
        "online": "1\n",
        "load": "0\n",
        "uevent": "DEVTYPE=ap_queue\nDRIVER=cex4queue\nMODE=cca\n",
    }
    assert texts(machine, QUEUE, " ".join(expected)) == expected
    assert exists(machine, f"{QUEUE}/ap_functions") == (kernel == "6.12")


@every_kernel
def test_a_vfio_queue_reads_so(kernel: str) -> None:
    machine = machine_of(kernel)
    free_all(machine)
    # Only 6.12 asks the queue; the others remember what the host had switched on.
    irq = "disabled" if kernel == "6.12" else "enabled"
    expected = {
        "request_count": "-\n",
        "reset": "No Reset Timer set.\n",
        "interrupt": f"Interrupts {irq}.\n",
        "status": "unassigned\n",
        "uevent": "DEVTYPE=ap_queue\nDRIVER=vfio_ap\nMODE=cca\n",
    }
    assert texts(machine, QUEUE, " ".join(expected)) == expected
    for name in ("online", "load", "mkvps"):
        assert not exists(machine, f"{QUEUE}/{name}")


def test_master_keys_show_while_online() -> None:
    machine = machine_of()
    lines = machine.read(f"{QUEUE}/mkvps").splitlines()
    assert [line.split()[:3] for line in lines] == [
        [key, f"{register}:", state]
        for key in ("AES", "APKA", "ASYM")
        for register, state in (("NEW", "empty"), ("CUR", "valid"), ("OLD", "invalid"))
    ]
    assert [len(line.split()[3]) for line in lines] == [18] * 6 + [34] * 3
    ep11 = f"{ROOT}/card04/04.0004"
    assert machine.read(f"{ep11}/mkvps").startswith("WK CUR: valid 0x")
    assert machine.read(f"{ep11}/mkvps").endswith("WK NEW: empty -\n")
    assert machine.read(f"{ep11}/op_modes").startswith("FIPS2009")
    assert not exists(machine, f"{ROOT}/card06/06.0004/mkvps")
    machine.write(f"{QUEUE}/online", "0")
    machine.write(f"{ep11}/online", "0")
    assert machine.read(f"{QUEUE}/mkvps").splitlines() == lines
    assert machine.read(f"{CARD}/05.0047/mkvps").splitlines() != lines
    machine.write(f"{CARD}/online", "0")
    assert machine.read(f"{CARD}/05.00ab/mkvps").splitlines()[0] == "AES NEW: - -"
    assert machine.read(f"{ep11}/mkvps") == "WK CUR: - -\nWK NEW: - -\n"
    assert machine.read(f"{ep11}/op_modes") == "\n"


def test_queue_functions_are_asked_from_the_queue() -> None:
    machine = machine_of("6.12")
    assert machine.read(f"{QUEUE}/ap_functions") == "0x92000000\n"
    machine.write(f"{CONTROL}/autoscan", "0")
    machine.write(f"{CONTROL}/queues/05.0004/rc", "1")
    assert machine.read(f"{QUEUE}/ap_functions") == "0x00000000\n"


@pytest.mark.parametrize("text", ["2", "-1", "x", "\n", "+1"])
@pytest.mark.parametrize("path", [f"{CARD}/config", f"{CARD}/online", f"{QUEUE}/online"])
def test_switches_refuse(path: str, text: str) -> None:
    assert refused(machine_of(), path, text) == "EINVAL"


@pytest.mark.parametrize("text", ["0", " 0x", "\n0\n", "00"])
def test_switches_read_a_number_and_ignore_the_rest(text: str) -> None:
    machine = machine_of("6.1")
    machine.write(f"{CARD}/config", text)
    assert machine.read(f"{CARD}/config") == "0\n"


@every_kernel
def test_config_off_takes_the_card_out_of_use(kernel: str) -> None:
    machine = machine_of(kernel)
    machine.write(f"{CARD}/config", "0")
    assert machine.read(f"{CARD}/config") == "0\n"
    assert machine.read(f"{CARD}/online") == "0\n"
    assert machine.read(f"{CONTROL}/cards/05/config") == "0\n"
    assert refused(machine, f"{CARD}/online", "1") == "ENODEV"
    assert exists(machine, QUEUE) == (kernel != "v6")
    if kernel != "v6":
        assert machine.read(f"{QUEUE}/config") == "0\n"
        assert machine.read(f"{QUEUE}/online") == "0\n"
        assert refused(machine, f"{QUEUE}/online", "1") == "ENODEV"
    machine.write(f"{CARD}/config", "1")
    assert machine.read(f"{QUEUE}/online") == "1\n"
    assert machine.read(f"{CARD}/online") == "1\n"


def test_config_refuses_without_the_facility_or_by_fault() -> None:
    machine = machine_of()
    machine.write(f"{CONTROL}/lpar/reconfig", "0")
    assert refused(machine, f"{CARD}/config", "0") == "EOPNOTSUPP"
    machine.write(f"{CARD}/config", "1")
    machine.write(f"{CONTROL}/lpar/reconfig", "1")
    machine.write(f"{FAULTS}/sclp_configure", "05 EIO\n")
    assert machine.read(f"{FAULTS}/sclp_configure") == "05 EIO\n"
    assert refused(machine, f"{CARD}/config", "0") == "EIO"
    machine.write(f"{ROOT}/card06/config", "0")
    machine.write(f"{FAULTS}/sclp_configure", "\n")
    machine.write(f"{CARD}/config", "0")
    assert refusal(machine, f"{FAULTS}/sclp_configure", "05 NOPE") == "EINVAL"
    assert refusal(machine, f"{FAULTS}/sclp_configure", "5") == "EINVAL"


def test_config_of_a_card_that_was_pulled_unnoticed() -> None:
    machine = machine_of()
    machine.write(f"{CONTROL}/autoscan", "0")
    machine.write(f"{CONTROL}/del_card", "5")
    assert refused(machine, f"{CARD}/config", "0") == "EIO"


@every_kernel
def test_config_says_so_even_if_nothing_changes(kernel: str) -> None:
    machine = machine_of(kernel)
    count = len(uevents(machine))
    machine.write(f"{CARD}/config", "1")
    assert uevents(machine)[count:] == [
        "change /devices/ap/card05 SUBSYSTEM=ap CONFIG=1 DEVTYPE=ap_card DRIVER=cex4card "
        "DEV_TYPE=000B MODALIAS=ap:t0B MODE=cca"
    ]


@every_kernel
def test_checkstop(kernel: str) -> None:
    machine = machine_of(kernel)
    machine.write(f"{CONTROL}/cards/05/checkstop", "1")
    assert machine.read(f"{CARD}/chkstop") == machine.read(f"{QUEUE}/chkstop") == "1\n"
    knows = kernel == "6.12"
    assert machine.read(f"{CARD}/online") == ("0\n" if knows else "1\n")
    assert machine.read(f"{QUEUE}/online") == ("0\n" if knows else "1\n")
    assert refusal(machine, f"{CARD}/online", "1") == ("ENODEV" if knows else "")
    assert refusal(machine, f"{QUEUE}/online", "1") == ("ENODEV" if knows else "")
    machine.write(f"{CONTROL}/cards/05/checkstop", "0")
    assert machine.read(f"{CARD}/chkstop") == machine.read(f"{QUEUE}/chkstop") == "0\n"


def test_online_of_a_card_takes_its_host_queues_along() -> None:
    machine = machine_of()
    machine.write(f"{QUEUE}/online", "0")
    count = len(uevents(machine))
    machine.write(f"{CARD}/online", "0")
    told = [(event.split()[1][-7:], "ONLINE=0" in event) for event in uevents(machine)[count:]]
    assert told == [
        ("/card05", True), ("05.0047", True), ("05.00ab", True), ("05.00ff", True),
    ]  # fmt: skip
    assert refused(machine, f"{QUEUE}/online", "1") == "EINVAL"
    machine.write(f"{CARD}/online", "1")
    assert machine.read(f"{QUEUE}/online") == "1\n"
    machine.write(f"{BUS}/aqmask", "-4")
    machine.write(f"{CARD}/online", "0")
    machine.write(f"{BUS}/aqmask", "+4")
    # A queue is online when the host's driver gets it.
    assert machine.read(f"{QUEUE}/online") == "1\n"


def test_requests_are_counted() -> None:
    machine = machine_of()
    submit = f"{CONTROL}/queues/05.0004/submit"
    machine.write(f"{CARD}/request_count", "0")
    machine.write(submit, "3")
    machine.write(f"{CONTROL}/queues/05.0047/submit", "0x10")
    assert machine.read(f"{QUEUE}/request_count") == "3\n"
    assert machine.read(f"{CARD}/request_count") == "19\n"
    machine.write(f"{QUEUE}/request_count", "x")
    assert machine.read(f"{QUEUE}/request_count") == "0\n"
    assert machine.read(f"{CARD}/request_count") == "19\n"
    machine.write(f"{CARD}/request_count", "\n")
    assert machine.read(f"{CARD}/request_count") == "0\n"
    assert machine.read(f"{CARD}/05.0047/request_count") == "0\n"
    machine.write(f"{QUEUE}/online", "0")
    assert refused(machine, submit, "1") == "ENODEV"
    assert refused(machine, submit, "x") == "EINVAL"
    assert refused(machine, submit, str(1 << 64)) == "ERANGE"
    free_all(machine)
    assert refused(machine, submit, "1") == "ENODEV"
    machine.write(f"{CONTROL}/autoscan", "0")
    machine.write(f"{BUS}/apmask", "-5")
    machine.write(f"{CARD}/config", "0")
    machine.write(f"{BUS}/scans", "1")
    assert refused(machine, submit, "1") == "ENODEV"


def test_requests_wait_for_a_busy_queue() -> None:
    machine = machine_of()
    machine.write(f"{CONTROL}/queues/05.0004/rc", "5")
    machine.write(f"{CONTROL}/queues/05.0004/submit", "2")
    assert machine.read(f"{QUEUE}/requestq_count") == machine.read(f"{QUEUE}/load") == "2\n"
    assert machine.read(f"{CARD}/requestq_count") == machine.read(f"{CARD}/load") == "2\n"
    assert machine.read(f"{QUEUE}/reset") == "Reset Timer armed.\n"
    machine.write(f"{CONTROL}/queues/05.0004/rc", "0")
    assert machine.read(f"{QUEUE}/requestq_count") == "0\n"
    machine.write(f"{CONTROL}/queues/05.0004/rc", "0x02")
    machine.write(f"{CONTROL}/queues/05.0004/submit", "2")
    assert machine.read(f"{QUEUE}/reset") == "Reset Timer armed.\n"
    machine.write(f"{QUEUE}/reset", "1")
    assert machine.read(f"{QUEUE}/reset") == "Reset in progress.\n"
    assert machine.read(f"{QUEUE}/interrupt") == "Interrupts disabled.\n"
    assert machine.read(f"{QUEUE}/requestq_count") == "0\n"
    machine.write(f"{CONTROL}/queues/05.0004/submit", "2")
    machine.write(f"{CARD}/online", "0")
    assert machine.read(f"{CARD}/requestq_count") == "0\n"


@every_kernel
def test_pulling_a_card_removes_it(kernel: str) -> None:
    machine = machine_of(kernel)
    count = len(uevents(machine))
    machine.write(f"{CONTROL}/del_card", "5")
    assert not exists(machine, CARD)
    assert not exists(machine, f"{BUS}/devices/card05")
    assert not exists(machine, f"{BUS}/drivers/cex4queue/05.0004")
    assert machine.read(f"{BUS}/bindings") == "8/8 (complete)\n"
    told = [" ".join(event.split()[:2]) for event in uevents(machine)[count:]]
    base = "/devices/ap/card05"
    queues = [f"{base}/05.{domain}" for domain in ("0004", "0047", "00ab", "00ff")]
    pairs = [f"{action} {queue}" for queue in queues for action in ("unbind", "remove")]
    assert told == [*pairs, f"unbind {base}", f"remove {base}"]


def test_a_new_device_of_the_same_name_is_another_one() -> None:
    machine = machine_of()
    node = machine.fs.resolve(f"{QUEUE}/config")
    queue = machine.fs.resolve(QUEUE)
    machine.write(f"{CARD}/config", "0")
    machine.write(f"{CARD}/config", "1")
    assert node.gone
    assert queue.gone
    assert machine.fs.resolve(QUEUE).ino != queue.ino


def test_a_card_of_another_type_is_made_anew() -> None:
    machine = machine_of()
    machine.write(f"{CONTROL}/autoscan", "0")
    machine.write(f"{CONTROL}/del_card", "5")
    machine.write(f"{CONTROL}/new_card", "5 CEX8 ep11 serialnr=ABC depth=15 fw_version=8.2")
    assert machine.read(f"{CARD}/type") == "CEX5C\n"
    machine.write(f"{BUS}/scans", "1")
    assert texts(machine, CARD, "type depth serialnr FW_version hwtype modalias") == {
        "type": "CEX8P\n",
        "depth": "15\n",
        "serialnr": "ABC\n",
        "FW_version": "8.2\n",
        "hwtype": "14\n",
        "modalias": "ap:t0E\n",
    }


def test_a_card_newer_than_known_counts_as_the_newest() -> None:
    machine = machine_of()
    machine.write(f"{CONTROL}/new_card", "9 15 accel")
    assert texts(machine, f"{ROOT}/card09", "hwtype raw_hwtype type") == {
        "hwtype": "14\n",
        "raw_hwtype": "15\n",
        "type": "CEX8A\n",
    }
    machine.write(f"{CONTROL}/new_card", "10 5 accel")
    assert not exists(machine, f"{ROOT}/card0a")


def test_domains_of_the_machine_come_and_go() -> None:
    machine = machine_of()
    machine.write(f"{CONTROL}/lpar/domains", "-4,+8")
    assert not exists(machine, QUEUE)
    assert link(machine, f"{CARD}/05.0008/driver").endswith("cex4queue")
    machine.write(f"{CONTROL}/lpar/adapters", "-5")
    assert not exists(machine, CARD)
    assert machine.read(f"{CONTROL}/cards/05/type") == "CEX5C\n"
    machine.write(f"{CONTROL}/lpar/adapters", "+5")
    assert exists(machine, f"{CARD}/05.0047")
    machine.write(f"{CONTROL}/lpar/domains", "0x0")
    assert machine.read(f"{BUS}/bindings") == "0/0 (complete)\n"


@every_kernel
def test_a_queue_that_does_not_answer_has_no_device(kernel: str) -> None:
    machine = machine_of(kernel)
    machine.write(f"{CONTROL}/queues/05.0004/rc", "1")
    assert not exists(machine, QUEUE)
    machine.write(f"{CONTROL}/queues/05.0004/rc", "4")
    assert machine.read(f"{QUEUE}/chkstop") == "1\n"
    machine.write(f"{CONTROL}/queues/05.0004/rc", "3")
    assert exists(machine, QUEUE) == (kernel != "v6")
    machine.write(f"{CONTROL}/queues/05.0004/rc", "0")
    assert machine.read(f"{QUEUE}/config") == "1\n"


def test_machine_events_wait_for_a_scan_without_autoscan() -> None:
    machine = machine_of()
    machine.write(f"{CONTROL}/autoscan", "0")
    machine.write(f"{CONTROL}/cards/05/config", "0")
    machine.write(f"{CONTROL}/new_card", "9 CEX6 cca")
    assert machine.read(f"{CARD}/config") == "1\n"
    assert not exists(machine, f"{ROOT}/card09")
    machine.clock.advance(30)
    assert machine.read(f"{CARD}/config") == "0\n"
    assert exists(machine, f"{ROOT}/card09/09.0004")


def test_a_device_sends_its_uevent_again_when_asked() -> None:
    machine = machine_of()
    count = len(uevents(machine))
    machine.write(f"{QUEUE}/uevent", "change\n")
    machine.write(f"{ROOT}/uevent", "add")
    assert uevents(machine)[count:] == [
        "change /devices/ap/card05/05.0004 SUBSYSTEM=ap SYNTH_UUID=0 DEVTYPE=ap_queue "
        "DRIVER=cex4queue MODE=cca",
        "add /devices/ap SUBSYSTEM=ap SYNTH_UUID=0",
    ]
    assert machine.read(f"{ROOT}/uevent") == ""
    assert refused(machine, f"{QUEUE}/uevent", "explode") == "EINVAL"


@every_kernel
def test_queues_that_stay_bound_belong_to_the_card_that_was(kernel: str) -> None:
    machine = machine_of(kernel)
    card, queue = f"{ROOT}/card05", f"{ROOT}/card05/05.0004"
    driver = f"{BUS}/drivers/cex4card"
    assert machine.read(f"{card}/serialnr") == "FAKE0005\n"
    machine.write(f"{driver}/unbind", "card05")
    machine.write(f"{driver}/bind", "card05")
    machine.write(f"{queue}/request_count", "0")
    patterns = machine.read(f"{queue}/mkvps")
    assert machine.read(f"{queue}/request_count") == "0\n"
    assert "AES CUR: - -" in patterns
    count = len(uevents(machine))
    machine.write(f"{card}/online", "0")
    assert [event.split()[1] for event in uevents(machine)[count:]] == ["/devices/ap/card05"]
    assert machine.read(f"{queue}/online") == "1\n"
    machine.write(f"{queue}/online", "0")
    machine.write(f"{queue}/online", "1")
    for verb in ("unbind", "bind"):
        machine.write(f"{BUS}/drivers/cex4queue/{verb}", "05.0004")
    machine.write(f"{queue}/online", "0")
    assert refused(machine, f"{queue}/online", "1") == "EINVAL"
    machine.write(f"{card}/online", "1")
    assert "AES CUR: valid" in machine.read(f"{queue}/mkvps")
    assert "AES CUR: - -" in machine.read(f"{card}/05.0047/mkvps")


@every_kernel
def test_an_earlier_card_stays_offline(kernel: str) -> None:
    machine = machine_of(kernel)
    card, queue = f"{ROOT}/card05", f"{ROOT}/card05/05.0004"
    machine.write(f"{card}/online", "0")
    for verb in ("unbind", "bind"):
        machine.write(f"{BUS}/drivers/cex4card/{verb}", "card05")
    assert machine.read(f"{card}/online") == "1\n"
    assert refused(machine, f"{queue}/online", "1") == "EINVAL"
    copy = Machine("seed", "empty")
    copy.load(machine.save())
    assert refused(copy, f"{queue}/online", "1") == "EINVAL"
    machine.write(f"{CONTROL}/del_card", "5")
    machine.write(f"{CONTROL}/new_card", "5 CEX5 cca")
    machine.write(f"{queue}/online", "0")
    machine.write(f"{queue}/online", "1")
    assert "AES CUR: valid" in machine.read(f"{queue}/mkvps")
