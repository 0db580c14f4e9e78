"""Steps of a recording that the host does to the memory of a guest, or asks of KVM's files."""

from __future__ import annotations

import re
from errno import errorcode
from typing import Any

from fakesys.core.errors import KernelError
from tests.replay_kvm.machines import DEBUG, KVM, VM_NAME, Files
from tests.replay_kvm.normal import Normal

MODULE = "sys/module/kvm/parameters"


class HostOps:
    """The steps that are neither of a VM nor of a vCPU."""

    def __init__(self, files: Files, normal: Normal) -> None:
        self._files = files
        self._normal = normal
        self._directory = ""

    def _ctl(self, command: str) -> dict[str, str]:
        """One command; the words of its result."""
        self._files.write(f"{KVM}/ctl", command + "\n")
        words = self._files.read(f"{KVM}/last").split()
        return dict(word.split("=", 1) for word in words[1:])

    def _mem_command(self, args: dict[str, Any]) -> str:
        words = f"mem {args['name']} size={args['size']} thp={int(args.get('thp', False))}"
        if "hugetlb" in args:
            words += f" hugetlb={1 << args['hugetlb']}"
        return words + (" populate=0" if args.get("populate") is False else "")

    def _op_host_write(self, args: dict[str, Any], step: dict[str, Any]) -> None:
        self._ctl(f"{VM_NAME} host_write {args['mem']} off={args['off']} hex={args['hexdata']}")

    def _op_madvise(self, args: dict[str, Any], step: dict[str, Any]) -> dict[str, Any]:
        """The invalidations are input: the host's memory management is not modelled."""
        advice = args.get("advice", "dontneed")
        result: dict[str, Any] = step.get("result", {"ret": 0})
        if advice == "collapse" and result["ret"] == 0:
            self._ctl(f"{VM_NAME} notifier collapse {args['mem']} {_range(args)}")
        elif advice == "collapse":
            self._invalidate(step, f"notifier invalidate {args['mem']}", "")
        elif advice == "dontneed":
            self._invalidate(step, f"notifier unmap {args['mem']}", "")
        return result

    def _op_munmap(self, args: dict[str, Any], step: dict[str, Any]) -> dict[str, Any]:
        self._invalidate(step, f"notifier munmap {args['mem']}", "")
        return {"ret": 0}

    def _op_mprotect(self, args: dict[str, Any], step: dict[str, Any]) -> dict[str, Any]:
        writable = "w" in str(args.get("prot", ""))
        self._invalidate(
            step, f"notifier protect {args['mem']}", f" prot={'rw' if writable else 'r'}"
        )
        return {"ret": 0}

    def _op_fork(self, args: dict[str, Any], step: dict[str, Any]) -> None:
        self._ctl(f"{VM_NAME} fork")

    def _op_fork_end(self, args: dict[str, Any], step: dict[str, Any]) -> None:
        self._ctl(f"{VM_NAME} fork_end")

    def _op_param(self, args: dict[str, Any], step: dict[str, Any]) -> dict[str, Any]:
        path = f"{MODULE}/{args['name']}"
        self._files.write(path, f"{args['value']}\n")
        return {"value": self._files.read(path).rstrip("\n")}

    def _op_clear_stat(self, args: dict[str, Any], step: dict[str, Any]) -> dict[str, Any]:
        path = f"{DEBUG}/kvm/{self._directory}/{args['file']}"
        text = args.get("text", "0")
        before = self._files.read(path)
        written: Any = len(text)
        try:
            self._files.write(path, text)
        except KernelError as error:
            written = errorcode[error.errno or 0]
        return {"before": before, "write": written, "after": self._files.read(path)}

    def _invalidate(self, step: dict[str, Any], last: str, options: str) -> None:
        ranges = [
            (found[1], int(found[2], 16), int(found[3], 16))
            for event in step.get("events", [])
            if (found := re.search(r"range: (\w+)\+0x(\w+) -- \w+\+0x(\w+)$", event))
        ]
        for place, (name, start, end) in enumerate(ranges):
            is_last = place == len(ranges) - 1
            verb = last if is_last else f"notifier invalidate {name}"
            words = options if is_last else ""
            self._normal.invalidated.append((name, start, end))
            self._ctl(f"{VM_NAME} {verb} off={start} size={end - start}{words}")


def _range(args: dict[str, Any]) -> str:
    return f"off={args['off']} size={args['size']}"
