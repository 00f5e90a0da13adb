"""What NVIDIA's compiler makes of a graph."""
