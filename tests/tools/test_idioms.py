"""Lines that administrators and documentation use every day."""

from __future__ import annotations

import re

import pytest

from tests.tools.world import DEVICES, GUEST, OTHER, TYPE, UUID, script_output, sections

pytestmark = pytest.mark.usefixtures("private_world")

GUESTS = (
    """
ctl=/sys/kernel/debug/fakesys/kvm/ctl
while read -r command; do echo "$command" > $ctl; done <<END
"""
    + GUEST
    + """a vcpu 0 run w=0x300000 r=0x3f00000
vm create b
b vcpu add
END
"""
)


@pytest.mark.parametrize(("kernel", "avic"), [("seed", "[01]"), ("6.1", "[YN]"), ("6.18", "[YN]")])
def test_parameters_of_a_module(kernel: str, avic: str, prefix: tuple[str, ...]) -> None:
    said = script_output(
        "grep -H '' /sys/module/kvm_amd/parameters/*",
        options=("--profile", kernel),
        prefix=prefix,
    )
    assert re.search(rf"^/sys/module/kvm_amd/parameters/avic:{avic}$", said, re.MULTILINE)
    assert "/sys/module/kvm_amd/parameters/npt:Y\n" in said


def test_counters_of_every_guest() -> None:
    said = sections(
        script_output(f"""{GUESTS}
        echo "== each"; for vm in /sys/kernel/debug/kvm/*/; do cat $vm/exits; done
        echo "== all"; cat /sys/kernel/debug/kvm/exits
        echo "== offsets"; cat /sys/kernel/debug/kvm/*/vcpu*/tsc-offset
        """)
    )
    each = [int(number) for number in said["each"].split()]
    assert len(each) == 2
    assert sum(each) == int(said["all"]) > 0
    assert len(said["offsets"].split()) == 3


@pytest.mark.parametrize("kernel", ["seed", "6.1", "6.12", "6.18"])
def test_mediated_devices_by_hand(kernel: str, prefix: tuple[str, ...]) -> None:
    said = sections(
        script_output(
            f"""
            echo {UUID} > {TYPE}/create; echo {OTHER} > {TYPE}/create
            echo "== devices"; ls /sys/bus/mdev/devices
            echo "== group"; readlink {DEVICES}/{UUID}/iommu_group
            number=$(basename "$(readlink {DEVICES}/{UUID}/iommu_group)")
            echo "== members"; ls /sys/kernel/iommu_groups/$number/devices
            echo "== canonical"; readlink -f {DEVICES}/{UUID}
            echo 1 > {DEVICES}/{UUID}/remove
            echo "== left"; ls /sys/bus/mdev/devices /sys/kernel/iommu_groups
            """,
            options=("--profile", kernel),
            prefix=prefix,
        )
    )
    assert said["devices"].split() == [UUID, OTHER]
    assert re.fullmatch(r"(\.\./)+kernel/iommu_groups/\d+", said["group"])
    assert said["members"] == UUID
    assert said["canonical"] == f"/sys/devices/vfio_ap/matrix/{UUID}"
    assert said["left"].split() == [
        "/sys/bus/mdev/devices:",
        OTHER,
        "/sys/kernel/iommu_groups:",
        "1",
    ]


def test_the_recipe_of_the_documentation() -> None:
    """Free the queues by the masks, then give them to a guest's device, then look."""
    said = sections(
        script_output(f"""
        [ "$(cat /sys/module/vfio_ap/initstate)" = live ]
        echo -5,-6 > /sys/bus/ap/apmask; echo -4,-0xab > /sys/bus/ap/aqmask
        echo {UUID} > {TYPE}/create; cd {DEVICES}/{UUID}
        echo 5 > assign_adapter; echo 6 > assign_adapter
        echo 4 > assign_domain; echo 0xab > assign_domain; echo 4 > assign_control_domain
        echo "== matrix"; cat matrix; echo "== control"; cat control_domains
        echo "== status"; cat /sys/bus/ap/devices/05.0004/status
        """)
    )
    assert said["matrix"].split() == ["05.0004", "05.00ab", "06.0004", "06.00ab"]
    assert said["control"] == "0004"
    assert said["status"] == "assigned"
