"""FP16 graphs: which tensors become FP16, which stay in FP32 and why, and how FP16 rounds."""
