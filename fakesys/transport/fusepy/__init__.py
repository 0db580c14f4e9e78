"""The transport through fusepy and libfuse 2: a second opinion on the native one.

`Server` (`server.py`) mounts and serves. libfuse calls the methods of `Operations`
(`operations.py`) in threads of its own; each runs one call on the trio thread, where the models
are. The calls are those of three objects that know no library:

* `PathCalls` (`paths.py`): on a path; libfuse knows no inode numbers.
* `OpenFiles` and `OpenDirectories` (`open_files.py`): by the number in `fi.fh`.

`library.py` is the only module that imports fusepy, and only when it is asked to `load`.

The order of a call: the thread of libfuse takes the arguments apart and crosses to the trio
thread; the call runs as one step of the machine; the tree is settled; the thread returns the
result or an errno. A call that has to wait does so in its thread, looks for a signal now and then,
and crosses over again once it was woken.

The kernel caches nothing of such a mount (all timeouts are 0), since libfuse 2 cannot make it
forget a name. Differences to the native transport are in fakesys/docs/limits.md.

    fakesys mount --transport fusepy ./mountpoint
"""
