"""FP16 graphs: which tensors become FP16, which stay in FP32 and why; and what a CPU computes of FP16 and INT8 graphs for GPUs."""
