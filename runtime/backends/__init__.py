"""What runs a graph or an engine: ONNX Runtime, OpenVINO and TensorRT behind one interface."""
