"""Tests of snapshots, part by part."""
