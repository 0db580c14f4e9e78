"""One mount's conversation with the kernel: a request in, a step of the machine, an answer out.

Knows no loop: `fakesys.transport.fuse.server` calls `step` for each request and `settle` after
time has passed. Every request gets exactly one answer, also after an internal error (EIO).
"""

from __future__ import annotations

import itertools
import logging
import os
import threading
from collections.abc import Callable
from errno import EINTR, EIO, ENODEV, ENOSYS

from fakesys.core.errors import Blocked, KernelError
from fakesys.core.events import IDLE
from fakesys.core.kernel import MACHINE, Caller
from fakesys.core.scheduling.resched import TakesLong, state
from fakesys.transport.conversions import client_errno
from fakesys.transport.fuse import protocol
from fakesys.transport.fuse.files import Files
from fakesys.transport.fuse.handlers import Handler, SilentHandler
from fakesys.transport.fuse.handshake import Handshake
from fakesys.transport.fuse.invalidation import Invalidator, Unsettled
from fakesys.transport.fuse.long_requests import LongRequests
from fakesys.transport.fuse.names import Names
from fakesys.transport.fuse.nodes import NodeTable, Writers
from fakesys.transport.fuse.parking import Call, ParkedCalls, Wakeups
from fakesys.transport.fuse.protocol import Message, Op
from fakesys.transport.fuse.replies import Replies
from fakesys.transport.fuse.splice import Splicing
from fakesys.transport.served import ServedMachine
from fakesys.transport.slices import Context, LongCalls
from fakesys.transport.watchdog import Overdue, Watchdog

_log = logging.getLogger(__name__)
BUFFER_SIZE = protocol.MAX_WRITE + 4096
ANSWER_SIZE = protocol.OUT_HEADER.size
# Looked up once: these run for every request.
_write = os.write
_get_ident = threading.get_ident
_unpack_header = protocol.IN_HEADER.unpack_from
_pack_header = protocol.OUT_HEADER.pack


class Session:
    """Reads requests from `buffer`, performs them on the machine, writes the answers.

    `by_epoch`: names may be invalidated by epoch where the kernel knows it. `run_soon` takes a
    callable from the notifier thread to the thread of this session. `owner` is the user and group
    who mounted: they own what root owns in the machine. `watchdog`: ends requests that neither end
    nor let others in. While `working`, `work` is to be called between requests.
    """

    def __init__(
        self,
        machine: ServedMachine,
        device: int,
        *,
        run_soon: Callable[[Callable[[], None]], None],
        by_epoch: bool = True,
        owner: tuple[int, int] = (0, 0),
        watchdog: Watchdog | None = None,
    ) -> None:
        self._machine = machine
        self._watchdog = watchdog or Watchdog()
        self._device = device
        self._run_soon = run_soon
        self.buffer = bytearray(BUFFER_SIZE)
        self.served = 0
        self._binder = machine.fs.binder
        # That of which clients were told.
        self._kernel = machine.kernel
        # uid, gid and pid of the last request, and the caller that they make.
        self._ids = b""
        self._caller = MACHINE
        self._wakeups = Wakeups()
        self._parked = ParkedCalls(self._wakeups)
        self.calls = LongCalls(self._exchange, self._watchdog)
        self._long = LongRequests(self.calls, self._attempt, self._finish)
        machine.fs.end_calls = self._long.finish_all
        self._unsettled = Unsettled()
        nodes, pack = NodeTable(machine.fs.root), Replies(*owner)
        self.invalidator = Invalidator(device, nodes, by_epoch=by_epoch)
        self._handshake = Handshake(self.invalidator)
        splicing = Splicing(machine.fs, nodes, self.invalidator)
        self._names = Names(machine.fs, nodes, pack, splicing, self._later)
        writers = Writers(nodes, self._is_locked, self._run_later)
        wake_poller, unsettled = self._wakeups.pollers.append, self._unsettled
        self._files = Files(machine.fs, nodes, pack, wake_poller, unsettled, splicing, writers)
        # Handlers that read their request in place, and those that need it cut to its length.
        self._in_place = dict(self._files.handlers())
        self._whole: dict[int, Handler] = {
            **self._names.handlers(),
            Op.INIT: self._handshake.init,
            Op.DESTROY: _destroy,
        }
        self._silent: dict[int, SilentHandler] = {
            **self._names.silent_handlers(),
            Op.INTERRUPT: self._interrupt,
        }

    @property
    def started(self) -> bool:
        """Whether the kernel and this side have agreed on a protocol."""
        return self._handshake.done

    def step(self, length: int) -> None:
        """Serve the request in the first `length` bytes of `buffer`."""
        message: Message = self.buffer
        opcode, unique, nodeid, ids = _unpack_header(message)
        if ids != self._ids:
            self._ids = ids
            uid, gid, pid = protocol.CALLER_IN.unpack(ids)
            self._caller = Caller(pid, uid, gid)
        self.served += 1
        # Another one makes the tree unsettled, so it is looked for when clients are told.
        self._kernel.caller = self._caller
        handler = self._in_place.get(opcode)
        if handler is not None:
            self._perform(unique, handler, nodeid, message)
        else:
            self._step_whole(opcode, unique, nodeid, bytes(message[:length]))
        if self._long.requests:
            self._long.deliver_done()
        wakeups = self._wakeups
        if wakeups.requests or wakeups.pollers:
            self._wake()

    @property
    def working(self) -> bool:
        """Whether something that takes long has work to do."""
        return bool(self._long) or bool(self.calls)

    def work(self) -> None:
        """Do one slice of what takes long."""
        self._long.run_slice()
        self.settle()

    def _step_whole(self, opcode: int, unique: int, nodeid: int, message: bytes) -> None:
        """Serve a request that is no call on an open file."""
        if opcode == Op.GETXATTR:
            errno = self._names.refusal_of_label(nodeid, message)
            if errno:
                self._send(_refusal(unique, errno))
                return
        silent = self._silent.get(opcode)
        if silent is not None:
            silent(nodeid, message)
            return
        self._perform(unique, self._whole.get(opcode, _unknown), nodeid, message)

    def settle(self) -> None:
        """Tell clients what changed without a request, and wake those that wait for it."""
        if self._binder.unsettled:
            self._tell(None)
        self._wake()

    def close(self) -> None:
        """End what waits or works with ENODEV and release every open file: the mount is gone."""
        self._long.finish_all(KernelError(ENODEV, "the mount is gone"))
        self._long.deliver_done()
        for unique in self._parked:
            self._end_parked(unique, ENODEV)
        self._files.close_all()
        self.invalidator.stop()

    def _perform(self, unique: int, handler: Handler, nodeid: int, message: Message) -> None:
        """Run a handler, answer, and tell clients what has changed.

        Calls nothing that it can do in place, here and in the watchdog: it runs for every request.
        """
        watchdog, caller = self._watchdog, self._caller
        try:
            watchdog.section += 1
            watchdog.thread = _get_ident()
            state.serving = True
            try:
                on_request = self._kernel.on_request
                if on_request is not None:
                    on_request(caller)
                data = handler(nodeid, message)
                answer: bytes | None = _pack_header(ANSWER_SIZE + len(data), 0, unique) + data
            except BaseException as error:
                answer = self._not_done(error, Call(unique, handler, nodeid, message), caller)
        except Overdue as late:
            answer = self._bug(unique, handler, late)
        finally:
            state.serving = False
            watchdog.thread = 0
            if watchdog.aimed:
                watchdog.take()
        if self._binder.unsettled:
            self._answer_and_tell(handler, answer)
        elif answer is not None:
            try:
                _write(self._device, answer)
            except OSError as error:
                _not_taken(error)

    def _not_done(self, error: BaseException, call: Call, caller: Caller) -> bytes | None:
        """Return the answer to a request that has failed: here a refusal becomes an errno.

        None: the request is kept, to be performed again when it is woken, or in slices.
        """
        unique, handler, nodeid, message = call
        if isinstance(error, Blocked | TakesLong):
            self._free_inode(handler, nodeid)
            kept = Call(unique, handler, nodeid, _whole(message))
            if isinstance(error, Blocked):
                self._parked.park(kept, error, caller)
            else:
                self._long.begin(kept, caller)
            return None
        if isinstance(error, KernelError):
            return _refusal(unique, client_errno(error))
        return self._bug(unique, handler, error)

    def _free_inode(self, handler: Handler, nodeid: int) -> None:
        """Let others open a file in which a write waits: as an inode that is not locked by it."""
        if handler == self._files.write:
            node = self._files.writers.renew(nodeid)
            if node is not None:
                self.invalidator.look_up_again(node)

    def _is_locked(self, nodeid: int) -> bool:
        """Return whether the kernel holds the lock of a node for a write that is not answered."""
        calls = itertools.chain(self._parked.unanswered(), self._long.unanswered())
        return any(call.nodeid == nodeid and call.handler == self._files.write for call in calls)

    def _run_later(self, seconds: float, action: Callable[[], None]) -> None:
        """Do something after so many seconds of real time."""

        def in_turn() -> None:
            action()
            self._wake()

        timer = threading.Timer(seconds, self._run_soon, (in_turn,))
        timer.daemon = True
        timer.start()

    def _attempt(self, call: Call, caller: Caller) -> bytes | None:
        """Return the answer to a request that is performed in slices."""
        try:
            try:
                data = call.handler(call.nodeid, call.message)
                return _pack_header(ANSWER_SIZE + len(data), 0, call.unique) + data
            except BaseException as error:
                return self._not_done(error, call, caller)
        except Overdue as late:
            return self._bug(call.unique, call.handler, late)

    def _finish(self, call: Call, answer: bytes | None) -> None:
        """Answer a request that was performed in slices."""
        self._files.writers.waiting.wake()
        if self._binder.unsettled:
            self._answer_and_tell(call.handler, answer)
        elif answer is not None:
            self._send(answer)

    def _bug(self, unique: int, handler: Handler, error: BaseException) -> bytes:
        """Count an internal error; return the answer."""
        _log.error("internal error in %s", handler, exc_info=error)
        self._machine.bug(error)
        return _refusal(unique, EIO)

    def _later(self, run: Callable[[], None]) -> None:
        """Do something in slices that no client waits for."""
        self.calls.add(run, Context(MACHINE, IDLE))

    def _exchange(self, context: Context) -> Context:
        """Let the models work in the name of another process and task; return the former ones."""
        kernel = self._machine.kernel
        former = Context(kernel.caller, kernel.bus.task)
        kernel.caller, kernel.bus.task = context
        return former

    def _answer_and_tell(self, handler: Handler, answer: bytes | None) -> None:
        """Tell clients before the answer goes out, unless its caller holds a directory's lock."""
        if answer is not None and handler not in self._files.lockless:
            self._send(answer)
            answer = None
        self._tell(answer)

    def _tell(self, answer: bytes | None) -> None:
        """Make clients forget what is wrong now, then send the answer of what caused it."""
        if self._kernel is not self._machine.kernel:
            # What they wait for in the machine before this one will never happen.
            self._kernel = self._machine.kernel
            self._parked.wake_all()
            self._files.wake_pollers()
        locking = self.invalidator.tell(self._machine.fs.settle())
        if not locking:
            if answer is not None:
                self._send(answer)
            return
        woken = self._wakeups.take()
        self._unsettled.begin()

        def all_told() -> None:
            if answer is not None:
                self._send(answer)
            self._run_soon(lambda: self._after_telling(*woken))

        self.invalidator.later(locking, all_told)

    def _after_telling(self, requests: list[int], pollers: list[int]) -> None:
        self._unsettled.end()
        self._wakeups.add(requests, pollers)
        self._wake()

    def _send(self, answer: bytes) -> None:
        try:
            _write(self._device, answer)
        except OSError as error:
            _not_taken(error)

    def _wake(self) -> None:
        """Tell pollers to ask again and perform woken calls, until neither wakes another."""
        while self._wakeups.requests or self._wakeups.pollers:
            requests, pollers = self._wakeups.take()
            for kernel_handle in pollers:
                self.invalidator.send(protocol.pack_poll_wakeup(kernel_handle))
            for unique in requests:
                parked = self._parked.take(unique)
                if parked is not None:
                    self._kernel.caller = self._caller = parked.caller
                    self._ids = b""
                    self._perform(*parked.call)
                    if parked.call.handler == self._files.write:
                        self._files.writers.waiting.wake()

    def _end_parked(self, unique: int, errno: int) -> None:
        if self._parked.end(unique):
            self._send(_refusal(unique, errno))
            self._files.writers.waiting.wake()

    def _interrupt(self, _nodeid: int, message: Message) -> None:
        # A request that neither waits nor works was answered in the meantime.
        unique = protocol.INTERRUPT_IN.unpack_from(message)[0]
        if self._parked.interrupted(unique):
            return
        self._end_parked(unique, EINTR)
        if self._long.interrupt(unique):
            self._send(_refusal(unique, EINTR))
            self._files.writers.waiting.wake()


def _destroy(_nodeid: int, _message: Message) -> bytes:
    return b""


def _whole(message: Message) -> bytes:
    return bytes(message[: protocol.length_of(message)])


def _not_taken(error: OSError) -> None:
    # ENOENT: the request was aborted. ENODEV: the mount is gone.
    _log.debug("answer not taken: %s", error)


def _unknown(_nodeid: int, _message: Message) -> bytes:
    # FLUSH among others: after ENOSYS the kernel does not send the request again.
    raise KernelError(ENOSYS, "not a request of this file system")


def _refusal(unique: int, errno: int) -> bytes:
    return _pack_header(ANSWER_SIZE, -errno, unique)
