"""Devices and TensorRT releases: what their parsers take, and where a graph would fail."""
