"""Tests of the files through a machine in memory."""
