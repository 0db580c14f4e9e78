"""What `fakesys exec` does before it becomes the command: a private view of the file system.

The command is not changed. It runs in a mount namespace of its own, in which `/sys` shows the
simulated machine where it has directories and the host elsewhere. The steps, which `view.enter`
runs in this order:

1. `namespace.py`: new namespaces; an ordinary user becomes root of a user namespace.
2. `places.py`: an empty `/run`, in which the mount of the machine is shown.
3. `join.py`: `Join` makes one `/sys` out of two, by binds into a file system in memory.
4. `places.py`: private settings of mdevctl, udev and `/proc/sys/kernel`, a CPU flag.

Then `relay.start` starts a process beside the command. It owns the `Rebinder` (`rebind.py`), which
binds directories again that a reset has replaced, and with `--net` the `Sender` (`netlink.py`), by
which libudev hears of simulated devices. Last, `view.exec_command` replaces this process.

After each uevent every bind shows the directory that the machine has now. The namespaces end with
the last process in them, so nothing has to be undone; no file of the host is ever changed. Every
step that fails raises `StepError` with one line for the user.

Follows lib/kobject_uevent.c (v6.1) and the monitor of libudev for messages, user_namespaces(7) and
mount_namespaces(7) for what an ordinary user may do. For example:

    fakesys exec --preset full -- lszcrypt -V
"""
