"""The series that made vfio_ap dynamic: what each patch cures, without it and with it."""

from __future__ import annotations

import pytest

from fakesys.machine.kernels.ap import AP_KERNELS
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
    complaints,
    exists,
    free_all,
    link,
    machine_of,
    new_guest,
    new_mdev,
    refusal,
    refused,
)

M1, M2 = f"{MATRIX}/{U1}", f"{MATRIX}/{U2}"
SHARED = f"{CONTROL}/shared_queues"
LEVELS = tuple(AP_KERNELS.series.levels())
UP_TO = {patch: LEVELS[:patch] for patch in range(1, 11)}
FROM = {patch: (*LEVELS[patch:], "v6") for patch in range(1, 11)}
EMPTY = "0x" + "0" * 64 + "\n"

every_level = pytest.mark.parametrize("level", [*LEVELS, "v6"])


def level_of(level: str) -> Machine:
    """A machine of this level, whose queues are all for guests."""
    machine = machine_of()
    machine.write(f"{CONTROL}/profile", level)
    free_all(machine)
    return machine


def with_guest(level: str) -> Machine:
    """Cards 5 and 6 with domains 4 and 0xab are guest1's."""
    machine = level_of(level)
    new_mdev(machine, U1, "5 6", "4 0xab")
    new_guest(machine, "guest1", U1)
    return machine


def copied(machine: Machine) -> Machine:
    """A machine that has loaded a snapshot of this one."""
    copy = Machine("seed")
    copy.load(machine.save())
    return copy


def masks(machine: Machine, guest: str) -> tuple[str, str]:
    """The first digits of the guest's adapters and domains."""
    path = f"{CONTROL}/guests/{guest}"
    return machine.read(f"{path}/apm")[:6], machine.read(f"{path}/aqm")[:6]


# Patch 01: probe and remove move, and resets are tried more often.


@pytest.mark.parametrize(("level", "tries"), [("5.3", 2), ("v6-01", 6), ("v6-10-01-06", 2)])
def test_a_busy_queue_is_reset_again(level: str, tries: int) -> None:
    machine = with_guest(level)
    before = int(machine.read(f"{CONTROL}/queues/05.0004/attempts"))
    resets = machine.read(f"{CONTROL}/queues/05.0004/resets")
    machine.write(f"{FAULTS}/queue_reset", "05.0004 0x05\n")
    machine.write(f"{CONTROL}/guests/guest1/detach", "1")
    assert int(machine.read(f"{CONTROL}/queues/05.0004/attempts")) == before + tries
    assert machine.read(f"{CONTROL}/queues/05.0004/resets") == resets
    assert copied(machine).read(f"{CONTROL}/queues/05.0004/attempts") == str(before + tries) + "\n"


@pytest.mark.parametrize(
    ("answer", "before", "after"),
    [(1, "EIO", "EIO"), (2, "EBUSY", "EBUSY"), (3, "EIO", "ENODEV"), (4, "EIO", "EIO"),
     (5, "EBUSY", "EBUSY")],
)  # fmt: skip
def test_a_user_hears_of_a_reset_that_fails(answer: int, before: str, after: str) -> None:
    for level, errno in (("5.3", before), ("v6-01", after), ("v6", after), ("v6-10-01-06", before)):
        machine = with_guest(level)
        machine.write(f"{FAULTS}/queue_reset", f"06.00ab {answer}\n")
        assert refusal(machine, f"{CONTROL}/guests/guest1/reset", "1") == errno
        # No other write fails by it.
        machine.write(f"{CONTROL}/guests/guest1/detach", "1")


def test_the_last_queue_that_fails_is_told() -> None:
    machine = with_guest("v6")
    machine.write(f"{FAULTS}/queue_reset", "05.0004 5\n05.00ab 3\n06.0004 1\n")
    assert refusal(machine, f"{CONTROL}/guests/guest1/reset", "1") == "EIO"


@pytest.mark.parametrize(("level", "lines"), [("5.3", 0), ("v6-01", 1), ("v6", 1), ("6.1", 0)])
def test_a_queue_that_never_is_empty_is_logged(level: str, lines: int) -> None:
    machine = with_guest(level)
    machine.write(f"{CONTROL}/queues/05.0004/rc", "4")
    machine.write(f"{FAULTS}/queue_reset", "05.0004 0\n")
    machine.write(f"{CONTROL}/guests/guest1/detach", "1")
    line = "vfio_ap_mdev_wait_for_qempty: tapq response 04 waiting for queue 05.0004 empty"
    assert complaints(machine) == [line] * lines
    assert (line in machine.read(f"{CONTROL}/log")) == bool(lines)


@pytest.mark.parametrize(("level", "more"), [("5.3", 1), ("v6", 1), ("6.1", 0)])
def test_detach_resets_unbound_queues_too(level: str, more: int) -> None:
    machine = with_guest(level)
    machine.write(f"{BUS}/drivers_autoprobe", "0")
    machine.write(f"{CONTROL}/del_card", "5")
    machine.write(f"{CONTROL}/new_card", "5 CEX5 cca")
    assert not exists(machine, f"{BUS}/devices/05.0004/driver")
    before = int(machine.read(f"{CONTROL}/queues/05.0004/resets"))
    machine.write(f"{CONTROL}/guests/guest1/detach", "1")
    assert int(machine.read(f"{CONTROL}/queues/05.0004/resets")) == before + more


# Patch 02: what is not there may be assigned.


@pytest.mark.parametrize("level", [*UP_TO[2], "v6-10-02-08"])
def test_a_queue_must_be_bound_to_be_assigned(level: str) -> None:
    machine = level_of(level)
    new_mdev(machine, U1)
    assert refused(machine, f"{M1}/assign_adapter", "7") == "EADDRNOTAVAIL"
    assert refused(machine, f"{M1}/assign_domain", "8") == "EADDRNOTAVAIL"
    machine.write(f"{M1}/assign_domain", "4")
    machine.write(f"{BUS}/drivers/vfio_ap/unbind", "05.0004\n")
    assert refused(machine, f"{M1}/assign_adapter", "5") == "EADDRNOTAVAIL"
    machine.write(f"{M1}/assign_adapter", "6")
    assert machine.read(f"{M1}/matrix") == "06.0004\n"
    # Pairs without the new number are not looked at again.
    machine.write(f"{BUS}/drivers/vfio_ap/unbind", "06.0004\n")
    machine.write(f"{M1}/assign_domain", "0xab")
    assert refused(machine, f"{M1}/assign_domain", "4") == "EADDRNOTAVAIL"
    machine.write(f"{BUS}/drivers/vfio_ap/bind", "06.0004\n")
    machine.write(f"{M1}/assign_domain", "4")


@pytest.mark.parametrize("level", FROM[2])
def test_what_is_not_there_may_be_assigned(level: str) -> None:
    machine = level_of(level)
    machine.write(f"{BUS}/aqmask", "-8")
    new_mdev(machine, U1, "7 6", "4 8")
    assert machine.read(f"{M1}/matrix") == "06.0004\n06.0008\n07.0004\n07.0008\n"
    assert refused(machine, f"{M1}/assign_domain", "10") == "EADDRNOTAVAIL"


# Patch 03: hot plug.


@pytest.mark.parametrize("level", [*UP_TO[3], "v6-10-03"])
@pytest.mark.parametrize("ap", ["ap=1", "ap=0"])
def test_a_guest_makes_the_device_busy(level: str, ap: str) -> None:
    machine = level_of(level)
    new_mdev(machine, U1, "5 6", "4 0xab")
    new_guest(machine, "guest1", U1, ap)
    for what in ("adapter", "domain", "control_domain"):
        # The guest comes before the text.
        for text in ("4", "x", "99999999999999999999", "256"):
            assert refused(machine, f"{M1}/assign_{what}", text) == "EBUSY"
            assert refused(machine, f"{M1}/unassign_{what}", text) == "EBUSY"
    machine.write(f"{CONTROL}/guests/guest1/detach", "1")
    machine.write(f"{M1}/unassign_domain", "4")
    assert refused(machine, f"{M1}/assign_domain", "x") == "EINVAL"


@pytest.mark.parametrize("level", FROM[3])
def test_a_running_guest_makes_nothing_busy(level: str) -> None:
    machine = with_guest(level)
    before = masks(machine, "guest1")
    machine.write(f"{M1}/unassign_domain", "0xab")
    machine.write(f"{M1}/assign_control_domain", "4")
    assert refused(machine, f"{M1}/assign_domain", "x") == "EINVAL"
    # The guest sees it with patch 04 only.
    assert (masks(machine, "guest1") == before) == (level == "v6-03") or level != "v6-03"
    adm = machine.read(f"{CONTROL}/guests/guest1/adm")
    assert (adm == EMPTY) == (level == "v6-03")


def test_two_guests_share_what_was_unassigned() -> None:
    machine = with_guest("v6-03")
    machine.write(f"{M1}/unassign_domain", "0xab")
    new_mdev(machine, U2, "5", "0xab")
    assert machine.read(SHARED) == ""
    new_guest(machine, "guest2", U2)
    assert machine.read(SHARED) == "05.00ab guest1 guest2\n"
    assert machine.read(f"{ROOT}/card05/05.00ab/status") == "in use\n"
    assert "05.00ab" in machine.read(f"{CONTROL}/guests/guest1/devices")
    assert "05.00ab" in machine.read(f"{CONTROL}/guests/guest2/devices")
    copy = copied(machine)
    assert copy.read(SHARED) == machine.read(SHARED)
    machine.write(f"{CONTROL}/guests/guest1/detach", "1")
    assert machine.read(SHARED) == ""
    machine.write(f"{CONTROL}/guests/guest1/attach", U1)
    assert machine.read(SHARED) == ""


# Patch 04: the filter.


@pytest.mark.parametrize("level", [*LEVELS, "v6-10-04-05-06"])
def test_a_guest_gets_what_is_bound(level: str) -> None:
    machine = level_of(level)
    filtered = level in FROM[4] and level != "v6-10-04-05-06"
    new_mdev(machine, U1, "5", "4")
    if level in UP_TO[2]:
        machine.write(f"{M1}/assign_adapter", "6")
        machine.write(f"{BUS}/drivers/vfio_ap/unbind", "06.0004\n")
        missing = 0x02
    else:
        # Type CEX3: the driver does not take it.
        machine.write(f"{CONTROL}/new_card", "7 CEX3 cca")
        machine.write(f"{M1}/assign_adapter", "7")
        missing = 0x01
    new_guest(machine, "guest1", U1)
    assert masks(machine, "guest1")[0] == f"0x{4 | (0 if filtered else missing):02x}00"


@pytest.mark.parametrize("level", FROM[4])
def test_hot_plug_reaches_the_guest(level: str) -> None:
    machine = with_guest(level)
    assert masks(machine, "guest1") == ("0x0600", "0x0800")
    machine.write(f"{M1}/unassign_adapter", "6")
    machine.write(f"{M1}/unassign_domain", "4")
    assert masks(machine, "guest1") == ("0x0400", "0x0000")
    machine.write(f"{M1}/assign_adapter", "4")
    assert masks(machine, "guest1") == ("0x0c00", "0x0000")


# Patch 05: guest_matrix.


@every_level
def test_guest_matrix(level: str) -> None:
    machine = level_of(level)
    new_mdev(machine, U1, "5", "4")
    assert exists(machine, f"{M1}/guest_matrix") == (level in FROM[5])
    if level in FROM[5]:
        assert refusal(machine, f"{M1}/guest_matrix") == "ENODEV"
        new_guest(machine, "guest1", U1)
        assert machine.read(f"{M1}/guest_matrix") == "05.0004\n"


def test_guest_matrix_can_be_left_out() -> None:
    machine = level_of("v6-10-05")
    new_mdev(machine, U1, "5", "4")
    assert not exists(machine, f"{M1}/guest_matrix")
    assert exists(machine, "sys/module/vfio_ap/version")


# Patch 06: the driver's probe and remove act on the guest.


@pytest.mark.parametrize("level", [*UP_TO[6], "v6-10-06-08"])
def test_a_mask_write_takes_queues_from_a_guest_without_a_word(level: str) -> None:
    machine = with_guest(level)
    assert machine.read(SHARED) == ""
    machine.write(f"{BUS}/aqmask", "+4")
    assert link(machine, f"{BUS}/devices/05.0004").endswith("card05/05.0004")
    assert link(machine, f"{ROOT}/card05/05.0004/driver").endswith("cex4queue")
    assert "05.0004" in machine.read(f"{CONTROL}/guests/guest1/devices")
    assert machine.read(SHARED) == "05.0004 guest1 cex4queue\n06.0004 guest1 cex4queue\n"
    machine.write(f"{CONTROL}/queues/05.0004/submit", "1")
    assert machine.read(f"{M1}/matrix") == "05.0004\n05.00ab\n06.0004\n06.00ab\n"
    assert complaints(machine) == []
    # The interrupt is off, and the driver no longer has the queue to turn it on again.
    aqic = f"{CONTROL}/guests/guest1/aqic"
    assert refusal(machine, aqic, "05.0004 on 3") == "ENODEV"
    assert copied(machine).read(SHARED) == machine.read(SHARED)
    machine.write(f"{BUS}/aqmask", "-4")
    assert machine.read(SHARED) == ""


@pytest.mark.parametrize("level", ["v6-06", "v6-07", "v6-10-08"])
def test_a_mask_write_steals_adapters_from_a_guest(level: str) -> None:
    machine = with_guest(level)
    machine.write(f"{BUS}/aqmask", "+4")
    assert machine.read(SHARED) == ""
    assert masks(machine, "guest1") == ("0x0000", "0x0800")
    assert machine.read(f"{M1}/guest_matrix") == ".0004\n.00ab\n"


@pytest.mark.parametrize("level", ["v6-06", "v6-07"])
def test_the_filter_as_posted_still_shares(level: str) -> None:
    machine = level_of(level)
    machine.write(f"{BUS}/apmask", "-5,-6")
    machine.write(f"{CONTROL}/filter", "v6-literal")
    new_mdev(machine, U1, "5 6", "4 0x47")
    new_guest(machine, "guest1", U1)
    machine.write(f"{BUS}/aqmask", "+4")
    machine.write(f"{BUS}/apmask", "+5")
    machine.write(f"{M1}/unassign_adapter", "4")
    new_mdev(machine, U2)
    machine.write(f"{M1}/assign_control_domain", "4")
    machine.write(f"{M1}/assign_domain", "0x47")
    assert machine.read(SHARED) == "05.0004 guest1 cex4queue\n"


@every_level
def test_a_card_that_comes_later_is_plugged(level: str) -> None:
    machine = with_guest(level)
    machine.write(f"{CONTROL}/del_card", "5")
    gone = "0x0200" if level in FROM[6] else "0x0600"
    assert masks(machine, "guest1")[0] == gone
    assert "05 " not in machine.read(f"{CONTROL}/guests/guest1/devices")
    machine.write(f"{CONTROL}/new_card", "5 CEX5 cca")
    # Without the patch the hardware gives it back, as its bit was never taken.
    assert masks(machine, "guest1")[0] == "0x0600"
    assert "05.0004" in machine.read(f"{CONTROL}/guests/guest1/devices")


@pytest.mark.parametrize(("level", "plugged"), [("v6-05", False), ("v6-06", True),
                                                ("v6-10-06", False), ("v6", True)])  # fmt: skip
def test_a_new_card_reaches_the_guest(level: str, plugged: bool) -> None:
    machine = with_guest(level)
    machine.write(f"{M1}/assign_adapter", "7")
    machine.write(f"{CONTROL}/new_card", "7 CEX6 cca")
    assert ("07.0004" in machine.read(f"{CONTROL}/guests/guest1/devices")) == plugged
    # The next assignment runs the filter.
    machine.write(f"{M1}/assign_domain", "4")
    assert "07.0004" in machine.read(f"{CONTROL}/guests/guest1/devices")


# Patches 07 and 08: the veto.


@pytest.mark.parametrize("level", ["v6-07", "v6-10-08", "v6-10-07-08"])
def test_without_the_veto_the_host_gets_the_queue(level: str) -> None:
    machine = with_guest(level)
    machine.write(f"{BUS}/aqmask", "+4")
    assert link(machine, f"{ROOT}/card05/05.0004/driver").endswith("cex4queue")
    assert exists(machine, f"{BUS}/drivers/vfio_ap/bind")


@pytest.mark.parametrize("level", FROM[8])
def test_with_the_veto_nothing_changes(level: str) -> None:
    machine = with_guest(level)
    assert refused(machine, f"{BUS}/aqmask", "+4") == "EADDRINUSE"
    assert masks(machine, "guest1") == ("0x0600", "0x0800")
    assert machine.read(SHARED) == ""
    assert complaints(machine) == []
    assert not exists(machine, f"{BUS}/drivers/vfio_ap/unbind")


@pytest.mark.parametrize("level", UP_TO[8])
def test_bind_and_unbind_of_vfio_ap(level: str) -> None:
    machine = with_guest(level)
    driver = f"{BUS}/drivers/vfio_ap"
    assert refused(machine, f"{driver}/bind", "05.0004\n") == "ENODEV"
    machine.write(f"{driver}/unbind", "05.0004\n")
    assert not exists(machine, f"{ROOT}/card05/05.0004/driver")
    assert machine.read(SHARED) == ""
    inside = "05.0004" in machine.read(f"{CONTROL}/guests/guest1/devices")
    assert inside == (level in UP_TO[6])
    machine.write(f"{driver}/bind", "05.0004\n")
    assert refused(machine, f"{BUS}/drivers/cex4queue/bind", "05.0004\n") == "ENODEV"


# Patches 09 and 10: the version, and a page.


@every_level
def test_the_version(level: str) -> None:
    assert exists(level_of(level), "sys/module/vfio_ap/version") == (level in FROM[9])


def test_the_last_patch_is_a_page_only() -> None:
    whole, without = AP_KERNELS["v6-10"], AP_KERNELS["v6-10-10"]
    for kernel in (without, AP_KERNELS["v6"], AP_KERNELS["v6-09"]):
        assert (kernel.features, kernel.bus) == (whole.features, whole.bus)
        assert (kernel.mdev, kernel.vfio_ap) == (whole.mdev, whole.vfio_ap)


# Names.


@pytest.mark.parametrize(
    ("name", "other"),
    [("v6-10-01", "06"), ("v6-10-02", "08"), ("v6-10-04", "05, 06"), ("v6-10-07", "08")],
)
def test_a_patch_that_another_one_needs(name: str, other: str) -> None:
    machine = machine_of()
    assert refused(machine, f"{CONTROL}/profile", name) == "EINVAL"
    last = machine.read("sys/kernel/debug/fakesys/last_error")
    assert f"patch {name[-2:]} of v6 is needed by" in last
    assert f" {other}: " in last
    assert "[v6]" in machine.read(f"{CONTROL}/profile")


@pytest.mark.parametrize("name", ["v6-00", "v6-11", "v6-1", "v6-", "v6-03-04", "v6-03-02-02",
                                  "v6-10-", "v6--03", "5.3-01", "v3-01"])  # fmt: skip
def test_no_such_level(name: str) -> None:
    assert refused(machine_of(), f"{CONTROL}/profile", name) == "EINVAL"


def test_a_kernel_without_a_patch_is_shown_and_saved() -> None:
    machine = machine_of()
    machine.write(f"{CONTROL}/profile", "v6-10-01-06")
    assert machine.read(f"{CONTROL}/profile").endswith(" v6 6.1 6.12 [v6-10-01-06]\n")
    copy = copied(machine)
    assert copy.read(f"{CONTROL}/profile") == machine.read(f"{CONTROL}/profile")
    machine.write(f"{CONTROL}/profile", "v6")
    assert "[v6]" in machine.read(f"{CONTROL}/profile")


# The worst of it, in one table: who can share a queue, and by what.


def ways_to_share(level: str) -> set[str]:
    """What leads to a shared queue."""
    found = set()
    machine = with_guest(level)
    refusal(machine, f"{BUS}/aqmask", "+4")
    found |= {"mask write"} if machine.read(SHARED) else set()
    machine = level_of(level)
    new_mdev(machine, U1, "5", "4")
    refusal(machine, f"{BUS}/aqmask", "+4")
    new_guest(machine, "guest1", U1)
    found |= {"attach"} if machine.read(SHARED) else set()
    machine = with_guest(level)
    refusal(machine, f"{M1}/unassign_domain", "0xab")
    machine.write(f"{TYPE}/create", U2)
    refusal(machine, f"{M2}/assign_domain", "0xab")
    refusal(machine, f"{M2}/assign_adapter", "5")
    new_guest(machine, "guest2", U2)
    found |= {"two guests"} if machine.read(SHARED) else set()
    return found


@pytest.mark.parametrize("level", [*LEVELS, "v6", "6.1", "6.12", "v6-10-03", "v6-10-06"])
def test_the_ways_to_share_a_queue(level: str) -> None:
    expected = {
        "5.3": {"mask write", "attach"},
        "v6-01": {"mask write", "attach"},
        "v6-02": {"mask write", "attach"},
        "v6-03": {"mask write", "attach", "two guests"},
        "v6-04": {"mask write"},
        "v6-05": {"mask write"},
    }
    assert ways_to_share(level) == expected.get(level, set())


@every_level
def test_a_level_keeps_its_state_in_a_snapshot(level: str) -> None:
    machine = with_guest(level)
    refusal(machine, f"{BUS}/aqmask", "+4")
    refusal(machine, f"{M1}/unassign_domain", "0xab")
    copy = copied(machine)
    assert copy.state() == machine.state()
    assert copy.read(SHARED) == machine.read(SHARED)
