"""Who is compared: artifacts of a bundle, PyTorch and other libraries, each started in a process of its own."""
