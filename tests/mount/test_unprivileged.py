"""Ordinary users: by fusermount3, and as root of a user namespace of their own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import fakesys

NOBODY = 65534
SETPRIV = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
needs_helper = pytest.mark.skipif(
    shutil.which("fusermount3") is None or shutil.which("setpriv") is None,
    reason="fusermount3 or setpriv is missing",
)
needs_unshare = pytest.mark.skipif(shutil.which("unshare") is None, reason="unshare is missing")


def shell(
    prefix: tuple[str, ...], script: str, *, python: str = sys.executable, **environment: str
) -> tuple[int, str, str]:
    """A script with `$F` as the command; status, output, messages."""
    paths = [str(Path(fakesys.__file__).parents[1]), *sysconfig.get_paths().values()]
    done = subprocess.run(
        [*prefix, "sh", "-ec", script],
        env={
            **os.environ,
            "F": f"{python} -m fakesys",
            "PYTHONPATH": os.pathsep.join(paths),
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="module")
def nobodys_python() -> str:
    """An interpreter that every user can start: this one, or the system's."""
    for python in (sys.executable, "/usr/bin/python3"):
        if shell(SETPRIV, "$F --version", python=python)[0] == 0:
            return python
    pytest.skip("other users cannot start this interpreter")


WALK = """
trap '$F umount "$POINT" || umount -l "$POINT"' EXIT
$F mount --scenario selftest --transport "$TRANSPORT" "$POINT" >/dev/null
D="$POINT/sys/devices/virtual/selftest/selftest0"
cat "$D/rw"
echo 1400 > "$D/rw"
cat "$D/rw" "$POINT/sys/kernel/debug/selftest/rw"
echo 1 > "$POINT/sys/kernel/debug/fakesys/selftest/remove"
test ! -e "$D"
$F status --json | grep -c '"stale": false'
"""
WALKED = "1500\n1400\n65536\n1\n"


@needs_root
@needs_helper
def test_an_ordinary_user_mounts_by_fusermount3_and_owns_every_file(
    public_folder: Path, nobodys_python: str, transport: str
) -> None:
    home = public_folder / f"nobody-{transport}"
    home.mkdir()
    os.chown(home, NOBODY, NOBODY)
    (point := home / "mnt").mkdir()
    os.chown(point, NOBODY, NOBODY)
    environment = {"POINT": str(point), "XDG_RUNTIME_DIR": str(home), "TRANSPORT": transport}
    status, output, messages = shell(SETPRIV, WALK, python=nobodys_python, **environment)
    assert (status, output, messages) == (0, WALKED, "")
    assert not os.path.ismount(point)


@needs_root
@needs_helper
def test_an_ordinary_user_may_not_let_others_in_unless_allowed(
    public_folder: Path, nobodys_python: str, transport: str
) -> None:
    if "\nuser_allow_other" in Path("/etc/fuse.conf").read_text():
        pytest.skip("/etc/fuse.conf allows it here")
    home = public_folder / f"lonely-{transport}"
    (home / "mnt").mkdir(parents=True)
    for path in (home, home / "mnt"):
        os.chown(path, NOBODY, NOBODY)
    script = f'$F mount --allow-other --transport {transport} --scenario selftest "$POINT"'
    environment = {"POINT": str(home / "mnt"), "XDG_RUNTIME_DIR": str(home)}
    status, output, messages = shell(SETPRIV, script, python=nobodys_python, **environment)
    assert (status, output) == (1, "")
    assert "user_allow_other" in messages
    assert len(messages.splitlines()) == 1


@needs_unshare
def test_root_of_a_user_namespace_mounts_directly(tmp_path: Path, transport: str) -> None:
    prefix = ("unshare", "--user", "--map-root-user", "--mount")
    if shell(prefix, "true")[0] != 0:
        pytest.skip("user namespaces are not allowed here")
    (tmp_path / "mnt").mkdir()
    environment = {
        "POINT": str(tmp_path / "mnt"),
        "XDG_RUNTIME_DIR": str(tmp_path),
        "TRANSPORT": transport,
    }
    # Without fusermount3 in the path only mount(2) is left.
    status, output, messages = shell(prefix, WALK, **environment)
    assert (status, output, messages) == (0, WALKED, "")


@needs_root
def test_root_lets_other_users_in_as_far_as_the_modes_do(public_folder: Path) -> None:
    point = public_folder / "for-all"
    point.mkdir()
    script = """
    trap '$F umount "$POINT"' EXIT
    $F mount --scenario selftest "$POINT" >/dev/null
    D="$POINT/sys/devices/virtual/selftest/selftest0"
    setpriv --reuid=65534 --regid=65534 --clear-groups sh -c "
        cat '$D/rw'; echo 1 > '$D/rw'; cat '$D/wo'; ls '$POINT/sys/kernel/debug'"  2>&1 || true
    """
    _, output, _ = shell((), script, POINT=str(point), XDG_RUNTIME_DIR=str(public_folder))
    lines = output.splitlines()
    assert lines[0] == "1500"
    assert [line.rsplit(": ", 1)[-1] for line in lines[1:]] == ["Permission denied"] * 3
