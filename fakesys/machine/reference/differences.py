"""The `Differs:` remarks of docstrings: where the simulation differs from the kernel on purpose."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

PACKAGE = Path(__file__).parents[2]
_REMARK = re.compile(r"\bDiffers: (.*?)(?=\s*Example:|\n\s*\n|\Z)", re.DOTALL)
# `lapic.c:kvm_lapic_reset (v6.1)`: the kernel's file, and functions of it.
_SOURCE = re.compile(r"[\w/-]+\.[ch](?::\w+(?:, \w+)*)?(?: \(v[\d., v]+\))?")
_Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


class Difference(NamedTuple):
    """One remark. `place`: module or function; `like`: the code of the kernel that it follows."""

    place: str
    like: str
    text: str


def differences() -> list[Difference]:
    """Return the remarks of the whole package, by file."""
    found: list[Difference] = []
    for path in (PACKAGE / "core", PACKAGE / "subsystems", PACKAGE / "tree"):
        for file in sorted(path.rglob("*.py")):
            text = file.read_text()
            if "Differs: " in text:
                found += _of_module(str(file.relative_to(PACKAGE)), ast.parse(text))
    return found


def _of_module(file: str, module: ast.Module) -> Iterator[Difference]:
    for name, node in _documented(module, ""):
        doc = ast.get_docstring(node) or ""
        for remark in _REMARK.finditer(doc):
            text = " ".join(remark[1].split())
            source = _SOURCE.search(" ".join(doc.split()))
            yield Difference(f"{file}{name}", source[0] if source else "", _sentence(text))


def _documented(node: ast.AST, name: str) -> Iterator[tuple[str, _Documented]]:
    """Yield what can have a docstring, with its name as `:Class.method`."""
    if isinstance(node, _Documented):
        yield name, node
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            yield from _documented(child, f"{name}{'.' if name else ':'}{child.name}")


def _sentence(text: str) -> str:
    """Return the text with a capital at the beginning and a full stop at the end."""
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."
