"""What runs a graph or an engine: ONNX Runtime and TensorRT behind one interface."""
