"""FINE detectors from PyTorch to ONNX to FP16 TensorRT engines, checked and measured.

Importing the package imports nothing heavy: each command loads what it needs.
"""

import os

__version__ = "0.1.0"

# Nothing is sent to anybody: said before any library reads it, here and in child processes; see fine_edge.libraries.
os.environ.update(ORT_DISABLE_TELEMETRY="1", HF_HUB_DISABLE_TELEMETRY="1")
