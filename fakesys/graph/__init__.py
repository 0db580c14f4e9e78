"""A graph of objects as lines of JSON, and back. Knows no model: classes describe themselves."""
