"""State machines of the MMU."""
