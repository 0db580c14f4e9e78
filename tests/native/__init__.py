"""Tests that hold on the running kernel too (`--root /`)."""
