"""Mediated devices: create, assign, share nothing, filter, hot plug, remove."""

from __future__ import annotations

import pytest

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
    U3,
    complaints,
    every_kernel,
    exists,
    free_all,
    link,
    machine_of,
    merged_kernels,
    new_guest,
    new_mdev,
    refusal,
    refused,
    uevents,
)

M1, M2 = f"{MATRIX}/{U1}", f"{MATRIX}/{U2}"
ASSIGN = ("assign_adapter", "assign_domain")
NUMBERS = (
    *ASSIGN, "unassign_adapter", "unassign_domain", "assign_control_domain",
    "unassign_control_domain",
)  # fmt: skip


def free_machine(kernel: str = "v6") -> Machine:
    machine = machine_of(kernel)
    free_all(machine)
    return machine


def resets(machine: Machine, queue: str) -> int:
    return int(machine.read(f"{CONTROL}/queues/{queue}/resets"))


@pytest.mark.parametrize("text", [U1, f"{U1}\n", f"{U1}x", "A0000000-0000-4000-8000-00000000000F"])
def test_create_accepts(text: str) -> None:
    machine = machine_of()
    machine.write(f"{TYPE}/create", text)
    path = f"{MATRIX}/{text[:36].lower()}"
    assert machine.read(f"{path}/matrix") == ""
    assert machine.read(f"{TYPE}/available_instances") == "65535\n"


@pytest.mark.parametrize(
    "text", [U1[:35], f"{U1}\n\n", U1.replace("-", "0"), f"g{U1[1:]}", f" {U1}", "\n", "{" + U1]
)
def test_create_refuses(text: str) -> None:
    assert refused(machine_of(), f"{TYPE}/create", text) == "EINVAL"


@every_kernel
def test_create_refuses_a_second_one_and_too_many(
    kernel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = machine_of(kernel)
    new_mdev(machine)
    assert refused(machine, f"{TYPE}/create", U1.upper()) == "EEXIST"
    monkeypatch.setattr("fakesys.subsystems.vfio_ap.driver.MAX_INSTANCES", 1)
    assert machine.read(f"{TYPE}/available_instances") == "0\n"
    assert refused(machine, f"{TYPE}/create", U2) == ("EPERM" if kernel == "v6" else "EUSERS")
    assert refused(machine, f"{TYPE}/create", U1) == "EEXIST"


@every_kernel
def test_the_type_reads_so(kernel: str) -> None:
    machine = machine_of(kernel)
    assert machine.read(f"{TYPE}/name") == "VFIO AP Passthrough Device\n"
    assert machine.read(f"{TYPE}/device_api") == "vfio-ap\n"
    assert machine.read(f"{TYPE}/available_instances") == "65536\n"
    assert not exists(machine, f"{TYPE}/description")


@every_kernel
def test_a_device_is_visible_everywhere(kernel: str) -> None:
    machine = machine_of(kernel)
    new_mdev(machine)
    driver = "vfio_mdev" if kernel == "v6" else "vfio_ap_mdev"
    assert link(machine, f"{M1}/driver") == f"../../../../bus/mdev/drivers/{driver}"
    assert link(machine, f"{M1}/subsystem") == "../../../../bus/mdev"
    assert link(machine, f"{M1}/mdev_type") == "../mdev_supported_types/vfio_ap-passthrough"
    assert link(machine, f"{M1}/iommu_group") == "../../../../kernel/iommu_groups/0"
    assert link(machine, f"{TYPE}/devices/{U1}") == f"../../../{U1}"
    assert link(machine, f"sys/bus/mdev/devices/{U1}") == f"../../../devices/vfio_ap/matrix/{U1}"
    assert exists(machine, f"sys/bus/mdev/drivers/{driver}/{U1}")
    assert exists(machine, f"sys/kernel/iommu_groups/0/devices/{U1}")
    assert machine.read(f"{M1}/uevent") == f"DRIVER={driver}\n"
    merged = kernel != "v6"
    assert exists(machine, "sys/kernel/iommu_groups/0/name") == merged
    assert exists(machine, f"{M1}/vfio-dev/vfio0") == merged
    assert exists(machine, "sys/class/vfio-dev/vfio0") == merged
    if merged:
        assert machine.read("sys/kernel/iommu_groups/0/name") == "vfio-noiommu\n"
        assert link(machine, f"{M1}/vfio-dev/vfio0/device") == f"../../../{U1}"
        assert machine.read("sys/kernel/iommu_groups/0/reserved_regions") == ""
        assert refused(machine, "sys/kernel/iommu_groups/0/type", "DMA") == "EINVAL"
    machine.write(f"{M1}/remove", "1")
    for path in (M1, f"{TYPE}/devices/{U1}", f"sys/bus/mdev/devices/{U1}"):
        assert not exists(machine, path)
    assert machine.listdir("sys/kernel/iommu_groups") == []


def test_group_numbers_are_the_smallest_free() -> None:
    machine = machine_of()
    for uuid in (U1, U2, U3):
        new_mdev(machine, uuid)
    machine.write(f"{M1}/remove", "1")
    machine.write(f"{MATRIX}/{U3}/remove", "1")
    new_mdev(machine, U3)
    assert link(machine, f"{MATRIX}/{U3}/iommu_group").endswith("/0")
    assert machine.listdir("sys/kernel/iommu_groups") == ["0", "1"]
    assert not exists(machine, "sys/kernel/iommu_groups/00")


@pytest.mark.parametrize("text", ["x", "", "-1", " 1", str(1 << 64), "1 1"])
def test_remove_refuses(text: str) -> None:
    machine = machine_of()
    new_mdev(machine)
    if text:
        assert refused(machine, f"{M1}/remove", text) == "EINVAL"
    machine.write(f"{M1}/remove", "0")
    assert exists(machine, M1)


@every_kernel
@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_refuse(kernel: str, name: str) -> None:
    machine = free_machine(kernel)
    path = f"{new_mdev(machine)}/{name}"
    for text in ("x", "-1", " 5", "5 ", "5,6", "08", "0x", "5\n\n", "\n"):
        assert refused(machine, path, text) == "EINVAL"
    for text in (str(1 << 64), "0x1" + "0" * 16):
        assert refused(machine, path, text) == "ERANGE"
    for text in ("256", "0xffffffff", str((1 << 64) - 1)):
        assert refused(machine, path, text) == "ENODEV"


@every_kernel
@pytest.mark.parametrize(
    ("text", "number"), [("5", 5), ("+5\n", 5), ("0x5", 5), ("010", 8), ("0XfF", 255)]
)
def test_numbers_accept(kernel: str, text: str, number: int) -> None:
    machine = machine_of(kernel)
    path = new_mdev(machine)
    machine.write(f"{path}/assign_adapter", text)
    assert machine.read(f"{path}/matrix") == f"{number:02x}.\n"
    machine.write(f"{path}/unassign_adapter", text)
    machine.write(f"{path}/unassign_adapter", text)
    machine.write(f"{path}/assign_control_domain", text)
    assert machine.read(f"{path}/control_domains") == f"{number:04x}\n"
    machine.write(f"{path}/assign_domain", text)
    assert machine.read(f"{path}/matrix") == f".{number:04x}\n"


@every_kernel
def test_assign_refuses_queues_of_the_host(kernel: str) -> None:
    machine = machine_of(kernel)
    new_mdev(machine, U1, adapters="5")
    assert refused(machine, f"{M1}/assign_domain", "4") == "EADDRNOTAVAIL"
    machine.write(f"{BUS}/apmask", "-5")
    machine.write(f"{M1}/assign_domain", "4")
    assert refused(machine, f"{M1}/assign_adapter", "6") == "EADDRNOTAVAIL"
    # Masks count, not devices: neither card 8 nor its queue exists.
    assert refused(machine, f"{M1}/assign_adapter", "8") == "EADDRNOTAVAIL"
    machine.write(f"{BUS}/apmask", "-8")
    machine.write(f"{M1}/assign_adapter", "8")
    assert machine.read(f"{M1}/matrix") == "05.0004\n08.0004\n"


@every_kernel
def test_assign_refuses_queues_of_another_device(kernel: str) -> None:
    machine = free_machine(kernel)
    new_mdev(machine, U1, "5 6", "4 0x47")
    new_mdev(machine, U2, "6")
    assert refused(machine, f"{M2}/assign_domain", "4") == "EADDRINUSE"
    machine.write(f"{M2}/assign_domain", "0xab")
    assert refused(machine, f"{M1}/assign_domain", "0xab") == "EADDRINUSE"
    lines = [
        f"vfio_ap_mdev {U2}: Userspace may not assign queue 06.0004 to mdev: "
        f"already assigned to {U1}",
        f"vfio_ap_mdev {U1}: Userspace may not assign queue 06.00ab to mdev: "
        f"already assigned to {U2}",
    ]
    # The series took logging out again.
    assert complaints(machine) == ([] if kernel == "v6" else lines)
    machine.write(f"{M1}/unassign_adapter", "6")
    machine.write(f"{M2}/assign_domain", "4")
    assert machine.read(f"{M2}/matrix") == "06.0004\n06.00ab\n"
    assert refused(machine, f"{M2}/assign_adapter", "5") == "EADDRINUSE"


@every_kernel
def test_a_refusal_names_the_newest_of_two_other_devices(kernel: str) -> None:
    machine = free_machine(kernel)
    new_mdev(machine, U1, "5", "4")
    new_mdev(machine, U2, "6", "4")
    new_mdev(machine, U3, "5 6")
    assert refused(machine, f"{MATRIX}/{U3}/assign_domain", "4") == "EADDRINUSE"
    line = (
        f"vfio_ap_mdev {U3}: Userspace may not assign queue 06.0004 to mdev: "
        f"already assigned to {U2}"
    )
    assert complaints(machine) == ([] if kernel == "v6" else [line])
    assert U2 in machine.read("sys/kernel/debug/fakesys/last_error")


@every_kernel
def test_control_domains_are_shared_freely(kernel: str) -> None:
    machine = machine_of(kernel)
    new_mdev(machine, U1)
    new_mdev(machine, U2)
    for path in (M1, M2):
        machine.write(f"{path}/assign_control_domain", "9")
        machine.write(f"{path}/assign_control_domain", "4")
        machine.write(f"{path}/assign_control_domain", "4")
        assert machine.read(f"{path}/control_domains") == "0004\n0009\n"
    guest = new_guest(machine, "g", U1)
    adm = machine.read(f"{guest}/adm")
    # Domain 9 is not the machine's.
    assert adm.startswith("0x0840" if kernel == "v6" else "0x0800")
    machine.write(f"{M1}/unassign_control_domain", "4")
    machine.write(f"{M1}/unassign_control_domain", "4")
    assert machine.read(f"{guest}/adm").startswith("0x0040" if kernel == "v6" else "0x0000")


@every_kernel
def test_an_adapter_with_an_unbound_queue_is_left_out(kernel: str) -> None:
    machine = free_machine(kernel)
    machine.write(f"{CONTROL}/queues/06.0047/rc", "1")
    new_mdev(machine, U1, "5 6", "4 0x47")
    guest = new_guest(machine, "g", U1)
    assert machine.read(f"{M1}/guest_matrix") == "05.0004\n05.0047\n"
    assert machine.read(f"{guest}/apm").startswith("0x0400")
    machine.write(f"{CONTROL}/queues/06.0047/rc", "0")
    assert machine.read(f"{M1}/guest_matrix") == "05.0004\n05.0047\n06.0004\n06.0047\n"


@every_kernel
def test_half_a_matrix(kernel: str) -> None:
    machine = free_machine(kernel)
    new_mdev(machine, U1, "5")
    new_guest(machine, "g", U1)
    merged = kernel != "v6"
    assert machine.read(f"{M1}/guest_matrix") == ("05.\n" if merged else "")
    machine.write(f"{M1}/assign_domain", "4")
    assert machine.read(f"{M1}/guest_matrix") == "05.0004\n"
    machine.write(f"{M1}/unassign_adapter", "5")
    assert machine.read(f"{M1}/guest_matrix") == ".0004\n"
    machine.write(f"{M1}/assign_adapter", "9")
    assert machine.read(f"{M1}/guest_matrix") == (".0004\n" if merged else "")


@every_kernel
def test_unassign_runs_no_filter(kernel: str) -> None:
    machine = free_machine(kernel)
    machine.write(f"{CONTROL}/queues/06.0047/rc", "1")
    new_mdev(machine, U1, "5 6", "4 0x47")
    new_guest(machine, "g", U1)
    machine.write(f"{M1}/unassign_domain", "0x47")
    # Card 6 was filtered out because of 0x47 and stays out until the next run.
    assert machine.read(f"{M1}/guest_matrix") == "05.0004\n"
    machine.write(f"{M1}/assign_domain", "0xab")
    assert machine.read(f"{M1}/guest_matrix") == "05.0004\n05.00ab\n06.0004\n06.00ab\n"


@every_kernel
def test_assigning_again(kernel: str) -> None:
    machine = free_machine(kernel)
    machine.write(f"{CONTROL}/queues/06.0047/rc", "1")
    new_mdev(machine, U1, "5 6", "4 0x47")
    new_guest(machine, "g", U1)
    machine.write(f"{M1}/unassign_domain", "0x47")
    machine.write(f"{M1}/assign_domain", "4")
    runs_again = kernel == "v6"
    more = "06.0004\n" if runs_again else ""
    assert machine.read(f"{M1}/guest_matrix") == f"05.0004\n{more}"


@every_kernel
def test_guest_matrix_without_a_guest(kernel: str) -> None:
    machine = free_machine(kernel)
    new_mdev(machine, U1, "5", "4")
    if kernel != "v6":
        assert machine.read(f"{M1}/guest_matrix") == "05.0004\n"
        return
    assert refusal(machine, f"{M1}/guest_matrix") == "ENODEV"
    new_guest(machine, "plain", U1, "ap=0")
    assert refusal(machine, f"{M1}/guest_matrix") == "ENODEV"


@every_kernel
def test_a_guest_without_ap_gets_nothing(kernel: str) -> None:
    machine = free_machine(kernel)
    new_mdev(machine, U1, "5", "4")
    machine.write(f"{M1}/assign_control_domain", "4")
    guest = new_guest(machine, "plain", U1, "ap=0")
    zeros = "0x" + "0" * 64 + "\n"
    assert [machine.read(f"{guest}/{name}") for name in ("apm", "aqm", "adm")] == [zeros] * 3
    assert machine.read(f"{guest}/devices") == ""
    assert machine.read(f"{ROOT}/card05/05.0004/status") == "assigned\n"


@every_kernel
def test_remove_with_a_guest_follows_the_policy(kernel: str) -> None:
    machine = free_machine(kernel)
    new_mdev(machine, U1, "5", "4")
    guest = new_guest(machine, "g", U1)
    assert ("[ebusy]" if kernel == "v6" else "[block]") in machine.read(f"{CONTROL}/remove_policy")
    machine.write(f"{CONTROL}/remove_policy", "ebusy")
    assert refused(machine, f"{M1}/remove", "1") == "EBUSY"
    machine.write(f"{CONTROL}/remove_policy", "request")
    machine.write(f"{M1}/remove", "1")
    assert not exists(machine, M1)
    assert machine.read(f"{guest}/mdev") == "-\n"
    machine.write(f"{BUS}/aqmask", "+4")


@merged_kernels
def test_a_removal_waits_for_the_guest(kernel: str) -> None:
    machine = free_machine(kernel)
    new_mdev(machine, U1, "5", "4")
    guest = new_guest(machine, "g", U1)
    # On a mount this write waits until the guest lets go of the device.
    assert refusal(machine, f"{M1}/remove", "1") == "EAGAIN"
    left = ["iommu_group", "vfio-dev"] if kernel == "6.1" else ["iommu_group"]
    assert sorted(machine.listdir(M1)) == left
    assert machine.listdir("sys/bus/mdev/devices") == []
    assert refused(machine, f"{TYPE}/create", U1) == "EEXIST"
    assert refused(machine, f"{BUS}/aqmask", "+4") == "EBUSY"
    copy = Machine("seed")
    copy.load(machine.save())
    for each in (machine, copy):
        each.write(f"{CONTROL}/guests/{guest.rpartition('/')[2]}/detach", "1")
        assert not exists(each, M1)
        assert each.listdir("sys/kernel/iommu_groups") == []
        each.write(f"{BUS}/aqmask", "+4")
    assert uevents(machine) == uevents(copy)


@every_kernel
def test_resets_are_counted(kernel: str) -> None:
    machine = free_machine(kernel)
    new_mdev(machine, U1, "5", "4 0x47")
    guest = new_guest(machine, "g", U1)
    # The host's driver let go of each queue once.
    assert resets(machine, "05.0004") == 1
    machine.write(f"{M1}/unassign_domain", "0x47")
    merged = kernel != "v6"
    assert (resets(machine, "05.0004"), resets(machine, "05.0047")) == (1, 2 if merged else 1)
    machine.write(f"{guest}/detach", "1")
    assert resets(machine, "05.0004") == 2
    machine.write(f"{M1}/remove", "1")
    assert resets(machine, "05.0004") == 3
    machine.write(f"{BUS}/aqmask", "+4")
    # The module resets a queue that it loses, the bus core once more.
    assert resets(machine, "05.0004") == 5


@every_kernel
def test_reset_when_the_filter_drops_an_adapter(kernel: str) -> None:
    machine = free_machine(kernel)
    machine.write(f"{CONTROL}/queues/06.0047/rc", "1")
    new_mdev(machine, U1, "5 6", "4")
    new_guest(machine, "g", U1)
    before = resets(machine, "06.0004")
    machine.write(f"{M1}/assign_domain", "0x47")
    assert machine.read(f"{M1}/guest_matrix") == "05.0004\n05.0047\n"
    assert resets(machine, "06.0004") - before == (1 if kernel == "6.12" else 0)


@merged_kernels
def test_a_failed_reset_keeps_a_queue_from_guests(kernel: str) -> None:
    machine = free_machine(kernel)
    machine.write(f"{FAULTS}/queue_reset", "05.0004 2\n06.0004 3\n")
    assert machine.read(f"{FAULTS}/queue_reset") == "05.0004 0x02\n06.0004 0x03\n"
    new_mdev(machine, U1, "5 6", "4")
    machine.write(f"{M1}/unassign_adapter", "5")
    machine.write(f"{M1}/unassign_adapter", "6")
    machine.write(f"{M1}/assign_adapter", "5")
    machine.write(f"{M1}/assign_adapter", "6")
    # From 6.12 on a deconfigured queue may pass.
    assert machine.read(f"{M1}/guest_matrix") == ("06.0004\n" if kernel == "6.12" else ".0004\n")
    machine.write(f"{FAULTS}/queue_reset", "\n")
    # A guest that comes and goes has all queues reset; the next run of the filter sees it.
    new_guest(machine, "g", U1)
    machine.write(f"{CONTROL}/guests/g/detach", "1")
    machine.write(f"{M1}/unassign_adapter", "5")
    machine.write(f"{M1}/assign_adapter", "5")
    assert machine.read(f"{M1}/guest_matrix") == "05.0004\n06.0004\n"


@every_kernel
def test_faults_refuse_garbage(kernel: str) -> None:
    machine = machine_of(kernel)
    path = f"{FAULTS}/queue_reset"
    for text in ("05.0004", "5.4 1", "05.0004 9", "05.0004 1 1"):
        assert refusal(machine, path, text) == "EINVAL"
    assert refusal(machine, path, f"05.0004 {1 << 64}") == "ERANGE"


@every_kernel
def test_domain_taken_by_the_machine(kernel: str) -> None:
    machine = free_machine(kernel)
    new_mdev(machine, U1, "5", "4 0x47")
    new_guest(machine, "g", U1)
    machine.write(f"{CONTROL}/lpar/domains", "-0x47")
    # v6: each adapter that lost a queue leaves; then: the domain alone leaves.
    assert machine.read(f"{M1}/guest_matrix") == (
        ".0004\n.0047\n" if kernel == "v6" else "05.0004\n"
    )
    machine.write(f"{CONTROL}/lpar/domains", "+0x47")
    assert machine.read(f"{M1}/guest_matrix") == "05.0004\n05.0047\n"


@every_kernel
def test_adapter_taken_by_the_machine(kernel: str) -> None:
    machine = free_machine(kernel)
    new_mdev(machine, U1, "5 6", "4")
    new_guest(machine, "g", U1)
    machine.write(f"{CONTROL}/del_card", "5")
    assert machine.read(f"{M1}/guest_matrix") == "06.0004\n"
    machine.write(f"{CONTROL}/new_card", "5 CEX7 accel")
    assert machine.read(f"{M1}/guest_matrix") == "05.0004\n06.0004\n"
    machine.write(f"{CONTROL}/del_card", "5")
    machine.write(f"{CONTROL}/new_card", "5 CEX3 accel")
    assert machine.read(f"{M1}/guest_matrix") == "06.0004\n"


@every_kernel
def test_control_domain_taken_by_the_machine(kernel: str) -> None:
    machine = free_machine(kernel)
    new_mdev(machine, U1)
    machine.write(f"{M1}/assign_control_domain", "4")
    guest = new_guest(machine, "g", U1)
    machine.write(f"{CONTROL}/lpar/control_domains", "-4")
    assert machine.read(f"{guest}/adm").startswith("0x08" if kernel == "v6" else "0x00")
    machine.write(f"{CONTROL}/lpar/control_domains", "+4")
    assert machine.read(f"{guest}/adm").startswith("0x08")


@merged_kernels
def test_a_queue_unbound_by_hand_leaves_the_guest(kernel: str) -> None:
    machine = free_machine(kernel)
    new_mdev(machine, U1, "5 6", "4")
    new_guest(machine, "g", U1)
    machine.write(f"{BUS}/drivers/vfio_ap/unbind", "05.0004")
    assert machine.read(f"{M1}/guest_matrix") == "06.0004\n"
    machine.write(f"{BUS}/drivers/vfio_ap/unbind", "06.0047")
    assert machine.read(f"{M1}/guest_matrix") == "06.0004\n"
    machine.write(f"{BUS}/drivers/vfio_ap/bind", "05.0004")
    assert machine.read(f"{M1}/guest_matrix") == "05.0004\n06.0004\n"


def test_the_literal_filter_gives_unbound_queues_too() -> None:
    machine = machine_of(scenario="empty")
    machine.write(f"{CONTROL}/lpar/domains", "+0-1")
    for card in ("0", "1"):
        machine.write(f"{CONTROL}/new_card", f"{card} CEX6 cca")
    machine.write(f"{CONTROL}/queues/01.0001/rc", "1")
    machine.write(f"{BUS}/apmask", "0")
    new_mdev(machine, U1, "0 1", "0 1")
    new_guest(machine, "g", U1)
    assert machine.read(f"{M1}/guest_matrix") == "00.0000\n00.0001\n"
    machine.write(f"{CONTROL}/filter", "v6-literal")
    machine.write(f"{M1}/assign_domain", "1")
    assert machine.read(f"{M1}/guest_matrix") == "00.0000\n00.0001\n01.0000\n01.0001\n"
    machine.write(f"{CONTROL}/filter", "adapter")
    machine.write(f"{M1}/assign_domain", "1")
    assert machine.read(f"{M1}/guest_matrix") == "00.0000\n00.0001\n"
    machine.write(f"{CONTROL}/filter", "v6-literal")
    machine.write(f"{CONTROL}/queues/01.0001/rc", "0")
    assert machine.read(f"{M1}/guest_matrix") == "00.0000\n00.0001\n01.0000\n01.0001\n"


def test_the_literal_filter_plugs_whole_rows_or_columns_only() -> None:
    machine = machine_of(scenario="empty")
    machine.write(f"{CONTROL}/lpar/domains", "+0-1")
    machine.write(f"{CONTROL}/filter", "v6-literal")
    machine.write(f"{BUS}/apmask", "0")
    new_mdev(machine, U1, "0 1", "0 1")
    new_guest(machine, "g", U1)
    machine.write(f"{CONTROL}/autoscan", "0")
    machine.write(f"{CONTROL}/new_card", "0 CEX6 cca")
    machine.write(f"{CONTROL}/queues/00.0001/rc", "1")
    machine.write(f"{BUS}/scans", "1")
    assert machine.read(f"{M1}/guest_matrix") == ""
    machine.write(f"{CONTROL}/queues/00.0001/rc", "0")
    machine.write(f"{BUS}/scans", "1")
    assert machine.read(f"{M1}/guest_matrix") == "00.0001\n"
    machine.write(f"{CONTROL}/new_card", "1 CEX6 cca")
    machine.write(f"{CONTROL}/queues/01.0001/rc", "1")
    machine.write(f"{BUS}/scans", "1")
    assert machine.read(f"{M1}/guest_matrix") == "00.0000\n00.0001\n01.0000\n01.0001\n"


def mask(*numbers: int) -> str:
    bits = ["1" if index in numbers else "0" for index in range(256)]
    return f"0x{int(''.join(bits), 2):064x}"


class TestApConfig:
    path = f"{M1}/ap_config"

    @pytest.fixture
    def machine(self) -> Machine:
        machine = free_machine("6.12")
        new_mdev(machine)
        return machine

    def test_reads_three_masks(self, machine: Machine) -> None:
        machine.write(f"{M1}/assign_adapter", "5")
        machine.write(f"{M1}/assign_domain", "4")
        machine.write(f"{M1}/assign_control_domain", "9")
        text = machine.read(self.path)
        assert text == f"{mask(5)},{mask(4)},{mask(9)}\n"
        assert len(text) == 201

    @pytest.mark.parametrize(
        ("text", "matrix"),
        [
            ("0x06,0x08,0\n", "05.0004\n06.0004\n"),
            ("0x06,0x08\n", "05.0004\n06.0004\n"),
            ("0x06\n0x08\n", "05.0004\n06.0004\n"),
            (",,\n", ""),
            (",,", ""),
            ("x04,08,,rubbish\n", "05.0004\n"),
            ("0x04,,\n", "05.\n"),
        ],
    )
    def test_accepts(self, machine: Machine, text: str, matrix: str) -> None:
        machine.write(f"{M1}/assign_adapter", "6")
        machine.write(self.path, text)
        assert machine.read(f"{M1}/matrix") == matrix

    @pytest.mark.parametrize(
        "text", ["0x06,0x08", "0x06\n", "\n", "0x06,0xg,0\n", "-5,-6,-7\n", "0x" + "0" * 65 + ",,"]
    )
    def test_refuses(self, machine: Machine, text: str) -> None:
        assert refused(machine, self.path, text) == "EINVAL"

    def test_looks_at_owners_before_the_maximum(self, machine: Machine) -> None:
        machine.write(f"{CONTROL}/lpar/max_adapter_id", "100")
        machine.write(f"{M1}/remove", "1")
        new_mdev(machine, U1)
        new_mdev(machine, U2, "6", "4")
        assert refused(machine, self.path, f"{mask(200)},{mask(5)},\n") == "EADDRNOTAVAIL"
        assert refused(machine, self.path, f"{mask(6, 200)},{mask(4)},\n") == "EADDRINUSE"
        assert refused(machine, self.path, f"{mask(200)},{mask(4)},\n") == "ENODEV"
        assert refused(machine, self.path, f"{mask(5)},{mask(5)},\n") == "EADDRNOTAVAIL"

    def test_changes_a_running_guest_at_once(self, machine: Machine) -> None:
        machine.write(self.path, f"{mask(5)},{mask(4)},{mask(4)}\n")
        guest = new_guest(machine, "g", U1)
        before = resets(machine, "05.0004")
        machine.write(self.path, f"{mask(6)},{mask(0x47)},{mask(0x47)}\n")
        assert machine.read(f"{M1}/guest_matrix") == "06.0047\n"
        assert machine.read(f"{guest}/adm") == f"{mask(0x47)}\n"
        assert resets(machine, "05.0004") == before + 1


@every_kernel
def test_uevents_of_a_device(kernel: str) -> None:
    machine = machine_of(kernel)
    count = len(uevents(machine))
    new_mdev(machine)
    machine.write(f"{M1}/remove", "1")
    path = f"/devices/vfio_ap/matrix/{U1} SUBSYSTEM=mdev"
    driver = "vfio_mdev" if kernel == "v6" else "vfio_ap_mdev"
    vfio = f"/devices/vfio_ap/matrix/{U1}/vfio-dev/vfio0 SUBSYSTEM=vfio-dev"
    group = "/devices/virtual/vfio/0 SUBSYSTEM=vfio MAJOR=253 MINOR=0 DEVNAME=vfio/0"
    merged = kernel != "v6"
    assert uevents(machine)[count:] == [
        f"add {path}",
        f"add {group}",
        *([f"add {vfio}"] if merged else []),
        f"bind {path} DRIVER={driver}",
        *([f"remove {vfio}"] if merged else []),
        f"remove {group}",
        f"unbind {path}",
        f"remove {path}",
    ]


def test_a_matrix_of_all_queues_is_complete() -> None:
    machine = machine_of(scenario="full")
    machine.write(f"{BUS}/apmask", "0")
    path = new_mdev(machine)
    mdev = machine.subsystems.ap.system.vfio_ap.mdevs[U1]
    for number in range(256):
        mdev.assign_adapter(number)
        mdev.assign_domain(number)
    text = machine.read(f"{path}/matrix")
    assert len(text) == 524288
    assert (text[:8], text[-8:]) == ("00.0000\n", "ff.00ff\n")
    new_guest(machine, "g", U1)
    assert machine.read(f"{path}/guest_matrix") == text
