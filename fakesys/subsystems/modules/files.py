"""The directories of modules: `sys/module/NAME`, except for `parameters`.

Source: kernel/module/main.c:modinfo_attrs, kernel/module/sysfs.c (v6.1).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from msgspec.structs import replace

from fakesys.subsystems.driver_core.files import UEVENT_ERRORS
from fakesys.subsystems.modules.model import Loaded, Module, Modules
from fakesys.tree.attr import Attr, Dir, Files, Layout, Link, Links, Mount, Row
from fakesys.tree.kinds import SYSFS

# sysfs.c:MODULE_SECT_READ_SIZE and the bytes of two notes of an ELF file.
SECTION = replace(SYSFS, name="sysfs-section", size=19)
BUILD_ID = replace(SYSFS, name="sysfs-build-id", size=36)
LINUX_NOTE = replace(SYSFS, name="sysfs-note", size=48)

# What the sections of a module are called, with the offset of each in 4 KiB pages.
SECTIONS = {
    ".text": 0,
    ".exit.text": 2,
    ".rodata": 3,
    ".rodata.str1.2": 4,
    ".note.Linux": 5,
    ".note.gnu.build-id": 5,
    ".data": 6,
    ".gnu.linkonce.this_module": 7,
    ".bss": 8,
    ".strtab": 9,
    ".symtab": 10,
}
# Where modules are in memory.
_FIRST_ADDRESS, _DISTANCE = 0x3FF8000_0000, 0x40_0000


class Section(NamedTuple):
    """A section of a loaded module."""

    module: Module
    address: int


def module_uevent(of: Callable[[Any], tuple[Modules, Module]]) -> Attr[Any]:
    """Return the write-only `uevent` of a module. Source: main.c:store_uevent (v6.1)."""

    def send(model: Any, text: str) -> None:
        modules, module = of(model)
        modules.kernel.devices.synthesize(text, module.devpath, "module")

    return Attr(
        name="uevent",
        mode=0o200,
        doc="Write an action to send a uevent for this module itself.",
        store=send,
        errors=UEVENT_ERRORS,
    )


def _section(loaded: Loaded, name: str) -> Section | None:
    if name not in SECTIONS:
        return None
    place = list(loaded.modules.known).index(loaded.module.name)
    return Section(loaded.module, _FIRST_ADDRESS + place * _DISTANCE + SECTIONS[name] * 4096)


def source_version(module: Module) -> str:
    """Return the 23 hex digits that stand for the source of a module with a version."""
    text = f"{module.name} {module.info.version}"
    return hashlib.sha256(text.encode()).hexdigest()[:23].upper()


def _note(kind: int, owner: str, content: bytes) -> str:
    name = owner.encode() + b"\0"
    head = b"".join(part.to_bytes(4, "big") for part in (len(name), len(content), kind))
    padded = name.ljust(-(-len(name) // 4) * 4, b"\0")
    return (head + padded + content).decode("latin-1")


def _build_id(loaded: Loaded) -> str:
    return _note(3, "GNU", hashlib.sha1(loaded.module.name.encode()).digest())


def _linux_note(loaded: Loaded) -> str:
    salt, no_lto = _note(0x100, "Linux", bytes(4)), _note(0x101, "Linux", bytes(4))
    return salt + no_lto


NOTES: Layout[Loaded] = Layout(
    (
        Attr(
            name=".note.gnu.build-id",
            mode=0o444,
            doc="The note with the build ID of the module.",
            show=_build_id,
            kind=BUILD_ID,
        ),
        Attr(
            name=".note.Linux",
            mode=0o444,
            doc="The notes of the kernel's build.",
            show=_linux_note,
            kind=LINUX_NOTE,
        ),
    )
)
_ADDRESS: Attr[Section] = Attr(
    name="section",
    mode=0o400,
    doc="Address of a section of the module.",
    show=lambda section: f"0x{section.address:016x}\n",
    kind=SECTION,
)
MODULE: Layout[Loaded] = Layout(
    (
        module_uevent(lambda loaded: (loaded.modules, loaded.module)),
        Attr(
            name="version",
            mode=0o444,
            doc="Version of the module; most have none.",
            show=lambda loaded: f"{loaded.module.info.version}\n",
            present=lambda loaded: bool(loaded.module.info.version),
        ),
        Attr(
            name="srcversion",
            mode=0o444,
            doc="Checksum of the source of a module with a version.",
            show=lambda loaded: f"{source_version(loaded.module)}\n",
            present=lambda loaded: bool(loaded.module.info.version),
        ),
        Attr(
            name="initstate",
            mode=0o444,
            doc="State of the module.",
            show=lambda _loaded: "live\n",
        ),
        Attr(
            name="coresize",
            mode=0o444,
            doc="Size of the module in memory, in bytes.",
            show=lambda loaded: f"{loaded.module.info.core_size}\n",
        ),
        Attr(
            name="initsize",
            mode=0o444,
            doc="Bytes for loading the module, which are freed when it is loaded.",
            show=lambda _loaded: "0\n",
        ),
        Attr(
            name="taint",
            mode=0o444,
            doc="Letters for what the module taints the kernel with; none.",
            show=lambda _loaded: "\n",
        ),
        Attr(
            name="refcnt",
            mode=0o444,
            doc="How many users the module has, modules that need it included.",
            show=lambda loaded: f"{loaded.modules.refcnt(loaded.module)}\n",
        ),
        Dir(
            name="holders",
            layout=Layout(
                (
                    Links(
                        names=lambda loaded: loaded.modules.holders(loaded.module),
                        get=lambda loaded, name: (
                            f"sys/module/{name}"
                            if name in loaded.modules.holders(loaded.module)
                            else None
                        ),
                    ),
                )
            ),
        ),
        Dir(name="notes", layout=NOTES),
        Dir(
            name="sections",
            layout=Layout((Files(names=lambda _loaded: SECTIONS, get=_section, attr=_ADDRESS),)),
        ),
    )
)
BUILTIN: Layout[Loaded] = Layout((MODULE.rows[0],))


def mounts(modules: Modules, rows: Mapping[str, Attr[Loaded]]) -> tuple[Mount, ...]:
    """Return the directory of each module, which is there while the module is loaded.

    `rows`: a further file of some modules, by the name of the module.
    """
    return tuple(_mount(modules, name, rows.get(name)) for name in modules.known)


def _mount(modules: Modules, name: str, row: Attr[Loaded] | None) -> Mount:
    def loaded() -> Loaded | None:
        return Loaded(modules.known[name], modules) if modules.is_loaded(name) else None

    layout = BUILTIN if modules.known[name].info.builtin else MODULE
    if row is not None:
        layout = Layout((*layout.rows, row))
    return Mount(f"sys/module/{name}", layout, loaded)


def driver_links(*drivers: tuple[str, str]) -> Layout[Any]:
    """Return the directory `drivers/` of a module: a link for each pair of bus and driver."""
    rows: tuple[Row, ...] = tuple(
        Link(name=f"{bus}:{driver}", to=_driver_path(bus, driver)) for bus, driver in drivers
    )
    return Layout(rows)


def _driver_path(bus: str, driver: str) -> Callable[[object], str]:
    return lambda _model: f"sys/bus/{bus}/drivers/{driver}"
