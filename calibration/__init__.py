"""INT8 and FP16 graphs for a bundle, and what they cost every task. Needs onnx and onnxruntime, never torch."""
