"""The native transport: the FUSE kernel protocol on `/dev/fuse`, 7.31 (Linux 5.4) to 7.45.

`Server` (`server.py`) is the loop: it reads requests and hands them to its `Session`
(`session.py`), which performs each and writes exactly one answer. The session owns

* `Names` (`names.py`) and `Files` (`files.py`): one handler per request, by path name and on open
  files; `listing.py` packs directories, `replies.py` packs nodes, `protocol.py` every message.
* `NodeTable` (`nodes.py`): the nodes that the kernel knows, until it sends FORGET.
* `ParkedCalls` (`parking.py`): requests that wait, to be performed again when they are woken.
* `Invalidator` (`invalidation.py`): makes the kernel forget what a step has changed.
* `Handshake` (`handshake.py`): the INIT request.

The order of a request: note the caller; run the handler; settle the tree; send the messages that
take no lock; then either answer at once, or let the notifier thread send the messages that take
the lock of a directory and the answer after them. A caller that may hold such a lock is answered
first (`Files.lockless`). Last, woken requests are performed.

Between two requests the tree is settled. Names and attributes that the kernel caches are right, or
a message about them is queued in the notifier thread and streams wait for it (`Unsettled`).

Follows include/uapi/linux/fuse.h, fs/fuse/dev.c, dir.c, file.c and readdir.c (v6.1; the epoch:
v6.16). For example, a look-up without a kernel:

    session = Session(machine, device, run_soon=call_later)
    session.buffer[: len(message)] = message  # header, then the name and a NUL
    session.step(len(message))                # writes ENTRY_OUT to the device
"""
