"""Plays recordings of the real AP drivers in this process: `python -m tests.replay_ap`."""
