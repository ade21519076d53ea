"""TensorRT: engines, their execution lanes and memory, and the differences between its releases."""
