"""Events of the systems around KVM: their formats as recorded, and those that clients cause."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pytest

from fakesys.machine.machine import Machine
from fakesys.subsystems.tracing.events.host import EVENTS

TRACING = "sys/kernel/tracing"
# Of each event the digest of its `format` with another ID, from Linux 6.1.192 and 6.18.44.
RECORDED = json.loads(
    (Path(__file__).parent.parent / "oracle/tracefs/host_formats.json").read_text()
)


@pytest.mark.parametrize("profile", RECORDED)
def test_formats_are_those_of_the_kernel(profile: str) -> None:
    machine = Machine(profile)
    wrong = []
    for name, digest in RECORDED[profile].items():
        text = machine.read(f"{TRACING}/events/{name.replace(':', '/')}/format")
        text = re.sub(r"^ID: .*$", "ID: 1", text, flags=re.MULTILINE)
        if hashlib.sha256(text.encode()).hexdigest()[:16] != digest:
            wrong.append(name)
    assert not wrong
    listed = machine.read(f"{TRACING}/available_events").split()
    assert [name for name in listed if not name.startswith("kvm")] == list(RECORDED[profile])


@pytest.mark.parametrize("profile", ["seed", "6.1", "6.12", "6.18"])
def test_an_event_that_happens_has_a_format_in_every_kernel(profile: str) -> None:
    catalog = Machine(profile).subsystems.tracing.tracing.shared.catalog
    for name, cls in EVENTS.items():
        form = catalog.by_name[name]
        assert form.cls is cls
        assert {field.name for field in form.fields if field.name != "__syscall_nr"} <= {
            *cls.__struct_fields__
        }


def test_formats_are_read_when_they_are_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine starts without them."""
    machine = Machine("6.1")
    catalog = machine.subsystems.tracing.tracing.shared.catalog
    assert not [form for form in catalog.events if "_loaded" in vars(form)]
    machine.read(f"{TRACING}/available_events")
    machine.read(f"{TRACING}/events/sched/sched_waking/format")
    assert [form.event for form in catalog.events if "_loaded" in vars(form)] == ["sched_waking"]


def test_all_events_can_be_switched_and_filtered() -> None:
    machine = Machine("6.18")
    machine.write(f"{TRACING}/events/enable", "1")
    assert machine.read(f"{TRACING}/events/enable") == "1\n"
    machine.write(f"{TRACING}/events/timer/hrtimer_start/filter", "expires > 5 && mode == 1")
    machine.write(f"{TRACING}/events/irq/irq_handler_entry/filter", 'name ~ "eth*"')
    machine.write(f"{TRACING}/events/enable", "0")
    assert machine.read(f"{TRACING}/set_event") == ""
