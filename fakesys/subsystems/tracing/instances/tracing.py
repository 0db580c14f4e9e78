"""All of tracing: the instances, and what concerns more than one of them."""

from __future__ import annotations

from collections.abc import Iterable
from errno import EBUSY, EEXIST, EINVAL, ENODEV, ENOENT

from fakesys.core.errors import KernelError
from fakesys.core.event_format import EventFormat
from fakesys.core.events import Changed
from fakesys.core.features import FeatureSet
from fakesys.core.kernel import Kernel
from fakesys.core.tracepoint import Tracepoint
from fakesys.subsystems.tracing.base.options import BLK_CLASSIC, NOP_ACCEPT, NOP_REFUSE, Options
from fakesys.subsystems.tracing.base.policy import Build
from fakesys.subsystems.tracing.events.catalog import EventCatalog
from fakesys.subsystems.tracing.events.host import EVENTS
from fakesys.subsystems.tracing.instances.event_file import EventFile
from fakesys.subsystems.tracing.instances.instance import Instance
from fakesys.subsystems.tracing.instances.listeners import Listeners
from fakesys.subsystems.tracing.instances.shared import Shared
from fakesys.subsystems.tracing.instances.synthetic import SyntheticEvents
from fakesys.subsystems.tracing.instances.task_watch import Processes, TaskWatch

PRINTK_DEST, COPY_MARKER = "trace_printk_dest", "copy_trace_marker"
MAX_CPUS = 4096
_OF_CLIENTS = frozenset(EVENTS.values())
_OF_SCHEDULER = frozenset(cls for cls in _OF_CLIENTS if cls.system == "sched")


class Tracing:
    """The model behind `sys/kernel/tracing`; the `Owner` of its instances.

    `classes`: the events that exist, in the order of `available_events`. `cpus`: how many
    buffers an instance has at first. `processes`: what is asked about clients.
    """

    def __init__(
        self,
        kernel: Kernel,
        build: Build,
        classes: Iterable[type[Tracepoint]],
        features: FeatureSet,
        *,
        cpus: int,
        processes: Processes,
    ) -> None:
        catalog = EventCatalog(classes, features, build)
        self.kernel = kernel
        self.shared = Shared(kernel, build, catalog, cpus=cpus, processes=processes)
        self.watch = TaskWatch(kernel.bus, processes, self)
        self.listeners = Listeners(kernel.bus)
        options = Options.at_boot(build.absent_options)
        self.top = Instance(self, self.shared, options, expanded=False)
        self.instances: dict[str, Instance] = {}
        self.synthetic = SyntheticEvents(kernel.bus, catalog, self)
        self._serial = 0
        # Who records markers of the top directory, newest first: by default only itself.
        self.marker_copies: list[Instance] = [self.top]

    # Instances.

    def every_instance(self) -> list[Instance]:
        """Return the top directory and all other instances."""
        return [self.top, *self.instances.values()]

    def make_instance(self, name: str) -> None:
        """Do what `mkdir instances/NAME` does. Raises EEXIST."""
        if name in self.instances:
            raise KernelError(EEXIST, f"instance {name} exists")
        options = self.top.options.for_new_instance()
        self.instances[name] = Instance(self, self.shared, options, expanded=True)
        self.kernel.bus.emit(Changed((self,)))

    def remove_instance(self, name: str) -> None:
        """Do what `rmdir instances/NAME` does.

        Raises ENOENT, and EBUSY while a file of the instance is open.
        """
        instance = self.instances.get(name)
        if instance is None:
            raise KernelError(ENOENT, f"there is no instance {name}")
        if instance.opened:
            raise KernelError(EBUSY, f"{instance.opened} files of instance {name} are open")
        for option in (PRINTK_DEST, COPY_MARKER):
            if instance.options[option]:
                instance.set_option(option, False)
        del self.instances[name]
        instance.close()
        self.kernel.bus.emit(Changed((self,)))

    def close(self) -> None:
        """Detach every event of every instance: another kernel takes over."""
        for instance in self.every_instance():
            instance.close()

    def grow(self, cpus: int) -> None:
        """Give every instance the buffers of this many CPUs: an event came from a further one."""
        if cpus > MAX_CPUS:
            raise ValueError(f"no machine has {cpus} CPUs")
        self.shared.cpus = cpus
        for instance in self.every_instance():
            instance.grow(cpus)
        self.kernel.bus.emit(Changed(tuple(self.every_instance())))

    # Options.

    def check_option(self, instance: Instance, name: str, on: bool) -> None:
        """Refuse a change that the whole of tracing does not allow.

        Raises EINVAL: some instance must take what trace_printk() writes, and the tracer nop has
        an option that it refuses.
        """
        if name == NOP_REFUSE:
            raise KernelError(EINVAL, "the tracer nop refuses this option")
        if name == PRINTK_DEST and not on and instance is self.top:
            raise KernelError(EINVAL, "another instance must take what trace_printk() writes")

    def option_changed(self, instance: Instance, name: str, on: bool) -> None:
        """Follow an option of the whole machine, or one that only some instances can have."""
        if name == "record-cmd":
            self.shared.cmdlines.record_cmd = on
        elif name == "record-tgid":
            self.shared.cmdlines.record_tgid = on
        elif name == PRINTK_DEST:
            self._set_printk_destination(instance if on else self.top)
        elif name == NOP_ACCEPT:
            for other in self.every_instance():
                other.options.switch(name, on)
        elif name == BLK_CLASSIC:
            instance.options.switch("context-info", not on)
        elif name == COPY_MARKER:
            others = [other for other in self.marker_copies if other is not instance]
            self.marker_copies = [instance, *others] if on else others
        self.update_watch()

    def marker_receivers(self, instance: Instance) -> list[Instance]:
        """Return the instances that record a marker written to this one.

        Raises ENODEV if none takes the markers of the top directory.
        Like kernel/trace/trace.c:tracing_mark_write (v6.18).
        """
        if instance is not self.top:
            return [instance]
        if not self.marker_copies:
            raise KernelError(ENODEV, "the option copy_trace_marker is off everywhere")
        return list(self.marker_copies)

    def _set_printk_destination(self, chosen: Instance) -> None:
        for instance in self.every_instance():
            if PRINTK_DEST in instance.options.names():
                instance.options.switch(PRINTK_DEST, instance is chosen)

    # Events.

    def attach(self, file: EventFile) -> None:
        """Send the event to this file from now on."""
        self.listeners.add(file)
        self.update_watch()

    def detach(self, file: EventFile) -> None:
        """Stop sending the event to this file."""
        self.listeners.remove(file)
        self.update_watch()

    @property
    def hears_anything(self) -> bool:
        """Is any event recorded or needed in any instance?"""
        return bool(self.listeners)

    def is_enabled(self, form: EventFormat) -> bool:
        """Return whether any instance records an event or counts it."""
        known = (instance.known_file(form) for instance in self.every_instance())
        return any(file is not None and file.enabled for file in known)

    def appeared(self) -> None:
        """Follow a new event."""
        self.kernel.bus.emit(Changed(tuple(self.every_instance()), deep=True))

    def vanished(self, form: EventFormat) -> None:
        """Forget an event, with what is recorded of it."""
        for instance in self.every_instance():
            instance.forget(form)
        self.appeared()

    def next_serial(self) -> int:
        """Return a number for a new histogram."""
        self._serial += 1
        return self._serial

    # Clients.

    def update_watch(self) -> None:
        """Watch the requests of clients only while an event or a list of pids depends on them.

        The same for the tasks on the CPUs.
        """
        self._update_scheduler()
        wanted = not self.kernel.bus.wanted.isdisjoint(_OF_CLIENTS) or any(
            instance.follows_forks for instance in self.every_instance()
        )
        if wanted and self.kernel.on_request is None:
            self.watch.begin(self.kernel.caller.pid)
        self.kernel.on_request = self.watch.on_request if wanted else None

    def _update_scheduler(self) -> None:
        bus = self.kernel.bus
        if bus.wanted.isdisjoint(_OF_SCHEDULER):
            bus.scheduler = None
            self.watch.queues.clear()
        else:
            bus.scheduler = self.watch.queues

    def forked(self, parent: int, child: int) -> None:
        """Put the child of a client on the lists of pids that the client is on."""
        for instance in self.every_instance():
            if instance.follows_forks:
                instance.forked(parent, child)

    def exited(self, pid: int) -> None:
        """Take a client that has ended off the lists of pids."""
        for instance in self.every_instance():
            if instance.follows_forks:
                instance.exited(pid)
