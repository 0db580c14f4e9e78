"""Scenario files: what is accepted, what is refused and how, and the timeline."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fakesys.machine.hardware import ScenarioError
from fakesys.machine.machine import Machine
from fakesys.machine.scenario import Scenario, load, parse, shipped
from fakesys.machine.timeline import Timeline

RW = "sys/devices/virtual/selftest/selftest0/rw"


def told_by(text: str) -> tuple[list[str], list[str]]:
    """What a scenario says while it runs, and what was not as expected."""
    scenario = parse(("selftest = true\n" + text).encode(), "test.toml")
    lines = list[str]()
    timeline = Timeline(Machine(scenario=scenario), lines.append)
    assert timeline.run() is not bool(timeline.failures)
    return lines, timeline.failures


@pytest.mark.parametrize("name", shipped())
def test_shipped_scenarios_are_valid_and_described(name: str) -> None:
    scenario = load(name)
    assert isinstance(scenario, Scenario)
    assert scenario.description
    assert scenario.name == name


def test_a_scenario_is_found_by_path(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('profile = "6.1"\nseed = 3\n')
    machine = Machine(scenario=path)
    assert (machine.profile_name, machine.scenario.name, machine.control.seed) == ("6.1", "mine", 3)
    assert Machine("seed", path, seed=4).profile_name == "seed"
    assert Machine("seed", path, seed=4).control.seed == 4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1", "f.toml: unknown key x"),
        ("'x\ty' = 1", "f.toml: unknown key x\\ty"),
        (f"{'x' * 1000} = 1", f"f.toml: unknown key {'x' * 288}..."),
        ("seed = 'a'", "f.toml: key seed: expected int, got str"),
        ("[[ap.card]]\nid = 'a'\ntype = 'CEX5C'", "f.toml: key ap.card[0].id: expected int"),
        ("[[ap.card]]\nid = 1", "f.toml: key ap.card[0]: missing key type"),
        ("[[at]]\nwrite = 'a'\ntext = 'b'\nwhen = 1", "f.toml: key at[0]: unknown key when"),
        ("a =", "f.toml: not TOML"),
        ("a = '\xff'", "f.toml: not TOML"),
        ("a = '\0'", "f.toml: not TOML"),
        ("x = " + "[" * 5000 + "]" * 5000, "f.toml: nested more than 32 deep (at line 1)"),
        ("profile = '9.9'", "f.toml: key profile: '9.9' is no profile (seed, 6.1, 6.12, 6.18)"),
        ('profile = "9\\n9"', "f.toml: key profile: '9\\n9' is no profile"),
        ("[ap]\npreset = 'huge'", "f.toml: key ap.preset: 'huge' is none of default"),
        ("[[ap.card]]\nid = 1\ntype = 'CEX9'\nmode = 'cca'", "f.toml: key ap.card[0]: 'CEX9'"),
        ("[[ap.card]]\nid = 1\ntype = 'CEX5 x'", "f.toml: key ap.card[0].type: expected one word"),
        ("[ap]\nmax_domain_id = 256", "f.toml: key ap.max_domain_id: expected int <= 255"),
        ("seed = -1", "f.toml: key seed: expected int >= 0"),
        ("seed = 9223372036854775808", "f.toml: key seed: expected int <= 9223372036854775807"),
        ("[[kvm.vm]]\nname = 'a b'", "f.toml: key kvm.vm[0].name: expected one word"),
        ("[[kvm.vm]]\nname = 'a'\nvcpus = 9000", "f.toml: key kvm.vm: 9000 vCPUs in all"),
        ("[kvm]\npreset = [" + "'x'," * 65 + "]", "f.toml: key kvm.preset: expected array of"),
        *(
            (f"[[{kind}]]\nseconds = {value}", f"f.toml: key {kind}[0].seconds: {why}")
            for kind in ("at", "expect")
            for value, why in (
                ("inf", "expected float <= 10000000.0"),
                ("nan", "expected float"),
                ("1e308", "expected float <= 10000000.0"),
                ("1e12", "expected float <= 10000000.0"),
                ("1" * 400, "number out of range"),
                ("-1", "expected float >= 0.0"),
            )
        ),
    ],
)
def test_an_unusable_scenario_names_place_and_wish(text: str, message: str) -> None:
    with pytest.raises(ScenarioError) as error:
        parse(text.encode("latin-1"), "f.toml")
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_an_unknown_name_lists_the_shipped_ones() -> None:
    with pytest.raises(ScenarioError, match=r"'nonesuch' is no scenario .*default"):
        load("nonesuch")


def test_files_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "big.toml"
    path.touch()
    os.truncate(path, 1 << 30)
    for name, why in (
        ("/dev/zero", "neither a regular file nor a pipe"),
        (str(path), "1073741824 bytes, of which at most 1048576 can be used"),
        (f"{tmp_path}/", "a directory, not a file"),
    ):
        with pytest.raises(ScenarioError) as error:
            load(name)
        assert str(error.value) == f"{name.rstrip('/')}: {why}"


def test_an_unreadable_file_says_why(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=r"none\.toml: No such file or directory"):
        load(tmp_path / "none.toml")


def test_writes_happen_at_their_time_and_are_told() -> None:
    lines, failures = told_by(
        f"""
        [[at]]
        seconds = 2.0
        write = "{RW}"
        text = "1400"
        [[expect]]
        seconds = 1.0
        read = "{RW}"
        text = "1500"
        [[expect]]
        read = "{RW}"
        text = "1400\\n"
        """
    )
    assert failures == []
    steps = [line for line in lines if "uevent" not in line and "MDEV: Registered" not in line]
    assert steps == [
        f"[    1.000000] read {RW} -> '1500', as expected",
        f"[    2.000000] write {RW} '1400' -> ok",
        f"[    2.000000] read {RW} -> '1400', as expected",
    ]


def test_uevents_and_log_lines_are_told_as_they_come() -> None:
    lines, _ = told_by(
        """
        [[at]]
        write = "sys/kernel/debug/fakesys/selftest/remove"
        text = "1"
        """
    )
    removed = "ACTION=remove DEVPATH=/devices/virtual/selftest/selftest0"
    assert any(removed in line for line in lines)


def test_an_expected_refusal_is_fine_and_its_reason_told() -> None:
    lines, failures = told_by(
        f"""
        [[at]]
        write = "{RW}"
        text = "abc"
        expect = "EINVAL"
        [[expect]]
        read = "sys/none"
        error = "ENOENT"
        """
    )
    assert failures == []
    assert any("-> EINVAL ('abc\\n' is not a number)" in line for line in lines)


@pytest.mark.parametrize(
    ("step", "what"),
    [
        (f'[[at]]\nwrite = "{RW}"\ntext = "abc"', "EINVAL, not ok"),
        (f'[[at]]\nwrite = "{RW}"\ntext = "1"\nexpect = "EBUSY"', "ok, not EBUSY"),
        (f'[[expect]]\nread = "{RW}"\ntext = "7"', "'1500', not '7'"),
        ('[[expect]]\nread = "sys/none"\ntext = "7"', "ENOENT, not ok"),
        (f'[[expect]]\nread = "{RW}"\nerror = "EIO"', "ok, not EIO"),
    ],
)
def test_what_is_not_as_expected_is_a_failure(step: str, what: str) -> None:
    lines, failures = told_by(step)
    assert len(failures) == 1
    assert failures[0].endswith(what)
    assert any(line.endswith(f"NOT AS EXPECTED: {failures[0]}") for line in lines)


def test_texts_are_written_as_a_shell_writes_them() -> None:
    marker = "sys/kernel/tracing/trace_marker"
    step = f'[[at]]\nwrite = "{marker}"\ntext = "5 \u20ac"\n'
    lines, failures = told_by(step + f'[[expect]]\nread = "{RW}"\ntext = "\u20ac"')
    assert any(line.endswith(f"write {marker} '5 \u20ac' -> ok") for line in lines)
    assert failures == [f"read {RW}: '1500', not '\u20ac'"]


def test_what_is_told_is_one_line() -> None:
    lines, failures = told_by('[[at]]\nwrite = "a\\nb\\u001b[31m"\ntext = "x"')
    assert failures == ["write a\\nb\\x1b[31m 'x': ENOENT, not ok"]
    assert all(line.isprintable() for line in lines)


def test_the_same_seed_gives_the_same_bytes() -> None:
    def story() -> list[str]:
        scenario, lines = load("selftest"), list[str]()
        Timeline(Machine(scenario=scenario), lines.append).run()
        return lines

    assert story() == story()


def test_guests_of_a_scenario_are_there_from_the_start_and_after_a_reset() -> None:
    text = b"[[kvm.vm]]\nname = 'g'\nvcpus = 2\noptions = { fd = 12 }\n"
    machine = Machine(scenario=parse(text, "guests.toml"))
    [folder] = [name for name in machine.listdir("sys/kernel/debug/kvm") if name.endswith("-12")]
    assert {"vcpu0", "vcpu1"} <= set(machine.listdir(f"sys/kernel/debug/kvm/{folder}"))
    machine.write("sys/kernel/debug/fakesys/reset", "1\n")
    assert folder in machine.listdir("sys/kernel/debug/kvm")


def test_a_guest_that_cannot_be_made_is_refused_with_the_reason() -> None:
    text = b"[[kvm.vm]]\nname = 'a'\n[[kvm.vm]]\nname = 'b'\noptions = { fd = 'x' }\n"
    with pytest.raises(ScenarioError, match=r"^key kvm\.vm\[1\]: "):
        Machine(scenario=parse(text, "guests.toml"))
    with pytest.raises(ScenarioError, match=r"^key kvm\.preset\[0\]: "):
        Machine(scenario=parse(b"[kvm]\npreset = ['no-boot']\n", "guests.toml"))
    with pytest.raises(ScenarioError, match=r"^key kvm\.preset\[0\]: "):
        Machine(scenario=parse("[kvm]\npreset = ['\u20ac']\n".encode(), "guests.toml"))


CARD = "[[ap.card]]\nid = 1\ntype = 'CEX6'\nmode = 'cca'\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[ap]\ndomains = [256]", "ap.domains: a domain is within 0-255"),
        (CARD + "domains = [-1]", "ap.card[0].domains: a domain is within 0-255"),
        (CARD.replace("id = 1", "id = 256"), "ap.card[0].id: an adapter is within 0-255"),
        (CARD.replace("CEX6", "CEX9"), "ap.card[0]: "),
    ],
)
def test_hardware_that_cannot_be_is_refused_with_its_place(text: str, message: str) -> None:
    with pytest.raises(ScenarioError) as error:
        Machine(scenario=parse(text.encode(), "f.toml"))
    assert message in str(error.value)


def test_a_card_is_described_as_new_card_describes_it() -> None:
    text = (
        "[ap]\npreset = 'empty'\ndomains = [4]\n"
        + CARD
        + "serialnr = 'ABCDEFGH'\ndepth = 4\ndomains = [4, 0x47]\n"
    )
    machine = Machine(scenario=parse(text.encode(), "f.toml"))
    card = "sys/devices/ap/card01"
    assert machine.read(f"{card}/type") == "CEX6C\n"
    assert machine.read(f"{card}/serialnr") == "ABCDEFGH\n"
    assert machine.read(f"{card}/depth") == "4\n"
    queues = [name for name in machine.listdir(card) if name.startswith("01.")]
    assert queues == ["01.0004"]


def test_cards_alone_say_which_domains_the_machine_has() -> None:
    text = CARD + "domains = [4, 0x47]\n"
    machine = Machine(scenario=parse(text.encode(), "f.toml"))
    assert machine.read("sys/bus/ap/bindings") == "2/2 (complete)\n"
