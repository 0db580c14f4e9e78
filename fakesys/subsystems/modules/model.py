"""The register of modules: loading, removing, references, parameters. Knows no subsystem."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from errno import EAGAIN, EEXIST, ENOENT
from typing import Any, NamedTuple

from msgspec import Struct

from fakesys.core.boot.command_line import NO_LINE, BootLine, Word, wrong_parameter
from fakesys.core.errors import KernelError
from fakesys.core.events import Changed, Uevent
from fakesys.core.kernel import Kernel


class Parameter(Struct, frozen=True):
    """A parameter as `modinfo` tells of it; `kind`: such as `int`, `bool`, `charp`."""

    name: str
    kind: str
    doc: str


class ModuleInfo(Struct, frozen=True):
    """What a module is. `file`: its file, from the top of the sources of the kernel.

    `core_size`: bytes in memory; `version`: "" for none, as for most.

    `depends`: the modules that it needs, in the order of their loading. `builtin`: it is a part of
    the kernel, which cannot be removed.
    """

    name: str
    description: str
    file: str
    core_size: int = 0
    depends: tuple[str, ...] = ()
    version: str = ""
    author: str = "IBM Corporation"
    license: str = "GPL"
    parameters: tuple[Parameter, ...] = ()
    builtin: bool = False


SetParam = Callable[[str | None], None]


def _nothing() -> None:
    """Do nothing."""


class Module(Struct, frozen=True, eq=False):
    """A module of a machine.

    `init`, `exit`: what loading and removing do; `init` may refuse. `users`: how many references
    there are besides those of other modules. `params`: how each parameter is set, which raises
    EINVAL or ERANGE for a value of no use; called before `init`, after `defaults`, which sets all
    parameters to what they are without a value.
    """

    info: ModuleInfo
    init: Callable[[], None] = _nothing
    exit: Callable[[], None] = _nothing
    users: Callable[[], int] = lambda: 0
    defaults: Callable[[], None] = _nothing
    params: Mapping[str, SetParam] = {}

    @property
    def name(self) -> str:
        """Its name, with underscores."""
        return self.info.name

    @property
    def devpath(self) -> str:
        """Path below /sys."""
        return f"/module/{self.info.name}"


class Loaded(NamedTuple):
    """A loaded module as its directory sees it, with the register."""

    module: Module
    modules: Modules


class Modules:
    """The modules of one machine. `known`: by name; `loaded`: names, the oldest first."""

    def __init__(self, kernel: Kernel, boot: BootLine = NO_LINE) -> None:
        self.kernel = kernel
        self.boot = boot
        self.known: dict[str, Module] = {}
        self.loaded: list[str] = []

    def register(self, module: Module) -> None:
        """Make a module known; one that is built in is there from now on.

        A module of the same name is replaced: its subsystem was made again.
        """
        self.known[module.name] = module

    def at_boot(self, names: Iterable[str]) -> None:
        """Have these modules loaded, with the parameters of the boot command line.

        Their `init` is not called: their subsystems are made as loaded.
        """
        for name in names:
            module = self.known[name]
            if name not in self.loaded:
                self.loaded.append(name)
            module.defaults()
            self._set_params(module, self.boot.of(name), strict=False)

    def find(self, name: str) -> Module:
        """Return a module by its name, in which `-` counts as `_`. Raises ENOENT."""
        module = self.known.get(name.replace("-", "_"))
        if module is None:
            raise KernelError(ENOENT, f"there is no module {name!r}")
        return module

    def is_loaded(self, name: str) -> bool:
        """Return whether a module is loaded or built in."""
        module = self.known.get(name)
        return module is not None and (module.info.builtin or name in self.loaded)

    def holders(self, module: Module) -> list[str]:
        """Return the loaded modules that need this one, the newest first."""
        newest_first = reversed(self.loaded)
        return [name for name in newest_first if module.name in self.known[name].info.depends]

    def refcnt(self, module: Module) -> int:
        """Return the number of references. Like kernel/module/main.c:module_refcnt (v6.1)."""
        return module.users() + len(self.holders(module))

    def load(self, name: str, words: Sequence[Word] = ()) -> None:
        """Load a module and those that it needs, as modprobe(8) does.

        Do nothing for one that is loaded or built in. The parameters of the boot command line come
        before `words`. Raises ENOENT for an unknown module, and what `insert` raises.
        """
        module = self.find(name)
        if self.is_loaded(module.name):
            return
        for needed in module.info.depends:
            self.load(needed)
        self.insert(module.name, [*self.boot.of(module.name), *words])

    def insert(self, name: str, words: Sequence[Word] = ()) -> None:
        """Load one module, as insmod(8) does.

        Raises ENOENT for an unknown module and while one that it needs is not loaded, EEXIST for
        one that is loaded, and the refusals of its parameters and its `init`. Like
        kernel/module/main.c:load_module (v6.1).
        """
        module = self.find(name)
        if self.is_loaded(module.name):
            raise KernelError(EEXIST, f"{module.name} is loaded")
        missing = [each for each in module.info.depends if not self.is_loaded(each)]
        if missing:
            self.kernel.log(f"{module.name}: Unknown symbol of {missing[0]} (err -2)")
            raise KernelError(ENOENT, f"{module.name} needs {', '.join(missing)}")
        module.defaults()
        self._set_params(module, words, strict=True)
        module.init()
        self.loaded.append(module.name)
        self._announce("add", module)

    def remove(self, name: str) -> None:
        """Remove one module, as rmmod(8) does.

        Raises ENOENT for one that is not loaded or built in, EAGAIN while another module needs it
        or it is used. Like kernel/module/main.c:delete_module (v6.1).
        """
        module = self.known.get(name.replace("-", "_"))
        if module is None or module.name not in self.loaded:
            raise KernelError(ENOENT, f"no module {name!r} is loaded")
        holders = self.holders(module)
        if holders:
            raise KernelError(EAGAIN, f"{module.name} is in use by {', '.join(holders)}")
        if module.users():
            raise KernelError(EAGAIN, f"{module.name} is in use")
        module.exit()
        self.loaded.remove(module.name)
        self._announce("remove", module)

    def unload(self, name: str) -> None:
        """Remove a module, then those that only it needed, as `modprobe -r` does.

        Do nothing for a known module that is not loaded. Raises what `remove` raises.
        """
        module = self.find(name)
        if module.name not in self.loaded and not module.info.builtin:
            return
        self.remove(module.name)
        for needed in reversed(module.info.depends):
            if needed in self.loaded and not self.refcnt(self.known[needed]):
                self.unload(needed)

    def state(self) -> dict[str, Any]:
        """Return the loaded modules with their references as plain data, the oldest first."""
        return {name: self.refcnt(self.known[name]) for name in self.loaded}

    def _set_params(self, module: Module, words: Iterable[Word], *, strict: bool) -> None:
        """Set parameters; a value of no use is told to the log and, if `strict`, refused."""
        for given, value in words:
            name = given.replace("-", "_")
            setter = module.params.get(name)
            if setter is None:
                self.kernel.log(f"{module.name}: unknown parameter '{given}' ignored")
                continue
            try:
                setter(value)
            except KernelError as error:
                self.kernel.log(wrong_parameter(module.name, given, value, error))
                if strict:
                    raise

    def _announce(self, action: str, module: Module) -> None:
        touched = (module.name, *module.info.depends)
        bus = self.kernel.bus
        bus.emit(Changed((None, *(Loaded(self.known[name], self) for name in touched))))
        bus.emit(Uevent(action, module.devpath, "module"))
