r"""An in-memory kernfs: declared rows become directories, files and links.

A subsystem declares its files as data: rows of `attr.py` (`Attr`, `Dir`, `Link`, `Children`,
`Links`, `Files`) in a `Layout`, and a `Mount` that says at which path the layout is and which
model it belongs to. Nothing in this folder knows a model.

* `FileSystem` (`filesystem.py`) has the system calls; transports and `Machine.read` use it.
  It owns nothing but hooks and asks its binder.
* `Binder` (`binder.py`) owns the root directory. It listens to `Changed` and `Notified`
  on the bus and is the only writer of the tree. `plan.py` selects the rows that a kernel has.
* `Node` (`node.py`): `Directory`, `File`, `Symlink`, made at the first look-up and kept by their
  directory, which reaches the binder by the protocol `DirectoryRegister` only.
* `OpenFile` (`openfile.py`) is the state of one open(2), by the rules of a `Kind` (`kinds.py`).

Order of a request: `FileSystem.open` / `read` / `write`, which call the model through the row;
then `Binder.settle`, whose `Stale` names what clients may have cached wrongly. Between two
requests no node of something that is gone is in `Directory.cached`.

Follows fs/kernfs/dir.c, fs/kernfs/file.c, fs/sysfs/file.c, fs/libfs.c, fs/seq_file.c,
fs/debugfs/file.c, fs/debugfs/inode.c and fs/tracefs/event_inode.c (v6.1, eventfs v6.6).

    rows = Layout((Attr(name="number", mode=0o444, doc="5.", show=lambda toy: f"{toy.number}\n"),))
    fs = FileSystem(Binder(bus, frozenset(), [Mount("sys/toy", rows, lambda: toy)]))
    node = fs.resolve("sys/toy/number")
    fs.read(node, fs.open(node, os.O_RDONLY), 0, 4096)      # b"5\n"
"""
