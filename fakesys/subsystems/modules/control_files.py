"""`fakesys/modules`: loads and removes modules as modprobe, insmod and rmmod do, and lists them."""

from __future__ import annotations

from collections.abc import Callable
from errno import EAGAIN, EEXIST, EINVAL, ENOENT, ERANGE

from fakesys.core.boot.command_line import BootLine, Word
from fakesys.core.errors import KernelError
from fakesys.core.text import one_word
from fakesys.subsystems.modules.files import source_version
from fakesys.subsystems.modules.model import Module, Modules
from fakesys.tree.attr import Attr, Layout, Mount
from fakesys.tree.kinds import CONTROL

WRONG_VALUE = {EINVAL: "no name, or a value of no use for a parameter", ERANGE: "too large a value"}
IN_USE = {EAGAIN: "it is in use, or another module needs it"}


def _name_and_words(text: str) -> tuple[str, list[Word]]:
    """Return the name and the parameters of `NAME [PARAMETER=VALUE ...]`. Raises EINVAL."""
    words = list(BootLine(text.removesuffix("\n")).words())
    if not words or words[0].value is not None:
        raise KernelError(EINVAL, "write NAME [PARAMETER=VALUE ...]")
    return words[0].name, words[1:]


def _load(modules: Modules, text: str) -> None:
    name, words = _name_and_words(text)
    modules.load(name, words)


def _insert(modules: Modules, text: str) -> None:
    name, words = _name_and_words(text)
    modules.insert(name, words)


def _named(call: Callable[[Modules, str], None]) -> Callable[[Modules, str], None]:
    return lambda modules, text: call(modules, one_word(text))


def list_text(modules: Modules) -> str:
    """Return the text of /proc/modules, the newest module first.

    Like kernel/module/procfs.c:m_show (v6.1).
    """
    lines = []
    for name in reversed(modules.loaded):
        module = modules.known[name]
        holders = "".join(f"{holder}," for holder in modules.holders(module)) or "-"
        size, count = module.info.core_size, modules.refcnt(module)
        lines.append(f"{name} {size} {count} {holders} Live 0x0000000000000000\n")
    return "".join(lines)


def info_text(module: Module) -> str:
    """Return what `modinfo` prints of a module: `FIELD: VALUE` lines.

    The name of the file is relative to `/lib/modules/RELEASE`.
    """
    info = module.info
    fields = [("filename", f"kernel/{info.file}"), ("name", info.name)]
    if info.version:
        fields += [("version", info.version), ("srcversion", source_version(module))]
    fields += [
        ("description", info.description),
        ("license", info.license),
        ("author", info.author),
        ("depends", ",".join(info.depends)),
        ("intree", "Y"),
    ]
    fields += [("parm", f"{each.name}:{each.doc} ({each.kind})") for each in info.parameters]
    if info.builtin:
        fields.append(("builtin", "Y"))
    return "".join(f"{key}: {value}\n" for key, value in fields)


MODULES: Layout[Modules] = Layout(
    (
        Attr(
            name="list",
            mode=0o444,
            doc="The loaded modules, as /proc/modules has them.",
            show=list_text,
        ),
        Attr(
            name="info",
            mode=0o444,
            doc="All modules that there are, `FIELD: VALUE` lines as of modinfo, a blank line after"
            " each.",
            show=lambda modules: "".join(
                f"{info_text(module)}\n" for module in modules.known.values()
            ),
        ),
        Attr(
            name="load",
            mode=0o200,
            doc="Write `NAME [PARAMETER=VALUE ...]` to load a module and what it needs, as modprobe"
            " does.",
            store=_load,
            errors={**WRONG_VALUE, ENOENT: "there is no such module"},
        ),
        Attr(
            name="insert",
            mode=0o200,
            doc="Write `NAME [PARAMETER=VALUE ...]` to load one module, as insmod does.",
            store=_insert,
            errors={
                **WRONG_VALUE,
                ENOENT: "there is no such module, or one that it needs is not loaded",
                EEXIST: "it is loaded",
            },
        ),
        Attr(
            name="unload",
            mode=0o200,
            doc="Write NAME to remove a module and what only it needed, as `modprobe -r` does.",
            store=_named(Modules.unload),
            errors={
                **IN_USE,
                EINVAL: "not one word",
                ENOENT: "there is no such module, or it is built in",
            },
        ),
        Attr(
            name="remove",
            mode=0o200,
            doc="Write NAME to remove one module, as rmmod does.",
            store=_named(Modules.remove),
            errors={**IN_USE, EINVAL: "not one word", ENOENT: "it is not loaded, or built in"},
        ),
    ),
    kind=CONTROL,
)


def mount(modules: Modules) -> Mount:
    """Return where the control files appear."""
    return Mount("sys/kernel/debug/fakesys/modules", MODULES, lambda: modules)
