"""The tracing subsystem: which events exist, the instances, and who hears what.

An event type is on the bus's wanted list only while some instance records or needs it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from errno import EBUSY, EEXIST, EINVAL, ENOENT
from functools import partial

from fakesys.core.errors import KernelError
from fakesys.core.event_format import EventFormat, event_format
from fakesys.core.events import Changed, Task
from fakesys.core.features import FeatureSet
from fakesys.core.kernel import Kernel
from fakesys.core.tracepoint import Tracepoint
from fakesys.subsystems.tracing.base.clocks import Clocks
from fakesys.subsystems.tracing.base.options import NOP_ACCEPT, NOP_REFUSE
from fakesys.subsystems.tracing.base.policy import Build
from fakesys.subsystems.tracing.base.saved_cmdlines import Cmdlines
from fakesys.subsystems.tracing.events.ftrace import PRINT_ID, STACK_ID, KernelStack, Print, RawData
from fakesys.subsystems.tracing.events.host import EVENTS as HOST_EVENTS
from fakesys.subsystems.tracing.filter.filters import Dialect
from fakesys.subsystems.tracing.instances.event_file import EventFile
from fakesys.subsystems.tracing.instances.instance import Instance
from fakesys.subsystems.tracing.instances.task_watch import Processes, TaskWatch

# The system of what is recorded otherwise than by being enabled.
FTRACE = "ftrace"
PRINTK_DEST, COPY_MARKER = "trace_printk_dest", "copy_trace_marker"
MAX_CPUS = 4096


class Tracing:
    """All of `sys/kernel/tracing`.

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
        self.kernel = kernel
        self.build = build
        self.cpus = cpus
        self.processes = processes
        self.watch = TaskWatch(kernel, processes, self._family_changed)
        self.clocks = Clocks(kernel.clock)
        self.cmdlines = Cmdlines(build.cmdlines)
        self.record_cmd = True
        self.record_tgid = False
        self.events = _bind_all(classes, build.first_id, features)
        self.print = _bind_one(Print, PRINT_ID)
        self.raw_data = _bind_one(RawData, build.raw_data_id)
        self.stack = _bind_one(KernelStack, STACK_ID)
        self.ftrace = (self.print, self.stack, self.raw_data)
        everything = (*self.events, *self.ftrace)
        self.by_id = {form.id: form for form in everything}
        self.by_name = {form.name: form for form in everything}
        self.rank = {form.name: index for index, form in enumerate(everything)}
        self.systems: dict[str, dict[str, EventFormat]] = {}
        for form in self.events:
            self.systems.setdefault(form.system, {})[form.event] = form
        self.top_or_none: Instance | None = None
        self.top = self.top_or_none = Instance(self)
        self.instances: dict[str, Instance] = {}
        # Where markers of the top directory go, newest first: by default only there.
        self.marker_copies: list[Instance] = [self.top]
        self._heard: dict[type[Tracepoint], tuple[EventFile, ...]] = {}
        self._unsubscribe: dict[type[Tracepoint], Callable[[], None]] = {}

    def make_instance(self, name: str) -> None:
        """`mkdir instances/NAME`. Raises EEXIST."""
        if name in self.instances:
            raise KernelError(EEXIST, f"instance {name} exists")
        self.instances[name] = Instance(self, name)
        self.kernel.bus.emit(Changed((self,)))

    def remove_instance(self, name: str) -> None:
        """`rmdir instances/NAME`. Raises ENOENT, EBUSY while a file of it is open."""
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
        """Hear of nothing any more."""
        for instance in self.every_instance():
            instance.close()

    def every_instance(self) -> list[Instance]:
        """The top directory and all others."""
        return [self.top, *self.instances.values()]

    @property
    def dialect(self) -> Dialect:
        """What filters can say here."""
        build = self.build
        return Dialect(
            cpus=self.cpus if build.cpu_filters else 0,
            open_ended=build.open_filters,
            functions=build.function_filters,
        )

    def find(self, system: str, event: str) -> EventFormat:
        """The event of this name, for a trigger to switch. Raises EINVAL."""
        form = self.by_name.get(f"{system}:{event}")
        if form is None or system == FTRACE:
            raise KernelError(EINVAL, f"there is no event {system}:{event}")
        return form

    def grow(self, cpus: int) -> None:
        """An event came from a CPU without buffers: each instance gets more."""
        if cpus > MAX_CPUS:
            raise ValueError(f"no machine has {cpus} CPUs")
        self.cpus = cpus
        for instance in self.every_instance():
            instance.grow(cpus)
        self.kernel.bus.emit(Changed(tuple(self.every_instance())))

    def check_option(self, instance: Instance, name: str, on: bool) -> None:
        """May the switch be changed? Raises EINVAL: trace_printk() must go somewhere, and there
        is an option that the tracer nop refuses.
        """
        if name == NOP_REFUSE:
            raise KernelError(EINVAL, "the tracer nop refuses this option")
        if name == PRINTK_DEST and not on and instance is self.top:
            raise KernelError(EINVAL, "another instance must take what trace_printk() writes")

    def option_changed(self, instance: Instance, name: str, on: bool) -> None:
        """Some options belong to the whole machine, or to one instance at a time."""
        if name == "record-cmd":
            self.record_cmd = on
        elif name == "record-tgid":
            self.record_tgid = on
        elif name == PRINTK_DEST:
            self._printk_goes_to(instance if on else self.top)
        elif name == NOP_ACCEPT:
            for other in self.every_instance():
                other.options.switch(name, on)
        elif name == COPY_MARKER:
            self.marker_copies = [other for other in self.marker_copies if other is not instance]
            if on:
                self.marker_copies.insert(0, instance)
        self.update_watch()

    def _printk_goes_to(self, chosen: Instance) -> None:
        for instance in self.every_instance():
            if PRINTK_DEST in instance.options.names():
                instance.options.switch(PRINTK_DEST, instance is chosen)

    def attach(self, file: EventFile) -> None:
        """From now on this event file hears of its event."""
        cls = file.form.cls
        file.instance.expand()
        heard = self._heard.get(cls, ())
        self._heard[cls] = (*heard, file)
        if not heard and file.form.system != FTRACE:
            self._unsubscribe[cls] = self.kernel.bus.subscribe(cls, partial(self._hear, cls))
        self.update_watch()

    def detach(self, file: EventFile) -> None:
        """This event file needs its event no longer."""
        cls = file.form.cls
        left = tuple(other for other in self._heard[cls] if other is not file)
        self._heard[cls] = left
        if not left and cls in self._unsubscribe:
            self._unsubscribe.pop(cls)()
        self.update_watch()

    @property
    def hears_anything(self) -> bool:
        """Is any event recorded or needed anywhere?"""
        return bool(self._unsubscribe)

    def learn(self, task: Task) -> None:
        """Remember name and thread group of a task, as the options ask."""
        if self.record_cmd:
            self.cmdlines.save(task.pid, task.comm)
        if self.record_tgid:
            self.cmdlines.save_tgid(task.pid, task.tgid)

    def client_task(self) -> Task:
        """The process behind the present system call, as a task on CPU 0."""
        pid = self.kernel.caller.pid
        return Task(pid, self.processes.comm(pid), 0)

    def update_watch(self) -> None:
        """Look at the clients' requests only while somebody wants to hear of them."""
        wanted = not self.kernel.bus.wanted.isdisjoint(HOST_EVENTS) or any(
            instance.follows_forks for instance in self.every_instance()
        )
        if wanted and self.kernel.on_request is None:
            self.watch.begin(self.kernel.caller.pid)
        self.kernel.on_request = self.watch.on_request if wanted else None

    def _family_changed(self, pid: int, child: int | None) -> None:
        for instance in self.every_instance():
            if instance.follows_forks:
                instance.family_changed(pid, child)

    def _hear(self, cls: type[Tracepoint], event: Tracepoint) -> None:
        task = self.kernel.bus.task
        for file in self._heard[cls]:
            file.handle(event, task)


def _bind_all(
    classes: Iterable[type[Tracepoint]], first_id: int, features: FeatureSet
) -> tuple[EventFormat, ...]:
    found: list[EventFormat] = []
    for cls in classes:
        form = event_format(cls, first_id + len(found), features)
        if form is not None:
            found.append(form)
    return tuple(found)


def _bind_one(cls: type[Tracepoint], number: int) -> EventFormat:
    form = event_format(cls, number, frozenset())
    assert form is not None
    return form
