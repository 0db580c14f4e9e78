"""mdevctl: define, modify, start, list, stop, undefine, and what it says of refusals."""

from __future__ import annotations

import pytest

from tests.tools.helpers import needs
from tests.tools.world import DEVICES, OTHER, TYPE, UUID, script_output, sections, try_script

pytestmark = [needs("mdevctl"), pytest.mark.usefixtures("private_world")]

DEFINE = (
    f"mdevctl define --uuid {UUID} --parent matrix --type vfio_ap-passthrough\n"
    f'modify() {{ mdevctl modify --uuid {UUID} --addattr="$1" --value="$2"; }}\n'
)


def test_types(prefix: tuple[str, ...]) -> None:
    lines = [line.strip() for line in script_output("mdevctl types", prefix=prefix).split("\n")]
    assert [line for line in lines if line] == [
        "matrix",
        "vfio_ap-passthrough",
        "Available instances: 65536",
        "Device API: vfio-ap",
        "Name: VFIO AP Passthrough Device",
    ]


@pytest.mark.parametrize("kernel", ["seed", "6.1", "6.12", "6.18"])
def test_the_life_of_a_device(kernel: str) -> None:
    script = f"""
    echo -5 > /sys/bus/ap/apmask
    {DEFINE}
    modify assign_adapter 5; modify assign_domain 4; modify assign_domain 0x47
    modify assign_control_domain 4
    echo "== defined"; mdevctl list --defined
    mdevctl start --uuid {UUID}
    echo "== started"; mdevctl list
    echo "== matrix"; cat {DEVICES}/{UUID}/matrix
    echo "== control"; cat {DEVICES}/{UUID}/control_domains
    echo "== instances"; cat {TYPE}/available_instances
    echo "== again"; mdevctl start --uuid {UUID} 2>&1 || echo "status $?"
    mdevctl stop --uuid {UUID}
    echo "== stopped"; mdevctl list; ls {DEVICES}; cat {TYPE}/available_instances
    mdevctl undefine --uuid {UUID}
    echo "== undefined"; mdevctl list --defined
    """
    said = sections(script_output(script, options=("--profile", kernel)))
    assert said["defined"] == f"{UUID} matrix vfio_ap-passthrough manual"
    assert said["started"] == f"{UUID} matrix vfio_ap-passthrough manual (defined)"
    assert said["matrix"] == "05.0004\n05.0047"
    assert said["control"] == "0004"
    assert said["instances"] == "65535"
    assert "Device already exists" in said["again"]
    assert "status" in said["again"]
    assert said["stopped"] == "65536"
    assert said["undefined"] == ""


def test_a_device_that_starts_by_itself_is_listed_so() -> None:
    said = script_output(f"""
    echo -5 > /sys/bus/ap/apmask
    mdevctl define --auto --uuid {UUID} --parent matrix --type vfio_ap-passthrough
    mdevctl list --defined; mdevctl start --uuid {UUID}; mdevctl list
    """)
    line = f"{UUID} matrix vfio_ap-passthrough auto"
    assert [one for one in said.splitlines() if one] == [line, f"{line} (defined)"]


def test_as_an_ordinary_user(prefix: tuple[str, ...]) -> None:
    script = f"""
    echo -5 > /sys/bus/ap/apmask
    {DEFINE}
    modify assign_adapter 5; modify assign_domain 4
    mdevctl start --uuid {UUID}; cat {DEVICES}/{UUID}/matrix; mdevctl stop --uuid {UUID}
    """
    assert script_output(script, prefix=prefix) == "05.0004\n"


def test_a_queue_of_another_device_is_refused_and_nothing_is_left() -> None:
    script = f"""
    echo -5 > /sys/bus/ap/apmask
    echo {OTHER} > {TYPE}/create
    echo 5 > {DEVICES}/{OTHER}/assign_adapter; echo 4 > {DEVICES}/{OTHER}/assign_domain
    {DEFINE}
    modify assign_adapter 5; modify assign_domain 4
    echo "== start"; mdevctl start --uuid {UUID} 2>&1 || echo "status $?"
    echo "== left"; ls {DEVICES}
    """
    said = sections(script_output(script))
    assert "os error 98" in said["start"]
    assert "status" in said["start"]
    assert said["left"].split() == [OTHER]


def test_a_queue_of_the_host_is_refused() -> None:
    script = f"""
    {DEFINE}
    modify assign_adapter 5; modify assign_domain 4
    mdevctl start --uuid {UUID} 2>&1 || ls {DEVICES}
    """
    assert "os error 99" in script_output(script)


def test_an_attribute_that_does_not_exist() -> None:
    script = f"{DEFINE}\nmodify assign_nonsense 5; mdevctl start --uuid {UUID}"
    done = try_script(script)
    assert done.returncode != 0
    assert "Invalid attribute" in done.stderr
