"""The directory `fakesys/`: what no real machine has, and with which a user drives this one."""
