"""One page on this machine, and what to do about what it lacks: ``python -m fine_edge doctor``."""
