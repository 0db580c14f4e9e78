"""The pytest plugin: a machine or a mount for each test, gone after it, with reasons on failure.

    @pytest.mark.fakesys(profile="6.18", preset="full")
    def test_my_script(fake_mount):
        subprocess.run(["./my-script", fake_mount / "sys"], check=True)

Everything of fakesys is imported when a test first asks for it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from fakesys.daemon.launch import Daemon
    from fakesys.machine.machine import Machine
    from fakesys.sweep.search import Report

MARKER = "fakesys"
# What the marker takes, and what for; the values are those of `fakesys mount`.
KEYWORDS = {
    "scenario": "name of a shipped scenario or path of a .toml file",
    "profile": "the kernel to imitate",
    "preset": "AP hardware instead of the scenario's, or a guest that boots",
    "seed": "of the one random generator",
    "boot": "the kernel's command line",
    "clock_rate": "simulated seconds per real second",
    "lockdown": "debugfs as on a locked-down kernel",
}
CONTROL = "sys/kernel/debug/fakesys"
ANSWER_SECONDS = 5.0


@dataclass
class Watched:
    """What a fixture reports of its machine: internal errors, and texts that go with a failure."""

    bugs: Callable[[], str]
    # Title and text of each.
    sections: Callable[[], list[tuple[str, str]]]
    _reported: str = ""

    def refuse_bugs(self) -> None:
        """Fail the running test for what went wrong inside fakesys since the last call."""
        found = self.bugs()
        if found != self._reported:
            self._reported = found
            pytest.fail(f"internal error of fakesys, not of this test:\n{found}", pytrace=False)


_WATCHED = pytest.StashKey[list[Watched]]()


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker, which --strict-markers requires."""
    words = ", ".join(f"{name}=..." for name in KEYWORDS)
    config.addinivalue_line("markers", f"{MARKER}({words}): the machine of this test's fixtures.")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Refuse markers that would do nothing. Raises UsageError."""
    if hasattr(config, "workerinput"):
        # A worker of xdist cannot say so now; it does when the test begins.
        return
    for item in items:
        if trouble := _wrong_marker(item):
            raise pytest.UsageError(trouble)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Refuse a marker that would do nothing, in a worker of xdist too."""
    if trouble := _wrong_marker(item):
        pytest.fail(trouble, pytrace=False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    """Fail a test that met an internal error, also when its own assertions passed."""
    result = yield
    for watched in item.stash.get(_WATCHED, []):
        watched.refuse_bugs()
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the log and the last error of the machine to the report of a failure."""
    report = yield
    if report.failed:
        for watched in item.stash.get(_WATCHED, []):
            report.sections.extend(
                (title, text) for title, text in watched.sections() if text.strip()
            )
    return report


@pytest.fixture
def fake_machine(request: pytest.FixtureRequest) -> Iterator[Machine]:
    """Give a machine in this process: `read`, `write`, `listdir`, `clock.advance`; no FUSE."""
    machine = _machine(_options_of(request.node))
    watched = Watched(
        bugs=lambda: "".join(machine.control.bugs),
        sections=lambda: [_last_error(machine.read)],
    )
    _watch(request.node, watched)
    yield machine
    watched.refuse_bugs()


@pytest.fixture
def fake_mount(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """Give the mount point of a machine, below `tmp_path`."""
    from fakesys.daemon.launch import Daemon, option_words

    words = option_words(_options_of(request.node))
    _skip_without_fuse()
    point = tmp_path / "fakesys"
    point.mkdir()
    daemon = Daemon(point, words, log=tmp_path / "fakesys.log")
    watched = Watched(
        bugs=lambda: _bugs_behind(daemon),
        sections=lambda: _sections_of(daemon),
    )
    _watch(request.node, watched)
    with _running(daemon):
        yield daemon.point
        watched.refuse_bugs()


@pytest.fixture
def sweep(request: pytest.FixtureRequest) -> Iterator[Callable[..., Report]]:
    """Give a function that sweeps a command as `fakesys sweep` does, and fails for its findings.

        def test_my_script(sweep):
            sweep("sh", "my-script.sh", "5", faults=("errno", "kill"))

    Keywords: `only`, `faults`, `paths`, `limit`, `late`, `rivals` as of `sweep.plan.Choice`;
    `seconds`, `check` (words), `net` as of the command.
    """
    from fakesys.sweep.cell import end_zygote

    _skip_without_fuse()
    machine = _machine(_options_of(request.node))
    try:
        yield lambda *command, **wanted: _swept(machine, command, wanted)
    finally:
        end_zygote()


def _swept(machine: Machine, command: Sequence[str], wanted: Mapping[str, Any]) -> Report:
    """Return the report of a sweep without findings; with some, fail with the table."""
    from fakesys.sweep import report, search
    from fakesys.sweep.links import LinkError
    from fakesys.sweep.plan import Choice, program_of

    own = {name: value for name, value in wanted.items() if name in ("seconds", "check", "net")}
    choice = Choice(**{name: value for name, value in wanted.items() if name not in own})
    program = program_of(command, machine, dict(os.environ), Path.cwd(), **own)
    found = search.Sweep(program, choice)
    try:
        found.begin()
        found.go_on(found.cells())
        text = report.text(found.report) if found.report.findings else ""
    except (search.SweepError, LinkError) as error:
        text = f"fakesys: {error}"
    if text:
        pytest.fail(text, pytrace=False)
    return found.report


def _wrong_marker(node: pytest.Item) -> str | None:
    """Return what is wrong with a marker of this test; None if nothing is."""
    for marker in node.iter_markers(MARKER):
        wrong = [repr(value) for value in marker.args]
        wrong += [name for name in marker.kwargs if name not in KEYWORDS]
        if wrong:
            known = ", ".join(KEYWORDS)
            return f"{node.nodeid}: the marker {MARKER} takes no {wrong[0]}; keywords: {known}"
    return None


def _options_of(node: pytest.Item) -> dict[str, object]:
    """Return the keywords of all markers of a test; the innermost marker wins."""
    options: dict[str, object] = {}
    for marker in node.iter_markers(MARKER):
        options = {**marker.kwargs, **options}
    return options


def _watch(node: pytest.Item, watched: Watched) -> None:
    node.stash.setdefault(_WATCHED, []).append(watched)


def _machine(options: Mapping[str, object]) -> Machine:
    """Return the machine that the same options make on the command line."""
    from fakesys.cli.machine_options import machine_of_words
    from fakesys.daemon.launch import option_words

    try:
        return machine_of_words(option_words(options))
    except ValueError as error:
        trouble = str(error)
    pytest.fail(f"fakesys: {trouble}", pytrace=False)


def _skip_without_fuse() -> None:
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("fake_mount: /dev/fuse is not usable here")
    if os.geteuid() != 0 and shutil.which("fusermount3") is None:
        pytest.skip("fake_mount: fusermount3 is missing and only root can do without")


@contextmanager
def _running(daemon: Daemon) -> Iterator[None]:
    from fakesys.transport.mounting import MountError

    trouble = ""
    try:
        try:
            daemon.start()
        except (MountError, ValueError) as error:
            trouble = str(error)
        if trouble:
            pytest.fail(f"fakesys: {trouble}", pytrace=False)
        yield
    finally:
        daemon.stop()


def _bugs_behind(daemon: Daemon) -> str:
    """Return the internal errors of a daemon; none if the test itself unmounted."""
    text, status = "", daemon.poll()
    if status is None:
        text = _text(daemon.point / CONTROL / "bugs")
        if not text[:1].isdigit():
            # The mount of a process that is killed ends some moments before the process.
            status = daemon.wait(ANSWER_SECONDS)
    if status is not None:
        return f"the daemon ended by itself with status {status}\n" if status else ""
    count, _, tracebacks = text.partition("\n")
    return "" if count == "0" else tracebacks or text


def _sections_of(daemon: Daemon) -> list[tuple[str, str]]:
    sections = [("fakesys daemon log", daemon.said())]
    if daemon.poll() is None and daemon.pid:
        sections.append(_last_error(lambda path: _text(daemon.point / path)))
    return sections


def _last_error(read: Callable[[str], str]) -> tuple[str, str]:
    return "fakesys: why the last write was refused", read(f"{CONTROL}/last_error")


def _text(path: Path) -> str:
    """Return the text of a control file, or why it cannot be read within ANSWER_SECONDS."""
    from fakesys.transport.mounting import within

    def read() -> str:
        try:
            return path.read_text()
        except OSError as error:
            return f"{path}: {error.strerror}\n"

    text = within(ANSWER_SECONDS, read)
    return f"{path}: the daemon does not answer\n" if text is None else text
