"""Exact inference forms of modules, in operators that TensorRT fuses."""
