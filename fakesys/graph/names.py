"""The names of code and constants, so that a file can refer to them instead of holding them.

Functions, classes, enum members and the tables of modules are the same in every process of one
version. A file can refer to what is in this register only: nothing is imported or looked up by a
name from a file.
"""

from __future__ import annotations

import builtins
import importlib
import operator
import pkgutil
from collections.abc import Iterable, Iterator
from enum import Enum
from types import CodeType, FunctionType, MappingProxyType, ModuleType
from typing import Any

from msgspec import Struct

# Builtins without any effect beyond their result.
_HARMLESS = {
    "operator": "add and_ eq floordiv ge gt invert le lshift lt mod mul ne neg not_ or_ rshift sub",
    "builtins": "abs all any bool dict float frozenset int len list max min set str sum tuple",
}
_TABLES = (tuple, list, dict, MappingProxyType)
_PLAIN = (type(None), bool, int, str, bytes, float, ModuleType)


class Names:
    """The register of everything that a file may refer to by name.

    `packages`: the packages and modules whose names are registered, subpackages included.
    `others`: single names, `module:name`, of modules of which nothing else is registered.
    """

    def __init__(self, packages: Iterable[str], others: Iterable[str] = ()) -> None:
        self._things: dict[str, Any] = {}
        self._names: dict[int, str] = {}
        self._codes: dict[str, list[CodeType]] = {}
        modules = [module for package in packages for module in _modules(package)]
        self._own = frozenset(module.__name__ for module in modules)
        for module in modules:
            for name, value in vars(module).items():
                # A private table that can grow may be a cache: other processes have another one.
                private = name.startswith("_") and isinstance(value, (dict, list, set))
                if not name.startswith("__") and not private:
                    self._add(f"{module.__name__}:{name}", value)
        for name in others:
            module_name, _, path = name.partition(":")
            self._take(name, getattr(importlib.import_module(module_name), path))
        self._add_harmless()

    def name_of(self, thing: object) -> str | None:
        """Return the name of an object; None when it is not registered."""
        return self._names.get(id(thing))

    def thing(self, name: str) -> Any:
        """Return the object of a name. Raises KeyError."""
        return self._things[name]

    def place_of(self, function: FunctionType) -> tuple[str, int] | None:
        """Return the registered function that made this one, and the index of its code there."""
        outer = function.__qualname__.split(".<locals>", 1)[0]
        name = f"{function.__module__}:{outer}"
        for number, code in enumerate(self._codes_of(name)):
            if code is function.__code__:
                return name, number
        return None

    def code_at(self, name: str, number: int) -> tuple[CodeType, dict[str, Any]]:
        """Return the code at this place and the module's globals. Raises KeyError, IndexError."""
        outer = self._things[name]
        return self._codes_of(name)[number], outer.__globals__

    def _codes_of(self, name: str) -> list[CodeType]:
        known = self._codes.get(name)
        if known is None:
            outer = self._things.get(name)
            found = list(_inner(outer.__code__)) if isinstance(outer, FunctionType) else []
            known = self._codes[name] = found
        return known

    def _add_harmless(self) -> None:
        for module in (operator, builtins):
            for name in _HARMLESS[module.__name__].split():
                self._enter(f"{module.__name__}:{name}", vars(module)[name])

    def _enter(self, name: str, thing: object) -> bool:
        """Register a name; return whether it is the first one of the object."""
        self._things.setdefault(name, thing)
        if id(thing) in self._names:
            return False
        self._names[id(thing)] = name
        return True

    def _add(self, name: str, value: Any) -> None:
        if isinstance(value, type):
            if value.__module__ in self._own:
                self._take(f"{value.__module__}:{value.__qualname__}", value)
        elif isinstance(value, FunctionType):
            if value.__module__ in self._own:
                self._enter(name, value)
        elif isinstance(value, Enum):
            self._add(name, type(value))
        elif not isinstance(value, _PLAIN) and self._enter(name, value):
            self._add_parts(name, value)

    def _take(self, name: str, cls: type) -> None:
        """Register a class, its functions and constants."""
        if not self._enter(name, cls):
            return
        if issubclass(cls, Enum):
            for member in cls:
                self._enter(f"{name}.{member.name}", member)
        for attribute, value in list(vars(cls).items()):
            function = _function_of(value)
            if isinstance(function, FunctionType) or not attribute.startswith("__"):
                self._add(f"{name}.{attribute}", function)

    def _add_parts(self, name: str, value: Any) -> None:
        if isinstance(value, (dict, MappingProxyType)):
            for key, part in value.items():
                self._add(f"{name}[{_short(key)}]", part)
        elif isinstance(value, (tuple, list)):
            for index, part in enumerate(value):
                self._add(f"{name}[{index}]", part)
        elif isinstance(value, Struct) and type(value).__module__ in self._own:
            for field in value.__struct_fields__:
                self._add(f"{name}.{field}", getattr(value, field))


def _modules(package: str) -> Iterator[ModuleType]:
    top = importlib.import_module(package)
    yield top
    for found in pkgutil.walk_packages(getattr(top, "__path__", ()), f"{package}."):
        yield importlib.import_module(found.name)


def _function_of(value: Any) -> Any:
    """Return the function of a property, static method or class method."""
    if isinstance(value, property):
        return value.fget
    return value.__func__ if isinstance(value, (staticmethod, classmethod)) else value


def _inner(code: CodeType) -> Iterator[CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant
            yield from _inner(constant)


def _short(key: object) -> str:
    return key.__qualname__ if isinstance(key, type) else str(key)
