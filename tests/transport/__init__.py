"""Tests of the FUSE protocol without a kernel."""
