"""The process behind a mount: started, made ready, served, ended.

It never touches its own mount: its working directory is /, and unmounting runs in a thread.
"""

from __future__ import annotations

import logging
import os
import secrets
import signal
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Protocol

import trio
from msgspec import Struct

from fakesys.daemon import registry
from fakesys.machine.machine import Machine
from fakesys.transport import collecting, mounting, processes
from fakesys.transport.fuse import server as native
from fakesys.transport.mounting import Busy, MountError
from fakesys.transport.owners import Owners
from fakesys.transport.watchdog import Watchdog

_log = logging.getLogger(__name__)
READY = b"ready\n"
_END_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Server(Protocol):
    """A transport at work."""

    @property
    def served(self) -> int:
        """Requests so far."""

    def settle(self) -> None:
        """Something happened without a request: tell the clients."""

    def hurry(self) -> None:
        """End soon what keeps other requests waiting: the daemon is to end. For signal handlers."""

    async def run(self, started: Callable[[], None]) -> None:
        """Serve until the mount is gone. Raises MountError when there never was one."""


class Service(Struct, frozen=True, kw_only=True):
    """How to serve one machine on one mount point."""

    point: Path
    transport: str = "native"
    allow_other: bool = False
    # Names are invalidated by epoch where the kernel can, else one by one.
    by_epoch: bool = True
    # Seconds after which a request that lets no other one in is ended with EIO.
    request_timeout: float = 30.0
    log_level: str = "WARNING"
    log_file: Path | None = None
    ready_fd: int | None = None
    # The daemon ends when this descriptor becomes readable: a pidfd does with its process.
    lives_with: int | None = None
    # A task beside the server, in its loop, from when every file answers.
    beside: Callable[[Machine, Server], Awaitable[None]] | None = None


def run(machine: Machine, service: Service) -> None:
    """Serve in this process until unmounted, SIGINT, SIGTERM or SIGHUP. Raises MountError."""
    instance = secrets.token_hex(4)
    _log_to(service.log_file, service.log_level)
    _serve(machine, service, instance, lambda: None)
    if service.transport == "fusepy":
        # While a process holds a file of the old mount, threads of libfuse wait: end them too.
        logging.shutdown()
        os._exit(0)


def _log_to(path: Path | None, level: str) -> None:
    """Log to a file, or to standard error."""
    form = "%(asctime)s %(levelname)s %(name)s: %(message)s"
    if path is None:
        logging.basicConfig(level=level, format=form)
    else:
        logging.basicConfig(filename=path, level=level, format=form)


def serve_in_background(machine: Machine, service: Service, ready: Callable[[], None]) -> None:
    """Serve in a process without a terminal until unmounted. Raises MountError.

    `ready` is called once every file answers.
    """
    instance = secrets.token_hex(4)
    registry.sweep()
    log = registry.log_path(instance)
    with log.open("ab") as held:
        registry.hold(held.fileno())
        _log_to(service.log_file or log, service.log_level)
        try:
            _serve(machine, service, instance, ready)
        finally:
            if log.exists() and log.stat().st_size == 0:
                log.unlink()


def _serve(machine: Machine, service: Service, instance: str, ready: Callable[[], None]) -> None:
    def started() -> None:
        try:
            registry.write(_entry(machine, service, instance))
        except OSError as error:
            raise MountError(f"cannot keep a record of the mount: {error}") from None
        if service.ready_fd is not None:
            os.write(service.ready_fd, READY)
            os.close(service.ready_fd)
        try:
            ready()
        except OSError:
            raise MountError("the command that started this mount has ended") from None

    transport = _by_fusepy if service.transport == "fusepy" else _natively
    try:
        with transport(machine, service, instance) as server:
            machine.subsystems.kvm.kvm.forked()
            machine.fs.served = True
            machine.control.requests_served = lambda: server.served
            _schedule(machine)
            collecting.keep_what_exists()
            collecting.leave_to_idle_time()
            collecting.keep_one_heap()
            trio.run(_serve_until_unmounted, machine, server, service, started)
    except BaseExceptionGroup as group:
        # Nurseries were around it.
        raise _mount_error_in(group) or group from None
    finally:
        _clear(service.point, instance)
        registry.remove(instance)


def _clear(point: Path, instance: str) -> None:
    """Unmount what an aborted connection has left behind."""
    mount = mounting.find(point)
    if mount is not None and mount.instance == instance:
        with suppress(MountError):
            mounting.unmount(point, lazy=True)


@contextmanager
def _natively(machine: Machine, service: Service, instance: str) -> Iterator[Server]:
    device = mounting.mount(service.point, instance, allow_other=service.allow_other)
    try:
        owner = os.geteuid(), os.getegid()
        yield native.Server(
            machine,
            device,
            by_epoch=service.by_epoch,
            owner=owner,
            watchdog=Watchdog(service.request_timeout),
        )
    finally:
        os.close(device)


@contextmanager
def _by_fusepy(machine: Machine, service: Service, instance: str) -> Iterator[Server]:
    from fakesys.transport.fusepy import server as libfuse

    owner = os.geteuid(), os.getegid()
    yield libfuse.Server(
        machine,
        service.point,
        instance,
        allow_other=service.allow_other,
        owner=owner,
        watchdog=Watchdog(service.request_timeout),
    )


def _mount_error_in(group: BaseExceptionGroup) -> MountError | None:
    """Return the reason why nothing was mounted, if nothing else happened."""
    mount_errors, others = group.split(MountError)
    if mount_errors is None or others is not None:
        return None
    error: BaseException = mount_errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error if isinstance(error, MountError) else None


def _schedule(machine: Machine) -> None:
    """Put the dated steps of the scenario on the clock."""
    if machine.scenario.at or machine.scenario.expect:
        from fakesys.machine.timeline import Timeline, log

        Timeline(machine, log).schedule()


def _entry(machine: Machine, service: Service, instance: str) -> registry.MountEntry:
    return registry.MountEntry(
        point=str(service.point),
        pid=os.getpid(),
        start_time=processes.start_time(os.getpid()),
        started=time.time(),
        instance=instance,
        profile=machine.profile_name,
        scenario=machine.scenario.name,
        transport=service.transport,
        log_file=str(service.log_file or registry.log_path(instance)),
    )


async def _serve_until_unmounted(
    machine: Machine, server: Server, service: Service, started: Callable[[], None]
) -> None:
    async with trio.open_nursery() as nursery:
        machine.watch_owners(Owners(nursery, server.settle, machine.bug).watch)
        await nursery.start(_leave_on_signal, server, service.point, nursery.cancel_scope)
        if service.lives_with is not None:
            nursery.start_soon(_leave_with, service, nursery.cancel_scope)

        def loading() -> None:
            started()
            nursery.start_soon(_load, machine)
            if service.beside is not None:
                nursery.start_soon(service.beside, machine, server)

        await server.run(loading)
        nursery.cancel_scope.cancel()


async def _load(machine: Machine) -> None:
    """Import what only VMs need, beside the first requests."""
    try:
        for _ in machine.subsystems.kvm.load():
            await trio.lowlevel.checkpoint()
    except ImportError:
        # The first VM tries once more; without one all else works.
        _log.exception("a part of KVM cannot be imported")
    collecting.keep_what_exists()


async def _leave_on_signal(
    server: Server,
    point: Path,
    scope: trio.CancelScope,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    with trio.open_signal_receiver(*_END_SIGNALS) as signals:
        for number in _END_SIGNALS:
            _call_too(number, server.hurry)
        task_status.started()
        async for _ in signals:
            # In a thread: the kernel asks this very process while it unmounts.
            if not await trio.to_thread.run_sync(_unmount, point):
                scope.cancel()


def _call_too(number: int, action: Callable[[], None]) -> None:
    """Call `action` at once when a signal comes, while the loop may be kept waiting."""
    handler = signal.getsignal(number)
    assert callable(handler)

    def both(number: int, frame: FrameType | None) -> None:
        action()
        handler(number, frame)

    signal.signal(number, both)


async def _leave_with(service: Service, scope: trio.CancelScope) -> None:
    assert service.lives_with is not None
    await trio.lowlevel.wait_readable(service.lives_with)
    await trio.to_thread.run_sync(_unmount, service.point)
    scope.cancel()


def _unmount(point: Path) -> bool:
    """Unmount, lazily while it is in use; return False then, as the connection does not end."""
    try:
        mounting.unmount(point)
    except Busy:
        with suppress(MountError):
            mounting.unmount(point, lazy=True)
        return False
    except MountError as error:
        _log.warning("%s", error)
        return False
    return True
