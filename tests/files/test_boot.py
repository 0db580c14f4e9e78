"""A machine that was booted with a command line."""

from __future__ import annotations

import pytest

from fakesys.cli.machine_options import machine_of_words
from fakesys.machine.hardware import ScenarioError
from fakesys.machine.machine import Machine
from fakesys.machine.scenario import LONGEST_BOOT, load, parse, with_boot
from tests.files.ap import BUS, complaints, every_kernel, machine_of
from tests.long import LONG
from tests.whole_machine import differences

F = "sys/kernel/debug/fakesys"
PARAMETERS = "sys/module/ap/parameters"
# The line of list 10f.
MASKS = "ap.apmask=-5 ap.aqmask=0x08 ap.domain=7 ap.poll_thread=1"


def booted(line: str, profile: str = "6.1", scenario: str = "default") -> Machine:
    return Machine(profile, with_boot(load(scenario), line))


def parameters(machine: Machine) -> dict[str, str]:
    return {
        name: machine.read(f"{PARAMETERS}/{name}").rstrip("\n")
        for name in machine.listdir(PARAMETERS)
    }


def test_masks_as_a_real_6_1_was_booted_with() -> None:
    """List 10f of the AP recordings: a relative mask begins with nothing."""
    machine = booted(MASKS)
    expected = {
        "ap_domain": "-1",
        "ap_interrupts": "1",
        "apmask": "0x" + "0" * 64,
        "aqmask": "0x08" + "0" * 62,
        "bindings": "12/12 (complete)",
        "poll_thread": "0",
        "poll_timeout": "250000",
        "config_time": "30",
    }
    assert {name: machine.read(f"{BUS}/{name}").rstrip("\n") for name in expected} == expected
    assert parameters(machine) == {
        "apmask": "-5",
        "aqmask": "0x08",
        "domain": "-1",
        "useirq": "1",
        "poll_thread": "1",
    }
    queues = [f"{card}.{domain}" for card in ("04", "05", "06")
              for domain in ("0004", "0047", "00ab", "00ff")]  # fmt: skip
    bound = set(machine.listdir(f"{BUS}/drivers/vfio_ap"))
    assert bound >= set(queues)
    assert not set(machine.listdir(f"{BUS}/drivers/cex4queue")) & set(queues)
    assert "ap: 7 is not a valid cryptographic domain" in complaints(machine)


@every_kernel
def test_without_a_command_line(kernel: str) -> None:
    machine = machine_of(kernel)
    found = parameters(machine)
    assert found.pop("msgpool_min_items", "8") == "8"
    assert found == {
        "apmask": "(null)", "aqmask": "(null)", "domain": "4", "useirq": "1", "poll_thread": "0",
    }  # fmt: skip
    assert machine.read(f"{F}/cmdline") == "\n"


def test_a_domain_that_is_valid() -> None:
    machine = booted("ap.domain=0x47 ap.apmask=0xffff")
    assert machine.read(f"{BUS}/ap_domain") == "71\n"
    assert parameters(machine)["domain"] == "71"
    assert machine.read(f"{BUS}/apmask") == "0xffff" + "0" * 60 + "\n"
    assert not [line for line in complaints(machine) if "cryptographic domain" in line]


def test_interrupts_that_are_not_used() -> None:
    machine = booted("ap.useirq=0 ap.poll_thread=1")
    assert machine.read(f"{BUS}/ap_interrupts") == "0\n"
    assert machine.read(f"{BUS}/poll_thread") == "1\n"
    machine.write(f"{BUS}/poll_thread", "0")
    assert parameters(machine)["poll_thread"] == "1"


def test_what_cannot_be_read_is_told_and_left_out() -> None:
    machine = booted("ap.domain=x ap.useirq=99999999999 ap.apmask=zz ap.aqmask ap.nothing=1 quiet")
    assert machine.read(f"{BUS}/ap_domain") == "-1\n"
    # As in the kernel: a mask of no use takes all adapters from the host.
    assert machine.read(f"{BUS}/apmask") == "0x" + "0" * 64 + "\n"
    assert machine.read(f"{BUS}/aqmask") == "0x" + "f" * 64 + "\n"
    booting = [line for line in complaints(machine) if line.startswith("Booting kernel")]
    assert booting == [
        "Booting kernel: `x' invalid for parameter `ap.domain'",
        "Booting kernel: `99999999999' invalid for parameter `ap.useirq'",
        "Booting kernel: `' invalid for parameter `ap.aqmask'",
    ]


def test_a_reset_boots_again() -> None:
    machine = booted(MASKS)
    machine.write(f"{BUS}/apmask", "+0-255")
    for path in (f"{F}/ap/reset", f"{F}/reset"):
        machine.write(path, "1")
        assert machine.read(f"{BUS}/apmask") == "0x" + "0" * 64 + "\n"
        assert machine.read(f"{F}/cmdline") == f"{MASKS}\n"


@pytest.mark.parametrize(
    "profile", ["6.1", "6.12"] if not LONG else ["seed", "6.1", "6.12", "6.18"]
)
def test_a_snapshot_keeps_the_line(profile: str) -> None:
    machine = booted(MASKS + " ap.useirq=0", profile)
    machine.write(f"{BUS}/apmask", "+4")
    copy = Machine("seed", "empty")
    copy.load(machine.save())
    assert differences(machine, copy) == []
    copy.write(f"{F}/reset", "1")
    assert copy.read(f"{PARAMETERS}/aqmask") == "0x08\n"


def test_the_option_of_the_command_line() -> None:
    machine = machine_of_words(["--profile", "6.1", "--boot", MASKS])
    assert machine.read(f"{F}/cmdline") == f"{MASKS}\n"
    assert machine.read(f"{PARAMETERS}/apmask") == "-5\n"
    assert machine.recorded.mount_options.endswith(f" --boot '{MASKS}'")
    with pytest.raises(ValueError, match="boot: not one line"):
        machine_of_words(["--boot", "a\nb"])


def test_the_line_in_a_scenario() -> None:
    scenario = parse(b'boot = "ap.aqmask=0x08"\n', "x.toml")
    assert Machine("6.1", scenario).read(f"{BUS}/aqmask").startswith("0x0800")


@pytest.mark.parametrize("line", ["x" * (LONGEST_BOOT + 1), "a\nb", "a\x00b", "gr\u00fcn"])
def test_lines_that_cannot_be(line: str) -> None:
    with pytest.raises(ScenarioError):
        with_boot(load("default"), line)
