"""From a PyTorch network to a clean ONNX graph: tracing, cleaning, binding outputs, decoding, splitting by task, counting work."""
