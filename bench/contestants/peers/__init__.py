"""Contestants that are not the bundle's own: PyTorch's forward, OpenVINO, ONNX Runtime's other providers, engines built anew."""
