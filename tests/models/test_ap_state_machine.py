"""Random histories of masks, devices, guests and hardware against plain sets.

Whatever happens: no queue has a host and a guest, or two devices; a refusal changes nothing; what
a guest gets is what the filter says; nobody's cache shows something that is no longer true.
"""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from errno import EADDRINUSE, EADDRNOTAVAIL, EBUSY, ENODEV, EPERM

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from fakesys.core.errors import KernelError
from fakesys.core.journal import LineLog, UeventLog
from fakesys.core.kernel import Kernel
from fakesys.core.text import ALL_IDS, ids
from fakesys.machine.ap import ap_of
from fakesys.machine.kernels.ap import AP_KERNELS
from fakesys.subsystems.ap_bus.hardware_spec import CardMode, CardSpec
from fakesys.subsystems.ap_control.files import ApKernelChoice
from fakesys.subsystems.ap_control.sharing import shared_queues
from fakesys.subsystems.vfio_ap.matrix_mdev import MatrixMdev
from fakesys.subsystems.vfio_ap.policy import VfioApFeature, VfioApPolicy, host_owned
from fakesys.subsystems.vfio_ap.state import RemovePolicy
from fakesys.tree.binder import Binder
from fakesys.tree.node import Directory
from tests.long import LONG
from tests.models.ap_machine import CARDS, DOMAINS, SMALL, create, system_of, uuid_of

EXAMPLES = int(os.environ.get("FAKESYS_EXAMPLES", "10"))
ADAPTER = st.sampled_from((*CARDS, 2))
DOMAIN = st.sampled_from((*DOMAINS, 2))
NUMBER = st.integers(0, 2)
GUEST = st.sampled_from(("a", "b"))
Apqns = set[tuple[int, int]]


def product(apm: int, aqm: int) -> Apqns:
    return set(itertools.product(ids(apm), ids(aqm)))


class ApMachine(RuleBasedStateMachine):
    """One history. The oracle is what `expected` says in terms of sets."""

    kernel: str

    def __init__(self) -> None:
        super().__init__()
        kernel = Kernel()
        uevents = UeventLog()
        uevents.listen(kernel.bus)
        self.side = ap_of(kernel, AP_KERNELS[self.kernel], SMALL)
        self.system = self.side.system
        choice = ApKernelChoice((), lambda: "", lambda _name: None, lambda: None)
        mounts = self.side.mounts(choice, uevents, LineLog())
        self.binder = Binder(kernel.bus, self.side.features, mounts)
        self.uevents = uevents
        self.look_at_everything()

    @property
    def policy(self) -> VfioApPolicy:
        return self.system.vfio_ap.state.policy

    @property
    def mdevs(self) -> dict[str, MatrixMdev]:
        return self.system.vfio_ap.mdevs

    def bound(self, name: str) -> Apqns:
        rows = self.system.bus.state.queue_drivers[name].bound
        return {(apid, apqi) for apid, row in enumerate(rows) for apqi in ids(row)}

    def attempt(self, action: Callable[[], object], errno: int | None) -> bool:
        """Do it, and compare the refusal; a refused action must change nothing."""
        before = self.system.state()
        try:
            action()
        except KernelError as refusal:
            assert refusal.errno == errno, refusal
            assert self.system.state() == before
            return False
        assert errno is None
        return True

    # What the user does.

    @rule(number=NUMBER)
    def create_or_refuse(self, number: int) -> None:
        there = uuid_of(number) in self.mdevs
        self.attempt(lambda: create(self.system, number), 17 if there else None)

    @rule(number=NUMBER, policy=st.sampled_from((RemovePolicy.EBUSY, RemovePolicy.REQUEST)))
    def remove(self, number: int, policy: RemovePolicy) -> None:
        mdev = self.mdevs.get(uuid_of(number))
        if mdev is None:
            return
        self.system.vfio_ap.state.chosen_policy = policy
        busy = mdev.guest is not None and policy is RemovePolicy.EBUSY
        self.attempt(lambda: self.system.mdev_bus.remove(mdev.mdev), EBUSY if busy else None)

    @rule(number=NUMBER, adapter=st.none() | ADAPTER, domain=st.none() | DOMAIN)
    def assign(self, number: int, adapter: int | None, domain: int | None) -> None:
        mdev = self.mdevs.get(uuid_of(number))
        if mdev is None:
            return
        if adapter is not None:
            self._assign(mdev, 1 << adapter, 0, lambda: mdev.assign_adapter(adapter))
        if domain is not None:
            self._assign(mdev, 0, 1 << domain, lambda: mdev.assign_domain(domain))

    def _assign(self, mdev: MatrixMdev, apm: int, aqm: int, action: Callable[[], None]) -> None:
        old = mdev.matrix
        new = product(old.apm | apm, old.aqm | aqm)
        unavailable = self.unavailable(apm or old.apm, aqm or old.aqm)
        others: Apqns = set()
        for other in self.mdevs.values():
            others |= set() if other is mdev else product(other.matrix.apm, other.matrix.aqm)
        errno = EADDRNOTAVAIL if unavailable else EADDRINUSE if new & others else None
        fresh = (old.apm | apm, old.aqm | aqm) != (old.apm, old.aqm)
        given = mdev.guest_masks
        if not self.attempt(action, errno):
            return
        if not self.policy.following.matrix:
            assert mdev.guest_masks == given
        elif fresh or self.policy.repeats_assign:
            self.check_filter(mdev)

    def unavailable(self, apm: int, aqm: int) -> bool:
        """Is a queue of these not for guests? Before the series, a driver had to have it."""
        vfio, state = self.bound("vfio_ap"), self.system.bus.state
        if self.policy.unavailable is host_owned:
            return bool(product(apm, aqm) & product(state.apmask, state.aqmask))
        if apm and aqm:
            return not product(apm, aqm) <= vfio
        return not any(apm >> apid & 1 or aqm >> apqi & 1 for apid, apqi in vfio)

    @rule(number=NUMBER, adapter=st.none() | ADAPTER, domain=st.none() | DOMAIN)
    def unassign(self, number: int, adapter: int | None, domain: int | None) -> None:
        mdev = self.mdevs.get(uuid_of(number))
        if mdev is None:
            return
        if adapter is not None:
            mdev.unassign_adapter(adapter)
        if domain is not None:
            mdev.unassign_domain(domain)

    @rule(name=st.sampled_from(("apmask", "aqmask")), low=st.integers(0, 7))
    def change_mask(self, name: str, low: int) -> None:
        bus = self.system.bus
        mask = (ALL_IDS & ~7) | low
        apmask, aqmask = (mask, bus.state.aqmask) if name == "apmask" else (bus.state.apmask, mask)
        assigned: Apqns = set()
        for mdev in self.mdevs.values():
            assigned |= product(mdev.matrix.apm, mdev.matrix.aqm)
        grows = mask & ~(bus.state.apmask if name == "apmask" else bus.state.aqmask)
        veto = bool(grows) and bool(product(apmask, aqmask) & assigned) and self.policy.vetoes
        set_mask = bus.set_apmask if name == "apmask" else bus.set_aqmask
        errno = bus.state.policy.veto_errno if veto else None
        self.attempt(lambda: set_mask(mask), errno)

    @rule(name=GUEST, number=NUMBER, ap=st.booleans())
    def attach(self, name: str, number: int, ap: bool) -> None:
        guests = self.system.guests
        mdev = self.mdevs.get(uuid_of(number))
        if mdev is None:
            return
        guest = guests.by_name.get(name) or guests.create(name, ap=ap)
        errno = EBUSY if mdev.guest else EPERM if guest.mdev else None
        if not self.attempt(lambda: guest.attach(mdev), errno):
            return
        if not self.policy.following.matrix:
            assert mdev.guest_masks == mdev.matrix
        elif self.policy.guest_decides:
            self.check_filter(mdev)

    @rule(name=GUEST)
    def power_off(self, name: str) -> None:
        there = name in self.system.guests.by_name
        self.attempt(lambda: self.system.guests.remove(name), None if there else ENODEV)

    # What the machine does.

    @rule(apid=ADAPTER, old=st.booleans())
    def swap_card(self, apid: int, old: bool) -> None:
        hardware = self.system.hardware
        if apid in hardware.cards:
            hardware.pull(apid)
        else:
            hardware.install(CardSpec(apid, 9 if old else 12, CardMode.ACCEL))

    @rule(apid=ADAPTER, config=st.booleans(), checkstop=st.booleans())
    def switch_card(self, apid: int, config: bool, checkstop: bool) -> None:
        if apid in self.system.hardware.cards:
            self.system.hardware.switch_config(apid, config)
            self.system.hardware.switch_checkstop(apid, checkstop)

    @rule(domains=st.integers(0, 7), control=st.integers(0, 7))
    def change_lpar(self, domains: int, control: int) -> None:
        hardware = self.system.hardware
        hardware.set_lpar(hardware.lpar._replace(domains=domains, control_domains=control))

    @rule(autoscan=st.booleans())
    def scan(self, autoscan: bool) -> None:
        self.system.bus.state.autoscan = autoscan
        self.system.bus.rescan()

    @rule(apid=ADAPTER, apqi=DOMAIN, driver=st.sampled_from(("cex4queue", "vfio_ap")))
    def unbind(self, apid: int, apqi: int, driver: str) -> None:
        bus = self.system.bus
        name = f"{apid:02x}.{apqi:04x}"
        if driver not in bus.state.queue_drivers:
            return
        there = (apid, apqi) in self.bound(driver)
        bound_to = bus.state.queue_drivers[driver]
        self.attempt(lambda: bus.unbind(bound_to, name), None if there else ENODEV)

    @precondition(lambda self: not self.system.vfio_ap.state.attached)
    @rule()
    def reload(self) -> None:
        self.system.vfio_ap.unload()
        self.system.vfio_ap.load()

    # What must hold.

    def passable(self) -> Sequence[int]:
        """The bound domains per adapter that a guest may get."""
        vfio_ap = self.system.vfio_ap
        return vfio_ap.resets.passable(vfio_ap.state.policy.bad_resets)

    def check_filter(self, mdev: MatrixMdev) -> None:
        """What the guest has is what the definition of the filter says."""
        lpar = self.system.bus.state.lpar
        usable = self.passable()
        aqm = {d for d in ids(mdev.matrix.aqm) if lpar.domains >> d & 1}
        apm = {
            a
            for a in ids(mdev.matrix.apm)
            if lpar.adapters >> a & 1 and all(usable[a] >> d & 1 for d in aqm)
        }
        if self.policy.guest_decides and not (apm and aqm):
            apm, aqm = set(), set()
        assert set(ids(mdev.guest_masks.apm)) == apm
        assert set(ids(mdev.guest_masks.aqm)) == aqm

    @invariant()
    def nothing_is_shared(self) -> None:
        host, vfio = self.bound("cex4queue"), self.bound("vfio_ap")
        assert not host & vfio
        assigned = [product(m.matrix.apm, m.matrix.aqm) for m in self.mdevs.values()]
        guests = [
            product(guest.masks.apm, guest.masks.aqm)
            for guest in self.system.guests.by_name.values()
        ]
        # Before patch 04 a guest keeps what others get meanwhile, before 06 what the host gets.
        following = self.policy.following
        for sets in (assigned, guests) if following.matrix else (assigned,):
            for one, other in itertools.combinations(sets, 2):
                assert not one & other
        for queues in guests if following.queues else ():
            assert queues <= vfio
        if following.queues:
            assert self.shared() == ""

    def shared(self) -> str:
        """The file `shared_queues`."""
        system = self.system
        guests = system.guests.by_name.values()
        return shared_queues(system.hardware.lpar, system.bus.state.host_driver, guests)

    @invariant()
    def shared_queues_are_those_of_two(self) -> None:
        lpar = self.system.hardware.lpar
        users = {
            name: product(guest.masks.apm, guest.masks.aqm)
            for name, guest in sorted(self.system.guests.by_name.items())
        }
        users["cex4queue"] = self.bound("cex4queue")
        lines = []
        for apid, apqi in sorted(product(lpar.adapters, lpar.domains)):
            names = [name for name, queues in users.items() if (apid, apqi) in queues]
            if len(names) > 1:
                lines.append(f"{apid:02x}.{apqi:04x} {' '.join(names)}\n")
        assert self.shared() == "".join(lines)

    @invariant()
    def guests_have_no_more_than_assigned(self) -> None:
        for mdev in self.mdevs.values() if self.policy.following.matrix else ():
            for given, assigned in zip(mdev.guest_masks, mdev.matrix, strict=True):
                assert not given & ~assigned

    @invariant()
    def drivers_have_what_the_masks_say(self) -> None:
        host = product(self.system.bus.state.apmask, self.system.bus.state.aqmask)
        assert self.bound("cex4queue") <= host
        assert not self.bound("vfio_ap") & host

    @invariant()
    def every_cached_node_is_true(self) -> None:
        self.binder.settle()
        for directory in self.directories(self.binder.root):
            for name, node in directory.cached.items():
                assert directory.find(name) == node.recipe, node.path
            for name in directory.missed:
                assert directory.find(name) is None, f"{directory.path}/{name}"
        self.look_at_everything()

    def directories(self, directory: Directory) -> Iterator[Directory]:
        yield directory
        for node in list(directory.cached.values()):
            if isinstance(node, Directory):
                yield from self.directories(node)

    def look_at_everything(self) -> None:
        """Fill every cache that a client could have."""
        queue = [self.binder.root]
        while queue:
            for _name, node in queue.pop().entries():
                if isinstance(node, Directory) and node.name != "power":
                    queue.append(node)

    def teardown(self) -> None:
        events = list(self.uevents.since(0))
        assert [number for number, _ in events] == list(range(1, self.uevents.last + 1))


# Levels of the series that no other one is equal to.
LEVELS = ("5.3", "v6-02", "v6-03", "v6-04", "v6-06", "v6-10-06")
ALL_LEVELS = (*AP_KERNELS.series.levels(), "v6-10-03", "v6-10-06", "v6-10-02-08", "v6-10-01-06")


@pytest.mark.parametrize("kernel", ALL_LEVELS if LONG else LEVELS)
def test_random_histories_of_the_series(kernel: str) -> None:
    machine = type(f"ApMachine_{kernel}", (ApMachine,), {"kernel": kernel})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=EXAMPLES if LONG else 1,
            stateful_step_count=20,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


class Sharing:
    """One history of two devices and two guests, on a machine whose queues are the guests'."""

    def __init__(self, kernel: str, seed: int) -> None:
        self.system = system_of(kernel)
        self.busy = VfioApFeature.BUSY_WITH_GUEST in AP_KERNELS[kernel].features
        self.random = random.Random(seed)
        self.system.bus.set_aqmask(0)
        guests = self.system.guests
        self.pairs = [(create(self.system, n), guests.create(f"{n}")) for n in range(2)]

    def step(self) -> None:
        choice = self.random.choice
        mdev, guest = choice(self.pairs)
        change = choice((mdev.assign_adapter, mdev.assign_domain, mdev.assign_adapter,
                         mdev.assign_domain, mdev.unassign_domain))  # fmt: skip
        with suppress(KernelError):
            what = self.random.randrange(8)
            if what < 4 and not (self.busy and mdev.guest):
                change(choice((0, 1)))
            elif what < 6:
                guest.attach(mdev)
            elif what == 6:
                self.system.bus.set_aqmask(choice((0, 0, 1, 2)))
            else:
                guest.detach()

    def shared(self) -> str:
        host = self.system.bus.state.host_driver
        guests = self.system.guests.by_name.values()
        return shared_queues(self.system.hardware.lpar, host, guests)


def search(kernel: str, histories: int) -> set[str]:
    """Who shares queues with whom, in so many histories."""
    found: set[str] = set()
    for seed in range(histories):
        history = Sharing(kernel, seed)
        for _ in range(40):
            history.step()
            found.update(line.split(" ", 1)[1] for line in history.shared().splitlines())
    return found


@pytest.mark.parametrize(
    ("kernel", "ways"),
    [
        ("5.3", {"0 cex4queue", "1 cex4queue"}),
        ("v6-03", {"0 cex4queue", "1 cex4queue", "0 1"}),
        ("v6-05", {"0 cex4queue", "1 cex4queue"}),
        ("v6-06", set()),
        ("v6", set()),
        ("6.12", set()),
    ],
)
def test_a_search_finds_who_shares(kernel: str, ways: set[str]) -> None:
    found = search(kernel, 1000 if LONG else 60)
    assert found >= ways
    assert ways or not found


@pytest.mark.parametrize("kernel", list(AP_KERNELS))
def test_random_histories(kernel: str) -> None:
    machine = type(f"ApMachine_{kernel}", (ApMachine,), {"kernel": kernel})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=20,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
