"""The worked example, in process: every command answers as its kernel would."""

from __future__ import annotations

import os
from string import Template

import pytest

from fakesys.core.errors import KernelError
from fakesys.machine.machine import Machine
from tests.three_guests import KERNELS, STEPS, VARIABLES

PROFILES = {"v6": "seed", "6.1": "6.1", "6.12": "6.12"}


def run(machine: Machine, command: str) -> str:
    """`echo TEXT > FILE`, `cat FILE` or `ls DIR`; the output, or the words of the errno."""
    words = Template(command).substitute(VARIABLES).split()
    try:
        if words[0] == "echo":
            machine.write(words[-1], " ".join(words[1:-2]) + "\n")
            return ""
        if words[0] == "ls":
            return "".join(f"{name}\n" for name in sorted(machine.listdir(words[1])))
        return machine.read(words[1])
    except KernelError as refusal:
        return os.strerror(refusal.errno or 0)


@pytest.mark.parametrize("kernel", KERNELS)
def test_every_command_answers_as_listed(kernel: str) -> None:
    machine = Machine(PROFILES[kernel])
    for step in STEPS:
        assert run(machine, step.command) == step.expected(kernel), step.command


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_kernel_may_be_chosen_on_the_mount(kernel: str) -> None:
    machine = Machine()
    machine.write("sys/kernel/debug/fakesys/ap/profile", f"{kernel}\n")
    for step in STEPS:
        assert run(machine, step.command) == step.expected(kernel), step.command
