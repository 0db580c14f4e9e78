"""What `fakesys exec` does before it becomes the command: a private world around a fake `/sys`."""
