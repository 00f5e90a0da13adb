"""Every model of the zoo through every check that needs no GPU: one row each, and none silently missing."""
