"""From a checkpoint to a verified bundle: one ONNX graph with one output per task, its variants, and its engines."""
