"""System calls of the command that the relay answers instead of the kernel.

The kernel refuses some calls in a user namespace, and answers others for the host. A filter of
seccomp (`seccomp.py`) hands these calls to the relay, whose `Answers` (`answers.py`) knows what to
do with each:

* `mounts.py`: mounts of debugfs, tracefs and sysfs show the simulated ones.
* `modules.py`: init_module, finit_module and delete_module load and remove simulated modules.
* `messages.py`: syslog gives the messages of the simulated kernel.

A handler returns `Answer`, or None for a call that the kernel is to do. The relay acts for a
command that may want harm: it opens only files of the simulated machine by a path, reads memory
and descriptors of the caller within limits, and asks for the capability that the kernel asks for.
Where there is no such filter, the kernel's own answer remains.

Follows seccomp(2), seccomp_unotify(2), init_module(2), delete_module(2), syslog(2).
"""
