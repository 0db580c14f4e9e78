"""`fakesys lab livelock`: its numbers, tables, plots, and what it refuses."""

from __future__ import annotations

import sys
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from fakesys.cli import main
from fakesys.cli.lab import progress
from fakesys.lab import livelock as experiment
from fakesys.lab.livelock import LIVELOCK, Setup
from fakesys.machine.kernels.mmu import MMU_KERNELS
from fakesys.subsystems.kvm_mmu.shadow.policy import SERIES, ZapFlow

SMALL = ("--jobs", "0", "--vcpus", "0,2-3", "--ws", "4M", "--max-rounds", "3000")


def fakesys(*words: str) -> tuple[int, str, str]:
    """Status, standard output and standard error of the command."""
    out, err = StringIO(), StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["fakesys", *words])
        with pytest.raises(SystemExit) as end:
            main()
    return int(end.value.code or 0), out.getvalue(), err.getvalue()


def rows_of(text: str, title: str) -> dict[str, list[str]]:
    """First cell -> other cells, of the table with this title."""
    after = text.split(title, 1)[1].splitlines()
    rows: dict[str, list[str]] = {}
    rule = next(place for place, line in enumerate(after) if "───" in line)
    for line in after[rule + 1 :]:
        if not line.strip():
            break
        first, *others = line.split()
        rows[first] = others
    return rows


def test_both_flows_and_every_patch_level_are_shown() -> None:
    status, out, err = fakesys("lab", "livelock", *SMALL)
    assert (status, err) == (0, "")
    flows = rows_of(out, "Deleting a memslot while vCPUs fault: 5.4-stable, 4 MiB per vCPU")
    assert list(flows) == ["0", "2", "3"]
    # zap_all: drops, zapped, added, ms; then the same of the fast flow.
    assert flows["0"][:3] == flows["0"][4:7] == ["0", "5", "0"]
    assert flows["2"][0] == flows["3"][0] == LIVELOCK
    assert int(flows["3"][4]) <= int(flows["3"][5]) // 10 + 1
    levels = rows_of(out, "Drops of the lock by patch level")
    assert list(levels) == ["5.3", *(policy.name for policy in SERIES)]
    assert {levels[name][0] for name in levels} == {"0"}
    assert levels["5.3"][1:] == [LIVELOCK, LIVELOCK]
    # Patches 1 to 5 end, but drop the lock more often than they zap; from the sixth on never.
    assert all(100 < int(levels[policy.name][1]) < 500 for policy in SERIES[:5])
    assert all(levels[policy.name] == ["0", "0", "0"] for policy in SERIES[5:])


def test_only_a_proof_is_shown_as_a_livelock() -> None:
    _, out, _ = fakesys("lab", "livelock", *SMALL[:-1], "500")
    flows = rows_of(out, "Deleting a memslot while vCPUs fault: 5.4-stable, 4 MiB per vCPU")
    assert flows["2"][0] == flows["3"][0] == ">500"
    levels = rows_of(out, "Drops of the lock by patch level")
    assert levels["5.3"] == ["0", ">500", ">500"]


def test_the_same_options_give_the_same_text() -> None:
    twice = [fakesys("lab", "livelock", *SMALL, "--jobs", jobs) for jobs in ("0", "2")]
    assert twice[0] == twice[1]


def test_without_preemption_everything_ends() -> None:
    _, out, _ = fakesys("lab", "livelock", *SMALL, "--no-preempt")
    assert "preempt=0" in out
    levels = rows_of(out, "Drops of the lock by patch level")
    assert all(LIVELOCK not in cells for cells in levels.values())


def test_the_tables_fit_a_terminal() -> None:
    setup = Setup(working_set=2 << 20, max_rounds=20)
    flows = [experiment.measure(case, setup) for case in experiment.flow_cases(setup)]
    patches = [experiment.measure(case, setup) for case in experiment.patch_cases(setup)]
    out = StringIO()
    console = Console(file=out, width=80)
    for table in (experiment.flow_table(setup, flows), experiment.patch_table(setup, patches)):
        console.print(table.for_terminal())
    assert "…" not in out.getvalue()
    assert " 16 " in out.getvalue()


def test_every_kernel_can_be_compared() -> None:
    for name, kernel in MMU_KERNELS.items():
        setup = Setup(vcpus=(1,), working_set=2 << 20, kernel=name, max_rounds=20)
        cases = experiment.flow_cases(setup)
        assert [case.flow for case in cases] == [ZapFlow.ZAP_ALL, ZapFlow.FAST]
        assert {case.policy for case in cases} == {kernel.policy}


@pytest.mark.parametrize("kind", ["svg", "png"])
def test_a_plot_is_written_and_always_the_same(tmp_path: Path, kind: str) -> None:
    pytest.importorskip("matplotlib")
    files = [tmp_path / f"{name}.{kind}" for name in ("first", "second")]
    for file in files:
        status, out, _ = fakesys("lab", "livelock", *SMALL, f"--{kind}", str(file))
        assert status == 0
        assert out.splitlines()[-1] == str(file)
    assert files[0].read_bytes() == files[1].read_bytes()


def test_the_plot_is_labelled(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    file = tmp_path / "plot.svg"
    fakesys("lab", "livelock", *SMALL, "--svg", str(file))
    text = file.read_text()
    for label in ("running vCPUs", "virtual milliseconds", "shadow pages zapped", "series-11"):
        assert label in text
    assert "zap_all (before the series): livelock" in text


def test_without_matplotlib_the_message_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    status, out, err = fakesys("lab", "livelock", "--svg", str(tmp_path / "plot.svg"))
    assert (status, out) == (1, "")
    assert err == "fakesys: plots need matplotlib: pip install 'fakesys[plot]'\n"


def test_a_plot_that_cannot_be_written_is_refused_before_the_races(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    place = tmp_path / "nowhere" / "plot.svg"
    status, out, err = fakesys("lab", "livelock", "--svg", str(place))
    assert (status, out) == (1, "")
    assert err == f"fakesys: {place}: No such file or directory\n"
    other = tmp_path / "plot.pdf"
    assert fakesys("lab", "livelock", "--png", str(other))[0] == 1
    assert not other.exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--vcpus", "0-65"), "'0-65' is not within 0-64"),
        (("--vcpus", "5-2"), "'5-2' is not within 0-64"),
        (("--vcpus", "two"), "'two' is not a list such as 0-16 or 0,1,2,4,8"),
        (("--vcpus", ""), "'' is not a list such as 0-16 or 0,1,2,4,8"),
        (("--ws", "64Q"), "'64Q' is not a size such as 64M"),
        (("--ws", "2T"), "the working sets have more than 1 TiB together"),
        (("--kernel", "2.4"), "'2.4' is not one of the kernels: 5.1, 5.3, series-01"),
        (("--max-rounds", "0"), "0 is not in the range"),
        (("--seed", "x"), "'x' is not a valid integer"),
    ],
)
def test_wrong_values_are_one_line_and_status_2(words: tuple[str, ...], message: str) -> None:
    status, out, err = fakesys("lab", "livelock", *words)
    assert (status, out) == (2, "")
    [line] = err.splitlines()
    assert message in line


def test_the_shipped_scenario_shows_the_livelock_and_its_absence() -> None:
    status, out, err = fakesys("run", "memslot-livelock")
    assert (status, err) == (0, "")
    told = [line.split("-> ")[1] for line in out.splitlines() if "fakesys/kvm/last ->" in line]
    words = [dict(word.split("=") for word in text.split("'")[1].split()[1:]) for text in told]
    results = [word["result"] for word in words]
    # 5.3 idle and busy; patches 5 and 6; 5.4-stable busy, idle, by the old flow, unpreempted.
    assert results == ["done", "livelock", "done", "done", "done", "done", "livelock", "done"]
    fast = words[4]
    assert int(fast["rounds"]) <= int(fast["zapped"]) // 10 + 1
    assert words[0]["zapped"] == words[5]["zapped"]


def test_help_shows_an_example() -> None:
    for words in (("lab",), ("lab", "livelock")):
        status, out, _ = fakesys(*words, "--help")
        assert status == 0
        assert "Example: fakesys lab livelock" in out


def test_progress_is_shown_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    for terminal in (False, True):
        err = StringIO()
        err.isatty = lambda terminal=terminal: terminal  # type: ignore[method-assign,misc]
        with redirect_stderr(err), progress("races", 2) as tell:
            tell(0, None)
        assert ("races" in err.getvalue()) is terminal
