"""The smallest complete subsystem: one device with four attributes, three debugfs files."""
