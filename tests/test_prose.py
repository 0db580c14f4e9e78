"""What texts name exists: files, modules, classes and methods in docstrings, comments and pages."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from fakesys.machine.reference.files import folders
from tests.test_layers import PACKAGE, modules, parsed

REPOSITORY = PACKAGE.parent
DOCS = PACKAGE / "docs"
PAGES = sorted({REPOSITORY / "README.md", *DOCS.glob("*.md")} - {DOCS / "abi.md"})

# `tree/openfile.py`, `test_layers.py`; not `./my-script.py`, `foo/*.py`, a `/run/x.py` of a reader.
PYTHON_FILE = re.compile(r"(?<![\w/.*$<>-])((?:[\w-]+/)*[\w-]+\.py)\b")
# A path of the repository, or of a mount's own directory `fakesys/`; not a pattern.
PATH = re.compile(
    r"(?<![\w/.*$<>~-])((?:fakesys|tests|docs|spec|shared|oracle|\.ci)/[\w./-]*+)(?![*{<])"
)
# `OpenFile.write` in backquotes.
METHOD = re.compile(r"`([A-Z]\w+)\.(\w+)(?:\(\))?`")
# Files that a reader makes, or that belong to other projects.
FOREIGN = {"setup.py", "conftest.py", "kvm_stat.py", "my-script.py"}

# Modules that name what does not exist still. This list only becomes shorter.
KNOWN: frozenset[str] = frozenset()


@cache
def files() -> frozenset[str]:
    """Every path of the package and the tests, and each of its ends: `fuse/session.py` too."""
    found: set[str] = set()
    for top in (PACKAGE, REPOSITORY / "tests"):
        for path in top.rglob("*"):
            parts = path.relative_to(REPOSITORY).parts
            if "__pycache__" not in parts:
                found.update("/".join(parts[start:]) for start in range(len(parts)))
    return frozenset(found)


@cache
def served() -> re.Pattern[str]:
    """Return a pattern of what is below `fakesys/` of a mount; words in capitals are any name."""
    paths: set[str] = set()
    for folder in folders():
        _, found, path = f"{folder.path}/".partition("/debug/fakesys/")
        if found:
            paths.update(f"fakesys/{path}{name}" for name, _ in folder.entries)
            paths.add(f"fakesys/{path}".rstrip("/"))
    patterns = (re.sub(r"\b[A-Z]{2,}\b|\\\*", r"[^/]+", re.escape(path)) for path in paths)
    return re.compile("|".join(sorted(patterns)))


@cache
def members() -> dict[str, set[str]]:
    """Class -> names defined in it or in a class that it names as its base."""
    own: dict[str, set[str]] = {}
    bases: dict[str, set[str]] = {}
    for path in modules().values():
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.ClassDef):
                own.setdefault(node.name, set()).update(_names(node))
                bases.setdefault(node.name, set()).update(
                    base.id for base in node.bases if isinstance(base, ast.Name)
                )
    return {
        name: names.union(*(own.get(base, set()) for base in bases[name]))
        for name, names in own.items()
    }


def _names(node: ast.ClassDef) -> Iterator[str]:
    for part in ast.walk(node):
        if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef):
            yield part.name
        elif isinstance(part, ast.AnnAssign | ast.Assign):
            targets = [part.target] if isinstance(part, ast.AnnAssign) else part.targets
            for target in targets:
                if isinstance(target, ast.Name):
                    yield target.id
                elif isinstance(target, ast.Attribute):
                    yield target.attr
    slots = [v for v in ast.walk(node) if isinstance(v, ast.Constant) and isinstance(v.value, str)]
    yield from (str(value.value) for value in slots if str(value.value).isidentifier())


def prose(path: Path) -> Iterator[str]:
    """The docstrings and comments of a module."""
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield ast.get_docstring(node) or ""
    for token in tokenize.generate_tokens(io.StringIO(path.read_text()).readline):
        if token.type == tokenize.COMMENT:
            yield token.string


def unknown(text: str) -> set[str]:
    """What a text names of this repository and the repository has not."""
    named = set(PYTHON_FILE.findall(text)) - FOREIGN
    wrong = {name for name in named if name not in files()}
    for path in PATH.findall(text):
        name = path.rstrip("./")
        known = name in files() or (REPOSITORY / name).exists() or served().fullmatch(name)
        if not known:
            wrong.add(name)
    for owner, member in METHOD.findall(text):
        if owner in members() and member not in members()[owner]:
            wrong.add(f"{owner}.{member}")
    return wrong


@pytest.mark.parametrize(("module", "path"), modules().items(), ids=lambda value: str(value)[-40:])
def test_docstrings_and_comments_name_what_exists(module: str, path: Path) -> None:
    wrong = {name for text in prose(path) for name in unknown(text)}
    assert bool(wrong) == (module in KNOWN), f"{module}: {wrong}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_name_what_exists(page: Path) -> None:
    assert not unknown(page.read_text())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_of_pages_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text())
    missing = {link for link in links if "://" not in link and not (page.parent / link).exists()}
    assert not missing


def test_a_wrong_name_is_found() -> None:
    text = "`OpenFile.frobnicate` in tree/nothing.py, see spec/mmu.md, fakesys/ap/nothing."
    assert not unknown("`OpenFile.write` in tree/openfile.py, fakesys/kvm/vms/g/state")
    assert unknown(text) == {
        "OpenFile.frobnicate",
        "tree/nothing.py",
        "spec/mmu.md",
        "fakesys/ap/nothing",
    }
