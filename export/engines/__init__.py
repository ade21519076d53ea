"""TensorRT engines: built from a bundle's graphs, verified, and what their layers became."""
