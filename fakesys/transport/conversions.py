"""Names and refusals as the kernel takes them; shared by both transports."""

from __future__ import annotations

from errno import EIO

from fakesys.core.errors import KernelError

# stat(2) names it st_blksize, statfs(2) f_bsize. Like a page of sysfs.
BLOCK_SIZE = 4096
# fs/fuse/dev.c:fuse_dev_do_write (v6.1) takes no error below -511.
LARGEST_ERRNO = 511


def encode(name: str) -> bytes:
    """Return a name of the tree as the bytes that the kernel uses."""
    return name.encode("utf-8", "surrogateescape")


def decode(name: bytes) -> str:
    """Return the bytes of a name as the tree spells it."""
    return name.decode("utf-8", "surrogateescape")


def client_errno(refusal: KernelError) -> int:
    """Return the errno to send for a refusal: its own, or EIO where the kernel takes no such.

    The kernel drops an answer whose errno is above 511, and the client would wait for ever.
    """
    number = refusal.errno or EIO
    return number if 0 < number <= LARGEST_ERRNO else EIO
