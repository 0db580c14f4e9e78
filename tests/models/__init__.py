"""State machines of the models, driven by hypothesis."""
