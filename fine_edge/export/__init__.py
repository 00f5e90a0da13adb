"""From a PyTorch detector to an ONNX file with its contract and golden inputs and outputs. Torch ends here."""
