"""The smallest complete subsystem: one device that can be unplugged, and its files.

Copy this folder to begin a new subsystem. It shows every part that one needs:

* `model.py` is behaviour in numbers, without text and paths. `SelftestDevice` is the state: a
  device as the driver core sees it (`core/devices.py`). `Selftest` has the operations: it owns
  the device, checks first, changes then, and tells the others last.
* `files.py` is text: tables of rows (`tree/attr.py`), one row per file, and `mounts`, which says
  where each table appears and which model is behind it.

The state knows no owner: what it needs, here the model of the directories that list it, is handed
to its constructor. Operations refuse by `KernelError(errno, why)`; the errno goes to the program
that wrote, the reason to the log and to `last_error`.

A change of names is told by `Changed`, a change of a text that pollers wait for by `Notified`, a
device that comes or goes through `Devices`, which sends the uevent, too.

Between two operations the device exists exactly if its directories and its link on the bus do.

`machine/machine.py` builds a `Selftest` and asks for its mounts; a subsystem of your own needs
these two lines there, and tests for each row and each errno. The files have real models: mtu and
addr_len of net/core/net-sysfs.c, flush of net/bridge/br_sysfs_br.c, active of
drivers/tty/vt/vt.c, and simple attributes of fs/libfs.c (v6.1).

    fakesys mount --scenario selftest /tmp/k
    echo 9000 > /tmp/k/sys/devices/virtual/selftest/selftest0/rw
    echo 1 > /tmp/k/sys/kernel/debug/fakesys/selftest/remove    # the directory is gone
"""
