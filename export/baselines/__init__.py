"""What exported graphs are compared with in benchmarks: PyTorch's own ``forward``, and networks with more heads."""
