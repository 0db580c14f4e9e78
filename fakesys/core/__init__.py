"""What every model stands on: refusals, number formats, events, devices, time."""
