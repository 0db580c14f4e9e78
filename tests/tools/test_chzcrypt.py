"""chzcrypt: what it is told arrives in the files, what the kernel refuses it reports."""

from __future__ import annotations

import pytest

from tests.tools.machines import S390


@pytest.mark.parametrize(
    ("option", "value", "file"),
    [("-c", "5", "config_time"), ("-c", "120", "config_time"), ("-t", "50000", "poll_timeout")],
)
def test_numbers_arrive(machine: S390, option: str, value: str, file: str) -> None:
    machine.ok("chzcrypt", option, value)
    assert machine.read(file) == value


@pytest.mark.parametrize("value", ["4", "121"])
def test_refused_times_leave_the_file(machine: S390, value: str) -> None:
    before = machine.read("config_time")
    assert "Error - unable to change" in machine.refused("chzcrypt", "-c", value)
    assert machine.read("config_time") == before


def test_default_domain(each_kernel: S390) -> None:
    each_kernel.ok("chzcrypt", "-q", "71")
    assert each_kernel.read("ap_domain") == "71"


def test_default_domain_of_another_driver_is_refused(each_kernel: S390) -> None:
    each_kernel.write("aqmask", "-71")
    assert "Error - unable to change" in each_kernel.refused("chzcrypt", "-q", "71")
    assert each_kernel.read("ap_domain") == "4"


def test_poll_thread_is_refused_while_there_are_interrupts(machine: S390) -> None:
    assert machine.read("ap_interrupts") == "1"
    assert "Error - unable to change poll thread" in machine.refused("chzcrypt", "-p")
    assert machine.read("poll_thread") == "0"


def test_poll_thread_without_interrupts(machine: S390) -> None:
    machine.control("lpar/interrupts", "0")
    machine.ok("chzcrypt", "-p")
    assert machine.read("poll_thread") == "1"
    machine.ok("chzcrypt", "-n")
    assert machine.read("poll_thread") == "0"


def test_a_card_takes_its_queues_offline_and_back(each_kernel: S390) -> None:
    machine = each_kernel
    queues = ("04.0004", "04.0047", "04.00ab", "04.00ff")
    machine.ok("chzcrypt", "-d", "04")
    assert {machine.read(f"devices/{queue}/online") for queue in queues} == {"0"}
    assert "Error - unable to set" in machine.refused("chzcrypt", "-e", "04.0004")
    assert machine.read("devices/04.0004/online") == "0"
    assert "Setting cryptographic device card04 online" in machine.ok("chzcrypt", "-V", "-e", "04")
    assert {machine.read(f"devices/{queue}/online") for queue in queues} == {"1"}


def test_one_queue_offline(machine: S390) -> None:
    machine.ok("chzcrypt", "-d", "04.0047")
    assert machine.read("devices/04.0047/online") == "0"
    assert machine.read("devices/04.0004/online") == machine.read("devices/card04/online") == "1"


def test_configure_off_and_on(each_kernel: S390) -> None:
    machine = each_kernel
    machine.ok("chzcrypt", "--config-off", "06")
    assert machine.read("devices/card06/config") == machine.read("devices/card06/online") == "0"
    machine.ok("chzcrypt", "--config-on", "06")
    assert machine.read("devices/card06/config") == machine.read("devices/card06/online") == "1"


def test_a_card_that_is_not_there(machine: S390) -> None:
    assert "does not exist" in machine.refused("chzcrypt", "-e", "77")
