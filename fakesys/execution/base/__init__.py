"""What all steps of `fakesys exec` use: system calls with messages, and the places of the view.

* `syscalls.py`: unshare, mount and others; a refusal is a `StepError` that names what was refused.
* `missing.py`: directories that the host lacks, and copies in memory of those that it has.
* `places.py`: paths of the view, and private replacements of files outside of `/sys`.

The other modules of `execution` import from here, and nothing here imports from them. Every
function that changes mounts needs a process in a private mount namespace.

Follows mount(2), unshare(2), setns(2), mount_setattr(2).
"""
