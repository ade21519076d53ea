"""ONNX without the onnx package: reading, checking and cutting graphs as bytes."""
