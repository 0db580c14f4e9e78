"""The guided example of `fakesys doc mmu`: every command answers what the page says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import resources

import pytest

from fakesys.core.errors import KernelError
from fakesys.machine.machine import Machine
from tests.files.mmu import CONTROL, TRACING

PAGE = (resources.files("fakesys") / "docs" / "mmu.md").read_text()


def steps() -> Iterator[tuple[str, str]]:
    """Each line that a user types, and what it prints."""
    for block in re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL):
        yield from re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block, re.MULTILINE)


def told(machine: Machine) -> str:
    """What `grep -o 'kvm.*' | cut -d' ' -f2-` leaves of the trace."""
    trace = machine.read(f"{TRACING}/trace")
    lines = (line for line in trace.splitlines() if not line.startswith("#"))
    texts = (re.sub(r"^.*?: (kvm\S*: )?", "", line) for line in lines)
    return "".join(f"{text}\n" for text in texts)


def answer_of(machine: Machine, command: str) -> str | None:
    """The same done through the files of a machine; None for what only a shell does."""
    if command.startswith("kvm "):
        try:
            machine.write(f"{CONTROL}/ctl", command.removeprefix("kvm ") + "\n")
        except KernelError as refusal:
            assert machine.read(f"{CONTROL}/last") == f"error {refusal.name} {refusal.why}\n"
        return machine.read(f"{CONTROL}/last")
    if found := re.fullmatch(r"cat \$K/(\S+)", command):
        return machine.read(f"{CONTROL}/{found[1]}")
    if found := re.fullmatch(r"grep -e (\w+) -e (\w+) \$K/(\S+)", command):
        lines = machine.read(f"{CONTROL}/{found[3]}").splitlines(keepends=True)
        return "".join(line for line in lines if found[1] in line or found[2] in line)
    if command.startswith("grep -o"):
        return told(machine)
    if command == "> tracing/trace":
        machine.write(f"{TRACING}/trace", "\n")
        return ""
    if command.startswith("echo 1 > tracing/"):
        machine.write(f"sys/kernel/{command.split()[-1]}", "1\n")
        return ""
    return None


def test_the_guided_example() -> None:
    machine = Machine()
    shell_only = [
        command for command, expected in steps() if not _agrees(machine, command, expected)
    ]
    assert [command.split("=")[0].split("(")[0] for command in shell_only] == ["K", "kvm"]
    assert len(list(steps())) > 15


def _agrees(machine: Machine, command: str, expected: str) -> bool:
    found = answer_of(machine, command)
    assert found is None or found == expected, command
    return found is not None


@pytest.mark.parametrize("name", ["5.3", "series-11", "5.4-stable", "6.18"])
def test_the_page_speaks_of_every_kernel(name: str) -> None:
    assert f"| `{name}`" in PAGE
