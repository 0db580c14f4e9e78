"""Options of the whole test suite, and how it is shared out among processes."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from fakesys.transport import mounting
from tests.errnos import Errnos

# What a mount through fusepy is refused with where fusepy or libfuse 2 is missing.
NO_FUSEPY = "--transport fusepy needs"
# No test measures time, so none fails because the host is slow.
settings.register_profile("fakesys", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("fakesys")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of this test suite.

    `--root /` runs the tests of tests/native on the files of the running kernel.
    """
    parser.addoption("--root", help="tests/native: use the files below this folder, not a mount")
    parser.addoption(
        "--regen", action="store_true", help="write recorded texts again, to be read in review"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Let programs under test begin with the default action of every signal.

    `nohup make test &` ignores SIGHUP and SIGINT, and a program cannot catch what was ignored when
    it was started. A handler that does nothing ignores them in this process only.
    """
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda _number, _frame: None)
    config.pluginmanager.register(Errnos(), "errnos")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many tests did not run for want of fusepy or libfuse 2."""
    reasons = [
        str(report.longrepr[2])
        for report in terminalreporter.stats.get("skipped", [])
        if isinstance(report.longrepr, tuple) and NO_FUSEPY in report.longrepr[2]
    ]
    if reasons:
        reason = reasons[0].removeprefix("Skipped: ")
        terminalreporter.write_line(f"{len(reasons)} tests did not run: {reason}", yellow=True)


class ByModule(LoadScopeScheduling):
    """With `-n 2` a module stays in one process, and so do its mounts."""

    def _split_scope(self, nodeid: str) -> str:
        return nodeid.split("::")[0]


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByModule:
    """Whatever `--dist` says."""
    return ByModule(config, log)


@pytest.fixture(scope="session", autouse=True)
def only_this_process_is_measured() -> Iterator[None]:
    """Keep the settings of a coverage measurement from pytest as a program under test."""
    settings_of_measurement = {
        name: os.environ.pop(name) for name in list(os.environ) if name.startswith("SLIPCOVER_")
    }
    yield
    os.environ.update(settings_of_measurement)


@pytest.fixture
def own_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records of mounts are kept apart from the user's own."""
    (tmp_path / "run").mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))


@pytest.fixture
def point(tmp_path: Path, own_records: None) -> Iterator[Path]:
    """A mount point, free again afterwards."""
    point = tmp_path / "mnt"
    point.mkdir()
    yield point
    while mounting.find(point) is not None:
        mounting.unmount(point, lazy=True)
