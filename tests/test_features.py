"""Each feature by which kernels differ is declared once, and used on both sides."""

from __future__ import annotations

import ast
import importlib
import re
from collections import Counter

import pytest

from fakesys.core.features import Feature
from fakesys.machine.kernels.ap import AP_KERNELS
from fakesys.machine.kernels.apicv import APICV_KERNELS
from fakesys.machine.kernels.mmu import MMU_KERNELS
from fakesys.machine.profiles import TRACE_KERNELS
from tests.test_layers import modules, parsed

PROFILES = ("machine.profiles", "machine.kernels.ap", "machine.kernels.apicv")
YEAR = re.compile(r"(^|_)(19|20)\d\d(_|$)")


def declared() -> list[Feature]:
    """The members of every enumeration of features of the package."""
    for module in modules():
        if module.startswith("subsystems.") and module.endswith((".features", ".policy")):
            importlib.import_module(f"fakesys.{module}")
    kinds = [kind for kind in Feature.__subclasses__() if kind.__module__.startswith("fakesys.")]
    return [member for kind in kinds for member in kind]


def named(module: str) -> set[str]:
    """What a module names as `Enumeration.MEMBER`."""
    return {
        f"{node.value.id}.{node.attr}"
        for node in ast.walk(parsed(modules()[module]))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    }


def spelling(feature: Feature) -> str:
    return f"{type(feature).__name__}.{feature.name}"


def test_values_are_unique() -> None:
    assert [value for value, n in Counter(map(str, declared())).items() if n > 1] == []


def test_every_enumeration_is_found() -> None:
    classes = {
        node.name
        for path in modules().values()
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.ClassDef)
        and any(isinstance(base, ast.Name) and base.id == "Feature" for base in node.bases)
    }
    assert classes == {type(feature).__name__ for feature in declared()}
    assert len(classes) > 5


@pytest.mark.parametrize("feature", declared(), ids=str)
def test_a_kernel_has_the_feature(feature: Feature) -> None:
    ap = [AP_KERNELS[name].features for name in AP_KERNELS.names()]
    apicv = [APICV_KERNELS[name].features for name in APICV_KERNELS.names()]
    tables = (MMU_KERNELS, TRACE_KERNELS)
    others = [kernel.features for table in tables for kernel in table.values()]
    assert any(feature in features for features in (*ap, *apicv, *others))


@pytest.mark.parametrize("feature", declared(), ids=str)
def test_a_row_or_an_event_asks_for_the_feature(feature: Feature) -> None:
    own = type(feature).__module__.removeprefix("fakesys.")
    asks = {module for module in modules() if spelling(feature) in named(module)}
    assert asks - {own, *PROFILES}


def test_no_name_has_a_year() -> None:
    names = {
        name
        for path in modules().values()
        for node in ast.walk(parsed(path))
        for name in (getattr(node, "name", None), getattr(node, "id", None))
        if isinstance(name, str)
    }
    assert {name for name in names if YEAR.search(name)} == set()
    assert {feature for feature in declared() if YEAR.search(feature)} == set()
