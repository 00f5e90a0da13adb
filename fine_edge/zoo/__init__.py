"""The detectors of the paper, by name. :mod:`fine_edge.zoo.catalog` lists them without importing torch."""
