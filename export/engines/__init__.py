"""TensorRT engines: building them from a bundle's graphs, verifying them, and finding the precision of their layers."""
