"""Folders, files and functions are of a size that one can take in."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from statistics import median

from tests.test_layers import PACKAGE, modules, parsed

FILES_OF_A_FOLDER = 15
LINES_OF_A_FILE = 400
LINES_OF_A_FUNCTION = 50
LINES_OF_THE_MEDIAN_FUNCTION = 6
METHODS_OF_THE_MACHINE = 20

# What is longer still. These lists only become shorter.
LONG_FILES: frozenset[str] = frozenset()
LONG_FUNCTIONS: frozenset[str] = frozenset()


def functions() -> Iterator[tuple[str, int]]:
    """Name and lines of each function of the package, from `def` to its last line."""
    for module, path in modules().items():
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{module}:{node.name}", (node.end_lineno or node.lineno) - node.lineno + 1


def test_folders_have_few_files() -> None:
    files = Counter(path.parent for path in PACKAGE.rglob("*.py"))
    assert {str(name): n for name, n in files.items() if n > FILES_OF_A_FOLDER} == {}
    assert files[PACKAGE] <= 4


def test_files_are_short() -> None:
    lines = {module: len(path.read_text().splitlines()) for module, path in modules().items()}
    assert {module for module, n in lines.items() if n > LINES_OF_A_FILE} == LONG_FILES


def test_functions_are_short() -> None:
    found = dict(functions())
    assert {name for name, n in found.items() if n > LINES_OF_A_FUNCTION} == LONG_FUNCTIONS
    assert median(found.values()) <= LINES_OF_THE_MEDIAN_FUNCTION


def test_the_machine_is_a_facade() -> None:
    classes = {
        node.name: node
        for node in parsed(modules()["machine.machine"]).body
        if isinstance(node, ast.ClassDef)
    }
    methods = [node for node in classes["Machine"].body if isinstance(node, ast.FunctionDef)]
    assert len(methods) <= METHODS_OF_THE_MACHINE


# `fakesys` offers its public names lazily, `fakesys.cli:main` is the entry point of the command.
HEADS_WITH_CODE = ("__init__", "cli")
LINES_OF_A_HEAD = range(10, 31)


def test_each_folder_explains_itself() -> None:
    for path in PACKAGE.rglob("__init__.py"):
        tree = parsed(path)
        lines = len((ast.get_docstring(tree) or "").splitlines())
        assert lines in LINES_OF_A_HEAD, f"{path}: {lines} lines"
        module = ".".join(path.relative_to(PACKAGE).parent.parts) or "__init__"
        if module not in HEADS_WITH_CODE:
            assert len(tree.body) == 1, f"{path} holds more than its docstring"
