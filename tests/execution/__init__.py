"""Tests of `exec`, each in a world of its own."""
