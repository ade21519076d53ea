"""ONNX Runtime: sessions, and how long each node takes."""
