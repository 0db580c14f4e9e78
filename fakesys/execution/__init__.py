"""What `fakesys exec` does before it becomes the command: a private view of the file system.

The command is not changed. It runs in a mount namespace of its own, in which `/sys` shows the
simulated machine where it has directories and the host elsewhere. The steps (`view.enter`):

1. `namespace.enter`: mounts of its own. A daemon that makes the machine begins here, among the
   files of the host, and the process goes on in a copy of these mounts.
2. What needs no machine is done meanwhile. `base/places.py`: an empty `/run`, private settings, a
   CPU flag; `base/missing.py` where the host lacks one. `protection.py`: the host's part becomes
   read-only. `join.py`: `Join` binds it into a file system in memory, the `/sys` to be.
   `nodes.py`: a private `/dev`. `modules/`: an empty `/lib/modules` for modprobe and its like.
3. The daemon joins the mounts of the process, and its mount appears in `/run`.
4. `Join` makes one `/sys` out of two. `nodes.py`: the nodes of the machine. `kernel_files.py`: its
   messages, boot line and modules in `/proc` and `/dev`. `modules/`: files of its modules.
5. `relay.py`: the `Relay`, a process that stays in the mount namespace of the steps before. It owns
   the `Rebinder` (`rebind.py`), which binds directories again that a reset has replaced, and with
   `--net` the `Sender` (`netlink.py`), by which libudev hears of simulated devices.
6. `namespace.Confinement`: the process moves into a user namespace with copies of these mounts.

7. `requests/`: its mounts of debugfs, tracefs and sysfs, its loading and removing of modules, and
   its reading of kernel messages are answered by the relay.

The copies follow what the relay mounts, but are locked: root of that user namespace can neither
remove nor change them. Nothing has to be undone: the namespaces end with the last process in them.
A step that fails raises `StepError` with one line.

Follows lib/kobject_uevent.c (v6.1) and the monitor of libudev for messages, user_namespaces(7) and
mount_namespaces(7) for rights. For example:

    fakesys exec --preset full -- ls /sys/bus/ap/devices
"""
