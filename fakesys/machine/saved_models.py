"""The models of a machine in a snapshot."""

from __future__ import annotations

from typing import Any

from msgspec.structs import asdict

from fakesys.core.kernel import Kernel, SavedKernel
from fakesys.core.saved import Saved, Word, check
from fakesys.machine.profiles import Profile, require_known
from fakesys.machine.scenario import Scenario
from fakesys.machine.subsystems import Subsystems, built
from fakesys.subsystems.ap_control import saved as ap
from fakesys.subsystems.apicv.saved import apicv
from fakesys.subsystems.device_nodes import saved as nodes
from fakesys.subsystems.kvm import saved as kvm
from fakesys.subsystems.kvm.vcpu_run import saved as runs
from fakesys.subsystems.kvm.vm import watch_no_process
from fakesys.subsystems.kvm_mmu.saved import mmu
from fakesys.subsystems.kvm_module import saved as module
from fakesys.subsystems.modules import saved as modules
from fakesys.subsystems.selftest import saved as selftest
from fakesys.subsystems.tracing.instances.task_watch import Processes
from fakesys.subsystems.tracing.saved import tracing


class SavedProfile(Saved, frozen=True):
    """The kernels of now; the fields are those of `Profile`."""

    name: Word
    ap: Word
    mmu: Word
    apicv: Word
    trace: Word


class SavedModels(Saved, frozen=True):
    """All models, in the order in which they are restored."""

    kernels: SavedProfile
    kernel: SavedKernel
    selftest: selftest.SavedSelftest | None
    ap: ap.SavedAp
    kvm: kvm.SavedKvm
    runs: runs.SavedRuns
    memory: mmu.SavedMmu
    interrupts: apicv.SavedApicv
    module: module.SavedModule
    modules: modules.SavedModules
    tracing: tracing.SavedTracing


def save_models(models: Subsystems) -> SavedModels:
    """Return what a snapshot holds of the models."""
    return SavedModels(
        kernel=models.kernel.saved(), ap=ap.save(models.ap.system), **save_rest(models)
    )


def save_rest(models: Subsystems) -> dict[str, Any]:
    """Return the fields of `SavedModels` but those of time, chance and the AP part."""
    return {
        **save_choices(models),
        "kvm": kvm.save(models.kvm.kvm),
        "runs": runs.save(models.kvm.runs),
        "memory": mmu.save(models.kvm.memory),
        "interrupts": apicv.save(models.kvm.apicv),
        "module": module.save(models.kvm.apicv),
        "tracing": tracing.save(models.tracing.tracing),
    }


def save_choices(models: Subsystems) -> dict[str, Any]:
    """Return the fields of `SavedModels` for kernels, modules and the demonstration device."""
    toy = models.selftest
    return {
        "kernels": SavedProfile(**asdict(models.profile)),
        "selftest": None if toy is None else selftest.save(toy),
        "modules": modules.save(models.modules),
    }


def restored_models(saved: SavedModels, scenario: Scenario, processes: Processes) -> Subsystems:
    """Return new models, made as for the scenario and filled with what a snapshot holds.

    `processes`: what tracing asks about the clients of the mount. The models are not shown in a
    tree, heard by journals, or told of the end of processes yet. Raises BadSnapshotError,
    KernelError, ScenarioError.
    """
    profile = Profile(**asdict(saved.kernels))
    require_known(profile)
    kernel = Kernel()
    models = built(
        kernel,
        profile,
        scenario,
        watch_no_process,
        processes,
        selftest=saved.selftest is not None,
    )
    kernel.restore(saved.kernel)
    if saved.selftest is not None and models.selftest is not None:
        selftest.restore(saved.selftest, models.selftest)
    ap.restore(saved.ap, models.ap.system)
    kvm.restore(saved.kvm, models.kvm.kvm)
    runs.restore(saved.runs, models.kvm.runs)
    mmu.restore(saved.memory, models.kvm.memory)
    apicv.restore(saved.interrupts, models.kvm.apicv)
    module.restore(saved.module, models.kvm.apicv)
    modules.restore(saved.modules, models.modules)
    nodes.restore(saved.ap.nodes, models.ap.system.nodes, set(models.modules.loaded))
    _check_modules(models)
    tracing.restore(saved.tracing, models.tracing.tracing)
    return models


def _check_modules(models: Subsystems) -> None:
    """Raise BadSnapshotError for models that contradict the modules that are loaded."""
    system, loaded = models.ap.system, models.modules.is_loaded
    for name, there in (
        ("vfio_ap", system.vfio_ap.matrix is not None),
        ("zcrypt_cex4", system.bus.state.card_driver.registered),
    ):
        check(loaded(name) == there, f"the drivers of {name} are not as the module")
    check(loaded("kvm_amd") or not models.kvm.kvm.vms, "there are VMs without kvm_amd")
