"""KVM's events: formats as a real 6.18 has them, texts as each kernel's print fmt says."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fakesys.core.c_types import CType, Holds
from fakesys.core.event_format import EventFormat, event_format
from fakesys.core.tracepoint import Tracepoint, declared_fields
from fakesys.machine.kernels.apicv import APICV_KERNELS
from fakesys.machine.kernels.mmu import MMU_KERNELS
from fakesys.subsystems.kvm.events.avic import EVENTS as APICV_EVENTS
from fakesys.subsystems.kvm.events.avic import (
    KvmApicvActivateRequest,
    KvmApicvDeactivateRequest,
    KvmApicvInhibitChanged,
    KvmApicvUpdateRequest,
)
from fakesys.subsystems.kvm.events.catalog import EVENTS as KVM_EVENTS
from fakesys.subsystems.kvm.events.lapic import KvmInjVirq
from fakesys.subsystems.kvm.events.run import KvmEntry, KvmExit
from fakesys.subsystems.kvm.exits import SVM
from fakesys.subsystems.kvm_mmu.events.catalog import EVENTS as MMU_EVENTS
from fakesys.subsystems.kvm_mmu.events.pages import KvmMmuGetPage
from tests.cformat import printed

ORACLE = Path(__file__).parent.parent / "oracle" / "kvm" / "formats-6.18.json"
RECORDED: dict[str, dict[str, Any]] = json.loads(ORACLE.read_text())["systems"]
EVENTS: tuple[type[Tracepoint], ...] = (*KVM_EVENTS, *MMU_EVENTS, *APICV_EVENTS)
# Numbers that tables of names know, and edges.
TELLING = (0, 1, 2, 3, 5, 9, 0x20, 0x60, 0x64, 0x400, 0x401, 0xFF00, 0xFFFFFFFF, 1 << 31, 1 << 63)


def _events(mmu: str, apicv: str) -> dict[str, EventFormat]:
    features = MMU_KERNELS[mmu].features | APICV_KERNELS[apicv].features
    found: dict[str, EventFormat] = {}
    for cls in EVENTS:
        form = event_format(cls, 1, features)
        if form is not None:
            assert form.name not in found, f"{form.name} is there twice in {mmu}, {apicv}"
            found[form.name] = form
    return found


def _recorded() -> Iterator[tuple[str, dict[str, Any]]]:
    for system, events in RECORDED.items():
        for name, event in events.items():
            yield f"{system}:{name}", event


NEW = _events("6.18", "6.18")


@pytest.mark.parametrize(("name", "recorded"), list(_recorded()), ids=lambda value: str(value)[:40])
def test_formats_of_6_18_equal_the_recorded(name: str, recorded: dict[str, Any]) -> None:
    fields = [
        {
            "type": field.ctype.text,
            "name": field.name + field.ctype.suffix,
            "offset": field.offset,
            "size": field.ctype.size,
            "signed": int(field.ctype.signed),
        }
        for field in NEW[name].fields
    ]
    assert fields == recorded["fields"]
    assert NEW[name].print_fmt == recorded["print_fmt"]


def test_6_18_has_the_recorded_events_only() -> None:
    assert sorted(NEW) == sorted(name for name, _ in _recorded())


def _any_value(ctype: CType, name: str, chance: random.Random) -> Any:
    if ctype.holds is Holds.BOOL:
        return chance.random() < 0.5
    if ctype.holds in (Holds.CHARS, Holds.DYNAMIC):
        return chance.choice(("", "a message", "x: %d"))
    if ctype.holds is Holds.BYTES:
        return chance.randbytes(ctype.size)
    if name == "len":
        return chance.randrange(16)
    if name == "errno":
        return chance.choice((0, -4, -14, 22))
    value = chance.choice((*TELLING, chance.getrandbits(8 * ctype.size), chance.randrange(1 << 8)))
    value &= (1 << 8 * ctype.size) - 1
    signed = ctype.signed and value >> 8 * ctype.size - 1
    return value - (1 << 8 * ctype.size) if signed else value


MMU_CHOICE = (
    "5.3",
    "series-04",
    "series-05",
    "series-10",
    "5.4",
    "5.4-stable",
    "6.1",
    "6.12",
    "6.18",
)
KERNELS = [(mmu, "6.18") for mmu in MMU_CHOICE] + [
    ("5.4", apicv) for apicv in APICV_KERNELS if apicv != "6.18"
]


@pytest.mark.parametrize(("mmu", "apicv"), KERNELS)
def test_texts_are_what_the_print_fmt_prints(mmu: str, apicv: str) -> None:
    chance = random.Random(f"{mmu} {apicv}")
    for name, form in _events(mmu, apicv).items():
        # A value as the kernel's own field holds it, where it has one of another type.
        types = dict(declared_fields(form.cls)) | {f.name: f.ctype for f in form.fields}
        for _ in range(25):
            event = form.cls(*(_any_value(ctype, field, chance) for field, ctype in types.items()))
            record = form.decode(form.encode(event, pid=7))
            assert form.text(record) == printed(form.print_fmt, record), f"{name}: {record}"


@pytest.mark.parametrize(
    ("mmu", "count"),
    [
        ("5.1", 13),
        ("5.3", 13),
        ("series-04", 13),
        ("series-05", 14),
        ("series-11", 14),
        ("5.4", 16),
        ("5.4-stable", 16),
        ("6.1", 18),
        ("6.18", 18),
    ],
)
def test_each_kernel_has_its_number_of_mmu_events(mmu: str, count: int) -> None:
    assert len([name for name in _events(mmu, "v3") if name.startswith("kvmmmu:")]) == count


OLD_ONLY = {"kvm_apicv_activate_request", "kvm_apicv_deactivate_request"}


@pytest.mark.parametrize(
    ("apicv", "there", "absent"),
    [
        ("v3", OLD_ONLY, {"kvm_apicv_update_request", "kvm_apicv_inhibit_changed"}),
        ("5.6", {"kvm_apicv_update_request"}, OLD_ONLY | {"kvm_apicv_accept_irq"}),
        ("6.1", {"kvm_apicv_inhibit_changed", "kvm_avic_doorbell"}, OLD_ONLY | {"kvm_rmp_fault"}),
        ("6.18", {"kvm_rmp_fault", "kvm_apicv_accept_irq"}, {"kvm_apicv_update_request"}),
        ("7.x", {"kvm_apicv_inhibit_changed"}, OLD_ONLY),
    ],
)
def test_each_kernel_has_its_apicv_events(apicv: str, there: set[str], absent: set[str]) -> None:
    names = {name.removeprefix("kvm:") for name in _events("5.4", apicv)}
    assert there <= names
    assert not absent & names


def _text(mmu: str, apicv: str, event: Tracepoint) -> str:
    form = _events(mmu, apicv)[f"{event.system}:{event.event}"]
    return form.text(form.decode(form.encode(event, pid=1)))


EXIT = KvmExit(0x78, 0xFFF0, SVM, 1, 2, intr_info=3, error_code=4, vcpu_id=5, requests=6)
ENTRY = KvmEntry(vcpu_id=3, rip=0xFFF0, immediate_exit=True, intr_info=1, error_code=2)
VIRQ = KvmInjVirq(vector=0x30, soft=False, reinjected=True, irq=0x30)
STATE = "rip 0xfff0 info1 0x0000000000000001 info2 0x0000000000000002"


@pytest.mark.parametrize(
    ("apicv", "event", "text"),
    [
        ("v3", EXIT, "reason hlt rip 0xfff0 info 1 2"),
        ("5.6", EXIT, "vcpu 5 reason hlt rip 0xfff0 info 1 2"),
        (
            "6.1",
            EXIT,
            f"vcpu 5 reason hlt {STATE} intr_info 0x00000003 error_code 0x00000004",
        ),
        (
            "6.18",
            EXIT,
            f"vcpu 5 reason hlt {STATE} intr_info 0x00000003 error_code 0x00000004"
            " requests 0x0000000000000006",
        ),
        ("v3", ENTRY, "vcpu 3"),
        ("6.1", ENTRY, "vcpu 3, rip 0xfff0[immediate exit]"),
        (
            "6.18",
            ENTRY,
            "vcpu 3, rip 0xfff0 intr_info 0x00000001 error_code 0x00000002[immediate exit]",
        ),
        ("v3", VIRQ, "irq 48"),
        ("6.1", VIRQ, "IRQ 0x30 [reinjected]"),
        ("v3", KvmApicvActivateRequest(vcpu=4), "vcpu=4"),
        ("v3", KvmApicvDeactivateRequest(4, disable=False), "vcpu=4, disable=suspended"),
        ("5.6", KvmApicvUpdateRequest(activate=True, bit=4), "activate bit=4"),
        ("6.1", KvmApicvInhibitChanged(8, True, 0x101), "set reason=8, inhibits=0x101"),
        (
            "6.18",
            KvmApicvInhibitChanged(8, True, 0x101),
            "set reason=8, inhibits=0x101 DISABLED|IRQWIN",
        ),
        ("6.18", KvmApicvInhibitChanged(8, False, 0), "cleared reason=8, inhibits=0x0"),
    ],
)
def test_texts_of_each_kernel(apicv: str, event: Tracepoint, text: str) -> None:
    assert _text("5.4", apicv, event) == text


PAGE = KvmMmuGetPage(1, 0x10, role=0x1784, root_count=1, unsync=False, created=True)
OLD_PAGE = "gfn 10 l4 4-byte q0 direct wux nxe ad root 1 sync new"


@pytest.mark.parametrize(
    ("mmu", "text"),
    [
        ("5.3", f"sp {OLD_PAGE}"),
        ("series-04", f"sp gen 1 {OLD_PAGE}"),
        ("5.4", f"sp gen 1 {OLD_PAGE}"),
        ("6.18", "sp gen 1 gfn 10 l4 8-byte q0 direct wux nxe ad root 1 sync new"),
    ],
)
def test_texts_of_shadow_pages(mmu: str, text: str) -> None:
    assert _text(mmu, "6.18", PAGE) == text
