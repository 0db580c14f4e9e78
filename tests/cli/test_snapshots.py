"""`snapshot`, `record` and `replay` without a mount: a folder stands for it."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from fakesys.cli import cli, snapshots
from fakesys.machine.machine import Machine
from fakesys.subsystems.control.script import preamble

CTL = "sys/kernel/debug/fakesys/kvm/ctl"
HEAD = preamble("0", "--profile 6.1", Machine("6.1", "default").recorded.description)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the control files that the commands look at."""
    control = tmp_path / "mnt/sys/kernel/debug/fakesys"
    control.mkdir(parents=True)
    (control / "snapshot").write_bytes(Machine("6.1", "default").save())
    (control / "last_error").write_text("")
    return tmp_path / "mnt"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments)


def test_save_and_load(folder: Path, tmp_path: Path) -> None:
    file, control = tmp_path / "x.json", folder / "sys/kernel/debug/fakesys/snapshot"
    done = run("snapshot", "save", str(file), "--mount", str(folder))
    assert done.exit_code == 0
    assert file.read_bytes() == control.read_bytes()
    assert f"{len(file.read_bytes())} bytes" in done.output
    control.write_bytes(b"")
    assert run("snapshot", "load", str(file), "--mount", str(folder)).exit_code == 0
    assert file.read_bytes() == control.read_bytes()


def test_the_reason_of_a_refusal(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, control = tmp_path / "x.json", folder / "sys/kernel/debug/fakesys"
    run("snapshot", "save", str(file), "--mount", str(folder))
    opened = snapshots.open_control

    def full(point: Path, name: str, flags: int) -> int:
        return os.open("/dev/full", flags) if name == "snapshot" else opened(point, name, flags)

    monkeypatch.setattr(snapshots, "open_control", full)
    for reason, said in (
        ("1.5 a/b EINVAL it is so\n", "it is so"),
        ("", "No space left on device"),
        (None, "No space left on device"),
    ):
        if reason is None:
            (control / "last_error").unlink()
        else:
            (control / "last_error").write_text(reason)
        done = run("snapshot", "load", str(file), "--mount", str(folder))
        assert done.exit_code == 1
        assert said in done.output


def test_save_into_a_pipe_and_where_nothing_can_be_written(folder: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    found: list[bytes] = []
    reader = threading.Thread(target=lambda: found.append(pipe.read_bytes()))
    reader.start()
    assert run("snapshot", "save", str(pipe), "--mount", str(folder)).exit_code == 0
    reader.join(20)
    assert found[0].startswith(b'{"fakesys"')
    done = run("snapshot", "save", "/dev/full", "--mount", str(folder))
    assert (done.exit_code, "No space left" in done.output) == (1, True)
    taken = tmp_path / "taken"
    taken.mkdir()
    assert run("snapshot", "save", str(taken), "--mount", str(folder)).exit_code == 2
    assert list(tmp_path.glob(".*")) == []


def test_a_folder_that_leads_out_is_no_mount(folder: Path, tmp_path: Path) -> None:
    file, control, victim = tmp_path / "x.json", folder / "sys/kernel/debug", tmp_path / "victim"
    run("snapshot", "save", str(file), "--mount", str(folder))
    before = file.read_bytes()
    (control / "fakesys").rename(tmp_path / "real")
    (control / "fakesys").mkdir()
    victim.write_text("whole")
    os.mkfifo(tmp_path / "pipe")
    for name, target in (("snapshot", "victim"), ("writes", "pipe"), ("last_error", "victim")):
        (control / "fakesys" / name).symlink_to(tmp_path / target)
    replayed = ("replay", str(tmp_path / "x.sh"))
    (tmp_path / "x.sh").write_text(f"{HEAD}hold\n")
    for words in (("snapshot", "save", str(file)), ("snapshot", "load", str(file)), replayed):
        done = run(*words, "--mount", str(folder))
        assert (done.exit_code, "has no fakesys mount" in done.output) == (1, True), words
    assert (file.read_bytes(), victim.read_text()) == (before, "whole")


def test_load_of_what_is_no_file(folder: Path, tmp_path: Path) -> None:
    os.truncate(os.open(tmp_path / "big", os.O_CREAT | os.O_WRONLY), (1 << 30) + 1)
    for name, why in (("/dev/zero", "neither a regular"), (f"{tmp_path}/big", "1073741825 bytes")):
        done = run("snapshot", "load", name, "--mount", str(folder))
        assert done.exit_code == 1
        assert f"{name}: {why}" in done.output


def stream(folder: Path, text: str) -> Path:
    """A pipe where `writes` would be, with something in it; its other end stays open."""
    path = folder / "sys/kernel/debug/fakesys/writes"
    os.mkfifo(path)
    os.write(os.open(path, os.O_RDWR | os.O_NONBLOCK), text.encode())
    return path


def test_record_a_command(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "x.sh"
    stream(folder, "first\n")
    done = run("record", str(file), "--mount", str(folder), "--", "sh", "-c", "exit 3")
    assert done.exit_code == 3
    assert file.read_text() == "first\n"
    assert os.access(file, os.X_OK)
    done = run("record", str(file), "--mount", str(folder), "--", "sh", "-c", "kill -TERM $$")
    assert done.exit_code == 128 + signal.SIGTERM
    done = run("record", str(file), "--mount", str(folder), "--", "/no/such")
    assert done.exit_code == 127


def test_record_until_ctrl_c(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "x.sh"
    stream(folder, "first\n")

    def interrupt() -> None:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and not (file.exists() and file.read_text()):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    done = run("record", str(file), "--mount", str(folder))
    assert done.exit_code == 0
    assert file.read_text() == "first\n"


def test_record_where_nothing_can_be_written_or_read(folder: Path, tmp_path: Path) -> None:
    done = run("record", str(tmp_path / "x"), "--mount", str(tmp_path))
    assert (done.exit_code, "has no fakesys mount" in done.output) == (1, True)
    path = stream(folder, "first\n")
    done = run("record", str(tmp_path / "no/x"), "--mount", str(folder), "--", "true")
    assert (done.exit_code, "No such file" in done.output) == (1, True)
    path.unlink()
    path.mkdir()
    done = run("record", str(tmp_path / "x"), "--mount", str(folder), "--", "true")
    assert (done.exit_code, "Is a directory" in done.output) == (1, True)


def test_replay_in_memory(tmp_path: Path) -> None:
    file = tmp_path / "x.sh"
    file.write_text(
        f"{HEAD}start 1.5\nput ok {CTL} 'vm create a\\n'\nput EEXIST {CTL} 'vm create a'\n"
    )
    done = run("replay", str(file))
    assert done.exit_code == 0
    assert done.output == "3 steps, every result as recorded\n"
    file.write_text(f"{HEAD}put EEXIST {CTL} 'vm create a\\n'\nclear no/such\n")
    done = run("replay", str(file))
    assert done.exit_code == 1
    number = HEAD.count("\n") + 1
    assert f"{file}:{number}: put {CTL}: ok, recorded EEXIST\n" in done.output
    assert f"{file}:{number + 1}: clear no/such: ENOENT, recorded ok\n" in done.output
    assert "2 of 2 steps differ" in done.output


def test_replay_on_a_folder(folder: Path, tmp_path: Path) -> None:
    control = folder / "sys/kernel/debug/fakesys"
    (control / "clock").mkdir()
    (control / "writes").touch()
    for name, text in (("rate", "1\n"), ("now", "0.5\n"), ("advance", "")):
        (control / "clock" / name).write_text(text)
    (folder / "long").write_text("old")
    file = tmp_path / "x.sh"
    file.write_text(
        f"{HEAD}start 1.5\nput ok a/b 'x'\nadd ok long 'x'\nblock ok long 'y\\nz'\nadvance 2\n"
        "mkdir ok dir\nmkdir EEXIST dir\nrmdir ok dir\nclear rate\nhold\n"
    )
    done = run("replay", str(file), "--mount", str(folder))
    assert done.exit_code == 1
    assert "put a/b: ENOENT, recorded ok" in done.output
    assert "clear rate: ENOENT" in done.output
    assert "2 of 10 steps differ" in done.output
    assert (folder / "long").read_text() == "oldxy\nz"
    assert (control / "clock/rate").read_text() == "1\n"
    assert (control / "clock/advance").read_text() == "2\n"


def test_replay_refuses(tmp_path: Path) -> None:
    file = tmp_path / "x.sh"
    for text, reason in (
        ("hello", "this is no recording"),
        (f"{HEAD}rm -rf /\n", "is no step"),
        (HEAD.replace("#: ", "#: x") + "hold\n", "describes no machine"),
    ):
        file.write_text(text)
        done = run("replay", str(file))
        assert done.exit_code == 1
        assert reason in done.output
    assert "No such file" in run("replay", str(tmp_path / "none")).output
