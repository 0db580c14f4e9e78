"""Experiments with the models, as numbers, tables and plots. They print nothing themselves."""
