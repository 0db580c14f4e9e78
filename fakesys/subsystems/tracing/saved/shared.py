"""What all instances have in common: clocks, names of tasks, and the watch of clients."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from fakesys.core.events import Task
from fakesys.core.saved import Natural, Saved, check
from fakesys.subsystems.tracing.base.clocks import Clocks
from fakesys.subsystems.tracing.base.saved_cmdlines import COMM_LENGTH, LARGEST, SavedCmdlines
from fakesys.subsystems.tracing.instances.run_queues import RunQueues
from fakesys.subsystems.tracing.instances.shared import Shared
from fakesys.subsystems.tracing.instances.task_watch import REMEMBERED, TaskWatch
from fakesys.subsystems.tracing.saved.values import Comm, Cpu, Pid

# Stamps are ahead of simulated time by one nanosecond per event of one moment at most: an hour of
# events is more than any machine has recorded.
MOST_AHEAD_NS = 3600 * 1_000_000_000
# Far more events than there can be, so that the number can go on from here and be saved again.
MOST_COUNTED = 1 << 62


class SavedClient(Saved, frozen=True):
    """A client of the mount: its name, and `Processes.reaped` of the last time."""

    pid: Pid
    comm: Comm
    reaped: Natural | None


class SavedWatch(Saved, frozen=True):
    """The clients that are known, oldest first, and the one that ran last."""

    known: Annotated[tuple[SavedClient, ...], Meta(max_length=REMEMBERED)]
    last_pid: Pid
    last_comm: Comm


class SavedQueues(Saved, frozen=True):
    """The tasks on the CPUs: number of the CPU, pid, comm and thread group; see `RunQueues`."""

    current: tuple[tuple[Cpu, Pid, Comm, Pid], ...] = ()
    waiting: tuple[Pid, ...] = ()
    runnable: tuple[Pid, ...] = ()


class SavedTasks(Saved, frozen=True):
    """Names and thread groups of tasks: pairs of pid and comm, oldest first; of pid and tgid."""

    size: Annotated[int, Meta(ge=1, le=LARGEST)]
    record_cmd: bool
    record_tgid: bool
    comms: tuple[tuple[Pid, Comm], ...]
    tgids: tuple[tuple[Pid, Pid], ...]


class SavedShared(Saved, frozen=True):
    """The state that no instance owns. `last_ns`: the newest stamp. `counted`: of `counter`."""

    last_ns: Annotated[int, Meta(ge=-1, le=(1 << 63) - 1)]
    counted: Annotated[int, Meta(ge=0, le=MOST_COUNTED)]
    tasks: SavedTasks
    watch: SavedWatch
    queues: SavedQueues


def save_shared(shared: Shared, watch: TaskWatch) -> SavedShared:
    """Return what the instances have in common as plain values."""
    names = shared.cmdlines
    return SavedShared(
        last_ns=shared.clocks.last_ns,
        counted=shared.clocks.events,
        tasks=SavedTasks(
            size=names.size,
            record_cmd=names.record_cmd,
            record_tgid=names.record_tgid,
            comms=tuple(names.comms.items()),
            tgids=tuple(names.tgids.items()),
        ),
        watch=_save_watch(watch),
        queues=_save_queues(watch.queues),
    )


def restore_shared(saved: SavedShared, shared: Shared, watch: TaskWatch) -> None:
    """Set clocks, names and watch. Raises BadSnapshotError.

    Precondition: nothing reads a clock or begins to watch afterwards.
    """
    _restore_clocks(saved, shared.clocks, shared.kernel.clock.now_ns)
    _restore_tasks(saved.tasks, shared.cmdlines)
    _restore_watch(saved.watch, watch)
    _restore_queues(saved.queues, watch.queues)


def _save_watch(watch: TaskWatch) -> SavedWatch:
    return SavedWatch(
        known=tuple(
            SavedClient(pid=pid, comm=comm, reaped=watch.reaped.get(pid))
            for pid, comm in watch.known.items()
        ),
        last_pid=watch.last.pid,
        last_comm=watch.last.comm,
    )


def _save_queues(queues: RunQueues) -> SavedQueues:
    return SavedQueues(
        current=tuple(
            (cpu, task.pid, task.comm, task.group) for cpu, task in queues.current.items()
        ),
        waiting=tuple(sorted(queues.waiting)),
        runnable=tuple(sorted(queues.runnable)),
    )


def _restore_queues(saved: SavedQueues, queues: RunQueues) -> None:
    for cpu, pid, comm, group in saved.current:
        check(cpu not in queues.current, f"CPU {cpu} runs two tasks")
        queues.current[cpu] = Task(pid, comm, cpu, group)
    queues.waiting.update(saved.waiting)
    queues.runnable.update(saved.runnable)


def _restore_clocks(saved: SavedShared, clocks: Clocks, now_ns: int) -> None:
    check(saved.last_ns <= now_ns + MOST_AHEAD_NS, "an event is of a time that is still to come")
    clocks.last_ns, clocks.events = saved.last_ns, saved.counted


def _restore_tasks(saved: SavedTasks, names: SavedCmdlines) -> None:
    names.size = saved.size
    names.record_cmd, names.record_tgid = saved.record_cmd, saved.record_tgid
    names.comms.update(saved.comms)
    names.tgids.update(saved.tgids)
    check(len(names.comms) == len(saved.comms), "a pid has two names")
    check(len(names.tgids) == len(saved.tgids), "a pid is in two thread groups")
    check(len(names.comms) <= names.size, "more names are saved than there may be")
    check(0 not in names.comms and 0 not in names.tgids, "pid 0 has a name")
    for comm in names.comms.values():
        check(len(comm) <= COMM_LENGTH, f"the name {comm!r} is too long")


def _restore_watch(saved: SavedWatch, watch: TaskWatch) -> None:
    watch.known.clear()
    watch.reaped.clear()
    for client in saved.known:
        check(client.pid not in watch.known, f"client {client.pid} is there twice")
        watch.known[client.pid] = client.comm
        if client.reaped is not None:
            watch.reaped[client.pid] = client.reaped
    watch.last = Task(saved.last_pid, saved.last_comm, 0)
