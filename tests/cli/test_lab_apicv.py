"""`fakesys lab apicv`: its numbers, tables, plots, and what it refuses."""

from __future__ import annotations

import re
from io import BytesIO, StringIO
from itertools import pairwise
from pathlib import Path

import pytest
from rich.console import Console

from fakesys.lab import apicv as experiment
from fakesys.lab.apicv import Setup
from fakesys.machine.kernels.apicv import APICV_KERNELS
from fakesys.subsystems.apicv.presets import GUESTS
from tests.avic_kit import KERNELS, Guests
from tests.cli.test_lab_livelock import fakesys, rows_of

SMALL = ("--jobs", "0", "--vcpus", "3", "--storms", "1,3", "--windows", "4")
BOOT, STORM = "A boot over simulated time", "others in guest"


def boot_rows(text: str) -> dict[str, list[str]]:
    """Step -> its other cells."""
    lines = text.split(BOOT, 1)[1].split("─ \n", 1)[1].split("\nevents:", 1)[0].splitlines()
    cells = [line.rsplit(None, 7) for line in lines if line.strip()]
    return {name.strip(): rest for name, *rest in cells}


def test_the_boot_is_that_of_the_preset() -> None:
    status, out, error = fakesys("lab", "apicv", *SMALL)
    assert (status, error) == (0, "")
    assert "linux-boot, 3 vCPUs, kernel v3" in out
    rows = boot_rows(out)
    until, exits, injections, events, off, on, then = rows["all"]
    assert (exits, injections, events, off, on, then) == (
        str(146 + 7 * 2), "128", str(208 + 2 * 2), "16", "16", "active",
    )  # fmt: skip
    assert float(until) > 800
    assert rows["windows"][4:] == ["16", "16", "active"]
    assert list(rows) == [
        "set up",
        "timer at the PIC",
        "windows",
        "timer at the IOAPIC",
        "start APs",
        "call all",
        "wake APs",
        "clock",
        "device",
        "all",
    ]
    times = [float(row[0]) for row in rows.values()]
    assert times == sorted(times)


@pytest.mark.parametrize("preset", GUESTS)
@pytest.mark.parametrize("kernel", KERNELS)
def test_time_changes_no_count(kernel: str, preset: str) -> None:
    setup = Setup(preset=preset, vcpus=2, kernel=kernel, reinject=False)
    last = experiment.boot(setup).samples[-1]
    guests = Guests(kernel, listens=False)
    guests.preset(f"{preset} vcpus=2 reinject=0")
    assert (last.exits, last.injections, last.events) == guests.sums(*experiment.COUNTED)
    state = guests.state()
    assert (state["flips_off"], state["flips_on"]) == (str(last.off), str(last.on))


def test_samples_go_forward() -> None:
    samples = experiment.boot(Setup(vcpus=2)).samples
    for before, after in pairwise(samples):
        assert after.seconds >= before.seconds
        assert after.exits >= before.exits
    assert {sample.active for sample in samples} == {True, False}


def test_what_a_window_costs() -> None:
    _, out, _ = fakesys("lab", "apicv", *SMALL)
    rows = rows_of(out, STORM)
    assert set(rows) == {"1", "3"}
    # v3: every vCPU twice; newer kernels make each look for events as well.
    assert rows["3"][:2] == ["6", "3"]
    assert rows["3"][4:6] == ["6", "6"]
    halted = rows_of(out, "others halted")
    assert halted["3"][:2] == ["2", "3"]
    assert "memslot updates" in out


@pytest.mark.parametrize("halted", [False, True])
@pytest.mark.parametrize("kernel", KERNELS)
def test_storms_are_as_by_commands(kernel: str, halted: bool) -> None:
    guests = Guests(kernel, listens=False).boot(3, "reinject=0")
    if halted:
        guests("g vcpu 1 hlt", "g vcpu 2 hlt")
    guests("g pic base=0x30 imr=0 aeoi=1", "g vcpu 0 lvt0 extint")
    guests.clear()
    for _ in range(5):
        guests("g vcpu 0 cli", "g pit tick", "g vcpu 0 sti", "g vcpu 0 iret")
    found = experiment.storm(kernel, 3, halted=halted, windows=5)
    assert (found.exits * 5, found.injections * 5, found.events * 5) == guests.sums(
        *experiment.COUNTED
    )


def test_the_same_options_give_the_same_text() -> None:
    assert fakesys("lab", "apicv", *SMALL) == fakesys("lab", "apicv", *SMALL, "--jobs", "2")


def test_options_of_the_pool() -> None:
    """The processes of this machine and a cluster exclude each other; an absent one is told."""
    words = ("lab", "ap", "--cluster")
    status, _, error = fakesys(*words, "tcp://127.0.0.1:1", "--jobs", "1")
    assert (status, error.splitlines()[-1][-33:]) == (2, "counts for nothing with --cluster")
    status, _, error = fakesys(*words, "nonsense://x")
    assert status == 1
    assert "no scheduler at nonsense://x" in error or "fakesys[cluster]" in error


def test_synic_keeps_avic_off() -> None:
    words = ("--preset", "windows2019-boot", "--hv-synic", *SMALL)
    _, out, _ = fakesys("lab", "apicv", *words)
    rows = boot_rows(out)
    assert rows["set up"][4:] == ["1", "0", "off"]
    assert rows["all"][4:] == ["1", "0", "off"]


def test_the_tables_fit_a_terminal() -> None:
    setup = Setup(vcpus=240, storms=(255,), windows=2)
    storms = [
        experiment.storm(kernel, vcpus, halted=halted, windows=2)
        for kernel, vcpus, halted in experiment.storm_cases(setup)
    ]
    out = StringIO()
    console = Console(file=out, width=80)
    console.print(experiment.boot_table(setup, experiment.boot(setup)).for_terminal())
    for halted in (False, True):
        console.print(experiment.storm_table(setup, storms, halted=halted).for_terminal())
    assert "…" not in out.getvalue()
    assert " 1819 " in out.getvalue()
    assert max(map(len, out.getvalue().splitlines())) <= 80


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--kernel", "4.9"), "'4.9' is not one of the kernels: v3, 5.6, 6.1, 6.12, 6.18, 7.x"),
        (
            ("--preset", "dos-boot"),
            "'dos-boot' is not one of the presets: linux-boot, windows2019-boot,",
        ),
        (("--vcpus", "300"), "more than 288 vCPUs"),
        (("--vcpus", "0"), "Invalid value for '--vcpus'"),
        (("--storms", "0"), "'0' is not within 1-255"),
        (("--windows", "0"), "Invalid value for '--windows'"),
    ],
)
def test_what_cannot_be_measured(words: tuple[str, ...], message: str) -> None:
    status, out, error = fakesys("lab", "apicv", *words)
    assert (status, out) == (2, "")
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("kind", ["svg", "png"])
def test_a_plot_is_written_and_always_the_same(tmp_path: Path, kind: str) -> None:
    pytest.importorskip("matplotlib")
    files = [tmp_path / f"{name}.{kind}" for name in ("first", "second")]
    for file in files:
        status, out, _ = fakesys("lab", "apicv", *SMALL, f"--{kind}", str(file))
        assert (status, out.splitlines()[-1]) == (0, str(file))
    assert files[0].read_bytes() == files[1].read_bytes()


def test_curves_differ_and_names_of_steps_have_room() -> None:
    pytest.importorskip("matplotlib")
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    from fakesys.lab.apicv_plot import draw

    setup = Setup(storms=(1, 2, 4), windows=2)
    storms = [
        experiment.storm(kernel, vcpus, halted=halted, windows=2)
        for kernel, vcpus, halted in experiment.storm_cases(setup)
    ]
    figure = draw(setup, experiment.boot(setup), storms)
    FigureCanvasAgg(figure)
    figure.savefig(BytesIO())
    for axes in figure.axes:
        curves = [line for line in axes.lines if not str(line.get_label()).startswith("_")]
        assert len({str(line.get_color()) for line in curves}) == len(curves)
        assert len({str(line.get_marker()) for line in curves}) == len(curves)
        assert len({str(line.get_ydata()) for line in curves}) == len(curves)
    names = [text.get_window_extent() for text in figure.axes[0].texts]
    assert len(names) > 2
    assert not any(a.overlaps(b) for i, a in enumerate(names) for b in names[:i])


def test_the_plot_is_labelled(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    file = tmp_path / "plot.svg"
    fakesys("lab", "apicv", *SMALL, "--svg", str(file))
    text = file.read_text()
    for label in ("simulated milliseconds", "injections", "AVIC of the VM", "the others halted"):
        assert label in text
    for kernel in APICV_KERNELS:
        assert re.search(rf"events, .*\b{re.escape(kernel)}", text)
