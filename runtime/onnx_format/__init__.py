"""ONNX without the onnx package: reading, checking and cutting graphs as bytes, and which operators carry weights."""
