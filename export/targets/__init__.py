"""Devices and TensorRT releases: what their parsers read, and where a graph would fail."""
