"""One mount's talk with the kernel: a request in, a step of the machine, an answer out.

Knows no loop: `native.py` calls `step` for each request and `settle` after time has passed.
Every request gets exactly one answer, whatever happens.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from errno import EINTR, EIO, ENODATA, ENODEV, ENOSYS, EOPNOTSUPP, EPROTO
from typing import NamedTuple, Protocol

from fakesys.core.clock import Clock
from fakesys.core.errors import Blocked, KernelError, Waiters
from fakesys.core.kernel import MACHINE, Caller, Kernel
from fakesys.transport.fuse import protocol
from fakesys.transport.fuse.files import Files
from fakesys.transport.fuse.invalidation import Invalidator
from fakesys.transport.fuse.names import Handler, Names
from fakesys.transport.fuse.nodes import NodeTable
from fakesys.transport.fuse.protocol import Message, Op
from fakesys.transport.fuse.replies import Replies, client_errno
from fakesys.tree.filesystem import FileSystem

_log = logging.getLogger(__name__)
BUFFER_SIZE = protocol.MAX_WRITE + 4096
ANSWER_SIZE = protocol.OUT_HEADER.size
XATTR_NAME = protocol.XATTR_IN.size
SECURITY_NAME = XATTR_NAME + len("security.")
# Looked up once: these run for every request.
_write = os.write
_CALLER = protocol.CALLER
_unpack_header = protocol.IN_HEADER.unpack_from
_pack_header = protocol.OUT_HEADER.pack


class ServedMachine(Protocol):
    """What a transport must know of a machine."""

    @property
    def fs(self) -> FileSystem:
        """The system calls on its tree."""

    @property
    def kernel(self) -> Kernel:
        """The kernel as it is now; a reset makes another one."""

    @property
    def clock(self) -> Clock:
        """The time of the present kernel."""

    def bug(self, error: BaseException) -> None:
        """Keep an internal error."""


class Call(NamedTuple):
    """One request, kept whole so that it can be repeated after waiting."""

    unique: int
    handler: Handler
    nodeid: int
    message: bytes


class Parked(NamedTuple):
    """A call that waits, and where it waits."""

    call: Call
    waiters: Waiters
    caller: Caller


class Session:
    """Requests in, answers out.

    `by_epoch`: may names be invalidated by epoch where the kernel knows it? `run_soon` hands a
    callable from the notifier thread to the thread of this session.
    """

    def __init__(
        self,
        machine: ServedMachine,
        device: int,
        *,
        run_soon: Callable[[Callable[[], None]], None],
        by_epoch: bool = True,
        owner: tuple[int, int] = (0, 0),
    ) -> None:
        self._machine = machine
        self._device = device
        self._run_soon = run_soon
        self._by_epoch = by_epoch
        self.buffer = bytearray(BUFFER_SIZE)
        self.served = 0
        self.started = False
        self._binder = machine.fs.binder
        self._kernel = machine.kernel
        # uid, gid and pid of the last request, and what the machine sees of them.
        self._ids: Message = b""
        self._caller = MACHINE
        self._parked: dict[int, Parked] = {}
        self._ready: list[int] = []
        self._polls: list[int] = []
        # Steps of which the notifier thread has not yet told all clients.
        self._untold = 0
        self._told = Waiters()
        nodes = self._nodes = NodeTable(machine.fs.root)
        pack = Replies(*owner)
        names = Names(machine.fs, nodes, pack)
        self._xattrs = names.xattrs
        self.invalidator = Invalidator(device, nodes, by_epoch=by_epoch)
        self._files = Files(machine.fs, nodes, pack, self._polls.append)
        # Handlers that read their request in place, and those that need it cut to its length.
        self._fixed = dict(self._files.fixed())
        self._sized: dict[int, Handler] = {
            **names.handlers(),
            Op.INIT: self._init,
            Op.DESTROY: self._destroy,
        }
        self._silent = {**names.silent(), Op.INTERRUPT: self._interrupt}
        # No caller of these holds the lock of a directory while it waits for the answer.
        self._lockless = {self._fixed[op] for op in (Op.OPEN, Op.READ, Op.WRITE, Op.RELEASE)}

    def step(self, length: int) -> None:
        """Serve the request in the first `length` bytes of `buffer`."""
        message: Message = self.buffer
        opcode, unique, nodeid = _unpack_header(message)
        ids = message[_CALLER]
        if ids != self._ids:
            self._ids = ids
            uid, gid, pid = protocol.CALLER_IN.unpack(ids)
            self._caller = Caller(pid, uid, gid)
        self.served += 1
        self._machine.kernel.caller = self._caller
        handler = self._fixed.get(opcode)
        if handler is not None:
            self._perform(unique, handler, nodeid, message)
        else:
            self._step_sized(opcode, unique, nodeid, bytes(message[:length]))
        if self._ready or self._polls:
            self._wake()

    def _step_sized(self, opcode: int, unique: int, nodeid: int, message: bytes) -> None:
        """Serve a request that is no call on an open file."""
        if opcode == Op.GETXATTR and message.startswith(b"security.", XATTR_NAME):
            errno = self._no_label(nodeid, message)
            if errno:
                self._send(_refusal(unique, errno))
                return
        silent = self._silent.get(opcode)
        if silent is not None:
            silent(nodeid, message)
            return
        self._perform(unique, self._sized.get(opcode, _unknown), nodeid, message)

    def _no_label(self, nodeid: int, message: bytes) -> int:
        """The errno for an attribute of the security name space, 0 if there may be some."""
        if message.startswith(b"selinux\0", SECURITY_NAME):
            # `ls -l` looks for it at each name. After this answer the kernel says EOPNOTSUPP by
            # itself for any attribute: a thousand requests less, for xattrs that nobody reads.
            return ENOSYS
        if self._xattrs:
            return 0
        # The kernel asks for the capability at each O_TRUNC.
        return ENODATA if self._nodes[nodeid].kind.xattrs else EOPNOTSUPP

    def settle(self) -> None:
        """After something happened without a request: tell clients, wake who waited."""
        if self._binder.unsettled:
            self._tell(None)
        self._wake()

    def close(self) -> None:
        """The mount is gone: end what waits and let go of every open file."""
        for unique in list(self._parked):
            self._end_parked(unique, ENODEV)
        self._files.close_all()
        self.invalidator.stop()

    def _perform(self, unique: int, handler: Handler, nodeid: int, message: Message) -> None:
        answer: bytes | None
        kernel = self._machine.kernel
        try:
            if kernel.on_request is not None:
                kernel.on_request(kernel.caller)
            data = handler(nodeid, message)
            answer = _pack_header(ANSWER_SIZE + len(data), 0, unique) + data
        except Blocked as blocked:
            whole = bytes(message[: protocol.length_of(message)])
            self._park(Call(unique, handler, nodeid, whole), blocked.waiters)
            answer = None
        except KernelError as refusal:
            answer = _refusal(unique, client_errno(refusal))
        except BaseException as error:
            _log.exception("internal error in %s", handler)
            self._machine.bug(error)
            answer = _refusal(unique, EIO)
        if self._binder.unsettled:
            self._answer_and_tell(handler, answer)
        elif answer is not None:
            try:
                _write(self._device, answer)
            except OSError as error:
                _not_taken(error)

    def _answer_and_tell(self, handler: Handler, answer: bytes | None) -> None:
        """Tell clients before the answer goes out, except to one who holds a directory's lock."""
        if answer is not None and handler not in self._lockless:
            self._send(answer)
            answer = None
        self._tell(answer)

    def _tell(self, answer: bytes | None) -> None:
        """Make clients forget what is wrong now, then send the answer of what caused it."""
        if self._kernel is not self._machine.kernel:
            # Whoever waits for something of the machine before would wait for ever.
            self._kernel = self._machine.kernel
            self._ready.extend(self._parked)
            self._files.wake_pollers()
        locking = self.invalidator.tell(self._machine.fs.settle())
        if not locking:
            if answer is not None:
                self._send(answer)
            return
        ready, polls = self._ready[:], self._polls[:]
        self._ready.clear()
        self._polls.clear()
        self._untold += 1
        self._files.unsettled = self._told

        def all_told() -> None:
            if answer is not None:
                self._send(answer)
            self._run_soon(lambda: self._after_telling(ready, polls))

        self.invalidator.later(locking, all_told)

    def _after_telling(self, ready: list[int], polls: list[int]) -> None:
        self._untold -= 1
        if not self._untold:
            self._files.unsettled = None
            self._told.wake()
        self._ready.extend(ready)
        self._polls.extend(polls)
        self._wake()

    def _send(self, answer: bytes) -> None:
        try:
            _write(self._device, answer)
        except OSError as error:
            _not_taken(error)

    def _wake(self) -> None:
        while self._ready or self._polls:
            for kernel_handle in self._polls:
                self.invalidator.send(protocol.pack_poll_wakeup(kernel_handle))
            self._polls.clear()
            ready, self._ready[:] = self._ready[:], []
            for unique in ready:
                parked = self._parked.pop(unique, None)
                if parked is not None:
                    self._machine.kernel.caller = self._caller = parked.caller
                    self._ids = b""
                    self._perform(*parked.call)

    def _park(self, call: Call, waiters: Waiters) -> None:
        unique = call.unique
        self._parked[unique] = Parked(call, waiters, self._caller)
        waiters.add(("request", unique), lambda: self._ready.append(unique))

    def _end_parked(self, unique: int, errno: int) -> None:
        parked = self._parked.pop(unique, None)
        if parked is None:
            return
        parked.waiters.discard(("request", unique))
        self._send(_refusal(unique, errno))

    def _interrupt(self, _nodeid: int, message: Message) -> None:
        # Unknown requests were answered in the meantime.
        self._end_parked(protocol.INTERRUPT_IN.unpack_from(message)[0], EINTR)

    def _init(self, _nodeid: int, message: Message) -> bytes:
        offer = protocol.unpack_init(message)
        if offer.major > protocol.MAJOR:
            return protocol.pack_version_only()
        if offer.major < protocol.MAJOR or offer.minor < protocol.OLDEST_MINOR:
            _log.error("the kernel speaks FUSE %d.%d, too old", offer.major, offer.minor)
            raise KernelError(EPROTO, f"FUSE {offer.major}.{offer.minor} is too old")
        self.invalidator.by_epoch = self._by_epoch and offer.minor >= protocol.EPOCH_MINOR
        self.started = True
        return protocol.pack_init(offer)

    def _destroy(self, _nodeid: int, _message: Message) -> bytes:
        return b""


def _not_taken(error: OSError) -> None:
    # ENOENT: the request was aborted. ENODEV: the mount is gone.
    _log.debug("answer not taken: %s", error)


def _unknown(_nodeid: int, _message: Message) -> bytes:
    # FLUSH among others: the kernel does not ask again.
    raise KernelError(ENOSYS, "not a request of this file system")


def _refusal(unique: int, errno: int) -> bytes:
    return _pack_header(ANSWER_SIZE, -errno, unique)
