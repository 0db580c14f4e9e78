"""What tracefs does, whoever serves it: an instance, its switches, its buffer."""

from __future__ import annotations

import os
import re
import select
import stat
from errno import EBADF, EBUSY, EEXIST, EINVAL, EPERM, ESPIPE
from pathlib import Path

import pytest

from tests.native.conftest import Specimens
from tests.native.test_sysfs_contract import opened, refused

LINE = re.compile(r"^ {4}[ \S]{12}-\d+ +\[\d{3}\] \S{5} +\d+\.\d{6}: \w+: .*$")


def events(specimens: Specimens) -> list[Path]:
    """Some events of the systems that are there; those of system ftrace cannot be enabled."""
    formats = sorted((specimens.tracing / "events").glob("*/*/format"))
    folders = [path.parent for path in formats if path.parts[-3] != "ftrace"]
    if not folders:
        pytest.skip(f"{specimens.tracing} is no tracefs")
    return folders[:: max(1, len(folders) // 20)]


def test_every_format_is_laid_out_in_order(specimens: Specimens) -> None:
    field = re.compile(r"^\tfield:[^;]+;\toffset:(\d+);\tsize:(\d+);\tsigned:[01];$")
    for event in events(specimens):
        lines = (event / "format").read_text().splitlines()
        assert lines[0] == f"name: {event.name}"
        assert lines[1] == f"ID: {(event / 'id').read_text().strip()}"
        assert lines[2] == "format:"
        assert lines[-1].startswith("print fmt: ")
        places = [(int(m[1]), int(m[2])) for line in lines if (m := field.match(line))]
        assert places[:4] == [(0, 2), (2, 1), (3, 1), (4, 4)]
        ends = [offset + size for offset, size in places]
        assert all(end <= place[0] for end, place in zip(ends, places[1:], strict=False))


def test_an_instance_is_made_and_removed(specimens: Specimens, instance: Path) -> None:
    with refused(EEXIST):
        instance.mkdir()
    names = set(os.listdir(instance))
    assert {"trace", "trace_pipe", "tracing_on", "events", "per_cpu", "options"} <= names
    assert "instances" not in names
    with refused(EPERM):
        (instance / "events").rmdir()
    with opened(instance / "trace_pipe"), refused(EBUSY):
        instance.rmdir()
    instance.rmdir()
    assert not instance.exists()


def test_a_listing_is_an_access(instance: Path) -> None:
    os.utime(instance, ns=(5, 6))
    with opened(instance, os.O_RDONLY | os.O_NOATIME) as descriptor:
        os.listdir(descriptor)
    assert instance.stat().st_atime_ns == 5
    os.listdir(instance)
    status = instance.stat()
    assert status.st_atime_ns > 6
    assert status.st_mtime_ns == 6


def test_sizes_and_modes(instance: Path) -> None:
    modes = {"trace": 0o640, "trace_pipe": 0o440, "trace_marker": 0o220, "tracing_on": 0o640}
    for name, mode in modes.items():
        status = (instance / name).stat()
        assert (stat.S_IMODE(status.st_mode), status.st_size) == (mode, 0), name


@pytest.mark.parametrize("text", ["x", "-1", " 1", "1 ", "0x1", "1\n1\n", "\n"])
def test_a_switch_refuses_what_is_no_number(instance: Path, text: str) -> None:
    with opened(instance / "tracing_on", os.O_WRONLY) as descriptor, refused(EINVAL):
        os.write(descriptor, text.encode())
    assert (instance / "tracing_on").read_text() == "1\n"


def test_a_marker_is_recorded_while_tracing_is_on(instance: Path) -> None:
    (instance / "trace_marker").write_text("hello")
    lines = [x for x in (instance / "trace").read_text().splitlines() if not x.startswith("#")]
    assert len(lines) == 1
    assert LINE.match(lines[0])
    assert lines[0].endswith(": tracing_mark_write: hello")
    (instance / "tracing_on").write_text("0\n")
    with opened(instance / "trace_marker", os.O_WRONLY) as descriptor, refused(EBADF):
        os.write(descriptor, b"lost")


def test_reading_trace_takes_nothing_trace_pipe_takes_all(instance: Path) -> None:
    (instance / "trace_marker").write_text("once")
    assert (instance / "trace").read_text() == (instance / "trace").read_text()
    with opened(instance / "trace_pipe", os.O_RDONLY | os.O_NONBLOCK) as descriptor:
        assert os.read(descriptor, 4096).endswith(b": tracing_mark_write: once\n")
        with pytest.raises(BlockingIOError):
            os.read(descriptor, 4096)
    assert "entries-in-buffer/entries-written: 0/0" in (instance / "trace").read_text()


def test_a_second_reader_of_the_pipe_is_refused(instance: Path) -> None:
    with opened(instance / "trace_pipe"), refused(EBUSY):
        os.open(instance / "trace_pipe", os.O_RDONLY)


def test_opening_trace_with_truncation_clears_it(instance: Path) -> None:
    (instance / "trace_marker").write_text("gone")
    with opened(instance / "trace", os.O_WRONLY | os.O_TRUNC):
        pass
    assert "gone" not in (instance / "trace").read_text()


def test_set_event_takes_one_word_a_call(specimens: Specimens, instance: Path) -> None:
    first, second = events(specimens)[:2]
    name = f"{first.parent.name}:{first.name}"
    text = f"{name} {second.parent.name}:{second.name}\n".encode()
    with opened(instance / "set_event", os.O_WRONLY) as descriptor:
        assert os.write(descriptor, text) == len(name) + 1
    assert (instance / "set_event").read_text() == f"{name}\n"
    with opened(instance / "set_event", os.O_WRONLY | os.O_TRUNC):
        pass
    assert (instance / "set_event").read_text() == ""


@pytest.mark.parametrize("name", ["trace", "set_event", "trace_options", "error_log"])
@pytest.mark.parametrize("whence", [os.SEEK_END, os.SEEK_DATA, os.SEEK_HOLE])
def test_a_list_has_no_end_to_seek_from(instance: Path, name: str, whence: int) -> None:
    with opened(instance / name, os.O_RDONLY) as descriptor, refused(EINVAL):
        os.lseek(descriptor, 0, whence)


def test_free_buffer_has_no_place(instance: Path) -> None:
    with opened(instance / "free_buffer", os.O_WRONLY) as descriptor, refused(ESPIPE):
        os.lseek(descriptor, 0, os.SEEK_SET)


def test_a_nul_ends_a_word(specimens: Specimens, instance: Path) -> None:
    first, second = events(specimens)[:2]
    with opened(instance / "set_event", os.O_WRONLY) as descriptor:
        for event in (first, second):
            text = f"{event.parent.name}:{event.name}\0\0".encode()
            assert os.write(descriptor, text) == len(text) - 1
            assert os.write(descriptor, b"\0\0") == 1
    assert len((instance / "set_event").read_text().splitlines()) == 2
    with opened(instance / "set_event_pid", os.O_WRONLY) as descriptor:
        assert os.write(descriptor, b"1\0002 \0003") == 5
    assert (instance / "set_event_pid").read_text() == "1\n2\n"


def test_the_mask_of_cpus_is_read_as_a_whole(instance: Path) -> None:
    size = len((instance / "tracing_cpumask").read_bytes())
    with opened(instance / "tracing_cpumask") as descriptor:
        with refused(EINVAL):
            os.read(descriptor, size)
        assert len(os.read(descriptor, size + 1)) == size


def test_buffers_keep_their_size_while_trace_is_read(instance: Path) -> None:
    with opened(instance / "trace"):
        for name in ("buffer_size_kb", "per_cpu/cpu0/buffer_size_kb"):
            with opened(instance / name, os.O_WRONLY) as descriptor, refused(EBUSY):
                os.write(descriptor, b"64")
    (instance / "buffer_size_kb").write_text("64")


def test_the_head_of_one_cpu_counts_all(instance: Path) -> None:
    (instance / "trace_marker").write_text("x")
    for cpu in (instance / "per_cpu").iterdir():
        assert "entries-in-buffer/entries-written: 1/1 " in (cpu / "trace").read_text()


def test_the_pipe_of_all_cpus_is_ready_for_any_event(instance: Path) -> None:
    with opened(instance / "trace_pipe", os.O_RDONLY | os.O_NONBLOCK) as descriptor:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        assert poll.poll(0) == []
        (instance / "trace_marker").write_text("x")
        assert poll.poll(0) == [(descriptor, select.POLLIN)]


def test_the_log_of_errors_is_cleared_by_truncation_alone(
    specimens: Specimens, instance: Path
) -> None:
    system = events(specimens)[0].parent
    (instance / "events" / system.name / "filter").write_text("nosuchfield == 1")
    with opened(instance / "error_log", os.O_WRONLY) as descriptor:
        assert os.write(descriptor, b"x\n") == 2
    assert (instance / "error_log").read_text()
    with opened(instance / "error_log", os.O_WRONLY | os.O_TRUNC):
        pass
    assert (instance / "error_log").read_text() == ""


def test_nop_refuses_an_option(instance: Path) -> None:
    for text in ("test_nop_refuse", "notest_nop_refuse"):
        with opened(instance / "trace_options", os.O_WRONLY) as descriptor, refused(EINVAL):
            os.write(descriptor, text.encode())
    with opened(instance / "options/test_nop_refuse", os.O_WRONLY) as descriptor:
        assert os.write(descriptor, b"0") == 1
        with refused(EINVAL):
            os.write(descriptor, b"1")


def test_each_event_that_a_system_filter_does_not_fit_is_logged(
    specimens: Specimens, instance: Path
) -> None:
    system = events(specimens)[0].parent
    (instance / "events" / system.name / "filter").write_text("nosuchfield == 1")
    log = (instance / "error_log").read_text()
    count = sum(1 for event in system.iterdir() if event.is_dir())
    assert log.count("Couldn't find or set field in one of a subsystem's events") == min(count, 8)


def test_each_read_of_a_number_is_of_this_moment(instance: Path) -> None:
    with opened(instance / "buffer_percent") as descriptor:
        assert os.pread(descriptor, 1, 0) == b"5"
        (instance / "buffer_percent").write_text("100")
        assert os.pread(descriptor, 9, 1) == b"00\n"
