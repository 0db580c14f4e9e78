"""How files of each kind behave at system calls: one row per kind, no `if` elsewhere.

Behaviour of sysfs, debugfs and tracefs as measured on Linux 6.1 and 6.18.
"""

from __future__ import annotations

from enum import Enum
from errno import EACCES, EINVAL, EIO, ENAMETOOLONG, ENODEV, ENOENT, EPERM

from msgspec import Struct
from msgspec.structs import replace

PAGE = 4096


class Splice(Enum):
    """What splice(2) and sendfile(2) from a file do."""

    # Refused with EINVAL, as where the kernel's file has no splice_read: programs read instead.
    REFUSED = 0
    # They give the text, of at most a page.
    TEXT = 1
    # They give whole pages, each to one reader.
    PAGES = 2


class Kind(Struct, frozen=True):
    """What open, read, write, stat and poll do, independently of the model behind the file.

    `page_limit`: longest text in bytes that a read gives. `store_limit`: bytes of one write that
    the parser sees; `short_writes`: the call then returns only these.
    """

    name: str
    size: int
    # fs/kernfs/file.c:kernfs_fop_open checks the mode bits for root too.
    mode_binds_root: bool
    seekable: bool = True
    # show() again whenever a read starts at offset 0; else one snapshot per open file.
    reread_at_zero: bool = True
    # Later reads use the text that was made; else each read makes it.
    keeps_text: bool = True
    page_limit: int | None = None
    store_limit: int | None = None
    short_writes: bool = False
    no_show: int = EINVAL
    no_store: int = EINVAL
    gone: int = EIO
    # After removal a descriptor can still read the rest of its text.
    rest_after_gone: bool = False
    fsync: int = EINVAL
    directory_fsync: int = 0
    # lseek: SEEK_END, SEEK_DATA and SEEK_HOLE know where the file ends; seq_file refuses them.
    has_end: bool = True
    # renameat2(2) with any flag; fs/kernfs/dir.c:kernfs_iop_rename looks at them first.
    rename_flags: int = EPERM
    # Reading a directory moves its atime; not so in kernfs.
    listing_moves_atime: bool = True
    # getxattr answers ENODATA and the trusted name space takes attributes; else EOPNOTSUPP.
    xattrs: bool = False
    # st_nlink of a directory is 2 and its subdirectories; else 1.
    counts_directories: bool = True
    # Looking for a name of more than 255 bytes.
    long_name: int = ENAMETOOLONG
    # poll: POLLPRI|POLLERR until read and after each notify.
    notifies: bool = False
    # A read that does not begin at offset 0 returns nothing, whatever was read before.
    only_at_zero: bool = False
    # A read with no room for the whole text and a NUL is refused.
    whole_reads: bool = False
    # A read of a part of `size` bytes is refused with this errno, before show() is called.
    part: int | None = None
    # store() is given the bytes behind a NUL too.
    sees_nul: bool = False
    keeps_size: bool = True
    splice: Splice = Splice.REFUSED
    # A write may wait or take long, and others may write to the same file meanwhile.
    waits: bool = False


SYSFS = Kind(
    name="sysfs",
    size=PAGE,
    mode_binds_root=True,
    page_limit=PAGE - 1,
    store_limit=PAGE,
    short_writes=True,
    no_show=EIO,
    no_store=EIO,
    gone=ENODEV,
    rest_after_gone=True,
    fsync=0,
    directory_fsync=EINVAL,
    notifies=True,
    keeps_size=False,
    xattrs=True,
    long_name=ENOENT,
    listing_moves_atime=False,
    rename_flags=EINVAL,
    splice=Splice.TEXT,
)
# A list that a real kernel would have to squeeze into one page.
SYSFS_LONG = replace(SYSFS, name="sysfs-long", page_limit=None, splice=Splice.REFUSED)
# Files that no real machine has: sysfs rules, texts and commands of any length.
CONTROL = Kind(
    name="control",
    size=0,
    mode_binds_root=True,
    no_show=EIO,
    no_store=EIO,
    gone=ENODEV,
    rest_after_gone=True,
    fsync=0,
    notifies=True,
    keeps_size=False,
    xattrs=True,
    long_name=ENOENT,
    listing_moves_atime=False,
    rename_flags=EINVAL,
    waits=True,
)
# Journals of the control files: a text that grows; a stream, which is read once and waits.
CONTROL_JOURNAL = replace(CONTROL, name="control-journal", has_end=False)
CONTROL_STREAM = replace(CONTROL, name="control-stream", seekable=False)
# DEFINE_SIMPLE_ATTRIBUTE: fs/libfs.c:simple_attr_read, simple_attr_write.
DEBUGFS = Kind(
    name="debugfs",
    size=0,
    mode_binds_root=False,
    seekable=False,
    reread_at_zero=False,
    store_limit=23,
    no_show=EACCES,
    no_store=EACCES,
)
DEBUGFS_SEQ = Kind(name="debugfs-seq", size=0, mode_binds_root=False, has_end=False)
# fs/libfs.c:simple_read_from_buffer on a text of this moment.
TRACEFS = Kind(name="tracefs", size=0, mode_binds_root=False, keeps_text=False)
# Directories of events since 6.6: fs/tracefs/event_inode.c.
EVENTFS = replace(
    TRACEFS,
    name="eventfs",
    directory_fsync=EINVAL,
    counts_directories=False,
    long_name=ENOENT,
)
# Lists that seq_file makes: fs/seq_file.c:seq_lseek.
TRACEFS_SEQ = replace(TRACEFS, name="tracefs-seq", has_end=False, keeps_text=True)
TRACEFS_STREAM = Kind(name="tracefs-stream", size=0, mode_binds_root=False, seekable=False)
# kernel/trace/trace.c:tracing_buffers_splice_read.
TRACEFS_PAGES = replace(TRACEFS_STREAM, name="tracefs-pages", splice=Splice.PAGES)
# kernel/trace/trace_events.c:event_filter_read, show_header: "if (*ppos) return 0".
TRACEFS_ONCE = Kind(
    name="tracefs-once", size=0, mode_binds_root=False, only_at_zero=True, sees_nul=True
)
# Lists of which a write is not cut at a NUL: kernel/trace/trace.c:trace_get_user takes it for a
# blank, trace_events_trigger.c:event_trigger_regex_write counts the bytes behind it.
TRACEFS_WORDS = replace(TRACEFS_SEQ, name="tracefs-words", sees_nul=True)
# kernel/trace/trace.c:tracing_cpumask_read.
TRACEFS_WHOLE = replace(TRACEFS, name="tracefs-whole", whole_reads=True)
