"""Behaviour that is easy to miss in the kernel's source: orders, sequences, stale state."""

from __future__ import annotations

from fakesys.machine.machine import Machine
from tests.files.ap import (
    BUS,
    CONTROL,
    FAULTS,
    MATRIX,
    ROOT,
    TYPE,
    U1,
    U2,
    every_kernel,
    exists,
    free_all,
    machine_of,
    merged_kernels,
    new_guest,
    new_mdev,
    refusal,
    refused,
    uevents,
)

M1 = f"{MATRIX}/{U1}"
CARD = f"{ROOT}/card05"
QUEUE = f"{CARD}/05.0004"


def resets(machine: Machine, *queues: str) -> list[int]:
    return [int(machine.read(f"{CONTROL}/queues/{queue}/resets")) for queue in queues]


def words(machine: Machine, count: int) -> list[str]:
    """The uevents since the first `count` ones: action, name of the device, first extra field."""
    found = []
    for event in uevents(machine)[count:]:
        action, path, _subsystem, *fields = event.split()
        found.append(" ".join((action, path.rpartition("/")[2], *fields[:1])))
    return found


@every_kernel
def test_cards_older_than_cex4_vanish_with_their_support(kernel: str) -> None:
    machine = machine_of(kernel)
    machine.write(f"{CONTROL}/new_card", "9 CEX3 cca")
    assert exists(machine, f"{ROOT}/card09") == (kernel != "6.12")
    machine.write(f"{CONTROL}/new_card", "10 CEX4 cca")
    assert exists(machine, f"{ROOT}/card0a")


@merged_kernels
def test_a_change_of_checkstop_hides_one_of_config_until_the_next_scan(kernel: str) -> None:
    machine = machine_of(kernel)
    machine.write(f"{CONTROL}/queues/05.0004/rc", "4")
    count = len(uevents(machine))
    machine.write(f"{CONTROL}/queues/05.0004/rc", "3")
    # The card follows its first queue, in both respects at once.
    assert words(machine, count) == ["change card05 CONFIG=0"]
    assert machine.read(f"{QUEUE}/chkstop") == machine.read(f"{CARD}/chkstop") == "0\n"
    assert machine.read(f"{QUEUE}/config") == "1\n"
    machine.write(f"{BUS}/scans", "")
    machine.write(f"{BUS}/scans", "1")
    assert machine.read(f"{QUEUE}/config") == machine.read(f"{CARD}/config") == "0\n"
    assert words(machine, count)[1:] == ["change 05.0004 CONFIG=0"]


def test_a_configured_off_card_does_not_show_its_checkstop() -> None:
    machine = machine_of("6.1")
    machine.write(f"{CONTROL}/cards/05/checkstop", "1")
    assert machine.read(f"{CARD}/chkstop") == "1\n"
    machine.write(f"{CONTROL}/cards/05/config", "0")
    assert machine.read(f"{CARD}/config") == machine.read(f"{CARD}/chkstop") == "0\n"
    machine.write(f"{CONTROL}/cards/05/config", "1")
    assert machine.read(f"{CARD}/config") == machine.read(f"{CARD}/chkstop") == "1\n"


@every_kernel
def test_new_domains_or_adapters_alone_complete_the_bindings_again(kernel: str) -> None:
    machine = machine_of(kernel)
    count = len(uevents(machine))
    machine.write(f"{CONTROL}/lpar/adapters", "+9")
    machine.write(f"{CONTROL}/lpar/control_domains", "+9")
    machine.write(f"{CONTROL}/lpar/adapters", "-9")
    assert words(machine, count) == (["change ap BINDINGS=complete"] if kernel == "6.12" else [])


def test_a_loaded_module_is_offered_the_queues_and_nobody_else() -> None:
    machine = machine_of("6.1")
    machine.write(f"{CONTROL}/vfio_ap_loaded", "0")
    machine.write(f"{BUS}/drivers/cex4queue/unbind", "05.0047")
    machine.write(f"{BUS}/drivers/cex4queue/unbind", "05.0004")
    machine.write(f"{BUS}/drivers_probe", "05.0004")
    machine.write(f"{CONTROL}/vfio_ap_loaded", "1")
    assert not exists(machine, f"{CARD}/05.0047/driver")
    assert exists(machine, f"{QUEUE}/online")


@merged_kernels
def test_a_queue_that_leaves_a_guest_takes_its_adapter_along(kernel: str) -> None:
    machine = machine_of(kernel)
    free_all(machine)
    new_mdev(machine, U1, "5 6", "4 0x47 0xab")
    new_guest(machine, "g", U1)
    queues = ("05.0004", "05.0047", "05.00ff", "06.0004")
    before = resets(machine, *queues)
    machine.write(f"{BUS}/drivers/vfio_ap/unbind", "05.0047")
    assert machine.read(f"{M1}/guest_matrix") == "06.0004\n06.0047\n06.00ab\n"
    more = [now - then for now, then in zip(resets(machine, *queues), before, strict=True)]
    # Module and bus reset the queue; 6.12 all that the guest had of the adapter.
    assert more == [1 if kernel == "6.12" else 0, 2, 0, 0]
    # The adapter has left already.
    machine.write(f"{BUS}/drivers/vfio_ap/unbind", "05.0004")
    assert resets(machine, "05.00ab")[0] - before[1] == (1 if kernel == "6.12" else 0)


@merged_kernels
def test_a_whole_card_that_leaves_a_guest_is_reset_queue_by_queue(kernel: str) -> None:
    machine = machine_of(kernel)
    free_all(machine)
    new_mdev(machine, U1, "5", "0x47 0xab")
    new_guest(machine, "g", U1)
    queues = ("05.0004", "05.0047", "05.00ab")
    before = resets(machine, *queues)
    machine.write(f"{BUS}/apmask", "+4")
    machine.write(f"{M1}/unassign_domain", "0x47")
    machine.write(f"{M1}/unassign_domain", "0xab")
    machine.write(f"{BUS}/aqmask", "+0x47,+0xab")
    more = [now - then for now, then in zip(resets(machine, *queues), before, strict=True)]
    assert more == [0, 3, 3]


@merged_kernels
def test_what_the_machine_adds_reaches_the_guest_in_one_go(kernel: str) -> None:
    machine = machine_of(kernel)
    free_all(machine)
    machine.write(f"{CONTROL}/lpar/adapters", "-6")
    machine.write(f"{FAULTS}/queue_reset", "")
    new_mdev(machine, U1, "5 6", "4")
    guest = new_guest(machine, "g", U1)
    assert machine.read(f"{M1}/guest_matrix") == "05.0004\n"
    before = resets(machine, "05.0004")
    machine.write(f"{CONTROL}/lpar/adapters", "+6")
    assert machine.read(f"{M1}/guest_matrix") == "05.0004\n06.0004\n"
    assert machine.read(f"{guest}/apm").startswith("0x06")
    assert resets(machine, "05.0004") == before


@every_kernel
def test_the_log_tells_of_groups_and_parents(kernel: str) -> None:
    machine = machine_of(kernel)
    new_mdev(machine)
    new_mdev(machine, U2)
    machine.write(f"{M1}/remove", "1")
    machine.write(f"{CONTROL}/vfio_ap_loaded", "0")
    driver = "vfio_mdev" if kernel == "v6" else "vfio_ap_mdev"
    assert machine.read(f"{CONTROL}/log").splitlines() == [
        "vfio_ap matrix: MDEV: Registered",
        f"{driver} {U1}: Adding to iommu group 0",
        f"{driver} {U2}: Adding to iommu group 1",
        f"{driver} {U1}: Removing from iommu group 0",
        "vfio_ap matrix: MDEV: Unregistering",
        f"{driver} {U2}: Removing from iommu group 1",
    ]


@merged_kernels
def test_an_unbound_mediated_device_can_only_be_removed(kernel: str) -> None:
    machine = machine_of(kernel)
    free_all(machine)
    driver = "sys/bus/mdev/drivers/vfio_ap_mdev"
    new_mdev(machine, U1, "5", "4")
    guest = new_guest(machine, "g", U1)
    machine.write(f"{CONTROL}/remove_policy", "ebusy")
    for text in ("", U2, U1.replace("-", "_"), f"{U1}\n\n"):
        assert refused(machine, f"{driver}/unbind", f"{text}\n") == "ENODEV"
    assert refused(machine, f"{driver}/unbind", U1) == "EBUSY"
    machine.write(f"{guest}/detach", "1")
    count, before = len(uevents(machine)), resets(machine, "05.0004")[0]
    machine.write(f"{driver}/unbind", f"{U1}\n")
    assert words(machine, count) == ["remove vfio0", "remove 0 MAJOR=253", f"unbind {U1}"]
    assert resets(machine, "05.0004") == [before + 1]
    assert machine.read(f"{QUEUE}/status") == "unassigned\n"
    assert machine.listdir("sys/kernel/iommu_groups") == []
    assert machine.listdir("sys/class/vfio-dev") == []
    assert sorted(machine.listdir(M1)) == ["mdev_type", "remove", "subsystem", "uevent"]
    assert machine.read(f"{M1}/uevent") == ""
    assert machine.read(f"{TYPE}/available_instances") == "65535\n"
    assert not exists(machine, f"{driver}/{U1}")
    # Neither by hand nor by the bus does it get its driver back.
    assert refused(machine, f"{driver}/bind", U1) == "ENODEV"
    assert refused(machine, f"{driver}/bind", U2) == "ENODEV"
    assert refused(machine, f"{driver}/unbind", U1) == "ENODEV"
    machine.write("sys/bus/mdev/drivers_probe", U1)
    assert not exists(machine, f"{M1}/driver")
    assert refused(machine, f"{TYPE}/create", U1) == "EEXIST"
    assert refused(machine, f"{guest}/attach", U1) == "ENODEV"
    machine.write(f"{M1}/remove", "1")
    assert words(machine, count)[3:] == [f"remove {U1}"]
    assert not exists(machine, M1)
    machine.write(f"{TYPE}/create", U1)
    assert exists(machine, f"{M1}/matrix")


def state(machine: Machine, queue: str = QUEUE) -> tuple[str, str, str]:
    """Three texts of a queue, shortened."""
    count, reset, interrupt = (
        machine.read(f"{queue}/{name}") for name in ("request_count", "reset", "interrupt")
    )
    return count[:-1], reset.split()[0], interrupt.split()[-1]


@every_kernel
def test_a_queue_found_for_vfio_ap_stands_at_its_reset(kernel: str) -> None:
    machine = machine_of(kernel)
    machine.write(f"{BUS}/apmask", "-9")
    machine.write(f"{CONTROL}/new_card", "9 CEX6 cca")
    queue = f"{ROOT}/card09/09.0004"
    # 6.12 initiates every queue that it finds, whoever gets it.
    nudged = kernel == "6.12"
    new = ("0", "No", "enabled.") if nudged else ("-", "Reset", "disabled.")
    assert state(machine, queue) == new
    machine.write(f"{BUS}/apmask", "+9")
    assert state(machine, queue) == ("0", "No", "enabled.")
    machine.write(f"{BUS}/apmask", "-9")
    assert state(machine, queue) == ("-", "No", "disabled." if nudged else "enabled.")
    # A reset by hand begins, and nobody goes on with it.
    machine.write(f"{queue}/reset", "1")
    assert machine.read(f"{queue}/reset") == "Reset in progress.\n"
    machine.write(f"{BUS}/apmask", "+9")
    assert state(machine, queue) == ("0", "No", "enabled.")
    machine.write(f"{queue}/reset", "1")
    machine.clock.advance(0.1)
    assert state(machine, queue) == ("0", "No", "enabled.")


@merged_kernels
def test_a_queue_that_comes_back_waits_for_its_first_request(kernel: str) -> None:
    machine = machine_of(kernel)
    machine.write(f"{QUEUE}/request_count", "0")
    for switch, off, on in ("config", "0", "1"), ("checkstop", "1", "0"):
        machine.write(f"{CONTROL}/cards/05/{switch}", off)
        assert state(machine)[1] == "No"
        machine.write(f"{CONTROL}/cards/05/{switch}", on)
        assert state(machine) == ("0", "No" if kernel == "6.12" else "Reset", "enabled.")
        machine.write(f"{CONTROL}/queues/05.0004/submit", "1")
        assert state(machine) == ("1", "No", "enabled.")
        machine.write(f"{QUEUE}/request_count", "0")
    # While it is off, a reset by hand stays at its beginning.
    machine.write(f"{CONTROL}/cards/05/config", "0")
    machine.write(f"{QUEUE}/reset", "1")
    assert state(machine)[1] == "Reset"


@every_kernel
def test_without_interrupts_there_are_none_to_enable(kernel: str) -> None:
    machine = machine_of(kernel)
    # As if the machine had been booted so.
    machine.write(f"{CONTROL}/lpar/interrupts", "0")
    assert state(machine) == ("1", "No", "disabled.")
    machine.write(f"{QUEUE}/reset", "1")
    machine.clock.advance(0.1)
    assert state(machine) == ("1", "No", "disabled.")


def test_interrupts_of_a_guest_show_where_the_queue_is_asked() -> None:
    machine = machine_of("6.12")
    free_all(machine)
    new_mdev(machine, U1, "5", "4")
    guest = new_guest(machine, "g", U1)
    assert state(machine)[2] == "disabled."
    machine.write(f"{guest}/aqic", "05.0004 on 3")
    assert state(machine)[2] == "enabled."
    machine.write(f"{guest}/aqic", "05.0004 off")
    assert state(machine)[2] == "disabled."
    machine.write(f"{guest}/aqic", "05.0004 on 3")
    machine.write(f"{guest}/detach", "1")
    assert state(machine)[2] == "disabled."
    # A card that is gone, and the bus does not know it yet.
    machine.write(f"{guest}/attach", U1)
    machine.write(f"{CONTROL}/autoscan", "0")
    machine.write(f"{guest}/aqic", "05.0004 on 3")
    machine.write(f"{CONTROL}/del_card", "5")
    assert state(machine)[2] == "disabled."
    assert refusal(machine, f"{guest}/aqic", "05.0004 on 3") == "ENODEV"
    assert machine.read(f"{guest}/aqic") == ""
