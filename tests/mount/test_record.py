"""`fakesys record` and `replay` on real mounts: by a command, until Ctrl-C, by other shells."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakesys.machine.machine import Machine
from tests.mounts import COMMAND, Mount, fakesys, mounted

SECONDS = 20.0
CONTROL = "sys/kernel/debug/fakesys"
SESSION = r"""
C=$M/sys/kernel/debug/fakesys
T=$M/sys/kernel/tracing
X=$M/sys/devices/vfio_ap/matrix
U=10000000-0000-4000-8000-000000000000
echo "vm create a pid=4194000" > $C/kvm/ctl
echo "a vcpu add count=2" > $C/kvm/ctl
echo "nonsense" > $C/kvm/ctl
echo -0-255 > $M/sys/bus/ap/apmask
echo $U > $X/mdev_supported_types/vfio_ap-passthrough/create
echo 5 > $X/$U/assign_adapter
echo 0x5f5 > $X/$U/assign_adapter
mkdir $T/instances/foo
echo 'kvm:*' > $T/set_event
printf 'kvm:kvm_pio\nkvm:kvm_exit\n' >> $T/set_event
: > $T/trace
echo "50% it's \"x\" \\" > $T/trace_marker
printf '*/apmask EIO times=1\n*/aqmask EIO times=1\n' | dd bs=1M of=$C/faults/store 2>/dev/null
echo +5 > $M/sys/bus/ap/apmask
rmdir $T/instances/foo
echo 3.25 > $C/clock/advance
echo 1 > $X/$U/remove
exit 3
"""


@pytest.fixture
def mounts(tmp_path: Path) -> Iterator[tuple[Mount, Mount]]:
    """The mount that is recorded, and a fresh one of the same machine."""
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    with (
        mounted(tmp_path / "one", scenario="default") as one,
        mounted(tmp_path / "other", scenario="default") as other,
    ):
        yield one, other


def record(mount: Mount, file: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return fakesys("record", str(file), "--mount", str(mount.root), "--", *command)


def replay(file: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return fakesys("replay", str(file), *options)


@pytest.fixture
def session(mounts: tuple[Mount, Mount], tmp_path: Path) -> Path:
    """The recording of the session above."""
    file = tmp_path / "session.sh"
    done = record(mounts[0], file, "sh", "-c", f"M={mounts[0].root}\n{SESSION}")
    assert done.returncode == 3, done.stderr
    script = file.read_text()
    assert script.count("put ok") + script.count("block ok") > 8
    for word in ("EINVAL", "ENODEV", "EIO", "mkdir ok", "rmdir ok", "add ok", "clear ", "advance "):
        assert word in script
    return file


def state_of(mount: Mount) -> str:
    return (mount.control / "state").read_text()


def test_replayed_in_memory_and_on_a_mount(mounts: tuple[Mount, Mount], session: Path) -> None:
    done = replay(session)
    assert done.returncode == 0, done.stderr
    assert done.stderr.endswith("steps, every result as recorded\n")
    one, other = mounts
    done = replay(session, "--mount", str(other.root))
    assert done.returncode == 0, done.stderr
    assert (other.control / "clock/rate").read_text() == "1\n"
    names = sorted(os.listdir(one.root / "sys/kernel/debug/kvm"))
    assert sorted(os.listdir(other.root / "sys/kernel/debug/kvm")) == names
    # Done again, it is not the same: the lines that differ are named.
    done = replay(session, "--mount", str(other.root))
    assert done.returncode == 1
    assert "EEXIST, recorded ok" in done.stderr
    assert f"{session}:" in done.stderr
    assert "steps differ" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("shell", ["sh", "dash", "bash", "busybox"])
def test_run_by_hand(mounts: tuple[Mount, Mount], session: Path, shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell}")
    command = [shell, "sh"] if shell == "busybox" else [shell]
    other = mounts[1]
    for wanted in (0, 1):
        done = subprocess.run(
            [*command, str(session), str(other.root)],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == wanted, done.stderr
    assert "EEXIST, recorded ok" in done.stderr
    assert (other.control / "clock/rate").read_text() == "1\n"


def test_run_by_hand_without_a_mount(session: Path, tmp_path: Path) -> None:
    for words in ([], [str(tmp_path)]):
        done = subprocess.run(
            ["sh", str(session), *words], capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode != 0
    assert os.access(session, os.X_OK)


def test_no_step_leads_out_of_the_mount(mounts: tuple[Mount, Mount], tmp_path: Path) -> None:
    one, victim, file = mounts[0], tmp_path / "one/victim", tmp_path / "x.sh"
    victim.write_text("whole")
    head = f"#!/bin/sh\n#: {Machine().recorded.description}\n\n"
    for path in (str(victim), "../victim", "sys/bus/ap/devices/card04/../../../../../../victim"):
        for step in ("put ok {} x", "add ok {} x", "block ok {} x", "clear {}", "mkdir ok {}/d"):
            file.write_text(f"{head}{step.format(path)}\n")
            done = replay(file, "--mount", str(one.root))
            assert (done.returncode, done.stderr.count("\n")) == (1, 1)
            assert f"{file}: line 4: " in done.stderr
    assert victim.read_text() == "whole"
    assert sorted(os.listdir(tmp_path / "one")) == ["daemon.log", "mnt", "victim"]
    # Links of the mount lead to where they lead.
    file.write_text(
        f"{head}put ok sys/bus/ap/devices/card04/config '0\\n'\n"
        "put EACCES sys/bus/ap/devices/card04/type '0\\n'\n"
    )
    assert replay(file, "--mount", str(one.root)).returncode == 0
    assert (one.root / "sys/devices/ap/card04/config").read_text() == "0\n"


def test_until_ctrl_c(mounts: tuple[Mount, Mount], tmp_path: Path) -> None:
    one, other = mounts
    file = tmp_path / "x.sh"
    process = subprocess.Popen(
        [*COMMAND, "record", str(file), "--mount", str(one.root)],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stderr is not None
        assert process.stderr.readline() == "recording; end with Ctrl-C\n"
        one.command("kvm/ctl", "vm create a pid=4194000\n")
        deadline = time.monotonic() + SECONDS
        # What was written is in the file at once, not only at the end.
        while "vm create" not in file.read_text():
            assert time.monotonic() < deadline
        one.command("kvm/ctl", "a vcpu add\n")
        process.send_signal(signal.SIGINT)
        assert process.wait(SECONDS) == 0
    finally:
        process.kill()
        process.communicate(timeout=SECONDS)
    assert "vcpu add" in file.read_text()
    assert replay(file, "--mount", str(other.root)).returncode == 0
    assert "4194000-10" in os.listdir(other.root / "sys/kernel/debug/kvm")
    # Nobody reads any more, so nothing is kept.
    one.command("kvm/ctl", "vm destroy a\n")
    assert "destroy" not in file.read_text()


def test_the_end_of_an_owner_is_recorded(mounts: tuple[Mount, Mount], tmp_path: Path) -> None:
    one, _ = mounts
    file = tmp_path / "x.sh"
    ctl = one.control / "kvm/ctl"
    script = f"sh -c 'echo vm create a > {ctl}; :'; while grep -q . {one.control}/kvm/vms/a/state; do :; done"  # fmt: skip  # noqa: E501
    done = record(one, file, "sh", "-c", f"{script} 2>/dev/null")
    assert done.returncode == 0, done.stderr
    assert "'vm destroy a\\n'" in file.read_text()
    assert replay(file).returncode == 0


def test_refusals(mounts: tuple[Mount, Mount], tmp_path: Path) -> None:
    one = mounts[0]
    file = tmp_path / "x.sh"
    assert fakesys("record").returncode == 2
    assert fakesys("replay").returncode == 2
    for wrong, reason in (
        (record(one, tmp_path / "no" / "x", "true"), "No such file or directory"),
        (fakesys("record", str(file), "--mount", str(tmp_path)), "has no fakesys mount"),
        (fakesys("replay", str(file)), "No such file or directory"),
    ):
        assert wrong.returncode == 1
        assert reason in wrong.stderr
        assert wrong.stderr.count("\n") == 1
    assert record(one, file, "/no/such/program").returncode == 127
    assert record(one, file, "sh", "-c", "kill -9 $$").returncode == 137
    for text, reason in (
        ("hello\n", "this is no recording"),
        ("#!/bin/sh\n\nrm -rf /\n", "line 3: 'rm -rf /' is no step"),
        ("#!/bin/sh\n#: nowhere\n\nhold\n", "describes no machine"),
        ("#!/bin/sh\n\nhold\n", "does not say of which machine"),
    ):
        file.write_text(text)
        done = replay(file)
        assert (done.returncode, done.stderr.count("\n")) == (1, 1)
        assert reason in done.stderr
    file.write_text(f"#!/bin/sh\n#: {Machine().recorded.description}\n\nhold\n")
    assert "has no fakesys mount" in replay(file, "--mount", str(tmp_path)).stderr
    assert replay(file).returncode == 0
