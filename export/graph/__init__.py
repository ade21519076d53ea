"""From PyTorch's program to a clean ONNX graph: traced, cut, bound to tasks, decoded, and counted."""
