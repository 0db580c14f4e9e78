"""No module imports in a circle, nor does any folder; imports for type checkers count."""

from __future__ import annotations

import pytest

from tests.test_layers import imports, internal, modules

# Circles that are still there, by one of their members. This list only becomes shorter.
KNOWN_MODULES: frozenset[str] = frozenset()
KNOWN_FOLDERS: frozenset[str] = frozenset()


def module_edges() -> dict[str, set[str]]:
    """Module -> modules of the package that it imports, wherever the import stands."""
    return {
        name: {found for text in imports(path) if (found := internal(text))} - {name}
        for name, path in modules().items()
    }


def folder_edges() -> dict[str, set[str]]:
    """Folder -> folders that its modules import from."""
    folders: dict[str, set[str]] = {}
    for name, uses in module_edges().items():
        folder = name.rpartition(".")[0]
        below = folders.setdefault(folder, set())
        below |= {other.rpartition(".")[0] for other in uses} - {folder}
    return folders


def circles(edges: dict[str, set[str]]) -> list[set[str]]:
    """Groups of names each of which reaches every other one."""
    reach = {name: _reach(edges, name) for name in edges}
    groups = {frozenset({a, *(b for b in reach[a] if a in reach[b])}) for a in edges}
    return [set(group) for group in groups if len(group) > 1]


def _reach(edges: dict[str, set[str]], start: str) -> set[str]:
    seen: set[str] = set()
    todo = [start]
    while todo:
        for name in edges.get(todo.pop(), set()) - seen:
            seen.add(name)
            todo.append(name)
    return seen


@pytest.mark.parametrize(
    ("edges", "known"),
    [(module_edges, KNOWN_MODULES), (folder_edges, KNOWN_FOLDERS)],
    ids=["modules", "folders"],
)
def test_no_circle(edges: object, known: frozenset[str]) -> None:
    assert callable(edges)
    found = circles(edges())
    assert [group for group in found if not group & known] == []
    gone = known - {name for group in found for name in group}
    assert not gone, "no longer in a circle: shorten the list"


def test_a_circle_is_found() -> None:
    edges = {"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}
    assert circles(edges) == [{"a", "b", "c"}]
