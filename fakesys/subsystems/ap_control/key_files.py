"""The control file `ap/master_keys`: loads, sets and clears the master keys of domains."""

from __future__ import annotations

from collections.abc import Iterator
from errno import EINVAL, ENODEV, ERANGE

from fakesys.core.errors import KernelError
from fakesys.core.text import ids, kstrtoull
from fakesys.subsystems.ap_bus.queues.master_keys import SIZES, KeyKind, MasterKey, MasterKeys
from fakesys.subsystems.ap_control.model import ApSystem
from fakesys.tree.attr import Attr, Row

_PATTERN_DIGITS = "0123456789abcdefABCDEF"


def _pattern(text: str) -> int:
    """Return a pattern of hexadecimal digits after `0x`. Raises EINVAL."""
    digits = text.removeprefix("0x")
    if digits == text or not digits or digits.strip(_PATTERN_DIGITS):
        raise KernelError(EINVAL, f"{text!r} is not 0x and hexadecimal digits")
    return int(digits, 16)


def _change(keys: MasterKeys, domain: int, kind: KeyKind, words: list[str]) -> None:
    if len(words) == 2 and words[0] == "load":
        keys.load(domain, kind, _pattern(words[1]))
    elif len(words) == 2 and words[0] == "clear":
        keys.clear(domain, kind, words[1])
    elif words == ["part"]:
        keys.load_part(domain, kind)
    elif words == ["commit"]:
        keys.commit(domain, kind)
    elif words == ["set"]:
        keys.set(domain, kind)
    else:
        raise KernelError(EINVAL, f"{' '.join(words)!r} is no command for a key")


def _store(system: ApSystem, text: str) -> None:
    words = text.split()
    if len(words) < 3 or words[1] not in tuple(KeyKind):
        raise KernelError(EINVAL, f"{text!r} is not DOMAIN KIND COMMAND")
    domain = kstrtoull(words[0])
    if domain > system.hardware.max_domain_id:
        raise KernelError(ENODEV, f"{domain} is above the highest domain ID")
    _change(system.hardware.keys, domain, KeyKind(words[1]), words[2:])


def _registers(kind: KeyKind, key: MasterKey) -> Iterator[str]:
    named = {"current": key.current, "old": key.old}
    yield f"new={key.state}" if key.new is None else f"new={key.state}:{_hex(kind, key.new)}"
    for name, pattern in named.items():
        if kind is not KeyKind.WK or name != "old":
            yield f"{name}={'-' if pattern is None else _hex(kind, pattern)}"


def _hex(kind: KeyKind, pattern: int) -> str:
    return f"0x{pattern:0{SIZES[kind] * 2}x}"


def _show(system: ApSystem) -> str:
    lines = []
    for domain in ids(system.hardware.lpar.domains):
        for kind, key in system.hardware.keys.of(domain).items():
            lines.append(f"{domain:04x} {kind} {' '.join(_registers(kind, key))}\n")
    return "".join(lines)


KEY_ROWS: tuple[Row, ...] = (
    Attr(
        name="master_keys",
        mode=0o644,
        doc="Master keys of all domains; write `DOMAIN KIND load 0x...|part|commit|set|clear REG`.",
        show=_show,
        store=_store,
        errors={
            EINVAL: "no such command, or not in this state of the register NEW",
            ERANGE: "a domain of more than 64 bits",
            ENODEV: "above the maximum ID",
        },
    ),
)
