"""The host is the same after commands that try to change it, as root of the view of `exec`."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest

from fakesys.execution.requests.seccomp import ARCHITECTURES
from tests.execution.helpers import exec_command, fakesys_exec, shell

# What a kernel changes by itself.
RESTLESS = ("random", "nr_open_files", "file-nr", "inode", "dentry", "pty", "ns_last_pid", "time")
SAMPLE = (
    "/sys/kernel/mm",
    "/sys/module/fuse/parameters",
    "/sys/module/kernel/parameters",
    "/sys/module/workqueue/parameters",
    "/sys/power",
)
PLACES = (
    "/dev",
    "/dev/vfio",
    "/etc/modprobe.d",
    "/lib/modules",
    f"/lib/modules/{os.uname().release}",
    "/etc",
    "/etc/mdevctl.d",
    "/etc/udev",
    "/etc/udev/rules.d",
    "/run",
    "/sys/fs/cgroup",
)
# Not the tool of the shell: each is an attack of its own, and most of them must fail.
HOSTILE = r"""
echo 21 > /sys/kernel/mm/ksm/sleep_millisecs
echo 1 > /sys/module/fuse/parameters/max_user_bgreq
echo 123 > /sys/module/workqueue/parameters/power_efficient
echo never > /sys/kernel/mm/transparent_hugepage/enabled
echo 1 > /sys/power/wakeup_count
echo 1 > /proc/sys/vm/swappiness
echo 1 > /proc/sys/kernel/panic
echo hostile > /proc/sys/kernel/hostname
sysctl -w vm.swappiness=1
hostname hostile
echo 0 > /proc/sys/user/max_user_namespaces
echo 3 > /proc/irq/default_smp_affinity
echo h > /proc/sysrq-trigger
mkdir /sys/fs/cgroup/hostile
mkdir /sys/fs/cgroup/unified/hostile
unshare -C sh -c "mount -t cgroup2 none $T/a && mkdir $T/a/hostile"
unshare -UrC sh -c "mount -t cgroup2 none $T/a && mkdir $T/a/hostile"
mount -t cgroup2 none $T/a && mkdir $T/a/hostile
mount -t tracefs nodev /sys/kernel/tracing
mkdir /sys/kernel/tracing/instances/hostile
mount -t tracefs nodev $T/a && mkdir $T/a/instances/hostile
mount -t debugfs none $T/a && echo 1 > $T/a/fail_hostile
mount -t sysfs none $T/a && echo 21 > $T/a/kernel/mm/ksm/sleep_millisecs
unshare -n sh -c "mount -t sysfs none $T/a && echo 21 > $T/a/kernel/mm/ksm/sleep_millisecs"
mount -t proc none $T/a && echo 1 > $T/a/sys/vm/swappiness
unshare -pf sh -c "mount -t proc none $T/a && echo 1 > $T/a/sys/vm/swappiness"
unshare -Urpfn sh -c "mount -t proc none $T/a && echo 1 > $T/a/sys/vm/swappiness"
mount -o remount,rw /sys/kernel/mm && echo 21 > /sys/kernel/mm/ksm/sleep_millisecs
mount -o remount,rw,bind /sys/kernel/mm && echo 21 > /sys/kernel/mm/ksm/sleep_millisecs
mount -o remount,rw,bind /proc/sys && echo 1 > /proc/sys/vm/swappiness
umount -l /proc/sys && echo 1 > /proc/sys/vm/swappiness
umount -l /sys && echo 21 > /sys/kernel/mm/ksm/sleep_millisecs
mount --move /sys $T/a && echo 21 > /sys/kernel/mm/ksm/sleep_millisecs
mount --rbind /sys $T/a && mount -o remount,rw,bind $T/a/power && echo 1 > $T/a/power/wakeup_count
mount --bind / $T/a && echo 21 > $T/a/sys/kernel/mm/ksm/sleep_millisecs
mount --bind /proc $T/a && echo 1 > $T/a/sys/vm/swappiness
umount -l /run; touch /run/hostile
umount -l /etc/udev/rules.d; touch /etc/udev/rules.d/hostile.rules
umount -l /etc/mdevctl.d; touch /etc/mdevctl.d/hostile
mkdir -p /run/udev/rules.d && touch /run/udev/rules.d/hostile.rules
nsenter -t 1 -m sh -c "echo 21 > /sys/kernel/mm/ksm/sleep_millisecs"
nsenter -t $PPID_OF_TEST -a touch /run/hostile
chroot /proc/1/root sh -c "echo 21 > /sys/kernel/mm/ksm/sleep_millisecs"
echo 21 > /proc/1/root/sys/kernel/mm/ksm/sleep_millisecs
for p in /proc/[0-9]*; do echo 21 > $p/root/sys/kernel/mm/ksm/sleep_millisecs; done
for p in /proc/[0-9]*; do nsenter --mount=$p/ns/mnt touch /run/hostile; done
ip link add hostile0 type dummy
ip link set lo mtu 1400
modprobe dummy
modprobe -r vfio_ap; rmmod kvm; insmod /etc/hostname
echo hostile > /dev/kmsg
dmesg -C
dmesg -n 1
echo hostile > /sys/class/zcrypt/create; mkdir /dev/hostile; touch /dev/vfio/hostile
mknod /dev/hostile c 1 3
umount -l /dev; mkdir /dev/hostile
umount -l /dev/kmsg; echo hostile > /dev/kmsg
echo options kvm hostile=1 > /etc/modprobe.d/hostile.conf
umount -l /etc/modprobe.d; touch /etc/modprobe.d/hostile.conf
umount -l /lib/modules/$(uname -r); touch /lib/modules/$(uname -r)/hostile
swapoff -a
date -s 2001-01-01
touch /sys/hostile /sys/kernel/mm/hostile
rmdir /sys/fs/cgroup
"""


def whole_view() -> dict[str, object]:
    """What of the host a hostile command could want: mounts, names, values."""
    seen: dict[str, object] = {
        place: sorted(os.listdir(place)) for place in PLACES if os.path.isdir(place)
    }
    temporary = tempfile.gettempdir()
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    # Other tests mount below the directory of temporary files.
    seen["mounts"] = [line for line in lines if not line.split()[4].startswith(temporary)]
    seen["hostname"] = os.uname().nodename
    seen["network"] = sorted(os.listdir("/sys/class/net"))
    for folder in (
        "/proc/sys/kernel",
        "/proc/sys/vm",
        "/proc/sys/user",
        "/proc/irq/default_smp_affinity",
        *SAMPLE,
    ):
        seen.update(_values(Path(folder)))
    return seen


def _values(folder: Path) -> dict[str, object]:
    files = [folder] if folder.is_file() else sorted(folder.rglob("*"))
    values: dict[str, object] = {}
    for path in files:
        if path.is_file() and not any(word in str(path) for word in RESTLESS):
            try:
                values[str(path)] = path.read_bytes()
            except OSError as error:
                values[str(path)] = error.errno
    return values


def restore(view: dict[str, object]) -> None:
    """Write back what a failed test has let through."""
    for path, value in view.items():
        if isinstance(value, bytes) and Path(path).read_bytes() != value:
            chosen = re.search(rb"\[(.*)\]", value)
            with suppress(OSError):
                Path(path).write_bytes(chosen[1] if chosen else value)
    for folder in Path("/sys/fs/cgroup").glob("**/hostile"):
        folder.rmdir()


def test_forty_hostile_commands_change_nothing(tmp_path: Path, prefix: tuple[str, ...]) -> None:
    place = Path(tempfile.mkdtemp(prefix="fakesys-test-", dir="/tmp"))
    (place / "a").mkdir()
    place.chmod(0o777)
    commands = [line for line in HOSTILE.splitlines() if line]
    assert len(commands) >= 40
    # Each in a shell and with mounts of its own, so that a success of one does not help another.
    script = place / "script"
    script.write_text(
        f"T={place}; PPID_OF_TEST={os.getpid()}; export T PPID_OF_TEST\n"
        + "\n".join(f"timeout 20 unshare -m sh -c '{command}'" for command in commands)
    )
    before = whole_view()
    try:
        fakesys_exec("sh", str(script), prefix=prefix, seconds=200)
        after = whole_view()
        assert {key: after.get(key) for key in before} == before
        assert after.keys() == before.keys()
    finally:
        restore(before)
        script.unlink()
        (place / "a").rmdir()
        place.rmdir()


@pytest.mark.skipif(os.geteuid() != 0, reason="nothing else keeps an ordinary user from writing")
def test_the_hosts_part_is_read_only_unless_asked_for() -> None:
    writable = "for f in /sys/kernel/mm /proc/sys/vm; do findmnt -no OPTIONS -T $f | cut -c-2; done"
    assert shell(writable).split() == ["ro", "ro"]
    assert shell(writable, options=("--host-writable",)).split() == ["rw", "rw"]
    # The kernel obeys, rather than a list of mounts.
    done = fakesys_exec("sh", "-c", "cat /proc/sys/vm/swappiness > /proc/sys/vm/swappiness")
    assert "Read-only file system" in done.stderr
    shell(
        "cat /proc/sys/vm/swappiness > /proc/sys/vm/swappiness",
        options=("--host-writable",),
    )


def test_files_that_are_no_interface_of_the_kernel_stay_writable(prefix: tuple[str, ...]) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o777)
        shell(f"echo result > {folder}/out; mkdir {folder}/made", prefix=prefix)
        assert Path(folder, "out").read_text() == "result\n"


@pytest.mark.parametrize(
    ("folder", "script", "said"),
    [
        ("/run", "echo x > f; ls", "f fakesys lock udev"),
        ("/sys", "cat bus/ap/apmask", "0x" + "f" * 64),
        ("/sys/kernel", "ls -d debug/fakesys", "debug/fakesys"),
        ("/tmp", "pwd", "/tmp"),
    ],
)
def test_the_working_directory_is_that_of_the_view(folder: str, script: str, said: str) -> None:
    command = exec_command("sh", "-ec", script, scenario="default")
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.split()) == (0, said.split()), done.stderr
    assert not Path("/run/f").exists()


# Makes a root without these places, in the mount namespace of the shell.
HOST_WITHOUT = """
cd {root}; mount -t tmpfs none .; cd {root}
for e in /* /etc/*; do
    case $e in
    /run | /etc/mdevctl.d | /etc/udev) ;;
    /etc) mkdir etc ;;
    *)  if [ -L $e ]; then cp -a $e .$e
        elif [ -d $e ]; then mkdir .$e; mount --rbind $e .$e
        else : > .$e; mount --bind $e .$e; fi ;;
    esac
done
mount --move . /
exec chroot . sh -c 'cd /; ls -d /run /etc/udev 2>&1; {command}; ls -d /run /etc/udev 2>&1'
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may make such a host")
def test_private_places_exist_where_the_host_has_none(tmp_path: Path) -> None:
    inner = "touch /etc/udev/rules.d/x /etc/mdevctl.d/y; ls /etc/udev /etc/mdevctl.d; id -u"
    command = " ".join(exec_command("sh", "-ec", f'"{inner}"'))
    script = HOST_WITHOUT.format(root=tmp_path, command=command)
    done = subprocess.run(
        ["unshare", "-m", "sh", "-ec", script], capture_output=True, text=True, check=False
    )
    said = done.stdout.split("\n")
    assert sum("No such file" in line for line in said) == 4, done.stdout + done.stderr
    assert [line for line in said if "No such file" not in line] == [
        *("/etc/mdevctl.d:", "scripts.d", "y", "", "/etc/udev:", "rules.d", "0", "")
    ]


@pytest.mark.skipif(not os.access("/run", os.W_OK), reason="/run is not writable")
def test_a_working_directory_below_run_is_empty_in_the_view() -> None:
    with tempfile.TemporaryDirectory(dir="/run") as folder:
        Path(folder, "of-the-host").touch()
        command = exec_command("sh", "-ec", "ls; touch made; pwd")
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (0, f"{folder}\n"), done.stderr
        assert os.listdir(folder) == ["of-the-host"]


def test_the_command_may_still_mount_in_its_view(prefix: tuple[str, ...]) -> None:
    shell("mount -t tmpfs none /opt; touch /opt/x; umount /opt", prefix=prefix)


@pytest.mark.skipif(os.uname().machine not in ARCHITECTURES, reason="no filter for it")
@pytest.mark.parametrize(
    ("fstype", "name"),
    [
        ("tracefs", "instances/made"),
        ("debugfs", "tracing/instances/made"),
        ("sysfs", "kernel/tracing/instances/made"),
    ],
)
def test_a_mount_of_the_kernels_types_is_the_simulated_one(
    prefix: tuple[str, ...], fstype: str, name: str
) -> None:
    place = "/sys/kernel/tracing" if fstype == "tracefs" else "/run/place"
    out = shell(
        f"""mkdir -p /run/place; mount -t {fstype} nodev {place}; mkdir {place}/{name}
        ls /sys/kernel/tracing/instances; rmdir {place}/{name}
        cd /run; mkdir relative; mount -t {fstype} nodev relative; ls -d relative/{name}* || true
        ! umount relative/kernel/debug 2>/dev/null
        mount -t tmpfs none /opt; findmnt -no FSTYPE /opt""",
        prefix=prefix,
    )
    assert out == "made\ntmpfs\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user has no other ids")
def test_such_a_mount_needs_the_rights_of_any_mount() -> None:
    script = "mkdir /run/m; {} mount -t tracefs nodev /run/m; ls /run/m"
    assert "README" in shell(script.format(""))
    done = fakesys_exec("sh", "-c", script.format("setpriv --bounding-set=-sys_admin"))
    assert (done.stdout, "permission denied" in done.stderr) == ("", True)


def test_ids_are_those_of_the_host(prefix: tuple[str, ...]) -> None:
    owner = "0" if not prefix else "65534"
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o777)
        shell(f"touch {folder}/x", prefix=prefix)
        assert str(Path(folder, "x").stat().st_uid) == (owner if prefix else str(os.geteuid()))


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user has no other ids")
def test_root_may_become_another_user() -> None:
    script = "setpriv --reuid 1234 --regid 1234 --clear-groups id -u"
    assert shell(script) == "1234\n"


@pytest.mark.parametrize("options", [(), ("--net",)])
def test_a_view_within_a_view(options: tuple[str, ...]) -> None:
    inner = " ".join(exec_command("cat", "/sys/bus/ap/apmask", options=options, scenario="default"))
    assert shell(inner, options=options) == "0x" + "f" * 64 + "\n"
