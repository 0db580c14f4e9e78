"""What differs between the kernels, row by row, where no other test of this folder says it."""

from __future__ import annotations

import pytest

from fakesys.machine.machine import Machine
from tests.files.ap import (
    BUS,
    CONTROL,
    KERNELS,
    MATRIX,
    ROOT,
    TYPE,
    U1,
    every_kernel,
    exists,
    free_all,
    machine_of,
    new_guest,
    new_mdev,
    tree,
)

M1 = f"{MATRIX}/{U1}"

# Files of some kernels only.
PRESENCE = {
    f"{BUS}/features": {"6.12"},
    f"{BUS}/drivers/vfio_ap/bind": {"6.1", "6.12"},
    f"{BUS}/drivers/vfio_ap/unbind": {"6.1", "6.12"},
    f"{MATRIX}/features": {"6.12"},
    f"{ROOT}/card05/05.0004/ap_functions": {"6.12"},
    f"{M1}/ap_config": {"6.12"},
    f"{M1}/vfio-dev": {"6.1", "6.12"},
    "sys/bus/mdev/drivers/vfio_ap_mdev/bind": {"6.1", "6.12"},
    "sys/bus/mdev/drivers/vfio_ap_mdev/module": {"6.1", "6.12"},
    "sys/module/vfio_ap/drivers/mdev:vfio_ap_mdev": {"6.1", "6.12"},
    "sys/module/ap/parameters/msgpool_min_items": {"6.12"},
    "sys/module/vfio_ap/version": {"v6"},
    "sys/bus/mdev/drivers/vfio_mdev": {"v6"},
    "sys/bus/mdev/drivers/vfio_ap_mdev": {"6.1", "6.12"},
    "sys/class/vfio-dev": {"6.1", "6.12"},
}
# Files of every kernel, the newer ones among the bus attributes too.
ALWAYS = (
    f"{BUS}/scans", f"{BUS}/bindings", f"{ROOT}/card05/config", f"{ROOT}/card05/chkstop",
    f"{ROOT}/card05/max_msg_size", "sys/kernel/iommu_groups", "sys/class/mdev_bus",
    "sys/bus/mdev/devices", "sys/bus/mdev/drivers", f"{M1}/guest_matrix", f"{M1}/remove",
)  # fmt: skip
NEVER = (f"{BUS}/drivers/cex2a", f"{ROOT}/card05/05.0004/se_bind", f"{TYPE}/description",
         "sys/bus/matrix/drivers/vfio_ap/bind", f"{ROOT}/card05/05.0004/states")  # fmt: skip


@every_kernel
def test_files_are_there_in_their_kernels(kernel: str) -> None:
    machine = machine_of(kernel)
    new_mdev(machine)
    for path, kernels in PRESENCE.items():
        assert exists(machine, path) == (kernel in kernels), path
    for path in ALWAYS:
        assert exists(machine, path), path
    for path in NEVER:
        assert not exists(machine, path), path


@every_kernel
def test_texts_of_the_module(kernel: str) -> None:
    machine = machine_of(kernel)
    assert machine.read("sys/module/vfio_ap/initstate") == "live\n"
    assert machine.read("sys/module/vfio_ap/refcnt") == "0\n"
    assert machine.read("sys/module/vfio_ap/taint") == "\n"
    assert int(machine.read("sys/module/vfio_ap/coresize")) > 0
    assert machine.listdir("sys/module/vfio_ap/holders") == []
    if kernel == "v6":
        assert machine.read("sys/module/vfio_ap/version") == "1.2.0\n"
    if kernel == "6.12":
        assert machine.read(f"{MATRIX}/features") == "guest_matrix hotplug ap_config\n"


@every_kernel
def test_attach_runs_the_filter_or_not(kernel: str) -> None:
    machine = machine_of(kernel)
    free_all(machine)
    machine.write(f"{CONTROL}/queues/06.0047/rc", "1")
    new_mdev(machine, U1, "5 6", "4 0x47")
    machine.write(f"{M1}/unassign_domain", "0x47")
    new_guest(machine, "g", U1)
    ran = kernel == "v6"
    assert machine.read(f"{M1}/guest_matrix") == "05.0004\n" + ("06.0004\n" if ran else "")


@every_kernel
def test_detach_keeps_the_guests_share(kernel: str) -> None:
    machine = machine_of(kernel)
    free_all(machine)
    new_mdev(machine, U1, "5", "4")
    guest = new_guest(machine, "g", U1)
    machine.write(f"{guest}/detach", "1")
    masks = machine.subsystems.ap.system.vfio_ap.mdevs[U1].guest_masks
    assert (masks.apm, masks.aqm) == (1 << 5, 1 << 4)


@every_kernel
def test_lpar_additions_reach_an_unattended_device(kernel: str) -> None:
    machine = machine_of(kernel)
    free_all(machine)
    new_mdev(machine, U1, "5 7", "4")
    machine.write(f"{CONTROL}/new_card", "7 CEX6 cca")
    masks = machine.subsystems.ap.system.vfio_ap.mdevs[U1].guest_masks
    # Without a guest nothing is done there; a guest that attaches has it filtered anyway.
    assert masks.apm == (1 << 5 if kernel == "v6" else 1 << 5 | 1 << 7)
    new_guest(machine, "g", U1)
    assert machine.read(f"{M1}/guest_matrix") == "05.0004\n07.0004\n"


@every_kernel
def test_config_off_and_a_guest(kernel: str) -> None:
    machine = machine_of(kernel)
    free_all(machine)
    new_mdev(machine, U1, "5 6", "4")
    guest = new_guest(machine, "g", U1)
    machine.write(f"{CONTROL}/cards/05/config", "0")
    gone = kernel == "v6"
    assert machine.read(f"{M1}/guest_matrix") == ("" if gone else "05.0004\n") + "06.0004\n"
    assert machine.read(f"{guest}/devices").startswith("06 ")
    machine.write(f"{CONTROL}/cards/05/config", "1")
    assert machine.read(f"{M1}/guest_matrix") == "05.0004\n06.0004\n"


@every_kernel
def test_checkstop_leaves_the_guests_share(kernel: str) -> None:
    machine = machine_of(kernel)
    free_all(machine)
    new_mdev(machine, U1, "5", "4")
    guest = new_guest(machine, "g", U1)
    machine.write(f"{CONTROL}/cards/05/checkstop", "1")
    assert machine.read(f"{M1}/guest_matrix") == "05.0004\n"
    assert machine.read(f"{guest}/devices") == ""


def listing(machine: Machine) -> list[str]:
    """Every file, mode and link of the AP part, devices of one card and one mdev only."""
    machine.write(f"{CONTROL}/lpar/domains", "0x08")
    machine.write(f"{CONTROL}/del_card", "4")
    machine.write(f"{CONTROL}/del_card", "6")
    machine.write(f"{BUS}/drivers/cex4queue/unbind", "05.0004")
    machine.write(f"{BUS}/drivers_probe", "05.0004")
    new_mdev(machine)
    new_guest(machine, "g")
    roots = (BUS, ROOT, "sys/devices/vfio_ap", "sys/bus/matrix", "sys/bus/mdev",
             "sys/class/mdev_bus", "sys/kernel/iommu_groups", "sys/module/ap",
             "sys/module/vfio_ap", CONTROL)  # fmt: skip
    return [line for root in roots for line in tree(machine, root) if "/power/" not in line]


@pytest.mark.parametrize("kernel", KERNELS)
def test_listing(kernel: str, request: pytest.FixtureRequest) -> None:
    golden = request.path.parent / "golden" / f"ap_{kernel}.txt"
    text = "".join(f"{line}\n" for line in listing(machine_of(kernel)))
    if request.config.getoption("--regen"):
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(text)
    assert text == golden.read_text()
