"""FINE detectors from PyTorch to ONNX to FP16 TensorRT engines, checked and measured.

Importing the package imports nothing heavy: each command loads what it needs.
"""

__version__ = "0.1.0"
