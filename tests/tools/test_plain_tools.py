"""Plain tools and the languages that administrators use, straight on the mount.

Each way to write is tried twice: with a value that is taken and with one that is refused, whose
reason must come back from the very write.
"""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.mounts import Mount
from tests.tools.helpers import SECONDS, needs, run

# $1: the file, $2: the value, $3: a folder for what must be prepared. Each must end with a
# status other than 0 where the write is refused; of a pipe, the last command writes.
SHELL_WRITES = {
    "echo": 'echo "$2" > "$1"',
    "echo without newline": 'printf %s "$2" > "$1"',
    "printf": 'printf \'%s\\n\' "$2" > "$1"',
    "append": 'echo "$2" >> "$1"',
    "read and write": 'echo "$2" 1<> "$1"',
    "tee": 'echo "$2" | tee "$1" > "$3/out"',
    "tee append": 'echo "$2" | tee -a "$1" > "$3/out"',
    "dd": 'echo "$2" | dd of="$1" status=none',
    "dd notrunc": 'echo "$2" | dd of="$1" conv=notrunc status=none',
    "dd append": 'echo "$2" | dd of="$1" oflag=append conv=notrunc status=none',
    "cp": 'echo "$2" > "$3/in"; cp "$3/in" "$1"',
    "cat": 'echo "$2" > "$3/in"; cat "$3/in" > "$1"',
    "here document": 'cat > "$1" <<END\n$2\nEND',
}
LANGUAGE_WRITES = {
    "python text": (
        sys.executable,
        "-c",
        "import sys\nwith open(sys.argv[1], 'w') as file: file.write(sys.argv[2])",
    ),
    "python append": (
        sys.executable,
        "-c",
        "import sys; print(sys.argv[2], file=open(sys.argv[1], 'a'), flush=True)",
    ),
    "python bytes": (
        sys.executable,
        "-c",
        "import pathlib, sys; pathlib.Path(sys.argv[1]).write_bytes(sys.argv[2].encode() + b'\\n')",
    ),
    "python os": (
        sys.executable,
        "-c",
        "import os, sys; os.write(os.open(sys.argv[1], os.O_WRONLY), sys.argv[2].encode())",
    ),
    "perl": (
        "perl",
        "-e",
        'open(F, ">", $ARGV[0]) or die $!; print F "$ARGV[1]\\n"; close(F) or die $!',
    ),
    "perl syswrite": (
        "perl",
        "-e",
        'open(F, "+<", $ARGV[0]) or die $!; syswrite(F, $ARGV[1]) or die $!',
    ),
}
READS = {
    "cat": ("cat",),
    "head": ("head", "-n1"),
    "tail": ("tail", "-n1"),
    "dd": ("dd", "status=none", "if={}"),
    "dd of one byte each": ("dd", "status=none", "bs=1", "if={}"),
    "grep": ("grep", ""),
    "sed": ("sed", "-n", "p"),
    "awk": ("awk", "{print}"),
    "sh read": ("sh", "-c", 'read -r line < "$0"; echo "$line"'),
    "bash": ("bash", "-c", 'echo "$(<"$0")"'),
    "bash mapfile": ("bash", "-c", 'mapfile -t lines < "$0"; echo "${lines[0]}"'),
    "python": (sys.executable, "-c", "import sys; print(open(sys.argv[1]).read(), end='')"),
    "perl": ("perl", "-ne", "print"),
}


def written(command: tuple[str, ...], mount: Mount, value: str, folder: Path) -> str:
    """Run a command that writes to `config_time`; what it complained of, "" where it did not."""
    path = mount.root / "sys/bus/ap/config_time"
    done = subprocess.run(
        [*command, str(path), value, str(folder)],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
        env={**os.environ, "LC_ALL": "C"},
    )
    assert (done.returncode == 0) == (done.stderr == ""), done.stderr
    return done.stderr


def check_writes(command: tuple[str, ...], mount: Mount, folder: Path) -> None:
    file = mount.root / "sys/bus/ap/config_time"
    assert written(command, mount, "77", folder) == ""
    assert file.read_text() == "77\n"
    # The one word of dash for every error of its own `echo` and `printf`.
    assert re.search("Invalid argument|I/O error", written(command, mount, "4", folder))
    assert file.read_text() == "77\n"


@pytest.mark.parametrize("way", SHELL_WRITES)
@pytest.mark.parametrize("shell", [pytest.param("bash"), pytest.param("dash", marks=needs("dash"))])
def test_writes_of_shells(plain: Mount, tmp_path: Path, shell: str, way: str) -> None:
    check_writes((shell, "-c", f"set -e; {SHELL_WRITES[way]}", shell), plain, tmp_path)


@pytest.mark.parametrize(
    "way",
    [
        pytest.param(way, marks=[needs("perl")] if way.startswith("perl") else [])
        for way in LANGUAGE_WRITES
    ],
)
def test_writes_of_languages(plain: Mount, tmp_path: Path, way: str) -> None:
    check_writes(LANGUAGE_WRITES[way], plain, tmp_path)


@pytest.mark.parametrize("way", READS)
def test_reads(plain: Mount, way: str) -> None:
    path = plain.root / "sys/bus/ap/devices/card05/serialnr"
    command = READS[way]
    if "if={}" in command:
        command = tuple(word.format(path) for word in command)
    else:
        command = (*command, str(path))
    descriptor = os.open(path, os.O_RDONLY)
    text = os.read(descriptor, 4096).decode()
    os.close(descriptor)
    assert text.startswith("FAKE0005")
    assert run(*command) == text


def readable(folder: Path) -> dict[str, str]:
    """The text of every file below that can be read, by its path below `folder`.

    Without the count of requests, as reads of other files are requests.
    """
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.name == "request_count":
            continue
        if path.is_file() and not path.is_symlink() and path.stat().st_mode & 0o444:
            try:
                found[str(path.relative_to(folder))] = path.read_text()
            except OSError:
                continue
    return found


def test_grep_through_a_folder(plain: Mount) -> None:
    folder = plain.root / "sys/devices/ap"
    done = subprocess.run(
        ["grep", "-r", "", "."], cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )
    shown: dict[str, str] = {}
    for line in done.stdout.splitlines():
        path, _, text = line.removeprefix("./").partition(":")
        shown[path] = shown.get(path, "") + text + "\n"
    shown = {path: text for path, text in shown.items() if not path.endswith("/request_count")}
    assert shown == {path: text for path, text in readable(folder).items() if text}
    assert "Input/output error" not in done.stderr


def test_find_by_type_needs_no_stat(plain: Mount) -> None:
    folder = plain.root / "sys"
    walked: dict[str, set[str]] = {"f": set(), "d": set(), "l": set()}
    for place, names, files in os.walk(folder):
        for name in [*names, *files]:
            path = os.path.join(place, name)
            mode = os.lstat(path).st_mode
            kind = "l" if stat.S_ISLNK(mode) else "d" if stat.S_ISDIR(mode) else "f"
            walked[kind].add(path)
    for kind, paths in walked.items():
        found = set(run("find", str(folder), "-mindepth", "1", "-type", kind).splitlines())
        assert found == paths
        assert len(found) > 20
    for place, _, _ in os.walk(folder / "bus"):
        for entry in os.scandir(place):
            assert entry.is_symlink() == stat.S_ISLNK(os.lstat(entry.path).st_mode)


def test_find_by_mode_and_name(plain: Mount) -> None:
    found = run("find", str(plain.root / "sys/bus/ap"), "-perm", "0200", "-name", "*bind")
    assert {Path(path).parent.name for path in found.split()} == {"cex4card", "cex4queue"}


def test_a_copy_with_all_attributes(plain: Mount, tmp_path: Path) -> None:
    source = plain.root / "sys/devices/ap/card05"
    done = subprocess.run(
        ["cp", "-a", str(source), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "LC_ALL": "C"},
    )
    assert done.stderr == ""
    copied = {path: text for path, text in readable(tmp_path / "card05").items() if text}
    assert copied == {path: text for path, text in readable(source).items() if text}
    assert (tmp_path / "card05/driver").readlink() == (source / "driver").readlink()
    assert (tmp_path / "card05/online").stat().st_mode == (source / "online").stat().st_mode


def test_an_archive(plain: Mount, tmp_path: Path) -> None:
    """tar believes in 4096 bytes and fills up what is missing, as on any sysfs."""
    archive = tmp_path / "ap.tar"
    source = plain.root / "sys/bus/ap"
    names = ["apmask", "ap_domain", "devices"]
    done = subprocess.run(
        ["tar", "-cf", str(archive), "-C", str(source), *names],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "LC_ALL": "C"},
    )
    assert done.returncode == 1
    assert "apmask: File shrank by 4029 bytes; padding with zeros" in done.stderr
    with tarfile.open(archive) as stored:
        member = stored.extractfile("apmask")
        assert member is not None
        assert member.read().rstrip(b"\0").decode() == (source / "apmask").read_text()
        assert stored.getmember("devices/card05").linkname == "../../../devices/ap/card05"


def test_stat_and_links(plain: Mount) -> None:
    bus = plain.root / "sys/bus/ap"
    form = "%F %a %s"
    assert run("stat", "-c", form, str(bus / "apmask")) == "regular file 644 4096\n"
    assert run("stat", "-c", form, str(bus / "scans")) in (
        "regular file 644 4096\n",
        "regular file 200 4096\n",
    )
    assert run("stat", "-c", form, str(bus)) == "directory 755 0\n"
    link = bus / "devices/05.0004"
    assert run("stat", "-c", "%F", str(link)) == "symbolic link\n"
    wanted = plain.root / "sys/devices/ap/card05/05.0004"
    assert run("readlink", "-f", str(link)) == f"{wanted}\n"
    assert run("realpath", str(link / "driver")) == f"{bus}/drivers/cex4queue\n"
    counter = plain.root / "sys/kernel/debug/kvm/exits"
    assert run("stat", "-c", form, str(counter)).split()[-1] == "0"
    assert run("wc", "-l", str(counter)).split()[0] == "1"
