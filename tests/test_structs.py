"""Structs of msgspec all over the package: what a type checker does not see."""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
from collections.abc import Iterator

import pytest
from msgspec import Struct

import fakesys


def _structs(base: type[Struct]) -> Iterator[type[Struct]]:
    for struct in base.__subclasses__():
        yield struct
        yield from _structs(struct)


def _all() -> list[type[Struct]]:
    for module in pkgutil.walk_packages(fakesys.__path__, "fakesys."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    return [struct for struct in _structs(Struct) if struct.__module__.startswith("fakesys.")]


@pytest.mark.parametrize("struct", _all(), ids=lambda struct: struct.__qualname__)
def test_defaults_and_fields_are_those_of_a_struct(struct: type[Struct]) -> None:
    # `dataclasses.field` would be taken for a default value.
    assert not any(isinstance(value, dataclasses.Field) for value in struct.__struct_defaults__)
    # A struct is what its fields say: nothing else is done when one is made.
    assert "__post_init__" not in dir(struct)
