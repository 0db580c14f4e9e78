"""The control files of the AP part: the machine's hardware, guests and policies."""
