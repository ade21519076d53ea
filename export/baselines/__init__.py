"""What exported graphs are compared with: PyTorch's own forward, separate single-task networks, synthetic heads."""
