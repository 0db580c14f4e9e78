"""udevadm: properties, attributes, the device data base, and events as they happen."""

from __future__ import annotations

import re

import pytest

from tests.tools.helpers import needs
from tests.tools.world import DEVICES, TYPE, UUID, script_output, sections

pytestmark = [needs("udevadm"), pytest.mark.usefixtures("private_world")]


def properties(text: str) -> dict[str, str]:
    return dict(re.findall(r"^(?:E: )?([A-Z_]+)=(.*)$", text, re.MULTILINE))


def test_properties_are_those_of_the_file(prefix: tuple[str, ...]) -> None:
    script = """
    for device in card05 05.0004; do
        echo "== udevadm $device"; udevadm info /sys/bus/ap/devices/$device
        echo "== uevent $device"; cat /sys/bus/ap/devices/$device/uevent
    done
    """
    said = sections(script_output(script, prefix=prefix))
    for device, path in (
        ("card05", "/devices/ap/card05"),
        ("05.0004", "/devices/ap/card05/05.0004"),
    ):
        shown = properties(said[f"udevadm {device}"])
        assert shown.pop("DEVPATH") == path
        assert shown.pop("SUBSYSTEM") == "ap"
        assert shown == properties(said[f"uevent {device}"])
    assert properties(said["uevent card05"])["DEV_TYPE"] == "000B"


def test_attributes_are_those_of_the_files() -> None:
    script = """
    cd /sys/devices/ap/card05/05.0004
    echo "== udevadm"; udevadm info -a -p /devices/ap/card05/05.0004
    echo "== files"; for file in *; do
        [ ! -f "$file" ] || [ "$file" = uevent ] && continue
        text=$(cat "$file" 2>/dev/null) && echo "$file $text"
    done
    """
    said = sections(script_output(script))
    own = said["udevadm"].split("looking at parent device")[0]
    shown = dict(re.findall(r'ATTR\{([^}/]+)\}=="(.*)"', own))
    files = dict(line.split(" ", 1) for line in said["files"].splitlines() if " " in line)
    # Reads of other files are requests, so it grows.
    assert int(shown.pop("request_count")) >= 0
    assert {name: text for name, text in shown.items() if name in files} == {
        name: files[name] for name in shown
    }
    assert 'DRIVERS=="cex4card"' in said["udevadm"]


def test_trigger_names_all_devices_of_the_bus() -> None:
    script = """
    echo "== trigger"; udevadm trigger -n -v -s ap
    echo "== files"; for device in /sys/bus/ap/devices/*; do readlink -f $device; done
    """
    said = sections(script_output(script))
    shown = set(said["trigger"].split()) - {"/sys/devices/ap"}
    assert shown == set(said["files"].split())
    assert len(shown) == 15


def test_the_data_base_shows_both_sides() -> None:
    said = script_output("udevadm info --export-db | grep ^P:")
    assert "P: /devices/ap/card04/04.0047\n" in said
    assert "P: /devices/vfio_ap/matrix\n" in said
    assert "P: /devices/system/cpu/cpu0\n" in said


@pytest.mark.parametrize("family", ["kernel", "udev"])
def test_events_arrive_in_a_private_network(family: str, prefix: tuple[str, ...]) -> None:
    script = f"""
    udevadm monitor --{family} --property --subsystem-match=mdev > /run/events & monitor=$!
    trap 'kill $monitor 2>/dev/null || true' EXIT
    for _ in $(seq 100); do grep -q processing /run/events && break; sleep 0.02; done
    [ {family} = udev ] || sleep 0.1
    echo {UUID} > {TYPE}/create; [ -d {DEVICES}/{UUID} ]; echo 1 > {DEVICES}/{UUID}/remove
    for _ in $(seq 100); do grep -q ACTION=remove /run/events && break; sleep 0.02; done
    kill $monitor; cat /run/events
    """
    said = script_output(script, options=("--net",), prefix=prefix)
    events = [properties(block) for block in said.split("\n\n")[1:] if "ACTION" in block]
    assert [event["ACTION"] for event in events] == ["add", "bind", "unbind", "remove"]
    for event in events:
        assert event["DEVPATH"] == f"/devices/vfio_ap/matrix/{UUID}"
        assert event["SUBSYSTEM"] == "mdev"
    numbers = [int(event["SEQNUM"]) for event in events]
    assert numbers == sorted(numbers)


@pytest.mark.parametrize(
    ("match", "device", "others"),
    [
        ("ap/ap_card", "bus/ap/devices/card05", "bus/ap/devices/05.0004"),
        ("ap/ap_queue", "bus/ap/devices/05.0004", "bus/ap/devices/card05"),
        ("ap", "bus/ap/devices/card05", "bus/matrix/devices/matrix"),
        ("matrix", "bus/matrix/devices/matrix", "bus/ap/devices/card05"),
        ("bus", "bus/mdev", "bus/ap/devices/card05"),
        ("drivers", "bus/ap/drivers/vfio_ap", "bus/ap"),
    ],
)
def test_listeners_of_udev_filter_by_hash(match: str, device: str, others: str) -> None:
    """The filter runs in the kernel, on hashes of subsystem and type that the message carries."""
    script = f"""
    udevadm monitor --udev --property --subsystem-match={match} > /run/events & monitor=$!
    trap 'kill $monitor 2>/dev/null || true' EXIT
    for _ in $(seq 100); do grep -q processing /run/events && break; sleep 0.02; done
    echo change > /sys/{others}/uevent; echo online > /sys/{device}/uevent
    for _ in $(seq 100); do grep -q ACTION= /run/events && break; sleep 0.02; done
    kill $monitor; cat /run/events
    """
    said = script_output(script, options=("--net",))
    events = [properties(block) for block in said.split("\n\n")[1:] if "ACTION" in block]
    assert [event["ACTION"] for event in events] == ["online"]
    assert events[0]["SUBSYSTEM"] == match.partition("/")[0]
    assert events[0]["SYNTH_UUID"] == "0"


def test_a_device_is_whole_before_its_event() -> None:
    """A listener that looks at once finds the device with its links, every time."""
    script = f"""
    udevadm monitor --kernel --subsystem-match=mdev > /run/events & monitor=$!
    trap 'kill $monitor 2>/dev/null || true' EXIT
    sleep 0.2
    look() {{ cat {DEVICES}/{UUID}/uevent {DEVICES}/{UUID}/mdev_type/device_api; }}
    (while read -r line; do case $line in *" add "*) look && echo seen >> /run/seen;; esac; done \\
        < <(tail -f -s 0.01 /run/events)) > /dev/null 2> /run/errors & reader=$!
    for _ in 1 2 3 4 5; do
        before=$(grep -c seen /run/seen 2>/dev/null || true)
        echo {UUID} > {TYPE}/create
        for _ in $(seq 100); do
            [ "$(grep -c seen /run/seen 2>/dev/null || true)" != "$before" ] && break; sleep 0.02
        done
        echo 1 > {DEVICES}/{UUID}/remove
    done
    kill $monitor $reader; cat /run/errors >&2; grep -c seen /run/seen
    """
    assert script_output(script, options=("--net",)) == "5\n"


def test_virtual_machines_tell_of_themselves() -> None:
    script = """
    udevadm monitor --kernel --property --subsystem-match=misc > /run/events & monitor=$!
    trap 'kill $monitor 2>/dev/null || true' EXIT
    for _ in $(seq 100); do grep -q KERNEL /run/events && break; sleep 0.02; done; sleep 0.1
    echo vm create g > /sys/kernel/debug/fakesys/kvm/ctl
    ls -d /sys/kernel/debug/kvm/*/
    echo vm destroy g > /sys/kernel/debug/fakesys/kvm/ctl
    for _ in $(seq 100); do grep -q EVENT=destroy /run/events && break; sleep 0.02; done
    kill $monitor; cat /run/events
    """
    folder, _, said = script_output(script, options=("--net",)).partition("\n")
    events = [properties(block) for block in said.split("\n\n") if "ACTION" in block]
    assert [event["EVENT"] for event in events] == ["create", "destroy"]
    for event in events:
        assert event["DEVPATH"] == "/devices/virtual/misc/kvm"
        assert event["STATS_PATH"] == folder.removeprefix("/sys/kernel/debug").rstrip("/")
        assert event["STATS_PATH"].startswith(f"/kvm/{event['PID']}-")
        assert event["DEVNAME"] == "/dev/kvm"


def test_no_event_without_a_private_network() -> None:
    script = f"""
    udevadm monitor --kernel --subsystem-match=mdev > /run/events & monitor=$!
    trap 'kill $monitor 2>/dev/null || true' EXIT
    sleep 0.3; echo {UUID} > {TYPE}/create; sleep 0.3; kill $monitor
    grep -c mdev /run/events || true
    """
    assert script_output(script) == "0\n"
