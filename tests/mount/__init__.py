"""Tests of a mounted machine, by a daemon of its own."""
