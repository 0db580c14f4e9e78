"""Benchmarks: `python -m tests.bench` prints what was measured beside what is asked for."""
