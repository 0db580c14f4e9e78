"""A mounted fake sysfs, debugfs and tracefs that behaves as the kernel does."""

__version__ = "0.1.0"
