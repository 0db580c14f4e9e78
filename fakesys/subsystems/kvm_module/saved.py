"""The parameters of the modules kvm and kvm_amd in a snapshot that no model depends on."""

from __future__ import annotations

from fakesys.core.errors import KernelError
from fakesys.core.saved import Line, Saved, Word, refuse
from fakesys.subsystems.apicv.model import Apicv
from fakesys.subsystems.kvm_module.kvm import SETTINGS
from fakesys.subsystems.kvm_module.kvm_amd import AMD_SETTINGS


class SavedModule(Saved, frozen=True):
    """The parameters that were written, as their files show them."""

    settings: dict[Word, Line]


def save(apicv: Apicv) -> SavedModule:
    """Return what a snapshot holds of the parameters."""
    return SavedModule(settings=dict(apicv.settings))


def restore(saved: SavedModule, apicv: Apicv) -> None:
    """Set the parameters. Raises BadSnapshotError."""
    for name, text in saved.settings.items():
        parse = SETTINGS.get(name) or AMD_SETTINGS.get(name)
        if parse is None:
            refuse(f"there is no parameter {name}")
        try:
            apicv.settings[name] = parse(text)
        except KernelError as error:
            refuse(f"parameter {name}: {error.why}")
