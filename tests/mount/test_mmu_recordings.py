"""Recordings of a real KVM replayed on a mount, their events read from its tracefs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mounts import Mount, mounted
from tests.replay_kvm.__main__ import main
from tests.replay_kvm.machines import on_mount
from tests.replay_kvm.recordings import ORACLE, load
from tests.replay_kvm.replay import Replay

RECORDINGS = load(ORACLE)
# Refusals and lifetimes; a zap that a second vCPU feels; dirty logs; a guest that edits its
# tables; large steps; invalidations by the host.
SOME = (
    "slot-errors",
    "two-vcpus-delete",
    "dirty-log-manual",
    "unsync-second-vcpu",
    "touch-512",
    "notifier-unmap",
)


@pytest.fixture(scope="module")
def machine(public_folder: Path) -> Iterator[Mount]:
    with mounted(public_folder, scenario="default") as mount:
        yield mount


@pytest.mark.parametrize("name", SOME)
def test_recording(machine: Mount, name: str) -> None:
    with on_mount(machine.root) as (files, events):
        verdict = Replay(files, events, RECORDINGS.aliases).run(RECORDINGS.named(name))
    assert verdict.differences == []
    assert verdict.steps == verdict.all_events == len(RECORDINGS.named(name)["steps"])


def test_the_machine_is_left_as_it_was(machine: Mount) -> None:
    for name, text in (("mmu_profile", "5.4"), ("params/paging", "tdp"), ("params/as_num", "2")):
        shown = (machine.control / "kvm" / name).read_text()
        assert f"[{text}]" in shown if "[" in shown else shown == f"{text}\n"
    assert list((machine.root / "sys/kernel/tracing/instances").iterdir()) == []
    assert list((machine.control / "kvm/vms").iterdir()) == []


def test_a_machine_with_a_vm_is_refused(machine: Mount, capsys: pytest.CaptureFixture[str]) -> None:
    machine.command("kvm/ctl", "vm create other")
    try:
        status = main([str(ORACLE), "--only", "touch-one", "--mount", str(machine.root)])
        captured = capsys.readouterr()
        assert (status, captured.out) == (1, "")
        assert "Device or resource busy" in captured.err
    finally:
        machine.command("kvm/ctl", "vm destroy other")
