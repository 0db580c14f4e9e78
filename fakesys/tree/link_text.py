"""The text of symbolic links."""

from __future__ import annotations


def relative(directory: str, target: str) -> str:
    """Return the link text from a directory to `target`; both are paths from the root.

    It never ends at a directory above the link: fs/sysfs/symlink.c:sysfs_get_target_path goes up
    to the parent of the target at least (kernfs_get_target_path in fs/kernfs/symlink.c, v6.1).
    """
    here, there = directory.split("/"), target.split("/")
    common = 0
    while common < min(len(here), len(there) - 1) and here[common] == there[common]:
        common += 1
    return "/".join([".."] * (len(here) - common) + there[common:])
