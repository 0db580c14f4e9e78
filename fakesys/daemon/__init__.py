"""Mounts as processes: how one is started, served, found again and ended.

* `mount` and `Daemon` (`launch.py`): a mount for a Python program, by a child of this process.
* `Starting` (`background.py`): a process that goes into the background and says when it is ready.
* `Service` and `run` (`service.py`): the process itself, from the mount to the last request.
* `MountEntry` (`registry.py`): one file per mount, in a directory of this user only.

Who owns whom: `launch` starts the command `fakesys mount`, whose process owns the machine, the
connection to FUSE and its entry. The entry is written once every file answers and is removed at
the end; one that a killed daemon leaves is removed by `fakesys umount`.

The order in a daemon: mount, make the server, serve, then unmount in a thread, as the kernel asks
the daemon itself while it unmounts. It never touches its own mount: its working directory is `/`.

    with mount(profile="6.1") as path:
        print((path / "sys/bus/ap/apmask").read_text())

`launch` and `background` import no trio, so that a start from a program stays quick.
"""
