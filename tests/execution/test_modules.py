"""Programs for modules, nodes of devices and kernel messages in the view of `fakesys exec`."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from fakesys.execution.requests.seccomp import ARCHITECTURES
from tests.execution.helpers import fakesys_exec, shell

CONTROL = "/sys/kernel/debug/fakesys"
LOADED = f"cut -d' ' -f1 {CONTROL}/modules/list"
UUID = "10d9f0ff-1111-2222-3333-444444444444"
CREATE = "/sys/devices/vfio_ap/matrix/mdev_supported_types/vfio_ap-passthrough/create"

needs_filter = pytest.mark.skipif(
    os.uname().machine not in ARCHITECTURES, reason="no filter of system calls for it"
)


def script(text: str, prefix: tuple[str, ...] = (), options: tuple[str, ...] = ()) -> str:
    """The output of a script that must succeed in the view of the default machine."""
    return shell(text, scenario="default", prefix=prefix, options=options)


def has(*programs: str) -> None:
    """Skip without these programs."""
    for program in programs:
        if shutil.which(program, path=os.environ["PATH"] + ":/sbin:/usr/sbin") is None:
            pytest.skip(f"{program} is not installed")


@needs_filter
def test_a_script_of_a_host_runs_to_its_end(prefix: tuple[str, ...]) -> None:
    has("modprobe")
    out = script(
        f"""PATH=$PATH:/sbin:/usr/sbin
        modprobe vfio_ap; modprobe -r vfio_ap; [ ! -e /sys/module/vfio_ap ]
        modprobe vfio_ap; [ -e /sys/module/vfio_ap/refcnt ]
        echo -5 > /sys/bus/ap/apmask
        echo {UUID} > {CREATE}
        [ -c /dev/vfio/0 ]; [ -c /dev/vfio/vfio ]; [ -c /dev/z90crypt ]
        stat -c '%A %t:%T' /dev/vfio/vfio /dev/vfio/0
        echo end""",
        prefix=prefix,
    )
    assert out.splitlines() == ["crw-rw-rw- a:c4", "crw------- fd:0", "end"]


@needs_filter
@pytest.mark.parametrize("box", ["", "busybox "])
def test_modules_are_inserted_and_removed(prefix: tuple[str, ...], box: str) -> None:
    has(box.strip() or "insmod")
    out = script(
        f"""PATH=$PATH:/sbin:/usr/sbin
        {box}rmmod kvm_amd
        {box}insmod /lib/modules/$(uname -r)/kernel/arch/x86/kvm/kvm-amd.ko nested=0
        cat /sys/module/kvm_amd/parameters/nested
        ! {box}rmmod mdev; {LOADED} | head -1
        echo vm create g > {CONTROL}/kvm/ctl; ! {box}rmmod kvm_amd; cat /sys/module/kvm_amd/refcnt
        {box}modprobe vfio_ap; {box}modinfo vfio_ap | grep -c 'description: *VFIO AP'""",
        prefix=prefix,
    )
    assert out.split() == ["0", "kvm_amd", "1", "1"]


@needs_filter
def test_lists_of_modules(prefix: tuple[str, ...]) -> None:
    has("modinfo")
    out = script(
        f"""PATH=$PATH:/sbin:/usr/sbin
        modinfo -F depends vfio_ap; modinfo -F version vfio; modinfo -F license ap
        lsmod | tail -n +2 | cut -d' ' -f1 > /run/a; {LOADED} > /run/b; cmp /run/a /run/b
        [ ! -e /proc/modules ] || cmp /proc/modules {CONTROL}/modules/list""",
        prefix=prefix,
    )
    assert out.split() == ["vfio,mdev", "0.3", "GPL"]


@needs_filter
def test_what_modprobe_reads_is_not_of_the_host(prefix: tuple[str, ...]) -> None:
    has("modprobe")
    out = script(
        """PATH=$PATH:/sbin:/usr/sbin
        ls /etc/modprobe.d; echo options kvm_amd nested=0 > /etc/modprobe.d/x.conf
        modprobe -r kvm_amd; modprobe kvm_amd; cat /sys/module/kvm_amd/parameters/nested
        modprobe dummy 2>/dev/null || echo none""",
        prefix=prefix,
    )
    assert out.split() == ["0", "none"]
    assert not Path("/etc/modprobe.d/x.conf").exists()


@needs_filter
@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user has no other ids")
def test_modules_need_the_capability() -> None:
    has("rmmod")
    done = fakesys_exec(
        "setpriv", "--bounding-set=-sys_module", "/sbin/rmmod", "pkey", scenario="default"
    )
    assert "Operation not permitted" in done.stderr


@needs_filter
def test_modules_of_a_view_within_a_view_are_not_those_around_it() -> None:
    has("rmmod")
    inner = "/sbin/rmmod pkey"
    out = script(
        f"rm -f /run/x; (unshare -m sh -c 'mount -t tmpfs none /run/fakesys/mount; ! {inner}');"
        f"{LOADED} | grep pkey; unshare -m {inner}; ! {LOADED} | grep pkey"
    )
    assert out == "pkey\n"


def test_the_boot_line_is_shown(prefix: tuple[str, ...]) -> None:
    options = ("--boot", "ap.apmask=0xffff kvm_amd.nested=0")
    out = script("cat /proc/cmdline", prefix=prefix, options=options)
    assert out == "ap.apmask=0xffff kvm_amd.nested=0\n"


def test_messages_are_those_of_the_machine(prefix: tuple[str, ...]) -> None:
    has("dmesg")
    out = script("echo hello > /dev/kmsg; dmesg | tail -1; dmesg | wc -l", prefix=prefix)
    last, count = out.splitlines()
    assert last.endswith("] hello")
    assert int(count) < 10


@needs_filter
def test_messages_by_the_system_call(prefix: tuple[str, ...]) -> None:
    has("busybox")
    out = script(
        "echo hello > /dev/kmsg; busybox dmesg | tail -1; busybox dmesg -c > /dev/null;"
        "busybox dmesg | wc -l; echo more > /dev/kmsg; busybox dmesg",
        prefix=prefix,
    )
    first, count, *rest = out.splitlines()
    assert first.endswith("] hello")
    assert count == "0"
    assert len(rest) == 1
    assert rest[0].endswith("] more")


def test_kmsg_gives_one_record_at_a_time() -> None:
    out = script(
        "python3 - <<'END'\n"
        "import os\n"
        "kmsg = os.open('/dev/kmsg', os.O_RDWR | os.O_NONBLOCK)\n"
        "os.write(kmsg, b'<3>one\\n'); os.write(kmsg, b'two')\n"
        "try:\n"
        "    while True: print(os.read(kmsg, 8192).decode(), end='')\n"
        "except BlockingIOError: print('end')\n"
        "END"
    )
    *_, one, two, end = out.splitlines()
    assert one.partition(";")[2] == "one"
    assert two.partition(";")[2] == "two"
    assert int(two.split(",")[1]) == int(one.split(",")[1]) + 1
    assert end == "end"


def test_nodes_of_zcrypt_come_and_go(prefix: tuple[str, ...]) -> None:
    out = script(
        """echo my > /sys/class/zcrypt/create
        for i in $(seq 300); do [ ! -c /dev/my ] || break; sleep 0.02; done
        stat -c '%A %t:%T' /dev/my; [ -c /dev/null ]; echo x > /dev/null
        ! cat /dev/my 2>&1 | grep -v denied
        echo my > /sys/class/zcrypt/destroy
        for i in $(seq 300); do [ -e /dev/my ] || break; sleep 0.02; done
        [ ! -e /dev/my ]""",
        prefix=prefix,
    )
    assert out == "crw------- fc:0\n"
    assert not Path("/dev/my").exists()
