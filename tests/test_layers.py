"""No import goes up the list of layers, and kernels are named in one place only."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "fakesys"

# Lowest first. A module may import from its own layer's package rules or from lower layers.
LAYERS = (
    r"core\..*",
    r"graph\..*",
    r"tree\..*",
    r"subsystems\.(?P<name>\w+)\.(?P<part>\w+)",
    r"profiles",
    r"machine\w*|scenario",
    r"abi|host|snapshot|recorder|lab.*",
    r"transport\..*",
    r"daemon|background",
    r"cli.*|pytest_plugin|exec.*|serving",
)
# A model knows no text, path, FUSE or event loop; a table knows no transport.
FORBIDDEN = {
    r"subsystems\.\w+\.(model|policy).*": r"fakesys\.tree.*|trio|fuse|fakesys\.transport.*",
    r"core\..*": r"trio|fuse|psutil|click|rich",
    r"graph\..*": r"fakesys\.(core|tree|subsystems).*|trio|fuse|psutil|click|rich",
    r"tree\..*": r"trio|fuse|psutil|click|rich",
    r"(?!transport\.fusepy\.server).*": r"fuse",
}
# One subsystem may import an earlier one, never a later one.
SUBSYSTEMS = (
    "driver_core",
    "control",
    "selftest",
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


def layer_of(module: str) -> int | None:
    for index, pattern in enumerate(LAYERS):
        if re.fullmatch(pattern, module):
            return index
    return None


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
    layer = layer_of(module)
    for imported in imports(path):
        for who, what in FORBIDDEN.items():
            if re.fullmatch(who, module):
                assert not re.fullmatch(what, imported), f"{module} imports {imported}"
        target = internal(imported)
        below = layer_of(target) if target else None
        if layer is not None and below is not None:
            assert below <= layer, f"{module} imports {imported}, which is above it"


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


def test_every_module_is_of_a_readable_length() -> None:
    long = {
        module: lines
        for module, path in modules().items()
        if (lines := len(path.read_text().splitlines())) > 500
    }
    assert not long
