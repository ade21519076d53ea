"""What is compared: a bundle's artifacts, PyTorch and other libraries, each of which can live in a process of its own."""
