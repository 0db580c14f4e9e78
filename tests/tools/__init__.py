"""Tests by client programs."""
