"""What only VMs need is imported late, and then all of it."""

from __future__ import annotations

import subprocess
import sys

MODELS = "fakesys.machine.kvm.models"
# Reads what a machine without VMs has, then makes one; prints what was imported at each step.
STEPS = f"""
import sys

from fakesys.machine.machine import Machine

def mine():
    return {{name for name in sys.modules if name.startswith("fakesys")}}

def listed(path=""):
    for name in machine.listdir(path):
        below = f"{{path}}/{{name}}".lstrip("/")
        try:
            listed(below)
        except OSError:
            pass

machine = Machine("6.1")
machine.read("sys/module/kvm/parameters/nx_huge_pages")
machine.read("sys/module/kvm_amd/parameters/avic")
machine.read("sys/kernel/debug/kvm/exits")
listed("sys/kernel/debug/kvm")
print({MODELS!r} in mine())
if sys.argv[1:]:
    for _ in machine.subsystems.kvm.load():
        pass
before = mine()
machine.write("sys/kernel/debug/fakesys/kvm/ctl", "vm create a")
machine.write("sys/kernel/debug/fakesys/kvm/ctl", "a vcpu add count=2")
machine.read("sys/kernel/debug/fakesys/kvm/vms/a/mmu")
print({MODELS!r} in mine(), sorted(mine() - before))
"""


def lines(*more: str) -> list[str]:
    """What a new process prints."""
    done = subprocess.run(
        [sys.executable, "-c", STEPS, *more], capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout.splitlines()


def test_a_machine_without_vms_does_not_import_their_models() -> None:
    first, second = lines()
    assert first == "False"
    assert second.startswith("True ['fakesys.machine.kvm.models', ")


def test_a_daemon_imports_all_of_it_in_parts() -> None:
    assert lines("load") == ["False", "True []"]
