"""Let splice(2) and sendfile(2) do what they do on the real files.

The kernel serves them from its page cache and sends a READ for a page only below the size that it
believes in, which is 0 for most of these files. So the belief is raised: a NOTIFY_STORE of one
byte far behind everything makes a file huge for the kernel, while stat(2) still gets the size of
an attribute answer. Sent before such an answer, it also makes the kernel drop that answer's size.

What follows is decided by the kind of the file (`Splice` in `tree/kinds.py`): an errno, after
which programs read instead; pages, each for one reader; or a text. The short answer of a text
makes the kernel cut its belief to that length, unless it has heard of the size from elsewhere in
the meantime: then the reader would see NULs. A file that others write or splice is refused.

The byte is at another place each time, always behind the end that the kernel believes in. No
client can hold the lock of such a page, so these messages may be sent from the loop.
"""

from __future__ import annotations

from errno import EINVAL
from os import O_ACCMODE, O_NONBLOCK, O_TRUNC, O_WRONLY
from time import monotonic

from fakesys.core.errors import Blocked, KernelError
from fakesys.transport.fuse import protocol
from fakesys.transport.fuse.invalidation import Invalidator
from fakesys.transport.fuse.nodes import Belief, NodeTable
from fakesys.transport.fuse.protocol import Message
from fakesys.tree.attr import Handle
from fakesys.tree.filesystem import FileSystem
from fakesys.tree.kinds import PAGE, Splice
from fakesys.tree.node import File, Node

FAR = 1 << 62
# FIONREAD shows the low 32 bits of the end that the kernel believes in: they are those of the size.
STRIDE = 1 << 32
STORES = 1 << 29
# Within so many seconds the kernel has used an answer of attributes, if it is not very busy.
ATTRIBUTES_SECONDS = 0.001
# Pages of one file that the kernel keeps before it is told to drop them.
KEPT_PAGES = 256


class Splicing:
    """Answers READ requests that come from the page cache, and keeps the believed sizes."""

    def __init__(self, fs: FileSystem, nodes: NodeTable, invalidator: Invalidator) -> None:
        self._fs = fs
        self._beliefs = nodes.beliefs
        self._invalidator = invalidator
        self._stores = 0

    def opened(self, nodeid: int, number: int, node: File, flags: int, message: Message) -> None:
        """Raise the size for a new reader where the kernel would not ask for a page.

        Not needed for a text as long as there is no belief and the open does not truncate.
        """
        belief = self._beliefs.get(nodeid)
        if belief is None:
            belief = self._beliefs[nodeid] = Belief(raised=node.kind_.splice is Splice.TEXT)
        if flags & O_TRUNC:
            # The kernel sets the size to 0 when it has the answer.
            belief.raised = False
            belief.changing[number] = _thread(message)
        if flags & O_ACCMODE != O_WRONLY:
            belief.readers.add(number)
            if not flags & O_TRUNC:
                self._raise(nodeid, belief, node.size)

    def written(self, nodeid: int, number: int, node: File, message: Message) -> None:
        """Raise the size again after an open with O_TRUNC: it is over when a write comes.

        Precondition: there is a belief.
        """
        belief = self._beliefs[nodeid]
        if number not in belief.changing:
            belief.changing[number] = _thread(message)
        belief.raised = False
        if belief.readers:
            self._raise(nodeid, belief, node.size)

    def closed(self, nodeid: int, node: File, number: int) -> None:
        """Forget an open file. Precondition: there is a belief."""
        belief = self._beliefs[nodeid]
        belief.readers.discard(number)
        belief.changing.pop(number, None)
        if belief.readers:
            self._raise(nodeid, belief, node.size)
        if belief.cut:
            # stat(2) shall not show the length of a text.
            belief.cut = False
            self._invalidator.send(protocol.pack_inval_attributes(nodeid))

    def attributes(self, nodeid: int, node: Node, message: Message, *, seeks: bool = False) -> None:
        """Keep the size raised for open files although an answer with attributes goes out.

        `seeks`: the answer is for lseek(SEEK_END), which must see the size in it.
        """
        belief = self._beliefs.get(nodeid)
        if belief is None:
            return
        belief.sent(_thread(message), monotonic() + ATTRIBUTES_SECONDS)
        if node.kind.splice is Splice.TEXT:
            # Its own size is that of a page.
            belief.raised = not belief.cut
            return
        belief.raised = False
        if belief.readers and not seeks:
            self._raise(nodeid, belief, node.size)

    def read(self, nodeid: int, node: File, handle: Handle, message: Message) -> bytes:
        """Return a page for the page cache. Raises EINVAL where splice is refused."""
        if node.kind_.splice is Splice.TEXT:
            return self._text(nodeid, node, handle, message)
        _, offset, _, _, flags = protocol.READ_IN.unpack_from(message)
        page = self._fs.splice(node, handle, offset, nonblock=flags & O_NONBLOCK != 0)
        pages = offset // PAGE
        if pages and pages % KEPT_PAGES == 0:
            # Pages that were read before: no reader will ask for them again.
            self._drop(nodeid, offset - KEPT_PAGES * PAGE, (KEPT_PAGES - 1) * PAGE)
        return page

    def _text(self, nodeid: int, node: File, handle: Handle, message: Message) -> bytes:
        number, offset, _, _, flags = protocol.READ_IN.unpack_from(message)
        belief = self._beliefs.setdefault(nodeid, Belief(raised=True))
        if not belief.is_quiet(_thread(message), monotonic()):
            raise KernelError(EINVAL, "others are dealing with this file")
        try:
            page = self._fs.splice(node, handle, offset, nonblock=flags & O_NONBLOCK != 0)
        except Blocked:
            # The client holds the lock of the page, for which every open(2) of the file would wait.
            raise KernelError(EINVAL, "a text that has to wait is not spliced") from None
        belief.changing[number] = _thread(message)
        belief.raised, belief.cut = False, True
        return page

    def _raise(self, nodeid: int, belief: Belief, size: int) -> None:
        if belief.raised:
            return
        belief.raised = True
        self._stores += 1
        end = FAR + self._stores % STORES * STRIDE + size
        self._invalidator.send(protocol.pack_store(nodeid, end - 1, b"\0"))
        belief.stores += 1
        if belief.stores % KEPT_PAGES == 0:
            self._drop(nodeid, FAR, 0)

    def _drop(self, nodeid: int, start: int, length: int) -> None:
        # Takes the locks of these pages: from the thread, although no other client holds them.
        self._invalidator.later([protocol.pack_inval_pages(nodeid, start, length)], _nothing)


def _thread(message: Message) -> int:
    _, _, thread = protocol.CALLER_IN.unpack(message[protocol.CALLER])
    return int(thread)


def _nothing() -> None:
    pass
