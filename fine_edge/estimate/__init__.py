"""What an engine would take on a board that is not here: a roofline over the kernels of NVIDIA's own compiler."""
