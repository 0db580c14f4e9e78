"""The files that the kernel's driver core gives to every device, bus and driver."""
