"""Tests of the core, which no subsystem owns."""
