"""Runs every model of the zoo through every check that needs no GPU; each model has a row."""
