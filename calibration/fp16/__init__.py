"""FP16 graphs: which tensors become FP16, which stay in FP32 and why, and FP16's rounding on a CPU."""
