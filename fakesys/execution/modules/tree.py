"""The directory of modules that depmod would leave for the simulated machine."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from fakesys.execution.modules.descriptions import Description, needed, parse
from fakesys.execution.modules.index import index
from fakesys.execution.modules.stub import modinfo, stub

# What else belongs to the running kernel and stays: programs that are compiled for it need these.
KEPT = ("build", "source")


def write_tree(info: str, folder: Path, release: str) -> None:
    """Fill `folder` with the modules that a text of `fakesys/modules/info` tells of."""
    modules = list(parse(info))
    loadable = [module for module in modules if not module.builtin]
    builtin = [module for module in modules if module.builtin]
    for module in loadable:
        path = folder / module.file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(stub(module, release))
    _write_lists(folder, loadable, builtin)
    (folder / "modules.builtin.modinfo").write_bytes(b"".join(map(_builtin_info, builtin)))


def keep_links(folder: Path, host: Path) -> None:
    """Copy the links to the sources of the running kernel from its own directory."""
    for name in KEPT:
        if (host / name).is_symlink():
            (folder / name).symlink_to(os.readlink(host / name))


def _write_lists(
    folder: Path, loadable: Iterable[Description], builtin: Iterable[Description]
) -> None:
    lines = {}
    for module in loadable:
        # libkmod and busybox load the last one first.
        files = [each.file for each in reversed(needed(module, loadable))]
        lines[module.name] = " ".join((f"{module.file}:", *files))
    _write(folder / "modules.dep", lines.values())
    _write(folder / "modules.order", (module.file for module in loadable))
    _write(folder / "modules.builtin", (module.file for module in builtin))
    indexes = {
        "dep": lines,
        "alias": {},
        "symbols": {},
        "builtin": {module.name: "" for module in builtin},
        "builtin.alias": {},
    }
    for name, entries in indexes.items():
        (folder / f"modules.{name}.bin").write_bytes(index(entries))
    for name in ("alias", "symbols", "softdep", "devname"):
        _write(folder / f"modules.{name}", ())


def _write(path: Path, lines: Iterable[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines))


def _builtin_info(module: Description) -> bytes:
    """Return the strings of modules.builtin.modinfo: those of the section, each with the name."""
    fields = [field for field in modinfo(module, "").split(b"\0") if field]
    wanted = [field for field in fields if not field.startswith((b"name=", b"vermagic="))]
    return b"".join(b"%s.%s\0" % (module.name.encode(), field) for field in wanted)
