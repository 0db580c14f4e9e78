"""No import goes up the list of layers, and kernels are named in one place only."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "fakesys"

# Lowest first; the folders of one line do not know each other. A folder may import from itself and
# from lower lines.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("core",),
    ("tree",),
    ("subsystems",),
    ("machine",),
    ("pool",),
    ("lab", "explore", "transport"),
    ("daemon", "execution", "view"),
    ("top", "sweep"),
    ("cli",),
    ("pytest_plugin", "docs", "__init__", "__main__"),
)
# Everything but these parts of a subsystem knows numbers only: no file, no command.
TABLES = r"subsystems\.(\w+\.)*(\w*files|commands)(\.\w+)*|subsystems\.kvm_module\.\w+"
FORBIDDEN = {
    rf"(?!{TABLES}$)subsystems\..*": r"fakesys\.tree.*",
    rf"(?!{TABLES}$|.*\.params$)subsystems\..*": r"fakesys\.core\.commands.*",
    r"(core|tree|subsystems|machine)\..*": r"trio|fuse|psutil|click|rich",
    r"(?!transport\.fusepy\.library).*": r"fuse",
}
# Modules that break a rule of FORBIDDEN still. This list only becomes shorter.
KNOWN: frozenset[str] = frozenset({})
# One subsystem may import an earlier one, never a later one.
SUBSYSTEMS = (
    "driver_core",
    "modules",
    "control",
    "selftest",
    "s390dbf",
    "device_nodes",
    "ap_bus",
    "mdev",
    "vfio_ap",
    "ap_control",
    "tracing",
    "kvm",
    "kvm_mmu",
    "apicv",
    "kvm_module",
)


@cache
def modules() -> dict[str, Path]:
    """Every module of the package, by its name without `fakesys.`."""
    paths = {
        ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path
        for path in sorted(PACKAGE.rglob("*.py"))
    }
    return {name.removesuffix(".__init__"): path for name, path in paths.items()}


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def layer_of(module: str) -> int:
    """Index in LAYERS; a folder that has none is a mistake in that table."""
    top = module.partition(".")[0]
    return next(index for index, folders in enumerate(LAYERS) if top in folders)


def internal(imported: str) -> str | None:
    """The module of this package that an import names."""
    if not imported.startswith("fakesys."):
        return None
    name = imported.removeprefix("fakesys.")
    while name and name not in modules():
        name = name.rpartition(".")[0]
    return name or None


@pytest.mark.parametrize(("module", "path"), modules().items(), ids=lambda value: str(value)[-40:])
def test_imports_go_down(module: str, path: Path) -> None:
    layer, top = layer_of(module), module.partition(".")[0]
    for imported in imports(path):
        target = internal(imported)
        if target is None or target.partition(".")[0] == top or module == "__init__":
            continue
        assert layer_of(target) < layer, f"{module} imports {imported}, which is not below it"


def forbidden(module: str, path: Path) -> list[str]:
    """What a module imports although its place forbids it."""
    return [
        imported
        for who, what in FORBIDDEN.items()
        if re.fullmatch(who, module)
        for imported in imports(path)
        if re.fullmatch(what, imported)
    ]


@pytest.mark.parametrize(("module", "path"), modules().items(), ids=lambda value: str(value)[-40:])
def test_a_place_forbids_imports(module: str, path: Path) -> None:
    assert bool(forbidden(module, path)) == (module in KNOWN), forbidden(module, path)


@pytest.mark.parametrize(("module", "path"), modules().items(), ids=lambda value: str(value)[-40:])
def test_subsystems_know_only_earlier_ones(module: str, path: Path) -> None:
    parts = module.split(".")
    if parts[0] != "subsystems" or len(parts) < 2:
        return
    own = SUBSYSTEMS.index(parts[1])
    for imported in imports(path):
        found = re.match(r"fakesys\.subsystems\.(\w+)", imported)
        if found:
            assert SUBSYSTEMS.index(found[1]) <= own, f"{module} imports {imported}"


# These offer a file of that name, or talk about the mount as a whole.
SAYS_PROFILE = re.compile(r"subsystems\.(control|ap_control|kvm)\..*|subsystems\.ap_bus\.control.*")


@pytest.mark.parametrize(("module", "path"), modules().items(), ids=lambda value: str(value)[-40:])
def test_models_do_not_know_kernel_versions(module: str, path: Path) -> None:
    if not module.startswith("subsystems.") or SAYS_PROFILE.fullmatch(module):
        return
    tree = parsed(path)
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    names |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert not {name for name in names if "profile" in name.lower()}
