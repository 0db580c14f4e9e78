"""Recorded operations on a real tracefs, done again on something that behaves like a directory.

The recording (tests/oracle/tracefs/golden.json) is a list of cases; each ran in an instance of
its own. A path that begins with `@/` starts at the top directory.
"""

from __future__ import annotations

import errno
import json
import os
import re
import select
import stat
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

ORACLE = Path(__file__).parent / "oracle" / "tracefs"
CASES: list[dict[str, Any]] = json.loads((ORACLE / "golden.json").read_text())

READ_POLL = select.POLLIN
WRITE = os.O_WRONLY | os.O_TRUNC | os.O_CREAT
FLAGS = {"RDONLY": os.O_RDONLY, "WRONLY": os.O_WRONLY, "NONBLOCK": os.O_NONBLOCK}
_FLAG = r"[.dbDnpNzZhHs][.NnpP][.ZzHhs][.0-9a-f][.0-9a-f]"
_TASK = r"\S+-\d+ +"


class System(Protocol):
    """The system calls that the operations need, on paths from the top directory of tracefs.

    They raise OSError. `read` on a file that blocks raises `WouldBlock`-like errors only if told.
    """

    def open(self, path: str, flags: int) -> int: ...
    def read(self, fd: int, size: int) -> bytes: ...
    def write(self, fd: int, data: bytes) -> int: ...
    def seek(self, fd: int, offset: int, whence: int) -> int: ...
    def close(self, fd: int) -> None: ...
    def poll(self, fd: int, milliseconds: int) -> bool: ...
    def stat(self, path: str) -> tuple[int, int]: ...
    def listdir(self, path: str) -> list[str]: ...
    def mkdir(self, path: str) -> None: ...
    def rmdir(self, path: str) -> None: ...
    def unlink(self, path: str) -> None: ...
    def rename(self, old: str, new: str) -> None: ...
    def chmod(self, path: str, mode: int) -> None: ...
    def read_while(self, fd: int, size: int, wake: Callable[[], object]) -> bytes | None: ...
    def read_interrupted(self, fd: int, size: int) -> bool: ...


class Replay:
    """One case: its instance, its open files, and an answer for each operation."""

    def __init__(self, system: System, name: str) -> None:
        self.system = system
        self.name = name
        self.base = f"instances/{name}"
        self.fds: dict[str, int] = {}
        system.mkdir(self.base)

    def finish(self) -> None:
        """Close and remove what is left."""
        for fd in self.fds.values():
            self.system.close(fd)
        self.fds.clear()
        for path in (self.base, f"{self.base}x"):
            try:
                self.system.rmdir(path)
            except OSError as error:
                if error.errno != errno.ENOENT:
                    raise

    def run(self, operation: list[Any]) -> Any:
        """What the operation gives, in the recording's form."""
        name, *arguments = operation
        try:
            return getattr(self, f"op_{name}")(*arguments)
        except OSError as error:
            return errno.errorcode[error.errno or 0]

    def path(self, path: str) -> str:
        path = path.replace("%NAME%", self.name)
        if path.startswith("@/"):
            return path[2:]
        return f"{self.base}/{path}" if path else self.base

    def text(self, path: str) -> str:
        fd = self.system.open(self.path(path), os.O_RDONLY)
        try:
            data = b""
            while piece := self.system.read(fd, 65536):
                data += piece
        finally:
            self.system.close(fd)
        return data.decode("utf-8", "surrogateescape")

    def put(self, path: str, flags: int, *pieces: bytes) -> list[Any]:
        fd = self.system.open(self.path(path), flags)
        results: list[Any] = []
        try:
            for piece in pieces:
                try:
                    results.append(self.system.write(fd, piece))
                except OSError as error:
                    results.append(errno.errorcode[error.errno or 0])
        finally:
            self.system.close(fd)
        return results

    # Files by name.

    def op_read(self, path: str) -> str:
        return normal(self.text(path))

    def op_write(self, path: str, text: str) -> Any:
        return self.put(path, WRITE, text.encode())[0]

    def op_append(self, path: str, text: str) -> Any:
        return self.put(path, os.O_WRONLY | os.O_APPEND, text.encode())[0]

    def op_wonly(self, path: str, text: str) -> Any:
        return self.put(path, os.O_WRONLY, text.encode())[0]

    def op_truncopen(self, path: str) -> int:
        self.put(path, os.O_WRONLY | os.O_TRUNC)
        return 0

    def op_writes(self, path: str, *texts: str) -> Any:
        return self.put(path, WRITE, *(text.encode() for text in texts))

    def op_writebig(self, path: str, letter: str, count: int) -> Any:
        return self.put(path, WRITE, letter.encode() * count)[0]

    def op_writebytes(self, path: str, digits: str) -> Any:
        return self.put(path, WRITE, bytes.fromhex(digits))[0]

    def op_mark(self, text: str) -> Any:
        return self.put("trace_marker", os.O_WRONLY, text.encode())[0]

    def op_marked(self, text: str) -> str:
        self.op_mark(text)
        return self.text("tracing_on")

    def op_rep(self, path: str, form: str, count: int) -> Any:
        pieces = [(form % number).encode() for number in range(count)]
        return sum(self.put(path, os.O_WRONLY, *pieces))

    def op_repe(self, path: str, form: str, count: int) -> Any:
        pieces = [(form % number).encode() for number in range(count)]
        results = self.put(path, os.O_WRONLY, *pieces)
        return next((result for result in results if isinstance(result, str)), sum)

    def op_grep(self, path: str, pattern: str) -> str:
        return "\n".join(normal(line) for line in self._matching(path, pattern))

    def op_gcount(self, path: str, pattern: str) -> int:
        return len(self._matching(path, pattern))

    def op_lines(self, path: str) -> str:
        return f"lines={len(self.text(path).splitlines())}"

    def op_readn(self, path: str, size: int, times: int) -> str:
        fd = self.system.open(self.path(path), os.O_RDONLY)
        try:
            return "|".join(self.system.read(fd, size).decode() for _ in range(times))
        finally:
            self.system.close(fd)

    def op_filt(self, text: str, path: str) -> str:
        result = self.op_write(f"{path}/filter", text)
        return f"{result} => {normal(self.text(f'{path}/filter'))}"

    def op_trig(self, condition: str, text: str) -> str:
        path = "events/ftrace/print/trigger"
        result = self.op_append(path, f"traceoff if {condition}")
        if isinstance(result, str):
            return f"set: {result}"
        self.op_mark(text)
        matched = self.text("tracing_on") == "0\n"
        self.op_append(path, "!traceoff")
        self.op_write("tracing_on", "1")
        return "match" if matched else "no match"

    def op_rmtrig(self, path: str) -> str:
        for line in self.text(path).splitlines():
            if not line.startswith("#"):
                self.op_append(path, f"!{line.replace(':unlimited', '')}".split(":count")[0])
        return self.text(path)

    def op_rawpage(self, path: str, size: int) -> list[str]:
        fd = self.system.open(self.path(path), os.O_RDONLY | os.O_NONBLOCK)
        try:
            return list(described(self.system.read(fd, size)))
        finally:
            self.system.close(fd)

    # Names and modes.

    def op_mode(self, path: str) -> str:
        return stat.filemode(self.system.stat(self.path(path))[0])

    def op_modes(self, path: str, pattern: str) -> list[str]:
        return [
            f"{self.op_mode(f'{path}/{name}'.lstrip('/'))} {name}"
            for name in self.op_ls(path, pattern)
        ]

    def op_ls(self, path: str, pattern: str) -> list[str]:
        names = self.system.listdir(self.path(path))
        return sorted(name for name in names if re.search(pattern, name))

    def op_size(self, path: str) -> int:
        return self.system.stat(self.path(path))[1]

    def op_exists(self, path: str) -> bool:
        # The recording looked below the instance, whatever the path began with.
        try:
            self.system.stat(f"{self.base}/{path}")
        except OSError:
            return False
        return True

    def op_mkdir(self, path: str) -> str:
        self.system.mkdir(self.path(path))
        return "ok"

    def op_rmdir(self, path: str) -> str:
        self.system.rmdir(self.path(path))
        return "ok"

    def op_unlink(self, path: str) -> str:
        self.system.unlink(self.path(path))
        return "ok"

    def op_rename(self, old: str, new: str) -> str:
        self.system.rename(self.path(old), self.path(new))
        return "ok"

    def op_chmod(self, path: str, mode: int) -> str:
        self.system.chmod(self.path(path), mode)
        return self.op_mode(path)

    # Open files by letter.

    def op_open(self, name: str, path: str, flags: str) -> str:
        bits = 0
        for word in flags.split("|"):
            bits |= FLAGS[word]
        self.fds[name] = self.system.open(self.path(path), bits)
        return "ok"

    def op_fclose(self, name: str) -> str:
        self.system.close(self.fds.pop(name))
        return "ok"

    def op_fread(self, name: str, size: int) -> str:
        if name not in self.fds:
            return "NOFD"
        return normal(self.system.read(self.fds[name], size).decode())

    def op_freadlen(self, name: str, size: int) -> Any:
        if name not in self.fds:
            return "NOFD"
        return len(self.system.read(self.fds[name], size))

    def op_flseek(self, name: str, offset: int, whence: int) -> int:
        return self.system.seek(self.fds[name], offset, whence)

    def op_fpoll(self, name: str, milliseconds: int) -> int:
        return int(self.system.poll(self.fds[name], milliseconds))

    def op_blockread(self, name: str, size: int, path: str, text: str, _delay: float) -> str:
        def wake() -> None:
            self.put(path, os.O_WRONLY, text.encode())

        data = self.system.read_while(self.fds[name], size, wake)
        return "did not block" if data is None else f"woken\n{normal(data.decode())}"

    def op_eintr(self, name: str, size: int) -> str:
        interrupted = self.system.read_interrupted(self.fds[name], size)
        return "interrupted" if interrupted else "not interrupted"

    def _matching(self, path: str, pattern: str) -> list[str]:
        return [line for line in self.text(path).split("\n") if re.search(pattern, line)]


def normal(text: str) -> str:
    """Tasks, CPUs, flags and times replaced by words, as the recording has them."""
    text = re.sub(r"#P:\d+", "#P:N", text)
    text = re.sub(r"0xffffffff8[0-9a-f]{7}", "0xADDR", text)
    text = re.sub(r"^\[ *\d+\.\d+\]", "[TS]", text, flags=re.M)
    text = re.sub(r"(event ts: |now ts: ) *\d+\.\d+", r"\1TS", text)
    place = rf"\[\d+\] {_FLAG} "
    prefix = rf"^ *{_TASK}(\([ \d-]+\) )?{place} *"
    text = re.sub(
        prefix + r"\d+\.\d+: ", _tgid("TASK-PID {}[CPU] FLAGS TS.ffffff: "), text, flags=re.M
    )
    text = re.sub(prefix + r"\d+: ", _tgid("TASK-PID {}[CPU] FLAGS TS: "), text, flags=re.M)
    text = re.sub(rf" *{_TASK}\[\d+\] ({_FLAG})? *\d+\.\d+: ", "{joined}", text)
    text = re.sub(rf"^ *{_TASK}\d({_FLAG}) +\d+us : ", r"TASK-PID C\1 NNNus : ", text, flags=re.M)
    return re.sub(r"^\d+ \d \d+ # ", "PID CPU TS # ", text, flags=re.M)


def _tgid(form: str) -> Callable[[re.Match[str]], str]:
    return lambda found: form.format(found[1] or "")


def described(page: bytes) -> Iterator[str]:
    """A raw page in the recording's words."""
    (commit,) = struct.unpack_from("<Q", page, 8)
    yield f"len={len(page)} commit={commit & 0xFFFFF} flags={commit >> 20 & 0xFFF:x}"
    position = 16
    while position < 16 + (commit & 0xFFFFF):
        (head,) = struct.unpack_from("<I", page, position)
        kind = head & 31
        if not 0 < kind <= 28:
            raise AssertionError(f"record of type_len {kind}")
        payload = page[position + 4 : position + 4 + 4 * kind]
        yield f"rec tl={kind} len={len(payload)} {payload[16:].split(bytes(1))[0]!r}"
        position += 4 + 4 * kind


def readable(fd: int, milliseconds: int) -> bool:
    """poll(2) for POLLIN on a real descriptor."""
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    return any(events & select.POLLIN for _, events in poller.poll(milliseconds))
