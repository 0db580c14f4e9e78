"""The pytest plugin, run on test files made for it: what users' tests get and see."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fakesys.pytest_plugin import KEYWORDS
from fakesys.transport import mounting

pytest_plugins = "pytester"

needs_fuse = pytest.mark.skipif(
    not os.access("/dev/fuse", os.R_OK | os.W_OK), reason="/dev/fuse is not usable here"
)


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs pytest on a test file, as strictly as this project does."""
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    return Run(pytester)


class Run:
    """pytest on one file."""

    def __init__(self, pytester: pytest.Pytester) -> None:
        self._pytester = pytester

    def __call__(self, source: str, *options: str) -> pytest.RunResult:
        self._pytester.makepyfile(source)
        words = ("--strict-markers", "-W", "error", "-ra", "-p", "no:cacheprovider", *options)
        # Workers of xdist are processes, and so must be the one that they report to.
        if options:
            return self._pytester.runpytest_subprocess(*words, timeout=100)
        return self._pytester.runpytest_inprocess(*words)

    def left(self) -> list[mounting.Mounted]:
        """Mounts that are still there."""
        below = self._pytester.path
        return [mount for mount in mounting.mounted() if below in mount.point.parents]


def test_fake_machine_is_a_new_one_for_each_test(run: Run) -> None:
    result = run("""
        import pytest, fakesys

        @pytest.mark.parametrize("turn", [1, 2])
        def test_it(fake_machine, turn):
            assert isinstance(fake_machine, fakesys.Machine)
            assert fake_machine.read("sys/bus/ap/apmask").startswith("0xff")
            fake_machine.write("sys/bus/ap/apmask", "-5")
            assert fake_machine.read("sys/bus/ap/apmask").startswith("0xfb")
    """)
    result.assert_outcomes(passed=2)


def test_the_marker_chooses_the_machine_the_nearest_first(run: Run) -> None:
    result = run("""
        import pytest, fakesys
        pytestmark = pytest.mark.fakesys(scenario="selftest", profile="6.1", seed=5)
        F = "sys/kernel/debug/fakesys"

        class TestIt:
            pytestmark = pytest.mark.fakesys(profile="6.18")

            @pytest.mark.fakesys(seed=7, clock_rate=0.5, lockdown=True)
            def test_near(self, fake_machine):
                assert fake_machine.profile_name == "6.18"
                assert fake_machine.read(f"{F}/seed") == "7\\n"
                assert fake_machine.clock.rate == 0.5
                with pytest.raises(fakesys.KernelError, match="EPERM"):
                    fake_machine.read("sys/kernel/debug/selftest/rw")

            def test_far(self, fake_machine):
                assert fake_machine.profile_name == "6.18"
                assert fake_machine.read(f"{F}/seed") == "5\\n"
                assert fake_machine.read("sys/kernel/debug/selftest/rw") == "65536\\n"
    """)
    result.assert_outcomes(passed=2)


@needs_fuse
def test_fake_mount_is_a_mount_below_tmp_path_gone_after_the_test(run: Run) -> None:
    result = run("""
        import os, pytest, fakesys

        @pytest.mark.fakesys(scenario="selftest", profile="6.18", clock_rate=0)
        def test_mount(fake_mount, tmp_path):
            assert os.path.ismount(fake_mount) and fake_mount.parent == tmp_path
            assert "[6.18]" in (fake_mount / "sys/kernel/debug/fakesys/profile").read_text()
            assert (fake_mount / "sys/kernel/debug/fakesys/clock/rate").read_text() == "0\\n"
            (fake_mount / "sys/devices/virtual/selftest/selftest0/rw").write_text("1400")

        def test_mount_held_open(fake_mount):
            global held
            held = os.open(fake_mount / "sys/bus/ap/apmask", os.O_RDONLY)

        def test_both(fake_mount, fake_machine):
            path = "sys/bus/ap/apmask"
            assert (fake_mount / path).read_text() == fake_machine.read(path)

        def test_the_test_may_unmount(fake_mount):
            import subprocess, sys
            command = [sys.executable, "-m", "fakesys", "umount", str(fake_mount)]
            subprocess.run(command, check=True, timeout=30)
    """)
    result.assert_outcomes(passed=4)
    assert run.left() == []


@needs_fuse
def test_under_xdist_each_test_has_its_own_mount(run: Run) -> None:
    result = run(
        """
        import pytest

        @pytest.mark.fakesys(preset="default")
        @pytest.mark.parametrize("card", range(8))
        def test_it(fake_mount, card):
            mask = fake_mount / "sys/bus/ap/apmask"
            assert mask.read_text().startswith("0xffff")
            mask.write_text(f"-{card}")
            assert f"{int(mask.read_text(), 16):0256b}".index("0") == card
    """,
        "-n",
        "2",
    )
    result.assert_outcomes(passed=8)
    assert run.left() == []


@needs_fuse
def test_a_failure_shows_the_log_and_why_a_write_was_refused(run: Run) -> None:
    result = run(
        """
        import pytest

        def test_mount(fake_mount):
            (fake_mount / "sys/bus/ap/poll_timeout").write_text("no number")

        def test_log(fake_mount):
            with (fake_mount.parent / "fakesys.log").open("a") as log:
                log.write("what the daemon has to say")
            assert False, "the test's own reason"

        def test_machine(fake_machine):
            fake_machine.write("sys/bus/ap/poll_timeout", "no number")
    """,
    )
    result.assert_outcomes(failed=3)
    title = "*fakesys: why the last write was refused*"
    log = "*fakesys daemon log*"
    result.stdout.fnmatch_lines_random([title, "*sys/bus/ap/poll_timeout EINVAL*", log])
    result.stdout.fnmatch_lines([log, "what the daemon has to say"])
    assert run.left() == []


def test_an_internal_error_fails_a_test_that_did_not_notice(run: Run) -> None:
    result = run("""
        import pytest

        def test_quiet(fake_machine):
            fake_machine.bug(RuntimeError("inner trouble"))

        @pytest.mark.xfail(raises=ZeroDivisionError, strict=True)
        def test_own_failure_comes_first(fake_machine):
            1 / 0

        @pytest.fixture
        def late(fake_machine):
            yield
            fake_machine.bug(RuntimeError("late trouble"))

        def test_late(late):
            pass
    """)
    result.assert_outcomes(failed=1, xfailed=1, passed=1, errors=1)
    result.stdout.fnmatch_lines_random(
        [
            "internal error of fakesys, not of this test:",
            "RuntimeError: inner trouble",
            "RuntimeError: late trouble",
        ]
    )


@needs_fuse
def test_an_internal_error_of_a_daemon_and_its_death_fail_the_test(run: Run) -> None:
    result = run("""
        import os, signal, time, pytest
        from fakesys.transport import mounting
        from fakesys.daemon import registry

        def daemon_of(point):
            return registry.find(mounting.find(point).instance).pid

        def test_killed(fake_mount):
            os.kill(daemon_of(fake_mount), signal.SIGKILL)
            while mounting.answers(fake_mount):
                time.sleep(0.01)
    """)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines_random(["the daemon ended by itself with status -9"])
    assert run.left() == []


def test_without_the_device_mounts_are_skipped_and_machines_are_not(run: Run) -> None:
    result = run("""
        import os, pytest
        real = os.access

        @pytest.fixture(autouse=True)
        def no_device(monkeypatch):
            monkeypatch.setattr(
                os, "access", lambda path, mode: path != "/dev/fuse" and real(path, mode)
            )

        def test_mount(fake_mount):
            raise AssertionError

        def test_machine(fake_machine):
            assert fake_machine.listdir("sys")
    """)
    result.assert_outcomes(passed=1, skipped=1)
    result.stdout.fnmatch_lines(["*fake_mount: /dev/fuse is not usable here*"])


@pytest.mark.parametrize("options", [(), ("-n", "2")])
@pytest.mark.parametrize("marker", ['profil="6.1"', '"6.1"'])
def test_a_marker_that_would_do_nothing_is_a_usage_error(
    run: Run, marker: str, options: tuple[str, ...]
) -> None:
    result = run(
        f"""
        import pytest

        @pytest.mark.fakesys({marker})
        def test_it(fake_machine):
            raise AssertionError("must not run")
    """,
        *options,
    )
    assert result.ret != 0
    text = result.stdout.str() + result.stderr.str()
    assert "the marker fakesys takes no " in text
    assert f"keywords: {', '.join(KEYWORDS)}" in text
    assert "INTERNALERROR" not in text
    assert "must not run" not in text.replace('AssertionError("must not run")', "")


@needs_fuse
def test_a_wrong_value_is_one_line(run: Run) -> None:
    result = run("""
        import pytest

        WRONG = [
            {"profile": "2.4"}, {"scenario": "nonesuch"}, {"preset": "huge"}, {"seed": "x"},
            {"clock_rate": -1},
        ]
        EACH = [pytest.param(id=str(wrong), marks=pytest.mark.fakesys(**wrong)) for wrong in WRONG]

        @pytest.mark.parametrize((), EACH)
        def test_machine(fake_machine):
            raise AssertionError

        @pytest.mark.parametrize((), EACH)
        def test_mount(fake_mount):
            raise AssertionError
    """)
    result.assert_outcomes(errors=10)
    messages = [
        "fakesys: '2.4' is no profile*",
        "fakesys: 'nonesuch' is no scenario*",
        "fakesys: *'huge' is*",
        "fakesys: Invalid value for '--seed'*",
        "fakesys: Invalid value for '--clock-rate'*",
    ]
    result.stdout.fnmatch_lines(messages * 2, consecutive=False)
    assert "Traceback" not in result.stdout.str()


def test_the_marker_is_listed_and_the_plugin_costs_nothing_unused(
    pytester: pytest.Pytester,
) -> None:
    result = pytester.runpytest_subprocess("--markers", timeout=60)
    result.stdout.fnmatch_lines(["@pytest.mark.fakesys(scenario=..., profile=...*"])
    pytester.makepyfile("""
        def test_it():
            import sys
            assert not {"trio", "fuse", "fakesys.machine.machine", "click"} & set(sys.modules)
    """)
    # That of anyio, which a library for tests brings, imports trio.
    pytester.runpytest_subprocess("-p", "no:anyio", timeout=60).assert_outcomes(passed=1)
    assert Path(pytester.path).is_dir()
