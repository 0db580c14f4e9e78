"""The tasks of the host that use a mount, as /proc of the host shows them.

`Tracing` asks about them through its `Processes` protocol.
"""

from __future__ import annotations

from fakesys.subsystems.tracing.base.saved_cmdlines import UNKNOWN

# Fields of /proc/PID/stat behind the name: state, ppid, ... cminflt, ..., cmajflt (proc(5)).
_PPID, _CMINFLT, _CMAJFLT = 1, 8, 10


class HostTasks:
    """The clients of a mount, looked up in /proc of the host."""

    def comm(self, pid: int) -> str:
        """Return the name of a task: `fakesys` for the machine itself, `<...>` for one gone."""
        if pid == 0:
            return "fakesys"
        return _read(f"/proc/{pid}/comm").rstrip("\n") or UNKNOWN

    def parent(self, pid: int) -> int:
        """Return the pid of the parent; 0 for a task that is gone."""
        fields = _stat(pid)
        return int(fields[_PPID]) if len(fields) > _PPID else 0

    def reaped(self, pid: int) -> int:
        """Return the number of page faults of all children that were waited for."""
        fields = _stat(pid)
        return int(fields[_CMINFLT]) + int(fields[_CMAJFLT]) if len(fields) > _CMAJFLT else 0

    def newest(self) -> int:
        """Return the pid that the host gave out last."""
        return int(_read("/proc/loadavg").split()[-1] or 0)

    def alive(self, pid: int) -> bool:
        """Return whether the task exists; a zombie does not."""
        state = _stat(pid)[:1]
        return bool(state) and state != ["Z"]


def _stat(pid: int) -> list[str]:
    """Return the fields behind the name, which may hold blanks and parentheses itself."""
    return _read(f"/proc/{pid}/stat").rpartition(")")[2].split()


def _read(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return file.read().decode("latin-1")
    except OSError:
        return ""
