"""ONNX Runtime: sessions, and what each node takes."""
