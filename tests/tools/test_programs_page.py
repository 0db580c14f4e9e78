"""The commands of `fakesys doc programs`, run as they stand there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from importlib import resources
from pathlib import Path

import pytest

from tests.mounts import Mount
from tests.tools import kernel_source, s390
from tests.tools.helpers import SECONDS, need_a_line_of_debugfs

pytestmark = pytest.mark.usefixtures("private_world")

PAGE = (resources.files("fakesys") / "docs" / "programs.md").read_text()
BLOCKS = {
    heading: block
    for heading, text in re.findall(r"^###? (.*)\n((?:(?!^###? ).*\n)*)", PAGE, re.MULTILINE)
    for block in re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
}
# What a block calls that a machine may lack.
OPTIONAL = ("mdevctl", "libvirtd", "virsh", "udevadm", "systool", "trace-cmd", "perf", "modprobe")


def test_every_section_of_a_program_has_its_commands() -> None:
    assert len(BLOCKS) == PAGE.count("```sh\n") == 11
    assert {heading.split()[0] for heading in BLOCKS} >= {
        "mdevctl",
        "libvirt:",
        "kvm_stat",
        "zcryptctl",
    }


@pytest.mark.parametrize("heading", BLOCKS)
def test_commands(
    plain: Mount, tmp_path: Path, heading: str, request: pytest.FixtureRequest
) -> None:
    block = BLOCKS[heading]
    missing = [
        program
        for program in OPTIONAL
        if re.search(rf"\b{program}\b", block) and shutil.which(program) is None
    ]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    environment = {**os.environ, "M": str(plain.root), "PATH": path_with(tmp_path, block, request)}
    if "$S390" in block:
        environment["S390"] = str(request.getfixturevalue("s390_root"))
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip()


def path_with(folder: Path, block: str, request: pytest.FixtureRequest) -> str:
    """PATH with `fakesys`, and with programs of the block that are not installed under its name."""
    programs = folder / "bin"
    programs.mkdir()
    fakesys = programs / "fakesys"
    fakesys.write_text(f'#!/bin/sh\nexec {sys.executable} -m fakesys "$@"\n')
    fakesys.chmod(0o755)
    if "kvm_stat" in block:
        need_a_line_of_debugfs()
        if shutil.which("kvm_stat") is None:
            tools: kernel_source.Source = request.getfixturevalue("kernel_tools")
            (programs / "kvm_stat").symlink_to(tools.root / kernel_source.KVM_STAT / "kvm_stat")
    if "qemu" in block and shutil.which(s390.QEMU[0]) is None:
        other = shutil.which(s390.QEMU[1])
        if other:
            (programs / s390.QEMU[0]).symlink_to(other)
    return f"{programs}:{os.environ['PATH']}"
