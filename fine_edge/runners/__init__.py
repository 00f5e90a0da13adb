"""Runners: backends behind the one contract in :mod:`fine_edge.runners.base`."""
