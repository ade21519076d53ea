"""Networks that arrive as graphs: ONNX files and TorchScript, read within bounds, run as they are, and turned into our graph."""
