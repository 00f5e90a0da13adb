"""Backends behind one contract: see :mod:`fine_edge.runners.base`."""
