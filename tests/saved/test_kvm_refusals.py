"""KVM's part of a snapshot: rings, the TDP MMU and vCPUs that no machine can have are refused."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import msgspec
import pytest

from fakesys.core.saved import BadSnapshotError
from fakesys.machine.machine import Machine
from tests.saved.kvm_copies import copied, encoded, fresh, plain, restore
from tests.saved.test_kvm import same, started
from tests.whole_machine import CTL, attempt

COMMANDS = (
    "vm create a",
    "a cap 192 4096",
    "a vcpu add count=2",
    "a mem small size=4M",
    "a slot 0 gpa=0 size=4M mem=small flags=log_dirty",
    "a mem giant size=1G hugetlb=1G",
    "a slot 1 gpa=0x40000000 size=1G mem=giant",
    "a mem part size=1M",
    "a slot 2 gpa=0x180000000 size=1M mem=part",
    "a vcpu 0 setup",
    "a vcpu 0 access w 0x1000 n=3",
    "a vcpu 0 access r 0x5000",
    "a vcpu 0 access w 0x40000000",
    "a vcpu 0 access r 0x180100000",
    "a vcpu 0 ring first=0 n=1",
    "a vcpu 1 smi",
)


def machine_with_rings() -> Machine:
    """A VM with the TDP MMU and rings, in which one entry is harvested."""
    machine = started(("6.12", "", ""), "modules")
    for text in COMMANDS:
        assert attempt(machine, CTL, f"{text}\n") == "ok", text
    return machine


@cache
def document() -> bytes:
    return encoded(machine_with_rings())


def test_rings_go_on_in_a_copy() -> None:
    machine = machine_with_rings()
    copy = copied(machine)
    assert encoded(copy) == encoded(machine)
    for text in (
        "a vcpu 0 ring first=0 n=4",
        "a ring_reset",
        "a vcpu 0 access w 0x1000 n=3",
        "a vcpu 0 ring first=0 n=8",
        "a vcpu 1 setup",
        "a vcpu 1 access w 0x3000",
        "a ring_reset",
    ):
        results = [attempt(each, CTL, f"{text}\n") for each in (machine, copy)]
        assert results == ["ok", "ok"], text
        same(machine, copy)


Change = Callable[[Any], object]


def _memory(name: str, value: object) -> Change:
    return lambda found: found["memory"]["vms"][0]["memory"].update({name: value})


def _vcpu(name: str, value: object) -> Change:
    return lambda found: found["memory"]["vms"][0]["vcpus"][0].update({name: value})


def _ring(name: str, value: object) -> Change:
    return lambda found: found["memory"]["vms"][0]["vcpus"][0]["ring"].update({name: value})


def tdp(found: Any) -> Any:
    return found["memory"]["vms"][0]["memory"]["tdp"]


def root(found: Any) -> Any:
    return tdp(found)["roots"][0]


def _root(name: str, value: object) -> Change:
    return lambda found: root(found).update({name: value})


def _upper(name: str, value: object) -> Change:
    return lambda found: root(found)["tables"]["0"].update({name: value})


def _leaf(name: str, value: object) -> Change:
    return lambda found: root(found)["tables"]["0"]["directories"]["0"]["leaves"]["0"].update(
        {name: value}
    )


def _mmio(change: Callable[[int, int], tuple[int, int]]) -> Change:
    """Another place or value of the one MMIO spte."""

    def changed(found: Any) -> None:
        mmio = root(found)["tables"]["0"]["directories"]["6"]["leaves"]["0"]["mmio"]
        [(place, value)] = [(int(key), value) for key, value in mmio.items()]
        mmio.clear()
        place, value = change(place, value)
        mmio[str(place)] = value

    return changed


def _state(place: int, state: int) -> Change:
    """Another state of an entry of the first table of level 2."""

    def changed(found: Any) -> None:
        directory = root(found)["tables"]["0"]["directories"]["0"]
        states = bytearray(msgspec.json.decode(f'"{directory["state"]}"', type=bytes))
        states[place] = state
        directory["state"] = msgspec.json.decode(msgspec.json.encode(bytes(states)))

    return changed


def _pages(name: str, value: object) -> Change:
    return lambda found: found["memory"]["vms"][0]["memory"]["host"]["memories"][0]["pages"].update(
        {name: value}
    )


def _page(number: int) -> bytes:
    return (1 << number).to_bytes(64, "little")


def _masks(*masks: bytes) -> str:
    return str(msgspec.json.decode(msgspec.json.encode(b"".join(masks))))


NONE = bytes(64)
WRONG: tuple[tuple[Change, str], ...] = (
    (_memory("ring_entries", 100), "the entries of a ring of dirty pages"),
    (_memory("ring_entries", 0), "the dirty log of slot 0"),
    (_memory("tdp", None), "gauges of sptes are"),
    (_vcpu("ring", None), "the ring of vCPU 0"),
    (_ring("dirty_index", 1000), "has too many entries"),
    (_ring("entries", {"256": [1, 0, 0]}), "the index of an entry of a ring"),
    (_ring("entries", {"0": [4, 0, 0]}), "the flags of an entry of a ring"),
    (_vcpu("roots", [1, 1]), "vCPU 0 has 2 roots"),
    (_vcpu("roots", [7]), "keeps an invalid root"),
    (_vcpu("paging", "long"), "vCPU 0: long"),
    (_vcpu("requests", 1 << 20), "requests 0x100000"),
    (lambda found: tdp(found).update(pages_made=1 << 20), "pages of tables"),
    (lambda found: tdp(found)["roots"].append(root(found)), "two roots of an address space"),
    (lambda found: tdp(found).update(nx_splits=[0]), "the number of split large pages"),
    (_root("as_id", 2), "the address space of a root"),
    (_root("number", 9), "the number of a root"),
    (_root("page", 1 << 20), "the page of a table"),
    (lambda found: root(found)["tables"].update({"512": root(found)["tables"]["0"]}), "level 3"),
    (_upper("leaves", {"600": 9}), "the index of a leaf of 1 GiB"),
    (_upper("leaves", {"0": 9}), "an entry is a table and a leaf"),
    (_upper("leaves", {"1": 1}), "a leaf of 1 GiB: 0x1"),
    (_upper("leaves", {}), "gauges of sptes are"),
    (_state(3, 4), "states of a table of level 2"),
    (_state(0, 0), "sptes of a table that is all alike, or none"),
    (_state(1, 2), "gauges of sptes are"),
    (_leaf("masks", _masks(NONE, _page(1), NONE, NONE)), "bits of absent sptes"),
    (_leaf("masks", _masks(_page(1), _page(1), _page(1), NONE)), "is writable and read-only"),
    (_leaf("mmio", {"512": 5}), "the index of an MMIO spte"),
    (_leaf("mmio", {"1": 5}), "an entry is two sptes"),
    (_leaf("mmio", {"9": 5}), "MMIO spte 0x5"),
    (_mmio(lambda place, value: (place + 1, value)), "MMIO spte 0x"),
    (_mmio(lambda place, value: (place, value ^ 4)), "MMIO spte 0x"),
    (_pages("split", [2]), "a block of memory small"),
    (_pages("gone", {"0": "1"}), "a whole page is gone in part"),
    (_pages("zero", {"0": "1"}), "a page is there that is not"),
    (_pages("gone", {"2": "1"}), "a block of memory small"),
)


def test_the_document_itself_is_taken() -> None:
    restore(document(), fresh(machine_with_rings()))


@pytest.mark.parametrize(("change", "reason"), WRONG)
def test_what_no_machine_has_is_refused(change: Change, reason: str) -> None:
    found = plain(document())
    change(found)
    with pytest.raises(BadSnapshotError, match=reason):
        restore(msgspec.json.encode(found), fresh(machine_with_rings()))
