"""Activation statistics, calibration images and the typed FP16 graph; needs onnx and onnxruntime, never torch."""
