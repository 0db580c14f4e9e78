"""The loaded modules in a snapshot; parameters are saved by the subsystems that have them."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from fakesys.core.saved import Saved, Word, check, check_unique
from fakesys.subsystems.modules.model import Modules


class SavedModules(Saved, frozen=True):
    """The names of the loaded modules, the oldest first."""

    loaded: Annotated[tuple[Word, ...], Meta(max_length=64)]


def save(modules: Modules) -> SavedModules:
    """Return what a snapshot holds of the modules."""
    return SavedModules(loaded=tuple(modules.loaded))


def restore(saved: SavedModules, modules: Modules) -> None:
    """Have these modules loaded; their subsystems are restored as such. Raises BadSnapshotError."""
    check_unique(saved.loaded, "a loaded module")
    for place, name in enumerate(saved.loaded):
        module = modules.known.get(name)
        check(module is not None and not module.info.builtin, f"there is no module {name}")
        assert module is not None
        missing = set(module.info.depends) - set(saved.loaded[:place])
        check(not missing, f"module {name} is loaded without {', '.join(sorted(missing))}")
    modules.loaded = list(saved.loaded)
