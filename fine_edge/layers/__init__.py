"""Measures each layer of an engine, and assigns it to a part of the detector."""
