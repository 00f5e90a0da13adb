"""Static checks of ONNX graphs for TensorRT 10.7, and their conversion to FP16."""
