"""The FUSE kernel protocol, 7.31 to 7.45: one struct per message, with pack and unpack.

Source: include/uapi/linux/fuse.h. Sizes and offsets are the same on 64-bit and 32-bit kernels.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag
from struct import Struct
from typing import NamedTuple

MAJOR = 7
OLDEST_MINOR = 31
NEWEST_MINOR = 45
# FUSE_NOTIFY_INC_EPOCH came with Linux 6.16.
EPOCH_MINOR = 44
ROOT_ID = 1
MAX_WRITE = 1 << 20
MAX_PAGES = 256


# A whole request, or the buffer into which it was read with further bytes behind its end.
Message = bytes | bytearray


class Op(IntEnum):
    """Request codes."""

    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    SETATTR = 4
    READLINK = 5
    SYMLINK = 6
    MKNOD = 8
    MKDIR = 9
    UNLINK = 10
    RMDIR = 11
    RENAME = 12
    LINK = 13
    OPEN = 14
    READ = 15
    WRITE = 16
    STATFS = 17
    RELEASE = 18
    FSYNC = 20
    SETXATTR = 21
    GETXATTR = 22
    LISTXATTR = 23
    REMOVEXATTR = 24
    FLUSH = 25
    INIT = 26
    OPENDIR = 27
    READDIR = 28
    RELEASEDIR = 29
    FSYNCDIR = 30
    ACCESS = 34
    CREATE = 35
    INTERRUPT = 36
    DESTROY = 38
    IOCTL = 39
    POLL = 40
    BATCH_FORGET = 42
    FALLOCATE = 43
    READDIRPLUS = 44
    RENAME2 = 45
    LSEEK = 46
    COPY_FILE_RANGE = 47
    SYNCFS = 50
    TMPFILE = 51


class Notify(IntEnum):
    """Codes of notifications: messages to the kernel that are no answers."""

    POLL = 1
    INVAL_INODE = 2
    INVAL_ENTRY = 3
    STORE = 4
    INC_EPOCH = 8


class Init(IntFlag):
    """Capabilities of INIT; those of 2^32 and more are in the field `flags2`."""

    ATOMIC_O_TRUNC = 1 << 3
    BIG_WRITES = 1 << 5
    DO_READDIRPLUS = 1 << 13
    READDIRPLUS_AUTO = 1 << 14
    PARALLEL_DIROPS = 1 << 18
    MAX_PAGES = 1 << 22
    CACHE_SYMLINKS = 1 << 23


# Not wanted: a writeback cache (it would change times), file locks (the kernel has its own),
# HANDLE_KILLPRIV, and NO_OPEN_SUPPORT or NO_OPENDIR_SUPPORT: a text belongs to an open file.
WANTED = (
    Init.ATOMIC_O_TRUNC
    | Init.BIG_WRITES
    | Init.DO_READDIRPLUS
    | Init.READDIRPLUS_AUTO
    | Init.PARALLEL_DIROPS
    | Init.MAX_PAGES
    | Init.CACHE_SYMLINKS
)


class OpenFlag(IntFlag):
    """Flags in the answer to OPEN."""

    DIRECT_IO = 1 << 0
    KEEP_CACHE = 1 << 1
    NONSEEKABLE = 1 << 2
    # Since Linux 6.2; ignored before.
    PARALLEL_DIRECT_WRITES = 1 << 6


class Valid(IntFlag):
    """Flags of SETATTR that say which fields are set."""

    MODE = 1 << 0
    UID = 1 << 1
    GID = 1 << 2
    SIZE = 1 << 3
    ATIME = 1 << 4
    MTIME = 1 << 5
    FH = 1 << 6
    ATIME_NOW = 1 << 7
    MTIME_NOW = 1 << 8


# (length) opcode unique nodeid (uid gid pid extension-length padding)
IN_HEADER = Struct("<4xIQQ12s4x")
# The place of uid, gid and pid in the header.
CALLER = slice(24, 36)
CALLER_IN = Struct("<III")
# length error unique
OUT_HEADER = Struct("<IiQ")
# nodeid generation entry-seconds attr-seconds entry-ns attr-ns, then ATTR
ENTRY_OUT = Struct("<QQQQII" + "QQQQQQ" + "IIIIIIIIII")
# attr-seconds attr-ns padding, then ATTR: ino size blocks atime mtime ctime (ns: atime mtime
# ctime) mode nlink uid gid rdev blksize flags
ATTR_OUT = Struct("<QII" + "QQQQQQ" + "IIIIIIIIII")
# The request structures below begin behind the header, which they skip.
# flags; fh is not used
GETATTR_IN = Struct("<40xI")
# valid padding fh size lock-owner atime mtime ctime (ns of them) mode unused uid gid unused
SETATTR_IN = Struct("<40xIIQQQQQQIIIIIIII")
# flags
OPEN_IN = Struct("<40xI")
# fh open-flags padding
OPEN_OUT = Struct("<QII")
# fh offset size read-flags (lock-owner) flags (padding)
READ_IN = Struct("<40xQQII8xI4x")
# fh offset size write-flags (lock-owner) flags (padding), then the data
WRITE_IN = READ_IN
# In the read-flags of read(2), pread(2) and the like; not in those of the page cache.
READ_LOCKOWNER = 1 << 1
# size padding
WRITE_OUT = Struct("<II")
# fh; the other fields of RELEASE, FSYNC and others are not used
FH = Struct("<40xQ")
# fh flags
RELEASE_IN = Struct("<40xQI")
# fh kernel-handle flags events
POLL_IN = Struct("<40xQQII")
# revents padding
POLL_OUT = Struct("<II")
POLL_SCHEDULE_NOTIFY = 1
# fh offset whence padding
LSEEK_IN = Struct("<40xQQII")
LSEEK_OUT = Struct("<Q")
# unique of the request to end
INTERRUPT_IN = Struct("<40xQ")
FORGET_IN = Struct("<40xQ")
BATCH_FORGET_IN = Struct("<40xII")
FORGET_ONE = Struct("<QQ")
# size padding (getxattr, listxattr)
XATTR_IN = Struct("<40xII")
XATTR_OUT = Struct("<II")
# size flags, then name NUL value
SETXATTR_IN = Struct("<40xII")
# blocks bfree bavail files ffree bsize namelen frsize padding spare[6]
STATFS_OUT = Struct("<QQQQQIIII24x")
# mode rdev umask padding
MKNOD_IN = Struct("<40xIIII")
# mode umask
MKDIR_IN = Struct("<40xII")
# flags mode umask open-flags
CREATE_IN = Struct("<40xIIII")
# ino offset name-length type
DIRENT = Struct("<QQII")

_INIT_IN = Struct("<40xIIII")
_INIT_FLAGS2 = Struct("<I")
# major minor readahead flags background congestion max-write time-gran max-pages map-align flags2
# stack-depth request-timeout unused
_INIT_OUT = Struct("<IIIIHHIIHHIIH22x")
INIT_EXT = 1 << 30

_INVAL_INODE = Struct("<Qqq")
_STORE = Struct("<QQII")
_INVAL_ENTRY = Struct("<QII")
_POLL_WAKEUP = Struct("<Q")


def length_of(message: Message) -> int:
    """Return the length of the request at the start of a buffer, in bytes."""
    return int.from_bytes(message[:4], "little")


class InitRequest(NamedTuple):
    """The offer of the kernel. Kernels before 5.17 (7.36) send 16 bytes, later ones 64."""

    major: int
    minor: int
    max_readahead: int
    flags: int


def unpack_init(message: Message) -> InitRequest:
    """Return the offer in an INIT message, of 16 or 64 bytes."""
    major, minor, readahead, flags = _INIT_IN.unpack_from(message)
    if flags & INIT_EXT and len(message) >= _INIT_IN.size + _INIT_FLAGS2.size:
        flags |= _INIT_FLAGS2.unpack_from(message, _INIT_IN.size)[0] << 32
    return InitRequest(major, minor, readahead, flags)


def pack_init(offer: InitRequest) -> bytes:
    """Return the answer to an offer: the older version, and the flags that both sides know."""
    minor = min(offer.minor, NEWEST_MINOR)
    flags = int(WANTED) & offer.flags
    max_write = MAX_WRITE if flags & Init.MAX_PAGES else 32 * 4096
    max_pages = MAX_PAGES if flags & Init.MAX_PAGES else 0
    # No read-ahead: only splice(2) and mmap(2) read through the page cache, and not ahead.
    return _INIT_OUT.pack(MAJOR, minor, 0, flags, 512, 384, max_write, 1, max_pages, 0, 0, 0, 0)


def pack_version_only() -> bytes:
    """Return the answer to a kernel of a later major version, which then sends INIT with ours."""
    return _INIT_OUT.pack(MAJOR, NEWEST_MINOR, *([0] * 11))


def pack_inval_attributes(nodeid: int) -> bytes:
    """Make the kernel forget the attributes of a node."""
    return _notice(Notify.INVAL_INODE, _INVAL_INODE.pack(nodeid, -1, 0))


def pack_inval_pages(nodeid: int, start: int, length: int) -> bytes:
    """Make the kernel drop the pages of a range, to the end if its length is 0."""
    return _notice(Notify.INVAL_INODE, _INVAL_INODE.pack(nodeid, start, length))


def pack_store(nodeid: int, offset: int, data: bytes) -> bytes:
    """Put bytes into the page cache, which makes the file larger if they are behind its end."""
    return _notice(Notify.STORE, _STORE.pack(nodeid, offset, len(data), 0) + data)


def pack_inval_entry(parent: int, name: bytes) -> bytes:
    """Make the kernel forget a name, or that the name does not exist."""
    return _notice(Notify.INVAL_ENTRY, _INVAL_ENTRY.pack(parent, len(name), 0) + name + b"\0")


def pack_inc_epoch() -> bytes:
    """Make the kernel look up all names again."""
    return _notice(Notify.INC_EPOCH, b"")


def pack_poll_wakeup(kernel_handle: int) -> bytes:
    """Make the clients that poll this file ask again."""
    return _notice(Notify.POLL, _POLL_WAKEUP.pack(kernel_handle))


def _notice(code: Notify, body: bytes) -> bytes:
    return OUT_HEADER.pack(OUT_HEADER.size + len(body), code, 0) + body


def pack_dirent(ino: int, offset: int, file_type: int, name: bytes) -> bytes:
    """Return one entry of a directory; `offset` is that of the entry behind it."""
    entry = DIRENT.pack(ino, offset, len(name), file_type) + name
    return entry + bytes(-len(entry) % 8)


def names_in(message: Message, offset: int) -> list[bytes]:
    """Return the NUL-terminated names that begin at an offset of a request."""
    return bytes(message[offset:]).split(b"\0")[:-1]
