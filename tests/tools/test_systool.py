"""systool of sysfsutils: values equal the files, the machine's own buses stay visible."""

from __future__ import annotations

import re

import pytest

from tests.tools.helpers import needs
from tests.tools.world import script_output, sections

pytestmark = [needs("systool"), pytest.mark.usefixtures("private_world")]


def blocks(text: str) -> dict[str, dict[str, str]]:
    """Attributes with their values by device; texts of one line only."""
    found = {}
    for part in re.split(r'^  Device = "', text, flags=re.MULTILINE)[1:]:
        name, _, body = part.partition('"')
        found[name] = dict(re.findall(r'^    (\w+) += "([^"\n]*)"$', body, re.MULTILINE))
    return found


def test_a_bus_with_values() -> None:
    script = """
    echo "== systool"; systool -b ap -v
    cd /sys/bus/ap/devices
    # Not `request_count`: reading the other files of a card lets it answer further requests.
    echo "== files"; grep -H '' */*q_count */online */status 2>/dev/null || true
    """
    said = sections(script_output(script))
    shown = blocks(said["systool"])
    assert len(shown) == 15
    for line in said["files"].splitlines():
        path, _, text = line.partition(":")
        device, _, name = path.partition("/")
        assert shown[device][name] == text
    # A file called `config` is taken for binary, as on a mainframe.
    assert re.search(r"config +=  31 0a", said["systool"])


@pytest.mark.parametrize("kernel", ["seed", "6.1"])
def test_a_module_with_its_parameters(kernel: str) -> None:
    script = """
    echo "== systool"; systool -m kvm_amd -v
    cd /sys/module/kvm_amd; echo "== files"
    { grep -s '' * parameters/* || true; } | sed 's,^parameters/,,'
    """
    said = sections(script_output(script, options=("--profile", kernel)))
    shown = dict(re.findall(r'^    (\w+) *= "([^"\n]*)"$', said["systool"], re.MULTILINE))
    files = dict(line.split(":", 1) for line in said["files"].splitlines())
    assert shown == files
    assert {"avic", "npt"} <= shown.keys()


def test_write_only_files_do_not_show() -> None:
    said = script_output("systool -b mdev -v; systool -c mdev_bus -v; systool -m vfio_ap -v")
    assert "assign_adapter" not in said
    assert "vfio_ap" in said


def test_the_machines_buses_are_there_too(prefix: tuple[str, ...]) -> None:
    lines = script_output("systool", prefix=prefix).split()
    assert {"ap", "mdev", "matrix", "cpu", "platform"} <= set(lines)
