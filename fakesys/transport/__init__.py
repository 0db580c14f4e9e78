"""From system calls to the tree: mount points, and the two servers of what is mounted on them.

`fuse` is the native transport and the default: it speaks the FUSE kernel protocol itself, on
`/dev/fuse`, and tells the kernel of every change, so that clients may cache. `fusepy` serves the
same tree through fusepy and libfuse 2: slower, without caches, for comparison. Neither imports the
other. What both use is in this folder:

* `served.py`: `ServedMachine`, the part of a machine that a server may use.
* `conversions.py`: names as bytes, refusals as errnos that the kernel takes.
* `pacing.py`: `Pacer`, the task that moves the simulated clock along with real time.
* `slices.py`: `LongCalls`, the requests and timers that take long, which take turns, each on a
  thread of its own; `watchdog.py`: `Watchdog`, which ends what lets no other in.
* `collecting.py`: full garbage collections, in idle time, and one heap for all threads.
* `owners.py`: `Owners`, which tells a model when a process of the host has ended.
* `xattrs.py`: extended attributes, kept per mount.
* `mounting.py`: mount, find, unmount, and what to do about a mount that does not answer;
  `mountinfo.py` and `mount_calls.py` are the system calls under it, `processes.py` says which
  processes hold a mount.

A server belongs to the daemon (`fakesys.daemon.service`), which mounts, runs it until the mount is
gone, and closes the device. A server owns the handles of open files and releases them at its end;
it does not own the machine. Machine, tree and server run on one thread, that of trio, so one
request is one step of the machine; one that takes long rests where the machine is consistent.
Between two requests no node is left that its model has removed, and no client is left untold.

An unmount must not run on the thread of the server, which the kernel asks meanwhile:

    await trio.to_thread.run_sync(mounting.unmount, point)
"""
