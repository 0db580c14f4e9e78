"""libvirt's node devices by virsh: what is listed, how it is described, mdevs made and destroyed.

The libvirtd is started in the private world, with its state in memory and this driver alone.
"""

from __future__ import annotations

import glob
import xml.etree.ElementTree as Xml

import pytest

from tests.tools.helpers import needs
from tests.tools.world import DEVICES, UUID, script_output, sections

# Not by `**`: the links below /usr/lib may make that endless.
DRIVERS = [
    path
    for folder in ("/usr/lib*", "/usr/lib/*")
    for path in glob.glob(f"{folder}/libvirt/connection-driver/libvirt_driver_nodedev.so")
]
pytestmark = [
    needs("libvirtd", "virsh", "mdevctl"),
    pytest.mark.skipif(not DRIVERS, reason="not installed: libvirt's nodedev driver"),
    pytest.mark.usefixtures("private_world"),
]
MDEV = f"mdev_{UUID.replace('-', '_')}_matrix"
DEFINITION = f"""
<device><parent>ap_matrix</parent><capability type="mdev"><type id="vfio_ap-passthrough"/>
<uuid>{UUID}</uuid><attr name="assign_adapter" value="5"/><attr name="assign_domain" value="4"/>
</capability></device>
"""
LIBVIRT = f"""
for folder in /etc/libvirt /var/lib/libvirt /var/cache/libvirt /var/log/libvirt; do
    [ ! -d $folder ] || mount -t tmpfs none $folder
done
mkdir -p /run/lv/drivers; ln -s {" ".join(DRIVERS)} /run/lv/drivers; cd /run/lv
printf '%s\\n' 'unix_sock_dir = "/run/lv"' 'auth_unix_rw = "none"' > conf
export HOME=/run/lv XDG_RUNTIME_DIR=/run/lv XDG_CONFIG_HOME=/run/lv XDG_CACHE_HOME=/run/lv
LIBVIRT_DRIVER_DIR=/run/lv/drivers libvirtd -f conf -p pid 2> log & daemon=$!
trap 'status=$?; [ $status = 0 ] || cat log >&2; kill $daemon; wait $daemon || true' EXIT
for _ in $(seq 200); do [ -S libvirt-sock ] && break; sleep 0.05; done
# It learns of devices by events and by watching mdevctl's folder, a moment later.
until_it_lists() {{
    for _ in $(seq 100); do [ "$(v nodedev-list --cap mdev $2)" = "$1" ] && return; sleep 0.1; done
}}
v() {{ timeout 20 virsh -q -c 'nodedev:///system?socket=/run/lv/libvirt-sock' "$@"; }}
"""


def virsh(script: str, *, kernel: str = "seed", prefix: tuple[str, ...] = ()) -> dict[str, str]:
    """What a script printed that may call `v` for virsh."""
    options = ("--net", "--profile", kernel)
    return sections(script_output(LIBVIRT + script, options=options, prefix=prefix))


@pytest.mark.parametrize("kernel", ["seed", "6.1", "6.12", "6.18"])
def test_lists_are_the_tree(kernel: str) -> None:
    said = virsh(
        """
        for kind in ap_card ap_queue ap_matrix mdev_types mdev; do
            echo "== $kind"; v nodedev-list --cap $kind
        done
        echo "== files"; cd /sys/bus/ap/devices; ls
        """,
        kernel=kernel,
    )
    names = said["files"].split()
    cards = {f"ap_{name}" for name in names if name.startswith("card")}
    queues = {f"ap_{name.replace('.', '_')}" for name in names if "." in name}
    assert set(said["ap_card"].split()) == cards
    assert set(said["ap_queue"].split()) == queues
    assert (len(cards), len(queues)) == (3, 12)
    assert said["ap_matrix"] == said["mdev_types"] == "ap_matrix"
    assert said["mdev"] == ""


def test_descriptions() -> None:
    said = virsh(
        """
        echo "== queue"; v nodedev-dumpxml ap_04_0047
        echo "== card"; v nodedev-dumpxml ap_card04
        echo "== matrix"; v nodedev-dumpxml ap_matrix
        """
    )
    queue = Xml.fromstring(said["queue"])
    assert queue.findtext("path") == "/sys/devices/ap/card04/04.0047"
    assert queue.findtext("parent") == "ap_card04"
    assert queue.findtext("driver/name") == "cex4queue"
    assert queue.findtext("capability[@type='ap_queue']/ap-adapter") == "0x04"
    assert queue.findtext("capability[@type='ap_queue']/ap-domain") == "0x0047"
    card = Xml.fromstring(said["card"])
    assert card.findtext("driver/name") == "cex4card"
    assert card.findtext("capability[@type='ap_card']/ap-adapter") == "0x04"
    kind = Xml.fromstring(said["matrix"]).find("capability/capability[@type='mdev_types']/type")
    assert kind is not None
    assert kind.get("id") == "vfio_ap-passthrough"
    assert {child.tag: child.text for child in kind} == {
        "name": "VFIO AP Passthrough Device",
        "deviceAPI": "vfio-ap",
        "availableInstances": "65536",
    }


def test_as_an_ordinary_user(prefix: tuple[str, ...]) -> None:
    said = virsh(
        f"""
        echo -5 > /sys/bus/ap/apmask; echo '{DEFINITION}' > device.xml
        v nodedev-create device.xml > /dev/null
        echo "== created"; v nodedev-list --cap mdev; cat {DEVICES}/{UUID}/matrix
        """,
        prefix=prefix,
    )
    assert said["created"].split() == [MDEV, "05.0004"]


@pytest.mark.parametrize("kernel", ["seed", "6.1", "6.12", "6.18"])
def test_create_and_destroy(kernel: str) -> None:
    said = virsh(
        f"""
        echo -5 > /sys/bus/ap/apmask; echo '{DEFINITION}' > device.xml
        v nodedev-create device.xml
        echo "== created"; v nodedev-list --cap mdev; cat {DEVICES}/{UUID}/matrix
        echo "== xml"; v nodedev-dumpxml {MDEV}
        v nodedev-destroy {MDEV} > /dev/null
        until_it_lists "" ""
        echo "== destroyed"
        v nodedev-list --cap mdev; ls {DEVICES}
        """,
        kernel=kernel,
    )
    assert said["created"].split() == [MDEV, "05.0004"]
    device = Xml.fromstring(said["xml"])
    assert device.findtext("parent") == "ap_matrix"
    capability = device.find("capability[@type='mdev']")
    assert capability is not None
    assert capability.findtext("uuid") == UUID
    group = capability.find("iommuGroup")
    assert group is not None
    assert group.get("number") == "0"
    assert said["destroyed"] == ""


def test_define_start_and_undefine() -> None:
    said = virsh(
        f"""
        echo -5 > /sys/bus/ap/apmask; echo '{DEFINITION}' > device.xml
        v nodedev-define device.xml
        until_it_lists {MDEV} --inactive
        echo "== defined"; v nodedev-list --cap mdev --inactive; ls {DEVICES}
        v nodedev-start {MDEV} > /dev/null
        until_it_lists {MDEV} ""
        echo "== started"; v nodedev-list --cap mdev; cat {DEVICES}/{UUID}/matrix
        v nodedev-destroy {MDEV} > /dev/null; v nodedev-undefine {MDEV} > /dev/null
        until_it_lists "" --all
        echo "== undefined"; v nodedev-list --cap mdev --all; ls {DEVICES}
        """
    )
    assert said["defined"] == MDEV
    assert said["started"].split() == [MDEV, "05.0004"]
    assert said["undefined"] == ""


def test_a_queue_of_the_host_is_refused() -> None:
    said = virsh(
        f"""
        echo '{DEFINITION}' > device.xml
        echo "== refused"; v nodedev-create device.xml 2>&1 || echo "status $?"; ls {DEVICES}
        """
    )
    assert said["refused"].endswith("status 1")
    assert "os error 99" in said["refused"]
