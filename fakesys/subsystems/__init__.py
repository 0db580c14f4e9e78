"""One folder per subsystem: `model.py` behaves, `files.py` declares, `policy.py` varies."""
