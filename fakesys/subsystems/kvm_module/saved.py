"""The parameters of the module kvm in a snapshot, as far as no model depends on them."""

from __future__ import annotations

from fakesys.core.errors import KernelError
from fakesys.core.saved import Line, Saved, Word, check, refuse
from fakesys.subsystems.apicv.model import Apicv
from fakesys.subsystems.kvm_module.kvm import SETTINGS


class SavedModule(Saved, frozen=True):
    """The parameters that were written, as their files show them."""

    settings: dict[Word, Line]


def save(apicv: Apicv) -> SavedModule:
    """Return what a snapshot holds of the parameters."""
    return SavedModule(settings=dict(apicv.settings))


def restore(saved: SavedModule, apicv: Apicv) -> None:
    """Set the parameters. Raises BadSnapshotError."""
    for name, text in saved.settings.items():
        check(name in SETTINGS, f"there is no parameter {name}")
        try:
            apicv.settings[name] = SETTINGS[name](text)
        except KernelError as error:
            refuse(f"parameter {name}: {error.why}")
