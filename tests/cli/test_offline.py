"""Commands that need no mount: what they print, what they refuse and with which status."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import NamedTuple

import pytest
from click.testing import CliRunner
from rich.console import Console

from fakesys.cli import cli, main
from fakesys.cli.show import print_matrix
from fakesys.lab.ap_matrix import Owner, ap_matrix
from fakesys.machine.machine import Machine
from fakesys.machine.scenario import shipped

UUID = "10000000-0000-4000-8000-000000000001"
MATRIX = "sys/devices/vfio_ap/matrix"
TYPE = f"{MATRIX}/mdev_supported_types/vfio_ap-passthrough"
AP = "sys/kernel/debug/fakesys/ap"


class Result(NamedTuple):
    """What a command answered."""

    returncode: int
    stdout: str
    stderr: str


def fakesys(*words: str) -> Result:
    """The command with its own error handling, in this process."""
    out, err = StringIO(), StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["fakesys", *words])
        with pytest.raises(SystemExit) as end:
            main()
    return Result(int(end.value.code or 0), out.getvalue(), err.getvalue())


def test_the_module_is_the_command() -> None:
    words = [sys.executable, "-m", "fakesys", "run", "nonesuch"]
    result = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 2
    assert result.stderr.startswith("fakesys: 'nonesuch' is no scenario")


@pytest.mark.parametrize("name", ["linux-boot-240", "mixed"])
def test_run_plays_guests_that_boot(name: str) -> None:
    result = fakesys("run", name)
    assert (result.returncode, result.stderr) == (0, "")
    assert "sys/kernel/debug/fakesys/kvm/preset" in result.stdout
    assert "NOT AS EXPECTED" not in result.stdout
    assert fakesys("run", name).stdout == result.stdout


def test_run_plays_a_shipped_scenario() -> None:
    result = fakesys("run", "vfio-ap-three-guests")
    assert (result.returncode, result.stderr) == (0, "")
    assert "assign_domain '4' -> EADDRINUSE" in result.stdout
    assert "NOT AS EXPECTED" not in result.stdout


def test_run_without_a_name_lists_what_is_shipped() -> None:
    listed = dict(line.split(None, 1) for line in fakesys("run").stdout.splitlines())
    assert set(listed) == set(shipped())
    assert listed["empty"].startswith("No crypto card")


def test_run_in_another_kernel_says_what_differs() -> None:
    result = fakesys("run", "vfio-ap-three-guests", "--profile", "6.1")
    assert result.returncode == 1
    [line] = result.stderr.splitlines()
    assert line.startswith("fakesys: ")
    assert "not as expected, first: read" in line


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("run", "nonesuch"), "fakesys: 'nonesuch' is no scenario"),
        (("run", "default", "--profile", "2.4"), "fakesys: '2.4' is no profile"),
        (("run", "default", "--seed", "x"), "fakesys: Invalid value for '--seed'"),
        (("doc", "nonesuch"), "fakesys: 'nonesuch' is not one of the texts: "),
        (("nonesuch",), "fakesys: No such command 'nonesuch'"),
    ],
)
def test_wrong_words_are_one_line_and_status_2(words: tuple[str, ...], message: str) -> None:
    result = fakesys(*words)
    assert (result.returncode, result.stdout) == (2, "")
    [line] = result.stderr.splitlines()
    assert line.startswith(message)


def test_an_unusable_scenario_file_names_the_key(tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text("[[ap.card]]\nid = 300\ntype = 'CEX5C'\n")
    result = fakesys("run", str(path))
    assert result.returncode == 2
    assert "ap.card[0].id" in result.stderr
    path.write_text("[ap]\npreset = 'huge'\n")
    assert "'huge' is none of default, empty, full" in fakesys("run", str(path)).stderr


def invoke(*words: str) -> str:
    result = CliRunner().invoke(cli, words)
    assert result.exit_code == 0, result.output
    return result.output


def test_doc_lists_and_prints() -> None:
    assert {"abi", "limits", "scenarios"} <= set(invoke("doc").split())
    assert invoke("doc", "limits").startswith("# What no FUSE file system can give")


def test_abi_prints_text_and_markdown() -> None:
    assert "sys/bus/ap/apmask  0644  profiles: all" in invoke("abi")
    assert invoke("abi", "--markdown").startswith("# Files and tracepoints")


@pytest.mark.parametrize("command", ["run", "abi", "doc", "show", "mount", "umount", "status"])
def test_help_shows_an_example(command: str) -> None:
    assert f"Example: fakesys {command}" in invoke(command, "--help")


@pytest.fixture
def machine() -> Machine:
    """Every kind of owner at once."""
    machine = Machine()
    machine.write("sys/bus/ap/aqmask", "-4,-0x47\n")
    machine.write(f"{TYPE}/create", UUID)
    for name, number in (("adapter", "4"), ("adapter", "5"), ("domain", "4")):
        machine.write(f"{MATRIX}/{UUID}/assign_{name}", number)
    machine.write(f"{AP}/new_guest", "g\n")
    machine.write("sys/bus/ap/drivers/cex4queue/unbind", "06.00ab\n")
    return machine


def test_the_picture_knows_every_owner(machine: Machine) -> None:
    matrix = ap_matrix(machine.state())
    assert matrix.adapters == (4, 5, 6)
    assert matrix.domains == (4, 0x47, 0xAB, 0xFF)
    assert matrix.owner(4, 4) is matrix.owner(5, 4) is Owner.MDEV
    assert matrix.owner(6, 4) is matrix.owner(5, 0x47) is Owner.VFIO_AP
    assert matrix.owner(5, 0xFF) is Owner.HOST
    assert matrix.owner(6, 0xAB) is Owner.UNBOUND
    assert matrix.owner(9, 9) is Owner.ABSENT
    machine.write(f"{AP}/guests/g/attach", UUID)
    assert ap_matrix(machine.state()).owner(5, 4) is Owner.GUEST


def test_the_picture_fits_the_terminal(machine: Machine) -> None:
    out = StringIO()
    print_matrix(ap_matrix(machine.state()), Console(file=out, width=21))
    lines = [line.split() for line in out.getvalue().splitlines()]
    assert lines[:4] == [
        ["adapter", "0004", "0047"],
        ["04", "M", "V"],
        ["05", "M", "V"],
        ["06", "V", "V"],
    ]
    assert ["06", "-", "H"] in lines


def test_no_queues_are_said_in_words() -> None:
    out = StringIO()
    print_matrix(ap_matrix(Machine(scenario="empty").state()), Console(file=out, width=80))
    assert out.getvalue().startswith("no queues")


@pytest.mark.parametrize("command", ["ap", "kvm"])
def test_show_needs_a_mount(tmp_path: Path, command: str) -> None:
    result = fakesys("show", command, str(tmp_path))
    assert result.returncode == 1
    [line] = result.stderr.splitlines()
    assert line.endswith("No such file or directory; name a mount of fakesys")


def test_show_reads_the_state_of_a_mount(tmp_path: Path, machine: Machine) -> None:
    # Any folder with the file will do: the command only reads.
    folder = tmp_path / "sys/kernel/debug/fakesys"
    folder.mkdir(parents=True)
    (folder / "state").write_text(json.dumps(machine.state()))
    assert "06 " in invoke("show", "ap", "--mount", str(tmp_path))
    assert "06 " in invoke("show", "ap", str(tmp_path))
    twice = fakesys("show", "ap", str(tmp_path), "--mount", str(tmp_path))
    assert (twice.returncode, twice.stdout) == (2, "")
    assert twice.stderr == "fakesys: name one mount: as argument, or with --mount\n"


def test_a_picture_is_written_or_refused_clearly(tmp_path: Path, machine: Machine) -> None:
    folder = tmp_path / "sys/kernel/debug/fakesys"
    folder.mkdir(parents=True)
    (folder / "state").write_text(json.dumps(machine.state()))
    picture = tmp_path / "queues.svg"
    result = CliRunner().invoke(
        cli, ["show", "ap", "--mount", str(tmp_path), "--svg", str(picture)]
    )
    if result.exit_code == 0:
        assert "<svg" in picture.read_text()
    else:
        assert "pip install 'fakesys[plot]'" in result.output


def test_show_kvm_lists_vms_and_counters(tmp_path: Path) -> None:
    vm = tmp_path / "sys/kernel/debug/kvm/7-12"
    (vm / "vcpu0").mkdir(parents=True)
    (vm / "exits").write_text("5\n")
    (vm / "io_exits").write_text("0\n")
    (vm / "mmu_rmaps_stat").write_text("")
    text = invoke("show", "kvm", str(tmp_path))
    assert "7-12" in text
    assert "exits 5" in text
    assert "io_exits" not in text
