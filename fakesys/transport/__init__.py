"""From system calls to the tree: the FUSE kernel protocol, mounting, and what serves it."""
