"""What a card tells: it is asked by requests to queues of the host; master keys of domains."""

from __future__ import annotations

import pytest

from fakesys.machine.machine import Machine
from tests.files.ap import (
    BUS,
    CONTROL,
    ROOT,
    U1,
    every_kernel,
    machine_of,
    new_guest,
    new_mdev,
    refused,
)

CCA, EP11 = f"{ROOT}/card05", f"{ROOT}/card04"
KEYS = f"{CONTROL}/master_keys"


def key(machine: Machine, queue: str, name: str) -> str:
    """A line of `mkvps`, without its name."""
    lines = machine.read(f"{queue}/mkvps").splitlines()
    return next(line.partition(": ")[2] for line in lines if line.startswith(name))


@every_kernel
def test_a_card_without_a_queue_of_the_host_tells_nothing(kernel: str) -> None:
    machine = machine_of(kernel)
    assert machine.read(f"{CCA}/serialnr") == "FAKE0005\n"
    assert machine.read(f"{EP11}/FW_version") == "7.31\n"
    machine.write(f"{BUS}/apmask", "-4,-5")
    assert machine.read(f"{CCA}/serialnr") == "\n"
    # An EP11 card tells what it told before, but only once.
    assert [machine.read(f"{EP11}/FW_version") for _ in range(2)] == ["7.31\n", "\n"]
    assert machine.read(f"{EP11}/serialnr") == "\n"
    machine.write(f"{BUS}/apmask", "+4,+5")
    assert machine.read(f"{CCA}/serialnr") == "FAKE0005\n"
    assert machine.read(f"{EP11}/API_ordinalnr") == "4\n"


@every_kernel
def test_reads_are_requests_to_the_queue_with_the_fewest(kernel: str) -> None:
    machine = machine_of(kernel)
    machine.write(f"{CCA}/request_count", "0")
    counts = []
    for _ in range(3):
        machine.read(f"{CCA}/serialnr")
        queues = [f"{CCA}/05.{domain}" for domain in ("0004", "0047", "00ab", "00ff")]
        counts.append([int(machine.read(f"{queue}/request_count")) for queue in queues])
    assert counts == [[1, 1, 0, 0], [1, 1, 1, 1], [2, 2, 1, 1]]
    machine.read(f"{CCA}/05.0047/mkvps")
    assert machine.read(f"{CCA}/request_count") == "8\n"


def test_a_request_that_finds_no_queue_scans_in_later_kernels() -> None:
    for kernel, scans in (("6.1", 0), ("6.12", 1)):
        machine = machine_of(kernel)
        machine.write(f"{BUS}/apmask", "-5")
        before = int(machine.read(f"{BUS}/scans"))
        assert machine.read(f"{CCA}/serialnr") == "\n"
        assert int(machine.read(f"{BUS}/scans")) == before + scans


def test_keys_belong_to_a_domain_and_agree_across_cards() -> None:
    machine = machine_of("6.1")
    machine.write(f"{CONTROL}/new_card", "7 CEX6 cca functions=F")
    assert machine.read(f"{ROOT}/card07/ap_functions") == "0x92800000\n"
    one, other = f"{CCA}/05.0004", f"{ROOT}/card07/07.0004"
    first = key(machine, one, "AES CUR")
    assert first == key(machine, other, "AES CUR") != key(machine, f"{CCA}/05.0047", "AES CUR")
    machine.write(KEYS, "4 AES part\n")
    assert key(machine, one, "AES NEW") == f"partial 0x{0:016x}"
    machine.write(KEYS, "0x4 AES load 0x1234\n")
    assert key(machine, one, "AES NEW") == key(machine, other, "AES NEW") == f"full 0x{0x1234:016x}"
    machine.write(KEYS, "4 AES set\n")
    assert key(machine, other, "AES CUR") == f"valid 0x{0x1234:016x}"
    assert key(machine, other, "AES OLD") == first
    assert key(machine, other, "AES NEW").startswith("empty 0x0")
    machine.write(KEYS, "4 AES clear old\n")
    assert key(machine, other, "AES OLD").startswith("invalid 0x0")


def test_a_wrapping_key_is_committed_before_it_is_set() -> None:
    machine = machine_of("6.1")
    queue = f"{EP11}/04.0047"
    assert key(machine, queue, "WK NEW") == "empty -"
    machine.write(KEYS, f"0x47 WK load 0x{'ab' * 32}\n")
    assert key(machine, queue, "WK NEW") == f"uncommitted 0x{'ab' * 32}"
    assert refused(machine, KEYS, "0x47 WK set") == "EINVAL"
    machine.write(KEYS, "0x47 WK commit\n")
    assert key(machine, queue, "WK NEW") == f"committed 0x{'ab' * 32}"
    machine.write(KEYS, "0x47 WK set\n")
    assert key(machine, queue, "WK CUR") == f"valid 0x{'ab' * 32}"
    machine.write(KEYS, "0x47 WK clear current\n")
    assert key(machine, queue, "WK CUR") == "invalid -"
    copy = Machine("seed", "empty")
    copy.load(machine.save())
    assert copy.read(KEYS) == machine.read(KEYS)
    assert "0047 WK new=empty current=-\n" in machine.read(KEYS)


@pytest.mark.parametrize(
    ("text", "errno"),
    [
        ("", "EINVAL"),
        ("4 AES", "EINVAL"),
        ("4 DES load 0x1", "EINVAL"),
        ("4 AES load 1", "EINVAL"),
        ("4 AES load 0x", "EINVAL"),
        (f"4 AES load 0x1{'0' * 16}", "EINVAL"),
        ("4 AES set", "EINVAL"),
        ("4 AES commit", "EINVAL"),
        ("4 WK part", "EINVAL"),
        ("4 AES clear all", "EINVAL"),
        ("256 AES part", "ENODEV"),
        (f"{1 << 64} AES part", "ERANGE"),
    ],
)
def test_commands_for_keys_are_refused(text: str, errno: str) -> None:
    assert refused(machine_of("6.1"), KEYS, text or "x") == errno


def test_functions_that_no_card_has_are_refused() -> None:
    assert refused(machine_of("6.1"), f"{CONTROL}/new_card", "7 CEX6 cca functions=Q") == "EINVAL"


def test_a_guest_resets_its_device() -> None:
    machine = machine_of("6.1")
    machine.write(f"{BUS}/aqmask", "-4")
    new_mdev(machine, U1, "5", "4")
    guest = new_guest(machine, "g", U1)
    resets = f"{CONTROL}/queues/05.0004/resets"
    before = int(machine.read(resets))
    machine.write(f"{guest}/reset", "1\n")
    assert int(machine.read(resets)) == before + 1
    assert refused(machine, f"{guest}/reset", "2") == "EINVAL"
    machine.write(f"{guest}/detach", "1\n")
    assert refused(machine, f"{guest}/reset", "1") == "ENODEV"


def test_the_count_of_resets_outlives_a_card() -> None:
    machine = machine_of("6.1")
    machine.write(f"{BUS}/aqmask", "-4")
    queue = f"{CONTROL}/queues/05.0004"
    machine.write(f"{CONTROL}/del_card", "5\n")
    assert machine.read(f"{queue}/resets") == "1\n"
    assert refused(machine, f"{queue}/rc", "1") == "ENODEV"
    machine.write(f"{CONTROL}/new_card", "5 CEX5 cca\n")
    assert machine.read(f"{queue}/resets") == "1\n"
