"""Passing AP queues through to guests: the matrix device, its mediated devices, the guests."""
