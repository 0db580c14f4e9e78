"""zcryptctl: nodes of zcrypt are made, changed and removed, and refusals arrive."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.execution.helpers import ordinary_user, shell
from tests.tools import s390
from tests.tools.machines import S390

pytestmark = pytest.mark.usefixtures("private_world")

FUNCTION = """z() { "$Z" "$@"; }
made() {
    for i in $(seq 300); do
        [ ! -c /dev/$1 ] || [ ! -d /sys/class/zcrypt/$1 ] || return 0; sleep 0.02
    done; return 1
}
"""


def script(root: Path, text: str, profile: str = "6.12", prefix: tuple[str, ...] = ()) -> str:
    """The output of a script that calls the program `z`, in the view of the default machine."""
    program = " ".join(s390.command(root, "zcryptctl"))
    function = FUNCTION.replace('"$Z"', program)
    options = ("--profile", profile)
    return shell(function + text, scenario="default", options=options, prefix=prefix)


def test_nodes_are_listed_on_a_mount(each_kernel: S390) -> None:
    machine = each_kernel
    assert machine.ok("zcryptctl", "list") == "No additional zcrypt device nodes defined\n"
    assert machine.ok("zcryptctl", "create", "my") == "Device node created\n"
    assert machine.ok("zcryptctl", "create") == "Device node created\n"
    found = machine.ok("zcryptctl", "list").split("zcrypt node name:")
    assert [node.split()[0] for node in found[1:]] == ["my", "zcrypt_1"]
    assert "major:minor:\t252:0" in found[1]
    assert "device node:\t/dev/zcrypt_1" in found[2]
    said = machine.refused("zcryptctl", "create", "my")
    assert "Could not write into sysfs entry to create zdev node" in said


@pytest.mark.parametrize("profile", ["seed", "6.1", "6.12"])
def test_what_a_node_allows(s390_root: Path, profile: str) -> None:
    out = script(
        s390_root,
        """z create my; made my
        z addap my 5; z adddom my 4; z addctrl my 9; z addioctl my ZSECSENDCPRB
        z list; cat /sys/devices/virtual/zcrypt/my/apmask
        z delap my 5; z deldom my ALL; z list | grep -c 'domains:$'
        z destroy my; z list""",
        profile,
    )
    assert "Adapter 5 added\nDomain 4 added\nControl domain 9 added\nIoctl ZSECSENDCPRB" in out
    assert "  adapter:\t5\n  domains:\t4\n  control domains:\t9\n  ioctls:\tZSECSENDCPRB\n" in out
    assert f"\n0x04{'0' * 62}\nAdapter 5 removed\n" in out
    assert out.endswith(
        "All domains removed\n1\nDevice node 'my' marked for destruction\n"
        "No additional zcrypt device nodes defined\n"
    )


def test_an_ordinary_user_has_nodes_too(s390_root: Path) -> None:
    prefix = ordinary_user()
    if not _open_to_all(s390_root):
        pytest.skip("the programs are in a folder of root")
    out = script(s390_root, "z create my; made my; z addap my 5; z list", prefix=prefix)
    assert "adapter:\t5" in out


def _open_to_all(folder: Path) -> bool:
    return all(each.stat().st_mode & 1 for each in (folder, *folder.parents))
