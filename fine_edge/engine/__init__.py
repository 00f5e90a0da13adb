"""Building of TensorRT engines, their manifests, and inspection with NVIDIA's compiler."""
