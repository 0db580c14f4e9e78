"""The modules kvm and kvm_amd: their parameters at the load, and who uses them.

Like arch/x86/kvm/svm/svm.c:svm_init, svm_exit (v6.1). Differs: the events of kvm stay in tracefs
while the module is not loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from msgspec.structs import replace

from fakesys.core.boot.command_line import param_bool
from fakesys.core.events import Changed
from fakesys.subsystems.kvm.params import Param
from fakesys.subsystems.kvm_mmu.params import EAGER_PAGE_SPLIT, MMIO_CACHING, TDP_MMU
from fakesys.subsystems.kvm_mmu.vm.nx_huge_pages import NxHugePages
from fakesys.subsystems.kvm_module.kvm import KVM, SETTINGS, KvmModule, Parse, is_truth
from fakesys.subsystems.kvm_module.kvm_amd import AMD_SETTINGS, KVM_AMD
from fakesys.subsystems.modules import known
from fakesys.subsystems.modules.model import Module, ModuleInfo, Modules, Parameter, SetParam
from fakesys.tree.attr import Attr, Layout

# Parameters of kvm that VMs look at.
VM_PARAMS = (MMIO_CACHING, TDP_MMU, EAGER_PAGE_SPLIT)
Models = Callable[[], KvmModule]


def register(modules: Modules, models: Models) -> None:
    """Make both modules known. `models`: those of now, which another kernel replaces."""
    modules.register(
        Module(
            _with_parameters(known.KVM, KVM, SETTINGS),
            defaults=lambda: _kvm_defaults(models()),
            params=_kvm_params(models),
        )
    )
    modules.register(
        Module(
            _with_parameters(known.KVM_AMD, KVM_AMD, AMD_SETTINGS),
            init=lambda: _names_change(models()),
            exit=lambda: _names_change(models()),
            users=lambda: len(models().kvm.vms),
            defaults=lambda: _amd_defaults(models()),
            params=_amd_params(models),
        )
    )


def _with_parameters(
    info: ModuleInfo, layout: Layout[KvmModule], parse: Mapping[str, Parse]
) -> ModuleInfo:
    rows = {row.name: row for row in layout.rows if isinstance(row, Attr)}
    return replace(info, parameters=tuple(_parameter(row, parse) for row in rows.values()))


def _parameter(row: Attr[KvmModule], parse: Mapping[str, Parse]) -> Parameter:
    known_as = parse.get(row.name)
    kind = "bool" if known_as is None or is_truth(known_as) else "int"
    return Parameter(row.name, kind, row.doc)


def _names_change(module: KvmModule) -> None:
    """Show or hide `debug/kvm`, which the module makes when it is loaded."""
    module.kvm.kernel.bus.emit(Changed((None, module.kvm)))


def _setting(models: Models, name: str, parse: Parse) -> SetParam:
    def store(value: str | None) -> None:
        given = "1" if value is None and is_truth(parse) else value
        models().settings[name] = parse("" if given is None else given)

    return store


def _kvm_params(models: Models) -> dict[str, SetParam]:
    found = {name: _setting(models, name, parse) for name, parse in SETTINGS.items()}
    for name, store in (
        ("nx_huge_pages", NxHugePages.set_mode),
        ("nx_huge_pages_recovery_ratio", NxHugePages.set_ratio),
        ("nx_huge_pages_recovery_period_ms", NxHugePages.set_period),
    ):
        found[name] = _nx_setting(models, store)

    for param in VM_PARAMS:
        found[param.name] = _boolean(models, param)
    return found


def _boolean(models: Models, param: Param[bool]) -> SetParam:
    return lambda value: models().kvm.params.choose(param, param_bool(value))


def _nx_setting(models: Models, store: Callable[[NxHugePages, str], None]) -> SetParam:
    return lambda value: store(models().nx, value or "")


def _kvm_defaults(module: KvmModule) -> None:
    for name in SETTINGS:
        module.settings.pop(name, None)
    for param in VM_PARAMS:
        module.kvm.params.drop(param)
    module.nx.reset()


def _amd_params(models: Models) -> dict[str, SetParam]:
    found = {name: _setting(models, name, parse) for name, parse in AMD_SETTINGS.items()}
    rows = models().kvm.params.rows.values()
    for row in rows:
        if row.modprobe:
            found[row.name] = _choice(models, row.name)
    return found


def _choice(models: Models, name: str) -> SetParam:
    def store(value: str | None) -> None:
        params = models().kvm.params
        params.choose(params.row(name), param_bool(value))

    return store


def _amd_defaults(module: KvmModule) -> None:
    for name in AMD_SETTINGS:
        module.settings.pop(name, None)
    params = module.kvm.params
    for row in params.rows.values():
        if row.modprobe:
            params.drop(row)
