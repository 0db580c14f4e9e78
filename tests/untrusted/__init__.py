"""Tests of files from elsewhere."""
