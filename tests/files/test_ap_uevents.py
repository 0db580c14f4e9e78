"""Sequences of uevents, word for word, and what of them differs between kernels."""

from __future__ import annotations

from fakesys.core.events import Uevent, UeventBatch
from fakesys.machine.machine import Machine
from tests.files.ap import (
    BUS,
    CONTROL,
    MATRIX,
    ROOT,
    TYPE,
    U1,
    every_kernel,
    exists,
    machine_of,
    new_mdev,
    refused,
    uevents,
)

CARD_ENV = "DEV_TYPE=000C MODALIAS=ap:t0C MODE=accel"
ONES = "f" * 64


def small_machine(kernel: str) -> Machine:
    """One domain and no card."""
    machine = machine_of(kernel, "empty")
    machine.write(f"{CONTROL}/lpar/domains", "+4")
    return machine


def since(machine: Machine, count: int) -> list[str]:
    return [event.replace("/devices/ap", "AP") for event in uevents(machine)[count:]]


def of_devices(events: list[str]) -> list[str]:
    """Without those of drivers and buses themselves."""
    return [event for event in events if not event.endswith(("=drivers", "=bus"))]


@every_kernel
def test_boot(kernel: str) -> None:
    mdev = "add /bus/mdev/drivers/vfio_ap_mdev SUBSYSTEM=drivers"
    assert uevents(machine_of(kernel, "empty")) == [
        "change /devices/ap SUBSYSTEM=ap INITSCAN=done",
        "change /devices/ap SUBSYSTEM=ap BINDINGS=complete COMPLETECOUNT=1",
        "add /bus/matrix SUBSYSTEM=bus",
        "add /devices/vfio_ap/matrix SUBSYSTEM=matrix",
        "bind /devices/vfio_ap/matrix SUBSYSTEM=matrix DRIVER=vfio_ap",
        "add /bus/matrix/drivers/vfio_ap SUBSYSTEM=drivers",
        "add /bus/ap/drivers/vfio_ap SUBSYSTEM=drivers",
        *([] if kernel == "v6" else [mdev]),
        "change /devices/vfio_ap/matrix SUBSYSTEM=matrix MDEV_STATE=registered DRIVER=vfio_ap",
    ]


def complete(kernel: str, *numbers: int) -> dict[int, str]:
    """The `complete` events with these numbers, where the kernel sends one per probe."""
    text = "change AP SUBSYSTEM=ap BINDINGS=complete COMPLETECOUNT="
    return {number: f"{text}{number}" for number in numbers}


@every_kernel
def test_a_card_appears_and_is_pulled(kernel: str) -> None:
    machine = small_machine(kernel)
    count = len(uevents(machine))
    machine.write(f"{CONTROL}/new_card", "3 CEX6 accel")
    machine.write(f"{CONTROL}/del_card", "3")
    # The new domain alone, without any card, is worth an event where they come per scan.
    done = complete(kernel, 2, 3)
    per_probe = kernel != "6.12"
    assert since(machine, count) == [
        f"add AP/card03 SUBSYSTEM=ap DEVTYPE=ap_card {CARD_ENV}",
        *([done[2]] if per_probe else []),
        f"bind AP/card03 SUBSYSTEM=ap DEVTYPE=ap_card DRIVER=cex4card {CARD_ENV}",
        "add AP/card03/03.0004 SUBSYSTEM=ap DEVTYPE=ap_queue MODE=accel",
        *([done[3]] if per_probe else []),
        "bind AP/card03/03.0004 SUBSYSTEM=ap DEVTYPE=ap_queue DRIVER=cex4queue MODE=accel",
        *([] if per_probe else [done[3]]),
        "unbind AP/card03/03.0004 SUBSYSTEM=ap DEVTYPE=ap_queue MODE=accel",
        "remove AP/card03/03.0004 SUBSYSTEM=ap DEVTYPE=ap_queue MODE=accel",
        "unbind AP/card03 SUBSYSTEM=ap DEVTYPE=ap_card DEV_TYPE=000C MODE=accel",
        f"remove AP/card03 SUBSYSTEM=ap DEVTYPE=ap_card {CARD_ENV}",
    ]


@every_kernel
def test_a_mask_changes(kernel: str) -> None:
    machine = small_machine(kernel)
    machine.write(f"{CONTROL}/lpar/domains", "+9")
    machine.write(f"{CONTROL}/new_card", "3 CEX6 accel")
    count = len(uevents(machine))
    machine.write(f"{BUS}/apmask", "-3")
    machine.write(f"{BUS}/apmask", "-3")
    expected = []
    for number, queue in enumerate(("AP/card03/03.0004", "AP/card03/03.0009"), start=5):
        expected.append(f"unbind {queue} SUBSYSTEM=ap DEVTYPE=ap_queue MODE=accel")
        expected += [complete(kernel, number)[number]] if kernel != "6.12" else []
        expected.append(f"bind {queue} SUBSYSTEM=ap DEVTYPE=ap_queue DRIVER=vfio_ap MODE=accel")
    expected.append("change AP SUBSYSTEM=ap APMASK=0xe" + "f" * 63)
    assert since(machine, count) == expected
    machine.write(f"{BUS}/scans", "1")
    after = since(machine, count)[len(expected) :]
    # There, one event at the end of a scan tells of all probes before it.
    assert after == ([complete(kernel, 5)[5]] if kernel == "6.12" else [])
    machine.write(f"{BUS}/scans", "1")
    assert since(machine, count)[len(expected) :] == after


@every_kernel
def test_nothing_is_complete_while_a_queue_is_unbound(kernel: str) -> None:
    machine = small_machine(kernel)
    machine.write(f"{CONTROL}/lpar/domains", "+9,+20")
    machine.write(f"{CONTROL}/new_card", "3 CEX6 accel")
    for queue in ("03.0004", "03.0009"):
        machine.write(f"{BUS}/drivers/cex4queue/unbind", queue)
    count = len(uevents(machine))
    machine.write(f"{BUS}/drivers_probe", "03.0009")
    assert [event.split()[0] for event in since(machine, count)] == ["bind"]
    machine.write(f"{BUS}/aqmask", "-20")
    names = [event.split()[0] for event in since(machine, count)]
    per_probe = kernel != "6.12"
    # The mask change offers the unbound queue too; from then on every probe completes.
    more = ["change"] if per_probe else []
    assert names == ["bind", *more, "bind", "unbind", *more, "bind", "change"]


@every_kernel
def test_a_vetoed_mask_says_nothing(kernel: str) -> None:
    machine = machine_of(kernel)
    machine.write(f"{BUS}/apmask", "-5")
    new_mdev(machine, U1, "5", "4")
    count = len(uevents(machine))
    assert refused(machine, f"{BUS}/apmask", "+5")
    machine.write(f"{BUS}/apmask", "+9")
    assert since(machine, count) == []


@every_kernel
def test_config_off_and_on(kernel: str) -> None:
    machine = small_machine(kernel)
    machine.write(f"{CONTROL}/new_card", "3 CEX6 accel")
    count = len(uevents(machine))
    machine.write(f"{ROOT}/card03/config", "0")
    card = f"change AP/card03 SUBSYSTEM=ap CONFIG=0 DEVTYPE=ap_card DRIVER=cex4card {CARD_ENV}"
    queue = "AP/card03/03.0004 SUBSYSTEM=ap"
    env = "DEVTYPE=ap_queue MODE=accel"
    if kernel == "v6":
        assert since(machine, count) == [card, f"unbind {queue} {env}", f"remove {queue} {env}"]
    else:
        told = f"change {queue} CONFIG=0 DEVTYPE=ap_queue DRIVER=cex4queue MODE=accel"
        assert since(machine, count) == [card, told]
    count = len(uevents(machine))
    machine.write(f"{CONTROL}/cards/03/config", "1")
    assert since(machine, count)[0] == card.replace("CONFIG=0", "CONFIG=1")


@every_kernel
def test_online(kernel: str) -> None:
    machine = small_machine(kernel)
    machine.write(f"{CONTROL}/new_card", "3 CEX6 accel")
    count = len(uevents(machine))
    machine.write(f"{ROOT}/card03/03.0004/online", "0")
    machine.write(f"{ROOT}/card03/online", "0")
    machine.write(f"{ROOT}/card03/online", "1")
    card = f"DEVTYPE=ap_card DRIVER=cex4card {CARD_ENV}"
    queue = "DEVTYPE=ap_queue DRIVER=cex4queue MODE=accel"
    assert since(machine, count) == [
        f"change AP/card03/03.0004 SUBSYSTEM=ap ONLINE=0 {queue}",
        f"change AP/card03 SUBSYSTEM=ap ONLINE=0 {card}",
        f"change AP/card03 SUBSYSTEM=ap ONLINE=1 {card}",
        f"change AP/card03/03.0004 SUBSYSTEM=ap ONLINE=1 {queue}",
    ]


@every_kernel
def test_loading_the_module_binds_free_queues(kernel: str) -> None:
    machine = small_machine(kernel)
    machine.write(f"{CONTROL}/vfio_ap_loaded", "0")
    machine.write(f"{BUS}/apmask", "-3")
    machine.write(f"{CONTROL}/new_card", "3 CEX6 accel")
    count = len(uevents(machine))
    machine.write(f"{CONTROL}/vfio_ap_loaded", "1")
    told = of_devices(since(machine, count))
    names = [" ".join(event.replace("=", " ").split()[:5:2]) for event in told]
    bound, done = "bind SUBSYSTEM DEVTYPE", "change SUBSYSTEM BINDINGS"
    assert names == [
        "add SUBSYSTEM",
        "bind SUBSYSTEM DRIVER",
        *([bound, done] if kernel == "6.12" else [done, bound]),
        "change SUBSYSTEM MDEV_STATE",
        "add SUBSYSTEM",
    ]


@every_kernel
def test_unloading_the_module_ends_in_the_reverse_order(kernel: str) -> None:
    machine = small_machine(kernel)
    machine.write(f"{BUS}/apmask", "-3")
    machine.write(f"{CONTROL}/new_card", "3 CEX6 accel")
    new_mdev(machine)
    count = len(uevents(machine))
    machine.write(f"{CONTROL}/vfio_ap_loaded", "0")
    told = [event.split()[0] + event.split()[1][-8:] for event in of_devices(since(machine, count))]
    mdev = U1[-8:]
    assert [event for event in told if "vfio" not in event] == [
        f"unbind{mdev}", f"remove{mdev}", "changep/matrix", "unbind/03.0004", "unbindp/matrix",
        "removep/matrix",
    ]  # fmt: skip


def test_uevent_files_of_the_matrix() -> None:
    machine = machine_of()
    assert machine.read(f"{MATRIX}/uevent") == "DRIVER=vfio_ap\n"
    count = len(uevents(machine))
    machine.write(f"{MATRIX}/uevent", f"change {U1} A=1\n")
    assert uevents(machine)[count:] == [
        f"change /devices/vfio_ap/matrix SUBSYSTEM=matrix SYNTH_UUID={U1} SYNTH_ARG_A=1 "
        "DRIVER=vfio_ap"
    ]
    assert machine.listdir(f"{TYPE}/devices") == []


@every_kernel
def test_a_device_is_whole_when_its_event_is_sent(kernel: str) -> None:
    machine = small_machine(kernel)
    machine.write(f"{CONTROL}/lpar/domains", "+9")
    added: list[str] = []

    def look(event: Uevent) -> None:
        if event.action in ("add", "bind"):
            folder = f"sys{event.devpath}"
            assert exists(machine, f"{folder}/uevent"), event
            assert exists(machine, f"{folder}/subsystem") == bool(event.subsystem), event
            assert event.action == "add" or exists(machine, f"{folder}/driver"), event
            added.append(f"{event.action} {event.devpath.rpartition('/')[2]}")

    def look_at_all(batch: UeventBatch) -> None:
        for event in batch.make():
            look(event)

    machine.kernel.bus.subscribe(Uevent, look)
    machine.kernel.bus.subscribe(UeventBatch, look_at_all)
    machine.write(f"{CONTROL}/new_card", "3 CEX6 cca")
    machine.write(f"{BUS}/apmask", "-3")
    new_mdev(machine, U1, "3", "4 9")
    assert {"add card03", "add 03.0004", "bind 03.0009", f"add {U1}", f"bind {U1}"} <= set(added)
