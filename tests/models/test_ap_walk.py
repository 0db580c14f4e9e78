"""A long random walk through the AP models, beside a plain statement of the driver's rules."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from fakesys.core.errors import KernelError
from fakesys.core.text import ALL_IDS, ids
from fakesys.subsystems.ap_bus.apqn import Apqn
from fakesys.subsystems.ap_bus.hardware_spec import CardMode, CardSpec, HardwareSpec, mask_of
from fakesys.subsystems.vfio_ap.guest import Guest
from fakesys.subsystems.vfio_ap.matrix_mdev import MatrixMdev
from fakesys.subsystems.vfio_ap.policy import Masks
from tests.long import LONG
from tests.models.ap_driver import Card, Device, Driver, Matrix, Refused
from tests.models.ap_machine import create, system_of, uuid_of

STEPS = 20_000 if LONG else 800
NUMBERS = range(5)
SPEC = HardwareSpec(
    cards=tuple(CardSpec(apid, 11, CardMode.CCA) for apid in (0, 1, 2)),
    domains=mask_of(0, 1, 2),
    control_domains=mask_of(0, 1),
)


def small(mask: int) -> set[int]:
    return set(ids(mask))


class Walk:
    """Both sides, and the steps; a step changes them equally or is refused by both."""

    def __init__(self, kernel: str, seed: int) -> None:
        self.later = kernel == "6.12"
        self.random = random.Random(seed)
        self.system = system_of(kernel, SPEC)
        self.system.bus.state.autoscan = False
        lpar = Matrix({0, 1, 2}, {0, 1, 2}, {0, 1})
        self.driver = Driver((0, 1, 2), lpar, later=self.later)
        self.guests = 0

    def both(self, model: Callable[[], object], driver: Callable[[], object]) -> None:
        refused = ["", ""]
        try:
            model()
        except KernelError as refusal:
            refused[0] = refusal.name
        try:
            driver()
        except Refused as refusal:
            refused[1] = str(refusal)
        assert refused[0] == refused[1]

    def step(self) -> str:
        name = self.random.choice(STEP_NAMES)
        getattr(self, f"do_{name}")()
        return name

    def number(self) -> int:
        return self.random.choice(NUMBERS)

    def device(self) -> tuple[MatrixMdev, Device] | None:
        if not self.driver.devices:
            return None
        uuid = self.random.choice(list(self.driver.devices))
        return self.system.vfio_ap.mdevs[uuid], self.driver.devices[uuid]

    def do_create(self) -> None:
        number = self.random.choice((1, 2, 3))
        if uuid_of(number) not in self.driver.devices:
            create(self.system, number)
            self.driver.devices = {uuid_of(number): Device(), **self.driver.devices}

    def do_remove(self) -> None:
        found = self.device()
        if found is None or self.random.random() < 0.6:
            return
        mdev, device = found
        if mdev.guest is not None:
            self._detach(mdev, device)
        self.system.mdev_bus.remove(mdev.mdev)
        self.driver.reset(device.matrix.queues())
        self.driver.devices = {u: d for u, d in self.driver.devices.items() if d is not device}

    def do_guest(self) -> None:
        found = self.device()
        if found is None:
            return
        mdev, device = found
        if mdev.guest is not None:
            self._detach(mdev, device)
            return
        self.guests += 1
        self.system.guests.create(f"g{self.guests}").attach(mdev)

    def _detach(self, mdev: MatrixMdev, device: Device) -> None:
        guest = mdev.guest
        assert isinstance(guest, Guest)
        self.system.guests.remove(guest.name)
        self.driver.reset(device.matrix.queues())

    def do_assign(self) -> None:
        found, number = self.device(), self.number()
        if found is None:
            return
        mdev, device = found
        kind, call = self.random.choice(
            (
                ("apm", mdev.assign_adapter),
                ("aqm", mdev.assign_domain),
                ("adm", mdev.assign_control_domain),
            )
        )
        self.both(lambda: call(number), lambda: self.driver.assign(device, kind, number))

    def do_unassign(self) -> None:
        found, number = self.device(), self.number()
        if found is None:
            return
        mdev, device = found
        kind, call = self.random.choice(
            (
                ("apm", mdev.unassign_adapter),
                ("aqm", mdev.unassign_domain),
                ("adm", mdev.unassign_control_domain),
            )
        )
        self.both(lambda: call(number), lambda: self.driver.unassign(device, kind, number))

    def do_configure(self) -> None:
        found = self.device()
        if found is None or not self.later:
            return
        mdev, device = found
        masks = [self.random.getrandbits(4) for _ in range(3)]
        new = Matrix(*map(small, masks))
        self.both(lambda: mdev.configure(Masks(*masks)), lambda: self.driver.configure(device, new))

    def do_mask(self) -> None:
        bus, kind = self.system.bus, self.random.choice(("apm", "aqm"))
        mask = ALL_IDS & ~31 | self.random.choice((0, self.random.getrandbits(5), 31))
        call = bus.set_apmask if kind == "apm" else bus.set_aqmask
        self.both(lambda: call(mask), lambda: self.driver.set_mask(kind, small(mask)))

    def do_bind(self) -> None:
        if not self.driver.queues:
            return
        queue = self.random.choice(list(self.driver.queues))
        name, bus = f"{queue[0]:02x}.{queue[1]:04x}", self.system.bus
        driver = self.driver.queues[queue]
        if driver is not None:
            bus.unbind(bus.state.queue_drivers[driver], name)
            self.driver.unbind(queue)
        else:
            bus.probe(name)
            self.driver.probe(queue)

    def do_card(self) -> None:
        apid, hardware = self.random.choice((0, 1, 2, 3)), self.system.hardware
        if apid in hardware.cards:
            hardware.pull(apid)
            del self.driver.cards[apid]
            self.driver.lpar.apm.discard(apid)
        else:
            hardware.install(CardSpec(apid, 11, CardMode.CCA))
            self.driver.cards[apid] = Card()
            self.driver.lpar.apm.add(apid)

    def do_lpar(self) -> None:
        hardware = self.system.hardware
        field, kind = self.random.choice(
            (("adapters", "apm"), ("domains", "aqm"), ("control_domains", "adm"))
        )
        mask = hardware.lpar._asdict()[field] ^ 1 << self.number()
        hardware.set_lpar(hardware.lpar._replace(**{field: mask}))
        setattr(self.driver.lpar, kind, small(mask))

    def do_switch(self) -> None:
        hardware = self.system.hardware
        if not hardware.cards:
            return
        apid = self.random.choice(list(hardware.cards))
        card, on = self.driver.cards[apid], self.random.random() < 0.7
        if self.random.random() < 0.5:
            hardware.switch_config(apid, on)
            card.config = on
        else:
            hardware.switch_checkstop(apid, not on)
            card.checkstop = not on

    def do_answer(self) -> None:
        hardware = self.system.hardware
        if not hardware.cards:
            return
        apid, apqi = self.random.choice(list(hardware.cards)), self.number()
        # Later kernels wait for a queue that answers 02 or 05.
        rc = self.random.choice((0, 0, 1, 3, 4) if self.later else (0, 0, 0, 1, 2, 3, 4, 5))
        hardware.set_rc(Apqn(apid, apqi), rc)
        self.driver.cards[apid].rcs[apqi] = rc

    def do_scan(self) -> None:
        self.system.bus.rescan()
        self.driver.scan()

    def check(self) -> None:
        """Both sides have the same queues, drivers, matrices and guests."""
        drivers = self.system.bus.state.queue_drivers
        bound = {
            (apid, apqi): name
            for name, driver in drivers.items()
            for apid, row in enumerate(driver.bound)
            for apqi in ids(row)
        }
        assert bound == {q: name for q, name in self.driver.queues.items() if name}
        mdevs = self.system.vfio_ap.mdevs
        assert list(mdevs) == list(self.driver.devices)[::-1]
        for uuid, device in self.driver.devices.items():
            for mine, plain in (
                (mdevs[uuid].matrix, device.matrix),
                (mdevs[uuid].guest_masks, device.shadow),
            ):
                assert tuple(map(small, mine)) == (plain.apm, plain.aqm, plain.adm)


STEP_NAMES = [name.removeprefix("do_") for name in dir(Walk) if name.startswith("do_")]
STEP_NAMES += ["assign"] * 5 + ["scan"] * 4 + ["mask", "lpar", "unassign"]


@pytest.mark.timeout(900 if LONG else 120)
@pytest.mark.parametrize("kernel", ["6.1", "6.12"])
@pytest.mark.parametrize("seed", range(4))
def test_the_models_never_disagree_with_the_rules(kernel: str, seed: int) -> None:
    walk = Walk(kernel, seed)
    for number in range(STEPS // 8):
        name = walk.step()
        try:
            walk.check()
        except AssertionError as difference:
            raise AssertionError(f"after step {number}, {name}: {difference}") from None
